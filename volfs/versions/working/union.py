"""The union that a branch shows: its layers over its base, as overlayfs would give it.

Decided here: the file at a key, and the names in a directory, given fixed layers over a fixed base. Not here: how a
layer writes things down (:mod:`volfs.versions.working.layer`), changing anything, and noticing that the layers or the
head have moved meanwhile (:mod:`volfs.versions.working.working_copy`: one look through a union is only right if they
have not).

The rules: the uppermost layer that has a key decides its kind. Directories merge downwards until a layer hides the key,
or has a file there. The base comes last.

Layers are looked into from the lowest to the uppermost: while two layers are merged, files move from one to the one
above it, and a reader that went down could miss them in both.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

from volfs.errors import NotFound, WrongKind
from volfs.storage.files import opened, pread_all
from volfs.versions.snapshot import KeyInfo, Listing, Snapshot
from volfs.versions.working.layer import BLOCKED, SPACES, Blocked, Change, Layer

_DIR_INFO = KeyInfo("dir", 0, 0)
_COPY_BYTES = 8 << 20
FOLDER_MODE = 0o755
"""Permission bits of directories of which a version says nothing."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or directory of a union.

    ``layer`` and ``st`` are those of the uppermost layer that has it; None if only the base does. ``below`` is
    the base's part: the file itself, or the lowest part of a merged directory. ``dirs`` are the layers
    that a directory is merged from. A symbolic link is a file.
    """

    kind: Literal["file", "dir"]
    layer: Layer | None
    st: os.stat_result | None
    below: KeyInfo | None
    dirs: tuple[Layer, ...] = ()

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.st.st_mode) if self.st is not None else self.below is not None and self.below.is_link

    @property
    def info(self) -> KeyInfo:
        if self.kind == "file":
            if self.st is None:
                assert self.below is not None
                return self.below
            return KeyInfo.of(self.st)
        # The layer's own directory has the time: it is made, or touched, when a name is removed that only lies below.
        if self.st is not None:
            return KeyInfo.of(self.st)
        assert self.below is not None
        return self.below


@dataclass(frozen=True, slots=True)
class Union:
    """Layers, uppermost first, over a snapshot (None: nothing is committed yet).

    ``stamp`` is equal for unions of the same layers only, if they may move; None for layers that never do.
    """

    layers: tuple[Layer, ...]
    lower: Snapshot | None
    stamp: Hashable = None

    @property
    def base_number(self) -> int:
        """The number of the version below; 0 if there is none."""
        base = None if self.lower is None else self.lower.base
        return 0 if base is None else base.number

    def entry(self, key: str) -> Entry | None:
        """The file or directory at ``key``; None if there is none."""
        first: os.stat_result | None = None
        dirs: list[Layer] = []
        below: KeyInfo | None = None
        for layer, (found, ends) in zip(self.layers, self._looks(key), strict=True):
            if isinstance(found, os.stat_result):
                if not stat.S_ISDIR(found.st_mode):
                    if dirs:
                        break
                    return Entry("file", layer, found, None)
                first = first or found
                dirs.append(layer)
            if ends:
                break
        else:
            below = self.lower.stat(key) if self.lower is not None else None
            if below is not None and below.kind == "file":
                if not dirs:
                    return Entry("file", None, None, below)
                below = None
        if not dirs and below is None:
            return Entry("dir", None, None, _DIR_INFO) if key in SPACES or not key else None
        return Entry("dir", dirs[0] if dirs else None, first, below, tuple(dirs))

    def existing(self, key: str) -> Entry:
        """The file or directory at ``key``. Raises NotFound."""
        entry = self.entry(key)
        if entry is None:
            raise NotFound(f"{key} does not exist")
        return entry

    def stat(self, key: str) -> KeyInfo | None:
        """Kind, size and times at ``key``; None if nothing is there."""
        entry = self.entry(key)
        return None if entry is None else entry.info

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file, or the target of a symbolic link; short at its end. Raises NotFound, WrongKind, Damaged."""
        entry = self.existing(key)
        if entry.kind == "dir":
            raise WrongKind(f"{key} is a directory", errno=errno.EISDIR)
        if entry.layer is None:
            assert self.lower is not None
            return self.lower.read(key, offset, length)
        return _read(entry.layer, key, entry.is_link, offset, length)

    def pieces(self, key: str, entry: Entry) -> Iterator[bytes]:
        """The bytes of a file, a few MiB at a time."""
        if entry.layer is None:
            assert self.lower is not None
            size = entry.info.size
            for offset in range(0, size, _COPY_BYTES):
                yield self.lower.read(key, offset, min(_COPY_BYTES, size - offset))
        elif entry.is_link:
            yield _read(entry.layer, key, True, 0, None)
        else:
            with opened(entry.layer.path(key)) as fd:
                while piece := os.read(fd, _COPY_BYTES):
                    yield piece

    def _looks(self, key: str) -> list[tuple[os.stat_result | Blocked | None, bool]]:
        """The answers of :meth:`Layer.look`, the uppermost layer's first."""
        return [layer.look(key) for layer in reversed(self.layers)][::-1]

    def beneath(self, layer: Layer) -> Union:
        """The union of everything below a layer, its own whiteouts left out."""
        return Union(self.layers[self.layers.index(layer) + 1 :], self.lower)

    def shows_base(self, key: str) -> bool:
        """True if no layer hides the base at ``key``."""
        for found, ends in self._looks(key):
            if ends or (isinstance(found, os.stat_result) and not stat.S_ISDIR(found.st_mode)):
                return False
        return self.lower is not None

    def names(self, key: str) -> dict[str, Layer | KeyInfo]:
        """Names in directory ``key``, each with the uppermost layer that has it, or the base's facts.

        Raises NotFound, or WrongKind for a file.
        """
        entry = self.existing(key)
        if entry.kind == "file":
            raise WrongKind(f"{key} is a file")
        found: dict[str, Layer | KeyInfo] = {}
        hidden: set[str] = set()
        for layer, (names, gone, ends) in zip(self.layers, self._names(key), strict=True):
            for name in names:
                if name not in hidden:
                    found.setdefault(name, layer)
            hidden |= gone
            if ends:
                break
        if entry.below is not None and entry.below is not _DIR_INFO and self.lower is not None:
            for name, info in self.lower.list(key):
                if name not in hidden:
                    found.setdefault(name, info)
        return found

    def _names(self, key: str) -> list[tuple[set[str], set[str], bool]]:
        """For each layer, the uppermost first: its own names in directory ``key``, the names that it hides, and True if
        it hides all of the layers below there."""
        rows = []
        for layer in reversed(self.layers):
            there, ends = layer.look(key)
            names = set(layer.names(key))
            gone = set() if ends else layer.hidden_in(key)
            if not gone <= names:
                # A file may have come since its name was looked for, with a whiteout for its time.
                names |= gone.intersection(layer.names(key))
            is_file = isinstance(there, os.stat_result) and not stat.S_ISDIR(there.st_mode)
            rows.append((names, gone, ends or is_file))
        return rows[::-1]

    def list(self, key: str) -> Listing:
        """The entries of a directory, sorted by name. Raises NotFound, or WrongKind for a file."""
        if not key:
            return [(space, self.entry(space).info) for space in sorted(SPACES)]  # type: ignore[union-attr]
        listing = []
        for name, where in sorted(self.names(key).items(), key=itemgetter(0)):
            if isinstance(where, KeyInfo):
                listing.append((name, where))
            elif (entry := self.entry(f"{key}/{name}")) is not None:
                listing.append((name, entry.info))
        return listing

    def is_empty(self, key: str) -> bool:
        """Whether a directory has no entries."""
        return not self.names(key)

    def keys(self, prefix: str) -> Iterator[str]:
        """Every file at and below ``prefix``, sorted within each directory; none if it does not exist."""
        entry = self.entry(prefix)
        if entry is None:
            return
        if entry.kind == "file":
            yield prefix
            return
        try:
            listing = self.list(prefix)
        except NotFound:
            return
        for name, info in listing:
            key = f"{prefix}/{name}" if prefix else name
            if info.kind == "file":
                yield key
            else:
                yield from self.keys(key)

    def folder_modes(self) -> Iterator[tuple[str, int]]:
        """Directories of side files with other permission bits than in the base. Empty ones do not count: they
        are no part of a version."""
        for folder in sorted({folder for layer in self.layers for folder in layer.folders("files")}):
            entry = self.entry(folder)
            if entry is None or entry.st is None or entry.kind != "dir":
                continue
            before = self.lower.stat(folder) if self.lower is not None and self.shows_base(folder) else None
            was = before.mode if before is not None and before.kind == "dir" else 0
            now = stat.S_IMODE(entry.st.st_mode)
            if now != (was or FOLDER_MODE) and next(self.keys(folder), None) is not None:
                yield folder, now

    def changes(self, prefix: str = "") -> Iterator[Change]:
        """The differences from the base, as a commit takes them: keys put, and keys removed.

        A removal stands for all that the base has at and below its key, and is left out if that is nothing.
        Within a layer removals come before the files of the same place, so a removal and then puts below it mean a
        directory that was made anew. A file that is put over a file of the same key counts as put only.
        """
        for index, layer in enumerate(self.layers):
            above = self.layers[:index]
            for change in layer.changes(prefix):
                if any(_covers(upper, change.key, change.kind) for upper in above):
                    continue
                if change.kind == "removed":
                    gone = self.lower.stat(change.key) if self.lower is not None else None
                    if gone is None:
                        continue
                    if gone.kind == "file":
                        entry = self.entry(change.key)
                        if entry is not None and entry.kind == "file":
                            continue
                yield change


def _covers(upper: Layer, key: str, kind: str) -> bool:
    """Whether a layer above makes a change of a lower layer moot."""
    found = upper.stat(key)
    if found is BLOCKED or upper.hides(key):
        return True
    return kind == "put" and isinstance(found, os.stat_result)


def _read(layer: Layer, key: str, is_link: bool, offset: int, length: int | None) -> bytes:
    if is_link:
        target = os.fsencode(os.readlink(layer.path(key)))
        return target[offset:] if length is None else target[offset : offset + length]
    fd = layer.open(key)
    try:
        return pread_all(fd, max(0, os.fstat(fd).st_size - offset) if length is None else length, offset)
    finally:
        os.close(fd)
