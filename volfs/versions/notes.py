"""Notes on versions: what somebody had to say of one later. Apart from the version, which never changes.

Decided here: where notes are kept, ``notes/CONTENT_ID.json`` of the dataset, and in which form: named by the content id
and not by the number, so that they mean the same version in every store, and are merged by putting them together. Not
here: who shows them, and how they travel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from volfs.errors import BadInput, Damaged, NotFound
from volfs.model.graph import is_time
from volfs.storage.backend import Backend, change_document, read_document
from volfs.storage.json_document import dump_document

FOLDER = "notes"
"""Where they are, among a dataset's objects."""

_FILE = re.compile(r"([0-9a-f]{64})\.json")
_LONGEST = 1 << 16


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """What somebody said, and when (ns)."""

    time_ns: int
    author: str
    text: str


class Notes:
    """The notes on the versions of one dataset, by content id."""

    def __init__(self, dataset: Backend) -> None:
        self._dataset = dataset

    def noted(self) -> frozenset[str]:
        """The content ids of all versions with notes."""
        names = (key.rpartition("/")[2] for key in self._dataset.list(FOLDER))
        return frozenset(match[1] for match in map(_FILE.fullmatch, names) if match)

    def read(self, content_id: str) -> list[Note]:
        """The notes on one version, oldest first. Raises Damaged."""
        key = _key(content_id)
        try:
            return _parse(read_document(self._dataset, key), self._dataset.where(key))
        except NotFound:
            return []

    def add(self, content_id: str, notes: Iterable[Note]) -> None:
        """Put notes to those that there are. One that is there already stays one. BadInput for a text that is none."""
        new, key = set(notes), _key(content_id)
        for note in new:
            if not note.text.strip() or len(note.text) > _LONGEST or "\0" in note.text:
                raise BadInput(f"a note is some text, of at most {_LONGEST:,} characters")

        def with_new(document: dict[str, Any]) -> dict[str, Any] | None:
            before = set(_parse(document, self._dataset.where(key)))
            return None if new <= before else _document(before | new)

        if not self._dataset.create(key, dump_document(_document(new))):
            change_document(self._dataset, key, with_new)

    def remove(self, content_id: str) -> bool:
        """Remove all notes on a version. False if there are none."""
        there = self._dataset.stat(_key(content_id)) is not None
        self._dataset.remove([_key(content_id)])
        return there


def _key(content_id: str) -> str:
    return f"{FOLDER}/{content_id}.json"


def _document(notes: Iterable[Note]) -> dict[str, Any]:
    return {"notes": [asdict(note) for note in sorted(notes)]}


def _parse(document: dict[str, Any], where: str) -> list[Note]:
    found = []
    listed = document.get("notes")
    for each in listed if isinstance(listed, list) else [None]:
        facts = each if isinstance(each, dict) else {}
        time_ns, author, text = facts.get("time_ns"), facts.get("author"), facts.get("text")
        if not is_time(time_ns) or not isinstance(author, str) or not isinstance(text, str):
            raise Damaged(f"{where} holds no notes: remove it")
        found.append(Note(time_ns, author, text))
    return sorted(found)
