"""``.raw``: nothing but voxels; ``.raw.json``: their shape, data type and axes. Every volume has both.

Little-endian, in C order of the axes that the description lists, slowest first; bool is one byte, 0 or 1. Voxel size
and origin (the centre of the first voxel) are in the units of the axes, null where none is known.
"""

from __future__ import annotations

import math
from typing import Any

from volfs.views.documents import to_json
from volfs.views.layout import Layout, Literal, Voxels
from volfs.views.volume import VolumeFormat, VolumeSpec


def _holds(spec: VolumeSpec) -> bool:
    return True


def _layout(spec: VolumeSpec) -> Layout:
    return Layout(Voxels(spec.box, spec.order, spec.dtype.newbyteorder("<")))


def _description(spec: VolumeSpec) -> Layout:
    facts: dict[str, Any] = {
        "file": f"{spec.stem}.raw",
        "name": spec.title,
        "kind": "labels" if spec.is_label else "image",
        "axes": [axis.name for axis in spec.axes],
        "shape": spec.shape,
        "dtype": spec.dtype.name,
        "byte_order": "little",
        "order": "C",
        "voxel_size": [axis.scale for axis in spec.axes],
        "units": [axis.unit for axis in spec.axes],
        "origin": [axis.origin if math.isfinite(axis.origin) else None for axis in spec.axes],
    }
    if spec.channels:
        facts["channels"] = spec.channels
    if spec.rescale is not None:
        facts["rescale"] = spec.rescale.attributes()
    if spec.affine is not None:
        facts["affine_mm"] = spec.affine
    return Layout(Literal(to_json(facts)))


FORMATS = (VolumeFormat(".raw", 8, _holds, _layout), VolumeFormat(".raw.json", 9, _holds, _description))
