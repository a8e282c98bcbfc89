"""What a volume file of a level shows, and files of a box that are made by naming them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from volfs.model.box import Box
from volfs.model.ngff import Axis
from volfs.views.slices import SliceGeometry
from volfs.views.volumes import spec
from volfs.views.volumes.spec import LevelMeta

UNITS = {"t": "second", "z": "nanometer", "y": "nanometer", "x": "nanometer"}
KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
SIZES = {"t": 2.0, "c": 1.0, "z": 40.0, "y": 4.5, "x": 4.0}


def level(
    names: str,
    shape: tuple[int, ...],
    dtype: str = "u2",
    *,
    coarser: tuple[int, ...] | None = None,
    attributes: dict[str, Any] | None = None,
    is_label: bool = False,
    rgb: bool = False,
) -> LevelMeta:
    """A level of an image with anisotropic voxels, ``coarser`` than s0 by a factor for each axis."""
    axes = tuple(Axis(name, KINDS.get(name), UNITS.get(name)) for name in names)
    finest = tuple(SIZES.get(name, 1.0) for name in names)
    by = coarser or (1,) * len(names)
    scale = tuple(s * f for s, f in zip(finest, by, strict=True))
    translation = tuple((f - 1) / 2 * s for s, f in zip(finest, by, strict=True))
    units = [axis.unit for axis in axes]
    geometry = SliceGeometry.of(list(names), shape, np.dtype(dtype), scale=scale, units=units, rgb=rgb)
    assert geometry is not None
    zeros = (0.0,) * len(names)
    return LevelMeta(geometry, axes, scale, translation, finest, zeros, attributes or {}, is_label, "cells")


# ------------------------------------------------------------------------------------- what a volume file shows


def test_a_levels_own_volume_has_all_axes_and_that_of_a_channel_three() -> None:
    image = level("tczyx", (3, 1, 5, 7, 11))
    shown = spec.whole(image)
    assert shown.shape == (3, 1, 5, 7, 11) and shown.box == Box.whole((3, 1, 5, 7, 11))
    assert [(a.name, a.kind, a.scale, a.unit) for a in shown.axes] == [
        ("t", "time", 2.0, "second"),
        ("c", "channel", 1.0, None),
        ("z", "space", 40.0, "nanometer"),
        ("y", "space", 4.5, "nanometer"),
        ("x", "space", 4.0, "nanometer"),
    ]
    assert spec.whole(image, (2,)).shape == (1, 5, 7, 11)
    one = spec.whole(image, (2, 0))
    assert one.shape == (5, 7, 11) and one.box == Box((2, 0, 0, 0, 0), (3, 1, 5, 7, 11))
    assert one.order == (0, 1, 2, 3, 4) and not one.others and one.title == "cells"


def test_axes_come_out_in_the_order_of_files_whatever_theirs_in_the_level() -> None:
    shown = spec.whole(level("xyzt", (2, 3, 5, 7)))
    assert [a.name for a in shown.axes] == ["t", "z", "y", "x"] and shown.order == (3, 2, 1, 0)
    colour = spec.whole(level("cyx", (3, 5, 7), "u1", rgb=True))
    assert [a.name for a in colour.axes] == ["y", "x", "c"] and colour.has_samples and colour.samples == 3
    unknown = spec.whole(level("abcd", (2, 3, 5, 7)))
    assert [a.kind for a in unknown.axes] == [None, "space", "space", "space"] and len(unknown.space) == 3


def test_the_origin_of_a_box_is_where_its_first_voxel_lies() -> None:
    image = level("zyx", (5, 7, 11), coarser=(1, 2, 2))
    shown = spec.part(image, Box((1, 2, 3), (3, 4, 5)))
    assert [a.origin for a in shown.axes] == [40.0, 2.25 + 2 * 9.0, 2.0 + 3 * 8.0]
    assert shown.shape == (2, 2, 2)


def test_a_scale_that_is_no_size_is_not_told() -> None:
    axes = (Axis("y", "space", "nanometer"), Axis("x", "space", "nanometer"))
    geometry = SliceGeometry.of("yx", (3, 4), np.dtype("u1"))
    assert geometry is not None
    shown = spec.whole(LevelMeta(geometry, axes, (0.0, -1.0), (5.0, 5.0)))
    assert all((a.scale, a.origin, a.unit) == (1.0, 0.0, None) for a in shown.axes)


def test_channels_have_names_where_each_has_one() -> None:
    omero = {"channels": [{"label": "DAPI"}, {"label": "GFP"}, {"label": ""}]}
    image = level("tczyx", (1, 3, 2, 2, 2), attributes={"ome": {"omero": omero}})
    assert spec.whole(image).channels == ()
    assert spec.whole(image, (0, 1)).channels == ("GFP",)
    two = Box((0, 0, 0, 0, 0), (1, 2, 2, 2, 2))
    assert spec.part(image, two).channels == ("DAPI", "GFP")
    for broken in ({"omero": 3}, {"omero": {"channels": [3, {"label": 4}, None]}}, {"ome": [], "omero": None}):
        assert spec.whole(level("czyx", (3, 2, 2, 2), attributes=broken)).channels == ()


def oriented(matrix: np.ndarray) -> dict[str, Any]:
    return {"volfs": {"source": {"affine": matrix.tolist()}}}


def placed(shown: Any, x: float, y: float, z: float) -> np.ndarray:
    return np.array(shown.affine) @ [x, y, z, 1.0]


def test_an_affine_holds_for_every_level_and_box_in_millimetres() -> None:
    turn = np.array([[0.0, -1.0, 0.0], [0.6, 0.0, -0.8], [0.8, 0.0, 0.6]])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn * [4.0, 4.5, 40.0], (100.0, -20.0, 7.0)
    finest = spec.whole(level("zyx", (5, 8, 12), attributes=oriented(matrix)))
    assert np.allclose(placed(finest, 3, 2, 1), (matrix @ [3, 2, 1, 1])[:3] * 1e-6)  # nanometres in millimetres
    coarse = level("tzyx", (1, 5, 4, 6), attributes=oriented(matrix), coarser=(1, 1, 2, 2))
    # The centre of a coarse voxel lies half a voxel of s0 beyond that of its first.
    assert np.allclose(placed(spec.whole(coarse), 1, 1, 2), (matrix @ [2.5, 2.5, 2, 1])[:3] * 1e-6)
    box = spec.part(coarse, Box((0, 2, 1, 3), (1, 4, 3, 6)))
    assert np.allclose(placed(box, 1, 1, 1), placed(spec.whole(coarse), 4, 2, 3))


def test_an_affine_of_other_voxel_sizes_keeps_its_directions_only() -> None:
    shown = spec.whole(level("zyx", (5, 8, 12), attributes=oriented(np.diag([-1.0, 1.0, 2.0, 1.0]))))
    assert np.allclose(np.array(shown.affine)[:, :3], np.diag([-4.0, 4.5, 40.0]) * 1e-6)


@pytest.mark.parametrize(
    "matrix", [np.zeros((4, 4)), np.eye(3), np.full((4, 4), np.nan), np.ones((4, 4)), np.array(["a"]), np.array(3)]
)
def test_an_affine_that_is_none_is_left_out(matrix: np.ndarray) -> None:
    assert spec.whole(level("zyx", (5, 8, 12), attributes=oriented(matrix))).affine is None
