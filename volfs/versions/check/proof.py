"""Proving one committed version from its own files: every payload read, summed and decoded, nothing missing or extra.

Decided here: what must hold inside a version's directory. Not decided here: refs, the catalog, and what is asked of
several versions together (:mod:`volfs.versions.check.fsck`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from volfs.errors import Damaged, NotFound, Unsupported, VolfsError
from volfs.model.display import printable
from volfs.model.grid import split
from volfs.model.metadata import ArrayMeta, parse_node
from volfs.storage.backend import read_range
from volfs.storage.codec import ChunkCodec
from volfs.storage.manifest import Manifest, Op, Record
from volfs.storage.payload import Payload
from volfs.storage.shards import MISSING, read_shard_index
from volfs.storage.store_layout import ABSENT, MANIFEST, RETIRED_JSON, VERSION_JSON, version_dir_name
from volfs.versions.committed.absences import Codes, Where, may_be_absent, read_codes
from volfs.versions.committed.content_id import content_id, tree_root
from volfs.versions.committed.version_files import (
    AS_WRITTEN,
    StoredVersion,
    VersionFiles,
    array_meta,
    changes,
    read_manifest,
    read_version,
)
from volfs.versions.keys import NODE_JSON, json_key, node_key

if TYPE_CHECKING:
    from volfs.versions.dataset import Dataset

_PIECE = 8 << 20
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. ``where`` reads well; the other fields say the same for programs."""

    dataset: str
    where: str
    what: str
    version: int | None = None
    key: str | None = None
    file: str | None = None
    offset: int | None = None


