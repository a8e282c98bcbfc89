"""ImageJ, unmodified and headless, opens volume files: its statistics, voxels and calibration equal numpy's."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import volfs
from tests.judges import imagej
from tests.kits.judged import Source, Volume, mounted_sources
from tests.kits.paths import ROOT
from tests.kits.view_layouts import InMemory
from tests.kits.view_volumes import layout_of, shown, spec_of
from volfs.model.box import Box
from volfs.model.ngff import axis, ome_attributes, pyramid
from volfs.testing.kit import image, mounted
from volfs.testing.volumes import noise
from volfs.testing.waiting import PATIENCE

KINDS = {
    "u8": Source("zyx", image((19, 33, 27), "uint8")),
    "u16": Source("zyx", image((9, 33, 31), "uint16", 1)),
    "i16": Source("zyx", image((9, 21, 31), "int16", 2)),
    "f32": Source("zyx", image((11, 40, 35), "float32", 3)),
    "flag": Source("zyx", image((5, 17, 9), "uint8") > 99),
    "u8movie": Source("tczyx", image((3, 2, 5, 30, 41), "uint8", 4)),
    "u16movie": Source("tczyx", image((3, 2, 5, 30, 41), "uint16", 5)),
    "f32movie": Source("tczyx", image((3, 2, 5, 30, 41), "float32", 6)),
    "flat": Source("yx", image((123, 77), "uint8", 7)),
}
HUGE = (5000, 1024, 1024)
AT = (4998, 700, 301)


def opened(*paths: Path, virtual: bool = False) -> list[dict[str, Any]]:
    """What ImageJ says of files."""
    assert imagej.JAR.exists(), "ImageJ is not installed: run `sh .ci/setup tests`"
    command = [sys.executable, "-m", "tests.judges.imagej", *(["--virtual"] if virtual else []), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("found ")]
    assert [one["path"] for one in found] == list(map(str, paths)), done.stdout + done.stderr
    return found


def pixels(array: Volume) -> Volume:
    """As ImageJ keeps them: signed 16-bit voxels are counted from the least, bool is 0 and 1."""
    if array.dtype == np.int16:
        return (array.astype(np.int32) + 2**15).astype(np.uint16)
    return array.astype(np.uint8) if array.dtype == bool else array


def agrees(found: dict[str, Any], array: Volume, names: str) -> None:
    """ImageJ's size, order, voxels and statistics of a stack equal those of an array."""
    sizes = dict(zip(names, array.shape, strict=True))
    told = {name: found[key] for key, name in (("frames", "t"), ("slices", "z"), ("channels", "c"))}
    assert told == {name: sizes.get(name, 1) for name in "tzc"}
    assert (found["height"], found["width"]) == array.shape[-2:]
    assert found["bits"] == {1: 8, 2: 16, 4: 32}[array.dtype.itemsize]
    stack = array.transpose([names.index(name) for name in "tzcyx" if name in names]).reshape(-1, *array.shape[-2:])
    assert len(found["images"]) == len(stack)
    for number, plane in enumerate(stack, 1):
        one = found["images"][str(number)]
        assert one["crc32"] == zlib.crc32(np.ascontiguousarray(pixels(plane)).tobytes()), number
        assert (one["min"], one["max"]) == (plane.min(), plane.max())
        assert one["mean"] == pytest.approx(plane.mean(dtype=np.float64), rel=1e-9, abs=1e-9)
    assert (found["min"], found["max"]) == (array.min(), array.max())
    assert found["mean"] == pytest.approx(array.mean(dtype=np.float64), rel=1e-6, abs=1e-6)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """What ImageJ says of ``volume.tif`` of every dataset, on a mount."""
    with mounted_sources(tmp_path_factory.mktemp("imagej"), KINDS) as mount:
        found = opened(*(mount.version(name) / "s0" / "volume.tif" for name in KINDS))
        one = mount.version("u16movie") / "s0" / "t0001" / "volume.tif"
        yield dict(zip([*KINDS, "u16movie at 1"], [*found, *opened(one)], strict=True))


@pytest.mark.parametrize("name", KINDS)
def test_it_sees_every_voxel_in_its_place(seen: dict[str, dict[str, Any]], name: str) -> None:
    agrees(seen[name], KINDS[name].voxels, KINDS[name].axes)


@pytest.mark.parametrize("name", KINDS)
def test_it_sees_voxel_sizes(seen: dict[str, dict[str, Any]], name: str) -> None:
    z = 0.04 if "z" in KINDS[name].axes else 1
    assert seen[name]["voxel"] == pytest.approx([z, 0.0045, 0.004], rel=1e-12)
    assert seen[name]["unit"] == "micron"
    assert seen[name]["hyperstack"] == ("movie" in name)


def test_it_sees_one_time_point(seen: dict[str, dict[str, Any]]) -> None:
    agrees(seen["u16movie at 1"], KINDS["u16movie"].voxels[1], "czyx")


