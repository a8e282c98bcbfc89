"""An array in a branch: the chunks of the working copy over those of the base.

Decided here: the bytes of a chunk, and when it last changed. Not here: where the working copy keeps its files
(:mod:`volfs.versions.working.working_copy`), and how the base resolves chunks
(:mod:`volfs.versions.committed.version`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import count
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from volfs.errors import NotFound
from volfs.model.box import Box, Index
from volfs.model.metadata import ArrayMeta
from volfs.storage.files import open_regular, pread_all
from volfs.versions.committed.reshape import Reshape
from volfs.versions.keys import json_key, node_key
from volfs.versions.snapshot import ArrayNode, Snapshot, StoredPayload
from volfs.versions.working.chunk_maps import ChunkMap, ChunkMaps, probe
from volfs.versions.working.layer import Change
from volfs.versions.working.union import Union

_T = TypeVar("_T")

_RACY_NS = 50_000_000
"""A file changed as recently as this may change again without its times telling (clock ticks are some ms apart)."""

_nonces = count()


class Looks(Protocol):
    """Gives access to a union that does not change meanwhile: a working copy, or a frozen state of one."""

    def look(self, see: Callable[[Union], _T]) -> _T: ...


@dataclass(frozen=True, slots=True)
class WorkingPayload:
    """A chunk file of the working copy, as it was when looked up."""

    token: Hashable
    size: int
    change: Change

    @classmethod
    def of(cls, change: Change) -> WorkingPayload:
        identity: tuple[Hashable, ...] = ("working", change.ino, change.mtime_ns, change.changed_ns, change.size)
        if time.time_ns() - change.ctime_ns < _RACY_NS:
            identity = (*identity, next(_nonces))
        return cls(identity, change.size, change)

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes. NotFound if the file was moved, replaced or changed meanwhile: look the chunk up again."""
        change = self.change
        try:
            fd = open_regular(change.path)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{change.key} has changed") from None
        try:
            wanted = self.size - offset if length is None else min(length, self.size - offset)
            data = pread_all(fd, max(0, wanted), offset)
            found = os.fstat(fd)
        finally:
            os.close(fd)
        if (found.st_ino, found.st_mtime_ns, found.st_size) != (change.ino, change.mtime_ns, change.size):
            raise NotFound(f"{change.key} has changed")
        return data


@dataclass(frozen=True, slots=True)
class KeyPayload:
    """A chunk that the base keeps as an opaque key: its array was not understood when it was committed."""

    lower: Snapshot
    key: str
    token: Hashable
    size: int

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        return self.lower.read(self.key, offset, length)


@dataclass(frozen=True, slots=True)
class ReinterpretedPayload:
    """A committed chunk read under other metadata than it was written under: its voxels differ, and so does its
    token."""

    stored: StoredPayload
    token: Hashable

    @property
    def size(self) -> int:
        return self.stored.size

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        return self.stored.read(offset, length)


