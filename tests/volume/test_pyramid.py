"""In a branch, coarser levels never disagree with s0: pieces computed on read equal the whole computed anew."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kits.example_counts import examples
from tests.kits.levels import random_voxels, same_bits, sharding
from tests.kits.memory_snapshots import Bytes, MemoryDataset, json_of, put_array, put_pyramid
from volfs.errors import Damaged, NotAllowed
from volfs.model.box import Box
from volfs.storage.codec import ChunkCodec
from volfs.versions.keys import json_key, node_key
from volfs.volume import image_at
from volfs.volume.pyramid import derived_metadata, derived_payload, downsample, settle


def pyramid_of(image, voxels):
    """Every level computed anew, from s0 down."""
    levels = [voxels]
    for level in image.levels[1:]:
        levels.append(downsample(levels[-1], level.factors, image.method))
    return levels


def check(branch, path, voxels):
    """Voxels, chunks and metadata of every level are what s0 makes of them."""
    image = image_at(branch, path)
    for level, expected in zip(image.levels, pyramid_of(image, voxels), strict=True):
        assert level.shape == expected.shape
        assert same_bits(level.read(Box.whole(level.shape)), expected), level
        seen = level.read_cached(Box.whole(level.shape))
        assert seen is None or same_bits(seen, expected)
        codec = ChunkCodec.of(level.array.meta)
        dirty = level.derived_keys()
        for coords in level.source.keys.iter(Box.whole(level.source.keys.grid_shape)):
            box = level.source.keys.chunk_box(coords)
            if coords in dirty:
                raw = derived_payload(level, coords)
            else:
                stored = branch.keys.get(node_key(level.array.path, level.array.meta.chunk_key(coords)))
                raw = None if stored is None else stored.data
            chunk = codec.filled() if raw is None else codec.decode(raw)
            assert same_bits(chunk[box.relative_to(box.start).slices()], expected[box.slices()]), (level, coords)
    return image


def commit(branch):
    def put(key, data):
        if data is not None:
            branch.put(key, data)
        elif key in branch.keys:
            branch.delete(key)

    settle(branch, put)
    branch.commit()


def resize(branch, path, voxels, shape):
    """As zarr-python does: new metadata, and whole chunks outside are removed."""
    array = branch.node(path)
    document = json_of(branch, path)
    document["shape"] = list(shape)
    branch.put(json_key(path), json.dumps(document).encode())
    grid = branch.node(path).meta.grid
    for key in [k for k in branch.keys if k.startswith(f"zarr/{path}/c/")]:
        coords = array.meta.parse_chunk_key(key.removeprefix(f"zarr/{path}/"))
        if not grid.holds(coords):
            branch.delete(key)
    grown = np.full(shape, array.meta.fill_value, voxels.dtype)
    # What a client left beyond the old edge inside a stored chunk shows when the array grows; ours is fill value.
    common = tuple(slice(0, min(a, b)) for a, b in zip(shape, voxels.shape, strict=True))
    grown[common] = voxels[common]
    return grown


@st.composite
def pyramids(draw):
    ndim = draw(st.integers(2, 4))
    most = {2: 40, 3: 20, 4: 9}[ndim]
    shape = tuple(draw(st.integers(1, most)) for _ in range(ndim))
    dtype = draw(st.sampled_from(["u1", "u2", "i4", "u8", "f4", "bool"]))
    voxels = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(0, 4, shape).astype(dtype)
    is_label = draw(st.booleans()) and dtype[0] == "u"
    chunk = tuple(draw(st.integers(1, 8)) for _ in range(ndim))
    codecs = None
    if draw(st.booleans()):
        codecs, chunk = sharding(chunk), tuple(2 * c for c in chunk)
    steps = draw(st.lists(st.tuples(*[st.sampled_from([1, 2])] * ndim), min_size=1, max_size=3))
    factors = [f if max(f) > 1 else (2,) * ndim for f in steps]
    keys = {}
    put_pyramid(keys, "a", voxels, chunk, is_label=is_label, factors=factors, codecs=codecs)
    return keys, voxels


@settings(max_examples=examples(60))
@given(pyramids(), st.data())
def test_levels_follow_s0_through_any_changes(case, data):
    keys, voxels = case
    voxels = voxels.copy()
    dataset = MemoryDataset()
    dataset.add(keys)
    branch = dataset.branch()
    rng = np.random.default_rng(0)
    for _ in range(data.draw(st.integers(1, 5))):
        image = check(branch, "a", voxels)
        step = data.draw(st.sampled_from(["write", "clear", "remove", "meddle", "resize", "commit", "discard"]))
        s0 = image.levels[0]
        if step in ("write", "clear"):
            start = tuple(data.draw(st.integers(0, n - 1)) for n in voxels.shape)
            box = Box(start, tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, voxels.shape, strict=True)))
            voxels[box.slices()] = 0 if step == "clear" else rng.integers(0, 4, box.shape)
            s0.write(box, voxels[box.slices()].copy())
        elif step == "remove":
            coords = tuple(data.draw(st.integers(0, n - 1)) for n in s0.source.keys.grid_shape)
            key = node_key("a/s0", s0.array.meta.chunk_key(coords))
            if key in branch.keys:
                branch.delete(key)
                voxels[s0.source.keys.chunk_box(coords).slices()] = 0
        elif step == "meddle":
            level = image.levels[-1]
            coords = tuple(data.draw(st.integers(0, n - 1)) for n in level.source.keys.grid_shape)
            key = node_key(level.array.path, level.array.meta.chunk_key(coords))
            codec = ChunkCodec.of(level.array.meta)
            branch.put(key, codec.encode(random_voxels(rng, codec.shape, codec.dtype)))
        elif step == "resize":
            shape = tuple(data.draw(st.integers(1, n + 9)) for n in voxels.shape)
            voxels = resize(branch, "a/s0", voxels, shape)
            # Cutting leaves voxels beyond the new edge in stored chunks: they show again if the array grows.
            whole = image_at(branch, "a").levels[0]
            whole.write(Box.whole(shape), voxels)
        elif step == "commit":
            commit(branch)
            assert all(not level.derived_keys() for level in image_at(branch, "a").levels)
            assert all(derived_metadata(level) is None for level in image_at(branch, "a").levels)
        else:
            branch.keys = dict(dataset.versions[-1].keys)
            branch._generation += 1
            voxels = image_at(dataset.versions[-1], "a").levels[0][...]
    check(branch, "a", voxels)


VOLUME = np.random.default_rng(1).integers(0, 255, (40, 40, 40), dtype="u1")


def branch_with(voxels=VOLUME, chunk=(8, 8, 8), **options):
    keys = {}
    put_pyramid(keys, "a", voxels, chunk, **options)
    dataset = MemoryDataset()
    dataset.add(keys)
    return dataset.branch()


def test_an_unchanged_pyramid_is_read_as_stored():
    branch = branch_with()
    image = check(branch, "a", VOLUME)
    assert image.managed
    assert all(not level.derived_keys() for level in image.levels)
    for level in image.levels[:2]:
        assert derived_payload(level, (0, 0, 0)) == branch.keys[f"zarr/{level.array.path}/c/0/0/0"].data


def test_only_what_lies_over_a_change_is_computed():
    branch = branch_with()
    image = image_at(branch, "a")
    image.levels[0][0, 0, 0] = 9
    assert image.levels[1].derived_keys() == {(0, 0, 0)}
    assert image.levels[2].derived_keys() == {(0, 0, 0)}
    branch.reads.clear()
    _ = image.levels[1][16:, :, :]
    assert not [key for key in branch.reads if "/s0/" in key]


def test_a_derived_chunk_is_computed_once_per_state():
    branch = branch_with()
    image = image_at(branch, "a")
    image.levels[0][0] = 9
    first = image.levels[2][...]
    decoded = image.levels[0].cache_stats().decoded
    np.testing.assert_array_equal(image.levels[2][...], first)
    assert image.levels[2].read_cached(Box.whole(image.levels[2].shape)) is not None
    assert image.levels[0].cache_stats().decoded == decoded
    image.levels[0][39] = 1  # not under the first chunk of s2, which covers 32 voxels of s0
    decoded = image.levels[0].cache_stats().decoded
    assert image.levels[2].read_cached(Box.whole((8, 8, 8))) is None
    image.levels[2].read(Box.whole((8, 8, 8)))
    assert image.levels[0].cache_stats().decoded == decoded


def test_stamps_change_with_the_chunks_crossed_and_with_no_others():
    branch = branch_with()
    image = image_at(branch, "a")
    here, there = Box((0, 0, 0), (1, 8, 8)), Box((32, 0, 0), (33, 8, 8))
    before = [level.stamp(box) for level in image.levels[:2] for box in (here,)]
    other = image.levels[0].stamp(there)
    image.levels[0][0, 0, 0] = 77
    after = [level.stamp(box) for level in image.levels[:2] for box in (here,)]
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert image.levels[0].stamp(there) == other
    whole = Box.whole(image.levels[0].shape)
    assert image.levels[0].stamp(whole) != image.levels[0].stamp(here)


def test_the_newest_change_under_a_box_is_its_time():
    branch = branch_with()
    image = image_at(branch, "a")
    assert [level.newest(Box.whole(level.shape)) for level in image.levels] == [1, 1, 1]
    image.levels[0][0, 0, 0] = 77
    now = branch.changed["zarr/a/s0/c/0/0/0"]
    for level in image.levels:
        assert level.newest(Box((0, 0, 0), (1, 1, 1))) == now
    assert image.levels[0].newest(Box((8, 0, 0), (9, 1, 1))) == 1
    assert image.levels[1].newest(Box((16, 0, 0), (17, 1, 1))) == 1
    assert image.levels[0].newest_along((0,)).tolist() == [now, 1, 1, 1, 1]
    assert image.levels[1].newest_along((0,)).tolist() == [now, 1, 1]
    assert image.levels[1].newest_along((2, 0)).tolist() == [[now, 1, 1], [1, 1, 1], [1, 1, 1]]
    assert image.levels[2].newest_along((1,)).tolist() == [now, 1]


def test_coarser_levels_of_a_managed_image_cannot_be_written():
    branch = branch_with()
    level = image_at(branch, "a").levels[1]
    assert level.derived and not level.writable
    with pytest.raises(NotAllowed, match="s0"):
        level[0] = 1


def test_a_foreign_pyramid_is_left_alone():
    branch = branch_with(managed=False)
    image = image_at(branch, "a")
    before = image.levels[1][...]
    image.levels[0][0] = 9
    np.testing.assert_array_equal(image.levels[1][...], before)
    image.levels[1][0] = 7
    assert (image_at(branch, "a").levels[1][0] == 7).all()
    assert settle(branch, lambda key, data: pytest.fail(key)) == 0


def test_a_damaged_chunk_of_s0_is_an_error_in_every_level_over_it_and_nowhere_else():
    branch = branch_with()
    branch.put("zarr/a/s0/c/0/0/0", b"junk")
    image = image_at(branch, "a")
    for level in image.levels[:2]:
        with pytest.raises(Damaged):
            level[0, 0, 0]
    with pytest.raises(Damaged):
        derived_payload(image.levels[1], (0, 0, 0))
    expected = downsample(VOLUME, (2, 2, 2))
    np.testing.assert_array_equal(image.levels[1][8:], expected[8:])


def test_a_damaged_coarse_chunk_is_mended_by_what_lies_under_it():
    branch = branch_with()
    branch.put("zarr/a/s1/c/0/0/0", b"junk")
    check(branch, "a", VOLUME)


def test_chunks_that_become_fill_value_vanish_from_coarser_levels_too():
    branch = branch_with()
    image_at(branch, "a").levels[0][:16, :16, :16] = 0
    image = check(branch, "a", np.where(np.indices(VOLUME.shape).max(axis=0) < 16, 0, VOLUME).astype("u1"))
    assert derived_payload(image.levels[1], (0, 0, 0)) is None
    commit(branch)
    assert "zarr/a/s1/c/0/0/0" not in branch.keys


def test_a_new_pyramid_in_an_empty_branch_is_computed_from_its_s0():
    branch = MemoryDataset().branch()
    keys = {}
    put_pyramid(keys, "a", VOLUME, (8, 8, 8))
    for key, stored in keys.items():
        if "/c/" not in key or "/s0/" in key:
            branch.put(key, stored.data)
    check(branch, "a", VOLUME)
    commit(branch)
    check(branch, "a", VOLUME)


def test_an_s0_that_was_made_anew_changes_every_level():
    branch = branch_with()
    for key in [k for k in branch.keys if k.startswith("zarr/a/s0/")]:
        branch.delete(key)
    keys = {}
    put_array(keys, "a/s0", VOLUME[::-1], (16, 16, 16))
    for key, stored in keys.items():
        branch.put(key, stored.data)
    check(branch, "a", VOLUME[::-1])


def test_growing_s0_grows_every_level_and_commits_their_metadata():
    branch = branch_with()
    voxels = resize(branch, "a/s0", VOLUME, (47, 40, 41))
    image = check(branch, "a", voxels)
    assert [level.shape for level in image.levels] == [(47, 40, 41), (24, 20, 21), (12, 10, 11)]
    assert json.loads(derived_metadata(image.levels[1]))["shape"] == [24, 20, 21]
    image.levels[0][40:] = 5
    voxels[40:] = 5
    check(branch, "a", voxels)
    commit(branch)
    assert json_of(branch, "a/s1")["shape"] == [24, 20, 21]
    check(branch, "a", voxels)


def test_voxels_that_a_client_left_beyond_the_edge_show_in_every_level_when_s0_grows():
    voxels = VOLUME[:37]
    branch = branch_with(voxels)
    array = branch.node("a/s0")
    codec = ChunkCodec.of(array.meta)
    chunk = np.full((8, 8, 8), 200, "u1")
    chunk[:5] = voxels[32:37, :8, :8]
    branch.put("zarr/a/s0/c/4/0/0", codec.encode(chunk))
    commit(branch)
    resize(branch, "a/s0", voxels, (40, 40, 40))
    grown = np.zeros((40, 40, 40), "u1")
    grown[:37] = voxels
    grown[37:, :8, :8] = 200
    check(branch, "a", grown)


def test_a_changed_fill_value_reaches_every_level():
    branch = branch_with(np.zeros((20, 20), "u1"), (8, 8))
    document = json_of(branch, "a/s0")
    document["fill_value"] = 6
    branch.put("zarr/a/s0/zarr.json", json.dumps(document).encode())
    check(branch, "a", np.full((20, 20), 6, "u1"))
    assert isinstance(branch.keys["zarr/a/s0/zarr.json"], Bytes)
