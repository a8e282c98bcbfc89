"""Where programs that write HDF5 leave the names of axes, voxel sizes and what numbers mean.

In the order in which they are believed: MINC2 (https://en.wikibooks.org/wiki/MINC), Berkeley's EMD (its ``dim1``,
``dim2``, …), ``axistags`` (vigra, ilastik), dimension labels and scales (netCDF 4), of which positions that fall are a
size below zero; sizes also from ``element_size_um``
(Fiji, ilastik) and EMAN2's ``EMAN.apix_x``. What does not have the expected form counts as not said. Not here: which
dataset is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from volfs.model.facts import Rescale, plain_json

Size = tuple[float, str | None]
"""A voxel's size along an axis, and its unit if it is known."""

_MINC_AXES = {"xspace": "x", "yspace": "y", "zspace": "z", "time": "t", "vector_dimension": "c"}
_LETTERS = frozenset("xyzct")
_COORDINATES = {name: name for name in "xyzct"} | {
    **{"time": "t", "channel": "c", "band": "c", "wavelength": "c"},
    **{"depth": "z", "height": "z", "altitude": "z", "lev": "z", "level": "z", "plev": "z"},
    **{"lat": "y", "latitude": "y", "lon": "x", "longitude": "x"},
}
"""What coordinates are called in netCDF files, and which axes they are (CF conventions, chapter 4)."""
_NO_COORDINATE = "This is a netCDF dimension but not a netCDF variable"
"""How netCDF 4 calls a dimension scale that only says how long an axis is."""
_EVEN = 1e-4
"""By how much of a step positions may miss even spacing: they are often kept in single precision."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a file says of a dataset. ``names`` are of all axes or none; ``sizes``, and ``origins`` (positions of the
    first voxel in the unit of the size), by the axis' name; ``lost`` are phrases about what has no place; ``real``
    takes numbers to what they mean where that differs from slice to slice: slopes and intercepts that are broadcast
    over the dataset."""

    names: tuple[str, ...] | None = None
    sizes: Mapping[str, Size] = field(default_factory=dict)
    origins: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    rescale: Rescale | None = None
    real: tuple[np.ndarray, np.ndarray] | None = None


def told_of(dataset: Any) -> Told:
    """What the file says of a dataset, by the first convention that it follows."""
    for convention in (_minc, _emd):
        found: Told | None = convention(dataset)
        if found is not None:
            return found
    names, sizes = _axistags(dataset)
    if names is None:
        names = _distinct([str(dim.label) for dim in dataset.dims], dataset.ndim) or _distinct(
            [_COORDINATES.get(name, "") for name in _scale_names(dataset)], dataset.ndim
        )
    own = _distinct(names, dataset.ndim) or default_names(dataset.ndim)
    scales, origins = _scales(dataset, own)
    stated = {**sizes, **_eman(dataset), **_element_size(dataset)}  # in units of their own
    origins = {name: at for name, at in origins.items() if name not in stated}
    coordinates, uneven = _coordinates(dataset, own)
    lost = (f"positions along {', '.join(uneven)}, which are not evenly spaced",) if uneven else ()
    return Told(names, {**scales, **stated}, origins, {"coordinates": coordinates} if coordinates else {}, lost)


def is_beside(dataset: Any) -> bool:
    """Whether an array is there for the sake of another one: the limits of MINC2's slices."""
    at: str = dataset.name
    return at.startswith("/minc-2.0/") and at.endswith(("/image-min", "/image-max"))


def default_names(count: int) -> tuple[str, ...]:
    """What axes are called that nobody named."""
    return tuple("atczyx"[-count:])


def _distinct(names: Any, count: int) -> tuple[str, ...] | None:
    """Names in lower case, if every axis has its own."""
    found = tuple(str(name).strip().lower() for name in names or ())
    return found if len(found) == count == len({*found}) and all(name.isidentifier() for name in found) else None


