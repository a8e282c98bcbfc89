"""Which payload holds which chunk, kept in memory by the slab.

Decided here: how much of an array's chunk index is looked up at once and how long it is remembered, so that reading
slice after slice asks the catalog once per slab and cached reads ask nobody. An *entry* is whatever a source of blocks
(:mod:`volfs.volume.blocks`) needs to make the blocks of one key: a stored payload, or the recipe of a derived chunk.

In a version, whose index never changes, whole tiles (as the catalog's own blocks) are remembered. In a branch an answer
counts only as long as the branch's generation does, so no more is asked for than was wanted.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from volfs.model.box import Box, Index
from volfs.model.grid import ChunkGrid

Entries = dict[Index, Any]

#: Entries remembered in all, by everyone, and what one takes, about.
_MAX_ENTRIES, _ENTRY_BYTES = 1 << 17, 384


class EntryMaps:
    """Remembered entries of all arrays of a store, least recently used first to go. Thread-safe."""

    def __init__(self, max_entries: int = _MAX_ENTRIES) -> None:
        self._max = max_entries
        #: Entries remembered now.
        self.count = 0
        self._lock = threading.Lock()
        self._maps: OrderedDict[Hashable, Entries] = OrderedDict()
        self._ids = itertools.count()

    @property
    def bytes(self) -> int:
        """What is remembered takes about so much memory."""
        return self.count * _ENTRY_BYTES

    @property
    def max_bytes(self) -> int:
        return self._max * _ENTRY_BYTES

    def new_owner(self) -> int:
        """A number under which one source keeps its entries."""
        return next(self._ids)

    def get(self, key: Hashable) -> Entries | None:
        with self._lock:
            found = self._maps.get(key)
            if found is not None:
                self._maps.move_to_end(key)
            return found

    def put(self, key: Hashable, entries: Entries) -> None:
        with self._lock:
            self.count += 1 + len(entries) - self._size(self._maps.get(key))
            self._maps[key] = entries
            self._maps.move_to_end(key)
            while self.count > self._max and len(self._maps) > 1:
                _, old = self._maps.popitem(last=False)
                self.count -= self._size(old)

    @staticmethod
    def _size(entries: Entries | None) -> int:
        return 0 if entries is None else 1 + len(entries)


class EntryMap:
    """The entries of one array: `look_up` answers for a range of chunk coordinates, on a miss."""

    def __init__(
        self,
        maps: EntryMaps,
        grid: ChunkGrid,
        tile: Index,
        look_up: Callable[[Box], Entries],
        generation: Callable[[], Hashable],
        lasting: bool,
    ) -> None:
        self._maps = maps
        self._owner = maps.new_owner()
        self._look_up = look_up
        self._generation = generation
        self._lasting = lasting
        self._tiles = ChunkGrid(grid.grid_shape, tile)

    def find(self, chunks: Box) -> Entries:
        """Every entry in the range, and perhaps some beside it."""
        generation = self._generation()
        parts = []
        for part in self._parts(chunks):
            key = (self._owner, generation, part.start, part.stop)
            entries = self._maps.get(key)
            if entries is None:
                entries = self._look_up(part)
                self._maps.put(key, entries)
            parts.append(entries)
        return _merged(parts)

    def peek(self, chunks: Box) -> Entries | None:
        """The same from memory alone, or None."""
        generation = self._generation()
        parts = []
        for part in self._parts(chunks):
            entries = self._maps.get((self._owner, generation, part.start, part.stop))
            if entries is None:
                return None
            parts.append(entries)
        return _merged(parts)

    def _parts(self, chunks: Box) -> Iterator[Box]:
        for coords in self._tiles.iter(self._tiles.chunks(chunks)):
            tile = self._tiles.chunk_box(coords)
            yield tile if self._lasting else tile.intersect(chunks)


def _merged(parts: list[Entries]) -> Entries:
    if len(parts) == 1:
        return parts[0]
    merged: Entries = {}
    for part in parts:
        merged.update(part)
    return merged
