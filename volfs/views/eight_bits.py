"""The voxels of a level as an 8-bit picture for people shows them, as a source of voxels of their own.

Decided here: gray for intensities, stretched over their window; red, green and blue for labels and for colour images,
whose 8-bit samples are meant as they are. So a preview is a slice like any other, of exact size, over this source. Not
here: which window and which colours (who makes the source says that), and files that are rendered whole
(:mod:`volfs.views.jpeg`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from volfs.errors import Unsupported
from volfs.model.box import Box, Index
from volfs.views import png
from volfs.views.colour import Window, windowed
from volfs.views.label_colours import LabelColours
from volfs.views.layout import VoxelSource, placed
from volfs.views.slices import SliceGeometry

_RGB = 3
_EIGHT = np.dtype(np.uint8)


@dataclass(frozen=True, slots=True)
class EightBits:
    """A level as 8-bit pictures: ``source`` with ``geometry``, its voxels painted as ``look`` says when they are read:
    with colours if it ``is_label``, else through a window.

    Its axes are those of the source. Of a label image the samples are one more, at the end; where the source has
    samples, their axis has three, or one (gray, whose alpha is left out).
    """

    source: VoxelSource
    geometry: SliceGeometry
    look: Callable[[], Window | LabelColours]
    is_label: bool

    @property
    def shape(self) -> Index:
        return shown_geometry(self.geometry, is_label=self.is_label).shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return _EIGHT

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        look, sample = self.look(), self.geometry.sample
        axes = len(self.geometry.shape)
        start, stop = list(box.start[:axes]), list(box.stop[:axes])
        if sample is not None:  # a pixel is painted as a whole
            start[sample], stop[sample] = 0, self.geometry.shape[sample]
        voxels = self.source.read(Box(tuple(start), tuple(stop)))
        if sample is None:
            if not isinstance(look, LabelColours):
                return placed(windowed(voxels, look), out)
            return placed(look.paint(voxels)[..., box.start[-1] : box.stop[-1]], out)
        whole = np.moveaxis(voxels, sample, -1)
        whole = whole[..., :_RGB] if whole.shape[-1] >= _RGB else whole[..., :1]
        picked = whole[..., box.start[sample] : box.stop[sample]]
        plain = picked.dtype == np.uint8 and whole.shape[-1] == _RGB
        assert not isinstance(look, LabelColours)
        return placed(np.moveaxis(picked if plain else windowed(picked, look), -1, sample), out)

    def write(self, box: Box, voxels: np.ndarray) -> None:
        raise Unsupported("a preview is computed from voxels and cannot be written: write the slices")


@lru_cache(maxsize=256)
def shown_geometry(geometry: SliceGeometry, *, is_label: bool) -> SliceGeometry:
    """How the pictures of a level lie: as its slices do, of 8 bits."""
    shape, sample = list(geometry.shape), geometry.sample
    scale, units = geometry.scale, geometry.units
    if sample is not None:
        shape[sample] = _RGB if shape[sample] >= _RGB else 1
    elif is_label:
        sample = len(shape)
        shape.append(_RGB)
        scale, units = (*scale, 1.0) if scale else None, (*units, None) if units else None
    return replace(geometry, shape=tuple(shape), dtype=_EIGHT, sample=sample, scale=scale, units=units, _layouts={})


def holds(geometry: SliceGeometry, plane: str, *, is_label: bool) -> bool:
    """Whether the slices of a plane have such a picture: one that picture viewers open."""
    samples = shown_geometry(geometry, is_label=is_label).samples
    columns, rows = geometry.shape[geometry.across(plane)], geometry.shape[geometry.down(plane)]
    return png.holds(_EIGHT, samples, columns, rows)
