"""A network that only one test run sees, with real servers in it.

Decided here: where servers of the tests live, and that none outlives them. A :class:`PrivateNetwork` is a network
namespace (loopback, and a tap for a client that is a machine of its own); those that talk to rpcbind see a ``/run`` of
its own besides. So they meet neither the system's services nor those of a test next door, and may use the protocols'
own ports. Every process is started in a session of its own, is ended by its id, and dies with the test process should
that be killed.

Not here: what the servers are told (:mod:`tests.sharing.servers`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from volfs.testing.waiting import PATIENCE, until

SERVER = "10.99.0.1"
"""The servers' address for a client that is a machine of its own; for others there is the loopback."""
GUEST = "10.99.0.2"
TAP = "tap0"

_CLONE_NEWNET = 0x40000000

#: What drops its privileges no longer dies with its parent; what lives in a namespace of processes, with that.
_TOGETHER = ("unshare", "--pid", "--fork", "--kill-child", "sh", "-c", '"$@" & wait', "sh")
#: With its first argument as /run, and of all mounts of volfs that at the second only: a namespace of mounts keeps busy
#: whatever is in it.
_SEE_ONLY = """
mount --bind "$0" /run
keep=$1
shift
while read -r _ place kind _; do
    case $kind in fuse.volfs) [ "$place" = "$keep" ] || umount --lazy "$place" ;; esac
done < /proc/self/mounts
exec "$@"
"""
_OWN_RUN = ("unshare", "--mount", "--propagation", "slave", "sh", "-c", _SEE_ONLY)

_MAKE = f"""
set -e
mkdir /run/rpcbind
ip link set lo up
if ip tuntap add {TAP} mode tap 2>/dev/null; then ip address add {SERVER}/24 dev {TAP}; ip link set {TAP} up; fi
rpcbind -f & wait
"""


def lacking(programs: Mapping[str, str]) -> str:
    """Why servers cannot be run here: what is missing, with the Debian package of each program; "" if nothing is."""
    gone = [f"{program} (package {package})" for program, package in programs.items() if shutil.which(program) is None]
    if gone:
        return f"not installed: {', '.join(gone)}; `sh .ci/setup tests` installs them"
    if os.geteuid() != 0:
        return "servers export a mount, and live in namespaces, as root only"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "true"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


class Process:
    """A server, or a guest, that this test run started."""

    def __init__(self, command: Sequence[str | Path], log: Path, *, asked: bool = True) -> None:
        """``asked``: it ends when asked to; others are killed."""
        self.log = log
        self._ending = (signal.SIGTERM, signal.SIGKILL) if asked else (signal.SIGKILL,)
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def wait_until(self, ready: Callable[[], bool], what: str) -> None:
        """Wait for ``ready``; a process that ends first, or is not ready in time, fails the test with its log."""

        def over() -> bool:
            assert self.running, f"{what} ended with status {self._popen.returncode}:\n{self.said()}"
            return ready()

        until(over, lambda: f"{what} is ready:\n{self.said()}")

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-5000:] if self.log.exists() else ""

    def stop(self, patience: float = 15.0) -> None:
        """Ask it to end, then make it; the processes it has started, too. Idempotent."""
        for number in self._ending:
            if self.running:
                self._popen.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._popen.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # its own session: the children that it has left


class PrivateNetwork:
    """The namespaces, held by an rpcbind of their own. Make it with :meth:`made`."""

    def __init__(self, holder: Process, run: Path) -> None:
        self._holder = holder
        self._run = run

    @classmethod
    @contextlib.contextmanager
    def made(cls, folder: Path) -> Iterator[PrivateNetwork]:
        """Logs go into ``folder``."""
        run = folder / "run"
        run.mkdir()
        holder = Process(
            ["unshare", "--net", *_TOGETHER, *_OWN_RUN, run, "", "sh", "-c", _MAKE], folder / "rpcbind.log", asked=False
        )
        try:
            network = cls(holder, run)
            holder.wait_until(lambda: network.exists and network.answers(111), "rpcbind")
            yield network
        finally:
            holder.stop()

    @property
    def exists(self) -> bool:
        """Whether the namespace has been made."""
        return Path(f"/proc/{self._holder.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()

    @property
    def has_tap(self) -> bool:
        """Whether a guest can be reached: for want of /dev/net/tun it may not."""
        return TAP in Path(f"/proc/{self._holder.pid}/net/dev").read_text()

    def inside(self, *command: str | Path) -> list[str]:
        """The command line that runs a command in here."""
        return ["nsenter", "--target", str(self._holder.pid), "--net", *map(str, command)]

    def beside_rpcbind(self, *command: str | Path, mount: Path | None = None, drops: bool = False) -> list[str]:
        """The same for a server that talks to rpcbind and exports ``mount``, which it keeps busy until it ends.
        ``drops``: it drops its privileges; make its Process with ``asked=False``."""
        seen = "" if mount is None else str(mount)
        return self.inside(*(_TOGETHER if drops else ()), *_OWN_RUN, self._run, seen, *command)

    def enter(self) -> None:
        """Put the calling thread, and the sockets it will open, into this network; the thread cannot come back."""
        namespace = os.open(f"/proc/{self._holder.pid}/ns/net", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(namespace)

    def answers(self, port: int, address: str = "127.0.0.1") -> bool:
        """Whether somebody listens in here."""
        listening = [
            line
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/{self._holder.pid}/net/{table}").read_text().splitlines()[1:]
        ]
        wanted = {f"{word}:{port:04X}" for word in ("0" * 8, "0" * 32, socket.inet_aton(address)[::-1].hex().upper())}
        return any(line.split()[1] in wanted and line.split()[3] == "0A" for line in listening)

    def run(self, *command: str | Path, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a client in here."""
        return subprocess.run(
            self.inside(*command),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
