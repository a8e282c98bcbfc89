"""N5 in the dialect of BigDataViewer: ``setupS/timepointT/sL/x/y/z``.

N5 is specified in https://github.com/saalfeldlab/n5 (file-system specification, version 2), the dialect in
bigdataviewer-core's "BDV N5 format.md". A setup is one index along all axes besides t, z, y, x, counted in C order; how
setups are called, and where they lie, is said by :mod:`volfs.views.folders.bdv`.

Blocks are those of the stored array. They are ``raw``: big-endian voxels, x fastest, clipped at the edge of the volume
as Java writes them. Where the stored bytes are what N5 keeps under a compression of its own, they are passed through:
gzip, which every reader has; and with ``zstd``, zstandard, which core N5 does not know. Such blocks are whole at the
edge too, which readers accept. That is so for voxels of one byte, or stored big-endian, in arrays whose last axes are
z, y, x and whose blocks do not cross setups or timepoints. A block that is not stored is absent where the fill value is
zero (N5 has no other); otherwise it is there, and full of it.

``downsamplingFactors`` are ratios of voxel sizes. BigDataViewer takes for granted that the first voxel of every level
begins where that of s0 does; translations of coarser levels are not told.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import zstandard

from volfs.errors import BadInput
from volfs.model.box import Box, Index
from volfs.model.units import METRES
from volfs.views.folder import ArrayView, Fixed, Folder, ImageView, LevelView, Numbers, ViewFile, listed, nested
from volfs.views.folders.spatial import (
    Space,
    Volume,
    other_axes,
    plain,
    shown_levels,
    stored_positions,
    time_axis,
    volume_of,
)
from volfs.views.layout import Layout, Literal, Payload, Voxels
from volfs.views.plane import Incomplete

VERSION = "2.0.0"
"""The version of the format. Readers refuse one whose first number is newer than theirs."""

_LARGEST_BLOCK = 2**31 - 1
"""Voxels of a block: Java's arrays, of which the format was made, hold no more."""
_SHORT = {1e-12: "pm", 1e-9: "nm", 1e-6: "µm", 1e-3: "mm", 1e-2: "cm", 1.0: "m", 1e3: "km"}


def data_type(dtype: np.dtype[Any]) -> str | None:
    """The name of a data type in N5; None if it has no such type. Bool is 0 and 1."""
    if dtype.kind == "b":
        return "uint8"
    known = (dtype.kind in "ui" and dtype.itemsize <= 8) or (dtype.kind == "f" and dtype.itemsize in (4, 8))
    return dtype.name if known else None


def setups(image: ImageView) -> Index:
    """How many indices there are along each axis besides t, z, y, x: setups are counted over them in C order."""
    return tuple(image.levels[0].shape[axis] for axis in other_axes(image))


def timepoints(image: ImageView) -> int:
    axis = time_axis(image)
    return 1 if axis is None else image.levels[0].shape[axis]


def unit_name(unit: str | None) -> str | None:
    """The unit as BigDataViewer's scale bar and most others write it: "µm"."""
    return None if unit is None else _SHORT.get(METRES.get(unit, 0.0), unit)


def folder(image: ImageView, *, zstd: bool = False) -> Folder | None:
    """The container; None if N5 has no such voxels. With ``zstd``, zstandard blocks are passed through: None if there
    are none that can be."""
    levels = held_levels(image, zstd=zstd)
    return _Container(image, levels, zstd).root() if levels else None


def held_levels(image: ImageView, *, zstd: bool = False) -> tuple[LevelView, ...]:
    """The levels that are shown, s0 first; none if there is no container."""
    levels = shown_levels(image)
    if not levels or data_type(levels[0].array.dtype) is None:
        return ()
    fits = [math.prod(volume_of(image, level.array, {}).block_shape) <= _LARGEST_BLOCK for level in levels]
    found = tuple(level for level, holds in zip(levels, fits, strict=True) if holds) if fits[0] else ()
    helps = not zstd or any(_passed(level.array, image, zstd=True) == "zstd" for level in found)
    return found if helps else ()


def volume(image: ImageView, level: LevelView, setup: int, timepoint: int) -> Volume:
    """The volume of one setup at one timepoint."""
    indices = np.unravel_index(setup, setups(image)) if setups(image) else ()
    fixed = dict(zip(other_axes(image), map(int, indices), strict=True))
    if (time := time_axis(image)) is not None:
        fixed[time] = timepoint
    return volume_of(image, level.array, fixed)


