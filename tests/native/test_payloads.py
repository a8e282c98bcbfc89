"""Payloads that C makes, against those of the codecs in Python: the same bytes, or doubt and never anything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from volfs.model.metadata import ArrayMeta, parse_node
from volfs.native import core
from volfs.storage.codec import ChunkCodec
from volfs.storage.payload import digest
from volfs.storage.payload_maker import Batch, ChunkEncoder, read_payloads, undecodable

OTHER = "big" if sys.byteorder == "little" else "little"
FILLS: dict[str, list[Any]] = {
    "bool": [False, True],
    "uint8": [0, 7],
    "int16": [0, -3],
    "uint16": [0, 999],
    "uint32": [0],
    "int64": [0, -1],
    "float16": [0.0],
    "float32": [0.0, -0.0, "NaN", "0x7fc00001", 1.5],
    "float64": [0.0, -0.0, "NaN", "Infinity"],
    "complex64": [[0.0, 0.0], [-0.0, 0.0]],
}
"""Types of voxels, and fill values that are not what they seem."""
COMPRESSORS: list[list[dict[str, Any]]] = [
    [],
    [{"name": "crc32c"}],
    *([{"name": "zstd", "configuration": {"level": level, "checksum": level != 0}}] for level in (-7, 0, 3, 9, 22)),
    [{"name": "zstd", "configuration": {"level": 1, "checksum": False}}, {"name": "crc32c"}],
    *(
        [
            {
                "name": "blosc",
                "configuration": {
                    "cname": cname,
                    "clevel": 5,
                    "shuffle": shuffle,
                    "typesize": typesize,
                    "blocksize": blocksize,
                },
            }
        ]
        for cname, shuffle, typesize, blocksize in (
            ("lz4", "shuffle", 2, 0),
            ("lz4hc", "bitshuffle", 4, 512),
            ("zstd", "bitshuffle", 1, 0),
            ("blosclz", "noshuffle", 8, 0),
            ("zlib", "shuffle", 4, 0),
        )
    ),
]


def codec_of(
    shape: tuple[int, ...], dtype: str, fill: Any, order: tuple[int, ...], endian: str, after: Any
) -> ChunkCodec:
    codecs: list[Any] = [{"name": "bytes", "configuration": {"endian": endian}}, *after]
    if order != tuple(range(len(shape))):
        codecs.insert(0, {"name": "transpose", "configuration": {"order": list(order)}})
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": fill,
        "codecs": codecs,
    }
    meta = parse_node(json.dumps(document).encode())
    assert isinstance(meta, ArrayMeta)
    return ChunkCodec.of(meta)


@st.composite
def cases(draw: st.DrawFn) -> tuple[ChunkCodec, np.ndarray, np.ndarray, np.ndarray]:
    """A codec, voxels in memory of any order, and chunks of them, whole ones or cut off by the array's edge."""
    axes = draw(st.integers(1, 4))
    shape = tuple(draw(st.lists(st.integers(1, 13), min_size=axes, max_size=axes)))
    dtype = draw(st.sampled_from(sorted(FILLS)))
    order = tuple(draw(st.permutations(range(axes))))
    endian = draw(st.sampled_from([sys.byteorder, OTHER]))
    fill = draw(st.sampled_from(FILLS[dtype]))
    codec = codec_of(shape, dtype, fill, order, endian, draw(st.sampled_from(COMPRESSORS)))
    whole = tuple(n + draw(st.integers(0, 5)) for n in shape)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    memory = tuple(draw(st.permutations(range(axes))))
    voxels = np.empty([whole[axis] for axis in memory], dtype).transpose(np.argsort(memory))
    voxels[...] = codec.fill_value
    kind = draw(st.sampled_from(["fill", "nearly", "zero", "anything"]))
    if kind == "anything":
        voxels[...] = random.integers(0, 2 if dtype == "bool" else 50, whole).astype(dtype)
    elif kind == "zero":
        voxels[...] = 0
    elif kind == "nearly":
        voxels[tuple(int(random.integers(n)) for n in whole)] = 1
    if draw(st.booleans()):
        voxels.flags.writeable = False
    starts = np.array([[draw(st.integers(0, n - 1)) for n in whole] for _ in range(draw(st.integers(1, 3)))])
    shapes = np.minimum(np.array(shape), np.array(whole) - starts)
    return codec, voxels, starts, shapes


def by_python(codec: ChunkCodec, voxels: np.ndarray, start: np.ndarray, shape: np.ndarray) -> bytes:
    """The payload of a chunk; none if it is all fill value."""
    chunk = codec.filled()
    chunk[tuple(slice(n) for n in shape)] = voxels[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))]
    return b"" if codec.is_fill(chunk) else codec.encode(chunk)


