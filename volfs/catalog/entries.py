"""Names in a version: from a key to its entry, and the listing of a directory.

Decided here: how names are found. A name costs one seek whatever its history, and a listing costs by the names it
walks, not by the changes they went through. A directory is an incarnation (see :mod:`.schema`), so nothing below a
removed or replaced directory is ever seen. Not here: what the names mean, and chunk keys, which have no entries
(:mod:`.blocks`).
"""

from __future__ import annotations

import os
import sqlite3
from typing import Any, NamedTuple

from volfs.catalog.lineages import ENTRIES, ENTRY_COLUMNS, newest_row
from volfs.catalog.sums import entry_sum, mismatch, paired
from volfs.model.graph import At

REMOVED, DIRECTORY, OBJECT = 0, 1, 2

_PAGE = 4096
"""Names per read of a listing: between pages no read transaction is open."""
_ROWS_PER_NAME = 8
"""Rows of one name read past before it is cheaper to seek to the next name."""

_LONG_RUN = 16
"""Names sought one by one after one with many rows, before rows are read through again."""

_TABLE, _KEYS = "FROM entry INDEXED BY sqlite_autoindex_entry_1", "FROM entry INDEXED BY entry_keys"
_NEXT = " UNION ALL ".join(
    f"SELECT * FROM (SELECT name {where} WHERE dir = ?1 AND name > ?2 ORDER BY name LIMIT 1)"
    for where in (_TABLE, _KEYS)
)
_ORDER = "WHERE dir = ? AND name > ? ORDER BY name, lineage, position"
_NAMES = f"SELECT name, lineage, position, {ENTRY_COLUMNS} {_TABLE} {_ORDER}"
_NAMES_KEYS = f"SELECT name, lineage, position {_KEYS} {_ORDER}"


class EntryRow(NamedTuple):
    """A row of ``entry`` without its key."""

    lineage: int
    position: int
    version: int
    kind: int
    child: int
    file: int
    offset: int
    length: int
    crc32c: int
    mode: int
    mtime_ns: int
    sum: int

    def check(self, directory: int, name: bytes) -> EntryRow:
        """The row itself; Damaged if it is not the one that was written for this name."""
        if self.sum != entry_sum(directory, name, self[:-1]):
            raise mismatch("a row of table entry does not match its checksum")
        return self


def find(cx: sqlite3.Connection, directory: int, name: bytes, at: At) -> EntryRow | None:
    """The live entry of this name, None where there is none or it was removed."""
    row = newest_row(cx, ENTRIES, (directory, name), at)
    if row is None:
        return None
    found = EntryRow(*row).check(directory, name)
    return found if found.kind != REMOVED else None


def listing(cx: sqlite3.Connection, directory: int, at: At) -> list[tuple[bytes, EntryRow]]:
    """All live names of a directory, in byte order."""
    found: list[tuple[bytes, EntryRow]] = []
    after: bytes | None = b""
    while after is not None:
        page, after = _page(cx, directory, after, at, _PAGE)
        found += page
    return found


def is_empty(cx: sqlite3.Connection, directory: int, at: At, pending: dict[bytes, bool]) -> bool:
    """Whether a directory has no names. ``pending``: names about to be added (True) or removed (False)."""
    if any(pending.values()):
        return False
    after: bytes | None = b""
    while after is not None:
        page, after = _page(cx, directory, after, at, 64)
        if any(name not in pending for name, _ in page):
            return False
    return True


def _page(
    cx: sqlite3.Connection, directory: int, after: bytes, at: At, limit: int
) -> tuple[list[tuple[bytes, EntryRow]], bytes | None]:
    """Live names after ``after``, up to about ``limit`` names walked; and the name to continue from, None at the
    end."""
    found: list[tuple[bytes, EntryRow]] = []
    limits = at.limits
    name: bytes | None = None
    best: Any = None
    rows = walked = 0

    def settle() -> None:
        if name is None or best is None:
            return
        entry = EntryRow(*best[1:]).check(directory, name)
        if entry.kind != REMOVED:
            found.append((name, entry))

    for row in paired(cx, _NAMES, _NAMES_KEYS, (directory, after), width=3):
        if row[0] != name:
            settle()
            walked += 1
            if walked > limit and name is not None:
                return found, name
            name, best, rows = row[0], None, 0
        rows += 1
        if rows > _ROWS_PER_NAME:
            assert name is not None
            return found, _long(cx, directory, name, at, found, limit - walked)
        # Ascending order: a later row on the chain is a newer one.
        limit_here = limits.get(row[1])
        if limit_here is not None and row[2] <= limit_here:
            best = row
    settle()
    return found, None


def _long(
    cx: sqlite3.Connection,
    directory: int,
    name: bytes,
    at: At,
    found: list[tuple[bytes, EntryRow]],
    limit: int,
) -> bytes:
    """Names with long histories: one seek finds the newest row, another the next name. Where one name has a long
    history its neighbours often have, so a few more are taken like this. The last name walked."""
    for _ in range(min(_LONG_RUN, limit)):
        entry = find(cx, directory, name, at)
        if entry is not None:
            found.append((name, entry))
        following = cx.execute(_NEXT, (directory, name)).fetchall()
        if not following:
            return name
        if len(following) != 2 or following[0] != following[1]:
            raise mismatch("table entry and the index of its keys differ")
        name = following[0][0]
    entry = find(cx, directory, name, at)
    if entry is not None:
        found.append((name, entry))
    return name


def encode(name: str) -> bytes:
    """A key's component as the catalog holds it."""
    return os.fsencode(name)


def decode(name: bytes) -> str:
    return os.fsdecode(name)
