"""``diff``: numpy's difference of whole volumes is the judge; and no more is decoded than differs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.kits.stores import CODECS, SECOND, START, chunk, meta_of, new_store, volume, voxels_of, write_version
from volfs.errors import BadInput, NotFound
from volfs.model.box import Box
from volfs.model.metadata import group_zarr_json
from volfs.storage.codec import ChunkCodec
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.dataset import Dataset
from volfs.versions.diff import Diff, FileDiff, NodeDiff, differing, value_changes

SHAPE = (20, 16, 12)
CHUNKS = (8, 8, 8)


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[Dataset]:
    with new_store(tmp_path / "store") as store:
        yield store.create_dataset("cells")


def when() -> Iterator[int]:
    yield from (START + number * 10 * SECOND for number in range(1, 1000))


def edited(voxels: np.ndarray, *boxes: Box, seed: int = 1) -> np.ndarray:
    """The same voxels, with some changed in each box."""
    made, rng = voxels.copy(), np.random.default_rng(seed)
    for box in boxes:
        part = made[box.slices()]
        part[rng.random(part.shape) < 0.3] += 7
    return made


def chunks_of(*boxes: Box) -> list[tuple[int, ...]]:
    grid = meta_of_shape()
    return sorted({at for box in boxes for at in grid.iter(grid.chunks(box))})


def meta_of_shape():  # type: ignore[no-untyped-def]
    from volfs.model.grid import ChunkGrid

    return ChunkGrid(SHAPE, CHUNKS)


def node(diff: Diff, key: str = "zarr/s0") -> NodeDiff:
    found = {each.key: each for each in diff}[key]
    assert isinstance(found, NodeDiff)
    return found


def keys(diff: Diff) -> dict[str, str]:
    return {each.key: each.change for each in diff}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", ["u1", "i4", "f4"])
def test_voxels_are_counted_as_numpy_counts_them(dataset: Dataset, dtype: str, codec: str) -> None:
    from tests.kits.stores import codecs

    boxes = Box((1, 2, 3), (5, 6, 7)), Box((17, 9, 9), (20, 16, 12))
    before = volume(SHAPE, dtype=dtype)
    after = edited(before, *boxes)
    options = {"chunks": CHUNKS, "codecs": codecs(codec)}
    write_version(dataset, before, **options)
    write_version(dataset, after, parent=1, coords=chunks_of(*boxes), created=False, **options)
    found = node(dataset.diff("v1", "v2"))
    differ = before != after
    counts, where = found.voxels(), np.argwhere(differ)
    assert counts.count == differ.sum()
    assert counts.box == Box(tuple(where.min(axis=0)), tuple(where.max(axis=0) + 1))
    apart = np.abs(after[differ].astype("f8") - before[differ].astype("f8"))
    assert counts.largest == apart.max() and counts.mean == pytest.approx(apart.mean())
    assert found.counts().changed == len(chunks_of(*boxes)) and not counts.unreadable
    for each in found.chunks():
        assert (each.old() == before[each.box.slices()]).all() and (each.new() == after[each.box.slices()]).all()
    assert keys(dataset.diff("v2", "v1")) == {"zarr/s0": "changed"}
    assert not dataset.diff("v1", "v1") and not list(dataset.diff("v2", "v2"))


def test_only_what_differs_is_decoded_and_stat_decodes_nothing(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = volume(SHAPE)
    after = edited(before, Box((0, 0, 0), (4, 4, 4)))
    write_version(dataset, before, chunks=CHUNKS)
    # Two chunks are written anew; one of them with the very bytes that it had.
    write_version(dataset, after, parent=1, chunks=CHUNKS, coords=[(0, 0, 0), (1, 1, 1)], created=False)
    decoded: list[int] = []
    decode = ChunkCodec.decode

    def counting(self: ChunkCodec, payload: object, out: object = None) -> object:
        decoded.append(1)
        return decode(self, payload, out)  # type: ignore[arg-type]

    monkeypatch.setattr(ChunkCodec, "decode", counting)
    found = node(dataset.diff("v1", "v2"))
    counts = found.counts()
    assert (counts.changed, counts.added, counts.removed, counts.box) == (1, 0, 0, Box((0, 0, 0), CHUNKS))
    assert not decoded
    assert found.voxels().count == (before != after).sum()
    assert len(decoded) == 2


def test_a_label_image_has_a_table_of_what_became_what(dataset: Dataset) -> None:
    before = np.zeros(SHAPE, "u4")
    before[:5], before[5:9] = 3, 4
    after = before.copy()
    after[2:7], after[19] = 9, 1
    attributes = {
        "ome": {
            "version": "0.5",
            "image-label": {},
            "multiscales": [
                {
                    "axes": [{"name": name, "type": "space"} for name in "zyx"],
                    "datasets": [{"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}],
                }
            ],
        }
    }
    with VersionWriter(dataset, "main", 0) as writer:
        writer.put("zarr/zarr.json", group_zarr_json())
        writer.put("zarr/labels/zarr.json", group_zarr_json({"ome": {"version": "0.5", "labels": ["n"]}}))
        writer.put("zarr/labels/n/zarr.json", group_zarr_json(attributes))
        writer.publish("x", "t")
    write_version(dataset, before, parent=1, path="labels/n/s0", chunks=CHUNKS, created=True)
    write_version(dataset, after, parent=2, path="labels/n/s0", chunks=CHUNKS, created=False)
    found = node(dataset.diff("v2", "v3"), "zarr/labels/n/s0")
    assert found.is_label and found.voxels().largest is None
    plane = SHAPE[1] * SHAPE[2]
    assert found.voxels().labels == {(3, 9): 3 * plane, (4, 9): 2 * plane, (0, 1): plane}
    assert list(found.voxels().labels) == [(3, 9), (4, 9), (0, 1)]


def test_uncommitted_changes_are_compared_with_the_head_or_any_version(dataset: Dataset) -> None:
    before = volume(SHAPE)
    write_version(dataset, before, chunks=CHUNKS, files={"files/a.txt": b"one\ntwo\n"})
    write_version(dataset, volume(SHAPE, 5), parent=1, chunks=CHUNKS, coords=[(2, 1, 1)], created=False)
    branch = dataset.branch("main")
    assert not dataset.diff() and keys(dataset.diff("v1")) == {"zarr/s0": "changed"}
    head = voxels_of(dataset.version(2))
    after = edited(head, Box((0, 0, 0), (8, 8, 8)))
    meta = meta_of(dataset.version(2).read("zarr/s0/zarr.json"))
    branch.put("zarr/s0/c/0/0/0", chunk(meta, after, (0, 0, 0)))
    branch.put("files/a.txt", b"one\nthree\n")
    branch.put("files/new", b"\0\1")
    assert keys(dataset.diff()) == {"files/a.txt": "changed", "files/new": "added", "zarr/s0": "changed"}
    assert node(dataset.diff()).voxels().count == (head != after).sum()
    assert node(dataset.diff("v1")).voxels().count == (before != after).sum()
    files = {each.key: each for each in dataset.diff() if isinstance(each, FileDiff)}
    assert files["files/a.txt"].lines() == [
        *("--- a/files/a.txt", "+++ b/files/a.txt", "@@ -1,2 +1,2 @@"),
        *(" one", "-two", "+three"),
    ]
    assert files["files/new"].lines() is None
    branch.delete("zarr/s0/c/0/0/1")
    counts = node(dataset.diff()).counts()
    assert (counts.changed, counts.removed) == (1, 1)
    branch.discard()
    assert not dataset.diff()


def test_nodes_metadata_and_files_that_come_change_and_go(dataset: Dataset) -> None:
    write_version(dataset, volume(SHAPE), chunks=CHUNKS, files={"files/d/a": b"a", "files/d/b": b"b", "files/c": b"c"})
    write_version(dataset, volume(SHAPE, 2), parent=1, path="s1", chunks=CHUNKS, created=True)
    with VersionWriter(dataset, "main", 2) as writer:
        writer.put("zarr/zarr.json", group_zarr_json({"by": {"name": "ada", "at": 1}}))
        writer.remove_subtree("files/d")
        writer.put("files/c", b"changed")
        writer.publish("x", "t")
    with VersionWriter(dataset, "main", 3) as writer:
        writer.put("zarr/zarr.json", group_zarr_json({"by": {"name": "bob"}, "more": [1]}))
        writer.remove_subtree("zarr/s1")
        writer.publish("x", "t")
    assert keys(dataset.diff("v1", "v2")) == {"zarr/s1": "added"}
    added = node(dataset.diff("v1", "v2"), "zarr/s1")
    assert added.counts().added == 3 * 2 * 2 and added.voxels().count == 0
    gone = {"files/d/a": "removed", "files/d/b": "removed", "files/c": "changed", "zarr": "changed"}
    assert keys(dataset.diff("v2", "v3")) == gone
    assert keys(dataset.diff("v2", "v4")) == {**gone, "zarr/s1": "removed"}
    assert keys(dataset.diff("v1", "v4")) == gone  # what came and went is no difference
    told = [(m.name, m.change, m.old, m.new) for m in node(dataset.diff("v3", "v4"), "zarr").metadata]
    assert told == [
        ("attributes.by.at", "removed", 1, None),
        ("attributes.by.name", "changed", "ada", "bob"),
        ("attributes.more", "added", None, [1]),
    ]


def test_arrays_of_another_shape_grid_or_type(dataset: Dataset) -> None:
    before = volume(SHAPE)
    write_version(dataset, before, chunks=CHUNKS)

    def remade(number: int, voxels: np.ndarray, chunks: tuple[int, ...]) -> None:
        with VersionWriter(dataset, "main", number) as writer:
            writer.remove_subtree("zarr/s0")
            writer.publish("gone", "t")
        write_version(dataset, voxels, parent=number + 1, chunks=chunks, created=True)

    other = edited(before, Box((0, 0, 0), (20, 3, 3)))
    remade(1, other, (5, 16, 12))  # v3: another grid
    remade(3, other, (5, 16, 12))  # v5: made anew with the same voxels
    remade(5, other[:10], (5, 16, 12))  # v7: smaller
    remade(7, other[:10].astype("f4"), (5, 16, 12))  # v9: another type
    assert node(dataset.diff("v1", "v3")).voxels().count == (before != other).sum()
    assert not dataset.diff("v3", "v5")
    smaller = node(dataset.diff("v5", "v7"))
    assert smaller.counts().removed == 2 and smaller.voxels().count == 0
    assert [m.name for m in smaller.metadata] == ["shape"]
    assert node(dataset.diff("v1", "v7")).voxels().count == (before[:10] != other[:10]).sum()
    retyped = node(dataset.diff("v7", "v9"))
    assert not retyped.comparable and retyped.voxels().count == 0 and retyped.counts().total > 0


def test_between_branches_what_both_sides_changed_counts(dataset: Dataset) -> None:
    first = volume(SHAPE)
    write_version(dataset, first, chunks=CHUNKS)
    dataset.create_branch("exp", "v1")
    one, other = edited(first, Box((0, 0, 0), (8, 8, 8))), edited(first, Box((8, 8, 8), (16, 16, 12)), seed=2)
    write_version(dataset, one, parent=1, chunks=CHUNKS, coords=[(0, 0, 0)], created=False)
    write_version(dataset, other, parent=1, branch="exp", chunks=CHUNKS, coords=[(1, 1, 1)], created=False)
    assert node(dataset.diff("main", "exp")).voxels().count == (one != other).sum()
    for bad in (("v1", "v9"), ("nope", "v1")):
        with pytest.raises(NotFound):
            dataset.diff(*bad)
    with pytest.raises(BadInput):
        dataset.diff(None, "v1")


def test_numbers_that_are_none_are_equal_to_each_other() -> None:
    nan = float("nan")
    assert differing(np.array([nan, nan, 1]), np.array([nan, 1, 1])).tolist() == [False, True, False]


def test_values_are_compared_by_the_keys_of_json() -> None:
    assert [c.name for c in value_changes({"a": {"b": [1, 2]}, "c": 1}, {"a": {"b": [1, 3]}, "c": 1.0})] == ["a.b", "c"]
    assert list(value_changes({"a": None}, {"a": None})) == []


def test_neighbours_cost_the_same_however_many_versions_there_are(dataset: Dataset) -> None:
    write_version(dataset, volume(SHAPE), chunks=CHUNKS)
    costs = []
    for number in range(1, 60):
        voxels = volume(SHAPE, number)
        write_version(dataset, voxels, parent=number, chunks=CHUNKS, coords=[(number % 2, 0, 0)], created=False)
        before = dataset.catalog.statements
        assert node(dataset.diff(f"v{number}", f"v{number + 1}")).counts().changed == 1
        costs.append(dataset.catalog.statements - before)
    assert max(costs[40:]) <= max(costs[16:40])  # every so many changes more rows are walked
