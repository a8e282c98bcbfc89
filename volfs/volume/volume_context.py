"""What the images of one store share: the cache of decoded blocks, the threads, the remembered chunk maps, the locks.

Decided here: that there is one of each per store, made when first asked for and gone with the store, and how large the
cache is unless somebody says.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from volfs.model.bounded_map import Caches
from volfs.volume.blocks import Memory, ShardIndexes
from volfs.volume.cache import BlockCache
from volfs.volume.maps import EntryMaps
from volfs.volume.workers import Workers

if TYPE_CHECKING:
    from volfs.versions.snapshot import Snapshot

T = TypeVar("T")


def default_cache_bytes() -> int:
    """A quarter of the machine's memory, but from 64 MiB to 2 GiB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(2 << 30, max(64 << 20, memory // 4))


class VolumeContext:
    """The shared things of one store. :func:`context_of` finds it."""

    def __init__(self, cache_bytes: int | None = None) -> None:
        self.caches = Caches()
        cache = BlockCache(default_cache_bytes() if cache_bytes is None else cache_bytes)
        self.cache = self.caches.add("blocks", cache)
        self.workers = Workers()
        self.memory = Memory(
            self.caches.add("chunk_maps", EntryMaps()), self.caches.add("shard_indexes", ShardIndexes())
        )
        self.lock = threading.Lock()
        self._array_locks: defaultdict[tuple[str, str, str], threading.RLock] = defaultdict(threading.RLock)

    def array_lock(self, snapshot: Snapshot, path: str) -> threading.RLock:
        """Held by whoever changes chunks of an array."""
        with self.lock:
            return self._array_locks[snapshot.dataset.name, snapshot.ref, path]


def context_of(snapshot: Snapshot) -> VolumeContext:
    """The context of the store that a snapshot belongs to."""
    return store_context(snapshot.dataset.store)


def store_context(store: object) -> VolumeContext:
    """The context of a store. `store_context(store).cache.resize(n)` bounds its decoded blocks."""
    return attached(store, VolumeContext)


_attaching = threading.Lock()


def attached(owner: object, make: Callable[[], T]) -> T:
    """The one thing that `make` makes for `owner`, made at the first call and gone with `owner`.

    Kept in the owner's own dictionary: what is kept refers back to it, and a WeakKeyDictionary never lets go of a key
    that its value refers to.
    """
    slot = f"_volfs_volume_{getattr(make, '__name__', '')}"
    with _attaching:
        kept = vars(owner)
        if slot not in kept:
            kept[slot] = make()
        found: T = kept[slot]
        return found
