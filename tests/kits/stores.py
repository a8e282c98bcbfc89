"""Small stores for the tests of versions: arrays written chunk by chunk, with numpy as the other side of the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from volfs import init_store
from volfs.model.box import Box, Index
from volfs.model.metadata import ArrayMeta, array_zarr_json, group_zarr_json, parse_node
from volfs.storage.codec import ChunkCodec
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.dataset import Dataset
from volfs.versions.snapshot import ArrayNode, Snapshot
from volfs.versions.store import Store

SECOND = 10**9
START = 1_700_000_000 * SECOND
"""A time for histories that must be equal in two stores."""

CODECS: dict[str, list[dict[str, Any]]] = {
    "zstd-checksum": [{"name": "zstd", "configuration": {"level": 3, "checksum": True}}],
    "zstd": [{"name": "zstd", "configuration": {"level": 3, "checksum": False}}],
    "blosc": [
        {
            "name": "blosc",
            "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 2, "blocksize": 0},
        }
    ],
    "raw": [],
}


def codecs(kind: str) -> list[dict[str, Any]]:
    return [{"name": "bytes", "configuration": {"endian": "little"}}, *CODECS[kind]]


def volume(shape: Index, seed: int = 0, dtype: str = "u2") -> np.ndarray:
    """Voxels that compress a little and never are all fill."""
    return np.random.default_rng(seed).integers(1, 500, shape).astype(dtype)


def new_store(path: Path) -> Store:
    return init_store(path)


def meta_of(raw: bytes) -> ArrayMeta:
    meta = parse_node(raw)
    assert isinstance(meta, ArrayMeta)
    return meta


def chunk(meta: ArrayMeta, voxels: np.ndarray, coords: Index) -> bytes:
    """The payload of one chunk of an array with these voxels."""
    codec = ChunkCodec.of(meta)
    box = meta.grid.chunk_box(coords)
    full = codec.filled()
    full[Box.whole(box.shape).slices()] = voxels[box.slices()]
    return codec.encode(full)


def every_chunk(meta: ArrayMeta) -> list[Index]:
    return list(meta.grid.iter(Box.whole(meta.grid.grid_shape)))


def array_json(voxels: np.ndarray, chunks: Index, **options: Any) -> bytes:
    return array_zarr_json(voxels.shape, voxels.dtype, chunks, **options)


def write_version(
    dataset: Dataset,
    voxels: np.ndarray,
    *,
    parent: int = 0,
    chunks: Index = (8, 8, 8),
    coords: Iterable[Index] | None = None,
    path: str = "s0",
    created: bool | None = None,
    message: str = "made",
    author: str = "tester",
    time_ns: int | None = None,
    branch: str = "main",
    shard_shape: Index | None = None,
    raw: bytes | None = None,
    files: dict[str, bytes] | None = None,
    **options: Any,
) -> int:
    """One version of an array (all of it, or the chunks named); the version's number."""
    raw = raw if raw is not None else array_json(voxels, chunks, **options)
    meta = meta_of(raw)
    with VersionWriter(dataset, branch, parent) as writer:
        if not parent:
            writer.put("zarr/zarr.json", group_zarr_json())
        for key, data in (files or {}).items():
            writer.put(key, data)
        named = None if coords is None else np.array(list(coords), dtype=np.int64)
        array = writer.array(
            path, raw, created=(parent == 0) if created is None else created, shard_shape=shard_shape, chunks=named
        )
        for at in every_chunk(meta) if coords is None else coords:
            array.put(at, chunk(meta, voxels, at))
        return writer.publish(message, author, time_ns).number


def array_at(snapshot: Snapshot, path: str = "s0") -> ArrayNode:
    node = snapshot.node(path)
    assert isinstance(node, ArrayNode)
    return node


def voxels_of(snapshot: Snapshot, path: str = "s0") -> np.ndarray:
    """All voxels of an array, read chunk by chunk through its payloads."""
    array = array_at(snapshot, path)
    meta = array.meta
    out = np.full(meta.shape, meta.fill_value, meta.dtype)
    for coords, payload in array.payloads(Box.whole(meta.grid.grid_shape)).items():
        box = meta.grid.chunk_box(coords)
        out[box.slices()] = array.codec.decode(payload.read())[Box.whole(box.shape).slices()]
    return out


def tree_of(snapshot: Snapshot, key: str = "") -> dict[str, bytes]:
    """Every key with its bytes, by listing and reading."""
    found: dict[str, bytes] = {}
    for name, info in snapshot.list(key):
        inside = f"{key}/{name}" if key else name
        if info.kind == "dir":
            found |= tree_of(snapshot, inside)
        else:
            found[inside] = snapshot.read(inside)
            assert len(found[inside]) == info.size == snapshot.stat(inside).size
    return found
