"""Images for formats that know nothing but x, y, z: which voxels, which blocks, which sizes.

N5 as BigDataViewer lays it out, and precomputed, hold volumes of three axes in files of one block each, x fastest.
Decided here: which levels they can show, where their voxels lie in space, and which voxels of an nD array a block of
such a volume is. Everything that is said of space here is in the order x, y, z; where there is no z, it has one voxel
of size 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from volfs.model.box import Box, Index
from volfs.model.units import METRES
from volfs.views.folder import ArrayView, Folder, ImageView, LevelView, Run, Stored, listed
from volfs.views.slices import OtherAxis

Vector = tuple[float, float, float]


def time_axis(image: ImageView) -> int | None:
    """The axis of time, if there is one besides those of space."""
    taken = (image.z, image.y, image.x, image.sample)
    found = [n for n, axis in enumerate(image.axes) if n not in taken and (axis.type == "time" or axis.name == "t")]
    return next((n for n in found if image.axes[n].name == "t"), found[0] if found else None)


def other_axes(image: ImageView) -> tuple[int, ...]:
    """All axes besides those of space and time, samples of colour among them, in the order of the image."""
    taken = (image.z, image.y, image.x, time_axis(image))
    return tuple(n for n in range(len(image.axes)) if n not in taken)


def shown_levels(image: ImageView) -> tuple[LevelView, ...]:
    """The levels that differ from s0 in nothing but the size of their voxels; none where s0 cannot be shown."""
    first = image.levels[0].array
    if not first.readable or 0 in first.shape:
        return ()
    space = (image.z, image.y, image.x)
    rest = [n for n in range(len(image.axes)) if n not in space]
    return tuple(
        level
        for level in image.levels
        if level.array.readable
        and level.array.dtype == first.dtype
        and len(level.shape) == len(first.shape)
        and 0 not in level.shape
        and all(level.shape[n] == first.shape[n] for n in rest)
    )


@dataclass(frozen=True, slots=True)
class Space:
    """Where levels lie: voxel size and centre of the first voxel of each, in ``unit``, as OME-NGFF calls it.

    The unit is None where it is not known; sizes are then no more than ratios. Axes in different units of length have
    them all in that of x.
    """

    sizes: tuple[Vector, ...]
    origins: tuple[Vector, ...]
    unit: str | None

    @classmethod
    def of(cls, image: ImageView, levels: Sequence[LevelView]) -> Space:
        axes = (image.x, image.y, image.z)
        units = [image.axes[n].unit for n in axes if n is not None]
        same, metric = len(set(units)) == 1, all(unit in METRES for unit in units)
        comparable = (same or metric) and all(
            _is_size(abs(level.scale[n])) for level in levels for n in axes if n is not None
        )

        def parts(level: LevelView, axis: int | None) -> tuple[float, float]:
            if axis is None:
                return 1.0, 0.0
            size, origin = abs(level.scale[axis]), level.translation[axis]
            if not comparable:  # nothing is known but how the levels relate
                return levels[0].shape[axis] / level.shape[axis], 0.0
            unit = image.axes[axis].unit
            factor = 1.0 if same else METRES[unit or ""] / METRES[units[0] or ""]
            return scaled(size, factor), scaled(origin, factor) if math.isfinite(origin) else 0.0

        found = [[parts(level, axis) for axis in axes] for level in levels]
        sizes, origins = ([_vector(pair[n] for pair in row) for row in found] for n in (0, 1))
        return cls(tuple(sizes), tuple(origins), units[0] if comparable else None)

    def factors(self, level: int) -> Vector:
        """How many voxels of the finest level make one of this: whole numbers, if but for rounding they would be."""
        return _vector(_whole(here / first) for here, first in zip(self.sizes[level], self.sizes[0], strict=True))


def scaled(value: float, factor: float) -> float:
    """A product of decimal numbers, without the noise of binary ones in its last digit."""
    return value if factor == 1.0 else float(f"{value * factor:.15g}")


def plain(value: float) -> int | float:
    """A number as people write it: 4 instead of 4.0."""
    return int(value) if value == int(value) and abs(value) < 2**53 else value


def _is_size(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _whole(value: float) -> float:
    near = round(value)
    return float(near) if near > 0 and abs(value - near) < 1e-6 * near else float(f"{value:.12g}")


def _vector(values: Iterable[float]) -> Vector:
    x, y, z = values
    return x, y, z


@dataclass(frozen=True)
class Volume:
    """A volume of three axes in an nD array: along some other axes at one index each (``fixed``), along the rest whole,
    one after the other: the channels.

    ``space`` are the axes called x, y, z. Blocks are counted from 0 along x, y, z, and are those of the array: each has
    the part of the volume in such a block, with all channels.
    """

    array: ArrayView
    space: tuple[int, int, int | None]
    #: All other axes, slowest first.
    others: tuple[int, ...]
    fixed: Mapping[int, int]

    @property
    def size(self) -> Index:
        return self._spatial(self.array.shape)

    @property
    def block_shape(self) -> Index:
        return self._spatial(self.array.block_shape)

    @cached_property
    def grid(self) -> Index:
        """How many blocks there are."""
        return tuple(-(-n // b) for n, b in zip(self.size, self.block_shape, strict=True))

    @property
    def channels(self) -> int:
        return math.prod(self.array.shape[axis] for axis in self.others if axis not in self.fixed)

    @property
    def order(self) -> Index:
        """All axes of the array as they lie in a file, slowest first."""
        return (*self.others, *(axis for axis in reversed(self.space) if axis is not None))

    @property
    def sparse(self) -> bool:
        """Whether a block that is not stored is zero."""
        return not self.array.meta.fill_value.tobytes().strip(b"\0")

    def box(self, block: Index) -> Box:
        """The voxels of a block."""
        start = tuple(i * b for i, b in zip(block, self.block_shape, strict=True))
        stop = tuple(min(a + b, n) for a, b, n in zip(start, self.block_shape, self.size, strict=True))
        return self._box(start, stop, self.array.shape)

    def stored_as(self, block: Index) -> Index | None:
        """The block of the array that holds these voxels and nothing else, in this order; None if there is no such."""
        shape, order = self.array.block_shape, self.order[len(self.others) :]
        if any(shape[axis] != 1 or axis not in self.fixed for axis in self.others) or list(order) != sorted(order):
            return None
        return self.blocks(Box(block, tuple(i + 1 for i in block))).start

    def stored_along(self, axis: int, blocks: Box) -> Sequence[int]:
        """Indices along x, y or z (0, 1, 2) at which a block of a range is stored, ascending."""
        place = self.space[axis]
        found = self.array.stored_along(0 if place is None else place, self.blocks(blocks))
        return found if place is not None else [0] if found else []

    def is_stored(self, block: Index) -> bool:
        return bool(self.stored_along(0, Box(block, tuple(i + 1 for i in block))))

    def voxels(self, data: np.ndarray, shape: Index) -> np.ndarray:
        """Voxels as they lie in a file, of a box of this shape of the array, in the axis order of the array."""
        return data.reshape(tuple(shape[axis] for axis in self.order)).transpose(np.argsort(self.order))

    def _spatial(self, values: Index) -> Index:
        return tuple(1 if axis is None else values[axis] for axis in self.space)

    def blocks(self, blocks: Box) -> Box:
        """The blocks of the array that a range of blocks of the volume lies in."""
        shape = self.array.block_shape
        grid = tuple(-(-n // b) for n, b in zip(self.array.shape, shape, strict=True))
        found = self._box(blocks.start, blocks.stop, grid)
        start, stop = list(found.start), list(found.stop)
        for axis, index in self.fixed.items():
            start[axis] = index // shape[axis]
            stop[axis] = start[axis] + 1
        return Box(tuple(start), tuple(stop))

    def _box(self, first: Index, last: Index, whole: Index) -> Box:
        start, stop = [0] * len(whole), list(whole)
        for axis, index in self.fixed.items():
            start[axis], stop[axis] = index, index + 1
        for place, a, b in zip(self.space, first, last, strict=True):
            if place is not None:
                start[place], stop[place] = a, b
        return Box(tuple(start), tuple(stop))


def stored_positions(array: ArrayView, axes: Sequence[int], fixed: Mapping[int, int]) -> Stored:
    """At which indices of voxels along some axes anything is stored; ``fixed``: indices along others."""
    shape, block = array.shape, array.block_shape

    def stored(axis: int, box: Box) -> Iterator[int]:
        start, stop = [0] * len(shape), [-(-n // b) for n, b in zip(shape, block, strict=True)]
        for at, index in fixed.items():
            start[at], stop[at] = index // block[at], index // block[at] + 1
        for at, first, last in zip(axes, box.start, box.stop, strict=True):
            start[at], stop[at] = first // block[at], -(-last // block[at])
        size = block[axes[axis]]
        for index in array.stored_along(axes[axis], Box(tuple(start), tuple(stop))):
            yield from range(max(index * size, box.start[axis]), min((index + 1) * size, box.stop[axis]))

    return stored


def volume_of(image: ImageView, array: ArrayView, fixed: Mapping[int, int]) -> Volume:
    """The volume of an image's level at some indices of axes besides x, y, z; the rest are its channels."""
    time = time_axis(image)
    others = (*(() if time is None else (time,)), *other_axes(image))
    return Volume(array, (image.x, image.y, image.z), others, fixed)


class AxisFolders(Run):
    """A directory for each index of an axis, called like those of slices: ``t0003``."""

    folders = True

    def __init__(self, axis: OtherAxis, make: Callable[[int], Folder], stored: Stored) -> None:
        self.count = axis.count
        self._axis = axis
        self._make = make
        self._stored = stored

    def following(self, start: int) -> Iterator[int]:
        return listed((self.count,), start, self._stored)

    def name(self, index: int) -> str:
        return self._axis.name(index)

    def index(self, name: str) -> int | None:
        return self._axis.parse(name)

    def make(self, index: int) -> Folder:
        return self._make(index)
