"""The version graph: lineages, chains, ancestors and merge bases, against a plain walk over parents."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volfs.errors import BadInput, NotFound
from volfs.model.graph import VersionGraph, VersionInfo


def grow(graph: VersionGraph, number: int, *parents: int) -> VersionInfo:
    lineage, position, fork = graph.place(parents)
    info = VersionInfo(number, parents, lineage, position, number * 10**9, "me", f"version {number}", "")
    graph.add(info, fork)
    return info


def test_the_first_child_of_a_tip_extends_its_lineage_and_a_second_child_forks() -> None:
    graph = VersionGraph()
    assert (grow(graph, 1).lineage, graph.info(1).position) == (1, 1)
    assert (grow(graph, 2, 1).lineage, graph.info(2).position) == (1, 2)
    assert (grow(graph, 3, 1).lineage, graph.info(3).position) == (2, 2)
    assert (grow(graph, 4, 3).lineage, graph.info(4).position) == (2, 3)
    assert graph.at(4).chain == ((2, 3), (1, 1))
    assert graph.at(2).chain == ((1, 2),)


def test_a_second_root_begins_a_lineage_of_its_own() -> None:
    graph = VersionGraph()
    grow(graph, 1)
    assert grow(graph, 2).lineage == 2
    assert graph.at(2).chain == ((2, 1),)
    assert graph.merge_base(1, 2) == 0


def test_an_unknown_version_or_a_history_that_is_too_short_is_not_found() -> None:
    graph = VersionGraph()
    grow(graph, 1)
    with pytest.raises(NotFound):
        graph.at(2)
    with pytest.raises(NotFound):
        graph.ancestor(1, 1)
    with pytest.raises(NotFound):
        graph.place((7,))


def test_a_version_cannot_come_before_its_parents_or_twice() -> None:
    graph = VersionGraph()
    grow(graph, 5)
    with pytest.raises(BadInput):
        grow(graph, 4, 5)
    with pytest.raises(BadInput):
        grow(graph, 5)


def test_a_copy_does_not_see_what_is_added_later() -> None:
    graph = VersionGraph()
    grow(graph, 1)
    copy = graph.copy()
    grow(graph, 2, 1)
    assert list(copy.versions) == [1]
    assert copy.place((1,)) == (1, 2, None)


def test_the_empty_version_sees_nothing() -> None:
    at = VersionGraph().at(0)
    assert not at.sees(1, 1)
    assert at.below(1) == (0, 0)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, ...]]:
    """Parents of versions 1, 2, …: forks, merges and a few roots."""
    parents: list[tuple[int, ...]] = [()]
    parents.extend(
        tuple(draw(st.lists(st.integers(1, number - 1), max_size=2, unique=True)))
        for number in range(2, draw(st.integers(1, 30)) + 1)
    )
    return parents


@given(histories())
def test_every_chain_sees_exactly_the_first_parents(history: list[tuple[int, ...]]) -> None:
    graph = VersionGraph()
    for number, parents in enumerate(history, 1):
        grow(graph, number, *parents)
    for number in range(1, len(history) + 1):
        line = [number]
        while history[line[-1] - 1]:
            line.append(history[line[-1] - 1][0])
        at = graph.at(number)
        seen = {n for n, i in graph.versions.items() if at.sees(i.lineage, i.position)}
        assert seen == set(line) == set(graph.first_parents(number))
        assert [graph.ancestor(number, back) for back in range(len(line))] == line
        lineages = [lineage for lineage, _ in at.chain]
        assert lineages == sorted(lineages, reverse=True)
        for lineage in range(len(graph.forks) + 2):
            assert at.below(lineage) == next((link for link in at.chain if link[0] < lineage), None)


@given(histories(), st.data())
def test_a_merge_base_is_the_newest_common_ancestor(history: list[tuple[int, ...]], data: st.DataObject) -> None:
    graph = VersionGraph()
    ancestors: dict[int, set[int]] = {}
    for number, parents in enumerate(history, 1):
        grow(graph, number, *parents)
        ancestors[number] = {number}.union(*(ancestors[parent] for parent in parents))
    numbers = st.integers(1, len(history))
    a, b = data.draw(numbers), data.draw(numbers)
    assert graph.merge_base(a, b) == max(ancestors[a] & ancestors[b], default=0)
    assert graph.is_ancestor(a, b) == (a in ancestors[b])


@given(histories(), st.data())
def test_merge_bases_are_all_common_ancestors_but_those_of_others(
    history: list[tuple[int, ...]], data: st.DataObject
) -> None:
    graph = VersionGraph()
    ancestors: dict[int, set[int]] = {}
    for number, parents in enumerate(history, 1):
        grow(graph, number, *parents)
        ancestors[number] = {number}.union(*(ancestors[parent] for parent in parents))
    numbers = st.integers(1, len(history))
    ours, b = data.draw(st.lists(numbers, min_size=1, max_size=3, unique=True)), data.draw(numbers)
    common = set().union(*(ancestors[a] for a in ours)) & ancestors[b]
    best = {x for x in common if not any(x != y and x in ancestors[y] for y in common)}
    assert graph.merge_bases(ours, b) == tuple(sorted(best, reverse=True))
    assert graph.merge_bases(ours[0], b)[:1] == tuple(filter(None, [graph.merge_base(ours[0], b)]))


def test_histories_merged_crosswise_have_two_bases() -> None:
    graph = VersionGraph()
    for number, parents in enumerate([(), (1,), (1,), (2, 3), (3, 2)], 1):
        grow(graph, number, *parents)
    assert graph.merge_bases(4, 5) == (3, 2)
    assert graph.merge_bases((2, 3), 4) == (3, 2)
    assert graph.merge_bases(0, 5) == ()
