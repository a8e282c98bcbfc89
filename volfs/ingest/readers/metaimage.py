"""MetaImage (``.mha``, and ``.mhd`` with its data elsewhere), as ITK's MetaIO writes it.

The fastest axis is the last one here: x, y, z, t from the back, and before x the samples of voxels that have several.
Offset and TransformMatrix are kept as an affine; voxels are never flipped. ElementToIntensityFunctionSlope and -Offset,
or RescaleSlope and RescaleIntercept among the further fields, are the image's rescale; all other fields are facts.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.readers.packed_voxels import Packing
from volfs.ingest.readers.raw import FileSource
from volfs.ingest.readers.text_header import beside, header_lines, is_pattern, numbered, voxels_of
from volfs.ingest.source import Description, Source, unreadable
from volfs.model.facts import RESCALE_KEYS, Rescale, rescale_in
from volfs.model.ngff import axis

_DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # of the machines that MetaIO was made for
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_NAMES = ("x", "y", "z", "t", "a")


def open_metaimage(path: Path) -> Source:
    """Open a volume; BadInput if it is not one, or its data are cut short."""
    lines, end = header_lines(path, "ElementDataFile")
    fields: dict[str, str] = {}
    for line in lines:
        key, mark, value = line.partition("=")
        if not mark and line.strip():
            raise unreadable(path, "its header is not of lines like `NDims = 3`")
        fields[key.strip()] = value.strip()
    try:
        return _open(path, fields, end)
    except (KeyError, ValueError, OverflowError) as error:
        missing = f"its header lacks {error}" if isinstance(error, KeyError) else error
        raise unreadable(path, missing) from error


def _open(path: Path, fields: dict[str, str], end: int) -> Source:
    count = int(fields["NDims"])
    sizes = [int(n) for n in fields["DimSize"].split()]
    samples = int(fields.get("ElementNumberOfChannels", 1))
    if len(sizes) != count or min([*sizes, samples]) < 1:
        raise unreadable(path, f"it has {count} dimensions of sizes {fields['DimSize']}")
    if not 2 <= count <= len(_NAMES) or fields.get("ObjectType", "Image") != "Image":
        raise BadInput(f"{path} is a {fields.get('ObjectType', 'Image')} of {count} dimensions, which is not imported")
    kind = fields["ElementType"].removesuffix("_ARRAY")
    if kind not in _DTYPES:
        raise BadInput(f"{path} holds {fields['ElementType']}, which are not voxels")
    big = _true(fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")))
    dtype = np.dtype(_DTYPES[kind]).newbyteorder(">" if big else "<")
    packed = _true(fields.get("CompressedData", "False"))
    packing: Packing | None = "zlib" if packed else None if _true(fields.get("BinaryData", "True")) else "text"
    shape = (*sizes[::-1], samples) if samples > 1 else tuple(sizes[::-1])
    files, start = _data(path, fields, end)
    skipped = int(fields.get("HeaderSize", 0))
    if skipped < -1 or (packing is not None and skipped):
        raise unreadable(path, f"HeaderSize is {skipped}")
    voxels = voxels_of(files, packing, dtype, shape, skipped, start)
    scale, known = _spacing(fields, count)
    unit = fields.get("DistanceUnits", "").strip()
    if not unit and _is_patient(fields):
        unit = "mm"  # the space of a patient is DICOM's and NIfTI's, which measure it so
    axes = [axis(n, unit if known and n in "xyz" and unit != "?" else None) for n in _NAMES[:count]][::-1]
    grain = voxels.grain
    if samples > 1:
        axes, scale, grain = [*axes, axis("c")], [*scale, 1.0], (*grain[:-2], *shape[-2:])
    description = Description(
        path.stem,
        shape,
        dtype.newbyteorder("="),
        tuple(axes),
        tuple(scale),
        grain,
        rgb=samples in (3, 4) and dtype.kind == "u",
        facts=_facts(fields, count, scale),
        translation=_begin_of_time(fields, [a.name for a in axes]),
        rescale=_rescale(fields),
    )
    return FileSource(description, voxels, [path, *(file for file in files if file != path)])


def _data(path: Path, fields: dict[str, str], end: int) -> tuple[list[Path], int]:
    """The files of the data, and the byte at which they begin there."""
    where = fields["ElementDataFile"]
    if where.upper() == "LOCAL":
        return [path], end
    if where.upper().split()[:1] == ["LIST"]:
        with path.open("rb") as file:
            file.seek(end)
            names = file.read(64 << 20).decode("utf-8", "replace").split("\n")
        return [beside(path, name.strip()) for name in names if name.strip()], 0
    if is_pattern(where):
        return numbered(path, where.split()), 0
    return [beside(path, where)], 0


def _true(text: str) -> bool:
    return text.strip().lower() in ("true", "t", "1")


def _is_patient(fields: dict[str, str]) -> bool:
    """Whether the header says how a patient lies (``RAI``) rather than ``???``."""
    found = fields.get("AnatomicalOrientation", "").strip()
    return len(found) == 3 and set(found.upper()) <= set("RLAPIS")


def _spacing(fields: dict[str, str], count: int) -> tuple[list[float], bool]:
    """Voxel sizes, slowest first, and whether there are any."""
    text = fields.get("ElementSpacing", fields.get("ElementSize"))
    if text is None:
        return [1.0] * count, False
    found = [abs(float(n)) for n in text.split()]
    if len(found) != count or not all(math.isfinite(n) and n > 0 for n in found):
        raise ValueError(f"its voxel size is {text!r}")
    return found[::-1], True


def _begin_of_time(fields: dict[str, str], names: list[str]) -> tuple[float, ...] | None:
    """The offset along time; of space the affine tells."""
    text = next((fields[key] for key in ("Offset", "Position", "Origin") if key in fields), "")
    numbers = [float(word) for word in text.split()]
    if "t" not in names or len(numbers) < 4 or not numbers[3] or not math.isfinite(numbers[3]):
        return None
    return tuple(numbers[3] if name == "t" else 0.0 for name in names)


def _rescale(fields: dict[str, str]) -> Rescale | None:
    own = (fields.get(f"ElementToIntensityFunction{name}") for name in ("Slope", "Offset"))
    slope, offset = own
    told = rescale_in(fields)
    if told is None and (slope is not None or offset is not None):
        told = Rescale.of(slope or 1.0, offset or 0.0)
    return told


def _facts(fields: dict[str, str], count: int, scale: list[float]) -> dict[str, Any]:
    """What the header says beyond shape and voxel size. The affine takes (x, y, z, 1) to the space of the offset."""
    facts: dict[str, Any] = {"format": "metaimage"}
    matrix = next((fields[k] for k in ("TransformMatrix", "Rotation", "Orientation") if k in fields), None)
    offset = next((fields[k] for k in ("Offset", "Position", "Origin") if k in fields), None)
    if matrix is not None or offset is not None:
        numbers = [float(n) for n in (matrix or "").split()] or np.eye(count).ravel().tolist()
        origin = [float(n) for n in (offset or "").split()] or [0.0] * count
        if len(numbers) != count * count or len(origin) != count:
            raise ValueError("its TransformMatrix and Offset do not fit its dimensions")
        steps = scale[:count][::-1] if len(scale) == count else scale[:-1][::-1]
        # MetaIO writes the direction of one axis after the other: those are the columns of an affine.
        rows = [[numbers[j * count + i] * steps[j] for j in range(count)] + [origin[i]] for i in range(count)]
        facts["affine"] = [*rows, [0.0] * count + [1.0]]
    known = {"NDims", "DimSize", "ElementType", "ElementDataFile", "ElementSpacing", "ElementSize", "TransformMatrix"}
    known |= {"Offset", "BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData", "HeaderSize"}
    known |= {"CompressedDataSize", "ElementNumberOfChannels", "ObjectType", "Position", "Origin", "Rotation"}
    known |= {"Orientation", "ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset", *RESCALE_KEYS}
    if notes := {key: value for key, value in fields.items() if key and key not in known}:
        facts["notes"] = notes
    return facts
