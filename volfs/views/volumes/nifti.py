"""NIfTI-1.1 and NIfTI-2 (``.nii``, one file: nifti1.h and nifti2.h of the NIfTI Data Format Working Group).

x, y, z, then t as the fourth dimension and any one further axis (channels, say) as the fifth, as the standard has
them; voxels are never flipped. A file is NIfTI-2 where an axis is longer than 32,767 or a size is beyond a float of 32
bits, else NIfTI-1. Red, green, blue (and alpha) are the data types RGB24 and RGBA32. bool is uint8; there is no
float16.

Positions are in millimetres and seconds where units are known, which is what most readers take for granted; else the
units are unknown and sizes are as the image has them. Without an orientation from elsewhere x, y, z lie along the axes
of space. Both qform and sform say so; only sform where a quaternion cannot (shears, or too few digits).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from volfs.views.layout import Layout, Literal, Voxels
from volfs.views.volume import ShownAxis, VolumeFormat, VolumeSpec
from volfs.views.volumes.placing import SECOND, grid, placed, plain, space_grid, time_axis

_CODES = {
    "bool": 2,
    "uint8": 2,
    "int16": 4,
    "int32": 8,
    "float32": 16,
    "complex64": 32,
    "float64": 64,
    "int8": 256,
    "uint16": 512,
    "uint32": 768,
    "int64": 1024,
    "uint64": 1280,
    "complex128": 1792,
}
_COLOUR_CODES = {3: 128, 4: 2304}
_MILLIMETRES, _SECONDS = 2, 8
_LABEL_INTENT = 1002
_SCANNER = 1
"""The code of coordinates that come from the instrument."""
_LONGEST = 32_767
_STRAIGHT = 1e-5
"""How far axes may be from perpendicular for a quaternion to say where they point."""
_TURN = 1e-4
"""How far a quaternion of 32-bit floats may be off: it loses digits near half a turn."""

_NIFTI1 = struct.Struct("<i10s18sihcB8h3f4h8f3fhBB4f2i80s24s2h18f16s4s")
_NIFTI2 = struct.Struct("<i8s2h8q3d8dq6d2q80s24s2i18d3i16sB15s")
_NO_EXTENSIONS = bytes(4)


@dataclass(frozen=True, slots=True)
class _Place:
    """What a header says of space and time, with three dimensions of space in any case."""

    affine: np.ndarray
    zooms: tuple[float, ...]
    """Voxel sizes from the first dimension on."""
    time_origin: float
    units: int


def _holds(spec: VolumeSpec) -> bool:
    if not placed(spec) or len(_further(spec)) > 1 or not np.isfinite(_place(spec).affine).all():
        return False
    if spec.has_samples:
        return spec.dtype == np.uint8 and spec.samples in _COLOUR_CODES
    return spec.dtype.name in _CODES


def _layout(spec: VolumeSpec) -> Layout:
    time = time_axis(spec)
    axes = [*_further(spec), *([time] if time else []), *spec.space, *spec.axes[len(spec.axes) - spec.has_samples :]]
    stored = np.dtype(np.uint8) if spec.dtype.kind == "b" else spec.dtype.newbyteorder("<")
    return Layout(Literal(_header(spec)), Voxels(spec.box, spec.order_of(axes), stored))


def _further(spec: VolumeSpec) -> tuple[ShownAxis, ...]:
    """The axes besides x, y, z, t."""
    time = time_axis(spec)
    return tuple(axis for axis in spec.others if axis is not time)


def _dims(spec: VolumeSpec) -> list[int]:
    """``dim``: how many dimensions there are, and the size of each."""
    time, further = time_axis(spec), _further(spec)
    sizes = [axis.size for axis in spec.space[::-1]]
    if time or further:
        sizes += [1] * (3 - len(sizes))
        sizes.append(time.size if time else 1)
        sizes += [axis.size for axis in further]
    return [len(sizes), *sizes] + [1] * (7 - len(sizes))


def _place(spec: VolumeSpec) -> _Place:
    along = space_grid(spec)
    if spec.affine is not None:
        affine = np.array(spec.affine)
    else:
        steps, origin = (*along.steps, 1.0)[:3], (*along.origin, 0.0)[:3]
        affine = np.column_stack((np.diag(steps), origin))
    units = _MILLIMETRES if along.known else 0
    zooms = [math.hypot(*column) for column in affine[:, :3].T]
    time, time_origin = time_axis(spec), 0.0
    if time:
        steps_of_time = grid((time,), SECOND)
        zooms += steps_of_time.steps
        (time_origin,) = steps_of_time.origin
        units |= _SECONDS if steps_of_time.known else 0
    else:
        zooms.append(1.0)
    zooms += [axis.scale for axis in _further(spec)]
    return _Place(affine, (*zooms, *[1.0] * (7 - len(zooms))), time_origin, units)


def _header(spec: VolumeSpec) -> bytes:
    dims, place = _dims(spec), _place(spec)
    long = max(dims) > _LONGEST or not _fits_float32(place)
    if spec.has_samples:
        code, bits = _COLOUR_CODES[spec.samples], spec.samples * 8
    else:
        code, bits = _CODES[spec.dtype.name], spec.dtype.itemsize * 8
    intent = _LABEL_INTENT if spec.is_label else 0
    title = plain(spec.title).encode()[:79]
    turn, handed = _quaternion(place.affine, np.dtype(np.float64 if long else np.float32))
    pixdim = (handed, *place.zooms)
    forms = (_SCANNER if turn is not None else 0, _SCANNER)
    where = (*(turn or (0.0, 0.0, 0.0)), *place.affine[:, 3], *place.affine.ravel())
    if long:
        return _NIFTI2.pack(
            _NIFTI2.size, b"n+2\0\r\n\x1a\n", code, bits, *dims, 0.0, 0.0, 0.0, *pixdim,
            _NIFTI2.size + 4, 1.0, 0.0, 0.0, 0.0, 0.0, place.time_origin, 0, 0, title, b"", *forms, *where,
            0, place.units, intent, b"", 0, b"",
        ) + _NO_EXTENSIONS  # fmt: skip
    return _NIFTI1.pack(
        _NIFTI1.size, b"", b"", 0, 0, b"r", 0, *dims, 0.0, 0.0, 0.0, intent, code, bits, 0, *pixdim,
        _NIFTI1.size + 4, 1.0, 0.0, 0, 0, place.units, 0.0, 0.0, 0.0, place.time_origin, 0, 0, title, b"",
        *forms, *where, b"", b"n+1\0",
    ) + _NO_EXTENSIONS  # fmt: skip


def _fits_float32(place: _Place) -> bool:
    single = np.finfo(np.float32)
    numbers = np.abs([*place.affine.ravel(), place.time_origin])
    sizes = np.array(place.zooms)
    return bool(numbers.max() <= single.max and sizes.max() <= single.max and sizes.min() >= single.tiny)


def _quaternion(affine: np.ndarray, dtype: np.dtype[np.floating]) -> tuple[tuple[float, ...] | None, float]:
    """The b, c, d of ``quatern_*``, and ``qfac``; None where an affine is not a turn of boxes, or floats of ``dtype``
    cannot say which."""
    turned = affine[:, :3] / np.linalg.norm(affine[:, :3], axis=0)
    handed = -1.0 if np.linalg.det(turned) < 0 else 1.0
    turned[:, 2] *= handed
    if np.abs(turned.T @ turned - np.eye(3)).max() > _STRAIGHT:
        return None, handed
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = turned
    # Four times the products of a, b, c, d with each other: each row is the quaternion, but for its length.
    products = np.array(
        [
            [1 + xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz],
        ]
    )
    best = products[np.argmax(products.diagonal())]
    quaternion = best / np.linalg.norm(best) * (-1.0 if best[0] < 0 else 1.0)
    stored = quaternion[1:].astype(dtype).astype(np.float64)
    if abs(math.sqrt(max(0.0, 1.0 - float(stored @ stored))) - quaternion[0]) > _TURN:
        return None, handed
    return tuple(float(part) for part in stored), handed


FORMATS = (VolumeFormat(".nii", 3, _holds, _layout),)
