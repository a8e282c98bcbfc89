"""HDF5 of programs that people use: where they leave sizes, what their filters need, and one dataset of several."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import zstandard
from nibabel.testing import data_path

import volfs
from tests.kits.import_sources import holds
from volfs.errors import BadInput
from volfs.ingest.axis_order import arrange
from volfs.ingest.importer import import_source
from volfs.ingest.readers import open_source
from volfs.ingest.source import Source
from volfs.model.box import Box
from volfs.testing.volumes import noise

DATA = noise((4, 5, 6), "u2")


def sizes(source: Source) -> dict[str, tuple[float, str | None]]:
    found = source.description
    return {a.name: (s, a.unit) for a, s in zip(found.axes, found.scale, strict=True)}


# ------------------------------------------------------------------------------------------------------- sizes


def test_eman2_says_the_size_of_a_pixel_beside_each_image(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "e.hdf", "w") as file:
        for number, size in enumerate((1.25, 3.5)):
            group = file.create_group(f"MDF/images/{number}")
            group["image"] = DATA + number
            for name in "xyz":
                group.attrs[f"EMAN.apix_{name}"] = size
    for number, size in enumerate((1.25, 3.5)):
        for part in (f"MDF/images/{number}/image", f"/MDF/images/{number}", number):
            source = open_source([f"{tmp_path / 'e.hdf'}:{part}"])
            assert sizes(source) == dict.fromkeys("zyx", (size, "angstrom"))
            holds(source, DATA + number, "zyx")


@pytest.mark.parametrize("order", ["zyx", "xyz", "tzyxc", "yx"])
def test_ilastik_says_sizes_in_its_axistags(tmp_path: Path, order: str) -> None:
    sized = {"z": 2.5, "y": 0.5, "x": 0.25, "t": 0.0, "c": 7.0}
    data = noise(tuple(range(3, 3 + len(order))), "u1")
    with h5py.File(tmp_path / "i.h5", "w") as file:
        file["exported_data"] = data
        tags = [{"key": n, "typeFlags": 2, "resolution": sized[n], "description": ""} for n in order]
        file["exported_data"].attrs["axistags"] = json.dumps({"axes": tags})
    found = sizes(open_source([tmp_path / "i.h5"]))
    wanted = {"z": 2.5, "y": 0.5, "x": 0.25, "t": 1.0, "c": 1.0}
    assert found == {n: (wanted[n], None) for n in order}


def test_element_sizes_count_before_what_has_no_unit(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "i.h5", "w") as file:
        file["d"] = DATA
        tags = [{"key": n, "resolution": 9.0} for n in "zyx"]
        file["d"].attrs["axistags"] = json.dumps({"axes": tags})
        file["d"].attrs["element_size_um"] = [3.0, 2.0, 1.0]
    assert sizes(open_source([tmp_path / "i.h5"])) == {
        n: (s, "micrometer") for n, s in zip("zyx", (3, 2, 1), strict=True)
    }


@pytest.mark.parametrize("whole", [True, False])
def test_berkeley_emd_says_positions_along_each_axis(tmp_path: Path, whole: bool) -> None:
    steps = {"z": 1.5, "y": 0.25, "x": 0.5}
    with h5py.File(tmp_path / "a.emd", "w") as file:
        group = file.create_group("data/tilt series")
        group.attrs["emd_group_type"] = 1
        group["data"] = DATA
        for number, (name, step) in enumerate(steps.items()):
            count = DATA.shape[number] if whole else 2
            dim = group.create_dataset(f"dim{number + 1}", data=np.arange(count) * step + 10, dtype="f4")
            dim.attrs["name"], dim.attrs["units"] = name, np.bytes_("[n_m]")
    source = open_source([tmp_path / "a.emd"])
    assert sizes(source) == {name: (step, "nanometer") for name, step in steps.items()}
    assert source.description.translation == (10.0, 10.0, 10.0)
    holds(source, DATA, "zyx")


def test_dimension_scales_that_are_even_are_sizes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["v"] = DATA
        for number, (name, step) in enumerate((("t", 0.5), ("y", 2.0), ("x", 3.0))):
            positions = np.arange(DATA.shape[number]) * step
            if name == "y":
                positions[-1] += 1  # uneven: no size
            file[name] = positions
            file[name].make_scale(name)
            file[name].attrs["units"] = "s" if name == "t" else "um"
            file["v"].dims[number].attach_scale(file[name])
    source = open_source([f"{tmp_path / 'a.nc'}:v"])
    assert sizes(source) == {"t": (0.5, "second"), "y": (1.0, None), "x": (3.0, "micrometer")}
    assert source.description.lost == ("positions along y, which are not evenly spaced",)


def test_minc_as_nibabel_reads_it() -> None:
    checked = 0
    for path in sorted(Path(data_path).glob("minc2*.mnc")):
        if not h5py.is_hdf5(path) or "bad" in path.name:
            continue
        judge: Any = nibabel.load(path)
        try:
            expected = np.asarray(judge.dataobj)
        except Exception:  # what nibabel keeps as an example of what it does not read
            continue
        source = open_source([path])
        found = source.description
        seen = source.read(Box.whole(found.shape)).astype(float)
        if found.rescale is not None:
            seen = seen * found.rescale.slope + found.rescale.intercept
        np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-5 * abs(expected).max())
        names = [a.name for a in found.axes]
        order = [names.index(n) for n in "xyz"]
        lead = len(names) - 3
        affine = np.asarray(found.facts["affine"])
        wanted = judge.affine[:3, [n - lead for n in order] + [3]]
        np.testing.assert_allclose(affine[:3], wanted, atol=1e-9)
        np.testing.assert_allclose(found.scale[lead:], judge.header.get_zooms()[-3:])
        with h5py.File(path) as file:
            dims = file["minc-2.0/dimensions"]
            for a in (a for a in found.axes if a.name in "xyz"):
                assert a.unit == ("millimeter" if "units" in dims[f"{a.name}space"].attrs else None)
        checked += 1
    assert checked >= 2


def minc(path: Path, data: np.ndarray, lows: Any, highs: Any) -> None:
    """As libminc lays it out, with directions that are turned."""
    turned = np.array([[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, 1.0]])
    with h5py.File(path, "w") as file:
        dims = file.create_group("minc-2.0/dimensions")
        order = "zspace,yspace,xspace"
        for number, name in enumerate(("xspace", "yspace", "zspace")):
            made = dims.create_dataset(name, data=np.int32(0))
            made.attrs["step"], made.attrs["start"] = (number + 0.5) * (-1 if number == 1 else 1), 10.0 * number
            made.attrs["units"], made.attrs["direction_cosines"] = np.bytes_("mm"), turned[number]
            made.attrs["length"] = np.uint32(data.shape[2 - number])
            made.attrs["spacing"] = np.bytes_("regular__")
        group = file.create_group("minc-2.0/image/0")
        image = group.create_dataset("image", data=data)
        image.attrs["dimorder"] = np.bytes_(order)
        image.attrs["valid_range"] = np.array([0.0, 1000.0])
        for name, values in (("image-min", lows), ("image-max", highs)):
            made = group.create_dataset(name, data=np.asarray(values, float))
            if np.ndim(values):
                made.attrs["dimorder"] = np.bytes_("zspace")


@pytest.mark.parametrize("each", [True, False])
def test_minc_real_values_of_the_whole_or_of_each_slice(tmp_path: Path, each: bool) -> None:
    data = DATA % 1000
    lows, highs = ([-1.0, 0.0, 2.0, 0.5], [1.0, 5.0, 4.0, 9.5]) if each else (-1024.0, 3071.0)
    minc(tmp_path / "a.mnc", data, lows, highs)
    judge: Any = nibabel.load(tmp_path / "a.mnc")
    source = open_source([tmp_path / "a.mnc"])
    found = source.description
    seen = source.read(Box.whole(found.shape)).astype(float)
    if each:
        assert found.dtype == np.float32 and "scales of their own" in found.remarks[0]
        np.testing.assert_allclose(source.read(Box((2, 1, 0), (4, 3, 6))), seen[2:4, 1:3], rtol=1e-6)
    else:
        assert found.dtype == np.uint16 and found.rescale is not None
        seen = seen * found.rescale.slope + found.rescale.intercept
    np.testing.assert_allclose(seen, np.asarray(judge.dataobj), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.asarray(found.facts["affine"])[:3], judge.affine[:3, [2, 1, 0, 3]])
    assert found.scale == (2.5, 1.5, 0.5)


# ------------------------------------------------------------------------------------------------------- filters


def with_filter(path: Path, number: int, options: tuple[int, ...], chunk: bytes) -> None:
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(DATA.shape)
        plist.set_filter(number, h5py.h5z.FLAG_OPTIONAL, options)
        space = h5py.h5s.create_simple(DATA.shape)
        made = h5py.h5d.create(file.id, b"d", h5py.h5t.py_create(DATA.dtype), space, plist)
        made.write_direct_chunk((0, 0, 0), chunk)


def test_a_filter_of_hdf5plugin_is_used_if_that_is_installed(tmp_path: Path) -> None:
    with_filter(tmp_path / "a.h5", 32015, (3,), zstandard.compress(DATA.astype("<u2").tobytes()))
    if importlib.util.find_spec("hdf5plugin") is None:
        with pytest.raises(BadInput, match=r"a\.h5:/d .*filter zstd \(32015\).*pip install hdf5plugin"):
            open_source([tmp_path / "a.h5"])
        return
    holds(open_source([tmp_path / "a.h5"]), DATA, "zyx")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (32001, "filter blosc .*pip install hdf5plugin"),
        (32008, "filter bitshuffle .*pip install hdf5plugin"),
        (32026, "filter blosc2 .*pip install hdf5plugin"),
        (511, r"filter unknown \(511\).*HDF5_PLUGIN_PATH"),
    ],
)
def test_a_filter_that_is_not_there_is_named_with_its_package(tmp_path: Path, number: int, said: str) -> None:
    with_filter(tmp_path / "a.h5", number, (0, 0, 2), bytes(100))
    # In a process of its own, for a filter that was once added stays.
    code = (
        "import sys; sys.modules['hdf5plugin'] = None\n"
        "from volfs.ingest.readers import open_source\n"
        f"open_source([{str(tmp_path / 'a.h5')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert re.search(said, done.stderr.strip().splitlines()[-1]), done.stderr


# ------------------------------------------------------------------------------------------------------- parts


def test_a_dataset_is_chosen_by_place_by_name_or_by_number(tmp_path: Path) -> None:
    path = tmp_path / "v.h5"
    with h5py.File(path, "w") as file:
        file["a/raw"], file["a/labels"], file["b/raw"] = DATA, DATA + 1, DATA[0]
    with pytest.raises(BadInput, match=r"0: /a/labels, 4 x 5 x 6 uint16; 1: /a/raw, .*2: /b/raw, 5 x 6 uint16\)"):
        open_source([path])
    for part, expected in (("/a/raw", DATA), ("a/labels", DATA + 1), ("labels", DATA + 1), ("1", DATA), ("b", DATA[0])):
        holds(arrange(open_source([f"{path}:{part}"])), expected, "zyx"[-expected.ndim :])
    with pytest.raises(BadInput, match="2 arrays of voxels called raw"):
        open_source([f"{path}:raw"])


NETCDF = (
    ("time", "days since 2000-01-01", 10.0, 2.0),
    ("depth", "m", 0.0, 5.0),
    ("latitude", "degrees_north", 60.0, -0.5),
    ("lon", "degrees_east", 0.0, 0.25),
)


def test_coordinates_of_netcdf_name_axes_and_units(tmp_path: Path) -> None:
    data = noise((3, 4, 5, 6), "i2")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("v", data=data)
        for count, dim, told in zip(data.shape, made.dims, NETCDF, strict=True):
            name, unit, first, step = told
            file[name] = first + step * np.arange(count)
            file[name].attrs["units"] = unit
            file[name].make_scale(name)
            dim.attach_scale(file[name])
    source = open_source([f"{tmp_path}/a.h5:v"])
    holds(arrange(source), data, "tzyx")
    wanted = {"t": (2.0, "day"), "z": (5.0, "meter"), "y": (-0.5, "degrees_north"), "x": (0.25, "degrees_east")}
    assert sizes(source) == wanted
    assert source.description.translation == (10.0, 0.0, 60.0, 0.0)
    told = source.description.facts["coordinates"]
    assert told["t"] == {"name": "time", "units": "days since 2000-01-01"} and told["y"]["name"] == "latitude"


POSITIONS = [np.arange(4) * -2.5, 7 + np.arange(4) * 0.5, 90 - np.arange(4) * 60.0, np.linspace(1, -1, 4)]


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("named", ["depth", "y", "lon"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_voxel_lies_where_its_coordinate_says(tmp_path: Path, positions: np.ndarray, named: str, dtype: str) -> None:
    names = {"depth": ["depth", "y", "x"], "y": ["z", "y", "x"], "lon": ["z", "lat", "lon"]}[named]
    with h5py.File(tmp_path / "a.nc", "w") as file:
        made = file.create_dataset("v", data=noise((4, 4, 4), "i2"))
        for dim, name in zip(made.dims, names, strict=True):
            file.create_dataset(name, data=positions if name == named else np.arange(4.0), dtype=dtype)
            file[name].make_scale(name)
            file[name].attrs["units"] = "mm"
            dim.attach_scale(file[name])
    with volfs.init_store(tmp_path / "store") as store, open_source([f"{tmp_path}/a.nc:v"]) as source:
        import_source(store, "d", "", source)
        level = volfs.images(store["d"]["latest"])[""].levels[0]
        at = names.index(named)
        seen = level.translation[at] + level.scale[at] * np.arange(4)
        with h5py.File(tmp_path / "a.nc") as file:
            np.testing.assert_allclose(seen, file[named][...], rtol=1e-6, atol=1e-6)


def test_dimensions_of_netcdf_without_coordinates_say_nothing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.nc", "w") as file:
        made = file.create_dataset("v", data=noise((3, 4, 5), "i2"))
        for dim, count in zip(made.dims, made.shape, strict=True):
            file[f"n{count}"] = np.zeros(count, ">f4")
            file[f"n{count}"].make_scale(f"This is a netCDF dimension but not a netCDF variable.{count:10}")
            dim.attach_scale(file[f"n{count}"])
    found = open_source([f"{tmp_path}/a.nc:v"]).description
    assert (found.lost, found.translation, found.scale) == ((), None, (1.0, 1.0, 1.0))
    assert "coordinates" not in found.facts


def test_a_file_without_voxels_says_what_is_in_it(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["table"] = np.zeros((3, 4), [("a", "f4"), ("b", "i2")])
        file["g/line"] = np.arange(5)
        file["empty"] = h5py.Empty("f4")
    with pytest.raises(BadInput, match=r"a\.h5 holds no array of voxels .*/g/line, 5 int64; /table, 3 x 4 of records"):
        open_source([tmp_path / "a.h5"])
    h5py.File(tmp_path / "b.h5", "w").close()
    with pytest.raises(BadInput, match=r"b\.h5 holds no array of voxels .*, but nothing"):
        open_source([tmp_path / "b.h5"])
