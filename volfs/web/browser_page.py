"""What a browser runs: the page that ``/`` shows to people, and Neuroglancer's client if it is installed.

Decided here: where they are, below ``/.volfs/page/`` and ``/.volfs/neuroglancer/``, and what they may do in a browser:
nothing but what comes from this server. ``.volfs`` is no name of a dataset, and the tree has neither in it. Not here:
what the page shows; it reads listings and files as any other client does.

Neuroglancer's client on PyPI is built to be steered by its Python package: it reads a name for that server from its
URL, and listens to it. Its files are as they come, but for one script before them that has it listen to nobody.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from volfs.web.http_exchange import HttpExchange
from volfs.web.media_types import HTML, media_type
from volfs.web.validators import check

INDEX = b"index.html"
#: What the page asks for to know what else is installed.
EXTRAS = "extras.json"
_PAGE = (b".volfs", b"page")
_NEUROGLANCER = (b".volfs", b"neuroglancer", b"v", b"volfs")
_ALONE = "neuroglancer_alone.js"

_FOLDER = Path(__file__).parent / "page"
#: Scripts, styles and pictures of this server only, and nothing in the text of the page itself.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
#: Neuroglancer also evaluates code of its own (decoders are WebAssembly, loaded by it) and styles its elements itself.
_POLICY_OF_NEUROGLANCER = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
#: Those that a browser runs or reads by their type; all others are as in the tree.
_TYPES = {
    ".html": HTML,
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".wasm": "application/wasm",
}
#: For those who debug scripts: as large as all else.
_LEFT_OUT = {".map", ".py"}


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    kind: str
    tag: str
    changed_ns: int


class StaticFiles:
    """The files of a directory, each kept in memory once it was asked for. ``made``: others, by name, which come
    before those."""

    def __init__(self, folder: Path, policy: str, made: Mapping[str, bytes] | None = None) -> None:
        self._policy = policy
        self._paths = {
            tuple(part.encode() for part in path.relative_to(folder).parts): path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix not in _LEFT_OUT
        }
        self._files: dict[tuple[bytes, ...], _File] = {
            (name.encode(),): _file(name, data, 0) for name, data in (made or {}).items()
        }

    def has(self, names: tuple[bytes, ...]) -> bool:
        """Whether there is a file of this name."""
        return names in self._paths or names in self._files

    async def send(self, exchange: HttpExchange, names: tuple[bytes, ...]) -> None:
        """Answer with a file."""
        file = self._files.get(names)
        if file is None:
            file = self._files[names] = await trio.to_thread.run_sync(_read, self._paths[names])
        headers = [
            ("content-type", file.kind),
            ("content-security-policy", self._policy),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-cache"),
            ("etag", file.tag),
        ]
        if check(exchange, file.tag, file.changed_ns):
            await exchange.answer(200, headers, file.data)
        else:
            await exchange.answer(304, headers)


class BrowserPage:
    """The page, and what it links to besides the tree."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        client = _neuroglancer()
        extras = json.dumps({"neuroglancer": client is not None}).encode()
        self._page = StaticFiles(folder, _POLICY, {EXTRAS: extras})
        self._places = [(_PAGE, self._page), *([(_NEUROGLANCER, client)] if client is not None else [])]

    @property
    def is_there(self) -> bool:
        """True if there is a page to show."""
        return self._page.has((INDEX,))

    @staticmethod
    def owns(names: tuple[bytes, ...]) -> bool:
        """Whether names lead here, and not into the tree."""
        return names[:2] in (_PAGE, _NEUROGLANCER[:2])

    def has(self, names: tuple[bytes, ...]) -> bool:
        """Whether there is a file of these names; a directory has its index."""
        found = self._find(names)
        return found is not None and found[0].has(found[1])

    async def send(self, exchange: HttpExchange, names: tuple[bytes, ...] = _PAGE) -> None:
        """Answer with a file, or the index of a directory."""
        found = self._find(names)
        assert found is not None
        await found[0].send(exchange, found[1])

    def _find(self, names: tuple[bytes, ...]) -> tuple[StaticFiles, tuple[bytes, ...]] | None:
        """Whose file it is, and its names there."""
        for place, files in self._places:
            if names[: len(place)] == place:
                return files, names[len(place) :] or (INDEX,)
        return None


def _neuroglancer() -> StaticFiles | None:
    """The built client that the PyPI package carries, whose Python is not loaded; None if it is not installed."""
    package = importlib.util.find_spec("neuroglancer")
    for place in (package.submodule_search_locations or ()) if package is not None else ():
        folder = Path(place) / "static" / "client"
        index = folder / INDEX.decode()
        if index.is_file():
            text = index.read_bytes().replace(b"<script", f'<script src="{_ALONE}"></script><script'.encode(), 1)
            alone = (_FOLDER / _ALONE).read_bytes()
            return StaticFiles(folder, _POLICY_OF_NEUROGLANCER, {INDEX.decode(): text, _ALONE: alone})
    return None


def _read(path: Path) -> _File:
    return _file(path.name, path.read_bytes(), path.stat().st_mtime_ns)


def _file(name: str, data: bytes, changed_ns: int) -> _File:
    kind = _TYPES.get(Path(name).suffix) or media_type(name.encode())
    return _File(data, kind, f'"{hashlib.sha256(data).hexdigest()[:32]}"', changed_ns)
