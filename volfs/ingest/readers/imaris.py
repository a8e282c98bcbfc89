"""Imaris files (``.ims``): HDF5 in the layout of Bitplane's "Imaris 5.5 file format".

The finest resolution level of all time points and channels is one image. Datasets are padded to whole chunks; an image
is as large as its channels say (ImageSizeX, Y, Z). Voxel sizes are its extent divided by that; the extent's lower end
is where the image begins. Names, colours and ranges of channels are its display settings.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.readers.hdf5_filters import check_filters
from volfs.ingest.readers.stack import gather
from volfs.ingest.source import Description, Fingerprint, Source, files_fingerprint, unreadable
from volfs.model.box import Box, Index
from volfs.model.facts import omero
from volfs.model.ngff import axis

_DATA = re.compile(r"/?DataSet/ResolutionLevel (\d+)/TimePoint (\d+)/Channel (\d+)/Data\Z")
_LEVEL = re.compile(r"(?:/?DataSet/)?(?:ResolutionLevel )?([0-9]{1,3})/?\Z")
_MOST_VOLUMES = 10_000_000


def is_imaris(file: Any) -> bool:
    """Whether an open HDF5 file is one of Imaris."""
    return "DataSet/ResolutionLevel 0/TimePoint 0" in file and "DataSetInfo/Image" in file


def open_imaris(path: Path, file: Any, dataset: str | None = None) -> Source | None:
    """The whole image; with the number of a resolution level that level; with the name of a dataset of voxels that
    alone, and None for a dataset of another kind. Takes over the file."""
    if dataset is None:
        return _Imaris(path, file, 0, None)
    level = _LEVEL.match(dataset)
    if level is not None:
        return _Imaris(path, file, int(level[1]), None)
    found = _DATA.match(dataset)
    return None if found is None else _Imaris(path, file, int(found[1]), (int(found[2]), int(found[3])))


class _Imaris(Source):
    def __init__(self, path: Path, file: Any, level: int, only: tuple[int, int] | None) -> None:
        self._path = path
        self._file = file
        root = file["DataSet"].get(f"ResolutionLevel {level}")
        if root is None:
            raise BadInput(f"{path} has no resolution level {level}")
        times = _numbers(root, "TimePoint") if only is None else [only[0]]
        first_time = root.get(f"TimePoint {times[0]}") if times else None
        channels = [only[1]] if only is not None else _numbers(first_time or {}, "Channel")
        if not times or not channels or len(times) * len(channels) > _MOST_VOLUMES:
            raise unreadable(path, "it holds no channel")
        about = file["DataSetInfo/Image"].attrs
        self._volumes = [
            self._volume(root, f"TimePoint {time}/Channel {channel}")
            for time, channel in itertools.product(times, channels)
        ]
        first = self._volumes[0]
        sizes = self._sizes(root[f"TimePoint {times[0]}/Channel {channels[0]}"], about, first.shape, level)
        for volume in self._volumes:
            if volume.dtype != first.dtype or any(n < size for n, size in zip(volume.shape, sizes, strict=True)):
                raise BadInput(f"{path}:{volume.name} is {volume.shape} {volume.dtype}, not {sizes} {first.dtype}")
        outer = [(name, n) for name, n in (("t", len(times)), ("c", len(channels))) if n > 1]
        flat = sizes[0] == 1
        self._flat = flat
        self._outer: Index = tuple(n for _, n in outer)
        low, high = _vector(about, "ExtMin"), _vector(about, "ExtMax")
        unit = _text(about.get("Unit")) or "um"
        scale, shift, axes = [1.0] * len(outer), [0.0] * len(outer), [axis(name) for name, _ in outer]
        for at, (name, size) in enumerate(zip("zyx", sizes, strict=True)):
            if flat and name == "z":
                continue
            a, b = low.get(2 - at), high.get(2 - at)
            known = a is not None and b is not None and a != b
            scale.append((b - a) / size if a is not None and b is not None and known else 1.0)  # which may fall
            shift.append(a if a is not None and known else 0.0)
            axes.append(axis(name, unit if known else None))
        info = [file["DataSetInfo"].get(f"Channel {channel}") for channel in channels]
        told = [{key: _text(one.attrs[key]) for key in one.attrs} if one is not None else {} for one in info]
        inner = first.chunks or (1, *first.shape[1:])
        space: Index = sizes[1:] if flat else sizes
        self.description = Description(
            path.stem,
            (*self._outer, *space),
            first.dtype.newbyteorder("="),
            tuple(axes),
            tuple(scale),
            (*(1,) * len(outer), *(min(c, n) for c, n in zip(inner[1:] if flat else inner, space, strict=True))),
            facts={"format": "imaris", **_facts(file, about, told)},
            ome=_omero(told),
            translation=tuple(shift) if any(shift) else None,
            lost=_lost(file),
        )

    def _volume(self, root: Any, name: str) -> Any:
        found = root.get(f"{name}/Data")
        if found is None or len(found.shape) != 3:
            raise BadInput(f"{self._path}:{root.name}/{name} is not there")
        check_filters(f"{self._path}:{found.name}", found)
        return found

    def _sizes(self, channel: Any, about: Any, there: Index, level: int) -> Index:
        """z, y, x without the padding."""
        found = []
        for name, padded in zip("ZYX", there, strict=True):
            text = _text(channel.attrs.get(f"ImageSize{name}")) or (_text(about.get(name)) if level == 0 else "")
            if level and not text:
                raise BadInput(f"{self._path}: level {level} does not say how large it is: its datasets are padded")
            size = int(text) if text.isdecimal() else padded
            if not 0 < size <= padded:
                raise unreadable(self._path, f"it says {size} voxels along {name}, and has {padded}")
            found.append(size)
        return tuple(found)

    def read(self, box: Box) -> np.ndarray:
        return gather(box, self._outer, self.description.dtype, self._part)

    def _part(self, number: int, box: Box) -> np.ndarray:
        volume = self._volumes[number]
        try:
            found = np.asarray(volume[(slice(0, 1), *box.slices()) if self._flat else box.slices()])
        except Exception as error:  # h5py raises whatever the damage leads to
            raise unreadable(f"{self._path}:{volume.name}", error) from error
        return found[0] if self._flat else found

    def fingerprint(self) -> Fingerprint:
        return files_fingerprint([self._path])

    def close(self) -> None:
        self._file.close()


def _numbers(group: Any, kind: str) -> list[int]:
    """The numbers of members called ``Channel 0`` and so on. BadInput if one is left out."""
    found = sorted(int(name.removeprefix(kind)) for name in group if re.fullmatch(rf"{kind} \d+", name))
    if found != list(range(len(found))):
        raise BadInput(f"{group.file.filename}:{group.name} has {kind}s {', '.join(map(str, found))}: some are missing")
    return found


def _text(value: Any) -> str:
    """Imaris writes text as arrays of single characters."""
    if value is None:
        return ""
    if isinstance(value, np.ndarray):
        value = b"".join(value.ravel().tolist()) if value.dtype.kind == "S" else "".join(map(str, value.ravel()))
    return (value.decode("latin1") if isinstance(value, bytes) else str(value)).strip("\0 \n")


def _vector(about: Any, name: str) -> dict[int, float]:
    found = {}
    for at in range(3):
        try:
            number = float(_text(about.get(f"{name}{at}")))
        except ValueError:
            continue
        if math.isfinite(number):
            found[at] = number
    return found


def _omero(told: list[dict[str, str]]) -> Mapping[str, Any]:
    names = [channel.get("Name") or None for channel in told]
    colours: list[str | None] = []
    windows: list[tuple[float, float] | None] = []
    for channel in told:
        parts = _floats(channel.get("Color", ""), 3)
        colours.append("".join(f"{min(255, max(0, round(255 * n))):02X}" for n in parts) if parts else None)
        ends = _floats(channel.get("ColorRange", ""), 2)
        windows.append((ends[0], ends[1]) if ends and ends[0] < ends[1] else None)
    return {"omero": omero(names, colours, windows)} if any(names) or any(colours) else {}


def _floats(text: str, count: int) -> list[float]:
    try:
        found = [float(part) for part in text.split()]
    except ValueError:
        return []
    return found if len(found) == count and all(map(math.isfinite, found)) else []


def _facts(file: Any, about: Any, told: list[dict[str, str]]) -> dict[str, Any]:
    facts: dict[str, Any] = {"image": {key: _text(about[key]) for key in about}}
    if any(told):
        facts["channel_info"] = told
    times = file["DataSetInfo"].get("TimeInfo")
    if times is not None:
        facts["time_info"] = {key: _text(times.attrs[key]) for key in itertools.islice(times.attrs, 1000)}
    return facts


def _lost(file: Any) -> tuple[str, ...]:
    scene = sorted(name for name in file if name not in ("DataSet", "DataSetInfo", "Thumbnail", "DataSetTimes"))
    return (f"what lies beside the image ({', '.join(scene[:8])})",) if scene else ()
