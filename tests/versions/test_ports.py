"""The three ports are enough: a store whose datasets, bytes, refs and numbers are in memory is as good as any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.kits.stores import array_json, chunk, meta_of, tree_of, volume, voxels_of, write_version
from volfs import _settle
from volfs.catalog import Catalog
from volfs.errors import AlreadyThere, Busy, Conflict, Damaged, NotFound
from volfs.model.bounded_map import Caches
from volfs.model.metadata import group_zarr_json
from volfs.model.refs import RefKind
from volfs.python.face import Face
from volfs.storage.backend import read_document
from volfs.storage.claim import DAY_SECONDS
from volfs.storage.reserve import Reserve
from volfs.storage.store_layout import DATASET_JSON, StoreLayout, version_dir_name
from volfs.testing.inventory_conformance import make, remove
from volfs.testing.memory_inventory import MemoryInventory
from volfs.versions.access import Access
from volfs.versions.check.fsck import fsck, rebuild_catalog
from volfs.versions.commit.placement import place
from volfs.versions.commit.recover import recover
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.committed.version_files import VersionFiles, read_manifest, read_version
from volfs.versions.dataset import Dataset
from volfs.versions.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """One that has a place on disk for working copies and the catalog, and for nothing else."""
    layout, caches = StoreLayout(tmp_path / "store"), Caches()
    inventory = MemoryInventory(layout.datasets)
    layout.datasets.mkdir(parents=True)
    catalog = Catalog.open(layout.catalog, create=True, store="")
    args = layout, "", inventory, catalog, layout.catalog, caches, _settle, Face(), Reserve([]), DAY_SECONDS, None
    with Store(*args) as store:
        yield store
    assert not layout.volfs_json.exists() and not layout.lock.exists()


def on_disk(dataset: Dataset) -> list[str]:
    """What the dataset's directory holds besides working copies."""
    return sorted(path.name for path in dataset.layout.root.iterdir() if path != dataset.layout.workings)


def test_what_is_committed_is_read_back_and_nothing_of_it_is_on_disk(dataset: Dataset) -> None:
    branch, voxels = dataset.branch("main"), volume((16, 24, 40))
    group = zarr.open_group(branch.zarr_store(), mode="a")
    array = group.create_array("s0", shape=voxels.shape, chunks=(8, 8, 8), dtype=voxels.dtype, fill_value=0)
    array[...] = voxels
    with branch.writing():
        branch.put("files/notes.txt", b"first")
    first = branch.commit("first")
    changed = voxels.copy()
    changed[:8, :8, :8] = 7
    array[:8, :8, :8] = 7
    second = branch.commit("second")
    assert [info.message for info in dataset.versions()] == ["first", "second"]
    for info, expected in ((first, voxels), (second, changed)):
        version = dataset.version(info.number)
        np.testing.assert_array_equal(voxels_of(version), expected)
        np.testing.assert_array_equal(zarr.open_group(version.zarr_store(), mode="r")["s0"][...], expected)
        assert version.read("files/notes.txt") == b"first"
    np.testing.assert_array_equal(voxels_of(branch), changed)
    files = VersionFiles.of(dataset.objects, second.number)
    assert read_version(files).info.content_id == second.content_id
    assert [record.chunk for record in read_manifest(files)] == [(0, 0, 0)]
    assert version_dir_name(2) + "/zarr/s0/zarr.json" in list(dataset.objects.list())
    assert on_disk(dataset) == []


def test_side_files_keep_their_times_and_large_ones_are_read_piece_by_piece(dataset: Dataset) -> None:
    large = np.random.default_rng(0).bytes(3 << 20)
    with VersionWriter(dataset, "main", 0) as writer:
        writer.put("files/large", large, mode=0o600, mtime_ns=5)
        writer.publish("large")
    version = dataset.version(1)
    assert version.read("files/large", 1_500_000, 900_000) == large[1_500_000:2_400_000]
    info = version.stat("files/large")
    assert info is not None and (info.mode, info.mtime_ns) == (0o600, 5)
    assert version.read_resident("files/large") == large


def test_refs_are_the_ledgers(dataset: Dataset) -> None:
    write_version(dataset, volume((8, 8, 8)))
    dataset.create_tag("paper", "main")
    dataset.create_branch("exp", "paper")
    write_version(dataset, volume((8, 8, 8), 1), parent=1, branch="exp")
    assert dataset.branches() == {"exp": 2, "main": 1}
    assert dataset.tags() == {"paper": 1}
    assert dataset.resolve("exp~1") == 1
    dataset.delete_branch("exp")
    dataset.delete_tag("paper")
    assert dataset.ledger.names(RefKind.BRANCH) == ["main"] and dataset.ledger.names(RefKind.TAG) == []
    with pytest.raises(NotFound):
        dataset.branch("exp")
    dataset.set_access(Access(mode=0o750))
    assert dataset.access == Access(mode=0o750)
    assert read_document(dataset.backend, DATASET_JSON)["id"]
    assert on_disk(dataset) == []


