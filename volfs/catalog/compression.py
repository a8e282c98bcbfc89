"""zstd for small index values, with a context per thread: making one costs more than using it."""

from __future__ import annotations

import threading

import zstandard

from volfs.catalog.sums import mismatch


class _Contexts(threading.local):
    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=3)
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Contexts()


def compress(data: bytes) -> bytes:
    return _contexts.compressor.compress(data)


def decompress(packed: bytes) -> bytes:
    """Raises Damaged."""
    try:
        return _contexts.decompressor.decompress(packed)
    except zstandard.ZstdError as error:
        raise mismatch(f"a value does not decompress ({error})") from None
