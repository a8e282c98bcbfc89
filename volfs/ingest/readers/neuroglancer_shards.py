"""Neuroglancer's sharded chunks ("neuroglancer_uint64_sharded_v1"), by
https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/sharded.md.

A chunk's number is the compressed Morton code of its place; a hash of that says which shard and minishard hold it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.readers.block_arrays import gunzip
from volfs.ingest.source import unreadable
from volfs.model.bounded_map import BoundedMap

_MASK = (1 << 64) - 1
_INDEX_BYTES = 64 << 20
"""What minishard indexes may take in memory."""

_LARGEST = 1 << 31


class Shards:
    """The shards of one scale. Thread-safe."""

    def __init__(self, path: Path, sharding: Mapping[str, Any], grid: Sequence[int]) -> None:
        if sharding.get("@type") != "neuroglancer_uint64_sharded_v1":
            raise BadInput(f"{path} is sharded as {sharding.get('@type')!r}, which is not imported")
        self._path = path
        self._grid = grid
        self._preshift, self._minishard_bits, self._shard_bits = (
            int(sharding[name]) for name in ("preshift_bits", "minishard_bits", "shard_bits")
        )
        self._hash = str(sharding["hash"])
        self._packed = [sharding.get(f"{what}_encoding", "raw") for what in ("minishard_index", "data")]
        if self._hash not in ("identity", "murmurhash3_x86_128") or not {*self._packed} <= {"raw", "gzip"}:
            raise BadInput(f"{path} has shards of a kind that is not imported: {self._hash}, {self._packed}")
        if not (0 <= self._preshift <= 64 and 0 <= self._minishard_bits <= 32 and 0 <= self._shard_bits <= 64):
            raise unreadable(path.parent / "info", "its shards cannot be")
        self._indexes: BoundedMap[tuple[int, int], np.ndarray] = BoundedMap(
            _INDEX_BYTES, lambda index: index.nbytes + 256
        )

    def chunk(self, place: Sequence[int]) -> tuple[Path, bytes | None]:
        """The bytes of the chunk at ``place`` (x, y, z), None if it is missing, and the file that holds it."""
        number = compressed_morton(place, self._grid)
        hashed = number >> self._preshift
        if self._hash != "identity":
            hashed = murmurhash3_low64(hashed)
        minishard = hashed & ((1 << self._minishard_bits) - 1)
        shard = hashed >> self._minishard_bits & ((1 << self._shard_bits) - 1)
        path = self._path / f"{shard:0{-(-self._shard_bits // 4)}x}.shard"
        index = self._index(path, shard, minishard)
        at = int(np.searchsorted(index[0], np.uint64(number)))
        if at >= index.shape[1] or int(index[0, at]) != number:
            return path, None
        data = self._bytes(path, int(index[1, at]), int(index[2, at]))
        assert data is not None
        return path, gunzip(path, data, _LARGEST) if self._packed[1] == "gzip" else data

    def close(self) -> None:
        self._indexes.clear()

    def _index(self, path: Path, shard: int, minishard: int) -> np.ndarray:
        """Numbers (ascending), offsets in the file, and sizes of the chunks of a minishard."""
        return self._indexes.get_or_make((shard, minishard), lambda: self._read_index(path, minishard))

    def _read_index(self, path: Path, minishard: int) -> np.ndarray:
        nothing = np.zeros((3, 0), np.uint64)
        first = 16 << self._minishard_bits
        ends = self._bytes(path, 16 * minishard, 16)
        if ends is None:
            return nothing  # no such shard
        start, stop = (int(n) for n in np.frombuffer(ends, "<u8"))
        if first + max(start, stop) > path.stat().st_size:
            raise unreadable(path, f"the index of minishard {minishard} lies behind the end")
        if start == stop:
            return nothing
        raw = self._bytes(path, first + start, stop - start)
        assert raw is not None
        if self._packed[0] == "gzip":
            raw = gunzip(path, raw, _LARGEST)
        if len(raw) % 24:
            raise unreadable(path, f"the index of minishard {minishard} has {len(raw)} bytes")
        index = np.frombuffer(raw, "<u8").reshape(3, -1).astype(np.uint64)
        index[0] = np.cumsum(index[0], dtype=np.uint64)
        sizes = index[2]
        index[1] = np.cumsum(index[1], dtype=np.uint64) + np.cumsum(sizes, dtype=np.uint64) - sizes + np.uint64(first)
        order = np.argsort(index[0], kind="stable")
        return np.ascontiguousarray(index[:, order])

    def _bytes(self, path: Path, offset: int, size: int) -> bytes | None:
        """A piece of a file; None if there is no file."""
        if not 0 <= size <= _LARGEST:
            raise unreadable(path, f"its index names {size} bytes at {offset}")
        try:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, OverflowError) as error:
            raise unreadable(path, error) from error
        if len(data) != size:
            raise unreadable(path, f"its index names {size} bytes at {offset}, {len(data)} are there")
        return data


def compressed_morton(place: Sequence[int], grid: Sequence[int]) -> int:
    """The number of a chunk: the bits of x, y and z interleaved, without those that are always zero."""
    bits = [(n - 1).bit_length() for n in grid]
    number, at = 0, 0
    for bit in range(max(bits, default=0)):
        for p, count in zip(place, bits, strict=True):
            if bit < count:
                number |= (p >> bit & 1) << at
                at += 1
    return number


def murmurhash3_low64(number: int) -> int:
    """The low 64 bits of MurmurHash3_x86_128, seed 0, of a number's eight bytes."""
    m = 0xFFFFFFFF

    def turn(n: int, by: int) -> int:
        return (n << by | n >> (32 - by)) & m

    def mixed(n: int) -> int:
        n = (n ^ n >> 16) * 0x85EBCA6B & m
        n = (n ^ n >> 13) * 0xC2B2AE35 & m
        return n ^ n >> 16

    h1 = turn((number & m) * 0x239B961B & m, 15) * 0xAB0E9789 & m
    h2 = turn((number >> 32 & m) * 0xAB0E9789 & m, 16) * 0x38B34AE5 & m
    h1, h2, h3, h4 = h1 ^ 8, h2 ^ 8, 8, 8
    h1 = (h1 + h2 + h3 + h4) & m
    h2, h3, h4 = ((h + h1) & m for h in (h2, h3, h4))
    h1, h2, h3, h4 = map(mixed, (h1, h2, h3, h4))
    h1 = (h1 + h2 + h3 + h4) & m
    return (h1 | (h2 + h1 & m) << 32) & _MASK
