"""Pictures whose pixels lie between the voxels: for :mod:`volfs.views.oblique_planes`, :mod:`volfs.views.iso_slices`.

Intensities are interpolated linearly between the centres of voxels: exactly one voxel's value where a pixel lies on its
centre, never outside of what the voxels around have, integers rounded half to even. Label images, bools and types
without arithmetic take the nearest voxel. A voxel reaches half its size beyond its centre, up to where the image ends;
there the outermost value counts. Beyond, there is nothing, and zero is shown.

A picture is a :class:`~volfs.views.layout.VoxelSource` of its own, so the formats of slices lay it out as they do
slices: its size is known from its name. Its pixels do not depend on which of them are read together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from volfs.errors import Unsupported
from volfs.model.box import Box, Index
from volfs.views import jpeg, slices
from volfs.views.layout import Layout, VoxelSource
from volfs.views.plane import PlaneSpec

Floats = npt.NDArray[np.float64]

_ON_CENTRE = 1e-6
"""A pixel this close to the centre of a voxel (in voxels) lies on it, whatever rounding did to its position."""


class Picture(ABC):
    """The pixels of such a file, shape (rows, columns) or (rows, columns, samples)."""

    def __init__(self, shape: Index, source: VoxelSource, *, nearest: bool) -> None:
        self._shape = shape
        self._source = source
        self._nearest = nearest or source.dtype.kind not in "iufc"

    @property
    def shape(self) -> Index:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._source.dtype

    @abstractmethod
    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray: ...

    def write(self, box: Box, voxels: np.ndarray) -> None:
        raise Unsupported("this picture is computed from voxels and cannot be written: write the slices")


@dataclass(frozen=True, slots=True)
class Resampled:
    """A file of such a picture. ``box`` are the voxels of the level that it depends on.

    ``wrap`` makes, from the level, the source that ``layout`` reads and that ``plane`` is a plane of. Without a layout
    it is a JPEG, to be rendered from these (:func:`volfs.views.jpeg.render`). ``others`` are the indices along the
    level's axes besides z, y, x. It cannot be written.
    """

    box: Box
    plane: PlaneSpec
    layout: Layout | None
    others: Index
    wrap: Callable[[VoxelSource], VoxelSource]


def resampled(
    box: Box, plane: PlaneSpec, ending: str, others: Index, wrap: Callable[[VoxelSource], VoxelSource]
) -> Resampled | None:
    """The file of a picture with an ending; None if the format cannot hold it."""
    if ending == jpeg.ENDING:
        return Resampled(box, plane, None, others, wrap) if jpeg.holds(plane) else None
    layout = slices.layout(ending, plane)
    return Resampled(box, plane, layout, others, wrap) if layout is not None else None


def picture_plane(shape: Index, dtype: np.dtype[Any], pixel: tuple[float, float] | None, *, metric: bool) -> PlaneSpec:
    """A whole picture as a plane: ``shape`` with or without samples, ``pixel`` as in :class:`PlaneSpec`."""
    return PlaneSpec(Box.whole(shape), tuple(range(len(shape))), dtype, len(shape) == 3, pixel, metric)


@dataclass(frozen=True, slots=True)
class Between:
    """Where points lie along one axis: ``share`` of the way from voxel ``low`` to voxel ``high``."""

    low: npt.NDArray[np.intp]
    high: npt.NDArray[np.intp]
    share: Floats

    @property
    def on_centres(self) -> bool:
        return not self.share.any()


def between(positions: Floats, size: int, *, nearest: bool) -> Between:
    """For positions along an axis of ``size`` voxels, counted in voxels from the centre of the first."""
    positions = np.clip(positions, 0, size - 1)
    if nearest:
        low = np.floor(positions + 0.5).astype(np.intp)
        return Between(low, low, np.zeros(positions.shape))
    centres = np.rint(positions)
    positions = np.where(np.abs(positions - centres) < _ON_CENTRE, centres, positions)
    low = np.floor(positions).astype(np.intp)
    return Between(low, np.minimum(low + 1, size - 1), positions - low)


def exact(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """In which type to interpolate, so that every value of ``dtype`` has a place in it."""
    if dtype.kind == "c":
        return np.result_type(dtype, np.complex128)
    wide = dtype.itemsize >= 8 and dtype.kind in "iu"
    return np.dtype(np.longdouble) if wide else np.result_type(dtype, np.float64)


def mix(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Values ``share`` of the way from ``low`` to ``high``, and nothing of values without a share: not-a-number next to
    a voxel does not spoil it."""
    with np.errstate(all="ignore"):
        mixed = low * (1 - share) + high * share
        if mixed.dtype.kind == "f":  # rounding must not leave the range, of whole numbers even less
            mixed = np.clip(mixed, np.minimum(low, high), np.maximum(low, high))
    settled: np.ndarray = np.where((share == 0) | (low == high), low, mixed)
    return settled


def finished(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Interpolated values in the type of the image."""
    with np.errstate(all="ignore"):
        return (np.rint(values) if dtype.kind in "iu" else values).astype(dtype)
