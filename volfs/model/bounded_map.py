"""The one kind of cache: a map within a bound, and the caches of one owner by name.

Decided here: that the least recently used entry leaves first, and that every cache can say what it holds and what its
bound is, so that ``.volfs/stats.json`` lists them all. Not decided here: how large one is, which its owner says, and
decoded blocks, whose order of leaving knows scans (:mod:`volfs.volume.cache`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast, overload
from weakref import WeakSet

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a cache holds and its bound: in bytes, or in entries where ``bytes`` is None."""

    items: int
    limit: int
    bytes: int | None = None

    def __add__(self, other: Usage) -> Usage:
        both = None if self.bytes is None or other.bytes is None else self.bytes + other.bytes
        return Usage(self.items + other.items, self.limit + other.limit, both)

    def facts(self) -> dict[str, int]:
        """As ``docs/monitoring.md`` names them."""
        if self.bytes is None:
            return {"items": self.items, "max_items": self.limit}
        return {"items": self.items, "bytes": self.bytes, "max_bytes": self.limit}


class BoundedMap(Generic[K, V]):
    """At most ``limit`` entries or, with ``weigh``, entries of ``limit`` bytes together; the newest stays even if it
    alone is heavier. Thread-safe.

    ``weigh``: bytes that a value takes, the same for as long as it is in the map. Pinned entries neither leave nor
    count against the limit. Values that threads make at the same time must be interchangeable.
    """

    def __init__(self, limit: int, weigh: Callable[[V], int] | None = None) -> None:
        self.limit = limit
        self._weigh = weigh
        self._weight = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._pinned: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._kept) + len(self._pinned)

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: object = None) -> object:
        """The value, ``default`` if there is none."""
        with self._lock:
            found = self._kept.get(key, default)
            if found is default:
                return self._pinned.get(key, default)
            self._kept.move_to_end(key)
            return found

    @overload
    def peek(self, key: K) -> V | None: ...
    @overload
    def peek(self, key: K, default: D) -> V | D: ...
    def peek(self, key: K, default: object = None) -> object:
        """The value, without waiting for the lock and without counting as a use. Does not see pinned entries."""
        return self._kept.get(key, default)

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """The value; if there is none, what ``make`` gives, called without the lock."""
        found = self.get(key, self)
        if found is not self:
            return cast(V, found)
        made = make()
        self.put(key, made)
        return made

    def put(self, key: K, value: V) -> list[V]:
        """Keep a value; those that left to make room for it. A pinned one is replaced and stays pinned."""
        with self._lock:
            if key not in self._pinned:
                return self._keep(key, value)
            self._pinned[key] = value
            return []

    def pop(self, key: K) -> V | None:
        """Forget a key, pinned or not; the value it had."""
        with self._lock:
            return self._pinned.pop(key) if key in self._pinned else self._take(key)

    def pop_where(self, chosen: Callable[[K], bool]) -> list[V]:
        """Forget the keys that ``chosen`` is true of, pinned ones excepted; the values they had."""
        with self._lock:
            return [self._take(key) for key in [*filter(chosen, self._kept)]]  # type: ignore[misc]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._pinned.clear()
            self._weight = 0

    def pin(self, key: K, value: V) -> None:
        """Keep a value until :meth:`unpin` or :meth:`pop`."""
        with self._lock:
            self._take(key)
            self._pinned[key] = value

    def unpin(self, key: K) -> None:
        """Let a pinned value leave again like any other."""
        with self._lock:
            if key in self._pinned:
                self._keep(key, self._pinned.pop(key))

    def usage(self) -> Usage:
        """What is held now."""
        return Usage(len(self), self.limit, None if self._weigh is None else self._weight)

    def _keep(self, key: K, value: V) -> list[V]:
        gone: list[V] = []
        if key in self._kept:
            self._take(key)
        self._kept[key] = value
        self._weight += 1 if self._weigh is None else self._weigh(value)
        while self._weight > self.limit and len(self._kept) > 1:
            gone.append(self._take(next(iter(self._kept))))  # type: ignore[arg-type]
        return gone

    def _take(self, key: K) -> V | None:
        if key not in self._kept:
            return None
        value = self._kept.pop(key)
        self._weight -= 1 if self._weigh is None else self._weigh(value)
        return value


class Cache(Protocol):
    """Anything that holds memory within a bound."""

    def usage(self) -> Usage: ...


C = TypeVar("C", bound=Cache)


class Caches:
    """The caches of one owner, by name. Those of one name, as every version has one, are listed as one.

    A cache is listed for as long as somebody uses it. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._named: dict[str, WeakSet[Cache]] = {}

    def add(self, name: str, cache: C) -> C:
        """List a cache; returns it."""
        with self._lock:
            self._named.setdefault(name, WeakSet()).add(cache)
        return cache

    def usage(self) -> dict[str, Usage]:
        """What each holds now, with the bound of all that there are of its name."""
        with self._lock:
            named = {name: list(caches) for name, caches in self._named.items()}
        total: dict[str, Usage] = {}
        for name, caches in named.items():
            for cache in caches:
                total[name] = total[name] + cache.usage() if name in total else cache.usage()
        return total
