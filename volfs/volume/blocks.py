"""The blocks of an array: what is decoded in one piece, and where it comes from.

Decided here: that a block is a chunk, or an inner chunk where the client shards; how it is named in the cache (by the
payload's token and by what decodes it, never by a version, so that versions share blocks); how it is loaded. Not here:
which blocks a box needs (:mod:`volfs.volume.reader`), and how derived blocks are made (:mod:`volfs.volume.derivation`),
which only follow the same interface.
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from volfs.errors import Absent, Damaged, Held
from volfs.model.bounded_map import BoundedMap
from volfs.model.box import Box, Index
from volfs.model.grid import ChunkGrid, block_shape_for
from volfs.storage.codec import ChunkCodec
from volfs.storage.decode_list import DecodeList
from volfs.storage.sharding_codec import ShardReader
from volfs.versions.committed.array import VersionPayload
from volfs.versions.working.branch_array import WorkingPayload
from volfs.volume.cache import Block, Home
from volfs.volume.maps import Entries, EntryMap, EntryMaps

if TYPE_CHECKING:
    from volfs.versions.snapshot import ArrayNode, Snapshot, StoredPayload

#: Threads that share one list of chunks, at most: where there are more processors, there are other lists.
_DRAINERS = 8
#: Bytes of shard indexes kept in memory.
_INDEX_BYTES = 32 << 20


#: Spreads work over threads: :meth:`volfs.volume.workers.Workers.each`, or one item after the other.
Each = Callable[[Callable[[Any], object], Iterable[Any]], None]


class BlockRef(ABC):
    """One block that is present. `key` names it for ever: equal keys, equal voxels."""

    __slots__ = ("key",)
    key: Hashable

    @abstractmethod
    def load(self, out: Block | None = None) -> Block:
        """Read and decode it, of the grid's full chunk shape or clipped at the array's end. I/O.

        Into `out`, of the full chunk shape, if given. Raises Damaged or Held, never gives other voxels.
        """

    @abstractmethod
    def home(self) -> Home | None:
        """The place of a branch whose contents this is; None in a version, whose contents stay."""


class ShardIndexes(BoundedMap[Hashable, ShardReader]):
    """Indexes of clients' shards, by token, so that an inner chunk costs one read and not two."""

    def __init__(self, max_bytes: int = _INDEX_BYTES) -> None:
        super().__init__(max_bytes, _index_bytes)

    def open(self, key: Hashable, codec: ChunkCodec, payload: StoredPayload) -> ShardReader:
        return self.get_or_make(key, lambda: codec.open_shard(payload.read, payload.size))


def _index_bytes(shard: ShardReader) -> int:
    return 1024 + 16 * int(np.prod(shard.grid.grid_shape))


class Decoded:
    """How many stored payloads were decoded, of how many bytes, to how many bytes of voxels. Thread-safe."""

    def __init__(self) -> None:
        self.payloads = self.stored_bytes = self.bytes = 0
        self._lock = threading.Lock()

    def add(self, stored_bytes: int, nbytes: int, payloads: int = 1) -> None:
        with self._lock:
            self.payloads += payloads
            self.stored_bytes += stored_bytes
            self.bytes += nbytes


@dataclass(frozen=True, slots=True)
class Memory:
    """What the sources of a store share."""

    maps: EntryMaps
    shards: ShardIndexes
    decoded: Decoded = field(default_factory=Decoded)


