"""Readers of files, one module per family. :func:`open_source` finds the one for what a user names.

``marks``         first bytes, endings, and what marks a directory
``archive``       files in a ZIP; ``packed_voxels`` voxels behind gzip, bzip2 or zlib, or written out as text
``parts``         one image of several in a source; ``stack`` volumes in many equal parts
``pictures``      one picture in one file; ``slice_numbers`` numbers in names of slices, ``slices`` a volume of them
``tiff``          TIFF stacks; ``ome_xml`` and ``tiff_facts`` what they say, ``ome_set`` sets of several files
``raw``           voxels one after the other; ``npy``, ``nifti``, ``mrc`` headers of such files, ``text_header`` headers
                  that are text: ``nrrd``, ``metaimage``
``dicom``         series; ``dicom_frames`` the order of their planes, ``dicom_pixels`` their pixels
``hdf5``          datasets; ``hdf5_conventions`` and ``hdf5_filters`` of programs, ``imaris`` and ``ilastik`` theirs
``block_arrays``  arrays in blocks: ``n5``, ``bdv``, ``precomputed`` with its ``compressed_segmentation`` and
                  ``neuroglancer_shards``
``zarr``          Zarr v2 and v3; ``zarr_dialects`` metadata put so that zarr-python takes it

Decided here: how names become files (globs, directories, natural order, ``FILE:PART``) and which reader takes them: by
what is inside, where that says it, else by the ending. The two tables, :data:`FILES` and :data:`FOLDERS`, are all there
is to it: the first row that recognises a file opens it. A row recognises without its module, which is imported when it
has to look closer or to open: an import of a TIFF waits for no package that reads NIfTI or Zarr. Formats that need
packages beyond the core say which to install.
"""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from volfs.errors import BadInput, NotFound
from volfs.ingest.readers import marks
from volfs.ingest.readers.packed_voxels import packing_of, unpacked_start
from volfs.ingest.readers.slice_numbers import STRICT, SliceRules, slice_key
from volfs.ingest.source import Source, check_plain

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

    @property
    def inside(self) -> bytes:
        """The first bytes without the packing."""
        return self.packed or self.start


