"""JPEG previews of slices: what the eye needs, from any dtype. Rendered whole, so the size is known only then.

A preview is windowed to 8 bits, or pseudo-coloured for label images. It cannot be written back: it is not exact.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from volfs.model.box import Box
from volfs.views.colour import Window, pseudo_colour, robust_window, windowed
from volfs.views.layout import VoxelSource
from volfs.views.plane import PlaneSpec
from volfs.views.slices import SliceGeometry

ENDING = ".jpg"
_MAX_SIDE = 65_500
_SAMPLE = 96
_QUALITY = 88


def holds(plane: PlaneSpec) -> bool:
    """Whether a JPEG of this slice can be made: libjpeg's limit on sides, and voxels that are numbers."""
    return max(plane.rows, plane.columns) <= _MAX_SIDE and plane.dtype.kind in "biufc"


def window(coarsest: SliceGeometry, source: VoxelSource, others: tuple[int, ...]) -> Window:
    """The window of one channel and time point: from the middle of the coarsest level, so that it is the same for
    every slice, plane and level. ``others`` are the indices along ``coarsest.others``."""
    start, stop = [0] * len(coarsest.shape), list(coarsest.shape)
    for axis in (coarsest.z, coarsest.y, coarsest.x):
        if axis is not None and stop[axis] > _SAMPLE:
            start[axis] = (stop[axis] - _SAMPLE) // 2
            stop[axis] = start[axis] + _SAMPLE
    for other, at in zip(coarsest.others, others, strict=True):
        start[other.axis], stop[other.axis] = at, at + 1
    return robust_window(source.read(Box(tuple(start), tuple(stop))))


def render(source: VoxelSource, plane: PlaneSpec, shown: Window, *, is_label: bool = False) -> bytes:
    """The slice as a JPEG file. Raises what reading the voxels raises."""
    picture = plane.picture(source.read(plane.box))
    return encode(to_eight_bits(picture, shown, is_label=is_label and not plane.has_samples))


def to_eight_bits(picture: np.ndarray, shown: Window, *, is_label: bool) -> np.ndarray:
    """uint8 of shape (rows, columns) or (rows, columns, 3). Two samples are taken as gray and alpha, which is left
    out; so is the alpha of four."""
    if is_label:
        return pseudo_colour(picture)
    if picture.ndim == 3:
        picture = picture[..., 0] if picture.shape[2] <= 2 else picture[..., :3]
    if picture.dtype == np.uint8 and picture.ndim == 3:
        return picture  # colour photographs are meant as they are
    return windowed(picture, shown)


def encode(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(out, "JPEG", quality=_QUALITY, subsampling=0)
    return out.getvalue()
