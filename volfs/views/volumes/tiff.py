"""Volumes as TIFF: ``.tif`` (TIFF 6.0 or BigTIFF, OME-XML 2016-06, ImageJ) and ``.imagej.tif``.

``.tif`` has one uncompressed page per plane, all page directories before the voxels, little-endian. Up to 4 GiB it is
a classic TIFF whose first page has two descriptions: OME-XML first, ImageJ's second. In that order tifffile, Pillow and
libvips take the first and ImageJ the second. Beyond 4 GiB it is BigTIFF, which ImageJ does not read. So beside it there
is ``.imagej.tif`` then: a classic header, one page directory, and ``images=N`` in ImageJ's description, which says that
all planes lie one after the other.

Planes are in ImageJ's order: channels fastest, then z, then time; any other axis has no place, and there is no file.
ImageJ takes the resolution tags in the unit of its description (micron), so files with such a description say it so and
others in pixels per centimetre. OME has no 64-bit integers and no half floats: their volumes have the one-line
description that tifffile writes. bool is 0 and 1 in bytes. Directories are written by
:mod:`volfs.views.tiff_directory`, OME-XML by :mod:`volfs.views.ome`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from volfs.model.facts import notes_of, text_of
from volfs.model.units import SECONDS
from volfs.views import ome
from volfs.views.layout import Extent, Layout, Literal, Records, Voxels
from volfs.views.tiff_directory import (
    CLASSIC_LIMIT,
    SAMPLE_FORMATS,
    STRIP_OFFSETS,
    Head,
    Picture,
    Resolution,
    Tag,
    aligned,
    imagej_tags,
)
from volfs.views.volume import OuterAxis, ShownAxis, VolumeFormat, VolumeSpec

_CENTIMETRE, _MICRON = 1e-2, 1e-6
_MOST_SAMPLES = 1000
_MOST_BYTES = 1 << 62
_JAVA_INT = (1 << 31) - 1

_EXACT = ".15g"  # the digits that a double always keeps after a change of unit

_IMAGEJ_OPENS = ("u1", "i1", "u2", "i2", "u4", "i4", "f4")
"""By kind and size. 32-bit integers become floats there."""

_IMAGEJ_EXACT = ("u1", "u2", "i2", "f4")

_IMAGEJ_MOST_BYTES = 2_000_000_000
"""In a plane: ImageJ counts these in 32 bits, and its reader ahead of what it has read."""


_ONE = OuterAxis("", None, 1, 0, 1)
"""An axis that an image does not have."""


def _is_time(axis: ShownAxis | OuterAxis) -> bool:
    return axis.kind == "time" or axis.name == "t"


def _is_channel(axis: ShownAxis | OuterAxis) -> bool:
    return axis.kind == "channel" or axis.name == "c"


@dataclass(frozen=True, slots=True)
class _Stack:
    """A volume as a stack of pages."""

    spec: VolumeSpec
    time: ShownAxis | None
    channel: ShownAxis | None

    @classmethod
    def of(cls, spec: VolumeSpec) -> _Stack | None:
        """None if the volume has axes that a stack has not."""
        time = channel = None
        for axis in spec.others:
            if _is_time(axis) and time is None:
                time = axis
            elif _is_channel(axis) and channel is None:
                channel = axis
            else:
                return None
        return cls(spec, time, channel) if len(spec.space) >= 2 else None

    @property
    def z(self) -> ShownAxis | None:
        return self.spec.space[0] if len(self.spec.space) == 3 else None

    @property
    def pages(self) -> int:
        return math.prod(axis.size for axis in (self.time, self.z, self.channel) if axis is not None)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The data type of a sample in the file."""
        return np.dtype(np.uint8) if self.spec.dtype.kind == "b" else self.spec.dtype

    @property
    def is_imagej(self) -> bool:
        """Whether ImageJ opens such pages. RGB of 16 bits it takes for three pages, in a stack for none."""
        return self.dtype.str[1:] in _IMAGEJ_OPENS and (self.spec.samples == 1 or self.dtype == np.uint8)

    @property
    def is_metric(self) -> bool:
        """Whether voxel sizes have units."""
        return all(axis.scale_in(1) is not None for axis in self.spec.space)

    @property
    def order(self) -> tuple[ShownAxis, ...]:
        """The shown axes, slowest first."""
        samples = self.spec.axes[-1:] if self.spec.has_samples else ()
        outer = tuple(axis for axis in (self.time, self.z, self.channel) if axis is not None)
        return (*outer, *self.spec.space[-2:], *samples)

    def voxels(self) -> Voxels:
        return Voxels(self.spec.box, self.spec.order_of(self.order), self.dtype.newbyteorder("<"))

    def resolution(self, *, imagej: bool) -> Resolution | None:
        """Pixels per micron for ImageJ, per centimetre otherwise; per the axes' own unit where that is not known. None
        if the tags cannot say it."""
        metres = _MICRON if imagej else _CENTIMETRE
        down, across = ((axis.scale_in(metres) if self.is_metric else axis.scale) for axis in self.spec.space[-2:])
        if not down or not across:  # less than the smallest number there is
            return None
        return Resolution.of(1 / down, 1 / across, 3 if self.is_metric and not imagej else 1)

    def picture(self, *, imagej: bool) -> Picture:
        """A page."""
        down, across = self.spec.space[-2:]
        resolution = self.resolution(imagej=imagej) or Resolution()
        return Picture(down.size, across.size, self.spec.samples, self.dtype, resolution)

    def head_description(self) -> bytes:
        """OME-XML; for dtypes that OME lacks, the description that tifffile writes."""
        if ome.pixel_type(self.spec.dtype) is not None:
            return ome.text(self.spec, self.time, self.channel)
        letters = {id(self.time): "T", id(self.z): "Z", id(self.channel): "C"}
        axes = [letters.get(id(axis), "") for axis in self.order]
        flat = "YXS" if self.spec.has_samples else "YX"
        told: dict[str, Any] = {"shape": [axis.size for axis in self.order], "axes": "".join(axes) + flat}
        if self.z is not None and self.is_metric:
            told |= {"spacing": float(f"{self.z.scale_in(_MICRON):{_EXACT}}"), "unit": "um"}
        return json.dumps(told).encode()

    def imagej_description(self) -> bytes:
        lines = ["ImageJ=1.53t", f"images={self.pages}"]
        counts = {"channels": self.channel, "slices": self.z, "frames": self.time}
        lines += [f"{name}={axis.size}" for name, axis in counts.items() if axis is not None and axis.size > 1]
        if sum(axis is not None and axis.size > 1 for axis in counts.values()) > 1:
            lines.append("hyperstack=true")
        if self.spec.samples == 1 and self.channel is not None and self.channel.size > 1:
            lines.append(f"mode={'composite' if self.channel.size <= 7 else 'grayscale'}")  # it composes no more
        lines += self._imagej_calibration()
        if (rescale := self.spec.rescale) is not None:
            lines += ["cf=0", f"c0={rescale.intercept:{_EXACT}}", f"c1={rescale.slope:{_EXACT}}"]
            lines += [f"vunit={rescale.unit}"] if rescale.unit and rescale.unit.isascii() else []
        if self.time is not None and self.time.unit in SECONDS:
            lines.append(f"finterval={self.time.scale * SECONDS[self.time.unit]:{_EXACT}}")
        return "\n".join([*lines, "loop=false", ""]).encode()

    def imagej_tags(self) -> list[Tag]:
        """ImageJ's Info, slice labels and properties, as they were in the file that the image came from."""
        facts = self.spec.facts
        if facts.get("format") != "imagej":
            return []
        return imagej_tags(text_of(facts, "Info"), self._labels(), notes_of(facts) if self.spec.whole else {})

    def _labels(self) -> list[str]:
        """The labels of the slices shown, where these are slices of s0: ImageJ counts channels, then slices, then time
        points."""
        labels = self.spec.facts.get("Labels")
        step, first = self.spec.step[2], self.spec.first[2]
        outer = self.spec.outer
        times, channels = ([axis for axis in outer if test(axis)] for test in (_is_time, _is_channel))
        alone = len(times) <= 1 and len(channels) <= 1 and len(outer) == len(times) + len(channels)
        if not isinstance(labels, list) or not alone or step != 1.0 or first != int(first):
            return []
        [time], [channel] = times or [_ONE], channels or [_ONE]
        depth, slices = len(labels) // (time.size * channel.size), self.z.size if self.z is not None else 1
        if depth * time.size * channel.size != len(labels) or not 0 <= first <= depth - slices:
            return []
        planes = np.array(labels, object).reshape(time.size, depth, channel.size)
        shown = planes[time.start : time.stop, int(first) : int(first) + slices, channel.start : channel.stop]
        return [str(label) for label in shown.ravel()]

    def _imagej_calibration(self) -> list[str]:
        """Unit, spacing, and where the origin lies, in voxels."""
        if self.resolution(imagej=True) is None:
            return []
        lines = ["unit=micron"] if self.is_metric else []
        if self.z is not None:
            spacing = self.z.scale_in(_MICRON) if self.is_metric else self.z.scale
            lines.append(f"spacing={spacing:{_EXACT}}")
        for axis, name in zip(reversed(self.spec.space), "xyz", strict=False):
            if axis.origin and math.isfinite(axis.origin / axis.scale):
                lines.append(f"{name}origin={-axis.origin / axis.scale:{_EXACT}}")
        return lines


