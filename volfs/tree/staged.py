"""Files that are replaced as a whole: staged per inode until they decode, then voxels.

Decided here, as DESIGN 3 says it: while a file that is being written over another does not decode, its size and bytes
are its own; each flush of a changed one tries to decode it; a wrong shape or data type is EINVAL, changes nothing and
keeps the stage; an incomplete or empty one is fine for now. Temporary names live beside the files, and a rename over a
file is a write of it. Not here: what a file of which name becomes (:mod:`volfs.tree.edits` for slices,
:mod:`volfs.tree.formats` for the chunks of other formats), the staged files themselves (:mod:`volfs.tree.stages`), and
dropping them (:mod:`volfs.tree.housekeeping`).
"""

from __future__ import annotations

import errno
import os
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace

from volfs.errors import AlreadyThere, BadInput, NotAllowed, NotFound
from volfs.tree.api import RENAME_EXCHANGE, RENAME_NOREPLACE, DirEntry
from volfs.tree.attrs import Attr, SetAttr
from volfs.tree.handles import Handle, wants_writing
from volfs.tree.invalidation import VoxelChange
from volfs.tree.node import Dir, Node, name_cookie
from volfs.tree.room import MountedBranch
from volfs.tree.shared import Shared
from volfs.tree.stagehandle import StageHandle
from volfs.tree.stages import SlicePath, Stage, StageTarget
from volfs.views.plane import Incomplete


