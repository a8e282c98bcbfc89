"""Files that are replaced as a whole: staged per inode until they decode, then voxels.

Decided here, as DESIGN 3 says it: while a file that is being written over another does not decode, its size and bytes
are its own; each flush of a changed one tries to decode it; a wrong shape or data type is EINVAL, changes nothing and
keeps the stage; an incomplete or empty one is fine for now. Temporary names live beside the files, and a rename over a
file is a write of it. Not here: what a file of which name becomes (:mod:`volfs.tree.nodes.branch_slices` for slices,
:mod:`volfs.tree.nodes.formats` for the chunks of other formats), the staged files themselves
(:mod:`volfs.tree.branches.stages`), and dropping them (:mod:`volfs.tree.housekeeping`)."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from dataclasses import replace
from typing import ClassVar

from volfs.errors import AlreadyThere, BadInput, NotAllowed, NotFound
from volfs.tree.branches.invalidation import VoxelChange
from volfs.tree.branches.mounted_branch import MountedBranch
from volfs.tree.branches.stage_handle import StageHandle
from volfs.tree.branches.stages import SlicePath, Stage, StageTarget
from volfs.tree.contract.api import RENAME_EXCHANGE, RENAME_NOREPLACE, DirEntry
from volfs.tree.contract.attrs import READ_ONLY, SOON, WRITABLE, Attr, SetAttr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.node import Dir, Node, name_cookie
from volfs.tree.core.open_files import Handle, wants_writing
from volfs.tree.files.layout_file import LayoutFile
from volfs.views.plane import Incomplete


class Writer(ABC):
    """How the files of a directory of a branch are written as a whole."""

    #: The word for such a file in messages.
    word: ClassVar[str]
    #: Those of the directory's nodes that are such files.
    kind: ClassVar[type[LayoutFile]]

    @property
    @abstractmethod
    def writable(self) -> bool:
        """Whether files can be written now."""

    @abstractmethod
    async def enter(self) -> None:
        """Become the branch's writer. Raises NotAllowed where nothing can be written."""

    @abstractmethod
    def place(self, name: str) -> SlicePath:
        """Where the file of a name is staged."""

    @abstractmethod
    def target(self, name: str) -> StageTarget | None:
        """The file of a name, to be written; None for a temporary name."""

    @abstractmethod
    def is_like(self, name: str) -> bool:
        """Whether a name is made like those of the files, there or not: then it is no temporary one."""

    @abstractmethod
    def size(self) -> int:
        """About how large (bytes) a file is."""

    @abstractmethod
    def files(self) -> str:
        """Which files there are, for messages."""

    @abstractmethod
    async def remove(self, name: str) -> None:
        """Remove a file that is not a temporary one."""


