"""The files of the page that ``/`` shows to people: ``volfs/web/page/``, below ``/.volfs/page/``.

Decided here: where they are and what they may do in a browser. ``.volfs`` is no name of a dataset, and the tree has no
``page`` in it. Not here: what the page shows; it reads listings and files as any other client does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from volfs.web.http_exchange import HttpExchange
from volfs.web.media_types import HTML, media_type
from volfs.web.validators import check

#: Where in the tree's names they are.
PLACE = (b".volfs", b"page")
INDEX = b"index.html"

_FOLDER = Path(__file__).parent / "page"
#: Scripts, styles and pictures of this server only, and nothing in the text of the page itself.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
#: Those that a browser runs or reads by their type; all others are as in the tree.
_TYPES = {".html": HTML, ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    kind: str
    tag: str
    changed_ns: int


class BrowserPage:
    """The files of the page, all of them in memory."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        self._files = {
            tuple(part.encode() for part in path.relative_to(folder).parts): _read(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix != ".py"
        }

    @property
    def is_there(self) -> bool:
        """True if there is a page to show."""
        return (INDEX,) in self._files

    def has(self, names: tuple[bytes, ...]) -> bool:
        """Whether there is a file of this name below :data:`PLACE`."""
        return names in self._files

    async def send(self, exchange: HttpExchange, names: tuple[bytes, ...]) -> None:
        """Answer with a file."""
        file = self._files[names]
        headers = [
            ("content-type", file.kind),
            ("content-security-policy", _POLICY),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-cache"),
            ("etag", file.tag),
        ]
        if check(exchange, file.tag, file.changed_ns):
            await exchange.answer(200, headers, file.data)
        else:
            await exchange.answer(304, headers)


def _read(path: Path) -> _File:
    data = path.read_bytes()
    kind = _TYPES.get(path.suffix) or media_type(path.name.encode())
    return _File(data, kind, f'"{hashlib.sha256(data).hexdigest()[:32]}"', path.stat().st_mtime_ns)
