"""Slice files: their names, which way up they are, and other people's libraries reading them."""

from __future__ import annotations

import io
import itertools

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.kits.example_counts import examples
from tests.kits.view_layouts import InMemory
from volfs.testing.volumes import noise
from volfs.views import png, slices, tiff
from volfs.views.plane import PlaneSpec
from volfs.views.slices import SliceGeometry

DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8", "c16"]


def judged(ending: str, data: bytes, plane: PlaneSpec) -> np.ndarray:
    """What somebody else's library sees in a slice file."""
    if ending == ".npy":
        return np.load(io.BytesIO(data), allow_pickle=False)
    if ending == ".tif":
        return tifffile.imread(io.BytesIO(data))
    if plane.dtype == np.uint16 and plane.samples > 1:  # Pillow reduces these to 8 bits
        return imagecodecs.png_decode(data)
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_plane_of_every_dtype_is_what_numpy_slices(dtype: str) -> None:
    array = noise((2, 3, 5, 7, 11), dtype)
    geometry = SliceGeometry.of("tczyx", array.shape, array.dtype, scale=(1, 1, 4, 2, 1))
    assert geometry is not None
    source = InMemory(array)
    for (t, c), plane, ending in itertools.product([(0, 0), (1, 2)], geometry.planes, slices.ENDINGS):
        for index in (0, geometry.count(plane) - 1):
            spec = geometry.spec(plane, index, (t, c))
            layout = slices.layout(ending, spec)
            if layout is None:
                assert ending == ".png" and array.dtype.str[1:] not in ("b1", "u1", "u2")
                continue
            data = layout.read(source, 0, 10**9)
            assert len(data) == layout.size
            volume = array[t, c]
            truth = np.take(volume, index, axis={"xy": 0, "xz": 1, "yz": 2}[plane])
            seen = judged(ending, data, spec)
            assert seen.dtype == truth.dtype
            np.testing.assert_array_equal(seen, truth)
            np.testing.assert_array_equal(slices.decode(ending, data, spec), array[spec.box.slices()])


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("samples", [2, 3, 4])
def test_the_samples_of_colour_images_lie_side_by_side(dtype: str, samples: int) -> None:
    array = noise((samples, 4, 9, 13), dtype)
    geometry = SliceGeometry.of("czyx", array.shape, array.dtype, rgb=True)
    assert geometry is not None and not geometry.others and geometry.samples == samples
    for plane, ending in itertools.product(geometry.planes, slices.ENDINGS):
        spec = geometry.spec(plane, 2)
        layout = slices.layout(ending, spec)
        if layout is None:
            assert ending == ".png" and dtype == "f4"
            continue
        data = layout.read(InMemory(array), 0, 10**9)
        assert len(data) == layout.size
        truth = np.moveaxis({"xy": array[:, 2], "xz": array[:, :, 2], "yz": array[..., 2]}[plane], 0, -1)
        np.testing.assert_array_equal(judged(ending, data, spec), truth)
        np.testing.assert_array_equal(slices.decode(ending, data, spec), array[spec.box.slices()])


@given(
    st.sampled_from(DTYPES),
    st.tuples(*[st.integers(1, 40)] * 3),
    st.sampled_from(slices.PLANES),
    st.sampled_from(slices.ENDINGS),
    st.data(),
)
@settings(max_examples=examples(80))
def test_any_range_of_a_slice_equals_the_whole(
    dtype: str, shape: tuple[int, int, int], plane: str, ending: str, data: st.DataObject
) -> None:
    array = noise(shape, dtype)
    geometry = SliceGeometry.of("zyx", shape, array.dtype, scale=(30.0, 4.0, 4.5), units=("nanometer",) * 3)
    assert geometry is not None
    spec = geometry.spec(plane, data.draw(st.integers(0, geometry.count(plane) - 1)))
    if ending == ".png" and slices.layout(ending, spec) is not None:
        layout = png.layout(spec, idat_limit=data.draw(st.integers(1, 200)))
    else:
        made = slices.layout(ending, spec)
        if made is None:
            return
        layout = made
    source = InMemory(array)
    whole = layout.read(source, 0, layout.size)
    assert len(whole) == layout.size
    for _ in range(5):
        a = data.draw(st.integers(0, layout.size))
        b = data.draw(st.integers(a, layout.size))
        assert layout.read(source, a, b - a) == whole[a:b]
    np.testing.assert_array_equal(slices.decode(ending, whole, spec), array[spec.box.slices()])


