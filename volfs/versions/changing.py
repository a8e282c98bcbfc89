"""The steps that changes to a working copy are made of.

Decided here: how a file comes up from below, how a name goes, and which time a change gets, each in an order that a
crash may interrupt anywhere. Not here: which steps an operation takes (:mod:`volfs.versions.working`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from volfs.errors import NotFound, WrongKind
from volfs.storage.claim import DAY_SECONDS
from volfs.storage.files import no_space, open_new, open_regular, write_all
from volfs.storage.layout import WorkingLayout
from volfs.versions.base import Base, Pin
from volfs.versions.interpret import chunk_root
from volfs.versions.keys import NODE_JSON
from volfs.versions.layers import SPACES, Layer, delete_tree, scratch_dir, scratch_name
from volfs.versions.openfile import OpenFiles
from volfs.versions.reading import WorkingReader, pieces
from volfs.versions.snapshot import Snapshot
from volfs.versions.union import Entry, Union


class WorkingSteps(WorkingReader):
    """What :class:`~volfs.versions.working.WorkingCopy` builds its operations from."""

    def __init__(
        self,
        layout: WorkingLayout,
        branch: str,
        lower: Callable[[], Snapshot | None],
        keep_up: Callable[[], None] = lambda: None,
        settle: Callable[[], None] = lambda: None,
        *,
        dead_after: float = DAY_SECONDS,
    ) -> None:
        super().__init__(layout, branch, lower, keep_up, settle, dead_after=dead_after)
        self._files = OpenFiles()
        #: Directories whose names changed since they were last synced, with the number of their last change.
        self._unsynced: dict[str, int] = {}
        #: Directories that this process has once found in the top layer: their own names, and those of all above them,
        #: have been noted in ``_unsynced``.
        self._rooted: set[str] = set()
        self._changes = 0

    def _taken(self) -> None:
        super()._taken()
        self._rooted.clear()  # others may have made and removed directories

    def file_changed(self, key: str, *, linked: bool) -> None:
        """Somebody changed the bytes or times of a file of the top layer."""
        self.pulse.beat("" if linked else key)

    def stamp(self, fd: int, after: int) -> None:
        """Give a file that was just changed a time that no other change has, later than ``after``."""
        now = self.pulse.tick(after)
        os.utime(fd, ns=(now, now))

    @contextmanager
    def exclusive(self) -> Iterator[Union]:
        """Keep everybody else from changing anything, in this process and others, for the length of a block."""
        with self._mutex, self.lock.hold(), no_space("in the working copy"):
            yield self.union()

    @contextmanager
    def _changing(self) -> Iterator[Union]:
        with self.exclusive() as union:
            self._lie_over(union)
            yield union

    def _lie_over(self, union: Union) -> None:
        """Before the first change: name the version below it, which the head may leave."""
        if self.base.read() is None:
            self.base.write(Base(Pin.of(None if union.lower is None else union.lower.base)))

    def _make_parent(self, union: Union, key: str, *, all_missing: bool = False) -> None:
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
        self._make_dirs(union, parent)
        while parent and parent not in self._rooted:
            self._rooted.add(parent)
            self._note(parent)
            parent = parent.rpartition("/")[0]

    def _make_dirs(self, union: Union, folder: str) -> None:
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

    def _copy_up(
        self, union: Union, key: str, entry: Entry, *, emptied: bool = False, target: str | None = None
    ) -> None:
        """Have the file in the top layer, at ``target`` (else ``key``), with the bytes and the mtime it has below.

        What was never changed must not be lost to a loss of power: the copy is on disk before it has its name.
        """
        top = union.layers[0]
        if entry.layer is top:
            if target is not None:
                os.rename(top.path(key), top.path(target))
            return
        info = entry.info
        temporary = scratch_name(self.layout)
        if info.is_link:
            self._copy_link_up(union, key, entry, temporary, target or key)
            return
        fd = open_new(temporary, 0o600)
        try:
            if not emptied:
                for piece in pieces(union, key, entry):
                    write_all(fd, piece)
            os.fchmod(fd, harmless(info.mode) if info.mode else 0o644)
            os.utime(fd, ns=(info.mtime_ns, info.mtime_ns))
            if not emptied:
                os.fsync(fd)
            self._make_parent(union, target or key)
            os.rename(temporary, top.path(target or key))
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(fd)
        for file in self._files.at(key):
            file.attach(open_put(top.path(target or key), os.O_RDWR if file.writable else os.O_RDONLY))
        self._names_changed(target or key)

    def _copy_link_up(self, union: Union, key: str, entry: Entry, temporary: str, target: str) -> None:
        """The same for a symbolic link, which has neither permission bits nor a descriptor to be synced by: it comes
        with the names of its directory."""
        os.symlink(os.fsdecode(b"".join(pieces(union, key, entry))), temporary)
        try:
            os.utime(temporary, ns=(entry.info.mtime_ns, entry.info.mtime_ns), follow_symlinks=False)
            self._make_parent(union, target)
            os.rename(temporary, union.layers[0].path(target))
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        self._names_changed(target)

    def _remove_name(self, union: Union, key: str, entry: Entry) -> None:
        """Take a name out of the union. The whiteout comes first: what is above it still shows until it goes, too."""
        top = union.layers[0]
        self._hide_below(union, key, tell=is_timed(key) or (entry.kind == "dir" and key.startswith("zarr/")))
        if top.stat(key) is not None:
            if entry.kind == "file":
                os.unlink(top.path(key))
            else:
                self._unsynced.pop(key, None)
                grave = scratch_name(self.layout)
                os.rename(top.path(key), grave)
                delete_tree(grave)

    def _hide_below(self, union: Union, key: str, *, tell: bool) -> None:
        """Hide what the layers below the top, and the head, have at ``key``.

        With ``tell`` the removal is written down even if they have nothing: chunks were there, or will be, whose own
        times do not tell that the array has changed.
        """
        top = union.layers[0]
        if not tell and not top.hides(key) and union.beneath(top).entry(key) is None:
            return
        now = self.pulse.tick()
        top.hide(key, scratch_dir(self.layout), time_ns=now)
        self._make_parent(union, key)
        parent = key.rpartition("/")[0]
        os.utime(top.path(parent), ns=(now, now))
        self._note_above(key)  # the whiteout's own directories may be new

    def _keep_time(self, top: Layer, key: str) -> None:
        """Have the last change be the newest, where a file came to ``key`` with an older time of its own.

        Clients rely on a file's own times to survive a rename, and may set them to anything.
        """
        found = top.stat(key)
        if not isinstance(found, os.stat_result) or stat.S_ISDIR(found.st_mode) or not is_timed(key):
            return
        last = self.pulse.last()
        if found.st_mtime_ns < last and found.st_ctime_ns < last:
            # The kernel's clock for changes may stand still for some ms, unless the time of the last was looked at
            # (since Linux 6.13). To be changed once more is cheaper than a whiteout, for a commit too.
            os.utime(top.path(key), ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)
            if os.lstat(top.path(key)).st_ctime_ns < last:
                top.hide(key, scratch_dir(self.layout), time_ns=self.pulse.tick())
        elif found.st_mtime_ns > last:
            self.pulse.tick(found.st_mtime_ns)

    def _names_changed(self, key: str) -> None:
        self._note(key.rpartition("/")[0])
        self.pulse.beat(key)

    def _restructured(self, prefix: str, *, made: bool = False) -> None:
        """A directory was made, or moved or removed with what is in it."""
        if not made:
            self._rooted.clear()
            for layer in self._layers:
                layer.forget_folders()
        self._note(prefix.rpartition("/")[0])
        self.pulse.beat(prefix, below=True)

    def _note(self, folder: str) -> None:
        self._changes += 1
        self._unsynced[folder] = self._changes

    def _note_moved(self, moves: dict[str, str]) -> None:
        """Directories moved: what is to be synced below them lies elsewhere now."""
        moved = {}
        for source, target in moves.items():
            below = f"{source}/"
            for folder in [each for each in self._unsynced if each == source or each.startswith(below)]:
                moved[target + folder[len(source) :]] = self._unsynced.pop(folder)
        self._unsynced.update(moved)

    def _note_above(self, key: str) -> None:
        """The names of a key and of all directories above it may have come."""
        while key := key.rpartition("/")[0]:
            self._note(key)

    def _forget_gone(self) -> None:
        """Layers went, or much of one: directories that no layer has any more have no names to be made durable. What
        was in them is in the base, which is durable, or was removed, which is noted where they were."""
        layers = self.union().layers
        self._unsynced = {
            folder: last
            for folder, last in self._unsynced.items()
            if any(os.path.isdir(path(folder)) for layer in layers for path in (layer.path, layer.whiteout_path))
        }


def harmless(mode: int, *, folder: bool = False) -> int:
    """The permission bits that a file or directory gets that was given ``mode``.

    volfs itself must be able to read what is to be committed, and to change names in directories: the owner always can.
    """
    return (stat.S_IMODE(mode) & 0o777) | (0o700 if folder else 0o400)


def open_put(path: str, flags: int) -> int:
    """Open a file of the top layer for a client that the kernel has let through, whatever its permission bits say to
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
    """Whether views are made from what is at a key, so that the time of its last change counts."""
    return key.endswith(f"/{NODE_JSON}") or chunk_root(key) is not None
