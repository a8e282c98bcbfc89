"""What indexing a version means: names, directories, incarnations, chunks, refs; all or nothing, and once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.kits.catalog_histories import SHA, SHAPE, History, payload, put
from volfs.catalog import Catalog, NodeShape
from volfs.errors import AlreadyThere, BadInput, Damaged, NotFound
from volfs.model.graph import At, VersionInfo
from volfs.model.refs import RefKind
from volfs.storage.manifest import ManifestBuilder
from volfs.storage.payload import PIECE, Payload


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with Catalog.open(tmp_path / "catalog.sqlite", create=True) as catalog:
        yield History(catalog)
        assert catalog.check() == []


def array(path: str, *cells: tuple[int, int]) -> ManifestBuilder:
    builder = put(f"zarr/{path}/zarr.json")
    for coords in cells:
        builder.put_chunk(path, coords, payload(1), SHA)
    return builder


# --- names ---


def test_putting_a_deep_key_makes_the_directories_above_it(history: History) -> None:
    first = history.commit(put("files/a/b/c.txt"))
    assert history.keys(first) == {"files/a/b/c.txt"}
    entry = history.catalog.entry(history.dataset, history.at(first), "files/a")
    assert entry is not None and (entry.kind, entry.version, entry.payload) == ("dir", first, None)


def test_a_directory_vanishes_with_its_last_name_and_takes_empty_ones_above_along(history: History) -> None:
    history.commit(put("files/a/b/c.txt", "files/d"))
    builder = ManifestBuilder()
    builder.remove("files/a/b/c.txt")
    second = history.commit(builder)
    assert history.keys(second) == {"files/d"}
    assert history.catalog.entry(history.dataset, history.at(second), "files/a") is None
    assert history.keys(second - 1) == {"files/a/b/c.txt", "files/d"}


def test_a_directory_stays_while_a_version_removes_one_name_and_puts_another(history: History) -> None:
    first = history.commit(put("files/a/x"))
    builder = put("files/a/y")
    builder.remove("files/a/x")
    second = history.commit(builder)
    assert history.keys(second) == {"files/a/y"}
    assert history.node(second, "files/a") == history.node(first, "files/a")


def test_removing_a_subtree_hides_all_below_whatever_comes_there_later(history: History) -> None:
    history.commit(put("files/a/x", "files/a/deep/y", "files/b"))
    builder = ManifestBuilder()
    builder.remove_subtree("files/a")
    second = history.commit(builder)
    third = history.commit(put("files/a/z"))
    assert history.keys(second) == {"files/b"}
    assert history.keys(third) == {"files/a/z", "files/b"}


def test_what_a_version_puts_below_a_subtree_that_it_removes_stays(history: History) -> None:
    history.commit(put("files/a/x", "files/a/y"))
    builder = put("files/a/y")
    builder.remove_subtree("files/a")
    assert history.keys(history.commit(builder)) == {"files/a/y"}


def test_removing_a_subtree_is_one_row_however_much_is_in_it(history: History) -> None:
    history.commit(put(*(f"files/a/{i}/{j}" for i in range(10) for j in range(10)), "files/b"))
    count = "SELECT count(*) FROM entry"
    (before,) = history.catalog._cx().execute(count).fetchone()
    builder = ManifestBuilder()
    builder.remove_subtree("files/a")
    history.commit(builder)
    assert history.catalog._cx().execute(count).fetchone() == (before + 1,)


def test_a_key_may_take_the_place_of_a_directory_and_the_other_way_round(history: History) -> None:
    history.commit(put("files/a/x/deep", "files/b"))
    second = history.commit(put("files/a", "files/b/c"))
    third = history.commit(put("files/a/y"))
    assert history.keys(second) == {"files/a", "files/b/c"}
    assert history.keys(third) == {"files/a/y", "files/b/c"}


def test_one_version_cannot_put_a_key_and_a_key_below_it(history: History) -> None:
    for keys in (("files/a", "files/a/b"), ("files/a/b", "files/a")):
        with pytest.raises(BadInput):
            history.commit(put(*keys))
    assert len(history.catalog.graph(history.dataset)) == 0


def test_removing_what_is_not_there_changes_nothing(history: History) -> None:
    history.commit(put("files/a"))
    builder = ManifestBuilder()
    builder.remove("files/nothing")
    builder.remove("files/a/below")
    builder.remove_subtree("zarr/s9")
    second = history.commit(builder)
    assert history.keys(second) == {"files/a"}


def test_names_that_are_no_utf8_come_back_as_they_are(history: History) -> None:
    name = "files/caf\udce9 \u2603"
    first = history.commit(put(name))
    assert history.keys(first) == {name}


def test_a_listing_is_in_byte_order_and_agrees_with_each_lookup(history: History) -> None:
    first = history.commit(put(*(f"files/{name}" for name in ["Z", "a/x", "a-b", "é", "10", "9"])))
    directory = history.node(first, "files")
    listed = history.catalog.list_entries(history.dataset, history.at(first), directory)
    assert [name for name, _ in listed] == ["10", "9", "Z", "a", "a-b", "é"]
    for name, entry in listed:
        assert history.catalog.entry(history.dataset, history.at(first), f"files/{name}") == entry


# --- arrays ---


def test_chunks_are_found_by_block_and_cell_and_removals_are_remembered(history: History) -> None:
    first = history.commit(array("s0", (0, 0), (1, 1)), {"s0": SHAPE})
    builder = ManifestBuilder()
    builder.remove_chunk("s0", (0, 0))
    second = history.commit(builder)
    assert [history.chunk(first, "zarr/s0", cell) for cell in range(4)] == [payload(1), None, None, payload(1)]
    assert [history.chunk(second, "zarr/s0", cell) for cell in range(4)] == [None, None, None, payload(1)]
    node = history.node(second, "zarr/s0")
    whole = history.catalog.block_map(node, history.at(second), (0, 0))
    assert whole.owner.tolist() == [0, 0, 0, first]
    assert whole.changed.tolist() == [second, 0, 0, first]
    with pytest.raises(NotFound):
        whole.payload(0)
    assert history.catalog.block_shape(node) == (2, 2)
    assert history.catalog.born(node) == first


def test_an_array_removed_and_created_again_has_none_of_its_old_chunks(history: History) -> None:
    first = history.commit(array("s0", (0, 0)), {"s0": SHAPE})
    builder = array("s0", (1, 1))
    builder.remove_subtree("zarr/s0")
    second = history.commit(builder, {"s0": SHAPE})
    assert history.node(second, "zarr/s0") != history.node(first, "zarr/s0")
    assert history.chunk(second, "zarr/s0", 0) is None
    assert history.chunk(second, "zarr/s0", 3) == payload(1)
    assert history.chunk(first, "zarr/s0", 0) == payload(1)


def test_removing_only_the_metadata_of_an_array_ends_it_and_keeps_the_other_names(history: History) -> None:
    first = history.commit(put("zarr/s0/notes/x", "zarr/s0/readme", builder=array("s0", (0, 0))), {"s0": SHAPE})
    builder = ManifestBuilder()
    builder.remove("zarr/s0/zarr.json")
    builder.remove_chunk("s0", (0, 0))
    second = history.commit(builder)
    third = history.commit(array("s0"), {"s0": SHAPE})
    assert history.keys(second) == {"zarr/s0/notes/x", "zarr/s0/readme"}
    assert history.chunk(third, "zarr/s0", 0) is None
    kept = history.catalog.entry(history.dataset, history.at(third), "zarr/s0/readme")
    assert kept is not None and kept.version == first


def test_the_index_shape_of_an_array_stays_what_it_was_when_it_grows(history: History) -> None:
    history.commit(array("s0", (0, 0)), {"s0": SHAPE})
    second = history.commit(array("s0", (5, 5)), {"s0": NodeShape((4, 4))})
    node = history.node(second, "zarr/s0")
    assert history.catalog.block_shape(node) == (2, 2)
    assert history.catalog.chunk(node, history.at(second), (2, 2), 3) is not None


def test_two_branches_may_make_different_arrays_of_one_group(history: History) -> None:
    first = history.commit(put("zarr/s0/zarr.json"))
    flat = history.commit(array("s0", (0, 1)), {"s0": SHAPE}, parent=first)
    deep = put("zarr/s0/zarr.json")
    deep.put_chunk("s0", (0, 0, 1), payload(3), SHA)
    third = history.commit(deep, {"s0": NodeShape((1, 1, 2))}, parent=first)
    assert history.chunk(flat, "zarr/s0", 1) == payload(1)
    node = history.node(third, "zarr/s0")
    found = history.catalog.chunk(node, history.at(third), (0, 0, 0), 1)
    assert found is not None and found.payload == payload(3)


def test_a_group_of_groups_has_no_index_shape(history: History) -> None:
    first = history.commit(put("zarr/zarr.json"))
    assert history.catalog.block_shape(history.node(first, "zarr")) is None
    with pytest.raises(NotFound):
        history.catalog.chunk(history.node(first, "zarr"), history.at(first), (0,), 0)


def test_an_array_at_the_root_of_the_hierarchy_has_the_empty_path(history: History) -> None:
    builder = put("zarr/zarr.json")
    builder.put_chunk("", (0, 1), payload(1), SHA)
    first = history.commit(builder, {"": SHAPE})
    assert history.chunk(first, "zarr", 1) == payload(1)


def test_chunks_of_what_is_no_array_are_refused_and_nothing_stays_behind(history: History) -> None:
    builder = put("files/a")
    builder.put_chunk("s0", (0, 0), payload(1), SHA)
    with pytest.raises(BadInput):
        history.commit(builder)
    builder = array("s0", (0, 0))
    builder.put_chunk("s0", (0, 0, 0), payload(1), SHA)
    with pytest.raises(BadInput):
        history.commit(builder, {"s0": SHAPE})
    for table in ("version", "entry", "block", "touched", "file_group"):
        assert history.catalog._cx().execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_a_chunk_taken_in_a_merge_points_at_its_owners_file_and_counts_as_changed_here(history: History) -> None:
    base = history.commit(array("s0", (0, 0)), {"s0": SHAPE})
    theirs = ManifestBuilder()
    theirs.put_chunk("s0", (0, 0), payload(2), SHA)
    side = history.commit(theirs, parent=base)
    merge = ManifestBuilder()
    merge.take_chunk("s0", (0, 0), payload(2), SHA, side)
    merge.take("files/note", payload(7), SHA, side)
    merged = history.commit(merge, parent=base)
    found = history.catalog.chunk(history.node(merged, "zarr/s0"), history.at(merged), (0, 0), 0)
    assert found is not None and (found.payload, found.version) == (payload(2), merged)
    note = history.catalog.entry(history.dataset, history.at(merged), "files/note")
    assert note is not None and (note.payload, note.version) == (payload(7), merged)


def test_piece_checksums_come_with_every_payload_over_one_piece(history: History) -> None:
    pieces = np.arange(2, dtype="<u4").tobytes()
    large = Payload("00000001/x", 0, 2 * PIECE, 9, pieces)
    builder = array("s0")
    builder.put_chunk("s0", (0, 1), large, SHA)
    builder.put("files/large", large, SHA)
    first = history.commit(builder, {"s0": SHAPE})
    assert history.chunk(first, "zarr/s0", 1) == large
    assert history.catalog.block_map(history.node(first, "zarr/s0"), history.at(first), (0, 0)).payload(1) == large
    entry = history.catalog.entry(history.dataset, history.at(first), "files/large")
    assert entry is not None and entry.payload == large


def test_of_two_records_of_one_chunk_the_later_counts(history: History) -> None:
    builder = array("s0", (0, 0))
    builder.put_chunk("s0", (0, 0), payload(8), SHA)
    assert history.chunk(history.commit(builder, {"s0": SHAPE}), "zarr/s0", 0) == payload(8)


def test_coordinates_up_to_the_largest_are_told_apart(history: History) -> None:
    shape = NodeShape((1,) * 6)
    builder = put("zarr/zarr.json")
    far = (2**32 - 1,) * 6
    builder.put_chunk("", far, payload(1), SHA)
    builder.put_chunk("", (0,) * 6, payload(2), SHA)
    first = history.commit(builder, {"": shape})
    node = history.node(first, "zarr")
    found = [history.catalog.chunk(node, history.at(first), block, 0) for block in (far, (0,) * 6)]
    assert [one.payload for one in found if one] == [payload(1), payload(2)]
    assert {block for block, _ in history.catalog.newest_changes(node, history.at(first))} == {far, (0,) * 6}


def test_changes_since_a_version_that_is_no_ancestor_are_refused(history: History) -> None:
    base = history.commit(array("s0", (0, 0)), {"s0": SHAPE})
    one, other = history.commit(ManifestBuilder(), parent=base), history.commit(ManifestBuilder(), parent=base)
    node = history.node(base, "zarr/s0")
    assert list(history.catalog.changes(node, history.at(one), history.at(base))) == []
    with pytest.raises(BadInput):
        list(history.catalog.changes(node, history.at(one), history.at(other)))


# --- versions and refs ---


def test_indexing_a_version_twice_changes_only_the_refs(history: History) -> None:
    info = VersionInfo(1, (), 0, 0, 1, "me", "", "id1")
    manifest = put("files/a").build()
    catalog, dataset = history.catalog, history.dataset
    placed = catalog.index_version(dataset, info, manifest, {}, {RefKind.BRANCH: {"main": 0}})
    again = catalog.index_version(dataset, info, manifest, {}, {RefKind.BRANCH: {"main": 1}, RefKind.TAG: {"paper": 1}})
    assert placed == again and (placed.lineage, placed.position) == (1, 1)
    assert catalog.refs(dataset).heads == {"main": 1}
    assert catalog.refs(dataset).tags == {"paper": 1}
    assert catalog._cx().execute("SELECT count(*) FROM entry").fetchone() == (2,)


def test_another_version_of_the_same_number_is_damage(history: History) -> None:
    history.commit(put("files/a"))
    with pytest.raises(Damaged, match="rebuild-catalog"):
        history.catalog.index_version(
            history.dataset, VersionInfo(1, (), 0, 0, 1, "", "", "other"), ManifestBuilder().build(), {}
        )


def test_a_version_whose_parent_is_missing_is_not_indexed(history: History) -> None:
    with pytest.raises(NotFound):
        history.commit(put("files/a"), parent=7)
    assert len(history.catalog.graph(history.dataset)) == 0


def test_everything_about_a_version_comes_back(history: History) -> None:
    history.commit(ManifestBuilder())
    info = VersionInfo(5, (1,), 0, 0, 2**62, "Zoë \udcff", "line\nline \udc80", "ab" * 32)
    placed = history.catalog.index_version(history.dataset, info, ManifestBuilder().build(), {})
    with Catalog.open(history.catalog.path) as other:
        assert other.graph(history.dataset).info(5) == placed
    assert (placed.author, placed.message, placed.parents) == (info.author, info.message, (1,))


def test_setting_refs_replaces_those_of_the_kind_given(history: History) -> None:
    catalog, dataset = history.catalog, history.dataset
    catalog.set_refs(dataset, {RefKind.BRANCH: {"main": 0, "exp": 0}, RefKind.TAG: {"paper": 1}})
    catalog.set_refs(dataset, {RefKind.BRANCH: {"main": 2}})
    assert (catalog.refs(dataset).heads, catalog.refs(dataset).tags) == ({"main": 2}, {"paper": 1})


def test_a_graph_handed_out_stays_as_it_was(history: History) -> None:
    history.commit(ManifestBuilder())
    graph = history.catalog.graph(history.dataset)
    history.commit(ManifestBuilder())
    assert len(graph) == 1
    assert len(history.catalog.graph(history.dataset)) == 2


# --- datasets ---


def test_a_dropped_dataset_leaves_nothing_behind_and_the_others_untouched(history: History) -> None:
    catalog = history.catalog
    kept = history.commit(array("s0", (0, 0)), {"s0": SHAPE})
    other = catalog.add_dataset("other", 0)
    large = Payload("00000001/x", 0, 2 * PIECE, 9, bytes(8))
    builder = array("s0", (0, 0))
    builder.put("files/large", large, SHA)
    catalog.index_version(
        other, VersionInfo(1, (), 0, 0, 1, "", "", ""), builder.build(), {"s0": SHAPE}, {RefKind.BRANCH: {"m": 1}}
    )
    counts = {
        table: catalog._cx().execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("entry", "block")
    }
    catalog.drop_dataset(other)
    assert catalog.datasets() == {"cells": history.dataset}
    assert history.chunk(kept, "zarr/s0", 0) == payload(1)
    for table, count in counts.items():
        assert 0 < catalog._cx().execute(f"SELECT count(*) FROM {table}").fetchone()[0] < count
    assert catalog._cx().execute("SELECT count(*) FROM piece").fetchone() == (0,)
    again = catalog.add_dataset("other", 0)
    assert again not in (other, history.dataset)
    assert len(catalog.graph(again)) == 0
    with pytest.raises(NotFound):
        catalog.drop_dataset(other)
    with pytest.raises(NotFound):
        catalog.entry(other, At(((1, 1),)), "")


def test_a_dataset_name_is_taken_once(history: History) -> None:
    with pytest.raises(AlreadyThere):
        history.catalog.add_dataset("cells", 0)
