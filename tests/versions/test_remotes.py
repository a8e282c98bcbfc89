"""Clone, fetch, pull and push between stores, served by a thread; over ``VOLFS_SSH`` by a process of its own."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import volfs
from tests.kits.remotes import SHAPE, files_of, history, in_this_process, same, served, whole
from tests.kits.stores import START, tree_of, volume, voxels_of, write_version
from volfs import init_store, open_store
from volfs.errors import Absent, AlreadyThere, BadInput, BadName, Conflict, Damaged, NotFound, VolfsError
from volfs.model.refs import RefKind
from volfs.storage.manifest import Manifest, Op
from volfs.versions.committed.version_files import VersionFiles, read_manifest, read_version
from volfs.versions.dataset import Dataset
from volfs.versions.remotes import connection, exchange, server
from volfs.versions.remotes.address import Address
from volfs.versions.remotes.connection import connected
from volfs.versions.store import Store


@pytest.fixture(autouse=True)
def _served_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "connected", in_this_process)
    monkeypatch.setattr(exchange, "connected", in_this_process)


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Store]:
    with init_store(tmp_path / "theirs") as store:
        history(store.create_dataset("cells"))
        yield store


@pytest.fixture
def ours(theirs: Store, tmp_path: Path) -> Iterator[Store]:
    """A clone."""
    volfs.clone(str(theirs.path), tmp_path / "ours")
    with open_store(tmp_path / "ours") as store:
        yield store


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Dataset, Dataset]]:
    """A dataset with one version, and its clone."""
    with init_store(tmp_path / "theirs") as theirs:
        write_version(theirs.create_dataset("cells"), volume(SHAPE), files={"files/a": b"a"}, time_ns=START)
        volfs.clone(str(theirs.path), tmp_path / "ours")
        with open_store(tmp_path / "ours") as ours:
            yield theirs["cells"], ours["cells"]


def extend(dataset: Dataset, seed: int, branch: str = "main", coords: tuple[int, int, int] = (0, 0, 0)) -> int:
    """One more version at a branch's head."""
    head = dataset.branches()[branch]
    return write_version(dataset, volume(SHAPE, seed), parent=head, coords=[coords], branch=branch, message=f"{seed}")


def id_of(dataset: Dataset, ref: str) -> str:
    return dataset.info(dataset.resolve(ref)).content_id


