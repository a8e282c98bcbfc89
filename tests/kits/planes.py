"""The slices of a volume: where a mount shows each, and which voxels it has. Written from the documentation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ACROSS = {"xy": "z", "xz": "y", "yz": "x"}
"""The axis that each plane is numbered along."""


@dataclass(frozen=True)
class Plane:
    """``folder`` is the directory below the level, ``stem`` the file's name without its ending."""

    folder: str
    stem: str
    voxels: NDArray[Any]


def planes_of(volume: NDArray[Any], axes: str, *, rgb: bool = False) -> Iterator[Plane]:
    """Every slice of a volume whose axes end in ``yx``; with ``rgb``, axis c has the samples of a pixel, at last."""
    others = [axis for axis in axes if axis not in "zyx" and not (rgb and axis == "c")]
    for where in itertools.product(*(range(volume.shape[axes.index(axis)]) for axis in others)):
        home = "".join(f"{axis}{index:0{4 if axis == 't' else 2}d}/" for axis, index in zip(others, where, strict=True))
        for plane, across in ACROSS.items():
            if not {*plane} <= {*axes}:
                continue
            for position in range(volume.shape[axes.index(across)] if across in axes else 1):
                at = dict(zip(others, where, strict=True)) | {across: position}
                voxels = volume[tuple(at.get(axis, slice(None)) for axis in axes)]
                if rgb:
                    voxels = np.moveaxis(voxels, [axis for axis in axes if axis not in at].index("c"), -1)
                yield Plane(f"{home}{plane}", f"{across}{position:05d}", voxels)
