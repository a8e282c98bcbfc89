"""The working copy of a branch: a writable directory tree laid over a version.

Decided here: every operation on keys, with POSIX semantics and errors, and in which order it touches the disk, so that
a reader in any process, also after a crash, sees the state before it or after it. Not here: the rules of the union
(:mod:`volfs.versions.working.union`), how layers look on disk (:mod:`volfs.versions.working.layer`), the meaning of
keys as arrays (:mod:`volfs.versions.working.interpreter`), and committing (:mod:`volfs.versions.commit.protocol`).

Reading needs no lock, in this process or any other: layers and base are noted before a look and compared after it, and
a look during which they moved is repeated. Changing takes the branch's lock (:mod:`volfs.versions.working.branch_lock`)
and a mutex. The mtime of a file grows with every change.

    WorkingCopy     the operations; it has one each of
    _Reader         the union as it is now
    _Steps          the parts that a change is made of, each in an order that a crash may interrupt anywhere
    _UnsyncedNames  directories whose names are not durable yet
    _Anchors        directories that are synced without looking around
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from volfs.errors import AlreadyThere, BadInput, Busy, NotAllowed, NotFound, Unsupported, WrongKind
from volfs.model.graph import VersionInfo
from volfs.model.names import check_key
from volfs.native import core
from volfs.storage.claim import DAY_SECONDS
from volfs.storage.crash import crash_point
from volfs.storage.files import no_space, open_dir, open_new, open_regular, write_all
from volfs.storage.reserve import Reserve
from volfs.storage.store_layout import WorkingLayout
from volfs.versions.keys import NODE_JSON
from volfs.versions.snapshot import KeyInfo, Snapshot
from volfs.versions.working import layer_moves
from volfs.versions.working.base_file import Base, BaseFile, Pin
from volfs.versions.working.branch_lock import BranchLock
from volfs.versions.working.clock import Pulse
from volfs.versions.working.interpreter import chunk_root
from volfs.versions.working.layer import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    SPACES,
    Layer,
    delete_tree,
    exchange,
    layers_of,
    scratch_dir,
    scratch_name,
)
from volfs.versions.working.open_files import OpenFiles, WorkingFile
from volfs.versions.working.union import Entry, Union

_T = TypeVar("_T")
_Stamp = tuple[object, ...]
_ATTEMPTS = 1000
_ANCHORS = 512
"""Directories that are kept open to be synced."""


class Owner(Protocol):
    """The branch as its working copy knows it."""

    @property
    def ref(self) -> str:
        """The branch's name."""

    def base_version(self) -> Snapshot | None:
        """The version that the working copy lies over now: the one that its base document names, else the branch's
        head. None: nothing is committed."""

    def keep_up(self) -> None:
        """The lock has come from outside: others may have moved the head. NotFound if they removed the branch."""

    def settle(self) -> None:
        """Called after :meth:`keep_up`, with the lock held, before anything is changed under it."""


@dataclass(frozen=True, slots=True)
class Renaming:
    """What a rename did. ``moved``: False if both are names of one file, so that nothing happened."""

    moved: bool
    #: A directory moved.
    folder: bool
    #: The new name existed, and whether it was a directory's.
    replaced: bool
    replaced_folder: bool


