"""Changes of an array's metadata alone, and the times of change that they give to its parts.

Decided here: which chunks, and which slabs of chunks, read differently after an array was resized, or otherwise
described anew while its chunks stayed. Used alike for committed metadata (:mod:`volfs.versions.committed.array`) and
for that of a working copy (:mod:`volfs.versions.working.branch_array`).

A slab that runs through the whole of an axis reads differently when that axis gets another length: it gets another
size. Along the axis itself, only the chunk at the old or new edge, and all beyond, do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volfs.model.box import Box
from volfs.model.metadata import ArrayMeta
from volfs.versions.snapshot import slab_of


@dataclass(frozen=True, slots=True)
class Reshape:
    """An array's metadata became another at ``time_ns``."""

    time_ns: int
    before: ArrayMeta
    after: ArrayMeta

    @property
    def harmless(self) -> bool:
        """Whether every voxel, and every slab, reads as before."""
        return self._continues and self.before.shape == self.after.shape

    @property
    def _continues(self) -> bool:
        """Whether a chunk holds the same voxels, but for where the array ends."""
        same_fill = self.before.fill_value.tobytes() == self.after.fill_value.tobytes()
        return same_fill and self.before.ndim == self.after.ndim and self.before.same_storage(self.after)

    def _resized(self, axis: int) -> bool:
        return self.before.shape[axis] != self.after.shape[axis]

    def _unchanged(self, axis: int) -> int:
        """How many chunks from the start of a resized axis are full before and after."""
        return min(self.before.shape[axis], self.after.shape[axis]) // self.after.chunk_shape[axis]

    def raise_times(self, times: NDArray[np.int64], axes: tuple[int, ...]) -> None:
        """Raise times per chunk index along ``axes``, over all other axes, where something reads differently."""
        if not self._continues or any(
            self._resized(axis) and (axis not in axes or times.shape[axes.index(axis)] == 1)
            for axis in range(self.after.ndim)
        ):
            np.maximum(times, self.time_ns, out=times)
            return
        for at, axis in enumerate(axes):
            if self._resized(axis):
                beyond = times[(slice(None),) * at + (slice(self._unchanged(axis), None),)]
                np.maximum(beyond, self.time_ns, out=beyond)

    def raise_along(self, times: NDArray[np.int64], axis: int, chunks: Box, whole: Box) -> None:
        """Raise times per chunk index of a box along one axis, over that box, where something reads differently."""
        for place, index in enumerate(range(chunks.start[axis], chunks.stop[axis])):
            if times[place] < self.time_ns and self.changes(slab_of(chunks, axis, index), whole):
                times[place] = self.time_ns

    def changes(self, chunks: Box, whole: Box) -> bool:
        """Whether a box of chunks of an array, whose chunks are ``whole``, reads differently."""
        return not self._continues or any(
            self._resized(axis)
            and (
                chunks.stop[axis] > self._unchanged(axis)
                or (chunks.start[axis] == 0 and chunks.stop[axis] == whole.stop[axis])
            )
            for axis in range(self.after.ndim)
        )
