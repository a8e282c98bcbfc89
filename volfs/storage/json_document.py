"""Small JSON documents with a checksum in them: the text of ``volfs.json``, ``dataset.json``, refs, intents and others.

Decided here: how a document is written, how its checksum is kept in it, and how a reader knows that one belongs there.
Not here: which documents there are (:mod:`volfs.storage.store_layout`), how they reach the disk
(:mod:`volfs.storage.files`).

A document is plain JSON in ASCII, indented for people, whose last member is ::

    "checksum": {"crc32c": "9a3f01bc"}

The checksum covers the value and not its layout: it is the crc32c of the document without that member, with sorted
names and no white space, non-ASCII characters escaped. So another program may parse a document and write it anew.

Documents of older stores have no such member, and a person may write one by hand: without it a document is taken as it
is. The member is known by its name *and* by the form of its value, and either one demands the other, so a damaged byte
in the name, or in the value, never makes a document pass for one of those.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from crc32c import crc32c

from volfs.errors import Damaged

CHECKSUM = "checksum"
_ALGORITHM = "crc32c"
_DIGITS = re.compile("[0-9a-f]{8}")
_LIMIT = 256 << 20
"""Bytes of the largest document that is read."""


def dump_document(value: Mapping[str, Any]) -> bytes:
    """The text of a document. ``value`` may hold whatever JSON has a form for, and no member called ``checksum``."""
    if CHECKSUM in value:
        raise AssertionError(f"a document has no member {CHECKSUM!r} of its own")
    plain = json.loads(json.dumps(value))
    return json.dumps({**plain, CHECKSUM: {_ALGORITHM: _sum(plain)}}, indent=2).encode() + b"\n"


def dump_line(value: Mapping[str, Any]) -> bytes:
    """A document in one line: for files that grow by one with every event. :func:`load_document` reads it."""
    if CHECKSUM in value:
        raise AssertionError(f"a document has no member {CHECKSUM!r} of its own")
    plain = json.loads(json.dumps(value))
    return json.dumps({**plain, CHECKSUM: {_ALGORITHM: _sum(plain)}}).encode() + b"\n"


def load_document(raw: bytes, name: object) -> tuple[dict[str, Any], bool]:
    """The value of a document without its checksum, and whether it had one. Damaged, with ``name`` first, if it is none
    or does not match."""
    check_document_size(len(raw), name)
    try:
        value = json.loads(raw.decode("utf-8", "surrogatepass"))
        if not isinstance(value, dict):
            raise Damaged(f"{name} is not a JSON object")
        if CHECKSUM not in value and not any(map(_is_checksum, value.values())):
            return value, False
        said = value.pop(CHECKSUM, None)
        if not _is_checksum(said) or said[_ALGORITHM] != _sum(value):
            raise Damaged(
                f"{name} does not match its checksum: it is damaged, or was edited (then remove its member"
                f' "{CHECKSUM}", and what it says is taken as it is)'
            )
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{name} is not valid JSON: {error}") from None
    return value, True


def check_document_size(size: int, name: object) -> None:
    """Damaged if a file of ``size`` bytes is too large to be a document: asked before it is read into memory."""
    if size > _LIMIT:
        raise Damaged(f"{name} has {size} bytes: that is no document of a store")


def _is_checksum(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != {_ALGORITHM}:
        return False
    digits = value[_ALGORITHM]
    return isinstance(digits, str) and _DIGITS.fullmatch(digits) is not None


def _sum(value: Mapping[str, Any]) -> str:
    return f"{crc32c(json.dumps(value, sort_keys=True, separators=(',', ':')).encode()):08x}"
