"""A disk that is full to the last byte leaves ways out: looking, removing and discarding work, whoever asks.

On real filesystems: one in memory, and ext4, which frees late and needs blocks for directories.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import volfs
from tests.kits import fork_server
from tests.kits.cells import CELLS, make_store
from tests.kits.mounts import volfs as command
from volfs.catalog import Catalog
from volfs.catalog.connections import translate
from volfs.errors import Damaged, NoSpace
from volfs.storage import reserve as reserves
from volfs.storage.files import is_full
from volfs.storage.reserve import Reserve
from volfs.testing.kit import mounted
from volfs.versions.branch import Branch
from volfs.versions.check.fsck import fsck
from volfs.versions.store import Store

MiB = 1 << 20
_LIBC = ctypes.CDLL(None)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with changes in a branch, on a disk with room."""
    path = make_store(tmp_path_factory.mktemp("template") / "store")
    with volfs.open_store(path) as store:
        store["cells"].create_tag("paper", "v1")
        branch = store["cells"].branch("main")
        branch.put("files/old/deep/committed.txt", b"committed")
        branch.put("files/old/rest.txt", b"rest")
        branch.put("files/sub/only.txt", b"only")
        branch.commit("side files")
        for number in range(6):
            branch.put(f"files/new/{number}", os.urandom(200_000))
        volfs.images(branch)[""].levels[0][0, :16, :16] = 1
    return path


@contextlib.contextmanager
def small_disk(kind: str, base: Path, size: int = 16 * MiB) -> Iterator[Path]:
    place = base / "disk"
    place.mkdir()
    if kind == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], check=True)
    else:
        image = base / "image"
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with small_disk(request.param, tmp_path) as place:
        yield place


def fill(disk: Path) -> None:
    """Leave no byte free, nor any that comes free late."""
    filler = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        before = -1
        while before != (before := os.fstat(filler).st_size):
            _LIBC.syncfs(filler)
            for piece in (1 << 20, 1 << 16, 1 << 12, 1 << 6, 1):
                with contextlib.suppress(OSError):
                    while os.write(filler, bytes(piece)):
                        pass
    finally:
        os.close(filler)


def is_whole(path: Path) -> bool:
    return (path / "reserve").stat().st_size == reserves.SIZE


@pytest.fixture
def full(disk: Path, template: Path) -> Path:
    """The store on a disk without a byte free."""
    path = disk / "store"
    shutil.copytree(template, path)
    fill(disk)
    return path


def main(store: Store) -> Branch:
    return store["cells"].branch("main")


def remove_and_rmdir(branch: Branch) -> None:
    branch.delete("files/sub/only.txt")
    branch.working.rmdir("files/sub")


WAYS_OUT: dict[str, Callable[[Store], object]] = {
    "a tag": lambda store: store["cells"].delete_tag("paper"),
    "a branch": lambda store: store["cells"].delete_branch("exp"),
    "one discarded key": lambda store: main(store).discard("files/new/3"),
    "the discarded keys of an array": lambda store: main(store).discard("zarr/s0"),
    "a new side file": lambda store: main(store).delete("files/new/4"),
    "a committed side file": lambda store: main(store).delete("files/old/deep/committed.txt"),
    "a committed directory": lambda store: main(store).delete_tree("files/old"),
    "an empty directory": lambda store: remove_and_rmdir(main(store)),
    "a committed array": lambda store: main(store).delete_tree("zarr/s0"),
    "all changes": lambda store: main(store).discard(),
    "a dataset": lambda store: store.remove_dataset("cells"),
}


@pytest.mark.parametrize("what", WAYS_OUT)
def test_removing(full: Path, disk: Path, what: str) -> None:
    with volfs.open_store(full) as store:
        fill(disk)
        WAYS_OUT[what](store)
        fill(disk)
        assert fsck(store).findings == []
    (disk / "filler").unlink()
    volfs.open_store(full).close()
    assert is_whole(full)


