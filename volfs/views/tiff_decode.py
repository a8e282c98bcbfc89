"""Decoding of written TIFF slices (TIFF 6.0, BigTIFF) into voxels.

The page directory is read here first: to tell a file that is still being written from one that is wrong, to compare
it with the slice before anything is allocated, and to refuse what is lossy or means something else than voxels. The
pixels are then decoded by tifffile. Uncompressed, PackBits and Deflate need nothing else; LZW, Zstandard and LZMA need
imagecodecs (``volfs[import]``). Palettes are accepted, because ImageJ saves any picture with a lookup table as one:
the indices are the voxels. Pictures where zero is white are refused, but for one-bit masks: there white is True,
unless tifffile wrote the file, which means the bits themselves whatever the tag says.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.model.box import Index
from volfs.views.plane import Incomplete, PlaneSpec, describe

# Damage is reported by our errors: without a handler Python also prints the messages that tifffile logs.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_CODES = {1: "B", 2: "c", 3: "H", 4: "I", 5: "II", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_COMPRESSIONS = {1: "none", 5: "LZW", 8: "Deflate", 32946: "Deflate", 32773: "PackBits", 34925: "LZMA", 50000: "zstd"}
_WITHOUT_IMAGECODECS = ("none", "Deflate", "PackBits")
_DTYPES = {1: "u", 2: "i", 3: "f", 4: "u", 6: "c"}
_MAX_VALUES = 50_000_000
_IMAGES = re.compile(rb"^images=(\d+)", re.MULTILINE)


def decode(data: bytes | bytearray | memoryview, plane: PlaneSpec) -> np.ndarray:
    """The voxels of ``plane.box``, in the axis order of the level, from a whole TIFF file.

    Incomplete when the file ends early, BadInput when it is damaged or holds something else than the slice does.
    """
    view = memoryview(data).cast("B")
    page = _Page.read(view)
    page.check(plane)
    from tifffile import TiffFile  # not every mount is written to, and it takes long

    try:
        with TiffFile(io.BufferedReader(_ReadOnly(view))) as file:
            picture = file.pages.first.asarray(maxworkers=1)
    except Exception as error:  # tifffile and its codecs raise whatever the damage leads to
        raise BadInput(f"the TIFF is damaged: {error}") from error
    if plane.has_samples and page.planar:
        picture = np.moveaxis(picture.reshape(plane.samples, plane.rows, plane.columns), 0, -1)
    if page.inverted:
        picture = ~picture
    if plane.dtype.kind == "b" and page.dtype.kind != "b":
        top = int(picture.max(initial=0))
        if top > 1 and not np.isin(picture, (0, 255)).all():
            raise BadInput(f"expected a mask of 0 and 255 (or 0 and 1), got {page.dtype.name} values up to {top}")
        picture = picture != 0
    if picture.size != plane.box.size or picture.dtype.newbyteorder("=") != plane.dtype:
        raise BadInput(f"expected {plane.describe()}, got {describe(picture.shape, picture.dtype)}")
    return plane.voxels(picture.astype(plane.dtype, copy=False))


@dataclass(frozen=True, slots=True)
class _Page:
    """The facts in the first page directory of a file."""

    rows: int
    columns: int
    samples: int
    dtype: np.dtype[Any]
    compression: int
    predictor: int
    photometric: int
    planar: bool
    segments: list[memoryview]
    segment_bytes: int
    pages: int
    inverted: bool

    @property
    def shape(self) -> Index:
        return (self.rows, self.columns, self.samples) if self.samples > 1 else (self.rows, self.columns)

    @classmethod
    def read(cls, view: memoryview) -> _Page:
        tags, pages = _directories(view)

        def one(number: int, default: int) -> int:
            values = tags.get(number)
            return values[0] if values else default

        rows, columns, samples = one(257, 0), one(256, 0), one(277, 1)
        bits, kinds = set(tags.get(258) or (1,)), set(tags.get(339) or (1,))
        if len(bits) > 1 or len(kinds) > 1 or one(32997, 1) != 1:
            raise BadInput("the samples of the TIFF differ in size or kind")
        depth, kind = bits.pop(), _DTYPES.get(kinds.pop())
        try:
            dtype = np.dtype(bool) if depth == 1 else np.dtype(f"{kind}{depth // 8}")
        except TypeError as error:
            raise BadInput(f"a TIFF of {depth} bits a sample is not taken") from error
        if depth % 8 and depth != 1:
            raise BadInput(f"a TIFF of {depth} bits a sample is not taken")
        tiled = 324 in tags
        offsets, counts = tags.get(324 if tiled else 273, ()), tags.get(325 if tiled else 279, ())
        if not offsets or len(offsets) != len(counts) or 0 in offsets or 0 in counts:
            raise Incomplete("the TIFF does not say yet where its pixels are")
        if any(offset + count > len(view) for offset, count in zip(offsets, counts, strict=True)):
            raise Incomplete("the TIFF ends early")
        width, height = (one(322, 0), one(323, 0)) if tiled else (columns, min(rows, one(278, rows)))
        planar = one(284, 1) == 2 and samples > 1
        if rows and columns and (not width or not height):
            raise BadInput("the TIFF is damaged: its strips or tiles are empty")
        if rows and columns:
            expected = -(-rows // height) * -(-columns // width) * (samples if planar else 1)
            if len(offsets) != expected:  # tifffile would give zeros for the missing part
                raise BadInput(f"the TIFF is damaged: it has {len(offsets)} of {expected} strips or tiles")
        per_row = (width * (1 if planar else samples) * depth + 7) // 8
        return cls(
            rows,
            columns,
            samples,
            dtype,
            one(259, 1),
            one(317, 1),
            one(262, 1),
            planar,
            [view[offset : offset + count] for offset, count in zip(offsets, counts, strict=True)],
            per_row * height,
            pages,
            depth == 1 and one(262, 1) == 0 and not bytes(tags.get(305, ())).startswith(b"tifffile"),
        )

    def check(self, plane: PlaneSpec) -> None:
        """Raise BadInput unless the page is a picture of this slice that can be decoded without loss."""
        mask = plane.dtype.kind == "b" and self.dtype == np.uint8
        if (self.rows, self.columns, self.samples) != (plane.rows, plane.columns, plane.samples) or not (
            self.dtype == plane.dtype or mask
        ):
            raise BadInput(f"expected {plane.describe()}, got {describe(self.shape, self.dtype)}")
        if self.pages > 1:
            raise BadInput("expected one picture, got a TIFF of several pages")
        if self.photometric not in ((0, 1) if self.dtype.kind == "b" else (1, 2, 3)):
            raise BadInput(f"the TIFF is neither gray nor RGB (its photometric interpretation is {self.photometric})")
        name = _COMPRESSIONS.get(self.compression)
        if name is None:
            raise BadInput(f"TIFF compression {self.compression} is lossy or unknown: save it uncompressed or with LZW")
        if find_spec("imagecodecs") is None:
            if name not in _WITHOUT_IMAGECODECS or self.predictor == 3:
                raise BadInput(
                    f"a TIFF compressed with {name} needs the package imagecodecs: pip install 'volfs[import]'"
                )
            if name == "Deflate":  # tifffile's own fallback does not bound its output
                for segment in self.segments:
                    _check_inflated_size(segment, self.segment_bytes)


def _check_inflated_size(segment: memoryview, limit: int) -> None:
    stream = zlib.decompressobj()
    size, rest = 0, bytes(segment)
    try:
        while rest and size <= limit:
            size += len(stream.decompress(rest, 1 << 20))
            rest = stream.unconsumed_tail
    except zlib.error as error:
        raise BadInput(f"the TIFF is damaged: {error}") from error
    if size > limit:
        raise BadInput("the TIFF is damaged: its data overflow the picture")


def _directories(view: memoryview) -> tuple[dict[int, tuple[int, ...]], int]:
    """The tags of the first page, and the number of pages (pictures, not reduced copies)."""
    start = bytes(view[:4])
    if not any(start) or (len(start) < 4 and start[:2] in (b"I", b"M", b"II", b"MM")):
        raise Incomplete("the TIFF is not complete yet")
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    version = struct.unpack(f"{order}H", start[2:4])[0] if order and len(start) == 4 else 0
    if version not in (42, 43):
        raise BadInput("this is not a TIFF")
    big = version == 43
    at = _unpack(view, f"{order}{'Q' if big else 'I'}", 8 if big else 4)[0]
    first: dict[int, tuple[int, ...]] | None = None
    pages, seen = 0, set()
    while at and at not in seen and pages < 2:
        seen.add(at)
        tags, at = _directory(view, at, f"{order}", big=big)
        if not (tags.get(254) or (0,))[0] & 1:
            pages += 1
        if first is None:
            first = tags
    if first is None:
        raise Incomplete("the TIFF has no page yet")
    described = _IMAGES.search(bytes(first.get(270, ())[:1000]))  # ImageJ keeps stacks past 4 GiB in one page
    return first, max(pages, int(described[1]) if described else 1)


def _directory(view: memoryview, at: int, order: str, *, big: bool) -> tuple[dict[int, tuple[int, ...]], int]:
    """The tags of one page and the position of the next."""
    (count,) = _unpack(view, f"{order}{'Q' if big else 'H'}", at)
    if count == 0:
        raise Incomplete("the TIFF has an empty page")
    if count > 4096:
        raise BadInput("the TIFF is damaged: too many tags")
    at += 8 if big else 2
    tags = dict(_tags(view, at, count, order, big=big))
    at += count * (20 if big else 12)
    return tags, _unpack(view, f"{order}{'Q' if big else 'I'}", at)[0]


def _tags(view: memoryview, at: int, count: int, order: str, *, big: bool) -> Iterator[tuple[int, tuple[int, ...]]]:
    step, inline, pointer = (20, 8, "Q") if big else (12, 4, "I")
    for entry in range(at, at + count * step, step):
        number, kind, amount = _unpack(view, f"{order}HH{pointer}", entry)
        code = _CODES.get(kind)
        if code is None:
            continue
        where = entry + step - inline
        size = amount * struct.calcsize(f"<{code}")
        if size > inline:
            (where,) = _unpack(view, f"{order}{pointer}", where)
        if where + size > len(view):
            raise Incomplete("the TIFF ends early")
        if amount > _MAX_VALUES:
            raise BadInput("the TIFF is damaged: a tag is too long")
        if code == "c":
            yield number, tuple(view[where : where + size])
        else:
            yield number, struct.unpack_from(f"{order}{amount * len(code)}{code[0]}", view, where)


def _unpack(view: memoryview, code: str, at: int) -> tuple[Any, ...]:
    if at + struct.calcsize(code) > len(view):
        raise Incomplete("the TIFF ends early")
    return struct.unpack_from(code, view, at)


class _ReadOnly(io.RawIOBase):
    """A file over bytes in memory, without the copy that BytesIO makes of a memoryview."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        piece = self._view[self._at : self._at + len(target)]
        target[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