class TestClone:
    def test_it_has_every_version_with_every_key_and_byte(self, theirs: Store, ours: Store) -> None:
        same(theirs["cells"], ours["cells"])
        same(ours["cells"], theirs["cells"])
        whole(ours)

    def test_it_is_the_same_dataset_with_the_branches_of_the_source_as_its_remotes(
        self, theirs: Store, ours: Store
    ) -> None:
        one, other = theirs["cells"], ours["cells"]
        assert other.uuid == one.uuid and other.default_branch == "main"
        assert other.remotes() == {"origin": f"{theirs.path}/cells"}
        refs = other.refs()
        assert set(refs.heads) == {"main"} and set(refs.tags) == {"paper"}
        assert {name: other.info(number).content_id for name, number in refs.remotes.items()} == {
            f"origin/{name}": one.info(number).content_id for name, number in one.branches().items()
        }
        assert id_of(other, "main") == id_of(one, "main") and id_of(other, "paper") == id_of(one, "paper")
        assert id_of(other, "origin/exp") == id_of(one, "exp") and id_of(other, "origin/exp~1") == id_of(one, "exp~1")

    def test_versions_have_the_numbers_of_the_source(self, theirs: Store, ours: Store) -> None:
        assert [(info.number, info.content_id) for info in ours["cells"].versions()] == [
            (info.number, info.content_id) for info in theirs["cells"].versions()
        ]

    def test_the_files_of_each_version_are_those_of_the_source(self, theirs: Store, ours: Store) -> None:
        """Numbers are the same here, so all is but the token of who wrote a version."""
        one, other = (files_of(store["cells"].layout.root / "versions") for store in (theirs, ours))
        assert one.keys() == other.keys()
        assert {name for name in one if one[name] != other[name]} <= {
            name for name in one if name.endswith(("version.json", "manifest.npy.zst"))
        }
        for number in (info.number for info in ours["cells"].versions()):
            manifests = [read_manifest(VersionFiles.of(store["cells"].objects, number)) for store in (theirs, ours)]
            assert sorted(map(repr, manifests[0])) == sorted(map(repr, manifests[1]))

    def test_what_was_private_is_private_in_the_clone(self, ours: Store) -> None:
        for path in ours["cells"].layout.root.rglob("*"):
            if path.name == "key":
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                break
        else:
            raise AssertionError("the private file is not there")

    def test_again_it_is_no_error_and_changes_nothing(self, theirs: Store, ours: Store) -> None:
        before = files_of(ours.path / "datasets")
        done = volfs.clone(str(theirs.path), ours.path)
        assert done["cells"].versions == 0 and not done["cells"].changes
        assert files_of(ours.path / "datasets") == before

    def test_one_dataset_of_several(self, theirs: Store, tmp_path: Path) -> None:
        theirs.create_dataset("other")
        volfs.clone(f"{theirs.path}/other", tmp_path / "one")
        volfs.clone(str(theirs.path), tmp_path / "all")
        with open_store(tmp_path / "one") as one, open_store(tmp_path / "all") as both:
            assert one.datasets() == ["other"] and both.datasets() == ["cells", "other"]
            assert one["other"].branches() == {"main": 0}

    def test_what_cannot_be_cloned_is_one_error_and_makes_nothing(self, theirs: Store, tmp_path: Path) -> None:
        for source in (tmp_path / "nowhere", theirs.path / "nothing", theirs.path / "datasets", tmp_path):
            with pytest.raises(VolfsError) as error:
                volfs.clone(str(source), tmp_path / "new")
            assert len(str(error.value).splitlines()) == 1
            assert not (tmp_path / "new").exists()

    def test_a_dataset_of_that_name_or_id_stays_what_it_is(self, theirs: Store, tmp_path: Path) -> None:
        with init_store(tmp_path / "new") as store:
            store.create_dataset("cells")
        with pytest.raises(AlreadyThere, match="another dataset 'cells'"):
            volfs.clone(str(theirs.path), tmp_path / "new")
        volfs.clone(str(theirs.path), tmp_path / "mine")
        with open_store(tmp_path / "mine") as store:
            (store.path / "datasets" / "cells").rename(store.path / "datasets" / "renamed")
        with open_store(tmp_path / "mine") as store:
            assert store.datasets() == ["renamed"]
            with pytest.raises(AlreadyThere, match="as 'renamed'"):
                volfs.clone(str(theirs.path), tmp_path / "mine")

    def test_it_stays_what_it_is_when_its_catalog_is_made_anew(self, theirs: Store, ours: Store) -> None:
        refs = ours["cells"].refs()
        ours.close()
        for path in ours.path.glob("catalog.sqlite*"):
            path.unlink()
        with open_store(ours.path) as again:
            assert again["cells"].refs() == refs
            same(theirs["cells"], again["cells"])
            whole(again)

    def test_what_was_dropped_at_the_source_is_dropped_in_the_clone(self, tmp_path: Path) -> None:
        """With what went of it absent, shards that have holes, and all the rest in its place."""
        with init_store(tmp_path / "theirs") as theirs:
            cells = theirs.create_dataset("cells")
            number = 0
            for seed, coords in enumerate([None, [(0, 0, 0), (0, 0, 1), (1, 1, 1)], [(0, 0, 0)], [(0, 0, 0)]]):
                files = {"files/a": bytes([seed]) * 5000}
                number = write_version(
                    cells, volume(SHAPE, seed), parent=number, coords=coords, shard_shape=SHAPE, files=files
                )
            cells.drop(1, 2, 3)
            assert theirs.gc(grace=0)[0].freed.payloads == 8
            volfs.clone(str(theirs.path), tmp_path / "ours")
            with open_store(tmp_path / "ours") as ours:
                assert ours["cells"].dropped() == cells.dropped() == {1, 2, 3}
                assert tree_of(ours["cells"]["main"]) == tree_of(cells["main"])
                with pytest.raises(Absent):
                    ours["cells"].version(1).read("files/a")
                whole(ours)
                one, other = (files_of(store["cells"].layout.root / "versions") for store in (theirs, ours))
                assert one.keys() == other.keys()
                assert all(one[name] == other[name] for name in one if "/zarr/" in name or "/files/" in name)


