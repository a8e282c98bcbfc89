"""What the FUSE adapter promises whatever tree is below it, shown on a tree in memory through a real mount."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kits.paths import ROOT
from volfs.fuse.adapter import answer
from volfs.fuse.mountpoints import detach, is_broken
from volfs.storage.mount_table import mounted_at
from volfs.testing.file_handles import handle_of, open_by_handle
from volfs.testing.kit import unexpected
from volfs.testing.waiting import PATIENCE

#: The tree in memory fails whenever the kernel forgets an inode, which it does when it likes.
_FORGETTING = "forget: unexpected ValueError|^Traceback"


@dataclass
class Memory:
    mount: Path
    process: subprocess.Popen[str]
    log: Path


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Memory]:
    """A mount that tests share: each leaves it alive."""
    with serving(tmp_path_factory.mktemp("memory")) as memory:
        yield memory


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Memory]:
    """A mount for a test that ends it, or reads all of its log."""
    with serving(tmp_path) as memory:
        yield memory


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Memory]:
    mountpoint, log = folder / "mnt", folder / "log"
    mountpoint.mkdir()
    command = [sys.executable, "-m", "tests.kits.memory_tree", str(mountpoint), str(log)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n", log.read_text()
        yield Memory(mountpoint, process, log)
    finally:
        with contextlib.suppress(Exception):
            while mounted_at(mountpoint) is not None:
                detach(mountpoint, lazy=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        process.kill()
        process.wait()
        process.stdout.close()


def error_of(path: Path) -> int:
    with pytest.raises(OSError) as caught:
        os.stat(path)
    assert caught.value.errno is not None
    return caught.value.errno


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("raise-damaged", errno.EIO),
        ("raise-readonly", errno.EROFS),
        ("raise-oserror", errno.EDQUOT),
        ("raise-group", errno.EBUSY),
        ("raise-memory", errno.ENOMEM),
        ("raise-nothing-known", errno.EIO),
        ("absent", errno.ENOENT),
    ],
)
def test_every_error_of_the_tree_becomes_its_errno(memory: Memory, name: str, expected: int) -> None:
    assert error_of(memory.mount / name) == expected
    assert (memory.mount / "hello.txt").read_text() == "hello\n", "the mount lives on"


def test_a_defect_is_an_io_error_and_a_traceback_in_the_log_and_the_mount_lives_on(own: Memory) -> None:
    with pytest.raises(OSError, match="Input/output"):
        (own.mount / "wrong-type").read_bytes()
    assert error_of(own.mount / "raise-nothing-known") == errno.EIO
    assert (own.mount / "hello.txt").read_text() == "hello\n"
    log = own.log.read_text()
    assert "ValueError: a defect" in log and "Traceback" in log
    assert unexpected(log, None) and not unexpected(log, "answered with EIO|^Traceback")


def test_bytes_come_through_whole_in_pieces_and_mapped(memory: Memory) -> None:
    import mmap

    expected = bytes(range(256)) * 8192
    big = memory.mount / "big"
    assert big.stat().st_size == len(expected) and big.read_bytes() == expected
    with big.open("rb") as file:
        file.seek(100_001)
        assert file.read(77_777) == expected[100_001:177_778]
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[1_000_000:1_000_100] == expected[1_000_000:1_000_100]
    assert (memory.mount / "strided").read_bytes() == bytes(range(0, 200, 2)), "a view with gaps is still right"


def test_times_and_sizes_are_exact(memory: Memory) -> None:
    status = (memory.mount / "big").stat()
    assert status.st_mtime_ns == 1_700_000_000_123_456_789
    assert status.st_blocks == 2 * 2**20 // 512 and status.st_nlink == 1
    os.utime(memory.mount / "big", ns=(1, 1_600_000_000_000_000_001))
    assert (memory.mount / "big").stat().st_mtime_ns == 1_600_000_000_000_000_001


def test_a_listing_of_thousands_has_every_name_once(memory: Memory) -> None:
    folder = memory.mount / "many"
    folder.mkdir()
    names = [f"{number:05}-{'x' * 60}" for number in range(3000)]
    for name in names:
        (folder / name).touch()
    listed = sorted(os.listdir(folder))
    assert listed == names
    with os.scandir(folder) as entries:
        assert {entry.name: entry.inode() for entry in entries} == {
            name: (folder / name).stat().st_ino for name in names
        }


def test_names_change_as_on_any_filesystem(memory: Memory) -> None:
    top = memory.mount
    (top / "dir").mkdir(mode=0o750)
    (top / "dir" / "file").write_bytes(b"one")
    os.link(top / "dir" / "file", top / "linked")
    os.rename(top / "dir" / "file", top / "moved")
    os.symlink("moved", top / "pointer")
    assert (top / "pointer").read_bytes() == b"one" and os.readlink(top / "pointer") == "moved"
    assert not (top / "dir" / "file").exists()
    os.mknod(top / "made", 0o600)
    assert (top / "made").stat().st_size == 0
    os.truncate(top / "moved", 2)
    assert (top / "linked").read_bytes() == b"on"
    os.rmdir(top / "dir")
    os.unlink(top / "linked")
    assert not (top / "linked").exists()
    os.chmod(top / "moved", 0o600)
    assert (top / "moved").stat().st_mode & 0o777 == 0o600


def test_there_are_no_extended_attributes_and_nobody_asks_twice(memory: Memory) -> None:
    top = memory.mount
    (top / "file").write_bytes(b"one")
    for ask in (
        lambda: os.getxattr(top / "file", "user.a"),
        lambda: os.listxattr(top / "file"),
        lambda: os.setxattr(top / "file", "user.a", b"b"),
    ):
        with pytest.raises(OSError) as refused:
            ask()
        assert refused.value.errno == errno.EOPNOTSUPP, "programs that hear this ask no more"
    with pytest.raises(OSError) as refused:
        os.removexattr(top / "file", "user.a")
    assert refused.value.errno == errno.ENODATA, "mv is quiet"


def test_an_error_at_close_reaches_the_closer(memory: Memory) -> None:
    file = (memory.mount / "new").open("wb", buffering=0)
    file.write(b"refuse")
    with pytest.raises(OSError, match="Invalid argument"):
        file.close()


def test_dot_lookups_find_an_inode_after_the_kernel_has_dropped_it(memory: Memory) -> None:
    """As an NFS server does, through open_by_handle_at(2)."""
    handle = handle_of(memory.mount / "hello.txt")
    folder = os.open(memory.mount, os.O_RDONLY)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("2")
        fd = open_by_handle(folder, handle)
        try:
            assert os.read(fd, 100) == b"hello\n"
        finally:
            os.close(fd)
    finally:
        os.close(folder)


def test_many_slow_readers_delay_no_lookup(memory: Memory) -> None:
    def read_slowly() -> None:
        fd = os.open(memory.mount / "slow", os.O_RDONLY | os.O_DIRECT)
        with contextlib.suppress(OSError):
            os.pread(fd, 4096, 0)
        os.close(fd)

    before = (memory.mount / "hello.txt").stat()
    readers = [threading.Thread(target=read_slowly, daemon=True) for _ in range(130)]
    for reader in readers:
        reader.start()
    time.sleep(1.0)  # for the reads to arrive: each takes three seconds then
    assert error_of(memory.mount / "not-there") == errno.ENOENT
    assert (memory.mount / "big").stat().st_ino != before.st_ino
    waiting = sum(reader.is_alive() for reader in readers)
    for reader in readers:
        reader.join(PATIENCE)
    assert waiting > 100, "a lookup waited for slow readers"


def test_a_signal_unmounts_and_lets_a_read_under_way_finish(own: Memory) -> None:
    reader = subprocess.Popen(["cat", str(own.mount / "slow")], stdout=subprocess.PIPE)
    time.sleep(0.5)
    own.process.send_signal(signal.SIGTERM)
    data, _ = reader.communicate(timeout=PATIENCE)
    assert data == b"x" * 4096 and reader.returncode == 0
    assert own.process.wait(PATIENCE) == 0
    assert mounted_at(own.mount) is None and os.listdir(own.mount) == []
    assert "tree closed" in own.log.read_text()


def test_a_signal_takes_the_mount_from_programs_that_stay(own: Memory) -> None:
    fd = os.open(own.mount / "big", os.O_RDONLY)
    own.process.send_signal(signal.SIGINT)
    assert own.process.wait(PATIENCE) == 0
    assert mounted_at(own.mount) is None
    with pytest.raises(OSError) as caught:
        os.pread(fd, 10, 1_500_000)
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    with contextlib.suppress(OSError):
        os.close(fd)


def test_a_killed_daemon_leaves_a_broken_mount_and_not_an_empty_directory(own: Memory) -> None:
    own.process.kill()
    own.process.wait(PATIENCE)
    assert is_broken(own.mount)
    with pytest.raises(OSError) as caught:
        os.listdir(own.mount)
    assert caught.value.errno == errno.ENOTCONN


def test_a_program_killed_while_it_waits_is_no_trouble(own: Memory) -> None:
    readers = [subprocess.Popen(["cat", str(own.mount / "slow")], stdout=subprocess.DEVNULL) for _ in range(5)]
    time.sleep(0.5)
    for reader in readers:
        reader.kill()
        reader.wait(PATIENCE)
    time.sleep(3)  # until the daemon answers those who have gone
    assert (own.mount / "hello.txt").read_text() == "hello\n"
    assert not unexpected(own.log.read_text(), _FORGETTING)


def test_plain_umount_ends_the_daemon_in_peace(own: Memory) -> None:
    subprocess.run(["umount", str(own.mount)], check=True)
    assert own.process.wait(PATIENCE) == 0
    log = own.log.read_text()
    assert "tree closed" in log and not unexpected(log, _FORGETTING)


def test_store_names_with_commas_are_shown_as_they_are(memory: Memory) -> None:
    mount = mounted_at(memory.mount)
    assert mount is not None and mount.is_volfs and mount.source == "memory, with a comma"


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.ECONNABORTED])
def test_a_store_on_a_dead_mount_does_not_make_ours_look_dead(number: int) -> None:
    assert answer("read", OSError(number, os.strerror(number))).errno == errno.EIO
