"""Stored payloads, and reading them with proof that they are what was written.

A payload is a run of bytes in some file below a dataset's ``versions/``: a chunk inside a shard, a side file, an opaque
object. Decided here: its address, its checksums, and that **no byte of a committed version reaches anyone unchecked**.
Not here: which payload holds which key (:mod:`volfs.catalog`), and what the bytes mean (:mod:`volfs.storage.codec`).

Checksums are crc32c. A payload over :data:`PIECE` bytes also has one for each piece of that size, so that a range of a
large object is proved by reading the pieces it touches and no more.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from crc32c import crc32c

from volfs.errors import Damaged
from volfs.storage.files import open_regular

PIECE = 1 << 20
"""Bytes per piece checksum."""


@dataclass(frozen=True, slots=True)
class Payload:
    """Where bytes lie, and their checksums.

    ``file`` is relative to the dataset's ``versions`` directory ("00000012/zarr/s0/c/0/0/0"). ``pieces`` holds the
    crc32c of each :data:`PIECE`, as little-endian u32, for payloads longer than one; else None.
    """

    file: str
    offset: int
    length: int
    crc32c: int
    pieces: bytes | None = None


class PayloadDigest:
    """Checksums of a payload, computed while it is written: crc32c, the pieces' crc32c, SHA-256."""

    def __init__(self) -> None:
        self.length = 0
        self._crc = 0
        self._piece = 0
        self._pieces: list[int] = []
        self._sha = sha256()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take in the next bytes."""
        view = memoryview(data).cast("B")
        self._sha.update(view)
        self._crc = crc32c(view, self._crc)
        while view:
            part = view[: PIECE - self.length % PIECE]
            self._piece = crc32c(part, self._piece)
            self.length += len(part)
            if self.length % PIECE == 0:
                self._pieces.append(self._piece)
                self._piece = 0
            view = view[len(part) :]

    @property
    def crc32c(self) -> int:
        return self._crc

    @property
    def sha256(self) -> bytes:
        return self._sha.digest()

    @property
    def pieces(self) -> bytes | None:
        if self.length <= PIECE:
            return None
        last = [self._piece] if self.length % PIECE else []
        return np.array(self._pieces + last, "<u4").tobytes()

    def payload(self, file: str, offset: int = 0) -> Payload:
        """The payload of the bytes taken in so far, lying there."""
        return Payload(file, offset, self.length, self.crc32c, self.pieces)


def digest(data: bytes | bytearray | memoryview) -> PayloadDigest:
    """All checksums of bytes in memory."""
    result = PayloadDigest()
    result.update(data)
    return result


class PayloadReader:
    """Reads payloads of one dataset and checks every byte it hands out. Thread-safe; never raises OSError.

    A missing file, a short file, an I/O error of the disk and a checksum that does not match are all Damaged, naming
    file and offset.
    """

    def __init__(self, versions_dir: Path, *, max_files: int = 256) -> None:
        self._files = _OpenFiles(versions_dir, max_files)

    def read(self, payload: Payload, offset: int = 0, length: int | None = None) -> bytes:
        """The payload's bytes from ``offset``, up to ``length`` of them (None: to the end). Like pread, short at the
        end: a range past it is empty."""
        start = min(max(0, offset), payload.length)
        stop = payload.length if length is None else min(payload.length, start + max(0, length))
        if stop <= start and payload.length:
            return b""
        with self._files.open(payload.file) as fd:
            if payload.pieces is not None and (start, stop) != (0, payload.length):
                return _read_pieces(fd, payload, start, stop)
            data = _pread(fd, payload.file, payload.offset, payload.length)
        _check(data, payload.crc32c, payload.file, payload.offset)
        return data if len(data) == stop - start else data[start:stop]

    def read_resident(self, payload: Payload) -> memoryview | None:
        """A whole payload if no disk need be waited for, else None: the kernel has all of it in memory, and its file is
        open already."""
        data = np.empty(payload.length, np.uint8).data  # a bytearray would be filled with zeros first
        with self._files.opened(payload.file) as fd:
            if fd is None:
                return None
            try:
                if os.preadv(fd, [data], payload.offset, os.RWF_NOWAIT) != payload.length:
                    return None
            except OSError:  # not resident, or a filesystem that cannot tell
                return None
        _check(data, payload.crc32c, payload.file, payload.offset)
        return data

    def forget(self, prefix: str = "") -> None:
        """Let go of open files whose name begins so, because they were removed or replaced."""
        self._files.forget(prefix)

    def close(self) -> None:
        """Close all files, those in use as soon as their readers are done. Reading again opens them again."""
        self._files.forget("")


def _pread(fd: int, file: str, offset: int, length: int) -> bytes:
    try:
        data = os.pread(fd, length, offset)
        if len(data) == length:
            return data
        # pread may stop short (at 2 GiB on Linux, or on a signal) before the end of the file.
        parts = [data]
        got = len(data)
        while got < length and parts[-1]:
            parts.append(os.pread(fd, length - got, offset + got))
            got += len(parts[-1])
    except (OSError, OverflowError, MemoryError) as error:
        raise Damaged(f"{file}: cannot read {length} bytes at offset {offset}: {error}") from None
    if got < length:
        raise Damaged(f"{file}: ends at {offset + got}, but {length} bytes at offset {offset} were stored")
    return b"".join(parts)


def _read_pieces(fd: int, payload: Payload, start: int, stop: int) -> bytes:
    first, last = start // PIECE, -(-stop // PIECE)
    low, high = first * PIECE, min(last * PIECE, payload.length)
    crcs = np.frombuffer(payload.pieces or b"", "<u4")
    if len(crcs) != -(-payload.length // PIECE):
        raise Damaged(f"{payload.file}: {len(crcs)} piece checksums for {payload.length} bytes at {payload.offset}")
    data = _pread(fd, payload.file, payload.offset + low, high - low)
    view = memoryview(data)
    for i in range(first, last):
        at = i * PIECE - low
        _check(view[at : at + PIECE], int(crcs[i]), payload.file, payload.offset + i * PIECE)
    return data[start - low : stop - low]


def _check(data: bytes | memoryview, crc: int, file: str, offset: int) -> None:
    if crc32c(data) != crc:
        raise Damaged(f"{file}: checksum mismatch in {len(data)} bytes at offset {offset}")


class _OpenFiles:
    """File descriptors, the least recently used closed first, and never one that a reader is using."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _OpenFile] = OrderedDict()

    @contextmanager
    def open(self, name: str) -> Iterator[int]:
        entry = self._acquire(name)
        try:
            yield entry.fd
        finally:
            self._release(entry)

    @contextmanager
    def opened(self, name: str) -> Iterator[int | None]:
        """A file that is open, None if it is not."""
        with self._lock:
            entry = self._open.get(name)
            if entry is not None:
                entry.users += 1
        if entry is None:
            yield None
            return
        try:
            yield entry.fd
        finally:
            self._release(entry)

    def forget(self, prefix: str) -> None:
        with self._lock:
            names = [name for name in self._open if name.startswith(prefix)]
            idle = self._drop(self._open.pop(name) for name in names)
        _close(idle)

    def _acquire(self, name: str) -> _OpenFile:
        with self._lock:
            entry = self._open.get(name)
            if entry is not None:
                entry.users += 1
                self._open.move_to_end(name)
                return entry
        # Opened outside the lock: on a network filesystem open can take long, and hits must not wait for it.
        try:
            fd = open_regular(self._root / name)
        except (OSError, ValueError) as error:  # of an embedded NUL
            raise Damaged(f"{name}: cannot be opened: {getattr(error, 'strerror', None) or error}") from None
        idle = [fd]
        with self._lock:
            entry = self._open.get(name)
            if entry is None:
                entry = self._open[name] = _OpenFile(fd)
                idle = []
            entry.users += 1
            self._open.move_to_end(name)
            while len(self._open) > self._limit:
                idle += self._drop([self._open.popitem(last=False)[1]])
        _close(idle)
        return entry

    def _release(self, entry: _OpenFile) -> None:
        with self._lock:
            entry.users -= 1
            last = entry.dropped and entry.users == 0
        if last:
            os.close(entry.fd)

    @staticmethod
    def _drop(entries: Iterable[_OpenFile]) -> list[int]:
        """Mark entries as no longer listed; the descriptors that nobody uses are the caller's to close."""
        idle = []
        for entry in entries:
            entry.dropped = True
            if entry.users == 0:
                idle.append(entry.fd)
        return idle


class _OpenFile:
    __slots__ = ("dropped", "fd", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0
        self.dropped = False


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
