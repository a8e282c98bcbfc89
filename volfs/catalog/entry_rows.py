"""Indexing the names that a version changed: directories come and go with the names in them.

Decided here: the meaning of a manifest's key records as a set of changes to the first parent's names.

- Removals of subtrees come first, then removals of keys, then puts, in whatever order the records lie.
- Directories are implicit: putting a key makes them, and the last name or chunk to go takes them along.
- Permission bits of a directory are noted once all names are put. A directory that was removed forgets its own.
- A key put where a directory is replaces it; a key put below an object turns that object into a directory.
- Removing an array's ``zarr.json`` without putting it again ends the array: its chunks are gone, and never come back
  when another array is made there. What else lies in the directory stays: it is carried into a new incarnation.

Not decided here: chunk records (:mod:`.index_blocks`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from volfs.catalog import dirs, entries
from volfs.catalog.entries import DIRECTORY, OBJECT, REMOVED, EntryRow
from volfs.catalog.lineages import ENTRIES, note_lineage
from volfs.catalog.sums import entry_sum
from volfs.catalog.values import NodeShape
from volfs.errors import BadInput
from volfs.model.graph import At

ZARR_JSON = b"zarr.json"

_INSERT = (
    "INSERT INTO entry (dir, name, lineage, position, version, kind, child, file, offset, length, crc32c, mode,"
    " mtime_ns, sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

Path = tuple[bytes, ...]
Stored = tuple[int, int, int, int, int, int]
"""file, offset, length, crc32c, mode, mtime_ns."""
_NOTHING: Stored = (0, 0, 0, 0, 0, 0)


class NameEditor:
    """The names that a new version changes, on top of those that its first parent sees."""

    def __init__(
        self, cx: sqlite3.Connection, *, dataset: int, root: int, parent: At, lineage: int, position: int, number: int
    ) -> None:
        self._cx = cx
        self._dataset = dataset
        self._parent = parent
        self._lineage = lineage
        self._position = position
        self._number = number
        # (directory, name) -> (version, kind, child, payload): what this version writes.
        self._pending: dict[int, dict[bytes, tuple[int, int, int, Stored]]] = {}
        self._dirs: dict[Path, int | None] = {(): root}
        self._paths: dict[int, Path] = {root: ()}
        self._new: set[int] = set()
        self._lost: set[int] = set()

    # --- changes, in the order in which they must be made ---

    def remove_subtrees(self, keys: Iterable[Path]) -> None:
        """Remove keys with all below them."""
        # Parents first: what lies below a removed directory is found to be gone already.
        for key in sorted(keys, key=len):
            directory = self.directory(key[:-1])
            if directory is not None and self._find(directory, key[-1]) is not None:
                self._set(directory, key[-1], REMOVED)
                self._dirs[key] = None

    def remove(self, keys: Iterable[Path]) -> None:
        """Remove single keys. A key that is not there, or is a directory, is left alone."""
        for key in keys:
            directory = self.directory(key[:-1])
            if directory is None:
                continue
            found = self._find(directory, key[-1])
            if found is not None and found[1] == OBJECT:
                self._set(directory, key[-1], REMOVED)

    def end_array(self, path: Path) -> None:
        """Give a directory that was an array a new incarnation, with the same names and no chunks."""
        old = self.directory(path)
        if old is None or self.shape(old) is None:
            return
        new = self._create(path)
        for name, row in entries.listing(self._cx, old, self._parent):
            self._pending.setdefault(new, {})[name] = (row.version, row.kind, row.child, _stored(row))
        for name, change in self._pending.pop(old, {}).items():
            if change[1] == REMOVED:
                self._pending.setdefault(new, {}).pop(name, None)
            else:
                self._pending.setdefault(new, {})[name] = change
        self._set(self._dirs_required(path[:-1]), path[-1], DIRECTORY, child=new)
        self._lost.add(new)

    def put(self, key: Path, stored: Stored) -> None:
        """Put a key, making the directories above it."""
        above = self.make_directory(key[:-1])
        if key not in self._dirs:
            self._dirs[key] = None
        elif self._dirs[key] is not None:
            self._replace(key)
        self._set(above, key[-1], OBJECT, stored=stored)

    def _replace(self, key: Path) -> None:
        """A key takes the place of a directory."""
        if self._dirs[key] in self._new:
            raise BadInput(f"{_text(key)} is put as a key and as a directory")
        for path in [path for path in self._dirs if path[: len(key)] == key]:
            del self._dirs[path]
        self._dirs[key] = None

    def make_directory(self, path: Path) -> int:
        """The directory at a path, made if need be."""
        found = self._dirs.get(path)
        if found is not None:
            return found
        above = self.make_directory(path[:-1])
        there = self._find(above, path[-1])
        if there is not None and there[1] == DIRECTORY:
            self._know(path, there[2])
            return there[2]
        if there is not None and path in self._dirs and path[-1] in self._pending.get(above, {}):
            raise BadInput(f"{_text(path)} is put as a key and as a directory")
        directory = self._create(path)
        self._set(above, path[-1], DIRECTORY, child=directory)
        return directory

    def set_mode(self, path: Path, mode: int) -> None:
        """Note the permission bits of a directory. One that is not there has none."""
        above = self.directory(path[:-1])
        found = self._find(above, path[-1]) if above is not None else None
        if above is not None and found is not None and found[1] == DIRECTORY:
            self._set(above, path[-1], DIRECTORY, child=found[2], stored=(0, 0, 0, 0, mode, 0))

    def drop_empty(self) -> None:
        """Take along the directories that have lost their last name, and those above them."""
        while self._lost:
            directory = max(self._lost, key=lambda one: len(self._paths[one]))
            self._lost.discard(directory)
            path = self._paths[directory]
            if not path or self._dirs.get(path) != directory:
                continue
            pending = {name: change[1] != REMOVED for name, change in self._pending.get(directory, {}).items()}
            above = self.directory(path[:-1])
            if above is not None and entries.is_empty(self._cx, directory, self._parent, pending):
                self._dirs[path] = None
                self._set(above, path[-1], REMOVED)

    def write(self) -> None:
        """Insert the rows."""
        rows = []
        for directory, names in self._pending.items():
            fresh = directory in self._new
            for name, (version, kind, child, stored) in names.items():
                if fresh:
                    if kind == REMOVED:
                        continue
                elif not self._note(directory, name, kind):
                    continue
                columns = (self._lineage, self._position, version, kind, child, *stored)
                rows.append((directory, name, *columns, entry_sum(directory, name, columns)))
        rows.sort(key=lambda row: row[:2])
        self._cx.executemany(_INSERT, rows)

    # --- what is there ---

    def directory(self, path: Path) -> int | None:
        """The directory at a path as of now, None if there is none."""
        if path in self._dirs:
            return self._dirs[path]
        above = self.directory(path[:-1])
        found = self._find(above, path[-1]) if above is not None else None
        child = found[2] if found is not None and found[1] == DIRECTORY else None
        if child is not None:
            self._know(path, child)
        return child

    def is_new(self, directory: int) -> bool:
        """Whether this version makes the directory: nothing in it has a history."""
        return directory in self._new

    def shape(self, directory: int) -> NodeShape | None:
        found = dirs.find(self._cx, directory)
        return found.shape if found is not None else None

    def set_shape(self, path: Path, shape: NodeShape) -> int:
        """Make the directory an array's. A shape that it has already stays, unless its rank is another."""
        directory = self.make_directory(path)
        known = self.shape(directory)
        if known is not None and known.ndim != shape.ndim:
            self.end_array(path)
            directory = self.make_directory(path)
            known = None
        if known is None:
            packed = b"".join(n.to_bytes(4, "big") for n in shape.block_shape)
            dirs.set_block_shape(self._cx, directory, packed)
        return directory

    def _find(self, directory: int, name: bytes) -> tuple[int, int, int, Stored] | None:
        change = self._pending.get(directory, {}).get(name)
        if change is not None:
            return change if change[1] != REMOVED else None
        if directory in self._new:
            return None
        row = entries.find(self._cx, directory, name, self._parent)
        return (row.version, row.kind, row.child, _stored(row)) if row is not None else None

    def _set(self, directory: int, name: bytes, kind: int, *, child: int = 0, stored: Stored = _NOTHING) -> None:
        self._pending.setdefault(directory, {})[name] = (self._number, kind, child, stored)
        if kind == REMOVED:
            self._lost.add(directory)

    def _create(self, path: Path) -> int:
        above = self._dirs_required(path[:-1])
        made = dirs.add(self._cx, self._dataset, above, path[-1], self._number)
        self._new.add(made)
        self._know(path, made)
        return made

    def _know(self, path: Path, directory: int) -> None:
        self._dirs[path] = directory
        self._paths[directory] = path

    def _dirs_required(self, path: Path) -> int:
        found = self.directory(path)
        assert found is not None
        return found

    def _note(self, directory: int, name: bytes, kind: int) -> bool:
        """Keep the name's list of lineages. False if there is nothing to remove, and no row to write."""
        newest = self._cx.execute(
            "SELECT lineage FROM entry WHERE dir = ? AND name = ? ORDER BY lineage DESC, position DESC LIMIT 1",
            (directory, name),
        ).fetchone()
        if newest is None:
            return kind != REMOVED
        if newest[0] != self._lineage:
            note_lineage(self._cx, ENTRIES, (directory, name), self._lineage, self._position)
        return True


def _stored(row: EntryRow) -> Stored:
    return row.file, row.offset, row.length, row.crc32c, row.mode, row.mtime_ns


def _text(path: Path) -> str:
    return "/".join(map(entries.decode, path))
