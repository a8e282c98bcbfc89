"""A tiny tree in memory, to show the FUSE adapter without a store. Run as a program it mounts itself.

Besides behaving as a filesystem it misbehaves on request: names that begin with ``raise-`` raise what they say, and
reading ``slow`` takes seconds.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from volfs import errors
from volfs.fuse.dump import block_signal
from volfs.fuse.logs import start_logging
from volfs.fuse.notify import KernelNotifier
from volfs.fuse.session import mount_options, serve
from volfs.tree.contract.api import DirEntry, Notifier, OpenFile
from volfs.tree.contract.attrs import FOREVER, Attr, SetAttr, missing
from volfs.tree.contract.meter import Meter


@dataclass
class Node:
    ino: int
    parent: int
    mode: int
    data: bytearray = field(default_factory=bytearray)
    names: dict[bytes, int] = field(default_factory=dict)
    mtime: int = 1_700_000_000_123_456_789


RAISED: dict[bytes, Exception] = {
    b"raise-damaged": errors.Damaged("a flipped bit"),
    b"raise-readonly": errors.ReadOnly("not here"),
    b"raise-oserror": OSError(errno.EDQUOT, "quota"),
    b"raise-nothing-known": ValueError("a defect"),
    b"raise-group": ExceptionGroup("nursery", [errors.Busy("wait")]),
    b"raise-memory": MemoryError(),
}


class MemoryTree:
    def __init__(self, notifier: Notifier) -> None:
        self.notifier = notifier
        self.meter = Meter()
        self.nodes = {1: Node(1, 1, stat.S_IFDIR | 0o755)}
        self.slow_readers = 0
        self.closed = False
        for name, data in ((b"hello.txt", b"hello\n"), (b"slow", b"x" * 4096), (b"big", bytes(range(256)) * 8192)):
            self._add(1, name, stat.S_IFREG | 0o644).data[:] = data
        for name in (b"wrong-type", b"strided"):
            self._add(1, name, stat.S_IFREG | 0o444).data[:] = bytes(100)
        link = self._add(1, b"link", stat.S_IFLNK | 0o777)
        link.data[:] = b"hello.txt"

    def _add(self, parent: int, name: bytes, mode: int) -> Node:
        node = Node(max(self.nodes) + 1, parent, mode)
        self.nodes[node.ino] = node
        self.nodes[parent].names[name] = node.ino
        return node

    def _attr(self, ino: int) -> Attr:
        node = self.nodes.get(ino)
        if node is None:
            raise errors.NotFound(f"inode {ino}")
        size = len(node.data)
        return Attr(ino, node.mode, size, node.mtime, entry_timeout=FOREVER, attr_timeout=FOREVER, uid=os.getuid())

    def catch_up(self) -> None:
        pass

    def passed(self, stack: int, plane: int) -> None:
        raise AssertionError("nothing was lent")

    async def run(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()

    async def close(self) -> None:
        self.closed = True
        logging.getLogger("volfs.memory").info("tree closed")

    async def lookup(self, parent: int, name: bytes) -> Attr:
        if name in RAISED:
            raise RAISED[name]
        if name == b".":
            return self._attr(parent)
        if name == b"..":
            return self._attr(self.nodes[parent].parent)
        ino = self.nodes[parent].names.get(name)
        return missing(1.0) if ino is None else self._attr(ino)

    async def getattr(self, ino: int) -> Attr:
        return self._attr(ino)

    async def readdir(self, ino: int, cookie: int) -> Iterator[DirEntry]:
        entries = [DirEntry(name, self._attr(child), child + 3) for name, child in self.nodes[ino].names.items()]
        return (entry for entry in sorted(entries, key=lambda entry: entry.cookie) if entry.cookie > cookie)

    async def readlink(self, ino: int) -> bytes:
        return bytes(self.nodes[ino].data)

    async def forget(self, inodes: Sequence[tuple[int, int]]) -> None:
        raise ValueError("a defect in forget")

    async def mkdir(self, parent: int, name: bytes, mode: int) -> Attr:
        return self._attr(self._add(parent, name, stat.S_IFDIR | mode).ino)

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int = 0) -> Attr:
        return self._attr(self._add(parent, name, mode).ino)

    async def unlink(self, parent: int, name: bytes) -> None:
        del self.nodes[parent].names[name]

    async def rmdir(self, parent: int, name: bytes) -> None:
        if self.nodes[self.nodes[parent].names[name]].names:
            raise errors.WrongKind("not empty", errno=errno.ENOTEMPTY)
        del self.nodes[parent].names[name]

    async def symlink(self, parent: int, name: bytes, target: bytes) -> Attr:
        node = self._add(parent, name, stat.S_IFLNK | 0o777)
        node.data[:] = target
        return self._attr(node.ino)

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Attr:
        self.nodes[new_parent].names[new_name] = ino
        return self._attr(ino)

    async def rename(self, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        if flags:
            raise errors.BadInput("no flags")
        moved = self.nodes[old_parent].names.pop(old_name)
        self.nodes[new_parent].names[new_name] = moved
        await self.notifier.invalidate_inode(moved)
        self.notifier.queue_entry(old_parent, old_name)

    async def create(self, parent: int, name: bytes, mode: int, flags: int) -> tuple[OpenFile, Attr]:
        node = self._add(parent, name, stat.S_IFREG | mode)
        return OpenFile(node.ino), self._attr(node.ino)

    async def open(self, ino: int, flags: int, caller: int | None = None) -> OpenFile:
        if flags & os.O_TRUNC:
            self.nodes[ino].data.clear()
        return OpenFile(ino)

    async def read(self, fh: int, offset: int, size: int) -> bytes | memoryview:
        if fh == self.nodes[1].names[b"slow"]:
            await trio.sleep(3)
        if fh == self.nodes[1].names[b"wrong-type"]:
            return 17  # type: ignore[return-value]
        if fh == self.nodes[1].names[b"strided"]:
            return memoryview(bytes(range(200)))[::2][offset : offset + size]
        return memoryview(bytes(self.nodes[fh].data))[offset : offset + size]

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        node = self.nodes[fh]
        node.data.extend(bytes(max(0, offset - len(node.data))))
        node.data[offset : offset + len(data)] = data
        node.mtime += 1
        return len(data)

    async def flush(self, fh: int) -> None:
        if b"refuse" in self.nodes[fh].data:
            raise errors.BadInput("refused at close")

    async def fsync(self, fh: int, datasync: bool) -> None:
        return None

    async def fsyncdir(self, ino: int, datasync: bool) -> None:
        return None

    async def release(self, fh: int) -> None:
        return None

    async def setattr(self, ino: int, changes: SetAttr, fh: int | None = None) -> Attr:
        node = self.nodes[ino]
        if changes.size is not None:
            del node.data[changes.size :]
            node.data.extend(bytes(changes.size - len(node.data)))
        if changes.mode is not None:
            node.mode = stat.S_IFMT(node.mode) | changes.mode
        if changes.mtime_ns is not None:
            node.mtime = changes.mtime_ns
        return self._attr(ino)

    async def statfs(self) -> os.statvfs_result:
        return os.statvfs("/")

    async def removexattr(self, ino: int, name: bytes) -> None:
        raise OSError(errno.ENODATA, "none")


async def main(mountpoint: Path, log: str) -> None:
    block_signal()
    start_logging(log, level="debug")
    notifier = KernelNotifier()
    tree = MemoryTree(notifier)
    options = mount_options("memory, with a comma", read_only=False)
    await serve(tree, notifier, mountpoint, options, on_ready=lambda: print("ready", flush=True))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2])
