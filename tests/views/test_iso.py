"""Slices with square pixels: how large they are, and what is between the voxels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from tests.kits.view_layouts import InMemory
from volfs.errors import Unsupported
from volfs.model.box import Box
from volfs.views import iso_slices, jpeg
from volfs.views.interpolation import Resampled
from volfs.views.slices import SliceGeometry


def geometry_of(
    array: np.ndarray,
    names: str = "zyx",
    scale: Sequence[float] | None = (40, 4.5, 4),
    unit: str | None = "nanometer",
    *,
    rgb: bool = False,
) -> SliceGeometry:
    made = SliceGeometry.of(names, array.shape, array.dtype, scale=scale, units=[unit] * array.ndim, rgb=rgb)
    assert made is not None
    return made


def opened(geometry: SliceGeometry, plane: str, name: str, *, is_label: bool = False) -> Resampled | None:
    """As a directory of slices does it: ``name`` without others."""
    parsed = geometry.parse(plane, name)
    return iso_slices.open_ending(geometry, plane, *parsed[:1], (), parsed[1], is_label=is_label) if parsed else None


def whole(file: Resampled, array: np.ndarray) -> bytes:
    assert file.layout is not None
    data = file.layout.read(file.wrap(InMemory(array)), 0, file.layout.size + 1)
    assert len(data) == file.layout.size
    return data


def expected(picture: np.ndarray, rows: int, columns: int, sizes: tuple[float, float], order: int) -> np.ndarray:
    """scipy's opinion: centres of square pixels, from the common edge on."""
    finest = min(sizes)
    centres = [(np.arange(n) + 0.5) * finest / size - 0.5 for n, size in zip((rows, columns), sizes, strict=True)]
    grid = np.meshgrid(*centres, indexing="ij")
    return ndimage.map_coordinates(picture.astype(np.float64), grid, order=order, mode="nearest")


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4", "f8"])
@pytest.mark.parametrize(
    ("plane", "name", "sizes"),
    [("xz", "y00004", (40, 4)), ("yz", "x00011", (40, 4.5)), ("xy", "z00003", (4.5, 4))],
)
def test_a_slice_with_square_pixels_is_what_scipy_makes_of_it(
    dtype: str, plane: str, name: str, sizes: tuple[float, float]
) -> None:
    made = np.random.default_rng(4).integers(0, 120, (7, 9, 13))
    array = (made - (60 if dtype == "i2" else 0)).astype(dtype)
    geometry = geometry_of(array)
    flat = {"xz": array[:, 4], "yz": array[:, :, 11], "xy": array[3]}[plane]
    for ending in (".iso.npy", ".iso.tif"):
        file = opened(geometry, plane, name + ending)
        assert file is not None
        data = io.BytesIO(whole(file, array))
        picture = np.load(data) if ending == ".iso.npy" else tifffile.imread(data)
        finest = min(sizes)
        assert picture.shape == (round(flat.shape[0] * sizes[0] / finest), round(flat.shape[1] * sizes[1] / finest))
        right = expected(flat, *picture.shape, sizes, 1)
        assert picture.dtype == array.dtype
        if array.dtype.kind == "f":
            assert np.allclose(picture, right, rtol=1e-6)
        else:  # halves may be rounded to either side by the last bit
            assert np.abs(picture - right).max() <= 0.5 + 1e-9


def test_pixel_sizes_are_told() -> None:
    array = np.zeros((7, 9, 13), np.uint8)
    file = opened(geometry_of(array), "xz", "y00004.iso.tif")
    assert file is not None
    with tifffile.TiffFile(io.BytesIO(whole(file, array))) as tiff:
        tags = tiff.pages.first.tags
        for name in ("XResolution", "YResolution"):
            assert abs(Fraction(*tags[name].value) * Fraction(4e-7) - 1) < Fraction(1, 1000)  # 4 nm in cm
    png = opened(geometry_of(array), "xz", "y00004.iso.png")
    assert png is not None
    picture = Image.open(io.BytesIO(whole(png, array)))
    assert picture.size == (13, 70)


@pytest.mark.parametrize("dtype", ["u4", "u8", "i8", "?"])
def test_labels_are_never_mixed(dtype: str) -> None:
    array = (np.random.default_rng(2).integers(0, 2**62, (5, 6, 7)) % (2 if dtype == "?" else 2**62)).astype(dtype)
    file = opened(geometry_of(array, scale=(12, 4, 4)), "xz", "y00002.iso.npy", is_label=dtype != "?")
    assert file is not None
    assert np.array_equal(np.load(io.BytesIO(whole(file, array))), np.repeat(array[:, 2], 3, axis=0))


