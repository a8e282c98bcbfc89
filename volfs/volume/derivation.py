"""Coarser levels that follow s0: in a branch, chunks over changed ones are computed when they are read.

Decided here: which keys of a coarser level are *dirty* (`Derivation`), and the source of blocks that computes those and
passes all others through (`DerivedBlocks`). Not here: the arithmetic (:mod:`volfs.volume.downsample`), and making it
permanent at commit (:mod:`volfs.volume.pyramid`).

A key is dirty when a dirty key of the level above lies under any of its voxels, when the working copy has a change of
its own for it (somebody wrote the coarser level directly: what s0 says counts), or when the level's shape changed and
it is at the edge. A derived block is named by a digest of everything it is computed from: it is computed once per
state, and coming back to an earlier state finds the earlier block.

In a partial clone chunks beside a changed one may be absent. What is not over a changed one is then taken from the
version that the branch lies over, whose levels follow its s0.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from volfs.errors import Absent
from volfs.model.box import Box, Index
from volfs.model.grid import ChunkGrid, block_shape_for
from volfs.model.ngff import Method
from volfs.versions.snapshot import ArrayNode, StoredPayload
from volfs.volume.blocks import BlockRef, BlockSource, Memory, StoredBlocks
from volfs.volume.cache import Block, Home
from volfs.volume.downsample import downsample
from volfs.volume.maps import Entries, EntryMap
from volfs.volume.reader import BlockReader

Keys = frozenset[Index]


class Derivation:
    """The dirty keys of every level of one image, as of the branch's generation."""

    def __init__(
        self,
        levels: Sequence[StoredBlocks],
        factors: Sequence[Index],
        changed: Callable[[StoredBlocks], Set[Index]],
        settled: Callable[[StoredBlocks], Set[Index]],
        generation: Callable[[], Hashable],
    ) -> None:
        self._levels = levels
        self._factors = factors
        self._changed = changed
        self._settled = settled
        self._generation = generation
        self._lock = threading.Lock()
        self._known: tuple[Hashable, tuple[Keys, ...]] | None = None

    def dirty(self, level: int) -> Keys:
        """The keys of `level` whose voxels may differ from what is stored or was committed."""
        generation = self._generation()
        with self._lock:
            if self._known is not None and self._known[0] == generation:
                return self._known[1][level]
        found: list[Keys] = []
        for index, source in enumerate(self._levels):
            inside = Box.whole(source.keys.grid_shape)
            own = {key for key in self._changed(source) if inside.contains(Box(key, tuple(i + 1 for i in key)))}
            if index:
                own |= keys_above(found[-1], self._levels[index - 1].keys, source.keys, self._factors[index])
            found.append(frozenset(own))
        # What is settled has changed all the same for the levels below.
        found = [keys - self._settled(source) for keys, source in zip(found, self._levels, strict=True)]
        with self._lock:
            self._known = (generation, tuple(found))
        return found[level]


