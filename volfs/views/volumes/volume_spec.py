"""From the metadata of a level to the :class:`VolumeSpec` of a volume file: of the whole level, of one time point or
channel, or of a box.

Decided here: which axes a file shows and in which order, where its first voxel lies, its orientation, and the names of
its channels. Not here: which formats hold such a volume (:mod:`volfs.views.volumes`), what the names of cutouts mean
(:mod:`volfs.views.cutout`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from volfs.model.box import Box
from volfs.model.facts import rescale_of, source_of
from volfs.model.ngff import Axis
from volfs.model.units import METRES
from volfs.views import omero
from volfs.views.slices import SliceGeometry
from volfs.views.volume import Affine, OuterAxis, ShownAxis, VolumeSpec

_MILLIMETRE = 1e-3
_SAME = 1e-3
"""Voxel sizes that differ by less than this part are the same, written with fewer digits."""

_SIDES = {
    "ras": (1.0, 1.0),
    "las": (-1.0, 1.0),
    "lps": (-1.0, -1.0),
    "right-anterior-superior": (1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0),
}
"""The signs that take x and y of a named world to those of NIfTI's, which is right-anterior-superior."""
_WORLDS = {"nrrd": "lps", "metaimage": "lps", "dicom": "lps"}
"""The world of formats that name another one or none: as ITK takes them."""


