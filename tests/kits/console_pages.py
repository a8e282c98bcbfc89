"""Pages whose commands are typed as they stand: blocks of ``console``, run in order in one directory."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

from tests.kits import fork_server
from volfs.testing.waiting import PATIENCE

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def steps(page: Path) -> list[tuple[str, str]]:
    """Commands, with the lines that go on with ``>``, and what each answers."""
    found: list[tuple[str, str]] = []
    for block in _BLOCK.findall(page.read_text()):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            elif line.startswith("> ") or line == ">":
                found[-1] = f"{found[-1][0]}\n{line[2:]}", ""
            else:
                found[-1] = found[-1][0], f"{found[-1][1]}{line}\n"
    return found


def answers(said: str, shown: str) -> bool:
    """Whether a command said what a page shows, in which ``…`` stands for anything.

    In any order: of standard output and standard error that are one file, either may come first. That something takes
    a while is said on a busy machine only.
    """
    patterns = [".*".join(map(re.escape, line.split("…"))) for line in sorted(shown.splitlines())]
    lines = sorted(line for line in said.splitlines() if not line.startswith("volfs: still "))
    return len(lines) == len(patterns) and all(map(re.fullmatch, patterns, lines))


def run_page(page: Path, place: Path, programs: Path | None = None) -> int:
    """Run a page's commands in ``place``; how many. Raises AssertionError at the first that answers otherwise.

    ``volfs`` and ``python3`` are those of the tests, or those in the directory ``programs``.
    """
    tools = place / ".bin"
    tools.mkdir()
    with ExitStack() as stack:
        for name, words in (("volfs", ("-m", "volfs")), ("python3", ())):
            if programs is None:
                stack.enter_context(fork_server.program(tools / name, *words))
            else:
                (tools / name).write_text(f'#!/bin/sh\nexec {programs / "python"} {" ".join(words)} "$@"\n')
                (tools / name).chmod(0o755)
        return _run_all(page, place, tools)


def _run_all(page: Path, place: Path, tools: Path) -> int:
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "VOLFS_STORE": "store", "VOLFS_AUTHOR": "Ada"}
    environment.pop("PYTHONPATH", None)
    todo = steps(page)
    for command, shown in todo:
        done = subprocess.run(
            ["sh", "-c", f"{command}\n"],
            cwd=place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert answers(done.stdout, shown), (page.name, command, done.stdout)
    return len(todo)
