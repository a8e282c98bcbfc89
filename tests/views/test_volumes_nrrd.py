"""NRRD files, header attached and detached, as pynrrd and SimpleITK read them."""

from __future__ import annotations

from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK

from tests.kits.view_volumes import DTYPES, SHAPES, Numbered, head_of, layout_of, shown, spec_of, turned
from volfs.testing.volumes import noise
from volfs.views import volumes
from volfs.views.volume import VolumeSpec

ENDINGS = (".nrrd", ".nhdr")


def made(folder: Path, ending: str, spec: VolumeSpec, array: np.ndarray) -> str:
    """The file, with the voxels beside it that a detached header names."""
    if ending == ".nhdr":
        shown(folder, ".raw", spec, array)
    return str(shown(folder, ending, spec, array))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", [*DTYPES, "int8", "int32", "uint32", "int64"])
@pytest.mark.parametrize("names", ["yx", "zyx", "tczyx"])
def test_pynrrd_reads_every_voxel(tmp_path: Path, names: str, dtype: str, ending: str) -> None:
    array = noise(SHAPES[names], dtype)
    found, header = nrrd.read(made(tmp_path, ending, spec_of(names, array.shape, dtype), array), index_order="C")
    assert found.dtype == (np.uint8 if dtype == "bool" else dtype)
    np.testing.assert_array_equal(found, array)
    assert header["labels"] == list(names[::-1]) and header["content"] == "cells"


@pytest.mark.parametrize("ending", ENDINGS)
def test_voxel_sizes_origin_and_units(tmp_path: Path, ending: str) -> None:
    array = noise((7, 13, 5), "uint16")
    path = made(tmp_path, ending, spec_of("zyx", array.shape, origin=True), array)
    header = nrrd.read_header(path)
    np.testing.assert_array_equal(header["space directions"], np.diag([4e-6, 4.5e-6, 40e-6]))
    np.testing.assert_array_equal(header["space origin"], [-8e-6, 9e-6, 400e-6])
    assert header["space units"] == ["mm"] * 3 and header["space dimension"] == 3 and "space" not in header
    assert header["kinds"] == ["domain"] * 3
    found = SimpleITK.ReadImage(path)
    assert found.GetSpacing() == (4e-6, 4.5e-6, 40e-6) and found.GetOrigin() == (-8e-6, 9e-6, 400e-6)
    np.testing.assert_allclose(np.reshape(found.GetDirection(), (3, 3)), np.eye(3), atol=1e-12)


def test_unknown_units_are_not_said(tmp_path: Path) -> None:
    array = noise((3, 7, 13, 5), "uint16")
    header = nrrd.read_header(made(tmp_path, ".nrrd", spec_of("tzyx", array.shape, units=False), array))
    assert "space units" not in header and "units" not in header
    np.testing.assert_array_equal(header["space directions"], np.diag([4, 4.5, 40, 0.5]))


def test_time_is_a_direction_of_the_world_and_channels_are_a_list(tmp_path: Path) -> None:
    array = noise(SHAPES["tczyx"], "uint16")
    path = made(tmp_path, ".nrrd", spec_of("tczyx", array.shape, origin=True), array)
    header = nrrd.read_header(path)
    assert header["kinds"] == ["domain", "domain", "domain", "list", "time"]
    assert header["space units"] == ["mm", "mm", "mm", "s"] and header["space dimension"] == 4
    assert np.isnan(header["space directions"][3]).all()
    found = SimpleITK.ReadImage(path)
    assert found.GetSpacing() == (4e-6, 4.5e-6, 40e-6, 0.5) and found.GetOrigin() == (-8e-6, 9e-6, 400e-6, 1.5)
    assert found.GetNumberOfComponentsPerPixel() == 2
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found), np.moveaxis(array, 1, -1))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("names", ["yx", "zyx"])
def test_simpleitk_reads_it(tmp_path: Path, names: str, dtype: str, ending: str) -> None:
    array = noise(SHAPES[names], dtype)
    found = SimpleITK.ReadImage(made(tmp_path, ending, spec_of(names, array.shape, dtype), array))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found), array)


@pytest.mark.parametrize(("samples", "kind"), [(2, "2-vector"), (3, "RGB-color"), (4, "RGBA-color")])
def test_samples_of_a_pixel_run_fastest(tmp_path: Path, samples: int, kind: str) -> None:
    array = noise((7, 13, 5, samples), "uint8")
    path = made(tmp_path, ".nrrd", spec_of("zyxs", array.shape, "uint8"), array)
    data, header = nrrd.read(path, index_order="C")
    np.testing.assert_array_equal(data, array)
    assert header["kinds"] == [kind, "domain", "domain", "domain"]
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)), array)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("names", ["zyx", "tzyx"])
@pytest.mark.parametrize("flip", [False, True])
def test_an_affine_places_voxels_where_nifti_does(tmp_path: Path, names: str, flip: bool, ending: str) -> None:
    array = noise((3, 5, 7, 11)[-len(names) :], "int16")
    spec = spec_of(names, array.shape, "int16", affine=turned(flip=flip))
    found = SimpleITK.ReadImage(str(shown(tmp_path, ending, spec, array)))
    space = spec_of("zyx", array.shape[-3:], "int16", affine=spec.affine)
    nifti = SimpleITK.ReadImage(str(shown(tmp_path, ".nii", space, array.reshape(-1, 5, 7, 11)[0])))
    for point in ((0, 0, 0), (10, 0, 0), (0, 6, 0), (3, 2, 4)):
        expected = nifti.TransformIndexToPhysicalPoint(point)
        at = found.TransformIndexToPhysicalPoint((*point, 0)[: array.ndim])
        np.testing.assert_allclose(at[:3], expected, rtol=1e-5, atol=1e-4)
        right, anterior, superior = np.array(spec.affine) @ (*point, 1)
        np.testing.assert_allclose(at[:3], [-right, -anterior, superior])
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found), array)


def test_names_that_are_not_plain_text_do_no_harm(tmp_path: Path) -> None:
    array = noise((7, 13, 5), "uint16")
    spec = spec_of("zyx", array.shape, title='na\u00efve "cells"\ntype: float: a')
    data, header = nrrd.read(made(tmp_path, ".nrrd", spec, array), index_order="C")
    np.testing.assert_array_equal(data, array)
    assert header["type"] == "uint16" and header["content"] == 'nave "cells"type: float: a'


def test_what_nrrd_cannot_say_has_no_file() -> None:
    for dtype in ("float16", "complex64", "complex128"):
        for ending in ENDINGS:
            assert volumes.layout(ending, spec_of("zyx", (5, 7, 11), dtype)) is None


def test_ten_terabytes(tmp_path: Path) -> None:
    shape = (20_000, 22_000, 24_000)
    spec = spec_of("zyx", shape, "uint8")
    header = nrrd.read_header(str(head_of(tmp_path, ".nrrd", spec)))
    assert header["sizes"].tolist() == list(shape[::-1])
    layout = layout_of(".nrrd", spec)
    at = layout.extents[0].size + int(np.ravel_multi_index((10_007, 11_001, 12_345), shape))
    assert layout.read(Numbered(shape, "uint8"), at, 1)[0] == (10_007 + 11_001 + 12_345) % 256
