"""What a version's directory holds, judged by zarr-python where it can, and what writing one costs and promises."""

from __future__ import annotations

import errno
import json
import os
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.kits.stores import (
    SECOND,
    START,
    array_at,
    array_json,
    chunk,
    every_chunk,
    meta_of,
    new_store,
    tree_of,
    volume,
    voxels_of,
    write_version,
)
from volfs import open_store
from volfs.errors import (
    AlreadyThere,
    BadInput,
    BadMetadata,
    BadName,
    Conflict,
    Damaged,
    NoSpace,
    NotFound,
    VolfsError,
    WrongKind,
)
from volfs.model.box import Box
from volfs.model.metadata import array_zarr_json, group_zarr_json
from volfs.storage.codec import ChunkCodec
from volfs.storage.payload_maker import ChunkEncoder, read_payloads
from volfs.testing.waiting import PATIENCE
from volfs.versions.author import default_author
from volfs.versions.check.fsck import fsck
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.committed.version_files import VersionFiles, read_manifest


def zarr_at(dataset, number, path="s0"):
    return zarr.open_group(str(dataset.layout.version(number).root / "zarr"), mode="r")[path]


# -- what lies there ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "chunks", "dtype"),
    [
        ((33, 40, 50), (8, 8, 8), "u2"),
        ((5, 7), (5, 7), "u1"),
        ((130,), (7,), "f4"),
        ((2, 3, 9, 20, 20), (1, 1, 4, 8, 8), "i4"),
        ((2, 2, 2, 3, 9, 9), (1, 1, 1, 2, 4, 4), "c8"),
        ((32, 32, 32), (2, 2, 2), "u1"),
    ],
)
def test_the_version_that_creates_an_array_is_complete_to_zarr_python(dataset, shape, chunks, dtype):
    voxels = volume(shape, dtype=dtype)
    write_version(dataset, voxels, chunks=chunks)
    np.testing.assert_array_equal(zarr_at(dataset, 1)[...], voxels)
    np.testing.assert_array_equal(voxels_of(dataset.version(1)), voxels)


def test_chunks_come_in_few_dense_shards(dataset):
    write_version(dataset, volume((64, 64, 64)), chunks=(8, 8, 8))
    files = [p for p in (dataset.layout.version(1).root / "zarr" / "s0/c").rglob("*") if p.is_file()]
    assert len(files) == 1
    assert zarr_at(dataset, 1).shards == (64, 64, 64)


def put_one_by_one(array, coords, payloads):
    for at, payload in zip(coords, payloads, strict=True):
        if payload:
            array.put(at, payload)
        else:
            array.skip(at)


@pytest.mark.parametrize("shard", [None, (16, 8, 32), (8, 8, 8)], ids=["one shard", "many", "files"])
def test_chunks_put_together_are_as_those_put_one_by_one(dataset, shard):
    """Some are all fill, some cut off at the edge, and the shards that they go to take turns."""
    voxels = volume((30, 24, 36))
    voxels[8:16, 8:16] = 0
    raw = array_json(voxels, (8, 8, 8))
    meta = meta_of(raw)
    encoder = ChunkEncoder.of(ChunkCodec.of(meta))
    coords = every_chunk(meta)
    payloads = [chunk(meta, voxels, at) if at[:2] != (1, 1) else b"" for at in coords]
    made = []
    for number in range(2):
        with VersionWriter(dataset, "main", number) as writer:
            if not number:
                writer.put("zarr/zarr.json", group_zarr_json())
            array = writer.array(f"s{number}", raw, created=True, shard_shape=shard)
            if number:
                starts = np.array(coords) * 8
                batch = encoder.encode(voxels, starts, np.minimum(8, np.array(voxels.shape) - starts))
                assert array.put_all(coords, batch) == []
                with pytest.raises(AlreadyThere):
                    array.put_all(coords[-1:], encoder.encode(voxels, starts[-1:], np.array([[6, 8, 4]])))
            else:
                put_one_by_one(array, coords, payloads)
            writer.publish(f"by way {number}", "me", START)
        manifest = read_manifest(VersionFiles.of(dataset.objects, number + 1))
        made.append(
            [
                (record.chunk, record.payload.offset, record.payload.length, record.payload.crc32c, record.sha256)
                for record in manifest
                if record.chunk is not None
            ]
        )
        np.testing.assert_array_equal(voxels_of(dataset.version(number + 1), f"s{number}"), voxels)
        np.testing.assert_array_equal(zarr_at(dataset, number + 1, f"s{number}")[...], voxels)
    assert made[0] == made[1]


