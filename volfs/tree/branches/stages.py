"""Files that are being written over slices: kept beside the working copy until they decode.

Decided here: how a stage lies on disk (``staged/s0/xy/NAME``, under the slice's own directory and name, so that it is
found again after a crash), which bytes it has, and which of them its writer put there; that the disk is asked for
nothing that is known, and names change one after the other. What it says of itself to another daemon is a
:class:`volfs.storage.stage_record.StageRecord`. Not here: when it is decoded, dropped or shown
(:mod:`volfs.tree.nodes.branch_slices`, :mod:`volfs.tree.branches.mounted_branch`), and what becomes of one that an
earlier daemon left (:mod:`volfs.tree.leftovers`)."""

from __future__ import annotations

import errno
import os
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy.typing as npt
import trio

from volfs.errors import Damaged
from volfs.model.box import Box
from volfs.storage.files import fsync_dir, no_space, open_regular, write_all
from volfs.storage.stage_record import HEADER, StageRecord, has_stages, read_record, stage_files
from volfs.tree.core.layout_handle import QuickSource
from volfs.views.layout import Layout

_T = TypeVar("_T")

Voxels = npt.NDArray[Any]

SlicePath = tuple[str, str]
"""Directory, from the snapshot on, and name: ("s0/xy", "z00012.png")."""

#: Beyond twice the size of the slice, what a file may hold: metadata that other programs write into it.
_SLACK = 64 << 20
_PIECE = 8 << 20
_SPANS = 1 << 16


