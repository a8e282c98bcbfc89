"""The keys and chunks that changes touch, and whether two sets of changes collide. Pure: no versions, no files.

Decided here: when two changes made on one base do not go together. Not here: how changes are read from manifests or
from a working copy (:mod:`volfs.versions.commit.movement`), nor what becomes of a collision
(:mod:`volfs.versions.commit.overlap`).

Keys are compared as a filesystem sees them: a directory that is removed touches everything in it, and a file where the
other side has a directory touches that. Chunks are compared by coordinates. An array that is *described anew* (made,
removed, of another shape, data type, grid or codecs) counts as all keys of its directory, on whichever side that was.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from volfs.model.box import Index

Rows = NDArray[np.int64]
"""Chunk coordinates, a row each."""

_RAVELLED = 1 << 62


@dataclass(frozen=True)
class Touched:
    """The keys and chunks that a set of changes touches. Directories and keys are full paths without a slash at the
    end.

    ``keys``: files put or removed. ``trees``: directories removed with everything in them. ``arrays``: directories of
    arrays that are described anew. ``chunks`` and ``regions``, by directory of an array: chunks put or removed, and
    leading coordinates under which all chunks were removed.
    """

    keys: frozenset[str] = frozenset()
    trees: frozenset[str] = frozenset()
    arrays: frozenset[str] = frozenset()
    chunks: Mapping[str, Rows] = field(default_factory=dict)
    regions: Mapping[str, frozenset[Index]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.keys or self.trees or self.arrays or self.regions or any(map(len, self.chunks.values())))

    def __or__(self, other: Touched) -> Touched:
        chunks, anew = dict(self.chunks), set()
        for folder, rows in other.chunks.items():
            known = chunks.get(folder)
            if known is None:
                chunks[folder] = rows
            elif known.shape[1] == rows.shape[1]:
                chunks[folder] = np.unique(np.concatenate([known, rows]), axis=0)
            else:  # an array of other axes took the place of the first one
                anew.add(folder)
        regions = dict(self.regions)
        for folder, found in other.regions.items():
            regions[folder] = regions.get(folder, frozenset()) | found
        arrays = self.arrays | other.arrays | anew
        return Touched(self.keys | other.keys, self.trees | other.trees, arrays, chunks, regions)

    @cached_property
    def folders(self) -> frozenset[str]:
        """Directories of arrays of which chunks are touched."""
        return frozenset((*self.chunks, *self.regions))

    @cached_property
    def _named(self) -> list[str]:
        """Everything that is touched, the chunks of an array by the array's directory; sorted."""
        return sorted({*self.keys, *self.trees, *self.arrays, *self.folders})

    def at_or_below(self, key: str) -> bool:
        """Whether anything at a key or below it is touched."""
        return self.at(key) or self.below(key)

    def at(self, key: str) -> bool:
        """Whether exactly this key, or the array in this directory, is touched."""
        return key in self.keys or key in self.trees or key in self.arrays or key in self.folders

    def below(self, key: str) -> bool:
        """Whether anything below a key is touched."""
        prefix = f"{key}/"
        at = bisect_left(self._named, prefix)
        return at < len(self._named) and self._named[at].startswith(prefix)

    def covers(self, key: str) -> bool:
        """Whether a change at a key, or above it, removes the key or puts another kind of node in its place."""
        return any(above in self.trees or above in self.arrays for above in (key, *_above(key))) or any(
            above in self.keys for above in _above(key)
        )


def collisions(mine: Touched, theirs: Touched) -> Touched:
    """The part of ``mine`` that does not go together with ``theirs``.

    Where an array is described anew by either side and touched by the other, the answer has the whole array, and none
    of its keys.
    """
    arrays = frozenset(_arrays(mine, theirs))

    def rest(keys: Iterable[str]) -> Iterator[str]:
        return (key for key in keys if not any(above in arrays for above in (key, *_above(key))))

    keys = frozenset(k for k in rest(mine.keys) if theirs.at(k) or theirs.covers(k) or theirs.below(k))
    trees = frozenset(t for t in rest(mine.trees) if theirs.covers(t) or theirs.at_or_below(t))
    chunks: dict[str, Rows] = {}
    regions: dict[str, frozenset[Index]] = {}
    for folder in rest(mine.folders):
        rows = mine.chunks.get(folder)
        gone = mine.regions.get(folder, frozenset())
        if not theirs.covers(folder):
            rows = None if rows is None else rows[_hit(rows, theirs, folder)]
            gone = frozenset(prefix for prefix in gone if _region_hit(prefix, theirs, folder))
        if rows is not None and len(rows):
            chunks[folder] = rows
        if gone:
            regions[folder] = gone
    return Touched(keys, trees, arrays, chunks, regions)


def common_rows(rows: Rows, others: Rows) -> NDArray[np.bool_]:
    """Which rows are among the others."""
    if not len(rows) or not len(others) or rows.shape[1] != others.shape[1]:
        return np.zeros(len(rows), np.bool_)
    extents = np.maximum(rows.max(axis=0), others.max(axis=0)) + 1
    if float(np.prod(extents.astype(np.float64))) < _RAVELLED:
        shape = tuple(extents.tolist())
        return np.isin(np.ravel_multi_index(tuple(rows.T), shape), np.ravel_multi_index(tuple(others.T), shape))
    among = set(map(tuple, others.tolist()))
    return np.array([tuple(row) in among for row in rows.tolist()], np.bool_)


def rows_under(rows: Rows, prefix: Index) -> NDArray[np.bool_]:
    """Which rows begin with these coordinates."""
    if len(prefix) > rows.shape[1]:
        return np.zeros(len(rows), np.bool_)
    return np.asarray((rows[:, : len(prefix)] == np.array(prefix, np.int64)).all(axis=1), np.bool_)


def _arrays(mine: Touched, theirs: Touched) -> Iterator[str]:
    for here, there in ((mine, theirs), (theirs, mine)):
        for folder in here.arrays:
            # One side alone may describe it anew; a directory of it that the other removes as well does not matter
            # unless something is said about what is in it.
            if there.at_or_below(folder) or there.covers(folder):
                yield folder


def _hit(rows: Rows, theirs: Touched, folder: str) -> NDArray[np.bool_]:
    found = common_rows(rows, theirs.chunks.get(folder, rows[:0]))
    for prefix in theirs.regions.get(folder, ()):
        found |= rows_under(rows, prefix)
    return found


def _region_hit(prefix: Index, theirs: Touched, folder: str) -> bool:
    rows = theirs.chunks.get(folder)
    if rows is not None and rows_under(rows, prefix).any():
        return True
    return any(_overlap(prefix, other) for other in theirs.regions.get(folder, ()))


def _overlap(one: Index, other: Index) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _above(key: str) -> Iterator[str]:
    while "/" in key:
        key = key.rpartition("/")[0]
        yield key


def covered(key: str, chosen: Collection[str]) -> bool:
    """Whether a key is among the chosen, or below one of them."""
    return key in chosen or any(above in chosen for above in _above(key))
