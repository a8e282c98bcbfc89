"""Facts that a source states of its image beyond voxels, axes and voxel sizes, as the attributes of the image's group
keep them.

``volfs.source`` are facts by the names that their format has for them. ``volfs.rescale`` takes stored numbers to real
ones, whatever the source was. Readers fill both (:class:`volfs.ingest.source.Description`); every view asks here, and
shows what its format has a place for; ``info.json`` shows all of it.

Facts that several formats share have one form, whoever wrote them:

``format``           what the source was: ``nifti``, ``nrrd``, ``metaimage``, ``mrc``, ``dicom``, ``imagej``, …
``affine``, ``space``  from (x, y, z, 1), in voxels, to the world that is named: rows of a square matrix
``notes``            key/value pairs of text (NRRD's, MetaImage's, ImageJ's properties)
``channels``         names of channels; their place for views is ``omero`` (:func:`omero`)

Not here: how a format writes them down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Rescale:
    """Real value = stored value * ``slope`` + ``intercept``, in ``unit`` (``HU``), where one is named."""

    slope: float = 1.0
    intercept: float = 0.0
    unit: str | None = None

    @classmethod
    def of(cls, slope: object, intercept: object = 0.0, unit: str | None = None) -> Rescale | None:
        """The rescaling that a header states; None if its slope is zero or no number."""
        by, plus = _number(slope), _number(intercept)
        return cls(by, plus, unit or None) if by and plus is not None else None

    @property
    def identity(self) -> bool:
        """Whether real values are the stored ones."""
        return self.slope == 1.0 and self.intercept == 0.0

    def attributes(self) -> dict[str, Any]:
        """The value of the attribute ``volfs.rescale``."""
        found: dict[str, Any] = {"slope": self.slope, "intercept": self.intercept}
        return found if self.unit is None else {**found, "unit": self.unit}


def rescale_of(attributes: Mapping[str, Any]) -> Rescale | None:
    """The rescaling of an image, from the attributes of its group."""
    found = _own(attributes).get("rescale")
    if not isinstance(found, Mapping):
        return None
    unit = found.get("unit")
    return Rescale.of(found.get("slope"), found.get("intercept", 0.0), unit if isinstance(unit, str) else None)


def source_of(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The facts that the image's source stated, from the attributes of its group; empty if none are kept."""
    found = _own(attributes).get("source")
    return found if isinstance(found, Mapping) else {}


def notes_of(facts: Mapping[str, Any]) -> dict[str, str]:
    """The key/value pairs among facts, as text."""
    found = facts.get("notes")
    if not isinstance(found, Mapping):
        return {}
    return {str(key): value if isinstance(value, str) else str(value) for key, value in found.items()}


def unpacking(attributes: Mapping[str, Any]) -> Rescale | None:
    """The rescaling of packed data in attributes of an array, by netCDF's conventions (CF, section 8.1), which xarray
    follows; None if there is none."""
    if "scale_factor" not in attributes and "add_offset" not in attributes:
        return None
    unit = attributes.get("units")
    unit = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else unit
    by, plus = (np.ravel(attributes.get(name, one)) for name, one in (("scale_factor", 1.0), ("add_offset", 0.0)))
    if by.size != 1 or plus.size != 1:
        return None
    return Rescale.of(by.item(), plus.item(), unit if isinstance(unit, str) else None)


RESCALE_KEYS = ("RescaleSlope", "RescaleIntercept", "RescaleType")
"""The keys of a rescaling in key/value pairs: DICOM's keywords."""


def key_values(facts: Mapping[str, Any], rescale: Rescale | None) -> dict[str, str]:
    """Key/value pairs for a format that has them: those of the source, and the rescaling."""
    found = {key: value for key, value in notes_of(facts).items() if key not in RESCALE_KEYS}
    if rescale is not None:
        slope, intercept, unit = RESCALE_KEYS
        found |= {slope: repr(rescale.slope), intercept: repr(rescale.intercept)}
        found |= {} if rescale.unit is None else {unit: rescale.unit}
    return found


def rescale_in(notes: Mapping[str, str]) -> Rescale | None:
    """The rescaling in key/value pairs; None if there is none."""
    slope, intercept, unit = RESCALE_KEYS
    if slope not in notes and intercept not in notes:
        return None
    return Rescale.of(notes.get(slope, 1.0), notes.get(intercept, 0.0), notes.get(unit))


def numbers_of(facts: Mapping[str, Any], name: str, count: int) -> tuple[float, ...] | None:
    """A fact that is a list of ``count`` finite numbers; None if it is anything else."""
    found = facts.get(name)
    if not isinstance(found, list | tuple) or len(found) != count:
        return None
    made = [_number(value) for value in found]
    return None if any(value is None for value in made) else tuple(value for value in made if value is not None)


def matrix_of(facts: Mapping[str, Any], name: str) -> np.ndarray | None:
    """A fact that is a matrix of 4 rows of 4 finite numbers; None if it is anything else."""
    try:
        found = np.array(facts.get(name), np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found.shape == (4, 4) and np.isfinite(found).all() else None


def text_of(facts: Mapping[str, Any], name: str) -> str:
    """A fact that is text; empty if it is not there."""
    found = facts.get(name)
    return found if isinstance(found, str) else ""


def omero(
    names: Sequence[str | None] = (),
    colours: Sequence[str | None] = (),
    windows: Sequence[tuple[float, float] | None] = (),
) -> dict[str, Any]:
    """The ``omero`` block of OME-NGFF for channels: names, colours (``RRGGBB``) and intensities shown black and white,
    each as far as it is known. For ``Description.ome``."""
    channels: list[dict[str, Any]] = []
    for i in range(max(len(names), len(colours), len(windows))):
        entry: dict[str, Any] = {"active": True}
        if i < len(names) and names[i]:
            entry["label"] = names[i]
        # OME-NGFF asks for a colour and a window, but none is better than one that nobody chose.
        if i < len(colours) and colours[i]:
            entry["color"] = colours[i]
        window = windows[i] if i < len(windows) else None
        if window is not None:
            low, high = window
            entry["window"] = {"start": low, "end": high, "min": low, "max": high}
        channels.append(entry)
    return {"channels": channels}


def plain_json(value: Any) -> Any:
    """A fact as attributes can keep it: JSON, without numpy's types, bytes, and numbers that JSON has not."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | np.ndarray):
        return [plain_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and not math.isfinite(value):
        return {"inf": "Infinity", "-inf": "-Infinity"}.get(str(value), "NaN")
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _own(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    own = attributes.get("volfs")
    return own if isinstance(own, Mapping) else {}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
