"""Files of a branch that programs write through a real mount, answered by C and, for comparison, by Python alone: what
is there afterwards, and what each program was told, is the same."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import volfs as package
from tests.kits import fork_server
from tests.kits.cells import CELLS, make_store
from tests.kits.mounts import running, volfs
from volfs.storage.mount_table import mounted_at
from volfs.testing.kit import daemon_pid, mounted
from volfs.testing.waiting import PATIENCE, until

PATH = "cells/branches/main"
MIB = 1 << 20


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("written") / "store")


@pytest.fixture(params=["C", "Python"], scope="module")
def native(request: pytest.FixtureRequest) -> Iterator[bool]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "Python":
            patch.setenv("VOLFS_NATIVE", "0")
        yield request.param == "C"


@pytest.fixture(scope="module")
def place(native: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("mount")
    store = make_store(root / "store")
    with mounted(store, root / "mnt") as place:
        yield place


@pytest.fixture
def files(place: Path, request: pytest.FixtureRequest) -> Path:
    """A directory of side files for one test."""
    folder = place / PATH / "files" / request.node.originalname
    folder.mkdir(parents=True)
    return folder


def facts(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / ".volfs/stats.json").read_bytes())
    return found


def answered(place: Path) -> dict[str, int]:
    """By operation: those that C answered."""
    found: dict[str, int] = facts(place)["front"]
    return found


def commit(place: Path, message: str) -> Path:
    """The new version."""
    before = set(os.listdir(place / "cells/versions"))
    (place / PATH / ".volfs/commit").write_text(message + "\n")
    until(lambda: set(os.listdir(place / "cells/versions")) - before)
    (name,) = set(os.listdir(place / "cells/versions")) - before
    return place / "cells/versions" / name


def test_what_is_written_in_any_order_is_there_and_is_counted(place: Path, files: Path, native: bool) -> None:
    before, expected = facts(place), bytearray(3 * MIB)
    random = np.random.default_rng(1)
    with (files / "a").open("w+b", buffering=0) as file:
        os.ftruncate(file.fileno(), len(expected))
        for _ in range(40):
            offset, size = (int(n) for n in random.integers(0, (2 * MIB, MIB)))
            data = random.bytes(size)
            assert os.pwrite(file.fileno(), data, offset) == size
            expected[offset : offset + size] = data
            assert os.pread(file.fileno(), 100, offset) == data[:100]
            assert os.fstat(file.fileno()).st_size == len(expected)
    assert (files / "a").read_bytes() == expected
    after = facts(place)
    assert after["bytes"]["written"] - before["bytes"]["written"] >= 10 * MIB
    assert after["requests"]["write"] - before["requests"].get("write", 0) >= 40
    assert (after["front"].get("write", 0) > before["front"].get("write", 0)) is native


def test_each_write_gives_the_file_a_later_time(files: Path) -> None:
    ahead = time.time_ns() + 10**14
    with (files / "a").open("wb", buffering=0) as file:
        seen = [0]
        for turn in range(20):
            file.write(b"x")
            seen.append(os.fstat(file.fileno()).st_mtime_ns)
            if turn == 10:
                os.utime(files / "a", ns=(ahead, ahead))
                seen.append(ahead)
    assert seen == sorted(set(seen))
    assert os.stat(files / "a").st_mtime_ns == seen[-1]


def test_two_who_have_it_open_see_each_others_bytes_and_append_behind_each_other(files: Path) -> None:
    path = files / "a"
    with path.open("ab", buffering=0) as one, path.open("ab", buffering=0) as other, path.open("rb") as reader:
        for turn in range(50):
            (one if turn % 2 else other).write(f"{turn}\n".encode())
            assert os.pread(reader.fileno(), 1000, 0).endswith(f"{turn}\n".encode())
    assert path.read_text().split() == [str(turn) for turn in range(50)]


def test_a_file_is_cut_and_lengthened_while_it_is_written(files: Path) -> None:
    path = files / "a"
    with path.open("wb", buffering=0) as file:
        file.write(b"0123456789")
        os.truncate(path, 4)
        assert os.fstat(file.fileno()).st_size == 4
        file.write(b"ab")
        os.ftruncate(file.fileno(), 14)
        file.seek(0, os.SEEK_END)
        file.write(b"z")
    assert path.read_bytes() == b"0123" + bytes(6) + b"ab" + bytes(2) + b"z"


def test_a_file_without_a_name_is_written_to_its_end(files: Path) -> None:
    path = files / "a"
    with path.open("w+b", buffering=0) as file:
        file.write(b"first")
        path.unlink()
        file.write(b" second")
        os.fsync(file.fileno())
        assert os.pread(file.fileno(), 100, 0) == b"first second"
        path.write_bytes(b"another")
        file.write(b" third")
        assert os.pread(file.fileno(), 100, 0) == b"first second third"
        assert os.fstat(file.fileno()).st_nlink == 0
    assert path.read_bytes() == b"another"


def test_who_writes_what_another_file_replaced_writes_into_neither(files: Path) -> None:
    """As on any disk: the name is another file's."""
    path, new = files / "a", files / "new"
    with path.open("w+b", buffering=0) as file:
        file.write(b"old")
        new.write_bytes(b"new bytes")
        new.rename(path)
        file.write(b"er")
        os.fsync(file.fileno())
        assert path.read_bytes() == b"new bytes"
    assert path.read_bytes() == b"new bytes"
    assert path.stat().st_size == 9


