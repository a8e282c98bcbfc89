"""What differs between two states of a dataset: nodes, their metadata, side files, and chunks by their voxels.

Decided here: what is compared, and how little is read for it. The keys that may differ are those that the manifests
between two versions name, and those that a working copy changes; nothing else is looked at. Chunks of one address are
equal, whatever their array; of others the stored bytes are compared, and they are decoded only for voxels, only where
the bytes differ, and only when asked for. Not here: how differences are shown (``volfs diff``), or drawn.

Memory is bounded: chunks come one pair at a time, and what is counted of them is a few numbers and the commonest pairs
of labels.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from volfs.errors import Absent, BadMetadata, Damaged, Held, NotFound, Unsupported, WrongKind
from volfs.model.box import Box, Index
from volfs.model.metadata import ArrayMeta
from volfs.model.ngff import parse_multiscale
from volfs.model.touch import Touched
from volfs.versions.branch import Branch
from volfs.versions.commit.movement import moved
from volfs.versions.commit.overlap import WorkingSide
from volfs.versions.committed.array import VersionPayload
from volfs.versions.committed.version import Version
from volfs.versions.history import History
from volfs.versions.keys import NODE_JSON, node_key, node_path, parents
from volfs.versions.snapshot import ArrayNode, GroupNode, Snapshot, StoredPayload, slab_of

Progress = Callable[[int, int], object]
"""Called with the number of chunks that were compared, and of all."""
Change = Literal["added", "removed", "changed"]
AnyArray = NDArray[Any]

_TEXT = 1 << 20
"""Bytes of the longest side file that is compared by line."""
_PIECE = 1 << 20
_PAIRS = 1 << 16
"""Pairs of labels that are counted at a time."""


@dataclass(frozen=True, slots=True)
class ValueChange:
    """A member of JSON metadata that differs. ``name`` is its path (``attributes.ome.version``); None as ``old`` or
    ``new`` may also mean that it is not there: ``change`` tells."""

    name: str
    change: Change
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    """How many chunks of an array differ. ``box``: the voxels around them, None if there are none; ``bytes``: of the
    new payloads. Where the two arrays have other grids, their chunks are all counted as removed and added."""

    added: int
    removed: int
    changed: int
    bytes: int
    box: Box | None

    @property
    def total(self) -> int:
        return self.added + self.removed + self.changed


@dataclass(frozen=True, slots=True)
class VoxelCounts:
    """How the voxels of two arrays differ, where both have some. ``box`` is around those that differ; ``largest`` and
    ``mean`` are absolute differences, of the voxels that differ, None where voxels are no numbers or there are none.

    ``labels`` counts voxels by (old, new) of a label image, the commonest first; ``more_labels`` tells that there are
    pairs besides. ``unreadable``: why chunks could not be compared, by their coordinates.
    """

    count: int
    box: Box | None
    largest: float | None
    mean: float | None
    labels: Mapping[tuple[int, int], int] = field(default_factory=dict)
    more_labels: bool = False
    unreadable: Mapping[Index, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChunkDiff:
    """One chunk that differs. ``box`` counts voxels. Reading decodes."""

    coords: Index
    box: Box
    _old: ArrayNode | None
    _new: ArrayNode | None

    def old(self) -> AnyArray | None:
        """The voxels of the box before, None where the array had none of that shape."""
        return None if self._old is None else _voxels(self._old, self.box)

    def new(self) -> AnyArray | None:
        """The voxels of the box now."""
        return None if self._new is None else _voxels(self._new, self.box)


class Difference:
    """One node or side file that differs, by its ``key``."""

    key: str
    change: Change


class NodeDiff(Difference):
    """A group or an array that differs. ``old`` and ``new`` are its states, None where it is not there; ``metadata`` is
    what its ``zarr.json`` says otherwise."""

    def __init__(
        self, key: str, old: ArrayNode | GroupNode | None, new: ArrayNode | GroupNode | None, part: _Part, diff: Diff
    ) -> None:
        self.key = key
        self.path = node_path(key) or ""
        self.old = old
        self.new = new
        self.change: Change = "added" if old is None else "removed" if new is None else "changed"
        self._part = part
        self._diff = diff
        self._counts: ChunkCounts | None = None

    @property
    def is_array(self) -> bool:
        return isinstance(self.old, ArrayNode) or isinstance(self.new, ArrayNode)

    @property
    def is_label(self) -> bool:
        """Whether it is an array of a label image."""
        return self.is_array and self._diff.is_label(self.path)

    @property
    def metadata(self) -> list[ValueChange]:
        """The members of ``zarr.json`` that differ."""
        return self._diff.metadata_of(self.key)

    @property
    def comparable(self) -> bool:
        """Whether voxels of both can be compared: arrays of one data type and number of axes, which volfs decodes."""
        old, new = self.old, self.new
        return (
            isinstance(old, ArrayNode)
            and isinstance(new, ArrayNode)
            and old.meta.dtype == new.meta.dtype
            and old.meta.ndim == new.meta.ndim
            and old.readable
            and new.readable
        )

    def counts(self) -> ChunkCounts:
        """How many chunks differ. Decodes nothing."""
        if self._counts is None:
            self._counts = self._count()
        return self._counts

    def chunks(self) -> Iterator[ChunkDiff]:
        """The chunks that differ, in C order by their first coordinate. Nothing is decoded until their voxels are asked
        for."""
        for coords, array, _, _ in self._pairs():
            box = array.meta.grid.chunk_box(coords)
            old, new = (one if isinstance(one, ArrayNode) else None for one in (self.old, self.new))
            yield ChunkDiff(coords, box, old if self.comparable else None, new if self.comparable else None)

    def voxels(self, progress: Progress = lambda done, total: None) -> VoxelCounts:
        """How the voxels differ. Decodes the chunks whose bytes differ, one pair at a time."""
        tally = _Tally(self.is_label)
        if not self.comparable:
            return tally.counts()
        old, new = self.old, self.new
        assert isinstance(old, ArrayNode) and isinstance(new, ArrayNode)
        both = Box((0,) * new.meta.ndim, tuple(min(a, b) for a, b in zip(old.meta.shape, new.meta.shape, strict=True)))
        aligned = _aligned(old.meta, new.meta)
        counts = self.counts()
        total = counts.added + counts.removed + counts.changed
        for done, (coords, array, one, other) in enumerate(self._pairs()):
            progress(done, total)
            if not aligned and array is old:
                continue  # each voxel once: by the chunks of the new array
            box = array.meta.grid.chunk_box(coords).intersect(both)
            if box.empty:
                continue
            try:
                if aligned:
                    before, after = _decoded(old, coords, one), _decoded(new, coords, other)
                    inside = box.relative_to(array.meta.grid.chunk_box(coords).start).slices()
                    before, after = before[inside], after[inside]
                else:
                    before, after = _voxels(old, box), _voxels(new, box)
            except (Absent, Damaged, Held, NotFound, Unsupported) as error:
                tally.unreadable[coords] = str(error)
                continue
            tally.add(box, before, after)
        return tally.counts()

    # -- inside -------------------------------------------------------------------------------------------------

    def _count(self) -> ChunkCounts:
        added = removed = changed = size = 0
        hull: Box | None = None
        aligned = _aligned(*(one.meta if isinstance(one, ArrayNode) else None for one in (self.old, self.new)))
        for coords, array, one, other in self._pairs():
            gone = other is None or (not aligned and array is self.old)
            fresh = not gone and (one is None or not aligned)
            added, removed, changed = added + fresh, removed + gone, changed + (not gone and not fresh)
            size += 0 if gone or other is None else other.size
            box = array.meta.grid.chunk_box(coords)
            hull = box if hull is None else hull.hull(box)
        return ChunkCounts(added, removed, changed, size, hull)

    def _pairs(self) -> Iterator[tuple[Index, ArrayNode, StoredPayload | None, StoredPayload | None]]:
        """(coordinates, the array whose they are, old payload, new payload) of each chunk that differs."""
        old, new = (one if isinstance(one, ArrayNode) else None for one in (self.old, self.new))
        if old is not None and new is not None and not _aligned(old.meta, new.meta):
            whole = _Part(prefixes=[_WHOLE])
            yield from ((coords, old, payload, None) for coords, payload, _ in whole.payloads(old, None))
            yield from ((coords, new, None, payload) for coords, _, payload in whole.payloads(None, new))
            return
        array = new if new is not None else old
        if array is None:
            return
        same_bytes = old is not None and new is not None and _reads_alike(old.meta, new.meta)
        for coords, one, other in self._part.payloads(old, new):
            if not (same_bytes and _same_payload(one, other)):
                # A chunk beyond the edge of the smaller array is one of the other alone.
                yield coords, array if array.meta.grid.holds(coords) or old is None else old, one, other


class FileDiff(Difference):
    """A side file, or another key that is no node and no chunk, that differs."""

    def __init__(self, key: str, change: Change, diff: Diff) -> None:
        self.key = key
        self.change = change
        self._diff = diff

    def lines(self) -> list[str] | None:
        """The lines of a unified diff, without line breaks; None unless both are text of at most 1 MiB. Empty where
        only permission bits differ."""
        texts = []
        for snapshot in (self._diff.a, self._diff.b):
            raw = _small(snapshot, self.key)
            if raw is None or b"\0" in raw:
                return None
            try:
                texts.append(raw.decode())
            except UnicodeDecodeError:
                return None
        names = [("/dev/null" if self.change == gone else f"{side}/{self.key}") for side, gone in _SIDES]
        before, after = (text.splitlines() for text in texts)
        return list(difflib.unified_diff(before, after, names[0], names[1], lineterm=""))


_SIDES: tuple[tuple[str, Change], ...] = (("a", "added"), ("b", "removed"))


class Diff:
    """What differs between the snapshots ``a`` (None: nothing is there) and ``b``, among the keys touched. Iterate over
    it: side files and nodes, by key."""

    def __init__(self, a: Snapshot | None, b: Snapshot | None, touched: Touched) -> None:
        self.a = a
        self.b = b
        self._touched = touched

    def __iter__(self) -> Iterator[NodeDiff | FileDiff]:
        parts = self._parts()
        keys = self._keys(parts)
        for key in sorted({*parts, *keys}):
            if key in parts:
                found = self._node(key, parts[key])
                if found is not None:
                    yield found
            elif (change := self._file_change(key)) is not None:
                yield FileDiff(key, change, self)

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    def is_label(self, path: str) -> bool:
        """Whether the array at a hierarchy path belongs to a label image."""
        for snapshot in (self.b, self.a):
            if snapshot is None:
                continue
            node = snapshot.node(path.rpartition("/")[0]) if path else None
            if isinstance(node, GroupNode):
                try:
                    image = parse_multiscale(node.attributes)
                except BadMetadata:
                    continue
                if image is not None:
                    return image.is_label
        return False

    def metadata_of(self, key: str) -> list[ValueChange]:
        """The members of the ``zarr.json`` in a directory that differ."""
        documents = []
        for snapshot in (self.a, self.b):
            raw = _small(snapshot, f"{key}/{NODE_JSON}")
            try:
                documents.append(json.loads(raw) if raw else {})
            except ValueError:
                documents.append({"": raw.decode("utf-8", "replace") if raw else ""})
        return list(value_changes(documents[0], documents[1]))

    # -- inside -------------------------------------------------------------------------------------------------

    def _parts(self) -> dict[str, _Part]:
        """The directories of nodes that may differ, and of arrays the chunks."""
        touched = self._touched
        parts: dict[str, _Part] = {}
        whole = set(touched.arrays)
        whole |= {folder for tree in touched.trees for folder in self._nodes_below(tree)}
        for key in touched.keys:
            folder, _, name = key.rpartition("/")
            if name == NODE_JSON and node_path(folder) is not None:
                parts[folder] = _Part()
        for folder, rows in touched.chunks.items():
            parts[folder] = _Part(rows, touched.regions.get(folder, ()))
        for folder, prefixes in touched.regions.items():
            parts.setdefault(folder, _Part(prefixes=prefixes))
        for folder in whole:
            parts[folder] = _Part(prefixes=[_WHOLE])
        for folder in list(parts):  # an array that is another one than before differs as a whole
            if any(above in touched.trees for above in (folder, *parents(folder))):
                parts[folder] = _Part(prefixes=[_WHOLE])
        return parts

    def _nodes_below(self, tree: str) -> set[str]:
        found: set[str] = set()
        path = node_path(tree)
        for snapshot in (self.a, self.b) if path is not None else ():
            todo = [path]
            while todo and snapshot is not None:
                at = todo.pop()
                assert at is not None
                if snapshot.node(at) is not None:
                    found.add(node_key(at))
                todo += [f"{at}/{name}" if at else name for name in snapshot.children(at)]
        return found

    def _keys(self, parts: Mapping[str, _Part]) -> set[str]:
        """The keys that may differ and are neither chunks nor metadata of nodes that are told of."""
        keys = set(self._touched.keys)
        for tree in self._touched.trees:
            for snapshot in (self.a, self.b):
                if snapshot is not None:
                    keys |= set(_files_below(snapshot, tree))
        return {key for key in keys if not self._is_of_node(key, parts)}

    def _is_of_node(self, key: str, parts: Mapping[str, _Part]) -> bool:
        if not key.startswith("zarr/"):
            return False
        folder, _, name = key.rpartition("/")
        if name == NODE_JSON and folder in parts:
            return any(s is not None and s.node(node_path(folder) or "") is not None for s in (self.a, self.b))
        for above in parents(key):
            for snapshot in (self.a, self.b):
                node = snapshot.node(node_path(above) or "") if snapshot is not None else None
                if isinstance(node, ArrayNode) and node.meta.parse_chunk_key(key[len(above) + 1 :]) is not None:
                    return True
        return False

    def _node(self, key: str, part: _Part) -> NodeDiff | None:
        path = node_path(key) or ""
        old, new = (None if snapshot is None else snapshot.node(path) for snapshot in (self.a, self.b))
        if old is None and new is None:
            return None
        found = NodeDiff(key, old, new, part, self)
        if found.change != "changed" or found.metadata:
            return found
        return found if found.is_array and next(found._pairs(), None) is not None else None

    def _file_change(self, key: str) -> Change | None:
        infos = []
        for snapshot in (self.a, self.b):
            info = None if snapshot is None else snapshot.stat(key)
            infos.append(None if info is None or info.kind == "dir" else info)
        old, new = infos
        if old is None or new is None:
            return None if old is new else "added" if old is None else "removed"
        if (old.size, old.mode) != (new.size, new.mode):
            return "changed"
        if old.version and old.version == new.version:
            return None
        assert self.a is not None and self.b is not None
        same = all(
            self.a.read(key, at, _PIECE) == self.b.read(key, at, _PIECE) for at in range(0, max(1, old.size), _PIECE)
        )
        return None if same else "changed"


class _Part:
    """The chunks of an array that may differ: rows of coordinates, those that begin with a prefix, or all (the prefix
    without coordinates)."""

    def __init__(self, rows: NDArray[np.int64] | None = None, prefixes: Iterable[Index] = ()) -> None:
        self._rows = rows
        self._prefixes = sorted(set(prefixes))

    def payloads(
        self, old: ArrayNode | None, new: ArrayNode | None
    ) -> Iterator[tuple[Index, StoredPayload | None, StoredPayload | None]]:
        """Coordinates and payloads, each chunk once. Those that neither array stores are left out."""
        for row in () if self._rows is None else self._rows.tolist():
            coords = tuple(row)
            if not self._covered(coords, self._prefixes):
                yield from _payloads(old, new, Box(coords, tuple(i + 1 for i in coords)))
        for number, prefix in enumerate(self._prefixes):
            if self._covered(prefix, self._prefixes[:number]):
                continue
            first: set[int] = set()
            boxes = [_below(one, prefix) for one in (old, new)]
            for one, box in zip((old, new), boxes, strict=True):
                if one is not None and box is not None:
                    first.update(one.indices(0, box))
            hull = boxes[0] if boxes[1] is None else boxes[1] if boxes[0] is None else boxes[0].hull(boxes[1])
            for index in sorted(first):
                assert hull is not None
                yield from _payloads(old, new, slab_of(hull, 0, index))

    @staticmethod
    def _covered(coords: Index, prefixes: Iterable[Index]) -> bool:
        return any(coords[: len(prefix)] == prefix for prefix in prefixes)


def _payloads(
    old: ArrayNode | None, new: ArrayNode | None, chunks: Box
) -> Iterator[tuple[Index, StoredPayload | None, StoredPayload | None]]:
    ours, theirs = ({} if one is None or one.meta.ndim != chunks.ndim else one.payloads(chunks) for one in (old, new))
    for coords in sorted(ours.keys() | theirs.keys()):
        yield coords, ours.get(coords), theirs.get(coords)


def _below(array: ArrayNode | None, prefix: Index) -> Box | None:
    """The chunks of an array whose coordinates begin with a prefix."""
    if array is None or len(prefix) > array.meta.ndim or array.meta.ndim == 0:
        return None
    grid = array.meta.grid.grid_shape
    free = len(prefix)
    box = Box((*prefix, *(0,) * (len(grid) - free)), (*(i + 1 for i in prefix), *grid[free:]))
    return box.intersect(Box.whole(grid))


_WHOLE: Index = ()


class _Tally:
    """Counts differing voxels, box by box."""

    def __init__(self, labels: bool) -> None:
        self._labels: dict[tuple[int, int], int] | None = {} if labels else None
        self._more = False
        self._count = 0
        self._box: Box | None = None
        self._largest: float | None = None
        self._sum = 0.0
        self.unreadable: dict[Index, str] = {}

    def add(self, box: Box, before: AnyArray, after: AnyArray) -> None:
        """Count the voxels of a box that differ. Two that are no numbers (NaN) are equal."""
        differ = differing(before, after)
        where = np.argwhere(differ)
        if not len(where):
            return
        hull = Box(tuple((where.min(axis=0) + box.start).tolist()), tuple((where.max(axis=0) + 1 + box.start).tolist()))
        self._box = hull if self._box is None else self._box.hull(hull)
        self._count += len(where)
        old, new = before[differ], after[differ]
        if self._labels is not None and old.dtype.kind in "iub":
            self._add_labels(self._labels, old, new)
        elif old.dtype.kind in "iubfc":
            wide = np.complex128 if old.dtype.kind == "c" else np.float64
            apart = np.abs(new.astype(wide) - old.astype(wide))
            apart = apart[np.isfinite(apart)]
            if len(apart):
                self._largest = max(self._largest or 0.0, float(apart.max()))
                self._sum += float(apart.sum())

    def _add_labels(self, labels: dict[tuple[int, int], int], old: AnyArray, new: AnyArray) -> None:
        pairs = np.empty(len(old), [("old", old.dtype), ("new", new.dtype)])
        pairs["old"], pairs["new"] = old, new
        found, counts = np.unique(pairs, return_counts=True)
        for (one, other), count in zip(found.tolist(), counts.tolist(), strict=True):
            pair = int(one), int(other)
            labels[pair] = labels.get(pair, 0) + count
        if len(labels) > 2 * _PAIRS:
            self._more = True
            for pair, _ in sorted(labels.items(), key=lambda item: item[1])[:-_PAIRS]:
                del labels[pair]

    def counts(self) -> VoxelCounts:
        labels = sorted((self._labels or {}).items(), key=lambda item: (-item[1], item[0]))
        mean = self._sum / self._count if self._largest is not None else None
        return VoxelCounts(self._count, self._box, self._largest, mean, dict(labels), self._more, dict(self.unreadable))


def differing(before: AnyArray, after: AnyArray) -> NDArray[np.bool_]:
    """The voxels that differ, of two arrays of one shape and type. NaN equals NaN."""
    found = before != after
    if before.dtype.kind in "fc":
        found &= ~(np.isnan(before) & np.isnan(after))
    return np.asarray(found, np.bool_)


def value_changes(old: Any, new: Any, name: str = "") -> Iterator[ValueChange]:
    """The members in which two JSON values differ, each by its path; a list is one value."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            inner = f"{name}.{key}" if name else key
            if key not in old:
                yield ValueChange(inner, "added", None, new[key])
            elif key not in new:
                yield ValueChange(inner, "removed", old[key], None)
            else:
                yield from value_changes(old[key], new[key], inner)
    elif json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):
        yield ValueChange(name, "changed", old, new)


