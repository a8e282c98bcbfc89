"""Manifests: what one version changed, in columns, proved when read back."""

from __future__ import annotations

import hashlib
import io
import stat
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from volfs.errors import BadInput, Damaged
from volfs.storage.manifest import NO_FILE, RECORD, Manifest, ManifestBuilder, Op, Record
from volfs.storage.payload import PIECE, Payload, digest

SHA = bytes(range(31)) + b"\0"

names = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=12) | st.just(
    "a/\udcff"
)


@st.composite
def payloads(draw: st.DrawFn) -> Payload:
    length = draw(st.sampled_from([0, 1, PIECE, PIECE + 1, 3 * PIECE]))
    count = -(-length // PIECE) if length > PIECE else 0
    pieces = draw(st.binary(min_size=4 * count, max_size=4 * count)) if count else None
    return Payload(draw(names), draw(st.integers(0, 2**50)), length, draw(st.integers(0, 2**32 - 1)), pieces)


@st.composite
def entries(draw: st.DrawFn) -> Record:
    op = draw(st.sampled_from(Op))
    if op == Op.DIRECTORY:
        return Record(op, draw(names), None, None, None, 0, stat.S_IFDIR | draw(st.integers(0, 0o777)))
    held = op in (Op.PUT, Op.TAKE)
    chunk = draw(st.none() | st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6).map(tuple))
    whole = held and chunk is None
    return Record(
        op,
        draw(names),
        None if op == Op.REMOVE_SUBTREE else chunk,
        draw(payloads()) if held else None,
        draw(st.binary(min_size=32, max_size=32)) if held else None,
        draw(st.integers(1, 2**32 - 1)) if op == Op.TAKE else 0,
        draw(st.integers(0, 0o777) | st.just(stat.S_IFLNK)) if whole else 0,
        draw(st.integers(-(2**63), 2**63 - 1)) if whole else 0,
    )


def add(builder: ManifestBuilder, record: Record) -> None:
    match record:
        case Record(Op.DIRECTORY, name, mode=mode):
            builder.directory(name, mode)
        case Record(Op.PUT, name, None, Payload() as payload, bytes() as sha):
            builder.put(name, payload, sha, mode=record.mode, mtime_ns=record.mtime_ns)
        case Record(Op.PUT, name, tuple() as chunk, Payload() as payload, bytes() as sha):
            builder.put_chunk(name, chunk, payload, sha)
        case Record(Op.TAKE, name, None, Payload() as payload, bytes() as sha, owner):
            builder.take(name, payload, sha, owner, mode=record.mode, mtime_ns=record.mtime_ns)
        case Record(Op.TAKE, name, tuple() as chunk, Payload() as payload, bytes() as sha, owner):
            builder.take_chunk(name, chunk, payload, sha, owner)
        case Record(Op.REMOVE, name, None):
            builder.remove(name)
        case Record(Op.REMOVE, name, tuple() as chunk):
            builder.remove_chunk(name, chunk)
        case Record(Op.REMOVE_SUBTREE, name):
            builder.remove_subtree(name)


@settings(deadline=None)
@given(st.lists(entries(), max_size=12))
def test_records_come_back_in_order(records: list[Record]) -> None:
    builder = ManifestBuilder()
    for record in records:
        add(builder, record)
    assert len(builder) == len(records)
    manifest = builder.build()
    raw = manifest.to_bytes()
    again = Manifest.from_bytes(raw)
    assert list(again) == records == list(manifest)
    assert again.to_bytes() == raw


def test_records_without_modes_and_times_are_written_as_they_always_were() -> None:
    builder = ManifestBuilder()
    builder.put("files/a", Payload("00000001/files/a", 0, 9, 1), bytes(range(32)))
    builder.put_chunk("s0", (1, 2), Payload("00000001/zarr/s0/c/0/0", 0, 9, 1), bytes(range(32)))
    builder.remove("files/b")
    data = zstandard.ZstdDecompressor().decompress(builder.build().to_bytes())
    assert hashlib.sha256(data).hexdigest() == "c60ce66ce82f09bf26e6846dacdc773ee8f1624ca53e4e7c28d5e4a712b916a0"


def test_a_reader_that_knows_no_modes_refuses_a_manifest_with_some() -> None:
    builder = ManifestBuilder()
    builder.put("files/a", Payload("00000001/files/a", 0, 9, 1), SHA, mode=0o600)
    stream = io.BytesIO(zstandard.ZstdDecompressor().decompress(builder.build().to_bytes()))
    np.lib.format.read_array(stream)
    known = [name for name in RECORD.names or () if name not in ("mode", "mtime_ns")]
    assert np.lib.format.read_array(stream).dtype != np.dtype([(name, RECORD[name]) for name in known])


def bulk(builder: ManifestBuilder, count: int, array: str = "s0") -> np.ndarray:
    rng = np.random.default_rng(0)
    records = np.zeros(count, RECORD)
    records["op"] = Op.PUT
    records["ndim"] = 3
    records["name"] = builder.string(array)
    side = round(count ** (1 / 3)) + 1
    records["chunk"][:, :3] = np.stack(np.unravel_index(np.arange(count), (side, side, side)), 1)
    records["file"] = builder.string("00000001/zarr/s0/c/0/0/0")
    records["offset"] = np.arange(count) * 30_000
    records["length"] = rng.integers(1, 30_000, count)
    records["crc32c"] = rng.integers(0, 2**32, count)
    records["sha256"] = np.frombuffer(rng.bytes(32 * count), "V32")
    return records


