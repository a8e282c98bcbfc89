"""A directory of the tree as HTML for people and JSON for programs.

Decided here: the form of both, and that a listing is sent while it is made: of a directory of 100,000 slices no more is
in memory than some hundred names. A directory that fits into that is sorted as people count (v9, v10), a larger one
keeps the order of the tree. Names are text to a browser, whatever they hold. Not here: which of them a client wants
(:mod:`volfs.web.application`).
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import html
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from volfs.model.names import natural_key
from volfs.tree.contract.api import DirEntry
from volfs.tree.contract.attrs import Attr
from volfs.web.http_exchange import HttpExchange
from volfs.web.places import BATCH, Place, Places
from volfs.web.url_paths import path_of, reference

_STYLE = (
    "body{font-family:sans-serif;margin:2em}td,th{padding:.1em 1.5em .1em 0;text-align:left}"
    "td:nth-child(2){text-align:right}a{text-decoration:none}a:hover{text-decoration:underline}"
)
#: The listing holds no script, and no style but this.
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a directory. A link is what it leads to, and says where that is; one that leads nowhere is a link."""

    name: bytes
    attr: Attr
    link: bytes | None = None

    @property
    def kind(self) -> str:
        return "directory" if self.attr.is_dir else "link" if self.attr.is_link else "file"


async def entries(places: Places, place: Place) -> AsyncIterator[list[Entry]]:
    """The entries of a directory, a batch at a time. Raises NotAllowed."""
    first = await places.batch(place.attr, 0)
    batch = first
    while batch:
        after = await places.batch(place.attr, batch[-1].cookie) if len(batch) == BATCH else []
        if batch is first and not after:
            batch.sort(key=lambda entry: natural_key(os.fsdecode(entry.name)))
        yield [await _entry(places, place, entry) for entry in batch]
        batch = after


async def _entry(places: Places, place: Place, entry: DirEntry) -> Entry:
    if not entry.attr.is_link:
        return Entry(entry.name, entry.attr)
    attr = await places.followed((*place.names, entry.name), entry.attr)
    return Entry(entry.name, attr, await places.target(entry.attr))


async def send_json(exchange: HttpExchange, places: Places, place: Place, headers: list[tuple[str, str]]) -> None:
    """``{"path": …, "entries": [{"name": …, "type": …, "size": …, "mtime": …, "href": …}, …]}``, an entry a line."""
    head = f'{{"path": {json.dumps(path_of(place.names, folder=True))}, "entries": ['
    await _send(exchange, places, place, headers, head, ",\n", "\n]}\n", _json_entry)


def _json_entry(entry: Entry) -> str:
    facts: dict[str, object] = {"name": entry.name.decode("utf-8", "replace"), "type": entry.kind}
    if entry.attr.is_file:
        facts["size"] = entry.attr.size
    facts["mtime"] = _time(entry.attr.mtime)
    facts["href"] = reference(entry.name, folder=entry.attr.is_dir)
    if entry.link is not None:
        facts["link"] = entry.link.decode("utf-8", "replace")
    return json.dumps(facts, ensure_ascii=False)


async def send_html(exchange: HttpExchange, places: Places, place: Place, headers: list[tuple[str, str]]) -> None:
    """A table of names, sizes and times."""
    title = html.escape(b"/".join((b"", *place.names, b"")).decode("utf-8", "replace"))
    above = '<tr><td><a href="../">../</a></td></tr>' if place.names else ""
    head = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"</head><body>\n<h1>{title}</h1>\n<table>\n<tr><th>name</th><th>size</th><th>changed</th></tr>\n{above}"
    )
    await _send(exchange, places, place, headers, head, "\n", "\n</table>\n</body></html>\n", _html_entry)


def _html_entry(entry: Entry) -> str:
    folder = entry.attr.is_dir
    name = html.escape(entry.name.decode("utf-8", "replace")) + ("/" if folder else "")
    href = html.escape(reference(entry.name, folder=folder))
    size = f"{entry.attr.size:,}" if entry.attr.is_file else ""
    link = "" if entry.link is None else f" → {html.escape(entry.link.decode('utf-8', 'replace'))}"
    changed = _time(entry.attr.mtime)[:19].replace("T", " ")
    return f'<tr><td><a href="{href}">{name}</a>{link}</td><td>{size}</td><td>{changed}</td></tr>'


async def _send(
    exchange: HttpExchange,
    places: Places,
    place: Place,
    headers: list[tuple[str, str]],
    head: str,
    between: str,
    tail: str,
    line: Callable[[Entry], str],
) -> None:
    batches = entries(places, place)
    first: Sequence[Entry] = await anext(batches, [])  # what keeps the directory from being read has its own status
    await exchange.begin(200, headers)
    if exchange.method == "HEAD":
        await exchange.end()
        return

    async def work() -> None:
        lines = between.join(map(line, first))
        await exchange.send(f"{head}{chr(10) if first else ''}{lines}".encode("utf-8", "replace"))
        async for batch in batches:
            await exchange.send((between + between.join(map(line, batch))).encode("utf-8", "replace"))
        await exchange.send(tail.encode())

    await exchange.while_there(work)
    await exchange.end()


def _time(time_ns: int) -> str:
    """A time to the millisecond, as JavaScript reads it."""
    at = datetime.datetime.fromtimestamp(time_ns // 10**6 / 1000, datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
