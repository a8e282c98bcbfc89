"""Which payloads a part of a dataset has: those that a clone of it is to have, of all that its versions record.

Decided here: what depth, times, levels, boxes and paths mean, record by record. A payload that a version takes from
another one is where that has it, so it is wanted there; whatever name it has in either. Not here: how parts are written
(:mod:`volfs.versions.clone_parts`), and how payloads come (:mod:`volfs.versions.remotes.supplement`).

Metadata is always there, so all of this is told by what is here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from volfs.errors import BadInput, VolfsError
from volfs.model.bounded_map import BoundedMap
from volfs.model.box_name import axis_names
from volfs.model.graph import VersionGraph
from volfs.model.metadata import ArrayMeta
from volfs.model.ngff import Multiscale, parse_multiscale
from volfs.storage.manifest import NO_FILE, Manifest, Op
from volfs.storage.store_layout import ABSENT, parse_version_dir
from volfs.versions.clone_parts import Part, Span
from volfs.versions.committed.absences import Where, read_codes
from volfs.versions.committed.version import Version
from volfs.versions.committed.version_files import VersionFiles, read_manifest
from volfs.versions.keys import covers, node_key, node_path, parents
from volfs.versions.retention.roots import RetainedHistory
from volfs.versions.retention.shown import Shown
from volfs.versions.snapshot import ArrayNode, GroupNode

Rows = NDArray[np.intp]
Chosen = NDArray[np.bool_]

_KEPT = 8


@dataclass(frozen=True, slots=True)
class _Array:
    """An array of a version. ``axes``: their names; ``level``: which one of an image it is, and by how much its voxels
    are larger than those of s0; None for one of no image."""

    meta: ArrayMeta
    axes: tuple[str, ...]
    level: int | None = None
    factors: tuple[int, ...] = ()

    def spans(self, box: Mapping[str, Span], scaled: bool) -> list[Span | None]:
        """Of each axis what a box says, in voxels of this array."""
        factors = self.factors if scaled and self.factors else (1,) * len(self.axes)
        found = [box.get(name) for name in self.axes]
        return [
            None if span is None else (span[0] // f, -(-span[1] // f)) for span, f in zip(found, factors, strict=True)
        ]


@dataclass(slots=True)
class WantedPayloads:
    """The payloads of some parts of a dataset that were left out here. ``tips``: the versions that refs name, from
    which a depth counts.

    ``named`` collects which axes of boxes, and which paths, of the parts there are anywhere.
    """

    dataset: RetainedHistory
    parts: Sequence[Part]
    tips: Collection[int]
    named: set[str] = field(default_factory=set)
    _manifests: BoundedMap[int, Manifest] = field(default_factory=lambda: BoundedMap(_KEPT))
    _left: dict[int, Chosen | None] = field(default_factory=dict)

    def find(self, numbers: Iterable[int]) -> dict[int, Rows]:
        """The records, by the version whose they are: what these versions put or take, and is in a part."""
        found: dict[int, Chosen] = {}
        for part in self.parts:
            mine: dict[int, Chosen] = {}
            for number in numbers:
                self._note(part, number, mine)
            shown = self._shown(part) if part.by_version and mine else None
            for number, rows in mine.items():
                meant = rows if shown is None else shown(number, rows)
                found[number] = found[number] | meant if number in found else meant
        return {number: np.flatnonzero(rows) for number, rows in sorted(found.items()) if rows.any()}

    def check_named(self, part: Part) -> None:
        """BadInput if a part names an axis or a path that there is nowhere. After :meth:`find` in all versions."""
        for axis, _ in part.box:
            if f"axis {axis}" not in self.named:
                there = ", ".join(sorted(name.removeprefix("axis ") for name in self.named if name.startswith("axis ")))
                raise BadInput(
                    f"no array of dataset {self.dataset.name!r} has an axis {axis!r}: there is {there or 'none'}"
                )
        for path in part.paths:
            if f"path {path}" not in self.named:
                raise BadInput(f"no version of dataset {self.dataset.name!r} has anything at {path!r}")

    # -- what is left out -----------------------------------------------------------------------------------------

    def _manifest(self, number: int) -> Manifest:
        return self._manifests.get_or_make(number, lambda: read_manifest(VersionFiles.of(self.dataset.objects, number)))

    def _left_out(self, number: int) -> Chosen | None:
        """The records of a version whose payloads were left out; None if there are none."""
        if number not in self._left:
            self._left[number] = None
            files = VersionFiles.of(self.dataset.objects, number)
            if files.objects.stat(files.key(ABSENT)) is not None:
                rows = read_codes(files, self._manifest(number)) == Where.LEFT_OUT
                self._left[number] = rows if rows.any() else None
        return self._left[number]

    def _shown(self, part: Part) -> Callable[[int, Chosen], Chosen]:
        """Whether payloads of a version are shown by those that the part's depth and time keep."""
        kept = kept_versions(self.dataset.graph, part, self.tips)
        shown = Shown(self.dataset, self.dataset.graph.versions.keys() - kept)
        for number in sorted(self.dataset.graph.versions):
            shown.take_in(number)

        def of(number: int, rows: Chosen) -> Chosen:
            return rows if number in kept else shown.shows(number, self._manifest(number), rows)

        return of

    # -- what a part says of keys ---------------------------------------------------------------------------------

    def _note(self, part: Part, number: int, found: dict[int, Chosen]) -> None:
        """Note what was left out of the records that a version puts or takes and that the part means."""
        manifest = self._manifest(number)
        records, meant = manifest.records, self._meant(part, number, manifest)
        self._add(number, meant & (records["op"] == Op.PUT), found)
        takes = np.flatnonzero(meant & (records["op"] == Op.TAKE))
        by_owner: dict[int, list[int]] = {}
        for file in np.unique(records["file"][takes]).tolist():
            owner = parse_version_dir(manifest.strings[file].partition("/")[0])
            if owner is not None and owner in self.dataset.graph and self._left_out(owner) is not None:
                by_owner.setdefault(owner, []).append(file)
        for owner, files in by_owner.items():
            theirs = self._manifest(owner)
            at = {name: i for i, name in enumerate(theirs.strings)}
            table = np.full(len(manifest.strings), NO_FILE, np.uint32)
            table[files] = [at.get(manifest.strings[file], NO_FILE) for file in files]
            rows = takes[np.isin(records["file"][takes], files)]
            taken = _places(table[records["file"][rows]], records["offset"][rows])
            there = np.isin(_places(theirs.records["file"], theirs.records["offset"]), taken)
            self._add(owner, there & (theirs.records["op"] == Op.PUT), found)

    def _add(self, number: int, rows: Chosen, found: dict[int, Chosen]) -> None:
        left = self._left_out(number)
        if left is not None and (rows & left).any():
            found[number] = found.get(number, np.zeros(len(rows), np.bool_)) | (rows & left)

    def _meant(self, part: Part, number: int, manifest: Manifest) -> Chosen:
        records, version = manifest.records, self.dataset.version(number)
        payloads: Chosen = (records["op"] == Op.PUT) | (records["op"] == Op.TAKE)
        if not part.paths and not part.box and part.levels is None:
            return payloads
        keys = {path: path if path.partition("/")[0] in ("zarr", "files") else node_key(path) for path in part.paths}
        found = np.zeros(len(records), np.bool_)
        for path, rows in manifest.chunks():
            array = _array_at(version, path)
            if array is not None:
                coords = records["chunk"][rows][:, : array.meta.ndim].astype(np.int64)
                found[rows] = self._chunks_meant(part, keys, path, array, coords)
        arrays: dict[str, tuple[str, _Array] | None] = {}
        for row in np.flatnonzero(payloads & (records["ndim"] == 0)).tolist():
            found[row] = self._key_meant(part, keys, version, manifest.strings[records["name"][row]], arrays)
        found &= payloads
        return found

    def _chunks_meant(
        self, part: Part, keys: Mapping[str, str], path: str, array: _Array, coords: NDArray[np.int64]
    ) -> Chosen:
        folder = node_key(path)
        chosen = np.ones(len(coords), np.bool_)
        exact = False
        if keys:
            chosen[:] = False
            for name, key in keys.items():
                if covers(key, folder):
                    chosen[:] = True
                    exact |= key == folder
                    self.named.add(f"path {name}")
                elif covers(folder, key):
                    hits = [covers(key, f"{folder}/{array.meta.chunk_key(at)}") for at in coords.tolist()]
                    chosen |= np.array(hits, np.bool_)
                    exact = True
                    if any(hits):
                        self.named.add(f"path {name}")
        if part.levels is not None and array.level is not None:
            first, last = part.levels
            if array.level < first or (last is not None and array.level > last):
                chosen[:] = False
        box = dict(part.box)
        for at, span in enumerate(array.spans(box, scaled=not exact)):
            self.named.add(f"axis {array.axes[at]}")
            if span is not None:
                size = array.meta.chunk_shape[at]
                chosen &= (coords[:, at] * size < span[1]) & ((coords[:, at] + 1) * size > span[0])
        return chosen

    def _key_meant(
        self,
        part: Part,
        keys: Mapping[str, str],
        version: Version,
        key: str,
        arrays: dict[str, tuple[str, _Array] | None],
    ) -> bool:
        """Whether a whole key is meant: of one that is a chunk of an array which its writer shards, as of chunks."""
        folder = key.rpartition("/")[0]
        if folder not in arrays:
            arrays[folder] = _array_above(version, folder)
        above = arrays[folder]
        if above is not None:
            path, array = above
            coords = array.meta.parse_chunk_key(key.removeprefix(f"{node_key(path)}/"))
            if coords is not None:
                return bool(self._chunks_meant(part, keys, path, array, np.array([coords], np.int64))[0])
        hits = [name for name, each in keys.items() if covers(each, key)]
        self.named.update(f"path {name}" for name in hits)
        return not keys or bool(hits)


