"""Slice files: their names, their orientation, and which format is listed. The one door for the tree.

``SliceGeometry`` says, for the shape and axes of a level, which directories and files its slices have and which plane
each shows; ``layout``, ``render`` and ``decode`` turn a plane and an ending into bytes and back. Directories, inodes,
caching and staging are the tree's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from volfs.model.box import Box, Index
from volfs.model.units import METRES
from volfs.views import npy, png, tiff, tiff_decode
from volfs.views.layout import Layout
from volfs.views.plane import PlaneSpec

PLANES = ("xy", "xz", "yz")
THROUGH = {"xy": "z", "xz": "y", "yz": "x"}
"""The axis that numbers the slices of a plane."""

ENDINGS = (".png", ".tif", ".npy")
"""Endings with a layout: exact size, any range, decodable. ``.jpg`` is rendered instead (see ``views.jpeg``)."""

_LAYOUTS: Mapping[str, ModuleType] = {".png": png, ".tif": tiff, ".npy": npy}
_DECODERS: Mapping[str, ModuleType] = {".png": png, ".tif": tiff_decode, ".npy": npy}
_PLANE_DIGITS = 5
_AXIS_DIGITS = {"t": 4}
_OTHER_DIGITS = 2
_AXIS_NAME = re.compile(r"[A-Za-z][A-Za-z_]*\Z")


def holds(ending: str, dtype: np.dtype[Any], samples: int, columns: int, rows: int) -> bool:
    """Whether slices like this have a file with this ending."""
    if ending == ".png":
        return png.holds(dtype, samples, columns, rows)
    if ending == ".tif":
        return tiff.holds(dtype, samples, columns, rows)
    return ending == ".npy" and npy.holds(dtype)


def layout(ending: str, plane: PlaneSpec) -> Layout | None:
    """The layout of a slice file, or None if the format cannot hold the slice."""
    if not holds(ending, plane.dtype, plane.samples, plane.columns, plane.rows):
        return None
    made: Layout = _LAYOUTS[ending].layout(plane)
    return made


def decode(ending: str, data: bytes | bytearray | memoryview, plane: PlaneSpec) -> np.ndarray:
    """The voxels of ``plane.box``, in the axis order of the level, from the whole bytes of a written slice file.

    :class:`volfs.views.plane.Incomplete` (a BadInput) when the file may still be being written; BadInput, saying what
    was expected and what came, when it never can be this slice.
    """
    voxels: np.ndarray = _DECODERS[ending].decode(data, plane)
    return voxels


@dataclass(frozen=True, slots=True)
class OtherAxis:
    """An axis that becomes a level of directories between the level and its planes: ``t0003``, ``c01``."""

    axis: int
    label: str
    count: int

    @property
    def digits(self) -> int:
        return max(_AXIS_DIGITS.get(self.label, _OTHER_DIGITS), len(str(self.count - 1)))

    def name(self, index: int) -> str:
        return f"{self.label}{index:0{self.digits}}"

    def parse(self, name: str) -> int | None:
        """The index that ``name`` stands for; None unless it is exactly the name of one."""
        return _index(name, self.label, self.digits, self.count)


@dataclass(frozen=True, slots=True)
class SliceGeometry:
    """How the slices of a level lie: from its shape, axes and voxel size. ``y`` and ``x`` are axis numbers, as are
    ``z`` (None for 2-D images) and ``sample`` (the axis of RGB(A) samples, None for gray)."""

    shape: Index
    dtype: np.dtype[Any]
    z: int | None
    y: int
    x: int
    sample: int | None
    others: tuple[OtherAxis, ...]
    scale: tuple[float, ...] | None = None
    units: tuple[str | None, ...] | None = None
    _layouts: dict[tuple[str, str], Layout | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        names: Sequence[str | None],
        shape: Index,
        dtype: np.dtype[Any],
        *,
        scale: Sequence[float] | None = None,
        units: Sequence[str | None] | None = None,
        rgb: bool = False,
    ) -> SliceGeometry | None:
        """The geometry of a level, or None where there are no slices (fewer than two axes, an empty one, a dtype that
        no format has). Axes called z, y and x are those, wherever they stand; where y or x is missing, the last three
        axes (or two, of a 2-D image) are z, y, x in this order."""
        if len(shape) < 2 or 0 in shape or not npy.holds(dtype):
            return None
        known = {name: axis for axis, name in enumerate(names) if name is not None}
        if "y" in known and "x" in known:
            z, y, x = known.get("z"), known["y"], known["x"]
        else:
            y, x = len(shape) - 2, len(shape) - 1
            z = len(shape) - 3 if len(shape) > 2 else None
        sample = known.get("c") if rgb else None
        if sample is not None and (sample in (z, y, x) or shape[sample] > 4):
            sample = None
        others = tuple(
            OtherAxis(axis, _label(axis, names), size)
            for axis, size in enumerate(shape)
            if axis not in (z, y, x, sample)
        )
        return cls(
            tuple(shape),
            dtype.newbyteorder("="),
            z,
            y,
            x,
            sample,
            others,
            tuple(scale) if scale is not None else None,
            tuple(units) if units is not None else None,
        )

    @property
    def labels(self) -> tuple[tuple[int, str], ...]:
        """The axes besides samples, in the order of the level, as files that are made by naming them call them: z, y
        and x, and the others as their directories are, unless they would be taken for those."""
        space = {"z": self.z, "y": self.y, "x": self.x}
        found = {axis: label for label, axis in space.items() if axis is not None}
        for other in self.others:
            found[other.axis] = f"d{other.axis}_" if other.label in space else other.label
        return tuple(sorted(found.items()))

    @property
    def planes(self) -> tuple[str, ...]:
        return PLANES if self.z is not None else PLANES[:1]

    @property
    def samples(self) -> int:
        return 1 if self.sample is None else self.shape[self.sample]

    def through(self, plane: str) -> int | None:
        """The axis that numbers the slices of ``plane``; None for the one slice of a 2-D image."""
        return {"xy": self.z, "xz": self.y, "yz": self.x}[plane]

    def down(self, plane: str) -> int:
        axis = self.y if plane == "xy" else self.z
        assert axis is not None  # a 2-D image has no other plane than xy
        return axis

    def across(self, plane: str) -> int:
        return self.y if plane == "yz" else self.x

    def count(self, plane: str) -> int:
        """How many slices a directory of this plane has."""
        through = self.through(plane)
        return 1 if through is None else self.shape[through]

    def listed_ending(self, plane: str) -> str:
        """The format in which slices of this plane are listed: the first of ENDINGS that holds them."""
        columns, rows = self.shape[self.across(plane)], self.shape[self.down(plane)]
        return next(ending for ending in ENDINGS if holds(ending, self.dtype, self.samples, columns, rows))

    def name(self, plane: str, index: int, ending: str | None = None) -> str:
        """``z00012.png``. Without ``ending``, in the listed format."""
        return f"{THROUGH[plane]}{index:0{self._digits(plane)}}{ending or self.listed_ending(plane)}"

    def parse(self, plane: str, name: str) -> tuple[int, str] | None:
        """Index and ending from a file name. None unless it is exactly the name of a slice of this plane; the ending
        is whatever follows the digits, and may be one that no format has."""
        stem, dot, rest = name.partition(".")
        index = _index(stem, THROUGH[plane], self._digits(plane), self.count(plane))
        return None if index is None or not dot else (index, "." + rest)

    def spec(self, plane: str, index: int, others: Sequence[int] = ()) -> PlaneSpec:
        """The plane behind a name; ``others`` are the indices along ``self.others``, in that order."""
        start, stop = self.start(plane, index, others), list(self.shape)
        for axis in (*(other.axis for other in self.others), self.through(plane)):
            if axis is not None:
                stop[axis] = start[axis] + 1
        return self.part(plane, Box(start, tuple(stop)))

    def start(self, plane: str, index: int, others: Sequence[int] = ()) -> Index:
        """Where the box of that plane begins."""
        start = [0] * len(self.shape)
        for other, at in zip(self.others, others, strict=True):
            start[other.axis] = at
        if (through := self.through(plane)) is not None:
            start[through] = index
        return tuple(start)

    def layout(self, plane: str, ending: str) -> Layout | None:
        """The layout of the first slice of ``plane``, at 0 along all axes that are not the plane's own; None if the
        format cannot hold the slices. That of every other slice is the same, over voxels that are counted from the
        start of its box (:class:`volfs.views.layout.Shifted`). Made once."""
        key = plane, ending
        try:
            return self._layouts[key]
        except KeyError:
            made = self._layouts[key] = layout(ending, self.spec(plane, 0, (0,) * len(self.others)))
            return made

    def part(self, plane: str, box: Box) -> PlaneSpec:
        """A piece of a plane: a box of length one along all axes but the plane's own and the samples."""
        down, across = self.down(plane), self.across(plane)
        shown = (down, across) if self.sample is None else (down, across, self.sample)
        order = (*(axis for axis in range(len(self.shape)) if axis not in shown), *shown)
        pixel, metric = self._pixel(down, across)
        return PlaneSpec(box, order, self.dtype, self.sample is not None, pixel=pixel, metric=metric)

    def _digits(self, plane: str) -> int:
        return max(_PLANE_DIGITS, len(str(self.count(plane) - 1)))

    def _pixel(self, down: int, across: int) -> tuple[tuple[float, float] | None, bool]:
        if self.scale is None or not self.scale[down] or not self.scale[across]:
            return None, False
        sizes = abs(self.scale[down]), abs(self.scale[across])
        names = self.units or (None,) * len(self.shape)
        units = [METRES.get(names[axis] or "") for axis in (down, across)]
        if units[0] is None or units[1] is None:
            return sizes, False
        return (sizes[0] * units[0], sizes[1] * units[1]), True


def _label(axis: int, names: Sequence[str | None]) -> str:
    """The axis's name where it makes a good directory name and no other axis has it, else ``d`` and its number."""
    name = names[axis]
    if name is not None and _AXIS_NAME.match(name) and names.count(name) == 1:
        return name
    return f"d{axis}_"


def _index(text: str, prefix: str, digits: int, count: int) -> int | None:
    number = text.removeprefix(prefix)
    if number == text or len(number) != digits or not (number.isascii() and number.isdigit()):
        return None
    index = int(number)
    return index if index < count else None
