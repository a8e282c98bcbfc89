"""The content of one slice: a plane of an nD level, and which way up.

The first letter of a plane's name runs across, the second runs down (``xz``: x across, z down). Which file name and
directory stand for which plane is decided in :mod:`volfs.views.slices`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.model.box import Box, Index


@dataclass(frozen=True, slots=True)
class PlaneSpec:
    """One slice: ``box`` of the level, shown with ``order[-2:]`` (or ``order[-3:-1]`` before samples) down and across.

    ``order`` lists all axes of the level, slowest first: those of length one in ``box``, the axis that runs down, the
    axis that runs across, and last, if ``has_samples``, the axis whose entries are the samples of a pixel.
    ``pixel`` is the size of a pixel (down, across) in metres when the unit is known, in any one unit otherwise
    (``metric`` false), None when there is no voxel size.
    """

    box: Box
    order: Index
    dtype: np.dtype[Any]
    has_samples: bool = False
    pixel: tuple[float, float] | None = None
    metric: bool = False

    @property
    def rows(self) -> int:
        return self.box.shape[self.order[-3 if self.has_samples else -2]]

    @property
    def columns(self) -> int:
        return self.box.shape[self.order[-2 if self.has_samples else -1]]

    @property
    def samples(self) -> int:
        return self.box.shape[self.order[-1]] if self.has_samples else 1

    @property
    def shape(self) -> Index:
        """The shape of the picture: rows, columns, and samples where a pixel has them."""
        return (self.rows, self.columns, self.samples) if self.has_samples else (self.rows, self.columns)

    def picture(self, voxels: np.ndarray) -> np.ndarray:
        """Voxels of ``box``, in the axis order of the level, as a picture of ``shape``."""
        return voxels.transpose(self.order).reshape(self.shape)

    def voxels(self, picture: np.ndarray) -> np.ndarray:
        """A picture of ``shape`` as voxels of ``box``, in the axis order of the level."""
        ordered = picture.reshape(tuple(self.box.shape[axis] for axis in self.order))
        return ordered.transpose(np.argsort(self.order))

    def describe(self) -> str:
        """The picture that a file of this slice has to hold, in words for error messages."""
        return describe(self.shape, self.dtype)


class Incomplete(BadInput):
    """A file that ends, or has holes, before its format says it does: it may still be being written."""


def describe(shape: Index, dtype: np.dtype[Any]) -> str:
    """A picture in words: ``512 x 400 uint16, 3 samples`` (columns x rows)."""
    text = f"{shape[1]} x {shape[0]} {dtype.name}" if len(shape) >= 2 else f"shape {shape} {dtype.name}"
    if len(shape) == 3:
        text += f", {shape[2]} samples"
    return text
