"""The colours of a picture of what differs: unchanged in grey, changed in colour.

Decided here: what a voxel looks like. One that grew is orange, one that shrank is blue; in a label image one that lost
its label is blue, one that has another is orange. Grey is the voxel as it is now, in the image's window; in a label
image a labelled voxel is half grey. Not here: which voxels there are (:mod:`volfs.volume.difference`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from volfs.views.colour import Window, plain

GREW = (255, 140, 0)
SHRANK = (0, 110, 255)
LABELLED = 128


def paint(
    before: NDArray[Any], now: NDArray[Any], differ: NDArray[np.bool_], window: Window, *, is_label: bool
) -> NDArray[np.uint8]:
    """Red, green and blue along a last axis, of voxels of one shape."""
    if is_label:
        grey, shrank = np.where(now != 0, LABELLED, 0).astype(np.uint8), now == 0
    else:
        values, low = plain(now).astype(np.float64), window[0]
        scaled = (np.nan_to_num(values) - low) * (255.0 / (window[1] - low))
        grey, shrank = np.clip(np.rint(scaled), 0, 255).astype(np.uint8), plain(now) < plain(before)
    out = np.repeat(grey[..., None], 3, axis=-1)
    out[differ & ~shrank] = GREW
    out[differ & shrank] = SHRANK
    return out
