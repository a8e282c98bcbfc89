"""Precomputed volumes, judged by TensorStore and cloud-volume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
from cloudvolume import CloudVolume
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kits.example_counts import examples
from tests.kits.view_folders import (
    HugeArray,
    MemoryArray,
    array_meta,
    at,
    content,
    entries,
    image_view,
    put,
    sharded,
    view_of,
    write_out,
)
from volfs.errors import BadInput
from volfs.model.box import Box
from volfs.testing.volumes import noise
from volfs.views.folder import Folder, ImageView, LevelView, ViewFile
from volfs.views.folders import precomputed
from volfs.views.plane import Incomplete

TYPES = ["bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "f4"]


def volume(image: ImageView) -> Folder:
    folder = precomputed.folder(image)
    assert folder is not None
    return folder


def written(image: ImageView, tmp_path: Path) -> Path:
    return write_out(volume(image), tmp_path / "cells.precomputed")


def info_of(folder: Folder, path: str = "info") -> dict[str, Any]:
    file = at(folder, path)
    assert isinstance(file, ViewFile)
    found: dict[str, Any] = json.loads(content(file))
    return found


def scale_of(path: Path, level: int = 0) -> Any:
    kvstore = {"driver": "file", "path": str(path)}
    return tensorstore.open({"driver": "neuroglancer_precomputed", "kvstore": kvstore, "scale_index": level}).result()


def by_tensorstore(path: Path, level: int = 0) -> np.ndarray:
    """c, z, y, x."""
    found: np.ndarray = scale_of(path, level).read().result().transpose()
    return found


def by_cloudvolume(path: Path, level: int = 0, *, strict: bool = False) -> np.ndarray:
    cloud = CloudVolume(f"file://{path}", mip=level, fill_missing=not strict, progress=False)
    return np.asarray(cloud[:, :, :]).transpose()


@pytest.mark.parametrize("dtype", TYPES)
def test_every_voxel_of_every_level_and_type(dtype: str, tmp_path: Path) -> None:
    image = image_view(noise((7, 13, 5), dtype), levels=3)
    path = written(image, tmp_path)
    for number, level in enumerate(image.levels):
        expected = level.array.voxels.astype("u1") if dtype == "bool" else level.array.voxels
        for found in (by_tensorstore(path, number), by_cloudvolume(path, number)):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected[None])


@pytest.mark.parametrize("dtype", ["i8", "f2", "f8", "c8"])
def test_types_that_precomputed_lacks_have_no_volume(dtype: str) -> None:
    assert precomputed.folder(image_view(np.ones((4, 4, 4), dtype))) is None


@pytest.mark.parametrize("chunks", [(1, 4, 4, 4), (2, 3, 8, 20), (3, 8, 8, 8)])
def test_channels(chunks: tuple[int, ...], tmp_path: Path) -> None:
    voxels = noise((3, 5, 7, 11), "u2")
    voxels[1, :4, :4, :4] = 0
    path = written(image_view(voxels, "czyx", chunks=chunks), tmp_path)
    np.testing.assert_array_equal(by_tensorstore(path), voxels)
    np.testing.assert_array_equal(by_cloudvolume(path), voxels)


def test_samples_of_colour_and_other_axes_are_channels(tmp_path: Path) -> None:
    voxels = noise((2, 7, 13, 5, 3), "u1")
    path = written(image_view(voxels, "azyxc", sample="c"), tmp_path)
    expected = voxels.transpose(0, 4, 1, 2, 3).reshape(6, 7, 13, 5)
    np.testing.assert_array_equal(by_tensorstore(path), expected)
    np.testing.assert_array_equal(by_cloudvolume(path), expected)


def test_each_timepoint_is_a_volume(tmp_path: Path) -> None:
    voxels = noise((3, 2, 5, 7, 11), "u2")
    voxels[1, :, :4, :4, :4] = 0
    path = written(image_view(voxels, "tczyx", chunks=(2, 1, 4, 4, 4)), tmp_path)
    assert sorted(p.name for p in path.iterdir()) == ["t0000", "t0001", "t0002"]
    for t in range(3):
        np.testing.assert_array_equal(by_tensorstore(path / f"t000{t}"), voxels[t])
        np.testing.assert_array_equal(by_cloudvolume(path / f"t000{t}"), voxels[t])
    folder = volume(image_view(voxels, "tczyx", chunks=(2, 1, 4, 4, 4)))
    for wrong in ("t0003", "t1", "0000", "info", "t00000"):
        assert at(folder, wrong) is None


def test_one_timepoint_is_a_volume_itself(tmp_path: Path) -> None:
    voxels = noise((1, 2, 5, 7, 11), "u2")
    np.testing.assert_array_equal(by_tensorstore(written(image_view(voxels, "tczyx"), tmp_path)), voxels[0])


@pytest.mark.parametrize("axes", ["xyz", "yxz", "xzy"])
def test_axes_may_stand_in_any_order(axes: str, tmp_path: Path) -> None:
    voxels = noise((7, 13, 5), "u4")
    path = written(image_view(voxels, axes, chunks=(3, 4, 5)), tmp_path)
    np.testing.assert_array_equal(by_tensorstore(path)[0], voxels.transpose([axes.index(n) for n in "zyx"]))


def test_a_flat_image_has_one_plane(tmp_path: Path) -> None:
    voxels = noise((13, 5), "i2")
    path = written(image_view(voxels, "yx", levels=2), tmp_path)
    np.testing.assert_array_equal(by_tensorstore(path), voxels[None, None])
    np.testing.assert_array_equal(by_cloudvolume(path), voxels[None, None])
    np.testing.assert_array_equal(by_cloudvolume(path, 1), voxels[None, None, ::2, ::2])


def test_blocks_of_a_clients_shards_are_chunks(tmp_path: Path) -> None:
    voxels = noise((7, 13, 5), "u2")
    path = written(image_view(voxels, chunks=(8, 8, 8), codecs=sharded((4, 4, 4))), tmp_path)
    np.testing.assert_array_equal(by_tensorstore(path), voxels[None])
    assert (path / "1_1_1/0-4_12-13_4-7").is_file()


@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_chunks_of_another_fill_value_are_there(dtype: str, tmp_path: Path) -> None:
    voxels = np.full((5, 6, 7), 9, dtype)
    image = image_view(voxels, fill_value=9)
    assert not image.levels[0].array.stored
    np.testing.assert_array_equal(by_tensorstore(written(image, tmp_path)), voxels[None])


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "u8", "bool"])
@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 5, 6)])
def test_chunks_that_are_not_stored_are_not_listed_but_open_by_name(
    shape: tuple[int, ...], dtype: str, tmp_path: Path
) -> None:
    voxels = noise(shape, dtype)
    voxels[:4, 4:, :] = 0
    image = image_view(voxels)
    folder = volume(image)
    path = written(image, tmp_path)
    listed = {p.name for p in (path / "1_1_1").iterdir()}
    z, y, x = shape
    grid = [[f"{a}-{min(a + 4, n)}" for a in range(0, n, 4)] for n in (x, y, z)]
    every = {"_".join((i, j, k)) for i in grid[0] for j in grid[1] for k in grid[2]}
    assert every - listed == {f"{i}_{grid[1][1]}_0-4" for i in grid[0]}
    for name in every:
        file = at(folder, f"1_1_1/{name}")
        assert isinstance(file, ViewFile)
        assert len(content(file)) == file.layout.size > 0
        assert any(content(file)) == (name in listed)
        (path / "1_1_1" / name).write_bytes(content(file))
    np.testing.assert_array_equal(
        by_cloudvolume(path, strict=True), voxels[None].astype("u1" if dtype == "bool" else dtype)
    )


# -------------------------------------------------------------------------------------------------------- metadata


@pytest.mark.parametrize("unit", ["nanometer", "micrometer", "angstrom"])
def test_voxel_sizes_are_in_nanometres(unit: str, tmp_path: Path) -> None:
    by = {"nanometer": 1, "micrometer": 0.001, "angstrom": 10}[unit]
    scale = (40 * by, 4.5 * by, 4 * by)
    image = image_view(noise((7, 13, 5), "u1"), levels=2, scale=scale, unit=unit)
    path = written(image, tmp_path)
    assert [s["key"] for s in info_of(volume(image))["scales"]] == ["4_4.5_40", "8_9_80"]
    for level, factor in ((0, 1), (1, 2)):
        expected = [4 * factor, 4.5 * factor, 40 * factor]
        assert list(CloudVolume(f"file://{path}", mip=level).resolution) == expected
        units = scale_of(path, level).dimension_units[:3]
        assert [(found.multiplier, found.base_unit) for found in units] == [(n, "nm") for n in expected]


def test_sizes_in_an_unknown_unit_stay_as_they_are() -> None:
    image = image_view(noise((4, 4, 4), "u1"), scale=(2, 0.5, 0.25), unit=None)
    assert info_of(volume(image))["scales"][0]["resolution"] == [0.25, 0.5, 2]


def test_levels_of_equal_size_have_keys_of_their_own(tmp_path: Path) -> None:
    meta = array_meta((4, 4, 4), "u1", (4, 4, 4))
    arrays = [MemoryArray(meta, noise((4, 4, 4), "u1", n)) for n in range(3)]
    levels = [LevelView(f"s{n}", array, (1, 1, 1), (0, 0, 0)) for n, array in enumerate(arrays)]
    path = written(view_of(levels, "zyx"), tmp_path)
    assert len({scale["key"] for scale in json.loads((path / "info").read_text())["scales"]}) == 3


@pytest.mark.parametrize(
    ("translation", "offsets"),
    [
        ((0, 0, 0), [[0, 0, 0], [0, 0, 0]]),
        ((80, -18, 800), [[200, -4, 2], [100, -2, 1]]),
        ((40, 4.5, 400), [[100, 0, 0], [50, 0, 0]]),  # y and z are odd: s1 begins within a voxel
        ((1, 1, 1), [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_offsets_are_whole_voxels(translation: tuple[float, ...], offsets: list[list[int]], tmp_path: Path) -> None:
    voxels = noise((7, 13, 5), "u2")
    image = image_view(voxels, levels=2, scale=(40, 4.5, 4), translation=translation)
    path = written(image, tmp_path)
    assert [scale["voxel_offset"] for scale in info_of(volume(image))["scales"]] == offsets
    for number, level in enumerate(image.levels):
        assert list(CloudVolume(f"file://{path}", mip=number).voxel_offset) == offsets[number]
        assert list(scale_of(path, number).domain.origin) == [*offsets[number], 0]
        np.testing.assert_array_equal(by_tensorstore(path, number), level.array.voxels[None])
        np.testing.assert_array_equal(by_cloudvolume(path, number), level.array.voxels[None])


def test_names_are_exactly_those_of_chunks() -> None:
    image = image_view(noise((7, 13, 5), "u1"), translation=(0, -6, 3))
    folder = at(volume(image), "1_1_1")
    assert isinstance(folder, Folder) and folder.run is not None
    names = list(entries(folder))
    assert len(names) == folder.run.count == 2 * 4 * 2 and "7-8_-2-2_4-7" in names
    wrong = ["7-8_-2-2_4-8", "07-8_-2-2_4-7", "7-8_-2-2", "7-8_-2-2_4-7_", "7-8_-2-2_4-7.gz", "7-9_-2-2_4-7", "_", ""]
    wrong += ["8-9_-2-2_4-7", "7-8_-3-2_4-7", "7-8_-2-2_8-9", "7-8_-10--6_4-7", "\u0667-8_-2-2_4-7", "7-8_-2-2_4-7\n"]
    for name in wrong:
        assert folder.run.index(name) is None, name


# ---------------------------------------------------------------------------------------------------------- labels


def test_label_images_are_segmentations_with_names(tmp_path: Path) -> None:
    properties = [
        {"label-value": 7, "name": "nucleus"},
        {"label-value": 3, "class": "mitochondrion", "area": 12.5},
        {"label-value": 9, "area": 1},
        {"label-value": -1, "name": "outside"},
        {"label-value": 2**64, "name": "outside"},
        {"label-value": True, "name": "no number"},
        {"label-value": 4, "name": 5},
        "nonsense",
    ]
    attributes = {"ome": {"image-label": {"properties": properties, "colors": [{"label-value": 3, "rgba": [0] * 4}]}}}
    voxels = noise((7, 13, 5), "u8")
    image = image_view(voxels, is_label=True, attributes=attributes)
    path = written(image, tmp_path)
    info = info_of(volume(image))
    assert info["type"] == "segmentation"
    np.testing.assert_array_equal(by_cloudvolume(path), voxels[None])
    assert CloudVolume(f"file://{path}").layer_type == "segmentation"
    assert info_of(volume(image), f"{info['segment_properties']}/info") == {
        "@type": "neuroglancer_segment_properties",
        "inline": {
            "ids": ["3", "7"],
            "properties": [{"id": "label", "type": "label", "values": ["mitochondrion", "nucleus"]}],
        },
    }


@pytest.mark.parametrize("attributes", [{}, {"ome": 3}, {"image-label": {"properties": {"a": 1}}}, {"image-label": 2}])
def test_labels_without_names_have_no_properties(attributes: dict[str, Any]) -> None:
    info = info_of(volume(image_view(noise((4, 4, 4), "u4"), is_label=True, attributes=attributes)))
    assert info["type"] == "segmentation" and "segment_properties" not in info


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "uint8", "uint16", "uint32", "uint64"])
def test_labels_of_every_integer_type_are_segmentations(dtype: str, tmp_path: Path) -> None:
    voxels = noise((4, 5, 6), dtype)
    path = written(image_view(voxels, is_label=True), tmp_path)
    found = json.loads((path / "info").read_text())
    assert found["type"] == "segmentation" and found["data_type"] == ("uint8" if dtype == "bool" else dtype)
    np.testing.assert_array_equal(scale_of(path)[..., 0].read().result().transpose(), voxels)


def test_labels_that_are_no_segmentation_are_images() -> None:
    assert info_of(volume(image_view(noise((4, 4, 4), "f4"), is_label=True)))["type"] == "image"
    assert info_of(volume(image_view(noise((2, 4, 4, 4), "u4"), "czyx", is_label=True)))["type"] == "image"
    assert info_of(volume(image_view(noise((4, 4, 4), "u4"))))["type"] == "image"


# --------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("dtype", TYPES)
def test_what_tensorstore_and_cloud_volume_write_is_taken(dtype: str, tmp_path: Path) -> None:
    image = image_view(np.zeros((7, 13, 5), dtype), chunks=(4, 8, 4))
    path = written(image, tmp_path)
    new = noise((7, 13, 5), dtype, seed=1)
    raw = new.astype("u1") if dtype == "bool" else new
    scale_of(path)[..., 0].write(raw.transpose()).result()
    for file in (path / "1_1_1").iterdir():
        put(volume(image), f"1_1_1/{file.name}", file.read_bytes())
    np.testing.assert_array_equal(image.levels[0].array.voxels, new)
    cloud = CloudVolume(f"file://{path}", compress=False, progress=False)
    cloud[:, :, :] = raw[::-1].transpose()[..., None]
    for file in (path / "1_1_1").iterdir():
        put(volume(image), f"1_1_1/{file.name}", file.read_bytes())
    np.testing.assert_array_equal(image.levels[0].array.voxels, new[::-1])


def test_chunks_of_another_length_are_refused() -> None:
    image = image_view(noise((7, 13, 5), "u2"))
    before = image.levels[0].array.voxels.copy()
    name = "1_1_1/4-5_12-13_4-7"
    for length in range(6):
        with pytest.raises(Incomplete):
            put(volume(image), name, b"x" * length)
    with pytest.raises(BadInput) as caught:
        put(volume(image), name, bytes(7))
    assert not isinstance(caught.value, Incomplete)
    np.testing.assert_array_equal(image.levels[0].array.voxels, before)
    with pytest.raises(BadInput):
        put(volume(image_view(np.ones((1, 1, 2), "bool"))), "1_1_1/0-2_0-1_0-1", b"\0\2")


@settings(max_examples=examples(60))
@given(st.data())
def test_any_range_is_a_piece_of_the_whole_and_what_is_written_is_read(data: st.DataObject) -> None:
    axes = data.draw(st.sampled_from(["yx", "zyx", "xzy", "czyx", "czyxs", "yxc", "tczyx"]))
    shape = tuple(data.draw(st.integers(1, 6)) for _ in axes)
    chunks = tuple(data.draw(st.integers(1, 7)) for _ in axes)
    voxels = noise(shape, data.draw(st.sampled_from(["bool", "u1", "u2", "f4"])))
    image = image_view(voxels, axes, chunks=chunks, sample="s" if "s" in axes else None)
    folder = volume(image)
    if "t" in axes and shape[0] > 1:
        below = at(folder, f"t{data.draw(st.integers(0, shape[0] - 1)):04}")
        assert isinstance(below, Folder)
        folder = below
    scale = at(folder, "1_1_1")
    assert isinstance(scale, Folder) and scale.run is not None
    run = scale.run
    present = list(run.following(0))
    start = data.draw(st.integers(0, run.count))
    assert list(run.following(start)) == [n for n in present if n >= start]
    covered = np.zeros(shape, int)
    for index in range(run.count):
        assert run.index(run.name(index)) == index
        file = run.make(index) or run.blank(index)
        assert isinstance(file, ViewFile) and file.box is not None and file.decode is not None
        assert run.make(index) is not None  # those of which nothing is stored, too
        covered[file.box.slices()] += 1
        if index not in present:
            assert not voxels[file.box.slices()].any()
        whole = content(file)
        first = data.draw(st.integers(0, len(whole)))
        assert file.layout.read(file.source, first, 9) == whole[first : first + 9]
        np.testing.assert_array_equal(file.decode(memoryview(whole)), voxels[file.box.slices()])
    assert covered.max() == 1 and covered.sum() == covered.size // (shape[0] if axes[0] == "t" else 1)


# ------------------------------------------------------------------------------------------------------------- huge


def test_ten_terabytes_cost_nothing_until_they_are_read() -> None:
    held = Box((150, 170, 190), (151, 171, 191))
    array = HugeArray(array_meta((20_000, 22_000, 24_000), "u1", (64, 64, 64)), held)
    image = view_of([LevelView("s0", array, (40, 4, 4), (0, 0, 0))], "zyx")
    name = "12160-12224_10880-10944_9600-9664"
    file = at(volume(image), f"4_4_40/{name}")
    assert isinstance(file, ViewFile) and file.layout.size == 64**3 and array.given == array.asked == 0
    found = file.layout.read(array, 64 * 64 * 3 + 64 * 2 + 1, 2)
    assert found == array.read(Box((9603, 10882, 12161), (9604, 10883, 12163))).tobytes()
    scale = at(volume(image), "4_4_40")
    assert isinstance(scale, Folder) and scale.run is not None and scale.run.count == 313 * 344 * 375
    index = scale.run.index(name)
    assert index is not None and scale.run.name(index) == name
    assert [list(scale.run.following(start)) for start in (0, index, index + 1)] == [[index], [index], []]
    assert array.asked < 100
    assert scale.run.index(scale.run.name(scale.run.count - 1)) == scale.run.count - 1


def test_sizes_beyond_thirty_two_bits() -> None:
    array = HugeArray(array_meta((3, 70_000, 5_000_000_000), "u1", (3, 70_000, 64_000)), Box((0, 0, 0), (1, 1, 78_125)))
    image = view_of([LevelView("s0", array, (1, 1, 1), (0, 0, 0))], "zyx")
    file = at(volume(image), "1_1_1/4999936000-5000000000_0-70000_0-3")
    assert isinstance(file, ViewFile) and file.layout.size == 64_000 * 70_000 * 3 > 2**32
    assert (
        file.layout.read(array, file.layout.size - 1, 1)
        == array.read(Box((2, 69_999, 4_999_999_999), (3, 70_000, 5_000_000_000))).tobytes()
    )
