"""Indexing the chunks that a version changed in one array.

Decided here: how columns of chunk records become block rows, vectorised: a version may touch millions of chunks, and
only what differs per block is done per block. Each row is linked to the older row on its chain, and given owners when
the walk down from it would cost more than ``MAX_STEPS`` (see ``block`` in :mod:`.schema`).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volfs.catalog.block_maps import changed_versions, pack_owners, walk
from volfs.catalog.chunk_changes import pack_blocks
from volfs.catalog.lineages import BLOCKS, newest_row, note_lineage
from volfs.catalog.schema import HOP, MAX_STEPS
from volfs.catalog.sums import block_seed, block_sum, payload_checks, row_sum
from volfs.catalog.values import NodeShape, PayloadArray
from volfs.errors import BadInput
from volfs.model.graph import At

_INSERT = (
    "INSERT INTO block (node, block, lineage, position, version, older_lineage, older_position, steps, cells, owners,"
    " sum, payloads, checks) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_OTHERS = (
    "SELECT EXISTS (SELECT 1 FROM touched WHERE node = :node AND lineage < :lineage)"
    " OR EXISTS (SELECT 1 FROM touched WHERE node = :node AND lineage > :lineage)"
)
_BATCH = 10_000

Links = tuple[int, int, int, bytes | None]
"""older lineage, older position, steps, owners of a block row."""
_ALONE: Links = (0, 0, 1, None)
"""Of a row that needs no older one: it is the first, or lists every cell."""


@dataclass(frozen=True, slots=True)
class RowPlace:
    """The position of a new version's rows, and the chain of its first parent."""

    parent: At
    lineage: int
    position: int
    number: int


def index_chunks(
    cx: sqlite3.Connection,
    node: int,
    shape: NodeShape,
    place: RowPlace,
    coords: NDArray[Any],
    payloads: PayloadArray,
    *,
    fresh: bool,
) -> None:
    """Write the rows of an array's changed chunks.

    ``coords``: one row of chunk coordinates per record; ``payloads``: file 0 for removals. Of two records of one chunk
    the later counts. ``fresh``: this version makes the node, so there is nothing older.
    """
    if not len(coords):
        return
    blocks, cells, order = _arrange(coords, shape)
    payloads = payloads[order]
    starts = np.flatnonzero(np.r_[True, np.any(blocks[1:] != blocks[:-1], axis=1)])
    stops = np.r_[starts[1:], len(blocks)].tolist()
    keys_packed = blocks[starts].astype(">u4").tobytes()
    width = 4 * shape.ndim
    keys = [keys_packed[i : i + width] for i in range(0, len(keys_packed), width)]
    cell_bytes = cells.astype("<u2").tobytes()
    payload_bytes = payloads.tobytes()
    size = payloads.dtype.itemsize
    seeds = np.repeat(np.array([block_seed(node, key) for key in keys], np.uint64), np.diff(np.r_[starts, len(blocks)]))
    checks = payload_checks(seeds, cells, place.number, payloads).astype("<u4").tobytes()
    linker = _Linker(cx, node, place, shape.cells)
    rows = []
    for key, start, stop in zip(keys, starts.tolist(), stops, strict=True):
        lineage, position, steps, owners = _ALONE if fresh else linker.link(key, cells[start:stop])
        head = (place.lineage, place.position, place.number, lineage, position, steps)
        listed = cell_bytes[2 * start : 2 * stop]
        rows.append(
            (
                node,
                key,
                *head,
                listed,
                owners,
                block_sum(node, key, *head, listed, owners),
                payload_bytes[size * start : size * stop],
                checks[4 * start : 4 * stop],
            )
        )
        if len(rows) >= _BATCH:
            cx.executemany(_INSERT, rows)
            rows.clear()
    cx.executemany(_INSERT, rows)
    touched = (node, place.lineage, place.position, place.number, pack_blocks(keys))
    cx.execute(
        "INSERT INTO touched (node, lineage, position, version, blocks, sum) VALUES (?, ?, ?, ?, ?, ?)",
        (*touched, row_sum("touched", *touched)),
    )


def _arrange(coords: NDArray[Any], shape: NodeShape) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.intp]]:
    """Records in order of block, then cell, each chunk once: block coordinates, cells, and the records taken."""
    extent = np.array(shape.block_shape, np.int64)
    blocks, within = np.divmod(coords.astype(np.int64), extent)
    cells = np.ravel_multi_index(tuple(within.T), shape.block_shape)
    grid = [int(n) + 1 for n in blocks.max(axis=0)]
    if prod(grid) * shape.cells < 2**62:
        # One number per record sorts several times faster than several columns.
        rank = np.ravel_multi_index(tuple(blocks.T), grid) * shape.cells + cells
        order = np.argsort(rank, kind="stable")
        rank = rank[order]
        last = np.r_[rank[1:] != rank[:-1], True]
    else:
        order = np.lexsort((cells, *blocks.T[::-1]))
        together = np.column_stack([blocks, cells])[order]
        last = np.r_[np.any(together[1:] != together[:-1], axis=1), True]
    order = order[last]
    return blocks[order], cells[order], order


class _Linker:
    """Finds the older row of each new row of one array, and keeps the lists of lineages."""

    def __init__(self, cx: sqlite3.Connection, node: int, place: RowPlace, cells: int) -> None:
        self._cx = cx
        self._node = node
        self._place = place
        self._cells = cells
        # While one lineage alone has changed the array there is no list to keep, nor to look for.
        self._listed = bool(cx.execute(_OTHERS, {"node": node, "lineage": place.lineage}).fetchone()[0])

    def link(self, key: bytes, cells: NDArray[np.int64]) -> Links:
        """The link from the row that changes these cells to older rows."""
        place = self._place
        newest = newest_row(self._cx, BLOCKS, (self._node, key), place.parent)
        if self._listed and (newest is None or newest[0] != place.lineage):
            note_lineage(self._cx, BLOCKS, (self._node, key), place.lineage, place.position)
        if newest is None or len(cells) == self._cells:
            return _ALONE
        lineage, position, steps = newest
        steps += 1 if lineage == place.lineage else 1 + HOP
        if steps <= MAX_STEPS:
            return lineage, position, steps, None
        rows = walk(self._cx, self._node, key, place.parent, payloads=False)
        owners = changed_versions(rows, self._cells)
        owners[cells] = place.number
        return lineage, position, 1, pack_owners(owners)


def check_coords(coords: NDArray[Any], ndim: NDArray[Any], shape: NodeShape, path: str) -> None:
    """BadInput if a record has another rank than its array."""
    if np.any(ndim != shape.ndim):
        raise BadInput(f"chunk records of {path or 'the root array'} do not have {shape.ndim} coordinates")
