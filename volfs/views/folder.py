"""Formats that are directories: N5, precomputed, Zarr v2, Deep Zoom.

A format module turns the metadata of an image or of a hierarchy into a :class:`Folder`; inodes, attributes, listing
and writing are the tree's. A folder has *fixed* entries, few and with names of their own, and at most one *run*:
entries that are computed from a number, millions if need be, and never all made at once. A file is a
:class:`ViewFile`: a layout, the array its voxels or payloads come from, and, where it can be written as a whole, how it
is decoded.

Not decided here: where arrays come from (the tree adapts those of :mod:`volfs.volume` to :class:`ArrayView`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from volfs.model.box import Box, Index
from volfs.model.metadata import ArrayMeta
from volfs.model.ngff import Axis
from volfs.views.layout import Layout, Literal, PayloadSource


class ArrayView(PayloadSource, Protocol):
    """An array of a snapshot, as a format sees it. Safe to use from many threads.

    *Blocks* are what is compressed by itself: chunks, or the inner chunks where the client shards (``meta.sharding``).
    *Keys* are what ``zarr/`` has a file for: chunks, or whole shards. Both are counted from 0 along the array's axes.
    """

    @property
    def meta(self) -> ArrayMeta:
        """Metadata as it is shown now: in a branch, the shape of a level that follows s0 is the one it will have."""

    @property
    def path(self) -> str:
        """Its place in the hierarchy, "" for the root."""

    @property
    def readable(self) -> bool:
        """Whether voxels can be had. Otherwise ``read`` and ``write`` raise; payloads of keys can always be had."""

    @property
    def block_shape(self) -> Index: ...

    @property
    def block_codecs(self) -> Sequence[Mapping[str, Any]]:
        """The codecs of a block, as in ``zarr.json``: the inner ones where the client shards."""

    def present(self, blocks: Box) -> np.ndarray:
        """Which blocks of a range are stored, bool, shaped like the range; all others are fill value. Where the client
        shards, every block of a stored shard counts."""

    def block_sizes(self, blocks: Box) -> np.ndarray:
        """The length of each block's payload of a range, shaped like the range; -1 where nothing is stored. As
        ``block_size`` says it, with one look for many."""

    def newest(self, box: Box) -> int:
        """When any voxel of a box changed last, in ns."""

    def stamp(self, box: Box) -> Hashable:
        """Equal stamps, equal voxels."""


@dataclass(frozen=True, slots=True)
class LevelView:
    """One level of an image. ``scale`` and ``translation`` as in OME-NGFF, in the order of the axes."""

    name: str
    array: ArrayView
    scale: tuple[float, ...]
    translation: tuple[float, ...]

    @property
    def shape(self) -> Index:
        return self.array.meta.shape


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image of a snapshot. ``z`` (None in 2-D), ``y``, ``x`` and ``sample`` (the axis of RGB(A) samples, None for
    gray) are numbers of axes. ``attributes`` are those of its group; ``mtime`` is the time (ns) of its metadata
    and that of its arrays."""

    name: str
    axes: tuple[Axis, ...]
    levels: tuple[LevelView, ...]
    z: int | None
    y: int
    x: int
    sample: int | None = None
    is_label: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)
    mtime: int = 0


class NodeView(Protocol):
    """A node of a hierarchy. ``children`` of an array are empty; ``array`` of a group is None."""

    @property
    def name(self) -> str: ...

    @property
    def array(self) -> ArrayView | None: ...

    @property
    def attributes(self) -> Mapping[str, Any]: ...

    @property
    def mtime(self) -> int: ...

    def children(self) -> Sequence[str]: ...

    def child(self, name: str) -> NodeView | None: ...


@dataclass(frozen=True, slots=True)
class ViewFile:
    """A file. ``source`` is what its layout reads; None where it is literal bytes, or zeros, alone.

    ``box`` are the voxels of ``source`` that it depends on, whose times and stamps are its own; ``mtime`` is its time
    where there is no box. ``decode`` turns the whole bytes of a written file into the voxels of ``box`` (in the axis
    order of the array), raising :class:`volfs.views.plane.Incomplete` or BadInput; None: it cannot be written.
    """

    layout: Layout
    source: ArrayView | None = None
    box: Box | None = None
    mtime: int = 0
    decode: Callable[[memoryview], np.ndarray] | None = None

    @classmethod
    def literal(cls, data: bytes, mtime: int) -> ViewFile:
        """A file whose bytes are known."""
        return cls(Layout(Literal(data)), mtime=mtime)


