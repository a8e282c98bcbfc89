"""Manifests: what one version changed, a record for each key, in a file that rebuilds the catalog.

    manifest.npy.zst = one zstd frame (with checksum) of three .npy arrays after each other:
        strings   u1        names, UTF-8 with surrogate escapes, each ended by a NUL
        records   RECORD    one per key put, removed or taken from another version
        pieces    <u4       piece checksums of payloads over 1 MiB, one payload's after another's

The last two columns of a record, what side files keep beside their bytes, are in the file only where a record uses
one: a reader that knows less of them than this refuses the file, as one of the wrong type, and never misreads it; all
other manifests are what they always were.

A version may touch millions of chunks (a merge, an import), so everything here is columns: :class:`Manifest` gives the
arrays themselves, :class:`ManifestBuilder` takes arrays. Decided here: the records, and that what is read back is
consistent in itself. Not here: how records become index rows (:mod:`volfs.catalog`), the content id
(:mod:`volfs.versions`).
"""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import zstandard

from volfs.errors import BadInput, Damaged
from volfs.model.box import Index
from volfs.model.metadata import MAX_NDIM
from volfs.storage.payload import PIECE, Payload

Array = np.ndarray[Any, np.dtype[Any]]

RECORD = np.dtype(
    [
        ("op", "u1"),  # Op
        ("ndim", "u1"),  # 0: `name` is the whole key; else a chunk, of that many coordinates, of the array at `name`
        ("name", "<u4"),  # index into strings
        ("chunk", "<u4", (MAX_NDIM,)),  # coordinates; zeros after the first `ndim`
        ("file", "<u4"),  # index into strings: path below versions/; NO_FILE where no payload
        ("offset", "<u8"),
        ("length", "<u8"),
        ("crc32c", "<u4"),
        ("pieces_start", "<u4"),  # into pieces
        ("pieces_count", "<u4"),  # 0 for payloads of at most 1 MiB
        ("sha256", "V32"),  # of the bytes as written; zeros where no payload
        ("owner", "<u4"),  # TAKE: the version whose payload this is; else 0
        ("mode", "<u2"),  # see below; 0: nothing is said
        ("mtime_ns", "<i8"),  # side files: the time they were given; 0: that of the version
    ]
)
"""``mode`` of a key put or taken: the nine permission bits (0: those of any file), or ``S_IFLNK`` for a symbolic link,
whose payload is its target. Of a directory (Op.DIRECTORY): ``S_IFDIR`` with its permission bits."""

_BARE = np.dtype([(name, RECORD[name]) for name in RECORD.names or () if name not in ("mode", "mtime_ns")])
"""The records of a manifest that says nothing of modes and times."""

NO_FILE = 0xFFFFFFFF


class Op(IntEnum):
    """The operation of a record: the change that a version made to a key."""

    PUT = 1
    REMOVE = 2
    REMOVE_SUBTREE = 3
    TAKE = 4
    DIRECTORY = 5


@dataclass(frozen=True, slots=True)
class Record:
    """One record, spelled out. ``chunk`` None: ``name`` is a key; else the chunk of the array at path ``name``.

    ``mode`` and ``mtime_ns``: see :data:`RECORD`.
    """

    op: Op
    name: str
    chunk: Index | None
    payload: Payload | None
    sha256: bytes | None
    owner: int
    mode: int = 0
    mtime_ns: int = 0


