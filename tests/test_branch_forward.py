"""Committing and discarding from another process while a mount writes to the branch: the mount is asked to do it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import volfs
from volfs.errors import Busy, Held, NothingToCommit, ReadOnly
from volfs.testing.kit import mounted
from volfs.versions.branch import Branch
from volfs.versions.lock import Holder


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
