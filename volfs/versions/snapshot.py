"""A snapshot: one state of a dataset, readable by key and by array.

Decided here: the interface that versions (:mod:`volfs.versions.committed.version`) and branches
(:mod:`volfs.versions.branch`) share, so that nobody above needs to know which of the two is being read. Not decided
here: where bytes come from. Above, ``volume/`` reads arrays through :class:`ArrayNode` and ``tree/`` reads keys
through :class:`Snapshot`.

Keys are ``zarr/…`` (a Zarr v3 hierarchy) and ``files/…`` (side files); ``""``, ``"zarr"`` and ``"files"`` always
exist as directories. Node paths are hierarchy paths below ``zarr/``, ``""`` being the root node. Everything here is
synchronous and safe to call from many threads at once.
"""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from volfs.errors import NotFound, Unsupported
from volfs.model.box import Box
from volfs.model.public_mapping import PublicMapping
from volfs.storage.codec import ChunkCodec
from volfs.versions.history import History, Opening

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrAbstractStore

    from volfs.model.box import Index
    from volfs.model.graph import VersionInfo
    from volfs.model.metadata import ArrayMeta


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """The stat of a key. ``size`` is 0 for a directory.

    ``mtime_ns`` is the time of the newest version that changed the key, or of the file in the working copy; a side file
    keeps the time that it was given. ``version`` is the number of the version the bytes come from; 0 for uncommitted
    ones. ``mode``: the permission bits that a side file, or a directory of side files, was given, or ``S_IFLNK``; 0 for
    those of its kind. A symbolic link is a file whose bytes are its target.
    """

    kind: Literal["file", "dir"]
    size: int
    mtime_ns: int
    version: int = 0
    mode: int = 0

    @property
    def is_link(self) -> bool:
        """Whether this is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @classmethod
    def of(cls, found: os.stat_result) -> KeyInfo:
        """The stat of a file or directory of a working copy."""
        bits = stat.S_IFLNK if stat.S_ISLNK(found.st_mode) else stat.S_IMODE(found.st_mode)
        if stat.S_ISDIR(found.st_mode):
            return cls("dir", 0, found.st_mtime_ns, mode=bits)
        return cls("file", found.st_size, found.st_mtime_ns, mode=bits)


Listing = list[tuple[str, KeyInfo]]
Names = list[str]  # spelt here, because inside Snapshot the name ``list`` is a method


@dataclass(frozen=True, slots=True)
class GroupNode:
    """A Zarr group. ``mtime_ns`` is that of its ``zarr.json``."""

    path: str
    attributes: dict[str, Any]
    mtime_ns: int


class StoredPayload(Protocol):
    """The bytes of one chunk, as written. Reading checks them: :class:`~volfs.errors.Damaged`, never other bytes."""

    @property
    def token(self) -> Hashable:
        """Equal tokens mean equal bytes, for ever: a key for caches of decoded blocks."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes, verified; or a range of them, of which no more need be read than proves it (shards)."""


class ArrayNode(ABC):
    """A Zarr array in one snapshot: its metadata and the chunks that are present.

    Chunk coordinates count chunks of the array's key grid (``meta.grid``), in the order of the array's axes.
    """

    snapshot: Snapshot
    path: str
    meta: ArrayMeta
    mtime_ns: int

    _codec: ChunkCodec | None = None

    @property
    def codec(self) -> ChunkCodec:
        """Decodes chunks. Raises Unsupported for a codec volfs does not know: such chunks are opaque bytes."""
        if self._codec is None:
            self._codec = ChunkCodec.of(self.meta)
        return self._codec

    @property
    def readable(self) -> bool:
        """Whether voxels can be had: false when the codecs are not known to volfs."""
        try:
            _ = self.codec
        except Unsupported:
            return False
        return True

    @abstractmethod
    def payloads(self, chunks: Box) -> dict[Index, StoredPayload]:
        """The present chunks in a range of chunk coordinates; a missing one reads as the fill value."""

    def present(self, chunks: Box) -> NDArray[np.bool_]:
        """Which chunks of a range are present, shaped like the range."""
        found = np.zeros(chunks.shape, dtype=np.bool_)
        for coords in self.payloads(chunks):
            found[tuple(c - s for c, s in zip(coords, chunks.start, strict=True))] = True
        return found

    def indices(self, axis: int, chunks: Box) -> list[int]:
        """Indices along an axis at which a chunk of a range of chunk coordinates is present; ascending.

        What it costs follows what is present there, not how many chunks the range, or the array, has room for.
        """
        return sorted({coords[axis] for coords in self.payloads(chunks)})

    @abstractmethod
    def newest(self, axes: tuple[int, ...]) -> NDArray[np.int64]:
        """Time (ns) of the newest change, a put or a removal, per chunk index along ``axes``, over all other axes.

        The result has one dimension per axis of ``axes``, each as long as the chunk grid is along it; no entry is
        older than the array's ``zarr.json`` of this incarnation first was. Do not write into it. It has as many
        elements as the grid has room for: ask :meth:`newest_along` where that may be many.
        """

    def newest_along(self, axis: int, chunks: Box) -> NDArray[np.int64]:
        """:meth:`newest` for the indices of a range of chunk coordinates along one axis, over that range alone."""
        slabs = (slab_of(chunks, axis, i) for i in range(chunks.start[axis], chunks.stop[axis]))
        return np.array([self.newest_in(slab) for slab in slabs], np.int64)

    @abstractmethod
    def newest_in(self, chunks: Box) -> int:
        """Time (ns) of the newest change in a range of chunk coordinates; at least the array's birth."""


