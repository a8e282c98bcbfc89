"""Zarr v3 node metadata: from the bytes of a ``zarr.json`` to what the rest of volfs needs, and back.

Decided here: which documents are valid, which are valid but not interpreted (Unsupported: their keys stay opaque
bytes), and how chunk coordinates become keys. Fill values that can be written in more than one way are read by
zarr-python itself, so that volfs and its clients agree to the bit. Not here: whether the codecs can be run
(:mod:`volfs.storage.codec`) and what groups mean as images (:mod:`volfs.model.ngff`). Follows the Zarr core
specification, version 3.1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import numpy as np

from volfs.errors import BadMetadata, Unsupported
from volfs.model.box import Index
from volfs.model.grid import ChunkGrid

Json = dict[str, Any]

MAX_NDIM = 6
"""Arrays of more axes (or none) are kept as opaque keys."""
MAX_COORD = 2**32 - 1
"""Chunk coordinates are stored as u32."""

_INTEGERS = frozenset(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))
_DTYPES = _INTEGERS | {"bool", "float16", "float32", "float64", "complex64", "complex128"}
_NODE_FIELDS = frozenset(("zarr_format", "node_type", "attributes", "consolidated_metadata"))
_ARRAY_FIELDS = _NODE_FIELDS | {
    "shape",
    "data_type",
    "chunk_grid",
    "chunk_key_encoding",
    "fill_value",
    "codecs",
    "storage_transformers",
    "dimension_names",
}


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """The client's own sharding, where ``sharding_indexed`` is the array's only codec."""

    chunk_shape: Index
    codecs: tuple[Json, ...]
    index_codecs: tuple[Json, ...]
    index_location: Literal["start", "end"]


@dataclass(frozen=True, slots=True, eq=False)
class ArrayMeta:
    """An array that volfs can show. ``dtype`` is in native byte order; the order of stored bytes is the codecs' matter.

    ``chunk_shape`` is the shape that one *key* holds: where the client shards, the shard. Compared by identity; ask
    :meth:`same_storage` for what matters.
    """

    shape: Index
    dtype: np.dtype[Any]
    chunk_shape: Index
    fill_value: np.generic
    codecs: tuple[Json, ...]
    key_encoding: tuple[Literal["default", "v2"], Literal["/", "."]] = ("default", "/")
    dimension_names: tuple[str | None, ...] | None = None
    attributes: Json = field(default_factory=dict)
    sharding: ShardSpec | None = None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def grid(self) -> ChunkGrid:
        return ChunkGrid(self.shape, self.chunk_shape)

    @property
    def chunk_nbytes(self) -> int:
        """Bytes of one decoded chunk."""
        return prod(self.chunk_shape) * self.dtype.itemsize

    def chunk_key(self, coords: Sequence[int]) -> str:
        """The key of a chunk, relative to the array: "c/0/1/2"."""
        kind, separator = self.key_encoding
        text = separator.join(map(str, coords))
        return f"c{separator}{text}" if kind == "default" else text

    def parse_chunk_key(self, rel: str) -> Index | None:
        """The coordinates that a relative key stands for, inside the grid or not; None if it is no chunk key.

        Only the one spelling that :meth:`chunk_key` gives is a chunk's: "c/00/1" is some other file.
        """
        kind, separator = self.key_encoding
        if kind == "default":
            if not rel.startswith(f"c{separator}"):
                return None
            rel = rel[2:]
        parts = rel.split(separator)
        if len(parts) != len(self.shape):
            return None
        coords = []
        for part in parts:
            if not (part.isascii() and part.isdigit()) or len(part) > 10 or (part[0] == "0" and part != "0"):
                return None
            coords.append(int(part))
        return tuple(coords) if max(coords) <= MAX_COORD else None

    def same_storage(self, other: ArrayMeta) -> bool:
        """Whether chunks written under one read the same under the other. The fill value is no part of a chunk."""
        return (
            self.dtype == other.dtype
            and self.chunk_shape == other.chunk_shape
            and self.codecs == other.codecs
            and self.key_encoding == other.key_encoding
        )


@dataclass(frozen=True, slots=True)
class GroupMeta:
    """A group: nothing but its attributes."""

    attributes: Json = field(default_factory=dict)


def parse_node(raw: bytes) -> ArrayMeta | GroupMeta:
    """Read a ``zarr.json``. BadMetadata if it breaks the specification, Unsupported if volfs does not interpret it."""
    try:
        doc = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadMetadata(f"zarr.json is not valid JSON: {error}") from None
    if not isinstance(doc, dict):
        raise BadMetadata("zarr.json is not a JSON object")
    if doc.get("zarr_format") != 3 or isinstance(doc.get("zarr_format"), bool):
        raise BadMetadata(f"zarr_format must be 3, not {_short(doc.get('zarr_format'))}")
    kind = doc.get("node_type")
    if kind not in ("array", "group"):
        raise BadMetadata(f"node_type must be 'array' or 'group', not {_short(kind)}")
    attributes = doc.get("attributes", {})
    if not isinstance(attributes, dict):
        raise BadMetadata("attributes must be an object")
    _check_extra(doc, _ARRAY_FIELDS if kind == "array" else _NODE_FIELDS)
    return _parse_array(doc, attributes) if kind == "array" else GroupMeta(attributes)


def array_zarr_json(
    shape: Sequence[int],
    dtype: np.dtype[Any] | type | str,
    chunk_shape: Sequence[int],
    *,
    codecs: Sequence[Json] | None = None,
    fill_value: Any = 0,
    dimension_names: Sequence[str | None] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> bytes:
    """The ``zarr.json`` of a new array, keys in the default encoding ("c/0/1").

    ``codecs`` None means :func:`default_codecs`. The same arguments always give the same bytes. BadMetadata if the
    arguments do not make an array, Unsupported for a dtype outside Zarr's core list.
    """
    native = np.dtype(dtype)
    if native.name not in _DTYPES:
        raise Unsupported(f"data type {native.name!r} is not one that volfs interprets")
    doc: Json = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [int(n) for n in shape],
        "data_type": native.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [int(n) for n in chunk_shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _fill_json(fill_value, native),
        "codecs": list(default_codecs(native) if codecs is None else codecs),
        "attributes": dict(attributes or {}),
    }
    if dimension_names is not None:
        doc["dimension_names"] = list(dimension_names)
    raw = json.dumps(doc, indent=2).encode()
    parse_node(raw)
    return raw


def group_zarr_json(attributes: Mapping[str, Any] | None = None) -> bytes:
    """The ``zarr.json`` of a group."""
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}, indent=2).encode()


def default_codecs(dtype: np.dtype[Any]) -> tuple[Json, ...]:
    """The codecs that volfs writes: little-endian bytes, zstd with a content checksum. Such payloads are valid Zarr v2
    chunks."""
    as_bytes: Json = {"name": "bytes"}
    if dtype.itemsize > 1:
        as_bytes["configuration"] = {"endian": "little"}
    return (as_bytes, {"name": "zstd", "configuration": {"level": 3, "checksum": True}})


def _parse_array(doc: Json, attributes: Json) -> ArrayMeta:
    shape = _extents(doc.get("shape"), "shape")
    if not 1 <= len(shape) <= MAX_NDIM:
        raise Unsupported(f"arrays of {len(shape)} axes have no views: volfs shows 1 to {MAX_NDIM}")
    if doc.get("storage_transformers"):
        raise Unsupported("storage transformers are not known to volfs")
    grid, grid_config = _extension(doc.get("chunk_grid"), "chunk_grid")
    if grid != "regular":
        raise Unsupported(f"chunk grid {grid!r} is not known to volfs")
    chunk_shape = _extents(grid_config.get("chunk_shape"), "chunk_shape")
    if len(chunk_shape) != len(shape):
        raise BadMetadata(f"chunk_shape has {len(chunk_shape)} axes, shape {len(shape)}")
    if 0 in chunk_shape:
        raise Unsupported("chunks of no voxels are not known to volfs")
    if any(-(-n // c) > MAX_COORD for n, c in zip(shape, chunk_shape, strict=True)):
        raise Unsupported("more than 2**32 chunks along one axis")
    dtype, fill_value = _dtype_and_fill(doc)
    codecs = _codec_list(doc.get("codecs"), "codecs")
    names = doc.get("dimension_names")
    if names is not None:
        if not isinstance(names, list) or not all(n is None or isinstance(n, str) for n in names):
            raise BadMetadata("dimension_names must be a list of names or null")
        if len(names) != len(shape):
            raise BadMetadata(f"dimension_names has {len(names)} entries, shape {len(shape)}")
    return ArrayMeta(
        shape=shape,
        dtype=dtype,
        chunk_shape=chunk_shape,
        fill_value=fill_value,
        codecs=codecs,
        key_encoding=_key_encoding(doc.get("chunk_key_encoding")),
        dimension_names=None if names is None else tuple(names),
        attributes=attributes,
        sharding=_sharding(codecs),
    )


def _check_extra(doc: Json, known: frozenset[str]) -> None:
    """Spec 3.1, "extension points": an unknown field makes the node unreadable unless it says must_understand false."""
    for name in doc.keys() - known:
        value = doc[name]
        if not (isinstance(value, dict) and value.get("must_understand") is False):
            raise Unsupported(f"metadata field {_short(name)} is not known to volfs and must be understood")


def _extents(value: object, name: str) -> Index:
    if not isinstance(value, list):
        raise BadMetadata(f"{name} must be a list of integers")
    for n in value:
        if not isinstance(n, int) or isinstance(n, bool) or not 0 <= n < 2**63:
            raise BadMetadata(f"{name} must hold non-negative integers, not {_short(n)}")
    return tuple(value)


def _extension(value: object, where: str) -> tuple[str, Json]:
    """An extension object, or the plain name that stands for one without configuration."""
    if isinstance(value, str):
        return value, {}
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise BadMetadata(f"{where} must have a name")
    config = value.get("configuration", {})
    if not isinstance(config, dict):
        raise BadMetadata(f"{where}: configuration must be an object")
    return value["name"], config


def _codec_list(value: object, where: str) -> tuple[Json, ...]:
    """Codecs in one spelling, so that equal chains compare equal."""
    if not isinstance(value, list) or not value:
        raise BadMetadata(f"{where} must be a list of at least one codec")
    pairs = [_extension(item, f"{where}[{i}]") for i, item in enumerate(value)]
    return tuple({"name": name, "configuration": config} for name, config in pairs)


def _key_encoding(value: object) -> tuple[Literal["default", "v2"], Literal["/", "."]]:
    name, config = _extension(value, "chunk_key_encoding")
    separator = config.get("separator", "." if name == "v2" else "/")
    if name not in ("default", "v2"):
        raise Unsupported(f"chunk key encoding {name!r} is not known to volfs")
    if separator not in ("/", "."):
        raise BadMetadata(f"chunk key separator must be '/' or '.', not {_short(separator)}")
    return ("default" if name == "default" else "v2"), ("/" if separator == "/" else ".")


def _sharding(codecs: tuple[Json, ...]) -> ShardSpec | None:
    if len(codecs) != 1 or codecs[0]["name"] != "sharding_indexed":
        return None
    config = codecs[0]["configuration"]
    location = config.get("index_location", "end")
    if location not in ("start", "end"):
        raise BadMetadata(f"index_location must be 'start' or 'end', not {_short(location)}")
    return ShardSpec(
        _extents(config.get("chunk_shape"), "sharding_indexed chunk_shape"),
        _codec_list(config.get("codecs"), "sharding_indexed codecs"),
        _codec_list(config.get("index_codecs"), "sharding_indexed index_codecs"),
        "start" if location == "start" else "end",
    )


def _dtype_and_fill(doc: Json) -> tuple[np.dtype[Any], np.generic]:
    name, config = _extension(doc.get("data_type"), "data_type")
    if name not in _DTYPES or config:
        raise Unsupported(f"data type {_short(name)} is not one that volfs interprets")
    if "fill_value" not in doc:
        raise BadMetadata("fill_value is missing")
    fill, dtype = doc["fill_value"], np.dtype(name)
    if _is_plain(fill, dtype):
        return dtype, dtype.type(fill)
    if name == "bool" and fill not in (True, False):  # zarr-python takes any object's truth
        raise BadMetadata(f"fill_value {_short(fill)} is no bool")
    # Imported late: zarr takes half a second to import, and 30 MB, which almost nobody's arrays need.
    from zarr.dtype import parse_dtype

    try:
        with np.errstate(all="ignore"):
            scalar = parse_dtype(name, zarr_format=3).from_json_scalar(fill, zarr_format=3)
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        raise BadMetadata(f"fill_value {_short(fill)} is no {name}") from None
    return dtype, dtype.type(scalar)


def _is_plain(fill: object, dtype: np.dtype[Any]) -> bool:
    """Whether there is only one way to read a fill value: integers that the dtype holds, and zero."""
    if dtype.kind in "iu":
        return type(fill) is int and np.iinfo(dtype).min <= fill <= np.iinfo(dtype).max
    if dtype.kind == "f":
        return type(fill) in (int, float) and fill == 0
    return dtype.kind == "b" and type(fill) is bool


def _fill_json(value: Any, dtype: np.dtype[Any]) -> Any:
    """A fill value in JSON that gives back the same bits (NaNs other than the usual one as hex, spec "fill_value")."""
    try:
        with np.errstate(all="ignore"):
            scalar = dtype.type(value)
    except (ValueError, TypeError, OverflowError):
        raise BadMetadata(f"fill value {_short(value)} is no {dtype.name}") from None
    if dtype.kind in "biu" and scalar != value:
        raise BadMetadata(f"fill value {_short(value)} is no {dtype.name}")
    if dtype.kind == "c":
        part = np.dtype(f"f{dtype.itemsize // 2}")
        return [_float_json(scalar.real.astype(part)), _float_json(scalar.imag.astype(part))]
    return _float_json(scalar) if dtype.kind == "f" else scalar.item()


def _float_json(value: Any) -> float | str:
    if np.isnan(value):
        bits = np.asarray(value).astype(value.dtype.newbyteorder(">")).tobytes()
        usual = np.asarray(np.nan, value.dtype.newbyteorder(">")).tobytes()
        return "NaN" if bits == usual else f"0x{bits.hex()}"
    if np.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