class _Container:
    def __init__(self, image: ImageView, levels: tuple[LevelView, ...], zstd: bool) -> None:
        self._image = image
        self._levels = levels
        self._space = Space.of(image, levels)
        self._type = data_type(levels[0].array.dtype)
        self._compressions = [_passed(level.array, image, zstd=zstd) for level in levels]

    def root(self) -> Folder:
        grid = setups(self._image)
        stored = stored_positions(self._levels[0].array, other_axes(self._image), {})
        there = partial(listed, grid, stored=stored)
        return self._folder({"n5": VERSION}, Numbers(math.prod(grid), self._setup, there, "setup", folders=True))

    def _setup(self, setup: int) -> Folder:
        axis, count = time_axis(self._image), timepoints(self._image)
        stored = stored_positions(self._levels[0].array, () if axis is None else (axis,), {})
        there = None if axis is None else partial(listed, (count,), stored=stored)
        times = Numbers(count, partial(self._timepoint, setup), there, "timepoint", folders=True)
        factors = [self._factors(number) for number in range(len(self._levels))]
        return self._folder({"downsamplingFactors": factors, "dataType": self._type}, times)

    def _timepoint(self, setup: int, timepoint: int) -> Folder:
        levels = Numbers(len(self._levels), partial(self._dataset, setup, timepoint), None, "s", folders=True)
        return self._folder({"multiScale": True, **self._resolution(0)}, levels)

    def _dataset(self, setup: int, timepoint: int, number: int) -> Folder:
        level, compression = self._levels[number], self._compressions[number]
        shown = volume(self._image, level, setup, timepoint)
        attributes = {
            "dimensions": shown.size,
            "blockSize": shown.block_shape,
            "dataType": self._type,
            "compression": _attribute(compression, level.array),
            "axes": ["x", "y", "z"],
            "downsamplingFactors": self._factors(number),
            **self._resolution(number),
        }
        files = _Blocks(shown, np.dtype(self._type), compression)
        run = nested(
            shown.grid, files.make, shown.stored_along, self._image.mtime, sparse=shown.sparse, blank=files.blank
        )
        return self._folder(attributes, run.run)

    def _folder(self, attributes: Mapping[str, Any], run: Any) -> Folder:
        text = json.dumps(attributes).encode()
        mtime = self._image.mtime
        return Folder([Fixed("attributes.json", lambda: ViewFile.literal(text, mtime), 1)], run, mtime)

    def _factors(self, number: int) -> list[int | float]:
        return [plain(factor) for factor in self._space.factors(number)]

    def _resolution(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = {"resolution": [plain(size) for size in self._space.sizes[number]]}
        if (unit := unit_name(self._space.unit)) is not None:
            found["units"] = [unit] * 3
        return found


# ---------------------------------------------------------------------------------------------------------- blocks


def _passed(array: ArrayView, image: ImageView, *, zstd: bool) -> str:
    """The compression of a dataset: "raw", or that whose payloads are stored as they would be in N5."""
    fixed = {n: 0 for n in range(len(image.axes)) if n not in (image.z, image.y, image.x)}
    shown = volume_of(image, array, fixed)
    codecs = array.block_codecs
    if len(codecs) != 2 or codecs[0]["name"] != "bytes" or not shown.sparse or shown.stored_as((0, 0, 0)) is None:
        return "raw"
    big = array.dtype.itemsize == 1 or (codecs[0].get("configuration") or {}).get("endian") == "big"
    name = str(codecs[1]["name"])
    return name if big and name in (("gzip", "zstd") if zstd else ("gzip",)) else "raw"


def _attribute(compression: str, array: ArrayView) -> dict[str, Any]:
    if compression == "raw":
        return {"type": "raw"}
    level = (array.block_codecs[1].get("configuration") or {}).get("level", 5)
    return {"type": compression, "level": level} | ({"useZlib": False} if compression == "gzip" else {})


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The block files of one dataset. ``dtype`` is that of its voxels."""

    volume: Volume
    dtype: np.dtype[Any]
    compression: str

    def make(self, at: Index) -> ViewFile | None:
        array = self.volume.array
        if self.compression == "raw":
            return None if self.volume.sparse and not self.volume.is_stored(at) else self.blank(at)
        block = self.volume.stored_as(at)
        size = None if block is None else array.block_size(block)
        if block is None or size is None:
            return None
        head = _header(self.volume.block_shape)
        return self._file(Layout(Literal(head), Payload(block, size)), self.volume.box(at))

    def blank(self, at: Index) -> ViewFile:
        box = self.volume.box(at)
        voxels = Voxels(box, self.volume.order, self.dtype.newbyteorder(">"))
        return self._file(Layout(Literal(_header(self._clipped(box))), voxels), box)

    def _file(self, layout: Layout, box: Box) -> ViewFile:
        return ViewFile(layout, self.volume.array, box, decode=partial(self._decode, box))

    def _clipped(self, box: Box) -> Index:
        return tuple(1 if axis is None else box.shape[axis] for axis in self.volume.space)

    def _decode(self, box: Box, data: memoryview) -> np.ndarray:
        """The voxels of a box from the bytes of a whole block file, which may reach beyond the edge of the volume."""
        clipped, whole = self._clipped(box), self.volume.block_shape
        sizes, start = _read_header(data)
        if len(sizes) != 3 or any(n not in (a, b) for n, a, b in zip(sizes, clipped, whole, strict=True)):
            expected = " or ".join(" x ".join(map(str, shape)) for shape in dict.fromkeys((clipped, whole)))
            raise BadInput(f"expected a block of {expected} voxels, got {' x '.join(map(str, sizes))}")
        length = math.prod(sizes) * self.dtype.itemsize
        raw = _unpack(self.compression, data[start:], length)
        found = np.frombuffer(raw, self.dtype.newbyteorder(">")).reshape(sizes[::-1])
        found = found[tuple(slice(0, n) for n in reversed(clipped))]
        if self.volume.array.dtype.kind == "b" and found.max(initial=0) > 1:
            raise BadInput("the voxels of a bool image are 0 or 1")
        return self.volume.voxels(found, box.shape).astype(self.volume.array.dtype)


def _header(sizes: Index) -> bytes:
    return struct.pack(">HH3I", 0, 3, *sizes)


def _read_header(data: memoryview) -> tuple[Index, int]:
    """The size of a block, x first, and where its voxels begin."""
    if len(data) < 4 or not any(data[:4]):
        raise Incomplete("the N5 block is not complete yet")
    mode, ndim = struct.unpack(">HH", data[:4])
    if mode != 0:
        raise BadInput(f"N5 blocks of mode {mode} are not taken: blocks have mode 0")
    if ndim != 3:
        raise BadInput(f"expected an N5 block of 3 dimensions, got {ndim}")
    if len(data) < 16:
        raise Incomplete("the N5 block ends early")
    return struct.unpack(">3I", data[4:16]), 16


def _unpack(compression: str, data: memoryview, length: int) -> bytes | memoryview:
    """``length`` bytes of voxels, never more in memory. Incomplete if the data end early."""
    if compression == "raw":
        raw: bytes | memoryview = data
        rest = b""
    elif compression == "gzip":
        inflate = zlib.decompressobj(31)
        try:
            raw = inflate.decompress(data, length + 1)
        except zlib.error as error:
            raise BadInput(f"the gzip stream of the block is damaged: {error}") from None
        if not inflate.eof and len(raw) <= length:
            raise Incomplete("the gzip stream of the block ends early")
        rest = inflate.unused_data
    else:
        raw, rest = _unzstd(data, length)
    if len(raw) < length and compression == "raw":
        raise Incomplete(f"the block ends early: it has {len(raw)} of {length} bytes")
    if len(raw) != length or rest:
        raise BadInput(f"expected {length} bytes of voxels in the block, got another number")
    return raw


def _unzstd(data: memoryview, length: int) -> tuple[bytes, bytes]:
    try:
        size = zstandard.frame_content_size(data)
        if size > length:
            raise BadInput(f"expected {length} bytes of voxels in the block, got {size}")
        if size < 0:  # not told
            reader = zstandard.ZstdDecompressor().stream_reader(data)
            if len(reader.read(length + 1)) > length:
                raise BadInput(f"expected {length} bytes of voxels in the block, got more")
        inflate = zstandard.ZstdDecompressor().decompressobj()
        raw = inflate.decompress(data)
    except zstandard.ZstdError as error:
        if len(data) < 18:  # the longest header of a frame
            raise Incomplete("the zstd frame of the block ends early") from None
        raise BadInput(f"the zstd frame of the block is damaged: {error}") from None
    if not inflate.eof:
        raise Incomplete("the zstd frame of the block ends early")
    return raw, inflate.unused_data
