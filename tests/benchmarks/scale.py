"""P11, P16: what must not grow. Memory with what is browsed, and the cost of a lookup with history."""

from __future__ import annotations

import math
import os
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.benchmarks import bench_index, data
from tests.benchmarks.harness import Bench, Ratio, at_most, measure
from volfs.testing.kit import daemon_pid

CACHE = 256 << 20
FIXED = 200 * 10**6


@measure("P11", "memory")
def memory(bench: Bench) -> Iterable[Ratio]:
    """Half of the reads fall on stored chunks, several times what the cache holds; half on nothing but fill value."""
    store = data.many_chunks_store(bench)
    edge = bench.scale.virtual
    pick = np.random.default_rng(8)
    corners = [np.array(cell) * data.CHUNK[0] for cell in data.stored_cells(bench)]
    with bench.mounted(store, cache_size=CACHE) as mount:
        entries = sum(
            len(dirs) + len(files)
            for _, dirs, files in os.walk(mount / "many" / "versions" / "v1" / "zarr" / "s0" / "c")
        )
        assert entries > math.prod(bench.scale.grid)
        fd = os.open(mount / "huge" / "versions" / "v1" / "s0" / "volume.raw", os.O_RDONLY)
        for number in range(bench.scale.reads):
            if number % 2:
                z, y, x = (int(n) for n in corners[int(pick.integers(len(corners)))])
                offset = (z * edge + y) * edge + x
            else:
                offset = int(pick.integers(0, edge**3 - 4096))
            assert len(os.pread(fd, 4096, offset)) == 4096
        os.close(fd)
        peak = _peak(daemon_pid(mount))
    what = f"peak memory, {entries:,} entries walked, {bench.scale.reads:,} reads ÷ (cache + 200 MB)"
    yield Ratio("P11", what, peak / (CACHE + FIXED), at_most(1.0))


def _peak(pid: int) -> int:
    """The most memory that a process had resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("Linux says how much memory a process had")


@measure("P16", "lookups in a long history")
def lookups(bench: Bench) -> Iterable[Ratio]:
    """Chunks of the hot blocks at the tips of all branches, as reads look them up; what the first one in a block of a
    version costs, where the block is resolved; and one chunk asked of SQLite by itself, with nothing remembered."""
    count = max(bench.scale.reads // 2, 100)
    scale = getattr(bench_index, bench.scale.index)
    few = getattr(bench_index, "FEW" if bench.scale.index == "FULL" else f"{bench.scale.index}_FEW")
    with (
        tempfile.TemporaryDirectory(dir=bench.root) as folder,
        bench_index.built(Path(folder) / "many.sqlite", scale) as many,
        bench_index.built(Path(folder) / "few.sqlite", few) as less,
    ):
        pairs = []
        for seed in range(bench.scale.runs):
            sides = [_Side(built, bench_index.queries(built, "tip", "hot", count, seed)) for built in (many, less)]
            # In short turns, so that what else the machine does falls on both.
            for look in (_Side.as_read, _Side.alone):
                for start in range(0, count, _TURN):
                    for side in sides:
                        look(side, start)
            pairs.append([side.figures() for side in sides])
    what = f"lookup of a chunk at the tip, {scale.versions:,} versions ÷ {few.versions:,}"
    names = ("median", "p99", "the first in an index block, median", "by itself in SQLite, median", "the same, p99")
    bars = (at_most(1.5), at_most(3.0), None, None, None)
    for place, (name, bar) in enumerate(zip(names, bars, strict=True)):
        runs = [one[place] / other[place] for one, other in pairs]
        yield Ratio("P16", f"{what}, {name} (time)", statistics.median(runs), bar, runs)


_TURN = 100


class _Side:
    """The lookups of one of the two catalogs."""

    def __init__(self, built: bench_index.Built, asked: list[bench_index.Query]) -> None:
        self._asked = asked
        self._as_read = bench_index.as_read(built)
        self._alone = bench_index.one_by_one(built)
        blocks = list({query[:2]: query for query in asked}.values())
        bench_index.times(self._alone, asked[:50])  # names of files are in memory from here on
        self._first = bench_index.times(self._as_read, blocks)
        self._again: list[float] = []
        self._single: list[float] = []

    def as_read(self, start: int) -> None:
        self._again += bench_index.times(self._as_read, self._asked[start : start + _TURN])

    def alone(self, start: int) -> None:
        self._single += bench_index.times(self._alone, self._asked[start : start + _TURN])

    def figures(self) -> list[float]:
        again, single = np.array(self._again), np.array(self._single)
        return [
            float(np.median(again)),
            float(np.quantile(again, 0.99)),
            statistics.median(self._first),
            float(np.median(single)),
            float(np.quantile(single, 0.99)),
        ]
