"""The bytes-to-bytes codecs: zstd, gzip, blosc, crc32c. Strict on the way in, deterministic on the way out.

Decided here: what counts as an undamaged compressed payload. A decoder accepts exactly one complete frame with nothing
after it, of exactly the size that the caller expects, and takes no memory on the word of an untrusted header. The
libraries' one-call functions are laxer: a plain zstd ``decompress`` takes some damaged frames for empty ones without an
error, several frames for one, and a header's size for the truth. Not here: how codecs chain
(:mod:`volfs.storage.chain`). All codecs may be used from many threads at once, and let go of the GIL while they work.

numcodecs is imported when first needed, or by :func:`load_libraries` before: it reads the metadata of every package,
which neither the first answer of a mount nor its first voxel should wait for.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import zstandard
from crc32c import crc32c

from volfs.errors import Damaged

Buffer = bytes | bytearray | memoryview

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BLOSC_HEADER = struct.Struct("<BBBBIII")
BLOSC_MAX_BYTES = 2**31 - 17


def load_libraries() -> None:
    """Import what decoding needs, so that nobody's first chunk waits for it."""
    from numcodecs import blosc, zstd  # type: ignore[import-untyped]  # noqa: F401


@dataclass(frozen=True, slots=True)
class Wanted:
    """The length that decoding must give: exactly ``size`` bytes, or where that is not known (None) at most
    ``limit``."""

    size: int | None
    limit: int

    def check(self, got: int, codec: str) -> None:
        """Damaged unless a decoded size is as wanted."""
        if got != self.size if self.size is not None else got > self.limit:
            expected = f"{self.size}" if self.size is not None else f"at most {self.limit}"
            raise Damaged(f"{codec}: holds {got} bytes, expected {expected}")


class BytesCodec(Protocol):
    """One bytes-to-bytes codec."""

    def encode(self, data: Buffer) -> bytes: ...

    def decode(self, data: Buffer, wanted: Wanted, into: memoryview | None = None) -> Buffer:
        """Decode; into ``into`` (writable, contiguous, exactly ``wanted.size`` bytes) and return it, if given."""
        ...

    def bound(self, size: int) -> int:
        """The most bytes that any writer's encoding of ``size`` bytes may take."""
        ...

    def fixed(self, size: int) -> int | None:
        """Bytes of the encoding of ``size`` bytes, where that depends on nothing else."""
        ...


class _Compressor:
    """Base of the compressors. Other writers may cut blocks small, so the bound is generous."""

    def bound(self, size: int) -> int:
        return 2 * size + 65536

    def fixed(self, size: int) -> int | None:
        return None


@dataclass(frozen=True, slots=True)
class Zstd(_Compressor):
    """RFC 8878, one frame, with or without content size and checksum."""

    level: int
    checksum: bool

    def encode(self, data: Buffer) -> bytes:
        # By numcodecs, as zarr-python and volfs/native do: another release of zstd gives other bytes.
        from numcodecs import zstd

        return cast(bytes, zstd.compress(data, self.level, self.checksum))

    def decode(self, data: Buffer, wanted: Wanted, into: memoryview | None = None) -> Buffer:
        size = _zstd_content_size(data)
        if size is None:
            # A decompressor of its own: this path keeps a window of up to 128 MiB, which must not stay in a thread.
            try:
                raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=_room(wanted))
            except (zstandard.ZstdError, MemoryError) as error:
                raise Damaged(f"zstd: {error}") from None
            wanted.check(len(raw), "zstd")
            return _give(raw, into)
        wanted.check(size, "zstd")
        target = into if into is not None else _fresh(size)
        if size:
            from numcodecs import zstd

            try:
                zstd.decompress(data, target)
            except (RuntimeError, ValueError) as error:
                raise Damaged(f"zstd: {error}") from None
        return target


@dataclass(frozen=True, slots=True)
class Gzip(_Compressor):
    """RFC 1952, one member. The header's time is always zero, so that equal voxels give equal bytes."""

    level: int

    def encode(self, data: Buffer) -> bytes:
        deflate = zlib.compressobj(self.level, zlib.DEFLATED, 31)
        return deflate.compress(data) + deflate.flush()

    def decode(self, data: Buffer, wanted: Wanted, into: memoryview | None = None) -> Buffer:
        inflate = zlib.decompressobj(31)
        try:
            # One byte more than can be right, so that the end of the stream is seen where it belongs.
            raw = inflate.decompress(data, _room(wanted) + 1)
        except (zlib.error, MemoryError) as error:
            raise Damaged(f"gzip: {error}") from None
        wanted.check(len(raw), "gzip")
        if not inflate.eof:
            raise Damaged("gzip: the stream is cut off")
        if inflate.unused_data:
            raise Damaged(f"gzip: {len(inflate.unused_data)} bytes after the stream")
        return _give(raw, into)


