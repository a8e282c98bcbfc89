"""The keys and chunks in which two versions may differ.

Decided here: that they are those that manifests record on the two lines of first parents, since the lines parted. What
is in none of them is the same at both, whatever the age of the array. Not here: whether they do differ
(:mod:`volfs.versions.combine.chunk_states`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from volfs.model.touch import Rows
from volfs.storage.manifest import Op
from volfs.versions.commit.movement import region_of, versions_between
from volfs.versions.committed.version import Version
from volfs.versions.committed.version_files import VersionFiles, read_manifest
from volfs.versions.history import History
from volfs.versions.keys import node_path, node_path_of_json


@dataclass(frozen=True, slots=True)
class Candidates:
    """``keys``: whole keys, chunks not among them. ``chunks``: coordinates by hierarchy path, a row each, every row
    once. ``arrays``: paths of arrays of which all chunks may differ. ``folders``: whose permission bits may differ."""

    keys: frozenset[str]
    chunks: Mapping[str, Rows]
    arrays: frozenset[str]
    folders: frozenset[str]


def distance(dataset: History[Version], one: int, other: int) -> int:
    """How many manifests :func:`candidates` reads."""
    return len(versions_between(dataset.graph, one, other))


def candidates(dataset: History[Version], one: int, other: int) -> Candidates:
    """What may differ between two versions; 0 is the empty one."""
    keys: set[str] = set()
    trees: set[str] = set()
    folders: set[str] = set()
    rows: defaultdict[str, list[Rows]] = defaultdict(list)
    arrays: set[str] = set()
    for number in versions_between(dataset.graph, one, other):
        manifest = read_manifest(VersionFiles.of(dataset.objects, number))
        records, strings = manifest.records, manifest.strings
        parent = _version(dataset, next(iter(dataset.info(number).parents), 0))
        for i in manifest.keys().tolist():
            key, op = strings[records["name"][i]], int(records["op"][i])
            if op == Op.DIRECTORY:
                folders.add(key)
                continue
            keys.add(key)
            path = node_path_of_json(key)
            if op == Op.REMOVE and path is not None:
                arrays.add(path)  # an array ends with its metadata
            if op == Op.REMOVE_SUBTREE:
                region = region_of(parent, key)
                if region is not None and parent is not None:
                    arrays.add(node_path(region[0]) or "")
                else:
                    trees.add(key)
        for path, at in manifest.chunks():
            ndim = int(records["ndim"][at[0]])
            rows[path].append(records["chunk"][at][:, :ndim].astype(np.int64))
    ends = [version for version in (_version(dataset, one), _version(dataset, other)) if version is not None]
    for tree in trees:
        for version in ends:
            for key in keys_below(version, tree):
                keys.add(key)
                path = node_path_of_json(key)
                if path is not None and version.array(path) is not None:
                    arrays.add(path)
    return Candidates(
        frozenset(keys), {path: _once(found) for path, found in rows.items()}, frozenset(arrays), frozenset(folders)
    )


def keys_below(version: Version, folder: str) -> Iterator[str]:
    """The key itself if it is a file, and every key below it that is no chunk of an array."""
    catalog, dataset = version.catalog, version.dataset.id
    entry = catalog.entry(dataset, version.at, folder)
    if entry is None:
        return
    if entry.kind != "dir":
        yield folder
        return
    pending = [(folder, entry.dir_id)]
    while pending:
        where, directory = pending.pop()
        for name, child in catalog.list_entries(dataset, version.at, directory):
            key = f"{where}/{name}" if where else name
            if child.kind == "dir":
                pending.append((key, child.dir_id))
            else:
                yield key


def all_rows(version: Version | None, path: str) -> Rows:
    """The coordinates of every stored chunk of an array."""
    array = None if version is None else version.array(path)
    if array is None:
        return np.zeros((0, 0), np.int64)
    return array.stored_rows()


def union_rows(found: list[Rows]) -> Rows:
    """Rows of several sets, each once. Sets of another number of coordinates than the first that is not empty are left
    out: they are those of another array."""
    kept = [rows for rows in found if len(rows)]
    if not kept:
        return np.zeros((0, 0), np.int64)
    return _once([rows for rows in kept if rows.shape[1] == kept[0].shape[1]])


def _once(found: list[Rows]) -> Rows:
    widths = {rows.shape[1] for rows in found}
    if len(widths) > 1:  # an array was made anew with other axes: that is decided as a whole
        found = [rows for rows in found if rows.shape[1] == found[0].shape[1]]
    return np.unique(np.concatenate(found), axis=0)


def _version(dataset: History[Version], number: int) -> Version | None:
    return dataset.version(number) if number else None
