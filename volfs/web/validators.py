"""Whether a client's copy is still right: ETag, Last-Modified, Cache-Control, and conditional requests (RFC 9110, 13).

Decided here: a file's entity tag is its inode, time and size. An inode is never given to another file, and every
change of a branch has a time of its own (in ns), so equal tags are equal bytes: the tags are strong. And how long a
copy may be used without asking. Not here: what a file is.
"""

from __future__ import annotations

import re
from email.utils import formatdate, parsedate_to_datetime

from volfs.tree.contract.attrs import Attr
from volfs.web.http_exchange import HttpExchange
from volfs.web.http_status import Refusal

#: Seconds for which a client need not ask for a file of a version again. Not longer: a dataset may be removed, and
#: another made that has the same name and numbers. Who then asks with an entity tag is told that it is another file.
LASTING_SECONDS = 3600

_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def entity_tag(attr: Attr) -> str:
    """The entity tag of a file as it is now."""
    return f'"{attr.ino:x}-{attr.mtime:x}-{attr.size:x}"'


def http_date(time_ns: int) -> str:
    """A time as HTTP writes it, to the second."""
    return formatdate(time_ns // 10**9, usegmt=True)


def caching(*, lasting: bool, private: bool) -> str:
    """The ``Cache-Control`` of an answer."""
    if not lasting:
        return "private, no-cache" if private else "no-cache"
    return f"{'private' if private else 'public'}, max-age={LASTING_SECONDS}, immutable"


def check(exchange: HttpExchange, tag: str | None, mtime_ns: int) -> bool:
    """The conditions of a request, in the order of RFC 9110 13.2.2. ``tag``: that of what is there, or None if nothing
    is. True if the request is to be answered, False if the client's copy is right. Raises Refusal (412)."""
    reads = exchange.method in ("GET", "HEAD")
    match, none_match = exchange.header("if-match"), exchange.header("if-none-match")
    if match is not None:
        if tag is None or (match.strip() != "*" and tag not in _tags(match, weak=False)):
            raise Refusal(412, "it is not what you think it is (If-Match)")
    elif (since := _time(exchange.header("if-unmodified-since"))) is not None and mtime_ns // 10**9 > since:
        raise Refusal(412, "it has changed since then (If-Unmodified-Since)")
    if none_match is not None:
        if tag is not None and (none_match.strip() == "*" or tag in _tags(none_match, weak=True)):
            if reads:
                return False
            raise Refusal(412, "it is there already (If-None-Match)")
    elif reads and (since := _time(exchange.header("if-modified-since"))) is not None:
        return mtime_ns // 10**9 > since
    return True


def range_holds(exchange: HttpExchange, tag: str, mtime_ns: int) -> bool:
    """Whether the range that a request asks for is of the bytes that are there now (If-Range)."""
    given = exchange.header("if-range")
    if given is None:
        return True
    if given.startswith(('"', "W/")):
        return given == tag
    return _time(given) == mtime_ns // 10**9


def _tags(text: str, *, weak: bool) -> set[str]:
    return {tag for mark, tag in _TAG.findall(text) if weak or not mark}


def _time(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
