"""N5, BigDataViewer projects and Neuroglancer's precomputed, each written by others: every voxel, size and axis."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pybdv
import pytest
import tensorstore
import z5py
from cloudvolume import CloudVolume

import volfs
from tests.kits import round_trips
from tests.kits.import_sources import holds, reads_bad
from volfs.errors import BadInput
from volfs.ingest.axis_order import arrange
from volfs.ingest.importer import import_source
from volfs.ingest.readers import open_source
from volfs.ingest.readers.neuroglancer_shards import murmurhash3_low64
from volfs.ingest.source import check_unchanged
from volfs.model.box import Box
from volfs.testing.volumes import noise

DTYPES = ["u1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


def labels(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Few and many labels, small and large, so that all widths of bits occur."""
    many = noise(shape, dtype)
    few = many % np.array(3, many.dtype)
    half = np.zeros(shape, bool)
    half[: shape[0] // 2] = True
    made = np.where(half, few, many)
    made[..., : shape[-1] // 3] = 7
    return np.ascontiguousarray(made)


# -------------------------------------------------------------------------------------------------------------- N5


def write_n5(path: Path, data: np.ndarray, chunk: tuple[int, ...], compression: str) -> None:
    """With TensorStore; ``data`` in C order."""
    options = {"cname": "zstd", "clevel": 3, "shuffle": 1} if compression == "blosc" else {}
    spec = {
        "driver": "n5",
        "kvstore": {"driver": "file", "path": str(path)},
        "metadata": {
            "compression": {"type": compression, **options},
            "dataType": data.dtype.newbyteorder("=").name,
            "dimensions": data.shape[::-1],
            "blockSize": chunk[::-1],
        },
        "create": True,
    }
    tensorstore.open(spec).result().write(data.transpose()).result()


@pytest.mark.parametrize("compression", ["raw", "gzip", "bzip2", "xz", "blosc", "zstd"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_n5_of_any_dtype_and_compression_as_tensorstore_writes_it(tmp_path: Path, dtype: str, compression: str) -> None:
    data = noise((7, 13, 5), dtype)
    write_n5(tmp_path / "v.n5" / "raw", data, (3, 4, 5), compression)
    source = open_source([tmp_path / "v.n5" / "raw"])
    assert source.description.grain == (3, 4, 5) and source.description.name == "raw"
    holds(arrange(source), data, "zyx")
    holds(arrange(open_source([tmp_path / "v.n5"])), data, "zyx")


@pytest.mark.parametrize("compression", ["raw", "gzip", "bzip2", "xz", "lz4", "zstd", "blosc"])
def test_n5_as_z5_writes_it_with_blocks_left_out(tmp_path: Path, compression: str) -> None:
    data = noise((7, 13, 5), "u2")
    with z5py.File(str(tmp_path / "v.n5"), "w") as file:
        made = file.create_dataset("g/d", shape=data.shape, chunks=(3, 4, 5), dtype="uint16", compression=compression)
        made[:3] = data[:3]
        made[:, 8:] = data[:, 8:]
    expected = np.zeros_like(data)
    expected[:3], expected[:, 8:] = data[:3], data[:, 8:]
    holds(arrange(open_source([tmp_path / "v.n5" / "g" / "d"])), expected, "zyx")


def test_n5_blocks_in_the_frames_of_java(tmp_path: Path) -> None:
    """n5-java compresses with LZ4BlockOutputStream; the frames here are put together by its layout."""
    from numcodecs import lz4

    data = noise((4, 5, 6), "u2")
    with z5py.File(str(tmp_path / "v.n5"), "w") as file:
        file.create_dataset("d", data=data, chunks=(4, 5, 6), compression="raw")
    place = tmp_path / "v.n5" / "d"
    whole = (place / "0" / "0" / "0").read_bytes()
    frames = b""
    for part in (whole[16:100], whole[100:]):
        packed = lz4.compress(part)[4:]
        method, packed = (0x20, packed) if len(packed) < len(part) else (0x10, part)
        head = bytes([method | 6]) + len(packed).to_bytes(4, "little") + len(part).to_bytes(4, "little")
        frames += b"LZ4Block" + head + bytes(4) + packed
    frames += b"LZ4Block" + bytes([0x16]) + bytes(12)
    (place / "0" / "0" / "0").write_bytes(whole[:16] + frames)
    attributes = json.loads((place / "attributes.json").read_text())
    attributes["compression"] = {"type": "lz4", "blockSize": 65536}
    (place / "attributes.json").write_text(json.dumps(attributes))
    holds(arrange(open_source([place])), data, "zyx")
    (place / "0" / "0" / "0").write_bytes(whole[:16] + frames[:-30])
    reads_bad(place, "unreadable or cut short")


@pytest.mark.parametrize(("shape", "axes"), [((9, 13), "yx"), ((2, 4, 5, 6), "czyx"), ((2, 3, 4, 5, 6), "tczyx")])
def test_n5_of_other_dimensions(tmp_path: Path, shape: tuple[int, ...], axes: str) -> None:
    data = noise(shape, "u2")
    write_n5(tmp_path / "v.n5", data, (2,) * len(shape), "gzip")
    source = arrange(open_source([tmp_path / "v.n5"]))
    assert source.description.name == "v"
    holds(source, data, axes)


def test_n5_levels_and_where_programs_leave_voxel_sizes(tmp_path: Path) -> None:
    data = noise((4, 5, 6), "u2")
    for level in range(2):
        write_n5(tmp_path / "v.n5" / "em" / f"s{level}", data[:: level + 1], (2, 2, 2), "gzip")
    group = tmp_path / "v.n5" / "em"

    def described(path: Path, attributes: dict[str, Any]) -> tuple[Any, ...]:
        file = path / "attributes.json"
        old = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**old, **attributes}))
        found = arrange(open_source([group])).description
        file.write_text(json.dumps(old))
        return found.scale, [a.unit for a in found.axes], found.translation, "".join(a.name for a in found.axes)

    nano = ["nanometer"] * 3
    viewer = {"pixelResolution": {"unit": "nm", "dimensions": [4.0, 4.5, 40.0]}}
    assert described(group, viewer) == ((40, 4.5, 4), nano, None, "zyx")
    assert described(group / "s0", viewer) == ((40, 4.5, 4), nano, None, "zyx")
    lists = {"resolution": [4.0, 4.5, 40.0], "units": ["nm"] * 3, "axes": ["x", "y", "z"]}
    assert described(group / "s0", lists) == ((40, 4.5, 4), nano, None, "zyx")
    transform = {"axes": list("zyx"), "scale": [40.0, 4.5, 4.0], "translate": [0.0, 2, 3], "units": ["nm"] * 3}
    assert described(group / "s0", {"transform": transform}) == ((40, 4.5, 4), nano, (0, 2, 3), "zyx")
    cosem = {"multiscales": [{"datasets": [{"path": "s0", "transform": transform}, {"path": "s1"}]}]}
    assert described(group, cosem) == ((40, 4.5, 4), nano, (0, 2, 3), "zyx")
    assert described(group, {}) == ((1, 1, 1), [None] * 3, None, "zyx")
    holds(arrange(open_source([group])), data, "zyx")


def test_n5_groups_without_one_image_say_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "v.n5").mkdir()
    with pytest.raises(BadInput, match="holds no image"):
        open_source([tmp_path / "v.n5"])
    for name in ("a", "b"):
        write_n5(tmp_path / "v.n5" / name, noise((4, 5, 6)), (2, 2, 2), "gzip")
    write_n5(tmp_path / "v.n5" / "deep" / "er" / "s0", noise((3, 5, 6)), (2, 2, 2), "gzip")
    with pytest.raises(BadInput, match=r"0: a, 4 x 5 x 6 uint16; 1: b, .*2: deep/er, 3 x 5 x 6 .*name one, like .*:a"):
        open_source([tmp_path / "v.n5"])
    for part in ("b", "/b", "1"):
        holds(arrange(open_source([f"{tmp_path / 'v.n5'}:{part}"])), noise((4, 5, 6)), "zyx")
    for part in ("deep/er", "deep/er/s0", "deep", "2"):
        holds(arrange(open_source([f"{tmp_path / 'v.n5'}:{part}"])), noise((3, 5, 6)), "zyx")
    with pytest.raises(BadInput, match=r"has no nope: it holds 0: a"):
        open_source([f"{tmp_path / 'v.n5'}:nope"])


