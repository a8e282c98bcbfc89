"""What the tree does by itself, besides answering: watching, dropping, letting go, writing inodes.

Decided here: how often, and in which order at the end. Other processes' commits are seen within a second; a staged file
that never decoded is dropped some time after its last close, and recorded; a branch nobody writes to any more is let go
for others; new inode numbers reach the disk every second.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from volfs.errors import VolfsError
from volfs.storage.stage_record import has_stages
from volfs.tree.branches.invalidation import VoxelChange
from volfs.tree.branches.mounted_branch import MountedBranch
from volfs.tree.branches.registry import BranchRegistry
from volfs.tree.branches.stage_handle import decode
from volfs.tree.branches.stages import Stage
from volfs.tree.core.context import Shared

log = logging.getLogger(__name__)

_INODE_SECONDS = 1.0
_RESERVE_SECONDS = 60.0


class Housekeeping:
    """The work of one tree."""

    def __init__(self, shared: Shared, branches: BranchRegistry) -> None:
        self._shared = shared
        self._branches = branches
        self._closing = trio.Event()
        self._closed = False

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Until :meth:`close`."""
        async with trio.open_nursery() as nursery:
            self._shared.serve_in(nursery)
            task_status.started()
            nursery.start_soon(self._every, self._shared.options.refresh_seconds, self._look_around)
            nursery.start_soon(self._every, _INODE_SECONDS, self._write_inodes)
            nursery.start_soon(self._every, _RESERVE_SECONDS, self._keep_reserve)
            nursery.start_soon(self._settle_leftovers)
            await self._closing.wait()
            # Commits under way go on to their end: the nursery waits for them.

    async def close(self) -> None:
        """Interpret what is staged, give branches back, write inodes."""
        if self._closed:
            return
        self._closed = True
        for room in self._branches:
            if room.order is not None:
                await room.order.done.wait()
            for stage in list(room.stages):
                with suppress(VolfsError, OSError):
                    await decode(room, stage, late=True)
            room.close()
        self._closing.set()
        await trio.to_thread.run_sync(self._shared.inodes.close)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        said = ""
        while not self._closing.is_set():
            with trio.move_on_after(seconds):
                await self._closing.wait()
                return
            try:
                await work()
                said = ""
            except (VolfsError, OSError) as error:
                if str(error) != said:  # a disk may be full for days
                    log.warning("%s", error)
                said = str(error)
            except Exception:  # a defect here must not end the mount
                log.exception("while looking after the mount")

    async def _settle_leftovers(self) -> None:
        """Decide, in every branch, what an earlier daemon left half written: nobody may ever look into it."""
        shared = self._shared
        if not shared.writable:
            return
        for name, branch in await trio.to_thread.run_sync(self._left_behind):
            try:
                await self._branches.get(shared.store[name], branch).enter()
            except (VolfsError, OSError) as error:
                log.debug("branch %s of %s: %s", branch, name, error)  # asked again when it is looked into

    def _left_behind(self) -> list[tuple[str, str]]:
        """(dataset, branch) of the branches with stages. Blocks; looks at names only, of datasets that are never used
        too."""
        found = []
        for name in self._shared.store.datasets():
            layout = self._shared.store.layout.dataset(name)
            with suppress(OSError):
                branches = os.listdir(layout.workings)
                found += [(name, branch) for branch in branches if has_stages(layout.working(branch).staged)]
        return found

    async def _write_inodes(self) -> None:
        if not self._closed:
            await trio.to_thread.run_sync(self._shared.inodes.flush)

    async def _keep_reserve(self) -> None:
        if self._shared.writable:
            await trio.to_thread.run_sync(self._shared.store.reserve.keep)

    async def _look_around(self) -> None:
        shared = self._shared
        if await trio.to_thread.run_sync(shared.store.refresh):
            shared.epoch += 1
        await trio.to_thread.run_sync(shared.access.look_again)
        for room in self._branches:
            try:
                await self._look_after(room)
            except VolfsError as error:
                log.debug("branch %s: %s", room.name, error)
                if room.name not in room.dataset.refs().heads:
                    self._branches.discard(room)
                    room.close()

    async def _look_after(self, room: MountedBranch) -> None:
        room.tidy()
        await room.watch()
        if not room.held and room.writable and await room.look(room.stages.left_behind):
            await room.enter()  # an earlier mount left slices half written
        for stage in list(room.stages):
            if not stage.handles and time.monotonic() - stage.idle_since > self._shared.options.stage_seconds:
                await self._drop(room, stage)
        if room.idle:
            room.leave()

    async def _drop(self, room: MountedBranch, stage: Stage) -> None:
        """Give a staged file its last chance, then forget it, and say so."""
        ino = stage.target.ino if stage.target is not None else None
        with suppress(VolfsError, OSError):  # its record says why
            await decode(room, stage, late=True)
        if stage.removed or stage.handles:
            return
        if not stage.decoded and stage.size:
            log.warning("branch %s: %s was dropped: %s", room.name, stage.name, stage.reason)
            await room.look(lambda: room.reject(stage.place, stage.reason))
        room.stages.drop(stage)
        await room.kernel.invalidate(VoxelChange(inodes=room.names_of(ino) if ino is not None else ()))
