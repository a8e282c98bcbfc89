"""NPY files (NumPy NEP 1, formats 1.0 to 3.0), in C or Fortran order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

from volfs.errors import BadInput
from volfs.ingest.readers.raw import RawVoxels
from volfs.ingest.source import NAMES, Description, Fingerprint, Source, default_axes, files_fingerprint, unreadable
from volfs.model.box import Box


def open_npy(path: Path) -> Source:
    """Open an array. Its axes are the last of tczyx; BadInput for object arrays, records and other non-numbers."""
    return _Npy(path)


class _Npy(Source):
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                version = npy_format.read_magic(file)
                read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
                shape, self._fortran, dtype = read(file)
                offset = file.tell()
        except (OSError, ValueError, EOFError) as error:
            raise unreadable(path, error) from error
        if dtype.hasobject or dtype.kind not in "biufc":
            raise BadInput(f"{path} holds {dtype}, which are not voxels")
        if not 2 <= len(shape) <= len(NAMES):
            raise BadInput(
                f"{path} has {len(shape)} {'axis' if len(shape) == 1 else 'axes'}, an image has 2 to {len(NAMES)}"
            )
        axes = default_axes(len(shape))
        # Fortran order is C order with the axes the other way round.
        stored = shape[::-1] if self._fortran else shape
        self._voxels = RawVoxels(path, dtype, stored, offset)
        grain = self._voxels.grain
        self.description = Description(
            path.stem,
            shape,
            dtype.newbyteorder("="),
            axes,
            (1.0,) * len(shape),
            grain[::-1] if self._fortran else grain,
            reorder=False,
        )

    def read(self, box: Box) -> np.ndarray:
        if not self._fortran:
            return self._voxels.read(box)
        return self._voxels.read(Box(box.start[::-1], box.stop[::-1])).transpose()

    def read_into(self, box: Box, out: np.ndarray) -> None:
        if not self._fortran:
            self._voxels.read_into(box, out)
        else:
            super().read_into(box, out)

    def fingerprint(self) -> Fingerprint:
        return files_fingerprint([self._path])

    def close(self) -> None:
        self._voxels.close()
