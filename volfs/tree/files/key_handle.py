"""An open key of a branch: a real file of the working copy.

Decided here: which reads wait for no thread, and that a file whose key was put anew under it (a slice over the chunk
was written, or a commit or discard moved what is underneath) goes on with what is there now, because the kernel caches
pages by inode, and the inode is the name's. What it had before is closed once no request uses it.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from volfs.errors import VolfsError
from volfs.tree.branches.invalidation import KeyChange
from volfs.tree.contract.attrs import Attr
from volfs.tree.core.layout_handle import read_resident
from volfs.tree.core.open_files import Handle, wants_writing
from volfs.versions.keys import NODE_JSON
from volfs.versions.working.open_files import WorkingFile

if TYPE_CHECKING:
    from volfs.tree.branches.mounted_branch import MountedBranch

_T = TypeVar("_T")

#: More is not copied into the disk's page cache on the tree's thread.
_INLINE_BYTES = 1 << 20


class KeyHandle(Handle):
    """One open file under ``zarr/`` or ``files/``."""

    def __init__(self, mounted: MountedBranch, ino: int, file: WorkingFile, flags: int) -> None:
        super().__init__(ino)
        self.mounted: MountedBranch = mounted
        self.writable = wants_writing(flags)
        #: Its last name is gone, so it shows nothing but itself any more.
        self.unlinked = False
        self._file = file
        self._key = file.key
        self._changed = bool(flags & (os.O_TRUNC | os.O_CREAT))
        # Files it has gone over from, and how many requests are under way that may be using one of them.
        self._retired: list[WorkingFile] = []
        self._uses = 0
        self._closed = False
        # Going over to another file happens in threads that look at stamps.
        self._mutex = threading.Lock()

    @property
    def key(self) -> str | None:
        """Its key now; None once it has been removed or replaced."""
        return self._file.key

    async def read(self, offset: int, size: int) -> bytes:
        with self._used() as file:
            if file.fd is not None and not self.mounted.far:
                data = read_resident(file.fd, size, offset)
                if data is not None:
                    return data
        return await self.mounted.context.in_time(partial(self._fetch, offset, size))

    async def _fetch(self, offset: int, size: int) -> bytes:
        with self._used() as file:
            return bytes(await self.mounted.fetch(lambda: file.pread(size, offset)))

    async def write(self, offset: int, data: bytes) -> int:
        self._changed, self.flushed, self.synced = True, False, False
        with self._used() as file:
            if len(data) > _INLINE_BYTES:
                return int(await self.mounted.fetch(lambda: file.pwrite(data, offset)))
            return await self.mounted.soon(lambda: file.pwrite(data, offset), fetch=True)

    async def truncate(self, size: int) -> None:
        self._changed, self.flushed, self.synced = True, False, False
        with self._used() as file:
            await self.mounted.look(lambda: file.truncate(size))
        await self.mounted.kernel.invalidate_soon(KeyChange(through=self.ino))

    async def flush(self) -> None:
        self.flushed = self.writable
        if not self._changed:
            return
        self._changed = False
        if self._file.key is None:
            return
        if self._file.key.endswith(NODE_JSON):
            self.mounted.images.forget()
        keys = await self._asked(self._own_keys)
        await self.mounted.kernel.invalidate(KeyChange(keys, through=self.ino))
        await self._asked(self._shown_by_itself)

    async def fsync(self) -> None:
        with self._used() as file:
            await self.flush()
            await self.mounted.look(file.fsync)
        self.synced = self.flushed

    async def release(self) -> None:
        self.mounted.closing += 1
        try:
            await self.flush()
        finally:
            try:
                # The bytes of a file without a name go with its last handle, which may take a while.
                if self.unlinked or not await self.mounted.soon(lambda: self._close(wait=False)):
                    await self.mounted.look(self._close)
            finally:
                self.mounted.closing -= 1

    def _close(self, *, wait: bool = True) -> bool:
        """Close the file. Without ``wait``, return False instead of waiting for a thread that reads the stamp: that
        thread may itself be waiting for the working copy, which the caller holds."""
        if not self._mutex.acquire(blocking=wait):
            return False
        try:
            self._closed = True
            for file in (self._file, *self._retired):
                file.close()
        finally:
            self._mutex.release()
        return True

    # -- its bytes ----------------------------------------------------------------------------------------------------

    def stamp(self) -> Hashable:
        """The file's identity, time and size, after a change to the key's present file if that was put by another
        writer."""
        with self._mutex:
            if self._closed:
                return None
            if not self.unlinked:
                self._follow()
            self._let_go()
            fd = self._file.fd
            if fd is None:
                info = self._file.stat()
                return info.version, info.mtime_ns, info.size
            return _stamp_of(os.fstat(fd))

    def concerned(self, keys: Collection[str]) -> bool:
        return self.key is None or self.key in keys

    def as_shown(self) -> bool:
        with self._used() as file:
            fd, key = file.fd, file.key
            if fd is None or key is None or self.unlinked:
                return False
            there = self.mounted.branch.working.disk_stat(key)
            return there is not None and self.known_stamp == _stamp_of(os.fstat(fd)) == _stamp_of(there)

    async def _asked(self, question: Callable[[WorkingFile], _T]) -> _T:
        """The answer to a question about the present file."""
        with self._used() as file:
            return await self.mounted.asked(lambda: question(file))

    @staticmethod
    def _own_keys(file: WorkingFile) -> Collection[str] | None:
        """The keys that a write through this file changes: its own; None (unknown) for a file with several names."""
        fd, key = file.fd, file.key
        return (key,) if key is not None and fd is not None and os.fstat(fd).st_nlink == 1 else None

    def _shown_by_itself(self, file: WorkingFile) -> None:
        """Note that the kernel's pages are right: they were written through this file.

        The stamp is that of this very file: if another one was put under the key meanwhile, the stamps differ.
        """
        if file.fd is not None and self.known_stamp is not None:
            found = os.fstat(file.fd)
            if found.st_nlink == 1:
                self.known_stamp = _stamp_of(found)

    def _follow(self) -> None:
        key = self._file.key or self._key
        if key is None:
            return
        self._key = key
        working = self.mounted.branch.working
        there, fd = working.disk_stat(key), self._file.fd
        mine = os.fstat(fd).st_ino if fd is not None else None
        if there is not None and there.st_ino == mine:
            return
        if there is None and fd is None and self._file.key is not None:
            return  # both are the base's, which the file follows
        with suppress(VolfsError, OSError):
            again = working.open(key, os.O_RDWR if self.writable else os.O_RDONLY)
            self._retired.append(self._file)
            self._file = again

    @contextmanager
    def _used(self) -> Iterator[WorkingFile]:
        """The present file, which stays open within the block. Call it on the tree's thread."""
        # Counted first, read second: a thread that replaces the file after that sees that it is used.
        self._uses += 1
        try:
            yield self._file
        finally:
            self._uses -= 1

    def _let_go(self) -> None:
        """Close the files that no request uses any more. Call it with the mutex held."""
        # New requests use the new file. Files that requests under way use are closed at a later call.
        if not self._uses:
            while self._retired:
                self._retired.pop().close()

    async def orphan_attr(self) -> Attr | None:
        if not self.unlinked:
            return None
        info = await self._asked(WorkingFile.stat)
        mode = stat.S_IFREG | (info.mode or 0o644)
        return self.mounted.context.file_attr(self.ino, info.size, info.mtime_ns, mode=mode, nlink=0)


def _stamp_of(found: os.stat_result) -> Hashable:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
