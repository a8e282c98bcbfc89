"""One resolution level of an image: voxels that read, write and slice like an array.

Decided here: what a level tells about itself, when its voxels changed last (`newest`, `newest_along`), and what names a
state of them (`stamp`). How they are read, written and derived is in the modules beside this one.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from volfs.errors import BadInput, NotAllowed, NotFound, ReadOnly
from volfs.model.box import Box, Index
from volfs.model.extras import needed
from volfs.model.facts import Rescale
from volfs.model.ngff import Axis, LevelSpec
from volfs.model.public_mapping import Public
from volfs.versions.blame import chunk_writers
from volfs.versions.snapshot import slab_of
from volfs.volume.blocks import BlockSource, StoredBlocks, is_version
from volfs.volume.cache import CacheStats
from volfs.volume.derivation import DerivedBlocks, Keys, Recipe, finer_box, keys_within
from volfs.volume.index_lists import Orthogonal, Piece, Points, select_any, select_orthogonal, select_points
from volfs.volume.reader import BlockReader
from volfs.volume.selection import Selection
from volfs.volume.travel import Ahead
from volfs.volume.volume_context import VolumeContext
from volfs.volume.writer import BoxWriter, conforming

if TYPE_CHECKING:
    from volfs.versions.snapshot import ArrayNode, Snapshot

#: A box over more keys than this is stamped by the branch's generation instead of by each key.
_STAMPED_KEYS = 4096
#: Times are kept for every key along some axes if there is room for no more than this.
_TIMED_KEYS = 1 << 16


@dataclass(frozen=True, slots=True)
class LevelFacts:
    """What an image knows of one of its levels."""

    index: int
    axes: tuple[Axis, ...]
    spec: LevelSpec
    is_label: bool
    factors: Index
    rescale: Rescale | None = None


class Level(Public):
    """A level. Thread-safe; cheap to keep. It shows the array's metadata as it was when the level was asked for.

    It can be pickled: another process then opens the store by its path.
    """

    PUBLIC: ClassVar[tuple[str, ...]] = (
        *("snapshot", "name", "index", "axes", "shape", "ndim", "size", "dtype", "fill_value", "chunks", "nbytes"),
        *("attrs", "units", "scale", "translation", "factors", "is_label", "rescale", "derived", "writable"),
        *("read", "write", "prefetch", "oindex", "vindex", "to_dask", "to_xarray"),
    )

    def __init__(
        self,
        array: ArrayNode,
        facts: LevelFacts,
        source: BlockSource,
        context: VolumeContext,
        above: Level | None = None,
    ) -> None:
        self.array = array
        self.index = facts.index
        self.axes = facts.axes
        self.is_label = facts.is_label
        #: Voxels of the level above per voxel of this one, all 1 for level 0.
        self.factors = facts.factors
        #: Voxel size per axis, and where the centre of voxel 0 lies.
        self.scale = facts.spec.scale
        self.translation = facts.spec.translation
        #: What takes stored values to real ones (Hounsfield units, say): of the image's source, None if it said none.
        self.rescale = facts.rescale
        self.source = source
        self.reader = BlockReader(source, context.cache, context.workers, context.caches)
        self._context = context
        self._above = above  # the level that this one follows, if it does

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        return self.array.snapshot

    @property
    def name(self) -> str:
        return f"s{self.index}"

    @property
    def shape(self) -> Index:
        return self.source.grid.shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    @property
    def fill_value(self) -> np.generic:
        return self.source.fill_value

    @property
    def chunk_shape(self) -> Index:
        """What is decoded in one piece: chunks, or the inner chunks of a client's shards."""
        return self.source.grid.chunk_shape

    @property
    def chunks(self) -> Index:
        """The shape of a chunk, as Zarr arrays name it: :attr:`chunk_shape`."""
        return self.chunk_shape

    @property
    def size(self) -> int:
        """How many voxels there are."""
        return Box.whole(self.shape).size

    @property
    def nbytes(self) -> int:
        """The bytes of all voxels, decoded."""
        return self.size * self.dtype.itemsize

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes of the level's Zarr array, as a copy."""
        return copy.deepcopy(self.array.meta.attributes)

    @property
    def units(self) -> tuple[str | None, ...]:
        """The unit of the voxel size per axis, in OME-NGFF's words; None where none is known."""
        return tuple(axis.unit for axis in self.axes)

    @property
    def unit(self) -> str | None:
        """The unit of the voxel size in space."""
        return next((a.unit for a in reversed(self.axes) if a.type == "space" and a.unit), None)

    @property
    def derived(self) -> bool:
        """Whether volfs computes this level from the one above: it cannot be written, only s0 can."""
        return isinstance(self.source, DerivedBlocks)

    @property
    def writable(self) -> bool:
        return self.snapshot.writable and not self.derived

    def __repr__(self) -> str:
        path = self.array.path
        place = f"{self.snapshot.dataset.name}{path and '/'}{path}@{self.snapshot.ref}"
        return f"<level {place}: shape {self.shape}, {self.dtype}, chunks {self.chunks}>"

    def _repr_html_(self) -> str:
        return self.snapshot.dataset.store.face.html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.snapshot, self.array.path)

    # -- voxels -------------------------------------------------------------------------------------------------

    def blame(self, box: Box | None = None) -> npt.NDArray[np.int32]:
        """The number of the version that wrote each stored chunk which a box of voxels crosses (None: each chunk), one
        element per chunk; -1: uncommitted, 0: nobody. See :mod:`volfs.versions.blame`. Reads the index alone."""
        grid = self.array.meta.grid
        return chunk_writers(self.array, grid.chunks(Box.whole(grid.shape) if box is None else box))

    def read(self, box: Box, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """The voxels of a box, shape `box.shape`, into `out` if given. Blocking; uses all cores.

        Raises BadInput for a box outside the level, Damaged or Held if a chunk it crosses has no right voxels.
        """
        return self.reader.read(box, out)

    def read_cached(self, box: Box, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any] | None:
        """The voxels if they can be had without any I/O, else None."""
        return self.reader.read_cached(box, out)

    def prefetch(self, box: Box) -> Ahead:
        """Decode what a box crosses in the background; set `cancelled` of the result to have it left."""
        return self.reader.prefetch(box)

    def write(self, box: Box, voxels: npt.ArrayLike) -> None:
        """Put voxels into a box of a branch. Chunks that are only crossed keep their other voxels.

        Raises BadInput for another shape or type (labels: any unsigned type whose values fit), ReadOnly in a version,
        NotAllowed in a level that follows s0.
        """
        self._check_written()
        assert isinstance(self.source, StoredBlocks)
        array = conforming(voxels, box.shape, self.dtype, self.is_label)
        lock = self._context.array_lock(self.snapshot, self.array.path)
        BoxWriter(self.snapshot, self.source, self.reader, self._context.workers, lock).write(box, array)

    def _check_written(self) -> None:
        if not self.snapshot.writable:
            raise ReadOnly(f"{self.snapshot.ref} cannot be written")
        if self.derived:
            raise NotAllowed(f"{self.name} is computed from s0: write s0")

    # -- like an array ------------------------------------------------------------------------------------------

    def __getitem__(self, key: object) -> Any:
        """Integers, slices with steps, an ellipsis, lists and masks: as zarr-python has it. Always a copy."""
        return self._select(select_any(key, self.shape))

    def __setitem__(self, key: object, value: npt.ArrayLike) -> None:
        """Write what the same index reads; the value is broadcast, a plain number is taken in the level's type.

        What is no box is written piece by piece: an error may leave it half written.
        """
        self._assign(select_any(key, self.shape), value)

    @property
    def oindex(self) -> OrthogonalIndexing:
        """Orthogonal indexing: each axis for itself, by an integer, a slice, a list or a mask of its length."""
        return OrthogonalIndexing(self)

    @property
    def vindex(self) -> PointIndexing:
        """Indexing by points: a list of coordinates for each axis, or one mask of the level's shape."""
        return PointIndexing(self)

    def _select(self, selection: Selection | Orthogonal | Points) -> Any:
        if not isinstance(selection, Selection):
            return self._gather(selection)
        if selection.contiguous:
            return self.read(selection.box)[selection.squeeze]
        result = np.empty(tuple(len(r) for r in selection.ranges), self.dtype)
        for place, piece in selection.pieces(self.chunk_shape):
            result[place] = self.read(piece.box)[piece.view]
        return result[selection.squeeze]

    def _gather(self, selection: Orthogonal | Points) -> npt.NDArray[Any]:
        result = np.empty(selection.full_shape, self.dtype)

        def read(piece: Piece) -> None:
            result[piece.place] = self.reader.fetch(piece.box, scan=False)[piece.within]

        self._context.workers.each(read, selection.pieces(self.chunk_shape))
        return result.reshape(selection.shape)[()]

    def _assign(self, selection: Selection | Orthogonal | Points, value: npt.ArrayLike) -> None:
        self._check_written()
        array = np.asarray(self._in_type(value))
        try:
            array = np.broadcast_to(array, selection.shape)
        except ValueError:
            raise BadInput(f"voxels have the shape {array.shape}, {selection.shape} is needed") from None
        if isinstance(selection, Selection):
            if selection.contiguous:
                self.write(selection.box, array.reshape(selection.box.shape))
                return
            selection = Orthogonal(tuple(np.asarray(r, np.intp) for r in selection.ranges), selection.dropped)
        array = conforming(array, array.shape, self.dtype, self.is_label).reshape(selection.full_shape)
        with self._context.array_lock(self.snapshot, self.array.path):
            for piece in selection.pieces(self.chunk_shape):
                voxels = self.reader.fetch(piece.box, scan=False)
                voxels[piece.within] = array[piece.place]
                self.write(piece.box, voxels)

    def _in_type(self, value: npt.ArrayLike) -> npt.ArrayLike:
        """Plain Python numbers, and lists of them, in the level's type; BadInput for one that has no place there."""
        if not isinstance(value, bool | int | float | complex | list | tuple):
            return value
        try:
            found, plain = np.asarray(value, self.dtype), np.asarray(value)
        except (OverflowError, TypeError, ValueError) as error:
            raise BadInput(f"{value!r} is no {self.dtype}: {error}") from None
        if self.dtype.kind in "iub" and not np.array_equal(found, plain):
            raise BadInput(f"{value!r} is no {self.dtype}")
        return found

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("a level is not in memory: it can only be copied into an array")
        return np.asarray(self.read(Box.whole(self.shape)), dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    # -- for other libraries ------------------------------------------------------------------------------------

    def to_dask(self, chunks: Any = None) -> Any:
        """The level as a :class:`dask.array.Array`, by its own chunks or by others, as ``da.from_array`` takes them.

        Processes read for themselves. Unsupported where Dask is not installed.
        """
        with needed("dask"):
            import dask.array
        return dask.array.from_array(self, chunks=self.chunks if chunks is None else chunks, fancy=False)

    def to_xarray(self) -> Any:
        """The level as an :class:`xarray.DataArray`: dimensions are axes, coordinates the centres of voxels in units.

        Voxels are read when they are asked for; ``.chunk()`` makes it Dask's. Unsupported where xarray is missing.
        """
        return self.snapshot.dataset.store.face.data_array(self)

    def __dask_tokenize__(self) -> object:
        snapshot, path = self.snapshot, self.array.path
        place = str(snapshot.dataset.store.path), snapshot.dataset.name, snapshot.ref, path
        base = snapshot.base
        if is_version(snapshot):
            return (*place, base.content_id if base is not None else "")
        return (*place, repr(snapshot.generation()))

    # -- what changed -------------------------------------------------------------------------------------------

    def newest(self, box: Box) -> int:
        """Time (ns) of the newest change to any voxel of a box, as told by the chunks it crosses."""
        keys = self.source.keys.chunks(box)
        stored = keys.intersect(Box.whole(self.array.meta.grid.grid_shape))
        newest = self.array.mtime_ns if stored.empty else self.array.newest_in(stored)
        if (above := self._above) is not None:
            parts = [box] if self._reshaped else list(self._dirty_within(keys))
            newest = max((newest, *(above.newest(finer_box(part, self.factors, above.shape)) for part in parts)))
        return newest

    def newest_along(self, axes: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """The same for every chunk index along some axes, over all others: one look-up for a whole directory.

        The result has one dimension per axis of `axes`; voxel i lies in chunk `i // key_shape[axis]`. It has as many
        elements as there is room for chunks: see :meth:`newest_layers` for where that may be many.
        """
        if not axes and not self.few_keys((0,)):
            return np.asarray(max(self.newest(Box.whole(self.shape)), self.array.mtime_ns))
        if not axes:
            return np.asarray(self.newest_along((0,)).max(initial=self.array.mtime_ns))
        stored = self.array.newest(axes)
        grid = tuple(self.source.keys.grid_shape[a] for a in axes)
        newest = np.full(grid, self.array.mtime_ns, np.int64)
        common = tuple(slice(0, min(a, b)) for a, b in zip(grid, stored.shape, strict=True))
        newest[common] = stored[common]
        above, dirty = self._above, self.derived_keys()
        if above is None or not (dirty or self._reshaped):
            return newest
        finer = above.newest_along(axes)
        changed = np.ndindex(grid) if self._reshaped else {tuple(key[a] for a in axes) for key in dirty}
        for at in changed:
            under = tuple(
                slice(i * n * f // m, -(-min((i + 1) * n * f, size) // m))
                for i, n, f, m, size in zip(
                    at,
                    (self.key_shape[a] for a in axes),
                    (self.factors[a] for a in axes),
                    (above.key_shape[a] for a in axes),
                    (above.shape[a] for a in axes),
                    strict=True,
                )
            )
            newest[at] = max(int(newest[at]), int(finer[under].max(initial=0)))
        return newest

    def few_keys(self, axes: tuple[int, ...]) -> bool:
        """Whether there is room for so few keys along some axes that :meth:`newest_along` may be asked."""
        return prod(self.source.keys.grid_shape[a] for a in axes) <= _TIMED_KEYS

    def newest_layers(self, axis: int, keys: Box) -> npt.NDArray[np.int64]:
        """The same for the layers of a range of keys along one axis, over that range alone."""
        stored = keys.intersect(Box.whole(self.array.meta.grid.grid_shape))
        newest = np.full(keys.shape[axis], self.array.mtime_ns, np.int64)
        if not stored.empty:
            newest[: stored.shape[axis]] = self.array.newest_along(axis, stored)
        if self._above is not None:
            first, last = keys.start[axis], keys.stop[axis]
            dirty = {key[axis] for key in keys_within(self.derived_keys(), keys, self.source.keys)}
            for layer in range(first, last) if self._reshaped else sorted(dirty):
                slab = slab_of(keys, axis, layer)
                newest[layer - first] = self.newest(
                    Box(
                        tuple(i * n for i, n in zip(slab.start, self.key_shape, strict=True)),
                        tuple(min(i * n, m) for i, n, m in zip(slab.stop, self.key_shape, self.shape, strict=True)),
                    )
                )
        return newest

    @property
    def _reshaped(self) -> bool:
        """Whether the level follows s0 to a shape that its own metadata does not have yet."""
        return self.derived and self.shape != self.array.meta.shape

    @property
    def key_shape(self) -> Index:
        """What one key holds: the chunk shape, or the client's shard shape. :meth:`newest_along` counts in these."""
        return self.source.keys.chunk_shape

    def stamp(self, box: Box) -> Hashable:
        """Equal stamps of a box mean equal voxels (and shape, type and fill value); in a version it never changes."""
        fixed = (self.shape, self.dtype.str, self.fill_value.tobytes(), self.factors)
        if is_version(self.snapshot):
            return (self.snapshot.ref, *fixed)
        keys = self.source.keys.chunks(box)
        if keys.size > _STAMPED_KEYS:
            return (self.snapshot.generation(), *fixed)
        digest = hashlib.blake2b(digest_size=16)
        entries: Mapping[Index, Any] = {} if keys.empty else self.source.find(self.source.grid.chunks(box))
        for key in self.source.keys.iter(keys):
            entry = entries.get(key)
            if entry is not None:
                name = entry.stamp if isinstance(entry, Recipe) else entry.token
                digest.update(repr((key, name)).encode(errors="surrogateescape"))
        return (digest.digest(), *fixed)

    def derived_keys(self) -> Keys:
        """Keys whose voxels are computed now, and differ from what is stored: `pyramid.derived_payload` has them."""
        return self.source.dirty() if isinstance(self.source, DerivedBlocks) else frozenset()

    def cache_watch(self, keys: Sequence[Hashable], gone: Callable[[], object]) -> bool:
        """See :meth:`volfs.volume.cache.BlockCache.watch`."""
        return self._context.cache.watch(keys, gone)

    def cache_stats(self) -> CacheStats:
        """Counters of the store's block cache."""
        return self._context.cache.stats()

    def _dirty_within(self, keys: Box) -> Iterator[Box]:
        return map(self.source.keys.chunk_box, keys_within(self.derived_keys(), keys, self.source.keys))


@dataclass(frozen=True, slots=True)
class OrthogonalIndexing:
    """`level.oindex[…]`."""

    level: Level

    def __getitem__(self, key: object) -> Any:
        return self.level._select(select_orthogonal(key, self.level.shape))

    def __setitem__(self, key: object, value: npt.ArrayLike) -> None:
        self.level._assign(select_orthogonal(key, self.level.shape), value)


@dataclass(frozen=True, slots=True)
class PointIndexing:
    """`level.vindex[…]`."""

    level: Level

    def __getitem__(self, key: object) -> Any:
        return self.level._select(select_points(key, self.level.shape))

    def __setitem__(self, key: object, value: npt.ArrayLike) -> None:
        self.level._assign(select_points(key, self.level.shape), value)


def _reopened(snapshot: Snapshot, path: str) -> Level:
    """The level of a pickle."""
    level = snapshot.dataset.store.face.at(snapshot, path)
    level = level[0] if isinstance(level, Mapping) else level  # an image that is one array
    if not isinstance(level, Level):
        raise NotFound(f"no level is at {path!r} in {snapshot.dataset.name}@{snapshot.ref} any more")
    return level
