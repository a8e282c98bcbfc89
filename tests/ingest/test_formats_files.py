"""NRRD, MetaImage, MRC and HDF5, each written by its own library: every voxel, voxel size and axis as it meant them."""

from __future__ import annotations

import bz2
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk

import volfs
from tests.kits.import_sources import holds, itk_affine, reads_bad
from volfs.errors import BadInput, NotFound
from volfs.export import export, wanted_path
from volfs.ingest.axis_order import arrange
from volfs.ingest.importer import import_source
from volfs.ingest.readers import open_source
from volfs.model.box import Box
from volfs.testing.volumes import noise

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


def units(path: Path | str) -> list[str | None]:
    return [a.unit for a in arrange(open_source([path])).description.axes]


# ------------------------------------------------------------------------------------------------------------ NRRD


@pytest.mark.parametrize("dtype", [*DTYPES, ">u2", ">f4"])
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
def test_nrrd_of_any_dtype_and_encoding(tmp_path: Path, dtype: str, encoding: str) -> None:
    data = noise((7, 13, 5), dtype)
    nrrd.write(str(tmp_path / "v.nrrd"), data.astype(dtype), {"encoding": encoding}, index_order="C")
    source = arrange(open_source([tmp_path / "v.nrrd"]))
    assert source.description.name == "v" and units(tmp_path / "v.nrrd") == [None] * 3
    holds(source, data, "zyx")


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
def test_nhdr_with_its_data_elsewhere(tmp_path: Path, encoding: str) -> None:
    data = noise((7, 13, 5), "i2")
    nrrd.write(str(tmp_path / "v.nhdr"), data, {"encoding": encoding}, detached_header=True, index_order="C")
    others = [p for p in tmp_path.iterdir() if p.suffix != ".nhdr"]
    source = open_source([tmp_path / "v.nhdr"])
    assert {str(p) for p in others} < source.fingerprint().keys()
    holds(arrange(source), data, "zyx")
    others[0].unlink()
    reads_bad(tmp_path / "v.nhdr", "which is not there")


def test_nrrd_space_directions_are_voxel_sizes_and_an_affine(tmp_path: Path) -> None:
    data = noise((4, 5, 6), "u2")
    header = {
        "space": "right-anterior-superior",
        "space directions": np.array([[0, 2.0, 0], [-0.3, 0, 0.4], [0, 0, 3.0]]),
        "space origin": np.array([10.0, 20, 30]),
        "kinds": ["domain"] * 3,
        "content": "a head",
        "who": "me",
    }
    nrrd.write(str(tmp_path / "v.nrrd"), data, header, index_order="C")
    found = arrange(open_source([tmp_path / "v.nrrd"])).description
    assert found.scale == pytest.approx((3, 0.5, 2)) and [a.unit for a in found.axes] == ["millimeter"] * 3
    assert found.facts["affine"] == [[0, -0.3, 0, 10], [2, 0, 0, 20], [0, 0.4, 3, 30], [0, 0, 0, 1]]
    assert found.facts["content"] == "a head" and found.facts["notes"] == {"who": "me"}


def test_nrrd_units_are_taken_and_never_guessed(tmp_path: Path) -> None:
    data = noise((4, 5, 6), "u1")
    told = {"space dimension": 3, "space directions": np.diag([4.0, 4.5, 40]), "space units": ["nm", "nm", "nm"]}
    nrrd.write(str(tmp_path / "a.nrrd"), data, told, index_order="C")
    nrrd.write(str(tmp_path / "b.nrrd"), data, {"spacings": [4.0, 4.5, 40]}, index_order="C")
    nrrd.write(str(tmp_path / "c.nrrd"), data, {"spacings": [4.0, 4.5, 40], "units": ["um"] * 3}, index_order="C")
    for name, unit in (("a", "nanometer"), ("b", None), ("c", "micrometer")):
        assert arrange(open_source([tmp_path / f"{name}.nrrd"])).description.scale == (40, 4.5, 4)
        assert units(tmp_path / f"{name}.nrrd") == [unit] * 3