def _aligned(old: ArrayMeta | None, new: ArrayMeta | None) -> bool:
    """Whether chunks of equal coordinates hold the same voxels of two arrays."""
    if old is None or new is None:
        return True
    return old.grid.chunk_shape == new.grid.chunk_shape and old.dtype == new.dtype


def _reads_alike(old: ArrayMeta, new: ArrayMeta) -> bool:
    """Whether equal bytes of a chunk are equal voxels, and a missing chunk is the same in both."""
    return old.same_storage(new) and old.fill_value.tobytes() == new.fill_value.tobytes()


def _same_payload(one: StoredPayload | None, other: StoredPayload | None) -> bool:
    """Whether two chunks have the same bytes. Reads them only if they lie apart and are of one length."""
    if one is None or other is None:
        return one is other
    if one.token == other.token:
        return True
    if one.size != other.size or not _may_be_equal(one, other):
        return False
    try:
        return one.read() == other.read()
    except Absent:
        return False  # nobody can tell any more


def _may_be_equal(one: StoredPayload, other: StoredPayload) -> bool:
    """Whether the checksums of two payloads, if both have one, are the same."""
    if isinstance(one, VersionPayload) and isinstance(other, VersionPayload):
        return one.payload.crc32c == other.payload.crc32c
    return True