def test_columns_and_single_records_mix(tmp_path: Path) -> None:
    data = bytes(PIECE + 5)
    large = digest(data)
    builder = ManifestBuilder()
    builder.put("zarr/s0/zarr.json", Payload("00000001/zarr/s0/zarr.json", 0, 9, 1), SHA)
    builder.put("files/large", large.payload("00000001/files/large"), large.sha256)
    columns = bulk(builder, 10)
    columns["length"][3] = PIECE + 1
    columns["pieces_start"][3], columns["pieces_count"][3] = 1, 2
    builder.extend(columns, np.array([9, 10, 11], "<u4"))
    builder.put("files/large2", large.payload("00000001/files/large2"), large.sha256)
    builder.put_chunk("", (1, 2), Payload("00000001/zarr/c/0/0", 0, 9, 1), SHA)
    manifest = Manifest.from_bytes(builder.build().to_bytes())
    assert len(manifest) == 14
    assert manifest.record(0).sha256 == SHA
    assert manifest.record(1).payload == large.payload("00000001/files/large")
    assert manifest.record(12).payload == large.payload("00000001/files/large2")
    assert manifest.record(5).payload == Payload(
        "00000001/zarr/s0/c/0/0/0", 90_000, PIECE + 1, int(columns["crc32c"][3]), np.array([10, 11], "<u4").tobytes()
    )
    assert manifest.keys().tolist() == [0, 1, 12]
    groups = {name: indices.tolist() for name, indices in manifest.chunks()}
    assert groups == {"s0": list(range(2, 12)), "": [13]}


def test_an_empty_manifest_is_one() -> None:
    manifest = Manifest.from_bytes(ManifestBuilder().build().to_bytes())
    assert (len(manifest), list(manifest), list(manifest.chunks()), len(manifest.keys())) == (0, [], [], 0)


def test_a_million_chunks_are_written_and_read_in_seconds(tmp_path: Path) -> None:
    """The bound is slack, for busy machines: about half a second each on a quiet one."""
    start = time.process_time()
    builder = ManifestBuilder()
    builder.extend(bulk(builder, 10**6))
    (tmp_path / "m").write_bytes(builder.build().to_bytes())
    written = time.process_time()
    manifest = Manifest.from_bytes((tmp_path / "m").read_bytes())
    assert [len(indices) for _, indices in manifest.chunks()] == [10**6]
    read = time.process_time()
    assert manifest.record(999_999).payload is not None
    assert written - start < 8
    assert read - written < 4


@pytest.fixture(scope="module")
def sample() -> bytes:
    builder = ManifestBuilder()
    builder.put("zarr/zarr.json", Payload("00000001/zarr/zarr.json", 0, 9, 1), SHA)
    builder.put("files/x", Payload("00000001/files/x", 0, PIECE + 1, 1, bytes(8)), SHA)
    builder.remove_subtree("zarr/old")
    builder.extend(bulk(builder, 4))
    return builder.build().to_bytes()


def test_every_flipped_bit_is_damage_or_nothing(sample: bytes) -> None:
    expected = list(Manifest.from_bytes(sample))
    for at in range(len(sample)):
        for bit in range(8):
            damaged = bytearray(sample)
            damaged[at] ^= 1 << bit
            try:
                assert list(Manifest.from_bytes(bytes(damaged))) == expected
            except Damaged:
                continue


def test_a_cut_off_or_continued_file_is_damage(sample: bytes) -> None:
    for raw in (b"", sample[:4], sample[:-1], sample[: len(sample) // 2], sample + b"\0", sample + sample):
        with pytest.raises(Damaged, match=r"^here: "):
            Manifest.from_bytes(raw, "here")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("op", 0),
        ("op", 5),
        ("op", Op.REMOVE),
        ("op", Op.TAKE),
        ("ndim", 7),
        ("name", 99),
        ("file", 99),
        ("file", NO_FILE),
        ("offset", 2**63),
        ("length", 2**63),
        ("pieces_start", 2),
        ("pieces_count", 1),
        ("pieces_count", 3),
        ("owner", 4),
        ("mode", 0o1777),
        ("mode", 0o40755),
        ("mode", 0o10644),
    ],
)
def test_records_that_point_nowhere_are_damage(sample: bytes, column: str, value: int) -> None:
    manifest = Manifest.from_bytes(sample)
    records = manifest.records.copy()
    records[column][1] = value
    with pytest.raises(Damaged):
        Manifest.from_bytes(Manifest(manifest.strings, records, manifest.pieces).to_bytes())


@pytest.mark.parametrize(
    "make", [lambda d: d[:-3], lambda d: d + b"x", lambda d: d.replace(b"|u1", b"|i1"), lambda d: b""]
)
def test_a_well_formed_frame_of_other_content_is_damage(sample: bytes, make: Any) -> None:
    data = zstandard.ZstdDecompressor().decompress(sample)
    with pytest.raises(Damaged):
        Manifest.from_bytes(zstandard.ZstdCompressor().compress(make(data)))


def test_pickles_are_not_read(sample: bytes) -> None:
    data = zstandard.ZstdDecompressor().decompress(sample)
    hostile = data.replace(b"'|u1'", b"'|O' ", 1)
    assert hostile != data
    with pytest.raises(Damaged):
        Manifest.from_bytes(zstandard.ZstdCompressor().compress(hostile))


def test_names_cannot_hold_a_nul_nor_chunks_seven_axes() -> None:
    builder = ManifestBuilder()
    with pytest.raises(BadInput):
        builder.remove("files/a\0b")
    with pytest.raises(BadInput):
        builder.remove_chunk("s0", (0,) * 7)
    with pytest.raises(BadInput):
        builder.remove_chunk("s0", ())
