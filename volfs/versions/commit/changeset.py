"""From the changes of a working copy to the records of a version: chunks, removals, arrays that were made anew.

Decided here: which changes may be committed, and how. A chunk must decode under its array's metadata; metadata may not
change how inherited chunks are read; removals of whole directories become one record; chunks outside a shrunk array go;
bytes equal to the parent's are no change, unless a side file was given other permission bits or a time. Not decided
here: the meaning of keys (:mod:`volfs.versions.working.interpreter`), and the steps of a commit
(:mod:`volfs.versions.commit.protocol`).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from crc32c import crc32c

from volfs.errors import Damaged, Held, VolfsError
from volfs.model.box import Box, Index
from volfs.model.metadata import ArrayMeta
from volfs.storage.files import read_file
from volfs.storage.payload_maker import read_payloads
from volfs.versions.commit.array_writer import ArrayWriter
from volfs.versions.commit.movement import base_of
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.committed.array import VersionArray
from volfs.versions.committed.version import Version, chunk_prefix
from volfs.versions.keys import NODE_JSON, covers, json_key, node_key, node_path_of_json
from volfs.versions.snapshot import KeyInfo
from volfs.versions.working.interpreter import Interpreter, Meaning, chunk_root
from volfs.versions.working.layer import Change
from volfs.versions.working.union import Entry, Union

_T = TypeVar("_T")
_R = TypeVar("_R")
_BATCH = 64
_TOGETHER, _TOGETHER_BYTES = 64, 4 << 20
"""Chunks that are read in one go, with the interpreter let go of: so many, or fewer that are as large together."""
_ANYBODY = 0o666
_FILE = 0o644
"""Permission bits of which nothing is said in a version."""
_DATED_NS = 10**9
"""A file whose time differs more than this from that of its last change was given its time."""
_NAMED = 20
"""Held keys that an error spells out."""


def problems(union: Union, interpreter: Interpreter, leave: Iterable[str] = ()) -> list[tuple[str, str]]:
    """(key, reason) of every change that cannot be committed, except at and below ``leave``. Decodes chunks."""
    left = tuple(leave)
    meanings = _Meanings(union, interpreter)
    found: list[tuple[str, str]] = []
    described: set[str] = set()

    def judge(items: list[tuple[Change, Meaning]]) -> list[tuple[str, str]]:
        verdicts = interpreter.verdicts(union, items)
        return [(change.key, why) for (change, _), why in zip(items, verdicts, strict=True) if why is not None]

    def put() -> Iterator[tuple[Change, Meaning]]:
        for change in union.changes():
            if any(covers(prefix, change.key) for prefix in left):
                continue
            path = node_path_of_json(change.key)
            if path is not None:
                described.add(path)
            if change.kind == "put":
                yield change, meanings.of(change.key)

    for held_ones in _in_parallel(judge, _together(put(), lambda item: item[0].size)):
        found += held_ones
    for path in sorted(described):
        reason = _misread(union, interpreter, path)
        if reason is not None:
            found.append((json_key(path), reason))
    return found


def held(found: list[tuple[str, str]]) -> Held:
    """The error that names keys which cannot be committed."""
    named = "; ".join(f"{key}: {reason}" for key, reason in found[:_NAMED])
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return Held(f"nothing was committed; repair these keys, remove them or leave them behind: {named}{more}")


def _misread(union: Union, interpreter: Interpreter, path: str) -> str | None:
    """Why changed metadata would misread chunks that the base has there; None if it does not."""
    folder = node_key(path)
    lower = base_of(union)
    if lower is None or not union.shows_base(folder):
        return None
    before, after = lower.array(path), interpreter.node(union, path)
    if before is None:
        if isinstance(after, ArrayMeta) and any(chunk_root(f"{folder}/{name}") for name in _names(lower, folder)):
            return "describes chunks that were committed before volfs could read them: remove the array, then write it"
        return None
    if continues(before.meta, after):
        return None
    for coords, _, _ in before.stored_below(()):
        entry = union.entry(node_key(path, before.meta.chunk_key(coords)))
        if entry is not None and entry.layer is None:
            change = "changes data type, chunks, codecs or keys" if isinstance(after, ArrayMeta) else "ends the array"
            return f"{change}, but chunks committed under the old metadata are there: remove the array first"
    return None


def _names(lower: Version, folder: str) -> list[str]:
    """Names in a directory that may be those of chunks: a directory ``c`` stands for its entries."""
    if lower.stat(folder) is None:
        return []
    return [f"{name}/0" if name == "c" and info.kind == "dir" else name for name, info in lower.list(folder)]


def continues(before: ArrayMeta, after: object) -> bool:
    """True if chunks written under ``before`` read the same under the node's metadata ``after``."""
    return isinstance(after, ArrayMeta) and after.ndim == before.ndim and after.same_storage(before)