def holds(spec: VolumeSpec) -> bool:
    """Whether the volume has a TIFF."""
    stack = _Stack.of(spec)
    if stack is None or spec.box.empty or not 0 < spec.samples <= _MOST_SAMPLES:
        return False
    wide = any(axis.size > CLASSIC_LIMIT for axis in spec.space[-2:]) or stack.voxels().size > _MOST_BYTES
    sizes = {"f": (2, 4, 8), "c": (8, 16)}.get(stack.dtype.kind, (1, 2, 4, 8))
    return not wide and stack.dtype.kind in SAMPLE_FORMATS and stack.dtype.itemsize in sizes


def holds_imagej(spec: VolumeSpec) -> bool:
    """Whether the volume needs a TIFF of its own for ImageJ, and ImageJ can tell every voxel of it."""
    stack = _Stack.of(spec)
    if stack is None or not holds(spec) or stack.dtype.str[1:] not in _IMAGEJ_EXACT:
        return False
    if spec.samples not in (1, 3) or (spec.has_samples and not stack.is_imagej):
        return False
    fits = stack.picture(imagej=True).size <= _IMAGEJ_MOST_BYTES and stack.pages <= _JAVA_INT
    return fits and _classic(stack) is None


def layout(spec: VolumeSpec) -> Layout:
    """The volume as a TIFF of exact size."""
    stack = _Stack.of(spec)
    assert stack is not None
    made = _classic(stack)
    return _paged(stack, big=True) if made is None else made


