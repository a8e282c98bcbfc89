"""Inode numbers: handed out once, stable for the life of the store, never reused.

An inode has 63 bits. Decided here:

- 1 is the root.
- *Derived*, bit 62 clear: ``directory id << 27 | ordinal``. The directory id (35 bits, never 0) is a hash of the
  directory's path in the mount, the next free one on a collision; ordinal 0 is the directory itself, files have 1 and
  up. A file's ordinal is computed from its index by whoever makes the directory's contents, so a directory of a million
  files needs one row, and a table that was lost comes back with the same numbers.
- *Allocated*, bit 62 set: a sequence number, for names in a branch's union directories. A name is (parent inode, name),
  so renaming a directory moves what is below it without touching it.

Where the numbers are kept: in an SQLite file of its own beside the catalog, because it is no index of the store's
files, outlives a rebuilt catalog, is written by mounts at any time (never waiting for a long commit), and must not look
like a commit to those who watch the catalog's ``data_version``.

Writing is behind: :meth:`InodeTable.flush`, which the owner calls every second, writes what changed since. Until then
it is in memory only, and a ``kill -9`` forgets it; but numbers are reserved ahead, durably, so it is forgotten and not
given to something else. Answers come from memory; what was not used lately is dropped from it and read back from the
file. Two mounts of one store may give one name two numbers; both lead back to the name.

Thread-safe. Not decided here: which paths and names there are (``volfs.tree``).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from volfs.catalog.connections import Connections, translate
from volfs.catalog.schema import check as schema_check
from volfs.catalog.schema import migrate, run_script
from volfs.errors import BadInput, Damaged, VolfsError
from volfs.model.bounded_map import BoundedMap, Usage

if TYPE_CHECKING:
    from sqlite_utils import Database

ROOT = 1
ORDINAL_BITS = 27
DIRECTORY_BITS = 35
ALLOCATED = 1 << 62
MAX_ORDINAL = (1 << ORDINAL_BITS) - 1

APPLICATION_ID = 0x766F6C69
"""SQLite's application_id of an inode table: "voli"."""

TABLES = """
-- Derived directories: id is the hash of path, or the next free id after it. Rows are only ever added.
CREATE TABLE directory (
    id    INTEGER PRIMARY KEY,
    path  BLOB NOT NULL UNIQUE              -- in the mount, without a leading slash; bytes as they are
);

-- Names of allocated inodes. An inode may have several (hard links); one without any is gone for good.
-- Two mounts may have given one name two inodes; the smaller is the one that a new mount takes.
CREATE TABLE name (
    parent  INTEGER NOT NULL,               -- inode of the directory, derived or allocated
    name    BLOB NOT NULL,
    ino     INTEGER NOT NULL,
    PRIMARY KEY (parent, name, ino)
) WITHOUT ROWID;
CREATE INDEX name_ino ON name (ino);

-- One row: every sequence number below `next` may have been handed out.
CREATE TABLE sequence (
    next  INTEGER NOT NULL
);
"""

_RESERVED = 1 << 16
"""Sequence numbers reserved at a time; the next lot when half are used."""
_KEPT = 200_000
"""Rows of each kind kept in memory besides those not written yet."""
_ROW_BYTES = 150
"""What a row takes in memory, about."""
_DIRECTORIES_KEPT = 64
_NAMES_KEPT = 512
"""Directories of which all names that the file has are kept in memory, and the most names of one."""

Name = tuple[int, bytes]
_T = TypeVar("_T")


def table_path(catalog: Path) -> Path:
    """Where the inode table of a catalog lies."""
    return catalog.with_name(catalog.name + ".inodes")


def _create(db: Database) -> None:
    run_script(db, TABLES)
    # Should this file ever be lost, a new one must not begin where the old one did: numbers of a store are dated.
    db.execute("INSERT INTO sequence (next) VALUES (?)", (int(time.time()) << 20,))


