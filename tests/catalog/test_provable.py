"""The catalog, damaged or replaced: what a version holds is right or an error, never anything else, and it is mended
from the store's own files."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kits.catalog_histories import SHA, SHAPE, History, put
from tests.kits.mounts import volfs
from tests.kits.stores import START, array_at, new_store, tree_of, volume, write_version
from volfs import open_store
from volfs.catalog import Catalog
from volfs.catalog.sums import block_seed, payload_checks
from volfs.catalog.values import PAYLOAD
from volfs.errors import Damaged, NotFound, StoreFormat, VolfsError
from volfs.model.box import Box
from volfs.model.refs import RefKind
from volfs.storage.files import read_json
from volfs.storage.manifest import ManifestBuilder
from volfs.storage.payload import Payload
from volfs.versions.check.fsck import fsck
from volfs.versions.ref_file import read_ref
from volfs.versions.store import set_aside_damaged

# -- flipped bits -------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who only reads may keep a catalog of its own there."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def a_history(path: Path) -> None:
    """Thirty versions on several branches: names, chunks that are put and removed, blocks with owners, refs."""
    pick = random.Random(5)

    def chunk(builder: ManifestBuilder, number: int, at: tuple[int, int], offset: int) -> None:
        builder.put_chunk("a", at, Payload(f"{number:08d}/f", offset, 5, number * 1000 + offset), SHA)

    with Catalog.open(path, create=True) as catalog:
        history = History(catalog)
        builder = put("zarr/zarr.json", "zarr/a/zarr.json", "files/x", "files/d/y")
        for i in range(4):
            for j in range(4):
                chunk(builder, 1, (i, j), i * 4 + j)
        history.commit(builder, {"a": SHAPE})
        for number in range(2, 31):
            builder = ManifestBuilder()
            builder.put("files/x", Payload(f"{number:08d}/x", 0, 5, number), SHA)
            if number % 3:
                chunk(builder, number, (pick.randrange(2), pick.randrange(4)), number)
            if number % 5 == 0:
                builder.put(f"files/d/n{number}", Payload(f"{number:08d}/n", 0, 5, number), SHA)
            history.commit(builder, parent=None if number % 4 else pick.randrange(max(1, number - 5), number))
        catalog.set_refs(history.dataset, {RefKind.BRANCH: {"main": 30, "x": 7}, RefKind.TAG: {"t": 3}})


def answers(path: Path) -> dict[Any, Any]:
    """Everything that can be asked of a catalog; an error where that is the answer."""
    found: dict[Any, Any] = {}

    def ask(key: Any, question: Callable[[], Any]) -> Any:
        try:
            found[key] = question()
        except VolfsError as error:
            found[key] = error
            return None
        return found[key]

    try:
        opened = Catalog.open(path, read_only=True)
    except VolfsError as error:
        return {"open": error}
    with opened as catalog:
        dataset = (ask("datasets", catalog.datasets) or {}).get("cells", 1)
        ask("refs", lambda: catalog.refs(dataset))
        graph = ask("graph", lambda: list(catalog.graph(dataset).versions.values())) and catalog.graph(dataset)
        for number in range(1, 31) if graph else ():
            at = graph.at(number)
            node = ask((number, "node"), lambda at=at: catalog.entry(dataset, at, "zarr/a").dir_id)
            for folder in ("", "files", "files/d", "zarr"):
                entry = ask((number, folder), lambda at=at, folder=folder: catalog.entry(dataset, at, folder))
                if entry is not None:
                    listed = lambda at=at, entry=entry: catalog.list_entries(dataset, at, entry.dir_id)  # noqa: E731
                    ask((number, folder, "listed"), listed)
            ask((number, "x"), lambda at=at: catalog.entry(dataset, at, "files/x"))
            if node is None:
                continue
            ask((number, "born"), lambda node=node: (catalog.born(node), catalog.block_shape(node)))
            for block in ((0, 0), (0, 1), (1, 0), (1, 1)):
                ask((number, block), lambda at=at, node=node, block=block: plain(catalog.block_map(node, at, block)))
                for cell in range(4):
                    one = lambda at=at, node=node, block=block, cell=cell: catalog.chunk(node, at, block, cell)  # noqa: E731
                    ask((number, block, cell), one)
            newest = lambda at=at, node=node: [(b, c.tolist()) for b, c in catalog.newest_changes(node, at)]  # noqa: E731
            ask((number, "newest"), newest)
            changed = lambda at=at, node=node: [  # noqa: E731
                (c.block, c.version, c.cells.tolist()) for c in catalog.changes(node, at, None)
            ]
            ask((number, "changes"), changed)
    return found


def plain(block: Any) -> object:
    return block.owner.tolist(), block.changed.tolist(), [block.payload(cell) for cell in block.present()]


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_bit_in_the_catalog_is_damaged_and_never_another_answer(tmp_path, seed, soak):
    path = tmp_path / "catalog.sqlite"
    a_history(path)
    right = answers(path)
    assert not [answer for answer in right.values() if isinstance(answer, Exception)]
    raw = path.read_bytes()
    pick = random.Random(seed)
    written = [at for at in range(len(raw)) if raw[at]]
    damaged = 0
    for _ in range(1000 if soak else 20):
        changed = bytearray(raw)
        changed[pick.choice(written)] ^= 1 << pick.randrange(8)
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        path.write_bytes(changed)
        got = answers(path)
        for question, answer in got.items():
            if isinstance(answer, Exception):
                assert isinstance(answer, Damaged | StoreFormat | NotFound), (question, answer)
                assert "\n" not in str(answer)
            else:
                assert answer == right[question], question
        damaged += any(isinstance(answer, Exception) for answer in got.values())
    assert damaged


def test_every_bit_of_a_chunks_payload_its_cell_and_its_version_is_proved():
    payloads = np.zeros(3, PAYLOAD)
    payloads["file"], payloads["offset"], payloads["length"], payloads["crc32c"] = (
        300,
        [0, 9, 2**40],
        5,
        [7, 8, 2**32 - 1],
    )
    cells, versions = np.array([0, 1, 511]), np.array([1, 1, 10**6])
    seed = block_seed(3, bytes(12))
    right = payload_checks(seed, cells, versions, payloads)
    assert right.all()
    for field in PAYLOAD.names:
        for bit in range(8 * PAYLOAD[field].itemsize):
            flipped = payloads.copy()
            flipped[field] ^= PAYLOAD[field].type(1 << bit)
            assert (payload_checks(seed, cells, versions, flipped) != right).all(), (field, bit)
    for bit in range(16):
        assert (payload_checks(seed, cells ^ (1 << bit), versions, payloads) != right).all()
    for bit in range(31):
        assert (payload_checks(seed, cells, versions ^ (1 << bit), payloads) != right).all()
        assert (payload_checks(seed ^ (1 << bit), cells, versions, payloads) != right).all()
    assert (payload_checks(seed, cells, versions, np.roll(payloads, 1)) != right).all()


# -- a whole file in its place ------------------------------------------------------------------------------------


def settle(root: Path) -> bytes:
    """The catalog of a store that nobody has open, in one file."""
    with closing(sqlite3.connect(root / "catalog.sqlite")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return (root / "catalog.sqlite").read_bytes()


def a_store(root: Path, versions: int, seed: int = 0) -> Path:
    with new_store(root) as store:
        dataset = store.create_dataset("cells")
        for number in range(versions):
            write_version(dataset, volume((8, 8, 8), seed + number), parent=number, time_ns=START + number * 10**10)
    return root


def add_version(root: Path, seed: int) -> None:
    with open_store(root) as store:
        parent = store["cells"].resolve("main")
        write_version(store["cells"], volume((8, 8, 8), seed), parent=parent, time_ns=START + seed * 10**10)


@pytest.fixture(scope="module")
def replaced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A store of two versions, and catalogs that are not its own, or not of this state of it."""
    folder = tmp_path_factory.mktemp("replaced")
    root = a_store(folder / "store", 1)
    catalogs = {"an older one": settle(root)}
    shutil.copytree(root, folder / "copy")
    add_version(root, 50)
    now = settle(root)
    add_version(folder / "copy", 60)
    catalogs["one of a copy that went another way"] = settle(folder / "copy")
    shutil.copytree(root, folder / "later")
    add_version(folder / "later", 70)
    catalogs["a newer one"] = settle(folder / "later")
    catalogs["one of another store"] = settle(a_store(folder / "foreign", 2, seed=90))
    with closing(sqlite3.connect(folder / "other.sqlite")) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.commit()
    catalogs["another SQLite file"] = (folder / "other.sqlite").read_bytes()
    catalogs |= {"empty": b"", "text": b"hello world\n" * 1000, "zeros": bytes(len(now)), "garbage": os.urandom(50_000)}
    catalogs |= {"half": now[: len(now) // 2], "one page": now[:8192]}
    newer = bytearray(now)
    newer[60:64] = (99).to_bytes(4, "big")  # user_version
    catalogs["one of a newer volfs"] = bytes(newer)
    settle(root)
    return root, catalogs


KINDS = [
    "an older one",
    "one of a copy that went another way",
    "a newer one",
    "one of another store",
    "another SQLite file",
    "empty",
    "text",
    "zeros",
    "garbage",
    "half",
    "one page",
    "one of a newer volfs",
    "a directory",
    "a link to nowhere",
    "a FIFO",
]


def lay(root: Path, kind: str, catalogs: dict[str, bytes]) -> None:
    place = root / "catalog.sqlite"
    for suffix in ("", "-wal", "-shm"):
        Path(f"{place}{suffix}").unlink(missing_ok=True)
    if kind == "a directory":
        place.mkdir()
    elif kind == "a link to nowhere":
        place.symlink_to("/nonexistent/catalog")
    elif kind == "a FIFO":
        os.mkfifo(place)
    else:
        place.write_bytes(catalogs[kind])


def seen(root: Path, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with open_store(root, **options) as store:
        for ref in ("v1", "v2", "v3", "main", "latest"):
            try:
                found[ref] = tree_of(store["cells"].version(store["cells"].resolve(ref)))
            except VolfsError as error:
                found[ref] = error
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_catalog_that_is_not_the_stores_is_found_out_and_mended(replaced, tmp_path, kind, caplog):
    root, catalogs = tmp_path / "store", replaced[1]
    shutil.copytree(replaced[0], root)
    right = seen(root)
    assert isinstance(right.pop("v3"), NotFound)
    lay(root, kind, catalogs)
    try:
        got = seen(root, read_only=True)
    except (Damaged, StoreFormat, NotFound) as error:
        assert "\n" not in str(error)
        assert "catalog.sqlite" in str(error)
    else:
        for ref, tree in right.items():
            assert isinstance(got[ref], VolfsError) or got[ref] == tree, ref
    if kind == "one of a newer volfs":
        with pytest.raises(StoreFormat, match="newer volfs"):
            open_store(root)
        assert set_aside_damaged(root)
    with caplog.at_level(logging.WARNING):
        got = seen(root)
    assert isinstance(got.pop("v3"), NotFound)
    assert got == right
    assert kind in ("empty", "an older one", "one of a newer volfs") or "catalog" in caplog.text
    with open_store(root) as store:
        assert fsck(store).clean


@pytest.mark.parametrize("kind", KINDS)
def test_fsck_rebuild_catalog_mends_every_kind(replaced, tmp_path, kind):
    root, catalogs = tmp_path / "store", replaced[1]
    shutil.copytree(replaced[0], root)
    right = seen(root)
    del right["v3"]
    lay(root, kind, catalogs)
    volfs(root, "fsck", "--rebuild-catalog")
    got = seen(root, read_only=True)
    del got["v3"]
    assert got == right


def test_what_lies_at_a_place_given_by_name_is_refused_and_left_alone(tmp_path):
    root = a_store(tmp_path / "store", 1)
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes\n" * 1000)
    for read_only in (False, True, False):
        with pytest.raises(Damaged, match=r"notes\.txt.*; name another place with --catalog") as refused:
            open_store(root, catalog=notes, read_only=read_only)
        assert "next opening" not in str(refused.value), "which makes nothing anew that somebody named"
    assert notes.read_text() == "my notes\n" * 1000


def test_a_catalog_that_others_have_open_is_not_taken_away(tmp_path):
    root = a_store(tmp_path / "store", 1)
    with open_store(root) as store:
        store["cells"].versions()
        (root / "catalog.sqlite.suspect").write_text("a row\n")
        with open_store(root) as other:
            assert other["cells"].resolve("main") == 1
        assert not (root / "catalog.sqlite.damaged").exists()
    assert seen(root)["main"]
    assert (root / "catalog.sqlite.damaged").exists()


def test_a_row_that_was_found_damaged_is_mended_by_the_next_opening(tmp_path, caplog):
    root = a_store(tmp_path / "store", 2)
    right = seen(root)
    with closing(sqlite3.connect(root / "catalog.sqlite")) as connection:
        connection.execute("UPDATE block SET cells = x'0100' WHERE version = 1")
        connection.commit()
    with open_store(root) as store, pytest.raises(Damaged, match="checksum"):
        array = array_at(store["cells"].version(2))
        array.payloads(Box.whole(array.meta.grid.grid_shape))
    with caplog.at_level(logging.WARNING):
        got = seen(root)
    assert {ref: got[ref] for ref in ("v1", "v2", "main")} == {ref: right[ref] for ref in ("v1", "v2", "main")}
    assert "made anew" in caplog.text
    with open_store(root) as store:
        assert fsck(store).clean


# -- identity -----------------------------------------------------------------------------------------------------


def test_a_dataset_removed_and_made_again_is_a_new_one_in_every_catalog(tmp_path):
    root = a_store(tmp_path / "store", 2)
    mine = tmp_path / "mine.sqlite"
    with open_store(root, catalog=mine) as store:
        before = tree_of(store["cells"].version(2))
        ident = store.catalog.dataset_rows()["cells"]
        with open_store(root) as other:
            other.remove_dataset("cells")
            write_version(other.create_dataset("cells"), volume((8, 8, 8), 77))
            wanted = tree_of(other["cells"].version(1))
        store.refresh()
        again = store.catalog.dataset_rows()["cells"]
        assert (again.id, again.uuid) != (ident.id, ident.uuid)
        assert again.created_ns != ident.created_ns  # which the inodes of the tree are made from
        assert tree_of(store["cells"].version(1)) == wanted != before
        assert sorted(info.number for info in store["cells"].versions()) == [1]
    with open_store(root, catalog=mine) as store:
        assert tree_of(store["cells"].version(1)) == wanted
        assert fsck(store).clean


def test_a_dataset_made_again_while_a_catalog_was_closed_is_a_new_one_too(tmp_path):
    root = a_store(tmp_path / "store", 2)
    mine = tmp_path / "mine.sqlite"
    open_store(root, catalog=mine).close()
    with open_store(root) as other:
        other.remove_dataset("cells")
        write_version(other.create_dataset("cells"), volume((8, 8, 8), 77))
        wanted = tree_of(other["cells"].version(1))
    for read_only in (True, False):
        with open_store(root, catalog=mine, read_only=read_only) as store:
            assert tree_of(store["cells"].version(1)) == wanted
            assert len(store["cells"].versions()) == 1


def test_a_dataset_of_an_older_volfs_gets_an_id_and_its_refs_checksums_at_the_next_opening_for_writing(tmp_path):
    root = a_store(tmp_path / "store", 2)
    path, ref = root / "datasets/cells/dataset.json", root / "datasets/cells/refs/heads/main.json"
    document = read_json(path)
    del document["id"]
    path.write_text(json.dumps(document))
    ref.write_text('{"version": 2}')
    open_store(root, read_only=True).close()
    assert not read_ref(ref).sealed
    with open_store(root) as store:
        assert read_json(path)["id"]
        assert read_ref(ref).content_id == store["cells"].info(2).content_id
    ident = read_json(path)["id"]
    with open_store(root) as store:
        assert read_json(path)["id"] == ident
        assert fsck(store).clean
