"""P16's data: a catalog of 10,000 versions, beside one of as many changes in 10 versions.

One array of 256³ chunks in index blocks of 8³. Version 1 writes 32³ of its chunks whole. Then 50 branches fork from
each other's versions as time goes on, and every version is committed on one of them; together they make 500,000 chunk
changes, half of them in five hot blocks, the others anywhere. Every version also changes two of 200 side files. All of
it goes through :meth:`Catalog.index_version`.

Chunks are looked up as reads look them up (:class:`volfs.versions.committed.lookups.Resolved`: a version's index block
is resolved whole and remembered), and one by one in SQLite, where :func:`work` counts the statements and the steps of
SQLite's machine that the worst lookup takes, which do not depend on the computer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volfs.catalog import Catalog, NodeShape
from volfs.model.bounded_map import Caches
from volfs.model.graph import At, VersionInfo
from volfs.storage.manifest import RECORD, ManifestBuilder, Op
from volfs.storage.payload import Payload
from volfs.versions.committed.lookups import Resolved

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


@contextmanager
def built(path: Path, scale: Scale) -> Iterator[Built]:
    """Fill a new catalog."""
    with Catalog.open(path, create=True) as catalog:
        dataset = catalog.add_dataset("bench", 0)
        tips = _fill(catalog, dataset, scale)
        entry = catalog.entry(dataset, catalog.graph(dataset).at(1), "zarr")
        assert entry is not None
        yield Built(catalog, dataset, entry.dir_id, tips, scale)


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


@dataclass(frozen=True, slots=True)
class _Seen:
    """As much of a version as :class:`Resolved` asks for."""

    at: At
    catalog: Catalog


Lookup = Callable[[Query], object]


def as_read(bench: Built) -> Lookup:
    """What looks a chunk up as a read does."""
    resolved = Resolved(Caches())

    def look(query: Query) -> object:
        at, block, cell = query
        found = resolved.block_map(_Seen(at, bench.catalog), bench.node, block)  # type: ignore[arg-type]
        return found.payload(cell) if found is not None and found.owner[cell] else None

    return look


def one_by_one(bench: Built) -> Lookup:
    """What asks the catalog for a chunk by itself."""
    return lambda query: bench.catalog.chunk(bench.node, *query)


def times(lookup: Lookup, asked: list[Query]) -> list[float]:
    """Seconds of each lookup."""
    taken = []
    for query in asked:
        start = time.perf_counter()
        lookup(query)
        taken.append(time.perf_counter() - start)
    return taken


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

    times(one_by_one(bench), asked)  # file names are in memory from here on
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
