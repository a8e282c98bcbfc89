"""Frames: how two volfs talk over a pair of streams.

    frame = "vfs1", kind (u8), three zeros, length (u32), crc32c of the body (u32), crc32c of these 16 bytes (u32); body

A frame is a *message*, a JSON object whose member ``say`` names it, or *data*, bytes that an earlier message has
announced. Decided here: frames, their bounds, and that an altered or cut stream is an error at the frame where it
happens. Not here: which messages there are (:mod:`volfs.versions.remotes.questions`), and what the streams lead to
(:mod:`volfs.versions.remotes.connection`).

A length is proved and checked before memory is taken for it, or waited for. Errors of the other end come as a message
of their own, and are raised here as what they were there.
"""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any

from crc32c import crc32c

from volfs import errors
from volfs.errors import BadInput, Damaged, VolfsError
from volfs.model.display import printable
from volfs.storage.files import widen_pipe, write_all

_MAGIC = b"vfs1"
_BEFORE = struct.Struct("<4sB3xII")
_SUM = struct.Struct("<I")
_HEAD = _BEFORE.size + _SUM.size

MOST_TEXT = 16 << 20
"""Bytes of the largest message."""
PIECE = 1 << 20
"""Bytes of the largest frame of data."""


class Kind(IntEnum):
    """The kind of a frame."""

    MESSAGE = 1
    DATA = 2


_MOST = {Kind.MESSAGE: MOST_TEXT, Kind.DATA: PIECE}


class Cut(VolfsError):
    """The other end is gone. What has arrived is kept: the same again goes on from there."""

    errno = errno.ECONNABORTED


