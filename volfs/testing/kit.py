"""Mounts for tests: real ones, in a process of their own, that never outlive the test.

Decided here: what a test may rely on. A mount that cannot be made fails the test, loudly (never a skip: what cannot
mount has not been tested). When the block ends the mount is gone, whatever happened inside; a daemon that had to be
killed, that ended with another status than 0, or that logged an error nobody expected fails the test too.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from volfs.errors import Busy, VolfsError
from volfs.fuse.launcher import mount, unmount
from volfs.fuse.mountpoints import detach
from volfs.fuse.processes import MountOptions, daemon_of
from volfs.storage.mount_table import canonical, mounted_at
from volfs.testing.volumes import KINDS, Kind, Volume, image, segmentation
from volfs.testing.waiting import PATIENCE

__all__ = ["KINDS", "Kind", "Volume", "daemon_pid", "image", "mounted", "segmentation", "take_away", "unexpected"]

#: Seconds in which a daemon that nothing keeps ends after its mount.
_PROMPT = 1.0
_TROUBLE = re.compile(r"^\S+ \S+ (ERROR|CRITICAL) |^Traceback |^Fatal Python error", re.MULTILINE)


@contextlib.contextmanager
def mounted(
    store: Path,
    mountpoint: Path,
    *,
    expect: str | None = None,
    options: MountOptions | None = None,
    read_only: bool = False,
    allow_other: bool = False,
    cache_size: int | None = None,
) -> Iterator[Path]:
    """Mount ``store`` at ``mountpoint`` (made if missing) while the block runs. Gives the mountpoint.

    ``expect`` is a regular expression for the lines of the log that may report errors. The log lies beside the
    mountpoint, as ``NAME.log``.
    """
    mountpoint.mkdir(parents=True, exist_ok=True)
    place = canonical(mountpoint)
    log = place.with_name(f"{place.name}.log")
    before = log.stat().st_size if log.exists() else 0
    chosen = options or MountOptions(read_only=read_only, allow_other=allow_other, cache_size=cache_size)
    process = mount(store, place, replace(chosen, log=str(log)), patience=PATIENCE)
    try:
        yield place
    finally:
        trouble = take_away(place, process)
    with log.open("rb") as lines:
        lines.seek(before)
        said = unexpected(lines.read().decode(errors="replace"), expect)
    assert not said, f"the daemon logged what no test expected:\n{said}"
    assert not trouble, f"{trouble}; its log:\n{log.read_text(errors='replace')[before:]}"
    assert process.returncode == 0, f"the daemon ended with status {process.returncode}; see {log}"


def take_away(mountpoint: Path, process: subprocess.Popen[bytes] | None = None) -> str:
    """Unmount by all means, and end the daemon. Says what more than a plain unmount was needed; "" for nothing.

    A mount namespace that somebody else made meanwhile (a container, a test of one) has a copy of the mount, and so the
    daemon lives on until it is told to end. That is no trouble of this mount's.
    """
    trouble = ""
    mounted = mounted_at(mountpoint)
    try:
        try:
            unmount(mountpoint, patience=_PROMPT)
        except Busy:
            if mounted is None:
                raise
            if mounted_at(mountpoint) is not None:  # still in use, by a program that a busy machine has not ended yet
                unmount(mountpoint, patience=PATIENCE)
            with daemon_of(canonical(mountpoint)) as daemon:
                if daemon is not None and _has_copies(mounted.device):
                    daemon.signal(signal.SIGTERM)
                    daemon.signal(signal.SIGINT)  # the second one says not to wait for who has the copy
                if daemon is not None and not daemon.wait(PATIENCE):
                    raise
    except VolfsError as error:
        trouble = str(error)
    with contextlib.suppress(VolfsError):
        while mounted_at(mountpoint) is not None:
            detach(mountpoint, lazy=True)
    if process is not None:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # its log then holds the stacks of all threads
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            process.kill()
            process.wait(PATIENCE)
            trouble = trouble or "the daemon did not end after the mount was gone"
    return trouble


def _has_copies(device: str) -> bool:
    """Whether a filesystem is mounted in the mount namespace of any process."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            lines = (process / "mountinfo").read_text(errors="replace").splitlines()
            if any(line.split(" ")[2] == device for line in lines):
                return True
    return False


def daemon_pid(mountpoint: Path) -> int:
    """The process that serves ``mountpoint``."""
    with daemon_of(canonical(mountpoint)) as daemon:
        assert daemon is not None, f"no daemon serves {mountpoint}"
        return daemon.pid


def unexpected(log: str, expect: str | None) -> str:
    """The lines of a daemon's log that report trouble, without those that ``expect`` matches."""
    lines = [line for line in log.splitlines() if _TROUBLE.search(line)]
    if expect is not None:
        lines = [line for line in lines if not re.search(expect, line)]
    return "\n".join(lines)
