"""One request and its answer, over ASGI.

Decided here: how a body is taken in and sent in pieces, each when the client has taken the one before, and that work
for a client that has gone ends. Not here: HTTP itself, which is hypercorn's.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import parse_qs

import trio

from volfs.web.http_status import Refusal

Headers = Sequence[tuple[str, str]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

#: Of a body that nobody wants, so much is taken in before the connection ends: then a client reads the answer.
_UNWANTED_BYTES = 16 << 20
_UNWANTED_SECONDS = 10.0
#: A client that sends nothing of its request's body for so long is given up.
_STALL_SECONDS = 120.0


_ORIGIN = re.compile(rb"https?://[^/]*(?=/)", re.IGNORECASE)
_FIELDS = 20


class Gone(Exception):
    """The client has closed the connection before its request or the answer was whole."""


class HttpExchange:
    """A request, and what is sent for it."""

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.method = str(scope["method"])
        #: Of a whole URL, which a client may send in place of a path, its path.
        self.raw_path = _ORIGIN.sub(b"", bytes(scope["raw_path"]), count=1)
        self.query = _query(scope["query_string"].decode("latin-1"))
        self.client = scope["client"][0] if scope.get("client") else "-"
        self._hold: Callable[[], None] | None = (
            scope.get("state", {}).get("hold") if scope["http_version"] < "2" else None
        )
        self._headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
            self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text
        self._receive = receive
        self._send = send
        self._taken_in = self._gone = False
        #: Sent with every answer.
        self.always: list[tuple[str, str]] = []
        #: Called when the answer begins, whatever it is.
        self.before_answer: Callable[[], None] = lambda: None
        #: Of the answer: None until it has begun.
        self.status: int | None = None
        self.sent = 0

    def header(self, name: str) -> str | None:
        """A header of the request; those that came several times are one list."""
        return self._headers.get(name)

    @property
    def length(self) -> int | None:
        """The bytes that the request's body announces; None if it does not. 0 without a body."""
        if "transfer-encoding" in self._headers:
            return None
        text = self._headers.get("content-length", "0")
        return int(text) if text.isdecimal() else 0

    async def pieces(self) -> AsyncIterator[bytes]:
        """The request's body. Raises Gone if it ends too early."""
        while not self._taken_in:
            message = None
            with trio.move_on_after(_STALL_SECONDS):
                message = await self._next()
            if message is None:
                raise Refusal(408, "the rest of the request did not come")
            data = message.get("body", b"")
            if data:
                yield data

    async def body(self, limit: int) -> bytes:
        """The whole body of the request, of at most ``limit`` bytes. Raises Refusal."""
        found = bytearray()
        async for piece in self.pieces():
            found += piece
            if len(found) > limit:
                raise Refusal(413, f"such a body has at most {limit >> 10} KiB")
        return bytes(found)

    async def _next(self) -> dict[str, Any]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._taken_in = self._gone = True
            raise Gone
        self._taken_in = not message.get("more_body", False)
        return message

    # -- the answer -------------------------------------------------------------------------------------------------

    async def answer(self, status: int, headers: Headers = (), body: bytes | str = b"") -> None:
        """A whole answer."""
        data = body.encode() if isinstance(body, str) else body
        length = [] if status in (204, 304) else [("content-length", str(len(data)))]
        await self.begin(status, [*headers, *length])
        if data and self.method != "HEAD":
            await self.send(data)
        await self.end()

    async def begin(self, status: int, headers: Headers) -> None:
        """The head of an answer. Its body follows in pieces, the first at once, or its end."""
        self.before_answer()
        if self._hold is not None:
            self._hold()
        self.status = int(status)
        lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*headers, *self.always)]
        await self._send({"type": "http.response.start", "status": self.status, "headers": lines})

    async def send(self, data: bytes | memoryview) -> None:
        """A piece of the answer's body; returns when the connection has room for more."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self.sent += len(data)

    async def end(self) -> None:
        """The end of the answer."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def while_there(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do what sends an answer for as long as the client is there. Raises Gone if it went."""
        failed: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            try:
                await work()
            except Exception as error:
                failed = error
            nursery.cancel_scope.cancel()
        if failed is not None:
            raise failed
        if self._gone:
            raise Gone

    async def _watch(self, scope: trio.CancelScope) -> None:
        """See the client go."""
        try:
            while True:
                await self._next()
        except Gone:
            scope.cancel()

    async def finish(self) -> None:
        """Take in what is left of the request's body, so that the connection can serve the next one."""
        left = _UNWANTED_BYTES
        with trio.move_on_after(_UNWANTED_SECONDS):
            while not self._taken_in and left > 0:
                try:
                    left -= len((await self._next()).get("body", b""))
                except Gone:
                    return


def _query(text: str) -> dict[str, list[str]]:
    """The fields of a query; none of one that has more than any client of ours asks for."""
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError:
        return {}
