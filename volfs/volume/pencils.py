"""Pencils: rows of neighbouring blocks, decoded side by side into one array that suits whoever takes plane after plane.

A slice crosses many blocks and takes one plane of each. Out of a block by itself that plane comes in short pieces, and
finding hundreds of blocks costs more than copying from them. So what a plane needs is kept by the *pencil*: the blocks
along one axis of the plane, one block thick along all others, with the axis that the plane is thin along slowest in
memory. A plane of a pencil is then one piece of memory.

Decided here: which boxes are read by pencils, how a pencil lies in memory, and what names it: the names of its blocks,
so that versions share pencils as they share blocks. A pencil is used only where a box takes it along its whole length:
no block is decoded that the box does not cross. To the reader (:mod:`volfs.volume.reader`) and the cache, a pencil is
a larger block.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from volfs.model.bounded_map import BoundedMap
from volfs.model.box import Box, Index
from volfs.model.grid import ChunkGrid
from volfs.volume.blocks import BlockRef, BlockSource, Each
from volfs.volume.cache import Block, Home, Parts
from volfs.volume.maps import Entries

#: Voxels of a pencil that are aimed at: few to a plane, and yet several to be made at once.
_BYTES = 4 << 20
#: From this size on a pencil is mapped by itself.
_MAPPED = 1 << 20
#: Names remembered per orientation: 2 MB of them. They save looking for the blocks of a plane whose pencils are in the
#: cache, and a plane that crosses more pencils than this, of up to 4 MiB each, is larger than caches are.
_NAMES = 1 << 13

#: Puts blocks of a source into an array, each to where its first voxel is to be.
Load = Callable[[Sequence[tuple[BlockRef, Index]], Block, Each], object]


def lie(box: Box, grid: ChunkGrid) -> tuple[Index, int] | None:
    """The order of axes (slowest first) of the memory that suits a box, and the axis that pencils run along.

    None for a single voxel. Boxes that differ only in where they lie have the same.
    """
    lengths = box.shape
    fastest = next((axis for axis in reversed(range(box.ndim)) if lengths[axis] > 1), None)
    if fastest is None:
        return None

    def rank(axis: int) -> int:
        if axis == fastest:
            return 4
        if grid.chunk_shape[axis] == 1:
            return 0
        if axis > fastest:
            return 1
        return 2 if lengths[axis] == 1 else 3

    order = tuple(sorted(range(box.ndim), key=rank))
    several = (axis for axis in reversed(order) if lengths[axis] > 1 and grid.grid_shape[axis] > 1)
    return order, next(several, fastest)


class Orientation:
    """The pencils of one source that lie one way. Thread-safe."""

    def __init__(self, source: BlockSource, order: Index, along: int) -> None:
        self._source = source
        self._order = order
        self._back = tuple(int(axis) for axis in np.argsort(order))
        self._along = along
        blocks = source.grid
        nbytes = prod(blocks.chunk_shape) * source.dtype.itemsize
        self._count = min(max(1, _BYTES // max(1, nbytes)), blocks.grid_shape[along])
        shape = list(blocks.chunk_shape)
        shape[along] *= self._count
        self.grid = ChunkGrid(blocks.shape, tuple(shape))
        #: (generation, name) of pencils; the name is None where nothing is stored.
        self.remembered: BoundedMap[Index, tuple[Hashable, Hashable]] = BoundedMap(_NAMES)

    @property
    def plain(self) -> bool:
        """Whether pencils are just blocks."""
        return self._count == 1 and self._order == tuple(range(len(self._order)))

    def suits(self, box: Box) -> bool:
        """Whether a box takes each pencil that it crosses along its whole length."""
        length, stop = self.grid.chunk_shape[self._along], box.stop[self._along]
        return box.start[self._along] % length == 0 and (stop % length == 0 or stop == self.grid.shape[self._along])

    def whole(self, blocks: Box) -> Box:
        """All blocks of the pencils that have blocks of a range: what :meth:`ref` needs entries for."""
        axis, start, stop = self._along, list(blocks.start), list(blocks.stop)
        start[axis] -= start[axis] % self._count
        stop[axis] = min(-(-stop[axis] // self._count) * self._count, self._source.grid.grid_shape[axis])
        return Box(tuple(start), tuple(stop))

    def ref(self, coords: Index, entries: Entries, generation: Hashable) -> PencilRef | None:
        """The pencil at these coordinates of :attr:`grid`, None if none of its blocks is stored.

        ``entries`` are those of all its blocks: a name that was made of some of them would stand for other voxels.
        ``generation`` is the source's from before ``entries`` were found.
        """
        known = self.remembered.peek(coords)
        if known is None or known[0] != generation:
            known = (generation, self._name(coords, entries))
            self.remembered.put(coords, known)
        return None if known[1] is None else PencilRef(known[1], self, coords, entries)

    def names(self, coords: Iterable[Index], generation: Hashable) -> list[Hashable] | None:
        """The names of pencils, None for one that holds nothing, if all of them are remembered."""
        names, remembered = [], self.remembered.peek
        for at in coords:
            known = remembered(at)
            if known is None or known[0] != generation:
                return None
            names.append(known[1])
        return names

    def load(self, coords: Index, entries: Entries, load: Load, each: Each) -> Block:
        """Make a pencil: whole blocks, seen in the axis order of the array."""
        places = dict(self.blocks(coords))
        shape = [*self._source.grid.chunk_shape]
        shape[self._along] *= len(places)
        array = _memory(tuple(shape[axis] for axis in self._order), self._source.dtype).transpose(self._back)
        wanted: list[tuple[BlockRef, Index]] = []
        for at, place in places.items():
            ref = self._source.ref(at, entries)
            if ref is None:
                array[place] = self._source.fill_value
            else:
                wanted.append((ref, tuple(part.start or 0 for part in place)))
        load(wanted, array, each)
        return array

    def blocks(self, coords: Index) -> Iterator[tuple[Index, tuple[slice, ...]]]:
        """The coordinates of a pencil's blocks, in order, each with its place in the pencil."""
        axis, first, length = self._along, coords[self._along] * self._count, self._source.grid.chunk_shape[self._along]
        everything = (slice(None),) * len(coords)
        for i in range(min(self._count, self._source.grid.grid_shape[axis] - first)):
            place = (*everything[:axis], slice(i * length, (i + 1) * length), *everything[axis + 1 :])
            yield (*coords[:axis], first + i, *coords[axis + 1 :]), place

    def parts(self, coords: Index, entries: Entries) -> Parts:
        """The names of a pencil's blocks, each with its place in the pencil."""
        refs = ((self._source.ref(at, entries), place) for at, place in self.blocks(coords))
        return {ref.key: place for ref, place in refs if ref is not None}

    def home(self, coords: Index, entries: Entries) -> Home | None:
        """The place of a branch that a pencil is of; its contents are uncommitted if those of any of its blocks are."""
        if self._source.home is None:
            return None
        refs = (self._source.ref(at, entries) for at, _ in self.blocks(coords))
        homes = [ref.home() for ref in refs if ref is not None]
        loose = any(home is not None and home[1] for home in homes)
        return ("pencil", self._order, self._along, self._source.home, coords), loose

    def _name(self, coords: Index, entries: Entries) -> Hashable:
        refs = [self._source.ref(at, entries) for at, _ in self.blocks(coords)]
        if all(ref is None for ref in refs):
            return None
        named = (self._order, self._along, [ref and ref.key for ref in refs])
        digest = hashlib.blake2b(repr(named).encode(errors="surrogateescape"), digest_size=16)
        digest.update(self._source.fill_value.tobytes())
        return b"pencil" + digest.digest()


class PencilRef:
    """One pencil that holds something."""

    __slots__ = ("_coords", "_entries", "_orientation", "key")

    def __init__(self, key: Hashable, orientation: Orientation, coords: Index, entries: Entries) -> None:
        self.key = key
        self._orientation, self._coords, self._entries = orientation, coords, entries

    def load(self, load: Load, each: Each) -> Block:
        """Make it, each block by `load`, spread by `each`."""
        return self._orientation.load(self._coords, self._entries, load, each)

    def parts(self) -> Parts:
        """The names of the blocks in it, each with its place."""
        return self._orientation.parts(self._coords, self._entries)

    def home(self) -> Home | None:
        """The place of a branch whose contents this is; None in a version."""
        return self._orientation.home(self._coords, self._entries)


def _memory(shape: Index, dtype: np.dtype[Any]) -> Block:
    """Writable memory, which goes back to the system with the pencil.

    In small pages: a virtual machine may have to be given huge ones by its host, which takes longer than decoding.
    """
    nbytes = prod(shape) * dtype.itemsize
    if nbytes < _MAPPED:
        return np.empty(shape, dtype)
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, dtype, prod(shape)).reshape(shape)
