"""A pyfuse3 filesystem that makes the same calls on another directory: what writing through Python and FUSE costs
before a filesystem has thought about it.

    python -m tests.benchmarks.loopback_fs DIRECTORY MOUNTPOINT

Every request is one or two system calls, made on the thread that answers; only fsync, which waits for the disk, has
threads. Inodes are numbered as paths come, nothing is cached, nothing is checked.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
import sys
from collections.abc import Callable
from typing import Any

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, InodeT, RequestContext, SetattrFields, StatvfsData

from tests.benchmarks.null_fs import serve

_SECOND = 1.0


def _told(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    async def guard(*args: Any) -> Any:
        try:
            return await handler(*args)
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from None

    return guard


class Loopback(pyfuse3.Operations):
    """Paths by inode; a rename takes the inode along, for files and empty directories."""

    enable_writeback_cache = False

    def __init__(self, root: str) -> None:
        super().__init__()
        self._paths: dict[int, str] = {pyfuse3.ROOT_INODE: root}
        self._inodes: dict[str, int] = {root: pyfuse3.ROOT_INODE}

    def _at(self, parent: int, name: bytes) -> str:
        return f"{self._paths[parent]}/{os.fsdecode(name)}"

    def _entry(self, path: str) -> EntryAttributes:
        found = os.lstat(path)
        ino = self._inodes.get(path)
        if ino is None:
            ino = self._inodes[path] = len(self._paths) + 1
            self._paths[ino] = path
        return _attributes(ino, found)

    def _gone(self, path: str) -> None:
        self._inodes.pop(path, None)

    @_told
    async def lookup(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> EntryAttributes:
        try:
            return self._entry(self._at(parent_inode, name))
        except FileNotFoundError:
            nothing = EntryAttributes()
            nothing.st_ino = InodeT(0)
            nothing.entry_timeout = _SECOND
            return nothing

    @_told
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return _attributes(inode, os.lstat(self._paths[inode]))

    @_told
    async def setattr(
        self, inode: InodeT, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        path = self._paths[inode]
        if fields.update_size:
            os.truncate(path if fh is None else fh, attr.st_size)
        if fields.update_mode:
            os.chmod(path, stat.S_IMODE(attr.st_mode))
        return _attributes(inode, os.lstat(path))

    @_told
    async def mkdir(self, parent_inode: InodeT, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        path = self._at(parent_inode, name)
        os.mkdir(path, stat.S_IMODE(mode) & ~ctx.umask)
        return self._entry(path)

    @_told
    async def rmdir(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        path = self._at(parent_inode, name)
        os.rmdir(path)
        self._gone(path)

    @_told
    async def unlink(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        path = self._at(parent_inode, name)
        os.unlink(path)
        self._gone(path)

    @_told
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        path = self._at(new_parent_inode, new_name)
        os.link(self._paths[inode], path)
        return _attributes(inode, os.lstat(path))

    @_told
    async def rename(
        self, old_parent: InodeT, old_name: bytes, new_parent: InodeT, new_name: bytes, flags: int, ctx: RequestContext
    ) -> None:
        source, target = self._at(old_parent, old_name), self._at(new_parent, new_name)
        os.rename(source, target)
        self._gone(target)
        ino = self._inodes.pop(source, None)
        if ino is not None:
            self._inodes[target] = ino
            self._paths[ino] = target

    @_told
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> int:
        return int(inode)

    @_told
    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        path = self._paths[fh]
        for number, name in enumerate(sorted(os.listdir(path))[start_id:], start_id + 1):
            if not pyfuse3.readdir_reply(token, os.fsencode(name), self._entry(f"{path}/{name}"), number):
                return

    @_told
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        path = self._paths[fh]

        def sync() -> None:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

        await trio.to_thread.run_sync(sync)

    @_told
    async def create(
        self, parent_inode: InodeT, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        path = self._at(parent_inode, name)
        fd = os.open(path, flags & ~os.O_ACCMODE | os.O_RDWR | os.O_CREAT, stat.S_IMODE(mode) & ~ctx.umask)
        return FileInfo(fh=fd), self._entry(path)

    @_told
    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        return FileInfo(fh=os.open(self._paths[inode], flags & ~os.O_CREAT))

    @_told
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return os.pread(fh, size, off)

    @_told
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return os.pwrite(fh, buf, off)

    @_told
    async def flush(self, fh: int) -> None:
        return None

    @_told
    async def fsync(self, fh: int, datasync: bool) -> None:
        await trio.to_thread.run_sync(os.fsync, fh)

    @_told
    async def release(self, fh: int) -> None:
        os.close(fh)

    @_told
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        found, out = os.statvfs(self._paths[pyfuse3.ROOT_INODE]), StatvfsData()
        for name in ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "namemax"):
            setattr(out, f"f_{name}", getattr(found, f"f_{name}"))
        return out


def _attributes(ino: int, found: os.stat_result) -> EntryAttributes:
    entry = EntryAttributes()
    entry.st_ino = InodeT(ino)
    entry.st_mode, entry.st_nlink, entry.st_size = found.st_mode, found.st_nlink, found.st_size
    entry.st_uid, entry.st_gid = found.st_uid, found.st_gid
    entry.st_mtime_ns, entry.st_atime_ns, entry.st_ctime_ns = found.st_mtime_ns, found.st_atime_ns, found.st_ctime_ns
    entry.st_blocks, entry.st_blksize = found.st_blocks, found.st_blksize
    entry.entry_timeout = entry.attr_timeout = _SECOND
    return entry


if __name__ == "__main__":
    serve(Loopback(sys.argv[1]), sys.argv[2], "loopback")
