"""Which payload holds which chunk, kept in memory by the slab.

Decided here: how much of an array's chunk index is looked up at once and how long it is remembered, so that reading
slice after slice asks the catalog once per slab and cached reads ask nobody. An *entry* is whatever a source of blocks
(:mod:`volfs.volume.blocks`) needs to make the blocks of one key: a stored payload, or the recipe of a derived chunk.

In a version, whose index never changes, whole tiles (as the catalog's own blocks) are remembered. In a branch an answer
counts only as long as the branch's generation does, so no more is asked for than was wanted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from volfs.model.bounded_map import BoundedMap
from volfs.model.box import Box, Index
from volfs.model.grid import ChunkGrid

Entries = dict[Index, Any]

#: What an entry takes, about, and what all that are remembered may.
_ENTRY_BYTES = 384
_MAX_BYTES = _ENTRY_BYTES << 17


class EntryMaps(BoundedMap[Hashable, Entries]):
    """Remembered entries of all arrays of a store."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        super().__init__(max_bytes, lambda entries: (1 + len(entries)) * _ENTRY_BYTES)
        self._ids = itertools.count()

    def new_owner(self) -> int:
        """A number under which one source keeps its entries."""
        return next(self._ids)


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
