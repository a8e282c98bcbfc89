"""HDF5 volumes, judged by h5py."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kits.paths import ROOT
from tests.kits.view_layouts import InMemory
from tests.kits.view_volumes import DTYPES, SHAPES, Numbered, layout_of, shown, spec_of
from volfs.errors import BadInput
from volfs.model.box import Box
from volfs.testing.volumes import noise
from volfs.testing.waiting import PATIENCE
from volfs.views import volumes
from volfs.views.layout import Layout, VoxelSource
from volfs.views.volume import ShownAxis, VolumeSpec
from volfs.views.volumes import hdf5


@pytest.mark.parametrize("names", [*SHAPES, "atczyx"])
@pytest.mark.parametrize("dtype", [*DTYPES, "int8", "uint32", "int64", "float16", "complex64", "complex128"])
def test_h5py_sees_every_voxel_in_one_piece(tmp_path: Path, names: str, dtype: str) -> None:
    array = noise(SHAPES.get(names, (2, 3, 2, 4, 3, 5)), dtype)
    path = shown(tmp_path, ".h5", spec_of(names, array.shape, dtype), array)
    with h5py.File(path, "r") as file:
        assert list(file) == ["data"]
        data = file["data"]
        assert data.dtype == array.dtype and data.chunks is None and data.compression is None
        np.testing.assert_array_equal(data[...], array)
        offset = data.id.get_offset()
        assert data.id.get_storage_size() == array.nbytes
        assert [dimension.label for dimension in data.dims] == list(names)
    assert offset % 64 == 0
    np.testing.assert_array_equal(np.memmap(path, array.dtype, "r", offset, array.shape), array)


def test_voxel_sizes_are_those_of_ilastik_and_fiji(tmp_path: Path) -> None:
    array = noise((3, 2, 5, 7, 11), "uint16")
    path = shown(tmp_path, ".h5", spec_of("tczyx", array.shape), array)
    with h5py.File(path, "r") as file:
        attributes = dict(file["data"].attrs)
    assert attributes["element_size_um"].tolist() == [0.04, 0.0045, 0.004]
    assert json.loads(attributes["axis_units"])["x"] == "nanometer"
    assert json.loads(attributes["axistags"]) == {
        "axes": [
            {"key": "t", "typeFlags": 8, "resolution": 0.5, "description": ""},
            {"key": "c", "typeFlags": 1, "resolution": 0.0, "description": ""},
            {"key": "z", "typeFlags": 2, "resolution": 40.0, "description": ""},
            {"key": "y", "typeFlags": 2, "resolution": 4.5, "description": ""},
            {"key": "x", "typeFlags": 2, "resolution": 4.0, "description": ""},
        ]
    }


def test_without_units_there_are_no_micrometres(tmp_path: Path) -> None:
    array = noise((5, 7, 11), "uint16")
    path = shown(tmp_path, ".h5", spec_of("zyx", array.shape, units=False), array)
    with h5py.File(path, "r") as file:
        assert "element_size_um" not in file["data"].attrs and "axis_units" not in file["data"].attrs
        assert [tag["resolution"] for tag in json.loads(file["data"].attrs["axistags"])["axes"]] == [0, 0, 0]


def test_samples_are_channels_and_axes_of_other_names_are_z_y_x_to_others(tmp_path: Path) -> None:
    array = noise((4, 5, 3), "uint8")
    path = shown(tmp_path, ".h5", spec_of("yxs", array.shape, "uint8"), array)
    with h5py.File(path, "r") as file:
        assert [tag["key"] for tag in json.loads(file["data"].attrs["axistags"])["axes"]] == ["y", "x", "c"]
    axes = tuple(ShownAxis(i, name, "space", n) for i, (name, n) in enumerate(zip("pqr", (4, 5, 3), strict=True)))
    spec = VolumeSpec(Box.whole((4, 5, 3)), np.dtype(np.uint8), axes)
    with h5py.File(shown(tmp_path, ".h5", spec, array), "r") as file:
        assert [dimension.label for dimension in file["data"].dims] == ["z", "y", "x"]


def test_what_is_imported_is_what_was_shown(tmp_path: Path) -> None:
    from volfs.ingest.readers.hdf5 import open_hdf5

    array = noise((3, 2, 5, 7, 11), "uint16")
    source = open_hdf5(shown(tmp_path, ".h5", spec_of("tczyx", array.shape), array))
    told = source.description
    assert [axis.name for axis in told.axes] == list("tczyx")
    assert told.scale[2:] == (0.04, 0.0045, 0.004) and told.axes[2].unit == "micrometer"
    source.close()


# --------------------------------------------------------------------------------------------------- bytes and writing


@given(st.sampled_from(sorted(SHAPES)), st.sampled_from(DTYPES), st.data())
def test_any_range_equals_the_whole_and_writing_it_back_changes_nothing(
    names: str, dtype: str, data: st.DataObject
) -> None:
    shape = tuple(data.draw(st.integers(1, 5)) for _ in names)
    array = noise(shape, dtype)
    layout, source = layout_of(".h5", spec_of(names, shape, dtype)), InMemory(array.copy())
    whole = layout.read(source, 0, layout.size)
    assert len(whole) == layout.size
    for _ in range(5):
        a = data.draw(st.integers(0, len(whole)))
        b = data.draw(st.integers(a, len(whole)))
        assert layout.read(source, a, b - a) == whole[a:b]
        layout.write(source, a, whole[a:b])
    np.testing.assert_array_equal(source.array, array)


def test_voxels_are_written_where_h5py_says_that_they_are_and_nothing_else_is(tmp_path: Path) -> None:
    array, new = noise((5, 7, 11), "uint16"), noise((5, 7, 11), "uint16", 1)
    spec, source = spec_of("zyx", array.shape), InMemory(array.copy())
    layout = layout_of(".h5", spec)
    with h5py.File(shown(tmp_path, ".h5", spec, array), "r") as file:
        offset = file["data"].id.get_offset()
    layout.write(source, offset, new.tobytes())
    np.testing.assert_array_equal(source.array, new)
    for at in (20, offset - 1, offset + array.nbytes):
        wrong = bytes([layout.read(source, at, 1)[0] ^ 1])
        with pytest.raises(BadInput):
            layout.write(source, at, wrong)


def test_the_same_volume_has_the_same_bytes_everywhere() -> None:
    script = (
        "from tests.kits.view_volumes import *; from volfs.testing.volumes import noise;"
        "import hashlib; a = noise((5, 7, 11), 'uint16');"
        "l = layout_of('.h5', spec_of('zyx', a.shape));"
        "print(hashlib.sha256(l.read(InMemory(a), 0, l.size)).hexdigest())"
    )
    array = noise((5, 7, 11), "uint16")
    layout = layout_of(".h5", spec_of("zyx", array.shape))
    here = hashlib.sha256(layout.read(InMemory(array), 0, layout.size)).hexdigest()
    there = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE, cwd=ROOT
    )
    assert there.stdout.strip() == here


# ------------------------------------------------------------------------------------------------------- large volumes


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((4095, 1024, 1024), "uint8"),
        ((4097, 1024, 1024), "uint8"),
        ((3, 70_000, 65_537), "uint16"),
        ((20_000, 22_000, 24_000), "uint8"),
        ((200_000, 220_000, 240_000), "uint16"),
    ],
)
def test_large_volumes_are_made_at_once_and_read_anywhere(shape: tuple[int, ...], dtype: str) -> None:
    spec, source = spec_of("zyx", shape, dtype), Numbered(shape, dtype)
    hdf5._frame.cache_clear()
    began = time.process_time()
    layout = layout_of(".h5", spec)
    assert time.process_time() - began < 0.1
    assert len(hdf5._frame(hdf5._Facts.of(spec))[0]) < 8192
    began = time.process_time()
    for _ in range(100):
        layout_of(".h5", spec)
    assert time.process_time() - began < 0.1
    with h5py.File(_File(layout, source), "r") as file:
        data = file["data"]
        assert data.shape == shape and layout.size > data.id.get_offset() + data.nbytes
        for at in ((0, 0, 0), tuple(n // 2 for n in shape), tuple(n - 3 for n in shape)):
            box = Box(at, tuple(min(a + 3, n) for a, n in zip(at, shape, strict=True)))
            np.testing.assert_array_equal(data[box.slices()], source.read(box))


def test_what_no_file_can_hold_is_absent() -> None:
    assert volumes.layout(".h5", spec_of("zyx", (1 << 21, 1 << 21, 1 << 21))) is None
    assert volumes.layout(".h5", spec_of("zyx", (3, 4, 5), "V3")) is None


def test_without_h5py_there_is_no_such_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    hdf5._h5py.cache_clear()
    try:
        assert volumes.layout(".h5", spec_of("zyx", (3, 4, 5))) is None
        assert volumes.layout(".npy", spec_of("zyx", (3, 4, 5))) is not None
    finally:
        hdf5._h5py.cache_clear()


class _File(io.RawIOBase):
    """A layout as a file."""

    def __init__(self, layout: Layout, source: VoxelSource) -> None:
        self._layout, self._source, self._at = layout, source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._layout.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._layout.read(self._source, self._at, len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