def test_nrrd_of_colours_vectors_and_time(tmp_path: Path) -> None:
    data = noise((4, 5, 6, 3), "u1")
    directions = np.array([[np.nan] * 3, [1, 0, 0], [0, 1, 0], [0, 0, 2.0]])
    header: dict[str, Any] = {"space dimension": 3, "space directions": directions}
    for kind, rgb in (("RGB-color", True), ("vector", False)):
        header["kinds"] = [kind, "space", "space", "space"]
        nrrd.write(str(tmp_path / "v.nrrd"), data, header, index_order="C")
        source = arrange(open_source([tmp_path / "v.nrrd"]))
        assert source.description.rgb == rgb and source.description.scale == (1, 2, 1, 1)
        holds(source, np.moveaxis(data, -1, 0), "czyx")
    header = {"kinds": ["domain"] * 3 + ["time"], "spacings": [1.0, 1, 1, 0.5], "units": ["mm"] * 3 + ["s"]}
    nrrd.write(str(tmp_path / "v.nrrd"), data, header, index_order="C")
    source = arrange(open_source([tmp_path / "v.nrrd"]))
    assert source.description.scale[0] == 0.5 and units(tmp_path / "v.nrrd")[0] == "second"
    holds(source, data, "tzyx")
    header = {
        "space": "left-posterior-superior-time",
        "space directions": np.diag([1, 2, 3, 0.5]),
        "space units": ["um"] * 3 + ["s"],
        "kinds": ["space"] * 3 + ["time"],
    }
    nrrd.write(str(tmp_path / "v.nrrd"), data, header, index_order="C")
    source = arrange(open_source([tmp_path / "v.nrrd"]))
    assert source.description.scale == (0.5, 3, 2, 1)
    assert units(tmp_path / "v.nrrd") == ["second", *["micrometer"] * 3]
    holds(source, data, "tzyx")
    header = {"kinds": ["space"] * 3 + ["list"] * 2, "labels": ["x", "y", "z", "t", "c"]}
    data = noise((3, 2, 5, 7, 11), "u2")
    nrrd.write(str(tmp_path / "v.nrrd"), data, header, index_order="C")
    assert [a.name for a in open_source([tmp_path / "v.nrrd"]).description.axes] == list("ctzyx")
    nrrd.write(str(tmp_path / "v.nrrd"), data, index_order="C")
    assert sorted(a.name for a in open_source([tmp_path / "v.nrrd"]).description.axes) == sorted("tczyx")
    nrrd.write(str(tmp_path / "v.nrrd"), data[0, 0, 0], index_order="C")
    holds(arrange(open_source([tmp_path / "v.nrrd"])), data[0, 0, 0], "yx")


def test_nrrd_in_several_files_and_behind_other_bytes(tmp_path: Path) -> None:
    data = noise((4, 5, 6), "<u2")
    header = "NRRD0004\ntype: ushort\ndimension: 3\nsizes: 6 5 4\nendian: little\nencoding: raw\n"
    for z, plane in enumerate(data):
        (tmp_path / f"z{z + 1:02}.raw").write_bytes(plane.tobytes())
    (tmp_path / "list.nhdr").write_text(header + "data file: LIST\nz01.raw\nz02.raw\nz03.raw\nz04.raw\n")
    (tmp_path / "pattern.nhdr").write_text(header + "data file: z%02d.raw 1 4 1\n")
    (tmp_path / "all.raw").write_bytes(b"line\nxx" + data.tobytes())
    (tmp_path / "skip.nhdr").write_text(header + "line skip: 1\nbyte skip: 2\ndata file: all.raw\n")
    (tmp_path / "end.nhdr").write_text(header + "byteskip: -1\ndatafile: all.raw\n")
    for name in ("list", "pattern", "skip", "end"):
        holds(arrange(open_source([tmp_path / f"{name}.nhdr"])), data, "zyx")
    (tmp_path / "z03.raw").write_bytes(b"short")
    reads_bad(tmp_path / "list.nhdr", r"z03\.raw is unreadable or cut short")
    (tmp_path / "pattern.nhdr").write_text(header + "data file: z%02d.raw 1 9 1\n")
    reads_bad(tmp_path / "pattern.nhdr", r"z05\.raw, which is not there")


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("slices", [1, 2, 3, 6])
def test_nrrd_in_files_of_one_slice_or_several_each_packed_by_itself(
    tmp_path: Path, encoding: str, slices: int
) -> None:
    data = noise((6, 5, 7), "<i2")
    pack: Any = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}[encoding]
    header = f"NRRD0004\ntype: int16\ndimension: 3\nsizes: 7 5 6\nencoding: {encoding}\nendian: little\n"
    count = len(data) // slices
    names = []
    for n in range(count):
        part = data[n * slices : (n + 1) * slices].tobytes()
        names.append(f"s{10 * (count - n):03}.dat")
        (tmp_path / names[-1]).write_bytes(pack(part))
        (tmp_path / f"b{n}.dat").write_bytes(b"a line\nanother\n" + pack(b"xyz" + part))
    dims = "" if slices == 1 else " 3"
    (tmp_path / "list.nhdr").write_text(header + f"data file: LIST{dims}\n" + "\n".join(names) + "\n")
    (tmp_path / "down.nhdr").write_text(header + f"datafile: s%03d.dat {10 * count} 10 -10{dims}\n")
    (tmp_path / "skip.nhdr").write_text(
        header + f"line skip: 2\nbyte skip: 3\ndata file: ./b%d.dat 0 {count - 1} 1{dims}\n"
    )
    for name in ("list", "down", "skip"):
        holds(arrange(open_source([tmp_path / f"{name}.nhdr"])), data, "zyx")
    if slices == 1 and encoding == "raw":
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "list.nhdr"))), data)
    if encoding != "raw":
        (tmp_path / names[-1]).write_bytes(pack(data.tobytes())[:-6])
        reads_bad(tmp_path / "list.nhdr", rf"{names[-1]} is unreadable or cut short")


