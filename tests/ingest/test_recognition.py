"""Files are known by what is in them, whatever they are called; what cannot be read as a file is refused at once."""

from __future__ import annotations

import gzip
import inspect
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import mrcfile
import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from tests.kits.import_sources import holds, write_series, write_slices
from volfs.errors import BadInput
from volfs.ingest.axis_order import arrange
from volfs.ingest.readers import FILES, FOLDERS, open_source
from volfs.testing.volumes import noise

DATA = noise((5, 9, 13), "i2")


def nifti(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(DATA.transpose(), np.eye(4)), path)


def nifti2(path: Path) -> None:
    nibabel.save(nibabel.Nifti2Image(DATA.transpose(), np.eye(4)), path)


def hdf5_behind_a_block(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=1024) as file:
        file["voxels"] = DATA
    with path.open("r+b") as raw:
        raw.write(b"a block of the user's own")


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["voxels"] = DATA


def mrc_in_gzip(path: Path) -> None:
    mrcfile.write(path.with_suffix(".mrc"), DATA)
    path.write_bytes(gzip.compress(path.with_suffix(".mrc").read_bytes()))


def big_tiff(path: Path) -> None:
    tifffile.imwrite(path, DATA, bigtiff=True, byteorder=">", photometric="minisblack")


WRITERS: dict[str, Callable[[Path], object]] = {
    ".nii": nifti,
    ".nii.gz": nifti,
    "2.nii": nifti2,
    ".tif": lambda path: tifffile.imwrite(path, DATA, photometric="minisblack"),
    "big.tif": big_tiff,
    ".h5": hdf5,
    "block.h5": hdf5_behind_a_block,
    ".npy": lambda path: np.save(path, DATA),
    ".nrrd": lambda path: nrrd.write(str(path), DATA.transpose()),
    ".mrc": lambda path: mrcfile.write(path, DATA),
    "packed.gz": mrc_in_gzip,
    ".mha": lambda path: sitk.WriteImage(sitk.GetImageFromArray(DATA), str(path)),
}


@pytest.mark.parametrize("written", WRITERS)
@pytest.mark.parametrize("called", ["volume", "volume.xyz", "volume.dat", "volume.v1.0"])
def test_a_volume_is_known_by_its_content_whatever_it_is_called(tmp_path: Path, written: str, called: str) -> None:
    WRITERS[written](tmp_path / f"a{written}")
    shutil.move(tmp_path / f"a{written}", tmp_path / called)
    source = arrange(open_source([tmp_path / called]))
    assert source.description.name in ("volume", called, "voxels", "volume.v1")
    holds(source, DATA, "zyx")


def test_every_row_of_the_tables_names_functions_that_take_what_it_says() -> None:
    for row in (*FILES, *FOLDERS):
        taken = [*inspect.signature(row.function(row.opener)).parameters]
        assert taken == ["path", *["part"] * row.parts, *["rules"] * row.slices] or taken == ["folder", "part"], row
        if row.confirm is not None:
            assert len(inspect.signature(row.function(row.confirm)).parameters) == 1


PACKAGES = {"PIL", "h5py", "numcodecs", "nibabel", "pydicom", "tifffile", "zarr"}
LOADED = "*sorted(name for name in sys.modules if name in {} or name.startswith('volfs.ingest.readers.'))"
SHARED = ["marks", "packed_voxels", "raw", "slice_numbers"]


