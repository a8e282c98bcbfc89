"""N5 in BigDataViewer's dialect, judged by TensorStore, z5py and pybdv."""

from __future__ import annotations

import gzip
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pybdv.metadata
import pybdv.util
import pytest
import tensorstore
import z5py
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kits.example_counts import examples
from tests.kits.view_folders import (
    BIG_ENDIAN,
    GZIP,
    RAW,
    HugeArray,
    MemoryArray,
    array_meta,
    at,
    content,
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
from volfs.views.folders import bdv, n5
from volfs.views.plane import Incomplete

TYPES = ["bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8"]


def container(image: ImageView, **options: bool) -> Folder:
    folder = n5.folder(image, **options)
    assert folder is not None
    return folder


def written(image: ImageView, tmp_path: Path, **options: bool) -> Path:
    """The container and its XML as plain files."""
    path = write_out(container(image, **options), tmp_path / "cells.n5")
    file = bdv.document(image, "cells.n5")
    assert file is not None
    (tmp_path / "cells.xml").write_bytes(content(file))
    return path


def dataset(path: Path) -> Any:
    return tensorstore.open({"driver": "n5", "kvstore": {"driver": "file", "path": str(path)}}).result()


def by_tensorstore(path: Path) -> np.ndarray:
    """z, y, x, as all libraries but TensorStore have it."""
    return dataset(path).read().result().transpose()


def by_z5py(path: Path, key: str) -> np.ndarray:
    with z5py.File(str(path), "r") as file:
        return file[key][:]


# --------------------------------------------------------------------------------------------------------- voxels


@pytest.mark.parametrize("dtype", TYPES)
def test_every_voxel_of_every_level_and_type(dtype: str, tmp_path: Path) -> None:
    image = image_view(noise((7, 13, 5), dtype), levels=3)
    path = written(image, tmp_path)
    for level in image.levels:
        expected = level.array.voxels.astype("u1") if dtype == "bool" else level.array.voxels
        key = f"setup0/timepoint0/{level.name}"
        for found in (by_tensorstore(path / key), by_z5py(path, key)):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["f2", "c8", "c16"])
def test_types_that_n5_lacks_have_no_container(dtype: str) -> None:
    image = image_view(np.ones((4, 4, 4), dtype), codecs=RAW)
    assert n5.folder(image) is None
    assert bdv.document(image, "cells.n5") is None


@pytest.mark.parametrize("chunks", [(1, 1, 4, 4, 4), (2, 1, 3, 7, 20), (3, 2, 8, 8, 8)])
def test_channels_are_setups_and_time_is_time(chunks: tuple[int, ...], tmp_path: Path) -> None:
    voxels = noise((3, 2, 5, 7, 11), "u2")
    path = written(image_view(voxels, "tczyx", chunks=chunks), tmp_path)
    for t in range(3):
        for c in range(2):
            np.testing.assert_array_equal(by_tensorstore(path / f"setup{c}/timepoint{t}/s0"), voxels[t, c])
            np.testing.assert_array_equal(by_z5py(path, f"setup{c}/timepoint{t}/s0"), voxels[t, c])


@pytest.mark.parametrize("axes", ["zyx", "xyz", "yxz", "xzy"])
def test_axes_may_stand_in_any_order(axes: str, tmp_path: Path) -> None:
    voxels = noise((7, 13, 5), "u1")
    path = written(image_view(voxels, axes, chunks=(3, 4, 5), codecs=GZIP), tmp_path)
    expected = voxels.transpose([axes.index(n) for n in "zyx"])
    np.testing.assert_array_equal(by_tensorstore(path / "setup0/timepoint0/s0"), expected)


def test_a_flat_image_has_one_plane(tmp_path: Path) -> None:
    voxels = noise((13, 5), "i2")
    path = written(image_view(voxels, "yx"), tmp_path)
    np.testing.assert_array_equal(by_tensorstore(path / "setup0/timepoint0/s0"), voxels[None])
    assert pybdv.metadata.get_size(str(tmp_path / "cells.xml"), 0) == (1, 13, 5)


