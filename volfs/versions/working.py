"""The working copy of a branch: a writable directory tree laid over a version.

Decided here: every operation on keys, with POSIX semantics and errors, and in which order it touches the disk, so that
a reader in any process, and whoever comes after a crash, sees the state before it or after it. Not here: what the union
shows (:mod:`volfs.versions.union`), how layers look on disk (:mod:`volfs.versions.layers`), what keys mean as arrays
(:mod:`volfs.versions.interpret`), and committing (:mod:`volfs.versions.commit`).

Reading needs no lock, in this process or any other (:mod:`volfs.versions.reading`). Changing takes the branch's lock
(:mod:`volfs.versions.lock`) and a mutex. The mtime of a file grows with every change.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress

from volfs.errors import AlreadyThere, BadInput, Busy, NotAllowed, NotFound, Unsupported, WrongKind
from volfs.model.graph import VersionInfo
from volfs.model.names import check_key
from volfs.storage.claim import DAY_SECONDS
from volfs.storage.crash import crash_point
from volfs.storage.files import no_space, open_dir, open_new, write_all
from volfs.storage.layout import WorkingLayout
from volfs.storage.reserve import Reserve
from volfs.versions import freezing
from volfs.versions.changing import WorkingSteps, harmless, is_timed, open_put
from volfs.versions.layers import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    SPACES,
    Layer,
    exchange,
    layers_of,
    scratch_name,
)
from volfs.versions.openfile import WorkingFile
from volfs.versions.reading import existing, pieces
from volfs.versions.snapshot import KeyInfo, Snapshot
from volfs.versions.union import Entry, Union


class _Sync:
    """A sync of a directory that is under way: ``covers`` is the number of the last change that it makes durable."""

    def __init__(self, covers: int) -> None:
        self.covers = covers
        self.worked = False
        self.done = threading.Event()


class WorkingCopy(WorkingSteps):
    """All that can be done to the keys of a branch. Thread-safe.

    Removing and discarding go on when the disk is full: ``reserve`` is given up for them.
    """

    def __init__(
        self,
        layout: WorkingLayout,
        branch: str,
        lower: Callable[[], Snapshot | None],
        reserve: Reserve,
        keep_up: Callable[[], None] = lambda: None,
        settle: Callable[[], None] = lambda: None,
        *,
        dead_after: float = DAY_SECONDS,
    ) -> None:
        super().__init__(layout, branch, lower, keep_up, settle, dead_after=dead_after)
        self._reserve = reserve
        self._syncing: dict[str, _Sync] = {}

    @contextmanager
    def at_once(self, *, change: bool = True) -> Iterator[bool]:
        """Whether a change within the block (else: opening a file for reading) waits for nobody: no other thread
        changes anything while it lasts."""
        free = self._mutex.acquire(blocking=False)
        try:
            yield free and (self.lock.held or not change)
        finally:
            if free:
                self._mutex.release()

    def close(self) -> None:
        """Let go of everything: the lock too, however often it was taken."""
        with self._mutex:
            while self.lock.held:
                self.lock.release()
            self.pulse.close()

    def open_for_writing(self, *, wait: bool = False) -> set[str]:
        """Keys that somebody has open for writing. With ``wait``, those that are being opened count, once they are."""
        with self._mutex if wait else nullcontext():
            return self._files.written()

    # -- files ----------------------------------------------------------------------------------------------------

    def open(self, key: str, flags: int, mode: int = 0o644) -> WorkingFile:
        """Open a file as open(2): the access mode, O_CREAT, O_EXCL and O_TRUNC count.

        A file that is not in the top layer is copied there when opened for writing; empty, if it is truncated.
        """
        check_key(key)
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        if not writable and not flags & (os.O_TRUNC | os.O_CREAT):
            return self._open_reading(key)
        with self._changing() as union:
            entry = union.entry(key)
            path = union.layers[0].path(key)
            if entry is None:
                if not flags & os.O_CREAT:
                    raise NotFound(f"{key} does not exist")
                self._make_parent(union, key)
                fd = open_new(path, 0o600)
                os.fchmod(fd, harmless(mode))
                self.stamp(fd, 0)
                self._names_changed(key)
            elif flags & os.O_CREAT and flags & os.O_EXCL:
                raise AlreadyThere(f"{key} exists")
            elif entry.kind == "dir":
                raise WrongKind(f"{key} is a directory", errno=errno.EISDIR)
            elif entry.is_link:
                raise WrongKind(f"{key} is a symbolic link", errno=errno.ELOOP)
            elif not writable and not flags & os.O_TRUNC:
                return self._open_reading(key)
            else:
                emptied = bool(flags & os.O_TRUNC)
                self._copy_up(union, key, entry, emptied=emptied)
                fd = open_put(path, os.O_RDWR)
                if emptied:
                    before = os.fstat(fd)
                    os.ftruncate(fd, 0)
                    self.stamp(fd, before.st_mtime_ns)
                    self.file_changed(key, linked=before.st_nlink > 1)
            file = WorkingFile(self, key, fd, None, writable)
            self._files.add(file)
            if writable:
                self.lock.acquire()
            file.on_close(lambda: self._closed(file, writable))
            return file

    def put(self, key: str, data: bytes | bytearray | memoryview, *, only_new: bool = False) -> bool:
        """Make ``data`` the whole content of ``key``, in one step, with the directories it needs.

        With ``only_new`` a key that exists stays as it is, and the answer is False.
        """
        check_key(key)
        with self._changing() as union:
            if only_new and (entry := union.entry(key)) is not None and entry.kind == "file":
                return False
            self._put(union, key, data)
            return True

    def _put(self, union: Union, key: str, data: bytes | bytearray | memoryview) -> None:
        entry = union.entry(key)
        if entry is not None and entry.kind == "dir":
            raise WrongKind(f"{key} is a directory", errno=errno.EISDIR)
        temporary = scratch_name(self.layout)
        with no_space(f"writing {key}"):
            fd = open_new(temporary, 0o644)
            try:
                write_all(fd, data)
                if entry is not None and entry.info.mode and not entry.is_link:
                    os.fchmod(fd, harmless(entry.info.mode))
                self.stamp(fd, 0 if entry is None else entry.info.mtime_ns)
                self._make_parent(union, key, all_missing=True)
                os.rename(temporary, union.layers[0].path(key))
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
            finally:
                os.close(fd)
        self._files.removed(key)
        self._names_changed(key)

    def truncate(self, key: str, size: int) -> None:
        """truncate(2)."""
        with self.open(key, os.O_WRONLY | (os.O_TRUNC if size == 0 else 0)) as file:
            if size:
                file.truncate(size)

    def unlink(self, key: str) -> None:
        """Remove a file."""
        check_key(key)
        self._reserve.freeing(lambda: self._unlink(key))

    def _unlink(self, key: str) -> None:
        with self._changing() as union:
            entry = existing(union, key)
            if entry.kind == "dir":
                raise WrongKind(f"{key} is a directory", errno=errno.EISDIR)
            self._remove_name(union, key, entry)
            self._files.removed(key)
            self._names_changed(key)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name. One that is only in the base is copied up first."""
        check_key(source)
        check_key(target)
        with self._changing() as union:
            entry = existing(union, source)
            if union.entry(target) is not None:
                raise AlreadyThere(f"{target} exists")
            if entry.kind == "dir":
                raise NotAllowed(f"{source} is a directory: it cannot have a second name")
            top = union.layers[0]
            self._make_parent(union, target)
            self._copy_up(union, source, entry)
            os.link(top.path(source), top.path(target), follow_symlinks=False)
            self._keep_time(top, target)
            self._names_changed(target)

    def symlink(self, key: str, target: str) -> None:
        """Make a symbolic link among the side files. Nothing of volfs ever follows it."""
        check_key(key)
        if not key.startswith("files/"):
            raise NotAllowed(f"{key}: only side files may be symbolic links")
        with self._changing() as union:
            if union.entry(key) is not None:
                raise AlreadyThere(f"{key} exists")
            self._make_parent(union, key)
            os.symlink(target, union.layers[0].path(key))
            self._names_changed(key)

    def readlink(self, key: str) -> str:
        """The target of a symbolic link. WrongKind (EINVAL) if it is something else."""
        check_key(key)

        def see(union: Union) -> str:
            entry = existing(union, key)
            if not entry.is_link:
                raise WrongKind(f"{key} is no symbolic link", errno=errno.EINVAL)
            return os.fsdecode(b"".join(pieces(union, key, entry)))

        return self.look(see)

    def rename(self, source: str, target: str, flags: int = 0) -> bool:
        """rename(2), or renameat2(2) with RENAME_NOREPLACE or RENAME_EXCHANGE.

        Whether a name went: of two names of one file neither does. A file's inode and times stay. A directory that a
        lower layer shows cannot move: EXDEV, as in overlayfs.
        """
        check_key(source)
        check_key(target)
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise BadInput("a branch knows RENAME_NOREPLACE and RENAME_EXCHANGE, one at a time")
        with self._changing() as union:
            moving, there = existing(union, source), union.entry(target)
            if there is not None and flags & RENAME_NOREPLACE:
                raise AlreadyThere(f"{target} exists")
            if moving.kind == "dir" and target.startswith(f"{source}/"):
                raise BadInput(f"{source} cannot move into itself")
            if flags & RENAME_EXCHANGE:
                if there is None:
                    raise NotFound(f"{target} does not exist")
                if there.kind == "dir" and source.startswith(f"{target}/"):
                    raise BadInput(f"{target} cannot move into itself")
            if source == target or _same_file(moving, there):
                return False
            self._make_parent(union, target)
            if flags & RENAME_EXCHANGE:
                assert there is not None
                self._exchange(union, {source: moving, target: there})
            elif moving.kind == "dir":
                self._rename_dir(union, source, target, moving, there)
            else:
                self._rename_file(union, source, target, moving, there)
            return True

    def utimens(self, key: str, atime_ns: int, mtime_ns: int) -> None:
        """Set times, as utimensat(2)."""
        self._set(key, lambda path: os.utime(path, ns=(atime_ns, mtime_ns), follow_symlinks=False))

    def chmod(self, key: str, mode: int) -> None:
        """Set the permission bits, as chmod(2); see :func:`~volfs.versions.changing.harmless`."""
        check_key(key)
        entry = self.look(lambda union: existing(union, key))
        if entry.is_link:
            raise Unsupported(f"{key} is a symbolic link, which has no permission bits", errno=errno.EOPNOTSUPP)
        folder = entry.kind == "dir"
        mode = harmless(mode, folder=folder)
        if mode != (entry.info.mode or (0o755 if folder else 0o644)):
            self._set(key, lambda path: os.chmod(path, mode))

    # -- directories ----------------------------------------------------------------------------------------------

    def mkdir(self, key: str, mode: int = 0o755) -> None:
        """Make a directory; where one was removed, an empty new one."""
        check_key(key)
        with self._changing() as union:
            if union.entry(key) is not None:
                raise AlreadyThere(f"{key} exists")
            self._make_parent(union, key)
            path = union.layers[0].path(key)
            os.mkdir(path)
            os.chmod(path, harmless(mode, folder=True))
            self._restructured(key, made=True)

    def rmdir(self, key: str) -> None:
        """Remove a directory that shows nothing: WrongKind (ENOTEMPTY) otherwise."""
        check_key(key)
        self._reserve.freeing(lambda: self._rmdir(key))

    def _rmdir(self, key: str) -> None:
        with self._changing() as union:
            entry = existing(union, key)
            if entry.kind == "file":
                raise WrongKind(f"{key} is a file")
            if not union.is_empty(key):
                raise WrongKind(f"{key} is not empty", errno=errno.ENOTEMPTY)
            self._remove_name(union, key, entry)
            self._restructured(key)

    def remove_tree(self, key: str) -> None:
        """Remove a key and everything below it, in one step for whoever looks. A key that is not there is fine.

        Of ``zarr`` and ``files`` themselves only the content goes, name by name.
        """
        self._reserve.freeing(lambda: self._remove_tree(key))

    def _remove_tree(self, key: str) -> None:
        with self._changing() as union:
            if key in SPACES:
                for name in union.names(key):
                    self._remove_tree(f"{key}/{name}")
                return
            check_key(key)
            entry = union.entry(key)
            if entry is not None:
                self._remove_name(union, key, entry)
                self._files.removed_tree(key)
                self._restructured(key)

    # -- durability -----------------------------------------------------------------------------------------------

    def sync_names(self, key: str) -> None:
        """Make the name of ``key`` and of the directories above it durable."""
        self.fsync_dir(key.rpartition("/")[0])

    def fsync_dir(self, key: str) -> None:
        """fsync of a directory: its names and removals are durable, and so is its own name."""
        while key:
            self._sync_names_in(key)
            key = key.rpartition("/")[0]

    def _sync_names_in(self, folder: str) -> None:
        """Make all names of a directory durable that are in it now.

        Nobody is kept from changing anything meanwhile. Who comes while a sync is under way, that began before the last
        change, shares the next one with all others who do.
        """
        with self._mutex:
            under_way = self._syncing.get(folder)
            wanted = self._unsynced.get(folder) or (under_way.covers if under_way is not None else 0)
        while wanted:
            with self._mutex:
                under_way = self._syncing.get(folder)
                if under_way is None:
                    covers = self._unsynced.get(folder, 0)
                    if covers:
                        opened = self._open_dirs(folder)
                        del self._unsynced[folder]
                        mine = self._syncing[folder] = _Sync(covers)
            if under_way is not None:
                under_way.done.wait()
                if under_way.worked and under_way.covers >= wanted:
                    return
                continue
            if not covers:
                return  # somebody else has done it, between two looks
            try:
                while opened:
                    os.fsync(opened[-1])
                    os.close(opened.pop())
                mine.worked = True
                return
            finally:
                for fd in opened:
                    os.close(fd)
                with self._mutex:
                    del self._syncing[folder]
                    if not mine.worked:
                        self._unsynced.setdefault(folder, covers)
                mine.done.set()

    def _open_dirs(self, folder: str) -> list[int]:
        """The directories in which the names of one lie, and its whiteouts: they stay the same if layers move."""
        opened: list[int] = []
        try:
            for layer in self.union().layers:
                for path in (layer.path(folder), layer.whiteout_path(folder)):
                    with suppress(FileNotFoundError, NotADirectoryError):
                        opened.append(open_dir(path))
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise
        return opened

    # -- committing and discarding --------------------------------------------------------------------------------

    def freeze(self, number: int, leave: Iterable[str] | Callable[[Union], Iterable[str]] = ()) -> None:
        """Put what there is aside as the layer that version ``number`` is made of; see :func:`freezing.freeze`.

        ``leave``: keys that stay; as a function, it is asked while nobody can open a file.
        """

        def move() -> None:
            kept = frozenset(leave(self.union()) if callable(leave) else leave)
            freezing.freeze(self.layout, number, kept)
            for key in kept:
                self._note_above(key)  # what stays has come into the fresh top by name

        self._rearrange(move)

    def merge_back(self, number: int) -> None:
        """Undo :meth:`freeze`: the commit did not happen. See :func:`freezing.merge_back`."""
        self._reserve.freeing(lambda: self._rearrange(lambda: freezing.merge_back(self.layout, number)))

    def drop(self, number: int, head: VersionInfo | None) -> None:
        """Forget the frozen layer of version ``number``: the head, which is the base from now on, says all it said.

        The base comes first: the layer over the new base shows the same as over the old one.
        """

        def in_base(key: str) -> bool:
            lower = self._lower()
            return lower is not None and lower.stat(key) is not None

        def move() -> None:
            self.rest_on(head)
            freezing.drop(self.layout, number, in_base)

        self._rearrange(move, gone=True)

    def pristine(self) -> bool:
        """Whether nothing lies over the base, and nothing was discarded: no time of a change counts."""
        layers = self.union().layers
        return all(freezing.is_pristine(layer) for layer in layers)

    def rest_on(self, head: VersionInfo | None) -> None:
        """Make the branch's head the base: nothing that lies over it would collide. Within :meth:`exclusive`."""
        freezing.rest_on(self.layout, self.base, head)
        self._epoch += 1

    def follow(
        self, head: VersionInfo, merged: Mapping[str, bytes], newer: Iterable[str], modes: Mapping[str, int]
    ) -> None:
        """Lie over the branch's newer head. Within :meth:`exclusive`; may be repeated after a crash.

        ``merged``: files that get other bytes, since either version changed them. ``newer``: keys and directories that
        read differently over the new head: they count as changed now, because they may lie beside older changes.
        ``modes``: the permission bits that directories have there, of those that were not given others here.
        """
        union = self.union()
        top = union.layers[0]
        for key, data in merged.items():
            self._put(union, key, data)
        for folder, mode in modes.items():
            os.chmod(top.path(folder), harmless(mode, folder=True))
        crash_point("follow.merged")
        if not freezing.is_pristine(top):
            for key in newer:
                top.note_discard(key, self.pulse.tick(head.time_ns))
        crash_point("follow.noted")
        self.rest_on(head)
        crash_point("follow.moved")
        self._files.rebased(lambda key: self._below(key))
        self._restructured("")

    def _below(self, key: str) -> tuple[Snapshot, KeyInfo] | None:
        """What the base has at a key, where that shows."""
        union = self.union()
        entry = union.entry(key)
        if entry is None or entry.layer is not None or entry.below is None or union.lower is None:
            return None
        return union.lower, entry.below

    def keep(self, folder: str) -> None:
        """Have the working copy itself hold all that is shown in a directory, whatever comes below it. Within
        :meth:`exclusive`."""
        union = self.union()
        for key in list(union.keys(folder)):
            self._copy_up(union, key, existing(union, key))
        self._hide_below(union, folder, tell=True)
        self._restructured(folder)

    def frozen_layer(self, number: int) -> Layer:
        """The layer that version ``number`` is being made of: ``layer.changes()`` is what to commit."""
        return Layer(str(self.layout.frozen(number).root))

    def discard(self, prefix: str = "") -> None:
        """Go back to the base at and below ``prefix``. Busy while a commit is under way."""
        self._reserve.freeing(lambda: self._discard(prefix))

    def _discard(self, prefix: str) -> None:
        with self._mutex, self.lock.hold(), no_space("in the working copy"):
            top, *frozen = layers_of(self.layout)
            if frozen:
                raise Busy(f"{self.branch} is being committed: discard once that is done")
            if prefix not in ("", *SPACES):
                check_key(prefix)
            if prefix:
                union = self.union()
                top.note_discard(prefix, self.pulse.tick())
                freezing.uncover(self.layout, top, union.beneath(union.layers[0]), prefix)
                freezing.forget(self.layout, top, prefix)
            else:  # whatever they lay over: it need not be there
                for space in SPACES:
                    freezing.forget(self.layout, top, space)
                top.forget_discards()
                self.base.remove()
            self._restructured(prefix)
            self._forget_gone()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _rearrange(self, move: Callable[[], None], *, gone: bool = False) -> None:
        with self.exclusive():
            try:
                self._in_motion()
                move()
            finally:
                self._reload()
                self._restructured("")
            if gone:
                self._forget_gone()

    def _open_reading(self, key: str) -> WorkingFile:
        def see(union: Union) -> WorkingFile:
            entry = existing(union, key)
            if entry.kind == "dir":
                raise WrongKind(f"{key} is a directory", errno=errno.EISDIR)
            if entry.is_link:
                raise WrongKind(f"{key} is a symbolic link", errno=errno.ELOOP)
            if entry.layer is not None:
                return WorkingFile(self, key, entry.layer.open(key), None, False)
            assert union.lower is not None and entry.below is not None
            return WorkingFile(self, key, None, (union.lower, entry.below), False)

        # The mutex: a copy-up must either see this file among the open ones, or come before it was opened.
        with self._mutex:
            file = self.look(see)
            self._files.add(file)
        file.on_close(lambda: self._closed(file, False))
        return file

    def _closed(self, file: WorkingFile, writable: bool) -> None:
        self._files.discard(file)
        if writable:
            self.lock.release()

    def _rename_file(self, union: Union, source: str, target: str, moving: Entry, there: Entry | None) -> None:
        if there is not None and there.kind == "dir":
            raise WrongKind(f"{target} is a directory", errno=errno.EISDIR)
        self._files.removed(target)
        self._copy_up(union, source, moving, target=target)
        self._keep_time(union.layers[0], target)
        self._hide_below(union, source, tell=is_timed(source))
        self._files.renamed(source, target)
        self._names_changed(source)
        self._names_changed(target)

    def _exchange(self, union: Union, entries: dict[str, Entry]) -> None:
        """Exchange two names, which both exist."""
        top, (one, other) = union.layers[0], entries
        for key, entry in entries.items():
            if entry.kind == "dir":
                _check_movable(top, key, entry)
        for key, entry in entries.items():
            if entry.kind == "file":
                self._copy_up(union, key, entry)
        for key, coming in ((one, entries[other]), (other, entries[one])):
            if coming.kind == "dir":
                self._hide_below(union, key, tell=key.startswith("zarr/"))
        exchange(top.path(one), top.path(other))
        self._files.exchanged(one, other)
        folders = any(entry.kind == "dir" for entry in entries.values())
        self._note_moved({one: other, other: one})
        for key in entries:
            self._keep_time(top, key)
            if folders:
                self._restructured(key)
            else:
                self._names_changed(key)

    def _rename_dir(self, union: Union, source: str, target: str, moving: Entry, there: Entry | None) -> None:
        top = union.layers[0]
        if there is not None and there.kind == "file":
            raise WrongKind(f"{target} is a file")
        if there is not None and not union.is_empty(target):
            raise WrongKind(f"{target} is not empty", errno=errno.ENOTEMPTY)
        _check_movable(top, source, moving)
        tell = target.startswith("zarr/")
        if there is not None or tell:
            self._hide_below(union, target, tell=tell)
        os.rename(top.path(source), top.path(target))
        if source.startswith("zarr/"):
            self._hide_below(union, source, tell=True)
        self._files.renamed(source, target)
        self._note_moved({source: target})
        self._restructured(source)
        self._restructured(target)

    def _set(self, key: str, apply: Callable[[str], None]) -> None:
        check_key(key)
        with self._changing() as union:
            entry = existing(union, key)
            path = union.layers[0].path(key)
            if entry.kind == "dir":
                self._make_dirs(union, key)
            else:
                self._copy_up(union, key, entry)
            apply(path)
            self._keep_time(union.layers[0], key)
            self.file_changed(key, linked=os.lstat(path).st_nlink > 1 and entry.kind == "file")


def _check_movable(top: Layer, key: str, entry: Entry) -> None:
    if entry.dirs != (top,) or entry.below is not None:
        raise NotAllowed(f"{key} is in the head version: copy it, then remove it", errno=errno.EXDEV)


def _same_file(one: Entry, other: Entry | None) -> bool:
    """Whether two names are hard links of one file: rename(2) then does nothing."""
    return (
        other is not None
        and one.st is not None
        and other.st is not None
        and one.kind == "file"
        and one.layer is other.layer
        and one.st.st_ino == other.st.st_ino
    )
