"""Reading: from memory at once, else in a thread.

Decided here: when a read is answered on the tree's own thread (what it needs is decoded, or in the page cache of the
disk), and what is kept of small stored files. Not here: what bytes a slice has (:mod:`volfs.views.layout`), and the
cache of decoded blocks (:mod:`volfs.volume.cache`).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from volfs.model.box import Box, Index
from volfs.tree.handles import Handle
from volfs.tree.shared import Shared
from volfs.versions.snapshot import Snapshot
from volfs.views.layout import Layout, Memo
from volfs.volume.level import Level

#: A checksum at the end of a file needs all of it; more than this is not summed on the tree's thread.
_SUMMED_INLINE = 4 << 20
#: Checksums and trailers lie within this many bytes of the end.
_TAIL = 4096
#: Stored files up to this size are read whole, once, by whoever reads any of them.
WHOLE = 1 << 20
#: More is not copied from the disk's page cache on the tree's thread.
_INLINE_BYTES = 256 << 10


class NotCached(Exception):
    """What a read needs is not in memory."""


class CachedVoxels:
    """The voxels of a level that can be had with no I/O. Raises :class:`NotCached` for others."""

    def __init__(self, level: Level) -> None:
        self._level = level

    @property
    def shape(self) -> Index:
        return self._level.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._level.dtype

    def read(self, box: Box) -> np.ndarray:
        voxels = self._level.read_cached(box)
        if voxels is None:
            raise NotCached
        return voxels

    def write(self, box: Box, voxels: np.ndarray) -> None:
        raise NotCached


class SliceHandle(Handle):
    """A slice that is read through its layout."""

    def __init__(self, shared: Shared, ino: int, dataset: str, level: Level, layout: Layout) -> None:
        super().__init__(ino)
        self._shared = shared
        self._dataset = dataset
        self._level = level
        self._cached = CachedVoxels(level)
        self._layout = layout
        self.memo: Memo = {}

    @property
    def size(self) -> int:
        return self._layout.size

    async def read(self, offset: int, size: int) -> memoryview:
        layout = self._layout
        out = memoryview(bytearray(max(0, min(size, layout.size - offset))))
        if not out:
            return out
        if layout.size <= _SUMMED_INLINE or offset + len(out) <= layout.size - _TAIL:
            try:
                layout.read_into(self._cached, offset, out, self.memo)
                return out
            except NotCached:
                pass
        await self._shared.fetch(self._dataset, lambda: layout.read_into(self._level, offset, out, self.memo))
        return out


class StoredFileHandle(Handle):
    """A key of a version, as it is stored."""

    def __init__(self, shared: Shared, ino: int, dataset: str, snapshot: Snapshot, key: str, size: int) -> None:
        super().__init__(ino)
        self._shared = shared
        self._dataset = dataset
        self._snapshot = snapshot
        self._key = key
        self._size = size

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        size = max(0, min(size, self._size - offset))
        if not size:
            return b""
        snapshot, key = self._snapshot, self._key
        if self._size > WHOLE:
            return await self._shared.fetch(self._dataset, lambda: snapshot.read(key, offset, size))
        name = (snapshot.generation(), key)
        data = self._shared.payloads.get(name)
        if data is None:
            data = await self._shared.fetch(self._dataset, lambda: snapshot.read(key))
            self._shared.payloads.put(name, data)
        return memoryview(data)[offset : offset + size]


def read_resident(fd: int, size: int, offset: int) -> bytes | None:
    """Bytes of a file if the disk need not be waited for, else None."""
    if size > _INLINE_BYTES:
        return None
    out = bytearray(size)
    try:
        count = os.preadv(fd, [out], offset, os.RWF_NOWAIT)
    except OSError:  # not resident, or a filesystem that cannot tell
        return None
    if count < size and offset + count < os.fstat(fd).st_size:
        return None
    return bytes(memoryview(out)[:count])
