"""Payloads that this store has lost, brought back from another store of the dataset.

Decided here: what counts as lost (bytes that do not have the SHA-256 of the manifest, or are not there), and that only
such bytes are written: what is whole stays as it is, so that a process which dies meanwhile has lost nothing. Not here:
what is wrong otherwise (:mod:`volfs.versions.check.fsck`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from volfs.errors import Damaged, NotFound, VolfsError
from volfs.storage.backend import Bounded
from volfs.storage.crash import crash_point
from volfs.versions.commit.writable_history import WritableHistory
from volfs.versions.committed.absences import Where, read_codes
from volfs.versions.committed.version_files import VersionFiles, read_manifest, read_version
from volfs.versions.remotes.arrival import FileProof, Segment, lay_out, side_files
from volfs.versions.remotes.questions import Peer, WantedPayload
from volfs.versions.remotes.transfer import Progress

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Repair:
    """What was mended of a dataset: payloads, and their bytes. ``left``: how many are lost that the other store did not
    have whole either."""

    payloads: int = 0
    bytes: int = 0
    left: int = 0

    def __add__(self, other: Repair) -> Repair:
        return Repair(self.payloads + other.payloads, self.bytes + other.bytes, self.left + other.left)


def repair(dataset: WritableHistory, peer: Peer, progress: Progress) -> Repair:
    """Look through all files of a dataset's versions, and mend what another store has. Versions whose manifest cannot
    be read stay as they are."""
    dataset.store.check_writable()
    total = Repair()
    numbers = dataset.ledger.versions()
    for at, number in enumerate(numbers):
        progress(at, len(numbers), f"v{number}")
        try:
            version = _Version(dataset, number)
        except (Damaged, NotFound):
            continue
        total += version.mend(peer)
    return total


class _Version:
    """One version whose files are looked through."""

    def __init__(self, dataset: WritableHistory, number: int) -> None:
        self._objects = dataset.objects
        self._files = VersionFiles.of(dataset.objects, number)
        stored, manifest = read_version(self._files), read_manifest(self._files)
        here = read_codes(self._files, manifest) == Where.HERE
        self._id = stored.info.content_id
        self._segments, self._tails, self._sizes = lay_out(stored, manifest, np.asarray(here))
        self._private = side_files(stored, manifest)

    def mend(self, peer: Peer) -> Repair:
        """Mend all files; what was mended."""
        return sum((self._mend(name, peer) for name in self._segments), Repair())

    def _mend(self, name: str, peer: Peer) -> Repair:
        segments, tail = self._segments[name], self._tails.get(name, b"")
        size = self._sizes.get(name, max(each.offset + each.length for each in segments) + len(tail))
        lost = [each for each in segments if not self._proves(name, each)]
        found = self._objects.stat(self._files.key(name))
        if not lost and found is not None and found.size == size and self._ends_with(name, size, tail):
            return Repair()
        if found is None:  # a file with holes where its payloads will be
            readers = 0o600 if name in self._private else 0o666
            with self._files.batch().open(name, readers) as out:
                out.write(b"")
        done = Repair()
        for segment in lost:
            done += self._bring(name, segment, peer)
        if tail:
            self._objects.patch(self._files.key(name), [(size - len(tail), tail)])
        self._objects.forget(self._files.folder)
        return done

    def _bring(self, name: str, segment: Segment, peer: Peer) -> Repair:
        (answer,) = peer.payloads([WantedPayload(self._id, segment.sha256)])
        if answer is None or answer[0] != segment.length:
            if answer is not None:
                raise Damaged(f"{peer.frames.other} sent another payload than the one that was asked for")
            return Repair(left=1)
        proof, at = FileProof([Segment(0, *segment[1:])], b""), segment.offset
        for piece in answer[1]:
            proof.update(piece)
            self._objects.patch(self._files.key(name), [(at, piece)])
            at += len(piece)
            crash_point("repair.patched")
        proof.finish()
        return Repair(1, segment.length)

    def _ends_with(self, name: str, size: int, tail: bytes) -> bool:
        try:
            return self._read(name, size - len(tail), len(tail)) == tail
        except VolfsError:
            return False

    def _proves(self, name: str, segment: Segment) -> bool:
        proof = FileProof([Segment(0, *segment[1:])], b"")
        try:
            for piece in self._pieces(name, segment):
                proof.update(memoryview(piece))
            proof.finish()
        except VolfsError:
            return False
        return True

    def _pieces(self, name: str, segment: Segment) -> Iterator[bytes]:
        for at in range(0, segment.length, _PIECE):
            yield self._read(name, segment.offset + at, min(_PIECE, segment.length - at))

    def _read(self, name: str, offset: int, length: int) -> bytes:
        return bytes(self._objects.ranges(self._files.key(name), [Bounded(offset, length)])[0])
