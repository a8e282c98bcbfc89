"""The version graph of one dataset: parents, lineages, and the chain along which a version sees its changes.

Decided here: how versions along one line of first parents form a *lineage*, where a new version goes, and what chain
of lineages a version looks along. Not decided here: where rows lie on disk (``volfs.catalog``) and what a merge does
with the bases that :meth:`VersionGraph.merge_bases` finds (``volfs.versions``).

A version is (lineage, position). The first child of a lineage's tip extends the lineage, on any branch; a second child
forks a new lineage at (parent lineage, parent position). Two properties carry the whole index:

- a lineage has a larger id than every lineage it descends from, so going down in (lineage, position) order never
  passes a newer change of the same chain;
- ``position`` counts first parents from the root (the root is 1), so it grows along every chain, across forks too.

A chain's prefix property: below a row that lies on a chain, that chain equals the chain of the row's own version.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from volfs.errors import BadInput, NotFound
from volfs.model.bounded_map import BoundedMap

Fork = tuple[int, int]
"""(parent lineage, position in it) that a lineage was forked at."""

_CHAINS_KEPT = 512

ID_DIGITS = 8
"""The fewest digits of a content id that can name a version."""


_LATEST_NS = 2**63 - 1
"""The largest time (in the year 2262) that the catalog, and the kernel's times of files, can hold."""


def is_time(value: object) -> TypeGuard[int]:
    """Whether a value can be the time of a version or dataset: nanoseconds from 1970 to 2262."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LATEST_NS


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One immutable version. ``lineage`` and ``position`` are 0 until the catalog has placed it."""

    number: int
    parents: tuple[int, ...]
    lineage: int
    position: int
    time_ns: int
    author: str
    message: str
    content_id: str


