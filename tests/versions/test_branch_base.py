"""The version that a working copy lies over: reads go over it, it follows the head where nothing is in the way, and
what is in the way is decided by name."""

from __future__ import annotations

import json
import os
import signal
import sys

import numpy as np
import pytest

from tests.kits import fork_server
from tests.kits.stores import (
    SECOND,
    START,
    array_at,
    array_json,
    chunk,
    tree_of,
    volume,
    voxels_of,
    write_version,
)
from volfs.errors import BadInput, Conflict, Damaged
from volfs.model.metadata import group_zarr_json
from volfs.model.ngff import labels_attributes
from volfs.versions.branch import Branch
from volfs.versions.check.fsck import fsck
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.dataset import Dataset
from volfs.versions.store import Store

SHAPE = (16, 16, 16)
OLD, NEW, MINE = volume(SHAPE), volume(SHAPE, 1), volume(SHAPE, 2)

pytestmark = pytest.mark.usefixtures("stays_whole")


@pytest.fixture
def dataset(dataset: Dataset) -> Dataset:
    files = {"files/notes": b"old", "files/dir/a": b"a", "files/dir/b": b"b"}
    write_version(dataset, OLD, files={"zarr/labels/zarr.json": labels("one"), **files}, time_ns=START)
    return dataset


def labels(*names: str) -> bytes:
    return group_zarr_json(labels_attributes(names))


def names_of(raw: bytes) -> list[str]:
    return json.loads(raw)["attributes"]["ome"]["labels"]


def put_chunk(branch: Branch, at: tuple[int, int, int], voxels: np.ndarray = MINE) -> str:
    key = f"zarr/s0/c/{'/'.join(map(str, at))}"
    branch.put(key, chunk(array_at(branch).meta, voxels, at))
    return key


def move(
    dataset: Dataset, *, files: dict[str, bytes] | None = None, coords=(), gone=(), trees=(), raw: bytes | None = None
):
    """A new head of ``main`` that no working copy has made."""
    parent = dataset.branches()["main"]
    with VersionWriter(dataset, "main", parent) as writer:
        for key, data in (files or {}).items():
            writer.put(key, data)
        for key in gone:
            writer.remove(key)
        for key in trees:
            writer.remove_subtree(key)
        if coords or raw is not None:
            meta = dataset.version(parent).array("s0").meta
            array = writer.array("s0", raw or dataset.version(parent).read("zarr/s0/zarr.json"), created=False)
            for at in coords:
                array.put(at, chunk(meta, NEW, at))
        return writer.publish("moved").number


def box(at: tuple[int, int, int]) -> tuple[slice, ...]:
    return tuple(slice(8 * c, 8 * c + 8) for c in at)


# -- what follows by itself -------------------------------------------------------------------------------------------


def test_a_clean_branch_shows_its_head_whoever_moves_it(dataset, branch):
    assert branch.base.number == 1
    move(dataset, files={"files/notes": b"new"})
    assert branch.read("files/notes") == b"new"
    assert branch.base.number == branch.head.number == 2
    assert branch.behind() is None
    assert not branch.working.layout.base.exists()


def test_changes_that_touch_nothing_that_moved_stay_and_the_base_moves_along(dataset, branch):
    put_chunk(branch, (0, 0, 0))
    branch.put("files/mine", b"mine")
    move(dataset, files={"files/notes": b"new"}, coords=[(1, 1, 1)])
    assert branch.base.number == 2
    expected = OLD.copy()
    expected[box((0, 0, 0))] = MINE[box((0, 0, 0))]
    expected[box((1, 1, 1))] = NEW[box((1, 1, 1))]
    assert (voxels_of(branch) == expected).all()
    assert branch.read("files/notes") == b"new"
    info = branch.commit("both")
    assert info.parents == (2,)
    assert (voxels_of(dataset["latest"]) == expected).all()


def test_a_chunk_copied_up_earlier_is_never_laid_over_a_head_that_changed_it(dataset, branch):
    key = put_chunk(branch, (0, 0, 0))
    move(dataset, coords=[(0, 0, 0)])
    assert branch.base.number == 1
    expected = OLD.copy()
    expected[box((0, 0, 0))] = MINE[box((0, 0, 0))]
    assert (voxels_of(branch) == expected).all(), "reads go over the base"
    assert branch.behind().keys == (key,)
    with pytest.raises(Conflict, match=r"zarr/s0/c/0/0/0.*volfs update cells@main --ours"):
        branch.commit("mine")
    assert len(dataset.versions()) == 2


