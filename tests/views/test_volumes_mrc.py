"""MRC files as mrcfile validates, maps and reads them, and as SimpleITK reads them."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import SimpleITK

from tests.kits.view_layouts import InMemory
from tests.kits.view_volumes import head_of, layout_of, shown, spec_of
from volfs.errors import BadInput
from volfs.testing.volumes import noise
from volfs.views import volumes

MODES = {"int8": 0, "int16": 1, "float32": 2, "complex64": 4, "uint16": 6, "float16": 12}


@pytest.mark.parametrize("dtype", [*MODES, "uint8", "bool"])
@pytest.mark.parametrize(("names", "group"), [("yx", 0), ("zyx", 1), ("tyx", 0), ("tzyx", 401), ("czyx", 401)])
def test_mrcfile_finds_it_valid_and_reads_every_voxel(
    tmp_path: Path, names: str, group: int, dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    array = noise((2, 5, 7, 11)[-len(names) :], dtype)
    path = shown(tmp_path, ".mrc", spec_of(names, array.shape, dtype, origin=True), array)
    assert mrcfile.validate(path), capsys.readouterr().out
    with mrcfile.mmap(path, mode="r") as found:
        assert found.header.ispg == group and found.header.mode == MODES.get(dtype, 6 if dtype == "uint8" else 0)
        assert found.data.shape == array.shape
        np.testing.assert_array_equal(found.data, array)
        size = [found.voxel_size[axis].item() for axis in "xyz"]
        np.testing.assert_allclose(size, [40, 45, 400 if "z" in names else 1], rtol=1e-6)
        np.testing.assert_allclose(found.header.origin.tolist(), (-80, 90, 4000 if "z" in names else 0), rtol=1e-6)


def test_one_section_is_a_volume_and_a_plane_is_an_image(tmp_path: Path) -> None:
    array = noise((1, 7, 11), "int16")
    with mrcfile.open(shown(tmp_path, ".mrc", spec_of("zyx", array.shape, "int16"), array)) as found:
        assert found.data.shape == (1, 7, 11) and found.is_volume()
    array = noise((1, 5, 7, 11), "int16")
    with mrcfile.open(shown(tmp_path, ".mrc", spec_of("tzyx", array.shape, "int16"), array)) as found:
        assert found.data.shape == (1, 5, 7, 11) and found.is_volume_stack()


def test_an_unknown_unit_is_a_cell_of_unknown_size(tmp_path: Path) -> None:
    array = noise((5, 7, 11), "float32")
    path = shown(tmp_path, ".mrc", spec_of("zyx", array.shape, "float32", units=False, origin=True), array)
    assert mrcfile.validate(path)
    with mrcfile.open(path) as found:
        assert found.voxel_size.tolist() == (0, 0, 0) and found.header.origin.tolist() == (0, 0, 0)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8", "float32"])
def test_simpleitk_reads_it(tmp_path: Path, dtype: str) -> None:
    array = noise((7, 13, 5), dtype)
    found = SimpleITK.ReadImage(str(shown(tmp_path, ".mrc", spec_of("zyx", array.shape, dtype, origin=True), array)))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found), array)
    np.testing.assert_allclose(found.GetSpacing(), [40, 45, 400], rtol=1e-6)
    np.testing.assert_allclose(found.GetOrigin(), [-80, 90, 4000], rtol=1e-6)


def test_bytes_widened_in_the_file_are_written_back_and_larger_numbers_are_refused() -> None:
    array = noise((5, 7, 11), "uint8")
    layout, source = layout_of(".mrc", spec_of("zyx", array.shape, "uint8")), InMemory(array.copy())
    assert layout.size == 1024 + 2 * array.size
    layout.write(source, 1024 + 2 * 11, bytes([200, 0, 201, 0, 202]))  # half a voxel more
    assert source.array[0, 1, :3].tolist() == [200, 201, 202]
    layout.write(source, 1024 + 1, b"\0\x07\0")
    assert source.array[0, 0, :2].tolist() == [array[0, 0, 0], 7]
    before = source.array.copy()
    for offset, data in ((1024, b"\x00\x01"), (1025, b"\x01"), (1024 + 3, b"\x01\x05")):
        with pytest.raises(BadInput, match="uint8"):
            layout.write(source, offset, data)
    np.testing.assert_array_equal(source.array, before)


def test_what_mrc_cannot_say_has_no_file() -> None:
    absent = [
        *(
            spec_of("zyx", (5, 7, 11), dtype)
            for dtype in ("uint32", "int32", "uint64", "int64", "float64", "complex128")
        ),
        spec_of("tczyx", (2, 3, 5, 7, 11)),
        spec_of("zyxs", (5, 7, 11, 3), "uint8"),
        spec_of("zyx", (2**31, 7, 11)),
        spec_of("tzyx", (2**20, 2**11, 7, 11)),
    ]
    assert not [spec for spec in absent if volumes.layout(".mrc", spec)]
    assert volumes.layout(".mrc", spec_of("zyx", (2**31 - 1, 7, 11))) is not None


def test_a_volume_of_terabytes(tmp_path: Path) -> None:
    shape = (70_000, 22_000, 2_000)
    with mrcfile.mmap(head_of(tmp_path, ".mrc", spec_of("zyx", shape, "int16")), mode="r") as found:
        assert found.data.shape == shape and found.data[-1, -1, -1] == 0
        assert found.header.nx == 2_000
