"""fsck: each invariant of a store is broken here once, and must be told of, where it was broken and nowhere else."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from tests.kits.stores import START, array_at, array_json, codecs, tree_of, volume, write_version
from volfs import init_store, open_store
from volfs.catalog.lineages import ENTRY_COLUMNS
from volfs.catalog.sums import block_seed, entry_sum, payload_checks
from volfs.catalog.values import PAYLOAD
from volfs.errors import NotFound
from volfs.model.box import Box
from volfs.storage.directory_backend import DirectoryBackend
from volfs.storage.files import FileLock
from volfs.storage.manifest import RECORD, Manifest
from volfs.versions.check.fsck import Finding, Report, fsck
from volfs.versions.commit.version_writer import VersionWriter

SHAPE = (16, 16, 16)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "store"
    with init_store(root) as store:
        dataset = store.create_dataset("cells")
        files = {"files/a": b"a" * 50, "files/d/b": b"b", "files/gone": b"gone"}
        write_version(dataset, volume(SHAPE), files=files, time_ns=START, codecs=codecs("zstd"))
        write_version(dataset, volume(SHAPE, 1), parent=1, coords=[(1, 1, 1)], codecs=codecs("zstd"))
        with VersionWriter(dataset, "main", 2) as writer:
            writer.remove("files/gone")
            writer.remove_subtree("files/d")
            array = writer.array("s0", dataset.version(2).read("zarr/s0/zarr.json"), created=False)
            array.remove((0, 0, 0))
            writer.put("files/c", b"c")
            writer.publish("removed")
        dataset.create_branch("exp", "v1")
        dataset.create_tag("paper", "v2")
        write_version(dataset, volume(SHAPE, 2), parent=1, branch="exp", coords=[(0, 1, 0)], codecs=codecs("zstd"))
        store.create_dataset("other")
    return root


def cells(root):
    return root / "datasets/cells"


def check(root, **options) -> Report:
    with open_store(root, read_only=not options) as store:
        return fsck(store, **options)


def told(root, what: str, where: str = "") -> list[Finding]:
    """The findings, all of which must say this."""
    findings = check(root).findings
    assert findings, "nothing was found"
    for finding in findings:
        assert what in finding.what, finding
        assert where in finding.where, finding
        assert "\n" not in finding.what + finding.where
    return findings


def payload_of(root, number, key):
    with open_store(root, read_only=True) as store:
        return store["cells"].version(number).payload(key)


@contextmanager
def catalog(root) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(root / "catalog.sqlite")
    yield connection
    connection.commit()
    connection.close()


@contextmanager
def manifest(root, number) -> Iterator[list[np.ndarray]]:
    """Change the records of a version's manifest in place."""
    path = cells(root) / f"versions/{number:08d}/manifest.npy.zst"
    old = Manifest.from_bytes(path.read_bytes())
    box = [old.records.copy()]
    yield box
    path.write_bytes(Manifest(old.strings, box[0].astype(RECORD), old.pieces).to_bytes())


def edit_json(path, **fields):
    """Change a document as a person would: without its checksum, which would tell."""
    document = json.loads(path.read_text()) | fields
    document.pop("checksum", None)
    path.write_text(json.dumps(document))


# -- a whole store ------------------------------------------------------------------------------------------------


def test_a_whole_store_is_found_whole_and_counted(root):
    told_progress = []
    with open_store(root, read_only=True) as store:
        report = fsck(store, progress=lambda done, total, what: told_progress.append((done, total, what)))
    assert report.clean
    assert (report.datasets, report.versions) == (2, 4)
    assert report.payloads == 13 + 1 + 1 + 1
    assert told_progress[-1] == (report.bytes, report.bytes, "cells")


def test_one_dataset_may_be_checked_alone(root):
    (cells(root) / "dataset.json").write_text("{")
    with open_store(root, read_only=True) as store:
        assert fsck(store, datasets=["other"]).clean
        with pytest.raises(NotFound):
            fsck(store, datasets=["nothing"])


