"""What the kernel and the process are asked for beyond what FUSE negotiates.

Decided here: limits and sizes. All of it is optional: without the right to change one, things work, slower.
"""

from __future__ import annotations

import logging
import resource
import sys
from pathlib import Path

from volfs.fuse.mountpoints import mounted_at

log = logging.getLogger(__name__)

#: The kernel asks for this much ahead of a sequential reader, in requests of as much: 1.9x the throughput of 128 KiB.
_READ_AHEAD_KIB = 1024
#: Read-ahead requests the kernel keeps under way; the default of 12 starves a handful of sequential readers.
_MAX_BACKGROUND = 128

#: Clients' open files and the shards they read.
_OPEN_FILES = 65536

#: Python lets a busy thread keep the interpreter for 5 ms; a cache hit answered inline should not wait so long.
_SWITCH_SECONDS = 0.0005


def tune_process() -> None:
    """More open files than the usual 1024, and short turns for threads."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            log.info("open files stay limited to %d: %s", soft, error)
    sys.setswitchinterval(_SWITCH_SECONDS)


def tune_kernel(mountpoint: Path) -> None:
    """Larger read-ahead and more requests in the background. Only root may; users keep the kernel's defaults."""
    mounted = mounted_at(mountpoint)
    if mounted is None:
        return
    minor = mounted.device.partition(":")[2]
    connection = Path("/sys/fs/fuse/connections") / minor
    for path, value in (
        (Path("/sys/class/bdi") / mounted.device / "read_ahead_kb", _READ_AHEAD_KIB),
        (connection / "max_background", _MAX_BACKGROUND),
        (connection / "congestion_threshold", _MAX_BACKGROUND * 3 // 4),
    ):
        try:
            path.write_text(str(value))
        except OSError as error:
            log.debug("%s stays as it is: %s", path, error.strerror)
