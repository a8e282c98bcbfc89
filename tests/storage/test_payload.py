"""Payload reads: every byte proved, whatever the range, the order or the number of readers."""

from __future__ import annotations

import os
import threading
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kits.example_counts import examples
from volfs.errors import Damaged
from volfs.storage.directory_backend import DirectoryBackend
from volfs.storage.payload import PIECE, Payload, PayloadDigest, PayloadReader, digest

LARGE = 2 * PIECE + 12345


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, Payload]:
    data = np.random.default_rng(0).bytes(LARGE)
    folder = tmp_path_factory.mktemp("versions")
    (folder / "00000001").mkdir()
    (folder / "00000001/big").write_bytes(b"prefix!" + data + b"suffix")
    return folder, data, digest(data).payload("00000001/big", 7)


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@settings(max_examples=examples(60))
@given(st.lists(st.integers(0, 3000), max_size=8), st.integers(0, 5))
def test_checksums_do_not_depend_on_how_bytes_arrive(sizes: list[int], seed: int) -> None:
    data = np.random.default_rng(seed).bytes(sum(sizes))
    piecewise = PayloadDigest()
    at = 0
    for size in sizes:
        piecewise.update(data[at : at + size])
        at += size
    assert piecewise.payload("f", 3) == digest(data).payload("f", 3)
    assert piecewise.crc32c == crc32c(data)
    assert piecewise.sha256 == sha256(data).digest()


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 0), (PIECE, 0), (PIECE + 1, 2), (2 * PIECE, 2), (LARGE, 3)])
def test_only_payloads_over_a_piece_have_piece_checksums(size: int, count: int) -> None:
    data = np.random.default_rng(1).bytes(size)
    whole = digest(data)
    assert whole.length == size
    if not count:
        assert whole.pieces is None
        return
    expected = [crc32c(data[i : i + PIECE]) for i in range(0, size, PIECE)]
    assert np.frombuffer(whole.pieces or b"", "<u4").tolist() == expected
    chunked = PayloadDigest()
    for i in range(0, size, 700_001):
        chunked.update(memoryview(data)[i : i + 700_001])
    assert chunked.pieces == whole.pieces


@settings(max_examples=examples(80))
@given(st.integers(0, LARGE + 10), st.none() | st.integers(0, LARGE + 10))
def test_any_range_equals_the_whole(large: tuple[Path, bytes, Payload], offset: int, length: int | None) -> None:
    folder, data, payload = large
    reader = PayloadReader(DirectoryBackend(folder, folder / "lock"))
    expected = data[offset:] if length is None else data[offset : offset + length]
    assert reader.read(payload, offset, length) == expected
    reader.close()


