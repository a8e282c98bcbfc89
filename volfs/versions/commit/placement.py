"""The place in history of a version that took hours to make, on a branch that moved meanwhile.

Decided here: a version is put on top of a head that moved if the two touch nothing in common, and under uncommitted
changes if those do not either; else it becomes a version on a new branch, from which what it changed is combined with
the head if that goes without a conflict. A prepared version is not lost, whichever process dies. Not here: how a
version is written (:mod:`volfs.versions.commit.version_writer`) and published (:mod:`volfs.versions.commit.publish`),
who moves the head and combines (:mod:`volfs.versions.branch_actions`), and which changes overlap
(:mod:`volfs.versions.commit.overlap`).

    maker   prepares ``.N.partial`` and holds the lock in it until the end
    holder  (the maker itself, or a mount that it asks through ``.volfs/publish``) compares, and publishes
    maker   if that could not be: publishes on a branch of its own, and has the holder combine what overlaps; if that
            goes, the branch of its own is removed, and its version, whose payloads were taken over, dropped
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from volfs.errors import Busy, Conflict, MergeConflict, NotFound, VolfsError
from volfs.model.graph import VersionInfo
from volfs.model.names import subject
from volfs.model.refs import RefKind
from volfs.model.touch import Touched
from volfs.storage.crash import crash_point
from volfs.storage.json_document import dump_document
from volfs.storage.manifest import Manifest, Op
from volfs.storage.payload import PIECE, digest
from volfs.storage.shards import wrap_array_json
from volfs.storage.store_layout import MANIFEST, VERSION_JSON, version_dir_name
from volfs.storage.trash import delete_tree
from volfs.versions.commit.movement import base_of, described_anew, moved, paths_in, reads_alike, recorded
from volfs.versions.commit.overlap import (
    FILE_MODE,
    CommittedSide,
    Content,
    Overlap,
    WorkingSide,
    committed,
    named,
    overlap,
)
from volfs.versions.commit.protocol import settle_own
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.commit.writable_history import WritableBranch, WritableHistory
from volfs.versions.committed.absences import check_taken
from volfs.versions.committed.content_id import content_id
from volfs.versions.committed.version import Version
from volfs.versions.committed.version_files import (
    AS_WRITTEN,
    StoredVersion,
    VersionFiles,
    array_meta,
    changes_root,
    read_manifest,
    read_version,
)
from volfs.versions.keys import NODE_JSON, json_key, node_key, node_path, parents
from volfs.versions.ledger import Cause, Draft
from volfs.versions.working.union import Union

_SECOND = 10**9
_IMPORT = "import"
_PATIENCE = 3600.0
"""Seconds to wait for processes that write or publish in turns."""
_PAUSE = 0.25
_AGAIN = (errno.EBUSY, errno.ENOTCONN, errno.ECONNABORTED)
"""Another process writes, or the mount that was asked has died."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A version that has its place. ``why``: the reason why it is not on the branch it was made for; None if it is."""

    info: VersionInfo
    branch: str
    why: str | None = None

    @property
    def number(self) -> int:
        """The version's number."""
        return self.info.number


def place(writer: VersionWriter) -> Placed:
    """Make a prepared version the head of the branch it was made for, or that of a new branch. By its maker."""
    dataset, deadline = writer.dataset, time.monotonic() + _PATIENCE
    while True:
        try:
            info = dataset.branch(writer.branch).publish(writer.number, writer.draft.token)
            break
        except VolfsError as error:
            wait = not isinstance(error, Conflict) and error.errno in _AGAIN and time.monotonic() < deadline
            why = "" if wait else str(error)
            overlaps = isinstance(error, MergeConflict)
        found = _find(dataset, writer.draft.token, writer.number)
        if isinstance(found, VersionInfo):  # the mount that was asked did it, and could not answer
            info = found
            with suppress(VolfsError):
                dataset.branch(writer.branch).catch_up()
            break
        writer.moved_to(found)
        if why:
            aside = _aside(writer, why)
            return _combined(dataset, writer.branch, aside) if overlaps else aside
        time.sleep(_PAUSE)
    writer.placed()
    return Placed(info, writer.branch)


def _combined(dataset: WritableHistory, branch: str, aside: Placed) -> Placed:
    """Combine a version that overlaps with what its branch has moved to, where not one voxel is in conflict."""
    try:
        info = dataset.branch(branch).carry_over(aside.number)
    except VolfsError as error:
        if not isinstance(error, MergeConflict):
            return replace(aside, why=f"{aside.why}; combining both: {error}")
        command = f"volfs cherry-pick {dataset.name}@{branch} v{aside.number}"
        return replace(aside, why=f"{aside.why}; `{command}` lists what is in conflict, and takes --ours or --theirs")
    crash_point("placement.combined")
    dataset.forget_branch(aside.branch)
    with suppress(Busy):  # somebody has tagged it meanwhile, or writes over it
        dataset.drop(aside.number, why=f"taken over by v{info.number}")
    return Placed(info, branch)


