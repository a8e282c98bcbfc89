"""Payloads that were left out of a clone, brought in: into the files where they belong, proved as they come.

Decided here: the steps, so that a process that dies between any two leaves a store in which what came is right and all
else is absent, and that the next attempt asks for nothing that has come. Not here: which payloads are wanted
(:mod:`volfs.versions.remotes.wanted_payloads`).

1. a file that is not there is made, with an index of nothing at its end if it is a shard;
2. payloads come, many for one question, and are written into their places, each proved by its SHA-256; all of a file is
   synced: until the last step they count as absent, though whoever reads them finds them;
3. with the dataset's lock: the index of each shard names what is here by now;
4. the array's ``zarr.json`` says whether it is complete;
5. the version says of fewer payloads that they are absent: **now they are here**.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from volfs.errors import Damaged, VolfsError
from volfs.storage.backend import Bounded, Buffer
from volfs.storage.crash import crash_point
from volfs.storage.payload import PIECE
from volfs.storage.shards import MISSING, encode_shard_index, wrap_array_json
from volfs.versions.commit.writable_history import WritableHistory
from volfs.versions.committed.absences import Where, array_note, read_codes, write_codes
from volfs.versions.committed.version_files import AS_WRITTEN, VersionFiles, array_meta, read_manifest, read_version
from volfs.versions.keys import NODE_JSON, node_key
from volfs.versions.remotes.arrival import FileProof, Segment, lay_out, side_files
from volfs.versions.remotes.local_form import readers
from volfs.versions.remotes.questions import MOST_IDS, Peer, WantedPayload

_MOST_BYTES = 1 << 30
"""Bytes of payloads in one question, unless one alone is larger: what has come is written down after each."""
_MOST_HELD = 64 << 20
"""Bytes of manifests that are held for one question, unless one alone is larger."""

Count = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Supplement:
    """What was brought in: payloads and their bytes. ``lacking``: how many the other store does not have either."""

    payloads: int = 0
    bytes: int = 0
    lacking: int = 0

    def __add__(self, other: Supplement) -> Supplement:
        return Supplement(self.payloads + other.payloads, self.bytes + other.bytes, self.lacking + other.lacking)


def supplement(
    dataset: WritableHistory,
    peer: Peer,
    wanted: Mapping[int, NDArray[np.intp]],
    expect: Count,
    count: Count,
) -> Supplement:
    """Bring in the payloads of these records, by version. ``expect`` is told the bytes that are to come, ``count``
    those that have. Called while nobody else receives for the dataset."""
    for number, rows in wanted.items():
        manifest = read_manifest(VersionFiles.of(dataset.objects, number))
        expect(int(manifest.records["length"][rows].sum(dtype="u8")))
    total, batch = Supplement(), _Batch()
    for number, rows in wanted.items():
        version = _Version(dataset, number, rows)
        for name, wanted_part in version.lacking(count):
            if batch.full:
                _bring(peer, batch, count)
                total += batch.finish()
                batch = _Batch()
            batch.add(version, name, wanted_part)
        batch.whole.append(version)
        if batch.full:
            _bring(peer, batch, count)
            total += batch.finish()
            batch = _Batch()
    _bring(peer, batch, count)
    return total + batch.finish()


class _Rest(NamedTuple):
    """A payload of which the bytes before ``start`` are there."""

    segment: Segment
    start: int


class _Version:
    """One version into which payloads come."""

    def __init__(self, dataset: WritableHistory, number: int, rows: NDArray[np.intp]) -> None:
        self._dataset = dataset
        self._files = VersionFiles.of(dataset.objects, number)
        self._stored, self._manifest = read_version(self._files), read_manifest(self._files)
        self.id = self._stored.info.content_id
        self.nbytes = self._manifest.records.nbytes
        codes = read_codes(self._files, self._manifest)
        wanted = np.zeros(len(codes), np.bool_)
        wanted[rows] = True
        self._wanted = wanted & (codes == Where.LEFT_OUT)
        self._segments, self._tails, self._sizes = lay_out(
            self._stored, self._manifest, (codes == Where.HERE) | self._wanted
        )
        self._private = side_files(self._stored, self._manifest)
        self._rows: dict[str, NDArray[np.intp]] = {}
        self._came: dict[str, list[int]] = {}
        self._made = False
        self.done = Supplement()

    def lacking(self, count: Count) -> Iterator[tuple[str, _Rest]]:
        """What to ask for, file after file, of which each is there by then. What an earlier attempt has left is proved,
        and counted as come."""
        records, own = self._manifest.records, f"{self._files.folder}/"
        rows = np.flatnonzero(self._wanted)
        rows = rows[np.argsort(records["file"][rows], kind="stable")]
        for group in np.split(rows, np.flatnonzero(np.diff(records["file"][rows])) + 1) if len(rows) else ():
            name = self._manifest.strings[records["file"][group[0]]].removeprefix(own)
            offsets = set(records["offset"][group].tolist())
            self._rows[name] = group
            new = self._make(name)
            for segment in self._segments[name]:
                if segment.offset not in offsets:
                    continue
                if not new and self._proves(name, segment):
                    count(segment.length)
                    self._came.setdefault(name, []).append(segment.offset)
                    self.done += Supplement(1, segment.length)
                else:
                    yield name, _Rest(segment, 0 if new else self._held(name, segment))

    def patch(
        self,
        name: str,
        parts: list[_Rest],
        answers: Iterator[tuple[int, Iterator[memoryview]] | None],
        count: Count,
    ) -> None:
        """Write what comes of a file, each payload into its place. Damaged if one is another than that asked for."""
        came = self._came.setdefault(name, [])

        def pieces() -> Iterator[tuple[int, memoryview]]:
            for segment, start in parts:
                answer = next(answers)
                if answer is None:
                    self.done += Supplement(lacking=1)
                    continue
                proof, at = FileProof([Segment(0, *segment[1:])], b""), segment.offset
                if answer[0] != segment.length:
                    raise Damaged(f"it has {answer[0]:,} bytes instead of {segment.length:,}")
                while at < segment.offset + start:  # from an earlier attempt
                    piece = self._read(name, at, PIECE)
                    proof.update(memoryview(b"" if piece is None else piece))
                    at += PIECE
                    count(PIECE)
                for piece in answer[1]:
                    proof.update(piece)
                    yield at, piece
                    at += len(piece)
                    count(len(piece))
                    crash_point("supplement.piece")
                proof.finish()
                came.append(segment.offset)
                self.done += Supplement(1, segment.length)

        try:
            self._dataset.objects.patch(self._files.key(name), pieces())
        except Damaged as error:
            raise Damaged(f"{name} of version {self.id[:12]}…: {error}") from None

    def finish(self) -> None:
        """Steps 3 to 5 for all that came."""
        if not any(self._came.values()):
            return
        records = self._manifest.records
        rows = np.zeros(len(records), np.bool_)
        for name, offsets in self._came.items():
            mine = self._rows[name]
            rows[mine[np.isin(records["offset"][mine], offsets)]] = True
        if self._made:
            self._files.batch().sync()
        crash_point("supplement.came")
        with self._dataset.locked():
            codes = read_codes(self._files, self._manifest).copy()
            codes[rows & (codes == Where.LEFT_OUT)] = Where.HERE
            _, tails, _ = lay_out(self._stored, self._manifest, codes == Where.HERE)
            for name in self._came.keys() & tails.keys():
                tail = tails[name]
                self._dataset.objects.patch(self._files.key(name), [(self._size(name) - len(tail), tail)])
            crash_point("supplement.indexed")
            self._describe(codes)
            write_codes(self._files, codes)
        crash_point("supplement.noted")
        self._dataset.objects.forget(self._files.folder)

    # -- inside -------------------------------------------------------------------------------------------------

    def _size(self, name: str) -> int:
        """The size of a file with all its payloads, here or not."""
        known = self._sizes.get(name)
        segments, tail = self._segments[name], self._tails.get(name, b"")
        return known if known is not None else max(each.offset + each.length for each in segments) + len(tail)

    def _make(self, name: str) -> bool:
        """Have a file be there; whether it was not."""
        if self._dataset.objects.stat(self._files.key(name)) is not None:
            return False
        bits = 0o666
        if name in self._private:
            key, mode = self._private[name]
            version = self._dataset.version(self._stored.info.number)

            def folder_mode(folder: str) -> int:
                info = version.stat(folder)
                return info.mode if info is not None and info.kind == "dir" else 0

            bits = readers(key, mode, folder_mode)
        with self._files.batch().open(name, bits) as out:
            out.write(b"")
        self._made = True
        if name in self._tails:  # whoever reads it as a shard finds one of nothing
            tail = encode_shard_index(np.full((len(self._tails[name]) - 4) // 8, MISSING, np.uint64).reshape(-1, 2))
            self._dataset.objects.patch(self._files.key(name), [(self._size(name) - len(tail), tail)])
        return True

    def _proves(self, name: str, segment: Segment) -> bool:
        """Whether a payload is there already."""
        proof = FileProof([Segment(0, *segment[1:])], b"")
        with suppress(VolfsError):
            for at in range(0, segment.length, PIECE):
                piece = self._read(name, segment.offset + at, min(PIECE, segment.length - at))
                proof.update(memoryview(b"" if piece is None else piece))
            proof.finish()
            return True
        return False

    def _held(self, name: str, segment: Segment) -> int:
        """How many bytes of a long payload are there from its beginning on: whole pieces whose checksums are right."""
        if segment.pieces is None:
            return 0
        for number, crc in enumerate(np.frombuffer(segment.pieces, "<u4").tolist()):
            at = number * PIECE
            piece = self._read(name, segment.offset + at, min(PIECE, segment.length - at))
            if piece is None or crc32c(piece) != crc:
                return at
        return 0  # all of it, and its SHA-256 differs: it comes anew

    def _read(self, name: str, offset: int, length: int) -> Buffer | None:
        """Bytes of a file; None if they are not all there."""
        with suppress(VolfsError):
            return self._dataset.objects.ranges(self._files.key(name), [Bounded(offset, length)])[0]
        return None

    def _describe(self, codes: NDArray[np.uint8]) -> None:
        """Have the metadata of arrays whose chunks came say whether they are complete."""
        came = self._wanted & (codes == Where.HERE)
        for path, rows in self._manifest.chunks():
            written = f"{node_key(path)}/{AS_WRITTEN}"
            if not came[rows].any() or self._dataset.objects.stat(self._files.key(written)) is None:
                continue
            meta, array = array_meta(self._files, path), self._stored.arrays[path]
            shard = None
            if prod(array.shard_chunks) > 1:
                shard = tuple(s * c for s, c in zip(array.shard_chunks, meta.chunk_shape, strict=True))
            note = array_note(self._stored, path, bool((codes[rows] != Where.HERE).any()))
            json, name = wrap_array_json(self._files.read(written), shard, note), f"{node_key(path)}/{NODE_JSON}"
            if self._files.read(name) != json:
                self._files.put(name, json)


@dataclass(slots=True)
class _Batch:
    """Payloads for one question, file after file, and the versions of which the last ones are among them."""

    jobs: list[tuple[_Version, str, list[_Rest]]] = field(default_factory=list)
    whole: list[_Version] = field(default_factory=list)
    count: int = 0
    bytes: int = 0

    def add(self, version: _Version, name: str, part: _Rest) -> None:
        if not self.jobs or self.jobs[-1][0] is not version or self.jobs[-1][1] != name:
            self.jobs.append((version, name, []))
        self.jobs[-1][2].append(part)
        self.count += 1
        self.bytes += part.segment.length - part.start

    @property
    def full(self) -> bool:
        held = sum(version.nbytes for version in self.whole)
        return self.count >= MOST_IDS or self.bytes >= _MOST_BYTES or held >= _MOST_HELD

    def finish(self) -> Supplement:
        """Have what came be here, of the versions of which nothing more is to come."""
        for version in self.whole:
            version.finish()
        return sum((version.done for version in self.whole), Supplement())


def _bring(peer: Peer, batch: _Batch, count: Count) -> None:
    """Ask for the payloads of a batch, and put them into their places."""
    if not batch.count:
        return
    parts_of = ((version.id, part) for version, _, parts in batch.jobs for part in parts)
    answers = peer.payloads([WantedPayload(ident, part.segment.sha256, part.start) for ident, part in parts_of])
    for version, name, parts in batch.jobs:
        version.patch(name, parts, answers, count)
    for _ in answers:  # there are none: the last is read to its end
        pass
