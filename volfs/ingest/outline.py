"""What an import would make, before a voxel is read: for people who look before they leap, and for their scripts.

Not here: how it follows from a source (:mod:`volfs.ingest.importer`), and how it is printed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from volfs.model.box import Index
from volfs.model.ngff import Axis


def by(shape: Sequence[int]) -> str:
    """``64 x 512 x 512``."""
    return " x ".join(map(str, shape))


def voxel_words(axes: Sequence[Axis], scale: Sequence[float]) -> str:
    """``z 40 nanometer, y 4 nanometer``: of the axes of which it is known; "unknown" if of none."""
    sizes = [
        f"{a.name} {size:g}{f' {a.unit}' if a.unit else ''}"
        for a, size in zip(axes, scale, strict=True)
        if a.unit or size != 1
    ]
    return ", ".join(sizes) or "unknown"


@dataclass(frozen=True, slots=True)
class LevelOutline:
    """A level to be made: its place below the image, and its voxel size in the units of the axes."""

    path: str
    shape: Index
    chunks: Index
    scale: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ImageOutline:
    """An image to be made at ``path`` of the hierarchy. ``shard`` is what the user asked for; ``replaces`` says what is
    there now, empty if nothing is."""

    path: str
    name: str
    axes: tuple[Axis, ...]
    dtype: np.dtype[Any]
    levels: tuple[LevelOutline, ...]
    shard: Index | None
    is_label: bool
    replaces: str

    @property
    def nbytes(self) -> int:
        """Bytes of voxels at full resolution, as they are in memory."""
        return self._nbytes(self.levels[0])

    @property
    def total_nbytes(self) -> int:
        """The same of all levels."""
        return sum(map(self._nbytes, self.levels))

    def _nbytes(self, level: LevelOutline) -> int:
        return math.prod(level.shape) * self.dtype.itemsize

    def document(self) -> dict[str, Any]:
        """As JSON."""
        first = self.levels[0]
        rows = zip(self.axes, first.shape, first.scale, strict=True)
        return {
            "path": self.path,
            "name": self.name,
            "axes": [
                {"name": a.name, "type": a.type, "unit": a.unit, "size": n, "voxel_size": size} for a, n, size in rows
            ],
            "dtype": self.dtype.name,
            "labels": self.is_label,
            "chunks": first.chunks,
            "shard": self.shard,
            "levels": [
                {"path": each.path, "shape": each.shape, "chunks": each.chunks, "voxel_size": each.scale}
                for each in self.levels
            ],
            "bytes": self.nbytes,
            "bytes_of_all_levels": self.total_nbytes,
            "replaces": self.replaces or None,
        }


@dataclass(frozen=True, slots=True)
class Outline:
    """The images that an import would make, the label images that come along last, and what it would say."""

    images: tuple[ImageOutline, ...]
    remarks: tuple[str, ...]