def test_a_file_is_renamed_while_it_is_written(files: Path) -> None:
    with (files / "a.partial").open("w+b", buffering=0) as file:
        file.write(b"one")
        os.fsync(file.fileno())
        (files / "a.partial").rename(files / "a")
        file.write(b" two")
        os.fsync(file.fileno())
        assert (files / "a").read_bytes() == b"one two"
        (files / "deeper").mkdir()
        (files / "a").rename(files / "deeper" / "a")
        file.write(b" three")
        os.fsync(file.fileno())
    assert (files / "deeper" / "a").read_bytes() == b"one two three"
    assert sorted(os.listdir(files)) == ["deeper"]


def test_a_file_with_two_names_reads_the_same_by_both(files: Path) -> None:
    one, other = files / "one", files / "other"
    with one.open("wb", buffering=0) as file:
        file.write(b"1")
        os.link(one, other)
        with other.open("rb", buffering=0) as reader:
            assert reader.read() == b"1"
            file.write(b"2")
            os.fsync(file.fileno())
            assert os.pread(reader.fileno(), 10, 0) == b"12"
        file.write(b"3")
    assert one.read_bytes() == other.read_bytes() == b"123"


def test_mapped_pages_reach_the_file(files: Path) -> None:
    path = files / "a"
    path.write_bytes(bytes(5 * mmap.PAGESIZE))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[mmap.PAGESIZE : mmap.PAGESIZE + 6] = b"mapped"
        mapped.flush()
        os.pwrite(file.fileno(), b"written", 0)
        assert mapped[:7] == b"written"
    data = path.read_bytes()
    assert data[:7] == b"written" and data[mmap.PAGESIZE :][:6] == b"mapped"


def test_slices_over_a_chunk_are_new_once_it_is_closed_whoever_looks(place: Path, native: bool) -> None:
    """A program has a volume and a chunk open while another writes the chunk: closing it is Python's then."""
    branch = place / PATH
    chunk, volume = branch / "zarr/s0/c/0/0/0", branch / "s0/volume.raw"
    old, other = chunk.read_bytes(), (branch / "zarr/s0/c/0/0/1").read_bytes()
    before = volume.read_bytes()
    with volume.open("rb", buffering=0) as looking, chunk.open("rb", buffering=0) as reading:
        assert looking.read(100) == before[:100]
        for data in (other, old, other):
            with chunk.open("r+b", buffering=0) as file:
                file.write(data)
                os.ftruncate(file.fileno(), len(data))
            shown = os.pread(looking.fileno(), len(before), 0)
            assert (shown == before) is (data == old)
            assert os.pread(reading.fileno(), MIB, 0) == data
    closed = answered(place).get("flush", 0)
    with chunk.open("r+b", buffering=0) as file:
        file.write(old)
        os.ftruncate(file.fileno(), len(old))
    assert volume.read_bytes() == before
    if native:
        until(lambda: answered(place).get("flush", 0) >= closed)


