"""Open files that are read through a byte layout, or as they are stored: from memory at once, else in a thread.

Decided here: when a read is answered on the tree's own thread (its voxels are decoded, or its bytes in the page cache
of the disk), and which small stored files are kept. Not here: the bytes of a slice (:mod:`volfs.views.layout`), and the
cache of decoded blocks (:mod:`volfs.volume.cache`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import trio

from volfs.model.box import Box, Index
from volfs.tree.core.context import TreeContext
from volfs.tree.core.open_files import Handle
from volfs.versions.snapshot import Snapshot
from volfs.views.layout import Layout, Memo, Shifted, VoxelSource
from volfs.volume.deadline import within

#: A checksum at the end of a file needs all of it; more than this is not summed on the tree's thread.
_SUMMED_INLINE = 4 << 20
#: Files up to this size are made whole for a first read that asks for half of them or more.
_WHOLE_FILE = 2 << 20
#: Checksums and trailers lie within this many bytes of the end.
_TAIL = 4096
#: Stored files up to this size are read whole, once, by whoever reads any of them.
WHOLE = 1 << 20
#: More is not copied from the disk's page cache on the tree's thread.
_INLINE_BYTES = 256 << 10
#: More is not read and checked on the tree's thread even if the disk need not be waited for.
_CHECKED_INLINE = 512 << 10


class NotCached(Exception):
    """Voxels or payloads that a read needs are not in memory."""


class QuickSource(VoxelSource, Protocol):
    """A source that gives voxels without any I/O if they are in memory: a level."""

    def read_cached(self, box: Box, out: np.ndarray | None = None) -> np.ndarray | None: ...


@dataclass(frozen=True, slots=True)
class QuickShifted(Shifted):
    """Such a source, shifted."""

    source: QuickSource

    def read_cached(self, box: Box, out: np.ndarray | None = None) -> np.ndarray | None:
        return self.source.read_cached(box.shift(self.start), out)


class CachedVoxels:
    """The voxels of a source that can be had with no I/O. Raises :class:`NotCached` for others, and for payloads."""

    def __init__(self, source: QuickSource) -> None:
        self._source = source

    @property
    def shape(self) -> Index:
        return self._source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._source.dtype

    def block_bytes(self, block: Index, size: int, offset: int, length: int) -> bytes:
        raise NotCached

    key_bytes = block_bytes

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        voxels = self._source.read_cached(box, out)
        if voxels is None:
            raise NotCached
        return voxels

    def write(self, box: Box, voxels: np.ndarray) -> None:
        raise NotCached


class LayoutHandle(Handle):
    """A file that is read through its layout. With ``quick``, what is in memory is answered at once; ``served`` is
    called with (offset, length) when bytes were read."""

    def __init__(
        self,
        context: TreeContext,
        ino: int,
        dataset: str,
        source: VoxelSource,
        layout: Layout,
        quick: QuickSource | None = None,
        *,
        served: Callable[[int, int], object] | None = None,
        stateless: bool = False,
    ) -> None:
        super().__init__(ino)
        self.stateless = stateless
        self._context = context
        self._dataset = dataset
        self._served = served
        self._source = source
        self._cached = CachedVoxels(quick) if quick is not None else None
        self._layout = layout
        self._memo: Memo = {}
        # The end of a file that was made whole for its first read, from some offset on; while that is under way, who
        # waits for it.
        self._rest: tuple[int, memoryview] | None = None
        self._first_read: trio.Event | None = None

    @property
    def size(self) -> int:
        return self._layout.size

    @property
    def kept(self) -> int:
        """The number of bytes that are kept for the next read."""
        rest = self._rest
        return len(rest[1]) if rest is not None else 0

    def changed(self) -> None:
        """The voxels may be others now: drop checksums and kept bytes."""
        self._memo = {}
        self._keep(None)

    async def read(self, offset: int, size: int) -> memoryview:
        size = max(0, min(size, self._layout.size - offset))
        if offset and self._first_read is not None:
            await self._first_read.wait()
        if self._rest is not None and offset >= self._rest[0]:
            start, rest = self._rest
            if size and offset + size == self._layout.size:
                self._keep(None)
            return rest[offset - start :][:size]
        if offset == 0 and size < self._layout.size <= min(2 * size, _WHOLE_FILE):
            return await self._first(size)
        return await self._bytes(offset, size)

    async def _first(self, size: int) -> memoryview:
        """The beginning of a file that the kernel asks for in two requests: the bytes for both cost little more."""
        made = self._first_read = trio.Event()
        memo = self._memo
        try:
            data = await self._bytes(0, self._layout.size)
            if self._memo is memo:
                # A copy: a view would keep the beginning too.
                self._keep((size, memoryview(bytes(data[size:]))))
            return data[:size]
        finally:
            made.set()
            self._first_read = None

    def _keep(self, rest: tuple[int, memoryview] | None) -> None:
        if rest is not None:
            _keeping[self] = None
        elif self._rest is not None:
            _keeping.pop(self, None)
        self._rest = rest

    async def _bytes(self, offset: int, size: int) -> memoryview:
        layout, memo = self._layout, self._memo
        out = np.empty(size, np.uint8).data
        if not out:
            return out
        cached = self._cached
        if cached is not None and (layout.size <= _SUMMED_INLINE or offset + len(out) <= layout.size - _TAIL):
            try:
                layout.read_into(cached, offset, out, memo)
                return self._told(offset, out)
            except NotCached:
                pass
        await self._fetch(lambda: layout.read_into(self._source, offset, out, memo))
        return self._told(offset, out)

    def _told(self, offset: int, out: memoryview) -> memoryview:
        if self._served is not None:
            self._served(offset, len(out))
        return out

    async def _fetch(self, work: Callable[[], None]) -> None:
        """Read many chunks, or wait for the disk, within the limit of the request."""
        context, limit = self._context, self._context.limit
        await context.in_time(lambda: context.fetch(self._dataset, partial(within, limit, work)))


#: Those that keep the end of their file, in all mounts of the process. Weak, since not all are told of their close: an
#: open slice has one of these within.
_keeping: WeakKeyDictionary[LayoutHandle, None] = WeakKeyDictionary()


def kept_bytes(context: TreeContext) -> int:
    """The number of bytes that the open files of a mount keep for their next reads. Safe in a thread."""
    handles = [handle for ref in _keeping.keyrefs() if (handle := ref()) is not None]
    return sum(handle.kept for handle in handles if handle._context is context)


class StoredFileHandle(Handle):
    """A key of a version, as it is stored."""

    def __init__(self, context: TreeContext, ino: int, dataset: str, snapshot: Snapshot, key: str, size: int) -> None:
        super().__init__(ino)
        self._context = context
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
            return await self._fetch(lambda: snapshot.read(key, offset, size))
        name = (snapshot.generation(), key)
        data = self._context.payloads.get(name)
        if data is None and self._size <= _CHECKED_INLINE:
            data = snapshot.read_resident(key)
        if data is None:
            data = await self._fetch(lambda: snapshot.read(key))
        if size < self._size:
            self._context.payloads.put(name, data)
        return memoryview(data)[offset : offset + size]

    async def _fetch(self, work: Callable[[], bytes | memoryview]) -> bytes | memoryview:
        return await self._context.in_time(lambda: self._context.fetch(self._dataset, work))


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
