"""What a branch's working copy changes about an array, by key.

Decided here: which keys of an array count as changed against the head version, as far as the levels computed from them
are concerned: keys put or removed, and keys at the edge of an array whose shape changed (voxels beyond the old edge may
be in the stored chunk already, and a coarse voxel at the edge covers more or fewer fine ones than before).
"""

from __future__ import annotations

from volfs.model.box import Box, Index
from volfs.model.grid import ChunkGrid, block_shape_for
from volfs.versions.snapshot import ArrayNode, Snapshot
from volfs.volume.blocks import StoredBlocks


def changed_keys(source: StoredBlocks) -> set[Index]:
    """The keys of the array that differ from the head version's. Keys outside both grids may be among them."""
    array = source.array
    before = _committed(array)
    if before is None:
        return _present(array, Box.whole(array.meta.grid.grid_shape))
    same_fill = before.meta.fill_value.tobytes() == array.meta.fill_value.tobytes()
    if not (same_fill and before.meta.same_storage(array.meta)):
        return set(source.keys.iter(Box.whole(source.keys.grid_shape)))
    return _differing(array, before) | _edges(array, before, source.keys)


def _committed(array: ArrayNode) -> ArrayNode | None:
    """The array of that path in the branch's head version."""
    head = array.snapshot.head
    if head is None:
        return None
    below: Snapshot = array.snapshot.dataset.version(head.number)
    node = below.node(array.path)
    return node if isinstance(node, ArrayNode) else None


def _differing(array: ArrayNode, before: ArrayNode) -> set[Index]:
    found: set[Index] = set()
    stored = tuple(map(max, array.meta.grid.grid_shape, before.meta.grid.grid_shape))
    tile = block_shape_for(array.meta.chunk_shape, array.meta.dtype.itemsize, stored)
    tiles = ChunkGrid(stored, tile)
    for coords in tiles.iter(Box.whole(tiles.grid_shape)):
        part = tiles.chunk_box(coords)
        now, then = _tokens(array, part), _tokens(before, part)
        found.update(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
    return found


def _tokens(array: ArrayNode, part: Box) -> dict[Index, object]:
    inside = part.intersect(Box.whole(array.meta.grid.grid_shape))
    return {} if inside.empty else {key: payload.token for key, payload in array.payloads(inside).items()}


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
