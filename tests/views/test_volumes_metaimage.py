"""MetaImage files as SimpleITK reads them. Orientations are tried beside those of NRRD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from tests.kits.view_volumes import DTYPES, SHAPES, head_of, shown, spec_of
from volfs.testing.volumes import noise
from volfs.views import volumes


@pytest.mark.parametrize("dtype", [*DTYPES, "int8", "int32", "uint32", "int64"])
@pytest.mark.parametrize("names", ["yx", "zyx", "tczyx"])
def test_simpleitk_reads_every_voxel(tmp_path: Path, names: str, dtype: str) -> None:
    array = noise(SHAPES[names], dtype)
    found = SimpleITK.ReadImage(str(shown(tmp_path, ".mha", spec_of(names, array.shape, dtype), array)))
    data = SimpleITK.GetArrayFromImage(found)
    assert data.dtype == (np.uint8 if dtype == "bool" else dtype)
    np.testing.assert_array_equal(data, array)


def test_voxel_sizes_origin_and_direction(tmp_path: Path) -> None:
    array = noise(SHAPES["tczyx"], "uint16")
    found = SimpleITK.ReadImage(str(shown(tmp_path, ".mha", spec_of("tczyx", array.shape, origin=True), array)))
    assert found.GetSpacing() == (4e-6, 4.5e-6, 40e-6, 1, 0.5)
    assert found.GetOrigin() == (-8e-6, 9e-6, 400e-6, 0, 1.5)
    assert found.GetDirection() == tuple(np.eye(5).ravel())


@pytest.mark.parametrize("units", [True, False])
def test_the_unit_is_said_or_said_to_be_unknown(tmp_path: Path, units: bool) -> None:
    array = noise((7, 13, 5), "uint16")
    path = shown(tmp_path, ".mha", spec_of("zyx", array.shape, units=units), array)
    assert f"\nDistanceUnits = {'mm' if units else '?'}\n".encode() in path.read_bytes()
    expected = (4e-6, 4.5e-6, 40e-6) if units else (4, 4.5, 40)
    assert SimpleITK.ReadImage(str(path)).GetSpacing() == expected


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("samples", [2, 3, 4])
def test_samples_are_channels_of_a_pixel(tmp_path: Path, samples: int, dtype: str) -> None:
    array = noise((7, 13, 5, samples), dtype)
    found = SimpleITK.ReadImage(str(shown(tmp_path, ".mha", spec_of("zyxs", array.shape, dtype), array)))
    assert found.GetNumberOfComponentsPerPixel() == samples and found.GetSize() == (5, 13, 7)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found), array)


def test_what_metaimage_cannot_say_has_no_file() -> None:
    for dtype in ("float16", "complex64"):
        assert volumes.layout(".mha", spec_of("zyx", (5, 7, 11), dtype)) is None


def test_ten_terabytes(tmp_path: Path) -> None:
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(head_of(tmp_path, ".mha", spec_of("zyx", (20_000, 22_000, 24_000), "uint8"))))
    reader.ReadImageInformation()
    assert reader.GetSize() == (24_000, 22_000, 20_000)
    # ITK reads a part of a file from where it lies.
    reader.SetExtractIndex((12_345, 11_001, 19_999))
    reader.SetExtractSize((3, 2, 1))
    assert SimpleITK.GetArrayFromImage(reader.Execute()).tolist() == [[[0, 0, 0], [0, 0, 0]]]