def layout_imagej(spec: VolumeSpec) -> Layout:
    """The volume as a TIFF of one page directory."""
    stack = _Stack.of(spec)
    assert stack is not None
    picture, head, descriptions = stack.picture(imagej=True), Head(big=False), [stack.imagej_description()]
    texts = stack.imagej_tags()
    size = len(head.directory([*picture.tags(0, descriptions), *texts]))
    start = aligned(head.size + size)
    directory = head.directory([*picture.tags(start, descriptions), *texts])
    return Layout(Literal((head.data + directory).ljust(start, b"\0")), stack.voxels())


def _classic(stack: _Stack) -> Layout | None:
    """As a classic TIFF, if its size fits."""
    if stack.voxels().size > CLASSIC_LIMIT:
        return None
    made = _paged(stack, big=False)
    return made if made.size <= CLASSIC_LIMIT else None


def _paged(stack: _Stack, *, big: bool) -> Layout:
    """Header, first directory, the others as records, and the voxels."""
    for_imagej = stack.is_imagej and not big
    picture = stack.picture(imagej=for_imagej)
    descriptions = [stack.head_description(), *([stack.imagej_description()] if for_imagej else [])]
    head, count = Head(big=big), stack.pages
    texts = stack.imagej_tags() if for_imagej else []
    size = len(head.directory([*picture.tags(0, descriptions), *texts]))
    record_tags = picture.tags(0)
    record = head.directory(record_tags)
    at = head.size + size  # of the second directory
    end = at + (count - 1) * len(record)
    start = aligned(end)
    first = head.directory([*picture.tags(start, descriptions), *texts], at if count > 1 else 0)
    extents: list[Extent] = [Literal(head.data + first)]
    if count > 1:
        pages = _Pages(record, count - 1, at, start + picture.size, picture.size, head.slot(record_tags, STRIP_OFFSETS))
        extents.append(Records(count - 1, len(record), partial(pages.make, width=8 if big else 4)))
    return Layout(*extents, Literal(bytes(start - end)), stack.voxels())


@dataclass(frozen=True, slots=True)
class _Pages:
    """The page directories after the first: equal but for the next one's place and the strip's."""

    record: bytes
    count: int
    at: int
    strip: int
    strip_size: int
    slot: int

    def make(self, first: int, last: int, *, width: int) -> bytes:
        length = len(self.record)
        pages = np.tile(np.frombuffer(self.record, np.uint8), (last - first, 1))
        numbers = np.arange(first, last, dtype=np.uint64)
        following = np.where(numbers + 1 < self.count, self.at + (numbers + 1) * length, 0)
        for place, values in ((self.slot, self.strip + numbers * self.strip_size), (length - width, following)):
            pages[:, place : place + width] = values.astype(f"<u{width}")[:, None].view(np.uint8)
        return pages.tobytes()


FORMATS = (
    VolumeFormat(".tif", 1, holds, layout),
    VolumeFormat(".imagej.tif", 2, holds_imagej, layout_imagej),
)
