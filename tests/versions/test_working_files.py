"""Open files, times and names in a working copy over a head version."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.dict_version import DictVersion, Over, contents, listing, read, stat
from volfs.errors import AlreadyThere, BadInput, BadName, NotAllowed, NotFound, VolfsError, WrongKind
from volfs.storage.reserve import Reserve
from volfs.storage.store_layout import WorkingLayout
from volfs.versions.working.layer import RENAME_EXCHANGE, RENAME_NOREPLACE
from volfs.versions.working.working_copy import WorkingCopy

HEAD = {"files/old": b"committed", "files/dir/one": b"1", "files/dir/two": b"2", "zarr/a/zarr.json": b"{}"}


class Slow(DictVersion):
    """Counts how often bytes are read."""

    reads = 0

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        self.reads += 1
        return super().read(key, offset, length)


@pytest.fixture
def head() -> Slow:
    return Slow(1, HEAD)


@pytest.fixture
def working(tmp_path: Path, head: Slow) -> Iterator[WorkingCopy]:
    made = WorkingCopy(WorkingLayout(tmp_path / "main"), Over(lambda: head), Reserve([]))
    yield made
    made.close()


def test_a_file_of_the_head_is_copied_up_when_opened_for_writing_with_its_time(working: WorkingCopy) -> None:
    before = stat(working, "files/old")
    with working.open("files/old", os.O_RDWR) as file:
        assert file.pread(100, 0) == b"committed"
        assert stat(working, "files/old").mtime_ns == before.mtime_ns  # type: ignore[union-attr]
        file.pwrite(b"C", 0)
    assert read(working, "files/old") == b"Committed"
    assert stat(working, "files/old").mtime_ns > before.mtime_ns  # type: ignore[union-attr]


def test_a_file_that_is_truncated_when_opened_is_not_copied(working: WorkingCopy, head: Slow) -> None:
    with working.open("files/old", os.O_WRONLY | os.O_TRUNC) as file:
        file.pwrite(b"new", 0)
    working.truncate("files/dir/one", 0)
    assert (read(working, "files/old"), read(working, "files/dir/one"), head.reads) == (b"new", b"", 0)


def test_readers_of_a_file_see_what_is_written_after_it_is_copied_up(working: WorkingCopy) -> None:
    with working.open("files/old", os.O_RDONLY) as reader:
        assert reader.fd is None and reader.pread(9, 0) == b"committed"
        with working.open("files/old", os.O_WRONLY) as writer:
            writer.pwrite(b"C", 0)
        assert reader.pread(9, 0) == b"Committed"
        working.freeze(2)
        with working.open("files/old", os.O_WRONLY) as writer:
            writer.pwrite(b"X", 0)
        assert reader.pread(9, 0) == b"Xommitted"
        assert reader.stat() == stat(working, "files/old")


def test_an_open_file_lives_on_when_its_name_goes_or_changes(working: WorkingCopy) -> None:
    with working.open("files/old", os.O_RDWR) as file, working.open("files/dir/one", os.O_RDONLY) as other:
        working.unlink("files/old")
        working.rename("files/dir/one", "files/one")
        file.pwrite(b"!", 9)
        assert file.pread(10, 0) == b"committed!" and file.key is None
        assert other.key == "files/one" and other.pread(1, 0) == b"1"
        assert stat(working, "files/old") is None
        working.put("files/one", b"another file")
        assert other.key is None and other.pread(12, 0) == b"1"


def test_append_mode_writes_where_the_caller_says(working: WorkingCopy) -> None:
    with working.open("files/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
        file.pwrite(b"bbb", 3)
        file.pwrite(b"aaa", 0)
    assert read(working, "files/log") == b"aaabbb"


def test_the_time_of_a_file_grows_with_every_change_however_quick(working: WorkingCopy) -> None:
    times = []

    def note() -> None:
        times.append(stat(working, "files/f").mtime_ns)  # type: ignore[union-attr]

    working.put("files/f", b"0")
    note()
    for _ in range(50):
        working.put("files/f", b"1")
        note()
    with working.open("files/f", os.O_RDWR) as file:
        for i in range(200):
            file.pwrite(b"2", i)
            note()
        file.truncate(5)
        note()
    working.truncate("files/f", 0)
    note()
    working.truncate("files/f", 0)
    note()
    assert all(a < b for a, b in itertools.pairwise(times))


def test_inode_and_time_survive_rename_link_and_freeze(working: WorkingCopy) -> None:
    working.put("files/f", b"x")
    before = working.disk_stat("files/f")
    assert before is not None
    working.rename("files/f", "files/dir/f")
    working.link("files/dir/f", "files/g")
    working.freeze(2)
    after = working.disk_stat("files/g")
    assert after is not None
    assert (after.st_ino, after.st_mtime_ns, after.st_nlink) == (before.st_ino, before.st_mtime_ns, 2)


def test_names_of_a_linked_file_share_their_bytes(working: WorkingCopy) -> None:
    working.link("files/old", "files/second")
    with working.open("files/second", os.O_WRONLY) as file:
        file.pwrite(b"C", 0)
    assert read(working, "files/old") == b"Committed"
    working.unlink("files/old")
    assert read(working, "files/second") == b"Committed"


def test_rename_flags(working: WorkingCopy) -> None:
    with pytest.raises(AlreadyThere):
        working.rename("files/old", "files/dir/one", RENAME_NOREPLACE)
    with pytest.raises(BadInput):
        working.rename("files/old", "files/dir/one", RENAME_EXCHANGE | RENAME_NOREPLACE)
    working.rename("files/old", "files/new", RENAME_NOREPLACE)
    assert read(working, "files/new") == b"committed" and stat(working, "files/old") is None


def test_two_names_exchange_their_files(working: WorkingCopy) -> None:
    one, other = read(working, "files/old"), read(working, "files/dir/one")
    assert one != other
    with working.open("files/old", os.O_RDONLY) as file:
        working.rename("files/old", "files/dir/one", RENAME_EXCHANGE)
        assert file.key == "files/dir/one" and file.pread(99, 0) == one
    assert read(working, "files/old") == other and read(working, "files/dir/one") == one
    working.symlink("files/link", "old")
    working.rename("files/link", "files/old", RENAME_EXCHANGE)
    assert working.readlink("files/old") == "old" and read(working, "files/link") == other
    with pytest.raises(NotFound):
        working.rename("files/old", "files/absent", RENAME_EXCHANGE)


def test_a_new_directory_exchanges_with_a_file_and_a_committed_one_does_not(working: WorkingCopy) -> None:
    working.mkdir("files/new")
    working.put("files/new/x", b"x")
    working.rename("files/old", "files/new", RENAME_EXCHANGE)
    assert read(working, "files/old/x") == b"x" and read(working, "files/new") == b"committed"
    assert [name for name, _ in listing(working, "files/old")] == ["x"]
    with pytest.raises(NotAllowed) as caught:
        working.rename("files/new", "files/dir", RENAME_EXCHANGE)
    assert caught.value.errno == errno.EXDEV
    with pytest.raises(BadInput):
        working.rename("files/old", "files/old/x", RENAME_EXCHANGE)
    with pytest.raises(BadInput):
        working.rename("files/old/x", "files/old", RENAME_EXCHANGE)


def test_a_committed_directory_cannot_be_renamed_in_one_step_and_a_new_one_can(working: WorkingCopy) -> None:
    with pytest.raises(NotAllowed) as caught:
        working.rename("files/dir", "files/other")
    assert caught.value.errno == errno.EXDEV
    working.mkdir("files/new")
    working.put("files/new/f", b"f")
    working.rename("files/new", "files/other")
    assert [name for name, _ in listing(working, "files/other")] == ["f"]
    working.freeze(2)
    with pytest.raises(NotAllowed) as caught:
        working.rename("files/other", "files/again")
    assert caught.value.errno == errno.EXDEV


def test_a_directory_made_anew_shows_nothing_of_the_committed_one(working: WorkingCopy) -> None:
    with pytest.raises(WrongKind) as caught:
        working.rmdir("files/dir")
    assert caught.value.errno == errno.ENOTEMPTY
    working.unlink("files/dir/one")
    working.unlink("files/dir/two")
    working.rmdir("files/dir")
    assert stat(working, "files/dir") is None
    working.mkdir("files/dir")
    assert listing(working, "files/dir") == []
    assert [(c.key, c.kind) for c in working.union().changes()] == [("files/dir", "removed")]


def test_a_removal_is_only_told_where_the_head_has_something(working: WorkingCopy) -> None:
    working.put("files/new", b"")
    working.unlink("files/new")
    working.unlink("files/old")
    working.put("files/old", b"again")
    working.remove_tree("files/dir")
    assert [(c.key, c.kind) for c in working.union().changes()] == [("files/dir", "removed"), ("files/old", "put")]


def test_harmless_permission_bits_are_kept_and_the_owner_always_gets_in(working: WorkingCopy, head: Slow) -> None:
    working.chmod("files/old", 0o644)
    assert working.disk_stat("files/old") is None  # nothing to change, nothing copied
    working.chmod("files/old", 0o4555)
    found = working.disk_stat("files/old")
    assert found is not None and found.st_mode & 0o7777 == 0o555
    working.utimens("files/old", 1, 2)
    assert stat(working, "files/old").mtime_ns == 2  # type: ignore[union-attr]
    with working.open("files/old", os.O_WRONLY) as file:
        file.pwrite(b"x", 0)
    assert working.disk_stat("files/old").st_mode & 0o777 == 0o555  # type: ignore[union-attr]
    working.chmod("files/old", 0)
    assert working.disk_stat("files/old").st_mode & 0o777 == 0o400  # type: ignore[union-attr]


def test_names_that_lead_elsewhere_are_refused(working: WorkingCopy, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    for key in ("files/../../secret", "../secret", "files//old", "removed/x", "files/a\0b"):
        assert stat(working, key) is None
        for attempt in (
            lambda key=key: read(working, key),
            lambda key=key: listing(working, key),
            lambda key=key: working.open(key, os.O_RDONLY),
            lambda key=key: working.put(key, b""),
            lambda key=key: working.rename("files/old", key),
            lambda key=key: working.remove_tree(key),
            lambda key=key: working.discard(key),
        ):
            with pytest.raises((BadName, NotFound)):
                attempt()
    assert (tmp_path / "secret").read_text() == "s"


def test_discarding_brings_back_the_head_for_one_key_one_directory_or_all(working: WorkingCopy) -> None:
    working.put("files/old", b"x")
    working.remove_tree("files/dir")
    working.put("files/dir/three", b"3")
    working.put("zarr/new", b"y")
    working.discard("files/dir/one")
    assert contents(working)["files/dir/one"] == b"1"
    assert "files/dir/two" not in contents(working) and "files/dir/three" in contents(working)
    working.discard("files")
    assert stat(working, "zarr/new") is not None
    working.discard()
    assert {k: v for k, v in contents(working).items() if v is not None} == HEAD
    assert list(working.union().changes()) == []


def test_errors_know_their_errno(working: WorkingCopy) -> None:
    expected = {
        errno.ENOENT: lambda: working.open("files/none", os.O_RDWR),
        errno.EEXIST: lambda: working.open("files/old", os.O_RDWR | os.O_CREAT | os.O_EXCL),
        errno.EISDIR: lambda: working.open("files/dir", os.O_RDWR),
        errno.ENOTDIR: lambda: working.put("files/old/below", b""),
    }
    for code, attempt in expected.items():
        with pytest.raises(VolfsError) as caught:
            attempt()
        assert caught.value.errno == code


def test_fsync_syncs_the_directories_that_changed_once(working: WorkingCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        real(fd)

    monkeypatch.setattr("os.fsync", fsync)
    with working.open("zarr/a/new", os.O_WRONLY | os.O_CREAT) as file:
        file.fsync()
        assert {"new", "a", "zarr"} <= set(synced)
        synced.clear()
        file.fsync()
    assert synced == ["new"], "no name has changed since"
    synced.clear()
    with working.lock.hold():
        with working.open("zarr/a/newer", os.O_WRONLY | os.O_CREAT) as file:
            file.fsync()
        synced.clear()
        working.rename("zarr/a/newer", "zarr/a/newest")
        working.fsync_dir("zarr/a")
    assert synced == ["a"], "the names above were durable already"
    working.unlink("files/dir/one")
    working.fsync_dir("files/dir")
    assert "dir" in synced
    synced.clear()
    working.put("files/made/below/x", b"x")
    working.rename("files/made", "files/moved")
    working.fsync_dir("files/moved/below")
    assert {"below", "moved", "files"} <= set(synced), "names that are not durable yet move with their directories"


def test_the_time_of_a_directory_tells_when_names_come_and_go_and_can_be_set(working: WorkingCopy) -> None:
    times = [stat(working, "files/dir").mtime_ns]  # type: ignore[union-attr]
    for change in (
        lambda: working.unlink("files/dir/one"),
        lambda: working.put("files/dir/three", b""),
        lambda: working.unlink("files/dir/two"),
    ):
        change()
        times.append(stat(working, "files/dir").mtime_ns)  # type: ignore[union-attr]
    assert len(set(times)) == 4
    working.utimens("files/dir", 5, 5)
    assert stat(working, "files/dir").mtime_ns == 5  # type: ignore[union-attr]
    working.freeze(2)
    assert stat(working, "files/dir").mtime_ns == 5  # type: ignore[union-attr]


def kernel_tells_changes_apart(folder: Path) -> bool:
    """Whether a file that is changed has a time later than any time taken before, once its last was looked at."""
    file = folder / "probe"
    file.touch()
    file.stat()
    now = time.time_ns()
    os.utime(file, ns=(0, 0))
    return file.stat().st_ctime_ns >= now


@pytest.mark.parametrize("dated", [False, True], ids=["as written", "dated by its writer"])
def test_a_chunk_that_comes_by_rename_is_the_newest_change_and_keeps_its_own_time(
    working: WorkingCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dated: bool
) -> None:
    """Also if another thread changes another file in just that moment, as happens when many chunks are written."""
    working.mkdir("zarr/a/c")
    with working.open("zarr/a/c/tmp", os.O_WRONLY | os.O_CREAT) as file:
        file.pwrite(b"voxels", 0)
    if dated:
        working.utimens("zarr/a/c/tmp", 5, 5)
    rename = os.rename
    meanwhile: list[int] = []

    def slow(source: str, target: str) -> None:
        rename(source, target)
        meanwhile.append(working.pulse.tick())

    monkeypatch.setattr(os, "rename", slow)
    own = stat(working, "zarr/a/c/tmp").mtime_ns  # type: ignore[union-attr]
    working.rename("zarr/a/c/tmp", "zarr/a/c/0")
    top = working.union().layers[0]
    found = os.lstat(top.path("zarr/a/c/0"))
    assert found.st_mtime_ns == own
    assert max(found.st_ctime_ns, top.own_time("zarr/a/c/0")) >= meanwhile[0]
    assert not top.own_time("zarr/a/c/0") or not kernel_tells_changes_apart(tmp_path), "a whiteout costs a file"


def test_a_temporary_name_that_is_renamed_in_a_new_directory_needs_no_whiteout(working: WorkingCopy) -> None:
    """Nothing lies below, in a directory that was removed and made anew either: names there are looked up and synced
    without looking around, and go on being so."""
    working.lock.acquire()
    working.remove_tree("files/dir")
    for folder in ("files/new", "files/dir"):
        working.mkdir(folder)
        anchor = working.anchor(folder)
        for name in ("one", "two"):
            working.open(f"{folder}/{name}.partial", os.O_RDWR | os.O_CREAT | os.O_EXCL).close()
            working.rename(f"{folder}/{name}.partial", f"{folder}/{name}")
            assert working.anchor(folder) is anchor
        with pytest.raises(NotFound):
            working.rename(f"{folder}/one.partial", f"{folder}/three")
        assert [name for name, _ in listing(working, folder)] == ["one", "two"]
    working.lock.release()


def test_what_lies_below_is_hidden_in_a_directory_that_seemed_to_be_new(working: WorkingCopy, head: Slow) -> None:
    """A commit puts a layer under it, and the base moves."""
    working.lock.acquire()
    working.mkdir("files/new")
    for name in ("first", "second"):
        working.put(f"files/new/{name}", b"x")
        working.rename(f"files/new/{name}", f"files/new/{name}.moved")
    working.freeze(2)
    assert [name for name, _ in listing(working, "files/new")] == ["first.moved", "second.moved"]
    working.rename("files/new/first.moved", "files/new/last")
    with pytest.raises(AlreadyThere):
        working.open("files/new/second.moved", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    working.merge_back(2)
    assert [name for name, _ in listing(working, "files/new")] == ["last", "second.moved"]
    working.lock.release()
