"""Crash points: named places in a protocol where a test can have the process die.

With ``VOLFS_CRASH_AT=NAME`` in the environment the process kills itself on reaching that point, ``NAME:3`` on reaching
it the third time. It dies by SIGKILL, so no finally block, no atexit handler and no buffered write runs: what recovery
finds is what a real kill leaves.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter

_reached: Counter[str] = Counter()
_lock = threading.Lock()


def crash_point(name: str) -> None:
    """Die here if the environment asks for it."""
    wanted = os.environ.get("VOLFS_CRASH_AT")
    if not wanted:
        return
    wanted_name, _, count = wanted.partition(":")
    if wanted_name != name:
        return
    with _lock:
        _reached[name] += 1
        now = _reached[name] == int(count or "1")
    if now:
        os.kill(os.getpid(), signal.SIGKILL)
