"""Open files, and the table of them.

Decided here: file handle numbers, ``keep_cache`` (the pages of an inode are kept at open if nothing it shows has
changed since it was last opened), and finding the open handles that a change concerns. Not here: the bytes of a file
(the node modules), nor when the kernel drops its pages (:mod:`volfs.tree.branches.invalidation`).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator

from volfs.errors import BadInput, ReadOnly
from volfs.model.bounded_map import BoundedMap
from volfs.tree.contract.api import OpenFile
from volfs.tree.contract.attrs import Attr
from volfs.tree.core.ports import BranchState

#: Inodes whose last stamp is remembered. One that is forgotten is merely read again.
_STAMPS = 100_000


#: Set in the number of an open file that is nothing but its inode, which is the rest. A front opens such files by
#: itself, and reads what it can of them; the tree reads what it cannot.
STATELESS = 1 << 63
_STATELESS_FILES = 256


def wants_writing(flags: int) -> bool:
    """True if open flags ask for anything but reading."""
    return flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)


class Handle:
    """One open file."""

    #: No page cache: for control files only.
    direct_io = False
    #: The branch whose changes can change what is read; None for what never changes or is rendered at open.
    mounted: BranchState | None = None
    writable = False
    #: The user who opened it, by number or name; None if nobody said.
    caller: int | str | None = None
    #: A change of any key of its branch may concern it.
    onlooker = True
    #: Whether :meth:`stamp` may look up chunks, and so belongs in a thread.
    slow_stamp = False
    #: True if any open file of its inode is as good, and none needs to be closed: see :data:`STATELESS`.
    stateless = False

    def __init__(self, ino: int) -> None:
        #: The inode it was opened through: a slice's own, or that of a temporary file that became the slice.
        self.ino = ino
        #: The stamp of the bytes that the kernel may have cached.
        self.known_stamp: Hashable = None

    @property
    def flushed(self) -> bool:
        """Open for writing, but nothing was written since one of its descriptors was closed: most likely it was the
        last."""
        return False

    @property
    def synced(self) -> bool:
        """:attr:`flushed`, by an fsync: so do NFS servers, which keep files open for a while, and programs that go on
        writing."""
        return False

    def registered(self, fh: int) -> None:
        """Called when it has its number."""

    def renamed(self) -> None:
        """Called when its name has become another."""

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        raise BadInput("this file is not open for reading")

    async def write(self, offset: int, data: bytes) -> int:
        raise ReadOnly("this file is not open for writing")

    async def truncate(self, size: int) -> None:
        raise ReadOnly("this file is not open for writing")

    async def flush(self) -> None:
        """Called at each close of a descriptor."""

    async def fsync(self) -> None:
        """Make what was written durable."""

    def shared(self) -> bool:
        """True if the front has opened it for another program, which goes on: one of the two is released."""
        return False

    async def release(self) -> None:
        """Called after the last close. Its errors reach no program."""

    def close_soon(self) -> None:
        """Close it after the front has answered for :meth:`release`: nothing is left to be decided. Does not block."""

    def stamp(self) -> Hashable:
        """A value that stands for the bytes that the file has now: equal stamps, equal bytes. Safe to call in a thread.

        None: the bytes cannot change for the length of the mount.
        """
        return None

    def quick_stamp(self) -> Hashable:
        """A cheap value that is equal only if :meth:`stamp` is; None if there is none."""
        return None

    def concerned(self, keys: Collection[str]) -> bool:
        """True if its bytes may be others once these keys have changed."""
        return True

    def as_shown(self) -> bool:
        """True if its bytes are surely those of :attr:`known_stamp`. Does not block."""
        return False

    async def orphan_attr(self) -> Attr | None:
        """The attributes of a file that has no name any more; None if it has one."""
        return None


class BytesHandle(Handle):
    """A file whose bytes were fixed at open."""

    def __init__(self, ino: int, data: bytes) -> None:
        super().__init__(ino)
        self._data = memoryview(data)

    async def read(self, offset: int, size: int) -> memoryview:
        return self._data[offset : offset + size]


class FileTable:
    """The open files of the mount."""

    def __init__(self) -> None:
        self._next = 1
        self._open: dict[int, Handle] = {}
        self._by_ino: defaultdict[int, set[Handle]] = defaultdict(set)
        #: (quick stamp, stamp) of inodes when they were last opened.
        self.stamps: BoundedMap[int, tuple[Hashable, Hashable]] = BoundedMap(_STAMPS)
        #: Those of which the tree reads what the front cannot, by inode.
        self.stateless: BoundedMap[int, Handle] = BoundedMap(_STATELESS_FILES)
        #: Opened as such here less closed here: what the front opened may be closed here, and the other way round.
        self.stateless_open = 0

    def __len__(self) -> int:
        return len(self._open)

    def add(self, handle: Handle, *, keep_cache: bool) -> OpenFile:
        """Register an open file. Returns its number and flags, for the kernel."""
        if handle.stateless:
            self.stateless.put(handle.ino, handle)
            self.stateless_open += 1
            return OpenFile(handle.ino | STATELESS, keep_cache=True, direct_io=False)
        fh = self._next
        self._next += 1
        self._open[fh] = handle
        self._by_ino[handle.ino].add(handle)
        if handle.onlooker and handle.mounted is not None:
            handle.mounted.watched(1)
        handle.registered(fh)
        return OpenFile(fh, keep_cache=keep_cache and not handle.direct_io, direct_io=handle.direct_io)

    def __contains__(self, fh: int) -> bool:
        return fh in self._open

    def get(self, fh: int) -> Handle:
        """Raises BadInput for one that is not open."""
        handle = self._open.get(fh)
        if handle is None:
            raise BadInput(f"no open file {fh}")
        return handle

    def remove(self, fh: int) -> Handle | None:
        """Take a file out of the table; None if it is out already, or was never in it."""
        if fh & STATELESS:
            self.stateless_open -= 1
            return None
        handle = self._open.pop(fh, None)
        if handle is not None:
            there = self._by_ino[handle.ino]
            there.discard(handle)
            if not there:
                del self._by_ino[handle.ino]
            if handle.onlooker and handle.mounted is not None:
                handle.mounted.watched(-1)
        return handle

    def let_go(self) -> None:
        """Record that a file was released that the front has opened."""
        self.stateless_open -= 1

    def released(self, fh: int) -> Handle | None:
        """Take a file out that the front has released; None if it is out already."""
        self.stateless_open += 1  # the front counts it among those that it closed, and has not opened it
        return self.remove(fh)

    def at(self, ino: int) -> tuple[Handle, ...]:
        """The open files of an inode."""
        return tuple(self._by_ino.get(ino, ()))

    def of_branch(self, mounted: BranchState) -> Iterator[Handle]:
        """The open files that a change in a branch may concern."""
        return (handle for handle in self._open.values() if handle.mounted is mounted)

    def numbers(self) -> list[int]:
        """All handles, to close them."""
        return list(self._open)

    @staticmethod
    async def close_unregistered(handle: Handle) -> None:
        """Flush and release a handle that no client was given."""
        await handle.flush()
        await handle.release()
