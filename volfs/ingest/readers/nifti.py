"""NIfTI-1 and NIfTI-2 (``.nii``, ``.nii.gz``).

i, j, k are x, y, z: voxels are taken as they lie, never flipped nor resampled; the affine is kept with the image. Raw
numbers are kept as well: ``scl_slope`` and ``scl_inter`` are facts beside them.
"""

from __future__ import annotations

import gzip
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.readers.packed import PackedVoxels, packing_of_file
from volfs.ingest.readers.raw import RawVoxels, Voxels
from volfs.ingest.source import Description, Fingerprint, Source, files_fingerprint, unreadable
from volfs.model.box import Box
from volfs.model.ngff import Axis, axis

_ENDING = re.compile(r"\.nii(\.gz)?\Z", re.IGNORECASE)
_NAMES = ("x", "y", "z", "t", "c", "a")
"""What the dimensions of NIfTI are called here; the sixth has no common name."""


def open_nifti(path: Path) -> Source:
    """Open a volume; BadInput if it is not one, or its data are cut short."""
    return _Nifti(path)


class _Nifti(Source):
    def __init__(self, path: Path) -> None:
        self._path = path
        header = _header(path)
        dims = [int(n) for n in header.get_data_shape()]
        while len(dims) > 3 and dims[-1] == 1:
            dims.pop()
        if not 2 <= len(dims) <= len(_NAMES) or min(dims) < 1:
            raise BadInput(f"{path} has dimensions {tuple(dims)}: 2 to {len(_NAMES)} are imported")
        dtype = header.get_data_dtype()
        self._samples = len(dtype.fields) if dtype.fields else 0  # RGB24, RGBA32
        if self._samples:
            names = dtype.names or ()
            if any(dtype[name] != np.uint8 for name in names) or "c" in _NAMES[: len(dims)]:
                raise BadInput(f"{path} holds {dtype}, which are not voxels")
            dtype = np.dtype(np.uint8)
        if dtype.kind not in "biufc":
            raise BadInput(f"{path} holds {dtype}, which are not voxels")
        # x runs fastest in the file: in C order that is the last axis.
        axes, scale = _axes(header, len(dims))
        shape = tuple(dims[::-1])
        if self._samples:
            axes, scale, shape = (*axes, axis("c")), (*scale, 1.0), (*shape, self._samples)
        offset = int(header.get_data_offset())
        self._voxels: Voxels = (
            PackedVoxels(path, "gzip", dtype, shape, offset)
            if packing_of_file(path) == "gzip"
            else RawVoxels(path, dtype, shape, offset)
        )
        self.description = Description(
            _ENDING.sub("", path.name) or path.name,
            shape,
            dtype.newbyteorder("="),
            axes,
            scale,
            (*(1,) * (len(shape) - 1), shape[-1]) if not self._samples else (*(1,) * (len(shape) - 2), *shape[-2:]),
            rgb=bool(self._samples),
            facts=_facts(header),
        )

    def read(self, box: Box) -> np.ndarray:
        return self._voxels.read(box)

    def fingerprint(self) -> Fingerprint:
        return files_fingerprint([self._path])

    def close(self) -> None:
        self._voxels.close()


def _header(path: Path) -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise BadInput("NIfTI files need the package nibabel: pip install 'volfs[import]'") from error
    try:
        with gzip.open(path) if packing_of_file(path) == "gzip" else path.open("rb") as file:
            # Not nibabel.load: images forget where their voxels begin, and their slope.
            size = file.read(4)
            kind = nibabel.Nifti2Header if 540 in _both_orders(size) else nibabel.Nifti1Header
            file.seek(0)
            header = kind.from_fileobj(file)  # type: ignore[no-untyped-call]
    except Exception as error:  # nibabel and its readers raise whatever the damage leads to
        raise unreadable(path, error) from error
    if bytes(header["magic"])[:2] != b"n+":
        raise BadInput(f"{path} is not a NIfTI file with its voxels inside")
    return header


def _both_orders(raw: bytes) -> tuple[int, int]:
    return int.from_bytes(raw, "little"), int.from_bytes(raw, "big")


def _axes(header: Any, ndim: int) -> tuple[tuple[Axis, ...], tuple[float, ...]]:
    """Axes and voxel sizes, slowest first."""
    space, time = header.get_xyzt_units()
    units = {"meter": "meter", "mm": "millimeter", "micron": "micrometer"}
    times = {"sec": "second", "msec": "millisecond", "usec": "microsecond"}
    axes, scale = [], []
    zooms = header.get_zooms()
    for i in range(ndim):
        name = _NAMES[i]
        unit = units.get(space) if i < 3 else times.get(time) if name == "t" else None
        size = float(zooms[i]) if i < min(4, len(zooms)) else 1.0
        axes.append(axis(name, unit))
        scale.append(size if math.isfinite(size) and size > 0 else 1.0)
    return tuple(axes[::-1]), tuple(scale[::-1])


def _facts(header: Any) -> dict[str, Any]:
    """What the header says beyond shape and voxel size. The affine takes (i, j, k, 1) = (x, y, z, 1) to millimetres
    or whatever the unit is."""
    facts: dict[str, Any] = {
        "format": "nifti",
        "affine": [[float(n) for n in row] for row in header.get_best_affine()],
        "qform_code": int(header["qform_code"]),
        "sform_code": int(header["sform_code"]),
    }
    for name in ("scl_slope", "scl_inter"):
        value = float(header[name])
        if math.isfinite(value):
            facts[name] = value
    for name in ("descrip", "intent_name"):
        text = bytes(header[name]).rstrip(b"\0").decode("latin1").strip()
        if text:
            facts[name] = text
    if int(header["intent_code"]):
        facts["intent_code"] = int(header["intent_code"])
    return facts
