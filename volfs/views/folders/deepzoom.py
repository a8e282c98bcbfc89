"""Planes of an image as Deep Zoom images: ``xy/z00012.dzi`` and ``xy/z00012_files/LEVEL/COLUMN_ROW.png``.

Follows Deep Zoom's schema of 2008 (http://schemas.microsoft.com/deepzoom/2008) as OpenSeadragon reads it, from any web
server: unlike IIIF's, its paths are relative to the descriptor. Tiles are PNGs of exact size that hold the very voxels:
of 8 and 16 bits, gray or RGB(A), and bool; for other types there is no folder. Directories of planes and other axes are
called as those of slices are (:mod:`volfs.views.slices`).

Deep Zoom wants a level for each power of two, down to one pixel, alike down and across. A level is the coarsest of the
image's whose voxels are no larger along either axis; where they are smaller, because the image has no such level or
because z does not shrink with x and y, every second, fourth, … voxel is shown. Where a tile would take too many voxels
for that, a descriptor says (``DisplayRects``) that the level is not there.

The plane of a coarse level that contains position 12 is the one shown under ``z00012``. Levels of an image that do not
shrink by powers of two are not used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from xml.etree import ElementTree

from volfs.model.box import Box, Index
from volfs.views import png
from volfs.views.folder import FILES_WHOLE, Fixed, Folder, ImageView, LevelView, Run, ViewFile, listed
from volfs.views.folders.spatial import AxisFolders, shown_levels, stored_positions
from volfs.views.layout import Extent, Voxels
from volfs.views.samples import Sampled
from volfs.views.slices import SliceGeometry

TILE, OVERLAP = 254, 1
"""Pixels of a tile, down and across, and of each neighbour in it: OpenSeadragon stretches tiles that do not overlap."""
MOST_VOXELS = 1 << 24
"""Voxels that one tile may be picked from."""

_LONGEST = 1 << 28
"""Pixels of a side. OpenSeadragon counts levels with logarithms, and is off by one from 2^29 on."""
_NAMESPACE = "http://schemas.microsoft.com/deepzoom/2008"
_DESCRIPTOR, _FILES = ".dzi", "_files"


def folder(image: ImageView) -> Folder | None:
    """All planes of an image; None if they have no exact PNG."""
    levels = shown_levels(image)
    if not levels:
        return None
    first = levels[0].array
    names = [axis.name for axis in image.axes]
    geometry = SliceGeometry.of(names, first.shape, first.dtype, rgb=image.sample is not None)
    if geometry is None or not png.holds(first.dtype, geometry.samples, TILE, TILE):
        return None
    shrunk = tuple(_Shrunk.of(level, levels[0]) for level in levels)

    def others(indices: Index) -> Folder:
        """The content of a time point and channel, or the directories of those."""
        if len(indices) < len(geometry.others):
            axis = geometry.others[len(indices)]
            fixed = {other.axis: at for other, at in zip(geometry.others, indices, strict=False)}
            stored = stored_positions(first, [axis.axis], fixed)
            return Folder(run=AxisFolders(axis, lambda index: others((*indices, index)), stored), mtime=image.mtime)
        pyramids = [_Pyramid(geometry, shrunk, plane, indices, image.mtime) for plane in geometry.planes]
        return Folder(
            [Fixed(one.plane, partial(positions, one)) for one in pyramids if max(one.size) <= _LONGEST],
            mtime=image.mtime,
        )

    def positions(pyramid: _Pyramid) -> Folder:
        return Folder(run=_Positions(pyramid), mtime=image.mtime)

    return others(())


class _Positions(Run):
    """The pictures of a plane, two entries each: the descriptor, and the directory of its tiles."""

    def __init__(self, pyramid: _Pyramid) -> None:
        self._pyramid = pyramid
        self.count = 2 * pyramid.geometry.count(pyramid.plane)

    def is_folder(self, index: int) -> bool:
        return index % 2 == 1

    def name(self, index: int) -> str:
        name = self._pyramid.geometry.name(self._pyramid.plane, index // 2, _DESCRIPTOR)
        return name.removesuffix(_DESCRIPTOR) + _FILES if self.is_folder(index) else name

    def index(self, name: str) -> int | None:
        stem = name.removesuffix(_FILES)
        found = self._pyramid.geometry.parse(self._pyramid.plane, name if stem == name else stem + _DESCRIPTOR)
        return None if found is None or found[1] != _DESCRIPTOR else 2 * found[0] + (stem != name)

    def following(self, start: int) -> Iterator[int]:
        return listed((self.count // 2, 2), start, self._stored)

    def _stored(self, axis: int, cells: Box) -> Iterable[int]:
        if axis == 1:
            return range(cells.start[1], cells.stop[1])  # the tiles of every picture that is there
        geometry, array = self._pyramid.geometry, self._pyramid.levels[0].level.array
        through = geometry.through(self._pyramid.plane)
        if through is None:
            return range(cells.start[0], cells.stop[0])
        return stored_positions(array, [through], self._pyramid.fixed)(0, Box(cells.start[:1], cells.stop[:1]))

    def make(self, index: int) -> Folder | ViewFile:
        if not self.is_folder(index):
            return ViewFile.literal(self._pyramid.descriptor, self._pyramid.mtime)
        return self._pyramid.files(index // 2)


class _Tiles(Run):
    """The tiles of a level, row by row: ``COLUMN_ROW.png``."""

    def __init__(self, picture: _Picture, position: int) -> None:
        self._picture = picture
        self._position = position
        self._rows, self._columns = (-(-n // TILE) for n in picture.size)
        self.count = self._rows * self._columns

    def name(self, index: int) -> str:
        row, column = divmod(index, self._columns)
        return f"{column}_{row}.png"

    def index(self, name: str) -> int | None:
        column, _, row = name.removesuffix(".png").partition("_")
        if not all(n.isascii() and n.isdecimal() and len(n) < 18 for n in (column, row)):
            return None
        if int(column) >= self._columns or int(row) >= self._rows:
            return None
        index = int(row) * self._columns + int(column)
        return index if name == self.name(index) else None

    def following(self, start: int) -> Iterator[int]:
        return listed((self._rows, self._columns), start, self._stored, whole=FILES_WHOLE)

    def _stored(self, axis: int, cells: Box) -> Iterator[int]:
        """The rows (axis 0) or columns (1) of a range of tiles that show a voxel of a stored block."""
        picture, pyramid = self._picture, self._picture.pyramid
        geometry, fixed = pyramid.geometry, picture.fixed(self._position)
        axes = geometry.down(pyramid.plane), geometry.across(pyramid.plane)
        spans = [step * TILE for step in picture.steps]
        voxels = Box(
            tuple(min(a * span, picture.level.shape[at]) for a, span, at in zip(cells.start, spans, axes, strict=True)),
            tuple(min(b * span, picture.level.shape[at]) for b, span, at in zip(cells.stop, spans, axes, strict=True)),
        )
        if voxels.empty:
            return
        last = -1
        for index in stored_positions(picture.level.array, axes, fixed)(axis, voxels):
            if index // spans[axis] > last:
                last = index // spans[axis]
                yield last

    def make(self, index: int) -> ViewFile:
        return self._picture.tile(self._position, *divmod(index, self._columns))


@dataclass(frozen=True, slots=True)
class _Shrunk:
    """A level, and how many voxels of s0 make one of it along each axis: powers of two, None if they are not."""

    level: LevelView
    factors: tuple[int | None, ...]

    @classmethod
    def of(cls, level: LevelView, first: LevelView) -> _Shrunk:
        return cls(level, tuple(_factor(level, first, axis) for axis in range(len(first.shape))))


def _factor(level: LevelView, first: LevelView, axis: int) -> int | None:
    """By which power of two an axis shrinks; writers round sizes up or down, and may not tell voxel sizes."""
    most, here = first.shape[axis], level.shape[axis]
    told = level.scale[axis] / first.scale[axis] if first.scale[axis] else 0.0
    for ratio in (told, most / here):
        if 0.75 < ratio < 2.0**40:
            factor: int = 1 << round(math.log2(ratio))
            if abs(here - most / factor) < 1:
                return factor
    return None


@dataclass(frozen=True)
class _Pyramid:
    """The Deep Zoom images of a plane, at one time point and channel: they differ in nothing but position."""

    geometry: SliceGeometry
    levels: tuple[_Shrunk, ...]
    plane: str
    others: Index
    mtime: int

    @property
    def fixed(self) -> dict[int, int]:
        """The time point and channel, by axis."""
        return {other.axis: at for other, at in zip(self.geometry.others, self.others, strict=True)}

    @property
    def size(self) -> tuple[int, int]:
        """Pixels of the finest level: down, across."""
        shape = self.geometry.shape
        return shape[self.geometry.down(self.plane)], shape[self.geometry.across(self.plane)]

    @cached_property
    def pictures(self) -> tuple[_Picture | None, ...]:
        """The levels that Deep Zoom wants, the last the finest; None for one whose tiles would take too many voxels."""
        scales = [1 << n for n in range((max(self.size) - 1).bit_length(), -1, -1)]
        return tuple(self._picture(scale) for scale in scales)

    def _picture(self, scale: int) -> _Picture | None:
        found = [made for shrunk in self.levels if (made := self._taken(shrunk, scale)) is not None]
        best = min(found, key=lambda made: math.prod(made.steps))
        return best if best.voxels <= MOST_VOXELS else None

    def _taken(self, shrunk: _Shrunk, scale: int) -> _Picture | None:
        geometry = self.geometry
        through = geometry.through(self.plane)
        down, across = shrunk.factors[geometry.down(self.plane)], shrunk.factors[geometry.across(self.plane)]
        behind = 1 if through is None else shrunk.factors[through]
        if down is None or across is None or behind is None or max(down, across) > scale:
            return None
        rows, columns = (-(-n // scale) for n in self.size)
        return _Picture(self, shrunk.level, (rows, columns), (scale // down, scale // across), behind)

    def files(self, position: int) -> Folder:
        """The directory of tiles of one position."""

        def level(picture: _Picture) -> Folder:
            return Folder(run=_Tiles(picture, position), mtime=self.mtime)

        entries = [
            Fixed(str(number), partial(level, picture))
            for number, picture in enumerate(self.pictures)
            if picture is not None
        ]
        return Folder(entries, mtime=self.mtime)

    @cached_property
    def descriptor(self) -> bytes:
        """The same for all positions."""
        rows, columns = self.size
        image = ElementTree.Element("Image", xmlns=_NAMESPACE, TileSize=str(TILE), Overlap=str(OVERLAP), Format="png")
        ElementTree.SubElement(image, "Size", Width=str(columns), Height=str(rows))
        if any(picture is None for picture in self.pictures):
            rectangles = ElementTree.SubElement(image, "DisplayRects")
            # Absent levels are named too, as empty: OpenSeadragon requests every level that is not named.
            for absent, levels in groupby(enumerate(self.pictures), lambda level: level[1] is None):
                numbers = [str(number) for number, _ in levels]
                shown = ElementTree.SubElement(rectangles, "DisplayRect", MinLevel=numbers[0], MaxLevel=numbers[-1])
                width, height = (0, 0) if absent else (columns, rows)
                ElementTree.SubElement(shown, "Rect", X="0", Y="0", Width=str(width), Height=str(height))
        raw: bytes = ElementTree.tostring(image, encoding="utf-8", xml_declaration=True)
        return raw


@dataclass(frozen=True, slots=True)
class _Picture:
    """A level of Deep Zoom: ``size`` pixels down and across, every ``steps``-th voxel of a level of the image, which
    has one voxel for ``behind`` positions."""

    pyramid: _Pyramid
    level: LevelView
    size: tuple[int, int]
    steps: tuple[int, int]
    behind: int

    @property
    def voxels(self) -> int:
        """How many a tile may be picked from."""
        return math.prod(min(TILE + 2 * OVERLAP, n) * step for n, step in zip(self.size, self.steps, strict=True))

    def fixed(self, position: int) -> dict[int, int]:
        """The indices of a position along all axes but those of the plane, by axis."""
        found = self.pyramid.fixed
        if (through := self.pyramid.geometry.through(self.pyramid.plane)) is not None:
            found[through] = min(position // self.behind, self.level.shape[through] - 1)
        return found

    def tile(self, position: int, row: int, column: int) -> ViewFile:
        geometry, plane, shape = self.pyramid.geometry, self.pyramid.plane, self.level.shape
        start, counts, steps = [0] * len(shape), list(shape), [1] * len(shape)
        for axis, at in self.fixed(position).items():
            start[axis], counts[axis] = at, 1
        for axis, tile, size, step in zip(
            (geometry.down(plane), geometry.across(plane)), (row, column), self.size, self.steps, strict=True
        ):
            # Where sizes were rounded down there may be one pixel more than voxels: it shows the last one.
            first, last = max(0, tile * TILE - OVERLAP), min((tile + 1) * TILE + OVERLAP, size)
            start[axis] = min(first * step, shape[axis] - 1)
            counts[axis], steps[axis] = last - first, step
        stop = (min(a + (n - 1) * k + 1, m) for a, n, k, m in zip(start, counts, steps, shape, strict=True))
        box = Box(tuple(start), tuple(stop))
        spec = geometry.part(plane, box)
        dtype, packed = spec.dtype.newbyteorder(">"), spec.dtype.kind == "b"
        voxels: Extent = (
            Voxels(box, spec.order, dtype, packed=packed)
            if box.shape == tuple(counts)
            else Sampled(box, tuple(steps), tuple(counts), spec.order, dtype, packed=packed)
        )
        shown = [counts[axis] for axis in spec.order][-3 if spec.has_samples else -2 :]
        return ViewFile(png.framed(voxels, tuple(shown), spec.dtype), self.level.array, box)
