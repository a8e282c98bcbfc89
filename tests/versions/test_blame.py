"""``blame``: a model that remembers who wrote each voxel last is the judge, through merges too."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import volfs
from tests.kits.stores import chunk, meta_of, new_store, volume, voxels_of, write_version
from volfs.catalog import Catalog
from volfs.errors import BadInput
from volfs.model.box import Box
from volfs.versions.blame import UNCOMMITTED, chunk_writers, voxel_writer
from volfs.versions.committed.array import VersionArray
from volfs.versions.dataset import Dataset

SHAPE, CHUNKS = (8, 8, 4), (4, 4, 4)
WHOLE = Box((0, 0, 0), (2, 2, 1))


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[Dataset]:
    with new_store(tmp_path / "store") as store:
        yield store.create_dataset("cells")


def array(dataset: Dataset, number: int) -> VersionArray:
    found = dataset.version(number).array("s0")
    assert found is not None
    return found


def paint(dataset: Dataset, branch: str, *voxels: tuple[int, int, int]) -> int:
    """A commit that gives voxels a value that nothing had before; its version."""
    at = dataset.branch(branch)
    before = voxels_of(at)
    after = before.copy()
    for number, voxel in enumerate(voxels):
        after[voxel] = 1000 + 10 * dataset.next_number() + number
    meta = meta_of(at.read("zarr/s0/zarr.json"))
    for coords in sorted({tuple(i // c for i, c in zip(voxel, CHUNKS, strict=True)) for voxel in voxels}):
        at.put(f"zarr/s0/c/{'/'.join(map(str, coords))}", chunk(meta, after, coords))
    return at.commit("painted").number


def test_each_voxel_is_blamed_on_who_changed_it_last(dataset: Dataset) -> None:
    rng = np.random.default_rng(3)
    write_version(dataset, volume(SHAPE), chunks=CHUNKS)
    model, chunks = np.ones(SHAPE, int), np.ones((2, 2, 1), int)
    for _ in range(8):
        voxels = [tuple(rng.integers(0, SHAPE).tolist()) for _ in range(3)]
        number = paint(dataset, "main", *voxels)
        for voxel in voxels:
            model[voxel] = number
            chunks[tuple(i // c for i, c in zip(voxel, CHUNKS, strict=True))] = number
    newest = array(dataset, dataset.resolve("main"))
    assert (chunk_writers(newest, WHOLE) == chunks).all()
    for voxel in product(*map(range, SHAPE)):
        assert voxel_writer(newest, voxel) == model[voxel], voxel


def test_what_a_merge_took_is_its_writers(dataset: Dataset) -> None:
    write_version(dataset, volume(SHAPE), chunks=CHUNKS)
    dataset.create_branch("exp", "v1")
    here = paint(dataset, "main", (0, 0, 0), (7, 0, 0))
    there = paint(dataset, "exp", (0, 7, 0), (7, 3, 3))  # one chunk of its own, one that both changed
    merged = dataset.merge("exp").version
    assert merged is not None
    newest = array(dataset, merged.number)
    assert chunk_writers(newest, WHOLE).ravel().tolist() == [here, there, merged.number, 1]
    expected = {(0, 0, 0): here, (7, 0, 0): here, (0, 7, 0): there, (7, 3, 3): there, (7, 7, 3): 1, (5, 1, 1): 1}
    assert {voxel: voxel_writer(newest, voxel) for voxel in expected} == expected


def test_uncommitted_voxels_are_nobodys_yet(dataset: Dataset) -> None:
    write_version(dataset, volume(SHAPE), chunks=CHUNKS)
    branch = dataset.branch("main")
    after = voxels_of(branch)
    after[0, 0, 0] += 1
    meta = meta_of(branch.read("zarr/s0/zarr.json"))
    branch.put("zarr/s0/c/0/0/0", chunk(meta, after, (0, 0, 0)))
    branch.delete("zarr/s0/c/1/1/0")
    shown = branch.node("s0")
    assert chunk_writers(shown, WHOLE).ravel().tolist() == [UNCOMMITTED, 1, 1, UNCOMMITTED]
    assert voxel_writer(shown, (0, 0, 0)) == UNCOMMITTED and voxel_writer(shown, (0, 0, 1)) == 1
    assert voxel_writer(shown, (0, 7, 0)) == 1 and voxel_writer(shown, (7, 7, 3)) == UNCOMMITTED


def test_what_nobody_wrote_and_what_is_outside(dataset: Dataset) -> None:
    write_version(dataset, volume(SHAPE), chunks=CHUNKS, coords=[(0, 0, 0)])
    only = array(dataset, 1)
    assert chunk_writers(only, WHOLE).ravel().tolist() == [1, 0, 0, 0]
    assert voxel_writer(only, (7, 7, 3)) == 0
    for bad in ((8, 0, 0), (0, 0), (0, 0, -1)):
        with pytest.raises(BadInput):
            voxel_writer(only, bad)


def test_chunks_are_told_by_one_look_at_the_index_for_each_block(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version(dataset, volume(SHAPE), chunks=CHUNKS)
    for corner in range(4):
        paint(dataset, "main", (4 * (corner // 2), 4 * (corner % 2), 0))
    level = volfs.images(dataset.version(dataset.resolve("main")))["s0"].levels[0]
    looks: list[object] = []
    block_map = Catalog.block_map

    def counting(self: Catalog, node: int, at: object, block: object) -> object:
        looks.append(block)
        return block_map(self, node, at, block)  # type: ignore[arg-type]

    monkeypatch.setattr(Catalog, "block_map", counting)
    assert level.blame().ravel().tolist() == [2, 3, 4, 5]
    assert level.blame(Box((0, 0, 0), (1, 5, 1))).ravel().tolist() == [2, 3]
    assert len(looks) == len(set(map(str, looks))) == 1
