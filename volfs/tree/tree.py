"""The directory tree of a mounted store: what every request does, whatever it is about.

Decided here: from inode to node and back, which requests wait for what, and the order of the steps of opening a file.
What is where is decided by the nodes (``root``, ``dataset``, ``refs``, ``snapshot``, ``levels``, ``planes``, ``keys``,
``branch…``, ``edits``, ``control``); how often things happen by themselves in :mod:`volfs.tree.housekeeping`; the
contract with a protocol adapter is :mod:`volfs.tree.contract.api`. No kernel and no mount are needed to use this.

One trio thread runs all of this. Between two awaits nothing else happens, so looking is consistent as long as it does
not await; nodes say when they must be loaded in a thread first.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial

import trio

from volfs.errors import NotAllowed, NotFound, OutOfTime, VolfsError, WrongKind
from volfs.model.refs import RefKind
from volfs.tree.branches.registry import BranchRegistry
from volfs.tree.contract.api import ROOT_INO, DirEntry, NoNotifier, Notifier, OpenFile, TreeOptions
from volfs.tree.contract.attrs import Attr, SetAttr, missing
from volfs.tree.contract.meter import Meter
from volfs.tree.core.context import NodeCache, Shared
from volfs.tree.core.inodes import Inodes
from volfs.tree.core.node import Dir, Node
from volfs.tree.core.open_files import Handle
from volfs.tree.housekeeping import Housekeeping
from volfs.tree.leftovers import Leftovers
from volfs.tree.nodes.root import RootDir
from volfs.versions.store import Store

_NAME_MAX = 255


class Tree:
    """Implements :class:`volfs.tree.contract.api.TreeApi`."""

    def __init__(self, store: Store, options: TreeOptions, notifier: Notifier | None = None) -> None:
        self._nodes: NodeCache[Dir] = NodeCache()
        self._shared = Shared(store, options, notifier or NoNotifier(), Inodes.of(store), self._nodes)
        self._branches = BranchRegistry(self._shared, Leftovers(self._at).settle)
        self._root = RootDir(self._shared, ROOT_INO, self._branches)
        self._housekeeping = Housekeeping(self._shared, self._branches)

    @property
    def meter(self) -> Meter:
        """What is asked of this tree."""
        return self._shared.meter

    # -- life -------------------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Background work until :meth:`close`."""
        await self._housekeeping.run(task_status)

    async def close(self) -> None:
        """Finish what is open and staged, and give the branches back. Idempotent."""
        for fh in self._shared.files.numbers():
            with suppress(VolfsError, OSError):
                await self.release(fh)
        await self._housekeeping.close()

    # -- names ------------------------------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: bytes) -> Attr:
        if name == b".":
            attr = await self.getattr(parent)
            return attr._replace(ino=parent)
        shared = self._shared
        directory = self._nodes.get(shared.inodes.actual(parent), shared.epoch)
        if directory is None or name == b"..":
            node = await self._node(parent)
            if name == b"..":
                above = node if node.up is None else await self._node(node.up.ino)
                await self._ready(above)
                return self._shown(above, above.attr())
            directory = self._directory(node)
        # A name of a directory that was looked into lately is answered without making anything that can be awaited.
        if directory.room is not None or directory.cold:
            await self._ready(directory)
        found = self._find(directory, name)
        if found is None:
            return missing(directory.absence)
        try:
            if found.room is not None or found.cold:
                await self._ready(found)
            attr = found.attr()
        except NotFound:
            return missing(directory.absence)
        self._keep(found)
        return self._shown(found, attr)

    async def getattr(self, ino: int) -> Attr:
        orphan = self._shared.inodes.orphans.get(ino)
        if orphan is not None and (attr := orphan.orphan_attr()) is not None:
            room = orphan.room
            return self._shared.access.shown(attr, room.dataset.name if room is not None else "")
        node = await self._node(ino)
        await self._ready(node)
        return self._shown(node, node.attr())

    async def readdir(self, ino: int, cookie: int) -> Iterator[DirEntry]:
        directory = self._directory(await self._node(ino))
        await self._ready(directory)
        if directory.listing_cold(cookie):
            load = partial(directory.load_listing, cookie)
            await self._shared.in_time(partial(self._shared.fetch, directory.dataset, load))
        return self._shown_entries(directory, cookie)

    async def readlink(self, ino: int) -> bytes:
        return await (await self._node(ino)).readlink()

    async def forget(self, inodes: Sequence[tuple[int, int]]) -> None:
        self._shared.inodes.forget(inodes)

    # -- changing names ---------------------------------------------------------------------------------------------

    async def mkdir(self, parent: int, name: bytes, mode: int) -> Attr:
        directory = await self._writable(parent, name)
        async with self._telling(directory, name):
            return self._shown(directory, await directory.mkdir(os.fsdecode(name), mode))

    async def rmdir(self, parent: int, name: bytes) -> None:
        directory = await self._writable(parent, name)
        async with self._telling(directory, name):
            await directory.rmdir(os.fsdecode(name))

    async def unlink(self, parent: int, name: bytes) -> None:
        directory = await self._writable(parent, name)
        async with self._telling(directory, name):
            await directory.unlink(os.fsdecode(name))

    async def symlink(self, parent: int, name: bytes, target: bytes) -> Attr:
        directory = await self._writable(parent, name)
        async with self._telling(directory, name):
            node = await directory.symlink(os.fsdecode(name), os.fsdecode(target))
        return self._shown(directory, node.attr())

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Attr:
        directory, node = await self._writable(new_parent, new_name), await self._node(ino)
        async with self._telling(directory, new_name):
            return self._shown(directory, (await directory.link(node, os.fsdecode(new_name))).attr())

    async def rename(self, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        directory, to = await self._writable(old_parent, old_name), await self._writable(new_parent, new_name)
        async with self._telling(to, new_name):
            await directory.rename(os.fsdecode(old_name), to, os.fsdecode(new_name), flags)

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int = 0) -> Attr:
        directory = await self._writable(parent, name)
        async with self._telling(directory, name):
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise NotAllowed("only regular files can be made here")
            node = await directory.make(os.fsdecode(name), mode)
        await self._ready(node)
        return self._shown(directory, node.attr())

    # -- files ------------------------------------------------------------------------------------------------------

    async def create(self, parent: int, name: bytes, mode: int, flags: int) -> tuple[OpenFile, Attr]:
        directory = await self._writable(parent, name)
        async with self._telling(directory, name):
            node, handle = await directory.create(os.fsdecode(name), mode, flags)
        opened = await self._register(node.ino, handle)
        try:
            await self._ready(node)
            return opened, self._shown(directory, node.attr())
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.release(opened.fh)
            raise

    async def open(self, ino: int, flags: int, caller: int | None = None) -> OpenFile:
        node = await self._node(ino)
        if node.cold and not isinstance(node, Dir):
            await node.prepare()
        async with self._telling_of(node):
            handle = await node.open(flags)
        handle.caller = caller
        try:
            return await self._register(ino, handle)
        except OutOfTime:
            self._shared.start(partial(self._forsake, handle))
            raise

    async def read(self, fh: int, offset: int, size: int) -> bytes | memoryview:
        handle = self._shared.files.get(fh)
        if handle.room is not None and handle.room.gathering:
            await self._shared.in_time(handle.room.settled)
        return await handle.read(offset, size)

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        return await self._shared.files.get(fh).write(offset, data)

    async def flush(self, fh: int) -> None:
        await self._shared.files.get(fh).flush()

    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._shared.files.get(fh).fsync()

    async def fsyncdir(self, ino: int, datasync: bool) -> None:
        await self._directory(await self._node(ino)).sync()

    async def release(self, fh: int) -> None:
        handle = self._shared.files.remove(fh)
        if handle is None:
            return
        try:
            await handle.release()
        finally:
            if self._shared.inodes.orphans.get(handle.ino) is handle:
                del self._shared.inodes.orphans[handle.ino]

    async def setattr(self, ino: int, changes: SetAttr, fh: int | None = None) -> Attr:
        handle = self._shared.files.get(fh) if fh is not None else None
        if handle is not None and changes.size is not None:
            await handle.truncate(changes.size)
            changes = SetAttr(None, changes.mode, changes.uid, changes.gid, changes.atime_ns, changes.mtime_ns)
        if handle is None or handle.orphan_attr() is None:
            node = await self._node(ino)
            await self._ready(node)
            async with self._telling_of(node):
                await node.change(changes, handle)
        return await self.getattr(ino)

    # -- the rest ---------------------------------------------------------------------------------------------------

    async def statfs(self) -> os.statvfs_result:
        path = self._shared.store.path
        return await self._shared.in_time(lambda: self._shared.look("", lambda: os.statvfs(path)))

    async def removexattr(self, ino: int, name: bytes) -> None:
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))

    # -- from inode to node -----------------------------------------------------------------------------------------

    async def _node(self, ino: int) -> Node:
        """The node of any inode ever handed out. NotFound if what it stood for is gone."""
        shared = self._shared
        ino = shared.inodes.actual(ino)
        if ino == ROOT_INO:
            return self._root
        kept = self._nodes.get(ino, shared.epoch)
        if kept is not None:
            return kept
        node = await self._resolve(ino)
        if node is None or node.ino != ino:
            raise NotFound(f"inode {ino} is not there any more")
        self._keep(node)
        return node

    async def _resolve(self, ino: int) -> Node | None:
        inodes = self._shared.inodes
        if inodes.is_allocated(ino):
            where = inodes.where(ino)
            if where is None:
                return None
            parent = self._directory(await self._node(where[0]))
            await self._ready(parent)
            return parent.allocated(where[1], ino)
        if ino <= 0:
            return None
        directory_ino, ordinal = inodes.split(ino)
        if ordinal:
            directory = self._directory(await self._node(directory_ino))
            await self._ready(directory)
            return directory.numbered(ordinal)
        path = inodes.path(ino)
        return None if not path else await self._at(path)

    async def _at(self, path: str) -> Node | None:
        """The node at a path as inodes are derived from."""
        node: Node = self._root
        for depth, part in enumerate(path.split("/")):
            if not isinstance(node, Dir):
                return None
            await self._ready(node)
            found = node.find(part.partition("@")[0] if depth == 0 else part)
            if found is None:
                return None
            kept = self._nodes.get(found.ino, self._shared.epoch)
            node = kept if kept is not None else found
            self._keep(node)
        return node

    def _find(self, directory: Dir, name: bytes) -> Node | None:
        if len(name) > _NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        found = directory.find(os.fsdecode(name))
        if isinstance(found, Dir):
            return self._nodes.get(found.ino, self._shared.epoch) or found
        return found

    def _shown(self, node: Node, attr: Attr) -> Attr:
        """Attributes of a node, or of what was made in it, with their owner."""
        return self._shared.access.shown(attr, node.dataset)

    def _shown_entries(self, directory: Dir, cookie: int) -> Iterator[DirEntry]:
        access, dataset = self._shared.access, directory.dataset
        if directory is not self._root and access.plain(dataset):
            yield from directory.entries(cookie)
            return
        datasets = self._shared.store.catalog.datasets() if directory is self._root else {}
        for name, attr, at in directory.entries(cookie):
            whose = os.fsdecode(name) if directory is self._root else dataset
            yield DirEntry(name, access.shown(attr, whose if dataset or whose in datasets else ""), at)

    def _keep(self, node: Node) -> None:
        if isinstance(node, Dir):
            self._nodes.put(node)

    @staticmethod
    def _directory(node: Node) -> Dir:
        if not isinstance(node, Dir):
            raise WrongKind("this is no directory")
        return node

    async def _ready(self, node: Node) -> None:
        """Have the node know what it needs to answer, and no name of its branch half changed."""
        room = node.room
        if room is not None and room.unsettled:
            await self._shared.in_time(room.settled)
        if node.cold:
            await node.prepare()

    async def _writable(self, parent: int, name: bytes) -> Dir:
        """A directory in which a name is about to change."""
        directory = self._directory(await self._node(parent))
        if len(name) > _NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        await self._ready(directory)
        return directory

    async def _forsake(self, handle: Handle) -> None:
        """Close a file that was opened for somebody who does not wait any more."""
        with suppress(VolfsError, OSError):
            await self._shared.files.close_unregistered(handle)

    def _telling(self, directory: Dir, name: bytes) -> AbstractAsyncContextManager[None]:
        """Note what is refused within the block for the users of a branch, if the directory is in one."""
        parts = directory.path.split("/", 3)
        room = None
        if len(parts) > 2 and parts[1] == RefKind.BRANCH.directory:
            room = self._branches.find(parts[0].partition("@")[0], parts[2])
        return nullcontext() if room is None else room.telling(directory.path, os.fsdecode(name))

    @asynccontextmanager
    async def _telling_of(self, node: Node) -> AsyncIterator[None]:
        """The same for a file, if it is known by what name."""
        try:
            yield
        except (VolfsError, OSError):
            name, inodes = node.name, self._shared.inodes
            if name is None and inodes.is_allocated(node.ino) and (where := inodes.where(node.ino)) is not None:
                name = where[1]
            if name is None or node.up is None:
                raise
            async with self._telling(node.up, os.fsencode(name)):
                raise

    async def _register(self, ino: int, handle: Handle) -> OpenFile:
        """Enter an open file into the table, with the answer whether the kernel's pages of it are still right."""
        handle.ino = ino
        files = self._shared.files
        quick, last = handle.quick_stamp(), files.last_stamp(ino)
        if last is not None and quick is not None and last[0] == quick:
            stamp = last[1]
        elif handle.room is not None and handle.slow_stamp:
            room = handle.room
            stamp = await self._shared.in_time(lambda: room.look(handle.stamp))
        else:
            stamp = handle.stamp()
        handle.shown = stamp
        if stamp is None:
            return files.add(handle, keep_cache=True)
        files.note_stamp(ino, quick, stamp)
        return files.add(handle, keep_cache=last is not None and last[1] == stamp)


__all__ = ["Tree"]
