"""Another machine on the same store: a process with a name, a boot and, if need be, locks of its own.

Its locks are apart as they are on sshfs, rclone or NFS with local locks: flock(2) works between the processes of that
machine, and the others do not see it.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from tests.kits import fork_server
from tests.kits.paths import ROOT
from volfs.storage import claim, files
from volfs.storage.mount_table import Locks
from volfs.testing.waiting import PATIENCE
from volfs.versions.working import branch_lock


def become(name: str, locks: str = "", *, boot: bool = True) -> None:
    """Have this process be on the machine ``name``; ``locks`` is a directory for its locks, if they are apart.

    Without ``boot`` it stays on this kernel, and only reaches the store by a way on which locks are apart.
    """
    if boot:
        here = claim._this_process(os.getpid())
        claim._this_process = lambda pid: (pid, name, f"machine {name}", f"boot {name}", "pid:[1]", here[-1])  # type: ignore[assignment]
    if locks:
        Path(locks).mkdir(exist_ok=True)
        files.fcntl = SimpleNamespace(**vars(fcntl) | {"flock": _ApartLocks(Path(locks)).flock})  # type: ignore[attr-defined]
        branch_lock.locks_on = lambda _: Locks.APART  # type: ignore[attr-defined]


class _ApartLocks:
    """flock(2) on a shadow of each file, which only those have who know the directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shadows: dict[int, int] = {}

    def flock(self, fd: int, operation: int) -> None:
        shadow = self._shadows.pop(fd, None)
        if operation == fcntl.LOCK_UN:
            if shadow is not None:
                os.close(shadow)
            return
        if shadow is not None:
            os.close(shadow)  # of a descriptor that was closed without a word
        found = os.fstat(fd)
        shadow = os.open(self._folder / f"{found.st_dev}-{found.st_ino}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(shadow, operation)
        except BaseException:
            os.close(shadow)
            raise
        self._shadows[fd] = shadow


def _command(code: str, root: Path, arguments: tuple[str, ...], locks: Path | None, boot: bool, name: str) -> list[str]:
    script = "\n".join(
        (
            "import sys, volfs",
            "from pathlib import Path",
            "from tests.kits.other_machine import become",
            f"become({name!r}, {os.fspath(locks) if locks else ''!r}, boot={boot})",
            "root = Path(sys.argv[1])",
            f"options = {{'catalog': root.with_name({name + '.sqlite'!r})}}",
            code,
        )
    )
    return [sys.executable, "-c", script, os.fspath(root), *arguments]


def elsewhere(
    code: str, root: Path, *arguments: str, locks: Path | None = None, boot: bool = True, name: str = "elsewhere"
) -> str:
    """Run code on another machine, which knows the store's ``root`` and ``options`` to open it; what it says."""
    command = _command(code, root, arguments, locks, boot, name)
    done = fork_server.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def running(
    code: str, root: Path, *arguments: str, locks: Path | None = None, name: str = "elsewhere"
) -> Iterator[subprocess.Popen[str]]:
    """The same while the block lasts; ends when its input does."""
    command = _command(code, root, arguments, locks, True, name)
    with fork_server.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(PATIENCE)
