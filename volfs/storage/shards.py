"""Shard files of a version: chunks that a commit packs together, in Zarr's own ``sharding_indexed`` format.

Decided here: the file (payloads one after another, then an index of (offset, length) as little-endian u64 pairs in C
order, then the index's crc32c), and the metadata that makes any Zarr v3 reader understand it. Not here: which chunks go
into a shard (:mod:`volfs.versions`); shards that clients wrote themselves (:mod:`volfs.storage.sharding_codec`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from math import prod
from types import TracebackType
from typing import Any

import numpy as np
from crc32c import crc32c

from volfs.errors import AlreadyThere, BadInput, BadMetadata, Damaged
from volfs.model.box import Index
from volfs.model.metadata import ArrayMeta, Json, parse_node
from volfs.storage.backend import Buffer, ObjectWriter
from volfs.storage.chain import ReadRange

MISSING = 2**64 - 1
"""Offset and length of a chunk that the shard does not hold."""

NOTE = "volfs_stored"
"""The attribute under which a version's own ``zarr.json`` says how it is stored."""

INDEX_CODECS: tuple[Json, ...] = (
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "crc32c"},
)

ShardIndex = np.ndarray[Any, np.dtype[np.uint64]]


class ShardWriter:
    """Writes one shard. Chunks may be appended in any order and from many threads.

    Leaving the context with an error, or :meth:`abort`, takes the object back.
    """

    def __init__(self, out: ObjectWriter, chunks_per_shard: Sequence[int]) -> None:
        self._out = out
        self._index: ShardIndex = np.full((prod(chunks_per_shard), 2), MISSING, np.uint64)
        self._lock = threading.Lock()
        self._finished = False

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._out.size

    @property
    def count(self) -> int:
        """Chunks held so far."""
        return int((self._index[:, 1] != MISSING).sum())

    def append(self, cell: int, payload: Buffer) -> tuple[int, int]:
        """Write one chunk's payload; its (offset, length) in the shard. ``cell`` is its ordinal in C order."""
        return self.append_all((cell,), (len(payload),), payload), len(payload)

    def append_all(self, cells: Sequence[int], lengths: Sequence[int], payloads: Buffer) -> int:
        """Write the payloads of several chunks, one after the other in memory; the offset of the first."""
        with self._lock:
            assert not self._finished, "the shard is finished"
            for cell in cells:
                if not 0 <= cell < len(self._index):
                    raise BadInput(f"chunk {cell} of a shard of {len(self._index)}")
                if self._index[cell, 1] != MISSING:
                    raise AlreadyThere(f"chunk {cell} is in the shard already")
            first = self._out.size
            self._out.write(payloads)
            places = list(cells)
            self._index[places, 0] = first + np.cumsum((0, *lengths[:-1]))
            self._index[places, 1] = lengths
            return first

    def finish(self) -> int:
        """Write the index; the shard's size."""
        with self._lock:
            assert not self._finished, "the shard is finished"
            self._out.write(encode_shard_index(self._index))
            self._out.flush()
            self._out.close()
            self._finished = True
            return self._out.size

    def suspend(self) -> None:
        """Give the file descriptor back; the next append opens the file again. An import writes thousands at once."""
        with self._lock:
            if not self._finished:
                self._out.suspend()

    def abort(self) -> None:
        """Take the object back, unless it is finished."""
        with self._lock:
            if not self._finished:
                self._finished = True
                self._out.abort()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abort()
        elif not self._finished:
            self.finish()


def encode_shard_index(index: ShardIndex) -> bytes:
    """The bytes at the end of a shard file, from (offset, length) per cell."""
    raw = np.ascontiguousarray(index, "<u8").tobytes()
    return raw + crc32c(raw).to_bytes(4, "little")


def shard_index_size(cells: int) -> int:
    """Bytes of the index of a shard with ``cells`` chunks."""
    return 16 * cells + 4


def read_shard_index(read: ReadRange, size: int, chunks_per_shard: Sequence[int]) -> ShardIndex:
    """(offset, length) per cell of a shard file of ``size`` bytes, MISSING twice for chunks it does not hold.

    Damaged if the index fails its checksum or points outside the payloads.
    """
    cells = prod(chunks_per_shard)
    tail = shard_index_size(cells)
    if size < tail:
        raise Damaged(f"a shard of {size} bytes cannot hold an index of {cells} chunks")
    raw = read(size - tail, tail)
    if len(raw) != tail or crc32c(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
        raise Damaged("shard index: checksum mismatch")
    index: ShardIndex = np.frombuffer(raw, "<u8", 2 * cells).reshape(cells, 2)
    held = index[(index != MISSING).any(axis=1)]
    end = size - tail
    if len(held) and (held[:, 0].max() > end or (held[:, 1] > end - held[:, 0]).any()):
        raise Damaged("shard index: a chunk lies outside the shard")
    return index


def wrap_array_json(client_json: bytes, shard_shape: Sequence[int] | None, note: Mapping[str, Any]) -> bytes:
    """The ``zarr.json`` of a version's own directory: the client's, but saying how its chunks are packed there.

    ``shard_shape`` is in voxels, a whole number of chunks along each axis; None where each key is a file of its own.
    All other fields, attributes included, stay as they are; ``note`` (block shape, whether the array is complete here)
    is added to the attributes as :data:`NOTE`. Inline consolidated metadata is dropped: it would not match.
    """
    meta = parse_node(client_json)
    if not isinstance(meta, ArrayMeta):
        raise BadMetadata("only an array is stored in shards")
    doc: Json = json.loads(client_json)
    doc.pop("consolidated_metadata", None)
    if shard_shape is not None:
        check_shard_shape(meta.chunk_shape, shard_shape)
        doc["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": [int(n) for n in shard_shape]}}
        doc["codecs"] = [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": list(meta.chunk_shape),
                    "codecs": doc["codecs"],
                    "index_codecs": list(INDEX_CODECS),
                    "index_location": "end",
                },
            }
        ]
    doc["attributes"] = {**doc.get("attributes", {}), NOTE: dict(note)}
    return json.dumps(doc, indent=2).encode()


def check_shard_shape(chunk_shape: Index, shard_shape: Sequence[int]) -> None:
    """BadInput unless a shard holds a whole number of chunks along each axis."""
    if len(shard_shape) != len(chunk_shape) or any(
        n < 1 or n % c for n, c in zip(shard_shape, chunk_shape, strict=True)
    ):
        raise BadInput(f"a shard of {tuple(shard_shape)} is not made of whole chunks of {chunk_shape}")