def _axistags(dataset: Any) -> tuple[tuple[str, ...] | None, dict[str, Size]]:
    """``axistags``: names, and resolutions that are not zero, of which nobody says the unit."""
    tags = dataset.attrs.get("axistags")
    if tags is None:
        return None, {}
    try:
        axes = json.loads(_text(tags))["axes"]
        names = _distinct([tag["key"] for tag in axes], dataset.ndim)
        sizes = {str(tag["key"]).lower(): _positive(tag.get("resolution")) for tag in axes}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, {}
    return names, {name: (size, None) for name, size in sizes.items() if size is not None and names and name != "c"}


def _element_size(dataset: Any) -> dict[str, Size]:
    """``element_size_um``: z, y, x in micrometres."""
    try:
        sizes = [_positive(n) for n in np.ravel(dataset.attrs.get("element_size_um", ()))]
    except (TypeError, ValueError):
        return {}
    return {name: (n, "micrometer") for name, n in zip("zyx"[-len(sizes) :], sizes, strict=False) if n is not None}


def _eman(dataset: Any) -> dict[str, Size]:
    """EMAN2: attributes of the group of the image, in ångström."""
    attributes = dataset.parent.attrs
    found = {name: _positive(attributes.get(f"EMAN.apix_{name}")) for name in "xyz"}
    return {name: (size, "angstrom") for name, size in found.items() if size is not None}


def _scale_names(dataset: Any) -> list[str]:
    return [str(dim[0].name).rpartition("/")[2].lower() if len(dim) else "" for dim in dataset.dims]


def _scales(dataset: Any, names: tuple[str, ...]) -> tuple[dict[str, Size], dict[str, float]]:
    """Dimension scales: positions that are evenly spaced, and the first of each."""
    found: dict[str, Size] = {}
    origins: dict[str, float] = {}
    for name, dim in zip(names, dataset.dims, strict=True):
        step = _step(dim[0]) if len(dim) else None
        if step is not None:
            found[name] = (step[1], _unit(dim[0].attrs.get("units")))
            origins[name] = step[0]
    return found, origins


