"""Rows of blocks kept together: the same voxels, each block decoded once, whatever way it is read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kits.memory_snapshots import MemoryDataset, put_array
from volfs.model.box import Box
from volfs.model.grid import ChunkGrid
from volfs.volume import image_at
from volfs.volume.cache import BlockCache
from volfs.volume.level import Level
from volfs.volume.pencils import Orientation, lie
from volfs.volume.volume_context import store_context

SHAPE, CHUNK = (20, 24, 36), (8, 8, 8)


def level_of(voxels: np.ndarray, chunk: tuple[int, ...], *, cache_bytes: int = 64 << 20) -> Level:
    keys: dict[str, bytes] = {}
    put_array(keys, "a", voxels, chunk)
    dataset = MemoryDataset()
    snapshot = dataset.add(keys)
    context = store_context(dataset.store)
    context.cache.resize(cache_bytes)
    context.workers.in_background = lambda job: None  # type: ignore[method-assign]
    return image_at(snapshot, "a").levels[0]


def numbered(shape: tuple[int, ...], dtype: str = "u2") -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def blocks_of(shape: tuple[int, ...], chunk: tuple[int, ...]) -> int:
    return int(np.prod(ChunkGrid(shape, chunk).grid_shape))


@pytest.mark.parametrize(
    ("thin", "order", "along"),
    [(0, (0, 1, 2), 2), (1, (1, 0, 2), 2), (2, (2, 0, 1), 1)],
    ids=["xy", "xz", "yz"],
)
def test_a_plane_of_a_pencil_is_one_piece_of_memory(thin: int, order: tuple[int, ...], along: int) -> None:
    level = level_of(numbered(SHAPE), CHUNK)
    box = Box(
        tuple(3 if axis == thin else 0 for axis in range(3)),
        tuple(4 if axis == thin else n for axis, n in enumerate(SHAPE)),
    )
    assert lie(box, level.source.grid) == (order, along)
    level.read(box)
    pencil = Orientation(level.source, order, along)
    generation = level.source.generation()
    ref = pencil.ref((0, 0, 0), level.source.find(level.source.grid.chunks(box)), generation)
    assert ref is not None
    kept = level.reader._cache.peek(ref.key)
    assert kept is not None, "the reader made the same"
    plane = kept.take(3, thin) if kept.base is None else kept[tuple(3 if a == thin else slice(None) for a in range(3))]
    assert plane.flags.c_contiguous and not plane.flags.writeable


def test_an_orientation_remembers_the_names_of_a_plane_and_little_more() -> None:
    level = level_of(np.zeros((10_000, 2, 2), "u1"), (1, 1, 1))
    pencils, generation = Orientation(level.source, (0, 1, 2), 2), level.source.generation()
    entries = level.source.find(level.source.grid.chunks(Box((0, 0, 0), (1, 1, 1))))
    plane = [(z, y, 0) for z in range(1000) for y in range(2)]
    for at in ((z, y, 0) for z in range(10_000) for y in range(2)):
        pencils.ref(at, entries, generation)
    for at in plane:
        pencils.ref(at, entries, generation)
    assert pencils.names(plane, generation) == [None] * len(plane), "none holds anything, and that is known"
    assert len(pencils.remembered) <= 10_000


def test_axes_of_one_voxel_and_a_single_voxel() -> None:
    grid = ChunkGrid((5, 2, 64, 64, 64), (1, 1, 16, 16, 16))
    assert lie(Box((1, 1, 7, 0, 0), (2, 2, 8, 64, 64)), grid) == ((0, 1, 2, 3, 4), 4)
    assert lie(Box((1, 1, 0, 0, 9), (2, 2, 64, 64, 10)), grid) == ((0, 1, 4, 2, 3), 3)
    assert lie(Box((1, 1, 1, 1, 1), (2, 2, 2, 2, 2)), grid) is None
    samples = ChunkGrid((64, 64, 64, 3), (16, 16, 16, 3))  # those of a pixel stay together; pencils run along x
    assert lie(Box((7, 0, 0, 0), (8, 64, 64, 3)), samples) == ((0, 1, 2, 3), 2)


def test_a_block_is_decoded_once_whatever_planes_it_is_read_by() -> None:
    voxels = numbered(SHAPE)
    level = level_of(voxels, CHUNK)
    for axis in (0, 1, 2):
        for at in range(SHAPE[axis]):
            box = Box(
                tuple(at if i == axis else 0 for i in range(3)),
                tuple(at + 1 if i == axis else n for i, n in enumerate(SHAPE)),
            )
            np.testing.assert_array_equal(level.read(box), voxels[box.slices()])
    np.testing.assert_array_equal(level.read(Box((3, 3, 3), (12, 20, 9))), voxels[3:12, 3:20, 3:9])
    assert level.cache_stats().decoded == blocks_of(SHAPE, CHUNK)


def test_a_box_that_takes_a_part_of_a_row_decodes_no_more_than_it_crosses() -> None:
    level = level_of(numbered(SHAPE), CHUNK)
    level.read(Box((3, 0, 10), (4, 24, 14)))
    assert level.cache_stats().decoded == 3


def test_one_row_of_a_plane_decodes_one_row_of_blocks() -> None:
    level = level_of(numbered(SHAPE), CHUNK)
    level.read(Box((3, 9, 0), (4, 10, 36)))
    assert level.cache_stats().decoded == 5


def test_voxels_go_into_any_memory_of_a_type_that_holds_them() -> None:
    voxels = numbered(SHAPE)
    level = level_of(voxels, CHUNK)
    box = Box((3, 0, 0), (4, 24, 36))
    for dtype in (">u2", "<u2", "<u4", "<f8"):
        framed = np.zeros((24, 40), dtype)
        for read in (level.read, level.read_cached):
            framed[...] = 7
            out = framed[:, 3:39][np.newaxis]
            assert read(box, out) is out
            np.testing.assert_array_equal(framed[:, 3:39], voxels[3])
            assert (framed[:, :3] == 7).all() and (framed[:, 39:] == 7).all()


def test_what_is_not_stored_is_fill_value_and_needs_no_memory() -> None:
    voxels = np.zeros(SHAPE, "u1")
    voxels[:8, :8, 8:16] = 5
    level = level_of(voxels, CHUNK)
    np.testing.assert_array_equal(level.read(Box((0, 0, 0), (1, 24, 36))), voxels[:1])
    stats = level.cache_stats()
    assert (stats.decoded, stats.blocks) == (1, 1)


def test_parts_go_when_what_they_are_parts_of_goes() -> None:
    cache = BlockCache(3000)
    whole = np.arange(1000, dtype="u1")
    parts = {"a": (slice(0, 500),), "b": (slice(500, 1000),)}
    cache.get_or_make("ab", lambda: whole.copy(), parts=lambda: parts)
    found = cache.get_all(["b", None, "a"], scan=True)
    assert found is not None
    np.testing.assert_array_equal(found[0], whole[500:])
    assert found[1] is None and cache.has_all(["a", "b", None])
    cache.get_or_make("bc", lambda: whole.copy(), parts=lambda: {"b": (slice(0, 500),)})  # b lies there too, now
    for i in range(3):
        cache.get_or_make(i, lambda: whole.copy())
    assert "a" not in cache and cache.peek("a") is None
    cache.clear()
    assert not cache.has_all(["b"])


@given(st.data())
def test_any_boxes_in_any_order_are_right(data: st.DataObject) -> None:
    ndim = data.draw(st.integers(2, 4))
    shape = tuple(data.draw(st.integers(1, 20)) for _ in range(ndim))
    chunk = tuple(data.draw(st.integers(1, 7)) for _ in range(ndim))
    voxels = numbered(shape, data.draw(st.sampled_from(["u1", "i4", "f4"])))
    level = level_of(voxels, chunk, cache_bytes=data.draw(st.sampled_from([0, 5_000, 1 << 20])))
    for _ in range(data.draw(st.integers(1, 6))):
        start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
        stop = tuple(data.draw(st.sampled_from([a + 1, n])) for a, n in zip(start, shape, strict=True))
        box = Box(tuple(0 if b == n and n > 1 else a for a, b, n in zip(start, stop, shape, strict=True)), stop)
        cached = level.read_cached(box)
        np.testing.assert_array_equal(level.read(box) if cached is None else cached, voxels[box.slices()])


@pytest.mark.parametrize("ref", ["main", "v1"])
@given(data=st.data())
def test_boxes_in_any_order_of_what_is_mostly_not_stored_are_right(ref: str, data: st.DataObject) -> None:
    """A part of a pencil that holds nothing says nothing of the rest of it."""
    ndim = data.draw(st.integers(2, 3))
    shape = tuple(data.draw(st.integers(1, 20)) for _ in range(ndim))
    chunk = tuple(data.draw(st.integers(1, 7)) for _ in range(ndim))
    voxels = np.zeros(shape, "u2")
    corner = tuple(slice(data.draw(st.integers(0, n - 1)), None) for n in shape)
    voxels[corner] = numbered(voxels[corner].shape) + 1
    keys: dict[str, bytes] = {}
    put_array(keys, "a", voxels, chunk)
    dataset = MemoryDataset()
    version = dataset.add(keys)
    context = store_context(dataset.store)
    context.workers.in_background = lambda job: None  # type: ignore[method-assign]
    level = image_at(dataset.branch() if ref == "main" else version, "a").levels[0]
    for _ in range(data.draw(st.integers(2, 8))):
        start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
        box = Box(start, tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))
        level.source.find(level.source.grid.chunks(box))  # as whoever looks at the file does first
        cached = level.read_cached(box)
        np.testing.assert_array_equal(level.read(box) if cached is None else cached, voxels[box.slices()])
