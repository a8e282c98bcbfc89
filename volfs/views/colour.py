"""Voxels as pictures for people: a window of intensities to 8 bits, labels to stable pseudo-colours.

For previews and thumbnails only. Files that carry voxels (``png``, ``tiff``, ``npy``) never pass through here.
"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np

Window = tuple[float, float]
"""The intensities shown as black and as white."""

_LOW, _HIGH = 0.5, 99.8
_COLOURED = 1 << 16


def plain(voxels: np.ndarray) -> np.ndarray:
    """Voxels as real numbers: magnitudes of complex ones; types without arithmetic as their first byte."""
    if voxels.dtype.kind == "c":
        magnitudes: np.ndarray = np.abs(voxels)
        return magnitudes
    if voxels.dtype.kind == "V":
        return np.ascontiguousarray(voxels)[..., None].view(np.uint8)[..., 0]
    return voxels


def robust_window(voxels: np.ndarray) -> Window:
    """A window from percentiles, so that a few hot or dead voxels do not decide; never of zero width."""
    values = plain(voxels)
    if values.dtype.kind == "b":
        return 0.0, 1.0
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values.astype(np.float64), (_LOW, _HIGH)))
    if not high > low:
        low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 1.0, low) if low > 0 else (low, low + 1.0)


def windowed(voxels: np.ndarray, window: Window) -> np.ndarray:
    """uint8 of the same shape: the window stretched over 0 to 255, clipped; not-a-number is black."""
    low, high = window
    if voxels.dtype.kind == "u" and voxels.dtype.itemsize <= 2:
        eight: np.ndarray = _stretched(voxels.dtype.itemsize, window)[voxels]
        return eight
    with np.errstate(all="ignore"):
        scaled = (plain(voxels).astype(np.float64) - low) * (255.0 / (high - low))
    eight = np.nan_to_num(np.clip(np.rint(scaled), 0, 255)).astype(np.uint8)
    return eight


@lru_cache(maxsize=64)
def _stretched(width: int, window: Window) -> np.ndarray:
    """:func:`windowed` of all unsigned integers of so many bytes: to look one up is ten times as fast."""
    every = np.arange(1 << 8 * width, dtype=np.int32)
    return windowed(every, window)


def pseudo_colour(labels: np.ndarray) -> np.ndarray:
    """uint8 RGB, shape (..., 3): black for 0, and for any other label a colour that depends on nothing else.

    Hues step by the golden ratio, so that neighbouring numbers differ most; lightness varies a little besides.
    """
    values = labels.astype(np.uint64, copy=False) if labels.dtype.kind in "iub" else plain(labels).astype(np.uint64)
    small = (values % np.uint64(_COLOURED - 1)).astype(np.int64) + 1
    colours: np.ndarray = _table()[np.where(values == 0, 0, small)]
    return colours


@cache
def _table() -> np.ndarray:
    number = np.arange(_COLOURED, dtype=np.float64)
    hue = (number * 0.618033988749895) % 1.0
    value = 0.7 + 0.3 * ((number * 0.754877666246693) % 1.0)
    saturation = 0.55 + 0.4 * ((number * 0.569840290998053) % 1.0)
    # HSV to RGB in closed form: each channel is a clipped triangle wave over the hue.
    offset = np.array([5.0, 3.0, 1.0])
    wave = (offset + hue[:, None] * 6.0) % 6.0
    chroma = (value * saturation)[:, None]
    rgb = value[:, None] - chroma * np.clip(np.minimum(wave, 4.0 - wave), 0.0, 1.0)
    rgb[0] = 0.0
    table: np.ndarray = np.rint(rgb * 255).astype(np.uint8)
    return table
