"""A hierarchy as Zarr v2, its images as OME-Zarr 0.4.

Follows the Zarr storage specification, version 2, with ``/`` between chunk indices, and OME-NGFF 0.4. Chunks are the
*blocks* of the stored array: where the client shards, the inner chunks. A chunk that is not stored is absent.

Chunks are passed through where v2 can say how they are encoded: bytes of either order, uncompressed or through one of
zstd, blosc and gzip, with the axes in C order or in the very reverse ("F"). All others are uncompressed, of full size
at the edge too, where fill value fills them up. Arrays whose codecs are not known are absent, as is ``.zmetadata``,
which would take a walk through the whole hierarchy for every look at its size.

Metadata: ``attributes.ome`` of version 0.5 becomes what 0.4 has in ``.zattrs``; other attributes are kept. Names of
dimensions, which v2 lacks, are told as xarray does it (``_ARRAY_DIMENSIONS``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.model.box import Box, Index
from volfs.model.grid import ChunkGrid
from volfs.model.metadata import ArrayMeta
from volfs.views.decompressors import decompress
from volfs.views.folder import ArrayView, Fixed, Folder, NodeView, ViewFile, nested
from volfs.views.layout import Layout, Padded, Payload, Voxels

Json = dict[str, Any]

_METADATA = (".zgroup", ".zarray", ".zattrs", ".zmetadata")
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_DIMENSIONS = "_ARRAY_DIMENSIONS"


def folder(node: NodeView) -> Folder | None:
    """A group or an array; None if it is an array that cannot be read."""
    array = node.array
    if array is not None:
        return _array(node, array) if array.readable else None
    children = {name: child for name in node.children() if (child := node.child(name)) is not None}
    entries = [
        Fixed(name, partial(folder, child))
        for name, child in children.items()
        if name not in _METADATA and (child.array is None or child.array.readable)
    ]
    metadata = _documents(node, {".zgroup": {"zarr_format": 2}, ".zattrs": attributes(node.attributes)})
    return Folder([*entries, *metadata], mtime=node.mtime)


def _array(node: NodeView, array: ArrayView) -> Folder:
    encoding = Encoding.of(array)
    chunks = _Chunks(array, encoding)
    found = attributes(node.attributes)
    names = array.meta.dimension_names
    if names is not None and None not in names:
        found.setdefault(_DIMENSIONS, list(names))
    documents = _documents(node, {".zarray": _zarray(array, encoding), ".zattrs": found})
    grid = ChunkGrid(array.meta.shape, array.block_shape).grid_shape
    nests = nested(grid, chunks.make, array.stored_along, node.mtime, blank=chunks.blank)
    return Folder(documents, nests.run, node.mtime)


def _documents(node: NodeView, found: Mapping[str, Json]) -> list[Fixed]:
    def document(content: Json) -> ViewFile:
        return ViewFile.literal(json.dumps(content, indent=2).encode(), node.mtime)

    return [Fixed(name, partial(document, content), 1 + _METADATA.index(name)) for name, content in found.items()]


# -------------------------------------------------------------------------------------------------------- metadata


def attributes(found: Mapping[str, Any]) -> Json:
    """Attributes of a group or array of Zarr v3 as those of v2: OME-Zarr 0.5 becomes 0.4.

    In 0.4 the blocks stand in the attributes themselves, each with the version; nothing else has changed between them.
    """
    ome = found.get("ome")
    if not isinstance(ome, Mapping) or str(ome.get("version", "0.5"))[:3] not in ("0.4", "0.5"):
        return dict(found)
    converted: Json = {key: value for key, value in found.items() if key != "ome"}
    for key, value in ome.items():
        if key == "version":
            continue
        if key == "multiscales" and isinstance(value, list):
            value = [_versioned(block) for block in value]
        elif key in ("omero", "image-label", "plate", "well"):
            value = _versioned(value)
        converted[key] = value
    return converted


def _versioned(block: Any) -> Any:
    return {**block, "version": "0.4"} if isinstance(block, Mapping) else block


def _zarray(array: ArrayView, encoding: Encoding) -> Json:
    return {
        "zarr_format": 2,
        "shape": list(array.meta.shape),
        "chunks": list(array.block_shape),
        "dtype": encoding.dtype.str,
        "compressor": encoding.compressor,
        "fill_value": _fill_value(array.meta),
        "order": encoding.order,
        "filters": None,
        "dimension_separator": "/",
    }


def _fill_value(meta: ArrayMeta) -> Any:
    value = meta.fill_value
    if meta.dtype.kind == "c":
        return [_number(float(value.real)), _number(float(value.imag))]
    return _number(float(value)) if meta.dtype.kind == "f" else value.item()


def _number(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")


# ---------------------------------------------------------------------------------------------------------- chunks


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the chunks of an array are encoded, as v2 says it. ``passed`` are those stored like that already."""

    dtype: np.dtype[Any]
    order: str = "C"
    compressor: Json | None = None
    passed: bool = False

    @classmethod
    def of(cls, array: ArrayView) -> Encoding:
        """As stored where v2 has the words for it, else plain."""
        dtype = array.dtype
        axes = list(range(array.meta.ndim))
        codecs = list(array.block_codecs)
        while codecs and codecs[0]["name"] == "transpose":
            axes = [axes[axis] for axis in _configuration(codecs.pop(0))["order"]]
        order = {tuple(range(len(axes))): "C", tuple(reversed(range(len(axes)))): "F"}.get(tuple(axes))
        plain = cls(dtype.newbyteorder("<"))
        if order is None or not 1 <= len(codecs) <= 2 or codecs[0]["name"] != "bytes":
            return plain
        compressor = _compressor(codecs[1]) if len(codecs) == 2 else None
        if len(codecs) == 2 and compressor is None:
            return plain
        big = _configuration(codecs[0]).get("endian") == "big"
        return cls(dtype.newbyteorder(">" if big else "<"), order, compressor, passed=True)


