"""The uncommitted changes of a branch, and everything that stands in the way of committing them.

Decided here: how changes are counted by node, and which are left behind while files are being written. Not here: which
keys are held (:mod:`volfs.versions.working.interpreter`, :mod:`volfs.versions.commit.changeset`), nor the output
(``views/documents``, ``cli``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Literal

from volfs.errors import Damaged, VolfsError
from volfs.model.metadata import GroupMeta
from volfs.storage.files import open_regular, read_json, unlink_durably, write_json
from volfs.storage.stage_record import StageRecord, read_record, stage_files
from volfs.storage.store_layout import WorkingLayout
from volfs.versions.committed.version_files import NodeChanges
from volfs.versions.keys import covers, node_key, node_path
from volfs.versions.snapshot import ArrayNode, Snapshot
from volfs.versions.working.interpreter import Interpreter, chunk_root
from volfs.versions.working.union import Union

ActionKind = Literal[
    "cherry-pick",
    "commit",
    "commit-words",
    "discard",
    "merge",
    "mv",
    "publish",
    "rebase",
    "resolve",
    "restore",
    "revert",
    "tag",
    "update",
]


@dataclass(frozen=True, slots=True)
class Left:
    """A key, directory or slice that a commit left uncommitted, and why."""

    path: str
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"path": self.path, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file that was written over a slice, or a chunk of another format, and is none yet. ``path`` is from the branch
    on, ``since_ns`` when it was begun; ``refused``: it can never be one as it is."""

    path: str
    reason: str
    since_ns: int
    refused: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "reason": self.reason,
            "since": instant_text(self.since_ns),
            "refused": self.refused,
        }


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that was written over a slice, never was one, and was dropped at ``time_ns``."""

    path: str
    reason: str
    time_ns: int

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "reason": self.reason, "time": instant_text(self.time_ns)}


def instant_text(time_ns: int) -> str:
    """``2026-03-01T09:30:00.000123Z``, for people and programs; "unknown" for a time outside the calendar."""
    try:
        return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return "unknown"


@dataclass(frozen=True, slots=True)
class Action:
    """A commit or another order, from its beginning to its outcome. Times in ns; ``error`` is one line; ``left`` is
    everything that a commit left uncommitted."""

    kind: ActionKind
    message: str
    state: Literal["running", "done", "failed"]
    began_ns: int
    ended_ns: int | None = None
    version: int | None = None
    error: str | None = None
    error_kind: str | None = None
    left: tuple[Left, ...] = ()

    @classmethod
    def begin(cls, kind: ActionKind, message: str) -> Action:
        return cls(kind, message, "running", time.time_ns())

    @classmethod
    def by_mount(cls, described: Mapping[str, Any]) -> Action:
        """One that a mount has done for this process, as its ``status.json`` describes it. Times are this process's."""
        left = described.get("left")
        return cls.begin("commit", str(described.get("message"))).done(
            described.get("version"),
            str(described.get("message")),
            tuple(
                Left(str(each.get("path")), str(each.get("reason")))
                for each in (left if isinstance(left, list) else ())
                if isinstance(each, dict)
            ),
        )

    def done(self, version: int | None, message: str, left: tuple[Left, ...]) -> Action:
        return replace(self, state="done", ended_ns=time.time_ns(), version=version, message=message, left=left)

    def failed(self, error: Exception) -> Action:
        return replace(self, state="failed", ended_ns=time.time_ns(), error=str(error), error_kind=type(error).__name__)

    def to_json(self) -> dict[str, Any]:
        """Plain values; times as :func:`instant_text`."""
        plain = {name: getattr(self, name) for name in self.__slots__ if not name.endswith("_ns")}
        ended = None if self.ended_ns is None else instant_text(self.ended_ns)
        return plain | {
            "began": instant_text(self.began_ns),
            "ended": ended,
            "left": [each.to_json() for each in self.left],
        }