def test_a_working_copy_dirtied_on_an_older_base_keeps_showing_that(dataset, branch):
    put_chunk(branch, (0, 0, 0))
    before = tree_of(branch)
    move(dataset, coords=[(0, 0, 0), (1, 0, 0)], files={"files/notes": b"new"})
    assert tree_of(branch) == before, "nothing is shown half of one version and half of another"


def test_lists_of_names_merge_as_sets(dataset, branch):
    branch.put("zarr/labels/zarr.json", labels("one", "mine"))
    move(dataset, files={"zarr/labels/zarr.json": labels("one", "theirs")})
    assert branch.behind() is None
    assert names_of(branch.read("zarr/labels/zarr.json")) == ["one", "theirs", "mine"]
    branch.commit("both")
    assert names_of(dataset["latest"].read("zarr/labels/zarr.json")) == ["one", "theirs", "mine"]


def test_a_list_that_both_made_merges_too_and_names_taken_out_stay_out(dataset, branch):
    branch.put("zarr/labels/zarr.json", labels("mine"))
    move(dataset, files={"zarr/labels/zarr.json": labels("one", "two")})
    assert names_of(branch.read("zarr/labels/zarr.json")) == ["two", "mine"]
    branch.put("zarr/more/labels/zarr.json", labels("a"))
    move(dataset, files={"zarr/more/labels/zarr.json": labels("b")})
    assert names_of(branch.read("zarr/more/labels/zarr.json")) == ["b", "a"]


def test_what_both_changed_to_the_same_is_not_in_the_way(dataset, branch):
    branch.put("files/notes", b"same")
    branch.delete("files/dir/a")
    put_chunk(branch, (0, 0, 0), NEW)
    move(dataset, files={"files/notes": b"same"}, gone=["files/dir/a"], coords=[(0, 0, 0)])
    assert branch.behind() is None
    assert branch.base.number == 2


def test_other_changes_of_one_document_are_in_the_way(dataset, branch):
    branch.put("zarr/labels/zarr.json", group_zarr_json({"note": "mine"}))
    move(dataset, files={"zarr/labels/zarr.json": group_zarr_json({"note": "theirs"})})
    assert branch.behind().keys == ("zarr/labels/zarr.json",)


def test_an_array_described_anew_counts_as_all_its_keys(dataset, branch):
    put_chunk(branch, (0, 0, 0))
    move(dataset, raw=array_json(np.zeros((24, 16, 16), "u2"), (8, 8, 8)))
    assert branch.behind().keys == ("zarr/s0",)
    with pytest.raises(Conflict, match="zarr/s0"):
        branch.commit("mine")


def test_an_array_that_only_gets_attributes_is_not_described_anew(dataset, branch):
    key = put_chunk(branch, (0, 0, 0))
    move(dataset, raw=array_json(OLD, (8, 8, 8), attributes={"note": "theirs"}))
    assert branch.behind() is None
    assert branch.working.disk_stat(key) is not None
    assert array_at(branch).meta.attributes["note"] == "theirs"


def test_a_directory_removed_here_and_changed_there_is_in_the_way(dataset, branch):
    branch.delete_tree("files/dir")
    move(dataset, files={"files/dir/c": b"new"})
    assert branch.behind().keys == ("files/dir",)
    branch.update("theirs")
    assert {name for name, _ in branch.list("files/dir")} == {"a", "b", "c"}


def test_a_directory_removed_there_and_changed_here_is_in_the_way(dataset, branch):
    branch.put("files/dir/a", b"mine")
    move(dataset, trees=["files/dir"])
    assert branch.behind().keys == ("files/dir/a",)
    branch.update("ours")
    assert [name for name, _ in branch.list("files/dir")] == ["a"]
    assert branch.read("files/dir/a") == b"mine"


def test_what_moved_is_newer_than_what_was_changed_before(dataset, branch):
    """A view that crosses both must be seen to have changed."""
    put_chunk(branch, (1, 0, 0))
    before = array_at(branch).newest((0,))
    parent = dataset.branches()["main"]
    with VersionWriter(dataset, "main", parent) as writer:
        array = writer.array("s0", dataset.version(parent).read("zarr/s0/zarr.json"), created=False)
        array.put((1, 1, 1), chunk(array_at(dataset["v1"]).meta, NEW, (1, 1, 1)))
        writer.publish("older than the change here", time_ns=START + SECOND)
    assert branch.base.number == 2
    assert (array_at(branch).newest((0,)) >= before).all()
    assert array_at(branch).newest((0,))[1] > before[1]


