"""Images and hierarchies in memory, as directory formats see them, and a format written out as plain files."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from volfs.errors import NotFound
from volfs.model.box import Box, Index
from volfs.model.metadata import ArrayMeta, array_zarr_json, parse_node
from volfs.model.ngff import Axis, axis
from volfs.storage.codec import ChunkCodec
from volfs.views.folder import Folder, ImageView, LevelView, ViewFile
from volfs.views.layout import placed


class MemoryArray:
    """An array whose chunks are encoded as its metadata says. Chunks of nothing but fill value are not stored."""

    def __init__(self, meta: ArrayMeta, voxels: np.ndarray | None = None, path: str = "s0") -> None:
        self.meta = meta
        self.path = path
        self.readable = True
        self.voxels = np.full(meta.shape, meta.fill_value, meta.dtype)
        self.stored: dict[Index, bytes] = {}
        #: Voxels that were asked for.
        self.given = 0
        self._codec = ChunkCodec.of(meta)
        if voxels is not None:
            self.write(Box.whole(meta.shape), voxels)

    @property
    def shape(self) -> Index:
        return self.meta.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.meta.dtype

    @property
    def block_shape(self) -> Index:
        return self.meta.sharding.chunk_shape if self.meta.sharding is not None else self.meta.chunk_shape

    @property
    def block_codecs(self) -> Sequence[Mapping[str, Any]]:
        return self.meta.sharding.codecs if self.meta.sharding is not None else self.meta.codecs

    # -- voxels -----------------------------------------------------------------------------------------------------

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        assert not box.empty and Box.whole(self.shape).contains(box), box
        self.given += box.size
        return placed(self.voxels[box.slices()], out)

    def write(self, box: Box, voxels: np.ndarray) -> None:
        assert voxels.shape == box.shape and voxels.dtype == self.dtype
        self.voxels[box.slices()] = voxels
        grid = self.meta.grid
        chunks = grid.chunks(box)
        for at in np.ndindex(chunks.shape):
            key = tuple(a + i for a, i in zip(chunks.start, at, strict=True))
            inside = grid.chunk_box(key)
            whole = self._codec.filled().copy()
            here = self.voxels[inside.slices()]
            whole[tuple(slice(0, n) for n in here.shape)] = here
            if self._codec.is_fill(whole):
                self.stored.pop(key, None)
            else:
                self.stored[key] = bytes(self._codec.encode(whole))

    def newest(self, box: Box) -> int:
        return 5

    def stamp(self, box: Box) -> Hashable:
        return self.voxels[box.slices()].tobytes()

    # -- payloads ---------------------------------------------------------------------------------------------------

    @property
    def _per_key(self) -> Index:
        return tuple(k // b for k, b in zip(self.meta.chunk_shape, self.block_shape, strict=True))

    def present(self, blocks: Box) -> np.ndarray:
        found = np.zeros(blocks.shape, bool)
        for at in np.ndindex(blocks.shape):
            block = tuple(a + i for a, i in zip(blocks.start, at, strict=True))
            found[at] = tuple(i // n for i, n in zip(block, self._per_key, strict=True)) in self.stored
        return found

    def stored_along(self, axis: int, blocks: Box) -> Sequence[int]:
        return sorted({int(at[axis]) + blocks.start[axis] for at in np.argwhere(self.present(blocks))})

    def keys_along(self, axis: int, keys: Box) -> Sequence[int]:
        return sorted({key[axis] for key in self.stored if keys.contains(Box(key, tuple(i + 1 for i in key)))})

    def _block(self, block: Index) -> bytes | None:
        if self.meta.sharding is None:
            return self.stored.get(block)
        key = tuple(i // n for i, n in zip(block, self._per_key, strict=True))
        inner = tuple(i % n for i, n in zip(block, self._per_key, strict=True))
        shard = self.stored.get(key)
        if shard is None:
            return None
        where = self._codec.open_shard(lambda at, n: shard[at : at + n], len(shard)).stored_range(inner)
        return None if where is None else shard[where[0] : where[0] + where[1]]

    def block_size(self, block: Index) -> int | None:
        found = self._block(block)
        return None if found is None else len(found)

    def block_sizes(self, blocks: Box) -> np.ndarray:
        sizes = np.full(blocks.shape, -1, np.int64)
        for place in np.argwhere(self.present(blocks)).tolist():
            size = self.block_size(tuple(a + i for a, i in zip(blocks.start, place, strict=True)))
            sizes[tuple(place)] = -1 if size is None else size
        return sizes

    def block_bytes(self, block: Index, size: int, offset: int, length: int) -> bytes:
        return _part(self._block(block), size, offset, length)

    def key_size(self, key: Index) -> int | None:
        found = self.stored.get(key)
        return None if found is None else len(found)

    def key_bytes(self, key: Index, size: int, offset: int, length: int) -> bytes:
        return _part(self.stored.get(key), size, offset, length)


def _part(data: bytes | None, size: int, offset: int, length: int) -> bytes:
    if data is None or len(data) != size:
        raise NotFound("not stored")
    return data[offset : offset + length]


class HugeArray(MemoryArray):
    """An array of any shape of which nothing is in memory: every voxel is computed from its position. The blocks of a
    box are stored, by default none."""

    def __init__(self, meta: ArrayMeta, held: Box | None = None, path: str = "s0") -> None:
        self.meta = meta
        self.path = path
        self.readable = True
        self.given = 0
        #: Blocks, and indices of blocks along an axis, that were looked at.
        self.asked = 0
        self._held = held or Box((0,) * meta.ndim, (0,) * meta.ndim)

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        assert not box.empty and Box.whole(self.shape).contains(box), box
        self.given += box.size
        numbers = np.zeros(box.shape, np.int64)
        for n, (start, stop) in enumerate(zip(box.start, box.stop, strict=True)):
            place = (1,) * n + (-1,) + (1,) * (box.ndim - n - 1)
            numbers += (np.arange(start, stop) * (2 * n + 1)).reshape(place)
        return placed((numbers % 251).astype(self.dtype), out)

    def present(self, blocks: Box) -> np.ndarray:
        found = np.zeros(blocks.shape, bool)
        self.asked += found.size
        inside = self._held.intersect(blocks)
        if not inside.empty:
            found[inside.relative_to(blocks.start).slices()] = True
        return found

    def stored_along(self, axis: int, blocks: Box) -> Sequence[int]:
        inside = self._held.intersect(blocks)
        indices = range(0) if inside.empty else range(inside.start[axis], inside.stop[axis])
        self.asked += 1 + len(indices)
        return indices

    keys_along = stored_along

    def _block(self, block: Index) -> bytes | None:
        return b"payload" if self._held.contains(Box(block, tuple(i + 1 for i in block))) else None


def array_meta(shape: Sequence[int], dtype: Any, chunks: Sequence[int], **more: Any) -> ArrayMeta:
    """The metadata of an array, by default with volfs's own codecs."""
    meta = parse_node(array_zarr_json(shape, dtype, chunks, **more))
    assert isinstance(meta, ArrayMeta)
    return meta


