"""Codecs: strict, bounded, deterministic, and agreeing with zarr-python and TensorStore."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
import zarr
import zstandard
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import blosc

from tests.kits.example_counts import examples
from volfs.errors import BadInput, Damaged, Unsupported
from volfs.model.metadata import ArrayMeta, array_zarr_json, default_codecs, parse_node
from volfs.storage.codec import ChunkCodec
from volfs.storage.compressors import Blosc, Gzip, Wanted, Zstd
from volfs.testing.waiting import PATIENCE

LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
BIG = {"name": "bytes", "configuration": {"endian": "big"}}
CRC = {"name": "crc32c"}
ZSTD = {"name": "zstd", "configuration": {"level": 3, "checksum": True}}
ZSTD_BARE = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
GZIP = {"name": "gzip", "configuration": {"level": 6}}
TRANSPOSE = {"name": "transpose", "configuration": {"order": [2, 0, 1]}}
BACK = {"name": "transpose", "configuration": {"order": [1, 2, 0]}}


def blosc_codec(cname: str = "lz4", shuffle: str = "shuffle") -> dict[str, Any]:
    config = {"cname": cname, "clevel": 5, "shuffle": shuffle, "typesize": 2, "blocksize": 0}
    return {"name": "blosc", "configuration": config}


def shard(inner: list[Any], location: str = "end", shape: tuple[int, ...] = (4, 5, 6)) -> dict[str, Any]:
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": list(shape),
            "codecs": inner,
            "index_codecs": [LITTLE, CRC],
            "index_location": location,
        },
    }


SHAPE = (8, 10, 12)
CHAINS: dict[str, list[Any]] = {
    "raw": [LITTLE],
    "big": [BIG],
    "zstd": [LITTLE, ZSTD],
    "zstd-bare": [LITTLE, ZSTD_BARE],
    "big-zstd": [BIG, ZSTD],
    "gzip": [LITTLE, GZIP],
    "blosc-lz4": [LITTLE, blosc_codec()],
    "blosc-zstd-bit": [LITTLE, blosc_codec("zstd", "bitshuffle")],
    "blosc-zlib-no": [LITTLE, blosc_codec("zlib", "noshuffle")],
    "blosc-blosclz": [LITTLE, blosc_codec("blosclz")],
    "crc": [LITTLE, CRC],
    "blosc-crc": [LITTLE, blosc_codec(), CRC],
    "zstd-crc": [LITTLE, ZSTD_BARE, CRC],
    "crc-zstd": [LITTLE, CRC, ZSTD_BARE],
    "zstd-gzip": [LITTLE, ZSTD_BARE, GZIP],
    "transpose-zstd": [TRANSPOSE, LITTLE, ZSTD],
    "two-transposes-big": [TRANSPOSE, TRANSPOSE, BIG, GZIP],
    "shard-end": [shard([LITTLE, ZSTD])],
    "shard-start": [shard([LITTLE, ZSTD], "start")],
    "shard-transpose-blosc": [shard([TRANSPOSE, BIG, blosc_codec()])],
    "shard-crc": [shard([LITTLE, CRC])],
    "shard-in-shard": [shard([shard([LITTLE, ZSTD], "start", (2, 5, 3))])],
    "shard-gzip": [shard([LITTLE]), GZIP],
}
CHECKED = {"zstd", "big-zstd", "gzip", "crc", "blosc-crc", "zstd-crc", "crc-zstd", "zstd-gzip", "transpose-zstd"}
CHECKED |= {"two-transposes-big", "shard-gzip"}
"""Chains in which a checksum covers every voxel (shards: an index entry may be flipped to "missing" only in a checked
index, so those with checked inner chunks count too)."""
CHECKED |= {"shard-end", "shard-start", "shard-crc", "shard-in-shard"}


def meta_of(codecs: list[Any], shape: tuple[int, ...] = SHAPE, dtype: str = "uint16", fill: Any = 7) -> ArrayMeta:
    meta = parse_node(array_zarr_json(shape, dtype, shape, codecs=codecs, fill_value=fill))
    assert isinstance(meta, ArrayMeta)
    return meta


def voxels(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    array = np.random.default_rng(seed).integers(0, 9, shape).astype(np.uint16)
    array[:4, :5, :6] = 7
    return array


@pytest.fixture(params=CHAINS)
def chain(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def all_but(*names: str) -> Any:
    return pytest.mark.parametrize("chain", [name for name in CHAINS if name not in names])


def test_round_trip_and_equal_voxels_give_equal_bytes(chain: str) -> None:
    codec = ChunkCodec.of(meta_of(CHAINS[chain]))
    array = voxels()
    payload = codec.encode(array)
    assert payload == ChunkCodec.of(meta_of(CHAINS[chain])).encode(np.asfortranarray(array))
    decoded = codec.decode(payload)
    assert decoded.dtype == np.uint16
    assert decoded.dtype.isnative
    np.testing.assert_array_equal(decoded, array)
    codec.check(lambda offset, length: payload[offset : offset + length], len(payload))


def test_decoding_into_memory_of_any_layout(chain: str) -> None:
    codec = ChunkCodec.of(meta_of(CHAINS[chain]))
    array = voxels()
    payload = codec.encode(array)
    whole = np.zeros((20, 20, 24), np.uint16)
    for out in (np.empty(SHAPE, np.uint16), whole[3:11, 5:15, ::2], np.empty(SHAPE, np.uint16, order="F")):
        assert codec.decode(payload, out) is out
        np.testing.assert_array_equal(out, array)
    assert not whole[11:].any()
    assert not whole[:, :, 1::2].any()
    with pytest.raises(BadInput):
        codec.decode(payload, np.empty((1, 2, 3), np.uint16))
    with pytest.raises(BadInput):
        codec.decode(payload, np.empty(SHAPE, np.int16))


@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
def test_zarr_python_reads_ours_and_we_read_theirs(chain: str, tmp_path: Path) -> None:
    codec = ChunkCodec.of(meta_of(CHAINS[chain]))
    array = voxels()
    (tmp_path / "zarr.json").write_bytes(array_zarr_json(SHAPE, "uint16", SHAPE, codecs=CHAINS[chain], fill_value=7))
    (tmp_path / "c/0/0").mkdir(parents=True)
    (tmp_path / "c/0/0/0").write_bytes(codec.encode(array))
    opened = zarr.open_array(tmp_path, mode="r+")
    np.testing.assert_array_equal(opened[...], array)
    other = voxels(1)
    opened[...] = other
    np.testing.assert_array_equal(codec.decode((tmp_path / "c/0/0/0").read_bytes()), other)


@all_but("shard-gzip")  # TensorStore does not compress a shard as a whole
def test_tensorstore_reads_ours_and_we_read_theirs(chain: str, tmp_path: Path) -> None:
    codec = ChunkCodec.of(meta_of(CHAINS[chain]))
    array = voxels()
    (tmp_path / "zarr.json").write_bytes(array_zarr_json(SHAPE, "uint16", SHAPE, codecs=CHAINS[chain], fill_value=7))
    (tmp_path / "c/0/0").mkdir(parents=True)
    (tmp_path / "c/0/0/0").write_bytes(codec.encode(array))
    opened = ts.open({"driver": "zarr3", "kvstore": f"file://{tmp_path}/"}).result()
    np.testing.assert_array_equal(np.asarray(opened.read().result()), array)
    other = voxels(1)
    opened.write(other).result()
    np.testing.assert_array_equal(codec.decode((tmp_path / "c/0/0/0").read_bytes()), other)


def flips(payload: bytes) -> Iterator[bytes]:
    """Every single-bit flip, thinned out in the middle of long payloads."""
    step = max(1, len(payload) // 400)
    ends = set(range(min(64, len(payload)))) | set(range(max(0, len(payload) - 64), len(payload)))
    for at in sorted(ends | set(range(0, len(payload), step))):
        for bit in range(8):
            damaged = bytearray(payload)
            damaged[at] ^= 1 << bit
            yield bytes(damaged)


def test_a_flipped_bit_is_damage_or_the_same_voxels(chain: str) -> None:
    codec = ChunkCodec.of(meta_of(CHAINS[chain]))
    array = voxels()
    refused = 0
    for damaged in flips(codec.encode(array)):
        try:
            decoded = codec.decode(damaged)
        except Damaged as error:
            assert len(str(error).splitlines()) == 1
            refused += 1
            continue
        assert decoded.shape == SHAPE
        if chain in CHECKED:
            np.testing.assert_array_equal(decoded, array)
    assert refused or chain in ("raw", "big")


def test_nothing_may_be_missing_or_left_over(chain: str) -> None:
    codec = ChunkCodec.of(meta_of(CHAINS[chain]))
    payload = codec.encode(voxels())
    for cut in (0, 1, 3, len(payload) // 2, len(payload) - 1):
        with pytest.raises(Damaged):
            codec.decode(payload[:cut])
    if chain == "shard-start":
        return  # a shard may hold bytes that its index does not list, here at the end
    for extra in (b"\0", b"\0" * 9, payload[:50]):
        with pytest.raises(Damaged):
            codec.decode(payload + extra)


@settings(max_examples=examples(60))
@given(st.sampled_from(sorted(CHAINS)), st.binary(max_size=300))
def test_garbage_is_damage(name: str, garbage: bytes) -> None:
    codec = ChunkCodec.of(meta_of(CHAINS[name]))
    with pytest.raises(Damaged):
        codec.decode(garbage)


DTYPES = ["bool", "int8", "uint8", "int64", "uint64", "float16", "float32", "float64", "complex64", "complex128"]


@settings(max_examples=examples(40))
@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.sampled_from(["little", "big"]),
    st.integers(0, 2**32),
    st.randoms(use_true_random=False),
)
def test_any_dtype_shape_order_and_bits_round_trip(
    dtype: str, shape: list[int], endian: str, seed: int, random: Any
) -> None:
    order = list(range(len(shape)))
    random.shuffle(order)
    codecs = [
        {"name": "transpose", "configuration": {"order": order}},
        {"name": "bytes", "configuration": {"endian": endian}},
        ZSTD,
    ]
    codec = ChunkCodec.of(meta_of(codecs, tuple(shape), dtype, 0))
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 256, size).astype(np.uint8)
    array = raw.view(dtype).reshape(shape)
    assert codec.decode(codec.encode(array)).tobytes() == array.tobytes()


# ---- zstd


def test_a_zstd_frame_without_content_size_is_read() -> None:
    array = voxels()
    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    payload = compressor.compress(array.tobytes()) + compressor.flush()
    assert zstandard.get_frame_parameters(payload).content_size == zstandard.CONTENTSIZE_UNKNOWN
    codec = ChunkCodec.of(meta_of(CHAINS["zstd"]))
    np.testing.assert_array_equal(codec.decode(payload), array)
    out = np.empty(SHAPE, np.uint16)
    np.testing.assert_array_equal(codec.decode(payload, out), array)


@pytest.mark.parametrize("wrong", [-2, 2, None])
@pytest.mark.parametrize("declared", [True, False])
def test_a_zstd_frame_of_another_size_is_damage(wrong: int | None, declared: bool) -> None:
    raw = voxels().tobytes()
    raw = b"" if wrong is None else raw[:wrong] if wrong < 0 else raw + bytes(wrong)
    if declared:
        payload = zstandard.ZstdCompressor().compress(raw)
    else:
        stream = zstandard.ZstdCompressor().compressobj()
        payload = stream.compress(raw) + stream.flush()
    with pytest.raises(Damaged):
        ChunkCodec.of(meta_of(CHAINS["zstd"])).decode(payload)


def test_several_zstd_frames_and_skippable_ones_are_damage() -> None:
    raw = voxels().tobytes()
    codec = ChunkCodec.of(meta_of(CHAINS["zstd"]))
    compress = zstandard.ZstdCompressor().compress
    skippable = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    whole = compress(raw)
    np.testing.assert_array_equal(codec.decode(whole), voxels())
    for payload in (compress(raw[:100]) + compress(raw[100:]), whole + compress(b""), whole + skippable):
        with pytest.raises(Damaged):
            codec.decode(payload)
    with pytest.raises(Damaged):
        codec.decode(skippable + whole)


def test_a_zstd_frame_that_a_plain_decompress_takes_for_empty_is_damage() -> None:
    codec = ChunkCodec.of(meta_of([LITTLE, ZSTD], (32, 64, 64), "uint8", 0))
    payload = codec.encode(np.ones((32, 64, 64), np.uint8))
    empty = [damaged for damaged in flips(payload) if plain_size(damaged) == 0]
    assert empty, "the reason for strict decoding is gone"
    for damaged in empty:
        assert zstandard.ZstdDecompressor().decompress(damaged) == b""
        with pytest.raises(Damaged):
            codec.decode(damaged)


def plain_size(frame: bytes) -> int:
    try:
        return zstandard.frame_content_size(frame)
    except zstandard.ZstdError:
        return -1


# ---- memory


def huge_claims() -> Iterator[tuple[str, bytes]]:
    raw = voxels().tobytes()
    frame = bytearray(zstandard.ZstdCompressor().compress(b"\0" * 70000))
    assert frame[4] >> 6 == 2, "a frame with a four-byte content size"
    frame[5 if frame[4] & 0x20 else 6 :][:4] = b"\xff\xff\xff\xff"
    at = 5 if frame[4] & 0x20 else 6
    frame[at : at + 4] = b"\xff\xff\xff\xff"
    yield "zstd", bytes(frame)
    stream = zstandard.ZstdCompressor().compressobj()
    yield "zstd", stream.compress(bytes(200 << 20)) + stream.flush()
    yield "gzip", gzip.compress(bytes(200 << 20))
    header = bytearray(blosc.compress(raw, b"lz4", 5, 1, 0, 1))
    header[4:8] = (2**31 - 20).to_bytes(4, "little")
    yield "blosc-lz4", bytes(header)
    yield "blosc-lz4", blosc.compress(bytes(200 << 20), b"zstd", 5, 1, 0, 1)
    yield "zstd-gzip", gzip.compress(bytes(200 << 20))
    yield "shard-gzip", gzip.compress(bytes(200 << 20))


@pytest.mark.parametrize(("name", "payload"), list(huge_claims()), ids=lambda value: str(value)[:12])
def test_no_memory_is_taken_on_a_headers_word(name: str, payload: bytes) -> None:
    codec = ChunkCodec.of(meta_of(CHAINS[name]))
    tracemalloc.start()
    try:
        with pytest.raises(Damaged):
            codec.decode(payload)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_mutated_compressed_payloads_never_crash_the_process() -> None:
    """In a process of its own, because what it guards against would end this one."""
    script = """
