"""The answers of a store that has versions, from one dataset's own files.

Decided here: which versions are told of, and that nothing outside of them is read, whatever a question names. Not here:
the forms of questions and answers (:mod:`volfs.versions.remotes.questions`), nor who asks.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress

import numpy as np

from volfs.errors import BadInput, Damaged, NotFound, VolfsError
from volfs.model.bounded_map import BoundedMap
from volfs.model.graph import VersionInfo
from volfs.storage.backend import Bounded, read_document
from volfs.storage.crash import crash_point
from volfs.storage.manifest import NO_FILE, Manifest, Op
from volfs.storage.payload import Payload
from volfs.storage.store_layout import ABSENT, MANIFEST, VERSION_JSON, parse_version_dir
from volfs.versions.committed.absences import Where, left_out, read_codes
from volfs.versions.committed.version import Version
from volfs.versions.committed.version_files import VersionFiles, read_manifest
from volfs.versions.history import History
from volfs.versions.notes import Notes
from volfs.versions.remotes.message_frames import PIECE, Frames, Message
from volfs.versions.remotes.questions import MOST_HISTORY, MOST_IDS, MOST_NOTES, checked_id
from volfs.versions.remotes.travelling_notes import offered

_MANIFESTS = 64 << 20
"""Bytes of manifests that are kept while payloads are asked for."""
_PLACES = 3
"""How many places of one payload in a version are looked at, besides its last."""


class Supplier:
    """Answers questions about the versions of a dataset: those that ``tips`` (numbers) name and their ancestors, or all
    of them. ``count`` is called with the bytes of files as they go. ``whole``: Absent is raised for a version of which
    payloads were left out here."""

    def __init__(
        self,
        dataset: History[Version],
        frames: Frames,
        tips: Collection[int] | None = None,
        count: Callable[[int], object] = int,
        whole: bool = False,
    ) -> None:
        self._dataset = dataset
        self._frames = frames
        self._count = count
        self._whole = whole
        graph = dataset.graph
        offered = graph.versions if tips is None else _ancestors(graph.versions, tips)
        self._numbers = {graph.info(number).content_id: number for number in offered}
        self._dropped = dataset.ledger.retired()
        self._by_sum: tuple[int, dict[bytes, tuple[int, ...]]] | None = None
        self._manifests: BoundedMap[int, Manifest] = BoundedMap(_MANIFESTS, lambda found: found.records.nbytes)

    def answer(self, message: Message) -> None:
        """Answer one question. BadInput if it is none. An error of the dataset ends the connection, told to the other
        end by the caller."""
        if message.say == "history":
            self._history(message)
        elif message.say == "versions":
            self._versions(message)
        elif message.say == "files":
            self._files(message)
        elif message.say == "payloads":
            self._payloads(message)
        elif message.say == "notes":
            self._notes(message)
        else:
            raise BadInput(f"{message.say[:40]!r} is no question about a dataset")

    # -- each question ------------------------------------------------------------------------------------------

    def _history(self, message: Message) -> None:
        want = [self._number(each) for each in message.texts("want", MOST_IDS)]
        have = [self._numbers[each] for each in message.texts("have", MOST_IDS) if each in self._numbers]
        found = []
        for number in _between(self._dataset, want, have):
            info = self._dataset.info(number)
            parents = [self._dataset.info(parent).content_id for parent in info.parents]
            found.append([info.content_id, parents, self._manifest_size(number)])
            if len(found) == message.number("most", MOST_HISTORY):
                break
        self._frames.tell("history", versions=found)

    def _versions(self, message: Message) -> None:
        wanted = message.texts("ids", MOST_IDS)
        if self._whole:  # before anything has come there
            for each in wanted:
                self._check_whole(self._number(each), each)
        for each in wanted:
            number = self._number(each)
            files = VersionFiles.of(self._dataset.objects, number)
            document = read_document(files.objects, files.key(VERSION_JSON))
            raw = files.read(MANIFEST)
            mentioned = {number, *self._dataset.info(number).parents, *_owners(Manifest.from_bytes(raw, each))}
            names = {str(one): self._dataset.info(one).content_id for one in sorted(mentioned)}
            absent = files.read(ABSENT) if files.objects.stat(files.key(ABSENT)) is not None else b""
            self._frames.tell(
                "version",
                id=each,
                document=document,
                names=names,
                retired=number in self._dropped,
                manifest=len(raw),
                absent=len(absent),
            )
            self._frames.send(raw)
            self._frames.send(absent)
            crash_point("supplier.version")

    def _files(self, message: Message) -> None:
        objects = self._dataset.objects
        for each in message.items("files", MOST_IDS):
            if not isinstance(each, list) or [type(part) for part in each] != [str, str, int]:
                raise BadInput("a question for files names none")
            ident, name, offset = each
            files = VersionFiles.of(objects, self._number(ident))
            found = objects.stat(files.key(name))
            if found is None or not 0 <= offset <= found.size:
                raise Damaged(f"{files.where(name)} is not there, or is shorter than it was")
            self._frames.tell("file", size=found.size)
            for at in range(offset, found.size, PIECE):
                piece = objects.ranges(files.key(name), [Bounded(at, min(PIECE, found.size - at))])[0]
                self._frames.send(piece)
                self._count(len(piece))
                crash_point("supplier.piece")

    def _payloads(self, message: Message) -> None:
        reader = self._dataset.reader
        for each in message.items("payloads", MOST_IDS):
            if not isinstance(each, list) or [type(part) for part in each] != [str, str, int] or each[2] < 0:
                raise BadInput("a question for payloads names none")
            number = self._numbers.get(checked_id(each[0]))
            payload = None if number is None else self._payload(number, each[1])
            data = None
            with suppress(VolfsError):
                data = None if payload is None else self._proved(payload)
            if payload is None or data is None:
                self._frames.tell("payload", size=0, absent=True)
                continue
            self._frames.tell("payload", size=payload.length, absent=False)
            self._frames.send(data[each[2] :])
            for at in range(max(len(data), each[2]), payload.length, PIECE):
                self._frames.send(reader.read(payload, at, PIECE))
            self._count(max(0, payload.length - each[2]))
            crash_point("supplier.payload")

    def _notes(self, message: Message) -> None:
        known = frozenset(message.texts("known", MOST_NOTES))
        found, more = offered(Notes(self._dataset.backend), self._numbers.keys(), known)
        listed = [[ident, note.time_ns, note.author, note.text] for ident, note in found]
        self._frames.tell("notes", notes=listed, more=more)

    def check_whole(self) -> None:
        """Raise Absent if payloads were left out here of a version that is offered."""
        for ident, number in self._numbers.items():
            self._check_whole(number, ident)

    # -- inside -------------------------------------------------------------------------------------------------

    def _number(self, ident: str) -> int:
        number = self._numbers.get(checked_id(ident))
        if number is None:
            raise NotFound(f"dataset {self._dataset.name!r} has no version {ident[:12]}… that is to be sent")
        return number

    def _check_whole(self, number: int, ident: str) -> None:
        files = VersionFiles.of(self._dataset.objects, number)
        if files.objects.stat(files.key(ABSENT)) is not None:
            codes = read_codes(files, self._manifest(number))
            if count := int(np.count_nonzero(codes == Where.LEFT_OUT)):
                raise left_out(self._dataset.name, ident, count)

    def _manifest_size(self, number: int) -> int:
        files = VersionFiles.of(self._dataset.objects, number)
        found = files.objects.stat(files.key(MANIFEST))
        if found is None:
            raise Damaged(f"{files.where(MANIFEST)} does not exist")
        return found.size

    def _proved(self, payload: Payload) -> bytes:
        """The first piece of a payload, of which all have been read: whoever is told of it gets it whole."""
        read = self._dataset.reader.read
        for at in range(PIECE, payload.length, PIECE):
            read(payload, at, PIECE)
        return read(payload, 0, PIECE)

    def _payload(self, number: int, sha256: str) -> Payload | None:
        """A payload that a version records, by its SHA-256: one that is here, if there are several."""
        manifest = self._manifest(number)
        try:
            rows = self._rows(number, manifest).get(bytes.fromhex(sha256), ())
        except ValueError:
            raise BadInput("a question for payloads names none") from None
        for row in rows[:-1]:
            with suppress(VolfsError):
                self._proved(manifest.payload(row))
                return manifest.payload(row)
        return manifest.payload(rows[-1]) if rows else None

    def _rows(self, number: int, manifest: Manifest) -> dict[bytes, tuple[int, ...]]:
        """The records of each payload of a version by its SHA-256, one for each place where it lies. Kept for the
        version that was asked about last: many questions are about one."""
        if self._by_sum is None or self._by_sum[0] != number:
            found: dict[bytes, tuple[int, ...]] = {}
            held = np.flatnonzero(manifest.records["file"] != NO_FILE)
            sums = np.ascontiguousarray(manifest.records["sha256"][held]).tobytes()
            for at, row in enumerate(held.tolist()):
                sha = sums[32 * at : 32 * at + 32]
                found[sha] = (*found.get(sha, ())[:_PLACES], row)
            self._by_sum = number, found
        return self._by_sum[1]

    def _manifest(self, number: int) -> Manifest:
        return self._manifests.get_or_make(
            number, lambda: read_manifest(VersionFiles.of(self._dataset.objects, number))
        )


def _owners(manifest: Manifest) -> Iterator[int]:
    """Numbers of the versions whose files hold payloads of a manifest, or wrote them."""
    records = manifest.records
    yield from np.unique(records["owner"][records["op"] == Op.TAKE]).tolist()
    for file in np.unique(records["file"][records["file"] != NO_FILE]).tolist():
        number = parse_version_dir(manifest.strings[file].partition("/")[0])
        if number is None:
            raise Damaged(f"{manifest.strings[file]} is not in the directory of a version")
        yield number


def _ancestors(versions: Mapping[int, VersionInfo], tips: Collection[int]) -> set[int]:
    """Versions, with all that they descend from."""
    found: set[int] = set()
    ahead = [tip for tip in tips if tip in versions]
    while ahead:
        number = ahead.pop()
        if number not in found:
            found.add(number)
            ahead += versions[number].parents
    return found


def _between(dataset: History[Version], want: Collection[int], have: Collection[int]) -> Iterator[int]:
    """Ancestors of ``want`` that are none of ``have``, newest first. Looks no further than the versions by which the
    two differ."""
    wanted, common = 1, 2
    sides: dict[int, int] = {}
    for side, numbers in ((wanted, want), (common, have)):
        for number in numbers:
            sides[number] = sides.get(number, 0) | side
    ahead = [-number for number in sides]
    heapq.heapify(ahead)
    # Numbers ahead that are wanted and not common: with none left, all that is missing has been found.
    missing = sum(side == wanted for side in sides.values())
    while missing:
        number = -heapq.heappop(ahead)
        side = sides[number]
        if side == wanted:
            missing -= 1
            yield number
        # A parent has a smaller number than its child, so a number is final when it comes up.
        for parent in dataset.info(number).parents:
            before = sides.get(parent)
            after = (before or 0) | side
            if before is None:
                heapq.heappush(ahead, -parent)
                missing += after == wanted
            elif before == wanted and after != wanted:
                missing -= 1
            sides[parent] = after
