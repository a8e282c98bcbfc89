"""Undoing PNG's row filters (W3C PNG, third edition, section 9) in numpy.

Pillow does this in C for most pictures, but reduces 16-bit colour to 8 bits without a word; those come here.
"""

from __future__ import annotations

import numpy as np

from volfs.errors import BadInput


def unfilter(filtered: np.ndarray, pixel: int) -> np.ndarray:
    """Rows of bytes from filtered rows.

    ``filtered`` is uint8 of shape (rows, 1 + n), the filter type first in each row; ``pixel`` is the number of bytes
    of a whole pixel (1 for packed bits). BadInput for an unknown filter type.
    """
    kinds, raw = filtered[:, 0], filtered[:, 1:]
    if kinds.size and kinds.max() > 4:
        raise BadInput(f"PNG row filter {kinds.max()} does not exist")
    if not kinds.any():
        return raw
    # Bytes of a row as (pixels, bytes of a pixel): each byte only looks at the same byte of its neighbours.
    rows, width = raw.shape
    lanes = np.zeros((rows, -(-width // pixel), pixel), np.uint8)
    lanes.reshape(rows, -1)[:, :width] = raw
    out = _skewed(kinds, lanes) if kinds.max() > 2 else _straight(kinds, lanes)
    return out.reshape(rows, -1)[:, :width]


def _straight(kinds: np.ndarray, lanes: np.ndarray) -> np.ndarray:
    """None, Sub and Up are running sums along one axis."""
    out = lanes
    sub = kinds == 1
    out[sub] = np.cumsum(out[sub], axis=1, dtype=np.uint8)
    starts = np.flatnonzero(kinds != 2)
    for begin, end in zip([0, *starts], [*starts, len(kinds)], strict=True):
        out[begin:end] = np.cumsum(out[begin:end], axis=0, dtype=np.uint8)
    return out


def _skewed(kinds: np.ndarray, lanes: np.ndarray) -> np.ndarray:
    """All five filters, one anti-diagonal at a time.

    Average and Paeth need the pixel to the left, the one above and the one above left, so that a row is sequential;
    but the pixels with equal row + column need nothing of each other, and are computed together.
    """
    rows, columns, pixel = lanes.shape
    out = np.zeros((rows + 1, columns + 1, pixel), np.int16)  # with a zero row above and a zero column to the left
    flat = out.reshape(-1, pixel)
    source = lanes.reshape(-1, pixel)
    stride = columns + 1
    kind = kinds.astype(np.int8)[:, None]
    for diagonal in range(rows + columns - 1):
        first, last = max(0, diagonal - columns + 1), min(rows, diagonal + 1)
        row = np.arange(first, last)
        here = (row + 1) * stride + (diagonal - row) + 1
        left, up, corner = flat[here - 1], flat[here - stride], flat[here - stride - 1]
        k = kind[first:last]
        a, b, c = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
        paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, up, corner))
        add = np.select([k == 4, k == 1, k == 2, k == 3], [paeth, left, up, (left + up) >> 1], 0)
        flat[here] = (source[row * columns + (diagonal - row)] + add) & 0xFF
    return out[1:, 1:].astype(np.uint8)
