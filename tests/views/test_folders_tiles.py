"""Deep Zoom images of planes: Pillow and libpng read the tiles, the descriptor is read as its schema says."""

from __future__ import annotations

import io
import math
from typing import Any
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.kits.view_folders import (
    HugeArray,
    MemoryArray,
    array_meta,
    at,
    content,
    entries,
    image_view,
    view_of,
)
from volfs.model.box import Box
from volfs.testing.volumes import noise
from volfs.views import samples
from volfs.views.folder import Folder, ImageView, LevelView, ViewFile
from volfs.views.folders import deepzoom
from volfs.views.layout import Layout

NAMESPACE = "{http://schemas.microsoft.com/deepzoom/2008}"


def shown(image: ImageView) -> Folder:
    folder = deepzoom.folder(image)
    assert folder is not None
    return folder


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepzoom, "TILE", 4)


class DeepZoom:
    """A Deep Zoom image read as the schema says: nothing but the descriptor tells where tiles are."""

    def __init__(self, folder: Folder, path: str) -> None:
        self._folder, self._path = folder, path
        file = at(folder, f"{path}.dzi")
        assert isinstance(file, ViewFile)
        root = ElementTree.fromstring(content(file))
        assert root.tag == f"{NAMESPACE}Image" and root.get("Format") == "png"
        size = root.find(f"{NAMESPACE}Size")
        assert size is not None
        self.tile, self.overlap = int(root.get("TileSize", "")), int(root.get("Overlap", ""))
        self.width, self.height = int(size.get("Width", "")), int(size.get("Height", ""))
        self.last = math.ceil(math.log2(max(self.width, self.height)))
        self.absent: set[int] = set()
        for rectangle in root.iter(f"{NAMESPACE}DisplayRect"):
            (inside,) = rectangle
            if inside.get("Width") == "0":
                self.absent |= set(range(int(rectangle.get("MinLevel", "")), int(rectangle.get("MaxLevel", "")) + 1))

    def level(self, number: int) -> np.ndarray:
        """A whole level, put together from its tiles."""
        scale = 2 ** (self.last - number)
        height, width = -(-self.height // scale), -(-self.width // scale)
        found: np.ndarray | None = None
        for top in range(0, height, self.tile):
            for left in range(0, width, self.tile):
                file = at(self._folder, f"{self._path}_files/{number}/{left // self.tile}_{top // self.tile}.png")
                assert isinstance(file, ViewFile)
                picture = imagecodecs.png_decode(content(file))
                if found is None:
                    found = np.zeros((height, width, *picture.shape[2:]), picture.dtype)
                rows = slice(max(0, top - self.overlap), min(height, top + self.tile + self.overlap))
                columns = slice(max(0, left - self.overlap), min(width, left + self.tile + self.overlap))
                assert picture.shape == found[rows, columns].shape
                known = found[rows, columns]
                assert np.array_equal(picture[: min(top, 2)], known[: min(top, 2)])  # what two tiles both have
                known[...] = picture
        assert found is not None
        return found


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", ["u1", "u2", "bool"])
def test_every_level_of_every_plane_has_the_voxels_of_the_image(dtype: str) -> None:
    voxels = noise((7, 13, 21), dtype)
    image = image_view(voxels, chunks=(4, 4, 4), levels=3)
    folder = shown(image)
    assert set(entries(folder)) == {"xy", "xz", "yz"}
    for plane, axis, letter in (("xy", 0, "z"), ("xz", 1, "y"), ("yz", 2, "x")):
        names = set(entries(at(folder, plane)))  # type: ignore[arg-type]
        count = voxels.shape[axis]
        assert names == {f"{letter}{n:05}{end}" for n in range(count) for end in (".dzi", "_files")}
        for position in (0, count // 2, count - 1):
            zoom = DeepZoom(folder, f"{plane}/{letter}{position:05}")
            across, down = {"xy": (21, 13), "xz": (21, 7), "yz": (13, 7)}[plane]
            assert (zoom.width, zoom.height) == (across, down) and not zoom.absent
            for number in range(zoom.last + 1):
                scale = 2 ** (zoom.last - number)
                level = min(zoom.last - number, 2)
                stored = image.levels[level].array.read(Box.whole(image.levels[level].shape))
                slab = stored.take(position // 2**level, axis=axis)
                expected = slab[:: scale >> level, :: scale >> level]
                assert np.array_equal(zoom.level(number) > 0 if dtype == "bool" else zoom.level(number), expected)


def test_tiles_open_in_pillow_with_exact_sizes() -> None:
    voxels = noise((3, 300, 500), "u1")
    folder = shown(image_view(voxels, chunks=(1, 64, 64)))
    file = at(folder, "xy/z00001_files/9/1_1.png")
    assert isinstance(file, ViewFile) and file.box == Box((1, 253, 253), (2, 300, 500))
    data = content(file)
    assert len(data) == file.layout.size
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == (247, 47) and picture.mode == "L"
        assert np.array_equal(np.asarray(picture), voxels[1, 253:, 253:])
    with Image.open(io.BytesIO(content(at(folder, "xy/z00002_files/0/0_0.png")))) as picture:  # type: ignore[arg-type]
        assert picture.size == (1, 1)
    for missing in ("9/2_0.png", "9/0_2.png", "9/00_0.png", "9/0_0.jpg", "9/0_0", "10/0_0.png", "x/0_0.png", "9/_.png"):
        assert at(folder, f"xy/z00001_files/{missing}") is None
    for missing in ("z00003.dzi", "z0001.dzi", "z00001.xml", "z00003_files", "z00001.dzi_files", "z00001", "_files"):
        assert at(folder, f"xy/{missing}") is None


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_colour_and_other_axes(dtype: str) -> None:
    voxels = noise((3, 3, 5, 7, 11), dtype)
    folder = shown(image_view(voxels, "tczyx", chunks=(1, 3, 4, 4, 4), levels=2, sample="c"))
    assert list(entries(folder)) == ["t0000", "t0001", "t0002"]
    zoom = DeepZoom(folder, "t0002/xz/y00006")
    assert np.array_equal(zoom.level(zoom.last), voxels[2, :, :, 6].transpose(1, 2, 0))
    gray = shown(image_view(voxels, "tczyx", chunks=(1, 3, 4, 4, 4), levels=2))
    assert list(entries(at(gray, "t0001"))) == ["c00", "c01", "c02"]  # type: ignore[arg-type]
    zoom = DeepZoom(gray, "t0001/c02/yz/x00010")
    assert np.array_equal(zoom.level(zoom.last), voxels[1, 2, :, :, 10])
    assert np.array_equal(zoom.level(zoom.last - 1), voxels[1, 2, ::2, ::2, 10])


@pytest.mark.usefixtures("small_tiles")
def test_a_picture_of_two_axes() -> None:
    voxels = noise((13, 9), "u2")
    folder = shown(image_view(voxels, "yx", chunks=(4, 4)))
    assert set(entries(folder)) == {"xy"}
    zoom = DeepZoom(folder, "xy/z00000")
    assert np.array_equal(zoom.level(4), voxels) and np.array_equal(zoom.level(0), voxels[:1, :1])


@pytest.mark.parametrize("dtype", ["i2", "u4", "f4", "u8", "c8"])
def test_types_that_no_browser_shows_have_no_tiles(dtype: str) -> None:
    meta = array_meta((4, 4, 4), dtype, (4, 4, 4))
    level = LevelView("s0", MemoryArray(meta), (1.0,) * 3, (0.0,) * 3)
    assert deepzoom.folder(view_of([level], "zyx")) is None


def test_an_image_that_cannot_be_read_or_is_empty_has_no_tiles() -> None:
    image = image_view(noise((4, 4), "u1"), "yx")
    image.levels[0].array.readable = False  # type: ignore[misc]
    assert deepzoom.folder(image) is None
    empty = LevelView("s0", MemoryArray(array_meta((0, 4, 4), "u1", (4, 4, 4))), (1.0,) * 3, (0.0,) * 3)
    assert deepzoom.folder(view_of([empty], "zyx")) is None


def level(name: str, voxels: np.ndarray, scale: tuple[float, ...]) -> LevelView:
    meta = array_meta(voxels.shape, voxels.dtype, (4,) * voxels.ndim)
    return LevelView(name, MemoryArray(meta, voxels, name), scale, (0.0,) * voxels.ndim)


@pytest.mark.usefixtures("small_tiles")
def test_sizes_rounded_down_and_levels_that_shrink_otherwise() -> None:
    voxels = noise((5, 9, 13), "u1")
    down, third = voxels[1::2, 1::2, 1::2], voxels[::3, ::3, ::3]
    assert down.shape == (2, 4, 6)
    levels = [level("a", voxels, (1, 1, 1)), level("b", down, (2, 2, 2)), level("c", third, (3, 3, 3))]
    zoom = DeepZoom(shown(view_of(levels, "zyx")), "xy/z00004")
    assert np.array_equal(zoom.level(4), voxels[4])
    rows, columns = [0, 1, 2, 3, 3], [0, 1, 2, 3, 4, 5, 5]  # the outermost voxel is shown twice
    assert np.array_equal(zoom.level(3), down[1][np.ix_(rows, columns)])
    assert np.array_equal(zoom.level(2), down[1][np.ix_([0, 2, 3], [0, 2, 4, 5])])


@pytest.mark.usefixtures("small_tiles")
def test_z_that_does_not_shrink_is_thinned_out() -> None:
    voxels = noise((5, 16, 16), "u1")
    half, quarter = voxels[:, ::2, ::2], voxels[:, ::4, ::4]
    levels = [level("a", voxels, (40, 4, 4)), level("b", half, (40, 8, 8)), level("c", quarter, (40, 16, 16))]
    zoom = DeepZoom(shown(view_of(levels, "zyx")), "xz/y00010")
    assert np.array_equal(zoom.level(4), voxels[:, 10])
    assert np.array_equal(zoom.level(3), half[::2, 5])
    assert np.array_equal(zoom.level(2), quarter[::4, 2])
    assert np.array_equal(zoom.level(0), quarter[:1, 2, :1])


def huge(shape: tuple[int, ...], levels: int) -> ImageView:
    made = []
    for number in range(levels):
        meta = array_meta(tuple(-(-n // 2**number) for n in shape), "u2", (64, 64, 64))
        made.append(LevelView(f"s{number}", HugeArray(meta, path=f"s{number}"), (2.0**number,) * 3, (0.0,) * 3))
    return view_of(made, "zyx")


def test_a_volume_of_terabytes_shows_its_middle_and_is_whole_from_afar() -> None:
    image = huge((40_000, 70_000, 70_000), 10)
    folder = shown(image)
    for plane, name in (("xy", "z39999"), ("xz", "y33333"), ("yz", "x69999")):
        zoom = DeepZoom(folder, f"{plane}/{name}")
        assert not zoom.absent and zoom.last == 17
        for number in range(18):
            for column_row in ("0_0", f"{(-(-zoom.width >> (17 - number)) - 1) // zoom.tile}_0"):
                file = at(folder, f"{plane}/{name}_files/{number}/{column_row}.png")
                assert isinstance(file, ViewFile)
                array: Any = file.source
                array.given = 0
                assert len(file.layout.read(array, 0, 10**9)) == file.layout.size
                assert array.given <= 2 * deepzoom.MOST_VOXELS
    run = at(folder, "xz").run  # type: ignore[union-attr]
    assert run is not None and run.count == 140_000 and run.name(139_999) == "y69999_files"


def test_levels_that_would_take_too_many_voxels_are_said_to_be_absent() -> None:
    image = huge((100, 70_000, 70_000), 2)
    folder = shown(image)
    zoom = DeepZoom(folder, "xy/z00050")
    levels = set(entries(at(folder, "xy/z00050_files")))  # type: ignore[arg-type]
    assert zoom.absent and levels == {str(n) for n in range(18) if n not in zoom.absent}
    assert 16 not in zoom.absent and 12 not in zoom.absent and 9 in zoom.absent
    # No image of more than 2^28 pixels a side: OpenSeadragon would ask for other levels than there are.
    assert set(entries(shown(huge((4, 4, 2**28 + 1), 1)))) == {"yz"}


@st.composite
def sampled(draw: st.DrawFn) -> tuple[np.ndarray, samples.Sampled, np.ndarray]:
    ndim = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 9)) for _ in range(ndim))
    voxels = noise(shape, draw(st.sampled_from(["u1", "u2", "bool"])))
    start = tuple(draw(st.integers(0, n - 1)) for n in shape)
    steps = tuple(draw(st.integers(1, 4)) for _ in shape)
    counts = tuple(draw(st.integers(1, -(-(n - a) // k) + 1)) for n, a, k in zip(shape, start, steps, strict=True))
    order = tuple(draw(st.permutations(range(ndim))))
    packed = voxels.dtype.kind == "b"
    extent = samples.Sampled(Box(start, shape), steps, counts, order, voxels.dtype.newbyteorder(">"), packed)
    places = [np.minimum(a + np.arange(c) * k, n - 1) for a, c, k, n in zip(start, counts, steps, shape, strict=True)]
    picked = voxels[np.ix_(*places)].transpose(order)
    return voxels, extent, np.packbits(picked, axis=-1) if packed else picked.astype(extent.dtype)


@given(sampled(), st.data())
def test_any_range_of_every_nth_voxel_reads(
    made: tuple[np.ndarray, samples.Sampled, np.ndarray], data: st.DataObject
) -> None:
    voxels, extent, picked = made
    source = MemoryArray(array_meta(voxels.shape, voxels.dtype, voxels.shape), voxels)
    layout, expected = Layout(extent), picked.tobytes()
    a = data.draw(st.integers(0, len(expected)))
    b = data.draw(st.integers(a, len(expected)))
    assert layout.size == len(expected) and layout.read(source, 0, layout.size) == expected
    assert layout.read(source, a, b - a) == expected[a:b] and not layout.writable
