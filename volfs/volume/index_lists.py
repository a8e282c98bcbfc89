"""Indexing by lists, arrays and masks, as pieces: which box each is cut from, and where in the result it belongs.

Decided here: what `level[[0, 3]]`, `level.oindex[…]` and `level.vindex[…]` select, by the rules of zarr-python 3; and
that no box is read over chunks that nothing was selected of. Integers and slices alone are
:mod:`volfs.volume.selection`.

- **Orthogonal**: each axis is indexed for itself, by an integer, a slice, a list or a mask of the axis' length, and the
  result is their product.
- **By points**: lists of coordinates, one for each axis, are broadcast against each other, and each position of the
  result is one voxel. A mask of the level's shape stands for the coordinates where it is true.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from volfs.errors import BadInput
from volfs.model.box import Box, Index
from volfs.volume.selection import Selection, expanded, select

Indices = npt.NDArray[np.intp]
Part = slice | Indices


class Piece(NamedTuple):
    """`result[place]` is `box[within]`. Both index arrays in full: of each axis, or of each point."""

    place: tuple[Any, ...]
    box: Box
    within: tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Orthogonal:
    """The product of the indices along each axis. Axes indexed by an integer are dropped at the end."""

    indices: tuple[Indices, ...]
    dropped: tuple[int, ...]

    @property
    def full_shape(self) -> Index:
        """The shape before axes are dropped."""
        return tuple(len(indices) for indices in self.indices)

    @property
    def shape(self) -> Index:
        """The shape of the result."""
        return tuple(len(indices) for axis, indices in enumerate(self.indices) if axis not in self.dropped)

    def pieces(self, chunk_shape: Index) -> Iterator[Piece]:
        """One axis, the one that crosses most chunks, is cut into its layers of chunks; others where they leave out
        chunks."""
        if any(len(indices) == 0 for indices in self.indices):
            return
        crossed = [
            0 if _is_run(indices) else len(np.unique(indices // chunk))
            for indices, chunk in zip(self.indices, chunk_shape, strict=True)
        ]
        longest = max(range(len(crossed)), key=crossed.__getitem__)
        groups = [
            list(_groups(indices, chunk, gap=0 if axis == longest and crossed[axis] else 1))
            for axis, (indices, chunk) in enumerate(zip(self.indices, chunk_shape, strict=True))
        ]
        for at in np.ndindex(*map(len, groups)):
            chosen = [group[i] for group, i in zip(groups, at, strict=True)]
            box = Box(tuple(c.start for c in chosen), tuple(c.stop for c in chosen))
            yield Piece(_product([c.place for c in chosen]), box, _product([c.within for c in chosen]))


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Voxels one by one, by their coordinates along each axis."""

    coordinates: tuple[Indices, ...]
    shape: Index

    dropped: tuple[int, ...] = ()

    @property
    def full_shape(self) -> Index:
        """Points are gathered in a row."""
        return (len(self.coordinates[0]),)

    def pieces(self, chunk_shape: Index) -> Iterator[Piece]:
        """The points chunk by chunk, those of one in the order in which they were given."""
        if not len(self.coordinates[0]):
            return
        chunks = np.stack([c // n for c, n in zip(self.coordinates, chunk_shape, strict=True)])
        order = np.lexsort(chunks[::-1])
        ordered = chunks[:, order]
        starts = np.flatnonzero((ordered[:, 1:] != ordered[:, :-1]).any(axis=0)) + 1
        for place in np.split(order, starts):
            found = [c[place] for c in self.coordinates]
            start = tuple(int(c.min()) for c in found)
            stop = tuple(int(c.max()) + 1 for c in found)
            yield Piece((place,), Box(start, stop), tuple(c - a for c, a in zip(found, start, strict=True)))


def select_any(key: object, shape: Index) -> Selection | Orthogonal | Points:
    """What an index with or without lists selects: numpy's basic indexing, one list as orthogonal, a list for each axis
    or a mask of the level's shape as points.

    IndexError for what lies outside and for what could mean more than one thing, BadInput for what is no index.
    """
    if isinstance(key, np.ndarray) and key.dtype == np.bool_ and key.ndim == len(shape) > 1:
        return select_points(key, shape)
    parts = key if isinstance(key, tuple) else (key,)
    lists = [part for part in parts if _is_list(part)]
    if not lists:
        return select(key, shape)
    numbers = [not _is_list(part) or np.asarray(part).dtype != np.bool_ for part in parts]
    if len(parts) == len(shape) and not any(isinstance(p, slice) or p is Ellipsis for p in parts) and all(numbers):
        return select_points(key, shape)
    if len(lists) == 1 or len(lists) == len(parts) == len(shape):
        return select_orthogonal(key, shape)
    raise IndexError("several lists beside slices or integers can mean two things: say level.oindex or level.vindex")


def select_orthogonal(key: object, shape: Index) -> Orthogonal:
    """What `level.oindex[key]` selects."""
    indices, dropped = [], []
    for axis, (part, size) in enumerate(zip(expanded(key, len(shape)), shape, strict=True)):
        if _is_list(part):
            indices.append(_along(part, axis, size))
            continue
        one = select(part, (size,))
        indices.append(np.asarray(one.ranges[0], np.intp))
        if one.dropped:
            dropped.append(axis)
    return Orthogonal(tuple(indices), tuple(dropped))


def select_points(key: object, shape: Index) -> Points:
    """What `level.vindex[key]` selects."""
    if not isinstance(key, tuple) and np.asarray(key).dtype == np.bool_:
        mask = np.asarray(key)
        if mask.shape != shape:
            raise IndexError(f"a mask of shape {mask.shape} does not fit a level of shape {shape}")
        found = tuple(np.nonzero(mask))
        return Points(found, (len(found[0]),))
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) != len(shape) or any(isinstance(part, slice) or part is Ellipsis for part in parts):
        raise IndexError(f"points have a list of coordinates for each of the {len(shape)} axes, or come as one mask")
    arrays = [_integers(part, axis, size) for axis, (part, size) in enumerate(zip(parts, shape, strict=True))]
    try:
        together = np.broadcast_arrays(*arrays)
    except ValueError:
        raise IndexError(f"lists of coordinates have the shapes {[a.shape for a in arrays]}") from None
    return Points(tuple(array.ravel() for array in together), together[0].shape)


# -- inside -------------------------------------------------------------------------------------------------------


class _Group(NamedTuple):
    place: Part
    start: int
    stop: int
    within: Part


def _groups(indices: Indices, chunk: int, *, gap: int) -> Iterator[_Group]:
    """Cut the indices along one axis between chunks that lie more than `gap` apart."""
    if _is_run(indices):
        start, stop = int(indices[0]), int(indices[-1]) + 1
        yield _Group(slice(0, len(indices)), start, stop, slice(0, len(indices)))
        return
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    cuts = np.flatnonzero(np.diff(ordered // chunk) > gap) + 1
    for place, found in zip(np.split(order, cuts), np.split(ordered, cuts), strict=True):
        start = int(found[0])
        yield _Group(place, start, int(found[-1]) + 1, found - start)


def _is_run(indices: Indices) -> bool:
    """Whether indices follow each other, ascending by one."""
    return bool(len(indices) and indices[-1] - indices[0] == len(indices) - 1 and (np.diff(indices) == 1).all())


def _product(parts: Sequence[Part]) -> tuple[Any, ...]:
    """An index of numpy's that takes the product of what each axis has."""
    if sum(not isinstance(part, slice) for part in parts) < 2:
        return tuple(parts)
    return np.ix_(*(np.arange(part.start, part.stop) if isinstance(part, slice) else part for part in parts))


def _is_list(part: object) -> bool:
    return isinstance(part, list | range) or (isinstance(part, np.ndarray) and part.ndim > 0)


def _along(part: object, axis: int, size: int) -> Indices:
    """The indices that a list or a mask selects along one axis."""
    array = np.asarray(part)
    if array.ndim != 1:
        raise IndexError(f"axis {axis} is indexed by an array of {array.ndim} axes: one is needed")
    if array.dtype == np.bool_:
        if len(array) != size:
            raise IndexError(f"a mask of {len(array)} does not fit axis {axis} with size {size}")
        return np.flatnonzero(array)
    return _integers(part, axis, size)


def _integers(part: object, axis: int, size: int) -> Indices:
    """Coordinates along one axis, counted from its beginning."""
    if not _is_list(part):
        try:
            array = np.asarray(operator.index(part))  # type: ignore[arg-type]
        except TypeError:
            raise BadInput(f"levels take integers, slices, lists and masks, not {type(part).__name__}") from None
    else:
        array = np.asarray(part)
        if not array.size:
            array = array.astype(np.intp)
    if array.dtype.kind not in "iu":
        raise IndexError(f"axis {axis} is indexed by {array.dtype}: integers are needed")
    if array.size and not (-size <= int(array.min()) and int(array.max()) < size):
        raise IndexError(f"an index is out of bounds for axis {axis} with size {size}")
    found: Indices = array.astype(np.intp)
    return np.where(found < 0, found + size, found)
