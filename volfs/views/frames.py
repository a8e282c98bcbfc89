"""Extents made of other extents' bytes: rows with a filter byte, zlib streams, checksums.

They can be read at any range like all others, and are only written as a whole file. How extents fit together, and what
a memo is, is in :mod:`volfs.views.layout`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from isal import isal_zlib  # the same sums as zlib's, several times faster: every byte of a slice is summed twice

from volfs.views.layout import Extent, Memo, VoxelSource

_STEP = 4 << 20
"""Bytes read at a time to compute a checksum."""

_DEFLATE_BLOCK = 65535


@dataclass(frozen=True, slots=True, eq=False)
class Rows(Extent):
    """Every ``row`` bytes of ``inner`` preceded by one zero byte."""

    inner: Extent
    row: int
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", self.inner.size // self.row * (self.row + 1))

    def fill(self, source: VoxelSource, offset: int, out: memoryview, memo: Memo) -> None:
        period = self.row + 1
        done = 0
        while done < len(out):
            row, at = divmod(offset + done, period)
            whole = (len(out) - done) // period
            if at == 0 and whole:
                rows = np.frombuffer(out[done : done + whole * period], np.uint8).reshape(whole, period)
                rows[:, 0] = 0
                self.inner.fill_rows(source, row * self.row, rows[:, 1:], memo)
                done += whole * period
            elif at == 0:
                out[done] = 0
                done += 1
            else:  # rows may be long: touch only the bytes asked for
                length = min(period - at, len(out) - done)
                self.inner.fill(source, row * self.row + at - 1, out[done : done + length], memo)
                done += length


class _Running:
    """A checksum over the bytes of an extent that may be seen in any order, and are rarely seen twice."""

    __slots__ = ("_inner", "_name", "_step")

    def __init__(self, name: str, inner: Extent) -> None:
        self._name = name
        self._inner = inner
        self._step = isal_zlib.adler32 if name.startswith("adler32") else isal_zlib.crc32

    def _progress(self, memo: Memo) -> tuple[int, int]:
        return memo.get(self._name) or (0, self._step(b""))

    def saw(self, offset: int, data: memoryview, memo: Memo) -> None:
        """Note bytes of the inner extent that went by."""
        covered, value = self._progress(memo)
        if offset <= covered < offset + len(data):
            memo[self._name] = (offset + len(data), self._step(data[covered - offset :], value))

    def value(self, source: VoxelSource, memo: Memo) -> bytes:
        """The checksum of the whole inner extent, big-endian; reads the bytes that it does not cover yet."""
        covered, value = self._progress(memo)
        while covered < self._inner.size:
            piece = np.empty(min(_STEP, self._inner.size - covered), np.uint8).data
            self._inner.fill(source, covered, piece, memo)
            value = self._step(piece, value)
            covered += len(piece)
            memo[self._name] = (covered, value)
        return value.to_bytes(4, "big")


@dataclass(frozen=True, slots=True, eq=False)
class StoredDeflate(Extent):
    """``inner`` as a zlib stream (RFC 1950) of stored deflate blocks (RFC 1951, 3.2.4)."""

    inner: Extent
    _sum: _Running = field(init=False, repr=False)
    _blocks: int = field(init=False, repr=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        blocks = max(1, -(-self.inner.size // _DEFLATE_BLOCK))
        object.__setattr__(self, "_sum", _Running("adler32", self.inner))
        object.__setattr__(self, "_blocks", blocks)
        object.__setattr__(self, "size", 2 + 5 * blocks + self.inner.size + 4)

    def fill(self, source: VoxelSource, offset: int, out: memoryview, memo: Memo) -> None:
        period = _DEFLATE_BLOCK + 5
        end = offset + len(out)
        body_end = self.size - 4
        # Positions in the body (without the two bytes of header) and in the inner extent.
        low, high = max(0, offset - 2), max(0, min(end, body_end) - 2)
        first, last = self._inner_position(low), self._inner_position(high)
        inner = np.empty(last - first, np.uint8).data
        if inner:
            self.inner.fill(source, first, inner, memo)
            self._sum.saw(first, inner, memo)
        if offset < 2:
            head = b"\x78\x01"[offset:end]
            out[: len(head)] = head
        at = low
        while at < high:
            block, within = divmod(at, period)
            to = at + 2 - offset
            if within < 5:
                piece = self._block_header(block)[within : within + high - at]
                out[to : to + len(piece)] = piece
                at += len(piece)
            else:
                length = min(period - within, high - at)
                start = self._inner_position(at) - first
                out[to : to + length] = inner[start : start + length]
                at += length
        if end > body_end:
            begin = max(offset, body_end)
            out[begin - offset :] = self._sum.value(source, memo)[begin - body_end : end - body_end]

    def _inner_position(self, body: int) -> int:
        """How many inner bytes come before position ``body``."""
        block, within = divmod(body, _DEFLATE_BLOCK + 5)
        return min(self.inner.size, block * _DEFLATE_BLOCK + max(0, within - 5))

    def _block_header(self, block: int) -> bytes:
        final = block == self._blocks - 1
        length = self.inner.size - block * _DEFLATE_BLOCK if final else _DEFLATE_BLOCK
        return bytes([final]) + length.to_bytes(2, "little") + (length ^ 0xFFFF).to_bytes(2, "little")


@dataclass(frozen=True, slots=True, eq=False)
class Summed(Extent):
    """``inner`` followed by its CRC-32 (ISO 3309), big-endian. ``name`` tells it from others of the same layout."""

    inner: Extent
    name: str
    _sum: _Running = field(init=False, repr=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sum", _Running(f"crc32 {self.name}", self.inner))
        object.__setattr__(self, "size", self.inner.size + 4)

    def fill(self, source: VoxelSource, offset: int, out: memoryview, memo: Memo) -> None:
        end, covered = offset + len(out), self.inner.size
        if offset < covered:
            data = out[: covered - offset]
            self.inner.fill(source, offset, data, memo)
            self._sum.saw(offset, data, memo)
        if end > covered:
            begin = max(offset, covered)
            out[begin - offset :] = self._sum.value(source, memo)[begin - covered : end - covered]
