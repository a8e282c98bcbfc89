"""Boxes: half-open n-dimensional regions of voxels or of chunk coordinates.

Decided here: what a region is and how regions combine. Not here: what the coordinates count (voxels of a level, chunks
of a grid, cells of a shard), which the caller knows; grids are in :mod:`volfs.model.grid`. Axis order is always the
array's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from operator import le, sub

Index = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """The points p with ``start[i] <= p[i] < stop[i]`` on every axis i. Empty as soon as one axis is."""

    start: Index
    stop: Index

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Box:
        """The box of a whole array of this shape."""
        return cls((0,) * len(shape), tuple(shape))

    @property
    def ndim(self) -> int:
        return len(self.start)

    @property
    def shape(self) -> Index:
        shape = tuple(map(sub, self.stop, self.start))
        return shape if min(shape, default=0) >= 0 else tuple(max(0, n) for n in shape)

    @property
    def size(self) -> int:
        """How many points are inside."""
        return prod(self.shape)

    @property
    def empty(self) -> bool:
        return any(map(le, self.stop, self.start))

    def intersect(self, other: Box) -> Box:
        """The points in both. Where they do not meet, the axis comes out with stop == start."""
        start = tuple(map(max, self.start, other.start))
        stop = tuple(map(max, start, map(min, self.stop, other.stop)))
        return Box(start, stop)

    def contains(self, other: Box) -> bool:
        """Whether every point of ``other`` is in this box (an empty box is in any)."""
        return (all(map(le, self.start, other.start)) and all(map(le, other.stop, self.stop))) or other.empty

    def hull(self, other: Box) -> Box:
        """The smallest box around both. An empty box adds nothing."""
        if other.empty:
            return self
        if self.empty:
            return other
        return Box(tuple(map(min, self.start, other.start)), tuple(map(max, self.stop, other.stop)))

    def shift(self, by: Sequence[int]) -> Box:
        """The box moved by an offset per axis."""
        return Box(
            tuple(a + d for a, d in zip(self.start, by, strict=True)),
            tuple(b + d for b, d in zip(self.stop, by, strict=True)),
        )

    def relative_to(self, origin: Sequence[int]) -> Box:
        """The same points, counted from ``origin``."""
        return Box(
            tuple(a - o for a, o in zip(self.start, origin, strict=True)),
            tuple(b - o for b, o in zip(self.stop, origin, strict=True)),
        )

    def slices(self) -> tuple[slice, ...]:
        """Basic-indexing slices for numpy. The box must not reach below zero, where numpy counts from the end."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def __str__(self) -> str:
        return "[" + ", ".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True)) + "]"
