"""A version that has arrived, in the numbers of this store: its manifest, its ``version.json``, and the metadata that
lies beside its shards for other readers.

Numbers differ between stores, so these are written anew. Decided here: how, and that the content id, computed from what
is written, is the one that the version has everywhere. Not here: what travels as it lies
(:mod:`volfs.versions.remotes.arrival`), and when a version gets its number and its place
(:mod:`volfs.versions.remotes.transfer`).

A record that takes a payload of another version names it where that version has it here. If that version is not in this
store, the payload came along, and the record puts it.
"""

from __future__ import annotations

import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from volfs.errors import Damaged, NotFound, VolfsError, WrongKind
from volfs.model.display import printable
from volfs.model.metadata import ArrayMeta, parse_node
from volfs.storage.files import write_atomic
from volfs.storage.json_document import dump_document
from volfs.storage.manifest import NO_FILE, Manifest, Op
from volfs.storage.payload import Payload
from volfs.storage.shards import wrap_array_json
from volfs.storage.store_layout import ABSENT, MANIFEST, VERSION_JSON, version_dir_name
from volfs.versions.commit.writable_history import WritableHistory
from volfs.versions.committed.absences import Where, array_note, dump_codes
from volfs.versions.committed.content_id import content_id, tree_root
from volfs.versions.committed.version import Version
from volfs.versions.committed.version_files import (
    AS_WRITTEN,
    StoredVersion,
    VersionFiles,
    changes,
    count,
    read_manifest,
)
from volfs.versions.keys import NODE_JSON, covers, json_key, node_path, node_path_of_json, parents
from volfs.versions.remotes.arrival import TAKEN, Arrival


