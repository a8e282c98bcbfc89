"""Files that are lent to be written, with a socket in the place of /dev/fuse; and the numbers of a pulse, in C and in
Python side by side."""

from __future__ import annotations

import errno
import os
import random
import resource
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits.kernel import FSYNC, FSYNCDIR, LOOKUP, WRITE, Kernel, readable
from volfs.native import core
from volfs.storage.store_layout import WorkingLayout
from volfs.testing.waiting import PATIENCE, until
from volfs.versions.working import clock
from volfs.versions.working.clock import Numbers, Pulse

FH, INODE, FOLDER = 7, 1 << 62 | 5, 1 << 62 | 4


class Lent:
    """A file in a directory, both lent, and what C needs besides."""

    def __init__(self, root: Path) -> None:
        self.path = root / "file"
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT)
        self.front = core.Front(27)
        self.pulse = core.Pulse()
        self.pulse_fd = os.open(root / "pulse", os.O_RDWR | os.O_CREAT)
        self.pulse.load(self.pulse_fd)
        self.watch = core.Watch(1234, 5678)
        self.watch.plain = True
        self.file = core.File(self.fd, 2, self.pulse, self.watch)
        self.folder = core.Folder(os.open(root, os.O_RDONLY | os.O_DIRECTORY))
        self.front.lend_file(FH, INODE, self.file)
        self.kernel = Kernel(self.front)

    def close(self) -> None:
        self.front.recall_file(FH)
        self.pulse.unload()
        for fd in (self.fd, self.pulse_fd):
            os.close(fd)
        self.kernel.here.close()
        self.kernel.there.close()

    def sync(self, opcode: int = FSYNC, inode: int = INODE) -> bool:
        """True if it was answered, False if it was left to Python, at once or later."""
        request = self.kernel.request(opcode, inode, struct.pack("<QII", FH, 0, 0))
        if not self.front.answer(request, self.kernel.there.fileno()):
            return False
        deadline = time.monotonic() + PATIENCE
        while not readable(self.kernel.here.fileno(), 0.01):
            left = self.front.left()
            if left is not None:
                assert left == request
                return False
            assert time.monotonic() < deadline
        assert self.kernel.answer()[1] == b""
        return True

    def counted(self) -> dict[str, int]:
        return {name: count for name, (count, *_) in self.front.counts()[3].items() if count}


@pytest.fixture
def lent(tmp_path: Path) -> Iterator[Lent]:
    lent = Lent(tmp_path)
    yield lent
    lent.close()


def test_a_write_is_in_the_file_with_a_time_of_its_own_and_counts_as_a_change(lent: Lent) -> None:
    times = []
    for at, data in enumerate((b"one", b"two", b"")):
        lent.kernel.written(FH, 3 * at, data)
        times.append(os.fstat(lent.fd).st_mtime_ns)
        assert times[-1] == lent.pulse.last
    assert lent.path.read_bytes() == b"onetwo"
    assert times == sorted(set(times))
    assert lent.pulse.changes() == ([2, 2, 2], 3)
    assert os.pread(lent.pulse_fd, 16, 0) == struct.pack("<qq", 3, times[-1])
    assert lent.front.counts()[2] == 6 and lent.counted() == {"write": 3}
    assert (lent.file.changed, lent.file.flushed, lent.file.synced) == (True, False, False)


def test_a_time_that_was_set_ahead_is_followed_by_a_later_one(lent: Lent) -> None:
    ahead = time.time_ns() + 10**15
    os.utime(lent.fd, ns=(ahead, ahead))
    lent.kernel.written(FH, 0, b"x")
    assert os.fstat(lent.fd).st_mtime_ns == ahead + 1
    lent.pulse.floor(ahead + 500)
    lent.kernel.written(FH, 0, b"x")
    assert os.fstat(lent.fd).st_mtime_ns == ahead + 501


def test_a_file_with_several_names_says_so(lent: Lent, tmp_path: Path) -> None:
    os.link(lent.path, tmp_path / "other")
    lent.kernel.written(FH, 0, b"x")
    assert lent.pulse.changes()[0] == [3]
    assert not lent.kernel.flush(FH)
    assert not lent.sync()
    os.unlink(tmp_path / "other")
    assert lent.kernel.flush(FH)


