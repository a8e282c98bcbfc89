"""Stored payloads, and reading them with proof that they are what was written.

A payload is a run of bytes in some file below a dataset's ``versions/``: a chunk inside a shard, a side file, an opaque
object. Decided here: its address, its checksums, and that **no byte of a committed version reaches anyone unchecked**.
Not here: which payload holds which key (:mod:`volfs.catalog`), and what the bytes mean (:mod:`volfs.storage.codec`).

Checksums are crc32c. A payload over :data:`PIECE` bytes also has one for each piece of that size, so that a range of a
large object is proved by reading the pieces it touches and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from crc32c import crc32c

from volfs.errors import Absent, BadInput, Damaged, NotFound
from volfs.storage.backend import Backend, Bounded, read_range

PIECE = 1 << 20
"""Bytes per piece checksum."""

WhyAbsent = Callable[["Payload"], Absent | None]
"""The error for a payload that is not here, and is known not to be; None for any other. Raises Damaged."""


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
        while view:
            part = view[: PIECE - self.length % PIECE]
            self._piece = crc32c(part, self._piece)
            # So far as there is one piece, and most payloads are no longer, it is the whole.
            self._crc = self._piece if self.length < PIECE else crc32c(part, self._crc)
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
        """The payload of the bytes summed so far, at the place given."""
        return Payload(file, offset, self.length, self.crc32c, self.pieces)


def digest(data: bytes | bytearray | memoryview) -> PayloadDigest:
    """All checksums of bytes in memory."""
    result = PayloadDigest()
    result.update(data)
    return result


class PayloadReader:
    """Reads payloads of one dataset, from its ``versions/``, and checks every byte it hands out. Thread-safe; never
    raises OSError.

    A missing file, a short file, an I/O error of the disk and a checksum that does not match are all Damaged, naming
    file and offset; unless ``why_absent`` knows better. It is asked only then: what is here costs nothing.
    """

    def __init__(self, versions: Backend, why_absent: WhyAbsent | None = None) -> None:
        self._versions = versions
        self._why_absent = why_absent

    def read(self, payload: Payload, offset: int = 0, length: int | None = None) -> bytes:
        """The payload's bytes from ``offset``, up to ``length`` of them (None: to the end). Like pread, short at the
        end: a range past it is empty."""
        start = min(max(0, offset), payload.length)
        stop = payload.length if length is None else min(payload.length, start + max(0, length))
        if stop <= start and payload.length:
            return b""
        try:
            if payload.pieces is not None and (start, stop) != (0, payload.length):
                return self._read_pieces(payload, start, stop)
            data = self._stored(payload, 0, payload.length)
            _check(data, payload.crc32c, payload.file, payload.offset)
        except Damaged as error:
            raise self._told(payload, error) from None
        return data if len(data) == stop - start else data[start:stop]

    def read_resident(self, payload: Payload) -> memoryview | None:
        """A whole payload if no disk need be waited for, else None. Damaged may mean absent: :meth:`read` can tell."""
        data = self._versions.resident(payload.file, Bounded(payload.offset, payload.length))
        if data is not None:
            _check(data, payload.crc32c, payload.file, payload.offset)
        return data

    def opened(self, file: str) -> AbstractContextManager[int | None]:
        """A payload's file, open for reading until the context ends; None if it is no file of this machine. What is
        read from it is not checked. Raises NotFound, Damaged."""
        return self._versions.opened(file)

    def close(self) -> None:
        """Close all files, those in use as soon as their readers are done. Reading again opens them again."""
        self._versions.forget()

    def _told(self, payload: Payload, error: Damaged) -> Absent | Damaged:
        """The error for a payload that could not be read."""
        if self._why_absent is None:
            return error
        try:
            return self._why_absent(payload) or error
        except Damaged as unknown:
            return Damaged(f"{error}; whether it should be there cannot be told: {unknown}")

    def _stored(self, payload: Payload, offset: int, length: int) -> bytes:
        """Bytes of a payload, not checked."""
        try:
            return read_range(self._versions, payload.file, payload.offset + offset, length)
        except NotFound as error:
            raise Damaged(str(error)) from None
        except BadInput as error:
            raise Damaged(f"{payload.file}: {error}") from None

    def _read_pieces(self, payload: Payload, start: int, stop: int) -> bytes:
        first, last = start // PIECE, -(-stop // PIECE)
        low, high = first * PIECE, min(last * PIECE, payload.length)
        crcs = np.frombuffer(payload.pieces or b"", "<u4")
        if len(crcs) != -(-payload.length // PIECE):
            raise Damaged(f"{payload.file}: {len(crcs)} piece checksums for {payload.length} bytes at {payload.offset}")
        data = self._stored(payload, low, high - low)
        view = memoryview(data)
        for i in range(first, last):
            at = i * PIECE - low
            _check(view[at : at + PIECE], int(crcs[i]), payload.file, payload.offset + i * PIECE)
        return data[start - low : stop - low]


def _check(data: bytes | memoryview, crc: int, file: str, offset: int) -> None:
    if crc32c(data) != crc:
        raise Damaged(f"{file}: checksum mismatch in {len(data)} bytes at offset {offset}")
