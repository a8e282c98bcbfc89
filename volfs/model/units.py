"""Units of length and time: OME-NGFF's names (UDUNITS-2), what else people call them, and how long they are.

Decided here: which texts mean which unit, and which mean that there is none (``pixel``, ``reference frame``). Sizes are
compared in metres or seconds (:func:`lengths`), never as bare numbers.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

METRES = {
    "angstrom": 1e-10,
    "attometer": 1e-18,
    "centimeter": 1e-2,
    "decimeter": 1e-1,
    "exameter": 1e18,
    "femtometer": 1e-15,
    "foot": 0.3048,
    "gigameter": 1e9,
    "hectometer": 1e2,
    "inch": 0.0254,
    "kilometer": 1e3,
    "megameter": 1e6,
    "meter": 1.0,
    "micrometer": 1e-6,
    "mile": 1609.344,
    "millimeter": 1e-3,
    "nanometer": 1e-9,
    "petameter": 1e15,
    "picometer": 1e-12,
    "terameter": 1e12,
    "yard": 0.9144,
    "yoctometer": 1e-24,
    "zeptometer": 1e-21,
}
"""The space units of OME-NGFF, in metres."""

SECONDS = {
    "attosecond": 1e-18,
    "day": 86400.0,
    "femtosecond": 1e-15,
    "hour": 3600.0,
    "kilosecond": 1e3,
    "microsecond": 1e-6,
    "millisecond": 1e-3,
    "minute": 60.0,
    "nanosecond": 1e-9,
    "picosecond": 1e-12,
    "second": 1.0,
}
"""The time units of OME-NGFF that occur in practice, in seconds."""

# Keys are in Unicode's NFKC: there is one micro sign, and one a with a ring.
_EXACT = {
    "Mm": "megameter",
    "Gm": "gigameter",
    "Tm": "terameter",
    "Pm": "petameter",
    "Em": "exameter",
}
"""Where the case of a letter tells."""

_NAMES = {
    "a": "angstrom",
    "å": "angstrom",
    "ångström": "angstrom",
    "ångstrom": "angstrom",
    "angström": "angstrom",
    "am": "attometer",
    "fm": "femtometer",
    "pm": "picometer",
    "nm": "nanometer",
    "um": "micrometer",
    "μm": "micrometer",
    "μ": "micrometer",
    "mcm": "micrometer",
    "micron": "micrometer",
    "\\u00b5m": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "dm": "decimeter",
    "m": "meter",
    "hm": "hectometer",
    "km": "kilometer",
    "in": "inch",
    '"': "inch",
    "inche": "inch",
    "ft": "foot",
    "feet": "foot",
    "yd": "yard",
    "mi": "mile",
    "as": "attosecond",
    "fs": "femtosecond",
    "ps": "picosecond",
    "ns": "nanosecond",
    "us": "microsecond",
    "μs": "microsecond",
    "usec": "microsecond",
    "μsec": "microsecond",
    "ms": "millisecond",
    "msec": "millisecond",
    "s": "second",
    "sec": "second",
    "min": "minute",
    "h": "hour",
    "hr": "hour",
    "d": "day",
}

_NONE = frozenset(
    (
        *("pixel", "px", "voxel", "vx", "reference_frame", "referenceframe", "frame", "plane", "index", "unit", "1"),
        *("arbitrary", "a.u.", "unknown", "none", "null", "n/a", "na", "unitless", "dimensionless", "?", "-"),
    )
)
"""Texts that programs write where there is no unit."""


def normal_unit(unit: str | None) -> str | None:
    """The UDUNITS-2 name that OME-NGFF asks for (``nm`` becomes ``nanometer``); None for a text that names no unit
    (``pixel``). Unknown units are returned unchanged."""
    text = unicodedata.normalize("NFKC", unit or "").strip().rstrip("\0")
    if not text:
        return None
    if text in _EXACT:
        return _EXACT[text]
    lowered = text.lower().replace("metre", "meter")
    if len(text) == 1 and text in "MSH":  # mega, siemens, henry
        return lowered
    for name in (lowered, lowered.removesuffix("."), lowered.removesuffix("s")):
        if name in _NAMES:
            return _NAMES[name]
        if name in METRES or name in SECONDS:
            return name
        if "_".join(name.split()) in _NONE:
            return None
    return lowered


def lengths(sizes: Sequence[float], units: Sequence[str | None]) -> list[float]:
    """Voxel sizes along axes of space, comparable with each other: in metres where units are known.

    Without any known unit they are the numbers as they are. Where some have one, a size without is taken for as long
    as the longest of the others: nothing is known of it, and it neither holds others back nor shrinks before them.
    """
    plain = [abs(float(size)) or 1.0 for size in sizes]
    metres = [METRES.get(unit or "") for unit in units]
    known = [size * metre for size, metre in zip(plain, metres, strict=True) if metre is not None]
    if not known:
        return plain
    return [max(known) if metre is None else size * metre for size, metre in zip(plain, metres, strict=True)]
