"""How a volume is cut: chunk shapes, and the slabs and tiles in which it is read.

Decided here, from shapes alone: the default chunk shape, and for each level how thick a slab must be so that slabs
begin where chunks begin and where voxels of the next level begin. Not here: doing it
(:mod:`volfs.ingest.volume_stream`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from volfs.errors import BadInput
from volfs.ingest.axis_numbers import wanted
from volfs.model.box import Box, Index
from volfs.model.ngff import Axis, downsampled_shape

CHUNK_VOXELS = 64**3
"""Voxels in a chunk: 64³, or 512² of a picture."""

_WHOLE = 1.5
"""An axis at most this much longer than the chunk's side would be is not cut."""

_LONGEST = 4096


def inner_axes(axes: Sequence[Axis], rgb: bool) -> tuple[int, ...]:
    """The axes that make a picture or volume: those of space and the samples of colours; without any, the last three.

    Along the others, every index (every chunk) is a volume of its own.
    """
    found = tuple(i for i, a in enumerate(axes) if a.type == "space" or (rgb and a.name == "c"))
    return found if any(axes[i].type == "space" for i in found) else tuple(range(len(axes)))[-3:]


def default_chunks(shape: Index, axes: Sequence[Axis], rgb: bool = False) -> Index:
    """About 64³ voxels, near to a cube; short axes whole; 1 along time points, channels and the like; samples whole."""
    chunks = [1] * len(shape)
    budget, left = CHUNK_VOXELS, []
    for i in inner_axes(axes, rgb):
        if rgb and axes[i].name == "c":
            chunks[i] = shape[i]
        else:
            left.append(i)
    side = 1.0
    while left:
        side = max(1.0, budget ** (1 / len(left)))
        short = [i for i in left if shape[i] <= side]
        if not short:
            break
        for i in short:
            chunks[i] = shape[i]
            budget = max(1, budget // shape[i])
        left = [i for i in left if i not in short]
    cut = min(_LONGEST, 1 << round(math.log2(side)))
    for i in left:
        chunks[i] = shape[i] if shape[i] <= _WHOLE * cut else cut
    return tuple(chunks)


def chosen_chunks(given: Sequence[int], shape: Index, axes: Sequence[Axis], rgb: bool = False) -> Index:
    """The chunk shape that a user's numbers mean: one for all axes of space, one for each of them, or one for each
    axis; nowhere longer than the image. BadInput for another count."""
    if not given or any(n < 1 for n in given):
        raise BadInput(f"chunks {tuple(given)}: sizes are whole numbers above zero")
    space = [i for i, a in enumerate(axes) if a.type == "space"]
    chunks = list(default_chunks(shape, axes, rgb))
    if len(given) == len(shape):
        where = list(range(len(shape)))
    elif len(given) in (1, len(space)):
        where = space
    else:
        names = ",".join(a.name for a in axes)
        raise BadInput(f"chunks {','.join(map(str, given))}: the axes are {names}: {wanted(axes)}")
    for i, at in enumerate(where):
        chunks[at] = given[i] if len(given) > 1 else given[0]
    return tuple(min(c, max(1, n)) for c, n in zip(chunks, shape, strict=True))


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """One level: its shape and chunks, the factors that make the next level of it (all 1: there is none), and how
    many indices along the streaming axis are together before anything is written."""

    shape: Index
    chunks: Index
    factors: Index
    thickness: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A pass over a volume. ``stream`` is the axis along which slabs follow each other; ``outer`` the axes along which
    volumes do. ``tile`` is the box read at once, within a slab."""

    levels: tuple[LevelPlan, ...]
    stream: int
    outer: tuple[int, ...]
    tile: Index

    def volumes(self) -> Iterator[Box]:
        """The boxes of level 0 that are passes of their own: whole along inner axes, a chunk along outer ones."""
        first = self.levels[0]
        ranges = [
            range(0, n, c) if i in self.outer else range(0, n, max(1, n))
            for i, (n, c) in enumerate(zip(first.shape, first.chunks, strict=True))
        ]
        for start in itertools.product(*ranges):
            stop = tuple(
                min(a + first.chunks[i], n) if i in self.outer else n
                for i, (a, n) in enumerate(zip(start, first.shape, strict=True))
            )
            yield Box(start, stop)

    def slabs(self, volume: Box) -> Iterator[Box]:
        """Slabs of a volume at level 0, in order."""
        step = self.levels[0].thickness
        for at in range(0, self.levels[0].shape[self.stream], step):
            start, stop = list(volume.start), list(volume.stop)
            start[self.stream], stop[self.stream] = at, min(at + step, volume.stop[self.stream])
            yield Box(tuple(start), tuple(stop))

    def tiles(self, slab: Box) -> Iterator[Box]:
        """Tiles of a slab, in C order."""
        for start in itertools.product(
            *(range(a, b, t) for a, b, t in zip(slab.start, slab.stop, self.tile, strict=True))
        ):
            yield Box(start, tuple(min(a + t, b) for a, t, b in zip(start, self.tile, slab.stop, strict=True)))


def make_plan(
    shape: Index,
    axes: Sequence[Axis],
    chunks: Index,
    factors: Sequence[Index],
    grain: Index,
    itemsize: int,
    tile_bytes: int,
    *,
    rgb: bool = False,
) -> Plan:
    """Cut a volume so that a tile takes about ``tile_bytes``, unless chunks or the grain of the source are larger."""
    inner = inner_axes(axes, rgb)
    outer = tuple(i for i in range(len(shape)) if i not in inner)
    stream = next((i for i in inner if not (rgb and axes[i].name == "c")), inner[0])
    ones = (1,) * len(shape)
    steps = [*map(tuple, factors), ones]
    shapes = [shape]
    for factor in factors:
        shapes.append(downsampled_shape(shapes[-1], factor))
    level_chunks = [tuple(min(c, max(1, n)) for c, n in zip(chunks, level, strict=True)) for level in shapes]

    unit = []
    for i in range(len(shape)):
        base = math.lcm(level_chunks[0][i], steps[0][i])
        joint = math.lcm(base, grain[i])
        if i in outer:
            unit.append(level_chunks[0][i])
        elif joint <= 4 * max(base, grain[i]):
            unit.append(joint)
        else:
            unit.append(base * -(-grain[i] // base))
    thickness = [min(unit[stream], shape[stream])]
    for level in range(1, len(shapes)):
        length = shapes[level][stream]
        if thickness[-1] >= shapes[level - 1][stream]:
            thickness.append(length)
            continue
        above = thickness[-1] // steps[level - 1][stream]
        here = math.lcm(level_chunks[level][stream], steps[level][stream])
        thickness.append(min(math.lcm(above, here), length))

    tile = [min(u, n) if i in (stream, *outer) else n for i, (u, n) in enumerate(zip(unit, shape, strict=True))]
    tile[stream] = thickness[0]
    for i in (j for j in inner if j != stream):
        # Shorten the slow axes first: long rows are what files and numpy like.
        excess = math.prod(tile) * itemsize / max(1, tile_bytes)
        if excess > 1:
            tile[i] = min(shape[i], max(1, int(tile[i] / excess / unit[i])) * unit[i])
    levels = tuple(map(LevelPlan, shapes, level_chunks, steps, thickness))
    return Plan(levels, stream, outer, tuple(tile))
