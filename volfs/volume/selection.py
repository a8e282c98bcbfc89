"""Numpy's basic indexing, as boxes.

Decided here: what `level[3, ..., ::-1]` asks for: a box to read, and how to view what was read. Integers (negative ones
too), slices with any step and one ellipsis; no new axes. Lists and masks are :mod:`volfs.volume.index_lists`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from volfs.errors import BadInput
from volfs.model.box import Box, Index


@dataclass(frozen=True, slots=True)
class Selection:
    """The voxels of an index: per axis a range; axes indexed by an integer are dropped at the end."""

    ranges: tuple[range, ...]
    dropped: tuple[int, ...]

    @property
    def shape(self) -> Index:
        """The shape of the result."""
        return tuple(len(r) for i, r in enumerate(self.ranges) if i not in self.dropped)

    @property
    def contiguous(self) -> bool:
        return all(r.step == 1 for r in self.ranges)

    @property
    def box(self) -> Box:
        """The smallest box around all of it."""
        spans = [(min(r[0], r[-1]), max(r[0], r[-1]) + 1) if r else (0, 0) for r in self.ranges]
        return Box(tuple(a for a, _ in spans), tuple(b for _, b in spans))

    @property
    def view(self) -> tuple[slice, ...]:
        """The voxels, seen in what the box holds."""
        return tuple(slice(None, None, r.step) for r in self.ranges)

    @property
    def squeeze(self) -> tuple[Any, ...]:
        """An index that drops the axes to be dropped."""
        return tuple(0 if i in self.dropped else slice(None) for i in range(len(self.ranges)))

    def pieces(self, chunk_shape: Index) -> Iterator[tuple[tuple[slice, ...], Selection]]:
        """Cut along the axis with the longest step, so that a coarse sampling reads one slab of chunks at a time.

        Each piece comes with the place in the (not squeezed) result where it belongs.
        """
        axis = max(range(len(self.ranges)), key=lambda i: abs(self.ranges[i].step), default=0)
        if self.contiguous or not self.ranges[axis]:
            yield tuple(slice(0, len(r)) for r in self.ranges), self
            return
        whole, at = self.ranges[axis], 0
        while at < len(whole):
            slab = whole[at] // chunk_shape[axis]
            stop = at + 1
            while stop < len(whole) and whole[stop] // chunk_shape[axis] == slab:
                stop += 1
            ranges = (*self.ranges[:axis], whole[at:stop], *self.ranges[axis + 1 :])
            place = tuple(slice(at, stop) if i == axis else slice(0, len(r)) for i, r in enumerate(self.ranges))
            yield place, Selection(ranges, self.dropped)
            at = stop


def expanded(key: object, ndim: int) -> list[object]:
    """The parts of an index, one for each axis. IndexError for too many."""
    parts = list(key) if isinstance(key, tuple) else [key]
    ellipses = sum(part is Ellipsis for part in parts)
    if ellipses > 1:
        raise IndexError("an index can have only one ellipsis")
    if len(parts) - ellipses > ndim:
        raise IndexError(f"{len(parts) - ellipses} indices for {ndim} axes")
    if not ellipses:
        parts.append(Ellipsis)
    at = next(i for i, part in enumerate(parts) if part is Ellipsis)
    parts[at : at + 1] = [slice(None)] * (ndim - len(parts) + 1)
    return parts


def select(key: object, shape: Index) -> Selection:
    """What a basic index selects from an array of this shape. IndexError as numpy's for what lies outside."""
    ranges, dropped = [], []
    for axis, (part, size) in enumerate(zip(expanded(key, len(shape)), shape, strict=True)):
        if isinstance(part, slice):
            ranges.append(range(*part.indices(size)))
            continue
        if isinstance(part, bool) or part is None:
            raise BadInput("levels take integers, slices, lists and masks; read a box first and index that")
        try:
            index = operator.index(part)  # type: ignore[arg-type]
        except TypeError:
            raise BadInput(f"levels take integers, slices, lists and masks, not {type(part).__name__}") from None
        if not -size <= index < size:
            raise IndexError(f"index {index} is out of bounds for axis {axis} with size {size}")
        ranges.append(range(index % size, index % size + 1))
        dropped.append(axis)
    return Selection(tuple(ranges), tuple(dropped))
