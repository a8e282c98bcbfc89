"""Voxels behind an encoding of the whole: ``.nii.gz``, NRRD's gzip, bzip2, text and hex, MetaImage's zlib and text.

Such a stream cannot be read from its middle: at the first read it is unpacked into a temporary file without a name (in
``$TMPDIR``, else /var/tmp), of the size that the header promises and not more. Checksums are compared. Text is numbers
between spaces or commas, which must be of the voxels' type.
"""

from __future__ import annotations

import bz2
import gzip
import math
import os
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.readers.raw import RawVoxels, Voxels, row_grain
from volfs.ingest.source import unreadable
from volfs.model.box import Box, Index
from volfs.storage.files import no_space

Packing = Literal["gzip", "bzip2", "zlib", "text", "hex"]

_MARKS: dict[bytes, Packing] = {b"\x1f\x8b": "gzip", b"BZh": "bzip2"}
_STEP = 1 << 20
_TEXT_STEP = 1 << 18
"""Bytes of text that are parsed at a time: in memory their numbers take many times that."""
_LONGEST_NUMBER = 1024
_TAIL = 64 << 20
"""What may follow the voxels (nothing should)."""


def packing_of(start: bytes) -> Packing | None:
    """How a file is packed as a whole, by its first bytes."""
    return next((packing for mark, packing in _MARKS.items() if start.startswith(mark)), None)


def packing_of_file(path: Path) -> Packing | None:
    """How a file is packed as a whole. BadInput if it cannot be read."""
    try:
        with path.open("rb") as file:
            return packing_of(file.read(4))
    except OSError as error:
        raise unreadable(path, error.strerror) from error


def unpacked_start(path: Path, packing: Packing | None, size: int) -> bytes:
    """The first ``size`` bytes of what is packed in a file, or less. BadInput if they are damaged."""
    try:
        with path.open("rb") as file, _opened(file, packing) as inside:
            return inside.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


class PackedVoxels(Voxels):
    """An array of ``shape`` in C order at ``offset`` of what is packed in a file from byte ``start`` on."""

    def __init__(
        self, path: Path, packing: Packing, dtype: np.dtype[Any], shape: Index, offset: int, start: int = 0
    ) -> None:
        self._path = path
        self._packing = packing
        self._dtype = dtype
        self._shape = shape
        self._offset = offset
        self._start = start
        self._voxels: RawVoxels | None = None
        self._lock = threading.Lock()

    @property
    def grain(self) -> Index:
        return row_grain(self._shape, self._dtype.itemsize)

    def read(self, box: Box) -> np.ndarray:
        return self._raw().read(box)

    def read_into(self, box: Box, out: np.ndarray) -> None:
        self._raw().read_into(box, out)

    def close(self) -> None:
        if self._voxels is not None:
            self._voxels.close()

    def _raw(self) -> RawVoxels:
        with self._lock:
            if self._voxels is None:
                self._voxels = RawVoxels(self._path, self._dtype, self._shape, self._offset, self._unpacked())
            return self._voxels

    def _unpacked(self) -> IO[bytes]:
        limit = self._offset + math.prod(self._shape) * self._dtype.itemsize
        with no_space("for unpacking the volume"):
            target = tempfile.TemporaryFile(dir=scratch_folder())  # noqa: SIM115 (it outlives this function)
        try:
            with self._path.open("rb") as file, no_space("for unpacking the volume"):
                file.seek(self._start)
                total = 0
                for piece in _pieces(file, self._packing, self._dtype):  # to the end, where the checksum is
                    target.write(piece[: max(0, limit - total)])
                    total += len(piece)
                    if total > limit + _TAIL:
                        raise BadInput(f"{self._path} holds far more than its header promises")
                target.flush()
        except (OSError, EOFError, ValueError, zlib.error) as error:
            target.close()
            raise unreadable(self._path, error) from error
        except BaseException:
            target.close()
            raise
        return target


def _pieces(file: IO[bytes], packing: Packing, dtype: np.dtype[Any]) -> Iterator[bytes]:
    """What is packed, in pieces of bounded size."""
    if packing == "text":
        yield from (_parsed(words, dtype) for words in _words(file))
        return
    if packing == "hex":
        yield from _from_hex(file)
        return
    if packing == "zlib":
        unpacker = zlib.decompressobj()
        while not unpacker.eof:
            packed = unpacker.unconsumed_tail or file.read(_STEP)
            piece = unpacker.decompress(packed, _STEP)
            if not packed and not piece and not unpacker.eof:
                raise EOFError("the compressed data end before their end mark")
            yield piece
        return
    with _opened(file, packing) as opened:
        while piece := opened.read(_STEP):
            yield piece


def _words(file: IO[bytes]) -> Iterator[list[bytes]]:
    """What stands between spaces and commas, many at a time."""
    rest = b""
    while text := file.read(_TEXT_STEP):
        text = (rest + text).replace(b",", b" ")
        words = text.split()
        rest = words.pop() if words and not text[-1:].isspace() else b""
        if len(rest) > _LONGEST_NUMBER:
            raise ValueError(f"it has {_shown(rest)} where a number should be")
        if words:
            yield words
    if rest:
        yield [rest]


def _parsed(words: list[bytes], dtype: np.dtype[Any]) -> bytes:
    """Numbers in text as voxels. ValueError, naming it, for a word that is no number of that type."""
    parse = float if dtype.kind == "f" else _whole(np.iinfo(dtype))
    found = []
    for word in words:
        try:
            found.append(parse(word if b"_" not in word else b""))
        except (ValueError, ArithmeticError):
            raise ValueError(f"it has {_shown(word)} where a number of {dtype.name} should be") from None
    with np.errstate(over="ignore"):  # too large for a float is infinite
        return np.array(found, dtype).tobytes()


def _whole(limits: np.iinfo[Any]) -> Callable[[bytes], int]:
    """What reads integers, also as programs write them that take all numbers for decimal fractions (``7.0e+00``).
    ValueError for what is none, or beyond the limits."""

    def parse(word: bytes) -> int:
        number = int(word) if word.strip(b"+-").isdigit() else Decimal(word.decode("ascii"))
        if not limits.min <= number <= limits.max or number != int(number):
            raise ValueError
        return int(number)

    return parse


def _shown(word: bytes) -> str:
    return repr(word[:32].decode("ascii", "replace"))


def _from_hex(file: IO[bytes]) -> Iterator[bytes]:
    """Bytes written as two digits each, spaces and line ends left aside."""
    rest = b""
    while text := file.read(_STEP):
        digits = rest + b"".join(text.split())
        even = len(digits) & ~1
        rest = digits[even:]
        yield bytes.fromhex(digits[:even].decode("latin1"))
    if rest:
        raise EOFError("its last byte has one digit")


def _opened(file: IO[bytes], packing: Packing | None) -> IO[bytes]:
    if packing is None:
        return file
    return cast("IO[bytes]", gzip.GzipFile(fileobj=file, mode="rb") if packing == "gzip" else bz2.BZ2File(file))


def scratch_folder() -> str | None:
    """Where temporary files lie: /tmp is often memory, /var/tmp is on disk. None: where Python puts them."""
    if "TMPDIR" in os.environ or not os.access("/var/tmp", os.W_OK):
        return None
    return "/var/tmp"
