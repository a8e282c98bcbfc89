"""One pass over a volume that writes all its levels.

A slab of level 0 is read tile by tile; each tile is encoded into chunks and downsampled into a window of level 1. When
a window is as thick as its chunks, it is encoded and downsampled into the window of level 2, and so on. Windows are as
thick as slabs and as wide as their level, a quarter of it at each step: together about a third of a slab. What does not
fit into the memory that is allowed lies in a temporary file without a name, in the store's filesystem.

While a tile is worked on, the next one is read. Decoding, downsampling and encoding use all cores.

Not here: what is read (:mod:`volfs.ingest.source`), how volumes are cut (:mod:`volfs.ingest.chunk_plan`), metadata and
versions (:mod:`volfs.ingest.importer`).
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from volfs.errors import VolfsError
from volfs.ingest.chunk_plan import LevelPlan, Plan
from volfs.ingest.source import Source
from volfs.model.box import Box, Index
from volfs.model.ngff import Method
from volfs.storage.codec import ChunkCodec
from volfs.storage.files import no_space
from volfs.storage.payload_maker import ChunkEncoder
from volfs.versions.commit.array_writer import ArrayWriter
from volfs.volume.downsample import downsample
from volfs.volume.workers import Workers

Voxels = np.ndarray[Any, np.dtype[Any]]

_REPORT_SECONDS = 0.1
_LINE = 64
"""Bytes of a processor's cache line."""
_SMALLEST_READ, _LARGEST_READ = 256 << 10, 8 << 20
_TOGETHER = 2 << 20
"""Bytes of voxels that are encoded in one go: enough that the interpreter is asked seldom, little enough that what
comes of it is still in the processor's cache when it is written."""
_SHARES = 4
"""Goes for each core, if there are chunks enough: none is left waiting long for the last."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is: bytes of voxels at full resolution."""

    done: int
    total: int


Report = Callable[[Progress], object]


class Meter:
    """Counts, reports now and then, and stops the work when asked to. Thread-safe."""

    def __init__(self, total: int, report: Report | None, cancel: threading.Event | None) -> None:
        self._total = total
        self._report = report
        self._cancel = cancel
        self._done = 0
        self._last = 0.0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self._done += size
            now = time.monotonic()
            due = self._report is not None and (now - self._last >= _REPORT_SECONDS or self._done == self._total)
            if due:
                self._last = now
            progress = Progress(self._done, self._total)
            if due and self._report is not None:
                self._report(progress)
        self.check()

    def check(self) -> None:
        """Raise if the import was cancelled."""
        if self._cancel is not None and self._cancel.is_set():
            raise VolfsError("the import was cancelled: nothing was changed")


class Memory:
    """Voxel buffers, of which ``limit`` bytes may be in memory; what exceeds that is mapped from a temporary file."""

    def __init__(self, limit: int, scratch: Path) -> None:
        self._left = limit
        self._scratch = scratch

    def buffer(self, shape: Index, dtype: np.dtype[Any]) -> Voxels:
        """An uninitialised array. NoSpace if it has to be on disk and the disk is full."""
        size = math.prod(shape) * dtype.itemsize
        if size <= self._left or not size:
            self._left -= size
            # At a cache line's beginning, so that a row of a chunk of 64 bytes is in one line and not in two: taking
            # chunks out of a tile took twice as long at numpy's own alignment.
            raw = np.empty(size + _LINE, np.uint8)
            at = -raw.ctypes.data % _LINE
            return raw[at : at + size].view(dtype).reshape(shape)
        with no_space("for a temporary file of the import"), tempfile.TemporaryFile(dir=self._scratch) as file:
            # All of it now: writing into a mapped hole of a full disk would kill the process.
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "r+", shape=shape)