def test_a_version_that_comes_too_late_goes_on_top_or_to_a_branch_of_its_own(dataset: Dataset) -> None:
    voxels = volume((16, 16, 16))
    write_version(dataset, voxels)
    late = [VersionWriter(dataset, "main", 1) for _ in range(2)]
    for writer, where in zip(late, ("other", "s0"), strict=True):
        raw = array_json(voxels, (8, 8, 8))
        array = writer.array(where, raw, created=where == "other")
        array.put((0, 0, 0), chunk(meta_of(raw), voxels + 1, (0, 0, 0)))
        writer.prepare(f"late {where}")
    write_version(dataset, voxels + 2, parent=1, coords=[(0, 0, 0)])
    on_top, aside = (place(writer) for writer in late)
    assert (on_top.branch, aside.branch) == ("main", "import-v3")
    assert dataset.version(on_top.number).info.parents == (2,) or dataset.version(on_top.number).info.parents == (4,)
    np.testing.assert_array_equal(
        voxels_of(dataset.version(on_top.number), "other")[:8, :8, :8], voxels[:8, :8, :8] + 1
    )
    np.testing.assert_array_equal(voxels_of(dataset.version(on_top.number))[:8, :8, :8], voxels[:8, :8, :8] + 2)
    np.testing.assert_array_equal(voxels_of(dataset.version(aside.number))[:8, :8, :8], voxels[:8, :8, :8] + 1)
    assert not dataset.ledger.drafts()
    assert on_disk(dataset) == []


def test_a_commit_that_fails_leaves_nothing_and_loses_nothing(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version(dataset, volume((8, 8, 8)))
    before = list(dataset.objects.list())
    branch = dataset.branch("main")
    with branch.writing():
        branch.put("files/a", b"a")

    def fail(*args: object, **kwargs: object) -> None:
        raise Conflict("made up")

    monkeypatch.setattr(dataset.store.catalog, "index_version", fail)
    with pytest.raises(Conflict, match="made up"):
        branch.commit("fails")
    monkeypatch.undo()
    assert list(dataset.objects.list()) == before
    assert branch.read("files/a") == b"a"
    assert branch.commit("works").number == 2
    assert tree_of(dataset.version(2))["files/a"] == b"a"


def test_a_check_reads_all_of_it_and_finds_what_is_wrong(store: Store, dataset: Dataset) -> None:
    write_version(dataset, volume((16, 16, 16)), files={"files/a": b"a"})
    write_version(dataset, volume((16, 16, 16), 1), parent=1, coords=[(0, 0, 0), (1, 1, 1)])

    def found() -> list[str]:
        return [f"{one.where}: {one.what}" for one in fsck(store).findings]

    assert found() == []
    dataset.objects.put(f"{version_dir_name(1)}/files/a", b"b")
    dataset.objects.put(f"{version_dir_name(1)}/files/b", b"b")
    said = found()
    assert any("files/a" in one and "checksum" in one for one in said)
    assert any("files/b" in one and "no record" in one for one in said)
    with pytest.raises(Damaged):
        dataset.version(1).read("files/a")


def test_the_catalog_is_made_anew_from_it(store: Store, dataset: Dataset) -> None:
    write_version(dataset, volume((16, 16, 16)))
    write_version(dataset, volume((16, 16, 16), 1), parent=1)
    kept = tree_of(dataset.version(2))
    rebuild_catalog(store)
    again = store["cells"]
    assert again is not dataset and again.branches() == {"main": 2}
    assert tree_of(again.version(2)) == kept
    assert group_zarr_json() == again.version(1).read("zarr/zarr.json")
    assert fsck(store).findings == []


def test_datasets_come_and_go(store: Store) -> None:
    for name in ("cells", "mito"):
        write_version(store.create_dataset(name), volume((8, 8, 8)))
    with pytest.raises(AlreadyThere):
        store.create_dataset("cells")
    late = store["cells"]
    late.branch("main").put("files/a", b"uncommitted")
    with pytest.raises(Busy), late.branch("main").writing():
        store.remove_dataset("cells")
    store.remove_dataset("cells")
    assert store.datasets() == ["mito"] and list(store.layout.datasets.iterdir()) == [store["mito"].layout.root]
    with pytest.raises(NotFound):
        late.create_tag("paper", 1)
    made = store.create_dataset("cells")
    with pytest.raises(NotFound, match="another one has its name"):
        late.create_tag("paper", 1)
    assert made.branches() == {"main": 0} and made.branch("main").is_clean()
    for untouched in (True, False):
        with pytest.raises(ZeroDivisionError), store.new_dataset("import") as new:
            if not untouched:
                write_version(new, volume((8, 8, 8)))
            raise ZeroDivisionError
        assert ("import" in store) != untouched
    assert store.datasets() == ["cells", "import", "mito"]
    assert fsck(store).findings == []


def test_what_others_make_and_remove_is_seen_and_an_opening_recovers_it(store: Store) -> None:
    kept = store.inventory
    store.create_dataset("cells")
    make(kept, "theirs")
    store.refresh()
    assert store.datasets() == ["cells", "theirs"] and store["theirs"].branches() == {"main": 0}
    remove(kept, "cells")
    recover(store)
    assert store.datasets() == ["theirs"]
    assert [one.what for one in fsck(store).findings] == []
