"""TIFF stacks: ImageJ hyperstacks, OME-TIFF, and plain multi-page files, through tifffile.

Axes, voxel size and unit come from ImageJ's or OME's metadata; pages without any are planes along z. Uncompressed
stacks whose pages lie one after the other are read without decoding.
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from volfs.errors import BadInput, VolfsError
from volfs.ingest.readers import pictures
from volfs.ingest.readers.raw import RawVoxels
from volfs.ingest.source import Description, Fingerprint, Source, files_fingerprint, unreadable
from volfs.model.box import Box, Index
from volfs.model.ngff import axis
from volfs.model.units import normal_unit

_UNNAMED = ("z", "c", "t", "a")
"""What axes without a meaning are called, from the last one on."""

_CENTIMETRES = {3: "centimeter", 4: "millimeter", 5: "micrometer"}


def open_tiff(path: Path) -> Source:
    """Open a stack, or a single picture. BadInput if it is damaged or its pages differ."""
    return _Tiff(path)


class _Tiff(Source):
    def __init__(self, path: Path) -> None:
        self._path = path
        self._raw: RawVoxels | None = None
        try:
            self._file = tifffile.TiffFile(path)
        except Exception as error:  # tifffile raises whatever the damage leads to
            raise unreadable(path, error) from error
        try:
            self._open()
        except VolfsError:
            self._file.close()
            raise
        except Exception as error:
            self._file.close()
            raise unreadable(path, error) from error

    def _open(self) -> None:
        path, file = self._path, self._file
        pictures.check_chain(path, file)
        every = [series for series in file.series if series.kind != "thumbnail"]
        if not every:
            raise unreadable(path, "no picture in it")
        if len(every) > 1:
            shapes = ", ".join(f"{s.axes} {s.shape}" for s in every[:4])
            raise BadInput(f"{path} holds {len(every)} images that are not one stack ({shapes})")
        series = every[0].levels[0]
        first = series.keyframe
        pictures.check_page(path, first)
        assert series.dtype is not None
        self._dtype = series.dtype.newbyteorder("=")
        # With the samples last, whatever the planar configuration: that is what page_voxels gives.
        page_shape: Index = (first.imagelength, first.imagewidth)
        page_axes = "YX"
        if first.samplesperpixel > 1:
            page_shape, page_axes = (*page_shape, first.samplesperpixel), "YXS"
        outer_axes = series.get_axes(squeeze=True)
        outer_shape = series.get_shape(squeeze=True)
        kept = [(a, n) for a, n in zip(outer_axes, outer_shape, strict=True) if a not in "YXS"]
        if math.prod(n for _, n in kept) * math.prod(page_shape) != series.size or first.imagedepth != 1:
            raise BadInput(f"{path} has pages of a kind that is not imported ({series.axes} {series.shape})")
        self._outer: Index = tuple(n for _, n in kept)
        self._page_shape = page_shape
        shape = (*self._outer, *page_shape)
        names = _names([a for a, _ in kept] + list(page_axes))
        self._pages = list(series.pages)
        grain = (*(1,) * len(self._outer), *page_shape)
        planar = first.samplesperpixel > 1 and first.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        offset = series.dataoffset
        if offset is not None and not planar and first.bitspersample == series.dtype.itemsize * 8:
            stored = series.dtype.newbyteorder(file.byteorder)
            self._raw = RawVoxels(path, stored, shape, offset)
            grain = self._raw.grain
        elif len(self._pages) != math.prod(self._outer) or any(page is None for page in self._pages):
            raise BadInput(f"{path} lacks pages: {len(self._pages)} of {math.prod(self._outer)} are there")
        self._lock = threading.RLock()
        axes = [axis(name) for name in names]
        scale = [1.0] * len(shape)
        for name, (size, unit) in _sizes(file, first).items():
            if name in names and math.isfinite(size) and size > 0:
                at = names.index(name)
                scale[at], axes[at] = size, axis(name, unit)
        rgb = "c" in names and page_axes == "YXS" and names[-1] == "c" and page_shape[-1] <= 4
        self.description = Description(
            _stem(path), shape, self._dtype, tuple(axes), tuple(scale), grain, rgb=rgb, facts=_facts(file)
        )

    def read(self, box: Box) -> np.ndarray:
        if self._raw is not None:
            return self._raw.read(box)
        out = np.empty(box.shape, self._dtype)
        lead = len(self._outer)
        rest = Box(box.start[lead:], box.stop[lead:]).slices()
        for where in np.ndindex(box.shape[:lead]):
            index = tuple(a + i for a, i in zip(box.start, where, strict=False))
            number = int(np.ravel_multi_index(index, self._outer)) if lead else 0
            out[where] = self._page(number)[rest]
        return out

    def fingerprint(self) -> Fingerprint:
        others = {Path(page.parent.filehandle.path) for page in self._pages if page is not None}
        return files_fingerprint([self._path, *sorted(others)])

    def close(self) -> None:
        self._file.close()
        if self._raw is not None:
            self._raw.close()

    def _page(self, number: int) -> np.ndarray:
        page = self._pages[number]
        assert page is not None
        path = Path(page.parent.filehandle.path)
        try:
            if page.parent is self._file:
                voxels = pictures.page_voxels(page, self._lock)
            else:  # an OME-TIFF over several files, of which tifffile keeps only the first open
                with tifffile.TiffFile(path) as other:
                    voxels = pictures.page_voxels(other.pages[page.index])
        except Exception as error:
            raise unreadable(f"{path} (page {page.index + 1})", error) from error
        if voxels.size != math.prod(self._page_shape):
            raise unreadable(f"{path} (page {page.index + 1})", "its size differs from the first page's")
        return voxels.reshape(self._page_shape)


def _names(codes: list[str]) -> list[str]:
    """Axis names from tifffile's letters: X Y Z T C are theirs; S are samples; others take what names are left."""
    names = [code.lower() if code in "XYZTC" else "" for code in codes]
    for i, code in enumerate(codes):
        if code == "S":
            names[i] = "s" if "c" in names else "c"
    free = [name for name in _UNNAMED if name not in names]
    for i in range(len(names) - 1, -1, -1):
        if not names[i]:
            if not free:
                raise BadInput(f"a TIFF with axes {''.join(codes)} is not imported")
            names[i] = free.pop(0)
    return names