def keys_above(keys: Set[Index], finer: ChunkGrid, coarser: ChunkGrid, factors: Index) -> set[Index]:
    """The keys of the coarser level that have a voxel computed from one of `keys` of the finer."""
    if not keys:
        return set()
    at = np.array(sorted(keys), np.int64)
    start = at * np.array(finer.chunk_shape)
    stop = np.minimum(start + np.array(finer.chunk_shape), np.array(finer.shape))
    inside = (stop > start).all(axis=1)
    by, chunk = np.array(factors), np.array(coarser.chunk_shape)
    first = start[inside] // by // chunk
    last = (-(-stop[inside] // by) - 1) // chunk
    found: set[Index] = set()
    for pair in np.unique(np.hstack([first, last]), axis=0).tolist():
        half = len(pair) // 2
        found.update(coarser.iter(Box(tuple(pair[:half]), tuple(n + 1 for n in pair[half:]))))
    return found


def finer_box(box: Box, factors: Index, shape: Index) -> Box:
    """The voxels of the level above, of `shape`, that a box is computed from."""
    return Box(
        tuple(a * f for a, f in zip(box.start, factors, strict=True)),
        tuple(min(b * f, n) for b, f, n in zip(box.stop, factors, shape, strict=True)),
    )


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one dirty key is made: the entries of the level above that lie under it, and a digest that names them."""

    stamp: bytes
    entries: Entries


class DerivedBlocks(BlockSource):
    """A level below another one: stored blocks where nothing changed, computed ones where something did."""

    def __init__(
        self,
        stored: StoredBlocks,
        above: BlockReader,
        factors: Index,
        method: Method,
        dirty: Callable[[], Keys],
        memory: Memory,
    ) -> None:
        self.stored, self.above, self.home = stored, above, stored.home
        self.grid, self.keys = stored.grid, stored.keys
        self.dtype, self.fill_value = stored.dtype, stored.fill_value
        self.factors, self.method = factors, method
        self.dirty = dirty
        upper = above.source
        self._setting = repr(
            (upper.grid, upper.keys, upper.dtype.str, upper.fill_value.tobytes(), self.grid, factors, method)
        ).encode()
        self._map = EntryMap(
            memory.maps,
            self.keys,
            block_shape_for(self.keys.chunk_shape, self.dtype.itemsize, self.keys.grid_shape),
            self._look_up,
            stored.array.snapshot.generation,
            lasting=False,
        )

    def generation(self) -> Hashable:
        return self.stored.generation()

    def find(self, blocks: Box) -> Entries:
        return self._map.find(self.keys_of(blocks))

    def peek(self, blocks: Box) -> Entries | None:
        return self._map.peek(self.keys_of(blocks))

    def ref(self, coords: Index, entries: Entries) -> BlockRef | None:
        key = tuple(i // n for i, n in zip(coords, self.stored.per_key, strict=True))
        entry = entries.get(key)
        if isinstance(entry, Recipe):
            return _DerivedRef(self, coords, entry)
        return self.stored.ref(coords, entries)

    def entry(self, key: Index) -> Any:
        return self._map.find(Box(key, tuple(i + 1 for i in key))).get(key)

    def compute(self, box: Box, recipe: Recipe) -> npt.NDArray[Any]:
        """A box within one dirty key. Raises what reading the level above raises; in a partial clone only if what
        changed cannot be read."""
        try:
            return self._computed(box, recipe)
        except Absent:
            found = self._over_base(box, recipe)
            if found is None:
                raise
            return found

    def _computed(self, box: Box, recipe: Recipe) -> npt.NDArray[Any]:
        fine = finer_box(box, self.factors, self.above.source.grid.shape)
        voxels = self.above.read_entries(fine, recipe.entries)
        return downsample(voxels, self.factors, self.method)

    def _over_base(self, box: Box, recipe: Recipe) -> npt.NDArray[Any] | None:
        """The same where chunks of the level above are absent: voxels under which none has changed are those of the
        version that the branch lies over. None if that has them in another form."""
        above = self.above.source
        upper = above.stored if isinstance(above, DerivedBlocks) else above
        assert isinstance(upper, StoredBlocks)
        snapshot = self.stored.array.snapshot
        base = None if snapshot.base is None else snapshot.dataset.version(snapshot.base.number)
        if base is None or self.stored.codec.sharded:
            return None
        old, old_upper = base.node(self.stored.array.path), base.node(upper.array.path)
        if not (_is_like(old, self.stored) and _is_like(old_upper, upper)):
            return None
        assert isinstance(old, ArrayNode) and isinstance(old_upper, ArrayNode)
        (key,) = self.keys.iter(self.keys.chunks(box))
        payload = old.payloads(Box(key, tuple(i + 1 for i in key))).get(key)
        chunk = old.codec.filled() if payload is None else old.codec.decode(payload.read())
        start = self.keys.chunk_box(key).start
        out = chunk[tuple(slice(a - s, b - s) for a, b, s in zip(box.start, box.stop, start, strict=True))].copy()
        under = upper.keys.chunks(finer_box(box, self.factors, upper.keys.shape))
        before = old_upper.payloads(under)
        for at in upper.keys.iter(under):
            if not _is_same(recipe.entries.get(at), before.get(at)):
                changed = upper.keys.chunk_box(at)
                first = tuple(a // f for a, f in zip(changed.start, self.factors, strict=True))
                last = tuple(-(-b // f) for b, f in zip(changed.stop, self.factors, strict=True))
                part = Box(first, last).intersect(box)
                within = tuple(slice(a - s, b - s) for a, b, s in zip(part.start, part.stop, box.start, strict=True))
                out[within] = self._computed(part, recipe)
        return out

    def _look_up(self, keys: Box) -> Entries:
        dirty = self.dirty()
        entries = self.stored.look_up(keys)
        for key in keys_within(dirty, keys, self.keys):
            entries[key] = self._recipe(key)
        return entries

    def _recipe(self, key: Index) -> Recipe:
        upper = self.above.source
        fine = finer_box(self.keys.chunk_box(key), self.factors, upper.grid.shape)
        blocks = upper.grid.chunks(fine)
        needed = upper.keys_of(blocks)
        entries = {k: e for k, e in upper.find(blocks).items() if _inside(k, needed)}
        digest = hashlib.blake2b(self._setting, digest_size=16)
        for at in sorted(entries):
            entry = entries[at]
            name = entry.stamp if isinstance(entry, Recipe) else entry.token
            digest.update(repr((at, name)).encode(errors="surrogateescape"))
        return Recipe(digest.digest(), entries)


class _DerivedRef(BlockRef):
    __slots__ = ("_coords", "_recipe", "_source")

    def __init__(self, source: DerivedBlocks, coords: Index, recipe: Recipe) -> None:
        self.key = ("derived", recipe.stamp, coords)
        self._source, self._coords, self._recipe = source, coords, recipe

    def home(self) -> Home | None:
        return ("block", self._source.home, self._coords), True

    def load(self, out: Block | None = None) -> Block:
        voxels = self._source.compute(self._source.grid.chunk_box(self._coords), self._recipe)
        if out is None:
            return voxels
        out[tuple(slice(n) for n in voxels.shape)] = voxels
        return out


def _is_like(node: object, stored: StoredBlocks) -> bool:
    """Whether an array of the base is in the shape and form of one as it is now."""
    return (
        isinstance(node, ArrayNode)
        and node.meta.shape == stored.keys.shape
        and node.meta.same_storage(stored.array.meta)
    )


def _is_same(entry: Any, before: StoredPayload | None) -> bool:
    """Whether what is stored for a key now is what was stored before."""
    if entry is None or before is None or isinstance(entry, Recipe):
        return entry is before
    return bool(entry.token == before.token)


def keys_within(keys: Set[Index], box: Box, grid: ChunkGrid) -> Iterable[Index]:
    """The keys in a range, by walking the shorter of the two."""
    if len(keys) < box.size:
        return [key for key in keys if _inside(key, box)]
    return [key for key in grid.iter(box) if key in keys]


def _inside(key: Index, box: Box) -> bool:
    return all(a <= i < b for a, i, b in zip(box.start, key, box.stop, strict=True))