def test_of_chunks_put_together_those_in_doubt_are_left(dataset, tmp_path):
    voxels = volume((16, 8, 8))
    raw = array_json(voxels, (8, 8, 8))
    paths = [tmp_path / "first", tmp_path / "none"]
    paths[0].write_bytes(chunk(meta_of(raw), voxels, (0, 0, 0)))
    with VersionWriter(dataset, "main", 0) as writer:
        writer.put("zarr/zarr.json", group_zarr_json())
        array = writer.array("s0", raw, created=True, shard_shape=(16, 8, 8))
        batch = read_payloads(list(map(str, paths)), 1 << 20)
        assert array.put_all([(0, 0, 0), (1, 0, 0)], batch) == [(1, 0, 0)]
        array.put((1, 0, 0), chunk(meta_of(raw), voxels, (1, 0, 0)))
        writer.publish("both")
    np.testing.assert_array_equal(voxels_of(dataset.version(1)), voxels)


def test_chunks_put_together_that_do_not_fit_on_the_disk_can_be_put_again(dataset, monkeypatch):
    voxels = volume((32, 8, 8))
    raw = array_json(voxels, (8, 8, 8))
    coords, starts = every_chunk(meta_of(raw)), np.array([[8 * i, 0, 0] for i in range(4)])
    batch = ChunkEncoder.of(ChunkCodec.of(meta_of(raw))).encode(voxels, starts, np.full((4, 3), 8))

    def full(fd, data):
        raise OSError(errno.ENOSPC, "full")

    with VersionWriter(dataset, "main", 0) as writer:
        writer.put("zarr/zarr.json", group_zarr_json())
        array = writer.array("s0", raw, created=True, shard_shape=(32, 8, 8))
        with monkeypatch.context() as patched, pytest.raises(NoSpace):
            patched.setattr(os, "write", full)
            array.put_all(coords, batch)
        assert not any(array.holds(at) for at in coords)
        array.put_all(coords, batch)
        writer.publish("after all")
    np.testing.assert_array_equal(voxels_of(dataset.version(1)), voxels)


def test_a_scattered_change_becomes_single_chunk_files_that_say_they_are_a_delta(dataset):
    before, after = volume((64, 64, 64)), volume((64, 64, 64), 1)
    write_version(dataset, before, chunks=(4, 4, 4))
    coords = [(0, 0, 0), (15, 15, 15), (3, 0, 9)]
    write_version(dataset, after, chunks=(4, 4, 4), parent=1, coords=coords)
    meta = array_at(dataset.version(2)).meta
    for at in coords:
        path = dataset.layout.version(2).root / "zarr" / "s0" / meta.chunk_key(at)
        assert path.read_bytes() == chunk(meta, after, at)
    delta = zarr_at(dataset, 2)
    assert delta.attrs["volfs_stored"]["complete"] is False
    assert delta.attrs["volfs_stored"]["inherits_from"] == 1
    expected = before.copy()
    for at in coords:
        box = meta.grid.chunk_box(at).slices()
        expected[box] = after[box]
        np.testing.assert_array_equal(delta[box], after[box])
    np.testing.assert_array_equal(voxels_of(dataset.version(2)), expected)
    np.testing.assert_array_equal(voxels_of(dataset.version(1)), before)