@dataclass(frozen=True, slots=True)
class Behind:
    """A branch whose working copy lies over ``base``, which is not its ``head`` (0: no version).

    ``versions`` is by how many versions the two differ. ``keys``: changed keys that keep the base where it is, whole
    arrays by their directory; none if it follows by itself with the next change.
    """

    base: int
    head: int
    versions: int
    keys: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Plain values, for ``--json``."""
        base = f"v{self.base}" if self.base else None
        return {"base": base, "versions": self.versions, "keys": list(self.keys)}


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a working copy. ``head`` is 0 while nothing is committed.

    ``changes`` are keyed by place: ``zarr/PATH`` for a node, ``files`` or a directory of it for side files. ``held``:
    keys with the reason. ``left_behind``: keys and whole directories that a commit now would leave in the working copy,
    because a file there is open for writing. ``staged``: files written over slices that do not decode yet;
    ``rejected``: those that were dropped because they never did. ``writer``: the other process that may write to the
    branch now. ``behind``: the keys that keep the changes from lying over the head.
    """

    branch: str
    head: int
    changes: Mapping[str, NodeChanges]
    held: tuple[tuple[str, str], ...] = ()
    left_behind: tuple[str, ...] = ()
    staged: tuple[StagedFile, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    action: Action | None = None
    writer: str | None = None
    behind: Behind | None = None

    @property
    def clean(self) -> bool:
        """True if the branch reads as its base, and no staged file waits to become voxels."""
        return not self.changes and not self.staged

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return {
            "branch": self.branch,
            "head": f"v{self.head}" if self.head else None,
            "behind": None if self.behind is None else self.behind.to_json(),
            "clean": self.clean,
            "changes": {
                place: {"put": c.put, "removed": c.removed, "bytes": c.bytes} for place, c in self.changes.items()
            },
            "held": [{"key": key, "reason": reason} for key, reason in self.held],
            "left_behind": list(self.left_behind),
            "staged": [each.to_json() for each in self.staged],
            "rejected": [each.to_json() for each in self.rejected],
            "action": None if self.action is None else self.action.to_json(),
            "writer": self.writer,
        }


def count_changes(union: Union, interpreter: Interpreter) -> dict[str, NodeChanges]:
    """Changes by place, sorted."""
    changes: dict[str, NodeChanges] = {}

    def add(place: str, put: int = 0, removed: int = 0, size: int = 0) -> None:
        was = changes.get(place, NodeChanges())
        changes[place] = NodeChanges(was.put + put, was.removed + removed, was.bytes + size)

    for change in union.changes():
        meaning = interpreter.meaning(union, change.key)
        folder = change.key.rpartition("/")[0]
        place = folder if meaning.path is None else node_key(meaning.path)
        if change.kind == "put":
            add(place, put=1, size=change.size)
        else:
            for where, count in _removed(union, change.key, place):
                add(where, removed=count)
    for folder, _ in union.folder_modes():
        add(folder.rpartition("/")[0], put=1)
    return dict(sorted(changes.items()))


def _removed(union: Union, key: str, place: str) -> Iterable[tuple[str, int]]:
    """How many keys of the base are gone with ``key``, by place."""
    lower = union.lower
    assert lower is not None
    info = lower.stat(key)
    if info is None:
        return
    if info.kind == "file":
        yield place, 1
        return
    for gone in Union((), lower).keys(key):
        entry = union.entry(gone)
        if entry is None or entry.kind == "dir":
            yield _place_in(lower, gone), 1


def _place_in(lower: Snapshot, key: str) -> str:
    folder = key.rpartition("/")[0]
    root = chunk_root(key)
    path = None if root is None else node_path(root)
    if path is not None and isinstance(lower.node(path), ArrayNode):
        return node_key(path)
    return folder


def left_behind(union: Union, interpreter: Interpreter, written: Iterable[str]) -> frozenset[str]:
    """Keys and directories that a commit leaves in the working copy while these keys are open for writing.

    An array with a writer stays as a whole, with its metadata: a recording is committed when it is done. So does a
    future array, by the names of its chunks or because its metadata is being written. Any other file stays
    behind alone.
    """
    found = set()
    for key in written:
        if not key.startswith("zarr/"):
            found.add(key)
            continue
        meaning = interpreter.meaning(union, key)
        whole = meaning.kind in ("chunk", "orphan")
        if meaning.kind == "metadata" and meaning.path is not None:
            whole = not isinstance(interpreter.node(union, meaning.path), GroupMeta)
        found.add(node_key(meaning.path or "") if whole else key)
    return frozenset(found)


def staged_files(layout: WorkingLayout) -> tuple[StagedFile, ...]:
    """The staged files, from their own records, whichever process has them open."""
    found = []
    for folder, name, path in stage_files(layout.staged):
        try:
            fd = open_regular(path)
        except (OSError, Damaged):  # it became a slice meanwhile
            continue
        try:
            size, record = os.fstat(fd), read_record(fd)
        except Damaged as error:
            record = StageRecord(0, 0, "", reason=str(error), refused=True)
        finally:
            os.close(fd)
        if record is None:
            record = StageRecord(size.st_mtime_ns, 0, "", reason="an earlier mount left it")
        if record.reason:
            found.append(StagedFile(f"{folder}/{name}", record.reason, record.began_ns, record.refused))
    return tuple(sorted(found, key=attrgetter("path")))


def rejected_files(layout: WorkingLayout) -> tuple[Rejected, ...]:
    """The records of ``rejected.json``: ``{"rejected": [{"path": …, "reason": …, "time_ns": …}, …]}``."""
    try:
        listed = read_json(layout.rejected).get("rejected")
    except VolfsError:
        return ()
    return tuple(
        Rejected(str(each.get("path")), str(each.get("reason")), _whole(each.get("time_ns")))
        for each in (listed if isinstance(listed, list) else ())
        if isinstance(each, dict)
    )


def forget_staged(layout: WorkingLayout, prefix: str) -> int:
    """Drop the files staged at and below a path from the branch on ("" is all), and those rejected there; how many.

    The caller holds the branch's lock, and has none of them open.
    """
    count = 0
    for folder, name, path in stage_files(layout.staged):
        if _within(f"{folder}/{name}", prefix):
            unlink_durably(path)
            count += 1
    rejected = rejected_files(layout)
    rest = [each for each in rejected if not _within(each.path, prefix)]
    if not rest:
        unlink_durably(layout.rejected)  # which needs no space
        count += len(rejected)
    elif len(rest) < len(rejected):
        kept = [{"path": each.path, "reason": each.reason, "time_ns": each.time_ns} for each in rest]
        write_json(layout.rejected, {"rejected": kept})
        count += len(rejected) - len(rest)
    return count


def _within(path: str, prefix: str) -> bool:
    return not prefix or covers(prefix, path)


def _whole(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**63 else 0