def slab_of(chunks: Box, axis: int, index: int) -> Box:
    """The part of a range at one index along an axis."""
    start, stop = list(chunks.start), list(chunks.stop)
    start[axis], stop[axis] = index, index + 1
    return Box(tuple(start), tuple(stop))


class Snapshot(PublicMapping[Any]):
    """One state of a dataset: an immutable version, or a branch with its working copy.

    A mapping of its images by their paths, "" being the root's. It knows the paths of levels too: ``snapshot["s0"]``.
    """

    PUBLIC: ClassVar[tuple[str, ...]] = (
        *("dataset", "ref", "base", "writable", "generation", "images"),
        *("list", "read", "stat", "node", "children", "zarr_store"),
    )

    dataset: History[Snapshot]
    ref: str

    # -- images -------------------------------------------------------------------------------------------------

    @property
    def images(self) -> Mapping[str, Any]:
        """The images by their paths, the root's first: :func:`volfs.images`, which says their type."""
        return self.dataset.store.face.images(self)

    def __getitem__(self, path: str) -> Any:
        found = self.dataset.store.face.at(self, path) if isinstance(path, str) else None
        if found is None:
            there = ", ".join(repr(one) for one in self.images)
            raise NotFound(
                f"no image or level is at {path!r} in {self.dataset.name}@{self.ref}"
                + (f": there is {there}" if there else "")
            )
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def _repr_html_(self) -> str:
        return self.dataset.store.face.html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        number = 0 if isinstance(self, WritableSnapshot) or self.base is None else self.base.number
        known = self.dataset.info(number).content_id if number else None
        return _reopened, (self.dataset.store.opening(), self.dataset.name, self.ref, known)

    # -- keys ---------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def writable(self) -> bool:
        """True if keys can be changed now."""

    @property
    @abstractmethod
    def base(self) -> VersionInfo | None:
        """The version itself; for a branch the one its uncommitted changes lie over, None while there is none."""

    @abstractmethod
    def generation(self) -> Hashable:
        """Changes whenever anything in the snapshot may have changed; constant for a version."""

    @abstractmethod
    def stat(self, key: str) -> KeyInfo | None:
        """The stat of ``key``, or None. ``""``, ``"zarr"`` and ``"files"`` are always directories."""

    @abstractmethod
    def list(self, key: str) -> Listing:
        """The entries of a directory, sorted by name. Raises NotFound, or WrongKind for a file."""

    @abstractmethod
    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file, verified; short at its end, as ``pread``. Raises NotFound, WrongKind, Damaged."""

    def read_resident(self, key: str) -> memoryview | None:
        """All bytes of a file, verified, if that takes no waiting for a disk; else None. Raises as :meth:`read`."""
        return None

    @abstractmethod
    def node(self, path: str) -> ArrayNode | GroupNode | None:
        """The Zarr node at a hierarchy path; None if no ``zarr.json`` is there or it does not parse."""

    def children(self, path: str) -> Names:
        """Names of the nodes directly below a group, sorted; none below an array."""
        if isinstance(self.node(path), ArrayNode):
            return []
        base = f"zarr/{path}" if path else "zarr"
        try:
            entries = self.list(base)
        except NotFound:
            return []
        return [
            name
            for name, info in entries
            if info.kind == "dir" and self.node(f"{path}/{name}" if path else name) is not None
        ]

    @abstractmethod
    def zarr_store(self) -> ZarrAbstractStore:
        """The whole hierarchy as a Zarr store: read-only for a version, read-write for a branch."""


class WritableSnapshot(Snapshot):
    """A snapshot whose keys can be changed."""

    PUBLIC: ClassVar[tuple[str, ...]] = ("put", "delete", "delete_tree")

    @abstractmethod
    def put(self, key: str, data: bytes | bytearray | memoryview, *, only_new: bool = False) -> bool:
        """Make ``data`` the whole content of a key, in one step, with the directories it needs.

        With ``only_new`` a key that is there stays as it is, and the answer is False.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a file. Raises NotFound."""

    @abstractmethod
    def delete_tree(self, key: str) -> None:
        """Remove a directory or file with all below it, in one step. An array put there later is a new one."""


@runtime_checkable
class CombinedLevels(Protocol):
    """A state that was combined from two versions, as the computation of coarser levels asks it."""

    @property
    def theirs(self) -> Snapshot | None:
        """The version whose changes came on top."""

    def like_theirs(self, path: str, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which chunks of an array, a row of coordinates each, are what theirs has."""

    def take(self, path: str, chunks: Collection[Index]) -> None:
        """Have these chunks of an array be what theirs has, by reference, and not computed."""


def _reopened(opening: Opening, dataset: str, ref: str, content_id: str | None) -> Snapshot:
    """The snapshot of a pickle. NotFound if the version of that number is another by now."""
    snapshot: Snapshot = opening(dataset, ref)
    if content_id is not None and (snapshot.base is None or snapshot.base.content_id != content_id):
        raise NotFound(f"{dataset}@{ref} is another version now than the one that was pickled: {content_id[:12]}…")
    return snapshot


Put = Callable[[str, bytes | None], None]
"""Takes a key and its new bytes, or None if the key must go."""

Derive = Callable[[Snapshot, Put], object]
"""Called with the state about to be committed; puts every key that is computed from others and must change with them,
such as the coarser levels of an image. A function of a module, because a pickled store names it."""