class _Meanings:
    """The meaning of keys in a fixed union: neighbours in one directory belong to the same array."""

    def __init__(self, union: Union, interpreter: Interpreter) -> None:
        self._union = union
        self._interpreter = interpreter
        self._arrays: dict[str, tuple[str, ArrayMeta]] = {}

    def of(self, key: str) -> Meaning:
        """See :meth:`Interpreter.meaning`."""
        folder, _, name = key.rpartition("/")
        known = self._arrays.get(folder)
        if known is not None and name != NODE_JSON:
            path, meta = known
            coords = meta.parse_chunk_key(key[len(node_key(path)) + 1 :])
            return Meaning("object" if coords is None else "chunk", path, coords, meta)
        meaning = self._interpreter.meaning(self._union, key)
        if meaning.path is not None and meaning.meta is not None:
            self._arrays[folder] = meaning.path, meaning.meta
        return meaning


@dataclass(slots=True)
class _Array:
    puts: dict[Index, Change] = field(default_factory=dict)
    gone: set[Index] = field(default_factory=set)


class Packer:
    """Writes the changes of a union to its base into a version."""

    def __init__(self, union: Union, interpreter: Interpreter, writer: VersionWriter) -> None:
        self._union = union
        self._interpreter = interpreter
        self._meanings = _Meanings(union, interpreter)
        self._writer = writer
        self._lower = base_of(union)
        self._arrays: defaultdict[str, _Array] = defaultdict(_Array)
        self._objects: list[Change] = []
        self._described: set[str] = set()

    def pack(self) -> None:
        """Write all changes. Those that cannot be committed must have been refused before: see :func:`problems`."""
        for change in self._union.changes():
            if change.kind == "removed":
                self._removed(change.key)
            else:
                self._put(change)
        for path in sorted(self._described):
            if isinstance(self._interpreter.node(self._union, path), ArrayMeta):
                self._arrays[path]  # an array whose metadata alone changed
            else:
                self._end_array(path)
                self._put_object(json_key(path))
        for path, array in sorted(self._arrays.items()):
            self._pack_array(path, array)
        for change in self._objects:
            self._put_object(change.key)
        for folder, mode in self._union.folder_modes():
            self._writer.set_mode(folder, mode)

    # -- sorting out --------------------------------------------------------------------------------------------

    def _put(self, change: Change) -> None:
        meaning = self._meanings.of(change.key)
        if meaning.kind == "metadata" and meaning.path is not None:
            self._described.add(meaning.path)
        elif meaning.kind == "chunk" and meaning.path is not None and meaning.coords is not None:
            self._arrays[meaning.path].puts[meaning.coords] = change
        else:
            self._objects.append(change)

    def _removed(self, key: str) -> None:
        lower = self._lower
        assert lower is not None, "nothing can be removed from nothing"
        found = lower.array_above(key)
        if found is not None:
            array, rel = found
            coords = array.meta.parse_chunk_key(rel)
            prefix = chunk_prefix(array.meta, rel)
            if coords is not None and array.payload(coords) is not None:
                self._arrays[array.path].gone.add(coords)
                return
            if prefix is not None:
                self._arrays[array.path].gone.update(c for c, _, _ in array.stored_below(prefix))
                return
        info = lower.stat(key)
        if info is not None and info.kind == "dir":
            self._writer.remove_subtree(key)
            return
        self._writer.remove(key)
        path = node_path_of_json(key)
        if path is not None and not self._is_array(path):
            self._end_array(path)

    # -- arrays -------------------------------------------------------------------------------------------------

    def _pack_array(self, path: str, array: _Array) -> None:
        after = self._interpreter.node(self._union, path)
        before = self._before(path)
        if not isinstance(after, ArrayMeta):
            self._end_array(path)  # all its chunks are gone, or it would have been refused
            return
        if before is not None and not continues(before.meta, after):
            self._end_array(path)
            before = None
        raw = self._read(json_key(path))
        coords = np.array(sorted(array.puts), dtype=np.int64).reshape(len(array.puts), after.ndim)
        writer = self._writer.array(path, raw, created=before is None, chunks=coords)
        # Those of one shard one after the other: they are written to it together.
        order = np.lexsort((coords // np.array(writer.shard_chunks)).T[::-1])
        puts = ((at, array.puts[at]) for at in map(tuple, coords[order].tolist()))
        batches = _together(puts, lambda item: item[1].size)
        for _ in _in_parallel(lambda batch: self._put_chunks(writer, before, batch), batches):
            pass
        if before is None:
            return
        gone = array.gone | set(self._outside(before, after))
        for at in sorted(gone - array.puts.keys()):
            writer.remove(at)

    def _put_chunks(
        self, writer: ArrayWriter, before: VersionArray | None, chunks: Sequence[tuple[Index, Change]]
    ) -> None:
        fresh = [(coords, change) for coords, change in chunks if not self._is_old(before, coords, change)]
        left = dict(fresh)
        if writer.sharded:
            batch = read_payloads([change.path for _, change in fresh], sum(change.size for _, change in fresh))
            if batch is not None:
                left = {coords: left[coords] for coords in writer.put_all([coords for coords, _ in fresh], batch)}
        for coords, change in left.items():
            writer.put(coords, Path(change.path))

    def _is_old(self, before: VersionArray | None, coords: Index, change: Change) -> bool:
        """True for a chunk that has the bytes of the base."""
        payload = None if before is None else before.payload(coords)
        if payload is None or payload.size != change.size:
            return False
        data = read_file(change.path)
        return crc32c(data) == payload.payload.crc32c and _same(payload.read, data)

    def _outside(self, before: VersionArray, after: ArrayMeta) -> Iterator[Index]:
        """Stored chunks that a shrunk array no longer reaches."""
        old, new = before.meta.grid.grid_shape, after.grid.grid_shape
        for axis, (was, now) in enumerate(zip(old, new, strict=True)):
            if now < was:
                start = tuple(now if a == axis else 0 for a in range(len(old)))
                yield from before.payloads(Box(start, old))

    def _end_array(self, path: str) -> None:
        """Remove the base's array, and keep the other files in its directory."""
        before = self._before(path)
        if before is None:
            return
        folder = node_key(path)
        self._writer.remove_subtree(folder)
        for key in Union((), self._lower).keys(folder):
            rel = key[len(folder) + 1 :]
            entry = self._union.entry(key)
            kept = entry is not None and entry.kind == "file" and entry.layer is None
            if kept and rel != NODE_JSON and before.meta.parse_chunk_key(rel) is None:
                self._writer.put(key, self._read(key))

    def _before(self, path: str) -> VersionArray | None:
        """The base's array at a path, where it is still the same one."""
        if self._lower is None or not self._union.shows_base(node_key(path)):
            return None
        return self._lower.array(path)

    def _is_array(self, path: str) -> bool:
        return isinstance(self._interpreter.node(self._union, path), ArrayMeta)

    # -- whole keys ---------------------------------------------------------------------------------------------

    def _put_object(self, key: str) -> None:
        entry = self._union.entry(key)
        assert entry is not None and entry.st is not None and entry.layer is not None
        mode, mtime_ns = _kept(key, entry.st)
        before = self._inherited(key)
        sha256 = None
        if before is not None and before.size == entry.st.st_size and before.is_link == entry.is_link:
            sha256 = self._sum_if_equal(key, entry)
        if before is None or sha256 is None:
            data = os.readlink(os.fsencode(entry.layer.path(key))) if entry.is_link else Path(entry.layer.path(key))
            self._writer.put(key, data, mode=mode, mtime_ns=mtime_ns, readers=self._readers(key, entry.st))
        elif before.mode != mode or (before.mtime_ns != mtime_ns and _was_dated(key, entry.st)):
            self._writer.keep(key, sha256, mode=mode, mtime_ns=mtime_ns)

    def _readers(self, key: str, st: os.stat_result) -> int:
        """Permission bits of the stored file: users who may not read a side file cannot read it in the store either."""
        if not key.startswith("files/") or stat.S_ISLNK(st.st_mode):
            return _ANYBODY
        bits, folder = stat.S_IMODE(st.st_mode), key.rpartition("/")[0]
        while "/" in folder:
            entry = self._union.entry(folder)
            passing = (entry.info.mode if entry is not None else 0) or 0o111
            bits &= ~sum(0o7 << shift for shift in (3, 0) if not passing >> shift & 1)
            folder = folder.rpartition("/")[0]
        return bits & 0o444 | 0o600

    def _inherited(self, key: str) -> KeyInfo | None:
        """The file that this version inherits at a key, if it puts none."""
        if self._lower is None or not self._union.shows_base(key.rpartition("/")[0]) or self._writer.cuts(key):
            return None
        info = self._lower.stat(key)
        return info if info is not None and info.kind == "file" else None

    def _sum_if_equal(self, key: str, entry: Entry) -> bytes | None:
        """The SHA-256 of a file's bytes, if they are those of the base."""
        assert self._lower is not None
        sums, at = hashlib.sha256(), 0
        try:
            for piece in self._union.pieces(key, entry):
                if self._lower.read(key, at, len(piece)) != piece:
                    return None
                sums.update(piece)
                at += len(piece)
        except Damaged:
            return None  # what was committed is lost: the same bytes again mend it
        return sums.digest()

    def _read(self, key: str) -> bytes:
        entry = self._union.entry(key)
        assert entry is not None
        if entry.layer is not None:
            return read_file(entry.layer.path(key))
        assert self._union.lower is not None
        return self._union.lower.read(key)


def _kept(key: str, st: os.stat_result) -> tuple[int, int]:
    """The mode and the time of a file as a version records them; 0: not recorded."""
    if not key.startswith("files/"):
        return 0, 0
    if stat.S_ISLNK(st.st_mode):
        return stat.S_IFLNK, st.st_mtime_ns or 1
    bits = stat.S_IMODE(st.st_mode)
    return 0 if bits == _FILE else bits, st.st_mtime_ns or 1


def _was_dated(key: str, st: os.stat_result) -> bool:
    """True if a side file was given its time, as rsync and archivers do. That the same bytes were written again is no
    reason for a version to record a new time."""
    return key.startswith("files/") and abs(st.st_ctime_ns - st.st_mtime_ns) > _DATED_NS


def _same(read: Callable[[], bytes], data: bytes) -> bool:
    try:
        return read() == data
    except VolfsError:
        return False


def _together(items: Iterable[_T], size: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Items so many at a time that each lot is worth a call, and none too large."""
    lot: list[_T] = []
    total = 0
    for item in items:
        if lot and (len(lot) == _TOGETHER or total + size(item) > _TOGETHER_BYTES):
            yield lot
            lot, total = [], 0
        lot.append(item)
        total += size(item)
    if lot:
        yield lot


def _in_parallel(work: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """``work`` of each item, in order, on all cores. Bounded: items are taken so many at a time."""
    source = iter(items)
    first = list(islice(source, 2))
    if len(first) < 2:
        yield from map(work, first)
        return
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        batch = first
        while batch:
            yield from pool.map(work, batch)
            batch = list(islice(source, _BATCH))