def publish_prepared(branch: WritableBranch, number: int, token: str, what: str = _IMPORT) -> VersionInfo:
    """Make a version prepared in ``.N.partial`` the branch's head. The caller holds the lock. ``what`` has made it, for
    the log of refs.

    Uncommitted changes then lie over it. Conflict, and nothing has changed, if they touch the same as the version;
    MergeConflict if newer versions do.
    """
    dataset = branch.dataset
    with branch.turn:
        settle_own(branch)
        branch.follow()
        head = branch.head
        prepared = Prepared.read(dataset, number, token)
        _check_uncommitted(branch, prepared)
        if prepared.parent != (head.number if head is not None else 0):
            if head is None or len(prepared.stored.info.parents) > 1:
                raise Conflict(f"branch {branch.ref!r} has moved meanwhile: nothing was committed, try again")
            prepared = _onto(dataset, prepared, head, branch.ref)
        info = _publish(dataset, prepared, branch.ref, prepared.parent, what)
        crash_point("placement.published")
        branch.follow()
        return info


@dataclass(frozen=True, slots=True)
class Prepared:
    """A complete version that does not exist yet."""

    draft: Draft
    files: VersionFiles
    stored: StoredVersion
    manifest: Manifest

    @classmethod
    def read(cls, dataset: WritableHistory, number: int, token: str) -> Prepared:
        """Read a draft. NotFound if there is none, or another writer's."""
        draft = dataset.ledger.draft(number, token)
        files = VersionFiles(dataset.objects, draft.folder)
        stored = _own_words(files)
        if stored is None or stored.writer != token:
            raise NotFound(f"no version is prepared as v{number}")
        return cls(draft, files, stored, read_manifest(files))

    @property
    def number(self) -> int:
        return self.draft.number

    @property
    def parent(self) -> int:
        return next(iter(self.stored.info.parents), 0)

    def row(self, key: str) -> int | None:
        """The record of a whole key, the last one there is."""
        names, records = self.manifest.strings, self.manifest.records
        if key not in names:
            return None
        rows = np.flatnonzero((records["ndim"] == 0) & (records["name"] == names.index(key)))
        rows = rows[records["op"][rows] != Op.REMOVE_SUBTREE]
        return int(rows[-1]) if len(rows) else None

    def name_of(self, row: int) -> str:
        """The object that holds the payload of a record, by its name in the version."""
        return self.manifest.strings[int(self.manifest.records["file"][row])].partition("/")[2]


@dataclass(frozen=True, slots=True)
class PreparedSide:
    """The changes of a prepared version to ``base``, for :func:`~volfs.versions.commit.overlap.overlap`."""

    base: Version | None
    prepared: Prepared

    def touched(self, beside: Touched) -> Touched:
        prepared, base = self.prepared, self.base
        found = recorded(prepared.manifest, base)
        anew = set()
        for path, array in prepared.stored.arrays.items():
            before = None if base is None else base.array(path)
            if array.complete or not reads_alike(
                None if before is None else before.meta, array_meta(prepared.files, path)
            ):
                anew.add(node_key(path))
        gone = described_anew(paths_in(Touched(trees=found.trees)), base, None)
        return found | Touched(arrays=frozenset(anew) | gone)

    def content(self, key: str) -> Content:
        row = self.prepared.row(key)
        record = None if row is None else self.prepared.manifest.records[row]
        if row is None or record is None or record["op"] != Op.PUT:
            # Equal to nothing: a manifest must not remove a key twice.
            return Content("other", 0, None)
        return Content("file", int(record["mode"]) or FILE_MODE, self.prepared.files.read(self.prepared.name_of(row)))


def _check_uncommitted(branch: WritableBranch, prepared: Prepared) -> None:
    """Raise Conflict if a version and the uncommitted changes changed the same."""

    def see(union: Union) -> Overlap:
        base = base_of(union)
        return overlap(base, WorkingSide(union, branch.interpreter), PreparedSide(base, prepared))

    keys = sorted(branch.working.look(see).keys)
    if keys:
        raise Conflict(
            f"branch {branch.ref!r} has uncommitted changes to keys that this version changes: {named(keys)}"
        )


