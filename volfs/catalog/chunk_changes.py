"""Changes of chunks: of a whole array in one version, or only those after an older one.

This is what file times are computed from: the time of a slice is that of the newest version that changed any chunk it
crosses. Decided here: how all blocks of an array are walked. The whole array costs by its blocks, not by their
histories; going on from an ancestor costs by what changed since.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from volfs.catalog.block_maps import ROW_COLUMNS, BlockRow, block_coords, cell_numbers, changed_versions, walk
from volfs.catalog.compression import compress, decompress
from volfs.catalog.schema import MAX_STEPS
from volfs.catalog.sums import check_row, mismatch, paired
from volfs.catalog.values import BlockChange
from volfs.errors import BadInput
from volfs.model.box import Index
from volfs.model.graph import At

_PAGE = 1024
"""Blocks per read: between pages no read transaction is open."""

_TABLE, _KEYS = "FROM block INDEXED BY sqlite_autoindex_block_1", "FROM block INDEXED BY block_keys"
_DOWN = "WHERE node = ? AND block < ? ORDER BY block DESC, lineage DESC, position DESC"
_ROWS = f"SELECT block, {ROW_COLUMNS}, x'', x'' {_TABLE} {_DOWN}"
_ROWS_KEYS = f"SELECT block, lineage, position {_KEYS} {_DOWN}"
_SPAN = "WHERE node = ? AND lineage = ? AND position > ? AND position <= ? ORDER BY position DESC"
_TOUCHED = (
    f"SELECT node, lineage, position, version, blocks, sum FROM touched INDEXED BY sqlite_autoindex_touched_1 {_SPAN}"
)
_TOUCHED_KEYS = f"SELECT node, lineage, position FROM touched INDEXED BY touched_keys {_SPAN}"
_ROW = f"SELECT {ROW_COLUMNS}, x'', x'' {_TABLE} WHERE node = ? AND block = ? AND lineage = ? AND position = ?"
_BEYOND = b"\xff" * 25
"""Above every block key (at most six coordinates)."""


def newest_changes(cx: sqlite3.Connection, node: int, cells: int, at: At) -> Iterator[tuple[Index, NDArray[np.int32]]]:
    """For each block that the version's chain ever changed: per cell, the version that changed it last (0: none)."""
    below: bytes | None = _BEYOND
    while below is not None:
        page, below = _page(cx, node, cells, at, below)
        yield from page


def _page(
    cx: sqlite3.Connection, node: int, cells: int, at: At, below: bytes
) -> tuple[list[tuple[Index, NDArray[np.int32]]], bytes | None]:
    found: list[tuple[Index, NDArray[np.int32]]] = []
    block: bytes | None = None
    rows: list[BlockRow] = []
    passed = 0
    complete = False

    def settle() -> None:
        if block is None or not rows:
            return
        if complete:
            found.append((block_coords(block), changed_versions(rows, cells)))
        else:
            found.append((block_coords(block), changed_versions(walk(cx, node, block, at, payloads=False), cells)))

    for row in paired(cx, _ROWS, _ROWS_KEYS, (node, below), width=3):
        if row[0] != block:
            settle()
            if len(found) >= _PAGE and block is not None:
                return found, block
            block, rows, passed, complete = row[0], [], 0, False
        passed += 1
        if not complete and at.sees(row[1], row[2]):
            one = BlockRow(*row[1:]).check(node, row[0])
            rows.append(one)
            complete = one.owners is not None or not one.older_lineage
        if passed > 2 * MAX_STEPS:
            # A block with a long history: read it by itself, then seek to the next block.
            assert block is not None
            if not complete:
                kept = list(walk(cx, node, block, at, payloads=False))
                if kept:
                    found.append((block_coords(block), changed_versions(kept, cells)))
            else:
                settle()
            return found, block
    settle()
    return found, None


def changes_since(cx: sqlite3.Connection, node: int, cells: int, at: At, since: At | None) -> Iterator[BlockChange]:
    """Every change on the chain, newest first, down to but without what ``since`` sees.

    ``since`` must lie on the chain of ``at``; BadInput otherwise.
    """
    if since is not None and since.position and not at.sees(since.lineage, since.position):
        raise BadInput("the version to start from is no ancestor by first parents")
    for lineage, limit in at.chain:
        last = since is not None and since.lineage == lineage
        first = since.position if since is not None and last else 0
        for *touched, total in list(paired(cx, _TOUCHED, _TOUCHED_KEYS, (node, lineage, first, limit), width=3)):
            check_row(total, "touched", *touched)
            _, _, position, version, packed = touched
            for key in unpack_blocks(packed):
                row = cx.execute(_ROW, (node, key, lineage, position)).fetchone()
                if row is None:
                    raise mismatch(f"it lacks a block of node {node} that v{version} changed")
                found = BlockRow(*row).check(node, key)
                if (found.lineage, found.position) != (lineage, position):
                    raise mismatch(f"it lacks a block of node {node} that v{version} changed")
                yield BlockChange(block_coords(key), version, cell_numbers(found.cells, cells))
        if last:
            return


def unpack_blocks(packed: bytes) -> list[bytes]:
    """Block keys of a ``touched`` row: their width comes first, as one byte."""
    data = decompress(packed)
    width = data[0]
    return [data[i : i + width] for i in range(1, len(data), width)]


def pack_blocks(keys: list[bytes]) -> bytes:
    return compress(bytes([len(keys[0])]) + b"".join(keys))
