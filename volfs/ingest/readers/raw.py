"""Voxels that lie uncompressed, one after the other, in a file or in several: NPY, NIfTI, TIFF stacks.

Read with ``pread`` rather than a memory map: a file that is cut short under a map kills the process.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.source import Description, Fingerprint, Source, files_fingerprint, unreadable
from volfs.model.box import Box, Index
from volfs.model.grid import ChunkGrid


class Voxels(Protocol):
    """An array of voxels in files."""

    @property
    def grain(self) -> Index: ...

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box, native byte order."""
        ...

    def read_into(self, box: Box, out: np.ndarray) -> None:
        """The same into ``out``, of the box's shape and this type in native byte order, in any strides."""
        out[...] = self.read(box)

    def close(self) -> None: ...


class FileSource(Source):
    """A source whose description has been read, and whose voxels are one array. ``files`` are all that matter."""

    def __init__(self, description: Description, voxels: Voxels, files: Sequence[Path]) -> None:
        self.description = description
        self._voxels = voxels
        self._files = files

    def read(self, box: Box) -> np.ndarray:
        return self._voxels.read(box)

    def read_into(self, box: Box, out: np.ndarray) -> None:
        self._voxels.read_into(box, out)

    def fingerprint(self) -> Fingerprint:
        return files_fingerprint(self._files)

    def close(self) -> None:
        self._voxels.close()


class RawVoxels(Voxels):
    """An array of ``shape`` in C order at ``offset`` of a file. ``dtype`` carries the byte order of the file."""

    def __init__(
        self, path: Path, dtype: np.dtype[Any], shape: Index, offset: int, file: IO[bytes] | None = None
    ) -> None:
        self._path = path
        self._file = file if file is not None else _open(path)
        self._dtype = dtype
        self._shape = shape
        self._offset = offset
        needed, there = offset + math.prod(shape) * dtype.itemsize, os.fstat(self._file.fileno()).st_size
        if there < needed:
            self._file.close()
            raise unreadable(path, f"it has {there} bytes, its header promises {needed}")

    @property
    def grain(self) -> Index:
        return row_grain(self._shape, self._dtype.itemsize)

    def read(self, box: Box) -> np.ndarray:
        out = np.empty(box.shape, self._dtype.newbyteorder("="))
        self.read_into(box, out)
        return out

    def read_into(self, box: Box, out: np.ndarray) -> None:
        if not out.flags.c_contiguous or out.dtype != self._dtype.newbyteorder("="):
            out[...] = self.read(box)
            return
        flat = out.reshape(-1).view(np.uint8).data
        at = 0
        for start, count in self._runs(box):
            size = count * self._dtype.itemsize
            self._fill(flat[at : at + size], self._offset + start * self._dtype.itemsize)
            at += size
        if not self._dtype.isnative:
            out.byteswap(inplace=True)

    def close(self) -> None:
        self._file.close()

    def _runs(self, box: Box) -> Iterator[tuple[int, int]]:
        """Runs of consecutive voxels that make up a box: (first, count), in C order."""
        inner = len(self._shape)
        while inner > 0 and box.shape[inner - 1] == self._shape[inner - 1]:
            inner -= 1  # axes read whole run into each other
        lead = max(0, inner - 1)
        strides = [math.prod(self._shape[i + 1 :]) for i in range(len(self._shape))]
        count = math.prod(box.shape[lead:])
        first = sum(a * s for a, s in zip(box.start[lead:], strides[lead:], strict=True))
        for index in itertools.product(*(range(a, b) for a, b in zip(box.start[:lead], box.stop[:lead], strict=True))):
            yield first + sum(i * s for i, s in zip(index, strides, strict=False)), count

    def _fill(self, target: memoryview, offset: int) -> None:
        while len(target):
            try:
                got = os.preadv(self._file.fileno(), [target], offset)
            except OSError as error:
                raise unreadable(self._path, error.strerror) from error
            if got == 0:
                raise BadInput(f"{self._path} became shorter while it was being read: nothing was imported")
            target, offset = target[got:], offset + got


class StackedVoxels(Voxels):
    """An array cut along its slowest axes into equal parts, one in each file, in C order. ``open_part`` opens the part
    in a file, which has the shape that it is told. A file is open only while it is read, for there may be thousands.

    ``whole``: reading any of a part takes as long as reading all of it.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        dtype: np.dtype[Any],
        shape: Index,
        open_part: Callable[[Path, Index], Voxels],
        *,
        whole: bool = False,
    ) -> None:
        self._paths = paths
        self._dtype = dtype
        self._open_part = open_part
        self._whole = whole
        lead, left = 0, len(paths)
        while lead < len(shape) and left % shape[lead] == 0 and left > 1:
            left //= shape[lead]
            lead += 1
        if left > 1 and (lead == len(shape) or shape[lead] % left):
            raise BadInput(f"{paths[0]} and others: {len(paths)} files cannot be {shape} voxels in equal parts")
        part = [1] * lead + list(shape[lead:])
        if left > 1:
            part[lead] //= left
        self._grid = ChunkGrid(shape, tuple(part))
        for path in paths:
            self._part(path).close()

    @property
    def grain(self) -> Index:
        return self._grid.chunk_shape if self._whole else row_grain(self._grid.shape, self._dtype.itemsize)

    def read(self, box: Box) -> np.ndarray:
        out = np.empty(box.shape, self._dtype.newbyteorder("="))
        self.read_into(box, out)
        return out

    def read_into(self, box: Box, out: np.ndarray) -> None:
        for coords in self._grid.iter(self._grid.chunks(box)):
            there = self._grid.chunk_box(coords)
            wanted = there.intersect(box)
            part = self._part(self._paths[int(np.ravel_multi_index(coords, self._grid.grid_shape))])
            try:
                part.read_into(wanted.relative_to(there.start), out[wanted.relative_to(box.start).slices()])
            finally:
                part.close()

    def close(self) -> None:
        return

    def _part(self, path: Path) -> Voxels:
        return self._open_part(path, self._grid.chunk_shape)


def row_grain(shape: Index, itemsize: int) -> Index:
    """Rows are read whole, where they are not very long."""
    return (*(1,) * (len(shape) - 1), shape[-1] if shape[-1] * itemsize <= 1 << 20 else 1)


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error.strerror) from error
