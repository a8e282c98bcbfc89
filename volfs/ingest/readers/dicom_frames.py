"""How the planes of a DICOM series become a volume: their order, their spacing, and what is wrong with them.

Pure geometry; reading headers is :mod:`volfs.ingest.readers.dicom`'s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from volfs.errors import BadInput
from volfs.model.box import Index

_PARALLEL = 1e-3
"""How far the cosines of parallel planes may differ."""

_SAME_PLACE = 1e-3
_REGULAR = 0.1
"""How far a plane may be from its place on an even grid, in steps: scanners round positions to a tenth of a
millimetre; a missing plane is off by half a step at least."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One plane: in file ``path``, frame ``index`` (None if it has but one). ``position`` and ``orientation`` (row,
    column) in the patient's space; ``spacing`` between rows, between columns. ``order`` sorts planes by time."""

    path: Path
    index: int | None = None
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None
    slope: float | None = None
    intercept: float | None = None
    order: tuple[float, ...] = ()

    @property
    def normal(self) -> tuple[float, ...]:
        assert self.orientation is not None
        return tuple(map(float, np.cross(self.orientation[:3], self.orientation[3:])))

    @property
    def text(self) -> str:
        return self.path.name if self.index is None else f"{self.path.name} frame {self.index + 1}"


@dataclass(frozen=True, slots=True)
class Stack:
    """Frames in C order of ``shape``, whose axes are ``names``: t, z, or both, or none. ``step`` is the voxel size
    along z, ``spacing`` those along y and x, None if unknown. ``affine`` takes (x, y, z, 1) to the patient's space."""

    frames: tuple[Frame, ...]
    names: tuple[str, ...]
    shape: Index
    step: float | None
    spacing: tuple[float, float] | None
    affine: list[list[float]] | None


def stack_frames(given: Path, frames: Sequence[Frame]) -> Stack:
    """Put planes into order. BadInput if they are not parallel, not evenly spaced, or some are missing."""
    first = frames[0]
    spacing = _common_spacing(given, frames)
    if any(frame.position is None or frame.orientation is None for frame in frames):
        ordered = tuple(sorted(frames, key=lambda frame: frame.order))
        if len(frames) == 1:
            return Stack(ordered, (), (), None, spacing, None)
        return Stack(ordered, ("z",), (len(frames),), None, spacing, None)
    for frame in frames:
        assert frame.orientation is not None and first.orientation is not None
        if max(abs(a - b) for a, b in zip(frame.orientation, first.orientation, strict=True)) > _PARALLEL:
            raise BadInput(f"{given}: {frame.text} and {first.text} are not parallel: import each stack by itself")
    normal = np.array(first.normal)
    length = float(np.linalg.norm(normal))
    if not 0.9 < length < 1.1:
        raise BadInput(f"{given}: the rows and columns of {first.text} are not at a right angle")
    heights = [float(np.dot(normal, np.array(frame.position))) / length for frame in frames]
    order = sorted(range(len(frames)), key=lambda i: heights[i])
    planes: list[list[Frame]] = []
    levels: list[float] = []
    for i in order:
        if levels and heights[i] - levels[-1] <= _SAME_PLACE:
            planes[-1].append(frames[i])
        else:
            planes.append([frames[i]])
            levels.append(heights[i])
    times = len(planes[0])
    for plane in planes:
        plane.sort(key=lambda frame: frame.order)
        if len(plane) != times:
            fewer, more = sorted((plane, planes[0]), key=len)
            raise BadInput(
                f"{given}: there are {len(more)} images at the place of {more[0].text}, but {len(fewer)} at that of "
                f"{fewer[0].text}: images are missing, or the series is of several stacks"
            )
    step = _even_step(given, [plane[0] for plane in planes], levels)
    ordered = tuple(plane[time] for time in range(times) for plane in planes)
    outer = [(name, n) for name, n in (("t", times), ("z", len(planes))) if n > 1]
    return Stack(
        ordered,
        tuple(name for name, _ in outer),
        tuple(n for _, n in outer),
        step,
        spacing,
        _affine(planes, normal / length, spacing),
    )


def _common_spacing(given: Path, frames: Sequence[Frame]) -> tuple[float, float] | None:
    first = frames[0]
    for frame in frames:
        a, b = frame.spacing or (0.0, 0.0), first.spacing or (0.0, 0.0)
        if any(not math.isclose(p, q, rel_tol=1e-3) for p, q in zip(a, b, strict=True)):
            raise BadInput(f"{given}: {frame.text} has pixels of {a} mm, {first.text} has {b}")
    return (first.spacing[0], first.spacing[1]) if first.spacing is not None else None


def _even_step(given: Path, planes: Sequence[Frame], levels: Sequence[float]) -> float | None:
    """The distance between planes, None for a single one."""
    if len(levels) < 2:
        return None
    gaps = np.diff(levels)
    step = float(levels[-1] - levels[0]) / (len(levels) - 1)
    off = np.abs(np.asarray(levels) - (levels[0] + step * np.arange(len(levels)))) / step
    if off.max() <= _REGULAR:
        return step
    usual = float(np.median(gaps))
    for i, gap in enumerate(gaps.tolist()):
        missing = round(gap / usual) - 1
        if missing >= 1 and abs(gap / usual - (missing + 1)) <= 2 * _REGULAR:
            lost = sum(max(0, round(g / usual) - 1) for g in gaps.tolist())
            raise BadInput(
                f"{given}: {lost} slice{'s are' if lost > 1 else ' is'} missing: {planes[i + 1].text} lies {gap:.4g} mm"
                f" after {planes[i].text}, slices are {usual:.4g} mm apart"
            )
    raise BadInput(
        f"{given}: its slices are not evenly spaced: from {gaps.min():.4g} to {gaps.max():.4g} mm "
        f"(after {planes[int(gaps.argmax())].text})"
    )


def _affine(planes: list[list[Frame]], normal: np.ndarray, spacing: tuple[float, float] | None) -> list[list[float]]:
    first, last = planes[0][0], planes[-1][0]
    assert first.position is not None and last.position is not None and first.orientation is not None
    down, across = spacing or (1.0, 1.0)
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation[:3]) * across
    affine[:3, 1] = np.array(first.orientation[3:]) * down
    # Not along the normal: with a tilted gantry, each slice is shifted against the one before.
    steps = len(planes) - 1
    affine[:3, 2] = (np.array(last.position) - np.array(first.position)) / steps if steps else normal
    affine[:3, 3] = first.position
    return [[float(n) for n in row] for row in affine]
