"""Pyramids that volfs keeps: what a branch shows, and commits, for levels that follow s0.

Decided here: the bytes that must stand at the keys of a derived level (`derived_payload`, `derived_metadata`), so that
`zarr/` agrees with the voxels, and everything that must be written to make them stored ones (`settle`). Which keys
those are is decided in :mod:`volfs.volume.derivation`; a pyramid that another program wrote has none. The arithmetic is
:func:`volfs.volume.downsample.downsample`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from volfs.model.box import Box, Index
from volfs.versions.keys import json_key, node_key
from volfs.versions.snapshot import CombinedLevels, Snapshot, StoredPayload
from volfs.volume.derivation import DerivedBlocks, Recipe, finer_box
from volfs.volume.downsample import downsample, method_for
from volfs.volume.image import Image, image_at, images
from volfs.volume.level import Level
from volfs.volume.reader import retrying
from volfs.volume.volume_context import context_of

__all__ = ["derived_metadata", "derived_payload", "downsample", "method_for", "settle"]

#: Chunks computed before they are handed on: bounds what waits in memory.
_ROUND = 64


def derived_payload(level: Level, coords: Index) -> bytes | None:
    """The bytes that the key at chunk coordinates `coords` of a level must show; None if there must be no such key.

    For a key in `level.derived_keys()` they are computed, once per state, then cached; for any other they are the
    stored ones. Raises Damaged or Held if they, or what they are computed from, do not load.
    """

    def look_and_read() -> bytes | None:
        entry = level.source.entry(coords)
        if isinstance(entry, Recipe):
            return _payload(level, coords, entry)
        payload: StoredPayload | None = entry
        return None if payload is None else payload.read()

    return retrying(look_and_read)


def derived_metadata(level: Level) -> bytes | None:
    """The `zarr.json` that a derived level must show, None if the stored one is right: its shape follows s0's."""
    if not level.derived or level.shape == level.array.meta.shape:
        return None
    document = json.loads(level.snapshot.read(json_key(level.array.path)))
    document["shape"] = list(level.shape)
    return json.dumps(document, indent=2).encode()


def settle(snapshot: Snapshot, put: Callable[[str, bytes | None], None]) -> int:
    """Hand to `put` every key of the managed pyramids that must change, with its bytes, or None if it must go.

    Each level's metadata comes before its chunks. Chunks are computed on all cores; `put` is called from this thread
    only and may write into the snapshot itself. Returns how many keys there were.
    """
    count = 0
    for image in images(snapshot).values():
        if isinstance(snapshot, CombinedLevels):
            _take(snapshot, image)
        # All recipes are taken before anything is put: what is put changes the snapshot.
        pending = [
            (level, derived_metadata(level), _recipes(level, level.source))
            for level in image.levels
            if isinstance(level.source, DerivedBlocks)
        ]
        for level, metadata, recipes in pending:
            if metadata is not None:
                put(json_key(level.array.path), metadata)
                count += 1
            for start in range(0, len(recipes), _ROUND):
                for coords, payload in _computed(level, recipes[start : start + _ROUND]):
                    put(node_key(level.array.path, level.array.meta.chunk_key(coords)), payload)
                    count += 1
    return count


def _take(snapshot: CombinedLevels, image: Image) -> None:
    """Take over the chunks of coarser levels that need not be computed, in a state combined from two versions: those
    over none but chunks that are what theirs has. Where both sides have changed chunks under one, it is neither's."""
    theirs = None if snapshot.theirs is None else image_at(snapshot.theirs, image.path)
    if theirs is None or not theirs.managed or not _same_levels(image, theirs):
        return
    derived = [sorted(level.derived_keys()) for level in image.levels]
    computed: set[Index] = set()
    for index, level in enumerate(image.levels[1:], 1):
        above, keys = image.levels[index - 1], derived[index]
        if not keys:
            return
        under = [_under(above, level, key) for key in keys]
        rows = np.concatenate(under)
        like = snapshot.like_theirs(above.array.path, rows)
        if computed:
            like &= np.array([tuple(row) not in computed for row in rows.tolist()], np.bool_)
        starts = np.cumsum([0, *(len(each) for each in under[:-1])])
        whole = np.logical_and.reduceat(like, starts)
        taken = {key for key, chosen in zip(keys, whole.tolist(), strict=True) if chosen}
        snapshot.take(level.array.path, taken)
        computed = set(keys) - taken


def _under(above: Level, level: Level, key: Index) -> npt.NDArray[np.int64]:
    """The chunks of the level above that a chunk is computed from, a row of coordinates each; at least one."""
    keys = above.source.keys.chunks(finer_box(level.source.keys.chunk_box(key), level.factors, above.shape))
    rows = np.stack(np.meshgrid(*map(np.arange, keys.start, keys.stop), indexing="ij"), axis=-1)
    return rows.reshape(-1, len(key)).astype(np.int64)


def _same_levels(one: Image, other: Image) -> bool:
    """Whether the levels of two images are computed alike, and stored alike."""
    return (
        one.method == other.method
        and [level.array.path for level in one.levels] == [level.array.path for level in other.levels]
        and [(level.shape, level.factors) for level in one.levels] == [(lv.shape, lv.factors) for lv in other.levels]
        and all(a.array.meta.same_storage(b.array.meta) for a, b in zip(one.levels, other.levels, strict=True))
    )


def _recipes(level: Level, source: DerivedBlocks) -> list[tuple[Index, Recipe]]:
    found = ((coords, source.entry(coords)) for coords in sorted(level.derived_keys()))
    return [(coords, entry) for coords, entry in found if isinstance(entry, Recipe)]


def _computed(level: Level, recipes: list[tuple[Index, Recipe]]) -> list[tuple[Index, bytes | None]]:
    payloads: dict[Index, bytes | None] = {}

    def compute(item: tuple[Index, Recipe]) -> None:
        payloads[item[0]] = _payload(level, *item)

    context_of(level.snapshot).workers.each(compute, recipes)
    return sorted(payloads.items())


def _payload(level: Level, coords: Index, recipe: Recipe) -> bytes | None:
    assert isinstance(level.source, DerivedBlocks)
    source, codec = level.source, level.source.stored.codec

    def make() -> npt.NDArray[Any]:
        chunk = codec.filled()
        voxels = level.reader.read_entries(source.keys.chunk_box(coords), {coords: recipe})
        chunk[Box.whole(voxels.shape).slices()] = voxels
        return np.frombuffer(b"" if codec.is_fill(chunk) else codec.encode(chunk), np.uint8)

    # No codec encodes a chunk as no bytes, so none stands for a chunk that is not stored.
    key = ("payload", recipe.stamp, coords, source.stored.signature)
    place = ("payload", source.home, coords)
    cache = context_of(level.snapshot).cache
    return cache.get_or_make(key, make, scan=True, home=lambda: (place, True)).tobytes() or None
