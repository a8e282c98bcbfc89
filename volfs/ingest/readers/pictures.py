"""One picture in one file: PNG, JPEG or single-page TIFF, its header and its voxels.

Which of them it is, its first bytes say, and its name only where they say nothing. Headers are read without decoding.
Files are checked as far as their format allows: PNG chunks carry checksums, JPEG and TIFF do not.
"""

from __future__ import annotations

import io
import logging
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
import tifffile

from volfs.errors import BadInput, VolfsError
from volfs.ingest.readers.archive import Member
from volfs.ingest.readers.marks import JPEG, PNG, PNG_SIGNATURE, picture_kind, picture_kind_in
from volfs.ingest.source import unreadable
from volfs.model.box import Index

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Place = Path | Member
"""Where a picture is: a file, or one in an archive."""

# Said in our errors, in one line: without a handler Python prints it besides.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_ORDERS: dict[str, Literal["little", "big"]] = {"<": "little", ">": "big"}
_JPEGS = (6, 7, 33007, 34892)
"""Compressions of TIFF that decode to RGB: JPEG as it was in TIFF 6.0, JPEG, and other numbers for the latter."""

_DEFLATE_AT_BEST = 1032
"""No more bytes come out of one byte. (One-bit masks become eight times as large again.)"""

_MARGIN = 64 << 20
"""What a PNG may hold besides its pixels."""

_MOST_CHUNKS = 1000

_PNG_HEAD = 33
"""Bytes of its signature and header."""
_INDEXED = 3
_PNG_SAMPLES = {0: 1, 2: 3, _INDEXED: 1, 4: 2, 6: 4}
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), _INDEXED: (1, 2, 4, 8)}
_MOST_COLOURS = 256


@dataclass(frozen=True, slots=True)
class Picture:
    """What a file holds: (rows, columns) or (rows, columns, samples), and the dtype. ``palette`` are the colours that
    its numbers stand for, red, green and blue in a byte each; empty where numbers are intensities."""

    shape: Index
    dtype: np.dtype[Any]
    palette: bytes = b""

    def __str__(self) -> str:
        samples = f", {self.shape[2]} samples" if len(self.shape) > 2 else ""
        return f"{self.shape[1]} x {self.shape[0]} {self.dtype.name}{samples}"


def kind_in(place: Place) -> str | None:
    """The format that a file's first bytes say. OSError if it cannot be read."""
    with place.open("rb") as file:
        return picture_kind_in(file.read(8))


def header_of(place: Place) -> Picture:
    """What a file holds, from its header. BadInput if it is damaged or no picture of voxels."""
    try:
        with place.open("rb") as file:
            start = file.read(_PNG_HEAD)
            kind = picture_kind_in(start) or picture_kind(place.name)
            if kind == PNG:
                found = _png_header(place, start)
                if math.prod(found.shape) * found.dtype.itemsize > (_size(place) + 1024) * _DEFLATE_AT_BEST * 8:
                    raise unreadable(str(place), "its header promises more than so few bytes can hold")
                return replace(found, palette=_png_palette(place, file)) if start[25] == _INDEXED else found
            if kind == JPEG:
                with _opened_jpeg(file) as image:
                    return _jpeg_header(place, image)
        with opened_tiff(place) as tiff:
            return _page(place, tiff)[1]
    except VolfsError:
        raise
    except Exception as error:  # the libraries raise whatever the damage leads to
        raise undecodable(str(place), error) from error


def read_picture(place: Place) -> np.ndarray:
    """The voxels of a whole file, native byte order. BadInput if it is damaged or cut short."""
    try:
        with place.open("rb") as file:
            start = file.read(_PNG_HEAD)
            kind = picture_kind_in(start) or picture_kind(place.name)
            if kind == PNG:
                found = _png_header(place, start)
                most = 2 * math.prod(found.shape) * found.dtype.itemsize + _MARGIN
                if not isinstance(place, Path) and place.size > most:
                    raise unreadable(str(place), f"it has {place.size} bytes, far more than a picture {found} needs")
                return _read_png(place, start + file.read())
            if kind == JPEG:
                with _opened_jpeg(file) as image:
                    _jpeg_header(place, image)
                    return np.asarray(image)
        with opened_tiff(place) as tiff:
            page, found = _page(place, tiff)
            return page_voxels(page).reshape(found.shape)
    except VolfsError:
        raise
    except Exception as error:
        raise undecodable(str(place), error) from error


def _opened_jpeg(file: IO[bytes]) -> ImageFile:
    from PIL.JpegImagePlugin import JpegImageFile  # TIFF, which needs other parts of this module, does not need Pillow

    file.seek(0)
    return JpegImageFile(file)