def test_n5_that_is_damaged_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    for compression in ("raw", "gzip", "bzip2", "xz", "zstd", "blosc"):
        place = tmp_path / f"{compression}.n5"
        write_n5(place, noise((8, 8, 8)), (4, 4, 4), compression)
        block = place / "1" / "0" / "1"
        good = block.read_bytes()
        wide = good[:8] + (9).to_bytes(4, "big") + good[12:]
        mode = (1).to_bytes(2, "big") + good[2:]
        for bad in (b"", good[:3], good[:-9], good + b"x", wide, mode, b"x" * 99):
            if compression in ("bzip2", "xz") and bad == good + b"x":
                continue  # nobody minds what follows the end of those
            block.write_bytes(bad)
            reads_bad(place, r"1/0/1 is (unreadable or cut short|a block of mode)")
        source = open_source([place])
        before = source.fingerprint()
        block.write_bytes(good)
        with pytest.raises(BadInput, match="1/0/1 changed"):
            check_unchanged(before, source.fingerprint())
    attributes = json.loads((place / "attributes.json").read_text())
    for change, reason in (
        ({"dataType": "string"}, "not voxels"),
        ({"compression": {"type": "jpeg"}}, "compressed with jpeg"),
        ({"blockSize": [0, 4, 4]}, "blocks are"),
        ({"blockSize": [1 << 20] * 3}, "more than 2 GiB"),
        ({"dimensions": [8, 8]}, "its shape is"),
        ({"dimensions": "many"}, "unreadable"),
    ):
        (place / "attributes.json").write_text(json.dumps({**attributes, **change}))
        reads_bad(place, reason)
    (place / "attributes.json").write_text("{")
    reads_bad(place, "unreadable")


