"""What a branch says of its uncommitted changes: counts, held keys, what stays behind, what a commit makes of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import volfs
from tests.kits.stores import array_at, tree_of, voxels_of
from volfs.errors import Busy, Held, NothingToCommit
from volfs.model.box import Box
from volfs.model.metadata import array_zarr_json, group_zarr_json
from volfs.versions.branch import Branch
from volfs.versions.working.interpreter import chunk_root
from volfs.versions.working.status import NodeChanges

RAW = [{"name": "bytes", "configuration": {"endian": "little"}}]
META = array_zarr_json((4, 4), "u2", (2, 2), codecs=RAW)
CHUNK = np.arange(4, dtype="<u2").tobytes()


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    with volfs.init_store(tmp_path / "store") as store:
        made = store.create_dataset("cells").branch("main")
        made.put("zarr/zarr.json", group_zarr_json())
        made.put("zarr/a/zarr.json", META)
        made.put("zarr/a/c/0/0", CHUNK)
        made.put("zarr/a/c/1/1", CHUNK)
        made.put("files/notes/x.txt", b"text")
        yield made


def test_changes_are_counted_by_node_and_directory(branch: Branch) -> None:
    assert branch.status().changes == {
        "files/notes": NodeChanges(1, 0, 4),
        "zarr": NodeChanges(1, 0, len(group_zarr_json())),
        "zarr/a": NodeChanges(3, 0, len(META) + 16),
    }
    branch.commit("first")
    assert branch.status().clean
    branch.delete("zarr/a/c/0/0")
    branch.put("zarr/a/c/0/1", CHUNK)
    branch.delete_tree("files/notes")
    assert branch.status().changes == {"files/notes": NodeChanges(0, 1, 0), "zarr/a": NodeChanges(1, 1, 8)}
    branch.delete_tree("zarr/a")
    assert branch.status().changes["zarr/a"] == NodeChanges(0, 3, 0)
    branch.discard("zarr")
    branch.discard("files")
    assert branch.status().clean and branch.is_clean()


@pytest.mark.parametrize(
    ("key", "data", "reason"),
    [
        ("zarr/a/c/0/1", b"1234567", "does not decode"),
        ("zarr/a/c/0/1", b"", "does not decode"),
        ("zarr/a/c/5/0", CHUNK, "outside its array"),
        ("zarr/b/c/0/0/0", CHUNK, "zarr/b, which is no array"),
        ("zarr/b/0.0", CHUNK, "zarr/b, which is no array"),
        ("zarr/b/zarr.json", b"{", "not valid JSON"),
        ("zarr/b/zarr.json", b"", "not valid JSON"),
    ],
)
def test_what_cannot_be_read_yet_is_held_reads_back_and_blocks_the_commit_by_name(
    branch: Branch, key: str, data: bytes, reason: str
) -> None:
    branch.commit("first")
    branch.put("files/other", b"x")
    branch.put(key, data)
    assert branch.read(key) == data
    held = branch.status().held
    assert [k for k, _ in held] == [key] and reason in held[0][1]
    assert branch.validate(key) == held[0][1]
    with pytest.raises(Held, match=key):
        branch.commit("second")
    assert branch.read(key) == data and branch.read("files/other") == b"x"
    info = branch.commit("without it", leave=[key])
    assert branch.dataset.version(info.number).stat(key) is None
    assert branch.read(key) == data and list(branch.status().changes) != []
    branch.delete(key)
    assert branch.is_clean()


def test_chunks_that_come_before_their_metadata_are_held_until_it_is_there(branch: Branch) -> None:
    branch.put("zarr/rec/c/0/0", CHUNK)
    assert branch.validate("zarr/rec/c/0/0") is not None
    branch.put("zarr/rec/zarr.json", META)
    assert branch.validate("zarr/rec/c/0/0") is None
    assert branch.commit("a recording").number == 1


@pytest.mark.parametrize(
    "key", ["zarr/a/notes.txt", "zarr/a/c/0/0.__lock", "zarr/a/c/00/1", "zarr/old/.zarray", "zarr/a/c/x", "zarr/README"]
)
def test_other_files_are_kept_as_they_are(branch: Branch, key: str) -> None:
    branch.put(key, b"whatever")
    assert branch.validate(key) is None
    info = branch.commit("first")
    assert branch.dataset.version(info.number).read(key) == b"whatever"


def test_arrays_of_unknown_type_or_codec_and_old_zarr_are_opaque(branch: Branch) -> None:
    unknown = META.replace(b'"bytes"', b'"vendor.secret"')
    branch.put("zarr/u/zarr.json", unknown)
    branch.put("zarr/u/c/0/0", b"???")
    branch.put("zarr/t/zarr.json", META.replace(b"uint16", b"vendor.type"))
    branch.put("zarr/t/c/9/9", b"???")
    branch.put("zarr/v2/.zarray", b"{}")
    branch.put("zarr/v2/0.0", b"???")
    assert branch.status().held == ()
    before = tree_of(branch)
    info = branch.commit("opaque")
    assert tree_of(branch.dataset.version(info.number)) == before == tree_of(branch)


def test_an_array_with_a_writer_stays_behind_as_a_whole_and_is_named(branch: Branch) -> None:
    branch.commit("first")
    branch.put("files/done", b"x")
    with branch.working.open("zarr/a/c/0/1", os.O_WRONLY | os.O_CREAT) as file:
        file.pwrite(CHUNK[:4], 0)
        branch.put("zarr/a/c/1/0", CHUNK)
        assert branch.status().left_behind == ("zarr/a",)
        info = branch.commit("the file only")
        assert tree_of(branch.dataset.version(info.number)).keys() - tree_of(branch.dataset.version(1)).keys() == {
            "files/done"
        }
        file.pwrite(CHUNK[4:], 4)
    assert branch.commit("the array").number == 3
    assert tree_of(branch.dataset.version(3))["zarr/a/c/0/1"] == CHUNK


def test_a_recording_that_has_no_metadata_yet_stays_behind_while_it_is_written(branch: Branch) -> None:
    branch.put("zarr/rec/0/c/0/0/0", b"a whole chunk")
    with branch.working.open("zarr/rec/0/c/0/0/1", os.O_WRONLY | os.O_CREAT) as file:
        assert branch.status().left_behind == ("zarr/rec/0",)
        assert branch.commit("the rest").number == 1
        file.pwrite(b"x", 0)
        with pytest.raises(NothingToCommit):
            branch.commit("nothing but the recording")
    assert [k for k, _ in branch.status().held] == ["zarr/rec/0/c/0/0/0", "zarr/rec/0/c/0/0/1"]


def test_the_outcome_of_the_last_action_is_kept(branch: Branch) -> None:
    branch.put("zarr/bad/c/0", b"")
    with pytest.raises(Held):
        branch.commit("no")
    action = branch.actions.last
    assert action is not None and (action.state, action.error_kind) == ("failed", "Held")
    branch.delete("zarr/bad/c/0")
    branch.commit("yes")
    action = branch.actions.last
    assert action is not None and (action.state, action.version, action.message) == ("done", 1, "yes")


def test_nothing_is_discarded_while_a_commit_is_under_way(branch: Branch) -> None:
    branch.working.freeze(1)
    with pytest.raises(Busy):
        branch.discard()
    branch.working.merge_back(1)
    branch.discard()
    assert branch.list("zarr") == []


def test_a_chunk_found_before_it_was_replaced_is_not_read_as_the_new_one(branch: Branch) -> None:
    array = array_at(branch, "a")
    found = array.payloads(Box((0, 0), (1, 1)))[0, 0]
    assert found.read() == CHUNK and found.read(2, 4) == CHUNK[2:6]
    branch.put("zarr/a/c/0/0", CHUNK[::-1])
    with pytest.raises(volfs.errors.NotFound):
        found.read()
    again = array.payloads(Box((0, 0), (1, 1)))[0, 0]
    assert again.token != found.token and again.read() == CHUNK[::-1]


def test_tokens_of_chunks_that_stay_as_they_are_stay_too(branch: Branch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volfs.versions.working.branch_array._RACY_NS", 0)
    array = array_at(branch, "a")
    whole = Box((0, 0), (2, 2))
    first = {c: p.token for c, p in array.payloads(whole).items()}
    branch.put("files/other", b"")
    branch.put("zarr/a/c/0/1", CHUNK)
    second = {c: p.token for c, p in array.payloads(whole).items()}
    assert {c: second[c] for c in first} == first
    branch.commit("first")
    committed = {c: p.token for c, p in array_at(branch, "a").payloads(whole).items()}
    branch.put("zarr/a/c/0/0", CHUNK)
    assert {c: p.token for c, p in array.payloads(whole).items() if c != (0, 0)} == {
        c: token for c, token in committed.items() if c != (0, 0)
    }


def test_another_process_sees_chunks_change_without_being_told(branch: Branch) -> None:
    branch.commit("first")
    with volfs.open_store(branch.dataset.store.path) as second:
        other = second["cells"].branch("main")
        array = array_at(other, "a")
        times = array.newest((0,)).copy()
        branch.put("zarr/a/c/0/1", CHUNK)
        assert other.generation() == branch.generation()
        np.testing.assert_array_equal(voxels_of(other, "a"), voxels_of(branch, "a"))
        assert array.newest((0,))[0] > times[0] and array.newest((0,))[1] == times[1]
        assert array.changed() == {(0, 1)}
        branch.commit("second")
        assert other.head is not None and other.head.number == 2
        np.testing.assert_array_equal(voxels_of(other, "a"), voxels_of(second["cells"]["v2"], "a"))


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize(
    ("encoding", "chunks", "strays"),
    [
        ("default", "c/0/1 c/1/0 c/1/1", "c/00 c/001 c/01 c/0x c/0/00 d/0"),
        ("v2", "0/1 1/0 1/1", "00 001 01 x 0/00 c/0"),
    ],
)
def test_a_directory_that_is_none_of_chunks_hides_no_chunk(
    branch: Branch, encoding: str, chunks: str, strays: str, committed: bool
) -> None:
    """It is made and removed again, as a user may who has mistyped a name."""
    keys = {"name": encoding, "configuration": {"separator": "/"}}
    document = json.loads(META) | {"chunk_key_encoding": keys}
    branch.put("zarr/b/zarr.json", json.dumps(document).encode())
    for name in chunks.split():
        branch.put(f"zarr/b/{name}", CHUNK)
    if committed:
        branch.commit("chunks")
    whole = Box((0, 0), (2, 2))
    before = array_at(branch, "b").payloads(whole).keys()
    assert before == {(0, 1), (1, 0), (1, 1)}
    for stray in strays.split():
        made = [f"zarr/b/{'/'.join(stray.split('/')[: n + 1])}" for n in range(stray.count("/") + 1)]
        made = [folder for folder in made if branch.stat(folder) is None]
        for folder in made:
            branch.working.mkdir(folder)
        for folder in reversed(made):
            branch.working.rmdir(folder)
        assert array_at(branch, "b").indices(0, whole) == [0, 1], stray  # by a map that is made anew
        assert array_at(branch, "b").payloads(whole).keys() == before, stray
    branch.delete_tree("zarr/b/c/1" if encoding == "default" else "zarr/b/1")
    assert array_at(branch, "b").payloads(whole).keys() == {(0, 1)}


def test_a_file_that_comes_with_an_old_time_still_counts_as_a_change(branch: Branch) -> None:
    branch.commit("first")
    array = array_at(branch, "a")
    times = [array.newest_in(Box((0, 0), (2, 2)))]
    for old in (5, 10**9, 4 * 10**18):
        branch.put("zarr/a/c/0/0.tmp", CHUNK)
        branch.working.utimens("zarr/a/c/0/0.tmp", old, old)
        branch.working.rename("zarr/a/c/0/0.tmp", "zarr/a/c/0/0")
        assert branch.stat("zarr/a/c/0/0").mtime_ns == old  # type: ignore[union-attr]
        times.append(array.newest_in(Box((0, 0), (2, 2))))
        branch.put("zarr/a/c/1/1", CHUNK)
        times.append(array.newest_in(Box((0, 0), (2, 2))))
    assert sorted(set(times)) == times


def test_names_of_chunks() -> None:
    assert chunk_root("zarr/a/c/0/1") == "zarr/a"
    assert chunk_root("zarr/a/c.0.1") == "zarr/a"
    assert chunk_root("zarr/a/0.1") == "zarr/a"
    assert chunk_root("zarr/a/0/1") == "zarr/a"
    assert chunk_root("zarr/c/0") == "zarr"
    assert chunk_root("zarr/0") == "zarr"
    assert chunk_root("zarr/a/zarr.json") is None
    assert chunk_root("zarr/a/1.2.partial") is None
    assert chunk_root("files/c/0") is None
