"""Neuroglancer's compressed_segmentation, by
https://github.com/google/neuroglancer/tree/master/src/sliceview/compressed_segmentation.

Written here because the library for it trusts the offsets in its input: damaged chunks make it read memory that is not
its own, and end the process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from volfs.model.box import Index

_WIDTHS = (0, 1, 2, 4, 8, 16, 32)


def decode_segmentation(data: bytes, shape: Index, dtype: np.dtype[Any], cells: Sequence[int]) -> np.ndarray:
    """The labels of a chunk of ``shape`` (c, z, y, x); ``cells`` is the size of its blocks (x, y, z). ValueError if it
    is damaged."""
    if len(cells) != 3 or min(cells) < 1 or math.prod(cells) > 1 << 24:
        raise ValueError(f"blocks of {tuple(cells)} cannot be")
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes are not 32-bit words")
    words = np.frombuffer(data, "<u4")
    out = np.empty(shape, dtype)
    for channel in range(shape[0]):
        start = int(_take(words, np.array([channel]))[0])
        if start > len(words):
            raise ValueError("a channel begins behind the end")
        _decode_channel(words[start:], out[channel], tuple(cells[::-1]))
    return out


def _decode_channel(words: np.ndarray, out: np.ndarray, cell: Index) -> None:
    """One channel. Blocks of equal width are decoded together."""
    grid = tuple(-(-n // c) for n, c in zip(out.shape, cell, strict=True))
    count = math.prod(grid)
    headers = _take(words, np.arange(2 * count)).astype(np.int64).reshape(count, 2)
    tables, widths, values = headers[:, 0] & 0xFFFFFF, headers[:, 0] >> 24, headers[:, 1]
    whole = np.empty((*grid, *cell), out.dtype).reshape(count, math.prod(cell))
    at = np.arange(math.prod(cell), dtype=np.int64)
    for width in np.unique(widths).tolist():
        if width not in _WIDTHS:
            raise ValueError(f"labels of {width} bits cannot be")
        per_word = 32 // width if width else 1
        for some in np.array_split(np.flatnonzero(widths == width), max(1, int(np.sum(widths == width)) // 4096)):
            index = np.zeros((len(some), len(at)), np.int64)
            if width:
                packed = _take(words, values[some, None] + at[None, :] // per_word).astype(np.int64)
                index = packed >> (at % per_word * width) & ((1 << width) - 1)
            if out.dtype.itemsize == 4:
                whole[some] = _take(words, tables[some, None] + index)
            else:
                low = tables[some, None] + 2 * index
                whole[some] = _take(words, low).astype(np.uint64) | _take(words, low + 1).astype(
                    np.uint64
                ) << np.uint64(32)
    blocks = whole.reshape(*grid, *cell).transpose(0, 3, 1, 4, 2, 5)
    joined = blocks.reshape([g * c for g, c in zip(grid, cell, strict=True)])
    out[...] = joined[tuple(slice(n) for n in out.shape)]


def _take(words: np.ndarray, index: np.ndarray) -> np.ndarray:
    """``words[index]``, for indices that come from outside."""
    if index.size and int(index.max()) >= len(words):
        raise ValueError("it points behind its end")
    found: np.ndarray = words[index]
    return found
