"""A store that is only read: from anywhere, without a lock, without a write to it, and never stale."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.kits.mounts import volfs
from tests.kits.other_machine import elsewhere
from tests.kits.paths import ROOT
from tests.kits.stores import START, tree_of, volume, write_version
from volfs import init_store, open_store
from volfs.catalog.schema import APPLICATION_ID
from volfs.errors import ReadOnly
from volfs.storage.files import FileLock
from volfs.versions import onlooker
from volfs.versions.check.fsck import fsck

SHAPE = (16, 16, 16)
COMMITS = (
    "with volfs.open_store(root, **options) as store:\n"
    "    branch = store['cells'].branch('main')\n"
    "    branch.put('files/' + sys.argv[2], sys.argv[2].encode())\n"
    "    print(branch.commit(sys.argv[2]).number)\n"
)
COMMITS_IN_THE_STORE = COMMITS.replace("**options", "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    with init_store(root) as store:
        dataset = store.create_dataset("cells")
        write_version(dataset, volume(SHAPE), time_ns=START, files={"files/old": b"old"})
        dataset.create_tag("paper", 1)
        dataset.branch("main").put("files/loose", b"not committed")
    return root


def everything(root: Path) -> dict[str, tuple[int, int, int]]:
    """Every name in a store, with what changes when anybody touches it."""
    found = {}
    for path in (root, *root.rglob("*")):
        status = path.lstat()
        found[os.fspath(path)] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def on_read_only_disk(root: Path, place: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script where ``place`` shows the store on a read-only mount."""
    place.mkdir(exist_ok=True)
    return subprocess.run(
        ["unshare", "-m", "sh", "-ec", f"mount --bind {root} {place}\nmount -o remount,bind,ro {place}\n{script}"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
    )


# -- nothing is written --------------------------------------------------------------------------------------------


def test_reading_a_store_writes_nothing_to_it_and_waits_for_no_lock(root: Path) -> None:
    before = everything(root)
    held = [FileLock(path) for path in (root / "lock", root / "datasets/cells/lock")]
    for lock in held:
        lock.lock()
    locked = everything(root)
    with open_store(root, read_only=True) as store:
        cells = store["cells"]
        assert cells.version(1).read("files/old") == b"old"
        assert cells.branch("main").read("files/loose") == b"not committed"
        assert cells.branch("main").status().changes
        assert not store.refresh()
        assert fsck(store).findings == []
        assert everything(root) == locked
    for lock in held:
        lock.release()
    assert everything(root).keys() == before.keys()


def make_older(catalog: Path) -> None:
    """Leave a catalog as an older volfs left it: empty, but of the format before."""
    for path in catalog.parent.glob(f"{catalog.name}*"):
        path.unlink()
    with closing(sqlite3.connect(catalog)) as connection:
        connection.executescript(f"PRAGMA application_id = {APPLICATION_ID}; CREATE TABLE dataset (id INTEGER);")
        connection.execute("PRAGMA user_version = 1")


@pytest.mark.parametrize("read_only", [("--read-only",), ()], ids=["asked", "by command"])
def test_a_store_of_an_older_volfs_is_read_before_anybody_opened_it_for_writing(
    root: Path, read_only: tuple[str, ...]
) -> None:
    make_older(root / "catalog.sqlite")
    before = everything(root)
    for words in (("ls",), ("log", "cells"), ("branch", "cells"), ("stats",)):
        volfs(root, *read_only, *words)
    assert "files" in volfs(root, *read_only, "status", "cells").stdout
    assert everything(root) == before


@pytest.mark.parametrize("catalog", ["good", "gone", "garbage", "of an older volfs"])
def test_no_command_that_reads_writes_to_the_store_with_read_only(root: Path, tmp_path: Path, catalog: str) -> None:
    if catalog != "good":
        for path in root.glob("catalog.sqlite*"):
            path.unlink()
    if catalog == "garbage":
        (root / "catalog.sqlite").write_bytes(b"garbage" * 1000)
    elif catalog == "of an older volfs":
        make_older(root / "catalog.sqlite")
    before = everything(root)
    said = {
        words[0]: volfs(root, "--read-only", *words, ok=False)
        for words in (("ls",), ("log", "cells"), ("status", "cells"), ("stats",), ("branch", "cells"))
    }
    volfs(root, "--read-only", "export", "cells/s0@v1", tmp_path / "cells.tif")
    for name, done in said.items():
        assert done.returncode == 0, (name, done.stderr)
    assert "cells" in said["ls"].stdout and "loose" in said["status"].stdout + "loose"
    assert everything(root) == before


def test_what_would_write_is_refused_in_one_line(root: Path, tmp_path: Path) -> None:
    before = everything(root)
    for words in (
        ("commit", "cells", "-m", "no"),
        ("tag", "cells", "new", "v1"),
        ("branch", "cells", "new"),
        ("rm", "-y", "cells"),
        ("init", tmp_path / "new"),
    ):
        done = volfs(root, "--read-only", *words, ok=False)
        assert done.returncode == 1, words
        assert "read-only" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert volfs(root, "--read-only", "fsck", "--rebuild-catalog", ok=False).returncode == 2
    assert everything(root) == before
    assert not (tmp_path / "new").exists()


# -- on a read-only filesystem -------------------------------------------------------------------------------------


def test_a_store_on_a_read_only_mount_is_read_by_a_catalog_of_its_own(root: Path, tmp_path: Path) -> None:
    place, own, here = tmp_path / "ro", tmp_path / "own.sqlite", sys.executable
    done = on_read_only_disk(
        root,
        place,
        f"""
{here} -m volfs --store {place} --catalog {own} ls
{here} -m volfs --store {place} log cells
{here} -m volfs --store {place} --read-only status cells
{here} -m volfs --store {place} --catalog {own} --read-only fsck
""",
    )
    assert done.returncode == 0, done.stderr
    assert "cells" in done.stdout and "nothing is wrong" in done.stdout
    assert own.exists()


def test_a_mount_of_a_store_on_a_read_only_mount_shows_it(root: Path, tmp_path: Path) -> None:
    place, mountpoint = tmp_path / "ro", tmp_path / "mnt"
    mountpoint.mkdir()
    done = on_read_only_disk(
        root,
        place,
        f"""
{sys.executable} -m volfs --store {place} mount -r {mountpoint}
cat {mountpoint}/cells/versions/v1/files/old {mountpoint}/cells/branches/main/files/loose
ls {mountpoint}/cells/versions/v1/s0/xy | head -1
{sys.executable} -m volfs umount {mountpoint}
""",
    )
    assert done.returncode == 0, done.stderr
    assert "oldnot committed" in done.stdout and "z00000.png" in done.stdout


def test_opening_for_writing_what_cannot_be_written_leaves_nothing_behind(root: Path, tmp_path: Path) -> None:
    place, own = tmp_path / "ro", tmp_path / "own.sqlite"
    done = on_read_only_disk(root, place, f"{sys.executable} -m volfs --store {place} --catalog {own} tag cells new v1")
    assert done.returncode == 1
    assert "--read-only" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("own*"))
    (root / "catalog.sqlite").rename(tmp_path / "kept")
    done = on_read_only_disk(root, place, f"{sys.executable} -m volfs --store {place} branch cells new")
    assert "--read-only" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    (tmp_path / "kept").rename(root / "catalog.sqlite")
    done = on_read_only_disk(root, place, f"{sys.executable} -m volfs --store {place} --catalog {own} ls")
    assert "cells" in done.stdout


