"""The log of refs: a line for every change, none for what came to nothing, and no harm from what is damaged."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.kits import fork_server
from tests.kits.stores import START, new_store, volume, write_version
from volfs import open_store
from volfs.errors import Damaged, NoSpace, VolfsError
from volfs.model.refs import RefKind
from volfs.storage import files
from volfs.versions import ref_log
from volfs.versions.check.fsck import fsck
from volfs.versions.dataset import Dataset
from volfs.versions.ledger import RefChange, RefRecord
from volfs.versions.ref_log import RefLog

Row = tuple[str, str | None, int | None, int | None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    with new_store(root) as store:
        dataset = store.create_dataset("cells")
        for number in range(3):
            write_version(dataset, volume((8, 8, 8), number), parent=number, time_ns=START + number * 10**10)
    return root


def rows(dataset: Dataset) -> list[Row]:
    """Name, earlier name, from, to of every change; oldest first."""
    changes = [change for change in dataset.ref_log() if isinstance(change, RefChange)]
    return [(c.name, c.was, c.old and c.old.version, c.new and c.new.version) for c in reversed(changes)]


def path_of(root: Path) -> Path:
    return root / "datasets/cells/refs/log.jsonl"


MADE: list[Row] = [("main", None, None, 0), *(("main", None, number, number + 1) for number in range(3))]


def test_whatever_changes_a_ref_is_a_line_with_who_and_why(root: Path) -> None:
    with open_store(root) as store:
        dataset = store["cells"]
        dataset.create_branch("exp", "v1", who="ada")
        dataset.move_branch("exp", "v3", who="bob")
        dataset.rename_branch("exp", "trial", who="cyd")
        dataset.branch("trial").put("files/notes", b"x")
        dataset.branch("trial").commit("second thoughts", author="dan")
        dataset.delete_branch("trial", who="eve")
        dataset.create_tag("paper", "v1", who="fay")
        dataset.create_tag("paper", "v2", force=True, who="gil")
        dataset.rename_tag("paper", "poster", who="hal")
        dataset.delete_tag("poster", who="ian")
        assert rows(dataset) == [
            *MADE,
            *(("exp", None, None, 1), ("exp", None, 1, 3), ("trial", "exp", None, 3), ("trial", None, 3, 4)),
            *(("trial", None, 4, None), ("paper", None, None, 1), ("paper", None, 1, 2)),
            *(("poster", "paper", None, 2), ("poster", None, 2, None)),
        ]
        changes = [change for change in dataset.ref_log() if isinstance(change, RefChange)][::-1][4:]
        assert [change.who for change in changes] == ["ada", "bob", "cyd", "dan", "eve", "fay", "gil", "hal", "ian"]
        assert changes[3].why == "commit: second thoughts"
        assert all(change.why for change in changes)
        assert [c.time_ns for c in changes] == sorted(c.time_ns for c in changes)
        for change in changes:
            for record in (change.old, change.new):
                assert record is None or record.content_id == dataset.info(record.version).content_id


def test_lines_are_json_for_other_programs(root: Path) -> None:
    lines = [json.loads(line) for line in path_of(root).read_text().splitlines()]
    assert [(line["ref"], line["from"], line["to"]) for line in lines] == [("heads/main", f, t) for _, _, f, t in MADE]
    assert set(lines[-1]) >= {"time", "time_ns", "who", "why", "checksum"}


def test_the_same_again_is_no_line(root: Path) -> None:
    with open_store(root) as store:
        dataset = store["cells"]
        dataset.create_branch("exp", "v1")
        before = rows(dataset)
        dataset.move_branch("exp", "v1")
        dataset.create_tag("paper", "v2")
        dataset.create_tag("paper", "v2", force=True)
        dataset.seal_refs()
        assert rows(dataset) == [*before, ("paper", None, None, 2)]


@pytest.mark.parametrize(
    ("what", "point"),
    [("commit", "commit.ref"), *((what, "refs.logged") for what in ("commit", "tag", "move", "remove"))],
)
def test_a_killed_change_is_told_as_it_came_out(root: Path, point: str, what: str) -> None:
    with open_store(root) as store:
        store["cells"].create_branch("exp", "v1")
        store["cells"].create_tag("old", "v1")
    do = {
        "commit": "b = d.branch('main'); b.put('files/n', b'x'); b.commit('killed')",
        "tag": "d.create_tag('paper', 'v2')",
        "move": "d.move_branch('exp', 'v2')",
        "remove": "d.delete_tag('old')",
    }[what]
    code = f"import sys, volfs; s = volfs.open_store(sys.argv[1]); d = s['cells']; {do}"
    done = fork_server.run(
        [sys.executable, "-c", code, str(root)], env={**os.environ, "VOLFS_CRASH_AT": point}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    with open_store(root, read_only=True) as store:  # nobody has settled anything yet
        if point == "refs.logged":
            assert rows(store["cells"])[-1][0] == "old"
    with open_store(root) as store:
        dataset = store["cells"]
        check_chain(dataset)
        if point == "commit.ref":
            assert rows(dataset)[-1] == ("main", None, 3, 4)
        dataset.create_tag("after", "v1")
        check_chain(dataset)
        assert fsck(store).clean


def check_chain(dataset: Dataset) -> None:
    """Each ref stands where its last line says, and each line begins where the one before ended."""
    stands: dict[tuple[RefKind, str], RefRecord | None] = {}
    for change in reversed(list(dataset.ref_log())):
        assert isinstance(change, RefChange)
        if change.was is None:
            before = stands.get((change.kind, change.name))
            assert (before and before.version) == (change.old and change.old.version), change
        else:
            stands[change.kind, change.was] = None
        stands[change.kind, change.name] = change.new
    there = {kind: {n: dataset.ledger.ref(kind, n) for n in dataset.ledger.names(kind)} for kind in RefKind}
    for kind, names in there.items():
        told = {name: record for (k, name), record in stands.items() if k is kind and record is not None}
        assert {n: r.version for n, r in told.items()} == {n: r.version for n, r in names.items()}


def test_a_change_that_fails_is_no_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(root) as store:
        dataset = store["cells"]
        before = path_of(root).read_bytes()

        def fail(*_: object, **__: object) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr("volfs.versions.commit.publish.write_ref", fail)
            with pytest.raises(OSError, match="Input/output"):
                dataset.create_tag("paper", "v1")
            branch = dataset.branch("main")
            branch.put("files/n", b"x")
            with pytest.raises(OSError, match="Input/output"):
                branch.commit("fails")
        with monkeypatch.context() as patch:
            patch.setattr(Dataset, "index", fail)
            with pytest.raises(OSError, match="Input/output"):
                branch.commit("fails late")
        assert path_of(root).read_bytes() == before
        assert rows(dataset) == MADE


def test_a_full_disk_changes_no_ref_and_leaves_no_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(root) as store:
        dataset = store["cells"]
        before = path_of(root).read_bytes()

        def full(fd: int, data: bytes) -> None:
            os.write(fd, data[:10])
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(ref_log, "write_all", full)
            with pytest.raises(NoSpace):
                dataset.create_tag("paper", "v1")
            assert path_of(root).read_bytes() == before
        assert dataset.tags() == {}
        dataset.create_tag("paper", "v1")
        assert rows(dataset) == [*MADE, ("paper", None, None, 1)]


def test_a_torn_last_line_harms_nothing(root: Path) -> None:
    whole = path_of(root).read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for cut in (1, len(last) // 2, len(last) - 1):
        path_of(root).write_bytes(whole + last[:cut])
        with open_store(root) as store:
            assert rows(store["cells"]) == MADE
            assert fsck(store).clean
            store["cells"].create_tag(f"t{cut}", "v1")
            assert rows(store["cells"]) == [*MADE, (f"t{cut}", None, None, 1)]
            store["cells"].delete_tag(f"t{cut}")


def test_every_damaged_line_harms_itself_alone(root: Path) -> None:
    whole = path_of(root).read_bytes()
    lines = whole.splitlines(keepends=True)
    start = 0
    for number, line in enumerate(lines):
        for at in range(0, len(line) - 1, 23):
            raw = bytearray(whole)
            raw[start + at] ^= 4
            if raw[start + at] == 10:
                continue
            path_of(root).write_bytes(raw)
            found = list(reversed(list(RefLog(path_of(root)).newest_first())))
            assert [isinstance(each, Damaged) for each in found] == [n == number for n in range(len(lines))]
        start += len(line)
    path_of(root).write_bytes(whole.replace(b"heads", b"h\xffads", 1))
    with open_store(root) as store:
        assert rows(store["cells"]) == MADE[1:]
        report = fsck(store)
        assert [finding.where for finding in report.findings] == ["refs/log.jsonl"]
        store["cells"].create_tag("paper", "v1")
        assert rows(store["cells"]) == [*MADE[1:], ("paper", None, None, 1)]


@pytest.mark.parametrize("raw", [b"\n", b"\n\n{}\n", b"[" * 5000 + b"\n", b"x" * 200_000 + b"\n", b'{"ref": 3}\n', b""])
def test_a_hostile_log_stops_nothing(root: Path, raw: bytes) -> None:
    path_of(root).write_bytes(raw)
    with open_store(root) as store:
        dataset = store["cells"]
        assert all(isinstance(line, Damaged) for line in dataset.ref_log())
        dataset.create_tag("paper", "v1")
        assert rows(dataset) == [("paper", None, None, 1)]


def test_what_is_no_file_is_an_error_of_the_log_and_of_changes(root: Path) -> None:
    path_of(root).unlink()
    path_of(root).mkdir()
    with open_store(root) as store:
        dataset = store["cells"]
        assert dataset.resolve("main") == 3
        with pytest.raises((VolfsError, OSError)):
            dataset.create_tag("paper", "v1")
        assert dataset.tags() == {}


def test_a_ref_moved_by_hand_is_told_of_at_the_next_change(root: Path) -> None:
    with open_store(root) as store:
        head = root / "datasets/cells/refs/heads/main.json"
        head.write_text('{"version": 1}')
        store["cells"].create_tag("paper", "v2")
        assert rows(store["cells"])[-2:] == [("main", None, 3, 1), ("paper", None, None, 2)]


def test_a_store_without_a_log_gets_one_with_its_next_change(root: Path) -> None:
    path_of(root).unlink()
    with open_store(root, read_only=True) as store:
        assert rows(store["cells"]) == []
    with open_store(root) as store:
        store["cells"].create_tag("paper", "v2")
        assert rows(store["cells"]) == [("paper", None, None, 2)]


def test_the_newest_lines_are_read_from_the_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RefLog(path_of(root))
    first = log.last()
    assert first is not None
    for number in range(3000):
        raw = {"time_ns": 1, "who": "a", "ref": "tags/t", "from": None, "to": number, "why": "w" * (number % 50)}
        with path_of(root).open("ab") as file:
            file.write(json.dumps(raw).encode() + b"\n")
    read: list[int] = []

    def counting(fd: int, size: int, offset: int) -> bytes:
        read.append(size)
        return files.pread_all(fd, size, offset)

    monkeypatch.setattr(ref_log, "pread_all", counting)
    newest = log.last()
    assert newest is not None and newest.new == RefRecord(2999)
    assert sum(read) <= 3 << 16 < path_of(root).stat().st_size
    lines = [line for line in log.newest_first() if isinstance(line, RefChange)]
    assert [line.new and line.new.version for line in lines][:3000] == list(range(2999, -1, -1))
    assert len(lines) == 3004 and lines[3000] == first


def test_a_rename_of_the_dataset_catalog_loses_no_line(root: Path) -> None:
    with open_store(root) as store:
        before = rows(store["cells"])
    for name in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"):
        (root / name).unlink(missing_ok=True)
    with open_store(root) as store:
        assert rows(store["cells"]) == before
