"""Shard files: what a commit packs, any Zarr reader opens, in a version's own directory, without volfs."""

from __future__ import annotations

import errno
import json
import os
import threading
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
import zarr
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kits.example_counts import examples
from volfs.errors import AlreadyThere, BadInput, BadMetadata, Damaged, NoSpace
from volfs.model.box import Index
from volfs.model.grid import split
from volfs.model.metadata import ArrayMeta, array_zarr_json, group_zarr_json, parse_node
from volfs.storage.codec import ChunkCodec
from volfs.storage.directory_backend import DirectoryBackend, FileWriter
from volfs.storage.payload import PayloadReader, digest
from volfs.storage.shards import (
    MISSING,
    NOTE,
    ShardWriter,
    encode_shard_index,
    read_shard_index,
    shard_index_size,
    wrap_array_json,
)


def reader_of(data: bytes) -> Any:
    return lambda offset, length: data[offset : offset + length]


def pack(
    folder: Path, array: np.ndarray, chunks: Index, per_shard: Index, skip: frozenset[Index], **extra: Any
) -> bytes:
    """Write a hand-made version directory: the wrapped metadata and shard files; the client's own zarr.json."""
    raw = array_zarr_json(array.shape, array.dtype, chunks, fill_value=1, **extra)
    meta = parse_node(raw)
    assert isinstance(meta, ArrayMeta)
    codec = ChunkCodec.of(meta)
    writers: dict[Index, ShardWriter] = {}
    for coords in np.ndindex(meta.grid.grid_shape):
        if coords in skip:
            continue
        block, cell = split(coords, per_shard)
        if block not in writers:
            path = folder / meta.chunk_key(block)
            path.parent.mkdir(parents=True, exist_ok=True)
            writers[block] = ShardWriter(FileWriter(path, 0o666), per_shard)
        padded = np.full(chunks, meta.fill_value)
        box = meta.grid.chunk_box(coords)
        padded[tuple(slice(0, n) for n in box.shape)] = array[box.slices()]
        writers[block].append(cell, codec.encode(padded))
    for writer in writers.values():
        writer.finish()
    shard_shape = tuple(c * n for c, n in zip(chunks, per_shard, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zarr.json").write_bytes(wrap_array_json(raw, shard_shape, {"complete": not skip}))
    return raw


@settings(max_examples=examples(25))
@given(st.data())
def test_zarr_and_tensorstore_open_a_version_without_volfs(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("version")
    ndim = data.draw(st.integers(1, 4))
    pick = lambda *values: tuple(data.draw(st.sampled_from(values)) for _ in range(ndim))  # noqa: E731
    shape, chunks, per_shard = pick(1, 3, 7, 10), pick(1, 2, 5), pick(1, 2, 4)
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "float32", "bool"]))
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    grid = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    skip = frozenset(data.draw(st.sets(st.sampled_from(list(np.ndindex(*grid))), max_size=3)))
    pack(folder / "s0", array, chunks, per_shard, skip)
    expected = array.copy()
    for coords in skip:
        expected[tuple(slice(i * c, (i + 1) * c) for i, c in zip(coords, chunks, strict=True))] = np.asarray(1, dtype)
    (folder / "zarr.json").write_bytes(group_zarr_json())
    opened = zarr.open_group(folder, mode="r")["s0"]
    np.testing.assert_array_equal(opened[...], expected)
    theirs = ts.open({"driver": "zarr3", "kvstore": f"file://{folder}/s0/"}).result()
    np.testing.assert_array_equal(np.asarray(theirs.read().result()), expected)


def test_wrapped_metadata_keeps_all_else_and_says_how_it_is_stored() -> None:
    raw = array_zarr_json(
        (8, 8),
        "uint16",
        (2, 2),
        dimension_names=["y", "x"],
        attributes={"volfs": {"rgb": False}, "a": [1]},
        fill_value=3,
    )
    doc = json.loads(raw)
    doc["novel"] = {"must_understand": False}
    doc["chunk_key_encoding"] = {"name": "v2", "configuration": {"separator": "/"}}
    doc["consolidated_metadata"] = None
    wrapped = json.loads(wrap_array_json(json.dumps(doc).encode(), (4, 8), {"block_shape": [2, 4], "complete": True}))
    assert wrapped.pop("attributes") == {**doc.pop("attributes"), NOTE: {"block_shape": [2, 4], "complete": True}}
    assert wrapped.pop("chunk_grid")["configuration"]["chunk_shape"] == [4, 8]
    (codec,) = wrapped.pop("codecs")
    assert codec["configuration"]["codecs"] == doc.pop("codecs")
    assert codec["configuration"]["chunk_shape"] == doc.pop("chunk_grid")["configuration"]["chunk_shape"]
    doc.pop("consolidated_metadata")
    assert wrapped == doc


def test_an_array_of_one_key_per_chunk_only_gets_the_note() -> None:
    raw = array_zarr_json((8, 8), "uint16", (2, 2))
    wrapped = json.loads(wrap_array_json(raw, None, {"complete": False}))
    assert wrapped.pop("attributes") == {NOTE: {"complete": False}}
    doc = json.loads(raw)
    doc.pop("attributes")
    assert wrapped == doc