def test_an_array_written_by_zarr_is_what_was_written_and_can_be_committed(place: Path, native: bool) -> None:
    voxels = np.random.default_rng(5).integers(0, 255, (40, 60, 70), dtype=np.uint8)
    where = place / PATH / "zarr" / "made"
    array = zarr.create_array(where, shape=voxels.shape, chunks=(16, 16, 16), dtype=voxels.dtype)
    before = answered(place)
    array[:] = voxels
    after = answered(place)
    np.testing.assert_array_equal(zarr.open_array(where, mode="r")[:], voxels)
    version = commit(place, "an array")
    np.testing.assert_array_equal(zarr.open_array(version / "zarr/made", mode="r")[:], voxels)
    if native:
        assert after["write"] - before.get("write", 0) == 3 * 4 * 5
        assert after["flush"] > before.get("flush", 0)


def test_a_commit_leaves_behind_what_is_still_written_and_the_next_one_takes_it(place: Path, files: Path) -> None:
    name = files.relative_to(place / PATH)
    (files / "closed").write_bytes(b"closed")
    with (files / "open").open("wb", buffering=0) as file:
        file.write(b"before")
        os.fsync(file.fileno())
        version = commit(place, "one is closed")
        assert os.listdir(version / name) == ["closed"]
        file.write(b" after")
        os.fsync(file.fileno())
        assert (files / "open").read_bytes() == b"before after"
    version = commit(place, "both are")
    assert (version / name / "open").read_bytes() == b"before after"


def test_syncs_of_files_and_directories_are_answered_without_python(place: Path, files: Path, native: bool) -> None:
    (files / "first").write_bytes(b"x")
    for path in (files, files.parent):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(fd)
        os.close(fd)
    before = answered(place)
    folder = files / "deeper"
    folder.mkdir()
    for number in range(5):
        with (folder / f"{number}.lock").open("wb", buffering=0) as file:
            file.write(b"x")
            os.fsync(file.fileno())
            (folder / f"{number}.lock").rename(folder / str(number))
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(fd)
        os.close(fd)
    after = answered(place)
    if native:
        grown = {name: after[name] - before.get(name, 0) for name in ("write", "fsync", "fsyncdir", "opendir")}
        assert grown.pop("opendir") >= 5 and grown == {"write": 5, "fsync": 5, "fsyncdir": 5}
    (folder / "0").unlink()
    assert sorted(os.listdir(folder)) == ["1", "2", "3", "4"]


def test_names_that_are_not_there_are_looked_up_without_python_and_are_found_once_they_are(
    place: Path, files: Path, native: bool
) -> None:
    until(lambda: not (files / "warm").exists() and (not native or answered(place).get("lookup", 0) > 0))
    before = answered(place)
    inside = files / "inside"
    for number in range(10):
        assert not (inside / f"{number}").exists()
        inside.mkdir(exist_ok=True)
        with (inside / f"{number}.partial").open("xb", buffering=0) as file:
            file.write(b"x" * number)
            found = os.fstat(file.fileno())
            assert (found.st_size, found.st_mode, found.st_nlink) == (number, stat.S_IFREG | 0o644, 1)
            assert (found.st_uid, found.st_blksize) == (os.getuid(), 4096)
        (inside / f"{number}.partial").rename(inside / str(number))
        assert not (inside / f"{number}.partial").exists() and (inside / str(number)).read_bytes() == b"x" * number
    after = answered(place)
    if native:
        grown = {name: after.get(name, 0) - before.get(name, 0) for name in ("lookup", "getattr", "release", "flush")}
        assert grown["lookup"] >= 30 and grown["release"] >= 10 and grown["getattr"] >= 9
    assert sorted(os.listdir(inside)) == [str(number) for number in range(10)]


