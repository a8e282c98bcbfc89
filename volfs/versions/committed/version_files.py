"""Reading a version's own directory: everything about it, without the catalog.

Decided here: what ``version.json`` says, how it is checked against the manifest beside it, and how a manifest becomes
the changes that the content id covers. Used by recovery, by rebuilding the catalog and by fsck; readers of data go
through the catalog. Written by :mod:`volfs.versions.commit.version_writer`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volfs.errors import Damaged, NotFound, VolfsError
from volfs.model.box import Box, Index
from volfs.model.display import printable
from volfs.model.graph import VersionInfo, is_time
from volfs.model.metadata import ArrayMeta, parse_node
from volfs.model.names import MAX_VERSION
from volfs.storage.backend import Backend, Batch, read_document, read_object
from volfs.storage.manifest import Manifest, Op
from volfs.storage.store_layout import MANIFEST, VERSION_JSON, version_dir_name
from volfs.versions.committed.content_id import (
    DIRECTORY,
    PUT,
    REMOVE,
    REMOVE_SUBTREE,
    Change,
    key_bytes,
    tree_root_of_puts,
)
from volfs.versions.keys import NODE_JSON, node_key

AS_WRITTEN = "zarr.as-written.json"
"""The client's own ``zarr.json``, beside the one that says how the chunks are packed."""

MAX_CELLS = 1 << 16
"""Chunks per index block, and so per shard: the index counts cells in 16 bits."""

_CONTENT_ID = re.compile("[0-9a-f]{64}")
_LEAF = {Op.PUT: PUT, Op.TAKE: PUT, Op.REMOVE: REMOVE, Op.REMOVE_SUBTREE: REMOVE_SUBTREE, Op.DIRECTORY: DIRECTORY}


@dataclass(frozen=True, slots=True)
class StoredArray:
    """How one array is kept in one version. Shapes in chunks; ``complete``: this version created the array."""

    block_shape: Index
    shard_chunks: Index
    complete: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """How much a version changed. ``bytes`` is that of its own payloads."""

    put: int
    removed: int
    bytes: int


@dataclass(frozen=True, slots=True)
class NodeChanges:
    """Keys put and removed in one place, and the bytes put. Where a directory was removed, every key below it counts
    that is not put again."""

    put: int = 0
    removed: int = 0
    bytes: int = 0
    #: Of an array: the smallest box of chunk coordinates around its changed chunks.
    chunks: Box | None = None


