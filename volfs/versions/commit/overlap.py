"""Two sets of changes to one base, ours and theirs: the keys and chunks that both of them touch.

Where there are none, each goes beside the other as it is, and nothing has to be combined: that is found out from names
and coordinates alone. Decided here: how each side is read, and that equal changes, and new names in a list of names, do
not overlap. Not here: which touched keys collide (:mod:`volfs.model.touch`), the changes between versions
(:mod:`volfs.versions.commit.movement`), and what comes of an overlap: whether it is a conflict is for the one engine to
say that combines versions (:mod:`volfs.versions.combine`), once both sides are versions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

from volfs.errors import Damaged, NotFound, WrongKind
from volfs.model.box import Index
from volfs.model.metadata import ArrayMeta
from volfs.model.name_lists import merge_documents
from volfs.model.touch import Touched, collisions
from volfs.versions.commit.movement import base_of, described_anew, paths_in, reads_alike, region_of
from volfs.versions.committed.version import Version
from volfs.versions.keys import NODE_JSON, node_key, node_path
from volfs.versions.snapshot import KeyInfo
from volfs.versions.working.interpreter import Interpreter
from volfs.versions.working.union import FOLDER_MODE, Union

FILE_MODE = 0o644
"""Permission bits of files of which a version says nothing."""
_NAMED = 20


class Content(NamedTuple):
    """A key as one side leaves it. ``mode`` counts for side files; ``data`` is None for a directory."""

    kind: Literal["file", "dir", "other"]
    mode: int
    data: bytes | None

    @classmethod
    def of(cls, key: str, info: KeyInfo, data: bytes | None) -> Content:
        default = FOLDER_MODE if info.kind == "dir" else FILE_MODE
        return cls(info.kind, (info.mode or default) if key.startswith("files/") else default, data)


class Side(Protocol):
    """One set of changes to the base."""

    def touched(self, beside: Touched) -> Touched:
        """The keys that the side touches. Arrays that ``beside`` touches count if they are others on this side."""

    def content(self, key: str) -> Content | None:
        """The side's file or directory at a key; None if there is none."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """The outcome. ``keys``: those that both sides leave in another state, whole arrays by their directory; ``merged``:
    files with the names that either side has listed."""

    keys: frozenset[str]
    merged: Mapping[str, bytes]


def overlap(base: Version | None, ours: Side, theirs: Side) -> Overlap:
    """Compare two sets of changes that were made to ``base``."""
    mine = ours.touched(Touched())
    found = collisions(mine, theirs.touched(mine))
    shared = {*found.arrays, *found.trees, *_directories(found, base)}
    merged: dict[str, bytes] = {}
    for key in (*found.keys, *_chunk_keys(found, base)):
        one, other = ours.content(key), theirs.content(key)
        if one == other or _as_before(base, key, other):
            continue
        data = None
        if one and other and one.data is not None and other.data is not None and key.endswith(f"/{NODE_JSON}"):
            data = merge_documents(None if base is None else committed(base, key), one.data, other.data)
        if data is None:
            shared.add(key)
        else:
            merged[key] = data
    return Overlap(frozenset(shared), merged)


def _as_before(base: Version | None, key: str, now: Content | None) -> bool:
    """Whether a side that touched a key has it as the base has it, as where it was changed there and back."""
    info = None if base is None else base.stat(key)
    if base is None or info is None:
        return now is None
    return now is not None and now.data is not None and Content.of(key, info, committed(base, key)) == now


@dataclass(frozen=True, slots=True)
class WorkingSide:
    """The uncommitted changes of a working copy."""

    union: Union
    interpreter: Interpreter

    def touched(self, beside: Touched) -> Touched:
        lower = base_of(self.union)
        keys, trees = set(), set()
        chunks: defaultdict[str, list[Index]] = defaultdict(list)
        regions: defaultdict[str, set[Index]] = defaultdict(set)
        for change in self.union.changes():
            found = None if lower is None else lower.array_above(change.key)
            coords = None if found is None else found[0].meta.parse_chunk_key(found[1])
            if found is not None and coords is not None:
                chunks[node_key(found[0].path)].append(coords)
            elif change.kind == "put":
                keys.add(change.key)
            elif (region := region_of(lower, change.key)) is not None:
                regions[region[0]].add(region[1])
            elif lower is not None and (info := lower.stat(change.key)) is not None and info.kind == "dir":
                trees.add(change.key)
            else:
                keys.add(change.key)
        rows = {folder: np.array(sorted(set(found)), np.int64) for folder, found in chunks.items()}
        touched = Touched(
            frozenset(keys), frozenset(trees), chunks=rows, regions={f: frozenset(r) for f, r in regions.items()}
        )
        return touched | Touched(arrays=frozenset(self._described_anew(touched, lower)))

    def _described_anew(self, touched: Touched, lower: Version | None) -> Iterator[str]:
        for path in paths_in(touched):
            before = None if lower is None else lower.array(path)
            parsed = self.interpreter.node(self.union, path)
            after = parsed if isinstance(parsed, ArrayMeta) else None
            if not reads_alike(None if before is None else before.meta, after) or (
                before is not None and not self.union.shows_base(node_key(path))
            ):
                yield node_key(path)

    def content(self, key: str) -> Content | None:
        info = self.union.stat(key)
        if info is None:
            return None
        return Content.of(key, info, None if info.kind == "dir" else self.union.read(key))


@dataclass(frozen=True, slots=True)
class CommittedSide:
    """A version that came after ``base``, with the changes between the two."""

    base: Version | None
    version: Version
    moved: Touched

    def touched(self, beside: Touched) -> Touched:
        paths = paths_in(beside) - paths_in(self.moved)
        return self.moved | Touched(arrays=described_anew(paths, self.base, self.version))

    def content(self, key: str) -> Content | None:
        info = self.version.stat(key)
        return None if info is None else Content.of(key, info, committed(self.version, key))


def committed(version: Version, key: str) -> bytes | None:
    """The bytes of a file in a version; None where there is none that can be read."""
    try:
        return version.read(key)
    except (NotFound, WrongKind, Damaged):
        return None


def named(keys: Sequence[str], most: int = _NAMED) -> str:
    """Keys for a message: the first of them, and how many more."""
    return ", ".join(keys[:most]) + (f" and {len(keys) - most:,} more" if len(keys) > most else "")


def _chunk_keys(touched: Touched, base: Version | None) -> Iterator[str]:
    for folder, rows in touched.chunks.items():
        array = None if base is None else base.array(node_path(folder) or "")
        if array is not None:
            yield from (f"{folder}/{array.meta.chunk_key(row)}" for row in rows.tolist())
        else:
            yield folder


def _directories(touched: Touched, base: Version | None) -> Iterator[str]:
    """The directories of chunks that were removed."""
    for folder, prefixes in touched.regions.items():
        array = None if base is None else base.array(node_path(folder) or "")
        for prefix in prefixes:
            yield folder if array is None else f"{folder}/{_chunk_directory(array.meta, prefix)}"


def _chunk_directory(meta: ArrayMeta, prefix: Index) -> str:
    whole = meta.chunk_key((*prefix, *(0,) * (meta.ndim - len(prefix))))
    return whole.rsplit("/", meta.ndim - len(prefix))[0]
