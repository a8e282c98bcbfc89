"""What a volume file of a level shows, and files of a box that are made by naming them."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import mrcfile
import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.kits.view_layouts import InMemory, level
from volfs.model.box import Box
from volfs.model.ngff import Axis
from volfs.views import cutout, npy, volumes
from volfs.views.layout import Layout, Literal, Voxels
from volfs.views.slices import SliceGeometry
from volfs.views.volume import VolumeFormat, VolumeSpec
from volfs.views.volumes import volume_spec
from volfs.views.volumes.volume_spec import LevelMeta

# ------------------------------------------------------------------------------------- what a volume file shows


def test_a_levels_own_volume_has_all_axes_and_that_of_a_channel_three() -> None:
    image = level("tczyx", (3, 1, 5, 7, 11))
    shown = volume_spec.whole(image)
    assert shown.shape == (3, 1, 5, 7, 11) and shown.box == Box.whole((3, 1, 5, 7, 11))
    assert [(a.name, a.kind, a.scale, a.unit) for a in shown.axes] == [
        ("t", "time", 2.0, "second"),
        ("c", "channel", 1.0, None),
        ("z", "space", 40.0, "nanometer"),
        ("y", "space", 4.5, "nanometer"),
        ("x", "space", 4.0, "nanometer"),
    ]
    assert volume_spec.whole(image, (2,)).shape == (1, 5, 7, 11)
    one = volume_spec.whole(image, (2, 0))
    assert one.shape == (5, 7, 11) and one.box == Box((2, 0, 0, 0, 0), (3, 1, 5, 7, 11))
    assert one.order == (0, 1, 2, 3, 4) and not one.others and one.title == "cells"


def test_axes_come_out_in_the_order_of_files_whatever_theirs_in_the_level() -> None:
    shown = volume_spec.whole(level("xyzt", (2, 3, 5, 7)))
    assert [a.name for a in shown.axes] == ["t", "z", "y", "x"] and shown.order == (3, 2, 1, 0)
    colour = volume_spec.whole(level("cyx", (3, 5, 7), "u1", rgb=True))
    assert [a.name for a in colour.axes] == ["y", "x", "c"] and colour.has_samples and colour.samples == 3
    unknown = volume_spec.whole(level("abcd", (2, 3, 5, 7)))
    assert [a.kind for a in unknown.axes] == [None, "space", "space", "space"] and len(unknown.space) == 3


def test_the_origin_of_a_box_is_where_its_first_voxel_lies() -> None:
    image = level("zyx", (5, 7, 11), coarser=(1, 2, 2))
    shown = volume_spec.part(image, Box((1, 2, 3), (3, 4, 5)))
    assert [a.origin for a in shown.axes] == [40.0, 2.25 + 2 * 9.0, 2.0 + 3 * 8.0]
    assert shown.shape == (2, 2, 2)


def test_a_scale_that_is_no_size_is_not_told() -> None:
    axes = (Axis("y", "space", "nanometer"), Axis("x", "space", "nanometer"))
    geometry = SliceGeometry.of("yx", (3, 4), np.dtype("u1"))
    assert geometry is not None
    shown = volume_spec.whole(LevelMeta(geometry, axes, (0.0, math.nan), (5.0, 5.0)))
    assert all((a.scale, a.origin, a.unit) == (1.0, 0.0, None) for a in shown.axes)


def test_a_negative_scale_is_the_direction_of_its_axis_alone() -> None:
    axes = tuple(Axis(name, "space", "nanometer") for name in "zyx")
    geometry = SliceGeometry.of("zyx", (2, 3, 4), np.dtype("u1"))
    assert geometry is not None
    shown = volume_spec.part(LevelMeta(geometry, axes, (40.0, -4.5, 4.0), (1.0, 2.0, 3.0)), Box((0, 1, 1), (2, 3, 4)))
    assert [(a.scale, a.direction, a.unit) for a in shown.axes] == [
        (40.0, 1, "nanometer"),
        (4.5, -1, "nanometer"),
        (4.0, 1, "nanometer"),
    ]
    assert [a.origin for a in shown.axes] == [1.0, -2.5, 7.0]


def test_channels_have_names_where_each_has_one() -> None:
    omero = {"channels": [{"label": "DAPI"}, {"label": "GFP"}, {"label": ""}]}
    image = level("tczyx", (1, 3, 2, 2, 2), attributes={"ome": {"omero": omero}})
    assert volume_spec.whole(image).channels == ()
    assert volume_spec.whole(image, (0, 1)).channels == ("GFP",)
    two = Box((0, 0, 0, 0, 0), (1, 2, 2, 2, 2))
    assert volume_spec.part(image, two).channels == ("DAPI", "GFP")
    for broken in ({"omero": 3}, {"omero": {"channels": [3, {"label": 4}, None]}}, {"ome": [], "omero": None}):
        assert volume_spec.whole(level("czyx", (3, 2, 2, 2), attributes=broken)).channels == ()


def oriented(matrix: np.ndarray) -> dict[str, Any]:
    return {"volfs": {"source": {"affine": matrix.tolist()}}}


def placed(shown: Any, x: float, y: float, z: float) -> np.ndarray:
    return np.array(shown.affine) @ [x, y, z, 1.0]


def test_an_affine_holds_for_every_level_and_box_in_millimetres() -> None:
    turn = np.array([[0.0, -1.0, 0.0], [0.6, 0.0, -0.8], [0.8, 0.0, 0.6]])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn * [4.0, 4.5, 40.0], (100.0, -20.0, 7.0)
    finest = volume_spec.whole(level("zyx", (5, 8, 12), attributes=oriented(matrix)))
    assert np.allclose(placed(finest, 3, 2, 1), (matrix @ [3, 2, 1, 1])[:3] * 1e-6)  # nanometres in millimetres
    coarse = level("tzyx", (1, 5, 4, 6), attributes=oriented(matrix), coarser=(1, 1, 2, 2))
    # The centre of a coarse voxel lies half a voxel of s0 beyond that of its first.
    assert np.allclose(placed(volume_spec.whole(coarse), 1, 1, 2), (matrix @ [2.5, 2.5, 2, 1])[:3] * 1e-6)
    box = volume_spec.part(coarse, Box((0, 2, 1, 3), (1, 4, 3, 6)))
    assert np.allclose(placed(box, 1, 1, 1), placed(volume_spec.whole(coarse), 4, 2, 3))


@pytest.mark.parametrize(
    ("source", "signs"),
    [
        ({"format": "nifti"}, (1, 1)),
        ({"format": "dicom", "space": "left-posterior-superior"}, (-1, -1)),
        ({"format": "metaimage"}, (-1, -1)),
        ({"format": "nrrd"}, (-1, -1)),
        ({"format": "nrrd", "space": "RAS"}, (1, 1)),
        ({"format": "nrrd", "space": "left-anterior-superior"}, (-1, 1)),
    ],
)
def test_an_affine_is_told_in_one_world_whatever_the_world_of_the_imported_file(
    source: dict[str, Any], signs: tuple[int, int]
) -> None:
    matrix = np.diag([4.0, 4.5, 40.0, 1.0])
    matrix[:3, 3] = (7.0, 8.0, 9.0)
    attributes = {"volfs": {"source": {"affine": matrix.tolist(), **source}}}
    shown = volume_spec.whole(level("zyx", (5, 8, 12), attributes=attributes))
    assert np.allclose(np.array(shown.affine), (np.diag([*signs, 1, 1]) @ matrix)[:3] * 1e-6)


def test_an_affine_with_time_is_that_of_space_unless_they_are_mixed() -> None:
    matrix = np.diag([4.0, 4.5, 40.0, 2.0, 1.0])
    matrix[:4, 4] = (7.0, 8.0, 9.0, 10.0)
    attributes: dict[str, Any] = {"volfs": {"source": {"format": "nrrd", "space": "RAST", "affine": matrix.tolist()}}}
    shown = volume_spec.whole(level("tzyx", (2, 5, 8, 12), attributes=attributes))
    expected = [[4.0, 0, 0, 7], [0, 4.5, 0, 8], [0, 0, 40, 9]]
    assert np.allclose(np.array(shown.affine), np.array(expected) * 1e-6)
    matrix[0, 3] = 0.1
    attributes["volfs"]["source"]["affine"] = matrix.tolist()
    assert volume_spec.whole(level("tzyx", (2, 5, 8, 12), attributes=attributes)).affine is None


def test_an_affine_of_other_voxel_sizes_keeps_its_directions_only() -> None:
    shown = volume_spec.whole(level("zyx", (5, 8, 12), attributes=oriented(np.diag([-1.0, 1.0, 2.0, 1.0]))))
    assert np.allclose(np.array(shown.affine)[:, :3], np.diag([-4.0, 4.5, 40.0]) * 1e-6)


@pytest.mark.parametrize(
    "matrix", [np.zeros((4, 4)), np.eye(3), np.full((4, 4), np.nan), np.ones((4, 4)), np.array(["a"]), np.array(3)]
)
def test_an_affine_that_is_none_is_left_out(matrix: np.ndarray) -> None:
    assert volume_spec.whole(level("zyx", (5, 8, 12), attributes=oriented(matrix))).affine is None


# --------------------------------------------------------------------------------------------- names of cutouts


def boxed(image: LevelMeta, name: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    found = cutout.parse(image.geometry, name)
    return (found[0].box.start, found[0].box.stop) if found is not None else None


def test_a_name_says_a_box() -> None:
    image = level("zyx", (64, 700, 512))
    assert boxed(image, "z0-64_y100-612_x0-512.tif") == ((0, 100, 0), (64, 612, 512))
    assert boxed(image, "y100-.nii") == ((0, 100, 0), (64, 700, 512))
    assert boxed(image, "z5.png") == boxed(image, "z5-6.png") == ((5, 0, 0), (6, 700, 512))
    time = level("tczyx", (9, 2, 5, 7, 11))
    assert boxed(time, "t3-5_c1_z0-2.h5") == ((3, 1, 0, 0, 0), (5, 2, 2, 7, 11))


NO_NAMES = """
    z0-65.tif z64.tif z5-5.tif z6-5.tif z-5.tif z05.tif z00-05.tif z5--6.tif z+5.tif z5_.tif _z5.tif z5__y3.tif
    x0-5_z0-5.tif z0-5_z0-5.tif Z0-5.tif z.tif .tif z5 z5- z٣.tif z0-64y0-5.tif t0.tif c0.tif z0-64,y0-5.tif z1e1.tif
    z99999999999999999999999.tif z0:5.tif z5-6_y3-.foo z5.png~ z5..png
