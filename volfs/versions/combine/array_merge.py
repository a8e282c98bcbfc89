"""An array, merged chunk by chunk.

Decided here: by state, never by incarnation. A chunk that one side alone has changed is as that side has it, by
reference; one that both have changed is merged voxel by voxel, three blocks at a time. Where data type, chunks, codecs
or fill value of the two sides differ, the array is taken as a whole or not at all. Removed on one side and changed on
the other is a conflict. Not here: metadata (:mod:`volfs.versions.combine.key_merge`), nor coarser levels that volfs
keeps, which are computed (:mod:`volfs.versions.combine.combined_state`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from os import cpu_count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from volfs.model.box import Box, Index
from volfs.model.metadata import ArrayMeta
from volfs.model.touch import Rows
from volfs.storage.codec import ChunkCodec
from volfs.versions.combine.candidates import union_rows
from volfs.versions.combine.chunk_states import ChunkStates, States
from volfs.versions.combine.decisions import ChunkConflict, Orders, Side, mask_box
from volfs.versions.combine.key_merge import BOTH, REMOVED_HERE, REMOVED_THERE
from volfs.versions.combine.key_selection import Selection
from volfs.versions.combine.virtual_base import virtual_value
from volfs.versions.combine.voxels import Base, Mask, Voxels, differ, merge_block
from volfs.versions.committed.array import VersionArray
from volfs.versions.committed.version import Version

_BATCH = 64

OUTSIDE = "outside of the array, which the other side has shrunk"
"""Why there is a conflict that nobody can win: whatever is decided, it goes."""

PutChunk = Callable[[Index, bytes], None]
"""Takes a chunk that was merged. One that has become all fill is stored all the same: absence would be a removal."""


@dataclass(slots=True)
class ArrayOutcome:
    """What becomes of the chunks of an array, on top of ours. ``taken`` and ``removed``: as theirs has them.
    ``changed``: for each chunk that is taken, the version that changed it. ``merged``: how many became neither's."""

    taken: Rows
    changed: NDArray[np.int32]
    removed: Rows
    merged: int = 0
    conflicts: list[ChunkConflict] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(len(self.taken) or len(self.removed) or self.merged)


class _Chunk(NamedTuple):
    """A chunk of an array at one version."""

    array: VersionArray
    coords: Index
    address: tuple[str, int]

    def voxels(self, codec: ChunkCodec) -> Voxels:
        payload = self.array.payload(self.coords)
        return codec.filled() if payload is None else codec.decode(payload.read())


class ConflictBlock(NamedTuple):
    """A full chunk on all sides. ``mask``: where it is in conflict."""

    mask: Mask
    base: Base
    ours: Voxels
    theirs: Voxels


class _Work(NamedTuple):
    """A chunk to merge: whether ours has it, whether theirs has it, whether it lies outside of the merged array,
    whether ours has it as the base does, and whether one side has, and it is looked into for another reason."""

    coords: Index
    here: bool
    there: bool
    outside: bool
    kept: bool
    single: bool


class _Unwritten:
    """A chunk that no version has ever written, of an array that is there: it is not stored, and all fill."""


_UNWRITTEN = _Unwritten()
_Value = _Chunk | Base | _Unwritten | None
"""A chunk at the merge bases. None: it was removed, or the array is not there, so its voxels are unlike any value: what
two sides have put there since is as different as two files that both have added."""


