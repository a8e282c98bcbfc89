"""The Range header (RFC 9110, 14): which bytes of a file a client wants.

Decided here: that many ranges, or ranges over each other, are refused, as they cost the server more than the client.
A header that is malformed or in other units is no request for a range.
"""

from __future__ import annotations

import re
from itertools import pairwise

_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
_MOST = 100
#: More digits are of no file, and slow to read.
_DIGITS = 19


class NotThere(Exception):
    """No byte of the file is in the ranges that were asked for."""


def byte_ranges(header: str | None, size: int) -> list[range] | None:
    """The ranges that a header asks for of a file of ``size`` bytes, in its order; None for the whole. Raises
    NotThere."""
    if header is None:
        return None
    unit, equals, text = header.partition("=")
    if unit.strip().lower() != "bytes" or not equals:
        return None
    found = []
    specs = [spec.strip() for spec in text.split(",") if spec.strip()]
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None or spec == "-" or max(map(len, match.groups())) > _DIGITS:
            return None
        first, last = match.groups()
        if first and last and int(last) < int(first):
            return None
        if not first:
            one = range(max(0, size - int(last)), size)
        else:
            one = range(int(first), min(size, int(last) + 1) if last else size)
        if one:
            found.append(one)
    if not specs:
        return None
    ordered = sorted(found, key=lambda one: one.start)
    overlapping = any(one.stop > after.start for one, after in pairwise(ordered))
    if not found or len(specs) > _MOST or overlapping:
        raise NotThere
    return found
