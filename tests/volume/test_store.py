"""Images in a real store: through versions, branches, commits, and a second process's eyes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

import volfs
from tests.kits.levels import same_bits, sharding
from tests.kits.memory_snapshots import put_pyramid
from volfs.errors import Damaged, NothingToCommit, VolfsError
from volfs.model.box import Box
from volfs.volume import image_at, images
from volfs.volume.pyramid import derived_payload, downsample
from volfs.volume.volume_context import context_of

RNG = np.random.default_rng(5)
VOLUME = RNG.integers(0, 255, (40, 50, 60), dtype="u1")
LABELS = np.repeat(RNG.integers(0, 9, (10, 25, 30), dtype="u4"), 2, axis=0)


@pytest.fixture
def store(tmp_path):
    with volfs.init_store(tmp_path / "store") as store:
        yield store


def new_branch(store, **options):
    keys = {}
    put_pyramid(keys, "", VOLUME, (8, 16, 16), **options)
    put_pyramid(keys, "labels/cells", LABELS, (8, 16, 16), is_label=True)
    branch = store.create_dataset("cells").branch("main")
    with branch.writing():
        for key, stored in keys.items():
            branch.put(key, stored.data)
        branch.put("zarr/labels/zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    return branch


def check(snapshot, path, voxels):
    image = image_at(snapshot, path)
    assert image.managed
    for level in image.levels:
        if level.index:
            voxels = downsample(voxels, level.factors, image.method)
        assert same_bits(level.read(Box.whole(level.shape)), voxels), level
    return image


@pytest.mark.parametrize("codecs", [None, sharding((4, 8, 8))], ids=["chunks", "shards"])
def test_images_survive_commits_and_changes(store, codecs):
    branch = new_branch(store, codecs=codecs)
    check(branch, "", VOLUME)
    first = branch.commit("import")
    check(branch, "", VOLUME)
    check(store["cells"]["v1"], "", VOLUME)
    check(store["cells"]["v1"], "labels/cells", LABELS)
    assert list(images(branch)) == ["", "labels/cells"]

    changed, labels = VOLUME.copy(), LABELS.copy()
    changed[3] = 7
    changed[:, 20:45, 11] = 200
    changed[16:32, :32, :32] = 0
    labels[5:9] = 3
    s0 = image_at(branch, "").levels[0]
    s0.write(Box((3, 0, 0), (4, 50, 60)), changed[3:4])
    s0.write(Box((0, 20, 11), (40, 45, 12)), changed[:, 20:45, 11:12])
    s0.write(Box((16, 0, 0), (32, 32, 32)), changed[16:32, :32, :32])
    image_at(branch, "labels/cells").levels[0].write(Box((5, 0, 0), (9, 25, 30)), labels[5:9].astype("u2"))
    image = check(branch, "", changed)
    check(branch, "labels/cells", labels)
    check(store["cells"]["v1"], "", VOLUME)
    assert image.levels[1].derived_keys()

    second = branch.commit("change")
    assert (first.number, second.number) == (1, 2)
    for snapshot in (branch, store["cells"]["v2"]):
        image = check(snapshot, "", changed)
        check(snapshot, "labels/cells", labels)
        assert not any(level.derived_keys() for level in image.levels)
    check(store["cells"]["v1"], "", VOLUME)
    with pytest.raises(VolfsError):
        branch.commit("nothing")


def test_zarr_python_sees_the_levels_that_were_committed(store):
    branch = new_branch(store)
    image_at(branch, "").levels[0][...] = VOLUME[::-1].copy()
    branch.commit("import")
    group = zarr.open_group(branch.zarr_store(), mode="r")
    expected = VOLUME[::-1]
    for level in image_at(branch, "").levels:
        if level.index:
            expected = downsample(expected, level.factors)
        np.testing.assert_array_equal(group[level.name][...], expected)


def test_what_zarr_python_writes_reaches_every_level(store):
    branch = new_branch(store)
    branch.commit("import")
    array = zarr.open_array(branch.zarr_store(), path="s0")
    array[10:20, 3, :] = 9
    changed = VOLUME.copy()
    changed[10:20, 3, :] = 9
    check(branch, "", changed)
    array.resize((45, 50, 61))
    grown = np.zeros((45, 50, 61), "u1")
    grown[:40, :, :60] = changed
    check(branch, "", grown)
    array[40:] = 30
    grown[40:] = 30
    check(branch, "", grown)
    branch.commit("grow")
    check(branch, "", grown)
    document = json.loads(branch.read("zarr/s1/zarr.json"))
    assert document["shape"] == [23, 25, 31]
    np.testing.assert_array_equal(zarr.open_array(branch.zarr_store(), path="s1")[...], downsample(grown, (2, 2, 2)))
    array.resize((9, 10, 11))
    check(branch, "", grown[:9, :10, :11])
    branch.commit("shrink")
    check(branch, "", grown[:9, :10, :11])
    check(store["cells"]["v2"], "", grown)
    # No level's chunks outside are left: growing again shows fill value in all of them.
    array.resize((45, 50, 61))
    again = np.zeros((45, 50, 61), "u1")
    again[:9, :10, :11] = grown[:9, :10, :11]
    array[:9, :10, :11] = grown[:9, :10, :11]
    array[:20, :20, :20] = again[:20, :20, :20]
    check(branch, "", again)
    branch.commit("grow again")
    check(branch, "", again)
    for level in image_at(branch, "").levels:
        stored = zarr.open_array(branch.zarr_store(), path=level.array.path)
        np.testing.assert_array_equal(stored[...], level[...])


def test_discarding_brings_every_level_back(store):
    branch = new_branch(store)
    branch.commit("import")
    image_at(branch, "").levels[0][...] = 1
    check(branch, "", np.ones_like(VOLUME))
    branch.discard()
    check(branch, "", VOLUME)
    assert branch.is_clean()


def test_an_s0_written_anew_by_another_program_is_followed(store):
    branch = new_branch(store)
    branch.commit("import")
    array = zarr.create_array(
        branch.zarr_store(), name="s0", data=VOLUME[::-1].copy(), chunks=(20, 20, 20), overwrite=True
    )
    assert array.shape == VOLUME.shape
    check(branch, "", VOLUME[::-1])
    branch.commit("anew")
    check(branch, "", VOLUME[::-1])


def test_levels_that_a_client_wrote_into_a_managed_pyramid_are_recomputed(store):
    branch = new_branch(store)
    branch.commit("import")
    zarr.open_array(branch.zarr_store(), path="s1")[...] = 77
    check(branch, "", VOLUME)
    level = image_at(branch, "").levels[1]
    assert level.derived_keys()
    assert level.array.codec.decode(derived_payload(level, (0, 0, 0))).shape == (8, 16, 16)
    with pytest.raises(NothingToCommit):  # what s0 makes of them is what was there before
        branch.commit("meddled")
    check(branch, "", VOLUME)
    zarr.open_array(branch.zarr_store(), path="s1")[...] = 77
    branch.put("files/note", b"something else")
    branch.commit("meddled")
    check(branch, "", VOLUME)
    assert store["cells"].version(2).changes().counts.put == 1
    np.testing.assert_array_equal(zarr.open_array(branch.zarr_store(), path="s1")[...], downsample(VOLUME, (2, 2, 2)))


def test_times_follow_the_chunks(store):
    branch = new_branch(store)
    first = branch.commit("import")
    image = image_at(branch, "")
    assert {level.newest(Box.whole(level.shape)) for level in image.levels} == {first.time_ns}
    image.levels[0][0] = 1
    for level in image.levels:
        assert level.newest(Box((0, 0, 0), (1, 1, 1))) > first.time_ns
        assert level.newest_along((0,))[0] > first.time_ns
    assert image.levels[0].newest(Box((8, 0, 0), (9, 1, 1))) == first.time_ns
    assert (image.levels[0].newest_along((0,))[1:] == first.time_ns).all()
    assert (image.levels[1].newest_along((0,))[1:] == first.time_ns).all()
    second = branch.commit("change")
    image = image_at(store["cells"]["v2"], "")
    assert image.levels[0].newest_along((0,)).tolist() == [second.time_ns] + [first.time_ns] * 4
    assert image.levels[1].newest_along((0,)).tolist() == [second.time_ns] + [first.time_ns] * 2
    assert [int(level.newest_along(())) for level in image.levels[:2]] == [second.time_ns] * 2
    image = image_at(branch, "")
    assert int(image.levels[0].newest_along(())) >= second.time_ns


def test_versions_share_decoded_blocks(store):
    branch = new_branch(store)
    branch.commit("import")
    image_at(branch, "").levels[0][0, 0, 0] = 1
    branch.commit("change")
    first, second = (image_at(store["cells"][ref], "").levels[0] for ref in ("v1", "v2"))
    _ = first[...]
    decoded = first.cache_stats().decoded
    _ = second[...]
    assert second.cache_stats().decoded == decoded + 1


def test_a_flipped_bit_is_an_error_in_the_boxes_that_cross_it(store, tmp_path):
    branch = new_branch(store)
    branch.commit("import")
    folder = tmp_path / "store/datasets/cells/versions/00000001/zarr/s0/c"
    shard = next(path for path in folder.rglob("*") if path.is_file())
    raw = bytearray(shard.read_bytes())
    raw[1000] ^= 16
    shard.write_bytes(raw)
    level = image_at(store["cells"]["v1"], "").levels[0]
    with pytest.raises(Damaged):
        level.read(Box.whole(level.shape))
    good = bad = 0
    for coords in level.source.keys.iter(Box.whole(level.source.keys.grid_shape)):
        box = level.source.keys.chunk_box(coords)
        try:
            np.testing.assert_array_equal(level.read(box), VOLUME[box.slices()])
            good += 1
        except Damaged:
            bad += 1
    assert bad == 1 and good > 10


def test_another_process_of_the_same_store_sees_the_change(store, tmp_path):
    branch = new_branch(store)
    branch.commit("import")
    with volfs.open_store(tmp_path / "store") as other:
        theirs = image_at(other["cells"]["main"], "").levels
        np.testing.assert_array_equal(theirs[1].read(Box.whole(theirs[1].shape)), downsample(VOLUME, (2, 2, 2)))
        image_at(branch, "").levels[0][:20] = 4
        changed = VOLUME.copy()
        changed[:20] = 4
        check(other["cells"]["main"], "", changed)
        branch.commit("change")
        check(other["cells"]["main"], "", changed)


def test_contents_that_were_written_anew_leave_the_cache(store):
    """Hundreds of small writes into a small volume, each looked at through slices of every kind and every level."""
    branch = new_branch(store)
    branch.commit("import")
    cache = context_of(branch).cache
    levels = image_at(branch, "").levels

    def look():
        for level in levels:
            for axis, count in enumerate(level.shape):
                start, stop = [0] * 3, list(level.shape)
                start[axis], stop[axis] = count // 2, count // 2 + 1
                level.read(Box(tuple(start), tuple(stop)))

    look()
    voxels, held = VOLUME.copy(), []
    for step in range(120):
        at = (step % 40, (7 * step) % 50, (11 * step) % 60)
        levels[0][at] = voxels[at] = step % 250 + 1
        look()
        held.append((cache.stats().blocks, cache.stats().bytes))
    check(branch, "", voxels)
    # What was committed stays beside what is not, and nothing else: once every chunk was written there is no more.
    assert max(held[60:]) == max(held[-20:]), held[::10]
    assert held[-1][0] < 3 * held[0][0] and held[-1][1] < 3 * held[0][1]
    branch.discard()
    check(branch, "", VOLUME)