def test_the_clients_own_metadata_is_kept_to_the_byte(dataset):
    odd = (
        b'{"node_type":"array" ,\n "zarr_format": 3,'
        + array_json(volume((16, 16, 16)), (8, 8, 8))[len(b'{\n  "zarr_format": 3,\n  "node_type": "array",') :]
    )
    write_version(dataset, volume((16, 16, 16)), raw=odd)
    folder = dataset.layout.version(1).root / "zarr" / "s0"
    assert dataset.version(1).read("zarr/s0/zarr.json") == odd
    assert (folder / "zarr.as-written.json").read_bytes() == odd
    assert json.loads((folder / "zarr.json").read_text())["codecs"][0]["name"] == "sharding_indexed"


def test_every_ancestors_metadata_lies_beside_a_change(dataset):
    with VersionWriter(dataset, "main", 0) as writer:
        writer.put("zarr/zarr.json", group_zarr_json({"root": 1}))
        writer.put("zarr/a/zarr.json", group_zarr_json({"a": 1}))
        writer.put("zarr/a/b/zarr.json", group_zarr_json({"b": 1}))
        writer.put("zarr/other/zarr.json", group_zarr_json())
        writer.publish("groups")
    voxels = volume((16, 16, 16))
    write_version(dataset, voxels, parent=1, path="a/b/c", created=True)
    root = dataset.layout.version(2).root / "zarr"
    assert json.loads((root / "a/b/zarr.json").read_text())["attributes"] == {"b": 1}
    assert not (root / "other").exists()
    np.testing.assert_array_equal(zarr.open_group(str(root), mode="r")["a/b/c"][...], voxels)
    assert [r.name for r in read_manifest(VersionFiles.of(dataset.objects, 2))][:1] == ["zarr/a/b/c/zarr.json"]


def test_a_missing_manifest_is_not_found_and_a_directory_damage(dataset):
    files = VersionFiles.of(dataset.objects, 7)
    with pytest.raises(NotFound):
        read_manifest(files)
    (dataset.layout.version(7).root / "manifest.npy.zst").mkdir(parents=True)
    with pytest.raises(Damaged):
        read_manifest(files)


def test_payloads_are_stored_as_the_client_wrote_them(dataset):
    voxels = volume((16, 16, 16))
    raw = array_json(voxels, (8, 8, 8))
    meta = meta_of(raw)
    with VersionWriter(dataset, "main", 0) as writer:
        array = writer.array("s0", raw, created=True)
        for number, at in enumerate(every_chunk(meta)):
            array.put(at, b"not a chunk at all %d" % number)
        writer.publish("odd")
    node = array_at(dataset.version(1))
    assert [p.read() for _, p in sorted(node.payloads(Box((0, 0, 0), (2, 2, 2))).items())] == [
        b"not a chunk at all %d" % number for number in range(8)
    ]


def test_an_array_sharded_by_its_client_stays_object_by_object(dataset, tmp_path):
    z = zarr.create_array(
        str(tmp_path / "theirs"), shape=(32, 32, 32), chunks=(4, 4, 4), shards=(16, 16, 16), dtype="u2", zarr_format=3
    )
    z[...] = volume((32, 32, 32))
    raw = (tmp_path / "theirs/zarr.json").read_bytes()
    with VersionWriter(dataset, "main", 0) as writer:
        writer.put("zarr/zarr.json", group_zarr_json())
        array = writer.array("s0", raw, created=True)
        for at in every_chunk(meta_of(raw)):
            array.put(at, tmp_path / "theirs" / "c" / "/".join(map(str, at)))
        writer.publish("theirs")
    mine = dataset.layout.version(1).root / "zarr" / "s0"
    for path in (tmp_path / "theirs").rglob("*"):
        if path.is_file():
            assert (mine / path.relative_to(tmp_path / "theirs")).read_bytes() == path.read_bytes()
    np.testing.assert_array_equal(zarr_at(dataset, 1)[...], z[...])


