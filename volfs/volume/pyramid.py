"""Pyramids that volfs keeps: what a branch shows, and commits, for levels that follow s0.

Decided here: the bytes that must stand at the keys of a derived level (`derived_payload`, `derived_metadata`), so that
`zarr/` agrees with the voxels. Which keys those are is decided in :mod:`volfs.volume.derived`; a pyramid that another
program wrote has none. The arithmetic is :func:`volfs.volume.downsample.downsample`.
"""

from __future__ import annotations

import json

import numpy as np

from volfs.model.box import Box, Index
from volfs.versions.keys import json_key
from volfs.volume.context import context_of
from volfs.volume.derived import DerivedBlocks
from volfs.volume.downsample import downsample, method_for
from volfs.volume.level import Level

__all__ = ["derived_metadata", "derived_payload", "downsample", "method_for"]


def derived_payload(level: Level, coords: Index) -> bytes | None:
    """The bytes that the key at chunk coordinates `coords` of a level must show; None if there must be no such key.

    Only for keys in `level.derived_keys()`: all others are as stored. Computed once per state, then cached. Raises
    Damaged or Held if what it is computed from does not load.
    """
    source = level.source
    if not isinstance(source, DerivedBlocks):
        raise LookupError(f"{level!r} is not computed from another level")
    recipe = source.recipe(coords)
    if recipe is None:
        raise LookupError(f"{level!r}: chunk {coords} is as it is stored")

    def make() -> np.ndarray:
        codec = source.stored.codec
        chunk = codec.filled()
        voxels = level.reader.read_entries(source.keys.chunk_box(coords), {coords: recipe})
        chunk[Box.whole(voxels.shape).slices()] = voxels
        return np.frombuffer(b"" if codec.is_fill(chunk) else codec.encode(chunk), np.uint8)

    key = ("payload", recipe.stamp, coords, source.stored.signature)
    return context_of(level.snapshot).cache.get_or_make(key, make, scan=True).tobytes() or None


def derived_metadata(level: Level) -> bytes | None:
    """The `zarr.json` that a derived level must show, None if the stored one is right: its shape follows s0's."""
    if not level.derived or level.shape == level.array.meta.shape:
        return None
    document = json.loads(level.snapshot.read(json_key(level.array.path)))
    document["shape"] = list(level.shape)
    return json.dumps(document, indent=2).encode()
