"""Where the voxels of a volume lie: voxel sizes, first voxel and orientation, x first, as most formats count.

Decided here: which unit a header uses, and what is said where none is known. How it is written down is each format's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from volfs.views.volume import ShownAxis, VolumeSpec

MILLIMETRE = 1e-3
SECOND = 1.0

_DIGITS = 15
"""Significant digits of a number brought into another unit: those that a double always keeps."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Steps between voxels, and the position of the first, of some axes. ``known`` tells whether both are in the unit
    that was asked for; otherwise they are what the image says, in whatever unit."""

    steps: tuple[float, ...]
    origin: tuple[float, ...]
    known: bool

    def within(self, limits: np.finfo[np.float32] | np.finfo[np.float64]) -> bool:
        """Whether floats of this type hold all numbers, steps as more than zero."""
        low, high = float(limits.tiny), float(limits.max)
        return all(low <= step <= high for step in self.steps) and all(abs(at) <= high for at in self.origin)


def grid(axes: tuple[ShownAxis, ...], unit: float) -> Grid:
    """Of ``axes``, in their order. The unit is in metres, or seconds for an axis of time; it is known if that of every
    axis is."""
    steps = [axis.scale_in(unit) for axis in axes]
    origin = [axis.origin_in(unit) for axis in axes]
    if all(step is not None for step in steps):
        return Grid(
            tuple(_tidy(step, axis.scale) for step, axis in zip(steps, axes, strict=True)),
            tuple(_tidy(at, axis.origin) for at, axis in zip(origin, axes, strict=True)),
            True,
        )
    return Grid(tuple(axis.scale for axis in axes), tuple(axis.origin for axis in axes), False)


def space_grid(spec: VolumeSpec, unit: float = MILLIMETRE) -> Grid:
    """Of x, y and, where there is one, z."""
    return grid(spec.space[::-1], unit)


def patient_affine(spec: VolumeSpec) -> np.ndarray | None:
    """From (x, y, z, 1) to millimetres left, posterior and superior: DICOM's and ITK's space, 3 x 4. None where the
    image came without an orientation, and for planes."""
    if spec.affine is None or len(spec.space) != 3:
        return None
    right, anterior, superior = np.array(spec.affine)
    return np.stack((-right, -anterior, superior))


def matrix(spec: VolumeSpec) -> tuple[np.ndarray, np.ndarray]:
    """The steps of x, y and z as rows, and the position of the first voxel, in millimetres where the unit is known: in
    the space of :func:`patient_affine`, or without an orientation along the axes. Planes have two of everything."""
    oriented = patient_affine(spec)
    if oriented is not None:
        return oriented[:, :3].T, oriented[:, 3]
    if (flat := _flat_affine(spec)) is not None:
        return flat[:, :2].T, flat[:, 2]
    along = space_grid(spec)
    return np.diag(along.steps) * directions(spec), np.array(along.origin)


def _flat_affine(spec: VolumeSpec) -> np.ndarray | None:
    """:func:`patient_affine` of a plane that lies in that of left and posterior: from (x, y, 1), 2 x 3."""
    if spec.affine is None or len(spec.space) != 2:
        return None
    right, anterior, superior = np.array(spec.affine)
    if superior[:2].any():
        return None
    return np.stack((-right, -anterior))[:, [0, 1, 3]]


def directions(spec: VolumeSpec) -> np.ndarray:
    """1 or -1 for x, y and, where there is one, z: whether positions rise or fall along them."""
    return np.array([axis.direction for axis in spec.space[::-1]])


def time_axis(spec: VolumeSpec) -> ShownAxis | None:
    """The first axis of time."""
    return next((axis for axis in spec.others if axis.kind == "time" or (axis.name == "t" and not axis.kind)), None)


def placed(spec: VolumeSpec) -> bool:
    """Whether there is something to place, and doubles can say where. Formats here have no empty volumes."""
    if len(spec.space) not in (2, 3) or 0 in spec.shape:
        return False
    grids = [space_grid(spec), *(grid((axis,), SECOND) for axis in spec.others)]
    return all(one.within(np.finfo(np.float64)) for one in grids)


def number(value: float) -> str:
    """A number as short as it can be written without changing it."""
    return repr(int(value)) if value == int(value) and abs(value) < 1 << 53 else repr(float(value))


def joined(values: np.ndarray | tuple[float, ...], separator: str = " ") -> str:
    """Numbers of a header of text."""
    return separator.join(number(float(value)) for value in values)


def plain(text: str) -> str:
    """Text for ASCII headers: its printable ASCII characters, on one line."""
    return "".join(letter for letter in text if " " <= letter <= "~").strip()


def aligned(make: Callable[[str], str], to: int = 16) -> bytes:
    """A header of text of a length that is a multiple of ``to``: ``make`` gets the spaces that fill it up.

    So that no voxel is cut in two by a page of memory: a mapped file is written page by page. Text is in UTF-8.
    """
    return make(" " * (-len(make("").encode("utf-8", "replace")) % to)).encode("utf-8", "replace")


def _tidy(value: float | None, given: float) -> float:
    """A converted number without the noise of the multiplication: 4e-06, not 4.0000000000000007e-06."""
    assert value is not None
    return value if value == given or not math.isfinite(value) else float(f"{value:.{_DIGITS}g}")
