"""Processes that the suite forks are as those that it would have executed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.kits import fork_server

SAYS = """
import os, signal, sys
print(__name__, sys.argv, os.getcwd(), os.environ["MINE"], oct(os.umask(0)), sys.path[0], sys.stdin.read())
print(open("/proc/self/cmdline", "rb").read().rstrip(b"\\0"), len(os.listdir("/proc/self/task")))
print(sorted(os.listdir("/proc/self/fd"))[:3], signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGPIPE))
print("complains", file=sys.stderr)
"""
ENDS = {
    "ends": "pass",
    "says how": "import sys; sys.exit(7)",
    "says why": "import sys; sys.exit('because')",
    "fails": "raise ValueError('no')",
    "is killed": "import os; os.kill(os.getpid(), 9)",
    "is interrupted": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "leaves at once": "import os; os._exit(3)",
    "waits for its threads": "import threading; threading.Timer(0.05, print, ['last']).start(); print('first')",
    "says something last": "import atexit; atexit.register(print, 'last'); print('first')",
    "hits a crash point": "from volfs.storage.crash import crash_point; crash_point('a'); print(1); crash_point('b')",
    "runs without C": "import volfs.native; print(volfs.native.core)",
}


def both(*arguments: str, folder: Path, environment: Mapping[str, str], said: str = "") -> list[tuple[int, str, str]]:
    """Status and output, executed and forked. Of a traceback, which shows who called, the last line."""
    outcomes = []
    for run in (subprocess.run, fork_server.run):
        done = run(
            [sys.executable, *arguments], input=said, capture_output=True, text=True, cwd=folder, env=environment
        )
        complaint = done.stderr.splitlines()[-1:] if "Traceback" in done.stderr else [done.stderr]
        outcomes.append((done.returncode, done.stdout, *complaint))
    return outcomes


def test_a_forked_process_sees_what_an_executed_one_does(tmp_path: Path) -> None:
    environment = {**os.environ, "MINE": "ä"}
    executed, forked = both("-c", SAYS, "a b", "", folder=tmp_path, environment=environment, said="some words")
    assert forked == executed and executed[0] == 0


@pytest.mark.parametrize("how", ENDS)
def test_a_forked_process_ends_as_an_executed_one_does(tmp_path: Path, how: str) -> None:
    environment = {**os.environ, "VOLFS_CRASH_AT": "b", "VOLFS_NATIVE": "0" if how == "runs without C" else ""}
    executed, forked = both("-c", ENDS[how], folder=tmp_path, environment=environment)
    assert forked == executed


def test_modules_run_as_programs(tmp_path: Path) -> None:
    executed, forked = both("-m", "volfs", "--version", folder=tmp_path, environment=os.environ)
    assert forked == executed and executed[0] == 0
    executed, forked = both("-m", "volfs", "ls", folder=tmp_path, environment=os.environ)
    assert forked == executed and executed[0] == 2


def test_a_forked_process_belongs_to_who_asked_for_it() -> None:
    with fork_server.Popen(
        [sys.executable, "-c", "import os; print(os.getppid()); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        assert int(process.stdout.readline()) == os.getpid()
        assert process.poll() is None
        process.terminate()
    assert process.returncode == -15


def test_what_a_fork_would_not_be_is_executed() -> None:
    code = "import sys; print('volfs.fuse.daemon' in sys.modules)"
    for environment in ({**os.environ, "PYTHONHASHSEED": "1"}, {**os.environ, "LD_LIBRARY_PATH": "/nowhere"}):
        done = fork_server.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stdout == "False\n"
    for command in ([sys.executable, "-I", "-c", code], ["sh", "-c", "echo False"]):
        assert fork_server.run(command, capture_output=True, text=True).stdout == "False\n"
    assert fork_server.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


def test_a_program_of_a_shell_is_forked_too(tmp_path: Path) -> None:
    with fork_server.program(
        tmp_path / "python", "-c", "import sys; print(*sys.argv[1:], input()); sys.exit(3)"
    ) as path:
        script = f"echo said | {path} 'a b' | cat; echo more | {path}; echo $?"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == "a b said\nmore\n3\n"
    with fork_server.program(tmp_path / "killed", "-c", "import os; os.kill(os.getpid(), 9)") as path:
        assert subprocess.run([path], check=False).returncode == -9
