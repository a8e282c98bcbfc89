"""A reference model of combining versions, in which everything is one flat dictionary.

A state maps an *element* to its value: each voxel of each array, each attribute, each node, each side file. What is not
there is not in it: of a chunk that is not stored, no voxel. Versions are merged element by element, as git merges files
that it takes whole; nothing here comes from the code under test, so that the two can disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Element = tuple[Any, ...]
State = Mapping[Element, Any]


class Odd:
    """A value in conflict at several merge bases: unlike any other, and unlike itself."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Merged:
    """``state`` has ours where ``conflicts`` says that it is in conflict."""

    state: dict[Element, Any]
    conflicts: frozenset[Element]

    def decided(self, theirs: State, side: str) -> dict[Element, Any]:
        """All conflicts as one side has them."""
        found = dict(self.state)
        for element in self.conflicts if side == "theirs" else ():
            _put(found, element, theirs.get(element))
        return found


def merge(base: State, ours: State, theirs: State) -> Merged:
    """Three states, element by element; absence is a value like any other."""
    state, conflicts = dict(ours), set()
    for element in {*base, *ours, *theirs}:
        before, here, there = base.get(element), ours.get(element), theirs.get(element)
        if here == there or there == before:
            continue
        if here == before:
            _put(state, element, there)
        else:
            conflicts.add(element)
    return Merged(state, frozenset(conflicts))


def _put(state: dict[Element, Any], element: Element, value: Any) -> None:
    if value is None:
        state.pop(element, None)
    else:
        state[element] = value


@dataclass(frozen=True, slots=True)
class FlatVersion:
    """A version, known by its content id in whatever store. ``born``: how many there were before."""

    ident: str
    parents: tuple[str, ...]
    state: State
    born: int


@dataclass
class FlatHistory:
    """All versions of a dataset, wherever they are."""

    versions: dict[str, FlatVersion] = field(default_factory=dict)

    def add(self, ident: str, parents: Sequence[str], state: State) -> None:
        assert ident not in self.versions
        self.versions[ident] = FlatVersion(ident, tuple(parents), dict(state), len(self.versions))

    def ancestors(self, idents: Iterable[str]) -> set[str]:
        """Versions, and all that they descend from."""
        found: set[str] = set()
        ahead = list(idents)
        while ahead:
            ident = ahead.pop()
            if ident not in found:
                found.add(ident)
                ahead += self.versions[ident].parents
        return found

    def is_ancestor(self, ident: str, of: str) -> bool:
        return ident in self.ancestors([of])

    def bases(self, ours: Collection[str], theirs: str) -> list[str]:
        """The merge bases, oldest first."""
        common = self.ancestors(ours) & self.ancestors([theirs])
        best = [each for each in common if not any(each in self.ancestors([o]) for o in common if o != each)]
        return sorted(best, key=lambda ident: self.versions[ident].born)

    def base_state(self, bases: Sequence[str]) -> State:
        """What several merge bases are together: they are merged first, and bases of theirs before them."""
        if not bases:
            return {}
        state: dict[Element, Any] = dict(self.versions[bases[0]].state)
        for count, ident in enumerate(bases[1:], 1):
            below = self.base_state(self.bases(bases[:count], ident))
            merged = merge(below, state, self.versions[ident].state)
            state = {**merged.state, **dict.fromkeys(merged.conflicts, Odd())}
        return state

    def line(self, ident: str) -> list[str]:
        """The chain of first parents, newest first."""
        found = [ident]
        while parents := self.versions[found[-1]].parents:
            found.append(parents[0])
        return found


def differing(one: State, other: State, where: Callable[[Element], bool] = lambda element: True) -> list[Element]:
    """The elements that two states have otherwise."""
    return [each for each in {*one, *other} if where(each) and one.get(each) != other.get(each)]
