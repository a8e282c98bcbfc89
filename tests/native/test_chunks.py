"""Lists of chunks that C decodes, against the codecs in Python: the same voxels, or doubt and never anything else."""

from __future__ import annotations

import json
import os
import sys
import zlib
from pathlib import Path
from typing import Any

import crc32c as crc32c_library
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volfs.errors import Damaged
from volfs.model.metadata import ArrayMeta, parse_node
from volfs.native import core
from volfs.storage.backend import Backend
from volfs.storage.codec import ChunkCodec
from volfs.storage.decode_list import DecodeList
from volfs.storage.directory_backend import DirectoryBackend
from volfs.storage.payload import Payload, PayloadReader
from volfs.testing.memory_backend import MemoryBackend

OTHER = "big" if sys.byteorder == "little" else "little"
COMPRESSORS: list[list[dict[str, Any]]] = [
    [],
    [{"name": "crc32c"}],
    [{"name": "zstd", "configuration": {"level": 3, "checksum": True}}],
    [{"name": "zstd", "configuration": {"level": 0, "checksum": False}}, {"name": "crc32c"}],
    *(
        [
            {
                "name": "blosc",
                "configuration": {"cname": cname, "clevel": 5, "shuffle": shuffle, "typesize": 2, "blocksize": 0},
            }
        ]
        for cname, shuffle in (("lz4", "shuffle"), ("zstd", "bitshuffle"), ("blosclz", "noshuffle"))
    ),
]


def codec_of(shape: tuple[int, ...], dtype: str, order: tuple[int, ...], endian: str, after: list[Any]) -> ChunkCodec:
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
        "fill_value": 0,
        "codecs": codecs,
    }
    if dtype in ("bool", "complex64"):
        document["fill_value"] = False if dtype == "bool" else [0.0, 0.0]
    return ChunkCodec.of(array_meta(document))


def array_meta(document: dict[str, Any]) -> ArrayMeta:
    meta = parse_node(json.dumps(document).encode())
    assert isinstance(meta, ArrayMeta)
    return meta


def test_c_is_there() -> None:
    """Without it everything works and nothing is fast: where the suite runs, it must have been built."""
    assert core is not None


