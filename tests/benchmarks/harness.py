"""What every measure shares: sizes, runs in turn, cold caches, and what a result is.

Decided here: the two sides of a measure run in turn (A B A B), and what counts is the ratio of their medians; a result
is a ratio with its bar, never a time. Not here: the data (:mod:`~tests.benchmarks.data`), the programs compared with
(:mod:`~tests.benchmarks.peers`), and the page that is written (:mod:`~tests.benchmarks.page`).
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from volfs.testing.kit import mounted


@dataclass(frozen=True, slots=True)
class Scale:
    """How large everything is."""

    runs: int
    em: tuple[int, int, int]
    """The u8 volume, (z, y, x); x a power of two, so that 64 KiB are whole rows."""
    small: tuple[int, int, int]
    """A u8 volume of few planes: slices of 1 MiB along z, of 128 KiB along y and x."""
    reread: tuple[int, int, int]
    """The volume whose slices are read again: slices of 4 MiB, as microscopes make them."""
    light_sheet: tuple[int, int, int, int, int]
    labels: tuple[int, int, int]
    new_array: tuple[int, int, int]
    """What is imported, and written into a branch."""
    planes: int
    """Of a stack of small slices that is listed and stat'ed."""
    grid: tuple[int, int, int]
    """Chunks along z, y, x of the store of many chunks. A slice crosses about as many as the first read of
    one does in a volume of as many chunks of 64³, whose first rows cross a few hundred of them."""
    versions: int
    reads: int
    changed: int
    """Chunks in a large commit."""
    virtual: int
    """Edge of the volume that is almost all fill value."""
    stored: int
    """Chunks of it that are not."""
    index: str
    """Which scale of :mod:`~tests.benchmarks.bench_index`."""


SCALES = {
    "full": Scale(
        runs=3,
        em=(512, 1024, 1024),
        small=(128, 1024, 1024),
        reread=(128, 2048, 2048),
        light_sheet=(3, 2, 64, 512, 512),
        labels=(128, 256, 512),
        new_array=(256, 512, 512),
        planes=10_000,
        grid=(2500, 20, 20),
        versions=10_000,
        reads=10_000,
        changed=100_000,
        virtual=10_000,
        stored=1_500,
        index="FULL",
    ),
    "quick": Scale(
        runs=2,
        em=(192, 256, 512),
        small=(64, 256, 512),
        reread=(32, 2048, 2048),
        light_sheet=(2, 2, 64, 128, 128),
        labels=(64, 128, 256),
        new_array=(128, 256, 256),
        planes=2_000,
        grid=(160, 20, 20),
        versions=200,
        reads=2_000,
        changed=5_000,
        virtual=10_000,
        stored=200,
        index="QUICK",
    ),
    "tiny": Scale(
        runs=1,
        em=(64, 128, 128),
        small=(16, 64, 64),
        reread=(8, 256, 256),
        light_sheet=(2, 1, 16, 64, 64),
        labels=(16, 64, 64),
        new_array=(64, 64, 64),
        planes=100,
        grid=(8, 8, 8),
        versions=5,
        reads=50,
        changed=50,
        virtual=2_000,
        stored=5,
        index="TINY",
    ),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """What a ratio should be: "at least" or "at most" a value."""

    sense: str
    value: float

    def met(self, ratio: float) -> bool:
        return ratio >= self.value if self.sense == "at least" else ratio <= self.value

    def margin(self, ratio: float) -> float:
        """Above 1 where the bar is met, by that factor."""
        return ratio / self.value if self.sense == "at least" else self.value / max(ratio, 1e-9)


def at_least(value: float) -> Bar:
    return Bar("at least", value)


def at_most(value: float) -> Bar:
    return Bar("at most", value)


@dataclass(frozen=True, slots=True)
class Ratio:
    """One result. Without a bar it is there to be compared with."""

    measure: str
    what: str
    value: float
    bar: Bar | None = None
    runs: list[float] = field(default_factory=list)
    """The ratio of each pair of runs: how far they lie apart says how far to trust the median."""


Times = tuple[list[float], list[float]]


class Bench:
    """One run of the suite: where it may write, and how large it is. Makes its data on first use."""

    def __init__(self, root: Path, scale: Scale) -> None:
        self.root = root
        self.scale = scale
        self._made: dict[str, Path] = {}
        self._mounts = 0

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """What ``make`` builds at a path, built once."""
        if name not in self._made:
            path = self.root / name
            make(path)
            self._made[name] = path
        return self._made[name]

    @contextmanager
    def mounted(
        self, store: Path, *, cold: bool = True, cache_size: int | None = None, read_only: bool = False
    ) -> Iterator[Path]:
        """A fresh daemon; with ``cold``, on an empty page cache. ``read_only``: as one mounts to look at data."""
        if cold:
            drop_caches()
        self._mounts += 1
        with mounted(store, self.root / f"mnt{self._mounts}", cache_size=cache_size, read_only=read_only) as place:
            yield place

    def in_turn(
        self, ours: Callable[[], list[float]], theirs: Callable[[], list[float]], runs: int | None = None
    ) -> list[Times]:
        """Run both, A B A B. Each answers seconds of one or more passes; the result has the times of each pass."""
        pairs = [(ours(), theirs()) for _ in range(runs or self.scale.runs)]
        return [([a[i] for a, _ in pairs], [b[i] for _, b in pairs]) for i in range(len(pairs[0][0]))]

    def note(self, text: str) -> None:
        print(f"  ({text})", file=sys.stderr, flush=True)


def faster(measure: str, what: str, times: Times, bar: Bar | None = None) -> Ratio:
    """Throughput of ours ÷ theirs on the same work: above 1, volfs is faster."""
    ours, theirs = times
    each = [b / a for a, b in zip(ours, theirs, strict=True)]
    return Ratio(measure, what, statistics.median(theirs) / statistics.median(ours), bar, each)


def longer(measure: str, what: str, times: Times, bar: Bar | None = None) -> Ratio:
    """Time of ours ÷ theirs: below 1, volfs is faster."""
    ours, theirs = times
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Ratio(measure, what, statistics.median(ours) / statistics.median(theirs), bar, each)


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def read_files(paths: Iterable[Path]) -> int:
    """Read every file whole, as a viewer that steps through a stack does. The bytes."""
    return sum(len(path.read_bytes()) for path in paths)


def files_of(directory: Path) -> list[Path]:
    return [directory / name for name in sorted(os.listdir(directory))]


def files_below(directory: Path) -> list[Path]:
    return sorted(Path(at) / name for at, _, names in os.walk(directory) for name in names)


def drop_caches() -> None:
    """Empty the kernel's page cache where we may, so that *cold* means it."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        _complain()


@cache
def _complain() -> None:
    print("(only root can drop the page cache: cold figures are warm on disk)", file=sys.stderr)


# --- the measures, by name ---

Run = Callable[[Bench], Iterable[Ratio]]


@dataclass(frozen=True, slots=True)
class Measure:
    name: str
    title: str
    run: Run


MEASURES: dict[str, Measure] = {}


def measure(name: str, title: str) -> Callable[[Run], Run]:
    """Register a function as the measure of that name."""

    def register(run: Run) -> Run:
        MEASURES[name] = Measure(name, title, run)
        return run

    return register