# ---------------------------------------------------------------------------------------------------- BigDataViewer


def make_bdv(path: Path, data: np.ndarray, names: list[str] | None = None, **options: Any) -> None:
    """One view."""
    pybdv.make_bdv(
        data,
        str(path),
        resolution=[40.0, 4.5, 4.0],
        unit="nm",
        chunks=(3, 4, 5),
        downscale_factors=[[1, 2, 2]],
        n_threads=1,
        **options,
    )


@pytest.mark.parametrize(
    ("ending", "dtype"), [(".n5", "u1"), (".n5", "u2"), (".n5", "f4"), (".h5", "u1"), (".h5", "u2")]
)
def test_bdv_of_one_view(tmp_path: Path, ending: str, dtype: str) -> None:
    data = noise((7, 13, 10), dtype)
    make_bdv(tmp_path / f"v{ending}", data)
    given = [tmp_path / "v.xml"]
    if ending == ".n5":  # the container, a setup, and a time point find the XML by themselves
        given += [tmp_path / "v.n5", tmp_path / "v.n5" / "setup0", tmp_path / "v.n5" / "setup0" / "timepoint0"]
    for path in given:
        source = arrange(open_source([path]))
        found = source.description
        assert found.name == "v" and found.scale == (40, 4.5, 4)
        assert [a.unit for a in found.axes] == ["nanometer"] * 3 and found.grain == (3, 4, 5)
        assert str(tmp_path / "v.xml") in source.fingerprint()
        [setup] = found.facts["setups"]
        assert setup["id"] == 0 and np.diag(setup["affine"]).tolist() == [4, 4.5, 40, 1]
        holds(source, data, "zyx")


