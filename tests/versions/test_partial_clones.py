"""Clones of parts of a dataset: what is here is right, what is not is absent, and what is asked for comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import volfs
from tests.kits.remotes import in_this_process, whole
from tests.kits.stores import START, array_at, volume, write_version
from volfs import init_store, open_store
from volfs.errors import Absent, AlreadyThere, BadInput, Damaged, VolfsError
from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.source import ArraySource
from volfs.model.box import Box
from volfs.storage.manifest import Op
from volfs.versions.clone_parts import CloneParts, Part
from volfs.versions.committed.absences import Where, read_codes
from volfs.versions.committed.version_files import VersionFiles, read_manifest
from volfs.versions.dataset import Dataset
from volfs.versions.remotes import connection, exchange
from volfs.versions.snapshot import ArrayNode, Snapshot
from volfs.versions.store import Store

Chunk = tuple[int, str, tuple[int, ...]]
"""Version, array, coordinates."""


@pytest.fixture(autouse=True)
def _served_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "connected", in_this_process)
    monkeypatch.setattr(exchange, "connected", in_this_process)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An image of three levels with a label image, side files, changes on two branches, a merge by reference, a tag."""
    with init_store(tmp_path_factory.mktemp("partial") / "theirs") as store:
        cells = store.create_dataset("cells")
        import_source(
            store, "cells", "", ArraySource(volume((32, 32, 32)), "one"), ImportOptions(chunks=(8, 8, 8), levels=3)
        )
        labels = ArraySource(volume((32, 32, 32), 1, "u4"), "two")
        import_source(store, "cells", "labels/nuclei", labels, ImportOptions(chunks=(8, 8, 8), levels=3))
        branch = cells.branch("main")
        branch.put("files/notes.txt", b"one" * 999)
        branch.put("files/private/key", b"secret")
        branch.working.chmod("files/private/key", 0o600)
        raw = cells["main"].read("zarr/s0/c/3/3/3")
        branch.put("zarr/s0/c/0/0/0", raw)
        branch.put("zarr/s0/c/3/0/0", raw)
        branch.commit("changed")
        cells.create_tag("paper", 2)
        cells.create_branch("exp", 2)
        cells.branch("exp").put("zarr/s0/c/1/1/1", raw)
        cells.branch("exp").put("files/exp.txt", b"exp" * 99)
        cells.branch("exp").commit("elsewhere")
        cells.merge("exp")
        yield store


@pytest.fixture
def clone(source: Store, tmp_path: Path) -> Iterator[Callable[..., Dataset]]:
    """Makes a clone."""
    stores: list[Store] = []

    def make(**options: object) -> Dataset:
        place = tmp_path / f"ours-{len(stores)}"
        volfs.clone(str(source.path), place, **options)  # type: ignore[arg-type]
        stores.append(open_store(place))
        return stores[-1]["cells"]

    yield make
    for store in stores:
        store.close()


def chunks_of(dataset: Dataset) -> dict[Chunk, bytes | Absent]:
    """Every chunk of every version, by its content id's place in history, or why it is absent."""
    found: dict[Chunk, bytes | Absent] = {}
    for info in dataset.versions():
        for path in ("s0", "s1", "s2", "labels/nuclei/s0", "labels/nuclei/s1", "labels/nuclei/s2"):
            node = dataset.version(info.number).node(path)
            if not isinstance(node, ArrayNode):
                continue
            for coords, payload in node.payloads(Box.whole(node.meta.grid.grid_shape)).items():
                try:
                    found[info.number, path, coords] = payload.read()
                except Absent as error:
                    found[info.number, path, coords] = error
    return found


def check(ours: Dataset, theirs: Dataset, wanted: Callable[[Chunk], bool], *, more: bool = False) -> int:
    """What is wanted is here and right, all else is absent (with ``more`` it may be here); how many are here."""
    there, here = chunks_of(theirs), chunks_of(ours)
    assert here.keys() == there.keys()
    for at, said in here.items():
        if not isinstance(said, bytes):
            assert not wanted(at), at
            assert "was left out of this clone: `volfs fetch cells --path" in str(said)
        else:
            assert said == there[at]
            assert more or wanted(at), at
    for info in theirs.versions():
        mine = ours.info(info.number)
        assert mine.content_id == info.content_id
    whole(ours.store)  # type: ignore[arg-type]
    return sum(isinstance(said, bytes) for said in here.values())


