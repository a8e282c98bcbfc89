"""The questions that a store which receives versions asks one that has them, and the forms of the answers.

    history   {want, have, most}   → history {versions: [[id, [parent ids], size of manifest]]}: newest first, without
                                     what is an ancestor of "have"
    versions  {ids}                → for each: version {id, document, names, retired, manifest, absent}, and as data the
                                     manifest and what says which payloads are absent, each of so many bytes
    files     {files: [[id, name, offset]]}  → for each: file {size}, and its bytes from the offset on as data
    payloads  {payloads: [[id, sha256, offset]]}  → for each: payload {size, absent}, and its bytes from the offset on
    notes     {known}                  → notes {notes: [[id, time in ns, author, text]], more}: those on versions that
                                         are offered whose digests are not known

Versions are named by content id throughout: numbers differ between stores. ``document`` is ``version.json`` as it lies;
``names`` gives the content id of every number in it and in the manifest. Decided here: these forms and their bounds.
Who asks is :class:`Peer`; who answers is :class:`volfs.versions.remotes.supplier.Supplier`. The same questions are
asked by whoever fetches and, the other way along one connection, by the store that is pushed to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from volfs.errors import Damaged
from volfs.model.graph import is_time
from volfs.model.names import MAX_VERSION
from volfs.versions.notes import Note
from volfs.versions.remotes.message_frames import Frames

PROTOCOL = 2
"""Changes when a message does. Both ends must speak the same."""

MOST_IDS = 4096
"""Versions, files or payloads in one question."""
MOST_HISTORY = 65536
"""Versions in one answer about history."""
MOST_MANIFEST = 1 << 30
"""Bytes of a manifest, as it lies and unpacked."""
MOST_FILE = 1 << 50
"""Bytes of one file."""

MOST_NOTES = 1 << 17
"""Notes in one question or answer."""

_ID = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A version by its content id, with those of its parents, the first one first. ``manifest``: the size of its
    manifest."""

    id: str
    parents: tuple[str, ...]
    manifest: int


@dataclass(frozen=True, slots=True)
class TellOf:
    """A version as its store has it. ``names``: the content id of each number that it mentions."""

    id: str
    document: Mapping[str, Any]
    names: Mapping[int, str]
    manifest: bytes
    absent: bytes
    """What lies beside the manifest as ``absent.npy.zst``; b"" if everything is there."""
    retired: bool
    """Whether the version was dropped there."""


@dataclass(frozen=True, slots=True)
class WantedFile:
    """A file of a version, from ``offset`` on."""

    id: str
    name: str
    offset: int


@dataclass(frozen=True, slots=True)
class WantedPayload:
    """A payload that a version puts or takes, by its SHA-256; from ``offset`` on."""

    id: str
    sha256: bytes
    offset: int = 0


class Peer:
    """The other end of a connection, which has a dataset and answers questions about it.

    Answers to one question are read to their end before the next one is asked.
    """

    def __init__(self, frames: Frames) -> None:
        self.frames = frames

    def history(self, want: Sequence[str], have: Sequence[str], most: int) -> list[Ancestor]:
        """The newest ``most`` versions of those wanted and their ancestors, without what is an ancestor of ``have``.
        Newest first. NotFound if one that is wanted is not there."""
        self.frames.tell("history", want=list(want), have=list(have), most=most)
        found = self.frames.hear("history").items("versions", most)
        try:
            return [
                Ancestor(checked_id(each), tuple(map(checked_id, parents)), checked_size(size))
                for each, parents, size in found
            ]
        except (TypeError, ValueError):
            raise Damaged(f"{self.frames.other} sent a history that is none") from None

    def versions(self, wanted: Sequence[Ancestor]) -> Iterator[TellOf]:
        """Each version, in order."""
        self.frames.tell("versions", ids=[each.id for each in wanted])
        for each in wanted:
            message = self.frames.hear("version")
            size = message.number("manifest", MOST_MANIFEST)
            if message.text("id") != each.id or size != each.manifest:
                raise Damaged(f"{self.frames.other} sent another version than the one it was asked for")
            document, names = message.members("document"), message.members("names")
            known = {checked_number(number): checked_id(named) for number, named in names.items()}
            absent = message.number("absent", MOST_MANIFEST)
            manifest = self.frames.whole(size)
            yield TellOf(each.id, document, known, manifest, self.frames.whole(absent), message.flag("retired"))

    def files(self, wanted: Sequence[WantedFile]) -> Iterator[tuple[int, Iterator[memoryview]]]:
        """Of each file its whole size, and its bytes from the offset on, which are read before the next file."""
        self.frames.tell("files", files=[[each.id, each.name, each.offset] for each in wanted])
        for each in wanted:
            size = self.frames.hear("file").number("size", MOST_FILE)
            if size < each.offset:
                raise Damaged(f"{self.frames.other} has a shorter {each.name} than it had before")
            yield size, self.frames.data(size - each.offset)

    def payloads(self, wanted: Sequence[WantedPayload]) -> Iterator[tuple[int, Iterator[memoryview]] | None]:
        """Of each payload its whole size, and its bytes from the offset on, which are read before the next one; None
        for one that is not there."""
        self.frames.tell("payloads", payloads=[[each.id, each.sha256.hex(), each.offset] for each in wanted])
        for each in wanted:
            message = self.frames.hear("payload")
            size, absent = message.number("size", MOST_FILE), message.flag("absent")
            if not absent and size < each.offset:
                raise Damaged(f"{self.frames.other} has a shorter payload than it had before")
            yield None if absent else (size, self.frames.data(size - each.offset))

    def notes(self, known: Sequence[str]) -> tuple[list[tuple[str, Note]], bool]:
        """Notes on versions by content id, whose digests (:mod:`volfs.versions.remotes.travelling_notes`) are not
        known; and whether there are more."""
        self.frames.tell("notes", known=list(known))
        message = self.frames.hear("notes")
        return [_note(facts) for facts in message.items("notes", MOST_NOTES)], message.flag("more")


def _note(facts: object) -> tuple[str, Note]:
    if not isinstance(facts, list) or [type(each) for each in facts] != [str, int, str, str] or not is_time(facts[1]):
        raise Damaged("the other end sent something in the place of a note")
    return checked_id(facts[0]), Note(*facts[1:])


def checked_id(value: object) -> str:
    """A content id. Damaged if a value is none."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise Damaged("the other end sent something in the place of a content id")
    return value


def checked_size(value: object) -> int:
    """The size of a manifest. Damaged if a value can be none."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MOST_MANIFEST:
        raise Damaged("the other end sent something in the place of a size")
    return value


def checked_number(value: object) -> int:
    """The number of a version, which came as text. Damaged if it is none."""
    if not isinstance(value, str) or not value.isascii() or not value.isdecimal() or len(value) > 10:
        raise Damaged("the other end sent something in the place of a version's number")
    number = int(value)
    if not 0 < number <= MAX_VERSION:
        raise Damaged("the other end sent something in the place of a version's number")
    return number