import random, sys
import numpy as np
from volfs.errors import Damaged
from volfs.storage.compressors import Blosc, Gzip, Wanted, Zstd
rng = random.Random(5)
source = np.random.default_rng(0).integers(0, 30, 4096).astype("u1").tobytes()
codecs = [Blosc(c, 5, s, 2, b) for c in ("blosclz", "lz4", "zlib", "zstd") for s in (0, 1, 2) for b in (0, 1024)]
payloads = [(c, c.encode(source)) for c in [*codecs, Zstd(3, False), Gzip(5)]]
for _ in range(20000):
    codec, payload = rng.choice(payloads)
    damaged = bytearray(payload)
    for _ in range(rng.choice((1, 2, 16))):
        damaged[rng.randrange(len(damaged) if rng.random() < 0.5 else min(64, len(damaged)))] = rng.randrange(256)
    if rng.random() < 0.2:
        del damaged[rng.randrange(len(damaged)):]
    try:
        assert len(codec.decode(bytes(damaged), Wanted(4096, 4096))) == 4096
    except Damaged:
        pass
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE)


# ---- blosc, gzip, bool


def test_blosc_encodes_the_same_in_every_thread() -> None:
    """With Blosc's own threads, which it uses in a main thread only, blocks land in the order they finish."""
    raw = np.random.default_rng(0).integers(0, 9, 4 << 20).astype(np.uint8).tobytes()
    codec = Blosc("lz4", 5, 1, 1, 65536)
    here = {codec.encode(raw) for _ in range(8)}
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(codec.encode, raw).result()
    assert here == {there}


