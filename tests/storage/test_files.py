"""Files that survive, locks that hold, names in the store, and crash points."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.kits import fork_server
from volfs.errors import Busy, Damaged, NoSpace, NotFound
from volfs.storage import files
from volfs.storage.files import (
    FileLock,
    fsync_tree,
    make_dirs,
    no_space,
    read_json,
    replace_durably,
    unlink_durably,
    write_all,
    write_atomic,
    write_json,
)
from volfs.storage.store_layout import StoreLayout, parse_frozen_dir, parse_partial_dir, parse_version_dir
from volfs.testing.waiting import PATIENCE


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return fork_server.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **environment},
    )


# ---- writing


def test_a_reader_sees_the_old_bytes_or_the_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"a" * 5000)
    torn: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            data = path.read_bytes()
            if len(data) != 5000 or len(set(data)) != 1:
                torn.append(len(data))

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(60):
        write_atomic(path, bytes([97 + i % 26]) * 5000)
    stop.set()
    reader.join()
    assert not torn
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_bytes_and_name_are_on_disk_before_anyone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(fd: int) -> None:
        log.append("dir" if os.path.isdir(f"/proc/self/fd/{fd}") else "file")
        real_fsync(fd)

    def replace(self: Path, target: Path) -> Path:
        log.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_atomic(tmp_path / "f", b"x")
    assert log == ["file", "rename", "dir"]
    log.clear()
    (tmp_path / "d").mkdir()
    replace_durably(tmp_path / "f", tmp_path / "d/f")
    assert log == ["rename", "dir", "dir"]
    log.clear()
    make_dirs(tmp_path / "x/y")
    assert log == ["dir", "dir"]
    log.clear()
    unlink_durably(tmp_path / "d/f")
    unlink_durably(tmp_path / "d/f")
    assert log == ["dir"]


def test_a_tree_is_synced_from_its_leaves_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/f").write_bytes(b"1")
    (tmp_path / "a/link").symlink_to("nowhere")
    log: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: log.append(Path(f"/proc/self/fd/{fd}").readlink().name))
    fsync_tree(tmp_path / "a")
    assert log == ["f", "b", "a"]


def test_files_of_a_tree_are_synced_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that they share a commit of the journal: one waits for another here, as it would for that."""
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(b"1")
    both, tree = threading.Barrier(2), tmp_path.stat().st_ino
    monkeypatch.setattr(os, "fsync", lambda fd: os.fstat(fd).st_ino == tree or both.wait(PATIENCE))
    assert fsync_tree(tmp_path) == {"first": 1, "second": 1}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")

    def full(fd: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NoSpace):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_space(code: int) -> None:
    with pytest.raises(NoSpace, match="no space left importing"), no_space("importing"):
        raise OSError(code, os.strerror(code))


def test_other_errors_pass_through_no_space() -> None:
    with pytest.raises(PermissionError), no_space("importing"):
        raise PermissionError(errno.EACCES, "denied")


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    fd = os.open(tmp_path / "f", os.O_WRONLY | os.O_CREAT)
    write_all(fd, b"0123456789" * 10)
    os.close(fd)
    assert (tmp_path / "f").read_bytes() == b"0123456789" * 10


def test_names_at_the_limit_can_be_written_atomically(tmp_path: Path) -> None:
    name = "x" * 255
    write_atomic(tmp_path / name, b"1")
    assert (tmp_path / name).read_bytes() == b"1"