@pytest.mark.parametrize(
    ("written", "packages", "readers"),
    [
        (".npy", set(), ["npy"]),
        (".tif", {"tifffile"}, ["archive", "ome_set", "ome_xml", "parts", "pictures", "stack", "tiff", "tiff_facts"]),
        (".nii", {"nibabel", "PIL", "pydicom"}, ["nifti"]),  # which nibabel imports itself
    ],
)
def test_an_import_waits_for_no_package_that_reads_another_format(
    tmp_path: Path, written: str, packages: set[str], readers: list[str]
) -> None:
    WRITERS[written](tmp_path / f"a{written}")
    said = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import sys; from volfs.cli import main; from contextlib import suppress\n"
            "for line in (['init'], ['import', 'cells', sys.argv[2]]):\n"
            "    with suppress(SystemExit): main(['--store', sys.argv[1], *line])\n"
            f"print('loaded', {LOADED.format(PACKAGES)})",
            *(tmp_path / "store", tmp_path / f"a{written}"),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert "cells: v1, 5 x 9 x 13 int16" in said
    loaded = said[-1].split()[1:]
    assert {name for name in loaded if name in PACKAGES} <= packages
    prefix = "volfs.ingest.readers."
    assert [name.removeprefix(prefix) for name in loaded if name.startswith(prefix)] == sorted([*SHARED, *readers])


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("named", ["hdr", "img"])
def test_a_nifti_in_two_files_is_known_by_either(
    tmp_path: Path, kind: type[nibabel.Nifti1Pair], packing: str, named: str
) -> None:
    nibabel.save(kind(DATA.transpose(), np.diag((-2, 3, 4, 1))), tmp_path / f"a.img{packing}")
    [header] = tmp_path.glob("a.hdr*")
    source = open_source([header if named == "hdr" else tmp_path / f"a.img{packing}"])
    assert source.description.name == "a" and source.description.scale == (4.0, 3.0, 2.0)
    holds(source, DATA, "zyx")
    assert len(source.fingerprint()) == 2
    (tmp_path / f"a.img{packing}").unlink()
    with pytest.raises(BadInput, match=r"a\.hdr.* keeps its voxels in an \.img file beside it, which is not there"):
        open_source([header])


def test_an_analyze_in_two_files_says_what_to_do(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nibabel.save(nibabel.AnalyzeImage(DATA.transpose().astype("i2"), np.eye(4)), tmp_path / "a.img")
    for name in ("a.hdr", "a.img"):
        with pytest.raises(BadInput, match=r"a\.hdr is ANALYZE 7\.5, .*: convert it to NIfTI"):
            open_source([tmp_path / name])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", ["btf", "tf8", "lsm", "stk", "svs", "qptiff", "scn"])
def test_tiff_under_the_endings_of_microscopes(tmp_path: Path, ending: str) -> None:
    tifffile.imwrite(tmp_path / f"cells.{ending}", DATA, photometric="minisblack", compression="zlib")
    source = open_source([tmp_path / f"cells.{ending}"])
    assert source.description.name == "cells"
    holds(source, DATA, "zyx")


@pytest.mark.parametrize("called", ["wrong.png", "wrong.nii", "wrong.mrc", "wrong.npy"])
def test_content_counts_before_the_ending(tmp_path: Path, called: str) -> None:
    tifffile.imwrite(tmp_path / called, DATA, photometric="minisblack")
    holds(open_source([tmp_path / called]), DATA, "zyx")


def test_slices_are_known_by_their_content_where_no_ending_says_anything(tmp_path: Path) -> None:
    planes = noise((3, 9, 13), "u1")
    for z, path in enumerate(write_slices(tmp_path / "s", planes)):
        path.rename(path.with_name(f"slice{z}"))
    (tmp_path / "s" / "readme").write_text("what these are")
    holds(open_source([tmp_path / "s"]), planes, "zyx")
    holds(open_source([str(tmp_path / "s" / "slice*")]), planes, "zyx")
    # And a picture under the ending of another kind is what it is.
    Image.fromarray(planes[0]).save(tmp_path / "really.png", "TIFF")
    holds(open_source([tmp_path / "really.png"]), planes[0], "yx")


def test_a_pipe_a_socket_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nii")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "b.tif"))
    (tmp_path / "c.mrc").symlink_to("a.nii")
    for name, what in (("a.nii", "a pipe"), ("b.tif", "a socket"), ("c.mrc", "a pipe")):
        with pytest.raises(BadInput, match=rf"{name} is {what}: an import reads plain files"):
            open_source([tmp_path / name])
    with pytest.raises(BadInput, match="/dev/null is a device"):
        open_source(["/dev/null"])
    reading, writing = os.pipe()
    with pytest.raises(BadInput, match="is a pipe"):
        open_source([f"/dev/fd/{reading}"])  # what a process substitution of a shell is
    os.close(reading)
    os.close(writing)
    listening.close()


def test_a_pipe_among_slices_or_data_files_is_refused_at_once(tmp_path: Path) -> None:
    write_slices(tmp_path / "s", noise((3, 9, 13), "u1"))
    os.mkfifo(tmp_path / "s" / "stack z11.png")
    with pytest.raises(BadInput, match=r"z11\.png is a pipe"):
        open_source([tmp_path / "s"])
    with pytest.raises(BadInput, match=r"z11\.png is a pipe"):
        open_source([str(tmp_path / "s" / "*.png")])
    nrrd.write(str(tmp_path / "a.nhdr"), DATA.transpose(), {"encoding": "raw"})
    data = next(path for path in tmp_path.iterdir() if path.name.startswith("a.raw"))
    data.unlink()
    os.mkfifo(data)
    with pytest.raises(BadInput, match=r"a\.raw is a pipe"):
        open_source([tmp_path / "a.nhdr"])


def test_a_pipe_in_a_hierarchy_of_chunks_is_refused_before_it_is_read(tmp_path: Path) -> None:
    import zarr

    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 8), chunks=(4, 4), dtype="u1")
    array[...] = 1
    (tmp_path / "a.zarr/c/0/0").unlink()
    os.mkfifo(tmp_path / "a.zarr/c/0/0")
    with pytest.raises(BadInput, match="is a pipe"):
        open_source([tmp_path / "a.zarr"]).fingerprint()  # which an import takes first