"""


@pytest.mark.parametrize("name", NO_NAMES.split())
def test_other_names_are_not_there(name: str) -> None:
    assert cutout.open_name(level("zyx", (64, 700, 512)), name) is None


def test_axes_have_the_names_of_their_directories_and_no_name_means_two() -> None:
    assert boxed(level("wzyx", (4, 3, 3, 3)), "w2-4_z1.tif") == ((2, 1, 0, 0), (4, 2, 3, 3))
    # The last three of four unknown axes are z, y, x: the first one's name is taken.
    assert boxed(level("xbcd", (4, 3, 3, 2)), "d0_1-3_z1_y2_x0.tif") == ((1, 1, 2, 0), (3, 2, 3, 1))
    assert boxed(level("xyz", (4, 3, 2)), "x1-_y0-2_z1.npy") == ((1, 0, 1), (4, 2, 2))
    colour = level("yxc", (5, 7, 3), "u1", rgb=True)
    assert boxed(colour, "y1-3.png") == ((1, 0, 0), (3, 7, 3)) and boxed(colour, "y1_c0.png") is None


@st.composite
def named_boxes(draw: st.DrawFn) -> tuple[LevelMeta, str, Box]:
    names = draw(st.sampled_from(["zyx", "tczyx", "yx", "tyx", "xyzc", "wtczyx"]))
    shape = tuple(draw(st.integers(1, 12)) for _ in names)
    start, stop, parts = [0] * len(names), list(shape), []
    for axis, name in enumerate(names):
        kind = draw(st.sampled_from(["", "one", "range", "open"]))
        low = draw(st.integers(0, shape[axis] - 1))
        if kind:
            start[axis] = low
            stop[axis] = {"one": low + 1, "open": shape[axis]}.get(kind) or draw(st.integers(low + 1, shape[axis]))
            parts.append(name + {"one": f"{low}", "open": f"{low}-"}.get(kind, f"{low}-{stop[axis]}"))
    if not parts:
        parts, start[-1] = [f"{names[-1]}0-"], 0
    return level(names, shape), "_".join(parts), Box(tuple(start), tuple(stop))


@given(named_boxes(), st.sampled_from([".tif", ".npy", ".png", ".nii"]))
def test_a_made_name_means_its_box_and_the_file_has_its_voxels(made: tuple[LevelMeta, str, Box], ending: str) -> None:
    image, stem, box = made
    found = cutout.parse(image.geometry, stem + ending)
    assert found is not None and found[0].box == box and found[1] == ending
    opened = cutout.open_name(image, stem + ending)
    if opened is not None and opened.layout is not None:
        source = InMemory(np.arange(np.prod(image.geometry.shape), dtype="u2").reshape(image.geometry.shape))
        whole = opened.layout.read(source, 0, opened.layout.size + 1)
        assert opened.box == box and len(whole) == opened.layout.size
        if ending == ".npy":
            array = np.load(io.BytesIO(whole))
            assert sorted(array.ravel()) == sorted(source.array[box.slices()].ravel())


@given(st.text("0123456789-_zyxtcd.", max_size=20))
def test_any_text_is_a_box_of_the_level_or_no_name(text: str) -> None:
    image = level("tczyx", (30, 2, 12, 5, 300))
    found = cutout.parse(image.geometry, text + ".tif")
    assert found is None or (not found[0].box.empty and Box.whole(image.geometry.shape).contains(found[0].box))


# --------------------------------------------------------------------------------------------- files of cutouts


def rendered(image: LevelMeta, name: str, array: np.ndarray) -> bytes:
    found = cutout.open_name(image, name)
    assert found is not None and found.layout is not None
    return found.layout.read(InMemory(array), 0, found.layout.size)


ARRAY = np.random.default_rng(1).integers(0, 60_000, (2, 3, 9, 8, 7), np.uint16)


def test_a_plane_by_number_is_a_picture_and_by_range_a_volume() -> None:
    image = level("tczyx", ARRAY.shape)
    for stem, expected in (
        ("t1_c2_z5", ARRAY[1, 2, 5]),
        ("t1_c2_y3_x2-6", ARRAY[1, 2, :, 3, 2:6]),
        ("t1_c2_z2-_x4", ARRAY[1, 2, 2:, :, 4]),
    ):
        assert np.array_equal(np.load(io.BytesIO(rendered(image, stem + ".npy", ARRAY))), expected)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(rendered(image, stem + ".png", ARRAY)))), expected)
        assert np.array_equal(tifffile.imread(io.BytesIO(rendered(image, stem + ".tif", ARRAY))), expected)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(rendered(image, "t1_c2_z5-6.png", ARRAY)))), ARRAY[1, 2, 5])
    for name in ("t1_z5.png", "t1_c2_z5-7.png", "t1_c2_z5_y3.png", "t1_c2_z5.gif", "t1_c2_z5.jpeg", "t1_c2.png"):
        assert cutout.open_name(image, name) is None


def test_a_volume_shows_z_y_x_what_is_longer_than_one_and_what_was_named_as_a_range(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[VolumeSpec] = []

    def lay_out(volume: VolumeSpec) -> Layout:
        seen.append(volume)
        voxels = Voxels(volume.box, volume.order, volume.dtype.newbyteorder("<"))
        return Layout(Literal(npy.header(volume.shape, volume.dtype)), voxels)

    monkeypatch.setattr(volumes, "FORMATS", {".npy": VolumeFormat(".npy", 6, lambda _: True, lay_out)})
    image = level("tczyx", ARRAY.shape)
    for stem, expected in (
        ("z2-5", ARRAY[:, :, 2:5]),
        ("t1_z2-5_y3-", ARRAY[1, :, 2:5, 3:]),
        ("t1-2_c0_z2-5", ARRAY[1:2, 0, 2:5]),
        ("t1_c0_z2-3", ARRAY[1, 0, 2:3]),
        ("c0_z2", ARRAY[:, 0, 2:3]),
        ("t1_c0_z2_y3", ARRAY[1, 0, 2:3, 3:4]),
    ):
        assert np.array_equal(np.load(io.BytesIO(rendered(image, stem + ".npy", ARRAY))), expected), stem
        assert seen[-1].stem == stem and seen[-1].axes[-1].name == "x"
    one = level("tczyx", (1, 1, *ARRAY.shape[2:]))
    assert np.load(io.BytesIO(rendered(one, "z2-5.npy", ARRAY[:1, :1]))).shape == (3, 8, 7)


def test_a_preview_says_what_is_to_be_rendered() -> None:
    image = level("tczyx", ARRAY.shape, "u2")
    found = cutout.open_name(image, "t1_c2_y3_x2-6.jpg")
    assert found is not None and found.layout is None and found.preview is not None and found.others == (1, 2)
    assert found.preview.shape == (9, 4) and found.preview.box == found.box
    assert cutout.open_name(image, "t1_c2_y3-5.jpg") is None


def test_the_readme_has_names_that_open() -> None:
    for names, shape in (("tczyx", (2, 3, 9, 8, 7)), ("yx", (5, 7)), ("xyz", (5, 7, 9))):
        image = level(names, shape)
        examples = [line.strip() for line in cutout.readme(image).splitlines() if line.startswith("    ")]
        assert len(examples) == 2 and all(cutout.parse(image.geometry, name) for name in examples)
        assert cutout.open_name(image, examples[1])


# ----------------------------------------------------------------------------- cutouts as other programs open them


CUT = ARRAY[1, 2, 2:6, 1:, 3:7]
NAME = "t1_c2_z2-6_y1-_x3-7"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every volume format of one cutout, in one directory."""
    image = level("tczyx", ARRAY.shape)
    for ending in volumes.FORMATS:
        if (opened := cutout.open_name(image, NAME + ending)) is not None and opened.layout is not None:
            (tmp_path / (NAME + ending)).write_bytes(rendered(image, NAME + ending, ARRAY))
    return tmp_path