def test_an_array_with_codecs_nobody_knows_is_kept_chunk_by_chunk(dataset):
    doc = json.loads(array_json(volume((16, 16)), (8, 8)))
    doc["codecs"].append({"name": "of-my-own", "configuration": {}})
    raw = json.dumps(doc).encode()
    with VersionWriter(dataset, "main", 0) as writer:
        array = writer.array("s0", raw, created=True)
        for at in every_chunk(meta_of(raw)):
            array.put(at, b"opaque %d %d" % at)
        writer.publish("odd")
    node = array_at(dataset.version(1))
    assert not node.readable
    assert node.payloads(Box((0, 0), (2, 2)))[1, 1].read() == b"opaque 1 1"
    assert (dataset.layout.version(1).root / "zarr" / "s0/c/1/0").read_bytes() == b"opaque 1 0"


@pytest.mark.parametrize("encoding", [("default", "."), ("v2", "."), ("v2", "/")])
def test_every_key_encoding_lists_and_reads(dataset, encoding):
    voxels = volume((16, 16, 24))
    doc = json.loads(array_json(voxels, (8, 8, 8)))
    doc["chunk_key_encoding"] = {"name": encoding[0], "configuration": {"separator": encoding[1]}}
    write_version(dataset, voxels, raw=json.dumps(doc).encode())
    version = dataset.version(1)
    meta = array_at(version).meta
    keys = {key for key in tree_of(version, "zarr/s0") if not key.endswith("zarr.json")}
    assert keys == {f"zarr/s0/{meta.chunk_key(at)}" for at in every_chunk(meta)}
    np.testing.assert_array_equal(zarr_at(dataset, 1)[...], voxels)
    np.testing.assert_array_equal(zarr.open_group(version.zarr_store(), mode="r")["s0"][...], voxels)


def test_keys_that_would_collide_on_disk_are_all_kept(dataset):
    voxels = volume((16, 16, 16))
    raw = array_json(voxels, (8, 8, 8))
    keys = {
        "zarr/s0/zarr.as-written.json": b"a key of this very name",
        "zarr/s0/c/0": b"a file where chunks have a directory",
        "files/zarr.as-written.json": b"x",
        "files/" + "/".join(["d" * 200] * 12): b"deep",
        "files/n\udcff.bin": b"not UTF-8",
    }
    with VersionWriter(dataset, "main", 0) as writer:
        array = writer.array("s0", raw, created=True, shard_shape=(8, 8, 8))
        for at in every_chunk(meta_of(raw)):
            array.put(at, chunk(array.meta, voxels, at))
        for key, data in keys.items():
            writer.put(key, data)
        writer.publish("odd")
    version = dataset.version(1)
    assert {key: version.read(key) for key in keys} == keys
    np.testing.assert_array_equal(voxels_of(version), voxels)


def test_a_large_object_is_read_in_ranges(dataset, tmp_path):
    data = np.random.default_rng(3).bytes(5_500_000)
    (tmp_path / "big").write_bytes(data)
    with VersionWriter(dataset, "main", 0) as writer:
        writer.put("files/a", data)
        writer.put("files/b", tmp_path / "big")
        with (tmp_path / "big").open("rb") as stream:
            writer.put("files/c", stream)
        writer.put("files/empty", b"")
        writer.publish("big")
    version = dataset.version(1)
    for key in ("files/a", "files/b", "files/c"):
        assert version.read(key) == data
        assert version.read(key, 1_048_570, 20) == data[1_048_570:1_048_590]
        assert version.read(key, 5_499_990, 500) == data[-10:]
        assert version.payload(key).pieces is not None
    assert version.read("files/empty") == b""
    assert version.stat("files/empty").size == 0


# -- how it is written --------------------------------------------------------------------------------------------


