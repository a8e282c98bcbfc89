"""The index at scale: lookups in 10,000 versions beside the same changes in 10 versions.

One array of 256³ chunks in index blocks of 8³. Version 1 writes 32³ of its chunks whole. Then 50 branches fork from
each other's versions as time goes on, and every version is committed on one of them; together they make 500,000 chunk
changes, half of them in five hot blocks, the others anywhere. Every version also changes two of 200 side files. All of
it goes through :meth:`Catalog.index_version`, and what is measured through the catalog's own lookups.

Printed: microseconds per lookup (median and 99th percentile) at branch tips and at old versions, in hot blocks, in
cold ones and where nothing ever was; whole hot blocks; the listing of the side files; the statements and the steps of
SQLite's machine that the worst lookup takes, which do not depend on the computer; and the size of the file.

    python -m tests.benchmarks.bench_index [--quick]
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volfs.catalog import Catalog, NodeShape
from volfs.model.graph import At, VersionInfo
from volfs.storage.manifest import RECORD, ManifestBuilder, Op
from volfs.storage.payload import Payload

GRID = 256
BLOCK = 8
DENSE = 32
HOT = ((0, 0, 0), (1, 2, 3), (3, 1, 0), (20, 4, 9), (31, 31, 31))
NAMES = 200


@dataclass(frozen=True, slots=True)
class Scale:
    versions: int
    branches: int
    changes: int


FULL = Scale(10_000, 50, 500_000)
FEW = Scale(10, 5, 500_000)
QUICK = Scale(400, 12, 20_000)
QUICK_FEW = Scale(10, 5, 20_000)
TINY = Scale(40, 6, 400)
TINY_FEW = Scale(10, 5, 400)


@dataclass(frozen=True, slots=True)
class Built:
    """A catalog filled to a scale."""

    catalog: Catalog
    dataset: int
    node: int
    tips: list[int]
    scale: Scale
    seconds: float


@contextmanager
def built(path: Path, scale: Scale) -> Iterator[Built]:
    """Fill a new catalog."""
    start = time.perf_counter()
    with Catalog.open(path, create=True) as catalog:
        dataset = catalog.add_dataset("bench", 0)
        tips = _fill(catalog, dataset, scale)
        entry = catalog.entry(dataset, catalog.graph(dataset).at(1), "zarr")
        assert entry is not None
        yield Built(catalog, dataset, entry.dir_id, tips, scale, time.perf_counter() - start)


def _fill(catalog: Catalog, dataset: int, scale: Scale) -> list[int]:
    pick = random.Random(1)
    numbers = np.random.default_rng(1)
    builder = ManifestBuilder()
    builder.put("zarr/zarr.json", Payload("00000001/zarr/zarr.json", 0, 100, 0), bytes(32))
    for i in range(NAMES):
        builder.put(_name(i), Payload(f"00000001/{_name(i)}", 0, 100, i), bytes(32))
    dense = np.stack(np.meshgrid(*[np.arange(DENSE)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    _put_chunks(builder, 1, dense)
    nodes = {"": NodeShape((BLOCK,) * 3)}
    catalog.index_version(dataset, _info(1, ()), builder.build(), nodes)
    tips = [1]
    per_version = scale.changes // scale.versions
    forks = set(pick.sample(range(2, scale.versions), min(scale.branches - 1, scale.versions - 2)))
    for number in range(2, scale.versions + 2):
        if number in forks:
            parent = pick.randint(max(1, number - 500), number - 1)
            tips.append(number)
        else:
            branch = pick.randrange(len(tips))
            parent = tips[branch]
            tips[branch] = number
        builder = ManifestBuilder()
        hot = np.array(HOT)[numbers.integers(0, len(HOT), per_version // 2)] * BLOCK
        hot = hot + numbers.integers(0, BLOCK, hot.shape)
        cold = numbers.integers(0, GRID, (per_version - len(hot), 3))
        _put_chunks(builder, number, np.unique(np.concatenate([hot, cold]), axis=0))
        for i in pick.sample(range(NAMES), 2):
            builder.put(_name(i), Payload(f"{number:08d}/{_name(i)}", 0, 100, i), bytes(32))
        catalog.index_version(dataset, _info(number, (parent,)), builder.build(), {})
    return tips


def _put_chunks(builder: ManifestBuilder, number: int, coords: NDArray[np.int64]) -> None:
    """Records as a commit makes them: a few shard files, chunks end to end."""
    records = np.zeros(len(coords), RECORD)
    records["op"] = Op.PUT
    records["ndim"] = 3
    records["name"] = builder.string("")
    records["chunk"][:, :3] = coords
    blocks = coords // BLOCK
    packed = blocks[:, 0] < 4
    records["file"] = [
        builder.string(f"{number:08d}/zarr/c/" + "/".join(map(str, block if shard else chunk)))
        for block, chunk, shard in zip(blocks.tolist(), coords.tolist(), packed.tolist(), strict=True)
    ]
    records["offset"] = np.where(packed, np.arange(len(coords)) * 150_000, 0)
    records["length"] = 150_000
    records["crc32c"] = np.arange(len(coords))
    builder.extend(records)


def _info(number: int, parents: tuple[int, ...]) -> VersionInfo:
    return VersionInfo(number, parents, 0, 0, number * 10**9, "bench", f"version {number}", f"{number:064x}")


def _name(i: int) -> str:
    return f"files/notes/{i:03d}.txt"


# --- what is looked up ---

Query = tuple[At, tuple[int, int, int], int]


def queries(bench: Built, kind: str, where: str, count: int, seed: int = 2) -> list[Query]:
    """Single-chunk lookups: ``where`` is "hot", "cold" (blocks once written whole) or "sparse" (anywhere)."""
    pick = random.Random(seed)
    graph = bench.catalog.graph(bench.dataset)
    versions = bench.tips if kind == "tip" else pick.sample(sorted(graph.versions), min(300, len(graph)))
    found: list[Query] = []
    for _ in range(count):
        at = graph.at(pick.choice(versions))
        if where == "hot":
            block = pick.choice(HOT)
        else:
            top = (DENSE if where == "cold" else GRID) // BLOCK
            block = (pick.randrange(top), pick.randrange(top), pick.randrange(top))
        found.append((at, block, pick.randrange(BLOCK**3)))
    return found


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1e6


def lookup_times(bench: Built, asked: list[Query]) -> list[float]:
    """Microseconds of each lookup."""
    chunk, node = bench.catalog.chunk, bench.node
    for at, block, cell in asked[:50]:
        chunk(node, at, block, cell)
    times = []
    for at, block, cell in asked:
        start = time.perf_counter()
        chunk(node, at, block, cell)
        times.append((time.perf_counter() - start) * 1e6)
    return times


@dataclass(frozen=True, slots=True)
class Work:
    """What the worst of some lookups asked of SQLite."""

    statements: int
    machine_steps: int


def work(bench: Built, asked: list[Query]) -> Work:
    """Count instead of time: statements, and instructions of SQLite's virtual machine."""
    connection = bench.catalog._cx()
    steps = statements = 0
    worst_steps = worst_statements = 0

    def on_step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def on_statement(_: str) -> None:
        nonlocal statements
        statements += 1

    lookup_times(bench, asked)  # file names are in memory from here on
    connection.set_progress_handler(on_step, 1)
    connection.set_trace_callback(on_statement)
    try:
        for at, block, cell in asked:
            steps = statements = 0
            bench.catalog.chunk(bench.node, at, block, cell)
            worst_steps, worst_statements = max(worst_steps, steps), max(worst_statements, statements)
    finally:
        connection.set_progress_handler(None, 0)
        connection.set_trace_callback(None)
    return Work(worst_statements, worst_steps)


