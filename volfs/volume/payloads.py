"""The stored bytes of a level, block by block or key by key, for formats that pass them through unchanged.

Decided here: that a block of a level that follows s0 has the bytes that its key will have, and that an inner chunk of
a client's shard is a range of the shard. Decoding is :mod:`volfs.volume.reader`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from volfs.model.box import Box, Index
from volfs.volume.blocks import BlockSource, StoredBlocks
from volfs.volume.derivation import DerivedBlocks, Recipe
from volfs.volume.level import Level
from volfs.volume.pyramid import derived_payload
from volfs.volume.reader import retrying


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoded bytes as they are stored. ``read(offset, length)`` verifies what it reads; NotFound if they have been
    replaced since (only in a branch)."""

    size: int
    read: Callable[[int, int], bytes]


def key_payload(level: Level, key: Index) -> Encoded | None:
    """What is stored at a key, counted in chunks or a client's shards; None if nothing is. Blocks; may do I/O."""

    def look() -> Encoded | None:
        entry = level.source.entry(key)
        if not isinstance(entry, Recipe):
            return None if entry is None else Encoded(entry.size, entry.read)
        data = derived_payload(level, key)
        return None if data is None else Encoded(len(data), lambda at, length: data[at : at + length])

    return retrying(look)


def block_payload(level: Level, block: Index) -> Encoded | None:
    """What is stored of a block, counted in what is compressed by itself; None if nothing is. Blocks; may do I/O."""
    stored = _stored(level.source)
    if stored.codec.sharded and stored.per_key != (1,) * len(block):
        return retrying(lambda: _inner(level, stored, block))
    return key_payload(level, block)


def present_blocks(level: Level, blocks: Box) -> npt.NDArray[np.bool_]:
    """Which blocks of a range are stored, shaped like the range. All blocks of a client's shard count as its key."""
    found = np.zeros(blocks.shape, np.bool_)
    if blocks.empty:
        return found
    per_key = _stored(level.source).per_key
    keys = level.source.keys_of(blocks)
    for key in level.source.find(blocks):
        if all(a <= k < b for a, k, b in zip(keys.start, key, keys.stop, strict=True)):
            start = tuple(k * n for k, n in zip(key, per_key, strict=True))
            inside = Box(start, tuple(a + n for a, n in zip(start, per_key, strict=True))).intersect(blocks)
            found[inside.relative_to(blocks.start).slices()] = True
    return found


def stored_keys_along(level: Level, axis: int, keys: Box) -> list[int]:
    """Indices along an axis at which a key of a range is stored, or will be; ascending. Costs what is stored."""
    array, found = _stored(level.source).array, set[int]()
    inside = keys.intersect(Box.whole(array.meta.grid.grid_shape))
    if not inside.empty:
        found.update(array.indices(axis, inside))
    if isinstance(level.source, DerivedBlocks):
        found.update(key[axis] for key in level.derived_keys() if keys.contains(Box(key, tuple(i + 1 for i in key))))
    return sorted(found)


def stored_blocks_along(level: Level, axis: int, blocks: Box) -> list[int]:
    """The same of blocks. All blocks of a client's shard count as its key."""
    if blocks.empty:
        return []
    per_key, first, last = _stored(level.source).per_key[axis], blocks.start[axis], blocks.stop[axis]
    keys = stored_keys_along(level, axis, level.source.keys_of(blocks))
    return [i for key in keys for i in range(max(first, key * per_key), min(last, (key + 1) * per_key))]


def block_sizes(level: Level, blocks: Box) -> npt.NDArray[np.int64]:
    """How many bytes are stored of each block of a range, shaped like the range; -1 of those of which nothing is.

    One look for all of them where keys are blocks. Blocks; may do I/O.
    """
    sizes = np.full(blocks.shape, -1, np.int64)
    if blocks.empty:
        return sizes
    if _stored(level.source).per_key == (1,) * blocks.ndim:
        recipes = []
        for key, entry in level.source.find(blocks).items():
            if not all(a <= k < b for a, k, b in zip(blocks.start, key, blocks.stop, strict=True)):
                continue
            if isinstance(entry, Recipe):
                recipes.append(key)
            else:
                sizes[tuple(k - a for k, a in zip(key, blocks.start, strict=True))] = entry.size
    else:
        places = np.argwhere(present_blocks(level, blocks))
        recipes = [tuple(int(i) for i in place) for place in places + blocks.start]
    for block in recipes:
        payload = block_payload(level, block)
        if payload is not None:
            sizes[tuple(k - a for k, a in zip(block, blocks.start, strict=True))] = payload.size
    return sizes


def _stored(source: BlockSource) -> StoredBlocks:
    found = source.stored if isinstance(source, DerivedBlocks) else source
    assert isinstance(found, StoredBlocks)
    return found


def _inner(level: Level, stored: StoredBlocks, block: Index) -> Encoded | None:
    key = tuple(i // n for i, n in zip(block, stored.per_key, strict=True))
    inner = tuple(i % n for i, n in zip(block, stored.per_key, strict=True))
    entry: Any = level.source.entry(key)
    if entry is None:
        return None
    if isinstance(entry, Recipe):
        shard = key_payload(level, key)
        if shard is None:
            return None
        reader = stored.codec.open_shard(shard.read, shard.size)
        read: Callable[[int, int], bytes] = shard.read
    else:
        reader, read = stored.open_shard(entry), entry.read
    where = reader.stored_range(inner)
    if where is None:
        return None
    start, length = where
    return Encoded(length, lambda at, n: read(start + at, min(n, length - at)))
