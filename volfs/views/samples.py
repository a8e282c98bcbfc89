"""Every n-th voxel of a box, as an extent, for coarse pictures of an image that has no level as coarse.

Not here: interpolation between voxels (:mod:`volfs.views.interpolation`), which formats want, and how far apart voxels
are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from volfs.errors import Unsupported
from volfs.model.box import Box, Index
from volfs.views.layout import Extent, Memo, Voxels, VoxelSource, placed


@dataclass(frozen=True, slots=True, eq=False)
class Sampled(Extent):
    """Voxels at the start of ``box`` and every ``steps`` from there, one step for each axis of the source.

    ``counts`` are how many of them there are. One that would lie beyond ``box`` is the last of the box instead.
    ``order``, ``dtype`` and ``packed`` as in :class:`Voxels`. A read takes the whole part of the box that it spans.
    """

    box: Box
    steps: Index
    counts: Index
    order: Index
    dtype: np.dtype[Any]
    packed: bool = False
    _voxels: Voxels = field(init=False, repr=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        voxels = Voxels(Box.whole(self.counts), self.order, self.dtype, packed=self.packed)
        object.__setattr__(self, "_voxels", voxels)
        object.__setattr__(self, "size", voxels.size)

    def fill(self, source: VoxelSource, offset: int, out: memoryview, memo: Memo) -> None:
        self._voxels.fill(_Picked(source, self), offset, out, memo)


@dataclass(frozen=True, slots=True)
class _Picked:
    """The sampled voxels as a source of their own."""

    source: VoxelSource
    sampled: Sampled

    @property
    def shape(self) -> Index:
        return self.sampled.counts

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        inside = self.sampled.box
        picked = [
            np.minimum(first + np.arange(start, stop) * step, last - 1)
            for start, stop, step, first, last in zip(
                box.start, box.stop, self.sampled.steps, inside.start, inside.stop, strict=True
            )
        ]
        start = tuple(int(at[0]) for at in picked)
        voxels = self.source.read(Box(start, tuple(int(at[-1]) + 1 for at in picked)))
        return placed(voxels[np.ix_(*(at - first for at, first in zip(picked, start, strict=True)))], out)

    def write(self, box: Box, voxels: np.ndarray) -> None:
        raise Unsupported("a coarse picture cannot be written")