@dataclass(frozen=True, slots=True)
class Fixed:
    """An entry with a name of its own. ``ordinal`` (1 to 65535) is part of the inode of a file and must never change
    for the same name in the same folder; 0 for a folder. ``make`` is called when the entry is looked at. One that is
    not ``listed`` is there for those who know its name."""

    name: str
    make: Callable[[], Folder | ViewFile | None]
    ordinal: int = 0
    listed: bool = True


class Run(ABC):
    """Entries computed from a number, 0 to ``count`` - 1, all files or, with ``folders``, all folders, unless
    :meth:`is_folder` says it of each."""

    count: int
    folders: bool = False

    def is_folder(self, index: int) -> bool:
        """Whether the entry of a number is a folder."""
        return self.folders

    @abstractmethod
    def name(self, index: int) -> str:
        """The name of one."""

    @abstractmethod
    def index(self, name: str) -> int | None:
        """The number of a name; None unless it is exactly what ``name`` gives."""

    @abstractmethod
    def make(self, index: int) -> Folder | ViewFile | None:
        """The entry; None if there is none of this number (a chunk that is not stored)."""

    def blank(self, index: int) -> ViewFile | None:
        """What could be written where there is none: its box and how it is decoded count, its layout does not."""
        return None

    def present(self, start: int, stop: int) -> Sequence[int]:
        """Which numbers of a range have an entry: asked for a few thousand at a time, when a directory is listed."""
        return range(start, stop)


class Folder:
    """A directory of a format."""

    __slots__ = ("_fixed", "mtime", "run")

    def __init__(self, fixed: Sequence[Fixed] = (), run: Run | None = None, mtime: int = 0) -> None:
        self._fixed = {entry.name: entry for entry in fixed}
        self.run = run
        self.mtime = mtime

    @property
    def fixed(self) -> Mapping[str, Fixed]:
        return self._fixed


class Numbers(Run):
    """Entries called "0", "1", …: the directories of nested chunk keys."""

    def __init__(
        self,
        count: int,
        make: Callable[[int], Folder | ViewFile | None],
        present: Callable[[int, int], Sequence[int]] | None = None,
        prefix: str = "",
        *,
        folders: bool = False,
        blank: Callable[[int], ViewFile | None] | None = None,
    ) -> None:
        self.count = count
        self.folders = folders
        self._blank = blank
        self._make, self._present, self._prefix = make, present, prefix

    def name(self, index: int) -> str:
        return f"{self._prefix}{index}"

    def index(self, name: str) -> int | None:
        text = name.removeprefix(self._prefix)
        if not (text.isascii() and text.isdecimal()) or len(text) > 18 or name != self.name(int(text)):
            return None
        return int(text) if int(text) < self.count else None

    def make(self, index: int) -> Folder | ViewFile | None:
        return self._make(index)

    def blank(self, index: int) -> ViewFile | None:
        return None if self._blank is None else self._blank(index)

    def present(self, start: int, stop: int) -> Sequence[int]:
        return range(start, stop) if self._present is None else self._present(start, stop)


def nested(
    grid: Index,
    leaf: Callable[[Index], ViewFile | None],
    present: Callable[[Box], np.ndarray] | None = None,
    mtime: int = 0,
    at: Index = (),
    *,
    blank: Callable[[Index], ViewFile | None] | None = None,
) -> Folder:
    """Folders in folders, one level for each entry of ``grid``, the last one of files: ``0/3/17``.

    ``leaf`` gets all numbers. ``present`` tells of a box of ``grid`` which files there are; folders are all there.
    ``blank`` is :meth:`Run.blank` of all numbers.
    """
    depth = len(at)
    if depth + 1 < len(grid):
        inner = Numbers(grid[depth], lambda i: nested(grid, leaf, present, mtime, (*at, i), blank=blank), folders=True)
        return Folder(run=inner, mtime=mtime)

    def there(start: int, stop: int) -> Sequence[int]:
        assert present is not None
        row = present(Box((*at, start), (*(i + 1 for i in at), stop))).reshape(-1)
        found: Sequence[int] = (np.flatnonzero(row) + start).tolist()
        return found

    files = Numbers(
        grid[depth],
        lambda i: leaf((*at, i)),
        there if present is not None else None,
        blank=None if blank is None else lambda i: blank((*at, i)),
    )
    return Folder(run=files, mtime=mtime)
