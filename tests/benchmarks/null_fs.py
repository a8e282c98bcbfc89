"""A pyfuse3 filesystem that does nothing: what any request costs before a filesystem has thought about it.

    python -m tests.benchmarks.null_fs MOUNTPOINT [BYTES]

Every name exists: a file of so many zeros if it has an ending, else a directory. Inodes are numbered as names come. The
kernel keeps whatever it was told.
"""

from __future__ import annotations

import os
import stat
import sys

import pyfuse3
import trio


class Nothing(pyfuse3.Operations):
    def __init__(self, size: int) -> None:
        super().__init__()
        self._zeros = memoryview(bytes(size))
        self._numbers: dict[tuple[int, bytes], int] = {}
        self._files: set[int] = set()

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext | None = None) -> pyfuse3.EntryAttributes:
        return self._attributes(inode)

    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        inode = self._numbers.setdefault((parent_inode, name), len(self._numbers) + 2)
        if b"." in name:
            self._files.add(inode)
        return self._attributes(inode)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> memoryview:
        return self._zeros[off : off + size]

    async def release(self, fh: int) -> None:
        return None

    def _attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.st_mode = stat.S_IFREG | 0o444 if inode in self._files else stat.S_IFDIR | 0o555
        entry.st_size = len(self._zeros) if inode in self._files else 0
        entry.st_nlink = 1
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        entry.entry_timeout = entry.attr_timeout = 3600
        return entry


def serve(operations: pyfuse3.Operations, mountpoint: str, name: str) -> None:
    """Mount, and answer until it is unmounted."""
    pyfuse3.init(operations, mountpoint, set(pyfuse3.default_options) | {f"fsname={name}"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    serve(Nothing(int(sys.argv[2]) if len(sys.argv) > 2 else 0), sys.argv[1], "nothing")
