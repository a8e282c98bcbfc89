"""Two versions as one snapshot: of each image of both, a picture of what differs, and a mask, as images of their own.

Decided here: which images there are, and their arrays. An image at P that both versions have, of one shape and type,
has at P a colour image of its levels, and at ``P/mask`` a label image: 1 where a voxel differs. Nothing is stored: a
chunk is made when it is read, from the voxels under it alone, and a chunk of the mask is absent where both versions
have the same bytes. Not here: what a picture looks like (who makes the snapshot says that), and differences by key
(:mod:`volfs.versions.diff`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from volfs.errors import NotFound, WrongKind
from volfs.model.bounded_map import BoundedMap
from volfs.model.box import Box, Index
from volfs.model.graph import VersionInfo
from volfs.model.grid import ChunkGrid
from volfs.model.metadata import ArrayMeta, array_zarr_json, group_zarr_json, parse_node
from volfs.model.ngff import Axis, LevelSpec, Multiscale, ome_attributes
from volfs.versions.committed.version import Version, chunk_prefix
from volfs.versions.diff import differing
from volfs.versions.keys import NODE_JSON, is_key, node_key, node_path, parents
from volfs.versions.snapshot import ArrayNode, GroupNode, KeyInfo, Listing, Snapshot, StoredPayload
from volfs.volume.image import Image, images
from volfs.volume.level import Level

if TYPE_CHECKING:
    from volfs.versions.zarrstore import ZarrStore

MASK = "mask"
"""The name of the label image, below the image that it belongs to."""

Paint = Callable[[Image, NDArray[Any], NDArray[Any]], NDArray[np.uint8]]
"""(image, voxels before, voxels now) to red, green and blue, along a last axis."""

_KEPT_BYTES = 32 << 20
_RAW = [{"name": "bytes", "configuration": {"endian": "little"}}]
_SAMPLES = 3
_MOST_AXES = 6


class DifferenceSnapshot(Snapshot):
    """What differs between the versions ``a`` and ``b``. It never changes. Thread-safe."""

    writable = False

    def __init__(self, a: Version, b: Version, paint: Paint) -> None:
        self.dataset = b.dataset
        self.ref = f"{a.ref}..{b.ref}"
        self.a, self.b = a, b
        self.paint = paint
        #: Chunks made lately: a file is read in pieces.
        self.made: BoundedMap[Hashable, bytes] = BoundedMap(_KEPT_BYTES, len)
        self._lock = threading.Lock()
        self._nodes: dict[str, _Described] | None = None

    @property
    def base(self) -> VersionInfo:
        return self.b.info

    @property
    def time_ns(self) -> int:
        """The time of everything here: when the newer of the two was made."""
        return max(self.a.info.time_ns, self.b.info.time_ns)

    def generation(self) -> Hashable:
        return self.dataset.id, self.ref

    def zarr_store(self) -> ZarrStore:
        from volfs.versions.zarrstore import ZarrStore  # zarr-python takes long to import

        return ZarrStore(self)

    # -- keys ---------------------------------------------------------------------------------------------------

    def stat(self, key: str) -> KeyInfo | None:
        if key in ("", "zarr", "files"):
            return self._folder
        path = node_path(key)
        if path is not None and path in self._described:
            return self._folder
        folder, _, name = key.rpartition("/")
        described = self._described.get(node_path(folder) or "") if node_path(folder) is not None else None
        if name == NODE_JSON and described is not None:
            return KeyInfo("file", len(described.raw), self.time_ns, self.b.number)
        found = self._array_above(key)
        if found is None:
            return None
        array, rel = found
        coords = array.meta.parse_chunk_key(rel)
        if coords is not None:
            payload = array.payloads(_only(coords)).get(coords) if array.meta.grid.holds(coords) else None
            return None if payload is None else KeyInfo("file", payload.size, self.time_ns, self.b.number)
        prefix = chunk_prefix(array.meta, rel)
        return self._folder if prefix is not None and array.any_below(prefix) else None

    def list(self, key: str) -> Listing:
        if key == "":
            return [("files", self._folder), ("zarr", self._folder)]
        if key == "files":
            return []
        path = node_path(key)
        found: dict[str, KeyInfo] = {}
        if path is not None and path in self._described:
            found[NODE_JSON] = KeyInfo("file", len(self._described[path].raw), self.time_ns, self.b.number)
            start = f"{path}/" if path else ""
            for other in self._described:
                if other.startswith(start) and other != path:
                    found[other[len(start) :].partition("/")[0]] = self._folder
            node = self.node(path)
            if isinstance(node, DifferenceArray) and node.any_below(()):
                found["c"] = self._folder
            return sorted(found.items())
        above = self._array_above(key)
        prefix = None if above is None else chunk_prefix(above[0].meta, above[1])
        if above is None or prefix is None:
            if self.stat(key) is not None:
                raise WrongKind(f"{key} is a file in {self.ref}")
            raise NotFound(f"{key} does not exist in {self.ref}")
        array, at = above[0], len(prefix)
        payloads = array.payloads(array.below(prefix))
        for coords, payload in payloads.items():
            last = at == len(coords) - 1
            file = KeyInfo("file", payload.size, self.time_ns, self.b.number)
            found[str(coords[at])] = file if last else self._folder
        return sorted(found.items())

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        folder, _, name = key.rpartition("/")
        path = node_path(folder)
        if name == NODE_JSON and path is not None and path in self._described:
            data = self._described[path].raw
        else:
            found = self._array_above(key)
            coords = None if found is None else found[0].meta.parse_chunk_key(found[1])
            payload = None if found is None or coords is None else found[0].payloads(_only(coords)).get(coords)
            if payload is None:
                raise NotFound(f"{key} does not exist in {self.ref}")
            data = payload.read()
        return data[offset:] if length is None else data[offset : offset + length]

    # -- nodes --------------------------------------------------------------------------------------------------

    def node(self, path: str) -> ArrayNode | GroupNode | None:
        described = self._described.get(path)
        if described is None:
            return None
        if described.array is not None:
            return described.array
        return GroupNode(path, described.attributes, self.time_ns)

    # -- inside -------------------------------------------------------------------------------------------------

    @property
    def _folder(self) -> KeyInfo:
        return KeyInfo("dir", 0, self.time_ns, self.b.number)

    def _array_above(self, key: str) -> tuple[DifferenceArray, str] | None:
        if not is_key(key):
            return None
        for above in parents(key):
            path = node_path(above)
            node = None if path is None else self.node(path)
            if isinstance(node, DifferenceArray):
                return node, key[len(above) + 1 :]
        return None

    @property
    def _described(self) -> dict[str, _Described]:
        with self._lock:
            if self._nodes is None:
                self._nodes = self._describe()
            return self._nodes

    def _describe(self) -> dict[str, _Described]:
        found: dict[str, _Described] = {"": _Described.group({})}
        before = images(self.a)
        for path, now in images(self.b).items():
            then = before.get(path)
            if then is None or then.levels[0].shape != now.levels[0].shape or then.axes != now.axes:
                continue
            levels = [
                (one, other)
                for one in then.levels
                if (other := now.level(one.name)) is not None
                and one.shape == other.shape
                and one.dtype == other.dtype
                and one.dtype.kind in "biufc"
            ]
            if not levels or levels[0][1].index:
                continue
            for above in parents(node_key(path)):
                found.setdefault(node_path(above) or "", _Described.group({}))
            found |= self._image(path, now, levels)
        return found

    def _image(self, path: str, image: Image, levels: Sequence[tuple[Level, Level]]) -> dict[str, _Described]:
        """The nodes of one image: its picture, and its mask."""
        sample = next((i for i, axis in enumerate(image.axes) if axis.name == "c"), None) if image.rgb else None
        kept = [i for i in range(len(image.axes)) if i != sample]
        axes = tuple(image.axes[i] for i in kept)
        specs = [
            LevelSpec(level.name, tuple(level.scale[i] for i in kept), tuple(level.translation[i] for i in kept))
            for _, level in levels
        ]
        found: dict[str, _Described] = {}
        mask = f"{path}/{MASK}" if path else MASK
        label = Multiscale(MASK, axes, tuple(specs), is_label=True, method="mode")
        found[mask] = _Described.group(ome_attributes(label, source="../"))
        coloured = len(axes) < _MOST_AXES
        if coloured:
            # A channel axis that stays has another name: c are the samples of the picture.
            named = tuple(Axis("ch", axis.type, axis.unit) if axis.name == "c" else axis for axis in axes)
            wide = tuple(LevelSpec(s.path, (*s.scale, 1.0), (*s.translation, 0.0)) for s in specs)
            picture = Multiscale(image.name, (*named, Axis("c", "channel")), wide, rgb=True)
            found[path] = _Described.group(ome_attributes(picture))
        else:
            found[path] = _Described.group({})
        for one, other in levels:
            at = f"{mask}/{other.name}"
            found[at] = self._array(at, image, (one, other), sample, [axis.name for axis in axes], coloured=False)
            if coloured:
                at = f"{path}/{other.name}" if path else other.name
                names = [axis.name for axis in picture.axes]
                found[at] = self._array(at, image, (one, other), sample, names, coloured=True)
        return found

    def _array(
        self,
        path: str,
        image: Image,
        levels: tuple[Level, Level],
        sample: int | None,
        names: Sequence[str],
        *,
        coloured: bool,
    ) -> _Described:
        now = levels[1]
        kept = [i for i in range(now.ndim) if i != sample]
        shape, chunks = [now.shape[i] for i in kept], [now.chunk_shape[i] for i in kept]
        if coloured:
            shape, chunks = [*shape, _SAMPLES], [*chunks, _SAMPLES]
        raw = array_zarr_json(shape, np.uint8, chunks, codecs=_RAW, dimension_names=names)
        meta = parse_node(raw)
        assert isinstance(meta, ArrayMeta)
        return _Described(raw, {}, DifferenceArray(self, path, meta, image, levels, sample, coloured=coloured))


@dataclass(frozen=True, slots=True)
class _Described:
    """A node, with the bytes of its ``zarr.json``; ``array`` is None for a group."""

    raw: bytes
    attributes: dict[str, Any]
    array: DifferenceArray | None = None

    @classmethod
    def group(cls, attributes: dict[str, Any]) -> _Described:
        return cls(group_zarr_json(attributes), attributes)


class DifferenceArray(ArrayNode):
    """The picture (``coloured``) or the mask of one level. ``sample``: the axis of a colour picture's samples in the
    image itself, which count as one voxel."""

    snapshot: DifferenceSnapshot

    def __init__(
        self,
        snapshot: DifferenceSnapshot,
        path: str,
        meta: ArrayMeta,
        image: Image,
        levels: tuple[Level, Level],
        sample: int | None,
        *,
        coloured: bool,
    ) -> None:
        self.snapshot = snapshot
        self.path = path
        self.meta = meta
        self.mtime_ns = snapshot.time_ns
        self._image = image
        self._levels = levels
        self._sample = sample
        self._coloured = coloured
        self._grid = meta.grid
        self._own = len(meta.shape) - int(coloured)

    def payloads(self, chunks: Box) -> dict[Index, StoredPayload]:
        inside = chunks.intersect(Box.whole(self._grid.grid_shape))
        if inside.empty:
            return {}
        found: dict[Index, StoredPayload] = {}
        looks = [self._stored(level, inside) for level in self._levels]
        for coords in self._grid.iter(inside):
            tokens = [
                frozenset((key, look[key].token) for key in self._keys(level, coords) if key in look)
                for level, look in zip(self._levels, looks, strict=True)
            ]
            # Different addresses may hold equal bytes; then the mask has a chunk of zeros.
            if (tokens[0] or tokens[1]) if self._coloured else tokens[0] != tokens[1]:
                found[coords] = MadePayload(self, coords)
        return found

    def newest(self, axes: tuple[int, ...]) -> NDArray[np.int64]:
        grid = self._grid.grid_shape
        return np.full(tuple(grid[axis] for axis in axes), self.mtime_ns, np.int64)

    def newest_in(self, chunks: Box) -> int:
        return self.mtime_ns

    def below(self, prefix: Index) -> Box:
        """The chunks whose coordinates begin with ``prefix``."""
        grid, free = self._grid.grid_shape, len(prefix)
        box = Box((*prefix, *(0,) * (len(grid) - free)), (*(i + 1 for i in prefix), *grid[free:]))
        return box.intersect(Box.whole(grid))

    def any_below(self, prefix: Index) -> bool:
        """Whether any chunk is there whose coordinates begin with ``prefix``."""
        box = self.below(prefix)
        slabs = (Box((i, *box.start[1:]), (i + 1, *box.stop[1:])) for i in range(box.start[0], box.stop[0]))
        return any(self.payloads(slab) for slab in slabs)

    def make(self, coords: Index) -> bytes:
        """The bytes of a chunk, with zeros beyond the array's edge."""
        key = (self.path, coords)
        known = self.snapshot.made.get(key)
        if known is None:
            box = self._grid.chunk_box(coords)
            before, now = (level.read(self._wide(level, box)) for level in self._levels)
            differ = differing(before, now)
            if self._sample is not None:
                differ = np.asarray(differ.any(axis=self._sample), np.bool_)
            out = np.zeros(self.meta.chunk_shape, np.uint8)
            inside = Box.whole(box.shape).slices()
            if not self._coloured:
                out[inside] = differ
            else:
                if self._sample is not None:
                    before, now = (one.mean(axis=self._sample).astype(one.dtype) for one in (before, now))
                out[inside] = self.snapshot.paint(self._image, before, now)
            known = out.tobytes()
            self.snapshot.made.put(key, known)
        return known

    # -- inside -------------------------------------------------------------------------------------------------

    def _wide(self, level: Level, box: Box) -> Box:
        """The voxels of a level under a box of this array."""
        start, stop = list(box.start[: self._own]), list(box.stop[: self._own])
        if self._sample is not None:
            start.insert(self._sample, 0)
            stop.insert(self._sample, level.shape[self._sample])
        return Box(tuple(start), tuple(stop))

    def _key_box(self, level: Level, chunks: Box) -> Box:
        """The keys of a level's array under a range of chunks."""
        grid: ChunkGrid = level.array.meta.grid
        size = self.meta.chunk_shape
        box = Box(
            tuple(a * s for a, s in zip(chunks.start, size, strict=True)),
            tuple(min(b * s, n) for b, s, n in zip(chunks.stop, size, self.meta.shape, strict=True)),
        )
        return grid.chunks(self._wide(level, box))

    def _stored(self, level: Level, chunks: Box) -> dict[Index, StoredPayload]:
        return level.array.payloads(self._key_box(level, chunks))

    def _keys(self, level: Level, coords: Index) -> Iterator[Index]:
        return level.array.meta.grid.iter(self._key_box(level, _only(coords)))


@dataclass(frozen=True, slots=True)
class MadePayload:
    """A chunk that is made when it is read."""

    array: DifferenceArray
    coords: Index

    @property
    def token(self) -> Hashable:
        snapshot = self.array.snapshot
        return snapshot.dataset.id, snapshot.ref, self.array.path, self.coords

    @property
    def size(self) -> int:
        return int(np.prod(self.array.meta.chunk_shape))

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        data = self.array.make(self.coords)
        return data[offset:] if length is None else data[offset : offset + length]


def _only(coords: Index) -> Box:
    return Box(coords, tuple(i + 1 for i in coords))
