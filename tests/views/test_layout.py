"""The algebra of extents: exact sizes, any range equal to the whole, cost that follows the range, writing in place."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kits.view_layouts import InMemory, ranges_equal_the_whole
from volfs.errors import BadInput, Unsupported
from volfs.model.box import Box
from volfs.views.frames import Rows, StoredDeflate, Summed
from volfs.views.layout import (
    Chain,
    Layout,
    Literal,
    Memo,
    Part,
    Voxels,
    Zeros,
    cover,
)

DTYPES = ["?", "u1", "<u2", ">u2", ">i4", "<f8", "<c8", "V3"]


@st.composite
def boxes_of_voxels(draw: st.DrawFn) -> tuple[np.ndarray, Voxels]:
    """An array, and an extent over a box of it in any axis order."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=2, max_size=4)))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    raw = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (*shape, dtype.itemsize), np.uint8)
    array = (raw[..., 0] > 99) if dtype.kind == "b" else raw.view(dtype.newbyteorder("="))[..., 0]
    edges = [sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in shape]
    start = tuple(min(a, n - 1) for (a, _), n in zip(edges, shape, strict=True))
    stop = tuple(max(b, a + 1) for (_, b), a in zip(edges, start, strict=True))
    order = tuple(draw(st.permutations(range(len(shape)))))
    packed = dtype.kind == "b" and draw(st.booleans())
    return array, Voxels(Box(start, stop), order, dtype, packed=packed)


def expected(array: np.ndarray, extent: Voxels) -> bytes:
    ordered = array[extent.box.slices()].transpose(extent.order)
    return (np.packbits(ordered, axis=-1) if extent.packed else ordered.astype(extent.dtype)).tobytes()


@given(boxes_of_voxels(), st.data())
def test_a_box_of_voxels_in_any_axis_order_and_byte_order_reads_as_numpy_writes_it(
    made: tuple[np.ndarray, Voxels], data: st.DataObject
) -> None:
    array, extent = made
    layout, whole = Layout(Literal(b"head"), extent, Zeros(5)), b"head" + expected(*made) + bytes(5)
    assert layout.size == len(whole)
    ranges_equal_the_whole(layout, InMemory(array), whole, data)


