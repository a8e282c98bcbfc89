"""The keys that moved between two versions, in the terms of :mod:`volfs.model.touch`.

Decided here: how manifests are read as touched keys. No voxel is read or decoded; the cost follows the changes, not the
size of the dataset. Not here: uncommitted changes, and merging (:mod:`volfs.versions.commit.overlap`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from volfs.model.box import Index
from volfs.model.graph import VersionGraph
from volfs.model.metadata import ArrayMeta
from volfs.model.touch import Rows, Touched
from volfs.storage.manifest import Manifest, Op
from volfs.versions.committed.version import Version, chunk_prefix
from volfs.versions.committed.version_files import VersionFiles, read_manifest
from volfs.versions.history import History
from volfs.versions.keys import node_key, node_path, node_path_of_json
from volfs.versions.working.union import Union


def versions_between(graph: VersionGraph, one: int, other: int) -> list[int]:
    """The versions by which two differ: those on the first-parent lines of one of them only. Newest first."""
    found = []
    while one != other:
        # A parent has a smaller number than its child, so the larger of the two is on one line only.
        newer = max(one, other)
        found.append(newer)
        first = next(iter(graph.info(newer).parents), 0)
        one, other = (first, other) if newer == one else (one, first)
    return found


def moved(dataset: History[Version], one: int, other: int) -> Touched:
    """The keys in which two versions may differ (0: the empty version), from the manifests between them."""
    found = Touched()
    for number in versions_between(dataset.graph, one, other):
        files = VersionFiles.of(dataset.objects, number)
        found |= recorded(read_manifest(files), _first_parent(dataset, number))
    before, after = _version(dataset, one), _version(dataset, other)
    return found | Touched(arrays=described_anew(paths_in(found), before, after))


def recorded(manifest: Manifest, parent: Version | None) -> Touched:
    """The keys that the records of a manifest touch. Arrays that are described anew are not recognised."""
    records, strings = manifest.records, manifest.strings
    keys, trees = set(), set()
    chunks: dict[str, Rows] = {}
    regions: defaultdict[str, set[Index]] = defaultdict(set)
    for i in manifest.keys().tolist():
        key = strings[records["name"][i]]
        op = int(records["op"][i])
        if op == Op.DIRECTORY:
            continue  # other permission bits are not in conflict with changes in the directory
        if op != Op.REMOVE_SUBTREE:
            keys.add(key)
        elif (region := region_of(parent, key)) is not None:
            regions[region[0]].add(region[1])
        else:
            trees.add(key)
    for path, rows in manifest.chunks():
        ndim = int(records["ndim"][rows[0]])
        chunks[node_key(path)] = records["chunk"][rows][:, :ndim].astype(np.int64)
    return Touched(
        frozenset(keys), frozenset(trees), chunks=chunks, regions={f: frozenset(r) for f, r in regions.items()}
    )


def paths_in(touched: Touched) -> set[str]:
    """Hierarchy paths of the touched nodes that may be arrays."""
    found = {node_path_of_json(key) for key in touched.keys}
    found |= {node_path(folder) for folder in (*touched.trees, *touched.folders)}
    return {path for path in found if path is not None}


def described_anew(paths: Iterable[str], before: Version | None, after: Version | None) -> frozenset[str]:
    """Directories, of those at some paths, with an array in either version that is another, or reads its chunks
    differently, in the other version."""
    found = set()
    for path in paths:
        one = None if before is None else before.array(path)
        other = None if after is None else after.array(path)
        metas = [None if array is None else array.meta for array in (one, other)]
        same = one is None or other is None or one.node == other.node
        if not same or not reads_alike(*metas):
            found.add(node_key(path))
    return frozenset(found)


def reads_alike(before: ArrayMeta | None, after: ArrayMeta | None) -> bool:
    """Whether chunks read the same under two descriptions of an array; None: it is not there."""
    if before is None or after is None:
        return before is after
    same_fill = before.fill_value.tobytes() == after.fill_value.tobytes()
    return before.shape == after.shape and same_fill and before.same_storage(after)


def base_of(union: Union) -> Version | None:
    """The version that a working copy lies over; None while there is none."""
    return union.lower if isinstance(union.lower, Version) else None


def region_of(version: Version | None, key: str) -> tuple[str, Index] | None:
    """The array, by its directory, and the leading coordinates that a directory of chunks stands for."""
    found = None if version is None else version.array_above(key)
    if found is None:
        return None
    prefix = chunk_prefix(found[0].meta, found[1])
    return None if prefix is None else (node_key(found[0].path), prefix)


def _first_parent(dataset: History[Version], number: int) -> Version | None:
    return _version(dataset, next(iter(dataset.info(number).parents), 0))


def _version(dataset: History[Version], number: int) -> Version | None:
    return dataset.version(number) if number else None
