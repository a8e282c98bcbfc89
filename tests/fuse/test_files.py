"""A mount is a filesystem: what ls, cp, rsync, tar, mmap and an NFS server expect of one holds everywhere in it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import mmap
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.kits.cells import CELLS, make_store
from tests.kits.mounts import files_below, volfs
from volfs.testing.file_handles import handle_of, open_by_handle
from volfs.testing.kit import mounted
from volfs.testing.waiting import PATIENCE, until


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("files") / "store", voxel_size="40,4,4nm")


@pytest.fixture(scope="module")
def top(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted(store, tmp_path_factory.mktemp("mount") / "mnt") as place:
        yield place


@pytest.fixture(scope="module")
def version(top: Path) -> Path:
    return top / "cells" / "versions" / "v2"


@pytest.fixture(scope="module")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is walked as a whole: everything that a tree has, and few of each."""
    return make_store(tmp_path_factory.mktemp("small") / "store", (5, 12, 14), "40,4,4nm")


@pytest.fixture(scope="module")
def small(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted(small_store, tmp_path_factory.mktemp("mount") / "mnt") as place:
        yield place


@pytest.fixture
def branch(store: Path, top: Path) -> Iterator[Path]:
    """The branch ``exp``, as its head has it again afterwards."""
    yield top / "cells" / "branches" / "exp"
    volfs(store, "discard", "cells@exp", "--yes")


def test_every_file_is_as_long_as_it_says(small: Path) -> None:
    files = files_below(small / "cells" / "versions" / "v2")
    assert len(files) > 200
    for file in files:
        status = file.stat()
        assert len(file.read_bytes()) == status.st_size, file
        assert status.st_blocks == -(-status.st_size // 512)
        assert status.st_nlink >= 1


def test_versions_are_read_only_and_branches_are_the_users(top: Path) -> None:
    for folder, mode in (("versions/v1", 0o555), ("branches/main", 0o755)):
        status = (top / "cells" / folder).stat()
        assert stat.S_IMODE(status.st_mode) == mode and status.st_uid == os.getuid()
    assert stat.S_IMODE((top / "cells/versions/v1/s0/xy/z00000.png").stat().st_mode) == 0o444
    assert stat.S_IMODE((top / "cells/branches/main/s0/xy/z00000.png").stat().st_mode) == 0o644


def test_links_lead_where_they_say(top: Path, version: Path) -> None:
    assert os.readlink(top / "cells" / "versions" / "latest") == "v2"
    assert os.path.samefile(version / "s0" / "chunks", version / "zarr" / os.readlink(version / "s0" / "chunks")[8:])


def test_listings_say_the_inodes_that_stat_says(small: Path) -> None:
    for folder, _, _ in os.walk(small):
        with os.scandir(folder) as entries:
            for entry in entries:
                assert entry.inode() == entry.stat(follow_symlinks=False).st_ino, entry.path


def test_inodes_are_unique_and_the_same_after_a_remount(small_store: Path, small: Path, tmp_path: Path) -> None:
    def inodes(mount: Path) -> dict[str, int]:
        found = {}
        for folder, folders, names in os.walk(mount):
            for name in (*folders, *names):
                path = Path(folder, name)
                found[str(path.relative_to(mount))] = path.lstat().st_ino
        return found

    once = inodes(small)
    assert len(set(once.values())) == len(once)
    with mounted(small_store, tmp_path / "again") as again:
        assert inodes(again) == once


def test_any_inode_is_found_again_after_the_kernel_has_dropped_it(top: Path) -> None:
    """As NFS servers do: by ``.`` in the inode, and ``..`` for directories."""
    cells = top / "cells"
    paths = [
        cells / "log.txt",
        cells / "versions" / "v1" / "version.json",
        cells / "versions" / "v1" / "s0" / "xy" / "z00007.png",
        cells / "versions" / "v2" / "labels" / "nuclei" / "s0" / "yz" / "x00001.tif",
        cells / "versions" / "v1" / "zarr" / "zarr.json",
        cells / "versions" / "v1" / "zarr" / "s0" / "c" / "0" / "1" / "2",
        cells / "branches" / "main" / "zarr" / "s0" / "zarr.json",
        cells / "branches" / "main" / "s0" / "xz" / "y00003.png",
    ]
    handles = [(path, handle_of(path), path.read_bytes()) for path in paths]
    folder = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("2")
        for path, handle, data in handles:
            fd = open_by_handle(folder, handle)
            with os.fdopen(fd, "rb") as file:
                assert file.read() == data, path
    finally:
        os.close(folder)


@given(data=st.data())
def test_any_range_of_any_file_equals_the_whole(version: Path, data: st.DataObject) -> None:
    names = [
        "s0/xy/z00003.png",
        "s0/xz/y00011.tif",
        "labels/nuclei/s0/yz/x00013.npy",
        "zarr/s0/c/0/0/0",
        "thumbnail.png",
    ]
    file = version / data.draw(st.sampled_from(names))
    whole = file.read_bytes()
    start = data.draw(st.integers(0, len(whole) + 10))
    length = data.draw(st.integers(0, len(whole) + 10))
    fd = os.open(file, os.O_RDONLY)
    try:
        assert os.pread(fd, length, start) == whole[start : start + length]
    finally:
        os.close(fd)


def test_files_can_be_mapped(version: Path) -> None:
    for name in ("s0/xy/z00003.png", "zarr/s0/zarr.json", "s0/info.json"):
        with (version / name).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == (version / name).read_bytes()
    plane = np.load(version / "s0" / "xy" / "z00003.npy", mmap_mode="r")
    assert np.array_equal(plane, CELLS[3])


def digests(top: Path) -> dict[str, str]:
    return {str(f.relative_to(top)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files_below(top)}


def test_rsync_cp_and_tar_copy_a_version_and_a_second_rsync_moves_nothing(small: Path, tmp_path: Path) -> None:
    version = small / "cells" / "versions" / "v2"
    expected = digests(version)
    rsync = ["rsync", "-a", "--out-format=%n", f"{version}/", str(tmp_path / "rsync")]
    assert len(subprocess.run(rsync, check=True, capture_output=True, text=True).stdout.splitlines()) > len(expected)
    assert digests(tmp_path / "rsync") == expected
    assert subprocess.run(rsync, check=True, capture_output=True, text=True).stdout == ""
    subprocess.run(["cp", "-r", str(version), str(tmp_path / "cp")], check=True)
    assert digests(tmp_path / "cp") == expected
    (tmp_path / "tar").mkdir()
    subprocess.run(f"tar -C {version} -cS . | tar -C {tmp_path}/tar -x", shell=True, check=True)
    assert digests(tmp_path / "tar") == expected
    subprocess.run(["chmod", "-R", "u+w", str(tmp_path)], check=True)


def test_a_version_that_changed_one_chunk_moves_only_what_crosses_it(store: Path, top: Path, tmp_path: Path) -> None:
    """mtimes follow the voxels, so a mirror of ``latest`` copies what changed."""
    branch = top / "cells" / "branches" / "main"
    cells = CELLS.copy()
    cells[0, 0, 0] ^= 255
    before = {f.name: f.stat().st_mtime_ns for f in (branch / "s0" / "xy").iterdir()}
    picture = io.BytesIO()
    Image.fromarray(cells[0]).save(picture, "PNG")
    (branch / "s0" / "xy" / "z00000.png").write_bytes(picture.getvalue())
    volfs(store, "commit", "cells", "-m", "One voxel")
    newest = top / "cells" / "versions" / "v3" / "s0" / "xy"
    until(newest.exists)
    changed = {f.name for f in newest.iterdir() if f.stat().st_mtime_ns != before[f.name]}
    assert "z00000.png" in changed and changed <= {f"z{z:05}.png" for z in range(16)}
    assert np.array_equal(np.asarray(Image.open(newest / "z00000.png")), cells[0])


def test_nothing_can_be_changed_in_a_version(version: Path) -> None:
    slice_ = version / "s0" / "xy" / "z00000.png"
    for act in (
        lambda: slice_.write_bytes(b"x"),
        slice_.unlink,
        lambda: (version / "files" / "new").write_bytes(b"x"),
        lambda: (version / "zarr" / "s0" / "zarr.json").write_bytes(b"{}"),
        lambda: os.rename(version / "zarr" / "s0", version / "zarr" / "s9"),
        lambda: os.truncate(slice_, 0),
        lambda: (version / "new").mkdir(),
    ):
        with pytest.raises(OSError):
            act()
    before = slice_.stat()
    with contextlib.suppress(OSError):  # archivers always set modes and times; nothing comes of it
        os.chmod(slice_, 0o777)
        os.utime(slice_)
    assert slice_.stat().st_mode == before.st_mode and slice_.stat().st_mtime_ns == before.st_mtime_ns
    assert slice_.read_bytes()


def test_many_readers_at_once_read_the_right_bytes(version: Path) -> None:
    expected = {z: CELLS[z] for z in range(len(CELLS))}
    wrong: list[int] = []

    def read(start: int) -> None:
        for step in range(len(expected)):
            z = (start + step * 7) % len(expected)
            with Image.open(version / "s0" / "xy" / f"z{z:05}.png") as picture:
                if not np.array_equal(np.asarray(picture), expected[z]):
                    wrong.append(z)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong


class TestSideFiles:
    """``files/`` of a branch is a directory like any other."""

    def test_everyday_operations(self, branch: Path) -> None:
        files = branch / "files"
        (files / "a" / "b").mkdir(parents=True)
        note = files / "a" / "b" / "note.txt"
        note.write_text("one\n")
        with note.open("a") as file:
            file.write("two\n")
        assert note.read_text() == "one\ntwo\n"
        os.truncate(note, 4)
        assert note.read_text() == "one\n"
        os.rename(note, files / "moved.txt")
        assert not note.exists() and (files / "moved.txt").read_text() == "one\n"
        os.link(files / "moved.txt", files / "linked.txt")
        assert (files / "linked.txt").read_text() == "one\n"
        os.chmod(files / "moved.txt", 0o600)
        os.utime(files / "moved.txt", ns=(10**18, 10**18))
        assert (files / "moved.txt").stat().st_mtime_ns == 10**18
        with pytest.raises(OSError, match="not empty"):
            (files / "a").rmdir()
        (files / "a" / "b").rmdir()
        (files / "a").rmdir()
        (files / "linked.txt").unlink()
        assert os.listdir(files) == ["moved.txt"]

    def test_writes_at_any_offset_in_any_order(self, branch: Path) -> None:
        path = branch / "files" / "sparse"
        with path.open("wb", buffering=0) as file:
            for offset, text in ((1000, b"late"), (0, b"early"), (500, b"middle")):
                os.pwrite(file.fileno(), text, offset)
            os.fsync(file.fileno())
        data = path.read_bytes()
        assert len(data) == 1004 and data[500:506] == b"middle" and data[:5] == b"early" and data[5:500] == bytes(495)

    def test_an_open_file_lives_on_after_its_name_is_gone(self, branch: Path) -> None:
        path = branch / "files" / "gone"
        with path.open("w+b", buffering=0) as file:
            file.write(b"still here")
            path.unlink()
            file.seek(0)
            assert file.read() == b"still here"
        assert not path.exists()

    def test_rename_over_an_open_file_is_atomic_for_its_readers(self, branch: Path) -> None:
        path = branch / "files" / "config"
        path.write_text("old")
        with path.open() as reader:
            path.with_suffix(".tmp").write_text("new")
            os.replace(path.with_suffix(".tmp"), path)
            assert reader.read() == "old" and path.read_text() == "new"

    def test_exclusive_creation_and_locks(self, branch: Path) -> None:
        import fcntl

        path = branch / "files" / "lock"
        with path.open("x") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with pytest.raises(FileExistsError):
                path.open("x")
            with path.open() as other, pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_a_database_works(self, branch: Path) -> None:
        import sqlite3

        with contextlib.closing(sqlite3.connect(branch / "files" / "notes.sqlite")) as database:
            database.execute("create table notes (text)")
            database.executemany("insert into notes values (?)", [(str(n),) for n in range(1000)])
            database.commit()
            assert database.execute("select count(*) from notes").fetchone() == (1000,)

    def test_archives_unpack_and_copies_keep_times(self, branch: Path, tmp_path: Path) -> None:
        source = tmp_path / "source"
        (source / "deep" / "er").mkdir(parents=True)
        for number in range(20):
            (source / "deep" / "er" / f"{number}.bin").write_bytes(os.urandom(5000))
        expected = digests(source)
        files = branch / "files"
        subprocess.run(["cp", "-a", str(source), str(files / "cp")], check=True)
        subprocess.run(f"tar -C {source} -c . | tar -C {files} -x", shell=True, check=True)
        subprocess.run(["rsync", "-a", f"{source}/", str(files / "rsync")], check=True)
        for copy in (files / "cp", files / "rsync"):
            assert digests(copy) == expected
            assert (copy / "deep" / "er" / "3.bin").stat().st_mtime_ns == (
                source / "deep" / "er" / "3.bin"
            ).stat().st_mtime_ns
        assert digests(files / "deep") == digests(source / "deep")
        again = ["rsync", "-a", "--out-format=%n", f"{source}/", str(files / "rsync")]
        assert subprocess.run(again, capture_output=True, text=True, check=True).stdout == ""


def test_refs_are_made_and_removed_as_files_are(store: Path, top: Path) -> None:
    cells = top / "cells"
    (cells / "branches" / "made").mkdir()
    (cells / "branches" / "old@v1").mkdir()
    assert {"made", "old"} <= set(os.listdir(cells / "branches")) and "old@v1" not in os.listdir(cells / "branches")
    os.symlink("../versions/v1", cells / "tags" / "paper")
    assert (cells / "tags" / "paper" / "version.json").read_bytes() == (cells / "versions/v1/version.json").read_bytes()
    assert "paper" in volfs(store, "tag", "cells").stdout
    with pytest.raises(PermissionError):
        os.symlink("../versions/v1", cells / "branches" / "link")
    (cells / "tags" / "paper").unlink()
    (cells / "branches" / "made" / "files" / "x").write_text("uncommitted")
    with pytest.raises(OSError):
        (cells / "branches" / "made").rmdir()
    (cells / "branches" / "made" / "files" / "x").unlink()
    (cells / "branches" / "made").rmdir()
    (cells / "branches" / "old").rmdir()
    assert "made" not in volfs(store, "branch", "cells").stdout
