"""Statistics of mounts, read by another process, and rates from two readings.

Decided here: how a mount is read so that one that hangs holds nothing up, and how its counters become rates. Not here:
the facts (:mod:`volfs.tree.monitoring.statistics`), and how they are printed (:mod:`volfs.cli.monitoring`).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volfs.errors import NotFound
from volfs.fuse.mountpoints import PATIENCE_SECONDS
from volfs.storage.mount_table import canonical, mounted_at, mounts
from volfs.tree.contract.meter import BOUNDS, bound_text, quantile

Facts = Mapping[str, Any]

_NAMES = [bound_text(bound) for bound in BOUNDS]


def watched(mountpoints: tuple[Path, ...]) -> list[Path]:
    """The given mounts, or all volfs mounts of this machine. Raises NotFound if one is none."""
    for place in mountpoints:
        mounted = mounted_at(place)
        if mounted is None or not mounted.is_volfs:
            raise NotFound(f"{place}: no volfs mount is here")
    return [canonical(place) for place in mountpoints] or sorted({m.mountpoint for m in mounts() if m.is_volfs})


@dataclass(frozen=True, slots=True)
class Operation:
    """Requests of one kind that were answered in some time. Times are in seconds; of none they are 0."""

    count: int
    per_second: float
    mean_seconds: float
    p50_seconds: float
    p99_seconds: float


@dataclass(frozen=True, slots=True)
class Activity:
    """The work of a mount in so many ``seconds``, and its state at their end. Shares are from 0 to 1, or None where
    nothing happened that could have a share."""

    mountpoint: str
    seconds: float
    operations: dict[str, Operation]
    errors: int
    failed: int
    read_bytes_per_second: float
    written_bytes_per_second: float
    payloads_per_second: float
    decoded_bytes_per_second: float
    cache_hit_share: float | None
    prefetch_used_share: float | None
    statements_per_second: float
    cpu_share: float
    facts: Facts = field(repr=False)

    @property
    def requests_per_second(self) -> float:
        return sum(one.per_second for one in self.operations.values())


@dataclass(frozen=True, slots=True)
class Silence:
    """A mount that gave no answer, and why."""

    mountpoint: str
    error: str


class Watch:
    """One mount that is read again and again."""

    def __init__(self, mountpoint: Path, patience: float = PATIENCE_SECONDS) -> None:
        self.mountpoint = mountpoint
        self._patience = patience
        self._asking: threading.Thread | None = None
        self._answer: Facts | Exception | None = None
        self._before: tuple[float, Facts] | None = None

    def facts(self) -> Facts:
        """The facts of the mount now. Raises OSError or ValueError; TimeoutError if it does not answer in time."""
        if self._asking is None:
            self._answer = None
            # A thread, because nothing else can leave a read that hangs. One at most, however often it is asked.
            self._asking = threading.Thread(target=self._ask, daemon=True)
            self._asking.start()
        self._asking.join(self._patience)
        if self._asking.is_alive():
            raise TimeoutError(f"no answer within {self._patience:g} seconds")
        self._asking = None
        if isinstance(self._answer, Exception):
            raise self._answer
        assert self._answer is not None
        return self._answer

    def look(self) -> Activity | Silence:
        """The work of the mount since the last reading; at the first, since it began."""
        before, self._before = self._before, None
        try:
            facts, at = self.facts(), time.monotonic()
            if before is None or before[1]["started"] != facts["started"]:
                done = activity(facts)
            else:
                done = activity(facts, before[1], at - before[0])
        except OSError as error:
            return Silence(str(self.mountpoint), error.strerror or str(error))
        except (ValueError, KeyError, TypeError):
            return Silence(str(self.mountpoint), "its statistics are not of this version of volfs")
        self._before = at, facts
        return done

    def _ask(self) -> None:
        try:
            self._answer = json.loads((self.mountpoint / ".volfs" / "stats.json").read_bytes())
        except (OSError, ValueError) as error:
            self._answer = error


def activity(now: Facts, before: Facts | None = None, seconds: float = 0.0) -> Activity:
    """The work between two readings, ``seconds`` apart; without an earlier one, since the mount began."""
    if before is None:
        seconds = time.time() - now["started"]
    seconds = max(seconds, 1e-3)

    def grown(*path: str) -> float:
        return _fact(now, path) - (_fact(before, path) if before is not None else 0)

    hits, misses = grown("cache", "hits"), grown("cache", "misses")
    used, wasted = grown("cache", "prefetch_used_bytes"), grown("cache", "prefetch_wasted_bytes")
    return Activity(
        mountpoint=str(now["mountpoint"]),
        seconds=seconds,
        operations={
            name: found
            for name, latency in now["latency"].items()
            if (found := _operation(latency, (before or {}).get("latency", {}).get(name), seconds)).count
        },
        errors=_errors(now) - (_errors(before) if before is not None else 0),
        failed=int(grown("failed")),
        read_bytes_per_second=grown("bytes", "read") / seconds,
        written_bytes_per_second=grown("bytes", "written") / seconds,
        payloads_per_second=grown("decoded", "payloads") / seconds,
        decoded_bytes_per_second=grown("decoded", "bytes") / seconds,
        cache_hit_share=_share(hits, misses),
        prefetch_used_share=_share(used, wasted),
        statements_per_second=(grown("statements", "catalog") + grown("statements", "inodes")) / seconds,
        cpu_share=grown("cpu_seconds") / seconds,
        facts=now,
    )


def _operation(now: Facts, before: Facts | None, seconds: float) -> Operation:
    buckets = [now["buckets"].get(name, 0) - (before["buckets"].get(name, 0) if before else 0) for name in _NAMES]
    count = sum(buckets)
    spent = now["seconds"] - (before["seconds"] if before else 0)
    return Operation(
        count, count / seconds, spent / count if count else 0.0, quantile(buckets, 0.50), quantile(buckets, 0.99)
    )


def _fact(facts: Facts, path: tuple[str, ...]) -> float:
    value: Any = facts
    for step in path:
        value = value[step]
    return float(value)


def _errors(facts: Facts) -> int:
    return sum(count for names in facts["errors"].values() for count in names.values())


def _share(good: float, other: float) -> float | None:
    return good / (good + other) if good + other else None


class Rounds:
    """Reads mounts every so many seconds, without end; without names, all that there are at the time."""

    def __init__(
        self, mountpoints: tuple[Path, ...], seconds: float, wait: Callable[[float], object] = time.sleep
    ) -> None:
        self._named = mountpoints
        self._seconds = seconds
        self._wait = wait
        self._watches: dict[Path, Watch] = {}
        self._look()

    def __iter__(self) -> Rounds:
        return self

    def __next__(self) -> list[Activity | Silence]:
        self._wait(self._seconds)
        return self._look()

    def _look(self) -> list[Activity | Silence]:
        places = watched(self._named)
        self._watches = {place: self._watches.get(place) or Watch(place) for place in places}
        return [watch.look() for watch in self._watches.values()]