def test_samples_of_colour_are_channels(tmp_path: Path) -> None:
    voxels = noise((7, 13, 5, 3), "u1")
    path = written(image_view(voxels, "zyxc", sample="c"), tmp_path)
    for c in range(3):
        np.testing.assert_array_equal(by_z5py(path, f"setup{c}/timepoint0/s0"), voxels[..., c])
        assert pybdv.metadata.get_attributes(str(tmp_path / "cells.xml"), c)["channel"]["id"] == c


@pytest.mark.parametrize(
    ("codecs", "kind"),
    [(None, "raw"), (RAW, "raw"), (GZIP, "gzip"), (sharded((2, 3, 5), GZIP), "gzip"), (sharded((2, 3, 5)), "raw")],
)
def test_what_n5_has_too_is_passed_through(codecs: Any, kind: str, tmp_path: Path) -> None:
    voxels = noise((7, 13, 5), "u1")
    voxels[:4, :6] = 0
    image = image_view(voxels, chunks=(4, 6, 5), codecs=codecs)
    path = written(image, tmp_path)
    assert json.loads((path / "setup0/timepoint0/s0/attributes.json").read_text())["compression"]["type"] == kind
    np.testing.assert_array_equal(by_tensorstore(path / "setup0/timepoint0/s0"), voxels)
    np.testing.assert_array_equal(by_z5py(path, "setup0/timepoint0/s0"), voxels)
    source = image.levels[0].array
    assert (source.given == 0) == (kind == "gzip")


def test_big_endian_voxels_are_passed_through(tmp_path: Path) -> None:
    voxels = noise((7, 13, 5), "i4")
    path = written(image_view(voxels, codecs=(*BIG_ENDIAN, GZIP[1])), tmp_path)
    np.testing.assert_array_equal(by_tensorstore(path / "setup0/timepoint0/s0"), voxels)
    image = image_view(voxels, codecs=GZIP)
    assert _attributes(container(image), "setup0/timepoint0/s0")["compression"] == {"type": "raw"}


@pytest.mark.parametrize("dtype", ["u1", "i1", "bool"])
def test_zstd_is_passed_through_where_it_is_asked_for(dtype: str, tmp_path: Path) -> None:
    voxels = noise((7, 13, 5), dtype)
    image = image_view(voxels, levels=2)
    path = written(image, tmp_path, zstd=True)
    assert image.levels[0].array.given == 0
    found = by_tensorstore(path / "setup0/timepoint0/s0")
    np.testing.assert_array_equal(found, voxels)
    assert by_tensorstore(path / "setup0/timepoint0/s1").shape == image.levels[1].shape
    payload = image.levels[0].array.stored[0, 0, 0]
    assert (path / "setup0/timepoint0/s0/0/0/0").read_bytes()[16:] == payload


def test_zstd_that_cannot_be_passed_through_has_no_container() -> None:
    assert n5.folder(image_view(noise((7, 13, 5), "u2")), zstd=True) is None
    assert n5.folder(image_view(noise((7, 13, 5), "u1"), codecs=RAW), zstd=True) is None
    assert n5.folder(image_view(noise((7, 13, 5), "u1"), fill_value=9), zstd=True) is None
    movie = image_view(noise((3, 2, 5, 7, 11), "u1"), "tczyx", chunks=(2, 1, 4, 4, 4))
    assert n5.folder(movie, zstd=True) is None
    movie = image_view(noise((3, 2, 5, 7, 11), "u1"), "tczyx", chunks=(1, 1, 4, 4, 4))
    assert n5.folder(movie, zstd=True) is not None


def test_blocks_that_are_not_stored_are_absent(tmp_path: Path) -> None:
    voxels = noise((8, 8, 8), "u2")
    voxels[:4, 4:, :] = 0
    path = written(image_view(voxels), tmp_path)
    blocks = sorted(str(p.relative_to(path / "setup0/timepoint0/s0")) for p in path.glob("setup0/timepoint0/s0/*/*/*"))
    assert blocks == ["0/0/0", "0/0/1", "0/1/1", "1/0/0", "1/0/1", "1/1/1"]
    np.testing.assert_array_equal(by_tensorstore(path / "setup0/timepoint0/s0"), voxels)


