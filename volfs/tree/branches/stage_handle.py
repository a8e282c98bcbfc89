"""An open slice of a branch, or an open temporary file beside slices.

Decided here: which bytes it reads and writes. While a stage shows, the stage's. Otherwise the slice's; the first write
makes a stage of them. A stage that has become the slice is kept until its writers are done: one that goes on writing
goes on in its own file, not in volfs's rendering of it, unless the voxels have changed otherwise since.

Decided here too: whose voxels stay. A writer's flush, fsync or close puts all that it wrote; where it began with the
slice's bytes, those that it did not touch are as they are by then, whoever changed them. An attempt that no writer
waits for (before a commit, after a full disk, by housekeeping) is *late*, and changes nothing where any voxel is newer.

Locks: a stage's bytes change, and are decoded, under its own lock. The kernel's pages are invalidated after the lock is
released, since to forget an inode it may first write the pages that a program has mapped.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from functools import partial
from typing import TYPE_CHECKING

from volfs.errors import BadInput, ReadOnly, VolfsError
from volfs.tree.branches.invalidation import VoxelChange
from volfs.tree.branches.stages import Stage, StageTarget
from volfs.tree.contract.attrs import WRITABLE, Attr
from volfs.tree.core.layout_handle import LayoutHandle, read_resident
from volfs.tree.core.open_files import Handle
from volfs.views.plane import Incomplete

if TYPE_CHECKING:
    from volfs.tree.branches.mounted_branch import MountedBranch


class StageHandle(Handle):
    """``target`` is the slice, ``stage`` the temporary file: one of the two."""

    slow_stamp = True

    def __init__(
        self, mounted: MountedBranch, ino: int, target: StageTarget | None, stage: Stage | None, *, writable: bool
    ) -> None:
        super().__init__(ino)
        self.mounted: MountedBranch = mounted
        self.writable = writable
        self.stage: Stage | None = None
        self._target = target
        self._slice: tuple[object, LayoutHandle] | None = None
        self._generation: Hashable = None
        self._released = False
        if stage is not None:
            self._attach(stage)

    @property
    def target(self) -> StageTarget | None:
        """The slice that this is; a temporary file is none, until it is renamed over one."""
        if self._target is None and self.stage is not None:
            self._target = self.stage.target
        return self._target

    # -- reading ----------------------------------------------------------------------------------------------------

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        stage = self._showing()
        if stage is None:
            slices = await self.mounted.asked(self._slice_handle) if self.mounted.far else self._slice_handle()
            return await slices.read(offset, size)
        data = None if self.mounted.far else read_resident(stage.fd, size, stage.start + offset)
        if data is None:
            stage.handles += 1  # it must not be closed under the thread
            data = await self.mounted.context.in_time(partial(self._fetch, stage, offset, size))
        return data

    async def _fetch(self, stage: Stage, offset: int, size: int) -> bytes:
        try:
            return bytes(await self.mounted.look(lambda: stage.read(offset, size)))
        finally:
            await self._let_go(stage)

    def _showing(self) -> Stage | None:
        """The stage whose bytes this file has now."""
        own = self.stage
        if own is not None and (own.removed or not own.decoded):
            return own
        target = self.target
        return self.mounted.stages.visible(target.place) if target is not None else own

    def _slice_handle(self) -> LayoutHandle:
        target = self.target
        assert target is not None
        source, layout = target.rendered()
        mounted = self.mounted
        made_of = source, mounted.far
        if self._slice is None or self._slice[0] != made_of:
            quick = None if mounted.far else source  # else whether they are those of now is for the disk to say
            self._slice = made_of, LayoutHandle(mounted.context, self.ino, mounted.dataset.name, source, layout, quick)
        handle = self._slice[1]
        generation = self.mounted.branch.generation()
        if generation != self._generation:
            # Checksums that were noted may be of voxels that have changed.
            self._generation = generation
            handle.changed()
        return handle

    # -- writing ----------------------------------------------------------------------------------------------------

    async def write(self, offset: int, data: bytes) -> int:
        stage = await self._stage_to_write()
        async with stage.lock:
            await self._revive(stage)
            stage.failed = False
            stage.dirty = True
            return int(await self.mounted.fetch(lambda: stage.write(offset, data)))

    async def truncate(self, size: int) -> None:
        mounted, stage = self.mounted, await self._stage_to_write()

        def cut() -> None:
            stage.truncate(size)
            if not size:
                stage.begin(mounted.record(stage.target))

        async with stage.lock:
            if stage.decoded and size:
                target = stage.target
                if target is not None and await mounted.asked(lambda: target.rendered()[1].size) == size:
                    return  # as it is
                await self._revive(stage)
            await mounted.look(cut)
            if size:
                stage.filled = None  # cut or extended: a file of its own
            stage.dirty = True
            self._show(stage)

    async def _stage_to_write(self) -> Stage:
        if not self.writable:
            raise ReadOnly("this file is not open for writing")
        if self.stage is not None:
            return self.stage
        target, mounted = self._target, self.mounted
        assert target is not None
        stage = mounted.stages.get(target.place)
        if stage is None:
            size, record = await mounted.asked(lambda: (target.rendered()[1].size, mounted.record(target)))
            stage = await mounted.stages.open(target.place, size, record, target)
        if self.stage is None:  # else another write through this file came first
            self._attach(stage)
        return self.stage or stage

    async def _revive(self, stage: Stage) -> None:
        """Let a stage show again that has become the slice, or has nothing of it yet. With its lock held."""
        if not stage.decoded or stage.removed:
            return
        target = stage.target
        assert target is not None

        def refill() -> None:
            record, now = self.mounted.record(target), target.stamp()  # what changes from here on is newer
            if stage.stamp is None or now != stage.stamp:
                stage.fill(target.pieces())
            stage.begin(record, now)

        await self.mounted.fetch(refill)
        self._show(stage)

    def _show(self, stage: Stage) -> None:
        if stage.decoded:
            stage.decoded = False
            self.mounted.stages.changes += 1

    # -- done writing -----------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        if self.stage is not None and self.writable:
            await decode(self.mounted, self.stage)

    async def fsync(self) -> None:
        stage = self.stage
        if stage is None or not self.writable:
            return
        await decode(self.mounted, stage)
        target = stage.target
        if stage.decoded and target is not None:
            await self.mounted.look(target.sync)
        else:
            await self.mounted.look(stage.sync)

    async def release(self) -> None:
        stage = self.stage
        if stage is None or self._released:
            return
        self._released = True
        try:
            if self.writable:
                await decode(self.mounted, stage)
        finally:
            await self._let_go(stage)

    def _attach(self, stage: Stage) -> None:
        self.stage = stage
        stage.handles += 1

    async def _let_go(self, stage: Stage) -> None:
        stage.handles -= 1
        if stage.handles == 0:
            stage.idle_since = time.monotonic()
            if stage.decoded or stage.removed:
                await self.mounted.stages.drop(stage)

    # -- what it shows ----------------------------------------------------------------------------------------------

    def stamp(self) -> Hashable:
        stage, target = self._showing(), self.target
        if stage is None and target is not None:
            return target.stamp()
        if stage is None:
            return "becoming a slice"
        return "staged", id(stage), stage.mtime_ns, stage.size

    def quick_stamp(self) -> Hashable:
        return None if self._showing() is not None else (self.mounted.branch.generation(), self.mounted.stages.changes)

    async def orphan_attr(self) -> Attr | None:
        stage = self.stage
        if stage is None or not stage.removed:
            return None
        return self.mounted.context.file_attr(self.ino, stage.size, stage.mtime_ns, mode=WRITABLE, nlink=0)


class Superseded(VolfsError):
    """A late attempt would have put voxels over newer ones."""


async def decode(mounted: MountedBranch, stage: Stage, *, late: bool = False) -> None:
    """Try to make a changed stage the slice it stands for, and have the kernel forget what showed before.

    ``late``: no writer waits for it. An incomplete or empty one is no error. Raises BadInput for one that never can be
    the slice; Superseded for a late one whose voxels have changed otherwise since it was begun; and whatever keeps its
    voxels from being stored: then the next attempt, which is late, may succeed.
    """
    target = stage.target
    if target is None or not stage.dirty or stage.removed:
        return
    async with stage.lock:
        if not stage.dirty or stage.removed:
            return
        stage.dirty = False
        try:
            if not stage.size:
                await _note(mounted, stage, reason="it is empty", refused=False)
                return
            stage.stamp = await mounted.fetch(lambda: _store(mounted, stage, target, late=late or stage.failed))
        except Incomplete as error:
            await _note(mounted, stage, reason=str(error), refused=False)
            return
        except BadInput as error:
            if target.keeps_refused:
                await _note(mounted, stage, reason=str(error), refused=True)
            else:
                await mounted.stages.drop(stage)
            if not late:
                await mounted.note_refusal(stage.name, error)
            raise
        except (VolfsError, OSError) as error:
            stage.dirty = True
            if isinstance(error, Superseded):
                await _note(mounted, stage, reason=str(error), refused=True)
            else:
                await unstored(mounted, stage, error)
            if not late:
                await mounted.note_refusal(stage.name, error)
            raise
        finally:
            mounted.stages.changes += 1
        stage.decoded = True
        if stage.handles:
            await _note(mounted, stage, reason="")
    if not stage.handles:
        await mounted.stages.drop(stage)
    await mounted.kernel.invalidate(VoxelChange(inodes=mounted.names_of(target.ino)))


async def unstored(mounted: MountedBranch, stage: Stage, error: Exception) -> None:
    """Record that the disk failed when voxels were stored: some may be there, and what changes from here on is
    newer."""
    await mounted.asked(lambda: stage.note(reason=str(error), refused=False, began_ns=mounted.tick(), storing_ns=0))
    stage.failed = True


async def _note(mounted: MountedBranch, stage: Stage, *, reason: str, refused: bool = False) -> None:
    await mounted.asked(lambda: stage.note(reason=reason, refused=refused))


def _store(mounted: MountedBranch, stage: Stage, target: StageTarget, *, late: bool) -> Hashable:
    """Store the voxels of a stage, and return the slice's stamp then. Blocks."""
    if late and target.newest() > stage.record.began_ns:
        raise Superseded("its voxels have changed since it was begun: write it again")
    if stage.filled is not None and stage.filled != target.stamp() and stage.size == target.rendered()[1].size:
        stage.overlay(target.pieces())
        stage.filled = None
    voxels = target.parse(stage.whole())
    stage.note(storing_ns=mounted.tick())
    return target.store(voxels)