@dataclass(frozen=True, slots=True, eq=False)
class At:
    """The chain of one version: its lineage up to its position, then each ancestor lineage up to the fork, newest
    first.

    The first link decides the rest (within a dataset), which keeps hashing cheap for chains of thousands of lineages.
    """

    chain: tuple[tuple[int, int], ...]
    _limits: dict[int, int] = field(init=False, repr=False)
    _arrays: tuple[NDArray[np.int64], NDArray[np.int64]] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_limits", dict(self.chain))

    @property
    def lineage(self) -> int:
        return self.chain[0][0]

    @property
    def position(self) -> int:
        return self.chain[0][1]

    @property
    def limits(self) -> Mapping[int, int]:
        """Newest visible position of each lineage on the chain."""
        return self._limits

    def sees(self, lineage: int, position: int) -> bool:
        """Whether a change made at (lineage, position) lies on this chain."""
        return position <= self._limits.get(lineage, -1)

    def below(self, lineage: int) -> tuple[int, int] | None:
        """The newest link of the chain whose lineage id is smaller than ``lineage``."""
        low, high = 0, len(self.chain)
        while low < high:
            middle = (low + high) // 2
            if self.chain[middle][0] < lineage:
                high = middle
            else:
                low = middle + 1
        return self.chain[low] if low < len(self.chain) else None

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(lineages, limits), oldest first: for matching the chain against many lineages at once."""
        if self._arrays is None:
            links = np.array(self.chain[::-1], dtype=np.int64).reshape(-1, 2)
            object.__setattr__(self, "_arrays", (links[:, 0].copy(), links[:, 1].copy()))
        assert self._arrays is not None
        return self._arrays

    def __eq__(self, other: object) -> bool:
        return isinstance(other, At) and self.chain == other.chain

    def __hash__(self) -> int:
        return hash(self.chain[:1])


class VersionGraph:
    """All versions of a dataset. Grows by :meth:`add`; a copy is independent, so a published graph can stay."""

    def __init__(self) -> None:
        self._versions: dict[int, VersionInfo] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        self._tips: dict[int, int] = {}
        self._forks: dict[int, Fork | None] = {}
        #: The largest number, and the latest time (ns); 0 while there is no version.
        self.highest = 0
        self.latest_ns = 0
        #: By the first digits of content ids.
        self._identified: dict[str, tuple[int, ...]] = {}
        #: What :meth:`at` remembers.
        self.chains: BoundedMap[int, At] = BoundedMap(_CHAINS_KEPT)

    @property
    def versions(self) -> Mapping[int, VersionInfo]:
        return MappingProxyType(self._versions)

    @property
    def forks(self) -> Mapping[int, Fork | None]:
        """Where each lineage was forked; None for a lineage that begins at a root."""
        return MappingProxyType(self._forks)

    @property
    def last(self) -> int:
        """The version added last; 0 if there is none."""
        return next(reversed(self._versions), 0)

    def __contains__(self, number: object) -> bool:
        return number in self._versions

    def __len__(self) -> int:
        return len(self._versions)

    def copy(self) -> VersionGraph:
        """An independent graph with the same versions."""
        other = VersionGraph()
        other._versions = dict(self._versions)
        other._numbers = dict(self._numbers)
        other._tips = dict(self._tips)
        other._forks = dict(self._forks)
        other._identified = dict(self._identified)
        other.highest, other.latest_ns = self.highest, self.latest_ns
        return other

    def info(self, number: int) -> VersionInfo:
        """The version ``number``. Raises NotFound."""
        try:
            return self._versions[number]
        except KeyError:
            raise NotFound(f"there is no version v{number}") from None

    def place(self, parents: Sequence[int]) -> tuple[int, int, Fork | None]:
        """(lineage, position, fork) for a new version with these parents; ``fork`` is None unless a lineage begins."""
        if not parents:
            return self._next_lineage(), 1, None
        parent = self.info(parents[0])
        if self._tips[parent.lineage] == parent.position:
            return parent.lineage, parent.position + 1, None
        return self._next_lineage(), parent.position + 1, (parent.lineage, parent.position)

    def _next_lineage(self) -> int:
        # Lineage 0 is no lineage: the catalog uses it for "nothing older".
        return max(self._tips, default=0) + 1

    def add(self, info: VersionInfo, fork: Fork | None = None) -> None:
        """Record a placed version. ``fork`` counts only where ``info`` begins its lineage."""
        if info.number in self._versions:
            raise BadInput(f"version v{info.number} is there already")
        for parent in info.parents:
            # Numbers are reserved after the parents exist; merge_base and rebuilding in order rely on it.
            if parent >= info.number:
                raise BadInput(f"version v{info.number} cannot have the later version v{parent} as a parent")
        if info.lineage not in self._tips:
            self._forks[info.lineage] = fork
        self._tips[info.lineage] = max(info.position, self._tips.get(info.lineage, 0))
        self._numbers[info.lineage, info.position] = info.number
        self.highest, self.latest_ns = max(self.highest, info.number), max(self.latest_ns, info.time_ns)
        digits = info.content_id[:ID_DIGITS]
        self._identified[digits] = (*self._identified.get(digits, ()), info.number)
        self._versions[info.number] = info

    def at(self, number: int) -> At:
        """The chain that version ``number`` looks along; version 0, the empty one, sees nothing."""
        return self.chains.get_or_make(number, lambda: self._chain(number))

    def _chain(self, number: int) -> At:
        if number == 0:
            return At(((0, 0),))
        info = self.info(number)
        return self.extend_chain(info.lineage, info.position, self._forks[info.lineage])

    def extend_chain(self, lineage: int, position: int, fork: Fork | None) -> At:
        """The chain of a version that is placed but not yet added (see :meth:`place`)."""
        links = [(lineage, position)]
        link = fork if fork is not None or lineage not in self._forks else self._forks[lineage]
        while link is not None:
            links.append(link)
            link = self._forks[link[0]]
        return At(tuple(links))

    def has(self, lineage: int, position: int) -> bool:
        """Whether there is a version at (lineage, position)."""
        return (lineage, position) in self._numbers

    def number_at(self, lineage: int, position: int) -> int:
        """The version at (lineage, position). Raises NotFound."""
        try:
            return self._numbers[lineage, position]
        except KeyError:
            raise NotFound(f"no version at position {position} of lineage {lineage}") from None

    def ancestor(self, number: int, back: int) -> int:
        """The version ``back`` first parents before ``number``. Raises NotFound when history is shorter than that."""
        info = self.info(number)
        wanted = info.position - back
        if wanted < 1 or back < 0:
            before = info.position - 1
            raise NotFound(f"v{number} has {before} version{'s' * (before != 1)} before it, not {back}")
        lineage, fork = info.lineage, self._forks[info.lineage]
        while fork is not None and wanted <= fork[1]:
            lineage, fork = fork[0], self._forks[fork[0]]
        return self.number_at(lineage, wanted)

    def identified(self, digits: str) -> list[int]:
        """The versions whose content ids begin with these digits, at least :data:`ID_DIGITS`; ascending."""
        same = self._identified.get(digits[:ID_DIGITS], ())
        return sorted(number for number in same if self._versions[number].content_id.startswith(digits))

    def as_of(self, number: int, time_ns: int) -> int:
        """The newest version that is not younger than a time, among ``number`` and its first parents, whose times
        descend. Raises NotFound if all are younger."""
        low, high = 0, self.info(number).position  # how many to go back: high is one too many
        while low < high:
            middle = (low + high) // 2
            if self.info(self.ancestor(number, middle)).time_ns <= time_ns:
                high = middle
            else:
                low = middle + 1
        if low == self.info(number).position:
            raise NotFound(f"v{number} and all versions before it are younger than that")
        return self.ancestor(number, low)

    def parent(self, number: int, which: int) -> int:
        """The parent of a version by its place, from 1; 0 is the version itself. Raises NotFound."""
        parents = self.info(number).parents
        if which > len(parents):
            count = f"{len(parents)} parents" if len(parents) != 1 else "one parent"
            raise NotFound(f"v{number} has {count if parents else 'no parent'}: there is no ^{which} of it")
        return parents[which - 1] if which else number

    def first_parents(self, number: int) -> Iterator[int]:
        """``number``, its first parent, and each further first parent to the root."""
        current: int | None = number
        while current:
            info = self.info(current)
            yield current
            current = info.parents[0] if info.parents else None

    def is_ancestor(self, older: int, newer: int) -> bool:
        """Whether ``older`` is ``newer`` or one of its ancestors, by any parent."""
        return self.merge_base(older, newer) == older

    def merge_base(self, a: int, b: int) -> int:
        """The newest version that both descend from, by any parent (one of them may be it); 0 if there is none."""
        return next(self._merge_bases((a,), b), 0)

    def merge_bases(self, a: int | Collection[int], b: int) -> tuple[int, ...]:
        """The versions that both descend from and that are no ancestors of one another, newest first: more than one
        where histories were merged crosswise. ``a`` may be several versions, which count as one that merges them."""
        return tuple(self._merge_bases((a,) if isinstance(a, int) else a, b))

    def _merge_bases(self, ours: Collection[int], theirs: int) -> Iterator[int]:
        if not (theirs and any(ours)):
            return
        one, other, passed = 1, 2, 4
        seen_by: dict[int, int] = {}
        for side, number in (*((one, number) for number in ours if number), (other, theirs)):
            self.info(number)
            seen_by[number] = seen_by.get(number, 0) | side
        heap = [-number for number in seen_by]
        heapq.heapify(heap)
        # Numbers that may still lead to a base: not those below a base that was found.
        alive = len(heap)
        # Every parent has a smaller number than its child, so a number is final when it comes up.
        while alive:
            number = -heapq.heappop(heap)
            sides = seen_by[number]
            alive -= not sides & passed
            if sides == one | other:
                yield number
                sides |= passed
            for parent in self._versions[number].parents:
                before = seen_by.get(parent)
                after = (before or 0) | sides
                if before is None:
                    heapq.heappush(heap, -parent)
                    alive += not after & passed
                elif after & passed and not before & passed:
                    alive -= 1
                seen_by[parent] = after
