"""Voxel sizes as people write them: ``40,4,4nm``, ``0.5um``, ``1,1,1 mm``, ``2s,1,40nm,4nm,4nm``.

Decided here: the notation. Values stand in the order of the axes; a unit applies to its value and to those before it
that have none; units come out as OME-NGFF names (:func:`volfs.model.units.normal_unit`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from volfs.errors import BadInput
from volfs.ingest.axis_numbers import wanted
from volfs.model.ngff import Axis
from volfs.model.units import normal_unit

_VALUE = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([^\W\d_]*)\s*\Z")
_KNOWN = re.compile(r"(?:\w*meter|angstrom|foot|inch|mile|yard|parsec|\w*second|minute|hour|day)\Z")


@dataclass(frozen=True, slots=True)
class VoxelSize:
    """One value for all axes of space, or one for each of them, or one for each axis; units may be None."""

    values: tuple[float, ...]
    units: tuple[str | None, ...]

    def apply(self, axes: Sequence[Axis], scale: Sequence[float]) -> tuple[tuple[Axis, ...], tuple[float, ...]]:
        """Axes with their units and the voxel size along each, given those of a source, whose signs stay. BadInput if
        counts differ."""
        space = [i for i, a in enumerate(axes) if a.type == "space"]
        if len(self.values) == len(axes):
            where = list(range(len(axes)))
        elif len(self.values) in (1, len(space)):
            where = space
        else:
            names = ",".join(a.name for a in axes)
            many = "1 value" if len(self.values) == 1 else f"{len(self.values)} values"
            raise BadInput(f"the voxel size has {many}, but the axes are {names}: {wanted(axes)}")
        several = len(self.values) > 1
        new_axes, new_scale = list(axes), list(scale)
        for i, at in enumerate(where):
            new_scale[at] = math.copysign(self.values[i if several else 0], scale[at])
            unit = self.units[i if several else 0]
            # In 1,1,40,4,4nm the unit is one of length: it says nothing of time points and channels.
            if unit is not None and (axes[at].type == "space") == (not unit.endswith(("second", "minute", "hour"))):
                new_axes[at] = replace(axes[at], unit=unit)
        return tuple(new_axes), tuple(new_scale)


def parse_voxel_size(text: str) -> VoxelSize:
    """Read a voxel size. BadInput, saying what one looks like, for anything else."""
    values: list[float] = []
    units: list[str | None] = []
    for part in text.split(","):
        found = _VALUE.match(part)
        if not found:
            raise _bad(text)
        value = float(found[1])
        if not (value > 0 and math.isfinite(value)):
            raise BadInput(f"voxel size {text!r}: sizes are greater than zero")
        unit = normal_unit(found[2])
        if unit is not None and not _KNOWN.match(unit):
            raise BadInput(f"voxel size {text!r}: {found[2]!r} is not a unit; there are nm, um, mm, m, s, …")
        values.append(value)
        units.append(unit)
    last: str | None = None
    for i in range(len(units) - 1, -1, -1):
        last = units[i] = units[i] or last
    return VoxelSize(tuple(values), tuple(units))


def _bad(text: str) -> BadInput:
    return BadInput(f"voxel size {text!r}: write it like 40,4,4nm (in the order of the axes) or 0.5um")
