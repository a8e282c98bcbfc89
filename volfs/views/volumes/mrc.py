"""MRC2014 (``.mrc``: Cheng et al., J. Struct. Biol. 192 (2015), and https://www.ccpem.ac.uk/mrc_format/mrc2014.php).

A plane is a single image, a volume is space group 1; planes along one more axis are a stack of images (space group 0),
volumes a stack of volumes (401). Modes are 0 (int8), 1 (int16), 2 (float32), 4 (complex64), 6 (uint16), 12 (float16).
Mode 0 is signed in MRC2014, and some programs still take it for unsigned; there is no mode for uint8, so these voxels
are uint16 in the file, as mrcfile and others write them. bool is int8. Other types have no MRC file.

The cell is in ångström; where the unit is unknown it is zero, as in files whose writer did not know it. Statistics are
marked as not determined (DMAX < DMIN, DMEAN < DMAX, RMS < 0). There is no time in MRC, and no orientation.

ORIGIN is the position of the first voxel. An image that came as a map keeps its space group, NSTART, the grid and the
angles of its cell, and its labels.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from volfs.model.facts import numbers_of
from volfs.model.units import METRES
from volfs.views.layout import Layout, Literal, Voxels
from volfs.views.volume import VolumeFormat, VolumeSpec
from volfs.views.volumes.orientation import Grid, placed, plain, space_grid

_STORED = {
    "bool": (0, "i1"),
    "int8": (0, "i1"),
    "int16": (1, "<i2"),
    "float32": (2, "<f4"),
    "complex64": (4, "<c8"),
    "uint8": (6, "<u2"),
    "uint16": (6, "<u2"),
    "float16": (12, "<f2"),
}
_IMAGES, _VOLUME, _VOLUMES = 0, 1, 401
"""Space groups."""
_LONGEST = 2**31 - 1
_VERSION = 20140
_LITTLE_ENDIAN = b"\x44\x44\0\0"
_HEADER = struct.Struct("<10i6f3i3fii8s4si84s3f4s4sfi800s")


def _holds(spec: VolumeSpec) -> bool:
    if not placed(spec) or spec.has_samples or len(spec.others) > 1 or spec.dtype.name not in _STORED:
        return False
    return max(_sizes(spec)[:3]) <= _LONGEST and _cell(spec).within(np.finfo(np.float32))


def _layout(spec: VolumeSpec) -> Layout:
    return Layout(Literal(_header(spec)), Voxels(spec.box, spec.order, np.dtype(_STORED[spec.dtype.name][1])))


def _sizes(spec: VolumeSpec) -> tuple[int, int, int, int]:
    """NX, NY, NZ (all sections of all volumes) and MZ (sections of a volume)."""
    width, height, *depth = (axis.size for axis in spec.space[::-1])
    deep = depth[0] if depth else 1
    return width, height, deep * (spec.others[0].size if spec.others else 1), deep


def _cell(spec: VolumeSpec) -> Grid:
    """The edges of the cell, and the position of its first voxel."""
    along = space_grid(spec, METRES["angstrom"])
    edges = tuple(step * count for step, count in zip(along.steps, _grid(spec), strict=False))
    return Grid(edges, along.origin, along.known)


def _told(spec: VolumeSpec) -> Mapping[str, Any]:
    """Facts from the map that the image came from; none if it came from another file."""
    return spec.facts if spec.facts.get("format") == "mrc" else {}


def _grid(spec: VolumeSpec) -> tuple[int, int, int]:
    """MX, MY, MZ: into how many steps the cell is cut. A map may be a part of its cell, or more of it."""
    width, height, _, deep = _sizes(spec)
    told = numbers_of(_told(spec), "grid", 3) if spec.finest and not spec.others and len(spec.space) == 3 else None
    if told is None or not all(1 <= n <= _LONGEST and n == int(n) for n in told):
        return width, height, deep
    return int(told[0]), int(told[1]), int(told[2])


def _place(spec: VolumeSpec, cell: Grid) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """NSTART and ORIGIN. A position that a map gave in steps is given in steps, as long as they are its own."""
    facts = _told(spec)
    told = numbers_of(facts, "nstart", 3) or (0.0, 0.0, 0.0)
    origin = (*cell.origin, 0.0)[:3]
    starts = tuple(n + at for n, at in zip(told, spec.first, strict=True)) if any(told) else (0.0, 0.0, 0.0)
    if not spec.finest or not all(abs(n) <= _LONGEST and n == int(n) for n in starts):
        starts = (0.0, 0.0, 0.0)
    if not cell.known:
        return tuple(map(int, starts)), numbers_of(facts, "origin", 3) or (0.0, 0.0, 0.0)
    steps = (*space_grid(spec, METRES["angstrom"]).steps, 1.0)[:3]
    by_steps = not any(numbers_of(facts, "origin", 3) or (0.0,)) and all(
        math.isclose(n * step, at, rel_tol=1e-6, abs_tol=1e-6 * step)
        for n, step, at in zip(starts, steps, origin, strict=True)
    )
    return tuple(map(int, starts)), (0.0, 0.0, 0.0) if by_steps else origin


def _group(spec: VolumeSpec) -> int:
    told = _told(spec).get("space_group")
    if len(spec.space) == 2:
        return _IMAGES
    if spec.others:
        return told if isinstance(told, int) and _VOLUMES <= told <= 630 else _VOLUMES
    return told if isinstance(told, int) and 0 <= told <= 230 else _VOLUME


def _labels(spec: VolumeSpec) -> list[bytes]:
    """Ten at most: those of the map that the image came from, or the image's name."""
    told = _told(spec).get("labels")
    texts = [text for text in told if isinstance(text, str)] if isinstance(told, list) else []
    return [made for text in (texts if _told(spec) else [spec.title]) if (made := plain(text).encode()[:80])][:10]


def _header(spec: VolumeSpec) -> bytes:
    width, height, sections, _ = _sizes(spec)
    cell, labels = _cell(spec), _labels(spec)
    edges = (*cell.steps, 1.0)[:3] if cell.known else (0.0,) * 3
    starts, origin = _place(spec, cell)
    told = numbers_of(_told(spec), "cell_angles", 3)
    angles = told if told is not None and all(0 < n < 180 for n in told) else (90.0, 90.0, 90.0)
    return _HEADER.pack(
        width, height, sections, _STORED[spec.dtype.name][0],
        *starts, *_grid(spec), *edges, *angles,
        1, 2, 3,  # columns are x, rows are y, sections are z
        0.0, -1.0, -2.0, _group(spec), 0, b"", b"", _VERSION, b"", *origin, b"MAP ", _LITTLE_ENDIAN, -1.0,
        len(labels), b"".join(label.ljust(80) for label in labels),
    )  # fmt: skip


FORMATS = (VolumeFormat(".mrc", 7, _holds, _layout),)
