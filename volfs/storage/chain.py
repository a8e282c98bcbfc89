"""A Zarr v3 codec chain, run: array-to-array, array-to-bytes, bytes-to-bytes (core specification, "Codecs").

Decided here: how codecs compose, and how sizes travel down the chain so that each decoder knows exactly what to expect
before it takes memory. Not here: reading codecs out of metadata (:mod:`volfs.storage.codec`), the compressors
(:mod:`volfs.storage.compressors`), sharding (:mod:`volfs.storage.sharding_codec`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

from volfs.errors import BadInput, Damaged
from volfs.model.box import Index
from volfs.storage.compressors import Buffer, BytesCodec, Wanted

Array = np.ndarray[Any, np.dtype[Any]]
ReadRange = Callable[[int, int], bytes]
"""(offset, length) to exactly those bytes of a stored payload, verified."""


class ArrayToBytes(Protocol):
    """The codec in the middle of a chain."""

    def encode(self, array: Array) -> Buffer: ...

    def decode(self, data: Buffer, out: Array | None) -> Array:
        """The array; written into ``out`` (any strides) and returned as that, if given."""
        ...

    @property
    def wanted(self) -> Wanted:
        """Sizes of its encoded form."""
        ...

    @property
    def plain(self) -> bool:
        """Whether encoded bytes are the array's memory: C order, native."""
        ...


@dataclass(frozen=True, slots=True)
class Bytes:
    """The "bytes" codec: C order, in the stored byte order."""

    shape: Index
    dtype: np.dtype[Any]
    stored: np.dtype[Any]

    @property
    def wanted(self) -> Wanted:
        size = prod(self.shape) * self.dtype.itemsize
        return Wanted(size, size)

    @property
    def plain(self) -> bool:
        return self.stored.isnative

    def encode(self, array: Array) -> Buffer:
        return np.ascontiguousarray(array, self.stored).reshape(-1).view(np.uint8).data

    def decode(self, data: Buffer, out: Array | None) -> Array:
        self.wanted.check(len(data), "bytes")
        array = np.frombuffer(data, self.stored).reshape(self.shape)
        if self.dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
            raise Damaged("bytes: a bool is neither 0 nor 1")
        if out is not None:
            out[...] = array
            return out
        return array if self.stored.isnative else array.astype(self.dtype)


class Chain:
    """All codecs of one array, bound to a chunk shape, dtype and fill value. Immutable and thread-safe."""

    def __init__(
        self,
        shape: Index,
        dtype: np.dtype[Any],
        transposes: Sequence[Index],
        to_bytes: ArrayToBytes,
        after: Sequence[BytesCodec],
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.to_bytes = to_bytes
        self.after = tuple(after)
        #: The axes of the array in the order in which voxels are stored, slowest first.
        self.order: Index = tuple(range(len(shape)))
        for transpose in transposes:
            self.order = tuple(self.order[axis] for axis in transpose)
        self._inverse: Index = tuple(int(i) for i in np.argsort(self.order))
        self.straight = self.order == tuple(range(len(shape)))
        # What each bytes-to-bytes codec must give when decoding, first codec first.
        self._wanted = [to_bytes.wanted]
        for codec in self.after[:-1]:
            size, limit = self._wanted[-1].size, self._wanted[-1].limit
            self._wanted.append(Wanted(None if size is None else codec.fixed(size), codec.bound(limit)))
        self._direct = self.straight and to_bytes.plain and bool(self.after)

    @property
    def bound(self) -> int:
        """The most bytes that any writer's encoding of one chunk may take."""
        size = self.to_bytes.wanted.limit
        for codec in self.after:
            size = codec.bound(size)
        return size

    @property
    def fixed(self) -> int | None:
        """Bytes of every encoded chunk, if they are always the same."""
        size = self.to_bytes.wanted.size
        for codec in self.after:
            size = None if size is None else codec.fixed(size)
        return size

    def encode(self, array: Array) -> bytes:
        """A full chunk to its payload."""
        if array.shape != self.shape or array.dtype != self.dtype:
            raise BadInput(f"chunk is {array.dtype} {array.shape}, must be {self.dtype} {self.shape}")
        data = self.to_bytes.encode(array if self.straight else array.transpose(self.order))
        for codec in self.after:
            data = codec.encode(data)
        return bytes(data)

    def decode(self, payload: Buffer, out: Array | None = None) -> Array:
        """A payload to a full chunk, without a copy where memory order allows. The result may be read-only."""
        into = None
        if out is not None:
            if out.shape != self.shape or out.dtype != self.dtype:
                raise BadInput(f"out is {out.dtype} {out.shape}, must be {self.dtype} {self.shape}")
            if self._direct and out.flags.c_contiguous and out.flags.writeable:
                into = out.reshape(-1).view(np.uint8).data
        data: Buffer = payload
        for i in range(len(self.after) - 1, -1, -1):
            data = self.after[i].decode(data, self._wanted[i], into if i == 0 else None)
        if out is not None and data is into:
            self.to_bytes.decode(data, None)
            return out
        if self.straight:
            return self.to_bytes.decode(data, out)
        # to_bytes sees the transposed chunk: give it out's memory seen the same way.
        target = None if out is None else out.transpose(self.order)
        array = self.to_bytes.decode(data, target)
        return out if out is not None else array.transpose(self._inverse)
