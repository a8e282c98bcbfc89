"""The keys, and the box of voxels, that a combination is limited to.

Decided here: how a key names nodes and files, and how a box is written. Not here: what is combined.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volfs.errors import BadInput
from volfs.model.box import Box
from volfs.model.metadata import ArrayMeta
from volfs.versions.keys import covers, json_key, node_key

_SPAN = re.compile(r"(?:[a-z]+?)?([0-9]+)-([0-9]+)")


@dataclass(frozen=True, slots=True)
class Selection:
    """``keys``: keys and directories, all if there are none. ``box``: voxels of each array, in the order of its axes;
    metadata and side files are then left alone."""

    keys: tuple[str, ...] = ()
    box: Box | None = None

    def holds(self, key: str) -> bool:
        """Whether a whole key is meant."""
        return self.box is None and self.meets(key)

    def meets(self, key: str) -> bool:
        """Whether a key, or the array in that directory, is meant in full or in part."""
        return not self.keys or any(covers(each, key) for each in self.keys)

    def holds_node(self, path: str) -> bool:
        """Whether all of the node at a hierarchy path is meant: its metadata, or the directory it stands in."""
        return self.box is None and (self.meets(node_key(path)) or self.meets(json_key(path)))

    def within(self, meta: ArrayMeta, path: str, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which chunks of an array are meant, in full or in part."""
        chosen = np.ones(len(rows), np.bool_)
        if not self.meets(node_key(path)):
            # A chunk, or a directory of chunks, by its key.
            folder = node_key(path)
            inside = [each for each in self.keys if covers(folder, each)]
            names = (f"{folder}/{meta.chunk_key(row)}" for row in rows.tolist()) if inside else ()
            chosen[:] = False
            for at, name in enumerate(names):
                chosen[at] = any(covers(each, name) for each in inside)
        if self.box is not None:
            if self.box.ndim != meta.ndim:
                chosen[:] = False
                return chosen
            shape = np.array(meta.chunk_shape, np.int64)
            start, stop = np.array(self.box.start, np.int64), np.array(self.box.stop, np.int64)
            chosen &= ((rows * shape < stop) & ((rows + 1) * shape > start)).all(axis=1)
        return chosen


ALL = Selection()


def parse_box(text: str) -> Box | None:
    """``z10-40_y0-64_x128-192``, as cutouts are named, or ``10-40_0-64_128-192``; None for what is no box."""
    parts = [_SPAN.fullmatch(part) for part in text.split("_")]
    if not parts or any(part is None for part in parts):
        return None
    spans = [(int(part[1]), int(part[2])) for part in parts if part is not None]
    if any(a >= b for a, b in spans):
        raise BadInput(
            f"the box {text!r} is empty: write the first voxel and the one after the last, z10-40_y0-64_x0-9"
        )
    return Box(tuple(a for a, _ in spans), tuple(b for _, b in spans))


def box_text(box: Box, axes: Sequence[str | None] | None = None) -> str:
    """A box as :func:`parse_box` reads it. ``axes``: the names of its axes, by default the last of ``tczyx``."""
    usual = [f"d{i}" for i in range(max(0, box.ndim - 5))] + list("tczyx"[-box.ndim :])
    names = [name if name and name.isalpha() and name.islower() else usual[i] for i, name in enumerate(axes or usual)]
    return "_".join(f"{n}{a}-{b}" for n, a, b in zip(names, box.start, box.stop, strict=True))
