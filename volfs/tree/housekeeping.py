"""Work of a tree that no request asks for.

Decided here: how often it is done, and the order of the last steps of a mount. Other processes' commits are seen within
a second; a staged file that never decoded is dropped some time after its last close, and recorded; a branch nobody
writes to any more is let go for others; new inode numbers reach the disk every second.

Each dataset and each branch is looked after on its own: one whose disk does not answer holds up no other.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from functools import partial

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

Work = Callable[[], Awaitable[None]]

_INODE_SECONDS = 1.0
_RESERVE_SECONDS = 60.0


class Housekeeping:
    """The background work of one tree."""

    def __init__(self, context: TreeContext, branches: BranchRegistry) -> None:
        self._context = context
        self._branches = branches
        self._closing = trio.Event()
        self._closed = False
        #: What is being looked after now.
        self._under_way: set[Hashable] = set()
        #: The last error of each, which is logged once: a disk may be full for days.
        self._said: dict[Hashable, str] = {}

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Work until :meth:`close`."""
        async with trio.open_nursery() as nursery:
            self._context.serve_in(nursery)
            task_status.started()
            nursery.start_soon(self._every, self._context.options.refresh_seconds, self._look_around)
            nursery.start_soon(self._every, _INODE_SECONDS, self._write_inodes)
            nursery.start_soon(self._every, _RESERVE_SECONDS, self._keep_reserve)
            self._settle_leftovers()
            await self._closing.wait()
            # Commits under way go on to their end: the nursery waits for them.

    async def close(self) -> None:
        """Decode what is staged, give branches back, write inodes."""
        if self._closed:
            return
        self._closed = True
        async with trio.open_nursery() as nursery:
            for mounted in (*self._branches, *self._branches.replaced):
                nursery.start_soon(self._finish, mounted)
        self._closing.set()
        await trio.to_thread.run_sync(self._context.close)

    async def _finish(self, mounted: MountedBranch) -> None:
        """Decode what is staged in a branch, and give it back."""
        if mounted.order is not None:
            await mounted.order.done.wait()
        for stage in list(mounted.stages):
            with suppress(VolfsError, OSError):
                await decode(mounted, stage, late=True)
        await mounted.close()

    async def _every(self, seconds: float, work: Work) -> None:
        while not self._closing.is_set():
            with trio.move_on_after(seconds):
                await self._closing.wait()
                return
            await self._guarded(work.__name__, work)

    async def _guarded(self, what: Hashable, work: Work) -> None:
        """Do some work whose failure ends nothing else."""
        try:
            await work()
            self._said.pop(what, None)
        except (VolfsError, OSError) as error:
            if self._said.get(what) != str(error):
                log.warning("%s", error)
            self._said[what] = str(error)
        except Exception:  # a defect here must not end the mount
            log.exception("while looking after the mount")

    def _begin(self, what: Hashable, work: Work) -> None:
        """Begin to look after something, unless that is still under way since an earlier round."""

        async def look_after() -> None:
            try:
                await self._guarded(what, work)
            finally:
                self._under_way.discard(what)

        if what not in self._under_way:
            self._under_way.add(what)
            self._context.start(look_after)

    def _settle_leftovers(self) -> None:
        """Begin to settle the stages that an earlier daemon left, in every branch: nobody may ever look into it."""
        if self._context.writable:
            for dataset in self._context.store.datasets():
                self._begin(("leftovers", dataset), partial(self._settle_leftovers_of, dataset))

    async def _settle_leftovers_of(self, dataset: str) -> None:
        context = self._context
        for branch in await context.look(dataset, lambda: self._left_behind(dataset)):
            try:
                await (await context.look(dataset, partial(self._mounted, dataset, branch))).enter()
            except (VolfsError, OSError) as error:
                log.debug("branch %s of %s: %s", branch, dataset, error)  # asked again when it is looked into

    def _mounted(self, dataset: str, branch: str) -> MountedBranch:
        return self._branches.get(self._context.store[dataset], branch)

    def _left_behind(self, dataset: str) -> list[str]:
        """The branches of a dataset with stages. Blocks; looks at names only, since the dataset may never be used."""
        layout = self._context.store.layout.dataset(dataset)
        try:
            return [branch for branch in os.listdir(layout.workings) if has_stages(layout.working(branch).staged)]
        except OSError:
            return []

    async def _write_inodes(self) -> None:
        if not self._closed:
            await trio.to_thread.run_sync(self._context.inodes.flush)

    async def _keep_reserve(self) -> None:
        if self._context.writable:
            await trio.to_thread.run_sync(self._context.store.reserve.keep)

    async def _look_around(self) -> None:
        """Begin a round."""
        context = self._context
        if context.heed_mounts():
            for mounted in self._branches:
                mounted.far = context.is_far(mounted.dataset.name)
        self._begin("datasets", partial(self._see_changes, frozenset(), context.store.look_for_datasets))
        for disks, datasets in context.by_disk(context.store.datasets()).items():
            self._begin(("datasets", disks), partial(self._see_changes, disks, partial(self._look_at, datasets)))
        if context.lender is not None:
            context.catch_up()
            context.lender.tidy()
        for mounted in self._branches:
            self._begin(("branch", mounted.path), partial(self._look_after, mounted))
        while self._branches.replaced:
            self._begin(object(), self._branches.replaced.pop().close)

    async def _see_changes(self, disks: frozenset[str], look: Callable[[], None]) -> None:
        """See by ``look`` what other processes did."""
        context = self._context
        await context.look_at_disks(disks, look)
        if await context.look_at_disks(frozenset(), context.store.has_changed):
            context.names_moved()

    def _look_at(self, datasets: list[str]) -> None:
        for dataset in datasets:
            self._context.store.look_at(dataset)
            self._context.access.look_again(dataset)
        for mounted in list(self._branches):
            if mounted.dataset.name in datasets:
                mounted.see_owner()

    async def _look_after(self, mounted: MountedBranch) -> None:
        try:
            await self._tend(mounted)
        except VolfsError as error:
            log.debug("branch %s: %s", mounted.name, error)
            if mounted.name not in (await mounted.asked(mounted.dataset.refs)).heads:
                self._branches.discard(mounted)
                await mounted.close()

    async def _tend(self, mounted: MountedBranch) -> None:
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
        await mounted.stages.drop(stage)
        await mounted.kernel.invalidate(VoxelChange(inodes=mounted.names_of(ino) if ino is not None else ()))
