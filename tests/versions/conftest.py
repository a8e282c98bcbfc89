"""A new store with the dataset ``cells``, for the tests of its versions and branches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from volfs import init_store, open_store
from volfs.versions.branch import Branch
from volfs.versions.check.fsck import fsck
from volfs.versions.dataset import Dataset
from volfs.versions.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with init_store(tmp_path / "store") as store:
        yield store


@pytest.fixture
def stays_whole(store: Store) -> Iterator[None]:
    """fsck finds nothing in the store after the test."""
    yield
    with open_store(store.path, read_only=True) as looking:
        assert fsck(looking).findings == []


@pytest.fixture
def dataset(store: Store) -> Dataset:
    return store.create_dataset("cells")


@pytest.fixture
def branch(dataset: Dataset) -> Branch:
    return dataset.branch("main")