class ArrayMerge:
    """Merges the array at one hierarchy path."""

    def __init__(
        self,
        path: str,
        bases: Sequence[Version],
        ours: VersionArray,
        theirs: VersionArray,
        meta: ArrayMeta,
        states: ChunkStates,
        selection: Selection,
        orders: Orders,
    ) -> None:
        self.path = path
        self._bases = {base.number: base for base in bases}
        self._ours, self._theirs = ours, theirs
        #: As it is after the merge.
        self.meta = meta
        self._states, self._selection, self._orders = states, selection, orders
        self._readable = ours.readable
        #: Ids of theirs that become others, in a label image.
        self.renumbered: Mapping[int, int] = {}
        #: Ids of a label image that both sides have made, and the side whose labels of that name go.
        self.lost: tuple[Side, tuple[int, ...]] | None = None

    def outcome(self, rows: Rows, put: PutChunk, tick: Callable[[], object]) -> ArrayOutcome:
        """Merge the chunks with these coordinates; those that are merged voxel by voxel are given to ``put``. ``tick``
        is called after each that was looked into."""
        ndim = self.meta.ndim
        rows = rows[self._selection.within(self.meta, self.path, rows)] if len(rows) else rows.reshape(0, ndim)
        ours, theirs = self._states.of(self._ours, rows), self._states.of(self._theirs, rows)
        differs = ~self._states.same(self.path, rows, ours, theirs)
        rows, ours, theirs = rows[differs], ours[differs], theirs[differs]
        like_theirs, like_ours = self._compare(rows, ours, theirs)
        outside = np.asarray((rows >= np.array(self.meta.grid.grid_shape)).any(axis=1), np.bool_)
        cut = self._cut(rows)
        here, there = ours["file"] >= 0, theirs["file"] >= 0
        take = like_ours & ~like_theirs & ~(outside & there) & ~cut
        lost = np.zeros(len(rows), np.bool_)
        if self.renumbered:
            take &= ~self._holds(self._theirs, rows, take & there, list(self.renumbered))
        if self.lost is not None:
            side, ids = self.lost
            array, chosen = (
                (self._theirs, there & ~like_theirs) if side == "theirs" else (self._ours, here & ~like_ours)
            )
            lost = self._holds(array, rows, chosen & ~outside, ids)
            take &= ~lost
        edge = (there & ~like_theirs & self._reaches_beyond(self._theirs, rows)) | (
            here & ~like_ours & self._reaches_beyond(self._ours, rows)
        )
        edge &= ~outside & self._readable
        take &= ~edge
        open_rows = np.flatnonzero((~like_theirs & ~take) | (outside & here & ~like_ours) | lost | edge)
        outcome = ArrayOutcome(rows[take & there], theirs["changed"][take & there], rows[take & ~there])
        single = (like_ours | like_theirs) & (lost | edge)
        flags = np.stack([here, there, outside, like_ours, single], axis=1)
        work = (_Work(tuple(rows[i].tolist()), *map(bool, flags[i].tolist())) for i in open_rows.tolist())
        extra_taken: list[tuple[Index, int]] = []
        extra_removed: list[Index] = []
        for found in _in_parallel(lambda item: self._merge(*item), work):
            tick()
            outcome.conflicts += (each for each in (found.conflict, found.beyond) if each is not None)
            if found.side == "theirs":
                payload = self._theirs.payload(found.coords)
                if payload is None:
                    extra_removed.append(found.coords)
                else:
                    extra_taken.append((found.coords, self._theirs.changed_in(found.coords)))
            elif found.voxels is not None:
                put(found.coords, self._ours.codec.encode(found.voxels))
                outcome.merged += 1
        if extra_taken:
            coords = np.array([each for each, _ in extra_taken], np.int64).reshape(-1, ndim)
            outcome.taken = np.concatenate([outcome.taken, coords])
            more = np.array([changed for _, changed in extra_taken], np.int32)
            outcome.changed = np.concatenate([outcome.changed, more])
        if extra_removed:
            coords = np.array(extra_removed, np.int64).reshape(-1, ndim)
            outcome.removed = np.concatenate([outcome.removed, coords])
        return outcome

    def differing(self, rows: Rows) -> Rows:
        """Those of some chunks that the two sides have otherwise, inside the merged array."""
        rows = rows[(rows < np.array(self.meta.grid.grid_shape)).all(axis=1)]
        ours, theirs = self._states.of(self._ours, rows), self._states.of(self._theirs, rows)
        return rows[~self._states.same(self.path, rows, ours, theirs)]

    def conflict(self, coords: Index) -> ConflictBlock:
        """The voxels of a chunk that both sides have changed, each in another way."""
        codec = self._ours.codec
        mine, other = (_Chunk(a, coords, ("", 0)).voxels(codec) for a in (self._ours, self._theirs))
        base = self._block(self._base(coords))
        mask = merge_block(base, mine, other).conflicts & inside_of(self.meta, coords)
        return ConflictBlock(mask, base, mine, other)

    def _holds(self, array: VersionArray, rows: Rows, chosen: Mask, ids: Sequence[int]) -> Mask:
        """Which of the chosen chunks of one side have any of some ids."""
        found = np.zeros(len(rows), np.bool_)
        wanted = np.array(sorted(ids), self.meta.dtype)
        for i in np.flatnonzero(chosen).tolist():
            voxels = _Chunk(array, tuple(rows[i].tolist()), ("", 0)).voxels(array.codec)
            found[i] = bool(np.isin(voxels, wanted).any())
        return found

    def _without_lost(self, side: Side, voxels: Voxels, base: Base) -> Voxels:
        """A block of one side, as the base has it where a label stands that goes."""
        if self.lost is None or self.lost[0] != side:
            return voxels
        return np.where(np.isin(voxels, np.array(self.lost[1], self.meta.dtype)), base.voxels, voxels)

    def _with_fresh_ids(self, voxels: Voxels) -> Voxels:
        if not self.renumbered:
            return voxels
        out = voxels.copy()
        for old, new in self.renumbered.items():
            out[voxels == old] = new
        return out

    # -- by address ---------------------------------------------------------------------------------------------

    def _compare(self, rows: Rows, ours: States, theirs: States) -> tuple[Mask, Mask]:
        """Which chunks are at the base as theirs has them, and which as ours."""
        states = [self._states.of(self._base_array(base), rows) for base in self._bases.values()]
        if not states:
            nothing = self._states.of(None, rows)
            states = [nothing]
        like_theirs = self._states.same(self.path, rows, states[0], theirs)
        like_ours = self._states.same(self.path, rows, states[0], ours)
        odd = np.zeros(len(rows), np.bool_)
        for other in states[1:]:
            odd |= ~self._states.same(self.path, rows, states[0], other)
        for i in np.flatnonzero(odd).tolist():
            base = self._base(tuple(rows[i].tolist()))
            one = (ours["file"][i] >= 0, theirs["file"][i] >= 0)
            like_ours[i] = self._is(base, self._ours, rows[i : i + 1], bool(one[0]))
            like_theirs[i] = self._is(base, self._theirs, rows[i : i + 1], bool(one[1]))
        return like_theirs, like_ours

    def _is(self, value: _Value, array: VersionArray, row: Rows, there: bool) -> bool:
        if isinstance(value, Base):
            return False
        if not isinstance(value, _Chunk):
            return not there
        one, other = self._states.of(value.array, row), self._states.of(array, row)
        return bool(self._states.same(self.path, row, one, other)[0])

    def _base_array(self, version: Version) -> VersionArray | None:
        """The array at a base, if its chunks read as those of ours do."""
        array = version.array(self.path)
        return array if array is not None and alike(array.meta, self._ours.meta) else None

    # -- by voxel -----------------------------------------------------------------------------------------------

    def _base(self, coords: Index) -> _Value:
        """A chunk at the merged bases."""
        if not self._bases:
            return None
        dataset = next(iter(self._bases.values())).dataset
        row = np.array([coords], np.int64)

        def value_at(number: int) -> _Value:
            array = self._base_array(self._bases.get(number) or dataset.version(number))
            payload = None if array is None else array.payload(coords)
            if array is None or payload is None:
                return None if array is None or array.changed_in(coords) else _UNWRITTEN
            return _Chunk(array, coords, (payload.payload.file, payload.payload.offset))

        def same(one: _Value, other: _Value) -> bool:
            if isinstance(one, _Chunk) and isinstance(other, _Chunk):
                states = [self._states.of(each.array, row) for each in (one, other)]
                return one.address == other.address or bool(self._states.same(self.path, row, *states)[0])
            return not isinstance(one, _Chunk | Base) and not isinstance(other, _Chunk | Base)

        def merge(base: _Value, one: _Value, other: _Value) -> _Value:
            if not self._readable or not isinstance(one, _Chunk | Base) or not isinstance(other, _Chunk | Base):
                return self._odd()
            below, first, second = self._block(base), self._block(one), self._block(other)
            merged = merge_block(below, first.voxels, second.voxels)
            odd = merged.conflicts
            for each in (first.odd, second.odd):
                odd = odd if each is None else odd | each
            return Base(merged.voxels, odd if odd.any() else None)

        return virtual_value(dataset.graph, tuple(self._bases), value_at, same, merge, None)

    def _block(self, value: _Value) -> Base:
        if isinstance(value, Base):
            return value
        if isinstance(value, _Chunk):
            return Base(value.voxels(self._ours.codec))
        return self._odd() if value is None else Base(self._ours.codec.filled())

    def _odd(self) -> Base:
        """A block of which no voxel is like any other."""
        filled = self._ours.codec.filled() if self._readable else np.zeros(self.meta.chunk_shape, np.uint8)
        return Base(filled, np.ones(filled.shape, np.bool_))

    def _merge(self, coords: Index, here: bool, there: bool, outside: bool, kept: bool, single: bool) -> _Merged:
        """One chunk that both sides have changed, that the selected box cuts, that has a label that goes, or that is
        cut since the array has shrunk. ``kept``: ours is as the base is; ``single``: one side is."""
        box = self.meta.grid.chunk_box(coords)
        if outside:
            why = OUTSIDE if there else REMOVED_THERE
            return self._whole(coords, box, why, stays=there)
        base = self._base(coords)
        cut = self._selection.box is not None and not self._selection.box.contains(box)
        if not cut and not single and isinstance(base, _Chunk | Base) and here != there:
            return self._whole(coords, box, REMOVED_THERE if here else REMOVED_HERE)
        if not self._readable or (self._orders.strict and not cut and not single):
            return self._whole(coords, box, BOTH)
        codec = self._ours.codec
        mine, other = (_Chunk(a, coords, ("", 0)).voxels(codec) for a in (self._ours, self._theirs))
        other = self._with_fresh_ids(other)
        below = Base(mine) if kept else self._block(base)
        if cut and self._selection.box is not None:
            inside = np.zeros(mine.shape, np.bool_)
            inside[self._selection.box.intersect(box).relative_to(self.first(coords)).slices()] = True
            other = np.where(inside, other, below.voxels)
            below = Base(below.voxels, None if below.odd is None else below.odd & inside)
        beyond = self._beyond(coords, below, mine, other)
        if single and kept and not self.lost and not self.renumbered and not cut:
            return _Merged(coords, beyond=beyond, side="theirs")
        merged = merge_block(below, self._without_lost("ours", mine, below), self._without_lost("theirs", other, below))
        conflicts = merged.conflicts & inside_of(self.meta, coords)
        # Beyond the array's edge nobody sees what is there: ours stays.
        voxels = merged.voxels.copy()
        decided = np.zeros(conflicts.shape, np.bool_)
        for side, part in self._orders.of_voxels(self.path, self._key(coords), box) if conflicts.any() else ():
            chosen = np.zeros(conflicts.shape, np.bool_)
            chosen[part] = True
            chosen &= conflicts & ~decided
            decided |= chosen
            if side == "theirs":
                voxels[chosen] = other[chosen]
        left = conflicts & ~decided
        conflict = None
        if left.any():
            conflict = ChunkConflict(coords, mask_box(left, self.first(coords)), int(left.sum()), "")
        if not differ(voxels, mine).any():
            return _Merged(coords, conflict, beyond)
        return _Merged(coords, conflict, beyond, voxels=voxels)

    def _reaches_beyond(self, array: VersionArray, rows: Rows) -> Mask:
        """Which chunks have voxels in one side's array that lie outside of the merged one."""
        shape = np.array(self.meta.chunk_shape, np.int64)
        stops = [np.minimum((rows + 1) * shape, np.array(meta.shape, np.int64)) for meta in (array.meta, self.meta)]
        return np.asarray((stops[0] > stops[1]).any(axis=1), np.bool_)

    def _beyond(self, coords: Index, base: Base, ours: Voxels, theirs: Voxels) -> ChunkConflict | None:
        """What either side has changed in the part of a chunk that is cut off, since the other has shrunk the array: it
        would go without a word. Whoever is to win, it goes."""
        changed = np.zeros(ours.shape, np.bool_)
        for array, side in ((self._ours, ours), (self._theirs, theirs)):
            there = inside_of(array.meta, coords) & ~inside_of(self.meta, coords)
            changed |= there & (differ(base.voxels, side) if base.odd is None else differ(base.voxels, side) | base.odd)
        if not changed.any():
            return None
        box = mask_box(changed, self.first(coords))
        if self._orders.of_chunk(self.path, self._key(coords), box) is not None:
            return None
        return ChunkConflict(coords, box, int(changed.sum()), OUTSIDE)

    def _whole(self, coords: Index, box: Box, why: str, *, stays: bool = False) -> _Merged:
        """A chunk of which one side stays as a whole; ours in any case if it ``stays``."""
        for array in (self._theirs, self._ours):
            box = box if not box.empty else array.meta.grid.chunk_box(coords)
        side = self._orders.of_chunk(self.path, self._key(coords), box)
        if side is not None:
            return _Merged(coords, side="ours" if stays else side)
        return _Merged(coords, ChunkConflict(coords, box, box.size, why))

    def _key(self, coords: Index) -> str:
        return f"zarr/{self.path}/{self.meta.chunk_key(coords)}" if self.path else f"zarr/{self.meta.chunk_key(coords)}"

    def first(self, coords: Index) -> Index:
        """The first voxel of a chunk."""
        return tuple(i * n for i, n in zip(coords, self.meta.chunk_shape, strict=True))

    def _cut(self, rows: Rows) -> Mask:
        """Which chunks the selected box holds only in part, as far as they lie inside the array."""
        if self._selection.box is None:
            return np.zeros(len(rows), np.bool_)
        shape, whole = np.array(self.meta.chunk_shape, np.int64), np.array(self.meta.shape, np.int64)
        start, stop = np.array(self._selection.box.start, np.int64), np.array(self._selection.box.stop, np.int64)
        held = (rows * shape >= start) & (np.minimum((rows + 1) * shape, whole) <= stop)
        return ~np.asarray(held.all(axis=1), np.bool_)


