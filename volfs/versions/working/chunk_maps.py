"""Which chunks of which arrays a working copy changes, remembered between reads.

Decided here: how the map of an array is built from the layers and kept true while keys change. Not here: how a branch
reads it (:mod:`volfs.versions.working.branch_array`).

A map is right as of one count of the working copy's pulse. Changes that this process makes are replayed onto it, key by
key; after changes by another process, or to whole directories, it is built again.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from volfs.model.bounded_map import BoundedMap, Caches
from volfs.model.box import Box, Index
from volfs.model.metadata import ArrayMeta
from volfs.versions.committed.version import chunk_prefix
from volfs.versions.keys import covers, node_key
from volfs.versions.working.layer import Change
from volfs.versions.working.union import Union

_MAPS_KEPT = 64
_ATTEMPTS = 20
_PROBED = 256
"""A box of at most this many chunks is looked up file by file when the map is out of date."""

_V = TypeVar("_V")


@dataclass(slots=True)
class ChunkMap:
    """The chunks of one array in the layers.

    ``puts``: chunks with bytes of their own, inside the grid or not. ``removed``: chunks taken away, with the time.
    ``regions``: (leading coordinates, time) of directories of chunks taken away; ``reverted``: the same of chunks whose
    changes were discarded. ``hidden``: when everything that the base has there was taken away; None if it was not.
    """

    puts: dict[Index, Change] = field(default_factory=dict)
    removed: dict[Index, int] = field(default_factory=dict)
    regions: list[tuple[Index, int]] = field(default_factory=list)
    reverted: list[tuple[Index, int]] = field(default_factory=list)
    hidden: int | None = None

    def is_removed(self, coords: Index) -> bool:
        """Whether the base's chunk is gone. Ask only about chunks that are not in ``puts``."""
        return (
            self.hidden is not None
            or coords in self.removed
            or any(coords[: len(prefix)] == prefix for prefix, _ in self.regions)
        )

    def within(self, box: Box | None) -> ChunkMap:
        """A copy, with the chunks of a box only if one is given."""
        return ChunkMap(
            _select(self.puts, box), _select(self.removed, box), list(self.regions), list(self.reverted), self.hidden
        )

    @property
    def touched(self) -> bool:
        """Whether the layers say anything at all."""
        return bool(self.puts or self.removed or self.regions or self.hidden is not None)


@dataclass(slots=True)
class _Kept:
    folder: str
    encoding: tuple[str, str]
    ndim: int
    count: int
    #: Of the union that it was made from: a look that is to be made again, as the layers moved, may have come last.
    stamp: Hashable
    chunks: ChunkMap
    #: The coordinates of ``chunks.puts``, a row each, ascending; made when they are asked for.
    rows: NDArray[np.int64] | None = None

    def sorted_puts(self) -> NDArray[np.int64]:
        if self.rows is None:
            rows = np.array(list(self.chunks.puts), np.int64).reshape(len(self.chunks.puts), self.ndim)
            self.rows = rows[np.lexsort(rows.T[::-1])]
        return self.rows


class Counter(Protocol):
    """Counts the changes to a union, as :class:`~volfs.versions.working.clock.Pulse` does."""

    def read(self) -> int: ...

    def between(self, count: int, later: int) -> Collection[tuple[str, bool]] | None: ...


class ChunkMaps:
    """The maps of a working copy's arrays. Thread-safe."""

    def __init__(self, counter: Counter, caches: Caches) -> None:
        self._counter = counter
        self._mutex = threading.RLock()
        self._maps: BoundedMap[str, _Kept] = caches.add("branch_maps", BoundedMap(_MAPS_KEPT))

    def get(self, union: Union, path: str, meta: ArrayMeta, box: Box | None = None) -> ChunkMap:
        """The chunks of the array at ``path`` in the layers of ``union``; with ``box``, only those in a box of chunks.

        Call it within a look, which is made again if the layers moved meanwhile.
        """
        with self._mutex:
            kept = self._current(union, path, meta)
            outdated = kept is None and self._maps.peek(path) is not None
            if outdated and box is not None and box.size <= _PROBED:
                return _probe_all(union, node_key(path), meta, box)
            return (kept or self._build(union, path, meta)).chunks.within(box)

    def indices(
        self, union: Union, path: str, meta: ArrayMeta, axis: int, box: Box
    ) -> tuple[list[int], ChunkMap | None]:
        """Indices along an axis at which a chunk of a box has bytes in the layers, ascending; and the map of that box,
        if the layers take chunks of the base away."""
        with self._mutex:
            kept = self._current(union, path, meta) or self._build(union, path, meta)
            rows, chunks = kept.sorted_puts(), kept.chunks
            rows = rows[slice(*np.searchsorted(rows[:, 0], (box.start[0], box.stop[0])))]
            inside = ((rows >= np.array(box.start)) & (rows < np.array(box.stop))).all(axis=1)
            takes_away = chunks.removed or chunks.regions or chunks.hidden is not None
            return np.unique(rows[inside, axis]).tolist(), chunks.within(box) if takes_away else None

    def _current(self, union: Union, path: str, meta: ArrayMeta) -> _Kept | None:
        """The map that is kept, brought up to date; None if it must be built."""
        count = self._counter.read()
        kept = self._maps.get(path)
        if kept is None:
            return None
        if (kept.encoding, kept.ndim) != (meta.key_encoding, meta.ndim):
            self._maps.pop(path)  # of another array that was here
            return None
        if kept.stamp != union.stamp:
            return None
        return kept if kept.count == count or self._catch_up(union, kept, meta, count) else None

    def _build(self, union: Union, path: str, meta: ArrayMeta) -> _Kept:
        for _ in range(_ATTEMPTS):
            count = self._counter.read()
            folder = node_key(path)
            built = _Kept(folder, meta.key_encoding, meta.ndim, count, union.stamp, build(union, folder, meta))
            if self._counter.read() == count:
                break
        self._maps.put(path, built)
        return built

    def _catch_up(self, union: Union, kept: _Kept, meta: ArrayMeta, count: int) -> bool:
        news = self._counter.between(kept.count, count)
        if news is None:
            return False
        dirty = set()
        for key, below in news:
            if below and (not key or covers(key, kept.folder) or covers(kept.folder, key)):
                return False
            if not below and covers(kept.folder, key):
                coords = meta.parse_chunk_key(key[len(kept.folder) + 1 :])
                if coords is not None:
                    dirty.add(coords)
        if dirty:
            kept.rows = None
        for coords in dirty:
            _look_again(union, kept.chunks, coords, f"{kept.folder}/{meta.chunk_key(coords)}")
        kept.count = count
        return True


