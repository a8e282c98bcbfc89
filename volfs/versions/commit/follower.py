"""The base of a working copy follows the branch's head when that has moved.

Decided here: changes without conflict stay, and the base becomes the head by itself; a conflict keeps the base where it
is, and the branch is *behind* until each key is decided: ours stays over the new head, theirs drops the change. No
chunk is decided without an order. Not here: which changes overlap (:mod:`volfs.versions.commit.overlap`), and how
the base moves on disk (:meth:`WorkingCopy.follow`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from volfs.errors import BadInput, Conflict
from volfs.model.graph import VersionInfo
from volfs.model.metadata import ArrayMeta
from volfs.model.touch import Touched, covered
from volfs.storage.crash import crash_point
from volfs.versions.commit.movement import base_of, moved, versions_between
from volfs.versions.commit.overlap import CommittedSide, Overlap, WorkingSide, named, overlap
from volfs.versions.commit.writable_history import WritableBranch
from volfs.versions.keys import covers, node_path
from volfs.versions.snapshot import Snapshot
from volfs.versions.working.base_file import Base, Pin
from volfs.versions.working.status import Behind
from volfs.versions.working.union import FOLDER_MODE, Union

Side = Literal["ours", "theirs"]

_NOTED = 256
"""Up to this many chunks that moved are noted one by one, beyond it by their arrays."""


class Follower:
    """Moves the base of one branch to its head. Methods that change something need the branch's lock, and are called
    within :meth:`WorkingCopy.exclusive` or before the lock has been given to a caller."""

    def __init__(self, branch: WritableBranch) -> None:
        self._branch = branch
        self._moved: tuple[tuple[int, int], Touched] | None = None

    def behind(self) -> Behind | None:
        """The keys that keep the branch behind; None if it is not. Needs no lock."""
        head = self._branch.head
        base = self._branch.working.base.read()
        if base is None or base.on == Pin.of(head):
            return None

        def see(union: Union) -> Behind | None:
            if head is None or _being_committed(union):
                return None
            return self._describe(union, head, self._overlap(union, head, base).keys)

        return self._branch.working.look(see)

    def follow(self) -> Behind | None:
        """Move the base to the head, or return the keys in conflict."""
        branch, working = self._branch, self._branch.working
        base, head = working.base.read(), branch.head
        if base is None:
            if not working.pristine():  # as a volfs left it that wrote no base
                working.rest_on(head)
            return None
        if base.on == Pin.of(head) or head is None:
            self._moved = None
            return None
        union = working.union()
        if _being_committed(union):
            return None
        found = self._overlap(union, head, base)
        if found.keys:
            return self._describe(union, head, found.keys)
        newer = list(self._newer(union, head))
        working.follow(head, found.merged, newer, dict(self._modes(union, head)))
        self._moved = None
        return None

    def decide(self, side: Side, chosen: Sequence[str] = ()) -> None:
        """Decide the keys in conflict, all or those at and below the keys chosen: ours stay over the head, theirs drops
        ours.

        BadInput for a chosen key without a conflict. A decision may be repeated and, for chosen keys, reversed.
        """
        working = self._branch.working
        behind = self.follow()
        if behind is None:
            return
        base, head = working.base.read(), self._branch.head
        assert base is not None and head is not None
        decided = self._still_kept(head, base)
        for key in chosen:
            if any(covers(key, each) for each in (*behind.keys, *decided)):
                continue
            if side == "ours" or not self._is_theirs(key, head):
                raise BadInput(f"{key} is not in conflict; these keys are: {named(behind.keys)}")
        picked = [key for key in behind.keys if not chosen or covered(key, chosen)]
        if side == "theirs":
            again = [key for key in decided if covered(key, chosen)]
            if again:
                working.base.write(Base(base.on, Pin.of(head), decided.difference(again)))
            for key in (*picked, *again):
                working.discard(key)
                crash_point("update.dropped")
        else:
            for key in picked:
                if self._is_array(key, head):
                    working.keep(key)
            crash_point("update.kept")
            working.base.write(Base(base.on, Pin.of(head), decided.union(picked)))
        self.follow()

    # -- inside -------------------------------------------------------------------------------------------------

    def _movement(self, one: int, other: int) -> Touched:
        known = self._moved
        if known is None or known[0] != (one, other):
            known = self._moved = (one, other), moved(self._branch.dataset, one, other)
        return known[1]

    def _overlap(self, union: Union, head: VersionInfo, base: Base) -> Overlap:
        found = self._overlap_with(union, self._movement(union.base_number, head.number), head)
        kept = self._still_kept(head, base)
        return replace(found, keys=frozenset(key for key in found.keys if not covered(key, kept)))

    def _overlap_with(self, union: Union, movement: Touched, head: VersionInfo) -> Overlap:
        base = base_of(union)
        theirs = CommittedSide(base, self._branch.dataset.version(head.number), movement)
        return overlap(base, WorkingSide(union, self._branch.interpreter), theirs)

    def _still_kept(self, head: VersionInfo, base: Base) -> frozenset[str]:
        """The keys decided to stay; of a decision about an older head, those that have not moved again since."""
        if base.head is None or base.head == Pin.of(head):
            return base.kept
        graph = self._branch.dataset.graph
        if base.head.version not in graph or Pin.of(graph.info(base.head.version)) != base.head:
            return frozenset()
        movement = self._movement(base.head.version, head.number)
        again = self._branch.working.look(lambda union: self._overlap_with(union, movement, head)).keys
        return frozenset(key for key in base.kept if not any(covers(key, k) or covers(k, key) for k in again))

    def _is_theirs(self, key: str, head: VersionInfo) -> bool:
        """True if keys at or below ``key`` moved and none is changed here, as after a decision for ``theirs``."""

        def see(union: Union) -> bool:
            movement = self._movement(union.base_number, head.number)
            moved_there = movement.at_or_below(key) or movement.covers(key) or covered(key, movement.folders)
            return moved_there and not any(covers(key, each.key) or covers(each.key, key) for each in union.changes())

        return self._branch.working.look(see)

    def _describe(self, union: Union, head: VersionInfo, keys: Iterable[str]) -> Behind:
        count = len(versions_between(self._branch.dataset.graph, union.base_number, head.number))
        return Behind(union.base_number, head.number, count, tuple(sorted(keys)))

    def _newer(self, union: Union, head: VersionInfo) -> Iterator[str]:
        """Keys and directories, of those that views are made from, that read differently over the new head."""
        movement, other = self._movement(union.base_number, head.number), self._branch.dataset.version(head.number)
        yield from movement.arrays
        yield from movement.trees
        for folder in movement.folders - movement.arrays:
            array = other.array(node_path(folder) or "")
            rows = movement.chunks.get(folder)
            if array is None or rows is None or len(rows) > _NOTED or folder in movement.regions:
                yield folder
            else:
                yield from (f"{folder}/{array.meta.chunk_key(row)}" for row in rows.tolist())

    def _modes(self, union: Union, head: VersionInfo) -> Iterator[tuple[str, int]]:
        """Directories of side files that the working copy has as the base has them, and the head with other permission
        bits."""
        lower, other = union.lower, self._branch.dataset.version(head.number)
        for layer in union.layers:
            for folder in layer.folders("files"):
                found = layer.stat(folder)
                if isinstance(found, os.stat_result):
                    was, now = _folder_mode(lower, folder), _folder_mode(other, folder)
                    if stat.S_IMODE(found.st_mode) == was != now:
                        yield folder, now

    def _is_array(self, key: str, head: VersionInfo) -> bool:
        """True for a key in conflict that is the directory of an array that is described anew."""
        path = node_path(key)
        if path is None:
            return False
        branch = self._branch
        here = branch.working.look(lambda union: branch.interpreter.node(union, path))
        return isinstance(here, ArrayMeta) or branch.dataset.version(head.number).array(path) is not None


def refusal(branch: WritableBranch, behind: Behind) -> Conflict:
    """The error of a commit to a branch that is behind. It names the keys in the way."""
    where = f"{branch.dataset.name}@{branch.ref}"
    over = f"v{behind.base}" if behind.base else "no version"
    return Conflict(
        f"branch {branch.ref!r} is behind: v{behind.head} and the uncommitted changes over {over} changed the same"
        f" keys: {named(behind.keys)}. Decide with `volfs update {where} --ours` or `--theirs`, or by writing ours or"
        " theirs into .volfs/update; nothing was committed"
    )


def _being_committed(union: Union) -> bool:
    """True while a commit is under way: the head may be the version that a frozen layer has just become."""
    return any(layer.frozen is not None for layer in union.layers)


def _folder_mode(snapshot: Snapshot | None, folder: str) -> int:
    info = None if snapshot is None else snapshot.stat(folder)
    return (info.mode if info is not None and info.kind == "dir" else 0) or FOLDER_MODE