class StagedDir(Dir):
    """A directory of a branch whose files can be written as a whole. ``rendered`` is the directory of the same files
    as they are when nobody writes them."""

    def __init__(self, rendered: Dir, writer: Writer, mounted: MountedBranch) -> None:
        super().__init__(rendered.context, rendered.ino, rendered.up, rendered.path)
        self.mounted: MountedBranch = mounted
        self.writer = writer
        self._rendered = rendered

    # -- looking ----------------------------------------------------------------------------------------------------

    @property
    def cold(self) -> bool:
        return self._rendered.cold

    def load(self) -> None:
        self._rendered.load()

    def attr(self) -> Attr:
        mtime = max(self._rendered.attr().mtime, self.mounted.touched(self.ino))
        return self.directory_attr(mtime, SOON, writable=self.writer.writable)

    def file_attr(self, ino: int, size: int, mtime: int) -> Attr:
        """The attributes of a file that is being written."""
        return self.context.file_attr(ino, size, mtime, mode=WRITABLE if self.writer.writable else READ_ONLY)

    def find(self, name: str) -> Node | None:
        place = self.writer.place(name)
        if self.mounted.is_hidden(place):
            return None
        found = self._file(self._rendered.find(name))
        if found is None and self.mounted.stages.visible(place) is not None:
            return TemporaryFile(self.context, self.context.inodes.name(self.ino, name), self, name)
        return found

    def numbered(self, ordinal: int) -> Node | None:
        return self._file(self._rendered.numbered(ordinal))

    def _file(self, rendered: Node | None) -> Node | None:
        return StagedFile(self, rendered) if isinstance(rendered, self.writer.kind) else rendered

    def listing_cold(self, cookie: int) -> bool:
        return self._rendered.listing_cold(cookie)

    def load_listing(self, cookie: int) -> None:
        self._rendered.load_listing(cookie)

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        mounted, folder = self.mounted, self.writer.place("")[0]
        staged = set(mounted.stages.names(folder))
        changed = staged or any(place[0] == folder for place in list(mounted.hidden))
        extra = sorted((at, name) for name in staged if (at := name_cookie(name)) > cookie)
        ended = True
        for entry in self._rendered.entries(cookie):
            ended = False
            while extra and extra[0][0] < entry.cookie:
                yield from self._unlisted(*extra.pop(0))
            if changed:
                name = os.fsdecode(entry.name)
                if mounted.is_hidden((folder, name)):
                    continue
                if name in staged and (node := self.find(name)) is not None:
                    entry = entry._replace(attr=node.attr())
            yield entry
        if ended:  # not before: the directory may list its files in several pieces
            for at, name in extra:
                yield from self._unlisted(at, name)

    def _unlisted(self, at: int, name: str) -> Iterator[DirEntry]:
        """A file that is there only because it is being written."""
        node = self.find(name)
        if isinstance(node, StagedFile) and node.cold:
            node.load()
        if isinstance(node, TemporaryFile) or (isinstance(node, StagedFile) and not node.exists):
            yield DirEntry(os.fsencode(name), node.attr(), at)

    # -- changing names ---------------------------------------------------------------------------------------------

    async def create(self, name: str, mode: int, flags: int) -> tuple[Node, Handle]:
        await self.writer.enter()
        writer, mounted, place = self.writer, self.mounted, self.writer.place(name)
        target, found = await mounted.asked(lambda: self._to_write(name))
        hidden = mounted.hidden.pop(place, None) is not None
        if found is not None:
            await found.ready()
        there = mounted.stages.visible(place)
        absent = not isinstance(found, StagedFile) or not found.exists
        if flags & os.O_EXCL and not hidden and (there is not None or not absent):
            raise AlreadyThere(f"{name} exists")
        if target is None:
            if there is None:
                record = await mounted.asked(lambda: mounted.record(None))
            stage = there or await mounted.stages.open(place, writer.size(), record)
            node: Node = TemporaryFile(self.context, self.context.inodes.name(self.ino, name), self, name)
            handle = StageHandle(mounted, node.ino, None, stage, writable=wants_writing(flags))
            if flags & os.O_TRUNC and there is not None:
                await handle.truncate(0)
        else:
            assert isinstance(found, StagedFile)
            node, handle = found, found.handle(writable=wants_writing(flags))
            if hidden or (absent and there is None) or flags & os.O_TRUNC:
                await handle.truncate(0)
        mounted.touch(self.ino)
        return node, handle

    def _to_write(self, name: str) -> tuple[StageTarget | None, Node | None]:
        """What the file of a name becomes, None for a temporary one, and the file as it is."""
        writer = self.writer
        target = writer.target(name)
        if target is None and writer.is_like(name):
            raise BadInput(f"{name} is no {writer.word} of this image: it has {writer.files()}")
        return target, self._file(self._rendered.find(name)) if target is not None else None

    async def unlink(self, name: str) -> None:
        node = await self.asked(lambda: self.find(name))
        if node is None:
            raise NotFound(f"{name} does not exist")
        await self.writer.enter()
        mounted = self.mounted
        stage = mounted.stages.get(self.writer.place(name))
        if stage is not None:
            await mounted.stages.drop(stage)
        if isinstance(node, TemporaryFile):
            self._orphan(node.ino, stage)
            self.context.inodes.removed(self.ino, name)
        else:
            await self.writer.remove(name)
        mounted.touch(self.ino)

    async def mkdir(self, name: str, mode: int) -> Attr:
        await self.writer.enter()
        raise NotAllowed(f"no directory can be made among the {self.writer.word}s")

    async def symlink(self, name: str, target: str) -> Node:
        await self.writer.enter()
        raise NotAllowed(f"there are no links among {self.writer.word}s")

    async def link(self, node: Node, name: str) -> Node:
        await self.writer.enter()
        raise NotAllowed(f"a {self.writer.word} cannot have a second name")

    async def rename(self, name: str, to: Dir, new_name: str, flags: int) -> None:
        node = await self.asked(lambda: self.find(name))
        if node is None:
            raise NotFound(f"{name} does not exist")
        if not isinstance(to, StagedDir) or to.mounted is not self.mounted or not isinstance(node, TemporaryFile):
            # mv then copies, and removes the original: which is right for files that are computed from voxels.
            raise NotAllowed(f"a {self.writer.word} can be copied, not moved", errno=errno.EXDEV)
        if flags & RENAME_EXCHANGE:
            raise BadInput(f"{self.writer.word}s cannot be exchanged")
        await to.writer.enter()
        if flags & RENAME_NOREPLACE and await to.asked(lambda: to.find(new_name)) is not None:
            raise AlreadyThere(f"{new_name} exists")
        mounted = self.mounted
        stage = mounted.stages.visible(self.writer.place(name))
        if stage is None:
            raise NotFound(f"{name} does not exist")
        target = await to.asked(lambda: to.writer.target(new_name))
        if target is None:
            await self._rename_temporary(stage, name, to, new_name)
            return
        async with stage.lock:
            await self._become(stage, target)
            self.context.inodes.removed(self.ino, name)
            self.context.inodes.aliases[node.ino] = target.ino
            mounted.hidden.pop(to.writer.place(new_name), None)
        mounted.touch(self.ino)
        mounted.touch(to.ino)
        await mounted.kernel.invalidate(VoxelChange(inodes={node.ino, *mounted.names_of(target.ino)}))
        self.context.notifier.queue_entry(to.ino, os.fsencode(new_name))

    async def _rename_temporary(self, stage: Stage, name: str, to: StagedDir, new_name: str) -> None:
        if to.writer.is_like(new_name):
            raise BadInput(f"{new_name} is no {self.writer.word} of this image")
        mounted = self.mounted
        there = mounted.stages.visible(to.writer.place(new_name))
        if there is not None and there is not stage:
            ino = self.context.inodes.name(to.ino, new_name)
            await mounted.stages.drop(there)
            self._orphan(ino, there)
        await mounted.stages.move(stage, to.writer.place(new_name))
        self.context.inodes.moved(self.context.inodes.name(self.ino, name), (self.ino, name), (to.ino, new_name))
        mounted.touch(self.ino)
        mounted.touch(to.ino)

    async def _become(self, stage: Stage, target: StageTarget) -> None:
        """Make a temporary file the slice. If it can never be one, it stays a temporary file, and BadInput is
        raised."""
        mounted = self.mounted

        stage.dirty = False
        try:
            voxels = await mounted.fetch(lambda: target.parse(stage.whole()))
        except Incomplete as error:
            if stage.size and not stage.handles:
                raise
            reason = str(error)
            # Still being written: it shows as it is until it is whole.
            await mounted.asked(lambda: stage.begin(replace(mounted.record(target), reason=reason)))
            await mounted.stages.move(stage, target.place)
            stage.target = target
            return
        except BadInput as error:
            reason = f"refused as {target.place[1]}: {error}"
            await mounted.asked(lambda: stage.note(reason=reason))
            raise
        before = stage.place
        await mounted.stages.move(stage, target.place)  # first: another daemon finds it under this name, and stores it

        def store() -> Hashable:
            stage.note(target=target.digest(), storing_ns=mounted.tick())
            return target.store(voxels)

        try:
            stage.stamp = await mounted.fetch(store)
        except BaseException:
            await mounted.stages.move(stage, before)
            raise
        stage.target = target
        stage.decoded = True
        if stage.handles:
            await mounted.asked(lambda: stage.note(reason=""))
        else:
            await mounted.stages.drop(stage)

    def _orphan(self, ino: int, stage: Stage | None) -> None:
        """Record that a temporary file lost its name: its open handles keep the file."""
        for handle in self.context.files.at(ino):
            if isinstance(handle, StageHandle) and handle.stage is stage:
                self.context.inodes.orphans[ino] = handle


