"""Files of a box that are made by naming them: ``cutout/z0-64_y100-612_x0-512.tif``.

A name says for some axes of the level which part is meant, joined by ``_``, then the ending of a format. Axes stand in
the order in which the level has them, each at most once; one that is left out is taken whole, and at least one is
named. z, y and x are called so whatever the image calls them, other axes as their directories are (``t``, ``c``;
``d0_`` where another axis has the name already); the samples of a colour picture are not cut. A part is

``z5-64``   from 5 up to, and without, 64
``z5-``     from 5 to the end
``z5``      the one at 5

``z-64`` is no name, since it can be read as minus 64; nor are numbers with leading zeros, empty parts, and parts that
reach beyond the level: so that each box has few names, and no name two meanings.

Every volume format is an ending. The file shows z, y and x, and the other axes of which the level has more than one,
unless they are named by one number. Where exactly one of z, y and x has length one, and no other axis is longer, the
box is a plane too: then ``.png`` and ``.jpg`` show it as slices are shown, and, where its place was named by one number
(``y34_x0-512``), so do ``.tif`` and ``.npy``: as in numpy, a number drops the axis and a range keeps it. A TIFF of an
xy plane is the same picture either way; it is the volume's.

Decided here: what names mean. Not here: what formats hold (:mod:`volfs.views.volumes`, :mod:`volfs.views.slices`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from volfs.model.box import Box, Index
from volfs.views import jpeg, slices, volumes
from volfs.views.layout import Layout
from volfs.views.plane import PlaneSpec
from volfs.views.slices import SliceGeometry
from volfs.views.volumes import volume_spec
from volfs.views.volumes.volume_spec import LevelMeta

README = "README.txt"

_NUMBER = r"(?:0|[1-9][0-9]{0,17})"
_PLANES = {"z": "xy", "y": "xz", "x": "yz"}
_LONGEST = 255


@dataclass(frozen=True, slots=True)
class Cut:
    """The meaning of a name without its ending: a box, and the axes that were named by one number."""

    box: Box
    dropped: frozenset[int]
    stem: str


@dataclass(frozen=True, slots=True)
class Cutout:
    """A file of ``cutout/``: voxels of ``box`` through ``layout``; or, where there is none, a JPEG to be rendered from
    ``preview`` (see :func:`volfs.views.jpeg.render`), with ``others`` as the indices of its other axes."""

    box: Box
    layout: Layout | None = None
    preview: PlaneSpec | None = None
    others: Index = ()


def open_name(level: LevelMeta, name: str) -> Cutout | None:
    """The file that a name in ``cutout/`` stands for; None if it stands for none. Reads nothing, and costs little."""
    parsed = parse(level.geometry, name)
    if parsed is None:
        return None
    cut, ending = parsed
    plane = _plane(level.geometry, cut.box)
    others = tuple(cut.box.start[other.axis] for other in level.geometry.others)
    if ending == jpeg.ENDING:
        return Cutout(cut.box, preview=plane, others=others) if plane is not None and jpeg.holds(plane) else None
    hidden = [other.axis for other in level.geometry.others if _hidden(cut, other.axis, level.geometry.shape)]
    as_volume = volumes.layout(ending, volume_spec.part(level, cut.box, hidden, cut.stem))
    as_plane = slices.layout(ending, plane) if plane is not None else None
    made = (as_plane or as_volume) if _drops(level.geometry, cut, ending) else (as_volume or as_plane)
    return Cutout(cut.box, made, others=others) if made is not None else None


def parse(geometry: SliceGeometry, name: str) -> tuple[Cut, str] | None:
    """The box behind a name, and its ending, which may be one that no format has. None if there is no such box."""
    stem, dot, ending = name.partition(".")
    axes = geometry.labels
    found = _pattern(tuple(label for _, label in axes)).fullmatch(stem) if dot and len(name) <= _LONGEST else None
    if found is None:
        return None
    start, stop, dropped = [0] * len(geometry.shape), list(geometry.shape), set()
    for (axis, _), low, dash, high in zip(axes, *(found.groups()[i::3] for i in range(3)), strict=True):
        if low is None:
            continue
        start[axis] = int(low)
        if not dash:
            stop[axis] = start[axis] + 1
            dropped.add(axis)
        elif high:
            stop[axis] = int(high)
        if not start[axis] < stop[axis] <= geometry.shape[axis]:
            return None
    return Cut(Box(tuple(start), tuple(stop)), frozenset(dropped), stem), dot + ending


def readme(level: LevelMeta) -> str:
    """The text of ``cutout/README.txt``: the names that files can have."""
    geometry = level.geometry
    space = (geometry.z, geometry.y, geometry.x)
    volume, plane, sizes = [], [], []
    for axis, label in geometry.labels:
        size = geometry.shape[axis]
        sizes.append(f"{label} {size}")
        if axis not in space or axis == geometry.z:
            plane.append(f"{label}{size // 2}")
        if axis in space:
            volume.append(f"{label}0-{min(64, size)}")
            if axis != geometry.z:
                plane.append(f"{label}0-")
    return f"""Any box of this level is a file here, made by naming it; nothing is listed.

    {"_".join(volume)}.npy
    {"_".join(plane)}{geometry.listed_ending("xy")}

An axis and a range: z5-64 is 5 up to and without 64, z5- is 5 to the end, z5 is one plane.
Axes stand in the order below, joined by _; what is left out is taken whole.
Sizes: {", ".join(sizes)}

Volumes: {" ".join(volumes.FORMATS)}
Planes (one of z, y, x of length one): {" ".join((*slices.ENDINGS, jpeg.ENDING))}
"""


def _hidden(cut: Cut, axis: int, shape: Index) -> bool:
    """True if a volume leaves an axis out: it was named by a number, or the level has no more than one of it."""
    return cut.box.shape[axis] == 1 and (axis in cut.dropped or shape[axis] == 1)


def _drops(geometry: SliceGeometry, cut: Cut, ending: str) -> bool:
    """Whether a plane is shown as slices are, where a volume format would do as well."""
    through = cut.dropped & {axis for axis in (geometry.z, geometry.y, geometry.x) if axis is not None}
    return bool(through) and not (ending == ".tif" and geometry.z in through)


def _plane(geometry: SliceGeometry, box: Box) -> PlaneSpec | None:
    """The plane that a box is, if it is one."""
    if any(box.shape[other.axis] != 1 for other in geometry.others):
        return None
    if geometry.z is None:
        return geometry.part("xy", box)
    flat = [name for name, axis in (("z", geometry.z), ("y", geometry.y), ("x", geometry.x)) if box.shape[axis] == 1]
    return geometry.part(_PLANES[flat[0]], box) if len(flat) == 1 else None


@lru_cache(maxsize=64)
def _pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Three groups for each axis: where it starts, a dash, and where it stops."""
    parts = "".join(rf"(?:(?:^|_){label}({_NUMBER})(?:(-)({_NUMBER})?)?)?" for label in labels)
    return re.compile(rf"(?=[^_]){parts}")
