"""Which calls on paths of a store are made by a thread: those that a dead disk would hold for ever."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_CALLS = ("stat", "lstat", "open", "listdir", "scandir", "readlink", "access", "statvfs")


@contextmanager
def path_calls_of_this_thread(below: Path) -> Iterator[list[str]]:
    """Note the calls that this thread makes within the block on paths below a directory, each with its callers."""
    thread, found = threading.get_ident(), list[str]()

    def noting(name: str) -> Any:
        real = getattr(os, name)

        def call(path: Any = ".", *args: Any, **options: Any) -> Any:
            mine = threading.get_ident() == thread
            if mine and not isinstance(path, int) and os.fsdecode(path).startswith(str(below)):
                callers = traceback.extract_stack(limit=8)[:-1]
                found.append(f"{name} {path}: {' < '.join(f'{each.name}:{each.lineno}' for each in callers[::-1])}")
            return real(path, *args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in _CALLS:
            patch.setattr(os, name, noting(name))
        yield found
