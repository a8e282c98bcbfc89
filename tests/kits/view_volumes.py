"""Volumes in memory, and their files in any format: what the tests of volume files share."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from tests.kits.view_layouts import InMemory
from volfs.model.box import Box, Index
from volfs.views import volumes
from volfs.views.layout import Layout, VoxelSource, placed
from volfs.views.volume import Affine, ShownAxis, VolumeSpec

VOXEL = {"z": 40.0, "y": 4.5, "x": 4.0, "t": 0.5}
KINDS = {"t": "time", "c": "channel", "s": "channel", "z": "space", "y": "space", "x": "space"}
ORIGIN = {"z": 400.0, "y": 9.0, "x": -8.0, "t": 1.5}
"""The centre of the first voxel."""

SHAPES: dict[str, Index] = {"yx": (13, 5), "zyx": (7, 13, 5), "czyx": (2, 5, 7, 11), "tczyx": (3, 2, 5, 7, 11)}
DTYPES = ("bool", "uint8", "uint16", "int16", "float32", "float64", "uint64")


def spec_of(
    names: str,
    shape: Index,
    dtype: str = "uint16",
    *,
    units: bool = True,
    origin: bool = False,
    box: Box | None = None,
    affine: Affine | None = None,
    title: str = "cells",
    is_label: bool = False,
) -> VolumeSpec:
    """A volume of anisotropic voxels, in nanometres or whatever. An axis s has the samples of a pixel."""
    box = box or Box.whole(shape)
    axes = tuple(
        ShownAxis(
            number,
            name,
            KINDS.get(name),
            box.shape[number],
            VOXEL.get(name, 1.0),
            ORIGIN.get(name, 0.0) if origin else 0.0,
            {"time": "second", "space": "nanometer"}.get(KINDS.get(name, "")) if units else None,
        )
        for number, name in enumerate(names)
    )
    return VolumeSpec(
        box, np.dtype(dtype), axes, has_samples="s" in names, is_label=is_label, title=title, affine=affine
    )


class Numbered:
    """A source of any size that takes no memory: each voxel is the sum of its indices (as far as the dtype goes)."""

    def __init__(self, shape: Index, dtype: str) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        assert box.size < 10_000_000, "a small read of a large file reads much"
        grids = np.ogrid[tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))]
        return placed(np.broadcast_to(sum(grids), box.shape).astype(self.dtype), out)  # type: ignore[arg-type]

    def write(self, box: Box, voxels: np.ndarray) -> None:
        raise AssertionError("not written")


def layout_of(ending: str, spec: VolumeSpec) -> Layout:
    made = volumes.layout(ending, spec)
    assert made is not None, f"{ending} does not hold {spec}"
    return made


def written(path: Path, layout: Layout, source: VoxelSource) -> Path:
    """The whole file of a layout, at ``path``."""
    data = layout.read(source, 0, layout.size)
    assert len(data) == layout.size == len(layout.read(source, 0, 1 << 40))
    path.write_bytes(data)
    return path


def shown(folder: Path, ending: str, spec: VolumeSpec, array: np.ndarray) -> Path:
    """The file of a volume in memory."""
    return written(folder / f"{spec.stem}{ending}", layout_of(ending, spec), InMemory(array))


def head_of(folder: Path, ending: str, spec: VolumeSpec, head: int = 2048) -> Path:
    """A file as long as that of a huge volume, with its first bytes and holes after them."""
    made, path = layout_of(ending, spec), folder / f"{spec.stem}{ending}"
    path.write_bytes(made.read(Numbered(spec.box.shape, spec.dtype.name), 0, head))
    with path.open("r+b") as file:
        file.truncate(made.size)
    return path


def turned(degrees: float = 20.0, *, flip: bool = False, shear: float = 0.0) -> Affine:
    """Voxels of 0.5 x 0.75 x 3 mm, turned about two axes."""
    a, b = math.radians(degrees), math.radians(degrees / 2)
    about_z = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    made = about_z @ about_x @ np.diag([0.5, 0.75, -3.0 if flip else 3.0])
    made[0, 2] += shear
    rows = np.column_stack((made, [-90.0, 126.5, -72.25]))
    first, second, third = ((float(p), float(q), float(r), float(s)) for p, q, r, s in rows)
    return first, second, third
