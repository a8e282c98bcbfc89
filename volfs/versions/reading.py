"""Looking into a working copy, from any process, with no lock.

Decided here: that layers and base are noted before a look and compared after it, and that a look during which they
moved is made again. Not here: what one look sees (:mod:`volfs.versions.union`), and changing anything
(:mod:`volfs.versions.working`).
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from volfs.errors import BadName, Busy, NotFound, WrongKind
from volfs.model.names import check_key
from volfs.storage.claim import DAY_SECONDS
from volfs.storage.files import opened
from volfs.storage.layout import WorkingLayout
from volfs.versions import freezing
from volfs.versions.base import BaseFile
from volfs.versions.layers import SPACES, Change, Layer, layers_of
from volfs.versions.lock import BranchLock
from volfs.versions.pulse import Pulse
from volfs.versions.snapshot import KeyInfo, Listing, Snapshot
from volfs.versions.union import Entry, Union

_T = TypeVar("_T")
_Stamp = tuple[object, ...]
_ATTEMPTS = 1000
_COPY_BYTES = 8 << 20


class WorkingReader:
    """The reading half of a :class:`~volfs.versions.working.WorkingCopy`. Thread-safe.

    ``lower`` gives the version that it lies over, as it is now (None: nothing committed): the one that :attr:`base`
    names, else the branch's head. ``keep_up`` is called when the lock has come from outside: others may have moved the
    head, or removed the branch. ``settle`` is called after that, before anything is changed under the lock.
    ``dead_after``: see :class:`~volfs.versions.lock.BranchLock`. ``branch`` is for messages.
    """

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
        self.layout = layout
        self.branch = branch
        self._mutex = threading.RLock()
        self.lock = BranchLock(layout, branch, self._mutex, self._taken, settle, dead_after=dead_after)
        self.base = BaseFile(layout.base, lambda: self.lock.held)
        self.pulse = Pulse(layout, self._base_time, lambda: self.lock.held)
        self._lower = lower
        self._keep_up = keep_up
        self._layers: tuple[Layer, ...] = ()
        self._epoch = 0

    def look(self, see: Callable[[Union], _T]) -> _T:
        """What ``see`` finds in a union that did not change under it."""
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
        raise Busy(f"the working copy of {self.branch} changes faster than it can be read: try again")

    def union(self) -> Union:
        """The union as it is now, for several looks by somebody who holds the lock."""
        return self._union()[0]

    def stat(self, key: str) -> KeyInfo | None:
        """What is at ``key``, or None."""
        if not _possible(key):
            return None
        entry = self.look(lambda union: union.entry(key))
        return None if entry is None else entry.info

    def disk_stat(self, key: str) -> os.stat_result | None:
        """The stat of what the working copy itself has at ``key``, for its mode and links; None if it has nothing."""
        entry = self.look(lambda union: union.entry(key))
        return None if entry is None else entry.st

    def list(self, key: str) -> Listing:
        """The entries of a directory, sorted by name. Raises NotFound, or WrongKind for a file."""
        if not _possible(key):
            raise NotFound(f"{key} does not exist")
        return self.look(lambda union: union.list(key))

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file; short at its end. Raises NotFound, WrongKind, Damaged."""

        if not _possible(key):
            raise NotFound(f"{key} does not exist")

        def see(union: Union) -> bytes:
            entry = existing(union, key)
            if entry.kind == "dir":
                raise WrongKind(f"{key} is a directory", errno=errno.EISDIR)
            if entry.layer is None:
                assert union.lower is not None
                return union.lower.read(key, offset, length)
            return read_entry(entry, entry.layer, key, offset, length)

        return self.look(see)

    def changes(self, prefix: str = "") -> Iterator[Change]:
        """What differs from the base at and below ``prefix``; see :meth:`Union.changes`."""
        return self.union().changes(prefix)

    def _base_time(self) -> int:
        lower = self._lower()
        base = None if lower is None else lower.base
        return 0 if base is None else base.time_ns

    def _taken(self) -> None:
        self._keep_up()
        self.base.reread()
        self.pulse.reread()
        freezing.prepare(self.layout)
        self._reload()

    def _in_motion(self) -> None:
        """Layers are about to move: until :meth:`_reload`, every look goes by what lies on disk."""
        self._layers = ()
        self._epoch += 1

    def _reload(self) -> None:
        self._layers = layers_of(self.layout)
        self._epoch += 1

    def _union(self) -> tuple[Union, _Stamp]:
        """The union now, and what to compare later. Layers come first: see the order of a commit's last steps."""
        if self.lock.held and self._layers:
            stamp: _Stamp = (self._epoch,)
            layers = self._layers
        else:
            layers = layers_of(self.layout)
            top = layers[0].stat("") if layers else None
            stamp = (*(layer.name for layer in layers), getattr(top, "st_ino", 0))
        lower = self._lower()
        base = lower.base if lower is not None else None
        return Union(layers, lower), (*stamp, None if base is None else base.number)


def _possible(key: str) -> bool:
    """Whether something can be at ``key``. Keeps names such as ".." from being looked up on disk."""
    if not key or key in SPACES:
        return True
    try:
        check_key(key)
    except BadName:
        return False
    return True


def existing(union: Union, key: str) -> Entry:
    """What is at ``key``. NotFound if nothing is."""
    entry = union.entry(key)
    if entry is None:
        raise NotFound(f"{key} does not exist")
    return entry


def read_entry(entry: Entry, layer: Layer, key: str, offset: int = 0, length: int | None = None) -> bytes:
    """Bytes of what a layer has at a key: of a symbolic link, its target."""
    if entry.is_link:
        target = os.fsencode(os.readlink(layer.path(key)))
        return target[offset:] if length is None else target[offset : offset + length]
    fd = layer.open(key)
    try:
        return _pread(fd, offset, length)
    finally:
        os.close(fd)


def pieces(union: Union, key: str, entry: Entry) -> Iterator[bytes]:
    """The bytes of a file, a few MiB at a time."""
    if entry.layer is not None:
        if entry.is_link:
            yield read_entry(entry, entry.layer, key)
            return
        with opened(entry.layer.path(key)) as fd:
            while piece := os.read(fd, _COPY_BYTES):
                yield piece
        return
    assert union.lower is not None
    size = entry.info.size
    for offset in range(0, size, _COPY_BYTES):
        yield union.lower.read(key, offset, min(_COPY_BYTES, size - offset))


def _pread(fd: int, offset: int, length: int | None) -> bytes:
    if length is None:
        length = max(0, os.fstat(fd).st_size - offset)
    data = os.pread(fd, length, offset)
    while 0 < len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
