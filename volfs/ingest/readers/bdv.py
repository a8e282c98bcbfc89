"""BigDataViewer's hierarchies of setups and time points, in N5 or HDF5, by their ``.xml`` or without it.

Every view (one setup at one time point) is a volume of its own. Views of the same shape become one image: time points
along t; setups along c, or, where they differ in more than the channel and are all there, along an axis for each
attribute (angle, tile, illumination). Views that are missing are zero, and listed among
the facts. Nothing is moved or turned: the affines that register
the views are kept as facts; where they all do no more than calibrate and shift alike, the shift is the image's
translation. Names of channels are its display settings.
"""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.readers.n5 import N5Array, attributes_of, is_n5
from volfs.ingest.readers.stack import gather
from volfs.ingest.source import Description, Fingerprint, Source, files_fingerprint, tree_fingerprint, unreadable
from volfs.model.box import Box, Index
from volfs.model.facts import omero
from volfs.model.ngff import axis

_LARGEST_XML = 256 << 20
_MOST_TIMES, _MOST_VIEWS = 10_000_000, 10_000_000
_LISTED = 4096
"""Views and time points that are listed among the facts."""
_SETUP, _TIME = re.compile(r"setup(\d+)\Z"), re.compile(r"timepoint(\d+)\Z")
_ATTRIBUTES = ("tile", "angle", "illumination", "channel")
"""What setups differ in, slowest first."""


class View(Protocol):
    """The finest level of one setup at one time point."""

    @property
    def shape(self) -> Index: ...

    @property
    def chunk(self) -> Index: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self, box: Box) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Setup:
    """What the XML says of a setup; sizes are x, y, z."""

    number: int
    name: str = ""
    voxel_size: tuple[float, ...] | None = None
    unit: str | None = None
    attributes: Mapping[str, int] = field(default_factory=dict)
    affine: tuple[float, ...] | None = None
    moves: bool = False
    """Whether it is registered in another way at a later time point."""


@dataclass(frozen=True, slots=True)
class _Project:
    """What an XML says."""

    loader: str
    data: Path
    setups: dict[int, Setup]
    times: list[int]
    missing: frozenset[tuple[int, int]]
    names: dict[str, dict[int, str]]


def is_bdv(path: Path) -> bool:
    """Whether an N5 group holds setups, or is one, or a time point of one."""
    return is_n5(path) and _place(path) is not None


def open_bdv(path: Path, part: str | None = None) -> Source:
    """Open a hierarchy in N5: the container, a setup, or a time point of a setup; ``part`` is the number of the setup
    that is wanted alone. The XML that lies beside it under the same name tells voxel sizes and channels, if it is
    there."""
    place = _place(path)
    assert place is not None
    root, only_setup, only_time = place
    beside = root.with_suffix(".xml")
    project = _parse(beside) if beside.is_file() else None
    if project is None or project.loader != "bdv.n5" or project.data.resolve() != root.resolve():
        project = None
    if part is not None:
        only_setup = _setup_number(path, part)
    return _open(path, root, project, beside if project else None, only_setup, only_time)


def open_xml(path: Path, part: str | None = None) -> Source:
    """Open what an ``.xml`` describes; ``part`` is the number of the setup that is wanted alone."""
    project = _parse(path)
    return _open(path, project.data, project, path, _setup_number(path, part) if part is not None else None, None)


def _setup_number(path: Path, part: str) -> int:
    if not part.removeprefix("setup").isdecimal():
        raise BadInput(f"{path}:{part}: name one setup by its number, like {path}:0")
    return int(part.removeprefix("setup"))


def _place(path: Path) -> tuple[Path, int | None, int | None] | None:
    """The container, and the setup and time point that a path inside it names."""
    setup, time = _SETUP.match(path.name), _TIME.match(path.name)
    if time and (found := _SETUP.match(path.parent.name)):
        return path.parent.parent, int(found[1]), int(time[1])
    if setup and any(_TIME.match(name) for name in _folders(path)):
        return path.parent, int(setup[1]), None
    if any(_SETUP.match(name) for name in _folders(path)):
        return path, None, None
    return None


def _folders(path: Path) -> list[str]:
    return [entry.name for entry in path.iterdir() if entry.is_dir()] if path.is_dir() else []


# ------------------------------------------------------------------------------------------------------------- XML


