"""The byte layout of a virtual file: a sequence of extents, computed from metadata.

An extent knows its exact size before any voxel is read, can produce any range of its bytes, and, where that means
something, take bytes back. A format module composes extents and has no read path of its own:

``Literal``        bytes that are known
``Zeros``          padding
``Voxels``         a box of voxels in a stated axis order, byte order and dtype, whole bytes or one bit each
``Padded``         a box of voxels at the origin of a larger chunk, the rest of which is fill value
``Payload``        a stored payload, passed through as it is
``Records``        many small records of one length, each made when it is read (page directories, offset tables)
``Chain``          extents one after the other
``Part``           a range of another extent (one IDAT of a longer stream)

and from :mod:`volfs.views.frames`

``Rows``           each row of an extent preceded by one zero byte (the filter byte of PNG)
``StoredDeflate``  an extent as a zlib stream of stored blocks, its Adler-32 at the end
``Summed``         an extent followed by the CRC-32 of its bytes

The cost of a read follows its range. A checksum needs every byte that it covers; to pay for that once, and not at all
when a file is read from front to back, callers may keep a ``memo`` (a plain dict) beside the layout and pass it to
every read: checksums note in it how far they have come. A memo is valid as long as the voxels do not change: start a
new one when they have.

Not decided here: which extents make up a format, where voxels come from, and any caching of voxels.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol, cast

import numpy as np

from volfs.errors import BadInput, NotFound, Unsupported
from volfs.model.box import Box, Index

Memo = dict[str, tuple[int, int]]
"""How far each checksum of a layout has come: name to (bytes covered, value so far)."""

_SLACK = 64 << 10
"""A read may fetch this many bytes beyond its range (or as many as the range has) to need one box instead of three."""


class VoxelSource(Protocol):
    """Where a layout gets voxels: a level of an image, or an array in a test."""

    @property
    def shape(self) -> Index: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        """The voxels of a box, shape ``box.shape``.

        If ``out`` is given they are put there and it is returned: of that shape, with any strides, and of a type that
        holds all values of the source's (another byte order, a wider integer).
        """

    def write(self, box: Box, voxels: np.ndarray) -> None: ...


@dataclass(frozen=True, slots=True)
class Shifted:
    """A source whose voxels are counted from ``start`` of another one: a layout over the first of many like planes is
    that of each of them. Equal if the other source is the same and the start is."""

    source: VoxelSource
    start: Index

    @property
    def shape(self) -> Index:
        return tuple(map(operator.sub, self.source.shape, self.start))

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        return self.source.read(box.shift(self.start), out)

    def write(self, box: Box, voxels: np.ndarray) -> None:
        self.source.write(box.shift(self.start), voxels)


def placed(voxels: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """``voxels`` as :meth:`VoxelSource.read` has to return them, for sources that make them elsewhere."""
    if out is None:
        return voxels
    np.copyto(out, voxels, casting="safe")
    return out


class PayloadSource(VoxelSource, Protocol):
    """A source that has the stored bytes of its blocks too: see :class:`volfs.views.folder.ArrayView`."""

    def block_size(self, block: Index) -> int | None:
        """The length of a block's payload, None if it is not stored."""

    def block_bytes(self, block: Index, size: int, offset: int, length: int) -> bytes:
        """A range of the payload of a block, verified. NotFound if what is stored now is not ``size`` bytes."""

    def key_size(self, key: Index) -> int | None:
        """The same for what one key of ``zarr/`` holds: a chunk, or a client's whole shard."""

    def key_bytes(self, key: Index, size: int, offset: int, length: int) -> bytes: ...