def _coordinates(dataset: Any, names: tuple[str, ...]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What dimension scales are called, in which units as they are written (``days since 2000-01-01``), and where the
    only voxel of an axis lies; and the axes along which positions differ unevenly."""
    found: dict[str, dict[str, Any]] = {}
    uneven = []
    for name, dim in zip(names, dataset.dims, strict=True):
        if not len(dim) or _text(dim[0].attrs.get("NAME", "")).startswith(_NO_COORDINATE):
            continue
        scale = dim[0]
        about: dict[str, Any] = {"name": str(scale.name).rpartition("/")[2]}
        if "units" in scale.attrs:
            about["units"] = _text(scale.attrs["units"])
        if scale.shape == (1,) and (only := _number(scale[...])) is not None:
            about["position"] = only
        elif scale.shape and _step(scale) is None:
            uneven.append(name)
        found[name] = about
    return found, uneven


def _step(positions: Any) -> tuple[float, float] | None:
    """Where positions begin, and how far they are apart, if they are evenly spaced; what of them is not asked for is
    not read."""
    if len(positions.shape) != 1 or positions.dtype.kind not in "iuf" or not 2 <= positions.shape[0] <= 1 << 20:
        return None
    values = np.asarray(positions[...], float)
    step = float(values[-1] - values[0]) / (len(values) - 1)
    if not math.isfinite(step) or step == 0 or np.abs(np.diff(values) - step).max() > abs(step) * _EVEN:
        return None
    return float(values[0]), step


# ----------------------------------------------------------------------------------------------------------- EMD


def _emd(dataset: Any) -> Told | None:
    """Berkeley's EMD 0.2: a group with ``emd_group_type``, positions along the axes beside ``data``."""
    group = dataset.parent
    dims = [group.get(f"dim{n + 1}") for n in range(dataset.ndim)]
    if "emd_group_type" not in group.attrs or any(getattr(dim, "shape", None) is None for dim in dims):
        return None
    names = _distinct([_text(dim.attrs.get("name", "")) for dim in dims], dataset.ndim)
    if names is not None and not {*names} <= _LETTERS:
        names = None
    sizes, origins = {}, {}
    for name, dim, count in zip(names or default_names(dataset.ndim), dims, dataset.shape, strict=True):
        if dim.shape == (2,) and count != 2:  # first and second position alone
            values = np.asarray(dim[...], float)
            step = (float(values[0]), float(values[1] - values[0])) if np.isfinite(values).all() else None
        else:
            step = _step(dim) if dim.shape == (count,) else None
        if step is not None and step[1]:
            sizes[name] = (step[1], _unit(dim.attrs.get("units")))
            origins[name] = step[0]
    return Told(names, sizes, origins)


# ---------------------------------------------------------------------------------------------------------- MINC2


def _minc(dataset: Any) -> Told | None:
    """MINC2: steps, starts and directions are those of the dimensions that ``dimorder`` names; numbers mean what lies
    between ``image-min`` and ``image-max``, of the whole or of each slice."""
    order = _text(dataset.attrs.get("dimorder", "")).split(",")
    dims = dataset.file.get("minc-2.0/dimensions")
    if dims is None or len(order) != dataset.ndim or not all(name in _MINC_AXES for name in order):
        return None
    names = tuple(_MINC_AXES[name] for name in order)
    sizes: dict[str, Size] = {}
    columns, origin = [], np.zeros(3)
    for at, name in enumerate(("xspace", "yspace", "zspace", "time")):
        attributes = dims[name].attrs if name in dims else {}
        # What is left out is 1 and 0, as in libminc.
        step, start = _number(attributes.get("step")) or 1.0, _number(attributes.get("start")) or 0.0
        if name in order:
            sizes[_MINC_AXES[name]] = (abs(step), _unit(attributes.get("units")))
        if name != "time":
            along = np.ravel(attributes.get("direction_cosines", np.eye(3)[at])).astype(float)
            along = along if along.shape == (3,) and np.isfinite(along).all() else np.eye(3)[at]
            columns.append(along * step)
            origin = origin + along * start
    affine = [*np.column_stack([*columns, origin]).tolist(), [0.0, 0.0, 0.0, 1.0]]
    facts = {"format": "minc2", "affine": affine, "space": "right-anterior-superior"}
    ident = dataset.file["minc-2.0"].attrs.get("ident")
    if ident is not None:
        facts["ident"] = plain_json(_text(ident))
    rescale, real = _minc_real(dataset)
    return Told(names, sizes, facts=facts, rescale=rescale, real=real)


def _minc_real(dataset: Any) -> tuple[Rescale | None, tuple[np.ndarray, np.ndarray] | None]:
    low, high = (dataset.parent.get(name) for name in ("image-min", "image-max"))
    if low is None or high is None or dataset.dtype.kind == "f":
        return None, None
    limits = np.iinfo(dataset.dtype)
    valid = [_number(n) for n in np.ravel(dataset.attrs.get("valid_range", (limits.min, limits.max)))]
    if len(valid) != 2 or valid[0] is None or valid[1] is None or valid[0] == valid[1]:
        valid = [float(limits.min), float(limits.max)]
    first, last = sorted(n for n in valid if n is not None)
    lows, highs = np.asarray(low[...], float), np.asarray(high[...], float)
    if lows.shape != highs.shape or lows.shape != dataset.shape[: lows.ndim]:
        return None, None
    slopes = (highs - lows) / (last - first)
    intercepts = lows - first * slopes
    if np.ptp(slopes) == 0 and np.ptp(intercepts) == 0:
        return Rescale.of(float(slopes.flat[0]), float(intercepts.flat[0])), None
    shape = (*slopes.shape, *(1,) * (dataset.ndim - slopes.ndim))
    return None, (slopes.reshape(shape), intercepts.reshape(shape))


# --------------------------------------------------------------------------------------------------------- values


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _unit(value: Any) -> str | None:
    """A unit's name; EMD writes ``[n_m]`` for nm, netCDF ``days since 2000-01-01`` for days."""
    text = _text(value if value is not None else "").strip().partition(" since ")[0]
    return (text.strip("[]").replace("_", "") if text.startswith("[") else text) or None


def _number(value: Any) -> float | None:
    try:
        found = np.ravel(value).astype(float)
    except (TypeError, ValueError):
        return None
    return float(found[0]) if found.size == 1 and math.isfinite(found[0]) else None


def _positive(value: Any) -> float | None:
    found = _number(value)
    return found if found is not None and found > 0 else None