def test_permission_bits_of_a_directory_go_along_and_are_never_set_back(dataset, branch):
    branch.put("files/dir/mine", b"mine")
    parent = dataset.branches()["main"]
    with VersionWriter(dataset, "main", parent) as writer:
        writer.put("files/dir/theirs", b"theirs")
        writer.set_mode("files/dir", 0o700)
        writer.publish("closed")
    assert branch.behind() is None
    assert branch.stat("files/dir").mode == 0o700
    number = branch.commit("mine").number
    assert dataset.version(number).stat("files/dir").mode == 0o700


def test_the_same_bytes_with_other_permission_bits_are_in_the_way(dataset, branch):
    branch.put("files/notes", b"same")
    branch.working.chmod("files/notes", 0o755)
    move(dataset, files={"files/notes": b"same"})
    assert branch.behind().keys == ("files/notes",)


# -- deciding ---------------------------------------------------------------------------------------------------------


def test_keys_are_decided_one_by_one_and_the_last_makes_the_head_the_base(dataset, branch):
    key = put_chunk(branch, (0, 0, 0))
    branch.put("files/notes", b"mine")
    branch.put("files/other", b"other")
    move(dataset, files={"files/notes": b"new"}, coords=[(0, 0, 0), (1, 1, 1)])
    assert branch.behind().keys == ("files/notes", key)
    with pytest.raises(BadInput, match="files/other is not in conflict"):
        branch.update("theirs", ["files/other"])
    left = branch.update("ours", [key])
    assert left.keys == ("files/notes",)
    assert branch.base.number == 1
    assert branch.update("ours", [key]).keys == ("files/notes",), "the same again does no harm"
    assert branch.update("theirs", ["files"]) is None
    assert branch.base.number == 2
    assert branch.read("files/notes") == b"new"
    assert branch.read("files/other") == b"other"
    expected = OLD.copy()
    expected[box((0, 0, 0))] = MINE[box((0, 0, 0))]
    expected[box((1, 1, 1))] = NEW[box((1, 1, 1))]
    assert (voxels_of(branch) == expected).all()
    branch.commit("decided")
    assert (voxels_of(dataset["latest"]) == expected).all()


def test_theirs_may_be_repeated_and_takes_back_ours(dataset, branch):
    key, array = put_chunk(branch, (0, 0, 0)), "zarr/s0"
    for name in ("notes", "dir/a", "other"):
        branch.put(f"files/{name}", b"mine")
    move(dataset, files={"files/notes": b"new", "files/dir/a": b"new"}, coords=[(0, 0, 0)])
    for _ in range(2):
        assert branch.update("theirs", ["files/dir"]).keys == ("files/notes", key)
    for again in (key, key, array):
        assert branch.update("theirs", [again]).keys == ("files/notes",)
    for none in ("files/other", "files/no", "zarr/s1"):
        with pytest.raises(BadInput, match=f"{none} is not in conflict"):
            branch.update("theirs", [none])
    with pytest.raises(BadInput, match="files/dir/a is not in conflict"):
        branch.update("ours", ["files/dir/a"])
    branch.put("files/dir/b", b"mine")
    move(dataset, files={"files/dir/b": b"new"})
    assert branch.update("ours", ["files/notes"]).keys == ("files/dir/b",)
    assert branch.update("theirs", ["files/notes"]).keys == ("files/dir/b",)
    assert branch.update("theirs") is None
    found = [branch.read(f"files/{name}") for name in ("notes", "dir/a", "dir/b", "other")]
    assert found == [b"new", b"new", b"new", b"mine"]


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_a_whole_array_is_decided_at_once(dataset, branch, side):
    branch.put("files/mine", b"mine")
    put_chunk(branch, (0, 0, 0))
    mine = voxels_of(branch)
    with VersionWriter(dataset, "main", 1) as writer:
        again = volume((8, 24, 8), 9, "u1")
        array = writer.array("s0", array_json(again, (8, 8, 8)), created=True)
        for at in [(0, 0, 0), (0, 1, 0), (0, 2, 0)]:
            array.put(at, chunk(array.meta, again, at))
        writer.publish("another image")
    assert branch.behind().keys == ("zarr/s0",)
    assert branch.update(side) is None
    expected = mine if side == "ours" else again
    assert voxels_of(branch).shape == expected.shape
    assert (voxels_of(branch) == expected).all()
    branch.commit("decided")
    assert (voxels_of(dataset["latest"]) == expected).all()
    assert dataset["latest"].read("files/mine") == b"mine"


