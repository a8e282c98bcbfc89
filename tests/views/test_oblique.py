"""Planes at any angle, by name: where their pixels lie, what they show, and what a range of them costs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from tests.kits.view_layouts import InMemory, level
from volfs.errors import Unsupported
from volfs.model.box import Box
from volfs.views import jpeg, oblique_planes
from volfs.views.interpolation import Resampled
from volfs.views.layout import placed
from volfs.views.volumes.volume_spec import LevelMeta

Point = tuple[float, float, float]
ARRAY = np.random.default_rng(6).integers(0, 200, (9, 20, 30))
SIZES = np.array([40.0, 4.5, 4.0])


def named(points: list[Point], size: float, ending: str = ".npy", before: str = "") -> str:
    return before + "__".join([*(f"x{x}_y{y}_z{z}" for x, y, z in points), f"p{size}"]) + ending


def opened(image: LevelMeta, name: str) -> Resampled:
    file = oblique_planes.open_name(image, name)
    assert file is not None, name
    return file


def loaded(file: Resampled, array: np.ndarray) -> np.ndarray:
    assert file.layout is not None
    data = file.layout.read(file.wrap(InMemory(array)), 0, file.layout.size + 1)
    assert len(data) == file.layout.size
    picture: np.ndarray = np.load(io.BytesIO(data))
    return picture


def places(points: list[Point], size: float, origin: Any = 0.0) -> np.ndarray:
    """The positions of all pixels, in voxels (z, y, x), by the book."""
    top_left, top_right, bottom_left = (np.array(p[::-1]) for p in points)
    axes = []
    for end in (bottom_left, top_right):
        length = np.linalg.norm(end - top_left)
        steps = np.arange(int(length / size + 1e-6) + 1) * size / length
        axes.append(steps[:, None] * (end - top_left))
    made = top_left + axes[0][:, None] + axes[1][None]
    return np.moveaxis((made - origin) / SIZES, -1, 0)


def by_scipy(array: np.ndarray, positions: np.ndarray, order: int) -> np.ndarray:
    picture = ndimage.map_coordinates(array.astype(np.float64), positions, order=order, mode="nearest")
    limits = np.array(array.shape)[:, None, None]
    picture[((positions < -0.5) | (positions >= limits - 0.5)).any(axis=0)] = 0
    return picture


SLANTED: list[Point] = [(3.3, 2.0, 17.0), (101.0, 40.7, 30.5), (20.5, 61.25, 300.0)]
BEYOND: list[Point] = [(-40.0, -20.0, -30.5), (160.0, 30.0, 100.0), (-30.0, 110.0, 400.0)]


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4", "f8", "u8", "i8"])
@pytest.mark.parametrize("points", [SLANTED, BEYOND])
def test_an_oblique_plane_of_intensities_is_what_scipy_interpolates(dtype: str, points: list[Point]) -> None:
    array = (ARRAY - (100 if dtype == "i2" else 0)).astype(dtype)
    picture = loaded(opened(level("zyx", array.shape, dtype), named(points, 3.7)), array)
    right = by_scipy(array, places(points, 3.7), 1)
    assert picture.shape == right.shape and picture.dtype == array.dtype
    if array.dtype.kind == "f":
        assert np.allclose(picture, right, rtol=1e-6, atol=1e-4)
    else:  # halves may be rounded to either side by the last bit
        assert np.abs(picture - right).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("dtype", ["u4", "u8", "?"])
def test_an_oblique_plane_of_labels_has_nearest_voxels(dtype: str) -> None:
    array = (ARRAY % 2 if dtype == "?" else ARRAY * (2**50 if dtype == "u8" else 1)).astype(dtype)
    image = level("zyx", array.shape, dtype, is_label=dtype != "?")
    positions = places(BEYOND, 3.7)
    picture = loaded(opened(image, named(BEYOND, 3.7)), array)
    assert picture.dtype == array.dtype
    assert np.array_equal(picture.astype(np.float64), by_scipy(array, positions, 0))


def test_a_plane_along_the_axes_has_the_voxels_of_a_slice() -> None:
    array = ARRAY.astype("f4")
    array[4, 5, 6] = np.nan  # nor do neighbours spoil them
    image = level("zyx", array.shape, "f4")
    flat = loaded(opened(image, named([(0, 18, 0), (116, 18, 0), (0, 18, 320)], 40)), array)
    assert np.array_equal(flat, array[:, 4, ::10], equal_nan=True)
    row = loaded(opened(image, named([(0, 0, 160), (116, 0, 160), (0, 85.5, 160)], 4, ".npy")), array)
    assert row.shape == (22, 30) and np.array_equal(row[0], array[4, 0]) and np.array_equal(row[9], array[4, 8])
    mirrored = loaded(opened(image, named([(116, 0, 160), (0, 0, 160), (116, 85.5, 160)], 4, ".npy")), array)
    assert np.array_equal(mirrored, row[:, ::-1], equal_nan=True)


def test_thirds_have_all_their_pixels() -> None:
    image = level("zyx", ARRAY.shape)
    assert opened(image, named([(0, 0, 0), (1, 0, 0), (0, 0.3, 0)], 0.1)).plane.shape == (4, 11)


def test_every_level_shows_the_same_place_under_the_same_name() -> None:
    z, y, x = np.meshgrid(*(np.arange(n) for n in (9, 20, 30)), indexing="ij")
    fine = (10 * z + 3 * y + 2 * x).astype("f8")
    coarse = fine.reshape(9, 10, 2, 15, 2).mean((2, 4))
    points: list[Point] = [(10, 10, 40), (90, 12, 90), (20, 70, 200)]
    pictures = [
        loaded(opened(level("zyx", a.shape, "f8", coarser=by), named(points, 2.5)), a)
        for a, by in ((fine, (1, 1, 1)), (coarse, (1, 2, 2)))
    ]
    assert np.allclose(*pictures)


def test_axes_besides_those_of_space_are_named_first() -> None:
    array = np.random.default_rng(6).integers(0, 200, (3, 2, 9, 20, 30)).astype("u2")
    image = level("tczyx", array.shape)
    file = opened(image, named(SLANTED, 3.7, before="t2_c1__"))
    assert file.others == (2, 1) and file.box.start[:2] == (2, 1) and file.box.stop[:2] == (3, 2)
    alone = level("zyx", array.shape[2:])
    assert np.array_equal(loaded(file, array), loaded(opened(alone, named(SLANTED, 3.7)), array[2, 1]))
    for before in ("", "t2__", "c1__", "c1_t2__", "t3_c1__", "t2_c1_", "__", "t02_c1__", "_t2_c1__"):
        assert oblique_planes.open_name(image, named(SLANTED, 3.7, before=before)) is None
    single = level("tczyx", (3, 1, 9, 20, 30))
    assert opened(single, named(SLANTED, 3.7, before="t2__")).others == (2, 0)
    assert opened(single, named(SLANTED, 3.7, before="t2_c0__")).others == (2, 0)


def test_colour_pictures_keep_their_samples_and_axes_may_lie_in_any_order() -> None:
    array = np.random.default_rng(6).integers(0, 200, (30, 20, 9, 3)).astype("u1")
    image = level("xyzc", array.shape, "u1", rgb=True)
    file = opened(image, named(SLANTED, 3.7, ".png"))
    assert file.layout is not None
    source = file.wrap(InMemory(array))
    picture = np.asarray(Image.open(io.BytesIO(file.layout.read(source, 0, file.layout.size))))
    for sample in range(3):
        right = by_scipy(array[..., sample].transpose(2, 1, 0), places(SLANTED, 3.7), 1)
        assert np.abs(picture[..., sample] - right).max() <= 0.5 + 1e-6
    assert np.array_equal(source.read(Box((3, 4, 1), (9, 8, 2))), picture[3:9, 4:8, 1:2])


def test_tiff_and_png_say_the_pixel_size_and_have_the_same_pixels() -> None:
    array = ARRAY.astype("u2")
    image = level("zyx", array.shape)
    picture = loaded(opened(image, named(SLANTED, 4)), array)
    for ending in (".tif", ".png"):
        file = opened(image, named(SLANTED, 4, ending))
        assert file.layout is not None
        data = io.BytesIO(file.layout.read(file.wrap(InMemory(array)), 0, file.layout.size))
        shown = tifffile.imread(data) if ending == ".tif" else np.asarray(Image.open(data))
        assert np.array_equal(shown, picture)
        if ending == ".tif":
            data.seek(0)
            with tifffile.TiffFile(data) as tiff:
                across, per = tiff.pages.first.tags["XResolution"].value
                assert abs(across / per * 4e-7 - 1) < 1e-3  # 4 nm in cm
    preview = opened(image, named(SLANTED, 4, ".jpg"))
    assert preview.layout is None
    rendered = jpeg.render(preview.wrap(InMemory(array)), preview.plane, (0, 200))
    assert Image.open(io.BytesIO(rendered)).size == picture.shape[::-1]


GOOD = "x0_y0_z0__x100_y0_z0__x0_y80_z50__p4"


@pytest.mark.parametrize(
    "name",
    [
        "x0_y0_z0__x100_y0_z0__x0_y80_z50__p4.gif",
        "x0_y0_z0__x100_y0_z0__x0_y80_z50__p4",
        "x0_y0_z0__x100_y0_z0__x0_y80_z50.png",
        "x0_y0_z0__x100_y0_z0__x0_y80_z50__p0.png",
        "x0_y0_z0__x100_y0_z0__x0_y80_z50__p-4.png",
        "x0_y0_z0__x100_y0_z0__x0_y80__p4.png",
        "x0_y0_z0_x100_y0_z0_x0_y80_z50_p4.png",
        "z0_y0_x0__x100_y0_z0__x0_y80_z50__p4.png",
        "x00_y0_z0__x100_y0_z0__x0_y80_z50__p4.png",
        "x0._y0_z0__x100_y0_z0__x0_y80_z50__p4.png",
        "x.5_y0_z0__x100_y0_z0__x0_y80_z50__p4.png",
        "x+1_y0_z0__x100_y0_z0__x0_y80_z50__p4.png",
        "x1e1_y0_z0__x100_y0_z0__x0_y80_z50__p4.png",
        "x0_y0_z0__x0_y0_z0__x0_y80_z50__p4.png",  # a point twice
        "x0_y0_z0__x100_y0_z0__x50_y0_z0__p4.png",  # three in a line
        "x0_y0_z0__x100_y0_z0__x-50_y0_z0__p4.png",
        "x0_y0_z0__x100_y0_z0__x0_y80_z50__p0.003.png",  # too many pixels
        "x0_y0_z0__x99999999999999_y0_z0__x0_y80_z50__p1.png",
        "x0_y0_z0__x999999999999_y0_z0__x0_y999999999999_z50__p9999999999.png",
        "x0_y0_z9000__x100_y0_z9000__x0_y80_z9000__p4.png",  # nowhere near
        "X0_y0_z0__x100_y0_z0__x0_y80_z50__p4.png",
        GOOD + ".png" + "x" * 300,
        f"x0.{'0' * 200}_y0_z0__x100_y0_z0__x0_y80_z50__p4.png",
    ],
)
def test_other_names_are_not_there(name: str) -> None:
    image = level("zyx", (9, 20, 30))
    assert oblique_planes.open_name(image, GOOD + ".png") is not None
    assert oblique_planes.open_name(image, name) is None


def test_where_nothing_is_known_there_is_none_and_voxels_do_for_units() -> None:
    assert oblique_planes.open_name(level("yx", (20, 30)), GOOD + ".png") is None
    plain = level("abc", (9, 20, 30), "u1")  # voxels of size one, no unit
    file = opened(plain, "x0_y0_z4__x29_y0_z4__x0_y19_z4__p1.npy")
    assert not file.plane.metric and np.array_equal(loaded(file, ARRAY.astype("u1")), ARRAY[4])


def test_the_readme_has_a_name_that_opens() -> None:
    for image in (level("zyx", (9, 20, 30)), level("tczyx", (3, 2, 9, 20, 30)), level("xyzw", (9, 20, 30, 5))):
        example = next(line.strip() for line in oblique_planes.readme(image).splitlines() if line.startswith("    "))
        assert oblique_planes.open_name(image, example) is not None or ".png" in example
        assert oblique_planes.open_name(image, example.replace(".png", ".tif")) is not None


def test_it_cannot_be_written() -> None:
    file = opened(level("zyx", ARRAY.shape), GOOD + ".npy")
    assert file.layout is not None
    with pytest.raises(Unsupported):
        file.layout.write(file.wrap(InMemory(ARRAY.astype("u2"))), file.layout.size - 4, b"abcd")


coordinates = st.integers(-400, 400).map(lambda n: n / 4)


@given(
    st.lists(st.tuples(coordinates, coordinates, coordinates), min_size=3, max_size=3),
    st.sampled_from([1.5, 4.0, 11.0]),
    st.booleans(),
    st.data(),
)
def test_any_range_of_bytes_and_any_box_of_pixels_equal_the_whole(
    points: list[Point], size: float, is_label: bool, data: st.DataObject
) -> None:
    array = ARRAY.astype("u2")
    image = level("zyx", array.shape, is_label=is_label)
    file = oblique_planes.open_name(image, named(points, size))
    if file is None:
        return
    assert file.layout is not None
    source, picture = file.wrap(InMemory(array)), loaded(file, array)
    everything = file.layout.read(source, 0, file.layout.size)
    start = tuple(data.draw(st.integers(0, n - 1)) for n in picture.shape)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, picture.shape, strict=True))
    assert np.array_equal(source.read(Box(start, stop)), picture[start[0] : stop[0], start[1] : stop[1]])
    a = data.draw(st.integers(0, len(everything)))
    b = data.draw(st.integers(a, len(everything)))
    assert file.layout.read(source, a, b - a) == everything[a:b]
    right = by_scipy(array, places(points, size), 0 if is_label else 1)
    agree = np.abs(picture - right) <= 0.5 + 1e-6
    assert agree.mean() > 0.8, "ties and the volume's faces may fall to either side, nothing else"


class Watched(InMemory):
    """Keeps the boxes that were read, and makes voxels up."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(np.broadcast_to(np.uint8(0), shape))
        self.boxes: list[Box] = []

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        self.boxes.append(box)
        assert Box.whole(self.shape).contains(box)
        z, y, x = np.ogrid[box.slices()]
        return placed(((z + y + x) % 251).astype(np.uint8), out)


def test_a_plane_through_ten_terabytes_reads_small_boxes_near_its_pixels() -> None:
    shape = (20_000, 22_000, 23_000)
    image = level("zyx", shape, "u1")
    ends = [(s * (n - 1)) for s, n in zip((4.0, 4.5, 40.0), shape[::-1], strict=True)]
    points: list[Point] = [(0, 0, 0), (ends[0], ends[1], 0), (0, 0, ends[2])]
    file = opened(image, named(points, 40, ".tif"))
    assert file.layout is not None and file.layout.size > 20_000 * 3000
    source = Watched(shape)
    data = file.layout.read(file.wrap(source), file.layout.size // 2, 1 << 18)
    assert len(data) == 1 << 18 and len(set(data)) > 100
    assert max(box.size for box in source.boxes) <= 1 << 16
    assert file.box.start == (0, 0, 0) and all(0 <= b - a < 10 for a, b in zip(file.box.stop, shape, strict=True))
