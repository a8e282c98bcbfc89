"""NRRD (``.nrrd`` with attached header, ``.nhdr`` with a detached one that names ``.raw``), version NRRD0004.

Follows https://teem.sourceforge.net/nrrd/format.html. Raw encoding, little-endian, any number of axes, x fastest. Axes
of space, and of time, have directions in the world (time as a fourth dimension of it: that is what ITK reads); other
axes are lists without a direction. Positions are in millimetres and seconds where units are known; else no unit is
said. With an orientation the world is left-posterior-superior, which ITK takes as it is, else it has no name. bool is
uint8; NRRD has no float16 and no complex numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from volfs.views.layout import Layout, Literal, Voxels
from volfs.views.volume import ShownAxis, VolumeFormat, VolumeSpec
from volfs.views.volumes.placing import (
    SECOND,
    Grid,
    aligned,
    grid,
    joined,
    matrix,
    patient_affine,
    placed,
    plain,
    space_grid,
    time_axis,
)

_TYPES = {"bool": "uint8", "float32": "float", "float64": "double"} | {
    f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_SAMPLES = {2: "2-vector", 3: "RGB-color", 4: "RGBA-color"}
_PATIENT = "left-posterior-superior"


def _holds(spec: VolumeSpec) -> bool:
    return spec.dtype.name in _TYPES and placed(spec)


def _attached(spec: VolumeSpec) -> Layout:
    stored = np.dtype(np.uint8) if spec.dtype.kind == "b" else spec.dtype.newbyteorder("<")
    return Layout(Literal(_header(spec, ["encoding: raw"], "\n")), Voxels(spec.box, spec.order, stored))


def _detached(spec: VolumeSpec) -> Layout:
    return Layout(Literal(_header(spec, ["encoding: raw", f"data file: {spec.stem}.raw"], "")))


def _header(spec: VolumeSpec, data: Sequence[str], end: str) -> bytes:
    axes = spec.axes[::-1]
    time = time_axis(spec)
    world = _World(spec, time)
    lines = [
        f"type: {_TYPES[spec.dtype.name]}",
        f"dimension: {len(axes)}",
        world.space,
        f"sizes: {' '.join(str(axis.size) for axis in axes)}",
        f"space directions: {' '.join(map(world.direction, axes))}",
        f"kinds: {' '.join(_kind(spec, axis, time) for axis in axes)}",
        f"labels: {' '.join(_quoted(axis.name) for axis in axes)}",
        *world.units,
        f"space origin: ({joined(world.origin, ',')})",
        "endian: little",
        *data,
    ]
    if title := plain(spec.title):
        lines.insert(0, f"content: {title}")

    def made(fill: str) -> str:
        return "\n".join(["NRRD0004", f"# https://teem.sourceforge.net/nrrd/format.html{fill}", *lines, end])

    return aligned(made)


class _World:
    """The world of a volume, as NRRD says it: the dimensions of space, and time if there is such an axis."""

    def __init__(self, spec: VolumeSpec, time: ShownAxis | None) -> None:
        steps, origin = matrix(spec)
        grids = [space_grid(spec), *([grid((time,), SECOND)] if time else [])]
        size = len(steps) + bool(time)
        directions = np.zeros((size, size))
        directions[: len(steps), : len(steps)] = steps
        if time:
            directions[-1, -1] = grids[1].steps[0]
            origin = np.append(origin, grids[1].origin)
        shown = (*spec.space[::-1], *([time] if time else []))
        self._directions = dict(zip((axis.axis for axis in shown), directions, strict=True))
        self.origin = origin
        self.space = f"space: {_PATIENT}{'-time' if time else ''}"
        if patient_affine(spec) is None:
            self.space = f"space dimension: {size}"
        self.units = _units(grids, len(steps))

    def direction(self, axis: ShownAxis) -> str:
        found = self._directions.get(axis.axis)
        return "none" if found is None else f"({joined(found, ',')})"


def _units(grids: Sequence[Grid], dimensions: int) -> list[str]:
    names = [["mm" if grids[0].known else ""] * dimensions, *(["s" if time.known else ""] for time in grids[1:])]
    units = [name for some in names for name in some]
    return [f"space units: {' '.join(map(_quoted, units))}"] if any(units) else []


def _kind(spec: VolumeSpec, axis: ShownAxis, time: ShownAxis | None) -> str:
    if spec.has_samples and axis is spec.axes[-1]:
        return _SAMPLES.get(axis.size, "list")
    if axis is time:
        return "time"
    return "domain" if axis in spec.space else "list"


def _quoted(text: str) -> str:
    return '"' + plain(text).replace("\\", "").replace('"', "") + '"'


FORMATS = (VolumeFormat(".nrrd", 4, _holds, _attached), VolumeFormat(".nhdr", 5, _holds, _detached))
