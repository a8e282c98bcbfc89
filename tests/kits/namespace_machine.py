"""A small machine in namespaces of its own, on which configurations are put where they belong and really used.

Decided here: how such a machine comes up, is given commands, and goes without a trace. It has its own process 1, and
copies of ``/etc``, ``/usr/sbin``, ``/opt``, ``/srv`` and ``/run``, so that ``mount`` finds ``/sbin/mount.fuse.volfs``
and systemd finds units without anything of the real machine being touched. Units come from ``/run/units`` alone: a
systemd that knew the real machine's units would start its clean-up, too. Not here: what is tried on it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from volfs.testing.waiting import PATIENCE, until

SYSTEMD = "/lib/systemd/systemd"
_BOOT = Path(__file__).with_name("namespace_machine.sh")
_SPACES = ("--fork", "--pid", "--mount", "--propagation", "slave", "--uts", "--ipc", "--net", "--cgroup")


@dataclass(frozen=True)
class Machine:
    """A machine that runs; ``pid`` is its process 1 as the real machine counts."""

    pid: int
    folder: Path

    @property
    def said(self) -> str:
        """What the machine and its services have said so far."""
        names = [name for name in ("log", "console") if (self.folder / name).exists()]
        return "\n".join((self.folder / name).read_text(errors="replace")[-5000:] for name in names)

    def run(self, *command: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command there; one that fails unexpectedly fails the test, with what the machine has said so far."""
        entered = ["nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-i", "-n", "-C", "--", *command]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
        done = subprocess.run(
            entered, capture_output=True, text=True, timeout=PATIENCE, check=False, env=env, stdin=subprocess.DEVNULL
        )
        if ok:
            assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}\n{self.said}"
        return done

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something to come true."""
        until(condition, lambda: f"{what}\n{self.said}")


@contextlib.contextmanager
def machine(folder: Path, setup: str, *init: str) -> Iterator[Machine]:
    """A machine while the block runs. ``setup`` is a shell script that puts files in place; ``init`` is its process 1.

    Skips, with the reason, where namespaces cannot be made.
    """
    if os.geteuid() != 0:
        pytest.skip("a machine of its own for fstab, units and autofs needs root: not tested by this user")
    for name in ("unshare", "nsenter"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} (package util-linux) is not there: fstab, units and autofs are not tested here")
    folder.mkdir(exist_ok=True)
    (folder / "setup.sh").write_text(setup)
    log = folder / "log"
    with _cgroup() as enter, log.open("wb") as output:
        command = ["unshare", *_SPACES, "--kill-child", "bash", str(_BOOT), str(folder), *init]
        process = subprocess.Popen(
            ["sh", "-c", f'{enter}; exec "$@"', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            until(lambda: (folder / "ready").exists() or process.poll() is not None, "the machine is ready")
            if not (folder / "ready").exists():
                pytest.skip(f"no namespaces for a machine of its own: {log.read_text().strip()[-500:]}")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield Machine(int(children[0]), folder)
        finally:
            process.kill()  # --kill-child: with unshare goes process 1, and with that everything in its namespaces
            process.wait(PATIENCE)


@contextlib.contextmanager
def _cgroup() -> Iterator[str]:
    """A control group for the machine's processes, where there are such; gives the shell command that enters it."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    tops = [fields[1] for fields in mounts if fields[2] == "cgroup2"]
    place = Path(tops[0], f"volfs-tests-{os.getpid()}") if tops else None
    if place is None or not os.access(place.parent, os.W_OK):
        yield "true"
        return
    try:
        place.mkdir()
    except OSError:
        yield "true"
        return
    try:
        yield f"echo $$ > {place}/cgroup.procs"
    finally:
        until(lambda: _removed(place), f"{place} is in use no more")


def _removed(place: Path) -> bool:
    for directory, _, _ in os.walk(place, topdown=False):
        with contextlib.suppress(OSError):
            Path(directory).rmdir()
    return not place.exists()