def test_it_sees_intervals_origins_and_colour(tmp_path: Path) -> None:
    movie, colour = noise((3, 5, 7, 11), "uint16"), noise((3, 5, 7, 3), "uint8")
    for name in ("movie", "colour"):
        (tmp_path / name).mkdir()
    paths = [
        shown(tmp_path / "movie", ".tif", spec_of("tzyx", movie.shape, origin=True), movie),
        shown(tmp_path / "colour", ".tif", spec_of("zyxs", colour.shape, "uint8", units=False), colour),
    ]
    found = opened(*paths)
    assert found[0]["interval"] == 0.5 and found[0]["origin"] == [-10, -2, 2]
    assert found[1]["voxel"] == pytest.approx([40, 4.5, 4]) and found[1]["unit"] == "pixel"
    packed = (0xFF << 24 | colour.astype(np.int64) @ [1 << 16, 1 << 8, 1]).astype(np.uint32)
    for number, plane in enumerate(packed, 1):
        assert found[1]["images"][str(number)]["crc32"] == zlib.crc32(plane.tobytes())


# ---------------------------------------------------------------------------------------------------- beyond four GiB


def test_it_opens_the_stack_of_one_directory(tmp_path: Path) -> None:
    """That of a volume that is small enough for a test, made as that of a large one is."""
    from volfs.views.volumes import tiff

    for name in ("u8", "u16", "i16", "f32", "u16movie", "f32movie"):
        one = KINDS[name]
        layout = tiff.layout_imagej(spec_of(one.axes, one.voxels.shape, one.voxels.dtype.name))
        path = tmp_path / f"{name}.tif"
        path.write_bytes(layout.read(InMemory(one.voxels), 0, layout.size))
        (found,) = opened(path)
        agrees(found, one.voxels, one.axes)
        assert found["voxel"] == pytest.approx([0.04, 0.0045, 0.004]) and found["unit"] == "micron"


def test_it_opens_more_than_four_gibibytes_as_a_virtual_stack(tmp_path: Path) -> None:
    """Most of the file is a hole; the planes that ImageJ looks at are there."""
    shape = (3, 2, 500, 1024, 1024)
    spec = spec_of("tczyx", shape, "uint16")
    layout, path = layout_of(".imagej.tif", spec), tmp_path / "volume.imagej.tif"
    plane = 1024 * 1024 * 2
    start = layout.size - 3000 * plane
    expected = {number: image((1024, 1024), "uint16", number) for number in (1, 2, 1500, 2999, 3000)}
    with path.open("wb") as file:
        file.truncate(layout.size)
        file.write(layout.read(InMemory(np.zeros((1,) * 5, np.uint16)), 0, start))
        for number, voxels_of in expected.items():
            file.seek(start + (number - 1) * plane)
            file.write(voxels_of.tobytes())
    (found,) = opened(path, virtual=True)
    assert found["virtual"] and (found["frames"], found["slices"], found["channels"]) == (3, 500, 2)
    assert {int(n): one["crc32"] for n, one in found["images"].items()} == {
        number: zlib.crc32(array.tobytes()) for number, array in expected.items()
    }


def test_it_opens_more_than_four_gibibytes_on_a_mount(tmp_path: Path) -> None:
    with volfs.init_store(tmp_path / "store") as store:
        branch = store.create_dataset("huge").branch("main")
        axes = tuple(axis(name, "nm") for name in "zyx")
        described = pyramid("huge", axes, (40.0, 4.5, 4.0), [(1, 1, 1)])
        group = zarr.create_group(branch.zarr_store(), attributes=ome_attributes(described))
        array = group.create_array("s0", shape=HUGE, chunks=(64, 64, 64), dtype="u1")
        box = Box(tuple(n - 1 for n in AT), tuple(n + 2 for n in AT))
        array[box.slices()] = 5
        array[AT] = 201
        branch.commit("a few voxels of five gibibytes")
    expected = np.zeros(HUGE[1:], np.uint8)
    expected[box.slices()[1:]] = 5
    with mounted(tmp_path / "store", tmp_path / "mnt") as mount:
        level = mount / "huge" / "versions" / "v1" / "s0"
        (found,) = opened(level / "volume.imagej.tif", virtual=True)
        (other,) = opened(level / "volume.tif")
    assert found["slices"] == HUGE[0] and found["voxel"] == pytest.approx([0.04, 0.0045, 0.004])
    assert found["images"]["1"]["max"] == 0
    assert found["images"]["5000"]["crc32"] == zlib.crc32(expected.tobytes())
    expected[AT[1:]] = 201
    assert found["images"]["4999"]["crc32"] == zlib.crc32(expected.tobytes())
    assert other["error"], "ImageJ has learnt to read BigTIFF: .imagej.tif is not needed any more"