@pytest.mark.parametrize(("dtype", "fill"), [("u2", 9), ("f4", -0.0), ("f4", float("nan"))])
def test_blocks_of_another_fill_value_are_there(dtype: str, fill: float, tmp_path: Path) -> None:
    image = image_view(np.full((5, 6, 7), fill, dtype), fill_value=fill)
    assert not image.levels[0].array.stored
    found = by_tensorstore(written(image, tmp_path) / "setup0/timepoint0/s0")
    assert found.tobytes() == np.full((5, 6, 7), fill, dtype).tobytes()


# -------------------------------------------------------------------------------------------------------- metadata


def _attributes(folder: Folder, path: str) -> dict[str, Any]:
    file = at(folder, f"{path}/attributes.json" if path else "attributes.json")
    assert isinstance(file, ViewFile)
    found: dict[str, Any] = json.loads(content(file))
    return found


def test_attributes_of_the_dialect() -> None:
    image = image_view(noise((9, 13, 5), "f8"), levels=2, scale=(40, 4.5, 4), chunks=(4, 16, 8))
    folder = container(image)
    assert _attributes(folder, "") == {"n5": "2.0.0"}
    assert _attributes(folder, "setup0") == {"downsamplingFactors": [[1, 1, 1], [2, 2, 2]], "dataType": "float64"}
    resolution = {"resolution": [4, 4.5, 40], "units": ["nm", "nm", "nm"]}
    assert _attributes(folder, "setup0/timepoint0") == {"multiScale": True, **resolution}
    assert _attributes(folder, "setup0/timepoint0/s1") == {
        "dimensions": [3, 7, 5],
        "blockSize": [8, 16, 4],
        "dataType": "float64",
        "compression": {"type": "raw"},
        "axes": ["x", "y", "z"],
        "downsamplingFactors": [2, 2, 2],
        "resolution": [8, 9, 80],
        "units": ["nm", "nm", "nm"],
    }
    for wrong in ("setup1", "setup00", "setup", "timepoint0", "setup0/timepoint1", "setup0/timepoint0/s2"):
        assert at(folder, wrong) is None
    assert at(folder, "setup0/timepoint0/s0/0/0/3") is None


def test_factors_are_the_true_ratios(tmp_path: Path) -> None:
    voxels = noise((8, 12, 12), "u1")
    meta = [array_meta(shape, "u1", (4, 4, 4)) for shape in ((8, 12, 12), (8, 4, 8))]
    levels = [
        LevelView("s0", MemoryArray(meta[0], voxels), (0.3, 0.1, 0.1), (0, 0, 0)),
        LevelView("s1", MemoryArray(meta[1], voxels[:, ::3, :8]), (0.3, 0.30000000000000004, 0.15), (0, 0.1, 0.025)),
    ]
    written(view_of(levels, "zyx", unit="micrometer"), tmp_path)
    assert pybdv.util.get_scale_factors(str(tmp_path / "cells.n5"), 0) == [[1, 1, 1], [1, 3, 1.5]]  # z, y, x
    assert pybdv.util.get_number_of_scales(str(tmp_path / "cells.n5"), 0, 0) == 2


def test_levels_of_another_kind_are_left_out(tmp_path: Path) -> None:
    voxels = noise((4, 8, 8, 8), "u1")
    metas = [array_meta(shape, "u1", (1, 4, 4, 4)) for shape in ((4, 8, 8, 8), (2, 4, 4, 4), (4, 2, 2, 2))]
    scales = [(1.0, 1.0, 1.0, 1.0), (2.0, 2.0, 2.0, 2.0), (1.0, 4.0, 4.0, 4.0)]
    levels = [
        LevelView(f"s{n}", MemoryArray(meta, voxels[tuple(slice(0, k) for k in meta.shape)]), scale, (0,) * 4)
        for n, (meta, scale) in enumerate(zip(metas, scales, strict=True))
    ]
    path = written(view_of(levels, "tzyx"), tmp_path)
    assert pybdv.util.get_scale_factors(str(path), 0) == [[1, 1, 1], [4, 4, 4]]
    np.testing.assert_array_equal(by_tensorstore(path / "setup0/timepoint3/s1"), voxels[3, :2, :2, :2])


