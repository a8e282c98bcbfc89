"""What versions changed at a path and below it: keys put and removed, bytes, and the box around changed chunks.

Decided here: that it is counted from the rows of the path, through all its incarnations, for any number of versions in
one walk. No manifest is read. Not here: which versions changed it (:mod:`volfs.catalog.path_changes`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from volfs.catalog.block_maps import ROW_COLUMNS, BlockRow, block_coords, cell_numbers, prove
from volfs.catalog.chunk_changes import unpack_blocks
from volfs.catalog.entries import DIRECTORY, REMOVED, EntryRow
from volfs.catalog.path_changes import named_rows, touched_rows
from volfs.catalog.sums import mismatch
from volfs.catalog.values import PAYLOAD, NodeShape
from volfs.model.box import Box

_BLOCK = (
    f"SELECT {ROW_COLUMNS}, payloads, checks FROM block INDEXED BY sqlite_autoindex_block_1"
    " WHERE node = ? AND block = ? AND lineage = ? AND position = ?"
)


@dataclass(slots=True)
class PlaceCounts:
    """Keys put and removed in one directory, and the bytes put. ``chunks``: of an array, the box of chunk coordinates
    around those that changed."""

    put: int = 0
    removed: int = 0
    bytes: int = 0
    chunks: Box | None = None


Counted = dict[int, dict[bytes, PlaceCounts]]
"""By version and directory."""


def counts_of_path(
    cx: sqlite3.Connection,
    root: int,
    path: Sequence[bytes],
    numbers: Collection[int],
    shape_of: Callable[[int], NodeShape | None],
) -> Counted:
    """What some versions changed at the key of these components, and in it. ``shape_of`` gives the index blocks of an
    array, by its directory, and None for any other."""
    found: Counted = {number: {} for number in numbers}
    directories = {root: b""}
    for depth, name in enumerate(path, 1):
        below: dict[int, bytes] = {}
        for directory, where in directories.items():
            rows = named_rows(cx, directory, name)
            if depth == len(path):
                _count(found, where, rows)
            below |= {row.child: b"/".join(filter(None, (where, name))) for _, row in rows if row.kind == DIRECTORY}
        directories = below
    todo, seen = list(directories.items()), set(directories)
    while todo:
        directory, where = todo.pop()
        rows = named_rows(cx, directory)
        _count(found, where, rows)
        for name, row in rows:
            if row.kind == DIRECTORY and row.child not in seen:
                seen.add(row.child)
                todo.append((row.child, where + b"/" + name))
        if (shape := shape_of(directory)) is not None:
            _count_chunks(cx, found, where, directory, shape)
    return found


def _count(found: Counted, where: bytes, rows: Sequence[tuple[bytes, EntryRow]]) -> None:
    # A row may stand in several lineages.
    for _, version, kind, length in {(name, row.version, row.kind, row.length) for name, row in rows}:
        if version in found and kind != DIRECTORY:
            counts = found[version].setdefault(where, PlaceCounts())
            counts.put += kind != REMOVED
            counts.removed += kind == REMOVED
            counts.bytes += length if kind != REMOVED else 0


def _count_chunks(cx: sqlite3.Connection, found: Counted, where: bytes, node: int, shape: NodeShape) -> None:
    size = np.array(shape.block_shape, np.int64)
    for _, lineage, position, version, packed, _ in touched_rows(cx, node):
        if version not in found:
            continue
        counts = found[version].setdefault(where, PlaceCounts())
        for key in unpack_blocks(packed):
            raw = cx.execute(_BLOCK, (node, key, lineage, position)).fetchone()
            if raw is None:
                raise mismatch(f"it lacks a block of node {node} that v{version} changed")
            row = BlockRow(*raw).check(node, key)
            cells = cell_numbers(row.cells, shape.cells)
            payloads, checks = np.frombuffer(row.payloads, PAYLOAD), np.frombuffer(row.checks, "<u4")
            prove(node, key, cells.astype(np.intp), np.full(len(cells), version, np.int32), payloads, checks)
            put = payloads["file"] != 0
            counts.put += int(put.sum())
            counts.removed += int((~put).sum())
            counts.bytes += int(payloads["length"][put].sum())
            coords = np.stack(np.unravel_index(cells, shape.block_shape), axis=1) + np.array(block_coords(key)) * size
            box = Box(tuple(coords.min(axis=0).tolist()), tuple((coords.max(axis=0) + 1).tolist()))
            counts.chunks = box if counts.chunks is None else counts.chunks.hull(box)