def _parse(path: Path) -> _Project:
    try:
        if path.stat().st_size > _LARGEST_XML:
            raise ValueError("it is far too large")
        root = ET.parse(path).getroot()
    except (OSError, ValueError, ET.ParseError, RecursionError) as error:
        raise unreadable(path, error) from error
    loader = root.find("SequenceDescription/ImageLoader")
    if loader is None:
        raise BadInput(f"{path} is not a BigDataViewer project: it has no ImageLoader")
    form = loader.get("format", "")
    data = loader.find({"bdv.n5": "n5", "bdv.hdf5": "hdf5"}.get(form, "none"))
    if data is None:
        raise BadInput(f"{path} has image loader {form!r}: bdv.n5 and bdv.hdf5 are imported")
    try:
        base = path.parent / (root.findtext("BasePath") or ".").strip()
        file = (data.text or "").strip()
        if form == "bdv.n5" and loader.get("version") == "1.1":  # since then it is a URI
            file = unquote(file)
        return _Project(
            form,
            base / file if data.get("type", "relative") == "relative" else Path(file),
            _setups(root),
            _times(root),
            frozenset(
                (int(view.get("setup", "")), int(view.get("timepoint", "")))
                for view in root.iterfind("SequenceDescription/MissingViews/MissingView")
            ),
            _names(root),
        )
    except ValueError as error:
        raise unreadable(path, error) from error


def _setups(root: ET.Element) -> dict[int, Setup]:
    affines: dict[int, tuple[float, ...]] = {}
    moving: set[int] = set()
    for view in root.iterfind("ViewRegistrations/ViewRegistration"):
        number, affine = int(view.get("setup", "")), _composed(view)
        if affines.setdefault(number, affine) != affine:
            moving.add(number)
    found: dict[int, Setup] = {}
    for entry in root.iterfind("SequenceDescription/ViewSetups/ViewSetup"):
        number = int(entry.findtext("id", "").strip())
        size = tuple(float(n) for n in (entry.findtext("voxelSize/size") or "").replace(",", " ").split())
        attributes = entry.find("attributes")
        found[number] = Setup(
            number,
            (entry.findtext("name") or "").strip(),
            size if len(size) == 3 and all(0 < n < float("inf") for n in size) else None,
            (entry.findtext("voxelSize/unit") or "").strip() or None,
            {a.tag: int(a.text or "") for a in attributes if _is_number(a.text)} if attributes is not None else {},
            affines.get(number),
            number in moving,
        )
    return found


def _is_number(text: str | None) -> bool:
    return bool(text) and str(text).strip().isdecimal()


def _composed(view: ET.Element) -> tuple[float, ...]:
    """The transforms of a view multiplied, as they are listed: the last is applied first. 3 rows of 4."""
    whole = np.eye(4)
    for text in view.iterfind("ViewTransform/affine"):
        numbers = [float(n) for n in (text.text or "").split()]
        if len(numbers) != 12:
            raise ValueError(f"an affine has {len(numbers)} numbers, not 12")
        whole = whole @ np.vstack([np.reshape(numbers, (3, 4)), [0, 0, 0, 1]])
    return tuple(map(float, whole[:3].ravel()))


def _times(root: ET.Element) -> list[int]:
    entry = root.find("SequenceDescription/Timepoints")
    if entry is None:
        return [0]
    kind = entry.get("type", "range")
    if kind == "range":
        first, last = (int(entry.findtext(end, "")) for end in ("first", "last"))
        if not 0 <= last - first < _MOST_TIMES:
            raise ValueError(f"its time points run from {first} to {last}")
        return list(range(first, last + 1))
    if kind == "list":
        return sorted({int(n.text or "") for n in entry.iterfind("Timepoint/id")})
    if kind == "pattern":
        found: set[int] = set()
        for part in (entry.findtext("integerpattern") or "").split(","):
            ends = re.fullmatch(r"\s*(\d+)(?:-(\d+))?(?::(\d+))?\s*", part)
            if ends is None:
                raise ValueError(f"its time points are {part!r}")
            last = int(ends[2] or ends[1])
            some = range(int(ends[1]), last + 1, max(1, int(ends[3] or 1)))
            if last - int(ends[1]) >= _MOST_TIMES or len(found) + len(some) > _MOST_TIMES:
                raise ValueError(f"its time points are {part!r}, which are too many")
            found.update(some)
        return sorted(found)
    raise ValueError(f"its time points are of type {kind!r}")


def _names(root: ET.Element) -> dict[str, dict[int, str]]:
    """What channels, angles and the like are called."""
    found: dict[str, dict[int, str]] = {}
    for group in root.iterfind("SequenceDescription/ViewSetups/Attributes"):
        for entry in group:
            number, name = entry.findtext("id", ""), (entry.findtext("name") or "").strip()
            if _is_number(number) and name:
                found.setdefault(group.get("name", ""), {})[int(number)] = name
    return found


# ----------------------------------------------------------------------------------------------------------- views