# -- payloads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "key"), [(1, "files/a"), (1, "zarr/s0/c/0/1/1"), (2, "zarr/s0/c/1/1/1")])
def test_a_flipped_bit_is_named_with_key_file_and_offset(root, number, key):
    payload = payload_of(root, number, key)
    path = cells(root) / "versions" / payload.file
    raw = bytearray(path.read_bytes())
    raw[payload.offset + payload.length // 2] ^= 16
    path.write_bytes(raw)
    (finding,) = told(root, "checksum mismatch")
    assert (finding.dataset, finding.version, finding.key) == ("cells", number, key)
    assert (finding.file, finding.offset) == (payload.file, payload.offset)


def test_a_missing_file_is_named_by_every_key_in_it(root):
    payload = payload_of(root, 1, "zarr/s0/c/0/1/1")
    (cells(root) / "versions" / payload.file).unlink()
    findings = told(root, payload.file, "zarr/s0/c")
    assert len(findings) == 8


def test_bytes_altered_with_their_crc_are_proved_wrong_by_the_sha(root):
    from crc32c import crc32c

    path = cells(root) / "versions/00000001/files/a"
    path.write_bytes(b"A" * 50)
    with manifest(root, 1) as box:
        row = box[0]["length"] == 50
        box[0]["crc32c"][row] = crc32c(b"A" * 50)
    with catalog(root) as cx:
        row = list(
            cx.execute(f"SELECT dir, name, lineage, position, {ENTRY_COLUMNS} FROM entry WHERE length = 50").fetchone()
        )
        row[10] = crc32c(b"A" * 50)
        altered = (row[10], entry_sum(row[0], row[1], tuple(row[2:-1])))
        cx.execute("UPDATE entry SET crc32c = ?, sum = ? WHERE length = 50", altered)
    told(root, "SHA-256", "v1 files/a")


def test_a_chunk_that_was_committed_but_does_not_decode_is_named(root):
    with open_store(root) as store:
        dataset = store["cells"]
        with VersionWriter(dataset, "main", 3) as writer:
            raw = dataset.version(3).read("zarr/s0/zarr.json")
            writer.array("s0", raw, created=False).put((0, 1, 1), b"no zstd frame")
            writer.publish("bad")
    (finding,) = told(root, "", "v5 zarr/s0/c/0/1/1")
    assert finding.offset == 0


def test_an_index_of_a_shard_that_differs_from_the_manifest_is_found(root):
    with open_store(root) as store:
        write_version(store["cells"], volume(SHAPE, 8), parent=3, path="t", created=True)
    payload = payload_of(root, 5, "zarr/t/c/0/0/0")
    path = cells(root) / "versions" / payload.file
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 1
    path.write_bytes(raw)
    told(root, "shard index", "versions/00000005/zarr/t/c/0/0/0")


def test_a_shard_that_is_removed_while_it_is_looked_at_keeps_no_other_from_being_checked(root, monkeypatch):
    gone = cells(root) / "versions" / payload_of(root, 1, "zarr/s0/c/0/0/0").file
    real = DirectoryBackend.stat

    def stat(self, key):
        found = real(self, key)
        if self.root / key == gone and gone.exists():
            gone.unlink()
            self.forget()
        return found

    monkeypatch.setattr(DirectoryBackend, "stat", stat)
    (cells(root) / "versions/00000001/zarr/s0/stray").touch()
    (finding,) = told(root, "accounts for")
    assert finding.key == "versions/00000001/zarr/s0/stray"


# -- what versions say of themselves ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"), [("message", "another"), ("author", "another"), ("time_ns", START + 5), ("parents", [])]
)
def test_an_altered_version_json_is_found_by_content_id_and_catalog(root, field, value):
    number = 2 if field == "parents" else 3
    edit_json(cells(root) / f"versions/{number:08d}/version.json", **{field: value})
    whats = {finding.what for finding in check(root).findings}
    assert f"the catalog has another {field}" in whats
    assert any("content id" in what for what in whats)


def test_an_altered_content_id_shows_in_all_that_descends_from_it(root):
    edit_json(cells(root) / "versions/00000001/version.json", content_id="0" * 64)
    versions = {finding.version for finding in check(root).findings if "content id does not match" in finding.what}
    assert versions == {1, 2, 4}  # 3 says what its parent 2 says of itself


def test_a_removal_taken_out_of_a_manifest_is_found(root):
    with manifest(root, 3) as box:
        box[0] = box[0][box[0]["op"] != 3]
    whats = " ".join(finding.what for finding in check(root).findings)
    assert "content id" in whats
    assert "does not list" in whats


