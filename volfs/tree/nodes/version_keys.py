"""``zarr/`` and ``files/`` of a version: every key a file, exactly as it was written.

Decided here: ordinals of keys. Those of chunks are computed from their coordinates, so that a directory of a million
chunks needs neither rows nor a listing to name one; any other file has its position in the directory's listing, which
in a version never changes. What keys there are is decided in :mod:`volfs.versions`; the same directories in a branch
are in :mod:`volfs.tree.nodes.branch_keys`.
"""

from __future__ import annotations

import errno
import os
import stat
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from operator import itemgetter

from volfs.errors import BadName, NotFound, VolfsError, WrongKind
from volfs.model.names import check_key
from volfs.tree.contract.api import DirEntry
from volfs.tree.contract.attrs import FOREVER, Attr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.layout_handle import StoredFileHandle
from volfs.tree.core.node import FIRST_COOKIE, Dir, Node
from volfs.tree.core.open_files import Handle, wants_writing
from volfs.versions.keys import NODE_JSON, node_path
from volfs.versions.snapshot import ArrayNode, KeyInfo, Snapshot

# Ranges of ordinals: positions in the listing, then chunks named c.0.1 by their place in the grid, then those named by
# a number. Kept once released: they are part of inodes.
_FLAT = 1 << 25
_NUMBERED = 1 << 26
_END = 1 << 27


class KeyDir(Dir):
    """A directory of keys in a version."""

    absence = FOREVER
    plain = True

    def __init__(
        self,
        context: TreeContext,
        ino: int,
        up: Dir,
        path: str,
        snapshot: Snapshot,
        key: str,
        info: KeyInfo | None = None,
    ) -> None:
        super().__init__(context, ino, up, path)
        self.snapshot = snapshot
        self.key = key
        self._info = info

    @property
    def cold(self) -> bool:
        """Directories that hold little besides numbered chunks are looked into name by name."""
        return not self._chunks_only and self._kept is None and self._flat is None

    def load(self) -> None:
        if self._kept is None:
            self.context.listings.put(self.ino, self.snapshot.list(self.key))

    @property
    def _kept(self) -> Sequence[tuple[str, KeyInfo]] | None:
        return self.context.listings.get(self.ino)

    def listing_cold(self, cookie: int) -> bool:
        return self._kept is None

    def load_listing(self, cookie: int) -> None:
        self.load()

    @property
    def listing(self) -> Sequence[tuple[str, KeyInfo]]:
        kept = self._kept
        if kept is None:
            kept = self.snapshot.list(self.key)
            self.context.listings.put(self.ino, kept)
        return kept

    @property
    def _chunks_only(self) -> bool:
        last = self.key.rpartition("/")[2]
        return last == "c" or last.isdecimal()

    @property
    def _flat(self) -> ArrayNode | None:
        """The array whose chunk files all lie here under dotted names, if it is one."""
        path = node_path(self.key)
        try:
            node = self.snapshot.node(path) if path is not None else None
        except VolfsError:
            return None
        return node if isinstance(node, ArrayNode) and node.meta.key_encoding[1] == "." else None

    # -- names ------------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Node | None:
        key = f"{self.key}/{name}"
        try:
            check_key(key)
        except BadName:
            return None
        info = self.snapshot.stat(key)
        return None if info is None else self._node(name, key, info)

    def _node(self, name: str, key: str, info: KeyInfo) -> Node | None:
        context = self.context
        if info.kind == "dir":
            path = f"{self.path}/{name}"
            return KeyDir(context, context.inodes.directory(path), self, path, self.snapshot, key, info)
        ordinal = self._ordinal(name)
        if ordinal is None:
            return None
        kind = KeyLink if info.is_link else KeyFile
        return kind(context, context.inodes.file(self.ino, ordinal), self, self.snapshot, key, info)

    def _ordinal(self, name: str) -> int | None:
        if name.isascii() and name.isdecimal() and (name == "0" or name[0] != "0") and len(name) < 9:
            number = int(name)
            if number < _END - _NUMBERED:
                return _NUMBERED + number
        if name == NODE_JSON:
            return _FLAT
        flat = self._flat
        coords = flat.meta.parse_chunk_key(name) if flat is not None else None
        if flat is not None and coords is not None and all(map(int.__lt__, coords, flat.meta.grid.grid_shape)):
            number = 0
            for index, count in zip(coords, flat.meta.grid.grid_shape, strict=True):
                number = number * count + index
            if number < _NUMBERED - _FLAT - 1:
                return _FLAT + 1 + number
        listing = self.listing
        at = bisect_left(listing, name, key=itemgetter(0))
        return at + 1 if at < min(len(listing), _FLAT - 1) and listing[at][0] == name else None

    def numbered(self, ordinal: int) -> Node | None:
        if ordinal >= _NUMBERED:
            return self._listed(str(ordinal - _NUMBERED))
        if ordinal == _FLAT:
            return self.find(NODE_JSON)
        if ordinal > _FLAT:
            flat = self._flat
            if flat is None:
                return None
            coords, number = [], ordinal - _FLAT - 1
            for count in reversed(flat.meta.grid.grid_shape):
                number, index = divmod(number, max(1, count))
                coords.append(index)
            return self.find(flat.meta.chunk_key(tuple(reversed(coords)))) if number == 0 else None
        listing = self.listing
        return self.find(listing[ordinal - 1][0]) if ordinal <= len(listing) else None

    def _listed(self, name: str) -> Node | None:
        """``find``, answered from the listing where that is in memory: clients list a directory and then open its
        files."""
        listing = self._kept
        if listing is None:
            return self.find(name)
        at = bisect_left(listing, name, key=itemgetter(0))
        found = at < len(listing) and listing[at][0] == name
        return self._node(name, f"{self.key}/{name}", listing[at][1]) if found else None

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        listing = self.listing
        for at in range(max(0, cookie - FIRST_COOKIE + 1), len(listing)):
            name, info = listing[at]
            node = self._node(name, f"{self.key}/{name}", info)
            if node is not None:
                yield DirEntry(os.fsencode(name), node.attr(), FIRST_COOKIE + at)

    def attr(self) -> Attr:
        if self._info is None:
            self._info = self.snapshot.stat(self.key)
        if self._info is None:
            raise NotFound(f"{self.key} does not exist in {self.snapshot.ref}")
        attr = self.directory_attr(self._info.mtime_ns, FOREVER)
        bits = self._info.mode
        return attr._replace(mode=stat.S_IFDIR | bits & 0o555) if bits else attr


