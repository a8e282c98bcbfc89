"""Blocks of voxels, merged voxel by voxel.

Decided here: voxels are compared by their bits (a NaN is equal to itself, -0.0 is not 0.0). Not here: which blocks are
merged like that (:mod:`volfs.versions.combine.array_merge`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Voxels = NDArray[Any]
Mask = NDArray[np.bool_]


class Base(NamedTuple):
    """The block at the merge base. ``odd``: voxels that are unlike any value, None if none are."""

    voxels: Voxels
    odd: Mask | None = None


class MergedBlock(NamedTuple):
    """The block with what either side has changed, ours where both have. ``conflicts``: where that is."""

    voxels: Voxels
    conflicts: Mask


def merge_block(base: Base, ours: Voxels, theirs: Voxels) -> MergedBlock:
    """Three blocks of one shape and type."""
    mine, other = differ(base.voxels, ours), differ(base.voxels, theirs)
    if base.odd is not None:
        mine, other = mine | base.odd, other | base.odd
    conflicts = mine & other & differ(ours, theirs)
    return MergedBlock(np.where(other & ~mine, theirs, ours), conflicts)


def differ(one: Voxels, other: Voxels) -> Mask:
    """Where two blocks have other bits."""
    size = one.dtype.itemsize
    if size in (1, 2, 4, 8):
        kind = f"u{size}"
        return np.asarray(bits(one, kind) != bits(other, kind), np.bool_)
    pairs = [bits(block, "u8").reshape(*block.shape, size // 8) for block in (one, other)]
    return np.asarray((pairs[0] != pairs[1]).any(axis=-1), np.bool_)


def bits(block: Voxels, kind: str) -> Voxels:
    """The block's memory as unsigned integers."""
    return np.ascontiguousarray(block).view(kind)