@dataclass(frozen=True, slots=True)
class Blosc(_Compressor):
    """The Blosc 1 container (c-blosc README_HEADER.rst)."""

    cname: str
    clevel: int
    shuffle: int
    typesize: int
    blocksize: int

    def encode(self, data: Buffer) -> bytes:
        from numcodecs import blosc

        def compress() -> bytes:
            return cast(
                bytes,
                blosc.compress(data, self.cname.encode(), self.clevel, self.shuffle, self.blocksize, self.typesize),
            )

        return _off_main_thread(compress)

    def decode(self, data: Buffer, wanted: Wanted, into: memoryview | None = None) -> Buffer:
        size = _blosc_content_size(data)
        wanted.check(size, "blosc")
        target = into if into is not None else _fresh(size)
        if size:
            from numcodecs import blosc

            try:
                blosc.decompress(data, target)
            except (RuntimeError, ValueError) as error:
                raise Damaged(f"blosc: {error}") from None
        return target


@dataclass(frozen=True, slots=True)
class Crc32c:
    """Zarr v3 "crc32c" codec: the checksum of all before it, little-endian, at the end."""

    def encode(self, data: Buffer) -> bytes:
        return bytes(data) + crc32c(data).to_bytes(4, "little")

    def decode(self, data: Buffer, wanted: Wanted, into: memoryview | None = None) -> Buffer:
        view = memoryview(data).cast("B")
        if len(view) < 4:
            raise Damaged(f"crc32c: {len(view)} bytes cannot hold a checksum")
        wanted.check(len(view) - 4, "crc32c")
        if crc32c(view[:-4]) != int.from_bytes(view[-4:], "little"):
            raise Damaged("crc32c: checksum mismatch")
        return _give(view[:-4], into)

    def bound(self, size: int) -> int:
        return size + 4

    def fixed(self, size: int) -> int | None:
        return size + 4


def _zstd_content_size(data: Buffer) -> int | None:
    """Check that ``data`` is one complete frame and nothing else; its declared content size, None if undeclared."""
    view = memoryview(data).cast("B")
    if view[:4] != _ZSTD_MAGIC:
        raise Damaged("zstd: not a zstd frame")
    try:
        frame = zstandard.get_frame_parameters(view)
        at = zstandard.frame_header_size(view)
    except zstandard.ZstdError as error:
        raise Damaged(f"zstd: {error}") from None
    if frame.dict_id:
        raise Damaged("zstd: the frame wants a dictionary")
    end = len(view)
    last = False
    while not last:
        # RFC 8878, 3.1.1.2: bit 0 last block, bits 1-2 type, the rest size (in the frame, save for RLE blocks).
        if at + 3 > end:
            raise Damaged("zstd: the frame is cut off")
        header = view[at] | view[at + 1] << 8 | view[at + 2] << 16
        last = bool(header & 1)
        kind = header >> 1 & 3
        if kind == 3:
            raise Damaged("zstd: reserved block type")
        at += 3 + (1 if kind == 1 else header >> 3)
    if frame.has_checksum:
        at += 4
    if at != end:
        raise Damaged("zstd: the frame is cut off" if at > end else f"zstd: {end - at} bytes after the frame")
    return None if frame.content_size == zstandard.CONTENTSIZE_UNKNOWN else int(frame.content_size)


def _blosc_content_size(data: Buffer) -> int:
    """Check a Blosc header against itself and the payload's length, before the library sees it; its content size."""
    view = memoryview(data).cast("B")
    if len(view) < _BLOSC_HEADER.size:
        raise Damaged("blosc: too short for a header")
    version, _, flags, typesize, nbytes, blocksize, cbytes = _BLOSC_HEADER.unpack_from(view)
    if version not in (1, 2) or typesize == 0 or flags & 0x08:
        raise Damaged("blosc: not a Blosc 1 header")
    if cbytes != len(view):
        raise Damaged(f"blosc: header says {cbytes} bytes, there are {len(view)}")
    if nbytes > BLOSC_MAX_BYTES:
        raise Damaged("blosc: content size out of range")
    if flags & 0x02:
        if cbytes != nbytes + _BLOSC_HEADER.size:
            raise Damaged("blosc: stored copy of the wrong size")
        return int(nbytes)
    if nbytes and not 0 < blocksize <= nbytes:
        raise Damaged("blosc: block size out of range")
    blocks = -(-nbytes // blocksize) if nbytes else 0
    first = _BLOSC_HEADER.size + 4 * blocks
    if first > cbytes:
        raise Damaged("blosc: too short for its block table")
    starts = np.frombuffer(view[_BLOSC_HEADER.size : first], "<u4")
    if blocks and (starts.min() < first or starts.max() > cbytes - 4):
        raise Damaged("blosc: a block starts outside the payload")
    return int(nbytes)


def _room(wanted: Wanted) -> int:
    return max(1, wanted.limit if wanted.size is None else wanted.size)


def _fresh(size: int) -> memoryview:
    """Writable memory, not zeroed first as a bytearray would be."""
    return np.empty(size, np.uint8).data


def _give(raw: Buffer, into: memoryview | None) -> Buffer:
    if into is None:
        return raw
    into[:] = raw
    return into


def _off_main_thread(call: Callable[[], bytes]) -> bytes:
    """Run ``call`` in a thread that is not the main one.

    In the main thread numcodecs lets Blosc use several threads, which lay blocks down in the order they finish, so that
    equal voxels would give different bytes.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    results: list[bytes] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    worker = threading.Thread(target=run, name="volfs-blosc")
    worker.start()
    worker.join()
    if errors:
        raise errors[0]
    return results[0]