def test_what_was_decided_counts_until_it_moves_again(dataset, branch):
    branch.put("files/notes", b"mine")
    branch.put("files/dir/a", b"mine")
    move(dataset, files={"files/notes": b"1", "files/dir/a": b"1"})
    branch.update("ours", ["files/notes"])
    move(dataset, files={"files/unrelated": b"2"})
    assert branch.behind().keys == ("files/dir/a",)
    move(dataset, files={"files/notes": b"3"})
    assert branch.behind().keys == ("files/dir/a", "files/notes")
    assert branch.behind().versions == 3


def test_discarding_everything_goes_to_the_head(dataset, branch):
    branch.put("files/notes", b"mine")
    move(dataset, files={"files/notes": b"new"})
    branch.discard()
    assert branch.behind() is None
    assert branch.read("files/notes") == b"new"


def test_an_open_file_goes_on_with_what_the_new_base_has(dataset, branch):
    branch.put("files/mine", b"mine")
    with branch.working.open("files/notes", os.O_RDONLY) as file:
        assert file.pread(10, 0) == b"old"
        move(dataset, files={"files/notes": b"new"})
        assert branch.read("files/notes") == b"new"
        assert file.pread(10, 0) == b"new"


# -- documents, and dying in between ----------------------------------------------------------------------------------


def test_changes_of_a_store_that_has_no_base_document_lie_over_the_head(store, dataset, branch):
    key = put_chunk(branch, (0, 0, 0))
    branch.close()
    branch.working.layout.base.unlink()  # as the release before wrote it
    assert branch.base.number == 1
    move(dataset, coords=[(0, 0, 0)])
    assert branch.behind().keys == (key,)


def test_a_base_that_is_no_version_of_this_dataset_is_damaged_and_can_be_discarded(dataset, branch):
    branch.put("files/notes", b"mine")
    path = branch.working.layout.base
    branch.close()
    path.write_text('{"version": 1, "content_id": "another"}')
    with pytest.raises(Damaged, match="made over another v1"):
        branch.read("files/notes")
    assert [str(finding).partition("base.json")[1] for finding in fsck(dataset.store).findings] == ["base.json"]
    path.write_text('{"version": 9, "content_id": "gone"}')
    with pytest.raises(Damaged, match="made over v9, which is not there: discard them"):
        branch.read("files/notes")
    path.write_text("{")
    with pytest.raises(Damaged, match=r"base\.json"):
        branch.read("files/notes")
    branch.discard()
    assert branch.read("files/notes") == b"old"


MERGES = """
import sys
import volfs
with volfs.open_store(sys.argv[1]) as store:
    branch = store["cells"]["main"]
    with branch.writing():
        pass
    if len(sys.argv) > 2:
        branch.update(sys.argv[2])
"""


@pytest.mark.parametrize("point", ["follow.merged", "follow.noted", "follow.moved"])
def test_a_base_that_follows_does_so_wholly_whenever_the_process_dies(store, dataset, branch, point):
    put_chunk(branch, (0, 0, 0))
    branch.put("zarr/labels/zarr.json", labels("one", "mine"))
    branch.close()
    behind_the_back(store, {"zarr/labels/zarr.json": labels("one", "theirs"), "files/notes": b"new"})
    killed(store, point)
    killed(store, None)
    assert branch.base.number == 2
    assert names_of(branch.read("zarr/labels/zarr.json")) == ["one", "theirs", "mine"]
    assert branch.read("files/notes") == b"new"


@pytest.mark.parametrize(
    ("side", "point"),
    [("theirs", "update.dropped"), ("theirs", "follow.moved"), ("ours", "update.kept"), ("ours", "follow.noted")],
)
def test_a_decision_that_was_cut_short_is_repeated(store, dataset, branch, side, point):
    branch.put("files/notes", b"mine")
    branch.put("files/dir/a", b"mine")
    branch.close()
    behind_the_back(store, {"files/notes": b"new", "files/dir/a": b"new"})
    killed(store, point, side)
    killed(store, None, side)
    assert branch.behind() is None
    assert branch.read("files/notes") == branch.read("files/dir/a") == (b"mine" if side == "ours" else b"new")


def behind_the_back(store: Store, files: dict[str, bytes]) -> None:
    """Move the head as whoever does not see this machine's locks."""
    with VersionWriter(store["cells"], "main", 1) as writer:
        for key, data in files.items():
            writer.put(key, data)
        writer.prepare("moved")
        writer.place()


def killed(store: Store, point: str | None, *arguments: str) -> None:
    environment = {**os.environ, **({} if point is None else {"VOLFS_CRASH_AT": point})}
    done = fork_server.run(
        [sys.executable, "-c", MERGES, str(store.path), *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == (0 if point is None else -signal.SIGKILL), done.stderr
