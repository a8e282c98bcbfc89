"""Rendered documents, kept within a bound. When one is out of date is decided in :mod:`volfs.tree.files.document`."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from volfs.errors import VolfsError

_KEPT_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Rendering:
    """The bytes of a document in one state, or the error that kept them from being made. ``made`` is on the monotonic
    clock."""

    stamp: Hashable
    data: bytes
    mtime: int
    made: float
    error: VolfsError | None = None


class Renderings:
    """The newest rendering of each document, by inode; beyond ``limit`` bytes, the least recently used are dropped.
    Thread-safe."""

    def __init__(self, limit: int = _KEPT_BYTES) -> None:
        self.limit = limit
        self.length = 0
        self._mutex = threading.Lock()
        self._kept: OrderedDict[int, Rendering] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, ino: int) -> Rendering | None:
        with self._mutex:
            found = self._kept.get(ino)
            if found is not None:
                self._kept.move_to_end(ino)
            return found

    def put(self, ino: int, rendering: Rendering) -> None:
        with self._mutex:
            before = self._kept.pop(ino, None)
            self.length += len(rendering.data) - (len(before.data) if before else 0)
            self._kept[ino] = rendering
            while self.length > self.limit and len(self._kept) > 1:
                self.length -= len(self._kept.popitem(last=False)[1].data)