def test_nothing_is_seen_before_publish_and_nothing_remains_of_what_is_given_up(store, dataset):
    with pytest.raises(RuntimeError, match="no more"), VersionWriter(dataset, "main", 0) as writer:
        writer.put("files/a", b"a")
        array = writer.array("s0", array_json(volume((64, 64, 64)), (8, 8, 8)), created=True)
        array.put((0, 0, 0), b"x")
        assert dataset.versions() == []
        raise RuntimeError("no more")
    assert list(dataset.layout.versions.iterdir()) == []
    assert dataset.branches() == {"main": 0}
    with VersionWriter(dataset, "main", 0) as writer:
        assert writer.number == 1
        with pytest.raises(BadName):
            writer.put("somewhere/else", b"")
    assert list(dataset.layout.versions.iterdir()) == []
    with pytest.raises(BadInput):
        writer.publish("too late")


def test_a_chunk_is_put_once_and_inside_its_array(dataset):
    with VersionWriter(dataset, "main", 0) as writer:
        array = writer.array("s0", array_json(volume((64, 64, 64)), (8, 8, 8)), created=True)
        array.put((1, 2, 3), b"x")
        assert array.holds((1, 2, 3))
        assert not array.holds((1, 2, 4))
        for again in (
            lambda: array.put((1, 2, 3), b"y"),
            lambda: array.remove((1, 2, 3)),
            lambda: array.skip((1, 2, 3)),
        ):
            with pytest.raises(AlreadyThere):
                again()
        for outside in ((8, 0, 0), (-1, 0, 0), (0, 0)):
            with pytest.raises((BadInput, ValueError)):
                array.put(outside, b"x")
        with pytest.raises(BadInput, match="already"):
            writer.array("s0", array_json(volume((64, 64, 64)), (8, 8, 8)), created=True)
        with pytest.raises(WrongKind):
            writer.array("g", group_zarr_json(), created=True)
        with pytest.raises(BadMetadata):
            writer.array("g", b"{", created=True)


def test_many_threads_may_write_one_array(dataset):
    voxels = volume((64, 64, 64))
    raw = array_json(voxels, (4, 4, 4))
    meta = meta_of(raw)
    todo = every_chunk(meta)
    np.random.default_rng(0).shuffle(todo)
    with VersionWriter(dataset, "main", 0) as writer:
        writer.put("zarr/zarr.json", group_zarr_json())
        array = writer.array("s0", raw, created=True, shard_shape=(16, 16, 16))
        parts = [todo[k::4] for k in range(4)]
        threads = [
            threading.Thread(target=lambda part=part: [array.put(tuple(at), chunk(meta, voxels, at)) for at in part])
            for part in parts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.publish("threads")
    np.testing.assert_array_equal(voxels_of(dataset.version(1)), voxels)
    np.testing.assert_array_equal(zarr_at(dataset, 1)[...], voxels)


def test_thousands_of_shards_need_few_file_descriptors(dataset):
    raw = array_zarr_json((160, 160, 8), "u1", (4, 4, 4))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = len(os.listdir("/proc/self/fd"))  # of other tests in this process
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, others + 150), hard))
    try:
        with VersionWriter(dataset, "main", 0) as writer:
            array = writer.array("s0", raw, created=True, shard_shape=(8, 8, 8))
            for at in every_chunk(array.meta):
                if at[2] == 0:  # every shard is begun, none is complete
                    array.put(at, b"%d %d %d" % at)
            writer.publish("many")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    found = array_at(dataset.version(1)).payloads(Box((0, 0, 0), (40, 40, 2)))
    assert len(found) == 40 * 40
    assert found[39, 0, 0].read() == b"39 0 0"