def test_a_small_payload_is_read_by_range_too(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    reader = PayloadReader(DirectoryBackend(tmp_path, tmp_path / "lock"))
    payload = digest(b"23456").payload("f", 2)
    assert reader.read(payload) == b"23456"
    assert reader.read(payload, 1, 2) == b"34"
    assert reader.read(payload, 5) == b""
    assert reader.read(payload, 4, 100) == b"6"
    assert reader.read(digest(b"").payload("f", 4)) == b""


def test_a_flipped_bit_is_damage_to_the_ranges_that_cross_its_piece_only(
    large: tuple[Path, bytes, Payload], tmp_path: Path
) -> None:
    folder, data, payload = large
    raw = bytearray((folder / payload.file).read_bytes())
    raw[7 + PIECE + 100] ^= 1
    (tmp_path / "00000001").mkdir()
    (tmp_path / payload.file).write_bytes(raw)
    reader = PayloadReader(DirectoryBackend(tmp_path, tmp_path / "lock"))
    assert reader.read(payload, 0, PIECE) == data[:PIECE]
    assert reader.read(payload, 2 * PIECE) == data[2 * PIECE :]
    for offset, length in ((PIECE, 1), (PIECE - 1, 2), (2 * PIECE - 1, 1), (0, LARGE)):
        with pytest.raises(Damaged, match=r"00000001/big: checksum mismatch .* offset \d+"):
            reader.read(payload, offset, length)
    with pytest.raises(Damaged):
        reader.read(Payload(payload.file, 7, LARGE, payload.crc32c, None), 0, 5)


def test_every_flipped_bit_of_a_small_payload_is_damage(tmp_path: Path) -> None:
    data = b"voxels and voxels"
    payload = digest(data).payload("f", 0)
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            (tmp_path / "f").write_bytes(damaged)
            reader = PayloadReader(DirectoryBackend(tmp_path, tmp_path / "lock"))
            for read in (lambda r=reader: r.read(payload), lambda r=reader: r.read(payload, 3, 2)):
                with pytest.raises(Damaged):
                    read()
            reader.close()


@pytest.mark.parametrize(
    "payload",
    [
        Payload("absent", 0, 4, 0),
        Payload("folder", 0, 4, 0),
        Payload("f/under", 0, 4, 0),
        Payload("f", 0, 400, 0),
        Payload("f", 400, 4, 0),
        Payload("f", 2**62, 4, 0),
        Payload("f", 0, 2**62, 0),
        Payload("f", 2**70, 4, 0),
        Payload("nul\0", 0, 4, 0),
        Payload("f", 0, 4, 0, b"1234" * 3),
    ],
)
def test_what_cannot_be_read_is_damage_and_names_the_file(tmp_path: Path, payload: Payload) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    (tmp_path / "folder").mkdir()
    with pytest.raises(Damaged) as caught:
        PayloadReader(DirectoryBackend(tmp_path, tmp_path / "lock")).read(payload, 0, 2)
    assert payload.file in str(caught.value)


def test_a_file_that_shrank_while_open_is_damage(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    reader = PayloadReader(DirectoryBackend(tmp_path, tmp_path / "lock"))
    payload = digest(b"89").payload("f", 8)
    assert reader.read(payload) == b"89"
    os.truncate(tmp_path / "f", 9)
    with pytest.raises(Damaged, match="ends at 9"):
        reader.read(payload)


def test_files_are_never_closed_under_a_reader(tmp_path: Path) -> None:
    """Few descriptors, many files and threads, and files forgotten meanwhile: every read is right, none leaks."""
    payloads = []
    for i in range(40):
        content = f"file {i} ".encode() * 50
        (tmp_path / str(i)).write_bytes(content)
        payloads.append((content, digest(content).payload(str(i))))
    before = open_fds()
    backend = DirectoryBackend(tmp_path, tmp_path / "lock", max_files=2)
    reader = PayloadReader(backend)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        order = np.random.default_rng(seed).integers(0, 40, 1500)
        try:
            for i in order:
                content, payload = payloads[i]
                assert reader.read(payload) == content
                if i == 7:
                    backend.forget("1")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert open_fds() <= before + 2
    reader.close()
    assert open_fds() == before
    assert reader.read(payloads[0][1]) == payloads[0][0]
    reader.close()


def test_what_the_kernel_has_in_memory_is_read_at_once_and_checked_too(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    (tmp_path / "file").write_bytes(b"before" + data)
    payload = digest(data).payload("file", 6)
    reader = PayloadReader(DirectoryBackend(tmp_path, tmp_path / "lock"))
    assert reader.read_resident(payload) is None, "its file is not open"
    assert reader.read(payload) == data
    found = reader.read_resident(payload)
    assert found is not None and bytes(found) == data
    beyond = Payload("file", 7, len(data), payload.crc32c)
    assert reader.read_resident(beyond) is None, "short: read properly, it is found to be damaged"
    with (tmp_path / "file").open("r+b") as file:
        file.seek(50)
        file.write(b"damage")
    with pytest.raises(Damaged, match="checksum"):
        reader.read_resident(payload)
    reader.close()


def test_a_forgotten_file_is_opened_anew(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    backend = DirectoryBackend(tmp_path, tmp_path / "lock")
    reader = PayloadReader(backend)
    assert reader.read(digest(b"old").payload("f")) == b"old"
    (tmp_path / "g").write_bytes(b"new")
    (tmp_path / "g").replace(tmp_path / "f")
    with pytest.raises(Damaged):
        reader.read(digest(b"new").payload("f"))
    backend.forget("f")
    assert reader.read(digest(b"new").payload("f")) == b"new"
