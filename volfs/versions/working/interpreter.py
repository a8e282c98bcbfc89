"""The meaning of keys in a working copy: the array whose chunk a file is, and if it can be read as one.

Decided here: which files are *held*: kept and read back as written, but not fit to be committed or shown as voxels. Not
here: the union that keys are looked up in (:mod:`volfs.versions.working.union`), and how a commit refuses held keys.

A file under ``zarr/`` is held if it is a chunk that does not decode or lies outside its array, metadata that breaks the
specification, or looks like a chunk (its name is what a chunk's would be) with no array above it: some writers make
chunks long before ``zarr.json``. Everything else that is not understood, such as a codec or data type that volfs does
not know, Zarr v2 metadata or stray files, is opaque: versioned as it is.
"""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from volfs.errors import BadMetadata, Damaged, Unsupported, VolfsError
from volfs.model.bounded_map import BoundedMap, Caches
from volfs.model.box import Index
from volfs.model.metadata import ArrayMeta, GroupMeta, parse_node
from volfs.storage.codec import ChunkCodec
from volfs.storage.files import opened, read_file
from volfs.storage.payload_maker import undecodable
from volfs.versions.keys import NODE_JSON, json_key, node_key, node_path, parents
from volfs.versions.snapshot import ArrayNode, GroupNode
from volfs.versions.working.layer import Change
from volfs.versions.working.union import Entry, Union

Parsed = ArrayMeta | GroupMeta | BadMetadata | Unsupported
"""A ``zarr.json``, parsed; or the reason why volfs ignores it."""

_NUMBER = re.compile(r"[0-9]+")
_DOTTED = re.compile(r"(?:c\.)?[0-9]+(?:\.[0-9]+)*")
_PARSED_KEPT = 4096
_VERDICTS_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class Meaning:
    """The role of a key: ``path`` is the node it belongs to (None outside ``zarr/``, or where there is no node at all).

    An ``orphan`` looks like a chunk of an array that is not there; ``path`` is then where that array should be.
    """

    kind: Literal["metadata", "chunk", "object", "orphan", "file"]
    path: str | None
    coords: Index | None = None
    meta: ArrayMeta | None = None


def chunk_root(key: str) -> str | None:
    """The directory of the array whose chunk a key under ``zarr/`` would be, by its name alone; None if by no array's.

    ``zarr/a/c/0/1`` and ``zarr/a/0.1`` are chunks of an array at ``zarr/a``.
    """
    space, *parts = key.split("/")
    if space != "zarr" or not parts:
        return None
    if not _NUMBER.fullmatch(parts[-1]):
        return "/".join((space, *parts[:-1])) if _DOTTED.fullmatch(parts[-1]) else None
    end = len(parts)
    while end and _NUMBER.fullmatch(parts[end - 1]):
        end -= 1
    if end and parts[end - 1] == "c":
        end -= 1
    return "/".join((space, *parts[:end]))


