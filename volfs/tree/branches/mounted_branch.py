"""A branch while it is mounted: its writer's lock, its staged files, its removed slices.

Decided here: when this process becomes the branch's writer and when it lets go; that changes of names take turns; how
long a removed slice stays hidden. Not here: what a change is (:mod:`volfs.tree.nodes.branch_slices`,
:mod:`volfs.tree.nodes.branch_keys`), and what the kernel must forget after one
(:mod:`volfs.tree.branches.invalidation`)."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import trio

from volfs.errors import Busy, NotAllowed, NotFound, ReadOnly, VolfsError
from volfs.storage.files import read_json, write_json
from volfs.storage.stage_record import StageRecord
from volfs.tree.branches.invalidation import Invalidation, VoxelChange
from volfs.tree.branches.order import Order
from volfs.tree.branches.stages import SlicePath, Stages, StageTarget
from volfs.tree.core.context import Shared
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
#: What these say, names and all, everybody knows: they answer what was asked, and are no refusals.
_PLAIN = frozenset(
    {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EXDEV, errno.EROFS, errno.ELOOP}
    | {errno.ENAMETOOLONG, errno.ESTALE, errno.ETIMEDOUT}
)
#: Directories whose last change of names is remembered, beside what the disk says.
_DIRECTORIES_KEPT = 50_000
#: A change made on the tree's own thread that took longer than this (s) was held up by the disk: for a while, the next
#: ones are made in threads.
_SLOW_SECONDS = 0.02
_SLOW_SPELL = 1.0


class MountedBranch:
    """One branch of one dataset. Used on the tree's thread, but for what says that it blocks."""

    def __init__(
        self,
        shared: Shared,
        dataset: Dataset,
        name: str,
        path: str,
        settle_leftovers: Callable[[MountedBranch], Awaitable[None]],
    ) -> None:
        self.shared = shared
        self.dataset = dataset
        self.name = name
        #: As inodes are derived from it.
        self.path = path
        self.branch: Branch = dataset.branch(name)
        self.places = ImageIndex(self.branch, path, self)
        self.kernel = Invalidation(shared, self, self.branch, self.places)
        self.stages = Stages(self.branch.working.layout.staged)
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
        self.gathering: set[WriteBuffer] = set()
        #: Files that are being closed.
        self.closing = 0
        #: The commit or discard that is going on.
        self.order: Order | None = None
        #: What the branch was just after a commit took the message from ``.volfs/message``.
        self.message_taken: Hashable = None
        # The last refusal that was noted, and when (monotonic).
        self._refused: tuple[str, str, float] | None = None

    def generation(self) -> Hashable:
        """The branch's, which no other branch of this name has, before or after."""
        return self._itself, self.branch.generation()

    # -- who may write ----------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether changes through this mount are possible now."""
        if not self.shared.writable:
            return False
        try:
            return self._held or self.branch.writable
        except VolfsError:
            return False

    @property
    def held(self) -> bool:
        """Whether this mount is the branch's writer now."""
        return self._held

    def refusal(self) -> VolfsError:
        """Why something of this branch that is generated, or not to be changed now, cannot be changed."""
        if not self.shared.writable:
            return ReadOnly("this mount is read-only")
        holder = None if self._held else self.branch.holder()
        if holder is not None:
            return ReadOnly(f"branch {self.name!r} is being written by {holder}")
        return NotAllowed("this is generated: it cannot be changed")

    async def enter(self) -> None:
        """Become the branch's writer, before anything is changed. ReadOnly, naming the holder, if another is."""
        self._last_use = time.monotonic()
        if self._held:
            return
        if not self.shared.writable:
            raise ReadOnly("this mount is read-only")
        async with self._entering:
            if self._held:
                return
            mountpoint = self.shared.options.mountpoint
            await self.look(lambda: self.branch.acquire(mountpoint))
            try:
                # Before anybody changes anything: what is written from now on meets no stage of another daemon.
                await self._settle_leftovers(self)
            except BaseException:
                self.branch.release()
                raise
            self._held = True

    def leave(self) -> None:
        """Let others write. What is staged must be settled before."""
        if self._held:
            self._held = False
            self.branch.release()

    @property
    def idle(self) -> bool:
        """Whether the lock is held for nobody."""
        return (
            self._held
            and time.monotonic() - self._last_use > _HOLD_SECONDS
            and not any(True for _ in self.stages)
            and not self._entering.locked()
            and self.order is None
            and not any(handle.writable for handle in self.shared.files.of_room(self))
        )

    async def retire(self) -> None:
        """Make ready for the branch to be removed. Busy if something is staged."""
        if any(not stage.decoded and stage.size for stage in self.stages):
            raise Busy(f"branch {self.name!r} has slices that are being written")
        self.close()

    def close(self) -> None:
        """Give everything back. What is staged stays for the next mount."""
        self.stages.close()
        self.leave()

    def limit(self, folder: str) -> int:
        """The size of a slice in a directory, for stages that an earlier mount left."""
        for image in self.places.images():
            for level in image.levels:
                if f"/{folder}/".find(f"/{level.name}/") >= 0:
                    return int(level.dtype.itemsize * max(level.shape[-2:]) ** 2 * 4)
        return 1 << 30

    # -- names ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def renaming(self) -> AsyncIterator[None]:
        """Change names: one at a time, so that nobody sees a name on disk whose inode has not followed yet."""
        await self.enter()
        async with self._names:
            yield
        self._last_use = time.monotonic()

    @property
    def unsettled(self) -> bool:
        """Whether :meth:`settled` waits for anything."""
        return bool(self.gathering) or self._names.locked()

    async def settled(self) -> None:
        """Wait until no name is half changed, and nothing that was written waits to become voxels."""
        for handle in list(self.gathering):
            await handle.settle()
        if self._names.locked():
            async with self._names:
                pass

    def buffer(self, file: WriteBuffer) -> None:
        """An open file has written bytes that are not voxels yet."""
        self.gathering.add(file)
        self.shared.gathering.add(file)

    def stored(self, file: WriteBuffer) -> None:
        """An open file has none any more."""
        self.gathering.discard(file)
        self.shared.gathering.discard(file)

    def touch(self, directory: int) -> None:
        """The names in a directory changed."""
        self._dir_times[directory] = max(time.time_ns(), self._dir_times.pop(directory, 0) + 1)
        if len(self._dir_times) > _DIRECTORIES_KEPT:
            del self._dir_times[next(iter(self._dir_times))]

    def dated(self, directory: int) -> None:
        """Somebody set a directory's time, as archivers do when its names are complete: that counts from now on."""
        self._dir_times.pop(directory, None)

    def touched(self, directory: int) -> int:
        """When :meth:`touch` was last told of a directory; 0 for never."""
        return self._dir_times.get(directory, 0)

    def hide(self, place: SlicePath) -> None:
        """A slice was removed: its voxels stay, its name is gone for some seconds."""
        self.hidden[place] = time.monotonic() + self.shared.options.hide_seconds

    def is_hidden(self, place: SlicePath) -> bool:
        until = self.hidden.get(place)
        if until is None:
            return False
        if time.monotonic() >= until:
            self.hidden.pop(place, None)
            return False
        return True

    # -- threads ----------------------------------------------------------------------------------------------------

    async def look(self, work: Callable[[], _T]) -> _T:
        return await self.shared.look(self.dataset.name, work)

    async def fetch(self, work: Callable[[], _T]) -> _T:
        return await self.shared.fetch(self.dataset.name, work)

    async def soon(
        self,
        work: Callable[[], _T],
        *,
        fetch: bool = False,
        change: bool = True,
        drop: Callable[[_T], object] | None = None,
    ) -> _T:
        """Make a change (else: open a file for reading) that takes microseconds while the disk is not busy: at once,
        since a thread costs several times that. In a thread if another thread is changing something, or if the disk has
        lately made one wait. ``drop`` is given the file that was opened when nobody waited any more.
        """
        began = time.monotonic()
        if began >= self._slow_until:
            with self.branch.working.at_once(change=change) as free:
                if free:
                    try:
                        return work()
                    finally:
                        now = time.monotonic()
                        if now - began > _SLOW_SECONDS:
                            self._slow_until = now + _SLOW_SPELL
        if not change:
            # However many wait for a long change to end, they leave the dataset its other threads for looking around.
            async def look() -> _T:
                async with self._opening:
                    return await self.look(work)

            return await self.shared.in_time(look, drop)
        return await (self.fetch(work) if fetch else self.look(work))

    # -- once in a while --------------------------------------------------------------------------------------------

    def tidy(self) -> None:
        """Drop what is past."""
        now = time.monotonic()
        self.hidden = {place: until for place, until in self.hidden.items() if until > now}
        self.kernel.tidy()

    async def watch(self) -> None:
        """See what other processes did to the branch, and have the kernel forget what they changed."""
        try:
            if self.shared.writable and self.order is None:
                await self.look(self.branch.catch_up)
            now = self.branch.generation()
        except NotFound:
            return
        if now != self._seen:
            self._seen = now
            await self.kernel.invalidate_soon(VoxelChange())

    def names_of(self, ino: int) -> set[int]:
        """An inode and all that have become aliases of it."""
        return {ino, *(alias for alias, actual in self.shared.inodes.aliases.items() if actual == ino)}

    # -- slices that are written ----------------------------------------------------------------------------------

    def tick(self) -> int:
        """A time (ns) on the branch's clock, later than any change before."""
        return self.branch.working.pulse.tick()

    def record(self, target: StageTarget | None) -> StageRecord:
        """What a stage says that begins now; a target of None is that of a temporary name."""
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
    async def telling(self, directory: str, name: str) -> AsyncIterator[None]:
        """Note what is refused within the block, of a name in a directory of this branch."""
        try:
            yield
        except (VolfsError, OSError) as error:
            if error.errno not in _PLAIN:
                await self.refused(f"{directory}/{name}".removeprefix(f"{self.path}/"), error)
            raise

    async def refused(self, path: str, error: Exception) -> None:
        """Note for ``errors.txt`` what a writer was refused: many programs show no more than an errno."""
        reason = str(error) if isinstance(error, VolfsError) else (getattr(error, "strerror", None) or str(error))
        last, self._refused = self._refused, (path, reason, time.monotonic())
        if last is not None and last[:2] == (path, reason) and time.monotonic() - last[2] < _SAID_AGAIN:
            return  # shells go on after an error, and close tells it once more
        with suppress(VolfsError, OSError):
            await self.look(lambda: refusals.note(self.branch.working.layout, path, reason))
