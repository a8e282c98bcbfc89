"""One writer at a time: within a process, between processes, and what the others are told."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import volfs
from tests.kits import fork_server
from volfs import open_store
from volfs.errors import Busy, NotFound, ReadOnly
from volfs.testing.waiting import PATIENCE
from volfs.versions.branch import Branch
from volfs.versions.store import Store


@pytest.fixture(autouse=True)
def branch(branch: Branch) -> Branch:
    branch.put("files/x", b"0")
    return branch


@contextmanager
def another_process(store: Store, code: str) -> Iterator[subprocess.Popen[str]]:
    """Runs with ``branch`` open; says a line when ready, ends when its input does."""
    program = "\n".join(
        (
            "import sys, volfs",
            f"store = volfs.open_store({os.fspath(store.path)!r})",
            'branch = store["cells"].branch("main")',
            code,
            'print("ready", flush=True)',
            "sys.stdin.read()",
            "store.close()",
        )
    )
    with fork_server.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def test_a_branch_that_a_mount_writes_is_read_only_elsewhere_and_the_error_names_the_mount(
    store: Store, branch: Branch
) -> None:
    with another_process(store, 'branch.acquire("/mnt/brain"); branch.put("files/x", b"1")') as process:
        assert not branch.writable
        assert branch.read("files/x") == b"1"
        named = rf"branch 'main' is being written by the mount at /mnt/brain \(pid {process.pid}\)"
        for attempt in (
            lambda: branch.put("files/x", b"2"),
            lambda: branch.acquire("/mnt/other"),
            lambda: branch.working.open("files/x", os.O_WRONLY),
        ):
            with pytest.raises(ReadOnly, match=named):
                attempt()
        assert branch.status().writer == f"the mount at /mnt/brain (pid {process.pid})"
        with pytest.raises(Busy, match="mount at /mnt/brain"), branch.retiring(force=True):
            pass
    branch.put("files/x", b"3")
    assert branch.read("files/x") == b"3"


def test_the_lock_of_a_process_that_was_killed_is_free(store: Store, branch: Branch) -> None:
    with another_process(store, 'branch.acquire("/mnt/brain"); branch.put("files/x", b"1")') as process:
        process.kill()
        process.wait()
        assert process.stdin is not None
        branch._holder = (0.0, None)
        assert branch.writable
        branch.put("files/y", b"2")
        assert branch.read("files/x") == b"1"
        process.returncode = 0


def test_programs_write_in_turns(store: Store, branch: Branch) -> None:
    """Two processes and two objects in one process: every change gets the lock in the end, and none is lost."""
    code = 'for i in range(100): branch.put(f"files/other/{i}", b"x")'
    with open_store(store.path) as second:
        mine, theirs = branch, second["cells"].branch("main")

        def write(to: Branch, name: str) -> None:
            for i in range(100):
                to.put(f"files/{name}/{i}", str(i).encode())

        threads = [threading.Thread(target=write, args=args) for args in ((mine, "a"), (theirs, "b"))]
        for thread in threads:
            thread.start()
        with another_process(store, code):
            for thread in threads:
                thread.join()
        for name in ("a", "b", "other"):
            assert len(mine.list(f"files/{name}")) == 100 == len(theirs.list(f"files/{name}"))


def test_an_open_file_keeps_the_lock_until_it_is_closed(store: Store, branch: Branch) -> None:
    with open_store(store.path) as second:
        other = second["cells"].branch("main")
        with (
            branch.working.open("files/x", os.O_WRONLY),
            pytest.raises(ReadOnly, match=f"process {os.getpid()}"),
        ):
            other.acquire()
        other.acquire()
        other.release()


def test_a_branch_with_open_files_or_changes_is_not_removed_unless_forced(store: Store) -> None:
    cells = store["cells"]
    cells.branch("main").commit("first")
    cells.create_branch("exp", "v1")
    branch = cells.branch("exp")
    branch.put("files/y", b"")
    with pytest.raises(Busy, match="uncommitted"):
        cells.delete_branch("exp")
    with branch.working.open("files/y", os.O_WRONLY), pytest.raises(Busy, match="open for writing"):
        cells.delete_branch("exp", force=True)
    cells.delete_branch("exp", force=True)
    with pytest.raises(NotFound):
        branch.stat("files/y")
    with pytest.raises(NotFound):
        branch.put("files/y", b"")
    assert not cells.layout.working("exp").root.exists()


def test_a_branch_made_anew_under_an_old_name_shows_nothing_of_the_old_one(store: Store) -> None:
    cells = store["cells"]
    cells.branch("main").commit("first")
    cells.create_branch("exp", "v1")
    with open_store(store.path) as second:
        seen = second["cells"].branch("exp")
        cells.branch("exp").put("files/y", b"")
        assert seen.stat("files/y") is not None
        before = seen.generation()
        cells.delete_branch("exp", force=True)
        cells.create_branch("exp", "v1")
        cells.branch("exp").put("files/z", b"")
        assert seen.stat("files/y") is None and seen.stat("files/z") is not None
        assert before != cells.branch("exp").generation() or seen.working.pulse.read() == 1


def test_a_store_may_be_closed_while_threads_read(store: Store) -> None:
    """They get an error. (SQLite crashes the process if a connection is closed under a running statement.)"""
    for _ in range(20):
        second = open_store(store.path)
        branch = second["cells"].branch("main")
        ends = []

        def read(branch: Branch = branch, ends: list[str] = ends) -> None:
            try:
                while True:
                    branch.read("files/x")
            except volfs.VolfsError as error:
                ends.append(str(error))

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        second.close()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(ends) == 4


def test_who_is_too_late_for_a_branch_leaves_the_lock_of_one_made_anew(
    branch: Branch, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = branch.working.layout.lock

    def made_anew() -> None:
        """Between the look before the lock and the look after it."""
        lock.unlink()
        lock.write_text("of another branch")
        raise NotFound("the branch was removed")

    monkeypatch.setattr(branch, "keep_up", made_anew)
    with pytest.raises(NotFound):
        branch.put("files/x", b"1")
    assert lock.read_text() == "of another branch"


def test_of_a_branch_that_was_removed_no_lock_stays(branch: Branch, monkeypatch: pytest.MonkeyPatch) -> None:
    def removed() -> None:
        raise NotFound("the branch was removed")

    monkeypatch.setattr(branch, "keep_up", removed)
    with pytest.raises(NotFound):
        branch.put("files/x", b"1")
    assert not branch.working.layout.lock.exists()
