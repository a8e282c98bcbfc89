"""A branch while it is mounted: who may write, what is staged, and what the kernel must forget.

Decided here: when this process becomes the branch's writer and when it lets go; that changes of names take turns; and
the rule for telling the kernel, found by deadlocking real mounts: *flush, fsync and rename await an invalidation, write
and setattr never do* (they queue it), and only inodes with open handles are told at all, for all others the stamp at
their next open decides. Not here: what a change is (:mod:`volfs.tree.edits`, :mod:`volfs.tree.branchkeys`).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from volfs.errors import Busy, NotAllowed, NotFound, ReadOnly, VolfsError
from volfs.storage.files import read_json, write_json
from volfs.storage.stage_record import StageRecord
from volfs.tree.attrs import SOON
from volfs.tree.derived import derived_key
from volfs.tree.places import Places
from volfs.tree.stages import Place, Stages
from volfs.versions import refusals
from volfs.versions.branch import Branch
from volfs.versions.dataset import Dataset
from volfs.versions.interpret import chunk_root
from volfs.versions.keys import node_key
from volfs.versions.status import Action, ActionKind

if TYPE_CHECKING:
    from volfs.tree.draft import Draft
    from volfs.tree.handles import Handle
    from volfs.tree.laidout import LaidOutHandle
    from volfs.tree.shared import Shared
    from volfs.tree.targets import Target

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
#: Attributes that were told are looked through for old ones when there are so many.
_SHOWN_SWEPT = 20_000


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the kernel was told of a key, and when (monotonic)."""

    ino: int
    when: float
    size: int
    mtime: int


class Order:
    """An action under way: whoever asks for the same joins it. ``draft``: its message is still being written."""

    def __init__(self, kind: ActionKind, text: str, draft: Draft | None = None) -> None:
        self._kind = kind
        self._text = text
        self.draft = draft
        self.done = trio.Event()
        self.error: Exception | None = None
        #: As it is described to whoever asked for it.
        self.action = Action.begin(kind, text)

    @property
    def words(self) -> tuple[str, str]:
        """What is done, and the message or path."""
        return self._kind, self._text if self.draft is None else self.draft.so_far()


