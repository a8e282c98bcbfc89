"""Chunks of one array at several versions, in columns, and whether they are the same.

Decided here: one address means the same bytes; other lengths or checksums mean others; where those are equal, the
SHA-256 of the manifests decides. A chunk that is not there is a state like any other. Arrays are compared by chunk
coordinates: incarnations and index blocks of the two may be others. Nothing is read but the index. Not here: voxels.
"""

from __future__ import annotations

from math import prod
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volfs.versions.combine.digests import Digests
from volfs.versions.committed.array import VersionArray

STATE = np.dtype([("file", "i8"), ("offset", "u8"), ("length", "u8"), ("crc32c", "u4"), ("changed", "i4")])
"""``file``: a number for each name, -1 for a chunk that is not there. ``changed``: the version that changed it last."""

States = np.ndarray[Any, np.dtype[Any]]


class ChunkStates:
    """Gives the states of chunks, with files numbered alike for all arrays and versions. Thread-safe."""

    def __init__(self, digests: Digests) -> None:
        self._digests = digests
        self._lock = Lock()
        self._files: dict[str, int] = {}

    def of(self, array: VersionArray | None, rows: NDArray[np.int64]) -> States:
        """The state of each chunk at one version."""
        found = np.zeros(len(rows), STATE)
        found["file"] = -1
        if array is None or not len(rows) or rows.shape[1] != array.meta.ndim:
            return found
        extent = np.array(array.block_shape, np.int64)
        inside = (rows < np.array(array.meta.grid.grid_shape, np.int64)).all(axis=1)
        blocks, cells_in = np.divmod(rows, extent)
        cells = np.ravel_multi_index(tuple(cells_in.T), array.block_shape)
        for block, at in _by_block(blocks, np.flatnonzero(inside)):
            resolved = array.block_map(block)
            if resolved is None:
                continue
            chosen = cells[at]
            held = resolved.owner[chosen] != 0
            with self._lock:
                names = np.array([self._files.setdefault(name, len(self._files)) for name in resolved.names], np.int64)
            payloads = resolved.payloads[chosen]
            found["file"][at] = np.where(held, names[resolved.name_of[chosen]], -1)
            for column in ("offset", "length", "crc32c"):
                found[column][at] = np.where(held, payloads[column], 0)
            found["changed"][at] = resolved.changed[chosen]
        return found

    def same(self, path: str, rows: NDArray[np.int64], one: States, other: States) -> NDArray[np.bool_]:
        """Which chunks have the same bytes in two states, or are in neither."""
        same = np.logical_and.reduce([one[name] == other[name] for name in ("file", "offset", "length")])
        both = (one["file"] >= 0) & (other["file"] >= 0)
        alike = both & (one["length"] == other["length"]) & (one["crc32c"] == other["crc32c"])
        unsure = np.flatnonzero(alike & ~same)
        if len(unsure):
            with self._lock:
                sums = [self._digests.of_chunks(path, rows[unsure], each["changed"][unsure]) for each in (one, other)]
            same[unsure] = sums[0] == sums[1]
        return np.asarray(same, np.bool_)


def _by_block(blocks: NDArray[np.int64], chosen: NDArray[np.intp]) -> list[tuple[tuple[int, ...], NDArray[np.intp]]]:
    """The rows of each block."""
    if not len(chosen):
        return []
    rows = blocks[chosen]
    extent = (rows.max(axis=0) + 1).tolist()
    if prod(extent) < 2**62:
        order = np.argsort(np.ravel_multi_index(tuple(rows.T), extent), kind="stable")
    else:
        order = np.lexsort(rows.T[::-1])
    rows = rows[order]
    cuts = np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)) + 1
    groups = np.split(order, cuts)
    return [(tuple(blocks[chosen[group[0]]].tolist()), chosen[group]) for group in groups]
