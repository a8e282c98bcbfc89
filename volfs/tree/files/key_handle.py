"""An open key of a branch: a real file of the working copy.

Decided here: which reads wait for no thread; which files are lent to the front, which then answers their writes, and
flushes and syncs that decide nothing (``volfs/native/files.h``); and that a file whose key was put anew under it (a
slice over the chunk was written, or a commit or discard moved what is underneath) goes on with what is there now,
because the kernel caches pages by inode, and the inode is the name's. What it had before is closed once no request
uses it.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

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


@dataclass(slots=True)
class FileState:
    """What became of an open file, where no front knows."""

    #: Written since the last flush.
    changed: bool
    #: Flushed since the last write, and whether that was a sync.
    flushed: bool = False
    synced: bool = False

    def take_shown(self) -> bool:
        """True, once, if it was flushed without Python."""
        return False

    def take_error(self) -> int:
        """The errno of a sync without Python that failed, once; 0 if none did."""
        return 0

    def take_open(self) -> bool:
        """True if it was opened without Python once more than it was released: then it is released."""
        return False


class KeyHandle(Handle):
    """One open file under ``zarr/`` or ``files/``."""

    onlooker = False

    def __init__(self, mounted: MountedBranch, ino: int, file: WorkingFile, flags: int) -> None:
        super().__init__(ino)
        self.mounted: MountedBranch = mounted
        self.writable = wants_writing(flags)
        #: Its last name is gone, so it shows nothing but itself any more.
        self.unlinked = False
        self._file = file
        self._key = file.key
        #: Or the front's ``core.File``, once the file has been lent.
        self._state: Any = FileState(changed=bool(flags & (os.O_TRUNC | os.O_CREAT)))
        # While it is lent: the number of the open file, and that under which its changes are noted.
        self._lent: tuple[int, int] | None = None
        # Files it has gone over from, and how many requests are under way that may be using one of them.
        self._retired: list[WorkingFile] = []
        self._uses = 0
        self._closed = False
        # Going over to another file happens in threads that look at stamps.
        self._mutex = threading.Lock()

    @property
    def flushed(self) -> bool:
        return bool(self._state.flushed)

    @property
    def synced(self) -> bool:
        return bool(self._state.synced)

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
        self._written()
        with self._used() as file:
            if len(data) > _INLINE_BYTES:
                return int(await self.mounted.fetch(lambda: file.pwrite(data, offset)))
            return await self.mounted.soon(lambda: file.pwrite(data, offset), fetch=True)

    async def truncate(self, size: int) -> None:
        self._written()
        with self._used() as file:
            # What is cut off is given back to the disk, which takes a while if it is much.
            little = file.fd is not None and not self.mounted.far and os.fstat(file.fd).st_size - size <= _INLINE_BYTES
            change = self.mounted.soon if little else self.mounted.look
            await change(lambda: file.truncate(size))
        await self.mounted.kernel.invalidate_soon(KeyChange(through=self.ino))

    async def flush(self) -> None:
        state = self._state
        state.flushed = self.writable
        if not state.changed:
            return
        state.changed = False
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
            failed = self._state.take_error()
            await self.mounted.look(lambda: file.fsync(failed))
        self._state.synced = self.flushed
        self._place()

    def shared(self) -> bool:
        return bool(self._state.take_open())

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

    def close_soon(self) -> None:
        mounted = self.mounted
        if not self.unlinked:  # else its bytes go with it, which may take a while
            with mounted.branch.working.at_once() as free:
                if free and self._close(wait=False):
                    return
        mounted.context.start(self._close_late)
        mounted.closing += 1

    async def _close_late(self) -> None:
        try:
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
            self._take_back()
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
            if not self.unlinked and self._file.count != self.mounted.branch.working.pulse.read():
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
            if self._state.take_shown():
                self._shown_by_itself(file)
            fd, key = file.fd, file.key
            if fd is None or key is None or self.unlinked:
                return False
            found = os.fstat(fd)
            if self.known_stamp != _stamp_of(found):
                return False
            if self.writable and found.st_nlink == 1:
                return True  # it lies in the top layer, and its only name is the key
            there = self.mounted.branch.working.disk_stat(key)
            return there is not None and _stamp_of(found) == _stamp_of(there)

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
            self._take_back()
            self._retired.append(self._file)
            self._file = again

    def _written(self) -> None:
        state = self._state
        state.changed, state.flushed, state.synced = True, False, False

    # -- without Python -----------------------------------------------------------------------------------------------

    def registered(self, fh: int) -> None:
        mounted, file = self.mounted, self._file
        lender, working = mounted.context.lender, mounted.branch.working
        key, fd, state = file.key, file.fd, self._state
        if lender is None or mounted.far or not mounted.held or not file.writable or fd is None or key is None:
            return
        if key.endswith(NODE_JSON):
            return  # closing it has the hierarchy walked again
        mounted.see_owner()
        number = working.pulse.lend(lambda: file.key)
        self._state = lent = lender.file(fd, number, working.pulse.numbers, mounted.onlookers)
        lent.changed, lent.flushed, lent.synced = state.changed, state.flushed, state.synced
        self._lent = fh, number
        file.on_attach(self._take_back)
        lender.lend_file(fh, self.ino, lent)
        self._place()

    def renamed(self) -> None:
        """Its key is another now."""
        lender, lent = self.mounted.context.lender, self._lent
        if lender is None or lent is None:
            return
        if self.key is None or self.key.endswith(NODE_JSON):
            self._take_back()
        else:
            lender.place_file(self._state, None)

    def _place(self) -> None:
        """Have the front's syncs of a lent file include its name, if the directory that it is in is durable."""
        key, lender = self.key, self.mounted.context.lender
        if self._lent is None or lender is None or key is None:
            return
        folder = self.mounted.branch.working.anchor(key.rpartition("/")[0])
        if folder is not None:
            lender.place_file(self._state, folder)

    def _take_back(self) -> None:
        lent, lender = self._lent, self.mounted.context.lender
        if lent is not None and lender is not None:
            fh, number = lent
            lender.recall_file(fh)  # twice is fine: both wait until nobody writes
            self._lent = None
            self.mounted.branch.working.pulse.recall(number)

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
