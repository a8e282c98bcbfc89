"""Lookups in the catalog, remembered for all versions: index blocks, and the times at which parts of arrays changed.

Decided here: how much is remembered, and that times of change go on from the nearest ancestor whose times are known,
so that the next version costs what it changed. A version never changes, so nothing here can be out of date; the least
recently used goes first. Not decided here: how the catalog finds blocks and changes (:mod:`volfs.catalog`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from volfs.catalog import BlockMap, Catalog
from volfs.model.bounded_map import BoundedMap, Caches
from volfs.model.box import Index
from volfs.model.graph import At
from volfs.model.metadata import ArrayMeta

_BLOCK_BYTES = 16 << 20
_TIMES_BYTES = 8 << 20
_OVERHEAD = 512
_STARTS = 16
"""Versions per array and axes from which times may go on."""
_STARTS_KEPT = 4096


class CatalogedVersion(Protocol):
    """A version as lookups know it."""

    @property
    def catalog(self) -> Catalog: ...

    @property
    def at(self) -> At: ...

    def time_of(self, version: int) -> int:
        """The time (ns) of a version."""


class CatalogedArray(Protocol):
    """An array of a version as lookups know it."""

    @property
    def node(self) -> int: ...

    @property
    def meta(self) -> ArrayMeta: ...

    @property
    def block_shape(self) -> Index: ...

    @property
    def born_ns(self) -> int: ...


class Resolved:
    """The lookups of all versions of one store. Thread-safe."""

    def __init__(self, caches: Caches) -> None:
        self.caches = caches
        # None, too, is worth remembering: no chunk of this block ever changed.
        self._blocks: BoundedMap[Hashable, BlockMap | None] = caches.add(
            "index_blocks", BoundedMap(_BLOCK_BYTES, lambda block: _OVERHEAD + (0 if block is None else block.nbytes))
        )
        self._times: BoundedMap[Hashable, NDArray[np.int64]] = caches.add(
            "change_times", BoundedMap(_TIMES_BYTES, lambda times: _OVERHEAD + times.nbytes)
        )
        self._starts: BoundedMap[Hashable, tuple[At, ...]] = caches.add("change_starts", BoundedMap(_STARTS_KEPT))

    def block_map(self, version: CatalogedVersion, node: int, block: Index) -> BlockMap | None:
        """An index block as of a version; None if none of its chunks ever changed."""
        key = (node, version.at.lineage, version.at.position, block)

        def look_up() -> BlockMap | None:
            found = version.catalog.block_map(node, version.at, block)
            return found if found.changed.any() else None

        return self._blocks.get_or_make(key, look_up)

    def blocks(self, version: CatalogedVersion, array: CatalogedArray) -> NDArray[np.int64]:
        """The blocks that ever changed, a row of block coordinates each, ascending."""
        key = (array.node, "blocks")

        def afresh() -> NDArray[np.int64]:
            rows = [block for block, _ in version.catalog.newest_changes(array.node, version.at)]
            return np.unique(np.array(rows, dtype=np.int64).reshape(len(rows), array.meta.ndim), axis=0)

        def onwards(start: NDArray[np.int64], since: At) -> NDArray[np.int64]:
            rows = {change.block for change in version.catalog.changes(array.node, version.at, since)}
            more = np.array(sorted(rows), dtype=np.int64).reshape(len(rows), array.meta.ndim)
            return np.unique(np.concatenate([start, more]), axis=0)

        return self._carried(version, key, afresh, onwards)

    def times(self, version: CatalogedVersion, array: CatalogedArray, axes: tuple[int, ...]) -> NDArray[np.int64]:
        """See :meth:`volfs.versions.snapshot.ArrayNode.newest`. The result is shared: it cannot be written into."""
        grid = array.meta.grid.grid_shape
        shape = tuple(grid[axis] for axis in axes)

        def afresh() -> NDArray[np.int64]:
            newest = np.zeros(shape, dtype=np.int32)
            for block, changed in version.catalog.newest_changes(array.node, version.at):
                _project(changed.reshape(array.block_shape), block, grid, axes, newest)
            return times_of(version, newest, array.born_ns)

        def onwards(start: NDArray[np.int64], since: At) -> NDArray[np.int64]:
            newest = np.zeros(shape, dtype=np.int32)
            for change in version.catalog.changes(array.node, version.at, since):
                changed = np.zeros(array.block_shape, dtype=np.int32)
                changed.reshape(-1)[change.cells] = change.version
                _project(changed, change.block, grid, axes, newest)
            return np.maximum(start, times_of(version, newest, array.born_ns))

        # The grid is part of the key: after a resize, chunks that were outside may be inside.
        return self._carried(version, (array.node, grid, axes), afresh, onwards)

    def clear(self) -> None:
        """Forget everything."""
        self._blocks.clear()
        self._times.clear()
        self._starts.clear()

    def _carried(
        self,
        version: CatalogedVersion,
        key: Hashable,
        afresh: Callable[[], NDArray[np.int64]],
        onwards: Callable[[NDArray[np.int64], At], NDArray[np.int64]],
    ) -> NDArray[np.int64]:
        """The value kept for this version, else one made from that of the nearest ancestor, else afresh."""
        at = version.at
        known = self._times.get((key, at.lineage, at.position))
        if known is not None:
            return known
        starts = [s for s in self._starts.get(key, ()) if at.sees(s.lineage, s.position)]
        made: NDArray[np.int64] | None = None
        for since in sorted(starts, key=lambda s: s.position, reverse=True):
            start = self._times.get((key, since.lineage, since.position))
            if start is not None:
                made = onwards(start, since)
                break
        if made is None:
            made = afresh()
        made.setflags(write=False)
        self._times.put((key, at.lineage, at.position), made)
        self._starts.put(key, (*self._starts.get(key, ()), at)[-_STARTS:])
        return made


def _project(
    changed: NDArray[np.int32], block: Index, grid: Index, axes: tuple[int, ...], newest: NDArray[np.int32]
) -> None:
    """Take the versions that changed the chunks of one block into the newest per index along ``axes``."""
    inside = tuple(slice(0, max(0, n - b * s)) for n, b, s in zip(grid, block, changed.shape, strict=True))
    part = changed[inside]
    if not part.size:
        return
    others = tuple(axis for axis in range(part.ndim) if axis not in axes)
    part = part.max(axis=others)
    kept = sorted(axes)
    part = part.transpose([kept.index(axis) for axis in axes])
    start = tuple(block[axis] * changed.shape[axis] for axis in axes)
    where = tuple(slice(a, a + n) for a, n in zip(start, part.shape, strict=True))
    newest[where] = np.maximum(newest[where], part)  # no view of an array without axes can be written into


def times_of(version: CatalogedVersion, numbers: NDArray[np.int32], born_ns: int) -> NDArray[np.int64]:
    """The times of versions, per element; where there is none, when the array was made."""
    unique, place = np.unique(numbers, return_inverse=True)
    times = np.array([version.time_of(n) if n else born_ns for n in unique.tolist()], dtype=np.int64)
    return np.maximum(times[place].reshape(numbers.shape), born_ns)