@pytest.mark.parametrize("ending", [".n5", ".h5"])
def test_bdv_of_channels_and_time_points_some_missing(tmp_path: Path, ending: str) -> None:
    data = noise((3, 2, 7, 13, 10), "u2")
    for t, c in itertools.product(range(3), range(2)):
        if (t, c) != (1, 1):
            attributes = {"channel": {"id": c, "name": ["DAPI", "GFP"][c]}}
            make_bdv(tmp_path / f"v{ending}", data[t, c], setup_id=c, timepoint=t, attributes=attributes)
    xml = tmp_path / "v.xml"
    text = xml.read_text()
    data[1, 1] = 0
    missing = '<MissingViews><MissingView timepoint="1" setup="1"/></MissingViews></SequenceDescription>'
    xml.write_text(text.replace("</SequenceDescription>", missing))
    source = arrange(open_source([xml]))
    assert source.description.scale == (1, 1, 40, 4.5, 4)
    assert source.description.facts["missing_views"] == [{"setup": 1, "timepoint": 1}]
    assert [s["channel"] for s in source.description.facts["setups"]] == ["DAPI", "GFP"]
    holds(source, data, "tczyx")
    holds(arrange(open_source([f"{xml}:1"])), data[:, 1], "tzyx")
    with pytest.raises(BadInput, match="no setup 7: it has 0, 1"):
        open_source([f"{xml}:7"])
    if ending == ".n5":
        xml.unlink()
        source = arrange(open_source([tmp_path / "v.n5"]))
        assert source.description.scale == (1,) * 5
        holds(source, data, "tczyx")


def test_bdv_says_which_views_are_missing_and_which_registrations_it_keeps(tmp_path: Path) -> None:
    data = noise((3, 7, 13, 10), "u2")
    for t in range(3):
        make_bdv(
            tmp_path / "v.n5",
            data[t],
            setup_id=0,
            timepoint=t,
            affine=[4.0, 0.0, 0.0, 5.0, 0.0, 4.5, 0.0, 6.0, 0.0, 0.0, 40.0, 7.0 + (t > 1)],
        )
    shutil.rmtree(tmp_path / "v.n5/setup0/timepoint1")
    found = open_source([tmp_path / "v.xml"]).description
    assert found.remarks == ("one view is missing, that of setup 0 at time point 1: zero there",)
    assert found.lost == ("registrations of views after the first time point, which differ",)
    assert found.translation is None  # which would be that of the first alone
    xml = tmp_path / "v.xml"
    xml.write_text(xml.read_text().replace("40.0 8.0</affine>", "40.0 7.0</affine>"))
    found = open_source([xml]).description
    assert found.lost == () and found.translation == (0.0, 7.0, 6.0, 5.0)


def test_a_bdv_project_that_promises_the_impossible_is_refused_at_once(tmp_path: Path) -> None:
    make_bdv(tmp_path / "v.n5", noise((7, 13, 10), "u1"))
    xml = tmp_path / "v.xml"
    text = xml.read_text()
    [setup] = re.findall(r"<ViewSetup>.*?</ViewSetup>", text, re.DOTALL)
    names = ("tile", "angle", "illumination", "channel")
    many = "".join(
        re.sub(r"<id>\d+</id>", f"<id>{n}</id>", setup, count=1).replace(
            "<attributes>", f"<attributes>{''.join(f'<{name}>{n}</{name}>' for name in names)}"
        )
        for n in range(3000)
    )
    assert many.count("<attributes>") == 3000
    xml.write_text(text.replace(setup, many))  # 3000 to the fourth of all there could be
    assert open_source([xml]).description.shape == (3000, 7, 13, 10)
    for times in ("0-99999999999", ",".join(f"{n}-{n + 9_000_000}" for n in (0, 9_000_001))):
        points = f'<Timepoints type="pattern"><integerpattern>{times}</integerpattern></Timepoints>'
        xml.write_text(re.sub(r"<Timepoints.*?</Timepoints>", points, text, flags=re.DOTALL))
        with pytest.raises(BadInput, match="which are too many"):
            open_source([xml])
    points = '<Timepoints type="range"><first>0</first><last>9999</last></Timepoints>'
    xml.write_text(re.sub(r"<Timepoints.*?</Timepoints>", points, text.replace(setup, many), flags=re.DOTALL))
    with pytest.raises(BadInput, match="3000 setups of 10000 time points, which are too many views"):
        open_source([xml])


