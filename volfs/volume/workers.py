"""The threads that decode and encode chunks.

Decided here: how one request uses all cores. The thread that asks works too, through the same list as the helpers, and
waits only for helpers that have started: so a request makes progress even when all helpers are busy, and a task may
itself ask for work to be spread, without any risk of deadlock. zstd, gzip, blosc and numpy release the interpreter.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

#: Decoding ahead gives way to answering, and not much to other programs: somebody is about to ask for it.
_NICENESS = 5


def cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


class Workers:
    """A pool of helpers as large as the machine. Threads start when first needed."""

    def __init__(self, count: int | None = None) -> None:
        #: Threads, besides those that ask.
        self.count = count if count is not None else cores()
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="volfs-decode")
        self._background = ThreadPoolExecutor(self.count, thread_name_prefix="volfs-prefetch", initializer=_step_back)

    def each(self, work: Callable[[T], object], items: Iterable[T]) -> None:
        """Call `work` on every item, on all cores. The first error stops the rest and is raised."""
        queue = _Queue(items)
        if queue.length > 1 and self.count > 1:
            futures = [self._pool.submit(queue.drain, work) for _ in range(min(queue.length - 1, self.count))]
            queue.drain(work)
            for future in futures:
                if not future.cancel():
                    future.result()
        else:
            queue.drain(work)
        if queue.error is not None:
            raise queue.error

    def in_background(self, job: Callable[[], object]) -> None:
        """Run a job some time soon, on cores that nothing else has use for. Its errors are dropped."""
        self._background.submit(job)

    def each_in_background(self, work: Callable[[T], object], items: Iterable[T]) -> None:
        """Call `work` on every item some time soon, on the background threads. The first error stops the rest."""
        queue = _Queue(items)
        for _ in range(min(queue.length, self.count)):
            self.in_background(lambda: queue.drain(work))

    def close(self) -> None:
        """Stop the threads; what is queued in the background is dropped."""
        self._background.shutdown(wait=True, cancel_futures=True)
        self._pool.shutdown(wait=True)


def _step_back() -> None:
    """Let this thread run only when no other wants to. On Linux niceness is a thread's own."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class _Queue:
    """Items that several threads take from; empties itself at the first error."""

    def __init__(self, items: Iterable[object]) -> None:
        listed = list(items)
        self.length = len(listed)
        self.error: BaseException | None = None
        self._items: Iterator[object] = iter(listed)
        self._lock = threading.Lock()

    def drain(self, work: Callable[[T], object]) -> None:
        while True:
            with self._lock:
                if self.error is not None:
                    return
                try:
                    item: T = next(self._items)  # type: ignore[assignment]
                except StopIteration:
                    return
            try:
                work(item)
            except BaseException as error:
                with self._lock:
                    if self.error is None:
                        self.error = error
                return
