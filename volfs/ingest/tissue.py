"""A made-up tissue volume, for demonstrations, tests and benchmarks.

What is decided here: what the tissue looks like. Cells are the regions of a jittered lattice of seeds (Worley noise),
bent by a smooth displacement so that membranes curve. Each has a dark membrane, a cytoplasm with texture and
vesicles, and a brighter nucleus with nucleoli; between the cells lies a clear extracellular space. Shot noise is
added last, so that the data compress about as badly as electron microscopy does. The same seed gives the same tissue.

Not here: how the volume is stored (`volfs.ingest.importer`) or what a demonstration does with it (`volfs.cli`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SLAB = 16  # planes computed at a time: the temporaries of a slab stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Tissue:
    """A volume and its segmentation. ``image`` is uint8 and ``labels`` uint32, both of shape (z, y, x).

    Label 0 is extracellular space and membrane; every other value is one cell.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint32]


def tissue(shape: tuple[int, int, int] = (256, 256, 256), *, cell: int = 48, seed: int = 7) -> Tissue:
    """Make a tissue of ``shape`` (z, y, x) with cells about ``cell`` voxels wide."""
    lattice = _Lattice.make(shape, cell, np.random.default_rng(seed))
    rng = np.random.default_rng(seed + 1)
    bend = [_smooth_noise(shape, cell * 1.3, rng) * np.float32(cell * 0.30) for _ in range(3)]
    coarse, fine = _smooth_noise(shape, cell / 4, rng), _smooth_noise(shape, 3.0, rng)
    image = np.empty(shape, np.uint8)
    labels = np.empty(shape, np.uint32)
    for z in range(0, shape[0], _SLAB):
        here = slice(z, min(z + _SLAB, shape[0]))
        near, gap, owner = lattice.nearest(here, shape, [axis[here] for axis in bend])
        grey, outside = _paint(near / np.float32(cell), gap / np.float32(cell), coarse[here], fine[here])
        noise = np.random.default_rng((seed, z)).standard_normal(grey.shape, np.float32) * np.float32(7.0)
        image[here] = np.clip(grey + noise, 0, 255).astype(np.uint8)
        labels[here] = np.where(outside, 0, owner)
    return Tissue(image, labels)


@dataclass(frozen=True, slots=True)
class _Lattice:
    """Jittered seeds, one to a lattice box. The nearest seed of a point lies in its own box or one beside it."""

    seeds: NDArray[np.float32]  # (boxes z, boxes y, boxes x, 3), in voxels
    cell: int

    @classmethod
    def make(cls, shape: tuple[int, int, int], cell: int, rng: np.random.Generator) -> _Lattice:
        boxes = tuple(-(-extent // cell) + 4 for extent in shape)  # two boxes beyond either end, for the bending
        corner = np.stack(np.meshgrid(*(np.arange(n) - 2 for n in boxes), indexing="ij"), axis=-1)
        jitter = rng.uniform(0.15, 0.85, size=corner.shape)
        return cls(((corner + jitter) * cell).astype(np.float32), cell)

    def nearest(
        self, planes: slice, shape: tuple[int, int, int], bend: list[NDArray[np.float32]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint32]]:
        """Distance to the nearest seed, how much further the second nearest is, and the nearest seed's number."""
        grid = np.meshgrid(
            np.arange(planes.start, planes.stop, dtype=np.float32),
            np.arange(shape[1], dtype=np.float32),
            np.arange(shape[2], dtype=np.float32),
            indexing="ij",
            sparse=True,
        )
        point = [axis + shift for axis, shift in zip(grid, bend, strict=True)]
        extent = self.seeds.shape[:3]
        box = [
            np.clip(np.floor(p / self.cell).astype(np.int32) + 2, 1, n - 2) for p, n in zip(point, extent, strict=True)
        ]
        first = np.full(point[0].shape, np.inf, np.float32)
        second = first.copy()
        owner = np.zeros(first.shape, np.uint32)
        strides = (extent[1] * extent[2], extent[2], 1)
        home = sum((b * s for b, s in zip(box, strides, strict=True)), start=np.zeros((), np.int32))
        seeds = self.seeds.reshape(-1, 3)
        for step in np.ndindex(3, 3, 3):
            index = home + sum((d - 1) * s for d, s in zip(step, strides, strict=True))
            square = np.zeros(first.shape, np.float32)
            for axis in range(3):
                square += (point[axis] - seeds[index, axis]) ** 2
            closer = square < first
            second = np.where(closer, first, np.minimum(second, square))
            owner = np.where(closer, index.astype(np.uint32) + 1, owner)
            first = np.where(closer, square, first)
        near = np.sqrt(first)
        return near, np.sqrt(second) - near, owner


def _paint(
    near: NDArray[np.float32], gap: NDArray[np.float32], coarse: NDArray[np.float32], fine: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Grey values from distances in cell widths, and the mask of what is no cell's inside."""
    grey = 150 + 16 * coarse + 14 * fine
    vesicle = (fine > 0.9) & (coarse > 0.2)
    grey = np.where(vesicle, 95 + 10 * fine, grey)
    rim = 0.27 + 0.03 * coarse
    nucleus = near < rim
    grey = np.where(nucleus, 176 + 18 * fine, grey)
    grey = np.where(np.abs(near - rim) < 0.018, 88, grey)
    grey = np.where(nucleus & (coarse > 0.75), 110 + 12 * fine, grey)
    outside = gap < 0.05
    grey = np.where(outside, 74 + 10 * fine, grey)
    grey = np.where(gap < 0.018, 205 + 6 * fine, grey)
    return grey.astype(np.float32), outside


def _smooth_noise(shape: tuple[int, int, int], period: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise of unit variance that changes over about ``period`` voxels: random nodes, interpolated linearly."""
    nodes = rng.standard_normal([int(extent / period) + 3 for extent in shape]).astype(np.float32)
    for axis, extent in enumerate(shape):
        at = np.arange(extent, dtype=np.float32) / np.float32(period)
        low = at.astype(np.int32)
        weight = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        nodes = np.take(nodes, low, axis) * (1 - weight) + np.take(nodes, low + 1, axis) * weight
    scaled: NDArray[np.float32] = (nodes / nodes.std()).astype(np.float32)
    return scaled
