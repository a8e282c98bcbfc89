"""A volume in slices: one PNG, TIFF or JPEG for each plane, in natural order of their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.readers import pictures
from volfs.ingest.source import Description, Fingerprint, Source, files_fingerprint
from volfs.model.box import Box
from volfs.model.names import natural_key
from volfs.model.ngff import axis
from volfs.volume.workers import cores

ENDINGS = tuple(pictures.KINDS)


def open_directory(path: Path) -> Source:
    """The slices of a directory. BadInput if there are none, or of several formats."""
    files = _listed(path)
    if not files:
        raise BadInput(f"{path} holds neither slices (PNG, TIFF, JPEG, DICOM) nor Zarr, N5 or a precomputed volume")
    kinds = Counter(pictures.kind_of(file) for file in files)
    if len(kinds) > 1:
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        raise BadInput(f"{path} holds slices of several formats ({found}): name the ones to import, like {path}/*.tif")
    return _Slices(files, path.resolve().name, path)


def open_slices(paths: Sequence[Path], *, name: str) -> Source:
    """Slices as listed; a single one is a 2-D image. BadInput if one is no slice."""
    for path in paths:
        if path.is_dir() or pictures.kind_of(path) is None:
            raise BadInput(f"{path} is not a PNG, TIFF or JPEG slice: import it by itself")
    return _Slices(list(paths), name, None)


def _listed(folder: Path) -> list[Path]:
    found = (p for p in folder.iterdir() if pictures.kind_of(p) and not p.name.startswith(".") and p.is_file())
    return sorted(found, key=lambda path: natural_key(path.name))


class _Slices(Source):
    """Axes z, y, x, and c for the samples of colour pictures; without z if there is one slice only."""

    def __init__(self, paths: list[Path], name: str, folder: Path | None) -> None:
        self._paths = paths
        self._folder = folder
        first = pictures.header_of(paths[0])
        with ThreadPoolExecutor(cores(), thread_name_prefix="volfs-headers") as pool:
            for path, found in zip(paths[1:], pool.map(pictures.header_of, paths[1:]), strict=True):
                if found != first:
                    raise BadInput(f"{path} is {found}, but {paths[0].name} is {first}: slices must be alike")
        self._picture = first
        self._flat = len(paths) == 1
        names = "yx" if len(first.shape) == 2 else "yxc"
        shape = first.shape
        if not self._flat:
            names, shape = "z" + names, (len(paths), *shape)
        self.description = Description(
            name,
            shape,
            first.dtype,
            tuple(axis(n) for n in names),
            (1.0,) * len(shape),
            shape if self._flat else (1, *shape[1:]),
            rgb="c" in names,
        )

    def read(self, box: Box) -> np.ndarray:
        if self._flat:
            return self._plane(0)[box.slices()]
        out = np.empty(box.shape, self._picture.dtype)
        rest = Box(box.start[1:], box.stop[1:]).slices()
        for i, z in enumerate(range(box.start[0], box.stop[0])):
            out[i] = self._plane(z)[rest]
        return out

    def fingerprint(self) -> Fingerprint:
        found = files_fingerprint(self._paths)
        if self._folder is not None:
            found[str(self._folder)] = [path.name for path in _listed(self._folder)]
        return found

    def _plane(self, index: int) -> np.ndarray:
        picture = pictures.read_picture(self._paths[index])
        if picture.shape != self._picture.shape or picture.dtype != self._picture.dtype:
            raise BadInput(f"{self._paths[index]} changed while it was being read: nothing was imported")
        return picture
