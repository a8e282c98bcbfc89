"""Planes through the volume at any angle, made by naming them:
``oblique/x0_y0_z0__x100_y0_z0__x0_y80_z50__p4.png``.

Three points, top left, top right and bottom left, are the *centres of pixels*: the first pixel lies on the top left
one, and from there they follow every ``p`` towards the two others, as long as these are not passed. So a plane named
along the axes, with the voxel size as ``p``, has the voxels of a slice. Points are given in the image's own
coordinates, those of OME-NGFF: the centre of voxel 0 lies at the level's translation, and all levels show the same
place under the same name. x, y and z, called so whatever the image calls them, are in its unit of length (that of the
x axis, should they differ). Numbers are decimal, with ``-`` and ``.`` where needed, which every filesystem allows. An
image with other axes longer than one has the place along them first: ``t3_c1__x0_…``.

What is no plane (a point twice, three in a line), is further from the volume than half a voxel everywhere, or has more
than 32768 pixels a side, is no name. 2-D images have none.

How pixels come about is in :mod:`volfs.views.interpolation`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from volfs.model.box import Box, Index
from volfs.model.units import METRES
from volfs.views import jpeg, slices
from volfs.views.interpolation import (
    Floats,
    Picture,
    Resampled,
    between,
    exact,
    finished,
    mix,
    picture_plane,
    resampled,
)
from volfs.views.layout import VoxelSource, placed
from volfs.views.slices import SliceGeometry
from volfs.views.volumes.volume_spec import LevelMeta

LONGEST = 32_768
"""Pixels a side, at most."""

_NUMBER = r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?"
_INDEX = r"(?:0|[1-9][0-9]{0,17})"
_POINT = rf"x({_NUMBER})_y({_NUMBER})_z({_NUMBER})"
_LONGEST_NAME = 255
_PARALLEL = 1e-9
_LAST = 1e-6
"""A pixel that passes the end by less than this part of its size is there: decimals have ends, thirds do not."""
_FARTHEST = 1e9
"""Voxels from the origin: so far positions are exact enough for the piece of a picture to be that of the whole."""

_READ_AT_ONCE = 1 << 16
"""Voxels read for one piece of the picture. The box around a slanted piece has far more than it shows, the more so the
larger the piece."""
_PIXELS_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the pixels lie, in voxels of the level: z, y, x of the first, and the steps down and across."""

    origin: Floats
    down: Floats
    across: Floats
    rows: int
    columns: int

    def positions(self, axis: int, rows: np.ndarray, columns: np.ndarray) -> Floats:
        """Of pixels, along z, y or x (0 to 2). Always computed alike, so that pieces fit together."""
        made: Floats = self.origin[axis] + rows * self.down[axis] + columns * self.across[axis]
        return made

    def hull(self, shape: Index, top: int, bottom: int, left: int, right: int) -> Box | None:
        """The box of voxels that a piece of the picture needs; None where it lies beyond the volume."""
        rows, columns = np.array([top, top, bottom - 1, bottom - 1]), np.array([left, right - 1, left, right - 1])
        start, stop = [], []
        for axis, size in enumerate(shape):
            found = self.positions(axis, rows, columns)
            low, high = float(found.min()) - _LAST, float(found.max()) + _LAST
            if high < -0.5 or low >= size - 0.5:
                return None
            start.append(max(0, min(size - 1, math.floor(low))))
            stop.append(max(1, min(size, math.floor(high) + 2)))
        return Box(tuple(start), tuple(stop))


def open_name(level: LevelMeta, name: str) -> Resampled | None:
    """The file that a name in ``oblique/`` stands for; None if it stands for none. Reads nothing."""
    geometry = level.geometry
    if geometry.z is None or len(name) > _LONGEST_NAME:
        return None
    found = _pattern(tuple(label for _, label in _others(geometry))).fullmatch(name)
    if found is None:
        return None
    *before, size, ending = found.groups()
    points = np.array([float(number) for number in before[-9:]]).reshape(3, 3)
    others = _indices(geometry, before[:-9])
    grid = _grid(level, points, float(size))
    if others is None or grid is None:
        return None
    space = _space(geometry)
    hull = grid.hull(tuple(geometry.shape[axis] for axis in space), 0, grid.rows, 0, grid.columns)
    if hull is None:
        return None
    start, stop = [0] * len(geometry.shape), list(geometry.shape)
    for axis, low, high in zip(space, hull.start, hull.stop, strict=True):
        start[axis], stop[axis] = low, high
    for other, at in zip(geometry.others, others, strict=True):
        start[other.axis], stop[other.axis] = at, at + 1
    shape = (grid.rows, grid.columns, geometry.samples) if geometry.sample is not None else (grid.rows, grid.columns)
    metres = METRES.get(_unit(level, geometry.x) or "")
    pixel = float(size) * (metres or 1.0)
    plane = picture_plane(shape, geometry.dtype, (pixel, pixel), metric=metres is not None)
    wrap = partial(_Oblique, geometry, grid, others, nearest=level.is_label)
    return resampled(Box(tuple(start), tuple(stop)), plane, ending, others, wrap)


