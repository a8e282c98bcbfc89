"""The shard shape of one array in one version, by how densely its chunks lie.

Decided here: one shard shape per array and version, from one chunk (unsharded) up to :data:`LARGEST` of voxels, such
that files and shard indexes together cost least. Not decided here: how shards are written
(:mod:`volfs.storage.shards`) and how index blocks are shaped (:func:`volfs.model.grid.block_shape_for`): a shard shape
always divides the block shape, so that a shard never crosses index blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
from numpy.typing import NDArray

LARGEST = 256 * 2**20
"""Bytes of voxels in the largest shard. A shard of one chunk may be larger: the chunk is the client's choice."""

_FILE_COST = 8192
"""What one more file costs, in bytes of index: an inode, half a block of slack, an open and an fsync."""

_INDEX_ENTRY = 16
"""Bytes of shard index per chunk, present or not (sharding_indexed: offset and length as u64)."""


def dense_shard(block_shape: tuple[int, ...], chunk_bytes: int) -> tuple[int, ...]:
    """The largest shard (in chunks per axis): for an array written whole."""
    return next(_candidates(block_shape, chunk_bytes))


def choose_shard(block_shape: tuple[int, ...], chunk_bytes: int, changed: NDArray[np.int64]) -> tuple[int, ...]:
    """The shard shape (in chunks per axis) for the chunks that changed.

    ``changed`` has one row of chunk coordinates per changed chunk. A compact change packs like a whole array; a
    scattered one becomes single chunk files, rather than shards that hold little besides their index.
    """
    if len(changed) == 0:
        return (1,) * len(block_shape)
    best, lowest = (1,) * len(block_shape), None
    for shape in _candidates(block_shape, chunk_bytes):
        cells = prod(shape)
        shards = _count_distinct(changed // np.asarray(shape, dtype=np.int64))
        cost = shards * (_FILE_COST + (_INDEX_ENTRY * cells if cells > 1 else 0))
        if lowest is None or cost < lowest:
            best, lowest = shape, cost
    return best


def _candidates(block_shape: tuple[int, ...], chunk_bytes: int) -> Iterator[tuple[int, ...]]:
    """Shard shapes from the largest allowed down to one chunk, halving the longest axis (the first of equals)."""
    shape = list(block_shape)
    while True:
        if prod(shape) == 1 or prod(shape) * chunk_bytes <= LARGEST:
            yield tuple(shape)
        if prod(shape) == 1:
            return
        longest = max(range(len(shape)), key=lambda axis: shape[axis])
        shape[longest] //= 2


def _count_distinct(rows: NDArray[np.int64]) -> int:
    """How many different rows: as one number per row where that fits, which sorts far faster than rows do."""
    extent = [int(n) + 1 for n in rows.max(axis=0)]
    if prod(extent) < 2**62:
        return len(np.unique(np.ravel_multi_index(tuple(rows.T), extent)))
    return len(np.unique(rows, axis=0))
