"""NIfTI-1 and NIfTI-2 (``.nii``, ``.nii.gz``; ``.hdr`` with ``.img``).

i, j, k are x, y, z: voxels are taken as they lie, never flipped nor resampled, and their stored numbers as well:
``scl_slope`` and ``scl_inter`` are the image's rescale. Where voxels lie is said by sform, if it has a code, else by
qform, which are kept with their codes; without either there is no orientation. An sform tells voxel sizes too,
whatever ``pixdim`` says.
"""

from __future__ import annotations

import base64
import gzip
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.readers.packed_voxels import PackedVoxels, packing_of_file
from volfs.ingest.readers.raw import RawVoxels, Voxels
from volfs.ingest.source import Description, Fingerprint, Source, check_plain, files_fingerprint, unreadable
from volfs.model.box import Box
from volfs.model.facts import Rescale
from volfs.model.ngff import Axis, axis

_ENDING = re.compile(r"\.(nii|hdr|img)(\.gz)?\Z", re.IGNORECASE)
_OTHER = {"hdr": "img", "img": "hdr", "HDR": "IMG", "IMG": "HDR"}
_NAMES = ("x", "y", "z", "t", "c", "a")
"""What the dimensions of NIfTI are called here; the sixth has no common name."""


TEXTS = ("descrip", "intent_name", "aux_file")
NUMBERS = ("intent_p1", "intent_p2", "intent_p3", "cal_min", "cal_max", "slice_duration")
WHOLE_NUMBERS = ("intent_code", "dim_info", "slice_code", "slice_start", "slice_end")
"""Fields of the header that are facts by their own names, where they say anything."""

_LABEL_INTENTS = (1002, 1003)
"""NIFTI_INTENT_LABEL, NIFTI_INTENT_NEURONAME."""
_SIZE_OF_1, _SIZE_OF_2 = 348, 540
_LARGEST_EXTENSIONS = 64 << 10


def open_nifti(path: Path) -> Source:
    """Open a volume, of two files by either of them; BadInput if it is not one, or its data are cut short."""
    return _Nifti(header_beside(path) or path)


def header_beside(path: Path) -> Path | None:
    """The header whose voxels are in a file, if that is an ``.img``."""
    match = _ENDING.search(path.name)
    return _partner(path) if match is not None and match[1].lower() == "img" else None


def _partner(path: Path) -> Path | None:
    """The other file of a volume in two, packed or not."""
    match = _ENDING.search(path.name)
    other = _OTHER.get(match[1]) if match is not None else None
    names = [f"{path.name[: match.start()]}.{other}{packing}" for packing in ("", ".gz")] if match and other else []
    return next((found for name in names if (found := path.with_name(name)).is_file()), None)


class _Nifti(Source):
    def __init__(self, path: Path) -> None:
        header = _header(path)
        voxels = path if bytes(header["magic"])[:2] == b"n+" else _partner(path)
        if voxels is None:
            raise BadInput(f"{path} keeps its voxels in an .img file beside it, which is not there")
        check_plain(voxels)
        self._paths = [*dict.fromkeys((path, voxels))]
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
        facts = _facts(header)
        axes, scale, shift = _axes(header, len(dims), facts)
        shape = tuple(dims[::-1])
        if self._samples:
            axes, scale, shift = (*axes, axis("c")), (*scale, 1.0), (*shift, 0.0)
            shape = (*shape, self._samples)
        offset = int(header.get_data_offset())
        self._voxels: Voxels = (
            PackedVoxels(voxels, "gzip", dtype, shape, offset)
            if packing_of_file(voxels) == "gzip"
            else RawVoxels(voxels, dtype, shape, offset)
        )
        self.description = Description(
            _ENDING.sub("", path.name) or path.name,
            shape,
            dtype.newbyteorder("="),
            axes,
            scale,
            (*(1,) * (len(shape) - 1), shape[-1]) if not self._samples else (*(1,) * (len(shape) - 2), *shape[-2:]),
            rgb=bool(self._samples),
            facts=facts,
            translation=shift if any(shift) else None,
            rescale=None if self._samples else _rescale(header),
            is_label=facts.get("intent_code") in _LABEL_INTENTS,
            lost=_keep_extensions(path, header, facts),
        )

    def read(self, box: Box) -> np.ndarray:
        return self._voxels.read(box)

    def read_into(self, box: Box, out: np.ndarray) -> None:
        self._voxels.read_into(box, out)

    def fingerprint(self) -> Fingerprint:
        return files_fingerprint(self._paths)

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
            start = file.read(_SIZE_OF_1)
            size = start[:4]
            if _SIZE_OF_1 in _both_orders(size) and start[344:347] not in (b"n+1", b"ni1") and _partner(path):
                raise BadInput(f"{path} is ANALYZE 7.5, which does not say how its axes lie: convert it to NIfTI")
            kind = nibabel.Nifti2Header if _SIZE_OF_2 in _both_orders(size) else nibabel.Nifti1Header
            file.seek(0)
            header = kind.from_fileobj(file)  # type: ignore[no-untyped-call]
    except BadInput:
        raise
    except Exception as error:  # nibabel and its readers raise whatever the damage leads to
        raise unreadable(path, error) from error
    return header


