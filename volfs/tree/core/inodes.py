"""Inodes of the tree: how a node gets its number, and how a number leads back to a path.

Decided here: which path a directory's inode is derived from, and what is remembered in memory only. Not here: the
numbers themselves, and keeping them for the life of the store (:mod:`volfs.catalog.inode_table`).

A directory's inode is derived from its mount path, with one addition: a dataset's name is followed by ``@`` and the
time it was created. A dataset that was removed and imported anew under the same name is then another directory, with
other inodes all the way down, so nothing that a kernel or an NFS client keeps of the first one can be taken for the
second. Ordinals of files are computed by the directory's kind. Names in a branch's union directories, and temporary
names among slices, have allocated inodes, which follow a rename.

Remembered only until the kernel forgets them: *aliases* (a temporary file renamed over a slice: its inode goes on as
one of the slice). Until they are closed: *orphans* (unlinked, but still open).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from volfs.catalog import InodeTable
from volfs.errors import VolfsError
from volfs.model.bounded_map import Usage
from volfs.storage.reserve import Reserve
from volfs.tree.core.ports import Orphan
from volfs.versions.onlooker import inode_place
from volfs.versions.store import Store


class Inodes:
    """The numbers of one mounted store. Used on the tree's thread, except for :meth:`directory` and :meth:`name`."""

    def __init__(self, table: InodeTable, reserve: Reserve, scratch: str | None = None) -> None:
        self._table = table
        self._reserve = reserve
        self._scratch = scratch
        self.aliases: dict[int, int] = {}
        self.orphans: dict[int, Orphan] = {}

    @classmethod
    def of(cls, store: Store) -> Inodes:
        """The inodes of a store. Where nothing can be written they live as long as the mount: the derived ones, which
        are all that a store at rest has, are the same again the next time."""
        try:
            return cls(store.reserve.freeing(lambda: InodeTable.open(inode_place(store))), store.reserve)
        except (VolfsError, OSError):
            if not store.read_only:
                raise
            scratch = tempfile.mkdtemp(prefix="volfs-inodes-")
            return cls(InodeTable.open(Path(scratch, store.catalog_path.name)), store.reserve, scratch)

    @property
    def statements(self) -> int:
        """The number of SQL statements run on the table."""
        return self._table.statements

    def usage(self) -> Usage:
        """The number of inodes and names in memory."""
        return self._table.usage(len(self.aliases) + len(self.orphans))

    # -- derived ----------------------------------------------------------------------------------------------------

    def directory(self, path: str) -> int:
        """The inode of a directory, or of a link with a name of its own, from its path."""
        return self._table.directory(path)

    def path(self, ino: int) -> str | None:
        """The path of a derived directory; None if no such one was ever handed out."""
        return self._table.directory_path(ino)

    @staticmethod
    def file(directory: int, ordinal: int) -> int:
        """The inode of the file with an ordinal ≥ 1 in a derived directory."""
        return InodeTable.file(directory, ordinal)

    @staticmethod
    def split(ino: int) -> tuple[int, int]:
        """(directory, ordinal) of a derived inode; ordinal 0 is the directory itself."""
        return InodeTable.split(ino)

    @staticmethod
    def is_allocated(ino: int) -> bool:
        return InodeTable.is_allocated(ino)

    # -- allocated --------------------------------------------------------------------------------------------------

    def name(self, parent: int, name: str) -> int:
        """The inode of a name that exists in a union directory; allocated when it is first asked for."""
        return self._table.allocate(parent, os.fsencode(name))

    def where(self, ino: int) -> tuple[int, str] | None:
        """(parent, name) of an allocated inode."""
        found = self._table.where(ino)
        return None if found is None else (found[0], os.fsdecode(found[1]))

    def links(self, ino: int) -> int:
        """The number of names of an allocated inode."""
        return self._table.links(ino)

    def moved(self, ino: int, old: tuple[int, str], new: tuple[int, str]) -> None:
        """Record that a file was renamed, over whatever had the new name. Pairs of (parent, name)."""
        self._table.rename(ino, new[0], os.fsencode(new[1]), old=(old[0], os.fsencode(old[1])))

    def exchanged(self, one: tuple[int, str], other: tuple[int, str]) -> None:
        """Record that two names exchanged their files. Pairs of (parent, name)."""
        first, second = ((parent, os.fsencode(name)) for parent, name in (one, other))
        self._table.exchange(self._table.allocate(*first), self._table.allocate(*second), (first, second))

    def linked(self, ino: int, parent: int, name: str) -> None:
        """Record that a file has one more name."""
        self._table.link(ino, parent, os.fsencode(name))

    def removed(self, parent: int, name: str) -> None:
        """Record that a name was removed; an inode without any other name is gone with it."""
        self._table.unlink(parent, os.fsencode(name))

    # -- the file they are kept in ----------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write new inodes to the table. Blocks: call it in a thread, every second or so."""
        self._table.flush()

    def close(self) -> None:
        """Write new inodes, and close the table."""
        self._reserve.freeing(self._table.flush)
        self._table.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    # -- what lives until forgotten ---------------------------------------------------------------------------------

    def actual(self, ino: int) -> int:
        """The inode itself, or the one of which it has become an alias."""
        return self.aliases.get(ino, ino)

    def forget(self, inodes: Sequence[tuple[int, int]]) -> None:
        """Drop aliases that the kernel has forgotten. Pairs of (inode, number of lookups).

        Orphans go when they are closed: the kernel forgets late, and an inode may have been looked up and opened anew
        before it says so.
        """
        for ino, _ in inodes:
            self.aliases.pop(ino, None)
