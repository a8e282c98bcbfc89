"""A listing of a directory of keys in a branch, as it is kept from one page to the next.

Decided here: which attributes of each name are kept, and in how much memory. Not here: which names there are, how long
a listing is kept, and that removed names are left out (:mod:`volfs.tree.nodes.branch_keys`).
"""

from __future__ import annotations

import stat
import time
from array import array
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import chain

from volfs.tree.contract.attrs import Attr
from volfs.tree.core.node import name_cookie
from volfs.versions.working.union import Entry

#: The attributes of a file in a listing: mode, size, mtime (ns) and blocks on disk (-1: none of its own). Of a
#: directory only the mode counts.
Facts = tuple[int, int, int, int]
#: Of a name that is looked up again when it is listed.
UNKNOWN: Facts = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class KeyListing:
    """The names of a directory as of a generation, in the order of their cookies.

    A directory may have a million of them, so their attributes lie in arrays, four numbers for each: in objects of
    their own they take ten times the memory. Computed keys, which are few, come with their attributes.
    """

    generation: Hashable
    when: float
    cookies: array[int]
    names: list[str]
    facts: array[int]
    computed: dict[str, Attr]

    @classmethod
    def of(cls, generation: Hashable, found: dict[str, Facts], computed: dict[str, Attr]) -> KeyListing:
        ordered = sorted((name_cookie(name), name) for name in (*found, *computed))
        names = [name for _, name in ordered]
        facts = array("q", chain.from_iterable(found.get(name, UNKNOWN) for name in names))
        return cls(generation, time.monotonic(), array("q", (at for at, _ in ordered)), names, facts, computed)

    def __len__(self) -> int:
        return len(self.names)

    def facts_at(self, at: int) -> Facts:
        """The attributes of the name at a position of the listing."""
        mode, size, mtime, blocks = self.facts[4 * at : 4 * at + 4]
        return mode, size, mtime, blocks


def facts_of(entry: Entry | None) -> Facts:
    if entry is None:
        return UNKNOWN
    if entry.kind == "dir":
        return stat.S_IFDIR, 0, 0, 0
    info, blocks = entry.info, -1 if entry.st is None else entry.st.st_blocks
    mode = stat.S_IFLNK | 0o777 if info.is_link else stat.S_IFREG | (info.mode or 0o644)
    return mode, info.size, info.mtime_ns, blocks
