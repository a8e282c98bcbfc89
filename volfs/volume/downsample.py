"""The arithmetic between two levels of a pyramid: exact, the same everywhere, whatever the blocks it is done in.

Decided here: what one coarse voxel is, given the fine voxels it covers. Sizes round up; a coarse voxel at the far
edge covers fewer fine ones, and only those that exist count.

- `mean`: integers exactly, half to even; floating point and complex numbers in double precision, then cast;
  booleans as `mode`.
- `mode`: the most frequent value, of several the smallest.
- `first`: the voxel at the lowest index, for types without arithmetic.

Not here: which boxes need it (:mod:`volfs.volume.pyramid`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from volfs.errors import BadInput
from volfs.model.ngff import METHODS, Method, downsampled_shape
from volfs.native import core

Voxels = npt.NDArray[Any]

#: Fine voxels taken at once: small enough that every intermediate stays in a core's cache.
_BLOCK_VOXELS = 1 << 18

#: One piece of work: where the fine voxels are, where the coarse ones go, and the factors, which divide the piece.
_Piece = tuple[tuple[slice, ...], tuple[slice, ...], tuple[int, ...]]


def method_for(dtype: np.dtype[Any], is_label: bool) -> Method:
    """The method a new pyramid over voxels of this type gets."""
    if dtype.kind == "b":
        return "mode"
    if dtype.kind in "iu":
        return "mode" if is_label else "mean"
    return "mean" if dtype.kind in "fc" else "first"


def downsample(array: Voxels, factors: Sequence[int], method: Method = "mean", out: Voxels | None = None) -> Voxels:
    """The next coarser level of `array`: `factors` fine voxels make one, along each axis; sizes round up.

    The result has the type of `array` (native byte order). Memory beyond input and output is a few megabytes. The
    result of a box whose edges are multiples of the factors (or the array's end) is that box of the whole's result.
    """
    if len(factors) != array.ndim or any(f < 1 for f in factors):
        raise BadInput(f"cannot downsample {array.ndim} axes by {tuple(factors)}")
    if method not in METHODS:
        raise BadInput(f"unknown downsampling method {method!r}")
    shape = downsampled_shape(array.shape, factors)
    if out is None:
        out = np.empty(shape, array.dtype.newbyteorder("="))
    elif out.shape != shape:
        raise BadInput(f"downsampling {array.shape} by {tuple(factors)} gives {shape}, not {out.shape}")
    if method == "mean" and array.dtype.kind == "b":
        method = "mode"
    if method == "mean" and array.dtype.kind not in "iufc":
        method = "first"
    if _by_c(array, out, factors, method):
        return out
    reduce = {"mean": _mean, "mode": _mode, "first": _first}[method]
    with np.errstate(all="ignore"):
        for source, target, by in _pieces(array.shape, tuple(factors)):
            piece = array[source]
            if not piece.dtype.isnative:
                piece = piece.astype(piece.dtype.newbyteorder("="))
            out[target] = piece if max(by, default=1) == 1 else reduce(piece, by)
    return out


def _by_c(array: Voxels, out: Voxels, factors: Sequence[int], method: Method) -> bool:
    """Have C do it (``volfs/native/downsample.h``). False if it does not."""
    if core is None or method == "first" or array.dtype != out.dtype or not array.dtype.isnative or not array.size:
        return False
    if array.dtype.kind not in "biuf" or max(factors, default=1) == 1:
        return False
    item = f"u{array.dtype.itemsize}"
    done: bool = core.downsample(array.view(item), out.view(item), tuple(factors), array.dtype.kind, method == "mode")
    return done


def _pieces(shape: tuple[int, ...], factors: tuple[int, ...]) -> Iterator[_Piece]:
    """Cut the work so that within a piece every coarse voxel covers equally many fine ones, and pieces are small."""
    per_axis: list[list[tuple[slice, slice, int]]] = []
    room = _BLOCK_VOXELS
    # The last axis is left whole as long as it fits, then the one before it: numpy is fastest on long rows.
    for size, factor in zip(reversed(shape), reversed(factors), strict=True):
        whole = size // factor
        step = max(1, min(whole, room // factor))
        room = max(1, room // (step * factor))
        cuts = [
            (slice(at * factor, min(at + step, whole) * factor), slice(at, min(at + step, whole)), factor)
            for at in range(0, whole, step)
        ]
        if size % factor:
            cuts.append((slice(whole * factor, size), slice(whole, whole + 1), size % factor))
        per_axis.append(cuts)
    for combination in itertools.product(*reversed(per_axis)):
        yield tuple(c[0] for c in combination), tuple(c[1] for c in combination), tuple(c[2] for c in combination)


def _strided(piece: Voxels, factors: tuple[int, ...]) -> Iterator[Voxels]:
    """The fine voxels of every coarse one, as views in C order: the first of each, the second of each, …"""
    for offset in itertools.product(*(range(f) for f in factors)):
        yield piece[tuple(slice(o, None, f) for o, f in zip(offset, factors, strict=True))]


def _first(piece: Voxels, factors: tuple[int, ...]) -> Voxels:
    first: Voxels = next(_strided(piece, factors))
    return first


# --------------------------------------------------------------------------------------------------------- mean

_WIDER = {1: "2", 2: "4", 4: "8"}


def _mean(piece: Voxels, factors: tuple[int, ...]) -> Voxels:
    count = math.prod(factors)
    kind, itemsize = piece.dtype.kind, piece.dtype.itemsize
    if kind in "fc":
        wide = np.dtype(np.complex128 if kind == "c" else np.float64)
        return _sum(piece, factors, np.promote_types(wide, piece.dtype)) / count
    if itemsize == 8:
        return _mean_of_64_bit(piece, factors, count)
    # 64 times the largest 8-bit value fits in 16 bits; larger factors than 2 in six axes take the next type.
    width = _WIDER[itemsize] if count <= 64 else "8"
    total = _sum(piece, factors, np.dtype(kind + width))
    if count & (count - 1):
        quotient, rest = np.divmod(total, count)
        rounded: Voxels = quotient + ((2 * rest > count) | ((2 * rest == count) & (quotient & 1 == 1)))
        return rounded
    # Half to even with shifts: the quotient's last bit decides whether exactly one half is carried.
    shift = count.bit_length() - 1
    odd = total >> shift
    odd &= 1
    total += odd
    total += count // 2 - 1
    total >>= shift
    return total


def _sum(piece: Voxels, factors: tuple[int, ...], dtype: np.dtype[Any]) -> Voxels:
    """Sum axis by axis, first axis first: rows stay contiguous until most of the data is gone."""
    total = piece
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        lead = (slice(None),) * axis
        parts = [total[(*lead, slice(o, None, factor))] for o in range(factor)]
        total = np.add(parts[0], parts[1], dtype=dtype)
        for part in parts[2:]:
            total += part
    return total


def _mean_of_64_bit(piece: Voxels, factors: tuple[int, ...], count: int) -> Voxels:
    """No wider integers exist: sum quotients and remainders apart."""
    quotient: Voxels | int = 0
    rest: Voxels | int = 0
    divisor = piece.dtype.type(count)
    for part in _strided(piece, factors):
        q, r = np.divmod(part, divisor)
        quotient, rest = quotient + q, rest + r
    carry, rest = np.divmod(rest, divisor)
    quotient = quotient + carry
    double = rest * piece.dtype.type(2)
    up = (double > divisor) | ((double == divisor) & (quotient & piece.dtype.type(1) == 1))
    result: Voxels = quotient + up.astype(piece.dtype)
    return result


# --------------------------------------------------------------------------------------------------------- mode


def _mode(piece: Voxels, factors: tuple[int, ...]) -> Voxels:
    if piece.dtype.kind == "b":
        trues = _sum(piece.view(np.uint8), factors, np.dtype(np.uint32))
        result: Voxels = trues * 2 > math.prod(factors)
        return result
    parts = list(_strided(piece, factors))
    result = parts[0].copy()
    # Segmentations are mostly flat: only where the voxels differ is there anything to count.
    mixed = np.zeros(result.shape, bool)
    for part in parts[1:]:
        mixed |= part != result
    if mixed.any():
        result[mixed] = _mode_of_rows([part[mixed] for part in parts])
    return result


def _mode_of_rows(rows: list[Voxels]) -> Voxels:
    """The mode down each column, by sorting the columns and finding the longest run; the first of equal ones wins."""
    if len(rows) & (len(rows) - 1) or len(rows) > 16 or rows[0].dtype.kind not in "iu":
        rows = list(np.sort(np.stack(rows), axis=0))
    else:
        for low, high in _sorting_network(len(rows)):
            rows[low], rows[high] = np.minimum(rows[low], rows[high]), np.maximum(rows[low], rows[high])
    best = rows[0].copy()
    longest = np.ones(best.shape, np.uint32)
    run = np.ones(best.shape, np.uint32)
    for before, row in itertools.pairwise(rows):
        run = np.where(row == before, run + 1, 1)
        longer = run > longest
        longest[longer] = run[longer]
        best[longer] = row[longer]
    return best


@cache
def _sorting_network(count: int) -> tuple[tuple[int, int], ...]:
    """Batcher's odd-even merge sort for a power of two: the comparisons, in order (Knuth, TAOCP 3, 5.2.2 M)."""
    pairs = []
    p = count // 2
    while p:
        q, r, d = count // 2, 0, p
        while True:
            pairs += [(i, i + d) for i in range(count - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2
    return tuple(pairs)
