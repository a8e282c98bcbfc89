"""Cost follows the data touched: payloads decoded and SQL statements, counted per operation. Never by time.

Statements are told by SQLite itself (its trace), not by the counters of `stats.json`, which are checked against it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import volfs
from tests.kits.cells import CELLS, CHUNKS, add, make_store
from tests.kits.trees import Client, run, serving
from volfs.catalog.connections import Connections
from volfs.model.box import Index
from volfs.storage.decode_list import DecodeList
from volfs.storage.payload import Payload, PayloadReader
from volfs.volume.image import image_at
from volfs.volume.volume_context import store_context

#: Asks whether anybody has written since; reads no table.
NEWS = "PRAGMA data_version"
BLOCKS = tuple(-(-n // c) for n, c in zip(CELLS.shape, CHUNKS, strict=True))
VERSION, BRANCH = "cells/versions/v2", "cells/branches/main"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("costs") / "store")


class Counts:
    """Queries, payloads decoded, and payloads of chunks read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements: list[str] = []
        self.reads: list[int] = []
        connect, read, resident = Connections._connect, PayloadReader.read, PayloadReader.read_resident
        add = DecodeList.add

        def traced(connections: Connections) -> object:
            connection = connect(connections)
            connection.set_trace_callback(self.statements.append)
            return connection

        def noted(reader: PayloadReader, payload: Payload, *where: int) -> bytes:
            if "/c/" in payload.file:
                self.reads.append(payload.length)
            return read(reader, payload, *where)

        monkeypatch.setattr(Connections, "_connect", traced)

        def noted_resident(reader: PayloadReader, payload: Payload) -> memoryview | None:
            data = resident(reader, payload)
            if data is not None and "/c/" in payload.file:
                self.reads.append(payload.length)
            return data

        def noted_in_list(chunks: DecodeList, reader: PayloadReader, payload: Payload, start: Index) -> bool:
            self.reads.append(payload.length)
            return add(chunks, reader, payload, start)

        monkeypatch.setattr(DecodeList, "add", noted_in_list)
        monkeypatch.setattr(PayloadReader, "read", noted)
        monkeypatch.setattr(PayloadReader, "read_resident", noted_resident)
        self.client: Client

    @asynccontextmanager
    async def serving(self, store: Path, **options: object):  # type: ignore[no-untyped-def]
        async with serving(store, **options) as self.client:
            self.context = store_context(self.client.tree._context.store)
            yield self.client

    @property
    def queries(self) -> list[str]:
        return [statement for statement in self.statements if statement != NEWS]

    @property
    def decoded(self) -> int:
        return self.context.memory.decoded.payloads

    async def of(self, work: Callable[[], Awaitable[object]]) -> SimpleNamespace:
        """What some work costs, and what it answers."""
        self.statements.clear()
        self.reads.clear()
        before = self.decoded
        answer = await work()
        return SimpleNamespace(
            answer=answer, queries=self.queries, decoded=self.decoded - before, reads=len(self.reads)
        )


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    return Counts(monkeypatch)


def crossed(plane: str) -> int:
    """Chunks that any one slice crosses."""
    z, y, x = BLOCKS
    return {"xy": y * x, "xz": z * x, "yz": z * y}[plane]


@pytest.mark.parametrize("name", ["xy/z00003.png", "xy/z00019.png", "xz/y00003.png", "yz/x00049.png", "xy/z00007.tif"])
@pytest.mark.parametrize("where", [VERSION, BRANCH])
def test_a_slice_decodes_the_chunks_it_crosses_and_no_other(store: Path, counts: Counts, where: str, name: str) -> None:
    async def work() -> None:
        async with counts.serving(store) as client:
            read = await counts.of(lambda: client.read(f"{where}/s0/{name}"))
            assert read.decoded == read.reads == crossed(name[:2])

    run(work)


@pytest.mark.parametrize("where", [VERSION, BRANCH])
def test_reading_all_slices_in_order_decodes_each_chunk_once(store: Path, counts: Counts, where: str) -> None:
    async def work() -> None:
        async with counts.serving(store) as client:
            for plane, axis, count in (("xy", "z", 20), ("xz", "y", 40), ("yz", "x", 50)):
                counts.context.cache.clear()
                before = counts.decoded
                for index in range(count):
                    await client.read(f"{where}/s0/{plane}/{axis}{index:05}.png")
                assert counts.decoded - before == np.prod(BLOCKS), plane

    run(work)


