"""The last refusals of a branch, in words: for users of a share, whose programs show no more than "Invalid argument".

Decided here: how they are kept (``working/B/errors.txt``, one line each, the oldest go), and how a line looks. A line
is not synced to the disk. Not here: what is refused, and where the file is shown (``tree/``).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import UTC, datetime

from volfs.model.display import printable
from volfs.storage.layout import WorkingLayout

_KEPT = 32 << 10
_MOST = 64 << 10


def note(layout: WorkingLayout, path: str, reason: str) -> None:
    """Add a line. ``path`` is from the branch on."""
    now = datetime.fromtimestamp(time.time_ns() // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = f"{now}  {printable(path)}: {printable(reason)}\n".encode("utf-8", "backslashreplace")
    fd = os.open(layout.refusals, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        size = os.fstat(fd).st_size
        if size > _MOST:
            rest = os.pread(fd, _KEPT, size - _KEPT)
            os.ftruncate(fd, 0)
            line = rest[rest.find(b"\n") + 1 :] + line
        os.write(fd, line)
    finally:
        os.close(fd)


def read(layout: WorkingLayout) -> bytes:
    """All lines, the oldest first."""
    with suppress(OSError):
        fd = os.open(layout.refusals, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            return file.read(_MOST + _KEPT)
    return b""


def stamp(layout: WorkingLayout) -> tuple[int, int]:
    """Equal for equal lines."""
    try:
        found = os.lstat(layout.refusals)
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
