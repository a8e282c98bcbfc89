"""Indexing one version: from its manifest to rows, in one transaction.

Decided here: the order of things. A version is placed in the graph as it is at that moment; its files get ids; names
first (they make the directories), then chunks; then directories that became empty go; the refs move last, and all of it
becomes visible together. What the rows mean is in :mod:`.index_entries` and :mod:`.index_blocks`.

Op TAKE is indexed as a put: the record carries the owner's payload, and on this version's own chain the bytes change
here, whoever wrote them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from volfs.catalog.chunk_rows import RowPlace, check_coords, index_chunks
from volfs.catalog.entries import encode
from volfs.catalog.entry_rows import ZARR_JSON, NameEditor, Path
from volfs.catalog.graphs import insert_version
from volfs.catalog.payload_files import add_files
from volfs.catalog.sums import row_sum
from volfs.catalog.values import PAYLOAD, NodeShape, PayloadArray
from volfs.errors import BadInput
from volfs.model.graph import At, VersionGraph, VersionInfo
from volfs.storage.manifest import NO_FILE, Manifest, Op

NOTHING = At(((0, 0),))
"""What a version without parents is made on top of."""


def index(
    cx: sqlite3.Connection,
    dataset: int,
    root: int,
    graph: VersionGraph,
    info: VersionInfo,
    manifest: Manifest,
    nodes: Mapping[str, NodeShape],
) -> VersionInfo:
    """Write the rows of one version inside the caller's transaction; the version as placed."""
    for parent in info.parents:
        graph.info(parent)
    if any(parent >= info.number for parent in info.parents):
        raise BadInput(f"version v{info.number} cannot have a later version as a parent")
    lineage, position, fork = graph.place(info.parents)
    info = replace(info, lineage=lineage, position=position)
    insert_version(cx, dataset, info, fork)
    parent_at = graph.at(info.parents[0]) if info.parents else NOTHING
    payloads = _payloads(cx, dataset, manifest)
    names = NameEditor(
        cx, dataset=dataset, root=root, parent=parent_at, lineage=lineage, position=position, number=info.number
    )
    _index_names(names, manifest, payloads, nodes)
    place = RowPlace(parent_at, lineage, position, info.number)
    for path, records in manifest.chunks():
        _index_array(cx, names, place, manifest, payloads, path, records)
    names.drop_empty()
    names.write()
    return info


def _payloads(cx: sqlite3.Connection, dataset: int, manifest: Manifest) -> PayloadArray:
    """The payload of every record, as the index holds it; also stores the files' names and piece checksums."""
    records = manifest.records
    payloads: PayloadArray = np.zeros(len(records), PAYLOAD)
    held = np.flatnonzero(records["file"] != NO_FILE)
    if not len(held):
        return payloads
    used, number = np.unique(records["file"][held], return_inverse=True)
    ids = np.array(add_files(cx, dataset, [manifest.strings[i] for i in used.tolist()]), np.int64)
    if ids[-1] >= 2**32:
        raise BadInput("the catalog has no file numbers left; rebuild it")
    payloads["file"][held] = ids[number]
    for name in ("offset", "length", "crc32c"):
        payloads[name][held] = records[name][held]
    pieced = np.flatnonzero(records["pieces_count"])
    cx.executemany(
        # One payload may be recorded twice: a chunk taken to two places.
        "INSERT OR REPLACE INTO piece (file, offset, crcs, sum) VALUES (?, ?, ?, ?)",
        (
            _with_sum(
                int(payloads["file"][i]), int(payloads["offset"][i]), manifest.pieces[start : start + count].tobytes()
            )
            for i, start, count in zip(
                pieced.tolist(),
                records["pieces_start"][pieced].tolist(),
                records["pieces_count"][pieced].tolist(),
                strict=True,
            )
        ),
    )
    return payloads


def _with_sum(file: int, offset: int, crcs: bytes) -> tuple[int, int, bytes, int]:
    return file, offset, crcs, row_sum("piece", file, offset, crcs)


def _index_names(names: NameEditor, manifest: Manifest, payloads: PayloadArray, nodes: Mapping[str, NodeShape]) -> None:
    records = manifest.records
    keys = manifest.keys()
    ops = records["op"][keys]

    def paths(wanted: NDArray[np.bool_]) -> list[Path]:
        return [split(manifest.strings[i]) for i in records["name"][keys[wanted]].tolist()]

    puts = (ops == Op.PUT) | (ops == Op.TAKE)
    put_paths = paths(puts)
    removed = paths(ops == Op.REMOVE)
    names.remove_subtrees(paths(ops == Op.REMOVE_SUBTREE))
    names.remove(removed)
    again = set(put_paths)
    for path in removed:
        if path[-1] == ZARR_JSON and path not in again:
            names.end_array(path[:-1])
    for node in sorted(nodes):
        names.set_shape(array_path(node), nodes[node])
    put = keys[puts]
    kept = zip(records["mode"][put].tolist(), records["mtime_ns"][put].tolist(), strict=True)
    for path, payload, (mode, mtime_ns) in zip(put_paths, payloads[put].tolist(), kept, strict=True):
        names.put(path, (*payload, mode, mtime_ns))
    folders = ops == Op.DIRECTORY
    for path, mode in zip(paths(folders), records["mode"][keys[folders]].tolist(), strict=True):
        names.set_mode(path, mode)


def _index_array(
    cx: sqlite3.Connection,
    names: NameEditor,
    place: RowPlace,
    manifest: Manifest,
    payloads: PayloadArray,
    path: str,
    numbers: NDArray[np.int64],
) -> None:
    records = manifest.records[numbers]
    node = names.directory(array_path(path))
    shape = names.shape(node) if node is not None else None
    if node is None or shape is None:
        if np.all(records["op"] == Op.REMOVE):
            # The array went in the same version, and its chunks with it.
            return
        raise BadInput(f"chunks are put into {path or 'the root'}, which is no array")
    check_coords(records["chunk"], records["ndim"], shape, path)
    coords = records["chunk"][:, : shape.ndim]
    index_chunks(cx, node, shape, place, coords, payloads[numbers], fresh=names.is_new(node))


def split(key: str) -> Path:
    """The components of a key."""
    if not key:
        raise BadInput("a record names no key")
    return tuple(encode(part) for part in key.split("/"))


def array_path(path: str) -> Path:
    """The components of the directory of an array, from its path in the hierarchy ("" is the root)."""
    return (b"zarr", *(encode(part) for part in path.split("/") if part))
