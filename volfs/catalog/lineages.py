"""Finding the newest row on a chain, for names and for blocks alike.

Rows are keyed (…, lineage, position), so the newest row on a chain is found by a descending seek from the chain's first
link. A seek may land beside the chain, on a row of another branch; the next one then starts at the chain's next link
below. Histories in which a branch merges often have chains of thousands of lineages, so after :data:`SEEKS` misses the
name's or block's list of lineages (kept once more than one lineage has changed it) is matched with the chain instead.

Decided here: that search, and the upkeep of those lists. The two tables' SQL is given by the caller as a
:class:`RowKind`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from volfs.catalog.sums import check_row, mismatch, row_sum
from volfs.model.graph import At

SEEKS = 2
"""Seeks beside the chain before the list of lineages is asked."""

_PAIR = np.dtype([("lineage", "<u4"), ("first", "<u4")])

Key = tuple[int, bytes]
Row = tuple[Any, ...]
Link = tuple[int, int]
"""A lineage and the newest position in it that a chain sees."""


@dataclass(frozen=True, slots=True)
class RowKind:
    """The SQL of one table with rows per lineage and position."""

    table: str
    seek: str  # (…key, lineage, position): the newest row at or below, lineage and position first; then, of the index
    # of the keys, the same two
    lineages: str  # (…key): the list of lineages, and its sum
    store: str  # (…key, lineages, sum)
    any_row: str  # (…key): lineage and first position of the oldest lineage's first row


def _kind(table: str, key: tuple[str, str], columns: str) -> RowKind:
    where = f"WHERE {key[0]} = ?1 AND {key[1]} = ?2"
    newest = f"{where} AND (lineage, position) <= (?3, ?4) ORDER BY lineage DESC, position DESC LIMIT 1"
    nothing = ", NULL" * columns.count(",")
    return RowKind(
        table=table,
        seek=f"SELECT * FROM (SELECT lineage, position, {columns} FROM {table}"
        f" INDEXED BY sqlite_autoindex_{table}_1 {newest})"
        f" UNION ALL SELECT * FROM (SELECT lineage, position{nothing}, NULL FROM {table}"
        f" INDEXED BY {table}_keys {newest})",
        lineages=f"SELECT lineages, sum FROM {table}_lineages {where}",
        store=f"INSERT OR REPLACE INTO {table}_lineages ({key[0]}, {key[1]}, lineages, sum) VALUES (?, ?, ?, ?)",
        any_row=f"SELECT lineage, position FROM {table} {where} ORDER BY lineage, position LIMIT 1",
    )


ENTRY_COLUMNS = "version, kind, child, file, offset, length, crc32c, mode, mtime_ns, sum"
ENTRIES = _kind("entry", ("dir", "name"), ENTRY_COLUMNS)
BLOCKS = _kind("block", ("node", "block"), "steps")


def newest_row(cx: sqlite3.Connection, kind: RowKind, key: Key, at: At) -> Row | None:
    """The newest row on the chain, as ``kind.seek`` selects it. Its place is proved, its other columns are not."""
    link: tuple[int, int] | None = at.chain[0]
    misses = 0
    while link is not None:
        found = cx.execute(kind.seek, (*key, *link)).fetchall()
        if not found:
            return None
        if len(found) != 2 or found[0][:2] != found[1][:2]:
            raise mismatch(f"table {kind.table} and the index of its keys differ")
        row: Row = found[0]
        if at.sees(row[0], row[1]):
            return row
        misses += 1
        link = next_link(cx, kind, key, at, row[0], misses)
    return None


def next_link(cx: sqlite3.Connection, kind: RowKind, key: Key, at: At, landed: int, misses: int) -> Link | None:
    """Where on the chain to seek next, after a seek has landed beside it, in lineage ``landed``."""
    below = at.below(landed + 1)
    if misses != SEEKS or below is None:
        return below
    found = cx.execute(kind.lineages, key).fetchone()
    if found is None:
        # One lineage only changed it, past where this chain left that lineage.
        return below
    check_row(found[1], f"{kind.table}_lineages", *key, found[0])
    pairs = np.frombuffer(found[0], _PAIR)
    if len(pairs) <= 32:
        for lineage, first in reversed(pairs.tolist()):
            limit = at.limits.get(lineage)
            if limit is not None and first <= limit:
                return lineage, limit
        return None
    lineages, limits = at.arrays()
    place = np.minimum(np.searchsorted(lineages, pairs["lineage"]), len(lineages) - 1)
    hits = np.flatnonzero((lineages[place] == pairs["lineage"]) & (pairs["first"] <= limits[place]))
    if not len(hits):
        return None
    return int(pairs["lineage"][hits[-1]]), int(limits[place[hits[-1]]])


def note_lineage(cx: sqlite3.Connection, kind: RowKind, key: Key, lineage: int, position: int) -> None:
    """Keep the list of lineages right before the first row of ``lineage`` for this key is inserted."""
    found = cx.execute(kind.lineages, key).fetchone()
    if found is not None:
        check_row(found[1], f"{kind.table}_lineages", *key, found[0])
        pairs = np.frombuffer(found[0], _PAIR)
    else:
        other = cx.execute(kind.any_row, key).fetchone()
        if other is None:
            return
        pairs = _pairs([other])
    if lineage in pairs["lineage"]:
        return
    merged = np.concatenate([pairs, _pairs([(lineage, position)])])
    merged.sort(order="lineage")
    packed = merged.tobytes()
    cx.execute(kind.store, (*key, packed, row_sum(f"{kind.table}_lineages", *key, packed)))


def _pairs(rows: Sequence[tuple[int, int]]) -> np.ndarray[Any, np.dtype[np.void]]:
    return np.array(rows, _PAIR)
