"""The directory tree of a mounted store: the steps of every request, whatever node it is about.

Decided here: from inode to node and back, which requests wait for what, and the order of the steps of opening a file.
What is where is decided in :mod:`volfs.tree.nodes`, background work in :mod:`volfs.tree.housekeeping`; the contract
with a protocol adapter is :mod:`volfs.tree.contract.api`. No kernel and no mount are needed to use this.

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
from itertools import islice

import trio

from volfs.errors import NotAllowed, NotFound, OutOfTime, VolfsError, WrongKind
from volfs.model.refs import RefKind
from volfs.tree.branches.registry import BranchRegistry
from volfs.tree.contract.api import ROOT_INO, DirEntry, NoNotifier, Notifier, OpenFile, TreeOptions
from volfs.tree.contract.attrs import FOREVER, Attr, SetAttr, missing
from volfs.tree.contract.meter import Meter
from volfs.tree.core.context import TreeContext
from volfs.tree.core.inodes import Inodes
from volfs.tree.core.node import Dir, Node
from volfs.tree.core.open_files import STATELESS, Handle
from volfs.tree.core.ports import Front
from volfs.tree.housekeeping import Housekeeping
from volfs.tree.leftovers import Leftovers
from volfs.tree.nodes.root import RootDir
from volfs.versions.store import Store

_NAME_MAX = 255
#: Entries of a listing that are made at a time in a far branch, where the disk must be asked for each.
_FAR_ENTRIES = 128
#: What concerns the store's own disk has threads of its own: those that wait for a dead one take none from anything
#: else.
_WHOLE_STORE = "/statfs"


class Tree:
    """Implements :class:`volfs.tree.contract.api.TreeApi`."""

    def __init__(
        self, store: Store, options: TreeOptions, notifier: Notifier | None = None, front: Front | None = None
    ) -> None:
        self._context = TreeContext(store, options, notifier or NoNotifier(), Inodes.of(store), front)
        self._epoch = 0
        self._branches = BranchRegistry(self._context, Leftovers(self._at).settle)
        self._root = RootDir(self._context, ROOT_INO, self._branches)
        self._housekeeping = Housekeeping(self._context, self._branches)

    def passed(self, stack: int, plane: int) -> None:
        """The front has read a plane that it was lent: see :class:`volfs.tree.core.lender.Lender`."""
        if self._context.lender is not None:
            self._context.lender.passed(stack, plane)

    def catch_up(self) -> None:
        """Take note of what the front has answered."""
        self._context.catch_up()

    @property
    def meter(self) -> Meter:
        """The counts and times of requests."""
        return self._context.meter

    # -- life -------------------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do background work until :meth:`close`."""
        await self._housekeeping.run(task_status)

    async def close(self) -> None:
        """Finish what is open and staged, and give the branches back. Idempotent."""
        for fh in self._context.files.numbers():
            with suppress(VolfsError, OSError):
                while fh in self._context.files:  # it may have been opened more than once
                    await self.release(fh)
        await self._housekeeping.close()

    # -- names ------------------------------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: bytes) -> Attr:
        if name == b".":
            attr = await self.getattr(parent)
            return attr._replace(ino=parent)
        context = self._context
        directory = self._known(context.inodes.actual(parent))
        if directory is None or name == b"..":
            node = await self._node(parent)
            if name == b"..":
                above = node if node.up is None else await self._node(node.up.ino)
                return await self._attr(above)
            directory = self._directory(node)
        if directory.far:
            return await self._lookup_far(directory, name)
        # A name of a directory that was looked into lately is answered without making anything that can be awaited.
        if directory.mounted is not None or directory.cold:
            await self._ready(directory)
        found = self._find(directory, name)
        if found is None:
            return missing(directory.absence)
        try:
            if found.mounted is not None or found.cold:
                await self._ready(found)
            attr = found.attr()
        except NotFound:
            return missing(directory.absence)
        self._keep(found)
        if directory is self._root:
            await self._see_access(found.dataset)
        return self._owned(found, attr)

    async def _lookup_far(self, directory: Dir, name: bytes) -> Attr:
        """Look a name up on a disk that may stop answering: in one thread, unless voxels must be read."""
        mounted = directory.mounted
        if mounted is not None and mounted.unsettled:
            await self._context.in_time(mounted.settled)

        def look() -> tuple[Node, Attr | None] | None:
            directory.warm()
            found = self._find(directory, name)
            if found is None or found.heavy:
                return None if found is None else (found, None)
            found.warm()
            return found, found.attr()

        try:
            seen = await directory.asked(look)
            if seen is None:
                return missing(directory.absence)
            found, attr = seen
            if attr is None:
                await found.ready()
                attr = await found.asked(found.attr)
        except NotFound:
            return missing(directory.absence)
        self._keep(found)
        return self._owned(found, attr)

    async def _attr(self, node: Node) -> Attr:
        await self._ready(node)
        return self._owned(node, await node.asked(node.attr) if node.far else node.attr())

    async def _see_access(self, dataset: str) -> None:
        """See who owns a dataset, if nobody has looked into it yet."""
        access = self._context.access
        if access.unseen([dataset]):
            await self._context.in_time(lambda: self._context.look(dataset, lambda: access.look_at([dataset])))

    async def _see_access_of_all(self) -> None:
        """See who owns the datasets. Those whose disk does not say stay closed, and hold up no others."""
        context = self._context
        unseen = context.access.unseen(context.store.catalog.datasets())

        async def see(disks: frozenset[str], datasets: list[str]) -> None:
            with suppress(OutOfTime):
                await context.in_time(lambda: context.look_at_disks(disks, lambda: context.access.look_at(datasets)))

        if unseen:
            async with trio.open_nursery() as nursery:
                for disks, datasets in context.by_disk(unseen).items():
                    nursery.start_soon(see, disks, datasets)

    async def getattr(self, ino: int) -> Attr:
        orphan = self._context.inodes.orphans.get(ino)
        if orphan is not None and (attr := await orphan.orphan_attr()) is not None:
            mounted = orphan.mounted
            return self._context.access.owned(attr, mounted.dataset.name if mounted is not None else "")
        return await self._attr(await self._node(ino))

    async def readdir(self, ino: int, cookie: int) -> Iterator[DirEntry]:
        directory = self._directory(await self._node(ino))
        await self._ready(directory)
        cold = partial(directory.listing_cold, cookie)
        if await directory.asked(cold) if directory.far else cold():
            load = partial(directory.load_listing, cookie)
            await self._context.in_time(partial(self._context.fetch, directory.dataset, load))
        if directory is self._root:
            await self._see_access_of_all()
        if not directory.far:
            return self._owned_entries(directory, directory.entries(cookie))
        entries = await directory.asked(lambda: list(islice(directory.entries(cookie), _FAR_ENTRIES)))
        return self._owned_entries(directory, iter(entries))

    async def readlink(self, ino: int) -> bytes:
        return await (await self._node(ino)).readlink()

    async def forget(self, inodes: Sequence[tuple[int, int]]) -> None:
        self._context.inodes.forget(inodes)

    # -- changing names ---------------------------------------------------------------------------------------------

    async def mkdir(self, parent: int, name: bytes, mode: int) -> Attr:
        directory = await self._writable(parent, name)
        async with self._noting_refusals(directory, name):
            return self._owned(directory, await directory.mkdir(os.fsdecode(name), mode))

    async def rmdir(self, parent: int, name: bytes) -> None:
        directory = await self._writable(parent, name)
        async with self._noting_refusals(directory, name):
            await directory.rmdir(os.fsdecode(name))

    async def unlink(self, parent: int, name: bytes) -> None:
        directory = await self._writable(parent, name)
        async with self._noting_refusals(directory, name):
            await directory.unlink(os.fsdecode(name))

    async def symlink(self, parent: int, name: bytes, target: bytes) -> Attr:
        directory = await self._writable(parent, name)
        async with self._noting_refusals(directory, name):
            node = await directory.symlink(os.fsdecode(name), os.fsdecode(target))
        return self._owned(directory, await node.asked(node.attr))

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Attr:
        directory, node = await self._writable(new_parent, new_name), await self._node(ino)
        async with self._noting_refusals(directory, new_name):
            linked = await directory.link(node, os.fsdecode(new_name))
            return self._owned(directory, await linked.asked(linked.attr))

    async def rename(self, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        directory = to = await self._writable(old_parent, old_name)
        if new_parent != old_parent or len(new_name) > _NAME_MAX:
            to = await self._writable(new_parent, new_name)
        async with self._noting_refusals(to, new_name):
            await directory.rename(os.fsdecode(old_name), to, os.fsdecode(new_name), flags)

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int = 0) -> Attr:
        directory = await self._writable(parent, name)
        async with self._noting_refusals(directory, name):
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise NotAllowed("only regular files can be made here")
            node = await directory.make(os.fsdecode(name), mode)
        await self._ready(node)
        return self._owned(directory, await node.asked(node.attr))

    # -- files ------------------------------------------------------------------------------------------------------

    async def create(self, parent: int, name: bytes, mode: int, flags: int) -> tuple[OpenFile, Attr]:
        directory = await self._writable(parent, name)
        async with self._noting_refusals(directory, name):
            node, handle = await directory.create(os.fsdecode(name), mode, flags)
        opened = await self._register(node, node.ino, handle)
        try:
            await self._ready(node)
            return opened, self._owned(directory, await node.asked(node.attr))
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.release(opened.fh)
            raise

    async def open(self, ino: int, flags: int, caller: int | str | None = None) -> OpenFile:
        node = await self._node(ino)
        if (node.far or node.cold) and not isinstance(node, Dir):
            await node.ready()
        async with self._noting_refusals_of(node):
            handle = await node.open(flags)
        handle.caller = caller
        try:
            return await self._register(node, ino, handle)
        except OutOfTime:
            self._context.start(partial(self._forsake, handle))
            raise

    async def read(self, fh: int, offset: int, size: int) -> bytes | memoryview:
        handle = await self._stateless(fh) if fh & STATELESS else self._context.files.get(fh)
        if handle.mounted is not None and handle.mounted.buffers:
            await self._context.in_time(handle.mounted.settled)
        return await handle.read(offset, size)

    async def _stateless(self, fh: int) -> Handle:
        """A file that the front opened. Raises NotFound if it is gone."""
        ino, files = fh & ~STATELESS, self._context.files.stateless
        handle = files.get(ino)
        if handle is None:
            node = await self._node(ino)
            await self._ready(node)
            handle = await node.open(os.O_RDONLY)
            files.put(ino, handle)
        return handle

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        return await self._context.files.get(fh).write(offset, data)

    async def flush(self, fh: int) -> None:
        if not fh & STATELESS:
            await self._context.files.get(fh).flush()

    async def fsync(self, fh: int, datasync: bool) -> None:
        if not fh & STATELESS:
            await self._context.files.get(fh).fsync()

    async def fsyncdir(self, ino: int, datasync: bool) -> None:
        await self._directory(await self._node(ino)).sync()

    async def release(self, fh: int) -> None:
        files = self._context.files
        if fh in files and files.get(fh).shared():
            files.let_go()
            await files.get(fh).flush()
            return
        handle = files.remove(fh)
        if handle is None:
            return
        try:
            await handle.release()
        finally:
            self._context.closed(handle)

    async def setattr(self, ino: int, changes: SetAttr, fh: int | None = None) -> Attr:
        handle = self._context.files.get(fh) if fh is not None and not fh & STATELESS else None
        if handle is not None and changes.size is not None:
            await handle.truncate(changes.size)
            changes = SetAttr(None, changes.mode, changes.uid, changes.gid, changes.atime_ns, changes.mtime_ns)
        if handle is None or await handle.orphan_attr() is None:
            node = await self._node(ino)
            await self._ready(node)
            async with self._noting_refusals_of(node):
                await node.change(changes, handle)
        return await self.getattr(ino)

    # -- the rest ---------------------------------------------------------------------------------------------------

    async def statfs(self) -> os.statvfs_result:
        path = self._context.store.path
        return await self._context.in_time(lambda: self._context.look(_WHOLE_STORE, lambda: os.statvfs(path)))

    async def removexattr(self, ino: int, name: bytes) -> None:
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))

    # -- from inode to node -----------------------------------------------------------------------------------------

    async def _node(self, ino: int) -> Node:
        """The node of any inode ever handed out. NotFound if it is gone: to a client that is a stale handle, as of a
        file of a version that was dropped."""
        context = self._context
        ino = context.inodes.actual(ino)
        if ino == ROOT_INO:
            return self._root
        kept = self._known(ino)
        if kept is not None:
            return kept
        node = await self._resolve(ino)
        if node is None or node.ino != ino:
            # ESTALE has the kernel look up the path anew: a branch may have got another name a moment ago.
            raise NotFound(f"inode {ino} is not there any more", errno=errno.ESTALE)
        self._keep(node)
        return node

    async def _resolve(self, ino: int) -> Node | None:
        inodes = self._context.inodes
        if inodes.is_allocated(ino):
            where = inodes.where(ino)
            if where is None:
                return None
            parent = self._directory(await self._node(where[0]))
            await self._ready(parent)
            return await parent.asked(lambda: parent.allocated(where[1], ino))
        if ino <= 0:
            return None
        directory_ino, ordinal = inodes.split(ino)
        if ordinal:
            directory = self._directory(await self._node(directory_ino))
            await self._ready(directory)
            numbered = partial(directory.numbered, ordinal)
            return await directory.asked(numbered) if directory.far else numbered()
        path = inodes.path(ino)
        return None if not path else await self._at(path)

    async def _at(self, path: str) -> Node | None:
        """The node at a path as inodes are derived from."""
        node: Node = self._root
        for depth, part in enumerate(path.split("/")):
            if not isinstance(node, Dir):
                return None
            await self._ready(node)
            found = await node.asked(partial(node.find, part.partition("@")[0] if depth == 0 else part))
            if found is None:
                return None
            if depth == 0:
                await self._see_access(found.dataset)
            kept = self._known(found.ino)
            node = kept if kept is not None else found
            self._keep(node)
        return node

    def _find(self, directory: Dir, name: bytes) -> Node | None:
        if len(name) > _NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        found = directory.find(os.fsdecode(name))
        if isinstance(found, Dir):
            return self._known(found.ino) or found
        return found

    def _known(self, ino: int) -> Dir | None:
        """A directory found lately, but not before datasets, refs or directories moved."""
        if self._epoch != self._context.epoch:
            self._context.nodes.clear()
            self._context.files.stateless.clear()
            self._epoch = self._context.epoch
        return self._context.nodes.get(ino)

    def _owned(self, node: Node, attr: Attr) -> Attr:
        """Attributes of a node, or of what was made in it, with their owner."""
        return self._context.access.owned(attr, node.dataset)

    def _owned_entries(self, directory: Dir, entries: Iterator[DirEntry]) -> Iterator[DirEntry]:
        access, dataset = self._context.access, directory.dataset
        if directory is not self._root and access.plain(dataset):
            yield from entries
            return
        datasets = self._context.store.catalog.datasets() if directory is self._root else {}
        for name, attr, at in entries:
            whose = os.fsdecode(name) if directory is self._root else dataset
            yield DirEntry(name, access.owned(attr, whose if dataset or whose in datasets else ""), at)

    def _keep(self, node: Node) -> None:
        context = self._context
        if isinstance(node, Dir) and context.nodes.peek(node.ino) is not node:
            context.nodes.put(node.ino, node)
            if context.lender is not None and node.absence == FOREVER:  # no name comes, and so none goes
                context.lender.keep_listing(node.ino)
                if node.plain:
                    context.lender.keep_files(node.ino)

    @staticmethod
    def _directory(node: Node) -> Dir:
        if not isinstance(node, Dir):
            raise WrongKind("this is no directory")
        return node

    async def _ready(self, node: Node) -> None:
        """Load a node that is cold, and wait until no name of its branch is half changed."""
        mounted = node.mounted
        if mounted is not None and mounted.unsettled:
            await self._context.in_time(mounted.settled)
        if node.far or node.cold:
            await node.ready()

    async def _writable(self, parent: int, name: bytes) -> Dir:
        """A directory in which a name is about to change."""
        directory = self._directory(await self._node(parent))
        if len(name) > _NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        await self._ready(directory)
        return directory

    async def _forsake(self, handle: Handle) -> None:
        """Close a file whose client does not wait for it any more."""
        with suppress(VolfsError, OSError):
            await self._context.files.close_unregistered(handle)

    def _noting_refusals(self, directory: Dir, name: bytes) -> AbstractAsyncContextManager[None]:
        """Note an error in the block for the users of a branch, if the directory is in one."""
        parts = directory.path.split("/", 3)
        mounted = None
        if len(parts) > 2 and parts[1] == RefKind.BRANCH.directory:
            mounted = self._branches.find(parts[0].partition("@")[0], parts[2])
        return nullcontext() if mounted is None else mounted.noting_refusals(directory.path, os.fsdecode(name))

    @asynccontextmanager
    async def _noting_refusals_of(self, node: Node) -> AsyncIterator[None]:
        """Note an error of a file likewise, if its name is known."""
        try:
            yield
        except (VolfsError, OSError):
            name, inodes = node.name, self._context.inodes
            if name is None and inodes.is_allocated(node.ino) and (where := inodes.where(node.ino)) is not None:
                name = where[1]
            if name is None or node.up is None:
                raise
            async with self._noting_refusals(node.up, os.fsencode(name)):
                raise

    async def _register(self, node: Node, ino: int, handle: Handle) -> OpenFile:
        """Enter an open file into the table, and find out whether the kernel's pages of it are still right."""
        handle.ino = ino
        files = self._context.files
        quick = await node.asked(handle.quick_stamp) if node.far else handle.quick_stamp()
        last = files.stamps.get(ino)
        if last is not None and quick is not None and last[0] == quick:
            stamp = last[1]
        elif handle.mounted is not None and handle.slow_stamp:
            mounted = handle.mounted
            stamp = await self._context.in_time(lambda: mounted.look(handle.stamp))
        else:
            stamp = await node.asked(handle.stamp) if node.far else handle.stamp()
        handle.known_stamp = stamp
        if stamp is None:
            return files.add(handle, keep_cache=True)
        files.stamps.put(ino, (quick, stamp))
        return files.add(handle, keep_cache=last is not None and last[1] == stamp)
