"""The clock of a working copy, and a counter of its changes that every process can read.

Decided here: how a reader learns, at the cost of one ``pread``, that something may have changed since it last looked;
and which time a change gets. Not here: the meaning of a changed key (:mod:`volfs.versions.working.chunk_maps` asks for
arrays).

No two changes to a branch have the same time, and each is later than its base, whose own time may lie ahead of
the clock on the wall. So the newest time among any set of chunks differs once one of them has changed.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress

from volfs.errors import NotFound
from volfs.storage.files import open_regular
from volfs.storage.store_layout import WorkingLayout

_LOG_KEPT = 8192
"""Changes of this process that are remembered by their keys."""


class Pulse:
    """Two numbers in the working copy's directory: the count of changes, and the latest time given. Thread-safe.

    Only a process that holds the branch's lock changes them; ``owned`` says whether this one does. Then it remembers
    both, from the time it took the lock (:meth:`reread`). ``floor`` gives the time of the base.
    """

    def __init__(self, layout: WorkingLayout, floor: Callable[[], int], owned: Callable[[], bool]) -> None:
        self._path = str(layout.pulse)
        self._floor = floor
        self._owned = owned
        self._count_kept: int | None = None
        self._time_kept: int | None = None
        self._fd: int | None = None
        self._mutex = threading.Lock()
        # _log[i] is the change from count _log_from + i to the next one.
        self._log_from = 0
        self._log: deque[tuple[str, bool]] = deque()

    def read(self) -> int:
        """The count now."""
        with self._mutex:
            return self._count()

    def tick(self, after: int = 0) -> int:
        """A time (ns) for a change: later than any before, than the base, and than ``after``."""
        floor = max(self._floor(), after)
        with self._mutex:
            now = max(time.time_ns(), self._last() + 1, floor + 1)
            self._keep(now)
            return now

    def last(self) -> int:
        """The latest time given."""
        with self._mutex:
            return self._last()

    def beat(self, key: str, *, below: bool = False) -> None:
        """Something at ``key`` (with ``below``: or under it) has changed."""
        with self._mutex:
            fd = self._writing()
            before = self._count()
            after = (before + 1) % 2**63
            if before != self._log_from + len(self._log):
                self._log.clear()
                self._log_from = before
            self._log.append((key, below or not key))
            if len(self._log) > _LOG_KEPT:
                self._log.popleft()
                self._log_from += 1
            os.pwrite(fd, after.to_bytes(8, "little"), 0)
            self._count_kept = after

    def between(self, count: int, later: int) -> Collection[tuple[str, bool]] | None:
        """The changes from one count to a later one: keys, and whether everything below counts too ("" is everything).

        None if not all of them are known: other processes made some, or they were too many.
        """
        with self._mutex:
            first, last = count - self._log_from, later - self._log_from
            if not 0 <= first <= last <= len(self._log):
                return None
            return {self._log[i] for i in range(first, last)}

    def reread(self) -> None:
        """Read the file again: others may have written until now."""
        with self._mutex:
            self._drop()

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        with self._mutex:
            self._drop()

    def _count(self) -> int:
        if self._count_kept is None or not self._owned():
            self._count_kept = self._number(0)
        return self._count_kept

    def _last(self) -> int:
        if self._time_kept is None or not self._owned():
            self._time_kept = self._number(8)
        return self._time_kept

    def _number(self, at: int) -> int:
        fd = self._current(0)
        return 0 if fd is None else int.from_bytes(os.pread(fd, 8, at), "little")

    def _keep(self, now: int) -> None:
        kept = min(now, 2**63 - 1)
        os.pwrite(self._writing(), kept.to_bytes(8, "little"), 8)
        self._time_kept = kept

    def _writing(self) -> int:
        fd = self._current(os.O_CREAT)
        if fd is None:
            raise NotFound(f"{os.path.dirname(self._path)} is gone: the branch was removed")
        return fd

    def _current(self, flags: int) -> int | None:
        if self._fd is not None and not self._owned() and os.fstat(self._fd).st_nlink == 0:
            self._drop()  # the branch was removed, and perhaps made anew
        if self._fd is None:
            with suppress(FileNotFoundError):
                try:
                    self._fd = open_regular(self._path, os.O_RDWR | flags, 0o644)
                except OSError as error:
                    if flags or error.errno not in (errno.EROFS, errno.EACCES):
                        raise
                    self._fd = open_regular(self._path)
        return self._fd

    def _drop(self) -> None:
        fd, self._fd = self._fd, None
        self._count_kept = self._time_kept = None
        if fd is not None:
            os.close(fd)
