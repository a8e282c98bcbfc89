"""The programs that volfs is compared with, started and ended here."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import Bench

_EXAMPLES = (
    Path("/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c"),
    Path("/usr/share/doc/fuse3-devel/example/passthrough_ll.c"),
)
_OWN = Path(__file__).with_name("passthrough.c")


class Reader:
    """A worker process: see :mod:`tests.benchmarks.worker`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def send(self, **request: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def receive(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, **request: Any) -> Any:
        self.send(**request)
        return self.receive()


@contextmanager
def reader(kind: str, array: Path) -> Iterator[Reader]:
    """TensorStore or zarr-python with an array open; or, as kind "files", a program that reads the files there."""
    command = [sys.executable, "-m", "tests.benchmarks.worker", kind, str(array)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Reader(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)


@contextmanager
def _filesystem(command: Sequence[str], mountpoint: Path, *arguments: str) -> Iterator[Path]:
    """A foreign FUSE daemon in the foreground, until the block ends."""
    mountpoint.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen([*command, str(mountpoint), *arguments], preexec_fn=_with_many_files)
    try:
        for _ in range(1_000):
            if mountpoint.is_mount():
                break
            assert process.poll() is None, f"{command[0]} ended before it was mounted"
            time.sleep(0.01)
        yield mountpoint
    finally:
        subprocess.run(["fusermount3", "-u", str(mountpoint)], check=False)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _with_many_files() -> None:
    """libfuse's example keeps a descriptor for every file that somebody has looked up."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def doing_nothing(mountpoint: Path, size: int = 0) -> Any:
    """A pyfuse3 filesystem that does nothing, with files of ``size`` bytes."""
    return _filesystem([sys.executable, "-m", "tests.benchmarks.null_fs"], mountpoint, str(size))


def loopback(source: Path, mountpoint: Path) -> Any:
    """A directory through pyfuse3."""
    return _filesystem([sys.executable, "-m", "tests.benchmarks.loopback_fs", str(source)], mountpoint)


def passthrough(bench: Bench, source: Path, mountpoint: Path, *, kept: bool = False) -> Any:
    """A directory through C: libfuse's own example where Debian's or Fedora's package has it, else a plainer one.

    ``kept``: the kernel may keep names and pages for as long as it likes, as it may those of a version.
    """
    example = next((path for path in _EXAMPLES if path.exists()), _OWN)
    program = bench.once("passthrough", lambda path: _compile(example, path))
    if example == _OWN:
        return _filesystem([str(program), str(source)], mountpoint)
    cache = "always" if kept else "auto"
    return _filesystem([str(program), "-f", "-o", f"source={source},cache={cache}"], mountpoint)


def _compile(source: Path, program: Path) -> None:
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], check=True, capture_output=True, text=True)
    subprocess.run(["cc", "-O2", "-w", str(source), "-o", str(program), *flags.stdout.split()], check=True)