def undecodable(where: str, error: Exception) -> BadInput:
    """The error for what a library could not decode; it says what to install, if that is all that is missing."""
    if "imagecodecs" in str(error):
        return BadInput(f"{where} is compressed in a way that needs imagecodecs: pip install 'volfs[import]'")
    return unreadable(where, error)


@contextmanager
def opened_tiff(place: Place) -> Iterator[tifffile.TiffFile]:
    """A TIFF, wherever it is."""
    if isinstance(place, Path):
        with tifffile.TiffFile(place) as tiff:
            yield tiff
        return
    with place.whole() as file, tifffile.TiffFile(file, name=place.name) as tiff:
        yield tiff


def _size(place: Place) -> int:
    return place.stat().st_size if isinstance(place, Path) else place.size


def page_voxels(page: tifffile.TiffPage | tifffile.TiffFrame, lock: Any = None) -> np.ndarray:
    """The voxels of one TIFF page, samples last, native byte order. ValueError if pixels are missing."""
    if 0 in page.databytecounts or 0 in page.dataoffsets or not page.dataoffsets:
        raise ValueError("pixels are missing")  # tifffile would give zeros
    if len(page.dataoffsets) != math.prod(page.chunked):
        raise ValueError(f"it has {len(page.dataoffsets)} of {math.prod(page.chunked)} strips or tiles")
    if any(a + n > page.parent.filehandle.size for a, n in zip(page.dataoffsets, page.databytecounts, strict=True)):
        raise ValueError("pixels lie past its end")
    voxels: np.ndarray = page.asarray(maxworkers=1, lock=lock)
    keyframe = page.keyframe
    assert keyframe is not None
    if keyframe.photometric == 0 and not keyframe.software.startswith("tifffile"):
        voxels = ~voxels  # one bit: where zero is white, white is True; tifffile means the bits themselves
    if keyframe.samplesperpixel > 1 and keyframe.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        voxels = np.moveaxis(voxels.reshape(keyframe.samplesperpixel, keyframe.imagelength, keyframe.imagewidth), 0, -1)
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)


def check_page(path: Place, page: tifffile.TiffPage) -> None:
    """Raise BadInput for pages whose pixels are not voxels as they are."""
    known = page.photometric in (0, 1, 2, 3)
    # Colours of JPEG are RGB once they are decoded; in other compressions YCbCr is what stands there.
    if not known and not (page.photometric == 6 and page.compression in _JPEGS):
        name = getattr(page.photometric, "name", page.photometric)
        raise BadInput(f"{path} is neither gray nor RGB (photometric interpretation {name})")
    bits = page.bitspersample
    # Integers of three bytes are in the file's byte order to libtiff, and in one of its own to tifffile.
    if page.dtype is None or page.dtype.kind not in "biufc" or (bits == 24 and page.dtype.kind == "u"):
        raise BadInput(f"{path} has {bits} bits a sample, which is not a type of voxels")


def remarks_on(path: Place, page: tifffile.TiffPage) -> tuple[str, ...]:
    """What a user should know of numbers that are kept as they are stored."""
    if page.photometric != tifffile.PHOTOMETRIC.MINISWHITE:
        return ()
    return (f"{path} says that small numbers are white (MINISWHITE): they are kept as stored, and shown as dark",)


def check_chain(path: Place, tiff: tifffile.TiffFile) -> None:
    """Raise BadInput unless the last page says that it is: of a file cut short, tifffile gives what is left."""
    form, file = tiff.tiff, tiff.filehandle
    file.seek(form.offsetsize)
    at, seen = int.from_bytes(file.read(form.offsetsize), _ORDERS[form.byteorder]), 0
    while at:
        seen += 1
        file.seek(at)
        count = int.from_bytes(file.read(form.tagnosize), _ORDERS[form.byteorder])
        file.seek(at + form.tagnosize + count * form.tagsize)
        pointer = file.read(form.offsetsize)
        if len(pointer) != form.offsetsize:
            raise unreadable(str(path), f"page {seen} lies past its end")
        if seen > len(tiff.pages):
            raise unreadable(str(path), "its pages run in a circle")
        at = int.from_bytes(pointer, _ORDERS[form.byteorder])


def _page(path: Place, tiff: tifffile.TiffFile) -> tuple[tifffile.TiffPage, Picture]:
    check_chain(path, tiff)
    if len(tiff.pages) != 1:
        raise BadInput(f"{path} has {len(tiff.pages)} pages, a slice has one: import TIFF stacks one at a time")
    page = tiff.pages.first
    check_page(path, page)
    shape: Index = (page.imagelength, page.imagewidth)
    if page.samplesperpixel > 1:
        shape = (*shape, page.samplesperpixel)
    if page.imagedepth != 1:
        raise BadInput(f"{path} holds a volume, a slice has one plane")
    assert page.dtype is not None
    return page, Picture(shape, page.dtype.newbyteorder("="), page_palette(page))