def test_names_are_padded_and_only_exact_names_are_names() -> None:
    geometry = SliceGeometry.of(["t", "c", "z", "y", "x"], (20, 3, 100_001, 8, 9), np.dtype("u2"))
    assert geometry is not None
    t, c = geometry.others
    assert (t.name(3), c.name(1)) == ("t0003", "c01")
    assert (t.parse("t0003"), t.parse("t003"), t.parse("t0020"), t.parse("c0003")) == (3, None, None, None)
    assert geometry.name("xy", 12) == "z000012.png"
    assert geometry.name("xz", 7) == "y00007.png"
    assert geometry.name("yz", 8, ".tif") == "x00008.tif"
    assert geometry.parse("xy", "z000012.png") == (12, ".png")
    assert geometry.parse("xz", "y00007.iso.png") == (7, ".iso.png")
    for wrong in ("z12.png", "z000012", "y000012.png", "z100001.png", "z00001\uff12.png", "z-00012.png", "Z000012.png"):
        assert geometry.parse("xy", wrong) is None


def test_two_dimensional_images_have_one_slice_and_arrays_without_axis_names_have_three_planes() -> None:
    flat = SliceGeometry.of(["y", "x"], (8, 9), np.dtype("u2"))
    assert flat is not None and flat.planes == ("xy",) and flat.count("xy") == 1
    assert flat.name("xy", 0) == "z00000.png" and flat.spec("xy", 0).shape == (8, 9)
    plain = SliceGeometry.of([None] * 4, (2, 3, 4, 5), np.dtype("u2"))
    assert plain is not None and plain.planes == slices.PLANES
    assert [other.name(1) for other in plain.others] == ["d0_01"]
    odd = SliceGeometry.of(["../t", "z", "y", "x"], (2, 3, 4, 5), np.dtype("u2"))
    assert odd is not None and odd.others[0].name(1) == "d0_01"
    assert SliceGeometry.of(["x"], (5,), np.dtype("u2")) is None
    assert SliceGeometry.of(["y", "x"], (0, 5), np.dtype("u2")) is None
    assert SliceGeometry.of(["y", "x"], (4, 5), np.dtype("U3")) is None


def test_axes_are_found_by_name_wherever_they_stand() -> None:
    array = noise((4, 5, 6, 2), "u1")
    geometry = SliceGeometry.of(["x", "y", "z", "c"], array.shape, array.dtype)
    assert geometry is not None
    spec = geometry.spec("yz", 3, (1,))
    layout = slices.layout(".png", spec)
    assert layout is not None
    seen = judged(".png", layout.read(InMemory(array), 0, 10**9), spec)
    np.testing.assert_array_equal(seen, array[3, :, :, 1].T)


def test_listed_format_is_png_where_an_exact_one_exists() -> None:
    for dtype, shape, ending in [
        ("u1", (3, 4, 5), ".png"),
        ("?", (3, 4, 5), ".png"),
        ("i2", (3, 4, 5), ".tif"),
        ("f4", (3, 4, 5), ".tif"),
        ("u2", (3, 4, 1_000_001), ".tif"),
        ("V5", (3, 4, 5), ".npy"),
    ]:
        geometry = SliceGeometry.of("zyx", shape, np.dtype(dtype))
        assert geometry is not None and geometry.listed_ending("xy") == ending, dtype


