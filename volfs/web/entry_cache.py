"""Entries of directories that were looked up lately, as the kernel remembers them for a mount.

Decided here: each is kept for as long as the tree says: for ever inside a version, a second where names may change. A
change that comes through this server has all that may change forgotten at once, so that whoever has made it, and
whoever asks after him, sees it. Not here: how long that is (``volfs.tree``).
"""

from __future__ import annotations

import time

from volfs.model.bounded_map import BoundedMap
from volfs.tree.contract.attrs import FOREVER, Attr

_ENTRIES = 20_000


class EntryCache:
    """Attributes by directory and name."""

    def __init__(self) -> None:
        self._lasting: BoundedMap[tuple[int, bytes], tuple[Attr, float]] = BoundedMap(_ENTRIES)
        self._passing: BoundedMap[tuple[int, bytes], tuple[Attr, float]] = BoundedMap(_ENTRIES)
        #: Goes up with every change: what was looked up before one is not kept after it.
        self.changes = 0

    def get(self, folder: int, name: bytes) -> Attr | None:
        """The entry, if it is still known."""
        for entries in (self._lasting, self._passing):
            found = entries.get((folder, name))
            if found is not None and found[1] > time.monotonic():
                return found[0]
        return None

    def put(self, folder: int, name: bytes, attr: Attr, changes: int) -> None:
        """Keep an entry that was looked up when there had been so many ``changes``."""
        seconds = min(attr.entry_timeout, attr.attr_timeout)
        if attr.ino and seconds > 0 and changes == self.changes:
            entries = self._lasting if attr.entry_timeout >= FOREVER else self._passing
            entries.put((folder, name), (attr, time.monotonic() + seconds))

    def forget(self) -> None:
        """Something has changed, or is about to."""
        self.changes += 1
        self._passing.clear()