@given(boxes_of_voxels(), st.data())
def test_a_zlib_stream_with_checksums_is_the_same_piecewise_and_inflates(
    made: tuple[np.ndarray, Voxels], data: st.DataObject
) -> None:
    array, extent = made
    shape = [extent.box.shape[axis] for axis in extent.order]
    rows = Rows(extent, extent.size // math.prod(shape[:-1]))
    stream = StoredDeflate(rows)
    cut = data.draw(st.integers(0, stream.size))
    name = Literal(b"name")
    first = Summed(Chain((name, Part(stream, 0, cut))), "0")
    second = Summed(Chain((name, Part(stream, cut, stream.size - cut))), "1")
    layout, source = Layout(first, second), InMemory(array)
    whole = layout.read(source, 0, layout.size)
    assert len(whole) == layout.size
    assert zlib.crc32(whole[: 4 + cut]) == int.from_bytes(whole[4 + cut : 8 + cut], "big")
    filtered = zlib.decompress(whole[4 : 4 + cut] + whole[12 + cut : -4])
    lines = np.frombuffer(filtered, np.uint8).reshape(math.prod(shape[:-1]), -1)
    assert not lines[:, 0].any() and lines[:, 1:].tobytes() == expected(*made)
    ranges_equal_the_whole(layout, source, whole, data)


def test_stored_blocks_are_right_around_the_size_of_a_block() -> None:
    for size in (1, 65534, 65535, 65536, 2 * 65535, 2 * 65535 + 1):
        array = np.random.default_rng(size).integers(0, 256, (1, size), np.uint8)
        layout = Layout(StoredDeflate(Voxels(Box((0, 0), (1, size)), (0, 1), np.dtype("u1"))))
        whole = layout.read(InMemory(array), 0, 10**9)
        assert len(whole) == layout.size and zlib.decompress(whole) == array.tobytes()
        for at in range(65530, layout.size, 65530):
            assert layout.read(InMemory(array), at, 20) == whole[at : at + 20]


@given(boxes_of_voxels(), st.data())
def test_what_is_written_at_any_offset_reads_back_and_changes_nothing_else(
    made: tuple[np.ndarray, Voxels], data: st.DataObject
) -> None:
    array, extent = made
    array = array.copy()
    source, layout = InMemory(array), Layout(Literal(b"head"), extent)
    whole = bytearray(layout.read(source, 0, layout.size))
    outside = np.ones(array.shape, bool)
    outside[extent.box.slices()] = False
    before = array[outside].copy()
    a = data.draw(st.integers(4, layout.size))
    b = data.draw(st.integers(a, layout.size))
    patch = data.draw(st.binary(min_size=b - a, max_size=b - a))
    if extent.dtype.kind == "b" and not extent.packed:
        patch = bytes(n & 1 for n in patch)
    assert layout.write(source, a, patch) == len(patch)
    whole[a:b] = patch
    now = layout.read(source, 0, layout.size)
    if extent.packed:  # the bits that fill up a row are no voxels, and stay zero
        spare = -extent.box.shape[extent.order[-1]] % 8
        row = extent._atom_bytes
        for end in range(4 + row - 1, len(whole), row):
            whole[end] &= 0xFF << spare & 0xFF
    if extent.dtype.kind != "f":
        assert now == bytes(whole)
    assert array[outside].tobytes() == before.tobytes()


def test_a_header_can_be_written_with_its_own_bytes_only_and_a_refusal_changes_nothing() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    layout, source = Layout(Literal(b"head"), Voxels(Box.whole((3, 4)), (0, 1), array.dtype)), InMemory(array)
    assert layout.writable
    assert layout.write(source, 0, b"head\x63") == 5
    assert array[0, 0] == 0x63
    with pytest.raises(BadInput, match="header"):
        layout.write(source, 3, b"D\x01\x02")
    with pytest.raises(BadInput, match="cannot grow"):
        layout.write(source, layout.size, b"x")
    assert array[0, 0] == 0x63 and array[0, 1] == 1


def test_a_byte_that_is_no_bool_is_refused() -> None:
    layout = Layout(Voxels(Box.whole((2, 2)), (0, 1), np.dtype(bool)))
    with pytest.raises(BadInput):
        layout.write(InMemory(np.zeros((2, 2), bool)), 1, b"\x02")


def test_a_file_with_checksums_is_not_written_in_place() -> None:
    layout = Layout(StoredDeflate(Voxels(Box.whole((2, 2)), (0, 1), np.dtype("u1"))))
    assert not layout.writable
    with pytest.raises(Unsupported):
        layout.write(InMemory(np.zeros((2, 2), np.uint8)), 9, b"x")


def test_a_small_read_in_the_middle_of_a_large_file_touches_little() -> None:
    shape = (1000, 2000, 3000)
    source = InMemory(np.broadcast_to(np.uint8(7), shape))
    layout = Layout(Literal(b"x" * 352), Voxels(Box.whole(shape), (0, 1, 2), np.dtype("u1")))
    assert layout.size == 352 + 6_000_000_000
    assert layout.read(source, 3_000_000_000 - 2048, 4096) == b"\x07" * 4096
    assert source.given <= 4096 + (64 << 10)


def test_a_file_read_from_front_to_back_reads_each_voxel_once_for_data_and_checksums() -> None:
    array = np.random.default_rng(1).integers(0, 256, (500, 700), np.uint8)
    source = InMemory(array)
    rows = Rows(Voxels(Box.whole(array.shape), (0, 1), array.dtype), 700)
    layout = Layout(Summed(Chain((Literal(b"IDAT"), StoredDeflate(rows))), "0"))
    memo: Memo = {}
    step = 70 * 701
    whole = b"".join(layout.read(source, at, step, memo) for at in range(0, layout.size, step))
    assert source.given < array.size * 1.3
    source.given = 0
    assert layout.read(source, layout.size - 8, 8, memo) == whole[-8:]
    assert source.given == 0
    assert layout.read(source, layout.size - 8, 8) == whole[-8:]  # without the memo it takes a pass


@given(
    st.lists(st.integers(1, 5), max_size=4).map(tuple),
    st.integers(0, 400),
    st.integers(0, 400),
    st.integers(0, 50),
)
def test_a_range_is_covered_by_few_boxes_in_order(shape: tuple[int, ...], a: int, b: int, slack: int) -> None:
    total = math.prod(shape)
    start, stop = sorted((a % (total + 1), b % (total + 1)))
    positions = np.arange(total).reshape(shape)
    found = list(cover(shape, start, stop, slack))
    seen: list[int] = []
    for first, low, high in found:
        part = positions[Box(low, high).slices()].ravel().tolist()
        assert part == list(range(first, first + len(part)))
        seen += part
    assert len(found) <= max(1, 2 * len(shape) - 1)
    assert seen == sorted(set(seen)) and set(range(start, stop)) <= set(seen)
    assert slack or len(seen) == stop - start
