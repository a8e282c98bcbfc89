"""Made-up volumes for tests: every kind of number, odd shapes, two to six axes.

The same arguments give the same voxels. Nothing here is stored; see :mod:`volfs.testing.small_store`, and
:mod:`volfs.testing.kit` for mounts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Volume = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a volume for tests is like. ``axes`` names its axes in order; ``labels`` are segmentations."""

    shape: tuple[int, ...]
    dtype: str
    axes: str
    chunks: tuple[int, ...]
    labels: bool = False

    def make(self, seed: int = 0) -> Volume:
        """The voxels."""
        return segmentation(self.shape, self.dtype, seed) if self.labels else image(self.shape, self.dtype, seed)


#: One of each sort; no extent divides by its chunk's, so that every edge is met.
KINDS = {
    "u8": Kind((37, 70, 93), "uint8", "zyx", (16, 16, 16)),
    "u16": Kind((21, 45, 50), "uint16", "zyx", (8, 32, 32)),
    "f32": Kind((11, 40, 35), "float32", "zyx", (16, 16, 16)),
    "labels": Kind((19, 41, 47), "uint64", "zyx", (16, 16, 16), labels=True),
    "flat": Kind((123, 77), "uint8", "yx", (64, 64)),
    "movie": Kind((3, 2, 5, 30, 41), "uint16", "tczyx", (1, 1, 4, 16, 16)),
    "six": Kind((2, 2, 3, 4, 15, 16), "uint8", "atczyx", (1, 1, 2, 2, 8, 8)),
}


def image(shape: tuple[int, ...], dtype: DTypeLike = "uint8", seed: int = 0) -> Volume:
    """Slopes along every axis, each another one, with noise on top: no two planes are alike, in any direction."""
    kind = np.dtype(dtype)
    rng = np.random.default_rng(seed)
    slope = sum(
        (np.linspace(0, 1 + axis, extent).reshape([-1 if a == axis else 1 for a in range(len(shape))]))
        for axis, extent in enumerate(shape)
    )
    steepest = sum(range(1, len(shape) + 1))
    mixed = 0.8 * np.broadcast_to(slope, shape) / steepest + 0.2 * rng.random(shape)
    if kind == np.bool_:
        return mixed > 0.5
    if kind.kind in "iu":
        bounds = np.iinfo(kind)
        low, high = max(bounds.min, -(2**40)), min(bounds.max, 2**40)
        return (low + mixed * (high - low)).astype(kind)
    return (mixed * 2 - 1).astype(kind)


def noise(shape: tuple[int, ...], dtype: DTypeLike = "uint16", seed: int = 0) -> Volume:
    """Voxels of all values that a type has, in this machine's byte order; floats are finite, most below a few thousand.

    Nothing compresses it, and no chunk is all of one value.
    """
    kind = np.dtype(dtype).newbyteorder("=")
    rng = np.random.default_rng(seed)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if kind.kind in "iu":
        bounds = np.iinfo(kind)
        return rng.integers(bounds.min, bounds.max, shape, kind, endpoint=True)
    made = rng.standard_normal(shape) * 1000
    return (made + 1j * made[::-1]).astype(kind) if kind.kind == "c" else made.astype(kind)


def segmentation(shape: tuple[int, ...], dtype: DTypeLike = "uint64", seed: int = 0, cell: int = 9) -> Volume:
    """Blocks of one label each, with ids far apart and background between; ids beyond 2**32 where the type has room."""
    kind = np.dtype(dtype)
    grid = tuple(-(-extent // cell) for extent in shape)
    ids = np.random.default_rng(seed).permutation(int(np.prod(grid))).astype(np.uint64) + np.uint64(1)
    if kind.itemsize == 8:
        ids += np.uint64(2**33)
    blocks = ids.reshape(grid)
    for axis in range(len(shape)):
        blocks = np.repeat(blocks, cell, axis)
    whole: Volume = blocks[tuple(slice(0, extent) for extent in shape)].astype(kind)
    for axis, extent in enumerate(shape):
        lines = [slice(None)] * len(shape)
        lines[axis] = slice(0, extent, cell)
        whole[tuple(lines)] = 0
    return whole
