"""Decoded planes of a level, as memory: for who puts files together without asking for each plane.

Decided here: which memory of decoded blocks and pencils shows which part of a plane. Not here: when it is decoded
(:mod:`volfs.volume.reader`), and what is made of it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from volfs.model.box import Box, Index
from volfs.volume.cache import Block


@dataclass(frozen=True, slots=True)
class PlaneAxes:
    """The axes of an array that planes have: which numbers them, and which run down and across. ``sample``: the axis of
    a pixel's samples, which lie side by side; None for one value a pixel."""

    through: int
    down: int
    across: int
    sample: int | None = None


#: (memory, first row, rows, first column, columns): the memory has the axes (plane, row, column), a column being a
#: sample; None stands for fill value.
Piece = tuple[Block | None, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Planes:
    """The planes of one layer of chunks, from the first of the layer on; ``keys`` names what they lie in, in the cache.
    ``pieces`` are in order of rows, then columns, and cover each plane once."""

    keys: tuple[Hashable, ...]
    count: int
    pieces: tuple[Piece, ...]


def piece_of(block: Block, axes: PlaneAxes, within: tuple[slice, ...], count: int) -> Block | None:
    """What planes have of a block, as (plane, row, column): ``within`` is where the first of them lies in it. None if
    rows are not in one piece of memory."""
    kept = [axes.through, axes.down, axes.across, *([] if axes.sample is None else [axes.sample])]
    place = [part if axis in kept else part.start for axis, part in enumerate(within)]
    place[axes.through] = slice(within[axes.through].start, within[axes.through].start + count)
    view = block[tuple(place)].transpose(np.argsort(np.argsort(kept)).tolist())
    if axes.sample is not None:
        planes, rows, columns, samples = view.shape
        if view.strides[3] != view.itemsize or view.strides[2] != samples * view.itemsize:
            return None
        view = np.lib.stride_tricks.as_strided(
            view, (planes, rows, columns * samples), (*view.strides[:2], view.itemsize), writeable=False
        )
    return view if view.shape[2] == 1 or view.strides[2] == view.itemsize else None


def layer_of(box: Box, axes: PlaneAxes, chunk_shape: Index) -> Box:
    """The first plane of the layer of chunks in which a plane lies."""
    start, stop = list(box.start), list(box.stop)
    start[axes.through] -= start[axes.through] % chunk_shape[axes.through]
    stop[axes.through] = start[axes.through] + 1
    return Box(tuple(start), tuple(stop))
