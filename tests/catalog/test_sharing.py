"""The catalog file itself: formats, several processes and threads, read-only media, damage."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.kits import fork_server
from tests.kits.catalog_histories import commit
from tests.kits.paths import ROOT
from volfs.catalog import Catalog, schema
from volfs.catalog.connections import Connections
from volfs.errors import Busy, Damaged, NoSpace, NotAllowed, NotFound, ReadOnly, StoreFormat
from volfs.testing.waiting import PATIENCE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


# --- the format ---


def test_a_missing_catalog_is_not_made_unless_asked_for(path: Path) -> None:
    with pytest.raises(NotFound, match="rebuild-catalog"):
        Catalog.open(path)
    assert not path.exists()


def test_a_catalog_of_a_newer_volfs_is_refused_and_left_alone(path: Path) -> None:
    Catalog.open(path, create=True).close()
    cx = sqlite3.connect(path)
    cx.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    cx.close()
    for read_only in (False, True):
        with pytest.raises(StoreFormat, match="newer volfs"):
            Catalog.open(path, read_only=read_only)


def test_another_programs_database_is_refused(path: Path) -> None:
    cx = sqlite3.connect(path)
    cx.execute("CREATE TABLE bookmarks (url)")
    cx.close()
    with pytest.raises(StoreFormat, match="not a catalog"):
        Catalog.open(path, create=True)


@pytest.mark.parametrize("content", [b"not a database at all" * 300, os.urandom(20_000)])
def test_what_is_no_database_is_damage_that_a_rebuild_mends(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(Damaged, match="rebuild-catalog"):
        Catalog.open(path)


def test_a_catalog_overwritten_in_the_middle_is_damage_not_a_wrong_answer(path: Path) -> None:
    with Catalog.open(path, create=True) as catalog:
        dataset = catalog.add_dataset("cells", 0)
        for number in range(1, 30):
            commit(catalog, dataset, number, keys=50)
    raw = bytearray(path.read_bytes())
    raw[16384 : len(raw) - 8192] = b"\xa5" * (len(raw) - 8192 - 16384)
    path.write_bytes(raw)
    with pytest.raises(Damaged), Catalog.open(path) as catalog:
        at = catalog.graph(dataset).at(20)
        assert [catalog.entry(dataset, at, f"files/{n}/7") for n in range(1, 21)] == []


def test_a_migration_runs_once_whoever_opens_first_and_all_or_nothing(path: Path) -> None:
    Catalog.open(path, create=True).close()
    ran = []

    def second(db: object) -> None:
        ran.append(1)
        schema.run_script(db, "CREATE TABLE extra (x);")  # type: ignore[arg-type]
        if len(ran) == 1:
            raise RuntimeError("power cut")

    steps = (*schema.MIGRATIONS, second)
    cx = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(RuntimeError):
        schema.migrate(cx, path, migrations=steps)
    assert cx.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
    assert cx.execute("SELECT count(*) FROM sqlite_master WHERE name = 'extra'").fetchone() == (0,)
    for _ in range(2):
        schema.migrate(cx, path, migrations=steps)
    assert len(ran) == 2
    assert cx.execute("PRAGMA user_version").fetchone() == (len(steps),)
    cx.close()


@pytest.mark.parametrize("version", range(1, len(schema.MIGRATIONS)))
def test_a_catalog_of_an_older_format_is_emptied_to_be_indexed_again(path: Path, version: int) -> None:
    cx = sqlite3.connect(path, isolation_level=None)
    cx.execute("CREATE TABLE dataset (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE)")
    cx.execute("CREATE INDEX dataset_name ON dataset (name)")
    cx.execute("INSERT INTO dataset (name) VALUES ('cells')")
    cx.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    cx.execute(f"PRAGMA user_version = {version}")
    cx.close()
    with Catalog.open(path) as catalog:
        assert catalog.datasets() == {}
        dataset = catalog.add_dataset("cells", 0)
        commit(catalog, dataset, 1)
        assert catalog.entry(dataset, catalog.graph(dataset).at(1), "files/1/0") is not None
    with Catalog.open(path) as catalog:
        assert catalog.datasets() == {"cells": dataset}


def test_every_table_of_the_schema_exists_with_its_columns(path: Path) -> None:
    Catalog.open(path, create=True).close()
    cx = sqlite3.connect(path)
    made = {name for (name,) in cx.execute("SELECT name FROM sqlite_master WHERE type = 'table'")} - {"sqlite_sequence"}
    cx.close()
    assert made == {line.split()[2] for line in schema.TABLES.splitlines() if line.startswith("CREATE TABLE")}


# --- sharing ---


def test_eight_processes_may_create_and_fill_one_catalog_at_once(path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from volfs.catalog import Catalog\n"
        "from volfs.model.graph import VersionInfo\n"
        "from volfs.storage.manifest import ManifestBuilder\n"
        "from volfs.storage.payload import Payload\n"
        "with Catalog.open(Path(sys.argv[1]), create=True) as catalog:\n"
        "    name = 'd' + sys.argv[2]\n"
        "    dataset = catalog.add_dataset(name, 0)\n"
        "    for number in range(1, 6):\n"
        "        builder = ManifestBuilder()\n"
        "        builder.put(f'files/{name}/{number}', Payload('x', 0, 1, 0), bytes(32))\n"
        "        parents = (number - 1,) if number > 1 else ()\n"
        "        info = VersionInfo(number, parents, 0, 0, 1, '', '', '')\n"
        "        catalog.index_version(dataset, info, builder.build(), {})\n"
    )
    running = [
        fork_server.Popen([sys.executable, "-c", script, str(path), str(i)], stderr=subprocess.PIPE) for i in range(8)
    ]
    for process in running:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors.decode()
    with Catalog.open(path) as catalog:
        assert sorted(catalog.datasets()) == [f"d{i}" for i in range(8)]
        for name, dataset in catalog.datasets().items():
            at = catalog.graph(dataset).at(5)
            entry = catalog.entry(dataset, at, f"files/{name}")
            assert entry is not None
            assert len(catalog.list_entries(dataset, at, entry.dir_id)) == 5
        assert catalog.check() == []


def test_processes_that_open_a_new_catalog_in_the_same_moment_all_find_it_whole(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "import sqlite_utils\n"
        "from volfs.catalog import Catalog\n"
        "for round in range(20):\n"
        "    begin, running = time.monotonic() + 0.01, []\n"
        "    for number in range(8):\n"
        "        child = os.fork()\n"
        "        if not child:\n"
        "            while time.monotonic() < begin: pass\n"
        "            with Catalog.open(Path(sys.argv[1]) / f'{round}.sqlite', create=True, store='one') as catalog:\n"
        "                catalog.add_dataset(f'd{number}', 0)\n"
        "            os._exit(0)\n"
        "        running.append(child)\n"
        "    for child in running:\n"
        "        _, status = os.waitpid(child, 0)\n"
        "        assert status == 0, (round, status)\n"
    )
    fork_server.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=PATIENCE)
    for number in range(20):
        with Catalog.open(tmp_path / f"{number}.sqlite", store="one") as catalog:
            assert sorted(catalog.datasets()) == [f"d{i}" for i in range(8)]
            assert catalog.check() == []


def test_a_commit_elsewhere_is_seen_through_data_version_and_reads_here_change_nothing(path: Path) -> None:
    with Catalog.open(path, create=True) as one, Catalog.open(path) as other:
        dataset = one.add_dataset("cells", 0)
        before = other.data_version()
        assert other.graph(dataset).versions == {}
        assert other.data_version() == before
        commit(one, dataset, 1)
        assert other.data_version() != before
        assert list(other.graph(dataset).versions) == [1]
        assert other.refs(dataset).heads == {"main": 1}


def test_a_commit_of_another_thread_of_this_process_is_seen_too(path: Path) -> None:
    with Catalog.open(path, create=True) as catalog:
        dataset = catalog.add_dataset("cells", 0)
        before = catalog.data_version()
        thread = threading.Thread(target=commit, args=(catalog, dataset, 1))
        thread.start()
        thread.join()
        assert catalog.data_version() != before
        assert list(catalog.graph(dataset).versions) == [1]


def test_readers_do_not_wait_for_a_long_commit_and_see_all_or_nothing_of_it(path: Path) -> None:
    with Catalog.open(path, create=True) as catalog:
        dataset = catalog.add_dataset("cells", 0)
        commit(catalog, dataset, 1, keys=3)
        seen: list[int] = []
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                graph = catalog.graph(dataset)
                newest = max(graph.versions)
                entry = catalog.entry(dataset, graph.at(newest), f"files/{newest}")
                assert entry is not None
                seen.append(len(catalog.list_entries(dataset, graph.at(newest), entry.dir_id)))

        reader = threading.Thread(target=read)
        reader.start()
        commit(catalog, dataset, 2, keys=20_000)
        done.set()
        reader.join()
        assert set(seen) <= {3, 20_000}
        assert len(seen) > 3


def test_a_failed_commit_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Catalog.open(path, create=True) as catalog:
        dataset = catalog.add_dataset("cells", 0)
        commit(catalog, dataset, 1)
        monkeypatch.setattr("volfs.catalog.catalog.graphs.put_refs", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            commit(catalog, dataset, 2)
        monkeypatch.undo()
        assert list(catalog.graph(dataset).versions) == [1]
        commit(catalog, dataset, 2)
        assert catalog.refs(dataset).heads == {"main": 2}


def test_a_commit_killed_at_any_instant_leaves_the_version_whole_or_absent(path: Path) -> None:
    with Catalog.open(path, create=True) as catalog:
        dataset = catalog.add_dataset("cells", 0)
        commit(catalog, dataset, 1)
    script = (
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from tests.kits.catalog_histories import commit\n"
        "from volfs.catalog import Catalog\n"
        "catalog = Catalog.open(Path(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        f"commit(catalog, {dataset}, 2, keys=4000)\n"
    )
    for delay in (0.0, 0.02, 0.05, 0.1):
        copy = path.with_name(f"copy-{delay}.sqlite")
        shutil.copy(path, copy)
        process = fork_server.Popen([sys.executable, "-c", script, str(copy)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
        process.wait()
        process.stdout.close()
        with Catalog.open(copy) as catalog:
            assert catalog.check() == []
            if 2 not in catalog.graph(dataset):
                commit(catalog, dataset, 2, keys=4000)
            at = catalog.graph(dataset).at(2)
            entry = catalog.entry(dataset, at, "files/2")
            assert entry is not None
            assert len(catalog.list_entries(dataset, at, entry.dir_id)) == 4000
            assert catalog.refs(dataset).heads == {"main": 2}


def test_no_read_keeps_a_transaction_open(path: Path) -> None:
    with Catalog.open(path, create=True) as catalog:
        dataset = catalog.add_dataset("cells", 0)
        commit(catalog, dataset, 1, keys=20)
        at = catalog.graph(dataset).at(1)
        entry = catalog.entry(dataset, at, "files/1")
        assert entry is not None
        catalog.list_entries(dataset, at, entry.dir_id)
        # A checkpoint that may truncate the log needs every reader out of it.
        cx = sqlite3.connect(path, timeout=0)
        assert cx.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        cx.close()


def test_a_threads_connection_is_closed_when_the_thread_ends(path: Path) -> None:
    connections = Connections(path)
    connections.open(lambda _: None, create=True)
    kept = len(connections._all)
    for _ in range(20):
        thread = threading.Thread(target=connections.get)
        thread.start()
        thread.join()
    gc.collect()
    assert len(connections._all) == kept
    connections.close()


def test_closing_closes_the_connections_of_all_threads_and_using_it_then_says_so(path: Path) -> None:
    catalog = Catalog.open(path, create=True)
    dataset = catalog.add_dataset("cells", 0)
    closed, errors = threading.Event(), []

    def use() -> None:
        catalog.datasets()
        closed.wait()
        try:
            catalog.datasets()
        except NotAllowed as error:
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    while len(catalog._connections._all) < 2:
        time.sleep(0.001)
    catalog.close()
    closed.set()
    thread.join()
    assert len(errors) == 1
    for action in (catalog.datasets, catalog.data_version, lambda: catalog.refs(dataset)):
        with pytest.raises(NotAllowed, match="closed"):
            action()
    catalog.close()


def test_a_writer_that_waits_too_long_for_another_is_told_who_to_wait_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volfs.catalog.connections.BUSY_SECONDS", 0.05)
    with Catalog.open(path, create=True) as catalog:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy, match="another process"):
            catalog.add_dataset("cells", 0)
        other.execute("ROLLBACK")
        other.close()
        catalog.add_dataset("cells", 0)


# --- read-only ---


def test_a_read_only_catalog_answers_and_refuses_to_write(path: Path) -> None:
    with Catalog.open(path, create=True) as catalog:
        dataset = catalog.add_dataset("cells", 0)
        commit(catalog, dataset, 1)
    with Catalog.open(path, read_only=True) as catalog:
        assert list(catalog.graph(dataset).versions) == [1]
        with pytest.raises(ReadOnly):
            catalog.add_dataset("other", 0)


def test_a_read_only_catalog_sees_what_a_writer_commits(path: Path) -> None:
    with Catalog.open(path, create=True) as writer, Catalog.open(path, read_only=True) as reader:
        dataset = writer.add_dataset("cells", 0)
        commit(writer, dataset, 1)
        assert list(reader.graph(dataset).versions) == [1]


def test_a_catalog_on_a_read_only_medium_is_read_as_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Catalog.open(path, create=True) as catalog:
        dataset = catalog.add_dataset("cells", 0)
        commit(catalog, dataset, 1)
    real = sqlite3.connect

    def connect(database: str, **options: object) -> sqlite3.Connection:
        if "immutable" not in database:
            raise sqlite3.OperationalError("unable to open database file")
        return real(database, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr("volfs.catalog.connections.sqlite3.connect", connect)
    with Catalog.open(path, read_only=True) as catalog:
        assert list(catalog.graph(dataset).versions) == [1]
    # A log that was never merged holds versions that would be missed.
    path.with_name(path.name + "-wal").write_bytes(b"something")
    with pytest.raises(ReadOnly, match="not closed in order"):
        Catalog.open(path, read_only=True)


def test_a_full_disk_is_no_space_and_leaves_the_catalog_as_it_was(path: Path) -> None:
    with Catalog.open(path, create=True) as catalog:
        dataset = catalog.add_dataset("cells", 0)
        commit(catalog, dataset, 1)
        catalog._cx().execute("PRAGMA max_page_count = 40")
        with pytest.raises(NoSpace):
            commit(catalog, dataset, 2, keys=20_000)
        catalog._cx().execute("PRAGMA max_page_count = 1000000")
        assert list(catalog.graph(dataset).versions) == [1]
        commit(catalog, dataset, 2, keys=20_000)
        assert catalog.check() == []


def test_a_missing_catalog_is_not_made_by_reading(path: Path) -> None:
    with pytest.raises(NotFound):
        Catalog.open(path, create=True, read_only=True)
    assert list(path.parent.iterdir()) == []
