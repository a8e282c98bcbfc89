"""The FUSE protocol on one side, the directory tree on the other, and nothing in between.

Decided here: how a reply of :class:`volfs.tree.contract.api.TreeApi` becomes a reply of pyfuse3, and how an exception
becomes an errno. Not here: the contents of files and directories (``volfs.tree``), when the kernel's cache is
invalidated (``volfs.tree``, through :mod:`volfs.fuse.notify`), the life of a mount (:mod:`volfs.fuse.daemon`).

Every handler is guarded. pyfuse3 ends the whole mount on any exception other than ``FUSEError``, and it does so too
for a reply of the wrong type, which it looks at outside the handler: so replies are given their exact types *inside*
the guard. ``trio.Cancelled`` and ``KeyboardInterrupt`` pass: they are how a daemon stops.
"""

from __future__ import annotations

import errno
import functools
import logging
import stat
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, TypeVar, cast

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from volfs.errors import Absent, Damaged, OutOfTime, StoreFormat, VolfsError
from volfs.fuse.mountpoints import BROKEN
from volfs.model.bounded_map import BoundedMap
from volfs.tree.contract.api import OpenFile, TreeApi
from volfs.tree.contract.attrs import Attr, SetAttr
from volfs.tree.contract.time_limit import only_looks
from volfs.tree.core.open_files import wants_writing
from volfs.versions.author import acting_for

log = logging.getLogger(__name__)

#: What the store's own filesystem answers when the machine, not the caller, is at fault.
_TROUBLE = BROKEN | {
    errno.EIO,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
}

#: Requests that change nothing, so that their clients need not wait for ever; ``open`` says so itself.
_LOOKS = frozenset({"lookup", "getattr", "readlink", "readdir", "read", "statfs"})

_told: BoundedMap[str, bool] = BoundedMap(256)
"""What was said of absent payloads lately."""

_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[Any]])


def answer(operation: str, error: BaseException) -> FUSEError:
    """The errno that answers ``error``, which is logged first if an operator should know of it."""
    if isinstance(error, FUSEError):
        return error
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return answer(operation, error.exceptions[0])  # a nursery wraps even a single failure
    if isinstance(error, VolfsError):
        if not isinstance(error, Absent) or _is_new(str(error)):
            log.log(_gravity(error), "%s: %s", operation, error)
        return FUSEError(error.errno or errno.EIO)
    if isinstance(error, OSError) and error.errno:
        if error.errno != errno.ENODATA:  # said of an attribute at every write(2)
            log.log(logging.ERROR if error.errno in _TROUBLE else logging.DEBUG, "%s: %s", operation, error)
        # Where the store lies on a mount whose daemon has died, ours must not look like one.
        return FUSEError(errno.EIO if error.errno in BROKEN else error.errno)
    if isinstance(error, MemoryError):
        log.error("%s: out of memory", operation)
        return FUSEError(errno.ENOMEM)
    log.error("%s: unexpected %s, answered with EIO", operation, type(error).__name__, exc_info=error)
    return FUSEError(errno.EIO)


def _is_new(message: str) -> bool:
    """Whether something has not been told lately: a viewer that goes through a partial clone asks for the same again
    and again."""
    known = _told.get(message)
    _told.put(message, True)
    return known is None


def _gravity(error: VolfsError) -> int:
    if isinstance(error, OutOfTime | Absent):
        return logging.WARNING
    return logging.ERROR if isinstance(error, Damaged | StoreFormat) else logging.DEBUG


def guarded(handler: _Handler) -> _Handler:
    """Let no exception but ``FUSEError`` out of a handler, count its requests, and set whether they only look.

    That is set for each request, since the task that answers it answers others later.
    """
    operation = handler.__name__
    looks = operation in _LOOKS

    @functools.wraps(handler)
    async def guard(self: Adapter, *args: Any) -> Any:
        meter = self.meter
        self._tree.catch_up()
        number = meter.begin(operation, args)
        only_looks.set(looks)
        try:
            return await handler(self, *args)
        except Exception as error:
            told = answer(operation, error)
            meter.errors[operation, told.errno] += 1
            meter.failed += told.errno in _TROUBLE
            raise told from None
        finally:
            meter.end(number)

    return cast(_Handler, guard)


