"""The bytes of dropped versions are taken away.

Decided here: the steps, and that a process which dies between any two leaves a store that opens, and whose next
collection goes on. Not here: which payloads go (:mod:`volfs.versions.retention.shown`).

1. the intent ``reclaim.json`` of the dataset names the version;
2. the version says which of its payloads are absent (:mod:`volfs.versions.committed.absences`): **from then on they
   are**, whether their bytes are there still or not;
3. the array says that it is not complete, to other programs that read the version's directory;
4. the index of each shard says that the chunks are missing; then holes are punched where they were. Addresses of all
   others stay;
5. files of which nothing is left are removed;
6. the intent goes.

3 to 5 follow from what 2 has written, so they can be repeated: :func:`finish` does that with what an intent names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volfs.errors import Damaged, NotFound
from volfs.model.grid import split
from volfs.storage.backend import Backend, Bounded, read_document
from volfs.storage.claim import Claim
from volfs.storage.crash import crash_point
from volfs.storage.json_document import dump_document
from volfs.storage.manifest import Manifest, Op
from volfs.storage.shards import MISSING, encode_shard_index, wrap_array_json
from volfs.storage.store_layout import RECLAIM_JSON
from volfs.versions.committed.absences import Codes, Where, array_note, read_codes, write_codes
from volfs.versions.committed.version_files import (
    AS_WRITTEN,
    VersionFiles,
    array_meta,
    read_manifest,
    read_version,
)
from volfs.versions.history import History
from volfs.versions.keys import NODE_JSON, node_key


@dataclass(frozen=True, slots=True)
class Freed:
    """Payloads that went, with their bytes, and how many of these the filesystem cannot give back."""

    payloads: int = 0
    bytes: int = 0
    staying: int = 0

    def __add__(self, other: Freed) -> Freed:
        return Freed(self.payloads + other.payloads, self.bytes + other.bytes, self.staying + other.staying)


def begin(backend: Backend, numbers: Iterable[int]) -> None:
    """Write the intent: bytes of these versions of a dataset are about to go."""
    facts = {"versions": sorted(numbers), "by": Claim.mine().facts()}
    backend.put(RECLAIM_JSON, dump_document(facts))
    crash_point("gc.intent")


def end(backend: Backend) -> None:
    """All that the intent names is done."""
    crash_point("gc.reclaimed")
    backend.remove([RECLAIM_JSON])


def intended(backend: Backend) -> list[int] | None:
    """The versions that an intent names, of which some may be done; None if there is no intent. Raises Damaged."""
    if backend.stat(RECLAIM_JSON) is None:
        return None
    try:
        numbers = read_document(backend, RECLAIM_JSON)["versions"]
        return [int(number) for number in numbers]
    except NotFound:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{backend.where(RECLAIM_JSON)} does not say of which versions bytes go ({error})") from None


def finish(dataset: History[Any]) -> None:
    """Go on where a process died that was taking bytes away. Raises Damaged."""
    numbers = intended(dataset.backend)
    if numbers is None:
        return
    for number in numbers:
        files = VersionFiles.of(dataset.objects, number)
        manifest = read_manifest(files)
        take_away(files, manifest, read_codes(files, manifest))
    end(dataset.backend)


def note_absent(files: VersionFiles, codes: Codes, rows: NDArray[np.bool_]) -> Codes:
    """Step 2: say that the payloads of these records went. The codes from then on."""
    now = codes.copy()
    now[rows] = Where.DROPPED
    write_codes(files, now)
    crash_point("gc.absent")
    return now


def take_away(files: VersionFiles, manifest: Manifest, codes: Codes) -> int:
    """Steps 3 to 5 for all of a version that went. The bytes that the filesystem cannot give back."""
    gone = codes == Where.DROPPED
    if not gone.any():
        return 0
    _note_incomplete(files, manifest, gone)
    staying, whole = 0, []
    for file, members, left in _by_file(manifest, codes):
        if not len(left):
            whole.append(file)
        elif not _hollow(files, manifest, file, members, left):
            staying += int(manifest.records["length"][members].sum(dtype="u8"))
    for file in whole:
        files.objects.remove([file])
        crash_point("gc.removed")
    return staying


def _by_file(manifest: Manifest, codes: Codes) -> Iterator[tuple[str, NDArray[np.intp], NDArray[np.intp]]]:
    """Each file of the version of which something went, with the records that went and those that are here."""
    put = np.flatnonzero(manifest.records["op"] == Op.PUT)
    files = manifest.records["file"][put]
    order = np.argsort(files, kind="stable")
    for members in np.split(put[order], np.flatnonzero(np.diff(files[order])) + 1):
        went, here = codes[members] == Where.DROPPED, codes[members] == Where.HERE
        if went.any():
            yield manifest.strings[manifest.records["file"][members[0]]], members[went], members[here]


def _hollow(files: VersionFiles, manifest: Manifest, file: str, went: NDArray[np.intp], left: NDArray[np.intp]) -> bool:
    """Free parts of a shard, whose index names what is left. False if the filesystem cannot."""
    records = manifest.records
    path = manifest.strings[records["name"][left[0]]]
    shard_chunks = read_version(files).arrays[path].shard_chunks
    index = np.full((prod(shard_chunks), 2), MISSING, np.uint64)
    for row in left.tolist():
        cell = split(records["chunk"][row][: len(shard_chunks)].tolist(), shard_chunks)[1]
        index[cell] = records["offset"][row], records["length"][row]
    return files.objects.hollow(file, list(_spans(records[went])), encode_shard_index(index))


def _spans(records: NDArray[Any]) -> Iterator[Bounded]:
    """Where payloads lie, those that touch each other in one."""
    starts, ends = records["offset"], records["offset"] + records["length"]
    order = np.argsort(starts, kind="stable")
    start = end = None
    for first, last in zip(starts[order].tolist(), ends[order].tolist(), strict=True):
        if first == last:
            continue
        if start is not None and first == end:
            end = last
            continue
        if start is not None and end is not None:
            yield Bounded(start, end - start)
        start, end = first, last
    if start is not None and end is not None:
        yield Bounded(start, end - start)


def _note_incomplete(files: VersionFiles, manifest: Manifest, gone: NDArray[np.bool_]) -> None:
    """Have the metadata of arrays of which chunks went say so to other programs. That of an array which was created
    with each chunk in a file of its own is the client's own bytes, and stays."""
    stored = read_version(files)
    for path, rows in manifest.chunks():
        written = f"{node_key(path)}/{AS_WRITTEN}"
        if not gone[rows].any() or files.objects.stat(files.key(written)) is None:
            continue
        meta, array = array_meta(files, path), stored.arrays[path]
        shard = None
        if prod(array.shard_chunks) > 1:
            shard = tuple(s * c for s, c in zip(array.shard_chunks, meta.chunk_shape, strict=True))
        json = wrap_array_json(files.read(written), shard, array_note(stored, path, lacks=True))
        name = f"{node_key(path)}/{NODE_JSON}"
        if files.read(name) != json:
            files.put(name, json)
        crash_point("gc.noted")