class BranchArray(ArrayNode):
    """One array of a branch, under the metadata it had when asked for. Chunks are always those of now."""

    def __init__(
        self, snapshot: Snapshot, working: Looks, path: str, meta: ArrayMeta, mtime_ns: int, maps: ChunkMaps
    ) -> None:
        self.snapshot = snapshot
        self.path = path
        self.meta = meta
        self.mtime_ns = mtime_ns
        self._working = working
        self._maps = maps
        self._times: dict[tuple[int, ...], tuple[Hashable, NDArray[np.int64]]] = {}
        self._whole = Box.whole(meta.grid.grid_shape)

    def payloads(self, chunks: Box) -> dict[Index, StoredPayload]:
        inside = chunks.intersect(self._whole)
        if inside.empty:
            return {}
        return self._working.look(lambda union: self._payloads(union, inside))

    def indices(self, axis: int, chunks: Box) -> list[int]:
        inside = chunks.intersect(self._whole)
        return [] if inside.empty else self._working.look(lambda union: self._indices(union, axis, inside))

    def changed(self) -> set[Index]:
        """Coordinates of the chunks that the working copy puts or removes, inside the grid or not.

        The cost follows the changes, unless whole directories of committed chunks were removed.
        """
        return self._working.look(self._changed)

    def newest(self, axes: tuple[int, ...]) -> NDArray[np.int64]:
        generation = self.snapshot.generation()
        known = self._times.get(axes)
        if known is not None and known[0] == generation:
            return known[1]
        times = self._working.look(lambda union: self._newest(union, axes))
        times.flags.writeable = False
        self._times[axes] = generation, times
        return times

    def newest_along(self, axis: int, chunks: Box) -> NDArray[np.int64]:
        return self._working.look(lambda union: self._newest_along(union, axis, chunks))

    def newest_in(self, chunks: Box) -> int:
        return self._working.look(lambda union: self._newest_in(union, chunks))

    # -- inside -------------------------------------------------------------------------------------------------

    def _below(self, union: Union) -> ArrayNode | None:
        """The base's array, where any of its chunks may show here."""
        if not union.shows_base(node_key(self.path)):
            return None
        assert union.lower is not None
        node = union.lower.node(self.path)
        if isinstance(node, ArrayNode) and node.meta.key_encoding == self.meta.key_encoding:
            return node if node.meta.ndim == self.meta.ndim else None
        return None

    def _payloads(self, union: Union, box: Box) -> dict[Index, StoredPayload]:
        now = self._maps.get(union, self.path, self.meta, box)
        below = {} if now.hidden is not None else self._inherited(union, box)
        found = {c: payload for c, payload in below.items() if c not in now.puts and not now.is_removed(c)}
        return found | {coords: WorkingPayload.of(change) for coords, change in now.puts.items()}

    def _indices(self, union: Union, axis: int, box: Box) -> list[int]:
        puts, gone = self._maps.indices(union, self.path, self.meta, axis, box)
        if gone is not None and gone.hidden is not None:
            return puts
        below = self._below(union)
        if below is not None and gone is None:
            inherited = below.indices(axis, box.intersect(Box.whole(below.meta.grid.grid_shape)))
        else:
            shown = self._inherited(union, box)
            inherited = [c[axis] for c in shown if gone is None or not gone.is_removed(c)]
        return sorted({*puts, *inherited})

    def _inherited(self, union: Union, box: Box) -> dict[Index, StoredPayload]:
        below = self._below(union)
        if below is None:
            return self._opaque(union, box)
        inside = box.intersect(Box.whole(below.meta.grid.grid_shape))
        if inside.empty:
            return {}
        payloads = below.payloads(inside)
        if below.meta.same_storage(self.meta):
            return payloads
        how = (self.meta.dtype.str, self.meta.chunk_shape, repr(self.meta.codecs))
        return {coords: ReinterpretedPayload(p, (p.token, how)) for coords, p in payloads.items()}

    def _opaque(self, union: Union, box: Box) -> dict[Index, StoredPayload]:
        """Chunks that the base has as keys, but not as chunks of an array."""
        folder = node_key(self.path)
        if not union.shows_base(folder):
            return {}
        lower = union.lower
        assert lower is not None
        found: dict[Index, StoredPayload] = {}
        for key in Union((), lower).keys(folder):
            coords = self.meta.parse_chunk_key(key[len(folder) + 1 :])
            if coords is not None and all(a <= c < b for a, c, b in zip(box.start, coords, box.stop, strict=True)):
                info = lower.stat(key)
                if info is not None:
                    token = ("key", lower.dataset.name, lower.ref, key)
                    found[coords] = KeyPayload(lower, key, token, info.size)
        return found

    def _changed(self, union: Union) -> set[Index]:
        now = self._maps.get(union, self.path, self.meta)
        found = set(now.puts) | set(now.removed)
        below = None if union.lower is None else union.lower.node(self.path)
        if isinstance(below, ArrayNode) and (now.regions or now.hidden is not None):
            for coords in below.payloads(Box.whole(below.meta.grid.grid_shape)):
                if now.is_removed(coords):
                    found.add(coords)
        return found

    def _described(self, union: Union) -> int | None:
        """When the working copy changed the array's metadata; None if it did not."""
        found = probe(union, json_key(self.path))
        return found.changed_ns if isinstance(found, Change) else None

    def _newest(self, union: Union, axes: tuple[int, ...]) -> NDArray[np.int64]:
        now = self._maps.get(union, self.path, self.meta)
        times = self._inherited_times(union, axes, now)
        shape = self.meta.grid.grid_shape
        if not times.size or 0 in shape:
            return times
        coords = [c for c in now.puts if self.meta.grid.holds(c)]
        changed = [now.puts[c].changed_ns for c in coords]
        gone = [c for c in now.removed if self.meta.grid.holds(c)]
        coords += gone
        changed += [now.removed[c] for c in gone]
        if coords:
            at = np.asarray(coords, dtype=np.int64)[:, list(axes)]
            np.maximum.at(times, tuple(at.T), np.asarray(changed, dtype=np.int64))
        for prefix, time_ns in (*now.regions, *now.reverted):
            if all(c < n for c, n in zip(prefix, shape, strict=False)):
                part = times[tuple(slice(prefix[a], prefix[a] + 1) if a < len(prefix) else slice(None) for a in axes)]
                np.maximum(part, time_ns, out=part)
        return times

    def _inherited_times(self, union: Union, axes: tuple[int, ...], now: ChunkMap) -> NDArray[np.int64]:
        """Times before the working copy's chunks are counted in: the base's, and that of new metadata."""
        shape = self.meta.grid.grid_shape
        wanted = tuple(shape[a] for a in axes)
        described = self._described(union)
        below = self._below(union)
        if below is None:
            return np.full(wanted, max(described or self.mtime_ns, now.hidden or 0), dtype=np.int64)
        old = below.newest(axes)
        if described is None:
            return old.copy()
        times = np.full(wanted, described, dtype=np.int64)
        if len(old.shape) == len(wanted):
            both = tuple(slice(0, min(a, b)) for a, b in zip(old.shape, wanted, strict=True))
            times[both] = old[both]
        Reshape(described, below.meta, self.meta).raise_times(times, axes)
        return times

    def _newest_along(self, union: Union, axis: int, chunks: Box) -> NDArray[np.int64]:
        box = chunks.intersect(self._whole)
        now = self._maps.get(union, self.path, self.meta, box)
        described, below = self._described(union), self._below(union)
        first = chunks.start[axis]
        if below is None:
            times = np.full(chunks.shape[axis], max(described or self.mtime_ns, now.hidden or 0), np.int64)
        else:
            times = np.full(chunks.shape[axis], described or 0, np.int64)
            old = box.intersect(Box.whole(below.meta.grid.grid_shape))
            where = slice(old.start[axis] - first, old.stop[axis] - first)
            times[where] = below.newest_along(axis, old)
            if described is not None:
                Reshape(described, below.meta, self.meta).raise_along(times, axis, box, self._whole)
        for coords, change in now.puts.items():
            times[coords[axis] - first] = max(times[coords[axis] - first], change.changed_ns)
        for coords, time_ns in now.removed.items():
            times[coords[axis] - first] = max(times[coords[axis] - first], time_ns)
        for prefix, time_ns in (*now.regions, *now.reverted):
            if _crosses(prefix, box):
                part = times[prefix[axis] - first :][:1] if axis < len(prefix) else times
                np.maximum(part, time_ns, out=part)
        return times

    def _newest_in(self, union: Union, chunks: Box) -> int:
        box = chunks.intersect(self._whole)
        now = self._maps.get(union, self.path, self.meta, box)
        described = self._described(union)
        below = self._below(union)
        if below is None:
            newest = max(described or self.mtime_ns, now.hidden or 0)
        else:
            newest = below.newest_in(box.intersect(Box.whole(below.meta.grid.grid_shape)))
            if described is not None and Reshape(described, below.meta, self.meta).changes(box, self._whole):
                newest = max(newest, described)
        times = [change.changed_ns for change in now.puts.values()]
        times += now.removed.values()
        times += [t for prefix, t in (*now.regions, *now.reverted) if _crosses(prefix, box)]
        return max((newest, *times))


def _crosses(prefix: Index, box: Box) -> bool:
    return all(a <= c < b for c, a, b in zip(prefix, box.start, box.stop, strict=False))
