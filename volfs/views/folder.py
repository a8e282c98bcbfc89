"""Formats that are directories: N5, precomputed, Zarr v2, Deep Zoom.

A format module turns the metadata of an image or of a hierarchy into a :class:`Folder`; inodes, attributes, listing
and writing are the tree's. A folder has *fixed* entries, few and with names of their own, and at most one *run*:
entries that are computed from a number, millions if need be, and never all made at once. A file is a
:class:`ViewFile`: a layout, the array its voxels or payloads come from, and, where it can be written as a whole, how it
is decoded.

Not decided here: where arrays come from (the tree adapts those of :mod:`volfs.volume` to :class:`ArrayView`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
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

    def stored_along(self, axis: int, blocks: Box) -> Sequence[int]:
        """Indices along an axis at which a block of a range is stored, ascending; of blocks as ``present`` has them.
        The cost follows the number of stored cells, however large the range."""

    def keys_along(self, axis: int, keys: Box) -> Sequence[int]:
        """The same of keys."""

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
    """A file. ``source`` has the voxels of its layout; None where that is literal bytes, or zeros, alone.

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
        """The file that a write would make where there is none: its box and its decoder count, its layout does not."""
        return None

    def following(self, start: int) -> Iterator[int]:
        """The numbers from ``start`` on of which a listing tells, ascending, found as they are asked for. Others may be
        opened by name. A run of very many tells of those alone of which something is stored (:func:`listed`): what is
        claimed to be there may have no end."""
        return iter(range(start, self.count))


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
        following: Callable[[int], Iterator[int]] | None = None,
        prefix: str = "",
        *,
        folders: bool = False,
        blank: Callable[[int], ViewFile | None] | None = None,
    ) -> None:
        self.count = count
        self.folders = folders
        self._blank = blank
        self._make, self._following, self._prefix = make, following, prefix

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

    def following(self, start: int) -> Iterator[int]:
        return super().following(start) if self._following is None else self._following(start)


Stored = Callable[[int, Box], Iterable[int]]
"""Given an axis of a grid and a range of its cells: the indices along the axis at which something of the range is
stored, ascending. The cost follows the number of stored cells."""

LISTED_WHOLE = 1 << 16
"""Of up to so many folders of indices along an axis, those are listed too in which nothing is stored."""
FILES_WHOLE = 1 << 12
"""Of up to so many files of voxels, those are listed too of which nothing is stored."""


def listed(grid: Index, start: int, stored: Stored, *, whole: int = LISTED_WHOLE) -> Iterator[int]:
    """:meth:`Run.following` of the cells of a grid, numbered in C order: all of up to ``whole``, of more the stored."""
    count = math.prod(grid)
    return iter(range(start, count)) if count <= whole else _cells(grid, start, stored)


def _cells(grid: Index, start: int, stored: Stored) -> Iterator[int]:
    """The numbers from ``start`` on of stored cells."""
    low = []
    for count in reversed(grid):
        start, index = divmod(start, max(1, count))
        low.append(index)
    return iter(()) if start else _walk(grid, (), tuple(reversed(low)), 0, stored)


def _walk(grid: Index, at: Index, low: Index, number: int, stored: Stored) -> Iterator[int]:
    """Those below the leading indices ``at``; ``low``: where to begin along the axes that are left."""
    axis, begin = len(at), low[0]
    step = 1
    while begin < grid[axis]:
        # A little more each time: a listing of dense cells ends soon, and sparse ranges are crossed soon.
        end = min(begin + step, grid[axis])
        span = Box((*at, begin, *(0,) * (len(grid) - axis - 1)), (*(i + 1 for i in at), end, *grid[axis + 1 :]))
        for index in stored(axis, span):
            if axis + 1 == len(grid):
                yield number + index
            else:
                rest = low[1:] if index == low[0] else (0,) * (len(low) - 1)
                yield from _walk(grid, (*at, index), rest, (number + index) * grid[axis + 1], stored)
        begin, step = end, step * 8


def nested(
    grid: Index,
    leaf: Callable[[Index], ViewFile | None],
    stored: Stored,
    mtime: int = 0,
    at: Index = (),
    *,
    sparse: bool = True,
    blank: Callable[[Index], ViewFile | None] | None = None,
) -> Folder:
    """Folders in folders, one level for each entry of ``grid``, the last one of files: ``0/3/17``.

    ``leaf`` gets all numbers. ``stored`` and ``sparse`` tell which are listed, see :func:`listed`; folders are all
    listed where they are few, and can all be entered. ``blank`` is :meth:`Run.blank` of all numbers.
    """
    depth = len(at)
    last = depth + 1 == len(grid)
    whole = math.prod(grid[depth:] if last else grid) <= FILES_WHOLE and not (sparse and last)

    def following(start: int) -> Iterator[int]:
        if whole:
            return iter(range(start, grid[depth]))
        rest = (0,) * (len(grid) - depth - 1)

        def along(_: int, span: Box) -> Iterable[int]:
            below = (i + 1 for i in at)
            return stored(depth, Box((*at, *span.start, *rest), (*below, *span.stop, *grid[depth + 1 :])))

        return _cells(grid[depth : depth + 1], start, along)

    def make(index: int) -> Folder | ViewFile | None:
        here = (*at, index)
        return leaf(here) if last else nested(grid, leaf, stored, mtime, here, sparse=sparse, blank=blank)

    run = Numbers(
        grid[depth],
        make,
        following,
        folders=not last,
        blank=None if blank is None or not last else lambda index: blank((*at, index)),
    )
    return Folder(run=run, mtime=mtime)
