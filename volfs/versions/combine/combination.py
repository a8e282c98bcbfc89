"""Combining: what ``theirs`` has changed since the bases, on top of ``ours``, for every node.

Decided here: the order (metadata, then chunks), that an array whose two sides read their chunks differently is taken or
refused whole, and what of it is left to be computed. Nothing is written here: merged chunks and metadata are handed to
a layer. Not here: keys (:mod:`volfs.versions.combine.key_merge`), chunks (:mod:`volfs.versions.combine.array_merge`),
and the version that comes of it (:mod:`volfs.versions.combine.combined_version`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from volfs.errors import BadMetadata
from volfs.model.box import Index
from volfs.model.metadata import ArrayMeta
from volfs.model.ngff import parse_multiscale
from volfs.model.touch import Rows
from volfs.versions.combine.array_merge import ArrayMerge, ArrayOutcome, alike, is_same_array
from volfs.versions.combine.candidates import candidates, distance, keys_below, union_rows
from volfs.versions.combine.chunk_states import ChunkStates
from volfs.versions.combine.decisions import UNDECIDED, OpenConflict, Orders, gathered
from volfs.versions.combine.digests import Digests
from volfs.versions.combine.key_merge import (
    BOTH,
    REMOVED_HERE,
    REMOVED_THERE,
    KeyMerge,
    KeyOutcome,
    state_of,
    taken,
)
from volfs.versions.combine.key_selection import ALL, Selection
from volfs.versions.combine.label_ids import collision
from volfs.versions.committed.array import VersionArray
from volfs.versions.committed.version import Version, parse
from volfs.versions.history import History
from volfs.versions.keys import json_key, node_key, node_path_of_json, parents
from volfs.versions.snapshot import GroupNode

Put = Callable[[str, bytes | None], None]
"""Takes a key of the hierarchy and the bytes that it becomes, or None if it goes."""
IdRule = Literal["refuse", "relabel", "ignore"]
NEW_IDS = "both sides have made labels with the ids"
"""How a conflict of ids begins."""
Progress = Callable[[int, int], object]
"""Called with the number of chunks and keys that are done, and of all."""


@dataclass(slots=True)
class Combination:
    """The outcome. ``keys``: side files and objects, and metadata, that become other than ours has them. ``arrays``:
    chunks, by hierarchy path; those that were put into the layer are not among them. ``levels``: coarser levels that
    follow their image, of which no chunk was looked at. ``folders``: permission bits of directories.
    ``unmanaged``: images of several levels that volfs does not keep, merged as arrays."""

    ours: Version | None
    theirs: Version | None
    digests: Digests
    others: tuple[Version, ...] = ()
    """Of more than two versions all but ours; there is no ``theirs`` then."""
    keys: dict[str, KeyOutcome] = field(default_factory=dict)
    arrays: dict[str, ArrayOutcome] = field(default_factory=dict)
    levels: set[str] = field(default_factory=set)
    folders: dict[str, int] = field(default_factory=dict)
    conflicts: list[OpenConflict] = field(default_factory=list)
    unmanaged: set[str] = field(default_factory=set)
    renumbered: dict[str, dict[int, int]] = field(default_factory=dict)
    """Ids of theirs that became others, by hierarchy path of a label image."""

    @property
    def empty(self) -> bool:
        """Whether nothing of ours changes."""
        return not (self.keys or self.folders or any(self.arrays.values()))


def combine(
    dataset: History[Version],
    bases: Sequence[int],
    ours: int,
    theirs: int,
    put: Put,
    *,
    selection: Selection = ALL,
    orders: Orders = UNDECIDED,
    ids: IdRule = "ignore",
    progress: Progress = lambda done, total: None,
) -> Combination:
    """Combine versions (0: the empty one). Chunks that are merged by voxel, and metadata, are given to ``put``.

    ``ids``: what is made of ids of labels that both sides have given to new things: a conflict, fresh ones for theirs,
    or nothing, which looks for none.
    """
    return _Combining(dataset, bases, ours, theirs, put, selection, orders, ids, progress).run()


class _Combining:
    def __init__(
        self,
        dataset: History[Version],
        bases: Sequence[int],
        ours: int,
        theirs: int,
        put: Put,
        selection: Selection,
        orders: Orders,
        ids: IdRule,
        progress: Progress,
    ) -> None:
        def version(number: int) -> Version | None:
            return dataset.version(number) if number else None

        self._bases = [dataset.version(base) for base in bases if base]
        self._ours, self._theirs = version(ours), version(theirs)
        self._put, self._selection, self._orders, self._progress = put, selection, orders, progress
        self._dataset, self._ids = dataset, ids
        self._done = self._total = 0
        digests = Digests(dataset)
        self._states = ChunkStates(digests)
        self._keys = KeyMerge(self._bases, self._ours, self._theirs, digests, orders)
        self._found = Combination(self._ours, self._theirs, digests)
        pairs = [(base.number, theirs) for base in self._bases]
        # In what is the same at ours and theirs, or at theirs and all bases, nothing changes: the shorter way counts.
        if not pairs or distance(dataset, ours, theirs) <= sum(distance(dataset, *pair) for pair in pairs):
            self._candidates = [candidates(dataset, ours, theirs)]
        else:
            self._candidates = [candidates(dataset, *pair) for pair in pairs]

    def run(self) -> Combination:
        chunks: dict[str, list[Rows]] = {}
        keys: set[str] = set()
        folders: set[str] = set()
        arrays: set[str] = set()
        for found in self._candidates:
            keys |= found.keys
            folders |= found.folders
            arrays |= found.arrays
            for path, rows in found.chunks.items():
                chunks.setdefault(path, []).append(rows)
        paths = {each for key in keys if (each := node_path_of_json(key)) is not None} | arrays | chunks.keys()
        paths = {path for path in paths if any(self._at(path)) or any(b.array(path) for b in self._bases)}
        left = sorted(key for key in keys if node_path_of_json(key) not in paths and self._selection.holds(key))
        whole = {path: self._count_whole(path) if path in arrays else 0 for path in paths}
        sizes = {path: 1 + whole[path] + sum(map(len, chunks.get(path, ()))) for path in paths}
        self._total = len(left) + sum(sizes.values())
        for key in left:
            self._note(key, self._keys.outcome(key))
            self._tick()
        for path in sorted(paths):
            after = self._done + sizes[path]
            if self._selection.meets(node_key(path)) or any(
                key.startswith(f"{node_key(path)}/") for key in self._selection.keys
            ):
                self._array(path, chunks.get(path, []), path in arrays)
            self._tick(max(0, after - self._done))
        self._modes(folders)
        self._collisions()
        return self._found

    def _tick(self, count: int = 1) -> None:
        """Record that so many chunks or keys are done."""
        self._done = min(self._total, self._done + count)
        self._progress(self._done, self._total)

    def _count_whole(self, path: str) -> int:
        """How many chunks both sides have of an array that is looked at as a whole."""
        return sum(0 if array is None else len(array.stored_rows()) for array in self._at(path))

    # -- keys ---------------------------------------------------------------------------------------------------

    def _note(self, key: str, outcome: KeyOutcome) -> None:
        if outcome.kind == "open":
            self._found.conflicts.append(OpenConflict(key, outcome.why))
        elif outcome.kind != "keep":
            self._found.keys[key] = outcome
            if node_path_of_json(key) is not None and outcome.kind != "remove":
                self._put(key, outcome.data if outcome.theirs is None else outcome.theirs.read())
            elif node_path_of_json(key) is not None:
                self._put(key, None)

    def _modes(self, folders: Collection[str]) -> None:
        for folder in sorted(filter(self._selection.holds, folders)):
            base, ours, theirs = (
                _mode(version, folder) for version in (next(iter(self._bases), None), self._ours, self._theirs)
            )
            if theirs is not None and ours == base and theirs != base:
                self._found.folders[folder] = theirs

    def _collisions(self) -> None:
        """A file of one side where the other has a directory is a conflict."""
        puts = sorted(key for key, outcome in self._found.keys.items() if outcome.kind in ("take", "put"))
        names = set(puts)
        for key in puts:
            above = next((each for each in parents(key) if each in names or self._stays(each)), None)
            if above is not None or self._directory_stays(key):
                del self._found.keys[key]
                what = f"{above} is a file in ours" if above is not None else "a directory in ours, a file in theirs"
                self._found.conflicts.append(OpenConflict(key, what))

    def _stays(self, key: str) -> bool:
        outcome = self._found.keys.get(key)
        return state_of(self._ours, key) is not None and (outcome is None or outcome.kind != "remove")

    def _directory_stays(self, key: str) -> bool:
        entry = None if self._ours is None else self._ours.entry(key)
        if self._ours is None or entry is None or entry.kind != "dir":
            return False
        return any(self._stays(each) for each in keys_below(self._ours, key))

    # -- arrays -------------------------------------------------------------------------------------------------

    def _at(self, path: str) -> tuple[VersionArray | None, VersionArray | None]:
        return (
            None if self._ours is None else self._ours.array(path),
            None if self._theirs is None else self._theirs.array(path),
        )

    def _array(self, path: str, rows: list[Rows], entire: bool) -> None:
        ours, theirs = self._at(path)
        if ours is not None and theirs is not None and alike(ours.meta, theirs.meta):
            self._by_chunk(path, ours, theirs, rows, entire)
        else:
            self._as_a_whole(path, ours, theirs)

    def _by_chunk(self, path: str, ours: VersionArray, theirs: VersionArray, rows: list[Rows], entire: bool) -> None:
        key, meta = json_key(path), ours.meta
        if self._selection.holds(key):
            outcome = self._keys.outcome(key)
            parsed = parse(_bytes_of(outcome)) if outcome.kind in ("take", "put") else meta
            if isinstance(parsed, ArrayMeta) and alike(parsed, meta):
                self._note(key, outcome)
                meta = parsed
            else:  # two changes that make no array together
                self._note(key, self._keys.decided(key, state_of(self._theirs, key), BOTH))
                meta = self._meta_after(key, meta)
        if self._follows(path):
            self._found.levels.add(path)
            return
        if entire:
            rows = [*rows, ours.stored_rows(), theirs.stored_rows()]
        all_rows = union_rows(rows)
        if not len(all_rows) or all_rows.shape[1] != meta.ndim:
            return
        self._merge_chunks(path, ours, theirs, meta, all_rows)

    def _meta_after(self, key: str, ours: ArrayMeta) -> ArrayMeta:
        outcome = self._found.keys.get(key)
        parsed = None if outcome is None else parse(_bytes_of(outcome))
        return parsed if isinstance(parsed, ArrayMeta) else ours

    def _merge_chunks(self, path: str, ours: VersionArray, theirs: VersionArray, meta: ArrayMeta, rows: Rows) -> None:
        merging = ArrayMerge(path, self._bases, ours, theirs, meta, self._states, self._selection, self._orders)

        def put(coords: Index, data: bytes) -> None:
            self._put(node_key(path, meta.chunk_key(coords)), data)

        if self._ids != "ignore" and self._is_label(path, meta) and ours.readable:
            rows = union_rows([rows, self._check_ids(merging, path, ours)])
        outcome = merging.outcome(rows, put, self._tick)
        self._found.arrays[path] = outcome
        self._found.conflicts.extend(gathered(node_key(path), outcome.conflicts, meta.dimension_names))
        image = self._image_of(path)
        if outcome and image is not None:
            self._found.unmanaged.add(image)

    def _check_ids(self, merging: ArrayMerge, path: str, ours: VersionArray) -> Rows:
        """Find the ids that both sides have given to new things, and note a conflict, give theirs fresh ones, or have
        the labels of one side go. Answers with the chunks of which something may then go."""
        nothing = np.zeros((0, ours.meta.ndim), np.int64)
        assert self._ours is not None and self._theirs is not None
        rows = candidates(self._dataset, self._ours.number, self._theirs.number).chunks.get(path)
        if rows is None or rows.shape[1] != ours.meta.ndim:
            return nothing
        arrays = [array for base in self._bases if (array := base.array(path)) is not None]
        found = collision(merging, merging.differing(rows), [each for each in arrays if alike(each.meta, ours.meta)])
        if not found.ids:
            return nothing
        fresh = found.fresh(ours.meta.dtype) if self._ids == "relabel" else None
        if fresh is not None:
            merging.renumbered = fresh
            self._found.renumbered[path] = fresh
            return nothing
        winner = self._orders.of_key(node_key(path))
        if winner is not None:
            merging.lost = "theirs" if winner == "ours" else "ours", found.ids
            return rows
        listed = ", ".join(map(str, found.ids[:9])) + (
            f" and {len(found.ids) - 9:,} more" if len(found.ids) > 9 else ""
        )
        full = f", and {ours.meta.dtype} has no others left" if self._ids == "relabel" else ""
        self._found.conflicts.append(OpenConflict(node_key(path), f"{NEW_IDS} {listed}{full}"))
        return nothing

    def _is_label(self, path: str, meta: ArrayMeta) -> bool:
        """Whether an array is a label image, or the first level of one."""
        level = None if self._ours is None else _level_of(self._ours, path)
        if meta.dtype.kind not in "iu" or (level is not None and level.number):
            return False
        return (level is not None and level.is_label) or "labels" in (path if level is None else level.image).split(
            "/"
        )[:-1]

    def _as_a_whole(self, path: str, ours: VersionArray | None, theirs: VersionArray | None) -> None:
        """An array that only one side has, or that the two read differently."""
        key = json_key(path)
        if not self._selection.holds_node(path):
            if ours is not None or theirs is not None:
                why = "is another array in the two versions: it can only be taken as a whole"
                self._found.conflicts.append(OpenConflict(node_key(path), why))
            return
        if ours is None and theirs is None:
            self._note(key, self._keys.outcome(key))
            return
        here, there = self._as_base(path, self._ours, ours), self._as_base(path, self._theirs, theirs)
        if there:
            return
        if here:
            self._take_whole(path, ours, theirs)
            return
        why = (
            REMOVED_HERE if ours is None else REMOVED_THERE if theirs is None else "became another array on both sides"
        )
        match self._orders.of_key(node_key(path)):
            case "theirs":
                self._take_whole(path, ours, theirs)
            case None:
                self._found.conflicts.append(OpenConflict(node_key(path), why))

    def _as_base(self, path: str, side: Version | None, array: VersionArray | None) -> bool:
        """Whether one side has the array as the base has it. Several bases must agree."""
        key = json_key(path)
        for base in self._bases:
            before = base.array(path)
            if not is_same_array(before, array, self._states):
                return False
            if array is not None and not self._keys.same(state_of(base, key), state_of(side, key)):
                return False
        return bool(self._bases) or array is None

    def _take_whole(self, path: str, ours: VersionArray | None, theirs: VersionArray | None) -> None:
        key = json_key(path)
        self._note(key, taken(state_of(self._theirs, key)))
        if theirs is None:
            return
        if self._follows(path):
            self._found.levels.add(path)
            return
        rows = theirs.stored_rows()
        changed = self._states.of(theirs, rows)["changed"].astype(np.int32)
        nothing = np.zeros((0, theirs.meta.ndim), np.int64)
        self._found.arrays[path] = ArrayOutcome(rows, changed, nothing)

    # -- images -------------------------------------------------------------------------------------------------

    def _follows(self, path: str) -> bool:
        return follows([each for each in (self._ours, self._theirs) if each is not None], path)

    def _image_of(self, path: str) -> str | None:
        """The image of which an array is a coarser level."""
        level = None if self._ours is None else _level_of(self._ours, path)
        return level.image if level is not None and level.number else None


def follows(versions: Sequence[Version], path: str) -> bool:
    """Whether an array is a coarser level that volfs keeps equal to what its image's first level makes of it, in all
    versions that have it."""
    found = [level for version in versions if (level := _level_of(version, path)) is not None]
    return bool(found) and all(level.number > 0 and level.managed for level in found)


class _Level(NamedTuple):
    """The image that has an array as a level, which level that is, and whether volfs keeps the image's levels."""

    image: str
    number: int
    managed: bool
    is_label: bool


def _level_of(version: Version, path: str) -> _Level | None:
    """The image of which an array is a level; None for any other array."""
    above = path
    while above:
        above, _, _ = above.rpartition("/")
        group = version.node(above)
        if not isinstance(group, GroupNode):
            continue
        try:
            multiscale = parse_multiscale(group.attributes)
        except BadMetadata:
            continue
        if multiscale is None:
            continue
        paths = [f"{above}/{level.path}" if above else level.path for level in multiscale.levels]
        if path in paths:
            arrays = [version.array(each) for each in paths]
            types = {array.meta.dtype for array in arrays if array is not None and array.readable}
            managed = multiscale.managed and None not in arrays and len(types) == 1
            return _Level(above, paths.index(path), managed, multiscale.is_label)
    return None


def _bytes_of(outcome: KeyOutcome) -> bytes:
    return outcome.data if outcome.theirs is None else outcome.theirs.read()


def _mode(version: Version | None, folder: str) -> int | None:
    entry = None if version is None else version.entry(folder)
    return None if entry is None or entry.kind != "dir" else entry.mode
