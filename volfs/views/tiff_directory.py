"""Page directories of TIFF (TIFF 6.0; BigTIFF): how tags, their values and rationals are written, here and only here.

A file begins with its header and the values that do not fit into their tags (:class:`Head`); page directories come
after them, all before the pixels, little-endian. What the pages show is decided by :mod:`volfs.views.tiff` (slices) and
:mod:`volfs.views.volumes.tiff` (volumes).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

CLASSIC_LIMIT = (1 << 32) - 1
"""Sizes and positions in a classic TIFF, widths and heights in any, are no larger."""

SAMPLE_FORMATS = {"u": 1, "b": 1, "i": 2, "f": 3, "c": 6}
STRIP_OFFSETS = 273

_ALIGNED = 64  # so that mapped voxels are
_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _LONG8 = 1, 2, 3, 4, 5, 16
_CODES = {_BYTE: "B", _ASCII: "B", _SHORT: "H", _LONG: "I", _RATIONAL: "I", _LONG8: "Q"}

Tag = tuple[int, int, Sequence[int]]
"""A tag's number, its field type, and its values (two integers for each rational)."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """XResolution, YResolution and ResolutionUnit: 3 is pixels per centimetre, 1 no unit that TIFF knows."""

    across: Sequence[int] = (1, 1)
    down: Sequence[int] = (1, 1)
    unit: int = 1

    @classmethod
    def of(cls, down: float, across: float, unit: int) -> Resolution | None:
        """From pixels per unit. None if a rational of two 32-bit numbers cannot say it."""
        if not all(0 < value < math.inf for value in (down, across)):
            return None
        made = cls(_rational(across), _rational(down), unit)
        fits = all(1 <= n <= CLASSIC_LIMIT for n in (*made.across, *made.down))
        return made if fits else None


def _rational(value: float) -> list[int]:
    # The denominator is as large as the numerator leaves room for, both being 32-bit.
    near = Fraction(value).limit_denominator(max(1, int(CLASSIC_LIMIT / max(value, 1.0))))
    return [near.numerator, near.denominator]


@dataclass(frozen=True, slots=True)
class Picture:
    """A page: uncompressed pixels in one strip, the samples of a pixel side by side. bool has one bit a pixel, and
    every row starts on a byte."""

    rows: int
    columns: int
    samples: int
    dtype: np.dtype[Any]
    resolution: Resolution

    @property
    def bits(self) -> int:
        return 1 if self.dtype.kind == "b" else self.dtype.itemsize * 8

    @property
    def size(self) -> int:
        """The bytes of its pixels."""
        return self.rows * ((self.columns * self.samples * self.bits + 7) // 8)

    def tags(self, offset: int, descriptions: Sequence[bytes] = ()) -> list[Tag]:
        """The tags of a page whose pixels begin at ``offset``."""
        colour = self.samples >= 3
        extra = self.samples - (3 if colour else 1)
        tags: list[Tag] = [
            (256, _LONG, [self.columns]),
            (257, _LONG, [self.rows]),
            (258, _SHORT, [self.bits] * self.samples),
            (259, _SHORT, [1]),  # no compression
            (262, _SHORT, [2 if colour else 1]),  # RGB, or black is zero
            *((270, _ASCII, text + b"\0") for text in descriptions),
            (STRIP_OFFSETS, _LONG8, [offset]),
            (277, _SHORT, [self.samples]),
            (278, _LONG, [self.rows]),  # one strip
            (279, _LONG8, [self.size]),
            (282, _RATIONAL, self.resolution.across),
            (283, _RATIONAL, self.resolution.down),
            (284, _SHORT, [1]),  # samples of a pixel side by side
            (296, _SHORT, [self.resolution.unit]),
            (338, _SHORT, [2] + [0] * (extra - 1) if extra else []),  # alpha, not premultiplied
            (339, _SHORT, [SAMPLE_FORMATS[self.dtype.kind]] * self.samples),
        ]
        return [tag for tag in tags if tag[2]]


class Head:
    """The start of a file: its header, and the values that do not fit into their tags, equal ones once."""

    def __init__(self, *, big: bool) -> None:
        self.big = big
        self._values = b""
        self._known: dict[bytes, int] = {}
        self._inline, self._pointer, self._count = (8, "Q", "Q") if big else (4, "I", "H")
        self._start = 16 if big else 8

    @property
    def size(self) -> int:
        """The length so far: the position of the first directory, once all values are there."""
        return self._start + len(self._values)

    @property
    def data(self) -> bytes:
        at = self.size
        return b"II" + (struct.pack("<HHHQ", 43, 8, 0, at) if self.big else struct.pack("<HI", 42, at)) + self._values

    def directory(self, tags: Sequence[Tag], following: int = 0) -> bytes:
        """The directory of a page, before the one at ``following``. Its length depends on the number of tags only."""
        entries = b""
        for number, kind, numbers in tags:
            if kind == _LONG8 and not self.big:
                kind = _LONG
            data = (
                bytes(numbers) if kind in (_BYTE, _ASCII) else struct.pack(f"<{len(numbers)}{_CODES[kind]}", *numbers)
            )
            amount = len(numbers) // 2 if kind == _RATIONAL else len(numbers)
            entries += struct.pack(f"<HH{self._pointer}", number, kind, amount)
            fits = len(data) <= self._inline
            entries += data.ljust(self._inline, b"\0") if fits else struct.pack(f"<{self._pointer}", self._place(data))
        ends = struct.pack(f"<{self._count}", len(tags)), struct.pack(f"<{self._pointer}", following)
        return ends[0] + entries + ends[1]

    def slot(self, tags: Sequence[Tag], number: int) -> int:
        """Where in a directory the value of a tag lies that fits into it."""
        before = [tag[0] for tag in tags].index(number)
        return struct.calcsize(f"<{self._count}") + before * (4 + 2 * self._inline) + 4 + self._inline

    def _place(self, data: bytes) -> int:
        if data not in self._known:
            self._known[data] = self.size
            self._values += data + b"\0" * (-len(data) % 8)
        return self._known[data]


def imagej_tags(info: str, labels: Sequence[str], properties: Mapping[str, str]) -> list[Tag]:
    """The tags in which ImageJ keeps texts (``ij/io/TiffEncoder``): a header that counts each kind of them, then they
    themselves in UTF-16; and the lengths of all of these. None of them if there are no texts."""
    pairs = [text for pair in properties.items() for text in pair]
    kinds = [(b"info", [info] if info else []), (b"labl", list(labels)), (b"prop", pairs)]
    texts = [text.encode("utf-16-le", "replace") for _, some in kinds for text in some]
    if not texts:
        return []
    counts = [kind[::-1] + struct.pack("<I", len(some)) for kind, some in kinds if some]
    head = b"".join((b"JIJI", *counts))
    return [
        (50838, _LONG, [len(head), *map(len, texts)]),
        (50839, _BYTE, b"".join((head, *texts))),
    ]


def aligned(size: int) -> int:
    """Where voxels begin after directories that end at ``size``."""
    return size + -size % _ALIGNED
