"""One picture in one file: PNG, JPEG or single-page TIFF, its header and its voxels.

Headers are read without decoding. Files are checked as far as their format allows: PNG chunks carry checksums, JPEG
and TIFF do not.
"""

from __future__ import annotations

import io
import logging
import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from PIL import Image, JpegImagePlugin, PngImagePlugin

from volfs.errors import BadInput, VolfsError
from volfs.ingest.source import unreadable
from volfs.model.box import Index

PNG, JPEG, TIFF = "PNG", "JPEG", "TIFF"
KINDS = {".png": PNG, ".jpg": JPEG, ".jpeg": JPEG, ".tif": TIFF, ".tiff": TIFF}

# Said in our errors, in one line: without a handler Python prints it besides.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_ORDERS: dict[str, Literal["little", "big"]] = {"<": "little", ">": "big"}
_DEFLATE_AT_BEST = 1032
"""No more bytes come out of one byte. (One-bit masks become eight times as large again.)"""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}


@dataclass(frozen=True, slots=True)
class Picture:
    """What a file holds: (rows, columns) or (rows, columns, samples), and the dtype."""

    shape: Index
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        samples = f", {self.shape[2]} samples" if len(self.shape) > 2 else ""
        return f"{self.shape[1]} x {self.shape[0]} {self.dtype.name}{samples}"


def kind_of(path: Path) -> str | None:
    """The format that a file's name says."""
    return KINDS.get(path.suffix.lower())


def header_of(path: Path) -> Picture:
    """What a file holds, from its header. BadInput if it is damaged or no picture of voxels."""
    kind = kind_of(path)
    try:
        if kind == PNG:
            with path.open("rb") as file:
                found = _png_header(path, file.read(33))
                size = os.fstat(file.fileno()).st_size
                if math.prod(found.shape) * found.dtype.itemsize > (size + 1024) * _DEFLATE_AT_BEST * 8:
                    raise unreadable(path, "its header promises more than so few bytes can hold")
                return found
        if kind == JPEG:
            with path.open("rb") as file, JpegImagePlugin.JpegImageFile(file) as image:
                return _jpeg_header(path, image)
        with tifffile.TiffFile(path) as tiff:
            return _page(path, tiff)[1]
    except VolfsError:
        raise
    except Exception as error:  # the libraries raise whatever the damage leads to
        raise unreadable(path, error) from error


def read_picture(path: Path) -> np.ndarray:
    """The voxels of a whole file, native byte order. BadInput if it is damaged or cut short."""
    kind = kind_of(path)
    try:
        if kind == PNG:
            return _read_png(path, path.read_bytes())
        if kind == JPEG:
            with path.open("rb") as file, JpegImagePlugin.JpegImageFile(file) as image:
                _jpeg_header(path, image)
                return np.asarray(image)
        with tifffile.TiffFile(path) as tiff:
            page, found = _page(path, tiff)
            return page_voxels(page).reshape(found.shape)
    except VolfsError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error


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


def check_page(path: Path, page: tifffile.TiffPage) -> None:
    """Raise BadInput for pages whose pixels are not voxels as they are."""
    if page.photometric not in (0, 1, 2, 3) or (page.photometric == 0 and page.bitspersample != 1):
        name = getattr(page.photometric, "name", page.photometric)
        raise BadInput(f"{path} is neither gray nor RGB (photometric interpretation {name})")
    if page.dtype is None or page.dtype.kind not in "biufc" or page.bitspersample not in (1, 8, 16, 32, 64, 128):
        raise BadInput(f"{path} has {page.bitspersample} bits a sample, which is not a type of voxels")


def check_chain(path: Path, tiff: tifffile.TiffFile) -> None:
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
            raise unreadable(path, f"page {seen} lies past its end")
        if seen > len(tiff.pages):
            raise unreadable(path, "its pages run in a circle")
        at = int.from_bytes(pointer, _ORDERS[form.byteorder])


def _page(path: Path, tiff: tifffile.TiffFile) -> tuple[tifffile.TiffPage, Picture]:
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
    return page, Picture(shape, page.dtype.newbyteorder("="))


def _png_header(path: Path, start: bytes) -> Picture:
    if start[:8] != _SIGNATURE or len(start) < 33 or start[12:16] != b"IHDR":
        raise unreadable(path, "not a PNG" if start[:8] != _SIGNATURE[: len(start[:8])] else "")
    columns, rows, depth, colour = struct.unpack(">IIBB", start[16:26])
    if colour == 3:
        raise BadInput(f"{path} has a palette, its pixels are not voxels: convert it to gray or RGB")
    samples = _PNG_SAMPLES.get(colour)
    if samples is None or depth not in (1, 8, 16) or (depth == 1 and colour != 0) or not rows or not columns:
        raise BadInput(f"{path} is a PNG of {depth} bits a sample, which is not a type of voxels")
    dtype = np.dtype({1: "bool", 8: "u1", 16: "u2"}[depth])
    return Picture((rows, columns) if samples == 1 else (rows, columns, samples), dtype)


def _read_png(path: Path, data: bytes) -> np.ndarray:
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
    # Not through Image.open, which refuses large pictures: the header has been compared with the other slices.
    with PngImagePlugin.PngImageFile(io.BytesIO(data)) as image:
        if image.mode == "1":  # whose arrays have, in some releases of Pillow, bools made of the byte 255
            picture = np.asarray(image.convert("L")) != 0
        else:
            picture = np.asarray(image).astype(found.dtype, copy=False)
    return picture


def _check_png(path: Path, data: bytes) -> None:
    """Compare the checksum of every chunk: Pillow leaves those of the pixels out."""
    view, at, name = memoryview(data), 8, b""
    while name != b"IEND":
        length = int.from_bytes(view[at : at + 4], "big")
        end = at + 12 + length
        if end > len(view):
            raise unreadable(path, "it ends early")
        name = bytes(view[at + 4 : at + 8])
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise unreadable(path, f"wrong checksum at byte {at}")
        at = end


def _jpeg_header(path: Path, image: Image.Image) -> Picture:
    if image.mode not in ("L", "RGB"):
        raise BadInput(f"{path} is a JPEG of mode {image.mode}: gray and RGB are imported")
    shape = (image.height, image.width)
    return Picture(shape if image.mode == "L" else (*shape, 3), np.dtype("u1"))
