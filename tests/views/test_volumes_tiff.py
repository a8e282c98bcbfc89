"""TIFF volumes, judged by tifffile, Pillow, libvips and libtiff; ImageJ has tests of its own (``tests/judges``)."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import ome_types
import pytest
import pyvips
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.kits.view_layouts import InMemory
from tests.kits.view_volumes import DTYPES, SHAPES, Numbered, head_of, layout_of, shown, spec_of
from volfs.errors import BadInput
from volfs.model.box import Box
from volfs.testing.volumes import noise
from volfs.views import volumes
from volfs.views.layout import Layout, Records
from volfs.views.volume import ShownAxis, VolumeSpec
from volfs.views.volumes.volume_spec import whole

LIMIT = (1 << 32) - 1


def of_file(array: np.ndarray) -> np.ndarray:
    return array.astype(np.uint8) if array.dtype == bool else array


def in_pages(array: np.ndarray, names: str) -> np.ndarray:
    """With axes t, z, c before the rest, in this order."""
    return array.transpose([names.index(name) for name in "tzcyxs" if name in names])


def endings(spec: VolumeSpec) -> set[str]:
    return {one.ending for one in volumes.listed(spec)} & {".tif", ".imagej.tif"}


def ome(path: Path) -> dict[str, Any]:
    with tifffile.TiffFile(path) as file:
        assert file.ome_metadata is not None
        found: dict[str, Any] = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
        return found


# -------------------------------------------------------------------------------------------------------- what is held


@pytest.mark.parametrize("names", SHAPES)
@pytest.mark.parametrize("dtype", [*DTYPES, "int8", "uint32", "int32", "int64", "float16", "complex64", "complex128"])
def test_tifffile_sees_every_voxel_and_axis(tmp_path: Path, names: str, dtype: str) -> None:
    array = noise(SHAPES[names], dtype)
    spec = spec_of(names, array.shape, dtype)
    assert endings(spec) == {".tif"}
    path = shown(tmp_path, ".tif", spec, array)
    expected = in_pages(of_file(array), names)
    with tifffile.TiffFile(path) as file:
        assert len(file.series) == 1 and not file.is_bigtiff
        found = file.series[0]
        assert found.kind == ("shaped" if dtype in ("uint64", "int64", "float16") else "ome")
        assert found.axes == "".join(name for name in "tzcyx" if name in names).upper()
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found.asarray(), expected)
        assert file.pages.first.dataoffsets[0] % 64 == 0
        for page in file.pages:
            assert page.shape == array.shape[-2:] and len(page.dataoffsets) == 1
    if dtype != "complex128":  # tifffile maps up to 64 bits
        np.testing.assert_array_equal(tifffile.memmap(path, mode="r"), expected)


@pytest.mark.parametrize(("names", "rgb"), [("yxs", 3), ("zyxs", 3), ("tzyxs", 4), ("tczyxs", 3), ("zyxs", 1)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_samples_lie_side_by_side(tmp_path: Path, names: str, rgb: int, dtype: str) -> None:
    sizes = {"t": 2, "c": 3, "z": 4, "y": 5, "x": 6, "s": rgb}
    array = noise(tuple(sizes[name] for name in names), dtype)
    path = shown(tmp_path, ".tif", spec_of(names, array.shape, dtype), array)
    with tifffile.TiffFile(path) as file:
        found = file.series[0]
        assert found.keyframe.photometric == (2 if rgb > 1 else 1) and found.keyframe.planarconfig == 1
        np.testing.assert_array_equal(found.asarray().reshape(-1), in_pages(array, names).reshape(-1))
        if rgb > 1:
            assert found.axes == "".join(name for name in "tzcyxs" if name in names).upper()
    pixels = ome(path)["Pixels"]
    assert pixels["SizeC"] == rgb * (3 if "c" in names else 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "bool"])
@pytest.mark.parametrize("names", SHAPES)
def test_pillow_sees_every_page(tmp_path: Path, names: str, dtype: str) -> None:
    array = noise(SHAPES[names], dtype)
    path = shown(tmp_path, ".tif", spec_of(names, array.shape, dtype), array)
    pages = in_pages(of_file(array), names).reshape(-1, *array.shape[-2:])
    with Image.open(path) as picture:
        assert getattr(picture, "n_frames", 1) == len(pages)
        for index, plane in enumerate(pages):
            picture.seek(index)
            np.testing.assert_array_equal(np.asarray(picture), plane)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64", "uint64"])
def test_libtiff_sees_every_page(tmp_path: Path, dtype: str) -> None:
    array = noise((7, 13, 5), dtype)
    data = shown(tmp_path, ".tif", spec_of("zyx", array.shape, dtype), array).read_bytes()
    for index, plane in enumerate(array):
        np.testing.assert_array_equal(imagecodecs.tiff_decode(data, index=index), plane)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_libvips_sees_every_page_and_the_metadata(tmp_path: Path, dtype: str) -> None:
    array = noise((7, 13, 5), dtype)
    path = shown(tmp_path, ".tif", spec_of("zyx", array.shape, dtype), array)
    picture = pyvips.Image.new_from_file(str(path), n=-1)
    assert picture.get("n-pages") == 7
    np.testing.assert_array_equal(picture.numpy().reshape(array.shape), array)
    assert picture.get("image-description").endswith("</OME>")


def test_axes_that_a_stack_has_not_are_not_held() -> None:
    assert not endings(spec_of("azyx", (2, 3, 4, 5)))
    assert not endings(spec_of("tazyx", (2, 2, 3, 4, 5)))
    assert endings(spec_of("ctzyx", (2, 2, 3, 4, 5))) == {".tif"}
    assert not endings(spec_of("zyx", (3, 4, 5), "V3"))


def test_pages_are_in_the_order_of_imagej_whatever_the_order_of_axes(tmp_path: Path) -> None:
    array = noise((2, 3, 4, 5, 6), "uint16")
    path = shown(tmp_path, ".tif", spec_of("ctzyx", array.shape), array)
    np.testing.assert_array_equal(tifffile.imread(path), array.transpose(1, 2, 0, 3, 4))


def test_a_box_is_shown_without_what_lies_outside(tmp_path: Path) -> None:
    array = noise((3, 2, 5, 7, 11), "uint16")
    box = Box((1, 0, 1, 2, 3), (3, 2, 4, 7, 9))
    path = shown(tmp_path, ".tif", spec_of("tczyx", box.shape, box=box), array)
    np.testing.assert_array_equal(tifffile.imread(path), array[box.slices()].transpose(0, 2, 1, 3, 4))


# ------------------------------------------------------------------------------------------------------------ metadata


def test_physical_sizes_times_and_channels_are_told(tmp_path: Path) -> None:
    array = noise((3, 2, 5, 7, 11), "uint16")
    plain = spec_of("tczyx", array.shape, title='Zoë\'s <"cells"> & more\x01')
    named = VolumeSpec(plain.box, plain.dtype, plain.axes, title=plain.title, channels=("DAPI & <µ>", "GFP"))
    path = shown(tmp_path, ".tif", named, array)
    image = ome(path)
    assert image["Name"] == 'Zoë\'s <"cells"> & more'
    pixels = image["Pixels"]
    expected = {"X": 4.0, "Y": 4.5, "Z": 40.0}
    for letter, size in expected.items():
        assert pixels[f"PhysicalSize{letter}"] == size and pixels[f"PhysicalSize{letter}Unit"] == "nm"
    assert pixels["TimeIncrement"] == 0.5 and pixels["TimeIncrementUnit"] == "s"
    assert pixels["Type"] == "uint16" and pixels["DimensionOrder"] == "XYCZT" and pixels["BigEndian"] is False
    assert [channel["Name"] for channel in pixels["Channel"]] == ["DAPI & <µ>", "GFP"]
    with tifffile.TiffFile(path) as file:
        assert file.is_ome and file.is_imagej
        found = file.imagej_metadata
        assert found is not None
        assert found["images"] == 30 and (found["frames"], found["slices"], found["channels"]) == (3, 5, 2)
        assert found["hyperstack"] and found["mode"] == "composite"
        assert found["unit"] == "micron" and found["spacing"] == 0.04 and found["finterval"] == 0.5
        page = file.pages.first
        assert 1 / page.resolution[0] == pytest.approx(0.004, rel=1e-12)
        assert 1 / page.resolution[1] == pytest.approx(0.0045, rel=1e-12)
        assert page.tags["ImageDescription"].value.isascii()


@pytest.mark.parametrize("names", ["yx", "zyx", "tczyx", "zyxs", "tczyxs"])
@pytest.mark.parametrize("units", [True, False])
def test_the_xml_is_valid_by_omes_schema(tmp_path: Path, names: str, units: bool) -> None:
    sizes = {"t": 2, "c": 3, "z": 4, "y": 5, "x": 6, "s": 3}
    array = noise(tuple(sizes[name] for name in names), "uint8")
    plain = spec_of(names, array.shape, "uint8", units=units, title="<Zoë's & cells>")
    named = VolumeSpec(
        plain.box, plain.dtype, plain.axes, plain.has_samples, title=plain.title, channels=("a", '"b"', "µ<c>")
    )
    with tifffile.TiffFile(shown(tmp_path, ".tif", named, array)) as file:
        assert file.ome_metadata is not None
        ome_types.validate_xml(file.ome_metadata)
        told, pages = ome_types.from_xml(file.ome_metadata).images[0], len(file.pages)
    assert told.name == "<Zoë's & cells>" and told.pixels.tiff_data_blocks[0].plane_count == pages
    assert [channel.name for channel in told.pixels.channels] == (["a", '"b"', "µ<c>"] if "c" in names else [None])


def test_without_imagejs_description_pixels_are_told_per_centimetre(tmp_path: Path) -> None:
    array = noise((3, 5, 7), "float64")
    path = shown(tmp_path, ".tif", spec_of("zyx", array.shape, "float64"), array)
    with tifffile.TiffFile(path) as file:
        assert not file.is_imagej and file.pages.first.resolutionunit == 3
        for page in file.pages:
            assert 1 / page.get_resolution("micrometer")[0] == pytest.approx(0.004, rel=1e-9)
            assert 1 / page.get_resolution("micrometer")[1] == pytest.approx(0.0045, rel=1e-9)


def test_what_omes_types_do_not_cover_has_its_spacing_too(tmp_path: Path) -> None:
    array = noise((3, 5, 7), "uint64")
    path = shown(tmp_path, ".tif", spec_of("zyx", array.shape, "uint64"), array)
    with tifffile.TiffFile(path) as file:
        assert file.shaped_metadata == ({"shape": [3, 5, 7], "axes": "ZYX", "spacing": 0.04, "unit": "um"},)
        assert 1 / file.pages.first.get_resolution("micrometer")[0] == pytest.approx(0.004, rel=1e-9)


@pytest.mark.parametrize("scale", [5e-324, 1e-30, 1e-5, 1e30, 1e308])
def test_voxel_sizes_that_the_tags_cannot_say_are_in_the_xml_only(tmp_path: Path, scale: float) -> None:
    array = noise((3, 5, 7), "uint8")
    axes = tuple(
        ShownAxis(i, name, "space", n, scale, -1.0, "micrometer")
        for i, (name, n) in enumerate(zip("zyx", array.shape, strict=True))
    )
    path = shown(tmp_path, ".tif", VolumeSpec(Box.whole(array.shape), array.dtype, axes), array)
    assert ome(path)["Pixels"]["PhysicalSizeX"] == scale
    with tifffile.TiffFile(path) as file:
        assert file.imagej_metadata is not None
        told = "unit" in file.imagej_metadata
        assert told == (scale == 1e-5) and (told or file.pages.first.resolution == (1, 1))


def test_many_channels_are_not_named(tmp_path: Path) -> None:
    array = noise((1500, 2, 3), "uint8")
    path = shown(tmp_path, ".tif", spec_of("cyx", array.shape, "uint8"), array)
    assert "Channel" not in ome(path)["Pixels"]
    np.testing.assert_array_equal(tifffile.imread(path), array)
    assert not endings(spec_of("zyx", (1 << 21, 1 << 21, 1 << 21)))


def test_unknown_units_are_ratios(tmp_path: Path) -> None:
    array = noise((3, 5, 7), "uint8")
    path = shown(tmp_path, ".tif", spec_of("zyx", array.shape, "uint8", units=False), array)
    pixels = ome(path)["Pixels"]
    assert (pixels["PhysicalSizeZ"], pixels["PhysicalSizeZUnit"]) == (40.0, "reference frame")
    with tifffile.TiffFile(path) as file:
        assert file.imagej_metadata is not None
        assert "unit" not in file.imagej_metadata and file.imagej_metadata["spacing"] == 40.0
        assert file.pages.first.resolutionunit == 1 and 1 / file.pages.first.resolution[1] == pytest.approx(4.5)


@pytest.mark.parametrize(
    ("unit", "symbol"),
    [("micrometer", "µm"), ("angstrom", "Å"), ("millimeter", "mm"), ("inch", "in"), ("parsec", None)],
)
def test_units_have_omes_symbols(tmp_path: Path, unit: str, symbol: str | None) -> None:
    array = noise((3, 5, 7), "uint8")
    spec = spec_of("zyx", array.shape, "uint8")
    axes = tuple(ShownAxis(axis.axis, axis.name, axis.kind, axis.size, 2.5, 0.0, unit) for axis in spec.axes)
    path = shown(tmp_path, ".tif", VolumeSpec(spec.box, spec.dtype, axes), array)
    assert ome(path)["Pixels"]["PhysicalSizeXUnit"] == (symbol or "reference frame")


def test_what_is_imported_is_what_was_shown(tmp_path: Path) -> None:
    from volfs.ingest.readers.tiff import open_tiff

    array = noise((3, 2, 5, 7, 11), "uint16")
    source = open_tiff(shown(tmp_path, ".tif", spec_of("tczyx", array.shape), array))
    told = source.description
    assert [axis.name for axis in told.axes] == ["t", "z", "c", "y", "x"] and told.scale == (0.5, 40, 1, 4.5, 4)
    assert {axis.unit for axis in told.axes} == {"second", "nanometer", None}
    source.close()


# --------------------------------------------------------------------------------------------------- bytes and writing


@st.composite
def volumes_of_any_kind(draw: st.DrawFn) -> tuple[VolumeSpec, np.ndarray, Layout]:
    names = draw(st.sampled_from(["yx", "zyx", "tczyx", "ctyx", "zyxs"]))
    shape = (*(draw(st.integers(1, 5)) for _ in names[:-1]), draw(st.integers(1, 4)))
    dtype = draw(st.sampled_from(DTYPES))
    spec = spec_of(names, shape, dtype)
    return spec, noise(shape, dtype, draw(st.integers(0, 9))), layout_of(".tif", spec)


@given(volumes_of_any_kind(), st.data())
def test_any_range_equals_the_whole_and_writing_it_back_changes_nothing(
    made: tuple[VolumeSpec, np.ndarray, Layout], data: st.DataObject
) -> None:
    _, array, layout = made
    source = InMemory(array.copy())
    whole = layout.read(source, 0, layout.size)
    assert len(whole) == layout.size and layout.writable
    for _ in range(6):
        a = data.draw(st.integers(0, len(whole)))
        b = data.draw(st.integers(a, len(whole)))
        assert layout.read(source, a, b - a) == whole[a:b]
        layout.write(source, a, whole[a:b])
    np.testing.assert_array_equal(source.array, array)


@given(volumes_of_any_kind(), st.integers(1, 9))
def test_voxels_are_written_and_headers_are_not(made: tuple[VolumeSpec, np.ndarray, Layout], seed: int) -> None:
    spec, array, layout = made
    source, other = InMemory(array.copy()), noise(array.shape, spec.dtype.name, seed)
    wanted = layout.read(InMemory(other), 0, layout.size)
    assert layout.write(source, 0, wanted) == layout.size
    np.testing.assert_array_equal(source.array, other)
    first = layout.extents[0].size
    with pytest.raises(BadInput):
        layout.write(source, first - 9, bytes(b ^ 1 for b in wanted[first - 9 : first]))


# ------------------------------------------------------------------------------------------------------- large volumes


def planes(spec_names: str, shape: tuple[int, ...], dtype: str = "uint8", **options: Any) -> VolumeSpec:
    return spec_of(spec_names, shape, dtype, **options)


def test_page_directories_are_packed_small_and_made_when_read() -> None:
    layout = layout_of(".tif", planes("zyx", (20_000, 22_000, 24_000)))
    records = [extent for extent in layout.extents if isinstance(extent, Records)]
    assert len(records) == 1 and records[0].count == 19_999 and records[0].length <= 320
    assert sum(extent.size for extent in layout.extents if not isinstance(extent, Records)) < 10_560_000_000_000 + 4096
    assert layout_of(".tif", planes("zyx", (500, 500, 500))).extents[1].length <= 236  # type: ignore[attr-defined]


def test_four_gibibytes_are_the_end_of_classic_tiff() -> None:
    """The size at which a plane more or less, or one row, decides."""
    sizes = []
    for depth in range(4090, 4098):
        spec = planes("zyx", (depth, 1024, 1024))
        layout = layout_of(".tif", spec)
        head = layout.read(Numbered(spec.box.shape, "uint8"), 0, 4)
        assert head == (b"II*\0" if layout.size <= LIMIT else b"II+\0")
        assert endings(spec) == ({".tif"} if head == b"II*\0" else {".tif", ".imagej.tif"})
        sizes.append(layout.size > LIMIT)
    assert sizes == [False] * 6 + [True] * 2  # 4096 planes of 1 MiB and their directories are too much


@pytest.mark.parametrize("columns", range(65_530, 65_539))
def test_one_plane_of_about_four_gibibytes(columns: int) -> None:
    spec = planes("yx", (65_536, columns))
    layout = layout_of(".tif", spec)
    big = layout.size > LIMIT
    assert layout.read(Numbered(spec.box.shape, "uint8"), 0, 4)[2] == (43 if big else 42)
    assert big == (columns >= 65_536) and endings(spec) == {".tif"}


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((4095, 1024, 1024), "uint8"), ((4097, 1024, 1024), "uint8"), ((300, 4000, 4001), "float32")],
)
def test_tifffile_finds_every_plane_of_a_large_file(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    spec = planes("zyx", shape, dtype)
    layout = layout_of(".tif", spec)
    path = head_of(tmp_path, ".tif", spec, layout.size - int(np.prod(shape)) * spec.dtype.itemsize)
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff == (layout.size > LIMIT) and len(file.pages) == shape[0]
        series = file.series[0]
        assert series.shape == shape and series.kind == "ome" and series.dataoffset is not None
        source = Numbered(shape, dtype)
        for z in (0, 1, shape[0] // 2, shape[0] - 1):
            at = file.pages[z].dataoffsets[0]
            expected = source.read(Box((z, 3, 0), (z + 1, 4, 9)))
            row = layout.read(source, at + 3 * shape[2] * spec.dtype.itemsize, expected.nbytes)
            np.testing.assert_array_equal(np.frombuffer(row, spec.dtype), expected.ravel())
        assert at + shape[1] * shape[2] * spec.dtype.itemsize == layout.size


@pytest.mark.parametrize(("names", "shape"), [("zyx", (70_001, 3, 5)), ("tzyx", (300, 300, 3, 2))])
def test_more_than_65535_pages(tmp_path: Path, names: str, shape: tuple[int, ...]) -> None:
    array = noise(shape, "uint16")
    path = shown(tmp_path, ".tif", spec_of(names, shape), array)
    with tifffile.TiffFile(path) as file:
        assert file.series[0].kind == "ome"
        np.testing.assert_array_equal(file.series[0].asarray(), array)
    found = imagecodecs.tiff_decode(path.read_bytes(), index=66_000)
    np.testing.assert_array_equal(found, array.reshape(-1, *shape[-2:])[66_000])


def test_axes_longer_than_65535(tmp_path: Path) -> None:
    for shape in ((2, 70_000, 3), (2, 3, 70_000)):
        array = noise(shape, "uint16")
        path = shown(tmp_path, ".tif", spec_of("zyx", shape), array)
        np.testing.assert_array_equal(tifffile.imread(path), array)


def test_ten_terabytes_cost_nothing() -> None:
    spec = planes("zyx", (20_000, 22_000, 24_000))
    began = time.process_time()
    for _ in range(20):
        for ending in sorted(endings(spec)):
            layout_of(ending, spec)
    assert time.process_time() - began < 0.5
    layout, source = layout_of(".tif", spec), Numbered(spec.box.shape, "uint8")
    middle = layout.read(source, layout.size // 2, 100)
    assert middle == layout.read(source, layout.size // 2 - 50, 150)[50:]


# ----------------------------------------------------------------------------------------------------------- imagej.tif


def test_it_is_there_where_imagej_needs_it_and_can_tell_every_voxel() -> None:
    held = {
        dtype: ".imagej.tif" in endings(planes("zyx", (5000, 1024, 1024), dtype))
        for dtype in ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", "uint64")
    }
    assert [dtype for dtype, yes in held.items() if yes] == ["bool", "uint8", "uint16", "int16", "float32"]
    assert ".imagej.tif" not in endings(planes("zyx", (100, 1024, 1024)))
    assert ".imagej.tif" in endings(planes("zyxs", (5000, 1024, 1024, 3)))
    assert ".imagej.tif" not in endings(planes("zyxs", (5000, 1024, 1024, 4)))  # ImageJ drops alpha
    assert ".imagej.tif" not in endings(planes("zyxs", (5000, 1024, 1024, 3), "uint16"))
    assert ".imagej.tif" in endings(planes("zyx", (3, 40_000, 40_000)))
    assert ".imagej.tif" not in endings(planes("zyx", (3, 50_000, 50_000)))  # more than Java's arrays hold
    assert ".imagej.tif" not in endings(planes("zyx", (3, 40_000, 40_000), "uint16"))  # its virtual stacks count bytes


@pytest.mark.parametrize(
    ("names", "shape", "dtype"),
    [
        ("zyx", (4099, 1024, 1024), "uint8"),
        ("tczyx", (3, 2, 500, 1024, 1024), "uint16"),
        ("zyx", (300, 4000, 4001), "float32"),
        ("zyxs", (1500, 1024, 1024, 3), "uint8"),
    ],
)
def test_tifffile_reads_the_stack_of_one_directory(
    tmp_path: Path, names: str, shape: tuple[int, ...], dtype: str
) -> None:
    spec = planes(names, shape, dtype)
    layout = layout_of(".imagej.tif", spec)
    path = head_of(tmp_path, ".imagej.tif", spec)
    with tifffile.TiffFile(path) as file:
        assert not file.is_bigtiff and len(file.pages) == 1
        series = file.series[0]
        order = [names.index(name) for name in "tzcyxs" if name in names]
        assert series.kind == "imagej" and series.shape == tuple(shape[axis] for axis in order)
        assert series.axes == "".join(name for name in "tzcyxs" if name in names).upper()
        assert file.imagej_metadata is not None
        assert file.imagej_metadata["spacing"] == 0.04 and file.imagej_metadata["unit"] == "micron"
        assert 1 / file.pages.first.resolution[0] == pytest.approx(0.004)
        assert series.dataoffset is not None
        assert series.dataoffset + int(np.prod(shape, dtype=np.int64)) * spec.dtype.itemsize == layout.size
        plain = layout_of(".tif", spec)
        source = Numbered(shape, dtype)
        for back in (1000, layout.size // 2, layout.size - series.dataoffset):
            assert layout.read(source, layout.size - back, 100) == plain.read(source, plain.size - back, 100)


def test_a_level_of_the_tree_has_them() -> None:
    from tests.kits.view_layouts import level

    image = level("tczyx", (3, 2, 5, 7, 11))
    for fixed, ending in itertools.product([(), (1,), (2, 0)], [".tif"]):
        assert ending in endings(whole(image, fixed))
