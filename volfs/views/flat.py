"""Layouts of few parts: bytes, the voxels of one box row by row, bytes. What C can put together by itself.

Decided here: which layouts are so simple. Not here: the formats that have them, nor the putting together
(``volfs/native/pictures.h``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from volfs.views.frames import Rows, StoredDeflate, Summed
from volfs.views.layout import Chain, Extent, Layout, Literal, Part, Records, Voxels

#: Records (the page directories of a TIFF) of more bytes are not kept ready.
_RECORDS = 1 << 20


@dataclass(frozen=True, slots=True)
class Flat:
    """A file: ``prefix``, the rows of ``voxels``, ``suffix``. With ``png`` the rows are a zlib stream of stored blocks,
    each row after a zero byte, followed by Adler-32 and CRC-32; ``prefix`` then ends with "IDAT" and zlib's header."""

    prefix: bytes
    voxels: Voxels
    suffix: bytes
    png: bool


def flat(layout: Layout) -> Flat | None:
    """The parts of a layout; None if it has others."""
    prefix, rest = _literal(layout.extents)
    if not rest:
        return None
    body, png = rest[0], isinstance(rest[0], Summed)
    if isinstance(body, Summed):
        stream = _stream(body)
        if stream is None:
            return None
        prefix, body = prefix + b"IDAT\x78\x01", stream
    suffix, rest = _literal(rest[1:])
    if rest or not isinstance(body, Voxels) or body.packed:
        return None
    return Flat(prefix, body, suffix, png)


def _literal(extents: Sequence[Extent]) -> tuple[bytes, list[Extent]]:
    """The bytes that extents begin with, and the extents that come after."""
    data = b""
    for number, extent in enumerate(extents):
        if isinstance(extent, Literal):
            data += extent.data
        elif isinstance(extent, Records) and extent.size <= _RECORDS:
            data += extent.make(0, extent.count)
        else:
            return data, list(extents[number:])
    return data, []


def _stream(summed: Summed) -> Extent | None:
    """The pixels of a PNG that has all of them in one IDAT."""
    chain = summed.inner
    if not isinstance(chain, Chain) or len(chain.extents) != 2:
        return None
    name, part = chain.extents
    if not isinstance(name, Literal) or name.data != b"IDAT" or not isinstance(part, Part):
        return None
    stream = part.inner
    if not isinstance(stream, StoredDeflate) or (part.start, part.size) != (0, stream.size):
        return None
    rows = stream.inner
    return rows.inner if isinstance(rows, Rows) else None
