"""A branch while it is mounted: its writer's lock, its staged files, its removed slices.

Decided here: when this process becomes the branch's writer and when it lets go; that changes of names take turns; how
long a removed slice stays hidden. Not here: the changes themselves (:mod:`volfs.tree.nodes.branch_slices`,
:mod:`volfs.tree.nodes.branch_keys`), and what the kernel must forget after one
(:mod:`volfs.tree.branches.invalidation`)."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from resource import RUSAGE_THREAD, getrusage
from typing import TypeVar

import trio

from volfs.errors import Busy, NotAllowed, NotFound, ReadOnly, VolfsError
from volfs.storage.files import read_json, write_json
from volfs.storage.stage_record import StageRecord
from volfs.tree.branches.invalidation import Invalidation, VoxelChange
from volfs.tree.branches.order import Order
from volfs.tree.branches.stages import SlicePath, Stages, StageTarget
from volfs.tree.contract.attrs import SOON
from volfs.tree.core.context import TreeContext
from volfs.tree.core.ports import WriteBuffer
from volfs.tree.images.image_index import ImageIndex
from volfs.versions.branch import Branch
from volfs.versions.dataset import Dataset
from volfs.versions.working import refusals

_T = TypeVar("_T")

#: How long the writer's lock is kept after the last change, so that others get their turn.
_HOLD_SECONDS = 10.0
_REJECTED_KEPT = 100
#: A refusal in the same words within so many seconds is noted once.
_SAID_AGAIN = 2.0
#: Errors that any filesystem answers with in everyday use, and that need no explanation.
_PLAIN = frozenset(
    {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EXDEV, errno.EROFS, errno.ELOOP}
    | {errno.ENAMETOOLONG, errno.ESTALE, errno.ETIMEDOUT}
)
#: Directories whose last change of names is remembered, beside what the disk says.
_DIRECTORIES_KEPT = 50_000
#: A change made on the tree's own thread that took longer than this (s), and in which the thread slept, was held up by
#: the disk: for a while, the next ones are made in threads. (Where it did not sleep, others had the processor.)
_SLOW_SECONDS = 0.02
_SLOW_SPELL = 1.0
#: Of the front's clock (ns).
_SOON, _FOREVER = int(SOON * 1e9), 2**62


class MountedBranch:
    """One branch of one dataset. Used on the tree's thread, except for methods that block."""

    def __init__(
        self,
        context: TreeContext,
        dataset: Dataset,
        name: str,
        path: str,
        settle_leftovers: Callable[[MountedBranch], Awaitable[None]],
    ) -> None:
        self.context = context
        self.dataset = dataset
        self.name = name
        #: As inodes are derived from it.
        self.path = path
        self.branch: Branch = dataset.branch(name)
        #: Whether the working copy's disk may stop answering: see :attr:`volfs.tree.core.node.Node.far`.
        self.far = context.is_far(dataset.name)
        #: Who looks at what is made of its keys, for the front; None without one.
        self.onlookers = None
        if context.lender is not None:
            self.onlookers = context.lender.watch(context.options.uid, context.options.gid)
        self.images = ImageIndex(self.branch, path, self)
        self.kernel = Invalidation(context, self, self.branch, self.images)
        self.walk_lost()
        self.stages = Stages(self.branch.working.layout.staged, self.asked)
        #: Names of slices that were removed, and until when (monotonic) they stay so.
        self.hidden: dict[SlicePath, float] = {}
        self._settle_leftovers = settle_leftovers
        self._itself = object()
        self._names = trio.Lock()
        self._opening = trio.Lock()
        self._entering = trio.Lock()
        self._dir_times: dict[int, int] = {}
        self._held = False
        self._last_use = 0.0
        self._slow_until = 0.0
        self._seen: object = None
        #: Open files with bytes that were written and are not voxels yet.
        self.buffers: set[WriteBuffer] = set()
        #: Files that are being closed.
        self.closing = 0
        #: The commit or discard that is going on.
        self.order: Order | None = None
        #: What the branch was just after a commit took the message from ``.volfs/message``.
        self.message_taken: Hashable = None
        # The last refusal that was noted, and when (monotonic).
        self._refused: tuple[str, str, float] | None = None

    def generation(self) -> Hashable:
        """The generation of the branch's contents, which no other branch of this name has, before or after."""
        return self._itself, self.branch.generation()

    # -- who may write ----------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """True if changes through this mount are possible now."""
        if not self.context.writable:
            return False
        try:
            return self._held or self.branch.writable
        except VolfsError:
            return False

    @property
    def held(self) -> bool:
        """True if this mount is the branch's writer now."""
        return self._held

    def refusal(self) -> VolfsError:
        """The error for an attempt to change something of this branch that is generated, or cannot be changed now."""
        if not self.context.writable:
            return ReadOnly("this mount is read-only")
        holder = None if self._held else self.branch.holder()
        if holder is not None:
            return ReadOnly(f"branch {self.name!r} is being written by {holder}")
        return NotAllowed("this is generated: it cannot be changed")

    async def enter(self) -> None:
        """Become the branch's writer, before anything is changed. Raises ReadOnly, naming the holder, if another is."""
        self._last_use = time.monotonic()
        if self._held:
            return
        if not self.context.writable:
            raise ReadOnly("this mount is read-only")
        async with self._entering:
            if self._held:
                return
            mountpoint = self.context.options.mountpoint
            await self.look(lambda: self.branch.acquire(mountpoint))
            try:
                # Before anybody changes anything: what is written from now on meets no stage of another daemon.
                await self._settle_leftovers(self)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await self.look(self.branch.release)
                raise
            self._held = True

    async def leave(self) -> None:
        """Give the writer's lock back. Stages must be settled before."""
        if self._held:
            self._held = False  # first: whoever enters meanwhile takes the lock once more
            self._walk_on()
            await self.look(self.branch.release)

    @property
    def idle(self) -> bool:
        """True if the lock is held and nobody needs it."""
        return (
            self._held
            and time.monotonic() - self._last_use > _HOLD_SECONDS
            and not any(True for _ in self.stages)
            and not self._entering.locked()
            and self.order is None
            and not any(handle.writable for handle in self.context.files.of_branch(self))
        )

    async def retire(self) -> None:
        """Close the branch before it is removed. Raises Busy if something is staged."""
        if any(not stage.decoded and stage.size for stage in self.stages):
            raise Busy(f"branch {self.name!r} has slices that are being written")
        await self.close()

    async def close(self) -> None:
        """Close all stages and give the lock back. Staged files stay for the next mount."""
        await self.stages.close()
        await self.leave()

    def limit(self, folder: str) -> int:
        """The size (bytes) of a slice in a directory, for stages that an earlier mount left."""
        for image in self.images.images():
            for level in image.levels:
                if f"/{level.name}/" in f"/{folder}/":
                    return int(level.dtype.itemsize * max(level.shape[-2:]) ** 2 * 4)
        return 1 << 30

    # -- names ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def renaming(self) -> AsyncIterator[None]:
        """Change names in the block: one change at a time, so that nobody sees a name on disk whose inode has not
        followed yet."""
        await self.enter()
        try:
            self._names.acquire_nowait()  # to wait for a lock that is free is a turn of the loop
        except trio.WouldBlock:
            await self._names.acquire()
        try:
            yield
        finally:
            self._names.release()
        self._last_use = time.monotonic()

    @property
    def unsettled(self) -> bool:
        """True if :meth:`settled` would wait for anything."""
        return bool(self.buffers) or self._names.locked()

    async def settled(self) -> None:
        """Wait until no name is half changed and no written bytes wait to become voxels."""
        for handle in list(self.buffers):
            await handle.settle()
        if self._names.locked():
            async with self._names:
                pass

    def buffer(self, file: WriteBuffer) -> None:
        """Record that an open file has written bytes that are not voxels yet."""
        self.buffers.add(file)
        self.context.buffers.add(file)

    def stored(self, file: WriteBuffer) -> None:
        """Record that all bytes of an open file are stored."""
        self.buffers.discard(file)
        self.context.buffers.discard(file)

    def touch(self, directory: int) -> None:
        """Record that names in a directory changed."""
        now = self._dir_times[directory] = max(time.time_ns(), self._dir_times.pop(directory, 0) + 1)
        if self.context.lender is not None:
            self.context.lender.touch(directory, now)
        if len(self._dir_times) > _DIRECTORIES_KEPT:
            del self._dir_times[next(iter(self._dir_times))]

    def dated(self, directory: int) -> None:
        """Record that a directory's mtime was set, as archivers do when its names are complete: it counts from now
        on."""
        self._dir_times.pop(directory, None)
        if self.context.lender is not None:
            self.context.lender.touch(directory, 0)

    def touched(self, directory: int) -> int:
        """The time (ns) of the last :meth:`touch` of a directory; 0 for never."""
        return self._dir_times.get(directory, 0)

    def hide(self, place: SlicePath) -> None:
        """Hide the name of a removed slice for some seconds: its voxels stay."""
        self.hidden[place] = time.monotonic() + self.context.options.hide_seconds

    def is_hidden(self, place: SlicePath) -> bool:
        until = self.hidden.get(place)
        if until is None:
            return False
        if time.monotonic() >= until:
            self.hidden.pop(place, None)
            return False
        return True

    def watched(self, change: int) -> None:
        """So many more open files are there, or fewer, of which a change of a key may concern any."""
        if self.onlookers is not None:
            self.onlookers.add(change)

    def walk_lost(self) -> None:
        """Metadata changed, so that other levels may follow s0 now: until that is known, the front decides nothing at a
        flush, and looks up no names."""
        if self.onlookers is not None:
            self.onlookers.until(_FOREVER)
        self._walk_on()

    def _walk_on(self) -> None:
        """Have directories be lent anew before the front looks names up in them."""
        if self.onlookers is not None:
            self.onlookers.walk_on()

    def see_owner(self) -> None:
        """Have the front tell attributes only while owner and mode are those of the disk. May be called in a thread."""
        if self.onlookers is not None:
            self.onlookers.plain = self.context.access.plain(self.dataset.name)

    def walk_made(self) -> None:
        """It is known again which levels follow s0. As long as the kernel keeps sizes of their chunks, which any change
        may make wrong, it is as after :meth:`walk_lost`."""
        if self.onlookers is not None and self.images.certain:
            self.onlookers.until(time.monotonic_ns() + _SOON if self.kernel.sizes_follow() else 0)

    def size_given(self) -> None:
        """The kernel was given the size of such a chunk."""
        if self.onlookers is not None:
            self.onlookers.extend(time.monotonic_ns() + _SOON)

    # -- threads ----------------------------------------------------------------------------------------------------

    async def look(self, work: Callable[[], _T]) -> _T:
        return await self.context.look(self.dataset.name, work)

    async def asked(self, question: Callable[[], _T]) -> _T:
        """The answer to a question that the disk may have to be asked for: at once, or if it is far in a thread, within
        the request's limit."""
        return await self.context.in_time(lambda: self.look(question)) if self.far else question()

    async def fetch(self, work: Callable[[], _T]) -> _T:
        return await self.context.fetch(self.dataset.name, work)

    async def soon(
        self,
        work: Callable[[], _T],
        *,
        fetch: bool = False,
        change: bool = True,
        drop: Callable[[_T], object] | None = None,
    ) -> _T:
        """Make a change, or open a file for reading if not ``change``, that takes microseconds while the disk is idle.

        It is made at once, since a thread costs several times that; in a thread if another thread is changing
        something, if the disk has lately made one wait, or if it is far. ``drop`` is given a file that was opened after
        nobody waited for it any more.
        """
        began, waits = time.monotonic(), getrusage(RUSAGE_THREAD).ru_nvcsw
        if began >= self._slow_until and not self.far:
            with self.branch.working.at_once(change=change) as free:
                if free:
                    try:
                        return work()
                    finally:
                        now = time.monotonic()
                        if now - began > _SLOW_SECONDS and getrusage(RUSAGE_THREAD).ru_nvcsw > waits:
                            self._slow_until = now + _SLOW_SPELL
        if not change:
            # However many wait for a long change to end, they leave the dataset its other threads for looking around.
            async def look() -> _T:
                async with self._opening:
                    return await self.look(work)

            return await self.context.in_time(look, drop)
        return await (self.fetch(work) if fetch else self.look(work))

    # -- once in a while --------------------------------------------------------------------------------------------

    def tidy(self) -> None:
        """Drop hidden names and cached sizes whose time is over."""
        now = time.monotonic()
        self.hidden = {place: until for place, until in list(self.hidden.items()) if until > now}
        self.kernel.tidy()

    async def watch(self) -> None:
        """See what other processes did to the branch, and have the kernel forget what they changed."""
        try:
            catches_up = self.context.writable and self.order is None
            now = await self.look(lambda: self._see(catches_up=catches_up))
        except NotFound:
            return
        if now != self._seen:
            self._seen = now
            await self.kernel.invalidate_soon(VoxelChange())

    def _see(self, *, catches_up: bool) -> Hashable:
        if catches_up:
            self.branch.catch_up()
        return self.branch.generation()

    def names_of(self, ino: int) -> set[int]:
        """An inode and all that have become aliases of it."""
        return {ino, *(alias for alias, actual in self.context.inodes.aliases.items() if actual == ino)}

    # -- slices that are written ----------------------------------------------------------------------------------

    def tick(self) -> int:
        """A time (ns) on the branch's clock, later than any change before. Blocks as :meth:`Stage.note` does."""
        return self.branch.working.pulse.tick()

    def record(self, target: StageTarget | None) -> StageRecord:
        """The record of a stage that begins now; ``target`` is None for a temporary name. Blocks likewise."""
        base = self.branch.base
        over = base.number if base is not None else 0
        return StageRecord(self.tick(), over, target.digest() if target is not None else "")

    def reject(self, place: SlicePath, reason: str) -> None:
        """Record, for ``status.json``, that a staged file was dropped. Blocks."""
        path = self.branch.working.layout.rejected
        try:
            listed = read_json(path).get("rejected", [])
        except VolfsError:
            listed = []
        name = "/".join(place)
        entry = {"path": name, "reason": reason, "time_ns": time.time_ns()}
        os.makedirs(path.parent, exist_ok=True)
        write_json(path, {"rejected": [*(listed if isinstance(listed, list) else []), entry][-_REJECTED_KEPT:]})
        refusals.note(self.branch.working.layout, name, f"dropped: {reason}")
        self.branch.working.pulse.beat("files")

    @asynccontextmanager
    async def noting_refusals(self, directory: str, name: str) -> AsyncIterator[None]:
        """Note for ``errors.txt`` an error in the block, of a name in a directory of this branch."""
        try:
            yield
        except (VolfsError, OSError) as error:
            if error.errno not in _PLAIN:
                await self.note_refusal(f"{directory}/{name}".removeprefix(f"{self.path}/"), error)
            raise

    async def note_refusal(self, path: str, error: Exception) -> None:
        """Note an error for ``errors.txt``: many programs show no more than its errno."""
        reason = str(error) if isinstance(error, VolfsError) else (getattr(error, "strerror", None) or str(error))
        last, self._refused = self._refused, (path, reason, time.monotonic())
        if last is not None and last[:2] == (path, reason) and time.monotonic() - last[2] < _SAID_AGAIN:
            return  # shells go on after an error, and close tells it once more
        with suppress(VolfsError, OSError):
            await self.look(lambda: refusals.note(self.branch.working.layout, path, reason))


def branch_of(images: ImageIndex) -> MountedBranch | None:
    """The mounted branch whose images these are; None if they are a version's."""
    return images.state if isinstance(images.state, MountedBranch) else None