class Manifest:
    """The arrays of one manifest, read-only. Iterating gives every record spelled out; prefer the columns for many."""

    def __init__(self, strings: Sequence[str], records: Array, pieces: Array) -> None:
        self.strings = tuple(strings)
        self.records = records
        self.pieces = pieces

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return (self.record(i) for i in range(len(self.records)))

    def record(self, i: int) -> Record:
        """Record ``i``, spelled out."""
        op, ndim, name, chunk, file, _, _, _, _, _, sha, owner, mode, mtime_ns = self.records[i].item()
        held = file != NO_FILE
        return Record(
            op=Op(op),
            name=self.strings[name],
            chunk=tuple(int(c) for c in chunk[:ndim]) if ndim else None,
            payload=self.payload(i) if held else None,
            sha256=bytes(sha) if held else None,
            owner=owner,
            mode=mode,
            mtime_ns=mtime_ns,
        )

    def payload(self, i: int) -> Payload:
        """The payload of record ``i``, which must have one."""
        file, offset, length, crc, start, count = self.records[i].item()[4:10]
        pieces = self.pieces[start : start + count].tobytes() if count else None
        return Payload(self.strings[file], offset, length, crc, pieces)

    def keys(self) -> Array:
        """Indices of the records that are whole keys."""
        return np.flatnonzero(self.records["ndim"] == 0)

    def chunks(self) -> Iterator[tuple[str, Array]]:
        """For each array path with chunk records, the indices of those."""
        of_chunks = np.flatnonzero(self.records["ndim"])
        names = self.records["name"][of_chunks]
        order = np.argsort(names, kind="stable")
        cuts = np.flatnonzero(np.diff(names[order])) + 1
        for group in np.split(of_chunks[order], cuts):
            if len(group):
                yield self.strings[self.records["name"][group[0]]], group

    def to_bytes(self) -> bytes:
        """The file's bytes; the same manifest always gives the same."""
        joined = "".join(f"{name}\0" for name in self.strings).encode("utf-8", "surrogateescape")
        out = io.BytesIO()
        records = self.records
        if not (records["mode"].any() or records["mtime_ns"].any()):
            records = _as(_BARE, records)
        for array in (np.frombuffer(joined, np.uint8), records, np.ascontiguousarray(self.pieces, "<u4")):
            np.lib.format.write_array(out, array, version=(1, 0), allow_pickle=False)
        return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(out.getbuffer())

    @classmethod
    def from_bytes(cls, raw: bytes, where: str = "manifest", *, most: int | None = None) -> Manifest:
        """Read a manifest and check that its parts fit each other; Damaged, beginning with ``where``, if not.

        ``most``: bytes that it may unpack to, for one that somebody sent: more are refused before memory is taken.
        """
        try:
            if most is not None:
                if not 0 <= zstandard.frame_content_size(raw) <= most:
                    raise Damaged(f"{where}: it does not say that it unpacks to {most:,} bytes or less")
                data = zstandard.ZstdDecompressor().decompress(raw, allow_extra_data=False)
            else:
                decoder = zstandard.ZstdDecompressor().decompressobj()
                data = decoder.decompress(raw)
                if not decoder.eof or decoder.unused_data:
                    raise Damaged(f"{where}: not one whole zstd frame")
            joined, records, pieces = _read_arrays(data, where)
        except (zstandard.ZstdError, ValueError, OverflowError, SyntaxError, MemoryError) as error:
            raise Damaged(f"{where}: {error}") from None
        strings = joined.tobytes().decode("utf-8", "surrogateescape").split("\0")
        if strings.pop():
            raise Damaged(f"{where}: the last name is cut off")
        _check(strings, records, pieces, where)
        return cls(strings, records, pieces)


class ManifestBuilder:
    """Collects the records of a version. Not thread-safe.

    Names and files are interned: :meth:`string` gives the number that the bulk methods take.
    """

    def __init__(self) -> None:
        self._strings: dict[str, int] = {}
        self._parts: list[Array] = []
        self._single: list[tuple[Any, ...]] = []
        self._pieces: list[Array] = []
        self._piece_count = 0

    def string(self, text: str) -> int:
        """The number of a name or file in this manifest."""
        if "\0" in text:
            raise BadInput(f"{text!r} contains a NUL byte")
        return self._strings.setdefault(text, len(self._strings))

    def put(self, key: str, payload: Payload, sha256: bytes, *, mode: int = 0, mtime_ns: int = 0) -> None:
        """A whole key was put. ``mode`` and ``mtime_ns``: see :data:`RECORD`."""
        self._add(Op.PUT, key, None, payload, sha256, 0, mode, mtime_ns)

    def put_chunk(self, array: str, coords: Index, payload: Payload, sha256: bytes) -> None:
        """A chunk was put into the array at this hierarchy path."""
        self._add(Op.PUT, array, coords, payload, sha256, 0)

    def remove(self, key: str) -> None:
        """A whole key was removed."""
        self._add(Op.REMOVE, key, None, None, None, 0)

    def remove_chunk(self, array: str, coords: Index) -> None:
        """A chunk was removed from the array at this hierarchy path."""
        self._add(Op.REMOVE, array, coords, None, None, 0)

    def remove_subtree(self, key: str) -> None:
        """A key was removed with everything below it. Keys put below it by the same version stay."""
        self._add(Op.REMOVE_SUBTREE, key, None, None, None, 0)

    def take(self, key: str, payload: Payload, sha256: bytes, owner: int, *, mode: int = 0, mtime_ns: int = 0) -> None:
        """A whole key was set to the payload that version ``owner`` put."""
        self._add(Op.TAKE, key, None, payload, sha256, owner, mode, mtime_ns)

    def take_chunk(self, array: str, coords: Index, payload: Payload, sha256: bytes, owner: int) -> None:
        """A chunk was set to the payload that version ``owner`` put."""
        self._add(Op.TAKE, array, coords, payload, sha256, owner)

    def directory(self, key: str, mode: int) -> None:
        """The directory at a key has these permission bits, once the changes of this version are made."""
        self._add(Op.DIRECTORY, key, None, None, None, 0, stat.S_IFDIR | stat.S_IMODE(mode))

    def extend(self, records: Array, pieces: Array | None = None) -> None:
        """Many records at once, of dtype :data:`RECORD`, with numbers from :meth:`string`.

        ``pieces_start`` counts from the start of ``pieces``, as given here.
        """
        self._flush()
        records = records.astype(RECORD, copy=True)
        if pieces is not None and len(pieces):
            records["pieces_start"] += self._piece_count
            self._pieces.append(np.asarray(pieces, "<u4"))
            self._piece_count += len(pieces)
        records["pieces_start"][records["pieces_count"] == 0] = 0
        self._parts.append(records)

    def __len__(self) -> int:
        return sum(map(len, self._parts)) + len(self._single)

    def build(self) -> Manifest:
        """The manifest of all records so far, in the order they came."""
        self._flush()
        records = np.concatenate(self._parts) if self._parts else np.zeros(0, RECORD)
        pieces = np.concatenate(self._pieces) if self._pieces else np.zeros(0, "<u4")
        return Manifest(tuple(self._strings), records, pieces)

    def _add(
        self,
        op: Op,
        name: str,
        coords: Index | None,
        payload: Payload | None,
        sha: bytes | None,
        owner: int,
        mode: int = 0,
        mtime_ns: int = 0,
    ) -> None:
        if coords is not None and not 1 <= len(coords) <= MAX_NDIM:
            raise BadInput(f"a chunk of {len(coords)} coordinates cannot be recorded")
        ndim = len(coords) if coords is not None else 0
        chunk = (coords or ()) + (0,) * (MAX_NDIM - ndim)
        file, offset, length, crc, start, count = NO_FILE, 0, 0, 0, 0, 0
        if payload is not None:
            file, offset, length, crc = self.string(payload.file), payload.offset, payload.length, payload.crc32c
            if payload.pieces is not None:
                pieces = np.frombuffer(payload.pieces, "<u4")
                start, count = self._piece_count, len(pieces)
                self._pieces.append(pieces)
                self._piece_count += count
        place = (file, offset, length, crc, start, count)
        row = (op, ndim, self.string(name), chunk, *place, sha or bytes(32), owner, mode, mtime_ns)
        self._single.append(row)
        if len(self._single) >= 65536:
            self._flush()

    def _flush(self) -> None:
        if self._single:
            self._parts.append(np.array(self._single, RECORD))
            self._single = []


