"""Waiting for the kernel's next request: for a moment awake, then asleep.

Decided here: how long the thread that answers requests looks for the next one before it sleeps. Not here: taking
requests (pyfuse3), and answering them (``volfs.tree``).

A program that walks, stats or opens files asks again as soon as it has its answer, 10 to 20 µs later. To fall asleep
and be woken for that costs more than most answers do: two turns of trio's loop, four system calls, two switches of the
processor. So whoever has just answered looks for the next request for some microseconds. It does so only while that
pays: each time in vain, it skips twice as many chances as the last time; where other programs want the processors, who
sleeps is served before who is awake, so it skips many; and it never looks for long in a row without letting trio's
other tasks run. A daemon that nobody asks sleeps.

pyfuse3 takes trio from its module's attribute ``trio``, which is how its own ``pyfuse3.asyncio`` puts another loop in
its place. Here all of trio stays as it is, except for two things that its loop does between requests.
"""

from __future__ import annotations

import os
import select
from collections import deque
from time import perf_counter
from typing import Any

import pyfuse3
import trio

#: How long the next request is looked for: most programs ask within this, if at all soon.
_AWAKE_SECONDS = 40e-6
#: How long requests may follow each other before trio's other tasks get their turn.
_TURN_SECONDS = 1e-3
#: However often nothing came, after so many sleeps it is tried again.
_MOST_SKIPPED = 16
#: Somebody else had the processor if looking once takes this long. Then this many sleeps come before the next try.
_CROWDED_SECONDS = 1e-3
_SKIPPED_IN_CROWD = 256


class Turns:
    """The lock that pyfuse3's tasks take to wait for a request. Whoever leaves it and comes back at once, because the
    request was answered without waiting for anything, need not stand in line behind the task that is to take over."""

    def __init__(self) -> None:
        self._held = False
        self._line: deque[trio.lowlevel.Task] = deque()

    async def __aenter__(self) -> None:
        while self._held:
            task = trio.lowlevel.current_task()
            self._line.append(task)

            def leave(_: object, task: trio.lowlevel.Task = task) -> trio.lowlevel.Abort:
                self._line.remove(task)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(leave)
        self._held = True

    async def __aexit__(self, *_: object) -> None:
        self._held = False
        if self._line:
            trio.lowlevel.reschedule(self._line.popleft())


class Waiting:
    """Waits until a file descriptor can be read, in place of :func:`trio.lowlevel.wait_readable`."""

    def __init__(self) -> None:
        self._polls: dict[int, select.poll] = {}
        self._slept = perf_counter()
        self._skip = 0
        self._vain = 0

    async def wait_readable(self, fd: int) -> None:
        now = perf_counter()
        if now - self._slept < _TURN_SECONDS:
            if self._skip:
                self._skip -= 1
            elif self._look(fd, now):
                return
        await trio.lowlevel.wait_readable(fd)
        self._slept = perf_counter()

    def _look(self, fd: int, now: float) -> bool:
        """True if there is a request, or one came soon."""
        poll = self._polls.get(fd)
        if poll is None:
            poll = self._polls[fd] = select.poll()
            poll.register(fd, select.POLLIN)
        until = now + _AWAKE_SECONDS
        while not poll.poll(0):
            os.sched_yield()  # the one who is about to ask may need this processor
            now, before = perf_counter(), now
            if now - before > _CROWDED_SECONDS:
                self._skip = _SKIPPED_IN_CROWD
                return False
            if now > until:
                self._vain = min(2 * self._vain + 1, _MOST_SKIPPED)
                self._skip = self._vain
                return False
        self._vain = 0
        return True


class _Namespace:
    """A module, with some of its names meaning something else."""

    def __init__(self, module: Any, **changed: Any) -> None:
        self._module = module
        self.__dict__.update(changed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def stay_awake() -> None:
    """Have pyfuse3 wait for requests as is decided here, from its next session on."""
    lowlevel = _Namespace(trio.lowlevel, wait_readable=Waiting().wait_readable)
    pyfuse3.trio = _Namespace(trio, lowlevel=lowlevel, Lock=Turns)  # type: ignore[attr-defined]
