"""Versions combined: merge, cherry-pick, revert and restore. git judges them in ``test_combine_judged.py``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.kits.stores import array_json, chunk, codecs, every_chunk, meta_of, volume, voxels_of
from volfs.errors import BadInput, Conflict, NotFound, VolfsError
from volfs.model.metadata import group_zarr_json
from volfs.storage.manifest import Op
from volfs.versions.branch import Branch
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.committed.version_files import VersionFiles, read_manifest, read_version
from volfs.versions.dataset import Dataset
from volfs.versions.ledger import RefChange

SHAPE, CHUNKS = (16, 16, 16), (8, 8, 8)
OLD = volume(SHAPE, 1)
RAW = array_json(OLD, CHUNKS)

pytestmark = pytest.mark.usefixtures("stays_whole")


def begin(dataset: Dataset, **files: bytes) -> None:
    """v1 on main, with the branch exp there."""
    write(dataset, "main", OLD, files={f"files/{name}": data for name, data in files.items()}, root=True)
    dataset.create_branch("exp", 1)


def write(
    dataset: Dataset,
    branch: str,
    voxels: np.ndarray | None = None,
    *,
    files: dict[str, bytes | None] | None = None,
    path: str = "s0",
    raw: bytes = RAW,
    root: bool = False,
    gone: tuple[tuple[int, ...], ...] = (),
) -> int:
    """One version: the chunks in which the voxels differ from the head's, and files."""
    head = dataset.branches()[branch]
    with VersionWriter(dataset, branch, head) as writer:
        if root:
            writer.put("zarr/zarr.json", group_zarr_json())
        for key, data in (files or {}).items():
            if data is None:
                writer.remove(key)
            else:
                writer.put(key, data)
        before = dataset.version(head).array(path) if head else None
        if voxels is not None or gone:
            array = writer.array(path, raw, created=before is None)
            old = (
                None
                if before is None or before.meta.shape != meta_of(raw).shape
                else voxels_of(dataset.version(head), path)
            )
            for at in every_chunk(meta_of(raw)) if voxels is not None else ():
                part = meta_of(raw).grid.chunk_box(at).slices()
                if at not in gone and (old is None or not np.array_equal(old[part], voxels[part])):
                    array.put(at, chunk(meta_of(raw), voxels, at))
            for at in gone:
                array.remove(at)
        return writer.publish(f"on {branch}").number


def changed(voxels: np.ndarray, *at: slice | int, to: int = 7) -> np.ndarray:
    out = voxels.copy()
    out[at] = to
    return out


def ops(dataset: Dataset, number: int) -> list[int]:
    return read_manifest(VersionFiles.of(dataset.objects, number)).records["op"].tolist()


def test_chunks_that_one_side_changed_are_taken_by_reference(dataset: Dataset) -> None:
    begin(dataset)
    write(dataset, "main", changed(OLD, 0, 0, 0))
    write(dataset, "exp", changed(OLD, 15, 15, 15))
    found = dataset.merge("exp")
    assert found.made and not found.conflicts
    assert np.array_equal(voxels_of(dataset.version(4)), changed(changed(OLD, 0, 0, 0), 15, 15, 15))
    assert dataset.info(4).parents == (2, 3)
    assert ops(dataset, 4) == [Op.TAKE]
    files = VersionFiles.of(dataset.objects, 4)
    assert read_version(files).arrays["s0"].complete is False
    assert sum(files.sizes().values()) < 8192
    again = dataset.merge("exp")
    assert not again.made and again.version == found.version
    assert dataset.merge("main", "exp").made, "it moves forward"
    assert dataset.branches() == {"main": 4, "exp": 4}


def test_a_chunk_that_both_changed_is_merged_voxel_by_voxel(dataset: Dataset) -> None:
    begin(dataset)
    write(dataset, "main", changed(OLD, 0, 0, 0))
    write(dataset, "exp", changed(OLD, 1, 1, 1))
    assert dataset.merge("exp").made
    assert np.array_equal(voxels_of(dataset.version(4)), changed(changed(OLD, 0, 0, 0), 1, 1, 1))
    assert ops(dataset, 4) == [Op.PUT]


def both(dataset: Dataset) -> None:
    """A conflict of 8 voxels that cross two chunks, one of one voxel, and one in a file."""
    begin(dataset, note=b"a\nb\nc\n")
    ours = changed(changed(OLD, 0, 0, slice(4, 12), to=1001), 15, 15, 15, to=1002)
    theirs = changed(changed(OLD, 0, 0, slice(4, 12), to=2001), 15, 15, 15, to=2002)
    write(dataset, "main", ours, files={"files/note": b"a\nours\nc\n"})
    write(dataset, "exp", changed(theirs, 9, 0, 0, to=3000), files={"files/note": b"a\ntheirs\nc\n"})


