"""The "sharding_indexed" codec as clients use it: many inner chunks in one key, and an index to find them.

Decided here: reading and writing such a payload, whole or one inner chunk at a time (Zarr v3 "sharding_indexed"
specification, version 1.0). The store's own packing writes the same format through :mod:`volfs.storage.shards`, which
streams to a file instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import numpy as np

from volfs.errors import Damaged
from volfs.model.box import Index
from volfs.model.grid import ChunkGrid
from volfs.storage.chain import Array, Chain, ReadRange
from volfs.storage.compressors import Buffer, Wanted

MISSING = 2**64 - 1
"""Offset and length of an inner chunk that is not stored: it is all fill value."""


class Sharding:
    """Array-to-bytes: a chunk of inner chunks. ``index`` is the codec chain of the index, of fixed size."""

    def __init__(
        self,
        shape: Index,
        dtype: np.dtype[Any],
        fill_value: np.generic,
        inner: Chain,
        index: Chain,
        location: Literal["start", "end"],
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.fill_value = fill_value
        self.inner = inner
        self.grid = ChunkGrid(shape, inner.shape)
        self._cells = self.grid.grid_shape
        self._index = index
        self._index_size = index.fixed or 0
        self._location = location

    @property
    def wanted(self) -> Wanted:
        # Twice over, because a shard that was updated in place may hold chunks that are no longer listed.
        return Wanted(None, self._index_size + 2 * prod(self._cells) * self.inner.bound)

    @property
    def plain(self) -> bool:
        return False

    def index_range(self, length: int) -> tuple[int, int]:
        """(offset, length) of the index in a shard of this length."""
        if length < self._index_size:
            raise Damaged(f"sharding_indexed: {length} bytes cannot hold an index of {self._index_size}")
        return (0 if self._location == "start" else length - self._index_size), self._index_size

    def parse_index(self, raw: Buffer, length: int) -> Array:
        """The index, u64 of shape (cells, 2): offset and length of each inner chunk in C order, or MISSING twice."""
        index = self._index.decode(raw).reshape(-1, 2)
        stored = index[(index != MISSING).any(axis=1)]
        if len(stored) and (stored[:, 0].max() > length or (stored[:, 1] > length - stored[:, 0]).any()):
            raise Damaged("sharding_indexed: an inner chunk lies outside the shard")
        return index

    def encode(self, array: Array) -> Buffer:
        parts: list[bytes] = []
        index = np.full((prod(self._cells), 2), MISSING, np.uint64)
        at = self._index_size if self._location == "start" else 0
        for cell, coords in enumerate(np.ndindex(self._cells)):
            inner = array[self.grid.chunk_box(coords).slices()]
            if equals_fill(inner, self.fill_value):
                continue
            parts.append(self.inner.encode(inner))
            index[cell] = at, len(parts[-1])
            at += len(parts[-1])
        encoded = self._index.encode(index.reshape(*self._cells, 2))
        return b"".join([encoded, *parts] if self._location == "start" else [*parts, encoded])

    def decode(self, data: Buffer, out: Array | None) -> Array:
        view = memoryview(data).cast("B")
        shard = ShardReader(self, lambda offset, length: bytes(view[offset : offset + length]), len(view))
        array = out if out is not None else np.empty(self.shape, self.dtype)
        for coords in np.ndindex(self._cells):
            shard.decode(coords, array[self.grid.chunk_box(coords).slices()])
        return array


class ShardReader:
    """One stored shard, read piece by piece. ``grid`` counts inner chunks, from the shard's own origin."""

    def __init__(self, sharding: Sharding, read: ReadRange, length: int) -> None:
        self.grid = sharding.grid
        self.length = length
        self._sharding = sharding
        self._read = read
        self._index = sharding.parse_index(read(*sharding.index_range(length)), length)

    def stored_range(self, coords: Sequence[int]) -> tuple[int, int] | None:
        """(offset, length) of an inner chunk in the shard; None if it is not stored, and so all fill value."""
        cell = int(np.ravel_multi_index(tuple(coords), self.grid.grid_shape))
        offset, length = (int(n) for n in self._index[cell])
        return None if offset == length == MISSING else (offset, length)

    def decode(self, coords: Sequence[int], out: Array | None = None) -> Array:
        """The voxels of one inner chunk, into ``out`` if given. Damaged names the chunk."""
        where = self.stored_range(coords)
        if where is None:
            if out is None:
                out = np.empty(self.grid.chunk_shape, self._sharding.dtype)
            out[...] = self._sharding.fill_value
            return out
        try:
            return self._sharding.inner.decode(self._read(*where), out)
        except Damaged as error:
            raise Damaged(f"inner chunk {tuple(coords)}: {error}") from None


def equals_fill(array: Array, fill_value: np.generic) -> bool:
    """Whether every voxel has the fill value's very bits: -0.0 is not 0.0, and a NaN is only its own kind of NaN."""
    if array.size == 0:
        return True
    flat = array if array.dtype.kind != "c" else array[..., None].view(f"f{array.dtype.itemsize // 2}")
    fill = np.asarray(fill_value)[None].view(f"u{flat.dtype.itemsize}")
    bits = flat.view(fill.dtype) if flat.flags.c_contiguous else np.ascontiguousarray(flat).view(fill.dtype)
    if fill.size == 1:
        # Most chunks that are not fill show it in their first voxel.
        return bool(bits.flat[0] == fill[0]) and bool((bits == fill[0]).all())
    return bool((bits.reshape(-1, fill.size) == fill).all())
