"""Which parts of a dataset a clone has, if it does not have all of it: the member ``partial`` of ``dataset.json``.

Decided here: how a part is written, by people and in the document. What a part leaves out is absent
(:mod:`volfs.versions.committed.absences`). Not here: which payloads a part has
(:mod:`volfs.versions.remotes.wanted_payloads`), and how they come.

    "partial": {"refs": ["main"], "parts": [{"depth": 1, "levels": [2, null], "box": {"z": [0, 64]}, "paths": ["s0"]}]}

A payload is in a part if all that is said of the part holds for it; a clone has what is in any of its parts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from volfs.errors import BadInput, Damaged
from volfs.model.box_name import parse_spans
from volfs.model.graph import is_time
from volfs.model.names import is_ref_name

KEY = "partial"
"""The member of the document."""

_LEVELS = re.compile(r"(?:s?([0-9]{1,3}))?(-)?(?:s?([0-9]{1,3}))?")
_MOST = 1 << 12
"""Parts of a clone, and refs or paths of one part."""
_DEEPEST = 1 << 31

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Part:
    """``depth``: of each branch and tag so many versions, counted along all parents, with all that they show;
    ``since_ns``: those that are not older, and what refs name. ``levels``: of images these, from the first to the last
    (None: the coarsest). ``box``: of arrays the chunks that cross it, by the names of axes, in voxels of s0 of an
    image. ``paths``: nodes and keys, and what is below them."""

    depth: int | None = None
    since_ns: int | None = None
    levels: tuple[int, int | None] | None = None
    box: tuple[tuple[str, Span], ...] = ()
    paths: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        depth: int | None = None,
        since_ns: int | None = None,
        levels: str | None = None,
        box: str | None = None,
        paths: Sequence[str] = (),
    ) -> Part:
        """A part as people write it: ``s2-`` or ``s0-s1``, ``z0-64_y100-612``. Raises BadInput."""
        if depth is not None and not 0 < depth < _DEEPEST:
            raise BadInput(f"{depth} is no depth: say how many versions of each branch are wanted, at least 1")
        spans = () if box is None else tuple(sorted(parse_spans(box).items()))
        keys = tuple(dict.fromkeys(path.strip("/") for path in paths))
        if not all(keys) or len(keys) > _MOST or any("\0" in key for key in keys):
            raise BadInput("a path is one of the hierarchy, such as labels/nuclei, or a key such as files/notes.txt")
        return cls(depth, since_ns, None if levels is None else _levels(levels), spans, keys)

    @property
    def by_version(self) -> bool:
        """Whether it depends on the version that shows a payload, whether that is in the part."""
        return self.depth is not None or self.since_ns is not None

    def facts(self) -> dict[str, Any]:
        """As the document has it."""
        said = {
            "depth": self.depth,
            "since_ns": self.since_ns,
            "levels": None if self.levels is None else list(self.levels),
            "box": {axis: list(span) for axis, span in self.box} or None,
            "paths": list(self.paths) or None,
        }
        return {name: value for name, value in said.items() if value is not None}

    @classmethod
    def parse(cls, facts: object) -> Part:
        """Read :meth:`facts`. Raises TypeError, KeyError or ValueError."""
        if not isinstance(facts, Mapping) or not facts.keys() <= {"depth", "since_ns", "levels", "box", "paths"}:
            raise TypeError("a part is described by something else")
        depth, since_ns, levels = facts.get("depth"), facts.get("since_ns"), facts.get("levels")
        box, paths = facts.get("box", {}), facts.get("paths", [])
        if depth is not None and not 0 < _number(depth) < _DEEPEST:
            raise ValueError("a depth is out of bounds")
        if since_ns is not None and not is_time(since_ns):
            raise ValueError("since_ns is not a time")
        if not isinstance(paths, list) or len(paths) > _MOST or not all(isinstance(each, str) for each in paths):
            raise TypeError("paths are not text")
        spans = {str(axis): (_number(start), _number(stop)) for axis, (start, stop) in dict(box).items()}
        if not all(0 <= start < stop for start, stop in spans.values()):
            raise ValueError("a box is empty")
        ends = None
        if levels is not None:
            first, last = levels
            ends = _number(first), None if last is None else _number(last)
        return cls(depth, since_ns, ends, tuple(sorted(spans.items())), tuple(paths))

    def words(self) -> str:
        """For people, as options of the command say it."""
        said = []
        if self.depth is not None:
            said.append(f"--depth {self.depth}")
        if self.since_ns is not None:
            said.append(f"--since {datetime.fromtimestamp(self.since_ns // 10**9, UTC):%Y-%m-%dT%H:%M}")
        if self.levels is not None:
            said.append(f"--levels {levels_text(self.levels)}")
        if self.box:
            said.append(f"--box {'_'.join(f'{axis}{start}-{stop}' for axis, (start, stop) in self.box)}")
        said += [f"--path {shlex.quote(path)}" for path in self.paths]
        return " ".join(said) or "everything"


@dataclass(frozen=True, slots=True)
class CloneParts:
    """``parts``: what the clone has of each version; all if there are none. ``refs``: the branches and tags that it
    follows; all if there are none."""

    parts: tuple[Part, ...] = ()
    refs: tuple[str, ...] = ()

    @property
    def partial(self) -> bool:
        """Whether payloads are left out."""
        return bool(self.parts)

    def with_part(self, part: Part) -> CloneParts:
        """These, and one more; that a part is there already is fine. BadInput if there are too many."""
        if part in self.parts:
            return self
        if len(self.parts) >= _MOST:
            raise BadInput(f"a clone has at most {_MOST} parts: `volfs fetch --whole` brings everything")
        return replace(self, parts=(*self.parts, part))

    def deepened(self, by: int) -> CloneParts:
        """These, with so many more versions in those that have a depth. BadInput if none has."""
        if not 0 < by < _DEEPEST or not any(part.depth for part in self.parts):
            raise BadInput("nothing to deepen: no part of this clone has a depth")
        deeper = [
            replace(each, depth=min(each.depth + by, _DEEPEST - 1)) if each.depth else each for each in self.parts
        ]
        return replace(self, parts=tuple(dict.fromkeys(deeper)))

    def facts(self) -> dict[str, Any]:
        """As the document has it; empty for a whole clone."""
        said = {"refs": list(self.refs), "parts": [part.facts() for part in self.parts]}
        return {name: value for name, value in said.items() if value}

    @classmethod
    def parse(cls, facts: object, where: str) -> CloneParts:
        """Read :meth:`facts`. Damaged, beginning with ``where``, if they are none."""
        try:
            if not isinstance(facts, Mapping) or not facts.keys() <= {"refs", "parts"}:
                raise TypeError("it is described by something else")
            refs, parts = facts.get("refs", []), facts.get("parts", [])
            if not isinstance(refs, list) or not all(isinstance(name, str) and is_ref_name(name) for name in refs):
                raise TypeError("refs are no names of refs")
            if not isinstance(parts, list) or max(len(parts), len(refs)) > _MOST:
                raise TypeError("parts are no list")
            return cls(tuple(map(Part.parse, parts)), tuple(refs))
        except (TypeError, KeyError, ValueError) as error:
            raise Damaged(f"{where}: which parts a clone has cannot be read ({error})") from None

    def words(self) -> list[str]:
        """A line for the refs, if some were chosen, and one for each part."""
        return [*((f"only {', '.join(self.refs)}",) if self.refs else ()), *(part.words() for part in self.parts)]


WHOLE = CloneParts()
"""Everything, and all refs."""


def parts_in(document: Mapping[str, Any], where: str) -> CloneParts:
    """The parts that a dataset's document names. Raises Damaged."""
    return CloneParts.parse(document.get(KEY, {}), where)


def chosen_refs(names: Iterable[str]) -> tuple[str, ...]:
    """Refs that a clone is to follow. BadInput for what cannot be the name of one."""
    found = tuple(dict.fromkeys(names))
    for name in found:
        if not is_ref_name(name):
            raise BadInput(f"{name!r} cannot be a branch or a tag")
    return found


def levels_text(levels: tuple[int, int | None]) -> str:
    """``s2-``, ``s0-s1`` or ``s3``."""
    first, last = levels
    return f"s{first}" if first == last else f"s{first}-" if last is None else f"s{first}-s{last}"


def _levels(text: str) -> tuple[int, int | None]:
    found = _LEVELS.fullmatch(text)
    if found is None or (found[1] is None and found[3] is None) or (found[2] is None and found[3] is not None):
        raise BadInput(f"{text!r} are no levels: write s2- for s2 and coarser ones, s0-s1, or s3")
    first = int(found[1] or 0)
    last = first if found[2] is None else None if found[3] is None else int(found[3])
    if last is not None and last < first:
        raise BadInput(f"{text!r} are no levels: s{last} is finer than s{first}")
    return first, last


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("a number is none")
    return value
