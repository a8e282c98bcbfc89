"""Reading boxes of voxels from blocks.

Decided here: which blocks a box crosses, that each is decoded once whoever asks, what goes through the cache and what
past it, and when to decode ahead. Not here: where blocks come from (:mod:`volfs.volume.blocks`,
:mod:`volfs.volume.derivation`), when rows of them are kept together (:mod:`volfs.volume.pencils`), what stays cached
(:mod:`volfs.volume.cache`), who scans (:mod:`volfs.volume.travel`).

A block that is not stored is fill value. A block that fails to load is an error for every box that crosses it, never
fill value, and no harm to any other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt

from volfs.errors import BadInput, Busy, NotFound, OutOfTime
from volfs.model.bounded_map import Caches
from volfs.model.box import Box, Index
from volfs.model.grid import ChunkGrid
from volfs.volume.blocks import BlockRef, BlockSource, Each
from volfs.volume.cache import Block, BlockCache
from volfs.volume.deadline import deadline
from volfs.volume.maps import Entries
from volfs.volume.pencils import Orientation, PencilRef, lie
from volfs.volume.planes import Piece, PlaneAxes, Planes, layer_of, piece_of
from volfs.volume.travel import Ahead, Travel
from volfs.volume.workers import Workers

Voxels = npt.NDArray[Any]
T = TypeVar("T")

#: Coordinates of a block or pencil, the part of the result that comes from it, and the part of the block that is.
_Part = tuple[Index, tuple[slice, ...], tuple[slice, ...]]
#: The same with the block or pencil in place of its coordinates; None where nothing is stored.
_Found = tuple[BlockRef | PencilRef | None, tuple[slice, ...], tuple[slice, ...]]

#: A box larger than this part of the cache is read past it, as far as it covers whole blocks.
_CACHED_PART = 8
#: More blocks or pencils than these are not put together on an event loop: so many take some 20 ms.
_MOST_INLINE = 1 << 13
#: Blocks that go past the cache are decoded so many at a time: between them it is seen whether there is time for more.
_TOGETHER = 64
#: A chunk of a branch can be replaced between being found and being read. It is looked up again this many times.
_ATTEMPTS = 20


def retrying(look_and_read: Callable[[], T]) -> T:
    """Do what finds chunks of a branch and then reads them, again if one was replaced in between."""
    for attempt in range(_ATTEMPTS):
        try:
            return look_and_read()
        except (NotFound, FileNotFoundError):
            # The file is there a moment before the branch says that it changed.
            time.sleep(min(0.05, 0.0005 * 2**attempt))
    raise Busy("chunks change faster than they can be read: try again")


class BlockReader:
    """Reads one level. Thread-safe; holds no voxels itself."""

    def __init__(self, source: BlockSource, cache: BlockCache, workers: Workers, caches: Caches) -> None:
        self.source = source
        self._cache = cache
        self._workers = workers
        self._caches = caches
        self._block_bytes = prod(source.grid.chunk_shape) * source.dtype.itemsize
        # A slab that fills more than a quarter of the cache would push out the one that is being read.
        self._travel = Travel(source.grid, lambda blocks: blocks * self._block_bytes <= cache.max_bytes // 4)
        self._orientations: dict[tuple[Index, int], Orientation] = {}
        self._lies: dict[tuple[bool, ...], Orientation | None] = {}  # by which axes a box is longer than one voxel

    def read(self, box: Box, out: Voxels | None = None) -> Voxels:
        """The voxels of a box inside the array, in parallel. Blocks; may do I/O.

        Into `out` if given: of the box's shape, with any strides, of a type that holds all values of the source's.
        """
        self._check(box)
        return self.fetch(box, out, scan=box.empty or self._note(box))

    def fetch(self, box: Box, out: Voxels | None = None, *, scan: bool = True) -> Voxels:
        """The same for readers whose way through the array says nothing: volfs itself."""
        out = self._prepare(box, out)
        if box.empty:
            return out
        blocks = self.source.grid.chunks(box)
        orientation = self._orientation(box)

        def look_and_read() -> Voxels:
            generation = self.source.generation()
            return self._gather(box, self.source.find(blocks), out, scan, orientation, generation)

        return retrying(look_and_read)

    def read_entries(self, box: Box, entries: Entries, out: Voxels | None = None, *, scan: bool = True) -> Voxels:
        """The same from entries found before: the voxels as they were then, or NotFound if those bytes are gone."""
        return self._gather(box, entries, self._prepare(box, out), scan, None, None)

    def read_cached(self, box: Box, out: Voxels | None = None) -> Voxels | None:
        """The voxels if all blocks are in memory and not too many, else None. No I/O, no thread hop: fit for an event
        loop."""
        self._check(box)
        pencils = self._pencils(box)
        for orientation in (pencils,) if pencils is None or pencils.suits(box) else (pencils, None):
            if box.size > _MOST_INLINE and self._count(box, orientation) > _MOST_INLINE:
                continue
            parts = list(self._parts(box, orientation))
            keys = self._keys(box, parts, orientation)
            if keys is None or not self._cache.has_all(keys):
                continue
            found = self._cache.get_all(keys, scan=self._note(box))
            if found is None:
                break
            out = self._prepare(box, out)
            for (_, target, within), block in zip(parts, found, strict=True):
                out[target] = self.source.fill_value if block is None else block[within]
            self._cache.count_copied(out.nbytes)
            return out
        return None

    def planes(self, box: Box, axes: PlaneAxes) -> Planes | None:
        """All planes of the layer of chunks in which the plane ``box`` lies, if they are decoded and their rows lie in
        memory in one piece; else None. No I/O. Of a source that never changes."""
        grid = self.source.grid
        first = layer_of(box, axes, grid.chunk_shape)
        start = first.start[axes.through]
        count = min(grid.chunk_shape[axes.through], grid.shape[axes.through] - start)
        orientation = self._orientation(first)
        if self._count(first, orientation) > _MOST_INLINE:
            return None
        parts = list(self._parts(first, orientation))
        keys = self._keys(first, parts, orientation)
        if keys is None:
            return None
        blocks = [None if key is None else self._cache.peek(key) for key in keys]
        if any(block is None and key is not None for block, key in zip(blocks, keys, strict=True)):
            return None
        samples = 1 if axes.sample is None else grid.shape[axes.sample]
        pieces: list[Piece] = []
        for (_, target, within), block in zip(parts, blocks, strict=True):
            if axes.sample is not None and target[axes.sample].stop - target[axes.sample].start != samples:
                return None  # samples of a pixel lie in different chunks
            memory = None if block is None else piece_of(block, axes, within, count)
            if memory is None and block is not None:
                return None
            down, across = target[axes.down], target[axes.across]
            place = (down.start, down.stop - down.start, across.start * samples, (across.stop - across.start) * samples)
            pieces.append((memory, *place))
        pieces.sort(key=lambda piece: (piece[1], piece[3]))
        return Planes(tuple(key for key in keys if key is not None), count, tuple(pieces))

    def passed(self, box: Box, keys: Sequence[Hashable]) -> None:
        """Note that somebody read a box of the entries with these names by other means: they were used, and what comes
        next is decoded ahead."""
        self._cache.get_all(keys, scan=True)
        self._note(box)

    def _keys(self, box: Box, parts: list[_Part], orientation: Orientation | None) -> list[Hashable] | None:
        """The names of blocks or pencils, None for what is not stored, if memory knows them."""
        generation = self.source.generation()
        if orientation is not None:
            names = orientation.names((coords for coords, _, _ in parts), generation)
            if names is not None:
                return names
        blocks = self.source.grid.chunks(box)
        entries = self.source.peek(blocks if orientation is None else orientation.whole(blocks))
        if entries is None:
            return None
        refs = (self._ref(coords, entries, orientation, generation) for coords, _, _ in parts)
        return [None if ref is None else ref.key for ref in refs]

    def prefetch(self, box: Box) -> Ahead:
        """Have the blocks of a box decoded in the background. Set `cancelled` when they are wanted no more."""
        ahead = Ahead(box, self.source.grid.chunks(box))
        self._decode(ahead)
        return ahead

    def _gather(
        self,
        box: Box,
        entries: Entries,
        out: Voxels,
        scan: bool,
        orientation: Orientation | None,
        generation: Hashable,
    ) -> Voxels:
        """Fill `out` from what `entries` say, by pencils of an orientation or by blocks."""
        past_cache = self._past_cache(box)
        parts = list(self._parts(box, orientation))
        each: Each = self._workers.each if len(parts) <= self._workers.count else _one_by_one
        until = deadline()

        def in_time() -> None:
            if until != math.inf and time.monotonic() > until:
                raise OutOfTime(f"{len(parts)} chunks are too many to be read in time: ask again, or for fewer")

        def passes(ref: BlockRef | PencilRef | None, within: tuple[slice, ...]) -> TypeGuard[BlockRef]:
            """True for a block that goes past the cache."""
            return past_cache and isinstance(ref, BlockRef) and self._is_whole(within) and ref.key not in self._cache

        def one(part: _Found) -> None:
            in_time()
            ref, target, within = part
            if ref is None:
                out[target] = self.source.fill_value
            elif passes(ref, within):
                out[target] = ref.load()
                self._cache.count_decoded(self._block_bytes)
            else:
                out[target] = self._made(ref, each, scan)[within]

        straight: list[tuple[BlockRef, Index]] = []
        others: list[_Found] = []
        for coords, target, within in parts:
            in_time()
            ref = self._ref(coords, entries, orientation, generation)
            if out.dtype == self.source.dtype and passes(ref, within):
                straight.append((ref, tuple(place.start for place in target)))
            else:
                others.append((ref, target, within))
        self._workers.each(one, others)
        for at in range(0, len(straight), _TOGETHER):
            in_time()
            blocks = straight[at : at + _TOGETHER]
            self.source.load(blocks, out, self._workers.each)
            self._cache.count_decoded(self._block_bytes * len(blocks), len(blocks))
        self._cache.count_copied(out.nbytes)
        return out

    def _made(self, ref: BlockRef | PencilRef, each: Any, scan: bool, ahead: bool = False) -> Block:
        """A block or pencil out of the cache, or made by whoever asks first."""
        if isinstance(ref, PencilRef):
            return self._cache.get_or_make(
                ref.key,
                lambda: ref.load(self._place, each),
                scan=scan,
                ahead=ahead,
                parts=ref.parts,
                home=ref.home,
            )

        def make() -> Block:
            block = ref.load()
            self._cache.count_decoded(block.nbytes)
            return block

        return self._cache.get_or_make(ref.key, make, scan=scan, ahead=ahead, home=ref.home)

    def _place(self, wanted: Sequence[tuple[BlockRef, Index]], target: Block, each: Each) -> None:
        """Put blocks where a pencil has them, from memory those that are there."""
        missing = []
        for ref, start in wanted:
            block = self._cache.peek(ref.key)
            if block is None:
                missing.append((ref, start))
            else:
                target[tuple(slice(at, at + n) for at, n in zip(start, block.shape, strict=True))] = block
        self.source.load(missing, target, each)
        self._cache.count_decoded(self._block_bytes * len(missing), len(missing))

    def _ref(
        self, coords: Index, entries: Entries, orientation: Orientation | None, generation: Hashable
    ) -> BlockRef | PencilRef | None:
        if orientation is None:
            return self.source.ref(coords, entries)
        return orientation.ref(coords, entries, generation)

    def _orientation(self, box: Box) -> Orientation | None:
        """The pencils by which to read a box; None to read it by blocks."""
        pencils = self._pencils(box)
        return pencils if pencils is not None and pencils.suits(box) else None

    def _pencils(self, box: Box) -> Orientation | None:
        """The pencils that suit a plane like this box, if not its ends; None if they are no better than blocks."""
        lengths = tuple(length > 1 for length in box.shape)
        if lengths not in self._lies:
            found = lie(box, self.source.grid)
            if found is not None and found not in self._orientations:
                self._orientations[found] = Orientation(self.source, *found)
                self._caches.add("pencils", self._orientations[found].remembered)
            orientation = None if found is None else self._orientations[found]
            self._lies[lengths] = None if orientation is None or orientation.plain else orientation
        return None if self._past_cache(box) else self._lies[lengths]

    def _past_cache(self, box: Box) -> bool:
        nbytes = box.size * self.source.dtype.itemsize
        return nbytes > max(self._block_bytes, self._cache.max_bytes // _CACHED_PART)

    def _note(self, box: Box) -> bool:
        step = self._travel.note(box)
        if step.ahead is not None:
            self._decode(step.ahead)
        return step.scan

    def _decode(self, ahead: Ahead) -> None:
        def find() -> None:
            if ahead.cancelled.is_set():
                return
            orientation = self._orientation(ahead.box)
            generation = self.source.generation()
            entries = self.source.find(ahead.blocks)

            def one(part: _Part) -> None:
                if ahead.cancelled.is_set():
                    return
                ref = self._ref(part[0], entries, orientation, generation)
                if ref is not None:
                    self._made(ref, _one_by_one, scan=True, ahead=True)

            self._workers.each_in_background(one, self._parts(ahead.box, orientation))

        self._workers.in_background(find)

    def _check(self, box: Box) -> None:
        shape = self.source.grid.shape
        if len(box.start) != len(shape) or not Box.whole(shape).contains(box):
            raise BadInput(f"{box} is not inside an array of shape {shape}")

    def _prepare(self, box: Box, out: Voxels | None) -> Voxels:
        self._check(box)
        if out is None:
            return np.empty(box.shape, self.source.dtype)
        if out.shape != box.shape or not np.can_cast(self.source.dtype, out.dtype, "safe"):
            raise BadInput(f"out is {out.dtype} {out.shape}, must be {self.source.dtype} {box.shape}")
        return out

    def _parts(self, box: Box, orientation: Orientation | None) -> Iterator[_Part]:
        """What a box inside the array crosses, each with where its part goes and where in it that lies."""
        grid: ChunkGrid = self.source.grid if orientation is None else orientation.grid
        axes = [_spans(*along) for along in zip(box.start, box.stop, grid.chunk_shape, strict=True)]
        for combination in product(*axes):
            coords, target, within = zip(*combination, strict=True)
            yield coords, target, within

    def _count(self, box: Box, orientation: Orientation | None) -> int:
        """The number of :meth:`_parts`."""
        grid: ChunkGrid = self.source.grid if orientation is None else orientation.grid
        along = zip(box.start, box.stop, grid.chunk_shape, strict=True)
        return prod(-(-stop // chunk) - start // chunk for start, stop, chunk in along)

    def _is_whole(self, within: tuple[slice, ...]) -> bool:
        """Whether that is all of a block, so that it can be decoded straight to where it is wanted."""
        return all(s.stop - s.start == n for s, n in zip(within, self.source.grid.chunk_shape, strict=True))


@lru_cache(256)  # an axis of a large array is long; of a stack's planes all but one axis come again at once
def _spans(start: int, stop: int, chunk: int) -> tuple[tuple[int, slice, slice], ...]:
    """What a box crosses along one axis: number, place in the box and part of each block."""
    return tuple(
        (
            i,
            slice(max(start, i * chunk) - start, min(stop, (i + 1) * chunk) - start),
            slice(max(start - i * chunk, 0), min(stop - i * chunk, chunk)),
        )
        for i in range(start // chunk, -(-stop // chunk) if stop > start else start // chunk)
    )


def _one_by_one(work: Callable[[T], object], items: Iterable[T]) -> None:
    for item in items:
        work(item)
