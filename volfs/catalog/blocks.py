"""Chunks in a version: one chunk's payload, or a whole index block's.

Decided here: how the rows of a block are walked. See ``block`` in :mod:`.schema`: a row lists the cells its version
changed; rows name their older one; every so often a row carries the owner of each cell. So a lookup reads the newest
row on the chain, skips (inside SQLite) over rows that do not list the cell, and ends at the row that does, or at owners
that name the row that does: never more than ``MAX_STEPS`` rows and a few seeks, whatever the history.

Not decided here: which chunk lies in which block (:func:`volfs.model.grid.split`), writing (:mod:`.index_blocks`).
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from volfs.catalog.compress import compress, decompress
from volfs.catalog.files import FileNames
from volfs.catalog.lineages import BLOCKS, newest_row, next_link
from volfs.catalog.values import PAYLOAD, BlockMap, PayloadArray
from volfs.errors import Damaged
from volfs.model.graph import At, VersionGraph
from volfs.storage.payload import PIECE

_CELL = struct.Struct("<H")
_PAYLOAD = struct.Struct("<IQQI")
_I32 = struct.Struct("<i")

# instr() may also find the two bytes across two cells; the row is then looked at for nothing, which is rare.
# The row of zeros at the end says that there is none; besides, it keeps the statement open, and with it the read that
# later statements of the same lookup share: beginning a read of their own would double their cost.
_FIND = (
    "SELECT * FROM (SELECT lineage, position, version, older_lineage, older_position, cells, owners, payloads"
    " FROM block WHERE node = ?1 AND block = ?2 AND (lineage, position) <= (?3, ?4)"
    " AND (lineage <> ?3 OR owners IS NOT NULL OR older_lineage <> lineage OR instr(cells, ?5))"
    " ORDER BY lineage DESC, position DESC LIMIT 1)"
    " UNION ALL SELECT 0, 0, 0, 0, 0, x'', NULL, x''"
)
# A statement that is open cannot be run again: lookups that take several go back and forth between two.
_FIND_TURNS = (_FIND, _FIND + " ")
_WALK = (
    "SELECT lineage, position, version, older_lineage, older_position, cells, owners, payloads FROM block"
    " WHERE node = ? AND block = ? AND (lineage, position) <= (?, ?) ORDER BY lineage DESC, position DESC"
)
_WALK_CELLS = _WALK.replace(", payloads FROM", ", x'' FROM")
_EXACT = "SELECT version, cells, payloads FROM block WHERE node = ? AND block = ? AND lineage = ? AND position = ?"
_BATCH = 64
_MANY = (
    f"WITH wanted (lineage, position) AS (VALUES {', '.join(['(?, ?)'] * _BATCH)})"
    " SELECT version, cells, payloads FROM wanted CROSS JOIN block USING (lineage, position)"
    " WHERE node = ? AND block = ?"
)

Found = tuple[int, int, int, int, int]
"""version, file, offset, length, crc32c."""


class BlockRow(NamedTuple):
    lineage: int
    position: int
    version: int
    older_lineage: int
    older_position: int
    cells: bytes
    owners: bytes | None
    payloads: bytes


def find_chunk(
    cx: sqlite3.Connection, node: int, block: bytes, cell: int, at: At, graph: Callable[[], VersionGraph]
) -> Found | None:
    """The newest change of one chunk; ``file`` is 0 when it was a removal. ``graph`` is the graph of its dataset."""
    needle = _CELL.pack(cell)
    lineage, position = at.chain[0]
    on_chain = False
    misses = turn = 0
    cursor: sqlite3.Cursor | None = None
    while True:
        # Until the next one has begun, `before` keeps the read open.
        before, turn = cursor, turn ^ 1
        cursor = cx.execute(_FIND_TURNS[turn], (node, block, lineage, position, needle))
        del before
        row = BlockRow._make(cursor.fetchone())
        if not row.lineage:
            return None
        if not on_chain and not at.sees(row.lineage, row.position):
            misses += 1
            link = next_link(cx, BLOCKS, (node, block), at, row.lineage, misses)
            if link is None:
                return None
            lineage, position = link
            continue
        on_chain = True
        number = _number_of(row.cells, needle)
        if number >= 0:
            return row.version, *_PAYLOAD.unpack_from(row.payloads, number * _PAYLOAD.size)
        if row.owners is not None:
            owner = _owner_of(row.owners, cell)
            return _owned(cx, node, block, owner, needle, graph()) if owner else None
        if not row.older_lineage:
            return None
        lineage, position = row.older_lineage, row.older_position


def _number_of(cells: bytes, needle: bytes) -> int:
    """Which element of ``cells`` is the needle; -1 if none."""
    place = cells.find(needle)
    while place & 1 and place > 0:
        place = cells.find(needle, place + 1)
    return place >> 1


def _owner_of(owners: bytes, cell: int) -> int:
    owner: int = _I32.unpack_from(decompress(owners), 4 * cell)[0]
    return owner


def _owned(cx: sqlite3.Connection, node: int, block: bytes, owner: int, needle: bytes, graph: VersionGraph) -> Found:
    info = graph.info(owner)
    row = cx.execute(_EXACT, (node, block, info.lineage, info.position)).fetchone()
    number = _number_of(row[1], needle) if row is not None else -1
    if number < 0:
        raise Damaged(f"the catalog's owners of node {node} name v{owner}, which changed no such chunk; rebuild it")
    return owner, *_PAYLOAD.unpack_from(row[2], number * _PAYLOAD.size)


def walk(cx: sqlite3.Connection, node: int, block: bytes, at: At, *, payloads: bool = True) -> Iterator[BlockRow]:
    """The rows on the chain, newest first, up to one with owners or the oldest. Without ``payloads``, they are empty.

    Exhaust it or close it soon: its cursor is an open read.
    """
    newest = newest_row(cx, BLOCKS, (node, block), at)
    link = (newest[0], newest[1]) if newest is not None else (0, 0)
    sql = _WALK if payloads else _WALK_CELLS
    while link[0]:
        lineage = link[0]
        for found in cx.execute(sql, (node, block, *link)):
            row = BlockRow(*found)
            yield row
            if row.owners is not None:
                return
            link = (row.older_lineage, row.older_position)
            if link[0] != lineage:
                break
        else:
            raise Damaged(f"the catalog lacks a row that node {node} names as older; rebuild it")


def changed_versions(rows: Iterable[BlockRow], cells: int) -> NDArray[np.int32]:
    """The version that changed each cell last, removals included, from the rows of :func:`walk`."""
    kept = list(rows)
    changed = np.zeros(cells, np.int32)
    if kept and kept[-1].owners is not None:
        changed[:] = unpack_owners(kept[-1].owners, cells)
    for row in reversed(kept):
        changed[cell_numbers(row.cells, cells)] = row.version
    return changed


def block_map(
    cx: sqlite3.Connection,
    files: FileNames,
    node: int,
    block: bytes,
    cells: int,
    at: At,
    graph: Callable[[], VersionGraph],
) -> BlockMap:
    """The whole block."""
    rows = list(walk(cx, node, block, at))
    changed = np.zeros(cells, np.int32)
    payloads: PayloadArray = np.zeros(cells, PAYLOAD)
    if rows and rows[-1].owners is not None:
        changed[:] = unpack_owners(rows[-1].owners, cells)
        # What newer rows set again need not be fetched.
        wanted = changed.copy()
        for row in rows:
            wanted[cell_numbers(row.cells, cells)] = 0
        _fetch_owned(cx, node, block, wanted, payloads, graph)
    for row in reversed(rows):
        numbers = cell_numbers(row.cells, cells)
        payloads[numbers] = np.frombuffer(row.payloads, PAYLOAD)
        changed[numbers] = row.version
    owner = np.where(payloads["file"] != 0, changed, np.int32(0))
    ids, name_of = np.unique(payloads["file"], return_inverse=True)
    names = [files.name(cx, file) if file else "" for file in ids.tolist()]
    pieces = {}
    for cell in np.flatnonzero(payloads["length"] > PIECE).tolist():
        found = files.pieces(cx, int(payloads["file"][cell]), int(payloads["offset"][cell]))
        if found is not None:
            pieces[cell] = found
    return BlockMap(owner, changed, payloads, tuple(names), name_of.astype(np.uint16), pieces)


def _fetch_owned(
    cx: sqlite3.Connection,
    node: int,
    block: bytes,
    wanted: NDArray[np.int32],
    payloads: PayloadArray,
    graph: Callable[[], VersionGraph],
) -> None:
    """Fill in the payloads of cells from the rows of the versions that own them, each row once, all in one step."""
    owners = np.unique(wanted[wanted != 0]).tolist()
    if not owners:
        return
    known = graph()
    places = [(info.lineage, info.position) for info in map(known.info, owners)]
    rows: list[tuple[int, bytes, bytes]] = []
    for start in range(0, len(places), _BATCH):
        batch = places[start : start + _BATCH]
        # One statement for any number: what is not needed asks for the row that never is.
        batch += [(0, 0)] * (_BATCH - len(batch))
        rows += cx.execute(_MANY, (*chain.from_iterable(batch), node, block))
    if len(rows) != len(owners):
        raise Damaged(f"the catalog's owners of node {node} name versions that changed nothing there; rebuild it")
    versions, all_cells, all_payloads = zip(*rows, strict=True)
    counts = [len(listed) // 2 for listed in all_cells]
    cells = cell_numbers(b"".join(all_cells), len(wanted))
    mine = wanted[cells] == np.repeat(np.array(versions, np.int32), counts)
    payloads[cells[mine]] = np.frombuffer(b"".join(all_payloads), PAYLOAD)[mine]


def cell_numbers(cells: bytes, limit: int) -> NDArray[np.uint16]:
    """The cells that a row lists."""
    numbers = np.frombuffer(cells, "<u2")
    if len(numbers) and int(numbers.max()) >= limit:
        raise Damaged("the catalog lists a chunk outside its block; rebuild it")
    return numbers


def pack_owners(owners: NDArray[np.int32]) -> bytes:
    """``owners`` of a block row."""
    return compress(owners.astype("<i4").tobytes())


def unpack_owners(packed: bytes, cells: int) -> NDArray[np.int32]:
    owners = np.frombuffer(decompress(packed), "<i4")
    if len(owners) != cells:
        raise Damaged("the catalog's owners do not fit their block; rebuild it")
    return owners.astype(np.int32, copy=False)


def block_key(block: Iterable[int]) -> bytes:
    """Block coordinates as the index holds them."""
    coords = tuple(block)
    return struct.pack(f">{len(coords)}I", *coords)


def block_coords(key: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(key) // 4}I", key)
