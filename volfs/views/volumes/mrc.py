"""MRC2014 (``.mrc``: Cheng et al., J. Struct. Biol. 192 (2015), and https://www.ccpem.ac.uk/mrc_format/mrc2014.php).

A plane is a single image, a volume is space group 1; planes along one more axis are a stack of images (space group 0),
volumes a stack of volumes (401). Modes are 0 (int8), 1 (int16), 2 (float32), 4 (complex64), 6 (uint16), 12 (float16).
Mode 0 is signed in MRC2014, and some programs still take it for unsigned; there is no mode for uint8, so these voxels
are uint16 in the file, as mrcfile and others write them. bool is int8. Other types have no MRC file.

The cell is in ångström; where the unit is unknown it is zero, as in files whose writer did not know it. Statistics are
marked as not determined (DMAX < DMIN, DMEAN < DMAX, RMS < 0). There is no time in MRC, and no orientation.
"""

from __future__ import annotations

import struct

import numpy as np

from volfs.model.units import METRES
from volfs.views.layout import Layout, Literal, Voxels
from volfs.views.volume import VolumeFormat, VolumeSpec
from volfs.views.volumes.placing import Grid, placed, plain, space_grid

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
_HEADER = struct.Struct("<10i6f3i3fii8s4si84s3f4s4sfi80s720x")


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
    edges = tuple(step * axis.size for step, axis in zip(along.steps, spec.space[::-1], strict=True))
    return Grid(edges, along.origin, along.known)


def _header(spec: VolumeSpec) -> bytes:
    width, height, sections, deep = _sizes(spec)
    cell = _cell(spec)
    edges, origin = ((*cell.steps, 1.0)[:3], (*cell.origin, 0.0)[:3]) if cell.known else ((0.0,) * 3, (0.0,) * 3)
    group = _IMAGES if len(spec.space) == 2 else _VOLUMES if spec.others else _VOLUME
    title = plain(spec.title).encode()[:80]
    return _HEADER.pack(
        width, height, sections, _STORED[spec.dtype.name][0],
        0, 0, 0, width, height, deep, *edges, 90.0, 90.0, 90.0,
        1, 2, 3,  # columns are x, rows are y, sections are z
        0.0, -1.0, -2.0, group, 0, b"", b"", _VERSION, b"", *origin, b"MAP ", _LITTLE_ENDIAN, -1.0,
        bool(title), title,
    )  # fmt: skip


FORMATS = (VolumeFormat(".mrc", 7, _holds, _layout),)