def test_shards_are_finished_as_they_fill_or_are_said_to_be_done(dataset):
    raw = array_zarr_json((16, 16, 10), "u1", (4, 4, 4))
    with VersionWriter(dataset, "main", 0) as writer:
        array = writer.array("s0", raw, created=True, shard_shape=(16, 16, 4))
        for at in every_chunk(array.meta):
            if at[2] == 0:
                array.put(at, b"x")
            elif at[2] == 1:
                array.skip(at)
        assert not array._open
        assert [*dataset.objects.list(f"{writer.files.folder}/zarr")] == [f"{writer.files.folder}/zarr/s0/c/0/0/0"]
        writer.publish("one")
    assert len(array_at(dataset.version(1)).payloads(Box((0, 0, 0), (4, 4, 3)))) == 16


def test_shards_asked_for_divide_the_index_block_for_ever(dataset):
    voxels = volume((96, 96, 96))
    write_version(dataset, voxels, chunks=(8, 8, 8), shard_shape=(24, 24, 24))
    np.testing.assert_array_equal(zarr_at(dataset, 1)[...], voxels)
    block = array_at(dataset.version(1)).block_shape
    assert all(b % 3 == 0 for b in block)
    with pytest.raises(BadInput, match="divide"):
        write_version(dataset, voxels, parent=1, coords=[(0, 0, 0)], shard_shape=(7 * 8, 8, 8))
    with pytest.raises(BadInput, match="whole chunks"):
        write_version(dataset, voxels, parent=1, coords=[(0, 0, 0)], shard_shape=(9, 8, 8))
    with pytest.raises(BadInput, match="too large"):
        write_version(
            dataset, voxels, parent=1, path="t", created=True, coords=[], shard_shape=(8 * 77, 8 * 77, 8 * 77)
        )


def test_a_full_disk_leaves_nothing_half_made(dataset, monkeypatch):
    write_version(dataset, volume((16, 16, 16)))
    before = {p: p.read_bytes() for p in dataset.layout.root.rglob("*") if p.is_file()}
    real, budget = os.write, [0]

    def full(fd, data):
        budget[0] -= len(data)
        if budget[0] < 0:
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    for room in (0, 10_000, 40_000, 60_000, 66_000, 70_000):
        budget[0] = room
        with pytest.raises(NoSpace):
            write_version(dataset, volume((64, 64, 16), room), parent=1, path="t", created=True)
        budget[0] = 10**9
        assert {p: p.read_bytes() for p in dataset.layout.root.rglob("*") if p.is_file()} == before
        assert dataset.resolve("main") == 1
    monkeypatch.undo()
    assert write_version(dataset, volume((16, 16, 16), 9), parent=1, path="t", created=True) == 2


@pytest.mark.parametrize("step", ["write_ref", "index", "replace_durably"])
def test_a_failure_while_publishing_is_undone(dataset, monkeypatch, step):
    write_version(dataset, volume((16, 16, 16)))

    def fail(*args, **kwargs):
        monkeypatch.undo()
        raise NoSpace("full")

    if step == "index":
        monkeypatch.setattr(dataset.store.catalog, "index_version", fail)
    else:
        monkeypatch.setattr(f"volfs.versions.commit.publish.{step}", fail)
    with pytest.raises(NoSpace):
        write_version(dataset, volume((16, 16, 16), 1), parent=1, coords=[(0, 0, 0)])
    assert sorted(p.name for p in dataset.layout.versions.iterdir()) == ["00000001"]
    assert dataset.ref_files().heads == dataset.branches() == {"main": 1}
    assert write_version(dataset, volume((16, 16, 16), 1), parent=1, coords=[(0, 0, 0)]) == 2


def test_a_publish_is_undone_even_when_not_a_byte_more_can_be_written(dataset, monkeypatch):
    write_version(dataset, volume((16, 16, 16)))

    def fail(*args, **kwargs):
        def full(fd, data):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        raise NoSpace("the catalog has no room")

    monkeypatch.setattr(dataset.store.catalog, "index_version", fail)
    with pytest.raises(NoSpace, match="catalog"):
        write_version(dataset, volume((16, 16, 16), 1), parent=1, coords=[(0, 0, 0)])
    monkeypatch.undo()
    assert sorted(p.name for p in dataset.layout.versions.iterdir()) == ["00000001"]
    assert dataset.ref_files().heads == dataset.branches() == {"main": 1}
    assert write_version(dataset, volume((16, 16, 16), 1), parent=1, coords=[(0, 0, 0)]) == 2


