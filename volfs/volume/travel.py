"""Who scans, and where to: seen from the boxes that are read, nothing else.

A reader that takes plane after plane (a viewer scrolling, `cp -r s0/xy`, a program walking `volume.raw`) is recognised
by its second plane. Decided here: that its references are a scan's, which must not displace what others keep coming
back to (:mod:`volfs.volume.cache`), and which slab of blocks it will want next. When it turns, the old guess is
cancelled. Several readers of one level are told apart by where they are. Memory only; safe inline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from volfs.model.box import Box, Index
from volfs.model.grid import ChunkGrid

_READERS = 8


@dataclass(slots=True)
class Ahead:
    """A box whose blocks are worth having soon. `cancelled` is set when the reader went elsewhere."""

    box: Box
    blocks: Box
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Step:
    """What one read says: whether it is part of a scan, and what to prefetch, if that is new."""

    scan: bool
    ahead: Ahead | None = None


class _Reader:
    """One reader's place: the last box, all it has read at that position, and the axis and direction it moves in."""

    __slots__ = ("ahead", "axis", "box", "direction", "here", "plane", "run", "stacks")

    def __init__(self, box: Box) -> None:
        self.box = self.plane = box
        self.axis = -1
        self.direction = 0
        self.run = 0
        # Stacks of planes (channels, times) that were gone through to their ends, one after the other, before this one.
        self.stacks = 0
        # What was guessed for the next slab, and for the one that the reader is in.
        self.ahead: Ahead | None = None
        self.here: Ahead | None = None

    def guess(self, plane: Box, slab: Box) -> Ahead:
        """The reader is in the slab guessed last and wants this one next: it has no use for earlier ones."""
        if self.here is not None:
            self.here.cancelled.set()
        self.here, self.ahead = self.ahead, Ahead(plane, slab)
        return self.ahead

    def cancel(self) -> None:
        for guessed in (self.here, self.ahead):
            if guessed is not None:
                guessed.cancelled.set()
        self.here = self.ahead = None


class Travel:
    """The readers of one level. `fits` says whether so many blocks may be prefetched."""

    def __init__(self, grid: ChunkGrid, fits: Callable[[int], bool]) -> None:
        self._grid = grid
        self._fits = fits
        self._lock = threading.Lock()
        self._readers: list[_Reader] = []  # most recent first

    def note(self, box: Box) -> Step:
        """A box was asked for."""
        with self._lock:
            for index, reader in enumerate(self._readers):
                axis = self._moved_along(reader.box, box)
                if axis is None and not self._begins_next(reader, box):
                    continue
                self._readers.insert(0, self._readers.pop(index))
                if axis is None:
                    reader.box = reader.plane = box
                    reader.stacks += 1
                    return Step(scan=True)
                return self._again(reader, box) if axis < 0 else self._step(reader, box, axis)
            self._readers.insert(0, _Reader(box))
            for gone in self._readers[_READERS:]:
                gone.cancel()
            del self._readers[_READERS:]
            return Step(scan=False)

    def _moved_along(self, last: Box, box: Box) -> int | None:
        """The axis along which the reader went a short way; -1 within one plane; None: this is somebody else.

        Planes are known by the axes on which they are one voxel thin, as one plane may be read in pieces. Among boxes
        that are not, as programs read whole volumes, the slowest axis that changed counts.
        """
        axes = range(box.ndim)
        thin = [i for i in axes if last.stop[i] - last.start[i] == 1 == box.stop[i] - box.start[i]]
        moved = [i for i in thin or axes if last.start[i] != box.start[i]]
        if not moved:
            return -1
        axis = moved[0]
        step = abs(last.start[axis] - box.start[axis])
        if (thin and len(moved) > 1) or step > max(self._grid.chunk_shape[axis], last.stop[axis] - last.start[axis]):
            return None
        return axis

    def _again(self, reader: _Reader, box: Box) -> Step:
        """More of the same plane: going on in it is a scan, reading the same again is not."""
        advanced = box.start > reader.box.start
        reader.box, reader.plane = box, reader.plane.hull(box)
        return Step(scan=advanced)

    def _step(self, reader: _Reader, box: Box, axis: int) -> Step:
        direction = 1 if box.start[axis] > reader.box.start[axis] else -1
        plane, turned = reader.plane, reader.run > 0 and (axis, direction) != (reader.axis, reader.direction)
        if turned:
            reader.cancel()
            reader.run = reader.stacks = 0
        reader.run += 1
        reader.axis, reader.direction = axis, direction
        reader.box = reader.plane = box
        if turned:
            return Step(scan=False)
        return Step(scan=True, ahead=self._next_slab(reader, plane.hull(box)) if reader.run > 1 else None)

    def _next_slab(self, reader: _Reader, seen: Box) -> Ahead | None:
        axis, chunk = reader.axis, self._grid.chunk_shape[reader.axis]
        at = reader.box.start[axis] // chunk + reader.direction
        if not 0 <= at < self._grid.grid_shape[axis]:
            return self._next_stack(reader)
        # What the reader will ask for first in that slab, as thick as what it asks for now.
        thick = min(reader.box.stop[axis] - reader.box.start[axis], chunk, self._grid.shape[axis] - at * chunk)
        plane = Box(_with(seen.start, axis, at * chunk), _with(seen.stop, axis, at * chunk + thick))
        return self._worth(reader, plane)

    def _next_stack(self, reader: _Reader) -> Ahead | None:
        """Who has gone from the end of one stack to the next goes on to the one after this."""
        plane = self._after(reader)
        return None if plane is None or not reader.stacks else self._worth(reader, plane)

    def _begins_next(self, reader: _Reader, box: Box) -> bool:
        """Whether a box is the first plane of the stack after the one whose end the reader has come to."""
        last = self._grid.grid_shape[reader.axis] - 1
        in_last = reader.box.start[reader.axis] // self._grid.chunk_shape[reader.axis] == last
        return in_last and box == self._after(reader)

    def _after(self, reader: _Reader) -> Box | None:
        """The first plane of the next stack, for a reader that goes forward: along slower axes that planes are thin
        along."""
        if reader.run < 2 or reader.direction != 1:
            return None
        start, stop = list(reader.plane.start), list(reader.plane.stop)
        if stop[reader.axis] - start[reader.axis] != 1:
            return None
        start[reader.axis], stop[reader.axis] = 0, 1
        for axis in range(reader.axis - 1, -1, -1):
            if stop[axis] - start[axis] != 1:
                continue
            if stop[axis] < self._grid.shape[axis]:
                start[axis] += 1
                stop[axis] += 1
                return Box(tuple(start), tuple(stop))
            start[axis], stop[axis] = 0, 1
        return None

    def _worth(self, reader: _Reader, plane: Box) -> Ahead | None:
        """A guess of a plane whose blocks are not guessed yet, and fit."""
        slab = self._grid.chunks(plane)
        if slab.empty or (reader.ahead is not None and reader.ahead.blocks.contains(slab)):
            return None
        if not self._fits(slab.size):
            return None
        return reader.guess(plane, slab)


def _with(index: Index, axis: int, value: int) -> Index:
    return (*index[:axis], value, *index[axis + 1 :])
