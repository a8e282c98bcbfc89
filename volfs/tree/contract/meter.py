"""The requests of a mount: their counts, the time until their answers, and those that are under way.

Decided here: which numbers are kept of a request, and the resolution of its time. A protocol adapter counts, because it
knows when a request arrives and when it is answered. Not here: the files with these numbers
(:mod:`volfs.tree.monitoring.statistics`), and the contents of the cache (:mod:`volfs.volume.cache`).

Counting costs about a microsecond per request: one entry of a dictionary that comes and goes, two clocks, one bucket.
So times go into buckets at once. Their bounds are powers of two nanoseconds, which a number's bit length finds.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

#: The first bucket takes all that took up to 2^12 ns (4 µs), the last but one up to 2^36 ns (69 s), the last the rest.
_FIRST, _LAST = 12, 36
BUCKETS = _LAST - _FIRST + 2
#: Seconds that a request of each bucket took at most.
BOUNDS: tuple[float, ...] = (*((1 << power) / 1e9 for power in range(_FIRST, _LAST + 1)), float("inf"))


class Request(NamedTuple):
    """A request that is not answered yet. ``since`` is of ``time.monotonic``."""

    operation: str
    arguments: tuple[object, ...]
    since: float


class Histogram:
    """Durations of one kind of request: the number in each bucket of :data:`BOUNDS`, and the sum (ns)."""

    __slots__ = ("buckets", "nanoseconds")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.nanoseconds = 0

    def add(self, nanoseconds: int) -> None:
        self.nanoseconds += nanoseconds
        power = (nanoseconds - 1).bit_length()
        self.buckets[0 if power < _FIRST else (power - _FIRST if power <= _LAST else BUCKETS - 1)] += 1

    @property
    def count(self) -> int:
        return sum(self.buckets)


def bound_text(bound: float) -> str:
    """A bucket's bound as JSON and Prometheus name it."""
    return "+Inf" if bound == BOUNDS[-1] else f"{bound:.12g}"


def quantile(buckets: Sequence[float], share: float) -> float:
    """The time in seconds that ``share`` of the requests did not exceed: the upper bound of the bucket in which that
    one is; of the endless last one, the lower. 0 if there were none.
    """
    wanted, seen = sum(buckets) * share, 0.0
    for bound, count in zip(BOUNDS[:-1], buckets, strict=False):
        seen += count
        if count and seen >= wanted:
            return bound
    return BOUNDS[-2] if sum(buckets) else 0.0


#: Bytes read; bytes of voxels copied for that; bytes written; by operation: answers, nanoseconds, and the answers in
#: each bucket.
Counts = tuple[int, int, int, dict[str, tuple[int, int, list[int]]]]


class Meter:
    """One per tree. Counted on the tree's thread; may be read from any other.

    ``elsewhere``: the counts, since the start, of requests that are answered without this one's knowledge;
    :meth:`gather` takes them in. ``waiting``: those that are not answered yet: operation, what it is of, since when
    (ns). ``ahead``: files, and their bytes, that the kernel was given before anybody asked for them.
    """

    def __init__(
        self,
        elsewhere: Callable[[], Counts] | None = None,
        waiting: Callable[[], list[tuple[str, int, int]]] = list,
        ahead: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        self._elsewhere = elsewhere
        self._waiting = waiting
        self.ahead = ahead
        self._gathered: Counts = (0, 0, 0, {})
        self._gathering = threading.Lock()
        #: By operation: those that have come.
        self.requests: Counter[str] = Counter()
        #: By operation: those that were answered.
        self.times: dict[str, Histogram] = {}
        #: By operation and errno: those that were answered with an error.
        self.errors: Counter[tuple[str, int]] = Counter()
        #: Those whose error was the machine's or the store's fault, not the caller's.
        self.failed = 0
        self.bytes_read = 0
        self.bytes_written = 0
        self._number = 0
        self._in_flight: dict[int, tuple[str, tuple[object, ...], int]] = {}

    def begin(self, operation: str, arguments: tuple[object, ...]) -> int:
        """Record that a request arrived. Returns the number that :meth:`end` takes."""
        self.requests[operation] += 1
        self._number = number = self._number + 1
        self._in_flight[number] = operation, arguments, time.monotonic_ns()
        return number

    def end(self, number: int) -> None:
        """Record that the request was answered."""
        operation, _, since = self._in_flight.pop(number)
        times = self.times.get(operation)
        if times is None:
            times = self.times[operation] = Histogram()
        times.add(time.monotonic_ns() - since)

    def gather(self) -> None:
        """Take in what was answered elsewhere since the last time: before counts are looked at."""
        if self._elsewhere is None:
            return
        with self._gathering:
            (read_before, _, written_before, before), now = self._gathered, self._elsewhere()
            self._gathered = now
            self.bytes_read += now[0] - read_before
            self.bytes_written += now[2] - written_before
            for operation, (answers, nanoseconds, buckets) in now[3].items():
                known = before.get(operation, (0, 0, [0] * len(buckets)))
                if answers > known[0]:
                    self.requests[operation] += answers - known[0]
                    times = self.times.setdefault(operation, Histogram())
                    times.nanoseconds += nanoseconds - known[1]
                    times.buckets = [a + b - c for a, b, c in zip(times.buckets, buckets, known[2], strict=True)]

    @property
    def copied_elsewhere(self) -> int:
        """Bytes of voxels that were copied for the answers given elsewhere."""
        return self._gathered[1]

    def elsewhere(self) -> Counter[str]:
        """By operation: those of the answers that were given elsewhere."""
        return Counter({operation: answers for operation, (answers, *_) in self._gathered[3].items()})

    def in_flight(self) -> list[Request]:
        """The requests that are not answered yet."""
        waiting = [*self._in_flight.copy().values(), *((what, (of,), since) for what, of, since in self._waiting())]
        return [Request(operation, arguments, since / 1e9) for operation, arguments, since in waiting]

    def errors_by_operation(self) -> dict[str, dict[str, int]]:
        """The number of errors by operation and name of the error: ``{"open": {"EACCES": 2}}``."""
        found: dict[str, dict[str, int]] = {}
        for (operation, number), count in sorted(self.errors.copy().items()):
            found.setdefault(operation, {})[errno.errorcode.get(number, os.strerror(number))] = count
        return found
