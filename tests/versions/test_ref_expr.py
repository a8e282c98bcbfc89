"""Names for versions: every form leads to one version, or to a line that says why not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.kits.stores import SECOND, new_store, volume, write_version
from volfs.errors import BadInput, NotFound
from volfs.model.graph import VersionGraph, VersionInfo
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.dataset import Dataset

DAY = 86400
FIRST = int(datetime(2026, 11, 1, 9, tzinfo=UTC).timestamp()) * SECOND


@contextmanager
def made(root: Path) -> Iterator[Dataset]:
    """v1 to v3 on main, a day apart, from 2026-11-01 09:00; v4 on exp at v2; v5 merges it into main."""
    with new_store(root) as store:
        dataset = store.create_dataset("cells")
        for number in range(3):
            write_version(dataset, volume((8, 8, 8), number), parent=number, time_ns=FIRST + number * DAY * SECOND)
        dataset.create_branch("exp", "v2")
        write_version(dataset, volume((8, 8, 8), 9), parent=2, branch="exp", time_ns=FIRST + 10 * DAY * SECOND)
        with VersionWriter(dataset, "main", 3, extra_parents=(4,)) as writer:
            writer.put("files/merged", b"")
            writer.publish("merge", "tester", FIRST + 20 * DAY * SECOND)
        dataset.create_tag("paper", "v1")
        yield dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[Dataset]:
    with made(tmp_path / "store") as dataset:
        yield dataset


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    """For tests that change nothing."""
    with made(tmp_path_factory.mktemp("refs") / "store") as dataset:
        yield dataset


@pytest.mark.parametrize(
    ("ref", "number"),
    [
        *(("main", 5), ("exp", 4), ("paper", 1), ("latest", 5), ("v3", 3)),
        *(("main~", 3), ("main~1", 3), ("main~3", 1), ("main^", 3), ("main^1", 3), ("main^2", 4), ("main^0", 5)),
        *(("main^2~", 2), ("latest^2^", 2), ("main~1~1", 2), ("exp~2", 1)),
        *(("main@2026-11-02", 1), ("main@2026-11-02T09:00", 2), ("main@2026-11-02T08:59", 1), ("main@2026-11-03", 2)),
        *(("main@2030-01-01", 5), ("main^2@2026-11-05", 2), ("exp@2026-11-11T09:00:00", 4), ("main@2026-11-04~1", 2)),
        *(("@2026-11-02", 1), ("2026-11-02", 1), ("2026-11-02T09:00", 2)),
    ],
)
def test_every_form_names_its_version(shared: Dataset, ref: str, number: int) -> None:
    assert shared.resolve(ref) == number


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("main^3", "v5 has 2 parents"),
        ("v2^2", "v2 has one parent"),
        ("v1^", "v1 has no parent"),
        ("v1~", "v1 has 0 versions before it"),
        ("main@2026-11-01", "all versions before it are younger"),
        ("HEAD", "has the branch's name, such as main"),
        ("HEAD~2", "has the branch's name, such as main"),
        ("0123456789", "no branch, tag, remote branch or version '0123456789': there is exp, main, paper"),
        ("v9~1", "has no version v9"),
        ("nope^2", "no branch, tag, remote branch or version 'nope'"),
    ],
)
def test_what_names_nothing_says_so_in_a_line(shared: Dataset, ref: str, says: str) -> None:
    with pytest.raises(NotFound) as refused:
        shared.resolve(ref)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_the_first_digits_of_a_content_id_name_its_version_and_names_of_refs_win(dataset: Dataset) -> None:
    for info in dataset.versions():
        for digits in (info.content_id, info.content_id[:8], info.content_id[:8].upper(), info.content_id[:13]):
            assert dataset.resolve(digits) == info.number
    assert dataset.resolve(f"{dataset.info(5).content_id[:9]}^2") == 4
    with pytest.raises(NotFound):
        dataset.resolve(dataset.info(1).content_id[:7])
    own = dataset.info(1).content_id[:10]
    dataset.create_branch(own, "v3")
    assert dataset.resolve(own) == 3 and dataset.resolve(own + dataset.info(1).content_id[10]) == 1


def test_digits_that_begin_several_ids_list_them(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, twins = VersionGraph(), {2: "12345678aa" + "0" * 54, 3: "12345678bb" + "0" * 54}
    for info in dataset.versions():
        graph.add(replace(info, content_id=twins.get(info.number, info.content_id)))
    monkeypatch.setattr(dataset.catalog, "graph", lambda _: graph)
    with pytest.raises(BadInput) as refused:
        dataset.resolve("12345678")
    assert "v2 (12345678aa" in str(refused.value) and "v3 (12345678bb" in str(refused.value)
    assert dataset.resolve("12345678b") == 3


def test_latest_is_decided_in_one_place(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dataset, "newest", lambda self: 3)
    assert dataset.resolve("latest") == 3 and dataset.resolve("latest~") == 2
    latest = dataset.latest()
    assert latest is not None and latest.number == 3


def test_an_empty_dataset_has_no_version_to_name(tmp_path: Path) -> None:
    with new_store(tmp_path / "store") as store:
        dataset = store.create_dataset("cells")
        assert dataset.latest() is None
        for ref in ("main", "latest", "main~", "@2026-11-01", "main^2"):
            with pytest.raises(NotFound):
                dataset.resolve(ref)


@pytest.mark.parametrize("length", [1, 2, 7, 1000])
def test_a_time_is_found_by_halving(length: int) -> None:
    graph, looked = VersionGraph(), 0
    for number in range(1, length + 1):
        parents = (number - 1,) if number > 1 else ()
        graph.add(VersionInfo(number, parents, 1, number, number * 10, "", "", f"{number:064x}"))

    class Counting(VersionGraph):
        def ancestor(self, number: int, back: int) -> int:
            nonlocal looked
            looked += 1
            return super().ancestor(number, back)

    counting = Counting()
    counting.__dict__ |= graph.__dict__
    for number in {1, length // 2 or 1, length}:
        looked = 0
        assert counting.as_of(length, number * 10) == counting.as_of(length, number * 10 + 9) == number
        assert looked <= 2 * (length.bit_length() + 2)
    with pytest.raises(NotFound):
        counting.as_of(length, 9)