class BlockSource(ABC):
    """The blocks of one level of an image. `grid` counts blocks, `keys` counts what one key holds."""

    grid: ChunkGrid
    keys: ChunkGrid
    dtype: np.dtype[Any]
    fill_value: np.generic
    #: Which level of which branch it is of; None in a version.
    home: Hashable | None

    @abstractmethod
    def generation(self) -> Hashable:
        """Equal generations mean equal entries."""

    @abstractmethod
    def find(self, blocks: Box) -> Entries:
        """The entries that blocks of this range need, by key coordinates. May do I/O."""

    @abstractmethod
    def peek(self, blocks: Box) -> Entries | None:
        """The same if memory has it: no I/O."""

    @abstractmethod
    def entry(self, key: Index) -> Any:
        """The entry of one key, None if nothing is stored there. May do I/O."""

    @abstractmethod
    def ref(self, coords: Index, entries: Entries) -> BlockRef | None:
        """The block at these block coordinates, None if it is not stored and so all fill value. No I/O."""

    def load(self, wanted: Sequence[tuple[BlockRef, Index]], target: Block, each: Each) -> None:
        """Read and decode blocks of this source into an array of its dtype, each to where its first voxel is to be.

        Spread by ``each``. What :meth:`BlockRef.load` does for one, and raises for one.
        """
        shape = self.grid.chunk_shape

        def one(item: tuple[BlockRef, Index]) -> None:
            ref, start = item
            ref.load(target[tuple(slice(at, at + n) for at, n in zip(start, shape, strict=True))])

        each(one, wanted)

    def keys_of(self, blocks: Box) -> Box:
        """The keys that hold these blocks."""
        if blocks.empty:
            return Box((0,) * blocks.ndim, (0,) * blocks.ndim)
        per_key = [k // b for k, b in zip(self.keys.chunk_shape, self.grid.chunk_shape, strict=True)]
        return Box(
            tuple(a // n for a, n in zip(blocks.start, per_key, strict=True)),
            tuple(-(-b // n) for b, n in zip(blocks.stop, per_key, strict=True)),
        )


class StoredBlocks(BlockSource):
    """The blocks of an array as they are stored. `shape` may differ from the metadata's where a level follows s0."""

    def __init__(self, array: ArrayNode, memory: Memory, shape: Index | None = None) -> None:
        meta = array.meta
        self.array = array
        self.codec = array.codec
        self.dtype, self.fill_value = meta.dtype, meta.fill_value
        self.keys = ChunkGrid(meta.shape if shape is None else shape, meta.chunk_shape)
        sharding = meta.sharding if self.codec.sharded else None
        self._inner = sharding.chunk_shape if sharding is not None else None
        self.grid = ChunkGrid(self.keys.shape, self._inner or meta.chunk_shape)
        self.per_key = tuple(k // b for k, b in zip(self.keys.chunk_shape, self.grid.chunk_shape, strict=True))
        # The same bytes decode alike under the same type, shape and codecs. Where chunks may be missing inside a
        # shard, the fill value takes part.
        # One string, because a string remembers its hash.
        self.signature = repr(
            (
                meta.dtype.str,
                meta.chunk_shape,
                json.dumps(meta.codecs, sort_keys=True),
                meta.fill_value.tobytes() if sharding is not None else None,
            )
        )
        snapshot = array.snapshot
        self.home = None if is_version(snapshot) else (snapshot.dataset.name, snapshot.ref, array.path)
        self._stored = ChunkGrid(meta.shape, meta.chunk_shape).grid_shape
        self._shards = memory.shards
        self.decoded = memory.decoded
        self._map = EntryMap(
            memory.maps,
            self.keys,
            block_shape_for(meta.chunk_shape, meta.dtype.itemsize, self.keys.grid_shape),
            self.look_up,
            array.snapshot.generation,
            lasting=is_version(array.snapshot),
        )

    def look_up(self, keys: Box) -> Entries:
        """Ask the snapshot. Keys outside the stored array's grid hold nothing."""
        inside = keys.intersect(Box.whole(self._stored))
        return {} if inside.empty else dict(self.array.payloads(inside))

    def generation(self) -> Hashable:
        return self.array.snapshot.generation()

    def find(self, blocks: Box) -> Entries:
        return self._map.find(self.keys_of(blocks))

    def peek(self, blocks: Box) -> Entries | None:
        return self._map.peek(self.keys_of(blocks))

    def entry(self, key: Index) -> Any:
        return self._map.find(Box(key, tuple(i + 1 for i in key))).get(key)

    def ref(self, coords: Index, entries: Entries) -> BlockRef | None:
        if self._inner is None:
            payload = entries.get(coords)
            return None if payload is None else _ChunkRef(self, coords, payload)
        key_coords = tuple(i // n for i, n in zip(coords, self.per_key, strict=True))
        payload = entries.get(key_coords)
        if payload is None:
            return None
        return _InnerRef(self, key_coords, tuple(i % n for i, n in zip(coords, self.per_key, strict=True)), payload)

    def load(self, wanted: Sequence[tuple[BlockRef, Index]], target: Block, each: Each) -> None:
        chunks = DecodeList.of(self.codec, target, len(wanted)) if len(wanted) > 1 else None
        if chunks is None:
            super().load(wanted, target, each)
            return
        with chunks:
            others, listed = [], []
            for ref, start in wanted:
                stored = ref.committed if isinstance(ref, _ChunkRef) else None
                if stored is not None and chunks.add(stored.reader, stored.payload, start):
                    listed.append((ref, start, stored.size))
                else:
                    others.append((ref, start))
            if listed:
                each(chunks.drain, range(min(len(listed), _DRAINERS)))
            doubts = chunks.doubts()
        done = len(listed) - len(doubts)
        if done:
            doubted = sum(listed[i][2] for i in doubts)
            self.decoded.add(sum(size for *_, size in listed) - doubted, self.codec.nbytes * done, done)
        others += [listed[i][:2] for i in doubts]
        if others:
            super().load(others, target, each)

    def open_shard(self, payload: StoredPayload) -> ShardReader:
        """A client's shard, its index read. Raises Damaged."""
        return self._shards.open((payload.token, self.signature), self.codec, payload)

    def key_name(self, key_coords: Index) -> str:
        """For messages."""
        return "/".join(filter(None, ("zarr", self.array.path, self.array.meta.chunk_key(key_coords))))


class _ChunkRef(BlockRef):
    __slots__ = ("_coords", "_payload", "_source")

    def __init__(self, source: StoredBlocks, coords: Index, payload: StoredPayload) -> None:
        self.key = (payload.token, source.signature)
        self._source, self._coords, self._payload = source, coords, payload

    def home(self) -> Home | None:
        return _home(self._source, self._payload, self._coords)

    @property
    def committed(self) -> VersionPayload | None:
        """Its payload, if that is a committed one."""
        return self._payload if isinstance(self._payload, VersionPayload) else None

    def load(self, out: Block | None = None) -> Block:
        try:
            stored = self._payload.read()
            block = self._source.codec.decode(stored, out)
            self._source.decoded.add(len(stored), block.nbytes)
            return block
        except (Absent, Damaged, Held) as error:
            raise _named(error, self._source.key_name(self._coords)) from error


class _InnerRef(BlockRef):
    __slots__ = ("_coords", "_inner", "_payload", "_source")

    def __init__(self, source: StoredBlocks, coords: Index, inner: Index, payload: StoredPayload) -> None:
        self.key = (payload.token, source.signature, inner)
        self._source, self._coords, self._inner, self._payload = source, coords, inner, payload

    def home(self) -> Home | None:
        return _home(self._source, self._payload, (*self._coords, *self._inner))

    def load(self, out: Block | None = None) -> Block:
        source = self._source
        try:
            shard = source.open_shard(self._payload)
            block = shard.decode(self._inner, out)
            if (where := shard.stored_range(self._inner)) is not None:
                source.decoded.add(where[1], block.nbytes)
            return block
        except (Absent, Damaged, Held) as error:
            raise _named(error, source.key_name(self._coords)) from error


def _home(source: StoredBlocks, payload: StoredPayload, at: Index) -> Home | None:
    return None if source.home is None else (("block", source.home, at), isinstance(payload, WorkingPayload))


def _named(error: Absent | Damaged | Held, key: str) -> Absent | Damaged | Held:
    text = str(error)
    return error if key in text else type(error)(f"{key}: {text}", errno=error.errno)


def is_version(snapshot: Snapshot) -> bool:
    """Whether the snapshot can never change. No branch may be called `v12`, so the ref tells."""
    return snapshot.ref[:1] == "v" and snapshot.ref[1:].isdecimal()
