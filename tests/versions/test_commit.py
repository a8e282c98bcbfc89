"""Commits: what becomes a version, what is refused and left alone, and what a commit leaves of the working copy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import zarr

from tests.kits import fork_server
from tests.kits.stores import (
    array_at,
    array_json,
    chunk,
    every_chunk,
    meta_of,
    tree_of,
    volume,
    voxels_of,
    write_version,
)
from volfs import open_store
from volfs.errors import BadInput, Conflict, Held, NoSpace, NothingToCommit, ReadOnly
from volfs.model.metadata import group_zarr_json
from volfs.python.face import Face
from volfs.storage.manifest import Op
from volfs.testing.waiting import PATIENCE
from volfs.versions.check.fsck import fsck
from volfs.versions.commit import changeset, protocol
from volfs.versions.committed.version_files import VersionFiles, read_manifest
from volfs.versions.store import init_store
from volfs.versions.working import interpreter

SHAPE, CHUNKS = (24, 16, 16), (8, 8, 8)

pytestmark = pytest.mark.usefixtures("stays_whole")


@pytest.fixture
def branch(dataset):
    write_version(dataset, volume(SHAPE), files={"files/notes.txt": b"first", "files/deep/er/x": b"x"})
    return dataset.branch("main")


def meta(branch):
    return array_at(branch).meta


def put_chunk(branch, at, seed=1):
    data = chunk(meta(branch), volume(SHAPE, seed), at)
    branch.put(f"zarr/s0/{meta(branch).chunk_key(at)}", data)
    return data


def set_json(branch, path="s0", **fields):
    doc = json.loads(branch.read(f"zarr/{path}/zarr.json"))
    branch.put(f"zarr/{path}/zarr.json", json.dumps(doc | fields).encode())


def records(dataset, number):
    manifest = read_manifest(VersionFiles.of(dataset.objects, number))
    return [(record.op, record.name, record.chunk) for record in manifest]


def loose_files(branch):
    root = branch.working.layout.root
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name not in ("lock", "pulse"))


# -- what becomes a version ---------------------------------------------------------------------------------------


def test_a_commit_holds_what_the_branch_showed_and_leaves_nothing_loose(dataset, branch):
    put_chunk(branch, (1, 1, 0))
    branch.put("files/new.bin", b"new")
    branch.delete("files/notes.txt")
    branch.put("zarr/g/zarr.json", group_zarr_json({"a": 1}))
    shown = tree_of(branch)
    info = branch.commit("all of it", "me")
    assert (info.number, info.message, info.author, info.parents) == (2, "all of it", "me", (1,))
    assert tree_of(dataset.version(2)) == shown == tree_of(branch)
    assert branch.is_clean()
    assert loose_files(branch) == []
    assert dataset.branches() == {"main": 2}
    assert branch.head == info


@pytest.mark.parametrize("way", ["C", "Python"])
def test_many_chunks_are_committed_as_they_are_by_c_and_by_python(dataset, branch, monkeypatch, way):
    """Chunks with bytes of the base among them, and one that nobody can read together with others: it is empty."""
    if way == "Python":
        monkeypatch.setattr(changeset, "read_payloads", lambda paths, most: None)
        monkeypatch.setattr(interpreter, "undecodable", lambda paths, codec: None)
    again = volume(SHAPE, 3)
    again[:8] = volume(SHAPE)[:8]
    for at in every_chunk(meta(branch)):
        branch.put(f"zarr/s0/{meta(branch).chunk_key(at)}", chunk(meta(branch), again, at))
    info = branch.commit("many", "me")
    np.testing.assert_array_equal(voxels_of(dataset.version(2)), again)
    changed = [at for _, _, at in records(dataset, 2) if at is not None]
    assert sorted(changed) == [at for at in every_chunk(meta(branch)) if at[0] > 0]
    assert info.number == 2 and branch.is_clean()


@pytest.mark.parametrize("way", ["C", "Python"])
def test_of_many_chunks_those_that_do_not_decode_are_named(branch, monkeypatch, way):
    if way == "Python":
        monkeypatch.setattr(interpreter, "undecodable", lambda paths, codec: None)
    for at in every_chunk(meta(branch)):
        put_chunk(branch, at)
    for at, data in (((0, 1, 1), b""), ((1, 0, 1), b"no chunk"), ((2, 1, 0), put_chunk(branch, (2, 1, 0))[:-1])):
        branch.put(f"zarr/s0/{meta(branch).chunk_key(at)}", data)
    with pytest.raises(Held) as refused:
        branch.commit("many")
    named = [part.partition(":")[0] for part in str(refused.value).partition("behind: ")[2].split("; ")]
    assert sorted(named) == ["zarr/s0/c/0/1/1", "zarr/s0/c/1/0/1", "zarr/s0/c/2/1/0"]
    assert all(" does not decode: " in part for part in str(refused.value).partition("behind: ")[2].split("; "))


def test_only_what_changed_is_stored(dataset, branch):
    put_chunk(branch, (1, 1, 0))
    branch.commit("one chunk")
    assert records(dataset, 2) == [(Op.PUT, "s0", (1, 1, 0))]


def test_bytes_equal_to_the_parents_are_no_change(dataset, branch):
    put_chunk(branch, (1, 1, 0))
    put_chunk(branch, (0, 1, 0), seed=0)
    branch.put("files/notes.txt", b"first")
    branch.put("zarr/s0/zarr.json", branch.read("zarr/s0/zarr.json"))
    branch.put("zarr/zarr.json", branch.read("zarr/zarr.json"))
    branch.commit("one chunk")
    assert records(dataset, 2) == [(Op.PUT, "s0", (1, 1, 0))]
    assert loose_files(branch) == []


def test_removing_a_directory_is_one_record(dataset, branch):
    branch.delete_tree("zarr/s0")
    branch.delete_tree("files/deep")
    branch.commit("gone")
    assert records(dataset, 2) == [
        (Op.REMOVE_SUBTREE, "files/deep", None),
        (Op.REMOVE_SUBTREE, "zarr/s0", None),
    ]
    assert set(tree_of(dataset.version(2))) == {"files/notes.txt", "zarr/zarr.json"}
    assert tree_of(dataset.version(1)).keys() > {"zarr/s0/zarr.json", "files/deep/er/x"}


def test_removing_chunks_removes_those_chunks(dataset, branch):
    branch.delete("zarr/s0/c/0/0/1")
    branch.delete_tree("zarr/s0/c/2")
    branch.commit("fewer")
    gone = {(0, 0, 1), *((2, y, x) for y in (0, 1) for x in (0, 1))}
    assert {(op, at) for op, _, at in records(dataset, 2)} == {(Op.REMOVE, at) for at in gone}
    version = dataset.version(2)
    assert set(array_at(version).payloads(array_at(version)._whole)) == set(every_chunk(meta(branch))) - gone
    expected = volume(SHAPE)
    for at in gone:
        expected[meta(branch).grid.chunk_box(at).slices()] = 0
    np.testing.assert_array_equal(voxels_of(version), expected)


def test_all_chunks_may_go_and_the_array_stays(dataset, branch):
    branch.delete_tree("zarr/s0/c")
    branch.commit("emptied")
    np.testing.assert_array_equal(voxels_of(dataset.version(2)), np.zeros(SHAPE, "u2"))
    put_chunk(branch, (0, 0, 0))
    branch.commit("again")
    assert len(array_at(dataset.version(3)).payloads(array_at(dataset.version(3))._whole)) == 1


def test_a_re_created_array_inherits_nothing_even_of_another_kind(dataset, branch):
    new = volume((10, 10), 5, "f4")
    branch.delete_tree("zarr/s0")
    group = zarr.open_group(branch.zarr_store())
    array = group.create_array("s0", shape=new.shape, chunks=(4, 4), dtype="f4")
    array[:4, :4] = new[:4, :4]
    branch.commit("another")
    expected = np.zeros((10, 10), "f4")
    expected[:4, :4] = new[:4, :4]
    np.testing.assert_array_equal(voxels_of(dataset.version(2)), expected)
    stored = zarr.open_group(str(dataset.layout.version(2).root / "zarr"), mode="r")["s0"]
    np.testing.assert_array_equal(stored[...], expected)
    np.testing.assert_array_equal(voxels_of(dataset.version(1)), volume(SHAPE))


def test_overwriting_an_array_through_zarr_is_a_new_array(dataset, branch):
    group = zarr.open_group(branch.zarr_store())
    group.create_array("s0", data=volume((8, 8), 3, "i2"), chunks=(4, 4), overwrite=True)
    branch.commit("another")
    np.testing.assert_array_equal(voxels_of(dataset.version(2)), volume((8, 8), 3, "i2"))


def test_shrinking_removes_whole_chunks_outside_and_growing_shows_fill(dataset, branch):
    zarr.open_group(branch.zarr_store())["s0"].resize((12, 16, 16))
    assert branch.read("zarr/s0/zarr.json")
    branch.commit("smaller")
    np.testing.assert_array_equal(voxels_of(dataset.version(2)), volume(SHAPE)[:12])
    set_json(branch, shape=[24, 16, 16])
    branch.commit("larger")
    found = voxels_of(dataset.version(3))
    np.testing.assert_array_equal(found[:12], volume(SHAPE)[:12])
    assert (found[16:] == 0).all()


def test_metadata_alone_may_shrink_an_array(dataset, branch):
    set_json(branch, shape=[8, 16, 16])
    branch.commit("smaller")
    removed = [at for op, _, at in records(dataset, 2) if op == Op.REMOVE]
    assert sorted(removed) == [at for at in every_chunk(meta_of(array_json(volume(SHAPE), CHUNKS))) if at[0] > 0]
    set_json(branch, shape=[24, 16, 16])
    branch.commit("larger")
    assert (voxels_of(dataset.version(3))[8:] == 0).all()


def test_attributes_and_fill_value_may_change_over_inherited_chunks(dataset, branch):
    set_json(branch, attributes={"a": 1}, fill_value=7)
    branch.commit("described")
    np.testing.assert_array_equal(voxels_of(dataset.version(2)), volume(SHAPE))
    assert array_at(dataset.version(2)).meta.attributes == {"a": 1}


def test_an_array_may_end_and_leave_its_other_files(dataset, branch):
    branch.put("zarr/s0/extra.txt", b"kept")
    branch.commit("extra")
    branch.delete("zarr/s0/zarr.json")
    branch.delete_tree("zarr/s0/c")
    branch.commit("ended")
    assert set(tree_of(dataset.version(3), "zarr")) == {"zarr/s0/extra.txt", "zarr/zarr.json"}
    assert tree_of(branch, "zarr").keys() == tree_of(dataset.version(3), "zarr").keys()
    branch.put("zarr/s0/zarr.json", array_json(volume(SHAPE), CHUNKS))
    branch.commit("begun anew")
    assert (voxels_of(dataset.version(4)) == 0).all()
    assert dataset.version(4).read("zarr/s0/extra.txt") == b"kept"


def test_a_file_may_become_a_directory_and_the_reverse(dataset, branch):
    branch.delete("files/notes.txt")
    branch.put("files/notes.txt/inside", b"now a directory")
    branch.delete_tree("files/deep")
    branch.put("files/deep", b"now a file")
    branch.commit("swapped")
    assert {k: v for k, v in tree_of(dataset.version(2)).items() if k.startswith("files")} == {
        "files/deep": b"now a file",
        "files/notes.txt/inside": b"now a directory",
    }


def test_empty_directories_are_not_versioned_and_stay_where_they_were_made(dataset, branch):
    branch.working.mkdir("files/empty")
    with pytest.raises(NothingToCommit):
        branch.commit("nothing")
    branch.put("files/a", b"a")
    branch.commit("a")
    assert dataset.version(2).stat("files/empty") is None
    assert branch.stat("files/empty").kind == "dir"


def test_zarr_python_writes_and_the_version_agrees(dataset, branch):
    group = zarr.open_group(branch.zarr_store())
    labels = volume((24, 16, 16), 8, "u4")
    group.create_array("labels/cells", data=labels, chunks=(8, 8, 8))
    group["s0"][4:12, 3:9, :] = 77
    branch.commit("labels")
    expected = volume(SHAPE)
    expected[4:12, 3:9, :] = 77
    for opened in (
        zarr.open_group(dataset.version(2).zarr_store(), mode="r"),
        zarr.open_group(branch.zarr_store(), mode="r"),
    ):
        np.testing.assert_array_equal(opened["s0"][...], expected)
        np.testing.assert_array_equal(opened["labels/cells"][...], labels)
    stored = zarr.open_group(str(dataset.layout.version(2).root / "zarr"), mode="r")
    np.testing.assert_array_equal(stored["labels/cells"][...], labels)


def test_arrays_sharded_by_their_writer_are_committed_as_written(dataset, branch):
    group = zarr.open_group(branch.zarr_store())
    voxels = volume((32, 32), 4)
    array = group.create_array("mine", shape=(32, 32), chunks=(4, 4), shards=(16, 16), dtype="u2")
    array[...] = voxels
    written = {key: data for key, data in tree_of(branch, "zarr/mine").items() if "/c/" in key}
    branch.commit("sharded")
    assert {key: data for key, data in tree_of(dataset.version(2), "zarr/mine").items() if "/c/" in key} == written
    for key, data in written.items():
        assert (dataset.layout.version(2).root / key).read_bytes() == data


# -- what is refused ----------------------------------------------------------------------------------------------


def refused(branch, match):
    before = tree_of(branch)
    number = branch.head.number
    with pytest.raises(Held, match=match):
        branch.commit("no")
    assert tree_of(branch) == before
    assert branch.head.number == number
    assert not branch.working.layout.commit_intent.exists()


def test_a_chunk_that_does_not_decode_is_held_and_named(dataset, branch):
    put_chunk(branch, (0, 0, 0))
    branch.put("zarr/s0/c/1/0/1", b"half a chu")
    refused(branch, "zarr/s0/c/1/0/1")
    put_chunk(branch, (1, 0, 1))
    branch.commit("mended")
    assert dataset.resolve("main") == 2


def test_held_keys_may_be_left_behind(dataset, branch):
    put_chunk(branch, (0, 0, 0))
    branch.put("zarr/s0/c/1/0/1", b"half a chu")
    branch.commit("the rest", leave=["zarr/s0/c/1/0/1"])
    assert records(dataset, 2) == [(Op.PUT, "s0", (0, 0, 0))]
    assert branch.read("zarr/s0/c/1/0/1") == b"half a chu"
    assert dict(branch.status().held).keys() == {"zarr/s0/c/1/0/1"}


def test_chunks_of_no_array_yet_are_held_until_it_is_described(dataset, branch):
    raw = array_json(volume((8, 8), 2), (4, 4))
    for at in every_chunk(meta_of(raw)):
        branch.put(f"zarr/late/c/{at[0]}/{at[1]}", chunk(meta_of(raw), volume((8, 8), 2), at))
    refused(branch, "zarr/late/c/0/0")
    branch.put("zarr/late/zarr.json", raw)
    branch.commit("described")
    np.testing.assert_array_equal(voxels_of(dataset.version(2), "late"), volume((8, 8), 2))


def test_a_chunk_outside_its_array_is_held(branch):
    branch.put("zarr/s0/c/3/0/0", chunk(meta(branch), volume(SHAPE), (0, 0, 0)))
    refused(branch, "outside")


@pytest.mark.parametrize(
    "fields",
    [
        {"data_type": "int16"},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8, 8, 16]}}},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}]},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}}},
        {"data_type": "string"},
        {"node_type": "group"},
    ],
)
def test_metadata_may_not_change_how_inherited_chunks_read(branch, fields):
    set_json(branch, **fields)
    refused(branch, "zarr/s0/zarr.json")


def test_metadata_may_change_everything_once_no_old_chunk_is_left(dataset, branch):
    new = volume((24, 16, 16), 9, "i4")
    raw = array_json(new, (16, 16, 16))
    branch.put("zarr/s0/zarr.json", raw)
    branch.put("zarr/s0/notes", b"mine")
    refused(branch, "remove the array first")
    branch.delete_tree("zarr/s0/c")
    for at in every_chunk(meta_of(raw)):
        branch.put(f"zarr/s0/{meta_of(raw).chunk_key(at)}", chunk(meta_of(raw), new, at))
    branch.commit("another")
    np.testing.assert_array_equal(voxels_of(dataset.version(2)), new)
    assert dataset.version(2).read("zarr/s0/notes") == b"mine"


def test_metadata_may_not_vanish_from_under_its_chunks(branch):
    branch.delete("zarr/s0/zarr.json")
    refused(branch, "zarr/s0/zarr.json")


def test_metadata_that_is_not_valid_is_held(branch):
    branch.put("zarr/s0/zarr.json", b"{")
    refused(branch, "zarr/s0/zarr.json")


def test_a_commit_needs_a_message_and_a_change(branch):
    with pytest.raises(BadInput, match="message"):
        branch.commit("  \n")
    with pytest.raises(NothingToCommit):
        branch.commit("nothing")
    branch.put("files/a", b"a")
    branch.delete("files/a")
    with pytest.raises(NothingToCommit):
        branch.commit("still nothing")


def test_repeating_a_commit_is_no_second_commit(dataset, branch):
    branch.put("files/a", b"a")
    info = branch.commit("once\n")
    assert branch.commit("once") == info
    assert branch.commit("  once ") == info
    with pytest.raises(NothingToCommit):
        branch.commit("twice")
    branch.put("files/a", b"a")  # written again, the same
    assert branch.commit("once") == info
    branch.put("files/a", b"b")
    assert branch.commit("once").number == 3


# -- others at work -----------------------------------------------------------------------------------------------


def test_where_all_that_changed_is_being_written_the_refusal_names_it(dataset, branch):
    branch.put("files/done", b"1")
    branch.commit("one")
    with branch.working.open("files/recording", os.O_WRONLY | os.O_CREAT) as file:
        file.pwrite(b"half", 0)
        with pytest.raises(NothingToCommit, match="open for writing; close files/recording"):
            branch.commit("two")
    assert branch.commit("two").message == "two"


def test_what_somebody_is_writing_stays_behind_and_the_rest_is_committed(dataset, branch):
    branch.put("files/done", b"done")
    put_chunk(branch, (0, 0, 0))
    file = branch.working.open("files/open", os.O_WRONLY | os.O_CREAT)
    file.pwrite(b"begun", 0)
    chunk_file = branch.working.open("zarr/s0/c/1/1/1", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    branch.commit("what is done")
    assert {name for _, name, _ in records(dataset, 2)} == {"files/done"}
    file.pwrite(b" and ended", 5)
    file.close()
    data = chunk(meta(branch), volume(SHAPE, 6), (1, 1, 1))
    chunk_file.pwrite(data, 0)
    chunk_file.close()
    branch.commit("the rest")
    assert dataset.version(3).read("files/open") == b"begun and ended"
    assert {(name, at) for _, name, at in records(dataset, 3)} == {
        ("files/open", None),
        ("s0", (0, 0, 0)),
        ("s0", (1, 1, 1)),
    }


def test_writers_go_on_while_a_commit_packs(dataset, branch, monkeypatch):
    branch.put("files/a", b"before")
    branch.put("files/b", b"before")
    real = protocol.pack

    def pack(*args):
        branch.put("files/a", b"meanwhile")
        branch.delete("files/b")
        branch.put("files/c", b"meanwhile")
        assert branch.read("files/a") == b"meanwhile"
        assert branch.stat("files/b") is None
        return real(*args)

    monkeypatch.setattr(protocol, "pack", pack)
    branch.commit("then")
    monkeypatch.undo()
    version = dataset.version(2)
    assert (version.read("files/a"), version.read("files/b"), version.stat("files/c")) == (b"before", b"before", None)
    assert branch.read("files/a") == b"meanwhile"
    assert branch.stat("files/b") is None
    branch.commit("now")
    assert tree_of(dataset.version(3), "files") == tree_of(branch, "files")
    assert dataset.version(3).stat("files/b") is None


def test_a_commit_that_fails_gives_everything_back(dataset, branch, monkeypatch):
    branch.put("files/a", b"before")
    branch.delete("files/notes.txt")
    put_chunk(branch, (0, 0, 0))
    shown = tree_of(branch)
    real = protocol.pack

    def pack(*args):
        real(*args)
        branch.put("files/a", b"meanwhile")
        raise NoSpace("full")

    monkeypatch.setattr(protocol, "pack", pack)
    with pytest.raises(NoSpace):
        branch.commit("no room")
    monkeypatch.undo()
    assert tree_of(branch) == shown | {"files/a": b"meanwhile"}
    assert not branch.working.layout.commit_intent.exists()
    assert [p.name for p in dataset.layout.versions.iterdir()] == ["00000001"]
    assert branch.commit("now").number == 2


def test_a_branch_that_moved_meanwhile_is_a_conflict_and_loses_nothing(dataset, branch, monkeypatch):
    put_chunk(branch, (0, 0, 0))
    branch.put("files/mine", b"mine")
    real = protocol.pack

    def pack(*args):
        write_version(dataset, volume(SHAPE, 4), parent=1, coords=[(2, 1, 1)], message="theirs")
        return real(*args)

    monkeypatch.setattr(protocol, "pack", pack)
    with pytest.raises(Conflict):
        branch.commit("mine")
    monkeypatch.undo()
    assert branch.head.message == "theirs"
    assert branch.read("files/mine") == b"mine"
    branch.commit("mine, again")
    assert {(name, at) for _, name, at in records(dataset, branch.head.number)} == {
        ("files/mine", None),
        ("s0", (0, 0, 0)),
    }


def test_the_same_commit_from_many_threads_is_made_once(dataset, branch):
    branch.put("files/a", b"a")
    infos = []
    threads = [threading.Thread(target=lambda: infos.append(branch.commit("once"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [info.number for info in infos] == [2] * 6


def test_a_branch_held_by_another_process_is_not_committed_to(tmp_path, dataset, branch, monkeypatch):
    script = (
        "import volfs, sys\n"
        "with volfs.open_store(sys.argv[1]) as store, store['cells']['main'].writing():\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    monkeypatch.setattr("volfs.versions.working.branch_lock.PATIENCE", 0.2)
    monkeypatch.setattr(type(branch.working.lock).hold, "__defaults__", (0.2,), raising=False)
    branch.put("files/a", b"a")
    with fork_server.Popen(
        [sys.executable, "-c", script, str(tmp_path / "store")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ReadOnly, match=str(other.pid)):
            branch.working.lock.acquire()
        other.stdin.close()
        assert other.wait(PATIENCE) == 0
    assert branch.commit("now").number == 2


def test_two_processes_commit_and_neither_loses_anything(tmp_path, dataset, branch):
    script = (
        "import volfs, sys\n"
        "from volfs.errors import Busy, NothingToCommit, ReadOnly\n"
        "name = sys.argv[2]\n"
        "with volfs.open_store(sys.argv[1]) as store:\n"
        "    branch = store['cells']['main']\n"
        "    for n in range(4):\n"
        "        branch.put(f'files/{name}{n}', name.encode())\n"
        "        try:\n"
        "            branch.commit(f'{name} {n}')\n"
        "        except (Busy, ReadOnly, NothingToCommit):\n"
        "            pass\n"
    )
    processes = [fork_server.Popen([sys.executable, "-c", script, str(tmp_path / "store"), name]) for name in "ab"]
    assert [process.wait(PATIENCE) for process in processes] == [0, 0]
    if not branch.is_clean():
        branch.commit("what is left")
    files = {key for key in tree_of(dataset["latest"], "files") if key[6] in "ab"}
    assert files == {f"files/{name}{n}" for name in "ab" for n in range(4)}
    assert [info.parents for info in dataset.versions()[1:]] == [(n,) for n in range(1, len(dataset.versions()))]


# -- what others add ----------------------------------------------------------------------------------------------


@contextmanager
def deriving(path, derive):
    """A branch whose commits hold what ``derive`` puts, besides what was changed."""
    with init_store(path, derive=derive, face=Face()) as store:
        dataset = store.create_dataset("cells")
        write_version(dataset, volume(SHAPE), files={"files/notes.txt": b"first", "files/deep/er/x": b"x"})
        yield dataset.branch("main")
        assert fsck(store).findings == []


def test_what_is_derived_from_the_frozen_state_is_committed_with_it(tmp_path):
    seen = []

    def derive(snapshot, put):
        seen.append((snapshot.read("files/a"), snapshot.base.number, type(array_at(snapshot)).__name__))
        np.testing.assert_array_equal(voxels_of(snapshot)[:8, :8, :8], volume(SHAPE, 1)[:8, :8, :8])
        put("files/derived", b"from " + snapshot.read("files/a"))
        put("zarr/s0/c/1/1/1", chunk(meta(branch), volume(SHAPE, 5), (1, 1, 1)))
        put("zarr/s0/c/2/1/1", None)
        put("files/notes.txt", None)
        put("zarr/d/zarr.json", array_json(volume((8, 8), 3), (8, 8)))
        put("zarr/d/c/0/0", chunk(meta_of(array_json(volume((8, 8), 3), (8, 8))), volume((8, 8), 3), (0, 0)))

    with deriving(tmp_path / "deriving", derive) as branch:
        dataset = branch.dataset
        branch.put("files/a", b"a")
        put_chunk(branch, (0, 0, 0))
        branch.put("zarr/s0/c/1/1/1", chunk(meta(branch), volume(SHAPE, 7), (1, 1, 1)))
        branch.commit("derived")
        assert seen == [(b"a", 1, "BranchArray")]
        version = dataset.version(2)
        assert version.read("files/derived") == b"from a"
        assert version.stat("files/notes.txt") is None
        assert version.stat("zarr/s0/c/2/1/1") is None
        box = meta(branch).grid.chunk_box((1, 1, 1)).slices()
        np.testing.assert_array_equal(voxels_of(version)[box], volume(SHAPE, 5)[box])
        np.testing.assert_array_equal(voxels_of(version, "d"), volume((8, 8), 3))
        assert branch.is_clean()
        assert not (dataset.layout.version(2).root / "additions").exists()


def test_an_error_of_what_is_derived_stops_the_commit_and_loses_nothing(tmp_path):
    wrong = [Held("cannot")]

    def derive(snapshot, put):
        put("files/derived", b"half")
        if wrong:
            raise wrong.pop()

    with deriving(tmp_path / "deriving", derive) as branch:
        branch.put("files/a", b"a")
        with pytest.raises(Held, match="cannot"):
            branch.commit("no")
        assert branch.read("files/a") == b"a"
        assert branch.stat("files/derived") is None
        branch.commit("yes")
        assert branch.read("files/derived") == b"half"


def test_long_histories_on_one_region_stay_right(dataset, branch):
    voxels = volume(SHAPE)
    for step in range(40):
        at = (step % 3, 0, step % 2)
        put_chunk(branch, at, seed=100 + step)
        box = meta(branch).grid.chunk_box(at).slices()
        voxels[box] = volume(SHAPE, 100 + step)[box]
        branch.commit(f"step {step}")
    np.testing.assert_array_equal(voxels_of(dataset["latest"]), voxels)


def test_a_commit_is_seen_by_a_store_opened_before_it(tmp_path, dataset, branch):
    with open_store(tmp_path / "store", read_only=True) as other:
        theirs = other["cells"]["main"]
        before = theirs.generation()
        branch.put("files/a", b"a")
        assert theirs.read("files/a") == b"a"
        branch.commit("seen")
        assert theirs.generation() != before
        assert theirs.head.message == "seen"
        assert theirs.read("files/a") == b"a"
