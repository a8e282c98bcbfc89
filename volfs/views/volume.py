"""The content of one volume file: a box of an nD level, its axes, and where they lie in space.

``volume.nii`` of a level, ``t0003/volume.nrrd``, and ``cutout/z0-64.tif`` are all a :class:`VolumeSpec` and a format.
Which formats there are, and which name stands for which, is decided in :mod:`volfs.views.volumes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from volfs.model.box import Box, Index
from volfs.model.facts import Rescale
from volfs.model.units import METRES, SECONDS
from volfs.views.layout import Layout

Affine = tuple[tuple[float, float, float, float], ...]
"""Three rows: from (x, y, z, 1), counted in voxels of the box, to millimetres right, anterior and superior: NIfTI's."""


@dataclass(frozen=True, slots=True)
class ShownAxis:
    """One axis of a volume file.

    ``axis`` is its number in the level; ``kind`` is "space", "time", "channel" or None, as in OME-NGFF. ``scale`` is
    the voxel size and ``origin`` the position of the centre of the first voxel *of the box*, both in ``unit``
    (an OME-NGFF name such as "nanometer"; None where it is not known, then they are 1 and 0 or mere ratios).
    ``direction`` is -1 where positions fall from voxel to voxel.
    """

    axis: int
    name: str
    kind: str | None
    size: int
    scale: float = 1.0
    origin: float = 0.0
    unit: str | None = None
    direction: int = 1

    def scale_in(self, unit: float) -> float | None:
        """The voxel size in a unit given in metres (or seconds, for time); None where the axis's own is not known."""
        known = (SECONDS if self.kind == "time" else METRES).get(self.unit or "")
        return None if known is None else self.scale * known / unit

    def origin_in(self, unit: float) -> float | None:
        """The position of the first voxel in such a unit."""
        known = (SECONDS if self.kind == "time" else METRES).get(self.unit or "")
        return None if known is None else self.origin * known / unit


@dataclass(frozen=True, slots=True)
class OuterAxis:
    """An axis of the level besides z, y, x and samples, whether the file shows it or not, and which of its indices are
    in the box."""

    name: str
    kind: str | None
    size: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A volume file, whatever its format.

    ``axes`` are those that the file shows, slowest first: first those besides z, y, x (in the order of the level), then
    z, y and x as far as there are such, last, with ``has_samples``, the axis of the red, green, blue (and alpha) of a
    pixel. All other axes have length one in ``box``, which is a box of the level. ``dtype`` is in native byte order.
    ``stem`` is the file's name without ending, for formats of two files. ``title`` is the image's name. ``channels``
    are names of the channels shown, where all of them have one, ``colours`` theirs, as RRGGBB. ``affine`` is given
    where the image came with an orientation that voxel sizes alone do not tell. ``rescale`` takes stored values to real
    ones. ``facts`` are what the image's source said (:mod:`volfs.model.facts`); those that count voxels count those of
    s0, of which ``first`` is the place of the first one here, and ``step`` the distance to the next, along x, y and z.
    ``outer`` are the axes of the level besides these, in its order; ``complete`` says that this is all of s0.
    """

    box: Box
    dtype: np.dtype[Any]
    axes: tuple[ShownAxis, ...]
    has_samples: bool = False
    is_label: bool = False
    stem: str = "volume"
    title: str = ""
    channels: tuple[str, ...] = ()
    colours: tuple[str | None, ...] = ()
    affine: Affine | None = None
    rescale: Rescale | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    first: tuple[float, float, float] = (0.0, 0.0, 0.0)
    step: tuple[float, float, float] = (1.0, 1.0, 1.0)
    outer: tuple[OuterAxis, ...] = ()
    complete: bool = True

    @property
    def shape(self) -> Index:
        """The sizes of ``axes``."""
        return tuple(axis.size for axis in self.axes)

    @property
    def order(self) -> Index:
        """All axes of the level, those that are not shown first: what :class:`~volfs.views.layout.Voxels` wants for a
        file whose voxels lie in the order of ``axes``."""
        return self.order_of(self.axes)

    def order_of(self, axes: Sequence[ShownAxis]) -> Index:
        """The same for any other order of the shown axes."""
        shown = tuple(axis.axis for axis in axes)
        return (*(axis for axis in range(self.box.ndim) if axis not in shown), *shown)

    @property
    def others(self) -> tuple[ShownAxis, ...]:
        """The axes besides z, y, x and samples."""
        return self.axes[: len(self.axes) - len(self.space) - self.has_samples]

    @property
    def space(self) -> tuple[ShownAxis, ...]:
        """z, y, x in this order, or y, x of a plane, whatever the image calls them."""
        end = len(self.axes) - self.has_samples
        return tuple(axis for axis in self.axes[max(0, end - 3) : end] if axis.kind == "space")

    @property
    def whole(self) -> bool:
        """Whether no axis besides z, y, x and samples is cut."""
        return all(axis.stop - axis.start == axis.size for axis in self.outer)

    @property
    def finest(self) -> bool:
        """Whether these are voxels of s0."""
        return self.step == (1.0, 1.0, 1.0)

    @property
    def to_finest(self) -> np.ndarray:
        """From (x, y, z, 1) in voxels of the box to those of s0."""
        made = np.diag((*self.step, 1.0))
        made[:3, 3] = self.first
        return made

    @property
    def samples(self) -> int:
        return self.axes[-1].size if self.has_samples else 1

    def other(self, name: str) -> ShownAxis | None:
        """The shown axis of that name besides z, y, x and samples."""
        return next((axis for axis in self.others if axis.name == name), None)


@dataclass(frozen=True, slots=True)
class VolumeFormat:
    """A format of volume files. ``ending`` begins with a dot; ``number`` takes part in inodes and never changes.

    ``holds`` says whether the format can tell every voxel, and every size, of such a volume; only then ``layout`` is
    called. Neither reads voxels, and both cost little: they are called for every ``ls``.
    """

    ending: str
    number: int
    holds: Callable[[VolumeSpec], bool]
    layout: Callable[[VolumeSpec], Layout]