def bytes_of(batch: Batch) -> list[bytes]:
    return [bytes(batch.data[row["offset"] : row["offset"] + row["length"]]) for row in batch.rows]


@given(cases())
@settings(max_examples=500, deadline=None)
def test_payloads_are_those_that_python_makes(case: tuple[ChunkCodec, np.ndarray, np.ndarray, np.ndarray]) -> None:
    codec, voxels, starts, shapes = case
    encoder = ChunkEncoder.of(codec)
    stored = codec.stored_form
    assert stored is not None
    assert (encoder is None) == (codec.dtype.kind == "c" and stored.swapped)
    if encoder is None:
        return
    batch = encoder.encode(voxels, starts, shapes)
    assert batch is not None and batch.doubts == ()
    made = bytes_of(batch)
    assert made == [by_python(codec, voxels, *place) for place in zip(starts, shapes, strict=True)]
    for row, payload in zip(batch.rows, made, strict=True):
        if payload:
            assert row["crc32c"] == crc32c(payload) and row["sha256"].tobytes() == sha256(payload).digest()


@pytest.mark.parametrize("level", [0, 1, 3, 19])
def test_payloads_are_those_that_zarr_python_makes(level: int) -> None:
    """Large enough for zstd to cut them into blocks, as small ones of different releases are often the same."""
    shape, random = (64, 64, 128), np.random.default_rng(4)
    voxels = random.normal(100, 9, shape).cumsum(axis=0).astype("u2")
    store = MemoryStore()
    array = zarr.create_array(
        store, shape=shape, chunks=shape, dtype="u2", compressors=ZstdCodec(level=level, checksum=True)
    )
    array[...] = voxels
    meta = parse_node(json.dumps({**array.metadata.to_dict(), "fill_value": 0}, default=list).encode())
    assert isinstance(meta, ArrayMeta)
    encoder = ChunkEncoder.of(ChunkCodec.of(meta))
    assert encoder is not None
    batch = encoder.encode(voxels, np.zeros((1, 3), int), np.array([shape]))
    assert batch is not None
    assert bytes_of(batch) == [store._store_dict["c/0/0/0"].to_bytes()]


def test_memory_of_a_batch_is_used_again_once_nobody_has_it() -> None:
    encoder = ChunkEncoder.of(codec_of((8,), "uint8", 0, (0,), "little", []))
    assert encoder is not None
    first = encoder.encode(np.arange(1, 9, dtype="u1"), np.array([[0]]), np.array([[8]]))
    second = encoder.encode(np.arange(2, 10, dtype="u1"), np.array([[0]]), np.array([[8]]))
    assert first is not None and second is not None
    assert (bytes_of(first), bytes_of(second)) == ([bytes(range(1, 9))], [bytes(range(2, 10))])
    data = first.data
    del first
    third = encoder.encode(np.arange(3, 11, dtype="u1"), np.array([[0]]), np.array([[8]]))
    assert third is not None and bytes(data) == bytes(range(1, 9)) and bytes_of(third) == [bytes(range(3, 11))]


def test_large_payloads_have_sums_of_their_pieces(tmp_path: Path) -> None:
    shape = (3 << 20) + 5
    encoder = ChunkEncoder.of(codec_of((shape,), "uint8", 0, (0,), "little", []))
    voxels = np.random.default_rng(1).integers(0, 255, shape, dtype="u1")
    assert encoder is not None
    batch = encoder.encode(voxels, np.array([[0]]), np.array([[shape]]))
    assert batch is not None
    assert batch.pieces(0) == digest(voxels.tobytes()).pieces
    (tmp_path / "large").write_bytes(voxels)
    read = read_payloads([str(tmp_path / "large")], shape)
    assert read is not None and read.doubts == () and read.pieces(0) == batch.pieces(0)


@pytest.mark.parametrize(
    "start, shape", [((-1, 0), (1, 1)), ((4, 0), (1, 1)), ((0, 7), (1, 2)), ((0, 0), (0, 1)), ((0, 0), (3, 1))]
)
def test_no_chunk_is_taken_from_outside_the_voxels(start: tuple[int, int], shape: tuple[int, int]) -> None:
    encoder = ChunkEncoder.of(codec_of((2, 4), "uint8", 0, (0, 1), "little", []))
    assert encoder is not None
    with pytest.raises(IndexError):
        encoder.encode(np.zeros((4, 8), "u1"), np.array([start]), np.array([shape]))


def test_voxels_of_another_type_are_pythons() -> None:
    encoder = ChunkEncoder.of(codec_of((2,), "uint16", 0, (0,), "little", []))
    assert encoder is not None
    for dtype in ("u1", "i2", f"{'>' if sys.byteorder == 'little' else '<'}u2"):
        assert encoder.encode(np.zeros(4, dtype), np.array([[0]]), np.array([[2]])) is None


