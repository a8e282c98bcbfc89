"""The Zarr store over a branch, judged by zarr-python's own tests for stores; and over versions, which never change."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.testing.store import StoreTests

from volfs import init_store
from volfs.errors import NotAllowed
from volfs.versions.branch import Branch
from volfs.versions.zarrstore import ZarrStore


class TestZarrStoreOverABranch(StoreTests[ZarrStore, cpu.Buffer]):
    store_cls = ZarrStore
    buffer_cls = cpu.Buffer

    @pytest.fixture
    def store_kwargs(self, tmp_path: Path) -> Iterator[dict[str, Any]]:
        with init_store(tmp_path / "store") as opened:
            yield {"snapshot": opened.create_dataset("cells").branch("main")}

    async def set(self, store: ZarrStore, key: str, value: Buffer) -> None:
        branch = store.snapshot
        assert isinstance(branch, Branch)
        branch.put(f"zarr/{key}", value.to_bytes())

    async def get(self, store: ZarrStore, key: str) -> Buffer:
        return self.buffer_cls.from_bytes(store.snapshot.read(f"zarr/{key}"))

    def test_store_repr(self, store: ZarrStore) -> None:
        assert repr(store) == f"ZarrStore('{store.snapshot.dataset.store.path}', 'cells@main')"

    def test_store_supports_writes(self, store: ZarrStore) -> None:
        assert store.supports_writes and store.supports_deletes

    def test_store_supports_listing(self, store: ZarrStore) -> None:
        assert store.supports_listing


def make_array(branch: Branch, voxels: np.ndarray, chunks: tuple[int, ...], **options: Any) -> zarr.Array:
    group = zarr.open_group(store=branch.zarr_store(), mode="a")
    array = group.create_array("s0", shape=voxels.shape, chunks=chunks, dtype=voxels.dtype, **options)
    array[:] = voxels
    return array


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 1000, (10, 12, 14)).astype("u2")


async def test_an_array_reads_back_after_each_of_create_overwrite_append_resize_and_commit(
    branch: Branch, voxels: np.ndarray
) -> None:
    expected = []
    array = make_array(branch, voxels, (4, 4, 4))
    expected.append(voxels.copy())
    branch.commit("create")
    array[3:5, :, 2] = 9
    voxels[3:5, :, 2] = 9
    expected.append(voxels.copy())
    branch.commit("overwrite")
    array.append(voxels[:3], axis=0)
    expected.append(np.concatenate([voxels, voxels[:3]]))
    branch.commit("append")
    array.resize((5, 12, 20))
    expected.append(np.pad(voxels[:5], ((0, 0), (0, 0), (0, 6))))
    branch.commit("resize")
    for number, volume in enumerate(expected, start=1):
        read = zarr.open_array(store=branch.dataset[f"v{number}"].zarr_store(), path="s0", mode="r")
        np.testing.assert_array_equal(read[:], volume)
    np.testing.assert_array_equal(array[:], expected[-1])
    assert branch.status().clean


async def test_an_array_made_anew_over_a_committed_one_shows_nothing_of_it(branch: Branch, voxels: np.ndarray) -> None:
    make_array(branch, voxels, (4, 4, 4))
    branch.commit("first")
    group = zarr.open_group(store=branch.zarr_store())
    array = group.create_array("s0", shape=(6, 6), chunks=(4, 3), dtype="f4", overwrite=True, fill_value=-1)
    np.testing.assert_array_equal(array[:], np.full((6, 6), -1, "f4"))
    array[0, 0] = 5
    branch.commit("made anew")
    expected = np.full((6, 6), -1, "f4")
    expected[0, 0] = 5
    for ref in ("main", "v2"):
        read = zarr.open_array(store=branch.dataset[ref].zarr_store(), path="s0", mode="r")
        np.testing.assert_array_equal(read[:], expected)
    read = zarr.open_array(store=branch.dataset["v1"].zarr_store(), path="s0", mode="r")
    np.testing.assert_array_equal(read[:], voxels)


async def test_a_deleted_group_is_gone_from_the_branch_and_from_the_next_version(branch: Branch) -> None:
    root = zarr.open_group(store=branch.zarr_store(), mode="a")
    root.create_group("labels").create_array("nuclei", shape=(4, 4), chunks=(2, 2), dtype="u4")[:] = 3
    branch.commit("labels")
    del root["labels"]
    assert list(root.keys()) == []
    branch.commit("no labels")
    assert [key async for key in branch.dataset["v2"].zarr_store().list()] == ["zarr.json"]
    assert len([key async for key in branch.dataset["v1"].zarr_store().list()]) == 7


async def test_a_version_cannot_be_written(branch: Branch, voxels: np.ndarray) -> None:
    make_array(branch, voxels, (4, 4, 4))
    branch.commit("first")
    store = branch.dataset["v1"].zarr_store()
    assert store.read_only and not store.supports_writes
    with pytest.raises(ValueError, match="read-only"):
        await store.set("s0/c/0/0/0", cpu.Buffer.from_bytes(b""))
    with pytest.raises(ValueError, match="read-only"):
        await store.delete_dir("s0")
    with pytest.raises(NotAllowed, match="never changes"):
        store.with_read_only(False)


async def test_a_store_out_of_a_pickle_reads_the_same_version_from_disk(branch: Branch, voxels: np.ndarray) -> None:
    make_array(branch, voxels, (4, 4, 4))
    branch.commit("first")
    raw = pickle.dumps(branch.dataset["v1"].zarr_store())
    branch.dataset.store.close()
    again = pickle.loads(raw)
    np.testing.assert_array_equal(zarr.open_array(store=again, path="s0")[:], voxels)
    again.snapshot.dataset.store.close()


async def test_names_that_no_hierarchy_can_have_are_absent(branch: Branch) -> None:
    store = branch.zarr_store()
    for key in ("../x", "a//b", "", "a/../b", "x" * 300):
        assert await store.get(key, default_buffer_prototype()) is None
        assert not await store.exists(key)
    assert [name async for name in store.list_dir("..")] == []