def _sizes(file: tifffile.TiffFile, page: tifffile.TiffPage) -> dict[str, tuple[float, str | None]]:
    """Voxel size and unit by axis, as far as the file says."""
    if file.is_ome and file.ome_metadata:
        return _ome_sizes(file.ome_metadata)
    across, down = _per_unit(page)
    if file.is_imagej and file.imagej_metadata:
        meta = file.imagej_metadata
        unit = _imagej_unit(meta.get("unit"))
        found: dict[str, tuple[float, str | None]] = {}
        if unit is not None:
            found["x"] = (1 / across if across else 1.0, unit)
            found["y"] = (1 / down if down else 1.0, unit)
            found["z"] = (_number(meta.get("spacing")) or 1.0, unit)
        if interval := _number(meta.get("finterval")):
            found["t"] = (interval, "second")
        return found
    unit = _CENTIMETRES.get(int(page.resolutionunit))
    if unit is None or not across or not down:  # dots per inch are the printer's
        return {}
    if "z" in _names(list(file.series[0].axes)):
        return {}  # nothing says how far planes are apart, and a unit along two axes of three is of no use
    return {"x": (1 / across, unit), "y": (1 / down, unit)}


def _ome_sizes(text: str) -> dict[str, tuple[float, str | None]]:
    found: dict[str, tuple[float, str | None]] = {}
    try:
        images = tifffile.xml2dict(text)["OME"]["Image"]
        pixels = (images[0] if isinstance(images, list) else images)["Pixels"]
    except (KeyError, TypeError, ValueError, IndexError, SyntaxError):
        return found
    for name in "xyz":
        size = _number(pixels.get(f"PhysicalSize{name.upper()}"))
        if size:
            found[name] = (size, normal_unit(str(pixels.get(f"PhysicalSize{name.upper()}Unit", "µm"))))
    if step := _number(pixels.get("TimeIncrement")):
        found["t"] = (step, normal_unit(str(pixels.get("TimeIncrementUnit", "s"))))
    return found


def _per_unit(page: tifffile.TiffPage) -> tuple[float, float]:
    try:
        across, down = page.resolution
    except (ValueError, ZeroDivisionError, TypeError):
        return 0.0, 0.0
    return float(across), float(down)


def _imagej_unit(value: object) -> str | None:
    text = str(value or "").replace("\\u00B5", "µ").replace("\\u00b5", "µ").strip()
    return None if text.lower() in ("", "pixel", "pixels", "inch") else normal_unit(text)


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _facts(file: tifffile.TiffFile) -> dict[str, Any]:
    """The names of channels, where somebody gave some."""
    names: list[str] = []
    if file.is_ome and file.ome_metadata:
        try:
            images = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
            channels = (images[0] if isinstance(images, list) else images)["Pixels"]["Channel"]
            names = [str(c.get("Name", "")) for c in (channels if isinstance(channels, list) else [channels])]
        except (KeyError, TypeError, ValueError, IndexError, SyntaxError):
            names = []
    form = "ome-tiff" if file.is_ome else "imagej" if file.is_imagej else "tiff"
    return {"format": form, **({"channels": names} if any(names) else {})}


def _stem(path: Path) -> str:
    stem = path.name[: path.name.lower().rindex(".tif")]
    return stem.removesuffix(".ome") or path.name