def test_an_interrupt_after_the_catalog_knows_a_version_leaves_it_committed(dataset, monkeypatch):
    write_version(dataset, volume((16, 16, 16)))
    index_version = dataset.store.catalog.index_version

    def late(*args, **kwargs):
        index_version(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset.store.catalog, "index_version", late)
    with pytest.raises(KeyboardInterrupt):
        write_version(dataset, volume((16, 16, 16), 1), parent=1, coords=[(0, 0, 0)])
    monkeypatch.undo()
    assert dataset.ref_files().heads == dataset.branches() == {"main": 2}
    assert fsck(dataset.store).findings == []


def test_publishing_onto_a_removed_branch_is_a_conflict(dataset):
    write_version(dataset, volume((16, 16, 16)))
    dataset.create_branch("exp")
    with VersionWriter(dataset, "exp", 1) as writer:
        writer.put("files/a", b"a")
        dataset.delete_branch("exp")
        with pytest.raises(Conflict, match="removed"):
            writer.publish("late")
    assert [info.number for info in dataset.versions()] == [1]


# -- what a version says ------------------------------------------------------------------------------------------


def test_versions_are_at_least_a_second_apart(dataset):
    first = write_version(dataset, volume((16, 16, 16)), time_ns=START)
    second = write_version(dataset, volume((16, 16, 16), 1), parent=first, coords=[(0, 0, 0)], time_ns=START + 5)
    third = write_version(dataset, volume((16, 16, 16), 2), parent=second, coords=[(0, 0, 0)])
    assert dataset.info(2).time_ns == START + SECOND
    assert dataset.info(third).time_ns > START + SECOND


def test_the_author_is_who_the_environment_says(dataset, monkeypatch):
    monkeypatch.setenv("VOLFS_AUTHOR", "Ada <ada@example.org>")
    assert default_author() == "Ada <ada@example.org>"
    monkeypatch.delenv("VOLFS_AUTHOR")
    assert "@" in default_author()
    with VersionWriter(dataset, "main", 0) as writer:
        writer.put("files/a", b"a")
        assert writer.publish("m").author == default_author()


def histories(root: Path, *, dense: bool, name: str) -> list[str]:
    """The same history, packed differently; its content ids."""
    with new_store(root) as store:
        dataset = store.create_dataset(name)
        shard = (16, 16, 16) if dense else (8, 8, 8)
        with VersionWriter(dataset, "main", 0):
            pass
        voxels = volume((32, 32, 32))
        write_version(dataset, voxels, shard_shape=shard, time_ns=START, files={"files/a": b"a"})
        coords = [(0, 0, 0), (0, 0, 1)]
        write_version(dataset, volume((32, 32, 32), 1), parent=1, coords=coords, shard_shape=shard, time_ns=START * 2)
        with VersionWriter(dataset, "main", 2) as writer:
            writer.remove("files/a")
            writer.array("s0", dataset.version(2).read("zarr/s0/zarr.json"), created=False).remove((1, 1, 1))
            writer.publish("less", "tester", START * 3)
        with VersionWriter(dataset, "main", 3) as writer:
            writer.remove_subtree("zarr/s0")
            writer.publish("gone", "tester", START * 4)
        return [info.content_id for info in dataset.versions()]


def test_equal_histories_have_equal_content_ids_in_any_store(tmp_path):
    one = histories(tmp_path / "a", dense=True, name="cells")
    two = histories(tmp_path / "b", dense=False, name="other")
    assert one == two
    assert len(set(one)) == 4


