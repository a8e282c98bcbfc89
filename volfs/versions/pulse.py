"""A counter of the changes to a working copy that every process can read, and who listens in this one.

Decided here: how a reader learns, at the cost of one ``pread``, that something may have changed since it last looked.
Not here: what changed for whom (:mod:`volfs.versions.chunkmap` listens for arrays).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress

from volfs.errors import NotFound
from volfs.storage.layout import WorkingLayout

Listener = Callable[[str, bool, int, int], None]
"""Called with a key, whether everything below it counts too ("" is everything), and the count before and after."""

_NAME = "pulse"


class Pulse:
    """Eight bytes in the working copy's directory, counted up with every change. Thread-safe.

    Only a process that holds the branch's lock counts up. The number means nothing but "not the same as before".
    """

    def __init__(self, layout: WorkingLayout) -> None:
        self._path = str(layout.root / _NAME)
        self._fd: int | None = None
        self._mutex = threading.Lock()
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Have ``listener`` told of every change that this process makes, before anyone can read the new count."""
        self._listeners.append(listener)

    def read(self) -> int:
        """The count now."""
        with self._mutex:
            fd = self._current(0)
            return 0 if fd is None else int.from_bytes(os.pread(fd, 8, 0), "little")

    def beat(self, key: str, *, below: bool = False) -> None:
        """Something at ``key`` (with ``below``: or under it) has changed."""
        with self._mutex:
            fd = self._current(os.O_CREAT)
            if fd is None:
                raise NotFound(f"{os.path.dirname(self._path)} is gone: the branch was removed")
            before = int.from_bytes(os.pread(fd, 8, 0), "little")
            after = (before + 1) % 2**63
            for listener in self._listeners:
                listener(key, below or not key, before, after)
            os.pwrite(fd, after.to_bytes(8, "little"), 0)

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        with self._mutex:
            self._drop()

    def _current(self, flags: int) -> int | None:
        if self._fd is not None and os.fstat(self._fd).st_nlink == 0:  # the branch was removed, and perhaps made anew
            self._drop()
        if self._fd is None:
            with suppress(FileNotFoundError):
                self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | flags, 0o644)
        return self._fd

    def _drop(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