def _png_header(path: Place, start: bytes) -> Picture:
    if start[:8] != PNG_SIGNATURE or len(start) < 33 or start[12:16] != b"IHDR":
        raise unreadable(str(path), "not a PNG" if start[:8] != PNG_SIGNATURE[: len(start[:8])] else "")
    columns, rows, depth, colour = struct.unpack(">IIBB", start[16:26])
    samples = _PNG_SAMPLES.get(colour)
    if samples is None or depth not in _PNG_DEPTHS.get(colour, (8, 16)) or not rows or not columns:
        raise BadInput(f"{path} is a PNG of {depth} bits a sample, which is not a type of voxels")
    # Gray of two and four bits is from 0 to 255 to all libraries that decode it.
    dtype = np.dtype("bool" if depth == 1 and colour == 0 else "u2" if depth == 16 else "u1")
    return Picture((rows, columns) if samples == 1 else (rows, columns, samples), dtype)


def _png_palette(path: Place, file: IO[bytes]) -> bytes:
    """The colours of a PNG that is open behind its header."""
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        if name == b"PLTE" and length <= 3 * _MOST_COLOURS:
            return _but_gray(file.read(length))
        if name in (b"", b"IDAT", b"IEND") or length > _MARGIN:
            break
        file.read(length + 4)
    raise unreadable(str(path), "it says that it has a palette, and has none")


def _but_gray(palette: bytes) -> bytes:
    """A palette, or nothing if every number stands for itself as a gray."""
    return b"" if palette == bytes(n for n in range(len(palette) // 3) for _ in "rgb") else palette


def palette_facts(palette: bytes) -> dict[str, list[str]]:
    """Among the facts of a source: its colours, as RRGGBB."""
    colours = [palette[at : at + 3].hex().upper() for at in range(0, len(palette), 3)]
    return {"palette": colours} if colours else {}


def palette_remarks(path: Place, palette: bytes) -> tuple[str, ...]:
    """What a user should know of numbers that stand for colours."""
    kept = f"{path} has a palette: its numbers are kept, and the colours that they stand for are in info.json"
    return (kept,) if palette else ()


def page_palette(page: tifffile.TiffPage) -> bytes:
    """The colours that the numbers of a TIFF page stand for, if they are not too many."""
    colours = page.colormap if page.photometric == tifffile.PHOTOMETRIC.PALETTE else None
    if colours is None or colours.ndim != 2 or len(colours) != 3 or colours.shape[1] > _MOST_COLOURS:
        return b""
    return _but_gray((colours.T >> 8).astype(np.uint8).tobytes())


def _read_png(path: Place, data: bytes) -> np.ndarray:
    found = _png_header(path, data[:33])
    picture: np.ndarray
    _check_png(path, data)
    if found.dtype == np.uint16 and len(found.shape) > 2:  # Pillow reduces these to 8 bits
        try:
            import imagecodecs
        except ImportError as error:
            raise BadInput(f"{path}: 16-bit colour PNG needs imagecodecs: pip install 'volfs[import]'") from error
        picture = np.asarray(imagecodecs.png_decode(data))
        return picture.reshape(found.shape)
    from PIL.PngImagePlugin import PngImageFile

    # Not through Image.open, which refuses large pictures: the header has been compared with the other slices.
    with PngImageFile(io.BytesIO(data)) as image:
        if image.mode == "1":  # whose arrays have, in some releases of Pillow, bools made of the byte 255
            picture = np.asarray(image.convert("L")) != 0
        else:
            picture = np.asarray(image).astype(found.dtype, copy=False)
    return picture


def _check_png(path: Place, data: bytes) -> None:
    """Compare the checksum of every chunk: Pillow leaves those of the pixels out."""
    view, at, name = memoryview(data), 8, b""
    while name != b"IEND":
        length = int.from_bytes(view[at : at + 4], "big")
        end = at + 12 + length
        if end > len(view):
            raise unreadable(str(path), "it ends early")
        name = bytes(view[at + 4 : at + 8])
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise unreadable(str(path), f"wrong checksum at byte {at}")
        at = end


def _jpeg_header(path: Place, image: ImageFile) -> Picture:
    if image.mode not in ("L", "RGB"):
        raise BadInput(f"{path} is a JPEG of mode {image.mode}: gray and RGB are imported")
    shape = (image.height, image.width)
    return Picture(shape if image.mode == "L" else (*shape, 3), np.dtype("u1"))
