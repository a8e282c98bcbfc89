"""Room that a store keeps for the day when its disk is full: a file that is given up, piece by piece, for what frees
space or only looks.

Decided here: how much room is kept, and when it is given up and taken again. Not here: which operations may use it.
They call :meth:`Reserve.freeing`: opening, mounting, removing and discarding do, and never a write of new data.

The file holds random bytes, because a filesystem that compresses, or keeps holes, would store others in no space at
all. It may be removed by hand; the next opening for writing makes it again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from volfs.errors import Damaged, NoSpace
from volfs.storage.files import is_full_disk, no_space, opened

SIZE = 1 << 20
"""Bytes of each file. A mount that opens two SQLite files needs about 150 KiB, the removal of a ref 50 KiB."""
_PIECE = SIZE // 8
"""Bytes given up at a time: what one operation needs is not there for the next writer to fill."""

_BLOCK = 4096

_T = TypeVar("_T")


class Reserve:
    """The reserve of one store: a file in its directory, and another beside a catalog that lies elsewhere. Several
    processes may use it at once. Thread-safe."""

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = tuple(places)
        self._short = False

    def freeing(self, action: Callable[[], _T]) -> _T:
        """Run an action that frees space, or that must be possible without any. When the disk is full a piece of the
        reserve is given up and the action runs again: it must be one that can be repeated. Raises NoSpace."""
        while True:
            try:
                with no_space("in the store"):
                    done = action()
                break
            except NoSpace:
                if not self._give_up():
                    raise
        if self._short:
            self.keep()
        return done

    def keep(self) -> None:
        """Take all of the reserve again, or as much of it as there is room for. Never raises for a full disk, nor
        where nothing may be written."""
        self._short = False
        for place in self.places:
            with suppress(OSError):
                if place.stat().st_size >= SIZE:
                    continue
            with suppress(OSError, Damaged):
                self._short |= not _fill(place)

    def _give_up(self) -> bool:
        """Give up a piece of each file; False if there was nothing left."""
        given = False
        for place in self.places:
            with suppress(OSError, Damaged):
                given |= _shorten(place)
        self._short |= given
        return given


def _fill(place: Path) -> bool:
    """Make the file full size; False if the disk was full before."""
    with opened(place, os.O_WRONLY | os.O_CREAT) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False  # another process is at it
        size = os.fstat(fd).st_size
        step = _PIECE
        while size < SIZE and step >= _BLOCK:
            try:
                size += os.pwrite(fd, os.urandom(min(step, SIZE - size)), size)
            except OSError as error:
                if not is_full_disk(error):
                    raise
                step //= 2  # some filesystems write all of it or nothing
        os.fsync(fd)
        return size >= SIZE


def _shorten(place: Path) -> bool:
    """Cut a piece off the end of the file; False if it is empty."""
    with opened(place, os.O_WRONLY) as fd:
        size = os.fstat(fd).st_size
        if size == 0:
            return False
        os.ftruncate(fd, max(0, size - _PIECE))
        # Some filesystems free nothing before what freed it is on disk.
        os.fsync(fd)
    return True