def test_content_ids_tell_histories_apart(store):
    def made(name, **options):
        dataset = store.create_dataset(name)
        write_version(dataset, volume((16, 16, 16)), **({"time_ns": START} | options))
        return dataset.info(1).content_id

    ids = [
        made("a"),
        made("b", message="other"),
        made("c", author="other"),
        made("d", time_ns=START + 1),
        made("e", files={"files/x": b""}),
        made("f", path="s1"),
        made("g", coords=[(0, 0, 0)]),
    ]
    assert len(set(ids)) == len(ids)
    assert made("h") == ids[0]


def test_removed_keys_are_gone_and_a_new_incarnation_inherits_nothing(dataset):
    write_version(dataset, volume((16, 16, 16)), files={"files/a": b"a", "files/d/b": b"b"})
    with VersionWriter(dataset, "main", 1) as writer:
        writer.remove("files/a")
        writer.remove_subtree("zarr/s0")
        writer.publish("less")
    version = dataset.version(2)
    assert set(tree_of(version)) == {"files/d/b", "zarr/zarr.json"}
    assert version.node("s0") is None
    with pytest.raises(NotFound):
        version.read("zarr/s0/c/0/0/0")
    write_version(dataset, volume((16, 16, 16), 3), parent=2, created=True, coords=[(1, 1, 1)])
    assert list(array_at(dataset.version(3)).payloads(Box((0, 0, 0), (2, 2, 2)))) == [(1, 1, 1)]
    write_version(dataset, volume((8, 8), 3), chunks=(4, 4), parent=3, created=True, coords=[(0, 1)])
    assert list(array_at(dataset.version(4)).payloads(Box((0, 0), (2, 2)))) == [(0, 1)]
    assert len(array_at(dataset.version(1)).payloads(Box((0, 0, 0), (2, 2, 2)))) == 8


def test_a_number_is_found_by_one_look_at_the_versions(dataset, monkeypatch):
    write_version(dataset, volume((16, 16, 16)))
    dead = VersionWriter(dataset, "main", 1)
    dead.dataset.ledger._alive.pop(dead.draft.token).release()
    looks = []
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: looks.append(folder) or listed(folder))
    with dataset.ledger.locked(PATIENCE):
        draft = dataset.ledger.reserve(2)
    monkeypatch.undo()
    assert draft.number == dead.number == 2, "that of a writer who died is taken again"
    assert looks.count(dataset.layout.versions) == 1
    dataset.ledger.abandon(draft)


def test_everything_can_be_emptied(dataset):
    write_version(dataset, volume((16, 16, 16)), files={"files/a": b"a"})
    with VersionWriter(dataset, "main", 1) as writer:
        writer.remove_subtree("zarr")
        writer.remove_subtree("files")
        writer.publish("nothing")
    assert tree_of(dataset.version(2)) == {}
    assert [name for name, _ in dataset.version(2).list("")] == ["files", "zarr"]
    assert dataset.version(2).list("zarr") == []


def test_what_a_version_changed_can_be_asked(dataset):
    write_version(dataset, volume((16, 16, 16)), files={"files/a": b"a"})
    changes = dataset.version(1).changes()
    counted = {place: (node.put, node.removed) for place, node in changes.nodes.items()}
    assert counted == {"zarr": (1, 0), "zarr/s0": (9, 0), "files": (1, 0)}
    assert changes.nodes["files"].bytes == 1
    assert changes.counts.put == 11


def test_reopening_shows_the_same(tmp_path, store, dataset):
    voxels = volume((33, 20, 20))
    write_version(dataset, voxels, files={"files/a": b"a"})
    before = tree_of(dataset.version(1))
    store.close()
    with open_store(tmp_path / "store") as again:
        assert tree_of(again["cells"].version(1)) == before
        np.testing.assert_array_equal(voxels_of(again["cells"].version(1)), voxels)


def test_an_error_of_the_disk_is_an_error_of_the_writer(dataset):
    with VersionWriter(dataset, "main", 0) as writer, pytest.raises((VolfsError, OSError)):
        writer.put("files/a", Path("/nonexistent/file"))