def test_nrrd_parts_that_cannot_be_equal_are_refused(tmp_path: Path) -> None:
    for n in range(4):
        (tmp_path / f"{n}.raw").write_bytes(bytes(100))
    header = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 7 5 6\nencoding: raw\ndata file: %d.raw 0 3 1\n"
    (tmp_path / "a.nhdr").write_text(header)
    reads_bad(tmp_path / "a.nhdr", r"4 files cannot be \(6, 5, 7\) voxels in equal parts")


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
def test_nrrd_that_is_damaged_or_cut_short_is_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "bad.nrrd"
    nrrd.write(str(path), noise((30, 20, 10), "i2"), {"encoding": encoding}, index_order="C")
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-len(whole) // 2] ^= 0x10
    bads = [b"", whole[:30], whole[: len(whole) // 2], whole[:-9], b"x" * 1000]
    for bad in [*bads, *([bytes(flipped)] if encoding != "raw" else [])]:
        path.write_bytes(bad)
        reads_bad(path, r"bad\.nrrd is unreadable or cut short")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("encoding: raw", "encoding: zrl"), "encoding zrl"),
        (("type: uint16", "type: block"), "not voxels"),
        (("sizes: 6 5 4", "sizes: 6 5"), "dimensions"),
        (("sizes: 6 5 4", "sizes: 6 5 0"), "dimensions"),
        (("endian: little", "endian: middle"), "endian"),
        (("dimension: 3\n", ""), "lacks 'dimension'"),
        (("dimension: 3", "dimension: many"), "invalid literal"),
    ],
)
def test_nrrd_that_is_no_volume_is_refused(tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    path = tmp_path / "v.nrrd"
    nrrd.write(str(path), noise((4, 5, 6), "u2"), {"encoding": "raw"}, index_order="C")
    whole = path.read_bytes()
    assert change[0].encode() in whole
    path.write_bytes(whole.replace(change[0].encode(), change[1].encode(), 1))
    reads_bad(path, reason)


def test_nrrd_as_simpleitk_writes_it(tmp_path: Path) -> None:
    for compressed in (False, True):
        data, image = itk_image(noise((7, 13, 5), "i2"))
        sitk.WriteImage(image, str(tmp_path / "v.nrrd"), compressed)
        source = arrange(open_source([tmp_path / "v.nrrd"]))
        assert source.description.scale == pytest.approx((40, 4.5, 4))
        np.testing.assert_allclose(source.description.facts["affine"], itk_affine(image))
        holds(source, data, "zyx")


# ------------------------------------------------------------------------------------------------------- MetaImage


def itk_image(data: np.ndarray, vector: bool = False) -> tuple[np.ndarray, Any]:
    image = sitk.GetImageFromArray(data, isVector=vector)
    if image.GetDimension() == 3:
        image.SetSpacing((4, 4.5, 40))
        image.SetOrigin((1, 2, -3))
        image.SetDirection((0, 0.6, 0.8, 1, 0, 0, 0, 0.8, -0.6))
    return data, image


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ending", [".mha", ".mhd"])
@pytest.mark.parametrize("compressed", [False, True])
def test_metaimage_of_any_dtype(tmp_path: Path, dtype: str, ending: str, compressed: bool) -> None:
    data, image = itk_image(noise((7, 13, 5), dtype))
    sitk.WriteImage(image, str(tmp_path / f"v{ending}"), compressed)
    source = arrange(open_source([tmp_path / f"v{ending}"]))
    found = source.description
    assert found.name == "v" and found.scale == (40, 4.5, 4) and [a.unit for a in found.axes] == ["millimeter"] * 3
    np.testing.assert_allclose(found.facts["affine"], itk_affine(image))
    assert len(source.fingerprint()) == (2 if ending == ".mhd" else 1)
    holds(source, data, "zyx")


def test_metaimage_of_colours_and_of_more_dimensions(tmp_path: Path) -> None:
    colours = noise((4, 9, 13, 3), "u1")
    sitk.WriteImage(itk_image(colours, True)[1], str(tmp_path / "c.mha"))
    source = arrange(open_source([tmp_path / "c.mha"]))
    assert source.description.rgb and source.description.scale == (1, 40, 4.5, 4)
    np.testing.assert_allclose(source.description.facts["affine"], itk_affine(itk_image(colours, True)[1]))
    holds(source, np.moveaxis(colours, -1, 0), "czyx")
    film = noise((2, 4, 9, 13), "f4")
    image = sitk.GetImageFromArray(film, isVector=False)
    image.SetSpacing((1, 2, 3, 0.5))
    sitk.WriteImage(image, str(tmp_path / "t.mha"))
    source = arrange(open_source([tmp_path / "t.mha"]))
    assert source.description.scale == (0.5, 3, 2, 1)
    holds(source, film, "tzyx")
    flat = noise((9, 13), "u2")
    sitk.WriteImage(sitk.GetImageFromArray(flat), str(tmp_path / "f.mha"))
    holds(arrange(open_source([tmp_path / "f.mha"])), flat, "yx")


def test_metaimage_of_either_byte_order_in_one_file_or_several(tmp_path: Path) -> None:
    data = noise((4, 5, 6), ">i2")
    head = "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = True\nDimSize = 6 5 4\n"
    head += "ElementSpacing = 4 4.5 40\nElementType = MET_SHORT\n"
    for z, plane in enumerate(data.astype(">i2")):
        (tmp_path / f"z{z}.raw").write_bytes(plane.tobytes())
    (tmp_path / "all.raw").write_bytes(b"header" + data.astype(">i2").tobytes())
    (tmp_path / "list.mhd").write_text(head + "ElementDataFile = LIST\nz0.raw\nz1.raw\nz2.raw\nz3.raw\n")
    (tmp_path / "pattern.mhd").write_text(head + "ElementDataFile = z%d.raw 0 3 1\n")
    (tmp_path / "skip.mhd").write_text(head + "HeaderSize = 6\nElementDataFile = all.raw\n")
    (tmp_path / "end.mhd").write_text(head + "DistanceUnits = um\nHeaderSize = -1\nElementDataFile = all.raw\n")
    (tmp_path / "none.mhd").write_text(
        head
        + "AnatomicalOrientation = RAI\nDistanceUnits = ?\nElementDataFile = LIST\nz0.raw\nz1.raw\nz2.raw\nz3.raw\n"
    )
    for name in ("list", "pattern", "skip", "end", "none"):
        path = tmp_path / f"{name}.mhd"
        assert units(path) == ["micrometer" if name == "end" else None] * 3
        assert arrange(open_source([path])).description.scale == (40, 4.5, 4)
        holds(arrange(open_source([path])), data, "zyx")
        if name not in ("skip",):  # SimpleITK judges what was written by hand
            np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), data)


