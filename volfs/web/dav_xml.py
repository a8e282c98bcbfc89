"""The XML of WebDAV (RFC 4918): reading what clients send, and writing what they get.

Decided here: that a body is small, and has no document type and so no entities: these can make little text very much.
Not here: what elements mean.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser, tostring
from xml.sax.saxutils import escape, quoteattr

from volfs.web.http_status import Refusal

#: The most that is read of a request's XML.
LONGEST = 256 << 10
HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'
TYPE = "application/xml; charset=utf-8"

_NAMED = re.compile(r"\{(.*)\}(.*)", re.DOTALL)
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Builder(TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise Refusal(400, "no document type is allowed here")


def parse(body: bytes) -> Element:
    """The root element of a request's body. Raises Refusal (400)."""
    parser = XMLParser(target=_Builder())
    try:
        parser.feed(body)
        root: Element = parser.close()
    except (ParseError, ValueError, LookupError):
        raise Refusal(400, "the body is no XML") from None
    return root


def dav(name: str) -> str:
    """A name of WebDAV's own, as elements have it."""
    return f"{{DAV:}}{name}"


def text(value: str) -> str:
    """Text as the content of an element; what XML cannot say is a question mark."""
    return escape(_NO_XML.sub("?", value))


def element(name: str, content: str = "") -> str:
    """An element by its name, ``{DAV:}href``; its content is XML already."""
    match = _NAMED.fullmatch(name)
    space, local = match.groups() if match else ("", name)
    if space == "DAV:":
        tag, declared = f"D:{local}", ""
    elif space:
        tag, declared = f"X:{local}", f" xmlns:X={quoteattr(space)}"
    else:
        tag, declared = local, ""
    return f"<{tag}{declared}>{content}</{tag}>" if content else f"<{tag}{declared}/>"


def verbatim(found: Element) -> str:
    """An element that a client sent, to be given back."""
    found.tail = None
    return tostring(found, encoding="unicode")
