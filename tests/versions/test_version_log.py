"""``log``: which versions are told, by descent, by words, by path and by box; and what that costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.kits.stores import SECOND, START, new_store, volume, write_version
from volfs.catalog import path_changes
from volfs.errors import BadInput, NotFound
from volfs.model.box import Box
from volfs.model.metadata import group_zarr_json
from volfs.storage.manifest import Manifest
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.dataset import Dataset
from volfs.versions.version_log import instant

SHAPE = (16, 16, 16)


def numbers(found: Iterator[object]) -> list[int]:
    return [info.number for info in found]  # type: ignore[attr-defined]


def when(number: int) -> int:
    return START + number * 10 * SECOND


def touch(dataset: Dataset, parent: int, corner: tuple[int, int, int], branch: str = "main", **more: object) -> int:
    """A version that changes one chunk of s0."""
    number = dataset.next_number()
    voxels = volume(SHAPE, number)
    options = {"coords": [corner], "created": False, "time_ns": when(number), "branch": branch, **more}
    return write_version(dataset, voxels, parent=parent, **options)  # type: ignore[arg-type]


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[Dataset]:
    """v1 makes s0; v2, v3 change a chunk each; v4 (exp, at v2) changes another; v5 adds a note; v6 merges exp, taking
    the chunk anew; v7 is on a branch of its own, which is gone."""
    with new_store(tmp_path / "store") as store:
        dataset = store.create_dataset("cells")
        write_version(dataset, volume(SHAPE), time_ns=when(1), message="made")
        touch(dataset, 1, (0, 0, 0), message="first corner", author="ada@lab")
        touch(dataset, 2, (1, 1, 1), message="far corner\n\nwith reasons", author="bob@lab")
        dataset.create_branch("exp", "v2")
        touch(dataset, 2, (0, 0, 1), branch="exp", message="tried", author="ada@lab")
        with VersionWriter(dataset, "main", 3) as writer:
            writer.put("files/notes/a.txt", b"a")
            writer.publish("a note", "cyd@lab", when(5))
        with VersionWriter(dataset, "main", 5, extra_parents=(4,)) as writer:
            writer.put("files/merged.txt", b"")
            writer.publish("merge", "cyd@lab", when(6))
        dataset.create_branch("lost", "v1")
        touch(dataset, 1, (0, 1, 0), branch="lost", message="lost")
        dataset.delete_branch("lost")
        yield dataset


def test_the_default_branch_with_all_that_was_merged_newest_first(dataset: Dataset) -> None:
    assert numbers(dataset.log()) == [6, 5, 4, 3, 2, 1]
    assert numbers(dataset.log(first_parent=True)) == [6, 5, 3, 2, 1]
    assert numbers(dataset.log(all=True)) == [7, 6, 5, 4, 3, 2, 1]
    assert numbers(dataset.log("exp")) == [4, 2, 1]
    assert numbers(dataset.log("main^2~")) == [2, 1]
    assert numbers(dataset.log(3)) == [3, 2, 1]
    with pytest.raises(NotFound):
        dataset.log("nope")


def test_by_author_message_and_time(dataset: Dataset) -> None:
    assert numbers(dataset.log(author="ada")) == [4, 2]
    assert numbers(dataset.log(author="^(ada|cyd)@", grep="e$")) == [6, 5]
    assert numbers(dataset.log(grep="with reasons")) == [3]
    assert numbers(dataset.log(since=when(3), until=when(5))) == [5, 4, 3]
    assert numbers(dataset.log(since="2100-01-01")) == []
    assert numbers(dataset.log(until="1w")) == [6, 5, 4, 3, 2, 1]
    for bad in ({"author": "("}, {"grep": "["}, {"since": "yesterday"}, {"until": "2026-13-01"}):
        with pytest.raises(BadInput):
            dataset.log(**bad)  # type: ignore[arg-type]


def test_times_are_days_minutes_or_ages() -> None:
    assert instant("2026-11-01T12:00") == 1793534400 * SECOND
    assert instant("2h") - instant("3h") == pytest.approx(3600 * SECOND, abs=SECOND)
    assert instant("1w") - instant("8d") == pytest.approx(86400 * SECOND, abs=SECOND)


def test_by_path(dataset: Dataset) -> None:
    assert numbers(dataset.log(path="s0")) == numbers(dataset.log(path="zarr/s0")) == [4, 3, 2, 1]
    assert numbers(dataset.log(path="s0", all=True)) == [7, 4, 3, 2, 1]
    assert numbers(dataset.log(path="s0", first_parent=True)) == [3, 2, 1]
    assert numbers(dataset.log(path="files")) == [6, 5]
    assert numbers(dataset.log(path="files/notes")) == numbers(dataset.log(path="files/notes/a.txt")) == [5]
    assert numbers(dataset.log(path="zarr/zarr.json")) == [1]
    for none in ("s1", "files/nope", "files/notes/a.txt/b"):
        with pytest.raises(NotFound, match="ever had"):
            dataset.log(path=none)


def test_by_box(dataset: Dataset) -> None:
    near, far = Box((0, 0, 0), (4, 4, 4)), Box((9, 9, 9), (10, 10, 10))
    assert numbers(dataset.log(path="s0", box=near)) == [2, 1]
    assert numbers(dataset.log(path="s0", box=far)) == [3, 1]
    assert numbers(dataset.log(path="s0", box=Box((0, 0, 0), (8, 8, 16)))) == [4, 2, 1]
    assert numbers(dataset.log(path="s0", box=Box((0, 8, 0), (8, 9, 8)), all=True)) == [7, 1]
    for bad in ({"path": "s0", "box": Box((0,), (1,))}, {"box": near}, {"path": "files/notes", "box": near}):
        with pytest.raises(BadInput):
            dataset.log(**bad)  # type: ignore[arg-type]


def test_a_path_that_went_came_back_or_lost_what_is_above_it(tmp_path: Path) -> None:
    with new_store(tmp_path / "store") as store:
        dataset = store.create_dataset("cells")
        write_version(dataset, volume(SHAPE), path="labels/a/s0", time_ns=when(1))

        def commit(number: int, *, gone: str = "", put: str = "") -> None:
            with VersionWriter(dataset, "main", number - 1) as writer:
                if gone:
                    writer.remove_subtree(gone)
                if put:
                    writer.put(put, b"x")
                writer.publish("x", "t", when(number))

        commit(2, gone="zarr/labels")
        commit(3, put="files/labels/a/s0")
        write_version(dataset, volume(SHAPE, 4), path="labels/a/s0", parent=3, created=True, time_ns=when(4))
        commit(5, gone="zarr/labels/a")
        commit(6, put="zarr/labels/other.txt")
        commit(7, gone="zarr/labels")
        assert numbers(dataset.log(path="labels/a/s0")) == [5, 4, 2, 1]
        assert numbers(dataset.log(path="labels")) == [7, 6, 5, 4, 2, 1]
        assert numbers(dataset.log(path="labels/a/s0", box=Box((0, 0, 0), (1, 1, 1)))) == [5, 4, 2, 1]


def test_an_image_is_meant_by_its_s0(dataset: Dataset) -> None:
    raw = group_zarr_json(
        {
            "ome": {
                "version": "0.5",
                "multiscales": [
                    {
                        "axes": [{"name": name, "type": "space"} for name in "zyx"],
                        "datasets": [
                            {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}
                        ],
                    }
                ],
            }
        }
    )
    with VersionWriter(dataset, "main", 6) as writer:
        writer.put("zarr/zarr.json", raw)
        writer.publish("an image", "t", when(8))
    assert numbers(dataset.log(path="", box=Box((9, 9, 9), (10, 10, 10)))) == [3, 1]


@pytest.mark.parametrize("path", ["s0", "files/notes"])
def test_no_manifest_is_read_for_a_path_or_a_box(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(Manifest, "from_bytes", no_manifest)
    assert list(dataset.log(path=path))
    assert list(dataset.log(path="s0", box=Box((0, 0, 0), (1, 1, 1))))


@pytest.mark.parametrize("path", ["s0", "zarr", "files", "files/notes"])
def test_what_changed_at_a_path_is_counted_from_the_index_as_manifests_have_it(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    key = path if "/" in path or path in ("zarr", "files") else f"zarr/{path}"
    every = numbers(dataset.log(all=True))
    expected = {number: dataset.version(number).changes().nodes for number in every}
    monkeypatch.setattr(Manifest, "from_bytes", no_manifest)
    found = dataset.changes_below(path, every)
    assert any(found.values())
    for number in every:
        inside = {
            place: each for place, each in expected[number].items() if place == key or place.startswith(f"{key}/")
        }
        assert {place: each for place, each in found[number].items() if place in inside} == inside, number
        assert path != "zarr" or found[number] == inside


def no_manifest(*_: object, **__: object) -> None:
    raise AssertionError("a manifest was read")


def counted(dataset: Dataset, **asked: object) -> int:
    before = dataset.catalog.statements
    assert list(dataset.log(**asked))  # type: ignore[arg-type]
    return dataset.catalog.statements - before


def test_what_a_path_costs_follows_its_changes_and_not_the_versions(tmp_path: Path) -> None:
    with new_store(tmp_path / "store") as store:
        dataset = store.create_dataset("cells")
        write_version(dataset, volume(SHAPE), time_ns=when(1))
        touch(dataset, 1, (0, 0, 0))
        asked = [{"path": "s0"}, {"path": "s0", "box": Box((0, 0, 0), (1, 1, 1))}, {"path": "files/n0"}]
        for number in range(2, 40):
            with VersionWriter(dataset, "main", number) as writer:
                writer.put(f"files/n{number - 2}", np.int64(number).tobytes())
                writer.publish("more", "t", when(number + 1))
            if number == 3:
                few = [(counted(dataset, **each), counted(dataset, **each)) for each in asked]
        many = [(counted(dataset, **each), counted(dataset, **each)) for each in asked]
        assert [warm for _, warm in many] == [warm for _, warm in few]


def test_a_log_takes_no_more_than_is_asked_for(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = dataset.graph
    looked: list[int] = []
    info = type(graph).info

    def counting(self: object, number: int) -> object:
        looked.append(number)
        return info(self, number)  # type: ignore[arg-type]

    monkeypatch.setattr(type(graph), "info", counting)
    assert next(dataset.log()).number == 6
    assert set(looked) <= {6, 5}


def test_a_log_of_a_small_box_looks_at_no_change_elsewhere(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor at a list of what each version changed: that costs by the versions."""

    def looked(_: bytes) -> list[bytes]:
        raise AssertionError("the blocks of a version were asked for")

    monkeypatch.setattr(path_changes, "unpack_blocks", looked)
    assert numbers(dataset.log(path="s0", box=Box((0, 0, 0), (8, 8, 16)))) == [4, 2, 1]
    assert numbers(dataset.log(path="s0", box=Box((0, 8, 0), (8, 9, 8)), all=True)) == [7, 1]


@pytest.mark.parametrize("few", [0, 64])
def test_a_box_of_any_size_gives_the_same_either_way(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(path_changes, "_FEW_BLOCKS", few)
    assert numbers(dataset.log(path="s0", box=Box((0, 0, 0), (16, 16, 16)), all=True)) == [7, 4, 3, 2, 1]
    assert numbers(dataset.log(path="s0", box=Box((0, 0, 0), (3, 3, 3)), all=True)) == [2, 1]
    assert numbers(dataset.log(path="s0", box=Box((8, 8, 8), (400, 400, 9)), all=True)) == [3, 1]
