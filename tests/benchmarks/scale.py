"""P11, P16: what must not grow. Memory with what is browsed, and the cost of a lookup with history."""

from __future__ import annotations

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
        assert entries > bench.scale.grid**3
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
            pair = []
            for built in (many, less):
                times = bench_index.lookup_times(built, bench_index.queries(built, "tip", "hot", count, seed))
                pair.append((statistics.median(times), float(np.quantile(times, 0.99))))
            pairs.append(pair)
        kinds = [[one[i] / other[i] for one, other in pairs] for i in range(2)]
    what = f"lookup of a chunk at the tip, {scale.versions:,} versions ÷ {few.versions:,}"
    yield Ratio("P16", f"{what}, median (time)", statistics.median(kinds[0]), at_most(1.5), kinds[0])
    yield Ratio("P16", f"{what}, p99 (time)", statistics.median(kinds[1]), at_most(3.0), kinds[1])
