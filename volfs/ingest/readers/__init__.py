"""Readers of files, one module per family. :func:`open_source` finds the one for what a user names.

``archive``         files in a ZIP; ``packed`` voxels behind gzip, bzip2 or zlib
``parts``           one image of several in a source; ``stack`` volumes in many equal parts
``pictures``        one picture in one file; ``numbering`` numbers in names of slices, ``slices`` a volume of them
``tiff``            TIFF stacks; ``ome_xml`` and ``tiff_facts`` what they say, ``ome_set`` sets of several files
``raw``             voxels one after the other; ``npy``, ``nifti``, ``mrc`` headers of such files,
                    ``detached`` headers that are text: ``nrrd``, ``metaimage``
``dicom``           series; ``dicom_frames`` the order of their planes, ``dicom_pixels`` their pixels
``hdf5``            datasets; ``hdf5_conventions`` and ``hdf5_filters`` of programs, ``imaris`` and ``ilastik`` theirs
``blocks``          arrays in blocks: ``n5``, ``bdv``, ``precomputed`` with its ``compressed_segmentation`` and
                    ``neuroglancer_shards``
``zarr``            Zarr v2 and v3; ``zarr_dialects`` metadata put so that zarr-python takes it

Decided here: how names become files (globs, directories, natural order, ``FILE:PART``) and which reader takes them: by
what is inside, where that says it, else by the ending. The two tables, :data:`FILES` and :data:`FOLDERS`, are all there
is to it: the first row that recognises a file opens it. Formats that need packages beyond the core say which to
install.
"""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from volfs.errors import BadInput, NotFound
from volfs.ingest.readers import (
    archive,
    bdv,
    dicom,
    hdf5,
    metaimage,
    mrc,
    n5,
    npy,
    nrrd,
    ome_set,
    pictures,
    precomputed,
    slices,
    tiff,
    zarr,
)
from volfs.ingest.readers.numbering import STRICT, SliceRules, slice_key
from volfs.ingest.readers.packed import packing_of, unpacked_start
from volfs.ingest.source import Source, check_plain