# --- the report ---


def report(bench: Built, count: int) -> list[tuple[str, str]]:
    """Rows of the table."""
    rows = []
    for kind in ("tip", "old"):
        for where in ("hot", "cold", "sparse"):
            times = lookup_times(bench, queries(bench, kind, where, count))
            rows.append((f"one chunk, {kind}, {where}", _spread(times)))
    everything = [query for where in ("hot", "cold", "sparse") for query in queries(bench, "old", where, count // 4)]
    counted = work(bench, everything)
    rows.append(("worst lookup", f"{counted.statements} statements, {counted.machine_steps} steps"))
    maps = [
        timed(lambda at=at, block=block: bench.catalog.block_map(bench.node, at, block))  # type: ignore[misc]
        for at, block, _ in queries(bench, "old", "hot", 200)
    ]
    rows.append(("whole hot block", _spread(maps)))
    graph = bench.catalog.graph(bench.dataset)
    listings = []
    for number in bench.tips:
        at = graph.at(number)
        entry = bench.catalog.entry(bench.dataset, at, "files/notes")
        assert entry is not None
        listings.append(timed(lambda at=at, entry=entry: bench.catalog.list_entries(bench.dataset, at, entry.dir_id)))  # type: ignore[misc]
    rows.append((f"listing of {NAMES} names", _spread(listings)))
    at = graph.at(max(bench.tips))
    rows.append(
        ("newest change of all", f"{timed(lambda: list(bench.catalog.newest_changes(bench.node, at))) / 1e3:.0f} ms")
    )
    rows.append(("built in", f"{bench.seconds:.0f} s"))
    size = sum(file.stat().st_size for file in bench.catalog.path.parent.glob(bench.catalog.path.name + "*"))
    rows.append(("size", f"{size / 2**20:.0f} MiB"))
    return rows


def _spread(times: list[float]) -> str:
    ordered = sorted(times)
    return f"{statistics.median(ordered):7.1f} µs   p99 {ordered[int(len(ordered) * 0.99)]:7.1f} µs"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few hundred versions instead of 10,000")
    quick = parser.parse_args().quick
    scales = (QUICK, QUICK_FEW) if quick else (FULL, FEW)
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        for number, scale in enumerate(scales):
            with built(Path(folder) / f"{number}.sqlite", scale) as bench:
                tables.append(report(bench, 500 if quick else 5_000))
    heads = [f"{scale.versions:,} versions, {scale.branches} branches" for scale in scales]
    print(f"{scales[0].changes:,} chunk changes, half of them in {len(HOT)} blocks")
    print(f"{'':24}{heads[0]:36}{heads[1]}")
    for (what, first), (_, second) in zip(*tables, strict=True):
        print(f"{what:24}{first:36}{second}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