def readme(level: LevelMeta) -> str:
    """The text of ``oblique/README.txt``: the names that files can have."""
    geometry = level.geometry
    if geometry.z is None:
        return "Only volumes have planes at an angle.\n"
    where = {
        label: (level.translation[axis], level.translation[axis] + (geometry.shape[axis] - 1) * level.scale[axis])
        for label, axis in zip("xyz", reversed(_space(geometry)), strict=True)
    }
    low = {label: _decimal(ends[0]) for label, ends in where.items()}
    high = {label: _decimal(ends[1]) for label, ends in where.items()}
    first = "_".join(f"{label}{geometry.shape[axis] // 2}" for axis, label in _others(geometry))
    corners = (
        f"x{low['x']}_y{low['y']}_z{low['z']}",
        f"x{high['x']}_y{low['y']}_z{low['z']}",
        f"x{low['x']}_y{high['y']}_z{high['z']}",
    )
    positive = [abs(level.scale[axis]) for axis in _space(geometry) if level.scale[axis]]
    example = "__".join((*([first] if first else []), *corners, f"p{_decimal(min(positive, default=1.0))}"))
    extent = "\n".join(f"    {label} {low[label]} to {high[label]}" for label in "xyz")
    unit = _unit(level, geometry.x) or "of no known unit"
    return f"""Any plane through this level is a file here, made by naming it; nothing is listed.

    {example}.png

Three points, top left, top right and bottom left, and the size of a pixel (p), all in the coordinates of the image
({unit}). The first pixel lies on the first point. Centres of voxels lie at

{extent}

Endings: {" ".join((*slices.ENDINGS, jpeg.ENDING))}
"""


def _decimal(value: float) -> str:
    text = f"{value:.9f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _space(geometry: SliceGeometry) -> tuple[int, int, int]:
    assert geometry.z is not None
    return geometry.z, geometry.y, geometry.x


def _unit(level: LevelMeta, axis: int) -> str | None:
    return level.axes[axis].unit


def _others(geometry: SliceGeometry) -> list[tuple[int, str]]:
    space = _space(geometry)
    return [(axis, label) for axis, label in geometry.labels if axis not in space]


def _indices(geometry: SliceGeometry, found: list[str | None]) -> Index | None:
    """The place along the other axes, in the order of ``geometry.others``."""
    given = {axis: text for (axis, _), text in zip(_others(geometry), found, strict=True)}
    indices = []
    for other in geometry.others:
        text = given[other.axis]
        if text is None and other.count > 1:
            return None
        indices.append(int(text or 0))
        if indices[-1] >= other.count:
            return None
    return tuple(indices)


def _grid(level: LevelMeta, points: Floats, size: float) -> Grid | None:
    """From three points (x, y, z) to the pixels; None if they are no plane, or one that is too large."""
    space = _space(level.geometry)
    scale, translation = (np.array([values[axis] for axis in space]) for values in (level.scale, level.translation))
    if not (size > 0 and np.isfinite(scale).all() and scale.all() and np.isfinite(translation).all()):
        return None
    lengths = [METRES.get(_unit(level, axis) or "") for axis in space]
    if lengths[2] is not None:  # all in the unit of x
        factor = np.array([1.0 if length is None else length / lengths[2] for length in lengths])
        scale, translation = scale * factor, translation * factor
    top_left, top_right, bottom_left = points[:, ::-1]
    across, down = top_right - top_left, bottom_left - top_left
    width, height = float(np.linalg.norm(across)), float(np.linalg.norm(down))
    if min(width, height) == 0 or np.linalg.norm(np.cross(across / width, down / height)) < _PARALLEL:
        return None
    if max(width, height) / size > LONGEST:
        return None
    rows, columns = (math.floor(length / size + _LAST) + 1 for length in (height, width))
    if max(rows, columns) > LONGEST:
        return None
    places = (points[:, ::-1] - translation) / scale
    if not np.abs(places).max() < _FARTHEST:
        return None
    return Grid(places[0], down * (size / height) / scale, across * (size / width) / scale, rows, columns)


