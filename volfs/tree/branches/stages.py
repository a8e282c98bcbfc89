"""Files that are being written over slices: kept beside the working copy until they decode.

Decided here: how a stage lies on disk (``staged/s0/xy/NAME``, under the slice's own directory and name, so that it is
found again after a crash), which bytes it has, and which of them its writer put there. What it says of itself to
another daemon is a :class:`volfs.storage.stage_record.StageRecord`. Not here: when it is decoded, dropped or shown
(:mod:`volfs.tree.nodes.branch_slices`, :mod:`volfs.tree.branches.mounted_branch`), and what becomes of one that an
earlier daemon left (:mod:`volfs.tree.leftovers`)."""

from __future__ import annotations

import errno
import os
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
import trio

from volfs.errors import Damaged
from volfs.model.box import Box
from volfs.storage.files import fsync_dir, no_space, open_regular, write_all
from volfs.storage.stage_record import HEADER, StageRecord, has_stages, read_record, stage_files
from volfs.tree.core.layout_handle import QuickSource
from volfs.views.layout import Layout

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
    """One such file. Its bytes are changed in threads, with ``lock`` held by the task that asks for it.

    ``record``: None for one that a volfs left that wrote none; it has none until it is begun again.
    """

    def __init__(self, place: SlicePath, path: str, fd: int, limit: int, record: StageRecord | None) -> None:
        self.place = place
        self.path = path
        #: Where in the file its bytes begin.
        self.start = 0 if record is None else HEADER
        self.record = record or StageRecord(os.fstat(fd).st_mtime_ns, 0, "", reason="an earlier mount left it")
        self.lock = trio.Lock()
        #: The slice it is going to be; None for a temporary name.
        self.target: StageTarget | None = None
        #: Open files that may still write to it.
        self.handles = 0
        #: Bytes changed since it was last tried.
        self.dirty = False
        #: It has become the slice, which is visible instead of it; it is kept in case its writer goes on.
        self.decoded = False
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
        self._fd: int | None = fd

    @property
    def fd(self) -> int:
        if self._fd is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._fd

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size - self.start

    @property
    def mtime_ns(self) -> int:
        return os.fstat(self.fd).st_mtime_ns

    @property
    def name(self) -> str:
        """Its path from the snapshot on."""
        return "/".join(self.place)

    @property
    def reason(self) -> str:
        """The reason why it is no slice yet."""
        return self.record.reason

    def note(self, **changes: Any) -> None:
        """Change fields of the record. Blocks no longer than a write of 4 KiB into the page cache."""
        self.record = replace(self.record, **changes)
        if self.start:
            os.pwrite(self.fd, self.record.pack(), 0)

    def begin(self, record: StageRecord, filled: Hashable = None) -> None:
        """Begin another attempt, whose bytes are none yet, or those of the slice with the stamp ``filled``."""
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
        before = os.fstat(self.fd)
        with no_space("staging a slice"):
            done = 0
            view = memoryview(data)
            while done < len(view):
                done += os.pwrite(self.fd, view[done:], self.start + offset + done)
        if self.filled is not None:
            self.spans.add(offset, offset + len(data))
            if len(self.spans) > _SPANS:
                self.filled = None
        _raise_mtime(self.fd, before)
        return done

    def truncate(self, size: int) -> None:
        """Set the size (bytes). Blocks."""
        if size > self.limit:
            raise OSError(errno.EFBIG, f"{self.place[1]} is far larger than the slice")
        before = os.fstat(self.fd)
        with no_space("staging a slice"):
            os.ftruncate(self.fd, self.start + size)
        _raise_mtime(self.fd, before)

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
        with no_space("staging a slice"):
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


def _raise_mtime(fd: int, before: os.stat_result) -> None:
    """Set an mtime later than before, even if the clock has not ticked: the kernel sees by it that its pages are
    old."""
    os.utime(fd, ns=(before.st_atime_ns, max(time.time_ns(), before.st_mtime_ns + 1)))


class Stages:
    """The stages of one branch. Used on the tree's thread; looking one up, and :meth:`names`, are safe in others."""

    def __init__(self, root: Path) -> None:
        self.root = root
        #: Counts up whenever a stage comes, goes, or changes its visibility.
        self.changes = 0
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

    def open(self, place: SlicePath, limit: int, record: StageRecord) -> Stage:
        """Make an empty stage. Raises the errors of the disk."""
        folder = os.path.join(self.root, place[0])
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, place[1])
        with no_space("staging a slice"):
            fd = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.pwrite(fd, record.pack(), 0)
            except BaseException:
                os.close(fd)
                os.unlink(path)
                raise
        return self._add(Stage(place, path, fd, limit, record))

    def load(self, limit: Callable[[str], int]) -> list[tuple[Stage, str | None]]:
        """Take over the stages of an earlier mount, each with the damage of its record, if any.

        ``limit`` gives the size of a slice in a directory. Blocks.
        """
        loaded: list[tuple[Stage, str | None]] = []
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
            loaded.append((self._add(stage), damage))
        return loaded

    def left_behind(self) -> bool:
        """True if an earlier mount left stages. Blocks."""
        return has_stages(self.root)

    def move(self, stage: Stage, place: SlicePath) -> None:
        """Give a stage another name; a stage that has it is dropped."""
        there = self.get(place)
        if there is not None and there is not stage:
            self.drop(there)
        folder = os.path.join(self.root, place[0])
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, place[1])
        os.rename(stage.path, path)
        del self._by_folder[stage.place[0]][stage.place[1]]
        stage.place, stage.path = place, path
        self._add(stage)

    def drop(self, stage: Stage, *, keep: bool = False) -> None:
        """Forget a stage. Programs that have it open go on with it; no one else sees it. ``keep`` leaves its file."""
        if not stage.removed:
            stage.removed = True
            self._by_folder[stage.place[0]].pop(stage.place[1], None)
            if not self._by_folder[stage.place[0]]:
                del self._by_folder[stage.place[0]]
            if not keep:
                with suppress(FileNotFoundError):
                    os.unlink(stage.path)
            with suppress(OSError):
                os.rmdir(os.path.dirname(stage.path))
            self.changes += 1
        if stage.handles == 0:
            stage.close()

    def close(self) -> None:
        """Close all files; they stay on the disk."""
        for stage in self:
            stage.close()
        self._by_folder.clear()

    def _add(self, stage: Stage) -> Stage:
        self._by_folder[stage.place[0]][stage.place[1]] = stage
        self.changes += 1
        return stage
