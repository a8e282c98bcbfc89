"""The versions that changed a key or anything below it, on whatever branch; or the chunks of an array in a box.

Decided here: how the rows of a path are found through all its incarnations. What it costs follows the changes of that
path and the names below it, not the number of versions or of other keys. No manifest is read. Not here: which of the
versions a reader wants (:mod:`volfs.versions.version_log`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from volfs.catalog.block_maps import ROW_COLUMNS, BlockRow, block_coords, block_key, cell_numbers
from volfs.catalog.chunk_changes import unpack_blocks
from volfs.catalog.entries import DIRECTORY, EntryRow
from volfs.catalog.lineages import ENTRY_COLUMNS
from volfs.catalog.sums import check_row, mismatch, paired
from volfs.catalog.values import NodeShape
from volfs.model.box import Box

_ENTRY, _ENTRY_KEYS = "FROM entry INDEXED BY sqlite_autoindex_entry_1", "FROM entry INDEXED BY entry_keys"
_NAMED = "WHERE dir = ? AND name = ? ORDER BY dir, name, lineage, position"
_INSIDE = "WHERE dir = ? ORDER BY dir, name, lineage, position"
_TOUCHED, _TOUCHED_KEYS = "FROM touched INDEXED BY sqlite_autoindex_touched_1", "FROM touched INDEXED BY touched_keys"
_OF_NODE = "WHERE node = ? ORDER BY node, lineage, position"
_CHANGES, _CHANGES_KEYS = "FROM block INDEXED BY sqlite_autoindex_block_1", "FROM block INDEXED BY block_keys"
_OF_BLOCK = "WHERE node = ? AND block = ? ORDER BY node, block, lineage, position"
_FEW_BLOCKS = 64
"""Of so many index blocks each is looked up by itself: what that costs follows their changes, not the array's."""
_BLOCK = (
    f"SELECT {ROW_COLUMNS}, x'', x'' FROM block INDEXED BY sqlite_autoindex_block_1"
    " WHERE node = ? AND block = ? AND lineage = ? AND position = ?"
)

Coords = NDArray[np.int64]


@dataclass(slots=True)
class PathChanges:
    """The numbers of the versions that changed a path. ``doubtful``: those that removed or replaced a directory above
    it, and so changed it if it was there. ``nodes``: the incarnations of the path's own directory."""

    versions: set[int] = field(default_factory=set)
    doubtful: set[int] = field(default_factory=set)
    nodes: list[int] = field(default_factory=list)


def changes_of_path(cx: sqlite3.Connection, root: int, path: Sequence[bytes], *, below: bool) -> PathChanges:
    """The changes of the key of these components in the dataset whose root is the directory ``root``; with ``below``,
    of everything in it too."""
    found = PathChanges()
    directories = [root]
    for depth, name in enumerate(path, 1):
        children: dict[int, None] = {}
        for directory in directories:
            rows = _rows(cx, directory, name)
            for row in rows:
                if row.kind == DIRECTORY:
                    children.setdefault(row.child)
            numbers = {row.version for row in rows}
            if depth == len(path):
                found.versions |= numbers
            else:
                found.doubtful |= numbers
        directories = list(children)
    found.nodes = directories
    if below:
        _add_below(cx, directories, found)
    found.doubtful -= found.versions
    return found


def _add_below(cx: sqlite3.Connection, directories: Sequence[int], found: PathChanges) -> None:
    todo, seen = list(directories), set(directories)
    while todo:
        directory = todo.pop()
        for row in _rows(cx, directory):
            found.versions.add(row.version)
            if row.kind == DIRECTORY and row.child not in seen:
                seen.add(row.child)
                todo.append(row.child)
        found.versions |= {version for _, _, _, version, *_ in touched_rows(cx, directory)}


def changes_in_box(cx: sqlite3.Connection, node: int, shape: NodeShape, chunks: Box) -> set[int]:
    """The versions that put or removed a chunk of a box of chunk coordinates of one array."""
    found: set[int] = set()
    size = np.array(shape.block_shape, np.int64)
    start, stop = np.array(chunks.start), np.array(chunks.stop)
    if chunks.empty:
        return found
    blocks = Box(tuple((start // size).tolist()), tuple((-(-stop // size)).tolist()))
    if blocks.size <= _FEW_BLOCKS:
        for block in np.ndindex(*blocks.shape):
            at = tuple(a + b for a, b in zip(blocks.start, block, strict=True))
            for changed in _changes_of(cx, node, block_key(at)):
                if changed.version not in found and _crosses(changed, shape, np.array(at) * size, start, stop):
                    found.add(changed.version)
        return found
    for _, lineage, position, version, packed, _ in touched_rows(cx, node):
        for key in unpack_blocks(packed):
            origin = np.array(block_coords(key), np.int64) * size
            if ((origin >= stop) | (origin + size <= start)).any():
                continue
            row = cx.execute(_BLOCK, (node, key, lineage, position)).fetchone()
            if row is None:
                raise mismatch(f"it lacks a block of node {node} that v{version} changed")
            if _crosses(BlockRow(*row).check(node, key), shape, origin, start, stop):
                found.add(version)
                break
    return found


def _crosses(row: BlockRow, shape: NodeShape, origin: Coords, start: Coords, stop: Coords) -> bool:
    """Whether a row changes a chunk from ``start`` to ``stop``; its block begins at ``origin``."""
    cells = cell_numbers(row.cells, shape.cells)
    coords = np.stack(np.unravel_index(cells, shape.block_shape), axis=1) + origin
    return bool(((coords >= start) & (coords < stop)).all(axis=1).any())


def _changes_of(cx: sqlite3.Connection, node: int, key: bytes) -> Iterator[BlockRow]:
    """The rows of one index block, in all versions."""
    columns = f"SELECT block, {ROW_COLUMNS}, x'', x'' {_CHANGES} {_OF_BLOCK}"
    keys = f"SELECT block, lineage, position {_CHANGES_KEYS} {_OF_BLOCK}"
    for row in paired(cx, columns, keys, (node, key), width=3):
        yield BlockRow(*row[1:]).check(node, key)


def _rows(cx: sqlite3.Connection, directory: int, name: bytes | None = None) -> list[EntryRow]:
    """The rows of one name of a directory, or of all names in it, in all versions."""
    return [row for _, row in named_rows(cx, directory, name)]


def named_rows(cx: sqlite3.Connection, directory: int, name: bytes | None = None) -> list[tuple[bytes, EntryRow]]:
    """The rows of one name of a directory, or of all names in it, in all versions, each with its name."""
    where, key = (_INSIDE, (directory,)) if name is None else (_NAMED, (directory, name))
    columns = f"SELECT name, lineage, position, {ENTRY_COLUMNS} {_ENTRY} {where}"
    keys = f"SELECT name, lineage, position {_ENTRY_KEYS} {where}"
    rows = paired(cx, columns, keys, key, width=3)
    return [(row[0], EntryRow(*row[1:]).check(directory, row[0])) for row in rows]


def touched_rows(cx: sqlite3.Connection, node: int) -> list[tuple[int, int, int, int, bytes, int]]:
    """(node, lineage, position, version, packed blocks, sum) of each change of chunks of an array."""
    columns = f"SELECT node, lineage, position, version, blocks, sum {_TOUCHED} {_OF_NODE}"
    keys = f"SELECT node, lineage, position {_TOUCHED_KEYS} {_OF_NODE}"
    found = []
    for row in paired(cx, columns, keys, (node,), width=3):
        check_row(row[5], "touched", *row[:5])
        found.append(row)
    return found