class StagedDir(Dir):
    """A directory of a branch whose files can be written as a whole. Mixed into the class that has them read-only."""

    room: MountedBranch
    #: What a file is called in messages.
    word: str = "file"

    # -- what a subclass says -----------------------------------------------------------------------------------------

    @abstractmethod
    def place(self, name: str) -> SlicePath:
        """Where the file of a name is staged."""

    @abstractmethod
    def target(self, name: str) -> StageTarget | None:
        """What a file of this name would be written to; None for a temporary name."""

    @abstractmethod
    def means_file(self, name: str) -> bool:
        """Whether somebody who uses this name thinks of one of the files, there or not."""

    @abstractmethod
    def staged_size(self) -> int:
        """About how large a file is."""

    @abstractmethod
    def has_files(self) -> str:
        """Which files there are, for messages."""

    @property
    @abstractmethod
    def file_mode(self) -> int:
        """Type and permissions of a file."""

    @abstractmethod
    async def check_writable(self) -> None:
        """Become the writer. NotAllowed where nothing can be written."""

    @abstractmethod
    async def removed(self, name: str) -> None:
        """A file was removed that is not a temporary one."""

    def shown(self, name: str) -> Node | None:
        """The file of a name when nobody writes it."""
        return super().find(name)  # type: ignore[safe-super]

    # -- looking ----------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Node | None:
        if self.room.is_hidden(self.place(name)):
            return None
        found = self.shown(name)
        if found is None and self.room.stages.visible(self.place(name)) is not None:
            return TemporaryFile(self.shared, self.shared.inodes.name(self.ino, name), self, name)
        return found

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        room, folder = self.room, self.place("")[0]
        staged = set(room.stages.names(folder))
        changed = staged or any(place[0] == folder for place in room.hidden)
        extra = sorted((at, name) for name in staged if (at := name_cookie(name)) > cookie)
        ended = True
        for entry in super().entries(cookie):  # type: ignore[safe-super]
            ended = False
            while extra and extra[0][0] < entry.cookie:
                yield from self._temporary(*extra.pop(0))
            if changed:
                name = os.fsdecode(entry.name)
                if room.is_hidden((folder, name)):
                    continue
                if name in staged and (node := self.find(name)) is not None:
                    entry = entry._replace(attr=node.attr())
            yield entry
        if ended:  # what comes before may be told in several pieces
            for at, name in extra:
                yield from self._temporary(at, name)

    def _temporary(self, at: int, name: str) -> Iterator[DirEntry]:
        if isinstance(node := self.find(name), TemporaryFile):
            yield DirEntry(os.fsencode(name), node.attr(), at)

    # -- changing names ---------------------------------------------------------------------------------------------

    async def create(self, name: str, mode: int, flags: int) -> tuple[Node, Handle]:
        await self.check_writable()
        place, room = self.place(name), self.room
        if len(os.fsencode(name)) > 255:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        target = self.target(name)
        if target is None and self.means_file(name):
            raise BadInput(f"{name} is no {self.word} of this image: it has {self.has_files()}")
        hidden = room.hidden.pop(place, None) is not None
        there = room.stages.visible(place)
        found = self.shown(name) if target is not None else None
        if found is not None and found.cold:
            await found.prepare()
        absent = not isinstance(found, StagedFile) or not found.exists
        if flags & os.O_EXCL and not hidden and (there is not None or not absent):
            raise AlreadyThere(f"{name} exists")
        if target is None:
            stage = there or room.stages.open(place, self.staged_size(), room.record(None))
            node: Node = TemporaryFile(self.shared, self.shared.inodes.name(self.ino, name), self, name)
            handle = StageHandle(room, node.ino, None, stage, writable=wants_writing(flags))
            if flags & os.O_TRUNC and there is not None:
                await handle.truncate(0)
        else:
            assert isinstance(found, StagedFile)
            node, handle = found, found.handle(writable=wants_writing(flags))
            if hidden or (absent and there is None) or flags & os.O_TRUNC:
                await handle.truncate(0)
        room.touch(self.ino)
        return node, handle

    async def unlink(self, name: str) -> None:
        node = self.find(name)
        if node is None:
            raise NotFound(f"{name} does not exist")
        await self.check_writable()
        room, place = self.room, self.place(name)
        stage = room.stages.get(place)
        if stage is not None:
            room.stages.drop(stage)
        if isinstance(node, TemporaryFile):
            self._orphan(node.ino, stage)
            self.shared.inodes.removed(self.ino, name)
        else:
            await self.removed(name)
        room.touch(self.ino)

    async def mkdir(self, name: str, mode: int) -> Attr:
        await self.check_writable()
        raise NotAllowed(f"no directory can be made among the {self.word}s")

    async def symlink(self, name: str, target: str) -> Node:
        await self.check_writable()
        raise NotAllowed(f"there are no links among {self.word}s")

    async def link(self, node: Node, name: str) -> Node:
        await self.check_writable()
        raise NotAllowed(f"a {self.word} cannot have a second name")

    async def rename(self, name: str, to: Dir, new_name: str, flags: int) -> None:
        node = self.find(name)
        if node is None:
            raise NotFound(f"{name} does not exist")
        if not isinstance(to, StagedDir) or to.room is not self.room or not isinstance(node, TemporaryFile):
            # mv then copies, and removes the original: which is right for what is computed from voxels.
            raise NotAllowed(f"a {self.word} can be copied, not moved", errno=errno.EXDEV)
        if flags & RENAME_EXCHANGE:
            raise BadInput(f"{self.word}s cannot be exchanged")
        await to.check_writable()
        if flags & RENAME_NOREPLACE and to.find(new_name) is not None:
            raise AlreadyThere(f"{new_name} exists")
        room = self.room
        stage = room.stages.visible(self.place(name))
        if stage is None:
            raise NotFound(f"{name} does not exist")
        target = to.target(new_name)
        if target is None:
            await self._rename_temporary(stage, name, to, new_name)
            return
        async with stage.lock:
            await self._become(stage, target)
            self.shared.inodes.removed(self.ino, name)
            self.shared.inodes.aliases[node.ino] = target.ino
            room.hidden.pop(to.place(new_name), None)
        room.touch(self.ino)
        room.touch(to.ino)
        await room.kernel.invalidate(VoxelChange(inodes={node.ino, *room.names_of(target.ino)}))
        self.shared.notifier.queue_entry(to.ino, os.fsencode(new_name))

    async def _rename_temporary(self, stage: Stage, name: str, to: StagedDir, new_name: str) -> None:
        if to.means_file(new_name):
            raise BadInput(f"{new_name} is no {self.word} of this image")
        room = self.room
        there = room.stages.visible(to.place(new_name))
        if there is not None and there is not stage:
            ino = self.shared.inodes.name(to.ino, new_name)
            room.stages.drop(there)
            self._orphan(ino, there)
        room.stages.move(stage, to.place(new_name))
        self.shared.inodes.moved(self.shared.inodes.name(self.ino, name), (self.ino, name), (to.ino, new_name))
        room.touch(self.ino)
        room.touch(to.ino)

    async def _become(self, stage: Stage, target: StageTarget) -> None:
        """Make a temporary file the slice. Raises, and leaves it a temporary file, if it can never be one."""
        room = self.room

        stage.dirty = False
        try:
            voxels = await room.fetch(lambda: target.parse(stage.whole()))
        except Incomplete as error:
            if stage.size and not stage.handles:
                raise
            # Still being written: it shows as it is until it is whole.
            stage.begin(replace(room.record(target), reason=str(error)))
            room.stages.move(stage, target.place)
            stage.target = target
            return
        except BadInput as error:
            stage.note(reason=f"refused as {target.place[1]}: {error}")
            raise
        before = stage.place
        room.stages.move(stage, target.place)  # first: under this name another daemon finds it, and ends what is begun
        stage.note(target=target.digest(), storing_ns=room.tick())
        try:
            stage.stamp = await room.fetch(lambda: target.store(voxels))
        except BaseException:
            room.stages.move(stage, before)
            raise
        stage.target = target
        stage.decoded = True
        stage.note(reason="")
        if not stage.handles:
            room.stages.drop(stage)

    def _orphan(self, ino: int, stage: Stage | None) -> None:
        """A temporary file lost its name: whoever has it open keeps it."""
        for handle in self.shared.files.at(ino):
            if isinstance(handle, StageHandle) and handle.stage is stage:
                self.shared.inodes.orphans[ino] = handle