def test_what_both_changed_is_a_conflict_that_changes_nothing_and_is_listed(dataset: Dataset) -> None:
    both(dataset)
    found = dataset.merge("exp")
    assert not found.made and dataset.branches()["main"] == 2 and max(dataset.graph.versions) == 3
    assert [str(each) for each in found.conflicts] == [
        "files/note: changed by both",
        "s0 z0-1_y0-1_x4-12: 8 voxels",
        "s0 z15-16_y15-16_x15-16: 1 voxel",
    ]
    assert not list(dataset.layout.working("main").root.glob("tmp/*"))


def test_progress_is_told_by_chunks(dataset: Dataset) -> None:
    begin(dataset, note=b"old")
    write(dataset, "main", changed(OLD, slice(0, 16, 8), 0, 0))
    write(dataset, "exp", changed(OLD, 1, slice(0, 16, 8), 0), files={"files/note": b"new"})
    told: list[tuple[int, int]] = []
    assert dataset.branch("main").combine("merge", "exp", lambda done, total: told.append((done, total))).made
    assert told == sorted(told) and len({total for _, total in told}) == 1
    assert told[-1] == (4, 4), "the two chunks that theirs changed, the array's metadata, and a file"


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_one_side_can_win_all(dataset: Dataset, side: str) -> None:
    both(dataset)
    found = dataset.merge("exp", conflicts=side)  # type: ignore[arg-type]
    assert found.made
    merged, winner = voxels_of(dataset.version(4)), voxels_of(dataset.version(2 if side == "ours" else 3))
    assert np.array_equal(merged, changed(winner, 9, 0, 0, to=3000))
    assert dataset.version(4).read("files/note") == f"a\n{side}\nc\n".encode()


def test_conflicts_are_decided_by_key_and_box(dataset: Dataset) -> None:
    both(dataset)
    branch = dataset.branch("main")
    left = branch.combine("merge", "exp --theirs=files/note --theirs=z0-1_y0-1_x0-8 --ours=z15-16_y15-16_x15-16")
    assert [str(each) for each in left.conflicts] == ["s0 z0-1_y0-1_x8-12: 4 voxels"]
    found = branch.combine("merge", "exp --theirs=files --theirs=z0-1_y0-1_x0-8 --ours=zarr/s0")
    assert found.made and dataset.version(4).read("files/note") == b"a\ntheirs\nc\n"
    merged = voxels_of(dataset.version(4))
    assert merged[0, 0, 4:12].tolist() == [2001] * 4 + [1001] * 4 and merged[15, 15, 15] == 1002
    with pytest.raises(BadInput, match="neither a key"):
        branch.combine("merge", "exp --ours=s0")
    with pytest.raises(BadInput, match="empty"):
        branch.combine("merge", "exp --ours=z3-3_y0-1_x0-1")


def test_strict_takes_chunks_and_files_that_both_changed_for_conflicts(dataset: Dataset) -> None:
    begin(dataset, note=b"a\nb\nc\nd\ne\n")
    write(dataset, "main", changed(OLD, 0, 0, 0), files={"files/note": b"A\nb\nc\nd\ne\n"})
    write(dataset, "exp", changed(OLD, 1, 1, 1), files={"files/note": b"a\nb\nc\nd\nE\n"})
    found = dataset.branch("main").combine("merge", "exp --strict")
    assert [str(each) for each in found.conflicts] == [
        "files/note: changed by both",
        "s0 z0-8_y0-8_x0-8: 512 voxels, changed by both",
    ]
    assert dataset.merge("exp").made
    assert dataset.version(4).read("files/note") == b"A\nb\nc\nd\nE\n"


def test_removed_on_one_side_and_changed_on_the_other_is_a_conflict_both_ways(dataset: Dataset) -> None:
    begin(dataset, note=b"a\n", other=b"b\n")
    write(dataset, "main", files={"files/note": None, "files/other": b"c\n"}, gone=((0, 0, 0),))
    write(dataset, "exp", changed(OLD, 0, 0, 0), files={"files/note": b"A\n", "files/other": None})
    found = dataset.merge("exp")
    assert {(each.key, each.why) for each in found.conflicts} == {
        ("files/note", "removed by ours, changed by theirs"),
        ("files/other", "changed by ours, removed by theirs"),
        ("zarr/s0", "removed by ours, changed by theirs"),
    }
    other = dataset.merge("main", "exp")
    assert {each.key for each in other.conflicts} == {each.key for each in found.conflicts}
    assert dataset.merge("exp", conflicts="theirs").made
    assert voxels_of(dataset.version(4))[0, 0, 0] == 7
    assert dataset.version(4).stat("files/other") is None and dataset.version(4).read("files/note") == b"A\n"


def test_a_removal_is_never_undone_by_a_later_merge(dataset: Dataset) -> None:
    begin(dataset, note=b"a\n", kept=b"k\n")
    write(dataset, "main", files={"files/note": None}, gone=((0, 0, 0),))
    write(dataset, "exp", changed(OLD, 15, 15, 15))
    assert dataset.merge("exp").made
    write(dataset, "exp", changed(changed(OLD, 15, 15, 15), 9, 9, 9))
    assert dataset.merge("exp").made
    merged = dataset.version(dataset.branches()["main"])
    assert merged.stat("files/note") is None and merged.stat("files/kept") is not None
    assert merged.array("s0").payload((0, 0, 0)) is None  # type: ignore[union-attr]
    assert voxels_of(merged)[9, 9, 9] == 7


