"""A combination as a snapshot, before it is a version: what coarser levels are computed from.

Decided here: metadata and merged chunks are read from a layer over ours, chunks taken over from theirs, and which
chunks count as changed. Not here: which coarse chunks are computed and which are taken (:mod:`volfs.volume.pyramid`).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from volfs.model.box import Box, Index
from volfs.model.touch import Rows, common_rows
from volfs.versions.combine.array_merge import ArrayOutcome
from volfs.versions.combine.chunk_states import ChunkStates
from volfs.versions.combine.combination import Combination
from volfs.versions.commit.frozen_state import FrozenState
from volfs.versions.committed.array import VersionArray
from volfs.versions.committed.version import Version
from volfs.versions.history import History
from volfs.versions.snapshot import ArrayNode, GroupNode, Snapshot, StoredPayload
from volfs.versions.working.branch_array import BranchArray
from volfs.versions.working.interpreter import Interpreter
from volfs.versions.working.union import Union


class CombinedState(FrozenState):
    """What will be committed. ``union``: the layer of a combination over ours."""

    def __init__(
        self,
        dataset: History[Snapshot],
        ref: str,
        union: Union,
        interpreter: Interpreter,
        combination: Combination,
    ) -> None:
        super().__init__(dataset, ref, union, interpreter)
        self._combination = combination
        self._states = ChunkStates(combination.digests)
        self._combined: dict[str, tuple[ArrayNode, CombinedArray]] = {}
        #: By hierarchy path: coarse chunks that become what theirs has, a row of coordinates each.
        self.taken: dict[str, Rows] = {}

    @property
    def theirs(self) -> Version | None:
        """The version whose changes come on top."""
        return self._combination.theirs

    def generation(self) -> Hashable:
        return super().generation(), len(self.taken)

    def node(self, path: str) -> ArrayNode | GroupNode | None:
        found = super().node(path)
        if not isinstance(found, BranchArray):
            return found
        known = self._combined.get(path)
        if known is None or known[0] is not found:
            versions = self._combination.others if self.theirs is None else (self.theirs,)
            theirs = [array for version in versions if (array := version.array(path)) is not None]
            outcome = self._combination.arrays.get(path)
            known = self._combined[path] = found, CombinedArray(found, theirs, outcome, self.taken)
        return known[1]

    def like_theirs(self, path: str, rows: Rows) -> NDArray[np.bool_]:
        """See :class:`~volfs.versions.snapshot.CombinedLevels`."""
        found, theirs = self.node(path), None if self.theirs is None else self.theirs.array(path)
        ours = None if self._combination.ours is None else self._combination.ours.array(path)
        like = self._states.same(path, rows, self._states.of(ours, rows), self._states.of(theirs, rows))
        if isinstance(found, CombinedArray):
            for more in found.from_theirs():
                like |= common_rows(rows, more)
            if put := found.put():
                like &= ~common_rows(rows, np.array(sorted(put), np.int64).reshape(len(put), -1))
        return like

    def take(self, path: str, chunks: Collection[Index]) -> None:
        """See :class:`~volfs.versions.snapshot.CombinedLevels`."""
        found = super().node(path)
        assert isinstance(found, ArrayNode), "a level is an array"
        self.taken[path] = np.array(sorted(chunks), np.int64).reshape(len(chunks), found.meta.ndim)


class CombinedArray(ArrayNode):
    """An array of which some chunks are what theirs has: those of its outcome, and those that are ``settled``, by path,
    later. Times of change are those that the layer tells of."""

    def __init__(
        self,
        under: BranchArray,
        theirs: Sequence[VersionArray],
        outcome: ArrayOutcome | None,
        settled: Mapping[str, Rows],
    ) -> None:
        self.snapshot, self.path, self.meta, self.mtime_ns = under.snapshot, under.path, under.meta, under.mtime_ns
        self._under, self._theirs, self._settled = under, theirs, settled
        self._nothing = np.zeros((0, self.meta.ndim), np.int64)
        self._taken = self._nothing if outcome is None else outcome.taken
        self._removed = self._nothing if outcome is None else outcome.removed

    def payloads(self, chunks: Box) -> dict[Index, StoredPayload]:
        found = dict(self._under.payloads(chunks))
        for rows in self.from_theirs():
            for coords in self._within(rows, chunks):
                payload = self._payload(coords)
                if payload is not None:
                    found[coords] = payload
                else:
                    found.pop(coords, None)
        return found

    def _payload(self, coords: Index) -> StoredPayload | None:
        """A chunk as theirs has it; of several, the one that a higher version changed."""
        newest = max(self._theirs, key=lambda array: array.changed_in(coords), default=None)
        return None if newest is None else newest.payload(coords)

    def from_theirs(self) -> tuple[Rows, ...]:
        """Chunks that are what theirs has, a row of coordinates each."""
        return self._taken, self._removed, self._settled.get(self.path, self._nothing)

    def put(self) -> set[Index]:
        """Chunks that are neither side's."""
        return self._under.changed()

    def settled(self) -> set[Index]:
        """Chunks of a coarser level that are what theirs has."""
        return set(map(tuple, self._settled.get(self.path, self._nothing).tolist()))

    def changed(self) -> set[Index]:
        """Chunks that may differ from ours, inside the grid or not."""
        rows = (*map(tuple, self._taken.tolist()), *map(tuple, self._removed.tolist()))
        return self._under.changed() | set(rows)

    def newest(self, axes: tuple[int, ...]) -> NDArray[np.int64]:
        return self._under.newest(axes)

    def newest_in(self, chunks: Box) -> int:
        return self._under.newest_in(chunks)

    @staticmethod
    def _within(rows: Rows, chunks: Box) -> list[Index]:
        if not len(rows):
            return []
        inside = (rows >= np.array(chunks.start)) & (rows < np.array(chunks.stop))
        return list(map(tuple, rows[inside.all(axis=1)].tolist()))