def test_tensorstore_knows_the_voxel_size(tmp_path: Path) -> None:
    image = image_view(noise((7, 13, 5), "u1"), levels=2, scale=(40, 4.5, 4))
    path = written(image, tmp_path)
    for level, factor in (("s0", 1), ("s1", 2)):
        units = dataset(path / "setup0/timepoint0" / level).dimension_units
        assert [(unit.multiplier, unit.base_unit) for unit in units] == [
            (4 * factor, "nm"),
            (4.5 * factor, "nm"),
            (40 * factor, "nm"),
        ]


# ------------------------------------------------------------------------------------------------------------- XML


def test_pybdv_reads_the_xml(tmp_path: Path) -> None:
    voxels = noise((3, 2, 5, 7, 11), "u2")
    image = image_view(
        voxels,
        "tczyx",
        chunks=(1, 1, 4, 4, 4),
        scale=(60.0, 1.0, 40, 4.5, 4),
        translation=(0.0, 0.0, 400.0, -9.0, 0.1),
        attributes={"ome": {"omero": {"channels": [{"label": "DAPI <405>"}, {}]}}},
    )
    written(image, tmp_path)
    xml = str(tmp_path / "cells.xml")
    assert pybdv.metadata.get_bdv_format(xml) == "bdv.n5"
    assert pybdv.metadata.get_data_path(xml, return_absolute_path=True) == str(tmp_path / "cells.n5")
    assert pybdv.metadata.get_setup_ids(xml) == [0, 1]
    assert pybdv.metadata.get_time_range(xml) == (0, 2)
    for setup, name in ((0, "DAPI <405>"), (1, "channel 1")):
        assert pybdv.metadata.get_timepoints(xml, setup) == [0, 1, 2]
        assert pybdv.metadata.get_resolution(xml, setup) == [40, 4.5, 4]
        assert pybdv.metadata.get_unit(xml, setup) == "nm"
        assert pybdv.metadata.get_size(xml, setup) == (5, 7, 11)
        assert pybdv.metadata.get_name(xml, setup) == name
        affine = pybdv.metadata.get_affine(xml, setup, 2)
        assert affine == {"affine0": [4, 0, 0, 0.1, 0, 4.5, 0, -9, 0, 0, 40, 400]}
        found = pybdv.metadata.get_attributes(xml, setup)
        assert found["channel"]["id"] == setup
        assert {key: value["id"] for key, value in found.items() if key != "channel"} == {
            "illumination": 0,
            "tile": 0,
            "angle": 0,
        }


def test_every_axis_has_its_attribute(tmp_path: Path) -> None:
    # t is time, c the channel, a the angle, and q, of which nothing is known, becomes the tile.
    image = image_view(noise((2, 3, 2, 4, 5, 6), "u1"), "qacyxt")
    written(image, tmp_path)
    xml = str(tmp_path / "cells.xml")
    assert pybdv.metadata.get_setup_ids(xml) == list(range(12))
    for setup in range(12):
        q, a, c = np.unravel_index(setup, (2, 3, 2))
        found = pybdv.metadata.get_attributes(xml, setup)
        assert (found["tile"]["id"], found["angle"]["id"], found["channel"]["id"]) == (q, a, c)
        assert found["illumination"] == {"id": 0, "name": 0}
    assert pybdv.metadata.get_timepoints(xml, 11) == list(range(6))


def test_axes_of_one_meaning_are_counted_together(tmp_path: Path) -> None:
    written(image_view(noise((2, 4, 5, 3), "u1"), "cyxs", sample="s"), tmp_path)
    for setup in range(6):
        channel = pybdv.metadata.get_attributes(str(tmp_path / "cells.xml"), setup)["channel"]
        assert channel == {"id": setup, "name": f"c{setup // 3} s{setup % 3}"}


