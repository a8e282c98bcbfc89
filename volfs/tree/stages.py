"""Files that are being written over slices: kept beside the working copy until they decode.

Decided here: how a stage lies on disk (``staged/s0/xy/NAME``, under the slice's own directory and name, so that it is
found again after a crash), and which bytes it has. Not here: when it is decoded, dropped or shown
(:mod:`volfs.tree.edits`, :mod:`volfs.tree.room`).
"""

from __future__ import annotations

import errno
import os
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from volfs.storage.files import fsync_dir, no_space, open_regular, write_all

if TYPE_CHECKING:
    from volfs.tree.targets import Target

Place = tuple[str, str]
"""Directory, from the snapshot on, and name: ("s0/xy", "z00012.png")."""

#: Beyond twice the size of the slice, what a file may hold: metadata that other programs write into it.
_SLACK = 64 << 20
_PIECE = 8 << 20


class Stage:
    """One such file. Its bytes are changed in threads, with ``lock`` held by the task that asks for it."""

    def __init__(self, place: Place, path: str, fd: int, limit: int) -> None:
        self.place = place
        self.path = path
        self.lock = trio.Lock()
        #: The slice it is going to be; None for a temporary name.
        self.target: Target | None = None
        #: Open files that may still write to it.
        self.handles = 0
        #: Bytes changed since it was last tried.
        self.dirty = False
        #: It has become the slice: the slice shows, and this waits in case its writer goes on.
        self.decoded = False
        #: The name is gone: nobody finds it any more.
        self.removed = False
        #: When the last handle closed, on the monotonic clock; why it is not a slice yet.
        self.idle_since = time.monotonic()
        self.reason = "nothing was written"
        #: The slice's stamp just after this became it.
        self.stamp: Hashable = None
        #: Largest size that makes any sense.
        self.limit = 2 * limit + _SLACK
        self._fd: int | None = fd

    @property
    def fd(self) -> int:
        if self._fd is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._fd

    def stat(self) -> os.stat_result:
        return os.fstat(self.fd)

    @property
    def size(self) -> int:
        return self.stat().st_size

    def write(self, offset: int, data: bytes) -> int:
        """Blocks."""
        if offset + len(data) > self.limit:
            raise OSError(errno.EFBIG, f"{self.place[1]} is far larger than the slice")
        before = self.stat()
        with no_space("staging a slice"):
            done = 0
            view = memoryview(data)
            while done < len(view):
                done += os.pwrite(self.fd, view[done:], offset + done)
        _raise_mtime(self.fd, before)
        return done

    def truncate(self, size: int) -> None:
        """Blocks."""
        if size > self.limit:
            raise OSError(errno.EFBIG, f"{self.place[1]} is far larger than the slice")
        before = self.stat()
        with no_space("staging a slice"):
            os.ftruncate(self.fd, size)
        _raise_mtime(self.fd, before)

    def read(self, offset: int, size: int) -> bytes:
        """Blocks."""
        data = os.pread(self.fd, size, offset)
        while 0 < len(data) < size and (more := os.pread(self.fd, size - len(data), offset + len(data))):
            data += more
        return data

    def whole(self) -> bytearray:
        """All bytes. Blocks. Not mapped: a mapped file that shrinks kills its reader."""
        data = bytearray(self.size)
        view, at = memoryview(data), 0
        while at < len(data) and (count := os.preadv(self.fd, [view[at : at + _PIECE]], at)):
            at += count
        del view
        del data[at:]
        return data

    def fill(self, pieces: Iterator[bytes]) -> None:
        """Begin again with other bytes. Blocks."""
        with no_space("staging a slice"):
            os.ftruncate(self.fd, 0)
            os.lseek(self.fd, 0, os.SEEK_SET)
            for piece in pieces:
                write_all(self.fd, piece)

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
    """Later than before, even by a clock that ticks coarsely: it is how a kernel knows that its pages are old."""
    os.utime(fd, ns=(before.st_atime_ns, max(time.time_ns(), before.st_mtime_ns + 1)))


class Stages:
    """The stages of one branch. Used on the tree's thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        #: Counts up whenever a stage comes, goes, or is shown or hidden.
        self.changes = 0
        self._by_folder: defaultdict[str, dict[str, Stage]] = defaultdict(dict)

    def __iter__(self) -> Iterator[Stage]:
        return iter([stage for folder in self._by_folder.values() for stage in folder.values()])

    def get(self, place: Place) -> Stage | None:
        return self._by_folder[place[0]].get(place[1]) if place[0] in self._by_folder else None

    def visible(self, place: Place) -> Stage | None:
        """The stage that shows at a place, instead of a slice or of nothing."""
        stage = self.get(place)
        return None if stage is None or stage.decoded else stage

    def names(self, folder: str) -> list[str]:
        """Names of the stages that show in a directory."""
        if folder not in self._by_folder:
            return []
        return [name for name, stage in self._by_folder[folder].items() if not stage.decoded]

    def open(self, place: Place, limit: int) -> Stage:
        """A new, empty stage. Raises what the disk raises."""
        folder = os.path.join(self.root, place[0])
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, place[1])
        with no_space("staging a slice"):
            fd = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        return self._add(Stage(place, path, fd, limit))

    def load(self, limit: Callable[[str], int]) -> None:
        """Take over what an earlier mount left. ``limit`` gives the size of a slice in a directory."""
        for folder, _, names in os.walk(self.root):
            within = os.path.relpath(folder, self.root)
            for name in names:
                if self.get((within, name)) is None:
                    path = os.path.join(folder, name)
                    stage = self._add(Stage((within, name), path, open_regular(path, os.O_RDWR), limit(within)))
                    stage.dirty = True
                    stage.reason = "the mount ended while it was being written"

    def left_behind(self) -> bool:
        """Whether an earlier mount left any. Blocks."""
        return any(names for _, _, names in os.walk(self.root))

    def move(self, stage: Stage, place: Place) -> None:
        """Give a stage another name, in place of what has that one."""
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

    def drop(self, stage: Stage) -> None:
        """Forget a stage. Who has it open goes on with it, and nobody else sees it."""
        if not stage.removed:
            stage.removed = True
            self._by_folder[stage.place[0]].pop(stage.place[1], None)
            if not self._by_folder[stage.place[0]]:
                del self._by_folder[stage.place[0]]
            with suppress(FileNotFoundError):
                os.unlink(stage.path)
            with suppress(OSError):
                os.rmdir(os.path.dirname(stage.path))
            self.changes += 1
        if stage.handles == 0:
            stage.close()

    def close(self) -> None:
        """Close all files; what is staged stays."""
        for stage in self:
            stage.close()
        self._by_folder.clear()

    def _add(self, stage: Stage) -> Stage:
        self._by_folder[stage.place[0]][stage.place[1]] = stage
        self.changes += 1
        return stage
