"""NPY slices (NumPy NEP 1, format 1.0): C order, little-endian, any dtype; rows, columns and samples as axes."""

from __future__ import annotations

import ast
import struct
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from volfs.errors import BadInput
from volfs.model.box import Index
from volfs.views.layout import Layout, Literal, Voxels
from volfs.views.plane import Incomplete, PlaneSpec, describe

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000


def header(shape: Index, dtype: np.dtype[Any]) -> bytes:
    """The header of a C-order array: 64-byte aligned, so that the voxels after it can be mapped."""
    little = dtype.newbyteorder("<")
    text = f"{{'descr': {npy_format.dtype_to_descr(little)!r}, 'fortran_order': False, 'shape': {tuple(shape)!r}, }}"
    padding = -(len(_MAGIC) + 4 + len(text) + 1) % 64
    body = (text + " " * padding + "\n").encode("latin1")
    return _MAGIC + b"\x01\x00" + struct.pack("<H", len(body)) + body


def holds(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of this dtype have an NPY file that loads without pickles."""
    return dtype.kind in "biufcV" and dtype.fields is None and dtype.subdtype is None


def layout(plane: PlaneSpec) -> Layout:
    """The slice as an NPY file of exact size."""
    voxels = Voxels(plane.box, plane.order, plane.dtype.newbyteorder("<"))
    return Layout(Literal(header(plane.shape, plane.dtype)), voxels)


def decode(data: bytes | bytearray | memoryview, plane: PlaneSpec) -> np.ndarray:
    """The voxels of ``plane.box``, in the axis order of the level, from a whole NPY file.

    Either byte order and either memory order will do. Incomplete when the file ends early, BadInput when it is
    damaged or holds something else than the slice does.
    """
    view = memoryview(data).cast("B")
    shape, dtype, fortran, start = _header(view)
    if shape != plane.shape or dtype.newbyteorder("=") != plane.dtype:
        raise BadInput(f"expected {plane.describe()}, got {describe(shape, dtype)}")
    size = plane.box.size * dtype.itemsize
    if len(view) < start + size:
        raise Incomplete("the NPY file ends early")
    if len(view) > start + size:
        raise BadInput(f"the NPY file has {len(view) - start - size} bytes after its array")
    flat = np.frombuffer(view[start:], dtype)
    return plane.voxels(flat.reshape(shape, order="F" if fortran else "C").astype(plane.dtype, copy=False))


def _header(view: memoryview) -> tuple[Index, np.dtype[Any], bool, int]:
    """Shape, dtype, memory order, and where the array starts."""
    start = bytes(view[:6])
    if not any(start) or (len(start) < 6 and _MAGIC.startswith(start)):
        raise Incomplete("the NPY file is not complete yet")
    if start != _MAGIC:
        raise BadInput("this is not an NPY file")
    if len(view) < 12:
        raise Incomplete("the NPY file ends early")
    if view[6] not in (1, 2, 3):
        raise BadInput(f"NPY version {view[6]} is not known")
    at, width = (10, 2) if view[6] == 1 else (12, 4)
    length = int.from_bytes(view[8 : 8 + width], "little")
    if length > _MAX_HEADER:
        raise BadInput("the header of the NPY file is too long")
    if len(view) < at + length:
        raise Incomplete("the NPY file ends early")
    try:
        fields = ast.literal_eval(bytes(view[at : at + length]).decode("utf-8").strip())
        shape, fortran = fields["shape"], fields["fortran_order"]
        dtype = np.dtype(fields["descr"])
        if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape) and type(fortran) is bool):
            raise ValueError("not a header")
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError) as error:
        raise BadInput("the header of the NPY file is damaged") from error
    if not holds(dtype):
        raise BadInput(f"NPY files of dtype {dtype} are not taken")
    return shape, dtype, fortran, at + length
