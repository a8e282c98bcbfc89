"""The numbers in the names of slices: whether some are missing, or there twice, and what becomes of that.

Names of one pattern (``s001``, ``t03_z0012``) differ in their numbers only. Decided here: a number that is in no two
names counts the slices; where none is, all numbers together do, each of them taking all its values. The steps between
numbers are alike: every fifth slice is no gap. ``z0.5``, ``z1.0``, ``z1.5`` are one number each, if that leaves no gap.
Digits are those of any script. What has no number is left as it is.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from volfs.errors import BadInput
from volfs.model.names import natural_key

Gaps = Literal["skip", "fill", "nearest"]
Duplicates = Literal["first", "last"]

_NUMBER = re.compile(r"(\d+)")
_NAMED = 6
_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class SliceRules:
    """What a user wants of slices whose numbers have gaps or doubles; None: they are refused."""

    gaps: Gaps | None = None
    duplicates: Duplicates | None = None


STRICT = SliceRules()
"""Neither gaps nor doubles."""


def slice_key(name: str) -> tuple[object, ...]:
    """The order of slices: the natural one, whatever the script of their numbers."""
    plain = name if name.isascii() else _NUMBER.sub(lambda found: "".join(str(int(d)) for d in found[0]), name)
    return (*natural_key(plain), name)


def patterns(names: Sequence[str]) -> list[list[int]]:
    """Names that differ in their numbers only, by their indices, in the order in which they come."""
    found: dict[tuple[str, ...], list[int]] = {}
    for index, name in enumerate(names):
        found.setdefault(_texts(_split(name)), []).append(index)
    return list(found.values())


def _split(name: str) -> list[str]:
    """Texts and numbers in turn, without the ending."""
    return _NUMBER.split(name.rpartition(".")[0] or name)


def _texts(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part.casefold() for part in parts[::2])


def planes(names: Sequence[str], rules: SliceRules) -> list[int | None]:
    """Which of ``names`` is each plane, by its index; None for a plane that is missing and to be filled.

    Planes are in the order of the names; with gaps filled, in the order of their numbers. BadInput, naming slices, for
    gaps and doubles that no rule is for.
    """
    found_patterns: dict[tuple[str, ...], _Pattern] = {}
    for index, name in enumerate(names):
        parts = _split(name)
        found_patterns.setdefault(_texts(parts), _Pattern(_texts(parts))).add(index, parts[1::2])
    kept: dict[int, None] = {}
    filled: dict[int, list[int | None]] = {}
    for pattern in found_patterns.values():
        pattern.drop_doubles(names, rules)
        found = pattern.filled(names, rules)
        first = next(iter(pattern.members.values()))
        kept |= dict.fromkeys(pattern.members.values())
        if found is not None:
            filled[first] = found
            for index in {*pattern.members.values()} - {first}:
                del kept[index]
    out: list[int | None] = []
    for index in sorted(kept):
        out += filled.get(index, [index])
    return out


@dataclass(slots=True)
class _Pattern:
    """Names that differ in their numbers only: index of each name by its numbers, which stand between ``texts``.
    ``widths`` are how many digits each has."""

    texts: tuple[str, ...]
    members: dict[tuple[int, ...], int] = field(default_factory=dict)
    doubles: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)
    widths: list[set[int]] = field(default_factory=list)

    def add(self, index: int, digits: Sequence[str]) -> None:
        numbers = tuple(map(int, digits))
        self.widths = self.widths or [set() for _ in digits]
        for known, text in zip(self.widths, digits, strict=True):
            known.add(len(text))
        if not numbers:
            self.members[(len(self.members),)] = index  # names without one are nobody's doubles
            return
        before = self.members.setdefault(numbers, index)
        if before != index:
            self.doubles.append((before, index, numbers))

    def drop_doubles(self, names: Sequence[str], rules: SliceRules) -> None:
        """Keep one of each number. BadInput without a rule."""
        if self.doubles and rules.duplicates is None:
            pairs = [f"{names[a]} and {names[b]}" for a, b, _ in self.doubles[:_NAMED]]
            more = ", …" if len(self.doubles) > _NAMED else ""
            raise BadInput(
                f"slices have the same number: {', '.join(pairs)}{more}: remove one of each, or say which to take with "
                "--duplicates first or last"
            )
        if rules.duplicates == "last":
            for _, last, numbers in self.doubles:
                self.members[numbers] = last

    def filled(self, names: Sequence[str], rules: SliceRules) -> list[int | None] | None:
        """All planes, those that are missing too; None if there are no gaps, or they are skipped."""
        axes = self._axes()
        count = math.prod(_count(numbers) for _, numbers in axes)
        missing = count - len(self.members)
        if not missing or rules.gaps == "skip" or self._is_even_in_decimals():
            return None
        there = {tuple(numbers[n] for n, _ in axes): index for numbers, index in self.members.items()}
        wanted = _products([numbers for _, numbers in axes])
        if rules.gaps is None:
            like = names[next(iter(there.values()))]
            absent = (_renumbered(like, axes, key) for key in wanted if key not in there)
            some = ", ".join(itertools.islice(absent, _NAMED))
            raise BadInput(
                f"slices are missing: {some}{', …' if missing > _NAMED else ''} ({missing} of {count}): find them, or "
                "say --gaps skip (leave them out), fill (planes of zeros) or nearest (the next one there is)"
            )
        if count > _MOST:
            raise BadInput(f"{missing} of {count} slices are missing: too many to be made up, say --gaps skip")
        out = [there.get(key) for key in wanted]
        return _nearest(out, _count(axes[-1][1])) if rules.gaps == "nearest" else out

    def _is_even_in_decimals(self) -> bool:
        """Whether two numbers with a point between them are one (``z0.5``, ``z1.0``), which counts all slices."""
        for n in range(len(self.widths) - 1):
            if self.texts[n + 1] == "." and len(self.widths[n + 1]) == 1:
                ten = 10 ** min(self.widths[n + 1])
                column = [numbers[n] * ten + numbers[n + 1] for numbers in self.members]
                if len({*column}) == len(column) == _count(_range(column)):
                    return True
        return False

    def _axes(self) -> list[tuple[int, range]]:
        """What numbers there should be, and where in a name they stand: the one number that counts the slices, else
        every one that varies."""
        columns = list(enumerate(zip(*self.members, strict=True)))
        counting = [(n, _range(column)) for n, column in columns if len({*column}) == len(column)]
        if counting:
            return [min(counting, key=lambda axis: _count(axis[1]))]
        return [(n, _range(column)) for n, column in columns if len({*column}) > 1]


def _renumbered(name: str, axes: Sequence[tuple[int, range]], numbers: Sequence[int]) -> str:
    """A name with other numbers, as wide as those that are there."""
    stem, dot, ending = name.rpartition(".") if "." in name else (name, "", "")
    parts = _NUMBER.split(stem)
    for (n, _), number in zip(axes, numbers, strict=True):
        old = parts[2 * n + 1]
        parts[2 * n + 1] = f"{number:0{len(old)}}" if old.startswith("0") else str(number)
    return "".join(parts) + dot + ending


def _products(axes: Sequence[range]) -> Iterator[tuple[int, ...]]:
    """``itertools.product``, which would first write down ranges of any length."""
    if not axes:
        yield ()
        return
    for number in axes[0]:
        for rest in _products(axes[1:]):
            yield (number, *rest)


def _range(column: Sequence[int]) -> range:
    """From the smallest number to the largest, by the largest step that meets all of them."""
    low, high = min(column), max(column)
    return range(low, high + 1, math.gcd(*(n - low for n in column)) or 1)


def _count(numbers: range) -> int:
    """The length of a range, which may be more than ``len`` can say."""
    return (numbers.stop - 1 - numbers.start) // numbers.step + 1


def _nearest(planes: list[int | None], run: int) -> list[int | None]:
    """``planes`` with the nearest one that is there in the place of each that is not: in the same run of planes, if
    there is one; the earlier of two as near."""
    out = list(planes)
    for start, stop in [(at, at + run) for at in range(0, len(planes), run)] + [(0, len(planes))]:
        there = [at for at in range(start, stop) if planes[at] is not None]
        if not there:
            continue
        nearest = 0
        for at in range(start, stop):
            while nearest + 1 < len(there) and abs(there[nearest + 1] - at) < abs(there[nearest] - at):
                nearest += 1
            if out[at] is None:
                out[at] = planes[there[nearest]]
    return out