def test_an_array_born_on_a_branch_is_merged_by_state_ever_after(dataset: Dataset) -> None:
    begin(dataset)
    born = volume(SHAPE, 2)
    write(dataset, "exp", born, path="t0")
    write(dataset, "main", files={"files/x": b"1"})
    assert dataset.merge("exp").made  # takes the whole of it: another node there
    main, exp = (dataset.version(dataset.branches()[name]).array("t0") for name in ("main", "exp"))
    assert main is not None and exp is not None and main.node != exp.node
    assert read_version(VersionFiles.of(dataset.objects, 4)).arrays["t0"].complete is False
    write(dataset, "main", changed(born, 0, 0, 0), path="t0")
    write(dataset, "exp", changed(born, 1, 1, 1), path="t0")
    assert dataset.merge("exp").made
    both_sides = changed(changed(born, 0, 0, 0), 1, 1, 1)
    assert np.array_equal(voxels_of(dataset.version(dataset.branches()["main"]), "t0"), both_sides)
    assert dataset.merge("main", "exp").made
    write(dataset, "exp", changed(both_sides, 9, 9, 9), path="t0")
    assert dataset.merge("exp").made
    assert voxels_of(dataset.version(dataset.branches()["main"]), "t0")[9, 9, 9] == 7


def test_an_array_that_both_made_is_merged_by_chunk_if_it_reads_alike(dataset: Dataset) -> None:
    begin(dataset)
    one, other = changed(OLD, 0, 0, 0, to=1), changed(OLD, 15, 15, 15, to=2)
    write(dataset, "main", one, path="t0")
    write(dataset, "exp", other, path="t0")
    found = dataset.merge("exp")
    assert [each.voxels for each in found.conflicts] == [1, 1], "no base: what is the same is no conflict"
    assert dataset.merge("exp", conflicts="theirs").made
    assert np.array_equal(voxels_of(dataset.version(4), "t0"), other)


def test_an_array_that_is_another_on_the_two_sides_is_taken_or_refused_whole(dataset: Dataset) -> None:
    begin(dataset)
    again = array_json(OLD, CHUNKS, codecs=codecs("raw"))
    head = dataset.branches()["exp"]
    with VersionWriter(dataset, "exp", head) as writer:
        array = writer.array("s0", again, created=True)
        for at in every_chunk(meta_of(again)):
            array.put(at, chunk(meta_of(again), OLD, at))
        writer.publish("packed otherwise")
    write(dataset, "main", files={"files/x": b"1"})
    assert dataset.merge("exp").made
    merged = dataset.version(dataset.branches()["main"])
    assert np.array_equal(voxels_of(merged), OLD) and merged.read("zarr/s0/zarr.json") == again
    write(dataset, "main", changed(OLD, 0, 0, 0), raw=again)
    with VersionWriter(dataset, "exp", dataset.branches()["exp"]) as writer:
        array = writer.array("s0", RAW, created=True)
        for at in every_chunk(meta_of(RAW)):
            array.put(at, chunk(meta_of(RAW), OLD, at))
        writer.publish("and back")
    found = dataset.merge("exp")
    assert [(each.key, each.why) for each in found.conflicts] == [("zarr/s0", "became another array on both sides")]
    assert dataset.branch("main").combine("merge", "exp --theirs=zarr/s0").made
    assert np.array_equal(voxels_of(dataset["main"]), OLD)


def test_a_node_removed_on_one_side_goes_unless_the_other_changed_it(dataset: Dataset) -> None:
    begin(dataset)
    with VersionWriter(dataset, "exp", 1) as writer:
        writer.remove_subtree("zarr/s0")
        writer.publish("gone")
    write(dataset, "main", files={"files/x": b"1"})
    assert dataset.merge("exp").made
    assert dataset.version(dataset.branches()["main"]).node("s0") is None
    dataset.create_branch("other", 1)
    write(dataset, "other", changed(OLD, 0, 0, 0))
    found = dataset.merge("exp", "other")
    assert [(each.key, each.why) for each in found.conflicts] == [("zarr/s0", "changed by ours, removed by theirs")]
    assert dataset.merge("exp", "other", conflicts="theirs").made
    assert dataset["other"].node("s0") is None


