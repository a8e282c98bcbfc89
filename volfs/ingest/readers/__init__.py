"""Readers of files, one module per family. :func:`open_source` finds the one for what a user names.

Decided here: how names become files (globs, directories, natural order, ``FILE:PART``) and which reader takes them: by
what is inside, where that says it, else by the ending. Formats that need packages beyond the core say which to install.
"""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from volfs.errors import BadInput, NotFound
from volfs.ingest.readers import (
    bdv,
    dicom,
    hdf5,
    metaimage,
    mrc,
    n5,
    npy,
    nrrd,
    pictures,
    precomputed,
    slices,
    tiff,
    zarr,
)
from volfs.ingest.source import Source
from volfs.model.names import natural_key

_KNOWN = (
    "directories or lists of PNG, TIFF, JPEG or DICOM slices, TIFF stacks, NIfTI, NRRD, MetaImage, MRC, HDF5, NPY, "
    "Zarr, N5, BigDataViewer's .xml, and Neuroglancer's precomputed"
)


def open_source(names: Sequence[str | os.PathLike[str]]) -> Source:
    """Open what one or more names stand for: a file, a directory, a glob, or a list of slices; ``FILE:PART`` for a
    dataset of an HDF5 file, a series of DICOM files, a setup of a BigDataViewer project.

    NotFound or BadInput, in one line, if there is nothing, or nothing that volfs reads. Headers are read now, voxels
    later.
    """
    paths, part = _expand(names)
    if len(paths) > 1:
        if paths[0].suffix.lower() in dicom.ENDINGS or (
            pictures.kind_of(paths[0]) is None and dicom.is_dicom(paths[0])
        ):
            return dicom.open_dicom(paths, paths[0].parent, part)
        _no_part(paths[0], part)
        return slices.open_slices(paths, name=_common_name(paths))
    path = paths[0]
    return _open_directory(path, part) if path.is_dir() else _open_file(path, part)


def _open_directory(path: Path, part: str | None) -> Source:
    if not zarr.is_zarr(path):
        found = [] if any((path / mark).exists() for mark in ("attributes.json", "info")) else dicom.listed(path)
        if found:
            if any(pictures.kind_of(file) for file in path.iterdir() if not file.name.startswith(".")):
                raise BadInput(f"{path} holds DICOM files and pictures: name the ones to import, like {path}/*.dcm")
            return dicom.open_dicom(found, path, part, folder=path)
    _no_part(path, part)
    if zarr.is_zarr(path):
        return zarr.open_zarr(path)
    if n5.is_n5(path):
        return bdv.open_bdv(path) if bdv.is_bdv(path) else n5.open_n5(path)
    if precomputed.is_precomputed(path):
        return precomputed.open_precomputed(path)
    return slices.open_directory(path)


def _open_file(path: Path, part: str | None) -> Source:
    lower = path.name.lower()
    start = _start(path)
    if start.startswith(hdf5.SIGNATURE) or lower.endswith(hdf5.ENDINGS):
        return hdf5.open_hdf5(path, part)
    if start[128:132] == b"DICM" or lower.endswith(dicom.ENDINGS):
        return dicom.open_dicom([path], path, part)
    if lower.endswith(".xml"):
        return bdv.open_xml(path, part)
    _no_part(path, part)
    if lower.endswith((".nii", ".nii.gz")):
        from volfs.ingest.readers import nifti  # nibabel is not in the core

        return nifti.open_nifti(path)
    if lower.endswith(".npy"):
        return npy.open_npy(path)
    if lower.endswith((".tif", ".tiff")):
        return tiff.open_tiff(path)
    if lower.endswith(slices.ENDINGS):
        return slices.open_slices([path], name=path.stem)
    if lower.endswith((".nrrd", ".nhdr")) or start.startswith(b"NRRD000"):
        return nrrd.open_nrrd(path)
    if lower.endswith((".mha", ".mhd")):
        return metaimage.open_metaimage(path)
    if lower.removesuffix(".gz").removesuffix(".bz2").endswith(mrc.ENDINGS) or mrc.is_mrc(start):
        return mrc.open_mrc(path)
    raise BadInput(f"{path} is not of a kind that volfs imports: {_KNOWN}")


def _start(path: Path) -> bytes:
    """The first bytes of a file; none if it cannot be read, which its reader will say."""
    try:
        with path.open("rb") as file:
            return file.read(1024)
    except OSError:
        return b""


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
        elif glob.has_magic(name) and (found := sorted(glob.glob(name, recursive=True), key=natural_key)):
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
