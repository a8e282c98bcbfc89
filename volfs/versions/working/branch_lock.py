"""The writer's lock of a branch: one process at a time has it, for as long as it likes.

Decided here: how the lock is shared inside a process, how long another process waits for it, and how a holder is
described to others. Not here: the lock itself (:class:`volfs.storage.files.FileLock`, an flock, which the kernel frees
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from volfs.errors import NotFound, ReadOnly
from volfs.storage.claim import Claim, Fate, changed_since
from volfs.storage.files import FileLock, fsync_dir
from volfs.storage.mount_table import locks_on, mount_holding
from volfs.storage.store_layout import WorkingLayout

PATIENCE = 10.0
"""Seconds that a change waits for another process that is not a mount."""

_FRESH_SECONDS = 600.0
"""Seconds between two signs of life of a holder, for machines that may not see its lock."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that may write to a branch, as it describes itself. ``mountpoint``: where its tree is; of a server
    its URL."""

    pid: int
    host: str
    mountpoint: str | None

    @property
    def serves(self) -> bool:
        """True if its tree is at a URL, where only who has logged in can ask it for anything."""
        return self.mountpoint is not None and self.mountpoint.startswith("http://")

    def __str__(self) -> str:
        where = "" if self.host == socket.gethostname() else f" on {self.host}"
        if self.serves:
            return f"the server at {self.mountpoint} (pid {self.pid}{where})"
        if self.mountpoint is not None:
            return f"the mount at {self.mountpoint} (pid {self.pid}{where})"
        return f"process {self.pid}{where}" if self.pid else f"another process{where}"


class BranchLock:
    """The writer's lock of one branch, counted: each :meth:`acquire` has its :meth:`release`. Thread-safe.

    ``taken`` runs whenever the lock has come from outside this object, before anyone may write under it. ``settle``
    runs after it, with the lock held and still before anyone else may write. ``mutex`` is that of the working copy:
    both may change what it guards. A holder on another machine whose lock may not be seen here counts as gone when it
    changed nothing for ``dead_after`` seconds.
    """

    def __init__(
        self,
        layout: WorkingLayout,
        branch: str,
        mutex: threading.RLock,
        taken: Callable[[], None],
        settle: Callable[[], None],
        *,
        dead_after: float,
    ) -> None:
        self._layout = layout
        self._dead_after = dead_after
        self._touched = 0.0
        self._branch = branch
        self._taken = taken
        self._settle = settle
        self._file = FileLock(layout.lock)
        self._mutex = mutex
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
                self._count += 1
                try:
                    self._settle()
                except BaseException:
                    self.release()
                    raise
                return
            if mountpoint is not None and mountpoint != self._mountpoint:
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
        if self.held:
            return None
        if not self._file.locked_by_other():
            return elsewhere(self._layout, self._dead_after)
        return _described(self._file)

    def keep_fresh(self) -> None:
        """While held: give a sign of life, now and then, to machines that may not see the lock."""
        now = time.monotonic()
        if self.held and now - self._touched > min(_FRESH_SECONDS, self._dead_after / 8):
            self._touched = now
            with suppress(OSError):
                os.utime(self._layout.lock)

    def _take(self, mountpoint: str | None, patience: float) -> None:
        self._make_home()
        self._mountpoint = mountpoint
        deadline = time.monotonic() + patience
        pause = 0.001
        if (other := elsewhere(self._layout, self._dead_after)) is not None:
            raise ReadOnly(
                f"branch {self._branch!r} is being written by {other}, whose locks are not visible here: write through"
                " it, or stop it; if that machine is gone for good, give --dead-after 0"
            )
        while not self._try():
            holder = self.holder()
            if holder is not None and (holder.mountpoint is not None or time.monotonic() >= deadline):
                raise ReadOnly(
                    f"branch {self._branch!r} is being written by {holder}: write through it, or stop it first"
                )
            if holder is None and time.monotonic() >= deadline + PATIENCE:
                raise ReadOnly(f"branch {self._branch!r} is being written by other processes in turns: try again")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        self.times_taken += 1
        try:
            self._taken()
        except BaseException as error:
            # Of a branch that is no more nothing shall stay, and of another that has its name by now nothing shall go:
            # nobody removes a branch whose lock is held, so what is in place is ours until it is released.
            if isinstance(error, NotFound) and self._file.in_place:
                with suppress(OSError):
                    self._layout.lock.unlink()
                    self._layout.root.rmdir()
            self._file.release()
            raise

    def _try(self) -> bool:
        try:
            return self._file.try_lock(self._description())
        except FileNotFoundError:  # the branch is being removed, or removed and made again
            self._make_home()
            return False

    def _make_home(self) -> None:
        """The directory of the working copy, and never that of the dataset: one that was removed does not come back."""
        for folder in (self._layout.root.parent, self._layout.root):
            try:
                folder.mkdir()
                fsync_dir(folder.parent)
            except FileExistsError:
                continue
            except FileNotFoundError:
                raise NotFound(f"the dataset of branch {self._branch!r} was removed") from None

    def _description(self) -> dict[str, object]:
        return {**Claim.mine().facts(), "mountpoint": self._mountpoint}


def elsewhere(layout: WorkingLayout, dead_after: float) -> Holder | None:
    """The process of another machine that says it writes to a branch, and that may live though its lock seems free.

    None where a free lock proves that its holder is gone, and for a process that changed nothing for ``dead_after``
    seconds.
    """
    file = FileLock(layout.lock)
    claim = Claim.parse(file.owner())
    if claim is None or claim.fate() is not Fate.UNKNOWN or locks_on(mount_holding(layout.root)).tell:
        return None
    since = time.time_ns() - int(dead_after * 1e9)
    if not any(changed_since(path, since) for path in (layout.lock, layout.pulse, layout.commit_intent)):
        return None
    return _described(file)


def _described(file: FileLock) -> Holder:
    """The holder of a lock, as it describes itself."""
    owner = file.owner() or {}
    pid, host, mountpoint = owner.get("pid"), owner.get("host"), owner.get("mountpoint")
    return Holder(
        pid if isinstance(pid, int) else 0,
        host if isinstance(host, str) else socket.gethostname(),
        mountpoint if isinstance(mountpoint, str) else None,
    )
