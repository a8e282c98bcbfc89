"""The byte layout of a virtual file: a sequence of extents, computed from metadata.

An extent knows its exact size before any voxel is read, can produce any range of its bytes, and, where that means
something, take bytes back. A format module composes extents and has no read path of its own:

``Literal``        bytes that are known
``Zeros``          padding
``Voxels``         a box of voxels in a stated axis order, byte order and dtype, whole bytes or one bit each
``Chain``          extents one after the other
``Part``           a range of another extent (one IDAT of a longer stream)
``Rows``           each row of an extent preceded by one zero byte (the filter byte of PNG)
``StoredDeflate``  an extent as a zlib stream of stored blocks, its Adler-32 at the end
``Summed``         an extent followed by the CRC-32 of its bytes

The cost of a read follows its range. A checksum needs every byte that it covers; to pay for that once, and not at all
when a file is read from front to back, callers may keep a ``memo`` (a plain dict) beside the layout and pass it to
every read: checksums note in it how far they have come. A memo is valid as long as the voxels do not change.

Not decided here: which extents make up a format, where voxels come from, and any caching of voxels.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from volfs.errors import BadInput, Unsupported
from volfs.model.box import Box, Index

Memo = dict[str, tuple[int, int]]
"""How far each checksum of a layout has come: name to (bytes covered, value so far)."""

_STEP = 4 << 20
"""Bytes read at a time when a checksum has to read what it covers."""

_SLACK = 64 << 10
"""A read may fetch this many bytes beyond its range (or as many as the range has) to need one box instead of three."""

_DEFLATE_BLOCK = 65535


class VoxelSource(Protocol):
    """Where a layout gets voxels: a level of an image, or an array in a test."""

    @property
    def shape(self) -> Index: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self, box: Box) -> np.ndarray: ...

    def write(self, box: Box, voxels: np.ndarray) -> None: ...


class Extent(ABC):
    """A piece of a file. ``size`` is its exact length in bytes."""

    size: int

    @abstractmethod
    def fill(self, source: VoxelSource, offset: int, out: memoryview, memo: Memo) -> None:
        """Set ``out`` to the bytes from ``offset`` on; the range lies within the extent."""

    def refuse(self, source: VoxelSource, offset: int, data: memoryview) -> None:
        """Raise if ``data`` cannot be written at ``offset``. Nothing is changed."""
        raise Unsupported("this file can only be written as a whole")

    def store(self, source: VoxelSource, offset: int, data: memoryview) -> None:
        """Take ``data``, which :meth:`refuse` has let through, at ``offset``. By default there is nothing to do."""
        return

    @property
    def writable(self) -> bool:
        """Whether bytes can be written in place."""
        return False


@dataclass(frozen=True, slots=True, eq=False)
class Literal(Extent):
    """Bytes known beforehand. Writing the same bytes is accepted, others are not."""

    data: bytes

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self.data)

    @property
    def writable(self) -> bool:
        return True

    def fill(self, source: VoxelSource, offset: int, out: memoryview, memo: Memo) -> None:
        out[:] = self.data[offset : offset + len(out)]

    def refuse(self, source: VoxelSource, offset: int, data: memoryview) -> None:
        if data != self.data[offset : offset + len(data)]:
            raise BadInput("the header of this file cannot change: it follows from the shape and dtype of the image")


@dataclass(frozen=True, slots=True, eq=False)
class Zeros(Extent):
    """Padding, of any length."""

    size: int

    @property
    def writable(self) -> bool:
        return True

    def fill(self, source: VoxelSource, offset: int, out: memoryview, memo: Memo) -> None:
        out[:] = bytes(len(out))

    def refuse(self, source: VoxelSource, offset: int, data: memoryview) -> None:
        if any(data):
            raise BadInput("the padding of this file cannot be changed")


@dataclass(frozen=True, slots=True, eq=False)
class Voxels(Extent):
    """The voxels of ``box``, with the axes of the source in ``order`` (slowest first), as ``dtype``.

    ``dtype`` carries the byte order of the file. Conversions must keep every value: it may differ from the dtype of
    the source in byte order, and bool may become one-byte 0 and 1. With ``packed``, bool voxels take one bit each,
    highest bit first, and every row (run along the last axis of ``order``) starts on a byte.
    """

    box: Box
    order: Index
    dtype: np.dtype[Any]
    packed: bool = False
    _atoms: Index = field(init=False, repr=False)
    _atom_bytes: int = field(init=False, repr=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        shape = tuple(self.box.shape[axis] for axis in self.order)
        if self.packed:  # the smallest thing with an address of its own is a row
            atoms, atom_bytes = shape[:-1], (shape[-1] + 7) // 8
        else:
            atoms, atom_bytes = shape, self.dtype.itemsize
        object.__setattr__(self, "_atoms", atoms)
        object.__setattr__(self, "_atom_bytes", atom_bytes)
        object.__setattr__(self, "size", math.prod(atoms) * atom_bytes)

    @property
    def writable(self) -> bool:
        return True

    def fill(self, source: VoxelSource, offset: int, out: memoryview, memo: Memo) -> None:
        end, width = offset + len(out), self._atom_bytes
        first, last = offset // width, -(-end // width)
        slack = max(last - first, _SLACK // width)
        for start, box in self._boxes(first, last, slack):
            voxels = source.read(box).transpose(self.order)
            begin = start * width - offset
            if not self.packed and begin >= 0 and begin + voxels.size * width <= len(out):
                target = out[begin : begin + voxels.size * width]
                np.copyto(np.frombuffer(target, dtype=self.dtype).reshape(voxels.shape), voxels, casting="safe")
            else:
                encoded = self._encode(voxels).data
                low, high = max(0, -begin), min(len(encoded), len(out) - begin)
                out[begin + low : begin + high] = encoded[low:high]

    def refuse(self, source: VoxelSource, offset: int, data: memoryview) -> None:
        if source.dtype.kind == "b" and not self.packed and np.frombuffer(data, np.uint8).max(initial=0) > 1:
            raise BadInput("the voxels of a bool image are 0 or 1")

    def store(self, source: VoxelSource, offset: int, data: memoryview) -> None:
        width = self._atom_bytes
        end = offset + len(data)
        first, last = offset // width, -(-end // width)
        if offset % width or end % width:  # complete the atoms at both ends with what they hold now
            whole = bytearray((last - first) * width)
            ends = {first, last - 1}
            for atom in ends:
                at = (atom - first) * width
                self.fill(source, atom * width, memoryview(whole)[at : at + width], {})
            whole[offset - first * width : end - first * width] = data
            data = memoryview(whole)
        for start, box in self._boxes(first, last, 0):
            shape = tuple(box.shape[axis] for axis in self.order)
            size = math.prod(shape[: len(self._atoms)]) * width
            begin = (start - first) * width
            voxels = self._decode(data[begin : begin + size], shape).astype(source.dtype, copy=False)
            source.write(box, voxels.transpose(np.argsort(self.order)))

    def _boxes(self, first: int, last: int, slack: int) -> Iterator[tuple[int, Box]]:
        """Boxes of the source that cover the atoms from ``first`` to ``last``, each with its first atom."""
        shape = tuple(self.box.shape[axis] for axis in self.order)
        rest = shape[len(self._atoms) :]
        for at, low, high in cover(self._atoms, first, last, slack):
            start, stop = list(self.box.start), list(self.box.start)
            for axis, a, b in zip(self.order, low + (0,) * len(rest), high + rest, strict=True):
                stop[axis] = start[axis] + b
                start[axis] += a
            yield at, Box(tuple(start), tuple(stop))

    def _encode(self, voxels: np.ndarray) -> np.ndarray:
        if self.packed:
            return np.packbits(voxels.astype(bool, copy=False), axis=-1).reshape(-1)
        return np.ascontiguousarray(voxels, dtype=self.dtype).reshape(-1).view(np.uint8)

    def _decode(self, data: memoryview, shape: Index) -> np.ndarray:
        if self.packed:
            rows = np.frombuffer(data, np.uint8).reshape(*shape[:-1], self._atom_bytes)
            return np.unpackbits(rows, axis=-1, count=shape[-1]).astype(bool)
        return np.frombuffer(data, dtype=self.dtype).reshape(shape)


@dataclass(frozen=True, slots=True, eq=False)
class Chain(Extent):
    """Extents one after the other."""

    extents: Sequence[Extent]
    _starts: list[int] = field(init=False, repr=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        *starts, size = accumulate((extent.size for extent in self.extents), initial=0)
        object.__setattr__(self, "_starts", starts)
        object.__setattr__(self, "size", size)

    @property
    def writable(self) -> bool:
        return all(extent.writable for extent in self.extents)

    def fill(self, source: VoxelSource, offset: int, out: memoryview, memo: Memo) -> None:
        for extent, at, piece in self._pieces(offset, out):
            extent.fill(source, at, piece, memo)

    def refuse(self, source: VoxelSource, offset: int, data: memoryview) -> None:
        for extent, at, piece in self._pieces(offset, data):
            extent.refuse(source, at, piece)

    def store(self, source: VoxelSource, offset: int, data: memoryview) -> None:
        for extent, at, piece in self._pieces(offset, data):
            extent.store(source, at, piece)

    def _pieces(self, offset: int, data: memoryview) -> Iterator[tuple[Extent, int, memoryview]]:
        index = bisect_right(self._starts, offset) - 1
        done = 0
        while done < len(data):
            extent = self.extents[index]
            at = offset + done - self._starts[index]
            length = min(extent.size - at, len(data) - done)
            if length > 0:
                yield extent, at, data[done : done + length]
                done += length
            index += 1


@dataclass(frozen=True, slots=True, eq=False)
class Part(Extent):
    """``size`` bytes of ``inner`` from ``start`` on."""

    inner: Extent
    start: int
    size: int

    def fill(self, source: VoxelSource, offset: int, out: memoryview, memo: Memo) -> None:
        self.inner.fill(source, self.start + offset, out, memo)


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
        first, last = offset // period, -(-(offset + len(out)) // period)
        if last - first <= 2:  # rows may be long: touch only what was asked for
            done = 0
            while done < len(out):
                row, at = divmod(offset + done, period)
                if at == 0:
                    out[done] = 0
                    done += 1
                    continue
                length = min(period - at, len(out) - done)
                self.inner.fill(source, row * self.row + at - 1, out[done : done + length], memo)
                done += length
            return
        low = first * self.row + max(0, offset - first * period - 1)
        high = (last - 1) * self.row + max(0, offset + len(out) - (last - 1) * period - 1)
        rows = np.zeros((last - first) * self.row, np.uint8)
        begin = low - first * self.row
        self.inner.fill(source, low, rows.data[begin : begin + high - low], memo)
        framed = np.zeros((last - first, period), np.uint8)
        framed[:, 1:] = rows.reshape(-1, self.row)
        begin = offset - first * period
        out[:] = framed.reshape(-1).data[begin : begin + len(out)]


class _Running:
    """A checksum over the bytes of an extent that may be seen in any order, and are rarely seen twice."""

    __slots__ = ("_inner", "_name", "_step")

    def __init__(self, name: str, inner: Extent) -> None:
        self._name = name
        self._inner = inner
        self._step = zlib.adler32 if name.startswith("adler32") else zlib.crc32

    def _progress(self, memo: Memo) -> tuple[int, int]:
        return memo.get(self._name) or (0, self._step(b""))

    def saw(self, offset: int, data: memoryview, memo: Memo) -> None:
        """Note bytes of the inner extent that went by."""
        covered, value = self._progress(memo)
        if offset <= covered < offset + len(data):
            memo[self._name] = (offset + len(data), self._step(data[covered - offset :], value))

    def value(self, source: VoxelSource, memo: Memo) -> bytes:
        """The checksum of the whole inner extent, big-endian; reads what has not been seen yet."""
        covered, value = self._progress(memo)
        while covered < self._inner.size:
            piece = bytearray(min(_STEP, self._inner.size - covered))
            self._inner.fill(source, covered, memoryview(piece), memo)
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
        inner = memoryview(bytearray(last - first))
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


class Layout:
    """A whole virtual file. Immutable and thread-safe."""

    __slots__ = ("_root",)

    def __init__(self, *extents: Extent) -> None:
        self._root = Chain(extents)

    @property
    def extents(self) -> Sequence[Extent]:
        return self._root.extents

    @property
    def size(self) -> int:
        """The exact size of the file in bytes, known without reading a voxel."""
        return self._root.size

    @property
    def writable(self) -> bool:
        """Whether the file can be written in place, byte range by byte range."""
        return self._root.writable

    def read(self, source: VoxelSource, offset: int, length: int, memo: Memo | None = None) -> bytes:
        """Up to ``length`` bytes from ``offset`` on, fewer at the end of the file."""
        out = bytearray(max(0, min(length, self.size - offset)))
        self.read_into(source, offset, memoryview(out), memo)
        return bytes(out)

    def read_into(self, source: VoxelSource, offset: int, out: memoryview, memo: Memo | None = None) -> None:
        """Fill ``out`` with the bytes from ``offset`` on; they must exist."""
        if len(out):
            self._root.fill(source, offset, out, {} if memo is None else memo)

    def write(self, source: VoxelSource, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Write ``data`` at ``offset`` and return its length.

        Bytes that follow from metadata must keep their value, else BadInput and nothing is changed. BadInput as well
        past the end of the file, whose size is fixed. Unsupported where the format has checksums.
        """
        view = memoryview(data).cast("B")
        if offset + len(view) > self.size:
            raise BadInput(f"this file has {self.size} bytes and cannot grow")
        if len(view):
            self._root.refuse(source, offset, view)
            self._root.store(source, offset, view)
        return len(view)


def cover(shape: Index, start: int, stop: int, slack: int = 0) -> Iterator[tuple[int, Index, Index]]:
    """Cover positions ``start`` to ``stop`` of an array of ``shape`` in C order by boxes, in that order.

    Yields (first position, box start, box stop). Every box is one run of positions. At most 2 * ndim - 1 boxes, and
    together they are exactly the range; with ``slack``, fewer boxes that exceed the range by at most that many.
    """
    if stop <= start:
        return
    if not shape:
        yield 0, (), ()
        return
    inner = math.prod(shape[1:])
    first, last = start // inner, (stop - 1) // inner
    if first == last and stop - start < inner:
        for at, low, high in cover(shape[1:], start - first * inner, stop - first * inner, slack):
            yield first * inner + at, (first, *low), (first + 1, *high)
        return
    if (last + 1 - first) * inner - (stop - start) > slack:
        if start % inner:
            yield from cover(shape, start, (first + 1) * inner, slack)
            first += 1
        if stop % inner:
            last -= 1
    if last >= first:
        yield first * inner, (first, *(0,) * (len(shape) - 1)), (last + 1, *shape[1:])
    if stop > (last + 1) * inner:
        yield from cover(shape, (last + 1) * inner, stop, slack)
