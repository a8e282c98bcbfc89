"""Side files of a mounted branch, used as programs use a file server: git, rsync, npm, venv, tar, other users.

Each works in ``files/``, then the branch is committed, and the program is asked whether anything has changed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest

from tests.kits.cells import make_store
from tests.kits.mounts import volfs
from volfs.testing.kit import mounted
from volfs.testing.waiting import PATIENCE, until

LONG_AGO = 1_234_567_890_123_456_789


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("side") / "store")


@pytest.fixture(scope="module")
def top(store: Path) -> Iterator[Path]:
    """A mount that other users can get to: pytest's own directories are closed to them."""
    with tempfile.TemporaryDirectory(prefix="volfs-side-") as folder:
        os.chmod(folder, 0o755)
        with mounted(store, Path(folder, "mnt"), allow_other=os.getuid() == 0) as top:
            yield top


@pytest.fixture(scope="module")
def files(top: Path) -> Path:
    return top / "cells" / "branches" / "exp" / "files"


def committed(files: Path) -> Path:
    """Commit the branch through its control file; the side files of the new version."""
    (files.parent / ".volfs" / "commit").write_text(f"at {time.time_ns()}\n")
    number = json.loads((files.parent / ".volfs" / "status.json").read_text())["action"]["version"]
    return files.parent.parent.parent / "versions" / f"v{number}" / "files"


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(
        [str(one) for one in command],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return str(done.stdout)


def git(*arguments: str | Path) -> str:
    return run("git", "-c", "user.name=x", "-c", "user.email=x@y", "-c", "safe.directory=*", *arguments)


def described(root: Path) -> dict[str, tuple[int, int, object]]:
    """Mode, mtime and content of everything but directories, by path."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            found[str(path.relative_to(root))] = (0, status.st_mtime_ns, os.readlink(path))
        elif stat.S_ISREG(status.st_mode):
            found[str(path.relative_to(root))] = (status.st_mode & 0o777, status.st_mtime_ns, path.read_bytes())
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with everything that an archiver keeps: programs, private files and directories, links, odd times."""
    root = tmp_path_factory.mktemp("source")
    (root / "deep" / "er").mkdir(parents=True)
    (root / "private").mkdir(0o700)
    for at, (name, mode) in enumerate(
        {"run.sh": 0o755, "plain": 0o644, "private/key": 0o600, "deep/read-only": 0o444, "deep/er/x": 0o640}.items()
    ):
        (root / name).write_bytes(b"#!/bin/sh\necho ran\n" * (at + 1))
        (root / name).chmod(mode)
        os.utime(root / name, ns=(LONG_AGO, LONG_AGO + at))
    for name, target in {"link": "run.sh", "deep/up": "../plain", "dangling": "../../nowhere", "out": "/etc"}.items():
        os.symlink(target, root / name)
        os.utime(root / name, ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
    return root


def test_rsync_moves_nothing_again_before_and_after_a_commit(files: Path, source: Path) -> None:
    def moved() -> list[str]:
        lines = run("rsync", "-ai", f"{source}/", files / "synced").splitlines()
        return [line for line in lines if not line.startswith((".d", "cd"))]

    (files / "synced").mkdir()
    assert len(moved()) == 9
    assert moved() == []
    version = committed(files)
    assert moved() == []
    expected = described(source)
    assert described(files / "synced") == expected
    assert {name: (mode & 0o555, *rest) for name, (mode, *rest) in expected.items()} == {
        name: (mode, *rest) for name, (mode, *rest) in described(version / "synced").items()
    }


@pytest.mark.parametrize("copier", ["cp", "tar"])
def test_copies_out_of_a_version_and_into_a_branch_keep_everything(
    files: Path, source: Path, tmp_path: Path, copier: str
) -> None:
    def copy(origin: Path, to: Path) -> None:
        if copier == "cp":
            run("cp", "-a", origin, to)
        else:
            to.mkdir()
            run("tar", "-C", origin, "-cf", tmp_path / "a.tar", ".")
            run("tar", "-C", to, "-xpf", tmp_path / "a.tar")

    def without_nanoseconds(found: dict[str, tuple[int, int, object]]) -> object:
        return {name: (mode, ns // 10**9, data) for name, (mode, ns, data) in found.items()}

    copy(source, files / copier)
    expected = without_nanoseconds(described(source))
    assert without_nanoseconds(described(files / copier)) == expected
    version = committed(files)
    copy(version / copier, tmp_path / "out")
    run("chmod", "-R", "u+w", tmp_path / "out")
    found = without_nanoseconds(described(tmp_path / "out"))
    assert {n: (m & 0o555, *r) for n, (m, *r) in found.items()} == {  # type: ignore[attr-defined]
        n: (m & 0o555, *r)
        for n, (m, *r) in expected.items()  # type: ignore[attr-defined]
    }


def test_an_exported_copy_has_its_links_and_runs(store: Path, files: Path, source: Path, tmp_path: Path) -> None:
    run("rsync", "-a", f"{source}/", files / "exported")
    committed(files)
    volfs(store, "export", "cells@exp", tmp_path / "out", "--path", "files/exported")
    assert run(tmp_path / "out" / "link") == "ran\n"
    assert {name: os.readlink(tmp_path / "out" / name) for name in ("dangling", "out")} == {
        "dangling": "../../nowhere",
        "out": "/etc",
    }
    assert stat.S_IMODE((tmp_path / "out" / "private" / "key").stat().st_mode) & 0o077 == 0


def test_git_sees_no_change_after_a_commit_of_the_branch(files: Path, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    git("init", "-q", origin)
    (origin / "run.sh").write_text("#!/bin/sh\n")
    (origin / "run.sh").chmod(0o755)
    (origin / "deep").mkdir()
    (origin / "deep" / "data").write_bytes(bytes(100_000))
    (origin / "link").symlink_to("deep/data")
    git("-C", origin, "add", ".")
    git("-C", origin, "commit", "-qm", "one")
    clone = files / "clone"
    git("clone", "-q", origin, clone)
    git("-C", clone, "worktree", "add", "-q", files / "tree", "-b", "side")
    for tree in (clone, files / "tree"):
        assert git("-C", tree, "status", "--porcelain") == ""
    committed(files)
    for tree in (clone, files / "tree"):
        assert git("-C", tree, "status", "--porcelain") == ""
        assert git("-C", tree, "diff", "--summary") == ""
    (files / "tree" / "new").write_text("new")
    git("-C", files / "tree", "add", ".")
    git("-C", files / "tree", "commit", "-qm", "two")
    committed(files)
    git("-C", clone, "fsck", "--strict")
    assert git("-C", clone, "log", "--format=%s", "side").split() == ["two", "one"]


def test_make_makes_nothing_again_after_a_commit(files: Path) -> None:
    place = files / "built"
    place.mkdir()
    (place / "Makefile").write_text("b: a\n\tcp a b\n\techo made >> log\n")
    (place / "a").write_text("a")
    run("make", "-C", place)
    os.utime(place / "a", ns=(LONG_AGO, LONG_AGO))
    committed(files)
    run("make", "-C", place)
    assert (place / "log").read_text() == "made\n"


def test_a_virtual_environment_works_and_goes_on_after_a_commit(files: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", files / "venv")
    version = committed(files)
    for place in (files, version):
        assert run(place / "venv" / "bin" / "python", "-c", "import sys; print(sys.prefix)") == f"{place / 'venv'}\n"


def test_npm_installs_and_what_it_installed_runs(files: Path, tmp_path: Path) -> None:
    package = tmp_path / "tool"
    package.mkdir()
    (package / "package.json").write_text('{"name": "tool", "version": "1.0.0", "bin": {"tool": "./tool.js"}}')
    (package / "tool.js").write_text("#!/usr/bin/env node\nconsole.log('tool ran')\n")
    (package / "tool.js").chmod(0o755)
    run("npm", "pack", "--silent", package, cwd=tmp_path)
    place = files / "npm"
    place.mkdir()
    (place / "package.json").write_text('{"name": "here", "version": "1.0.0"}')
    run("npm", "install", "--offline", "--no-audit", "--no-fund", "--silent", tmp_path / "tool-1.0.0.tgz", cwd=place)
    version = committed(files)
    for where in (place, version / "npm"):
        assert (where / "node_modules" / ".bin" / "tool").is_symlink()
        assert run(where / "node_modules" / ".bin" / "tool") == "tool ran\n"


def test_hard_links_as_conda_makes_them_and_links_into_a_cache_as_dvc_does(files: Path) -> None:
    cache = files / "cache" / "ab"
    cache.mkdir(parents=True)
    (cache / "cdef").write_bytes(b"model" * 1000)
    (cache / "cdef").chmod(0o444)
    place = files / "env"
    place.mkdir()
    os.link(cache / "cdef", place / "model")
    os.symlink("../cache/ab/cdef", place / "by-link")
    assert (place / "model").stat().st_nlink == 2
    version = committed(files)
    for root in (files, version):
        for name in ("model", "by-link"):
            assert (root / "env" / name).read_bytes() == b"model" * 1000
        assert stat.S_IMODE((root / "env" / "model").stat().st_mode) == 0o444


def test_sqlite_keeps_its_journal_and_its_locks(files: Path) -> None:
    import sqlite3

    for mode in ("delete", "wal"):
        with sqlite3.connect(files / f"{mode}.db") as db:
            db.execute(f"PRAGMA journal_mode = {mode}")
            db.execute("CREATE TABLE t (x)")
            db.executemany("INSERT INTO t VALUES (?)", ((i,) for i in range(1000)))
        db.close()
    committed(files)
    for mode in ("delete", "wal"):
        with sqlite3.connect(files / f"{mode}.db") as db:
            assert db.execute("SELECT count(*) FROM t").fetchone() == (1000,)
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()


# -- attributes and errors ----------------------------------------------------------------------------------------


def as_nobody(path: Path) -> bool:
    """Whether another user can read a file."""

    def drop() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    done = subprocess.run(["cat", str(path)], capture_output=True, preexec_fn=drop, check=False)
    assert done.returncode == 0 or b"Permission denied" in done.stderr, done.stderr
    return done.returncode == 0


def test_what_is_private_stays_so_for_other_users_in_every_version(files: Path) -> None:
    assert os.getuid() == 0, "only root can try what another user may"
    (files / "secret").write_bytes(b"s")
    (files / "secret").chmod(0o600)
    (files / "cave").mkdir(0o700)
    (files / "cave" / "inner").write_bytes(b"s")
    (files / "open").write_bytes(b"o")
    version = committed(files)
    (files / "cave" / "later").write_bytes(b"s")
    later = committed(files)
    for root in (files, version, later):
        assert as_nobody(root / "open")
        assert not as_nobody(root / "secret") and not as_nobody(root / "cave" / "inner")
    assert not as_nobody(files / "cave" / "later") and not as_nobody(later / "cave" / "later")


def test_a_dataset_for_a_group_opens_no_private_file(store: Path, top: Path, files: Path) -> None:
    (files / "mine").write_bytes(b"s")
    (files / "mine").chmod(0o600)
    (files / "ours").write_bytes(b"o")
    volfs(store, "config", "cells", "mode=0775")
    try:
        until(lambda: stat.S_IMODE((files / "ours").stat().st_mode) == 0o664)
        assert stat.S_IMODE((files / "mine").stat().st_mode) == 0o600
    finally:
        volfs(store, "config", "cells", "mode=")


def test_blocks_are_those_of_the_disk_and_buffers_no_larger_than_on_one(files: Path) -> None:
    with (files / "sparse").open("wb") as file:
        file.truncate(100 << 20)
        file.seek(50 << 20)
        file.write(b"x")
    (files / "full").write_bytes(os.urandom(1 << 20))
    found = (files / "sparse").stat()
    assert 0 < found.st_blocks * 512 < 1 << 20
    assert (files / "full").stat().st_blocks * 512 >= 1 << 20
    assert found.st_blksize == 4096 == (files.parent / "zarr" / "zarr.json").stat().st_blksize
    listed = {entry.name: entry.stat().st_blocks for entry in os.scandir(files)}
    assert listed["sparse"] == found.st_blocks
    (files / "hole").write_bytes(b"")
    os.truncate(files / "hole", 1 << 20)
    run("tar", "-C", files, "-S", "-cf", files / "sparse.tar", "sparse", "hole")
    run("tar", "-C", files, "-xf", files / "sparse.tar", "--transform", "s/^/again-/")
    for name in ("sparse", "hole"):
        assert (files / f"again-{name}").read_bytes() == (files / name).read_bytes()
    (files / "sparse").unlink()
    (files / "again-sparse").unlink()


def test_what_one_descriptor_writes_another_reads_when_the_buffer_is_full(files: Path) -> None:
    """As NDTiff does: the writer never flushes, and the reader counts on buffers of a page."""
    with (files / "stack").open("wb") as writer, (files / "stack").open("rb") as reader:
        data = os.urandom(5 * 4096)
        for at in range(0, len(data), 1000):
            writer.write(data[at : at + 1000])
        assert os.fstat(reader.fileno()).st_size >= len(data) - 4096
        assert reader.read(4 * 4096) == data[: 4 * 4096]


def test_names_exchange_and_keep_their_inodes(files: Path) -> None:
    from volfs.versions.working.layer import exchange

    one, other = files / "one", files / "other"
    one.write_bytes(b"1")
    other.mkdir()
    (other / "x").write_bytes(b"x")
    before = one.stat().st_ino, other.stat().st_ino
    exchange(str(one), str(other))
    assert (other.stat().st_ino, one.stat().st_ino) == before
    assert other.read_bytes() == b"1" and (one / "x").read_bytes() == b"x"
    committed(files)
    assert other.read_bytes() == b"1" and (one / "x").read_bytes() == b"x"


def test_what_is_neither_file_nor_directory_nor_link_is_not_made(files: Path, top: Path) -> None:
    import socket

    with pytest.raises(PermissionError):
        os.mkfifo(files / "fifo")
    with pytest.raises(PermissionError):
        os.mknod(files / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server, chdir(files), pytest.raises(PermissionError):
        server.bind("socket")
    with pytest.raises(PermissionError):
        os.symlink("x", files.parent / "zarr" / "link")
    for wrong, error in (("d" * 256, errno.ENAMETOOLONG), ("absent/x", errno.ENOENT)):
        with pytest.raises(OSError) as refused:
            os.symlink("x", files / wrong)
        assert refused.value.errno == error
    version = files.parent.parent.parent / "versions" / "v1"
    with pytest.raises(OSError) as refused:
        os.symlink("x", version / "files" / "link")
    assert refused.value.errno in (errno.EPERM, errno.EROFS, errno.EACCES)


def test_status_and_discard_know_links(store: Path, files: Path) -> None:
    (files / "before").write_bytes(b"x")
    committed(files)
    os.symlink("x", files / "newlink")
    assert "files" in volfs(store, "status", "cells@exp").stdout
    volfs(store, "discard", "cells@exp", "--yes")
    until(lambda: not os.path.lexists(files / "newlink"))  # who has just looked may see a name for a second


def test_a_link_is_followed_by_the_client_and_by_nothing_of_the_daemon(files: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"outside")
    os.symlink(outside, files / "away")
    assert (files / "away" / "f").read_bytes() == b"outside"  # by this process
    version = committed(files)
    (outside / "f").write_bytes(b"changed")
    assert (version / "away" / "f").read_bytes() == b"changed"
    assert os.readlink(version / "away") == str(outside)
    shutil.rmtree(outside)
    assert not (version / "away").exists() and (version / "away").is_symlink()


def test_voxels_beside_are_what_they_were(files: Path) -> None:
    """Nothing of all this concerns the image."""
    from tests.kits.cells import CELLS

    raw = np.fromfile(files.parent / "s0" / "volume.raw", CELLS.dtype)
    assert np.array_equal(raw.reshape(CELLS.shape), CELLS)
