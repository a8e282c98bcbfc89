"""MetaImage (``.mha``: https://itk.org/Wiki/MetaIO/Documentation), header and voxels in one file.

All axes are dimensions, x first, up to MetaIO's ten; samples of a pixel are ``ElementNumberOfChannels``. Little-endian,
not compressed. Positions are in millimetres and seconds where units are known; where that of space is not,
``DistanceUnits`` is ``?``. ``TransformMatrix`` has the direction of one axis after the other, in ITK's
left-posterior-superior world where the image has an orientation. bool is unsigned char; there is no float16, and no
complex number. Key/value pairs that the image came with are further fields; a rescale is MetaIO's intensity function,
and ``RescaleSlope`` and ``RescaleIntercept`` for the programs that do not know it.
"""

from __future__ import annotations

import math

import numpy as np

from volfs.model.facts import key_values, notes_of
from volfs.views.layout import Layout, Literal, Voxels
from volfs.views.volume import VolumeFormat, VolumeSpec
from volfs.views.volumes.orientation import SECOND, aligned, grid, joined, matrix, number, placed, space_grid

_TYPES = {
    "bool": "MET_UCHAR",
    "int8": "MET_CHAR",
    "uint8": "MET_UCHAR",
    "int16": "MET_SHORT",
    "uint16": "MET_USHORT",
    "int32": "MET_INT",
    "uint32": "MET_UINT",
    "int64": "MET_LONG_LONG",
    "uint64": "MET_ULONG_LONG",
    "float32": "MET_FLOAT",
    "float64": "MET_DOUBLE",
}
_MOST_AXES = 10
_SLOPE, _OFFSET = "ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset"
_OWN = frozenset(
    "ObjectType ObjectSubType TransformType NDims BinaryData BinaryDataByteOrderMSB ElementByteOrderMSB CompressedData "
    "CompressedDataSize CompressionLevel TransformMatrix Rotation Orientation Offset Position Origin CenterOfRotation "
    "DistanceUnits ElementSpacing ElementSize ElementMin ElementMax DimSize HeaderSize HeaderSizePerSlice "
    f"ElementNumberOfChannels ElementType ElementDataFile {_SLOPE} {_OFFSET}".split()
)
"""Fields that describe this file and are not taken from the image's source."""


def _holds(spec: VolumeSpec) -> bool:
    return spec.dtype.name in _TYPES and len(spec.axes) - spec.has_samples <= _MOST_AXES and placed(spec)


def _layout(spec: VolumeSpec) -> Layout:
    stored = np.dtype(np.uint8) if spec.dtype.kind == "b" else spec.dtype.newbyteorder("<")
    return Layout(Literal(_header(spec)), Voxels(spec.box, spec.order, stored))


def _header(spec: VolumeSpec) -> bytes:
    axes = (*spec.others, *spec.space)[::-1]
    steps, origin = matrix(spec)
    lengths = np.array([math.hypot(*step) for step in steps])
    directions = np.eye(len(axes))
    directions[: len(steps), : len(steps)] = steps / lengths[:, np.newaxis]
    further = [grid((axis,), SECOND) for axis in spec.others[::-1]]
    spacing = [*lengths, *(one.steps[0] for one in further)]
    offset = [*origin, *(one.origin[0] for one in further)]
    lines = [
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = False",
        f"TransformMatrix = {joined(directions.ravel())}",
        f"Offset = {joined(np.array(offset))}",
        f"CenterOfRotation = {_centre(spec, len(axes))}",
        f"DistanceUnits = {'mm' if space_grid(spec).known else '?'}",
        f"ElementSpacing = {joined(np.array(spacing))}",
        f"DimSize = {' '.join(str(axis.size) for axis in axes)}",
        *([f"ElementNumberOfChannels = {spec.samples}"] if spec.has_samples else []),
        *_fields(spec),
        f"ElementType = {_TYPES[spec.dtype.name]}",
        "ElementDataFile = LOCAL\n",
    ]
    return aligned(lambda fill: "\n".join(["ObjectType = Image", f"NDims = {fill}{len(axes)}", *lines]))


def _centre(spec: VolumeSpec, count: int) -> str:
    told = notes_of(spec.facts).get("CenterOfRotation", "") if spec.facts.get("format") == "metaimage" else ""
    try:
        numbers = tuple(float(word) for word in told.split())
    except ValueError:
        numbers = ()
    known = len(numbers) == count and all(map(math.isfinite, numbers))
    return joined(numbers if known else (0.0,) * count)


def _fields(spec: VolumeSpec) -> list[str]:
    """MetaIO's own fields of the intensity function, and key/value pairs as further fields: those of the source, where
    no axis besides space is cut."""
    rescale = spec.rescale
    found = {} if rescale is None else {_SLOPE: number(rescale.slope), _OFFSET: number(rescale.intercept)}
    pairs = key_values(spec.facts if spec.whole else {}, rescale)
    for key, value in pairs.items():
        name, text = " ".join(key.split()), " ".join(value.split())
        if name and text and "=" not in name and name not in _OWN:
            found[name] = text
    return [f"{key} = {value}" for key, value in found.items()]


FORMATS = (VolumeFormat(".mha", 10, _holds, _layout),)
