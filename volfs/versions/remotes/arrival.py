"""A version that arrives from another store: its files as they come, proved, in a directory named by its content id.

Decided here: what of a version travels (the files that hold payloads, as they lie), that every payload is proved by the
SHA-256 of the manifest while its bytes come, and that what was written before a connection ended is proved and kept.
Not here: which versions arrive, and in which order (:mod:`volfs.versions.remotes.transfer`), and the parts that are
written anew because numbers differ (:mod:`volfs.versions.remotes.local_form`).
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from volfs.errors import BadInput, Damaged
from volfs.model.display import printable
from volfs.model.grid import split
from volfs.model.names import check_key
from volfs.storage.backend import check_object_key
from volfs.storage.crash import crash_point
from volfs.storage.files import make_dirs, no_space, open_regular, opened, pread_all, write_all
from volfs.storage.manifest import Manifest, Op
from volfs.storage.payload import PayloadDigest
from volfs.storage.shards import MISSING, encode_shard_index, shard_index_size
from volfs.storage.store_layout import version_dir_name
from volfs.versions.committed.absences import Codes, Where, left_out, may_be_absent, may_be_taken, parse_codes
from volfs.versions.committed.version_files import StoredVersion, parse_version
from volfs.versions.remotes.questions import MOST_MANIFEST, Ancestor, TellOf

Rows = NDArray[np.signedinteger[Any]]

_PIECE = 1 << 20
_FOLDERS = ("zarr", "files", "objects")
"""Directories of a version in which payloads lie."""
TAKEN = "objects/taken-"
"""Beginning of the name of a payload that another version owned, whose owner is not in this store."""


class Segment(NamedTuple):
    """A payload in a file, and its checksums."""

    offset: int
    length: int
    sha256: bytes
    crc32c: int
    pieces: bytes | None


class FileProof:
    """The bytes of one file as they come, from the front: each payload in it must have its SHA-256, and what is behind
    the last one must be ``tail``."""

    def __init__(self, segments: Sequence[Segment], tail: bytes) -> None:
        self._segments = segments
        self._tail = tail
        self.size = max((each.offset + each.length for each in segments), default=0) + len(tail)
        self.restart()

    def restart(self) -> None:
        """Forget what has come."""
        self.done = 0
        self._at = 0
        self._sums = PayloadDigest()
        self._behind = bytearray()
        self._pass_empty()

    def update(self, data: memoryview) -> None:
        """Take in the next bytes. Damaged if a payload that is complete with them is another one."""
        while data:
            if self._at == len(self._segments):
                self._behind += data
                self.done += len(data)
                if not self._tail.startswith(self._behind):
                    raise Damaged("what lies behind its payloads is not the index of them")
                return
            segment = self._segments[self._at]
            if self.done < segment.offset:
                count = min(len(data), segment.offset - self.done)  # bytes of nothing
            else:
                count = min(len(data), segment.offset + segment.length - self.done)
                self._sums.update(data[:count])
            self.done += count
            data = data[count:]
            if self.done == segment.offset + segment.length:
                self._prove(segment)
                self._pass_empty()

    def finish(self) -> None:
        """The file is over. Damaged if it is not complete."""
        if self.done != self.size:
            raise Damaged(f"it has {self.done:,} bytes instead of {self.size:,}")

    def _prove(self, segment: Segment) -> None:
        sums = self._sums
        if sums.sha256 != segment.sha256:
            raise Damaged(f"the payload at {segment.offset} is not the one that was committed: SHA-256 differs")
        if (sums.crc32c, sums.pieces) != (segment.crc32c, segment.pieces):
            raise Damaged(f"the checksum of the payload at {segment.offset} is wrong in its manifest")
        self._sums = PayloadDigest()
        self._at += 1

    def _pass_empty(self) -> None:
        while self._at < len(self._segments):
            segment = self._segments[self._at]
            if segment.length or segment.offset > self.done:
                return
            self._prove(segment)


@dataclass(slots=True)
class Arrival:
    """One version on its way. ``manifest`` and ``stored`` are as its store has them, with that store's numbers."""

    id: str
    root: Path
    stored: StoredVersion
    manifest: Manifest
    names: Mapping[int, str]
    codes: Codes
    """Where the payload of each record is, as this store will have it."""
    retired: bool
    segments: dict[str, list[Segment]] = field(default_factory=dict)
    """The payloads that come, by the file in which they lie."""
    tails: dict[str, bytes] = field(default_factory=dict)
    """What lies behind them in files that are shards."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Of files of which some payloads are absent: they have holes there, so that all others keep their places."""
    private: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Files of side files, with the key and mode of each."""
    taken: list[int] = field(default_factory=list)
    """Records that take a payload whose owner is not in this store: it comes along, as this version's own."""

    @classmethod
    def begin(cls, told: TellOf, expected: Ancestor, incoming: Path, other: str) -> Arrival:
        """Read what the other end says of a version. Damaged if anything in it cannot be, or leads elsewhere."""
        where = f"version {told.id[:12]}… of {other}"
        try:
            stored = parse_version(told.document, where)
            manifest = Manifest.from_bytes(told.manifest, where, most=MOST_MANIFEST)
            _check_names(told, expected, stored, manifest)
            _check_keys(manifest)
            codes = _codes(told, manifest, where)
            arrival = cls(told.id, incoming / told.id, stored, manifest, told.names, codes, told.retired)
            arrival.private = side_files(stored, manifest)
            arrival.lay_out()
        except BadInput as error:
            raise Damaged(f"{where}: {error}") from None
        except Damaged as error:
            said = str(error)
            raise Damaged(said if said.startswith(where) else f"{where}: {said}") from None
        return arrival

    def lay_out(self) -> None:
        """Find out which payloads come, and in which files they lie. Damaged if that cannot be."""
        self.segments, self.tails, self.sizes = lay_out(self.stored, self.manifest, self.codes == Where.HERE)

    def leave_out(self) -> None:
        """Have no payload come that may be absent: those that are wanted are brought in when all versions are there."""
        self.codes[may_be_absent(self.manifest) & (self.codes == Where.HERE)] = Where.LEFT_OUT
        able = may_be_taken(self.manifest)
        self.codes[[row for row in self.taken if able[row]]] = Where.LEFT_OUT
        self.lay_out()

    def check_whole(self) -> None:
        """Raise Absent if payloads were left out where the version comes from."""
        if count := int(np.count_nonzero(self.codes == Where.LEFT_OUT)):
            raise left_out("DATASET", self.id, count)

    @property
    def parents(self) -> tuple[str, ...]:
        """Content ids of the parents, the first one first."""
        return tuple(self.names[number] for number in self.stored.info.parents)

    def owner(self, row: int) -> str:
        """The content id of the version that wrote the payload of a record which takes one."""
        return self.names[int(self.manifest.records["owner"][row])]

    def proofs(self) -> Iterator[tuple[str, FileProof]]:
        """Each file that travels as it lies, and what it must be."""
        for name, segments in self.segments.items():
            if name not in self.sizes:
                yield name, FileProof(segments, self.tails.get(name, b""))

    def proof_of(self, row: int) -> FileProof:
        """What the payload of one record must be, alone in a file."""
        record = self.manifest.records[row]
        payload = self.manifest.payload(row)
        sha256 = bytes(record["sha256"].item())
        return FileProof([Segment(0, payload.length, sha256, payload.crc32c, payload.pieces)], b"")

    def path(self, name: str) -> Path:
        """A file of the version."""
        return self.root / name

    # -- files as they come -------------------------------------------------------------------------------------

    def resume(self, name: str, proof: FileProof) -> None:
        """Take in what an earlier attempt has left of a file. If that cannot be its beginning, it is removed."""
        path = self.path(name)
        try:
            fd = open_regular(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            if os.fstat(fd).st_size > proof.size:
                raise Damaged("it is longer than it can be")
            while piece := os.read(fd, _PIECE):
                proof.update(memoryview(piece))
        except Damaged:
            path.unlink()
            proof.restart()
        finally:
            os.close(fd)

    def receive(
        self, name: str, proof: FileProof, size: int, data: Iterable[memoryview], count: Callable[[int], object]
    ) -> None:
        """Append the rest of a file, and prove it. Damaged, with nothing of the file left, if it is not what it must
        be."""
        path = self.path(name)
        try:
            if size != proof.size:
                raise Damaged(f"it has {size:,} bytes instead of {proof.size:,}")
            with no_space(f"writing {path.name}"):
                self._make_folder(path.parent)
                private = 0o600 if name in self.private else 0o666
                fd = open_regular(path, os.O_WRONLY | os.O_CREAT, private)
            try:
                os.lseek(fd, proof.done, os.SEEK_SET)
                for piece in data:
                    proof.update(piece)
                    with no_space(f"writing {path.name}"):
                        write_all(fd, piece)
                    count(len(piece))
                    crash_point("receive.piece")
            finally:
                os.close(fd)
            proof.finish()
        except Damaged as error:
            with suppress(OSError):
                path.unlink()
            raise Damaged(f"{name} of version {self.id[:12]}…: {error}") from None

    def lacks(self, name: str) -> list[Segment]:
        """The payloads of a file with holes that have not come yet."""
        try:
            with opened(self.path(name)) as fd:
                return [each for each in self.segments[name] if not _holds(fd, each)]
        except (FileNotFoundError, NotADirectoryError):
            return list(self.segments[name])

    def receive_into(
        self, name: str, segment: Segment, data: Iterable[memoryview], count: Callable[[int], object]
    ) -> None:
        """Put one payload into its place in a file with holes, and prove it."""
        path, proof = self.path(name), FileProof([Segment(0, *segment[1:])], b"")
        try:
            with no_space(f"writing {path.name}"):
                self._make_folder(path.parent)
                fd = open_regular(path, os.O_WRONLY | os.O_CREAT)
            try:
                at = segment.offset
                for piece in data:
                    proof.update(piece)
                    with no_space(f"writing {path.name}"):
                        os.lseek(fd, at, os.SEEK_SET)
                        write_all(fd, piece)
                    at += len(piece)
                    count(len(piece))
            finally:
                os.close(fd)
            proof.finish()
        except Damaged as error:
            raise Damaged(f"{name} of version {self.id[:12]}…: {error}") from None

    def close_file(self, name: str) -> None:
        """Give a file with holes its size, and the index of what is in it."""
        tail, size = self.tails.get(name, b""), self.sizes[name]
        with no_space(f"writing {name}"), opened(self.path(name), os.O_WRONLY) as fd:
            os.ftruncate(fd, size)
            os.lseek(fd, size - len(tail), os.SEEK_SET)
            write_all(fd, tail)

    def begin_folder(self) -> None:
        """Make the directory of the version, if an earlier attempt has not."""
        make_dirs(self.root)

    def drop(self) -> None:
        """Remove all that has arrived."""
        shutil.rmtree(self.root, ignore_errors=True)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """A payload that has arrived."""
        with opened(self.path(name)) as fd:
            return pread_all(fd, length, offset)

    def open_to(self, readers: Callable[[str, int], int]) -> None:
        """Give files of side files, which were this user's alone while they came, the permission bits that they may
        have: those that ``readers`` leaves, given the key and its mode, and that new files here have."""
        usual = stat.S_IMODE(self.root.stat().st_mode) & 0o666
        for name, (key, mode) in self.private.items():
            if name in self.segments:
                self.path(name).chmod(usual & readers(key, mode) | 0o600)

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise Damaged("it lies below a file") from None


def _check_names(told: TellOf, expected: Ancestor, stored: StoredVersion, manifest: Manifest) -> None:
    """Damaged unless a version is the one that was asked for, and its numbers are those of versions."""
    info = stored.info
    if info.content_id != told.id or told.names.get(info.number) != told.id:
        raise Damaged("it says that it is another version")
    if [told.names.get(parent) for parent in info.parents] != list(expected.parents):
        raise Damaged("its parents are not those of its history")
    owners = set(np.unique(manifest.records["owner"]).tolist()) - {0}
    if not owners <= told.names.keys():
        raise Damaged("it takes payloads of versions that have no name")


def _check_keys(manifest: Manifest) -> None:
    """Raise Damaged or BadInput unless every record has a key, and each key one record."""
    records, strings = manifest.records, manifest.strings
    whole = records["ndim"] == 0
    for op, name in np.unique(np.stack([records["op"][whole], records["name"][whole]], axis=1), axis=0).tolist():
        folder = op in (Op.REMOVE_SUBTREE, Op.DIRECTORY) and strings[name] in ("zarr", "files")
        if not folder:
            check_key(strings[name])
    for name in np.unique(records["name"][~whole]).tolist():
        if strings[name]:
            check_key(f"zarr/{strings[name]}")
    said = (records["op"] != Op.REMOVE_SUBTREE) & (records["op"] != Op.DIRECTORY)
    columns = [records["name"][said], records["ndim"][said], *records["chunk"][said].T]
    if len(np.unique(np.stack(columns, axis=1), axis=0)) != np.count_nonzero(said):
        raise Damaged("a key is recorded twice")


def side_files(stored: StoredVersion, manifest: Manifest) -> dict[str, tuple[str, int]]:
    """The files that hold payloads of side files, with key and mode."""
    records, own = manifest.records, f"{version_dir_name(stored.info.number)}/"
    found = {}
    for row in np.flatnonzero((records["op"] == Op.PUT) & (records["ndim"] == 0)).tolist():
        key = manifest.strings[int(records["name"][row])]
        if key.startswith("files/"):
            found[_name_in(manifest.strings[int(records["file"][row])], own)] = key, int(records["mode"][row])
    return found


def _holds(fd: int, segment: Segment) -> bool:
    """Whether a file holds a payload already."""
    proof = FileProof([Segment(0, *segment[1:])], b"")
    with suppress(Damaged):
        for at in range(0, segment.length, _PIECE):
            proof.update(memoryview(pread_all(fd, min(_PIECE, segment.length - at), segment.offset + at)))
        proof.finish()
        return True
    return False


def _codes(told: TellOf, manifest: Manifest, where: str) -> Codes:
    """Where payloads are, as the other end says."""
    if not told.absent:
        return np.zeros(len(manifest), np.uint8)
    codes = parse_codes(told.absent, len(manifest), where)
    if (codes[~may_be_absent(manifest)] != Where.HERE).any():
        raise Damaged("something is said to be absent that cannot be")
    if not told.retired and (codes == Where.DROPPED).any():
        raise Damaged("payloads went with it, and it is said to be kept")
    return codes.copy()


def lay_out(
    stored: StoredVersion, manifest: Manifest, here: NDArray[np.bool_]
) -> tuple[dict[str, list[Segment]], dict[str, bytes], dict[str, int]]:
    """The payloads that are here in each file of the version itself, in order; what lies behind them in those that are
    shards; and the sizes of those in which others are absent."""
    records = manifest.records
    own = f"{version_dir_name(stored.info.number)}/"
    rows = np.flatnonzero(records["op"] == Op.PUT)
    segments: dict[str, list[Segment]] = {}
    tails: dict[str, bytes] = {}
    sizes: dict[str, int] = {}
    order = rows[np.lexsort((records["length"][rows], records["offset"][rows], records["file"][rows]))]
    cuts = np.flatnonzero(np.diff(records["file"][order])) + 1
    for group in np.split(order, cuts) if len(order) else ():
        file = manifest.strings[int(records["file"][group[0]])]
        name = _name_in(file, own)
        there = list(_segments(manifest, group))
        chunk_rows = group[records["ndim"][group] > 0]
        shape = _shard_shape(stored, manifest, chunk_rows, name)
        if shape is None and (len(there) > 1 or there[0].offset):
            raise Damaged(f"{printable(name)} holds several payloads, and is no shard")
        tail = b"" if shape is None else _index(manifest, chunk_rows, shape, here)
        left = group[here[group]]
        if not len(left):
            continue
        segments[name] = there if len(left) == len(group) else list(_segments(manifest, left))
        if shape is not None:
            tails[name] = tail
        if len(left) < len(group):
            sizes[name] = max(each.offset + each.length for each in there) + len(tail)
    return segments, tails, sizes


def _name_in(file: str, own: str) -> str:
    name = file.removeprefix(own)
    if name == file or name.partition("/")[0] not in _FOLDERS or "/" not in name:
        raise Damaged(f"a payload lies outside of the version, in {printable(file[:200])}")
    return check_object_key(name)


def _segments(manifest: Manifest, rows: Rows) -> Iterator[Segment]:
    columns = ["offset", "length", "sha256", "crc32c", "pieces_start", "pieces_count"]
    last: Segment | None = None
    for offset, length, sha256, crc, start, count in manifest.records[columns][rows].tolist():
        pieces = manifest.pieces[start : start + count].tobytes() if count else None
        segment = Segment(offset, length, bytes(sha256), crc, pieces)
        if segment == last:
            continue
        if last is not None and offset < last.offset + last.length:
            raise Damaged("two payloads overlap")
        last = segment
        yield segment


def _shard_shape(stored: StoredVersion, manifest: Manifest, rows: Rows, name: str) -> tuple[int, ...] | None:
    """Chunks per axis of the shard in a file; None if it is none."""
    if not len(rows) or name.startswith("objects/taken-"):
        return None
    paths = {manifest.strings[each] for each in np.unique(manifest.records["name"][rows]).tolist()}
    array = stored.arrays.get(next(iter(paths)))
    if len(paths) > 1 or array is None:
        raise Damaged(f"{printable(name)} holds chunks of an array that the version does not describe")
    return array.shard_chunks if prod(array.shard_chunks) > 1 else None


def _index(manifest: Manifest, rows: Rows, shape: tuple[int, ...], here: NDArray[np.bool_]) -> bytes:
    """The index of a shard that holds the chunks of some records, as far as they are here."""
    index = np.full((prod(shape), 2), MISSING, np.uint64)
    places, cells = set(), set()
    columns = manifest.records[["chunk", "offset", "length", "ndim"]][rows].tolist()
    for (chunk, offset, length, ndim), held in zip(columns, here[rows].tolist(), strict=True):
        if ndim != len(shape):
            raise Damaged("a chunk has another number of axes than its shard")
        where, cell = split(tuple(map(int, chunk[:ndim])), shape)
        if cell in cells:
            raise Damaged("two chunks lie at one place of a shard")
        places.add(where)
        cells.add(cell)
        if held:
            index[cell] = offset, length
    if len(places) > 1:
        raise Damaged("chunks of several shards lie in one file")
    tail = encode_shard_index(index)
    assert len(tail) == shard_index_size(prod(shape))
    return tail