def test_a_name_is_looked_up_where_its_directory_is_now(place: Path, files: Path, native: bool) -> None:
    """A directory that moved, one in its place, and one that is committed with what is in it."""
    folder, moved = files / "one", files / "two"
    folder.mkdir()
    for turn in range(3):
        name = str(turn)
        assert not (folder / name).exists() and not (folder / "none").exists()
        folder.rename(moved)
        (moved / name).write_bytes(b"moved")
        folder.mkdir()
        assert not (folder / name).exists() and (moved / name).read_bytes() == b"moved"
        (folder / name).write_bytes(b"in its place")
        assert (moved / name).read_bytes() == b"moved"
        commit(place, f"turn {turn}")
        assert (folder / name).read_bytes() == b"in its place" and not (folder / "none").exists()
        assert sorted(os.listdir(folder)) == [name]
        for path in (folder, moved):
            (path / name).unlink()
            assert not (path / name).exists()
            path.rmdir()
        folder.mkdir()
        assert os.listdir(folder) == [] and not (folder / name).exists()


def test_files_that_were_released_are_closed_before_anything_else_is_asked(
    place: Path, files: Path, native: bool
) -> None:
    before, opened = answered(place).get("release", 0), facts(place)["open_files"]
    for number in range(100):
        (files / str(number)).write_bytes(b"x")
    assert facts(place)["open_files"] == opened
    if native:
        assert answered(place)["release"] - before >= 90
    version = commit(place, "all of them")
    assert len(os.listdir(version / files.relative_to(place / PATH))) == 100
    descriptors = Path(f"/proc/{facts(place)['pid']}/fd")
    for number in range(20):
        (files / str(number)).write_bytes(b"y")
    until(lambda: not any("/working/" in target and target.endswith("/9") for target in links_in(descriptors)))


def test_a_file_that_several_write_is_closed_by_the_last_of_them(place: Path, files: Path, native: bool) -> None:
    path, before, opened = files / "a", answered(place).get("open", 0), facts(place)["open_files"]
    until(lambda: not (files / "warm").exists() and (not native or answered(place).get("lookup", 0) > 0))
    name = files.relative_to(place / PATH)
    with path.open("xb", buffering=0) as one:
        one.write(b"one ")
        with path.open("ab", buffering=0) as other, path.open("r+b", buffering=0) as third:
            other.write(b"other ")
            assert third.read() == b"one other "
            one.close()
            assert facts(place)["open_files"] > opened
            other.write(b"more ")
        with path.open("ab", buffering=0) as last:
            last.write(b"last ")
            path.rename(files / "b")
            with (files / "b").open("ab", buffering=0) as again:
                os.fsync(again.fileno())
                version = commit(place, "while it is open")
                assert not (version / name / "b").exists()
                again.write(b"again ")
            last.write(b"end")
    assert facts(place)["open_files"] == opened
    assert (files / "b").read_bytes() == b"one other more last again end"
    assert (commit(place, "closed") / name / "b").read_bytes() == b"one other more last again end"
    with (files / "b").open("ab", buffering=0) as one, (files / "b").open("ab", buffering=0) as other:
        (files / "b").unlink()
        one.write(b"!")
        one.close()
        other.write(b"?")
        assert os.fstat(other.fileno()).st_nlink == 0
    assert facts(place)["open_files"] == opened
    if native:
        assert answered(place)["open"] > before


def links_in(folder: Path) -> list[str]:
    """Where the links in a directory lead, which come and go."""
    found = []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(folder / name))
    return found


def test_a_directory_that_moved_is_synced_where_it_is(files: Path) -> None:
    folder, moved = files / "one", files / "two"
    folder.mkdir()
    with (folder / "a").open("wb", buffering=0) as file:
        for turn in range(3):
            file.write(b"x")
            os.fsync(file.fileno())
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(fd)
            os.close(fd)
            folder.rename(moved)
            folder, moved = moved, folder
            assert (folder / "a").read_bytes() == b"x" * (turn + 1)