_START = 1024
_NIFTI_SIZES = tuple(size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big"))
"""How headers of NIfTI, and of ANALYZE before it, begin: with their length."""
_KNOWN = (
    "directories or lists of PNG, TIFF, JPEG or DICOM slices, a ZIP of slices, TIFF stacks, NIfTI, NRRD, MetaImage, "
    "MRC, HDF5, NPY, Zarr, N5, BigDataViewer's .xml, and Neuroglancer's precomputed"
)


@dataclass(frozen=True, slots=True)
class Named:
    """A file or directory that a user named, and the part of it that is wanted. ``start`` are a file's first bytes,
    ``packed`` those of what is in it, if it is in gzip or bzip2."""

    path: Path
    part: str | None = None
    start: bytes = b""
    packed: bytes = b""
    rules: SliceRules = STRICT

    def ends(self, endings: str | tuple[str, ...]) -> bool:
        return self.path.name.lower().endswith(endings)


@dataclass(frozen=True, slots=True)
class Reader:
    """A row of a table: what it takes, and how that is opened. ``parts``: whether it chooses among several images;
    ``slices``: whether rules for slices mean anything to it."""

    recognise: Callable[[Named], bool]
    open: Callable[[Named], Source]
    parts: bool = False
    slices: bool = False


def _open_nifti(named: Named) -> Source:
    from volfs.ingest.readers import nifti  # nibabel is not in the core

    return nifti.open_nifti(named.path)


def _open_set(named: Named) -> Source:
    found = ome_set.set_in(named.path)
    assert found is not None
    companion = found.name.lower().endswith(ome_set.ENDING)
    return ome_set.open_set(found, named.part) if companion else tiff.open_tiff(found, named.part)


def _is_nifti(named: Named) -> bool:
    start = named.packed or named.start
    return start[344:348] in (b"n+1\0", b"ni1\0") or start[4:12] in (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")


def _nifti_by_name(named: Named) -> bool:
    if named.ends((".img", ".img.gz")):
        from volfs.ingest.readers import nifti

        return nifti.header_beside(named.path) is not None
    start = named.packed or named.start
    return named.ends((".nii", ".nii.gz")) or (named.ends((".hdr", ".hdr.gz")) and start[:4] in _NIFTI_SIZES)


def _is_mrc(named: Named) -> bool:
    return mrc.is_mrc(named.packed or named.start)


def _mrc_by_name(named: Named) -> bool:
    return named.path.name.lower().removesuffix(".gz").removesuffix(".bz2").endswith(mrc.ENDINGS)


_HDF5 = Reader(lambda n: n.ends(hdf5.ENDINGS), lambda n: hdf5.open_hdf5(n.path, n.part), parts=True)
_DICOM = Reader(lambda n: n.ends(dicom.ENDINGS), lambda n: dicom.open_dicom([n.path], n.path, n.part), parts=True)
_OME_SET = Reader(lambda n: n.ends(ome_set.ENDING), lambda n: ome_set.open_set(n.path, n.part), parts=True)
_BDV = Reader(lambda n: n.ends(".xml"), lambda n: bdv.open_xml(n.path, n.part), parts=True)
_NIFTI = Reader(_nifti_by_name, _open_nifti)
_NPY = Reader(lambda n: n.ends(".npy"), lambda n: npy.open_npy(n.path))
_TIFF = Reader(lambda n: n.ends(tiff.ENDINGS), lambda n: tiff.open_tiff(n.path, n.part), parts=True)
_PICTURE = Reader(lambda n: n.ends(slices.ENDINGS), lambda n: slices.open_slices([n.path], n.rules, name=n.path.stem))
_ZIP = Reader(lambda n: n.ends(".zip"), lambda n: slices.open_zip(n.path, n.part, n.rules), parts=True, slices=True)
_NRRD = Reader(lambda n: n.ends((".nrrd", ".nhdr")), lambda n: nrrd.open_nrrd(n.path))
_METAIMAGE = Reader(lambda n: n.ends((".mha", ".mhd")), lambda n: metaimage.open_metaimage(n.path))
_MRC = Reader(_mrc_by_name, lambda n: mrc.open_mrc(n.path))

FILES: tuple[Reader, ...] = (
    # What files say of themselves,
    replace(_HDF5, recognise=lambda n: hdf5.is_hdf5(n.path, n.start)),
    replace(_DICOM, recognise=lambda n: n.start[128:132] == b"DICM"),
    replace(_NPY, recognise=lambda n: n.start.startswith(npy.SIGNATURE)),
    replace(_TIFF, recognise=lambda n: n.start.startswith(pictures.TIFF_SIGNATURES)),
    replace(_PICTURE, recognise=lambda n: n.start.startswith((pictures.PNG_SIGNATURE, pictures.JPEG_SIGNATURE))),
    replace(_ZIP, recognise=lambda n: n.start.startswith(archive.SIGNATURE)),
    replace(_NRRD, recognise=lambda n: n.start.startswith(nrrd.SIGNATURE)),
    replace(_NIFTI, recognise=_is_nifti),
    replace(_MRC, recognise=_is_mrc),
    # then what their names say, for formats without a mark, and for files that are damaged,
    *(_HDF5, _DICOM, _OME_SET, _BDV, _NIFTI, _NPY, _TIFF, _PICTURE, _ZIP, _NRRD, _METAIMAGE, _MRC),
    # then what looks like it.
    replace(_METAIMAGE, recognise=lambda n: metaimage.is_metaimage(n.start)),
    replace(_BDV, recognise=lambda n: b"<SpimData" in n.start),
    replace(_DICOM, recognise=lambda n: dicom.is_bare(n.start)),
)

FOLDERS: tuple[Reader, ...] = (
    Reader(lambda n: zarr.is_zarr(n.path), lambda n: zarr.open_zarr(n.path, n.part), parts=True),
    Reader(lambda n: bdv.is_bdv(n.path), lambda n: bdv.open_bdv(n.path, n.part), parts=True),
    Reader(lambda n: n5.is_n5(n.path), lambda n: n5.open_n5(n.path, n.part), parts=True),
    Reader(
        lambda n: precomputed.is_precomputed(n.path), lambda n: precomputed.open_precomputed(n.path, n.part), parts=True
    ),
    Reader(lambda n: dicom.holds_dicom(n.path), lambda n: dicom.open_folder(n.path, n.part), parts=True),
    Reader(lambda n: ome_set.set_in(n.path) is not None, _open_set, parts=True),
    Reader(lambda n: True, lambda n: slices.open_directory(n.path, n.rules), slices=True),
)


def open_source(names: Sequence[str | os.PathLike[str]], rules: SliceRules = STRICT) -> Source:
    """Open what one or more names stand for: a file, a directory, a glob, or a list of slices; ``SOURCE:PART`` for one
    image of several: a series of a TIFF or of DICOM files, a dataset of an HDF5 file, a setup of a BigDataViewer
    project.

    ``rules`` say what becomes of slices whose numbers have gaps or doubles. NotFound or BadInput, in one line, if there
    is nothing, or nothing that volfs reads; for a container of several images without a part it lists them. Headers are
    read now, voxels later.
    """
    paths, part = _expand(names)
    for path in paths:
        check_plain(path)
    if len(paths) > 1:
        if paths[0].suffix.lower() in dicom.ENDINGS or (
            pictures.kind_of(paths[0]) is None and dicom.is_dicom(paths[0])
        ):
            _no_rules(paths[0], rules)
            return dicom.open_dicom(paths, paths[0].parent, part)
        return slices.open_slices(paths, rules, name=_common_name(paths))
    path = paths[0]
    table = FOLDERS if path.is_dir() else FILES
    named = Named(path, part, rules=rules) if path.is_dir() else Named(path, part, *_starts(path), rules)
    reader = next((row for row in table if row.recognise(named)), None)
    if reader is None:
        raise BadInput(f"{path} is not of a kind that volfs imports: {_KNOWN}")
    if not reader.parts:
        _no_part(path, part)
    if not reader.slices:
        _no_rules(path, rules)
    return reader.open(named)


def _starts(path: Path) -> tuple[bytes, bytes]:
    """The first bytes of a file, and of what is packed in it; none if they cannot be read, which its reader says."""
    try:
        with path.open("rb") as file:
            start = file.read(_START)
    except OSError:
        return b"", b""
    packing = packing_of(start)
    if packing is None:
        return start, b""
    try:
        return start, unpacked_start(path, packing, _START)
    except BadInput:
        return start, b""


def _no_rules(path: Path, rules: SliceRules) -> None:
    if rules != STRICT:
        raise BadInput(f"{path} is not read as slices by the numbers in their names: leave out --gaps and --duplicates")


def _no_part(path: Path, part: str | None) -> None:
    if part is not None:
        raise BadInput(f"{path} has no parts to choose from: leave out :{part}")


def _expand(names: Sequence[str | os.PathLike[str]]) -> tuple[list[Path], str | None]:
    """The files that names and globs stand for; a glob's in natural order, so that z2 precedes z10. And the part that
    ``FILE:PART`` names, if it is the only name."""
    paths: list[Path] = []
    part: str | None = None
    for given in names:
        name = os.fspath(given)
        path = Path(name)
        if path.exists():
            paths.append(path)
        elif glob.has_magic(name) and (found := sorted(glob.glob(name, recursive=True), key=slice_key)):
            paths += map(Path, found)
        elif len(names) == 1 and (split := _split(name)) is not None:
            path, part = split
            paths.append(path)
        else:
            raise NotFound(f"{name} matches no file" if glob.has_magic(name) else f"{name} does not exist")
    if not paths:
        raise BadInput("nothing to import was named")
    return paths, part


def _split(name: str) -> tuple[Path, str] | None:
    """``FILE:PART``: the file that is there, and what comes after it."""
    for at in (i for i, letter in enumerate(name) if letter == ":" and i):
        if Path(name[:at]).exists() and name[at + 1 :]:
            return Path(name[:at]), name[at + 1 :]
    return None


def _common_name(paths: Sequence[Path]) -> str:
    """What a list of slices is called: what their names begin with, else their directory."""
    first, last = min(path.stem for path in paths), max(path.stem for path in paths)
    same = [a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))]
    prefix = "".join(same).rstrip("0123456789").rstrip("_-. ")
    return prefix if len(prefix) > 1 else (paths[0].resolve().parent.name or "slices")