def test_views_of_which_nothing_is_stored_are_missing(tmp_path: Path) -> None:
    voxels = noise((3, 2, 5, 7, 11), "u2")
    voxels[1, 0] = 0
    voxels[2, 1] = 0
    voxels[2, 1, 4, 6, 10] = 1  # in the last of its blocks
    voxels[0, 0, :4, :4, :4] = 0
    written(image_view(voxels, "tczyx", chunks=(1, 1, 4, 4, 4)), tmp_path)
    root = ET.parse(tmp_path / "cells.xml").getroot()
    missing = root.findall("SequenceDescription/MissingViews/MissingView")
    assert [view.attrib for view in missing] == [{"timepoint": "1", "setup": "0"}]
    assert pybdv.metadata.get_timepoints(str(tmp_path / "cells.xml"), 0) == [0, 2]
    assert pybdv.metadata.get_timepoints(str(tmp_path / "cells.xml"), 1) == [0, 1, 2]


def test_no_view_is_missing_where_blocks_hold_several_or_nothing_is_zero(tmp_path: Path) -> None:
    voxels = noise((3, 2, 5, 7, 11), "u2")
    voxels[1] = 0
    for number, image in enumerate(
        (
            image_view(voxels, "tczyx", chunks=(2, 2, 4, 4, 4)),
            image_view(np.zeros_like(voxels), "tczyx", chunks=(1, 1, 4, 4, 4)),
            image_view(np.ones_like(voxels), "tczyx", chunks=(1, 1, 4, 4, 4), fill_value=1),
        )
    ):
        written(image, tmp_path / str(number))
        assert b"Missing" not in (tmp_path / str(number) / "cells.xml").read_bytes()


@pytest.mark.parametrize(
    ("unit", "shown"), [("micrometer", "µm"), ("millimeter", "mm"), (None, "pixel"), ("furlong & co", "furlong & co")]
)
def test_units_known_and_unknown(unit: str | None, shown: str, tmp_path: Path) -> None:
    written(image_view(noise((3, 4, 5), "u1"), scale=(2, 0.5, 0.25), unit=unit), tmp_path)
    assert pybdv.metadata.get_unit(str(tmp_path / "cells.xml"), 0) == shown
    assert pybdv.metadata.get_resolution(str(tmp_path / "cells.xml"), 0) == [2, 0.5, 0.25]


def test_names_that_are_no_uri_or_no_xml(tmp_path: Path) -> None:
    image = image_view(noise((3, 4, 5), "u1"), name="a\x00 <b>")
    file = bdv.document(image, "my cells: 50%.n5")
    assert file is not None
    root = ET.fromstring(content(file))
    assert root.findtext("SequenceDescription/ImageLoader/n5") == "my%20cells%3A%2050%25.n5"
    assert root.findtext("SequenceDescription/ViewSetups/ViewSetup/name") == "a\ufffd <b>"


# --------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("dtype", TYPES)
def test_a_written_block_is_its_voxels(dtype: str) -> None:
    image = image_view(np.zeros((7, 13, 5), dtype), chunks=(4, 8, 4))
    new = noise((7, 13, 5), dtype, seed=1)
    folder = container(image)
    for z, y, x in np.ndindex(2, 2, 2):
        part = new[z * 4 : z * 4 + 4, y * 8 : y * 8 + 8, x * 4 : x * 4 + 4]
        if (z + y + x) % 2:  # padded, as some write it
            whole = np.ones((4, 8, 4), new.dtype)
            whole[tuple(slice(0, n) for n in part.shape)] = part
            part = whole
        put(folder, f"setup0/timepoint0/s0/{x}/{y}/{z}", _block(part))
    np.testing.assert_array_equal(image.levels[0].array.voxels, new)


