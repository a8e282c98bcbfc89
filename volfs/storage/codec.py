"""Chunk payloads to voxels and back, as an array's metadata says.

Decided here: which codecs volfs runs. An array with any other is Unsupported: its keys are kept as opaque bytes. The
work is done in :mod:`volfs.storage.chain` (the chain), :mod:`volfs.storage.compressors` (strict decoders) and
:mod:`volfs.storage.sharding_codec`. Not here: where payloads come from and their stored checksums
(:mod:`volfs.storage.payload`).

Decoding is strict (every size is known beforehand and must come out), bounded (no memory on an untrusted header's word)
and raises nothing but Damaged. Encoding is deterministic: equal voxels give equal bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from volfs.errors import Unsupported
from volfs.model.box import Index
from volfs.model.metadata import ArrayMeta, Json
from volfs.storage.chain import Array, ArrayToBytes, Bytes, Chain, ReadRange
from volfs.storage.compressors import BLOSC_MAX_BYTES, Blosc, Buffer, BytesCodec, Crc32c, Gzip, Zstd
from volfs.storage.sharding_codec import Sharding, ShardReader, equals_fill

MAX_DECODED = 4 << 30
"""Bytes of voxels that one decode may take. Larger chunks are only read where they are shards of smaller ones."""
_MAX_NESTING = 4
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_CNAMES = ("blosclz", "lz4", "lz4hc", "zlib", "zstd", "snappy")


@dataclass(frozen=True, slots=True)
class StoredForm:
    """A chain of few words: voxels in C order of ``axes`` (slowest first), ``swapped`` if in the other byte order than
    this machine's, compressed by ``codec`` if there is one, and a crc32c after all if ``summed``."""

    axes: Index
    swapped: bool
    summed: bool
    codec: Zstd | Blosc | None

    @property
    def compressor(self) -> str | None:
        """The kind of the codec, in a word."""
        return None if self.codec is None else "zstd" if isinstance(self.codec, Zstd) else "blosc"


class ChunkCodec:
    """The codecs of one array. Immutable and thread-safe; see the module for what decoding promises."""

    def __init__(self, chain: Chain, fill_value: np.generic) -> None:
        self._chain = chain
        self.shape = chain.shape
        """Shape of a full chunk: of what one key holds."""
        self.dtype = chain.dtype
        self.fill_value = fill_value
        self.nbytes = prod(chain.shape) * chain.dtype.itemsize
        sharding = chain.to_bytes if isinstance(chain.to_bytes, Sharding) else None
        self._shard = sharding if sharding is not None and not chain.after and chain.straight else None

    @classmethod
    def of(cls, meta: ArrayMeta) -> ChunkCodec:
        """The codecs that ``meta`` lists. Unsupported, naming the first that volfs does not run."""
        chain = _build(meta.codecs, meta.chunk_shape, meta.dtype, meta.fill_value, 0)
        codec = cls(chain, meta.fill_value)
        largest = codec.nbytes
        if codec._shard is not None:
            largest = prod(codec._shard.inner.shape) * meta.dtype.itemsize
        if largest > MAX_DECODED:
            raise Unsupported(f"chunks of {largest} bytes are too large: volfs decodes up to {MAX_DECODED}")
        return codec

    @property
    def stored_form(self) -> StoredForm | None:
        """How chunks are stored, if that is said in few words; None for other chains."""
        chain, after = self._chain, list(self._chain.after)
        if not isinstance(chain.to_bytes, Bytes):
            return None
        summed = bool(after) and isinstance(after[-1], Crc32c)
        if summed:
            after.pop()
        codec = after[0] if after else None
        if len(after) > 1 or not isinstance(codec, Zstd | Blosc | None):
            return None
        return StoredForm(chain.order, not chain.to_bytes.stored.isnative, summed, codec)

    @property
    def sharded(self) -> bool:
        """Whether payloads can be read by inner chunk, through :meth:`open_shard`."""
        return self._shard is not None

    def decode(self, payload: Buffer, out: Array | None = None) -> Array:
        """The voxels of a full chunk, native byte order.

        Into ``out`` (same shape and dtype, any strides) if given; after an error its content is undefined. Without
        ``out`` the result may be read-only memory, shared with ``payload``. Damaged if the payload is not exactly one
        well-formed chunk.
        """
        if self.nbytes > MAX_DECODED:
            raise Unsupported(f"a shard of {self.nbytes} bytes can only be read by inner chunk")
        return self._chain.decode(payload, out)

    def encode(self, array: Array) -> bytes:
        """The payload of a full chunk (pad at the array's edge with the fill value)."""
        return self._chain.encode(array)

    def is_fill(self, array: Array) -> bool:
        """Whether every voxel has the very bits of the fill value, so that the chunk need not be stored."""
        return equals_fill(array, self.fill_value)

    def filled(self) -> Array:
        """A chunk that is not stored: all fill value."""
        return np.full(self.shape, self.fill_value, self.dtype)

    def open_shard(self, read: ReadRange, length: int) -> ShardReader:
        """Read a stored shard of ``length`` bytes by inner chunk, fetching only the index and the chunks asked for.

        Only where :attr:`sharded`. Damaged if the index is not whole.
        """
        if self._shard is None:
            raise Unsupported("these chunks are not shards")
        return ShardReader(self._shard, read, length)

    def check(self, read: ReadRange, length: int) -> None:
        """Prove that a stored payload decodes, shards one inner chunk at a time. Damaged if not."""
        if self._shard is None:
            self.decode(read(0, length))
            return
        shard = self.open_shard(read, length)
        for coords in np.ndindex(shard.grid.grid_shape):
            if shard.stored_range(coords) is not None:
                shard.decode(coords)