def _open(
    given: Path, root: Path, project: _Project | None, xml: Path | None, only_setup: int | None, only_time: int | None
) -> Source:
    hdf5 = project is not None and project.loader == "bdv.hdf5"
    if not root.exists():
        raise BadInput(f"{given} keeps its voxels in {root}, which is not there")
    if hdf5:
        from volfs.ingest.readers.hdf5 import Hdf5Views  # h5py is not in the core

        container: _N5Views | Hdf5Views = Hdf5Views(root)
    else:
        container = _N5Views(root)
    try:
        setups = dict(project.setups) if project is not None else {n: Setup(n) for n in _N5Views(root).setups()}
        if only_setup is not None:
            if only_setup not in setups:
                listed = ", ".join(map(str, sorted(setups)[:8])) or "none"
                raise BadInput(f"{given} has no setup {only_setup}: it has {listed}")
            setups = {only_setup: setups[only_setup]}
        times = project.times if project is not None else _N5Views(root).times(sorted(setups))
        if only_time is not None:
            times = [time for time in times if time == only_time]
        if len(setups) * len(times) > _MOST_VIEWS:
            raise BadInput(f"{given} has {len(setups)} setups of {len(times)} time points, which are too many views")
        missing = project.missing if project is not None else frozenset()
        views: dict[tuple[int, int], View] = {}
        for setup, time in itertools.product(sorted(setups), times):
            view = container.view(setup, time) if (setup, time) not in missing else None
            if view is not None:
                views[setup, time] = view
        _check_alike(given, views)
        names = project.names if project is not None else {}
        return _Views(given, root, xml, container, [setups[n] for n in sorted(setups)], times, views, names)
    except BaseException:
        container.close()
        raise


class _N5Views:
    def __init__(self, root: Path) -> None:
        self._root = root

    def setups(self) -> list[int]:
        return sorted(int(found[1]) for name in _folders(self._root) if (found := _SETUP.match(name)))

    def times(self, setups: Sequence[int]) -> list[int]:
        names = {name for setup in setups for name in _folders(self._root / f"setup{setup}")}
        return sorted(int(found[1]) for name in names if (found := _TIME.match(name)))

    def view(self, setup: int, time: int) -> View | None:
        path = self._root / f"setup{setup}" / f"timepoint{time}" / "s0"
        if not path.is_dir():
            return None
        array = N5Array(path, attributes_of(path))
        array.check_names()
        if len(array.shape) != 3:
            raise BadInput(f"{path} has {len(array.shape)} axes: views have 3")
        return array

    def close(self) -> None:
        return


def _check_alike(given: Path, views: Mapping[tuple[int, int], View]) -> None:
    if not views:
        raise BadInput(f"{given} holds no view")
    first_at, first = next(iter(views.items()))
    for (setup, time), view in views.items():
        if view.shape != first.shape or view.dtype != first.dtype:
            raise BadInput(
                f"{given}: setup {setup} at time point {time} is {_text(view)}, setup {first_at[0]} is {_text(first)}: "
                f"import one alone, like {given}:{setup}"
            )


def _text(view: View) -> str:
    return f"{' x '.join(map(str, view.shape))} {view.dtype.name}"


class _Views(Source):
    def __init__(
        self,
        given: Path,
        root: Path,
        xml: Path | None,
        container: Any,
        setups: list[Setup],
        times: list[int],
        views: Mapping[tuple[int, int], View],
        names: Mapping[str, Mapping[int, str]],
    ) -> None:
        self._root = root
        self._xml = xml
        self._container = container
        outer, numbers = _layout(setups)
        if len(times) > 1:
            outer = [("t", len(times)), *outer]
        self._outer = tuple(n for _, n in outer)
        columns = [views.get((number, time)) for time in times for number in numbers]
        self._views = columns  # in C order of the outer axes
        first = next(iter(views.values()))
        size, unit = setups[0].voxel_size, setups[0].unit
        if any((s.voxel_size, s.unit) != (size, unit) for s in setups):
            raise BadInput(f"{given}: its setups have different voxel sizes: import one setup alone")
        if unit in ("pixel", "pixels", "px"):
            unit = None
        facts: dict[str, Any] = {"format": "bdv", "setups": [_setup_facts(s, names) for s in setups]}
        absent = [(s.number, time) for time in times for s in setups if (s.number, time) not in views]
        if absent:
            facts["missing_views"] = [{"setup": setup, "timepoint": time} for setup, time in absent[:_LISTED]]
        if times != list(range(len(times))) and len(times) <= _LISTED:
            facts["timepoints"] = times
        moving = any(setup.moves for setup in setups)
        lost = (*_lost(xml), *(("registrations of views after the first time point, which differ",) if moving else ()))
        self.description = Description(
            _stem(given, root),
            (*self._outer, *first.shape),
            first.dtype,
            (*(axis(name) for name, _ in outer), *(axis(n, unit if size else None) for n in "zyx")),
            (*(1.0,) * len(outer), *(size[::-1] if size else (1.0,) * 3)),
            (*(1,) * len(outer), *first.chunk),
            facts=facts,
            translation=None if moving else _shift(setups, size, len(outer)),
            lost=lost,
            remarks=_remarks_on(absent),
            ome=_channel_names(setups, names, [name for name, _ in outer]),
        )

    def read(self, box: Box) -> np.ndarray:
        return gather(box, self._outer, self.description.dtype, self._part)

    def _part(self, number: int, box: Box) -> np.ndarray | None:
        view = self._views[number]
        return None if view is None else view.read(box)

    def fingerprint(self) -> Fingerprint:
        found = dict(files_fingerprint([self._xml] if self._xml is not None else []))
        if not self._root.is_dir():
            return found | files_fingerprint([self._root])
        return found | tree_fingerprint(self._root)

    def close(self) -> None:
        self._container.close()


