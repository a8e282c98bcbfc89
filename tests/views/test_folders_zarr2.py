"""Zarr v2 and OME-Zarr 0.4 of a hierarchy: zarr-python, TensorStore, ome-zarr and the OME-NGFF models judge it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given
from hypothesis import strategies as st

from tests.kits.view_folders import (
    BIG_ENDIAN,
    GZIP,
    RAW,
    HugeArray,
    MemoryArray,
    MemoryNode,
    array_meta,
    at,
    content,
    entries,
    hierarchy,
    put,
    sharded,
    write_out,
)
from tests.kits.zarr_hierarchies import DTYPES, ZSTD, array, blosc, image, same, transposed, whole
from volfs.errors import BadInput, NotFound
from volfs.model import ngff
from volfs.model.box import Box
from volfs.testing.volumes import noise
from volfs.views.folder import Folder, ViewFile
from volfs.views.folders import zarr2
from volfs.views.layout import Layout, Padded, Voxels
from volfs.views.plane import Incomplete


def shown(made: MemoryArray, **attributes: Any) -> Folder:
    folder = zarr2.folder(MemoryNode("a", made, attributes))
    assert folder is not None
    return folder


def judged(path: Path, expected: np.ndarray) -> None:
    assert same(np.asarray(zarr.open_array(path, mode="r", zarr_format=2)[...]), expected)
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(path)}}
    assert same(tensorstore.open(spec).result().read().result(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_voxel_of_every_type_is_read_by_zarr_and_tensorstore(tmp_path: Path, dtype: str) -> None:
    made = array((7, 13, 5), dtype, (4, 4, 4), fill_value=1 if dtype != "bool" else True)
    assert (0, 0, 0) not in made.stored
    path = write_out(shown(made), tmp_path / "a")
    assert not (path / "0/0/0").exists()
    judged(path, made.voxels)


CODECS = {
    "raw": RAW,
    "big": BIG_ENDIAN,
    "zstd": ZSTD,
    "gzip": GZIP,
    "blosc lz4": blosc("lz4", "shuffle", 2),
    "blosc zstd": blosc("zstd", "bitshuffle", 2),
    "blosc plain": blosc("blosclz", "noshuffle", 2),
    "big zstd": (*BIG_ENDIAN, ZSTD[1]),
    "Fortran order": transposed(2, 1, 0),
    "twice transposed": (transposed(2, 1, 0)[0], *transposed(2, 1, 0)),
}


@pytest.mark.parametrize("codecs", CODECS.values(), ids=CODECS)
def test_what_v2_can_say_is_passed_through(tmp_path: Path, codecs: tuple[dict[str, Any], ...]) -> None:
    made = array((7, 13, 5), "u2", (4, 4, 4), codecs=codecs)
    folder = shown(made)
    path = write_out(folder, tmp_path / "a")
    for key, stored in made.stored.items():
        assert (path / "/".join(map(str, key))).read_bytes() == stored
    assert made.given == 0
    judged(path, made.voxels)


RECODED = {
    "other order": transposed(1, 2, 0),
    "checksum": (*RAW, {"name": "crc32c", "configuration": {}}),
    "two": (*GZIP, ZSTD[1]),
}


@pytest.mark.parametrize("codecs", RECODED.values(), ids=RECODED)
@pytest.mark.parametrize("dtype", ["u2", "f4", "bool"])
def test_what_v2_cannot_say_is_uncompressed(tmp_path: Path, codecs: tuple[dict[str, Any], ...], dtype: str) -> None:
    made = array((7, 13, 5), dtype, (4, 4, 4), codecs=codecs, fill_value=dtype == "bool" or 7)
    path = write_out(shown(made), tmp_path / "a")
    files = [p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")]
    assert len(files) == len(made.stored) and {p.stat().st_size for p in files} == {64 * made.dtype.itemsize}
    judged(path, made.voxels)


def test_a_chunk_that_was_replaced_since_is_not_read_in_part() -> None:
    made = array((7, 13, 5), "u2", (4, 4, 4), codecs=ZSTD)
    file = at(shown(made), "1/1/0")
    assert isinstance(file, ViewFile)
    made.stored[1, 1, 0] += b"longer"
    with pytest.raises(NotFound):
        file.layout.read(made, 0, 10)


def test_chunks_of_a_clients_shards_are_the_inner_ones(tmp_path: Path) -> None:
    made = array((7, 13, 5), "u2", (4, 8, 4), codecs=sharded((2, 2, 4), ZSTD))
    path = write_out(shown(made), tmp_path / "a")
    assert json.loads((path / ".zarray").read_text())["chunks"] == [2, 2, 4]
    assert not (path / "0/0/0").exists() and made.given == 0
    judged(path, made.voxels)


@pytest.mark.parametrize(
    ("dtype", "fill", "said"),
    [
        ("f4", float("nan"), "NaN"),
        ("f4", float("inf"), "Infinity"),
        ("f8", float("-inf"), "-Infinity"),
        ("f8", 1.5, 1.5),
        ("c8", complex(1, float("inf")), [1.0, "Infinity"]),
        ("u8", 2**64 - 1, 2**64 - 1),
        ("i8", -(2**63), -(2**63)),
        ("bool", True, True),
    ],
)
def test_a_chunk_that_is_not_there_is_fill_value(tmp_path: Path, dtype: str, fill: Any, said: Any) -> None:
    made = MemoryArray(array_meta((5, 6), dtype, (4, 4), fill_value=fill))
    path = write_out(shown(made), tmp_path / "a")
    assert json.loads((path / ".zarray").read_text())["fill_value"] == said
    assert len(list(path.rglob("*"))) == 4  # two documents, and the rows of chunks
    judged(path, made.voxels)


# -------------------------------------------------------------------------------------------------------- OME-Zarr


def test_an_image_of_five_axes_with_labels_opens_as_ome_zarr_04(tmp_path: Path) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader
    from ome_zarr_models.v04.image import Image
    from ome_zarr_models.v04.image_label import ImageLabel
    from ome_zarr_models.v04.labels import Labels

    node = whole()
    folder = zarr2.folder(node)
    assert folder is not None
    path = write_out(folder, tmp_path / "image.zarr")
    root = zarr.open_group(path, mode="r", zarr_format=2)
    assert root.attrs["lab"] == {"who": "me"} and "ome" not in root.attrs
    for at_path in ("s0", "s1", "labels/nuclei/s0", "labels/nuclei/s1"):
        here: Any = node
        for name in at_path.split("/"):
            here = here.child(name)
        judged(path / at_path, here.array.voxels)
        assert zarr.open_array(path / at_path, mode="r").attrs["_ARRAY_DIMENSIONS"] == list("tczyx")

    model = Image.from_zarr(root)
    assert [a.name for a in model.attributes.multiscales[0].axes] == list("tczyx")
    assert model.attributes.multiscales[0].version == "0.4"
    assert model.attributes.multiscales[0].datasets[1].coordinateTransformations[0].scale == [1, 1, 80, 9, 8]
    assert model.attributes.omero is not None and model.attributes.omero.channels[0].label == "actin"
    Labels.from_zarr(zarr.open_group(path / "labels", mode="r"))
    label = ImageLabel.from_zarr(zarr.open_group(path / "labels/nuclei", mode="r"))
    assert label.attributes.image_label.version == "0.4" and label.attributes.image_label.colors[0].label_value == 1

    found = parse_url(path)
    assert found is not None and found.fmt.version == "0.4"
    nodes = list(Reader(found)())
    assert [a["name"] for a in nodes[0].metadata["axes"]] == list("tczyx")
    for level, data in enumerate(nodes[0].data):
        assert np.array_equal(data.compute(), node.nodes[f"s{level}"].array.voxels)
    assert any(n.zarr.subpath("").endswith("nuclei") for n in nodes)


def test_plates_wells_and_series_become_those_of_04(tmp_path: Path) -> None:
    from ome_zarr_models.v04.hcs import HCS

    view, multiscale = image()
    field = hierarchy(view, ngff.ome_attributes(multiscale))
    field.name = "0"
    well = MemoryNode("1", None, {"ome": {"version": "0.5", "well": {"images": [{"path": "0"}]}}}, {"0": field})
    plate = {
        "columns": [{"name": "1"}],
        "rows": [{"name": "A"}],
        "wells": [{"path": "A/1", "rowIndex": 0, "columnIndex": 0}],
    }
    root = MemoryNode(
        "", None, {"ome": {"version": "0.5", "plate": plate}}, {"A": MemoryNode("A", None, {}, {"1": well})}
    )
    folder = zarr2.folder(root)
    assert folder is not None
    path = write_out(folder, tmp_path / "plate.zarr")
    HCS.from_zarr(zarr.open_group(path, mode="r"))
    assert zarr.open_group(path / "A/1", mode="r").attrs["well"]["version"] == "0.4"
    series = zarr2.attributes({"ome": {"version": "0.5", "bioformats2raw.layout": 3}, "x": 1})
    assert series == {"bioformats2raw.layout": 3, "x": 1}


def test_metadata_that_04_does_not_have_stays_as_it_is() -> None:
    for kept in ({"ome": {"version": "0.6.dev3", "multiscales": [{}]}}, {"ome": "no"}, {}, {"multiscales": [1]}):
        assert zarr2.attributes(kept) == kept
    assert zarr2.attributes({"ome": {"version": "0.5", "multiscales": "no", "labels": 3}}) == {
        "multiscales": "no",
        "labels": 3,
    }


def test_an_array_that_cannot_be_read_is_absent() -> None:
    made = array((4, 4), "u1", (4, 4))
    made.readable = False
    root = MemoryNode("", None, {}, {"s0": MemoryNode("s0", made)})
    assert zarr2.folder(root.nodes["s0"]) is None
    folder = zarr2.folder(root)
    assert folder is not None and set(entries(folder)) == {".zgroup", ".zattrs"}


# --------------------------------------------------------------------------------------------------------- writing


WRITTEN = {**CODECS, **RECODED, "shards": sharded((2, 2, 2), ZSTD)}


@pytest.mark.parametrize("codecs", WRITTEN.values(), ids=WRITTEN)
def test_chunks_that_zarr_writes_are_taken_as_voxels(tmp_path: Path, codecs: tuple[dict[str, Any], ...]) -> None:
    made = array((7, 13, 5), "u2", (4, 4, 4), codecs=codecs)
    folder = shown(made)
    path = write_out(folder, tmp_path / "a")
    new = noise((7, 13, 5), "u2", seed=9)
    zarr.open_array(path, mode="r+", zarr_format=2)[...] = new
    for file in sorted(path.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            put(folder, str(file.relative_to(path)), file.read_bytes())
    assert np.array_equal(made.voxels, new)


@pytest.mark.parametrize("codecs", WRITTEN.values(), ids=WRITTEN)
def test_a_chunk_file_is_complete_or_refused(codecs: tuple[dict[str, Any], ...]) -> None:
    made = array((7, 13, 5), "u2", (4, 4, 4), codecs=codecs)
    file = at(shown(made), "1/2/1")
    assert isinstance(file, ViewFile) and file.decode is not None and file.box is not None
    data = content(file)
    assert np.array_equal(file.decode(memoryview(data)), made.voxels[file.box.slices()])
    for length in range(0, len(data), 7):
        with pytest.raises(Incomplete):
            file.decode(memoryview(data[:length]))
        with pytest.raises(Incomplete):
            file.decode(memoryview(bytes(len(data) - 1)))
    with pytest.raises(BadInput) as error:
        file.decode(memoryview(data + b"\0"))
    assert not isinstance(error.value, Incomplete)


@pytest.mark.parametrize("codec", [numcodecs.Zstd(), numcodecs.GZip(), numcodecs.Blosc(), numcodecs.Zlib()])
@pytest.mark.parametrize("length", [0, 100, 127, 129, 10**7])
def test_chunks_of_another_size_are_refused(codec: Any, length: int) -> None:
    from volfs.views.decompressors import decompress

    data = bytes(codec.encode(np.zeros(length, np.uint8)))
    with pytest.raises(BadInput):
        decompress(codec.codec_id, data, 128)
    right = bytes(codec.encode(np.arange(128, dtype=np.uint8)))
    assert bytes(decompress(codec.codec_id, right, 128)) == bytes(range(128))


@given(st.sampled_from([numcodecs.Zstd(checksum=True), numcodecs.GZip()]), st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_gives_the_same_voxels_or_none(codec: Any, where: int, change: int) -> None:
    from volfs.views.decompressors import decompress

    voxels = np.random.default_rng(0).integers(0, 9, 400, np.uint8).tobytes()
    data = bytearray(codec.encode(voxels))
    data[where % len(data)] ^= change
    with contextlib.suppress(BadInput):
        assert bytes(decompress(codec.codec_id, data, 400)) == voxels


def test_a_byte_that_is_no_bool_is_refused() -> None:
    file = at(shown(array((7, 5), "bool", (4, 4), codecs=RAW)), "1/1")
    assert isinstance(file, ViewFile) and file.decode is not None
    with pytest.raises(BadInput, match="0 or 1"):
        file.decode(memoryview(b"\2" * 16))


# -------------------------------------------------------------------------------------- chunks filled up at the edge


@st.composite
def padded(draw: st.DrawFn) -> tuple[np.ndarray, Padded, bytes]:
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    dtype = np.dtype(draw(st.sampled_from(["u1", ">u2", "<f4", "?"])))
    voxels = noise(tuple(n + 1 for n in shape), dtype.newbyteorder("="))
    order = tuple(draw(st.permutations(range(len(shape)))))
    box = Box((1,) * len(shape), tuple(n + 1 for n in shape))
    more = tuple(shape[axis] + draw(st.integers(0, 3)) for axis in order)
    value = dtype.newbyteorder("=").type(1)
    expected = np.full(more, value, dtype)
    inside = voxels[box.slices()].transpose(order)
    expected[tuple(slice(0, n) for n in inside.shape)] = inside
    return voxels, Padded(Voxels(box, order, dtype), more, value), expected.tobytes()


@given(padded(), st.data())
def test_any_range_of_a_padded_chunk_reads_and_writes(made: tuple[np.ndarray, Padded, bytes], data: Any) -> None:
    voxels, extent, expected = made
    source = MemoryArray(array_meta(voxels.shape, voxels.dtype, voxels.shape, codecs=RAW), voxels)
    layout = Layout(extent)
    assert layout.size == len(expected) and layout.writable
    assert layout.read(source, 0, layout.size) == expected
    a = data.draw(st.integers(0, layout.size))
    b = data.draw(st.integers(a, layout.size))
    assert layout.read(source, a, b - a) == expected[a:b]
    assert layout.write(source, a, expected[a:b]) == b - a
    assert np.array_equal(source.voxels, voxels)
    # New voxels, in two pieces anywhere; what lies beyond the edge stays.
    new = source.voxels.copy()
    source.write(extent.inner.box, noise(extent.inner.box.shape, source.dtype, seed=3))
    written = layout.read(source, 0, layout.size)
    source.write(Box.whole(new.shape), new)
    if source.dtype.kind != "f":
        layout.write(source, 0, written[:a])
        layout.write(source, a, written[a:])
        assert layout.read(source, 0, layout.size) == written
    if layout.size > extent.inner.size:
        before = layout.read(source, 0, layout.size)
        with pytest.raises(BadInput):
            layout.write(source, 0, bytes(layout.size - 1) + b"\7")
        assert layout.read(source, 0, layout.size) == before


def test_a_volume_of_terabytes_lists_and_opens_its_middle() -> None:
    meta = array_meta((40_000, 70_000, 70_000), "u2", (64, 64, 64), codecs=transposed(1, 2, 0))
    made = HugeArray(meta, Box((624, 0, 0), (625, 1094, 1094)))
    folder = shown(made)
    edge = at(folder, "624/500/1093")
    assert isinstance(edge, ViewFile) and edge.layout.size == 64**3 * 2
    assert at(folder, "623/500/1093") is None and at(folder, "625/0/0") is None
    got = np.frombuffer(edge.layout.read(made, 64 * 64 * 2 * 63, 64 * 64 * 2), "<u2").reshape(64, 64)
    assert np.array_equal(got[:, :48], made.read(Box((39_999, 32_000, 69_952), (40_000, 32_064, 70_000)))[0])
    assert not got[:, 48:].any() and made.given < 100_000
    row = at(folder, "624/3")
    assert isinstance(row, Folder) and len(entries(row)) == 1094 and made.asked <= 1094 + 10
