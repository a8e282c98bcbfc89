"""What the tests of ``mount_examples/`` share: a store, a directory that other users can enter, and private servers.

Decided here: how a test gets a program (it fails, and says how to install it), and how a server that an example
configures is started on loopback and ended by its own process id. Not here: what the examples promise.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.kits.cells import make_store
from volfs.cli import main as volfs_command
from volfs.testing.kit import mounted
from volfs.testing.waiting import PATIENCE, until


def program(name: str, package: str) -> str:
    """Where a program is: beside this Python, or on the machine. The test fails without it."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.fail(f"{name} is missing, so this example was not tested: install {package} (make test does)", False)
    return found


def volfs_program(folder: Path, module: str = "volfs", name: str = "volfs") -> Path:
    """The command as scripts and services call it, by a path of its own, running this checkout."""
    script = folder / name
    package = Path(sys.modules["volfs"].__file__ or "").parent.parent
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{package}" exec "{sys.executable}" -P -m {module} "$@"\n')
    script.chmod(0o755)
    return script


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that servers running as other users may enter: pytest's own ones are for their owner only."""
    with tempfile.TemporaryDirectory(prefix="volfs-examples-") as name:
        Path(name).chmod(0o755)
        yield Path(name).resolve()


@contextlib.contextmanager
def mounted_store(*, read_only: bool = False) -> Iterator[tuple[Path, Path]]:
    """A directory that anybody may enter, and in it ``mnt``: a mount of a small store with the dataset ``cells``."""
    with open_directory() as root:
        store = make_store(root / "store", voxel_size="40,4,4nm")
        with mounted(store, root / "mnt", read_only=read_only, allow_other=os.geteuid() == 0) as mount:
            yield root, mount


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(command: list[str], port: int, log: Path, env: Mapping[str, str] | None = None) -> Iterator[int]:
    """A server while the block runs, from when it answers at ``port``. Gives its process id."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(env or {})}
        )
    try:

        def answers() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
                return True
            said = log.read_text(errors="replace")
            assert process.poll() is None, f"{command} ended with status {process.returncode}:\n{said}"
            return False

        until(answers, lambda: f"{command} answers:\n{log.read_text(errors='replace')}")
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)


def understood(arguments: list[str]) -> dict[str, Any]:
    """What ``volfs ARGUMENTS`` means: options of the command, and the ones before it. Raises for a wrong usage."""
    top = volfs_command.make_context("volfs", list(arguments))
    name, command, rest = volfs_command.resolve_command(top, [*top._protected_args, *top.args])
    assert command is not None
    return {**top.params, "command": name, **command.make_context(name, rest, parent=top).params}