@dataclass(frozen=True, slots=True)
class VersionChanges:
    """The changes of one version: totals, and keys by place.

    ``nodes`` has arrays by ``zarr/PATH``; other metadata, objects and side files by their directory. ``meta``: what its
    maker said of it, by name.
    """

    counts: Counts
    nodes: Mapping[str, NodeChanges]
    meta: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """``version.json``: ``info`` has no place in a lineage yet.

    ``writer`` is a token of its maker: an intent of a commit names the version by number and token, because the number
    alone may have gone to another writer after a crash. It is no part of the content id.
    """

    info: VersionInfo
    branch: str
    writer: str
    counts: Counts
    arrays: Mapping[str, StoredArray]
    conflicts: tuple[Mapping[str, Any], ...] = ()
    """What a merge has left open, as :class:`volfs.versions.combine.decisions.OpenConflict` spells it."""
    meta: Mapping[str, str] = field(default_factory=dict)
    """What else its maker said of it, by name."""

    def to_json(self) -> dict[str, Any]:
        """The document. Times are for people; ``time_ns`` counts."""
        info = self.info
        when = datetime.fromtimestamp(info.time_ns // 10**9, UTC)
        return {
            "version": info.number,
            "parents": list(info.parents),
            "branch": self.branch,
            "writer": self.writer,
            "author": info.author,
            "time": when.isoformat().replace("+00:00", "Z"),
            "time_ns": info.time_ns,
            "message": info.message,
            "content_id": info.content_id,
            "counts": {"put": self.counts.put, "removed": self.counts.removed, "bytes": self.counts.bytes},
            "arrays": {
                path: {
                    "block_shape": list(array.block_shape),
                    "shard_chunks": list(array.shard_chunks),
                    "complete": array.complete,
                }
                for path, array in sorted(self.arrays.items())
            },
            **({"meta": dict(self.meta)} if self.meta else {}),
            **({"conflicts": [dict(each) for each in self.conflicts]} if self.conflicts else {}),
        }


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """The objects of one version, among those of a dataset's ``versions/``. ``number``: None for one that is being
    written, which may call itself otherwise."""

    objects: Backend
    folder: str
    number: int | None = None

    @classmethod
    def of(cls, objects: Backend, number: int) -> VersionFiles:
        """Those of a version that exists."""
        return cls(objects, version_dir_name(number), number)

    def key(self, name: str) -> str:
        """The key of an object of this version."""
        return f"{self.folder}/{name}"

    def read(self, name: str) -> bytes:
        """An object of this version. Raises NotFound, or Damaged."""
        return read_object(self.objects, self.key(name))

    def batch(self) -> Batch:
        """Write the objects of this version."""
        return self.objects.batch(self.folder)

    def put(self, name: str, data: bytes) -> None:
        """Store an object of a version that is being written, durably."""
        self.objects.put(self.key(name), data)

    def sizes(self) -> dict[str, int]:
        """The size in bytes of each object, by its name."""
        found = ((key, self.objects.stat(key)) for key in self.objects.list(self.folder))
        return {key[len(self.folder) + 1 :]: stat.size for key, stat in found if stat is not None}

    def where(self, name: str) -> str:
        """How a message names it."""
        return self.objects.where(self.key(name))


def read_version(files: VersionFiles) -> StoredVersion:
    """Read ``version.json``. Raises Damaged, or NotFound."""
    where = files.where(VERSION_JSON)
    stored = parse_version(read_document(files.objects, files.key(VERSION_JSON)), where)
    if files.number not in (None, stored.info.number):
        raise Damaged(f"{where}: says it is v{stored.info.number}, but lies where v{files.number} belongs")
    return stored


def parse_version(doc: Mapping[str, Any], where: str) -> StoredVersion:
    """The value of ``version.json``. Damaged, beginning with ``where``, if it is none."""
    try:
        info = VersionInfo(
            number=_int(doc["version"]),
            parents=_ints(doc["parents"]),
            lineage=0,
            position=0,
            time_ns=_time(doc["time_ns"]),
            author=_str(doc["author"]),
            message=_str(doc["message"]),
            content_id=_content_id(doc["content_id"]),
        )
        counts = Counts(*(_count(doc["counts"][name]) for name in ("put", "removed", "bytes")))
        arrays = {path: _array(array) for path, array in doc["arrays"].items()}
        conflicts = tuple(map(_conflict, doc.get("conflicts", ())))
        meta = {_str(name): _str(value) for name, value in doc.get("meta", {}).items()}
        stored = StoredVersion(info, _str(doc["branch"]), _str(doc["writer"]), counts, arrays, conflicts, meta)
    except (KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{where}: not the description of a version ({printable(str(error))})") from None
    if not 0 < info.number <= MAX_VERSION:
        raise Damaged(f"{where}: {info.number} is not a version's number")
    if any(not 0 < parent < info.number for parent in info.parents):
        raise Damaged(f"{where}: a parent is not older than the version")
    return stored


def read_manifest(files: VersionFiles) -> Manifest:
    """Read the manifest. Raises Damaged, or NotFound if there is none."""
    return Manifest.from_bytes(files.read(MANIFEST), files.where(MANIFEST))


def array_meta(files: VersionFiles, path: str) -> ArrayMeta:
    """The client's metadata of an array as of this version, from the copy in the version's directory."""
    folder = node_key(path)
    for name in (AS_WRITTEN, NODE_JSON):
        key = f"{folder}/{name}"
        try:
            meta = parse_node(files.read(key))
        except NotFound:
            continue
        except VolfsError as error:
            raise Damaged(f"{files.where(key)}: {error}") from None
        if isinstance(meta, ArrayMeta):
            return meta
    raise Damaged(f"{files.where(folder)}: no {NODE_JSON} of an array, though the manifest has chunks of one")


def count(manifest: Manifest) -> Counts:
    """How much a manifest changes."""
    records = manifest.records
    put = int(np.count_nonzero((records["op"] == Op.PUT) | (records["op"] == Op.TAKE)))
    own = records["op"] == Op.PUT
    removed = np.count_nonzero((records["op"] == Op.REMOVE) | (records["op"] == Op.REMOVE_SUBTREE))
    return Counts(put, int(removed), int(records["length"][own].sum()))


def changes(manifest: Manifest, metas: Mapping[str, ArrayMeta]) -> Iterator[Change]:
    """The changes a manifest records, as the content id covers them: whole keys, whatever the packing. This is the
    definition; who writes versions takes :func:`changes_root`."""
    records = manifest.records
    for i in np.flatnonzero(records["ndim"] == 0).tolist():
        op = Op(int(records["op"][i]))
        digest = records["sha256"][i].tobytes() if _LEAF[op] == PUT else b""
        mode = records["mode"][i]
        key = key_bytes(manifest.strings[records["name"][i]])
        yield Change(key, _LEAF[op], digest, mode.tobytes() if mode else b"")
    for path, rows in manifest.chunks():
        meta = metas[path]
        codes = records["op"][rows].tolist()
        coords = records["chunk"][rows][:, : meta.ndim].tolist()
        digests = np.ascontiguousarray(records["sha256"][rows]).tobytes()
        prefix = node_key(path) + "/"
        for at, (code, chunk) in enumerate(zip(codes, coords, strict=True)):
            leaf = _LEAF[code]
            digest = digests[32 * at : 32 * at + 32] if leaf == PUT else b""
            yield Change((prefix + meta.chunk_key(chunk)).encode(), leaf, digest)


def changes_root(manifest: Manifest, metas: Mapping[str, ArrayMeta]) -> bytes:
    """The Merkle root over :func:`changes`, with the chunks taken in columns."""
    records = manifest.records
    puts: list[bytes] = []
    for path, rows in manifest.chunks():
        meta = metas[path]
        rows = rows[(records["op"][rows] == Op.PUT) | (records["op"][rows] == Op.TAKE)]
        if len(rows):
            puts += _chunk_puts(node_key(path), meta, records["chunk"][rows], records["sha256"][rows])
    puts.sort()
    return tree_root_of_puts(puts, _other_changes(manifest, metas))


def _chunk_puts(folder: str, meta: ArrayMeta, coords: NDArray[np.uint32], digests: NDArray[np.void]) -> Iterator[bytes]:
    """``key ‖ 0x00 ‖ digest`` of chunks that were put."""
    kind, separator = meta.key_encoding
    first = f"{folder}/c{separator}" if kind == "default" else f"{folder}/"
    parts: list[list[bytes]] = []
    for axis in range(meta.ndim):
        # Few numbers are on an axis: each is spelt once.
        numbers, which = np.unique(coords[:, axis], return_inverse=True)
        before, after = (first if axis == 0 else ""), (separator if axis < meta.ndim - 1 else "\0")
        spelt = [f"{before}{number}{after}".encode() for number in numbers.tolist()]
        parts.append([spelt[at] for at in which.tolist()])
    raw = np.ascontiguousarray(digests).tobytes()
    ends = [raw[at : at + 32] for at in range(0, len(raw), 32)]
    return map(b"".join, zip(*parts, ends, strict=True))


def _other_changes(manifest: Manifest, metas: Mapping[str, ArrayMeta]) -> Iterator[Change]:
    """Changes of whole keys, and removals of chunks."""
    records = manifest.records
    chosen = (records["ndim"] == 0) | (records["op"] == Op.REMOVE)
    return changes(Manifest(manifest.strings, records[chosen], manifest.pieces), metas)


def _array(facts: Mapping[str, object]) -> StoredArray:
    block_shape, shard_chunks = _ints(facts["block_shape"]), _ints(facts["shard_chunks"])
    fits = len(block_shape) == len(shard_chunks) and all(n > 0 for n in (*block_shape, *shard_chunks))
    if not fits or prod(block_shape) > MAX_CELLS or prod(shard_chunks) > MAX_CELLS:
        raise TypeError(f"{block_shape} and {shard_chunks} are not shapes of blocks and shards")
    return StoredArray(block_shape, shard_chunks, bool(facts["complete"]))


def _conflict(facts: Mapping[str, object]) -> Mapping[str, Any]:
    found: dict[str, Any] = {"key": _str(facts["key"]), "why": _str(facts["why"])}
    if "start" in facts:
        start, stop = _ints(facts["start"]), _ints(facts["stop"])
        if len(start) != len(stop) or any(not 0 <= a < b for a, b in zip(start, stop, strict=True)):
            raise TypeError("the box of a conflict is none")
        found |= {"start": list(start), "stop": list(stop), "voxels": _count(facts["voxels"])}
    if "theirs" in facts:
        bases = facts["bases"]
        if not isinstance(bases, list):
            raise TypeError("the bases of a conflict are none")
        found["bases"] = [_content_id(each) for each in bases]
        found |= {side: _content_id(facts[side]) if facts[side] else "" for side in ("ours", "theirs")}
    return found


def _time(value: object) -> int:
    if not is_time(value):
        raise TypeError(f"{str(value)[:40]} is not a time")
    return value


def _count(value: object) -> int:
    if not 0 <= _int(value) < 2**63:
        raise TypeError("a count is out of bounds")
    return _int(value)


def _content_id(value: object) -> str:
    if not _CONTENT_ID.fullmatch(_str(value)):
        raise TypeError("its content id is not 64 hexadecimal digits")
    return _str(value)


def _int(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{str(value)[:40]!r} is not a number")
    return value


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is not text")
    return value


def _ints(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{str(value)[:40]!r} is not a list")
    return tuple(map(_int, value))


def version_changes(files: VersionFiles) -> VersionChanges:
    """The changes of a version on top of its first parent, from its manifest. Raises NotFound, or Damaged."""
    manifest = read_manifest(files)
    nodes: dict[str, NodeChanges] = {}

    def add(where: str, put: int, removed: int, size: int, around: Box | None = None) -> None:
        before = nodes.get(where, NodeChanges())
        box = around if around is not None else before.chunks
        nodes[where] = NodeChanges(before.put + put, before.removed + removed, before.bytes + size, box)

    ops, lengths = manifest.records["op"], manifest.records["length"]
    for path, rows in manifest.chunks():
        puts = rows[(ops[rows] == Op.PUT) | (ops[rows] == Op.TAKE)]
        size = int(lengths[puts].sum(dtype="u8"))
        coords = manifest.records["chunk"][rows][:, : int(manifest.records["ndim"][rows[0]])].astype(np.int64)
        around = Box(tuple(coords.min(axis=0).tolist()), tuple((coords.max(axis=0) + 1).tolist()))
        add(f"zarr/{path}" if path else "zarr", len(puts), len(rows) - len(puts), size, around)
    for i in manifest.keys().tolist():
        key = manifest.strings[manifest.records["name"][i]]
        if ops[i] == Op.DIRECTORY:
            continue
        is_put = ops[i] in (Op.PUT, Op.TAKE)
        add(key.rpartition("/")[0] or key, int(is_put), int(not is_put), int(lengths[i]) if is_put else 0)
    stored = read_version(files)
    return VersionChanges(stored.counts, nodes, stored.meta)
