"""The front, with a socket in the place of /dev/fuse: what it answers, what it leaves, what it keeps."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
import termios
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.kits.kernel import FLUSH, IOCTL, OPEN, OPENDIR, READ, RELEASE, RELEASEDIR, STATELESS, Kernel, readable
from volfs.native import core
from volfs.testing.waiting import PATIENCE, until

DIRECTORY = 5 << 27
FIRST, STRIDE, COUNT, THICK = DIRECTORY + 1, 8, 10, 4
KEEP_CACHE, CACHE_DIR, NOFLUSH = 2, 8, 32


@pytest.fixture
def front() -> core.Front:
    return core.Front(27)


@pytest.fixture
def kernel(front: core.Front) -> Iterator[Kernel]:
    kernel = Kernel(front)
    with kernel.here, kernel.there:
        yield kernel


def picture(planes: int = 1) -> core.Picture:
    return core.Picture(
        png=False, rows=3, row_bytes=5, item=1, swap=False, fill=b"f", planes=planes, prefix=b"head", suffix=b"tail"
    )


VOXELS = np.random.default_rng(3).integers(0, 255, (COUNT, 3, 5), dtype=np.uint8)


def slab(number: int) -> core.Slab:
    planes = VOXELS[number * THICK : (number + 1) * THICK]
    return core.Slab(len(planes), 1, [(planes.copy(), 0, 3, 0, 5)])


@pytest.fixture
def stack(front: core.Front) -> int:
    number: int = front.stack(COUNT, THICK)
    assert front.serve(number, FIRST, STRIDE, COUNT, picture())
    return number


def whole(index: int) -> bytes:
    return b"head" + VOXELS[index].tobytes() + b"tail"


def test_a_file_is_opened_with_no_state_and_its_pages_are_kept(kernel: Kernel, stack: int) -> None:
    answer = kernel.open(FIRST + 3 * STRIDE)
    assert answer is not None
    fh, flags, _ = struct.unpack("<QII", answer)
    assert (fh, flags) == ((FIRST + 3 * STRIDE) | STATELESS, KEEP_CACHE | NOFLUSH)


@pytest.mark.parametrize(
    "inode",
    [DIRECTORY, FIRST - 1, FIRST + 1, FIRST + STRIDE * COUNT, FIRST + (1 << 27), 1, 0, 2**64 - 1],
)
def test_other_files_are_left_to_python(kernel: Kernel, stack: int, inode: int) -> None:
    assert kernel.open(inode) is None
    assert kernel.read(inode, 0, 10) is None


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_RDONLY | os.O_DIRECT])
def test_who_wants_more_than_to_read_is_left_to_python(kernel: Kernel, stack: int, flags: int) -> None:
    assert kernel.open(FIRST, flags) is None


def test_reads_are_answered_from_what_is_lent_and_no_others(kernel: Kernel, front: core.Front, stack: int) -> None:
    assert kernel.read(FIRST, 0, 100) is None
    assert front.lend(stack, 0, slab(0)) and front.lend(stack, 2, slab(2))
    for index in range(COUNT):
        answer = kernel.read(FIRST + index * STRIDE, 0, 1 << 20)
        assert answer == (None if index // THICK == 1 else whole(index))
    assert kernel.read(FIRST, 2, 7) == whole(0)[2:9]
    assert kernel.read(FIRST, 23, 7) == b""
    assert kernel.read(FIRST, 1 << 40, 7) == b""
    front.recall(stack, 0)
    assert kernel.read(FIRST, 0, 100) is None
    assert kernel.read(FIRST + 2 * THICK * STRIDE, 0, 100) == whole(2 * THICK)


def test_files_that_python_opened_are_pythons(kernel: Kernel, front: core.Front, stack: int) -> None:
    front.lend(stack, 0, slab(0))
    assert kernel.read(FIRST, 0, 10, fh=7) is None
    assert kernel.read(FIRST, 0, 10, fh=(FIRST + STRIDE) | STATELESS) is None
    assert kernel.ask(RELEASE, FIRST, struct.pack("<QIIQ", 7, 0, 0, 0)) is None
    assert kernel.ask(FLUSH, FIRST, struct.pack("<QIIQ", 7, 0, 0, 0)) is None


def test_closing_is_answered_also_when_nothing_is_known_of_the_file_any_more(
    kernel: Kernel, front: core.Front, stack: int
) -> None:
    front.drop(stack)
    assert kernel.open(FIRST) is None
    assert kernel.ask(FLUSH, FIRST, struct.pack("<QIIQ", FIRST | STATELESS, 0, 0, 0)) == b""
    assert kernel.ask(RELEASE, FIRST, struct.pack("<QIIQ", FIRST | STATELESS, 0, 0, 0)) == b""


def test_a_file_of_several_planes_is_read_across_slabs(kernel: Kernel, front: core.Front) -> None:
    stack = front.stack(COUNT, THICK)
    assert front.serve(stack, FIRST, 1, 2, picture(planes=5))
    for number in range(3):
        front.lend(stack, number, slab(number))
    for file in range(2):
        expected = b"head" + VOXELS[5 * file : 5 * file + 5].tobytes() + b"tail"
        assert kernel.read(FIRST + file, 0, 1000) == expected
        assert kernel.read(FIRST + file, 30, 40) == expected[30:70]


def test_a_directory_is_opened_so_that_its_listing_is_kept(kernel: Kernel, front: core.Front) -> None:
    def opened(inode: int) -> tuple[int, int]:
        answer = kernel.ask(OPENDIR, inode, bytes(8))
        assert answer is not None
        fh, flags, _ = struct.unpack("<QII", answer)
        return fh, flags

    assert opened(DIRECTORY) == (DIRECTORY, 0)
    front.keep_listing(DIRECTORY)
    assert opened(DIRECTORY) == (DIRECTORY, KEEP_CACHE | CACHE_DIR)
    assert opened(DIRECTORY + (1 << 27)) == (DIRECTORY + (1 << 27), 0)
    assert kernel.ask(OPENDIR, 0, bytes(8)) is None
    front.forget_directories()
    assert opened(DIRECTORY) == (DIRECTORY, 0)
    assert kernel.ask(RELEASEDIR, DIRECTORY, bytes(24)) == b""


def test_plain_files_of_a_directory_are_opened_here_and_read_by_python(kernel: Kernel, front: core.Front) -> None:
    assert kernel.open(DIRECTORY + 5) is None
    front.keep_files(DIRECTORY)
    answer = kernel.open(DIRECTORY + 5)
    assert answer is not None
    assert struct.unpack("<QII", answer)[:2] == ((DIRECTORY + 5) | STATELESS, KEEP_CACHE | NOFLUSH)
    assert kernel.read(DIRECTORY + 5, 0, 10) is None
    assert kernel.ask(RELEASE, DIRECTORY + 5, struct.pack("<QIIQ", (DIRECTORY + 5) | STATELESS, 0, 0, 0)) == b""
    assert kernel.open(DIRECTORY + 5, os.O_RDWR) is None
    for inode in (DIRECTORY, DIRECTORY + (1 << 27) + 5, DIRECTORY - 1, 5, 0):
        assert kernel.open(inode) is None
    front.forget_directories()
    assert kernel.open(DIRECTORY + 5) is None


def test_fill_is_the_fill_value(kernel: Kernel, front: core.Front, stack: int) -> None:
    front.lend(stack, 0, core.Slab(4, 1, [(None, 0, 3, 0, 5)]))
    assert kernel.read(FIRST, 0, 100) == b"head" + b"f" * 15 + b"tail"


def test_memory_is_kept_while_it_is_lent_and_no_longer(front: core.Front, stack: int) -> None:
    class Memory(np.ndarray):
        pass

    array = np.zeros((4, 3, 5), np.uint8).view(Memory)
    alive = weakref.ref(array)
    lent = core.Slab(4, 1, [(array, 0, 3, 0, 5)])
    front.lend(stack, 0, lent)
    del array, lent
    assert alive() is not None
    front.recall(stack, 0)
    assert alive() is None


def test_what_cannot_be_served_is_refused(front: core.Front, stack: int) -> None:
    assert not front.serve(stack, FIRST, STRIDE, COUNT, picture())  # twice
    assert not front.serve(stack + 1, FIRST + 1, STRIDE, COUNT, picture())  # no such stack
    assert not front.serve(stack, FIRST + 1, STRIDE, COUNT + 1, picture())  # more than there are planes
    assert not front.serve(stack, FIRST + 1, 1 << 27, 2, picture())  # not in one directory
    assert not front.serve(stack, FIRST | STATELESS, STRIDE, COUNT, picture())
    assert not front.lend(stack, 3, slab(0)) and not front.lend(stack, -1, slab(0))
    assert not front.lend(stack + 1, 0, slab(0))
    front.recall(stack, 99)
    front.drop(99)


@pytest.mark.parametrize("size", [0, 1, 39, 40, 47])
def test_requests_that_are_cut_off_are_left_to_python(front: core.Front, stack: int, size: int) -> None:
    header = struct.pack("<IIQQIIIHH", 48, OPEN, 2, FIRST, 0, 0, 1, 0, 0) + struct.pack("<II", 0, 0)
    assert not front.answer(header[:size], -1)


def test_an_answer_that_cannot_be_sent_is_left_to_python(front: core.Front, stack: int) -> None:
    header = struct.pack("<IIQQIIIHH", 48, OPEN, 2, FIRST, 0, 0, 1, 0, 0) + struct.pack("<II", 0, 0)
    with Path("/dev/full").open("wb") as full:
        assert not front.answer(header, full.fileno())
    assert front.counts()[3]["open"][0] == 0


def test_notes_tell_of_the_first_planes_of_a_slab_of_one_near_its_end_and_of_some_others(
    kernel: Kernel, front: core.Front
) -> None:
    stack = front.stack(100, 50)
    front.serve(stack, FIRST, STRIDE, 100, picture())
    planes = np.zeros((50, 3, 5), np.uint8)
    for number in range(2):
        front.lend(stack, number, core.Slab(50, 1, [(planes, 0, 3, 0, 5)]))
    for index in range(100):
        for offset in (0, 8):
            kernel.read(FIRST + index * STRIDE, offset, 8)
    assert readable(front.notes_fd)
    assert front.notes() == [(stack, i) for i in (0, 1, 16, 32, 46, 48, 50, 51, 66, 82, 96, 98)]
    assert front.notes() == []
    assert not readable(front.notes_fd)


def test_notes_that_nobody_takes_are_dropped(kernel: Kernel, front: core.Front) -> None:
    stack = front.stack(2000, 1)
    front.serve(stack, FIRST, STRIDE, 2000, picture())
    for index in range(2000):
        front.lend(stack, index, core.Slab(1, 1, [(None, 0, 3, 0, 5)]))
        kernel.read(FIRST + index * STRIDE, 0, 8)
    taken = 0
    while notes := front.notes():
        taken += len(notes)
    assert 0 < taken < 2000


def test_answers_are_counted_with_their_times(kernel: Kernel, front: core.Front, stack: int) -> None:
    front.lend(stack, 0, slab(0))
    kernel.open(FIRST)
    kernel.read(FIRST, 0, 10)
    kernel.read(FIRST, 20, 10)
    kernel.read(FIRST + 8 * STRIDE, 0, 10)
    nbytes, copied, written, operations = front.counts()
    assert (nbytes, copied, written) == (13, 6, 0)
    assert {name: count for name, (count, _, _) in operations.items()} == {
        "open": 1,
        "read": 2,
        "flush": 0,
        "release": 0,
        "opendir": 0,
        "releasedir": 0,
        "ioctl": 0,
        "write": 0,
        "fsync": 0,
        "fsyncdir": 0,
        "lookup": 0,
        "getattr": 0,
    }
    for count, nanoseconds, buckets in operations.values():
        assert sum(buckets) == count and (nanoseconds > 0) == (count > 0)


def test_whether_a_file_is_a_terminal_is_answered_as_libfuse_does(kernel: Kernel, front: core.Front) -> None:
    assert kernel.refused(IOCTL, FIRST, struct.pack("<QIIQII", 7, 0, 0x5401, 0, 0, 0)) == errno.ENOSYS
    assert front.counts()[3]["ioctl"][0] == 1


def read_whole(kernel: Kernel, index: int) -> None:
    """As the kernel does: what it was given it asks for no more."""
    inode = FIRST + index * STRIDE
    assert kernel.open(inode) is not None
    if all(file != inode for file, *_ in kernel.stored):
        assert kernel.read(inode, 0, 100) == whole(index)
    close(kernel, inode)


def close(kernel: Kernel, inode: int) -> None:
    assert kernel.ask(RELEASE, inode, struct.pack("<QIIQ", inode | STATELESS, 0, 0, 0)) == b""


def given(kernel: Kernel) -> list[int]:
    """Which files the kernel was given since the last time."""
    assert all((at, data) == (0, whole((inode - FIRST) // STRIDE)) for inode, at, data in kernel.stored)
    found = [(inode - FIRST) // STRIDE for inode, *_ in kernel.stored]
    kernel.stored.clear()
    return found


@pytest.fixture
def lent(front: core.Front, stack: int) -> int:
    for number in range(-(-COUNT // THICK)):
        front.lend(stack, number, slab(number))
    return stack


@pytest.mark.parametrize("way", [range(COUNT), range(COUNT - 1, -1, -1)])
def test_who_reads_file_after_file_is_given_the_next_one_before_it_is_opened(
    kernel: Kernel, front: core.Front, lent: int, way: range
) -> None:
    for index in way:
        read_whole(kernel, index)
    assert given(kernel) == list(way)[2:]
    assert front.ahead() == (COUNT - 2, (COUNT - 2) * len(whole(0)))
    assert front.counts()[:2] == (2 * len(whole(0)), VOXELS.nbytes), "each voxel is copied once"
    for index in way:  # again: the kernel has them all
        assert kernel.open(FIRST + index * STRIDE) is not None
    assert given(kernel) == []


def test_what_the_kernel_asks_for_again_it_is_given_again(kernel: Kernel, lent: int) -> None:
    for _ in range(2):
        for index in range(COUNT):
            read_whole(kernel, index)
        assert given(kernel) == [2, 3, 4, 5, 6, 7, 8, 9]


def test_a_file_that_may_be_open_is_not_given_ahead(kernel: Kernel, front: core.Front, lent: int) -> None:
    """The kernel would have whoever gives it wait for those who read it, and they wait for an answer."""
    python = FIRST + 3 * STRIDE
    assert kernel.open(python, os.O_RDONLY | os.O_DIRECT) is None  # Python opens it
    for index in range(3):
        read_whole(kernel, index)
    assert given(kernel) == [2]
    kernel.ask(RELEASE, python, struct.pack("<QIIQ", 7, 0, 0, 0))
    read_whole(kernel, 1)
    read_whole(kernel, 2)
    assert given(kernel) == [3]


def test_of_more_open_files_than_can_be_remembered_none_is_given_ahead(kernel: Kernel, lent: int) -> None:
    for number in range(5000):
        kernel.open((9 << 27) + number)
    for index in range(4):
        read_whole(kernel, index)
    assert given(kernel) == []


def test_of_opens_and_releases_in_any_order_those_that_are_open_are_known(kernel: Kernel, lent: int) -> None:
    pick = np.random.default_rng(7)
    files = [FIRST + index * STRIDE for index in range(COUNT)] + [(9 << 27) + number for number in range(2000)]
    opens: Counter[int] = Counter()
    for _ in range(20_000):
        inode = files[pick.integers(len(files))]
        if pick.random() < 0.5:
            kernel.open(inode)
            opens[inode] += 1
        else:
            kernel.ask(RELEASE, inode, struct.pack("<QIIQ", inode | STATELESS, 0, 0, 0))
            opens[inode] = max(0, opens[inode] - 1)
    for inode in files:
        for _ in range(opens[inode] - (inode == FIRST + 3 * STRIDE)):
            kernel.ask(RELEASE, inode, struct.pack("<QIIQ", inode | STATELESS, 0, 0, 0))
    kernel.stored.clear()
    assert opens[FIRST + 3 * STRIDE] > 1
    for index in (0, 1, 2, 6, 5):
        read_whole(kernel, index)
    assert given(kernel) == [2, 4], "only the file that is still open is not"


@pytest.mark.parametrize("size", [10, 22])
def test_who_reads_no_file_whole_is_given_nothing_ahead(kernel: Kernel, lent: int, size: int) -> None:
    for index in range(5):
        kernel.open(FIRST + index * STRIDE)
        kernel.read(FIRST + index * STRIDE, 0, size)
        close(kernel, FIRST + index * STRIDE)
    assert given(kernel) == []


def test_planes_that_are_not_lent_are_not_given_ahead(kernel: Kernel, front: core.Front, lent: int) -> None:
    front.recall(lent, 1)
    for index in range(4):
        read_whole(kernel, index)
    assert given(kernel) == [2, 3]


def messages(sent: bytes) -> Iterator[tuple[int, bytes]]:
    """The number of the request that each answers, 0 for what is given unasked, and its bytes."""
    while sent:
        length, _, unique = struct.unpack_from("<IiQ", sent)
        yield unique, sent[16:length]
        sent = sent[length:]


def large(front: core.Front, side: int, count: int) -> list[bytes]:
    """Have files of side² voxels shown; what each is."""
    planes = np.random.default_rng(4).integers(0, 255, (count, side, side), dtype=np.uint8)
    stack = front.stack(count, count)
    shown = core.Picture(
        png=False, rows=side, row_bytes=side, item=1, swap=False, fill=b"f", planes=1, prefix=b"head", suffix=b"tail"
    )
    assert front.serve(stack, FIRST, STRIDE, count, shown)
    front.lend(stack, 0, core.Slab(count, 1, [(planes, 0, side, 0, side)]))
    return [b"head" + plane.tobytes() + b"tail" for plane in planes]


def open_large(front: core.Front, kernel: Kernel, device: int, index: int) -> None:
    assert front.answer(kernel.request(OPEN, FIRST + index * STRIDE, bytes(8)), device)


def read_large(front: core.Front, kernel: Kernel, device: int, index: int) -> None:
    inode = FIRST + index * STRIDE
    for at in (0, 1 << 20):
        asked = struct.pack("<QQIIQII", inode | STATELESS, at, 1 << 20, 0, 0, 0, 0)
        assert front.answer(kernel.request(READ, inode, asked), device)


def test_large_files_are_given_several_at_a_time_and_in_pieces(
    front: core.Front, kernel: Kernel, tmp_path: Path
) -> None:
    files, path = large(front, 1200, 6), tmp_path / "device"  # a socket takes no messages of this size
    with path.open("ab") as device:
        for index in range(2):
            open_large(front, kernel, device.fileno(), index)
            read_large(front, kernel, device.fileno(), index)
        until(lambda: front.ahead() == (3, 3 * len(files[0])))
    found = [
        (struct.unpack_from("<QQI", body), body[24:]) for unique, body in messages(path.read_bytes()) if not unique
    ]
    assert sorted(where for where, _ in found) == [
        (FIRST + index * STRIDE, at, size)
        for index in (2, 3, 4)
        for at, size in ((0, 1 << 20), (1 << 20, len(files[0]) - (1 << 20)))
    ]
    for (inode, at, size), data in found:
        assert data == files[(inode - FIRST) // STRIDE][at : at + size]


def waiting_in(pipe: int) -> int:
    """Bytes that a pipe holds."""
    answer = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(answer, sys.byteorder)


HALF_A_PIPE = 1 << 15
"""More than answers to requests are, and less than a pipe takes of a file."""


def test_no_file_is_opened_while_it_is_given(front: core.Front, kernel: Kernel) -> None:
    """Who has opened it may read it, and the kernel has the one wait for the other."""
    files, going, sent = large(front, 600, 3), threading.Event(), bytearray()
    there, here = os.pipe()

    def take() -> None:
        while data := os.read(there, 1 << 16):
            sent.extend(data)
            going.wait()

    going.set()
    taking = threading.Thread(target=take)
    taking.start()
    open_large(front, kernel, here, 0)
    read_large(front, kernel, here, 0)
    going.clear()
    open_large(front, kernel, here, 1)  # and what comes next is given, as far as the pipe takes it
    until(lambda: waiting_in(there) > HALF_A_PIPE, "the next file is being given")
    opening = threading.Thread(target=open_large, args=(front, kernel, here, 2))
    opening.start()
    opening.join(0.2)
    waited = opening.is_alive()
    going.set()
    opening.join(PATIENCE)
    front.stop()
    os.close(here)
    taking.join(PATIENCE)
    os.close(there)
    *_, (given, body), (opened, _) = messages(bytes(sent))
    assert waited and (given, body[24:]) == (0, files[2]) and opened


def test_readers_and_those_who_take_back_do_not_meet(front: core.Front, stack: int) -> None:
    """Memory is taken back, and given away, while others read: they get it as it was, or are left to Python."""
    ended = threading.Event()
    wrong: list[bytes] = []

    def read() -> None:
        kernel = Kernel(front)
        with kernel.here, kernel.there:
            while not ended.is_set():
                for index in range(THICK):
                    answer = kernel.read(FIRST + index * STRIDE, 0, 100)
                    if answer is not None and answer != whole(index):
                        wrong.append(answer)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(400):
        planes = VOXELS[:THICK].copy()
        front.lend(stack, 0, core.Slab(THICK, 1, [(planes, 0, 3, 0, 5)]))
        front.recall(stack, 0)
        planes[...] = 0
    front.drop(stack)
    ended.set()
    for thread in threads:
        thread.join()
    assert wrong == []
