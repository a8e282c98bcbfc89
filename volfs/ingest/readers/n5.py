"""N5 arrays and multiscale groups (https://github.com/saalfeldlab/n5, version 4.0), read by its specification.

The fastest axis is the last one here, the first in N5's own ``dimensions``. Of a group of levels the finest is read.
Axes and voxel sizes are found where N5-viewer, COSEM, BigDataViewer and n5-ij leave them. n5-ij's ImageJ metadata means
x, y, c, z, t, those of one index left out. Paintera says which data are labels. Missing blocks are zero, but a file
that looks like a block and is none of the dataset is an error. The BigDataViewer hierarchy of setups and
time points is :mod:`volfs.ingest.readers.bdv`'s.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.readers import ilastik
from volfs.ingest.readers.block_arrays import DECODERS, Blocks, check_blocks, decompress, most_packed, read_file
from volfs.ingest.readers.marks import is_called_n5
from volfs.ingest.readers.parts import Part, choose
from volfs.ingest.source import (
    Description,
    Fingerprint,
    Source,
    default_axes,
    files_fingerprint,
    tree_fingerprint,
    unreadable,
)
from volfs.model.box import Box, Index
from volfs.model.names import natural_key
from volfs.model.ngff import Axis, axis

_DTYPES = {
    f"{kind}int{bits}": f"{code}{bits // 8}" for kind, code in (("u", "u"), ("", "i")) for bits in (8, 16, 32, 64)
}
_DTYPES |= {"float32": "f4", "float64": "f8"}
_MOST_MEMBERS, _DEEPEST = 1000, 4
"""What is looked through for images: members, and groups in groups."""
_LARGEST_ATTRIBUTES = 64 << 20
_NAMES = ("x", "y", "z", "c", "t", "a")
"""What dimensions are called that have no names, fastest first."""


class N5Array(Blocks):
    """An N5 dataset. Axes are in C order: the other way round than in ``attributes``."""

    def __init__(self, path: Path, attributes: Mapping[str, Any] | None = None) -> None:
        found = attributes_of(path) if attributes is None else attributes
        try:
            shape = tuple(int(n) for n in reversed(found["dimensions"]))
            chunk = tuple(int(n) for n in reversed(found["blockSize"]))
            kind = str(found["dataType"])
            compression = found.get("compression", found.get("compressionType", "raw"))
            self._compression = str(compression["type"] if isinstance(compression, dict) else compression)
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(path / "attributes.json", f"{type(error).__name__}: {error}") from error
        if kind not in _DTYPES:
            raise BadInput(f"{path} holds {kind}, which are not voxels")
        if self._compression not in DECODERS:
            raise BadInput(f"{path} is compressed with {self._compression}: {', '.join(DECODERS)} are imported")
        self.path = path
        self.attributes = found
        self.dtype = np.dtype(_DTYPES[kind])
        self.shape: Index = shape
        self.chunk: Index = tuple(map(min, chunk, shape)) if len(chunk) == len(shape) else chunk
        check_blocks(path, shape, chunk, self.dtype.itemsize)
        self._full = chunk

    def box_of(self, coords: Index) -> Box:
        start = tuple(i * c for i, c in zip(coords, self._full, strict=True))
        return Box(start, tuple(min(a + c, n) for a, c, n in zip(start, self._full, self.shape, strict=True)))

    def check_names(self) -> None:
        """BadInput, naming it, if a file looks like a block and is none of this dataset."""
        grid = [-(-n // c) for n, c in zip(self.shape[::-1], self._full[::-1], strict=True)]
        top = os.fspath(self.path)
        for root, folders, names in os.walk(top):
            folders[:] = [name for name in folders if name.isdecimal()]
            above = root[len(top) :].split("/")[1:]
            for name in names:
                parts = [*above, name]
                if not name.isdecimal():
                    continue
                if len(parts) != len(grid) or any(not _is_place(p, n) for p, n in zip(parts, grid, strict=False)):
                    shape = " x ".join(map(str, grid))
                    raise BadInput(f"{Path(root, name)} is no block of the dataset, which has {shape} of them")

    def block(self, coords: Index) -> np.ndarray | None:
        path = self.path.joinpath(*map(str, reversed(coords)))
        data = read_file(path, most_packed(math.prod(self._full) * self.dtype.itemsize))
        if data is None:
            return None
        box = self.box_of(coords)
        try:
            mode, ndim = struct.unpack_from(">HH", data)
            dims = struct.unpack_from(f">{min(ndim, 32)}I", data, 4)
        except struct.error as error:
            raise unreadable(path, "it is shorter than a block's header") from error
        if mode != 0:
            raise BadInput(f"{path} is a block of mode {mode}: blocks of plain voxels are imported")
        shape = dims[::-1]
        if len(shape) != len(self.shape) or any(
            not inside <= n <= full for n, inside, full in zip(shape, box.shape, self._full, strict=True)
        ):
            raise unreadable(path, f"its header says {dims} voxels, {box.shape[::-1]} are expected")
        size = math.prod(shape) * self.dtype.itemsize
        raw = decompress(path, self._compression, data[4 + 4 * ndim :], size)
        voxels = np.frombuffer(raw, self.dtype.newbyteorder(">")).reshape(shape)
        return voxels[tuple(slice(n) for n in box.shape)].astype(self.dtype)


def _is_place(name: str, count: int) -> bool:
    """Whether a name is a place along an axis as N5 writes it: ``7``, and not ``07``."""
    return int(name) < count and name == str(int(name))


def attributes_of(path: Path) -> dict[str, Any]:
    """The attributes of a group or dataset; none if it has no file of them."""
    file = path / "attributes.json"
    raw = read_file(file, _LARGEST_ATTRIBUTES)
    if raw is None:
        return {}
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise unreadable(file, error) from error
    if not isinstance(found, dict):
        raise unreadable(file, "it is not an object")
    return found


def is_n5(path: Path) -> bool:
    """Whether a directory is an N5 container, or a group or dataset in one."""
    if not path.is_dir():
        return False
    if is_called_n5(path):
        return True
    return (path / "attributes.json").is_file() and bool({"n5", "dimensions"} & attributes_of(path).keys())


def open_n5(path: Path, part: str | None = None) -> Source:
    """Open a dataset, or the finest level of a multiscale group; of several the one that ``part`` names: its place in
    the container, or its number. BadInput if there is none, or more than one."""
    if part is not None:
        below = path / part.strip("/")
        if ".." not in Path(part).parts and below.is_dir() and below != path:
            return open_n5(below)
        return _chosen(path, part)
    attributes = attributes_of(path)
    if "dimensions" in attributes:
        return N5Source(path, N5Array(path, attributes), [attributes], _stem(path))
    scales = attributes.get("multiscales")
    if isinstance(scales, list) and scales and isinstance(scales[0], dict):
        found = _finest_of_multiscales(path, scales[0])
        if found is not None:
            return found
    members = _members(path)
    if "s0" in members and "dimensions" in attributes_of(path / "s0"):
        own = attributes_of(path / "s0")
        return N5Source(path, N5Array(path / "s0", own), [own, attributes], _stem(path))
    arrays = [name for name in members if "dimensions" in attributes_of(path / name)]
    if len(arrays) == 1 and len(members) == 1:
        return open_n5(path / arrays[0])
    return _chosen(path, None)


def _chosen(path: Path, part: str | None) -> Source:
    """One of the images and datasets below a group."""
    places = list(itertools.islice(_images(path, "", 0), _MOST_MEMBERS))
    if not places:
        raise BadInput(f"{path} holds no image" + (f" {part}" if part is not None else ""))
    if part is None and len(places) == 1:
        return open_n5(path / places[0])
    arrays = [
        N5Array(path / place if "dimensions" in attributes_of(path / place) else path / place / "s0")
        for place in places
    ]
    parts = [Part((place,), array.shape, array.dtype) for place, array in zip(places, arrays, strict=True)]
    return open_n5(path / places[choose(path, parts, part)])


def _images(path: Path, above: str, depth: int) -> Iterator[str]:
    """The places of datasets, and of groups of levels, below a group."""
    for name in _members(path):
        place = f"{above}/{name}" if above else name
        inside = attributes_of(path / name)
        levels = not inside.get("dimensions") and "dimensions" in attributes_of(path / name / "s0")
        if levels or len(inside.get("dimensions", ())) > 1:
            yield place
        elif "dimensions" not in inside and depth < _DEEPEST:
            yield from _images(path / name, place, depth + 1)


def _finest_of_multiscales(path: Path, block: Mapping[str, Any]) -> Source | None:
    """The first level of COSEM's ``multiscales``."""
    levels = block.get("datasets")
    first = levels[0] if isinstance(levels, list) and levels else None
    name = first.get("path") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(name, str) or ".." in name.split("/"):
        return None
    place = path / name.strip("/")
    own = attributes_of(place)
    if "dimensions" not in own:
        raise BadInput(f"{path} names a level {name!r} that is not there")
    return N5Source(path, N5Array(place, own), [own, first], _stem(path))


