"""NRRD (``.nrrd`` with attached header, ``.nhdr`` with a detached one that names ``.raw``), version NRRD0004.

Follows https://teem.sourceforge.net/nrrd/format.html. Raw encoding, little-endian, any number of axes, x fastest. Axes
of space, and of time, have directions in the world (time as a fourth dimension of it: that is what ITK reads); other
axes are lists without a direction. Positions are in millimetres and seconds where units are known; else no unit is
said. With an orientation the world is left-posterior-superior, which ITK takes as it is, else it has no name. bool is
uint8; NRRD has no float16 and no complex numbers.

An image that came as NRRD keeps its space, its measurement frame, kinds, labels and centerings, its way of saying where
voxels lie (by space directions or by axis), and its key/value pairs. So do the pairs of other formats; a rescale is
``RescaleSlope`` and ``RescaleIntercept`` among them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from volfs.model.facts import key_values, text_of
from volfs.views.layout import Layout, Literal, Voxels
from volfs.views.volume import ShownAxis, VolumeFormat, VolumeSpec
from volfs.views.volumes.orientation import (
    MILLIMETRE,
    SECOND,
    Grid,
    aligned,
    grid,
    joined,
    matrix,
    number,
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
_FROM_PATIENT = {
    "right-anterior-superior": (-1.0, -1.0),
    "ras": (-1.0, -1.0),
    "left-anterior-superior": (1.0, -1.0),
    "las": (1.0, -1.0),
}
"""The signs of x and y that take the patient's space to others."""

_SPACES = frozenset((*_FROM_PATIENT, _PATIENT, "lps", "scanner-xyz", "scannerxyz", "3d-right-handed", "3d-left-handed"))
"""The spaces of three dimensions that NRRD knows, in lower case."""

_KINDS = dict.fromkeys(
    ("domain", "space", "time", "list", "point", "vector", "covariant-vector", "normal", "none", "???"), 0
) | {
    **{"stub": 1, "scalar": 1, "complex": 2, "2-vector": 2, "3-color": 3, "RGB-color": 3, "HSV-color": 3},
    **{"XYZ-color": 3, "4-color": 4, "RGBA-color": 4, "3-vector": 3, "3-gradient": 3, "3-normal": 3, "4-vector": 4},
    **{"quaternion": 4, "2D-symmetric-matrix": 3, "2D-masked-symmetric-matrix": 4, "2D-matrix": 4},
    **{"2D-masked-matrix": 5, "3D-symmetric-matrix": 6, "3D-masked-symmetric-matrix": 7, "3D-matrix": 9},
    **{"3D-masked-matrix": 10},
}
"""The kinds of axes, each with the size that such an axis has; 0 for any."""

_SAMPLES_ARE = {"sample units": "sampleunits", "old min": "oldmin", "old max": "oldmax"}
"""Fields about all samples, each with the fact that it comes from."""


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
    told = spec.facts if spec.facts.get("format") == "nrrd" else {}
    placed_by_axis = _by_axis(spec, told)
    world = _World(spec, time, told)
    labels = _each(told, "axis_labels")
    lines = [
        f"type: {_TYPES[spec.dtype.name]}",
        f"dimension: {len(axes)}",
        *([] if placed_by_axis else [world.space]),
        f"sizes: {' '.join(str(axis.size) for axis in axes)}",
        *(_axis_lines(axes, time, told) if placed_by_axis else world.lines(axes)),
        f"kinds: {' '.join(_kind(spec, axis, time, told) for axis in axes)}",
        f"labels: {' '.join(_quoted(str(labels.get(axis.name, axis.name))) for axis in axes)}",
        *_centerings(axes, told),
        *([] if placed_by_axis else [*world.units, world.place, *world.frame]),
        *(f"{name}: {text}" for name, field in _SAMPLES_ARE.items() if (text := _line(text_of(told, field)))),
        "endian: little",
        *data,
    ]
    if title := plain(text_of(told, "content") if told else spec.title):
        lines.insert(0, f"content: {title}")
    pairs = [f"{key}:={value}" for key, value in _pairs(spec).items()]
    if data[-1].startswith("data file"):
        lines[-1:-1] = pairs
    else:
        lines += pairs
    version = "NRRD0005" if world.frame else "NRRD0004"

    def made(fill: str) -> str:
        return "\n".join([version, f"# https://teem.sourceforge.net/nrrd/format.html{fill}", *lines, end])

    return aligned(made)


def _pairs(spec: VolumeSpec) -> dict[str, str]:
    """Key/value pairs that a header can hold; those of the source, where no axis besides space is cut."""
    found = key_values(spec.facts if spec.whole else {}, spec.rescale)
    made = {_line(key): _line(value) for key, value in found.items()}
    return {key: value for key, value in made.items() if key and ":=" not in key and not key.startswith("#")}


def _line(text: str) -> str:
    """Text that stays on one line; line ends as NRRD escapes them."""
    return text.replace("\r", "").replace("\n", "\\n").strip()


