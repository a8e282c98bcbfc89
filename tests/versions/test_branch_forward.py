"""Committing and discarding from another process while a mount writes to the branch: the mount is asked to do it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import volfs
from volfs.errors import (
    AlreadyThere,
    BadInput,
    Busy,
    Damaged,
    Held,
    NotAllowed,
    NotFound,
    NothingToCommit,
    ReadOnly,
    VolfsError,
)
from volfs.testing.kit import mounted
from volfs.testing.waiting import PATIENCE, until
from volfs.versions.branch import Branch
from volfs.versions.remote_commit import ask_mount, key_line, key_of_line
from volfs.versions.working.branch_lock import Holder


@pytest.fixture
def mounted_branch(tmp_path: Path, mountpoint: Path) -> Iterator[tuple[Branch, Path]]:
    with volfs.init_store(tmp_path / "store") as store:
        store.create_dataset("cells").branch("main").put("files/x", b"0")
        store["cells"].branch("main").commit("first")
    with mounted(tmp_path / "store", mountpoint), volfs.open_store(tmp_path / "store") as store:
        shown = mountpoint / "cells" / "branches" / "main"
        (shown / "files" / "y").write_bytes(b"1")
        yield store["cells"].branch("main"), shown


def test_the_mount_commits_and_discards_for_others(mounted_branch: tuple[Branch, Path]) -> None:
    branch, shown = mounted_branch
    assert not branch.writable and branch.read("files/y") == b"1"
    with pytest.raises(ReadOnly, match="mount at"):
        branch.put("files/z", b"")
    info = branch.commit("through the mount")
    assert (info.number, info.message) == (2, "through the mount")
    assert branch.dataset.version(2).read("files/y") == b"1"
    assert branch.commit("through the mount").number == 2  # said twice, done once
    with pytest.raises(NothingToCommit):
        branch.commit("again")
    (shown / "files" / "y").write_bytes(b"2")
    branch.discard("files/y")
    assert branch.read("files/y") == b"1" == (shown / "files" / "y").read_bytes()


def test_the_mount_leaves_keys_amends_and_says_more_for_others(mounted_branch: tuple[Branch, Path]) -> None:
    branch, shown = mounted_branch
    (shown / "files" / "z z").write_bytes(b"2")
    info = branch.commit("a part\n\nin two lines", "Ada", leave=["files/y"], meta={"run": "17"})
    assert (info.message, info.author) == ("a part\n\nin two lines", "Ada")
    with pytest.raises(NotFound):
        branch.dataset.version(info.number).read("files/y")
    amended = branch.amend()
    assert (amended.message, amended.author, amended.parents) == (info.message, "Ada", info.parents)
    assert branch.dataset.version(amended.number).read("files/y") == b"1"
    assert branch.is_clean() and branch.head == amended
    again = branch.amend("better said")
    assert again.message == "better said" and branch.amend("better said") == again
    branch.dataset.create_tag("kept", again.number)
    with pytest.raises(NotAllowed, match="tag 'kept' has it"):
        branch.amend("too late")
    control = shown / ".volfs" / "commit-words"
    (shown / "files" / "other").write_bytes(b"3")
    (shown / "files" / "more").write_bytes(b"4")
    control.write_text("-m 'by a file' files/other")
    branch.dataset.store.refresh()
    head = branch.head
    assert head is not None and head.message == "by a file" and not branch.is_clean()
    for wrong in ("--amend --meta a=b", "files/other", "-m x --nonsense", "-m 'x", "-m x files/none"):
        with pytest.raises(OSError, match="Invalid argument"):
            control.write_text(wrong)
    assert "nothing is uncommitted at or below files/none" in (shown / ".volfs" / "errors.txt").read_text()


def test_the_mount_moves_and_renames_the_branch_for_others(mounted_branch: tuple[Branch, Path]) -> None:
    branch, shown = mounted_branch
    dataset = branch.dataset
    branch.commit("second")
    (shown / "files" / "z").write_bytes(b"2")
    with pytest.raises(Busy, match="uncommitted changes"):
        dataset.move_branch("main", "v1")
    branch.discard()
    dataset.move_branch("main", "v1")
    assert dataset.branches() == {"main": 1} and not (shown / "files" / "y").exists()
    dataset.move_branch("main", "v2")
    dataset.move_branch("main", "v2")
    until((shown / "files" / "y").exists)
    (shown / "files" / "z").write_bytes(b"2")
    dataset.create_branch("other")
    with pytest.raises(AlreadyThere):
        dataset.rename_branch("main", "other")
    dataset.rename_branch("main", "trial")
    assert dataset.branches() == {"other": 2, "trial": 2} and dataset.default_branch == "trial"
    assert (shown.parent / "trial" / "files" / "z").read_bytes() == b"2"
    log = [change.why for change in dataset.ref_log() if not isinstance(change, Damaged)]
    assert log[:4] == [
        "branch -m: renamed from main",
        "branch made at main",
        "branch -f: moved to v2",
        "branch -f: moved to v1",
    ]
    with (shown.parent / "trial" / "files" / "held").open("wb"), pytest.raises(Busy, match="open for writing"):
        dataset.rename_branch("trial", "main")


def test_what_the_mount_refuses_is_refused_by_name(mounted_branch: tuple[Branch, Path]) -> None:
    branch, shown = mounted_branch
    (shown / "zarr" / "a" / "c" / "0").mkdir(parents=True)
    (shown / "zarr" / "a" / "c" / "0" / "0").write_bytes(b"early")
    with pytest.raises(Held, match="zarr/a/c/0/0"):
        branch.commit("too early")
    assert branch.head is not None and branch.head.number == 1


def test_a_mount_that_cannot_be_reached_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with volfs.init_store(tmp_path / "store") as store:
        branch = store.create_dataset("cells").branch("main")
        monkeypatch.setattr(branch.working.lock, "holder", lambda: Holder(7, "far-away", "/mnt/there"))
        with pytest.raises(ReadOnly, match=r"the mount at /mnt/there \(pid 7 on far-away\), which cannot be reached"):
            branch.commit("anything")


ODD = ("files/two\nlines", "files/at the end ", "files/\u2028", "files/x\x1f", 'files/"', "files/d/k", "files/\xe9\r")


def test_the_mount_discards_what_is_meant_whatever_the_key_is(mounted_branch: tuple[Branch, Path]) -> None:
    branch, shown = mounted_branch
    spared = ("files/two", "files/at the end", "files/x")
    (shown / "files" / "d").mkdir()
    for key in (*ODD, *spared):
        (shown / key).write_bytes(b"mine")
    for key in ODD:
        branch.discard(f"{key}/" if key == "files/d/k" else key)
        assert branch.stat(key) is None, key
    assert all(branch.read(key) == b"mine" for key in spared)
    branch.discard("all")
    assert branch.is_clean()


def test_each_of_many_who_ask_at_once_learns_what_came_of_its_own(mounted_branch: tuple[Branch, Path]) -> None:
    branch, shown = mounted_branch
    holder = branch.working.lock.holder()
    assert holder is not None

    def ask(number: int) -> dict[str, object]:
        """Until it is the turn of this one, whose words no other uses."""
        for attempt in count():
            (shown / "files" / f"of {number}").write_text(f"attempt {attempt}")
            with suppress(Busy, NothingToCommit):  # others are at it, or have committed this file too
                return ask_mount(holder, "cells", "main", "commit", f"message {number}")
        raise AssertionError

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(12)))
    assert [answer["message"] for answer in answers] == [f"message {number}" for number in range(12)]
    versions = [answer["version"] for answer in answers]
    assert [branch.dataset.info(number).message for number in versions] == [f"message {number}" for number in range(12)]


def test_what_was_asked_is_told_though_something_else_came_after_it(mounted_branch: tuple[Branch, Path]) -> None:
    branch, shown = mounted_branch
    with (shown / ".volfs" / "discard").open("r+b", buffering=0) as mine:
        assert mine.read() == b""
        mine.write(b"files/y")
        branch.update("ours")
        with pytest.raises(BadInput, match="nothing of this name is staged"):
            branch.discard("s0/xy/z00000.png")
        told = json.loads(os.pread(mine.fileno(), 1 << 20, 0))
    assert (told["kind"], told["message"], told["state"]) == ("discard", "files/y", "done")
    assert json.loads((shown / ".volfs" / "status.json").read_bytes())["action"]["message"] == "s0/xy/z00000.png"


def test_a_mount_that_dies_while_it_is_asked_is_an_error_at_once(
    tmp_path: Path, mountpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with volfs.init_store(tmp_path / "store") as store:
        store.create_dataset("cells").branch("main").put("files/x", b"0")
        store["cells"].branch("main").commit("first")
    monkeypatch.setenv("VOLFS_CRASH_AT", "commit.synced")
    line = [sys.executable, "-m", "volfs", "--store", str(tmp_path / "store"), "mount", "-f", str(mountpoint)]
    with subprocess.Popen(line, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as daemon:
        try:
            until((mountpoint / "README.txt").exists)
            (mountpoint / "cells" / "branches" / "main" / "files" / "y").write_bytes(b"1")
            with volfs.open_store(tmp_path / "store") as store, pytest.raises(VolfsError) as died:
                store["cells"].branch("main").commit("never")
            assert died.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
            assert daemon.wait(PATIENCE) == -signal.SIGKILL
        finally:
            daemon.kill()
            subprocess.run(["umount", "-l", str(mountpoint)], check=False, capture_output=True)


@given(st.text())
def test_any_key_can_be_written_in_a_line(key: str) -> None:
    assert key_of_line(key_line(key)) == key.rstrip("/") and "\n" not in key_line(key)