class Spans:
    """Which bytes of a file its writer has put there: disjoint, sorted."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self._stops: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts, self._stops, strict=True)

    def __len__(self) -> int:
        return len(self.starts)

    def add(self, start: int, stop: int) -> None:
        """Join ``start`` to ``stop`` with what it touches."""
        first = bisect_left(self._stops, start)
        last = first
        while last < len(self.starts) and self.starts[last] <= stop:
            start, stop = min(start, self.starts[last]), max(stop, self._stops[last])
            last += 1
        self.starts[first:last] = [start]
        self._stops[first:last] = [stop]


class StageTarget(Protocol):
    """The file that a stage is written over: what makes voxels of its bytes. The methods block."""

    @property
    def ino(self) -> int: ...

    @property
    def place(self) -> SlicePath: ...

    @property
    def keeps_refused(self) -> bool:
        """True if a refused file stays visible under its name so that its writer can repair it."""

    def digest(self) -> str:
        """A digest of the array and the box that are written: it differs if either has become another."""

    def parse(self, data: bytearray) -> Voxels | None:
        """The voxels of a whole file; None for a valid file of a kind that has none.

        Raises Incomplete, or BadInput for what this file can never be.
        """

    def store(self, voxels: Voxels | None, parts: Sequence[Box] | None = None) -> Hashable:
        """Make the voxels of a file its own, or of some parts of its box; returns its stamp then.

        Raises the error that keeps them from being stored.
        """

    def unchanged(self, since_ns: int) -> list[Box]:
        """The parts of its box in those chunks that have not changed since a time (ns, of the branch's clock)."""

    def newest(self) -> int:
        """The time (ns, of that clock) of the last change of any chunk that the file crosses."""

    def stamp(self) -> Hashable:
        """A value that stands for the voxels of the file: equal stamps, equal voxels."""

    def rendered(self) -> tuple[QuickSource, Layout]:
        """Source and layout of the file as it is when nobody writes it."""

    def pieces(self) -> Iterator[bytes]:
        """The bytes of that file."""

    def sync(self) -> None:
        """Make the voxels of the file durable."""


class Stage:
    """One such file. Its bytes are changed with ``lock`` held by the task that asks for it, and by nobody else, so that
    its size is known without the disk. Making one blocks.

    ``record``: None for one that a volfs left that wrote none; it has none until it is begun again.
    ``target``: the slice it is going to be; None for a temporary name.
    """

    def __init__(
        self,
        place: SlicePath,
        path: str,
        fd: int,
        limit: int,
        record: StageRecord | None,
        target: StageTarget | None = None,
    ) -> None:
        found = os.fstat(fd)
        self.place = place
        self.path = path
        #: Where in the file its bytes begin.
        self.start = 0 if record is None else HEADER
        self.record = record or StageRecord(found.st_mtime_ns, 0, "", reason="an earlier mount left it")
        self.lock = trio.Lock()
        self.target = target
        #: Open files that may still write to it.
        self.handles = 0
        #: Bytes changed since it was last tried.
        self.dirty = False
        #: It has become the slice, which is visible instead of it; it is kept in case its writer goes on. Or it has
        #: nothing of the slice yet.
        self.decoded = target is not None
        #: The name is gone: nobody finds it any more.
        self.removed = False
        #: The disk failed when its voxels were stored, which the writer has learned: later attempts are late.
        self.failed = False
        #: When the last handle closed, on the monotonic clock.
        self.idle_since = time.monotonic()
        #: The slice's stamp just after this became it.
        self.stamp: Hashable = None
        #: The stamp of the slice whose bytes it began with, and the bytes that were written since. None: it began
        #: empty, so that all of it is its writer's.
        self.filled: Hashable = None
        self.spans = Spans()
        #: Largest size that makes any sense.
        self.limit = 2 * limit + _SLACK
        #: When its bytes changed last. It grows with every change, even if the clock has not ticked: the kernel sees by
        #: it that its pages are old.
        self.mtime_ns = found.st_mtime_ns
        self._length = found.st_size
        self._fd: int | None = fd

    @property
    def fd(self) -> int:
        if self._fd is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._fd

    @property
    def size(self) -> int:
        return self._length - self.start

    @property
    def name(self) -> str:
        """Its path from the snapshot on."""
        return "/".join(self.place)

    @property
    def reason(self) -> str:
        """The reason why it is no slice yet."""
        return self.record.reason

    def note(self, **changes: Any) -> None:
        """Change fields of the record. Blocks, on a disk of this machine no longer than a write of 4 KiB into the page
        cache."""
        self.record = replace(self.record, **changes)
        if self.start:
            os.pwrite(self.fd, self.record.pack(), 0)
            self._length = max(self._length, HEADER)

    def begin(self, record: StageRecord, filled: Hashable = None) -> None:
        """Begin another attempt, whose bytes are none yet, or those of the slice with the stamp ``filled``. Blocks as
        :meth:`note` does."""
        self.filled = filled
        self.spans = Spans()
        self.failed = False
        if not self.start and not self.size:
            self.start = HEADER
        self.note(**{name: getattr(record, name) for name in record.__slots__})

    def write(self, offset: int, data: bytes) -> int:
        """Write bytes at an offset. Blocks."""
        if offset + len(data) > self.limit:
            raise OSError(errno.EFBIG, f"{self.place[1]} is far larger than the slice")
        with self._changing():
            done = 0
            view = memoryview(data)
            while done < len(view):
                done += os.pwrite(self.fd, view[done:], self.start + offset + done)
        if self.filled is not None:
            self.spans.add(offset, offset + len(data))
            if len(self.spans) > _SPANS:
                self.filled = None
        return done

    def truncate(self, size: int) -> None:
        """Set the size (bytes). Blocks."""
        if size > self.limit:
            raise OSError(errno.EFBIG, f"{self.place[1]} is far larger than the slice")
        with self._changing():
            os.ftruncate(self.fd, self.start + size)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from an offset on. Blocks."""
        at = self.start + offset
        data = os.pread(self.fd, size, at)
        while 0 < len(data) < size and (more := os.pread(self.fd, size - len(data), at + len(data))):
            data += more
        return data

    def whole(self) -> bytearray:
        """All bytes. Blocks. Not mapped: a mapped file that shrinks kills its reader."""
        data = bytearray(self.size)
        view, at = memoryview(data), 0
        while at < len(data) and (count := os.preadv(self.fd, [view[at : at + _PIECE]], self.start + at)):
            at += count
        del view
        del data[at:]
        return data

    def fill(self, pieces: Iterator[bytes]) -> None:
        """Replace all bytes. Blocks."""
        with self._changing():
            os.ftruncate(self.fd, self.start)
            os.lseek(self.fd, self.start, os.SEEK_SET)
            for piece in pieces:
                write_all(self.fd, piece)

    def overlay(self, pieces: Iterator[bytes]) -> None:
        """Replace all bytes, by as many, but those that its writer wrote. Blocks."""
        own = [(start, self.read(start, stop - start)) for start, stop in self.spans]
        self.fill(pieces)
        for start, data in own:
            os.pwrite(self.fd, data, self.start + start)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change bytes in the block; what a full disk has cut short counts too."""
        try:
            with no_space("staging a slice"):
                yield
        finally:
            self._length = os.fstat(self.fd).st_size
            self.mtime_ns = max(time.time_ns(), self.mtime_ns + 1)

    def sync(self) -> None:
        """Make bytes and name durable. Blocks."""
        os.fsync(self.fd)
        if not self.removed:
            folder = Path(self.path).parent
            for _ in range(self.place[0].count("/") + 3):
                with suppress(FileNotFoundError):
                    fsync_dir(folder)
                folder = folder.parent

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


class Asked(Protocol):
    """The way to a branch's disk: :meth:`volfs.tree.branches.mounted_branch.MountedBranch.asked`."""

    async def __call__(self, question: Callable[[], _T]) -> _T: ...


class Stages:
    """The stages of one branch. Used on the tree's thread; looking one up, and :meth:`names`, are safe in others.

    Which stages there are is known at once; what follows from it on the disk takes turns, in the same order.
    """

    def __init__(self, root: Path, asked: Asked) -> None:
        self.root = root
        #: Counts up whenever a stage comes, goes, or changes its visibility.
        self.changes = 0
        self._asked = asked
        self._turns = trio.Lock()
        self._by_folder: defaultdict[str, dict[str, Stage]] = defaultdict(dict)

    def __iter__(self) -> Iterator[Stage]:
        return iter([stage for folder in self._by_folder.values() for stage in folder.values()])

    def get(self, place: SlicePath) -> Stage | None:
        folder = self._by_folder.get(place[0])
        return None if folder is None else folder.get(place[1])

    def visible(self, place: SlicePath) -> Stage | None:
        """The stage that is visible under a name, instead of a slice or of nothing."""
        stage = self.get(place)
        return None if stage is None or stage.decoded else stage

    def names(self, folder: str) -> list[str]:
        """Names of the visible stages in a directory."""
        stages = self._by_folder.get(folder)
        return [] if stages is None else [name for name, stage in list(stages.items()) if not stage.decoded]

    async def open(self, place: SlicePath, limit: int, record: StageRecord, target: StageTarget | None = None) -> Stage:
        """Make an empty stage, unless the name has one by now. One with a ``target`` does not show until it has bytes.

        Raises the errors of the disk.
        """
        path = self._path(place)

        def make() -> Stage:
            return Stage(place, path, _make(path, record), limit, record, target)

        async with self._turn():
            return self.get(place) or self._add(await self._asked(make))

    def left(self, limit: Callable[[str], int]) -> list[tuple[Stage, str | None]]:
        """The stages that an earlier mount left, each with the damage of its record, if any; :meth:`take_over` makes
        them this mount's. ``limit`` gives the size of a slice in a directory. Blocks."""
        found: list[tuple[Stage, str | None]] = []
        for folder, name, path in stage_files(self.root):
            if self.get((folder, name)) is not None:
                continue
            fd = open_regular(path, os.O_RDWR)
            record, damage = None, None
            try:
                record = read_record(fd)
            except Damaged as error:
                damage = str(error)
            stage = Stage((folder, name), str(path), fd, limit(folder), record)
            stage.dirty = True
            found.append((stage, damage))
        return found

    def take_over(self, stage: Stage) -> None:
        """Let a stage that an earlier mount left be one of this mount's."""
        self._add(stage)

    def left_behind(self) -> bool:
        """True if an earlier mount left stages. Blocks."""
        return has_stages(self.root)

    async def move(self, stage: Stage, place: SlicePath) -> None:
        """Give a stage another name; a stage that has it is dropped."""
        async with self._turn():
            there = self.get(place)
            if there is not None and there is not stage:
                self._forget(there)
            before, path = stage.path, self._path(place)

            def rename() -> None:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.rename(before, path)
                if there is not None and there is not stage and not there.handles:
                    there.close()

            await self._asked(rename)
            self._take_out(stage)
            stage.place, stage.path = place, path
            if not stage.removed:
                self._add(stage)

    async def drop(self, stage: Stage, *, keep: bool = False) -> None:
        """Forget a stage. Programs that have it open go on with it; no one else sees it. ``keep`` leaves its file."""
        there = not stage.removed
        self._forget(stage)
        if not there and stage.handles:
            return

        def remove() -> None:
            if there and not keep:
                with suppress(FileNotFoundError):
                    os.unlink(stage.path)
            if there:
                with suppress(OSError):
                    os.rmdir(os.path.dirname(stage.path))
            if not stage.handles:
                stage.close()

        # In turn: a stage that is made of the same name from now on is made after this file is gone.
        async with self._turn():
            await self._asked(remove)

    async def close(self) -> None:
        """Close all files; they stay on the disk."""
        stages = list(self)
        self._by_folder.clear()

        def close() -> None:
            for stage in stages:
                stage.close()

        async with self._turn():
            await self._asked(close)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Change names on the disk in the block. In the order of the calls, and at once if nobody else does."""
        try:
            self._turns.acquire_nowait()
        except trio.WouldBlock:
            await self._turns.acquire()
        try:
            yield
        finally:
            self._turns.release()

    def _path(self, place: SlicePath) -> str:
        return os.path.join(self.root, *place)

    def _add(self, stage: Stage) -> Stage:
        self._by_folder[stage.place[0]][stage.place[1]] = stage
        self.changes += 1
        return stage

    def _forget(self, stage: Stage) -> None:
        if not stage.removed:
            stage.removed = True
            self._take_out(stage)
            self.changes += 1

    def _take_out(self, stage: Stage) -> None:
        folder = self._by_folder.get(stage.place[0], {})
        if folder.get(stage.place[1]) is stage:
            del folder[stage.place[1]]
            if not folder:
                del self._by_folder[stage.place[0]]


def _make(path: str, record: StageRecord) -> int:
    """The descriptor of a new stage's file, which has its record and no bytes."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with no_space("staging a slice"):
        fd = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.pwrite(fd, record.pack(), 0)
        except BaseException:
            os.close(fd)
            os.unlink(path)
            raise
    return fd