def test_all_ways_out_one_after_the_other(full: Path, disk: Path) -> None:
    for what, act in WAYS_OUT.items():
        with volfs.open_store(full) as store:
            fill(disk)
            act(store)
            fill(disk)
            if what == "a committed array":
                cells = store["cells"]
                assert (cells.tags(), list(cells.branches())) == ({}, ["main"])
                gone = ("files/old", "files/sub", "files/new/3", "files/new/4", "zarr/s0/zarr.json")
                assert [main(store).stat(key) for key in gone] == [None] * 5
            if what == "all changes":
                assert main(store).read("files/old/deep/committed.txt") == b"committed"
                np.testing.assert_array_equal(volfs.images(main(store))[""].levels[0][...], CELLS)
            assert fsck(store).findings == []
        fill(disk)
    with volfs.open_store(full) as store:
        assert store.datasets() == []


def test_the_command(full: Path, disk: Path, tmp_path: Path) -> None:
    """After a program was killed, whose log nobody has merged: the first commands open the store for reading only."""
    (disk / "filler").unlink()
    code = "import os, sys, volfs; s = volfs.open_store(sys.argv[1]); s['cells'].create_tag('late', 1); os._exit(9)"
    assert fork_server.run([sys.executable, "-c", code, full], check=False).returncode == 9
    assert (full / "catalog.sqlite-wal").stat().st_size > 0
    lines: list[list[str | Path]] = [
        ["log", "cells"],
        ["ls"],
        ["info", "cells"],
        ["status", "cells"],
        ["stats"],
        ["export", "cells@v1", tmp_path / "out.npy"],
        ["fsck"],
        ["discard", "cells", "files/new/1"],
        ["rm", "cells:files/old", "--yes"],
        ["discard", "cells"],
        ["tag", "cells", "paper", "--delete"],
        ["branch", "cells", "exp", "--delete"],
        ["rm", "cells", "--yes"],
    ]
    for arguments in lines:
        fill(disk)
        command(full, *arguments)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), CELLS)
    (disk / "filler").unlink()
    assert command(full, "ls").stdout == ""


def test_a_mount(full: Path, disk: Path, tmp_path: Path) -> None:
    with mounted(full, tmp_path / "mnt", expect="no space left") as place:
        fill(disk)
        shown = place / "cells" / "branches" / "main"
        assert (place / "cells" / "versions" / "v1" / "s0" / "volume.raw").read_bytes() == CELLS.tobytes()
        with pytest.raises(OSError, match="No space left"):
            (shown / "files" / "more").write_bytes(bytes(500_000))
        fill(disk)
        (shown / "files" / "new" / "0").unlink()
        fill(disk)
        shutil.rmtree(shown / "files" / "old")
        fill(disk)
        (place / "cells" / "tags" / "paper").unlink()
        fill(disk)
        (place / "cells" / "branches" / "exp").rmdir()
        fill(disk)
        (shown / ".volfs" / "discard").write_text("files/new/1")
        fill(disk)
        (shown / ".volfs" / "discard").write_text("all")
        assert sorted(os.listdir(shown / "files")) == ["old", "sub"]
        fill(disk)
    for read_only in (True, False):
        fill(disk)
        with mounted(full, tmp_path / "mnt", read_only=read_only) as place:
            assert (place / "cells" / "versions" / "v1" / "s0" / "volume.raw").read_bytes() == CELLS.tobytes()


def test_a_mount_after_a_killed_one(full: Path, disk: Path, tmp_path: Path) -> None:
    (disk / "filler").unlink()
    killed = tmp_path / "killed"
    killed.mkdir()
    daemon = fork_server.Popen([sys.executable, "-m", "volfs", "--store", full, "mount", "--foreground", killed])
    while not os.path.ismount(killed):
        assert daemon.poll() is None
    (killed / "cells" / "branches" / "main" / "files" / "x").write_bytes(b"x")
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    subprocess.run(["umount", "-l", killed], check=True)
    fill(disk)
    with mounted(full, tmp_path / "mnt") as place:
        assert (place / "cells" / "branches" / "main" / "files" / "x").read_bytes() == b"x"


