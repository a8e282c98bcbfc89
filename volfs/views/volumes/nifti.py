"""NIfTI-1.1 and NIfTI-2 (``.nii``, one file: nifti1.h and nifti2.h of the NIfTI Data Format Working Group).

x, y, z, then t as the fourth dimension and any one further axis (channels, say) as the fifth, as the standard has
them; voxels are never flipped. A file is NIfTI-2 where an axis is longer than 32,767, a size is beyond a float of 32
bits, or the image came as NIfTI-2; else it is NIfTI-1. Red, green, blue (and alpha) are the data types RGB24 and
RGBA32. bool is uint8; there is no float16.

Positions are in millimetres and seconds where units are known, which is what most readers take for granted; else the
units are unknown and sizes are as the image has them. Without an orientation from elsewhere x, y, z lie along the axes
of space. Both qform and sform say so; only sform where a quaternion cannot (shears, or too few digits).

An image that came as NIfTI keeps the codes of its forms and what else its header said; one that had no orientation
gets none. ``scl_slope`` and ``scl_inter`` are the image's rescale, whatever it came from.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from volfs.model.facts import Rescale, matrix_of, numbers_of, text_of
from volfs.views.layout import Layout, Literal, Voxels
from volfs.views.volume import ShownAxis, VolumeFormat, VolumeSpec
from volfs.views.volumes.orientation import SECOND, directions, grid, placed, plain, space_grid, time_axis

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
_OF_TIME = 0x38
_TIME_UNITS = {"sec": 8, "msec": 16, "usec": 24, "hz": 32, "ppm": 40, "rads": 48}
"""Facts about the fourth dimension of a source, where it is no time axis here: it is absent, or of frequencies."""
_LABEL_INTENTS = (1002, 1003)
"""A label image, and one of names of the brain's parts."""
_SCANNER, _ALIGNED = 1, 2
"""The codes of coordinates that come from the instrument, and of those that come from somewhere."""
_LARGEST_CODE = 99
_LARGEST_SINGLE = float(np.finfo(np.float32).max)
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
    """The part of a header about space and time, always with three dimensions of space."""

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
        steps, origin = (*(along.steps * directions(spec)), 1.0)[:3], (*along.origin, 0.0)[:3]
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
    if not units & _OF_TIME and spec.facts.get("format") == "nifti":
        units |= _TIME_UNITS.get(text_of(spec.facts, "time_units"), 0)
    zooms += [axis.scale for axis in _further(spec)]
    return _Place(affine, (*zooms, *[1.0] * (7 - len(zooms))), time_origin, units)


def _header(spec: VolumeSpec) -> bytes:
    dims, place = _dims(spec), _place(spec)
    told_as_2 = spec.facts.get("format") == "nifti" and spec.facts.get("version") == 2
    long = told_as_2 or max(dims) > _LONGEST or not _fits_float32(spec, place)
    if spec.has_samples:
        code, bits = _COLOUR_CODES[spec.samples], spec.samples * 8
    else:
        code, bits = _CODES[spec.dtype.name], spec.dtype.itemsize * 8
    turned, forms = _forms(spec, place)
    if not np.isfinite(turned).all() or np.linalg.matrix_rank(turned[:, :3]) < 3:
        turned, forms = place.affine, (0, forms[1])
    turn, handed = _quaternion(turned, np.dtype(np.float64 if long else np.float32))
    if turn is None:
        forms = (0, forms[1] or forms[0])
    pixdim = (handed, *_pixdim(spec, place, turned))
    rows = place.affine if forms[1] else np.zeros_like(place.affine)
    shift = turned[:, 3] if forms[0] else (0.0, 0.0, 0.0)
    where = (*(turn or (0.0, 0.0, 0.0)), *shift, *rows.ravel())
    told = _Told.of(spec)
    rescale = spec.rescale if spec.rescale is not None and not spec.has_samples else Rescale()
    scale = (rescale.slope, rescale.intercept)
    extensions = _extensions(spec)
    if long:
        return _NIFTI2.pack(
            _NIFTI2.size, b"n+2\0\r\n\x1a\n", code, bits, *dims, *told.parameters, *pixdim,
            _NIFTI2.size + len(extensions), *scale, *told.window, told.duration, place.time_origin, *told.slices,
            told.text, told.file, *forms, *where, told.slice_code, place.units, told.intent, told.intent_name,
            told.dimensions, b"",
        ) + extensions  # fmt: skip
    return _NIFTI1.pack(
        _NIFTI1.size, b"", b"", 0, 0, b"r", told.dimensions, *dims, *told.parameters, told.intent, code, bits,
        told.slices[0], *pixdim, _NIFTI1.size + len(extensions), *scale, told.slices[1], told.slice_code, place.units,
        *told.window, told.duration, place.time_origin, 0, 0, told.text, told.file, *forms, *where, told.intent_name,
        b"n+1\0",
    ) + extensions  # fmt: skip


def _codes(spec: VolumeSpec) -> tuple[int, int] | None:
    """The codes of qform and sform of the file that the image came from, if it was NIfTI."""
    if spec.facts.get("format") != "nifti":
        return None
    found = [spec.facts.get(name) for name in ("qform_code", "sform_code")]
    codes = [code if isinstance(code, int) and 0 <= code <= _LARGEST_CODE else 0 for code in found]
    return codes[0], codes[1]


