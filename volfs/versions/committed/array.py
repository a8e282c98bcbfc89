"""An array in a committed version: which payload each chunk has, and when each part last changed.

Decided here: how chunk lookups are answered a whole index block at a time, and how times of change are carried from a
version to its children. Not decided here: how a block is resolved (:mod:`volfs.catalog`), nor what else a version holds
(:mod:`volfs.versions.committed.version`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from volfs.catalog import BlockMap, Catalog
from volfs.model.box import Box, Index
from volfs.model.graph import At, VersionInfo
from volfs.model.grid import split
from volfs.model.metadata import ArrayMeta
from volfs.storage.payload import Payload, PayloadReader
from volfs.storage.store_layout import parse_version_dir
from volfs.versions.committed.lookups import Resolved, times_of
from volfs.versions.committed.reshape import Reshape
from volfs.versions.history import History
from volfs.versions.snapshot import ArrayNode, Snapshot, StoredPayload

_MANY = 256
"""Of more index blocks than this, those that ever changed are looked up first."""


@dataclass(frozen=True, slots=True)
class VersionPayload:
    """The bytes of one committed chunk. Reading checks them."""

    reader: PayloadReader
    dataset: int
    payload: Payload

    @property
    def token(self) -> Hashable:
        return self.dataset, self.payload.file, self.payload.offset

    @property
    def size(self) -> int:
        return self.payload.length

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        return self.reader.read(self.payload, offset, length)


class CommittedSnapshot(Snapshot):
    """A version as its arrays know it."""

    dataset: History[CommittedSnapshot]
    info: VersionInfo
    at: At
    catalog: Catalog
    resolved: Resolved

    @abstractmethod
    def time_of(self, version: int) -> int:
        """The time (ns) of a version; this one's own for 0."""

    @abstractmethod
    def described_in(self, path: str) -> CommittedSnapshot:
        """The version that put the metadata which the node at ``path`` has here."""

    @abstractmethod
    def array(self, path: str) -> VersionArray | None:
        """The array at a hierarchy path, None if there is none."""