def _compressor(codec: Mapping[str, Any]) -> Json | None:
    """The configuration that numcodecs gives the same codec; None if it has no such."""
    config = _configuration(codec)
    if codec["name"] == "zstd":  # whether there is a checksum, every frame says itself
        return {"id": "zstd", "level": config.get("level", 0)}
    if codec["name"] == "gzip":
        return {"id": "gzip", "level": config.get("level", 5)}
    if codec["name"] == "blosc":
        return {
            "id": "blosc",
            "cname": config.get("cname", "zstd"),
            "clevel": config.get("clevel", 5),
            "shuffle": _SHUFFLES[config.get("shuffle", "noshuffle")],
            "blocksize": config.get("blocksize", 0),
        }
    return None


def _configuration(codec: Mapping[str, Any]) -> Mapping[str, Any]:
    return codec.get("configuration") or {}


@dataclass(frozen=True, slots=True)
class _Chunks:
    """The chunk files of one array."""

    array: ArrayView
    encoding: Encoding

    def make(self, at: Index) -> ViewFile | None:
        size = self.array.block_size(at)
        if size is None:
            return None
        return self._file(at, Layout(Payload(at, size))) if self.encoding.passed else self.blank(at)

    def blank(self, at: Index) -> ViewFile:
        box, shape = self._box(at), self.array.block_shape
        voxels = Voxels(box, tuple(range(box.ndim)), self.encoding.dtype)
        whole = voxels if box.shape == shape else Padded(voxels, shape, self.array.meta.fill_value)
        return self._file(at, Layout(whole))

    def _box(self, at: Index) -> Box:
        return ChunkGrid(self.array.meta.shape, self.array.block_shape).chunk_box(at)

    def _file(self, at: Index, layout: Layout) -> ViewFile:
        return ViewFile(layout, self.array, self._box(at), decode=partial(self._decode, self._box(at)))

    def _decode(self, box: Box, data: memoryview) -> np.ndarray:
        """The voxels of a chunk from the whole bytes of its file. Voxels beyond the edge are ignored."""
        shape, stored = self.array.block_shape, self.encoding.dtype
        compressor = self.encoding.compressor
        raw = decompress(None if compressor is None else compressor["id"], data, math.prod(shape) * stored.itemsize)
        if stored.kind == "b" and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
            raise BadInput("the voxels of a bool image are 0 or 1")
        chunk = np.frombuffer(raw, stored).reshape(shape, order="F" if self.encoding.order == "F" else "C")
        return chunk[Box.whole(box.shape).slices()].astype(self.array.dtype)
