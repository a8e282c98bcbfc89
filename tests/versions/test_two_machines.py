"""Two machines on one store, each with a catalog of its own, or one with the catalog that lies in the store."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kits import fork_server
from tests.kits.stores import START, volume, write_version
from volfs import init_store, open_store
from volfs.errors import AlreadyThere, Conflict, NotFound, NothingToCommit
from volfs.model.refs import RefKind
from volfs.versions.access import Access
from volfs.versions.branch import Branch
from volfs.versions.check.fsck import fsck
from volfs.versions.commit.recover import look_over, register
from volfs.versions.dataset import Dataset
from volfs.versions.store import Store

SHAPE = (16, 16, 16)


@pytest.fixture(params=["apart", "in the store"])
def machines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """Two stores that are one; the first has the catalog in the store, or both have one of their own."""
    root = tmp_path / "store"
    with init_store(root) as store:
        write_version(store.create_dataset("cells"), volume(SHAPE), time_ns=START)
    ours = tmp_path / "ours.sqlite" if request.param == "apart" else None
    with open_store(root, catalog=ours) as one, open_store(root, catalog=tmp_path / "theirs.sqlite") as other:
        yield one, other


@pytest.fixture
def both(machines: tuple[Store, Store]) -> tuple[Dataset, Dataset]:
    return machines[0]["cells"], machines[1]["cells"]


def extend(dataset: Dataset, seed: int, **options: object) -> int:
    """One more version on the head that the machine believes in."""
    return write_version(
        dataset,
        volume(SHAPE, seed),
        parent=dataset.branches()["main"],
        coords=[(0, 0, 0)],
        **options,  # type: ignore[arg-type]
    )


def test_the_loser_of_a_race_wins_when_it_tries_again(both: tuple[Dataset, Dataset]) -> None:
    for seed in range(3):
        for winner, loser in (both, both[::-1]):
            before = loser.branches()["main"]
            number = extend(winner, seed)
            with pytest.raises(Conflict, match="try again"):
                write_version(loser, volume(SHAPE, seed), parent=before, coords=[(0, 1, 0)])
            assert loser.branches() == {"main": number}
            assert loser.version(number).info.content_id == winner.version(number).info.content_id
            extend(loser, seed + 10)


def test_what_a_dead_machine_published_is_finished_by_one_whose_catalog_knows_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "store"
    with init_store(root) as store:
        write_version(store.create_dataset("cells"), volume(SHAPE), time_ns=START)
    script = (
        "import sys, volfs\n"
        "with volfs.open_store(sys.argv[1]) as store:\n"
        "    branch = store['cells'].branch('main')\n"
        "    branch.put('files/x', b'x')\n"
        "    branch.commit('second')\n"
    )
    env = {**os.environ, "VOLFS_CRASH_AT": "commit.ref"}
    done = fork_server.run([sys.executable, "-c", script, root], env=env, timeout=120, check=False)
    assert done.returncode == -9
    with open_store(root, catalog=tmp_path / "new.sqlite") as store:
        assert store["cells"].branches() == {"main": 2}
        assert store["cells"].version(2).read("files/x") == b"x"
        assert store["cells"].branch("main").is_clean()
    assert not caplog.records


def test_a_commit_goes_onto_the_head_that_the_other_machine_has_made(both: tuple[Dataset, Dataset]) -> None:
    for turn in range(4):
        mine = both[turn % 2].branch("main")
        mine.put(f"files/{turn}", str(turn).encode())
        assert mine.commit(f"turn {turn}").number == turn + 2
    both[0].store.refresh()
    assert [both[0].branch("main").read(f"files/{turn}") for turn in range(4)] == [b"0", b"1", b"2", b"3"]


def test_what_the_other_machine_did_is_seen_by_looking_around(machines: tuple[Store, Store]) -> None:
    for here, there in (machines, machines[::-1]):
        here.refresh()
        assert not here.refresh()
        number = extend(there["cells"], 4)
        there["cells"].create_tag(f"t{number}", number)
        assert here.refresh()
        assert here["cells"].branches() == {"main": number}
        assert here["cells"].tags()[f"t{number}"] == number
        assert here["cells"].version(number).info.message == "made"
        here.refresh()
        assert not here.refresh()


def test_a_branch_that_the_other_machine_made_is_never_made_over(both: tuple[Dataset, Dataset]) -> None:
    mine, theirs = both
    number = extend(theirs, 2)
    theirs.create_branch("exp", number)
    theirs.branch("exp").put("files/precious", b"uncommitted")
    with pytest.raises(AlreadyThere, match="exp"):
        mine.create_branch("exp", 1)
    with pytest.raises(AlreadyThere, match="exp"):
        mine.create_tag("exp", 1)
    assert mine.branch("exp").read("files/precious") == b"uncommitted"
    assert theirs.branch("exp").head.number == number  # type: ignore[union-attr]
    assert mine.branches() == theirs.branches()


def test_who_opens_a_catalog_while_another_process_commits_does_not_take_it_for_another_copys(
    both: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = both
    rows, ident = here.store.catalog.dataset_rows(), here.id
    extend(here, 1)  # by the other process, between two looks of the one that opens
    monkeypatch.setattr(here.store.catalog, "dataset_rows", lambda: rows)
    for look in (register, look_over):
        with here.store.locked():
            look(here.store)
        assert not here.store.broken
        assert here.store.catalog.datasets() == {here.name: ident}


def test_a_branch_is_made_where_the_default_branch_stands_and_not_where_it_stood(both: tuple[Dataset, Dataset]) -> None:
    mine, theirs = both
    number = extend(theirs, 2)
    mine.create_branch("here")
    assert mine.branches() == {"main": number, "here": number}
    later = extend(theirs, 3)
    mine.create_branch("by-name", "main")
    mine.create_tag("before", "main~1")
    assert mine.branches()["by-name"] == later
    assert mine.tags() == {"before": number}


def test_refs_that_the_other_machine_made_can_be_removed_and_made_again(both: tuple[Dataset, Dataset]) -> None:
    mine, theirs = both
    for _ in range(2):
        theirs.create_branch("exp", 1)
        theirs.create_tag("paper", 1)
        mine.delete_branch("exp")
        mine.delete_tag("paper")
        with pytest.raises(NotFound, match="paper"):
            theirs.delete_tag("paper")
        with pytest.raises(NotFound, match="exp"):
            theirs.branch("exp").put("files/a", b"too late")
        with pytest.raises(NotFound, match="exp"):
            theirs.delete_branch("exp")
        assert not theirs.layout.working("exp").root.exists()
    assert fsck(mine.store).findings == []


def test_a_change_to_a_dataset_that_the_other_machine_removed_does_not_bring_its_directory_back(
    both: tuple[Dataset, Dataset],
) -> None:
    here, there = both
    branch = here.branch("main")
    there.store.remove_dataset(there.name)
    with pytest.raises(NotFound):
        branch.working.lock.acquire()
    with pytest.raises(NotFound):
        branch.put("files/late", b"late")
    assert not here.layout.root.exists()


def test_a_dataset_that_the_other_machine_removed_can_be_made_again(machines: tuple[Store, Store]) -> None:
    one, other = machines
    for here, there in (machines, machines[::-1]):
        there.remove_dataset("cells")
        write_version(here.create_dataset("cells"), volume(SHAPE, 5), files={"files/new": b"new"})
        with pytest.raises(AlreadyThere):
            there.create_dataset("cells")
        there.refresh()
        assert there["cells"].version(1).read("files/new") == b"new"
    assert one.datasets() == other.datasets() == ["cells"]


WRITES: dict[str, Callable[[Dataset, Branch], object]] = {
    "tag": lambda dataset, branch: dataset.create_tag("paper", 1),
    "branch": lambda dataset, branch: dataset.create_branch("exp", 1),
    "access": lambda dataset, branch: dataset.set_access(Access(mode=0o777)),
    "put": lambda dataset, branch: branch.put("files/late", b"late"),
    "commit": lambda dataset, branch: branch.commit("late"),
    "discard": lambda dataset, branch: branch.discard(),
    "version": lambda dataset, branch: write_version(dataset, volume(SHAPE, 3), parent=1, coords=[(0, 0, 0)]),
}


@pytest.mark.parametrize("catalogs", ["apart", "one"])
@pytest.mark.parametrize("versions", [0, 1])
@pytest.mark.parametrize("write", WRITES)
def test_who_knows_a_dataset_writes_nothing_into_another_that_has_its_name_now(
    tmp_path: Path, write: str, versions: int, catalogs: str
) -> None:
    """With no version in either, not even a content id tells one from the other."""
    root = tmp_path / "store"
    with init_store(root) as one, open_store(root, catalog=tmp_path / "c" if catalogs == "apart" else None) as other:

        def make(store: Store, seed: int) -> Dataset:
            dataset = store.create_dataset("cells")
            if versions:
                write_version(dataset, volume(SHAPE, seed), time_ns=START)
            return dataset

        make(one, 1)
        other.refresh()
        dataset = other["cells"]
        branch = dataset.branch("main")
        one.remove_dataset("cells")
        made = make(one, 2)
        made.branch("main").put("files/mine", b"mine")
        made.branch("main").close()
        before = sorted(made.layout.root.rglob("*"))
        with pytest.raises((NotFound, NothingToCommit) if write == "commit" and not versions else NotFound):
            WRITES[write](dataset, branch)
        assert sorted(made.layout.root.rglob("*")) == before
        assert made.access == Access()
        assert other["cells"].branch("main").read("files/mine") == b"mine"
        assert other["cells"].branches() == {"main": versions} and other["cells"].tags() == {}
        assert fsck(other).findings == fsck(one).findings == []


def test_a_dataset_that_comes_while_access_is_changed_keeps_its_own(
    both: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = both
    real = mine.check_itself

    def replaced_then() -> None:
        real()
        if not mine.gone and theirs.store["cells"] is theirs:
            theirs.store.remove_dataset("cells")
            theirs.store.create_dataset("cells")

    monkeypatch.setattr(mine, "check_itself", replaced_then)
    with pytest.raises(NotFound, match="another one has its name"):
        mine.set_access(Access(mode=0o777))
    assert theirs.store["cells"].access == Access()


def test_taking_the_lock_costs_no_listing_when_nothing_has_changed(
    both: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = both
    caught: list[Dataset] = []
    monkeypatch.setattr("volfs.versions.dataset.catch_up", lambda dataset, _: caught.append(dataset))
    for place in (mine.layout.versions, mine.layout.retired, *map(mine.layout.refs, RefKind)):
        os.utime(place, ns=(START, START))  # long before now: what comes next must show
    for _ in range(3):
        with mine.locked():
            pass
    assert caught == [mine]
    theirs.create_tag("paper", 1)
    with mine.locked():
        pass
    assert caught == [mine, theirs, mine]


def test_a_reader_of_a_catalog_may_see_a_new_dataset_before_its_maker_tells_the_catalog(
    tmp_path: Path, machines: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = machines[1]
    real = maker.catalog.add_dataset

    def late(name: str, created_ns: int, uuid: str) -> int:
        with open_store(tmp_path / "store", catalog=maker.catalog_path, read_only=True) as reader:
            assert name in reader.datasets()
        return real(name, created_ns, uuid)

    monkeypatch.setattr(maker.catalog, "add_dataset", late)
    write_version(maker.create_dataset("more"), volume(SHAPE, 5), files={"files/new": b"new"})
    assert maker["more"].version(1).read("files/new") == b"new"


def test_a_change_to_a_branch_that_is_being_removed_says_so_and_leaves_nothing(
    both: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = both
    mine.create_branch("exp", 1)
    theirs.store.refresh()
    late = theirs.branch("exp")
    real = late.working.lock._file.try_lock

    def removed_meanwhile(owner: dict[str, object]) -> bool:
        monkeypatch.undo()
        mine.delete_branch("exp")
        return real(owner)

    monkeypatch.setattr(late.working.lock._file, "try_lock", removed_meanwhile)
    with pytest.raises(NotFound, match="exp"):
        late.put("files/a", b"too late")
    assert not mine.layout.working("exp").root.exists()
    assert fsck(mine.store).findings == []
