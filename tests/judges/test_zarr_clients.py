"""zarr-python and TensorStore, unmodified, on ``zarr/`` and ``chunks/`` of a mount: reading, then writing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
import zarr

from tests.kits.judged import Mounted, make_volumes
from tests.kits.mounts import volfs

ALL = sorted(make_volumes())
TENSORSTORE = [name for name in ALL if name != "six"] + ["six"]


def tensorstore(path: Path, **spec: Any) -> Any:
    return ts.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}, **spec}).result()


@pytest.mark.parametrize("name", ALL)
def test_zarr_python_reads_every_voxel_of_a_version(judged: Mounted, name: str) -> None:
    group = zarr.open_group(str(judged.version(name) / "zarr"), mode="r")
    array = group["s0"]
    assert array.shape == judged.volumes[name].shape and array.dtype == judged.volumes[name].dtype
    np.testing.assert_array_equal(array[...], judged.volumes[name])


@pytest.mark.parametrize("name", ALL)
def test_zarr_python_reads_every_voxel_through_chunks(judged: Mounted, name: str) -> None:
    array = zarr.open_array(str(judged.version(name) / "s0" / "chunks"), mode="r")
    np.testing.assert_array_equal(array[...], judged.volumes[name])


@pytest.mark.parametrize("name", TENSORSTORE)
@pytest.mark.parametrize("where", ["zarr/s0", "s0/chunks"])
def test_tensorstore_reads_every_voxel_of_a_version(judged: Mounted, name: str, where: str) -> None:
    array = tensorstore(judged.version(name) / where, open=True)
    np.testing.assert_array_equal(array.read().result(), judged.volumes[name])


def test_the_stored_version_opens_in_zarr_python_without_volfs(judged: Mounted) -> None:
    for name, volume in judged.volumes.items():
        stored = judged.store / "datasets" / name / "versions" / "00000001" / "zarr"
        np.testing.assert_array_equal(zarr.open_group(str(stored), mode="r")["s0"][...], volume)


def test_the_stored_version_opens_in_tensorstore_without_volfs(judged: Mounted) -> None:
    for name, volume in judged.volumes.items():
        stored = judged.store / "datasets" / name / "versions" / "00000001" / "zarr" / "s0"
        np.testing.assert_array_equal(tensorstore(stored, open=True).read().result(), volume)


class TestZarrPythonWrites:
    def test_overwrites_a_region_and_a_commit_keeps_it(
        self, judged: Mounted, clean_branch: Callable[[str], Path]
    ) -> None:
        branch = clean_branch("u16")
        before = zarr.open_array(str(branch / "zarr" / "s0"), mode="r")[...]
        array = zarr.open_array(str(branch / "zarr" / "s0"), mode="r+")
        patch = np.arange(5 * 20 * 20, dtype=np.uint16).reshape(5, 20, 20)
        array[3:8, 10:30, 5:25] = patch
        expected = before.copy()
        expected[3:8, 10:30, 5:25] = patch
        np.testing.assert_array_equal(zarr.open_array(str(branch / "zarr" / "s0"), mode="r")[...], expected)
        volfs(judged.store, "commit", "u16", "-m", "a patch by zarr-python")
        newest = judged.mount / "u16" / "versions" / "latest" / "zarr" / "s0"
        np.testing.assert_array_equal(zarr.open_array(str(newest), mode="r")[...], expected)
        np.testing.assert_array_equal(
            zarr.open_array(str(judged.version("u16") / "zarr" / "s0"), mode="r")[...], judged.volumes["u16"]
        )

    def test_creates_resizes_and_deletes_an_array(self, judged: Mounted, clean_branch: Callable[[str], Path]) -> None:
        branch = clean_branch("i16")
        group = zarr.open_group(str(branch / "zarr"), mode="r+")
        made = group.create_array("extra/deep/counts", shape=(10, 12), chunks=(4, 5), dtype="uint32", fill_value=7)
        made[2:9, 1:11] = np.arange(70, dtype=np.uint32).reshape(7, 10)
        expected = np.full((10, 12), 7, np.uint32)
        expected[2:9, 1:11] = np.arange(70, dtype=np.uint32).reshape(7, 10)
        np.testing.assert_array_equal(group["extra/deep/counts"][...], expected)
        made.resize((6, 20))
        grown = np.full((6, 20), 7, np.uint32)
        grown[:, :12] = expected[:6]
        np.testing.assert_array_equal(zarr.open_group(str(branch / "zarr"))["extra/deep/counts"][...], grown)
        volfs(judged.store, "commit", "i16", "-m", "a new array")
        latest = judged.mount / "i16" / "versions" / "latest" / "zarr"
        np.testing.assert_array_equal(zarr.open_group(str(latest), mode="r")["extra/deep/counts"][...], grown)
        del zarr.open_group(str(branch / "zarr"), mode="r+")["extra"]
        assert not (branch / "zarr" / "extra").exists()
        volfs(judged.store, "commit", "i16", "-m", "and away again")
        latest = judged.mount / "i16" / "versions" / "latest" / "zarr"
        assert "extra" not in set(zarr.open_group(str(latest), mode="r").keys())
        np.testing.assert_array_equal(zarr.open_group(str(latest), mode="r")["s0"][...], judged.volumes["i16"])

    def test_a_sharded_array_is_kept_as_written_and_has_slices(
        self, judged: Mounted, clean_branch: Callable[[str], Path]
    ) -> None:
        branch = clean_branch("f64")
        volume = np.random.default_rng(1).integers(0, 255, (20, 30, 40), np.uint8)
        group = zarr.open_group(str(branch / "zarr"), mode="r+")
        group.create_array("sharded", shape=volume.shape, chunks=(5, 5, 5), shards=(10, 15, 20), dtype="uint8")
        group["sharded"][...] = volume
        volfs(judged.store, "commit", "f64", "-m", "sharded")
        latest = judged.mount / "f64" / "versions" / "latest"
        np.testing.assert_array_equal(zarr.open_group(str(latest / "zarr"), mode="r")["sharded"][...], volume)
        assert (latest / "sharded" / "xy" / "z00007.npy").stat().st_size > 0
        np.testing.assert_array_equal(np.load(latest / "sharded" / "xy" / "z00007.npy"), volume[7])


class TestTensorStoreWrites:
    def test_overwrites_a_region_and_a_commit_keeps_it(
        self, judged: Mounted, clean_branch: Callable[[str], Path]
    ) -> None:
        branch = clean_branch("f32")
        array = tensorstore(branch / "zarr" / "s0", open=True)
        expected = array.read().result().copy()
        patch = np.linspace(0, 1, 4 * 9 * 30, dtype=np.float32).reshape(4, 9, 30)
        array[2:6, 20:29, 3:33].write(patch).result()
        expected[2:6, 20:29, 3:33] = patch
        np.testing.assert_array_equal(tensorstore(branch / "zarr" / "s0", open=True).read().result(), expected)
        np.testing.assert_array_equal(np.load(branch / "s0" / "xy" / "z00004.npy"), expected[4])
        volfs(judged.store, "commit", "f32", "-m", "a patch by TensorStore")
        latest = judged.mount / "f32" / "versions" / "latest" / "zarr" / "s0"
        np.testing.assert_array_equal(tensorstore(latest, open=True).read().result(), expected)

    def test_creates_resizes_and_deletes_an_array(self, judged: Mounted, clean_branch: Callable[[str], Path]) -> None:
        branch = clean_branch("flat")
        where = branch / "zarr" / "fresh"
        metadata = {
            "shape": [30, 20],
            "data_type": "uint16",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8, 8]}},
        }
        array = tensorstore(where, create=True, metadata=metadata)
        values = np.arange(600, dtype=np.uint16).reshape(30, 20)
        array.write(values).result()
        array = array.resize(exclusive_max=[12, 25]).result()
        expected = np.zeros((12, 25), np.uint16)
        expected[:, :20] = values[:12]
        np.testing.assert_array_equal(tensorstore(where, open=True).read().result(), expected)
        volfs(judged.store, "commit", "flat", "-m", "fresh")
        latest = judged.mount / "flat" / "versions" / "latest" / "zarr" / "fresh"
        np.testing.assert_array_equal(tensorstore(latest, open=True).read().result(), expected)
        shutil.rmtree(where)
        volfs(judged.store, "commit", "flat", "-m", "gone")
        assert not (judged.mount / "flat" / "versions" / "latest" / "zarr" / "fresh").exists()


def test_a_plain_copy_of_an_ome_zarr_into_a_branch_is_a_dataset(
    judged: Mounted, tmp_path: Path, clean_branch: Callable[[str], Path]
) -> None:
    """``cp -r`` of one hierarchy into another: no volfs tool is needed to bring data in."""
    branch = clean_branch("movie")
    shutil.copytree(judged.version("u8") / "zarr", branch / "zarr" / "copied")
    np.testing.assert_array_equal(
        zarr.open_group(str(branch / "zarr"), mode="r")["copied/s0"][...], judged.volumes["u8"]
    )
    np.testing.assert_array_equal(
        np.load(branch / "copied" / "s0" / "yz" / "x00092.npy"), judged.volumes["u8"][:, :, 92]
    )