class Extent(ABC):
    """A piece of a file. ``size`` is its exact length in bytes."""

    size: int

    @abstractmethod
    def fill(self, source: VoxelSource, offset: int, out: memoryview, memo: Memo) -> None:
        """Set ``out`` to the bytes from ``offset`` on; the range lies within the extent."""

    def fill_rows(self, source: VoxelSource, offset: int, out: np.ndarray, memo: Memo) -> None:
        """The same for rows that do not lie side by side: ``out`` is uint8, two-dimensional, its rows contiguous."""
        rows = np.empty(out.shape, np.uint8)
        self.fill(source, offset, rows.reshape(-1).data, memo)
        out[...] = rows

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
    the source in byte order, bool may become one-byte 0 and 1, and unsigned integers wider ones, little-endian. With
    ``packed``, bool voxels take one bit each, highest bit first, and every row (run along the last axis of ``order``)
    starts on a byte.
    """

    box: Box
    order: Index
    dtype: np.dtype[Any]
    packed: bool = False
    _atoms: Index = field(init=False, repr=False)
    _atom_bytes: int = field(init=False, repr=False)
    _back: Index = field(init=False, repr=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_back", tuple(int(axis) for axis in np.argsort(self.order)))
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
            shape = tuple(box.shape[axis] for axis in self.order)
            size = box.size * width
            begin = start * width - offset
            if not self.packed and begin >= 0 and begin + size <= len(out):
                target = np.frombuffer(out[begin : begin + size], self.dtype).reshape(shape)
                source.read(box, target.transpose(self._back))
            else:
                encoded = self._encode(source.read(box).transpose(self.order)).data
                low, high = max(0, -begin), min(len(encoded), len(out) - begin)
                out[begin + low : begin + high] = encoded[low:high]

    def fill_rows(self, source: VoxelSource, offset: int, out: np.ndarray, memo: Memo) -> None:
        width = self._atom_bytes
        rows, row = out.shape
        lengths = accumulate((width, *reversed(self._atoms)), operator.mul)
        if self.packed or offset % row or row not in lengths:  # rows of another kind than the voxels'
            Extent.fill_rows(self, source, offset, out, memo)
            return
        first = offset // width
        for start, box in self._boxes(first, first + rows * row // width, 0):
            begin, count = (start - first) * width // row, box.size * width // row
            shape, target = tuple(box.shape[axis] for axis in self.order), out[begin : begin + count]
            if self.dtype.isnative:
                source.read(box, target.view(self.dtype).reshape(shape).transpose(self._back))
            else:  # rows begin at odd bytes: to swap on the way there takes six times as long as to swap first
                swapped = np.empty(shape, self.dtype)
                source.read(box, swapped.transpose(self._back))
                target[...] = swapped.view(np.uint8).reshape(target.shape)

    def refuse(self, source: VoxelSource, offset: int, data: memoryview) -> None:
        if source.dtype.kind == "b" and not self.packed and np.frombuffer(data, np.uint8).max(initial=0) > 1:
            raise BadInput("the voxels of a bool image are 0 or 1")
        if source.dtype.kind == "u" and self.dtype.itemsize > source.dtype.itemsize:
            high = np.arange(offset, offset + len(data)) % self.dtype.itemsize >= source.dtype.itemsize
            if np.frombuffer(data, np.uint8)[high].any():
                raise BadInput(f"the voxels of this image are {source.dtype.name}: larger ones do not fit")

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
            source.write(box, voxels.transpose(self._back))

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
class Padded(Extent):
    """A chunk of ``shape``, in the order of the file, with the voxels of ``inner`` at its origin and ``value`` beyond.

    This is what a format has at the edge of a volume where its chunks are all of one size.
    """

    inner: Voxels
    shape: Index
    value: np.generic
    size: int = field(init=False)

    def __post_init__(self) -> None:
        assert not self.inner.packed
        object.__setattr__(self, "size", math.prod(self.shape) * self.inner.dtype.itemsize)

    @property
    def writable(self) -> bool:
        return True

    def fill(self, source: VoxelSource, offset: int, out: memoryview, memo: Memo) -> None:
        width = self.inner.dtype.itemsize
        first, last = offset // width, -(-(offset + len(out)) // width)
        for start, chunk, voxels in self._boxes(first, last, max(last - first, _SLACK // width)):
            piece = np.full(chunk.shape, self.value, self.inner.dtype)
            if not voxels.empty:
                found = source.read(self._of_source(voxels)).transpose(self.inner.order)
                np.copyto(piece[voxels.relative_to(chunk.start).slices()], found, casting="safe")
            encoded, begin = piece.reshape(-1).view(np.uint8).data, start * width - offset
            low, high = max(0, -begin), min(len(encoded), len(out) - begin)
            out[begin + low : begin + high] = encoded[low:high]

    def refuse(self, source: VoxelSource, offset: int, data: memoryview) -> None:
        self.inner.refuse(source, offset, data)
        now = np.frombuffer(self._completed(source, offset, data), self.inner.dtype)
        first = offset // self.inner.dtype.itemsize
        for start, chunk, voxels in self._boxes(first, first + len(now), 0):
            new = now[start - first :][: chunk.size].reshape(chunk.shape)
            beyond = np.ones(chunk.shape, bool)
            beyond[voxels.relative_to(chunk.start).slices()] = False
            if new[beyond].tobytes() != np.full(int(beyond.sum()), self.value, new.dtype).tobytes():
                raise BadInput("bytes beyond the edge of the volume are fill value and cannot be changed")

    def store(self, source: VoxelSource, offset: int, data: memoryview) -> None:
        now = np.frombuffer(self._completed(source, offset, data), self.inner.dtype)
        first = offset // self.inner.dtype.itemsize
        for start, chunk, voxels in self._boxes(first, first + len(now), 0):
            if not voxels.empty:
                new = now[start - first :][: chunk.size].reshape(chunk.shape)
                inside = new[voxels.relative_to(chunk.start).slices()].astype(source.dtype, copy=False)
                source.write(self._of_source(voxels), inside.transpose(np.argsort(self.inner.order)))

    def _completed(self, source: VoxelSource, offset: int, data: memoryview) -> memoryview:
        """``data`` with the rest of the voxels that it begins and ends in."""
        width = self.inner.dtype.itemsize
        end = offset + len(data)
        first, last = offset // width, -(-end // width)
        if not (offset % width or end % width):
            return data
        whole = memoryview(bytearray((last - first) * width))
        for atom in {first, last - 1}:
            self.fill(source, atom * width, whole[(atom - first) * width :][:width], {})
        whole[offset - first * width : end - first * width] = data
        return whole

    def _boxes(self, first: int, last: int, slack: int) -> Iterator[tuple[int, Box, Box]]:
        """Boxes of the chunk that cover a range, each with its first position and the part of it that has voxels."""
        voxels = Box.whole(tuple(self.inner.box.shape[axis] for axis in self.inner.order))
        for at, low, high in cover(self.shape, first, last, slack):
            chunk = Box(low, high)
            inside = chunk.intersect(voxels)
            yield at, chunk, Box(low, low) if inside.empty else inside

    def _of_source(self, voxels: Box) -> Box:
        """A box in the order of the file, as one of the source."""
        back = np.argsort(self.inner.order)
        start, stop = (tuple(at[axis] for axis in back) for at in (voxels.start, voxels.stop))
        return Box(start, stop).shift(self.inner.box.start)


@dataclass(frozen=True, slots=True, eq=False)
class Payload(Extent):
    """The payload of a block, or with ``key`` of a whole key, of a :class:`PayloadSource`, as it is stored."""

    at: Index
    size: int
    key: bool = False

    def fill(self, source: VoxelSource, offset: int, out: memoryview, memo: Memo) -> None:
        stored = cast(PayloadSource, source)
        data = (stored.key_bytes if self.key else stored.block_bytes)(self.at, self.size, offset, len(out))
        if len(data) != len(out):
            raise NotFound(f"chunk {self.at} was replaced while it was read")
        out[:] = data


@dataclass(frozen=True, slots=True, eq=False)
class Records(Extent):
    """``count`` records of ``length`` bytes. ``make`` gives those from one number up to another, as one piece."""

    count: int
    length: int
    make: Callable[[int, int], bytes]

    @property
    def size(self) -> int:  # type: ignore[override]
        return self.count * self.length

    @property
    def writable(self) -> bool:
        return True

    def fill(self, source: VoxelSource, offset: int, out: memoryview, memo: Memo) -> None:
        out[:] = self._bytes(offset, len(out))

    def refuse(self, source: VoxelSource, offset: int, data: memoryview) -> None:
        if data != self._bytes(offset, len(data)):
            raise BadInput("the header of this file cannot change: it follows from the shape and dtype of the image")

    def _bytes(self, offset: int, length: int) -> bytes:
        first, last = offset // self.length, -(-(offset + length) // self.length)
        begin = offset - first * self.length
        return self.make(first, last)[begin : begin + length]


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
        self.check(source, offset, data)
        view = memoryview(data).cast("B")
        if len(view):
            self._root.store(source, offset, view)
        return len(view)

    def check(self, source: VoxelSource, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Raise what :meth:`write` would raise for these bytes. Nothing is changed."""
        view = memoryview(data).cast("B")
        if offset + len(view) > self.size:
            raise BadInput(f"this file has {self.size} bytes and cannot grow")
        if len(view):
            self._root.refuse(source, offset, view)


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
