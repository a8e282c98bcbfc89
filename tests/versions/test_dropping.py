"""Dropping versions, and gc: what goes is what nobody shows, in two steps, and everything else is as it was."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.kits.stores import SECOND, START, array_at, tree_of, volume, voxels_of, write_version
from volfs import open_store
from volfs.errors import Absent, Busy, Damaged, NotFound
from volfs.model.box import Box
from volfs.model.refs import RefKind
from volfs.model.thinning import Period
from volfs.storage.files import read_json, write_json
from volfs.versions.check.fsck import fsck
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.committed.absences import Where, read_codes
from volfs.versions.committed.version_files import VersionFiles, read_manifest
from volfs.versions.dataset import Dataset
from volfs.versions.store import Store

SHAPE = (16, 16, 16)
DAY = 86_400 * SECOND
WHOLE = (16, 16, 16)
"""A shard of the whole array."""


def history(dataset: Dataset, changes: list[list[tuple[int, int, int]]]) -> list[np.ndarray]:
    """v1 with every chunk, and a version for each list of chunks that change. The voxels of each version."""
    state = volume(SHAPE)
    write_version(dataset, state, shard_shape=WHOLE, files={"files/notes": b"v1"}, time_ns=START)
    found = [state]
    for number, coords in enumerate(changes, 2):
        state = state.copy()
        for at in coords:
            box = tuple(slice(8 * i, 8 * i + 8) for i in at)
            state[box] = volume((8, 8, 8), number * 100 + sum(at))
        write_version(
            dataset,
            state,
            parent=number - 1,
            coords=coords,
            shard_shape=WHOLE,
            files={"files/notes": f"v{number}".encode()},
            time_ns=START + number * DAY,
        )
        found.append(state)
    return found


EVERY = list(np.ndindex(2, 2, 2))


def codes_of(dataset: Dataset, number: int) -> list[int]:
    files = VersionFiles.of(dataset.objects, number)
    return read_codes(files, read_manifest(files)).tolist()


def test_a_dropped_version_is_listed_no_more_and_its_history_stays(store: Store, dataset: Dataset) -> None:
    voxels = history(dataset, [[(0, 0, 0)], [(0, 0, 1)], [(0, 1, 0)]])
    before = dataset.versions()
    assert dataset.drop("v2", 3) == [2, 3]
    assert dataset.drop("v2", "v3") == []
    assert dataset.versions() == before
    assert dataset.dropped() == {2, 3} and dataset.kept() == [1, 4]
    assert dataset.resolve("latest") == 4
    for number in (1, 2, 3, 4):  # the bytes are there until gc has gone by
        assert np.array_equal(voxels_of(dataset.version(number)), voxels[number - 1])
    retirement = dataset.ledger.retirement(2)
    assert retirement is not None and retirement.content_id == before[1].content_id and retirement.why == "dropped"
    with pytest.raises(NotFound):
        dataset.drop("v9")
    write_version(dataset, voxels[3], parent=4, coords=[(1, 1, 1)])
    assert dataset.kept() == [1, 4, 5]
    assert fsck(store).findings == []


def test_what_a_ref_or_uncommitted_changes_hold_is_never_dropped(store: Store, dataset: Dataset) -> None:
    voxels = history(dataset, [[(0, 0, 0)], [(0, 0, 1)]])
    dataset.create_tag("paper", 1)
    for number, holder in ((3, "branch 'main'"), (1, "tag 'paper'")):
        with pytest.raises(Busy, match=holder):
            dataset.drop(2, number)
    assert dataset.dropped() == frozenset()
    with pytest.raises(Busy, match="v3 is held"):
        dataset.drop(3)
    branch = dataset.branch("main")
    branch.put("files/notes", b"uncommitted")
    write_version(dataset, voxels[2], parent=3, coords=[(1, 1, 1)], files={"files/notes": b"v4"})
    assert branch.base is not None and branch.base.number == 3
    with pytest.raises(Busy, match="uncommitted changes of branch 'main'"):
        dataset.drop(3)
    assert store.gc(grace=0.001, keep=[1])[0].retired == (2,)
    branch.discard()
    assert dataset.drop(3) == [3]
    for make in (dataset.create_tag, dataset.create_branch):
        with pytest.raises(Busy, match="was dropped"):
            make("again", 3)
    assert dataset.kept() == [1, 4]


def test_bytes_go_after_the_grace_and_only_what_nobody_shows(store: Store, dataset: Dataset) -> None:
    voxels = history(dataset, [[(0, 0, 0), (0, 0, 1)], [(0, 0, 0)], [(1, 1, 1)]])
    trees = {number: tree_of(dataset.version(number)) for number in (1, 3, 4)}
    dataset.drop(2)
    done = store.gc()[0]
    assert not done.retired and not done.reclaimed and done.freed.payloads == 0  # 14 days
    sizes = {p: p.stat().st_size for p in dataset.layout.versions.rglob("*") if p.is_file() and p.name[0] == "0"}
    dry = store.gc(grace=0, dry_run=True)[0]
    done = store.gc(grace=0)[0]
    assert dry.freed.payloads == done.freed.payloads == 2  # a chunk and a side file; the other chunk v3 and v4 show
    assert dry.freed.bytes == done.freed.bytes and done.reclaimed == (2,)
    for number, tree in trees.items():
        assert tree_of(dataset.version(number)) == tree
        assert np.array_equal(voxels_of(dataset.version(number)), voxels[number - 1])
    for path, size in sizes.items():
        assert path.stat().st_size == size
    assert sorted(codes_of(dataset, 2), reverse=True)[:3] == [Where.DROPPED, Where.DROPPED, Where.HERE]
    report = fsck(store)
    assert report.findings == [] and report.absent == 2
    again = store.gc(grace=0)[0]
    assert not again.retired and not again.reclaimed and again.freed.payloads == 0


def test_reading_what_is_absent_is_an_error_of_its_own(store: Store, dataset: Dataset) -> None:
    history(dataset, [[(0, 0, 0)], [(0, 0, 0), (0, 0, 1)]])
    dataset.drop(2)
    store.gc(grace=0)
    version = dataset.version(2)
    info = version.stat("files/notes")
    assert info is not None and info.size == 2 and [name for name, _ in version.list("files")] == ["notes"]
    for key in ("files/notes", "zarr/s0/c/0/0/0"):
        assert version.stat(key) is not None
        with pytest.raises(Absent, match="of cells@v2 went when versions were dropped") as caught:
            version.read(key)
        assert caught.value.errno == errno.ESTALE and "\n" not in str(caught.value)
    payloads = array_at(version).payloads(Box.whole((2, 2, 2)))
    assert len(payloads) == 8
    with pytest.raises(Absent):
        payloads[0, 0, 0].read()
    assert payloads[1, 0, 0].read()
    store.close()
    with open_store(store.path, read_only=True) as reading:
        assert reading["cells"].dropped() == {2}
        with pytest.raises(Absent):
            reading["cells"].version(2).read("files/notes")


def test_a_damaged_payload_is_damaged_whatever_else_is_absent(store: Store, dataset: Dataset) -> None:
    history(dataset, [[(0, 0, 0)], [(0, 0, 0)]])
    dataset.drop(2)
    store.gc(grace=0)
    shard = dataset.layout.version(1).root / "zarr/s0/c/0/0/0"
    shard.write_bytes(b"\0" * shard.stat().st_size)
    with pytest.raises(Damaged):
        dataset.version(3).read("zarr/s0/c/1/1/1")
    absent = dataset.layout.version(2).root / "absent.npy.zst"
    raw = absent.read_bytes()
    absent.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(Damaged, match="cannot be told"):
        dataset.version(2).read("files/notes")
    assert any("absent.npy.zst" in found.where for found in fsck(store).findings)


def test_holes_in_a_shard_free_blocks_and_say_so_to_others(store: Store, dataset: Dataset) -> None:
    zarr = pytest.importorskip("zarr")
    state = volume((64, 64, 64), 1)
    chunks = list(np.ndindex(2, 2, 2))
    write_version(dataset, state, chunks=(32, 32, 32), shard_shape=(64, 64, 64), time_ns=START)
    write_version(dataset, state + 1, chunks=(32, 32, 32), parent=1, coords=chunks[1:], time_ns=START + DAY)
    shard = dataset.layout.version(1).root / "zarr/s0/c/0/0/0"
    before = shard.stat()
    dataset.drop(1)
    done = store.gc(grace=0)[0]
    after = shard.stat()
    assert done.freed.payloads == 7
    assert after.st_size == before.st_size
    if not done.freed.staying:
        assert after.st_blocks < before.st_blocks / 4
    found = zarr.open(dataset.layout.version(1).root / "zarr", mode="r")["s0"]
    assert found.attrs["volfs_stored"]["complete"] is False
    assert np.array_equal(found[:32, :32, :32], state[:32, :32, :32])
    assert not found[32:].any()  # missing, as the index says
    newest = voxels_of(dataset.version(2))
    assert np.array_equal(newest[:32, :32, :32], state[:32, :32, :32])
    assert np.array_equal(newest[32:], state[32:] + 1)
    assert fsck(store).findings == []


def test_a_filesystem_without_holes_is_told_of(store: Store, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volfs.storage.directory_backend.punch_hole", lambda *_: False)
    history(dataset, [EVERY[1:]])
    dataset.drop(1)
    done = store.gc(grace=0)[0]
    assert done.freed.payloads == 8 and 0 < done.freed.staying < done.freed.bytes  # the side file went
    assert np.array_equal(voxels_of(dataset.version(2))[:8, :8, :8], volume(SHAPE)[:8, :8, :8])
    assert fsck(store).findings == []


def test_a_payload_that_a_kept_version_took_stays(store: Store, dataset: Dataset) -> None:
    history(dataset, [[(0, 0, 0)]])
    sha = next(r.sha256 for r in read_manifest(VersionFiles.of(dataset.objects, 2)) if r.name == "files/notes")
    assert sha is not None
    with VersionWriter(dataset, "main", 2) as writer:
        writer.keep("files/notes", sha, mode=0o755)
        writer.publish("taken", "tester", START + 3 * DAY)
    with VersionWriter(dataset, "main", 3) as writer:
        writer.put("files/notes", b"v4")
        writer.publish("newer", "tester", START + 4 * DAY)
    dataset.drop(2)
    assert store.gc(grace=0)[0].freed.payloads == 0  # v3 took it, and v4 shows the chunk
    assert dataset.version(3).read("files/notes") == b"v2"
    dataset.drop(3)
    assert store.gc(grace=0)[0].freed.payloads == 1  # the owner of what v3 took went long before
    assert fsck(store).findings == []


def test_gc_drops_what_nothing_reaches(store: Store, dataset: Dataset) -> None:
    voxels = history(dataset, [[(0, 0, 0)]])
    dataset.create_branch("exp", 1)
    write_version(dataset, voxels[0], parent=1, coords=[(1, 1, 1)], branch="exp")
    write_version(dataset, voxels[0], parent=3, coords=[(1, 1, 0)], branch="exp")
    assert store.gc(grace=0)[0].retired == ()
    dataset.delete_branch("exp")
    assert store.gc()[0].retired == ()  # the log of refs has them, for 14 days
    dry = store.gc(dry_run=True, grace=0.001)[0]
    assert dry.retired == (3, 4) and dry.later.payloads == 2 and dataset.dropped() == frozenset()
    assert store.gc(grace=0.001)[0].retired == (3, 4)
    assert store.gc(grace=0.001)[0].retired == ()
    assert dataset.kept() == [1, 2]
    store.gc(grace=0)
    assert fsck(store).absent == 2
    assert np.array_equal(voxels_of(dataset.version(2)), voxels[1])
    assert fsck(store).findings == []


def test_thinning_keeps_what_is_named_and_one_a_day(store: Store, dataset: Dataset) -> None:
    state = volume(SHAPE)
    write_version(dataset, state, time_ns=START)
    for number in range(2, 13):  # three a day
        time_ns = START + (number // 3) * DAY + number * 60 * SECOND
        write_version(dataset, state, parent=number - 1, coords=[(0, 0, number % 2)], time_ns=time_ns)
    dataset.create_tag("paper", 4)
    assert store.gc(keep=[Period.DAILY], dry_run=True)[0].retired == (1, 3, 6, 7, 9, 10)
    assert store.gc(keep=[Period.DAILY, 2], dry_run=True)[0].retired == (1, 6, 7, 9, 10)
    assert store.gc(before_ns=START + 2 * DAY, dry_run=True)[0].retired == (1, 2, 3, 5)
    assert store.gc(keep=[1])[0].retired == (1, 2, 3, 5, 6, 7, 8, 9, 10, 11)
    assert dataset.kept() == [4, 12]
    store.gc(grace=0)
    for number in (4, 12):
        assert np.array_equal(voxels_of(dataset.version(number)), state)
    assert fsck(store).findings == []


@pytest.mark.parametrize("seed", range(6))
def test_random_histories_show_what_they_showed(store: Store, dataset: Dataset, seed: int) -> None:
    """Writes, branches, removals, drops and collections: every version that is kept equals what it was."""
    random_ = random.Random(seed)
    expected: dict[int, dict[str, bytes]] = {}
    state = volume(SHAPE)
    write_version(dataset, state, shard_shape=random_.choice([WHOLE, None]), files={"files/a": b"1"}, time_ns=START)
    expected[1] = tree_of(dataset.version(1))
    for step in range(2, 26):
        branch = random_.choice(sorted(dataset.branches()))
        what = random_.random()
        if what < 0.15:
            dataset.create_branch(f"b{step}", random_.choice(dataset.kept()))
        elif what < 0.2 and branch != "main":
            dataset.delete_branch(branch, force=True)
        elif what < 0.35:
            held = set(dataset.branches().values())
            if free := [number for number in dataset.kept() if number not in held]:
                dataset.drop(*random_.sample(free, random_.randint(1, len(free))))
        elif what < 0.5:
            store.gc(grace=random_.choice([0, 10_000.0]))
        else:
            parent = dataset.branches()[branch]
            with VersionWriter(dataset, branch, parent) as writer:
                base = dataset.version(parent)
                if base.array("s0") is None or random_.random() < 0.1:
                    if base.array("s0") is not None and random_.random() < 0.5:
                        writer.remove_subtree("zarr/s0")
                    writer.put("files/a", str(step).encode())
                else:
                    meta = array_at(base).meta
                    array = writer.array("s0", base.read("zarr/s0/zarr.json"), created=False)
                    for at in random_.sample(EVERY, random_.randint(1, 8)):
                        if random_.random() < 0.2:
                            array.remove(at)
                        else:
                            array.put(at, os.urandom(40) and _chunk(meta, step, at))
                number = writer.publish(f"step {step}", "tester", START + step * DAY).number
            expected[number] = tree_of(dataset.version(number))
        for number in dataset.kept():
            assert tree_of(dataset.version(number)) == expected[number], (seed, step, number)
    report = fsck(store)
    assert report.findings == []
    store.close()
    for catalog in Path(store.path).glob("catalog.sqlite*"):
        catalog.unlink()
    with open_store(store.path) as again:
        assert again["cells"].dropped() == dataset.ledger.retired()
        for number in again["cells"].kept():
            assert tree_of(again["cells"].version(number)) == expected[number]


def _chunk(meta: object, step: int, at: tuple[int, ...]) -> bytes:
    from tests.kits.stores import chunk

    return chunk(meta, volume(SHAPE, step * 10 + sum(at)), at)  # type: ignore[arg-type]


def test_other_machines_see_it_by_looking(tmp_path: Path, store: Store, dataset: Dataset) -> None:
    history(dataset, [[(0, 0, 0)], [(0, 0, 0)]])
    with open_store(store.path, catalog=tmp_path / "theirs.sqlite") as other:
        assert other["cells"].kept() == [1, 2, 3]
        old = other["cells"].version(2)
        assert old.read("zarr/s0/c/0/0/0")
        other.refresh()
        dataset.drop(2)
        assert other.refresh()
        assert other["cells"].kept() == [1, 3] and other["cells"].dropped() == {2}
        before = old.read("zarr/s0/c/0/0/0")
        store.gc(grace=0)
        assert old.read("zarr/s0/c/0/0/0") == before  # of a file that is open
        other["cells"].objects.forget()
        with pytest.raises(Absent):
            old.read("zarr/s0/c/0/0/0")
        with pytest.raises(Busy, match="was dropped"):
            other["cells"].create_tag("late", 2)


def test_the_list_can_be_lost(store: Store, dataset: Dataset) -> None:
    history(dataset, [[(0, 0, 0)], [(0, 0, 1)]])
    dataset.drop(1, 2)
    store.close()
    for spoil in (Path.unlink, lambda path: path.write_bytes(b"{}")):
        spoil(dataset.layout.retired)
        with open_store(store.path) as again:
            assert again["cells"].dropped() == {1, 2}
            assert fsck(again).findings == []


def test_gc_changes_nothing_while_something_cannot_be_read(store: Store, dataset: Dataset) -> None:
    voxels = history(dataset, [[(0, 0, 0)]])
    dataset.create_branch("exp", 1)
    write_version(dataset, voxels[0], parent=1, coords=[(1, 1, 1)], branch="exp")
    ref = dataset.layout.ref(RefKind.BRANCH, "exp")
    whole = ref.read_bytes()
    ref.write_bytes(b"{}")
    with pytest.raises(Damaged):
        store.gc(grace=0)
    with pytest.raises(Damaged):
        dataset.drop(1)
    ref.write_bytes(whole)
    assert store.gc(grace=0)[0].retired == ()


def test_a_damaged_line_in_the_log_of_refs_keeps_what_is_not_reached_and_stops_nothing_else(
    store: Store, dataset: Dataset
) -> None:
    """It may have named any version, until it is older than the grace."""
    voxels = history(dataset, [[(0, 0, 0)]])
    dataset.create_branch("exp", 1)
    write_version(dataset, voxels[0], parent=1, coords=[(1, 1, 1)], branch="exp")
    dataset.delete_branch("exp")
    dataset.drop(1)
    log = dataset.layout.ref_log
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:-1], lines[-1].replace(b"exp", b"ex?")]))
    (done,) = store.gc(grace=3600)
    assert done.retired == () and dataset.kept() == [2, 3]
    assert f"{log} line {len(lines)}: " in done.unsure and "mend or remove that line" in done.unsure
    assert store.gc(grace=0)[0].retired == ()
    dataset.create_tag("later", 2)  # whose line is as old as the grace, so that any before it is
    (done,) = store.gc(grace=0)
    assert done.retired == (3,) and done.reclaimed == (1, 3) and not done.unsure


def test_bytes_stay_while_something_is_being_written(store: Store, dataset: Dataset) -> None:
    history(dataset, [[(0, 0, 0)]])
    dataset.drop(1)
    with VersionWriter(dataset, "main", 2) as writer:
        writer.put("files/x", b"x")
        with pytest.raises(Busy, match=r"v3 .* is being written"):
            store.gc(grace=0)
        done = store.gc(grace=0.001)[0]
        assert "v3" in done.waiting and not done.reclaimed
    assert store.gc(grace=0.001)[0].reclaimed == (1,)


def test_what_is_dropped_while_it_is_taken_is_not_committed(store: Store, dataset: Dataset) -> None:
    history(dataset, [[(0, 0, 0)], [(0, 0, 0)]])
    sha = next(r.sha256 for r in read_manifest(VersionFiles.of(dataset.objects, 1)) if r.name == "files/notes")
    payload = dataset.version(1).payload("files/notes")
    dataset.drop(1)
    store.gc(grace=0)
    with VersionWriter(dataset, "main", 3) as writer:
        writer.put("files/notes", b"x")
        writer._objects["files/notes"] = writer._objects["files/notes"]._replace(payload=payload, sha256=sha, owner=1)
        with pytest.raises(Absent, match="nothing was committed"):
            writer.publish("late", "tester")
    assert dataset.branches() == {"main": 3}


# -- formats and numbers -------------------------------------------------------------------------------------------


def test_a_store_of_format_1_is_brought_up_to_date(store: Store, dataset: Dataset) -> None:
    voxels = history(dataset, [[(0, 0, 0)]])
    path = store.layout.volfs_json
    assert read_json(path)["format"] == 2
    store.close()
    write_json(path, read_json(path) | {"format": 1, "more": "kept"})
    for made in (dataset.layout.highest, dataset.layout.retired):
        made.unlink()
    with open_store(store.path, read_only=True) as reading:
        assert np.array_equal(voxels_of(reading["cells"].version(2)), voxels[1])
    assert read_json(path)["format"] == 1
    with open_store(store.path) as again:
        assert read_json(path) == {"format": 2, "id": store.id, "more": "kept"}
        assert again["cells"].ledger.highest() == 2 and dataset.layout.retired.exists()
        assert fsck(again).findings == []


def test_the_number_of_a_version_that_was_taken_away_by_hand_is_not_given_again(store: Store, dataset: Dataset) -> None:
    history(dataset, [[(0, 0, 0)], [(0, 0, 1)]])
    store.close()
    shutil.rmtree(dataset.layout.version(3).root)
    dataset.layout.ref(RefKind.BRANCH, "main").write_text('{"version": 2}')
    with open_store(store.path) as again:
        branch = again["cells"].branch("main")
        branch.put("files/x", b"x")
        assert branch.commit("next").number == 4
        assert fsck(again).findings == []


def test_what_merges_and_amended_versions_took_stays_when_its_owners_go(store: Store, dataset: Dataset) -> None:
    history(dataset, [[(0, 0, 0)]])
    dataset.create_branch("exp", 1)
    write_version(dataset, volume(SHAPE, 7), parent=1, coords=[(1, 1, 1), (1, 1, 0)], branch="exp")
    merged = dataset.merge("exp").version
    assert merged is not None
    tree = tree_of(dataset.version(merged.number))
    branch = dataset.branch("main")
    branch.put("files/more", b"more")
    amended = branch.amend("amended")
    tree |= {"files/more": b"more"}
    assert tree_of(dataset.version(amended.number)) == tree
    dataset.delete_branch("exp")
    assert merged.number in store.gc(grace=0.001)[0].retired
    dataset.drop(*(number for number in dataset.kept() if number != amended.number))
    store.gc(grace=0)
    assert tree_of(dataset.version(amended.number)) == tree
    assert fsck(store).findings == []