def _block(voxels: np.ndarray, mode: int = 0) -> bytes:
    """A block as Java writes it."""
    kind = np.dtype("u1") if voxels.dtype.kind == "b" else voxels.dtype
    sizes = np.array(voxels.shape[::-1], ">u4").tobytes()
    return bytes([0, mode, 0, voxels.ndim]) + sizes + voxels.astype(kind.newbyteorder(">")).tobytes()


def test_tensorstore_and_z5py_write_what_is_taken(tmp_path: Path) -> None:
    image = image_view(np.zeros((7, 13, 5), "u2"), chunks=(4, 8, 4))
    path = written(image, tmp_path)
    new = noise((7, 13, 5), "u2", seed=2)
    array = dataset(path / "setup0/timepoint0/s0")
    array.write(new.transpose()).result()
    for file in path.glob("setup0/timepoint0/s0/*/*/*"):
        put(container(image), str(file.relative_to(path)), file.read_bytes())
    np.testing.assert_array_equal(image.levels[0].array.voxels, new)
    with z5py.File(str(path), "r+") as file:
        file["setup0/timepoint0/s0"][:] = new[::-1].copy()
    for file in path.glob("setup0/timepoint0/s0/*/*/*"):
        put(container(image), str(file.relative_to(path)), file.read_bytes())
    np.testing.assert_array_equal(image.levels[0].array.voxels, new[::-1])


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_compressed_blocks_are_written_as_they_are_read(kind: str) -> None:
    start = np.ones((5, 6, 7), "u1")
    image = image_view(start, codecs=GZIP) if kind == "gzip" else image_view(start)
    folder = container(image, zstd=kind == "zstd")
    assert _attributes(folder, "setup0/timepoint0/s0")["compression"]["type"] == kind
    part = noise((1, 2, 3), "u1")
    plain = _block(part)
    packed = gzip.compress(plain[16:]) if kind == "gzip" else zstandard.ZstdCompressor().compress(plain[16:])
    streamed = zstandard.ZstdCompressor(write_content_size=False).compress(plain[16:]) if kind == "zstd" else packed
    for payload in (packed, streamed):
        image.levels[0].array.write(Box((4, 4, 4), (5, 6, 7)), np.ones((1, 2, 3), "u1"))
        put(folder, "setup0/timepoint0/s0/1/1/1", plain[:16] + payload)
        np.testing.assert_array_equal(image.levels[0].array.voxels[4:, 4:, 4:], part)
    for length in range(16, 16 + len(packed)):
        with pytest.raises(Incomplete):
            put(folder, "setup0/timepoint0/s0/1/1/1", (plain[:16] + packed)[:length])
    long = bytes(7) if kind == "gzip" else b""
    bomb = gzip.compress(bytes(1 << 20)) if kind == "gzip" else zstandard.ZstdCompressor().compress(bytes(1 << 20))
    for wrong in (packed + b"x", packed + packed, bomb, b"nonsense" * 4 + long):
        with pytest.raises(BadInput) as caught:
            put(folder, "setup0/timepoint0/s0/1/1/1", plain[:16] + wrong)
        assert not isinstance(caught.value, Incomplete)


def test_what_is_no_block_of_this_place_is_refused() -> None:
    image = image_view(noise((7, 13, 5), "u2"), chunks=(4, 8, 4))
    before = image.levels[0].array.voxels.copy()
    folder = container(image)
    name = "setup0/timepoint0/s0/1/1/1"
    good = _block(np.ones((3, 5, 1), "u2"))
    for cut in (*range(16), 17, len(good) - 1):
        with pytest.raises(Incomplete):
            put(folder, name, good[:cut])
    with pytest.raises(Incomplete):
        put(folder, name, bytes(len(good)))
    bad = [
        good + b"\0",
        _block(np.ones((3, 5, 2), "u2")),
        _block(np.ones((3, 5), "u2")),
        _block(np.ones((3, 5, 1), "u2"), mode=1),
        _block(np.ones((3, 5, 1), "u4")),
    ]
    for data in bad:
        with pytest.raises(BadInput) as caught:
            put(folder, name, data)
        assert not isinstance(caught.value, Incomplete)
    np.testing.assert_array_equal(image.levels[0].array.voxels, before)
    flags = container(image_view(np.ones((4, 4, 4), "bool")))
    with pytest.raises(BadInput):
        put(flags, "setup0/timepoint0/s0/0/0/0", _block(np.full((4, 4, 4), 2, "u1")))


