"""Opening and making stores, datasets and refs: what is refused, and what the next process finds."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

import volfs
from tests.kits import fork_server
from tests.kits.stores import new_store, volume, write_version
from volfs import open_store
from volfs.errors import (
    AlreadyThere,
    BadInput,
    BadName,
    Busy,
    Conflict,
    NotAllowed,
    NotFound,
    ReadOnly,
    StoreFormat,
)
from volfs.storage.files import FileLock, read_json, write_json
from volfs.testing.waiting import PATIENCE


@pytest.fixture
def dataset(dataset):
    write_version(dataset, volume((16, 16, 16)))
    return dataset


# -- what is a store ----------------------------------------------------------------------------------------------


def test_a_store_from_a_newer_volfs_is_refused_and_says_to_upgrade(tmp_path):
    new_store(tmp_path / "store").close()
    path = tmp_path / "store" / "volfs.json"
    write_json(path, read_json(path) | {"format": 99})
    with pytest.raises(StoreFormat, match=r"format 99.*newer volfs"):
        open_store(tmp_path / "store")


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b'{"format": true}', b'{"format": "1"}'])
def test_what_is_not_a_store_is_refused_in_one_line(tmp_path, content):
    root = tmp_path / "other"
    root.mkdir()
    (root / "photo.jpg").write_bytes(b"x")
    if content is not None:
        (root / "volfs.json").write_bytes(content)
    with pytest.raises(StoreFormat) as caught:
        open_store(root)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in root.iterdir()) == (["photo.jpg"] if content is None else ["photo.jpg", "volfs.json"])


def test_a_store_that_does_not_exist_is_not_made_by_opening_it(tmp_path):
    with pytest.raises(NotFound, match="volfs init"):
        open_store(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with open_store(tmp_path / "nowhere", create=True) as store:
        assert store.datasets() == []


def test_a_store_is_not_made_where_other_things_are(tmp_path):
    (tmp_path / "thing").write_text("mine")
    with pytest.raises(BadInput):
        new_store(tmp_path)
    with pytest.raises(BadInput):
        new_store(tmp_path / "thing")
    new_store(tmp_path / "store").close()
    with pytest.raises(AlreadyThere):
        new_store(tmp_path / "store")


def test_a_store_is_the_same_after_closing_and_opening(tmp_path, store, dataset):
    dataset.create_tag("paper", 1)
    dataset.create_branch("exp", "v1")
    store.close()
    with open_store(tmp_path / "store") as again:
        assert again.id == store.id
        assert again.datasets() == ["cells"]
        assert again["cells"].branches() == {"main": 1, "exp": 1}
        assert again["cells"].tags() == {"paper": 1}
        assert [info.number for info in again["cells"].versions()] == [1]


def test_a_store_opened_read_only_changes_nothing_and_recovers_nothing(tmp_path, store, dataset):
    store.close()
    partial = tmp_path / "store/datasets/cells/versions/.00000007.partial"
    partial.mkdir()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*") if "catalog" not in path.name}
    with open_store(tmp_path / "store", read_only=True) as again:
        cells = again["cells"]
        assert cells.version(1).read("zarr/zarr.json")
        for change in (
            lambda: again.create_dataset("more"),
            lambda: again.remove_dataset("cells"),
            lambda: cells.create_branch("exp"),
            lambda: cells.create_tag("t", 1),
            lambda: cells.delete_tag("t"),
            lambda: cells.branch("main").put("files/x", b"x"),
            lambda: cells.branch("main").commit("no"),
        ):
            with pytest.raises(ReadOnly):
                change()
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*") if "catalog" not in path.name}
    assert before == after


def test_a_lost_catalog_is_made_anew_by_the_next_opening_for_writing(tmp_path, store, dataset):
    dataset.create_tag("paper", 1)
    write_version(dataset, volume((16, 16, 16), 2), parent=1, coords=[(1, 1, 1)])
    infos, graph = dataset.versions(), dataset.graph.at(2)
    store.close()
    for path in (tmp_path / "store").glob("catalog.sqlite*"):
        path.unlink()
    with open_store(tmp_path / "store", read_only=True) as again:
        assert again["cells"].versions() == infos
    assert not (tmp_path / "store/catalog.sqlite").exists()
    with open_store(tmp_path / "store") as again:
        assert again["cells"].versions() == infos
        assert again["cells"].graph.at(2) == graph
        assert again["cells"].tags() == {"paper": 1}


def test_the_catalog_may_lie_elsewhere_and_another_machine_makes_its_own(tmp_path, store, dataset):
    store.close()
    with open_store(tmp_path / "store", catalog=tmp_path / "local.sqlite") as other:
        assert [info.number for info in other["cells"].versions()] == [1]
        assert other["cells"].version(1).read("zarr/zarr.json")
    assert (tmp_path / "local.sqlite").exists()


# -- datasets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".volfs", "a/b", "..", "README.txt", "-x", "a@b", "x" * 129])
def test_names_that_cannot_be_datasets_are_refused(store, name):
    with pytest.raises(BadName):
        store.create_dataset(name)
    assert store.datasets() == []


def test_a_dataset_is_there_once(store):
    store.create_dataset("cells")
    with pytest.raises(AlreadyThere):
        store.create_dataset("cells")
    with pytest.raises(NotFound, match="cells"):
        store["other"]
    assert "cells" in store
    assert "other" not in store


def test_a_removed_dataset_is_gone_for_everyone_and_its_name_is_free(tmp_path, store, dataset):
    with open_store(tmp_path / "store") as other:
        assert other["cells"].version(1)
        store.remove_dataset("cells")
        assert other.datasets() == []
        with pytest.raises(NotFound):
            other["cells"]
        new = store.create_dataset("cells")
        assert new.versions() == []
        assert other["cells"].versions() == []
    assert not [p for p in (tmp_path / "store/datasets").iterdir() if p.name != "cells"]


def test_a_dataset_somebody_writes_to_is_not_removed(store, dataset):
    with dataset.branch("main").writing(), pytest.raises(Busy, match="main"):
        store.remove_dataset("cells")
    assert dataset.version(1).read("zarr/zarr.json")


def test_a_removal_that_was_cut_short_is_finished_by_the_next_opening(tmp_path, store, dataset):
    store.close()
    root = tmp_path / "store/datasets"
    (root / "cells").rename(root / ".cells.abcd.trash")
    (root / ".half.partial/refs").mkdir(parents=True)
    with open_store(tmp_path / "store") as again:
        assert again.datasets() == []
    assert list(root.iterdir()) == []


def test_one_damaged_dataset_harms_no_other(tmp_path, store, dataset):
    store.create_dataset("other")
    store.close()
    (tmp_path / "store/datasets/other/refs/heads/main.json").write_text("{")
    with open_store(tmp_path / "store") as again:
        assert again["cells"].version(1).read("zarr/zarr.json")


# -- refs ---------------------------------------------------------------------------------------------------------


def test_refs_name_versions_as_git_users_expect(dataset):
    write_version(dataset, volume((16, 16, 16), 1), parent=1, coords=[(0, 0, 0)])
    write_version(dataset, volume((16, 16, 16), 2), parent=2, coords=[(0, 0, 0)])
    dataset.create_tag("paper", "main~1")
    dataset.create_branch("exp", "v1")
    expected = {"main": 3, "main~": 2, "main~2": 1, "v2": 2, "latest": 3, "paper": 2, "paper~1": 1, "exp": 1, "v3~~": 1}
    assert {ref: dataset.resolve(ref) for ref in expected} == expected
    assert dataset["v2"].ref == "v2"
    assert dataset["main"].writable
    assert dataset["main~0"] is not None
    assert dataset[None].ref == "main"
    assert dataset["main~1"].ref == "v2"
    for ref in ("nothing", "v9", "main~3", "exp~1"):
        with pytest.raises(NotFound):
            dataset.resolve(ref)


def test_a_branch_without_a_version_says_so(store):
    dataset = store.create_dataset("empty")
    with pytest.raises(NotFound, match="no version yet"):
        dataset.resolve("main")
    with pytest.raises(NotFound, match="no version yet"):
        dataset.resolve("latest")
    assert dataset["main"].head is None
    dataset.create_branch("exp")
    assert dataset.branches() == {"main": 0, "exp": 0}


def test_a_ref_is_there_once_and_is_no_version(dataset):
    dataset.create_branch("exp")
    dataset.create_tag("paper", 1)
    for name in ("exp", "paper", "main"):
        with pytest.raises(AlreadyThere):
            dataset.create_branch(name)
        with pytest.raises(AlreadyThere):
            dataset.create_tag(name, 1)
    for name in ("v3", "latest", "a@b", "a/b", ""):
        with pytest.raises(BadName):
            dataset.create_branch(name)
        with pytest.raises(BadName):
            dataset.create_tag(name, 1)
    with pytest.raises(NotFound):
        dataset.create_tag("late", "v9")
    with pytest.raises(NotFound):
        dataset.create_branch("late", "nothing")


def test_ref_files_and_the_catalog_change_together(tmp_path, dataset):
    heads = tmp_path / "store/datasets/cells/refs/heads"
    dataset.create_branch("exp", 1)
    assert read_json(heads / "exp.json") == {"version": 1, "content_id": dataset.info(1).content_id}
    dataset.delete_branch("exp")
    assert not (heads / "exp.json").exists()
    assert dataset.branches() == {"main": 1}
    dataset.create_tag("paper", 1)
    dataset.delete_tag("paper")
    assert dataset.tags() == {}
    with pytest.raises(NotFound):
        dataset.delete_tag("paper")
    with pytest.raises(NotFound):
        dataset.delete_branch("exp")


def test_a_branch_with_uncommitted_changes_is_removed_only_by_force(dataset):
    dataset.create_branch("exp")
    dataset.branch("exp").put("files/notes.txt", b"mine")
    with pytest.raises(Busy, match="uncommitted"):
        dataset.delete_branch("exp")
    assert dataset.branch("exp").read("files/notes.txt") == b"mine"
    dataset.delete_branch("exp", force=True)
    with pytest.raises(NotFound):
        dataset.branch("exp")
    dataset.create_branch("exp")
    assert dataset.branch("exp").stat("files/notes.txt") is None


def test_the_default_branch_stays(dataset):
    with pytest.raises(NotAllowed):
        dataset.delete_branch("main", force=True)


def test_versions_outlive_their_branch(dataset):
    dataset.create_branch("exp")
    number = write_version(dataset, volume((16, 16, 16), 4), parent=1, branch="exp", coords=[(0, 0, 0)])
    dataset.delete_branch("exp")
    assert dataset.version(number).info.message == "made"


# -- other processes ----------------------------------------------------------------------------------------------


def test_commits_of_other_processes_are_seen_at_once(tmp_path, dataset):
    store = dataset.store
    branch = dataset.branch("main")
    store.refresh()
    assert not store.refresh()
    assert dataset.versions()[-1].number == 1
    generation = branch.generation()
    script = (
        "import volfs, sys\n"
        "with volfs.open_store(sys.argv[1]) as store:\n"
        "    branch = store['cells']['main']\n"
        "    branch.put('files/theirs.txt', b'hello')\n"
        "    branch.commit('theirs')\n"
    )
    fork_server.run([sys.executable, "-c", script, str(tmp_path / "store")], check=True, timeout=PATIENCE)
    assert store.refresh()
    assert not store.refresh()
    assert dataset.resolve("main") == 2
    assert branch.generation() != generation
    assert branch.read("files/theirs.txt") == b"hello"


def test_a_version_made_on_another_machine_is_indexed_by_opening(tmp_path, store, dataset):
    store.close()
    shutil.copytree(tmp_path / "store", tmp_path / "their view", ignore=shutil.ignore_patterns("catalog*"))
    with open_store(tmp_path / "their view") as theirs:
        write_version(theirs["cells"], volume((16, 16, 16), 3), parent=1, coords=[(0, 1, 0)])
    shutil.copytree(tmp_path / "their view/datasets", tmp_path / "store/datasets", dirs_exist_ok=True)
    with open_store(tmp_path / "store") as again:
        assert again["cells"].branches() == {"main": 2}
        assert again["cells"].version(2).info.message == "made"


def test_a_live_writer_is_left_alone_by_another_opening(tmp_path, dataset):
    from volfs.versions.commit.version_writer import VersionWriter

    with VersionWriter(dataset, "main", 1) as writer:
        writer.put("files/a", b"a")
        with open_store(tmp_path / "store") as other:
            assert [info.number for info in other["cells"].versions()] == [1]
        assert writer.publish("alive").number == 2


def test_two_writers_to_one_branch_one_wins_and_the_other_is_told(dataset):
    from volfs.versions.commit.version_writer import VersionWriter

    with VersionWriter(dataset, "main", 1) as one, VersionWriter(dataset, "main", 1) as two:
        one.put("files/a", b"1")
        two.put("files/a", b"2")
        assert {one.number, two.number} == {2, 3}
        two.publish("second")
        with pytest.raises(Conflict, match="moved from v1 to v3"):
            one.publish("first")
    assert dataset.resolve("main") == 3
    assert dataset.version(3).read("files/a") == b"2"
    assert sorted(os.listdir(dataset.layout.versions)) == ["00000001", "00000003"]


def test_nothing_waits_for_ever_on_a_lock_that_a_process_keeps(dataset, monkeypatch):
    monkeypatch.setattr("volfs.versions.dataset._LOCK_PATIENCE", 0.05)
    lock = FileLock(dataset.layout.lock)
    lock.lock({"pid": 77})
    with pytest.raises(Busy, match="pid 77"):
        dataset.create_tag("late", 1)
    lock.release()
    dataset.create_tag("late", 1)


def test_the_public_door_opens_the_same_store(tmp_path, store, dataset):
    store.close()
    with volfs.open_store(tmp_path / "store") as again:
        assert again["cells"]["v1"].stat("zarr/s0/zarr.json") is not None


def test_machines_with_catalogs_of_their_own_see_each_others_commits(tmp_path, store, dataset):
    with open_store(tmp_path / "store", catalog=tmp_path / "theirs.sqlite") as theirs:
        branch = theirs["cells"].branch("main")
        assert branch.head.number == 1
        theirs.refresh()
        assert not theirs.refresh()
        number = write_version(dataset, volume((16, 16, 16), 3), parent=1, coords=[(0, 1, 0)], files={"files/a": b"a"})
        dataset.create_tag("paper", number)
        store.create_dataset("more")
        assert theirs.refresh()
        assert branch.head.number == number
        assert branch.read("files/a") == b"a"
        assert theirs["cells"].tags() == {"paper": number}
        assert theirs.datasets() == ["cells", "more"]
        assert not theirs.refresh()
        branch.put("files/b", b"b")
        branch.commit("from there")
        store.close()
    with open_store(tmp_path / "store") as again:
        assert again["cells"].version(number + 1).read("files/b") == b"b"


def test_two_machines_cannot_both_extend_a_version(tmp_path, store, dataset):
    with open_store(tmp_path / "store", catalog=tmp_path / "theirs.sqlite") as theirs:
        write_version(dataset, volume((16, 16, 16), 3), parent=1, coords=[(0, 1, 0)])
        with pytest.raises(Conflict):  # it has not looked yet
            write_version(theirs["cells"], volume((16, 16, 16), 4), parent=1, coords=[(0, 1, 0)])
        theirs.refresh()
        assert write_version(theirs["cells"], volume((16, 16, 16), 4), parent=2, coords=[(0, 1, 0)]) == 3


def test_what_was_thrown_away_is_deleted_by_the_next_opening_and_is_no_finding(tmp_path, store, dataset):
    from volfs.versions.check.fsck import fsck

    for folder in (dataset.layout.versions, dataset.layout.workings, store.layout.datasets):
        (folder / ".old.1234.trash/deep").mkdir(parents=True)
    assert fsck(store).findings == []
    store.close()
    with open_store(tmp_path / "store"):
        assert not list((tmp_path / "store").rglob("*.trash"))
