"""A small store to mount, and the command as a user runs it: for the tests of mounts and of the command."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from tests.kits import fork_server
from tests.kits.paths import ROOT
from volfs.cli import main
from volfs.fuse.mountpoints import detach
from volfs.testing.waiting import until

#: What a mount says besides on a busy machine.
STILL_OPENING = re.compile(r"^volfs: still opening the store;.*\n", re.MULTILINE)


def volfs(store: Path | None, *arguments: str | Path, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ``volfs --store STORE …``; a failure that is not expected fails the test with what it said.

    The command runs in this process, as starting another one takes longer than most commands: what it says, without a
    terminal, and its status are the same.
    """
    command = [*(["--store", str(store)] if store is not None else []), *map(str, arguments)]
    said = CliRunner().invoke(main, command, prog_name="volfs", catch_exceptions=False)
    done = subprocess.CompletedProcess(command, said.exit_code, said.stdout, STILL_OPENING.sub("", said.stderr))
    if ok:
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def refused(store: Path | None, *arguments: str | Path) -> str:
    """The one line with which a command fails."""
    done = volfs(store, *arguments, ok=False)
    assert done.returncode == 1 and not done.stdout, (done.returncode, done.stdout, done.stderr)
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("volfs: "), done.stderr
    return done.stderr


def answer(store: Path | None, *arguments: str | Path) -> Any:
    """What ``--json`` says."""
    return json.loads(volfs(store, *arguments, "--json").stdout)


def running(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def files_below(top: Path) -> list[Path]:
    """Every regular file, by walking as a backup does: links are not followed."""
    return sorted(Path(folder, name) for folder, _, names in os.walk(top) for name in names)


@contextlib.contextmanager
def stopped(process: int) -> Iterator[None]:
    """Have a process do nothing for the length of a block."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@contextlib.contextmanager
def disk_that_can_stop(
    folder: Path, content: Path | None = None, *, module: str = "tests.benchmarks.loopback_fs"
) -> Iterator[int]:
    """Have ``folder`` lie on a filesystem of its own; gives the process that answers for it. What it holds is moved to
    ``content``, by default beside it."""
    content = content or folder.with_name("content")
    folder.rename(content)
    folder.mkdir()
    device = folder.stat().st_dev
    command = [sys.executable, "-m", module, content, folder]
    with fork_server.Popen(command, cwd=ROOT) as disk:
        try:
            until(lambda: folder.stat().st_dev != device or disk.poll() is not None)
            assert disk.poll() is None
            yield disk.pid
        finally:
            disk.send_signal(signal.SIGCONT)
            detach(folder, lazy=True)
            disk.kill()  # a namespace that somebody else made meanwhile may have a copy of the mount, and keep it


@contextlib.contextmanager
def disk_that_can_fail(folder: Path) -> Iterator[Path]:
    """Have ``folder`` lie on a filesystem whose reads fail while there is a file at the path that this gives."""
    with disk_that_can_stop(folder, module="tests.kits.failing_disk"):
        yield folder.with_name("content.fails")
