"""One rule places images, and a broken one harms no other."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from tests.kits.memory_snapshots import Bytes, MemoryDataset, put_array, put_group, put_pyramid
from volfs.volume import image_at, images
from volfs.volume.volume_context import store_context

VOLUME = np.arange(20 * 30 * 40, dtype="u2").reshape(20, 30, 40)


def snapshot_of(keys, branch=False):
    dataset = MemoryDataset()
    version = dataset.add(keys)
    return dataset.branch() if branch else version


def test_groups_are_images_with_levels_and_plain_arrays_images_of_one():
    keys = {}
    put_pyramid(keys, "", VOLUME, (8, 8, 8))
    put_group(keys, "labels", {"ome": {"version": "0.5", "labels": ["nuclei"]}})
    put_pyramid(keys, "labels/nuclei", VOLUME.astype("u4"), (8, 8, 8), is_label=True)
    put_array(keys, "labels/plain", VOLUME.astype("u4"), (8, 8, 8))
    put_group(keys, "raw", {})
    put_array(keys, "raw/flat", VOLUME[0], (8, 8), dimension_names=["Y", "X"])
    put_array(keys, "curve", VOLUME[0, 0], (8,))
    found = images(snapshot_of(keys))
    assert list(found) == ["", "labels/nuclei", "labels/plain", "raw/flat"]
    assert [level.name for level in found[""].levels] == ["s0", "s1", "s2"]
    assert [level.shape for level in found[""].levels] == [(20, 30, 40), (10, 15, 20), (5, 8, 10)]
    assert [level.scale for level in found[""].levels] == [(1, 1, 1), (2, 2, 2), (4, 4, 4)]
    assert [image.is_label for image in found.values()] == [False, True, True, False]
    assert [image.managed for image in found.values()] == [True, True, False, False]
    assert [a.name for a in found["raw/flat"].axes] == ["y", "x"]
    assert found[""].levels[1].unit == "nanometer"
    assert found[""]["s1"] is found[""].levels[1]
    assert found["labels/nuclei"].method == "mode"


def test_an_image_is_found_by_its_path_alone():
    keys = {}
    put_pyramid(keys, "a/b", VOLUME, (8, 8, 8))
    put_group(keys, "a", {})
    snapshot = snapshot_of(keys)
    assert image_at(snapshot, "a/b").path == "a/b"
    assert image_at(snapshot, "a/b/s1") is None  # a level is no image
    assert image_at(snapshot, "a") is None
    assert image_at(snapshot, "nowhere") is None
    assert image_at(snapshot, "a/b").name == "cells"


def test_foreign_multiscales_keep_their_order_and_are_not_managed():
    keys = {}
    put_group(
        keys,
        "",
        {
            "multiscales": [
                {
                    "axes": [{"name": n, "type": "space"} for n in "zyx"],
                    "datasets": [{"path": "0"}, {"path": "scale/1"}, {"path": "2"}],
                }
            ]
        },
    )
    put_array(keys, "0", VOLUME, (8, 8, 8))
    put_group(keys, "scale", {})
    put_array(keys, "scale/1", VOLUME[::2], (8, 8, 8))
    put_array(keys, "2", VOLUME[0], (8, 8))
    put_array(keys, "other", VOLUME, (8, 8, 8))
    found = images(snapshot_of(keys))
    assert list(found) == ["", "other"]
    assert [(level.name, level.array.path) for level in found[""].levels] == [("s0", "0"), ("s1", "scale/1")]
    assert not found[""].managed
    assert found[""].problems == ("s2 (2): has 2 axes, the image 3",)


def test_broken_images_and_missing_levels_harm_no_other():
    keys = {}
    put_group(keys, "", {})
    put_pyramid(keys, "gap", VOLUME, (8, 8, 8))
    del keys["zarr/gap/s1/zarr.json"]
    put_pyramid(keys, "opaque", VOLUME, (8, 8, 8))
    raw = keys["zarr/opaque/s0/zarr.json"].data
    keys["zarr/opaque/s0/zarr.json"] = Bytes(raw.replace(b'"zstd"', b'"secret"'))
    put_group(keys, "bad", {"ome": {"version": "0.5", "multiscales": [{"datasets": 3}]}})
    put_array(keys, "bad/s0", VOLUME, (8, 8, 8))
    put_group(keys, "empty", {"ome": {"version": "0.5", "multiscales": [{"datasets": [{"path": "s0"}]}]}})
    keys["zarr/junk/zarr.json"] = Bytes(b"{")
    put_pyramid(keys, "good", VOLUME, (8, 8, 8))
    found = images(snapshot_of(keys))
    assert list(found) == ["bad/s0", "gap", "good", "opaque"]
    assert [level.name for level in found["gap"].levels] == ["s0", "s2"]
    assert found["gap"].problems == ("s1 (s1): there is no array",)
    assert not found["gap"].managed
    assert [level.name for level in found["opaque"].levels] == ["s1", "s2"]
    assert "secret" in found["opaque"].problems[0]
    np.testing.assert_array_equal(found["good"].levels[0][...], VOLUME)


@pytest.mark.parametrize(
    ("ndim", "names", "expected"),
    [
        (2, None, "yx"),
        (4, None, "czyx"),
        (5, None, "tczyx"),
        (3, ("Z", "Y", "X"), "zyx"),
        (3, ("y", "x", "c"), "yxc"),
        (3, (None, "y", "x"), ["dim_0", "y", "x"]),
        (2, ("lat", "lon"), "yx"),
        (6, None, ["dim_0", *"tczyx"]),
    ],
)
def test_every_image_has_an_x_and_a_y(ndim, names, expected):
    keys = {}
    put_array(keys, "", np.zeros((3,) * ndim, "u1"), (2,) * ndim, dimension_names=names)
    image = image_at(snapshot_of(keys), "")
    assert [a.name for a in image.axes] == list(expected)


def test_images_of_more_than_five_axes_are_images():
    keys = {}
    put_pyramid(keys, "", np.ones((2, 2, 2, 9, 9, 9), "u1"), (1, 1, 1, 4, 4, 4), levels=2)
    image = image_at(snapshot_of(keys), "")
    assert [level.shape for level in image.levels] == [(2, 2, 2, 9, 9, 9), (2, 2, 2, 5, 5, 5)]
    assert image.managed


def test_images_stay_the_same_objects_until_their_metadata_changes():
    keys = {}
    put_pyramid(keys, "", VOLUME, (8, 8, 8))
    branch = snapshot_of(keys, branch=True)
    before = image_at(branch, "")
    before.levels[0][0] = 5
    assert image_at(branch, "") is before
    assert images(branch)[""] is before
    put_array(branch.keys, "s0", np.zeros((21, 30, 40), "u2"), (8, 8, 8))
    branch.put("zarr/s0/zarr.json", branch.keys["zarr/s0/zarr.json"].data)
    after = image_at(branch, "")
    assert after is not before and after.levels[0].shape == (21, 30, 40)
    branch.delete("zarr/zarr.json")
    bare = image_at(branch, "")
    assert bare is not after and bare.provisional and not bare.managed
    assert list(images(branch)) == [""] and image_at(branch, "s0") is None


def test_nothing_outlives_its_store():
    keys = {}
    put_pyramid(keys, "", VOLUME, (8, 8, 8))
    snapshot = snapshot_of(keys)
    assert image_at(snapshot, "").levels[0][0, 0, 0] == 0
    context = weakref.ref(store_context(snapshot.dataset.store))
    del snapshot
    gc.collect()
    assert context() is None


def test_the_levels_of_a_version_never_change_and_share_blocks_with_other_versions():
    keys = {}
    put_pyramid(keys, "", VOLUME, (8, 8, 8))
    dataset = MemoryDataset()
    first = dataset.add(keys)
    branch = dataset.branch()
    image_at(branch, "").levels[0][0, 0, 0] = 999
    second = dataset.add(branch.keys)
    np.testing.assert_array_equal(image_at(first, "").levels[0][...], VOLUME)
    decoded = image_at(second, "").levels[0].cache_stats().decoded
    changed = VOLUME.copy()
    changed[0, 0, 0] = 999
    np.testing.assert_array_equal(image_at(second, "").levels[0][...], changed)
    assert image_at(second, "").levels[0].cache_stats().decoded == decoded + 1


def test_a_directory_is_a_group_though_it_has_no_metadata():
    keys = {}
    put_array(keys, "rec/0", VOLUME, (8, 8, 8), dimension_names=["z", "y", "x"])
    put_array(keys, "deep/er/flat", VOLUME[0], (8, 8))
    assert list(images(snapshot_of(keys))) == ["deep/er/flat", "rec/0"]
    assert "deep/er/flat" in images(snapshot_of(keys, branch=True))


def test_chunks_that_no_array_has_are_not_searched_for_images():
    keys = {}
    put_array(keys, "lost", VOLUME, (8, 8, 8))
    put_array(keys, "bad", VOLUME, (8, 8, 8))
    put_array(keys, "lost/c/0/found", VOLUME, (8, 8, 8))
    put_array(keys, "bad/found", VOLUME, (8, 8, 8))
    del keys["zarr/lost/zarr.json"]
    keys["zarr/bad/zarr.json"] = Bytes(b"{")
    assert not images(snapshot_of(keys)) and not images(snapshot_of(keys, branch=True))


@pytest.mark.parametrize("prefix", ["", "s"])
def test_what_looks_like_a_pyramid_is_one_in_a_branch_until_metadata_says_more(prefix):
    keys = {}
    for number, step in enumerate((1, 2, 4)):
        put_array(keys, f"rec/{prefix}{number}", VOLUME[:, ::step, ::step], (8, 8, 8), dimension_names=["t", "y", "x"])
    found = images(snapshot_of(keys, branch=True))
    assert list(found) == ["rec"]
    image = found["rec"]
    assert image.provisional and not image.managed and list(image) == ["s0", "s1", "s2"]
    assert [axis.name for axis in image.axes] == ["t", "y", "x"]
    assert [level.scale for level in image.levels] == [(1, 1, 1), (1, 2, 2), (1, 4, 4)]
    assert [level.shape for level in image.levels] == [(20, 30, 40), (20, 15, 20), (20, 8, 10)]
    version = images(snapshot_of(keys))
    assert list(version) == [f"rec/{prefix}{number}" for number in range(3)]
    assert not any(each.provisional for each in version.values())
    put_group(
        keys,
        "rec",
        {
            "ome": {
                "version": "0.5",
                "multiscales": [{"axes": [{"name": name} for name in "tyx"], "datasets": [{"path": f"{prefix}0"}]}],
            }
        },
    )
    said = images(snapshot_of(keys, branch=True))
    assert not said["rec"].provisional and list(said["rec"]) == ["s0"]


@pytest.mark.parametrize("second", [VOLUME[:, :, 0], VOLUME.astype("u4"), np.zeros((20, 31, 40), "u2")])
def test_arrays_that_are_no_levels_of_one_another_stay_images_of_their_own(second):
    keys = {}
    put_array(keys, "rec/0", VOLUME, (8, 8, 8))
    put_array(keys, "rec/1", second, (8,) * second.ndim)
    assert list(images(snapshot_of(keys, branch=True))) == ["rec/0", "rec/1"]