class WorkingCopy:
    """Operations on the keys of a branch. Thread-safe.

    Removing and discarding work on a full disk: ``reserve`` is given up for them. ``dead_after``: see
    :class:`~volfs.versions.working.branch_lock.BranchLock`.
    """

    def __init__(
        self, layout: WorkingLayout, owner: Owner, reserve: Reserve, *, dead_after: float = DAY_SECONDS
    ) -> None:
        self.layout = layout
        self._owner = owner
        self._reserve = reserve
        self._mutex = threading.RLock()
        self.lock = BranchLock(layout, owner.ref, self._mutex, self._taken, owner.settle, dead_after=dead_after)
        self.base = BaseFile(layout.base, lambda: self.lock.held)
        self._reader = _Reader(layout, owner, lambda: self.lock.held)
        self.pulse = Pulse(layout, self._reader.base_time, lambda: self.lock.held)
        self._files = OpenFiles()
        self._names = _UnsyncedNames(self._mutex, self._reader)
        self._anchors = _Anchors(self._names)
        self._steps = _Steps(layout, self.pulse, self._reader, self._files, self._names, self._anchors)

    def look(self, see: Callable[[Union], _T]) -> _T:
        """The result of ``see`` on a union that did not change meanwhile."""
        return self._reader.look(see)

    def union(self) -> Union:
        """The union as it is now, for several looks by a holder of the lock."""
        return self._reader.union()

    def disk_stat(self, key: str) -> os.stat_result | None:
        """The stat of the working copy's own file at ``key``, for its mode and links; None if it has none."""
        entry = self.look(lambda union: union.entry(key))
        return None if entry is None else entry.st

    @contextmanager
    def exclusive(self) -> Iterator[Union]:
        """Keep everybody else from changing anything, in this process and others, for the length of a block."""
        with self._mutex, self.lock.hold(), no_space("in the working copy"):
            yield self.union()

    @contextmanager
    def at_once(self, *, change: bool = True) -> Iterator[bool]:
        """Yields True if a change within the block (else: opening a file for reading) need not wait: no other thread
        changes anything in it."""
        free = self._mutex.acquire(blocking=False)
        try:
            yield free and (self.lock.held or not change)
        finally:
            if free:
                self._mutex.release()

    def close(self) -> None:
        """Close all files and release the lock, however often it was taken."""
        with self._mutex:
            self._anchors.end()
            while self.lock.held:
                self.lock.release()
            self.pulse.close()

    def open_for_writing(self, *, wait: bool = False) -> set[str]:
        """Keys of files that are open for writing. ``wait``: files that are being opened count, once they are."""
        with self._mutex if wait else nullcontext():
            return self._files.written()

    # -- files ----------------------------------------------------------------------------------------------------

    def open(self, key: str, flags: int, mode: int = 0o644) -> WorkingFile:
        """Open a file as open(2): the access mode, O_CREAT, O_EXCL and O_TRUNC count.

        A file that is not in the top layer is copied there when opened for writing; empty, if it is truncated.
        """
        file = self._open(key, flags, mode)
        assert file is not None
        return file

    def open_quickly(self, key: str, flags: int, mode: int = 0o644) -> WorkingFile | None:
        """:meth:`open`; None, with nothing done, if bytes would have to be copied up first."""
        return self._open(key, flags, mode, quickly=True)

    def _open(self, key: str, flags: int, mode: int, *, quickly: bool = False) -> WorkingFile | None:
        check_key(key)
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        if not writable and not flags & (os.O_TRUNC | os.O_CREAT):
            return self._open_reading(key)
        with self._changing() as union:
            entry = self._steps.entry(union, key)
            path = union.layers[0].path(key)
            if entry is None:
                if not flags & os.O_CREAT:
                    raise NotFound(f"{key} does not exist")
                self._steps.make_parent(union, key)
                fd = open_new(path, 0o600)
                os.fchmod(fd, harmless(mode))
                self.stamp(fd, 0)
                self._steps.names_changed(key)
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
                if quickly and not emptied and entry.layer is not union.layers[0]:
                    return None
                self._steps.copy_up(union, key, entry, emptied=emptied)
                fd = open_put(path, os.O_RDWR)
                if emptied:
                    before = os.fstat(fd)
                    os.ftruncate(fd, 0)
                    self.stamp(fd, before.st_mtime_ns)
                    self.file_changed(key, linked=before.st_nlink > 1)
            file = WorkingFile(self, key, fd, None, writable, made=entry is None, count=self.pulse.read())
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
                self._steps.make_parent(union, key, all_missing=True)
                os.rename(temporary, union.layers[0].path(key))
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
            finally:
                os.close(fd)
        self._files.removed(key)
        self._steps.names_changed(key)

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
            entry = union.existing(key)
            if entry.kind == "dir":
                raise WrongKind(f"{key} is a directory", errno=errno.EISDIR)
            self._steps.remove_name(union, key, entry)
            self._files.removed(key)
            self._steps.names_changed(key)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name. One that is only in the base is copied up first."""
        check_key(source)
        check_key(target)
        with self._changing() as union:
            entry = union.existing(source)
            if union.entry(target) is not None:
                raise AlreadyThere(f"{target} exists")
            if entry.kind == "dir":
                raise NotAllowed(f"{source} is a directory: it cannot have a second name")
            top = union.layers[0]
            self._steps.make_parent(union, target)
            self._steps.copy_up(union, source, entry)
            os.link(top.path(source), top.path(target), follow_symlinks=False)
            self._steps.keep_time(top, target)
            self._steps.names_changed(target)

    def symlink(self, key: str, target: str) -> None:
        """Make a symbolic link among the side files. Nothing of volfs ever follows it."""
        check_key(key)
        if not key.startswith("files/"):
            raise NotAllowed(f"{key}: symbolic links can only be made below files/")
        with self._changing() as union:
            if union.entry(key) is not None:
                raise AlreadyThere(f"{key} exists")
            self._steps.make_parent(union, key)
            os.symlink(target, union.layers[0].path(key))
            self._steps.names_changed(key)

    def readlink(self, key: str) -> str:
        """The target of a symbolic link. WrongKind (EINVAL) if it is something else."""
        check_key(key)

        def see(union: Union) -> str:
            entry = union.existing(key)
            if not entry.is_link:
                raise WrongKind(f"{key} is not a symbolic link", errno=errno.EINVAL)
            return os.fsdecode(b"".join(union.pieces(key, entry)))

        return self.look(see)

    def rename(self, source: str, target: str, flags: int = 0) -> Renaming:
        """rename(2), or renameat2(2) with RENAME_NOREPLACE or RENAME_EXCHANGE.

        A file's inode and times stay. A directory that comes from a lower layer, or from the base, cannot move: EXDEV,
        as in overlayfs.
        """
        renaming = self._rename(source, target, flags)
        assert renaming is not None
        return renaming

    def rename_quickly(self, source: str, target: str, flags: int = 0) -> Renaming | None:
        """:meth:`rename`; None, with nothing done, if it is about a directory, or if bytes would have to be copied up
        first."""
        return self._rename(source, target, flags, quickly=True)

    def _rename(self, source: str, target: str, flags: int, *, quickly: bool = False) -> Renaming | None:
        check_key(source)
        check_key(target)
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise BadInput("of the flags of rename only RENAME_NOREPLACE or RENAME_EXCHANGE can be given")
        with self._changing() as union:
            moving = self._steps.entry(union, source)
            if moving is None:
                raise NotFound(f"{source} does not exist")
            if quickly and (flags or moving.layer is not union.layers[0] or moving.kind == "dir"):
                return None
            there = self._steps.entry(union, target)
            renaming = Renaming(
                True, moving.kind == "dir", there is not None, there is not None and there.kind == "dir"
            )
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
                return replace(renaming, moved=False)
            self._steps.make_parent(union, target)
            if flags & RENAME_EXCHANGE:
                assert there is not None
                self._exchange(union, {source: moving, target: there})
            elif moving.kind == "dir":
                self._rename_dir(union, source, target, moving, there)
            else:
                self._rename_file(union, source, target, moving, there)
            return renaming

    def utimens(self, key: str, atime_ns: int, mtime_ns: int) -> None:
        """Set times, as utimensat(2)."""
        self._set(key, lambda path: os.utime(path, ns=(atime_ns, mtime_ns), follow_symlinks=False))

    def chmod(self, key: str, mode: int) -> None:
        """Set the permission bits, as chmod(2); see :func:`harmless`."""
        check_key(key)
        entry = self.look(lambda union: union.existing(key))
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
            self._steps.make_parent(union, key)
            path = union.layers[0].path(key)
            os.mkdir(path)
            os.chmod(path, harmless(mode, folder=True))
            self._steps.restructured(key, made=True)

    def rmdir(self, key: str) -> None:
        """Remove a directory. WrongKind (ENOTEMPTY) if it has entries."""
        check_key(key)
        self._reserve.freeing(lambda: self._rmdir(key))

    def _rmdir(self, key: str) -> None:
        with self._changing() as union:
            entry = union.existing(key)
            if entry.kind == "file":
                raise WrongKind(f"{key} is a file")
            if not union.is_empty(key):
                raise WrongKind(f"{key} is not empty", errno=errno.ENOTEMPTY)
            self._steps.remove_name(union, key, entry)
            self._steps.restructured(key)

    def remove_tree(self, key: str) -> None:
        """Remove a key and everything below it; readers see one step. A key that does not exist is fine.

        ``zarr`` and ``files`` themselves stay: their entries are removed one by one.
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
                self._steps.remove_name(union, key, entry)
                self._files.removed_tree(key)
                self._steps.restructured(key)

    # -- durability -----------------------------------------------------------------------------------------------

    def sync_names(self, key: str) -> None:
        """Make the name of ``key`` and of the directories above it durable."""
        self.fsync_dir(key.rpartition("/")[0])

    def fsync_dir(self, key: str) -> None:
        """fsync of a directory: its names and removals are durable, and so is its own name."""
        folder = key
        while key:
            failed = self._anchors.error(key)
            if failed:
                raise OSError(failed, os.strerror(failed))
            self._names.sync(key)
            key = key.rpartition("/")[0]
        with self._mutex:
            self._anchors.settle(folder)

    def anchor(self, folder: str) -> Any | None:
        """The ``core.Folder`` of a directory of the top layer, if that is the only layer: for as long as the lock is
        held, and no directory moves. Once it is settled a sync of it makes the names in it durable, and its own."""
        found = self._anchors.get(folder)
        if found is not None or core is None:
            return found
        with self._mutex:
            layers = self._reader.layers
            return self._anchors.make(folder, layers[0]) if len(layers) == 1 and self.lock.held else None

    # -- committing and discarding --------------------------------------------------------------------------------

    def freeze(self, number: int, leave: Iterable[str] | Callable[[Union], Iterable[str]] = ()) -> None:
        """Set all changes aside as the layer from which version ``number`` is made; see :func:`.layer_moves.freeze`.

        ``leave``: keys that stay uncommitted; a function is called while no file can be opened.
        """

        def move() -> None:
            kept = frozenset(leave(self.union()) if callable(leave) else leave)
            layer_moves.freeze(self.layout, number, kept)
            for key in kept:
                self._names.note_above(key)  # they are new names in the fresh top

        self._rearrange(move)

    def merge_back(self, number: int) -> None:
        """Undo :meth:`freeze`: the commit did not happen. See :func:`.layer_moves.merge_back`."""
        self._reserve.freeing(lambda: self._rearrange(lambda: layer_moves.merge_back(self.layout, number)))

    def drop(self, number: int, head: VersionInfo | None) -> None:
        """Forget the frozen layer of version ``number``: the head, which is the base from now on, has all its content.

        The base is named first: the layer over the new base reads the same as over the old one.
        """

        def in_base(key: str) -> bool:
            lower = self._owner.base_version()
            return lower is not None and lower.stat(key) is not None

        def move() -> None:
            self.rest_on(head)
            layer_moves.drop(self.layout, number, in_base)

        self._rearrange(move, gone=True)

    def pristine(self) -> bool:
        """True if nothing lies over the base and nothing was discarded: no time of a change counts."""
        layers = self.union().layers
        return all(layer_moves.is_pristine(layer) for layer in layers)

    def rest_on(self, head: VersionInfo | None) -> None:
        """Make the branch's head the base; the changes must not be in conflict with it. Within :meth:`exclusive`."""
        if head is not None:
            self.pulse.base_moves(head.time_ns)
        layer_moves.rest_on(self.layout, self.base, head)
        self._reader.base_moved()

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
        if not layer_moves.is_pristine(top):
            for key in newer:
                top.note_discard(key, self.pulse.tick(head.time_ns))
        crash_point("follow.noted")
        self.rest_on(head)
        crash_point("follow.moved")
        self._files.rebased(self._below)
        self._steps.restructured("")

    def _below(self, key: str) -> tuple[Snapshot, KeyInfo] | None:
        """The base's file at a key, unless a layer hides it."""
        union = self.union()
        entry = union.entry(key)
        if entry is None or entry.layer is not None or entry.below is None or union.lower is None:
            return None
        return union.lower, entry.below

    def keep(self, folder: str) -> None:
        """Copy all files of a directory up, so that they stay when the base moves. Within :meth:`exclusive`."""
        union = self.union()
        for key in list(union.keys(folder)):
            self._steps.copy_up(union, key, union.existing(key))
        self._steps.hide_below(union, folder, always=True)
        self._steps.restructured(folder)

    def frozen_layer(self, number: int) -> Layer:
        """The layer from which version ``number`` is made: ``layer.changes()`` are the changes to commit."""
        return Layer(str(self.layout.frozen(number).root))

    def discard(self, prefix: str = "") -> None:
        """Go back to the base at and below ``prefix``. Busy while a commit is under way."""
        self._reserve.freeing(lambda: self._discard(prefix))

    def _discard(self, prefix: str) -> None:
        with self._mutex, self.lock.hold(), no_space("in the working copy"):
            top, *frozen = layers_of(self.layout)
            if frozen:
                raise Busy(f"{self._owner.ref} is being committed: discard once that is done")
            if prefix not in ("", *SPACES):
                check_key(prefix)
            if prefix:
                union = self.union()
                top.note_discard(prefix, self.pulse.tick())
                layer_moves.uncover(self.layout, top, union.beneath(union.layers[0]), prefix)
                layer_moves.forget(self.layout, top, prefix)
            else:  # even if the version that they lay over is lost
                for space in SPACES:
                    layer_moves.forget(self.layout, top, space)
                top.forget_discards()
                self.base.remove()
            self._steps.restructured(prefix)
            self._names.forget_gone()

    # -- asked by open files ----------------------------------------------------------------------------------------

    def stamp(self, fd: int, after: int) -> None:
        self.pulse.stamp(fd, after)

    def file_changed(self, key: str, *, linked: bool) -> None:
        self.pulse.beat("" if linked else key)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _taken(self) -> None:
        """The lock has come from outside: everything that is remembered may be wrong."""
        self._owner.keep_up()
        self.base.reread()
        self.pulse.reread()
        layer_moves.prepare(self.layout)
        self._reader.reload()
        self._anchors.end()
        self._steps.forget_rooted()

    @contextmanager
    def _changing(self) -> Iterator[Union]:
        """:meth:`exclusive`, with the version below named before the first change: the head may move on."""
        with self.exclusive() as union:
            if self.base.read() is None:
                self.base.write(Base(Pin.of(None if union.lower is None else union.lower.base)))
            yield union

    def _rearrange(self, move: Callable[[], None], *, gone: bool = False) -> None:
        with self.exclusive():
            self._anchors.end()
            try:
                self._reader.in_motion()
                move()
            finally:
                self._reader.reload()
                self._steps.restructured("")
            if gone:
                self._names.forget_gone()

    def _open_reading(self, key: str) -> WorkingFile:
        def see(union: Union) -> WorkingFile:
            entry = union.existing(key)
            if entry.kind == "dir":
                raise WrongKind(f"{key} is a directory", errno=errno.EISDIR)
            if entry.is_link:
                raise WrongKind(f"{key} is a symbolic link", errno=errno.ELOOP)
            if entry.layer is not None:
                return WorkingFile(self, key, entry.layer.open(key), None, False, count=count)
            assert union.lower is not None and entry.below is not None
            return WorkingFile(self, key, None, (union.lower, entry.below), False, count=count)

        # The mutex: a copy-up must either see this file among the open ones, or come before it was opened.
        with self._mutex:
            count = self.pulse.read()
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
        self._steps.copy_up(union, source, moving, target=target)
        self._steps.keep_time(union.layers[0], target)
        self._steps.hide_below(union, source, always=is_timed(source))
        self._files.renamed(source, target)
        self._steps.names_changed(source)
        self._steps.names_changed(target)

    def _exchange(self, union: Union, entries: dict[str, Entry]) -> None:
        """Exchange two names, which both exist."""
        top, (one, other) = union.layers[0], entries
        for key, entry in entries.items():
            if entry.kind == "dir":
                _check_movable(top, key, entry)
        for key, entry in entries.items():
            if entry.kind == "file":
                self._steps.copy_up(union, key, entry)
        for key, coming in ((one, entries[other]), (other, entries[one])):
            if coming.kind == "dir":
                self._steps.hide_below(union, key, always=key.startswith("zarr/"))
        exchange(top.path(one), top.path(other))
        self._files.exchanged(one, other)
        folders = any(entry.kind == "dir" for entry in entries.values())
        self._names.note_moved({one: other, other: one})
        for key in entries:
            self._steps.keep_time(top, key)
            if folders:
                self._steps.restructured(key)
            else:
                self._steps.names_changed(key)

    def _rename_dir(self, union: Union, source: str, target: str, moving: Entry, there: Entry | None) -> None:
        top = union.layers[0]
        if there is not None and there.kind == "file":
            raise WrongKind(f"{target} is a file")
        if there is not None and not union.is_empty(target):
            raise WrongKind(f"{target} is not empty", errno=errno.ENOTEMPTY)
        _check_movable(top, source, moving)
        always = target.startswith("zarr/")
        if there is not None or always:
            self._steps.hide_below(union, target, always=always)
        os.rename(top.path(source), top.path(target))
        if source.startswith("zarr/"):
            self._steps.hide_below(union, source, always=True)
        self._files.renamed(source, target)
        self._names.note_moved({source: target})
        self._steps.restructured(source)
        self._steps.restructured(target)

    def _set(self, key: str, apply: Callable[[str], None]) -> None:
        check_key(key)
        with self._changing() as union:
            entry = union.existing(key)
            path = union.layers[0].path(key)
            if entry.kind == "dir":
                self._steps.make_dirs(union, key)
            else:
                self._steps.copy_up(union, key, entry)
            apply(path)
            self._steps.keep_time(union.layers[0], key)
            self.file_changed(key, linked=os.lstat(path).st_nlink > 1 and entry.kind == "file")


