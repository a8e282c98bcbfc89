"""The requests that a protocol adapter makes of a directory tree, and the notices that the tree makes of it.

Decided here: the shape of the boundary between ``volfs.tree`` and ``volfs.fuse`` (or a WebDAV or NFS front end: nothing
below names FUSE). Not here: what the tree contains (the node modules), nor anything about a wire protocol.

Contract
- Everything is called from one trio task tree, on one thread. Every coroutine may be called concurrently with every
  other one, for the same inode too; the tree does its own locking.
- Names are bytes, as the kernel gives them. Inodes are ints, the root is 1. No lookup counts are kept.
- Errors are :class:`volfs.errors.VolfsError` (its ``errno`` is the answer) or :class:`OSError` (its ``errno`` likewise,
  from the store's own filesystem). Anything else is a defect: the adapter logs it and answers EIO.
- Cancelling a call is safe: it has happened, or it has not.
- The tree calls the :class:`Notifier` by the rule that was found by deadlocking real mounts: ``flush``, ``fsync`` and
  ``rename`` onto a view *await* :meth:`Notifier.invalidate_inode` before they return; ``write`` and ``setattr`` never
  do; entries are only ever queued.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from trio import TaskStatus

from volfs.tree.contract.attrs import Attr, SetAttr
from volfs.tree.contract.meter import Meter
from volfs.tree.contract.time_limit import SECONDS

ROOT_INO = 1

#: rename flags of Linux (renameat2).
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2


class DirEntry(NamedTuple):
    """One name of a directory listing. ``cookie`` resumes the listing just after this entry, at any later time."""

    name: bytes
    attr: Attr
    cookie: int


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file. Pass ``keep_cache`` and ``direct_io`` on as they are: the kernel's defaults are the wrong ones."""

    fh: int
    keep_cache: bool = False
    direct_io: bool = False
    nonseekable: bool = False


class Notifier(Protocol):
    """Has the kernel drop what it caches. Implementations run the blocking calls in threads of their own."""

    async def invalidate_inode(self, ino: int) -> None:
        """Drop pages and attributes of ``ino``; returns when it is done. Never raises for an unknown inode."""

    def queue_inode(self, ino: int) -> None:
        """Drop pages and attributes of ``ino`` some time soon; returns at once."""

    def queue_entry(self, parent: int, name: bytes) -> None:
        """Drop the dentry ``name`` of ``parent`` some time soon; returns at once. Order among entries is kept."""


class NoNotifier:
    """A notifier for a tree without a kernel above it."""

    async def invalidate_inode(self, ino: int) -> None:
        return None

    def queue_inode(self, ino: int) -> None:
        return None

    def queue_entry(self, parent: int, name: bytes) -> None:
        return None


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """How a tree presents a store. ``uid`` and ``gid`` own what has no owner of its own. ``mountpoint`` goes into
    branch locks, so that others can say who holds one."""

    uid: int
    gid: int
    #: Bits that no mode has.
    umask: int = 0
    read_only: bool = False
    mountpoint: str | None = None
    #: How often other processes' commits are looked for.
    refresh_seconds: float = 0.5
    #: How long a slice that does not decode is kept after its last close.
    stage_seconds: float = 60.0
    #: How long the name of a removed slice stays hidden.
    hide_seconds: float = 5.0
    #: How long a write to a control file waits before it lets the action go on by itself.
    action_seconds: float = 10.0
    #: After how long a request that only looks is OutOfTime.
    answer_seconds: float = SECONDS
    #: Threads that decode and read disk, per dataset.
    threads: int = 8


