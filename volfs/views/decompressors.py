"""Compressed voxels in files that other programs wrote: one strict, bounded decoder for each compressor.

Decided here: when a compressed file is complete, and that it holds exactly as many bytes as expected and nothing after
them. Compressors are named as Zarr and N5 name them; ``None`` is no compression.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import zstandard

from volfs.errors import BadInput
from volfs.views.plane import Incomplete

NAMES = ("blosc", "gzip", "zlib", "zstd")

Buffer = bytes | bytearray | memoryview

_ZSTD_STEP = 1 << 10
"""Bytes of a zstd frame decoded at a time: a block of four bytes may stand for 128 KiB."""
_BLOSC_HEADER = struct.Struct("<BBBBIII")


def decompress(name: str | None, data: Buffer, length: int) -> Buffer:
    """The ``length`` bytes that ``data`` holds; never much more than that in memory.

    Incomplete if the data end early, BadInput if they are damaged, hold another number of bytes, or do not end there.
    """
    view = memoryview(data).cast("B")
    if name is None:
        raw: Buffer = view
        if len(view) < length:
            raise Incomplete(f"the file has {len(view)} of {length} bytes")
    else:
        if not any(view[:16]):  # no compressor begins with as many zeros
            raise Incomplete("the file is not complete yet")
        raw = {"blosc": _blosc, "gzip": _gzip, "zlib": _zlib, "zstd": _zstd}[name](view, length)
    if len(raw) != length:
        raise BadInput(f"expected {length} bytes of voxels, got {'more' if len(raw) > length else len(raw)}")
    return raw


def _gzip(view: memoryview, length: int) -> Buffer:
    return _deflated(view, length, 31, "gzip")


def _zlib(view: memoryview, length: int) -> Buffer:
    return _deflated(view, length, 15, "zlib")


def _deflated(view: memoryview, length: int, bits: int, name: str) -> Buffer:
    inflate = zlib.decompressobj(bits)
    try:
        raw = inflate.decompress(view, length + 1)
    except zlib.error as error:
        raise BadInput(f"the {name} stream is damaged: {error}") from None
    if not inflate.eof and len(raw) <= length:
        raise Incomplete(f"the {name} stream ends early")
    if inflate.unused_data:
        raise BadInput(f"the file has {len(inflate.unused_data)} bytes after its {name} stream")
    return raw


def _zstd(view: memoryview, length: int) -> Buffer:
    """RFC 8878, one frame."""
    if view[:4] != zstandard.FRAME_HEADER[: len(view[:4])]:
        raise BadInput("this is not a zstd frame")
    inflate = zstandard.ZstdDecompressor().decompressobj()
    raw = bytearray()
    at = 0
    try:
        while at < len(view) and not inflate.eof and len(raw) <= length:
            raw += inflate.decompress(view[at : at + _ZSTD_STEP])
            at += _ZSTD_STEP
    except zstandard.ZstdError as error:
        raise BadInput(f"the zstd frame is damaged: {error}") from None
    if inflate.eof and (inflate.unused_data or at < len(view)):
        raise BadInput("the file has bytes after its zstd frame")
    if not inflate.eof and len(raw) <= length:
        raise Incomplete("the zstd frame ends early")
    return raw


def _blosc(view: memoryview, length: int) -> Buffer:
    """Blosc 1 (c-blosc README_CHUNK_FORMAT.rst). The header is checked before the library believes it."""
    if len(view) < _BLOSC_HEADER.size:
        raise Incomplete("the blosc chunk ends early")
    version, _, flags, typesize, nbytes, blocksize, cbytes = _BLOSC_HEADER.unpack_from(view)
    if version not in (1, 2) or not typesize or flags & 0x08 or cbytes < _BLOSC_HEADER.size:
        raise BadInput("this is not a blosc chunk")
    if nbytes != length:
        raise BadInput(f"expected {length} bytes of voxels, got {nbytes}")
    if cbytes > len(view):
        raise Incomplete("the blosc chunk ends early")
    if cbytes < len(view):
        raise BadInput(f"the file has {len(view) - cbytes} bytes after its blosc chunk")
    if flags & 0x02:
        sound = cbytes == nbytes + _BLOSC_HEADER.size
    else:
        blocks = -(-nbytes // blocksize) if 0 < blocksize <= nbytes else 0
        first = _BLOSC_HEADER.size + 4 * blocks
        sound = blocks > 0 and first <= cbytes
        if sound:
            starts = np.frombuffer(view[_BLOSC_HEADER.size : first], "<u4")
            sound = bool(starts.min() >= first and starts.max() <= cbytes - 4)
    if not sound:
        raise BadInput("the blosc chunk is damaged")
    from numcodecs import blosc  # type: ignore[import-untyped]  # see volfs.storage.compressors

    raw = np.empty(length, np.uint8)
    try:
        blosc.decompress(view, raw)
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"the blosc chunk is damaged: {error}") from None
    return raw.data
