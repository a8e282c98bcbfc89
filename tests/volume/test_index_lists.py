"""Lists, arrays and masks as an index mean what they mean to zarr-python, on the same data, read and written."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from tests.kits.levels import arrays, level_of, same_bits
from tests.kits.memory_snapshots import put_array
from volfs.errors import BadInput, ReadOnly, VolfsError

#: What either says of an index that it will not take.
REFUSED = (IndexError, BadInput, ValueError, TypeError, NotImplementedError)


def zarr_of(voxels):
    array = zarr.create_array(
        zarr.storage.MemoryStore(),
        shape=voxels.shape,
        chunks=tuple(max(1, n // 2) for n in voxels.shape),
        dtype=voxels.dtype,
    )
    array[...] = voxels
    return array


@st.composite
def lists_along(draw, size):
    """An index of one axis by a list, an array or a mask, sometimes one that lies outside."""
    if draw(st.booleans()):
        mask = draw(st.lists(st.booleans(), min_size=size, max_size=size))
        return draw(st.sampled_from([list, np.array]))(mask) if size else []
    low, high = (-size, size - 1) if size and draw(st.integers(0, 9)) else (-size - 2, size + 1)
    found = draw(st.lists(st.integers(low, high), max_size=6))
    # An empty list is none of integers to zarr.
    return found if found and draw(st.booleans()) else np.array(found, dtype=np.int64)


@st.composite
def one_axis(draw, size):
    return draw(
        st.one_of(
            st.integers(-size, size - 1) if size else st.just(0),
            st.builds(slice, *[st.none() | st.integers(-size - 2, size + 2)] * 2, st.sampled_from([None, 1, 2, 3])),
            lists_along(size),
        )
    )


@st.composite
def indices(draw, shape):
    return tuple(draw(one_axis(size)) for size in shape[: draw(st.integers(1, len(shape)))])


@st.composite
def points(draw, shape):
    if draw(st.integers(0, 3)) == 0:
        return np.array(
            draw(st.lists(st.booleans(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        ).reshape(shape)
    count = draw(st.integers(1, 8))
    coordinates = [
        draw(st.lists(st.integers(-size, size - 1), min_size=count, max_size=count)) if size else [] for size in shape
    ]
    return tuple(
        # Of integers alone zarr makes a list of one voxel, numpy the voxel.
        draw(st.integers(-size, size - 1)) if axis and not draw(st.integers(0, 4)) else found
        for axis, (size, found) in enumerate(zip(shape, coordinates, strict=True))
    )


def small_arrays():
    return arrays(min_size=1).filter(lambda case: case[1].size <= 3000)


@given(small_arrays(), st.data())
def test_orthogonal_indexing_is_zarrs(case, data):
    keys, voxels = case
    level, peer = level_of(keys), zarr_of(voxels)
    index = data.draw(indices(voxels.shape))
    try:
        expected = peer.oindex[index]
    except (IndexError, ValueError, TypeError):
        with pytest.raises(REFUSED):
            level.oindex[index]
        return
    assert same_bits(np.asarray(level.oindex[index]), np.asarray(expected))


@given(small_arrays(), st.data())
def test_indexing_by_points_is_zarrs(case, data):
    keys, voxels = case
    level, peer = level_of(keys), zarr_of(voxels)
    index = data.draw(points(voxels.shape))
    try:
        expected = peer.vindex[index]
    except (IndexError, ValueError, TypeError):
        with pytest.raises(REFUSED):
            level.vindex[index]
        return
    assert same_bits(np.asarray(level.vindex[index]), np.asarray(expected))


@given(small_arrays(), st.data())
def test_plain_indexing_by_lists_is_zarrs_wherever_zarr_has_an_answer(case, data):
    keys, voxels = case
    level, peer = level_of(keys), zarr_of(voxels)
    index = data.draw(st.one_of(indices(voxels.shape), points(voxels.shape)))
    if isinstance(index, tuple) and len(index) == 1 and data.draw(st.booleans()):
        index = index[0]
    try:
        expected = peer[index]
    except (IndexError, ValueError, TypeError, NotImplementedError):
        return
    assert same_bits(np.asarray(level[index]), np.asarray(expected))


@given(
    arrays(min_size=1).filter(lambda case: case[1].size <= 3000), st.data(), st.sampled_from(["oindex", "vindex", ""])
)
def test_what_is_written_by_lists_is_what_zarr_writes(case, data, how):
    keys, voxels = case
    level, peer = level_of(keys, branch=True), zarr_of(voxels)
    index = data.draw(points(voxels.shape) if how == "vindex" else indices(voxels.shape))
    mine = getattr(level, how) if how else level
    theirs = getattr(peer, how) if how else peer
    try:
        shape = np.asarray(theirs[index]).shape
    except (IndexError, ValueError, TypeError, NotImplementedError):
        return
    flat = np.zeros(voxels.shape, bool)
    value = np.resize(np.flip(voxels).ravel(), shape) if data.draw(st.booleans()) else voxels.flat[0]
    if how == "vindex" and isinstance(index, tuple):
        flat[np.ix_(*[np.atleast_1d(i) for i in index])] = True
        coordinates = np.broadcast_arrays(*[np.asarray(i, int) % n for i, n in zip(index, voxels.shape, strict=True)])
        if len(set(zip(*[c.ravel() for c in coordinates], strict=True))) < coordinates[0].size:
            value = voxels.flat[0]  # which of two values stays at one place is nobody's promise
    if how != "vindex" and any(isinstance(i, list | np.ndarray) for i in index):
        value = voxels.flat[0]  # the same for lists that name a plane twice
    theirs[index] = value
    mine[index] = value
    assert same_bits(level[...], peer[...])


def small():
    voxels = np.arange(10 * 12 * 14, dtype="u2").reshape(10, 12, 14)
    keys = {}
    put_array(keys, "a", voxels, (4, 4, 4))
    return keys, voxels


def test_lists_and_masks_are_numpys_where_both_have_one_meaning():
    keys, voxels = small()
    level = level_of(keys)
    mask = voxels % 7 == 0
    for index in (
        [0, 3, -1],
        np.array([9, 0]),
        (slice(2, 5), [1, 1]),
        (..., [0, 13]),
        mask,
        np.arange(10) > 4,
        (2, [3]),
    ):
        np.testing.assert_array_equal(level[index], voxels[index])
    np.testing.assert_array_equal(level[[1, 2], [3, 4], [5, 6]], voxels[[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(level.oindex[[1, 2], :, [5, 6]], voxels[[1, 2]][:, :, [5, 6]])


def test_chunks_that_nothing_is_selected_of_are_not_read():
    keys, _ = small()
    level = level_of(keys)
    _ = level[[0, 9]]
    assert {key.split("/")[3] for key in level.snapshot.reads} == {"0", "2"}
    level = level_of(keys)
    _ = level.vindex[[0, 9], [0, 11], [0, 13]]
    assert sorted(level.snapshot.reads) == ["zarr/a/c/0/0/0", "zarr/a/c/2/2/3"]


@pytest.mark.parametrize(
    "index", [([0, 1], slice(None), [2, 3]), [10], [-11], [0.5], np.zeros(9, bool), np.zeros((10, 12, 13), bool), [[0]]]
)
def test_what_lies_outside_or_could_mean_two_things_is_an_index_error(index):
    with pytest.raises(IndexError):
        level_of(small()[0])[index]


def test_labels_are_repainted_by_a_mask():
    keys, voxels = small()
    level = level_of(keys, branch=True)
    level[voxels > 1000] = 7
    level[::3, [0, 5]] = 9
    voxels[voxels > 1000] = 7
    voxels[::3, [0, 5]] = 9
    np.testing.assert_array_equal(level, voxels)
    with pytest.raises(ReadOnly):
        level_of(keys)[[0]] = 1


@pytest.mark.parametrize("value", [1.5, 70000, -1, [1, 2, 3.5], "a", 1j, [[1], [2, 3]], np.ones(14), object()])
def test_a_value_that_has_no_place_in_the_type_is_refused_and_changes_nothing(value):
    keys, voxels = small()
    level = level_of(keys, branch=True)
    for index in ((0, 0), (0, [0]), np.s_[0, 0, ::2]):
        with pytest.raises(VolfsError):
            level[index] = value
    np.testing.assert_array_equal(level, voxels)


def test_plain_lists_are_values():
    keys, voxels = small()
    level = level_of(keys, branch=True)
    level[0, 0, :3] = [1, 2, 3]
    voxels[0, 0, :3] = [1, 2, 3]
    np.testing.assert_array_equal(level, voxels)
