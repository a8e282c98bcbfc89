"""A report of a daemon's work at this moment, written to its log at SIGUSR1.

Decided here: the parts of the report: requests in flight, the stack of every thread, the stack of every trio task.
Not here: counting requests (:mod:`volfs.tree.contract.meter`), the log (:mod:`volfs.fuse.logs`).

A thread of its own waits for the signal, so that a daemon whose main thread is stuck in a request answers too; the
signal is blocked in all others, save those that libraries start when they are imported, from where it is passed on.
(Only where the interpreter itself hangs does nothing come; SIGABRT then ends the daemon with the stacks of its threads
in the log.)
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
import traceback
from collections import Counter

import trio

from volfs.tree.contract.meter import Meter

log = logging.getLogger("volfs.fuse.dump")

_THREAD = "volfs-dump"


def block_signal() -> None:
    """Block SIGUSR1 in all threads but the one that waits for it. Call it in the first thread, before there are
    others."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    signal.signal(signal.SIGUSR1, _pass_on)


def _pass_on(*_: object) -> None:
    """Pass on a signal that reached a thread of a library, and which the interpreter handed to the first thread."""
    for thread in threading.enumerate():
        if thread.name == _THREAD and thread.ident is not None:
            signal.pthread_kill(thread.ident, signal.SIGUSR1)


def heed_signal(meter: Meter) -> None:
    """Write a report at every SIGUSR1 from now on. Call it in the trio run whose tasks are to be reported."""
    root = trio.lowlevel.current_root_task()
    threading.Thread(target=_wait, args=(meter, root), name=_THREAD, daemon=True).start()


def _wait(meter: Meter, root: trio.lowlevel.Task | None) -> None:
    while True:
        signal.sigwait({signal.SIGUSR1})
        try:
            log.info("SIGUSR1: %s", report(meter, root))
        except Exception:  # trio's tasks change while they are looked at
            log.exception("SIGUSR1: the report could not be made; ask again")


def report(meter: Meter, root: trio.lowlevel.Task | None) -> str:
    """The whole report, of several paragraphs."""
    return "\n\n".join([_in_flight(meter), _threads(), *([_tasks(root)] if root is not None else [])])


def _in_flight(meter: Meter) -> str:
    now = time.monotonic()
    waiting = sorted(meter.in_flight(), key=lambda request: request.since)
    lines = [f"{len(waiting)} requests in flight" + (", oldest first:" if waiting else "")]
    lines += [f"  {now - one.since:9.3f} s  {one.operation}{_arguments(one.arguments)}" for one in waiting]
    return "\n".join(lines)


def _arguments(arguments: tuple[object, ...]) -> str:
    """The arguments of a request as text: bytes to be written by their number, the caller by its process."""
    shown: list[str] = []
    for one in arguments:
        pid = getattr(one, "pid", None)
        if isinstance(one, bytes) and len(one) > 255:
            shown.append(f"<{len(one)} bytes>")
        elif isinstance(one, int | bytes):
            shown.append(repr(one))
        elif pid is not None:
            shown.append(f"for process {pid}")
    return f"({', '.join(shown)})"


def _threads() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = Counter[str]()
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            name = names.get(ident, "not Python's")
            plain = name.rstrip("0123456789-") if name.startswith("Trio") else name
            stacks[f"thread {plain}:\n" + "".join(traceback.format_stack(frame)).rstrip()] += 1
    return _counted(stacks, "threads")


def _tasks(root: trio.lowlevel.Task) -> str:
    stacks = Counter[str]()
    left = [root]
    while left:
        task = left.pop()
        lines = traceback.StackSummary.extract(task.iter_await_frames()).format()
        stacks[f"task {task.name}:\n" + "".join(lines).rstrip()] += 1
        left += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return _counted(stacks, "trio tasks")


def _counted(stacks: Counter[str], what: str) -> str:
    """The stacks, equal ones once with their number: a pool has many that wait alike."""
    parts = [f"{f'{count} x ' if count > 1 else ''}{stack}" for stack, count in stacks.most_common()]
    return "\n".join([f"{stacks.total()} {what}:", *parts])