class _Reader:
    """Reads the union of a working copy without a lock. Thread-safe.

    ``held`` is true while this process has the branch's lock: then only this process moves the layers.
    """

    def __init__(self, layout: WorkingLayout, owner: Owner, held: Callable[[], bool]) -> None:
        self._layout = layout
        self._owner = owner
        self._held = held
        self._top = str(layout.top.root)
        self.layers: tuple[Layer, ...] = ()
        self._epoch = 0

    def look(self, see: Callable[[Union], _T]) -> _T:
        """The result of ``see`` on a union that did not change meanwhile."""
        for _ in range(_ATTEMPTS):
            union, stamp = self._union()
            try:
                result = see(union)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except NotFound:
                if self._union()[1] == stamp:
                    raise
                continue
            if self._union()[1] == stamp:
                return result
        raise Busy(f"the working copy of {self._owner.ref} changes faster than it can be read: try again")

    def union(self) -> Union:
        """The union as it is now."""
        return self._union()[0]

    def base_time(self) -> int:
        """The time (ns) of the base; 0 if there is none."""
        lower = self._owner.base_version()
        base = None if lower is None else lower.base
        return 0 if base is None else base.time_ns

    def in_motion(self) -> None:
        """Layers are about to move: until :meth:`reload`, every look lists them on disk."""
        self.layers = ()
        self._epoch += 1

    def reload(self) -> None:
        """The layers have moved, or others may have moved them."""
        self.layers = layers_of(self._layout)
        self._epoch += 1

    def base_moved(self) -> None:
        """The working copy lies over another version now."""
        self._epoch += 1

    def _top_identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._top)
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_ctime_ns  # an inode may be used again

    def _union(self) -> tuple[Union, _Stamp]:
        """The union now, and a stamp that differs once it has moved. Layers come first: see how a commit ends."""
        if self._held() and self.layers:
            stamp: _Stamp = (self._epoch,)
            layers = self.layers
        else:
            # The top first: one that a freeze puts in its place after the listing must not pass for it.
            top = self._top_identity()
            layers = layers_of(self._layout)
            stamp = (*(layer.name for layer in layers), top)
        lower = self._owner.base_version()
        base = lower.base if lower is not None else None
        stamp = (*stamp, None if base is None else base.number)
        return Union(layers, lower, stamp), stamp