def test_pixel_sizes_are_in_the_files() -> None:
    geometry = SliceGeometry.of("zyx", (3, 4, 5), np.dtype("u1"), scale=(40, 5, 4), units=("nanometer",) * 3)
    assert geometry is not None
    source = InMemory(np.zeros((3, 4, 5), np.uint8))
    for plane, (across, down) in {"xy": (4e-9, 5e-9), "xz": (4e-9, 40e-9), "yz": (5e-9, 40e-9)}.items():
        spec = geometry.spec(plane, 0)
        dots = Image.open(io.BytesIO(png.layout(spec).read(source, 0, 10**6))).info["dpi"]
        assert dots == pytest.approx((0.0254 / across, 0.0254 / down))
        with tifffile.TiffFile(io.BytesIO(tiff.layout(spec).read(source, 0, 10**6))) as file:
            page = file.pages.first
            assert page.resolutionunit == tifffile.RESUNIT.CENTIMETER
            assert page.resolution == pytest.approx((0.01 / across, 0.01 / down))
    bare = SliceGeometry.of("zyx", (3, 4, 5), np.dtype("u1"), scale=(40, 4, 4))
    assert bare is not None
    picture = Image.open(io.BytesIO(png.layout(bare.spec("xz", 0)).read(source, 0, 10**6)))
    assert picture.info["aspect"] == (1_000_000, 100_000)


@pytest.mark.parametrize("size", [1e-12, 3.3e-10, 1e-6, 0.7, 3.0, 1e9])
def test_absurd_pixel_sizes_do_not_break_a_file(size: float) -> None:
    geometry = SliceGeometry.of("zyx", (3, 4, 5), np.dtype("u1"), scale=(size, size, 2 * size), units=("meter",) * 3)
    assert geometry is not None
    array = noise((3, 4, 5), "u1")
    for ending in (".png", ".tif"):
        spec = geometry.spec("xz", 1)
        layout = slices.layout(ending, spec)
        assert layout is not None
        np.testing.assert_array_equal(judged(ending, layout.read(InMemory(array), 0, 10**6), spec), array[:, 1])


def test_a_slice_of_four_gibibytes_is_a_bigtiff_and_its_ends_read_without_the_rest() -> None:
    side = 46_341  # two bytes a voxel: just past 4 GiB
    geometry = SliceGeometry.of("yx", (side, side), np.dtype("i2"), scale=(2, 5), units=("micrometer",) * 2)
    assert geometry is not None
    source = InMemory(np.broadcast_to(np.int16(-3), (side, side)))
    layout = slices.layout(".tif", geometry.spec("xy", 0))
    assert layout is not None and layout.size > 4 << 30
    head = layout.read(source, 0, 4096)
    assert head[:4] == b"II\x2b\x00"
    assert layout.read(source, layout.size - 4, 100) == b"\xfd\xff\xfd\xff"
    with tifffile.TiffFile(io.BytesIO(head)) as file:
        page = file.pages.first
        assert page.shape == (side, side) and page.databytecounts[0] == side * side * 2
        assert page.resolution == pytest.approx((2_000, 5_000))
        assert page.dataoffsets[0] + page.databytecounts[0] == layout.size


def test_a_png_past_a_gibibyte_has_several_idats_and_an_exact_size() -> None:
    shape = (60_000, 20_000)
    geometry = SliceGeometry.of("yx", shape, np.dtype("u1"))
    assert geometry is not None
    layout = slices.layout(".png", geometry.spec("xy", 0))
    assert layout is not None
    source = InMemory(np.broadcast_to(np.uint8(5), shape))
    first = layout.read(source, 0, 64)
    length = int.from_bytes(first[33:37], "big")
    assert first[37:41] == b"IDAT" and length == 1 << 30
    second = layout.read(source, 33 + 8 + length + 4, 8)
    assert second[4:] == b"IDAT" and 33 + 2 * 12 + length + int.from_bytes(second[:4], "big") + 12 == layout.size
