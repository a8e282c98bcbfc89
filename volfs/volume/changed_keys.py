"""What a branch's working copy changes about an array, as far as the levels computed from it are concerned.

Decided here: which keys count: those that were put or removed; all, if the array is read differently from before; and
those at the edge of an array whose shape changed, since voxels beyond the old edge may be in a stored chunk already,
and a coarse voxel at the edge covers more or fewer fine ones than it did.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from volfs.errors import Held
from volfs.model.box import Box, Index
from volfs.model.grid import ChunkGrid
from volfs.versions.snapshot import ArrayNode
from volfs.volume.blocks import StoredBlocks

_MOST = 1 << 20
"""Chunks of an array, stored or not, that may all be read differently from before."""


@runtime_checkable
class WorkingArray(Protocol):
    """An array of a branch."""

    def changed(self) -> set[Index]:
        """Keys that the working copy puts or removes, inside the grid or not."""


@runtime_checkable
class CombinedArray(Protocol):
    """An array of a state that was combined from two versions."""

    def settled(self) -> set[Index]:
        """Keys that are known, and need not be computed, though those that they are computed from have changed."""


def settled_keys(source: StoredBlocks) -> set[Index]:
    """Keys of a coarser level that are not computed in any case."""
    return source.array.settled() if isinstance(source.array, CombinedArray) else set()


def changed_keys(source: StoredBlocks) -> set[Index]:
    """Keys of the array that may differ from the base's. Keys outside its grid may be among them."""
    array = source.array
    changed = array.changed() if isinstance(array, WorkingArray) else set()
    before = _committed(array)
    if before is None:
        return changed | _present(array, Box.whole(array.meta.grid.grid_shape))
    same_fill = before.meta.fill_value.tobytes() == array.meta.fill_value.tobytes()
    if not (same_fill and before.meta.same_storage(array.meta)):
        every = Box.whole(source.keys.grid_shape)
        if every.size > _MOST:
            raise Held(
                f"zarr/{array.path}: by its new metadata all chunks are read differently, which coarser levels cannot "
                f"follow in an array with room for {every.size} of them: remove the array and make it anew"
            )
        return set(source.keys.iter(every))
    return changed | _edges(array, before, source.keys)


def _committed(array: ArrayNode) -> ArrayNode | None:
    """The array of that path in the version that the branch lies over."""
    base = array.snapshot.base
    if base is None:
        return None
    node = array.snapshot.dataset.version(base.number).node(array.path)
    return node if isinstance(node, ArrayNode) else None


def _edges(array: ArrayNode, before: ArrayNode, keys: ChunkGrid) -> set[Index]:
    found: set[Index] = set()
    for axis, (old, new) in enumerate(zip(before.meta.shape, keys.shape, strict=True)):
        edge = min(old, new)
        if old == new or edge == 0:
            continue
        slab = Box.whole(array.meta.grid.grid_shape)
        at = (edge - 1) // keys.chunk_shape[axis]
        start, stop = list(slab.start), list(slab.stop)
        start[axis], stop[axis] = at, min(at + 1, stop[axis])
        found |= _present(array, Box(tuple(start), tuple(stop)))
    return found


def _present(array: ArrayNode, part: Box) -> set[Index]:
    return set() if part.empty else set(array.payloads(part))
