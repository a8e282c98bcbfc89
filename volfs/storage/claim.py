"""The process at work on something half made, and whether it can still be alive.

What a process is making in a store (a version, a dataset) lies beside a lock file that it holds. A lock that is free
tells that its holder is gone, but only where the store's filesystem shares locks between machines: sshfs, rclone,
mountpoint and NFS with local locks do not. So the lock file says who holds it too, and what is free is judged by that.

Decided here: what a process says of itself, and what follows from it. Not here: what is locked, and what becomes of it
(:mod:`volfs.versions.commit.publish`, :mod:`volfs.versions.commit.recover`), nor which filesystems share locks
(:mod:`volfs.storage.mount_table`).
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

from volfs.storage.files import FileLock

DAY_SECONDS = 86_400.0
"""How long something half made by a process that cannot be asked must not have grown, to count as left for good."""


class Fate(Enum):
    """The state of the process that holds, or held, a lock."""

    LIVE = "live"
    GONE = "gone"
    UNKNOWN = "unknown"
    """It ran on another machine, whose locks may not be seen here."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A process as it describes itself in a lock file. ``started`` and ``pid_space`` tell one process from a later one
    of its number, and from that of another container; ``token`` tells one taking of a lock from any other."""

    pid: int
    host: str
    machine: str
    boot_id: str
    pid_space: str
    started: int
    token: str

    @classmethod
    def mine(cls) -> Claim:
        """This process, with a new token."""
        return Claim(*_this_process(os.getpid()), token=secrets.token_hex(8))

    @classmethod
    def parse(cls, said: Mapping[str, Any] | None) -> Claim | None:
        """The claim in a lock file or an intent; None if there is none, as in those of an older volfs."""
        values: list[Any] = [] if said is None else [said.get(field.name) for field in fields(cls)]
        kinds = [int if field.name in ("pid", "started") else str for field in fields(cls)]
        return cls(*values) if [type(value) for value in values] == kinds else None

    def facts(self) -> dict[str, Any]:
        """For JSON; :meth:`parse` reads it."""
        return asdict(self)

    def fate(self) -> Fate:
        """The state of this process, whose lock seems to be free."""
        pid, host, machine, boot_id, pid_space, _ = _this_process(os.getpid())
        if self.boot_id == boot_id:
            # One kernel: its locks are what they seem, unless the holder reaches the file through another mount.
            other = self.pid_space == pid_space and self.pid != pid
            return Fate.LIVE if other and _started(self.pid) == self.started else Fate.GONE
        if machine and (self.machine, self.host) == (machine, host):
            return Fate.GONE  # this machine has been started anew since
        return Fate.UNKNOWN


def fate_of(lock: FileLock) -> Fate:
    """The state of a lock's holder. Without a claim in it, a free lock is taken for free."""
    if lock.locked_by_other():
        return Fate.LIVE
    claim = Claim.parse(lock.owner())
    return Fate.GONE if claim is None else claim.fate()


def is_abandoned(lock: FileLock, root: Path, now_ns: int, dead_after: float) -> bool:
    """Whether what lies at and below ``root`` is nobody's any more: its maker, the holder of ``lock``, is gone, or is
    of another machine and has changed nothing for ``dead_after`` seconds.

    ``now_ns`` by the clock that gives files of the store their times.
    """
    fate = fate_of(lock)
    return fate is Fate.GONE or (fate is Fate.UNKNOWN and not changed_since(root, now_ns - int(dead_after * 1e9)))


def changed_since(root: Path, then_ns: int) -> bool:
    """Whether anything at or below ``root`` was changed after a time. Looks no further than it must."""
    try:
        if os.lstat(root).st_mtime_ns > then_ns:
            return True
        with os.scandir(root) as entries:
            folders = []
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime_ns > then_ns:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return any(changed_since(folder, then_ns) for folder in folders)


def store_clock(path: Path) -> int:
    """The time (ns) when a file was last changed, by the clock of its filesystem: now, for a lock just taken."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return time.time_ns()


@lru_cache(maxsize=1)
def _this_process(pid: int) -> tuple[int, str, str, str, str, int]:
    machine, boot_id = (_line(path) for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"))
    try:
        pid_space = os.readlink("/proc/self/ns/pid")
    except OSError:
        pid_space = ""
    return pid, socket.gethostname(), machine, boot_id, pid_space, _started(pid)


def _line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, ValueError):
        return ""


def _started(pid: int) -> int:
    """When a process of this machine began, in clock ticks since the kernel did; -1 if there is none."""
    try:
        # The name of the program stands in parentheses and may hold anything: what follows the last one counts.
        status = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return -1 if status[0] in (b"Z", b"X") else int(status[19])
    except (OSError, ValueError, IndexError):
        return -1
