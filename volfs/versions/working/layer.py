"""One layer of a working copy on disk: keys that were put, and whiteouts for keys that were removed.

Decided here: how a removal is written down, and what a layer hides. Not here: how layers lie over each other and over
the base (:mod:`volfs.versions.working.union`), when layers are frozen and merged
(:mod:`volfs.versions.working.layer_moves`), and the operations on keys (:mod:`volfs.versions.working.working_copy`).

A layer is a directory with ``zarr/``, ``files/`` and ``removed/``. A key that was put is a file or directory under its
own name. A *whiteout*, an empty file ``removed/KEY``, hides KEY and all that is below it in the layers underneath; its
mtime is the time of the removal. A whiteout together with a directory KEY is an opaque directory: a new one that hides
an older one of that name. Together with a file KEY it hides nothing that the file does not, and its time is when
the key last changed where the file's own times do not (it was renamed or its times were set back). Under a whiteout
there are no others, so one ``lstat`` answers whether a layer hides a key: ENOTDIR, or a file, means that it does.

Side files may be symbolic links. None is ever followed, neither those that clients made nor others: files behind a
link are not in the layer (:meth:`Layer.stat`), and nothing but a regular file is opened.

The file ``discarded`` beside the three directories has a line for every discard of a part of the changes: key and time.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from volfs.storage.files import (
    fsync_dir,
    make_file,
    open_below,
    open_regular,
    opened,
    read_file,
    write_all,
    write_atomic,
)
from volfs.storage.store_layout import WorkingLayout, parse_frozen_dir

SPACES: Final = ("zarr", "files")
"""The two key spaces: directories that always exist and are never hidden."""

TOP: Final = "top"
SCRATCH: Final = "tmp"
"""Where files and layers are prepared and thrown away, beside the layers; emptied whenever a writer takes over."""

RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
_AT_FDCWD: Final = -100
_DISCARDED: Final = "discarded"
_FOLDERS_KEPT: Final = 65536
"""Directories of a layer that are remembered to be some."""


@dataclass(frozen=True, slots=True)
class Change:
    """A key that a layer puts or removes. ``path`` is the file on disk: the new bytes, or the whiteout.

    ``changed_ns`` is when that happened: a file's mtime can be set back, its ctime and its whiteout's time cannot.
    """

    key: str
    kind: Literal["put", "removed"]
    size: int
    mtime_ns: int
    changed_ns: int
    ctime_ns: int
    ino: int
    path: str
    mode: int

    @classmethod
    def of(cls, key: str, kind: Literal["put", "removed"], found: os.stat_result, path: str) -> Change:
        """The change that a file is: of the key's own bytes, or a whiteout."""
        mtime = found.st_mtime_ns
        if kind == "removed":
            return cls(key, kind, 0, mtime, mtime, mtime, found.st_ino, path, found.st_mode)
        ctime = found.st_ctime_ns
        return cls(key, kind, found.st_size, mtime, max(mtime, ctime), ctime, found.st_ino, path, found.st_mode)


class Blocked:
    """Answer of :meth:`Layer.stat` where an ancestor of the key is a file: nothing below can show through."""


BLOCKED: Final = Blocked()