def _decoded(array: ArrayNode, coords: Index, payload: StoredPayload | None) -> AnyArray:
    """The voxels of a chunk that lie inside the array."""
    codec = array.codec
    chunk = codec.filled() if payload is None else codec.decode(payload.read())
    box = array.meta.grid.chunk_box(coords)
    whole: AnyArray = chunk[Box.whole(box.shape).slices()]
    return whole


def _voxels(array: ArrayNode, box: Box) -> AnyArray:
    """The voxels of a box of an array."""
    grid = array.meta.grid
    out = np.full(box.shape, array.meta.fill_value, array.meta.dtype)
    for coords, payload in array.payloads(grid.chunks(box)).items():
        chunk = grid.chunk_box(coords)
        both = chunk.intersect(box)
        out[both.relative_to(box.start).slices()] = _decoded(array, coords, payload)[
            both.relative_to(chunk.start).slices()
        ]
    return out


def _small(snapshot: Snapshot | None, key: str) -> bytes | None:
    """The bytes of a file of at most 1 MiB; b"" where there is none, None for a longer one or a link."""
    if snapshot is None:
        return b""
    try:
        info = snapshot.stat(key)
        if info is None or info.kind == "dir":
            return b""
        return None if info.size > _TEXT or info.is_link else snapshot.read(key)
    except (NotFound, WrongKind):
        return b""


def _files_below(snapshot: Snapshot, key: str) -> Iterator[str]:
    info = snapshot.stat(key)
    if info is None:
        return
    if info.kind != "dir":
        yield key
        return
    path = node_path(key)
    array = None if path is None else snapshot.node(path)
    for name, inner in snapshot.list(key):
        below = f"{key}/{name}"
        if isinstance(array, ArrayNode) and inner.kind == "dir":
            continue  # directories of chunks, which may be many
        if inner.kind == "dir":
            yield from _files_below(snapshot, below)
        else:
            yield below


def touched_between(dataset: History[Version], old: int, new: int) -> Touched:
    """The keys in which two versions may differ."""
    return moved(dataset, old, new)


def touched_by(dataset: History[Version], old: int, branch: Branch) -> Touched:
    """The keys in which a branch, with its uncommitted changes, may differ from a version (0: from nothing)."""
    base = branch.base
    committed = moved(dataset, old, 0 if base is None else base.number)
    return committed | branch.working.look(lambda union: WorkingSide(union, branch.interpreter).touched(committed))