def test_neither_64_bit_integers_nor_what_is_not_a_number_spoil_their_neighbours() -> None:
    array = np.full((3, 4, 5), 2**64 - 1, np.uint64)
    array[1] = 2**63 + 1
    file = opened(geometry_of(array, scale=(3, 1, 1)), "xz", "y00000.iso.npy")
    assert file is not None
    picture = np.load(io.BytesIO(whole(file, array)))
    assert (picture[[0, 1, 7, 8]] == 2**64 - 1).all() and (picture[4] == 2**63 + 1).all()
    assert abs(int(picture[2, 0]) - (2 * (2**64 - 1) + 2**63 + 1) // 3) <= 2**10  # as exact as a position
    broken = np.ones((3, 4, 5), np.float32)
    broken[1, :, 2] = np.nan
    broken[2, :, 3] = np.inf
    file = opened(geometry_of(broken, scale=(3, 1, 1)), "xz", "y00000.iso.npy")
    assert file is not None
    picture = np.load(io.BytesIO(whole(file, broken)))
    assert np.isnan(picture[2:7, 2]).all() and np.isfinite(picture[[0, 1, 7, 8], 2]).all()
    assert np.isinf(picture[5:, 3]).all() and (picture[:5, 3] == 1).all()


def test_there_is_none_where_pixels_are_square_or_nobody_knows() -> None:
    array = np.zeros((5, 6, 7), np.uint8)
    same = geometry_of(array, scale=(40, 4, 4))
    assert opened(same, "xy", "z00001.iso.png") is None and opened(same, "xz", "y00001.iso.png") is not None
    assert opened(geometry_of(array, scale=None), "xz", "y00001.iso.png") is None
    assert opened(geometry_of(array, scale=(0, 1, 1)), "xz", "y00001.iso.png") is None
    assert opened(geometry_of(array, scale=(1e12, 1, 1)), "xz", "y00001.iso.png") is None
    assert opened(geometry_of(array, scale=(4.0001, 4, 4)), "xz", "y00001.iso.png") is None
    for name in ("y00001.png", "y00001.iso", "y00001.iso.gif", "y00001.iso.iso.png", "y00006.iso.png", "y00001iso.png"):
        assert opened(same, "xz", name) is None
    ratios = geometry_of(array, scale=(3, 1, 1), unit=None)
    file = opened(ratios, "xz", "y00001.iso.tif")
    assert file is not None and file.plane.shape == (15, 7) and not file.plane.metric


def test_units_may_differ() -> None:
    array = np.zeros((5, 6, 7), np.uint8)
    units = ["micrometer", "nanometer", "nanometer"]
    geometry = SliceGeometry.of("zyx", array.shape, array.dtype, scale=(0.02, 4, 4), units=units)
    assert geometry is not None
    file = opened(geometry, "xz", "y00001.iso.tif")
    assert file is not None and file.plane.shape == (25, 7)


def test_colour_pictures_and_other_axes() -> None:
    array = np.random.default_rng(8).integers(0, 255, (2, 4, 5, 6, 3)).astype("u1")
    geometry = geometry_of(array, "tzyxc", (1, 8, 4, 4, 1), rgb=True)
    file = iso_slices.open_ending(geometry, "xz", 3, (1,), ".iso.png")
    assert file is not None and file.box == Box((1, 0, 3, 0, 0), (2, 4, 4, 6, 3)) and file.others == (1,)
    picture = np.asarray(Image.open(io.BytesIO(whole(file, array))))
    assert picture.shape == (8, 6, 3)
    for sample in range(3):
        right = expected(array[1, :, 3, :, sample], 8, 6, (8, 4), 1)
        assert np.abs(picture[..., sample] - right).max() <= 0.5 + 1e-9


def test_a_preview_is_rendered_from_it() -> None:
    array = np.random.default_rng(8).integers(0, 4000, (20, 8, 60)).astype("u2")
    file = opened(geometry_of(array, scale=(40, 4, 4)), "xz", "y00003.iso.jpg")
    assert file is not None and file.layout is None
    data = jpeg.render(file.wrap(InMemory(array)), file.plane, (0, 4000))
    assert Image.open(io.BytesIO(data)).size == (60, 200)


def test_it_cannot_be_written() -> None:
    array = np.zeros((5, 6, 7), np.uint8)
    file = opened(geometry_of(array), "xz", "y00003.iso.npy")
    assert file is not None and file.layout is not None
    with pytest.raises(Unsupported):
        file.layout.write(file.wrap(InMemory(array)), file.layout.size - 4, b"abcd")


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.sampled_from([1.0, 1.5, 2.0, 7.3, 40.0])] * 3),
    st.sampled_from(["xz", "yz", "xy"]),
    st.booleans(),
    st.data(),
)
def test_any_range_of_bytes_and_any_box_of_pixels_equal_the_whole(
    shape: tuple[int, int, int], scale: tuple[float, float, float], plane: str, is_label: bool, data: st.DataObject
) -> None:
    array = np.random.default_rng(1).integers(0, 60_000, shape).astype("u2")
    geometry = geometry_of(array, scale=scale)
    file = opened(geometry, plane, geometry.name(plane, 0, ".iso.npy"), is_label=is_label)
    if file is None:
        down, across = (scale[{"z": 0, "y": 1, "x": 2}[axis]] for axis in {"xz": "zx", "yz": "zy", "xy": "yx"}[plane])
        assert down == across
        return
    assert file.layout is not None
    everything, source = whole(file, array), file.wrap(InMemory(array))
    picture = np.load(io.BytesIO(everything))
    start = tuple(data.draw(st.integers(0, n - 1)) for n in picture.shape)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, picture.shape, strict=True))
    assert np.array_equal(source.read(Box(start, stop)), picture[start[0] : stop[0], start[1] : stop[1]])
    a = data.draw(st.integers(0, len(everything)))
    b = data.draw(st.integers(a, len(everything)))
    assert file.layout.read(source, a, b - a) == everything[a:b]


def test_a_range_of_a_huge_slice_reads_only_what_it_shows() -> None:
    source = InMemory(np.broadcast_to(np.uint16(9), (20_000, 10, 100_000)))
    file = opened(geometry_of(source.array, scale=(40, 4, 4)), "xz", "y00003.iso.tif")
    assert file is not None and file.layout is not None and file.layout.size > 100_000 * 200_000 * 2
    piece = file.layout.read(file.wrap(source), file.layout.size // 2, 1 << 20)
    assert np.frombuffer(piece, "<u2").tolist().count(9) >= (1 << 19) - 1
    assert source.given < 2_000_000
