"""Whatever lies in the place of a file of a store: nothing waits for it, nothing outside is read or written through it.

A FIFO that is opened blocks until somebody opens its other end; a symbolic link leads wherever it was made to.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import chdir, suppress
from pathlib import Path

import pytest

from tests.kits.stores import new_store, volume, write_version
from volfs import open_store
from volfs.errors import Damaged, VolfsError
from volfs.storage.files import check_ordinary, open_below, open_regular, read_file, read_json
from volfs.versions.check.fsck import fsck
from volfs.versions.snapshot import Snapshot

SECRET = b"what is outside of the store"
PATIENCE = 120.0


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with a version, a tag, and a working copy that has a chunk, side files, a removal, a discard."""
    root = tmp_path_factory.mktemp("pristine") / "store"
    with new_store(root) as store:
        dataset = store.create_dataset("cells")
        write_version(
            dataset, volume((8, 8)), chunks=(4, 4), files={"files/notes.txt": b"notes", "files/gone": b"gone"}
        )
        dataset.create_tag("paper", 1)
        branch = dataset.branch("main")
        branch.put("files/work/f", b"work")
        branch.put("zarr/s0/c/0/0", branch.read("zarr/s0/c/1/0"))
        branch.put("zarr/s0/zarr.json", branch.read("zarr/s0/zarr.json"))
        branch.delete("files/gone")
        branch.put("files/discarded", b"x")
        branch.discard("files/discarded")
        other = store.create_dataset("other")
        write_version(other, volume((8, 8), 1), chunks=(8, 8), files={"files/o": b"other"})
    return root


def places(root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and "other" not in path.parts
    )


def everything(snapshot: Snapshot, key: str = "") -> list[bytes]:
    """All bytes that can be read."""
    found: list[bytes] = []
    with suppress(VolfsError, OSError):
        for name, info in snapshot.list(key):
            below = f"{key}/{name}" if key else name
            if info.kind == "dir":
                found += everything(snapshot, below)
            else:
                with suppress(VolfsError, OSError):
                    found.append(snapshot.read(below))
    return found


def use(root: Path) -> list[bytes]:
    """Do what can be done with a store, whatever fails; all bytes that were read."""
    found: list[bytes] = []
    for read_only in (True, False):
        with suppress(VolfsError, OSError), open_store(root, read_only=read_only) as store:
            for name in store.datasets():
                with suppress(VolfsError, OSError):
                    dataset = store[name]
                    found += everything(dataset["v1"])
                    branch = dataset.branch("main")
                    found += everything(branch)
                    with suppress(VolfsError):
                        branch.status()
                    with suppress(VolfsError):
                        dataset.version(1).changes()
                    if not read_only:
                        with suppress(VolfsError, OSError):
                            branch.put("files/work/g", b"new")
                        with suppress(VolfsError, OSError):
                            branch.commit("whatever")
                        found += everything(branch)
            fsck(store)
            if not read_only:
                with suppress(VolfsError, OSError):
                    store["cells"].branch("main").discard()
    return found


def in_time(work: Callable[[], list[bytes]]) -> list[bytes]:
    """The work in a thread of its own, so that one that waits for ever fails the test and does not stop it."""
    done: list[list[bytes] | BaseException] = []

    def attempt() -> None:
        try:
            done.append(work())
        except BaseException as error:  # told below
            done.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert done, "it waits for ever"
    if isinstance(done[0], BaseException):
        raise done[0]
    return done[0]


def plant(path: Path, kind: str, outside: Path) -> None:
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(outside)


@pytest.mark.parametrize("kind", ["fifo", "link", "directory"])
def test_whatever_file_of_a_store_is_something_else_nothing_waits_and_nothing_leaks(
    pristine: Path, tmp_path: Path, kind: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "store"
    for number, place in enumerate(places(pristine)):
        secret = outside / str(number)
        secret.write_bytes(SECRET)
        shutil.copytree(pristine, root, symlinks=True)
        plant(root / place, kind, secret)
        read = in_time(lambda: use(root))
        assert secret.read_bytes() == SECRET, f"{place} was written through"
        assert os.listdir(outside) == [str(number)], f"{place} led outside"
        # A side file may be a link; then its target is what is read, never what is there.
        assert SECRET not in read, f"{place} was read through"
        if "cells/" in place and "/refs/" not in place:
            assert b"other" in read, f"{place} has harmed another dataset"
        shutil.rmtree(root)
        secret.unlink()


@pytest.mark.parametrize("folder", ["files/work", "zarr/s0/c/0", "zarr/s0", "removed/files", "removed"])
def test_a_link_in_the_place_of_a_directory_of_a_working_copy_leads_nowhere(
    pristine: Path, tmp_path: Path, folder: str
) -> None:
    root, outside = tmp_path / "store", tmp_path / "outside"
    shutil.copytree(pristine, root, symlinks=True)
    place = root / "datasets/cells/working/main/top" / folder
    shutil.copytree(place, outside)
    for path in outside.rglob("*"):
        if path.is_file():
            path.write_bytes(SECRET)
    before = sorted((str(p), p.lstat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in outside.rglob("*"))
    shutil.rmtree(place)
    place.symlink_to(outside)
    read = in_time(lambda: use(root))
    assert SECRET not in read
    after = sorted((str(p), p.lstat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in outside.rglob("*"))
    assert before == after


def test_what_is_no_ordinary_file_is_held_named_and_can_be_removed(pristine: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(pristine, root, symlinks=True)
    top = root / "datasets/cells/working/main/top"
    os.mkfifo(top / "files/fifo")
    (top / "zarr/link").symlink_to("/etc/passwd")
    with open_store(root) as store:
        branch = store["cells"].branch("main")
        assert dict(branch.status().held) == dict.fromkeys(("files/fifo", "zarr/link"), "is not an ordinary file")
        with pytest.raises(VolfsError, match="files/fifo"):
            branch.commit("refused")
        with pytest.raises(Damaged):
            branch.read("files/fifo")
        for key in ("files/fifo", "zarr/link"):
            branch.delete(key)
        branch.commit("mended")


def test_only_ordinary_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        with chdir(tmp_path):  # a socket's path may not be long
            server.bind("socket")
        for name in ("link", "loop", "folder", "fifo", "socket"):
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT):
                with pytest.raises(Damaged, match=name):
                    open_regular(tmp_path / name, flags)
            for read in (read_file, read_json):
                with pytest.raises(Damaged, match=name):
                    read(tmp_path / name)
            if name not in ("link", "loop"):
                with pytest.raises(Damaged, match=name):
                    check_ordinary(tmp_path / name)
    check_ordinary(tmp_path / "link")
    check_ordinary(tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "absent")
    assert read_file(tmp_path / "file") == b"x"


def test_no_link_on_the_way_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "f").write_bytes(b"x")
    (tmp_path / "a" / "link").symlink_to("b")
    fd = open_below(tmp_path, "a/b/f")
    assert stat.S_ISREG(os.fstat(fd).st_mode)
    os.close(fd)
    for path in ("a/link/f", "a/b/f/g"):
        with pytest.raises(NotADirectoryError):
            open_below(tmp_path, path)