def _both_orders(raw: bytes) -> tuple[int, int]:
    return int.from_bytes(raw, "little"), int.from_bytes(raw, "big")


def _axes(
    header: Any, ndim: int, facts: dict[str, Any]
) -> tuple[tuple[Axis, ...], tuple[float, ...], tuple[float, ...]]:
    """Axes, voxel sizes and translation, slowest first. Where space begins is the affine's."""
    space, time = header.get_xyzt_units()
    units = {"meter": "meter", "mm": "millimeter", "micron": "micrometer"}
    times = {"sec": "second", "msec": "millisecond", "usec": "microsecond"}
    axes, scale, shift = [], [], [0.0] * ndim
    zooms = [float(zoom) for zoom in header.get_zooms()]
    if facts["sform_code"] > 0:
        told = np.array(facts["affine"])
        lengths = np.linalg.norm(told[:3, :3], axis=0).tolist()
        single = np.finfo(np.float32).eps
        same = [math.isclose(a, b, rel_tol=8 * single) for a, b in zip(lengths, zooms, strict=False)]
        if not all(same):
            facts["pixdim"] = zooms[:4]
            zooms = [
                *(length if length > 0 else zoom for length, zoom in zip(lengths, zooms, strict=False)),
                *zooms[3:],
            ]
    for i in range(ndim):
        name = _NAMES[i]
        unit = units.get(space) if i < 3 else times.get(time) if name == "t" else None
        size = zooms[i] if i < min(4, len(zooms)) else 1.0
        axes.append(axis(name, unit))
        scale.append(size if math.isfinite(size) and size > 0 else 1.0)
        if name == "t" and math.isfinite(float(header["toffset"])):
            shift[i] = float(header["toffset"])
    if time != "unknown":
        facts["time_units"] = time  # of an axis that may not be there, or is of frequencies
    return tuple(axes[::-1]), tuple(scale[::-1]), tuple(shift[::-1])


def _rescale(header: Any) -> Rescale | None:
    """What takes stored numbers to real ones; None where that is nothing."""
    found = Rescale.of(header["scl_slope"], header["scl_inter"])
    return None if found is None or found.identity else found


def _facts(header: Any) -> dict[str, Any]:
    """What the header says beyond shape and voxel size. The affine takes (i, j, k, 1) = (x, y, z, 1) to millimetres
    or whatever the unit is; ``qform`` is there where it says something else than sform."""
    qform, sform = int(header["qform_code"]), int(header["sform_code"])
    turn = _turn(header) if qform > 0 else None
    if turn is None:
        qform = 0
    facts: dict[str, Any] = {"format": "nifti", "qform_code": qform, "sform_code": sform}
    if int(header["sizeof_hdr"]) == _SIZE_OF_2:
        facts["version"] = 2
    if sform > 0:
        facts["affine"] = _rows(header.get_sform())
    if turn is not None:
        if sform <= 0:
            facts["affine"] = turn
        elif not np.allclose(turn, facts["affine"], rtol=1e-4, atol=1e-4):
            facts["qform"] = turn
    for name in ("scl_slope", "scl_inter"):
        value = float(header[name])
        if math.isfinite(value):
            facts[name] = value
    for name in TEXTS:
        text = bytes(header[name]).rstrip(b"\0").decode("latin1").strip()
        if text:
            facts[name] = text
    for name in (*NUMBERS, *WHOLE_NUMBERS):
        number = float(header[name])
        if number and math.isfinite(number):
            facts[name] = int(number) if name in WHOLE_NUMBERS else number
    return facts


def _turn(header: Any) -> list[list[float]] | None:
    """The matrix of qform; None if its numbers are no quaternion, which says nothing whatever its code."""
    try:
        found = header.get_qform()
    except Exception:  # nibabel raises whatever the damage leads to
        return None
    return _rows(found) if np.isfinite(found).all() else None


def _rows(affine: np.ndarray) -> list[list[float]]:
    return [[float(n) for n in row] for row in affine]


def _keep_extensions(path: Path, header: Any, facts: dict[str, Any]) -> tuple[str, ...]:
    """Put header extensions among the facts, as base64; what is too large is lost."""
    found = [(int(one.get_code()), bytes(one.content)) for one in header.extensions]
    if not found:
        return ()
    if sum(len(content) for _, content in found) > _LARGEST_EXTENSIONS:
        return (f"{len(found)} header extensions (codes {', '.join(str(code) for code, _ in found)})",)
    facts["extensions"] = [{"code": code, "base64": base64.b64encode(content).decode()} for code, content in found]
    return ()
