"""Zarr v3 with shards as files: zarr-python, TensorStore, ome-zarr and the OME-NGFF models judge it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
    write_out,
)
from tests.kits.view_folders import sharded as client_sharded
from tests.kits.zarr_hierarchies import DTYPES, ZSTD, array, blosc, same, transposed, whole
from volfs.errors import NotFound
from volfs.model.box import Box
from volfs.model.metadata import parse_node
from volfs.testing.volumes import noise
from volfs.views.folder import Folder, ViewFile
from volfs.views.folders import sharded_zarr


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small arrays have several."""
    monkeypatch.setattr(sharded_zarr, "SHARD_BYTES", 2048)


def shown(made: MemoryArray, **attributes: Any) -> Folder:
    return sharded_zarr.folder(MemoryNode("a", made, attributes))


def judged(path: Path, expected: np.ndarray) -> None:
    opened = zarr.open_array(path, mode="r", zarr_format=3)
    assert opened.shards is not None and same(np.asarray(opened[...]), expected)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    store = tensorstore.open(spec).result()
    assert same(store.read().result(), expected)
    middle = tuple(slice(n // 3, n // 3 + 2) for n in expected.shape)
    assert same(store[middle].read().result(), expected[middle])


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_voxel_of_every_type_is_read_by_zarr_and_tensorstore(tmp_path: Path, dtype: str) -> None:
    made = array((7, 13, 21), dtype, (4, 4, 4), fill_value=1 if dtype != "bool" else True)
    path = write_out(shown(made), tmp_path / "a")
    judged(path, made.voxels)
    assert made.given == 0 and len([p for p in (path / "c").rglob("*") if p.is_file()]) > 1


CODECS = {
    "raw": RAW,
    "big": BIG_ENDIAN,
    "zstd": ZSTD,
    "gzip": GZIP,
    "blosc": blosc("lz4", "bitshuffle", 2),
    "transposed": transposed(1, 2, 0),
    "checksum": (*RAW, {"name": "crc32c", "configuration": {}}),
}


@pytest.mark.parametrize("codecs", CODECS.values(), ids=CODECS)
def test_blocks_of_any_codec_are_passed_through(tmp_path: Path, codecs: tuple[dict[str, Any], ...]) -> None:
    made = array((7, 13, 21), "u2", (4, 4, 4), codecs=codecs)
    path = write_out(shown(made), tmp_path / "a")
    judged(path, made.voxels)
    held = b"".join(p.read_bytes() for p in (path / "c").rglob("*") if p.is_file())
    assert all(stored in held for stored in made.stored.values())
    meta = parse_node((path / "zarr.json").read_bytes())
    assert meta.sharding is not None and meta.sharding.codecs == made.meta.codecs  # type: ignore[union-attr]


@pytest.mark.parametrize("fill", [float("nan"), float("-inf"), 1.5])
def test_a_shard_of_which_nothing_is_stored_is_absent(tmp_path: Path, fill: float) -> None:
    made = MemoryArray(array_meta((16, 16, 40), "f4", (4, 4, 4), fill_value=fill))
    made.write(Box((3, 3, 3), (5, 5, 5)), noise((2, 2, 2), "f4"))
    path = write_out(shown(made), tmp_path / "a")
    assert len([p for p in (path / "c").rglob("*") if p.is_file()]) == 1
    judged(path, made.voxels)
    folder = shown(made)
    assert at(folder, "c/0/0/0") is not None and at(folder, "c/1/1/1") is None


def test_ranges_of_a_shard_equal_the_whole_and_touch_only_their_blocks() -> None:
    made = array((16, 16, 16), "u2", (4, 4, 4), codecs=ZSTD)
    file = at(shown(made), "c/0/1/0")
    assert isinstance(file, ViewFile)
    data = content(file)

    @given(st.integers(0, len(data)), st.integers(0, len(data)))
    def ranges(a: int, b: int) -> None:
        assert file.layout.read(made, a, b) == data[a : a + b]

    ranges()
    count = 2048 // (64 * 2)  # blocks of a shard
    index = np.frombuffer(data[-count * 16 - 4 : -4], "<u8").reshape(-1, 2)
    assert int(index[:, 1].sum()) == len(data) - count * 16 - 4
    made.stored.clear()
    with pytest.raises(NotFound):
        file.layout.read(made, 0, 10)
    assert file.layout.read(made, len(data) - 20, 20) == data[-20:]


def test_an_array_that_the_client_shards_has_its_own_files(tmp_path: Path) -> None:
    made = array((7, 13, 21), "u2", (8, 8, 8), codecs=client_sharded((2, 4, 4), ZSTD))
    path = write_out(shown(made, mine=1), tmp_path / "a")
    for key, stored in made.stored.items():
        assert (path / "c" / "/".join(map(str, key))).read_bytes() == stored
    assert len([p for p in (path / "c").rglob("*") if p.is_file()]) == len(made.stored)
    assert zarr.open_array(path, mode="r").shards == (8, 8, 8) and zarr.open_array(path).attrs["mine"] == 1
    judged(path, made.voxels)


def test_an_array_that_cannot_be_read_has_its_own_files(tmp_path: Path) -> None:
    made = array((7, 13), "u2", (4, 4))
    made.readable = False
    path = write_out(shown(made), tmp_path / "a")
    for key, stored in made.stored.items():
        assert (path / "c" / "/".join(map(str, key))).read_bytes() == stored
    assert np.array_equal(zarr.open_array(path, mode="r")[...], made.voxels)


def test_an_image_with_labels_opens_as_ome_zarr_05(tmp_path: Path) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader
    from ome_zarr_models.v05.image import Image
    from ome_zarr_models.v05.image_label import ImageLabel
    from ome_zarr_models.v05.labels import Labels

    node = whole()
    path = write_out(sharded_zarr.folder(node), tmp_path / "image.zarr")
    root = zarr.open_group(path, mode="r", zarr_format=3)
    assert dict(root.attrs) == node.attributes
    for place in ("s0", "s1", "labels/nuclei/s0", "labels/nuclei/s1"):
        here: Any = node
        for name in place.split("/"):
            here = here.child(name)
        judged(path / place, here.array.voxels)
        assert json.loads((path / place / "zarr.json").read_text())["dimension_names"] == list("tczyx")
    assert Image.from_zarr(root).ome_attributes.multiscales[0].datasets[1].path == "s1"
    Labels.from_zarr(zarr.open_group(path / "labels", mode="r"))
    ImageLabel.from_zarr(zarr.open_group(path / "labels/nuclei", mode="r"))
    found = parse_url(path)
    assert found is not None and found.fmt.version == "0.5"
    (first, *_) = Reader(found)()
    for level, data in enumerate(first.data):
        assert np.array_equal(data.compute(), node.nodes[f"s{level}"].array.voxels)


@pytest.mark.parametrize(
    ("shape", "dtype", "chunks"),
    [
        ((40_000, 70_000, 70_000), "u2", (64, 64, 64)),
        ((40_000, 70_000, 70_000), "u1", (32, 32, 32)),
        ((2000, 4, 500, 4000, 4000), "u2", (1, 1, 64, 64, 64)),
        ((1, 1_000_000, 1_000_000), "u8", (1, 1024, 1024)),
        ((100_000, 512, 512), "u1", (1, 512, 512)),
        ((30, 30), "u1", (4, 4)),
        ((4096, 4096, 4096), "f8", (512, 512, 512)),
    ],
)
def test_shards_are_large_near_to_cubes_and_of_few_blocks(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...]
) -> None:
    monkeypatch.undo()
    made = HugeArray(array_meta(shape, dtype, chunks))
    document = at(shown(made), "zarr.json")
    assert isinstance(document, ViewFile)
    meta = parse_node(content(document))
    cells = [a // b for a, b in zip(meta.chunk_shape, chunks, strict=True)]  # type: ignore[union-attr]
    assert np.prod(cells) <= 4096
    inside = [min(a, b) for a, b in zip(meta.chunk_shape, shape, strict=True)]  # type: ignore[union-attr]
    if np.prod(cells) < 4096 and inside != list(shape):
        assert 256 << 20 <= np.prod(meta.chunk_shape) * made.dtype.itemsize <= 1 << 30  # type: ignore[union-attr]
    divided = [a for a, b, n in zip(inside, chunks, shape, strict=True) if n > b][-3:]
    if len(shape) == 3 and all(n > c for n, c in zip(shape, chunks, strict=True)) and np.prod(chunks) > 10**6:
        assert max(divided) <= 4 * min(divided)


def test_a_volume_of_terabytes_lists_and_opens_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    meta = array_meta((40_000, 70_000, 70_000), "u2", (64, 64, 64), codecs=ZSTD)
    made = HugeArray(meta, Box((0, 0, 1093), (625, 1094, 1094)))
    folder = shown(made)
    row = at(folder, "c/30/50")
    assert isinstance(row, Folder) and row.run is not None
    files = entries(row)
    assert list(files) == [str(row.run.count - 1)]
    (file,) = files.values()
    assert isinstance(file, ViewFile) and file.box is not None
    assert file.layout.size == 16 * 8 * len(b"payload") + 1024 * 16 + 4
    assert made.asked <= 1024 + 100 and made.given == 0
