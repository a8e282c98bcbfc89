"""PNG slices (W3C PNG, third edition): layout from metadata, and decoding of written files.

Written slices hold stored (uncompressed) deflate blocks, so their size is exact and a range costs what it covers.
uint8 and uint16 with 1 to 4 samples (gray, gray and alpha, RGB, RGBA) have an exact PNG. So has bool: one-bit gray,
which viewers show as black and white and which readers give back as bool. Everything else is shown as TIFF.

Decoding accepts what other programs write: any compression, filters, interlacing, several IDATs, ancillary chunks. It
refuses palettes (an index is not a voxel) and any bit depth or colour type but the one the level has, with one
exception: a mask may come as 8-bit gray of 0 and 255, or 0 and 1, because many programs have no one-bit gray.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.model.box import Index
from volfs.views.frames import Rows, StoredDeflate, Summed
from volfs.views.layout import Chain, Extent, Layout, Literal, Part, Voxels
from volfs.views.plane import Incomplete, PlaneSpec, describe
from volfs.views.png_filters import unfilter

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
MAX_SIDE = 1_000_000
"""libpng refuses wider and higher images by default."""

_SAMPLES = {colour: samples for samples, colour in COLOUR_TYPES.items()}
_IDAT = 1 << 30
_LIMIT = (1 << 31) - 1
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, row step and column step of each pass of an interlaced picture."""


def holds(dtype: np.dtype[Any], samples: int, columns: int, rows: int = 1) -> bool:
    """Whether such a slice has an exact PNG that ordinary viewers open."""
    fits = 0 < columns <= MAX_SIDE and 0 < rows <= MAX_SIDE
    if dtype.kind == "b":
        return fits and samples == 1
    return fits and dtype.kind == "u" and dtype.itemsize <= 2 and 1 <= samples <= 4


def layout(plane: PlaneSpec, *, idat_limit: int = _IDAT) -> Layout:
    """The slice as a PNG of exact size. ``idat_limit`` is the most bytes that one IDAT chunk takes."""
    voxels = Voxels(plane.box, plane.order, plane.dtype.newbyteorder(">"), packed=plane.dtype.kind == "b")
    return framed(voxels, plane.shape, plane.dtype, ancillary=_physical_size(plane), idat_limit=idat_limit)