def test_gzip_carries_no_time() -> None:
    assert Gzip(5).encode(b"x")[4:8] == bytes(4)


def test_gzip_of_exactly_the_size_without_its_trailer_is_damage() -> None:
    payload = Gzip(5).encode(b"x" * 100)
    for cut in range(1, 9):
        with pytest.raises(Damaged):
            Gzip(5).decode(payload[:-cut], Wanted(100, 100))


def test_a_bool_that_is_neither_true_nor_false_is_damage() -> None:
    codec = ChunkCodec.of(meta_of([LITTLE], (4,), "bool", False))
    np.testing.assert_array_equal(codec.decode(b"\0\1\1\0"), [False, True, True, False])
    with pytest.raises(Damaged):
        codec.decode(b"\0\1\2\0")
    with pytest.raises(Damaged):
        codec.decode(b"\0\1\2\0", np.empty(4, bool))


# ---- fill


@pytest.mark.parametrize("order", ["C", "F"])
def test_fill_is_judged_by_bits(order: Any) -> None:
    zeros = ChunkCodec.of(meta_of([LITTLE], (4, 3), "float32", 0.0))
    array = np.zeros((4, 3), np.float32, order=order)
    assert zeros.is_fill(array)
    array[3, 2] = -0.0
    assert not zeros.is_fill(array)
    nans = ChunkCodec.of(meta_of([LITTLE], (4, 3), "float64", np.nan))
    assert nans.is_fill(np.full((4, 3), np.nan, order=order))
    assert nans.is_fill(nans.filled())
    assert not nans.is_fill(np.zeros((4, 3)))
    pairs = ChunkCodec.of(meta_of([LITTLE], (4, 3), "complex128", 1 + 2j))
    array = np.full((4, 3), 1 + 2j, order=order)
    assert pairs.is_fill(array)
    array[3, 2] = 2 + 1j
    assert not pairs.is_fill(array)
    assert ChunkCodec.of(meta_of([LITTLE], (4, 3), "bool", True)).is_fill(np.ones((4, 3), bool, order=order))


