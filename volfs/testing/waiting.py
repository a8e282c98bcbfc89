"""Waiting for a condition, on a machine that may be busy with other things.

Decided here: how long a wait may last. It ends as soon as its condition holds, so a generous limit costs nothing; a
tight one fails tests in which nothing is wrong. Never wait for a fixed time in the hope that something is done by then.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import trio

PATIENCE = 300.0
"""Seconds after which something that should have happened counts as never happening. For timeouts of processes, too."""

_PAUSE = 0.02


def until(condition: Callable[[], object], what: str | Callable[[], str] = "") -> None:
    """Return as soon as ``condition()`` is true; fail if it never is. ``what`` names the condition in the failure."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, _late(what)
        time.sleep(_PAUSE)


async def until_async(condition: Callable[[], Awaitable[object]], what: str | Callable[[], str] = "") -> None:
    """:func:`until` in trio, for a condition that has to be awaited."""
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < deadline, _late(what)
        await trio.sleep(_PAUSE)


def _late(what: str | Callable[[], str]) -> str:
    said = what if isinstance(what, str) else what()
    return f"not within {PATIENCE:g} s{': ' if said else ''}{said}"
