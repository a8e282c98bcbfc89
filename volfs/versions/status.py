"""What is not committed yet on a branch, and what stands in the way of committing it.

Decided here: how changes are counted by node, and what is left behind while somebody writes. Not here: what is held and
why (:mod:`volfs.versions.interpret`, :mod:`volfs.versions.changeset`), nor how this is shown (``views/documents``,
``cli``).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from volfs.errors import NotFound, VolfsError
from volfs.model.metadata import GroupMeta
from volfs.storage.files import read_json
from volfs.storage.layout import WorkingLayout
from volfs.versions.interpret import Interpreter, chunk_root
from volfs.versions.keys import node_key, node_path
from volfs.versions.snapshot import ArrayNode, Snapshot
from volfs.versions.union import View


@dataclass(frozen=True, slots=True)
class NodeChanges:
    """Keys put and removed in one place, and the bytes put. Where a directory was removed, every key below it counts
    that is not put again."""

    put: int = 0
    removed: int = 0
    bytes: int = 0


ActionKind = Literal["commit", "discard", "merge", "publish", "update"]


@dataclass(frozen=True, slots=True)
class Action:
    """A commit or another order, from its beginning to its outcome. Times in ns; ``error`` is one line."""

    kind: ActionKind
    message: str
    state: Literal["running", "done", "failed"]
    began_ns: int
    ended_ns: int | None = None
    version: int | None = None
    error: str | None = None
    error_kind: str | None = None

    @classmethod
    def begin(cls, kind: ActionKind, message: str) -> Action:
        return cls(kind, message, "running", time.time_ns())

    def done(self, version: int | None) -> Action:
        return replace(self, state="done", ended_ns=time.time_ns(), version=version)

    def failed(self, error: Exception) -> Action:
        return replace(self, state="failed", ended_ns=time.time_ns(), error=str(error), error_kind=type(error).__name__)

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


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
    because somebody has a file there open for writing. ``rejected``: slices that never decoded, as a mount recorded
    them. ``writer``: who else may write to the branch now. ``behind``: what keeps the changes from lying over the head.
    """

    branch: str
    head: int
    changes: Mapping[str, NodeChanges]
    held: tuple[tuple[str, str], ...] = ()
    left_behind: tuple[str, ...] = ()
    rejected: tuple[Mapping[str, Any], ...] = ()
    action: Action | None = None
    writer: str | None = None
    behind: Behind | None = None

    @property
    def clean(self) -> bool:
        """Whether the branch shows its base and nothing else."""
        return not self.changes

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
            "rejected": [dict(each) for each in self.rejected],
            "action": None if self.action is None else self.action.to_json(),
            "writer": self.writer,
        }


def count_changes(view: View, interpreter: Interpreter) -> dict[str, NodeChanges]:
    """Changes by place, sorted."""
    changes: dict[str, NodeChanges] = {}

    def add(place: str, put: int = 0, removed: int = 0, size: int = 0) -> None:
        was = changes.get(place, NodeChanges())
        changes[place] = NodeChanges(was.put + put, was.removed + removed, was.bytes + size)

    for change in view.changes():
        meaning = interpreter.meaning(view, change.key)
        folder = change.key.rpartition("/")[0]
        place = folder if meaning.path is None else node_key(meaning.path)
        if change.kind == "put":
            add(place, put=1, size=change.size)
        else:
            for where, count in _removed(view, change.key, place):
                add(where, removed=count)
    for folder, _ in view.folder_modes():
        add(folder.rpartition("/")[0], put=1)
    return dict(sorted(changes.items()))


def _removed(view: View, key: str, place: str) -> Iterable[tuple[str, int]]:
    """How many keys of the base are gone with ``key``, by place."""
    lower = view.lower
    assert lower is not None
    info = lower.stat(key)
    if info is None:
        return
    if info.kind == "file":
        yield place, 1
        return
    for gone in View((), lower).keys(key):
        entry = view.entry(gone)
        if entry is None or entry.kind == "dir":
            yield _place_in(lower, gone), 1


def _place_in(lower: Snapshot, key: str) -> str:
    folder = key.rpartition("/")[0]
    root = chunk_root(key)
    path = None if root is None else node_path(root)
    if path is not None and isinstance(lower.node(path), ArrayNode):
        return node_key(path)
    return folder


def left_behind(view: View, interpreter: Interpreter, written: Iterable[str]) -> frozenset[str]:
    """What a commit leaves in the working copy while these keys are open for writing.

    An array with a writer stays as a whole, with its metadata: a recording is committed when it is done. So does what
    is going to be an array, by the names of its chunks or because its metadata is being written. Any other file stays
    behind alone.
    """
    found = set()
    for key in written:
        if not key.startswith("zarr/"):
            found.add(key)
            continue
        meaning = interpreter.meaning(view, key)
        whole = meaning.kind in ("chunk", "orphan")
        if meaning.kind == "metadata" and meaning.path is not None:
            whole = not isinstance(interpreter.node(view, meaning.path), GroupMeta)
        found.add(node_key(meaning.path or "") if whole else key)
    return frozenset(found)


def rejected_slices(layout: WorkingLayout) -> tuple[Mapping[str, Any], ...]:
    """What mounts recorded in ``rejected.json``: ``{"rejected": [{"path": …, "reason": …, "time_ns": …}, …]}``."""
    try:
        listed = read_json(layout.rejected).get("rejected")
    except (NotFound, VolfsError):
        return ()
    return tuple(each for each in listed if isinstance(each, dict)) if isinstance(listed, list) else ()