class TreeApi(Protocol):
    """The tree, as an adapter sees it. :class:`volfs.tree.tree.Tree` is the implementation."""

    def passed(self, stack: int, plane: int) -> None:
        """A front has answered a read of a plane of what this tree lent it. Does not block."""

    def catch_up(self) -> None:
        """Take note of what a front has answered. Called before each request, and when it says so. Does not block."""

    @property
    def meter(self) -> Meter:
        """The counts and times of requests, which the adapter begins and ends there."""

    # -- life ---------------------------------------------------------------------------------------------------
    # Tree(store, options, notifier): no I/O. Then, in the daemon:
    #     async with trio.open_nursery() as nursery:
    #         await nursery.start(tree.run)      # background work: refresh, stages; returns control when ready
    #         ... serve ...
    #         await tree.close()                 # interprets what is staged, releases branches; run() then returns

    async def run(self, task_status: TaskStatus[None] = ...) -> None:
        """Background work until :meth:`close`. Start it with ``nursery.start``. Serve requests only afterwards."""

    async def close(self) -> None:
        """Finish: decode staged slices, close files, release the branches held. Idempotent. The store stays open."""

    # -- names --------------------------------------------------------------------------------------------------
    async def lookup(self, parent: int, name: bytes) -> Attr:
        """The entry ``name`` of directory ``parent``.

        ``ino == 0``: there is none, and that may be cached for ``entry_timeout``. Raises NotFound where absence must
        not be cached at all. ``b"."`` gives the inode itself (any inode ever handed out, files included, after a
        restart too), ``b".."`` its parent directory; NotFound for inodes that never were or are gone for good.
        """

    async def getattr(self, ino: int) -> Attr: ...

    async def readdir(self, ino: int, cookie: int) -> Iterator[DirEntry]:
        """Entries after ``cookie`` (0: from the start), without ``.`` and ``..``.

        Consume the iterator at once, without awaiting, until the reply is full, and drop it: it is a plain iterator
        over attributes already in memory. Cookies are at least 3 and need no open state. Every entry's ``attr`` may
        go into READDIRPLUS.
        """

    async def readlink(self, ino: int) -> bytes: ...

    async def forget(self, inodes: Sequence[tuple[int, int]]) -> None:
        """(inode, number of lookups) pairs that the kernel has dropped. Needed only for unlinked or renamed ones."""

    # -- changing names -----------------------------------------------------------------------------------------
    async def mkdir(self, parent: int, name: bytes, mode: int) -> Attr: ...

    async def rmdir(self, parent: int, name: bytes) -> None: ...

    async def unlink(self, parent: int, name: bytes) -> None: ...

    async def symlink(self, parent: int, name: bytes, target: bytes) -> Attr: ...

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Attr: ...

    async def rename(
        self, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int = 0
    ) -> None: ...

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int = 0) -> Attr:
        """Make a regular file without opening it (NFS servers create so); other kinds are NotAllowed."""

    # -- files --------------------------------------------------------------------------------------------------
    async def create(self, parent: int, name: bytes, mode: int, flags: int) -> tuple[OpenFile, Attr]: ...

    async def open(self, ino: int, flags: int, caller: int | str | None = None) -> OpenFile:
        """``caller`` is the user who opens it, in whose name a commit through it is made: by number, as the kernel
        knows him, or by the name under which he has logged in."""

    async def read(self, fh: int, offset: int, size: int) -> bytes | memoryview: ...

    async def write(self, fh: int, offset: int, data: bytes) -> int: ...

    async def flush(self, fh: int) -> None:
        """Called at every close(2) of a descriptor. An error that is raised is the error of that close."""

    async def fsync(self, fh: int, datasync: bool) -> None: ...

    async def fsyncdir(self, ino: int, datasync: bool) -> None: ...

    async def release(self, fh: int) -> None:
        """Called after the last close. NFS servers send no flush, so the work of a missing flush is done here."""

    async def setattr(self, ino: int, changes: SetAttr, fh: int | None = None) -> Attr: ...

    # -- the rest -----------------------------------------------------------------------------------------------
    async def statfs(self) -> os.statvfs_result:
        """Sizes of the filesystem that holds the store."""

    async def removexattr(self, ino: int, name: bytes) -> None:
        """OSError(ENODATA): mv falls back to copying quietly only so. There are no extended attributes otherwise."""
