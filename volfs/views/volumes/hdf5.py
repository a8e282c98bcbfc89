"""Volumes as HDF5: one contiguous dataset ``data``, with the attributes that ilastik, Fiji and PlantSeg look for.

``axistags`` (vigra's JSON), the labels of dimensions and ``axis_units`` are what ilastik writes beside its exports;
``element_size_um`` (z, y, x in micrometres) is Fiji's and PlantSeg's, and is there where units are known. A label image
says so by ilastik's ``display_mode``; a rescale is ``scale_factor`` and ``add_offset``, as netCDF's conventions say.

The format is left to the HDF5 library, in its oldest version of the format (1.8 reads it): it writes the file into
an object that keeps only the pieces that were written, and never touches the voxels, whose place it is told to allot at
once and never to fill. So a file has what stands before the voxels, the voxels, and what stands after them. Both
pieces are kept for some volumes, because directories are listed more often than they change.

h5py is optional (``volfs[formats]``); without it there are no such files.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from volfs.model.box import Index
from volfs.model.facts import Rescale
from volfs.views.layout import Layout, Literal, Voxels
from volfs.views.volume import ShownAxis, VolumeFormat, VolumeSpec

_MICRON = 1e-6
_EXACT = 15  # digits that a double has for certain, after a change of unit
_MOST_AXES = 32
_MOST_BYTES = 1 << 62
_ALIGNED = 64  # so that mapped voxels are
_PAGE = 4096
_FRAMES = 512

_CHANNEL, _SPACE, _TIME, _UNKNOWN = 1, 2, 8, 0
"""vigra's types of axes."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """All that a file's bytes depend on, but for the voxels."""

    shape: Index
    dtype: str
    axes: tuple[tuple[str, int, float, str], ...]
    """Of each: its name, type, voxel size (0 where it has no unit), and unit."""
    element_size: tuple[float, ...] | None
    is_label: bool = False
    rescale: Rescale | None = None

    @classmethod
    def of(cls, spec: VolumeSpec) -> _Facts:
        axes = tuple(_axis(spec, number) for number in range(len(spec.axes)))
        sizes = [axis.scale_in(_MICRON) for axis in spec.space]
        known = [_tidy(size) for size in sizes if size is not None and 0 < size < math.inf]
        dtype = spec.dtype.newbyteorder("<").str
        size = tuple(known) if known and len(known) == len(sizes) else None
        return cls(spec.shape, dtype, axes, size, spec.is_label, spec.rescale)


def _axis(spec: VolumeSpec, number: int) -> tuple[str, int, float, str]:
    axis = spec.axes[number]
    space = spec.space
    if axis in space:
        name, kind = "zyx"[3 - len(space) :][space.index(axis)], _SPACE
    elif spec.has_samples and number == len(spec.axes) - 1:
        name, kind = "c" if spec.other("c") is None else axis.name, _CHANNEL
    else:
        name, kind = axis.name, {"time": _TIME, "channel": _CHANNEL}.get(axis.kind or "", _by_name(axis))
    return name, kind, axis.scale if axis.unit else 0.0, axis.unit or ""


def _by_name(axis: ShownAxis) -> int:
    return {"t": _TIME, "c": _CHANNEL}.get(axis.name, _UNKNOWN)


def _tidy(value: float) -> float:
    return float(f"{value:.{_EXACT}g}")


class _Written(io.RawIOBase):
    """A file of any length that keeps the pages which were written; all else is zero."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._at = self._size = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def truncate(self, size: int | None = None) -> int:
        self._size = self._at if size is None else size
        return self._size

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for page, start, begin, length in _pieces(self._at, len(view)):
            kept = self._pages.setdefault(page, bytearray(_PAGE))
            kept[start : start + length] = view[begin : begin + length]
        self._at += len(view)
        self._size = max(self._size, self._at)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        view[:count] = self.part(self._at, self._at + count)
        self._at += count
        return count

    @property
    def size(self) -> int:
        return self._size

    def part(self, start: int, stop: int) -> bytes:
        """Its bytes from one position to another."""
        out = bytearray(stop - start)
        for page, at, begin, length in _pieces(start, stop - start):
            if page in self._pages:
                out[begin : begin + length] = self._pages[page][at : at + length]
        return bytes(out)


def _pieces(at: int, length: int) -> list[tuple[int, int, int, int]]:
    """A range by pages: number of the page, where in it, where in the range, and how much."""
    found, done = [], 0
    while done < length:
        page, start = divmod(at + done, _PAGE)
        count = min(_PAGE - start, length - done)
        found.append((page, start, done, count))
        done += count
    return found


@lru_cache(maxsize=1)
def _h5py() -> Any:
    """The library; None if it is not installed."""
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError:
        return None
    return h5py


@lru_cache(maxsize=_FRAMES)
def _frame(facts: _Facts) -> tuple[bytes, bytes]:
    """The bytes before the voxels, and those after them."""
    h5py, made = _h5py(), _Written()
    dtype = np.dtype(facts.dtype)
    size = math.prod(facts.shape) * dtype.itemsize
    with h5py.File(made, "w", alignment_threshold=size, alignment_interval=_ALIGNED) as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_layout(h5py.h5d.CONTIGUOUS)
        settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        settings.set_obj_track_times(False)
        space = h5py.h5s.create_simple(facts.shape)
        stored = h5py.h5t.py_create(dtype, logical=True)
        dataset = h5py.Dataset(h5py.h5d.create(file.id, b"data", stored, space, settings))
        dataset.attrs["axistags"] = _axistags(facts)
        for dimension, (name, *_) in zip(dataset.dims, facts.axes, strict=True):
            dimension.label = name
        if any(unit for *_, unit in facts.axes):
            dataset.attrs["axis_units"] = json.dumps({name: unit for name, _, _, unit in facts.axes})
        if facts.element_size is not None:
            dataset.attrs["element_size_um"] = np.array(facts.element_size)
        if facts.is_label:
            dataset.attrs["display_mode"] = "random-colortable"
        if facts.rescale is not None:
            dataset.attrs["scale_factor"], dataset.attrs["add_offset"] = facts.rescale.slope, facts.rescale.intercept
            if facts.rescale.unit is not None:
                dataset.attrs["units"] = facts.rescale.unit
        start = dataset.id.get_offset()
    return made.part(0, start), made.part(start + size, made.size)


def _axistags(facts: _Facts) -> str:
    tags = [
        {"key": name, "typeFlags": kind, "resolution": scale, "description": ""} for name, kind, scale, _ in facts.axes
    ]
    return json.dumps({"axes": tags}, indent=2)


def holds(spec: VolumeSpec) -> bool:
    """Whether the volume has an HDF5 file."""
    small = math.prod(spec.shape) * spec.dtype.itemsize <= _MOST_BYTES and len(spec.axes) <= _MOST_AXES
    return small and not spec.box.empty and spec.dtype.kind in "biufc" and _h5py() is not None


def layout(spec: VolumeSpec) -> Layout:
    """The volume as an HDF5 file of exact size. bool is the library's own: an enumeration of 0 and 1 in bytes."""
    before, after = _frame(_Facts.of(spec))
    return Layout(Literal(before), Voxels(spec.box, spec.order, spec.dtype.newbyteorder("<")), Literal(after))


FORMATS = (VolumeFormat(".h5", 11, holds, layout),)