@pytest.mark.parametrize("compressed", [False, True])
def test_metaimage_that_is_damaged_or_cut_short_is_refused(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "bad.mha"
    sitk.WriteImage(itk_image(noise((20, 13, 5), "i2"))[1], str(path), compressed)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-len(whole) // 3] ^= 0x10
    bads = [
        b"",
        whole[:30],
        whole[: len(whole) // 2],
        whole[:-9],
        b"x" * 1000,
        whole.replace(b"MET_SHORT", b"MET_WHAT"),
    ]
    for bad in [*bads, *([bytes(flipped)] if compressed else [])]:
        path.write_bytes(bad)
        reads_bad(path, r"bad\.mha (is unreadable or cut short|holds MET_WHAT)")


# ------------------------------------------------------------------------------------------------------------- MRC


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f4", "f2", "c8", ">i2", ">f4"])
@pytest.mark.parametrize("ending", [".mrc", ".rec", ".map", ".mrc.gz", ".mrc.bz2"])
def test_mrc_of_any_mode_and_byte_order(tmp_path: Path, dtype: str, ending: str) -> None:
    data = noise((7, 13, 5), dtype)
    path = tmp_path / f"tomo{ending}"
    compression = {".gz": "gzip", ".bz2": "bzip2"}.get(path.suffix)
    with mrcfile.new(path, compression=compression) as file:
        file.set_data(data.astype(dtype))
        file.voxel_size = (4.0, 4.5, 40.0)
        file.set_volume()
        assert file.data.dtype.str[0] == (">" if dtype[0] == ">" else np.dtype(dtype).str[0])
    source = arrange(open_source([path]))
    found = source.description
    assert found.name == "tomo" and found.scale == pytest.approx((40, 4.5, 4))
    assert [a.unit for a in found.axes] == ["angstrom"] * 3
    holds(source, data, "zyx")


def test_mrc_with_an_extended_header_labels_and_an_origin(tmp_path: Path) -> None:
    data = noise((4, 5, 6), "f4")
    with mrcfile.new(tmp_path / "v.mrc") as file:
        file.set_data(data)
        file.set_extended_header(np.frombuffer(b"SERI" * 300, "V12"))
        file.header.exttyp = b"SERI"
        file.header.origin = (1.0, 2.0, 3.0)
        file.nstart = (5, 6, 7)
        file.add_label("from a test")
    source = open_source([tmp_path / "v.mrc"])
    facts = source.description.facts
    assert facts["extended_header"] == {"type": "SERI", "bytes": 1200}
    assert facts["origin"] == [1, 2, 3] and facts["nstart"] == [5, 6, 7]
    assert any("from a test" in label for label in facts["labels"])
    assert source.description.scale == (1, 1, 1) and source.description.axes[0].unit is None
    holds(source, data, "zyx")


def test_mrc_pictures_stacks_and_axes_in_another_order(tmp_path: Path) -> None:
    data = noise((4, 5, 6), "i2")
    with mrcfile.new(tmp_path / "flat.mrc", data[0]):
        pass
    holds(open_source([tmp_path / "flat.mrc"]), data[0], "yx")
    many = noise((2, 3, 5, 6), "i2")
    with mrcfile.new(tmp_path / "many.mrcs", many) as file:
        file.voxel_size = (1.0, 2.0, 3.0)
    source = open_source([tmp_path / "many.mrcs"])
    assert source.description.scale == (1, 3, 2, 1)
    holds(source, many, "tzyx")
    with mrcfile.new(tmp_path / "turned.map", data) as file:
        file.header.mapc, file.header.mapr, file.header.maps = 3, 1, 2  # columns z, rows x, sections y
        file.header.mx, file.header.my, file.header.mz = 5, 4, 6
        file.header.cella = (5.0, 8.0, 18.0)
    source = arrange(open_source([tmp_path / "turned.map"]))
    assert source.description.scale == (3, 2, 1)
    holds(source, data.transpose(2, 0, 1), "zyx")


def test_mrc_of_imod_says_whether_its_bytes_have_a_sign(tmp_path: Path) -> None:
    data = noise((4, 5, 6), "i1")
    with mrcfile.new(tmp_path / "v.st", data):
        pass
    raw = bytearray((tmp_path / "v.st").read_bytes())
    raw[152:156] = (1146047817).to_bytes(4, "little")
    for flags, expected in ((1, data), (0, data.view("u1"))):
        raw[156:160] = flags.to_bytes(4, "little")
        (tmp_path / "v.st").write_bytes(raw)
        holds(open_source([tmp_path / "v.st"]), expected, "zyx")


def test_mrc_without_a_known_ending_is_known_by_its_content(tmp_path: Path) -> None:
    data = noise((4, 5, 6), "i2")
    with mrcfile.new(tmp_path / "v.mrc", data):
        pass
    (tmp_path / "v.mrc").rename(tmp_path / "v.preali")
    holds(open_source([tmp_path / "v.preali"]), data, "zyx")


@pytest.mark.parametrize("ending", [".mrc", ".mrc.gz"])
def test_mrc_that_is_damaged_or_of_another_mode_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"bad{ending}"
    with mrcfile.new(tmp_path / "v.mrc", noise((20, 13, 5), "i2")):
        pass
    good = (tmp_path / "v.mrc").read_bytes()
    whole = gzip.compress(good) if ending.endswith("gz") else good
    for bad in (b"", whole[:100], whole[: len(whole) // 2], whole[:-9], b"x" * 3000):
        path.write_bytes(bad)
        reads_bad(path, r"bad\.mrc(\.gz)? is unreadable or cut short")
    for mode in (3, 101):
        (tmp_path / "v.mrc").write_bytes(good[:12] + mode.to_bytes(4, "little") + good[16:])
        reads_bad(tmp_path / "v.mrc", f"mode {mode}")


# ------------------------------------------------------------------------------------------------------------ HDF5


@pytest.mark.parametrize("dtype", [*DTYPES, "f2", "?", "c8", ">u2"])
@pytest.mark.parametrize("options", [{}, {"chunks": (3, 4, 5), "compression": "gzip", "shuffle": True}])
def test_hdf5_datasets_of_any_dtype(tmp_path: Path, dtype: str, options: dict[str, Any]) -> None:
    data = noise((7, 13, 5), dtype)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("a/b/data", data=data.astype(dtype), **options)
        file["table"] = np.arange(9)
    for name in (tmp_path / "v.h5", f"{tmp_path}/v.h5:/a/b/data", f"{tmp_path}/v.h5:a"):
        source = open_source([name])
        assert source.description.grain == options.get("chunks", (1, 1, 5))
        assert source.description.facts["dataset"] == "/a/b/data"
        holds(source, data, "zyx")


def test_hdf5_element_sizes_and_axistags(tmp_path: Path) -> None:
    data = noise((2, 4, 5, 6, 3), "u1")
    keys = "tzyxc"
    with h5py.File(tmp_path / "v.ilp", "w") as file:
        made = file.create_dataset("volume/data", data=data)
        made.attrs["element_size_um"] = np.array([0.04, 0.0045, 0.004])
        made.attrs["axistags"] = json.dumps({"axes": [{"key": k, "typeFlags": 2, "resolution": 0} for k in keys]})
        labelled = file.create_dataset("xyz", data=data[0, ..., 0])
        for dim, label in zip(labelled.dims, "xyz", strict=True):
            dim.label = label
        labelled.attrs["element_size_um"] = [3.0, 2.0, 1.0]
    source = arrange(open_source([f"{tmp_path}/v.ilp:/volume/data"]))
    assert source.description.scale == (1, 1, 0.04, 0.0045, 0.004)
    assert [a.unit for a in source.description.axes] == [None, None, *["micrometer"] * 3]
    holds(source, data.transpose(0, 4, 1, 2, 3), "tczyx")
    source = arrange(open_source([f"{tmp_path}/v.ilp:/xyz"]))
    assert source.description.scale == (3, 2, 1)
    holds(source, data[0, ..., 0].transpose(), "zyx")


def test_hdf5_files_of_several_arrays_say_what_they_hold(tmp_path: Path) -> None:
    data = noise((4, 5, 6), "u2")
    with h5py.File(tmp_path / "v.hdf5", "w") as file:
        file["raw"], file["labels"], file["names"] = data, data, ["a", "b"]
    path = tmp_path / "v.hdf5"
    with pytest.raises(
        BadInput, match=r"2 arrays of voxels \(0: /labels, 4 x 5 x 6 uint16; 1: /raw.*like .*v\.hdf5:/labels"
    ):
        open_source([path])
    with pytest.raises(BadInput, match="has no /nope: it holds 0: /labels"):
        open_source([f"{path}:/nope"])
    with pytest.raises(BadInput, match="not voxels"):
        open_source([f"{path}:/names"])
    with pytest.raises(NotFound, match="does not exist"):
        open_source([f"{tmp_path}/w.h5:/raw"])
    holds(open_source([f"{path}:/raw"]), data, "zyx")
    path.rename(tmp_path / "noending")
    holds(open_source([f"{tmp_path}/noending:/raw"]), data, "zyx")


def test_hdf5_that_is_put_together_of_other_files_needs_them_all(tmp_path: Path) -> None:
    data = noise((4, 5, 6), "u2")
    layout = h5py.VirtualLayout(data.shape, data.dtype)
    for z, plane in enumerate(data):
        with h5py.File(tmp_path / f"{z}.h5", "w") as file:
            file["plane"] = plane
        layout[z] = h5py.VirtualSource(f"{z}.h5", "plane", plane.shape)
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    source = open_source([tmp_path / "all.h5"])
    assert len(source.fingerprint()) == 5
    holds(source, data, "zyx")
    (tmp_path / "2.h5").unlink()
    reads_bad(tmp_path / "all.h5", r"2\.h5, which is not there")


def test_hdf5_that_is_damaged_or_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=noise((20, 40, 50)), chunks=(5, 40, 50), compression="gzip", fletcher32=True)
        where = file["d"].id.get_chunk_info(2).byte_offset
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[where + 999] ^= 0x10
    for bad in (b"", whole[:100], whole[: len(whole) // 2], whole[:-9], b"x" * 1000, bytes(flipped)):
        path.write_bytes(bad)
        reads_bad(path, r"bad\.h5(:/d)? is unreadable or cut short")


@pytest.mark.parametrize(("name", "package"), [("v.h5", "h5py"), ("v.dcm", "pydicom"), ("v.nii", "nibabel")])
def test_a_package_that_is_missing_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    (tmp_path / name).write_bytes(bytes(500))
    monkeypatch.setitem(sys.modules, package, None)
    reads_bad(tmp_path / name, rf"need the package {package}: pip install 'volfs\[import\]'")


def test_a_part_of_what_has_none_is_refused(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "v.nrrd"), noise((4, 5, 6), "u2"))
    for name in (f"{tmp_path}/v.nrrd:/data", f"{tmp_path}:3"):
        with pytest.raises(BadInput, match="has no parts"):
            open_source([name])


def test_what_is_larger_than_memory_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    """34 GB, of which the disk holds nothing but a marked voxel."""
    n, at = 2048, (1999, 1500, 777)
    with mrcfile.new_mmap(tmp_path / "a.mrc", (2, 2, 2), 2):
        pass
    head = bytearray((tmp_path / "a.mrc").read_bytes()[:1024])
    head[:12] = np.array([n] * 3, "<i4").tobytes()
    nrrd_head = f"NRRD0004\ntype: float\ndimension: 3\nsizes: {n} {n} {n}\nendian: little\nencoding: raw\n\n"
    heads = {
        "a.mrc": bytes(head),
        "b.nrrd": nrrd_head.encode(),
        "c.mha": f"NDims = 3\nDimSize = {n} {n} {n}\nElementType = MET_FLOAT\nElementDataFile = LOCAL\n".encode(),
    }
    for name, start in heads.items():
        with (tmp_path / name).open("wb") as file:
            file.write(start)
            file.seek(len(start) + 4 * ((at[0] * n + at[1]) * n + at[2]))
            file.write(np.float32(7).tobytes())
            file.truncate(len(start) + 4 * n**3)
        source = arrange(open_source([tmp_path / name]))
        assert source.description.shape == (n, n, n)
        box = Box(tuple(i - 1 for i in at), tuple(i + 2 for i in at))
        seen = source.read(box)
        assert seen[1, 1, 1] == 7 and seen.sum() == 7
        (tmp_path / name).unlink()


# ------------------------------------------------------------------------------------------------------ end to end


def test_single_files_end_to_end(tmp_path: Path) -> None:
    data = noise((20, 140, 33), "i2")
    sitk.WriteImage(itk_image(data)[1], str(tmp_path / "a.mhd"), True)
    sitk.WriteImage(itk_image(data)[1], str(tmp_path / "b.nrrd"))
    with mrcfile.new(tmp_path / "c.mrc", data):
        pass
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["data"] = data
    with volfs.init_store(tmp_path / "store") as store:
        for name in ("a.mhd", "b.nrrd", "c.mrc", "d.h5"):
            with open_source([tmp_path / name]) as source:
                import_source(store, source.description.name, "", source)
            image = volfs.images(store[name[0]]["latest"])[""]
            np.testing.assert_array_equal(image.levels[0].read(Box.whole(data.shape)), data)
            assert len(image.levels) == 2
        path = tmp_path / "a.zraw"
        path.write_bytes(path.read_bytes()[:-100])
        with open_source([tmp_path / "a.mhd"]) as source, pytest.raises(BadInput, match="cut short"):
            import_source(store, "bad", "", source)
        assert store.datasets() == ["a", "b", "c", "d"]


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".nii"])
@pytest.mark.parametrize("turn", [(1, 0, 0, 1), (0.6, -0.8, 0.8, 0.6), (-1, 0, 0, 1), (0, 1, 1, 0)])
def test_a_plane_lies_where_it_lay(tmp_path: Path, ending: str, turn: tuple[float, ...]) -> None:
    image = sitk.GetImageFromArray(noise((9, 13), "u2"))
    image.SetSpacing((0.5, 0.75))
    image.SetOrigin((7.0, -2.0))
    image.SetDirection(turn)
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
    with volfs.init_store(tmp_path / "store") as store:
        with open_source([tmp_path / f"a{ending}"]) as source:
            import_source(store, "d", "", source)
        for other in (".mha", ".nrrd", ".nii"):
            wanted = wanted_path(store["d"]["latest"], f"s0/volume{other}", tmp_path / f"out{other}")
            export(store, wanted, lambda done, total: None)
            again = sitk.ReadImage(str(tmp_path / f"out{other}"))
            assert np.array_equal(sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(image))
            for what in ("GetSpacing", "GetOrigin", "GetDirection"):
                assert getattr(again, what)() == pytest.approx(getattr(image, what)(), abs=1e-6), (other, what)


def test_nrrd_of_an_encoding_that_nobody_has_says_which_there_are(tmp_path: Path) -> None:
    header = "NRRD0004\ntype: short\ndimension: 2\nsizes: 2 2\nencoding: zrl\n\n1 2 3 4\n"
    (tmp_path / "a.nrrd").write_text(header)
    reads_bad(tmp_path / "a.nrrd", r"a\.nrrd has encoding zrl: raw, gzip, .*, text, .*hex are imported")


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("encoding", ["ascii", "text", "txt"])
@pytest.mark.parametrize("detached", [False, True])
def test_nrrd_as_text(tmp_path: Path, dtype: str, encoding: str, detached: bool) -> None:
    data = noise((7, 13, 5), dtype)
    path = tmp_path / ("v.nhdr" if detached else "v.nrrd")
    nrrd.write(str(path), data, {"encoding": encoding}, detached_header=detached, index_order="C")
    assert np.array_equal(nrrd.read(str(path), index_order="C")[0], data)
    holds(arrange(open_source([path])), data, "zyx")


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("endian", ["big", "little"])
@pytest.mark.parametrize("line", [2, 7, 80])
def test_nrrd_in_hexadecimal_digits_is_what_itk_reads(tmp_path: Path, dtype: str, endian: str, line: int) -> None:
    data = noise((7, 13, 5), dtype)
    digits = data.astype(data.dtype.newbyteorder(endian[0].replace("b", ">").replace("l", "<"))).tobytes().hex()
    name = {"f4": "float", "f8": "double"}.get(dtype, data.dtype.name)
    header = f"NRRD0004\ntype: {name}\ndimension: 3\nsizes: 5 13 7\nendian: {endian}\nencoding: hex\n\n"
    path = tmp_path / "a.nrrd"
    path.write_text(header + "\n".join(digits[at : at + line] for at in range(0, len(digits), line)))
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), data)
    holds(arrange(open_source([path])), data, "zyx")
    path.write_text(path.read_text()[:-1])
    reads_bad(path, "its last byte has one digit")