class TestFetchAndPull:
    def test_fetch_moves_what_is_known_of_the_remote_and_nothing_of_ours(self, small: tuple[Dataset, Dataset]) -> None:
        theirs, ours = small
        extend(theirs, 1)
        theirs.create_branch("exp")
        theirs.create_tag("paper", "main")
        done = ours.fetch()
        assert done.versions == 1 and ours.branches() == {"main": 1}
        assert dict(ours.refs().remotes) == {"origin/main": 2, "origin/exp": 2} and ours.tags() == {"paper": 2}
        assert (voxels_of(ours["origin/main"]) == voxels_of(theirs["main"])).all()
        again = ours.fetch()
        assert again.versions == 0 and not again.changes

    def test_fetch_of_one_ref(self, small: tuple[Dataset, Dataset]) -> None:
        theirs, ours = small
        theirs.create_branch("exp")
        extend(theirs, 1)
        extend(theirs, 2, "exp")
        assert ours.fetch(refs=["exp"]).versions == 1
        assert dict(ours.refs().remotes) == {"origin/main": 1, "origin/exp": 2}
        with pytest.raises(NotFound, match="no branch or tag 'nothing': there is exp, main"):
            ours.fetch(refs=["nothing"])

    def test_pull_moves_ours_forward(self, small: tuple[Dataset, Dataset]) -> None:
        theirs, ours = small
        for seed in range(3):
            extend(theirs, seed)
        assert ours.pull().versions == 3
        assert id_of(ours, "main") == id_of(theirs, "main")
        assert not ours.pull().changes

    def test_pull_of_a_branch_that_is_not_ours_yet_makes_it(self, small: tuple[Dataset, Dataset]) -> None:
        theirs, ours = small
        theirs.create_branch("exp")
        extend(theirs, 2, "exp")
        ours.pull(branch="exp")
        assert id_of(ours, "exp") == id_of(theirs, "exp")

    def test_pull_of_diverged_branches_merges_them(self, small: tuple[Dataset, Dataset]) -> None:
        theirs, ours = small
        extend(theirs, 1)
        extend(ours, 2, coords=(1, 1, 1))
        ours.pull()
        merged = ours.info(ours.branches()["main"])
        assert merged.parents == (2, 3) and dict(ours.refs().remotes) == {"origin/main": 3}
        expected = voxels_of(ours["v2"])
        expected[:8, :8, :8] = voxels_of(theirs["main"])[:8, :8, :8]
        assert (voxels_of(ours["main"]) == expected).all()
        ours.push()
        theirs_now = theirs.info(theirs.branches()["main"])
        assert theirs_now.content_id == merged.content_id
        same(ours, theirs)
        for dataset in small:
            whole(dataset.store)  # type: ignore[arg-type]

    def test_pull_of_branches_that_changed_the_same_moves_nothing_and_names_the_command(
        self, small: tuple[Dataset, Dataset]
    ) -> None:
        theirs, ours = small
        extend(theirs, 1)
        extend(ours, 2)
        with pytest.raises(Conflict, match="decide with `volfs merge cells@main origin/main`"):
            ours.pull()
        assert ours.branches() == {"main": 2} and dict(ours.refs().remotes) == {"origin/main": 3}
        same(theirs, ours)

    def test_a_pull_that_would_move_what_is_uncommitted_moves_nothing(self, small: tuple[Dataset, Dataset]) -> None:
        theirs, ours = small
        extend(theirs, 1)
        ours.branch("main").put("zarr/s0/c/0/0/0", ours["main"].read("zarr/s0/c/1/1/1"))
        with pytest.raises(Conflict, match="uncommitted changes to keys that differ in v2: zarr/s0/c/0/0/0"):
            ours.pull()
        assert ours.branches() == {"main": 1}
        ours.branch("main").discard()
        ours.branch("main").put("files/b", b"b")
        ours.pull()
        assert ours.branches() == {"main": 2} and ours["main"].read("files/b") == b"b"

    def test_a_tag_of_ours_is_never_moved(self, small: tuple[Dataset, Dataset]) -> None:
        theirs, ours = small
        ours.create_tag("paper", 1)
        extend(theirs, 1)
        theirs.create_tag("paper", 2)
        (change,) = [change for change in ours.fetch().changes if change.kind is RefKind.TAG]
        assert change.why == "there is another tag of that name" and ours.tags() == {"paper": 1}

    def test_numbers_may_differ(self, small: tuple[Dataset, Dataset]) -> None:
        theirs, ours = small
        ours.create_branch("mine")
        for seed in range(3):
            extend(ours, seed, "mine")
        extend(theirs, 7)
        extend(theirs, 8, coords=(1, 0, 1))
        ours.pull()
        assert ours.branches() == {"main": 6, "mine": 4}
        same(theirs, ours)
        whole(ours.store)  # type: ignore[arg-type]

    def test_a_dataset_without_remotes_says_how_to_name_one(self, small: tuple[Dataset, Dataset]) -> None:
        with pytest.raises(NotFound, match=r"volfs config cells remote\.origin=ADDRESS"):
            small[0].fetch()
        with pytest.raises(NotFound, match="no remote 'lab': there is origin"):
            small[1].fetch("lab")

    def test_another_dataset_of_that_name_is_refused(self, small: tuple[Dataset, Dataset], tmp_path: Path) -> None:
        with init_store(tmp_path / "third") as store:
            store.create_dataset("cells")
        for address in (tmp_path / "third", tmp_path / "third" / "cells"):
            small[1].set_remote("origin", str(address))
            with pytest.raises(NotFound, match="id"):
                small[1].fetch()