def test_other_files_and_those_taken_back_are_left_to_python(lent: Lent) -> None:
    assert lent.kernel.write(FH + 1, 0, b"x") is None
    assert lent.kernel.write(FH + 256, 0, b"x") is None
    assert not lent.kernel.flush(FH + 1)
    lent.front.recall_file(FH)
    lent.front.recall_file(FH)
    assert lent.kernel.write(FH, 0, b"x") is None
    assert not lent.kernel.flush(FH) and not lent.sync()
    assert lent.path.read_bytes() == b"" and lent.pulse.count == 0


def test_a_request_that_does_not_say_how_long_it_is_is_left_to_python(lent: Lent) -> None:
    for said, data in ((4, b"abc"), (2, b"abc"), (0, b"abc")):
        body = struct.pack("<QQIIQII", FH, 0, said, 0, 0, 0, 0) + data
        assert lent.kernel.ask(WRITE, INODE, body) is None
    whole = lent.kernel.request(WRITE, INODE, struct.pack("<QQIIQII", FH, 0, 3, 0, 0, 0, 0) + b"abc")
    for size in range(len(whole)):
        assert not lent.front.answer(whole[:size], lent.kernel.there.fileno())
    assert lent.path.read_bytes() == b""


def test_a_write_that_fails_or_is_cut_short_is_pythons(lent: Lent) -> None:
    """The kernel writes what fits below a limit, and the rest is an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        lent.kernel.written(FH, 0, bytes(100))
        assert lent.kernel.write(FH, 90, bytes(20)) is None
        assert lent.kernel.write(FH, 200, b"x") is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert lent.counted() == {"write": 1} and lent.pulse.count == 1
    os.close(lent.fd)
    lent.fd = os.open("/dev/null", os.O_RDONLY)  # the same number: not to be written
    assert lent.kernel.write(FH, 0, b"x") is None


def test_a_pulse_that_cannot_be_written_leaves_the_write_to_python(lent: Lent) -> None:
    lent.pulse.unload()
    assert lent.kernel.write(FH, 0, b"x") is None
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        lent.pulse.beat()
    lent.pulse.load(lent.pulse_fd)
    lent.kernel.written(FH, 0, b"x")


def test_a_flush_is_answered_where_it_decides_nothing(lent: Lent) -> None:
    assert lent.kernel.flush(FH) and not lent.file.take_shown()
    lent.kernel.written(FH, 0, b"x")
    lent.watch.add(1)
    assert not lent.kernel.flush(FH) and lent.file.changed and not lent.file.flushed
    assert not lent.sync() and lent.file.changed
    lent.watch.add(-1)
    lent.watch.until(time.monotonic_ns() + 10**12)
    assert not lent.kernel.flush(FH) and lent.file.changed
    lent.watch.until(0)
    assert lent.kernel.flush(FH)
    assert (lent.file.changed, lent.file.flushed, lent.file.synced) == (False, True, False)
    assert lent.file.take_shown() and not lent.file.take_shown()
    lent.watch.add(1)
    assert lent.kernel.flush(FH), "nothing was written since"
    assert lent.counted() == {"write": 1, "flush": 3}


def test_a_sync_is_answered_once_the_place_of_its_name_is_known(lent: Lent) -> None:
    lent.kernel.written(FH, 0, b"x")
    assert not lent.sync()
    lent.front.place_file(lent.file, lent.folder)
    assert lent.sync()
    assert (lent.file.changed, lent.file.flushed, lent.file.synced) == (False, True, True)
    lent.kernel.written(FH, 0, b"y")
    assert not lent.file.synced and lent.sync()
    lent.front.place_file(lent.file, None)
    assert not lent.sync()
    assert lent.counted() == {"write": 2, "fsync": 2}
    assert lent.front.waiting() == []


def test_a_directory_is_synced_until_it_ends(lent: Lent) -> None:
    assert not lent.sync(FSYNCDIR, FOLDER)
    lent.front.lend_folder(FOLDER, lent.folder)
    assert lent.sync(FSYNCDIR, FOLDER) and not lent.sync(FSYNCDIR, FOLDER + 1)
    lent.front.place_file(lent.file, lent.folder)
    assert lent.sync()
    lent.folder.end()
    assert not lent.sync(FSYNCDIR, FOLDER) and not lent.sync()
    lent.front.tidy()
    assert not lent.sync(FSYNCDIR, FOLDER)
    assert lent.counted() == {"fsync": 1, "fsyncdir": 1}


def test_the_names_of_all_directories_above_are_synced_once(lent: Lent, tmp_path: Path) -> None:
    """A pipe, which cannot be synced, tells that it was asked."""
    (tmp_path / "deeper").mkdir()
    here, there = os.pipe()
    os.close(there)
    broken = core.Folder(here)
    unrooted = core.Folder(os.open(tmp_path / "deeper", os.O_RDONLY | os.O_DIRECTORY), broken)
    lent.front.place_file(lent.file, unrooted)
    assert not lent.sync()
    assert broken.error() == errno.EINVAL and unrooted.error() == 0
    assert not lent.sync(), "what is above has ended"
    lent.front.lend_folder(FOLDER, unrooted)
    assert not lent.sync(FSYNCDIR, FOLDER)
    rooted = core.Folder(os.open(tmp_path / "deeper", os.O_RDONLY | os.O_DIRECTORY), lent.folder)
    lent.front.lend_folder(FOLDER, rooted)
    lent.front.place_file(lent.file, rooted)
    assert lent.sync(FSYNCDIR, FOLDER) and lent.sync()
    lent.folder.end()
    assert lent.sync(), "its own name was durable already"


def test_an_error_of_a_sync_goes_to_python_with_the_request(lent: Lent) -> None:
    """A pipe cannot be synced."""
    here, there = os.pipe()
    broken = core.File(there, 4, lent.pulse, lent.watch)
    lent.front.recall_file(FH)
    lent.front.lend_file(FH, INODE, broken)
    lent.front.place_file(broken, lent.folder)
    assert not lent.sync()
    assert broken.take_error() == errno.EINVAL and broken.take_error() == 0
    lent.front.recall_file(FH)
    os.close(there)
    folder = core.Folder(here)
    lent.front.lend_folder(FOLDER, folder)
    assert not lent.sync(FSYNCDIR, FOLDER)
    assert folder.error() == errno.EINVAL and folder.error() == 0
    assert not lent.sync(FSYNCDIR, FOLDER), "it has ended"
    assert lent.counted() == {}


def test_attributes_of_a_file_that_is_written_are_the_files(lent: Lent, tmp_path: Path) -> None:
    os.fchmod(lent.fd, 0o640)
    for data in (b"", b"x", bytes(100_000)):
        lent.kernel.written(FH, 0, data)
        found, told = os.fstat(lent.fd), lent.kernel.attributes(INODE)
        assert told == (INODE, found.st_size, found.st_blocks, found.st_mode, 1, 1234, 5678, found.st_mtime_ns, 4096)
    os.truncate(lent.path, 0)
    os.truncate(lent.path, 1 << 20)
    told = lent.kernel.attributes(INODE)
    assert told is not None and told.blocks == 1, "who takes it for a hole archives zeros"
    assert lent.kernel.attributes(INODE + 1) is None and lent.kernel.attributes(INODE + 256) is None
    for other in ("another name", "none"):
        (os.link(lent.path, tmp_path / "second") if other == "another name" else os.unlink(lent.path))
        assert lent.kernel.attributes(INODE) is None
        (os.unlink(tmp_path / "second") if other == "another name" else None)
    assert lent.counted()["getattr"] == 4


def test_attributes_are_pythons_where_they_are_not_the_disks(lent: Lent) -> None:
    lent.watch.plain = False
    assert lent.kernel.attributes(INODE) is None
    lent.watch.plain = True
    lent.watch.add(1)
    assert lent.kernel.attributes(INODE) is None, "slices that are written may become its voxels first"
    lent.watch.add(-1)
    lent.watch.until(time.monotonic_ns() + 10**12)
    assert lent.kernel.attributes(INODE) is None
    lent.watch.until(0)
    assert lent.kernel.attributes(INODE) is not None


def test_a_file_is_released_where_that_decides_nothing_and_closed_by_python(lent: Lent) -> None:
    lent.kernel.written(FH, 0, b"x")
    lent.watch.add(1)
    assert not lent.kernel.release(FH) and lent.front.released() == []
    lent.watch.add(-1)
    assert lent.kernel.release(FH) and not lent.kernel.release(FH)
    assert lent.file.flushed and not lent.file.changed
    assert lent.kernel.attributes(INODE) is None, "its name's"
    assert lent.front.unclosed == 1 and lent.front.released() == [FH] and lent.front.released() == []
    os.write(lent.fd, b"y")  # still open


def test_a_file_that_is_open_for_writing_is_opened_once_more_and_released_as_often(lent: Lent) -> None:
    assert not lent.kernel.open(INODE, os.O_RDONLY)
    for odd in (os.O_TRUNC, os.O_CREAT, os.O_DIRECT):
        assert not lent.kernel.open(INODE, os.O_RDWR | odd)
    for mode in (os.O_WRONLY, os.O_RDWR | os.O_APPEND):
        assert lent.kernel.open(INODE, mode) == struct.pack("<QII", FH, 2, 0), "its pages are kept"
    assert lent.kernel.release(FH) and lent.front.released() == []
    assert lent.file.take_open() and not lent.file.take_open(), "Python has released the other"
    lent.kernel.written(FH, 0, b"x")
    assert lent.kernel.open(INODE, os.O_RDWR) and lent.kernel.release(FH) and lent.kernel.release(FH)
    assert lent.front.released() == [FH]
    assert not lent.kernel.open(INODE, os.O_RDWR), "it is about to be closed"


def test_a_file_is_opened_by_python_where_more_is_to_be_decided(lent: Lent) -> None:
    lent.watch.add(1)
    assert not lent.kernel.open(INODE, os.O_RDWR)
    lent.watch.add(-1)
    assert lent.kernel.open(INODE, os.O_RDWR)
    lent.watch.walk_on()
    assert not lent.kernel.open(INODE, os.O_RDWR), "it may be of a level that follows another now"
    lent.front.recall_file(FH)
    lent.front.lend_file(FH, INODE, lent.file)
    assert lent.kernel.open(INODE, os.O_RDWR) and lent.file.take_open()
    os.unlink(lent.path)
    assert not lent.kernel.open(INODE, os.O_RDWR), "another file has its name"


def test_a_file_without_a_name_is_released_by_python(lent: Lent) -> None:
    """Its bytes go with it, which may take a while."""
    os.unlink(lent.path)
    assert not lent.kernel.release(FH)


def test_so_many_files_wait_to_be_closed_and_no_more(lent: Lent) -> None:
    """Of half that number Python is told, whether it is asked for anything or not."""
    files = [core.File(lent.fd, 2 * number, lent.pulse, lent.watch) for number in range(1, 300)]
    for fh, file in enumerate(files, FH + 1):
        lent.front.lend_file(fh, INODE + fh, file)
    assert not readable(lent.front.notes_fd)
    answered = [lent.kernel.release(fh) for fh in range(FH + 1, FH + 1 + len(files))]
    assert readable(lent.front.notes_fd) and lent.front.notes() == [] and not readable(lent.front.notes_fd)
    count = lent.front.unclosed
    assert answered == [True] * count + [False] * (len(files) - count) and count == 256
    assert lent.front.released() == list(range(FH + 1, FH + 1 + count))
    assert lent.kernel.release(FH + 1 + count)
    for fh in range(FH + 1, FH + 1 + len(files)):
        lent.front.recall_file(fh)


def test_a_name_that_is_not_there_is_looked_up_without_python(lent: Lent) -> None:
    lent.front.lend_folder(FOLDER, lent.folder)
    assert lent.kernel.look_up(FOLDER, b"none") is None, "it may show something else"
    lent.front.lend_folder(FOLDER, lent.folder, lent.watch, lent.watch.walk)
    assert lent.kernel.look_up(FOLDER, b"none") == (1, None)
    assert lent.kernel.look_up(FOLDER + 1, b"none") is None
    assert lent.kernel.look_up(FOLDER, b"file") is None
    for odd in (b"", b".", b"..", b".hidden", b"a b", b"a/b", "ä".encode(), b"x" * 256, b"a\0b", b"a\n"):
        assert lent.kernel.look_up(FOLDER, odd) is None
    assert lent.kernel.look_up(FOLDER, b"x" * 255) == (1, None)
    unended = lent.kernel.request(LOOKUP, FOLDER, b"none")
    assert not lent.front.answer(unended, lent.kernel.there.fileno())
    assert lent.counted() == {"lookup": 2}


def test_names_are_looked_up_until_they_may_mean_something_else(lent: Lent) -> None:
    def lend() -> None:
        lent.front.lend_folder(FOLDER, lent.folder, lent.watch, lent.watch.walk)
        assert lent.kernel.look_up(FOLDER, b"none") == (1, None)

    lend()
    lent.watch.walk_on()
    assert lent.kernel.look_up(FOLDER, b"none") is None
    lend()
    lent.watch.add(1)
    assert lent.kernel.look_up(FOLDER, b"none") is None
    lent.watch.add(-1)
    lent.watch.plain = False
    assert lent.kernel.look_up(FOLDER, b"none") is None
    lent.watch.plain = True
    lend()
    lent.folder.end()
    assert lent.kernel.look_up(FOLDER, b"none") is None


def test_a_directory_is_looked_up_if_it_is_lent_as_well(lent: Lent, tmp_path: Path) -> None:
    deeper, inside = tmp_path / "deeper", FOLDER + 2
    deeper.mkdir(mode=0o750)
    lent.front.lend_folder(FOLDER, lent.folder, lent.watch, lent.watch.walk)
    assert lent.kernel.look_up(FOLDER, b"deeper") is None
    folder = core.Folder(os.open(deeper, os.O_RDONLY | os.O_DIRECTORY), lent.folder)
    lent.front.lend_folder(inside, folder)
    assert lent.kernel.look_up(FOLDER, b"deeper") is None
    lent.front.lend_folder(inside, folder, lent.watch, lent.watch.walk)
    found = deeper.stat()
    told = (inside, 0, 0, found.st_mode, 1, 1234, 5678, found.st_mtime_ns, 128 << 10)
    assert lent.kernel.look_up(FOLDER, b"deeper") == (1, told)
    lent.front.touch(inside, found.st_mtime_ns + 5)
    assert lent.kernel.look_up(FOLDER, b"deeper") == (1, (*told[:7], found.st_mtime_ns + 5, told[8]))
    lent.front.lend_folder(inside, folder, lent.watch, lent.watch.walk)
    lent.front.touch(inside, 0)
    assert lent.kernel.look_up(FOLDER, b"deeper") == (1, told)
    deeper.rename(tmp_path / "moved")
    deeper.mkdir()
    assert lent.kernel.look_up(FOLDER, b"deeper") is None, "another one"
    folder.end()
    assert lent.kernel.look_up(FOLDER, b"moved") is None


def test_a_directory_is_synced_by_python_until_it_is_settled(lent: Lent, tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    folder = core.Folder(os.open(tmp_path / "deeper", os.O_RDONLY | os.O_DIRECTORY), lent.folder, False)
    lent.front.lend_folder(FOLDER, folder)
    lent.front.place_file(lent.file, folder)
    assert not folder.settled and not lent.sync(FSYNCDIR, FOLDER) and not lent.sync()
    folder.settle()
    assert folder.settled and lent.sync(FSYNCDIR, FOLDER) and lent.sync()


def test_many_sync_at_once_and_each_gets_its_answer(lent: Lent) -> None:
    lent.front.place_file(lent.file, lent.folder)
    lent.front.lend_folder(FOLDER, lent.folder)
    device, asked, left = lent.kernel.there.fileno(), set(), 0
    for turn in range(200):
        opcode, inode = (FSYNC, INODE) if turn % 2 else (FSYNCDIR, FOLDER)
        request = lent.kernel.request(opcode, inode, struct.pack("<QII", FH, 0, 0))
        if lent.front.answer(request, device):
            asked.add(struct.unpack_from("<Q", request, 8)[0])
        else:
            left += 1
        assert len(lent.front.waiting()) <= 8
    assert left, "there are eight threads, and no more"
    assert {lent.kernel.answer()[0] for _ in asked} == asked
    until(lambda: not lent.front.waiting())


def test_whoever_takes_a_file_back_waits_for_its_writer_and_no_longer(tmp_path: Path) -> None:
    lent = Lent(tmp_path)
    ended = threading.Event()

    def write() -> None:
        kernel = Kernel(lent.front)
        with kernel.here, kernel.there:
            while not ended.is_set():
                kernel.write(FH, 0, bytes(1 << 20))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            lent.front.recall_file(FH)
            count = lent.pulse.count
            assert lent.pulse.count == count
            lent.front.lend_file(FH, INODE, lent.file)
    finally:
        ended.set()
        writer.join()
        lent.close()


# ------------------------------------------------------------------------------------------------------- the numbers


def layout(root: Path) -> WorkingLayout:
    root.mkdir(parents=True, exist_ok=True)
    return WorkingLayout(root)


@pytest.mark.parametrize("numbers", [Numbers, core.Pulse])
def test_a_pulse_is_the_same_in_c_and_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: Any) -> None:
    """The log against a list of what was done, whoever did it, over files that are read again."""
    held = True
    pulse = Pulse(layout(tmp_path / "main"), lambda: 0, lambda: held)
    pulse.numbers = numbers()
    picks = random.Random(4)
    done: list[tuple[str, bool]] = []
    last = 0
    for turn in range(3000):
        kind = picks.randrange(6)
        if kind < 3:
            change = (f"files/{turn}", picks.random() < 0.2)
            pulse.beat(change[0], below=change[1])
            done.append(change)
        elif kind == 3:
            now = pulse.tick(last + picks.randrange(3))
            assert now > last
            last = now
        elif kind == 4 and picks.random() < 0.1:
            pulse.reread()  # nobody else has written
        else:
            count = len(done)
            assert pulse.read() == count and pulse.last() == last
            since = max(0, count - picks.randrange(40))
            news = pulse.between(since, count)
            assert news is not None and set(news) == set(done[since:count])
    before = pulse.read()
    other = Pulse(layout(tmp_path / "main"), lambda: 0, lambda: True)
    other.beat("files/theirs")
    held = False
    assert pulse.read() == before + 1 and pulse.between(before, before + 1) is None
    assert other.tick() > last
    pulse.close()
    other.close()


def test_changes_without_python_come_in_their_place_in_the_log(tmp_path: Path) -> None:
    pulse = Pulse(layout(tmp_path / "main"), lambda: 0, lambda: True)
    key: list[str | None] = ["zarr/a/c/0"]
    number = pulse.lend(lambda: key[0])
    assert number % 2 == 0 and number
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    front, file = core.Front(27), core.File(fd, number, pulse.numbers, core.Watch())
    front.lend_file(FH, INODE, file)
    kernel = Kernel(front)
    with kernel.here, kernel.there:
        pulse.beat("zarr/b")
        kernel.written(FH, 0, b"x")
        pulse.beat("files", below=True)
        kernel.written(FH, 0, b"x")
        assert pulse.read() == 4
        assert [pulse.between(n, n + 1) for n in range(4)] == [
            {("zarr/b", False)},
            {("zarr/a/c/0", False)},
            {("files", True)},
            {("zarr/a/c/0", False)},
        ]
        key[0] = None
        kernel.written(FH, 0, b"x")
        assert pulse.between(4, 5) == {("files", False)}, "it has no name any more"
        for _ in range(8193):
            kernel.written(FH, 0, b"x")
        assert pulse.between(5, pulse.read()) is None, "too many"
        kernel.written(FH, 0, b"x")
        front.recall_file(FH)
        pulse.recall(number)
        assert pulse.between(pulse.read() - 1, pulse.read()) == {("files", False)}
    os.close(fd)
    pulse.close()


def test_the_log_of_a_pulse_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_LOG_KEPT", 10)
    pulse = Pulse(layout(tmp_path / "main"), lambda: 0, lambda: True)
    for turn in range(3000):
        pulse.beat(f"files/{turn}")
    assert pulse.between(2989, 3000) is None
    assert len(pulse.between(2990, 3000) or ()) == 10
    pulse.close()
