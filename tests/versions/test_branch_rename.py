"""Branches that get another name or another version: with all that is uncommitted, or not at all."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.kits import fork_server
from tests.kits.stores import START, new_store, volume, voxels_of, write_version
from volfs import open_store
from volfs.errors import AlreadyThere, BadName, Busy, NotFound, ReadOnly
from volfs.storage.files import read_json
from volfs.versions.check.fsck import fsck
from volfs.versions.dataset import Dataset

POINTS = ["rename.intent", "refs.logged", "rename.ref", "rename.default", "rename.moved"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    with new_store(root) as store:
        dataset = store.create_dataset("cells")
        for number in range(3):
            write_version(dataset, volume((8, 8, 8), number), parent=number, time_ns=START + number * 10**10)
        dataset.create_branch("exp", "v2")
        dataset.branch("exp").put("files/notes", b"mine")
    return root


def working(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "datasets/cells/working").iterdir())


def test_a_branch_is_renamed_with_what_is_uncommitted(root: Path) -> None:
    with open_store(root) as store:
        dataset = store["cells"]
        dataset.rename_branch("exp", "trial")
        assert dataset.branches() == {"main": 3, "trial": 2}
        assert dataset.branch("trial").read("files/notes") == b"mine"
        with pytest.raises(NotFound):
            dataset.branch("exp")
        info = dataset.branch("trial").commit("goes on")
        assert info.parents == (2,) and dataset.branches()["trial"] == info.number
        dataset.create_branch("exp", "v1")
        assert dataset.branch("exp").stat("files/notes") is None
        assert fsck(store).clean
    assert "trial" in working(root)


def test_the_default_branch_stays_that_in_every_process(root: Path) -> None:
    with open_store(root) as store, open_store(root) as other:
        there = other["cells"]
        assert there.default_branch == "main"
        store["cells"].rename_branch("main", "trunk")
        assert store["cells"].default_branch == "trunk" and store["cells"].snapshot().ref == "trunk"
        other.refresh()
        there.look_around()
        assert there.default_branch == "trunk" and there.resolve("@2100-01-01") == 3
    assert read_json(root / "datasets/cells/dataset.json")["default_branch"] == "trunk"
    with open_store(root, read_only=True) as store:
        assert store["cells"].default_branch == "trunk"


def test_names_that_are_taken_or_none_are_refused_and_change_nothing(root: Path) -> None:
    with open_store(root) as store:
        dataset = store["cells"]
        dataset.create_tag("paper", "v1")
        for name, error in (("main", AlreadyThere), ("paper", AlreadyThere), ("v7", BadName), ("a b", BadName)):
            with pytest.raises(error):
                dataset.rename_branch("exp", name)
        with pytest.raises(NotFound):
            dataset.rename_branch("nope", "other")
        dataset.rename_branch("exp", "exp")
        assert dataset.branches() == {"main": 3, "exp": 2}
        assert dataset.branch("exp").read("files/notes") == b"mine"
    assert not list((root / "datasets/cells/working").glob("*/rename.json"))


def test_a_branch_that_somebody_writes_is_not_renamed_or_moved(root: Path) -> None:
    with open_store(root) as store, open_store(root) as other:
        branch = other["cells"].branch("exp")
        branch.discard()
        branch.acquire("/mnt")
        with pytest.raises(ReadOnly, match="/mnt"):  # a mount is asked to do it, and this one cannot be reached
            store["cells"].rename_branch("exp", "trial")
        with pytest.raises(ReadOnly, match="/mnt"):
            store["cells"].move_branch("exp", "v1")
        branch.release()
        assert store["cells"].branches()["exp"] == 2


def test_the_same_again_is_no_error(root: Path) -> None:
    with open_store(root) as store:
        dataset = store["cells"]
        dataset.rename_branch("exp", "trial")
        dataset.rename_branch("exp", "trial")
        dataset.create_branch("fresh", "v1")
        with pytest.raises(NotFound):  # it was never called so
            dataset.rename_branch("exp", "fresh")


@pytest.mark.parametrize("name", ["exp", "main"])
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_rename_is_whole_under_one_name_and_the_repeat_finishes(root: Path, point: str, name: str) -> None:
    if name == "main":
        with open_store(root) as store:
            store["cells"].branch("main").put("files/notes", b"mine")
    code = f"import sys, volfs; volfs.open_store(sys.argv[1])['cells'].rename_branch({name!r}, 'trial')"
    done = fork_server.run(
        [sys.executable, "-c", code, str(root)], env={**os.environ, "VOLFS_CRASH_AT": point}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    with open_store(root) as store:
        dataset = store["cells"]
        there = name if point in POINTS[:2] else "trial"
        kept = {"main": 3, "exp": 2}
        assert dataset.branches() == {**{n: v for n, v in kept.items() if n != name}, there: kept[name]}
        assert dataset.branch(there).read("files/notes") == b"mine"
        assert dataset.default_branch == ("main" if name == "exp" else there)
        assert fsck(store).clean
        dataset.rename_branch(name, "trial")
        assert dataset.branch("trial").read("files/notes") == b"mine"
        assert name not in dataset.branches() and fsck(store).clean
    assert name not in working(root)
    assert not list((root / "datasets/cells/working").glob("*/rename.json"))


@pytest.mark.parametrize("point", POINTS[2:])
def test_a_process_that_lives_on_sees_a_killed_rename_whole(root: Path, point: str) -> None:
    code = "import sys, volfs; volfs.open_store(sys.argv[1])['cells'].rename_branch('exp', 'trial')"
    with open_store(root) as store:
        dataset = store["cells"]
        done = fork_server.run(
            [sys.executable, "-c", code, str(root)], env={**os.environ, "VOLFS_CRASH_AT": point}, check=False
        )
        assert done.returncode == -signal.SIGKILL
        dataset.look_around()
        assert dataset.branch("trial").read("files/notes") == b"mine"
        dataset.branch("trial").put("files/more", b"and more")
        assert dataset.branch("trial").commit("all of it").parents == (2,)


def test_a_branch_is_moved_only_when_all_is_committed(root: Path) -> None:
    with open_store(root) as store:
        dataset = store["cells"]
        with pytest.raises(Busy, match="uncommitted changes"):
            dataset.move_branch("exp", "v1")
        dataset.branch("exp").discard()
        for ref, number in (("v1", 1), ("main", 3), ("main~", 2), ("exp", 2), ("latest", 3)):
            dataset.move_branch("exp", ref)
            assert dataset.branches()["exp"] == number
            assert (voxels_of(dataset.branch("exp")) == voxels_of(dataset.version(number))).all()
        dataset.branch("exp").put("files/notes", b"x")
        assert dataset.branch("exp").commit("on top").parents == (3,)
        for ref in ("v9", "nope"):
            with pytest.raises(NotFound):
                dataset.move_branch("exp", ref)


def moved(dataset: Dataset) -> int:
    return dataset.branches()["exp"]


def test_a_moved_branch_is_seen_by_others(root: Path) -> None:
    with open_store(root) as store, open_store(root) as other:
        store["cells"].branch("exp").discard()
        assert moved(other["cells"]) == 2
        store["cells"].move_branch("exp", "v3")
        other.refresh()
        assert moved(other["cells"]) == 3
        assert (voxels_of(other["cells"].branch("exp")) == volume((8, 8, 8), 2)).all()
