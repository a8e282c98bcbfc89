"""Which sources are segmentations, and their labels as integers.

Decided here: a source is a segmentation if the user says so, if it goes below ``labels/``, or if it says so itself.
Labels are integers: those in floating point, or with a slope, are taken if every one is a whole number, into the
smallest integer type that holds them all (unsigned unless one is negative). That takes a pass over the voxels of its
own, which sources of integers never have. Not here: how levels of labels are made (:mod:`volfs.volume.downsample`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.source import Source, SourceView
from volfs.ingest.volume_stream import Meter, read_pieces
from volfs.model.box import Box
from volfs.model.facts import Rescale
from volfs.volume.workers import Workers

_NEAR = 1e-6
"""How far from whole, in parts, what a slope makes of a stored number may be: slopes are often floats of 32 bits."""


class NotWhole(BadInput):
    """A voxel that is no label. The error says which."""


def as_segmentation(source: Source, meter: Meter) -> Source:
    """``source`` with labels of an integer type. Raises NotWhole, naming the first voxel, if one is no whole number."""
    found = source.description
    rescale = found.rescale if found.rescale is not None and not found.rescale.identity else None
    if found.dtype.kind in "iub" and rescale is None:
        return source
    if found.dtype.kind not in "iubf":
        raise NotWhole(f"a label image has whole numbers, but {found.name} is {found.dtype.name}")
    low, high = _range(source, rescale, meter)
    return _Labels(source, rescale, _smallest(found.name, low, high))


def _smallest(name: str, low: float, high: float) -> np.dtype[np.integer]:
    kind = "i" if low < 0 else "u"
    for size in (1, 2, 4, 8):
        dtype: np.dtype[np.integer] = np.dtype(f"{kind}{size}")
        limits = np.iinfo(dtype)
        if int(low) >= limits.min and int(high) <= limits.max:
            return dtype
    raise NotWhole(f"the labels of {name} run from {low:g} to {high:g}: no integer of 64 bits holds them")


def _range(source: Source, rescale: Rescale | None, meter: Meter) -> tuple[float, float]:
    """The smallest and largest label, once every voxel has been looked at."""
    found = source.description
    wrong: list[tuple[int, ...]] = []
    ranges: list[tuple[float, float]] = []

    def look(box: Box) -> None:
        meter.check()
        values = _real(source.read(box), rescale)
        with np.errstate(invalid="ignore"):
            off = np.abs(values - np.rint(values))
            whole = off <= (0 if rescale is None else _NEAR * np.maximum(1.0, np.abs(values)))
        if not whole.all():
            first = np.unravel_index(int(np.argmin(whole)), whole.shape)
            wrong.append(tuple(int(a + i) for a, i in zip(box.start, first, strict=True)))
        elif values.size:
            ranges.append((float(np.rint(values.min())), float(np.rint(values.max()))))

    workers = Workers()
    try:
        workers.each(look, list(read_pieces(Box.whole(found.shape), found.grain, found.dtype.itemsize)))
    finally:
        workers.close()
    if wrong:
        first = min(wrong)
        value = _real(source.read(Box(first, tuple(i + 1 for i in first))), rescale).item()
        where = ", ".join(f"{a.name} {i}" for a, i in zip(found.axes, first, strict=True))
        raise NotWhole(f"a label image has whole numbers, but {found.name} has {value:g} at {where}")
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _real(voxels: np.ndarray, rescale: Rescale | None) -> np.ndarray:
    if rescale is None:
        return voxels
    return voxels.astype(np.float64) * rescale.slope + rescale.intercept


class _Labels(SourceView):
    """The labels of a source as integers."""

    def __init__(self, inner: Source, rescale: Rescale | None, dtype: np.dtype[np.integer]) -> None:
        found, limits = inner.description, np.iinfo(dtype)
        fill = float(_real(np.array(found.fill_value, np.float64), rescale))
        held = math.isfinite(fill) and limits.min <= fill <= limits.max and fill.is_integer()
        fill_value = int(fill) if held else 0
        super().__init__(inner, replace(found, dtype=dtype, fill_value=fill_value, rescale=None, is_label=True))
        self._rescale = rescale

    def read(self, box: Box) -> np.ndarray:
        labels: np.ndarray = np.rint(_real(self._inner.read(box), self._rescale)).astype(self.description.dtype)
        return labels