def test_a_record_that_is_there_twice_is_found(root):
    with manifest(root, 2) as box:
        box[0] = np.concatenate([box[0], box[0][:1]])
    assert any("recorded twice" in finding.what for finding in check(root).findings)


@pytest.mark.parametrize("name", ["version.json", "manifest.npy.zst"])
@pytest.mark.parametrize("how", ["gone", "garbage"])
def test_a_version_that_lost_its_description_is_named_and_the_rest_is_checked(root, name, how):
    path = cells(root) / "versions/00000002" / name
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(b"garbage")
    (cells(root) / "versions/00000001/files/a").write_bytes(b"A" * 50)
    findings = check(root).findings
    assert any(finding.version == 2 and name in finding.where for finding in findings)
    assert any(finding.version == 1 and finding.key == "files/a" for finding in findings)


def test_a_version_in_the_place_of_another_is_found(root):
    shutil.rmtree(cells(root) / "versions/00000003")
    shutil.copytree(cells(root) / "versions/00000002", cells(root) / "versions/00000003")
    assert any("says it is v2" in finding.what for finding in check(root).findings)


def test_a_missing_version_is_missed_by_refs_children_and_catalog(root):
    shutil.rmtree(cells(root) / "versions/00000002")
    whats = {finding.where: finding.what for finding in check(root).findings}
    assert "not there" in whats["refs/tags/paper.json"]
    assert "not there" in whats["v2"]
    assert "parent v2" in whats["v3"]


def test_metadata_beside_shards_that_is_not_the_arrays_is_found(root):
    edit_json(cells(root) / "versions/00000002/zarr/s0/zarr.as-written.json", fill_value=5)
    assert any("zarr.as-written.json" in finding.where for finding in check(root).findings)
    edit_json(cells(root) / "versions/00000002/zarr/zarr.json", attributes={"x": 1})
    assert any("zarr/zarr.json" in finding.where for finding in check(root).findings)


@pytest.mark.parametrize("field", ["shape", "fill_value", "codecs", "chunk_grid"])
@pytest.mark.parametrize("number", [1, 2])
def test_metadata_that_other_readers_would_go_wrong_by_is_found(root, number, field):
    wrong = {
        "shape": [16, 16, 8],
        "fill_value": 3,
        "codecs": [{"name": "bytes", "configuration": {"endian": "big"}}],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [16, 16, 4]}},
    }
    edit_json(cells(root) / f"versions/{number:08d}/zarr/s0/zarr.json", **{field: wrong[field]})
    told(root, "other programs", "zarr/s0/zarr.json")


@pytest.mark.parametrize(
    "name", ["stray", "zarr/s0/c/9/9/9", "files/b", "zarr/other/zarr.json", "zarr/zarr.as-written.json.bak"]
)
def test_files_that_nothing_accounts_for_are_named(root, name):
    path = cells(root) / "versions/00000002" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    (finding,) = told(root, "accounts for")
    assert finding.where.endswith(f"versions/00000002/{name}")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("notes.txt", "does not belong"),
        (".00000009.partial", "writer is gone"),
        (".00000009.publish.json", "when its writer died"),
    ],
)
def test_what_lies_between_versions_is_named(root, name, what):
    path = cells(root) / "versions" / name
    path.mkdir() if name.endswith("partial") else path.write_text("{}")
    told(root, what, name)


@pytest.mark.parametrize("folder", [".", "zarr/s0", "files", "objects"])
def test_what_was_half_written_in_a_version_is_named(root, folder):
    path = cells(root) / "versions/00000002" / folder / f".zarr.json.{16 * 'a'}.partial"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"half of")
    (finding,) = told(root, "was being written when its process died")
    assert finding.where == str(path.relative_to(cells(root)))


def test_a_side_file_may_be_called_as_if_it_were_half_written(root):
    with open_store(root) as store:
        branch = store["cells"].branch("main")
        branch.put(f"files/.a.{16 * 'b'}.partial", b"whole")
        number = branch.commit("a name like any other").number
        assert store["cells"].version(number).read(f"files/.a.{16 * 'b'}.partial") == b"whole"
        assert fsck(store).findings == []


def test_a_version_being_written_is_no_finding(root):
    with open_store(root) as store, VersionWriter(store["cells"], "main", 3) as writer:
        writer.put("files/x", b"x")
        assert fsck(store).clean


