"""Keys of levels that follow s0, as ``zarr/`` of a branch shows them.

Decided here: which keys show computed bytes instead of stored ones, so that chunk files agree with the voxels of
slices. How they are computed is decided in :mod:`volfs.volume.pyramid`. Everything here may block.
"""

from __future__ import annotations

from dataclasses import dataclass

from volfs.model.box import Box, Index
from volfs.tree.images.image_index import ImageIndex
from volfs.versions.keys import NODE_JSON, node_key, node_path, parents
from volfs.volume.level import Level
from volfs.volume.pyramid import derived_metadata, derived_payload


@dataclass(frozen=True, slots=True)
class ComputedKey:
    """A key with computed bytes. ``coords`` is None for the level's metadata."""

    level: Level
    coords: Index | None

    def bytes(self) -> bytes | None:
        """The computed bytes; None if the key must not be there."""
        if self.coords is None:
            return derived_metadata(self.level)
        try:
            return derived_payload(self.level, self.coords)
        except LookupError:  # stored meanwhile
            return None

    def mtime(self) -> int:
        level, coords = self.level, self.coords
        if coords is None:
            return level.array.mtime_ns
        start = tuple(i * n for i, n in zip(coords, level.key_shape, strict=True))
        stop = tuple(min(a + n, m) for a, n, m in zip(start, level.key_shape, level.shape, strict=True))
        return level.newest(Box(start, stop))


def computed_level(images: ImageIndex, key: str) -> tuple[Level, str] | None:
    """The level that follows s0 in whose array a key lies, and the key relative to it."""
    if not images.following():
        return None
    for folder in (key, *parents(key)):
        path = node_path(folder)
        level = images.follower(path) if path is not None else None
        if level is not None:
            return level, key[len(folder) + 1 :]
    return None


def computed_key(images: ImageIndex, key: str) -> ComputedKey | None:
    """The key, if its bytes are computed now; None if they are as stored, or it is not there."""
    found = computed_level(images, key)
    if found is None:
        return None
    level, rel = found
    if rel == NODE_JSON:
        return ComputedKey(level, None) if level.shape != level.array.meta.shape else None
    coords = level.array.meta.parse_chunk_key(rel)
    return ComputedKey(level, coords) if coords is not None and coords in level.derived_keys() else None


def computed_names(images: ImageIndex, folder: str) -> dict[str, bool]:
    """Names in a directory that come from computed chunks; whether each is a directory."""
    found = computed_level(images, folder)
    if found is None:
        return {}
    level, _ = found
    within = folder + "/"
    names: dict[str, bool] = {}
    for coords in level.derived_keys():
        key = node_key(level.array.path, level.array.meta.chunk_key(coords))
        if key.startswith(within):
            name, deeper, _ = key[len(within) :].partition("/")
            names[name] = bool(deeper)
    return names