def crosses(at: Chunk, box: dict[int, tuple[int, int]]) -> bool:
    """Whether a chunk crosses a box in voxels of s0."""
    size = 8 << int(at[1][-1])
    return all(at[2][axis] * size < stop and (at[2][axis] + 1) * size > start for axis, (start, stop) in box.items())


class TestClones:
    def test_a_box_of_every_level_and_label_image(self, source: Store, clone: Callable[..., Dataset]) -> None:
        ours = clone(box="z0-8_x4-12")
        assert ours.clone_parts == CloneParts((Part(box=(("x", (4, 12)), ("z", (0, 8)))),))
        count = check(ours, source["cells"], lambda at: crosses(at, {0: (0, 8), 2: (4, 12)}))
        assert 0 < count < len(chunks_of(ours)) / 3
        assert ours["main"].read("files/notes.txt") == b"one" * 999  # side files are in no box

    def test_coarse_levels(self, source: Store, clone: Callable[..., Dataset]) -> None:
        check(clone(levels="s2-"), source["cells"], lambda at: at[1].endswith("s2"))
        check(
            clone(levels="s0-s1", paths=["labels"]),
            source["cells"],
            lambda at: at[1] in ("labels/nuclei/s0", "labels/nuclei/s1"),
        )

    def test_paths_of_nodes_chunks_and_files(self, source: Store, clone: Callable[..., Dataset]) -> None:
        ours = clone(paths=["labels/nuclei/s1", "zarr/s0/c/3", "files/private"])
        check(ours, source["cells"], lambda at: at[1] == "labels/nuclei/s1" or (at[1] == "s0" and at[2][0] == 3))
        assert ours["main"].read("files/private/key") == b"secret"
        (key,) = ours.layout.root.glob("versions/*/files/private/key")
        assert key.stat().st_mode & 0o777 == 0o600
        with pytest.raises(Absent, match=r"`volfs fetch cells --path files/notes\.txt` brings it"):
            ours["main"].read("files/notes.txt")
        assert ours["main"].stat("files/notes.txt").size == 2997

    def test_a_box_of_one_array_is_in_its_own_voxels(self, source: Store, clone: Callable[..., Dataset]) -> None:
        ours = clone(paths=["s1"], box="z0-8_y0-8_x0-8")
        check(ours, source["cells"], lambda at: at[1] == "s1" and at[2] == (0, 0, 0))

    def test_of_each_ref_the_newest_version_with_all_that_it_shows(
        self, source: Store, clone: Callable[..., Dataset]
    ) -> None:
        theirs, ours = source["cells"], clone(depth=1)
        tips = {number for refs in theirs.refs().named.values() for number in refs.values()}
        places = {at: place(theirs, at) for at in chunks_of(theirs)}
        shown = {where for at, where in places.items() if at[0] in tips}
        check(ours, theirs, lambda at: places[at] in shown)
        old = array_at(clone(depth=1, refs=["main"]).version(1)).payloads(Box((3, 0, 0), (4, 1, 1)))[3, 0, 0]
        with pytest.raises(Absent, match=r"`volfs fetch cells --path s0 --box z24-32_y0-8_x0-8` brings it"):
            old.read()

    def test_since(self, source: Store, clone: Callable[..., Dataset]) -> None:
        before, after = clone(since="2020-01-01"), clone(since="0s")
        assert not read_absent(before)
        assert read_absent(after) == read_absent(clone(depth=1)) > 0

    def test_chosen_refs(self, source: Store, clone: Callable[..., Dataset]) -> None:
        ours = clone(refs=["exp"])
        assert ours.default_branch == "exp" and dict(ours.refs().remotes) == {"origin/exp": 3} and not ours.tags()
        ours = clone(refs=["paper"])
        assert ours.tags() == {"paper": 2} and ours.branches() == {"main": 2} and len(ours.versions()) == 2
        assert not read_absent(ours)
        with pytest.raises(VolfsError, match="no branch or tag 'nothing'"):
            clone(refs=["nothing"])

    def test_a_clone_of_a_partial_clone_is_one(self, clone: Callable[..., Dataset], tmp_path: Path) -> None:
        ours = clone(levels="s1-")
        volfs.clone(str(ours.store.path), tmp_path / "third")
        with open_store(tmp_path / "third") as third:
            assert third["cells"].clone_parts == ours.clone_parts
            check(third["cells"], ours, lambda at: not at[1].endswith("s0"))

    def test_what_cannot_be_is_one_error_and_makes_nothing(self, source: Store, tmp_path: Path) -> None:
        for options in (
            {"box": "q0-8"},
            {"box": "z8-8"},
            {"box": "nonsense"},
            {"levels": "s3-s1"},
            {"levels": "coarse"},
            {"depth": 0},
            {"since": "yesterday"},
            {"paths": ["labels/nothing"]},
            {"paths": [""]},
            {"refs": ["../main"]},
        ):
            with pytest.raises(VolfsError) as error:
                volfs.clone(str(source.path), tmp_path / "new", **options)
            assert len(str(error.value).splitlines()) == 1
            assert not (tmp_path / "new").exists(), options

    def test_again_it_goes_on_and_with_other_parts_it_says_what_to_do(
        self, source: Store, clone: Callable[..., Dataset]
    ) -> None:
        ours = clone(levels="s1-")
        for options in ({}, {"levels": "s1-"}):
            assert volfs.clone(str(source.path), ours.store.path, **options)["cells"].payloads == 0
        with pytest.raises(AlreadyThere, match="which has --levels s1-: `volfs fetch cells` with these options"):
            volfs.clone(str(source.path), ours.store.path, levels="s0")
        assert ours.clone_parts.parts == (Part(levels=(1, None)),)


