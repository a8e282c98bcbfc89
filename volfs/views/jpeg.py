"""JPEG previews of slices: 8-bit pictures of any dtype. Rendered whole, so the size is known only then.

A preview is windowed to 8 bits, or pseudo-coloured for label images. It cannot be written back: it is not exact.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from volfs.model.box import Box
from volfs.views import npy, omero
from volfs.views.colour import Window, robust_window, windowed
from volfs.views.label_colours import LabelColours
from volfs.views.layout import VoxelSource
from volfs.views.plane import PlaneSpec
from volfs.views.slices import SliceGeometry

ENDING = ".jpg"
_MAX_SIDE = 65_500
_SAMPLE = 96
_QUALITY = 88


def holds(plane: PlaneSpec) -> bool:
    """Whether a JPEG of this slice can be made: libjpeg's limit on sides."""
    return max(plane.rows, plane.columns) <= _MAX_SIDE and npy.holds(plane.dtype)


def channel(geometry: SliceGeometry, others: Sequence[int]) -> int:
    """The channel that slices with these indices along ``geometry.others`` show."""
    return next((at for other, at in zip(geometry.others, others, strict=True) if other.label == "c"), 0)


def window(
    coarsest: SliceGeometry, source: VoxelSource, channel: int, attributes: Mapping[str, Any] | None = None
) -> Window:
    """The window of one channel: the same for every slice, plane, time point and level of a version.

    As the image's metadata say (``omero``, in the ``attributes`` of its group); else from the middle of its coarsest
    level, or the corners of that where the middle is empty.
    """
    told = [omero.window(attributes or {}, sample) for sample in range(channel, channel + coarsest.samples)]
    known = [one for one in told if one is not None]
    if len(known) == len(told):  # of a colour picture, one for all samples, so that gray stays gray
        return min(low for low, _ in known), max(high for _, high in known)
    for share in (0.5, 0.0, 1.0):
        voxels = source.read(_sample(coarsest, channel, share))
        if (voxels != voxels.flat[0]).any():
            break
    return robust_window(voxels)


def _sample(coarsest: SliceGeometry, channel: int, share: float) -> Box:
    """A part of one channel, at one time point: in the middle (a ``share`` of 0.5), or at either end."""
    start, stop = [0] * len(coarsest.shape), list(coarsest.shape)
    for axis in (coarsest.z, coarsest.y, coarsest.x):
        if axis is not None and stop[axis] > _SAMPLE:
            start[axis] = int((stop[axis] - _SAMPLE) * share)
            stop[axis] = start[axis] + _SAMPLE
    for other in coarsest.others:
        at = min(channel, other.count - 1) if other.label == "c" else int((other.count - 1) * share)
        start[other.axis], stop[other.axis] = at, at + 1
    return Box(tuple(start), tuple(stop))


def render(
    source: VoxelSource,
    plane: PlaneSpec,
    shown: Window,
    *,
    is_label: bool = False,
    colours: LabelColours | None = None,
) -> bytes:
    """The slice as a JPEG file; ``colours`` are those of its labels. Raises the errors of reading voxels."""
    picture = plane.picture(source.read(plane.box))
    return encode(to_eight_bits(picture, shown, is_label=is_label and not plane.has_samples, colours=colours))


def to_eight_bits(
    picture: np.ndarray, shown: Window, *, is_label: bool, colours: LabelColours | None = None
) -> np.ndarray:
    """uint8 of shape (rows, columns) or (rows, columns, 3). Two samples are taken as gray and alpha, which is left
    out; so is the alpha of four."""
    if is_label:
        return (colours or LabelColours()).paint(picture)
    if picture.ndim == 3:
        picture = picture[..., 0] if picture.shape[2] <= 2 else picture[..., :3]
    if picture.dtype == np.uint8 and picture.ndim == 3:
        return picture  # colour photographs are meant as they are
    return windowed(picture, shown)


def encode(picture: np.ndarray) -> bytes:
    from PIL import Image  # not every mount shows previews, and it takes long

    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(out, "JPEG", quality=_QUALITY, subsampling=0)
    return out.getvalue()
