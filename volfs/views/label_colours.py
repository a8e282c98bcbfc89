"""The colours of labels: those that the image's metadata give, and a stable pseudo-colour for all others.

Decided here: where colours are looked for (``image-label.colors`` of OME-NGFF 0.4 and 0.5: ``label-value`` and
``rgba``), and what of them is believed; a transparent colour is mixed with black. Label 0 is black unless the metadata
colour it. Not here: pseudo-colours (:mod:`volfs.views.colour`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from volfs.views.colour import pseudo_colour


class LabelColours:
    """Colours for the labels of one image: ``known`` from a label to red, green and blue (0 to 255). Immutable."""

    def __init__(self, known: Mapping[int, tuple[int, int, int]] | None = None) -> None:
        self._known = dict(sorted((known or {}).items()))

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> LabelColours:
        """The colours that the attributes of an image's group give."""
        known: dict[int, tuple[int, int, int]] = {}
        for holder in (attributes, attributes.get("ome")):
            block = holder.get("image-label") if isinstance(holder, Mapping) else None
            entries = block.get("colors") if isinstance(block, Mapping) else None
            for entry in entries if isinstance(entries, list) else ():
                value = _label(entry.get("label-value")) if isinstance(entry, Mapping) else None
                colour = _rgb(entry.get("rgba")) if value is not None else None
                if value is not None and colour is not None:
                    known[value] = colour
        return cls(known)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelColours) and self._known == other._known

    def __hash__(self) -> int:
        return hash(tuple(self._known.items()))

    def paint(self, labels: np.ndarray) -> np.ndarray:
        """uint8 RGB, shape (..., 3)."""
        painted = pseudo_colour(labels)
        if labels.dtype.kind not in "iub" or not self._known:
            return painted
        whole = labels.view(np.uint8) if labels.dtype.kind == "b" else labels
        low, high = np.iinfo(whole.dtype).min, np.iinfo(whole.dtype).max
        known = {label: colour for label, colour in self._known.items() if low <= label <= high}
        if not known:
            return painted
        values = np.array(list(known), whole.dtype)
        at = np.minimum(np.searchsorted(values, whole), len(values) - 1)
        found = values[at] == whole
        painted[found] = np.array(list(known.values()), np.uint8)[at[found]]
        return painted


def _label(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _rgb(rgba: object) -> tuple[int, int, int] | None:
    parts = rgba if isinstance(rgba, list) and len(rgba) in (3, 4) else ()
    if not parts or not all(isinstance(part, int) and 0 <= part <= 255 for part in parts):
        return None
    opaque = parts[3] if len(parts) == 4 else 255
    red, green, blue = (round(part * opaque / 255) for part in parts[:3])
    return red, green, blue
