"""NRRD (``.nrrd``, and ``.nhdr`` with its data elsewhere), versions 1 to 5 of http://teem.sourceforge.net/nrrd/format.html.

The fastest axis is the last one here. Axes of space are x, y, z, fastest first; the others are t for kind ``time``,
c for colours and everything else. Space directions give voxel sizes; they are kept, with the origin, as an affine.
Without them, spacings do, or axis mins and maxs, and axis mins say where the first voxel lies (its corner, unless
centerings are of nodes: as Teem and ITK have it). All other fields, and key/value pairs, are facts of the image.
Slicer's segmentations (``.seg.nrrd``) say that they are such, and what segments are called and coloured.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.readers.packed_voxels import Packing
from volfs.ingest.readers.raw import FileSource
from volfs.ingest.readers.text_header import beside, header_lines, is_pattern, numbered, voxels_of
from volfs.ingest.source import Description, Source, unreadable
from volfs.model.facts import RESCALE_KEYS, rescale_in
from volfs.model.ngff import Axis, axis

_TYPES = {
    "i1": "signed char,int8,int8_t",
    "u1": "uchar,unsigned char,uint8,uint8_t",
    "i2": "short,short int,signed short,signed short int,int16,int16_t",
    "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    "i4": "int,signed int,int32,int32_t",
    "u4": "uint,unsigned int,uint32,uint32_t",
    "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
    "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
    "f2": "half,float16",
    "f4": "float",
    "f8": "double",
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names.split(",")}
_PACKINGS: dict[str, Packing | None] = {"raw": None, "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_PACKINGS |= {"text": "text", "txt": "text", "ascii": "text", "hex": "hex"}
_COLOURS = {"rgb-color": 3, "rgba-color": 4}
_PATIENT = re.compile(
    r"(left|right)-(anterior|posterior)-(superior|inferior)(-time)?\Z|(LPS|RAS|LAS)T?\Z", re.IGNORECASE
)
_SEGMENT = re.compile(r"(Segment[0-9]+)_(\w+)\Z")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def open_nrrd(path: Path) -> Source:
    """Open a volume; BadInput if it is not one, or its data are cut short."""
    lines, end = header_lines(path)
    if not lines or not re.match(r"NRRD000[1-5]\Z", lines[0]):
        raise unreadable(path, "it does not start as an NRRD file does")
    try:
        return _open(path, _Header(lines[1:]), end)
    except (KeyError, ValueError, OverflowError) as error:
        missing = f"its header lacks {error}" if isinstance(error, KeyError) else error
        raise unreadable(path, missing) from error


class _Header:
    """Fields by name (in lower case, without spaces), and what stands as ``key:=value``."""

    def __init__(self, lines: list[str]) -> None:
        self.fields: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self.files: list[str] = []
        for number, line in enumerate(lines):
            if line.startswith("#"):
                continue
            key, mark, value = re.split(r"(:=|: )", line if ":" in line else line + ": ", maxsplit=1)
            if mark == ":=":
                self.notes[key] = value
                continue
            name = key.strip().lower().replace(" ", "")
            self.fields[name] = value.strip()
            if name == "datafile" and value.strip().upper().startswith("LIST"):
                self.files = [entry for entry in lines[number + 1 :] if entry]
                break

    def words(self, name: str) -> list[str] | None:
        return self.fields[name].split() if name in self.fields else None

    def quoted(self, name: str) -> list[str]:
        return [re.sub(r"\\(.)", r"\1", found) for found in _QUOTED.findall(self.fields.get(name, ""))]


def _open(path: Path, header: _Header, end: int) -> Source:
    fields = header.fields
    count = int(fields["dimension"])
    sizes = [int(n) for n in fields["sizes"].split()]
    if len(sizes) != count or min(sizes, default=0) < 1:
        raise unreadable(path, f"it has {count} dimensions of sizes {fields['sizes']}")
    if fields["type"].lower() not in _DTYPES:
        raise BadInput(f"{path} holds {fields['type']!r}, which are not voxels")
    encoding = fields["encoding"].lower()
    if encoding not in _PACKINGS:
        raise BadInput(
            f"{path} has encoding {encoding}: {', '.join(_PACKINGS)} are imported, so save it as one of these"
        )
    dtype = np.dtype(_DTYPES[fields["type"].lower()])
    if dtype.itemsize > 1 and _PACKINGS[encoding] != "text":
        dtype = dtype.newbyteorder(">" if _is_big(fields["endian"]) else "<")
    axes, scale, rgb = _axes(header, sizes, dtype)
    names = [a.name for a in axes[::-1]]  # as the file counts
    facts = _facts(header, count, names)
    segments = _segments(header.notes)
    shape = tuple(sizes[::-1])
    files, start = _data(path, header, end)
    skipped = int(fields.get("byteskip", 0))
    if skipped < -1 or (skipped < 0 and _PACKINGS[encoding] is not None):
        raise unreadable(path, f"byte skip is {skipped}")
    lines = max(0, int(fields.get("lineskip", 0)))
    voxels = voxels_of(files, _PACKINGS[encoding], dtype, shape, skipped, start, lines)
    grain = voxels.grain
    if rgb and axes[-1].name == "c":
        grain = (*grain[:-2], *shape[-2:]) if len(shape) > 1 else grain
    name = path.name[: -len(path.suffix)] if path.suffix.lower() in (".nrrd", ".nhdr") else path.name
    description = Description(
        name or path.name,
        shape,
        dtype.newbyteorder("="),
        axes,
        scale,
        grain,
        rgb=rgb,
        facts=facts,
        translation=_translation(header, names, scale[::-1]),
        rescale=rescale_in(header.notes),
        is_label=bool(segments),
        ome={"image-label": _image_label(segments)} if segments and "c" not in names else {},
    )
    return FileSource(description, voxels, [path, *(file for file in files if file != path)])


def _is_big(endian: str) -> bool:
    if endian.lower() not in ("little", "big"):
        raise ValueError(f"its endian is {endian!r}")
    return endian.lower() == "big"


def _data(path: Path, header: _Header, end: int) -> tuple[list[Path], int]:
    """The files of the data, and the byte at which they begin there."""
    where = header.fields.get("datafile")
    if where is None:
        files, start = [path], end
    elif header.files:
        files, start = [beside(path, name) for name in header.files], 0
    elif is_pattern(where):
        files, start = numbered(path, where.split()), 0
    else:
        files, start = [beside(path, where)], 0
    return files, start


def _axes(header: _Header, sizes: list[int], dtype: np.dtype[Any]) -> tuple[tuple[Axis, ...], tuple[float, ...], bool]:
    """Axes and voxel sizes, slowest first, and whether the samples of colours are among them."""
    count = len(sizes)
    kinds = [kind.lower() for kind in header.words("kinds") or ["???"] * count]
    directions = _directions(header, count)
    spacings = _spacings(header, sizes)
    if not len(kinds) == len(directions) == len(spacings) == count:
        raise ValueError("its fields are not all for as many dimensions")
    units = header.quoted("units") or [""] * count
    around = header.quoted("spaceunits")
    if not around and _PATIENT.match(header.fields.get("space", "")):
        around = ["mm", "mm", "mm", ""]  # the space of a patient is DICOM's and NIfTI's, which measure it so
    labels = [label.lower() for label in header.quoted("labels")] or [""] * count
    named_directions = "spacedirections" in header.fields
    space, rest = ["x", "y", "z"], ["t", "c", "a"]
    axes: list[Axis] = []
    scale: list[float] = []
    rgb = False
    for i, kind in enumerate(kinds):
        vector = directions[i]
        spatial = vector is not None if named_directions else kind in ("space", "domain", "???", "none")
        size = math.sqrt(sum(n * n for n in vector)) if vector is not None else spacings[i]
        known = math.isfinite(size) and size != 0
        along = {around[j] for j, n in enumerate(vector or ()) if n and j < len(around)}
        unit = along.pop() if len(along) == 1 else units[i] if vector is None and i < len(units) else None
        scale.append(size if known else 1.0)
        if spatial and space:
            axes.append(axis(space.pop(0), unit if known else None))
            continue
        colour = _COLOURS.get(kind) == sizes[i] and dtype.kind in "iu"
        wanted = "t" if kind == "time" or (spatial and kind != "list") else "c"
        wanted = labels[i] if i < len(labels) and labels[i] in rest and kind not in ("time", *_COLOURS) else wanted
        name = wanted if wanted in rest else rest[0] if rest else ""
        if not name:
            raise BadInput("an NRRD file of so many dimensions is not imported")
        rest.remove(name)
        rgb = rgb or (colour and name == "c")
        axes.append(axis(name, unit if name == "t" and known else None))
    return tuple(axes[::-1]), tuple(scale[::-1]), rgb


def _numbers(header: _Header, field: str, count: int) -> list[float]:
    """A field of one number per axis; NaN where nothing is said. ValueError for another count."""
    found = [float(n) for n in header.words(field) or ["nan"] * count]
    if len(found) != count:
        raise ValueError(f"its {field} are {len(found)}, not {count}")
    return found


def _centerings(header: _Header, count: int) -> list[str]:
    words = [word.lower() for word in header.words("centerings") or header.words("centers") or ["???"] * count]
    return words if len(words) == count else ["???"] * count


def _spacings(header: _Header, sizes: list[int]) -> list[float]:
    """Along each axis: as it stands, or from where an axis begins and ends."""
    count = len(sizes)
    found = _numbers(header, "spacings", count)
    mins, maxs = _numbers(header, "axismins", count), _numbers(header, "axismaxs", count)
    for i, (size, centering) in enumerate(zip(sizes, _centerings(header, count), strict=True)):
        steps = size - 1 if centering == "node" else size
        if not math.isfinite(found[i]) and math.isfinite(maxs[i] - mins[i]) and steps > 0:
            found[i] = (maxs[i] - mins[i]) / steps
    return found


def _translation(header: _Header, names: list[str], scale: Sequence[float]) -> tuple[float, ...] | None:
    """Where axis mins put the centre of the first voxel, slowest axis first. In a world, where that begins along time:
    of space the affine tells."""
    if "spacedirections" in header.fields:
        return _begin_of_time(header, names)
    mins = _numbers(header, "axismins", len(names))
    shift = [
        0.0 if not math.isfinite(at) or name in "ca" else at if centering == "node" else at + size / 2
        for name, at, size, centering in zip(names, mins, scale, _centerings(header, len(names)), strict=True)
    ]
    return tuple(shift[::-1]) if any(shift) else None


def _directions(header: _Header, count: int) -> list[list[float] | None]:
    """The step along each axis in the space around; None for axes that are not of space."""
    text = header.fields.get("spacedirections")
    if text is None:
        return [None] * count
    found = re.findall(r"none|nan|\([^)]*\)", text, re.IGNORECASE)
    vectors = [_vector(entry) if entry.startswith("(") else None for entry in found]
    return [None if vector is None or any(map(math.isnan, vector)) else vector for vector in vectors]


def _vector(text: str) -> list[float]:
    return [float(n) for n in text.strip().strip("()").split(",")]


def _begin_of_time(header: _Header, names: list[str]) -> tuple[float, ...] | None:
    """The part of the origin along time, where that is a direction of the world."""
    vectors = _directions(header, len(names))
    along = vectors[names.index("t")] if "t" in names else None
    if along is None or "spaceorigin" not in header.fields:
        return None
    steps = [i for i, step in enumerate(along) if step]
    origin = _vector(header.fields["spaceorigin"])
    if len(steps) != 1 or len(origin) != len(along) or not origin[steps[0]] or not math.isfinite(origin[steps[0]]):
        return None
    return tuple(origin[steps[0]] if name == "t" else 0.0 for name in names[::-1])


def _facts(header: _Header, count: int, names: list[str]) -> dict[str, Any]:
    """What the header says beyond shape and voxel size. The affine takes (x, y, z, 1) to the space that is named. What
    is said of each axis is kept by its name."""
    facts: dict[str, Any] = {"format": "nrrd"}
    for field in ("space", "content", "kinds", "measurementframe", "labels", "sampleunits", "oldmin", "oldmax"):
        if header.fields.get(field):
            facts[field] = header.fields[field]
    vectors = [vector for vector in _directions(header, count) if vector is not None]
    if vectors and len({len(vector) for vector in vectors}) == 1:
        world = len(vectors[0])
        origin = _vector(header.fields["spaceorigin"]) if "spaceorigin" in header.fields else [0.0] * world
        if len(origin) == world and all(map(math.isfinite, origin)):
            rows = [[*(vector[row] for vector in vectors), origin[row]] for row in range(world)]
            facts["affine"] = [*rows, [0.0] * len(vectors) + [1.0]]
    per_axis: dict[str, Sequence[Any]] = {"axis_kinds": list(header.words("kinds") or [])}
    per_axis["axis_labels"] = header.quoted("labels")
    if "centerings" in header.fields or "centers" in header.fields:
        per_axis["centerings"] = _centerings(header, count)
    for field, name in (("spacings", "spacings"), ("axismins", "axis_mins"), ("thicknesses", "thicknesses")):
        per_axis[name] = [n if math.isfinite(n) else None for n in _numbers(header, field, count)]
    for name, values in per_axis.items():
        found = {axis: value for axis, value in zip(names, values, strict=False) if value not in (None, "", "???")}
        if found:
            facts[name] = found
    if notes := {key: value for key, value in header.notes.items() if key not in RESCALE_KEYS}:
        facts["notes"] = notes
    return facts


def _segments(notes: Mapping[str, str]) -> dict[int, dict[str, str]]:
    """What Slicer's segmentation says of each label; empty for what is none. Segments are numbered ``Segment0_…``."""
    found: dict[str, dict[str, str]] = {}
    for key, value in notes.items():
        if (match := _SEGMENT.match(key)) is not None:
            found.setdefault(match[1], {})[match[2]] = value
    labels = {}
    for segment in found.values():
        with contextlib.suppress(KeyError, ValueError):
            labels[int(segment["LabelValue"])] = segment
    return labels


def _image_label(segments: Mapping[int, Mapping[str, str]]) -> dict[str, Any]:
    """OME-NGFF's ``image-label``: colours and names of segments."""
    colours, properties = [], []
    for label, segment in sorted(segments.items()):
        parts = segment.get("Color", "").split()
        with contextlib.suppress(ValueError):
            rgb = [min(255, max(0, round(255 * float(part)))) for part in parts]
            if len(rgb) == 3:
                colours.append({"label-value": label, "rgba": [*rgb, 255]})
        if segment.get("Name"):
            properties.append({"label-value": label, "name": segment["Name"]})
    return {key: value for key, value in (("colors", colours), ("properties", properties)) if value}
