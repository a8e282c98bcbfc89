"""Work of a tree that no request asks for.

Decided here: how often it is done, and the order of the last steps of a mount. Other processes' commits are seen within
a second; a staged file that never decoded is dropped some time after its last close, and recorded; a branch nobody
writes to any more is let go for others; new inode numbers reach the disk every second.
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
from volfs.tree.core.context import TreeContext

log = logging.getLogger(__name__)

_INODE_SECONDS = 1.0
_RESERVE_SECONDS = 60.0


class Housekeeping:
    """The background work of one tree."""

    def __init__(self, context: TreeContext, branches: BranchRegistry) -> None:
        self._context = context
        self._branches = branches
        self._closing = trio.Event()
        self._closed = False

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Work until :meth:`close`."""
        async with trio.open_nursery() as nursery:
            self._context.serve_in(nursery)
            task_status.started()
            nursery.start_soon(self._every, self._context.options.refresh_seconds, self._look_around)
            nursery.start_soon(self._every, _INODE_SECONDS, self._write_inodes)
            nursery.start_soon(self._every, _RESERVE_SECONDS, self._keep_reserve)
            nursery.start_soon(self._settle_leftovers)
            await self._closing.wait()
            # Commits under way go on to their end: the nursery waits for them.

    async def close(self) -> None:
        """Decode what is staged, give branches back, write inodes."""
        if self._closed:
            return
        self._closed = True
        for mounted in self._branches:
            if mounted.order is not None:
                await mounted.order.done.wait()
            for stage in list(mounted.stages):
                with suppress(VolfsError, OSError):
                    await decode(mounted, stage, late=True)
            mounted.close()
        self._closing.set()
        await trio.to_thread.run_sync(self._context.inodes.close)

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
        """Settle the stages that an earlier daemon left, in every branch: nobody may ever look into it."""
        context = self._context
        if not context.writable:
            return
        for name, branch in await trio.to_thread.run_sync(self._left_behind):
            try:
                await self._branches.get(context.store[name], branch).enter()
            except (VolfsError, OSError) as error:
                log.debug("branch %s of %s: %s", branch, name, error)  # asked again when it is looked into

    def _left_behind(self) -> list[tuple[str, str]]:
        """(dataset, branch) of the branches with stages. Blocks; looks at names only, of datasets that are never used
        too."""
        found = []
        for name in self._context.store.datasets():
            layout = self._context.store.layout.dataset(name)
            with suppress(OSError):
                branches = os.listdir(layout.workings)
                found += [(name, branch) for branch in branches if has_stages(layout.working(branch).staged)]
        return found

    async def _write_inodes(self) -> None:
        if not self._closed:
            await trio.to_thread.run_sync(self._context.inodes.flush)

    async def _keep_reserve(self) -> None:
        if self._context.writable:
            await trio.to_thread.run_sync(self._context.store.reserve.keep)

    async def _look_around(self) -> None:
        context = self._context
        if await trio.to_thread.run_sync(context.store.refresh):
            context.names_moved()
        await trio.to_thread.run_sync(context.access.look_again)
        for mounted in self._branches:
            try:
                await self._look_after(mounted)
            except VolfsError as error:
                log.debug("branch %s: %s", mounted.name, error)
                if mounted.name not in mounted.dataset.refs().heads:
                    self._branches.discard(mounted)
                    mounted.close()

    async def _look_after(self, mounted: MountedBranch) -> None:
        mounted.tidy()
        await mounted.watch()
        if not mounted.held and await mounted.look(lambda: mounted.writable and mounted.stages.left_behind()):
            await mounted.enter()  # an earlier mount left slices half written
        for stage in list(mounted.stages):
            if not stage.handles and time.monotonic() - stage.idle_since > self._context.options.stage_seconds:
                await self._drop(mounted, stage)
        if mounted.idle:
            await mounted.leave()

    async def _drop(self, mounted: MountedBranch, stage: Stage) -> None:
        """Try a staged file a last time, then drop it and record that."""
        ino = stage.target.ino if stage.target is not None else None
        with suppress(VolfsError, OSError):  # its record says why
            await decode(mounted, stage, late=True)
        if stage.removed or stage.handles:
            return
        if not stage.decoded and stage.size:
            log.warning("branch %s: %s was dropped: %s", mounted.name, stage.name, stage.reason)
            await mounted.look(lambda: mounted.reject(stage.place, stage.reason))
            if stage.handles:
                return  # somebody has begun to write it again meanwhile
        mounted.stages.drop(stage)
        await mounted.kernel.invalidate(VoxelChange(inodes=mounted.names_of(ino) if ino is not None else ()))
