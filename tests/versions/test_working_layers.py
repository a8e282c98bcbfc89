"""Layers in motion: freezing, merging back and dropping, seen by writers, by other processes, and after a crash."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kits.dict_version import DictVersion, Over, contents, listing, read, stat
from volfs.errors import AlreadyThere
from volfs.storage.reserve import Reserve
from volfs.storage.store_layout import WorkingLayout
from volfs.versions.working import layer, layer_moves
from volfs.versions.working.union import Union
from volfs.versions.working.working_copy import WorkingCopy

HEAD = {
    "files/gone": b"0",
    "files/kept": b"1",
    "files/dir/one": b"1",
    "files/dir/two": b"2",
    "zarr/a/c/0/0": b"00",
    "zarr/a/c/0/1": b"01",
}


@pytest.fixture
def layout(tmp_path: Path) -> WorkingLayout:
    return WorkingLayout(tmp_path / "main")


@pytest.fixture
def working(layout: WorkingLayout) -> Iterator[WorkingCopy]:
    head = DictVersion(1, HEAD)
    made = WorkingCopy(layout, Over(lambda: head), Reserve([]))
    yield made
    made.close()


def change_things(working: WorkingCopy) -> None:
    working.unlink("files/gone")
    working.put("files/new", b"n")
    working.remove_tree("files/dir")
    working.put("files/dir/three", b"3")
    working.put("zarr/a/c/0/0", b"xx")
    working.unlink("zarr/a/c/0/1")
    working.mkdir("files/bare")
    working.put("zarr/rec/c/0", b"r")


def change_more(working: WorkingCopy) -> None:
    working.put("files/gone", b"back")
    working.unlink("files/new")
    working.unlink("files/dir/three")
    working.rmdir("files/dir")
    working.put("zarr/a/c/0/1", b"yy")
    working.remove_tree("zarr/rec")
    working.put("files/top", b"t")


def committed(working: WorkingCopy, number: int, head: DictVersion | None) -> DictVersion:
    """The version that a commit makes of the frozen layer."""
    frozen = Union((working.frozen_layer(number),), head)
    files = {}
    for key in (*frozen.keys("files"), *frozen.keys("zarr")):
        entry = frozen.entry(key)
        assert entry is not None
        files[key] = Path(entry.layer.path(key)).read_bytes() if entry.layer else head.read(key)  # type: ignore[union-attr]
    return DictVersion(number, files)


def test_a_freeze_is_not_seen_by_readers_nor_by_open_files(working: WorkingCopy) -> None:
    change_things(working)
    before = contents(working)
    with working.open("zarr/rec/c/1", os.O_WRONLY | os.O_CREAT) as recording:
        recording.pwrite(b"a", 0)
        working.freeze(2, ["zarr/rec"])
        recording.pwrite(b"b", 1)
        assert contents(working) == before | {"zarr/rec/c/1": b"ab"}
        assert [c.key for c in working.frozen_layer(2).changes() if c.key.startswith("zarr/rec")] == []
        working.merge_back(2)
        recording.pwrite(b"c", 2)
    assert contents(working) == before | {"zarr/rec/c/1": b"abc"}


def test_what_stays_behind_takes_its_whiteouts_along(working: WorkingCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    change_things(working)
    working.freeze(2, ["zarr/a", "files/dir"])
    assert {(c.key, c.kind) for c in working.frozen_layer(2).changes()} == {
        ("files/gone", "removed"),
        ("files/new", "put"),
        ("zarr/rec/c/0", "put"),
    }
    after = {"files/kept": b"1", "files/new": b"n", "zarr/rec/c/0": b"r"}
    now = DictVersion(2, {k: v for k, v in HEAD.items() if k != "files/gone"} | after)
    monkeypatch.setattr(working._owner, "version", lambda: now)
    working.drop(2, now.base)
    shown = {k: v for k, v in contents(working).items() if v is not None}
    assert shown == after | {"files/dir/three": b"3", "zarr/a/c/0/0": b"xx"}


def test_the_names_of_what_stays_behind_are_synced_again(working: WorkingCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    with working.open("zarr/a/c/1", os.O_WRONLY | os.O_CREAT) as file:
        file.fsync()
        working.freeze(2, ["zarr/a/c/1"])
        synced: set[str] = set()
        monkeypatch.setattr("os.fsync", lambda fd: synced.add(os.readlink(f"/proc/self/fd/{fd}")))
        file.fsync()
    top = working.layout.top.root
    assert {f"{top}/zarr/a/c", f"{top}/zarr/a", f"{top}/zarr"} <= synced


def test_directories_that_went_are_not_remembered_for_syncing(working: WorkingCopy) -> None:
    def noted() -> set[str]:
        return set(working._names._unsynced)

    with working.lock.hold():
        for index in range(50):
            working.put(f"files/run/d{index}/x", b"x")
        writing = working.open("files/run/log", os.O_WRONLY | os.O_CREAT)
        working.freeze(2, ["files/run/log"])
        assert len(noted()) > 50, "the commit may yet not happen"
        working.drop(2, working._owner.base_version().base)
        assert noted() == {"", "files", "files/run"}, "what stays is in the top"
        writing.close()
        for index in range(50):
            working.put(f"files/other/d{index}/x", b"x")
        working.discard("files/other")
        for index in range(50):
            working.mkdir(f"files/kept{index}")
            working.put(f"files/kept{index}/x", b"x")
            working.unlink(f"files/kept{index}/x")
            working.rmdir(f"files/kept{index}")
        assert noted() == {"", "files", "files/run"}


def test_a_second_freeze_of_one_number_is_refused(working: WorkingCopy) -> None:
    working.put("files/x", b"")
    working.freeze(2)
    with pytest.raises(AlreadyThere):
        working.freeze(2)


def test_merging_back_keeps_what_is_newer(working: WorkingCopy) -> None:
    change_things(working)
    working.freeze(2)
    change_more(working)
    before = contents(working)
    times = {key: stat(working, key) for key, data in before.items() if data is not None}
    working.merge_back(2)
    assert contents(working) == before
    assert {key: stat(working, key) for key in times} == times
    assert not list(working.layout.root.glob("frozen-*"))


def test_directories_without_files_outlive_a_commit(working: WorkingCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    change_things(working)
    working.mkdir("files/bare/inner")
    working.freeze(2)
    now = DictVersion(2, {k: v for k, v in contents(working).items() if v is not None})
    monkeypatch.setattr(working._owner, "version", lambda: now)
    working.drop(2, now.base)
    assert contents(working)["files/bare/inner"] is None
    assert list(working.union().changes()) == []


class Died(BaseException):
    """The process ends here."""


def dying(after: int) -> Callable[[], None]:
    """Let the process die after some calls that change the disk. Returns what brings it back to life."""
    left = [after]
    patch = pytest.MonkeyPatch()
    for name in ("rename", "unlink", "mkdir", "makedirs", "utime", "rmdir"):
        real = getattr(os, name)

        def call(*args: object, real: Callable[..., object] = real, **kwargs: object) -> object:
            if left[0] == 0:
                raise Died
            left[0] -= 1
            return real(*args, **kwargs)

        patch.setattr(os, name, call)
    return patch.undo


@pytest.mark.parametrize("what", ["freeze", "freeze and leave", "merge back", "drop"])
def test_a_crash_at_any_step_leaves_a_union_that_reads_the_same(tmp_path: Path, what: str) -> None:
    for step in range(200):
        layout = WorkingLayout(tmp_path / f"{what}-{step}")
        head = DictVersion(1, HEAD)
        working = WorkingCopy(layout, Over(lambda: head), Reserve([]))  # noqa: B023
        change_things(working)
        if what in ("merge back", "drop"):
            working.freeze(2)
            change_more(working)
        before = contents(working)
        if what == "drop":
            head = committed(working, 2, head)
        act: dict[str, Callable[[], None]] = {
            "freeze": lambda: layer_moves.freeze(layout, 2),  # noqa: B023
            "freeze and leave": lambda: layer_moves.freeze(layout, 2, ["zarr/rec", "files/dir", "files/new"]),  # noqa: B023
            "merge back": lambda: layer_moves.merge_back(layout, 2),  # noqa: B023
            "drop": lambda: layer_moves.drop(layout, 2, lambda key: head.stat(key) is not None),  # noqa: B023
        }
        alive = dying(step)
        died = False
        try:
            act[what]()
        except Died:
            died = True
        finally:
            alive()
        working.close()
        after = WorkingCopy(layout, Over(lambda: head), Reserve([]))  # noqa: B023
        assert _files(after) == _files_of(before), step
        if what == "drop":
            layer_moves.drop(layout, 2, lambda key: head.stat(key) is not None)  # noqa: B023
        else:
            layer_moves.merge_back(layout, 2)
        assert _files(after) == _files_of(before), step
        after.put("files/works", b"again")
        assert _files(after) == _files_of(before | {"files/works": b"again"})
        after.close()
        if not died:
            return
    raise AssertionError("it never came to an end")


def _files(working: WorkingCopy) -> dict[str, bytes]:
    return _files_of(contents(working))


def _files_of(found: dict[str, bytes | None]) -> dict[str, bytes]:
    return {key: data for key, data in found.items() if data is not None}


def test_disks_that_cannot_exchange_names_do_in_two_steps(
    working: WorkingCopy, monkeypatch: pytest.MonkeyPatch, layout: WorkingLayout
) -> None:
    monkeypatch.setattr(layer, "_libc_renameat2", None)
    working.unlink("files/dir/one")
    working.unlink("files/dir/two")
    working.rmdir("files/dir")
    working.mkdir("files/dir")
    assert listing(working, "files/dir") == []
    working.discard("files/dir/one")
    assert [name for name, _ in listing(working, "files/dir")] == ["one"]
    # Cut short between the two: the next writer finishes it.
    working.unlink("files/dir/one")
    real = os.rename
    calls = []

    def rename(source: str, target: str) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise Died
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(Died):
        working.rmdir("files/dir")
    monkeypatch.undo()
    working.close()
    assert "files/dir/two" in contents(working)  # for a moment: what the repair is for
    working.put("files/after", b"")
    assert not {"files/dir/one", "files/dir/two"} & contents(working).keys()


def test_other_processes_never_read_anything_old_while_versions_are_made(layout: WorkingLayout) -> None:
    """Readers with no lock, as in another process: what a key holds never goes back in time."""
    state: list[DictVersion | None] = [None]
    writer = WorkingCopy(layout, Over(lambda: state[0]), Reserve([]))
    keys = [f"files/{name}" for name in "abcdef"]
    for key in keys:
        writer.put(key, b"0")
    failures: list[str] = []
    done = threading.Event()

    def keep_reading() -> None:
        reader = WorkingCopy(layout, Over(lambda: state[0]), Reserve([]))
        seen = dict.fromkeys(keys, 0)
        chance = random.Random(threading.get_ident())
        while not done.is_set():
            key = chance.choice(keys)
            value = int(read(reader, key))
            if value < seen[key]:
                failures.append(f"{key} went from {seen[key]} to {value}")
                return
            seen[key] = value
            if len(listing(reader, "files")) != len(keys):
                failures.append("a name was missing")
                return

    readers = [threading.Thread(target=keep_reading) for _ in range(3)]
    for reader in readers:
        reader.start()
    chance = random.Random(0)
    count = 0
    for number in range(1, 50):
        for _ in range(4):
            count += 1
            writer.put(chance.choice(keys), str(count).encode())
        writer.freeze(number)
        made = committed(writer, number, state[0])
        count += 1
        writer.put(chance.choice(keys), str(count).encode())
        if number % 5 == 0:
            writer.merge_back(number)
        else:
            state[0] = made
            writer.drop(number, made.base)
    done.set()
    for reader in readers:
        reader.join()
    writer.close()
    assert failures == []