# ---------------------------------------------------------------------------------------------------- DICOM


def bare(path: Path) -> None:
    """Take preamble and mark away."""
    path.write_bytes(path.read_bytes()[132:])


@pytest.mark.parametrize("endings", [True, False])
@pytest.mark.parametrize("meta", [True, False])
def test_dicom_without_a_preamble(tmp_path: Path, meta: bool, endings: bool) -> None:
    import pydicom

    data = noise((4, 16, 20), "u2")
    for number, path in enumerate(write_series(tmp_path / "old", data)):
        if meta:
            bare(path)
        else:  # as ACR-NEMA had it: no group 0002 either
            found = pydicom.dcmread(path)
            encoded = pydicom.filebase.DicomBytesIO()
            encoded.is_little_endian, encoded.is_implicit_VR = True, True
            pydicom.filewriter.write_dataset(encoded, found)
            path.write_bytes(encoded.getvalue())
        assert pydicom.dcmread(path, force=True).Rows == 16
        if not endings:
            path.rename(path.with_name(f"IM{number:04}"))
    holds(arrange(open_source([tmp_path / "old"])), data, "zyx")
    single = sorted((tmp_path / "old").iterdir())[0]
    assert open_source([single]).description.shape == (16, 20)


def test_dicom_in_nested_directories(tmp_path: Path) -> None:
    data = noise((12, 16, 20), "u2")
    paths = write_series(tmp_path / "flat", data)
    for number, path in enumerate(paths):  # a study of several directories, as discs have them
        home = tmp_path / "cd" / "DICOM" / f"S{number // 5}"
        home.mkdir(parents=True, exist_ok=True)
        path.rename(home / f"IM{number:04}")
    (tmp_path / "cd" / "README.TXT").write_text("viewer.exe shows these")
    (tmp_path / "cd" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    source = arrange(open_source([tmp_path / "cd"]))
    assert source.description.name == "cd"
    holds(source, data, "zyx")
    holds(arrange(open_source([tmp_path / "cd" / "DICOM" / "S1"])), data[5:10], "zyx")


def test_dicom_of_several_series_in_nested_directories_says_which_there_are(tmp_path: Path) -> None:
    data = noise((3, 16, 20), "u2")
    (tmp_path / "cd").mkdir()
    write_series(tmp_path / "cd" / "A", data, SeriesNumber=4, SeriesInstanceUID="1.2.4")
    write_series(tmp_path / "cd" / "B", data[::-1], SeriesNumber=7, SeriesInstanceUID="1.2.7")
    with pytest.raises(BadInput, match=r"holds 2 series \(4: .*; 7: .*\): name one, like .*cd:4"):
        open_source([tmp_path / "cd"])
    holds(arrange(open_source([f"{tmp_path / 'cd'}:7"])), data[::-1], "zyx")


@pytest.mark.parametrize("start", [b"\x08\0\x05\0", b"\x02\0\0\0\x04\0\0\0", b"\x08\0" * 512, bytes(1024)])
def test_bytes_that_begin_like_dicom_by_chance_are_none(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "noise").write_bytes(start + bytes(range(256)) * 8)
    with pytest.raises(BadInput, match="neither slices"):
        open_source([tmp_path / "a"])


def test_a_directory_of_directories_of_slices_names_them(tmp_path: Path) -> None:
    for name in ("left", "right"):
        (tmp_path / "study" / name).mkdir(parents=True)
        write_slices(tmp_path / "study" / name, noise((2, 9, 13), "u1"))
    with pytest.raises(BadInput, match=r"slices in left, right: import one of these"):
        open_source([tmp_path / "study"])
