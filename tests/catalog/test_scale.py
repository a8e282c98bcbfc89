"""The index at scale, by counting what lookups ask of SQLite: never by time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks import bench_index
from tests.benchmarks.bench_index import Built, Scale, built, queries, work
from volfs.catalog import Catalog, NodeShape
from volfs.catalog.lineages import SEEKS
from volfs.catalog.schema import HOP, MAX_STEPS
from volfs.model.graph import VersionInfo
from volfs.storage.manifest import ManifestBuilder
from volfs.storage.payload import Payload

FIND = SEEKS + 2
"""Misses beside the chain, the list of lineages and the seek after it: each answered twice, by one statement."""
PROVE = 2
"""The walk that proves the rows from the newest on, and the payload."""
STATEMENTS = FIND + PROVE + MAX_STEPS // (1 + HOP)
"""And hops along the chain."""
MACHINE_STEPS = 1200
"""Instructions of SQLite's virtual machine: about 25 per row passed over, 60 per statement."""


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    with built(tmp_path_factory.mktemp("index") / "catalog.sqlite", bench_index.QUICK) as bench:
        yield bench


@pytest.mark.parametrize("kind", ["tip", "old"])
@pytest.mark.parametrize("where", ["hot", "cold", "sparse"])
def test_no_lookup_asks_more_than_a_few_statements(quick: Built, kind: str, where: str) -> None:
    counted = work(quick, queries(quick, kind, where, 300))
    assert counted.statements <= STATEMENTS
    assert counted.machine_steps <= MACHINE_STEPS


def test_no_walk_down_a_block_is_longer_than_the_bound(quick: Built) -> None:
    cx = quick.catalog._cx()
    assert cx.execute("SELECT max(steps) FROM block").fetchone()[0] <= MAX_STEPS
    owners, rows = cx.execute("SELECT count(owners), count(*) FROM block WHERE block = zeroblob(12)").fetchone()
    assert 0 < owners < rows / 4


def test_ten_times_the_history_asks_for_no_more(tmp_path: Path) -> None:
    worst = []
    for versions in (60, 600):
        scale = Scale(versions, 6, versions * 10)
        with built(tmp_path / f"{versions}.sqlite", scale) as bench:
            worst.append(work(bench, queries(bench, "tip", "hot", 200)))
    assert worst[1].statements <= STATEMENTS
    assert worst[1].machine_steps <= max(worst[0].machine_steps * 1.5, MACHINE_STEPS)


def test_a_branch_that_merged_hundreds_of_times_is_looked_up_as_fast_as_a_young_one(tmp_path: Path) -> None:
    """Every abandoned side branch takes the lineage that main was on, so main's chain is hundreds of lineages long."""
    shape = NodeShape((4,))
    with Catalog.open(tmp_path / "catalog.sqlite", create=True) as catalog:
        dataset = catalog.add_dataset("cells", 0)

        def commit(number: int, parent: int, cells: list[int]) -> None:
            builder = ManifestBuilder()
            if not parent:
                builder.put("zarr/zarr.json", Payload("1/zarr.json", 0, 1, 0), bytes(32))
                builder.put("files/note", Payload("1/note", 0, 1, 0), bytes(32))
            for cell in cells:
                builder.put_chunk("", (cell,), Payload(f"{number}/c", 0, 1, number), bytes(32))
            if parent and cells:
                builder.put("files/note", Payload(f"{number}/note", 0, 1, number), bytes(32))
            info = VersionInfo(number, (parent,) if parent else (), 0, 0, number, "", "", "")
            catalog.index_version(dataset, info, builder.build(), {} if parent else {"": shape})

        commit(1, 0, [0, 1])
        main, number = 1, 1
        for _ in range(300):
            commit(number + 1, main, [random.Random(number).randrange(4)])
            commit(number + 2, main, [])
            main, number = number + 2, number + 2
        graph = catalog.graph(dataset)
        at = graph.at(main)
        assert len(at.chain) == 301
        entry = catalog.entry(dataset, at, "zarr")
        assert entry is not None
        bench = Built(catalog, dataset, entry.dir_id, [main], Scale(0, 0, 0))
        counted = work(bench, [(at, (0,), cell) for cell in range(4)])
        found = [catalog.chunk(entry.dir_id, at, (0,), cell) for cell in range(4)]
        assert [one.version if one else 0 for one in found] == [1, 1, 0, 0]
        assert counted.statements <= FIND + PROVE
        statements: list[str] = []
        catalog._cx().set_trace_callback(statements.append)
        note = catalog.entry(dataset, at, "files/note")
        catalog._cx().set_trace_callback(None)
        assert note is not None and note.version == 1
        assert len(statements) <= 2 * FIND + 1


def test_a_listing_reads_a_few_rows_per_name_whatever_the_history(tmp_path: Path) -> None:
    def rows_stepped(versions: int) -> int:
        with Catalog.open(tmp_path / f"{versions}.sqlite", create=True) as catalog:
            dataset = catalog.add_dataset("cells", 0)
            for number in range(1, versions + 1):
                builder = ManifestBuilder()
                for i in range(20 if number == 1 else 5):
                    builder.put(f"files/{i}", Payload(f"{number}/{i}", 0, 1, number), bytes(32))
                info = VersionInfo(number, (number - 1,) if number > 1 else (), 0, 0, number, "", "", "")
                catalog.index_version(dataset, info, builder.build(), {})
            at = catalog.graph(dataset).at(versions)
            entry = catalog.entry(dataset, at, "files")
            assert entry is not None
            steps = 0

            def on_step() -> int:
                nonlocal steps
                steps += 1
                return 0

            catalog.list_entries(dataset, at, entry.dir_id)
            catalog._cx().set_progress_handler(on_step, 1)
            assert len(catalog.list_entries(dataset, at, entry.dir_id)) == 20
            catalog._cx().set_progress_handler(None, 0)
            return steps

    assert rows_stepped(400) <= 1.5 * rows_stepped(40)