class InodeTable:
    """The numbers of one store. Make it with :meth:`open`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        # Guards everything below; held for memory and single reads, never while writing. What is known and written is
        # answered without it, by peek(): it need not wait for another thread's read of the file. So it does not count
        # as used, and what is asked for always is read again once in _KEPT others.
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._ids: BoundedMap[bytes, int] = BoundedMap(_KEPT)
        self._paths: BoundedMap[int, bytes] = BoundedMap(_KEPT)
        self._inos: BoundedMap[Name, int] = BoundedMap(_KEPT)
        self._names: BoundedMap[int, tuple[Name, ...]] = BoundedMap(_KEPT)
        # All names that the file has in a directory, so that it need not be asked for those that it has not; None for
        # too many.
        self._stored: BoundedMap[int, set[bytes] | None] = BoundedMap(_DIRECTORIES_KEPT)
        self._new_directories: dict[int, bytes] = {}
        self._changed: dict[int, tuple[Name, ...]] = {}
        self._next = 0
        self._end = 0

    @classmethod
    def open(cls, catalog: Path) -> InodeTable:
        """Open the inode table beside a catalog file, making it if need be."""
        # FULL: that numbers are reserved must survive a power cut, or one would be given out twice.
        connections = Connections(table_path(Path(catalog)), synchronous="FULL")
        connections.open(
            lambda cx: migrate(
                cx, connections.path, application_id=APPLICATION_ID, migrations=(_create,), what="inode table"
            ),
            create=True,
        )
        table = cls(connections)
        table._reserve()
        return table

    @staticmethod
    def is_sound(catalog: Path) -> bool:
        """Whether the inode table beside a catalog file can be read."""
        connections = Connections(table_path(catalog), read_only=True)

        def look(cx: sqlite3.Connection) -> None:
            schema_check(cx, connections.path, application_id=APPLICATION_ID, latest=1, what="inode table")
            if cx.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise Damaged(f"{connections.path} is damaged")

        try:
            connections.open(look, create=False)
        except VolfsError:
            return False
        connections.close()
        return True

    def close(self) -> None:
        """Write what is not written yet, and close."""
        try:
            self.flush()
        finally:
            self._connections.close()

    @property
    def statements(self) -> int:
        """How many statements this process has run on the table."""
        return self._connections.statements

    def usage(self, others: int = 0) -> Usage:
        """Rows in memory, and ``others`` that are none of the table. Those not written yet may exceed the limit."""
        kept = len(self._ids) + len(self._paths) + len(self._inos) + len(self._names) + len(self._stored)
        rows = kept + len(self._new_directories) + len(self._changed) + others
        return Usage(rows, 4 * _KEPT * _ROW_BYTES, rows * _ROW_BYTES)

    def __enter__(self) -> InodeTable:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- numbers ---

    @staticmethod
    def file(directory: int, ordinal: int) -> int:
        """The inode of file ``ordinal`` ≥ 1 in a derived directory."""
        if not 1 <= ordinal <= MAX_ORDINAL or InodeTable.is_allocated(directory) or directory & MAX_ORDINAL:
            raise BadInput(f"no inode for file {ordinal} of directory {directory}")
        return directory | ordinal

    @staticmethod
    def split(ino: int) -> tuple[int, int]:
        """(inode of the directory, ordinal) of a derived inode; ordinal 0 is the directory itself."""
        if ino == ROOT:
            return ROOT, 0
        return ino & ~MAX_ORDINAL, ino & MAX_ORDINAL

    @staticmethod
    def is_allocated(ino: int) -> bool:
        return bool(ino & ALLOCATED)

    # --- derived ---

    def directory(self, path: str) -> int:
        """The inode of a directory from its path in the mount ("" is the root)."""
        raw = os.fsencode(path)
        if not raw:
            return ROOT
        found = self._ids.peek(raw)
        if found is not None:
            return found << ORDINAL_BITS
        with self._lock:
            found = self._ids.get(raw)
            if found is None:
                found = self._guard(lambda: self._directory_id(raw))
                self._ids.put(raw, found)
                self._paths.put(found, raw)
        return found << ORDINAL_BITS

    def _directory_id(self, raw: bytes) -> int:
        row = self._connections.get().execute("SELECT id FROM directory WHERE path = ?", (raw,)).fetchone()
        if row is not None:
            return int(row[0])
        candidate = int.from_bytes(blake2b(raw, digest_size=8).digest(), "big") >> (64 - DIRECTORY_BITS)
        while True:
            holder = self._path_of(candidate) if candidate else b""
            if holder is None or holder == raw:
                break
            candidate = (candidate + 1) % (1 << DIRECTORY_BITS)
        # Pinned until written: its number must lead back to it whatever memory drops.
        self._new_directories[candidate] = raw
        self._ids.pin(raw, candidate)
        return candidate

    def directory_path(self, ino: int) -> str | None:
        """The path of a derived directory; None if no such one was ever handed out."""
        if ino == ROOT:
            return ""
        if ino & MAX_ORDINAL or self.is_allocated(ino) or ino <= 0:
            return None
        with self._lock:
            raw = self._guard(lambda: self._path_of(ino >> ORDINAL_BITS))
        return os.fsdecode(raw) if raw is not None else None

    def _path_of(self, number: int) -> bytes | None:
        found = self._paths.get(number) or self._new_directories.get(number)
        if found is None:
            row = self._connections.get().execute("SELECT path FROM directory WHERE id = ?", (number,)).fetchone()
            found = row[0] if row is not None else None
            if found is not None:
                self._paths.put(number, found)
        return found

    # --- allocated ---

    def allocate(self, parent: int, name: bytes) -> int:
        """The inode of a name; a new one if the name has none."""
        known = self._inos.peek((parent, name))
        if known is not None:
            return known
        with self._lock:
            while True:
                found = self._guard(lambda: self._find(parent, name))
                if found is not None:
                    return found
                if self._next < self._end:
                    break
                self._reserve_more()
            ino = ALLOCATED | self._next
            self._next += 1
            self._names.pin(ino, ())
            self._set(ino, ((parent, name),))
            return ino

    def find(self, parent: int, name: bytes) -> int | None:
        """The inode that a name has, None if it has none yet."""
        known = self._inos.peek((parent, name))
        if known is not None:
            return known
        with self._lock:
            return self._guard(lambda: self._find(parent, name))

    def where(self, ino: int) -> tuple[int, bytes] | None:
        """(parent, name) of an allocated inode, the latest if it has several; None if it is gone or never was."""
        if not self.is_allocated(ino):
            return None
        names = self._names.peek(ino)
        if names is None:
            with self._lock:
                names = self._guard(lambda: self._names_of(ino))
        return names[-1] if names else None

    def links(self, ino: int) -> int:
        """How many names an allocated inode has."""
        with self._lock:
            return len(self._guard(lambda: self._names_of(ino)))

    def rename(self, ino: int, parent: int, name: bytes, *, old: tuple[int, bytes] | None = None) -> None:
        """Give an inode another name: the one of its names that is ``old`` (default: the latest) becomes (parent,
        name), which whatever had it loses."""
        with self._lock:
            self._guard(lambda: self._rename(ino, (parent, name), old))

    def _rename(self, ino: int, name: Name, old: Name | None) -> None:
        names = self._names_of(ino)
        old = old or (names[-1] if names else None)
        if old == name:
            return
        self._take(name)
        self._set(ino, (*(one for one in names if one not in (old, name)), name))

    def exchange(self, one: int, other: int, names: tuple[Name, Name] | None = None) -> None:
        """Each of two inodes gets the other's name (RENAME_EXCHANGE): ``names`` says which, by default the latest."""

        def swap() -> None:
            first, second = self._names_of(one), self._names_of(other)
            if not first or not second or one == other:
                return
            mine, theirs = names or (first[-1], second[-1])
            self._set(one, ())
            self._set(other, ())
            self._set(one, (*(name for name in first if name != mine), theirs))
            self._set(other, (*(name for name in second if name != theirs), mine))

        with self._lock:
            self._guard(swap)

    def link(self, ino: int, parent: int, name: bytes) -> None:
        """Give an inode one more name, which whatever had it loses."""

        def add() -> None:
            self._take((parent, name))
            self._set(ino, (*(one for one in self._names_of(ino) if one != (parent, name)), (parent, name)))

        with self._lock:
            self._guard(add)

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name from its inode. An inode without names is gone."""
        with self._lock:
            self._guard(lambda: self._take((parent, name)))

    def drop(self, ino: int) -> None:
        """Forget an inode with all its names. Its number is never handed out again."""
        with self._lock:
            self._guard(lambda: self._set(ino, ()))

    def _find(self, parent: int, name: bytes) -> int | None:
        found = self._inos.get((parent, name))
        if found is not None:
            return found
        stored = self._stored_in(parent)
        if stored is not None and name not in stored:
            return None
        cx = self._connections.get()
        for (ino,) in cx.execute("SELECT ino FROM name WHERE parent = ? AND name = ? ORDER BY ino", (parent, name)):
            # What is not written yet says otherwise than the file.
            if ino not in self._changed:
                self._inos.put((parent, name), ino)
                return int(ino)
        return None

    def _stored_in(self, parent: int) -> set[bytes] | None:
        """All names that the file has in a directory, but for those that other mounts have written since; None if they
        are too many to be kept."""
        stored = self._stored.get(parent, False)
        if stored is False:
            query = "SELECT DISTINCT name FROM name WHERE parent = ? LIMIT ?"
            rows = self._connections.get().execute(query, (parent, _NAMES_KEPT + 1)).fetchall()
            stored = {name for (name,) in rows} if len(rows) <= _NAMES_KEPT else None
            self._stored.put(parent, stored)
        assert not isinstance(stored, bool)
        return stored

    def _store_name(self, parent: int, name: bytes) -> None:
        """The file has a name now, which memory is about to be free to drop."""
        stored = self._stored.get(parent)
        if stored is not None:
            stored.add(name)
            if len(stored) > _NAMES_KEPT:
                self._stored.put(parent, None)

    def _names_of(self, ino: int) -> tuple[Name, ...]:
        found = self._names.get(ino)
        if found is None:
            rows = self._connections.get().execute("SELECT parent, name FROM name WHERE ino = ?", (ino,)).fetchall()
            found = tuple(rows)
            self._names.put(ino, found)
        return found

    def _take(self, name: Name) -> None:
        holder = self._find(*name)
        if holder is not None:
            self._set(holder, tuple(one for one in self._names_of(holder) if one != name))

    def _set(self, ino: int, names: tuple[Name, ...]) -> None:
        for gone in self._names_of(ino):
            if gone not in names and self._inos.get(gone) == ino:
                self._inos.pop(gone)
        for name in names:
            self._inos.pin(name, ino)
        self._names.pin(ino, names)
        self._changed[ino] = names

    # --- the file ---

    def flush(self) -> None:
        """Write what changed. Does not hold up the other methods meanwhile."""
        with self._flushing:
            with self._lock:
                directories = dict(self._new_directories)
                changed = dict(self._changed)
                reserve = self._end - self._next < _RESERVED // 2
            if directories or changed:
                with self._connections.write() as cx:
                    # Another mount may have met the same path, or the same hash, in the same second; then its row stays
                    # and this process goes on with what it has handed out.
                    cx.executemany("INSERT OR IGNORE INTO directory (id, path) VALUES (?, ?)", directories.items())
                    cx.executemany("DELETE FROM name WHERE ino = ?", ((ino,) for ino in changed))
                    cx.executemany("INSERT INTO name (parent, name, ino) VALUES (?, ?, ?)", _rows(changed.items()))
                with self._lock:
                    self._settle(directories, changed)
            if reserve:
                self._reserve()

    def _settle(self, directories: dict[int, bytes], changed: dict[int, tuple[Name, ...]]) -> None:
        """Let changes that were written be dropped from memory, unless they changed again meanwhile."""
        for number, raw in directories.items():
            del self._new_directories[number]
            self._paths.put(number, raw)
            self._ids.unpin(raw)
        for ino, names in changed.items():
            for one in names:
                self._store_name(*one)
            if self._changed.get(ino) is names:
                del self._changed[ino]
                self._names.unpin(ino)
                for name in names:
                    if self._inos.get(name) == ino:
                        self._inos.unpin(name)

    def _reserve(self) -> None:
        """Reserve sequence numbers ahead of their use."""
        with self._connections.write() as cx:
            (start,) = cx.execute("SELECT next FROM sequence").fetchone()
            cx.execute("UPDATE sequence SET next = ?", (start + _RESERVED,))
        with self._lock:
            # What is left of the last lot is given up: a store has 2^62.
            self._next, self._end = start, start + _RESERVED

    def _reserve_more(self) -> None:
        # Only when more were used than flush() had time to reserve; so this one caller waits for the disk, without the
        # lock, and must look again at what it asked for.
        self._lock.release()
        try:
            self._reserve()
        finally:
            self._lock.acquire()

    def _guard(self, action: Callable[[], _T]) -> _T:
        try:
            return action()
        except sqlite3.Error as error:
            raise translate(error, self._connections.path) from error


def _rows(changed: Iterable[tuple[int, tuple[Name, ...]]]) -> Iterable[tuple[int, bytes, int]]:
    return ((parent, name, ino) for ino, names in changed for parent, name in names)
