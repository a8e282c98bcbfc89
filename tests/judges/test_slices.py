"""tifffile, Pillow and numpy, unmodified, on the slices of a mount: all three planes, every kind of number."""

from __future__ import annotations

import itertools
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.kits.judged import Mounted, Volume, make_volumes
from tests.kits.mounts import volfs
from volfs.testing.kit import mounted

PLANES = {"xy": "z", "xz": "y", "yz": "x"}


def planes_of(volume: Volume) -> list[tuple[str, str, tuple[int | slice, ...]]]:
    """(directory, file stem, numpy index) of every slice of a volume whose axes are ``…zyx``."""
    found: list[tuple[str, str, tuple[int | slice, ...]]] = []
    names = "atczyx"[-volume.ndim :] if volume.ndim > 2 else "yx"
    others = [axis for axis in names if axis not in "zyx"]
    for where in itertools.product(*(range(n) for n in volume.shape[: len(others)])):
        parts = [f"{axis}{index:0{4 if axis == 't' else 2}d}" for axis, index in zip(others, where, strict=True)]
        for plane, across in PLANES.items():
            if across not in names:
                continue
            axis = names.index(across)
            for position in range(volume.shape[axis]):
                index: list[int | slice] = [*where, *([slice(None)] * (volume.ndim - len(where)))]
                index[axis] = position
                found.append(("/".join([*parts, plane]), f"{across}{position:05d}", tuple(index)))
    return found


def directory(judged: Mounted, name: str, relative: str) -> Path:
    """The directory of a plane; index directories are found by their number, whatever their width."""
    here = judged.version(name) / "s0"
    for part in relative.split("/"):
        if (here / part).exists():
            here = here / part
            continue
        letter, number = part[0], int(part[1:])
        [here] = [
            p for p in here.iterdir() if p.name[0] == letter and p.name[1:].isdigit() and int(p.name[1:]) == number
        ]
    return here


@pytest.mark.parametrize("name", sorted(make_volumes()))
def test_every_slice_equals_the_source_in_every_ending(judged: Mounted, name: str) -> None:
    volume = judged.volumes[name]
    slices = planes_of(volume) if volume.ndim > 2 else [("xy", "", (slice(None), slice(None)))]
    for relative, stem, index in slices:
        folder = directory(judged, name, relative)
        stem = stem or sorted(folder.iterdir())[0].stem
        expected = volume[index]
        np.testing.assert_array_equal(np.load(folder / f"{stem}.npy"), expected)
        np.testing.assert_array_equal(tifffile.imread(folder / f"{stem}.tif"), expected)
        if volume.dtype in (np.uint8, np.uint16):
            with Image.open(folder / f"{stem}.png") as picture:
                np.testing.assert_array_equal(np.asarray(picture), expected)


@pytest.mark.parametrize("name", sorted(make_volumes()))
def test_a_listed_slice_is_as_long_as_it_says(judged: Mounted, name: str) -> None:
    folder = next(p for p in (judged.version(name) / "s0").rglob("xy") if p.is_dir())
    listed = sorted(folder.iterdir())
    assert listed
    for path in listed[:5]:
        assert len(path.read_bytes()) == path.stat().st_size
        for ending in (".tif", ".npy"):
            other = path.with_suffix(ending)
            assert len(other.read_bytes()) == other.stat().st_size


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
