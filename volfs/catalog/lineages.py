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

    seek: str  # (…key, lineage, position): the newest row at or below, lineage and position first
    lineages: str  # (…key): the list of lineages
    store: str  # (…key, lineages)
    any_row: str  # (…key): lineage and first position of the oldest lineage's first row


ENTRY_COLUMNS = "lineage, position, version, kind, child, file, offset, length, crc32c, mode, mtime_ns"
ENTRIES = RowKind(
    seek=f"SELECT {ENTRY_COLUMNS} FROM entry WHERE dir = ? AND name = ? AND (lineage, position) <= (?, ?)"
    " ORDER BY lineage DESC, position DESC LIMIT 1",
    lineages="SELECT lineages FROM entry_lineages WHERE dir = ? AND name = ?",
    store="INSERT OR REPLACE INTO entry_lineages (dir, name, lineages) VALUES (?, ?, ?)",
    any_row="SELECT lineage, position FROM entry WHERE dir = ? AND name = ? ORDER BY lineage, position LIMIT 1",
)
BLOCKS = RowKind(
    seek="SELECT lineage, position, steps FROM block WHERE node = ? AND block = ? AND (lineage, position) <= (?, ?)"
    " ORDER BY lineage DESC, position DESC LIMIT 1",
    lineages="SELECT lineages FROM block_lineages WHERE node = ? AND block = ?",
    store="INSERT OR REPLACE INTO block_lineages (node, block, lineages) VALUES (?, ?, ?)",
    any_row="SELECT lineage, position FROM block WHERE node = ? AND block = ? ORDER BY lineage, position LIMIT 1",
)


def newest_row(cx: sqlite3.Connection, kind: RowKind, key: Key, at: At) -> Row | None:
    """The newest row on the chain, as ``kind.seek`` selects it."""
    link: tuple[int, int] | None = at.chain[0]
    misses = 0
    while link is not None:
        row: Row | None = cx.execute(kind.seek, (*key, *link)).fetchone()
        if row is None or at.sees(row[0], row[1]):
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
    cx.execute(kind.store, (*key, merged.tobytes()))


def _pairs(rows: Sequence[tuple[int, int]]) -> np.ndarray[Any, np.dtype[np.void]]:
    return np.array(rows, _PAIR)
