"""TIFF slices (TIFF 6.0; BigTIFF): layout from metadata. Decoding of written files is in ``tiff_decode``.

One uncompressed strip, little-endian, after one page directory: every dtype has a TIFF, bool as one-bit gray. The
resolution tags say the pixel size in pixels per centimetre when the unit is known, else the aspect ratio. A file of
4 GiB or more is BigTIFF. How directories are written is in :mod:`volfs.views.tiff_directory`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from volfs.views.layout import Layout, Literal, Voxels
from volfs.views.plane import PlaneSpec
from volfs.views.tiff_directory import CLASSIC_LIMIT, SAMPLE_FORMATS, Head, Picture, Resolution, aligned

_HEADER_ROOM = 4096


def holds(dtype: np.dtype[Any], samples: int, columns: int, rows: int) -> bool:
    """Whether such a slice has a TIFF."""
    fits = 0 < columns <= CLASSIC_LIMIT and 0 < rows <= CLASSIC_LIMIT
    return fits and dtype.kind in SAMPLE_FORMATS and (dtype.kind != "b" or samples == 1)


def layout(plane: PlaneSpec) -> Layout:
    """The slice as a TIFF of exact size."""
    packed = plane.dtype.kind == "b"
    voxels = Voxels(plane.box, plane.order, plane.dtype.newbyteorder("<"), packed=packed)
    picture = Picture(plane.rows, plane.columns, plane.samples, plane.dtype, _resolution(plane))
    head = Head(big=voxels.size + _HEADER_ROOM > CLASSIC_LIMIT)
    size = len(head.directory(picture.tags(0)))
    start = aligned(head.size + size)
    directory = head.directory(picture.tags(start))
    return Layout(Literal((head.data + directory).ljust(start, b"\0")), voxels)


def _resolution(plane: PlaneSpec) -> Resolution:
    if plane.pixel is None:
        return Resolution()
    down, across = plane.pixel
    scale = 0.01 if plane.metric else max(down, across)
    return Resolution.of(scale / down, scale / across, 3 if plane.metric else 1) or Resolution()