class LocalForm:
    """The parts of one arrived version that have numbers, for number ``number`` of a dataset. ``numbers``: those of the
    versions here, by content id."""

    def __init__(self, dataset: WritableHistory, arrival: Arrival, number: int, numbers: Mapping[str, int]) -> None:
        self._dataset = dataset
        self._arrival = arrival
        self._number = number
        self._numbers = numbers
        self._parents = tuple(numbers[each] for each in arrival.parents)
        self._base: Version | None = dataset.version(self._parents[0]) if self._parents else None
        self.manifest = self._renumbered()
        self._rows = self._whole_keys()
        self._removed = [key for key, row in self._rows.items() if self._op(row) == Op.REMOVE]
        records, strings = self.manifest.records, self.manifest.strings
        cut = records["name"][records["op"] == Op.REMOVE_SUBTREE]
        self._cut = [strings[each] for each in cut.tolist()]
        self.stored = self._proved()

    def write(self) -> None:
        """Write these parts into the version's directory."""
        for key, data in self._metadata():
            path = self._arrival.path(key)
            if key not in self._arrival.segments:
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_atomic(path, data)
                except (FileExistsError, NotADirectoryError, IsADirectoryError):
                    raise Damaged(f"{printable(key)} of the version is both a file and a directory") from None
        self._arrival.open_to(self._readers)
        codes = self._arrival.codes
        if codes.any():
            write_atomic(self._arrival.path(ABSENT), dump_codes(codes))
        write_atomic(self._arrival.path(MANIFEST), self.manifest.to_bytes())
        write_atomic(self._arrival.path(VERSION_JSON), dump_document(self.stored.to_json()))

    # -- the manifest -------------------------------------------------------------------------------------------

    def _renumbered(self) -> Manifest:
        """The records with this store's files and owners."""
        arrival = self._arrival
        records, strings = arrival.manifest.records.copy(), list(arrival.manifest.strings)
        at: dict[str, int] = {text: i for i, text in enumerate(strings)}

        def string(text: str) -> int:
            found = at.get(text)
            if found is None:
                found = at[text] = len(strings)
                strings.append(text)
            return found

        before, own = version_dir_name(arrival.stored.info.number), version_dir_name(self._number)
        put = np.flatnonzero((records["op"] == Op.PUT) & (records["file"] != NO_FILE))
        table = np.arange(len(strings), dtype=np.uint32)
        for old in np.unique(records["file"][put]).tolist():
            table[old] = string(own + strings[old].removeprefix(before))
        records["file"][put] = table[records["file"][put]]
        taken = set(arrival.taken)
        by_owner: dict[str, list[int]] = {}
        for row in np.flatnonzero(records["op"] == Op.TAKE).tolist():
            record = records[row : row + 1]
            if row in taken:
                record["op"], record["owner"], record["offset"] = Op.PUT, 0, 0
                record["file"] = string(f"{own}/{taken_name(bytes(record['sha256'][0].item()))}")
            else:
                by_owner.setdefault(arrival.owner(row), []).append(row)
        for ident, rows in by_owner.items():
            there = self._payloads(self._numbers[ident], {bytes(each) for each in records["sha256"][rows].tolist()})
            for row in rows:
                record, meant = records[row : row + 1], arrival.manifest.payload(row)
                payload, owner = there.get(bytes(record["sha256"][0].item()), (None, 0))
                if payload is None or _sums(payload) != _sums(meant):
                    raise Damaged(f"version {arrival.id[:12]}… takes a payload that version {ident[:12]}… has not")
                record["file"], record["offset"], record["owner"] = string(payload.file), payload.offset, owner
        return _compact(Manifest(strings, records, arrival.manifest.pieces))

    def _payloads(self, number: int, wanted: set[bytes]) -> dict[bytes, tuple[Payload, int]]:
        """Payloads of a version here by SHA-256, each with the version that wrote it."""
        manifest = read_manifest(VersionFiles.of(self._dataset.objects, number))
        records = manifest.records
        found = {}
        for row in np.flatnonzero(records["file"] != NO_FILE).tolist():
            sha256 = bytes(records["sha256"][row].item())
            if sha256 in wanted:
                found[sha256] = manifest.payload(row), int(records["owner"][row]) or number
        return found

    # -- version.json -------------------------------------------------------------------------------------------

    def _proved(self) -> StoredVersion:
        """The description of the version, whose content id is what it holds."""
        info = self._arrival.stored.info
        metas = {path: self._meta(path) for path, _ in self.manifest.chunks()}
        identity = content_id(
            parents=self._arrival.parents,
            author=info.author,
            message=info.message,
            time_ns=info.time_ns,
            root=tree_root(changes(self.manifest, metas)),
            meta=self._arrival.stored.meta,
            conflicts=self._arrival.stored.conflicts,
        )
        if identity != self._arrival.id:
            raise Damaged(f"version {self._arrival.id[:12]}… is not what its content id says: it was altered")
        return replace(
            self._arrival.stored,
            info=replace(info, number=self._number, parents=self._parents),
            writer=secrets.token_hex(8),
            counts=count(self.manifest),
        )

    def _meta(self, path: str) -> ArrayMeta:
        raw = self._raw(json_key(path))
        meta = None if raw is None else _array_meta(raw)
        if meta is None:
            raise Damaged(f"version {self._arrival.id[:12]}… has chunks of {printable(path)!r}, which is no array")
        return meta

    # -- metadata for other readers -----------------------------------------------------------------------------

    def _metadata(self) -> Iterator[tuple[str, bytes]]:
        """Each file of metadata beside the shards: of the version's own arrays, and of the groups above its keys."""
        arrays = set(self._arrival.stored.arrays)
        for key, row in self._rows.items():
            path = node_path_of_json(key)
            if path is not None and self._op(row) in (Op.PUT, Op.TAKE):
                raw = self._raw(key)
                if raw is not None and _array_meta(raw) is not None:
                    arrays.add(path)
                elif raw is not None:
                    yield key, raw
        for path in sorted(arrays):
            yield from self._array(path)
        changed = [key for key, row in self._rows.items() if self._op(row) in (Op.PUT, Op.TAKE)]
        folders = {
            folder for key in (*changed, *map(json_key, arrays)) if key.startswith("zarr/") for folder in parents(key)
        }
        for folder in sorted(folders):
            key = f"{folder}/{NODE_JSON}"
            if key in self._rows or (node_path(folder) or "") in arrays:
                continue
            raw = self._raw(key)
            if raw is not None and _array_meta(raw) is not None:
                yield from self._array(node_path(folder) or "")
            elif raw is not None:
                yield key, raw

    def _array(self, path: str) -> Iterator[tuple[str, bytes]]:
        raw, key = self._raw(json_key(path)), json_key(path)
        meta = None if raw is None else _array_meta(raw)
        if raw is None or meta is None:
            raise Damaged(f"version {self._arrival.id[:12]}… describes {printable(path)!r}, which is no array in it")
        array = self._arrival.stored.arrays.get(path)
        sharded = array is not None and any(n > 1 for n in array.shard_chunks)
        if array is not None and array.complete and not sharded:
            yield key, raw
            return
        if array is not None and len(array.shard_chunks) != meta.ndim:
            raise Damaged(f"version {self._arrival.id[:12]}… has shards of {printable(path)!r} with other axes")
        shard = None
        if array is not None and sharded:
            shard = tuple(s * c for s, c in zip(array.shard_chunks, meta.chunk_shape, strict=True))
        yield key, wrap_array_json(raw, shard, array_note(self.stored, path, self._lacks(path)))
        yield f"{key.rpartition('/')[0]}/{AS_WRITTEN}", raw

    def _lacks(self, path: str) -> bool:
        """Whether chunks of an array that the version puts are absent."""
        records, strings = self.manifest.records, self.manifest.strings
        absent = np.flatnonzero((self._arrival.codes != Where.HERE) & (records["ndim"] > 0))
        return any(strings[each] == path for each in np.unique(records["name"][absent]).tolist())

    # -- keys ---------------------------------------------------------------------------------------------------

    def _whole_keys(self) -> dict[str, int]:
        """The record of each whole key that is put, taken or removed."""
        records, strings = self.manifest.records, self.manifest.strings
        said = (records["ndim"] == 0) & (records["op"] != Op.REMOVE_SUBTREE) & (records["op"] != Op.DIRECTORY)
        return {strings[int(records["name"][row])]: row for row in np.flatnonzero(said).tolist()}

    def _op(self, row: int) -> int:
        return int(self.manifest.records["op"][row])

    def _raw(self, key: str) -> bytes | None:
        """The bytes of a file in this version; None if there is none."""
        row = self._rows.get(key)
        if row is not None and self._op(row) != Op.REMOVE:
            payload = self.manifest.payload(row)
            if self._op(row) == Op.TAKE:
                return self._dataset.reader.read(payload)
            name = payload.file.partition("/")[2]
            return self._arrival.read(name, payload.offset, payload.length)
        if self._base is None or row is not None or any(covers(gone, key) for gone in self._cut):
            return None
        try:
            return self._base.read(key)
        except (NotFound, WrongKind):
            return None

    def _readers(self, key: str, mode: int) -> int:
        return readers(key, mode, self._folder_mode)

    def _folder_mode(self, folder: str) -> int:
        records, strings = self.manifest.records, self.manifest.strings
        for row in np.flatnonzero(records["op"] == Op.DIRECTORY).tolist():
            if strings[int(records["name"][row])] == folder:
                return stat.S_IMODE(int(records["mode"][row]))
        info = None if self._base is None else self._base.stat(folder)
        return info.mode if info is not None and info.kind == "dir" else 0


