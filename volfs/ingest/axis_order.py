"""Axes renamed as the user says, and put into the order that OME-NGFF asks for: time, channel, space.

A view over another source; no voxel is copied but by transposing what is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.source import Description, Source, SourceView
from volfs.model.box import Box, Index
from volfs.model.ngff import axis

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_RANKS = {"t": 1, "c": 2, "z": 3, "y": 4, "x": 5}


def arrange(source: Source, names: str | None = None) -> Source:
    """``source`` with its axes called ``names`` (``tczyx``, or ``angle,z,y,x``), in the order of OME-NGFF.

    Without names, as the source calls them. Sources whose order means something keep it. BadInput for names that do
    not fit.
    """
    found = source.description
    axes = found.axes
    if names is not None:
        wanted = parse_axes(names)
        if len(wanted) != len(axes):
            raise BadInput(f"{found.name} has {len(axes)} axes (shape {found.shape}), but --axes names {len(wanted)}")
        renamed = zip(wanted, axes, strict=True)
        axes = tuple(axis(name, a.unit if axis(name).type == a.type else None) for name, a in renamed)
    rgb = found.rgb and all(a.name != "c" or b.name == "c" for a, b in zip(found.axes, axes, strict=True))
    order = tuple(range(len(axes)))
    if found.reorder:
        order = tuple(sorted(order, key=lambda i: _RANKS.get(axes[i].name, 0)))
    if axes == found.axes and order == tuple(range(len(axes))):
        return source
    return _Arranged(source, replace(found, axes=axes, rgb=rgb), order)


def parse_axes(names: str) -> list[str]:
    """Axis names from ``zyx`` or ``angle,z,y,x``."""
    parts = [part.strip() for part in names.split(",")] if "," in names else list(names.strip())
    if not parts or not all(_NAME.match(part) for part in parts) or len(set(parts)) != len(parts):
        raise BadInput(f"axes {names!r}: write them like zyx or tczyx, each once, in the order of the data")
    return parts


def _pick(values: Sequence[T], order: Index) -> tuple[T, ...]:
    return tuple(values[i] for i in order)


class _Arranged(SourceView):
    """``order[i]`` is the axis of the inner source that is axis ``i`` here."""

    def __init__(self, inner: Source, renamed: Description, order: Index) -> None:
        super().__init__(
            inner,
            replace(
                renamed,
                shape=_pick(renamed.shape, order),
                axes=_pick(renamed.axes, order),
                scale=_pick(renamed.scale, order),
                grain=_pick(renamed.grain, order),
                translation=None if renamed.translation is None else _pick(renamed.translation, order),
            ),
        )
        self._order = order
        self._back = tuple(int(i) for i in np.argsort(order))

    def read(self, box: Box) -> np.ndarray:
        inner = Box(_pick(box.start, self._back), _pick(box.stop, self._back))
        return self._inner.read(inner).transpose(self._order)
