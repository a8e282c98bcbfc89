"""Committing and discarding from another process while a mount writes to the branch: the mount is asked to do it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import volfs
from volfs.errors import Busy, Held, NothingToCommit, ReadOnly
from volfs.testing.kit import mounted
from volfs.versions.branch import Branch
from volfs.versions.forward import ask_mount, key_line, key_of_line
from volfs.versions.lock import Holder
from volfs.versions.status import Action


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
    with pytest.raises(Busy, match="unmount"):
        branch.commit("not that", leave=["files/y"])


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


def test_what_is_asked_is_over_when_something_else_came_after_it(tmp_path: Path) -> None:
    control = tmp_path / "cells" / "branches" / "main" / ".volfs"
    control.mkdir(parents=True)
    (control / "update").touch()
    later = Action.begin("commit", "of another").done(7, "of another", ())
    later = replace(later, began_ns=later.began_ns + 10**9)
    (control / "status.json").write_text(json.dumps({"action": later.to_json()}))
    assert ask_mount(Holder(7, "here", str(tmp_path)), "cells", "main", "update", "ours") == {}


@given(st.text())
def test_any_key_can_be_written_in_a_line(key: str) -> None:
    assert key_of_line(key_line(key)) == key.rstrip("/") and "\n" not in key_line(key)
