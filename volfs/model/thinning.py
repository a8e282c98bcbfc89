"""Which versions of a long history are too many: all but the newest few of each line, or one a day or week.

Decided here: what ``--keep`` means. Pure; which versions may go at all, and what becomes of them, is decided in
:mod:`volfs.versions.retention`.

A *line* is a chain of first parents. A version is kept if any rule keeps it on any line that it is on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from enum import Enum

from volfs.errors import BadInput
from volfs.model.graph import VersionGraph

_DAY_NS = 86_400 * 10**9
_MONDAY = 3
"""Days by which weeks begin before the epoch did, which was a Thursday."""


class Period(Enum):
    """Keep the newest version of each of these, in UTC. Weeks begin on Mondays."""

    DAILY = "daily"
    WEEKLY = "weekly"

    def of(self, time_ns: int) -> int:
        """The number of the period that a time lies in."""
        day = time_ns // _DAY_NS
        return day if self is Period.DAILY else (day + _MONDAY) // 7


Rule = Period | int
"""A period, or how many versions at the end of each line are kept."""


def parse_rule(text: str) -> Rule:
    """``daily``, ``weekly`` or a number. BadInput for anything else."""
    if text.isascii() and text.isdigit() and 0 < int(text) < 10**9:
        return int(text)
    try:
        return Period(text)
    except ValueError:
        raise BadInput(f"{text!r} says not what to keep: daily, weekly, or how many versions of each line") from None


def surplus(
    graph: VersionGraph,
    dropped: Set[int],
    rules: Sequence[Rule],
    *,
    before_ns: int | None = None,
    ends: Iterable[int] = (),
) -> set[int]:
    """The versions that no rule keeps, of those older than ``before_ns`` (None: of all). Without rules all of them are.

    What was dropped is passed over. ``ends``: versions at which lines end besides those that have no child.
    """
    numbers = sorted(graph.versions.keys(), reverse=True)
    following: dict[int, list[int]] = {number: [] for number in numbers}
    height: dict[int, int] = {}
    found = set()
    named = set(ends)
    for number in numbers:  # children before their parents
        info, after = graph.info(number), following[number]
        if number in dropped:
            after_me: list[int] = after
        else:
            height[number] = 0 if number in named or not after else 1 + min(height[each] for each in after)
            after_me = [number]
            if (before_ns is None or info.time_ns < before_ns) and not any(
                _keeps(rule, graph, number, after, height[number], number in named) for rule in rules
            ):
                found.add(number)
        if info.parents:
            following[info.parents[0]] += after_me
    return found


def _keeps(rule: Rule, graph: VersionGraph, number: int, after: Sequence[int], height: int, is_end: bool) -> bool:
    if not isinstance(rule, Period):
        return height < rule
    mine = rule.of(graph.info(number).time_ns)
    return is_end or not after or any(rule.of(graph.info(each).time_ns) != mine for each in after)