@pytest.mark.parametrize("place", ["attributes.json", "0/0/0"])
@pytest.mark.parametrize("kind", ["pipe", "huge"])
def test_what_is_no_block_and_no_attributes_is_neither_waited_for_nor_read(
    tmp_path: Path, place: str, kind: str
) -> None:
    path = round_trips.n5(tmp_path)
    [block] = [found for found in path.rglob("0") if found.is_file()]
    victim = path / place if place == "attributes.json" else block
    victim.unlink()
    if kind == "pipe":
        os.mkfifo(victim)
    else:
        with victim.open("wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(BadInput, match=r"no plain file|is a pipe|the most that can be"):
        source = open_source([path])
        source.fingerprint()
        source.read(Box.whole(source.description.shape))


def test_bdv_of_channels_and_angles_has_an_axis_for_each(tmp_path: Path) -> None:
    data = noise((3, 2, 7, 13, 10), "u1")
    for number, (angle, channel) in enumerate(itertools.product(range(3), range(2))):
        attributes = {"channel": {"id": channel}, "angle": {"id": angle * 60}}
        make_bdv(tmp_path / "v.n5", data[angle, channel], setup_id=number, attributes=attributes)
    source = open_source([tmp_path / "v.xml"])
    assert [a.name for a in source.description.axes] == ["angle", "c", "z", "y", "x"]
    np.testing.assert_array_equal(source.read(Box.whole(data.shape)), data)
    with volfs.init_store(tmp_path / "store") as store:
        import_source(store, "d", "", source)
        image = volfs.images(store["d"]["latest"])[""]
        np.testing.assert_array_equal(image.levels[0].read(Box.whole(data.shape)), data)


def test_bdv_whose_setups_differ_in_size_says_how_to_import_one(tmp_path: Path) -> None:
    first, second = noise((7, 13, 10), "u1"), noise((6, 13, 10), "u1")
    for number, data in enumerate((first, second)):
        make_bdv(tmp_path / "v.n5", data, setup_id=number, attributes={"channel": {"id": number}})
    with pytest.raises(BadInput, match=r"setup 1 at time point 0 is 6 x 13 x 10 uint8, .* like .*v\.xml:1"):
        open_source([tmp_path / "v.xml"])
    for part in ("v.xml:1", "v.n5:1", "v.n5:setup1"):
        holds(arrange(open_source([f"{tmp_path}/{part}"])), second, "zyx")
    holds(arrange(open_source([tmp_path / "v.n5" / "setup0"])), first, "zyx")


def test_bdv_names_its_container_by_a_uri_since_version_1_1(tmp_path: Path) -> None:
    data = noise((7, 13, 10), "u1")
    make_bdv(tmp_path / "v.n5", data)
    (tmp_path / "v.n5").rename(tmp_path / "my cells.n5")
    text = (tmp_path / "v.xml").read_text().replace(">v.n5<", ">my%20cells.n5<")
    (tmp_path / "v.xml").write_text(text.replace("<ImageLoader ", '<ImageLoader version="1.1" '))
    assert 'version="1.1"' in (tmp_path / "v.xml").read_text()
    holds(arrange(open_source([tmp_path / "v.xml"])), data, "zyx")


def test_bdv_in_partitions_needs_them_all(tmp_path: Path) -> None:
    data = noise((7, 13, 10), "u2")
    make_bdv(tmp_path / "v.h5", data)
    (tmp_path / "v.h5").rename(tmp_path / "part.h5")
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["t00000/s00"] = h5py.ExternalLink("part.h5", "t00000/s00")
    holds(arrange(open_source([tmp_path / "v.xml"])), data, "zyx")
    (tmp_path / "part.h5").unlink()
    reads_bad(tmp_path / "v.xml", r"keeps t00000/s00 in part\.h5, which is not there")


def test_bdv_xml_that_is_damaged_or_of_another_loader_is_refused(tmp_path: Path) -> None:
    make_bdv(tmp_path / "v.n5", noise((7, 13, 10), "u1"))
    path = tmp_path / "v.xml"
    text = path.read_text()
    for bad, reason in (
        ("", "unreadable"),
        (text[: len(text) // 2], "unreadable"),
        ("<a/>", "no ImageLoader"),
        (text.replace("bdv.n5", "spimreconstruction.filelist"), "bdv.n5 and bdv.hdf5 are imported"),
        (text.replace(">v.n5<", ">w.n5<"), "which is not there"),
        (text.replace("<first>0", "<first>x"), "unreadable"),
        (text.replace("<id>0</id>", "<id>7</id>"), "holds no view"),
    ):
        path.write_text(bad)
        reads_bad(path, reason)


# ----------------------------------------------------------------------------------------------------- precomputed


SHARDING = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "preshift_bits": 1,
    "minishard_bits": 2,
    "shard_bits": 3,
    "hash": "identity",
}


def write_precomputed(path: Path, data: np.ndarray, encoding: str = "raw", **scale: Any) -> None:
    """With TensorStore; ``data`` (c, z, y, x)."""
    is_segmentation = encoding == "compressed_segmentation"
    made: dict[str, Any] = {
        "encoding": encoding,
        "chunk_size": [8, 16, 4],
        "resolution": [4, 4.5, 40],
        "voxel_offset": [10, -20, 30],
        "key": "4_4_40",
        **({"compressed_segmentation_block_size": [8, 4, 3]} if is_segmentation else {}),
        **scale,
    }
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(path)},
        "multiscale_metadata": {
            "type": "segmentation" if is_segmentation else "image",
            "data_type": data.dtype.name,
            "num_channels": data.shape[0],
        },
        "scale_metadata": {**made, "size": data.shape[:0:-1]},
        "create": True,
    }
    tensorstore.open(spec).result().write(data.transpose()).result()


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "f4", "i1", "i2"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sharded", [False, True])
def test_precomputed_raw_of_any_dtype(tmp_path: Path, dtype: str, channels: int, sharded: bool) -> None:
    data = noise((channels, 7, 37, 13), dtype)
    write_precomputed(tmp_path / "v", data, **({"sharding": SHARDING} if sharded else {}))
    assert bool(list(tmp_path.rglob("*.shard"))) == sharded
    for path in (tmp_path / "v", tmp_path / "v" / "4_4_40"):
        source = arrange(open_source([path]))
        found = source.description
        assert found.scale[-3:] == (40, 4.5, 4) and found.translation is not None
        assert found.translation[-3:] == (1200, -90, 40) and found.axes[-1].unit == "nanometer"
        assert found.grain[-3:] == (4, 16, 8) and found.facts["voxel_offset"] == [10, -20, 30]
        holds(source, data if channels > 1 else data[0], "czyx"[channels == 1 :])


