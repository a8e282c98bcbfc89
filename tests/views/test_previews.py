"""JPEG previews: any dtype, one window for all of a channel, told by the metadata where they do."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.kits.view_layouts import InMemory
from volfs.views import jpeg, omero
from volfs.views.slices import SliceGeometry


def geometry_of(array: np.ndarray, names: str, *, rgb: bool = False) -> SliceGeometry:
    made = SliceGeometry.of(names, array.shape, array.dtype, rgb=rgb)
    assert made is not None
    return made


def told(*windows: Any) -> dict[str, Any]:
    return {"ome": {"omero": {"channels": [{"window": window} for window in windows]}}}


def window(low: float, high: float) -> dict[str, float]:
    return {"start": low, "end": high, "min": 0, "max": 65535}


def test_the_window_is_what_the_metadata_say_and_nothing_is_read() -> None:
    array = np.zeros((2, 3, 4, 5), np.uint16)
    geometry, source = geometry_of(array, "czyx"), InMemory(array)
    attributes = told(window(10, 500), window(7.5, 8))
    assert [jpeg.window(geometry, source, c, attributes) for c in (0, 1)] == [(10, 500), (7.5, 8)]
    assert jpeg.window(geometry, source, 1, {"omero": attributes["ome"]["omero"]}) == (7.5, 8)
    assert source.given == 0


@pytest.mark.parametrize(
    "wrong",
    [None, 3, {}, {"start": 5}, window(5, 5), window(6, 5), {"start": "0", "end": "9"}, window(0, float("inf")),
     {"start": True, "end": 9}, {"start": 10**400, "end": 9}],
)  # fmt: skip
def test_a_window_that_is_none_is_not_believed(wrong: object) -> None:
    assert omero.window(told(wrong), 0) is None and omero.window(told(wrong), 1) is None


@pytest.mark.parametrize("block", [None, [], {"channels": 3}, {"channels": [None, "c"]}, {"channels": {}}])
def test_metadata_of_another_form_count_as_none(block: object) -> None:
    for attributes in ({"omero": block}, {"ome": {"omero": block}}, {"ome": block}):
        assert omero.window(attributes, 0) is None and not any(omero.labels(attributes))


def test_the_window_of_a_channel_is_the_same_at_all_times() -> None:
    array = np.random.default_rng(3).integers(0, 1000, (5, 2, 6, 20, 20)).astype("f4")
    array[:, 1] *= 1e-3
    geometry = geometry_of(array, "tczyx")
    assert jpeg.channel(geometry, (4, 1)) == 1 and jpeg.channel(geometry, (4, 0)) == 0
    low, high = jpeg.window(geometry, InMemory(array), 1)
    assert 0 <= low < high < 1
    source = InMemory(array)
    jpeg.window(geometry, source, 0)
    assert source.given == array[0, 0].size


def test_where_the_middle_is_empty_the_ends_are_looked_at() -> None:
    array = np.zeros((5, 6, 20, 20), "u2")  # a recording of which only the first time point has come
    array[0] = np.random.default_rng(3).integers(100, 200, array.shape[1:])
    low, high = jpeg.window(geometry_of(array, "tzyx"), InMemory(array), 0)
    assert 95 <= low < 110 and 190 < high <= 200


def test_a_window_costs_little_whatever_the_level() -> None:
    source = InMemory(np.broadcast_to(np.uint8(9), (100, 30_000, 100_000, 120_000)))
    jpeg.window(geometry_of(source.array, "tzyx"), source, 0)
    assert source.given <= 3 * 96**3


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i8", "u8", "f2", "f8", "c16", "V3"])
@pytest.mark.parametrize("is_label", [False, True])
def test_every_dtype_has_previews(dtype: str, is_label: bool) -> None:
    raw = np.random.default_rng(9).integers(0, 100, (3, 40, 50, np.dtype(dtype).itemsize), np.uint8)
    array = raw.view(dtype)[..., 0] if dtype == "V3" else raw[..., 0].astype(dtype)
    plane = geometry_of(array, "zyx").spec("xy", 1)
    shown = jpeg.window(geometry_of(array, "zyx"), InMemory(array), 0)
    assert jpeg.holds(plane)
    picture = Image.open(io.BytesIO(jpeg.render(InMemory(array), plane, shown, is_label=is_label)))
    assert picture.size == (50, 40) and picture.mode == ("RGB" if is_label else "L")
    assert np.ptp(np.asarray(picture)) > 100


def test_colour_pictures_keep_their_gray() -> None:
    array = np.full((4, 16, 16, 3), 500, np.uint16)
    array[..., 0] = 1000
    geometry = geometry_of(array, "zyxc", rgb=True)
    shown = jpeg.window(geometry, InMemory(array), 0, told(window(0, 1000), window(0, 900), window(100, 500)))
    assert shown == (0, 1000)
    red, green, blue = np.asarray(Image.open(io.BytesIO(jpeg.render(InMemory(array), geometry.spec("xy", 0), shown))))[
        5, 5
    ]
    assert red > 250 and abs(int(green) - 128) < 4 and abs(int(blue) - 128) < 4


def test_a_label_has_one_colour_on_every_slice_and_level() -> None:
    fine = np.zeros((3, 64, 64), np.uint64)
    fine[:, 8:40, 8:40] = 2**40 + 7
    fine[1, 48:, 48:] = 3
    coarse = fine[:, ::2, ::2].copy()
    colours = []
    for array, at in ((fine, (20, 20)), (coarse, (10, 10))):
        for index in range(3):
            plane = geometry_of(array, "zyx").spec("xy", index)
            picture = np.asarray(Image.open(io.BytesIO(jpeg.render(InMemory(array), plane, (0, 1), is_label=True))))
            colours.append(picture[at].astype(int))
    assert np.ptp(colours, axis=0).max() <= 4 and max(colours[0]) > 120
