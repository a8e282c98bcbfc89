"""Whether two sets of changes collide, against a model that spells out every key."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kits.example_counts import examples
from volfs.model.name_lists import merge_documents, merge_names
from volfs.model.touch import Touched, collisions, common_rows

FOLDERS = ("zarr/a", "zarr/b", "zarr/g/c")
FILES = ("files/x", "files/d", "files/d/x", "files/d/y", "zarr/zarr.json", "zarr/g/zarr.json", "zarr/a/zarr.json")
TREES = ("files/d", "files/d/e", "zarr/g", "zarr/a", "zarr/b")
CHUNKS = st.tuples(st.integers(0, 2), st.integers(0, 2))


def rows(chunks: set[tuple[int, int]]) -> np.ndarray:
    return np.array(sorted(chunks), np.int64).reshape(len(chunks), 2)


@st.composite
def touched(draw: st.DrawFn) -> Touched:
    by_folder = draw(st.dictionaries(st.sampled_from(FOLDERS), st.sets(CHUNKS, min_size=1, max_size=4), max_size=2))
    regions = draw(
        st.dictionaries(st.sampled_from(FOLDERS), st.sets(st.integers(0, 2), min_size=1, max_size=2), max_size=1)
    )
    return Touched(
        frozenset(draw(st.sets(st.sampled_from(FILES), max_size=3))),
        frozenset(draw(st.sets(st.sampled_from(TREES), max_size=1))),
        frozenset(draw(st.sets(st.sampled_from(FOLDERS), max_size=1))),
        {folder: rows(found) for folder, found in by_folder.items()},
        {folder: frozenset((first,) for first in found) for folder, found in regions.items()},
    )


def chunk_key(folder: str, at: tuple[int, ...]) -> str:
    return "/".join((folder, "c", *map(str, at)))


def spelt(change: Touched) -> list[tuple[str, str]]:
    """(the change, the key that it takes, with all below it) of every single change."""
    found = [(key, key) for key in (*change.keys, *change.trees, *change.arrays)]
    for folder, chunks in change.chunks.items():
        found += [(f"{folder}!{tuple(row)}", chunk_key(folder, tuple(row))) for row in chunks.tolist()]
    for folder, prefixes in change.regions.items():
        found += [(f"{folder}!{prefix}", chunk_key(folder, prefix)) for prefix in prefixes]
    return found


def below(key: str, above: str) -> bool:
    return key.startswith(f"{above}/")


def clash(key: str, other: str) -> bool:
    """Whether two changes touch the same: one key, a key in a tree, or a file where the other has a directory."""
    return key == other or below(key, other) or below(other, key)


def by_hand(mine: Touched, theirs: Touched) -> tuple[set[str], set[str]]:
    """(arrays, single changes of mine) that collide."""
    arrays = set()
    for here, there in ((mine, theirs), (theirs, mine)):
        for folder in here.arrays:
            if any(clash(folder, key) for _, key in spelt(there)):
                arrays.add(folder)
    single = set()
    for name, key in spelt(mine):
        if any(key == folder or below(key, folder) for folder in arrays):
            continue
        if any(clash(key, other) for _, other in spelt(theirs)):
            single.add(name)
    return arrays, single


def answered(found: Touched) -> tuple[set[str], set[str]]:
    single = Touched(found.keys, found.trees, frozenset(), found.chunks, found.regions)
    return set(found.arrays), {name for name, _ in spelt(single)}


@settings(max_examples=examples(600))
@given(touched(), touched())
def test_collisions_are_those_of_keys_spelt_out(mine: Touched, theirs: Touched) -> None:
    assert answered(collisions(mine, theirs)) == by_hand(mine, theirs)


@given(touched(), touched())
def test_whether_anything_collides_does_not_depend_on_the_side(mine: Touched, theirs: Touched) -> None:
    assert bool(collisions(mine, theirs)) == bool(collisions(theirs, mine))


@given(touched())
def test_nothing_collides_with_nothing_and_everything_with_itself(mine: Touched) -> None:
    assert not collisions(mine, Touched())
    assert bool(collisions(mine, mine)) == bool(mine)


@given(touched(), touched(), touched())
def test_collisions_with_both_are_those_with_either(mine: Touched, one: Touched, other: Touched) -> None:
    assert bool(collisions(mine, one | other)) == (bool(collisions(mine, one)) or bool(collisions(mine, other)))


@given(st.lists(st.tuples(*[st.integers(0, 2**32 - 1)] * 3)), st.lists(st.tuples(*[st.integers(0, 3)] * 3)))
def test_common_rows_of_any_extent(one: list[tuple[int, ...]], other: list[tuple[int, ...]]) -> None:
    both = [np.array(found, np.int64).reshape(len(found), 3) for found in (one + other, other + one[:2])]
    assert common_rows(*both).tolist() == [row in {*other, *one[:2]} for row in one + other]


NAMES = st.lists(st.sampled_from("abcdef"), unique=True)


@given(NAMES, NAMES, NAMES)
def test_names_merge_as_sets(base: list[str], ours: list[str], theirs: list[str]) -> None:
    merged = merge_names(base, ours, theirs)
    b, o, t = set(base), set(ours), set(theirs)
    assert merged is not None
    assert set(merged) == (o & t) | ((o | t) - b)
    assert len(merged) == len(set(merged))
    assert merge_names(theirs, merged, theirs) == merged, "repeating it changes nothing"


def doc(labels: list[str] | None = None, **attributes: object) -> bytes:
    ome = {"version": "0.5", **({} if labels is None else {"labels": labels})}
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome, **attributes}}).encode()


def test_a_document_merges_where_one_side_changed_nothing_but_names() -> None:
    merged = merge_documents(doc(["a"]), doc(["a", "b"]), doc(["a", "c"], note="theirs"))
    assert merged is not None
    assert json.loads(merged)["attributes"] == {"ome": {"version": "0.5", "labels": ["a", "c", "b"]}, "note": "theirs"}
    assert merge_documents(doc(["a"]), doc(["a"], note="mine"), doc(["a"], note="theirs")) is None
    assert merge_documents(None, doc(["b"]), doc(["c"])) is not None
    assert merge_documents(None, doc(["b"], note="mine"), doc(["c"])) is None
    assert merge_documents(b"no JSON", doc(["b"]), doc(["c"])) is None
    assert merge_documents(doc(["a"]), b"[]", doc(["c"])) is None


def group(**ome: object) -> bytes:
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}).encode()


def images(*items: object) -> bytes:
    return group(well={"images": list(items)})


FIRST, SECOND = {"path": "0"}, {"path": "1"}


@pytest.mark.parametrize(
    ("base", "ours", "theirs"),
    [
        (images(FIRST), images(FIRST, {**SECOND, "acquisition": 1}), images(FIRST, {**SECOND, "acquisition": 2})),
        (images(FIRST), images({**FIRST, "acquisition": 1}), images({**FIRST, "acquisition": 2}, SECOND)),
        (images(FIRST, SECOND), images(FIRST, {**SECOND, "acquisition": 1}), images(FIRST)),
        (images(FIRST, SECOND), images(FIRST), images(FIRST, {**SECOND, "acquisition": 1})),
        (images(FIRST), images(FIRST, {**SECOND, "x": 1}, {**SECOND, "x": 2}), images(FIRST)),
        (group(labels=["a"]), group(labels={"a": 1}), group(labels=["a", "c"])),
        (group(labels=["a"]), group(labels=["a", "c"]), group(labels="none")),
        (images(FIRST), group(), images(FIRST, SECOND)),
        (group(labels=["a"], x=1), group(labels=["a"], x=True), group(labels=["a"], x=2)),
    ],
)
def test_what_both_sides_say_otherwise_of_one_name_is_for_neither_to_lose(
    base: bytes, ours: bytes, theirs: bytes
) -> None:
    assert merge_documents(base, ours, theirs) is None
    assert merge_documents(base, theirs, ours) is None


def test_what_one_side_changed_of_a_name_or_of_the_rest_stays_whichever_side_it_was() -> None:
    changed = {**FIRST, "acquisition": 7}
    for one, other in ((images(changed), images(FIRST, SECOND)), (images(FIRST, SECOND), images(changed))):
        merged = merge_documents(images(FIRST), one, other)
        assert merged is not None
        assert json.loads(merged)["attributes"]["ome"]["well"]["images"] == [changed, SECOND]
    merged = merge_documents(group(labels=["a"], x=1), group(labels=["a", "b"], x=True), group(labels=["a", "c"], x=1))
    assert merged is not None
    assert json.loads(merged)["attributes"]["ome"]["x"] is True
    merged = merge_documents(images(FIRST), group(), images(FIRST))
    assert merged is not None
    assert json.loads(merged)["attributes"]["ome"] == {}


def plate(rows: str, columns: str, wells: list[str]) -> bytes:
    value = {
        "rows": [{"name": name} for name in rows],
        "columns": [{"name": name} for name in columns],
        "wells": [
            {"path": path, "rowIndex": rows.index(path[0]), "columnIndex": columns.index(path[2])} for path in wells
        ],
    }
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"plate": value}}}).encode()


def test_wells_of_a_plate_merge_with_their_rows_and_columns() -> None:
    merged = merge_documents(
        plate("A", "1", ["A/1"]), plate("AB", "1", ["A/1", "B/1"]), plate("AC", "12", ["A/1", "C/2"])
    )
    assert merged is not None
    found = json.loads(merged)["attributes"]["ome"]["plate"]
    assert [row["name"] for row in found["rows"]] == ["A", "C", "B"]
    assert {well["path"]: (well["rowIndex"], well["columnIndex"]) for well in found["wells"]} == {
        "A/1": (0, 0),
        "C/2": (1, 1),
        "B/1": (2, 0),
    }


def test_chunks_of_an_array_that_took_the_place_of_one_of_other_axes_count_as_all_of_it() -> None:
    flat = Touched(chunks={"zarr/s0": np.array([[0, 1]], np.int64)})
    deep = Touched(chunks={"zarr/s0": np.array([[0, 0, 1]], np.int64)})
    for both in (flat | deep, deep | flat):
        assert both.arrays == {"zarr/s0"}
