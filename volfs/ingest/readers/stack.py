"""Volumes that are kept in many equal parts, one for each index of the slowest axes: pages, frames, views, channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from volfs.model.box import Box, Index

Part = Callable[[int, Box], np.ndarray | None]
"""A box of the part of a number, counted in C order of the outer axes; None for one that is missing, and zero."""


def gather(box: Box, outer: Index, dtype: np.dtype[Any], part: Part) -> np.ndarray:
    """The voxels of a box, whose first axes are the ``outer`` ones, from the parts that it crosses."""
    lead = len(outer)
    out = np.empty(box.shape, dtype)
    rest = Box(box.start[lead:], box.stop[lead:])
    for where in np.ndindex(box.shape[:lead]):
        number = 0
        for at, first, size in zip(where, box.start, outer, strict=False):
            number = number * size + first + at
        found = part(number, rest)
        out[where] = 0 if found is None else found
    return out