def test_types_and_codecs_that_c_does_not_know_are_pythons() -> None:
    gzip = [{"name": "gzip", "configuration": {"level": 5}}]
    zstd = [{"name": "zstd", "configuration": {"level": 3, "checksum": True}}]
    assert ChunkEncoder.of(codec_of((4,), "uint8", 0, (0,), "little", gzip)) is None
    assert ChunkEncoder.of(codec_of((4,), "uint8", 0, (0,), "little", [*zstd, *gzip])) is None
    assert ChunkEncoder.of(codec_of((4,), "complex128", [0.0, 0.0], (0,), "little", zstd)) is None


def test_whole_files_are_read_and_others_are_in_doubt(tmp_path: Path) -> None:
    contents = [b"first", os.urandom(70_000), b"last"]
    for number, data in enumerate(contents):
        (tmp_path / f"{number}").write_bytes(data)
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to(tmp_path / "0")
    os.mkfifo(tmp_path / "pipe")
    names = ["0", "empty", "1", "link", "none", "2", "pipe", "."]
    batch = read_payloads([str(tmp_path / name) for name in names], 1 << 20)
    assert batch is not None and batch.doubts == (1, 3, 4, 6, 7)
    for number, data in zip((0, 2, 5), contents, strict=True):
        row = batch.rows[number]
        assert bytes_of(batch)[number] == data
        assert row["crc32c"] == crc32c(data) and row["sha256"].tobytes() == sha256(data).digest()
    less = read_payloads([str(tmp_path / name) for name in names], 70_004)
    assert less is not None and less.doubts == (1, 2, 3, 4, 6, 7)


@pytest.mark.parametrize("after", COMPRESSORS, ids=lambda after: "-".join(c["name"] for c in after) or "plain")
@pytest.mark.parametrize("endian", ["little", "big"])
def test_files_that_are_no_chunks_are_in_doubt(tmp_path: Path, endian: str, after: list[Any]) -> None:
    codec = codec_of((7, 8, 9), "uint16", 0, (2, 0, 1), endian, after)
    whole = codec.encode((np.arange(7 * 8 * 9) % 300).reshape(7, 8, 9).astype("u2"))
    files = [whole, whole[:-1], whole + b"\0", b"", whole[1:], whole]
    for number, data in enumerate(files):
        (tmp_path / f"{number}").write_bytes(data)
    paths = [str(tmp_path / f"{number}") for number in range(len(files))]
    assert undecodable([*paths, str(tmp_path / "none")], codec) == [1, 2, 3, 4, 6]


def test_a_bool_that_is_neither_true_nor_false_is_in_doubt(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"\0\1\2\0")
    (tmp_path / "good").write_bytes(b"\0\1\1\0")
    codec = codec_of((4,), "bool", False, (0,), "little", [])
    assert undecodable([str(tmp_path / "bad"), str(tmp_path / "good")], codec) == [0]


def test_rows_are_those_of_the_payloads() -> None:
    maker = core.Maker()
    with pytest.raises(ValueError):
        maker.read([b"/none"], 10, bytearray(core.PAYLOAD_BYTES + 1))


ENCODED = """
import hashlib, sys
import numpy as np
{first}
from volfs.model.metadata import array_zarr_json, parse_node
from volfs.storage.codec import ChunkCodec
from volfs.storage.payload_maker import ChunkEncoder
shape = (64, 64, 64)
codec = ChunkCodec.of(parse_node(array_zarr_json(shape, np.dtype("u2"), shape)))
voxels = np.random.default_rng(7).normal(100, 9, shape).cumsum(axis=0).astype("u2")
by_python = codec.encode(voxels)
encoder = ChunkEncoder.of(codec)
by_c = None if encoder is None else bytes(encoder.encode(voxels, np.zeros((1, 3), int), np.array([shape])).data)
print(hashlib.sha256(by_python).hexdigest(), by_c == by_python if by_c else "no C")
"""


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("", "True"),
        ("import volfs.fuse.front", "True"),
        ("import zarr\nimport volfs.fuse.front", "True"),
        ("import ctypes, volfs.native.core as core\nctypes.CDLL(core.__file__, ctypes.RTLD_GLOBAL)", "no C"),
    ],
    ids=["command", "daemon", "daemon with zarr", "another zstd before all"],
)
def test_no_two_releases_of_zstd_work_on_one_chunk(first: str, expected: str) -> None:
    """Whatever is loaded, and in whatever order: one process after another makes the same bytes."""
    digests = []
    for code in (ENCODED.format(first=first), ENCODED.format(first="")):
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        digests.append(ran.stdout.split(maxsplit=1))
    assert digests[0][1].strip() == expected
    if expected == "True":
        assert digests[0] == digests[1]