def framed(
    voxels: Extent, shape: Index, dtype: np.dtype[Any], *, ancillary: bytes = b"", idat_limit: int = _IDAT
) -> Layout:
    """A picture of ``shape`` (rows, columns, and samples where a pixel has them) as a PNG.

    ``voxels`` are its pixels: big-endian, bool packed by rows. ``ancillary`` are chunks to put after the header.
    """
    rows, columns, samples = (*shape, 1)[:3]
    depth = 1 if dtype.kind == "b" else dtype.itemsize * 8
    header = struct.pack(">IIBBBBB", columns, rows, depth, COLOUR_TYPES[samples], 0, 0, 0)
    stream = StoredDeflate(Rows(voxels, voxels.size // rows))
    extents: list[Extent] = [Literal(SIGNATURE + _chunk(b"IHDR", header) + ancillary)]
    for start in range(0, stream.size, idat_limit):
        part = Part(stream, start, min(idat_limit, stream.size - start))
        extents += [Literal(struct.pack(">I", part.size)), Summed(Chain((Literal(b"IDAT"), part)), str(start))]
    extents.append(Literal(_chunk(b"IEND", b"")))
    return Layout(*extents)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def _physical_size(plane: PlaneSpec) -> bytes:
    """A pHYs chunk (11.3.4.3): pixels per metre where the unit is known and they fit, else the aspect ratio."""
    if plane.pixel is None:
        return b""
    down, across = plane.pixel
    if plane.metric:
        per_metre = round(1 / across), round(1 / down)
        if all(1000 <= n <= _LIMIT for n in per_metre):  # so many that rounding does not show
            return _chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if down == across:
        return b""
    scale = 1_000_000 / max(down, across)
    return _chunk(b"pHYs", struct.pack(">IIB", max(1, round(down * scale)), max(1, round(across * scale)), 0))


@dataclass(frozen=True, slots=True)
class _Header:
    columns: int
    rows: int
    depth: int
    colour: int
    interlaced: bool

    @property
    def samples(self) -> int:
        return _SAMPLES[self.colour]

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows, self.columns, self.samples) if self.samples > 1 else (self.rows, self.columns)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype({1: "bool", 8: "u1", 16: "u2"}[self.depth])


def decode(data: bytes | bytearray | memoryview, plane: PlaneSpec) -> np.ndarray:
    """The voxels of ``plane.box``, in the axis order of the level, from a whole PNG file.

    Incomplete when the file ends early, BadInput when it is damaged or holds something else than the slice does.
    """
    view = memoryview(data).cast("B")
    header, pieces = _parse(view, plane)
    colour16 = header.depth == 16 and header.samples > 1
    picture = _colour16(header, pieces) if colour16 else _with_pillow(view)
    if plane.dtype.kind == "b" and header.depth == 8:
        top = int(picture.max(initial=0))
        if top > 1 and not np.isin(picture, (0, 255)).all():
            raise BadInput(f"expected a mask of 0 and 255 (or 0 and 1), got 8-bit gray with values up to {top}")
        picture = picture != 0
    return plane.voxels(picture.astype(plane.dtype, copy=False))


def _parse(view: memoryview, plane: PlaneSpec) -> tuple[_Header, list[memoryview]]:
    """Walk the chunks, check each checksum, and return the header and the compressed data."""
    start = bytes(view[:8])
    if not any(start) or (len(start) < 8 and SIGNATURE.startswith(start)):
        raise Incomplete("the PNG is not complete yet")
    if start != SIGNATURE:
        raise BadInput("this is not a PNG")
    header: _Header | None = None
    pieces: list[memoryview] = []
    at = 8
    while True:
        if at + 8 > len(view):
            raise Incomplete("the PNG ends early")
        length, name = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        if name == b"\0\0\0\0":
            raise Incomplete("the PNG has a hole")
        if length > _LIMIT or not name.isalpha():
            raise BadInput(f"the PNG is damaged at byte {at}")
        body = view[at + 8 : at + 8 + length]
        if header is None:
            if name != b"IHDR" or length != 13:
                raise BadInput("the PNG does not begin with its header")
            if len(body) == 13:
                header = _header(body, plane)
        if at + 12 + length > len(view):
            raise Incomplete("the PNG ends early")
        checksum = int.from_bytes(view[at + 8 + length : at + 12 + length], "big")
        if zlib.crc32(view[at + 4 : at + 8 + length]) != checksum:
            raise BadInput(f"the PNG is damaged: wrong checksum of its {name.decode()} chunk at byte {at}")
        if name == b"IDAT":
            pieces.append(body)
        elif name == b"IEND":
            break
        at += 12 + length
    if header is None or not pieces:
        raise BadInput("the PNG has no picture in it")
    return header, pieces


def _header(body: memoryview, plane: PlaneSpec) -> _Header:
    """The header, if it is that of a picture of this slice."""
    columns, rows, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if colour == 3:
        raise BadInput(f"expected {plane.describe()}, got a PNG with a palette")
    if colour not in _SAMPLES or depth not in (1, 2, 4, 8, 16) or compression or filtering or interlace > 1:
        raise BadInput("the header of the PNG is damaged")
    if depth in (2, 4) or (depth == 1 and colour != 0):
        raise BadInput(f"expected {plane.describe()}, got a {depth}-bit PNG")
    header = _Header(columns, rows, depth, colour, bool(interlace))
    mask = plane.dtype.kind == "b" and header.depth == 8 and header.samples == 1
    if (rows, columns, header.samples) != (plane.rows, plane.columns, plane.samples) or not (
        header.dtype == plane.dtype or mask
    ):
        raise BadInput(f"expected {plane.describe()}, got {describe(header.shape, header.dtype)}")
    return header


def _with_pillow(view: memoryview) -> np.ndarray:
    from PIL.PngImagePlugin import PngImageFile  # not every mount is written to, and it takes long

    # Not through Image.open: its limit on pixels protects from surprises, and the size has been checked already.
    try:
        with PngImageFile(io.BytesIO(view)) as image:
            if image.mode == "1":  # whose arrays have, in some releases of Pillow, bools made of the byte 255
                picture: np.ndarray = np.asarray(image.convert("L")) != 0
            else:
                picture = np.asarray(image)
            return picture
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise BadInput(f"the PNG is damaged: {error}") from error


def _colour16(header: _Header, pieces: list[memoryview]) -> np.ndarray:
    pixel = header.samples * 2
    passes = [
        (slice(row, None, down), slice(column, None, across))
        for row, column, down, across in (_ADAM7 if header.interlaced else ((0, 0, 1, 1),))
    ]
    picture = np.empty((header.rows, header.columns, header.samples), np.uint16)
    sizes = [picture[where].shape[:2] for where in passes]
    expected = sum(rows * (1 + columns * pixel) for rows, columns in sizes if columns)
    raw = np.frombuffer(_inflate(pieces, expected), np.uint8)
    at = 0
    for where, (rows, columns) in zip(passes, sizes, strict=True):
        if rows and columns:
            size = rows * (1 + columns * pixel)
            plain = unfilter(raw[at : at + size].reshape(rows, -1), pixel)
            picture[where] = np.ascontiguousarray(plain).view(">u2").reshape(rows, columns, header.samples)
            at += size
    return picture


def _inflate(pieces: list[memoryview], expected: int) -> bytearray:
    """Exactly ``expected`` bytes, never more than that in memory."""
    out = bytearray()
    stream = zlib.decompressobj()
    try:
        for piece in pieces:
            out += stream.decompress(piece, expected + 1 - len(out))
            if len(out) > expected:
                break
    except zlib.error as error:
        raise BadInput(f"the PNG is damaged: {error}") from error
    if len(out) != expected or not stream.eof:
        raise BadInput("the PNG is damaged: its data do not fill the picture")
    return out