def _places(files: NDArray[np.uint32], offsets: NDArray[np.uint64]) -> NDArray[np.void]:
    """Where payloads lie, as one column."""
    found = np.empty(len(files), [("file", "<u4"), ("offset", "<u8")])
    found["file"], found["offset"] = files, offsets
    return found


def kept_versions(graph: VersionGraph, part: Part, tips: Iterable[int]) -> set[int]:
    """The versions that a part's depth and time keep, from those that refs name on."""
    found: set[int] = set()
    ahead = {number for number in tips if number in graph}
    depth = 1
    while ahead:
        found |= ahead
        if part.depth is not None and depth >= part.depth:
            break
        below = {parent for number in ahead for parent in graph.info(number).parents}
        ahead = {each for each in below if part.since_ns is None or graph.info(each).time_ns >= part.since_ns} - found
        depth += 1
    return found


def _array_above(version: Version, folder: str) -> tuple[str, _Array] | None:
    """The array in whose directory a key lies, if it lies in one."""
    for each in (folder, *parents(folder)):
        path = node_path(each)
        if path is None:
            return None
        if (array := _array_at(version, path)) is not None:
            return path, array
    return None


def _array_at(version: Version, path: str) -> _Array | None:
    """The array at a hierarchy path, and what it is of an image."""
    try:
        node = version.node(path)
    except VolfsError:
        return None
    if not isinstance(node, ArrayNode):
        return None
    meta = node.meta
    above = path
    while above:
        above = above.rpartition("/")[0]
        image = _image_at(version, above)
        inside = path[len(above) :].lstrip("/")
        if image is None or len(image.axes) != meta.ndim:
            continue
        for number, level in enumerate(image.levels):
            if level.path == inside:
                axes = tuple(axis.name for axis in image.axes)
                steps = [image.factors(each) for each in range(number + 1)]
                return _Array(meta, axes, number, tuple(prod(step) for step in zip(*steps, strict=True)))
    return _Array(meta, axis_names(meta.dimension_names, meta.ndim))


def _image_at(version: Version, path: str) -> Multiscale | None:
    try:
        node = version.node(path)
        return parse_multiscale(node.attributes) if isinstance(node, GroupNode) else None
    except VolfsError:
        return None
