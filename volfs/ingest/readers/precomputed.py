"""Neuroglancer's precomputed volumes, by
https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/volume.md, with or without shards.

The finest scale is read, or the one whose directory is named. Chunks are raw, compressed_segmentation, jpeg or png, as
they are or in gzip; missing ones are zero, but a file that is no chunk of the volume is an error. Segmentations say
that they are such, and may name their segments. Voxel sizes are in nanometres; the voxel offset becomes the
translation.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from volfs.errors import BadInput, VolfsError
from volfs.ingest.readers.block_arrays import Blocks, check_blocks, decompress, gunzip, most_packed, read_file
from volfs.ingest.readers.compressed_segmentation import decode_segmentation
from volfs.ingest.readers.neuroglancer_shards import Shards
from volfs.ingest.readers.parts import Part, choose
from volfs.ingest.source import Description, Fingerprint, Source, files_fingerprint, tree_fingerprint, unreadable
from volfs.model.box import Box, Index
from volfs.model.ngff import axis

_ENCODINGS = ("raw", "compressed_segmentation", "jpeg", "png")
_DTYPES = {"uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8", "float32": "f4"}
_DTYPES |= {"int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8"}
_LARGEST_INFO = 64 << 20

_CHUNK = re.compile(r"(-?[0-9]+)-(-?[0-9]+)_(-?[0-9]+)-(-?[0-9]+)_(-?[0-9]+)-(-?[0-9]+)(?:\.(?:gz|br|zstd|bz2|xz))?\Z")
#: What a program may have added to a chunk's name, and what that means.
_ENDINGS = {"": "raw", ".gz": "gzip", ".zstd": "zstd", ".bz2": "bzip2", ".xz": "xz"}


def is_precomputed(path: Path) -> bool:
    """Whether a directory is a volume, or one scale of it."""
    return path.is_dir() and (_info(path) is not None or _scale_of(path) is not None)


def open_precomputed(path: Path, part: str | None = None) -> Source:
    """Open a volume, or one scale of it: by its directory, or by its key or number as ``part``. BadInput if it is of a
    kind that is not read."""
    info, root, key = _info(path), path, None
    if info is None:
        found = _scale_of(path)
        assert found is not None
        info, root, key = found
    try:
        scales = info["scales"]
        if part is not None:
            key = scales[choose(path, [_part(scale, info) for scale in scales], part)]["key"]
        scales = [s for s in scales if key is None or s["key"] == key]
        return _Precomputed(root, info, scales[0], path.resolve().name)
    except VolfsError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise unreadable(root / "info", f"{type(error).__name__}: {error}") from error


def _part(scale: Mapping[str, Any], info: Mapping[str, Any]) -> Part:
    return Part((str(scale["key"]),), tuple(map(int, reversed(scale["size"]))), np.dtype(str(info["data_type"])), "zyx")


def _info(path: Path) -> dict[str, Any] | None:
    """The info of a volume; None if there is none."""
    file = path / "info"
    if not file.is_file():
        return None
    try:
        if file.stat().st_size > _LARGEST_INFO:
            return None
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    is_volume = isinstance(found, dict) and isinstance(found.get("scales"), list) and found["scales"]
    return found if is_volume else None


def _scale_of(path: Path) -> tuple[dict[str, Any], Path, str] | None:
    """The volume of which a directory is one scale."""
    info = _info(path.parent)
    keys = [s.get("key") for s in info["scales"] if isinstance(s, dict)] if info is not None else []
    return (info, path.parent, path.name) if info is not None and path.name in keys else None


class _Precomputed(Source):
    def __init__(self, root: Path, info: Mapping[str, Any], scale: Mapping[str, Any], name: str) -> None:
        self._root = root
        self._scale = _Scale(root, info, scale)
        found = self._scale
        found.check_names()
        flat = found.shape[0] == 1
        size = [float(n) for n in scale["resolution"]]
        offset = [int(n) for n in scale.get("voxel_offset", (0, 0, 0))]
        if len(size) != 3 or not all(math.isfinite(n) and n > 0 for n in size):
            raise ValueError(f"its resolution is {size}")
        shift = tuple(o * s for o, s in zip(offset[::-1], size[::-1], strict=True))
        facts: dict[str, Any] = {"format": "precomputed", "encoding": found.encoding, "voxel_offset": offset}
        if isinstance(info.get("type"), str):
            facts["type"] = info["type"]
        skip = 1 if flat else 0
        self.description = Description(
            name,
            found.shape[skip:],
            found.dtype,
            tuple(axis(n, None if n == "c" else "nm") for n in "czyx"[skip:]),
            (1.0, *size[::-1])[skip:],
            found.chunk[skip:],
            facts=facts,
            translation=(0.0, *shift)[skip:] if any(shift) else None,
            is_label=info.get("type") == "segmentation",
            ome=_named_segments(root, info),
            lost=_lost(info),
        )
        self._flat = flat

    def read(self, box: Box) -> np.ndarray:
        if self._flat:
            return self._scale.read(Box((0, *box.start), (1, *box.stop))).reshape(box.shape)
        return self._scale.read(box)

    def fingerprint(self) -> Fingerprint:
        return files_fingerprint([self._root / "info"]) | tree_fingerprint(self._scale.path)

    def close(self) -> None:
        self._scale.close()


def _named_segments(root: Path, info: Mapping[str, Any]) -> dict[str, Any]:
    """The names that ``segment_properties`` gives, as OME-NGFF's ``image-label`` has them; none if there are none."""
    place = info.get("segment_properties")
    if not isinstance(place, str) or place.startswith("/") or ".." in place.split("/"):
        return {}
    try:
        inline = json.loads((root / place / "info").read_bytes())["inline"]
        ids = [int(one) for one in inline["ids"]]
        properties: list[dict[str, Any]] = [{"label-value": one} for one in ids]
        for one in inline["properties"]:
            name = {"label": "name"}.get(one["type"], one["id"])
            if one["type"] in ("label", "description", "string", "number"):
                for entry, value in zip(properties, one["values"], strict=True):
                    entry[str(name)] = value
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {"image-label": {"properties": properties}} if properties else {}