@dataclass(frozen=True, slots=True)
class LevelMeta:
    """The metadata of a level, as format modules need it.

    ``geometry`` has its shape and dtype and says which axes are z, y, x and samples; ``axes``, ``scale`` and
    ``translation`` (voxel size and centre of voxel 0) are as in OME-NGFF, in the order of the array.
    ``finest_scale`` and ``finest_translation`` are those of s0, by default the level's own. ``attributes`` are those of
    the image's group, ``title`` is the image's name.
    """

    geometry: SliceGeometry
    axes: tuple[Axis, ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    finest_scale: tuple[float, ...] | None = None
    finest_translation: tuple[float, ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    is_label: bool = False
    title: str = ""


def whole(level: LevelMeta, fixed: Sequence[int] = (), stem: str = "volume") -> VolumeSpec:
    """The volume file of a level's own directory, with all axes; or, with the indices of its first axes besides z, y,
    x, of the directory ``t0003/``, ``t0003/c01/``, where these axes are left out."""
    geometry = level.geometry
    start, stop = [0] * len(geometry.shape), list(geometry.shape)
    hidden = []
    for other, index in zip(geometry.others, fixed, strict=False):
        start[other.axis], stop[other.axis] = index, index + 1
        hidden.append(other.axis)
    return part(level, Box(tuple(start), tuple(stop)), hidden, stem)


def part(level: LevelMeta, box: Box, hidden: Collection[int] = (), stem: str = "volume") -> VolumeSpec:
    """The volume file of a box. ``hidden`` are axes besides z, y, x and samples, of length one in the box, that the
    file does not show."""
    geometry = level.geometry
    axes = [
        _shown(level, box, other.axis, other.label, _kind(level.axes[other.axis]))
        for other in geometry.others
        if other.axis not in hidden
    ]
    space = [axis for axis in (geometry.z, geometry.y, geometry.x) if axis is not None]
    axes += [_shown(level, box, axis, level.axes[axis].name, "space") for axis in space]
    if geometry.sample is not None:
        axes.append(_shown(level, box, geometry.sample, level.axes[geometry.sample].name, "channel"))
    first, step = _in_finest(level, box)
    return VolumeSpec(
        box,
        geometry.dtype,
        tuple(axes),
        has_samples=geometry.sample is not None,
        is_label=level.is_label,
        stem=stem,
        title=level.title,
        channels=_channels(level, box),
        colours=_colours(level, box),
        affine=_affine(level, first, step),
        rescale=rescale_of(level.attributes),
        facts=source_of(level.attributes),
        first=first,
        step=step,
        complete=step == (1.0, 1.0, 1.0) and box == Box.whole(geometry.shape),
        outer=tuple(
            OuterAxis(o.label, _kind(level.axes[o.axis]), o.count, box.start[o.axis], box.stop[o.axis])
            for o in geometry.others
        ),
    )


def _shown(level: LevelMeta, box: Box, axis: int, name: str, kind: str | None) -> ShownAxis:
    scale, size = level.scale[axis], box.shape[axis]
    if not (math.isfinite(scale) and scale):  # not a voxel size: nothing is known
        return ShownAxis(axis, name, kind, size)
    origin = level.translation[axis] + box.start[axis] * scale
    return ShownAxis(axis, name, kind, size, abs(scale), origin, level.axes[axis].unit, -1 if scale < 0 else 1)


Triple = tuple[float, float, float]


def _in_finest(level: LevelMeta, box: Box) -> tuple[Triple, Triple]:
    """The place of the first voxel of a box, and the distance to the next, in voxels of s0: x, y, z."""
    geometry = level.geometry
    base_scale = level.finest_scale or level.scale
    base_translation = level.finest_translation or level.translation
    first, step = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    for at, axis in enumerate((geometry.x, geometry.y, geometry.z)):
        if axis is None:
            continue
        by = level.scale[axis] / base_scale[axis] if base_scale[axis] else math.nan
        shift = (level.translation[axis] - base_translation[axis]) / base_scale[axis] if base_scale[axis] else math.nan
        if not (math.isfinite(by) and math.isfinite(shift) and by > 0):
            by, shift = 1.0, 0.0
        step[at], first[at] = by, box.start[axis] * by + shift
    return (first[0], first[1], first[2]), (step[0], step[1], step[2])


def _kind(axis: Axis) -> str | None:
    """The kind of an axis besides z, y, x: never space, to formats, even if the image calls it so."""
    return None if axis.type == "space" else axis.type


def _channels(level: LevelMeta, box: Box) -> tuple[str, ...]:
    """The names of the channels in the box, if each has one."""
    axis = _channel_axis(level)
    if axis is None:
        return ()
    named = omero.labels(level.attributes)[box.start[axis] : box.stop[axis]]
    names = tuple(name for name in named if name is not None)
    return names if len(names) == box.shape[axis] else ()


def _colours(level: LevelMeta, box: Box) -> tuple[str | None, ...]:
    """The colours of the channels in the box."""
    axis = _channel_axis(level)
    return () if axis is None else omero.colours(level.attributes)[box.start[axis] : box.stop[axis]]


def _channel_axis(level: LevelMeta) -> int | None:
    others = level.geometry.others
    return next((o.axis for o in others if level.axes[o.axis].type == "channel" or o.label == "c"), None)


def _affine(level: LevelMeta, first: Triple, step: Triple) -> Affine | None:
    """The orientation that the image came with, for the voxels of a box of this level.

    It is kept as a 4 x 4 matrix from (x, y, z, 1), in voxels of s0, to the unit of the axes (``volfs.source``, written
    by imports). Where its voxel size is not the image's, which may have been set by hand, the image's counts.
    """
    matrix = _source_affine(level.attributes, flat=level.geometry.z is None)
    geometry = level.geometry
    axes = [axis for axis in (geometry.x, geometry.y, geometry.z) if axis is not None]
    base_scale = level.finest_scale or level.scale
    sizes = [abs(scale[axis]) for axis in axes for scale in (base_scale, level.scale)]
    if matrix is None or not all(size > 0 and math.isfinite(size) for size in sizes):
        return None
    unit = METRES.get(level.axes[geometry.x].unit or "", _MILLIMETRE) / _MILLIMETRE
    for at, axis in enumerate(axes):
        length = float(np.linalg.norm(matrix[:3, at]))
        if length <= 0:
            return None
        wanted = abs(base_scale[axis]) * METRES.get(level.axes[axis].unit or "", _MILLIMETRE) / _MILLIMETRE / unit
        if abs(length - wanted) > _SAME * wanted:
            matrix[:3, at] *= wanted / length
    to_finest = np.diag((*step, 1.0))
    to_finest[:3, 3] = first
    made = (matrix @ to_finest)[:3] * unit
    if not np.isfinite(made).all() or np.linalg.matrix_rank(made[:, :3]) < 3:
        return None
    one, two, three = ((float(a), float(b), float(c), float(d)) for a, b, c, d in made)
    return one, two, three


def _source_affine(attributes: Mapping[str, Any], *, flat: bool) -> np.ndarray | None:
    """The matrix of the file that was imported, in NIfTI's world: of x, y and z, where it has time and others too."""
    source = source_of(attributes)
    rows = source.get("affine")
    if source.get("format") == "nifti" and not (source.get("qform_code", 1) or source.get("sform_code", 1)):
        return None  # the value that nibabel makes up where a file has none
    try:
        matrix = np.array(rows, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if flat and matrix.shape == (3, 3) and not matrix[2, :2].any():  # of a plane in a world of two dimensions
        plane, matrix = matrix, np.eye(4)
        matrix[np.ix_((0, 1), (0, 1, 3))] = plane[:2]
    if matrix.ndim != 2 or len(matrix) < 4 or len(set(matrix.shape)) > 1 or not np.isfinite(matrix).all():
        return None
    if matrix[:3, 3:-1].any() or matrix[3:, :3].any():  # x, y, z are mixed with another axis
        return None
    matrix = matrix[np.ix_((0, 1, 2, -1), (0, 1, 2, -1))]
    world = str(source.get("space", "")).lower().removesuffix("-time").removesuffix("t")
    sides = _SIDES.get(world) or _SIDES[_WORLDS.get(str(source.get("format")), "ras")]
    return np.diag((*sides, 1.0, 1.0)) @ matrix