def test_shrunk_here_and_written_outside_there_is_a_conflict(dataset: Dataset) -> None:
    begin(dataset)
    small = array_json(OLD[:8], CHUNKS)
    write(dataset, "main", OLD[:8], raw=small, gone=tuple((1, y, x) for y in (0, 1) for x in (0, 1)))
    write(dataset, "exp", changed(OLD, 12, 0, 0))
    found = dataset.merge("exp")
    assert [(each.key, each.voxels) for each in found.conflicts] == [("zarr/s0", 512)]
    assert [(each.key, each.voxels) for each in dataset.merge("main", "exp").conflicts] == [("zarr/s0", 512)]
    assert dataset.merge("exp", conflicts="ours").made
    assert np.array_equal(voxels_of(dataset["main"]), OLD[:8])


def test_what_was_written_into_the_part_of_a_chunk_that_is_cut_off_is_a_conflict(dataset: Dataset) -> None:
    begin(dataset)
    cut = array_json(OLD[:12], CHUNKS)
    with VersionWriter(dataset, "main", 1) as writer:
        writer.array("s0", cut, created=False)
        writer.publish("shrunk")
    write(dataset, "exp", changed(OLD, 10, 0, 0))
    assert dataset.merge("exp").made, "what stays in the array is no conflict"
    assert Op.TAKE in ops(dataset, dataset.branches()["main"])
    write(dataset, "exp", changed(OLD, 13, slice(0, 2), 0))
    before = dataset.branches()
    for ref, into in (("exp", "main"), ("main", "exp")):
        found = dataset.merge(ref, into)
        assert [(each.key, each.voxels) for each in found.conflicts] == [("zarr/s0", 2)], into
        assert str(found.conflicts[0]) == (
            "s0 z13-14_y0-2_x0-1: 2 voxels, outside of the array, which the other side has shrunk"
        )
    assert dataset.branches() == before
    opened = dataset.branch("main").combine("merge", "exp --on merging")
    assert len(opened.left_open) == 1
    assert not dataset.branch("merging").combine("resolve", "theirs").left_open
    assert dataset.merge("exp", conflicts="theirs").made
    assert np.array_equal(voxels_of(dataset["main"]), changed(OLD, 13, slice(0, 2), 0)[:12])


def test_metadata_merges_by_key_and_attributes_beside_a_new_shape(dataset: Dataset) -> None:
    begin(dataset)
    grown = np.concatenate([OLD, OLD])
    write(dataset, "exp", grown, raw=array_json(grown, CHUNKS))
    write(dataset, "main", OLD, raw=array_json(OLD, CHUNKS, attributes={"note": "ours"}))
    assert dataset.merge("exp").made
    merged = dataset.version(4)
    assert json.loads(merged.read("zarr/s0/zarr.json"))["attributes"] == {"note": "ours"}
    assert np.array_equal(voxels_of(merged), grown)


def test_a_file_here_and_a_directory_of_that_name_there_is_a_conflict(dataset: Dataset) -> None:
    begin(dataset)
    write(dataset, "main", files={"files/a": b"1", "files/b/c": b"2"})
    write(dataset, "exp", files={"files/a/b": b"1", "files/b": b"2"})
    found = dataset.merge("exp")
    assert [str(each) for each in found.conflicts] == [
        "files/a/b: files/a is a file in ours",
        "files/b: a directory in ours, a file in theirs",
    ]


def test_what_cannot_be_merged_is_refused_in_words(dataset: Dataset) -> None:
    begin(dataset)
    with pytest.raises(NotFound):
        dataset.merge("nobody")
    assert not dataset.merge("main").made
    assert not dataset.merge("v1").made
    with pytest.raises(BadInput, match="unrecognized arguments: --bogus"):
        dataset.branch("main").combine("merge", "exp --bogus")
    dataset.create_branch("empty", 1)
    # A history of its own, as import makes in a branch that has no version.
    with VersionWriter(dataset, "main", 1) as writer:
        writer.put("files/x", b"1")
        writer.publish("x")
    assert dataset.merge("main", "empty").made and dataset.branches()["empty"] == 2


def test_squash_has_one_parent_and_no_ff_makes_a_version(dataset: Dataset) -> None:
    begin(dataset)
    write(dataset, "exp", changed(OLD, 0, 0, 0))
    found = dataset.branch("main").combine("merge", "exp --no-ff -m 'as one'")
    assert found.version is not None and found.version.parents == (1, 2) and found.version.message == "as one"
    dataset.create_branch("again", 1)
    squashed = dataset.merge("exp", "again", squash=True)
    assert squashed.version is not None and squashed.version.parents == (1,)
    assert not dataset.merge("exp", "again", squash=True).made, "nothing is left to change"
    assert np.array_equal(voxels_of(dataset["again"]), voxels_of(dataset["main"]))


