"""The last refusals of a branch, in words: for users of a share, whose programs show no more than "Invalid argument".

Decided here: how they are kept (``working/B/errors.txt``, one line each, the oldest go), and how a line looks. A line
is not synced to the disk. Not here: what is refused, and where the file is shown (``tree/``).
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

from volfs.model.display import printable
from volfs.storage.files import open_regular
from volfs.storage.store_layout import WorkingLayout

_KEPT = 32 << 10
_MOST = 64 << 10


def note(layout: WorkingLayout, path: str, reason: str) -> None:
    """Add a line. ``path`` is from the branch on."""
    now = datetime.fromtimestamp(time.time_ns() // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = f"{now}  {printable(path)}: {printable(reason)}\n".encode("utf-8", "backslashreplace")
    fd = open_regular(layout.refusals, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
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
    try:
        fd = open_regular(layout.refusals)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(fd, _MOST + _KEPT, 0)
    finally:
        os.close(fd)


def stamp(layout: WorkingLayout) -> tuple[int, int]:
    """Equal for equal lines."""
    try:
        found = os.lstat(layout.refusals)
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
