"""Notes on versions that come from another store: put together with those that are here.

Decided here: that notes come after versions, for versions that are here, and that nothing goes twice. A note that was
removed here comes back from where it still is. Not here: how notes are kept (:mod:`volfs.versions.notes`), and the form
of the question (:mod:`volfs.versions.remotes.questions`).

A note is told by a digest of version, time, author and text. What is damaged in either store stays behind, and harms no
other.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from hashlib import sha256

from volfs.errors import BadInput, Damaged
from volfs.storage.crash import crash_point
from volfs.versions.commit.writable_history import WritableHistory
from volfs.versions.notes import Note, Notes
from volfs.versions.remotes.questions import MOST_NOTES, Peer

_BYTES = 4 << 20
"""Bytes of notes in one answer, unless one alone is larger."""


def digest(ident: str, note: Note) -> str:
    """What tells a note on a version from all others."""
    said = json.dumps([ident, note.time_ns, note.author, note.text]).encode("utf-8", "surrogatepass")
    return sha256(said).hexdigest()[:32]


def offered(notes: Notes, ids: Collection[str], known: Collection[str]) -> tuple[list[tuple[str, Note]], bool]:
    """The notes on these versions that are not ``known``, as many as one answer holds; and whether there are more."""
    found: list[tuple[str, Note]] = []
    size = 0
    for ident, note in _all(notes, ids):
        if digest(ident, note) not in known:
            if found and (size > _BYTES or len(found) >= MOST_NOTES):
                return found, True
            found.append((ident, note))
            size += 4 * (len(note.text) + len(note.author)) + 200
    return found, False


def bring_notes(dataset: WritableHistory, peer: Peer) -> int:
    """Have the notes here that the other store has on the versions that are here. How many came."""
    notes = Notes(dataset.backend)
    ids = {info.content_id for info in dataset.graph.versions.values()}
    known = [digest(ident, note) for ident, note in _all(notes, ids)]
    came, more = 0, True
    while more:
        found, more = peer.notes(known[-MOST_NOTES:])
        new = [(ident, note) for ident, note in found if digest(ident, note) not in known]
        if not new:
            break
        known += [digest(ident, note) for ident, note in new]
        for ident in dict.fromkeys(ident for ident, _ in new if ident in ids):
            mine = [note for each, note in new if each == ident]
            try:
                notes.add(ident, mine)
            except BadInput:
                raise Damaged(f"{peer.frames.other} sent a note that cannot be one") from None
            except Damaged:
                continue  # what is here cannot be read: fsck names it
            came += len(mine)
            crash_point("notes.added")
    return came


def _all(notes: Notes, ids: Collection[str]) -> Iterator[tuple[str, Note]]:
    for ident in sorted(notes.noted()):
        if ident in ids:
            with suppress(Damaged):
                for note in notes.read(ident):
                    yield ident, note