@pytest.mark.parametrize("change", [
    {"hash": "murmurhash3_x86_128"},
    {"minishard_index_encoding": "gzip", "data_encoding": "gzip", "hash": "murmurhash3_x86_128"},
    {"minishard_bits": 0, "shard_bits": 0, "preshift_bits": 9},
    {"minishard_bits": 6, "shard_bits": 9, "preshift_bits": 0},
])  # fmt: skip
@pytest.mark.parametrize("encoding", ["raw", "compressed_segmentation"])
def test_precomputed_shards_of_any_kind(tmp_path: Path, change: dict[str, Any], encoding: str) -> None:
    data = labels((1, 9, 70, 33), "u8")
    data[:, :, 16:40] = 0  # TensorStore leaves out what is zero
    write_precomputed(tmp_path / "v", data, encoding, sharding={**SHARDING, **change})
    assert list(tmp_path.rglob("*.shard"))
    holds(arrange(open_source([tmp_path / "v"])), data[0], "zyx")


@pytest.mark.parametrize("dtype", ["u4", "u8"])
@pytest.mark.parametrize("channels", [1, 2])
def test_precomputed_compressed_segmentation(tmp_path: Path, dtype: str, channels: int) -> None:
    data = labels((channels, 9, 37, 29), dtype)
    write_precomputed(tmp_path / "v", data, "compressed_segmentation", chunk_size=[16, 32, 8])
    source = arrange(open_source([tmp_path / "v"]))
    assert source.description.facts["type"] == "segmentation"
    holds(source, data if channels > 1 else data[0], "czyx"[channels == 1 :])