def place(dataset: Dataset, at: Chunk) -> object:
    """Where a chunk's payload lies."""
    node = array_at(dataset.version(at[0]), at[1])
    return node.payloads(Box(at[2], tuple(n + 1 for n in at[2])))[at[2]].token


def read_absent(dataset: Dataset) -> int:
    """Payloads that are said to be absent."""
    count = 0
    for info in dataset.versions():
        files = VersionFiles.of(dataset.objects, info.number)
        count += int(np.count_nonzero(read_codes(files, read_manifest(files)) == Where.LEFT_OUT))
    return count


def write_zyx(dataset: Dataset, voxels: np.ndarray, **options: object) -> int:
    return write_version(dataset, voxels, dimension_names=("z", "y", "x"), **options)  # type: ignore[arg-type]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Store]:
    """One version in shards, and one upon it of a few chunks; chunks of one KiB that do not compress."""
    with init_store(tmp_path / "theirs") as store:
        cells = store.create_dataset("cells")
        write_zyx(cells, volume((32, 32, 32)), shard_shape=(16, 16, 32), files={"files/a": b"a"}, time_ns=START)
        write_zyx(cells, volume((32, 32, 32), 1), parent=1, coords=[(0, 0, 0), (3, 3, 3)], shard_shape=(32, 32, 32))
        yield store


def clone_of(store: Store, place: Path, **options: object) -> Store:
    volfs.clone(str(store.path), place, **options)  # type: ignore[arg-type]
    return open_store(place)


