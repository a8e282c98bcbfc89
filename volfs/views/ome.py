"""OME-XML (schema 2016-06) of a volume in a TIFF: axes, physical sizes, names of channels.

Pages are counted with channels fastest, then z, then time. The text is ASCII, other characters being references, as
TIFF wants it.
"""

from __future__ import annotations

import re

import numpy as np

from volfs.model.units import METRES, SECONDS
from volfs.views.volume import ShownAxis, VolumeSpec

PIXEL_TYPES = {
    "b1": "uint8",
    "i1": "int8",
    "i2": "int16",
    "i4": "int32",
    "u1": "uint8",
    "u2": "uint16",
    "u4": "uint32",
    "f4": "float",
    "f8": "double",
    "c8": "complex",
    "c16": "double-complex",
}
"""By kind and size: OME has no 64-bit integers and no half floats."""

_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_LENGTHS = {
    "angstrom": "Å",
    "attometer": "am",
    "centimeter": "cm",
    "decimeter": "dm",
    "femtometer": "fm",
    "foot": "ft",
    "hectometer": "hm",
    "inch": "in",
    "kilometer": "km",
    "megameter": "Mm",
    "meter": "m",
    "micrometer": "µm",
    "millimeter": "mm",
    "nanometer": "nm",
    "picometer": "pm",
    "yard": "yd",
}
_TIMES = {
    "attosecond": "as",
    "day": "d",
    "femtosecond": "fs",
    "hour": "h",
    "microsecond": "µs",
    "millisecond": "ms",
    "minute": "min",
    "nanosecond": "ns",
    "picosecond": "ps",
    "second": "s",
}
_MOST_CHANNELS = 1000  # more are not named: the text would grow with the volume
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def pixel_type(dtype: np.dtype[np.generic]) -> str | None:
    """The OME pixel type of a dtype, bool being 0 and 1. None if there is none."""
    return PIXEL_TYPES.get(dtype.str[1:])


def text(spec: VolumeSpec, time: ShownAxis | None, channel: ShownAxis | None) -> bytes:
    """The OME-XML of a volume whose other axes are at most these two. Its dtype must have a pixel type."""
    sizes = {"C": spec.samples, "T": time.size if time else 1, "Z": 1}
    count = channel.size if channel else 1
    sizes["C"] *= count
    attributes = {"ID": "Pixels:0", "DimensionOrder": "XYCZT", "Type": pixel_type(spec.dtype), "BigEndian": "false"}
    if spec.has_samples:
        attributes["Interleaved"] = "true"
    for axis, letter in zip(reversed(spec.space), "XYZ", strict=False):
        sizes[letter] = axis.size
        attributes |= _physical_size(axis, letter)
    if time is not None and time.unit in SECONDS:
        attributes |= {"TimeIncrement": repr(float(time.scale)), "TimeIncrementUnit": _TIMES[time.unit]}
    attributes |= {f"Size{letter}": str(size) for letter, size in sizes.items()}
    channels = ""
    if count <= _MOST_CHANNELS or spec.samples > 1:
        for index in range(count if count <= _MOST_CHANNELS else 1):
            named = {"Name": spec.channels[index]} if len(spec.channels) == count else {}
            colour = spec.colours[index] if len(spec.colours) == count else None
            if colour is not None:
                named["Color"] = str(_signed(int(colour, 16) << 8 | 0xFF))
            channels += _element("Channel", ID=f"Channel:0:{index}", SamplesPerPixel=str(spec.samples), **named) + "/>"
    pages = sizes["T"] * sizes["Z"] * count
    made = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="{_NAMESPACE}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        f' xsi:schemaLocation="{_NAMESPACE} {_NAMESPACE}/ome.xsd">'
        f"{_element('Image', ID='Image:0', **({'Name': spec.title} if spec.title else {}))}>"
        f"{_element('Pixels', **attributes)}>{channels}"
        f'<TiffData IFD="0" PlaneCount="{pages}"/></Pixels></Image></OME>'
    )
    return made.encode("ascii", "xmlcharrefreplace")


def _signed(rgba: int) -> int:
    """A colour as OME has it: RGBA in a signed number of 32 bits."""
    return rgba - (1 << 32) if rgba >> 31 else rgba


def _physical_size(axis: ShownAxis, letter: str) -> dict[str, str]:
    """In the axis's own unit; as a mere ratio where that is not known."""
    unit = _LENGTHS[axis.unit] if axis.unit in METRES else None
    if unit is None and axis.scale == 1:
        return {}
    return {f"PhysicalSize{letter}": repr(float(axis.scale)), f"PhysicalSize{letter}Unit": unit or "reference frame"}


def _element(name: str, **attributes: str | None) -> str:
    from xml.sax.saxutils import quoteattr  # brings urllib and ssl, for which a mount would wait

    told = (f" {key}={quoteattr(_NO_XML.sub('', value))}" for key, value in attributes.items() if value is not None)
    return f"<{name}{''.join(told)}"
