"""Readers of files, one module per family. :func:`open_source` finds the one for what a user names.

Decided here: how names become files (globs, directories, natural order) and which reader takes them. Formats that need
packages beyond the core say which to install.
"""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from volfs.errors import BadInput, NotFound
from volfs.ingest.readers import npy, slices, tiff, zarr
from volfs.ingest.source import Source
from volfs.model.names import natural_key

_KNOWN = "directories or lists of PNG, TIFF or JPEG slices, TIFF stacks, .nii, .nii.gz, .npy, and Zarr"


def open_source(names: Sequence[str | os.PathLike[str]]) -> Source:
    """Open what one or more names stand for: a file, a directory, a glob, or a list of slices.

    NotFound or BadInput, in one line, if there is nothing, or nothing that volfs reads. Headers are read now, voxels
    later.
    """
    paths = _expand(names)
    if len(paths) > 1:
        return slices.open_slices(paths, name=_common_name(paths))
    path = paths[0]
    if zarr.is_zarr(path):
        return zarr.open_zarr(path)
    if path.is_dir():
        return slices.open_directory(path)
    lower = path.name.lower()
    if lower.endswith((".nii", ".nii.gz")):
        from volfs.ingest.readers import nifti  # nibabel is not in the core

        return nifti.open_nifti(path)
    if lower.endswith(".npy"):
        return npy.open_npy(path)
    if lower.endswith((".tif", ".tiff")):
        return tiff.open_tiff(path)
    if lower.endswith(slices.ENDINGS):
        return slices.open_slices([path], name=path.stem)
    raise BadInput(f"{path} is not of a kind that volfs imports: {_KNOWN}")


def _expand(names: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files that names and globs stand for; a glob's in natural order, so that z2 precedes z10."""
    paths: list[Path] = []
    for given in names:
        name = os.fspath(given)
        path = Path(name)
        if path.exists():
            paths.append(path)
        elif glob.has_magic(name):
            found = sorted(glob.glob(name, recursive=True), key=natural_key)
            if not found:
                raise NotFound(f"{name} matches no file")
            paths += map(Path, found)
        else:
            raise NotFound(f"{name} does not exist")
    if not paths:
        raise BadInput("nothing to import was named")
    return paths


def _common_name(paths: Sequence[Path]) -> str:
    """What a list of slices is called: what their names begin with, else their directory."""
    first, last = min(path.stem for path in paths), max(path.stem for path in paths)
    same = [a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))]
    prefix = "".join(same).rstrip("0123456789").rstrip("_-. ")
    return prefix if len(prefix) > 1 else (paths[0].resolve().parent.name or "slices")
