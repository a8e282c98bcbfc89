"""Until when a thread may go on reading for somebody who waits.

Decided here: how a reader of many chunks learns that nobody waits any more (:mod:`volfs.volume.reader` asks between
chunks). Not here: how long that is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

_T = TypeVar("_T")

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


def within(seconds: float, work: Callable[[], _T]) -> _T:
    """Do something in this thread. Reading many chunks in it is OutOfTime after so many seconds."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        return work()
    finally:
        _deadline.reset(token)


def deadline() -> float:
    """When (``time.monotonic``) this thread must have read what it reads; infinity if nothing was said."""
    return _deadline.get()