@settings(max_examples=examples(60))
@given(st.data())
def test_any_range_is_a_piece_of_the_whole_and_what_is_written_is_read(data: st.DataObject) -> None:
    axes = data.draw(st.sampled_from(["yx", "zyx", "xzy", "czyx", "tzyxc", "tczyx"]))
    shape = tuple(data.draw(st.integers(1, 6)) for _ in axes)
    chunks = tuple(data.draw(st.integers(1, 7)) for _ in axes)
    dtype = data.draw(st.sampled_from(["bool", "u1", "u2", "f8"]))
    codecs = data.draw(st.sampled_from([None, GZIP, RAW]))
    zstd = data.draw(st.booleans())
    voxels = noise(shape, dtype)
    image = image_view(voxels, axes, chunks=chunks, codecs=codecs)
    folder = n5.folder(image, zstd=zstd) or container(image)
    setup = data.draw(st.integers(0, int(np.prod(n5.setups(image))) - 1))
    time = data.draw(st.integers(0, n5.timepoints(image) - 1))
    volume = n5.volume(image, image.levels[0], setup, time)
    block = tuple(data.draw(st.integers(0, n - 1)) for n in volume.grid)
    file = at(folder, f"setup{setup}/timepoint{time}/s0/" + "/".join(map(str, block)))
    if file is None:
        assert not voxels[volume.box(block).slices()].any()
        return
    assert isinstance(file, ViewFile) and file.box is not None and file.decode is not None
    whole = content(file)
    start = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, len(whole)))
    assert file.layout.read(file.source, start, length) == whole[start : start + length]
    np.testing.assert_array_equal(file.decode(memoryview(whole)), voxels[file.box.slices()])


# ------------------------------------------------------------------------------------------------------------- huge


def test_ten_terabytes_cost_nothing_until_they_are_read() -> None:
    shape, chunks = (20_000, 22_000, 24_000), (64, 64, 64)
    array = HugeArray(array_meta(shape, "u1", chunks), Box((150, 170, 190), (151, 171, 191)))
    image = view_of([LevelView("s0", array, (1, 1, 1), (0, 0, 0))], "zyx")
    folder = container(image)
    assert bdv.document(image, "cells.n5") is not None
    assert array.asked <= 10 and array.given == 0
    file = at(folder, "setup0/timepoint0/s0/190/170/150")
    assert isinstance(file, ViewFile) and array.given == 0
    assert file.layout.size == 16 + 64**3
    found = file.layout.read(array, 16 + 64 * 64 * 3 + 64 * 2 + 1, 2)
    assert found == array.read(Box((9603, 10882, 12161), (9604, 10883, 12163))).tobytes()
    assert at(folder, "setup0/timepoint0/s0/190/170/151") is None
    assert at(folder, "setup0/timepoint0/s0/376/0/0") is None


def test_blocks_beyond_what_java_has_are_absent() -> None:
    array = HugeArray(array_meta((2048, 2048, 2048), "u1", (2048, 2048, 512)))
    assert n5.folder(view_of([LevelView("s0", array, (1, 1, 1), (0, 0, 0))], "zyx")) is None


def test_zstd_has_an_xml_of_its_own(tmp_path: Path) -> None:
    image = image_view(noise((7, 13, 5), "u1"))
    file = bdv.document(image, "cells.zstd.n5", zstd=True)
    assert file is not None
    (tmp_path / "cells.xml").write_bytes(content(file))
    assert pybdv.metadata.get_data_path(str(tmp_path / "cells.xml")) == "cells.zstd.n5"
    assert bdv.document(image_view(noise((7, 13, 5), "u2")), "cells.zstd.n5", zstd=True) is None