class Room:
    """One branch of one dataset. Used on the tree's thread, but for what says that it blocks."""

    def __init__(self, shared: Shared, dataset: Dataset, name: str, path: str) -> None:
        self.shared = shared
        self.dataset = dataset
        self.name = name
        #: As inodes are derived from it.
        self.path = path
        self.branch: Branch = dataset.branch(name)
        self.places = Places(self.branch, path, self)
        self.stages = Stages(self.branch.working.layout.staged)
        #: Names of slices that were removed, and until when (monotonic) they stay so.
        self.hidden: dict[Place, float] = {}
        self._itself = object()
        self._names = trio.Lock()
        self._opening = trio.Lock()
        self._entering = trio.Lock()
        self._dir_times: dict[int, int] = {}
        # By array, then by key.
        self._shown: dict[str, dict[str, _Shown]] = {}
        self._held = False
        self._last_use = 0.0
        self._slow_until = 0.0
        self._seen: object = None
        #: Open files with bytes that were written and are not voxels yet.
        self.gathering: set[LaidOutHandle] = set()
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
                await self.shared.settle_leftovers(self)
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

    def hide(self, place: Place) -> None:
        """A slice was removed: its voxels stay, its name is gone for some seconds."""
        self.hidden[place] = time.monotonic() + self.shared.options.hide_seconds

    def is_hidden(self, place: Place) -> bool:
        until = self.hidden.get(place)
        if until is None:
            return False
        if time.monotonic() >= until:
            self.hidden.pop(place, None)
            return False
        return True

    # -- threads ----------------------------------------------------------------------------------------------------

    async def look(self, work: Any) -> Any:
        return await self.shared.look(self.dataset.name, work)

    async def fetch(self, work: Any) -> Any:
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
                    return await self.look(work)  # type: ignore[no-any-return]

            return await self.shared.in_time(look, drop)
        return await (self.fetch(work) if fetch else self.look(work))  # type: ignore[no-any-return]

    # -- what the kernel must forget --------------------------------------------------------------------------------

    def show(self, key: str, ino: int, size: int, mtime: int) -> None:
        """The attributes of a chunk are being told: for a second the kernel believes them without asking."""
        array = chunk_root(key)
        if array is None:
            return
        shown = self._shown.setdefault(array, {})
        now = time.monotonic()
        if len(shown) >= _SHOWN_SWEPT:
            shown = self._shown[array] = {key: one for key, one in shown.items() if one.when >= now - SOON}
        shown[key] = _Shown(ino, now, size, mtime)

    async def told(
        self,
        *,
        wait: bool,
        also: Iterable[int] = (),
        but: int | None = None,
        keys: Collection[str] | None = None,
        by_views: bool = False,
    ) -> None:
        """Have the kernel forget whatever open files no longer show, and the inodes in ``also``.

        ``but`` is an inode whose pages are right because the change came through them. ``keys``: nothing but these has
        changed, so of open keys no others need to be looked at. ``by_views``: chunks may have
        changed that nobody wrote through their own files. Call it with no lock held: while the kernel forgets, it may
        write dirty pages back, and those writes must get through.
        """
        stale = {*also, *await self._misjudged(by_views)}
        handles = [
            handle
            for handle in self.shared.files.of_room(self)
            if handle.ino != but and (keys is None or handle.concerned(keys)) and not handle.as_shown()
        ]
        if handles:
            for handle, stamp in await self.look(lambda: [(each, _stamp(each)) for each in handles]):
                if stamp != handle.shown:
                    handle.shown = stamp
                    stale.add(handle.ino)
        notifier = self.shared.notifier
        if not wait:
            for ino in stale:
                notifier.queue_inode(ino)
        elif len(stale) == 1:
            await notifier.invalidate_inode(stale.pop())
        elif stale:
            async with trio.open_nursery() as nursery:
                for ino in stale:
                    nursery.start_soon(notifier.invalidate_inode, ino)

    async def _misjudged(self, by_views: bool) -> set[int]:
        """Keys whose size the kernel was told within the last second, and is wrong about: a chunk's size changes with
        its voxels, and a reader who believes the old one gets half a chunk."""
        if not self._shown:
            return set()
        if self.places.cold:
            await self.look(self.places.load)
        # A key that was written through its own file is right; those computed from it are not.
        arrays = list(self._shown) if by_views else [node_key(path) for path in self.places.following()]
        oldest = time.monotonic() - SOON
        recent: dict[str, _Shown] = {}
        for array in arrays:
            recent.update((key, one) for key, one in self._shown.get(array, {}).items() if one.when >= oldest)
        if not recent:
            return set()

        def differ() -> set[int]:
            found = set()
            for key, one in recent.items():
                info = self.branch.stat(key)
                if info is None or (info.size, info.mtime_ns) != (one.size, one.mtime) or derived_key(self.places, key):
                    found.add(one.ino)
            return found

        changed: set[int] = await self.look(differ)
        return changed

    def names_of(self, ino: int) -> set[int]:
        """An inode and all that have become aliases of it."""
        return {ino, *(alias for alias, actual in self.shared.inodes.aliases.items() if actual == ino)}

    def tidy(self) -> None:
        """Once in a while: drop what is past."""
        now = time.monotonic()
        self.hidden = {place: until for place, until in self.hidden.items() if until > now}
        self._shown = {
            array: fresh
            for array, shown in self._shown.items()
            if (fresh := {key: one for key, one in shown.items() if one.when >= now - SOON})
        }

    async def watch(self) -> None:
        """Once in a while: see what others did to the branch, and tell the kernel."""
        try:
            if self.shared.writable and self.order is None:
                await self.look(self.branch.catch_up)
            now = self.branch.generation()
        except NotFound:
            return
        if now != self._seen:
            self._seen = now
            await self.told(wait=False, by_views=True)

    # -- slices that are written ----------------------------------------------------------------------------------

    def tick(self) -> int:
        """A time (ns) on the branch's clock, later than any change before."""
        return self.branch.working.pulse.tick()

    def record(self, target: Target | None) -> StageRecord:
        """What a stage says that begins now; a target of None is that of a temporary name."""
        base = self.branch.base
        over = base.number if base is not None else 0
        return StageRecord(self.tick(), over, target.digest() if target is not None else "")

    def reject(self, place: Place, reason: str) -> None:
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


def _stamp(handle: Handle) -> object:
    """What an open file shows. It may be closed, and its image be gone, while this looks: no reason to fail whoever
    changed something else."""
    try:
        return handle.stamp()
    except (VolfsError, OSError) as error:
        return type(error).__name__
