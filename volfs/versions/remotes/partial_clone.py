"""What a fetch brings into a partial clone, when its versions are here: the payloads that its parts have.

Decided here: which versions need be looked at, when the parts of a clone change, and that what was wished is written
down before it comes, so that a fetch which is cut short goes on by itself. Not here: how parts are written
(:mod:`volfs.versions.clone_parts`), what they mean (:mod:`volfs.versions.remotes.wanted_payloads`), how payloads come
(:mod:`volfs.versions.remotes.supplement`).

``incoming/supplied.json`` says up to which version everything has come that these parts have, as far as the other store
had it. It only saves looking: without it all versions are looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from volfs.errors import BadInput, VolfsError
from volfs.storage.crash import crash_point
from volfs.storage.files import no_space, read_json, write_json
from volfs.versions.clone_parts import CloneParts, Part
from volfs.versions.remotes.questions import Peer
from volfs.versions.remotes.supplement import Supplement, supplement
from volfs.versions.remotes.transfer import Transferred
from volfs.versions.remotes.wanted_payloads import WantedPayloads
from volfs.versions.retention.roots import RetainedHistory
from volfs.versions.version_log import instant


class ClonedHistory(RetainedHistory, Protocol):
    """A dataset that may be a partial clone."""

    @property
    def clone_parts(self) -> CloneParts:
        """Which parts it has of each version, and which refs it follows. Raises Damaged."""

    def set_clone_parts(self, parts: CloneParts) -> None:
        """Write down which parts it is to have."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What more of what was left out a fetch is to bring in: a part, so many versions more of the parts that have a
    depth, or all of it. BadInput for several of them."""

    part: Part | None = None
    deepen: int | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if sum((self.part is not None, self.deepen is not None, self.whole)) > 1:
            raise BadInput("a part, --deepen and --whole say different things: give one of them")

    @property
    def nothing(self) -> bool:
        """Whether nothing more is wished."""
        return self.part is None and self.deepen is None and not self.whole

    def of(self, parts: CloneParts) -> CloneParts:
        """The parts of a clone that is to have this, too. A clone that is whole stays so."""
        if self.whole:
            return CloneParts()
        if self.deepen is not None:
            return parts.deepened(self.deepen)
        return parts if self.part is None or not parts.partial else parts.with_part(self.part)


NO_WISH = Wish()


def part_of(
    depth: int | None, since: str | None, levels: str | None, box: str | None, paths: Sequence[str]
) -> Part | None:
    """The part that options say (``since``: as in ``log``); None if none says anything. Raises BadInput."""
    part = Part.of(depth=depth, since_ns=None if since is None else instant(since), levels=levels, box=box, paths=paths)
    return None if part == Part() else part


def bring_in(dataset: ClonedHistory, peer: Peer, wish: Wish, tips: Collection[int], count: Transferred) -> Supplement:
    """Have the payloads here that the clone's parts have, and those wished. ``tips``: the versions that were fetched.

    Called while nobody else receives for the dataset. BadInput, and nothing has come, for a part that names what there
    is nowhere.
    """
    before = dataset.clone_parts
    after = wish.of(before)
    wanted = after.parts
    if wish.whole:
        wanted = (Part(),)
    elif wish.part is not None and wish.part not in wanted:  # a whole clone of one that lacks something
        wanted = (wish.part,)
    if not wanted:
        return Supplement()
    named = {number for refs in dataset.refs().named.values() for number in refs.values() if number}
    roots = frozenset(tips) | named
    state = _State(after, max(dataset.graph.versions, default=0), sorted(roots))
    numbers = sorted(dataset.graph.versions)
    if wish.nothing:
        numbers = state.unseen(_read(dataset), numbers)
    looking = WantedPayloads(dataset, wanted, roots)
    found = looking.find(numbers)
    if wish.part is not None:
        looking.check_named(wish.part)
    if after != before and not wish.whole:
        dataset.set_clone_parts(after)
        crash_point("partial.noted")
    done = supplement(dataset, peer, found, count.expect, count)
    if after != before and wish.whole:
        dataset.set_clone_parts(after)
    if after.partial and numbers:
        with no_space("writing down what has come"):
            write_json(dataset.layout.incoming / _FILE, state.facts())
    return done


_FILE = "supplied.json"


@dataclass(frozen=True, slots=True)
class _State:
    """For which parts everything has come: up to which version, and from which refs on."""

    parts: CloneParts
    highest: int
    roots: list[int]

    def facts(self) -> dict[str, Any]:
        return {"partial": self.parts.facts(), "highest": self.highest, "roots": self.roots}

    def unseen(self, before: dict[str, Any], numbers: list[int]) -> list[int]:
        """The versions to look at, if ``before`` is what was written last."""
        highest = before.get("highest")
        if before.get("partial") != self.parts.facts() or not isinstance(highest, int):
            return numbers
        if any(part.by_version for part in self.parts.parts):  # a ref that moved may show what is older
            return [] if before == self.facts() else numbers
        return [number for number in numbers if number > highest]


def _read(dataset: ClonedHistory) -> dict[str, Any]:
    with suppress(VolfsError):
        return read_json(dataset.layout.incoming / _FILE)
    return {}