def test_cherry_pick_and_revert_take_one_version_there_and_back(dataset: Dataset) -> None:
    begin(dataset)
    write(dataset, "exp", changed(OLD, 0, 0, 0))
    third = write(dataset, "exp", changed(changed(OLD, 0, 0, 0), 15, 15, 15), files={"files/n": b"n"})
    picked = dataset.cherry_pick(f"v{third}")
    assert picked.version is not None and picked.version.parents == (1,)
    assert picked.version.message == "on exp\n\n(cherry picked from v3)"
    assert np.array_equal(voxels_of(dataset["main"]), changed(OLD, 15, 15, 15))
    assert not dataset.cherry_pick(f"v{third}").made
    back = dataset.revert("main")
    assert back.version is not None and back.version.message == 'Revert "on exp"\n\nThis reverts v4.'
    assert np.array_equal(voxels_of(dataset["main"]), OLD) and dataset["main"].stat("files/n") is None
    assert not dataset.revert("v4").made
    with pytest.raises(BadInput, match="does not have v3"):
        dataset.revert("v3")


def test_a_merge_is_reverted_by_naming_its_side(dataset: Dataset) -> None:
    begin(dataset)
    write(dataset, "main", changed(OLD, 0, 0, 0))
    write(dataset, "exp", changed(OLD, 15, 15, 15))
    dataset.merge("exp")
    branch = dataset.branch("main")
    with pytest.raises(BadInput, match="v4 is a merge of v2, v3"):
        branch.combine("revert", "v4")
    with pytest.raises(BadInput, match="there is no -m 3"):
        branch.combine("revert", "v4 -m 3")
    assert branch.combine("revert", "v4 -m 1").made
    assert np.array_equal(voxels_of(branch), changed(OLD, 0, 0, 0))


def test_restore_takes_keys_by_reference_and_writes_the_chunks_that_a_box_cuts(dataset: Dataset) -> None:
    begin(dataset, note=b"old", other=b"old")
    new = volume(SHAPE, 3)
    write(dataset, "main", new, files={"files/note": b"new", "files/other": b"new"})
    found = dataset.restore(["zarr/s0"], "v1")
    assert found.made and set(ops(dataset, 3)) == {Op.TAKE}
    assert np.array_equal(voxels_of(dataset["main"]), OLD) and dataset["main"].read("files/note") == b"new"
    assert not dataset.restore(["zarr/s0"], "v1").made
    assert dataset.restore(["zarr/s0", "files/note"], "v2", box="z0-8_y0-8_x0-12").made
    expected = OLD.copy()
    expected[0:8, 0:8, 0:12] = new[0:8, 0:8, 0:12]
    assert np.array_equal(voxels_of(dataset["main"]), expected)
    assert sorted(ops(dataset, 4)) == [Op.PUT, Op.TAKE]
    assert dataset.restore(["files/note"], "v1").made and dataset["main"].read("files/note") == b"old"
    with pytest.raises(NotFound, match="files/nothing is neither in v1"):
        dataset.restore(["files/nothing"], "v1")
    with pytest.raises(BadInput, match="is no box"):
        dataset.restore(["zarr/s0"], "v1", box="here")


def test_uncommitted_changes_beside_what_is_merged_stay_and_those_in_the_way_refuse_it(
    dataset: Dataset, branch: Branch
) -> None:
    begin(dataset, note=b"old")
    write(dataset, "exp", changed(OLD, 0, 0, 0), files={"files/note": b"theirs"})
    branch.put("files/mine", b"mine")
    assert dataset.merge("exp").made, "forward"
    assert log_of(dataset)[0] == "merge exp: fast-forward"
    assert branch.read("files/mine") == b"mine" and branch.read("files/note") == b"theirs"
    write(dataset, "exp", files={"files/note": b"more"})
    write(dataset, "main", files={"files/third": b"3"})
    branch.put("files/note", b"uncommitted")
    before = dataset.branches()
    with pytest.raises(Conflict, match=r"uncommitted changes to keys.*files/note"):
        dataset.merge("exp")
    assert dataset.branches() == before and branch.read("files/note") == b"uncommitted"
    branch.discard("files/note")
    assert dataset.merge("exp").made and branch.read("files/mine") == b"mine"


def test_what_was_made_onto_a_head_that_moved_meanwhile_keeps_what_it_took(dataset: Dataset) -> None:
    """A version that was taken over in part is given another number before it is published."""
    begin(dataset, note=b"old")
    write(dataset, "main", files={"files/note": b"new"})
    with VersionWriter(dataset, "main", 2) as writer:
        record = dataset.version(1)
        entry = record.entry("files/note")
        assert entry is not None and entry.payload is not None
        sha256 = read_manifest(VersionFiles.of(dataset.objects, 1)).records
        row = next(r for r in sha256 if r["length"] == 3)
        writer.take("files/taken", entry.payload, row["sha256"].tobytes(), 1)
        writer.prepare("took")
        write(dataset, "main", files={"files/third": b"3"})
        info = dataset.branch("main").publish(writer.number, writer.draft.token)
        writer.placed()
    assert info.parents == (4,) or info.parents == (3,)
    assert dataset["main"].read("files/taken") == b"old"