# -- refs and working copies --------------------------------------------------------------------------------------


def test_refs_that_do_not_agree_with_the_catalog_are_found(root):
    refs = cells(root) / "refs"
    (refs / "heads/main.json").write_text('{"version": 2}')
    told(root, "the catalog says v3", "refs/heads/main.json")
    (refs / "heads/main.json").write_text('{"version": 3}')
    (refs / "tags/new.json").write_text('{"version": 1}')
    told(root, "the catalog says nothing", "refs/tags/new.json")
    (refs / "tags/new.json").unlink()
    (refs / "tags/paper.json").unlink()
    told(root, "is missing", "refs/tags/paper.json")


@pytest.mark.parametrize("content", ["{", '{"version": -1}', '{"version": "3"}', "{}", '{"version": 0}'])
def test_a_ref_that_names_no_version_is_found(root, content):
    (cells(root) / "refs/tags/paper.json").write_text(content)
    findings = check(root).findings
    assert findings
    assert all("paper" in finding.where for finding in findings)


def test_other_files_among_refs_are_found(root):
    (cells(root) / "refs/heads/main.json~").write_text("")
    told(root, "does not belong", "refs/heads/main.json~")


def test_working_copies_without_a_branch_and_dead_commits_are_found(root):
    (cells(root) / "working/lost/top/files").mkdir(parents=True)
    told(root, "no branch", "working/lost")
    shutil.rmtree(cells(root) / "working/lost")
    (cells(root) / "working/exp").mkdir(exist_ok=True)
    (cells(root) / "working/exp/commit.json").write_text("{}")
    told(root, "under way", "working/exp")
    lock = FileLock(cells(root) / "working/exp/lock")
    assert lock.try_lock()
    assert check(root).clean
    lock.release()


def test_a_dataset_that_is_not_what_it_says_is_found(root):
    edit_json(cells(root) / "dataset.json", name="mitochondria", default_branch="trunk")
    whats = [finding.what for finding in check(root).findings]
    assert len(whats) == 2
    assert "mitochondria" in whats[0]
    assert "trunk" in whats[1]


def test_a_directory_that_is_no_dataset_is_found(root):
    (root / "datasets/photos").mkdir()
    told(root, "is no dataset", "photos")


# -- the catalog --------------------------------------------------------------------------------------------------

