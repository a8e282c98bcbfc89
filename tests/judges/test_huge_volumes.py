"""A volume of ten terabytes, of which almost nothing is stored: every view of it costs nothing until it is read."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import nibabel
import nrrd
import numpy as np
import psutil
import pytest
import tensorstore
import tifffile
import zarr

import volfs
from volfs.model.ngff import axis, ome_attributes, pyramid
from volfs.testing.kit import daemon_pid, mounted

SHAPE = (20_000, 22_000, 24_000)
AT = (10_007, 11_001, 12_345)
CHUNK = (64, 64, 64)


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("huge")
    with volfs.init_store(root / "store") as store:
        branch = store.create_dataset("huge").branch("main")
        axes = tuple(axis(name, "nm") for name in "zyx")
        image = pyramid("huge", axes, (40.0, 4.0, 4.0), [(1, 1, 1)])
        group = zarr.create_group(branch.zarr_store(), attributes=ome_attributes(image))
        array = group.create_array("s0", shape=SHAPE, chunks=CHUNK, dtype="u1")
        start = tuple(n // c * c for n, c in zip(AT, CHUNK, strict=True))
        array[tuple(slice(a, a + c) for a, c in zip(start, CHUNK, strict=True))] = 5
        array[AT] = 201
        branch.commit("one chunk of ten terabytes")
    with mounted(root / "store", root / "mnt", cache_size=64 << 20) as mount:
        yield mount


@pytest.fixture(autouse=True)
def bounded(huge: Path) -> Iterator[None]:
    """Whatever is done: little time, and no more memory than the cache and a fixed part."""
    daemon = psutil.Process(daemon_pid(huge))
    began = time.monotonic()
    yield
    assert daemon.memory_info().rss < 400 << 20
    assert time.monotonic() - began < 60


def level(huge: Path) -> Path:
    return huge / "huge/versions/v1/s0"


def voxels_at(path: Path, start: int, itemsize: int = 1) -> bytes:
    index = np.ravel_multi_index(AT, SHAPE)
    with path.open("rb", buffering=0) as file:
        file.seek(start + int(index) * itemsize - 1)
        return file.read(3)


def test_it_lists_with_sizes(huge: Path) -> None:
    names = {entry.name: entry.stat().st_size for entry in os.scandir(level(huge)) if entry.name.startswith("volume")}
    bytes_in_all = int(np.prod(SHAPE))
    for name in ("volume.tif", "volume.imagej.tif", "volume.nii", "volume.nrrd", "volume.npy", "volume.raw",
                 "volume.mha", "volume.h5"):  # fmt: skip
        assert bytes_in_all <= names[name] < bytes_in_all * 1.001, name
    assert len(os.listdir(level(huge) / "xy")) == SHAPE[0]


def test_numpy(huge: Path) -> None:
    data = np.load(level(huge) / "volume.npy", mmap_mode="r")
    assert data.shape == SHAPE and data[AT] == 201 and data[AT[0], AT[1], AT[2] + 1] == 5 and data[0, 0, 0] == 0
    assert data[-1, -1, -1] == 0


def test_nibabel(huge: Path) -> None:
    found = nibabel.load(level(huge) / "volume.nii", mmap="r")
    assert found.shape == SHAPE[::-1]
    assert found.dataobj[AT[2], AT[1], AT[0]] == 201


def test_nrrd(huge: Path) -> None:
    path = level(huge) / "volume.nrrd"
    with path.open("rb") as file:
        header = nrrd.read_header(file)
        start = file.tell()
    assert list(header["sizes"]) == list(SHAPE[::-1])
    assert voxels_at(path, start) == b"\x05\xc9\x05"


def test_tifffile(huge: Path) -> None:
    with tifffile.TiffFile(level(huge) / "volume.tif") as file:
        assert file.is_bigtiff and len(file.pages) == SHAPE[0]
        page = file.pages[AT[0]]
        assert page.shape == SHAPE[1:]
        start = page.dataoffsets[0]
    with (level(huge) / "volume.tif").open("rb", buffering=0) as raw:
        raw.seek(start + AT[1] * SHAPE[2] + AT[2])
        assert raw.read(2) == b"\xc9\x05"


def test_h5py(huge: Path) -> None:
    with h5py.File(level(huge) / "volume.h5", "r") as file:
        data = file["data"]
        assert data.shape == SHAPE and data[AT] == 201 and data[-1, -1, -1] == 0


def test_zarr_n5_and_precomputed(huge: Path) -> None:
    formats = huge / "huge/versions/v1/formats"
    box = tuple(slice(n - 1, n + 2) for n in AT)
    group = zarr.open_group(str(formats / "huge.v2.zarr"), mode="r", zarr_format=2)
    expected = np.full((3, 3, 3), 5, np.uint8)
    expected[1, 1, 1] = 201
    np.testing.assert_array_equal(group["s0"][box], expected)  # type: ignore[index]
    group = zarr.open_group(str(formats / "huge.sharded.zarr"), mode="r", zarr_format=3)
    np.testing.assert_array_equal(group["s0"][box], expected)  # type: ignore[index]
    for driver, place in (("n5", "huge.n5/setup0/timepoint0/s0"), ("neuroglancer_precomputed", "huge.precomputed")):
        kvstore = {"driver": "file", "path": str(formats / place)}
        array = tensorstore.open({"driver": driver, "kvstore": kvstore}, read=True).result()
        if driver == "neuroglancer_precomputed":
            array = array[..., 0]
        found = array[tuple(reversed(box))].read().result()
        np.testing.assert_array_equal(found.transpose(), expected)


def test_a_cutout_in_its_middle(huge: Path) -> None:
    z, y, x = AT
    name = f"z{z - 1}-{z + 2}_y{y - 1}-{y + 2}_x{x - 1}-{x + 2}.tif"
    data = tifffile.imread(level(huge) / "cutout" / name)
    assert data.shape == (3, 3, 3) and data[1, 1, 1] == 201 and (data == 5).sum() == 26
