"""A hierarchy as Zarr v3 whose arrays are sharded: few large files, made of the stored payloads and an index.

Follows the Zarr core specification, version 3.1, and "sharding_indexed", version 1.0: the payloads of a shard's blocks
in C order, then the index (offset and length of each block as u64, both 2^64 - 1 for a block that is not stored) and
its CRC-32C. The shape of shards follows from metadata alone; a shard of which nothing is stored is absent.

Arrays that the client shards, and those whose codecs are not known, have their own files under their own ``zarr.json``.
All metadata mean what they mean in ``zarr/``: attributes, and so OME-Zarr 0.5, are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from crc32c import crc32c

from volfs.model.box import Box, Index
from volfs.model.grid import ChunkGrid, block_shape_for
from volfs.model.metadata import array_zarr_json, group_zarr_json
from volfs.views.folder import ArrayView, Fixed, Folder, NodeView, ViewFile, nested
from volfs.views.layout import Layout, Literal, Payload

SHARD_BYTES = 512 << 20
"""Voxels of one shard, uncompressed, that are aimed at: at least half as many where there are, and blocks are not so
small that they would be too many."""

_DOCUMENT, _CHUNKS = "zarr.json", "c"
_MISSING = 2**64 - 1
_INDEX_CODECS = ({"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"})


def folder(node: NodeView) -> Folder:
    """A group or an array."""
    array = node.array
    if array is not None:
        return _array(node, array)
    children = {name: child for name in node.children() if (child := node.child(name)) is not None}
    entries = [Fixed(name, partial(folder, child)) for name, child in children.items() if name != _DOCUMENT]
    return Folder(
        [*entries, Fixed(_DOCUMENT, lambda: ViewFile.literal(group_zarr_json(node.attributes), node.mtime), 1)],
        mtime=node.mtime,
    )


def _array(node: NodeView, array: ArrayView) -> Folder:
    files: _Shards | _Keys = _Keys(array) if is_sharded(array) or not array.readable else _Shards(array)
    meta = array.meta

    def document() -> ViewFile:
        raw = array_zarr_json(
            meta.shape,
            meta.dtype,
            files.grid.chunk_shape,
            codecs=files.codecs,
            fill_value=meta.fill_value,
            dimension_names=meta.dimension_names,
            attributes=node.attributes,
        )
        return ViewFile.literal(raw, node.mtime)

    def chunks() -> Folder:
        return nested(files.grid.grid_shape, files.make, files.stored_along, node.mtime)

    return Folder([Fixed(_DOCUMENT, document, 1), Fixed(_CHUNKS, chunks)], mtime=node.mtime)


def is_sharded(array: ArrayView) -> bool:
    """Whether the client shards: shards do not go into shards."""
    return any(codec["name"] == "sharding_indexed" for codec in (*array.meta.codecs, *array.block_codecs))


@dataclass(frozen=True, slots=True)
class _Keys:
    """Chunk files as they are stored."""

    array: ArrayView

    @property
    def grid(self) -> ChunkGrid:
        return self.array.meta.grid

    @property
    def codecs(self) -> list[dict[str, Any]]:
        return list(self.array.meta.codecs)

    def make(self, key: Index) -> ViewFile | None:
        size = self.array.key_size(key)
        if size is None:
            return None
        return ViewFile(Layout(Payload(key, size, key=True)), self.array, self.grid.chunk_box(key))

    def stored_along(self, axis: int, keys: Box) -> Sequence[int]:
        return self.array.keys_along(axis, keys)


@dataclass(frozen=True, slots=True)
class _Shards:
    """Shard files made of blocks."""

    array: ArrayView

    @property
    def _blocks(self) -> ChunkGrid:
        return ChunkGrid(self.array.meta.shape, self.array.block_shape)

    @property
    def _per_shard(self) -> Index:
        """Blocks of a shard along each axis."""
        blocks, itemsize = self._blocks, self.array.dtype.itemsize
        return block_shape_for(blocks.chunk_shape, itemsize, blocks.grid_shape, nbytes=SHARD_BYTES, fewest=1)

    @property
    def grid(self) -> ChunkGrid:
        shape = tuple(n * b for n, b in zip(self._per_shard, self.array.block_shape, strict=True))
        return ChunkGrid(self.array.meta.shape, shape)

    @property
    def codecs(self) -> list[dict[str, Any]]:
        configuration = {
            "chunk_shape": list(self.array.block_shape),
            "codecs": list(self.array.block_codecs),
            "index_codecs": list(_INDEX_CODECS),
            "index_location": "end",
        }
        return [{"name": "sharding_indexed", "configuration": configuration}]

    def make(self, shard: Index) -> ViewFile | None:
        per_shard = self._per_shard
        blocks = self._blocks_of(Box(shard, tuple(i + 1 for i in shard)))
        sizes = self.array.block_sizes(blocks)
        stored = np.argwhere(sizes >= 0)
        if not len(stored):
            return None
        lengths = sizes[sizes >= 0]
        ends = np.cumsum(lengths)
        index = np.full((*per_shard, 2), _MISSING, "<u8")
        index[tuple(stored.T)] = np.stack([ends - lengths, lengths], axis=1)
        raw = index.tobytes()
        payloads = (
            Payload(tuple(block), size)
            for block, size in zip((stored + blocks.start).tolist(), lengths.tolist(), strict=True)
        )
        layout = Layout(*payloads, Literal(raw + crc32c(raw).to_bytes(4, "little")))
        return ViewFile(layout, self.array, self.grid.chunk_box(shard))

    def _blocks_of(self, shards: Box) -> Box:
        per_shard = self._per_shard
        start = tuple(a * n for a, n in zip(shards.start, per_shard, strict=True))
        stop = tuple(b * n for b, n in zip(shards.stop, per_shard, strict=True))
        return Box(start, stop).intersect(Box.whole(self._blocks.grid_shape))

    def stored_along(self, axis: int, shards: Box) -> Sequence[int]:
        """Indices along an axis at which a shard of a range has a stored block."""
        per_shard = self._per_shard[axis]
        return sorted({block // per_shard for block in self.array.stored_along(axis, self._blocks_of(shards))})