class VolumeStream:
    """Writes all levels of one image. ``writers[i]`` takes the chunks of level i."""

    def __init__(
        self,
        source: Source,
        plan: Plan,
        writers: Sequence[ArrayWriter],
        method: Method,
        memory: Memory,
        workers: Workers,
        meter: Meter,
    ) -> None:
        self._source = source
        self._plan = plan
        self._method = method
        self._workers = workers
        self._meter = meter
        dtype = source.description.dtype
        self._tiles = [memory.buffer(plan.tile, dtype) for _ in range(2)]
        self._levels = [_Level(p, w, plan, memory) for p, w in zip(plan.levels, writers, strict=True)]
        self._grain = source.description.grain

    def run(self) -> None:
        """Do it all. The first error stops everything and is raised."""
        with ThreadPoolExecutor(1, thread_name_prefix="volfs-import-read") as reader:
            coming: Future[Voxels] | None = None
            try:
                steps = _pairs(self._steps())
                for number, (step, following) in enumerate(steps):
                    if coming is None:
                        coming = reader.submit(self._read, step.tile, self._tiles[number % 2])
                    voxels, coming = coming.result(), None
                    if following is not None:
                        coming = reader.submit(self._read, following.tile, self._tiles[(number + 1) % 2])
                    if step.first:
                        for level in self._levels[1:]:
                            level.begin(step.volume)
                    self._take(0, step.tile, voxels)
                    if step.last:
                        self._flush(1, step.tile.stop[self._plan.stream])
            finally:
                if coming is not None:
                    coming.cancel()

    def _steps(self) -> Iterator[_Step]:
        for volume in self._plan.volumes():
            first = True
            for slab in self._plan.slabs(volume):
                for tile, following in _pairs(self._plan.tiles(slab)):
                    yield _Step(volume, tile, first, following is None)
                    first = False

    def _read(self, tile: Box, buffer: Voxels) -> Voxels:
        """Read a tile, in pieces as large as the grain of the source, on all cores."""
        target = buffer[tuple(slice(n) for n in tile.shape)]

        def read(piece: Box) -> None:
            self._meter.check()
            self._source.read_into(piece, target[piece.relative_to(tile.start).slices()])

        self._workers.each(read, list(read_pieces(tile, self._grain, target.dtype.itemsize)))
        return target

    def _take(self, index: int, box: Box, voxels: Voxels) -> None:
        """Encode a box of level ``index`` and downsample it into the window of the next."""
        level = self._levels[index]
        jobs: list[Callable[[], object]] = [
            partial(self._encode, index, level, box, voxels, coords)
            for coords in level.chunks(box, self._workers.count)
        ]
        if index + 1 < len(self._levels):
            below = self._levels[index + 1]
            jobs += [
                partial(below.fill, piece, voxels[piece.relative_to(box.start).slices()], self._method, level)
                for piece in _pieces_to_shrink(box, level.plan.factors)
            ]
        self._workers.each(lambda job: job(), jobs)

    def _encode(self, index: int, level: _Level, box: Box, voxels: Voxels, coords: list[Index]) -> None:
        size = level.put_all(box, voxels, coords)
        if index == 0:
            self._meter.add(size)
        else:
            self._meter.check()

    def _flush(self, index: int, filled: int) -> None:
        """Pass on the window of level ``index`` if it is full. ``filled``: how far level ``index - 1`` has come."""
        if index == len(self._levels):
            return
        level = self._levels[index]
        here = -(-filled // self._plan.levels[index - 1].factors[self._plan.stream])
        box = level.window_up_to(here)
        if box is not None:
            self._take(index, box, level.window(box))
            level.advance(here)
            self._flush(index + 1, here)


@dataclass(frozen=True, slots=True)
class _Step:
    """A tile to read and take; whether it is the first of its volume, and the last of its slab."""

    volume: Box
    tile: Box
    first: bool
    last: bool


class _Level:
    """One level while it is written: its array, and the window that the level above is downsampled into."""

    def __init__(self, plan: LevelPlan, writer: ArrayWriter, whole: Plan, memory: Memory) -> None:
        self.plan = plan
        self._writer = writer
        self._codec = ChunkCodec.of(writer.meta)
        self._encoder = ChunkEncoder.of(self._codec)
        self._stream = whole.stream
        self._outer = whole.outer
        self._volume = Box.whole(plan.shape)
        self._start = 0
        self._window: Voxels | None = None
        if plan is not whole.levels[0]:
            shape = [plan.chunks[i] if i in whole.outer else n for i, n in enumerate(plan.shape)]
            shape[whole.stream] = plan.thickness
            self._window = memory.buffer(tuple(shape), writer.meta.dtype)

    def begin(self, volume: Box) -> None:
        """Start a new volume; ``volume`` is its box at level 0, of which only the outer axes count."""
        start, stop = [0] * len(self.plan.shape), list(self.plan.shape)
        for axis in self._outer:
            start[axis], stop[axis] = volume.start[axis], volume.stop[axis]
        self._volume = Box(tuple(start), tuple(stop))
        self._start = 0

    def chunks(self, box: Box, cores: int) -> list[list[Index]]:
        """The chunks of a box whose edges are chunk edges, those together that are encoded together."""
        inside = self._writer.meta.grid.chunks(box)
        coords = list(itertools.product(*(range(a, b) for a, b in zip(inside.start, inside.stop, strict=True))))
        count = max(1, min(_TOGETHER // self._codec.nbytes, len(coords) // (_SHARES * cores)))
        return [coords[at : at + count] for at in range(0, len(coords), count)]

    def put_all(self, box: Box, voxels: Voxels, coords: list[Index]) -> int:
        """Encode chunks of ``voxels`` (those of ``box``) and store them, save those that are all fill. Their size."""
        chunk = np.array(self._codec.shape)
        starts = np.array(coords) * chunk - box.start
        shapes = np.minimum(chunk, np.array(box.shape) - starts)
        batch = self._encoder.encode(voxels, starts, shapes) if self._encoder is not None else None
        for at in coords if batch is None else self._writer.put_all(coords, batch):
            self._put(box, voxels, at)
        return int(shapes.prod(axis=1).sum()) * voxels.itemsize

    def _put(self, box: Box, voxels: Voxels, coords: Index) -> None:
        """Encode one chunk, in Python, and store it."""
        where = self._writer.meta.grid.chunk_box(coords)
        part = voxels[where.relative_to(box.start).slices()]
        if part.shape != self._codec.shape:
            chunk = self._codec.filled()
            chunk[tuple(slice(n) for n in part.shape)] = part
        else:
            chunk = np.ascontiguousarray(part)
        if self._codec.is_fill(chunk):
            self._writer.skip(coords)
        else:
            self._writer.put(coords, self._codec.encode(chunk))

    def fill(self, piece: Box, voxels: Voxels, method: Method, above: _Level) -> None:
        """Downsample ``voxels``, those of ``piece`` of the level above, into the window."""
        assert self._window is not None
        factors = above.plan.factors
        start = [a // f for a, f in zip(piece.start, factors, strict=True)]
        shape = [-(-n // f) for n, f in zip(piece.shape, factors, strict=True)]
        start = [a - o for a, o in zip(start, self._origin, strict=True)]
        target = self._window[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))]
        downsample(voxels, factors, method, out=target)

    def window_up_to(self, filled: int) -> Box | None:
        """The box in the window once it is full, or ends the volume; else None."""
        if filled - self._start < self.plan.thickness and filled < self.plan.shape[self._stream]:
            return None
        start, stop = list(self._volume.start), list(self._volume.stop)
        start[self._stream], stop[self._stream] = self._start, filled
        return Box(tuple(start), tuple(stop))

    def window(self, box: Box) -> Voxels:
        assert self._window is not None
        return self._window[box.relative_to(self._origin).slices()]

    def advance(self, filled: int) -> None:
        self._start = filled

    @property
    def _origin(self) -> Index:
        """Where the window begins."""
        start = list(self._volume.start)
        start[self._stream] = self._start
        return tuple(start)


def _pairs(items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Each item with the one after it; None after the last."""
    iterator = iter(items)
    try:
        item = next(iterator)
    except StopIteration:
        return
    for following in iterator:
        yield item, following
        item = following
    yield item, None


def read_pieces(tile: Box, grain: Index, itemsize: int) -> Iterator[Box]:
    """Cut a box along the grain of a source: small enough for all cores, large enough to be worth a call."""
    size = min(_LARGEST_READ, max(_SMALLEST_READ, tile.size * itemsize // 32))
    step = [min(max(1, g), n) for g, n in zip(grain, tile.shape, strict=True)]
    for i in range(len(step) - 1, -1, -1):
        room = size // (math.prod(step) * itemsize)
        if room > 1:
            step[i] = max(1, grain[i]) * min(room, -(-tile.shape[i] // max(1, grain[i])))
    ranges = [
        list(itertools.pairwise(sorted({a, b, *range((a // s + 1) * s, b, s)})))
        for a, b, s in zip(tile.start, tile.stop, step, strict=True)
    ]
    for edges in itertools.product(*ranges):
        yield Box(tuple(a for a, _ in edges), tuple(b for _, b in edges))


def _pieces_to_shrink(box: Box, factors: Index) -> Iterator[Box]:
    """Cut a box into pieces for all cores, where coarser voxels begin."""
    axis = max(range(box.ndim), key=lambda i: box.shape[i] // factors[i])
    count = max(1, min(16, box.shape[axis] // factors[axis] // 4))
    step = -(-box.shape[axis] // count)
    step = -(-step // factors[axis]) * factors[axis]
    for at in range(box.start[axis], box.stop[axis], step):
        start, stop = list(box.start), list(box.stop)
        start[axis], stop[axis] = at, min(at + step, box.stop[axis])
        yield Box(tuple(start), tuple(stop))
