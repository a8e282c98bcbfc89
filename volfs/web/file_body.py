"""Sending a file of the tree, or ranges of it, in pieces.

Decided here: how much memory all answers together take, and that what cannot be read before the first byte is sent has
a status that says so, and after it ends the connection: no client takes half a file for a whole one. Not here: which
ranges are wanted (:mod:`volfs.web.byte_ranges`).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from volfs.tree.contract.api import OpenFile, TreeApi
from volfs.web.http_exchange import HttpExchange
from volfs.web.http_status import RETRY_SECONDS, Refusal

_LARGEST = 1 << 20
_SMALLEST = 64 << 10
#: What the pieces of all answers that are under way hold together, unless these are more than a thousand.
_BUDGET = 64 << 20


class FileBodies:
    """The files that are being sent."""

    def __init__(self, tree: TreeApi) -> None:
        self._tree = tree
        self._active = 0

    @property
    def _piece(self) -> int:
        return max(_SMALLEST, min(_LARGEST, _BUDGET // max(1, self._active)))

    @asynccontextmanager
    async def reading(self, ino: int) -> AsyncIterator[OpenFile]:
        """A file of the tree, open."""
        opened = await self._tree.open(ino, os.O_RDONLY)
        self._active += 1
        try:
            yield opened
        finally:
            self._active -= 1
            with trio.CancelScope(shield=True):
                await self._tree.release(opened.fh)

    async def read(self, file: OpenFile, offset: int, size: int) -> bytes | memoryview:
        """At most ``size`` bytes; fewer only at the end of the file."""
        data = await self._tree.read(file.fh, offset, min(size, self._piece))
        view = memoryview(data)
        self._tree.meter.bytes_read += view.nbytes
        return view if view.c_contiguous else view.tobytes()

    async def send_live(self, exchange: HttpExchange, file: OpenFile, headers: list[tuple[str, str]]) -> None:
        """Send a file whose size nobody knows before it ends."""
        data = await self.read(file, 0, _LARGEST)
        await exchange.begin(200, headers)
        if exchange.method == "HEAD":
            await exchange.end()
            return
        offset = 0
        while len(data):
            await exchange.send(data)
            offset += len(data)
            data = await self.read(file, offset, _LARGEST)
        await exchange.end()

    async def send(
        self,
        exchange: HttpExchange,
        file: OpenFile,
        size: int,
        ranges: list[range] | None,
        headers: list[tuple[str, str]],
    ) -> None:
        """Send a file of ``size`` bytes: the whole, one range, or several as a multipart document."""
        parts = _parts(size, ranges, headers)
        length = sum(len(head) + len(one) for head, one in parts)
        headers.append(("content-length", str(length)))
        if exchange.method == "HEAD":
            await exchange.begin(200, headers)
            await exchange.end()
            return
        first = parts[0][1] if len(parts) == 1 else range(0)
        # What is at its beginning is read before its status is sent.
        data = await self._whole(file, first.start, min(len(first), self._piece)) if first else b""
        await exchange.begin(200 if ranges is None else 206, headers)

        async def rest() -> None:
            ahead = data
            for head, one in parts:
                if head:
                    await exchange.send(head)
                offset = one.start
                while offset < one.stop:
                    piece = ahead or await self._whole(file, offset, min(one.stop - offset, self._piece))
                    ahead = b""
                    await exchange.send(piece)
                    offset += len(piece)

        if length == len(data):
            await rest()
        else:
            await exchange.while_there(rest)
        await exchange.end()

    async def _whole(self, file: OpenFile, offset: int, size: int) -> bytes | memoryview:
        data = await self.read(file, offset, size)
        if not len(data):
            again = [("retry-after", str(RETRY_SECONDS))]
            raise Refusal(503, f"the file ended at {offset}: it changed while it was read", again)
        return data


def _parts(size: int, ranges: list[range] | None, headers: list[tuple[str, str]]) -> Sequence[tuple[bytes, range]]:
    """What is sent: bytes, and then a range of the file; again and again. ``headers`` are made to say so."""
    if ranges is None:
        return [(b"", range(size))]
    if len(ranges) == 1:
        headers.append(("content-range", _content_range(ranges[0], size)))
        return [(b"", ranges[0])]
    boundary = secrets.token_hex(16)
    position = next(number for number, (name, _) in enumerate(headers) if name == "content-type")
    kind = headers[position][1]
    headers[position] = ("content-type", f"multipart/byteranges; boundary={boundary}")
    parts = [
        (
            f"\r\n--{boundary}\r\ncontent-type: {kind}\r\ncontent-range: {_content_range(one, size)}\r\n\r\n".encode(),
            one,
        )
        for one in ranges
    ]
    return [*parts, (f"\r\n--{boundary}--\r\n".encode(), range(0))]


def _content_range(one: range, size: int) -> str:
    return f"bytes {one.start}-{one.stop - 1}/{size}"
