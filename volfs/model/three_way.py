"""Three-way merging: two sides of one base, by value, by key of JSON, and by line of text. Pure.

Decided here: when a change of one side stands, and when two changes are in conflict. :data:`ABSENT` is a value like any
other, so what one side removed and the other changed is a conflict, and a removal is never undone by a later merge.
Not here: lists of names in metadata (:mod:`volfs.model.name_lists`), and voxels (:mod:`volfs.versions.combine`).

Lines merge as ``git merge-file`` and diff3 merge them: changes of the two sides that overlap or touch are in conflict
unless they are equal. Differences are found by the greedy algorithm of E. W. Myers (An O(ND) Difference Algorithm,
1986), so they are the smallest there are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeVar

T = TypeVar("T")


class _Mark:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


ABSENT: Final = _Mark("ABSENT")
"""The value of what is not there."""
CONFLICT: Final = _Mark("CONFLICT")
"""Both sides have changed it, each in another way."""

LONGEST_TEXT = 1 << 20
"""Bytes of a text that is merged by line."""
_MOST_EDITS = 1000
"""Lines in which a side may differ from the base: the work grows with the square of it."""


def merge_values(base: T, ours: T, theirs: T) -> T | _Mark:
    """The value of which only one side has made another, or both the same; else CONFLICT."""
    if ours == theirs or theirs == base:
        return ours
    return theirs if ours == base else CONFLICT


def merge_json(base: Any, ours: Any, theirs: Any) -> Any:
    """Values of JSON, or ABSENT; objects by key, at any depth. CONFLICT if one key has become two things.

    Keys that both sides have added stand in the order of theirs, then ours.
    """
    if same_json(ours, theirs) or same_json(theirs, base):
        return ours
    if same_json(ours, base):
        return theirs
    if not isinstance(ours, dict) or not isinstance(theirs, dict) or not (isinstance(base, dict) or base is ABSENT):
        return CONFLICT
    before = base if isinstance(base, dict) else {}
    merged: dict[str, Any] = {}
    for key in {**theirs, **ours}:
        value = merge_json(before.get(key, ABSENT), ours.get(key, ABSENT), theirs.get(key, ABSENT))
        if value is CONFLICT:
            return CONFLICT
        if value is not ABSENT:
            merged[key] = value
    return merged


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON. Python takes ``true`` for equal to 1, and 1 for equal to 1.0."""
    if one is ABSENT or other is ABSENT:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def merge_text(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """Three-way merge of UTF-8 texts by line. None if they conflict, or one is no text of at most LONGEST_TEXT bytes,
    or differs from its base in too much."""
    sides = (base, ours, theirs)
    if any(not is_text(side) for side in sides):
        return None
    merged = merge_lines(*map(_lines, sides))
    return None if merged is None else b"".join(merged)


def is_text(data: bytes) -> bool:
    """Whether bytes are merged by line: UTF-8 without NUL, and not too long."""
    if len(data) > LONGEST_TEXT or b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def merge_lines(base: Sequence[bytes], ours: Sequence[bytes], theirs: Sequence[bytes]) -> list[bytes] | None:
    """Three-way merge of lists of lines; None if they conflict."""
    found = [differences(base, side) for side in (ours, theirs)]
    if found[0] is None or found[1] is None:
        return None
    merged: list[bytes] = []
    at = 0
    for start, stop, sides in _regions(found[0], found[1]):
        merged += base[at:start]
        one, other = (
            _as_changed(base, side, hunks, start, stop) for side, hunks in zip((ours, theirs), sides, strict=True)
        )
        if not sides[0]:
            merged += other
        elif not sides[1] or one == other:
            merged += one
        else:
            return None
        at = stop
    return [*merged, *base[at:]]


class Hunk(NamedTuple):
    """Lines ``start`` to ``stop`` of the base have become lines ``to_start`` to ``to_stop`` of the side."""

    start: int
    stop: int
    to_start: int
    to_stop: int


def differences(base: Sequence[T], side: Sequence[T]) -> list[Hunk] | None:
    """The smallest set of changes from one sequence to another; None if it is very large."""
    first = 0
    shorter = min(len(base), len(side))
    while first < shorter and base[first] == side[first]:
        first += 1
    last = 0
    while last < shorter - first and base[-1 - last] == side[-1 - last]:
        last += 1
    pairs = _common(base[first : len(base) - last], side[first : len(side) - last])
    if pairs is None:
        return None
    hunks: list[Hunk] = []
    at, to = first, first
    for one, other in (*((a + first, b + first) for a, b in pairs), (len(base) - last, len(side) - last)):
        if (one, other) != (at, to):
            hunks.append(Hunk(at, one, to, other))
        at, to = one + 1, other + 1
    return hunks


def _common(base: Sequence[T], side: Sequence[T]) -> list[tuple[int, int]] | None:
    """A longest common subsequence, as pairs of places; None if more than _MOST_EDITS are not in it."""
    n, m = len(base), len(side)
    reached = {1: 0}
    history: list[dict[int, int]] = []
    for edits in range(min(n + m, _MOST_EDITS) + 1):
        now: dict[int, int] = {}
        for k in range(-edits, edits + 1, 2):
            if k == -edits or (k != edits and reached.get(k - 1, -1) < reached.get(k + 1, -1)):
                x = reached[k + 1]
            else:
                x = reached[k - 1] + 1
            y = x - k
            while x < n and y < m and base[x] == side[y]:
                x, y = x + 1, y + 1
            now[k] = x
            if k == n - m and x >= n:
                history.append(now)
                return _walk_back(history, n, m)
        history.append(now)
        reached = now
    return None


def _walk_back(history: list[dict[int, int]], n: int, m: int) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    x, y = n, m
    for edits in range(len(history) - 1, 0, -1):
        k, reached = x - y, history[edits - 1]
        before = k + 1 if k == -edits or (k != edits and reached.get(k - 1, -1) < reached.get(k + 1, -1)) else k - 1
        was_x = reached[before]
        was_y = was_x - before
        while x > was_x and y > was_y:
            x, y = x - 1, y - 1
            pairs.append((x, y))
        x, y = was_x, was_y
    pairs += [(i, i) for i in range(x - 1, -1, -1)]
    return pairs[::-1]


def _regions(one: list[Hunk], other: list[Hunk]) -> list[tuple[int, int, tuple[list[Hunk], list[Hunk]]]]:
    """Parts of the base that have changed, with the hunks of either side: those that overlap or touch are in one."""
    regions: list[tuple[int, int, tuple[list[Hunk], list[Hunk]]]] = []
    for hunk, side in sorted([*((h, 0) for h in one), *((h, 1) for h in other)]):
        if regions and hunk.start <= regions[-1][1]:
            start, stop, sides = regions.pop()
            stop = max(stop, hunk.stop)
        else:
            start, stop, sides = hunk.start, hunk.stop, ([], [])
        sides[side].append(hunk)
        regions.append((start, stop, sides))
    return regions


def _as_changed(
    base: Sequence[bytes], side: Sequence[bytes], hunks: Sequence[Hunk], start: int, stop: int
) -> list[bytes]:
    """A part of the base as one side has it."""
    found: list[bytes] = []
    for hunk in hunks:
        found += base[start : hunk.start]
        found += side[hunk.to_start : hunk.to_stop]
        start = hunk.stop
    return [*found, *base[start:stop]]


def _lines(text: bytes) -> list[bytes]:
    """Lines that end in a newline alone, as git has them: a carriage return is part of its line."""
    parts = text.split(b"\n")
    return [*(part + b"\n" for part in parts[:-1]), *filter(None, parts[-1:])]