def _onto(dataset: WritableHistory, prepared: Prepared, head: VersionInfo, branch: str) -> Prepared:
    """The version on top of a head that has moved since it was begun. MergeConflict if both touched the same."""
    base = dataset.version(prepared.parent) if prepared.parent else None
    newer = dataset.version(head.number)
    theirs = CommittedSide(base, newer, moved(dataset, prepared.parent, head.number))
    found = overlap(base, PreparedSide(base, prepared), theirs)
    keys = found.keys.union(key for key, data in found.merged.items() if len(data) > PIECE)
    if keys:
        raise MergeConflict(
            f"branch {branch!r} has moved to v{head.number}, which changed the same keys: {named(sorted(keys))}"
        )
    return _rewritten(dataset, prepared, newer, found.merged)


# -- on top of another parent -----------------------------------------------------------------------------------------


def _rewritten(
    dataset: WritableHistory, prepared: Prepared, head: Version | None, merged: Mapping[str, bytes]
) -> Prepared:
    """Give a prepared version the parent ``head``: under a new number, with ``merged`` for some keys.

    May be cut short anywhere and repeated: ``version.json`` comes last.
    """
    with dataset.locked():
        draft = dataset.ledger.renumber(prepared.draft, dataset.next_number())
    crash_point("placement.renumbered")
    files = VersionFiles(dataset.objects, draft.folder)
    prepared = replace(prepared, draft=draft, files=files)
    manifest = _with(_renamed(prepared.manifest, version_dir_name(draft.number)), prepared, merged)
    prepared = replace(prepared, manifest=manifest)
    files.put(MANIFEST, manifest.to_bytes())
    for key, data in merged.items():  # for other readers: what counts is what the manifest names
        files.put(key, data)
    _write_metadata(prepared, head)
    crash_point("placement.rewritten")
    info = prepared.stored.info
    when = info.time_ns if head is None else max(info.time_ns, head.info.time_ns + _SECOND)
    metas = {path: array_meta(files, path) for path, _ in manifest.chunks()}
    identity = content_id(
        parents=[] if head is None else [head.info.content_id],
        author=info.author,
        message=info.message,
        time_ns=when,
        root=changes_root(manifest, metas),
        meta=prepared.stored.meta,
        conflicts=prepared.stored.conflicts,
    )
    info = replace(
        info, number=draft.number, parents=() if head is None else (head.number,), time_ns=when, content_id=identity
    )
    stored = replace(prepared.stored, info=info)
    files.put(VERSION_JSON, dump_document(stored.to_json()))
    return replace(prepared, stored=stored)


def _renamed(manifest: Manifest, folder: str) -> Manifest:
    """The manifest of a version whose directory has got another name."""
    records, strings = manifest.records.copy(), list(manifest.strings)
    at = {text: number for number, text in enumerate(strings)}
    own = records["op"] == Op.PUT  # what was taken lies where it lay
    used = np.unique(records["file"][own])
    table = np.arange(len(strings), dtype=np.uint32)
    for old in used.tolist():
        text = f"{folder}/{strings[old].partition('/')[2]}"
        if text not in at:
            at[text] = len(strings)
            strings.append(text)
        table[old] = at[text]
    records["file"][own] = table[records["file"][own]]
    return Manifest(strings, records, manifest.pieces)


def _with(manifest: Manifest, prepared: Prepared, merged: Mapping[str, bytes]) -> Manifest:
    """The manifest with other bytes for some keys, in files of their own."""
    records, strings = manifest.records.copy(), list(manifest.strings)
    for key, data in merged.items():
        row = prepared.row(key)
        assert row is not None, "a merged key is one that was put"
        name = f"objects/merged-{row}"
        prepared.files.put(name, data)
        sums = digest(data)
        payload = sums.payload(f"{version_dir_name(prepared.number)}/{name}")
        record = records[row : row + 1]
        record["file"], record["offset"], record["length"] = len(strings), payload.offset, payload.length
        record["crc32c"], record["sha256"] = payload.crc32c, np.frombuffer(sums.sha256, "V32")
        record["pieces_start"] = record["pieces_count"] = 0
        strings.append(payload.file)
    return Manifest(strings, records, manifest.pieces)


