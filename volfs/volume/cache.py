"""The cache of decoded blocks: bounded in bytes, shared by all versions, decoding each block once.

A *block* is a decoded chunk (or the inner chunk of a client's shard, or a derived chunk of a pyramid). Decided here:
what stays in memory. Not here: what a block is called; keys are made where blocks are decoded, from payload tokens, so
that versions which share a payload share the block.

Two segments, each in order of last use. A block enters on probation; only a reference that is *no part of a scan*
promotes it. Blocks on probation make room first, down to a share of their own. So a program that reads a terabyte once,
or walks slice by slice through it (which touches each block dozens of times in a row), leaves the blocks that others
keep coming back to where they are. Who scans is known to the reader (:mod:`volfs.volume.travel`), not guessed here.
The share moves as in ARC (Megiddo and Modha, 2003): asking for a block that left too early enlarges the segment that it
left, so a slab larger than the share does not thrash beside a hot set that nobody wants any more.

What was uncommitted in a branch and has been written anew will never be asked for again: of the contents of one *place*
of a branch only the last ones stay.

What is kept may be larger than a block and have blocks as its parts (:mod:`volfs.volume.pencils`): whoever asks for one
of those is given the view of it, as long as the whole is here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from volfs.model.bounded_map import Usage

Block = npt.NDArray[Any]
Parts = Mapping[Hashable, tuple[slice, ...]]
"""The blocks in something larger, by name."""
Home = tuple[Hashable, bool]
"""The place of a branch whose contents something is, and whether they are uncommitted, so that nobody else has them."""

#: Bookkeeping of one block besides its voxels, and of one that is a part of something larger.
_OVERHEAD = 512
_PART_OVERHEAD = 256
#: The share of the cache that blocks on probation have at first, and the most that they can win.
_FIRST_SHARE, _LARGEST_SHARE = 0.25, 0.9


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counters since the cache was made. `bytes` and `blocks` are what it holds now; `decoded` counts blocks decoded,
    be it past the cache or for a pencil, and computed ones. `copied_bytes` went from blocks to those who asked.
    `prefetched` are the entries (blocks or pencils) that were made ahead, `used` those of them that somebody then asked
    for, `wasted` those that left before; the rest may still be either."""

    hits: int
    misses: int
    decoded: int
    decoded_bytes: int
    evicted: int
    copied_bytes: int
    prefetched: int
    prefetched_bytes: int
    prefetch_used: int
    prefetch_used_bytes: int
    prefetch_wasted: int
    prefetch_wasted_bytes: int
    blocks: int
    bytes: int
    max_bytes: int


class _Flight:
    """A block being made: those who want the same one wait for it."""

    __slots__ = ("block", "done")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.block: Block | None = None


class _Segment:
    """Blocks in order of use, least recent first, and the names of those that left lately."""

    __slots__ = ("blocks", "bytes", "costs", "ghost_bytes", "ghosts")

    def __init__(self) -> None:
        self.blocks: OrderedDict[Hashable, Block] = OrderedDict()
        self.costs: dict[Hashable, int] = {}
        self.bytes = 0
        self.ghosts: OrderedDict[Hashable, int] = OrderedDict()
        self.ghost_bytes = 0

    def add(self, key: Hashable, block: Block, cost: int) -> None:
        self.blocks[key] = block
        self.costs[key] = cost
        self.bytes += cost

    def take(self, key: Hashable) -> tuple[Block, int]:
        cost = self.costs.pop(key)
        self.bytes -= cost
        return self.blocks.pop(key), cost

    def evict(self, ghost_bytes: int) -> Hashable:
        """Let the least recently used block go, and return its name. That is remembered, within `ghost_bytes`."""
        key = next(iter(self.blocks))
        _, cost = self.take(key)
        self.ghosts[key] = cost
        self.ghost_bytes += cost
        while self.ghost_bytes > ghost_bytes:
            self.ghost_bytes -= self.ghosts.popitem(last=False)[1]
        return key

    def lay(self, key: Hashable) -> int:
        """Forget that `key` left; returns what it cost, 0 if it is not known to have left."""
        cost = self.ghosts.pop(key, 0)
        self.ghost_bytes -= cost
        return cost

    def clear(self) -> None:
        self.blocks.clear()
        self.costs.clear()
        self.ghosts.clear()
        self.bytes = self.ghost_bytes = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Watch:
    """Who wants to know when the first of some entries leaves."""

    keys: tuple[Hashable, ...]
    gone: Callable[[], object]


class _Count:
    """How many, and their bytes."""

    __slots__ = ("bytes", "number")

    def __init__(self) -> None:
        self.number = self.bytes = 0

    def add(self, nbytes: int) -> None:
        self.number += 1
        self.bytes += nbytes


