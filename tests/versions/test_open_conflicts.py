"""A merge with conflicts on a branch of its own, and the head of a branch made anew."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.kits import fork_server
from tests.kits.mounts import answer, refused, volfs
from tests.kits.stores import array_json, chunk, meta_of, volume, voxels_of
from volfs import init_store, open_store
from volfs.errors import AlreadyThere, BadInput, Conflict, NotAllowed, NothingToCommit
from volfs.model.metadata import group_zarr_json
from volfs.testing.waiting import PATIENCE
from volfs.versions.branch import Branch
from volfs.versions.check.fsck import fsck
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.committed.content_id import content_id
from volfs.versions.committed.version_files import VersionFiles, read_version
from volfs.versions.dataset import Dataset

SHAPE, CHUNKS = (16, 16, 16), (8, 8, 8)
OLD = volume(SHAPE, 1)
RAW = array_json(OLD, CHUNKS)
META = meta_of(RAW)

pytestmark = pytest.mark.usefixtures("stays_whole")


def write(dataset: Dataset, branch: str, values: dict[tuple[int, int, int], int], **files: bytes) -> int:
    head = dataset.branches()[branch]
    voxels = voxels_of(dataset.version(head)) if head else OLD.copy()
    for at, value in values.items():
        voxels[at] = value
    with VersionWriter(dataset, branch, head) as writer:
        if not head:
            writer.put("zarr/zarr.json", group_zarr_json())
        for name, data in files.items():
            writer.put(f"files/{name}", data)
        array = writer.array("s0", RAW, created=not head)
        every = {tuple(i // 8 for i in at) for at in values} or set(np.ndindex(2, 2, 2))
        for at in sorted(every):
            array.put(at, chunk(META, voxels, at))
        return writer.publish(f"on {branch}").number


def crossed(dataset: Dataset) -> None:
    """v2 on main and v3 on exp change two voxels and a file, each in another way; and each another voxel."""
    write(dataset, "main", {}, note=b"a\n")
    dataset.create_branch("exp", 1)
    write(dataset, "main", {(0, 0, 0): 1001, (15, 15, 15): 1002, (0, 0, 1): 1003}, note=b"ours\n")
    write(dataset, "exp", {(0, 0, 0): 2001, (15, 15, 15): 2002, (8, 0, 0): 2003}, note=b"theirs\n")


def on_branch(dataset: Dataset) -> Branch:
    crossed(dataset)
    found = dataset.branch("main").combine("merge", "exp --on merging")
    assert found.made and found.version is not None and found.version.number == 4
    assert [str(each) for each in found.left_open] == [
        "files/note: changed by both",
        "s0 z0-1_y0-1_x0-1: 1 voxel",
        "s0 z15-16_y15-16_x15-16: 1 voxel",
    ]
    return dataset.branch("merging")


def test_a_merge_on_a_branch_holds_all_that_merges_and_ours_where_it_does_not(dataset: Dataset) -> None:
    branch = on_branch(dataset)
    assert dataset.branches() == {"main": 2, "exp": 3, "merging": 4}
    voxels = voxels_of(branch)
    assert [voxels[at] for at in ((0, 0, 0), (15, 15, 15), (0, 0, 1), (8, 0, 0))] == [1001, 1002, 1003, 2003]
    assert branch.read("files/note") == b"ours\n"
    stored = read_version(VersionFiles.of(dataset.objects, 4))
    assert len(stored.conflicts) == 3 and stored.info.parents == (2, 3)
    info = stored.info
    facts = {"parents": [], "author": "a", "message": "m", "time_ns": 1, "root": b"r"}
    assert content_id(**facts) == content_id(**facts, conflicts=())  # type: ignore[arg-type]
    assert content_id(**facts) != content_id(**facts, conflicts=stored.conflicts)  # type: ignore[arg-type]
    assert info.content_id


def test_what_is_open_is_neither_tagged_nor_merged_nor_latest(dataset: Dataset) -> None:
    on_branch(dataset)
    assert dataset.resolve("latest") == 3
    with pytest.raises(NotAllowed, match="open conflicts"):
        dataset.create_tag("paper", "merging")
    for kind, words in (("merge", "merging"), ("cherry-pick", "merging -m 1"), ("restore", "zarr/s0 --from v4")):
        with pytest.raises(BadInput, match="v4 has open conflicts"):
            dataset.branch("main").combine(kind, words)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="branch 'merging' has open conflicts"):
        dataset.merge("main", "merging")
    with pytest.raises(Exception, match="there is a branch or a tag 'exp' already"):
        dataset.branch("main").combine("merge", "exp --on exp")


@pytest.mark.parametrize("choice", ["ours", "theirs", "base"])
def test_conflicts_are_closed_one_by_one_and_then_the_branch_moves_forward(dataset: Dataset, choice: str) -> None:
    branch = on_branch(dataset)
    first = branch.combine("resolve", f"{choice} z0-8_y0-8_x0-8")
    assert [str(each) for each in first.left_open] == [
        "files/note: changed by both",
        "s0 z15-16_y15-16_x15-16: 1 voxel",
    ]
    with pytest.raises(BadInput, match="nothing of z0-8_y0-8_x0-8 is in conflict"):
        branch.combine("resolve", f"{choice} z0-8_y0-8_x0-8")
    assert branch.combine("resolve", f"{choice} files/note").left_open
    last = branch.combine("resolve", choice)
    assert not last.left_open and last.version is not None and last.version.parents == (2, 3)
    assert dataset.branches().keys() == {"main", "exp", "merging"}
    source = dataset.version({"ours": 2, "theirs": 3, "base": 1}[choice])
    voxels, wanted = voxels_of(branch), voxels_of(source)
    for at in ((0, 0, 0), (15, 15, 15)):
        assert voxels[at] == wanted[at]
    assert (voxels[0, 0, 1], voxels[8, 0, 0]) == (1003, 2003), "what had merged stays"
    assert branch.read("files/note") == source.read("files/note")
    repeated = branch.combine("resolve", choice)
    assert not repeated.made and repeated.version == last.version and "no open conflicts" in repeated.notes[0]
    assert dataset.merge("merging").made
    assert dataset.branches()["main"] == last.version.number == dataset.resolve("latest")
    assert dataset.merge("exp").made is False, "main has it"


def test_a_commit_on_the_branch_amends_and_mine_closes(dataset: Dataset) -> None:
    branch = on_branch(dataset)
    branch.put("files/note", b"both\n")
    branch.put("zarr/s0/c/1/1/1", chunk(META, np.full(SHAPE, 5, "u2"), (1, 1, 1)))
    with pytest.raises(Conflict, match="uncommitted"):
        branch.combine("resolve", "mine")
    info = branch.commit("merge exp")
    assert info.parents == (2, 3) and len(dataset.conflicts(info.number)) == 3
    assert branch.read("files/note") == b"both\n" and branch.is_clean()
    assert branch.commit("merge exp") == info, "a repeat"
    done = branch.combine("resolve", "mine")
    assert not done.left_open and voxels_of(branch)[15, 15, 15] == 5
    assert branch.read("files/note") == b"both\n" and voxels_of(branch)[8, 0, 0] == 2003


def test_part_of_a_box_leaves_the_rest_open(dataset: Dataset) -> None:
    write(dataset, "main", {})
    dataset.create_branch("exp", 1)
    write(dataset, "main", {(0, 0, x): 1000 for x in range(4, 12)})
    write(dataset, "exp", {(0, 0, x): 2000 for x in range(4, 12)})
    dataset.branch("main").combine("merge", "exp --on merging")
    branch = dataset.branch("merging")
    left = branch.combine("resolve", "theirs z0-1_y0-1_x0-6").left_open
    assert [str(each) for each in left] == ["s0 z0-1_y0-1_x6-12: 6 voxels"]
    assert voxels_of(branch)[0, 0, 4:12].tolist() == [2000] * 2 + [1000] * 6


@pytest.mark.parametrize("choice", ["ours", "theirs", "base", "mine"])
def test_what_a_pick_leaves_open_is_closed_in_the_same_way(dataset: Dataset, choice: str) -> None:
    crossed(dataset)
    found = dataset.branch("main").combine("cherry-pick", "v3 --on picking")
    assert found.made and dataset.branches() == {"main": 2, "exp": 3, "picking": 4}
    assert found.version is not None and found.version.parents == (2, 3), "as long as something is open"
    assert {each.key for each in found.left_open} == {"zarr/s0", "files/note"}
    repeated = dataset.branch("main").combine("cherry-pick", "v3 --on picking")
    assert not repeated.made and (repeated.version, repeated.left_open) == (found.version, found.left_open)
    with pytest.raises(AlreadyThere, match="--on makes a new branch"):
        dataset.branch("main").combine("cherry-pick", "v3 --on exp")
    voxels = voxels_of(dataset["picking"])
    assert (voxels[0, 0, 0], voxels[8, 0, 0], voxels[0, 0, 1]) == (1001, 2003, 1003)
    assert dataset.sides_of_conflicts(4) == {"base": 1, "ours": 2, "theirs": 3}
    with pytest.raises(BadInput, match="open conflicts"):
        dataset.merge("picking")
    assert dataset.branch("picking").combine("resolve", f"{choice} zarr/s0").version != found.version
    closed = dataset.branch("picking").combine("resolve", choice)
    assert not closed.left_open and closed.version is not None and closed.version.parents == (2,)
    voxels, note = voxels_of(dataset["picking"]), dataset["picking"].read("files/note")
    expected = {"ours": (1001, b"ours\n"), "theirs": (2001, b"theirs\n"), "base": (OLD[0, 0, 0], b"a\n")}
    assert (voxels[0, 0, 0], note) == expected.get(choice, expected["ours"])
    assert (voxels[8, 0, 0], voxels[0, 0, 1]) == (2003, 1003)
    moved = dataset.merge("picking")
    assert moved.version == closed.version and dataset.branches()["main"] == dataset.branches()["picking"]


def test_a_revert_of_the_first_version_leaves_open_what_was_changed_since(dataset: Dataset) -> None:
    write(dataset, "main", {}, note=b"a\n", other=b"b\n")
    with VersionWriter(dataset, "main", 1) as writer:
        writer.put("files/note", b"changed\n")
        writer.publish("changed")
    found = dataset.branch("main").combine("revert", "v1 --on back")
    assert [each.key for each in found.left_open] == ["files/note"]
    assert dataset["back"].stat("files/other") is None and dataset.sides_of_conflicts(3) == {"base": 1, "ours": 2}
    assert not dataset.branch("back").combine("resolve", "theirs").left_open
    assert dataset["back"].stat("files/note") is None


@pytest.mark.parametrize("choice", ["ours", "theirs"])
def test_a_rebase_leaves_the_conflicts_of_all_its_versions_open_on_another_branch(
    dataset: Dataset, choice: str
) -> None:
    crossed(dataset)
    write(dataset, "exp", {(0, 0, 0): 3001, (4, 4, 4): 3004}, note=b"later\n")
    found = dataset.branch("exp").combine("rebase", "main --on rebased")
    assert found.made and dataset.branches()["exp"] == 4 and dataset.branches()["main"] == 2
    assert "rebasing.exp" not in dataset.branches()
    chain = list(dataset.log("rebased", first_parent=True))
    assert [info.message for info in chain] == ["on exp", "on exp", "on main", "on main"]
    assert len({each.of for each in found.left_open}) == 2
    voxels = voxels_of(dataset["rebased"])
    assert (voxels[0, 0, 0], voxels[8, 0, 0], voxels[4, 4, 4]) == (1001, 2003, 3004)
    closed = dataset.branch("rebased").combine("resolve", choice)
    assert not closed.left_open and closed.version is not None and len(closed.version.parents) == 1
    voxels, note = voxels_of(dataset["rebased"]), dataset["rebased"].read("files/note")
    assert (voxels[0, 0, 0], note) == ((1001, b"ours\n") if choice == "ours" else (3001, b"later\n"))
    assert (voxels[8, 0, 0], voxels[4, 4, 4], voxels[0, 0, 1]) == (2003, 3004, 1003)
    assert dataset.merge("rebased").version == closed.version, "main moves forward"


def test_amending_puts_changes_into_the_head_and_refuses_one_that_others_have(dataset: Dataset, branch: Branch) -> None:
    write(dataset, "main", {}, note=b"a\n")
    write(dataset, "main", {(0, 0, 0): 1}, more=b"m\n")
    branch.put("files/note", b"b\n")
    branch.put("zarr/s0/c/1/1/1", chunk(META, np.full(SHAPE, 5, "u2"), (1, 1, 1)))
    info = branch.amend()
    assert info.parents == (1,) and info.message == "on main" and dataset.branches() == {"main": info.number}
    assert branch.read("files/note") == b"b\n" and branch.read("files/more") == b"m\n"
    voxels = voxels_of(dataset.version(info.number))
    assert voxels[0, 0, 0] == 1 and voxels[15, 15, 15] == 5
    with pytest.raises(NothingToCommit):
        branch.amend()
    again = branch.amend("another message")
    assert again.message == "another message" and again.parents == (1,)
    assert branch.amend("another message") == again, "a repeat"
    dataset.create_tag("paper", "main")
    branch.put("files/note", b"c\n")
    with pytest.raises(NotAllowed, match="tag 'paper' has it"):
        branch.amend()
    assert branch.read("files/note") == b"c\n"


def test_the_first_version_can_be_amended(dataset: Dataset, branch: Branch) -> None:
    write(dataset, "main", {}, note=b"a\n")
    branch.put("files/note", b"b\n")
    info = branch.amend("begun")
    assert info.parents == () and branch.read("files/note") == b"b\n"
    assert np.array_equal(voxels_of(dataset.version(info.number)), OLD)


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    path = tmp_path / "killed"
    with init_store(path) as store:
        dataset = store.create_dataset("cells")
        write(dataset, "main", {}, note=b"a\n")
        write(dataset, "main", {(0, 0, 0): 1}, note=b"b\n")
        dataset.branch("main").put("files/note", b"c\n")
    return path


POINTS = ["amend.drafted", "combine.decided", "amend.prepared", "commit.renamed", "commit.ref", "commit.indexed"]


@pytest.mark.parametrize("point", [*POINTS, "commit.ref:2", "amend.cleaned"])
def test_an_amendment_that_is_killed_has_happened_or_has_not(killed: Path, point: str) -> None:
    command = [sys.executable, "-m", "volfs", "--store", str(killed), "commit", "cells", "--amend", "-m", "anew"]
    done = fork_server.run(command, env={**os.environ, "VOLFS_CRASH_AT": point}, capture_output=True, timeout=PATIENCE)
    assert done.returncode == -9, (done.stdout, done.stderr)
    volfs(killed, "fsck")
    said = answer(killed, "commit", "cells", "--amend", "-m", "anew")
    assert said["message"] == "anew" and said["parents"] == ["v1"]
    with open_store(killed) as store:
        dataset = store["cells"]
        assert dataset.branch("main").read("files/note") == b"c\n" and dataset.branch("main").is_clean()
        assert voxels_of(dataset["main"])[0, 0, 0] == 1
        assert dataset.branches().keys() == {"main"}
        assert fsck(store).findings == []


def test_a_commit_of_keys_leaves_the_rest_uncommitted(killed: Path) -> None:
    with open_store(killed) as store:
        store["cells"].branch("main").put("files/other/x", b"x\n")
    assert "nothing is uncommitted at or below zarr/s0" in refused(killed, "commit", "cells", "zarr/s0", "-m", "x")
    volfs(killed, "commit", "cells", "files/other", "-m", "x")
    with open_store(killed) as store:
        branch = store["cells"].branch("main")
        assert branch.dataset["v3"].read("files/other/x") == b"x\n"
        assert branch.dataset["v3"].read("files/note") == b"b\n" and branch.read("files/note") == b"c\n"


def test_commands_open_and_close_conflicts_with_status_1_while_some_are_open(tmp_path: Path) -> None:
    path = tmp_path / "commands"
    with init_store(path) as store:
        crossed(store.create_dataset("cells"))
    done = volfs(path, "merge", "cells", "exp", "--on", "merging", ok=False)
    assert done.returncode == 1 and done.stdout.splitlines()[-1] == "v4  merge exp"
    assert done.stderr == "volfs: 3 conflicts open in v4: mend them there, or say `volfs resolve`\n"
    done = volfs(path, "resolve", "cells@merging", "theirs", "files", ok=False)
    assert done.returncode == 1 and "2 conflicts open" in done.stderr
    said = answer(path, "resolve", "cells@merging", "ours")
    assert said["made"] and said["open"] == []
    volfs(path, "merge", "cells", "merging")