def _write_metadata(prepared: Prepared, head: Version | None) -> None:
    """Write the metadata of the hierarchy in the version's directory, for other readers: the version whose chunks it
    inherits, and the groups above its own nodes."""
    there = prepared.files.sizes()
    for path, array in prepared.stored.arrays.items():
        folder = node_key(path)
        if f"{folder}/{AS_WRITTEN}" not in there:
            continue
        meta = array_meta(prepared.files, path)
        sharded = any(n > 1 for n in array.shard_chunks)
        shard = tuple(s * c for s, c in zip(array.shard_chunks, meta.chunk_shape, strict=True)) if sharded else None
        note = {
            "version": prepared.number,
            "complete": array.complete,
            "inherits_from": None if head is None else head.number,
        }
        raw = prepared.files.read(f"{folder}/{AS_WRITTEN}")
        prepared.files.put(f"{folder}/{NODE_JSON}", wrap_array_json(raw, shard, note))
    if head is None:
        return
    folders = {folder for name in there for folder in parents(name)}
    for folder_key in sorted(_above(prepared)):
        key = f"{folder_key}/{NODE_JSON}"
        path = node_path(folder_key) or ""
        if folder_key in folders and prepared.row(key) is None and path not in prepared.stored.arrays:
            now = committed(head, key)
            if now is not None and head.array(path) is None:
                prepared.files.put(key, now)


def _above(prepared: Prepared) -> set[str]:
    manifest = prepared.manifest
    keys = {manifest.strings[n] for n in manifest.records["name"][manifest.keys()].tolist()}
    keys |= {json_key(path) for path in prepared.stored.arrays}
    return {folder for key in keys if key.startswith("zarr/") for folder in parents(key)}


# -- publishing -------------------------------------------------------------------------------------------------------


def _publish(
    dataset: WritableHistory, prepared: Prepared, branch: str, expected: int | None, what: str = _IMPORT
) -> VersionInfo:
    stored = prepared.stored
    if stored.branch != branch:
        stored = replace(stored, branch=branch)
        prepared.files.put(VERSION_JSON, dump_document(stored.to_json()))
    with dataset.locked(patience=_PATIENCE):
        if expected is None:
            delete_tree(dataset.layout.working(branch).root)  # an earlier branch of that name may have left one
        check_taken(dataset.objects, prepared.manifest)
        return dataset.ledger.publish(
            prepared.draft,
            branch=branch,
            expected=expected,
            content_id=stored.info.content_id,
            sizes=prepared.files.sizes(),
            index=lambda: dataset.index(stored, prepared.manifest, heads={branch: prepared.number}),
            indexed=lambda: prepared.number in dataset.graph,
            cause=Cause(f"{what}: {subject(stored.info.message)}", stored.info.author),
        )


def publish_new(writer: VersionWriter, branch: str, what: str) -> VersionInfo:
    """Make a prepared version the head of a branch that does not exist yet. Conflict if it does."""
    prepared = Prepared.read(writer.dataset, writer.number, writer.draft.token)
    info = _publish(writer.dataset, prepared, branch, None, what)
    writer.placed()
    return info


def publish_over(writer: VersionWriter, branch: str, expected: int, what: str) -> VersionInfo:
    """Make a prepared version the head of a branch in the place of version ``expected``, which need not be its parent.
    Conflict if the branch stands elsewhere. The caller holds the branch's lock."""
    prepared = Prepared.read(writer.dataset, writer.number, writer.draft.token)
    info = _publish(writer.dataset, prepared, branch, expected, what)
    writer.placed()
    return info


def _aside(writer: VersionWriter, why: str) -> Placed:
    """Make a prepared version the head of a new branch, on top of the version it was made from."""
    dataset = writer.dataset
    prepared = Prepared.read(dataset, writer.number, writer.draft.token)
    if prepared.stored.info.number != prepared.number:  # a mount died while it moved it on top of a newer head
        prepared = _rewritten(dataset, prepared, dataset.version(prepared.parent) if prepared.parent else None, {})
    name = stem = f"import-v{prepared.number}"
    count = 1
    while any(dataset.ledger.has_ref(kind, name) for kind in RefKind):
        count += 1
        name = f"{stem}-{count}"
    info = _publish(dataset, prepared, name, None)
    writer.placed()
    return Placed(info, name, why)


def _find(dataset: WritableHistory, token: str, number: int) -> VersionInfo | int:
    """A prepared version that a mount was asked to publish: the published version, or the number it is prepared as."""
    with dataset.locked(patience=_PATIENCE):  # taking it settles what a mount that died left
        for found in dataset.ledger.drafts():
            if found >= number:
                stored = _own_words(VersionFiles(dataset.objects, dataset.ledger.draft(found, token).folder))
                if stored is not None and stored.writer == token:
                    return found
        for found in sorted(n for n in dataset.graph.versions if n >= number):
            if read_version(VersionFiles.of(dataset.objects, found)).writer == token:
                return dataset.info(found)
    raise NotFound(f"the version that was prepared as v{number} is gone: another process has removed it")


def _own_words(partial: VersionFiles) -> StoredVersion | None:
    """``version.json`` of a partial version, under whatever number it was written."""
    try:
        return read_version(partial)
    except VolfsError:
        return None
