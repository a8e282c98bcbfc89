"""Conflicts that a merge has left open, closed one by one.

Decided here: which voxels a side gives to a conflict, and what stays open. The version with the open conflicts is made
anew (:mod:`volfs.versions.combine.amendment`): its branch has one version, whatever was mended meanwhile.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from volfs.errors import BadInput, Conflict
from volfs.model.box import Box, Index
from volfs.model.graph import VersionInfo
from volfs.versions.combine.amendment import amendable, replaced
from volfs.versions.combine.array_merge import OUTSIDE, ArrayMerge, alike
from volfs.versions.combine.chunk_states import ChunkStates
from volfs.versions.combine.combination import NEW_IDS, Combination, combine
from volfs.versions.combine.combined_version import CombinedChanges, Words
from volfs.versions.combine.decisions import UNDECIDED, Choice, OpenConflict, Order, Sides, mask_box
from volfs.versions.combine.digests import Digests
from volfs.versions.combine.key_selection import ALL, Selection
from volfs.versions.commit.frozen_state import Additions
from volfs.versions.commit.protocol import settle_own
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.commit.writable_history import WritableBranch
from volfs.versions.keys import node_key, node_path
from volfs.versions.working.layer import scratch_name


def open_conflicts(branch: WritableBranch, head: VersionInfo) -> tuple[OpenConflict, ...]:
    """What the head of a branch has left open."""
    return tuple(map(OpenConflict.of_json, branch.dataset.conflicts(head.number)))


def resolve(
    branch: WritableBranch, choice: Choice, chosen: Sequence[str] = ()
) -> tuple[VersionInfo, tuple[OpenConflict, ...]]:
    """Close conflicts of the branch's head: all, or those at and below the keys or within the boxes that are chosen.

    ``ours``, ``theirs`` and ``base``: what is in conflict becomes what that version has; ``mine``: it stays as the
    branch has it now. Returns the head, and what is open still. The caller holds the lock.
    BadInput for what is not in conflict; Conflict while changes are uncommitted.
    """
    with branch.turn:
        settle_own(branch)
        branch.follow()
        head = amendable(branch)
        found = open_conflicts(branch, head)
        if not found:
            raise BadInput(f"v{head.number} of branch {branch.ref!r} has no open conflicts")
        if branch.working.look(lambda union: any(True for _ in union.changes())):
            raise Conflict(
                f"branch {branch.ref!r} has uncommitted changes: commit them first, which keeps the conflicts open"
            )
        orders = [Order.parse("ours", text) for text in chosen] or [Order("ours")]
        meant = [(each, [part for order in orders if (part := _part(each, order)) is not None]) for each in found]
        if not any(parts for _, parts in meant):
            these = "; ".join(map(str, found[:9]))
            raise BadInput(f"nothing of {', '.join(chosen)} is in conflict; these are: {these}")
        # Of a rebase, conflicts are between several versions: one after the other, as they came.
        for sides in dict.fromkeys(each.of for each, parts in meant if parts):
            work = _Resolving(branch, head, sides, choice)
            left: list[tuple[OpenConflict, list[Box]]] = []
            for conflict, parts in meant:
                if parts and conflict.of == sides:
                    left += ((each, []) for each in work.close(conflict, parts))
                else:
                    left.append((conflict, parts))
            meant, words = left, Words(head.message, head.author, what="resolve")
            conflicts = [each.to_json() for each, _ in meant]
            parents = head.parents if conflicts or sides is None else head.parents[:1]
            head = replaced(branch, head, words, conflicts, work.fill if work.changes else None, parents)
        return head, tuple(each for each, _ in meant)


_WHOLE = Box((), ())


def _part(conflict: OpenConflict, order: Order) -> Box | None:
    """The part of a conflict that an order is about; None if it is not. ``_WHOLE`` for what has no box."""
    if order.box is None:
        covered = order.key is None or order.holds(conflict.key)
        return (conflict.box or _WHOLE) if covered else None
    if conflict.box is None or conflict.box.ndim != order.box.ndim:
        return None
    part = conflict.box.intersect(order.box)
    return None if part.empty else part


class _Resolving:
    """Collects what becomes of the head's content. ``sides``: the versions that conflicts are between; None: the head's
    parents, as of a merge."""

    def __init__(self, branch: WritableBranch, head: VersionInfo, sides: Sides | None, choice: Choice) -> None:
        self._branch, self._choice = branch, choice
        dataset = branch.dataset
        self._head = dataset.version(head.number)
        if sides is None:
            first, second = head.parents[:2]
            ours, theirs, bases = first, second, dataset.graph.merge_bases(first, second)
        else:
            ours, theirs = (dataset.resolve(each) if each else 0 for each in (sides.ours, sides.theirs))
            bases = tuple(map(dataset.resolve, sides.bases))
        self._ours, self._theirs = (dataset.version(number) if number else None for number in (ours, theirs))
        self._bases = [dataset.version(number) for number in bases]
        self._digests = Digests(dataset)
        self._states = ChunkStates(self._digests)
        self._keys: list[str] = []
        self._blocks: list[tuple[OpenConflict, list[Box]]] = []

    @property
    def changes(self) -> bool:
        """Whether any content changes."""
        return bool(self._keys or self._blocks)

    def close(self, conflict: OpenConflict, parts: Sequence[Box]) -> list[OpenConflict]:
        """Note that parts of a conflict are decided; what is left of it."""
        if conflict.why.startswith(NEW_IDS) and self._choice != "mine":
            raise BadInput(f"{conflict.key}: give one side's labels other ids and say mine, or merge with --relabel")
        if conflict.why == OUTSIDE:
            return []  # there is nothing of it in the array, whatever is chosen
        if conflict.box is None:
            if self._choice != "mine":
                self._keys.append(conflict.key)
            return []
        if self._choice != "mine":
            self._blocks.append((conflict, list(parts)))
        if any(part.contains(conflict.box) for part in parts):
            return []
        if conflict.why:
            # Whole chunks: those that lie in the part are decided.
            merging, box = self._merging(conflict), conflict.box
            grid = merging.meta.grid
            boxes = [grid.chunk_box(coords) for coords in grid.iter(grid.chunks(box))]
            rest = [each.intersect(box) for each in boxes if not any(part.contains(each) for part in parts)]
            return [replace(conflict, box=each, voxels=each.size) for each in rest]
        return self._rest(conflict, parts)

    def _rest(self, conflict: OpenConflict, parts: Sequence[Box]) -> list[OpenConflict]:
        assert conflict.box is not None
        hull, count = None, 0
        merging = self._merging(conflict)
        for coords in merging.meta.grid.iter(merging.meta.grid.chunks(conflict.box)):
            mask = merging.conflict(coords).mask
            mask &= _chosen(mask.shape, merging.first(coords), [conflict.box])
            mask &= ~_chosen(mask.shape, merging.first(coords), parts)
            if mask.any():
                box = mask_box(mask, merging.first(coords))
                hull = box if hull is None else hull.hull(box)
                count += int(mask.sum())
        return [] if hull is None else [replace(conflict, box=hull, voxels=count)]

    def fill(self, writer: VersionWriter) -> None:
        """Write what changes, on top of the head."""
        branch, number = self._branch, self._head.number
        additions = Additions(Path(scratch_name(branch.working.layout)))
        try:
            found = Combination(self._head, None, self._digests)
            if self._keys:
                chosen = Selection(tuple(self._keys))
                found = combine(branch.dataset, (number,), number, self._side(), additions.put, selection=chosen)
            for conflict, parts in self._blocks:
                for key, data in self._mended(conflict, parts):
                    additions.put(key, data)
            CombinedChanges(branch, number, additions, found).write(writer)
        finally:
            shutil.rmtree(additions.root, ignore_errors=True)

    def _side(self) -> int:
        """The version that whole keys are taken from."""
        if self._choice != "base":
            version = self._ours if self._choice == "ours" else self._theirs
            return 0 if version is None else version.number
        if not self._bases:
            return 0
        if len(self._bases) > 1:
            raise BadInput("there is not one base, but several: choose ours, theirs, or mend it and say mine")
        return self._bases[0].number

    def _mended(self, conflict: OpenConflict, parts: Sequence[Box]) -> Iterator[tuple[str, bytes | None]]:
        """The chunks of an array with what the chosen side has of a conflict."""
        assert conflict.box is not None
        merging = self._merging(conflict)
        here = self._head.array(merging.path)
        if here is None:
            raise BadInput(f"{conflict.key} is no array any more: say mine")
        for coords in merging.meta.grid.iter(merging.meta.grid.chunks(conflict.box)):
            key = node_key(merging.path, merging.meta.chunk_key(coords))
            if conflict.why:
                if any(part.contains(merging.meta.grid.chunk_box(coords)) for part in parts):
                    yield key, self._payload(merging.path, coords)
                continue
            block = merging.conflict(coords)
            mask = block.mask & _chosen(block.mask.shape, merging.first(coords), parts)
            if not mask.any():
                continue
            if self._choice == "base" and block.base.odd is not None and (mask & block.base.odd).any():
                raise BadInput(f"{conflict}: there is not one base: choose ours, theirs, or mend it and say mine")
            side = {"ours": block.ours, "theirs": block.theirs, "base": block.base.voxels}[self._choice]
            payload = here.payload(coords)
            voxels = np.array(here.codec.filled() if payload is None else here.codec.decode(payload.read()))
            voxels[mask] = side[mask]
            yield key, here.codec.encode(voxels)

    def _payload(self, path: str, coords: Index) -> bytes | None:
        number = self._side()
        array = self._branch.dataset.version(number).array(path) if number else None
        payload = None if array is None else array.payload(coords)
        return None if payload is None else payload.read()

    def _merging(self, conflict: OpenConflict) -> ArrayMerge:
        path = node_path(conflict.key) or ""
        ours, theirs = (None if side is None else side.array(path) for side in (self._ours, self._theirs))
        if ours is None or theirs is None or not alike(ours.meta, theirs.meta):
            raise BadInput(f"{conflict.key} is not one array in ours and theirs: say mine")
        return ArrayMerge(path, self._bases, ours, theirs, ours.meta, self._states, ALL, UNDECIDED)


def _chosen(shape: Index, first: Index, parts: Sequence[Box]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """The voxels of a chunk, whose first is ``first``, that lie in any of some boxes."""
    mask = np.zeros(shape, np.bool_)
    whole = Box.whole(shape).shift(first)
    for part in parts:
        inside = part.intersect(whole)
        if not inside.empty:
            mask[inside.relative_to(first).slices()] = True
    return mask
