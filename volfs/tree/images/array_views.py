"""Arrays, images and hierarchies of a snapshot, as the formats of :mod:`volfs.views.folder` want to see them.

Decided here: that a format sees an array through the level that it is, so that in a branch every view agrees with s0.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from volfs.errors import NotFound, Unsupported, VolfsError
from volfs.model.box import Box, Index
from volfs.model.metadata import ArrayMeta
from volfs.tree.images.image_index import ImageIndex
from volfs.versions.keys import json_key
from volfs.versions.snapshot import ArrayNode, GroupNode
from volfs.views.folder import ImageView, LevelView
from volfs.volume.image import Image, array_level
from volfs.volume.level import Level
from volfs.volume.payloads import (
    Encoded,
    block_payload,
    block_sizes,
    key_payload,
    present_blocks,
    stored_blocks_along,
    stored_keys_along,
)


class ShownArray:
    """An array with its level, None where its codecs are not known: see :class:`volfs.views.folder.ArrayView`."""

    def __init__(self, node: ArrayNode, level: Level | None) -> None:
        self._node = node
        self._level = level
        meta = node.meta
        self._meta = meta if level is None or level.shape == meta.shape else replace(meta, shape=level.shape)

    @property
    def level(self) -> Level:
        """The level. Raises Unsupported if its codecs are not known."""
        if self._level is None:
            raise Unsupported(f"{self._node.path or 'the root array'} has codecs that are not known")
        return self._level

    @property
    def meta(self) -> ArrayMeta:
        return self._meta

    @property
    def path(self) -> str:
        return self._node.path

    @property
    def shape(self) -> Index:
        return self._meta.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._meta.dtype

    @property
    def readable(self) -> bool:
        return self._level is not None

    @property
    def block_shape(self) -> Index:
        if self._level is not None:
            return self._level.chunk_shape
        return self._meta.sharding.chunk_shape if self._meta.sharding is not None else self._meta.chunk_shape

    @property
    def block_codecs(self) -> Sequence[Mapping[str, Any]]:
        sharding = self._meta.sharding
        sharded = sharding is not None and self.block_shape == sharding.chunk_shape
        return sharding.codecs if sharded and sharding is not None else self._meta.codecs

    # -- voxels -----------------------------------------------------------------------------------------------------

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        return self.level.read(box, out)

    def read_cached(self, box: Box, out: np.ndarray | None = None) -> np.ndarray | None:
        """The voxels if they can be had without any I/O."""
        return self.level.read_cached(box, out)

    def write(self, box: Box, voxels: np.ndarray) -> None:
        self.level.write(box, voxels)

    def newest(self, box: Box) -> int:
        if self._level is not None:
            return self._level.newest(box)
        return self._node.newest_in(self._node.meta.grid.chunks(box))

    def stamp(self, box: Box) -> Hashable:
        return self._level.stamp(box) if self._level is not None else self._node.snapshot.generation()

    # -- payloads ---------------------------------------------------------------------------------------------------

    def present(self, blocks: Box) -> np.ndarray:
        if self._level is not None:
            return present_blocks(self._level, blocks)
        return self._node.present(blocks)

    def stored_along(self, axis: int, blocks: Box) -> Sequence[int]:
        if self._level is not None:
            return stored_blocks_along(self._level, axis, blocks)
        return self._node.indices(axis, blocks)

    def keys_along(self, axis: int, keys: Box) -> Sequence[int]:
        if self._level is not None:
            return stored_keys_along(self._level, axis, keys)
        return self._node.indices(axis, keys)

    def block_size(self, block: Index) -> int | None:
        found = block_payload(self.level, block)
        return None if found is None else found.size

    def block_sizes(self, blocks: Box) -> np.ndarray:
        return block_sizes(self.level, blocks)

    def block_bytes(self, block: Index, size: int, offset: int, length: int) -> bytes:
        return _read(block_payload(self.level, block), block, size, offset, length)

    def key_size(self, key: Index) -> int | None:
        found = self._key(key)
        return None if found is None else found.size

    def key_bytes(self, key: Index, size: int, offset: int, length: int) -> bytes:
        return _read(self._key(key), key, size, offset, length)

    def _key(self, key: Index) -> Encoded | None:
        if self._level is not None:
            return key_payload(self._level, key)
        stored = self._node.payloads(Box(key, tuple(i + 1 for i in key))).get(key)
        return None if stored is None else Encoded(stored.size, stored.read)


def _read(found: Encoded | None, at: Index, size: int, offset: int, length: int) -> bytes:
    if found is None or found.size != size:
        raise NotFound(f"chunk {at} is not stored any more as it was when the file was opened")
    return found.read(offset, length)


class ShownNode:
    """A node of the hierarchy: see :class:`volfs.views.folder.NodeView`."""

    def __init__(self, images: ImageIndex, node: ArrayNode | GroupNode, name: str) -> None:
        self._images = images
        self._node = node
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def array(self) -> ShownArray | None:
        return shown_array(self._images, self._node) if isinstance(self._node, ArrayNode) else None

    @property
    def attributes(self) -> Mapping[str, Any]:
        return self._node.attributes if isinstance(self._node, GroupNode) else self._node.meta.attributes

    @property
    def mtime(self) -> int:
        return self._node.mtime_ns

    def children(self) -> Sequence[str]:
        return self._images.snapshot.children(self._node.path) if isinstance(self._node, GroupNode) else ()

    def child(self, name: str) -> ShownNode | None:
        if not isinstance(self._node, GroupNode):
            return None
        return shown_node(self._images, f"{self._node.path}/{name}" if self._node.path else name, name)


def shown_node(images: ImageIndex, path: str, name: str) -> ShownNode | None:
    """The node at a hierarchy path; None if there is none that can be read."""
    try:
        node = images.snapshot.node(path)
    except VolfsError:
        return None
    return None if node is None else ShownNode(images, node, name)


def shown_array(images: ImageIndex, node: ArrayNode) -> ShownArray:
    """An array of a snapshot, through the level that it is."""
    level = images.level_of(node.path)
    if level is None and node.readable:
        level = array_level(node)
    return ShownArray(level.array if level is not None else node, level)


def shown_image(images: ImageIndex, image: Image, name: str) -> ImageView | None:
    """An image; None if it has no planes, and so no format could show it."""
    geometry = images.geometry(image.path, image.levels[0].name)[1]
    if geometry is None:
        return None
    levels = tuple(
        LevelView(level.name, ShownArray(level.array, level), level.scale, level.translation) for level in image.levels
    )
    node = images.snapshot.node(image.path)
    info = images.snapshot.stat(json_key(image.path))
    times = [level.array.mtime_ns for level in image.levels]
    return ImageView(
        name,
        image.axes,
        levels,
        geometry.z,
        geometry.y,
        geometry.x,
        geometry.sample,
        is_label=image.is_label,
        attributes=node.attributes if isinstance(node, GroupNode) else image.levels[0].array.meta.attributes,
        mtime=max(*times, info.mtime_ns if info is not None else 0),
    )