class StagedFile(Node):
    """A file that can be written as a whole. Mixed into the class that has it read-only."""

    up: StagedDir

    @property
    @abstractmethod
    def place(self) -> SlicePath:
        """Where it is staged."""

    @property
    def exists(self) -> bool:
        """Whether it is there when nobody writes it."""
        return True

    def attr(self) -> Attr:
        stage = self.up.room.stages.visible(self.place)
        if stage is None:
            return super().attr()  # type: ignore[safe-super]
        mtime = max(stage.mtime_ns, super().attr().mtime + 1) if self.exists else stage.mtime_ns  # type: ignore[safe-super]
        return self.shared.file_attr(self.ino, stage.size, mtime, mode=self.up.file_mode)

    async def open(self, flags: int) -> Handle:
        writable = wants_writing(flags)
        if writable:
            await self.up.check_writable()
        handle = self.handle(writable=writable)
        if flags & os.O_TRUNC:
            await handle.truncate(0)
        return handle

    async def change(self, changes: SetAttr, handle: Handle | None) -> None:
        if changes.size is None:
            return
        await self.up.check_writable()
        own = self.handle(writable=True)
        try:
            await own.truncate(changes.size)
        finally:
            await own.release()

    def handle(self, *, writable: bool) -> StageHandle:
        target = self.up.target(self.place[1])
        assert target is not None
        return StageHandle(self.up.room, self.ino, target, None, writable=writable)


class TemporaryFile(Node):
    """A file of a name that means nothing (yet)."""

    up: StagedDir
    name: str

    def __init__(self, shared: Shared, ino: int, up: StagedDir, name: str) -> None:
        super().__init__(shared, ino, up)
        self.name = name

    @property
    def _stage(self) -> Stage:
        stage = self.up.room.stages.visible(self.up.place(self.name))
        if stage is None:
            raise NotFound(f"{self.name} does not exist")
        return stage

    def attr(self) -> Attr:
        stage = self._stage
        return self.shared.file_attr(self.ino, stage.size, stage.mtime_ns, mode=self.up.file_mode)

    async def open(self, flags: int) -> Handle:
        writable = wants_writing(flags)
        if writable:
            await self.up.check_writable()
        handle = StageHandle(self.up.room, self.ino, None, self._stage, writable=writable)
        if flags & os.O_TRUNC:
            await handle.truncate(0)
        return handle

    async def change(self, changes: SetAttr, handle: Handle | None) -> None:
        if changes.size is not None:
            await self.up.check_writable()
            stage, size = self._stage, changes.size
            async with stage.lock:
                stage.dirty = True
                await self.up.room.look(lambda: stage.truncate(size))