def _lost(xml: Path | None) -> tuple[str, ...]:
    """What a project has besides its views and where they lie."""
    if xml is None:
        return ()
    known = ("BasePath", "SequenceDescription", "ViewRegistrations")
    others = [one.tag for one in ET.parse(xml).getroot() if one.tag not in known and len(one)]
    return (f"{', '.join(dict.fromkeys(others))} of {xml.name}",) if others else ()


def _remarks_on(absent: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    """What a user should know of views that are not there."""
    if not absent:
        return ()
    setup, time = absent[0]
    many = f"{len(absent)} views are missing, the first of them" if len(absent) > 1 else "one view is missing, that of"
    return (f"{many} setup {setup} at time point {time}: zero there",)


def _shift(setups: Sequence[Setup], size: tuple[float, ...] | None, lead: int) -> tuple[float, ...] | None:
    """The translation that all affines of views agree on; None if they turn, or differ, or shift nothing."""
    affines = {setup.affine for setup in setups}
    affine = affines.pop() if len(affines) == 1 else None
    if affine is None or size is None:
        return None
    rows = np.reshape(affine, (3, 4))
    shift = rows[:, 3].tolist()
    if not np.allclose(rows[:, :3], np.diag(size), rtol=1e-6) or not np.isfinite(rows).all() or not any(shift):
        return None
    return (*(0.0,) * lead, *shift[::-1])


def _channel_names(
    setups: Sequence[Setup], names: Mapping[str, Mapping[int, str]], axes: Sequence[str]
) -> dict[str, Any]:
    """``omero`` with the names of channels, where setups differ in them and they have some."""
    told = names.get("channel", {})
    numbers = sorted({setup.attributes["channel"] for setup in setups if "channel" in setup.attributes})
    if "c" not in axes or not any(told.get(number) for number in numbers):
        return {}
    if len(numbers) == 1 or (len({*axes} - {"t"}) == 1 and len(numbers) != len(setups)):
        return {}  # along c lie setups that differ in something else
    return {"omero": omero([told.get(number) for number in numbers])}


def _layout(setups: Sequence[Setup]) -> tuple[list[tuple[str, int]], list[int]]:
    """The axes along which setups lie, slowest first, and their numbers in that order."""
    if len(setups) == 1:
        return [], [setups[0].number]
    differing = [a for a in _ATTRIBUTES if len({s.attributes.get(a) for s in setups}) > 1]
    values = [sorted({s.attributes[a] for s in setups if a in s.attributes}) for a in differing]
    count = math.prod(map(len, values))
    by_values = {tuple(s.attributes.get(a) for a in differing): s.number for s in setups}
    if len(differing) > 1 and len(by_values) == len(setups) == count:
        numbers = [by_values.get(key) for key in itertools.product(*values)]
        if all(number is not None for number in numbers):
            axes = [("c" if a == "channel" else a, len(v)) for a, v in zip(differing, values, strict=True)]
            return axes, [number for number in numbers if number is not None]
    return [("c", len(setups))], [s.number for s in setups]


def _setup_facts(setup: Setup, names: Mapping[str, Mapping[int, str]]) -> dict[str, Any]:
    facts: dict[str, Any] = {"id": setup.number}
    if setup.name:
        facts["name"] = setup.name
    for key, number in setup.attributes.items():
        facts[key] = names.get(key, {}).get(number, number)
    if setup.affine is not None:
        rows = [list(setup.affine[i : i + 4]) for i in (0, 4, 8)]
        facts["affine"] = [*rows, [0.0, 0.0, 0.0, 1.0]]
    return facts


def _stem(given: Path, root: Path) -> str:
    name = given.name if given.suffix.lower() == ".xml" else root.resolve().name
    return Path(name).stem or name
