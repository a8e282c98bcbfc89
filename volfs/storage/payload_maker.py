"""Many payloads made at once by C, with the interpreter let go of: chunks encoded, or files read, and all of it summed.

Decided here: which codecs C encodes and where it finds their libraries. The bytes are those of
:mod:`volfs.storage.codec`, since C calls the very functions that numcodecs has compiled in. A payload in doubt is no
error yet: whoever asked makes it by :mod:`volfs.storage.codec`, which says what is wrong. Not here: the making
(``volfs/native/payloads.h``), and where payloads go.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any

import numpy as np

from volfs.model.box import Index
from volfs.native import core
from volfs.storage.chain import Array
from volfs.storage.codec import ChunkCodec
from volfs.storage.compressors import Blosc, Zstd
from volfs.storage.payload import PIECE, Payload

#: C makes payloads of no larger chunks: MOST_BYTES of ``volfs/native/chunks.c``.
_MOST_BYTES = 1 << 30
#: What C says of each payload: ``struct volfs_payload``.
_ROW = np.dtype(
    [("offset", "i8"), ("length", "i8"), ("crc32c", "u4"), ("sha256", "V32"), ("outcome", "u1")], align=True
)

Rows = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Payloads one after the other in ``data``. ``rows`` has for each its ``offset`` there, ``length``, ``crc32c`` and
    ``sha256``; a length of zero stands for a chunk that is all fill value. ``doubts``: the numbers of those that were
    not made."""

    data: memoryview
    rows: Rows
    doubts: tuple[int, ...]

    @classmethod
    def of(cls, data: object, rows: Rows) -> Batch:
        return cls(memoryview(data), rows, tuple(np.flatnonzero(rows["outcome"] != core.DONE).tolist()))  # type: ignore[arg-type]

    def pieces(self, number: int) -> bytes | None:
        """The checksums of a payload's pieces: see :class:`volfs.storage.payload.Payload`."""
        offset, length = int(self.rows["offset"][number]), int(self.rows["length"][number])
        return core.piece_sums(self.data[offset : offset + length]) if length > PIECE else None


class ChunkEncoder:
    """Encodes chunks of one array. Thread-safe: each thread has memory of its own, kept for the next batch."""

    def __init__(self, maker: Any, codec: ChunkCodec, axes: Index) -> None:
        self._maker = maker
        self._dtype = codec.dtype
        self._axes = list(axes)

    @classmethod
    def of(cls, codec: ChunkCodec) -> ChunkEncoder | None:
        """None if C does not encode chunks like these."""
        stored = codec.stored_form
        if (
            not load_encoders()
            or stored is None
            or codec.nbytes > _MOST_BYTES
            or codec.dtype.itemsize not in (1, 2, 4, 8)
        ):
            return None
        if codec.dtype.kind == "c" and stored.swapped:
            return None  # C swaps items, of which a complex number has two
        by = stored.codec
        how: dict[str, Any] = {}
        if isinstance(by, Zstd):
            how = {"level": by.level, "checksum": by.checksum}
        elif isinstance(by, Blosc):
            how = {
                "inner": by.cname.encode(),
                "effort": by.clevel,
                "shuffle": by.shuffle,
                "type_size": by.typesize,
                "block_size": by.blocksize,
            }
        try:
            maker = core.Maker(
                tuple(codec.shape[axis] for axis in stored.axes),
                item=codec.dtype.itemsize,
                swap=stored.swapped,
                summed=stored.summed,
                compressor=stored.compressor,
                fill=codec.fill_value.tobytes(),
                **how,
            )
        except ValueError:
            return None
        return cls(maker, codec, stored.axes)

    def encode(self, voxels: Array, starts: Array, shapes: Array) -> Batch | None:
        """Encode chunks of ``voxels``: each from the voxel at ``starts`` on, as much of it as ``shapes`` says there is;
        the rest is fill value. Both have a row for each chunk, in the axis order of the array.

        None if C does not read such voxels.
        """
        if voxels.dtype != self._dtype:
            return None
        rows = np.zeros(len(starts), _ROW)
        view = voxels.transpose(self._axes).view(f"u{self._dtype.itemsize}")
        data = self._maker.encode(view, _numbers(starts, self._axes), _numbers(shapes, self._axes), rows.view(np.uint8))
        return Batch.of(data, rows)


def read_payloads(paths: Sequence[str], most: int) -> Batch | None:
    """The bytes of whole files, which are ``most`` together; files that cannot be read, are empty, or no files, are in
    doubt. Follows no links. None without C."""
    if not load_encoders():
        return None
    rows = np.zeros(len(paths), _ROW)
    return Batch.of(core.Maker().read(list(map(os.fsencode, paths)), most, rows.view(np.uint8)), rows)


def undecodable(paths: Sequence[str], codec: ChunkCodec) -> list[int] | None:
    """The numbers of those files that are not certainly chunks of an array. None if C cannot tell of any."""
    stored = codec.stored_form
    if core is None or stored is None or codec.nbytes > _MOST_BYTES or codec.dtype.itemsize not in (1, 2, 4, 8):
        return None
    found: list[int] = core.check_files(
        list(map(os.fsencode, paths)),
        codec.shape,
        item=codec.dtype.itemsize,
        boolean=codec.dtype.kind == "b",
        summed=stored.summed,
        compressor=stored.compressor,
    )
    return found


def payload_of(batch: Batch, number: int, file: str, offset: int) -> Payload:
    """A payload of a batch, once it lies in a file."""
    row = batch.rows[number]
    return Payload(file, offset, int(row["length"]), int(row["crc32c"]), batch.pieces(number))


def _numbers(rows: Array, axes: list[int]) -> Array:
    return np.ascontiguousarray(rows[:, axes], np.int64)


@cache
def load_encoders() -> bool:
    """Find what C calls, without importing any of it: numcodecs reads the metadata of every package. False if C makes
    no payloads. Done when first needed; before, where another zstd is about to be seen by all of the process."""
    if core is None:
        return False
    assert _ROW.itemsize == core.PAYLOAD_BYTES, "C and Python disagree about what is said of a payload"
    found: bool = core.load_encoders(_extension("numcodecs", "zstd"), _extension("numcodecs", "blosc"), _sums())
    return found


def _extension(package: str, name: str) -> bytes | None:
    """The path of a compiled module of a package."""
    parent = find_spec(package)
    spec = PathFinder.find_spec(name, parent.submodule_search_locations) if parent is not None else None
    return None if spec is None or spec.origin is None else os.fsencode(spec.origin)


def _sums() -> bytes | None:
    """The library that hashlib runs: what its module is linked with, or the interpreter itself."""
    try:
        import _hashlib
    except ImportError:
        return None
    return os.fsencode(getattr(_hashlib, "__file__", ""))