class N5Source(Source):
    """One N5 dataset as an image. ``told`` are attributes that may tell of voxel sizes, the first being its own."""

    def __init__(self, top: Path, array: N5Array, told: Sequence[Mapping[str, Any]], name: str) -> None:
        self._top = top
        self._array = array
        axes, scale, translation = _sizes(array, told)
        array.check_names()
        self.description = Description(
            name,
            array.shape,
            array.dtype,
            axes,
            scale,
            array.chunk,
            facts={"format": "n5", **_further(told)},
            translation=translation,
            is_label=any(_says_labels(attributes) for attributes in told),
        )

    def read(self, box: Box) -> np.ndarray:
        return self._array.read(box)

    def fingerprint(self) -> Fingerprint:
        return tree_fingerprint(self._array.path) | files_fingerprint([self._top / "attributes.json"])


_STRUCTURE = ("dimensions", "blockSize", "dataType", "compression", "compressionType", "n5", "multiscales", "maxId")


def _further(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Attributes besides those that say how voxels are stored."""
    found: dict[str, Any] = {}
    for attributes in reversed(told):
        found |= {key: value for key, value in attributes.items() if key not in _STRUCTURE}
    return {"attributes": found} if found else {}


def _says_labels(attributes: Mapping[str, Any]) -> bool:
    """Paintera's mark of a label dataset, or ilastik's."""
    paintera = attributes.get("painteraData")
    kind = paintera.get("type") if isinstance(paintera, dict) else None
    painted = kind in ("label", "labels", "segmentation") or attributes.get("isLabelMultiset") is True
    return painted or ilastik.is_segmentation(attributes)


def _sizes(
    array: N5Array, told: Sequence[Mapping[str, Any]]
) -> tuple[tuple[Axis, ...], tuple[float, ...], tuple[float, ...] | None]:
    """Axes, voxel sizes and translation, slowest first."""
    ndim = len(array.shape)
    if ndim > len(_NAMES):
        default_axes(ndim)
    plain = tuple(axis(name) for name in reversed(_NAMES[:ndim]))
    for attributes in told:
        if (found := imagej_axes(attributes, array.shape)) is not None:
            return found
    for attributes in told:
        if (found := _transform(attributes.get("transform"), plain)) is not None:
            return found
    for attributes in told:
        if (sized := _resolution(attributes, plain)) is not None:
            return *sized, None
    return plain, (1.0,) * ndim, None


def imagej_axes(
    attributes: Mapping[str, Any], shape: Index
) -> tuple[tuple[Axis, ...], tuple[float, ...], tuple[float, ...] | None] | None:
    """n5-ij's ``ImageJ`` metadata (N5ImagePlusMetadata): dimensions are x, y, and c, z, t if there are several. Of a
    shape in C order; None if attributes are not such."""
    if not {"pixelWidth", "pixelHeight"} <= attributes.keys() or not (
        {"numChannels", "numSlices", "numFrames"} & attributes.keys()
    ):
        return None
    names = ["x", "y"]
    sizes = {"x": attributes.get("pixelWidth"), "y": attributes.get("pixelHeight"), "z": attributes.get("pixelDepth")}
    for name, key in (("c", "numChannels"), ("z", "numSlices"), ("t", "numFrames")):
        count = attributes.get(key, 1)
        if isinstance(count, int) and count > 1:
            names.append(name)
    rest = [name for name in "zct" if name not in names]
    names = (names + rest)[: len(shape)] if len(names) < len(shape) else names
    if len(names) != len(shape):
        return None
    unit, interval = attributes.get("pixelUnit"), attributes.get("frameInterval")
    axes, scale, shift = [], [], []
    for name in names[::-1]:
        size = _number(interval if name == "t" else sizes.get(name))
        known = size is not None and size > 0
        scale.append(size if size is not None and known else 1.0)
        told = unit if name in "xyz" and isinstance(unit, str) else "s" if name == "t" else None
        axes.append(axis(name, told if known else None))
        # ImageJ's origin is the voxel at which coordinates are zero.
        origin = _number(attributes.get(f"{name}Origin")) if name in "xyz" else None
        shift.append(-origin * scale[-1] if origin else 0.0)
    return tuple(axes), tuple(scale), tuple(shift) if any(shift) else None


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None  # type: ignore[arg-type]


def _transform(
    transform: Any, plain: tuple[Axis, ...]
) -> tuple[tuple[Axis, ...], tuple[float, ...], tuple[float, ...] | None] | None:
    """COSEM's: in C order, unless it says otherwise."""
    if not isinstance(transform, dict):
        return None
    turn = -1 if transform.get("ordering") == "F" else 1
    scale = _numbers(transform.get("scale"), len(plain))
    shift = _numbers(transform.get("translate"), len(plain), any_sign=True)
    if scale is None:
        return None
    axes = _named(transform.get("axes"), transform.get("units"), len(plain), turn) or plain
    return axes, scale[::turn], shift[::turn] if shift is not None and any(shift) else None


def _resolution(
    attributes: Mapping[str, Any], plain: tuple[Axis, ...]
) -> tuple[tuple[Axis, ...], tuple[float, ...]] | None:
    """N5-viewer's and others': the fastest first, as all else in N5."""
    ndim = len(plain)
    size: Any = attributes.get("pixelResolution", attributes.get("resolution"))
    unit: Any = attributes.get("units", attributes.get("unit"))
    if isinstance(size, dict):
        size, unit = size.get("dimensions"), size.get("unit")
    numbers = _numbers(size, ndim) or _numbers(size, 3)
    if numbers is None:
        return None
    units = unit if isinstance(unit, list) else [unit] * len(numbers)
    axes = [*(_named(attributes.get("axes"), None, ndim, -1) or plain)]
    scale = [1.0] * ndim
    for i, number in enumerate(numbers[:ndim]):
        at = ndim - 1 - i
        if axes[at].type in ("space", "time"):
            text = str(units[i]) if i < len(units) and isinstance(units[i], str) else None
            scale[at], axes[at] = number, axis(axes[at].name, None if text in ("pixel", "pixels", "px") else text)
    return tuple(axes), tuple(scale)


def _named(labels: object, units: object, ndim: int, turn: int) -> tuple[Axis, ...] | None:
    """Axes by the names that attributes give them, if each has its own."""
    if not isinstance(labels, list) or len(labels) != ndim or len({str(n).lower() for n in labels}) != ndim:
        return None
    each = units if isinstance(units, list) and len(units) == ndim else [None] * ndim
    made = [axis(str(n).lower(), u if isinstance(u, str) and u else None) for n, u in zip(labels, each, strict=True)]
    return tuple(made[::turn])


def _numbers(value: object, count: int, *, any_sign: bool = False) -> tuple[float, ...] | None:
    if not isinstance(value, list) or len(value) != count:
        return None
    if not all(isinstance(n, int | float) and math.isfinite(n) and (any_sign or n > 0) for n in value):
        return None
    return tuple(map(float, value))


def _members(path: Path) -> list[str]:
    try:
        return sorted((p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural_key)
    except OSError as error:
        raise unreadable(path, error.strerror) from error


def _stem(path: Path) -> str:
    name = path.resolve().name
    return name[:-3] if name.lower().endswith(".n5") and len(name) > 3 else name
