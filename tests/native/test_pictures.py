"""Files that C puts together from decoded planes, against the layouts in Python: the same bytes at any range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.kits.view_layouts import InMemory
from volfs.native import core
from volfs.views.flat import flat
from volfs.views.layout import Layout, Shifted
from volfs.views.png import layout as png_layout
from volfs.views.slices import ENDINGS, SliceGeometry

SIDES = st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 255, 256, 257, 300]))


@st.composite
def volumes(draw: st.DrawFn) -> tuple[np.ndarray, SliceGeometry, str]:
    """Voxels, their geometry, a plane of it."""
    dtype = np.dtype(draw(st.sampled_from(["u1", "u2", "u4", "i2", "f4", "u8", "f8"])))
    shape = [draw(st.integers(1, 5)), draw(SIDES), draw(SIDES)]
    names = ["z", "y", "x"]
    rgb = draw(st.booleans())
    if rgb:
        shape, names = [*shape, draw(st.integers(1, 4))], [*names, "c"]
    array = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 120, shape).astype(dtype)
    geometry = SliceGeometry.of(names, shape, dtype, scale=(3.0, 1.0, 1.0, 1.0)[: len(shape)], rgb=rgb)
    assert geometry is not None
    return array, geometry, draw(st.sampled_from(["xy", "xz", "yz"]))


def slab_of(array: np.ndarray, geometry: SliceGeometry, plane: str, cuts: tuple[int, int], empty: bool) -> core.Slab:
    """All planes, cut into pieces of memory once down and once across; with ``empty`` the last is fill value."""
    axes = [geometry.through(plane), geometry.down(plane), geometry.across(plane)]
    axes += [] if geometry.sample is None else [geometry.sample]
    planes = np.ascontiguousarray(array.transpose(axes)).reshape(*(array.shape[axis] for axis in axes[:2]), -1)
    samples, (down, across) = geometry.samples, cuts
    _, rows, columns = planes.shape
    down, across = down % rows, across % (columns // samples) * samples
    pieces = []
    for top, bottom in ((0, down), (down, rows)):
        for left, right in ((0, across), (across, columns)):
            if top < bottom and left < right:
                memory = np.ascontiguousarray(planes[:, top:bottom, left:right]).view(f"u{array.itemsize}")
                pieces.append((memory, top, bottom - top, left, right - left))
    if empty:
        pieces[-1] = (None, *pieces[-1][1:])
    return core.Slab(len(planes), array.itemsize, pieces)


def picture_of(layout: Layout, array: np.ndarray, rows: int) -> core.Picture:
    parts = flat(layout)
    assert parts is not None
    return core.Picture(
        png=parts.png,
        rows=rows,
        row_bytes=parts.voxels.size // rows,
        item=array.itemsize,
        swap=not parts.voxels.dtype.isnative,
        fill=np.zeros((), array.dtype).tobytes(),
        planes=1,
        prefix=parts.prefix,
        suffix=parts.suffix,
    )


@given(volumes(), st.sampled_from(ENDINGS), st.data())
@settings(max_examples=300, deadline=None)
def test_any_ranges_in_any_order_are_those_of_the_layout(
    case: tuple[np.ndarray, SliceGeometry, str], ending: str, data: st.DataObject
) -> None:
    array, geometry, plane = case
    layout = geometry.layout(plane, ending)
    assume(layout is not None)
    assert layout is not None
    cuts = data.draw(st.tuples(st.integers(0, 400), st.integers(0, 400)))
    empty = data.draw(st.booleans())
    slab = slab_of(array, geometry, plane, cuts, empty)
    index = data.draw(st.integers(0, geometry.count(plane) - 1))
    shown = array.copy()
    if empty:
        blank(shown, geometry, plane, cuts)
    whole = layout.read(Shifted(InMemory(shown), geometry.start(plane, index)), 0, layout.size)
    picture = picture_of(layout, array, array.shape[geometry.down(plane)])
    assert picture.size == layout.size
    ends = st.integers(0, layout.size)
    edges = sorted(data.draw(st.lists(ends, max_size=6)))
    reads = [(a, b - a) for a, b in zip([0, *edges], [*edges, layout.size], strict=True)]  # from front to back
    reads += [(a, min(n, layout.size - a)) for a, n in data.draw(st.lists(st.tuples(ends, ends), max_size=4))]
    if data.draw(st.booleans()):
        reads = data.draw(st.permutations(reads))
    found = picture.read(slab, index, reads)
    assert found == [whole[offset : offset + length] for offset, length in reads]


def blank(array: np.ndarray, geometry: SliceGeometry, plane: str, cuts: tuple[int, int]) -> None:
    down, across = geometry.down(plane), geometry.across(plane)
    place = [slice(None)] * array.ndim
    place[down] = slice(cuts[0] % array.shape[down], None)
    place[across] = slice(cuts[1] % array.shape[across], None)
    array[tuple(place)] = 0


def test_stored_blocks_end_at_their_limits() -> None:
    """Rows whose bytes fill deflate's blocks exactly, one more, one less."""
    for columns in (65534, 65535, 65536, 131069, 131070):
        array = np.arange(2 * columns, dtype="u1").reshape(1, 2, columns)
        geometry = SliceGeometry.of("zyx", array.shape, array.dtype)
        assert geometry is not None
        layout = png_layout(geometry.spec("xy", 0))
        picture = picture_of(layout, array, 2)
        slab = core.Slab(1, 1, [(array, 0, 2, 0, columns)])
        assert picture.read(slab, 0, [(0, layout.size)]) == [layout.read(InMemory(array), 0, layout.size)]


def test_a_png_of_several_idats_is_not_flat() -> None:
    geometry = SliceGeometry.of("zyx", (1, 20, 20), np.dtype("u1"))
    assert geometry is not None
    assert flat(png_layout(geometry.spec("xy", 0), idat_limit=100)) is None


def test_masks_of_a_bit_are_not_flat() -> None:
    geometry = SliceGeometry.of("zyx", (1, 20, 20), np.dtype("?"))
    assert geometry is not None
    assert flat(png_layout(geometry.spec("xy", 0))) is None


GOOD = {
    "png": False,
    "rows": 2,
    "row_bytes": 4,
    "item": 2,
    "swap": False,
    "fill": b"\0\0",
    "planes": 1,
    "prefix": b"",
    "suffix": b"",
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": 0},
        {"row_bytes": 3},
        {"row_bytes": 0},
        {"planes": 0},
        {"item": 3, "fill": b"abc"},
        {"fill": b"\0"},
        {"rows": 2**62, "row_bytes": 2**62},
        {"planes": 2**60},
        {"png": True},  # no room for the name of a chunk
        {"png": True, "prefix": b"IDATx\1", "planes": 2},
    ],
    ids=str,
)
def test_numbers_that_make_no_file_are_refused(wrong: dict[str, object]) -> None:
    core.Picture(**GOOD)
    with pytest.raises(ValueError):
        core.Picture(**{**GOOD, **wrong})


@pytest.mark.parametrize(
    "array", [np.empty((1, 2, 4), "u2")[:, :, ::2], np.empty((1, 1, 2), "u2"), np.empty((1, 2, 2), "u1")], ids=str
)
def test_memory_that_has_no_such_planes_is_refused(array: np.ndarray) -> None:
    with pytest.raises(ValueError):
        core.Slab(1, 2, [(array, 0, 2, 0, 2)])
