"""Levels read, write and slice like the numpy arrays they stand for; errors stay errors."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kits.levels import arrays, level_of, random_voxels, same_bits, sharding
from tests.kits.memory_snapshots import Bytes, put_array, put_group
from volfs.errors import BadInput, Damaged, ReadOnly
from volfs.model.box import Box
from volfs.storage.codec import ChunkCodec
from volfs.versions.keys import node_key
from volfs.volume import image_at


@st.composite
def boxes(draw, shape):
    start = [draw(st.integers(0, n)) for n in shape]
    return Box(tuple(start), tuple(draw(st.integers(a, n)) for a, n in zip(start, shape, strict=True)))


@given(arrays(), st.data(), st.sampled_from([0, 3000, 1 << 20]))
def test_a_box_reads_as_the_array_it_was_cut_from(case, data, cache_bytes):
    keys, voxels = case
    level = level_of(keys, cache_bytes=cache_bytes)
    assert (level.shape, level.dtype) == (voxels.shape, voxels.dtype)
    for _ in range(4):
        box = data.draw(boxes(voxels.shape))
        expected = voxels[box.slices()]
        assert same_bits(level.read(box), expected)
        out = np.zeros((*expected.shape, 2), expected.dtype)[..., 0]  # strided memory
        assert level.read(box, out) is out
        assert same_bits(out, expected)
        cached = level.read_cached(box)
        assert cached is None or same_bits(cached, expected)


@given(arrays(min_size=1), st.data())
def test_what_is_written_reads_back_and_nothing_else_changes(case, data):
    keys, voxels = case
    level = level_of(keys, branch=True)
    rng = np.random.default_rng(0)
    for _ in range(4):
        box = data.draw(boxes(voxels.shape))
        new = level.fill_value if data.draw(st.booleans()) else random_voxels(rng, box.shape, voxels.dtype)
        voxels[box.slices()] = new
        level.write(box, np.array(voxels[box.slices()]))
        assert same_bits(level.read(Box.whole(voxels.shape)), voxels)
        assert same_bits(image_at(level.snapshot, "a").levels[0].read(box), voxels[box.slices()])


ends = st.none() | st.integers(-25, 25)
index_part = st.one_of(
    st.integers(-20, 20),
    st.slices(20),
    st.builds(slice, ends, ends, st.sampled_from([None, 1, -1, 2, -3])),
    st.just(Ellipsis),
)


@given(arrays(), st.lists(index_part, max_size=6), st.booleans())
def test_indexing_is_numpys(case, parts, single):
    keys, voxels = case
    level = level_of(keys)
    index = parts[0] if single and parts else tuple(parts)
    try:
        expected = voxels[index]
    except IndexError:
        with pytest.raises(IndexError):
            level[index]
        return
    assert same_bits(np.asarray(level[index]), np.asarray(expected))


def small(**options):
    voxels = np.arange(10 * 12 * 14, dtype="u2").reshape(10, 12, 14)
    keys = {}
    put_array(keys, "a", voxels, (4, 4, 4), **options)
    return keys, voxels


def test_a_level_is_an_array_to_numpy():
    keys, voxels = small()
    level = level_of(keys)
    np.testing.assert_array_equal(np.asarray(level), voxels)
    assert np.asarray(level, dtype="f4").dtype == "f4"
    np.testing.assert_array_equal(np.stack(list(level)), voxels)
    assert len(level) == 10
    assert level[1, 2, 3] == voxels[1, 2, 3]
    assert not isinstance(level[1, 2, 3], np.ndarray)
    for nonsense in (None, "a", True, 1.5):
        with pytest.raises(BadInput):
            level[nonsense]
    with pytest.raises(ValueError, match="memory"):
        np.asarray(level, copy=False)


def test_sampling_with_a_long_step_reads_slab_by_slab():
    keys, voxels = small()
    level = level_of(keys)
    np.testing.assert_array_equal(level[::-5, ::3, 1::4], voxels[::-5, ::3, 1::4])
    level = level_of(keys)
    _ = level[::9]
    assert {key.split("/")[3] for key in level.snapshot.reads} == {"0", "2"}


def test_missing_chunks_are_fill_value_and_damaged_ones_are_errors_for_their_boxes_only():
    keys, voxels = small(fill_value=7)
    del keys["zarr/a/c/0/0/0"]
    keys["zarr/a/c/0/0/1"] = Bytes(keys["zarr/a/c/0/0/1"].data, bad=True)
    keys["zarr/a/c/0/1/0"] = Bytes(keys["zarr/a/c/0/1/0"].data[:-3])
    level = level_of(keys)
    assert (level[:4, :4, :4] == 7).all()
    for bad, name in (((0, 0, 4), "c/0/0/1"), ((0, 4, 0), "c/0/1/0")):
        for _ in range(2):
            with pytest.raises(Damaged, match=name):
                level[bad]
    with pytest.raises(Damaged):
        np.asarray(level)
    np.testing.assert_array_equal(level[4:], voxels[4:])
    assert level.read_cached(Box((0, 0, 0), (1, 1, 8))) is None


def test_boxes_outside_are_refused():
    level = level_of(small()[0])
    for box in (Box((0, 0, 0), (11, 1, 1)), Box((-1, 0, 0), (1, 1, 1)), Box((0, 0), (1, 1))):
        with pytest.raises(BadInput):
            level.read(box)
    with pytest.raises(BadInput):
        level.read_cached(Box((0, 0, 0), (11, 1, 1)))
    with pytest.raises(BadInput):
        level.read(Box((0, 0, 0), (1, 1, 1)), np.zeros((1, 1, 1), "u1"))


# -- writing ------------------------------------------------------------------------------------------------------


def test_writing_reads_no_chunk_that_it_covers():
    keys, voxels = small()
    keys["zarr/a/c/1/1/1"] = Bytes(b"broken", bad=True)
    level = level_of(keys, branch=True)
    level.write(Box((4, 4, 4), (8, 8, 8)), voxels[:4, :4, :4])
    assert not level.snapshot.reads
    assert level.snapshot.puts == ["zarr/a/c/1/1/1"]
    np.testing.assert_array_equal(level[4:8, 4:8, 4:8], voxels[:4, :4, :4])


def test_a_write_that_must_read_a_damaged_chunk_changes_nothing():
    keys, voxels = small()
    keys["zarr/a/c/1/1/1"] = Bytes(b"broken", bad=True)
    level = level_of(keys, branch=True)
    with pytest.raises(Damaged):
        level.write(Box((5, 0, 0), (6, 12, 14)), voxels[5:6])
    assert not level.snapshot.puts


def test_chunks_that_become_fill_value_are_removed():
    keys, _ = small(fill_value=3)
    level = level_of(keys, branch=True)
    level[0:5] = 3
    assert not [key for key in level.snapshot.keys if key.startswith("zarr/a/c/0/")]
    assert [key for key in level.snapshot.keys if key.startswith("zarr/a/c/1/")]
    assert (level[:5] == 3).all()


def test_negative_zero_and_odd_nans_are_not_fill_value():
    keys = {}
    put_array(keys, "a", np.zeros((4, 4), "f4"), (4, 4), fill_value=0.0)
    level = level_of(keys, branch=True)
    odd = np.full((4, 4), -0.0, "f4")
    level.write(Box.whole((4, 4)), odd)
    assert same_bits(level[...], odd)
    odd = np.full((4, 4), 0x7FC01234, "u4").view("f4")
    level.write(Box.whole((4, 4)), odd)
    assert same_bits(level[...], odd)


def test_wrong_shapes_and_types_are_refused_and_change_nothing():
    keys, voxels = small()
    level = level_of(keys, branch=True)
    box = Box((0, 0, 0), (1, 12, 14))
    for wrong in (voxels[0], voxels[:2], voxels[:1].astype("u1"), voxels[:1].astype("i2"), voxels[:1].astype("f4")):
        with pytest.raises(BadInput):
            level.write(box, wrong)
    with pytest.raises(BadInput):
        level[0] = 70000
    with pytest.raises(BadInput):
        level[::2] = 1.5
    with pytest.raises(BadInput):
        level[0] = voxels[:2]
    with pytest.raises(BadInput):
        level.write(Box((9, 0, 0), (11, 12, 14)), np.zeros((2, 12, 14), "u2"))
    assert not level.snapshot.puts
    level.write(box, voxels[1:2].astype(">u2"))  # byte order is no type
    np.testing.assert_array_equal(level[0], voxels[1])


def test_labels_come_in_any_unsigned_type_that_fits():
    labels = np.arange(64, dtype="u4").reshape(4, 4, 4)
    keys = {}
    put_group(keys, "labels", {})
    put_array(keys, "labels/nuclei", labels, (2, 4, 4))
    level = level_of(keys, branch=True, path="labels/nuclei")
    assert level.is_label
    level.write(Box((0, 0, 0), (1, 4, 4)), np.full((1, 4, 4), 9, "u1"))
    level.write(Box((1, 0, 0), (2, 4, 4)), np.full((1, 4, 4), 2**32 - 1, "u8"))
    assert (level[0] == 9).all() and (level[1] == 2**32 - 1).all()
    for wrong in (np.full((1, 4, 4), 2**32, "u8"), np.full((1, 4, 4), 1, "i4"), np.full((1, 4, 4), 1, "f4")):
        with pytest.raises(BadInput):
            level.write(Box((0, 0, 0), (1, 4, 4)), wrong)


def test_signed_labels_take_unsigned_voxels_that_fit():
    keys = {}
    put_array(keys, "labels/nuclei", np.zeros((4, 4), "i2"), (4, 4))
    level = level_of(keys, branch=True, path="labels/nuclei")
    level.write(Box((0, 0), (1, 4)), np.full((1, 4), 32767, "u2"))
    assert (level[0] == 32767).all()
    with pytest.raises(BadInput):
        level.write(Box((0, 0), (1, 4)), np.full((1, 4), 32768, "u2"))


def test_arrays_of_no_voxels_are_read_written_and_timed():
    keys = {}
    put_array(keys, "a", np.zeros((0, 5, 6), "u2"), (4, 4, 4))
    level = level_of(keys, branch=True)
    whole = Box.whole(level.shape)
    assert level.read(whole).shape == level[...].shape == (0, 5, 6)
    assert level.read_cached(whole) is None or level.read_cached(whole).shape == (0, 5, 6)
    level.write(whole, np.zeros((0, 5, 6), "u2"))
    assert level.newest(whole) == level.array.mtime_ns
    assert level.newest_along((0,)).shape == (0,)
    assert level.stamp(whole) == level.stamp(whole)
    assert list(level) == []


def test_versions_are_read_only():
    keys, voxels = small()
    level = level_of(keys)
    assert not level.writable
    with pytest.raises(ReadOnly):
        level.write(Box((0, 0, 0), (1, 12, 14)), voxels[:1])


def test_concurrent_writes_to_one_chunk_lose_nothing():
    keys, voxels = small()
    level = level_of(keys, branch=True)
    threads = [
        threading.Thread(target=level.write, args=(Box((z, 0, 0), (z + 1, 12, 14)), voxels[z : z + 1] + 1000))
        for z in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(level[...], voxels + 1000)


def test_voxels_beyond_the_edge_are_written_as_fill_value():
    keys, voxels = small(fill_value=9)
    level = level_of(keys, branch=True)
    level.write(Box((8, 0, 0), (10, 12, 14)), voxels[8:])
    stored = level.snapshot.keys[node_key("a", "c/2/0/0")].data
    chunk = ChunkCodec.of(level.array.meta).decode(stored)
    assert (chunk[2:] == 9).all()


def test_a_sharded_array_keeps_its_shards():
    keys, voxels = small(codecs=sharding((2, 2, 2)))
    level = level_of(keys, branch=True)
    assert (level.chunk_shape, level.key_shape) == ((2, 2, 2), (4, 4, 4))
    level[3] = voxels[0]
    assert set(level.snapshot.puts) == {f"zarr/a/c/0/{y}/{x}" for y in range(3) for x in range(4)}
    voxels[3] = voxels[0]
    np.testing.assert_array_equal(level[...], voxels)


def test_a_read_of_a_sharded_array_decodes_only_the_inner_chunks_crossed():
    keys, voxels = small(codecs=sharding((2, 2, 2)))
    level = level_of(keys)
    np.testing.assert_array_equal(level[:2, :2, :2], voxels[:2, :2, :2])
    assert level.cache_stats().decoded == 1