@given(st.binary(max_size=5000), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_sums_are_those_of_the_libraries(data: bytes, start: int) -> None:
    view = memoryview(data)[start:]  # at any alignment
    expected = crc32c_library.crc32c(view), crc32c_library.crc32c(view), zlib.crc32(view), zlib.adler32(view)
    assert core.checksums(view) == expected


@st.composite
def lists(draw: st.DrawFn) -> tuple[ChunkCodec, list[np.ndarray], tuple[int, ...], tuple[int, ...]]:
    """A codec, chunks of it, how many chunks of room the target has along each axis, and its order in memory."""
    axes = draw(st.integers(1, 4))
    shape = tuple(draw(st.lists(st.integers(1, 19), min_size=axes, max_size=axes)))
    dtype = draw(st.sampled_from(["bool", "uint8", "int16", "uint16", "uint32", "int64", "float32", "float64"]))
    order = tuple(draw(st.permutations(range(axes))))
    endian = draw(st.sampled_from([sys.byteorder, OTHER]))
    codec = codec_of(shape, dtype, order, endian, draw(st.sampled_from(COMPRESSORS)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 4))
    chunks = [random.integers(0, 2 if dtype == "bool" else 50, shape).astype(dtype) for _ in range(count)]
    along = draw(st.integers(0, axes - 1))
    room = tuple(count if axis == along else draw(st.integers(1, 2)) for axis in range(axes))
    return codec, chunks, room, tuple(draw(st.permutations(range(axes))))


def target_of(codec: ChunkCodec, room: tuple[int, ...], memory: tuple[int, ...]) -> np.ndarray:
    """Memory for chunks, its axes in any order, full of something else."""
    shape = [n * many for n, many in zip(codec.shape, room, strict=True)]
    array = np.full([shape[axis] for axis in memory], 1, codec.dtype)
    return array.transpose(np.argsort(memory))


@given(lists())
@settings(max_examples=300, deadline=None)
def test_voxels_are_those_that_python_decodes(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[ChunkCodec, list[np.ndarray], tuple[int, ...], tuple[int, ...]],
) -> None:
    codec, chunks, room, memory = case
    reader, payloads = stored(tmp_path_factory.getbasetemp() / "chunks", codec, chunks)
    target, expected = target_of(codec, room, memory), target_of(codec, room, memory)
    along = next((axis for axis, many in enumerate(room) if many == len(chunks)), 0)
    with DecodeList.of(codec, target, len(chunks)) as listed:  # type: ignore[union-attr]
        for i, payload in enumerate(payloads):
            start = tuple(i * codec.shape[axis] if axis == along else 0 for axis in range(len(room)))
            assert listed.add(reader, payload, start)
            place = tuple(slice(a, a + n) for a, n in zip(start, codec.shape, strict=True))
            codec.decode(reader.read(payload), expected[place])
        listed.drain()
        assert listed.doubts() == []
    reader.close()
    np.testing.assert_array_equal(target, expected)


def stored(folder: Path, codec: ChunkCodec, chunks: list[np.ndarray]) -> tuple[PayloadReader, list[Payload]]:
    """Chunks one after the other in a file, with something between them."""
    folder.mkdir(exist_ok=True)
    data, payloads = b"", []
    for chunk in chunks:
        encoded = codec.encode(chunk)
        data += b"x" * (len(data) % 7)
        payloads.append(Payload("chunks", len(data), len(encoded), crc32c_library.crc32c(encoded)))
        data += encoded
    (folder / "chunks").write_bytes(data)
    return PayloadReader(DirectoryBackend(folder, folder / "lock")), payloads


SHAPE = (7, 8, 9)


@pytest.mark.parametrize("after", COMPRESSORS, ids=lambda after: "-".join(c["name"] for c in after) or "plain")
def test_whatever_is_damaged_is_in_doubt_or_decodes_to_what_python_says(tmp_path: Path, after: list[Any]) -> None:
    """Also where the checksum of the store fits: what a careless or hostile writer made was committed as it came."""
    codec = codec_of(SHAPE, "uint16", (2, 0, 1), OTHER, after)
    chunk = (np.arange(np.prod(SHAPE)) % 300).reshape(SHAPE).astype("u2")
    whole = codec.encode(chunk)
    random = np.random.default_rng(5)
    mutants = [whole[:-1], whole + b"\0", whole + whole, whole[1:], b"", b"\0" * len(whole), whole[: len(whole) // 2]]
    for _ in range(300):
        mutant = bytearray(whole)
        for _ in range(int(random.integers(1, 4))):
            mutant[int(random.integers(0, min(len(whole), 60 if random.random() < 0.5 else len(whole))))] ^= 1 << int(
                random.integers(8)
            )
        mutants.append(bytes(mutant))
    done = 0
    for mutant in mutants:
        (tmp_path / "chunks").write_bytes(mutant)
        reader = PayloadReader(DirectoryBackend(tmp_path, tmp_path / "lock"))
        target = np.empty(SHAPE, "u2")
        with DecodeList.of(codec, target, 1) as listed:  # type: ignore[union-attr]
            listed.add(reader, Payload("chunks", 0, len(mutant), crc32c_library.crc32c(mutant)), (0, 0, 0))
            listed.drain()
            doubts = listed.doubts()
        reader.close()
        if doubts:
            continue
        done += 1
        np.testing.assert_array_equal(target, codec.decode(mutant))
    assert done < len(mutants)


def test_bytes_that_are_not_those_that_were_stored_are_in_doubt(tmp_path: Path) -> None:
    codec = codec_of(SHAPE, "uint8", (0, 1, 2), "little", [])
    reader, payloads = stored(tmp_path, codec, [np.full(SHAPE, i, "u1") for i in range(4)])
    with (tmp_path / "chunks").open("r+b") as file:
        file.seek(payloads[1].offset + 100)
        file.write(b"\x07")
        file.truncate(payloads[3].offset + 10)
    target = np.empty((28, 8, 9), "u1")
    with DecodeList.of(codec, target, 4) as listed:  # type: ignore[union-attr]
        for i, payload in enumerate(payloads):
            listed.add(reader, payload, (7 * i, 0, 0))
        listed.drain()
        assert listed.doubts() == [1, 3]
    assert (target[:7] == 0).all() and (target[14:21] == 2).all()


def test_a_bool_that_is_neither_true_nor_false_is_in_doubt(tmp_path: Path) -> None:
    codec = codec_of((4,), "bool", (0,), "little", [])
    (tmp_path / "chunks").write_bytes(b"\0\1\2\0")
    reader = PayloadReader(DirectoryBackend(tmp_path, tmp_path / "lock"))
    target = np.empty(4, "?")
    with DecodeList.of(codec, target, 1) as listed:  # type: ignore[union-attr]
        listed.add(reader, Payload("chunks", 0, 4, crc32c_library.crc32c(b"\0\1\2\0")), (0,))
        listed.drain()
        assert listed.doubts() == [0]


@pytest.mark.parametrize("endian", ["little", "big"])
def test_complex_numbers_are_decoded_right_or_left_to_python(tmp_path: Path, endian: str) -> None:
    codec = codec_of((4,), "complex64", (0,), endian, [])
    chunk = (np.arange(4) + 1j * np.arange(4, 8)).astype("c8")
    reader, (payload,) = stored(tmp_path, codec, [chunk])
    target = np.empty(4, "c8")
    listed = DecodeList.of(codec, target, 1)
    assert (listed is None) == (endian == OTHER)
    if listed is not None:
        with listed:
            assert listed.add(reader, payload, (0,))
            listed.drain()
            assert listed.doubts() == []
        np.testing.assert_array_equal(target, chunk)


def test_what_lies_in_no_file_of_this_machine_is_read_otherwise() -> None:
    backend: Backend = MemoryBackend()
    codec = codec_of((4,), "uint8", (0,), "little", [])
    backend.put("chunks", b"abcd")
    with DecodeList.of(codec, np.empty(4, "u1"), 1) as listed:  # type: ignore[union-attr]
        assert not listed.add(PayloadReader(backend), Payload("chunks", 0, 4, 0), (0,))
        assert not listed.add(PayloadReader(backend), Payload("none", 0, 4, 0), (0,))


def test_files_stay_open_while_a_list_needs_them_and_no_longer(tmp_path: Path) -> None:
    codec = codec_of((4,), "uint8", (0,), "little", [])
    reader, (payload,) = stored(tmp_path, codec, [np.arange(4, dtype="u1")])
    before = len(os.listdir("/proc/self/fd"))
    target = np.empty(4, "u1")
    with DecodeList.of(codec, target, 1) as listed:  # type: ignore[union-attr]
        listed.add(reader, payload, (0,))
        (tmp_path / "chunks").unlink()
        reader.close()
        listed.drain()
        assert listed.doubts() == []
    assert target.tolist() == [0, 1, 2, 3]
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(Damaged):
        reader.read(payload)


@pytest.mark.parametrize("start", [(-1, 0), (1, 0), (0, 5), (2**62, 0)])
def test_no_chunk_is_put_outside_its_target(start: tuple[int, int]) -> None:
    listed = core.ChunkList(
        np.empty((4, 8), "u1"), (4, 4), swap=False, boolean=False, summed=False, compressor=None, room=1
    )
    with pytest.raises(IndexError):
        listed.add(0, 0, 16, 0, start)


def test_no_list_takes_more_than_it_has_room_for() -> None:
    listed = core.ChunkList(np.empty(4, "u1"), (4,), swap=False, boolean=False, summed=False, compressor=None, room=0)
    with pytest.raises(IndexError):
        listed.add(0, 0, 4, 0, (0,))


@pytest.mark.parametrize("shape", [(0,), (2**40,)])
def test_shapes_that_no_chunk_has_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        core.ChunkList(np.empty(4, "u1"), shape, swap=False, boolean=False, summed=False, compressor=None, room=1)
