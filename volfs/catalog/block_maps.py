"""Chunks in a version: one chunk's payload, or a whole index block's.

Decided here: how the rows of a block are walked. See ``block`` in :mod:`.schema`: a row lists the cells its version
changed; rows name their older one; every so often a row carries the owner of each cell. So a lookup reads the newest
row on the chain, and the rows that it names one after the other, and ends at the row that lists the cell, or at owners
that name the row that does: never more than ``MAX_STEPS`` rows and a few seeks, whatever the history.

Every row walked is proved by its sum, that it is the newest or the one named by the index of the keys or by the row
before, and every payload by its check (:mod:`.sums`): what is given is what was written, or Damaged is raised.

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

from volfs.catalog.compression import compress, decompress
from volfs.catalog.lineages import BLOCKS, newest_row
from volfs.catalog.payload_files import FileNames
from volfs.catalog.sums import block_seed, block_sum, mismatch, payload_checks
from volfs.catalog.values import PAYLOAD, BlockMap, PayloadArray
from volfs.model.graph import At, VersionGraph
from volfs.storage.payload import PIECE

_CELL = struct.Struct("<H")
_I32 = struct.Struct("<i")
_CHECK = np.dtype("<u4")

_TABLE = "FROM block INDEXED BY sqlite_autoindex_block_1"
ROW_COLUMNS = "lineage, position, version, older_lineage, older_position, steps, cells, owners, sum"
_DOWN = "WHERE node = ? AND block = ? AND (lineage, position) <= (?, ?) ORDER BY lineage DESC, position DESC"
_WALK = f"SELECT {ROW_COLUMNS}, payloads, checks {_TABLE} {_DOWN}"
_WALK_CELLS = f"SELECT {ROW_COLUMNS}, x'', x'' {_TABLE} {_DOWN}"
_PAYLOADS = (
    f"SELECT version, cells, payloads, checks {_TABLE} WHERE node = ? AND block = ? AND lineage = ? AND position = ?"
)
_BATCH = 64
_MANY = (
    f"WITH wanted (lineage, position) AS (VALUES {', '.join(['(?, ?)'] * _BATCH)})"
    " SELECT version, cells, payloads, checks FROM wanted CROSS JOIN block USING (lineage, position)"
    " WHERE node = ? AND block = ?"
)

Found = tuple[int, int, int, int, int]
"""version, file, offset, length, crc32c."""


class BlockRow(NamedTuple):
    """A row. Its payloads are proved by their checks, the rest by its sum."""

    lineage: int
    position: int
    version: int
    older_lineage: int
    older_position: int
    steps: int
    cells: bytes
    owners: bytes | None
    sum: int
    payloads: bytes
    checks: bytes

    def check(self, node: int, block: bytes) -> BlockRow:
        """The row itself; Damaged if it is not the one that was written for this block."""
        if self.sum != block_sum(node, block, *self[:8]):
            raise mismatch(f"a row of block {block_coords(block)} of node {node} does not match its checksum")
        return self


def find_chunk(
    cx: sqlite3.Connection, node: int, block: bytes, cell: int, at: At, graph: Callable[[], VersionGraph]
) -> Found | None:
    """The newest change of one chunk; ``file`` is 0 when it was a removal. ``graph`` is the graph of its dataset."""
    needle = _CELL.pack(cell)
    for row in walk(cx, node, block, at, payloads=False):
        number = _number_of(row.cells, needle)
        if number >= 0:
            return _payload(cx, node, block, cell, row.version, (row.lineage, row.position))
        if row.owners is not None:
            owner = _owner_of(row.owners, cell)
            if not owner:
                return None
            info = graph().info(owner)
            return _payload(cx, node, block, cell, owner, (info.lineage, info.position))
    return None


def _number_of(cells: bytes, needle: bytes) -> int:
    """Which element of ``cells`` is the needle; -1 if none."""
    place = cells.find(needle)
    while place & 1 and place > 0:
        place = cells.find(needle, place + 1)
    return place >> 1


def _owner_of(owners: bytes, cell: int) -> int:
    owner: int = _I32.unpack_from(decompress(owners), 4 * cell)[0]
    return owner


def _payload(cx: sqlite3.Connection, node: int, block: bytes, cell: int, version: int, place: tuple[int, int]) -> Found:
    """The payload of a cell that the row of a version, at (lineage, position), lists."""
    row = cx.execute(_PAYLOADS, (node, block, *place)).fetchone()
    number = _number_of(row[1], _CELL.pack(cell)) if row is not None else -1
    # What SQLite finds in a damaged page need not be what it was asked for.
    if number < 0 or row[0] != version:
        raise mismatch(f"a row of node {node} that should list chunk {cell} of a block does not")
    payload = np.frombuffer(row[2], PAYLOAD, 1, number * PAYLOAD.itemsize)
    check = np.frombuffer(row[3], _CHECK, 1, number * _CHECK.itemsize)
    prove(node, block, np.array([cell]), np.array([version]), payload, check)
    return (version, *payload[0].item())


def prove(
    node: int,
    block: bytes,
    cells: NDArray[np.intp],
    versions: NDArray[np.int32],
    payloads: PayloadArray,
    checks: NDArray[np.uint32],
) -> None:
    """Damaged unless each payload is the one that was written for this cell of this block by this version."""
    wrong = np.flatnonzero(payload_checks(block_seed(node, block), cells, versions, payloads) != checks)
    if len(wrong):
        cell = int(cells[wrong[0]])
        raise mismatch(f"the payload of chunk {cell} of block {block_coords(block)} does not match its checksum")


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
            if (row.lineage, row.position) != link:
                break
            yield row.check(node, block)
            if row.owners is not None:
                return
            link = (row.older_lineage, row.older_position)
            if link[0] != lineage:
                lineage = 0
                break
        if lineage:
            raise mismatch(f"it lacks a row that node {node} names as older")


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
    changed = changed_versions(rows, cells)
    payloads: PayloadArray = np.zeros(cells, PAYLOAD)
    checks = np.zeros(cells, _CHECK)
    if rows and rows[-1].owners is not None:
        # What newer rows set again need not be fetched.
        wanted = unpack_owners(rows[-1].owners, cells).copy()
        for row in rows:
            wanted[cell_numbers(row.cells, cells)] = 0
        _fetch_owned(cx, node, block, wanted, payloads, checks, graph)
    for row in reversed(rows):
        numbers = cell_numbers(row.cells, cells)
        payloads[numbers] = np.frombuffer(row.payloads, PAYLOAD)
        checks[numbers] = np.frombuffer(row.checks, _CHECK)
    held = np.flatnonzero(changed)
    prove(node, block, held, changed[held], payloads[held], checks[held])
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
    checks: NDArray[np.uint32],
    graph: Callable[[], VersionGraph],
) -> None:
    """Fill in the payloads of cells from the rows of the versions that own them, each row once, all in one step. The
    payloads are not proved yet."""
    owners = np.unique(wanted[wanted != 0]).tolist()
    if not owners:
        return
    known = graph()
    places = [(info.lineage, info.position) for info in map(known.info, owners)]
    rows: list[tuple[int, bytes, bytes, bytes]] = []
    for start in range(0, len(places), _BATCH):
        batch = places[start : start + _BATCH]
        # One statement for any number: what is not needed asks for the row that never is.
        batch += [(0, 0)] * (_BATCH - len(batch))
        rows += cx.execute(_MANY, (*chain.from_iterable(batch), node, block))
    if len(rows) != len(owners):
        raise mismatch(f"its owners of node {node} name versions that changed nothing there")
    versions, all_cells, all_payloads, all_checks = zip(*rows, strict=True)
    if sorted(versions) != owners:
        raise mismatch(f"its owners of node {node} name versions that are not found there")
    counts = [len(listed) // 2 for listed in all_cells]
    cells = cell_numbers(b"".join(all_cells), len(wanted))
    mine = wanted[cells] == np.repeat(np.array(versions, np.int32), counts)
    payloads[cells[mine]] = np.frombuffer(b"".join(all_payloads), PAYLOAD)[mine]
    checks[cells[mine]] = np.frombuffer(b"".join(all_checks), _CHECK)[mine]


def cell_numbers(cells: bytes, limit: int) -> NDArray[np.uint16]:
    """The cells that a row lists."""
    numbers = np.frombuffer(cells, "<u2")
    if len(numbers) and int(numbers.max()) >= limit:
        raise mismatch("it lists a chunk outside its block")
    return numbers


def pack_owners(owners: NDArray[np.int32]) -> bytes:
    """``owners`` of a block row."""
    return compress(owners.astype("<i4").tobytes())


def unpack_owners(packed: bytes, cells: int) -> NDArray[np.int32]:
    owners = np.frombuffer(decompress(packed), "<i4")
    if len(owners) != cells:
        raise mismatch("the owners of a block do not fit it")
    return owners.astype(np.int32, copy=False)


def block_key(block: Iterable[int]) -> bytes:
    """Block coordinates as the index holds them."""
    coords = tuple(block)
    return struct.pack(f">{len(coords)}I", *coords)


def block_coords(key: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(key) // 4}I", key)