def _build(codecs: tuple[Json, ...], shape: Index, dtype: np.dtype[Any], fill: np.generic, depth: int) -> Chain:
    transposes: list[Index] = []
    to_bytes: ArrayToBytes | None = None
    after: list[BytesCodec] = []
    full_shape = shape
    for codec in codecs:
        name, config = _named(codec)
        if to_bytes is not None:
            after.append(_bytes_codec(name, config, dtype, prod(shape) * dtype.itemsize))
        elif name == "transpose":
            order = _transpose(config, len(shape))
            transposes.append(order)
            shape = tuple(shape[axis] for axis in order)
        elif name == "bytes":
            to_bytes = Bytes(shape, dtype, _stored_dtype(config, dtype))
        elif name == "sharding_indexed":
            to_bytes = _sharding(config, shape, dtype, fill, depth)
        else:
            raise Unsupported(f"codec {name!r} is not known to volfs")
    if to_bytes is None:
        raise Unsupported("the codecs turn no array into bytes")
    return Chain(full_shape, dtype, transposes, to_bytes, after)


def _sharding(config: Json, shape: Index, dtype: np.dtype[Any], fill: np.generic, depth: int) -> Sharding:
    if depth >= _MAX_NESTING:
        raise Unsupported("shards nested too deep")
    inner_shape = config.get("chunk_shape")
    if (
        not isinstance(inner_shape, list)
        or len(inner_shape) != len(shape)
        or not all(isinstance(c, int) and c > 0 and n % c == 0 for n, c in zip(shape, inner_shape, strict=True))
    ):
        raise Unsupported(f"sharding_indexed: chunk_shape {inner_shape!r} does not divide {list(shape)}")
    inner = _build(_list(config, "codecs"), tuple(inner_shape), dtype, fill, depth + 1)
    cells = tuple(n // c for n, c in zip(shape, inner_shape, strict=True))
    u64 = np.dtype(np.uint64)
    index = _build(_list(config, "index_codecs"), (*cells, 2), u64, np.uint64(0), _MAX_NESTING)
    if index.fixed is None:
        raise Unsupported("sharding_indexed: the index has no fixed size under these codecs")
    location = config.get("index_location", "end")
    if location not in ("start", "end"):
        raise Unsupported(f"sharding_indexed: index_location {location!r} is not known to volfs")
    return Sharding(shape, dtype, fill, inner, index, location)


def _bytes_codec(name: str, config: Json, dtype: np.dtype[Any], size: int) -> BytesCodec:
    if name == "zstd":
        return Zstd(_int(name, config, "level", -131072, 22, 0), _bool(name, config, "checksum", False))
    if name == "gzip":
        return Gzip(_int(name, config, "level", 0, 9, 5))
    if name == "crc32c":
        return Crc32c()
    if name == "blosc":
        if size > BLOSC_MAX_BYTES:
            raise Unsupported("blosc: chunks of 2 GiB and more are impossible")
        cname, shuffle = config.get("cname", "zstd"), config.get("shuffle", "noshuffle")
        if cname not in _CNAMES or shuffle not in _SHUFFLES:
            raise Unsupported(f"blosc: cname {cname!r} with shuffle {shuffle!r} is not known to volfs")
        return Blosc(
            cname,
            _int(name, config, "clevel", 0, 9, 5),
            _SHUFFLES[shuffle],
            _int(name, config, "typesize", 1, 255, dtype.itemsize),
            _int(name, config, "blocksize", 0, BLOSC_MAX_BYTES, 0),
        )
    raise Unsupported(f"codec {name!r} is not known to volfs")


def _transpose(config: Json, ndim: int) -> Index:
    order = config.get("order")
    if not isinstance(order, list) or not all(isinstance(i, int) for i in order) or sorted(order) != list(range(ndim)):
        raise Unsupported(f"transpose: order {order!r} is no permutation of {ndim} axes")
    return tuple(order)


def _stored_dtype(config: Json, dtype: np.dtype[Any]) -> np.dtype[Any]:
    endian = config.get("endian")
    if endian not in ("little", "big") and (endian is not None or dtype.itemsize > 1):
        raise Unsupported(f"bytes: endian {endian!r} is neither 'little' nor 'big'")
    return dtype.newbyteorder(">" if endian == "big" else "<")


def _named(codec: Json) -> tuple[str, Json]:
    return codec["name"], codec["configuration"]


def _list(config: Json, key: str) -> tuple[Json, ...]:
    value = config.get(key)
    if not isinstance(value, list) or not value:
        raise Unsupported(f"sharding_indexed: {key} must be a list of codecs")
    return tuple(_normal(item) for item in value)


def _normal(item: object) -> Json:
    if isinstance(item, str):
        return {"name": item, "configuration": {}}
    if isinstance(item, dict) and isinstance(item.get("name"), str):
        config = item.get("configuration", {})
        if isinstance(config, dict):
            return {"name": item["name"], "configuration": config}
    raise Unsupported(f"{item!r} is no codec")


def _int(name: str, config: Json, key: str, low: int, high: int, default: int) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Unsupported(f"{name}: {key} {value!r} is not between {low} and {high}")
    return value


def _bool(name: str, config: Json, key: str, default: bool) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise Unsupported(f"{name}: {key} {value!r} is neither true nor false")
    return value