class Proof:
    """The checks of one version. Iterate :meth:`findings`; then :attr:`stored` and :attr:`manifest` are what was read,
    None where that could not be."""

    def __init__(self, dataset: Dataset, number: int, parents: Mapping[int, str], read: Callable[[int], None]) -> None:
        self.number = number
        self.stored: StoredVersion | None = None
        self.manifest: Manifest | None = None
        #: Payloads that are known and not here.
        self.absent = 0
        self._codes: Codes = np.zeros(0, np.uint8)
        self._dataset = dataset
        self._files = VersionFiles.of(dataset.objects, number)
        self._parents = parents
        self._read = read
        self._metas: dict[str, ArrayMeta] = {}

    def finding(self, what: str, *, key: str | None = None, payload: Payload | None = None) -> Finding:
        """A finding about this version."""
        where = f"v{self.number}" + (f" {key}" if key is not None else "")
        if payload is not None:
            where += f" (in versions/{payload.file} at {payload.offset})"
        file, offset = (payload.file, payload.offset) if payload is not None else (None, None)
        return Finding(self._dataset.name, printable(where), printable(what), self.number, key, file, offset)

    def findings(self) -> Iterator[Finding]:
        """Everything that is wrong with the version's own files."""
        try:
            self.stored = read_version(self._files)
        except (Damaged, NotFound) as error:
            yield self.finding(str(error), key=VERSION_JSON)
        try:
            self.manifest = read_manifest(self._files)
        except (Damaged, NotFound) as error:
            yield self.finding(str(error), key=MANIFEST)
            return
        try:
            self._codes = read_codes(self._files, self.manifest)
        except Damaged as error:
            yield self.finding(f"{error}: what it says is absent is found missing or damaged below", key=ABSENT)
            self._codes = np.zeros(len(self.manifest), np.uint8)
        yield from self._absences(self.manifest)
        for path, _ in self.manifest.chunks():
            try:
                self._metas[path] = array_meta(self._files, path)
            except Damaged as error:
                yield self.finding(str(error), key=node_key(path))
        yield from self._records()
        yield from self._payloads()
        yield from self._shards()
        yield from self._orphans()
        if self.stored is not None:
            yield from self._identity(self.stored, self.manifest)

    def _absences(self, manifest: Manifest) -> Iterator[Finding]:
        """What is said to be absent can be, and was not dropped from a version that is kept."""
        absent = self._codes != Where.HERE
        self.absent = int(np.count_nonzero(absent))
        for row in np.flatnonzero(absent & ~may_be_absent(manifest))[:1].tolist():
            yield self.finding("is said to be absent, which it cannot be", key=self._key(manifest.record(row)))
        dropped = self._codes == Where.DROPPED
        if dropped.any() and self.number not in self._dataset.dropped():
            row = int(np.flatnonzero(dropped)[0])
            yield self.finding("went with a dropped version, but this one is kept", key=self._key(manifest.record(row)))

    # -- what the manifest says ---------------------------------------------------------------------------------

    def _key(self, record: Record) -> str:
        if record.chunk is None:
            return record.name
        meta = self._metas.get(record.name)
        rel = meta.chunk_key(record.chunk) if meta is not None else "c/" + "/".join(map(str, record.chunk))
        return node_key(record.name, rel)

    def _records(self) -> Iterator[Finding]:
        """One record per key, each payload in a file of this version."""
        assert self.manifest is not None
        own = f"{version_dir_name(self.number)}/"
        seen: set[str] = set()
        for record in self.manifest:
            key = self._key(record)
            if record.op not in (Op.REMOVE_SUBTREE, Op.DIRECTORY):
                if key in seen:
                    yield self.finding("is recorded twice", key=key)
                seen.add(key)
            if record.payload is None:
                continue
            file = record.payload.file
            if record.op == Op.PUT and not file.startswith(own):
                yield self.finding("is recorded as put, but lies in another version", key=key, payload=record.payload)
            if ".." in file.split("/") or file.startswith("/"):
                yield self.finding("lies outside the dataset's versions", key=key, payload=record.payload)

    def _payloads(self) -> Iterator[Finding]:
        """Every byte, and that chunks decode."""
        assert self.manifest is not None
        codecs: dict[str, ChunkCodec | None] = {}
        for path, meta in self._metas.items():
            try:
                codecs[path] = ChunkCodec.of(meta)
            except Unsupported:
                codecs[path] = None

        def prove(record: Record) -> Finding | None:
            assert record.payload is not None
            try:
                self._prove(record, record.payload, codecs.get(record.name) if record.chunk is not None else None)
            except VolfsError as error:
                return self.finding(str(error), key=self._key(record), payload=record.payload)
            return None

        here = np.flatnonzero((self.manifest.records["op"] == Op.PUT) & (self._codes == Where.HERE))
        records = map(self.manifest.record, here.tolist())
        with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
            while batch := list(islice(records, _BATCH)):
                yield from (found for found in pool.map(prove, batch) if found is not None)
                self._read(sum(record.payload.length for record in batch if record.payload is not None))

    def _prove(self, record: Record, payload: Payload, codec: ChunkCodec | None) -> None:
        reader = self._dataset.reader
        sums = hashlib.sha256()
        for at in range(0, payload.length, _PIECE) or (0,):
            sums.update(reader.read(payload, at, _PIECE))
        if sums.digest() != record.sha256:
            raise Damaged("the bytes are not those that were committed: SHA-256 differs")
        if codec is not None:
            codec.check(lambda offset, length: reader.read(payload, offset, length), payload.length)

    def _shards(self) -> Iterator[Finding]:
        """Differences between the index in each shard file, which other readers go by, and the manifest."""
        assert self.manifest is not None
        if self.stored is None:
            return
        records = self.manifest.records
        for path, rows in self.manifest.chunks():
            array = self.stored.arrays.get(path)
            meta = self._metas.get(path)
            if array is None:
                yield self.finding(
                    "the manifest has chunks of this array, but version.json does not name it", key=node_key(path)
                )
                continue
            if meta is None:
                continue
            if not self._describes(path, meta, array.shard_chunks):
                what = "does not describe the array as it is stored: other programs read it wrong"
                yield self.finding(what, key=f"versions/{version_dir_name(self.number)}/{json_key(path)}")
            if prod(array.shard_chunks) == 1:
                continue
            by_file: dict[str, list[int]] = {}
            for i in rows[records["op"][rows] == Op.PUT].tolist():
                by_file.setdefault(self.manifest.strings[records["file"][i]], []).append(i)
            for file, members in by_file.items():
                yield from self._shard(file, members, array.shard_chunks)

    def _describes(self, path: str, meta: ArrayMeta, shard_chunks: tuple[int, ...]) -> bool:
        """Whether the version's own ``zarr.json`` of an array is the client's, packed as it says."""
        try:
            own = parse_node(self._files.read(json_key(path)))
        except VolfsError:
            return False
        if not isinstance(own, ArrayMeta) or (own.shape, own.dtype) != (meta.shape, meta.dtype):
            return False
        if own.fill_value.tobytes() != meta.fill_value.tobytes() or own.key_encoding != meta.key_encoding:
            return False
        if prod(shard_chunks) == 1:
            return own.same_storage(meta)
        packed = tuple(s * c for s, c in zip(shard_chunks, meta.chunk_shape, strict=True))
        inner = own.sharding
        return (
            inner is not None
            and own.chunk_shape == packed
            and (inner.chunk_shape, inner.codecs) == (meta.chunk_shape, meta.codecs)
        )

    def _shard(self, file: str, members: list[int], shard_chunks: tuple[int, ...]) -> Iterator[Finding]:
        assert self.manifest is not None
        records = self.manifest.records
        here = self._codes[members] == Where.HERE
        try:
            found = self._dataset.objects.stat(file)
            if found is None or not here.any():
                return  # each payload in it has been reported; or some that were left out are on their way
            index = read_shard_index(partial(read_range, self._dataset.objects, file), found.size, shard_chunks)
        except NotFound:
            return  # removed since it was looked at
        except Damaged as error:
            yield self.finding(str(error), key=f"versions/{file}")
            return
        cells = [split(records["chunk"][i][: len(shard_chunks)].tolist(), shard_chunks)[1] for i in members]
        said = index[cells]
        meant = np.stack([records["offset"][members], records["length"][members]], axis=1)
        missing = (said == MISSING).all(axis=1)
        right = (said == meant).all(axis=1)
        # What was left out may have come already, and is said to be there as the last step.
        right = np.where(here, right, missing | (right & (self._codes[members] == Where.LEFT_OUT)))
        if not right.all():
            yield self.finding("the index of the shard differs from the manifest", key=f"versions/{file}")

    def _orphans(self) -> Iterator[Finding]:
        """Files that nothing accounts for. Metadata of the nodes above a change lies beside it for other readers."""
        assert self.manifest is not None
        base = self._files.folder
        used = {self.manifest.strings[i] for i in np.unique(self.manifest.records["file"]) if i < 2**32 - 1}
        for stored in self._dataset.objects.list(base):
            key = stored.removeprefix(f"{base}/")
            folder, _, name = key.rpartition("/")
            if key in (VERSION_JSON, MANIFEST, RETIRED_JSON, ABSENT) or stored in used:
                continue
            below_zarr = folder == "zarr" or folder.startswith("zarr/")
            if below_zarr and name in (NODE_JSON, AS_WRITTEN) and self._is_metadata(folder):
                continue
            yield self.finding("no record of the manifest accounts for this file", key=f"versions/{stored}")

    def _is_metadata(self, folder: str) -> bool:
        """Whether the copy of a node's metadata in a folder equals the version's."""
        try:
            committed = self._dataset.version(self.number).read(f"{folder}/{NODE_JSON}")
            written = f"{folder}/{AS_WRITTEN}"
            copy = written if self._dataset.objects.stat(self._files.key(written)) else f"{folder}/{NODE_JSON}"
            return self._files.read(copy) == committed
        except VolfsError:
            return False

    def _identity(self, stored: StoredVersion, manifest: Manifest) -> Iterator[Finding]:
        missing = [parent for parent in stored.info.parents if parent not in self._parents]
        for parent in missing:
            yield self.finding(f"its parent v{parent} is not there")
        if missing or any(path not in self._metas for path, _ in manifest.chunks()):
            return
        info = stored.info
        identity = content_id(
            parents=[self._parents[parent] for parent in info.parents],
            author=info.author,
            message=info.message,
            time_ns=info.time_ns,
            root=tree_root(changes(manifest, self._metas)),
            meta=stored.meta,
            conflicts=stored.conflicts,
        )
        if identity != info.content_id:
            yield self.finding("its content id does not match what it holds: something was altered", key=VERSION_JSON)