def build(union: Union, folder: str, meta: ArrayMeta) -> ChunkMap:
    """The map of the array in a directory, from the layers."""
    found = ChunkMap()
    for layer in reversed(union.layers):
        if layer.look(folder)[1]:
            found = ChunkMap(reverted=found.reverted, hidden=layer.removal_time(folder) or 0)
        # Files first: where one is removed meanwhile, its whiteout was there before.
        puts = {}
        for change in layer.puts(folder):
            coords = meta.parse_chunk_key(change.key[len(folder) + 1 :])
            if coords is not None:
                puts[coords] = change
        for change in layer.whiteouts(folder):
            rel = change.key[len(folder) + 1 :]
            coords = meta.parse_chunk_key(rel)
            if coords is not None:
                again = None if coords in puts else layer.stat(change.key)
                if isinstance(again, os.stat_result) and not stat.S_ISDIR(again.st_mode):
                    puts[coords] = Change.of(change.key, "put", again, layer.path(change.key))
                if coords in puts:
                    puts[coords] = _with_time(puts[coords], change.mtime_ns)
                else:
                    found.puts.pop(coords, None)
                    found.removed[coords] = change.mtime_ns
            elif rel and (prefix := chunk_prefix(meta, rel)) is not None:
                for inside in [c for c in found.puts if c[: len(prefix)] == prefix]:
                    del found.puts[inside]
                found.regions.append((prefix, change.mtime_ns))
        for coords, change in puts.items():
            found.puts[coords] = _with_time(change, found.removed.pop(coords, 0))
        for key, time_ns in layer.discards():
            if covers(key, folder) or not key:
                found.reverted.append(((), time_ns))
            elif covers(folder, key):
                rel = key[len(folder) + 1 :]
                found.reverted.append((meta.parse_chunk_key(rel) or chunk_prefix(meta, rel) or (), time_ns))
    return found


def _select(chunks: dict[Index, _V], box: Box | None) -> dict[Index, _V]:
    if box is None:
        return dict(chunks)
    if box.size <= len(chunks):
        return {coords: chunks[coords] for coords in product(*map(range, box.start, box.stop)) if coords in chunks}
    spans = tuple(zip(box.start, box.stop, strict=True))
    return {
        coords: change
        for coords, change in chunks.items()
        if all(a <= c < b for c, (a, b) in zip(coords, spans, strict=True))
    }


def _probe_all(union: Union, folder: str, meta: ArrayMeta, box: Box) -> ChunkMap:
    found = ChunkMap()
    for coords in product(*map(range, box.start, box.stop)):
        _look_again(union, found, coords, f"{folder}/{meta.chunk_key(coords)}")
    return found


def probe(union: Union, key: str) -> Change | int | None:
    """One key in the layers: its file, or the time (ns) of its removal; None if they have neither."""
    for layer in union.layers:
        found, ends = layer.look(key)
        if isinstance(found, os.stat_result) and not stat.S_ISDIR(found.st_mode):
            return _with_time(Change.of(key, "put", found, layer.path(key)), layer.own_time(key))
        if ends:
            return layer.removal_time(key) or 0
    return None


def _with_time(change: Change, noted: int) -> Change:
    return replace(change, changed_ns=noted) if noted > change.changed_ns else change


def _look_again(union: Union, chunks: ChunkMap, coords: Index, key: str) -> None:
    now = probe(union, key)
    chunks.puts.pop(coords, None)
    chunks.removed.pop(coords, None)
    if isinstance(now, Change):
        chunks.puts[coords] = now
    elif now is not None:
        chunks.removed[coords] = now
