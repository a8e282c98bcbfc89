"""Boxes and grids, against sets of points."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from volfs.model.box import Box
from volfs.model.grid import MAX_CELLS, MIN_CELLS, ChunkGrid, block_shape_for, join, split


@st.composite
def boxes(draw: st.DrawFn, ndim: int = 2) -> Box:
    start = tuple(draw(st.integers(-4, 8)) for _ in range(ndim))
    stop = tuple(draw(st.integers(-4, 8)) for _ in range(ndim))
    return Box(start, stop)


def points(box: Box) -> set[tuple[int, ...]]:
    return set(product(*(range(a, b) for a, b in zip(box.start, box.stop, strict=True))))


@given(boxes(), boxes())
def test_boxes_combine_as_sets_of_points_do(a: Box, b: Box) -> None:
    assert a.size == len(points(a)) == prod(a.shape)
    assert a.empty == (not points(a))
    assert points(a.intersect(b)) == points(a) & points(b)
    assert a.contains(b) == (points(b) <= points(a))
    hull = points(a.hull(b))
    assert hull >= points(a) | points(b)
    if not a.empty and not b.empty:
        assert all(hull & points(side) for side in (a, b))
        assert a.hull(b) == b.hull(a)


@given(boxes(), st.tuples(st.integers(-9, 9), st.integers(-9, 9)))
def test_a_shifted_box_comes_back(a: Box, by: tuple[int, int]) -> None:
    assert a.shift(by).relative_to(by) == a
    assert points(a.shift(by)) == {(y + by[0], x + by[1]) for y, x in points(a)}


def test_the_intersection_of_distant_boxes_has_no_negative_shape() -> None:
    assert Box((0, 0), (2, 2)).intersect(Box((5, 0), (7, 2))).shape == (0, 2)


def test_slices_cut_the_box_out_of_an_array() -> None:
    array = np.arange(20).reshape(4, 5)
    assert array[Box((1, 2), (3, 4)).slices()].tolist() == [[7, 8], [12, 13]]


@st.composite
def grids(draw: st.DrawFn) -> ChunkGrid:
    ndim = draw(st.integers(1, 3))
    return ChunkGrid(
        tuple(draw(st.integers(0, 9)) for _ in range(ndim)), tuple(draw(st.integers(1, 5)) for _ in range(ndim))
    )


@given(grids())
def test_chunks_cover_every_voxel_once(grid: ChunkGrid) -> None:
    seen = np.zeros(grid.shape, int)
    for coords in grid.iter(Box.whole(grid.grid_shape)):
        assert grid.holds(coords)
        box = grid.chunk_box(coords)
        assert not box.empty
        seen[box.slices()] += 1
    assert (seen == 1).all()
    assert not grid.holds(grid.grid_shape)


@given(grids(), st.data())
def test_the_chunks_of_a_box_are_those_that_share_a_voxel_with_it(grid: ChunkGrid, data: st.DataObject) -> None:
    box = data.draw(boxes(grid.ndim))
    crossed = {
        c for c in grid.iter(Box.whole(grid.grid_shape)) if not grid.chunk_box(c).intersect(box).empty and not box.empty
    }
    assert set(grid.iter(grid.chunks(box))) == crossed


def test_chunks_come_in_c_order() -> None:
    assert list(ChunkGrid((4, 4), (2, 2)).iter(Box((0, 0), (2, 2)))) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_chunk_outside_a_shrunken_array_has_no_voxels() -> None:
    assert ChunkGrid((4, 4), (2, 2)).chunk_box((5, 0)).empty


@st.composite
def block_arguments(draw: st.DrawFn) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    ndim = draw(st.integers(1, 6))
    chunk = tuple(draw(st.sampled_from([1, 3, 16, 64, 100, 512])) for _ in range(ndim))
    grid = tuple(draw(st.sampled_from([0, 1, 2, 3, 10, 100, 10**6])) for _ in range(ndim))
    return chunk, draw(st.sampled_from([1, 2, 8, 16])), grid


@given(block_arguments())
def test_blocks_are_powers_of_two_within_their_limits(args: tuple[tuple[int, ...], int, tuple[int, ...]]) -> None:
    chunk, itemsize, grid = args
    block = block_shape_for(chunk, itemsize, grid)
    assert block == block_shape_for(chunk, itemsize, grid)
    assert all(b & (b - 1) == 0 for b in block)
    assert MIN_CELLS <= prod(block) <= MAX_CELLS
    for axis, (b, n) in enumerate(zip(block, grid, strict=True)):
        assert axis == 0 or b == 1 or b < 2 * n
    if prod(block) > MIN_CELLS:
        assert prod(block) * prod(chunk) * itemsize <= 128 << 20


def test_blocks_of_a_large_isotropic_volume_are_cubes() -> None:
    assert block_shape_for((64, 64, 64), 1, (100, 100, 100)) == (8, 8, 8)


def test_blocks_of_thin_chunks_grow_in_depth_first() -> None:
    block = block_shape_for((1, 512, 512), 1, (1000, 20, 20))
    assert block[0] > block[1] == block[2]


def test_blocks_of_a_time_lapse_grow_in_space_and_not_in_time() -> None:
    assert block_shape_for((1, 1, 64, 64, 64), 2, (10, 2, 30, 50, 50))[:2] == (1, 1)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from([1, 2, 8, 64])), min_size=1, max_size=6))
def test_block_and_cell_name_a_chunk_uniquely(axes: list[tuple[int, int]]) -> None:
    coords, shape = tuple(c for c, _ in axes), tuple(b for _, b in axes)
    block, cell = split(coords, shape)
    assert 0 <= cell < prod(shape)
    assert join(block, cell, shape) == coords
    assert cell == np.ravel_multi_index(tuple(c % b for c, b in axes), shape)