class TestPush:
    def test_it_moves_the_branch_there(self, small: tuple[Dataset, Dataset]) -> None:
        theirs, ours = small
        number = extend(ours, 1)
        done = ours.push()
        assert done.versions == 1 and theirs.branches() == {"main": 2}
        assert id_of(theirs, "main") == id_of(ours, "main")
        assert ours.refs().remotes["origin/main"] == number
        same(ours, theirs)
        whole(theirs.store)  # type: ignore[arg-type]
        again = ours.push()
        assert again.versions == 0 and not again.changes

    def test_new_branches_and_tags(self, small: tuple[Dataset, Dataset]) -> None:
        theirs, ours = small
        ours.create_branch("exp")
        extend(ours, 1, "exp")
        ours.create_tag("paper", "exp")
        ours.push(refs=["exp", "paper"])
        assert theirs.branches() == {"main": 1, "exp": 2} and theirs.tags() == {"paper": 2}
        ours.delete_tag("paper")
        ours.create_tag("paper", 1)
        with pytest.raises(AlreadyThere, match="another tag 'paper'"):
            ours.push(refs=["paper"])

    def test_what_is_not_forward_is_refused_and_nothing_moves(self, small: tuple[Dataset, Dataset]) -> None:
        theirs, ours = small
        extend(theirs, 1)
        extend(ours, 2)
        before = files_of(theirs.layout.root)
        for _ in range(2):
            with pytest.raises(Conflict, match="bring them in first, with `volfs pull cells origin`"):
                ours.push()
            assert theirs.branches() == {"main": 2} and files_of(theirs.layout.root) == before
            ours.fetch()

    def test_with_a_lease_it_replaces_what_was_seen_and_nothing_else(self, small: tuple[Dataset, Dataset]) -> None:
        theirs, ours = small
        extend(theirs, 1)
        extend(ours, 2)
        with pytest.raises(Conflict, match="not what was fetched last"):
            ours.push(force_with_lease=True)
        ours.fetch()
        ours.push(force_with_lease=True)
        assert id_of(theirs, "main") == id_of(ours, "main") and theirs.info(2).message == "1"
        whole(theirs.store)  # type: ignore[arg-type]

    def test_a_branch_that_moves_while_versions_come_is_refused_there_too(
        self, small: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        theirs, ours = small
        extend(ours, 2)
        update = exchange._update

        def late(*arguments: object) -> object:
            found = update(*arguments)  # type: ignore[arg-type]
            extend(theirs, 1)
            return found

        monkeypatch.setattr(exchange, "_update", late)
        with pytest.raises(Conflict, match="main: branch 'main' has moved to v2 meanwhile"):
            ours.push()
        assert theirs.info(2).message == "1" and theirs.branches() == {"main": 2}

    def test_uncommitted_changes_there_are_not_moved_under(self, small: tuple[Dataset, Dataset]) -> None:
        theirs, ours = small
        extend(ours, 1)
        theirs.branch("main").put("zarr/s0/c/0/0/0", theirs["main"].read("zarr/s0/c/1/1/1"))
        with pytest.raises(Conflict, match="uncommitted changes"):
            ours.push()
        assert theirs.branches() == {"main": 1}
        theirs.branch("main").discard()
        theirs.branch("main").put("files/b", b"b")
        ours.push()
        assert theirs.branches() == {"main": 2} and theirs["main"].read("files/b") == b"b"

    def test_both_ways_again_and_again(self, small: tuple[Dataset, Dataset]) -> None:
        theirs, ours = small
        for seed in range(4):
            extend(ours, 2 * seed)
            ours.push()
            extend(theirs, 2 * seed + 1, coords=(1, 0, seed % 2))
            ours.pull()
        same(ours, theirs)
        same(theirs, ours)
        for dataset in small:
            whole(dataset.store)  # type: ignore[arg-type]


class TestTaken:
    """Payloads that a version takes from one which is no ancestor of it."""

    def taking(self, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> int:
        """A version on ``main`` that takes a side file and a chunk from ``exp``."""
        from volfs.versions.commit.version_writer import VersionWriter

        dataset.create_branch("exp")
        branch = dataset.branch("exp")
        branch.put("files/big", b"taken" * 999)
        branch.put("zarr/s0/c/1/1/1", dataset["main"].read("zarr/s0/c/0/0/0"))
        owner = branch.commit("the owner").number
        theirs = read_manifest(VersionFiles.of(dataset.objects, owner))
        build = VersionWriter._manifest

        def manifest(self: VersionWriter) -> Manifest:
            from volfs.storage.manifest import ManifestBuilder

            builder = ManifestBuilder()
            for record in [*build(self), *theirs]:
                assert record.payload is not None and record.sha256 is not None
                owned = record.payload.file.startswith(f"{owner:08d}/")
                if record.chunk is None and owned:
                    builder.take(record.name, record.payload, record.sha256, owner)
                elif record.chunk is None:
                    builder.put(record.name, record.payload, record.sha256)
                elif owned:
                    builder.take_chunk(record.name, record.chunk, record.payload, record.sha256, owner)
            return builder.build()

        monkeypatch.setattr(VersionWriter, "_manifest", manifest)
        raw = dataset["main"].read("zarr/s0/zarr.json")
        with VersionWriter(dataset, "main", dataset.branches()["main"]) as writer:
            writer.array("s0", raw, created=False, shard_shape=(8, 8, 8), chunks=np.zeros((0, 3), np.int64))
            number = writer.publish("takes", "tester").number
        monkeypatch.undo()
        assert dataset["main"].read("files/big") == b"taken" * 999
        return number

    def test_what_its_owner_brings_is_taken_from_it(
        self, small: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        theirs, ours = small
        self.taking(theirs, monkeypatch)
        ours.fetch()
        same(theirs, ours)
        ops = read_manifest(VersionFiles.of(ours.objects, ours.refs().remotes["origin/main"])).records["op"].tolist()
        assert ops.count(Op.TAKE) == 2
        whole(ours.store)  # type: ignore[arg-type]

    def test_without_its_owner_it_is_put_as_the_receivers_own(
        self, small: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        theirs, ours = small
        self.taking(theirs, monkeypatch)
        ours.fetch(refs=["main"])
        assert len(ours.versions()) == 2
        assert tree_of(ours["origin/main"]) == tree_of(theirs["main"])
        assert id_of(ours, "origin/main") == id_of(theirs, "main")
        ops = read_manifest(VersionFiles.of(ours.objects, 2)).records["op"].tolist()
        assert ops.count(Op.TAKE) == 0
        whole(ours.store)  # type: ignore[arg-type]
        # From there it goes on as it lies; and when the owner comes, that is whole, too.
        ours.branch("main")
        ours.pull()
        volfs.clone(str(ours.store.path), tmp_path / "third")
        with open_store(tmp_path / "third") as third:
            assert tree_of(third["cells"]["main"]) == tree_of(theirs["main"])
            whole(third)
        ours.fetch()
        same(theirs, ours)
        whole(ours.store)  # type: ignore[arg-type]


class TestAddresses:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("ssh://lab/data/store", "ssh://lab/data/store"),
            ("ssh://me@lab:2222/data/store/cells/", "ssh://me@lab:2222/data/store/cells"),
            ("ssh://lab/~/store", "ssh://lab/~/store"),
            ("/data/store/", "/data/store"),
            ("store", os.path.abspath("store")),
        ],
    )
    def test_what_is_written_is_what_is_read(self, text: str, said: str) -> None:
        assert str(Address.parse(text)) == said == str(Address.parse(said))

    @pytest.mark.parametrize("text", ["", "http://lab/store", "ssh://lab", "ssh:///store", "ssh://-oProxy=x/a", "a\0b"])
    def test_what_is_no_address_is_refused(self, text: str) -> None:
        with pytest.raises(BadInput):
            Address.parse(text)

    def test_ssh_is_run_with_one_quoted_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert Address.parse("ssh://me@lab:22/a b;c").command() == [
            "ssh",
            "-p",
            "22",
            "me@lab",
            "volfs serve-stdio -- '/a b;c'",
        ]
        monkeypatch.setenv("VOLFS_SSH", "rsh -x")
        assert Address.parse("ssh://lab/~/s").command() == ["rsh", "-x", "lab", "volfs serve-stdio -- s"]

    def test_a_remote_is_named_changed_and_removed(self, small: tuple[Dataset, Dataset]) -> None:
        _, ours = small
        ours.set_remote("lab", "ssh://lab/data/store")
        assert set(ours.remotes()) == {"lab", "origin"}
        ours.set_remote("lab", None)
        assert set(ours.remotes()) == {"origin"}
        with pytest.raises(BadName):
            ours.set_remote("a/b", "/x")

    def test_a_program_that_cannot_be_run_or_speaks_otherwise_is_one_error(
        self, small: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, ours = small
        ours.set_remote("origin", "ssh://lab/data/store")
        for program, why in (
            ("no-such-program", "cannot run no-such-program"),
            ("sh -c 'echo no route to host >&2; exit 255' sh", "no route to host"),
            ("sh -c 'echo Welcome to the lab, dear user of this machine' sh", "does not speak as volfs does"),
            ("true", "ended too early"),
        ):
            monkeypatch.setenv("VOLFS_SSH", program)
            with pytest.raises(VolfsError, match=why):
                ours.fetch()

    def test_over_a_program_in_the_place_of_ssh(
        self, small: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Which runs the command in another home, as sshd does."""
        theirs, ours = small
        home = tmp_path / "home"
        home.mkdir()
        script = tmp_path / "as-ssh"
        places = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        script.write_text(f'#!/bin/sh\nshift\ncd {home}\nexec env -i HOME={home} PATH={places} sh -c "$*"\n')
        script.chmod(0o755)
        monkeypatch.setenv("VOLFS_SSH", str(script))
        (home / "store").symlink_to(theirs.store.path)
        for address in (f"ssh://lab{theirs.store.path}", "ssh://me@lab/~/store/cells"):
            ours.set_remote("origin", address)
            extend(theirs, len(address))
            ours.pull()
            extend(ours, len(address) + 1)
            ours.push()
            assert id_of(ours, "main") == id_of(theirs, "main")


def test_another_protocol_or_store_format_is_refused_by_both_ends(
    small: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, _ = small
    for module, name, value in (
        (connection, "PROTOCOL", 99),
        (connection, "FORMAT", 999),
        (server, "PROTOCOL", 99),
        (server, "FORMAT", 999),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            with pytest.raises(VolfsError, match="upgrade"), served(Path(theirs.store.path)):
                pass


def test_nothing_outside_of_the_versions_meant_is_told(small: tuple[Dataset, Dataset]) -> None:
    """Whoever is pushed to may ask for what is pushed, and for nothing else."""
    from volfs.versions.remotes.questions import WantedFile

    theirs, _ = small
    ident = id_of(theirs, "main")
    for wanted, error in (
        (WantedFile(ident, "../../dataset.json", 0), BadInput),
        (WantedFile(ident, "/etc/passwd", 0), BadInput),
        (WantedFile("0" * 64, "version.json", 0), NotFound),
        (WantedFile(ident, "nothing", 0), Damaged),
        (WantedFile(ident, "version.json", 1 << 40), Damaged),
    ):
        with served(Path(theirs.store.path)) as link:
            link.open(theirs.uuid)
            with pytest.raises(error):
                list(link.peer.files([wanted]))


def test_the_process_that_serves_ends_with_who_asked(small: tuple[Dataset, Dataset]) -> None:
    theirs, _ = small
    children = ["pgrep", "-f", "-c", "-P", str(os.getpid()), "serve-stdio"]
    with connected(Address.parse(str(theirs.store.path)), "fetch"):
        assert subprocess.run(children, capture_output=True, text=True, check=False).stdout == "1\n"
    assert subprocess.run(children, capture_output=True, text=True, check=False).stdout == "0\n"


def test_what_is_said_of_a_version_travels_in_it(small: tuple[Dataset, Dataset]) -> None:
    theirs, ours = small
    branch = theirs.branch("main")
    branch.put("files/b", b"b")
    made = branch.commit("with more", meta={"instrument": "SBEM-2"})
    ours.pull()
    assert read_version(VersionFiles.of(ours.objects, 2)).meta == {"instrument": "SBEM-2"}
    assert ours.version(2).info.content_id == made.content_id


class TestNotes:
    def test_they_travel_with_clone_fetch_and_push_also_when_nothing_else_is_new(
        self, small: tuple[Dataset, Dataset], tmp_path: Path
    ) -> None:
        theirs, ours = small
        theirs.add_note("main", "seen there", "Ada")
        assert ours.fetch().notes == 1 and ours.notes("v1") == theirs.notes("v1")
        assert ours.fetch().notes == 0
        ours.add_note("main", "seen here, too", "Bob")
        assert ours.push().notes == 1 and ours.push().notes == 0
        assert (
            [note.text for note in theirs.notes("main")]
            == ["seen there", "seen here, too"]
            == [note.text for note in ours.notes("main")]
        )
        volfs.clone(str(theirs.store.path), tmp_path / "third")
        with open_store(tmp_path / "third") as third:
            assert third["cells"].notes("main") == theirs.notes("main")

    def test_those_on_versions_that_are_not_here_or_not_pushed_stay_behind(
        self, small: tuple[Dataset, Dataset]
    ) -> None:
        theirs, ours = small
        theirs.create_branch("exp")
        theirs.add_note(extend(theirs, 1, "exp"), "of exp")
        assert ours.fetch(refs=["main"]).notes == 0 and not ours.noted()
        ours.create_branch("mine")
        number = extend(ours, 2, "mine")
        ours.add_note(number, "of mine")
        assert ours.push().notes == 0
        assert ours.push(refs=["mine"]).notes == 1 and len(theirs.noted()) == 2
        assert ours.fetch().notes == 1 and len(ours.noted()) == 2

    def test_what_is_damaged_harms_no_other_and_what_is_no_note_is_refused(
        self, small: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from volfs.versions.notes import Note
        from volfs.versions.remotes import questions, supplier

        theirs, ours = small
        number = extend(theirs, 1)
        theirs.add_note(1, "one")
        theirs.add_note(number, "two")
        (theirs.layout.root / "notes" / f"{theirs.info(1).content_id}.json").write_bytes(b"{}")
        assert ours.pull().notes == 1 and [note.text for note in ours.notes("main")] == ["two"]
        ident = ours.info(1).content_id
        for note in (Note(1, "a", ""), Note(1, "a", "b" * 70_000), Note(1, "a", "\0")):
            monkeypatch.setattr(supplier, "offered", lambda *args, note=note: ([(ident, note)], False))
            with pytest.raises(Damaged, match="a note that cannot be one"):
                ours.fetch()
        monkeypatch.setattr(supplier, "offered", lambda *args: ([(ident, Note(1, "a", "again"))], True))
        assert ours.fetch().notes == 1  # whoever goes on sending the same is asked no more
        for facts in (None, [], [ident, True, "a", "b"], ["0", 1, "a", "b"], [ident, -1, "a", "b"], [ident, 1, "a", 2]):
            with pytest.raises(Damaged):
                questions._note(facts)


class TestPushOfADatasetThatTheRemoteLacks:
    @pytest.fixture
    def lab(self, small: tuple[Dataset, Dataset], tmp_path: Path) -> Iterator[Path]:
        init_store(tmp_path / "lab").close()
        small[1].set_remote("lab", str(tmp_path / "lab"))
        yield tmp_path / "lab"

    def test_it_is_made_there_with_its_id_and_branch(self, small: tuple[Dataset, Dataset], lab: Path) -> None:
        _, ours = small
        extend(ours, 1)
        ours.create_tag("paper", "main")
        done = ours.push("lab")
        assert done.made and done.versions == 2
        with open_store(lab) as store:
            assert store["cells"].uuid == ours.uuid and store["cells"].default_branch == "main"
            same(ours, store["cells"])
            assert id_of(store["cells"], "main") == id_of(ours, "main") and not store["cells"].tags()
            whole(store)
        again = ours.push("lab", ["main", "paper"])
        assert not again.made and again.versions == 0 and [change.name for change in again.changes] == ["paper"]

    def test_under_the_name_that_the_address_says(self, small: tuple[Dataset, Dataset], lab: Path) -> None:
        ours = small[1]
        ours.set_remote("lab", f"{lab}/nerves")
        with pytest.raises(NotFound, match="no dataset 'nerves'"):
            ours.fetch("lab")
        ours.push("lab")
        with open_store(lab) as store:
            assert store.datasets() == ["nerves"] and store["nerves"].uuid == ours.uuid

    def test_what_is_refused_makes_nothing(self, small: tuple[Dataset, Dataset], lab: Path, tmp_path: Path) -> None:
        ours = small[1]
        with pytest.raises(NotFound, match="no branch or tag 'nothing'"):
            ours.push("lab", ["nothing"])
        volfs.clone(str(ours.store.path), tmp_path / "part", paths=["zarr/s0/c/0"])
        with open_store(tmp_path / "part") as part:
            part["cells"].set_remote("lab", str(lab))
            with pytest.raises(Absent, match="--whole"):
                part["cells"].push("lab")
        with open_store(lab) as store:
            assert store.datasets() == []
            store.create_dataset("cells")
        with pytest.raises(AlreadyThere, match="another dataset 'cells'"):
            ours.push("lab")

    def test_one_that_is_cut_short_leaves_nothing_or_what_the_next_goes_on_with(
        self, small: tuple[Dataset, Dataset], lab: Path
    ) -> None:
        ours = small[1]
        with served(lab, "push") as link:
            link.create("cells", ours.uuid, "main")
        with open_store(lab) as store:
            assert store.datasets() == []
        with served(lab) as link, pytest.raises(BadInput, match="opened to fetch"):
            link.create("cells", ours.uuid, "main")
        for name, ident, branch in (("../x", ours.uuid, "main"), ("x", "nonsense", "main"), ("x", ours.uuid, "a/../b")):
            with served(lab, "push") as link, pytest.raises(BadInput):
                link.create(name, ident, branch)
        with open_store(lab) as store:
            assert store.datasets() == []