class StagedFile(Node):
    """A file that can be written as a whole. ``rendered`` is the file as it is when nobody writes it."""

    up: StagedDir

    def __init__(self, up: StagedDir, rendered: LayoutFile) -> None:
        super().__init__(up.context, rendered.ino, up)
        self.name = rendered.name
        self._rendered = rendered
        self._place = up.writer.place(rendered.name)

    @property
    def cold(self) -> bool:
        return self._rendered.cold

    def load(self) -> None:
        self._rendered.load()

    @property
    def exists(self) -> bool:
        """Whether it is there when nobody writes it."""
        return self._rendered.exists

    def attr(self) -> Attr:
        stage = self.up.mounted.stages.visible(self._place)
        if stage is None:
            return self._rendered.attr()
        mtime = max(stage.mtime_ns, self._rendered.attr().mtime + 1) if self.exists else stage.mtime_ns
        return self.up.file_attr(self.ino, stage.size, mtime)

    async def open(self, flags: int) -> Handle:
        writable = wants_writing(flags)
        if writable:
            await self.up.writer.enter()
            if self.exists and not self._rendered.made.replaceable:
                raise NotAllowed(f"{self.name} is composed of stored chunks: write those")
        handle = await self.asked(lambda: self.handle(writable=writable))
        if flags & os.O_TRUNC:
            await handle.truncate(0)
        return handle

    async def change(self, changes: SetAttr, handle: Handle | None) -> None:
        if changes.size is None:
            return
        await self.up.writer.enter()
        own = await self.asked(lambda: self.handle(writable=True))
        try:
            await own.truncate(changes.size)
        finally:
            await own.release()

    def handle(self, *, writable: bool) -> StageHandle:
        target = self.up.writer.target(self._place[1])
        assert target is not None
        return StageHandle(self.up.mounted, self.ino, target, None, writable=writable)


class TemporaryFile(Node):
    """A file of a name that means nothing (yet)."""

    up: StagedDir
    name: str

    def __init__(self, context: TreeContext, ino: int, up: StagedDir, name: str) -> None:
        super().__init__(context, ino, up)
        self.name = name

    @property
    def _stage(self) -> Stage:
        stage = self.up.mounted.stages.visible(self.up.writer.place(self.name))
        if stage is None:
            raise NotFound(f"{self.name} does not exist")
        return stage

    def attr(self) -> Attr:
        stage = self._stage
        return self.up.file_attr(self.ino, stage.size, stage.mtime_ns)

    async def open(self, flags: int) -> Handle:
        writable = wants_writing(flags)
        if writable:
            await self.up.writer.enter()
        handle = StageHandle(self.up.mounted, self.ino, None, self._stage, writable=writable)
        if flags & os.O_TRUNC:
            await handle.truncate(0)
        return handle

    async def change(self, changes: SetAttr, handle: Handle | None) -> None:
        if changes.size is not None:
            await self.up.writer.enter()
            stage, size = self._stage, changes.size
            async with stage.lock:
                stage.dirty = True
                await self.up.mounted.look(lambda: stage.truncate(size))
