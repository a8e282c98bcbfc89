"""Rendering metadata of an image: ``omero.channels`` in the attributes of its group (OME-NGFF 0.4 and 0.5, "omero").

Decided here: where the block is looked for, and what of it is believed. It was written by any program: whatever does
not have the expected form counts as not there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from volfs.views.colour import Window

_COLOUR = re.compile(r"[0-9A-Fa-f]{6}\Z")


def labels(attributes: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The names of the channels, in their order; None for those without one."""
    found = (channel.get("label") for channel in _channels(attributes))
    return tuple(label if isinstance(label, str) and label.strip() else None for label in found)


def colours(attributes: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The colours of the channels as RRGGBB, in their order; None for those without one."""
    found = (str(channel.get("color", "")).lstrip("#") for channel in _channels(attributes))
    return tuple(text.upper() if _COLOUR.match(text) else None for text in found)


def window(attributes: Mapping[str, Any], channel: int) -> Window | None:
    """The intensities at which a channel is shown black and white; None if the metadata does not say."""
    channels = _channels(attributes)
    shown = channels[channel].get("window") if channel < len(channels) else None
    if not isinstance(shown, Mapping):
        return None
    low, high = _number(shown.get("start")), _number(shown.get("end"))
    return (low, high) if low is not None and high is not None and low < high else None


def _channels(attributes: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The channels' entries, from ``ome`` (0.5) or from the attributes themselves (0.4)."""
    for holder in (attributes.get("ome"), attributes):
        block = holder.get("omero") if isinstance(holder, Mapping) else None
        found = block.get("channels") if isinstance(block, Mapping) else None
        if isinstance(found, list):
            return [entry if isinstance(entry, Mapping) else {} for entry in found]
    return ()


def _number(value: object) -> float | None:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        number = float(value) if plain else math.nan  # type: ignore[arg-type]
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
