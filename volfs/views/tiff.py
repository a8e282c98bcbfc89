"""TIFF slices (TIFF 6.0; BigTIFF): layout from metadata. Decoding of written files is in ``tiff_decode``.

One uncompressed strip, little-endian, after one page directory: every dtype has a TIFF, bool as one-bit gray. The
resolution tags say the pixel size in pixels per centimetre when the unit is known, else the aspect ratio. A file of
4 GiB or more is BigTIFF.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from volfs.views.layout import Layout, Literal, Voxels
from volfs.views.plane import PlaneSpec

SAMPLE_FORMATS = {"u": 1, "b": 1, "i": 2, "f": 3, "c": 6}

_CLASSIC_LIMIT = (1 << 32) - 1
_HEADER_ROOM = 4096
_SHORT, _LONG, _RATIONAL, _LONG8 = 3, 4, 5, 16
_CODES = {_SHORT: "H", _LONG: "I", _RATIONAL: "I", _LONG8: "Q"}

_Tag = tuple[int, int, Sequence[int]]
"""A tag's number, its field type, and its values (two integers for each rational)."""


def holds(dtype: np.dtype[Any], samples: int, columns: int, rows: int) -> bool:
    """Whether such a slice has a TIFF."""
    fits = 0 < columns <= _CLASSIC_LIMIT and 0 < rows <= _CLASSIC_LIMIT
    return fits and dtype.kind in SAMPLE_FORMATS and (dtype.kind != "b" or samples == 1)


def layout(plane: PlaneSpec) -> Layout:
    """The slice as a TIFF of exact size."""
    packed = plane.dtype.kind == "b"
    voxels = Voxels(plane.box, plane.order, plane.dtype.newbyteorder("<"), packed=packed)
    header = _header(plane, voxels.size, big=voxels.size + _HEADER_ROOM > _CLASSIC_LIMIT)
    return Layout(Literal(header), voxels)


def _header(plane: PlaneSpec, size: int, *, big: bool) -> bytes:
    """Everything before the voxels. Its length does not depend on the offset that it names."""
    length = len(_directory(_tags(plane, size, 0), big=big))
    return _directory(_tags(plane, size, length), big=big)


def _tags(plane: PlaneSpec, size: int, offset: int) -> list[_Tag]:
    bits = 1 if plane.dtype.kind == "b" else plane.dtype.itemsize * 8
    colour = plane.samples >= 3
    extra = plane.samples - (3 if colour else 1)
    across, down, unit = _resolution(plane)
    tags: list[_Tag] = [
        (256, _LONG, [plane.columns]),
        (257, _LONG, [plane.rows]),
        (258, _SHORT, [bits] * plane.samples),
        (259, _SHORT, [1]),  # no compression
        (262, _SHORT, [2 if colour else 1]),  # RGB, or black is zero
        (273, _LONG8, [offset]),
        (277, _SHORT, [plane.samples]),
        (278, _LONG, [plane.rows]),  # one strip
        (279, _LONG8, [size]),
        (282, _RATIONAL, across),
        (283, _RATIONAL, down),
        (284, _SHORT, [1]),  # samples of a pixel side by side
        (296, _SHORT, [unit]),
        (338, _SHORT, [2] + [0] * (extra - 1) if extra else []),  # alpha, not premultiplied
        (339, _SHORT, [SAMPLE_FORMATS[plane.dtype.kind]] * plane.samples),
    ]
    return [tag for tag in tags if tag[2]]


def _resolution(plane: PlaneSpec) -> tuple[list[int], list[int], int]:
    """XResolution, YResolution and ResolutionUnit: 3 is pixels per centimetre, 1 the aspect ratio only."""
    if plane.pixel is None:
        return [1, 1], [1, 1], 1
    down, across = plane.pixel
    scale = 0.01 if plane.metric else max(down, across)
    rationals = [_rational(scale / across), _rational(scale / down)]
    if not all(1 <= n <= _CLASSIC_LIMIT for rational in rationals for n in rational):
        return [1, 1], [1, 1], 1
    return rationals[0], rationals[1], 3 if plane.metric else 1


def _rational(value: float) -> list[int]:
    # The denominator is as large as the numerator leaves room for, both being 32-bit.
    bound = max(1, min(1_000_000, int(_CLASSIC_LIMIT / max(value, 1.0))))
    near = Fraction(value).limit_denominator(bound)
    return [near.numerator, near.denominator]


def _directory(tags: list[_Tag], *, big: bool) -> bytes:
    """A file header and one page directory with the values that do not fit into their tags."""
    inline, pointer, count = (8, "Q", "Q") if big else (4, "I", "H")
    start = 16 if big else 8
    head = b"II" + (struct.pack("<HHHQ", 43, 8, 0, start) if big else struct.pack("<HI", 42, start))
    values_at = start + struct.calcsize(f"<{count}") + len(tags) * (4 + 2 * inline) + inline
    entries, values = b"", b""
    for number, kind, numbers in tags:
        if kind == _LONG8 and not big:
            kind = _LONG
        data = struct.pack(f"<{len(numbers)}{_CODES[kind]}", *numbers)
        amount = len(numbers) // 2 if kind == _RATIONAL else len(numbers)
        entries += struct.pack(f"<HH{pointer}", number, kind, amount)
        if len(data) <= inline:
            entries += data.ljust(inline, b"\0")
        else:
            entries += struct.pack(f"<{pointer}", values_at + len(values))
            values += data + b"\0" * (-len(data) % 8)
    directory = struct.pack(f"<{count}", len(tags)) + entries + bytes(inline)
    text = head + directory + values
    return text + b"\0" * (-len(text) % 64)  # so that mapped voxels are aligned