class _Merged(NamedTuple):
    """What becomes of one chunk: ``side`` as a whole, or ``voxels``; neither: it stays as ours has it. ``beyond``: what
    is in conflict since the array has shrunk."""

    coords: Index
    conflict: ChunkConflict | None = None
    beyond: ChunkConflict | None = None
    side: str = "ours"
    voxels: Voxels | None = None


def alike(one: ArrayMeta, other: ArrayMeta) -> bool:
    """Whether a chunk, stored or not, reads the same under two descriptions of an array."""
    return one.ndim == other.ndim and one.same_storage(other) and one.fill_value.tobytes() == other.fill_value.tobytes()


def is_same_array(one: VersionArray | None, other: VersionArray | None, states: ChunkStates) -> bool:
    """Whether two versions have the same chunks of an array, and read them alike."""
    if one is None or other is None:
        return one is other
    if not alike(one.meta, other.meta):
        return False
    if one.node == other.node and one.snapshot.at == other.snapshot.at:
        return True
    rows = union_rows([one.stored_rows(), other.stored_rows()])
    if not len(rows):
        return True
    return bool(states.same(one.path, rows, states.of(one, rows), states.of(other, rows)).all())


def inside_of(meta: ArrayMeta, coords: Index) -> Mask:
    """The voxels of a full chunk that lie inside the array."""
    inside = np.zeros(meta.chunk_shape, np.bool_)
    origin = tuple(i * n for i, n in zip(coords, meta.chunk_shape, strict=True))
    inside[meta.grid.chunk_box(coords).relative_to(origin).slices()] = True
    return inside


def _in_parallel(work: Callable[[_Work], _Merged], items: Iterator[_Work]) -> Iterator[_Merged]:
    """``work`` of each item, on all cores, a batch at a time."""
    first = list(islice(items, _BATCH))
    if len(first) < 4:
        yield from map(work, first)
        return
    with ThreadPoolExecutor(max_workers=min(16, cpu_count() or 1)) as pool:
        while first:
            yield from pool.map(work, first)
            first = list(islice(items, _BATCH))