SABOTAGE = {
    "an object points elsewhere": "UPDATE entry SET offset = 7 WHERE kind = 2 AND length = 50",
    "an object is missing": "DELETE FROM entry WHERE kind = 2 AND length = 50",
    "an object is made up": (
        "INSERT INTO entry (dir, name, lineage, position, version, kind, child, file, offset, length, crc32c, mode,"
        " mtime_ns, sum) SELECT dir, x'6e6577', lineage, position, version, 2, 0, file, offset, length, crc32c, 0, 0,"
        " sum FROM entry WHERE kind = 2 AND length = 50"
    ),
    "a mode is another": "UPDATE entry SET mode = 493 WHERE kind = 2 AND length = 50",
    "a time is another": "UPDATE entry SET mtime_ns = 7 WHERE kind = 2 AND length = 50",
    "a removed object is back": "DELETE FROM entry WHERE kind = 0 AND name = x'676f6e65'",
    "a block is missing": "DELETE FROM block WHERE version = 2",
    "a message is another": "UPDATE version SET message = 'other' WHERE number = 2",
    "a content id is another": "UPDATE version SET content_id = 'ff' WHERE number = 2",
    "a version is missing": "DELETE FROM version WHERE number = 4",
    "a ref is another": "UPDATE ref SET version = 1 WHERE name = 'main'",
    "a ref is made up": "INSERT INTO ref SELECT dataset, kind, 'new', 1 FROM ref LIMIT 1",
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_a_catalog_that_says_something_else_is_found_and_rebuilt(root, what):
    with open_store(root, read_only=True) as store:
        before = {n: tree_of(store["cells"].version(n)) for n in (1, 2, 3, 4)}
    with catalog(root) as cx:
        assert cx.execute(SABOTAGE[what]).rowcount > 0
    assert check(root).findings
    with open_store(root) as store:
        assert fsck(store, rebuild_catalog=True).findings == []
        assert {n: tree_of(store["cells"].version(n)) for n in (1, 2, 3, 4)} == before


@pytest.mark.parametrize("sealed", [True, False])
def test_a_chunk_row_that_says_something_else_is_found(root, sealed):
    with catalog(root) as cx:
        node, block, lineage, position, payloads = cx.execute(
            "SELECT node, block, lineage, position, payloads FROM block WHERE version = 2"
        ).fetchone()
        altered = np.frombuffer(payloads, PAYLOAD).copy()
        altered["offset"] += 9
        cells = np.frombuffer(cx.execute("SELECT cells FROM block WHERE version = 2").fetchone()[0], "<u2")
        checks = payload_checks(block_seed(node, block), cells, 2, altered).tobytes() if sealed else None
        cx.execute(
            "UPDATE block SET payloads = ?, checks = coalesce(?, checks)"
            " WHERE node = ? AND block = ? AND lineage = ? AND position = ?",
            (altered.tobytes(), checks, node, block, lineage, position),
        )
    if not sealed:
        said = told(root, "does not match its checksum")
        assert "v2" in [finding.where for finding in said]
        return
    (finding,) = told(root, "other bytes for this chunk", "v2 zarr/s0/c/1/1/1")
    assert finding.version == 2


def test_a_catalog_that_is_no_database_is_set_aside_and_comes_back(root):
    with open_store(root, read_only=True) as store:
        before = tree_of(store["cells"].version(3))
    for path in root.glob("catalog.sqlite-*"):
        path.unlink()
    (root / "catalog.sqlite").write_bytes(b"garbage" * 1000)
    with open_store(root, read_only=True) as store:  # who only reads goes by another
        assert tree_of(store["cells"].version(3)) == before
    with open_store(root) as store:
        assert (root / "catalog.sqlite.damaged").read_bytes() == b"garbage" * 1000
        assert fsck(store).findings == []
        assert tree_of(store["cells"].version(3)) == before


def test_rebuilding_keeps_every_version_branch_tag_and_time(root):
    with open_store(root) as store:
        dataset = store["cells"]
        infos, refs = dataset.versions(), dataset.refs()
        whole = Box.whole(array_at(dataset.version(3)).meta.grid.grid_shape)
        times = {n: array_at(dataset.version(n)).newest((0, 1)).tolist() for n in (1, 2, 3, 4)}
        tokens = {n: {at: p.read() for at, p in array_at(dataset.version(n)).payloads(whole).items()} for n in (1, 3)}
        assert fsck(store, rebuild_catalog=True).clean
        again = store["cells"]
        assert again.versions() == infos
        assert again.refs() == refs
        assert {n: array_at(again.version(n)).newest((0, 1)).tolist() for n in (1, 2, 3, 4)} == times
        assert {
            n: {at: p.read() for at, p in array_at(again.version(n)).payloads(whole).items()} for n in (1, 3)
        } == tokens
        write_version(again, volume(SHAPE, 3), parent=3, coords=[(1, 0, 0)], codecs=codecs("zstd"))
        assert fsck(store).clean


def test_rebuilding_leaves_out_a_damaged_version_and_keeps_the_rest(root):
    (cells(root) / "versions/00000004/manifest.npy.zst").write_bytes(b"garbage")
    with open_store(root) as store:
        report = fsck(store, rebuild_catalog=True)
        assert {finding.version for finding in report.findings if finding.version} == {4}
        assert [info.number for info in store["cells"].versions()] == [1, 2, 3]
        assert store["cells"].version(3).read("files/c") == b"c"


def test_an_array_json_that_changed_block_shapes_does_not_confuse_a_rebuild(root):
    """The index shape of an array is that of the version that made it, whatever later code would choose."""
    with open_store(root) as store:
        voxels = volume((64, 16, 16), 4)
        write_version(store["cells"], voxels, parent=3, raw=array_json(voxels, (8, 8, 8)), coords=[], created=True)
        shape = array_at(store["cells"].version(5)).block_shape
        grown = volume((640, 160, 160), 4)
        write_version(store["cells"], grown, parent=5, raw=array_json(grown, (8, 8, 8)), coords=[(79, 0, 0)])
        assert fsck(store, rebuild_catalog=True).clean
        assert array_at(store["cells"].version(6)).block_shape == shape
