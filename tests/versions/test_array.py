"""Arrays in versions: chunks, times and listings against a ledger of dictionaries, and what damage does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kits.example_counts import examples
from tests.kits.stores import (
    CODECS,
    array_at,
    array_json,
    codecs,
    every_chunk,
    meta_of,
    new_store,
    tree_of,
    volume,
    write_version,
)
from volfs.errors import Damaged, NotFound, WrongKind
from volfs.model.box import Box
from volfs.versions.commit.version_writer import VersionWriter

# -- histories ----------------------------------------------------------------------------------------------------

SHAPE = (20, 9, 12)
CHUNKS = (4, 4, 4)
GRID = (5, 3, 3)

coordinates = st.tuples(*(st.integers(0, n - 1) for n in GRID))
changes = st.dictionaries(coordinates, st.booleans(), max_size=6)
histories = st.lists(st.tuples(changes, st.integers(0, 5), st.sampled_from([None, (4, 4, 4), (8, 4, 8)])), max_size=5)


@settings(max_examples=examples(16))
@given(histories, st.permutations([0, 1, 2]), st.integers(1, 3))
def test_chunks_and_times_of_any_history_are_those_of_the_ledger(tmp_path_factory, history, order, rank):
    """Versions fork from any earlier one; each puts and removes chunks; times are asked for in any order of axes."""
    raw = array_json(volume(SHAPE), CHUNKS)
    axes = tuple(order[:rank])
    with new_store(tmp_path_factory.mktemp("s") / "store") as store:
        dataset = store.create_dataset("cells")
        write_version(dataset, volume(SHAPE), raw=raw, coords=[(0, 0, 0)])
        # per version: chunk -> (bytes or None, version that changed it)
        ledger = {1: {(0, 0, 0): (array_at(dataset.version(1)).payload((0, 0, 0)).read(), 1)}}
        for step, (changed, back, shard) in enumerate(history):
            parent = max(1, len(ledger) - back)
            branch = f"b{step}"
            dataset.create_branch(branch, parent)
            state = dict(ledger[parent])
            with VersionWriter(dataset, branch, parent) as writer:
                array = writer.array("s0", raw, created=False, shard_shape=shard)
                for at, put in changed.items():
                    if put:
                        array.put(at, b"%d %d %d %d" % (writer.number, *at))
                        state[at] = (b"%d %d %d %d" % (writer.number, *at), writer.number)
                    else:
                        array.remove(at)
                        state[at] = (None, writer.number)
                writer.put(f"files/{step}", b"")
                ledger[writer.publish("step").number] = state
            # Asked at once, so that later versions have something to go on from.
            array_at(dataset.version(max(ledger))).newest(axes)
        for number, state in ledger.items():
            _compare(dataset.version(number), state, axes)
        store.resolved.clear()
        for number, state in ledger.items():
            _compare(dataset.version(number), state, axes)


def _compare(version, state, axes):
    node = array_at(version)
    whole = Box.whole(GRID)
    stored = {at: data for at, (data, _) in state.items() if data is not None}
    assert {at: payload.read() for at, payload in node.payloads(whole).items()} == stored
    part = Box((1, 0, 1), (4, 2, 3))
    inside = {at: data for at, data in stored.items() if part.contains(Box(at, tuple(c + 1 for c in at)))}
    assert {at: payload.read() for at, payload in node.payloads(part).items()} == inside
    assert sorted(map(tuple, (np.argwhere(node.present(part)) + part.start).tolist())) == sorted(inside)
    times = np.full(GRID, version.dataset.info(1).time_ns, np.int64)
    for at, (_, number) in state.items():
        times[at] = version.dataset.info(number).time_ns
    others = tuple(axis for axis in range(3) if axis not in axes)
    kept = sorted(axes)
    expected = times.max(axis=others).transpose([kept.index(axis) for axis in axes])
    np.testing.assert_array_equal(node.newest(axes), expected)
    assert node.newest_in(part) == times[part.slices()].max()
    keys = {f"zarr/s0/{node.meta.chunk_key(at)}": data for at, data in stored.items()}
    listed = {key: data for key, data in tree_of(version, "zarr/s0").items() if not key.endswith("zarr.json")}
    assert listed == keys
    for at, (data, number) in state.items():
        info = version.stat(f"zarr/s0/{node.meta.chunk_key(at)}")
        if data is None:
            assert info is None
        else:
            assert (info.size, info.version, info.mtime_ns) == (len(data), number, times[at])


def test_times_cannot_be_written_into(dataset):
    write_version(dataset, volume((16, 16, 16)))
    with pytest.raises(ValueError, match="read-only"):
        array_at(dataset.version(1)).newest((0,))[0] = 1


def test_times_of_the_next_version_cost_what_it_changed(dataset, monkeypatch):
    write_version(dataset, volume((64, 64, 64)), chunks=(4, 4, 4))
    array_at(dataset.version(1)).newest((0,))
    write_version(dataset, volume((64, 64, 64), 1), chunks=(4, 4, 4), parent=1, coords=[(3, 3, 3)])
    monkeypatch.setattr(type(dataset.store.catalog), "newest_changes", None)
    times = array_at(dataset.version(2)).newest((0,))
    assert np.flatnonzero(times == dataset.info(2).time_ns).tolist() == [3]


def test_growing_and_shrinking_move_the_edge_and_nothing_else(dataset):
    small, large = volume((16, 16, 16)), volume((40, 16, 16))
    write_version(dataset, small)
    write_version(dataset, large, parent=1, coords=[(4, 1, 1)], created=False)
    with VersionWriter(dataset, "main", 2) as writer:
        array = writer.array("s0", array_json(small, (8, 8, 8)), created=False)
        array.remove((4, 1, 1))
        writer.publish("shrunk")
    write_version(dataset, large, parent=3, coords=[], created=False)
    assert (4, 1, 1) in array_at(dataset.version(2)).payloads(Box((0, 0, 0), (5, 2, 2)))
    assert array_at(dataset.version(3)).meta.shape == (16, 16, 16)
    assert set(array_at(dataset.version(4)).payloads(Box((0, 0, 0), (9, 9, 9)))) == set(
        every_chunk(meta_of(array_json(small, (8, 8, 8))))
    )
    times = array_at(dataset.version(4)).newest((0,))
    assert times[4] == dataset.info(4).time_ns  # there again, as fill
    assert times[0] == dataset.info(1).time_ns


def test_a_sparse_array_in_a_vast_grid_is_listed_at_once(dataset):
    raw = array_json(volume((1, 1, 1)), (64, 64, 64)).replace(
        b'"shape": [\n    1,\n    1,\n    1\n  ]', b'"shape": [6400000, 6400000, 6400000]'
    )
    meta = meta_of(raw)
    assert meta.grid.grid_shape == (100_000,) * 3
    with VersionWriter(dataset, "main", 0) as writer:
        array = writer.array("s0", raw, created=True)
        for at in [(0, 0, 0), (5, 7, 9), (99_999, 1, 2), (5, 70_000, 9)]:
            array.put(at, b"x")
        writer.publish("sparse")
    version = dataset.version(1)
    assert [name for name, _ in version.list("zarr/s0/c")] == ["0", "5", "99999"]
    assert [name for name, _ in version.list("zarr/s0/c/5")] == ["7", "70000"]
    assert version.stat("zarr/s0/c/6") is None
    assert version.stat("zarr/s0/c/5").kind == "dir"
    with pytest.raises(NotFound):
        version.list("zarr/s0/c/6")


# -- keys ---------------------------------------------------------------------------------------------------------


def test_keys_are_files_or_directories_and_say_which(dataset):
    write_version(dataset, volume((16, 16, 16)), files={"files/a/b": b"hello"})
    version = dataset.version(1)
    assert version.stat("").kind == version.stat("zarr").kind == version.stat("files").kind == "dir"
    assert version.stat("files/a").kind == version.stat("zarr/s0/c/1").kind == "dir"
    assert version.stat("files/a/b").size == 5
    assert version.read("files/a/b", 1, 3) == b"ell"
    assert version.read("files/a/b", 9, 3) == b""
    assert [name for name, _ in version.list("zarr/s0")] == ["c", "zarr.json"]
    for key in ("nothing", "files/x", "files/a/b/c", "zarr/s0/c/2", "zarr/s0/c/00", "zarr/s0/c/1/1/1/1", "zarr/s0/d"):
        assert version.stat(key) is None
        with pytest.raises(NotFound):
            version.list(key)
        with pytest.raises(NotFound):
            version.read(key)
    for key in ("files/a/b", "zarr/zarr.json", "zarr/s0/c/0/0/0"):
        with pytest.raises(WrongKind):
            version.list(key)
    for key in ("", "zarr", "files/a", "zarr/s0", "zarr/s0/c", "zarr/s0/c/0/0"):
        with pytest.raises(WrongKind):
            version.read(key)
    assert version.children("") == ["s0"]
    assert version.children("s0") == []
    assert version.node("nothing") is None
    assert version.generation() == dataset.version(1).generation()


def test_metadata_that_volfs_does_not_interpret_is_a_key_and_no_node(dataset):
    with VersionWriter(dataset, "main", 0) as writer:
        writer.put("zarr/odd/zarr.json", b'{"zarr_format": 3, "node_type": "array", "data_type": "string"}')
        writer.put("zarr/odd/c/0", b"opaque")
        writer.put("zarr/broken/zarr.json", b"{")
        writer.publish("odd")
    version = dataset.version(1)
    assert version.node("odd") is None
    assert version.node("broken") is None
    assert version.read("zarr/odd/c/0") == b"opaque"
    assert version.children("") == []


# -- damage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CODECS)
@pytest.mark.parametrize("packed", ["shard", "file"])
def test_any_flipped_bit_is_damaged_or_harmless_whatever_the_codec(dataset, kind, packed):
    voxels = volume((8, 8, 8))
    shard = (8, 8, 8) if packed == "shard" else (4, 4, 4)
    write_version(dataset, voxels, chunks=(4, 4, 4), codecs=codecs(kind), shard_shape=shard)
    version = dataset.version(1)
    node = array_at(version)
    payload = node.payload((1, 0, 1))
    good = payload.read()
    path = dataset.layout.versions / payload.payload.file
    original = path.read_bytes()
    start = payload.payload.offset
    rng = np.random.default_rng(0)
    bits = {(0, 0), (payload.size - 1, 7), (4, 0), (4, 2), (5, 1)}
    bits |= {(int(rng.integers(payload.size)), int(rng.integers(8))) for _ in range(60)}
    key = f"zarr/s0/{node.meta.chunk_key((1, 0, 1))}"
    for byte, bit in sorted(bits):
        raw = bytearray(original)
        raw[start + byte] ^= 1 << bit
        path.write_bytes(raw)
        dataset.reader.close()
        for read in (payload.read, lambda: version.read(key), lambda: version.read(key, 3, 5)):
            with pytest.raises(Damaged, match=payload.payload.file):
                read()
        # Only the chunk that holds the bit is lost.
        neighbour = node.payload((0, 0, 0))
        if packed == "shard":
            assert node.codec.decode(neighbour.read()).shape == (4, 4, 4)
    path.write_bytes(original)
    dataset.reader.close()
    assert payload.read() == good


@pytest.mark.parametrize("how", ["truncated", "missing", "empty"])
def test_a_file_cut_short_or_gone_is_damaged(dataset, how):
    write_version(dataset, volume((8, 8, 8)), chunks=(4, 4, 4), files={"files/a": b"hello" * 1000})
    version = dataset.version(1)
    for payload in (array_at(version).payload((1, 1, 1)).payload, version.payload("files/a")):
        path = dataset.layout.versions / payload.file
        if how == "missing":
            path.unlink()
        else:
            path.write_bytes(b"" if how == "empty" else path.read_bytes()[: payload.offset + payload.length - 1])
    dataset.reader.close()
    with pytest.raises(Damaged):
        array_at(version).payload((1, 1, 1)).read()
    with pytest.raises(Damaged):
        version.read("files/a")
    assert version.read("zarr/zarr.json")


def test_a_flipped_bit_in_a_large_object_harms_only_the_ranges_that_cross_it(dataset):
    data = np.random.default_rng(3).bytes(4 << 20)
    write_version(dataset, volume((8, 8, 8)), chunks=(4, 4, 4), files={"files/big": data})
    version = dataset.version(1)
    path = dataset.layout.versions / version.payload("files/big").file
    raw = bytearray(data)
    raw[2_500_000] ^= 4
    path.write_bytes(raw)
    dataset.reader.close()
    assert version.read("files/big", 0, 1 << 20) == data[: 1 << 20]
    assert version.read("files/big", 3 << 20, 100) == data[3 << 20 :][:100]
    for offset, length in ((2_500_000, 1), (2_400_000, 200_000), (0, None)):
        with pytest.raises(Damaged):
            version.read("files/big", offset, length)


# -- caches -------------------------------------------------------------------------------------------------------


def test_a_block_is_asked_of_the_catalog_once(dataset, monkeypatch):
    write_version(dataset, volume((64, 64, 64)), chunks=(8, 8, 8))
    node = array_at(dataset.version(1))
    node.payload((0, 0, 0))
    monkeypatch.setattr(type(dataset.store.catalog), "block_map", None)
    assert len(node.payloads(Box((0, 0, 0), (8, 8, 8)))) == 512
