"""Invalidation of the kernel's cache: blocking calls, each in a thread that nothing else waits for.

Decided here: which thread makes which call. Not here: when an inode is invalidated (``volfs.tree``, by the rule in
:mod:`volfs.tree.contract.api`).

The kernel holds a notification back until requests it is still waiting for are answered: ``invalidate_inode`` waits
for pages under way, ``invalidate_entry`` for the parent directory's lock. Called on the thread that answers requests,
either one hangs the daemon so that not even SIGKILL ends it. So awaited invalidations have threads of their own, with
their own limiter; queued ones go through a few queues, one per thread, chosen by directory, so that one directory
under a slow operation delays few others and the entries of one directory stay in order.
"""

from __future__ import annotations

import errno
import logging
import queue
import threading
from collections.abc import Callable

import pyfuse3
import trio

log = logging.getLogger(__name__)

_FORGETFUL_THREADS = 4
_AWAITED_AT_ONCE = 64

#: The kernel does not know the inode or name (so nothing is stale), or the mount is gone.
_HARMLESS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENOTCONN, errno.ENODEV, errno.EBADF})

_Job = Callable[[], None]


class KernelNotifier:
    """The :class:`volfs.tree.contract.api.Notifier` of a mount. Make it before serving; ``close`` it before
    unmounting."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(_AWAITED_AT_ONCE)
        self._queues: list[queue.SimpleQueue[_Job | None]] = [queue.SimpleQueue() for _ in range(_FORGETFUL_THREADS)]
        self._lock = threading.Lock()
        self._closed = False
        self._under_way = 0
        self._idle = threading.Condition(self._lock)
        self._threads = [
            threading.Thread(target=self._drain, args=(jobs,), name=f"volfs-notify-{n}", daemon=True)
            for n, jobs in enumerate(self._queues)
        ]
        for thread in self._threads:
            thread.start()

    async def invalidate_inode(self, ino: int) -> None:
        """Drop pages and attributes of ``ino``; returns when the kernel has done so."""
        await trio.to_thread.run_sync(
            self._call, lambda: _forget_inode(ino), limiter=self._limiter, abandon_on_cancel=True
        )

    def queue_inode(self, ino: int) -> None:
        """Drop pages and attributes of ``ino`` some time soon."""
        self._queues[hash(ino) % len(self._queues)].put(lambda: _forget_inode(ino))

    def queue_entry(self, parent: int, name: bytes) -> None:
        """Drop the dentry ``name`` of ``parent`` some time soon, in order with others of the same directory."""
        self._queues[hash(parent) % len(self._queues)].put(lambda: _forget_entry(parent, name))

    def close(self, patience: float = 2.0) -> bool:
        """Make no further call. True when none is under way: only then may the session be destroyed."""
        with self._lock:
            self._closed = True
        for jobs in self._queues:
            jobs.put(None)
        with self._idle:
            return self._idle.wait_for(lambda: self._under_way == 0, patience)

    def _drain(self, jobs: queue.SimpleQueue[_Job | None]) -> None:
        while (job := jobs.get()) is not None:
            self._call(job)

    def _call(self, job: _Job) -> None:
        with self._lock:
            if self._closed:
                return
            self._under_way += 1
        try:
            job()
        except OSError as error:
            if error.errno not in _HARMLESS:
                log.warning("the kernel did not take a notification: %s", error)
        except Exception:
            log.exception("a notification to the kernel failed")
        finally:
            with self._idle:
                self._under_way -= 1
                self._idle.notify_all()


def _forget_inode(ino: int) -> None:
    pyfuse3.invalidate_inode(ino)


def _forget_entry(parent: int, name: bytes) -> None:
    pyfuse3.invalidate_entry(parent, name)
