"""A pyfuse3 filesystem that does nothing: what any lookup costs before a filesystem has thought about it.

    python -m tests.benchmarks.null_fs MOUNTPOINT

Every name exists: a file if it has an ending, else a directory. Inodes are numbered as names come.
"""

from __future__ import annotations

import os
import stat
import sys

import pyfuse3
import trio


class Nothing(pyfuse3.Operations):
    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[tuple[int, bytes], int] = {}
        self._files: set[int] = set()

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext | None = None) -> pyfuse3.EntryAttributes:
        return self._attributes(inode)

    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        inode = self._numbers.setdefault((parent_inode, name), len(self._numbers) + 2)
        if b"." in name:
            self._files.add(inode)
        return self._attributes(inode)

    def _attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.st_mode = stat.S_IFREG | 0o444 if inode in self._files else stat.S_IFDIR | 0o555
        entry.st_nlink = 1
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        entry.entry_timeout = entry.attr_timeout = 3600
        return entry


def main() -> None:
    options = set(pyfuse3.default_options) | {"fsname=nothing"}
    pyfuse3.init(Nothing(), sys.argv[1], options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
