"""Boxes as people write them: ``z0-64_y100-612``, as the files in ``cutout/`` are called.

Decided here: the text, from names of axes and a box and back. An axis that is not named is whole; ``z7`` is one plane.
Not here: which cutouts there are (:mod:`volfs.views.cutout`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from volfs.errors import BadInput
from volfs.model.box import Box

_PART = re.compile(r"([^\W\d]+?)([0-9]{1,18})(?:-([0-9]{1,18}))?")


def axis_names(names: Sequence[str | None] | None, ndim: int) -> tuple[str, ...]:
    """A name for each axis of an array: its own, or where it has none that can be written, ``a``, ``b``, ``c``…"""
    given = tuple(names or ())
    usable = len(given) == ndim == len(set(given)) and all(name and name.isalpha() for name in given)
    return tuple(str(name) for name in given) if usable else tuple("abcdefghijklmnop"[:ndim])


def box_text(names: Sequence[str], box: Box) -> str:
    """``z0-64_y100-612_x0-512``."""
    return "_".join(f"{name}{a}-{b}" for name, a, b in zip(names, box.start, box.stop, strict=True))


def parse_spans(text: str) -> dict[str, tuple[int, int]]:
    """The first voxel and the one after the last along each axis that a text names, of whatever array. Raises
    BadInput."""
    spans: dict[str, tuple[int, int]] = {}
    for part in text.split("_"):
        found = _PART.fullmatch(part)
        low = int(found[2]) if found else 0
        high = low + 1 if found is None or found[3] is None else int(found[3])
        if found is None or found[1] in spans or low >= high:
            raise BadInput(
                f"{text!r} is no box: write such as z0-64_y100-612, the first voxel and the one after the last"
            )
        spans[found[1]] = low, high
    return spans


def parse_box(text: str, names: Sequence[str], shape: Sequence[int]) -> Box:
    """The box of a text, cut to an array of this shape. Raises BadInput."""
    start, stop = [0] * len(shape), list(shape)
    seen: set[str] = set()
    for part in text.split("_"):
        found = _PART.fullmatch(part)
        if found is None or found[1] not in names or found[1] in seen:
            raise BadInput(f"{text!r} is no box: write such as {box_text(names, Box.whole(shape))}")
        seen.add(found[1])
        axis, low = names.index(found[1]), int(found[2])
        high = low + 1 if found[3] is None else int(found[3])
        if not low < high or low >= shape[axis]:
            raise BadInput(f"{text!r} is no box: {part} is not inside {found[1]}0-{shape[axis]}")
        start[axis], stop[axis] = low, min(high, shape[axis])
    return Box(tuple(start), tuple(stop))