def _as(dtype: np.dtype[Any], records: Array) -> Array:
    """Records with the columns of another type: those that they lack are zeros."""
    out = np.zeros(len(records), dtype)
    for name in set(dtype.names or ()).intersection(records.dtype.names or ()):
        out[name] = records[name]
    return out


def _read_arrays(data: bytes, where: str) -> tuple[Array, Array, Array]:
    """The three arrays, without a copy where they are of the types that are used here."""
    stream = io.BytesIO(data)
    arrays = []
    for name, types in (("strings", [np.dtype("u1")]), ("records", [RECORD, _BARE]), ("pieces", [np.dtype("<u4")])):
        if np.lib.format.read_magic(stream) != (1, 0):
            raise Damaged(f"{where}: {name} are not in .npy format 1.0")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        at = stream.tell()
        if dtype not in types or len(shape) != 1 or not 0 <= shape[0] * dtype.itemsize <= len(data) - at:
            raise Damaged(f"{where}: {name} have the wrong type or size")
        arrays.append(np.frombuffer(data, dtype, shape[0], at))
        stream.seek(at + shape[0] * dtype.itemsize)
    if stream.tell() != len(data):
        raise Damaged(f"{where}: bytes left over")
    strings, records, pieces = arrays
    return strings, records if records.dtype == RECORD else _as(RECORD, records), pieces


def _check(strings: Sequence[str], records: Array, pieces: Array, where: str) -> None:
    """Damaged unless every number points at something, and payloads are where payloads belong."""

    def need(true: Array | np.bool_, what: str) -> None:
        if not np.all(true):
            raise Damaged(f"{where}: {what}")

    held = records["file"] != NO_FILE
    length = records["length"]
    count = records["pieces_count"].astype(np.int64)
    with_payload = (records["op"] == Op.PUT) | (records["op"] == Op.TAKE)
    need((records["op"] >= Op.PUT) & (records["op"] <= Op.DIRECTORY), "unknown operation")
    need(records["ndim"] <= MAX_NDIM, "too many chunk coordinates")
    need(records["name"] < len(strings), "a name is missing")
    need((records["file"] < len(strings)) | ~held, "a file name is missing")
    need(held == with_payload, "payloads do not match operations")
    need((records["owner"] != 0) == (records["op"] == Op.TAKE), "owners do not match operations")
    mode = records["mode"]
    whole = with_payload & (records["ndim"] == 0)
    of_directory = (records["op"] == Op.DIRECTORY) & (records["ndim"] == 0) & (mode & ~np.uint16(0o777) == stat.S_IFDIR)
    need(of_directory | (whole & ((mode <= 0o777) | (mode == stat.S_IFLNK))) | (mode == 0), "a mode is out of range")
    need(of_directory | (records["op"] != Op.DIRECTORY), "a directory has no mode")
    need((records["mtime_ns"] == 0) | whole, "a time is given to what has none")
    need((records["offset"] < 2**62) & (length < 2**62), "an offset or length is out of range")
    need(records["pieces_start"].astype(np.int64) + count <= len(pieces), "piece checksums are missing")
    expected = np.where(length > PIECE, -(-length.astype(np.int64) // PIECE), 0)
    need((count == expected) | (count == 0), "wrong number of piece checksums")
