"""Whole keys, merged: metadata, side files, objects that volfs does not interpret.

Decided here: a key is its bytes and its mode; one side changed: that side as it is; both: metadata by key of JSON, side
files by line of text, modes by value; what is removed on one side and changed on the other is a conflict. Times are no
part of it, they go with the bytes. Not here: arrays (:mod:`volfs.versions.combine.array_merge`), the rules of JSON and
text (:mod:`volfs.model.three_way`).
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from volfs.catalog import Entry
from volfs.model.name_lists import merge_documents
from volfs.model.three_way import LONGEST_TEXT, merge_text
from volfs.versions.combine.decisions import Orders
from volfs.versions.combine.digests import Digests
from volfs.versions.combine.virtual_base import virtual_value
from volfs.versions.committed.version import Version
from volfs.versions.keys import NODE_JSON

_LARGEST_DOCUMENT = 64 << 20

REMOVED_HERE, REMOVED_THERE = "removed by ours, changed by theirs", "changed by ours, removed by theirs"
BOTH = "changed by both"


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key at a version: the version that changed it last, and what its bytes are known by."""

    version: Version
    key: str
    entry: Entry

    @property
    def mode(self) -> int:
        return self.entry.mode

    @property
    def size(self) -> int:
        assert self.entry.payload is not None
        return self.entry.payload.length

    def read(self) -> bytes:
        """All its bytes."""
        return self.version.read(self.key)


@dataclass(frozen=True, slots=True)
class Odd:
    """What is at several merge bases that are in conflict: unlike anything."""


State = KeyState | Odd | None
"""None: the key is not there."""


@dataclass(frozen=True, slots=True)
class KeyOutcome:
    """What becomes of a key, on top of ours. ``take``: the bytes that theirs has. ``put``: others. ``open``: why it is
    in conflict; it stays as ours has it."""

    kind: Literal["keep", "take", "remove", "put", "open"]
    theirs: KeyState | None = None
    data: bytes = b""
    mode: int = 0
    why: str = ""


KEEP = KeyOutcome("keep")


def taken(theirs: KeyState | None) -> KeyOutcome:
    """A key becomes as theirs has it."""
    return KeyOutcome("remove") if theirs is None else KeyOutcome("take", theirs, mode=theirs.mode)


class KeyMerge:
    """Merges keys of three versions, of which the base may be several."""

    def __init__(
        self, bases: Sequence[Version], ours: Version | None, theirs: Version | None, digests: Digests, orders: Orders
    ) -> None:
        self._bases = {base.number: base for base in bases}
        self._ours, self._theirs = ours, theirs
        self._digests, self._orders = digests, orders

    def outcome(self, key: str) -> KeyOutcome:
        """What becomes of one key."""
        ours, theirs = state_of(self._ours, key), state_of(self._theirs, key)
        if self.same(ours, theirs):
            return KEEP
        base = self.base(key)
        if self.same(base, theirs):
            return KEEP
        if self.same(base, ours):
            return taken(theirs)
        merged = None
        if not self._orders.strict and ours is not None and theirs is not None:
            merged = self._merged(key, base, ours, theirs)
        if merged is not None:
            return merged
        why = BOTH if ours is not None and theirs is not None else REMOVED_HERE if ours is None else REMOVED_THERE
        return self.decided(key, theirs, why)

    def decided(self, key: str, theirs: KeyState | None, why: str) -> KeyOutcome:
        """What becomes of a key in conflict, by the orders given."""
        match self._orders.of_key(key):
            case "ours":
                return KEEP
            case "theirs":
                return taken(theirs)
        return KeyOutcome("open", theirs, why=why)

    def base(self, key: str) -> State:
        """The key at the merged bases."""
        if not self._bases:
            return None
        graph = next(iter(self._bases.values())).dataset.graph

        def value_at(number: int) -> State:
            version = self._bases.get(number)
            return state_of(version or next(iter(self._bases.values())).dataset.version(number), key)

        return virtual_value(graph, tuple(self._bases), value_at, self.same, lambda *_: Odd(), None)

    def same(self, one: State, other: State) -> bool:
        """Whether two states have the same bytes and mode."""
        if one is None or other is None:
            return one is other
        if isinstance(one, Odd) or isinstance(other, Odd):
            return False
        return one.mode == other.mode and self._same_bytes(one, other)

    def _same_bytes(self, one: KeyState, other: KeyState) -> bool:
        a, b = one.entry.payload, other.entry.payload
        assert a is not None and b is not None
        if (a.length, a.crc32c) != (b.length, b.crc32c):
            return False
        if (a.file, a.offset) == (b.file, b.offset):
            return True
        return self._digests.of_key(one.key, one.entry)[0] == self._digests.of_key(other.key, other.entry)[0]

    def _merged(self, key: str, base: State, ours: KeyState, theirs: KeyState) -> KeyOutcome | None:
        if isinstance(base, Odd) or stat.S_ISLNK(ours.mode) or stat.S_ISLNK(theirs.mode):
            return None
        mode = ours.mode
        if ours.mode != theirs.mode:
            if base is None or base.mode not in (ours.mode, theirs.mode):
                return None
            mode = theirs.mode if base.mode == ours.mode else ours.mode
        if self._same_bytes(ours, theirs) or (base is not None and self._same_bytes(base, theirs)):
            return KeyOutcome("put", data=ours.read(), mode=mode) if mode != ours.mode else KEEP
        if base is not None and self._same_bytes(base, ours):
            return KeyOutcome("take", theirs, mode=mode)
        if any(side.size > _longest(key) for side in (base, ours, theirs) if side is not None):
            return None
        data = merged_bytes(key, None if base is None else base.read(), ours.read(), theirs.read())
        return None if data is None else KeyOutcome("put", data=data, mode=mode)


def merged_bytes(key: str, base: bytes | None, ours: bytes, theirs: bytes) -> bytes | None:
    """A file that both sides have changed: metadata merges by key of JSON, side files by line. None if it does not."""
    if max(len(base or b""), len(ours), len(theirs)) > _longest(key):
        return None
    if _is_document(key):
        return merge_documents(base, ours, theirs)
    return merge_text(base, ours, theirs) if base is not None and key.startswith("files/") else None


def _is_document(key: str) -> bool:
    return key.startswith("zarr/") and key.endswith(f"/{NODE_JSON}")


def _longest(key: str) -> int:
    """Bytes of the longest file that is merged."""
    return _LARGEST_DOCUMENT if _is_document(key) else LONGEST_TEXT


def state_of(version: Version | None, key: str) -> KeyState | None:
    """A key at a version; None where there is no file."""
    entry = None if version is None else version.entry(key)
    return KeyState(version, key, entry) if version is not None and entry is not None and entry.payload else None
