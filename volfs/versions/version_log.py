"""The versions of a dataset that a reader asks for, newest first: ``volfs log``.

Decided here: which versions belong to a line of history, and which of them match. What is asked by path or box is told
by the catalog's rows alone (:mod:`volfs.catalog.path_changes`); no manifest is read. Not here: what one version changed
(:mod:`volfs.versions.committed.version_files`), nor how any of it is shown.
"""

from __future__ import annotations

import heapq
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from volfs.catalog import Catalog
from volfs.errors import BadInput, NotFound
from volfs.model.box import Box
from volfs.model.graph import VersionGraph, VersionInfo
from volfs.model.metadata import ArrayMeta
from volfs.model.refs import moment_of
from volfs.versions.committed.version import Version
from volfs.versions.history import History
from volfs.versions.keys import node_path

_AGE = re.compile(r"([0-9]{1,6})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The versions that are asked for. ``author`` and ``grep`` are regular expressions that are searched for in author
    and message; times are in ns, and both belong to the span. ``path`` is a key: ``zarr/s0``, ``files/notes.txt``;
    ``box`` counts voxels of the array there."""

    author: str | None = None
    grep: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    path: str | None = None
    box: Box | None = None


def ancestry(graph: VersionGraph, starts: Iterable[int], *, first_parent: bool = False) -> Iterator[int]:
    """Versions and all that they descend from, newest first. Costs by the versions that are taken from it."""
    heap = [-number for number in set(starts) if number]
    heapq.heapify(heap)
    last = 0
    while heap:
        number = -heapq.heappop(heap)
        if number == last:
            continue
        last = number
        yield number
        parents = graph.info(number).parents
        for parent in parents[:1] if first_parent else parents:
            heapq.heappush(heap, -parent)


def matching(history: History[Version], numbers: Iterable[int], wanted: Wanted) -> Iterator[VersionInfo]:
    """Those of the versions that are wanted, in their order. Raises BadInput, or NotFound for a path that no version
    ever had."""
    author, message = _pattern(wanted.author, "--author"), _pattern(wanted.grep, "--grep")
    chosen = _changing(history, wanted)
    since, until = wanted.since_ns, wanted.until_ns
    infos = map(history.graph.info, numbers)
    return (
        info
        for info in infos
        if (chosen is None or chosen(info.number))
        and (since is None or info.time_ns >= since)
        and (until is None or info.time_ns <= until)
        and (author is None or author.search(info.author))
        and (message is None or message.search(info.message))
    )


def instant(text: str) -> int:
    """A time (ns): a day or minute in UTC (``2026-11-01``, ``2026-11-01T12:00``), or an age: ``90s``, ``12h``, ``2w``.
    Raises BadInput."""
    when, age = moment_of(text), _AGE.fullmatch(text)
    if when is not None:
        return when
    if age is None:
        raise BadInput(
            f"{text!r} is no time: write 2026-11-01, 2026-11-01T12:00 (UTC), or an age such as 12h, 7d or 2w"
        )
    return time.time_ns() - int(age[1]) * _SECONDS[age[2]] * 10**9


def _pattern(text: str | None, option: str) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        return re.compile(text)
    except re.error as error:
        raise BadInput(f"{option} {text!r} is no regular expression: {error}") from None


def _changing(history: History[Version], wanted: Wanted) -> Callable[[int], bool] | None:
    """Whether a version changed the path, or the chunks in the box of the array there; None if none is asked for."""
    path = wanted.path
    if path is None:
        if wanted.box is not None:
            raise BadInput("a box is one of an array: name its path, too")
        return None
    catalog, dataset = history.catalog, history.id
    found = catalog.path_changes(dataset, path, below=wanted.box is None)
    if not found.versions and not found.nodes:
        raise NotFound(f"no version of dataset {history.name!r} ever had {path}")
    versions = found.versions
    if wanted.box is not None:
        # The rows of the path itself are its coming and going.
        versions = set(versions) | _in_box(history, path, found.nodes, wanted.box)

    def changed(number: int) -> bool:
        return number in versions or (number in found.doubtful and _differs(history, path, number))

    return changed


def _in_box(history: History[Version], path: str, nodes: Collection[int], box: Box) -> set[int]:
    """The versions that changed a chunk in a box of voxels, of whatever incarnation of the array."""
    catalog: Catalog = history.catalog
    at, found = node_path(path), set[int]()
    arrays = [node for node in nodes if catalog.block_shape(node) is not None]
    if at is None or not arrays:
        raise BadInput(f"a box is one of an array, and there is none at {path}")
    for node in arrays:
        meta = _description(history, at, catalog.born(node))
        if meta is None:
            continue
        if meta.ndim != box.ndim:
            raise BadInput(f"{path} has {meta.ndim} axes, and the box {box.ndim}")
        size = meta.grid.chunk_shape
        start = tuple(a // c for a, c in zip(box.start, size, strict=True))
        stop = tuple(-(-b // c) for b, c in zip(box.stop, size, strict=True))
        found |= catalog.box_changes(node, Box(start, stop))
    return found


def _description(history: History[Version], path: str, number: int) -> ArrayMeta | None:
    """The metadata of an array as it was made. Its chunk shape stays while the array is the same."""
    with suppress(NotFound):
        array = history.version(number).array(path)
        return None if array is None else array.meta
    return None


def _differs(history: History[Version], path: str, number: int) -> bool:
    """Whether a version and its first parent have another key, or another incarnation of a directory, at a path."""
    parents = history.graph.info(number).parents
    seen = [
        history.catalog.entry(history.id, history.graph.at(each), path) if each else None
        for each in (number, *(parents[:1] or (0,)))
    ]
    return seen[0] != seen[1] and (seen[0] is None or seen[1] is None or seen[0].dir_id != seen[1].dir_id)
