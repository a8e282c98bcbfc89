"""NIfTI files as nibabel and SimpleITK read them: voxels, affines, voxel sizes, units."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from tests.kits.view_volumes import DTYPES, SHAPES, head_of, layout_of, shown, spec_of, turned
from volfs.testing.volumes import noise
from volfs.views import volumes
from volfs.views.volume import Affine

#: From (t, c, z, y, x) and fewer to what nibabel shows.
TRANSPOSED = {"yx": "xy", "zyx": "xyz", "tzyx": "xyzt", "tczyx": "xyztc", "tyx": "xyt", "czyx": "xyzc"}


@pytest.mark.parametrize("dtype", [*DTYPES, "int8", "int32", "uint32", "int64", "complex64", "complex128"])
@pytest.mark.parametrize("names", ["yx", "zyx", "tczyx"])
def test_nibabel_reads_every_voxel(tmp_path: Path, names: str, dtype: str) -> None:
    array = noise(SHAPES[names], dtype)
    found = nibabel.load(shown(tmp_path, ".nii", spec_of(names, array.shape, dtype), array))
    data = np.asanyarray(found.dataobj)
    assert data.dtype == (np.uint8 if dtype == "bool" else dtype)
    np.testing.assert_array_equal(data, np.einsum(f"{names}->{TRANSPOSED[names]}", array.astype(data.dtype)))


@pytest.mark.parametrize(
    ("names", "shape", "expected"),
    [
        ("tzyx", (3, 5, 7, 11), (11, 7, 5, 3)),
        ("tyx", (3, 7, 11), (11, 7, 1, 3)),
        ("czyx", (2, 5, 7, 11), (11, 7, 5, 1, 2)),
        ("ctzyx", (2, 3, 5, 7, 11), (11, 7, 5, 3, 2)),
    ],
)
def test_t_is_the_fourth_dimension_and_another_axis_the_fifth(
    tmp_path: Path, names: str, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    array = noise(shape, "uint16")
    found = nibabel.load(shown(tmp_path, ".nii", spec_of(names, shape), array))
    assert found.shape == expected
    order = [names.index(axis) for axis in "xyztc" if axis in names]
    np.testing.assert_array_equal(np.asanyarray(found.dataobj), array.transpose(order).reshape(expected))


def test_voxel_sizes_origin_and_units(tmp_path: Path) -> None:
    array = noise((3, 5, 7, 11), "uint8")
    found = nibabel.load(shown(tmp_path, ".nii", spec_of("tzyx", array.shape, "uint8", origin=True), array))
    assert found.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_allclose(found.header.get_zooms(), [4e-6, 4.5e-6, 40e-6, 0.5], rtol=1e-6)
    expected = np.array([[4.0, 0, 0, -8], [0, 4.5, 0, 9], [0, 0, 40, 400], [0, 0, 0, 1e6]]) * 1e-6
    for affine, code in (found.header.get_qform(coded=True), found.header.get_sform(coded=True)):
        np.testing.assert_allclose(affine, expected, rtol=1e-6)
        assert code == 1
    assert found.header["toffset"] == 1.5 and found.header["descrip"].item() == b"cells"


def test_unknown_units_stay_unknown(tmp_path: Path) -> None:
    array = noise((3, 5, 7, 11), "uint8")
    found = nibabel.load(shown(tmp_path, ".nii", spec_of("tzyx", array.shape, "uint8", units=False), array))
    assert found.header.get_xyzt_units() == ("unknown", "unknown")
    assert found.header.get_zooms() == (4, 4.5, 40, 0.5)


@pytest.mark.parametrize("affine", [turned(), turned(flip=True), turned(-170), turned(0)])
def test_an_affine_is_sform_and_qform(tmp_path: Path, affine: Affine) -> None:
    array = noise((5, 7, 11), "int16")
    found = nibabel.load(shown(tmp_path, ".nii", spec_of("zyx", array.shape, "int16", affine=affine), array))
    for matrix, code in (found.header.get_qform(coded=True), found.header.get_sform(coded=True)):
        np.testing.assert_allclose(matrix[:3], affine, rtol=1e-5, atol=1e-5)
        assert code == 1
    np.testing.assert_allclose(found.header.get_zooms(), [0.5, 0.75, 3], rtol=1e-6)
    np.testing.assert_array_equal(np.asanyarray(found.dataobj), array.T)


def test_a_sheared_affine_is_sform_alone(tmp_path: Path) -> None:
    array, affine = noise((5, 7, 11), "int16"), turned(shear=0.3)
    found = nibabel.load(shown(tmp_path, ".nii", spec_of("zyx", array.shape, "int16", affine=affine), array))
    assert found.header.get_qform(coded=True) == (None, 0)
    np.testing.assert_allclose(found.affine[:3], affine, rtol=1e-6)


@pytest.mark.parametrize("degrees", [179.9, 179.99, 180.0])
def test_near_half_a_turn_a_quaternion_is_right_or_absent(tmp_path: Path, degrees: float) -> None:
    array, affine = noise((5, 7, 11), "int16"), turned(degrees)
    found = nibabel.load(shown(tmp_path, ".nii", spec_of("zyx", array.shape, "int16", affine=affine), array))
    matrix, code = found.header.get_qform(coded=True)
    if code:
        np.testing.assert_allclose(matrix[:3], affine, atol=1e-3)
    np.testing.assert_allclose(found.affine[:3], affine, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("samples", [3, 4])
def test_colours_have_data_types_of_their_own(tmp_path: Path, samples: int) -> None:
    array = noise((5, 7, 11, samples), "uint8")
    path = shown(tmp_path, ".nii", spec_of("zyxs", array.shape, "uint8"), array)
    found = np.asanyarray(nibabel.load(path).dataobj)
    assert found.dtype.names == ("R", "G", "B", "A")[:samples]
    for sample, name in enumerate(found.dtype.names):
        np.testing.assert_array_equal(found[name], array[..., sample].T)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))), array)


def test_labels_are_told_apart(tmp_path: Path) -> None:
    array = noise((5, 7, 11), "uint64")
    found = nibabel.load(shown(tmp_path, ".nii", spec_of("zyx", array.shape, "uint64", is_label=True), array))
    assert found.header.get_intent()[0] == "label"


def test_what_nifti_cannot_say_has_no_file() -> None:
    absent = [
        spec_of("zyx", (5, 7, 11), "float16"),
        spec_of("tcazyx", (1, 2, 3, 5, 7, 11), "uint8"),
        spec_of("zyxs", (5, 7, 11, 3), "uint16"),
        spec_of("zyxs", (5, 7, 11, 2), "uint8"),
        spec_of("zyx", (5, 0, 11), "uint8"),
    ]
    assert not [spec for spec in absent if volumes.layout(".nii", spec)]


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "bool"])
@pytest.mark.parametrize("names", ["yx", "zyx"])
def test_simpleitk_reads_it(tmp_path: Path, names: str, dtype: str) -> None:
    array = noise(SHAPES[names], dtype)
    found = SimpleITK.ReadImage(str(shown(tmp_path, ".nii", spec_of(names, array.shape, dtype, origin=True), array)))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found), array)
    np.testing.assert_allclose(found.GetSpacing(), [4e-6, 4.5e-6, 40e-6][: array.ndim], rtol=1e-6)
    # ITK's world is left and posterior: it shows what lies along NIfTI's axes with x and y turned round.
    np.testing.assert_allclose(found.GetOrigin(), [8e-6, -9e-6, 400e-6][: array.ndim], rtol=1e-6)


def test_an_axis_beyond_16_bits_is_nifti_2(tmp_path: Path) -> None:
    array = noise((2, 3, 40_000), "uint8")
    found = nibabel.load(shown(tmp_path, ".nii", spec_of("zyx", array.shape, "uint8", origin=True), array))
    assert isinstance(found, nibabel.Nifti2Image) and found.shape == (40_000, 3, 2)
    np.testing.assert_array_equal(np.asanyarray(found.dataobj), array.T)
    np.testing.assert_allclose(found.header.get_zooms(), [4e-6, 4.5e-6, 40e-6], rtol=1e-12)
    np.testing.assert_allclose(found.header.get_qform()[:3, 3], [-8e-6, 9e-6, 400e-6], rtol=1e-12)
    assert found.header.get_xyzt_units() == ("mm", "unknown")


def test_the_longest_axis_of_nifti_1() -> None:
    for size, kind in ((32_767, nibabel.Nifti1Header), (32_768, nibabel.Nifti2Header)):
        layout = layout_of(".nii", spec_of("zyx", (2, size, 3), "uint8"))
        head = layout.extents[0].data  # type: ignore[attr-defined]
        assert len(head) == kind.sizeof_hdr + 4 and kind(head[:-4]).get_data_shape() == (3, size, 2)


def test_sizes_beyond_32_bit_floats_are_nifti_2(tmp_path: Path) -> None:
    array = noise((5, 7, 11), "uint8")
    tiny = ((1e-50, 0, 0, 0), (0, 1e-50, 0, 0), (0, 0, 1e-50, 0))
    found = nibabel.load(shown(tmp_path, ".nii", spec_of("zyx", array.shape, "uint8", affine=tiny), array))
    assert isinstance(found, nibabel.Nifti2Image) and found.header.get_zooms() == (1e-50,) * 3


def test_ten_terabytes(tmp_path: Path) -> None:
    shape = (20_000, 22_000, 24_000)
    found = nibabel.load(head_of(tmp_path, ".nii", spec_of("zyx", shape, "uint8")))
    assert found.shape == shape[::-1] and found.dataobj[-1, -1, -1] == 0