def readers(key: str, mode: int, folder_mode: Callable[[str], int]) -> int:
    """Permission bits of the stored file of a side file: users who may not read that cannot read it here either.
    ``folder_mode``: the bits of a directory, 0 for the usual ones."""
    if stat.S_ISLNK(mode):
        return 0o666
    bits, folder = mode or 0o644, key.rpartition("/")[0]
    while "/" in folder:
        passing = folder_mode(folder) or 0o111
        bits &= ~sum(0o7 << shift for shift in (3, 0) if not passing >> shift & 1)
        folder = folder.rpartition("/")[0]
    return bits & 0o444 | 0o600


def taken_name(sha256: bytes) -> str:
    """The file of a payload that another version owned, and that came along with this one."""
    return f"{TAKEN}{sha256.hex()}"


def _sums(payload: Payload) -> tuple[int, int, bytes | None]:
    return payload.length, payload.crc32c, payload.pieces


def _compact(manifest: Manifest) -> Manifest:
    """A manifest without the names that no record uses."""
    records = manifest.records
    held = records["file"] != NO_FILE
    used = np.unique(np.concatenate([records["name"], records["file"][held]]))
    table = np.zeros(len(manifest.strings), np.uint32)
    table[used] = np.arange(len(used), dtype=np.uint32)
    records["name"] = table[records["name"]]
    records["file"][held] = table[records["file"][held]]
    return Manifest([manifest.strings[i] for i in used.tolist()], records, manifest.pieces)


def _array_meta(raw: bytes) -> ArrayMeta | None:
    try:
        meta = parse_node(raw)
    except VolfsError:
        return None
    return meta if isinstance(meta, ArrayMeta) else None