class Layer:
    """One layer. Paths are plain strings: this is the innermost loop of every operation on a branch."""

    __slots__ = ("_folders", "name", "root")

    def __init__(self, root: str) -> None:
        self.root = root
        self.name = root.rpartition("/")[2]
        #: Directories that were found to be some, and not links to others: see :meth:`_lstat`.
        self._folders: set[str] = {""}

    def __repr__(self) -> str:
        return f"Layer({self.root!r})"

    @property
    def frozen(self) -> int | None:
        """The version as which this layer is being committed; None for the top."""
        return parse_frozen_dir(self.name)

    def path(self, key: str) -> str:
        """Where a key that was put lies."""
        return f"{self.root}/{key}"

    def whiteout_path(self, key: str) -> str:
        """Where the whiteout of a key lies."""
        return f"{self.root}/removed/{key}"

    def stat(self, key: str) -> os.stat_result | Blocked | None:
        """The stat of this layer's own file or directory at ``key``. A link above it blocks it, like any file."""
        return self._lstat(key)

    def _lstat(self, path: str) -> os.stat_result | Blocked | None:
        """lstat(2) of a path in the layer that follows no link anywhere.

        Directories on the way are looked at once, as long as none is removed (:meth:`forget_folders`): what is absent
        is found absent with no more calls than one lstat, or earlier.
        """
        folder, folders = path.rpartition("/")[0], self._folders
        if folder not in folders:
            above = self._lstat(folder)
            if not isinstance(above, os.stat_result):
                return above
            if not stat.S_ISDIR(above.st_mode):
                return BLOCKED
            if len(folders) > _FOLDERS_KEPT:
                self.forget_folders()
            folders.add(folder)
        try:
            return os.lstat(f"{self.root}/{path}")
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            return BLOCKED

    def open(self, key: str) -> int:
        """Open a file that was put, for reading. Of side files, among which there may be links, each directory on the
        way is opened by itself."""
        return open_below(self.root, key) if key.startswith("files/") else open_regular(self.path(key))

    def forget_folders(self) -> None:
        """Directories may be something else now."""
        self._folders = {""}

    def hides(self, key: str) -> bool:
        """True if this layer hides the layers below at ``key``."""
        found = self._lstat(f"removed/{key}")
        if isinstance(found, os.stat_result):
            return not stat.S_ISDIR(found.st_mode)
        return found is BLOCKED

    def look(self, key: str) -> tuple[os.stat_result | Blocked | None, bool]:
        """This layer's answer at ``key``, and True if it hides the layers below there."""
        found = self.stat(key)
        if isinstance(found, os.stat_result) and not stat.S_ISDIR(found.st_mode):
            return found, True  # a file hides what is below, whiteout or not
        ends = found is BLOCKED or self.hides(key)
        if ends and found is None:
            # It may have come since, with a whiteout for its time: not a removal.
            found = self.stat(key)
        return found, ends

    def names(self, key: str) -> list[str]:
        """The names that this layer itself has in directory ``key``."""
        return self._listdir(key)

    def _listdir(self, path: str) -> list[str]:
        found = self._lstat(path)
        if not isinstance(found, os.stat_result) or not stat.S_ISDIR(found.st_mode):
            return []
        try:
            return os.listdir(f"{self.root}/{path}")
        except (FileNotFoundError, NotADirectoryError):
            return []

    def own_time(self, key: str) -> int:
        """The time of the whiteout of exactly ``key`` (ns); 0 if it has none."""
        found = self._lstat(f"removed/{key}")
        return found.st_mtime_ns if isinstance(found, os.stat_result) and not stat.S_ISDIR(found.st_mode) else 0

    def removal_time(self, key: str) -> int | None:
        """When the whiteout that hides ``key``, on it or on an ancestor, was made (ns)."""
        while key:
            found = self._lstat(f"removed/{key}")
            if isinstance(found, os.stat_result):
                return None if stat.S_ISDIR(found.st_mode) else found.st_mtime_ns
            key = key.rpartition("/")[0]
        return None

    def hidden_in(self, key: str) -> set[str]:
        """Names in directory ``key`` of the layers below that this layer hides one by one."""
        found = self._lstat(f"removed/{key}")
        if not isinstance(found, os.stat_result) or not stat.S_ISDIR(found.st_mode):
            return set()
        try:
            with os.scandir(f"{self.root}/removed/{key}") as entries:
                return {entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def hide(self, key: str, scratch: str, *, time_ns: int | None = None) -> None:
        """Make, or renew, the whiteout of ``key``, with a time (None: now). Takes effect atomically.

        Smaller whiteouts below ``key`` are removed, as they become needless. A key under another whiteout needs none.
        """
        path = self.whiteout_path(key)
        if not self._make_room(path):
            return
        try:
            make_file(path)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                exchange_for_file(path, scratch)
        now = time.time_ns() if time_ns is None else time_ns
        os.utime(path, ns=(now, now))

    def note_discard(self, key: str, time_ns: int) -> None:
        """Write down that the changes at and below ``key`` were thrown away."""
        with opened(f"{self.root}/{_DISCARDED}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) as lines:
            write_all(lines, json.dumps([key, time_ns]).encode() + b"\n")

    def discards(self) -> list[tuple[str, int]]:
        """(key, time) of the discards written down. A line that was cut short by a crash does not count."""
        found: list[tuple[str, int]] = []
        try:
            lines = read_file(f"{self.root}/{_DISCARDED}").decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return found
        for line in lines:
            with suppress(ValueError, TypeError):
                key, time_ns = json.loads(line)
                found.append((str(key), int(time_ns)))
        return found

    def forget_discards(self) -> None:
        """Remove the record of discards: all changes are gone."""
        Path(self.root, _DISCARDED).unlink(missing_ok=True)

    def _make_room(self, path: str) -> bool:
        """Make the directories that a whiteout lies in; False if one of them is a whiteout itself."""
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            return False
        return True

    def changes(self, prefix: str = "") -> Iterator[Change]:
        """Everything this layer itself removes and puts at and below ``prefix``: removals first, then files, sorted.

        A key that is both (a whiteout under a new file or directory) comes twice. Directories are no changes.
        """
        yield from self.whiteouts(prefix)
        yield from self.puts(prefix)

    def whiteouts(self, prefix: str = "") -> Iterator[Change]:
        """The removals at and below ``prefix``, sorted."""
        for space in SPACES if not prefix else (prefix,):
            if isinstance(self._lstat(f"removed/{space}"), os.stat_result):
                yield from _walk(self.whiteout_path(space), space, "removed")

    def puts(self, prefix: str = "") -> Iterator[Change]:
        """The files at and below ``prefix``, sorted."""
        for space in SPACES if not prefix else (prefix,):
            if isinstance(self.stat(space), os.stat_result):
                yield from _walk(self.path(space), space, "put")

    def folders(self, key: str) -> Iterator[str]:
        """The directories below directory ``key`` that this layer itself has."""
        for name in self.names(key):
            found = self.stat(f"{key}/{name}")
            if isinstance(found, os.stat_result) and stat.S_ISDIR(found.st_mode):
                yield f"{key}/{name}"
                yield from self.folders(f"{key}/{name}")

    def empty(self) -> bool:
        """Whether there is nothing in this layer, no empty directory either."""
        return not any(
            os.path.isdir(path) and os.listdir(path)
            for space in SPACES
            for path in (self.path(space), self.whiteout_path(space))
        )


def _walk(path: str, key: str, kind: Literal["put", "removed"]) -> Iterator[Change]:
    try:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode):
            yield Change.of(key, kind, found, path)
            return
        names = sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        yield from _walk(f"{path}/{name}", f"{key}/{name}", kind)


# -- the directories of one working copy ------------------------------------------------------------------------------


def layers_of(layout: WorkingLayout) -> tuple[Layer, ...]:
    """The layers there are now, uppermost first. Between two steps of a freeze there is no top."""
    root = str(layout.root)
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return ()
    frozen = sorted((n for n in names if parse_frozen_dir(n) is not None), reverse=True)
    return tuple(Layer(f"{root}/{name}") for name in (*([TOP] if TOP in names else []), *frozen))


def scratch_dir(layout: WorkingLayout) -> str:
    """Where to prepare a file or layer before it is renamed into place."""
    return f"{layout.root}/{SCRATCH}"


def make_layer(layout: WorkingLayout) -> str:
    """Prepare an empty layer in the scratch directory; returns its path."""
    path = scratch_name(layout)
    for part in (*SPACES, *(f"removed/{space}" for space in SPACES)):
        os.makedirs(f"{path}/{part}")
    # A rename makes the layer durable by its name; what it starts with must be so before.
    fsync_dir(Path(path, "removed"))
    fsync_dir(Path(path))
    return path


def scratch_name(layout: WorkingLayout) -> str:
    """A new name in the scratch directory."""
    return f"{layout.root}/{SCRATCH}/{secrets.token_hex(8)}"


def exchange(one: str, other: str) -> None:
    """Swap two files or directories, in one step where the disk can."""
    if not _renameat2(one, other, RENAME_EXCHANGE):
        aside = f"{one}.aside"
        os.rename(other, aside)
        os.rename(one, other)
        os.rename(aside, one)


def exchange_for_file(folder: str, scratch: str) -> None:
    """Put an empty file in the place of a directory, in one step, and delete the directory."""
    aside = f"{scratch}/{secrets.token_hex(8)}"
    make_file(aside)
    if not _renameat2(aside, folder, RENAME_EXCHANGE):
        # No exchange on this disk: two steps. What is between them on a crash is written into the name of the
        # directory's grave, see layer_moves.settle_scratch.
        grave = f"{scratch}/hide-{secrets.token_hex(8)}"
        write_atomic(Path(f"{grave}.path"), os.fsencode(os.path.relpath(folder, scratch)))
        os.rename(folder, grave)
        os.rename(aside, folder)
        os.unlink(f"{grave}.path")
        aside = grave
    delete_tree(aside)


def delete_tree(path: str) -> None:
    """Remove a file or a directory with all below it. One that does not exist is fine."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        with suppress(FileNotFoundError):
            os.unlink(path)
        return
    with suppress(FileNotFoundError):
        for name in os.listdir(path):
            delete_tree(f"{path}/{name}")
        os.rmdir(path)


def _renameat2(source: str, target: str, flags: int) -> bool:
    """renameat2(2); False where the kernel or the filesystem does not know the flag."""
    if _libc_renameat2 is None:
        return False
    if _libc_renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), source, None, target)


_libc_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
if _libc_renameat2 is not None:
    _libc_renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    _libc_renameat2.restype = ctypes.c_int