BIG_ENDIAN = ({"name": "bytes", "configuration": {"endian": "big"}},)
RAW = ({"name": "bytes", "configuration": {"endian": "little"}},)
GZIP = (*RAW, {"name": "gzip", "configuration": {"level": 5}})


def sharded(inner: Sequence[int], codecs: Sequence[Mapping[str, Any]] = RAW) -> tuple[dict[str, Any], ...]:
    """The codec of a client's shards."""
    config = {
        "chunk_shape": list(inner),
        "codecs": list(codecs),
        "index_codecs": [*RAW, {"name": "crc32c"}],
        "index_location": "end",
    }
    return ({"name": "sharding_indexed", "configuration": config},)


def image_view(
    voxels: np.ndarray,
    axes: str = "zyx",
    *,
    chunks: Sequence[int] | None = None,
    levels: int = 1,
    scale: Sequence[float] | None = None,
    translation: Sequence[float] | None = None,
    unit: str | None = "nanometer",
    sample: str | None = None,
    is_label: bool = False,
    attributes: Mapping[str, Any] | None = None,
    name: str = "cells",
    **more: Any,
) -> ImageView:
    """An image whose axes have names of one letter; each level takes every other voxel of the one above along z, y, x,
    sizes rounded up."""
    ndim = voxels.ndim
    assert len(axes) == ndim
    chunks = tuple(chunks or (4,) * ndim)
    scale = tuple(scale or (1.0,) * ndim)
    shift = tuple(translation or (0.0,) * ndim)
    made = []
    for number in range(levels):
        meta = array_meta(voxels.shape, voxels.dtype, chunks, **more)
        made.append(LevelView(f"s{number}", MemoryArray(meta, voxels, f"s{number}"), scale, shift))
        space = [n in "zyx" for n in axes]
        voxels = voxels[tuple(slice(None, None, 2 if s else 1) for s in space)]
        shift = tuple(a + b / 2 if s else a for a, b, s in zip(shift, scale, space, strict=True))
        scale = tuple(a * 2 if s else a for a, s in zip(scale, space, strict=True))
    return view_of(made, axes, unit=unit, sample=sample, is_label=is_label, attributes=attributes, name=name)


