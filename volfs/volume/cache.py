"""The cache of decoded blocks: bounded in bytes, shared by all versions, decoding each block once.

A *block* is a decoded chunk (or the inner chunk of a client's shard, or a derived chunk of a pyramid). Decided here:
what stays in memory. Not here: what a block is called; keys are made where blocks are decoded, from payload tokens, so
that versions which share a payload share the block.

Segmented LRU. A block enters on probation; only a reference that is *no part of a scan* promotes it, and only blocks
on probation make room as long as there are any to spare. So a program that reads a terabyte once, or walks slice by
slice through it (which touches each block dozens of times in a row), leaves the blocks that others keep coming back to
where they are. Who scans is known to the reader (:mod:`volfs.volume.travel`), not guessed here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Block = npt.NDArray[Any]

#: Bookkeeping of one block besides its voxels.
_OVERHEAD = 512
#: The part of the cache that blocks referenced more than once may fill.
_PROTECTED = 0.8


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counters since the cache was made. `bytes` and `blocks` are what it holds now; `decoded` counts blocks made."""

    hits: int
    misses: int
    decoded: int
    decoded_bytes: int
    evicted: int
    blocks: int
    bytes: int
    max_bytes: int


class _Flight:
    """A block being made: those who want the same one wait for it."""

    __slots__ = ("block", "done")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.block: Block | None = None


class BlockCache:
    """Decoded blocks by key. Thread-safe; nothing here does I/O but the `make` given to :meth:`get_or_make`."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max(0, max_bytes)
        self._lock = threading.Lock()
        self._probation: OrderedDict[Hashable, Block] = OrderedDict()
        self._protected: OrderedDict[Hashable, Block] = OrderedDict()
        self._bytes = 0
        self._protected_bytes = 0
        self._flights: dict[Hashable, _Flight] = {}
        self._hits = self._misses = self._decoded = self._decoded_bytes = self._evicted = 0

    @property
    def max_bytes(self) -> int:
        return self._max

    def resize(self, max_bytes: int) -> None:
        """Change the bound; what is over it goes at once."""
        with self._lock:
            self._max = max(0, max_bytes)
            self._shrink()

    def clear(self) -> None:
        """Forget every block. Counters stay."""
        with self._lock:
            self._probation.clear()
            self._protected.clear()
            self._bytes = self._protected_bytes = 0

    def stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(
                self._hits,
                self._misses,
                self._decoded,
                self._decoded_bytes,
                self._evicted,
                len(self._probation) + len(self._protected),
                self._bytes,
                self._max,
            )

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._probation or key in self._protected

    def get(self, key: Hashable, *, scan: bool = False) -> Block | None:
        """The block if it is in memory. `scan`: this reference says nothing about a next one."""
        with self._lock:
            return self._find(key, scan)

    def get_all(self, keys: list[Hashable], *, scan: bool = False) -> list[Block] | None:
        """All of the blocks, or None if one is missing (which then counts as no reference to any)."""
        with self._lock:
            if not all(key in self._protected or key in self._probation for key in keys):
                return None
            return [block for key in keys if (block := self._find(key, scan)) is not None]

    def get_or_make(self, key: Hashable, make: Callable[[], Block], *, scan: bool = False) -> Block:
        """The block, made by `make` if it is not in memory, by one of the threads that ask for it at the same time.

        If `make` raises, its caller gets the error and the others make the block themselves.
        """
        while True:
            with self._lock:
                block = self._find(key, scan)
                if block is not None:
                    return block
                flight = self._flights.get(key)
                if flight is None:
                    mine = self._flights[key] = _Flight()
                    self._misses += 1
                    break
            flight.done.wait()
            if flight.block is not None:
                with self._lock:
                    self._hits += 1
                return flight.block
        try:
            mine.block = make()
            self._insert(key, mine.block)
        finally:
            with self._lock:
                del self._flights[key]
            mine.done.set()
        return mine.block

    def count_decoded(self, nbytes: int) -> None:
        """Note a block that was decoded straight into place, past the cache."""
        with self._lock:
            self._decoded += 1
            self._decoded_bytes += nbytes

    def _find(self, key: Hashable, scan: bool) -> Block | None:
        block = self._protected.get(key)
        if block is not None:
            if not scan:
                self._protected.move_to_end(key)
            self._hits += 1
            return block
        block = self._probation.get(key)
        if block is None:
            return None
        self._hits += 1
        if scan:
            self._probation.move_to_end(key)
            return block
        del self._probation[key]
        self._protected[key] = block
        self._protected_bytes += _cost(block)
        while self._protected_bytes > self._max * _PROTECTED and len(self._protected) > 1:
            old, demoted = self._protected.popitem(last=False)
            self._protected_bytes -= _cost(demoted)
            self._probation[old] = demoted
        return block

    def _insert(self, key: Hashable, block: Block) -> None:
        block.flags.writeable = False  # it is handed to many readers
        with self._lock:
            self._decoded += 1
            self._decoded_bytes += block.nbytes
            if _cost(block) > self._max or key in self._probation or key in self._protected:
                return
            self._probation[key] = block
            self._bytes += _cost(block)
            self._shrink()

    def _shrink(self) -> None:
        while self._bytes > self._max:
            if self._probation:
                _, block = self._probation.popitem(last=False)
            else:
                _, block = self._protected.popitem(last=False)
                self._protected_bytes -= _cost(block)
            self._bytes -= _cost(block)
            self._evicted += 1


def _cost(block: Block) -> int:
    return _OVERHEAD + (block.nbytes if isinstance(block, np.ndarray) else 0)