def test_rebase_makes_the_versions_once_more_and_moves_the_branch_once(dataset: Dataset) -> None:
    begin(dataset, note=b"a\n")
    write(dataset, "main", changed(OLD, 0, 0, 0))
    write(dataset, "exp", changed(OLD, 15, 15, 15))
    last = write(dataset, "exp", changed(changed(OLD, 15, 15, 15), 9, 9, 9), files={"files/note": b"b\n"})
    branch = dataset.branch("exp")
    branch.put("files/mine", b"uncommitted")
    found = branch.combine("rebase", "main")
    assert found.made and found.version is not None
    line = list(dataset.graph.first_parents(found.version.number))
    assert len(line) == 4 and line[2:] == [2, 1], "two versions on top of main"
    assert [dataset.info(number).message for number in line[:2]] == ["on exp", "on exp"]
    assert np.array_equal(voxels_of(branch), changed(changed(changed(OLD, 0, 0, 0), 15, 15, 15), 9, 9, 9))
    assert branch.read("files/note") == b"b\n" and branch.read("files/mine") == b"uncommitted"
    assert dataset.branches().keys() == {"main", "exp"}
    assert not branch.combine("rebase", "main").made
    assert branch.combine("rebase", f"v{last}").made, "and back: what was made is there already"


def test_rebase_with_a_conflict_changes_nothing_and_leaves_nothing(dataset: Dataset) -> None:
    begin(dataset)
    write(dataset, "main", changed(OLD, 0, 0, 0, to=1001))
    write(dataset, "exp", changed(OLD, 15, 15, 15))
    write(dataset, "exp", changed(changed(OLD, 15, 15, 15), 0, 0, 0, to=2001))
    before = dataset.branches()
    found = dataset.branch("exp").combine("rebase", "main")
    assert not found.made and [each.voxels for each in found.conflicts] == [1]
    assert dataset.branches() == before and dataset.resolve("latest") == 4
    assert dataset.branch("exp").combine("rebase", "main --theirs").made
    assert voxels_of(dataset["exp"])[0, 0, 0] == 2001


def labelled(dataset: Dataset) -> None:
    begin(dataset, note=b"n")
    names = {"ome": {"version": "0.5", "labels": ["nuclei", "cells"]}}
    files = {"zarr/labels/zarr.json": group_zarr_json(names), "zarr/more/zarr.json": group_zarr_json()}
    write(dataset, "main", OLD, path="labels/nuclei", files=files)


def log_of(dataset: Dataset) -> list[str]:
    return [change.why for change in dataset.ref_log() if isinstance(change, RefChange)]


def test_the_log_of_refs_says_what_has_moved_a_branch(dataset: Dataset) -> None:
    begin(dataset, note=b"a\n")
    write(dataset, "main", files={"files/mine": b"m"})
    write(dataset, "exp", files={"files/theirs": b"t"})
    main, exp = dataset.branch("main"), dataset.branch("exp")
    for kind, words in (("merge", "exp"), ("revert", "v3"), ("restore", "files/theirs --from exp")):
        assert main.combine(kind, words).made
    main.put("files/note", b"b\n")
    main.amend("anew")
    assert main.combine("mv", "files/note files/other").made and exp.combine("rebase", "v2").made
    said = log_of(dataset)
    for why in (
        "merge: merge exp",
        "revert: Revert",
        "restore: restore",
        "commit --amend: anew",
        "mv: mv",
        "rebase: onto v2",
    ):
        assert any(each.startswith(why) for each in said), (why, said)
    assert not any(each.startswith("import") for each in said)


def test_a_node_gets_another_name_by_reference_and_lists_follow(dataset: Dataset) -> None:
    labelled(dataset)
    branch = dataset.branch("main")
    found = branch.combine("mv", "zarr/labels/nuclei zarr/labels/kerne")
    assert found.made and found.version is not None
    number = found.version.number
    version = dataset.version(number)
    assert np.array_equal(voxels_of(version, "labels/kerne"), OLD) and version.node("labels/nuclei") is None
    assert json.loads(version.read("zarr/labels/zarr.json"))["attributes"]["ome"]["labels"] == ["kerne", "cells"]
    manifest = read_manifest(VersionFiles.of(dataset.objects, number))
    assert set(manifest.records["op"][manifest.records["ndim"] > 0].tolist()) == {Op.TAKE}
    assert not branch.combine("mv", "zarr/labels/nuclei zarr/labels/kerne").made, "a repeat"
    assert branch.combine("mv", "zarr/labels/kerne zarr/more/kerne").made
    assert json.loads(branch.read("zarr/labels/zarr.json"))["attributes"]["ome"]["labels"] == ["cells"]
    assert np.array_equal(voxels_of(branch, "more/kerne"), OLD)
    assert branch.combine("mv", "zarr/more/kerne zarr/labels/nuclei").made
    assert json.loads(branch.read("zarr/labels/zarr.json"))["attributes"]["ome"]["labels"] == ["cells", "nuclei"]
    assert branch.combine("mv", "files/note files/deep/note").made and branch.read("files/deep/note") == b"n"
    assert branch.combine("mv", "files/deep files/deeper").made and branch.read("files/deeper/note") == b"n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("zarr/none zarr/s1", "there is no node or file"),
        ("zarr/s0 zarr/labels", "there is something at"),
        ("zarr/labels zarr/labels/more", "lies below it"),
        ("zarr/s0 files/s0", "two kinds"),
        ("zarr/s0/c/0/0/0 zarr/x", "cannot be moved|there is no node"),
        ("zarr/s0 zarr/labels/nuclei/x", "cannot be moved"),
        ("zarr/s0 zarr/nowhere/x", "there is no group at zarr/nowhere"),
        ("files/note files/note/x", "lies below it"),
        ("files/note", "arguments are required"),
    ],
)
def test_what_cannot_be_moved_is_refused_in_words(dataset: Dataset, words: str, said: str) -> None:
    labelled(dataset)
    with pytest.raises(VolfsError, match=said):
        dataset.branch("main").combine("mv", words)
    assert dataset.branches()["main"] == 2