def _forms(spec: VolumeSpec, place: _Place) -> tuple[np.ndarray, tuple[int, int]]:
    """The matrix of qform, and the codes of qform and sform; sform has that of the place."""
    codes = _codes(spec)
    if codes is None:
        return place.affine, (_SCANNER, _SCANNER)
    if spec.affine is None or codes == (0, 0):
        # The file had no orientation. A part of the volume needs one to say where it lies, and that is no scanner's.
        return place.affine, (0, _ALIGNED if place.affine[:, 3].any() or (directions(spec) < 0).any() else 0)
    own, told = matrix_of(spec.facts, "qform"), matrix_of(spec.facts, "affine")
    if min(codes) > 0 and own is not None and told is not None and own[:3, :3].any() and told[:3, :3].any():
        unit = np.linalg.norm(place.affine[:, :3]) / np.linalg.norm(told[:3] @ spec.to_finest[:, :3])
        return (own @ spec.to_finest)[:3] * unit, codes
    return place.affine, codes


def _pixdim(spec: VolumeSpec, place: _Place, turned: np.ndarray) -> tuple[float, ...]:
    """Voxel sizes: those of qform, where it has its own, or those of the source beside its sform."""
    told = numbers_of(spec.facts, "pixdim", 3) or (numbers_of(spec.facts, "pixdim", 4) or ())[:3]
    codes, affine = _codes(spec), matrix_of(spec.facts, "affine")
    if turned is not place.affine:
        return (*(math.hypot(*column) for column in turned[:, :3].T), *place.zooms[3:])
    if not told or codes is None or codes[0] or not spec.finest or min(told) <= 0 or affine is None:
        return place.zooms
    length = float(np.linalg.norm(affine[:3, 0]))
    unit = place.zooms[0] / length if length > 0 else 1.0
    return (*(size * unit for size in told), *place.zooms[3:])


@dataclass(frozen=True, slots=True)
class _Told:
    """The header fields of the file that the image came from that hold for this one, too."""

    text: bytes
    file: bytes = b""
    intent: int = 0
    intent_name: bytes = b""
    parameters: tuple[float, ...] = (0.0, 0.0, 0.0)
    window: tuple[float, float] = (0.0, 0.0)
    dimensions: int = 0
    slices: tuple[int, int] = (0, 0)
    slice_code: int = 0
    duration: float = 0.0

    @classmethod
    def of(cls, spec: VolumeSpec) -> _Told:
        facts = spec.facts if spec.facts.get("format") == "nifti" else {}
        intent = _whole(facts, "intent_code", 32_767)
        if spec.is_label and intent not in _LABEL_INTENTS:
            intent = _LABEL_INTENTS[0]
        elif not spec.is_label and intent in _LABEL_INTENTS:
            intent = 0
        slices = _whole(facts, "slice_start", 32_767), _whole(facts, "slice_end", 32_767)
        timed = spec.complete
        return cls(
            plain(text_of(facts, "descrip") if facts else spec.title).encode()[:79],
            plain(text_of(facts, "aux_file")).encode()[:23],
            intent,
            plain(text_of(facts, "intent_name")).encode()[:15],
            (_float(facts, "intent_p1"), _float(facts, "intent_p2"), _float(facts, "intent_p3")),
            (_float(facts, "cal_max"), _float(facts, "cal_min")),
            _whole(facts, "dim_info", 255),
            slices if timed else (0, 0),
            _whole(facts, "slice_code", 255) if timed else 0,
            _float(facts, "slice_duration") if timed else 0.0,
        )


def _float(facts: Mapping[str, Any], name: str) -> float:
    value = facts.get(name)
    known = isinstance(value, int | float) and abs(value) <= _LARGEST_SINGLE
    return float(value) if known else 0.0  # type: ignore[arg-type]


def _whole(facts: Mapping[str, Any], name: str, most: int) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) and 0 <= value <= most else 0


def _extensions(spec: VolumeSpec) -> bytes:
    """The extensions after the header: those of the file that the image came from, where this is the whole of it."""
    found = spec.facts.get("extensions") if spec.facts.get("format") == "nifti" and spec.complete else None
    made = b""
    for one in found if isinstance(found, Sequence) and not isinstance(found, str) else ():
        try:
            content = base64.b64decode(one["base64"], validate=True)
            size = -(-(len(content) + 8) // 16) * 16
            made += struct.pack("<2i", size, one["code"]) + content.ljust(size - 8, b"\0")
        except (TypeError, KeyError, ValueError, struct.error):
            continue
    return (b"\1\0\0\0" if made else _NO_EXTENSIONS) + made


def _fits_float32(spec: VolumeSpec, place: _Place) -> bool:
    single = np.finfo(np.float32)
    rescale = spec.rescale or Rescale()
    numbers = np.abs([*place.affine.ravel(), place.time_origin, rescale.slope, rescale.intercept])
    sizes = np.array([*place.zooms, abs(rescale.slope)])
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
