"""Inode numbers: stable, never reused, following renames, and not waiting for anything."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kits import fork_server
from tests.kits.example_counts import examples
from volfs.catalog.connections import Connections
from volfs.catalog.inode_table import ALLOCATED, MAX_ORDINAL, ROOT, InodeTable, table_path
from volfs.errors import BadInput, NotAllowed, StoreFormat
from volfs.testing.waiting import PATIENCE


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


def test_the_root_is_1_and_leads_back_to_the_empty_path(catalog: Path) -> None:
    with InodeTable.open(catalog) as table:
        assert table.directory("") == ROOT
        assert table.directory_path(ROOT) == ""
        assert table.split(ROOT) == (ROOT, 0)


def test_a_directory_has_the_same_inode_after_a_restart_and_leads_back_to_its_path(catalog: Path) -> None:
    paths = ["cells", "cells/versions/v3/s0/xy", "zellen/ä\udcff"]
    with InodeTable.open(catalog) as table:
        inodes = [table.directory(path) for path in paths]
    with InodeTable.open(catalog) as table:
        assert [table.directory_path(ino) for ino in inodes] == paths
        assert [table.directory(path) for path in paths] == inodes


def test_a_lost_table_comes_back_with_the_same_derived_inodes_and_fresh_allocated_ones(
    catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with InodeTable.open(catalog) as table:
        derived, allocated = table.directory("cells/versions/v3"), table.allocate(ROOT, b"a")
    table_path(catalog).unlink()
    later = time.time() + 1
    monkeypatch.setattr("volfs.catalog.inode_table.time.time", lambda: later)
    with InodeTable.open(catalog) as table:
        assert table.directory("cells/versions/v3") == derived
        assert table.allocate(ROOT, b"a") > allocated


def test_paths_with_one_hash_get_different_inodes(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hash:
        def digest(self) -> bytes:
            return b"\xff" * 8

    monkeypatch.setattr("volfs.catalog.inode_table.blake2b", lambda *_, **__: Hash())
    paths = ["a", "b", "c"]
    with InodeTable.open(catalog) as table:
        inodes = [table.directory(path) for path in paths]
        table.flush()
        inodes += [table.directory("d")]
    with InodeTable.open(catalog) as table:
        assert len(set(inodes)) == 4
        assert [table.directory_path(ino) for ino in inodes] == [*paths, "d"]
        assert min(inodes) > 0 and max(inodes) < ALLOCATED


def test_files_are_numbered_inside_their_directory(catalog: Path) -> None:
    with InodeTable.open(catalog) as table:
        directory = table.directory("cells/versions/v1/s0/xy")
        assert table.split(table.file(directory, 5)) == (directory, 5)
        assert table.split(directory) == (directory, 0)
        assert table.directory_path(table.file(directory, 5)) is None
        for ordinal in (0, MAX_ORDINAL + 1):
            with pytest.raises(BadInput):
                table.file(directory, ordinal)


def test_inodes_never_handed_out_lead_nowhere(catalog: Path) -> None:
    with InodeTable.open(catalog) as table:
        for ino in (0, 2, 77 << 27, ALLOCATED, ALLOCATED | 5, (1 << 63) - 1):
            assert table.directory_path(ino) is None
            assert table.where(ino) is None


def test_a_name_keeps_its_inode_over_a_restart(catalog: Path) -> None:
    with InodeTable.open(catalog) as table:
        ino = table.allocate(ROOT, b"zarr.json")
        assert table.is_allocated(ino)
        assert table.allocate(ROOT, b"zarr.json") == ino
    with InodeTable.open(catalog) as table:
        assert table.find(ROOT, b"zarr.json") == ino
        assert table.where(ino) == (ROOT, b"zarr.json")
        assert table.find(ROOT, b"other") is None


def test_renaming_a_directory_takes_along_what_is_below_it(catalog: Path) -> None:
    with InodeTable.open(catalog) as table:
        directory = table.allocate(ROOT, b"old")
        child = table.allocate(directory, b"child")
        table.flush()
        table.rename(directory, ROOT, b"new")
    with InodeTable.open(catalog) as table:
        assert table.where(directory) == (ROOT, b"new")
        assert table.where(child) == (directory, b"child")
        assert table.find(ROOT, b"old") is None


def test_a_rename_over_a_name_takes_the_name_from_its_inode(catalog: Path) -> None:
    with InodeTable.open(catalog) as table:
        old, temporary = table.allocate(ROOT, b"c"), table.allocate(ROOT, b"c.tmp")
        table.flush()
        table.rename(temporary, ROOT, b"c")
        for _ in range(2):
            assert table.find(ROOT, b"c") == temporary
            assert table.find(ROOT, b"c.tmp") is None
            assert table.where(old) is None
            table.flush()


def test_a_dropped_inode_is_gone_and_its_name_gets_another(catalog: Path) -> None:
    with InodeTable.open(catalog) as table:
        ino = table.allocate(ROOT, b"a")
        table.flush()
        table.drop(ino)
        assert table.where(ino) is None
        again = table.allocate(ROOT, b"a")
        assert again > ino
    with InodeTable.open(catalog) as table:
        assert table.where(ino) is None
        assert table.where(again) == (ROOT, b"a")


def test_hard_links_share_an_inode_until_the_last_name_goes(catalog: Path) -> None:
    with InodeTable.open(catalog) as table:
        ino = table.allocate(ROOT, b"zarr.partial")
        table.link(ino, ROOT, b"zarr.json")
        assert table.links(ino) == 2
        table.unlink(ROOT, b"zarr.partial")
        assert (table.find(ROOT, b"zarr.json"), table.find(ROOT, b"zarr.partial")) == (ino, None)
        table.unlink(ROOT, b"zarr.json")
        assert table.where(ino) is None


def test_one_of_several_names_can_be_renamed(catalog: Path) -> None:
    with InodeTable.open(catalog) as table:
        ino = table.allocate(ROOT, b"a")
        table.link(ino, ROOT, b"b")
        table.rename(ino, ROOT, b"c", old=(ROOT, b"a"))
        assert [table.find(ROOT, name) for name in (b"a", b"b", b"c")] == [None, ino, ino]


def test_an_exchange_swaps_the_names(catalog: Path) -> None:
    with InodeTable.open(catalog) as table:
        a, b = table.allocate(ROOT, b"a"), table.allocate(ROOT, b"b")
        table.exchange(a, b)
        assert (table.find(ROOT, b"a"), table.find(ROOT, b"b")) == (b, a)
        assert (table.where(a), table.where(b)) == ((ROOT, b"b"), (ROOT, b"a"))


def test_kill_9_at_any_time_never_lets_a_number_be_given_out_twice(catalog: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from volfs.catalog import InodeTable\n"
        "table = InodeTable.open(Path(sys.argv[1]))\n"
        "print(*[table.allocate(1, b'%d' % i) for i in range(100)], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    seen: set[int] = set()
    for _ in range(3):
        out = fork_server.run(
            [sys.executable, "-c", script, str(catalog)], capture_output=True, text=True, timeout=PATIENCE
        )
        inodes = set(map(int, out.stdout.split()))
        assert len(inodes) == 100
        assert not inodes & seen
        seen |= inodes


def test_two_mounts_of_one_store_hand_out_different_numbers_that_both_lead_back(catalog: Path) -> None:
    with InodeTable.open(catalog) as one, InodeTable.open(catalog) as other:
        a, b = one.allocate(ROOT, b"x"), other.allocate(ROOT, b"x")
        assert a != b
        assert one.directory("cells") == other.directory("cells")
    with InodeTable.open(catalog) as table:
        assert table.where(a) == table.where(b) == (ROOT, b"x")
        assert table.find(ROOT, b"x") == min(a, b)
        assert table.directory_path(table.directory("cells")) == "cells"


def test_numbers_go_on_when_more_are_asked_for_than_were_reserved(
    catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volfs.catalog.inode_table._RESERVED", 4)
    with InodeTable.open(catalog) as table:
        inodes = [table.allocate(ROOT, b"%d" % i) for i in range(50)]
    assert len(set(inodes)) == 50


def test_what_memory_drops_is_read_back(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volfs.catalog.inode_table._KEPT", 3)
    with InodeTable.open(catalog) as table:
        inodes = [table.allocate(ROOT, b"%d" % i) for i in range(20)]
        directories = [table.directory(f"d{i}") for i in range(20)]
        for _ in range(2):
            assert [table.where(ino) for ino in inodes] == [(ROOT, b"%d" % i) for i in range(20)]
            assert [table.allocate(ROOT, b"%d" % i) for i in range(20)] == inodes
            assert [table.directory_path(ino) for ino in directories] == [f"d{i}" for i in range(20)]
            table.flush()
        assert len(table._names) <= 3 and len(table._inos) <= 3 and len(table._paths) <= 3 and len(table._ids) <= 3


def test_new_names_of_a_directory_ask_the_file_once(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volfs.catalog.inode_table._NAMES_KEPT", 20)
    with InodeTable.open(catalog) as table:
        parent = table.directory("cells")
        table.allocate(parent, b"first")
        before = table.statements
        inos = [table.allocate(parent, b"%d.partial" % number) for number in range(10)]
        for number, ino in enumerate(inos):
            table.rename(ino, parent, b"%d" % number)
        assert table.statements == before
        table.flush()
        assert [table.find(parent, b"%d" % number) for number in range(10)] == inos
    with InodeTable.open(catalog) as table:
        assert [table.find(parent, b"%d" % number) for number in range(10)] == inos
        assert table.find(parent, b"0.partial") is None
        many = [table.allocate(parent, b"more %d" % number) for number in range(30)]
        table.flush()
        assert table.find(parent, b"none") is None
    with InodeTable.open(catalog) as table:
        assert [table.find(parent, b"more %d" % number) for number in range(30)] == many
        assert table.find(parent, b"none") is None


def test_a_flush_in_progress_holds_up_nobody(catalog: Path) -> None:
    with InodeTable.open(catalog) as table:
        known = table.allocate(ROOT, b"known")
        blocker = Connections(table_path(catalog))
        with blocker.write():
            flushing = threading.Thread(target=table.flush)
            flushing.start()
            assert table.where(known) == (ROOT, b"known")
            fresh = table.allocate(ROOT, b"fresh")
            table.rename(known, ROOT, b"moved")
            table.directory("cells")
        flushing.join()
        blocker.close()
    with InodeTable.open(catalog) as table:
        assert table.where(known) == (ROOT, b"moved")
        assert table.where(fresh) == (ROOT, b"fresh")


def test_what_is_known_waits_for_no_thread_that_reads_the_file(catalog: Path) -> None:
    with InodeTable.open(catalog) as table:
        directory = table.directory("cells/branches/main/files")
        ino = table.allocate(directory, b"a")
        table.flush()
        answers: list[object] = []

        def look() -> None:
            answers.append(table.directory("cells/branches/main/files"))
            answers.append(table.find(directory, b"a"))
            answers.append(table.allocate(directory, b"a"))
            answers.append(table.where(ino))

        with table._lock:
            thread = threading.Thread(target=look)
            thread.start()
            thread.join(PATIENCE)
            found = list(answers)
        thread.join()
        assert found == [directory, ino, ino, (directory, b"a")]


def test_a_closed_table_says_so(catalog: Path) -> None:
    table = InodeTable.open(catalog)
    table.close()
    with pytest.raises(NotAllowed):
        table.directory("never seen")


def test_another_sqlite_file_is_refused(catalog: Path) -> None:
    cx = sqlite3.connect(table_path(catalog))
    cx.execute("CREATE TABLE t (x)")
    cx.close()
    with pytest.raises(StoreFormat):
        InodeTable.open(catalog)


NAMES = [b"a", b"b", b"c", b"d"]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["allocate", "rename", "link", "unlink", "drop", "exchange", "flush", "reopen"]),
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),
    ),
    max_size=40,
)


@settings(max_examples=examples(60))
@given(OPERATIONS)
def test_any_sequence_of_operations_equals_a_dict(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, bytes, bytes]]
) -> None:
    catalog = tmp_path_factory.mktemp("inodes") / "catalog.sqlite"
    table = InodeTable.open(catalog)
    model: dict[bytes, int] = {}
    handed_out: set[int] = set()
    try:
        for operation, one, two in operations:
            ino = model.get(one)
            if operation == "allocate":
                got = table.allocate(ROOT, one)
                assert got == ino or (ino is None and got not in handed_out)
                model[one] = got
                handed_out.add(got)
            elif operation == "flush":
                table.flush()
            elif operation == "reopen":
                table.close()
                table = InodeTable.open(catalog)
            elif ino is None:
                continue
            elif operation == "rename" and model.get(two) != ino:
                table.rename(ino, ROOT, two, old=(ROOT, one))
                del model[one]
                model[two] = ino
            elif operation == "link":
                table.link(ino, ROOT, two)
                model[two] = ino
            elif operation == "unlink":
                table.unlink(ROOT, one)
                del model[one]
            elif operation == "drop":
                table.drop(ino)
                model = {name: held for name, held in model.items() if held != ino}
            elif operation == "exchange" and two in model and list(model.values()).count(ino) == 1:
                other = model[two]
                if list(model.values()).count(other) == 1:
                    table.exchange(ino, other)
                    model[one], model[two] = other, ino
            for name in NAMES:
                assert table.find(ROOT, name) == model.get(name)
            for number in handed_out:
                names = [name for name, held in model.items() if held == number]
                assert table.links(number) == len(names)
                where = table.where(number)
                assert where is None if not names else where is not None and where[1] in names
    finally:
        table.close()


def test_the_table_lies_beside_the_catalog(catalog: Path) -> None:
    with InodeTable.open(catalog):
        assert os.path.lexists(table_path(catalog))
        assert table_path(catalog).parent == catalog.parent
