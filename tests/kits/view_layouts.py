"""Sources of voxels for byte layouts, and the rule that every layout is held to: any range equals the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from volfs.model.box import Box
from volfs.model.ngff import Axis
from volfs.views.layout import (
    Layout,
    Memo,
    VoxelSource,
    placed,
)
from volfs.views.slices import SliceGeometry
from volfs.views.volumes.volume_spec import LevelMeta


class InMemory:
    """A source that counts the voxels it gave."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.given = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        assert not box.empty and Box.whole(self.shape).contains(box)
        self.given += box.size
        return placed(self.array[box.slices()], out)

    def write(self, box: Box, voxels: np.ndarray) -> None:
        assert voxels.shape == box.shape and voxels.dtype == self.dtype
        self.array[box.slices()] = voxels


def ranges_equal_the_whole(layout: Layout, source: VoxelSource, whole: bytes, data: st.DataObject) -> None:
    memo: Memo = {}
    for _ in range(8):
        a = data.draw(st.integers(0, len(whole)))
        b = data.draw(st.integers(a, len(whole) + 3))
        assert layout.read(source, a, b - a, memo) == whole[a:b]
    step = data.draw(st.integers(1, max(1, len(whole))))
    assert b"".join(layout.read(source, at, step, memo) for at in range(0, len(whole), step)) == whole


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