def test_an_array_that_moved_is_merged_as_one_removed_and_one_made(dataset: Dataset) -> None:
    labelled(dataset)
    dataset.create_branch("other", "main")
    dataset.branch("main").combine("mv", "zarr/labels/nuclei zarr/labels/kerne")
    write(dataset, "other", changed(OLD, 0, 0, 0), path="labels/nuclei")
    assert [each.key for each in dataset.merge("other").conflicts] == ["zarr/labels/nuclei"]
    assert dataset.merge("other", conflicts="ours").made


LABELS = np.zeros(SHAPE, "u2")
LABELS[0:2, 0:2, 0:2] = 5
LABELS[12:14, 0:2, 0:2] = 9
SEGMENTS = array_json(LABELS, CHUNKS)


def segmented(dataset: Dataset, raw: bytes = SEGMENTS) -> None:
    """Both sides extend label 5, and make a new label 17 in chunks of their own."""
    begin(dataset)
    files = {"zarr/labels/zarr.json": group_zarr_json({"ome": {"version": "0.5", "labels": ["cells"]}})}
    dtype = meta_of(raw).dtype
    first = LABELS.astype(dtype)
    write(dataset, "main", first, path="labels/cells", raw=raw, files=files)
    dataset.delete_branch("exp")
    dataset.create_branch("exp", "main")
    ours, theirs = changed(first, 2, 0, 0, to=5), changed(first, 0, 2, 0, to=5)
    write(dataset, "main", changed(ours, 0, 0, slice(8, 12), to=17), path="labels/cells", raw=raw)
    write(dataset, "exp", changed(theirs, 15, 15, slice(8, 12), to=17), path="labels/cells", raw=raw)


def test_a_label_that_both_sides_have_made_is_a_conflict_of_ids(dataset: Dataset) -> None:
    segmented(dataset)
    found = dataset.merge("exp")
    assert [str(each) for each in found.conflicts] == ["zarr/labels/cells: both sides have made labels with the ids 17"]
    assert dataset.branch("main").combine("merge", "exp --theirs z0-16_y0-16_x0-16").conflicts, "a box decides voxels"


@pytest.mark.parametrize("words", ["--{}", "--{} zarr/labels"])
@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_of_ids_in_conflict_the_labels_of_one_side_stay(dataset: Dataset, side: str, words: str) -> None:
    segmented(dataset)
    assert dataset.branch("main").combine("merge", f"exp {words.format(side)}").made
    voxels = voxels_of(dataset["main"], "labels/cells")
    here, there = voxels[0, 0, 8:12].tolist(), voxels[15, 15, 8:12].tolist()
    assert (here, there) == (([17] * 4, [0] * 4) if side == "ours" else ([0] * 4, [17] * 4))
    assert voxels[2, 0, 0] == voxels[0, 2, 0] == 5, "and all else of both"
    assert np.unique(voxels).tolist() == [0, 5, 9, 17]


def test_relabel_gives_what_theirs_has_made_fresh_ids(dataset: Dataset) -> None:
    segmented(dataset)
    found = dataset.branch("main").combine("merge", "exp --relabel")
    assert found.made and found.notes == (
        "labels of labels/cells that both sides have made have other ids now: 17 became 18",
    )
    voxels = voxels_of(dataset["main"], "labels/cells")
    assert np.unique(voxels).tolist() == [0, 5, 9, 17, 18]
    assert voxels[0, 0, 8:12].tolist() == [17] * 4 and voxels[15, 15, 8:12].tolist() == [18] * 4
    assert voxels[2, 0, 0] == voxels[0, 2, 0] == 5
    assert dataset.merge("main", "exp").made, "and forward"


def test_no_ids_does_not_look_for_them(dataset: Dataset) -> None:
    segmented(dataset)
    assert dataset.branch("main").combine("merge", "exp --no-ids").made
    assert voxels_of(dataset["main"], "labels/cells")[15, 15, 8] == 17


