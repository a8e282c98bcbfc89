"""From the path of a URL to the names of the tree, and back.

Decided here: which paths are none of ours. They are refused before anything is looked up: what a client sends with
``..`` in it, however encoded, no client that follows RFC 3986 sends. Not here: what the names lead to
(:mod:`volfs.web.places`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from volfs.web.http_status import Refusal

_SAFE = "~!$&'()*+,=@"


def names_of(raw: bytes) -> tuple[tuple[bytes, ...], bool]:
    """The names in a URL's path, decoded one by one, and whether it ends in a slash. Raises Refusal (400)."""
    if not raw.startswith(b"/"):
        raise Refusal(400, "a path begins with a slash")
    parts = raw[1:].split(b"/")
    folder = not parts[-1]
    if folder:
        parts.pop()
    names = tuple(map(unquote_to_bytes, parts))
    for name in names:
        if name in (b"", b".", b".."):
            raise Refusal(400, "a path has no empty names, and none that is . or ..")
        if b"/" in name or b"\0" in name:
            raise Refusal(400, "a name has no slash and no NUL")
    return names, folder


def names_of_url(url: str, authority: str | None) -> tuple[tuple[bytes, ...], bool]:
    """The names of a URL that a header holds: of a path alone, or of one of this server, which the client knows as
    ``authority``. Raises Refusal (400)."""
    try:
        parsed = urlsplit(url)
        elsewhere = bool(parsed.netloc) and authority is not None and _host(parsed.netloc) != _host(authority)
        path = parsed.path.encode("ascii")
    except ValueError:
        raise Refusal(400, "this is no URL") from None
    if elsewhere or parsed.scheme not in ("", "http", "https"):
        raise Refusal(400, "this is a URL of another server")
    return names_of(path)


def _host(authority: str) -> str:
    """Name and port, without one that goes without saying: of which scheme it is a proxy does not tell."""
    return re.sub(r":(80|443)?$", "", authority.rpartition("@")[2].lower())


def quoted(name: bytes) -> str:
    """A name as a part of a URL."""
    return quote_from_bytes(name, _SAFE)


def path_of(names: Iterable[bytes], *, folder: bool = False) -> str:
    """The path of a URL that leads to names."""
    path = "/" + "/".join(map(quoted, names))
    return f"{path}/" if folder and path != "/" else path


def from_page(page: Iterable[bytes], names: Iterable[bytes]) -> str:
    """A reference from the URL of a file, by its names there, to another place."""
    return "../" * (len(tuple(page)) - 1) + "/".join(map(quoted, names))


def reference(name: bytes, *, folder: bool) -> str:
    """A reference to an entry of a directory, from that directory's own URL: right below any prefix of a proxy.

    It begins with a dot, as a name with a colon would be taken for a scheme."""
    return f"./{quoted(name)}{'/' if folder else ''}"
