"""TIFF stacks: ImageJ hyperstacks, OME-TIFF, and plain multi-page files, through tifffile.

Axes, voxel size and unit come from ImageJ's or OME's metadata; pages without any are planes along z. Uncompressed
stacks whose pages lie one after the other are read without decoding.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from volfs.errors import BadInput, VolfsError
from volfs.ingest.readers import ome_set, ome_xml, pictures
from volfs.ingest.readers.marks import OME_SET_ENDING, TIFF_ENDINGS
from volfs.ingest.readers.parts import Part, choose
from volfs.ingest.readers.raw import RawVoxels
from volfs.ingest.readers.stack import gather
from volfs.ingest.readers.tiff_facts import told_of
from volfs.ingest.source import Description, Fingerprint, Source, check_plain, files_fingerprint, unreadable
from volfs.model.box import Box, Index
from volfs.model.ngff import axis
from volfs.model.units import normal_unit

_UNNAMED = ("z", "c", "t", "a")
"""What axes without a meaning are called, from the last one on."""

_CENTIMETRES = {3: "centimeter", 4: "millimeter", 5: "micrometer"}


def open_tiff(path: Path, part: str | None = None) -> Source:
    """Open a stack, or a single picture; of several images the one that ``part`` names. BadInput if it is damaged or
    its pages differ."""
    master = _master(path)
    if master is None:
        return _Tiff(path, part)
    return _open_described(master, part)


def holds_set(folder: Path) -> bool:
    """Whether the TIFFs of a directory are one OME-TIFF set."""
    return ome_set.set_in(folder) is not None


def open_folder(folder: Path, part: str | None = None) -> Source:
    """Open the set that the TIFFs of a directory are."""
    master = ome_set.set_in(folder)
    assert master is not None
    return _open_described(master, part)


def _open_described(master: Path, part: str | None) -> Source:
    """Open a set by the file that describes it: one of its TIFFs, or a companion."""
    return ome_set.open_set(master, part) if master.name.lower().endswith(OME_SET_ENDING) else _Tiff(master, part)


def _master(path: Path) -> Path | None:
    """The file that describes the set of which a file is a part, if it is not described by itself."""
    try:
        with tifffile.TiffFile(path) as file:
            text = file.ome_metadata
    except Exception:  # what is wrong with it is said where it is read
        return None
    return ome_set.metadata_of(path, text)


class _Tiff(Source):
    def __init__(self, path: Path, part: str | None) -> None:
        self._path = path
        self._raw: RawVoxels | None = None
        try:
            self._file = tifffile.TiffFile(path)
        except Exception as error:  # tifffile raises whatever the damage leads to
            raise unreadable(path, error) from error
        try:
            self._open(part)
        except VolfsError:
            self._file.close()
            raise
        except Exception as error:
            self._file.close()
            raise pictures.undecodable(str(path), error) from error

    def _open(self, part: str | None) -> None:
        path, file = self._path, self._file
        pictures.check_chain(path, file)
        told = ome_xml.images(file.ome_metadata) if file.is_ome and file.ome_metadata else ()
        for name in dict.fromkeys(name for image in told for name in image.files):
            check_plain(path.parent / name)
        every = list(file.series)
        shown = [series for series in every if series.kind != "thumbnail"] or every
        if not shown:
            raise unreadable(path, "no picture in it")
        image_of = _images(every, told)
        parts = [_part(series, image_of[every.index(series)]) for series in shown]
        chosen = shown[choose(path, parts, part)]
        series, image = chosen.levels[0], image_of[every.index(chosen)]
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
        else:
            _check_pages(path, self._pages, math.prod(self._outer), image)
        self._lock = threading.RLock()
        axes = [axis(name) for name in names]
        scale = [1.0] * len(shape)
        for name, (size, unit) in sizes_of(file, first, image).items():
            if name in names and math.isfinite(size) and size > 0:
                at = names.index(name)
                scale[at], axes[at] = size, axis(name, unit)
        rgb = "c" in names and page_axes == "YXS" and names[-1] == "c" and page_shape[-1] <= 4
        channels = 0 if rgb else shape[names.index("c")] if "c" in names else 1
        more = told_of(file, image, channels, math.prod(self._outer))
        palette = pictures.page_palette(first)
        shift = [more.origin.get(name, 0.0) * size for name, size in zip(names, scale, strict=True)]
        self.description = Description(
            _stem(path),
            shape,
            self._dtype,
            tuple(axes),
            tuple(scale),
            grain,
            rgb=rgb,
            facts={**more.facts, **pictures.palette_facts(palette)},
            ome=more.ome,
            translation=tuple(shift) if any(shift) else None,
            rescale=more.rescale,
            lost=more.lost,
            remarks=(*pictures.remarks_on(path, first), *pictures.palette_remarks(path, palette)),
        )

    def read(self, box: Box) -> np.ndarray:
        if self._raw is not None:
            return self._raw.read(box)
        return gather(box, self._outer, self._dtype, lambda n, rest: self._page(n)[rest.slices()])

    def read_into(self, box: Box, out: np.ndarray) -> None:
        if self._raw is not None:
            self._raw.read_into(box, out)
        else:
            super().read_into(box, out)

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
            raise pictures.undecodable(f"{path} (page {page.index + 1})", error) from error
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


def _part(series: tifffile.TiffPageSeries, image: ome_xml.Image | None) -> Part:
    """What an image of several goes by."""
    names = [series.name, *((image.name, image.identifier) if image is not None else ())]
    axes = series.get_axes(squeeze=True)
    assert series.dtype is not None
    known = tuple(dict.fromkeys(name for name in names if name))
    return Part(known, series.get_shape(squeeze=True), series.dtype, axes.lower())


def _images(every: Sequence[tifffile.TiffPageSeries], told: Sequence[ome_xml.Image]) -> list[ome_xml.Image | None]:
    """What OME-XML says of each series. tifffile leaves out images without pages."""
    if len(told) <= len(every):
        return [told[n] if n < len(told) else None for n in range(len(every))]
    found: list[ome_xml.Image | None] = []
    left = list(told)
    for series in every:
        sizes = dict(zip(series.get_axes(squeeze=False), series.get_shape(squeeze=False), strict=True))
        fits = (
            image
            for image in left
            if (not image.name or image.name == series.name)
            and all(sizes.get(letter) == image.sizes.get(letter) for letter in "XY")
        )
        match = next(fits, None)
        left = left[left.index(match) + 1 :] if match is not None else left
        found.append(match)
    return found


def _check_pages(
    path: Path, pages: Sequence[tifffile.TiffPage | tifffile.TiffFrame | None], wanted: int, image: ome_xml.Image | None
) -> None:
    """Raise BadInput, saying where they should be, if pages are missing: tifffile would give zeros."""
    there = sum(page is not None for page in pages[:wanted])
    if there == wanted:
        return
    files = [path.parent / name for name in image.files] if image is not None else []
    missing = [str(file) for file in files if not file.is_file()]
    where = f": {', '.join(missing[:6])}{', …' if len(missing) > 6 else ''} not there" if missing else ""
    raise BadInput(f"{path} lacks pages: {there} of {wanted} are there{where}")


def sizes_of(
    file: tifffile.TiffFile, page: tifffile.TiffPage, image: ome_xml.Image | None
) -> dict[str, tuple[float, str | None]]:
    """Voxel size and unit by axis, as far as the file says."""
    if image is not None:
        return {letter.lower(): size for letter, size in image.scale.items()}
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
    return {"x": (1 / across, unit), "y": (1 / down, unit)}


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


def _stem(path: Path) -> str:
    name, ending = path.stem, path.suffix.lower()
    if ending not in TIFF_ENDINGS:
        return path.name
    return (name[: -len(".ome")] if name.lower().endswith(".ome") else name) or path.name
