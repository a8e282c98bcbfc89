"""What a TIFF says besides its voxels, axes and voxel sizes: OME-XML, ImageJ's metadata, and TIFF's own texts.

Decided here: what of it has a place for views (names, colours and windows of channels, what numbers mean, where the
image begins), and that the rest is kept among the facts as it is called there. What is too large for that is named.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tifffile

from volfs.ingest.readers import ome_xml
from volfs.model.facts import Rescale, omero

_LARGEST = 32 << 10
"""Characters of a text that are kept among attributes, which every look at the image reads."""
_MOST_LABELS = 4096

_USED = ("ImageJ", "images", "channels", "slices", "frames", "hyperstack", "mode", "unit", "spacing", "finterval")
_PICTURES = ("LUTs", "Ranges", "Labels", "Info", "Properties", "ROI", "Overlays", "Plot")
_TEXTS = {270: "description", 305: "software", 306: "date_time", 271: "make", 272: "model", 315: "artist"}
_PLACES = re.compile(r"<(?:\w+:)?(TiffData|Plane|BinData)\b[^>]*?(?:/>|>.*?</(?:\w+:)?\1>)\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Told:
    """``origin`` is by the name of the axis: where voxel 0 lies, in voxels."""

    facts: Mapping[str, Any]
    ome: Mapping[str, Any] = field(default_factory=dict)
    rescale: Rescale | None = None
    origin: Mapping[str, float] = field(default_factory=dict)
    lost: tuple[str, ...] = ()


def told_of(file: tifffile.TiffFile, image: ome_xml.Image | None, channels: int, planes: int) -> Told:
    """What a file says of one of its images, which has so many channels (1 for one without that axis; 0 if they are
    samples of colour), and planes in all."""
    if file.is_ome and file.ome_metadata:
        return of_ome(image, file.ome_metadata, channels)
    if file.is_imagej and file.imagej_metadata:
        return _of_imagej(file.imagej_metadata, channels, planes)
    page = file.pages.first
    texts = {name: page.tags.valueof(code) for code, name in _TEXTS.items()}
    kept = {name: text.strip() for name, text in texts.items() if isinstance(text, str) and text.strip()}
    if kept.get("description", "").startswith('{"shape"'):
        del kept["description"]  # tifffile's own, of which nothing is left to say
    lost = tuple(f"its {name.replace('_', ' ')} (too long)" for name, text in kept.items() if len(text) > _LARGEST)
    return Told({"format": "tiff", **{n: text for n, text in kept.items() if len(text) <= _LARGEST}}, lost=lost)


def of_ome(image: ome_xml.Image | None, text: str, channels: int) -> Told:
    """What OME-XML says of an image."""
    facts: dict[str, Any] = {"format": "ome-tiff"}
    lost: tuple[str, ...] = ()
    if image is not None and image.notes:
        facts["notes"] = dict(image.notes)
    kept = text if len(text) <= _LARGEST else _PLACES.sub("", text)
    if len(kept) <= _LARGEST:
        facts["ome_xml"] = kept
    else:
        lost = (f"its OME-XML ({len(text) >> 10} KiB; names, colours and sizes are)",)
    told = image.channels if image is not None else ()
    names, colours = [channel.name or None for channel in told], [channel.colour for channel in told]
    if any(names):
        facts["channels"] = [name or "" for name in names]
    known = channels > 0 and len(told) == channels and (any(names) or any(colours))
    return Told(facts, {"omero": omero(names, colours)} if known else {}, lost=lost)


def _of_imagej(meta: Mapping[str, Any], channels: int, planes: int) -> Told:
    """ImageJ's description and its tag of metadata (ij.io.FileInfo, TiffEncoder)."""
    facts: dict[str, Any] = {"format": "imagej"}
    facts |= {key: value for key, value in meta.items() if key not in (*_USED, *_PICTURES) and _is_plain(value)}
    lost: list[str] = []
    labels = _texts(meta.get("Labels"))
    if labels and len(labels) <= _MOST_LABELS and sum(map(len, labels)) <= _LARGEST:
        facts["Labels"] = labels
    elif labels:
        lost.append(f"{len(labels)} labels of slices")
    info = meta.get("Info")
    if isinstance(info, str) and info.strip():
        if len(info) <= _LARGEST:
            facts["Info"] = info
        else:
            lost.append(f"its Info ({len(info) >> 10} KiB)")
    if isinstance(meta.get("Properties"), Mapping):
        facts["notes"] = {str(key): str(value) for key, value in meta["Properties"].items()}
    elif properties := _texts(meta.get("Properties")):
        facts["notes"] = dict(zip(properties[::2], properties[1::2], strict=False))
    if any(meta.get(key) for key in ("ROI", "Overlays")):
        lost.append("regions of interest and overlays")
    names = labels if channels > 1 and len(labels) == channels == planes else []
    windows, colours = _windows(meta, channels), _colours(meta, channels)
    known = channels > 0 and (names or any(windows) or any(colours))
    made = {"omero": omero(names, colours, windows)} if known else {}
    unit = str(meta.get("vunit", "")).strip()
    straight = meta.get("cf") in (0, "0") or ("cf" not in meta and "c1" in meta)
    rescale = Rescale.of(meta.get("c1", 1.0), meta.get("c0", 0.0), unit or None) if straight else None
    origin = {n: -float(meta[f"{n}origin"]) for n in "xyz" if _finite(meta.get(f"{n}origin"))}
    return Told(facts, made, rescale, origin, tuple(lost))


def _windows(meta: Mapping[str, Any], channels: int) -> list[tuple[float, float] | None]:
    """The ranges of channels; else the one that ImageJ showed all of them in."""
    ranges = [float(n) for n in np.ravel(meta.get("Ranges", ())) if _finite(n)]
    if channels and len(ranges) == 2 * channels:
        return [(low, high) if low < high else None for low, high in zip(ranges[::2], ranges[1::2], strict=True)]
    low, high = meta.get("min"), meta.get("max")
    if _finite(low) and _finite(high) and float(str(low)) < float(str(high)):
        return [(float(str(low)), float(str(high)))] * channels
    return []


def _colours(meta: Mapping[str, Any], channels: int) -> list[str | None]:
    """The brightest colour of each channel's table, if that is a ramp from black to it."""
    tables = meta.get("LUTs")
    if not isinstance(tables, Sequence) or len(tables) != channels:
        return []
    return [_ramp(np.asarray(table)) for table in tables]


def _ramp(table: np.ndarray) -> str | None:
    if table.shape != (3, 256):
        return None
    top = table[:, 255].astype(float)
    ramp = np.arange(256)[None] * top[:, None] / 255
    return "".join(f"{int(n):02X}" for n in top) if top.any() and np.abs(table - ramp).max() <= 1 else None


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(one) for one in value] if isinstance(value, list | tuple) else []


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= _LARGEST)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)
