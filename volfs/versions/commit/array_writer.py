"""The chunks that one version changes in one array, packed into shards as they come.

Decided here: when a shard file is opened, given its descriptor back and finished; and the records of the chunks. Not
decided here: the shard shape (:mod:`volfs.versions.commit.shard_shape`), the file format (:mod:`volfs.storage.shards`),
and what else a version holds (:mod:`volfs.versions.commit.version_writer`).

Memory follows the chunks' records (about a hundred bytes each), not their voxels: a payload goes to its shard file at
once. Everything is thread-safe.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from volfs.errors import AlreadyThere, BadInput
from volfs.model.bounded_map import BoundedMap
from volfs.model.box import Index
from volfs.model.grid import split
from volfs.model.metadata import ArrayMeta
from volfs.storage.backend import Buffer, ObjectWriter
from volfs.storage.files import pieces_of, read_file
from volfs.storage.manifest import NO_FILE, RECORD, ManifestBuilder, Op
from volfs.storage.payload import Payload, PayloadDigest, digest
from volfs.storage.payload_maker import Batch, Rows
from volfs.storage.shards import ShardWriter
from volfs.versions.keys import node_key

_OPEN_SHARDS = 64
"""Shard files of one array that hold a descriptor at once."""

Records = np.ndarray[Any, np.dtype[Any]]


class OpenObject(Protocol):
    """Begins an object of the version: returns its writer, and its key below ``versions/`` when the version exists."""

    def __call__(self, key: str) -> tuple[ObjectWriter, str]: ...


class ArrayWriter:
    """Collects chunk puts and removals of one array. Made by :meth:`VersionWriter.array`.

    ``shard_chunks``: chunks per shard along each axis; all ones means a file for each chunk, as the client has it.
    """

    def __init__(
        self, path: str, meta: ArrayMeta, shard_chunks: Index, block_shape: Index, begin: OpenObject, *, created: bool
    ) -> None:
        self.path = path
        self.meta = meta
        self.shard_chunks = shard_chunks
        self.block_shape = block_shape
        self.created = created
        self._begin = begin
        self._lock = Lock()
        self._rows = _Rows(meta.ndim)
        self._lots: list[_Lot] = []
        self._shards: dict[Index, _Shard] = {}
        self._open: BoundedMap[Index, ShardWriter] = BoundedMap(_OPEN_SHARDS)
        self._cells = prod(shard_chunks)
        self._grid = meta.grid

    @property
    def sharded(self) -> bool:
        """Whether chunks are packed together."""
        return self._cells > 1

    def __len__(self) -> int:
        """Chunks put or removed so far."""
        with self._lock:
            return len(self._rows) + sum(len(lot.records) for lot in self._lots)

    @property
    def complete(self) -> bool:
        """Whether every chunk of the array lies in this version."""
        with self._lock:
            return self.created and not any(len(lot.records) for lot in self._lots)

    def holds(self, coords: Index) -> bool:
        """Whether this version says something about a chunk already."""
        where, cell = split(coords, self.shard_chunks)
        with self._lock:
            shard = self._shards.get(where)
            return shard is not None and shard.rows[cell] != _Shard.FREE

    def put(self, coords: Index, payload: Buffer | Path) -> None:
        """Store a chunk: the bytes as they are, or those of a file (a client's own shards may be large).

        AlreadyThere if the version says something about that chunk already.
        """
        where, cell = split(self._check(coords), self.shard_chunks)
        shard = self._claim(where, (cell,), (coords,))
        try:
            if self.sharded:
                data = read_file(payload) if isinstance(payload, Path) else payload
                sums = digest(data)
                offset, _ = self._writer(where, shard).append(cell, data)
            else:
                offset = 0
                out = self._opened(where, shard)
                sums = copy_in(out, payload)
        except BaseException:
            self._unclaim(shard, (cell,))
            raise
        self._record(shard, cell, coords, sums.payload(shard.file, offset), sums.sha256)
        self._settled(where, shard)

    def put_all(self, coords: Sequence[Index], batch: Batch) -> list[Index]:
        """Store chunks that were made together; those that are all fill are skipped. Returns those that are in doubt,
        of which nothing is stored."""
        places = {n: split(self._check(at), self.shard_chunks) for n, at in enumerate(coords) if n not in batch.doubts}
        for where, run in itertools.groupby(places, lambda number: places[number][0]):
            numbers = list(run)
            cells = [places[number][1] for number in numbers]
            self._put_run(where, cells, [coords[number] for number in numbers], batch, numbers)
        return [coords[number] for number in batch.doubts]

    def _put_run(
        self, where: Index, cells: list[int], coords: Sequence[Index], batch: Batch, numbers: list[int]
    ) -> None:
        """Store chunks of one shard, which are those of a batch with these numbers, one after the other."""
        rows = batch.rows[numbers]
        held = np.flatnonzero(rows["length"]).tolist()
        shard = self._claim(where, cells, coords)
        try:
            stored, into = rows[held], [cells[i] for i in held]
            if held:
                begin, end = int(stored["offset"][0]), int(stored["offset"][-1] + stored["length"][-1])
                stored["offset"] -= begin
                if self.sharded:
                    lengths = stored["length"].tolist()
                    stored["offset"] += self._writer(where, shard).append_all(into, lengths, batch.data[begin:end])
                else:
                    with self._opened(where, shard) as out:
                        out.write(batch.data[begin:end])
        except BaseException:
            self._unclaim(shard, cells)
            raise
        if held:
            pieces = [batch.pieces(numbers[i]) for i in held]
            with self._lock:
                shard.rows[into] = self._rows.add_all([coords[i] for i in held], shard.file, stored, pieces)
        self._settled(where, shard, len(cells))

    def remove(self, coords: Index) -> None:
        """Record that a chunk is gone: it reads as fill. It may lie outside the array, which was shrunk."""
        where, cell = split(coords, self.shard_chunks)
        shard = self._claim(where, (cell,), (coords,))
        self._record(shard, cell, coords, None, b"")
        if self._grid.holds(coords):
            self._settled(where, shard)

    def take(self, records: Records, files: Sequence[str], pieces: Records) -> None:
        """Set chunks to payloads of other versions: records of :data:`Op.TAKE`. ``file`` counts into ``files``,
        ``pieces_start`` into ``pieces``. Chunks that were put or removed must not be among them."""
        with self._lock:
            self._lots.append(_Lot(records, tuple(files), pieces))

    def remove_many(self, rows: NDArray[np.int64]) -> None:
        """:meth:`remove` of many chunks, a row of coordinates each, that were not put or removed before."""
        records = np.zeros(len(rows), RECORD)
        records["op"], records["ndim"], records["file"] = Op.REMOVE, self.meta.ndim, NO_FILE
        records["chunk"][:, : self.meta.ndim] = rows
        self.take(records, (), np.zeros(0, "<u4"))

    def skip(self, coords: Index) -> None:
        """Say that a chunk will not come (it is all fill), so that its shard can be finished when the rest is there."""
        where, cell = split(self._check(coords), self.shard_chunks)
        shard = self._claim(where, (cell,), (coords,))
        self._settled(where, shard)

    def finish(self) -> None:
        """Finish every shard. Nothing can be put afterwards."""
        with self._lock:
            left = [(where, shard) for where, shard in self._shards.items() if shard.writer is not None]
        for where, shard in left:
            self._finish(where, shard)

    def abort(self) -> None:
        """Close what is open; the partial version is removed as a whole by its writer."""
        with self._lock:
            writers = [shard.writer for shard in self._shards.values() if shard.writer is not None]
            self._open.clear()
        for writer in writers:
            writer.abort()

    def records(self, builder: ManifestBuilder) -> None:
        """Add one record per chunk to a manifest, in C order of the chunks."""
        with self._lock:
            records, pieces = self._rows.take()
        records["name"] = builder.string(self.path)
        names = self._rows.files
        numbers = np.array([builder.string(name) for name in names] or [0], "<u4")
        held = records["file"] != NO_FILE
        records["file"][held] = numbers[records["file"][held]]
        order = np.lexsort(records["chunk"].T[::-1])
        builder.extend(records[order], pieces)
        for lot in self._lots:
            records = lot.records.copy()
            records["name"] = builder.string(self.path)
            numbers = np.array([builder.string(name) for name in lot.files] or [0], "<u4")
            held = records["file"] != NO_FILE
            records["file"][held] = numbers[records["file"][held]]
            builder.extend(records, lot.pieces)

    @property
    def _name(self) -> str:
        return f"array {self.path!r}" if self.path else "the array at the root"

    def _check(self, coords: Index) -> Index:
        if not self._grid.holds(coords):
            raise BadInput(f"{self._name}: there is no chunk {coords} in a grid of {self._grid.grid_shape} chunks")
        return coords

    def _claim(self, where: Index, cells: Sequence[int], coords: Sequence[Index]) -> _Shard:
        with self._lock:
            shard = self._shards.get(where)
            if shard is None:
                shard = self._shards[where] = self._new_shard(where)
            for cell, at in zip(cells, coords, strict=True):
                if shard.rows[cell] != _Shard.FREE:
                    raise AlreadyThere(f"{self._name}: chunk {at} was put or removed in this version already")
            shard.rows[list(cells)] = _Shard.CLAIMED
            return shard

    def _unclaim(self, shard: _Shard, cells: Sequence[int]) -> None:
        with self._lock:
            shard.rows[list(cells)] = _Shard.FREE

    def _new_shard(self, where: Index) -> _Shard:
        grid = self._grid.grid_shape
        expected = prod(max(0, min(s, n - w * s)) for s, n, w in zip(self.shard_chunks, grid, where, strict=True))
        return _Shard(self._cells, expected)

    def _opened(self, where: Index, shard: _Shard) -> ObjectWriter:
        out, shard.file = self._begin(node_key(self.path, self.meta.chunk_key(where)))
        return out

    def _writer(self, where: Index, shard: _Shard) -> ShardWriter:
        with self._lock:
            if shard.writer is None:
                shard.writer = ShardWriter(self._opened(where, shard), self.shard_chunks)
            idle = self._open.put(where, shard.writer)
        for writer in idle:
            writer.suspend()
        return shard.writer

    def _record(self, shard: _Shard, cell: int, coords: Index, payload: Payload | None, sha256: bytes) -> None:
        with self._lock:
            shard.rows[cell] = self._rows.add(coords, payload, sha256)

    def _settled(self, where: Index, shard: _Shard, count: int = 1) -> None:
        """Count chunks of the shard as dealt with, and finish the shard with the last one."""
        with self._lock:
            shard.expected -= count
            complete = shard.expected == 0 and shard.writer is not None
        if complete:
            self._finish(where, shard)

    def _finish(self, where: Index, shard: _Shard) -> None:
        with self._lock:
            writer, shard.writer = shard.writer, None
            self._open.pop(where)
        if writer is not None:
            writer.finish()


class _Lot(NamedTuple):
    """Records that name payloads of other versions, or none."""

    records: Records
    files: tuple[str, ...]
    pieces: Records


class _Shard:
    """One shard file: the record of each cell, and the number of cells still to come."""

    FREE, CLAIMED = -1, -2
    __slots__ = ("expected", "file", "rows", "writer")

    def __init__(self, cells: int, expected: int) -> None:
        self.file = ""
        self.rows = np.full(cells, _Shard.FREE, np.int64)
        self.expected = expected
        self.writer: ShardWriter | None = None


class _Rows:
    """Manifest records, growing. ``file`` counts into :attr:`files` until the manifest gives its own numbers."""

    def __init__(self, ndim: int) -> None:
        self._ndim = ndim
        self._records: Records = np.zeros(64, RECORD)
        self._count = 0
        self._pieces: list[bytes] = []
        self._piece_count = 0
        self._files: dict[str, int] = {}

    def __len__(self) -> int:
        return self._count

    @property
    def files(self) -> list[str]:
        return list(self._files)

    def add(self, coords: Index, payload: Payload | None, sha256: bytes) -> int:
        self._make_room(1)
        op, file, offset, length, crc, start, count = Op.REMOVE, NO_FILE, 0, 0, 0, 0, 0
        if payload is not None:
            op, offset, length, crc = Op.PUT, payload.offset, payload.length, payload.crc32c
            file = self._files.setdefault(payload.file, len(self._files))
            if payload.pieces is not None:
                start, count = self._piece_count, len(payload.pieces) // 4
                self._pieces.append(payload.pieces)
                self._piece_count += count
        chunk = coords + (0,) * (RECORD["chunk"].shape[0] - self._ndim)
        sha = sha256 or bytes(32)
        self._records[self._count] = (op, self._ndim, 0, chunk, file, offset, length, crc, start, count, sha, 0, 0, 0)
        self._count += 1
        return self._count - 1

    def add_all(self, coords: Sequence[Index], file: str, rows: Rows, pieces: Sequence[bytes | None]) -> range:
        """Records of payloads in one file, as :mod:`volfs.storage.payload_maker` tells of them. Their numbers."""
        count = len(rows)
        self._make_room(count)
        added = self._records[self._count : self._count + count]
        added["op"], added["ndim"] = Op.PUT, self._ndim
        added["chunk"][:, : self._ndim] = coords
        added["file"] = self._files.setdefault(file, len(self._files))
        for name in ("offset", "length", "crc32c", "sha256"):
            added[name] = rows[name]
        for record, sums in zip(added, pieces, strict=True):
            if sums is not None:
                record["pieces_start"], record["pieces_count"] = self._piece_count, len(sums) // 4
                self._pieces.append(sums)
                self._piece_count += len(sums) // 4
        self._count += count
        return range(self._count - count, self._count)

    def _make_room(self, count: int) -> None:
        while self._count + count > len(self._records):
            self._records = np.concatenate([self._records, np.zeros(len(self._records), RECORD)])

    def take(self) -> tuple[Records, Records]:
        return self._records[: self._count].copy(), np.frombuffer(b"".join(self._pieces), "<u4")


def copy_in(out: ObjectWriter, source: Buffer | Path | BinaryIO) -> PayloadDigest:
    """Write an object, a megabyte at a time, and sum up exactly what was written. Takes it back if that fails."""
    sums = PayloadDigest()
    with out:
        for piece in pieces_of(source):
            out.write(piece)
            sums.update(piece)
    return sums
