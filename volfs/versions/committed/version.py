"""A committed version as a snapshot. It never changes, so whatever is found out about it is kept.

Decided here: how keys are found: names in the catalog's entries, chunks of understood arrays in its index blocks. Not
decided here: arrays (:mod:`volfs.versions.committed.array`), and the uncommitted changes that a branch lays over a
version (:mod:`volfs.versions.branch`).
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Hashable
from typing import TYPE_CHECKING, ClassVar

from volfs.catalog import Entry
from volfs.errors import BadMetadata, Damaged, NotFound, Unsupported, WrongKind
from volfs.model.bounded_map import BoundedMap
from volfs.model.box import Index
from volfs.model.graph import At, VersionInfo
from volfs.model.metadata import ArrayMeta, GroupMeta, parse_node
from volfs.storage.payload import Payload
from volfs.versions.committed.array import CommittedSnapshot, VersionArray
from volfs.versions.committed.lookups import Resolved
from volfs.versions.committed.version_files import VersionChanges, VersionFiles, version_changes
from volfs.versions.history import History
from volfs.versions.keys import json_key, node_key, node_path, parents
from volfs.versions.snapshot import ArrayNode, GroupNode, KeyInfo, Listing

if TYPE_CHECKING:
    from volfs.versions.zarrstore import ZarrStore


_NODES_KEPT = 1024

Node = VersionArray | GroupNode


class Version(CommittedSnapshot):
    """Version ``info.number`` of a dataset. Thread-safe."""

    PUBLIC: ClassVar[tuple[str, ...]] = ("number", "info", "changes")

    dataset: History[Version]
    writable = False

    def __init__(self, dataset: History[Version], info: VersionInfo, at: At, resolved: Resolved) -> None:
        self.dataset = dataset
        self.info = info
        self.at = at
        self.ref = f"v{info.number}"
        self.catalog = dataset.catalog
        self.resolved = resolved
        self._nodes: BoundedMap[str, Node | None] = resolved.caches.add("nodes", BoundedMap(_NODES_KEPT))
        #: By directory of keys: what :meth:`_nearest_array` found. Who creates chunks asks of each.
        self._above: BoundedMap[str, tuple[VersionArray | None, str]] = resolved.caches.add(
            "nearest_arrays", BoundedMap(_NODES_KEPT)
        )

    def __repr__(self) -> str:
        return f"<{self.ref} of dataset {self.dataset.name!r}>"

    @property
    def number(self) -> int:
        """The version's number."""
        return self.info.number

    @property
    def base(self) -> VersionInfo:
        return self.info

    def generation(self) -> Hashable:
        return self.dataset.id, self.info.number

    # -- keys ---------------------------------------------------------------------------------------------------

    def stat(self, key: str) -> KeyInfo | None:
        if key in ("", "zarr", "files"):
            return self._dir_info(0)
        entry = self._entry(key)
        if entry is not None:
            return self._info(entry)
        found = self.array_above(key)
        if found is None:
            return None
        array, rel = found
        coords = array.meta.parse_chunk_key(rel)
        if coords is not None:
            payload = array.payload(coords)
            if payload is None:
                return None
            version = array.changed_in(coords)
            return KeyInfo("file", payload.size, self.time_of(version), version)
        prefix = chunk_prefix(array.meta, rel)
        return self._dir_info(0) if prefix is not None and array.any_below(prefix) else None

    def list(self, key: str) -> Listing:
        if key == "":
            return [("files", self._dir_info(0)), ("zarr", self._dir_info(0))]
        entry = self._entry(key)
        if entry is not None and entry.kind != "dir":
            raise WrongKind(f"{key} is a file in {self.ref}")
        found: dict[str, KeyInfo] = {}
        if entry is not None:
            for name, child in self.catalog.list_entries(self.dataset.id, self.at, entry.dir_id):
                found[name] = self._info(child)
        path = node_path(key)
        array = self.node(path) if path is not None else None
        where = (array, "") if isinstance(array, VersionArray) else self.array_above(key)
        if where is not None:
            for name, info in self._chunk_names(*where):
                found.setdefault(name, info)
        if not found and entry is None and key not in ("zarr", "files"):
            there = self.stat(key)
            if there is not None and there.kind == "file":
                raise WrongKind(f"{key} is a file in {self.ref}")
            raise NotFound(f"{key} does not exist in {self.ref}")
        return sorted(found.items())

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        return self.dataset.reader.read(self.payload(key), offset, length)

    def read_resident(self, key: str) -> memoryview | None:
        try:
            return self.dataset.reader.read_resident(self.payload(key))
        except Damaged:
            return None  # or absent: read() finds out which, and may wait for a disk

    def payload(self, key: str) -> Payload:
        """Where the bytes of a file lie. Raises NotFound, or WrongKind for a directory."""
        entry = self._entry(key) if key not in ("", "zarr", "files") else None
        if entry is not None and entry.payload is not None:
            return entry.payload
        found = self.array_above(key) if entry is None else None
        if found is not None:
            coords = found[0].meta.parse_chunk_key(found[1])
            one = found[0].payload(coords) if coords is not None else None
            if one is not None:
                return one.payload
        if self.stat(key) is not None:
            raise WrongKind(f"{key} is a directory in {self.ref}", errno=errno.EISDIR)
        raise NotFound(f"{key} does not exist in {self.ref}")

    # -- nodes --------------------------------------------------------------------------------------------------

    def node(self, path: str) -> ArrayNode | GroupNode | None:
        return self._nodes.get_or_make(path, lambda: self._load_node(path))

    def array(self, path: str) -> VersionArray | None:
        node = self.node(path)
        return node if isinstance(node, VersionArray) else None

    def block_shape(self, path: str) -> Index | None:
        """Chunks per index block of the array at ``path``; None if there is no array."""
        array = self.array(path)
        return None if array is None else array.block_shape

    def _load_node(self, path: str) -> Node | None:
        entry = self._entry(json_key(path))
        if entry is None or entry.payload is None:
            return None
        meta = self.dataset.metadata(entry.payload)
        mtime_ns = self.time_of(entry.version)
        if isinstance(meta, GroupMeta):
            return GroupNode(path, meta.attributes, mtime_ns)
        if not isinstance(meta, ArrayMeta):
            return None
        folder = self._entry(node_key(path))
        assert folder is not None, "what holds a name is a directory"
        shape = self.catalog.block_shape(folder.dir_id)
        if shape is None or len(shape) != meta.ndim:
            return None
        born = self.time_of(self.catalog.born(folder.dir_id))
        return VersionArray(self, path, meta, mtime_ns, folder.dir_id, shape, born)

    def changes(self) -> VersionChanges:
        """The changes of this version on top of its first parent, from its manifest."""
        return version_changes(VersionFiles.of(self.dataset.objects, self.number))

    def zarr_store(self) -> ZarrStore:
        from volfs.versions.zarrstore import ZarrStore  # zarr-python takes long to import

        return ZarrStore(self)

    # -- for arrays ---------------------------------------------------------------------------------------------

    def time_of(self, version: int) -> int:
        return self.dataset.time_of(version) if version else self.info.time_ns

    def entry(self, key: str) -> Entry | None:
        """The index's entry of a file or directory; None for chunks, and for what is not there."""
        return self._entry(key)

    def described_in(self, path: str) -> Version:
        entry = self._entry(json_key(path))
        assert entry is not None, "a node has metadata"
        return self.dataset.version(entry.version)

    # -- inside -------------------------------------------------------------------------------------------------

    def _entry(self, key: str) -> Entry | None:
        return self.catalog.entry(self.dataset.id, self.at, key)

    def _info(self, entry: Entry) -> KeyInfo:
        if entry.payload is None:
            return self._dir_info(entry.version, stat.S_IMODE(entry.mode))
        mtime_ns = entry.mtime_ns or self.time_of(entry.version)
        return KeyInfo("file", entry.payload.length, mtime_ns, entry.version, entry.mode)

    def _dir_info(self, version: int, mode: int = 0) -> KeyInfo:
        # A directory's names may have changed in any version since it was made: the time that is never too old is this
        # version's own.
        return KeyInfo("dir", 0, self.info.time_ns, version or self.info.number, mode)

    def array_above(self, key: str) -> tuple[VersionArray, str] | None:
        """The array that a key lies in, and the key relative to it; None if it lies in none."""
        if not key.startswith("zarr/"):
            return None
        parent = key.rpartition("/")[0]
        array, folder = self._above.get_or_make(parent, lambda: self._nearest_array(parent))
        return None if array is None else (array, key[len(folder) + 1 :])

    def _nearest_array(self, folder: str) -> tuple[VersionArray | None, str]:
        """The array whose directory is ``folder`` or lies above it, and its directory."""
        for above in (folder, *parents(folder)):
            node = self.node(node_path(above) or "")
            if node is not None:
                return (node, above) if isinstance(node, VersionArray) else (None, above)
        return None, ""

    def _chunk_names(self, array: VersionArray, rel: str) -> Listing:
        """The names that chunks give to a directory of an array: of chunks, or of directories of chunks."""
        meta = array.meta
        kind, separator = meta.key_encoding
        if separator == ".":
            return [] if rel else self._chunk_files(array, ())
        if kind == "default" and rel == "":
            return [("c", self._dir_info(0))] if array.any_below(()) else []
        prefix = chunk_prefix(meta, rel)
        if prefix is None:
            return []
        if len(prefix) == meta.ndim - 1:
            return self._chunk_files(array, prefix)
        return [(str(i), self._dir_info(0)) for i in array.indices(len(prefix), array.below(prefix))]

    def _chunk_files(self, array: VersionArray, prefix: Index) -> Listing:
        meta = array.meta
        return [
            (
                meta.chunk_key(coords).rpartition("/")[2],
                KeyInfo("file", size, self.time_of(version), version),
            )
            for coords, size, version in array.stored_below(prefix)
        ]


def parse(raw: bytes) -> ArrayMeta | GroupMeta | None:
    """Parse a ``zarr.json``; None where volfs does not interpret it."""
    try:
        return parse_node(raw)
    except (BadMetadata, Unsupported):
        return None


def chunk_prefix(meta: ArrayMeta, rel: str) -> Index | None:
    """The leading coordinates that a directory of chunks stands for; None if ``rel`` is no such directory."""
    kind, separator = meta.key_encoding
    if separator != "/":
        return None
    parts = rel.split("/") if rel else []
    if kind == "default":
        if not parts or parts[0] != "c":
            return None
        parts = parts[1:]
    if len(parts) >= meta.ndim:
        return None
    coords = []
    for part in parts:
        if not (part.isascii() and part.isdigit()) or (part[0] == "0" and part != "0"):
            return None
        coords.append(int(part))
    return tuple(coords)