@dataclass(frozen=True, slots=True)
class Reader:
    """A row of a table: what it takes, and the function ``opener`` of ``module`` that opens it.

    ``recognise`` is cheap; if it is not proof, ``confirm`` is a function of the module that looks closer.
    ``parts``: the opener chooses among several images by ``part``; ``slices``: ``rules`` for slices mean something to
    it.
    """

    module: str
    opener: str
    recognise: Callable[[Named], bool]
    confirm: str | None = None
    parts: bool = False
    slices: bool = False

    def takes(self, named: Named) -> bool:
        return self.recognise(named) and (self.confirm is None or bool(self.function(self.confirm)(named.path)))

    def open(self, named: Named) -> Source:
        """Open it. BadInput if a part or rules are given that mean nothing to the reader."""
        words: dict[str, Any] = {}
        if self.parts:
            words["part"] = named.part
        else:
            _no_part(named.path, named.part)
        if self.slices:
            words["rules"] = named.rules
        else:
            _no_rules(named.path, named.rules)
        source: Source = self.function(self.opener)(named.path, **words)
        return source

    def function(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(import_module(f"{__name__}.{self.module}"), name)
        return found


def _nifti_by_name(named: Named) -> bool:
    return named.ends((".nii", ".nii.gz")) or (named.ends((".hdr", ".hdr.gz")) and marks.is_nifti_size(named.inside))


def _mrc_by_name(named: Named) -> bool:
    return named.path.name.lower().removesuffix(".gz").removesuffix(".bz2").endswith(marks.MRC_ENDINGS)


_HDF5 = Reader("hdf5", "open_hdf5", lambda n: n.ends(marks.HDF5_ENDINGS), parts=True)
_DICOM = Reader("dicom", "open_file", lambda n: n.ends(marks.DICOM_ENDINGS), parts=True)
_OME_SET = Reader("ome_set", "open_set", lambda n: n.ends(marks.OME_SET_ENDING), parts=True)
_BDV = Reader("bdv", "open_xml", lambda n: n.ends(".xml"), parts=True)
_NIFTI = Reader("nifti", "open_nifti", _nifti_by_name)
_NPY = Reader("npy", "open_npy", lambda n: n.ends(".npy"))
_TIFF = Reader("tiff", "open_tiff", lambda n: n.ends(marks.TIFF_ENDINGS), parts=True)
_PICTURE = Reader("slices", "open_picture", lambda n: n.ends(tuple(marks.PICTURES)))
_ZIP = Reader("slices", "open_zip", lambda n: n.ends(".zip"), parts=True, slices=True)
_NRRD = Reader("nrrd", "open_nrrd", lambda n: n.ends((".nrrd", ".nhdr")))
_METAIMAGE = Reader("metaimage", "open_metaimage", lambda n: n.ends((".mha", ".mhd")))
_MRC = Reader("mrc", "open_mrc", _mrc_by_name)

FILES: tuple[Reader, ...] = (
    # What files say of themselves,
    replace(_HDF5, recognise=lambda n: marks.is_hdf5(n.path, n.start)),
    replace(_DICOM, recognise=lambda n: n.start[128:132] == b"DICM"),
    replace(_NPY, recognise=lambda n: n.start.startswith(marks.NPY_SIGNATURE)),
    replace(_TIFF, recognise=lambda n: n.start.startswith(marks.TIFF_SIGNATURES)),
    replace(_PICTURE, recognise=lambda n: n.start.startswith((marks.PNG_SIGNATURE, marks.JPEG_SIGNATURE))),
    replace(_ZIP, recognise=lambda n: n.start.startswith(marks.ZIP_SIGNATURE)),
    replace(_NRRD, recognise=lambda n: n.start.startswith(marks.NRRD_SIGNATURE)),
    replace(_NIFTI, recognise=lambda n: marks.is_nifti(n.inside)),
    replace(_MRC, recognise=lambda n: marks.is_mrc(n.inside)),
    # then what their names say, for formats without a mark, and for files that are damaged,
    *(_HDF5, _DICOM, _OME_SET, _BDV, _NIFTI),
    replace(_NIFTI, recognise=lambda n: n.ends((".img", ".img.gz")), confirm="header_beside"),
    *(_NPY, _TIFF, _PICTURE, _ZIP, _NRRD, _METAIMAGE, _MRC),
    # then what looks like it.
    replace(_METAIMAGE, recognise=lambda n: marks.is_metaimage(n.start)),
    replace(_BDV, recognise=lambda n: b"<SpimData" in n.start),
    replace(_DICOM, recognise=lambda n: marks.is_bare_dicom(n.start)),
)

FOLDERS: tuple[Reader, ...] = (
    Reader("zarr", "open_zarr", lambda n: marks.is_zarr(n.path), parts=True),
    Reader("bdv", "open_bdv", lambda n: marks.looks_like_n5(n.path), confirm="is_bdv", parts=True),
    Reader("n5", "open_n5", lambda n: marks.looks_like_n5(n.path), confirm="is_n5", parts=True),
    Reader("precomputed", "open_precomputed", lambda n: marks.has_info(n.path), confirm="is_precomputed", parts=True),
    Reader("dicom", "open_folder", lambda n: True, confirm="holds_dicom", parts=True),
    Reader("tiff", "open_folder", lambda n: marks.has_ome_files(n.path), confirm="holds_set", parts=True),
    Reader("slices", "open_directory", lambda n: True, slices=True),
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
        return _open_list(paths, rules)
    path = paths[0]
    table = FOLDERS if path.is_dir() else FILES
    named = Named(path, part, rules=rules) if path.is_dir() else Named(path, part, *_starts(path), rules)
    reader = next((row for row in table if row.takes(named)), None)
    if reader is None:
        raise BadInput(f"{path} is not of a kind that volfs imports: {_KNOWN}")
    return reader.open(named)


def _open_list(paths: Sequence[Path], rules: SliceRules) -> Source:
    """Open several files: DICOM, or slices."""
    first = paths[0]
    kind = marks.picture_kind(first.name)
    if first.suffix.lower() in marks.DICOM_ENDINGS or (kind is None and marks.is_dicom(first)):
        from volfs.ingest.readers.dicom import open_dicom

        _no_rules(first, rules)
        return open_dicom(paths, first.parent)
    from volfs.ingest.readers.slices import open_slices

    return open_slices(paths, rules, name=_common_name(paths))


def _starts(path: Path) -> tuple[bytes, bytes]:
    """The first bytes of a file, and of what is packed in it; none if they cannot be read, which its reader says."""
    try:
        with path.open("rb") as file:
            start = file.read(marks.START)
    except OSError:
        return b"", b""
    packing = packing_of(start)
    if packing is None:
        return start, b""
    try:
        return start, unpacked_start(path, packing, marks.START)
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
