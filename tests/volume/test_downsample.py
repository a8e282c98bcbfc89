"""Downsampling is exact, and the same whatever the blocks it is done in."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kits.example_counts import examples
from volfs.errors import BadInput
from volfs.model.ngff import downsampled_shape
from volfs.volume import downsample as module
from volfs.volume.pyramid import downsample, method_for

INTEGERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]


def fine_voxels(array, factors):
    """Every coarse index with the fine voxels it covers, slowly."""
    for index in itertools.product(*(range(n) for n in downsampled_shape(array.shape, factors))):
        box = tuple(slice(i * f, i * f + f) for i, f in zip(index, factors, strict=True))
        yield index, [v.item() for v in array[box].flatten()]


def slow_mean(values):
    return round(Fraction(sum(values), len(values)))  # Python rounds a fraction's half to even


def slow_mode(values):
    counts = Counter(values)
    return min(v for v in counts if counts[v] == max(counts.values()))


@st.composite
def arrays(draw, dtypes=INTEGERS, factors=(1, 2)):
    ndim = draw(st.integers(1, 6))
    shape = tuple(draw(st.integers(0 if ndim < 3 else 1, {1: 40, 2: 12, 3: 7}.get(ndim, 4))) for _ in range(ndim))
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    if draw(st.booleans()):
        pool = rng.integers(info.min, info.max, size=3, dtype=dtype, endpoint=True)
        pool = np.concatenate([pool, np.array([info.min, info.max, 0, 1], dtype)])
        array = rng.choice(pool, shape)
    else:
        array = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    if draw(st.booleans()):
        array = array.astype(array.dtype.newbyteorder())
    return array, tuple(draw(st.sampled_from(factors)) for _ in range(ndim))


@pytest.fixture(params=[1 << 18, 3], ids=["one piece", "tiny pieces"], autouse=True)
def piece_size(request, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_VOXELS", request.param)


given_slowly = settings(max_examples=examples(60))


@given_slowly
@given(arrays(factors=(1, 2, 2, 3)))
def test_the_mean_of_integers_is_exact_and_rounds_half_to_even(case):
    array, factors = case
    coarse = downsample(array, factors, "mean")
    assert coarse.dtype == array.dtype.newbyteorder("=")
    assert coarse.shape == downsampled_shape(array.shape, factors)
    for index, values in fine_voxels(array, factors):
        assert coarse[index] == slow_mean(values), (index, values)


@given_slowly
@given(arrays(factors=(1, 2, 2, 3)))
def test_the_mode_takes_the_smallest_of_equally_frequent_labels(case):
    array, factors = case
    coarse = downsample(array, factors, "mode")
    for index, values in fine_voxels(array, factors):
        assert coarse[index] == slow_mode(values), (index, values)


@given_slowly
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from([1, 2]), min_size=3, max_size=3))
def test_the_mode_of_a_few_busy_labels(seed, factors):
    array = np.random.default_rng(seed).integers(0, 4, (5, 6, 7), dtype=np.uint64)
    coarse = downsample(array, factors, "mode")
    for index, values in fine_voxels(array, factors):
        assert coarse[index] == slow_mode(values)


def test_a_mean_does_not_overflow_any_integer_type():
    for dtype in map(np.dtype, INTEGERS):
        for extreme in (np.iinfo(dtype).min, np.iinfo(dtype).max):
            array = np.full((2,) * 6, extreme, dtype)
            assert downsample(array, (2,) * 6, "mean").item() == extreme


def test_booleans_are_true_where_most_voxels_are():
    array = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 1, 1, 1]], bool)
    for method in ("mean", "mode"):
        assert downsample(array, (2, 2), method).tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16"])
def test_floating_point_means_are_taken_in_double_precision(dtype):
    rng = np.random.default_rng(1)
    array = rng.normal(size=(5, 6, 3)).astype(dtype)
    if array.dtype.kind == "c":
        array = array + 1j * array[::-1]
    coarse = downsample(array, (2, 2, 1), "mean")
    assert coarse.dtype == array.dtype
    wide = np.complex128 if array.dtype.kind == "c" else np.float64
    for z, y, x in np.ndindex(3, 3, 3):
        mean = array[2 * z : 2 * z + 2, 2 * y : 2 * y + 2, x].astype(wide).mean()
        for part in (np.real, np.imag):
            np.testing.assert_array_max_ulp(part(coarse[z, y, x]), part(mean.astype(array.dtype)), 1)


def test_large_half_precision_values_do_not_overflow_and_nan_stays_where_it_is():
    array = np.array([60000, 60000, np.nan, 1, np.inf, np.inf, 5], "f2")
    assert str(downsample(array, (2,)).tolist()) == str([60000.0, np.nan, np.inf, 5.0])


def test_types_without_arithmetic_take_the_first_voxel():
    array = np.arange(12, dtype="u2").view("V2").reshape(3, 4)
    assert downsample(array, (2, 2), "mean").view("u2").tolist() == [[0, 2], [8, 10]]
    assert method_for(np.dtype("V2"), False) == "first"
    assert method_for(np.dtype("u4"), True) == "mode"
    assert method_for(np.dtype("f4"), True) == "mean"
    assert method_for(np.dtype("bool"), False) == "mode"


@given_slowly
@given(arrays(), st.data())
def test_a_box_on_the_grid_gives_that_box_of_the_whole(case, data):
    array, factors = case
    whole = downsample(array, factors)
    start = [data.draw(st.integers(0, n)) for n in whole.shape]
    stop = [data.draw(st.integers(a, n)) for a, n in zip(start, whole.shape, strict=True)]
    fine = tuple(slice(a * f, b * f) for a, b, f in zip(start, stop, factors, strict=True))
    coarse = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    np.testing.assert_array_equal(downsample(array[fine], factors), whole[coarse])


def test_the_result_can_be_written_in_place_and_the_source_is_left_alone():
    array = np.arange(35, dtype="u1").reshape(5, 7)
    before, out = array.copy(), np.zeros((6, 8), "u1")
    downsample(array, (2, 2), out=out[1:4, 2:6])
    np.testing.assert_array_equal(out[1:4, 2:6], downsample(array, (2, 2)))
    np.testing.assert_array_equal(array, before)


def test_nonsense_is_refused():
    array = np.zeros((4, 4))
    for factors in ((2,), (0, 2), (2, 2, 2)):
        with pytest.raises(BadInput):
            downsample(array, factors)
    with pytest.raises(BadInput):
        downsample(array, (2, 2), "median")
    with pytest.raises(BadInput):
        downsample(array, (2, 2), out=np.zeros((4, 4)))


@st.composite
def any_voxels(draw):
    """Voxels of any type that C knows, in memory of any order, with the odd value that is no number."""
    array, factors = draw(arrays(dtypes=[*INTEGERS]))
    kind = draw(st.sampled_from(["as it is", "bool", "f2", "f4", "f8"]))
    if kind == "bool":
        array = array % 2 == 0
    elif kind != "as it is":
        with np.errstate(all="ignore"):
            array = array.astype(kind) / 3
        array[array == 0] = np.nan
    order = draw(st.permutations(range(array.ndim)))
    array = np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
    return array[..., ::-1] if draw(st.booleans()) else array, factors


@given_slowly
@given(any_voxels(), st.sampled_from(["mean", "mode"]))
def test_c_makes_the_bits_that_numpy_makes(case, method):
    array, factors = case
    by_c = downsample(array, factors, method)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "core", None)
        by_numpy = downsample(array, factors, method)
    assert by_c.dtype == by_numpy.dtype
    np.testing.assert_array_equal(by_c, by_numpy)
    if array.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(by_c[by_c == 0]), np.signbit(by_numpy[by_numpy == 0]))