def _each(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The source's own fields about each axis, by the axis's name."""
    found = told.get(name)
    return found if isinstance(found, Mapping) else {}


def _by_axis(spec: VolumeSpec, told: Mapping[str, Any]) -> bool:
    """Whether voxels lie where each axis says for itself, without a world: as the file had it that the image is of."""
    return "affine" not in told and bool(_each(told, "spacings") or _each(told, "axis_mins"))


def _axis_lines(axes: Sequence[ShownAxis], time: ShownAxis | None, told: Mapping[str, Any]) -> list[str]:
    """Spacings, axis mins and units. A minimum is that of the first voxel's corner, or of its centre for nodes."""
    spaced = [axis for axis in axes if axis.kind == "space" or axis is time]
    grids = {axis.axis: grid((axis,), SECOND if axis is time else MILLIMETRE) for axis in spaced}
    known = all(grids[axis.axis].known for axis in spaced if axis.kind == "space")
    steps, mins, units = [], [], []
    for axis in axes:
        found = grids.get(axis.axis)
        if found is not None and axis.kind == "space" and not known:
            found = Grid((axis.scale,), (axis.origin,), False)
        step = found.steps[0] * axis.direction if found is not None else math.nan
        corner = 0.0 if _each(told, "centerings").get(axis.name) == "node" else step / 2
        steps.append(number(step) if found is not None else "nan")
        mins.append(number(_rounded(found.origin[0] - corner)) if found is not None else "nan")
        units.append(("s" if axis is time else "mm") if found is not None and found.known else "")
    lines = [f"spacings: {' '.join(steps)}"]
    if _each(told, "axis_mins") or any(found.origin[0] for found in grids.values()):
        lines.append(f"axis mins: {' '.join(mins)}")
    return [*lines, *([f"units: {' '.join(map(_quoted, units))}"] if any(units) else [])]


def _rounded(value: float) -> float:
    return float(f"{value:.12g}")


def _centerings(axes: Sequence[ShownAxis], told: Mapping[str, Any]) -> list[str]:
    found = _each(told, "centerings")
    words = [found.get(axis.name) for axis in axes]
    if not any(word in ("node", "cell") for word in words):
        return []
    return [f"centerings: {' '.join(word if word in ('node', 'cell') else '???' for word in words)}"]


class _World:
    """The world of a volume, as NRRD says it: the dimensions of space, and time if there is such an axis. That of the
    file that the image came from, if it was NRRD; else of a patient, if there is an orientation."""

    def __init__(self, spec: VolumeSpec, time: ShownAxis | None, told: Mapping[str, Any]) -> None:
        steps, origin = matrix(spec)
        oriented = patient_affine(spec) is not None
        name = _PATIENT if oriented else ""
        if oriented and told:
            name = re.sub(r"(-time|(?<=[LR][AP]S)T)\Z", "", text_of(told, "space"), flags=re.IGNORECASE)
            name = name if name.lower() in _SPACES else ""
            signs = np.array([*_FROM_PATIENT.get(name.lower(), (1.0, 1.0)), 1.0])
            steps, origin = steps * signs, origin * signs
        grids = [space_grid(spec), *([grid((time,), SECOND)] if time else [])]
        size = len(steps) + bool(time)
        directions = np.zeros((size, size))
        directions[: len(steps), : len(steps)] = steps
        if time:
            directions[-1, -1] = grids[1].steps[0] * time.direction
            origin = np.append(origin, grids[1].origin)
        shown = (*spec.space[::-1], *([time] if time else []))
        self._directions = dict(zip((axis.axis for axis in shown), directions, strict=True))
        self._origin = origin
        self.space = f"space: {name}{_time_of(name) if time else ''}" if name else f"space dimension: {size}"
        self.units = _units(grids, len(steps))
        frame = re.findall(r"\([^()]*\)", text_of(told, "measurementframe")) if oriented else []
        self.frame = [f"measurement frame: {_line(' '.join(frame))}"] if len(frame) == size else []

    @property
    def place(self) -> str:
        return f"space origin: ({joined(self._origin, ',')})"

    def lines(self, axes: Sequence[ShownAxis]) -> list[str]:
        return [f"space directions: {' '.join(map(self._direction, axes))}"]

    def _direction(self, axis: ShownAxis) -> str:
        found = self._directions.get(axis.axis)
        return "none" if found is None else f"({joined(found, ',')})"


def _time_of(space: str) -> str:
    """The ending that adds time to the name of a space."""
    return "T" if len(space) == 3 else "-time"


def _units(grids: Sequence[Grid], dimensions: int) -> list[str]:
    names = [["mm" if grids[0].known else ""] * dimensions, *(["s" if time.known else ""] for time in grids[1:])]
    units = [name for some in names for name in some]
    return [f"space units: {' '.join(map(_quoted, units))}"] if any(units) else []


def _kind(spec: VolumeSpec, axis: ShownAxis, time: ShownAxis | None, told: Mapping[str, Any]) -> str:
    named = str(_each(told, "axis_kinds").get(axis.name, ""))
    if named in _KINDS and _KINDS[named] in (0, axis.size):
        return named
    if spec.has_samples and axis is spec.axes[-1]:
        return _SAMPLES.get(axis.size, "list")
    if axis is time:
        return "time"
    return "domain" if axis in spec.space else "list"


def _quoted(text: str) -> str:
    return '"' + plain(text).replace("\\", "").replace('"', "") + '"'


FORMATS = (VolumeFormat(".nrrd", 4, _holds, _attached), VolumeFormat(".nhdr", 5, _holds, _detached))
