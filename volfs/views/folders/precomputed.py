"""Neuroglancer's precomputed volumes, as
https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/volume.md has them: encoding raw, no
shards.

A volume has x, y, z and channels. All axes besides t, z, y, x, colour samples among them, become channels, in C order.
There is no time: an image of one timepoint is one volume; an image of more is a directory of volumes, one for each,
with the names that timepoints have everywhere: ``t0000/``, ``t0001/``, ….

Chunks are the blocks of the stored array, with all channels, channels slowest, little-endian, clipped at the edge of
the volume; their names count from ``voxel_offset``. Every chunk inside the bounds opens by its name: clients such as
cloud-volume take one that is missing for damage. Those of which nothing is stored are not listed where the fill value
is zero, so that copies of a sparse volume stay small.

``resolution`` is in nanometres; where the unit of an image is not known its numbers stand there as they are.
``voxel_offset`` says where a volume begins if that is a whole number of voxels on every level, else it is 0: it counts
from the corner of the voxel at the origin, as positions in OME-NGFF from its centre.

Label images of one channel are segmentations, whatever their integer type; where segments have names (OME-NGFF,
``image-label``, ``properties``), ``segment_properties/`` tells them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.model.box import Box, Index
from volfs.model.units import METRES
from volfs.views.folder import FILES_WHOLE, Fixed, Folder, ImageView, LevelView, Run, ViewFile, listed
from volfs.views.folders.spatial import (
    AxisFolders,
    Space,
    Volume,
    plain,
    scaled,
    shown_levels,
    stored_positions,
    time_axis,
    volume_of,
)
from volfs.views.layout import Layout, Voxels
from volfs.views.plane import Incomplete
from volfs.views.slices import OtherAxis

_NANOMETRE = 1e-9
_TYPES = frozenset(("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32"))
_NAMES = ("name", "label", "title", "class", "class_name", "cell_type", "type")
"""Where the name of a segment is looked for among its properties."""
_NUMBER = re.compile(r"(0|-?[1-9][0-9]{0,18})-(0|-?[1-9][0-9]{0,18})\Z")


def data_type(dtype: np.dtype[Any]) -> str | None:
    """The name of a data type in precomputed; None if it has no such type. Bool is 0 and 1."""
    name = "uint8" if dtype.kind == "b" else dtype.name
    return name if name in _TYPES else None


def folder(image: ImageView) -> Folder | None:
    """The volume, or the directory of volumes of all timepoints; None if there are no such voxels in precomputed."""
    levels = shown_levels(image)
    if not levels or data_type(levels[0].array.dtype) is None:
        return None
    time = time_axis(image)
    if time is None or levels[0].shape[time] == 1:
        return _volume(image, levels, {} if time is None else {time: 0})
    axis = OtherAxis(time, "t", levels[0].shape[time])
    stored = stored_positions(levels[0].array, [time], {})
    times = AxisFolders(axis, lambda index: _volume(image, levels, {time: index}), stored)
    return Folder(run=times, mtime=image.mtime)


def _volume(image: ImageView, levels: Sequence[LevelView], fixed: Mapping[int, int]) -> Folder:
    """One volume: its info, and a directory for each scale."""
    volumes = [volume_of(image, level.array, fixed) for level in levels]
    dtype = levels[0].array.dtype
    segmented = image.is_label and dtype.kind in "iub" and volumes[0].channels == 1
    names = _segment_names(image.attributes, dtype) if segmented else {}
    scales = _scales(Space.of(image, levels), volumes)
    kind = data_type(dtype)
    info: dict[str, Any] = {
        "@type": "neuroglancer_multiscale_volume",
        "type": "segmentation" if segmented else "image",
        "data_type": kind,
        "num_channels": volumes[0].channels,
        "scales": [scale.info for scale in scales],
    }
    stored = np.dtype(kind).newbyteorder("<")
    entries = [Fixed(scale.key, partial(_scale, scale, stored, image.mtime)) for scale in scales]
    if names:
        properties = _document("info", _properties(names), image.mtime)
        info["segment_properties"] = "segment_properties"
        entries.append(Fixed("segment_properties", lambda: Folder([properties], mtime=image.mtime)))
    return Folder([_document("info", info, image.mtime), *entries], mtime=image.mtime)


def _document(name: str, content: Mapping[str, Any], mtime: int) -> Fixed:
    data = json.dumps(content).encode()
    return Fixed(name, lambda: ViewFile.literal(data, mtime), 1)


# ---------------------------------------------------------------------------------------------------------- scales


@dataclass(frozen=True, slots=True)
class _Scale:
    """A level: its directory, where it lies in voxels of its own (x, y, z), and how large its chunks are."""

    key: str
    volume: Volume
    resolution: tuple[float, ...]
    offset: Index
    chunk: Index

    @property
    def info(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "size": self.volume.size,
            "resolution": [plain(n) for n in self.resolution],
            "voxel_offset": self.offset,
            "chunk_sizes": [self.chunk],
            "encoding": "raw",
        }


def _scales(space: Space, volumes: Sequence[Volume]) -> list[_Scale]:
    factor = METRES.get(space.unit or "", _NANOMETRE) / _NANOMETRE
    offsets = list(zip(*(_offsets(space, axis) for axis in range(3)), strict=True))
    found: list[_Scale] = []
    for volume, size, offset in zip(volumes, space.sizes, offsets, strict=True):
        resolution = tuple(scaled(n, factor) for n in size)
        key = "_".join(str(plain(n)) for n in resolution)
        if any(scale.key == key for scale in found):
            key = f"{key}_s{len(found)}"
        chunk = tuple(min(b, n) for b, n in zip(volume.block_shape, volume.size, strict=True))
        found.append(_Scale(key, volume, resolution, offset, chunk))
    return found


def _offsets(space: Space, axis: int) -> list[int]:
    """Where each level begins on an axis. All begin at 0 if one of them does not begin between two of its voxels: that
    way they fit onto one another at least."""
    first, found = space.sizes[0][axis], []
    for size, origin in zip(space.sizes, space.origins, strict=True):
        # The corner of voxel 0, counted from the corner that a voxel of s0 at the origin has.
        at = (origin[axis] + (first - size[axis]) / 2) / size[axis]
        if abs(at - round(at)) > 1e-6 or abs(at) > 2**53:
            return [0] * len(space.sizes)
        found.append(round(at))
    return found


def _scale(scale: _Scale, dtype: np.dtype[Any], mtime: int) -> Folder:
    return Folder(run=_Chunks(scale, dtype), mtime=mtime)


class _Chunks(Run):
    """The chunk files of a scale, numbered in C order of z, y, x."""

    def __init__(self, scale: _Scale, dtype: np.dtype[Any]) -> None:
        self._volume = scale.volume
        self._chunk = scale.chunk
        self._offset = scale.offset
        self._dtype = dtype
        self._grid = scale.volume.grid[::-1]
        self.count = self._grid[0] * self._grid[1] * self._grid[2]

    def name(self, index: int) -> str:
        return "_".join(f"{a}-{b}" for a, b in self._ranges(self._block(index)))

    def index(self, name: str) -> int | None:
        parts = name.split("_")
        if len(parts) != 3:
            return None
        block = []
        for part, chunk, offset, count in zip(parts, self._chunk, self._offset, self._volume.grid, strict=True):
            found = _NUMBER.match(part)
            at = (int(found[1]) - offset) // chunk if found is not None else -1
            if not 0 <= at < count:
                return None
            block.append(at)
        x, y, z = block
        index = (z * self._grid[1] + y) * self._grid[2] + x
        return index if self.name(index) == name else None

    def make(self, index: int) -> ViewFile:
        box = self._volume.box(self._block(index))
        layout = Layout(Voxels(box, self._volume.order, self._dtype))
        return ViewFile(layout, self._volume.array, box, decode=partial(self._decode, box))

    def following(self, start: int) -> Iterator[int]:
        def stored(axis: int, cells: Box) -> Sequence[int]:
            return self._volume.stored_along(2 - axis, Box(cells.start[::-1], cells.stop[::-1]))

        return listed(self._grid, start, stored, whole=0 if self._volume.sparse else FILES_WHOLE)

    def _block(self, index: int) -> Index:
        """The block, x first."""
        rest, x = divmod(index, self._grid[2])
        z, y = divmod(rest, self._grid[1])
        return x, y, z

    def _ranges(self, block: Index) -> list[tuple[int, int]]:
        rows = zip(block, self._chunk, self._offset, self._volume.size, strict=True)
        return [(offset + at * chunk, offset + min(at * chunk + chunk, size)) for at, chunk, offset, size in rows]

    def _decode(self, box: Box, data: memoryview) -> np.ndarray:
        """The voxels of a box from the bytes of a whole chunk file."""
        array, wanted = self._volume.array, box.size * self._dtype.itemsize
        if len(data) < wanted:
            raise Incomplete(f"the chunk ends early: it has {len(data)} of {wanted} bytes")
        if len(data) > wanted:
            raise BadInput(f"expected a chunk of {wanted} bytes, got {len(data)}")
        found = np.frombuffer(data, self._dtype)
        if array.dtype.kind == "b" and found.max(initial=0) > 1:
            raise BadInput("the voxels of a bool image are 0 or 1")
        return self._volume.voxels(found, box.shape).astype(array.dtype)


# -------------------------------------------------------------------------------------------------------- segments


def _segment_names(attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> dict[int, str]:
    """The names of segments, as far as they have one. They were written by any program: what does not have the
    expected form counts as not there."""
    found: dict[int, str] = {}
    for holder in (attributes.get("ome"), attributes):
        block = holder.get("image-label") if isinstance(holder, Mapping) else None
        properties = block.get("properties") if isinstance(block, Mapping) else None
        for entry in properties if isinstance(properties, list) else ():
            value = entry.get("label-value") if isinstance(entry, Mapping) else None
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= np.iinfo(dtype).max:
                continue
            name = next((entry[key] for key in _NAMES if isinstance(entry.get(key), str) and entry[key].strip()), None)
            if name is not None:
                found.setdefault(value, name)
    return found


def _properties(names: Mapping[int, str]) -> dict[str, Any]:
    """An info of segment properties (segment_properties.md)."""
    rows = sorted(names.items())
    label = {"id": "label", "type": "label", "values": [name for _, name in rows]}
    inline = {"ids": [str(value) for value, _ in rows], "properties": [label]}
    return {"@type": "neuroglancer_segment_properties", "inline": inline}