@pytest.mark.parametrize("name", ["s0/xy/z00003.png", "s1/xy/z00003.png", "s0/volume.tif", "zarr/s0/c/0/0/0"])
@pytest.mark.parametrize("where", [VERSION, BRANCH])
def test_a_warm_read_decodes_nothing_and_a_slice_reads_nothing(
    store: Path, counts: Counts, where: str, name: str
) -> None:
    async def work() -> None:
        async with counts.serving(store) as client:
            first = await client.read(f"{where}/{name}")
            again = await counts.of(lambda: client.read(f"{where}/{name}"))
            assert again.answer == first and again.decoded == 0
            if not name.startswith("zarr/"):  # stored chunks are kept by the kernel, as pages of the store's files
                assert again.reads == 0

    run(work)


@pytest.mark.parametrize("where", [VERSION, BRANCH])
def test_a_warm_read_of_voxels_runs_no_query(store: Path, counts: Counts, where: str) -> None:
    async def work() -> None:
        async with counts.serving(store) as client:
            for name in ("s0/xy/z00003.png", "s0/xz/y00003.png", "s0/volume.raw"):
                path = f"{where}/{name}"
                await client.read(path)
                fh, size = await client.open(path), (await client.stat(path)).size
                again = await counts.of(lambda fh=fh, size=size: client.read_fh(fh, size))
                assert not again.queries, name
                await client.close(fh)

    run(work)


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("s0/xy", ["z00003.png", "z00004.png", "z00004.tif", "z00099.png", "nothing"]),
        ("s0", ["xy", "volume.tif", "volume.raw", "info.json", "chunks", "nothing"]),
        ("zarr", ["zarr.json", "s0", "s1", "nothing"]),
        ("zarr/s0", ["zarr.json", "c", "nothing"]),
        ("zarr/s0/c/0/0", ["0", "1", "9"]),
        ("files", ["nothing"]),
        ("", ["s0", "zarr", "files", "thumbnail.png", "nothing"]),
        ("..", ["nothing"]),
        ("../..", ["versions", "branches", "tags", "dataset.json", "nothing"]),
        ("../../..", ["cells", "README.txt", ".volfs", "nothing"]),
    ],
)
@pytest.mark.parametrize("where", [VERSION, BRANCH])
def test_a_stat_and_a_repeated_lookup_run_no_query(
    store: Path, counts: Counts, where: str, folder: str, names: list[str]
) -> None:
    async def work() -> None:
        async with counts.serving(store) as client:
            tree = client.tree
            parts = where.split("/") + [part for part in folder.split("/") if part]
            while ".." in parts:
                at = parts.index("..")
                del parts[at - 1 : at + 1]
            parent = await client.ino("/".join(parts))
            for name in names:
                attr = await tree.lookup(parent, name.encode())
                if attr.ino:
                    await tree.getattr(attr.ino)
                again = await counts.of(lambda name=name: tree.lookup(parent, name.encode()))
                assert not again.queries, f"lookup of {name}"
                if attr.ino:
                    stat = await counts.of(lambda ino=attr.ino: tree.getattr(ino))
                    assert not stat.queries, f"getattr of {name}"
                    assert stat.answer.size == again.answer.size

    run(work)


def test_slices_of_a_folder_that_is_known_are_looked_up_without_any_query(store: Path, counts: Counts) -> None:
    async def work() -> None:
        async with counts.serving(store) as client:
            for where in (VERSION, BRANCH):
                parent = await client.ino(f"{where}/s0/xy")
                await client.tree.lookup(parent, b"z00000.png")
                for index in range(1, 20):
                    new = await counts.of(lambda i=index, at=parent: client.tree.lookup(at, f"z{i:05}.png".encode()))
                    assert new.answer.ino and not new.queries

    run(work)


@pytest.mark.parametrize("folder", ["s0/xy", "s0/yz", "zarr/s0/c/0/0"])
@pytest.mark.parametrize("where", [VERSION, BRANCH])
def test_a_listing_asks_once_however_many_names_there_are(store: Path, counts: Counts, where: str, folder: str) -> None:
    async def work() -> None:
        async with counts.serving(store) as client:
            await client.ls(f"{where}/s0")
            ino = await client.ino(f"{where}/{folder}")

            async def everything() -> int:
                return len(list(await client.tree.readdir(ino, 0)))

            first, again = await counts.of(everything), await counts.of(everything)
            for listed in (first, again):
                assert listed.decoded == listed.reads == 0 and listed.answer >= 4
            # Names in a branch's union directories have inodes of their own, which the first listing finds.
            assert len(first.queries) <= 2 + (8 + first.answer if where == BRANCH and folder.startswith("zarr") else 0)
            assert len(again.queries) <= 2

    run(work)


def test_a_stored_chunk_is_passed_through_undecoded_in_one_read(store: Path, counts: Counts) -> None:
    async def work() -> None:
        async with counts.serving(store) as client:
            first = await counts.of(lambda: client.read(f"{VERSION}/zarr/s0/c/0/0/0"))
            assert first.decoded == 0 and first.reads == 1
            other = await counts.of(lambda: client.read(f"{VERSION}/zarr/s0/c/0/0/1"))
            assert other.decoded == 0 and other.reads == 1

    run(work)