class VersionArray(ArrayNode):
    """One array of a version. ``node`` is the catalog's number of this incarnation; ``born_ns`` when it was created."""

    snapshot: CommittedSnapshot

    def __init__(
        self,
        version: CommittedSnapshot,
        path: str,
        meta: ArrayMeta,
        mtime_ns: int,
        node: int,
        block_shape: Index,
        born_ns: int,
    ) -> None:
        self.snapshot = version
        self.path = path
        self.meta = meta
        self.mtime_ns = mtime_ns
        self.node = node
        self.block_shape = block_shape
        self.born_ns = born_ns
        self._reshapes: tuple[Reshape, ...] | None = None
        self._grid = meta.grid
        self._whole = Box.whole(self._grid.grid_shape)

    def payloads(self, chunks: Box) -> dict[Index, StoredPayload]:
        inside = chunks.intersect(self._whole)
        if inside.size == 1:
            one = self.payload(inside.start)
            return {} if one is None else {inside.start: one}
        found: dict[Index, StoredPayload] = {}
        for block in self._blocks(inside):
            resolved = self._resolved(block)
            if resolved is not None:
                for coords, cell in self._cells(resolved.owner != 0, block, inside):
                    found[coords] = self._payload(resolved, cell)
        return found

    def payload(self, coords: Index) -> VersionPayload | None:
        """The payload of one chunk, None if it is not stored."""
        if not self._grid.holds(coords):
            return None
        block, cell = split(coords, self.block_shape)
        resolved = self._resolved(block)
        return None if resolved is None or not resolved.owner[cell] else self._payload(resolved, cell)

    def changed_in(self, coords: Index) -> int:
        """The version that changed a chunk last; 0 if none did."""
        block, cell = split(coords, self.block_shape)
        resolved = self._resolved(block)
        return 0 if resolved is None else int(resolved.changed[cell])

    def writers(self, chunks: Box) -> NDArray[np.int32]:
        """The version that wrote each chunk of a range, shaped like it; where one was taken from another version, that
        one. 0 where nothing ever was, the remover where something is gone. One look at the index per block."""
        inside = chunks.intersect(self._whole)
        found = np.zeros(chunks.shape, dtype=np.int32)
        for block in self._blocks(inside):
            resolved = self._resolved(block)
            if resolved is not None:
                # Where a payload lies tells who put it there: a version that takes one keeps its address.
                lies = np.array([parse_version_dir(name.partition("/")[0]) or 0 for name in resolved.names], np.int32)
                held = lies[resolved.name_of]
                numbers = np.where((resolved.owner != 0) & (held != 0), held, resolved.changed)
                box = self._block_box(block).intersect(inside)
                part = numbers.reshape(self.block_shape)[box.relative_to(self._origin(block)).slices()]
                found[box.relative_to(chunks.start).slices()] = part
        return found

    def present(self, chunks: Box) -> NDArray[np.bool_]:
        inside = chunks.intersect(self._whole)
        found = np.zeros(chunks.shape, dtype=np.bool_)
        for block in self._blocks(inside):
            resolved = self._resolved(block)
            if resolved is not None:
                box = self._block_box(block).intersect(inside)
                part = (resolved.owner != 0).reshape(self.block_shape)[box.relative_to(self._origin(block)).slices()]
                found[box.relative_to(chunks.start).slices()] = part
        return found

    def indices(self, axis: int, chunks: Box) -> list[int]:
        there: set[int] = set()
        size = self.block_shape[axis]
        box = chunks.intersect(self._whole)
        others = tuple(other for other in range(self._whole.ndim) if other != axis)
        for block in self._blocks(box):
            at = block[axis] * size
            wanted = range(max(at, box.start[axis]), min(at + size, box.stop[axis]))
            if all(i in there for i in wanted):
                continue  # nothing more to learn in this slab: dense arrays look at one block of each
            resolved = self._resolved(block)
            if resolved is not None:
                part = self._block_box(block).intersect(box)
                cells = (resolved.owner != 0).reshape(self.block_shape)[part.relative_to(self._origin(block)).slices()]
                there.update((np.flatnonzero(cells.any(axis=others)) + part.start[axis]).tolist())
        return sorted(there)

    def any_below(self, prefix: Index) -> bool:
        """Whether any chunk is stored whose coordinates begin with ``prefix``."""
        box = self.below(prefix)
        for block in self._known_within(box):
            resolved = self._resolved(block)
            if resolved is not None:
                part = self._block_box(block).intersect(box).relative_to(self._origin(block))
                if resolved.owner.reshape(self.block_shape)[part.slices()].any():
                    return True
        return False

    def stored_below(self, prefix: Index) -> Iterator[tuple[Index, int, int]]:
        """(coordinates, bytes, version that changed it) of every stored chunk whose coordinates begin with
        ``prefix``."""
        box = self.below(prefix)
        for block in self._known_within(box):
            resolved = self._resolved(block)
            if resolved is not None:
                for coords, cell in self._cells(resolved.owner != 0, block, box):
                    yield coords, int(resolved.length[cell]), int(resolved.changed[cell])

    def stored_rows(self) -> NDArray[np.int64]:
        """The coordinates of every stored chunk, a row each."""
        found = [np.zeros((0, self.meta.ndim), np.int64)]
        for block in self._known_within(self._whole):
            resolved = self._resolved(block)
            if resolved is not None:
                cells = np.unravel_index(resolved.present(), self.block_shape)
                rows = np.stack(cells, axis=1).astype(np.int64) + np.array(self._origin(block), np.int64)
                found.append(rows[(rows < np.array(self._whole.stop)).all(axis=1)])
        return np.concatenate(found)

    def block_map(self, block: Index) -> BlockMap | None:
        """All chunks of one index block; None if none of them ever changed."""
        return self._resolved(block)

    # -- times --------------------------------------------------------------------------------------------------

    def newest(self, axes: tuple[int, ...]) -> NDArray[np.int64]:
        times = self._known.times(self.snapshot, self, axes)
        reshapes = self.reshapes()
        if not reshapes:
            return times
        times = times.copy()
        for reshape in reshapes:
            reshape.raise_times(times, axes)
        times.flags.writeable = False
        return times

    def newest_along(self, axis: int, chunks: Box) -> NDArray[np.int64]:
        inside = chunks.intersect(self._whole)
        newest = np.zeros(chunks.shape[axis], dtype=np.int32)
        others = tuple(other for other in range(self._whole.ndim) if other != axis)
        for block in self._blocks(inside):
            resolved = self._resolved(block)
            if resolved is not None:
                part = self._block_box(block).intersect(inside)
                cells = resolved.changed.reshape(self.block_shape)[part.relative_to(self._origin(block)).slices()]
                where = slice(part.start[axis] - chunks.start[axis], part.stop[axis] - chunks.start[axis])
                np.maximum(newest[where], cells.max(axis=others), out=newest[where])
        times = times_of(self.snapshot, newest, self.born_ns)
        for reshape in self.reshapes():
            reshape.raise_along(times, axis, chunks, self._whole)
        return times

    def reshapes(self) -> tuple[Reshape, ...]:
        """The changes of metadata since the array's birth after which voxels or slabs read differently, newest first.

        Found once: the parent's array knows the earlier ones.
        """
        if self._reshapes is None:
            found: list[Reshape] = []
            array = self
            while array._reshapes is None:
                before = array._before()
                if before is None:
                    break
                reshape = Reshape(array.mtime_ns, before.meta, array.meta)
                if not reshape.harmless:
                    found.append(reshape)
                array = before
            self._reshapes = (*found, *(array._reshapes or ()))
        return self._reshapes

    def _before(self) -> VersionArray | None:
        """This array before its metadata last changed; None if it was made with the metadata it has."""
        version = self.snapshot.described_in(self.path)
        parents = version.info.parents
        before = version.dataset.version(parents[0]).array(self.path) if parents else None
        return before if before is not None and before.node == self.node else None

    def newest_in(self, chunks: Box) -> int:
        inside = chunks.intersect(self._whole)
        newest = 0
        for block in self._blocks(inside):
            resolved = self._resolved(block)
            if resolved is not None:
                box = self._block_box(block).intersect(inside).relative_to(self._origin(block))
                newest = max(newest, int(resolved.changed.reshape(self.block_shape)[box.slices()].max(initial=0)))
        # Along a chain of first parents a newer change has a larger version number, and a later time.
        times = [r.time_ns for r in self.reshapes() if r.changes(inside, self._whole)]
        return max((self.born_ns, self.snapshot.time_of(newest) if newest else 0, *times))

    # -- inside -------------------------------------------------------------------------------------------------

    def _resolved(self, block: Index) -> BlockMap | None:
        return self._known.block_map(self.snapshot, self.node, block)

    def _payload(self, resolved: BlockMap, cell: int) -> VersionPayload:
        dataset = self.snapshot.dataset
        return VersionPayload(dataset.reader, dataset.id, resolved.payload(cell))

    @property
    def _known(self) -> Resolved:
        return self.snapshot.resolved

    def _known_blocks(self) -> NDArray[np.int64]:
        return self._known.blocks(self.snapshot, self)

    def below(self, prefix: Index) -> Box:
        """The chunks whose coordinates begin with ``prefix``."""
        free = len(prefix)
        box = Box((*prefix, *self._whole.start[free:]), (*(i + 1 for i in prefix), *self._whole.stop[free:]))
        return box.intersect(self._whole)

    def _known_within(self, chunks: Box) -> Iterator[Index]:
        """The blocks that ever changed and cross a range of chunks, ascending."""
        known, box = self._known_blocks(), self._block_range(chunks)
        known = known[slice(*np.searchsorted(known[:, 0], (box.start[0], box.stop[0])))]
        return map(tuple, known[_within(known, box)].tolist())

    def _origin(self, block: Index) -> Index:
        return tuple(b * s for b, s in zip(block, self.block_shape, strict=True))

    def _block_box(self, block: Index) -> Box:
        return Box(self._origin(block), tuple((b + 1) * s for b, s in zip(block, self.block_shape, strict=True)))

    def _block_range(self, chunks: Box) -> Box:
        if chunks.empty:
            return Box((0,) * chunks.ndim, (0,) * chunks.ndim)
        return Box(
            tuple(a // s for a, s in zip(chunks.start, self.block_shape, strict=True)),
            tuple(-(-b // s) for b, s in zip(chunks.stop, self.block_shape, strict=True)),
        )

    def _blocks(self, chunks: Box) -> Iterator[Index]:
        """The blocks that cross a range of chunks and may have changed ever, ascending."""
        box = self._block_range(chunks)
        if box.size > _MANY:  # an array may claim to be larger than all that was ever stored
            return self._known_within(chunks)
        return product(*(range(a, b) for a, b in zip(box.start, box.stop, strict=True)))

    def _cells(self, chosen: NDArray[np.bool_], block: Index, box: Box) -> Iterator[tuple[Index, int]]:
        """(chunk coordinates, cell) of the chosen cells of a block that lie in a box of chunks."""
        shape = self.block_shape
        origin = self._origin(block)
        part = self._block_box(block).intersect(box)
        local = part.relative_to(origin).slices()
        there = chosen.reshape(shape)[local]
        cells = np.arange(chosen.size).reshape(shape)[local][there]
        coords = np.argwhere(there) + np.array(part.start)
        for at, cell in zip(coords.tolist(), cells.tolist(), strict=True):
            yield tuple(at), cell


def _within(blocks: NDArray[np.int64], box: Box) -> NDArray[np.bool_]:
    inside = (blocks >= np.array(box.start)) & (blocks < np.array(box.stop))
    return np.asarray(inside.all(axis=1), dtype=np.bool_)
