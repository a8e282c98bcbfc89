"""The log of refs of one dataset, ``refs/log.jsonl``: a line for every change of a branch or tag, kept for good.

Decided here: the form of a line, and that a damaged one harms itself alone. Not here: when a line is written and what
becomes of one whose change came to nothing (:mod:`volfs.versions.commit.publish`), and what the lines are good for.

A line is a JSON object with a checksum, as other documents have it (:mod:`volfs.storage.json_document`)::

    {"time": "2026-11-28T18:00:00Z", "time_ns": …, "who": "ada@lab", "ref": "heads/main", "from": 3, "from_id": "…",
     "to": 4, "to_id": "…", "why": "commit: seeds", "checksum": {"crc32c": "…"}}

``from`` is null for a ref that is new, ``to`` for one that was removed; both are 0 for a branch without a version.
``was`` is there for a ref that was renamed. A line is synced before its change is made, so none is ever missing; what a
power cut leaves half written at the end was no change yet, and the next line takes its place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from volfs.errors import Damaged
from volfs.model.graph import is_time
from volfs.model.refs import RefKind
from volfs.storage.files import fsync_dir, make_dirs, no_space, opened, pread_all, write_all
from volfs.storage.json_document import dump_line, load_document
from volfs.versions.ledger import RefChange, RefRecord

_PIECE = 1 << 16
_LONGEST = 1 << 16
"""Bytes of the longest line that is read as one."""
_WORDS = 400
"""Characters kept of who and why."""

Line = RefChange | Damaged
"""A line as it was read: a change of a ref, or why it cannot be read."""


class RefLog:
    """The file. Whoever appends has the dataset's lock; reading takes none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, change: RefChange) -> int:
        """Write a line, durably. The length of the log before, for :meth:`withdraw`. NoSpace if the disk is full."""
        make_dirs(self.path.parent)
        with no_space("writing the log of refs"), opened(self.path, os.O_RDWR | os.O_CREAT) as fd:
            size = os.fstat(fd).st_size
            whole = _end_of_lines(fd, size)
            try:
                if whole != size:
                    os.ftruncate(fd, whole)
                os.lseek(fd, whole, os.SEEK_SET)
                write_all(fd, dump_line(_facts(change)))
                os.fsync(fd)
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(fd, whole)
                raise
        if not whole:
            fsync_dir(self.path.parent)
        return whole

    def withdraw(self, length: int) -> None:
        """Take back the line that :meth:`append` wrote last: its change came to nothing. Needs no space."""
        with opened(self.path, os.O_RDWR) as fd:
            os.ftruncate(fd, length)
            os.fsync(fd)

    def size(self) -> int:
        """The length in bytes; 0 while there is none."""
        try:
            return self.path.lstat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def newest_first(self, size: int | None = None) -> Iterator[Line]:
        """All lines, from the last to the first, or those in the first ``size`` bytes; what a line says, or the damage
        to it. Reads no more than is asked for."""
        try:
            with opened(self.path) as fd:
                end = os.fstat(fd).st_size if size is None else size
                whole = _end_of_lines(fd, end)
                for back, raw in enumerate(_lines_backwards(fd, whole)):
                    line = _parse(raw)
                    if isinstance(line, Damaged):  # a person looks for it, who counts from the first
                        line = Damaged(f"{self.path} line {_count_lines(fd, whole) - back:,}: {line}")
                    yield line
        except (FileNotFoundError, NotADirectoryError):
            return
        except Damaged as error:
            yield error

    def last(self, size: int | None = None) -> RefChange | None:
        """The last line; None if there is none, or it is damaged."""
        line = next(self.newest_first(size), None)
        return line if isinstance(line, RefChange) else None


def _end_of_lines(fd: int, size: int) -> int:
    """The length without a last line that has no end."""
    while size:
        start = max(0, size - _PIECE)
        piece = pread_all(fd, size - start, start)
        at = piece.rfind(b"\n")
        if at >= 0:
            return start + at + 1
        size = start
    return 0


def _count_lines(fd: int, size: int) -> int:
    """The number of lines in the first ``size`` bytes."""
    return sum(pread_all(fd, min(_PIECE, size - at), at).count(b"\n") for at in range(0, size, _PIECE))


def _lines_backwards(fd: int, size: int) -> Iterator[bytes]:
    """The lines of a file's first ``size`` bytes, which end in a line break; from the last to the first. Of one that is
    too long, its end alone."""
    if not size:
        return
    size -= 1  # the last line break ends a line and begins none
    rest = b""
    while size:
        start = max(0, size - _PIECE)
        first, *lines = (pread_all(fd, size - start, start) + rest).split(b"\n")
        yield from reversed(lines)
        rest, size = first[-_LONGEST:], start
    yield rest


def _facts(change: RefChange) -> dict[str, Any]:
    when = datetime.fromtimestamp(change.time_ns // 10**9, UTC)
    old, new = change.old, change.new
    return {
        "time": when.isoformat().replace("+00:00", "Z"),
        "time_ns": change.time_ns,
        "who": change.who[:_WORDS],
        "ref": f"{change.kind.folder}/{change.name}",
        **({"was": change.was} if change.was is not None else {}),
        "from": None if old is None else old.version,
        **({"from_id": old.content_id} if old is not None and old.content_id else {}),
        "to": None if new is None else new.version,
        **({"to_id": new.content_id} if new is not None and new.content_id else {}),
        "why": change.why[:_WORDS],
    }


def _parse(raw: bytes) -> Line:
    where = f"{raw[:60].decode('utf-8', 'replace')!r}…"
    try:
        facts, _ = load_document(raw, where)
        kind = next(k for k in RefKind if facts["ref"].startswith(f"{k.folder}/"))
        when, who, why, was = facts["time_ns"], facts["who"], facts["why"], facts.get("was")
        name = facts["ref"].partition("/")[2]
        if not (is_time(when) and isinstance(who, str) and isinstance(why, str) and isinstance(was, str | None)):
            raise TypeError
        return RefChange(when, who, kind, name, _record(facts, "from"), _record(facts, "to"), why, was)
    except Damaged as error:
        return error
    except (KeyError, TypeError, AttributeError, StopIteration):
        return Damaged(f"{where} does not say how a ref changed")


def _record(facts: dict[str, Any], which: str) -> RefRecord | None:
    number, ident = facts[which], facts.get(f"{which}_id")
    if number is None:
        return None
    if not isinstance(number, int) or isinstance(number, bool) or number < 0 or not isinstance(ident, str | None):
        raise TypeError
    return RefRecord(number, ident)