class _Sync:
    """A sync of a directory that is under way: ``covers`` is the number of the last change that it makes durable."""

    def __init__(self, covers: int) -> None:
        self.covers = covers
        self.worked = False
        self.done = threading.Event()


class _UnsyncedNames:
    """Directories whose names changed since they were last synced, with the number of their last change.

    Call with the working copy's mutex held, which is ``mutex``; :meth:`sync` takes it by itself.
    """

    def __init__(self, mutex: threading.RLock, reader: _Reader) -> None:
        self._mutex = mutex
        self._reader = reader
        self._unsynced: dict[str, int] = {}
        self._syncing: dict[str, _Sync] = {}
        self._changes = 0

    def sync(self, folder: str) -> None:
        """Make all names of a directory durable that are in it now.

        Other threads may go on changing names. Callers that find a sync under way which began before the last change
        share the next one.
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

    def settled(self, folder: str) -> bool:
        """True if the names in a directory are durable, and so are its whiteouts."""
        return folder not in self._unsynced and folder not in self._syncing

    def _open_dirs(self, folder: str) -> list[int]:
        """The directories in which the names of one lie, and its whiteouts: they stay the same if layers move."""
        opened: list[int] = []
        try:
            for layer in self._reader.union().layers:
                for path in (layer.path(folder), layer.whiteout_path(folder)):
                    with suppress(FileNotFoundError, NotADirectoryError):
                        opened.append(open_dir(path))
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise
        return opened

    def note(self, folder: str) -> None:
        """A name in a directory has changed."""
        self._changes += 1
        self._unsynced[folder] = self._changes

    def note_moved(self, moves: dict[str, str]) -> None:
        """Directories moved: unsynced names below them lie elsewhere now."""
        moved = {}
        for source, target in moves.items():
            below = f"{source}/"
            for folder in [each for each in self._unsynced if each == source or each.startswith(below)]:
                moved[target + folder[len(source) :]] = self._unsynced.pop(folder)
        self._unsynced.update(moved)

    def note_above(self, key: str) -> None:
        """The names of a key and of all directories above it may have come."""
        while key := key.rpartition("/")[0]:
            self.note(key)

    def forget(self, folder: str) -> None:
        """A directory is removed with all its names."""
        self._unsynced.pop(folder, None)

    def forget_gone(self) -> None:
        """Layers, or large parts of one, were removed: directories in no layer have no names to be made durable. Their
        files are in the base, which is durable, or were removed, which is noted in the directory above."""
        layers = self._reader.union().layers
        self._unsynced = {
            folder: last
            for folder, last in self._unsynced.items()
            if any(os.path.isdir(path(folder)) for layer in layers for path in (layer.path, layer.whiteout_path))
        }


class _Anchors:
    """Directories of the top layer in which names can be looked up, and which can be synced, without looking around:
    for as long as no whiteouts come and none moves. Changed with the working copy's mutex held."""

    def __init__(self, names: _UnsyncedNames) -> None:
        self._names = names
        self._folders: dict[str, Any] = {}
        self._top: Layer | None = None
        #: Directories that are in the top layer alone, and the stamp of the union in which they were found to be.
        self._bare: set[str] = set()
        self._bare_in: Hashable = None

    def get(self, folder: str) -> Any | None:
        return self._folders.get(folder)

    def make(self, folder: str, top: Layer) -> Any | None:
        """A directory's, with those of all above it. None if it is not in the layer."""
        found = self._folders.get(folder)
        if found is not None:
            return found
        above = folder.rpartition("/")[0]
        parent = self.make(above, top) if above else None
        if above and parent is None:
            return None
        if len(self._folders) >= _ANCHORS:
            self.end()
            return None
        self._top = top
        with suppress(FileNotFoundError):
            settled = self._durable(folder, parent)
            self._folders[folder] = core.Folder(open_dir(top.path(folder)), parent, settled)
        return self._folders.get(folder)

    def settle(self, folder: str) -> bool:
        """See whether syncs of a directory need no looking around any more. True if so."""
        found = self._folders.get(folder)
        if found is None or found.settled:
            return found is not None
        above = folder.rpartition("/")[0]
        if (not above or self.settle(above)) and self._durable(folder, self._folders.get(above)):
            found.settle()
        return bool(found.settled)

    def _durable(self, folder: str, parent: Any | None) -> bool:
        """True if a directory has no whiteouts that are not durable, nor have those above it."""
        assert self._top is not None
        if parent is not None and not parent.settled:
            return False
        return self._names.settled(folder) or not os.path.lexists(self._top.whiteout_path(folder))

    def is_bare(self, folder: str, union: Union) -> bool:
        """True if all names in a directory are in the top layer: nothing lies below it."""
        if union.stamp != self._bare_in or len(self._bare) >= _ANCHORS:
            self._bare, self._bare_in = set(), union.stamp
        if folder in self._bare:
            return True
        entry = union.entry(folder) if folder not in SPACES and union.stamp is not None else None
        if entry is None or entry.kind != "dir" or entry.below is not None or entry.dirs != union.layers[:1]:
            return False
        self._bare.add(folder)
        return True

    def error(self, folder: str) -> int:
        """The errno of a sync of a directory that failed, once; 0 if none did."""
        found = self._folders.get(folder)
        error = 0 if found is None else int(found.error())
        if error:
            self.end()
        return error

    def end(self) -> None:
        """Layers, directories or whiteouts are about to change: from now on there are none."""
        self._bare = set()
        folders, self._folders = self._folders, {}
        for folder in folders.values():
            folder.end()