def test_a_type_without_ids_left_is_a_conflict_even_so(dataset: Dataset) -> None:
    full = array_json(LABELS.astype("u1"), CHUNKS)
    segmented(dataset, full)
    voxels = voxels_of(dataset["main"], "labels/cells")
    write(dataset, "main", changed(voxels, 8, 8, 8, to=255), path="labels/cells", raw=full)
    found = dataset.branch("main").combine("merge", "exp --relabel")
    assert "uint8 has no others left" in str(found.conflicts[0])


def test_what_both_sides_have_painted_alike_is_one_thing(dataset: Dataset) -> None:
    begin(dataset)
    files = {"zarr/labels/zarr.json": group_zarr_json()}
    write(dataset, "main", LABELS, path="labels/cells", raw=SEGMENTS, files=files)
    dataset.delete_branch("exp")
    dataset.create_branch("exp", "main")
    both = changed(LABELS, 0, 0, slice(8, 12), to=17)
    write(dataset, "main", both, path="labels/cells", raw=SEGMENTS)
    write(dataset, "exp", changed(both, 15, 15, 15, to=9), path="labels/cells", raw=SEGMENTS)
    assert dataset.merge("exp").made


def test_an_image_that_is_no_label_image_has_no_ids(dataset: Dataset) -> None:
    begin(dataset)
    write(dataset, "main", changed(OLD, 0, 0, 0, to=60001))
    write(dataset, "exp", changed(OLD, 15, 15, 15, to=60001))
    assert dataset.merge("exp").made


def test_newest_lays_any_number_of_versions_over_each_other(dataset: Dataset) -> None:
    begin(dataset, note=b"old", gone=b"g", kept=b"k")
    dataset.create_branch("third", 1)
    write(dataset, "main", changed(OLD, 0, 0, 0, to=1001), files={"files/note": b"v2"})
    write(dataset, "exp", changed(changed(OLD, 0, 0, 1, to=2001), 15, 15, 15, to=2002), files={"files/gone": None})
    write(dataset, "third", changed(OLD, 15, 15, 14, to=3001), files={"files/note": b"v4"}, gone=((0, 1, 0),))
    found = dataset.branch("main").combine("merge", "exp third --newest")
    assert found.made and found.version is not None and found.version.parents == (2, 3, 4)
    merged = dataset.version(found.version.number)
    voxels = voxels_of(merged)
    assert voxels[0, 0, 0] == OLD[0, 0, 0] and voxels[0, 0, 1] == 2001, "the whole chunk is that of v3"
    assert voxels[15, 15, 14] == 3001 and voxels[15, 15, 15] == OLD[15, 15, 15], "and this one that of v4"
    assert merged.array("s0").payload((0, 1, 0)) is None  # type: ignore[union-attr]
    assert (
        merged.read("files/note") == b"v4" and merged.stat("files/gone") is None and merged.read("files/kept") == b"k"
    )
    manifest = read_manifest(VersionFiles.of(dataset.objects, found.version.number))
    assert set(manifest.records["op"].tolist()) == {Op.TAKE, Op.REMOVE}
    assert not dataset.branch("main").combine("merge", "exp third --newest").made
    with pytest.raises(BadInput, match="one at a time"):
        dataset.branch("main").combine("merge", "exp third")
    with pytest.raises(BadInput, match="no conflicts"):
        dataset.branch("main").combine("merge", "exp third --newest --ours")


def test_newest_takes_arrays_that_only_another_version_has(dataset: Dataset) -> None:
    begin(dataset)
    dataset.create_branch("third", 1)
    write(dataset, "exp", OLD, path="t0")
    write(dataset, "third", changed(OLD, 0, 0, 0), path="t0")
    assert dataset.branch("main").combine("merge", "exp third --newest").made
    assert np.array_equal(voxels_of(dataset["main"], "t0"), changed(OLD, 0, 0, 0))
    assert np.array_equal(voxels_of(dataset["main"]), OLD)


def test_combine_takes_any_bases_and_a_part(dataset: Dataset) -> None:
    begin(dataset, note=b"a")
    write(dataset, "exp", changed(OLD, 0, 0, 0), files={"files/note": b"b"})
    write(dataset, "exp", changed(changed(OLD, 0, 0, 0), 15, 15, 15), files={"files/note": b"c"})
    found = dataset.combine(["v1"], "exp", select=["zarr/s0"], box="z0-8_y0-8_x0-8", message="a part")
    assert found.version is not None and (found.version.parents, found.version.message) == ((1,), "a part")
    assert np.array_equal(voxels_of(dataset["main"]), changed(OLD, 0, 0, 0))
    assert dataset["main"].read("files/note") == b"a"
    assert dataset.combine(["v2"], "v3", select=["files"]).conflicts, "main never had what v2 changed"
    assert dataset.combine(["v2"], "v3", select=["files"], conflicts="theirs").made
    assert dataset["main"].read("files/note") == b"c"
    assert not dataset.combine(["v1"], "v2", select=["zarr"]).made
    with pytest.raises(BadInput, match="is no box"):
        dataset.combine(["v1"], "exp", box="here")