class Message:
    """A message: what it says, and its members, each read as what it must be. Damaged if it is something else."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts
        self.say = self.text("say")

    def __repr__(self) -> str:
        return f"<message {self.say!r}>"

    def text(self, name: str) -> str:
        """A member that is text."""
        value: str = self._typed(name, str)
        return value

    def number(self, name: str, most: int = 2**62) -> int:
        """A member that is a number from 0 to ``most``."""
        value: int = self._typed(name, int)
        if isinstance(value, bool) or not 0 <= value <= most:
            raise self._wrong(name)
        return value

    def flag(self, name: str) -> bool:
        """A member that is true or false."""
        value: bool = self._typed(name, bool)
        return value

    def items(self, name: str, most: int) -> list[Any]:
        """A member that is a list of at most ``most``."""
        found: list[Any] = self._typed(name, list)
        if len(found) > most:
            raise self._wrong(name)
        return found

    def texts(self, name: str, most: int) -> list[str]:
        """A member that is a list of texts."""
        found = self.items(name, most)
        if not all(isinstance(each, str) for each in found):
            raise self._wrong(name)
        return found

    def members(self, name: str) -> dict[str, Any]:
        """A member that is an object."""
        found: dict[str, Any] = self._typed(name, dict)
        return found

    def _typed(self, name: str, kind: type[Any]) -> Any:
        value = self._facts.get(name)
        if not isinstance(value, kind):
            raise self._wrong(name)
        return value

    def _wrong(self, name: str) -> Damaged:
        said = printable(str(self._facts.get("say"))[:40])
        return Damaged(f"the other end sent a message {said!r} whose {name!r} cannot be right")


class Frames:
    """Both directions of one connection, by two descriptors. Not thread-safe. ``messages`` and ``bytes`` count what was
    heard and said, for tests and for reports."""

    def __init__(self, incoming: int, outgoing: int, other: str) -> None:
        self._in = incoming
        self._out = outgoing
        self.other = other
        self.heard = 0
        self.said = 0
        self.heard_bytes = 0
        self.said_bytes = 0
        self._piece = bytearray(PIECE)
        for fd in (incoming, outgoing):
            widen_pipe(fd)

    # -- saying -------------------------------------------------------------------------------------------------

    def tell(self, say: str, **facts: Any) -> None:
        """Send a message."""
        body = json.dumps({"say": say, **facts}, separators=(",", ":"), ensure_ascii=True).encode()
        if len(body) > MOST_TEXT:
            raise BadInput(f"a message of {len(body):,} bytes is more than the other end takes")
        self._send(Kind.MESSAGE, body)
        self.said += 1

    def tell_error(self, error: BaseException) -> None:
        """Send the error that ended what the other end asked for."""
        known = isinstance(error, VolfsError)
        what = str(error) if known else f"{type(error).__name__}: {error}"
        self.tell("error", kind=type(error).__name__ if known else VolfsError.__name__, message=what)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send data that a message has announced: any number of bytes."""
        view = memoryview(data).cast("B")
        for at in range(0, len(view), PIECE):
            self._send(Kind.DATA, view[at : at + PIECE])

    def _send(self, kind: Kind, body: bytes | memoryview) -> None:
        before = _BEFORE.pack(_MAGIC, kind, len(body), crc32c(body))
        head = before + _SUM.pack(crc32c(before))
        try:
            if len(body) < 65536:
                write_all(self._out, head + bytes(body))
            else:
                write_all(self._out, head)
                write_all(self._out, body)
        except (BrokenPipeError, ConnectionResetError):
            raise self._cut() from None
        self.said_bytes += len(head) + len(body)

    # -- hearing ------------------------------------------------------------------------------------------------

    def hear(self, *expected: str) -> Message:
        """The next message. Raises the error that it says; Damaged if it is none of those expected."""
        kind, body = self._receive()
        if kind is not Kind.MESSAGE:
            raise Damaged(f"{self.other} sent data where a message belongs")
        self.heard += 1
        try:
            facts = json.loads(bytes(body))
        except (ValueError, RecursionError):
            raise Damaged(f"{self.other} sent a message that is no JSON") from None
        if not isinstance(facts, dict):
            raise Damaged(f"{self.other} sent a message that is no JSON object")
        message = Message(facts)
        if message.say == "error":
            raise _error(message, self.other)
        if expected and message.say not in expected:
            raise Damaged(f"{self.other} said {printable(message.say[:40])!r} where {' or '.join(expected)} belongs")
        return message

    def data(self, size: int) -> Iterator[memoryview]:
        """The next ``size`` bytes of data, piece after piece. A piece is valid until the next is asked for."""
        while size:
            kind, body = self._receive()
            if kind is Kind.MESSAGE:
                with_error = Message(_object(bytes(body)))
                if with_error.say == "error":
                    raise _error(with_error, self.other)
            if kind is not Kind.DATA or not 0 < len(body) <= size:
                raise Damaged(f"{self.other} sent something else than the data that it announced")
            size -= len(body)
            yield body

    def whole(self, size: int) -> bytes:
        """The next ``size`` bytes of data. The caller has checked that they may be so many."""
        return b"".join(map(bytes, self.data(size)))

    def _receive(self) -> tuple[Kind, memoryview]:
        head = self._read(bytearray(_HEAD), _HEAD)
        magic, number, length, sum_of_body = _BEFORE.unpack_from(head)
        if magic != _MAGIC or number not in _MOST:
            text = printable(bytes(head).decode("utf-8", "replace"))
            raise Damaged(f"{self.other} does not speak as volfs does: it sent {text!r}")
        if crc32c(head[: _BEFORE.size]) != _SUM.unpack_from(head, _BEFORE.size)[0]:
            raise self._altered()
        kind = Kind(number)
        if length > _MOST[kind]:
            raise Damaged(f"{self.other} sent a frame of {length:,} bytes")
        body = self._read(self._piece if length <= PIECE else bytearray(length), length)
        if crc32c(body) != sum_of_body:
            raise self._altered()
        self.heard_bytes += _HEAD + length
        return kind, body

    def _read(self, into: bytearray, size: int) -> memoryview:
        view = memoryview(into)[:size]
        done = 0
        while done < size:
            try:
                count = os.readv(self._in, [view[done:]])
            except ConnectionResetError:
                count = 0
            if not count:
                raise self._cut()
            done += count
        return view

    def _altered(self) -> Damaged:
        return Damaged(f"what {self.other} sent was altered on its way: a checksum does not match")

    def _cut(self) -> Cut:
        return Cut(f"the connection to {self.other} ended too early: the same again goes on where this stopped")


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"say": ""}


def _error(message: Message, other: str) -> VolfsError:
    """What the other end could not do, as an error of the kind that it was there."""
    kind = getattr(errors, message.text("kind"), VolfsError)
    if not (isinstance(kind, type) and issubclass(kind, VolfsError)):
        kind = VolfsError
    return kind(f"{other}: {printable(message.text('message')[:4000])}")
