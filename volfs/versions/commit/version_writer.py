"""The only thing that makes versions. A commit and an import both write through a :class:`VersionWriter`.

Decided here: what a version's directory holds besides shards: objects under their own keys, every ancestor's
``zarr.json``, the manifest and ``version.json``; and the order in which all of it reaches the disk. Not decided here:
shards (:mod:`volfs.versions.commit.array_writer`), the steps that make the version exist
(:mod:`volfs.versions.commit.publish`), and what a commit puts into it (:mod:`volfs.versions.commit.protocol`).

Until :meth:`VersionWriter.publish` nothing is visible to anyone. A writer that dies leaves ``.N.partial``, which the
next opening of the store removes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from math import prod
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from volfs.errors import BadInput, Damaged, NotFound, Unsupported, VolfsError, WrongKind
from volfs.model.box import Index
from volfs.model.graph import VersionInfo, is_time
from volfs.model.grid import block_shape_for
from volfs.model.metadata import ArrayMeta, parse_node
from volfs.model.names import check_key, subject
from volfs.storage.backend import Buffer, ObjectWriter
from volfs.storage.codec import ChunkCodec
from volfs.storage.crash import crash_point
from volfs.storage.files import read_file
from volfs.storage.json_document import dump_document
from volfs.storage.manifest import NO_FILE, Manifest, ManifestBuilder, Op
from volfs.storage.payload import Payload
from volfs.storage.shards import check_shard_shape, wrap_array_json
from volfs.storage.store_layout import MANIFEST, VERSION_JSON, parse_version_dir, version_dir_name
from volfs.versions.author import default_author
from volfs.versions.commit.array_writer import ArrayWriter, copy_in
from volfs.versions.commit.publish import taken_away
from volfs.versions.commit.shard_shape import choose_shard, dense_shard
from volfs.versions.commit.writable_history import WritableHistory
from volfs.versions.committed.absences import check_taken
from volfs.versions.committed.content_id import content_id
from volfs.versions.committed.version import Version
from volfs.versions.committed.version_files import (
    AS_WRITTEN,
    MAX_CELLS,
    StoredArray,
    StoredVersion,
    VersionFiles,
    changes_root,
    count,
)
from volfs.versions.keys import NODE_JSON, covers, json_key, node_key, node_path, node_path_of_json, parents
from volfs.versions.ledger import Cause

_SECOND = 10**9
_PATIENCE = 3600.0
"""Seconds to wait for others to publish: what was written for hours is not given up because they take minutes."""


class _Object(NamedTuple):
    """A whole key that is put. ``owner``: the version whose payload it is; 0 for the one that is being written."""

    payload: Payload
    sha256: bytes
    owner: int = 0
    mode: int = 0
    mtime_ns: int = 0


class VersionWriter:
    """Writes one version on top of ``parent`` (0: the empty version), to become the head of ``branch``.

    Everything is thread-safe. Leaving the context with an error, or without publishing, leaves nothing behind.
    """

    def __init__(
        self, dataset: WritableHistory, branch: str, parent: int, *, extra_parents: Sequence[int] = ()
    ) -> None:
        self.dataset = dataset
        self.branch = branch
        self.parent = parent
        self._parents = ((parent,) if parent else ()) + tuple(extra_parents)
        self._base: Version | None = dataset.version(parent) if parent else None
        self._infos = [dataset.info(number) for number in self._parents]
        with dataset.locked():
            dataset.rules.check_grows(branch, dataset.named_by_file(branch) or 0, self._parents)
            self.draft = dataset.ledger.reserve(dataset.next_number())
        self.files = VersionFiles(dataset.objects, self.draft.folder)
        self._batch = self.files.batch()
        self._lock = RLock()
        self._arrays: dict[str, ArrayWriter] = {}
        self._array_json: dict[str, bytes] = {}
        self._objects: dict[str, _Object] = {}
        self._folders: dict[str, int] = {}
        self._removed: set[str] = set()
        self._subtrees: set[str] = set()
        self._placed = 0
        self._ready: tuple[StoredVersion, Manifest, Mapping[str, int]] | None = None
        self._open = True

    @property
    def number(self) -> int:
        """The version's number."""
        return self.draft.number

    # -- what changes -------------------------------------------------------------------------------------------

    def put(
        self, key: str, data: Buffer | Path | BinaryIO, *, mode: int = 0, mtime_ns: int = 0, readers: int = 0o666
    ) -> None:
        """Put a whole key: metadata, a side file, an object that volfs does not interpret. A repeat replaces.

        ``mode`` and ``mtime_ns`` of a side file as in :data:`volfs.storage.manifest.RECORD`; the data of a symbolic
        link is its target. ``readers``: permission bits of the file in the store, if they are less than the umask
        leaves. The ``zarr.json`` of an array goes through :meth:`array` by itself.
        """
        check_key(key)
        if key.startswith("zarr/") and key.rpartition("/")[2] == NODE_JSON:
            raw = _in_memory(data)
            if _array_meta(raw) is not None:
                self._declare(node_path(key.removesuffix(f"/{NODE_JSON}")) or "", raw)
                return
            data = raw
        out, file = self._begin(key, readers)
        sums = copy_in(out, data)
        with self._lock:
            self._objects[key] = _Object(sums.payload(file), sums.sha256, 0, mode, mtime_ns)
            self._removed.discard(key)

    def keep(self, key: str, sha256: bytes, *, mode: int = 0, mtime_ns: int = 0) -> None:
        """Put a side file with the bytes that the parent has, whose SHA-256 this is, and another mode or time."""
        assert self._base is not None, "there is nothing to keep without a parent"
        payload = self._base.payload(key)
        owner = parse_version_dir(payload.file.partition("/")[0])
        if owner is None:
            raise Damaged(f"{payload.file} is not in the directory of a version")
        self.take(key, payload, sha256, owner, mode=mode, mtime_ns=mtime_ns)

    def take(self, key: str, payload: Payload, sha256: bytes, owner: int, *, mode: int = 0, mtime_ns: int = 0) -> None:
        """Put a whole key, no array's metadata, with the payload of version ``owner``: no byte of it is copied."""
        check_key(key)
        with self._lock:
            self._objects[key] = _Object(payload, sha256, owner, mode, mtime_ns)
            self._removed.discard(key)

    def set_mode(self, folder: str, mode: int) -> None:
        """Record the permission bits of a directory of side files."""
        check_key(folder)
        with self._lock:
            self._folders[folder] = mode

    def array(
        self,
        path: str,
        zarr_json: bytes,
        *,
        created: bool,
        shard_shape: Index | None = None,
        expected_chunks: int | None = None,
        chunks: NDArray[np.int64] | None = None,
    ) -> ArrayWriter:
        """Write chunks of the array at hierarchy path ``path``, whose metadata is ``zarr_json`` as of this version.

        ``created``: a new incarnation, inheriting no chunks. ``shard_shape`` in voxels, a whole number of chunks; None
        chooses by density from ``chunks`` (the coordinates to come, a row each) or, roughly, from ``expected_chunks``;
        with neither, as for a whole array. BadMetadata or Unsupported if volfs cannot interpret the array.
        """
        meta = parse_node(zarr_json)
        if not isinstance(meta, ArrayMeta):
            raise WrongKind(f"{json_key(path)} is the metadata of a group, not of an array")
        if created and self._base is not None and self._base.array(path) is not None:
            self.remove_subtree(node_key(path))
        block, shard = self._shapes(path, meta, created, shard_shape, expected_chunks, chunks)
        writer = ArrayWriter(path, meta, shard, block, self._begin, created=created)
        with self._lock:
            if path in self._arrays:
                raise BadInput(f"array {path!r} is being written in this version already")
            self._arrays[path] = writer
        self._declare(path, zarr_json)
        return writer

    def writing(self, path: str) -> ArrayWriter | None:
        """What :meth:`array` has begun for the array at that path."""
        with self._lock:
            return self._arrays.get(path)

    def remove(self, key: str) -> None:
        """Record that a whole key is gone."""
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)
            self._removed.add(key)

    def remove_subtree(self, key: str) -> None:
        """Record that a key is removed with everything below it that the parent has. Keys that this version puts there
        stay.

        ``zarr`` and ``files`` themselves are emptied.
        """
        if key not in ("zarr", "files"):
            check_key(key)
        with self._lock:
            self._subtrees.add(key)

    def holds(self, key: str) -> bool:
        """Whether this version puts or removes that whole key."""
        with self._lock:
            return key in self._objects or key in self._removed or node_path_of_json(key) in self._array_json

    def cuts(self, key: str) -> bool:
        """Whether this version removes what its parent has at a key, by removing a directory above it."""
        with self._lock:
            return any(covers(gone, key) for gone in self._subtrees)

    @property
    def empty(self) -> bool:
        """Whether nothing has changed yet."""
        with self._lock:
            changed = any(len(array) for array in self._arrays.values())
            new = any(self._is_news(path, raw) for path, raw in self._array_json.items())
            return not (changed or new or self._objects or self._folders or self._removed or self._subtrees)

    # -- its end ------------------------------------------------------------------------------------------------

    def publish(
        self,
        message: str,
        author: str | None = None,
        time_ns: int | None = None,
        *,
        meta: Mapping[str, str] | None = None,
    ) -> VersionInfo:
        """Make the version exist, as the new head of the branch, taking the branch's lock if the process does not hold
        it.

        ReadOnly if another keeps the lock; Conflict if the branch has moved meanwhile. Uncommitted changes that touch
        nothing of it lie over it then; else the branch is behind. The version's time is at least a whole second after
        its first parent's: rsync skips a same-size change within one.
        """
        try:
            self.prepare(message, author, time_ns, meta=meta)
            branch = self.dataset.branch(self.branch) if self.dataset.named_by_file(self.branch) is not None else None
            with nullcontext() if branch is None else branch.writing():
                info = self.place()
                if branch is not None:
                    branch.follow()
        except BaseException:
            self.abort()
            raise
        return info

    def prepare(
        self,
        message: str,
        author: str | None = None,
        time_ns: int | None = None,
        conflicts: Sequence[Mapping[str, Any]] = (),
        *,
        meta: Mapping[str, str] | None = None,
        passing: bool = False,
    ) -> None:
        """Write the version down completely and durably. It does not exist yet. ``conflicts``: what a merge has left
        open, as ``version.json`` has it. ``meta``: what else is said of it, by name. ``passing``: it is dropped before
        anybody reads its message, which then need not be as the dataset's rules have it."""
        if not self._open:
            raise BadInput(f"version v{self.number} is published or given up already")
        if not passing:
            self.dataset.rules.check_message(message)
        try:
            stored, manifest = self._complete(
                message, author or default_author(), time_ns, tuple(conflicts), meta or {}
            )
            crash_point("commit.packed")
            files = self.sync()
        except FileNotFoundError as error:
            raise self._taken_away(_name_in(error)) from error
        self._check_payloads(manifest, files)
        crash_point("commit.synced")
        self._ready = stored, manifest, files

    def sync(self) -> Mapping[str, int]:
        """Make durable what was written so far; the size of each object, by its name. Busy if some of it is gone."""
        try:
            return self._batch.sync()
        except NotFound as error:
            raise self._taken_away(_name_in(error.__cause__)) from error

    def place(self) -> VersionInfo:
        """Make the version that was prepared the head of its branch, whose lock is held. Conflict if it has moved."""
        assert self._ready is not None, "a version is prepared before it is placed"
        stored, manifest, sizes = self._ready
        with self.dataset.locked(patience=_PATIENCE):
            check_taken(self.dataset.objects, manifest)
            info = self.dataset.ledger.publish(
                self.draft,
                branch=self.branch,
                expected=self.parent,
                content_id=stored.info.content_id,
                sizes=sizes,
                index=lambda: self.dataset.index(stored, manifest, heads={self.branch: self.number}),
                indexed=lambda: self.number in self.dataset.graph,
                cause=Cause(f"commit: {subject(stored.info.message)}", stored.info.author),
            )
        self._open = False
        return info

    def moved_to(self, number: int) -> None:
        """Record the number that another process gave to the prepared version."""
        self.draft = self.dataset.ledger.moved(self.draft, number)
        self.files = VersionFiles(self.dataset.objects, self.draft.folder)

    def placed(self) -> None:
        """The prepared version exists: nothing of it is this writer's any more."""
        self._open = False
        self.dataset.ledger.abandon(self.draft)

    def abort(self) -> None:
        """Give up: nothing of the version remains."""
        if not self._open:
            return
        self._open = False
        for array in self._arrays.values():
            array.abort()
        self.dataset.ledger.abandon(self.draft)

    def __enter__(self) -> VersionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    # -- inside -------------------------------------------------------------------------------------------------

    def _declare(self, path: str, raw: bytes) -> None:
        with self._lock:
            self._array_json[path] = raw
            self._removed.discard(json_key(path))
            self._objects.pop(json_key(path), None)

    def _is_news(self, path: str, raw: bytes) -> bool:
        """Whether an array's metadata differs from what this version inherits."""
        return self._inherited(json_key(path)) != raw

    def _inherited(self, key: str) -> bytes | None:
        """The bytes that this version inherits at a key: None where the parent has none, or a removal hides them."""
        if self._base is None or key in self._removed or self.cuts(key):
            return None
        try:
            return self._base.read(key)
        except (NotFound, WrongKind):
            return None

    def _shapes(
        self,
        path: str,
        meta: ArrayMeta,
        created: bool,
        shard_shape: Index | None,
        expected: int | None,
        chunks: NDArray[np.int64] | None,
    ) -> tuple[Index, Index]:
        """(index block, shard), in chunks per axis. A shard divides the block, whose shape an array keeps for life."""
        ones = (1,) * meta.ndim
        inherited = None if created or self._base is None else self._base.block_shape(path)
        block = inherited or block_shape_for(meta.chunk_shape, meta.dtype.itemsize, meta.grid.grid_shape)
        if shard_shape is not None:
            check_shard_shape(meta.chunk_shape, shard_shape)
            shard = tuple(s // c for s, c in zip(shard_shape, meta.chunk_shape, strict=True))
            if any(b % s for b, s in zip(block, shard, strict=True)):
                if inherited is not None:
                    raise BadInput(
                        f"shards of {shard} chunks do not divide the array's index blocks of {block}: choose others"
                    )
                block = tuple(s * max(1, b // s) for b, s in zip(block, shard, strict=True))
                if prod(block) > MAX_CELLS:
                    raise BadInput(f"shards of {shard} chunks are too large: at most {MAX_CELLS} chunks fit")
            return block, shard
        # A client's own shards, and chunks whose codecs volfs cannot run, stay what they are: one object per key.
        if meta.sharding is not None or not _known(meta):
            return block, ones
        if chunks is not None:
            return block, choose_shard(block, meta.chunk_nbytes, chunks)
        if expected is not None and expected <= 1:
            return block, ones
        return block, dense_shard(block, meta.chunk_nbytes)

    def _begin(self, key: str, readers: int = 0o666) -> tuple[ObjectWriter, str]:
        """Begin the object of a key: under its own name, unless that cannot be. Its writer, and its key below
        ``versions/`` when the version exists.

        Two things keep a key from its own name: the files volfs puts beside (:data:`AS_WRITTEN`), and a key inside an
        array's chunk directories that is a file where another key needs a directory, or the reverse.
        """
        base = version_dir_name(self.number)
        if key.rpartition("/")[2] != AS_WRITTEN:
            with suppress(WrongKind):
                return self._open_object(key, readers), f"{base}/{key}"
        with self._lock:
            self._placed += 1
            aside = f"objects/{self._placed:08d}"
        return self._open_object(aside, readers), f"{base}/{aside}"

    def _open_object(self, name: str, readers: int = 0o666) -> ObjectWriter:
        try:
            return self._batch.open(name, readers)
        except NotFound as error:
            raise self._taken_away() from error

    def _taken_away(self, name: str = "") -> VolfsError:
        """The error for a version of which something is not there any more: NotFound if the dataset is not; else others
        took it for a dead one while it was being written."""
        try:
            self.dataset.check_itself()
        except NotFound as error:
            return NotFound(f"{error}, while v{self.number} of it was being written: nothing was committed")
        return taken_away(self.number, name)

    def _complete(
        self,
        message: str,
        author: str,
        time_ns: int | None,
        conflicts: tuple[Mapping[str, Any], ...],
        meta: Mapping[str, str],
    ) -> tuple[StoredVersion, Manifest]:
        """Write all that is not written yet."""
        for array in self._arrays.values():
            array.finish()
        for path, raw in self._array_json.items():
            self._write_array_json(path, raw)
        self._write_ancestors()
        manifest = self._manifest()
        copy_in(self._open_object(MANIFEST), manifest.to_bytes())
        first = self._infos[0].time_ns + _SECOND if self._infos else 0
        when = max(time.time_ns() if time_ns is None else time_ns, first)
        if not is_time(when):
            raise BadInput(f"a version's time lies between 1970 and 2262: {when} ns does not")
        metas = {path: array.meta for path, array in self._arrays.items()}
        info = VersionInfo(self.number, self._parents, 0, 0, when, author, message, "")
        identity = content_id(
            parents=[parent.content_id for parent in self._infos],
            author=author,
            message=message,
            time_ns=when,
            root=changes_root(manifest, metas),
            meta=meta,
            conflicts=conflicts,
        )
        arrays = {
            path: StoredArray(array.block_shape, array.shard_chunks, array.complete)
            for path, array in self._arrays.items()
        }
        stored = StoredVersion(
            replace(info, content_id=identity), self.branch, self.draft.token, count(manifest), arrays, conflicts, meta
        )
        copy_in(self._open_object(VERSION_JSON), dump_document(stored.to_json()))
        return stored, manifest

    def _write_array_json(self, path: str, raw: bytes) -> None:
        """Lay out the metadata of one array: for other readers, and as the client wrote it."""
        array = self._arrays.get(path)
        key = json_key(path)
        complete = array is not None and array.complete
        if complete and array is not None and not array.sharded:
            stored = raw
        else:
            shard = None
            if array is not None and array.sharded:
                shard = tuple(s * c for s, c in zip(array.shard_chunks, array.meta.chunk_shape, strict=True))
            note: Mapping[str, object] = {
                "version": self.number,
                "complete": complete,
                "inherits_from": self.parent or None,
            }
            stored = wrap_array_json(raw, shard, note)
        out, file = self._begin(key)
        sums = copy_in(out, stored)
        if stored != raw:
            file = f"{file.rpartition('/')[0]}/{AS_WRITTEN}"
            sums = copy_in(self._open_object(file.partition("/")[2]), raw)
        if self._is_news(path, raw):
            self._objects[key] = _Object(sums.payload(file), sums.sha256)

    def _write_ancestors(self) -> None:
        """Copy in the ``zarr.json`` of every node above a change: Zarr v3 knows no implicit groups."""
        folders = {
            folder
            for key in [*self._objects, *map(json_key, self._arrays)]
            if key.startswith("zarr/")
            for folder in parents(key)
        }
        for folder in sorted(folders):
            key = f"{folder}/{NODE_JSON}"
            if key in self._objects or (node_path(folder) or "") in self._array_json:
                continue
            raw = self._inherited(key)
            if raw is None:
                continue
            if _array_meta(raw) is not None:
                self._write_array_json(node_path(folder) or "", raw)
            else:
                copy_in(self._begin(key)[0], raw)

    def _check_payloads(self, manifest: Manifest, files: Mapping[str, int]) -> None:
        """Raise Busy unless each payload that this version puts lies in a file that is there."""
        records = manifest.records
        mine = f"{version_dir_name(self.number)}/"
        rows = np.flatnonzero((records["op"] == Op.PUT) & (records["file"] != NO_FILE))
        used, which = np.unique(records["file"][rows], return_inverse=True)
        ends = np.zeros(len(used), np.uint64)
        np.maximum.at(ends, which, records["offset"][rows] + records["length"][rows])
        for file, end in zip(used.tolist(), ends.tolist(), strict=True):
            name = manifest.strings[file]
            if name.startswith(mine) and files.get(name.removeprefix(mine), -1) < end:
                raise self._taken_away(name.removeprefix(mine))

    def _manifest(self) -> Manifest:
        builder = ManifestBuilder()
        for key in sorted(self._subtrees):
            builder.remove_subtree(key)
        for key in sorted(self._removed):
            builder.remove(key)
        for key, (payload, sha256, owner, mode, mtime_ns) in sorted(self._objects.items()):
            if owner:
                builder.take(key, payload, sha256, owner, mode=mode, mtime_ns=mtime_ns)
            else:
                builder.put(key, payload, sha256, mode=mode, mtime_ns=mtime_ns)
        for folder, mode in sorted(self._folders.items()):
            builder.directory(folder, mode)
        for _, array in sorted(self._arrays.items()):
            array.records(builder)
        return builder.build()


def _name_in(error: BaseException | None) -> str:
    """The name of the file that was not there; "" if the error does not say."""
    return os.path.basename(error.filename or "") if isinstance(error, FileNotFoundError) else ""


def _in_memory(data: Buffer | Path | BinaryIO) -> bytes:
    if isinstance(data, Path):
        return read_file(data)
    return bytes(data) if isinstance(data, bytes | bytearray | memoryview) else data.read()


def _known(meta: ArrayMeta) -> bool:
    try:
        ChunkCodec.of(meta)
    except Unsupported:
        return False
    return True


def _array_meta(raw: bytes) -> ArrayMeta | None:
    try:
        meta = parse_node(raw)
    except VolfsError:
        return None
    return meta if isinstance(meta, ArrayMeta) else None
