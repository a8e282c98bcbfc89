"""Who may write to a branch: one process at a time, for as long as it likes.

Decided here: how the lock is shared inside a process, how long another process waits for it, and what a caller is told
about who holds it. Not here: the lock itself (:class:`volfs.storage.files.FileLock`, an flock, which the kernel frees
when its holder dies).

A mount takes the lock for as long as it may write. A Python program takes it for each change, or for longer with
``with branch.writing():`` or an open file; so several of them (workers of one dask job) may write in turns, and none
waits for a mount, which would not let go.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from volfs.errors import ReadOnly
from volfs.storage.files import FileLock, make_dirs
from volfs.storage.layout import WorkingLayout

PATIENCE = 10.0
"""Seconds that a change waits for another process that is not a mount."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that may write to a branch, as it describes itself."""

    pid: int
    host: str
    mountpoint: str | None

    def __str__(self) -> str:
        where = "" if self.host == socket.gethostname() else f" on {self.host}"
        if self.mountpoint is not None:
            return f"the mount at {self.mountpoint} (pid {self.pid}{where})"
        return f"process {self.pid}{where}" if self.pid else f"another process{where}"


class BranchLock:
    """The writer's lock of one branch, counted: each :meth:`acquire` has its :meth:`release`. Thread-safe.

    ``taken`` runs whenever the lock has come from outside this object, before anyone may write under it.
    """

    def __init__(self, layout: WorkingLayout, branch: str, taken: Callable[[], None]) -> None:
        self._layout = layout
        self._branch = branch
        self._taken = taken
        self._file = FileLock(layout.lock)
        self._mutex = threading.RLock()
        self._count = 0
        self._mountpoint: str | None = None
        #: Counts how often the lock has come from outside this object.
        self.times_taken = 0

    @property
    def held(self) -> bool:
        """Whether this process may write now."""
        return self._count > 0

    def acquire(self, mountpoint: str | None = None, *, patience: float = 0.0) -> None:
        """Become the writer, or stay it once more.

        Waits up to ``patience`` seconds for a holder that is not a mount. ReadOnly, naming the holder, if it keeps it.
        """
        with self._mutex:
            if self._count == 0:
                self._take(mountpoint, patience)
            elif mountpoint is not None and mountpoint != self._mountpoint:
                self._mountpoint = mountpoint
                self._file.describe(self._description())
            self._count += 1

    def release(self) -> None:
        """Undo one :meth:`acquire`. More than that is fine."""
        with self._mutex:
            if self._count > 0:
                self._count -= 1
                if self._count == 0:
                    self._mountpoint = None
                    self._file.release()

    @contextmanager
    def hold(self, patience: float = PATIENCE) -> Iterator[None]:
        """Be the writer for the length of a block."""
        self.acquire(patience=patience)
        try:
            yield
        finally:
            self.release()

    def holder(self) -> Holder | None:
        """The other process that may write now; None if there is none, or it is this one."""
        if self.held or not self._file.locked_by_other():
            return None
        owner = self._file.owner() or {}
        pid, host, mountpoint = owner.get("pid"), owner.get("host"), owner.get("mountpoint")
        return Holder(
            pid if isinstance(pid, int) else 0,
            host if isinstance(host, str) else socket.gethostname(),
            mountpoint if isinstance(mountpoint, str) else None,
        )

    def _take(self, mountpoint: str | None, patience: float) -> None:
        make_dirs(self._layout.root)
        self._mountpoint = mountpoint
        deadline = time.monotonic() + patience
        pause = 0.001
        while not self._file.try_lock(self._description()):
            holder = self.holder()
            if holder is not None and (holder.mountpoint is not None or time.monotonic() >= deadline):
                raise ReadOnly(f"{self._branch} is being written by {holder}: write through it, or stop it first")
            if holder is None and time.monotonic() >= deadline + PATIENCE:
                raise ReadOnly(f"{self._branch} is being written by other processes in turns: try again")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        self.times_taken += 1
        try:
            self._taken()
        except BaseException:
            self._file.release()
            raise

    def _description(self) -> dict[str, object]:
        return {"pid": os.getpid(), "host": socket.gethostname(), "mountpoint": self._mountpoint}
