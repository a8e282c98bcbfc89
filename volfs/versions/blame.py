"""Who wrote a chunk, and who wrote a voxel: the versions that are to blame, through merges.

Decided here: that a chunk which was taken by reference, by a merge or another combination, is its writer's and not the
taker's; and that a voxel is the newest version's whose chunk has another value there than each parent's. Chunks are
told by the index alone, one block at a time; for a voxel the versions of its one chunk are decoded, newest first, until
the value changes. Not here: images and levels (:mod:`volfs.volume.level`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from volfs.errors import Absent, BadInput
from volfs.model.box import Box, Index
from volfs.versions.committed.array import VersionArray, VersionPayload
from volfs.versions.snapshot import ArrayNode

UNCOMMITTED = -1
"""Stands for the working copy, where versions are told by number; 0 is nobody."""


def chunk_writers(array: ArrayNode, chunks: Box) -> NDArray[np.int32]:
    """The version that wrote each chunk of a box of chunk coordinates, shaped like the box: its number,
    :data:`UNCOMMITTED`, or 0 where nothing was ever stored. A chunk that was removed is its remover's."""
    if isinstance(array, VersionArray):
        return array.writers(chunks)
    found = np.zeros(chunks.shape, np.int32)
    base = _base(array)
    if base is not None:
        found[...] = base.writers(chunks)
    there = array.payloads(chunks)
    for coords in np.argwhere(found != 0) + chunks.start:
        if tuple(coords) not in there and base is not None and base.payload(tuple(coords)) is not None:
            found[tuple(coords - chunks.start)] = UNCOMMITTED
    for at, payload in there.items():
        stored = payload if isinstance(payload, VersionPayload) else getattr(payload, "stored", None)
        if not isinstance(stored, VersionPayload):
            found[tuple(np.subtract(at, chunks.start))] = UNCOMMITTED
    return found


def voxel_writer(array: ArrayNode, at: Index) -> int:
    """The version that gave a voxel the value that it has: its number, :data:`UNCOMMITTED`, or 0 if nobody did.

    BadInput for a voxel outside the array; Damaged or Absent if its chunk cannot be read.
    """
    if len(at) != array.meta.ndim or not all(0 <= i < n for i, n in zip(at, array.meta.shape, strict=False)):
        raise BadInput(f"{','.join(map(str, at))} is no voxel of an array of {' x '.join(map(str, array.meta.shape))}")
    coords = tuple(i // c for i, c in zip(at, array.meta.grid.chunk_shape, strict=True))
    value = _value(array, coords, at)
    one: VersionArray | None = array if isinstance(array, VersionArray) else _base(array)
    if not isinstance(array, VersionArray):
        mine = int(chunk_writers(array, _only(coords)).item()) == UNCOMMITTED
        if mine and (one is None or not _had(one, array, coords, at, value)):
            return UNCOMMITTED
    while one is not None:
        number = int(one.writers(_only(coords)).item())
        if not number:
            return 0
        before = _same_before(one, number, coords, at, value)
        if before is None:
            return number
        one = before
    return 0


def _same_before(array: VersionArray, number: int, coords: Index, at: Index, value: Any) -> VersionArray | None:
    """The array in the first parent of a version that has the same value at a voxel; None if no parent has."""
    dataset = array.snapshot.dataset
    for parent in dataset.info(number).parents:
        before = dataset.version(parent).array(array.path)
        if before is not None and _had(before, array, coords, at, value):
            return before
    return None


def _had(before: VersionArray, array: ArrayNode, coords: Index, at: Index, value: Any) -> bool:
    """Whether an earlier state of an array had a value at a voxel, written by somebody and still here to be read."""
    meta, now = before.meta, array.meta
    if meta.dtype != now.dtype or meta.grid.chunk_shape != now.grid.chunk_shape:
        return False
    if not all(i < n for i, n in zip(at, meta.shape, strict=True)) or not before.changed_in(coords):
        return False
    try:
        had = _value(before, coords, at)
    except Absent:
        return False
    return bool(had == value) or (had != had and value != value)


def _value(array: ArrayNode, coords: Index, at: Index) -> Any:
    payload = array.payloads(_only(coords)).get(coords)
    chunk = array.codec.filled() if payload is None else array.codec.decode(payload.read())
    return chunk[tuple(i % c for i, c in zip(at, array.meta.grid.chunk_shape, strict=True))]


def _only(coords: Index) -> Box:
    return Box(coords, tuple(i + 1 for i in coords))


def _base(array: ArrayNode) -> VersionArray | None:
    """The array in the version that a branch's uncommitted changes lie over."""
    base = array.snapshot.base
    found = None if base is None else array.snapshot.dataset.version(base.number).node(array.path)
    alike = isinstance(found, VersionArray) and found.meta.grid.chunk_shape == array.meta.grid.chunk_shape
    return found if alike and isinstance(found, VersionArray) else None
