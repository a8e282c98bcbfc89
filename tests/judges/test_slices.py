"""tifffile, Pillow and numpy, unmodified, on the slices of a mount: all three planes, every kind of number."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.kits.judged import Mounted, make_volumes
from tests.kits.mounts import volfs
from tests.kits.planes import planes_of
from volfs.testing.kit import mounted


@pytest.mark.parametrize("name", sorted(make_volumes()))
def test_every_slice_equals_the_source_in_every_ending(judged: Mounted, name: str) -> None:
    volume = judged.volumes[name]
    for plane in planes_of(volume, "atczyx"[-volume.ndim :] if volume.ndim > 2 else "yx"):
        file = judged.version(name) / "s0" / plane.folder / plane.stem
        np.testing.assert_array_equal(np.load(file.with_suffix(".npy")), plane.voxels)
        np.testing.assert_array_equal(tifffile.imread(file.with_suffix(".tif")), plane.voxels)
        if volume.dtype in (np.uint8, np.uint16):
            with Image.open(file.with_suffix(".png")) as picture:
                np.testing.assert_array_equal(np.asarray(picture), plane.voxels)


@pytest.mark.parametrize("name", sorted(make_volumes()))
def test_a_listed_slice_is_as_long_as_it_says(judged: Mounted, name: str) -> None:
    folder = next(p for p in (judged.version(name) / "s0").rglob("xy") if p.parent.name != "preview")
    listed = sorted(folder.iterdir())
    assert listed
    for path in listed[:5]:
        assert len(path.read_bytes()) == path.stat().st_size
        for ending in (".tif", ".npy"):
            other = path.with_suffix(ending)
            assert len(other.read_bytes()) == other.stat().st_size


@pytest.mark.parametrize("name", sorted(make_volumes()))
def test_every_slice_has_a_preview_that_viewers_open(judged: Mounted, name: str) -> None:
    """Judged by Pillow and by libpng in imagecodecs."""
    for folder in (p for p in (judged.version(name) / "s0").rglob("preview/*") if p.is_dir()):
        slices = sorted(path.stem for path in (folder.parents[1] / folder.name).iterdir())
        listed = sorted(folder.iterdir())
        assert [path.stem for path in listed] == slices and {path.suffix for path in listed} == {".png"}
        path = listed[len(listed) // 2]
        data = path.read_bytes()
        assert len(data) == path.stat().st_size
        with Image.open(path) as picture:
            shown = np.asarray(picture)
        np.testing.assert_array_equal(imagecodecs.png_decode(data), shown)
        assert shown.dtype == np.uint8
        assert shown.shape[:2] == np.load(folder.parents[1] / folder.name / f"{path.stem}.npy").shape[:2]


def test_the_planes_lie_as_documented(judged: Mounted) -> None:
    """The first letter runs across, the second runs down."""
    volume = judged.volumes["u8"]
    version = judged.version("u8") / "s0"
    assert np.asarray(Image.open(version / "xy" / "z00005.png"))[3, 60] == volume[5, 3, 60]
    assert np.asarray(Image.open(version / "xz" / "y00009.png"))[30, 71] == volume[30, 9, 71]
    assert np.asarray(Image.open(version / "yz" / "x00011.png"))[30, 66] == volume[30, 66, 11]


def test_sixteen_bit_colour_is_exact_to_libpng(tmp_path: Path) -> None:
    """Judged by libpng in imagecodecs: Pillow reduces such pictures to 8 bits without a word."""
    colour = np.random.default_rng(5).integers(0, 2**16, (3, 21, 34, 3), np.uint16)
    tifffile.imwrite(tmp_path / "colour.tif", colour, photometric="rgb")
    store = tmp_path / "store"
    volfs(store, "init")
    volfs(store, "import", "colour", tmp_path / "colour.tif")
    with mounted(store, tmp_path / "mnt") as mount:
        folder = mount / "colour/versions/v1/s0/xy"
        for index, picture in enumerate(colour):
            listed = imagecodecs.png_decode((folder / f"z{index:05}.png").read_bytes())
            np.testing.assert_array_equal(listed, picture)
            np.testing.assert_array_equal(tifffile.imread(folder / f"z{index:05}.tif"), picture)
        np.testing.assert_array_equal(tifffile.imread(folder.parent / "volume.tif"), colour)
