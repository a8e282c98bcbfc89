"""What every :class:`~volfs.versions.inventory.Inventory` must do, as tests to run against one of one's own::

    class TestMyInventory(InventoryConformance):
        @pytest.fixture
        def inventory(self, tmp_path):
            return MyInventory(...)          # no dataset

pytest collects the class and runs each method against a new, empty inventory.
"""

from __future__ import annotations

import time

import pytest

from volfs.errors import AlreadyThere, Busy, NotFound
from volfs.model.refs import RefKind
from volfs.storage.backend import read_object
from volfs.storage.store_layout import DATASET_JSON, VERSIONS
from volfs.testing.waiting import PATIENCE
from volfs.versions.dataset_file import DatasetFile, new_id
from volfs.versions.inventory import Inventory
from volfs.versions.ledger import RefRecord

_APART = 0.05
"""Seconds between two changes that any medium tells apart."""

ID = "0123456789abcdef" * 4


def make(inventory: Inventory, name: str, *, unfinished: bool = False) -> DatasetFile:
    """A new dataset, by its document."""
    file = DatasetFile(name, new_id(), 1, "main")
    with inventory.locked(PATIENCE), inventory.making(file, unfinished=unfinished):
        pass
    return file


def remove(inventory: Inventory, name: str) -> None:
    """A dataset with everything in it."""
    with inventory.locked(PATIENCE):
        inventory.remove(name)
    inventory.reclaim()


class InventoryConformance:
    """The tests. A subclass gives the fixture ``inventory``."""

    @pytest.fixture
    def inventory(self) -> Inventory:
        raise NotImplementedError("a subclass says which inventory is tested")

    def test_a_new_one_has_no_dataset(self, inventory: Inventory) -> None:
        assert inventory.names() == []
        with pytest.raises(NotFound):
            DatasetFile.read(inventory.backend("cells"), "cells")
        assert inventory.ledger("cells").names(RefKind.BRANCH) == []

    def test_a_dataset_is_made_whole(self, inventory: Inventory) -> None:
        made = make(inventory, "cells")
        assert inventory.names() == ["cells"]
        assert DatasetFile.read(inventory.backend("cells"), "cells") == made
        ledger = inventory.ledger("cells")
        empty: dict[RefKind, list[str]] = {kind: [] for kind in RefKind}
        assert {kind: ledger.names(kind) for kind in RefKind} == {**empty, RefKind.BRANCH: ["main"]}
        assert ledger.ref(RefKind.BRANCH, "main") == RefRecord(0)
        assert ledger.versions() == [] == ledger.drafts() and list(ledger.strays()) == []
        assert list(inventory.layout("cells").workings.iterdir()) == []

    def test_its_objects_are_those_of_its_versions(self, inventory: Inventory) -> None:
        make(inventory, "cells")
        ledger, objects = inventory.ledger("cells"), inventory.backend("cells").below(VERSIONS)
        with ledger.locked(PATIENCE):
            draft = ledger.reserve(1)
        batch = objects.batch(draft.folder)
        with batch.open("x") as out:
            out.write(b"bytes")
        with ledger.locked(PATIENCE):
            ledger.publish(
                draft,
                branch="main",
                expected=0,
                content_id=ID,
                sizes=batch.sync(),
                index=lambda: None,
                indexed=lambda: False,
            )
        assert inventory.ledger("cells").versions() == [1]
        assert read_object(inventory.backend("cells"), f"{VERSIONS}/00000001/x") == b"bytes"

    def test_a_name_is_there_once(self, inventory: Inventory) -> None:
        made, other = make(inventory, "cells"), make(inventory, "mito")
        with pytest.raises(AlreadyThere):
            make(inventory, "cells")
        assert inventory.names() == ["cells", "mito"]
        assert DatasetFile.read(inventory.backend("cells"), "cells") == made
        assert DatasetFile.read(inventory.backend("mito"), "mito") == other

    def test_while_it_is_made_nobody_else_changes_its_refs(self, inventory: Inventory) -> None:
        with inventory.locked(PATIENCE), inventory.making(DatasetFile("cells", new_id(), 1, "main")):
            assert inventory.names() == ["cells"]
            with pytest.raises(Busy), inventory.ledger("cells").locked(0):
                pass
        with inventory.ledger("cells").locked(PATIENCE):
            pass

    def test_one_whose_making_fails_never_was(self, inventory: Inventory) -> None:
        for unfinished in (False, True):
            file = DatasetFile("cells", new_id(), 1, "main")
            with (
                pytest.raises(ZeroDivisionError),
                inventory.locked(PATIENCE),
                inventory.making(file, unfinished=unfinished),
            ):
                raise ZeroDivisionError
            assert inventory.names() == []
            assert inventory.backend("cells").stat(DATASET_JSON) is None
            assert not inventory.layout("cells").root.exists()
        make(inventory, "cells")

    def test_a_dataset_that_is_removed_is_gone_and_its_name_is_free(self, inventory: Inventory) -> None:
        make(inventory, "cells")
        make(inventory, "mito")
        inventory.backend("cells").put("versions/x", b"1")
        inventory.layout("cells").working("main").root.mkdir()
        known = inventory.backend("cells"), inventory.ledger("cells")
        remove(inventory, "cells")
        remove(inventory, "never")
        assert inventory.names() == ["mito"]
        with pytest.raises(NotFound):
            read_object(known[0], DATASET_JSON)
        assert not inventory.layout("cells").root.exists()
        made = make(inventory, "cells")
        assert DatasetFile.read(known[0], "cells") == made, "who knew the old one finds another"
        assert list(inventory.backend("cells").list(VERSIONS)) == []
        assert list(inventory.layout("cells").workings.iterdir()) == []

    def test_what_is_unfinished_is_left_alone_while_its_maker_lives(self, inventory: Inventory) -> None:
        make(inventory, "cells", unfinished=True)
        make(inventory, "mito")
        for _ in range(2):
            with inventory.locked(PATIENCE):
                assert inventory.sweep() == []
            inventory.reclaim()
            assert inventory.names() == ["cells", "mito"]
            inventory.finish("cells")
        remove(inventory, "cells")
        inventory.finish("cells")
        assert inventory.names() == ["mito"]

    def test_the_stamp_changes_as_datasets_come_and_go(self, inventory: Inventory) -> None:
        seen = [inventory.stamp()]
        for change in (lambda: make(inventory, "cells"), lambda: remove(inventory, "cells")):
            time.sleep(_APART)
            change()
            seen.append(inventory.stamp())
            assert seen[-1] not in seen[:-1]
            assert inventory.stamp() == seen[-1]

    def test_one_at_a_time_makes_datasets(self, inventory: Inventory) -> None:
        with inventory.locked(PATIENCE), pytest.raises(Busy), inventory.locked(0):
            pass
        with inventory.locked(PATIENCE):
            pass
