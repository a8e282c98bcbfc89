"""How files of each format begin, what they are called, and what marks a directory: what can be seen without a reader.

Nothing here imports a decoder, so that a reader and what it needs is loaded only for what is in its format
(:mod:`volfs.ingest.readers`).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path, PurePath

PNG, JPEG, TIFF = "PNG", "JPEG", "TIFF"
PICTURES = {".png": PNG, ".jpg": JPEG, ".jpeg": JPEG, ".tif": TIFF, ".tiff": TIFF}
"""Formats of slices, by their endings."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
NPY_SIGNATURE = b"\x93NUMPY"
NRRD_SIGNATURE = b"NRRD000"
ZIP_SIGNATURE = b"PK\x03\x04"

TIFF_ENDINGS = (".tif", ".tiff", ".btf", ".tf8", ".tf2", ".lsm", ".stk", ".svs", ".qptiff", ".ndpi", ".scn")
HDF5_ENDINGS = (".h5", ".hdf5", ".hdf", ".he5", ".ilp", ".nxs", ".nx", ".nx5", ".ims", ".emd", ".mnc")
DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
MRC_ENDINGS = (".mrc", ".mrcs", ".rec", ".map", ".ccp4", ".st", ".ali")
OME_SET_ENDING = ".companion.ome"
"""Of the file that describes a set of OME-TIFFs and holds no voxels."""

ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")
"""Files of which one is in every Zarr group and array."""

START = 1024
"""Bytes at the beginning of a file that tell its format."""

_NIFTI_SIZES = tuple(size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big"))
"""How headers of NIfTI, and of ANALYZE before it, begin: with their length."""

_LONGEST = 4096
"""Bytes of an element that comes first in a DICOM file without a preamble: short texts."""
_KINDS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_KINDS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


def picture_kind(name: str) -> str | None:
    """The format of a slice by its name."""
    return PICTURES.get(PurePath(name).suffix.lower())


def picture_kind_in(start: bytes) -> str | None:
    """The format of a slice by its first bytes."""
    marks = {PNG: (PNG_SIGNATURE,), JPEG: (JPEG_SIGNATURE,), TIFF: TIFF_SIGNATURES}
    return next((kind for kind, mark in marks.items() if start.startswith(mark)), None)


def is_hdf5(path: Path, start: bytes) -> bool:
    """Whether a file says that it is HDF5: at its beginning, or behind a block of the user's (512 bytes, 1024, …)."""
    if start.startswith(HDF5_SIGNATURE) or len(start) < START:
        return start.startswith(HDF5_SIGNATURE) or start[512:].startswith(HDF5_SIGNATURE)
    try:
        with path.open("rb") as file:
            return any(os.pread(file.fileno(), 8, 512 << n) == HDF5_SIGNATURE for n in range(6))
    except OSError:
        return False


def is_nifti(start: bytes) -> bool:
    """Whether a file that starts so says that it is NIfTI-1 or NIfTI-2."""
    return start[344:348] in (b"n+1\0", b"ni1\0") or start[4:12] in (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")


def is_nifti_size(start: bytes) -> bool:
    """Whether a file begins with the length of a header of NIfTI or ANALYZE, in either byte order."""
    return start[:4] in _NIFTI_SIZES


def is_mrc(start: bytes) -> bool:
    """Whether a file that starts so says that it is a map of MRC or CCP4. (Old ones do not.)"""
    return start[208:212] in (b"MAP ", b"MAP\0")


def is_metaimage(start: bytes) -> bool:
    """Whether a file begins with lines of MetaImage, which has no mark of its own."""
    keys = [line.partition(b"=")[0].strip() for line in start.split(b"\n")[:24] if b"=" in line]
    return b"NDims" in keys and start.lstrip().startswith((b"ObjectType", b"NDims"))


def is_dicom(path: Path) -> bool:
    """Whether a file says that it is DICOM, or looks like it without saying so."""
    try:
        with path.open("rb") as file:
            start = file.read(START)
    except OSError:
        return False
    return start[128:132] == b"DICM" or is_bare_dicom(start)


def is_bare_dicom(start: bytes) -> bool:
    """Whether a file begins with elements of DICOM, little-endian, without the preamble and mark of PS3.10: what older
    archives keep. Its first group is 0002 or 0008; three elements in ascending order count as proof."""
    at, last, seen = 0, -1, 0
    while at + 12 <= len(start):
        group, element = struct.unpack_from("<HH", start, at)
        tag, kind = group << 16 | element, start[at + 4 : at + 6]
        if tag <= last or (not seen and group not in (0x0002, 0x0008)):
            return False
        if kind in _LONG_KINDS:
            length, head = int.from_bytes(start[at + 8 : at + 12], "little"), 12
        elif kind in _KINDS:
            length, head = int.from_bytes(start[at + 6 : at + 8], "little"), 8
        else:
            length, head = int.from_bytes(start[at + 4 : at + 8], "little"), 8
        last, seen = tag, seen + 1
        if length == 0xFFFFFFFF or seen == 3:
            break
        if length % 2 or length > _LONGEST:
            return False
        at += head + length
    return seen == 3


def is_zarr(folder: Path) -> bool:
    """Whether a directory is a Zarr group or array."""
    return any((folder / mark).is_file() for mark in ZARR_MARKS)


def looks_like_n5(folder: Path) -> bool:
    """Whether a directory is called N5, lies in one that is, or has attributes as N5 keeps them."""
    return is_called_n5(folder) or (folder / "attributes.json").is_file()


def is_called_n5(folder: Path) -> bool:
    """Whether a directory is called N5, or lies in one that is."""
    return any(up.name.lower().endswith(".n5") for up in (folder, *folder.absolute().parents))


def has_info(folder: Path) -> bool:
    """Whether a directory, or the one above it, has a file ``info`` as volumes of Neuroglancer's precomputed have."""
    return any((up / "info").is_file() for up in (folder, folder.absolute().parent))


def has_ome_files(folder: Path) -> bool:
    """Whether files of a directory are called as those of an OME-TIFF set are."""
    endings = (OME_SET_ENDING, ".ome.tif", ".ome.tiff")
    return any(path.name.endswith(endings) for path in folder.iterdir())
