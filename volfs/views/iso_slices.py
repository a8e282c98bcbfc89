"""Slices with square pixels: ``xz/y00034.iso.png``.

The slice of the same name without ``.iso``, drawn at the finer voxel size of its two axes: the axis of that size keeps
its pixels, the other has as many as fit best into its length. Both begin at the same edge. There is no such file where
pixels are square already, or voxel sizes are not known.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from volfs.model.box import Box
from volfs.views.interpolation import Picture, Resampled, between, exact, finished, mix, picture_plane, resampled
from volfs.views.layout import VoxelSource, placed
from volfs.views.plane import PlaneSpec
from volfs.views.slices import SliceGeometry

MARK = ".iso"
"""The mark before the ending of such a file."""

_SQUARE = 1e-3
_MOST = 1_000_000
_AT_ONCE = 4 << 20
"""Bytes of interpolated pixels made at once."""


def open_ending(
    geometry: SliceGeometry, plane: str, index: int, others: tuple[int, ...], ending: str, *, is_label: bool = False
) -> Resampled | None:
    """The file that ``geometry.parse`` has split into an index and an ending, such as ``.iso.png``; None if there is
    none. Reads nothing."""
    if not ending.startswith(MARK + "."):
        return None
    flat = geometry.spec(plane, index, others)
    shape = stretched(flat)
    if shape is None or flat.pixel is None:
        return None
    finest = min(flat.pixel)
    whole = (*shape, flat.samples) if flat.has_samples else shape
    square = picture_plane(whole, flat.dtype, (finest, finest), metric=flat.metric)
    return resampled(flat.box, square, ending.removeprefix(MARK), others, partial(_Square, flat, nearest=is_label))


def stretched(plane: PlaneSpec) -> tuple[int, int] | None:
    """Rows and columns with square pixels; None if they are square already, or their size is unknown."""
    if plane.pixel is None:
        return None
    down, across = plane.pixel
    finest = min(down, across)
    if not finest > 0 or max(down, across) < finest * (1 + _SQUARE):
        return None
    longest = max(plane.rows * down, plane.columns * across) / finest
    if not longest <= _MOST:
        return None
    return max(1, round(plane.rows * down / finest)), max(1, round(plane.columns * across / finest))


class _Square(Picture):
    """A plane of ``source``, stretched along one of its axes."""

    def __init__(self, plane: PlaneSpec, source: VoxelSource, *, nearest: bool) -> None:
        rows, columns = stretched(plane) or (plane.rows, plane.columns)
        super().__init__((rows, columns, *plane.shape[2:]), source, nearest=nearest)
        self._plane = plane
        pixel = plane.pixel or (1.0, 1.0)
        self._along = 0 if pixel[0] > pixel[1] else 1
        """The axis of the picture that is stretched, and by how much."""
        self._step = min(pixel) / max(pixel)

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        picture = np.empty(box.shape, self.dtype)
        work = exact(self.dtype).itemsize if not self._nearest else self.dtype.itemsize
        most = max(1, _AT_ONCE // max(1, work * box.size // max(1, box.shape[0])))
        for first in range(box.start[0], box.stop[0], most):  # rows that fit into memory
            last = min(box.stop[0], first + most)
            piece = Box((first, *box.start[1:]), (last, *box.stop[1:]))
            picture[first - box.start[0] : last - box.start[0]] = self._piece(piece)
        return placed(picture, out)

    def _piece(self, box: Box) -> np.ndarray:
        along = self._along
        centres = (np.arange(box.start[along], box.stop[along], dtype=np.float64) + 0.5) * self._step - 0.5
        at = between(centres, self._plane.shape[along], nearest=self._nearest)
        first, last = int(at.low[0]), int(at.high[-1]) + 1
        start, stop = list(box.start), list(box.stop)
        start[along], stop[along] = first, last
        picture = self._voxels(Box(tuple(start), tuple(stop)))
        low = np.take(picture, at.low - first, axis=along)
        if self._nearest:
            return low
        high = np.take(picture, at.high - first, axis=along)
        work = exact(self.dtype)
        share = at.share.reshape([-1 if axis == along else 1 for axis in range(picture.ndim)])
        return finished(mix(low.astype(work), high.astype(work), share), self.dtype)

    def _voxels(self, part: Box) -> np.ndarray:
        """A part of the plane as it is stored, in rows, columns and samples."""
        plane = self._plane
        start, stop = list(plane.box.start), list(plane.box.stop)
        for axis, low, high in zip(plane.order[-part.ndim :], part.start, part.stop, strict=True):
            stop[axis] = start[axis] + high
            start[axis] += low
        voxels = self._source.read(Box(tuple(start), tuple(stop)))
        return voxels.transpose(plane.order).reshape(part.shape)
