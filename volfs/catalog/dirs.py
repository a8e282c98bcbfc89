"""Incarnations of directories: the rows of table ``dir``.

Decided here: how they are made and read. What an incarnation means stands in :mod:`.schema`, which names lie in it is
asked of :mod:`.entries`.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from volfs.catalog.sums import check_row, row_sum
from volfs.catalog.values import NodeShape

_COLUMNS = "id, dataset, parent, name, born, block_shape"
_Row = tuple[int, int, int, bytes, int, bytes | None]


@dataclass(frozen=True, slots=True)
class Directory:
    """One incarnation. ``born``: the version that made it; ``shape``: how its chunks are indexed, if it is an array."""

    dataset: int
    born: int
    shape: NodeShape | None


def add(cx: sqlite3.Connection, dataset: int, parent: int, name: bytes, born: int) -> int:
    """Make a directory; its id."""
    values = (dataset, parent, name, born)
    cursor = cx.execute("INSERT INTO dir (dataset, parent, name, born, sum) VALUES (?, ?, ?, ?, 0)", values)
    made = cursor.lastrowid
    assert made is not None
    cx.execute("UPDATE dir SET sum = ? WHERE id = ?", (row_sum("dir", made, *values, None), made))
    return made


def set_block_shape(cx: sqlite3.Connection, directory: int, packed: bytes) -> None:
    """Make a directory an array's: chunks per index block and axis, big-endian u32 each."""
    row = _read(cx, directory)
    assert row is not None
    total = row_sum("dir", *row[:-1], packed)
    cx.execute("UPDATE dir SET block_shape = ?, sum = ? WHERE id = ?", (packed, total, directory))


def find(cx: sqlite3.Connection, directory: int) -> Directory | None:
    """The directory of an id; None if there is none. Damaged if the row was altered."""
    row = _read(cx, directory)
    if row is None:
        return None
    packed = row[5]
    shape = None
    if packed is not None:
        shape = NodeShape(tuple(int.from_bytes(packed[i : i + 4], "big") for i in range(0, len(packed), 4)))
    return Directory(row[1], row[4], shape)


def _read(cx: sqlite3.Connection, directory: int) -> _Row | None:
    found = cx.execute(f"SELECT {_COLUMNS}, sum FROM dir WHERE id = ?", (directory,)).fetchone()
    if found is None:
        return None
    check_row(found[-1], "dir", directory, *found[1:-1])
    row: _Row = found[:-1]
    return row