def entry(attr: Attr) -> EntryAttributes:
    """``attr`` in the kernel's form."""
    out = EntryAttributes()
    out.st_ino = attr.ino
    out.generation = attr.generation
    out.entry_timeout = attr.entry_timeout
    out.attr_timeout = attr.attr_timeout
    out.st_mode = attr.mode
    out.st_nlink = attr.nlink
    out.st_uid = attr.uid
    out.st_gid = attr.gid
    out.st_rdev = attr.rdev
    size = attr.size
    out.st_size = size
    out.st_blocks = -(-size // 512) if attr.stored_blocks is None else attr.blocks
    out.st_blksize = attr.block_size
    mtime = attr.mtime
    out.st_mtime_ns = mtime
    out.st_atime_ns = attr.atime or mtime
    out.st_ctime_ns = attr.ctime or mtime
    return out


def file_info(file: OpenFile) -> FileInfo:
    """An open file in the kernel's form. ``keep_cache`` is always set: the default would keep stale pages."""
    return FileInfo(
        fh=file.fh,
        direct_io=file.direct_io,
        keep_cache=file.keep_cache,
        nonseekable=file.nonseekable,
    )


class Adapter(pyfuse3.Operations):
    """Answers the kernel from a tree.

    ``never_written``: the mount is read-only, so the first FLUSH is answered with ENOSYS and the kernel sends no more
    of them, one request less for every file that is opened and closed.
    """

    supports_dot_lookup = True  # NFS servers find an inode again by looking up "." in it
    enable_writeback_cache = False  # an error of a write must reach that write
    enable_acl = False

    def __init__(self, tree: TreeApi, *, never_written: bool = False) -> None:
        super().__init__()
        self._tree = tree
        self.meter = tree.meter
        self._never_written = never_written

    # -- names ----------------------------------------------------------------------------------------------------

    @guarded
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        return entry(await self._tree.lookup(parent_inode, name))

    @guarded
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return entry(await self._tree.getattr(inode))

    @guarded
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return bytes(await self._tree.readlink(inode))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        try:
            await self._tree.forget(inode_list)
        except Exception as error:
            answer("forget", error)  # FORGET has no reply, so this only writes the log

    @guarded
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return int(inode)  # cookies need no open state

    @guarded
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        reply, told, before = pyfuse3.readdir_reply, EntryAttributes(), None
        for name, attr, cookie in await self._tree.readdir(fh, start_id):
            rest = attr[1:]
            if rest == before:  # most neighbours differ in nothing but their inode, and what is told is copied
                told.st_ino = attr.ino
            else:
                told, before = entry(attr), rest
            if not reply(token, name, told, cookie):
                break

    @guarded
    async def releasedir(self, fh: FileHandleT) -> None:
        return None

    @guarded
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        await self._tree.fsyncdir(fh, datasync)

    # -- changing names -------------------------------------------------------------------------------------------

    @guarded
    async def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext) -> EntryAttributes:
        with acting_for(ctx.uid):
            return entry(await self._tree.mkdir(parent_inode, name, stat.S_IMODE(mode) & ~ctx.umask))

    @guarded
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        return entry(await self._tree.mknod(parent_inode, name, mode & ~ctx.umask, rdev))

    @guarded
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        with acting_for(ctx.uid):
            return entry(await self._tree.symlink(parent_inode, name, target))

    @guarded
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        return entry(await self._tree.link(inode, new_parent_inode, new_name))

    @guarded
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        with acting_for(ctx.uid):
            await self._tree.unlink(parent_inode, name)

    @guarded
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        with acting_for(ctx.uid):
            await self._tree.rmdir(parent_inode, name)

    @guarded
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        with acting_for(ctx.uid):
            await self._tree.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)

    # -- files ----------------------------------------------------------------------------------------------------

    @guarded
    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        file, attr = await self._tree.create(parent_inode, name, stat.S_IMODE(mode) & ~ctx.umask, flags)
        return file_info(file), entry(attr)

    @guarded
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        only_looks.set(not wants_writing(flags))
        return file_info(await self._tree.open(inode, flags, ctx.uid))

    @guarded
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        view = memoryview(await self._tree.read(fh, off, size))
        self.meter.bytes_read += view.nbytes
        return view if view.c_contiguous else view.tobytes()  # type: ignore[return-value]  # any buffer does

    @guarded
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        written = int(await self._tree.write(fh, off, buf))
        self.meter.bytes_written += written
        return written

    @guarded
    async def flush(self, fh: FileHandleT) -> None:
        if self._never_written:
            raise FUSEError(errno.ENOSYS)
        await self._tree.flush(fh)

    @guarded
    async def release(self, fh: FileHandleT) -> None:
        await self._tree.release(fh)

    @guarded
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._tree.fsync(fh, datasync)

    @guarded
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        changes = SetAttr(
            size=attr.st_size if fields.update_size else None,
            mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return entry(await self._tree.setattr(inode, changes, fh))

    # -- the rest -------------------------------------------------------------------------------------------------

    @guarded
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        disk = await self._tree.statfs()
        out = StatvfsData()
        for name in (
            "f_bsize",
            "f_frsize",
            "f_blocks",
            "f_bfree",
            "f_bavail",
            "f_files",
            "f_ffree",
            "f_favail",
            "f_namemax",
        ):
            setattr(out, name, getattr(disk, name))
        return out

    # getxattr, listxattr and setxattr are pyfuse3's own: ENOSYS, after which the kernel answers EOPNOTSUPP itself and
    # asks no more. Otherwise it asks for an access control list of every file that is listed, and for capabilities at
    # every write. But "no data" is what mv must hear when it takes an attribute away.

    @guarded
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        await self._tree.removexattr(inode, name)

    @guarded
    async def access(self, inode: InodeT, mode: ModeT, ctx: RequestContext) -> NoReturn:
        raise FUSEError(errno.ENOSYS)  # the kernel asks no more, and each operation refuses for itself
