"""What OME-XML says of the images of an OME-TIFF: sizes, channels, physical sizes, and the files their planes are in.

Any version of the schema is read (http://www.openmicroscopy.org/Schemas/OME), whatever its namespace. Text of other
programs: what does not have the expected form counts as not said.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass

from volfs.model.units import normal_unit

_NO_LENGTHS = ("pixel", "reference frame")
"""What OME calls a size that is no length, but a mere ratio."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel; ``colour`` is RGB in hexadecimal digits, as OMERO's metadata have it."""

    name: str
    colour: str | None
    samples: int


@dataclass(frozen=True, slots=True)
class Image:
    """An image. ``scale`` is by the letter of the axis: size, and unit if it is known. ``files`` are the names of those
    that its planes are in, as far as they are named."""

    identifier: str
    name: str
    sizes: Mapping[str, int]
    scale: Mapping[str, tuple[float, str | None]]
    channels: tuple[Channel, ...]
    files: tuple[str, ...]
    notes: Mapping[str, str]


def images(text: str) -> tuple[Image, ...]:
    """All images that have pixels, in their order; none if the text is no XML."""
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError):
        return ()
    found = []
    for number, element in enumerate(one for one in root if _tag(one) == "Image"):
        pixels = next((one for one in element if _tag(one) == "Pixels"), None)
        if pixels is not None:
            found.append(_image(number, element, pixels))
    return tuple(found)


def _image(number: int, element: ET.Element, pixels: ET.Element) -> Image:
    sizes = {letter: int(n) for letter in "XYZCT" if (n := pixels.get(f"Size{letter}", "")).isdecimal()}
    files: dict[str, None] = {}
    channels = []
    for one in pixels:
        if _tag(one) == "Channel":
            channels.append(_channel(one))
        elif _tag(one) == "TiffData":
            files |= {name: None for uuid in one if (name := uuid.get("FileName"))}
    notes = {
        _tag(one): one.text.strip() for one in element if _tag(one) in ("Description", "AcquisitionDate") and one.text
    }
    return Image(
        element.get("ID", f"Image:{number}"),
        element.get("Name", ""),
        sizes,
        _scale(pixels),
        tuple(channels),
        tuple(files),
        {name: text for name, text in notes.items() if text},
    )


def _channel(element: ET.Element) -> Channel:
    samples = element.get("SamplesPerPixel", "1")
    return Channel(
        element.get("Name", "").strip(),
        _colour(element.get("Color")),
        int(samples) if samples.isdecimal() and int(samples) else 1,
    )


def _colour(text: str | None) -> str | None:
    """OME's colours are RGBA in one signed number of 32 bits."""
    try:
        number = int(text or "")
    except ValueError:
        return None
    return f"{(number & 0xFFFFFFFF) >> 8:06X}" if -(1 << 31) <= number < 1 << 32 else None


def _scale(pixels: ET.Element) -> dict[str, tuple[float, str | None]]:
    found: dict[str, tuple[float, str | None]] = {}
    for letter in "XYZ":
        size = _number(pixels.get(f"PhysicalSize{letter}"))
        unit = pixels.get(f"PhysicalSize{letter}Unit", "µm")
        if size is not None:
            found[letter] = (size, None if unit in _NO_LENGTHS else normal_unit(unit))
    step = _number(pixels.get("TimeIncrement"))
    if step is not None:
        found["T"] = (step, normal_unit(pixels.get("TimeIncrementUnit", "s")))
    return found


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]