def test_json_round_trips_and_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    value = {"version": 12, "message": "über\n", "raw": "\udcff"}
    write_json(path, value)
    assert read_json(path) == value
    with pytest.raises(NotFound):
        read_json(tmp_path / "absent.json")
    for raw in (b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"a": ' * 100_000, b'{"a": 1' + b"0" * 5000 + b"}"):
        path.write_bytes(raw)
        with pytest.raises(Damaged, match=r"x\.json"):
            read_json(path)


def test_only_an_ordinary_file_of_moderate_size_is_a_document(tmp_path: Path) -> None:
    write_json(tmp_path / "real.json", {})
    (tmp_path / "directory.json").mkdir()
    (tmp_path / "link.json").symlink_to("real.json")
    os.mkfifo(tmp_path / "fifo.json")
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 40)
    for name in ("directory", "link", "fifo", "huge"):
        with pytest.raises(Damaged, match=rf"{name}\.json"):
            read_json(tmp_path / f"{name}.json")


# ---- locks


def test_one_holder_at_a_time_and_it_says_who(tmp_path: Path) -> None:
    one, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert one.try_lock({"pid": 7, "mountpoint": None})
    assert one.held
    assert not one.locked_by_other()
    assert other.locked_by_other()
    assert not other.try_lock()
    assert other.owner() == {"pid": 7, "mountpoint": None}
    with pytest.raises(Busy, match=r"held by pid 7$"):
        other.lock(timeout=0.05)
    one.describe({"pid": 8})
    assert other.owner() == {"pid": 8}
    one.release()
    one.release()
    assert not other.locked_by_other()
    with other:
        assert other.held
        assert other.owner() is None
    assert not other.held


def test_asking_does_not_create_a_lock_file(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert not lock.locked_by_other()
    assert lock.owner() is None
    assert not list(tmp_path.iterdir())


def test_asking_who_holds_a_lock_never_makes_taking_it_fail(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            FileLock(path).locked_by_other()

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        for _ in range(100):
            lock = FileLock(path)
            assert lock.try_lock()
            lock.release()
    finally:
        stop.set()
        asker.join()


HOLDER = """
import sys, time
from pathlib import Path
from volfs.storage.files import FileLock
lock = FileLock(Path(sys.argv[1]))
assert lock.try_lock({"pid": 1})
print("held", flush=True)
time.sleep(60)
"""


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = fork_server.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        lock = FileLock(path)
        assert not lock.try_lock()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    lock.lock(timeout=PATIENCE)
    lock.release()


def test_a_lock_file_that_was_replaced_is_not_mistaken_for_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    old = FileLock(path)
    assert old.try_lock()
    path.unlink()
    new = FileLock(path)
    assert new.try_lock()
    assert not FileLock(path).try_lock()
    old.release()
    assert not FileLock(path).try_lock()
    new.release()


def test_waiting_for_a_lock_ends_when_it_is_free(tmp_path: Path) -> None:
    one, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    one.lock()
    timer = threading.Timer(0.1, one.release)
    timer.start()
    start = time.monotonic()
    other.lock(timeout=PATIENCE)
    assert time.monotonic() - start < PATIENCE / 2
    other.release()
    timer.join()


def test_a_full_disk_keeps_nobody_from_locking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "pwrite", full)
    lock = FileLock(tmp_path / "lock")
    assert lock.try_lock({"pid": 1})
    lock.release()


# ---- layout


def test_version_directories_are_named_in_one_way_only() -> None:
    layout = StoreLayout(Path("/s")).dataset("cells")
    assert layout.version(12).root == Path("/s/datasets/cells/versions/00000012")
    assert layout.partial(13).root == Path("/s/datasets/cells/versions/.00000013.partial")
    assert layout.working("main").frozen(13).root.name == "frozen-00000013"
    assert layout.working("main").top.removed == Path("/s/datasets/cells/working/main/top/removed")
    for number in (0, 1, 12, 99_999_999, 100_000_000):
        assert parse_version_dir(layout.version(number).root.name) == number
        assert parse_partial_dir(layout.partial(number).root.name) == number
        assert parse_frozen_dir(layout.working("main").frozen(number).root.name) == number
    for other in ("12", "000000012", "v12", "0000001x", "", ".00000013.partial", "frozen-00000013"):
        assert parse_version_dir(other) is None
    for other in ("00000013", ".13.partial", ".00000013.partial~", ".000000013.partial"):
        assert parse_partial_dir(other) is None


# ---- crash points


def test_a_crash_point_kills_the_process_where_asked() -> None:
    code = "from volfs.storage.crash import crash_point\nfor i in range(5): print(i, flush=True); crash_point('here')"
    assert run(code).stdout.split() == list("01234")
    assert run(code, VOLFS_CRASH_AT="elsewhere").returncode == 0
    first = run(code, VOLFS_CRASH_AT="here")
    assert (first.returncode, first.stdout.split()) == (-signal.SIGKILL, ["0"])
    third = run(code, VOLFS_CRASH_AT="here:3")
    assert (third.returncode, third.stdout.split()) == (-signal.SIGKILL, list("012"))
