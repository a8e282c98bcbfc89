"""Regular chunk grids, and the blocks of chunks by which the store packs and indexes them.

Decided here: which chunk holds which voxels, and how many chunks one block (a shard of a version, a row of the index)
spans. A block is a fixed group of neighbouring chunks; a *cell* is a chunk's ordinal inside its block, in C order. Not
here: chunk keys (:mod:`volfs.model.metadata`) and what is stored in a block (:mod:`volfs.storage.shards`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from volfs.model.box import Box, Index

BLOCK_BYTES = 128 << 20
"""Voxels of one block, uncompressed, that :func:`block_shape_for` aims at."""
MIN_CELLS = 64
MAX_CELLS = 4096


@dataclass(frozen=True, slots=True)
class ChunkGrid:
    """Zarr v3 section 4.4 "regular" grid: chunks of one shape, from the origin; those at the far edge overhang."""

    shape: Index
    chunk_shape: Index

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def grid_shape(self) -> Index:
        """Number of chunks along each axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunk_shape, strict=True))

    def holds(self, coords: Sequence[int]) -> bool:
        """Whether these are coordinates of a chunk with at least one voxel inside the array."""
        return len(coords) == len(self.shape) and all(0 <= i < n for i, n in zip(coords, self.grid_shape, strict=True))

    def chunk_box(self, coords: Sequence[int]) -> Box:
        """The voxels of a chunk that are inside the array."""
        start = tuple(i * c for i, c in zip(coords, self.chunk_shape, strict=True))
        stop = tuple(min(a + c, n) for a, c, n in zip(start, self.chunk_shape, self.shape, strict=True))
        return Box(start, tuple(map(max, start, stop)))

    def chunks(self, box: Box) -> Box:
        """The chunks that a voxel box crosses, as a box of chunk coordinates. Parts outside the array do not count."""
        inside = box.intersect(Box.whole(self.shape))
        if inside.empty:
            return Box((0,) * self.ndim, (0,) * self.ndim)
        return Box(
            tuple(a // c for a, c in zip(inside.start, self.chunk_shape, strict=True)),
            tuple(-(-b // c) for b, c in zip(inside.stop, self.chunk_shape, strict=True)),
        )

    def iter(self, chunk_range: Box) -> Iterator[Index]:
        """Every coordinate in a box of chunk coordinates, in C order."""
        return product(*(range(a, b) for a, b in zip(chunk_range.start, chunk_range.stop, strict=True)))


def block_shape_for(
    chunk_shape: Sequence[int],
    itemsize: int,
    grid_shape: Sequence[int],
    *,
    nbytes: int = BLOCK_BYTES,
    fewest: int = MIN_CELLS,
) -> Index:
    """Chunks per block along each axis, each a power of two.

    Aims at ``nbytes`` of voxels with ``fewest`` to MAX_CELLS cells. The last three axes that have more than one chunk
    grow first, the one with the smallest extent in voxels before the others, so that blocks come out near to cubes;
    then the axes before them, last first. No axis grows past its grid, save axis 0 up to ``fewest`` cells in all: it is
    the one recordings append to, and its grid at creation says little. The result depends on nothing but the arguments.
    """
    ndim = len(chunk_shape)
    if ndim == 0:
        return ()
    per_chunk = max(1, prod(chunk_shape) * itemsize)
    target = min(MAX_CELLS, max(fewest, nbytes // per_chunk))
    target = 1 << (target.bit_length() - 1)
    block = [1] * ndim
    most = [1 << max(0, n - 1).bit_length() for n in grid_shape]

    def grow(axes: Sequence[int], cells: int) -> None:
        while prod(block) < cells:
            open_axes = [i for i in axes if block[i] < most[i]]
            if not open_axes:
                return
            block[min(open_axes, key=lambda i: (block[i] * chunk_shape[i], i))] *= 2

    divided = [i for i in range(ndim) if most[i] > 1]
    grow(divided[-3:], target)
    for axis in reversed(divided[:-3]):
        grow([axis], target)
    most[0] = max(most[0], fewest)
    grow([0], fewest)
    return tuple(block)


def split(coords: Sequence[int], block_shape: Sequence[int]) -> tuple[Index, int]:
    """Chunk coordinates to (block coordinates, cell)."""
    cell = 0
    block = []
    for i, b in zip(coords, block_shape, strict=True):
        q, r = divmod(i, b)
        block.append(q)
        cell = cell * b + r
    return tuple(block), cell


def join(block: Sequence[int], cell: int, block_shape: Sequence[int]) -> Index:
    """(block coordinates, cell) to chunk coordinates: the inverse of :func:`split`."""
    coords = []
    for q, b in zip(reversed(block), reversed(block_shape), strict=True):
        cell, r = divmod(cell, b)
        coords.append(q * b + r)
    return tuple(reversed(coords))
