"""The payloads of dropped versions that other versions show.

Decided here: which payload may go. A version *shows* a payload if a key or chunk has it there: its own, one that it
inherits along its first parents, or one that it took. The catalog is asked, as every reader asks it, whose rows are
proved by their sums; an error ends the search. Not here: which versions count as gone.

What a version inherits is what its first parent shows, less what it changes. So of the versions that are kept only
those that stand on one that is gone need be asked about what that one wrote, and only about the blocks that it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from volfs.catalog import BlockMap
from volfs.model.graph import VersionGraph
from volfs.storage.manifest import Manifest, Op
from volfs.storage.store_layout import parse_version_dir
from volfs.versions.committed.absences import Codes, Where, may_be_absent, read_codes
from volfs.versions.committed.version_files import VersionFiles, read_manifest
from volfs.versions.keys import node_key
from volfs.versions.retention.roots import RetainedHistory

Rows = NDArray[np.bool_]
"""A choice among the records of a manifest."""

Progress = Callable[[int, int], object]

_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Unshown:
    """The payloads of one version that are here and that nobody shows any more."""

    number: int
    manifest: Manifest
    codes: Codes
    rows: Rows

    @property
    def bytes(self) -> int:
        return int(self.manifest.records["length"][self.rows].sum(dtype="u8"))


class Shown:
    """What the versions of a dataset show that are not among ``gone``."""

    def __init__(self, dataset: RetainedHistory, gone: Collection[int]) -> None:
        self._dataset = dataset
        self._graph: VersionGraph = dataset.graph
        self._gone = frozenset(gone)
        self._children: dict[int, list[int]] = {}
        for number, info in self._graph.versions.items():
            if info.parents:
                self._children.setdefault(info.parents[0], []).append(number)
        #: Names of payloads that were taken, in parts; the newest version that they come from.
        self._taken: list[NDArray[np.uint64]] = []
        self.newest = max(self._graph.versions, default=0)

    def unshown(self, progress: Progress) -> Iterator[Unshown]:
        """Of each version that is gone, what nobody shows: the oldest first. ``progress`` counts versions read."""
        first = min(self._gone, default=0)
        later = [number for number in self._graph.versions if number > first]
        total = len(later) + len(self._gone)
        for done, number in enumerate(sorted(later)):
            progress(done, total)
            self._note_taken(number)
        for done, number in enumerate(sorted(self._gone), len(later)):
            progress(done, total)
            manifest = self._manifest(number)
            codes = read_codes(VersionFiles.of(self._dataset.objects, number), manifest)
            rows = may_be_absent(manifest) & (codes == Where.HERE)
            if rows.any():
                rows &= ~self._seen(number, manifest, rows)
                rows &= ~self.is_taken(manifest, rows)
            if rows.any():
                yield Unshown(number, manifest, codes, rows)
        progress(total, total)

    def take_in(self, number: int) -> None:
        """A version that came since: what it took is shown."""
        self._note_taken(number)
        self.newest = max(self.newest, number)

    def shows(self, number: int, manifest: Manifest, rows: Rows) -> Rows:
        """Of the records chosen of a version that is gone, those whose payloads a kept one inherits or took. Every
        version must have been taken in."""
        return rows & (self._seen(number, manifest, rows) | self.is_taken(manifest, rows))

    def is_taken(self, manifest: Manifest, rows: Rows) -> Rows:
        """Of the records chosen, those whose payloads a version took that is kept, or that a kept one stands on."""
        found = np.zeros(len(rows), np.bool_)
        at = np.flatnonzero(rows)
        names = _names(manifest, at)
        for taken in self._taken:
            found[at] |= np.isin(names, taken)
        return found

    # -- inside -------------------------------------------------------------------------------------------------

    def _manifest(self, number: int) -> Manifest:
        return read_manifest(VersionFiles.of(self._dataset.objects, number))

    def _note_taken(self, number: int) -> None:
        manifest = self._manifest(number)
        rows: Rows = manifest.records["op"] == Op.TAKE
        if rows.any() and number in self._gone:
            rows = rows & self._seen(number, manifest, rows)
        at = np.flatnonzero(rows)
        if len(at):
            files = manifest.records["file"][at]
            owned = [n for n in np.unique(files).tolist() if _folder(manifest.strings[n]) in self._gone]
            self._taken.append(_names(manifest, at[np.isin(files, owned)]))

    def _frontier(self, number: int) -> list[int]:
        """The kept versions that see what a version wrote past none but versions that are gone."""
        found, ahead = [], list(self._children.get(number, ()))
        while ahead:
            child = ahead.pop()
            if child in self._gone:
                ahead += self._children.get(child, ())
            else:
                found.append(child)
        return found

    def _seen(self, number: int, manifest: Manifest, rows: Rows) -> Rows:
        """Of the records chosen, those that a kept version still inherits."""
        found = np.zeros(len(rows), np.bool_)
        lookers = [self._graph.at(child) for child in self._frontier(number)]
        if not lookers:
            return found
        catalog, ident = self._dataset.catalog, self._dataset.id
        for row in np.flatnonzero(rows & (manifest.records["ndim"] == 0)).tolist():
            key, payload = manifest.strings[manifest.records["name"][row]], manifest.payload(row)
            entries = (catalog.entry(ident, at, key) for at in lookers)
            found[row] = any(entry is not None and entry.payload == payload for entry in entries)
        for path, numbers in manifest.chunks():
            chosen = numbers[rows[numbers]]
            place = catalog.entry(ident, self._graph.at(number), node_key(path)) if len(chosen) else None
            shape = None if place is None else catalog.block_shape(place.dir_id)
            if place is None or shape is None:
                continue  # the array went in the same version
            coords = manifest.records["chunk"][chosen][:, : len(shape)].astype(np.int64)
            blocks, within = np.divmod(coords, np.array(shape, np.int64))
            cells = np.ravel_multi_index(tuple(within.T), shape)
            different, which = np.unique(blocks, axis=0, return_inverse=True)
            for at in lookers:
                there = catalog.entry(ident, at, node_key(path))
                if there is None or there.dir_id != place.dir_id:
                    continue  # another array has its place, or none
                for n, block in enumerate(different.tolist()):
                    mine = np.flatnonzero(which.reshape(-1) == n)
                    block_map: BlockMap = catalog.block_map(place.dir_id, at, tuple(block))
                    found[chosen[mine]] |= block_map.changed[cells[mine]] == number
        return found


def _folder(file: str) -> int | None:
    return parse_version_dir(file.partition("/")[0])


def _names(manifest: Manifest, at: NDArray[np.intp]) -> NDArray[np.uint64]:
    """A number for the place of each payload. Two places of one number would only keep a payload that could go."""
    files, which = np.unique(manifest.records["file"][at], return_inverse=True)
    digests = [
        int.from_bytes(
            blake2b(manifest.strings[n].encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little"
        )
        for n in files.tolist()
    ]
    offsets = manifest.records["offset"][at].astype(np.uint64)
    return np.array(digests, np.uint64)[which.reshape(-1)] + offsets * _ODD