# ---- clients' shards


def reader_of(payload: bytes, log: list[tuple[int, int]] | None = None) -> Any:
    def read(offset: int, length: int) -> bytes:
        if log is not None:
            log.append((offset, length))
        return payload[offset : offset + length]

    return read


@pytest.mark.parametrize("name", ["shard-end", "shard-start", "shard-transpose-blosc", "shard-in-shard"])
def test_a_shard_is_read_by_inner_chunk_and_no_more(name: str) -> None:
    codec = ChunkCodec.of(meta_of(CHAINS[name]))
    assert codec.sharded
    array = voxels()
    payload = codec.encode(array)
    log: list[tuple[int, int]] = []
    opened = codec.open_shard(reader_of(payload, log), len(payload))
    assert opened.grid.grid_shape == (2, 2, 2)
    for coords in np.ndindex(2, 2, 2):
        box = opened.grid.chunk_box(coords)
        before = len(log)
        np.testing.assert_array_equal(opened.decode(coords), array[box.slices()])
        stored = opened.stored_range(coords)
        assert log[before:] == ([stored] if stored else [])
    assert opened.stored_range((0, 0, 0)) is None, "all fill, so not stored"


def test_one_damaged_inner_chunk_harms_no_other() -> None:
    codec = ChunkCodec.of(meta_of(CHAINS["shard-end"]))
    array = voxels()
    payload = bytearray(codec.encode(array))
    whole = codec.open_shard(reader_of(bytes(payload)), len(payload))
    offset, length = whole.stored_range((1, 0, 1)) or (0, 0)
    payload[offset + length // 2] ^= 4
    damaged = bytes(payload)
    opened = codec.open_shard(reader_of(damaged), len(damaged))
    with pytest.raises(Damaged, match=r"\(1, 0, 1\)"):
        opened.decode((1, 0, 1))
    np.testing.assert_array_equal(opened.decode((1, 0, 0)), array[4:, :5, :6])
    with pytest.raises(Damaged):
        codec.decode(damaged)
    with pytest.raises(Damaged):
        codec.check(reader_of(damaged), len(damaged))


@pytest.mark.parametrize("entry", [(0, 2**40), (2**63, 2**63), (2**64 - 1, 5), (5, 2**64 - 1), (10**6, 1)])
def test_an_index_that_points_outside_its_shard_is_damage(entry: tuple[int, int]) -> None:
    codec = ChunkCodec.of(meta_of(CHAINS["shard-end"]))
    payload = codec.encode(voxels())
    index = np.frombuffer(payload[-(8 * 16 + 4) : -4], "<u8").reshape(8, 2).copy()
    index[5] = entry
    raw = index.tobytes()
    with pytest.raises(Damaged):
        codec.decode(payload[: -len(raw) - 4] + raw + crc32c(raw).to_bytes(4, "little"))


def test_a_shard_too_large_to_decode_whole_is_still_read_by_inner_chunk() -> None:
    shape, inner = (2048, 2048, 2048), (512, 512, 64)
    meta = meta_of([shard([LITTLE, ZSTD], "end", inner)], shape, "uint8", 0)
    codec = ChunkCodec.of(meta)
    piece = ChunkCodec.of(meta_of([LITTLE, ZSTD], inner, "uint8", 0)).encode(np.ones(inner, np.uint8))
    index = np.full((4 * 4 * 32, 2), 2**64 - 1, "<u8")
    index[5] = 0, len(piece)
    raw = index.tobytes()
    payload = piece + raw + crc32c(raw).to_bytes(4, "little")
    with pytest.raises(Unsupported):
        codec.decode(payload)
    codec.check(reader_of(payload), len(payload))
    opened = codec.open_shard(reader_of(payload), len(payload))
    assert opened.stored_range((0, 0, 5)) == (0, len(piece))


# ---- what is not run


@pytest.mark.parametrize(
    "codecs",
    [
        [LITTLE, {"name": "numcodecs.lz4"}],
        [{"name": "vlen-utf8"}],
        [{"name": "bytes"}],
        [LITTLE, {"name": "zstd", "configuration": {"level": 99, "checksum": True}}],
        [LITTLE, {"name": "gzip", "configuration": {"level": "9"}}],
        [LITTLE, {"name": "blosc", "configuration": {"cname": "lzma", "shuffle": "shuffle", "clevel": 5}}],
        [LITTLE, LITTLE],
        [TRANSPOSE],
        [{"name": "transpose", "configuration": {"order": [0, 0, 1]}}, LITTLE],
        [{"name": "transpose", "configuration": {"order": "F"}}, LITTLE],
        [shard([LITTLE], "end", (3, 5, 6))],
        [shard([LITTLE], "end", (0, 5, 6))],
        [shard([{"name": "zfp"}])],
    ],
)
def test_codecs_that_volfs_does_not_run_are_unsupported(codecs: list[Any]) -> None:
    with pytest.raises(Unsupported):
        ChunkCodec.of(meta_of(codecs))


def test_an_index_without_a_fixed_size_is_unsupported() -> None:
    codec = shard([LITTLE])
    codec["configuration"]["index_codecs"] = [LITTLE, ZSTD]
    with pytest.raises(Unsupported):
        ChunkCodec.of(meta_of([codec]))


def test_shards_nested_without_end_are_unsupported() -> None:
    codec = shard([LITTLE], "end", (1, 1, 1))
    for _ in range(50):
        codec = shard([codec], "end", (1, 1, 1))
    with pytest.raises(Unsupported):
        ChunkCodec.of(meta_of([codec]))


def test_chunks_larger_than_memory_are_unsupported() -> None:
    with pytest.raises(Unsupported):
        ChunkCodec.of(meta_of([LITTLE], (2**20, 2**20, 1), "uint8", 0))


def test_a_chunk_of_another_shape_or_dtype_is_not_encoded() -> None:
    codec = ChunkCodec.of(meta_of([LITTLE]))
    with pytest.raises(BadInput):
        codec.encode(voxels()[1:])
    with pytest.raises(BadInput):
        codec.encode(voxels().astype(np.int16))


# ---- threads and copies


def test_one_codec_serves_many_threads() -> None:
    codec = ChunkCodec.of(meta_of([LITTLE, ZSTD], (32, 32, 32)))
    arrays = [voxels(seed, (32, 32, 32)) for seed in range(8)]
    payloads = [codec.encode(array) for array in arrays]
    wrong: list[int] = []

    def work(i: int) -> None:
        nonlocal wrong
        for _ in range(30):
            same = codec.encode(arrays[i]) == payloads[i] and (codec.decode(payloads[i]) == arrays[i]).all()
            wrong += [] if same else [i]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("codec", [Zstd(3, True), Gzip(5), Blosc("zstd", 5, 1, 2, 0)])
def test_decoding_lets_other_threads_run(codec: Any) -> None:
    """While a worker decodes, this thread keeps counting: it must not stand still for the whole of it."""
    raw = np.random.default_rng(0).integers(0, 50, 8 << 20).astype(np.uint8).tobytes()
    payload = codec.encode(raw)
    done = threading.Event()

    def work() -> None:
        for _ in range(20):  # long enough for a busy machine to give this thread its turns
            codec.decode(payload, Wanted(len(raw), len(raw)))
        done.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # nobody is made to let go of the GIL: only who does so by itself
    try:
        worker = threading.Thread(target=work)
        worker.start()
        turns = 0
        while not done.is_set():
            turns += 1
            os.sched_yield()
            done.wait(0.0005)
        worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert turns > 3


def test_default_payloads_decode_straight_into_place() -> None:
    codec = ChunkCodec.of(meta_of(list(default_codecs(np.dtype(np.uint16))), (64, 64, 64)))
    payload = codec.encode(voxels(0, (64, 64, 64)))
    out = np.empty((64, 64, 64), np.uint16)
    codec.decode(payload, out)
    tracemalloc.start()
    try:
        codec.decode(payload, out)
        assert tracemalloc.get_traced_memory()[1] < 64 << 10
    finally:
        tracemalloc.stop()


def test_raw_payloads_decode_without_a_copy() -> None:
    codec = ChunkCodec.of(meta_of([LITTLE]))
    payload = voxels().tobytes()
    assert np.shares_memory(codec.decode(payload), np.frombuffer(payload, np.uint8))


def test_default_payloads_are_valid_zarr_v2_chunks(tmp_path: Path) -> None:
    array = voxels()
    codec = ChunkCodec.of(meta_of(list(default_codecs(array.dtype))))
    v2 = {"zarr_format": 2, "shape": SHAPE, "chunks": SHAPE, "dtype": "<u2", "fill_value": 0, "order": "C"}
    v2 |= {"filters": None, "compressor": {"id": "zstd", "level": 3}, "dimension_separator": "."}
    (tmp_path / ".zarray").write_text(json.dumps(v2))
    (tmp_path / "0.0.0").write_bytes(codec.encode(array))
    np.testing.assert_array_equal(zarr.open_array(tmp_path, mode="r", zarr_format=2)[...], array)
