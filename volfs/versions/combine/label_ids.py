"""Ids of labels that two sides have given to new things, each to its own.

Decided here: an id that no base has, and that both sides have painted in different places, is two things that would
become one unnoticed, even in chunks that only one side has changed. What both sides have painted alike is one thing.
Not here: how a chunk is merged (:mod:`volfs.versions.combine.array_merge`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from os import cpu_count
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from volfs.model.box import Index
from volfs.model.touch import Rows
from volfs.versions.combine.array_merge import ArrayMerge
from volfs.versions.combine.voxels import differ
from volfs.versions.committed.array import VersionArray

_BATCH = 64
_R = TypeVar("_R")
Ids = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Collision:
    """``ids``: those that both sides have made, ascending. ``largest``: of all ids that were seen."""

    ids: tuple[int, ...]
    largest: int

    def fresh(self, dtype: np.dtype[Any]) -> dict[int, int] | None:
        """An unused id for each; None if the type has none left."""
        if self.largest + len(self.ids) > np.iinfo(dtype).max:
            return None
        return {old: self.largest + 1 + count for count, old in enumerate(self.ids)}


def collision(merging: ArrayMerge, rows: Rows, bases: Sequence[VersionArray]) -> Collision:
    """The ids that collide, given all chunks in which the two sides differ. Decodes those on all sides, and chunks of
    the bases until every candidate is found there."""
    nothing = np.zeros(0, merging.meta.dtype)
    mine, theirs, known = nothing, nothing, nothing
    largest = 0

    def painted(coords: Index) -> tuple[Ids, Ids, Ids]:
        block = merging.conflict(coords)
        apart = differ(block.ours, block.theirs)
        sides = []
        for side in (block.ours, block.theirs):
            new = differ(block.base.voxels, side)
            if block.base.odd is not None:
                new |= block.base.odd
            sides.append(np.unique(side[new & apart]))
        there = block.base.voxels if block.base.odd is None else block.base.voxels[~block.base.odd]
        return sides[0], sides[1], np.unique(there)

    for one, other, before in _each(painted, map(tuple, rows.tolist())):
        mine, theirs, known = np.union1d(mine, one), np.union1d(theirs, other), np.union1d(known, before)
    left = np.setdiff1d(np.intersect1d(mine, theirs), known)
    left = left[left != merging.meta.fill_value]
    left = left[left != 0]
    for ids in (mine, theirs, known):
        largest = max(largest, int(ids.max(initial=0)))
    for base in bases if len(left) else ():
        for found in _each(lambda coords: _ids_of(base, coords), map(tuple, base.stored_rows().tolist())):  # noqa: B023
            left = np.setdiff1d(left, found)
            largest = max(largest, int(found.max(initial=0)))
            if not len(left):
                break
    return Collision(tuple(left.tolist()), largest)


def _ids_of(array: VersionArray, coords: Index) -> Ids:
    payload = array.payload(coords)
    return np.zeros(0, array.meta.dtype) if payload is None else np.unique(array.codec.decode(payload.read()))


def _each(work: Callable[[Index], _R], items: Iterator[Index]) -> Iterator[_R]:
    """``work`` of each chunk, on all cores, a batch at a time."""
    with ThreadPoolExecutor(max_workers=min(16, cpu_count() or 1)) as pool:
        while batch := list(islice(items, _BATCH)):
            yield from pool.map(work, batch)
