"""``thumbnail.png``: the middle xy plane of a coarse level, at most 256 pixels wide and high.

Intensities are windowed by percentiles of what is shown, label images pseudo-coloured, pixels drawn square. Reading
is bounded: of an image without coarse levels, or in chunks of a few voxels, only the middle is shown.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from volfs.model.box import Box, Index
from volfs.views.colour import robust_window
from volfs.views.jpeg import to_eight_bits
from volfs.views.label_colours import LabelColours
from volfs.views.layout import VoxelSource
from volfs.views.plane import PlaneSpec
from volfs.views.slices import SliceGeometry

SIDE = 256
_MOST = 2048
"""Voxels read along each side of the plane, at most."""
_MOST_CHUNKS = 128
"""Chunks looked for along each side: each takes longer than thousands of voxels."""


@runtime_checkable
class _Chunked(Protocol):
    """A source that is stored in chunks, of this shape."""

    @property
    def chunks(self) -> Index: ...


def render(
    levels: Sequence[tuple[SliceGeometry, VoxelSource]], *, is_label: bool = False, colours: LabelColours | None = None
) -> bytes:
    """The picture of an image with these levels, finest first, as a PNG file; ``colours`` are those of its labels.
    Raises the errors of reading voxels."""
    from PIL import Image  # not every mount shows thumbnails, and it takes long

    geometry, source = next(
        (level for level in reversed(levels) if max(_sides(level[0])) >= SIDE),
        levels[0],
    )
    plane = _middle(geometry, source.chunks if isinstance(source, _Chunked) else geometry.shape)
    picture = plane.picture(source.read(plane.box))
    labels = is_label and not plane.has_samples
    height, width = _size(plane)
    if labels:  # colours between two labels mean nothing
        rows = np.arange(height) * plane.rows // height
        columns = np.arange(width) * plane.columns // width
        picture = picture[rows][:, columns]
    eight = to_eight_bits(picture, robust_window(picture), is_label=labels, colours=colours)
    image = Image.fromarray(np.ascontiguousarray(eight))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BOX)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _sides(geometry: SliceGeometry) -> tuple[int, int]:
    return geometry.shape[geometry.y], geometry.shape[geometry.x]


def _middle(geometry: SliceGeometry, chunks: Index) -> PlaneSpec:
    """The middle plane; of time points the middle one, of channels and the like the first."""
    others = [other.count // 2 if other.label == "t" else 0 for other in geometry.others]
    plane = geometry.spec("xy", geometry.count("xy") // 2, others)
    start, stop = list(plane.box.start), list(plane.box.stop)
    for axis in (geometry.y, geometry.x):
        most = min(_MOST, _MOST_CHUNKS * chunks[axis])
        if stop[axis] > most:
            start[axis] = (stop[axis] - most) // 2
            stop[axis] = start[axis] + most
    return PlaneSpec(
        Box(tuple(start), tuple(stop)), plane.order, plane.dtype, plane.has_samples, plane.pixel, plane.metric
    )


def _size(plane: PlaneSpec) -> tuple[int, int]:
    """Height and width of the picture, with square pixels, within SIDE; small images are not enlarged."""
    down, across = plane.pixel or (1.0, 1.0)
    finest = min(down, across)
    height, width = plane.rows * down / finest, plane.columns * across / finest
    shrink = min(1.0, SIDE / max(height, width))
    return max(1, min(SIDE, round(height * shrink))), max(1, min(SIDE, round(width * shrink)))