class TestFetch:
    def test_more_comes_until_all_is_here_and_every_byte_is_as_in_a_whole_clone(
        self, small: Store, tmp_path: Path
    ) -> None:
        whole_clone = files_below(clone_of(small, tmp_path / "whole"))
        with clone_of(small, tmp_path / "ours", box="z0-8_y0-8") as store:
            ours, theirs = store["cells"], small["cells"]
            check(ours, theirs, lambda at: crosses(at, {0: (0, 8), 1: (0, 8)}))
            assert ours.fetch(box="z0-8_y0-8").payloads == 0
            done = ours.fetch(paths=["s0"], box="z24-32")
            assert done.payloads == 17 and done.lacking == done.versions == 0
            check(ours, theirs, lambda at: crosses(at, {0: (0, 8), 1: (0, 8)}) or crosses(at, {0: (24, 32)}))
            assert [part.words() for part in ours.clone_parts.parts] == [
                "--box y0-8_z0-8",
                "--box z24-32 --path s0",
            ]
            ours.fetch(whole=True)
            assert ours.clone_parts == CloneParts()
            check(ours, theirs, lambda at: True)
            mine = files_below(store)
            assert mine.keys() == whole_clone.keys()
            assert {name for name in mine if mine[name] != whole_clone[name]} <= {
                name for name in mine if name.endswith("version.json")
            }

    def test_what_comes_later_is_left_out_as_before(self, small: Store, tmp_path: Path) -> None:
        theirs = small["cells"]
        with clone_of(small, tmp_path / "ours", box="z0-8_y0-8_x0-8") as store:
            ours = store["cells"]
            coords = [(0, 0, 0), (2, 2, 2)]
            write_zyx(theirs, volume((32, 32, 32), 2), parent=2, coords=coords, shard_shape=(32, 32, 32))
            done = ours.pull()
            assert (done.versions, done.payloads) == (1, 1)
            check(ours, theirs, lambda at: at[2] == (0, 0, 0))
            assert ours.branches() == {"main": 3}

    def test_deepen(self, small: Store, tmp_path: Path) -> None:
        theirs = small["cells"]
        with clone_of(small, tmp_path / "ours", depth=1) as store:
            ours = store["cells"]
            changed = {(0, 0, 0), (3, 3, 3)}
            check(ours, theirs, lambda at: at[0] == 2 or at[2] not in changed)
            with pytest.raises(BadInput, match="give one of them"):
                ours.fetch(deepen=1, whole=True)
            assert ours.fetch(deepen=1).payloads == 2
            assert ours.clone_parts.parts == (Part(depth=2),)
            check(ours, theirs, lambda at: True)
        with clone_of(small, tmp_path / "other") as store, pytest.raises(BadInput, match="nothing to deepen"):
            store["cells"].fetch(deepen=1)

    def test_what_is_nowhere_is_refused_and_nothing_is_written_down(self, small: Store, tmp_path: Path) -> None:
        with clone_of(small, tmp_path / "ours", box="z0-8") as store:
            ours = store["cells"]
            before = ours.clone_parts
            for options in ({"box": "q0-8"}, {"paths": ["s1"]}, {"paths": ["files/b"]}):
                with pytest.raises(BadInput, match=r"no array|no version"):
                    ours.fetch(**options)
            assert ours.clone_parts == before
            assert ours.fetch(paths=["files/a"]).payloads == 0  # is here

    def test_what_the_remote_lacks_too_is_counted(self, small: Store, tmp_path: Path) -> None:
        with clone_of(small, tmp_path / "ours", box="z0-8") as first:
            first.close()
            with clone_of(first, tmp_path / "third", box="z0-16_y0-8_x0-8") as store:
                third = store["cells"]
                assert third.fetch(whole=True).lacking == 49
                third.set_remote("origin", str(small.path))
                assert third.fetch(whole=True).payloads == 49
                check(third, small["cells"], lambda at: True)

    def test_a_damaged_list_of_parts_is_one_error(self, small: Store, tmp_path: Path) -> None:
        with clone_of(small, tmp_path / "ours", box="z0-8") as store:
            ours = store["cells"]
            for facts in ([], {"parts": [{"depth": -1}]}, {"parts": [{"box": {"z": [3, 1]}}]}, {"refs": ["../x"]}):
                with pytest.raises(Damaged, match="which parts a clone has cannot be read"):
                    CloneParts.parse(facts, "dataset.json")
            assert CloneParts.parse(ours.clone_parts.facts(), "") == ours.clone_parts


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"levels": "s2-"}, "--levels s2-"),
        ({"levels": "2-"}, "--levels s2-"),
        ({"levels": "-s1"}, "--levels s0-s1"),
        ({"levels": "s1-3"}, "--levels s1-s3"),
        ({"levels": "s3"}, "--levels s3"),
        ({"box": "z7_y0-5", "depth": 3}, "--depth 3 --box y0-5_z7-8"),
        (
            {"since_ns": START, "paths": ("/labels/", "labels", "files/a b")},
            "--since 2023-11-14T22:13 --path labels --path 'files/a b'",
        ),
        ({}, "everything"),
    ],
)
def test_a_part_is_written_as_it_is_read(options: dict[str, Any], words: str) -> None:
    part = Part.of(**options)
    assert part.words() == words
    assert CloneParts.parse(CloneParts((part,), ("main",)).facts(), "") == CloneParts((part,), ("main",))


@pytest.mark.parametrize("after", [1, 9, 33])
def test_an_interrupt_leaves_nothing_or_what_the_next_goes_on_with(small: Store, tmp_path: Path, after: int) -> None:
    told: list[int] = []

    def tell(done: int, total: int, what: str) -> None:
        assert done <= total
        told.append(done)
        if len(told) == after:
            raise KeyboardInterrupt

    place = tmp_path / "ours"
    with pytest.raises(KeyboardInterrupt):
        volfs.clone(str(small.path), place, box="z0-16", progress=tell)
    volfs.clone(str(small.path), place, box="z0-16")
    with open_store(place) as store:
        check(store["cells"], small["cells"], lambda at: crosses(at, {0: (0, 16)}))
        del told[:]
        with pytest.raises(KeyboardInterrupt):
            store["cells"].fetch(whole=True, progress=tell)
        assert store["cells"].fetch(whole=True).lacking == 0
        check(store["cells"], small["cells"], lambda at: True)


