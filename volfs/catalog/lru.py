"""A mapping of bounded size that drops the least recently used values, except pinned ones."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Drops the least recently used beyond ``limit``; pinned items do not count and are never dropped.

    Not thread-safe: its owner has a lock.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._pinned: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._kept) + len(self._pinned)

    def get(self, key: K) -> V | None:
        """The value, None if it is not kept."""
        found = self._pinned.get(key)
        if found is None:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        return found

    def put(self, key: K, value: V) -> None:
        """Keep a value for a while. A pinned one is replaced and stays pinned."""
        if key in self._pinned:
            self._pinned[key] = value
            return
        self._kept[key] = value
        self._kept.move_to_end(key)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    def pin(self, key: K, value: V) -> None:
        """Keep a value until :meth:`unpin` or :meth:`drop`."""
        self._kept.pop(key, None)
        self._pinned[key] = value

    def unpin(self, key: K) -> None:
        """Let a value be dropped again like any other."""
        if key in self._pinned:
            value = self._pinned.pop(key)
            self.put(key, value)

    def drop(self, key: K) -> None:
        """Forget a key."""
        self._kept.pop(key, None)
        self._pinned.pop(key, None)