class KeyFile(Node):
    """A key of a version."""

    def __init__(self, context: TreeContext, ino: int, up: Dir, snapshot: Snapshot, key: str, info: KeyInfo) -> None:
        super().__init__(context, ino, up)
        self._snapshot = snapshot
        self._key = key
        self._info = info

    def attr(self) -> Attr:
        info = self._info
        return self.context.file_attr(self.ino, info.size, info.mtime_ns, mode=self._mode, timeout=FOREVER)

    @property
    def _mode(self) -> int:
        """The permission bits with which the file was written, without those for writing."""
        return stat.S_IFREG | (self._info.mode & 0o555 or 0o444)

    async def open(self, flags: int) -> Handle:
        if flags & os.O_DIRECTORY:
            raise WrongKind(f"{self._key} is a file", errno=errno.ENOTDIR)
        if wants_writing(flags):
            raise await self.asked(self.refusal)
        return StoredFileHandle(self.context, self.ino, self.dataset, self._snapshot, self._key, self._info.size)


class KeyLink(KeyFile):
    """A key of a version that is a symbolic link."""

    @property
    def _mode(self) -> int:
        return stat.S_IFLNK | 0o777

    async def open(self, flags: int) -> Handle:
        raise WrongKind(f"{self._key} is a symbolic link", errno=errno.ELOOP)

    async def readlink(self) -> bytes:
        context, snapshot = self.context, self._snapshot
        return bytes(await context.in_time(lambda: context.fetch(self.dataset, lambda: snapshot.read(self._key))))
