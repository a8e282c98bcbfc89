"""SHA-256 of committed payloads, and the records that hold them, from the manifests of the versions that changed them.

Decided here: how a manifest is searched in columns, and that few manifests are held at once. Not here: when equal
checksums are not enough (:mod:`volfs.versions.combine.chunk_states`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volfs.catalog import Entry
from volfs.errors import Damaged
from volfs.model.bounded_map import BoundedMap
from volfs.storage.manifest import NO_FILE, Manifest, Op
from volfs.versions.committed.version import Version
from volfs.versions.committed.version_files import VersionFiles, read_manifest
from volfs.versions.history import History

_HELD_BYTES = 256 << 20

Records = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Taken:
    """Chunk records to take over: numbers of files count into ``files``, those of pieces into ``pieces``."""

    records: Records
    files: tuple[str, ...]
    pieces: Records


class Digests:
    """What manifests say of payloads. Not thread-safe."""

    def __init__(self, dataset: History[Version]) -> None:
        self._dataset = dataset
        self._held: BoundedMap[int, _Searched] = BoundedMap(_HELD_BYTES, lambda held: held.nbytes)

    def of_key(self, key: str, entry: Entry) -> tuple[bytes, int]:
        """The SHA-256 of a whole key's bytes, and the version whose payload it is."""
        assert entry.payload is not None
        manifest = self._manifest(entry.version)
        row = manifest.keys.get(key)
        if row is None:
            raise Damaged(f"the manifest of v{entry.version} does not record {key}, which the catalog says it changed")
        record = manifest.manifest.records[row]
        return record["sha256"].tobytes(), int(record["owner"]) or entry.version

    def of_chunks(self, path: str, rows: NDArray[np.int64], changed: NDArray[np.int32]) -> NDArray[np.void]:
        """The SHA-256 of each chunk, given the version that changed it last."""
        found = np.zeros(len(rows), "V32")
        for version, at in _by_version(changed):
            manifest = self._manifest(version)
            found[at] = manifest.manifest.records["sha256"][manifest.chunks(path, rows[at])]
        return found

    def taken(self, path: str, rows: NDArray[np.int64], changed: NDArray[np.int32]) -> Iterator[Taken]:
        """Records that take chunks over, given the version that changed each last: one lot for each such version."""
        for version, at in _by_version(changed):
            searched = self._manifest(version)
            manifest = searched.manifest
            records = manifest.records[searched.chunks(path, rows[at])].copy()
            if (records["file"] == NO_FILE).any():
                raise Damaged(f"the manifest of v{version} records chunks of {path!r} as removed that the catalog has")
            records["owner"] = np.where(records["op"] == Op.PUT, version, records["owner"])
            records["op"] = Op.TAKE
            used, numbers = np.unique(records["file"], return_inverse=True)
            records["file"] = numbers
            pieces = _pieces(manifest, records)
            yield Taken(records, tuple(manifest.strings[i] for i in used.tolist()), pieces)

    def _manifest(self, version: int) -> _Searched:
        held = self._held.get(version)
        if held is None:
            held = _Searched(read_manifest(VersionFiles.of(self._dataset.objects, version)), version)
            self._held.put(version, held)
        return held


class _Searched:
    """A manifest, and where its keys and chunks are recorded."""

    def __init__(self, manifest: Manifest, version: int) -> None:
        self.manifest = manifest
        self.version = version
        self._orders: dict[str, tuple[tuple[int, ...], NDArray[Any], NDArray[np.int64]]] = {}

    @property
    def nbytes(self) -> int:
        return int(self.manifest.records.nbytes * 2) + 1

    @cached_property
    def keys(self) -> dict[str, int]:
        """The record of each whole key that is put, removed or taken."""
        records, strings = self.manifest.records, self.manifest.strings
        rows = self.manifest.keys()
        rows = rows[np.isin(records["op"][rows], (Op.PUT, Op.TAKE, Op.REMOVE))]
        return {strings[name]: row for name, row in zip(records["name"][rows].tolist(), rows.tolist(), strict=True)}

    @cached_property
    def _paths(self) -> dict[str, NDArray[np.int64]]:
        return dict(self.manifest.chunks())

    def chunks(self, path: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The record of each chunk. Damaged if one has none."""
        if path not in self._orders:
            of_path = self._paths.get(path)
            if of_path is None:
                raise self._missing(path)
            coords = self.manifest.records["chunk"][of_path][:, : rows.shape[1]].astype(np.int64)
            extent = tuple((coords.max(axis=0) + 1).tolist())
            numbers = _numbers(coords, extent)
            order = np.argsort(numbers, kind="stable")
            self._orders[path] = extent, numbers[order], of_path[order]
        extent, numbers, of_path = self._orders[path]
        if (rows >= np.array(extent)).any():
            raise self._missing(path)
        wanted = _numbers(rows, extent)
        at = np.minimum(np.searchsorted(numbers, wanted, side="right") - 1, len(numbers) - 1)
        if not np.array_equal(numbers[at], wanted):
            raise self._missing(path)
        return of_path[at]

    def _missing(self, path: str) -> Damaged:
        return Damaged(f"the manifest of v{self.version} lacks chunks of {path!r} that the catalog says it changed")


def _numbers(rows: NDArray[np.int64], extent: tuple[int, ...]) -> NDArray[Any]:
    """One value for each row. Where they do not fit into 62 bits they are bytes, which compare as the rows do."""
    if prod(extent) < 2**62:
        return np.asarray(np.ravel_multi_index(tuple(rows.T), extent), np.int64)
    return np.ascontiguousarray(rows.astype(">i8")).view(f"S{8 * rows.shape[1]}").reshape(-1)


def _by_version(changed: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    order = np.argsort(changed, kind="stable")
    cuts = np.flatnonzero(np.diff(changed[order])) + 1
    for group in np.split(order, cuts):
        if len(group):
            yield int(changed[group[0]]), group


def _pieces(manifest: Manifest, records: Records) -> Records:
    """The piece checksums of some records, whose ``pieces_start`` then counts into the answer."""
    found: list[Records] = []
    count = 0
    for i in np.flatnonzero(records["pieces_count"]).tolist():
        start, length = int(records["pieces_start"][i]), int(records["pieces_count"][i])
        found.append(manifest.pieces[start : start + length])
        records["pieces_start"][i] = count
        count += length
    return np.concatenate(found) if found else np.zeros(0, "<u4")