class _Oblique(Picture):
    """The pixels of a grid, computed from small boxes of voxels, one after the other."""

    def __init__(
        self, geometry: SliceGeometry, grid: Grid, others: Index, source: VoxelSource, *, nearest: bool
    ) -> None:
        samples = (geometry.samples,) if geometry.sample is not None else ()
        super().__init__((grid.rows, grid.columns, *samples), source, nearest=nearest)
        self._geometry = geometry
        self._grid = grid
        self._others = others
        self._space = tuple(geometry.shape[axis] for axis in _space(geometry))

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        picture = np.zeros(box.shape, self.dtype)
        top, left = box.start[:2]
        samples = slice(box.start[2], box.stop[2]) if box.ndim == 3 else slice(0, 1)
        for r0, r1, c0, c1, hull in self._pieces(top, box.stop[0], left, box.stop[1]):
            pixels = self._piece(r0, r1, c0, c1, hull, samples)
            picture[r0 - top : r1 - top, c0 - left : c1 - left] = pixels if box.ndim == 3 else pixels[..., 0]
        return placed(picture, out)

    def _pieces(self, top: int, bottom: int, left: int, right: int) -> Iterator[tuple[int, int, int, int, Box]]:
        """Pieces that need few voxels at once; those beyond the volume are left out."""
        todo = [(top, bottom, left, right)]
        while todo:
            r0, r1, c0, c1 = todo.pop()
            hull = self._grid.hull(self._space, r0, r1, c0, c1)
            if hull is None:
                continue
            rows, columns = r1 - r0, c1 - c0
            if rows * columns > 1 and (hull.size > _READ_AT_ONCE or rows * columns > _PIXELS_AT_ONCE):
                if rows >= columns:
                    todo += [(r0 + rows // 2, r1, c0, c1), (r0, r0 + rows // 2, c0, c1)]
                else:
                    todo += [(r0, r1, c0 + columns // 2, c1), (r0, r1, c0, c0 + columns // 2)]
            else:
                yield r0, r1, c0, c1, hull

    def _piece(self, r0: int, r1: int, c0: int, c1: int, hull: Box, samples: slice) -> np.ndarray:
        """Pixels (rows, columns, samples), from one box of voxels."""
        voxels = self._voxels(hull, samples)
        rows, columns = np.arange(r0, r1)[:, None], np.arange(c0, c1)[None, :]
        inside = np.ones((r1 - r0, c1 - c0), bool)
        places = []
        for axis, (first, size) in enumerate(zip(hull.start, self._space, strict=True)):
            positions = self._grid.positions(axis, rows, columns)
            inside &= (positions >= -0.5) & (positions < size - 0.5)
            place = between(positions, size, nearest=self._nearest)
            # Pixels outside may need voxels beyond the box: any value will do.
            last = voxels.shape[axis] - 1
            low, high = (np.clip(at - first, 0, last) for at in (place.low, place.high))
            places.append((low, high, place.share, place.on_centres))
        pixels = self._mixed(voxels, places)
        pixels[~inside] = 0 if pixels.dtype.kind != "V" else np.zeros((), pixels.dtype)
        return pixels

    def _mixed(self, voxels: np.ndarray, places: list[tuple[np.ndarray, np.ndarray, Floats, bool]]) -> np.ndarray:
        """Along z, y and x one after the other; where all pixels lie on centres, there is nothing to mix."""
        if all(on_centres for *_, on_centres in places):
            low_z, low_y, low_x = (low for low, *_ in places)
            taken: np.ndarray = voxels[low_z, low_y, low_x]
            return taken
        work = exact(self.dtype)

        def along(axis: int, at: tuple[np.ndarray, ...]) -> np.ndarray:
            if axis == 3:
                corner: np.ndarray = voxels[at].astype(work)
                return corner
            low, high, share, on_centres = places[axis]
            first = along(axis + 1, (*at, low))
            return first if on_centres else mix(first, along(axis + 1, (*at, high)), share[..., None])

        return finished(along(0, ()), self.dtype)

    def _voxels(self, hull: Box, samples: slice) -> np.ndarray:
        """A box of voxels as (z, y, x, samples)."""
        geometry = self._geometry
        start, stop = [0] * len(geometry.shape), [1] * len(geometry.shape)
        for other, at in zip(geometry.others, self._others, strict=True):
            start[other.axis], stop[other.axis] = at, at + 1
        space = _space(geometry)
        for axis, low, high in zip(space, hull.start, hull.stop, strict=True):
            start[axis], stop[axis] = low, high
        shown = space
        if geometry.sample is not None:
            start[geometry.sample], stop[geometry.sample] = samples.start, samples.stop
            shown = (*space, geometry.sample)  # type: ignore[assignment]
        order = (*(axis for axis in range(len(geometry.shape)) if axis not in shown), *shown)
        voxels = self._source.read(Box(tuple(start), tuple(stop)))
        return voxels.transpose(order).reshape(*hull.shape, samples.stop - samples.start)


@lru_cache(maxsize=64)
def _pattern(others: tuple[str, ...]) -> re.Pattern[str]:
    """A group for each other axis, nine for the points, one for the size of a pixel and one for the ending."""
    at = "".join(rf"(?:(?:^|_){re.escape(label)}({_INDEX}))?" for label in others)
    return re.compile(rf"(?:(?=[^_]){at}(?<!^)__)?{_POINT}__{_POINT}__{_POINT}__p({_NUMBER})(\.[a-z]+)")