@pytest.mark.parametrize(("encoding", "dtype", "channels"), [
    ("png", "u1", 1), ("png", "u1", 3), ("png", "u2", 1), ("png", "u1", 4), ("jpeg", "u1", 1), ("jpeg", "u1", 3),
])  # fmt: skip
def test_precomputed_pictures(tmp_path: Path, encoding: str, dtype: str, channels: int) -> None:
    data = noise((channels, 7, 37, 13), dtype)
    quality = {"jpeg_quality": 95} if encoding == "jpeg" else {}
    write_precomputed(tmp_path / "v", data, encoding, **quality)
    spec = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": f"{tmp_path}/v"}}
    expected = tensorstore.open(spec).result().read().result().transpose()
    if encoding == "png":
        np.testing.assert_array_equal(expected, data)
    seen = arrange(open_source([tmp_path / "v"])).read(Box.whole(data.shape[channels == 1 :]))
    wanted = expected if channels > 1 else expected[0]
    # JPEG decoders may differ by a rounding.
    assert seen.shape == wanted.shape
    assert np.abs(seen.astype(int) - wanted.astype(int)).max() <= (2 if encoding == "jpeg" else 0)


@pytest.mark.parametrize("encoding", ["raw", "compressed_segmentation"])
def test_precomputed_as_cloud_volume_writes_it(tmp_path: Path, encoding: str) -> None:
    data = labels((9, 37, 29), "u8")
    info = CloudVolume.create_new_info(
        num_channels=1,
        layer_type="segmentation",
        data_type="uint64",
        encoding=encoding,
        resolution=[4, 4, 40],
        voxel_offset=[1, 2, 3],
        volume_size=data.shape[::-1],
        chunk_size=[16, 16, 4],
    )
    for compress in (False, "gzip"):
        path = tmp_path / str(compress)
        made = CloudVolume(f"file://{path}", info=info, compress=compress, progress=False)
        made.commit_info()
        made[:, :, :] = data.transpose()
        assert bool(list(path.rglob("*.gz"))) == (compress == "gzip")
        source = arrange(open_source([path]))
        assert source.description.scale == (40, 4, 4) and source.description.translation == (120, 8, 4)
        holds(source, data, "zyx")
    for packed in (tmp_path / "gzip").rglob("*.gz"):  # as a bucket that is copied has them: packed, without saying so
        packed.rename(packed.with_suffix(""))
    holds(arrange(open_source([tmp_path / "gzip"])), data, "zyx")
    for file in (tmp_path / "gzip" / "4_4_40").iterdir():
        file.rename(f"{file}.br")
    reads_bad(tmp_path / "gzip", "brotli")


def test_precomputed_scales_and_chunks_that_are_not_there(tmp_path: Path) -> None:
    data = noise((1, 7, 37, 13), "u2")
    write_precomputed(tmp_path / "v", data)
    write_precomputed(tmp_path / "v", data[:, :, ::2, ::2], key="8_9_40", resolution=[8, 9, 40], voxel_offset=[0, 0, 0])
    source = arrange(open_source([tmp_path / "v" / "8_9_40"]))
    assert source.description.scale == (40, 9, 8) and source.description.translation is None
    holds(source, data[0, :, ::2, ::2], "zyx")
    for part in ("8_9_40", "1"):
        holds(arrange(open_source([f"{tmp_path / 'v'}:{part}"])), data[0, :, ::2, ::2], "zyx")
    gone = tmp_path / "v" / "4_4_40" / "10-18_-20--4_30-34"
    gone.unlink()
    data[0, :4, :16, :8] = 0
    holds(arrange(open_source([tmp_path / "v"])), data[0], "zyx")
    shutil.rmtree(tmp_path / "v" / "4_4_40")
    holds(arrange(open_source([tmp_path / "v"])), np.zeros_like(data[0]), "zyx")


