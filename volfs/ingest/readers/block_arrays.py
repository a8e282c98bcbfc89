"""Arrays cut into blocks that are files, or pieces of files: what N5 and Neuroglancer's precomputed have in common.

Decided here: how a box is put together from blocks, that a missing block is zero, and what the compressions of blocks
give (never more than a block can be). Not here: where a block lies and what precedes its voxels.
"""

from __future__ import annotations

import bz2
import itertools
import lzma
import math
import os
import stat
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import lz4 as _lz4  # type: ignore[import-untyped]

from volfs.errors import BadInput, Damaged
from volfs.ingest.source import unreadable
from volfs.model.box import Box, Index
from volfs.storage.compressors import Blosc, Gzip, Wanted, Zstd

MOST_BYTES = 1 << 31
"""No block is larger than this once it is decoded: one that is does not come from any program that cuts blocks."""


class Blocks(ABC):
    """An array in C order, of native byte order once it is read."""

    shape: Index
    chunk: Index
    dtype: np.dtype[Any]

    @abstractmethod
    def block(self, coords: Index) -> np.ndarray | None:
        """The voxels of a block, those outside the array left out; None if it is missing. BadInput if damaged."""

    def box_of(self, coords: Index) -> Box:
        """What a block covers of the array."""
        start = tuple(i * c for i, c in zip(coords, self.chunk, strict=True))
        return Box(start, tuple(min(a + c, n) for a, c, n in zip(start, self.chunk, self.shape, strict=True)))

    def read(self, box: Box) -> np.ndarray:
        out = np.zeros(box.shape, self.dtype)
        ranges = [range(a // c, -(-b // c)) for a, b, c in zip(box.start, box.stop, self.chunk, strict=True)]
        if box.empty:
            return out
        for coords in itertools.product(*ranges):
            found = self.block(coords)
            if found is not None:
                whole = self.box_of(coords)
                part = whole.intersect(box)
                out[part.relative_to(box.start).slices()] = found[part.relative_to(whole.start).slices()]
        return out


def read_file(path: Path, most: int) -> bytes | None:
    """The bytes of a plain file, None if there is none. BadInput if it has more than ``most``, before it is read."""
    try:
        # A pipe in the place of a block would be waited for.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise unreadable(path, "it is no plain file")
            if found.st_size > most:
                raise unreadable(path, f"it has {found.st_size} bytes, {most} are the most that can be")
            return file.read(most)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error.strerror) from error


def most_packed(size: int) -> int:
    """The most bytes that so many take in a file, whatever packs them: some make a little more of what is random."""
    return size + size // 4 + (1 << 16)


def decompress(path: Path, name: str, data: bytes, size: int) -> bytes:
    """``data`` without its compression: exactly ``size`` bytes. BadInput, naming the file, if it is damaged."""
    try:
        decode = DECODERS[name]
    except KeyError:
        raise BadInput(f"{path} is compressed with {name}: {', '.join(DECODERS)} are imported") from None
    try:
        found = decode(data, Wanted(size, size))
    except (Damaged, ValueError, RuntimeError, OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise unreadable(path, error) from error
    if len(found) != size:
        raise unreadable(path, f"its block has {len(found)} bytes, not {size}")
    return found


def gunzip(path: Path, data: bytes, limit: int) -> bytes:
    """What is in a gzip of unknown size, of at most ``limit`` bytes."""
    try:
        return bytes(Gzip(6).decode(data, Wanted(None, limit)))
    except Damaged as error:
        raise unreadable(path, error) from error


def _gzip_or_zlib(data: bytes, wanted: Wanted) -> bytes:
    if data[:2] == b"\x1f\x8b":
        return bytes(Gzip(6).decode(data, wanted))
    inflate = zlib.decompressobj()
    found = inflate.decompress(data, wanted.limit + 1)
    if not inflate.eof:
        raise EOFError("the stream is cut off")
    return found


def _bzip2(data: bytes, wanted: Wanted) -> bytes:
    return _whole(bz2.BZ2Decompressor(), data, wanted)


def _xz(data: bytes, wanted: Wanted) -> bytes:
    return _whole(lzma.LZMADecompressor(), data, wanted)


def _whole(unpacker: bz2.BZ2Decompressor | lzma.LZMADecompressor, data: bytes, wanted: Wanted) -> bytes:
    found = unpacker.decompress(data, wanted.limit + 1)
    if not unpacker.eof and len(found) == wanted.size:
        unpacker.decompress(b"", 1)  # to the end of the stream, where the checksum is
    if not unpacker.eof:
        raise EOFError("the stream is cut off")
    return found


_FRAME = b"LZ4Block"


def _lz4_blocks(data: bytes, wanted: Wanted) -> bytes:
    """One LZ4 block, as z5 writes it, or the frames of Java's LZ4BlockOutputStream, as n5-java does."""
    if not data.startswith(_FRAME):
        return bytes(_lz4.decompress(wanted.limit.to_bytes(4, "little") + data))
    found: list[bytes] = []
    at, total = 0, 0
    while data[at : at + 8] == _FRAME:
        method = data[at + 8] & 0xF0
        packed, size = (int.from_bytes(data[at + k : at + k + 4], "little") for k in (9, 13))
        body = data[at + 21 : at + 21 + packed]
        at, total = at + 21 + packed, total + size
        if len(body) != packed or total > wanted.limit or method not in (0x10, 0x20):
            raise ValueError("lz4: a frame that cannot be")
        if size:
            piece = body if method == 0x10 else bytes(_lz4.decompress(size.to_bytes(4, "little") + body))
            if len(piece) != size:
                raise ValueError("lz4: a frame of another size than it says")
            found.append(piece)
        elif not size:
            break  # the mark of the end
    if at != len(data):
        raise ValueError("lz4: there are bytes that belong to no frame")
    return b"".join(found)


DECODERS: dict[str, Callable[[bytes, Wanted], bytes]] = {
    "raw": lambda data, wanted: data,
    "gzip": _gzip_or_zlib,
    "bzip2": _bzip2,
    "xz": _xz,
    "lz4": _lz4_blocks,
    "zstd": lambda data, wanted: bytes(Zstd(3, False).decode(data, wanted)),
    "blosc": lambda data, wanted: bytes(Blosc("lz4", 5, 1, 1, 0).decode(data, wanted)),
}


def grid_shape(shape: Index, chunk: Index) -> Index:
    """How many blocks there are along each axis."""
    return tuple(-(-n // c) for n, c in zip(shape, chunk, strict=True))


def check_blocks(path: Path, shape: Index, chunk: Index, itemsize: int) -> None:
    """BadInput unless shape and block shape are of positive numbers, and blocks are of a size that can be."""
    if len(shape) != len(chunk) or min([*shape, *chunk], default=0) < 1:
        raise unreadable(path, f"its shape is {shape}, its blocks are {chunk}")
    if math.prod(chunk) * itemsize > MOST_BYTES:
        raise BadInput(f"{path} has blocks of more than {MOST_BYTES >> 30} GiB, which are not imported")
