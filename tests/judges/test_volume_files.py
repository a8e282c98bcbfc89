"""Whole volumes in other programs' formats, read through a mount by the libraries that people use, unmodified."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import mrcfile
import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from tests.kits.judged import Mounted, Source, mounted_sources
from tests.kits.mounts import volfs
from volfs.testing.kit import image, segmentation

SOURCES = {
    "u8": Source("zyx", image((19, 33, 27), "uint8")),
    "u16": Source("zyx", image((9, 33, 31), "uint16", 1)),
    "i16": Source("zyx", image((9, 21, 31), "int16", 2)),
    "f32": Source("zyx", image((11, 40, 35), "float32", 3)),
    "u64": Source("zyx", segmentation((13, 29, 31), "uint64"), labels=True),
    "movie": Source("tczyx", image((3, 2, 5, 30, 41), "uint16", 4)),
    "flat": Source("yx", image((123, 77), "uint8", 5)),
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    with mounted_sources(tmp_path_factory.mktemp("volumes"), SOURCES) as mount:
        yield mount


def level(shown: Mounted, name: str, number: int = 0) -> Path:
    return shown.version(name) / f"s{number}"


THREE = ("u8", "u16", "i16", "f32", "u64")


def test_every_volume_file_is_as_long_as_it_says_and_reads_alike_in_pieces(shown: Mounted) -> None:
    for name in SOURCES:
        for path in sorted(level(shown, name).glob("volume.*")):
            whole = path.read_bytes()
            assert len(whole) == path.stat().st_size, path
            with path.open("rb", buffering=0) as file:
                for offset in (0, 1, 351, len(whole) // 2 + 1, len(whole) - 3):
                    file.seek(offset)
                    assert file.read(777) == whole[offset : offset + 777], (path, offset)


@pytest.mark.parametrize("name", SOURCES)
def test_numpy_maps_every_npy(shown: Mounted, name: str) -> None:
    found = np.load(level(shown, name) / "volume.npy", mmap_mode="r")
    assert found.dtype == shown.volumes[name].dtype and not found.flags.f_contiguous
    np.testing.assert_array_equal(found, shown.volumes[name])


@pytest.mark.parametrize("name", SOURCES)
def test_raw_is_what_its_description_says(shown: Mounted, name: str) -> None:
    said = json.loads((level(shown, name) / "volume.raw.json").read_text())
    volume = shown.volumes[name]
    raw = np.fromfile(level(shown, name) / "volume.raw", volume.dtype.newbyteorder("<"))
    assert said["shape"] == list(volume.shape)
    np.testing.assert_array_equal(raw.reshape(said["shape"]), volume)


@pytest.mark.parametrize("name", [*THREE, "movie"])
def test_nibabel(shown: Mounted, name: str) -> None:
    found = nibabel.load(level(shown, name) / "volume.nii")
    volume = shown.volumes[name]
    expected = volume.transpose(range(volume.ndim)[::-1]) if volume.ndim == 3 else volume.transpose(4, 3, 2, 0, 1)
    np.testing.assert_array_equal(np.asanyarray(found.dataobj), expected)
    np.testing.assert_allclose(found.header.get_zooms()[:3], [4e-6, 4.5e-6, 4e-5], rtol=1e-5)


@pytest.mark.parametrize("ending", ["nrrd", "nhdr", "mha", "nii"])
@pytest.mark.parametrize("name", THREE)
def test_simpleitk(shown: Mounted, name: str, ending: str) -> None:
    found = SimpleITK.ReadImage(str(level(shown, name) / f"volume.{ending}"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found), shown.volumes[name])
    x, y, z = found.GetSpacing()
    np.testing.assert_allclose([y / x, z / x], [4.5 / 4, 10], rtol=1e-5)
    turned = (-1, -1, 1) if ending == "nii" else (1, 1, 1)  # NIfTI's x and y run the other way in ITK's world
    np.testing.assert_allclose(found.GetDirection(), np.diag(turned).ravel(), atol=1e-12)


@pytest.mark.parametrize("name", SOURCES)
def test_pynrrd(shown: Mounted, name: str) -> None:
    volume = shown.volumes[name]
    for ending in ("nrrd", "nhdr"):
        data, header = nrrd.read(str(level(shown, name) / f"volume.{ending}"), index_order="C")
        np.testing.assert_array_equal(data, volume)
        if volume.ndim == 3:
            directions = np.abs(np.asarray(header["space directions"])).max(axis=1)
            np.testing.assert_allclose(directions / directions.min(), [1, 4.5 / 4, 10], rtol=1e-6)


@pytest.mark.parametrize("name", ["u16", "i16", "f32"])
def test_mrcfile(shown: Mounted, name: str) -> None:
    path = level(shown, name) / "volume.mrc"
    assert mrcfile.validate(path)
    with mrcfile.mmap(path, mode="r") as found:
        np.testing.assert_array_equal(found.data, shown.volumes[name])
        size = found.voxel_size
        np.testing.assert_allclose([size.x, size.y, size.z], [40, 45, 400], rtol=1e-5)


@pytest.mark.parametrize("name", SOURCES)
def test_h5py(shown: Mounted, name: str) -> None:
    with h5py.File(level(shown, name) / "volume.h5", "r") as file:
        data = file["data"]
        assert data.chunks is None and data.id.get_offset() is not None
        np.testing.assert_array_equal(data[...], shown.volumes[name])
        if name in THREE:
            np.testing.assert_allclose(np.asarray(data.attrs["element_size_um"])[-3:], [0.04, 0.0045, 0.004])


@pytest.mark.parametrize("name", SOURCES)
def test_tifffile(shown: Mounted, name: str) -> None:
    volume = shown.volumes[name]
    with tifffile.TiffFile(level(shown, name) / "volume.tif") as file:
        found = file.series[0]
        data = found.asarray()
        if name == "movie":
            assert found.axes in ("TZCYX", "TCZYX")
            data = data.transpose([found.axes.index(axis) for axis in "TCZYX"])
        np.testing.assert_array_equal(data, volume)
        np.testing.assert_array_equal(
            tifffile.memmap(level(shown, name) / "volume.tif", mode="r").reshape(-1)[:9],
            file.series[0].asarray().reshape(-1)[:9],
        )


@pytest.mark.parametrize("name", ["u8", "u16", "flat"])
def test_pillow_sees_every_page(shown: Mounted, name: str) -> None:
    volume = np.atleast_3d(shown.volumes[name]) if name != "flat" else shown.volumes[name][None]
    with Image.open(level(shown, name) / "volume.tif") as picture:
        assert getattr(picture, "n_frames", 1) == len(volume)
        for index, plane in enumerate(volume):
            picture.seek(index)
            np.testing.assert_array_equal(np.asarray(picture), plane)


def test_a_movie_has_a_volume_for_each_time_and_channel(shown: Mounted) -> None:
    volume = shown.volumes["movie"]
    for t in range(3):
        for c in range(2):
            folder = level(shown, "movie") / f"t{t:04}" / f"c{c:02}"
            np.testing.assert_array_equal(np.load(folder / "volume.npy"), volume[t, c])
            np.testing.assert_array_equal(
                SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "volume.mha"))), volume[t, c]
            )
            with mrcfile.open(folder / "volume.mrc") as found:
                np.testing.assert_array_equal(found.data, volume[t, c])


def test_coarser_levels_too(shown: Mounted) -> None:
    folder = level(shown, "u8", 1)
    expected = np.load(folder / "volume.npy")
    np.testing.assert_array_equal(tifffile.imread(folder / "volume.tif"), expected)
    assert nibabel.load(folder / "volume.nii").header.get_zooms()[0] == pytest.approx(8e-6)


def test_cutouts_are_files_by_name(shown: Mounted) -> None:
    volume, folder = shown.volumes["u8"], level(shown, "u8") / "cutout"
    assert [path.name for path in folder.iterdir()] == ["README.txt"]
    np.testing.assert_array_equal(tifffile.imread(folder / "z3-9_y5-30_x0-20.tif"), volume[3:9, 5:30, :20])
    np.testing.assert_array_equal(np.load(folder / "y7-.npy"), volume[:, 7:])
    box = nibabel.load(folder / "z3-9_y5-30_x10-20.nii")
    np.testing.assert_array_equal(np.asanyarray(box.dataobj), volume[3:9, 5:30, 10:20].T)
    np.testing.assert_allclose(box.affine[:3, 3], [4e-6 * 10, 4.5e-6 * 5, 4e-5 * 3], rtol=1e-5)
    with Image.open(folder / "z4_y5-30.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), volume[4, 5:30])
    for name in ("z3-99.tif", "z9-3.npy", "q1.npy", "z1-2.doc", "z01-2.npy"):
        assert not (folder / name).exists()


# ------------------------------------------------------------------------------------------------------ in a branch


def test_numpy_edits_a_volume_in_place(shown: Mounted) -> None:
    branch = shown.branch("u16") / "s0"
    data = np.lib.format.open_memmap(branch / "volume.npy", mode="r+")
    expected = shown.volumes["u16"].copy()
    data[2:5, 10:20, 3:30] = 7
    expected[2:5, 10:20, 3:30] = 7
    data.flush()
    del data
    try:
        np.testing.assert_array_equal(np.load(branch / "volume.npy"), expected)
        np.testing.assert_array_equal(tifffile.imread(branch / "volume.tif"), expected)
        np.testing.assert_array_equal(tifffile.imread(branch / "xy" / "z00003.tif"), expected[3])
        assert not np.array_equal(np.load(shown.version("u16") / "s0" / "volume.npy"), expected)
    finally:
        volfs(shown.store, "discard", "u16", "--yes")


@pytest.mark.parametrize("ending", ["tif", "nii", "npy", "raw", "nrrd", "mrc", "mha"])
def test_voxels_are_written_through_every_format(shown: Mounted, ending: str) -> None:
    path = shown.branch("f32") / "s0" / f"volume.{ending}"
    volume = shown.volumes["f32"]
    size = path.stat().st_size
    start = size - volume.nbytes
    new = image(volume.shape, "float32", 99)
    try:
        with path.open("r+b") as file:
            file.seek(start)
            file.write(new.astype("<f4").tobytes())
        assert path.stat().st_size == size
        np.testing.assert_array_equal(np.load(shown.branch("f32") / "s0" / "volume.npy"), new)
        if start:
            with pytest.raises(OSError, match="Invalid argument"), path.open("r+b", buffering=0) as file:
                file.write(b"something else entirely"[:start])
        with path.open("r+b", buffering=0) as file:
            head = file.read(64)
            file.seek(0)
            file.write(head)
    finally:
        volfs(shown.store, "discard", "f32", "--yes")


def test_a_volume_copied_over_one_replaces_it(shown: Mounted, tmp_path: Path) -> None:
    new = image(shown.volumes["i16"].shape, "int16", 5)
    np.save(tmp_path / "new.npy", new)
    target = shown.branch("i16") / "s0" / "volume.npy"
    try:
        target.write_bytes((tmp_path / "new.npy").read_bytes())
        np.testing.assert_array_equal(np.load(target), new)
        with pytest.raises(OSError, match="Invalid argument"):
            target.write_bytes(b"x" * 1000)
    finally:
        volfs(shown.store, "discard", "i16", "--yes")


def test_cutouts_are_written_in_place(shown: Mounted) -> None:
    path = shown.branch("u8") / "s0" / "cutout" / "z3-9_y5-30_x0-20.npy"
    data = np.lib.format.open_memmap(path, mode="r+")
    data[...] = 201
    data.flush()
    del data
    try:
        whole = np.load(shown.branch("u8") / "s0" / "volume.npy")
        assert (whole[3:9, 5:30, :20] == 201).all()
        whole[3:9, 5:30, :20] = shown.volumes["u8"][3:9, 5:30, :20]
        np.testing.assert_array_equal(whole, shown.volumes["u8"])
    finally:
        volfs(shown.store, "discard", "u8", "--yes")


def test_versions_and_coarser_levels_are_not_written(shown: Mounted) -> None:
    for path in (level(shown, "u8") / "volume.npy", shown.branch("u8") / "s1" / "volume.npy"):
        with pytest.raises(OSError):
            path.open("r+b")


def test_slices_with_square_pixels_and_planes_at_an_angle(shown: Mounted) -> None:
    volume, folder = shown.volumes["u16"], level(shown, "u16")
    rows = round(volume.shape[0] * 40 / 4)
    with Image.open(folder / "xz" / "y00010.iso.png") as picture:
        square = np.asarray(picture)
    assert square.shape == (rows, volume.shape[2])
    np.testing.assert_array_equal(square[0], volume[0, 10])
    np.testing.assert_array_equal(np.load(folder / "xz" / "y00010.iso.npy"), square)
    np.testing.assert_array_equal(tifffile.imread(folder / "xz" / "y00010.iso.tif"), square)
    assert not (folder / "xy" / "z99999.iso.png").exists()
    # Along the axes, at the size of a voxel, a plane of oblique/ is a slice.
    name = "x0_y45_z0__x40_y45_z0__x0_y45_z320__p4.npy"
    plane = np.load(folder / "oblique" / name)
    np.testing.assert_array_equal(plane[::10], volume[:, 10, :11])
    assert [path.name for path in (folder / "oblique").iterdir()] == ["README.txt"]
    labels = np.load(level(shown, "u64") / "xz" / "y00010.iso.npy")
    assert set(np.unique(labels)) <= set(np.unique(shown.volumes["u64"]))
