"""OME-TIFF sets whose OME-XML lies outside the files of voxels: in a companion (``NAME.companion.ome``), or in one TIFF
that others name as their ``BinaryOnly`` master.

https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html. A file of such a set holds planes of an
image without saying which: alone it would be read as a stack of its own pages, and the planes of other files would be
missing without a word. So the set is opened by its metadata, whichever of its files is named; planes that are not there
are an error that names their file.
"""

from __future__ import annotations

import itertools
import math
import threading
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from volfs.errors import BadInput
from volfs.ingest.readers import ome_xml, pictures, tiff_facts
from volfs.ingest.readers.marks import OME_SET_ENDING
from volfs.ingest.readers.parts import Part, choose
from volfs.ingest.readers.stack import gather
from volfs.ingest.source import Description, Fingerprint, Source, check_plain, files_fingerprint, unreadable
from volfs.model.box import Box, Index
from volfs.model.ngff import axis

_LARGEST = 256 << 20
_MOST_PLANES = 10_000_000


@dataclass(frozen=True, slots=True)
class _Plane:
    """A page of a file."""

    path: Path
    page: int


def metadata_of(path: Path, text: str | None) -> Path | None:
    """The file that describes the set which a TIFF belongs to, by the TIFF's own OME-XML; None if it describes itself.
    BadInput if that file is not there."""
    if not text or "BinaryOnly" not in text:
        return None
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError):
        return None
    mark = next((one for one in root if one.tag.rpartition("}")[2] == "BinaryOnly"), None)
    name = mark.get("MetadataFile", "") if mark is not None else ""
    if mark is None or not name or Path(name).name == path.name:
        return None
    found = path.parent / name
    if check_plain(found) is None:
        raise BadInput(f"{path} is one file of a set that {found} describes, and that is not there: put it beside it")
    return found


def set_in(folder: Path) -> Path | None:
    """The file that describes the set which the TIFFs of a directory are; None if they are no one set."""
    companions = sorted(folder.glob(f"*{OME_SET_ENDING}"))
    if companions:
        return companions[0] if len(companions) == 1 else None
    tiffs = sorted(path for ending in ("tif", "tiff") for path in folder.glob(f"*.ome.{ending}"))
    if len(tiffs) < 2:
        return None
    try:
        with tifffile.TiffFile(tiffs[0]) as file:
            text = file.ome_metadata
    except Exception:  # what is wrong with it is said where it is read
        return None
    if (master := metadata_of(tiffs[0], text)) is not None:
        return master
    named = {name for image in ome_xml.images(text or "") for name in image.files}
    return tiffs[0] if len(named) > 1 and {path.name for path in tiffs} <= named else None


def open_set(path: Path, part: str | None = None) -> Source:
    """Open the image that a companion describes, or the one of several that ``part`` names."""
    text = _text(path)
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:
        raise unreadable(path, error) from error
    images = ome_xml.images(text)
    elements = [one for one in root.iter() if one.tag.rpartition("}")[2] == "Pixels"]
    if not images or len(images) != len(elements):
        raise unreadable(path, "it describes no image")
    parts = [Part((i.name, i.identifier) if i.name else (i.identifier,), *_shape(i), "") for i in images]
    number = choose(path, parts, part)
    return _Set(path, images[number], elements[number], text)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise unreadable(path, "it is far too large")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error


def _shape(image: ome_xml.Image) -> tuple[Index, np.dtype[np.uint8]]:
    return tuple(image.sizes.get(letter, 1) for letter in "TCZYX"), np.dtype(np.uint8)


