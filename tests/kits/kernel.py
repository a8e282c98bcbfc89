"""A socket in the place of /dev/fuse: asks the front as the kernel does."""

from __future__ import annotations

import os
import select
import socket
import struct
from typing import Any, NamedTuple

from volfs.testing.waiting import until

LOOKUP, GETATTR = 1, 3
OPEN, READ, WRITE, RELEASE, FSYNC, FLUSH, OPENDIR, RELEASEDIR, FSYNCDIR, IOCTL = 14, 15, 16, 18, 20, 25, 27, 29, 30, 39
STATELESS = 1 << 63
NOTIFY_STORE = 4


def readable(fd: int, seconds: float = 0) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


class Attributes(NamedTuple):
    """What the kernel is told of an inode. Times are nanoseconds."""

    ino: int
    size: int
    blocks: int
    mode: int
    nlink: int
    uid: int
    gid: int
    mtime: int
    block_size: int

    @classmethod
    def of(cls, data: bytes, ino: int) -> Attributes:
        of_ino, size, blocks, *times = struct.unpack_from("<QQQQQQ", data)
        *parts, mode, nlink, uid, gid, rdev, block_size, _ = struct.unpack_from("<10I", data, 48)
        assert (of_ino, rdev) == (ino, 0)
        assert len({*times}) == len({*parts}) == 1, "all times are the last change's"
        return cls(ino, size, blocks, mode, nlink, uid, gid, times[0] * 10**9 + parts[0], block_size)


class Kernel:
    """Asks the front, and gets its answers."""

    def __init__(self, front: Any) -> None:
        self.front = front
        self.here, self.there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        #: What it was given unasked: (inode, offset, bytes).
        self.stored: list[tuple[int, int, bytes]] = []
        self._unique = 0

    def request(self, opcode: int, inode: int, body: bytes) -> bytes:
        """A request with a number of its own."""
        self._unique += 2
        return struct.pack("<IIQQIIIHH", 40 + len(body), opcode, self._unique, inode, 1000, 1000, 1, 0, 0) + body

    def ask(self, opcode: int, inode: int, body: bytes) -> bytes | None:
        """The answer without its header; None if the request was left to Python."""
        if not self.front.answer(self.request(opcode, inode, body), self.there.fileno()):
            assert not readable(self.here.fileno())
            return None
        unique, rest = self.answer()
        assert unique == self._unique
        return rest

    def answer(self) -> tuple[int, bytes]:
        """The next answer: the number of its request, and what is after the header."""
        unique, error, rest = self._message()
        assert error == 0 and 0 < unique <= self._unique
        while readable(self.here.fileno()) and not struct.unpack_from("<8xQ", self.here.recv(16, socket.MSG_PEEK))[0]:
            _, error, body = self._message()
            inode, offset, size, padding = struct.unpack_from("<QQII", body)
            assert (error, padding, size) == (NOTIFY_STORE, 0, len(body) - 24)
            self.stored.append((inode, offset, body[24:]))
        return unique, rest

    def refused(self, opcode: int, inode: int, body: bytes) -> int | None:
        """The errno that a request is answered with; None if it was left to Python."""
        if not self.front.answer(self.request(opcode, inode, body), self.there.fileno()):
            return None
        unique, error, rest = self._message()
        assert unique == self._unique and not rest
        return -error

    def _message(self) -> tuple[int, int, bytes]:
        message = self.here.recv(4 << 20)
        length, error, unique = struct.unpack_from("<IiQ", message)
        assert length == len(message)
        return unique, error, message[16:]

    def open(self, inode: int, flags: int = os.O_RDONLY) -> bytes | None:
        return self.ask(OPEN, inode, struct.pack("<II", flags, 0))

    def read(self, inode: int, offset: int, size: int, fh: int | None = None) -> bytes | None:
        fh = inode | STATELESS if fh is None else fh
        return self.ask(READ, inode, struct.pack("<QQIIQII", fh, offset, size, 0, 0, 0, 0))

    def write(self, fh: int, offset: int, data: bytes) -> int | None:
        """The bytes written."""
        answer = self.ask(WRITE, 1, struct.pack("<QQIIQII", fh, offset, len(data), 0, 0, 0, 0) + data)
        return None if answer is None else int(struct.unpack("<II", answer)[0])

    def written(self, fh: int, offset: int, data: bytes) -> None:
        """Write something that is surely answered here, once the disk is not slow."""
        until(lambda: self.write(fh, offset, data) is not None)

    def look_up(self, parent: int, name: bytes) -> tuple[int, Attributes | None] | None:
        """How long (s) the kernel keeps it, and what is there, if anything is."""
        answer = self.ask(LOOKUP, parent, name + b"\0")
        if answer is None:
            return None
        ino, generation, kept, attributes_kept, *_ = struct.unpack_from("<QQQQII", answer)
        if not ino:
            return kept, None
        assert generation == 1 and kept == attributes_kept
        return kept, Attributes.of(answer[40:], ino)

    def attributes(self, inode: int) -> Attributes | None:
        answer = self.ask(GETATTR, inode, bytes(16))
        return None if answer is None else Attributes.of(answer[16:], inode)

    def release(self, fh: int) -> bool:
        """True if it was answered."""
        return self.ask(RELEASE, 1, struct.pack("<QIIQ", fh, 0, 0, 0)) == b""

    def flush(self, fh: int) -> bool:
        """True if it was answered."""
        return self.ask(FLUSH, 1, struct.pack("<QIIQ", fh, 0, 0, 0)) == b""
