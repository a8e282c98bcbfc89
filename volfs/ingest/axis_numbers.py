"""How many numbers a user gives for the axes of an image.

Decided here: which counts are right, and how that is said: one number for all axes of space, one for each of them, or
one for each axis. Not here: what the numbers are (voxel sizes, chunks, shards).
"""

from __future__ import annotations

from collections.abc import Sequence

from volfs.model.ngff import Axis


def wanted(axes: Sequence[Axis]) -> str:
    """``give 1 number, 3 for z,y,x, or 4 for c,z,y,x``: each count once."""
    space = [a.name for a in axes if a.type == "space"]
    every = [a.name for a in axes]
    counts = ["1 number"]
    counts += [f"{len(names)} for {','.join(names)}" for names in (space, every) if len(names) > 1]
    counts = list(dict.fromkeys(counts))
    return "give " + (f"{', '.join(counts[:-1])}{',' * (len(counts) > 2)} or {counts[-1]}" if counts[1:] else counts[0])