def test_precomputed_that_is_damaged_is_refused(tmp_path: Path) -> None:
    data = labels((1, 7, 37, 13), "u8")
    for encoding in ("raw", "compressed_segmentation"):
        write_precomputed(tmp_path / encoding, data, encoding)
        chunk = tmp_path / encoding / "4_4_40" / "10-18_-20--4_30-34"
        good = chunk.read_bytes()
        wild = b"\xff\xff\xff\x7f" + good[4:]
        for bad in (b"", good[:3], good[: len(good) // 2], *([wild] if encoding != "raw" else [good + b"x"])):
            chunk.write_bytes(bad)
            reads_bad(tmp_path / encoding, "10-18_-20--4_30-34 is unreadable or cut short")
        rng = np.random.default_rng(3)
        for _ in range(40):  # whatever is in it, it is an answer or an error in one line
            noisy = bytearray(good)
            for at in rng.integers(0, len(good), 5):
                noisy[at] = rng.integers(0, 256)
            chunk.write_bytes(noisy)
            try:
                open_source([tmp_path / encoding]).read(Box((0, 0, 0), (4, 16, 8)))
            except BadInput as error:
                assert "10-18_-20--4_30-34" in str(error)
        chunk.write_bytes(gzip.compress(good)[:-9])
        reads_bad(tmp_path / encoding, "unreadable or cut short")
        chunk.write_bytes(gzip.compress(bytes(1 << 24)))
        reads_bad(tmp_path / encoding, "unreadable or cut short")
    write_precomputed(tmp_path / "s", data, sharding=SHARDING)
    shards = sorted(tmp_path.rglob("*.shard"), key=lambda p: p.stat().st_size)
    whole = shards[-1].read_bytes()
    for bad in (b"", whole[:40], whole[: len(whole) // 2], whole[:-9], b"\xff\xee" * 999):
        shards[-1].write_bytes(bad)
        reads_bad(tmp_path / "s", r"\.shard is unreadable or cut short")
    info = json.loads((tmp_path / "s" / "info").read_text())
    for change, reason in (
        ({"data_type": "float16"}, "not voxels"),
        ({"scales": [{**info["scales"][0], "encoding": "compresso"}]}, "encoding compresso"),
        ({"scales": [{**info["scales"][0], "sharding": {"@type": "other"}}]}, "sharded as 'other'"),
        ({"scales": [{**info["scales"][0], "resolution": [0, 1, 1]}]}, "resolution"),
        ({"scales": [{"key": "4_4_40"}]}, "info is unreadable"),
        ({"scales": [{**info["scales"][0], "chunk_sizes": []}]}, "info is unreadable"),
    ):
        (tmp_path / "s" / "info").write_text(json.dumps({**info, **change}))
        reads_bad(tmp_path / "s", reason)


def test_murmurhash_is_as_tensorstore_has_it(tmp_path: Path) -> None:
    """One chunk for each shard: the names of the files are the hashes."""
    data = noise((1, 8, 8, 8), "u1")
    sharding = {**SHARDING, "hash": "murmurhash3_x86_128", "preshift_bits": 0, "minishard_bits": 0, "shard_bits": 32}
    write_precomputed(tmp_path / "v", data, sharding=sharding, chunk_size=[2, 2, 2])
    names = {int(path.stem, 16) for path in (tmp_path / "v").rglob("*.shard")}
    assert names == {murmurhash3_low64(number) & 0xFFFFFFFF for number in range(64)}


# ------------------------------------------------------------------------------------------------------ end to end


def test_hierarchies_end_to_end(tmp_path: Path) -> None:
    data = noise((3, 2, 9, 140, 20), "u2")
    for t, c in itertools.product(range(3), range(2)):
        make_bdv(tmp_path / "b.n5", data[t, c], setup_id=c, timepoint=t, attributes={"channel": {"id": c}})
    write_n5(tmp_path / "n.n5", data[0, 0], (4, 50, 9), "zstd")
    write_precomputed(tmp_path / "p", data[0], sharding=SHARDING)
    with volfs.init_store(tmp_path / "store") as store:
        for name, expected in (("b.xml", data), ("n.n5", data[0, 0]), ("p", data[0])):
            with open_source([tmp_path / name]) as source:
                import_source(store, source.description.name, "", source)
            image = volfs.images(store[name[0]]["latest"])[""]
            np.testing.assert_array_equal(image.levels[0].read(Box.whole(expected.shape)), expected)
            assert len(image.levels) == 2
        image = volfs.images(store["p"]["latest"])[""]
        assert image.levels[0].translation == (0, 1200, -90, 40)
        (tmp_path / "n.n5" / "0" / "1" / "2").write_bytes(b"broken")
        with open_source([tmp_path / "n.n5"]) as source, pytest.raises(BadInput, match="unreadable or cut short"):
            import_source(store, "bad", "", source)
        assert store.datasets() == ["b", "n", "p"]
