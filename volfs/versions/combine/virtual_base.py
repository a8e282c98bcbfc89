"""The value at several merge bases: they are merged first, key by key and on demand, as git's recursive merge does.

Decided here: the order, and that bases of bases are merged in the same way. Not here: what a value is, and how two
merge. A conflict between bases is a value unlike any other: whoever merges says how it looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from volfs.model.graph import VersionGraph

V = TypeVar("V")


def virtual_value(
    graph: VersionGraph,
    bases: Sequence[int],
    value_at: Callable[[int], V],
    same: Callable[[V, V], bool],
    merge: Callable[[V, V, V], V],
    nothing: V,
) -> V:
    """The value at the merged bases; ``nothing`` if there are none. ``merge`` takes base, ours and theirs, of which no
    two are the same."""
    known: dict[tuple[int, ...], V] = {}

    def at(bases: tuple[int, ...]) -> V:
        if not bases:
            return nothing
        if bases not in known:
            known[bases] = merged(bases)
        return known[bases]

    def merged(bases: tuple[int, ...]) -> V:
        value = value_at(bases[0])
        for count, base in enumerate(bases[1:], 1):
            other = value_at(base)
            if same(value, other):
                continue
            below = at(tuple(sorted(graph.merge_bases(bases[:count], base))))
            if same(below, other):
                continue
            value = other if same(below, value) else merge(below, value, other)
        return value

    # Oldest first: the result does not depend on it where they merge, and git does so.
    return at(tuple(sorted(bases)))