class _Set(Source):
    """One image. Its planes are read from the files that hold them."""

    def __init__(self, path: Path, image: ome_xml.Image, pixels: ET.Element, text: str) -> None:
        self._path = path
        samples = max((channel.samples for channel in image.channels), default=1)
        counts = {letter: image.sizes.get(letter, 1) for letter in "CZT"}
        if samples > 1:
            if counts["C"] % samples or len({channel.samples for channel in image.channels}) > 1:
                raise BadInput(f"{path} has channels of different kinds, which are not imported together")
            counts["C"] //= samples
        self._counts: Index = (counts["T"], counts["C"], counts["Z"])
        self._planes = _planes(path, pixels, counts)
        self._lock = threading.RLock()
        with _opened(self._planes[0].path) as file:
            page = file.pages[self._planes[0].page]
            picture = page if isinstance(page, tifffile.TiffPage) else file.pages[0]
            assert isinstance(picture, tifffile.TiffPage)
            pictures.check_page(path, picture)
            dtype = picture.dtype
            self._page: Index = (picture.imagelength, picture.imagewidth)
        if dtype is None or self._page != (image.sizes.get("Y"), image.sizes.get("X")):
            raise unreadable(self._planes[0].path, f"its pages are not those that {path.name} describes")
        self._page = (*self._page, samples) if samples > 1 else self._page
        self._dtype = np.dtype(dtype).newbyteorder("=")
        outer = [(name, n) for name, n in zip("tcz", self._counts, strict=True) if n > 1]
        names = [name for name, _ in outer] + ["y", "x"]
        if samples > 1:
            names.append("c" if "c" not in names else "s")
        self._outer: Index = tuple(n for _, n in outer)
        axes, scale = [], []
        for name in names:
            size, unit = image.scale.get(name.upper(), (1.0, None)) if name in "tzyx" else (1.0, None)
            scale.append(size)
            axes.append(axis(name, unit))
        more = tiff_facts.of_ome(image, text, 0 if samples > 1 else counts["C"])
        self.description = Description(
            image.name or path.name.removesuffix(OME_SET_ENDING),
            (*self._outer, *self._page),
            self._dtype,
            tuple(axes),
            tuple(scale),
            (*(1,) * len(outer), *self._page),
            rgb=names[-1] == "c" and samples <= 4,
            facts=more.facts,
            ome=more.ome,
            lost=more.lost,
        )

    def read(self, box: Box) -> np.ndarray:
        return gather(box, self._outer, self._dtype, lambda n, rest: self._voxels(self._planes[n])[rest.slices()])

    def fingerprint(self) -> Fingerprint:
        return files_fingerprint([self._path, *dict.fromkeys(plane.path for plane in self._planes)])

    def _voxels(self, plane: _Plane) -> np.ndarray:
        where = f"{plane.path} (page {plane.page + 1})"
        try:
            with tifffile.TiffFile(plane.path) as file:
                voxels = pictures.page_voxels(file.pages[plane.page])
        except Exception as error:  # tifffile raises whatever the damage leads to
            raise pictures.undecodable(where, error) from error
        if voxels.size != math.prod(self._page):
            raise unreadable(where, "its size differs from the first page's")
        return voxels.reshape(self._page).astype(self._dtype, copy=False)


def _opened(path: Path) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(path)
    except Exception as error:
        raise unreadable(path, error) from error


def _planes(path: Path, pixels: ET.Element, counts: dict[str, int]) -> list[_Plane]:
    """Where every plane is, in the order t, c, z. BadInput, naming files, if some are nowhere."""
    total = math.prod(counts.values())
    order = [letter for letter in pixels.get("DimensionOrder", "XYZCT") if letter in counts]
    if sorted(order) != ["C", "T", "Z"] or not 0 < total <= _MOST_PLANES:
        raise unreadable(path, f"its planes are in the order {pixels.get('DimensionOrder')!r}")
    sizes = [counts[letter] for letter in order]  # the first runs fastest
    found: dict[tuple[int, ...], _Plane] = {}
    lengths: dict[Path, int] = {}
    for data in (one for one in pixels if one.tag.rpartition("}")[2] == "TiffData"):
        first = [_whole(path, data, f"First{letter}", 0) for letter in order]
        page = _whole(path, data, "IFD", 0)
        name = next((one.get("FileName") for one in data if one.get("FileName")), None)
        if name is None:
            raise BadInput(f"{path} does not say in which files its planes are")
        file = path.parent / name
        if check_plain(file) is None:
            raise BadInput(f"{path} keeps planes in {file}, which is not there")
        told = data.get("PlaneCount")
        if told is None and data.get("IFD") is None:
            if file not in lengths:
                with _opened(file) as opened:
                    lengths[file] = len(opened.pages)
            count = lengths[file]
        else:
            count = _whole(path, data, "PlaneCount", 1)
        start = int(np.ravel_multi_index(first[::-1], sizes[::-1])) if _inside(first, sizes) else total
        for i in range(min(count, total - start)):
            at = np.unravel_index(start + i, sizes[::-1])[::-1]
            place = dict(zip(order, (int(n) for n in at), strict=True))
            found[place["T"], place["C"], place["Z"]] = _Plane(file, page + i)
    ranges = [range(counts[letter]) for letter in "TCZ"]
    missing = next((at for at in itertools.product(*ranges) if at not in found), None)
    if missing is not None:
        t, c, z = missing
        raise BadInput(
            f"{path} names no file for {total - len(found)} of {total} planes, the first at t {t}, c {c}, z {z}"
        )
    return [found[at] for at in itertools.product(*ranges)]


def _inside(first: Sequence[int], sizes: Sequence[int]) -> bool:
    return all(0 <= at < size for at, size in zip(first, sizes, strict=True))


def _whole(path: Path, element: ET.Element, name: str, default: int) -> int:
    text = element.get(name)
    if text is None:
        return default
    if not text.isdecimal():
        raise unreadable(path, f"its {name} is {text!r}")
    return int(text)
