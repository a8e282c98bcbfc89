"""The version that holds a combination: written, and made the head of its branch, or given up as a whole.

Decided here: the order in which an outcome is written, and that nothing of it exists before the branch's ref names it.
What was taken over is recorded, not copied. Not here: what is combined (:mod:`volfs.versions.combine.combination`), how
versions are written and published (:mod:`volfs.versions.commit`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volfs.model.graph import VersionInfo
from volfs.model.touch import Rows
from volfs.storage.crash import crash_point
from volfs.versions.combine.chunk_states import ChunkStates
from volfs.versions.combine.combination import Combination, IdRule, Progress, combine
from volfs.versions.combine.combined_state import CombinedState
from volfs.versions.combine.decisions import UNDECIDED, OpenConflict, Orders, Sides
from volfs.versions.combine.key_selection import ALL, Selection
from volfs.versions.combine.newest import combine_newest
from volfs.versions.commit.array_writer import ArrayWriter
from volfs.versions.commit.changeset import Packer
from volfs.versions.commit.frozen_state import Additions
from volfs.versions.commit.placement import publish_new, publish_prepared
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.commit.writable_history import WritableBranch, WritableHistory
from volfs.versions.keys import json_key, node_path_of_json
from volfs.versions.working.layer import scratch_name
from volfs.versions.working.union import Union


@dataclass(frozen=True, slots=True)
class Words:
    """What a version says of itself."""

    message: str
    author: str | None = None
    meta: Mapping[str, str] | None = None
    what: str = "combine"
    """What makes it, for the log of refs: the command."""


@dataclass(frozen=True, slots=True)
class Change:
    """What ``theirs`` has changed since ``bases``; versions by number, 0 for the empty one."""

    bases: tuple[int, ...]
    theirs: int
    selection: Selection = ALL


def sides_of(dataset: WritableHistory, change: Change, ours: int) -> Sides:
    """The versions that conflicts of a change with version ``ours`` are between."""

    def identity(number: int) -> str:
        return dataset.info(number).content_id if number else ""

    return Sides(tuple(map(identity, change.bases)), identity(ours), identity(change.theirs))


class CombinedChanges:
    """A combination on a branch that can become a version. Made by :func:`combined`."""

    def __init__(self, branch: WritableBranch, ours: int, additions: Additions, found: Combination) -> None:
        self._branch, self._ours, self._additions = branch, ours, additions
        self.found = found

    @property
    def empty(self) -> bool:
        """Whether ours stays as it is."""
        return self.found.empty and not self._additions.count

    def commit_aside(
        self, words: Words, extra_parents: Sequence[int], name: str, conflicts: Sequence[OpenConflict]
    ) -> VersionInfo:
        """Make it the first version of a new branch, with what is in conflict as ours has it. Conflict if there is
        such a branch."""
        with VersionWriter(self._branch.dataset, name, self._ours, extra_parents=extra_parents) as writer:
            self.write(writer)
            crash_point("combine.written")
            writer.prepare(
                words.message, words.author, meta=words.meta, conflicts=[each.to_json() for each in conflicts]
            )
            crash_point("combine.prepared")
            return publish_new(writer, name, f"{words.what} --on")

    def commit(self, words: Words, extra_parents: Sequence[int] = ()) -> VersionInfo:
        """Make it the branch's next version. The caller holds the branch's lock, and the branch stands at ours.

        Conflict if uncommitted changes are in the way; then, and after any other error, nothing has changed.
        """
        branch = self._branch
        with VersionWriter(branch.dataset, branch.ref, self._ours, extra_parents=extra_parents) as writer:
            self.write(writer)
            crash_point("combine.written")
            writer.prepare(words.message, words.author, meta=words.meta)
            crash_point("combine.prepared")
            info = publish_prepared(branch, writer.number, writer.draft.token, words.what)
            writer.placed()
        return info

    def write(self, writer: VersionWriter) -> None:
        """Write the outcome into a version on top of ours."""
        branch, found = self._branch, self.found
        union = Union((self._additions.layer,), found.ours)
        state = CombinedState(branch.dataset, branch.ref, union, branch.interpreter, found)
        derived = Additions(Path(scratch_name(branch.working.layout)))
        try:
            branch.derive(state, derived.put)
            Packer(Union((derived.layer, *union.layers), found.ours), branch.interpreter, writer).pack()
        finally:
            shutil.rmtree(derived.root, ignore_errors=True)
        for key, outcome in sorted(found.keys.items()):
            if node_path_of_json(key) is not None:
                continue  # it is in the layer
            if outcome.kind == "remove":
                writer.remove(key)
            elif outcome.kind == "put":
                writer.put(key, outcome.data, mode=outcome.mode)
            elif outcome.theirs is not None and outcome.theirs.entry.payload is not None:
                entry = outcome.theirs.entry
                sha256, owner = found.digests.of_key(key, entry)
                writer.take(
                    key, outcome.theirs.entry.payload, sha256, owner, mode=outcome.mode, mtime_ns=entry.mtime_ns
                )
        for folder, mode in found.folders.items():
            writer.set_mode(folder, mode & 0o777 or 0o755)
        for path, array in sorted(found.arrays.items()):
            self._take(writer, path, array.taken, array.changed, array.removed)
        states = ChunkStates(found.digests)
        for path, rows in sorted(state.taken.items()):
            theirs = None if found.theirs is None else found.theirs.array(path)
            ours = None if found.ours is None else found.ours.array(path)
            there, here = states.of(theirs, rows), states.of(ours, rows)
            other = ~states.same(path, rows, here, there)
            held = there["file"] >= 0
            taken = held & other
            self._take(writer, path, rows[taken], there["changed"][taken], rows[other & ~held])

    def _take(self, writer: VersionWriter, path: str, rows: Rows, changed: NDArray[np.int32], removed: Rows) -> None:
        if not len(rows) and not len(removed):
            return
        array = self._array(writer, path)
        removed = removed if not len(array) else _unsaid(array, removed)
        for lot in self.found.digests.taken(path, rows, changed):
            array.take(lot.records, lot.files, lot.pieces)
        if len(removed):
            array.remove_many(removed)

    def _array(self, writer: VersionWriter, path: str) -> ArrayWriter:
        array = writer.writing(path)
        if array is None:
            assert self.found.ours is not None, "an array that is new has metadata in the layer"
            raw = self.found.ours.read(json_key(path))
            array = writer.array(path, raw, created=False, chunks=np.zeros((0, 1), np.int64))
        return array


def _unsaid(array: ArrayWriter, removed: Rows) -> Rows:
    """Chunks of which nothing is said yet: a shrunk array has removed those that it no longer reaches."""
    rows = [row for row in removed.tolist() if not array.holds(tuple(row))]
    return np.array(rows, np.int64).reshape(len(rows), array.meta.ndim)


@contextmanager
def combined_newest(branch: WritableBranch, ours: int, others: Sequence[int]) -> Iterator[CombinedChanges]:
    """Lay versions over each other: each chunk and key from the highest version that changed it."""
    additions = Additions(Path(scratch_name(branch.working.layout)))
    try:
        found = combine_newest(branch.dataset, ours, others, additions.put)
        crash_point("combine.decided")
        yield CombinedChanges(branch, ours, additions, found)
    finally:
        shutil.rmtree(additions.root, ignore_errors=True)


@contextmanager
def combined(
    branch: WritableBranch,
    ours: int,
    change: Change,
    orders: Orders = UNDECIDED,
    progress: Progress = lambda done, total: None,
    ids: IdRule = "ignore",
) -> Iterator[CombinedChanges]:
    """Combine a change with version ``ours``. What is merged lies in a scratch layer until the block ends."""
    additions = Additions(Path(scratch_name(branch.working.layout)))
    try:
        found = combine(
            branch.dataset,
            change.bases,
            ours,
            change.theirs,
            additions.put,
            selection=change.selection,
            orders=orders,
            ids=ids,
            progress=progress,
        )
        crash_point("combine.decided")
        yield CombinedChanges(branch, ours, additions, found)
    finally:
        shutil.rmtree(additions.root, ignore_errors=True)
