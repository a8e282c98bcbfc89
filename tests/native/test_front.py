"""The front, with a socket in the place of /dev/fuse: what it answers, what it leaves, what it keeps."""

from __future__ import annotations

import os
import struct
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.kits.kernel import FLUSH, OPEN, OPENDIR, RELEASE, RELEASEDIR, STATELESS, Kernel, readable
from volfs.native import core

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


def test_notes_tell_of_the_first_planes_of_a_slab_and_of_some_others(kernel: Kernel, front: core.Front) -> None:
    stack = front.stack(100, 50)
    front.serve(stack, FIRST, STRIDE, 100, picture())
    planes = np.zeros((50, 3, 5), np.uint8)
    for number in range(2):
        front.lend(stack, number, core.Slab(50, 1, [(planes, 0, 3, 0, 5)]))
    for index in range(100):
        for offset in (0, 8):
            kernel.read(FIRST + index * STRIDE, offset, 8)
    assert readable(front.notes_fd)
    assert front.notes() == [(stack, i) for i in (0, 1, 16, 32, 48, 50, 51, 66, 82, 98)]
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
        "write": 0,
        "fsync": 0,
        "fsyncdir": 0,
        "lookup": 0,
        "getattr": 0,
    }
    for count, nanoseconds, buckets in operations.values():
        assert sum(buckets) == count and (nanoseconds > 0) == (count > 0)


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
