"""Inventories: the directory's and the memory's keep every promise; a process that dies leaves what is swept."""

from __future__ import annotations

from pathlib import Path

import pytest

from volfs.model.bounded_map import Caches
from volfs.storage.store_layout import StoreLayout
from volfs.testing.inventory_conformance import InventoryConformance, make
from volfs.testing.memory_inventory import MemoryInventory
from volfs.testing.waiting import PATIENCE
from volfs.versions.directory_inventory import DirectoryInventory, make_store


def in_directory(root: Path) -> DirectoryInventory:
    layout = StoreLayout(root)
    if not root.exists():
        make_store(layout)
    return DirectoryInventory(layout, Caches(), 86_400.0)


class TestDirectoryInventory(InventoryConformance):
    @pytest.fixture
    def inventory(self, tmp_path: Path) -> DirectoryInventory:
        return in_directory(tmp_path / "store")


class TestMemoryInventory(InventoryConformance):
    @pytest.fixture
    def inventory(self, tmp_path: Path) -> MemoryInventory:
        return MemoryInventory(tmp_path)


def test_what_a_dead_process_left_unfinished_is_asked_about_and_what_it_left_half_made_goes(tmp_path: Path) -> None:
    dead, other = (in_directory(tmp_path / "store") for _ in range(2))
    make(dead, "cells", unfinished=True)
    dead._unfinished.pop("cells").release()
    (tmp_path / "store/datasets/.mito.partial").mkdir()
    assert other.names() == [".mito.partial", "cells"]
    with other.locked(PATIENCE):
        assert other.sweep() == ["cells"]
        other.finish("cells")
        assert other.sweep() == []
    assert other.names() == ["cells"]


def test_who_finishes_a_dataset_that_was_removed_leaves_another_of_its_name_unfinished(tmp_path: Path) -> None:
    one, other = (in_directory(tmp_path / "store") for _ in range(2))
    make(one, "cells", unfinished=True)
    with other.locked(PATIENCE):
        other.remove("cells")
    make(other, "cells", unfinished=True)
    one.finish("cells")
    assert other.layout("cells").unfinished.exists()
    other.finish("cells")
    assert not other.layout("cells").unfinished.exists()
