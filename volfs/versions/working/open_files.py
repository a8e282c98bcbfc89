"""Open files of a working copy.

Decided here: the bytes that an open file has while its key is copied up, renamed or removed, and that its mtime grows
with every change. Not here: opening itself (:mod:`volfs.versions.working.working_copy`).

As in any POSIX filesystem, all descriptors of one file see the same bytes. overlayfs gives up on this where a file is
copied up after a reader opened it; here such readers are moved over to the copy (:meth:`WorkingFile.attach`), because
the kernel caches pages by inode and reads them through whichever handle is at hand.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from volfs.errors import NotAllowed, NotFound
from volfs.storage.files import no_space, pread_all
from volfs.versions.snapshot import KeyInfo, Snapshot

_STRIPES = tuple(threading.Lock() for _ in range(64))
"""Writers of one inode take turns, so that its mtime can be read and raised in one go."""


class FileOwner(Protocol):
    """The working copy as its open files know it."""

    def stamp(self, fd: int, after: int) -> None:
        """Give a file that was just changed a time of its own, later than ``after``."""

    def file_changed(self, key: str, *, linked: bool) -> None:
        """Bytes or times of the file at ``key`` changed; ``linked`` if it has other names as well."""

    def sync_names(self, key: str) -> None:
        """Make the name of ``key``, and of the directories above it, durable."""


class WorkingFile:
    """One open file. Thread-safe, but for closing it while others use it.

    ``key`` follows renames; it is None once the file has been removed or replaced by another. ``made``: the file did
    not exist before. ``count``: of changes to the branch, when the file was opened.
    """

    def __init__(
        self,
        owner: FileOwner,
        key: str,
        fd: int | None,
        lower: tuple[Snapshot, KeyInfo] | None,
        writable: bool,
        *,
        made: bool = False,
        count: int = -1,
    ) -> None:
        self.key: str | None = key
        self.writable = writable
        self.made = made
        self.count = count
        self._owner = owner
        self._fd = fd
        self._lower = lower
        self._lower_key = key
        self._retired: list[int] = []
        self._on_close: Callable[[], None] | None = None
        self._on_attach: Callable[[], None] | None = None

    @property
    def fd(self) -> int | None:
        """The descriptor in the working copy; None while the bytes are the base's."""
        return self._fd

    def stat(self) -> KeyInfo:
        """Size and mtime, exact at this moment, of a removed file too."""
        fd = self._fd
        if fd is not None:
            return KeyInfo.of(os.fstat(fd))
        lower = self._lower
        if lower is None:
            raise NotFound("this file has been closed")
        return lower[1]

    def pread(self, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes at ``offset``; fewer only at the end of the file."""
        fd = self._fd
        if fd is None:
            assert self._lower is not None
            return self._lower[0].read(self._lower_key, offset, size)
        return pread_all(fd, size, offset)

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> int:
        """Write all of ``data`` at ``offset``. NoSpace if it does not fit; a part is then written."""
        fd = self._writing()
        view = memoryview(data).cast("B")
        before = os.fstat(fd)
        with _STRIPES[before.st_ino % len(_STRIPES)], no_space("writing into the working copy"):
            before = os.fstat(fd)
            done = 0
            try:
                while done < len(view):
                    done += os.pwrite(fd, view[done:], offset + done)
            finally:
                self._owner.stamp(fd, before.st_mtime_ns)
        self._changed(before)
        return done

    def truncate(self, size: int) -> None:
        """Cut the file, or lengthen it with zeros."""
        fd = self._writing()
        ino = os.fstat(fd).st_ino
        with _STRIPES[ino % len(_STRIPES)], no_space("writing into the working copy"):
            before = os.fstat(fd)
            os.ftruncate(fd, size)
            self._owner.stamp(fd, before.st_mtime_ns)
        self._changed(before)

    def fsync(self, failed: int = 0) -> None:
        """Make bytes and name durable. ``failed``: the errno of a sync that was tried already, which the disk does not
        tell again."""
        if self._fd is None:
            return
        with no_space("syncing the working copy"):
            if failed:
                raise OSError(failed, os.strerror(failed))
            os.fsync(self._fd)
            if self.key is not None:
                self._owner.sync_names(self.key)

    def attach(self, fd: int) -> None:
        """Go on with another descriptor: the file was copied up. The old one stays open for reads under way."""
        if self._on_attach is not None:
            self._on_attach()
        if self._fd is not None:
            self._retired.append(self._fd)
        self._fd = fd

    def rebase(self, lower: tuple[Snapshot, KeyInfo]) -> None:
        """Go on with another version's bytes: the working copy lies over it now."""
        if self._fd is None and self._lower is not None:
            self._lower = lower

    def close(self) -> None:
        """Close the file. A second time is fine."""
        fd, self._fd = self._fd, None
        self._lower = None
        for each in (*self._retired, *(() if fd is None else (fd,))):
            with suppress(OSError):
                os.close(each)
        self._retired.clear()
        done, self._on_close = self._on_close, None
        if done is not None:
            done()

    def on_close(self, done: Callable[[], None]) -> None:
        """Have ``done`` called once when the file is closed."""
        self._on_close = done

    def on_attach(self, before: Callable[[], None] | None) -> None:
        """Have ``before`` called each time before the file goes on with another descriptor."""
        self._on_attach = before

    def _writing(self) -> int:
        if not self.writable or self._fd is None:
            raise NotAllowed(f"{self.key} is not open for writing")
        return self._fd

    def _changed(self, before: os.stat_result) -> None:
        if self.key is not None:
            self._owner.file_changed(self.key, linked=before.st_nlink > 1)

    def __enter__(self) -> WorkingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OpenFiles:
    """The open files of a working copy by key. Thread-safe. Looking and taking files out never waits for
    the disk: it does not need the working copy's mutex, which adding files and changing names does."""

    def __init__(self) -> None:
        self._by_key: defaultdict[str, set[WorkingFile]] = defaultdict(set)
        self._mutex = threading.Lock()

    def add(self, file: WorkingFile) -> None:
        assert file.key is not None
        with self._mutex:
            self._by_key[file.key].add(file)

    def discard(self, file: WorkingFile) -> None:
        with self._mutex:
            key = file.key
            if key is not None and (files := self._by_key.get(key)) is not None:
                files.discard(file)
                if not files:
                    del self._by_key[key]

    def at(self, key: str) -> tuple[WorkingFile, ...]:
        """The files that are open at a key."""
        with self._mutex:
            return tuple(self._by_key.get(key, ()))

    def rebased(self, below: Callable[[str], tuple[Snapshot, KeyInfo] | None]) -> None:
        """The working copy lies over another version: ``below`` returns its file at a key; None where it is hidden."""
        with self._mutex:
            unchanged = {key: [f for f in files if f.fd is None] for key, files in self._by_key.items()}
        for key, files in unchanged.items():
            found = below(key) if files else None
            for file in files:
                if found is not None:
                    file.rebase(found)
                else:
                    self.removed(key)

    def written(self) -> set[str]:
        """Keys that are open for writing."""
        with self._mutex:
            return {key for key, files in self._by_key.items() if any(file.writable for file in files)}

    def removed(self, key: str) -> None:
        """The name was removed: the open files live on without one."""
        with self._mutex:
            self._removed(key)

    def removed_tree(self, key: str) -> None:
        """``key`` and everything below it is gone."""
        with self._mutex:
            for each in self._below(key):
                self._removed(each)

    def renamed(self, source: str, target: str) -> None:
        """``source``, a file or a whole directory, is now at ``target``, in place of another."""
        with self._mutex:
            self._removed(target)
            for key in self._below(source):
                now = target + key[len(source) :]
                for file in self._by_key.pop(key):
                    file.key = now
                    self._by_key[now].add(file)

    def exchanged(self, one: str, other: str) -> None:
        """Two names, of files or whole directories, were exchanged."""
        with self._mutex:
            moved = []
            for source, target in ((one, other), (other, one)):
                moved += [(target + key[len(source) :], self._by_key.pop(key)) for key in self._below(source)]
            for key, files in moved:
                for file in files:
                    file.key = key
                self._by_key[key] = files

    def _below(self, key: str) -> list[str]:
        below = key + "/"
        return [each for each in self._by_key if each == key or each.startswith(below)]

    def _removed(self, key: str) -> None:
        for file in self._by_key.pop(key, ()):
            file.key = None