def test_a_range_of_a_volume_decodes_the_chunks_it_crosses(store: Path, counts: Counts) -> None:
    """As a program does that maps a file: some bytes anywhere."""

    async def work() -> None:
        plane = CELLS.shape[1] * CELLS.shape[2]
        row = CELLS.shape[2]
        async with counts.serving(store) as client:
            for name in ("volume.raw", "volume.nii", "volume.npy"):
                path = f"{VERSION}/s0/{name}"
                fh, size = await client.open(path), (await client.stat(path)).size
                header = size - CELLS.size
                for offset, length, chunks in (
                    (header + 3 * plane, 16, 1),  # within a chunk's row
                    (header + 5 * plane + 7 * row, row, BLOCKS[2]),  # a row of voxels
                    (header + 17 * plane, plane, BLOCKS[1] * BLOCKS[2]),  # a plane
                ):
                    counts.context.cache.clear()
                    read = await counts.of(lambda fh=fh, at=offset, n=length: client.tree.read(fh, at, n))
                    assert bytes(read.answer) == CELLS.tobytes()[offset - header :][:length]
                    assert read.decoded == chunks, (name, offset, length)
                await client.close(fh)

    run(work)


def test_opening_a_volume_decodes_nothing(store: Path, counts: Counts) -> None:
    async def work() -> None:
        async with counts.serving(store) as client:
            for name in ("volume.tif", "volume.nii", "volume.nrrd", "volume.npy", "volume.mrc", "cutout"):
                looked = await counts.of(lambda name=name: client.stat(f"{VERSION}/s0/{name}"))
                assert looked.decoded == looked.reads == 0, name
            path = f"{VERSION}/s0/volume.nii"
            fh = await client.open(path)
            header = await counts.of(lambda: client.tree.read(fh, 0, 348))
            assert header.decoded == 0 and len(header.answer) == 348
            await client.close(fh)

    run(work)


def test_the_cost_of_a_slice_does_not_grow_with_the_number_of_versions(tmp_path: Path, counts: Counts) -> None:
    """A slice of the newest version, cold: of two versions, and of thirty that each changed one chunk elsewhere."""
    costs = []
    for number, versions in (("few", 2), ("many", 30)):
        path = tmp_path / number
        with volfs.init_store(path) as made:
            add(made, "cells", "", CELLS, "zyx", chunks=CHUNKS)
            branch = made["cells"].branch("main")
            for version in range(1, versions):
                level = image_at(branch, "").levels[0]
                level[16:20, 32:40, 0:16] = version
                branch.commit(f"change {version}")

        async def work(path: Path = path, versions: int = versions) -> None:
            async with counts.serving(path) as client:
                folder = f"cells/versions/v{versions}/s0/xy"
                parent = await client.ino(folder)
                read = await counts.of(lambda: client.read(f"{folder}/z00003.png"))
                assert read.decoded == crossed("xy")
                look = await counts.of(lambda: client.tree.lookup(parent, b"z00004.png"))
                costs.append((len(read.queries), read.reads, len(look.queries)))

        run(work)
    (few, *rest), (many, *others) = costs
    assert rest == others and many <= few + 2, "a checkpoint may have to be looked at"


def test_a_commit_of_one_chunk_costs_the_same_in_an_array_of_any_size(tmp_path: Path, counts: Counts) -> None:
    costs = []
    for edge in (64, 128):
        path = tmp_path / str(edge)
        with volfs.init_store(path) as made:
            add(made, "cells", "", np.full((edge,) * 3, 7, np.uint8), "zyx", chunks=CHUNKS)
            branch = made["cells"].branch("main")
            image_at(branch, "").levels[0][:16, :16, :16] = 9
            counts.context = store_context(made)
            counts.statements.clear()
            counts.reads.clear()
            before = counts.decoded
            branch.commit("one chunk")
            costs.append((len(counts.queries), len(counts.reads), counts.decoded - before))
    assert costs[0] == costs[1]
    assert costs[0][1:] == (0, 0), "the chunks that stay are neither read nor decoded"


def test_the_statistics_count_the_statements_that_sqlite_ran(store: Path, counts: Counts) -> None:
    async def work() -> None:
        async with counts.serving(store) as client:
            catalog = client.tree._context.store.catalog
            await client.ls(VERSION)
            before = catalog.statements
            done = await counts.of(lambda: client.read(f"{VERSION}/zarr/s0/zarr.json"))
            own = [one for one in done.queries if re.search(r"\b(entry|dir|ref|block|version|dataset)\b", one)]
            assert own and catalog.statements - before == len(own)

    run(work)
