"""A volume in slices: one PNG, TIFF or JPEG for each plane, in natural order of their names; in a directory, in a list,
or in a ZIP. What their numbers tell of gaps and doubles is :mod:`volfs.ingest.readers.slice_numbers`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.readers import ome_xml, pictures
from volfs.ingest.readers.archive import Archive
from volfs.ingest.readers.marks import TIFF, picture_kind
from volfs.ingest.readers.slice_numbers import STRICT, SliceRules, patterns, planes, slice_key
from volfs.ingest.readers.tiff import sizes_of
from volfs.ingest.source import Description, Fingerprint, Source, check_plain, files_fingerprint
from volfs.model.box import Box
from volfs.model.ngff import axis
from volfs.volume.workers import cores

_NAMED = 6


def open_directory(path: Path, rules: SliceRules) -> Source:
    """The slices of a directory. BadInput if there are none, or of several formats."""
    files = _listed(path)
    if not files:
        below = sorted({str(p.parent.relative_to(path)) for p in path.glob("*/*") if picture_kind(p.name)})
        raise BadInput(
            f"{path} holds neither slices (PNG, TIFF, JPEG, DICOM) nor Zarr, N5 or a precomputed volume"
            + (f"; there are slices in {_some(below)}: import one of these" if below else "")
        )
    _check_kinds(files, str(path))
    return _Slices(files, path.resolve().name, rules, lambda: {str(path): [file.name for file in _listed(path)]})


def open_picture(path: Path) -> Source:
    """A single picture, which is a 2-D image."""
    return open_slices([path], STRICT, name=path.stem)


def open_slices(paths: Sequence[Path], rules: SliceRules, *, name: str) -> Source:
    """Slices as listed; a single one is a 2-D image. BadInput if one is no slice."""
    for path in paths:
        if path.is_dir() or (picture_kind(path.name) is None and pictures.kind_in(path) is None):
            raise BadInput(f"{path} is not a PNG, TIFF or JPEG slice: import it by itself")
    return _Slices(paths, name, rules)


def open_zip(path: Path, part: str | None, rules: SliceRules) -> Source:
    """The slices of a ZIP: those in the directory ``part`` of it, or in the only directory that has any."""
    archive = Archive(path)
    try:
        members = archive.members()
        slices = [member for member in members if picture_kind(member.name)]
        if not slices:
            found = _some([member.info.filename for member in members] or archive.aside())
            raise BadInput(
                f"{path} holds no slices (PNG, TIFF, JPEG), but {found}: unpack it and import what is in it"
                if found
                else f"{path} is empty: there is nothing in it to import"
            )
        folders = dict.fromkeys(member.folder for member in slices)
        wanted = part.strip("/") if part is not None else None
        if wanted is None and len(folders) > 1:
            names = [name or "/" for name in folders]
            raise BadInput(
                f"{path} holds slices in {len(folders)} directories ({_some(names)}): name one, like {path}:{names[0]}"
            )
        if wanted is not None and wanted not in folders:
            raise BadInput(f"{path} has no slices in {part}: they are in {_some([name or '/' for name in folders])}")
        chosen = [member for member in slices if wanted is None or member.folder == wanted]
        twice = [name for name, count in Counter(member.info.filename for member in chosen).items() if count > 1]
        if twice:
            raise BadInput(f"{path} holds {_some(twice)} more than once: unpack it and import the directory")
        for member in chosen:
            archive.check(member)
        _check_kinds(chosen, str(path))
        chosen.sort(key=lambda member: slice_key(member.name))
        return _Slices(chosen, path.stem, rules, lambda: files_fingerprint([path]), archive.close)
    except BaseException:
        archive.close()
        raise


def _check_kinds(files: Sequence[pictures.Place], where: str) -> None:
    kinds = Counter(picture_kind(file.name) or pictures.kind_in(file) for file in files)
    if len(kinds) > 1:
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        raise BadInput(
            f"{where} holds slices of several formats ({found}): name the ones to import, like {where}/*.tif"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def _listed(folder: Path) -> list[Path]:
    """The slices of a directory: by their endings; if no file has such an ending, by what they are."""
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    found = [path for path in files if picture_kind(path.name)]
    for path in found:
        check_plain(path)
    if not found:
        found = [path for path in files if path.is_file() and pictures.kind_in(path)]
    return sorted((path for path in found if path.is_file()), key=lambda path: slice_key(path.name))


def _told(place: pictures.Place) -> tuple[dict[str, tuple[float, str | None]], tuple[str, ...]]:
    """Voxel sizes that a slice says, by axis, and remarks: TIFF does, others tell no more than what suits a printer."""
    if pictures.kind_in(place) != TIFF:
        return {}, ()
    with pictures.opened_tiff(place) as file:
        told = ome_xml.images(file.ome_metadata) if file.is_ome and file.ome_metadata else ()
        page = file.pages.first
        return sizes_of(file, page, told[0] if told else None), pictures.remarks_on(place, page)


def _suit(one: bytes, other: bytes) -> bool:
    """Whether two palettes have the same colours for the numbers that both have: those that no pixel of a slice has
    may be left out at the end."""
    size = min(len(one), len(other))
    return one == other or (size > 0 and one[:size] == other[:size])


def _of_several_patterns(names: Sequence[str]) -> tuple[str, ...]:
    """What to look at where some names are alike but for their numbers, and others are not (``s1 (1).png``)."""
    found = patterns(names)
    if len(found) < 2 or max(map(len, found)) < 2:
        return ()
    firsts = _some([names[members[0]] for members in found])
    return (
        f"the names of the slices are of {len(found)} kinds ({firsts}): all {len(names)} are planes, in their order",
    )


def _made_up(names: Sequence[str], rules: SliceRules) -> dict[str, list[int]]:
    """The planes that no slice is of, by what became of them."""
    if rules.gaps not in ("fill", "nearest"):
        return {}
    found = [z for z, index in enumerate(planes(names, replace(rules, gaps="fill"))) if index is None]
    return {rules.gaps: found} if found else {}


class _Slices(Source):
    """Axes z, y, x, and c for the samples of colour pictures; without z if there is one slice only. ``more`` is what
    the fingerprint has besides the files."""

    def __init__(
        self,
        places: Sequence[pictures.Place],
        name: str,
        rules: SliceRules,
        more: Callable[[], dict[str, Any]] | None = None,
        close: Callable[[], None] | None = None,
    ) -> None:
        self._more = more
        self._close = close
        first = pictures.header_of(places[0])
        chosen = planes([place.name for place in places], rules)
        self._places = [None if index is None else places[index] for index in chosen]
        used = [*dict.fromkeys(place for place in self._places if place is not None)]
        self._files = [place for place in used if isinstance(place, Path)]
        palette = first.palette
        with ThreadPoolExecutor(cores(), thread_name_prefix="volfs-headers") as pool:
            for place, found in zip(used, pool.map(pictures.header_of, used), strict=True):
                if (found.shape, found.dtype) != (first.shape, first.dtype):
                    raise BadInput(f"{place} is {found}, but {places[0].name} is {first}: slices must be alike")
                if not _suit(palette, found.palette):
                    raise BadInput(
                        f"{place} has another palette than {places[0].name}, so that the same number is not the same "
                        "colour: convert the slices to RGB or gray"
                    )
                palette = max(palette, found.palette, key=len)
        self._picture = first
        absent = _made_up([place.name for place in places], rules)
        self._flat = len(self._places) == 1
        names = "yx" if len(first.shape) == 2 else "yxc"
        shape = first.shape
        if not self._flat:
            names, shape = "z" + names, (len(self._places), *shape)
        told = [_told(place) for place in dict.fromkeys((used[0], used[-1]))]
        sizes, remarks = told[0]
        alike = sizes == told[-1][0]
        sizes = sizes if alike else {}
        self.description = Description(
            name,
            shape,
            first.dtype,
            tuple(axis(n, sizes[n][1] if n in sizes else None) for n in names),
            tuple(sizes[n][0] if n in sizes else 1.0 for n in names),
            shape if self._flat else (1, *shape[1:]),
            rgb="c" in names,
            facts={
                "format": "slices",
                **({"made_up": absent} if absent else {}),
                **pictures.palette_facts(palette),
            },
            lost=() if alike else ("voxel sizes, which differ from slice to slice",),
            remarks=(
                *remarks,
                *pictures.palette_remarks(used[0], palette),
                *_of_several_patterns([place.name for place in used]),
            ),
        )

    def read(self, box: Box) -> np.ndarray:
        if self._flat:
            return self._plane(0)[box.slices()]
        out = np.empty(box.shape, self._picture.dtype)
        rest = Box(box.start[1:], box.stop[1:]).slices()
        for i, z in enumerate(range(box.start[0], box.stop[0])):
            out[i] = 0 if self._places[z] is None else self._plane(z)[rest]
        return out

    def fingerprint(self) -> Fingerprint:
        return files_fingerprint(self._files) | (self._more() if self._more is not None else {})

    def close(self) -> None:
        if self._close is not None:
            self._close()

    def _plane(self, index: int) -> np.ndarray:
        place = self._places[index]
        assert place is not None
        picture = pictures.read_picture(place)
        if picture.shape != self._picture.shape or picture.dtype != self._picture.dtype:
            raise BadInput(f"{place} changed while it was being read: nothing was imported")
        return picture
