"""WebDAV: what clients change, and how they look around (RFC 4918, classes 1 and 2).

Decided here: what each method asks of conditions and locks before anything is changed, and its status. Not here: how
the tree is changed (:mod:`volfs.web.tree_changes`).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from volfs.errors import NotFound, VolfsError
from volfs.tree.contract.api import TreeApi
from volfs.tree.contract.attrs import SetAttr
from volfs.web import dav_locks, dav_properties, dav_xml
from volfs.web.credentials import Caller
from volfs.web.dav_locks import Lock, Locks, Names
from volfs.web.dav_properties import Properties
from volfs.web.dav_xml import dav, element
from volfs.web.entry_cache import EntryCache
from volfs.web.file_body import FileBodies
from volfs.web.http_exchange import HttpExchange
from volfs.web.http_status import Refusal
from volfs.web.media_types import JSON
from volfs.web.places import Place, Places
from volfs.web.tree_changes import TreeChanges
from volfs.web.url_paths import names_of, names_of_url, path_of
from volfs.web.validators import check, entity_tag

#: What macOS puts beside each file that it touches; the share in mount_examples/samba refuses them too.
_MAC = b"._"
_MACS = {b".DS_Store", b".Trashes", b".fseventsd", b".Spotlight-V100", b".metadata_never_index"}
#: What a client says of itself with each lock, in characters.
_LONGEST_OWNER = 4096


@dataclass(frozen=True, slots=True)
class _Request:
    """A request with what all methods need of it. ``shown``: tokens of locks."""

    exchange: HttpExchange
    caller: Caller
    names: Names
    places: Places
    shown: frozenset[str]


class Authoring:
    """The methods of WebDAV. ``writable``: those that change something are among them."""

    def __init__(self, tree: TreeApi, bodies: FileBodies, cache: EntryCache, *, writable: bool) -> None:
        self._tree = tree
        self._bodies = bodies
        self._cache = cache
        self._locks = Locks()
        self._writable = writable
        self.looks: dict[str, Callable[[HttpExchange, Caller], Awaitable[None]]] = {"PROPFIND": self._propfind}
        self.changes: dict[str, Callable[[HttpExchange, Caller], Awaitable[None]]] = {}
        if writable:
            for name in ("put", "delete", "mkcol", "copy", "move", "proppatch", "lock", "unlock"):
                self.changes[name.upper()] = getattr(self, f"_{name}")

    @property
    def classes(self) -> str:
        """Those of WebDAV that are served. Without locks macOS mounts it read-only, which is right then."""
        return "1, 2" if self._writable else "1"

    # -- looking ----------------------------------------------------------------------------------------------------

    async def _propfind(self, exchange: HttpExchange, caller: Caller) -> None:
        names, _ = names_of(exchange.raw_path)
        body = await exchange.body(dav_xml.LONGEST)
        wanted = dav_properties.wanted(dav_xml.parse(body) if body else None)
        depth = exchange.header("depth") or "infinity"
        if depth not in ("0", "1", "infinity"):
            raise Refusal(400, "Depth is 0 or 1")
        places = Places(self._tree, caller, self._cache)
        place = await _there(places, names)
        if depth == "infinity" and place.attr.is_dir:
            error = element(dav("error"), element(dav("propfind-finite-depth")))
            await exchange.answer(403, [("content-type", dav_xml.TYPE)], dav_xml.HEAD + error)
            return
        disk = await self._tree.statfs() if wanted.quota else None
        properties = Properties(self._locks if self._writable else None, wanted, disk)
        first = await places.batch(place.attr, 0) if depth == "1" and place.attr.is_dir else []
        await exchange.begin(207, [("content-type", dav_xml.TYPE), ("cache-control", "no-store")])

        async def work() -> None:
            head = f'{dav_xml.HEAD}<D:multistatus xmlns:D="DAV:">\n'
            await exchange.send((head + properties.response(names, place.attr)).encode("utf-8", "replace"))
            batch = first
            while batch:
                lines = []
                for entry in batch:
                    attr = entry.attr
                    if attr.is_link:  # shown as what it leads to, as clients of WebDAV know no links
                        attr = await places.followed((*place.names, entry.name), attr)
                    if not attr.is_link:
                        lines.append(properties.response((*names, entry.name), attr))
                await exchange.send("".join(lines).encode("utf-8", "replace"))
                batch = await places.batch(place.attr, batch[-1].cookie)
            await exchange.send(b"</D:multistatus>\n")

        await exchange.while_there(work)
        await exchange.end()

    # -- changing ---------------------------------------------------------------------------------------------------

    async def _request(
        self, exchange: HttpExchange, caller: Caller, names: Names, places: Places | None = None
    ) -> _Request:
        """Judge the If header. Raises Refusal (412) if it is not true."""
        places = places or Places(self._tree, caller, self._cache)
        lists = dav_locks.conditions(exchange.header("if"), exchange.header("host"))

        async def tag_of(about: Names) -> str | None:
            try:
                found = await places.find(about)
            except NotFound:
                return None
            return entity_tag(found.attr) if found.exists else None

        if not await dav_locks.holds(lists, names, self._locks, tag_of):
            raise Refusal(412, "it is not what you think it is (If)")
        return _Request(exchange, caller, names, places, dav_locks.shown(lists))

    def _need(self, request: _Request, names: Names, *, members: bool, deep: bool = False) -> None:
        self._locks.need(names, request.shown, request.caller.name, members=members, deep=deep)

    def _changes(self, request: _Request) -> TreeChanges:
        return TreeChanges(self._tree, self._bodies, request.places, request.caller)

    async def _put(self, exchange: HttpExchange, caller: Caller) -> None:
        names, folder = names_of(exchange.raw_path)
        if exchange.header("content-range") is not None:
            raise Refusal(400, "a part of a file cannot be put here: a box of voxels has a file of its own in cutout/")
        request = await self._request(exchange, caller, names)
        place = await _destination(request.places, names)
        if folder or place.attr.is_dir:
            raise Refusal(405, "this is a directory", [("allow", "GET, HEAD, PROPFIND, MKCOL, DELETE, COPY, MOVE")])
        self._need(request, names, members=not place.exists)
        check(exchange, entity_tag(place.attr) if place.exists else None, place.attr.mtime)
        only_new, mtime_ns = exchange.header("if-none-match") == "*", _mtime(exchange)
        try:
            told = await self._changes(request).write(
                place, exchange.pieces(), exchange.length, mtime_ns=mtime_ns, only_new=only_new
            )
        except (VolfsError, OSError) as error:
            if not only_new or error.errno != errno.EEXIST:
                raise
            raise Refusal(412, "it is there already (If-None-Match)") from None
        if told is not None:
            await exchange.answer(200, [("content-type", JSON)], told)
        else:
            taken = [] if mtime_ns is None else [("x-oc-mtime", "accepted")]
            await exchange.answer(204 if place.exists else 201, taken)

    async def _mkcol(self, exchange: HttpExchange, caller: Caller) -> None:
        names, _ = names_of(exchange.raw_path)
        request = await self._request(exchange, caller, names)
        if await exchange.body(dav_xml.LONGEST):
            raise Refusal(415, "a directory is made without a body")
        place = await _destination(request.places, names)
        if place.exists:
            raise Refusal(405, "it is there already")
        self._need(request, names, members=True)
        await self._changes(request).make_folder(place)
        await exchange.answer(201)

    async def _delete(self, exchange: HttpExchange, caller: Caller) -> None:
        names, _ = names_of(exchange.raw_path)
        request = await self._request(exchange, caller, names)
        place = await _there(request.places, names, follow=False)
        if place.attr.is_dir and (exchange.header("depth") or "infinity") != "infinity":
            raise Refusal(400, "a directory is removed with all that is in it")
        self._need(request, names, members=True, deep=True)
        check(exchange, entity_tag(place.attr), place.attr.mtime)
        await self._changes(request).remove(place)
        self._locks.gone(names)
        await exchange.answer(204)

    async def _copy(self, exchange: HttpExchange, caller: Caller) -> None:
        await self._to_another(exchange, caller, moves=False)

    async def _move(self, exchange: HttpExchange, caller: Caller) -> None:
        await self._to_another(exchange, caller, moves=True)

    async def _to_another(self, exchange: HttpExchange, caller: Caller, *, moves: bool) -> None:
        names, _ = names_of(exchange.raw_path)
        destination = exchange.header("destination")
        if destination is None:
            raise Refusal(400, "where to? the header Destination says it")
        overwrite = (exchange.header("overwrite") or "T").upper()
        depth = exchange.header("depth") or "infinity"
        if overwrite not in ("T", "F") or depth not in (("infinity",) if moves else ("0", "infinity")):
            raise Refusal(400, "Overwrite is T or F, Depth is 0 or infinity")
        to_names, _ = names_of_url(destination, exchange.header("host"))
        request = await self._request(exchange, caller, names)
        source = await _there(request.places, names, follow=not moves)
        if to_names[: len(names)] == names or names[: len(to_names)] == to_names:
            raise Refusal(403, "nothing is copied or moved into itself")
        to = await _destination(request.places, to_names, follow=False)
        if to.exists and overwrite == "F":
            raise Refusal(412, "there is something of this name (Overwrite: F)")
        if moves:
            self._need(request, names, members=True, deep=True)
        self._need(request, to_names, members=not to.exists, deep=True)
        check(exchange, entity_tag(source.attr), source.attr.mtime)
        if moves:
            await self._changes(request).move(source, to)
            self._locks.gone(names)
        else:
            await self._changes(request).copy(source, to, deep=depth == "infinity")
        await exchange.answer(204 if to.exists else 201)

    async def _proppatch(self, exchange: HttpExchange, caller: Caller) -> None:
        names, _ = names_of(exchange.raw_path)
        patch = dav_properties.patch(dav_xml.parse(await exchange.body(dav_xml.LONGEST)))
        request = await self._request(exchange, caller, names)
        place = await _there(request.places, names)
        self._need(request, names, members=False)
        caller.need(place.attr, os.W_OK)
        if patch.mtime_ns is not None and not patch.refused:
            await self._tree.setattr(place.attr.ino, SetAttr(mtime_ns=patch.mtime_ns))
        answer = f'{dav_xml.HEAD}<D:multistatus xmlns:D="DAV:">\n{patch.response(names, place.attr)}</D:multistatus>\n'
        await exchange.answer(207, [("content-type", dav_xml.TYPE)], answer)

    # -- locks ------------------------------------------------------------------------------------------------------

    async def _lock(self, exchange: HttpExchange, caller: Caller) -> None:
        names, _ = names_of(exchange.raw_path)
        body = await exchange.body(dav_xml.LONGEST)
        seconds = _timeout(exchange.header("timeout"))
        if not body:
            await self._refresh(exchange, caller, names, seconds)
            return
        depth = exchange.header("depth") or "infinity"
        if depth not in ("0", "infinity"):
            raise Refusal(400, "the Depth of a lock is 0 or infinity")
        exclusive, owner = _lockinfo(dav_xml.parse(body))
        request = await self._request(exchange, caller, names)
        place = await _destination(request.places, names)
        made = not place.exists
        if made:
            self._need(request, names, members=True)
        else:
            caller.need(place.attr, os.W_OK)
        deep = depth == "infinity" and place.attr.is_dir
        lock = Lock(names, exclusive, deep, owner, caller.name, time.monotonic() + seconds)
        self._locks.take(lock)
        if made:
            try:
                await self._changes(request).write(place, exchange.pieces(), 0, only_new=True)
            except BaseException:
                self._locks.release(lock)
                raise
        told = [("lock-token", f"<{lock.token}>")]
        await self._say_lock(exchange, lock, 201 if made else 200, told)

    async def _refresh(self, exchange: HttpExchange, caller: Caller, names: Names, seconds: float) -> None:
        request = await self._request(exchange, caller, names)
        mine = (
            lock for lock in self._locks.covering(names) if lock.token in request.shown and lock.holder == caller.name
        )
        lock = next(mine, None)
        if lock is None:
            raise Refusal(412 if exchange.header("if") else 400, "which lock? the header If names it")
        lock.ends = time.monotonic() + seconds
        await self._say_lock(exchange, lock, 200, [])

    async def _say_lock(self, exchange: HttpExchange, lock: Lock, status: int, headers: list[tuple[str, str]]) -> None:
        found = element(dav("lockdiscovery"), dav_properties.discovery([lock]))
        answer = f'{dav_xml.HEAD}<D:prop xmlns:D="DAV:">{found}</D:prop>\n'
        await exchange.answer(status, [*headers, ("content-type", dav_xml.TYPE)], answer)

    async def _unlock(self, exchange: HttpExchange, caller: Caller) -> None:
        names, _ = names_of(exchange.raw_path)
        token = (exchange.header("lock-token") or "").strip()
        if not (token.startswith("<") and token.endswith(">")):
            raise Refusal(400, "which lock? the header Lock-Token names it")
        lock = self._locks.get(token[1:-1])
        if lock is None or not lock.covers(names):
            raise Refusal(409, "there is no such lock on this")
        if lock.holder != caller.name:
            raise Refusal(403, "this is somebody else's lock")
        self._locks.release(lock)
        await exchange.answer(204)


async def _there(places: Places, names: Names, *, follow: bool = True) -> Place:
    """A place where something is. Raises NotFound."""
    place = await places.find(names, follow=follow)
    if not place.exists:
        raise NotFound(f"there is nothing at {path_of(names)}")
    return place


async def _destination(places: Places, names: Names, *, follow: bool = True) -> Place:
    """A place where something may come to be. Raises Refusal (409) without a directory to hold it."""
    if not names:
        raise Refusal(405, "this is the root of the tree")
    if names[-1].startswith(_MAC) or names[-1] in _MACS:
        raise Refusal(403, "what macOS puts beside files is not kept")
    try:
        above = await places.find(names[:-1])
        if not above.exists or not above.attr.is_dir:
            raise NotFound("the directory is not there")
        return await places.find(names, follow=follow)
    except NotFound as error:
        raise Refusal(409, str(error)) from None


def _lockinfo(root: Element) -> tuple[bool, str]:
    """Whether a lock is to be exclusive, and its owner, as XML. Raises Refusal."""
    scope = root.find(dav("lockscope"))
    kind = root.find(dav("locktype"))
    if root.tag != dav("lockinfo") or scope is None or kind is None or kind.find(dav("write")) is None:
        raise Refusal(400, "this is no lockinfo of a write lock")
    found = root.find(dav("owner"))
    owner = "" if found is None else dav_xml.verbatim(found)
    if len(owner) > _LONGEST_OWNER:
        raise Refusal(413, "so long an owner of a lock is not kept")
    return scope.find(dav("shared")) is None, owner


def _timeout(header: str | None) -> float:
    for part in (header or "").split(","):
        kind, _, number = part.strip().partition("-")
        if kind.lower() == "second" and number.isdecimal() and len(number) < 12:
            return float(min(dav_locks.LONGEST_SECONDS, max(1, int(number))))
    return float(dav_locks.LONGEST_SECONDS)


def _mtime(exchange: HttpExchange) -> int | None:
    """The time (ns) that rclone wants an upload to have."""
    text = exchange.header("x-oc-mtime") or ""
    return int(text) * 10**9 if text.isdecimal() and len(text) < 11 else None