class _Steps:
    """The steps that changes to a working copy are made of. Call them within :meth:`WorkingCopy.exclusive`."""

    def __init__(
        self,
        layout: WorkingLayout,
        pulse: Pulse,
        reader: _Reader,
        files: OpenFiles,
        names: _UnsyncedNames,
        anchors: _Anchors,
    ) -> None:
        self._layout = layout
        self._pulse = pulse
        self._reader = reader
        self._files = files
        self._names = names
        self._anchors = anchors
        #: Directories that this process has once found in the top layer: their own names, and those of all above them,
        #: have been noted.
        self._rooted: set[str] = set()

    def forget_rooted(self) -> None:
        """Others may have made and removed directories."""
        self._rooted.clear()

    def entry(self, union: Union, key: str) -> Entry | None:
        """:meth:`Union.entry`, for which most directories need one look, as they are new."""
        if not self._anchors.is_bare(key.rpartition("/")[0], union):
            return union.entry(key)
        top = union.layers[0]
        found = top.stat(key)
        if not isinstance(found, os.stat_result):
            return None
        return (
            Entry("dir", top, found, None, (top,)) if stat.S_ISDIR(found.st_mode) else Entry("file", top, found, None)
        )

    def make_parent(self, union: Union, key: str, *, all_missing: bool = False) -> None:
        """Have the directory of ``key`` in the top layer. It must show in the union, or ``all_missing`` makes it."""
        parent = key.rpartition("/")[0]
        there = union.layers[0].stat(parent) if parent in self._rooted else None
        if isinstance(there, os.stat_result) and stat.S_ISDIR(there.st_mode):
            return
        above = parent
        while above not in SPACES:
            entry = union.entry(above)
            if entry is not None and entry.kind == "file":
                raise WrongKind(f"{above} is a file")
            if entry is not None:
                break
            if not all_missing:
                raise NotFound(f"{above} does not exist")
            above = above.rpartition("/")[0]
        self.make_dirs(union, parent)
        while parent and parent not in self._rooted:
            self._rooted.add(parent)
            self._names.note(parent)
            parent = parent.rpartition("/")[0]

    def make_dirs(self, union: Union, folder: str) -> None:
        """Have a directory in the top layer, with those above it and the permission bits they have below."""
        top = union.layers[0]
        missing = []
        while folder and not isinstance(top.stat(folder), os.stat_result):
            missing.append(folder)
            folder = folder.rpartition("/")[0]
        for each in reversed(missing):
            entry = union.entry(each)
            mode = 0 if entry is None else stat.S_IMODE(entry.info.mode)
            os.mkdir(top.path(each))
            os.chmod(top.path(each), mode or 0o755)

    def copy_up(
        self, union: Union, key: str, entry: Entry, *, emptied: bool = False, target: str | None = None
    ) -> None:
        """Have the file in the top layer, at ``target`` (else ``key``), with the bytes and the mtime it has below.

        Loss of power must not lose bytes that were never changed: the copy is on disk before it has its name.
        """
        top = union.layers[0]
        if entry.layer is top:
            if target is not None:
                os.rename(top.path(key), top.path(target))
            return
        info = entry.info
        temporary = scratch_name(self._layout)
        if info.is_link:
            self._copy_link_up(union, key, entry, temporary, target or key)
            return
        fd = open_new(temporary, 0o600)
        try:
            if not emptied:
                for piece in union.pieces(key, entry):
                    write_all(fd, piece)
            os.fchmod(fd, harmless(info.mode) if info.mode else 0o644)
            os.utime(fd, ns=(info.mtime_ns, info.mtime_ns))
            if not emptied:
                os.fsync(fd)
            self.make_parent(union, target or key)
            os.rename(temporary, top.path(target or key))
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(fd)
        for file in self._files.at(key):
            file.attach(open_put(top.path(target or key), os.O_RDWR if file.writable else os.O_RDONLY))
        self.names_changed(target or key)

    def _copy_link_up(self, union: Union, key: str, entry: Entry, temporary: str, target: str) -> None:
        """Copy up a symbolic link, which has neither permission bits nor a descriptor to be synced by: it becomes
        durable with the names of its directory."""
        os.symlink(os.fsdecode(b"".join(union.pieces(key, entry))), temporary)
        try:
            os.utime(temporary, ns=(entry.info.mtime_ns, entry.info.mtime_ns), follow_symlinks=False)
            self.make_parent(union, target)
            os.rename(temporary, union.layers[0].path(target))
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        self.names_changed(target)

    def remove_name(self, union: Union, key: str, entry: Entry) -> None:
        """Take a name out of the union. The whiteout comes first: the top's own file shows until it is removed."""
        top = union.layers[0]
        self.hide_below(union, key, always=is_timed(key) or (entry.kind == "dir" and key.startswith("zarr/")))
        if top.stat(key) is not None:
            if entry.kind == "file":
                os.unlink(top.path(key))
            else:
                self._names.forget(key)
                grave = scratch_name(self._layout)
                os.rename(top.path(key), grave)
                delete_tree(grave)

    def hide_below(self, union: Union, key: str, *, always: bool) -> None:
        """Hide the files and directories that the lower layers and the base have at ``key``.

        With ``always`` the removal is recorded even if they have none: chunks were there, or will be, whose own times
        do not reveal that the array has changed.
        """
        top = union.layers[0]
        if not always and self._anchors.is_bare(key.rpartition("/")[0], union):
            return
        if not always and not top.hides(key) and union.beneath(top).entry(key) is None:
            return
        now = self._pulse.tick()
        self._anchors.end()
        top.hide(key, scratch_dir(self._layout), time_ns=now)
        self.make_parent(union, key)
        parent = key.rpartition("/")[0]
        os.utime(top.path(parent), ns=(now, now))
        self._names.note_above(key)  # the whiteout's own directories may be new

    def keep_time(self, top: Layer, key: str) -> None:
        """Have the last change be the newest, where a file came to ``key`` with an older time of its own.

        Clients rely on a file's own times to survive a rename, and may set them to anything.
        """
        found = top.stat(key)
        if not isinstance(found, os.stat_result) or stat.S_ISDIR(found.st_mode) or not is_timed(key):
            return
        last = self._pulse.last()
        if found.st_mtime_ns < last and found.st_ctime_ns < last:
            # The kernel's clock for changes may stand still for some ms, unless the time of the last was looked at
            # (since Linux 6.13). To be changed once more is cheaper than a whiteout, for a commit too.
            os.utime(top.path(key), ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)
            if os.lstat(top.path(key)).st_ctime_ns < last:
                self._anchors.end()
                top.hide(key, scratch_dir(self._layout), time_ns=self._pulse.tick())
        elif found.st_mtime_ns > last:
            self._pulse.tick(found.st_mtime_ns)

    def names_changed(self, key: str) -> None:
        """A name has come, has gone, or names another file."""
        self._names.note(key.rpartition("/")[0])
        self._pulse.beat(key)

    def restructured(self, prefix: str, *, made: bool = False) -> None:
        """A directory was made, or moved or removed with everything in it."""
        if not made:
            self._anchors.end()
            self._rooted.clear()
            for layer in self._reader.layers:
                layer.forget_folders()
        self._names.note(prefix.rpartition("/")[0])
        self._pulse.beat(prefix, below=True)


def _check_movable(top: Layer, key: str, entry: Entry) -> None:
    if entry.dirs != (top,) or entry.below is not None:
        raise NotAllowed(
            f"{key} is a committed directory, which cannot be renamed: copy it, then remove it", errno=errno.EXDEV
        )


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


def harmless(mode: int, *, folder: bool = False) -> int:
    """The permission bits that a file or directory gets that was given ``mode``.

    The owner can always read files and change names in directories: volfs itself must be able to commit them.
    """
    return (stat.S_IMODE(mode) & 0o777) | (0o700 if folder else 0o400)


def open_put(path: str, flags: int) -> int:
    """Open a file of the top layer for a client that the kernel has admitted, even if the permission bits keep out
    volfs itself."""
    try:
        return open_regular(path, flags)
    except PermissionError:
        mode = stat.S_IMODE(os.lstat(path).st_mode)
        os.chmod(path, mode | 0o600)
        try:
            return open_regular(path, flags)
        finally:
            os.chmod(path, mode)


def is_timed(key: str) -> bool:
    """True for keys from which views are made, so that the time of their last change counts."""
    return key.endswith(f"/{NODE_JSON}") or chunk_root(key) is not None
