"""The daemons that run on this machine, found by their command lines.

Decided here: a daemon's command line, its default log, and how others wait for its end. Not here: the daemon
(:mod:`volfs.fuse.daemon`), and when it is started and stopped (:mod:`volfs.fuse.launcher`).

The process table is asked rather than files of our own: it is right after a crash, for other users' daemons, and
whatever the environment says. A pidfd names a process for good, so waiting for one cannot end up waiting for another
that was given its number.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import select
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from volfs.storage.state import state_directory

MODULE = "volfs.fuse.daemon"
_SIGKILL_BIT = 1 << (signal.SIGKILL - 1)


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How to mount. ``cache_size`` is in bytes; None leaves a choice to the daemon. ``log`` may be ``-``: stderr.

    ``uid`` and ``gid`` own whatever has no owner of its own, ``umask`` takes bits from every mode.
    ``default_permissions``: the kernel holds everybody to owner and mode; None means wherever others are let in.
    ``dead_after`` is in seconds: see :func:`volfs.open_store`.
    ``answer_within`` is in seconds: see :mod:`volfs.tree.contract.time_limit`.
    ``kernel`` are options that are the kernel's business, such as ``noexec``.
    """

    read_only: bool = False
    allow_other: bool = False
    default_permissions: bool | None = None
    uid: int | None = None
    gid: int | None = None
    umask: int = 0
    cache_size: int | None = None
    log: str | None = None
    log_level: str = "info"
    log_format: str = "text"
    catalog: Path | None = None
    dead_after: float | None = None
    answer_within: float | None = None
    kernel: tuple[str, ...] = ()

    @property
    def held_to_modes(self) -> bool:
        """True if the kernel checks owner and mode at every access."""
        return self.allow_other if self.default_permissions is None else self.default_permissions

    def arguments(self) -> list[str]:
        """The options as arguments of the daemon's command line."""
        flags = {
            "read-only": self.read_only,
            "allow-other": self.allow_other,
            "default-permissions": self.held_to_modes,
        }
        values = {
            "uid": self.uid,
            "gid": self.gid,
            "umask": f"{self.umask:o}" if self.umask else None,
            "cache-size": self.cache_size,
            "log": self.log,
            "log-level": self.log_level,
            "log-format": self.log_format,
            "catalog": self.catalog,
            "dead-after": None if self.dead_after is None else f"{self.dead_after:g}",
            "answer-within": None if self.answer_within is None else f"{self.answer_within:g}",
            "kernel": ",".join(self.kernel) or None,
        }
        return [f"--{flag}" for flag, on in flags.items() if on] + [
            f"--{name}={value}" for name, value in values.items() if value is not None
        ]


def command_line(store: Path, mountpoint: Path, options: MountOptions, *more: str) -> list[str]:
    """The command that runs a daemon. ``-P`` keeps modules in the working directory from standing in for Python's
    own."""
    start = [sys.executable, "-P", "-m", MODULE, *options.arguments(), *more]
    return [*start, "--", os.path.abspath(store), str(mountpoint)]


def default_log(mountpoint: Path) -> Path:
    """The log of the daemon of ``mountpoint`` if its options name none: one file per mountpoint."""
    told_apart = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:8]
    return state_directory() / f"{mountpoint.name or 'root'}-{told_apart}.log"


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running daemon, or one that was killed and that the kernel holds. Keep it inside :func:`daemon_of`: ``pidfd``
    is open only there."""

    pid: int
    pidfd: int
    store: str
    mountpoint: str
    log: str | None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended already."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def wait(self, seconds: float) -> bool:
        """Wait at most so many seconds for its end. True if it has ended."""
        return readable(self.pidfd, seconds)

    @property
    def killed(self) -> bool:
        """True if it answers no request any more: SIGKILL has reached it, and it ends as soon as the kernel lets it."""
        for thread in _threads(self.pid):
            status = _facts(thread)
            if status.get("State", "Z")[0] in "ZX" or int(status.get("SigPnd", "0"), 16) & _SIGKILL_BIT:
                return True
        return False


def readable(fd: int, seconds: float) -> bool:
    """True if ``fd`` can be read within so many seconds. ``select`` refuses descriptors above 1023."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if seconds == math.inf else max(seconds, 0) * 1000))


@contextlib.contextmanager
def daemon_of(mountpoint: Path) -> Iterator[Daemon | None]:
    """The daemon that serves ``mountpoint``, if one runs."""
    daemon = next((found for pid in _pids() if (found := _open(pid, mountpoint)) is not None), None)
    try:
        yield daemon
    finally:
        if daemon is not None:
            os.close(daemon.pidfd)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _open(pid: int, mountpoint: Path) -> Daemon | None:
    if _arguments(pid, mountpoint) is None:
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    arguments = _arguments(pid, mountpoint)  # again, now that the number cannot pass to another process unseen
    if arguments is None or readable(pidfd, 0):
        os.close(pidfd)
        return None
    log = next((argument.partition("=")[2] for argument in arguments if argument.startswith("--log=")), None)
    return Daemon(pid, pidfd, arguments[-2], arguments[-1], log)


def _threads(pid: int) -> list[Path]:
    try:
        return sorted(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def _facts(thread: Path) -> dict[str, str]:
    try:
        lines = (thread / "status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _command(pid: int) -> bytes:
    """The command line of a process. Of one that was killed, that of a thread which the kernel still holds."""
    with contextlib.suppress(OSError):
        if found := Path(f"/proc/{pid}/cmdline").read_bytes():
            return found
    for thread in _threads(pid):
        with contextlib.suppress(OSError):
            if found := (thread / "cmdline").read_bytes():
                return found
    return b""


def _arguments(pid: int, mountpoint: Path) -> list[str] | None:
    """The command line of ``pid`` if it is a daemon for ``mountpoint``."""
    arguments = os.fsdecode(_command(pid)).rstrip("\0").split("\0")
    is_daemon = len(arguments) > 4 and MODULE in arguments[1:5] and arguments[-3] == "--"
    return arguments if is_daemon and arguments[-1] == str(mountpoint) else None