def test_a_failed_opening_takes_away_only_what_it_made(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, new = tmp_path / "kept.sqlite", tmp_path / "new.sqlite"
    open_store(root, catalog=kept).close()

    def fail(_: object) -> None:
        raise ReadOnly("not today")

    for module in ("store.recover", "onlooker.register"):
        monkeypatch.setattr(f"volfs.versions.{module}", fail)
    for catalog in (kept, new):
        for read_only in (False, True):
            with pytest.raises(ReadOnly):
                open_store(root, catalog=catalog, read_only=read_only)
    monkeypatch.undo()
    assert not list(tmp_path.glob("new*"))
    with open_store(root, catalog=kept, read_only=True) as store:
        assert store.datasets() == ["cells"]


# -- which catalog -------------------------------------------------------------------------------------------------


def test_the_stores_own_catalog_is_used_where_it_can_be(root: Path, tmp_path: Path) -> None:
    with open_store(root, read_only=True) as store:
        assert store.catalog_path == root / "catalog.sqlite"
    place = onlooker.own_place(store.layout, store.id)
    assert not place.exists()


@pytest.mark.parametrize("harm", ["gone", "garbage", "empty", "behind", "without a ref", "a link to nowhere"])
def test_where_it_cannot_be_used_another_is_made_in_the_state_directory(root: Path, harm: str) -> None:
    catalog = root / "catalog.sqlite"
    old = catalog.read_bytes()
    elsewhere(COMMITS, root, "more")
    if harm not in ("behind", "without a ref"):
        catalog.unlink()
    if harm == "garbage":
        catalog.write_bytes(b"garbage" * 1000)
    elif harm == "empty":
        catalog.touch()
    elif harm == "a link to nowhere":
        catalog.symlink_to("/nowhere")
    elif harm == "without a ref":
        with open_store(root) as store:
            old = catalog.read_bytes()
            store["cells"].create_branch("exp", 1)
        catalog.write_bytes(old)
    before = everything(root)
    for _ in range(2):
        with open_store(root, read_only=True) as store:
            cells = store["cells"]
            assert store.catalog_path == onlooker.own_place(store.layout, store.id)
            assert cells.resolve("main") == 2
            assert cells.version(2).read("files/more") == b"more"
            assert cells.tags() == {"paper": 1}
            assert ("exp" in cells.branches()) == (harm == "without a ref")
    assert everything(root) == before


def test_a_catalog_of_the_state_directory_that_was_damaged_is_made_anew(root: Path) -> None:
    (root / "catalog.sqlite").unlink()
    with open_store(root, read_only=True) as store:
        place = store.catalog_path
    place.write_bytes(b"garbage" * 1000)
    with open_store(root, read_only=True) as store:
        assert store["cells"].version(1).read("files/old") == b"old"


# -- never stale ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("catalog", ["in the store", "named", "of the state directory"])
def test_who_only_reads_sees_what_machines_with_other_catalogs_commit(root: Path, tmp_path: Path, catalog: str) -> None:
    if catalog == "of the state directory":
        (root / "catalog.sqlite").unlink()
    named = tmp_path / "reader.sqlite" if catalog == "named" else None
    with open_store(root, read_only=True, catalog=named) as reader:
        cells = reader["cells"]
        first = tree_of(cells.version(1))
        for number in (2, 3):
            assert elsewhere(COMMITS, root, f"new{number}") == f"{number}\n"
            before = {name: found for name, found in everything(root).items() if "lock" not in name}
            assert reader.refresh()
            assert cells.branches() == {"main": number}
            assert cells.version(number).read(f"files/new{number}") == f"new{number}".encode()
            assert tree_of(cells.version(1)) == first
            assert {name: found for name, found in everything(root).items() if "lock" not in name} == before
        elsewhere("with volfs.open_store(root, **options) as store:\n    store.create_dataset('more')\n", root)
        assert reader.refresh()
        assert reader.datasets() == ["cells", "more"]


def test_who_only_reads_sees_what_those_commit_who_use_the_stores_catalog(root: Path) -> None:
    with open_store(root, read_only=True) as reader:
        cells = reader["cells"]
        for number in (2, 3):
            elsewhere(COMMITS_IN_THE_STORE, root, f"new{number}")
            assert cells.version(number).read(f"files/new{number}") == f"new{number}".encode()
        assert reader.catalog_path == root / "catalog.sqlite"


def test_reads_are_right_while_others_open_write_and_close_the_catalog(root: Path) -> None:
    """A reader of a catalog at rest goes by the bare file: what it finds while somebody changes that is read again."""
    versions = {1: tree_of_version(root, 1)}
    wrong: list[object] = []
    stop = threading.Event()
    with open_store(root, read_only=True) as reader:
        cells = reader["cells"]

        def read() -> None:
            while not stop.is_set():
                try:
                    newest = cells.versions()[-1].number
                    cells.store.catalog._entries.clear()
                    cells.store.catalog._paths.clear()
                    found = {entry for entry, _ in cells.version(newest).list("files")}
                    if found != {"old", "loose", *(f"new{n}" for n in range(2, newest + 1))} - (
                        {"loose"} if newest == 1 else set()
                    ):
                        wrong.append((newest, found))
                    if tree_of(cells.version(1)) != versions[1]:
                        wrong.append("v1")
                except Exception as error:
                    wrong.append(error)

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for number in range(2, 8):
                elsewhere(COMMITS_IN_THE_STORE, root, f"new{number}")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert wrong == []


def tree_of_version(root: Path, number: int) -> dict[str, bytes]:
    with open_store(root, read_only=True) as store:
        return tree_of(store["cells"].version(number))
