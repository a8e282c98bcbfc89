"""Coarser levels of images that were combined: they are what a fresh pyramid of s0 is, whatever was taken over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import volfs
from tests.kits.example_counts import examples
from tests.kits.memory_snapshots import put_pyramid
from volfs.storage.manifest import Op
from volfs.versions.check.fsck import fsck
from volfs.versions.committed.version_files import VersionFiles, read_manifest
from volfs.versions.dataset import Dataset
from volfs.versions.store import Store
from volfs.volume.downsample import downsample

SHAPE, CHUNKS = (16, 32, 32), (4, 8, 8)
VOXELS = np.random.default_rng(3).integers(0, 255, SHAPE, dtype="u1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with volfs.init_store(tmp_path / "store") as opened:
        yield opened


def imported(store: Store, name: str = "cells") -> Dataset:
    """An image of three levels that volfs keeps, at v1; the branches main and exp stand there."""
    keys: dict[str, Any] = {}
    put_pyramid(keys, "", VOXELS, CHUNKS, levels=3)
    dataset = store.create_dataset(name)
    branch = dataset.branch("main")
    with branch.writing():
        for key, stored in keys.items():
            branch.put(key, stored.data)
    branch.commit("import")
    dataset.create_branch("exp", 1)
    return dataset


def paint(dataset: Dataset, name: str, part: tuple[slice, ...], value: int) -> int:
    branch = dataset.branch(name)
    array = zarr.open_array(store=branch.zarr_store(), path="s0", mode="r+")
    array[part] = value
    return branch.commit(f"{value} on {name}").number


def levels_of(dataset: Dataset, number: int) -> list[np.ndarray]:
    """As zarr-python reads them."""
    found = dataset.version(number).zarr_store()
    return [np.asarray(zarr.open_array(store=found, path=f"s{i}", mode="r")[:]) for i in range(3)]


def judge(dataset: Dataset, number: int, s0: np.ndarray) -> None:
    found = levels_of(dataset, number)
    expected = s0
    for level in found:
        np.testing.assert_array_equal(level, expected)
        expected = downsample(expected, (2, 2, 2), "mean")


def ops_by_level(dataset: Dataset, number: int) -> dict[str, set[int]]:
    manifest = read_manifest(VersionFiles.of(dataset.objects, number))
    return {path: set(manifest.records["op"][rows].tolist()) for path, rows in manifest.chunks()}


def test_coarse_chunks_over_chunks_of_one_side_alone_are_taken_and_others_computed(store: Store) -> None:
    dataset = imported(store)
    paint(dataset, "main", np.s_[0:4, 0:8, 0:8], 1)
    paint(dataset, "exp", np.s_[12:16, 24:32, 24:32], 2)
    assert dataset.merge("exp").made
    expected = VOXELS.copy()
    expected[0:4, 0:8, 0:8], expected[12:16, 24:32, 24:32] = 1, 2
    judge(dataset, 4, expected)
    # All of s2 is one chunk, over what both have changed.
    assert ops_by_level(dataset, 4) == {"s0": {Op.TAKE}, "s1": {Op.TAKE}, "s2": {Op.PUT}}
    paint(dataset, "main", np.s_[0:4, 0:8, 0:8], 3)
    paint(dataset, "exp", np.s_[0:4, 8:16, 0:8], 4)
    assert dataset.merge("exp").made
    expected[0:4, 0:8, 0:8], expected[0:4, 8:16, 0:8] = 3, 4
    judge(dataset, dataset.branches()["main"], expected)
    assert ops_by_level(dataset, dataset.branches()["main"])["s0"] == {Op.TAKE}
    assert ops_by_level(dataset, dataset.branches()["main"])["s1"] == {Op.PUT}
    assert fsck(store).findings == []


def test_a_coarse_voxel_that_neither_side_changed_may_change_by_both(store: Store) -> None:
    dataset = imported(store)
    paint(dataset, "main", np.s_[0:4, 0:8, 0:16], 8)
    dataset.delete_branch("exp")
    dataset.create_branch("exp", "main")
    paint(dataset, "main", np.s_[0:2, 0:2, 7:8], 9)  # an eighth of the mean: rounded away
    paint(dataset, "exp", np.s_[1:2, 0:2, 8:9], 9)
    assert dataset.merge("exp").made
    head = dataset.branches()["main"]
    judge(dataset, head, levels_of(dataset, head)[0])


def test_an_image_born_on_a_branch_comes_whole_with_its_levels(store: Store) -> None:
    dataset = imported(store)
    branch = dataset.branch("exp")
    keys: dict[str, Any] = {}
    put_pyramid(keys, "more", VOXELS // 2, CHUNKS, levels=3)
    with branch.writing():
        for key, stored in keys.items():
            branch.put(key, stored.data)
    branch.commit("another image")
    paint(dataset, "main", np.s_[0:4, 0:8, 0:8], 1)
    assert dataset.merge("exp").made
    head = dataset.branches()["main"]
    version = dataset.version(head)
    for i in range(3):
        ours, theirs = (
            zarr.open_array(store=each.zarr_store(), path=f"more/s{i}", mode="r")[:]
            for each in (version, dataset.version(dataset.branches()["exp"]))
        )
        np.testing.assert_array_equal(ours, theirs)
    assert {op for path, found in ops_by_level(dataset, head).items() for op in found} == {Op.TAKE}
    paint(dataset, "main", np.s_[0:4, 0:8, 0:8], 5)
    expected = VOXELS.copy()
    expected[0:4, 0:8, 0:8] = 5
    judge(dataset, dataset.branches()["main"], expected)
    assert fsck(store).findings == []


def test_levels_of_versions_laid_over_each_other_are_computed(store: Store) -> None:
    dataset = imported(store)
    dataset.create_branch("third", 1)
    paint(dataset, "main", np.s_[0:4, 0:8, 0:8], 1)
    paint(dataset, "exp", np.s_[4:8, 0:8, 0:8], 2)
    paint(dataset, "third", np.s_[12:16, 24:32, 24:32], 3)
    assert dataset.branch("main").combine("merge", "exp third --newest").made
    expected = VOXELS.copy()
    expected[0:4, 0:8, 0:8], expected[4:8, 0:8, 0:8], expected[12:16, 24:32, 24:32] = 1, 2, 3
    judge(dataset, dataset.branches()["main"], expected)
    assert fsck(store).findings == []


BOXES = st.tuples(*(st.tuples(st.integers(0, n // 4 - 1), st.integers(1, 3)) for n in SHAPE)).map(
    lambda spans: tuple(slice(4 * a, min(4 * a + 4 * b, n)) for (a, b), n in zip(spans, SHAPE, strict=True))
)


@settings(max_examples=examples(6), phases=[Phase.explicit, Phase.reuse, Phase.generate])  # shrinking takes minutes
@given(
    st.lists(st.tuples(st.sampled_from(["main", "exp"]), BOXES, st.integers(0, 255)), min_size=2, max_size=4),
    st.sampled_from(["merge", "cherry-pick", "revert"]),
    st.sampled_from(["ours", "theirs"]),
)
def test_levels_equal_a_fresh_pyramid_of_s0_whatever_was_combined(
    tmp_path_factory: pytest.TempPathFactory, painted: list[Any], kind: str, side: str
) -> None:
    with volfs.init_store(tmp_path_factory.mktemp("levels") / "store") as store:
        dataset = imported(store)
        for branch, part, value in painted:
            paint(dataset, branch, part, value)
        ref = {"merge": "exp", "cherry-pick": "exp", "revert": "main"}[kind]
        if dataset.branches()[ref] == 1:
            return  # nothing was painted there
        dataset.branch("main").combine(kind, f"{ref} --{side}")  # type: ignore[arg-type]
        head = dataset.branches()["main"]
        if head > 1:
            judge(dataset, head, levels_of(dataset, head)[0])
        assert fsck(store).findings == []