def _lost(info: Mapping[str, Any]) -> tuple[str, ...]:
    """What lies with a volume besides its voxels."""
    return tuple(f"{name} ({info[name]}/)" for name in ("mesh", "skeletons") if isinstance(info.get(name), str))


class _Scale(Blocks):
    """One scale: c, z, y, x. Chunks hold all channels."""

    def __init__(self, root: Path, info: Mapping[str, Any], scale: Mapping[str, Any]) -> None:
        key = str(scale["key"])
        self.path = root / key
        kind = str(info["data_type"])
        self.encoding = str(scale["encoding"])
        if kind not in _DTYPES:
            raise BadInput(f"{root} holds {kind}, which are not voxels")
        if self.encoding not in _ENCODINGS:
            raise BadInput(f"{root} has encoding {self.encoding}: {', '.join(_ENCODINGS)} are imported")
        self.dtype = np.dtype(_DTYPES[kind])
        if self.encoding == "compressed_segmentation" and kind not in ("uint32", "uint64"):
            raise unreadable(root / "info", f"{kind} cannot be in encoding compressed_segmentation")
        channels = int(info.get("num_channels", 1))
        sizes = [int(n) for n in scale["size"]]
        chunk = [int(n) for n in scale["chunk_sizes"][0]]
        offset = [int(n) for n in scale.get("voxel_offset", (0, 0, 0))]
        if not len(sizes) == len(chunk) == len(offset) == 3:
            raise ValueError("its scale has not three axes")
        self.shape: Index = (channels, *sizes[::-1])
        self.chunk: Index = (channels, *chunk[::-1])
        check_blocks(root / "info", self.shape, self.chunk, self.dtype.itemsize)
        self._offset = offset
        self._cells = [int(n) for n in scale.get("compressed_segmentation_block_size", (8, 8, 8))]
        sharding = scale.get("sharding")
        grid = [-(-n // c) for n, c in zip(sizes, chunk, strict=True)]
        self._shards = Shards(self.path, sharding, grid) if sharding is not None else None

    def check_names(self) -> None:
        """BadInput, naming it, if a file looks like a chunk and is none of this scale: it would be passed over."""
        if self._shards is not None or not self.path.is_dir():
            return
        for entry in os.scandir(self.path):
            found = _CHUNK.match(entry.name)
            if found is None:
                continue
            ends = [int(n) for n in found.groups()]
            for start, stop, size, chunk, offset in zip(
                ends[::2], ends[1::2], self.shape[:0:-1], self.chunk[:0:-1], self._offset, strict=True
            ):
                at = start - offset
                if at < 0 or at >= size or at % chunk or stop - offset != min(at + chunk, size):
                    raise BadInput(f"{entry.path} is no chunk of the volume that {self.path.parent / 'info'} describes")

    def block(self, coords: Index) -> np.ndarray | None:
        box = self.box_of(coords)
        size = box.size * self.dtype.itemsize
        if self._shards is not None:
            where, data = self._shards.chunk(coords[:0:-1])
            if data is None:
                return None
        else:
            found = self._file(box, size)
            if found is None:
                return None
            where, data = found
        if data[:2] == b"\x1f\x8b" and not (self.encoding == "raw" and len(data) == size):
            data = gunzip(where, data, self._most(size))  # as a server would say: Content-Encoding
        return self._decoded(where, data, box.shape)

    def close(self) -> None:
        if self._shards is not None:
            self._shards.close()

    def _most(self, size: int) -> int:
        return size if self.encoding == "raw" else 4 * size + (1 << 20)

    def _file(self, box: Box, size: int) -> tuple[Path, bytes] | None:
        """The chunk's own file, unpacked as its ending says."""
        ranges = zip(box.start[:0:-1], box.stop[:0:-1], self._offset, strict=True)
        name = "_".join(f"{a + o}-{b + o}" for a, b, o in ranges)
        for ending, packing in _ENDINGS.items():
            path = self.path / (name + ending)
            data = read_file(path, most_packed(self._most(size)))
            if data is None:
                continue
            if packing == "gzip":
                return path, gunzip(path, data, self._most(size))
            if packing != "raw" and self.encoding != "raw":
                raise BadInput(f"{path} is {self.encoding} in {packing}, which is not imported")
            return path, decompress(path, packing, data, size) if packing != "raw" else data
        if (self.path / (name + ".br")).exists():
            raise BadInput(f"{self.path / name}.br is compressed with brotli, which is not imported: unpack it first")
        return None

    def _decoded(self, where: Path, data: bytes, shape: Index) -> np.ndarray:
        """The voxels in a chunk's bytes; there x is fastest and the channel slowest, as it is here."""
        if self.encoding == "raw":
            if len(data) != math.prod(shape) * self.dtype.itemsize:
                raise unreadable(where, f"its chunk has {len(data)} bytes, not those of {shape[::-1]} voxels")
            return np.frombuffer(data, self.dtype.newbyteorder("<")).reshape(shape).astype(self.dtype)
        try:
            if self.encoding == "compressed_segmentation":
                return decode_segmentation(data, shape, self.dtype, self._cells)
            return _picture(data, self.encoding, shape, self.dtype)
        except VolfsError:
            raise
        except Exception as error:  # Pillow raises whatever the damage leads to
            raise unreadable(where, error) from error


def _picture(data: bytes, form: str, shape: Index, dtype: np.dtype[Any]) -> np.ndarray:
    """A chunk as a picture: any width and height that make its voxels, in order; channels are the samples."""
    modes = {(1, "u1"): "L", (3, "u1"): "RGB", (4, "u1"): "RGBA", (2, "u1"): "LA", (1, "u2"): "I;16"}
    channels, count = shape[0], math.prod(shape[1:])
    wanted = modes.get((channels, dtype.str[1:]))
    if wanted is None or (form == "jpeg" and wanted not in ("L", "RGB")):
        raise BadInput(f"{form} chunks of {channels} channels of {dtype.name} are not imported")
    with Image.open(io.BytesIO(data), formats=[form.upper()]) as image:
        if image.width * image.height != count or image.mode != wanted:
            raise ValueError(f"a picture of {image.width} x {image.height} {image.mode} is not {shape[::-1]} voxels")
        samples = np.asarray(image).reshape(count, channels)
    return np.ascontiguousarray(samples.T).reshape(shape).astype(dtype, copy=False)
