"""Which calls on files of a store are made by a thread: those that a dead disk would hold for ever."""

from __future__ import annotations

import builtins
import fcntl
import io
import os
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

#: By module, calls whose first argument, or one of the first two, is a path or a descriptor.
_CALLS = {
    os: (
        *("stat", "lstat", "open", "listdir", "scandir", "readlink", "access", "statvfs", "mkdir", "rmdir", "unlink"),
        *("remove", "rename", "replace", "link", "symlink", "truncate", "utime", "chmod", "chown"),
        *("fstat", "ftruncate", "pread", "preadv", "pwrite", "pwritev", "read", "readv", "write", "writev", "fsync"),
        *("fdatasync", "fchmod", "fchown", "fstatvfs", "posix_fallocate", "copy_file_range", "sendfile", "close"),
    ),
    io: ("open",),
    builtins: ("open",),
    fcntl: ("flock", "lockf", "fcntl"),
}


@contextmanager
def store_calls_of_this_thread(below: Path) -> Iterator[list[str]]:
    """Note the calls that this thread makes within the block on files below a directory, by path or by descriptor, each
    with its callers."""
    thread, found = threading.get_ident(), list[str]()
    readlink = os.readlink

    def place(file: Any) -> str:
        if hasattr(file, "fileno"):
            file = file.fileno()
        if not isinstance(file, int):
            return os.fsdecode(file)
        with suppress(OSError):
            return readlink(f"/proc/self/fd/{file}")
        return ""

    def noting(module: Any, name: str) -> Any:
        real = getattr(module, name)

        def call(*args: Any, **options: Any) -> Any:
            waits = name != "preadv" or args[3:] != (os.RWF_NOWAIT,)
            if threading.get_ident() == thread and waits:
                for file in args[:2]:
                    with suppress(TypeError, ValueError):
                        if (where := place(file)).startswith(str(below)):
                            callers = traceback.extract_stack(limit=16)[:-1]
                            trace = " < ".join(f"{each.name}:{each.lineno}" for each in callers[::-1])
                            found.append(f"{name} {where}: {trace}")
                            break
            return real(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for module, names in _CALLS.items():
            for name in names:
                patch.setattr(module, name, noting(module, name))
        yield found