def test_a_full_disk_is_told_by_the_write_that_meets_it(native: bool, template: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", disk], check=True)
    try:
        subprocess.run(["cp", "-r", template, disk / "store"], check=True)
        with mounted(disk / "store", tmp_path / "mnt", expect="no space left") as place:
            path = place / PATH / "files" / "large"
            written = 0
            with path.open("wb", buffering=0) as file:
                with pytest.raises(OSError, match="No space left") as raised:
                    while True:
                        written += file.write(b"x" * MIB)
                assert raised.value.errno == errno.ENOSPC
                assert written > 0 and os.fstat(file.fileno()).st_size >= written
                file.truncate(MIB)
                assert os.pwrite(file.fileno(), b"y" * MIB, 0) == MIB
                os.fsync(file.fileno())
            assert path.read_bytes() == b"y" * MIB
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


WRITER = """
import os, sys
folder = sys.argv[1]
print("writes", flush=True)
number = 0
while True:
    number += 1
    path = f"{folder}/{number}"
    with open(path + ".partial", "wb", buffering=0) as file:
        file.write(number.to_bytes(8, "little") * 50_000)
        if number % 3 == 0:
            os.fsync(file.fileno())
    os.rename(path + ".partial", path)
    print(number, flush=True)
"""


@pytest.mark.parametrize("way", ["umount", "SIGTERM", "SIGKILL"])
def test_what_was_acknowledged_is_there_when_a_mount_ends_while_programs_write(
    native: bool, template: Path, tmp_path: Path, way: str
) -> None:
    store, place = tmp_path / "store", tmp_path / "mnt"
    subprocess.run(["cp", "-r", template, store], check=True)
    place.mkdir()
    volfs(store, "mount", place)
    try:
        folders = [place / PATH / "files" / name for name in "ab"]
        programs = []
        for folder in folders:
            folder.mkdir(parents=True)
            command = [sys.executable, "-c", WRITER, folder]
            programs.append(fork_server.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        for program in programs:
            assert program.stdout is not None
            for _ in range(8):
                program.stdout.readline()
        daemon = daemon_pid(place)
        if way == "umount":
            volfs(None, "umount", "--force", place)
        else:
            os.kill(daemon, getattr(signal, way))
        said = [program.communicate(timeout=PATIENCE)[0].split() for program in programs]
        until(lambda: not running(daemon))
    finally:
        if mounted_at(place) is not None:
            volfs(None, "umount", "--force", place)
    with package.open_store(store) as opened:
        branch = opened["cells"].branch("main")
        for name, numbers in zip("ab", said, strict=True):
            for number in [int(each) for each in numbers if each.isdecimal()] or [1]:
                assert branch.read(f"files/{name}/{number}") == number.to_bytes(8, "little") * 50_000


def test_those_who_read_the_store_without_a_mount_see_a_write_at_once(
    native: bool, template: Path, tmp_path: Path
) -> None:
    """Another process learns of every write that was answered, before the file is closed."""
    store = tmp_path / "store"
    subprocess.run(["cp", "-r", template, store], check=True)
    with mounted(store, tmp_path / "mnt") as place, package.open_store(store, read_only=True) as opened:
        branch = opened["cells"].branch("main")
        level = package.images(branch)[""].levels[0]
        np.testing.assert_array_equal(level[0, 0], CELLS[0, 0])
        chunk = place / PATH / "zarr/s0/c/0/0/0"
        other = (place / PATH / "zarr/s0/c/0/0/1").read_bytes()
        counts = [branch.generation()]
        with chunk.open("r+b", buffering=0) as file:
            counts.append(branch.generation())
            file.write(other)
            os.ftruncate(file.fileno(), len(other))
            counts.append(branch.generation())
            np.testing.assert_array_equal(level[0, 0, :16], CELLS[0, 0, 16:32])
            file.seek(0)
            file.write(other)
            counts.append(branch.generation())
        opened_, written, again = counts[1:]
        assert len({opened_, written, again}) == 3
