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
from typing import Any

from volfs.errors import NotFound
from volfs.native import core
from volfs.storage.files import open_regular
from volfs.storage.store_layout import WorkingLayout

_LOG_KEPT = 8192
"""Changes of this process that are remembered by their keys."""
_GATHERED = 1024
"""Keys of changes that wait for their place in the log."""
_NOTHING = ("files", False)
"""In the log: a change of a file that has no name any more, so that no key reads differently."""


class Numbers:
    """The two numbers of a pulse, as ``volfs/native/pulse.h`` has them. Thread-safe."""

    def __init__(self) -> None:
        self.count = 0
        self.last = 0
        self._fd = -1
        self._floor = 0
        self._noted: int | None = 0
        self._mutex = threading.Lock()

    def load(self, fd: int) -> None:
        """Have the numbers be those of a file, which stays open until :meth:`unload`; both are 0 if there is none
        (-1)."""
        with self._mutex:
            self._fd = fd
            data = os.pread(fd, 16, 0) if fd >= 0 else b""
            count = int.from_bytes(data[:8], "little")
            if count != self.count:
                self._noted = None
            self.count, self.last = count, int.from_bytes(data[8:], "little")

    def unload(self) -> None:
        """Use its file no more: until another is loaded the numbers stay as they are."""
        with self._mutex:
            self._fd = -1

    def floor(self, floor: int) -> None:
        """Have no time from now on be up to ``floor`` (ns)."""
        self._floor = floor

    def tick(self, after: int) -> int:
        """A time (ns) later than all before, and than ``after``."""
        with self._mutex:
            return self._next(after)

    def stamp(self, file: int, after: int) -> None:
        """Give an open file such a time."""
        with self._mutex:
            now = self._next(after)
            os.utime(file, ns=(now, now))

    def beat(self) -> None:
        """Count a change whose key Python notes."""
        with self._mutex:
            after = (self.count + 1) % 2**63
            os.pwrite(self._fd, after.to_bytes(8, "little"), 0)
            self.count = after
            if self._noted is not None:
                self._noted += 1

    def changes(self) -> tuple[list[int] | None, int]:
        """By whom the changes since the last time are, None if they were too many, and the count after them."""
        with self._mutex:
            noted, self._noted = self._noted, 0
            return (None if noted is None else [0] * noted), self.count

    def _next(self, after: int) -> int:
        now = min(max(time.time_ns(), self.last + 1, self._floor + 1, after + 1), 2**63 - 1)
        os.pwrite(self._fd, now.to_bytes(8, "little"), 8)
        self.last = now
        return now


class Pulse:
    """Two numbers in the working copy's directory: the count of changes, and the latest time given. Thread-safe.

    Only a process that holds the branch's lock changes them; ``owned`` says whether this one does. Then it remembers
    both, from the time it took the lock (:meth:`reread`). ``floor`` gives the time of the base.
    """

    def __init__(self, layout: WorkingLayout, floor: Callable[[], int], owned: Callable[[], bool]) -> None:
        self._path = str(layout.pulse)
        self._floor = floor
        self._owned = owned
        #: In C where that is at hand: what writes without Python counts there as well.
        self.numbers: Any = Numbers() if core is None else core.Pulse()
        self._loaded = False
        self._fd: int | None = None
        self._mutex = threading.Lock()
        # _log[i] is the change from count _log_from + i to the next one. _keys are those of the last changes, in order,
        # for which the numbers have not been asked yet.
        self._log_from = 0
        self._log: deque[tuple[str, bool]] = deque()
        self._keys: deque[tuple[str, bool]] = deque()
        # Files that are written without Python, by the number under which their changes are noted.
        self._lent: dict[int, Callable[[], str | None]] = {}
        self._last_lent = 0

    def read(self) -> int:
        """The count now."""
        with self._mutex:
            self._load()
            return int(self.numbers.count)

    def tick(self, after: int = 0) -> int:
        """A time (ns) for a change: later than any before, than the base, and than ``after``."""
        after = max(self._floor(), after)
        with self._mutex:
            self._load(os.O_CREAT)
            return int(self.numbers.tick(after))

    def stamp(self, fd: int, after: int) -> None:
        """Give an open file that was just changed such a time, before any other is given."""
        after = max(self._floor(), after)
        with self._mutex:
            self._load(os.O_CREAT)
            self.numbers.stamp(fd, after)

    def last(self) -> int:
        """The latest time given."""
        with self._mutex:
            self._load()
            return int(self.numbers.last)

    def beat(self, key: str, *, below: bool = False) -> None:
        """Something at ``key`` (with ``below``: or under it) has changed."""
        with self._mutex:
            self._load(os.O_CREAT)
            self._keys.append((key, below or not key))
            try:
                self.numbers.beat()
            except BaseException:
                self._keys.pop()
                raise
            if len(self._keys) > _GATHERED:
                self._gather()

    def between(self, count: int, later: int) -> Collection[tuple[str, bool]] | None:
        """The changes from one count to a later one: keys, and whether everything below counts too ("" is everything).

        None if not all of them are known: other processes made some, or they were too many.
        """
        with self._mutex:
            self._gather()
            first, last = count - self._log_from, later - self._log_from
            if not 0 <= first <= last <= len(self._log):
                return None
            return {self._log[i] for i in range(first, last)}

    def lend(self, key: Callable[[], str | None]) -> int:
        """Have changes of an open file be noted without Python, under the number returned. ``key``: its key when asked;
        None once it has none. Only while the lock is held."""
        floor = self._floor()
        with self._mutex:
            self._load(os.O_CREAT)
            self.numbers.floor(floor)
            self._last_lent += 2
            self._lent[self._last_lent] = key
            return self._last_lent

    def recall(self, number: int) -> None:
        """End what :meth:`lend` began: no more changes come under this number."""
        with self._mutex:
            self._gather()
            self._lent.pop(number, None)

    def base_moves(self, time_ns: int) -> None:
        """The working copy is about to lie over a version of this time."""
        self.numbers.floor(time_ns)

    def reread(self) -> None:
        """Read the file again: others may have written until now."""
        with self._mutex:
            self._drop()

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        with self._mutex:
            self._drop()

    def _gather(self) -> None:
        """Take the changes noted into the log."""
        whom, count = self.numbers.changes()
        if whom is None:
            self._log.clear()
            self._keys.clear()
            self._log_from = count
            return
        for number in whom:
            self._log.append(self._written(number) if number else self._keys.popleft())
        while len(self._log) > _LOG_KEPT:
            self._log.popleft()
            self._log_from += 1

    def _written(self, number: int) -> tuple[str, bool]:
        """The change that an open file made."""
        if number & 1:
            return "", True  # it has several names
        key = self._lent[number]()
        return _NOTHING if key is None else (key, False)

    def _load(self, flags: int = 0) -> None:
        """Have the numbers be right; with O_CREAT they have a file to be changed in."""
        if self._loaded and self._owned() and (self._fd is not None or not flags):
            return
        fd = self._current(flags)
        if fd is None and flags:
            raise NotFound(f"{os.path.dirname(self._path)} is gone: the branch was removed")
        self.numbers.load(-1 if fd is None else fd)
        self._loaded = True

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
        self._loaded = False
        if fd is not None:
            self.numbers.unload()
            os.close(fd)