class TestPush:
    def test_work_on_a_partial_clone_goes_back(self, small: Store, tmp_path: Path) -> None:
        """What is absent here is there, and nobody asks for it."""
        theirs = small["cells"]
        with clone_of(small, tmp_path / "ours", box="z0-8_y0-8_x0-8") as store:
            ours = store["cells"]
            number = write_zyx(ours, volume((32, 32, 32), 5), parent=2, coords=[(3, 3, 3)])
            ours.push()
            assert theirs.info(theirs.branches()["main"]).content_id == ours.info(number).content_id
            assert not read_absent(theirs) and whole(small) is None
            assert all(isinstance(said, bytes) for said in chunks_of(theirs).values())

    def test_it_is_refused_if_the_receiver_lacks_what_is_absent_here(self, small: Store, tmp_path: Path) -> None:
        theirs = small["cells"]
        with clone_of(small, tmp_path / "lab") as lab, clone_of(small, tmp_path / "ours", box="z0-8_y0-8") as store:
            ours = store["cells"]
            ours.set_remote("lab", str(lab.path))
            write_zyx(theirs, volume((32, 32, 32), 3), parent=2, coords=[(0, 0, 1), (3, 3, 3)])
            ours.pull()
            before = files_below(lab)
            with pytest.raises(
                Absent, match=r"1 payload of version .* `volfs fetch cells --whole` brings them"
            ) as error:
                ours.push("lab")
            assert len(str(error.value).splitlines()) == 1
            assert files_below(lab) == before
            ours.fetch(whole=True)
            assert ours.push("lab").versions == 1
            check(lab["cells"], theirs, lambda at: True)

    def test_a_receiver_refuses_what_a_sender_does_not(
        self, small: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also what a version takes whose owner does not come."""
        from volfs.versions.remotes.supplier import Supplier

        theirs = small["cells"]
        theirs.create_branch("exp")
        write_zyx(theirs, volume((32, 32, 32), 3), parent=2, coords=[(0, 0, 1), (3, 3, 3)], branch="exp")
        theirs.create_branch("next")
        with (
            clone_of(small, tmp_path / "lab", refs=["main"]) as lab,
            clone_of(small, tmp_path / "ours", box="z0-8_y0-8") as store,
        ):
            ours = store["cells"]
            ours.set_remote("lab", str(lab.path))
            write_zyx(ours, volume((32, 32, 32), 9), parent=2, coords=[(0, 1, 1)])
            ours.cherry_pick("origin/exp")
            taken = read_manifest(VersionFiles.of(ours.objects, ours.branches()["main"])).records["op"] == Op.TAKE
            assert taken.sum() == 2
            before = lab["cells"].refs()
            with pytest.raises(Absent, match="were left out"):
                ours.push("lab")
            monkeypatch.setattr(Supplier, "_check_whole", lambda self, number, ident: None)
            ours.create_branch("again", "origin/exp")
            with pytest.raises(Absent, match="were left out"):
                ours.push("lab", ["again"])
            assert lab["cells"].refs() == before
            whole(lab)


def files_below(store: Store) -> dict[str, bytes]:
    root = store["cells"].layout.root / "versions"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def sizes(snapshot: Snapshot, key: str = "") -> dict[str, int]:
    """Every key with its size, which takes no payloads."""
    found: dict[str, int] = {}
    for name, info in snapshot.list(key):
        inside = f"{key}/{name}" if key else name
        found |= sizes(snapshot, inside) if info.kind == "dir" else {inside: info.size}
    return found


class TestLevels:
    def test_what_is_changed_in_a_box_changes_coarser_levels_as_in_a_whole_clone(
        self, source: Store, clone: Callable[..., Dataset], tmp_path: Path
    ) -> None:
        """Though chunks beside it, from which those levels are computed, are absent."""
        volfs.clone(str(source.path), tmp_path / "whole")
        ours = clone(box="z8-16_y8-24_x0-8")
        with open_store(tmp_path / "whole") as other:
            for dataset in (ours, other["cells"]):
                for path in ("", "labels/nuclei"):
                    volfs.images(dataset["main"])[path].levels[0][8:10, 9:20, 3:8] = 77
                shown = [
                    volfs.images(dataset["main"])[""].levels[k][8 >> k : 16 >> k, 8 >> k : 24 >> k, 0 : 8 >> k]
                    for k in range(3)
                ]
                dataset.branch("main").commit("painted")
                after = [
                    volfs.images(dataset["main"])[""].levels[k][8 >> k : 16 >> k, 8 >> k : 24 >> k, 0 : 8 >> k]
                    for k in range(3)
                ]
                assert all((one == two).all() for one, two in zip(shown, after, strict=True))
            assert sums(ours) == sums(other["cells"])
        with pytest.raises(Absent, match="fetch cells --path s0 --box"):
            volfs.images(ours["main"])[""].levels[0][8:10, 7:9, 0:8] = 1


def sums(dataset: Dataset) -> set[tuple[str, tuple[int, ...], bytes]]:
    """What the newest version on main puts."""
    manifest = read_manifest(VersionFiles.of(dataset.objects, dataset.branches()["main"]))
    return {(each.name, each.chunk or (), each.sha256 or b"") for each in manifest}


class TestAbsent:
    def test_merging_by_reference_needs_no_payload(self, small: Store, tmp_path: Path) -> None:
        """And a version made here of what was left out stays provable."""
        theirs = small["cells"]
        theirs.create_branch("exp")
        write_zyx(theirs, volume((32, 32, 32), 3), parent=2, coords=[(1, 1, 1)], branch="exp")
        write_zyx(theirs, volume((32, 32, 32), 4), parent=2, coords=[(2, 2, 2)])
        with clone_of(small, tmp_path / "ours", box="z0-8_y0-8_x0-8") as store:
            ours = store["cells"]
            merged = ours.merge("origin/exp")
            assert merged.version is not None and not merged.conflicts
            whole(store)
            assert ours.push().versions == 1
            assert sizes(ours["main"]) == sizes(theirs["main"])
            assert all(isinstance(said, bytes) for said in chunks_of(theirs).values())

    def test_dropping_and_gc_go_on_beside_it_and_the_catalog_is_made_anew(self, small: Store, tmp_path: Path) -> None:
        with clone_of(small, tmp_path / "ours", box="z0-16_y0-16") as store:
            ours = store["cells"]
            ours.drop(1)
            (done,) = store.gc(grace=0)
            assert done.freed.payloads == 1
            whole(store)
            assert ours.fetch(whole=True).payloads == 48 + 1
            with pytest.raises(Absent, match="went when versions were dropped"):
                array_at(ours.version(1)).payloads(Box.whole((1, 1, 1)))[0, 0, 0].read()
        for path in store.path.glob("catalog.sqlite*"):
            path.unlink()
        with open_store(store.path) as store:
            here = {at: said for at, said in chunks_of(store["cells"]).items() if at[0] == 2}
            assert here == {at: said for at, said in chunks_of(small["cells"]).items() if at[0] == 2}
            whole(store)


def test_a_box_costs_little_more_than_its_payloads(tmp_path: Path) -> None:
    """Bytes on the wire, both ways, greetings and all; of a history whose versions changed chunks here and there."""
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 128), np.uint8)
    with init_store(tmp_path / "theirs") as theirs:
        cells = theirs.create_dataset("cells")
        number = write_zyx(cells, noise, chunks=(32, 32, 32), shard_shape=(128, 128, 128))
        for seed in range(4):
            coords = [(0, 0, seed % 2), (3, 3, seed)]
            shard = (128, 128, 128)
            number = write_zyx(
                cells, noise ^ (seed + 1), parent=number, coords=coords, chunks=(32, 32, 32), shard_shape=shard
            )
        place = tmp_path / "ours"
        moved = volfs.clone(str(theirs.path), place, box="z0-64_y0-64_x0-64")["cells"]
        with open_store(place) as store:
            records = [read_manifest(VersionFiles.of(store["cells"].objects, n)).records for n in (1, 2, 3, 4, 5)]
        payloads = sum(
            int(each["length"][(each["ndim"] > 0) & (each["chunk"][:, :3] < 2).all(axis=1)].sum()) for each in records
        )
        assert moved.payloads == 12 and payloads > 12 * 32**3
        assert moved.bytes <= 1.1 * payloads
        once = volfs.clone(str(theirs.path), tmp_path / "newest", box="z0-64_y0-64_x0-64", depth=1)["cells"]
        assert once.payloads == 8 and once.bytes <= 1.1 * payloads * 8 / 12
