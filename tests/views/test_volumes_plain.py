"""NPY and raw volumes as numpy reads them; and what all volume files have in common."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kits.view_layouts import InMemory, ranges_equal_the_whole
from tests.kits.view_volumes import DTYPES, SHAPES, Numbered, layout_of, shown, spec_of
from volfs.errors import BadInput
from volfs.model.box import Box
from volfs.testing.volumes import noise
from volfs.views import volumes
from volfs.views.volume import VolumeSpec

ENDINGS = (".nii", ".nrrd", ".npy", ".mrc", ".raw", ".mha")
ALL_DTYPES = [*DTYPES, "int8", "int32", "uint32", "int64", "float16", "complex64", "complex128"]


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("names", SHAPES)
def test_numpy_maps_an_npy(tmp_path: Path, names: str, dtype: str) -> None:
    array = noise(SHAPES[names], dtype)
    found = np.load(shown(tmp_path, ".npy", spec_of(names, array.shape, dtype), array), mmap_mode="r")
    assert found.dtype == array.dtype and found.flags.c_contiguous
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("names", SHAPES)
def test_raw_is_what_its_description_says(tmp_path: Path, names: str, dtype: str) -> None:
    array = noise(SHAPES[names], dtype)
    spec = spec_of(names, array.shape, dtype, origin=True)
    said = json.loads(shown(tmp_path, ".raw.json", spec, array).read_text())
    shown(tmp_path, ".raw", spec, array)
    assert said["byte_order"] == "little" and said["axes"] == list(names)
    found = np.fromfile(tmp_path / said["file"], np.dtype(said["dtype"]).newbyteorder("<"))
    np.testing.assert_array_equal(found.reshape(said["shape"]), array)
    assert said["voxel_size"][-2:] == [4.5, 4.0] and said["origin"][-2:] == [9.0, -8.0]
    assert said["units"][-2:] == ["nanometer", "nanometer"]


def test_a_description_does_not_invent_units(tmp_path: Path) -> None:
    array = noise((7, 13, 5), "uint16")
    said = json.loads(shown(tmp_path, ".raw.json", spec_of("zyx", array.shape, units=False), array).read_text())
    assert said["units"] == [None] * 3


def test_every_volume_has_npy_and_raw_and_the_numbers_of_formats_stay() -> None:
    numbers = {".nii": 3, ".nrrd": 4, ".nhdr": 5, ".npy": 6, ".mrc": 7, ".raw": 8, ".raw.json": 9, ".mha": 10}
    assert {ending: volumes.FORMATS[ending].number for ending in numbers} == numbers
    odd = spec_of("abcdyx", (2, 1, 3, 2, 5, 7), "float16")
    assert {one.ending for one in volumes.listed(odd)} >= {".npy", ".raw", ".raw.json"}


@st.composite
def volumes_of_a_box(draw: st.DrawFn) -> tuple[str, VolumeSpec, np.ndarray]:
    """A format, and a box of a level that it holds."""
    names = draw(st.sampled_from(["yx", "zyx", "tzyx", "tczyx", "zyxs", "xzy"]))
    shape = tuple(draw(st.tuples(*(st.integers(1, 6) for _ in names))))
    edges = [sorted((draw(st.integers(0, n)), draw(st.integers(0, n)))) for n in shape]
    start = tuple(min(a, n - 1) for (a, _), n in zip(edges, shape, strict=True))
    stop = tuple(max(b, a + 1) for (_, b), a in zip(edges, start, strict=True))
    dtype = draw(st.sampled_from(ALL_DTYPES))
    spec = spec_of(names, shape, dtype, box=Box(start, stop), units=draw(st.booleans()), origin=True)
    held = [ending for ending in ENDINGS if volumes.FORMATS[ending].holds(spec)]
    return draw(st.sampled_from(held)), spec, noise(shape, dtype)


@given(volumes_of_a_box(), st.data())
def test_any_range_of_any_format_equals_the_whole(
    made: tuple[str, VolumeSpec, np.ndarray], data: st.DataObject
) -> None:
    ending, spec, array = made
    layout, source = layout_of(ending, spec), InMemory(array)
    whole = layout.read(source, 0, layout.size)
    assert len(whole) == layout.size
    ranges_equal_the_whole(layout, source, whole, data)


@given(volumes_of_a_box(), st.data())
def test_what_is_written_in_place_reads_back_and_changes_nothing_outside(
    made: tuple[str, VolumeSpec, np.ndarray], data: st.DataObject
) -> None:
    ending, spec, array = made
    layout, source = layout_of(ending, spec), InMemory(array.copy())
    assert layout.writable
    other = InMemory(noise(array.shape, array.dtype.name, seed=1))
    old, new = layout.read(source, 0, layout.size), layout.read(other, 0, layout.size)
    a = data.draw(st.integers(0, layout.size))
    b = data.draw(st.integers(a, layout.size))
    layout.write(source, a, new[a:b])
    assert layout.read(source, 0, layout.size) == old[:a] + new[a:b] + old[b:]
    layout.write(source, 0, new)
    inside = spec.box.slices()
    np.testing.assert_array_equal(source.array[inside], other.array[inside])
    outside = np.ones(array.shape, bool)
    outside[inside] = False
    np.testing.assert_array_equal(source.array[outside], array[outside])


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".nhdr", ".npy", ".mrc", ".raw.json", ".mha"])
def test_other_headers_are_refused(ending: str) -> None:
    array = noise((7, 13, 5), "int16")
    layout = layout_of(ending, spec_of("zyx", array.shape, "int16"))
    with pytest.raises(BadInput):
        layout.write(InMemory(array), 0, b"\xff")


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_voxel_is_cut_by_a_page(ending: str) -> None:
    for names, shape in SHAPES.items():
        for title in ("", "a", "cells", "something longer"):
            spec = spec_of(names, shape, "float32", title=title)
            if volumes.FORMATS[ending].holds(spec):
                assert (layout_of(ending, spec).size - 4 * spec.box.size) % 16 == 0


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_range_of_ten_terabytes_costs_what_it_has(ending: str) -> None:
    shape = (20_000, 22_000, 24_000)
    spec, at = spec_of("zyx", shape, "int16"), (10_007, 11_001, 12_345)
    layout = layout_of(ending, spec)
    start = layout.size - 2 * spec.box.size
    assert 0 <= start < 2048
    data = layout.read(Numbered(shape, "int16"), start + 2 * int(np.ravel_multi_index(at, shape)), 6)
    first = np.int64(sum(at)).astype(np.int16)
    assert np.frombuffer(data, "<i2").tolist() == [first, first + 1, first + 2]


def test_a_detached_header_names_the_raw_file_of_its_own_stem() -> None:
    spec = spec_of("zyx", (5, 7, 11), "uint8")
    text = layout_of(".nhdr", spec).read(InMemory(noise((5, 7, 11), "uint8")), 0, 10_000).decode()
    assert re.search(r"^data file: volume\.raw$", text, re.MULTILINE)