def test_cutouts_lie_where_their_voxels_do(folder: Path) -> None:
    nifti = nibabel.load(folder / f"{NAME}.nii")
    assert np.array_equal(np.asarray(nifti.dataobj).T, CUT)
    first = np.array([3 * 4.0, 1 * 4.5, 2 * 40.0])
    corner = np.abs(nifti.affine[:3, 3]) * {"micron": 1e3, "mm": 1e6}[nifti.header.get_xyzt_units()[0]]
    assert np.allclose(corner, first)
    for ending in (".nrrd", ".nhdr", ".mha"):  # the header of .nhdr names the cutout's .raw
        picture = SimpleITK.ReadImage(str(folder / (NAME + ending)))
        assert np.array_equal(SimpleITK.GetArrayFromImage(picture), CUT), ending
        spacing, origin = np.array(picture.GetSpacing()), np.array(picture.GetOrigin())
        assert np.allclose(np.abs(origin) / spacing, [3, 1, 2]) and np.allclose(spacing / spacing[2], [0.1, 0.1125, 1])


def test_cutouts_have_their_voxels_in_tiff_npy_and_mrc(folder: Path) -> None:
    assert np.array_equal(tifffile.imread(folder / f"{NAME}.tif"), CUT)
    assert np.array_equal(np.load(folder / f"{NAME}.npy", mmap_mode="r"), CUT)
    with mrcfile.open(folder / f"{NAME}.mrc") as mrc:
        assert np.array_equal(mrc.data, CUT)
    many = rendered(level("tczyx", ARRAY.shape), "t0-2_c1-_z4-6.tif", ARRAY)
    assert np.array_equal(tifffile.imread(io.BytesIO(many)), ARRAY[0:2, 1:, 4:6].swapaxes(1, 2))  # TZCYX


@given(st.data())
def test_what_is_written_into_a_cutout_is_in_the_level_and_nothing_else_changes(data: st.DataObject) -> None:
    image, source = level("tczyx", ARRAY.shape), InMemory(ARRAY.copy())
    ending = data.draw(st.sampled_from([".tif", ".nii", ".nrrd", ".npy", ".raw", ".mha", ".mrc"]))
    opened = cutout.open_name(image, NAME + ending)
    assert opened is not None and opened.layout is not None and opened.layout.writable
    header = opened.layout.size - CUT.nbytes
    a = data.draw(st.integers(0, CUT.nbytes - 1))
    patch = data.draw(st.binary(min_size=1, max_size=CUT.nbytes - a))
    opened.layout.write(source, header + a, patch)
    voxels = bytearray(CUT.tobytes())
    voxels[a : a + len(patch)] = patch
    right = ARRAY.copy()
    right[opened.box.slices()] = np.frombuffer(voxels, ARRAY.dtype).reshape(1, 1, *CUT.shape)
    assert np.array_equal(source.array, right)