@pytest.mark.parametrize("kind", ["UCHAR", "CHAR", "SHORT", "USHORT", "INT", "UINT", "FLOAT", "DOUBLE"])
def test_metaimage_as_text_is_what_itk_reads(tmp_path: Path, kind: str) -> None:
    dtype = {"UCHAR": "u1", "CHAR": "i1", "SHORT": "i2", "USHORT": "u2", "INT": "i4", "UINT": "u4", "FLOAT": "f4"}
    data = noise((3, 4, 5), dtype.get(kind, "f8"))
    head = f"ObjectType = Image\nNDims = 3\nBinaryData = False\nDimSize = 5 4 3\nElementType = MET_{kind}\n"
    numbers = " ".join(repr(number.item()) for number in data.ravel())
    (tmp_path / "a.mha").write_text(f"{head}ElementDataFile = LOCAL\n{numbers}\n")
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.mha"))), data)
    holds(arrange(open_source([tmp_path / "a.mha"])), data, "zyx")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1 2 three 4", "has 'three' where a number of int16 should be"),
        ("1 2 3 40000", "has '40000' where"),
        ("1 2 3 1_0", "has '1_0' where"),
        ("1 2 3.5 4", "has '3.5' where"),
        ("1 2 nan 4", "has 'nan' where"),
        ("1 2 3", "cut short"),
        ("1 2 3 " + "4" * 2000, "where a number"),
    ],
)
def test_text_that_is_no_voxel_is_named(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "a.nrrd").write_text(f"NRRD0004\ntype: short\ndimension: 2\nsizes: 2 2\nencoding: text\n\n{text}\n")
    reads_bad(tmp_path / "a.nrrd", what)


@pytest.mark.parametrize("text", ["1 -2 3 4", "1, -2,\n3 ,4", "\t+1 -2.0e+00 30e-1\r\n4.000"])
def test_numbers_in_text_are_as_programs_write_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.nrrd").write_text(f"NRRD0004\ntype: short\ndimension: 2\nsizes: 2 2\nencoding: text\n\n{text}")
    holds(open_source([tmp_path / "a.nrrd"]), np.array([[1, -2], [3, 4]], "i2"), "yx")
