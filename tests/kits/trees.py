"""A client of the tree without any mount: paths instead of inodes, and a kernel that remembers what it was told."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import trio

import volfs
from volfs.errors import NotFound
from volfs.testing.waiting import PATIENCE
from volfs.tree.contract.api import TreeOptions
from volfs.tree.contract.attrs import Attr, SetAttr
from volfs.tree.tree import Tree

_operation: ContextVar[str] = ContextVar("operation", default="")


class Kernel:
    """A notifier that keeps the rules: what awaits it, and what must not."""

    MAY_AWAIT = frozenset({"flush", "fsync", "rename", "release", "", "unlink", "link", "rmdir"})

    def __init__(self) -> None:
        self.awaited: list[int] = []
        self.queued: list[int] = []
        self.entries: list[tuple[int, bytes]] = []
        #: Called while an inode is being forgotten: what the kernel may do meanwhile.
        self.meanwhile: Callable[[int], Awaitable[None]] | None = None

    async def invalidate_inode(self, ino: int) -> None:
        operation = _operation.get()
        assert operation in self.MAY_AWAIT, f"{operation} awaits the kernel, which hangs a mount"
        await trio.lowlevel.checkpoint()
        if self.meanwhile is not None:
            await self.meanwhile(ino)
        self.awaited.append(ino)

    def queue_inode(self, ino: int) -> None:
        self.queued.append(ino)

    def queue_entry(self, parent: int, name: bytes) -> None:
        self.entries.append((parent, name))

    def forget_all(self) -> None:
        self.awaited.clear()
        self.queued.clear()
        self.entries.clear()


class Client:
    """What programs do, as the kernel passes it on."""

    def __init__(self, tree: Tree, kernel: Kernel) -> None:
        self.tree = tree
        self.kernel = kernel

    async def call(self, operation: str, *args: Any) -> Any:
        token = _operation.set(operation)
        try:
            return await getattr(self.tree, operation)(*args)
        finally:
            _operation.reset(token)

    async def ino(self, path: str) -> int:
        return (await self.stat(path)).ino

    async def stat(self, path: str) -> Attr:
        ino, attr = 1, await self.tree.getattr(1)
        for part in path.split("/"):
            if part:
                attr = await self.tree.lookup(ino, os.fsencode(part))
                if not attr.ino:
                    raise NotFound(path)
                ino = attr.ino
        return attr

    async def exists(self, path: str) -> bool:
        try:
            await self.stat(path)
        except NotFound:
            return False
        return True

    # Conditions to be waited for: see :func:`volfs.testing.waiting.until_async`.

    async def is_gone(self, path: str) -> bool:
        return not await self.exists(path)

    async def has_size(self, path: str, size: int) -> bool:
        return (await self.stat(path)).size == size

    async def says(self, path: str, *words: bytes) -> bool:
        data = await self.read(path)
        return all(word in data for word in words)

    async def leads_to(self, path: str, target: str) -> bool:
        return await self.readlink(path) == target

    async def does_not_know(self, ino: int) -> bool:
        try:
            await self.tree.lookup(ino, b".")
        except NotFound:
            return True
        return False

    async def was_told(self, ino: int) -> bool:
        """Whether the kernel was told that an inode changed, without waiting for it."""
        return ino in self.kernel.queued

    async def split(self, path: str) -> tuple[int, bytes]:
        folder, _, name = path.rpartition("/")
        return await self.ino(folder), os.fsencode(name)

    async def ls(self, path: str, batch: int = 7) -> dict[str, Attr]:
        """A listing in pieces, each resumed by its cookie alone."""
        return await self.ls_ino(await self.ino(path), batch)

    async def ls_ino(self, ino: int, batch: int = 7) -> dict[str, Attr]:
        found: dict[str, Attr] = {}
        cookie = 0
        while True:
            piece = []
            for entry in await self.tree.readdir(ino, cookie):
                piece.append(entry)
                if len(piece) == batch:
                    break
            if not piece:
                return found
            for name, attr, at in piece:
                assert at >= 3 and at > cookie
                text = os.fsdecode(name)
                assert text not in found
                found[text], cookie = attr, at

    async def readlink(self, path: str) -> str:
        return os.fsdecode(await self.tree.readlink(await self.ino(path)))

    async def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        return int((await self.call("open", await self.ino(path), flags)).fh)

    async def read(self, path: str, piece: int = 100_000, attr: Attr | None = None) -> bytes:
        """The whole file, which must be as long as its attributes say; what is known of it is not looked up again."""
        attr = attr or await self.stat(path)
        fh = int((await self.call("open", attr.ino, os.O_RDONLY)).fh)
        data = await self.read_fh(fh, attr.size, piece)
        assert not await self.tree.read(fh, attr.size, 100)
        await self.close(fh)
        assert len(data) == attr.size, f"{path}: st_size is {attr.size}, {len(data)} bytes are served"
        return data

    async def read_fh(self, fh: int, size: int, piece: int = 100_000) -> bytes:
        data = b""
        while len(data) < size and (
            more := bytes(await self.call("read", fh, len(data), min(piece, size - len(data))))
        ):
            data += more
        return data

    async def close(self, fh: int) -> None:
        try:
            await self.call("flush", fh)
        finally:
            await self.call("release", fh)

    async def open_to_write(self, path: str, flags: int = os.O_WRONLY | os.O_CREAT | os.O_TRUNC) -> int:
        parent, name = await self.split(path)
        attr = await self.tree.lookup(parent, name)
        if attr.ino:
            return int((await self.call("open", attr.ino, flags & ~(os.O_CREAT | os.O_EXCL))).fh)
        opened, _ = await self.call("create", parent, name, 0o644, flags)
        return int(opened.fh)

    async def write(self, path: str, data: bytes, piece: int = 64 << 10) -> None:
        """As cp does: O_TRUNC, pieces, close."""
        fh = await self.open_to_write(path)
        try:
            for offset in range(0, len(data), piece):
                await self.call("write", fh, offset, data[offset : offset + piece])
        finally:
            await self.close(fh)

    async def append(self, path: str, data: bytes) -> None:
        fh = await self.open_to_write(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        await self.call("write", fh, (await self.stat(path)).size, data)
        await self.close(fh)

    async def rename(self, old: str, new: str, flags: int = 0) -> None:
        await self.call("rename", *await self.split(old), *await self.split(new), flags)

    async def unlink(self, path: str) -> None:
        await self.call("unlink", *await self.split(path))

    async def rmdir(self, path: str) -> None:
        await self.call("rmdir", *await self.split(path))

    async def mkdir(self, path: str) -> Attr:
        return await self.call("mkdir", *await self.split(path), 0o755)

    async def symlink(self, path: str, target: str) -> Attr:
        return await self.call("symlink", *await self.split(path), os.fsencode(target))

    async def link(self, old: str, new: str) -> Attr:
        return await self.call("link", await self.ino(old), *await self.split(new))

    async def setattr(self, path: str, fh: int | None = None, **changes: int) -> Attr:
        return await self.call("setattr", await self.ino(path), SetAttr(**changes), fh)

    async def status(self, branch: str = "cells/branches/main") -> dict[str, Any]:
        """What ``status.json`` says; it may be another document between a stat and an open."""
        fh = await self.open(f"{branch}/.volfs/status.json")
        try:
            return dict(json.loads(await self.read_fh(fh, 1 << 20)))
        finally:
            await self.close(fh)

    async def rejected(self) -> list[dict[str, Any]]:
        return list((await self.status())["rejected"])

    async def order(self, path: str, text: str | bytes) -> None:
        """``echo text > path``."""
        data = text if isinstance(text, bytes) else f"{text}\n".encode()
        fh = await self.open_to_write(path)
        try:
            await self.call("flush", fh)
            await self.call("write", fh, 0, data)
        finally:
            await self.close(fh)


@asynccontextmanager
async def serving(store: Path, **options: Any) -> AsyncIterator[Client]:
    """A tree over a store, with its background work."""
    kernel = Kernel()
    with volfs.open_store(store, read_only=options.get("read_only", False)) as opened:
        tree = Tree(opened, TreeOptions(uid=os.getuid(), gid=os.getgid(), **options), kernel)
        async with trio.open_nursery() as nursery:
            await nursery.start(tree.run)
            try:
                yield Client(tree, kernel)
            finally:
                with trio.CancelScope(shield=True):
                    await tree.close()


def run(work: Callable[[], Awaitable[None]], seconds: float = PATIENCE) -> None:
    """Run an asynchronous test, with an end."""

    async def bounded() -> None:
        with trio.fail_after(seconds):
            await work()

    trio.run(bounded)
