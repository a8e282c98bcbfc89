"""One request from its method to its answer: an ASGI application over the tree.

Decided here: which methods there are, in which form a directory is sent, which headers every answer has, and what is
logged of it. Not here: how each is carried out. As in :mod:`volfs.fuse.adapter`, nothing but an answer leaves a
handler, whatever happens in it.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from volfs import __version__
from volfs.errors import NotFound
from volfs.tree.contract.api import TreeApi
from volfs.tree.contract.attrs import FOREVER
from volfs.tree.contract.time_limit import only_looks
from volfs.versions.author import acting_for
from volfs.web import folder_listing
from volfs.web.authoring import Authoring
from volfs.web.browser_page import BrowserPage
from volfs.web.byte_ranges import NotThere, byte_ranges
from volfs.web.credentials import NOBODY, Caller, Gate, Unknown
from volfs.web.entry_cache import EntryCache
from volfs.web.file_body import FileBodies
from volfs.web.http_exchange import Gone, HttpExchange, Receive, Send
from volfs.web.http_status import Refusal, failure
from volfs.web.media_types import HTML, JSON, SANDBOX, TEXT, media_type
from volfs.web.places import Place, Places
from volfs.web.url_paths import from_page, names_of, path_of, reference
from volfs.web.validators import caching, check, entity_tag, http_date, range_holds

log = logging.getLogger(__name__)
requests = logging.getLogger("volfs.web.requests")

#: Those that change nothing, so that their clients need not wait for ever.
_LOOKS = ("OPTIONS", "GET", "HEAD", "PROPFIND")

#: Pages of anywhere may read what is public: viewers such as Neuroglancer come from other servers. No page is ever
#: given what a browser would add by itself (cookies, passwords): that needs another header, which is never sent.
_CORS = [
    ("access-control-allow-origin", "*"),
    ("access-control-expose-headers", "Accept-Ranges, Content-Length, Content-Range, ETag, Last-Modified"),
    ("cross-origin-resource-policy", "cross-origin"),
]
_CORS_HEADERS = (
    "Authorization, Content-Type, Depth, Destination, If, If-Match, If-Modified-Since, If-None-Match, If-Range, "
    "If-Unmodified-Since, Lock-Token, Overwrite, Range, Timeout"
)
_CORS_SECONDS = 86400

_DATED_NS = 2 * 10**9

#: What a client must do that is not let in. Windows takes the first only.
_LOG_IN = [("www-authenticate", 'Basic realm="volfs", charset="UTF-8"'), ("www-authenticate", 'Bearer realm="volfs"')]


class Application:
    """Answers requests from a tree. ``writable``: who has logged in may change it."""

    def __init__(self, tree: TreeApi, gate: Gate, *, writable: bool = False, page: BrowserPage | None = None) -> None:
        self._tree = tree
        self._gate = gate
        self._page = page or BrowserPage()
        self._bodies = FileBodies(tree)
        self._cache = EntryCache()
        self._authoring = Authoring(tree, self._bodies, self._cache, writable=writable)
        self._handlers: dict[str, Callable[[HttpExchange, Caller], Awaitable[None]]] = {
            "GET": self._get,
            "HEAD": self._get,
            **self._authoring.looks,
            **self._authoring.changes,
        }

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif scope["type"] == "http":
            await self._answer(HttpExchange(scope, receive, send))

    async def _answer(self, exchange: HttpExchange) -> None:
        began, caller = time.perf_counter(), NOBODY
        exchange.always = _CORS
        method = exchange.method if exchange.method in (*self._handlers, "OPTIONS") else "other"
        meter = self._tree.meter
        number = meter.begin(method, (exchange.raw_path,))
        only_looks.set(method in _LOOKS)
        try:
            if method == "OPTIONS":
                await self._options(exchange)
            elif method == "other":
                raise Refusal(405, "volfs has no such method", [("allow", self._allowed)])
            else:
                if method == "GET" and "token" in exchange.query:
                    await self._let_in(exchange)
                    return
                cookies = exchange.header("cookie") if method in ("GET", "HEAD") else None
                caller = await self._gate.caller(exchange.header("authorization"), cookies)
                if method in self._authoring.changes and not caller.known:
                    raise Unknown
                if method in self._authoring.changes:
                    await self._change(method, exchange, caller)
                else:
                    await self._handlers[method](exchange, caller)
        except Gone:
            pass
        except Unknown:
            await _refuse(exchange, 401, "log in first", _LOG_IN)
        except Refusal as refusal:
            await _refuse(exchange, refusal.status, refusal.line, refusal.headers)
        except Exception as error:
            told = failure(f"{exchange.method} {exchange.raw_path.decode('latin-1')}", error)
            meter.errors[method, told.number] += 1
            meter.failed += told.status >= 500
            if told.number == errno.EACCES and not caller.known and self._gate.closed:
                await _refuse(exchange, 401, "log in first", _LOG_IN)
            else:
                await _refuse(exchange, told.status, told.line, told.headers)
        finally:
            meter.end(number)
            requests.info(
                '%s %s "%s %s" %s %d bytes, %.1f ms',
                exchange.client,
                caller.name or "-",
                exchange.method,
                exchange.raw_path.decode("latin-1"),
                exchange.status or "gone",
                exchange.sent,
                (time.perf_counter() - began) * 1e3,
            )
        await exchange.finish()

    async def _change(self, method: str, exchange: HttpExchange, caller: Caller) -> None:
        self._cache.forget()
        exchange.before_answer = self._cache.forget
        with acting_for(caller.author):
            await self._handlers[method](exchange, caller)

    async def _let_in(self, exchange: HttpExchange) -> None:
        """Give a browser that came with the token a cookie, and lead it on: the token stays in no address."""
        names, folder = names_of(exchange.raw_path)
        headers = [
            ("location", path_of(names, folder=folder)),
            ("set-cookie", self._gate.cookie(exchange.query["token"][-1])),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
        ]
        await exchange.answer(303, headers)

    @property
    def _allowed(self) -> str:
        return ", ".join((*self._handlers, "OPTIONS"))

    async def _options(self, exchange: HttpExchange) -> None:
        headers = [("allow", self._allowed), ("dav", self._authoring.classes), ("ms-author-via", "DAV")]
        if exchange.header("access-control-request-method") is not None:
            headers += [
                ("access-control-allow-methods", self._allowed),
                ("access-control-allow-headers", _CORS_HEADERS),
                ("access-control-max-age", str(_CORS_SECONDS)),
            ]
            if exchange.header("access-control-request-private-network") == "true":
                headers.append(("access-control-allow-private-network", "true"))
        await exchange.answer(200, headers)

    # -- reading ----------------------------------------------------------------------------------------------------

    async def _get(self, exchange: HttpExchange, caller: Caller) -> None:
        names, folder = names_of(exchange.raw_path)
        if self._page.owns(names):
            if not self._page.has(names):
                raise NotFound("the page has no such file")
            await self._page.send(exchange, names)
            return
        places = Places(self._tree, caller, self._cache)
        place = await places.find(names)
        if not place.exists:
            raise NotFound("there is nothing of this name")
        if not place.attr.is_dir:
            if folder:
                raise NotFound("this is no directory", errno=errno.ENOTDIR)
            await self._get_file(exchange, caller, names, place)
        elif not folder:
            # The names in a listing are meant from its own URL.
            query = f"?format={exchange.query['format'][-1]}" if _format(exchange) in ("json", "html") else ""
            await exchange.answer(301, [("location", f"{reference(names[-1], folder=True)}{query}")])
        else:
            await self._get_folder(exchange, caller, places, place)

    async def _get_folder(self, exchange: HttpExchange, caller: Caller, places: Places, place: Place) -> None:
        wanted = _format(exchange)
        as_json = wanted == "json" or (wanted is None and _prefers_json(exchange.header("accept")))
        asks_for_html = wanted is None and "text/html" in (exchange.header("accept") or "")
        if not place.names and asks_for_html and not as_json and self._page.is_there:
            await self._page.send(exchange)
            return
        headers = [
            ("content-type", JSON if as_json else HTML),
            ("vary", "Accept"),
            ("cache-control", caching(lasting=False, private=caller.known)),
            ("content-security-policy", folder_listing.POLICY),
            ("x-content-type-options", "nosniff"),
        ]
        if place.attr.entry_timeout >= FOREVER:
            kind = "json" if as_json else "html"
            tag = f'"{place.attr.ino:x}-{place.attr.mtime:x}-{kind}-{__version__}"'
            headers.append(("etag", tag))
            if not check(exchange, tag, place.attr.mtime):
                await exchange.answer(304, headers)
                return
        send = folder_listing.send_json if as_json else folder_listing.send_html
        await send(exchange, places, place, headers)

    async def _get_file(self, exchange: HttpExchange, caller: Caller, names: tuple[bytes, ...], place: Place) -> None:
        caller.need(place.attr, os.R_OK)
        headers = [("content-type", media_type(place.names[-1])), *SANDBOX]
        async with self._bodies.reading(place.attr.ino) as file:
            if file.direct_io:
                headers.append(("cache-control", "no-store"))
                await self._bodies.send_live(exchange, file, headers)
                return
            # What may change may have done so until it was open.
            attr = place.attr if place.attr.entry_timeout >= FOREVER else await self._tree.getattr(place.attr.ino)
            tag = entity_tag(attr)
            headers += [
                ("accept-ranges", "bytes"),
                ("cache-control", caching(lasting=place.lasting, private=caller.known)),
                ("etag", tag),
            ]
            # To the second: of what has changed within this one, a client could not tell one state from the next.
            if place.lasting or time.time_ns() - attr.mtime > _DATED_NS:
                headers.append(("last-modified", http_date(attr.mtime)))
            if place.through:
                headers.append(("content-location", from_page(names, place.names)))
            if not check(exchange, tag, attr.mtime):
                await exchange.answer(304, headers)
                return
            ranges = None
            if exchange.method == "GET" and range_holds(exchange, tag, attr.mtime):
                try:
                    ranges = byte_ranges(exchange.header("range"), attr.size)
                except NotThere:
                    told = [("content-range", f"bytes */{attr.size}"), ("accept-ranges", "bytes")]
                    raise Refusal(416, f"the file has {attr.size} bytes", told) from None
            await self._bodies.send(exchange, file, attr.size, ranges, headers)


async def _refuse(exchange: HttpExchange, status: int, line: str, headers: list[tuple[str, str]]) -> None:
    """Say no; or, in the middle of an answer, end the connection, so that nobody takes its beginning for the whole."""
    if exchange.status is None:
        more = [("content-type", TEXT), ("x-content-type-options", "nosniff"), ("cache-control", "no-store")]
        await exchange.answer(status, [*more, *headers], f"{line}\n".encode("utf-8", "replace"))


def _format(exchange: HttpExchange) -> str | None:
    given = exchange.query.get("format")
    return given[-1] if given else None


def _prefers_json(accept: str | None) -> bool:
    """Whether JSON is named, and nothing that a listing could also be is wanted more."""
    weights = {"application/json": 0.0, "text/html": 0.0}
    for part in (accept or "").split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if kind in weights:
            quality = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
            weights[kind] = float(quality) if re.fullmatch(r"[01](\.[0-9]{0,3})?", quality) else 0.0
    return weights["application/json"] > weights["text/html"]