def view_of(
    levels: Sequence[LevelView],
    axes: str,
    *,
    unit: str | None = "nanometer",
    sample: str | None = None,
    is_label: bool = False,
    attributes: Mapping[str, Any] | None = None,
    name: str = "cells",
) -> ImageView:
    """An image of given levels."""
    return ImageView(
        name,
        tuple(_axis(n, unit) for n in axes),
        tuple(levels),
        axes.index("z") if "z" in axes else None,
        axes.index("y"),
        axes.index("x"),
        axes.index(sample) if sample else None,
        is_label=is_label,
        attributes=attributes or {},
        mtime=3,
    )


def _axis(name: str, unit: str | None) -> Axis:
    return axis(name, unit if name in "zyx" else None)


@dataclass
class MemoryNode:
    """A node of a hierarchy."""

    name: str
    array: MemoryArray | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    nodes: dict[str, MemoryNode] = field(default_factory=dict)
    mtime: int = 3

    def children(self) -> Sequence[str]:
        return sorted(self.nodes)

    def child(self, name: str) -> MemoryNode | None:
        return self.nodes.get(name)


def hierarchy(image: ImageView, attributes: Mapping[str, Any] | None = None, **nodes: MemoryNode) -> MemoryNode:
    """The group of an image: its levels, and what else stands beside them."""
    levels = {level.name: MemoryNode(level.name, level.array) for level in image.levels}  # type: ignore[arg-type]
    return MemoryNode("", None, attributes or image.attributes, levels | nodes)


def content(file: ViewFile) -> bytes:
    """The bytes of a file."""
    source = file.source if file.source is not None else _Nothing()
    data = file.layout.read(source, 0, file.layout.size + 1)
    assert len(data) == file.layout.size
    return data


class _Nothing:
    """What a file of literal bytes reads: nothing."""

    shape: Index = ()
    dtype = np.dtype(np.uint8)

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        raise AssertionError("there are no voxels here")

    def write(self, box: Box, voxels: np.ndarray) -> None:
        raise AssertionError("there are no voxels here")


def entries(folder: Folder) -> dict[str, Folder | ViewFile]:
    """All entries of a folder by name, as a listing would find them."""
    found: dict[str, Folder | ViewFile] = {}
    ordinals = [entry.ordinal for entry in folder.fixed.values() if entry.ordinal]
    assert len(set(ordinals)) == len(ordinals)
    for name, entry in folder.fixed.items():
        made = entry.make() if entry.listed else None
        if made is not None:
            assert isinstance(made, ViewFile) == bool(entry.ordinal)
            found[name] = made
    run = folder.run
    if run is not None:
        for index in run.following(0):
            name = run.name(index)
            assert run.index(name) == index and name not in found
            made = run.make(index)
            if made is not None:
                assert isinstance(made, Folder) == run.is_folder(index)
                found[name] = made
    return found


def write_out(folder: Folder, path: Path) -> Path:
    """Make a format a directory of plain files."""
    path.mkdir(parents=True)
    for name, made in entries(folder).items():
        if isinstance(made, Folder):
            write_out(made, path / name)
        else:
            (path / name).write_bytes(content(made))
    return path


def at(folder: Folder, path: str) -> Folder | ViewFile | None:
    """What is at a path, found by name as a lookup would find it."""
    here: Folder | ViewFile | None = folder
    for name in path.split("/"):
        if not isinstance(here, Folder):
            return None
        if (entry := here.fixed.get(name)) is not None:
            here = entry.make()
            continue
        index = here.run.index(name) if here.run is not None else None
        here = None if index is None or here.run is None else here.run.make(index)
    return here


def put(folder: Folder, path: str, data: bytes) -> None:
    """Write a whole file, as the tree does it: where there is none, what could be there decides."""
    parent, _, name = path.rpartition("/")
    above = at(folder, parent) if parent else folder
    assert isinstance(above, Folder)
    file = at(above, name)
    if file is None and above.run is not None and (index := above.run.index(name)) is not None:
        file = above.run.blank(index)
    assert isinstance(file, ViewFile) and file.decode is not None and file.box is not None and file.source is not None
    file.source.write(file.box, file.decode(memoryview(data)))
