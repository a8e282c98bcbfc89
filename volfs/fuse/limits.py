"""Settings of the kernel and the process beyond those that FUSE negotiates.

Decided here: limits and sizes. All of it is optional: without the right to change one, things work, slower.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from volfs.fuse.mountpoints import MNT_DETACH
from volfs.storage.mount_table import mounted_at

log = logging.getLogger(__name__)

#: The kernel asks for this much ahead of a sequential reader, in requests of as much: 1.9x the throughput of 128 KiB.
_READ_AHEAD_KIB = 1024
#: Reads of pages that the kernel keeps under way, of all clients together; its default of 12 lets slow ones starve
#: the others.
_MAX_BACKGROUND = 256

#: Clients' open files and the shards they read.
_OPEN_FILES = 65536

#: Python lets a busy thread keep the interpreter for 5 ms; a cache hit answered inline should not wait so long.
_SWITCH_SECONDS = 0.0005

#: Buffers up to this size, for replies and payloads, come from memory that the process has already, and so much of it
#: stays with the process: the C library would otherwise ask the kernel for each anew, page by page.
_KEPT_BUFFER = 32 << 20
_KEPT_BYTES = 16 << 20
#: One pool for all threads: each further one would keep as much again, and holes of its own.
_POOLS = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

_CONNECTIONS = Path("/sys/fs/fuse/connections")


def tune_process() -> None:
    """More open files than the usual 1024, short turns for threads, and memory that is used again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            log.info("open files stay limited to %d: %s", soft, error)
    sys.setswitchinterval(_SWITCH_SECONDS)
    with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BUFFER)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_ARENA_MAX, _POOLS)


def tune_kernel(mountpoint: Path) -> None:
    """Larger read-ahead and more reads in the background. Only root may; users keep the kernel's defaults."""
    mounted = mounted_at(mountpoint)
    if mounted is None or os.geteuid() != 0:
        return
    _write(Path("/sys/class/bdi") / mounted.device / "read_ahead_kb", _READ_AHEAD_KIB)
    with _connections() as folder:
        connection = folder / mounted.device.partition(":")[2]
        _write(connection / "max_background", _MAX_BACKGROUND)
        _write(connection / "congestion_threshold", _MAX_BACKGROUND * 3 // 4)


@contextlib.contextmanager
def ending_connection(device: str) -> Iterator[Callable[[], None]]:
    """A function that ends the FUSE connection of a mount (``major:minor``) from outside: programs that wait for its
    daemon get an error at once. Only root may, and where the kernel's controls are mounted, who mounted it.

    To be taken while the mount is there, and called at any time: the kernel gives the number of a mount that went to
    the next one, of whatever program, and what is held here is the connection's own file.
    """
    fd = None
    with _connections() as folder, contextlib.suppress(OSError):
        fd = os.open(folder / device.partition(":")[2] / "abort", os.O_WRONLY | os.O_CLOEXEC)

    def end() -> None:
        if fd is not None:
            with contextlib.suppress(OSError):
                os.write(fd, b"1")

    try:
        yield end
    finally:
        if fd is not None:
            os.close(fd)


def _write(path: Path, value: int) -> None:
    try:
        path.write_text(str(value))
    except OSError as error:
        log.info("%s stays as it is: %s", path, error.strerror)


@contextlib.contextmanager
def _connections() -> Iterator[Path]:
    """The kernel's controls of FUSE connections. Containers do not mount them, so they are for a moment elsewhere."""
    if _CONNECTIONS.is_dir() and any(_CONNECTIONS.iterdir()):
        yield _CONNECTIONS
        return
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory(prefix="volfs-fusectl-") as name:
        if libc.mount(b"fusectl", os.fsencode(name), b"fusectl", 0, None) != 0:
            log.info("the kernel's controls of FUSE cannot be reached: %s", os.strerror(ctypes.get_errno()))
            yield _CONNECTIONS
            return
        try:
            yield Path(name)
        finally:
            libc.umount2(os.fsencode(name), MNT_DETACH)  # a file of it may stay open