def test_a_catalog_elsewhere_on_a_full_disk(disk: Path, template: Path, tmp_path: Path) -> None:
    path, index = tmp_path / "store", disk / "index.sqlite"
    shutil.copytree(template, path)
    with volfs.open_store(path, catalog=index):
        assert (disk / "index.sqlite.reserve").stat().st_size == reserves.SIZE
    fill(disk)
    with volfs.open_store(path, catalog=index) as store:
        fill(disk)
        store["cells"].delete_tag("paper")
        fill(disk)
        store["cells"].delete_branch("exp")
        main(store).discard()
        fill(disk)
        store.remove_dataset("cells")
    assert not (path / "datasets" / "cells").exists()


def test_new_data_never_takes_the_reserve_and_a_commit_without_room_changes_nothing(full: Path, disk: Path) -> None:
    with volfs.open_store(full) as store:
        fill(disk)
        before = (full / "reserve").stat().st_size
        with pytest.raises(NoSpace):
            main(store).put("files/more", bytes(100_000))
        with pytest.raises(NoSpace):
            main(store).commit("more")
        with pytest.raises(NoSpace):
            store.create_dataset("more")
        assert (full / "reserve").stat().st_size == before
        assert len(main(store).read("files/new/3")) == 200_000
        assert main(store).head is not None and main(store).head.number == 3
        (disk / "filler").unlink()
        main(store).commit("more")
        assert fsck(store).findings == []


class TestTheReserve:
    def test_is_made_with_the_store_and_again_by_an_opening_for_writing(self, tmp_path: Path) -> None:
        volfs.init_store(tmp_path / "store").close()
        assert is_whole(tmp_path / "store")
        (tmp_path / "store" / "reserve").unlink()
        volfs.open_store(tmp_path / "store", read_only=True).close()
        assert not (tmp_path / "store" / "reserve").exists()
        volfs.open_store(tmp_path / "store").close()
        assert is_whole(tmp_path / "store")

    def test_goes_in_pieces_and_comes_back_as_soon_as_there_is_room(self, disk: Path) -> None:
        reserve = Reserve([disk / "reserve"])
        reserve.keep()
        fill(disk)

        def action() -> None:
            (disk / "new").write_bytes(bytes(200 << 10))

        with pytest.raises(OSError, match="No space left"):
            action()
        reserve.freeing(action)
        left = (disk / "reserve").stat().st_size
        assert reserves.SIZE - (512 << 10) <= left < reserves.SIZE
        (disk / "new").unlink()
        os.sync()
        reserve.keep()
        assert (disk / "reserve").stat().st_size == reserves.SIZE

    def test_takes_room_that_no_filesystem_can_save(self, tmp_path: Path) -> None:
        reserve = Reserve([tmp_path / "reserve"])
        reserve.keep()
        assert len(zlib.compress((tmp_path / "reserve").read_bytes())) >= reserves.SIZE

    def test_that_is_used_up_is_said_to_be_a_full_disk(self, disk: Path) -> None:
        reserve = Reserve([disk / "reserve"])
        reserve.keep()
        fill(disk)
        with pytest.raises(NoSpace, match="no space left"):
            reserve.freeing(lambda: (disk / "new").write_bytes(bytes(4 * MiB)))


class TestSqlite:
    def test_an_io_error_on_a_full_disk_is_a_full_disk(self, disk: Path) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = 778  # type: ignore[misc]  # SQLITE_IOERR_WRITE
        assert isinstance(translate(error, disk / "catalog.sqlite"), Damaged)
        fill(disk)
        assert is_full(disk)
        assert isinstance(translate(error, disk / "catalog.sqlite"), NoSpace)

    def test_no_opening_nor_reading_on_a_full_disk_says_otherwise(self, full: Path, disk: Path) -> None:
        (full / "reserve").unlink()
        fill(disk)
        with pytest.raises(NoSpace):
            Catalog.open(full / "catalog.sqlite")
        with pytest.raises(NoSpace, match="no space left"):
            volfs.open_store(full)
        with volfs.open_store(full, read_only=True) as store:
            assert store.datasets() == ["cells"]