class Interpreter:
    """Reads metadata and judges chunks, and remembers both as long as the files are the same. Thread-safe."""

    def __init__(self, caches: Caches) -> None:
        #: Those of the store.
        self.caches = caches
        self._parsed: BoundedMap[str, tuple[Hashable, Parsed]] = caches.add("branch_nodes", BoundedMap(_PARSED_KEPT))
        self._verdicts: BoundedMap[Hashable, str | None] = caches.add("verdicts", BoundedMap(_VERDICTS_KEPT))

    def node(self, union: Union, path: str) -> Parsed | None:
        """The ``zarr.json`` of a node, parsed; None if there is none."""
        key = json_key(path)
        entry = union.entry(key)
        if entry is None or entry.kind == "dir":
            return None
        if entry.layer is None:
            assert union.lower is not None
            node = union.lower.node(path)
            if isinstance(node, ArrayNode):
                return node.meta
            if isinstance(node, GroupNode):
                return GroupMeta(node.attributes)
        token = (_identity(entry), union.lower.ref if entry.layer is None and union.lower is not None else None)
        known = self._parsed.get(key)
        if known is not None and known[0] == token:
            return known[1]
        parsed = self._parse(union, key, entry)
        self._parsed.put(key, (token, parsed))
        return parsed

    def meaning(self, union: Union, key: str) -> Meaning:
        """The role of a file at ``key`` in the union's hierarchy."""
        if not key.startswith("zarr/"):
            return Meaning("file", None)
        folder, _, name = key.rpartition("/")
        if name == NODE_JSON:
            return Meaning("metadata", node_path(folder))
        nearest: str | None = None
        for above in parents(key):
            path = node_path(above)
            assert path is not None
            parsed = self.node(union, path)
            if isinstance(parsed, ArrayMeta):
                coords = parsed.parse_chunk_key(key[len(above) + 1 :])
                return Meaning("object" if coords is None else "chunk", path, coords, parsed)
            if isinstance(parsed, Unsupported):
                return Meaning("object", path)
            if parsed is not None:
                nearest = path
                break
        root = chunk_root(key)
        # A Zarr v2 array has its metadata under another name: volfs keeps it as it is.
        if root is None or union.entry(f"{root}/.zarray") is not None:
            return Meaning("object", nearest)
        return Meaning("orphan", node_path(root))

    def verdict(self, union: Union, change: Change, meaning: Meaning | None = None) -> str | None:
        """Why a file that was put is held; None if it is fit to be committed. Reads and decodes a chunk."""
        if not stat.S_ISREG(change.mode) and not (stat.S_ISLNK(change.mode) and change.key.startswith("files/")):
            return "is not an ordinary file"
        meaning = meaning or self.meaning(union, change.key)
        if meaning.kind == "orphan":
            where = node_key(meaning.path or "")
            return f"looks like a chunk of {where}, which is no array (yet): there is no valid {where}/{NODE_JSON}"
        if meaning.kind == "metadata":
            assert meaning.path is not None
            parsed = self.node(union, meaning.path)
            return str(parsed) if isinstance(parsed, BadMetadata) else None
        if meaning.kind != "chunk":
            return None
        meta, coords = meaning.meta, meaning.coords
        assert meta is not None and coords is not None
        if not meta.grid.holds(coords):
            return f"lies outside its array of shape {meta.shape}"
        return self._verdicts.get_or_make(_token(change, _storage(meta)), lambda: _decodes(change, meta))

    def verdicts(self, union: Union, items: Sequence[tuple[Change, Meaning]]) -> list[str | None]:
        """The same of many files, of which chunks of one array are decoded side by side."""
        proven: set[int] = set()
        together: defaultdict[int, list[int]] = defaultdict(list)
        for number, (_, meaning) in enumerate(items):
            meta, coords = meaning.meta, meaning.coords
            if meaning.kind == "chunk" and meta is not None and coords is not None and meta.grid.holds(coords):
                together[id(meta)].append(number)
        for numbers in together.values():
            meta = items[numbers[0]][1].meta
            assert meta is not None, "a chunk is of an array"
            storage = _storage(meta)
            tokens = {n: _token(items[n][0], storage) for n in numbers}
            unknown = [n for n in numbers if self._verdicts.get(tokens[n], self) is self]
            for place in _decodable(meta, [items[n][0].path for n in unknown]):
                self._verdicts.put(tokens[unknown[place]], None)
                proven.add(unknown[place])
        return [None if n in proven else self.verdict(union, *item) for n, item in enumerate(items)]

    def _parse(self, union: Union, key: str, entry: Entry) -> Parsed:
        if entry.layer is not None:
            raw = read_file(entry.layer.path(key))
        else:
            assert union.lower is not None
            raw = union.lower.read(key)
        try:
            return parse_node(raw)
        except (BadMetadata, Unsupported) as error:
            return error


def _identity(entry: Entry) -> Hashable:
    if entry.st is None:
        return entry.info
    return entry.st.st_ino, entry.st.st_mtime_ns, entry.st.st_ctime_ns, entry.st.st_size


def _storage(meta: ArrayMeta) -> Hashable:
    return meta.dtype.str, meta.chunk_shape, repr(meta.codecs), meta.fill_value.tobytes()


def _token(change: Change, storage: Hashable) -> Hashable:
    """What a verdict on a chunk depends on."""
    return change.ino, change.mtime_ns, change.size, storage


def _decodable(meta: ArrayMeta, paths: Sequence[str]) -> list[int]:
    """The numbers of those files that certainly are chunks of an array."""
    try:
        doubts = undecodable(paths, ChunkCodec.of(meta)) if paths else None
    except Unsupported:
        return []
    return [] if doubts is None else sorted(set(range(len(paths))) - set(doubts))


def _decodes(change: Change, meta: ArrayMeta) -> str | None:
    try:
        codec = ChunkCodec.of(meta)
    except Unsupported:
        return None
    try:
        with opened(change.path) as fd:

            def read(offset: int, length: int) -> bytes:
                return os.pread(fd, length, offset)

            codec.check(read, os.fstat(fd).st_size)
    except (Damaged, Unsupported) as error:
        return f"does not decode: {error}"
    except VolfsError as error:
        return str(error)
    return None