class BlockCache:
    """Decoded blocks by key. Thread-safe; nothing here does I/O but the `make` given to :meth:`get_or_make`."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max(0, max_bytes)
        self._lock = threading.Lock()
        self._probation = _Segment()
        self._protected = _Segment()
        self._share = int(self._max * _FIRST_SHARE)
        self._flights: dict[Hashable, _Flight] = {}
        # Where blocks lie that are parts, and the names of the parts of what has them.
        self._places: dict[Hashable, tuple[Hashable, tuple[slice, ...]]] = {}
        self._parts: dict[Hashable, tuple[Hashable, ...]] = {}
        # Who wants to know when an entry leaves, by its name.
        self._watched: dict[Hashable, set[_Watch]] = {}
        # The uncommitted contents that places of branches have now, by place, and the place of each.
        self._current: dict[Hashable, Hashable] = {}
        self._homes: dict[Hashable, Hashable] = {}
        self._hits = self._misses = self._decoded = self._decoded_bytes = self._evicted = self._copied = 0
        # What was made ahead and nobody has asked for yet, and the bytes of each.
        self._unused: dict[Hashable, int] = {}
        self._prefetched, self._used, self._wasted = _Count(), _Count(), _Count()

    @property
    def max_bytes(self) -> int:
        return self._max

    def resize(self, max_bytes: int) -> None:
        """Change the bound; what is over it goes at once."""
        with self._lock:
            self._max = max(0, max_bytes)
            self._share = int(self._max * _FIRST_SHARE)
            self._shrink()

    def clear(self) -> None:
        """Forget every block. Counters stay."""
        with self._lock:
            for key in list(self._unused):
                self._wasted.add(self._unused.pop(key))
            self._probation.clear()
            self._protected.clear()
            self._places.clear()
            self._parts.clear()
            self._current.clear()
            self._homes.clear()
            for key in list(self._watched):
                self._tell(key)

    def stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(
                self._hits,
                self._misses,
                self._decoded,
                self._decoded_bytes,
                self._evicted,
                self._copied,
                self._prefetched.number,
                self._prefetched.bytes,
                self._used.number,
                self._used.bytes,
                self._wasted.number,
                self._wasted.bytes,
                len(self._probation.blocks) + len(self._protected.blocks),
                self._probation.bytes + self._protected.bytes,
                self._max,
            )

    def usage(self) -> Usage:
        with self._lock:
            blocks = len(self._probation.blocks) + len(self._protected.blocks)
            return Usage(blocks, self._max, self._probation.bytes + self._protected.bytes)

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return self._has_all((key,))

    def has_all(self, keys: Iterable[Hashable]) -> bool:
        """Whether all of the blocks are in memory (None is no block); counts as no reference to any."""
        with self._lock:
            return self._has_all(keys)

    def get(self, key: Hashable, *, scan: bool = False) -> Block | None:
        """The block if it is in memory. `scan`: this reference says nothing about a next one."""
        with self._lock:
            return self._find(key, scan)

    def peek(self, key: Hashable) -> Block | None:
        """The block if it is in memory; counts as no reference to it."""
        with self._lock:
            place = self._places.get(key)
            whole = key if place is None else place[0]
            block = self._protected.blocks.get(whole)
            if block is None:
                block = self._probation.blocks.get(whole)
            return block if place is None or block is None else block[place[1]]

    def get_all(self, keys: Sequence[Hashable], *, scan: bool = False) -> list[Block | None] | None:
        """All of the blocks, None for None, or None if one is missing (which then counts as no reference to any)."""
        with self._lock:
            if not self._has_all(keys):
                return None
            return [None if key is None else self._find(key, scan) for key in keys]

    def get_or_make(
        self,
        key: Hashable,
        make: Callable[[], Block],
        *,
        scan: bool = False,
        ahead: bool = False,
        parts: Callable[[], Parts] = dict,
        home: Callable[[], Home | None] = lambda: None,
    ) -> Block:
        """The block, made by `make` if it is not in memory, by one of the threads that ask for it at the same time.

        `parts` says which blocks are in it, `home` whose contents it is: what was there before leaves. `ahead`: nobody
        has asked for it yet, so it is neither hit nor miss. If `make` raises, its caller gets the error and the others
        make the block themselves.
        """
        while True:
            with self._lock:
                block = self._find(key, scan, ahead)
                if block is not None:
                    return block
                flight = self._flights.get(key)
                if flight is None:
                    mine = self._flights[key] = _Flight()
                    self._misses += not ahead
                    break
            flight.done.wait()
            if flight.block is not None:
                if not ahead:
                    with self._lock:
                        self._asked(key)
                return flight.block
        try:
            mine.block = make()
            self._insert(key, mine.block, parts(), ahead, home())
        finally:
            with self._lock:
                del self._flights[key]
            mine.done.set()
        return mine.block

    def watch(self, keys: Sequence[Hashable], gone: Callable[[], object]) -> bool:
        """Have ``gone`` called when the first of some entries leaves. It must be quick, and not use the cache.

        False, and nothing is watched, if one of them is not an entry now: it has left, or is part of a larger one.
        """
        with self._lock:
            if not all(key in self._protected.blocks or key in self._probation.blocks for key in keys):
                return False
            watch = _Watch(tuple(keys), gone)
            for key in keys:
                self._watched.setdefault(key, set()).add(watch)
            return True

    def count_decoded(self, nbytes: int, blocks: int = 1) -> None:
        """Note that blocks were decoded, of so many bytes in all."""
        with self._lock:
            self._decoded += blocks
            self._decoded_bytes += nbytes

    def count_copied(self, nbytes: int) -> None:
        """Note that so many bytes of blocks went to somebody who asked."""
        with self._lock:
            self._copied += nbytes

    def _asked(self, key: Hashable) -> None:
        """Somebody found what they asked for."""
        self._hits += 1
        if self._unused and key in self._unused:
            self._used.add(self._unused.pop(key))

    def _has_all(self, keys: Iterable[Hashable]) -> bool:
        protected, probation, places = self._protected.blocks, self._probation.blocks, self._places
        return all(key in protected or key in probation or key is None or key in places for key in keys)

    def _find(self, key: Hashable, scan: bool, ahead: bool = False) -> Block | None:
        block = self._protected.blocks.get(key)
        if block is not None:
            if not scan:
                self._protected.blocks.move_to_end(key)
            if not ahead:
                self._asked(key)
            return block
        block = self._probation.blocks.get(key)
        if block is None:
            place = self._places.get(key)
            whole = None if place is None else self._find(place[0], scan, ahead)
            return None if whole is None or place is None else whole[place[1]]
        if not ahead:
            self._asked(key)
        if scan:
            self._probation.blocks.move_to_end(key)
        else:
            self._protected.add(key, *self._probation.take(key))
        return block

    def _insert(self, key: Hashable, block: Block, parts: Parts, ahead: bool, home: Home | None) -> None:
        block.flags.writeable = False  # it is handed to many readers
        with self._lock:
            if home is not None and (before := self._current.get(home[0], key)) != key:
                self._drop(before)
            cost = _OVERHEAD + block.nbytes + _PART_OVERHEAD * len(parts)
            if cost > self._max or key in self._probation.blocks or key in self._protected.blocks:
                return
            if ahead:
                self._unused[key] = block.nbytes
                self._prefetched.add(block.nbytes)
            if lost := self._probation.lay(key):
                self._share = min(int(self._max * _LARGEST_SHARE), self._share + lost)
                self._probation.add(key, block, cost)
            elif lost := self._protected.lay(key):
                self._share = max(0, self._share - lost)
                self._protected.add(key, block, cost)
            else:
                self._probation.add(key, block, cost)
            if parts:
                self._parts[key] = tuple(parts)
                self._places.update((part, (key, place)) for part, place in parts.items())
            if home is not None and home[1]:
                self._current[home[0]], self._homes[key] = key, home[0]
            self._shrink()

    def _shrink(self) -> None:
        while (held := self._probation.bytes + self._protected.bytes) > self._max and held:
            over = self._probation.bytes > self._share or not self._protected.blocks
            gone = (self._probation if over else self._protected).evict(self._max)
            self._evicted += 1
            self._forget(gone)

    def _drop(self, key: Hashable) -> None:
        """Let go of what will not be asked for again."""
        for segment in (self._probation, self._protected):
            if key in segment.blocks:
                segment.take(key)
            segment.lay(key)
        self._forget(key)

    def _forget(self, gone: Hashable) -> None:
        """Forget what was known of an entry that left."""
        if self._watched:
            self._tell(gone)
        for part in self._parts.pop(gone, ()):
            if part in self._places and self._places[part][0] == gone:  # and not in a later one
                del self._places[part]
        place = self._homes.pop(gone, None)
        if place is not None and self._current.get(place) == gone:
            del self._current[place]
        if gone in self._unused:
            self._wasted.add(self._unused.pop(gone))

    def _tell(self, gone: Hashable) -> None:
        """Tell those who watch an entry that it has left."""
        for watch in self._watched.pop(gone, ()):
            for key in watch.keys:
                if key != gone:
                    watches = self._watched[key]
                    watches.discard(watch)
                    if not watches:
                        del self._watched[key]
            watch.gone()