@pytest.mark.parametrize("shape", [(3, 8), (4,), (4, 8, 1), (0, 8)])
def test_shards_hold_whole_chunks(shape: Index) -> None:
    with pytest.raises(BadInput):
        wrap_array_json(array_zarr_json((8, 8), "uint16", (2, 2)), shape, {})


def test_only_arrays_are_wrapped() -> None:
    with pytest.raises(BadMetadata):
        wrap_array_json(group_zarr_json(), (2, 2), {})


def test_payloads_are_where_append_said_and_in_the_index(tmp_path: Path) -> None:
    with ShardWriter(FileWriter(tmp_path / "s", 0o666), (2, 3)) as writer:
        places = {cell: writer.append(cell, bytes([cell]) * (cell + 1)) for cell in (4, 0, 5)}
        assert writer.count == 3
        size = writer.finish()
    raw = (tmp_path / "s").read_bytes()
    assert len(raw) == size == 6 + 1 + 5 + shard_index_size(6)
    index = read_shard_index(reader_of(raw), size, (2, 3))
    for cell in range(6):
        offset, length = (int(n) for n in index[cell])
        if cell in places:
            assert (offset, length) == places[cell]
            assert raw[offset : offset + length] == bytes([cell]) * (cell + 1)
        else:
            assert offset == length == MISSING
    reader = PayloadReader(DirectoryBackend(tmp_path, tmp_path / "lock"))
    assert reader.read(digest(bytes([4]) * 5).payload("s", places[4][0])) == bytes([4]) * 5


def test_many_threads_fill_one_shard(tmp_path: Path) -> None:
    writer = ShardWriter(FileWriter(tmp_path / "s", 0o666), (16, 16))

    def work(first: int) -> None:
        for cell in range(first, 256, 8):
            writer.append(cell, cell.to_bytes(2, "big") * (cell % 7 + 1))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    size = writer.finish()
    raw = (tmp_path / "s").read_bytes()
    index = read_shard_index(reader_of(raw), size, (256,))
    for cell, (offset, length) in enumerate(index.tolist()):
        assert raw[offset : offset + length] == cell.to_bytes(2, "big") * (cell % 7 + 1)


def test_a_chunk_is_put_once_and_inside_its_shard(tmp_path: Path) -> None:
    with ShardWriter(FileWriter(tmp_path / "s", 0o666), (2, 2)) as writer:
        writer.append(1, b"x")
        with pytest.raises(AlreadyThere):
            writer.append(1, b"y")
        for cell in (4, -1):
            with pytest.raises(BadInput):
                writer.append(cell, b"z")


def test_a_shard_given_up_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(FileWriter(tmp_path / "s", 0o666), (2,)) as writer:
        writer.append(0, b"x")
        raise RuntimeError
    assert not (tmp_path / "s").exists()
    writer.abort()


def test_a_full_disk_is_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ShardWriter(FileWriter(tmp_path / "s", 0o666), (2,))

    def full(fd: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NoSpace):
        writer.append(0, b"x")
    writer.abort()


def test_every_flipped_bit_of_an_index_is_damage() -> None:
    index = np.array([[0, 5], [MISSING, MISSING], [5, 7]], np.uint64)
    raw = b"x" * 12 + encode_shard_index(index)
    np.testing.assert_array_equal(read_shard_index(reader_of(raw), len(raw), (3,)), index)
    for at in range(12, len(raw)):
        for bit in range(8):
            damaged = bytearray(raw)
            damaged[at] ^= 1 << bit
            with pytest.raises(Damaged):
                read_shard_index(reader_of(bytes(damaged)), len(raw), (3,))


@pytest.mark.parametrize("entry", [(0, 13), (13, 1), (2**63, 2**63), (MISSING, 1), (1, MISSING)])
def test_an_index_that_points_outside_is_damage(entry: tuple[int, int]) -> None:
    raw = b"x" * 12 + encode_shard_index(np.array([entry], np.uint64))
    with pytest.raises(Damaged):
        read_shard_index(reader_of(raw), len(raw), (1,))


def test_a_short_shard_is_damage() -> None:
    raw = encode_shard_index(np.full((4, 2), MISSING, np.uint64))
    with pytest.raises(Damaged):
        read_shard_index(reader_of(raw[1:]), len(raw) - 1, (4,))
    with pytest.raises(Damaged):
        read_shard_index(reader_of(raw[:-1]), len(raw), (4,))


def test_a_version_directory_reads_as_the_client_wrote_it(tmp_path: Path) -> None:
    array = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30)
    raw = pack(tmp_path, array, (4, 5), (2, 4), frozenset())
    wrapped = parse_node((tmp_path / "zarr.json").read_bytes())
    client = parse_node(raw)
    assert isinstance(wrapped, ArrayMeta)
    assert isinstance(client, ArrayMeta)
    assert wrapped.sharding is not None
    assert wrapped.sharding.chunk_shape == client.chunk_shape
    assert wrapped.sharding.codecs == client.codecs
    assert wrapped.chunk_shape == (8, 20)
    shard = (tmp_path / "c/0/0").read_bytes()
    cells = prod((2, 4))
    assert crc32c(shard[-(16 * cells + 4) : -4]).to_bytes(4, "little") == shard[-4:]
    opened = ChunkCodec.of(wrapped).open_shard(reader_of(shard), len(shard))
    np.testing.assert_array_equal(opened.decode((1, 2)), array[4:8, 10:15])
