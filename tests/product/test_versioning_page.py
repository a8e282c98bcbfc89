"""The page about versions is true: its commands are run as they stand, and answer what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.kits.paths import DOCS
from volfs.testing.waiting import PATIENCE

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def steps(block: str) -> list[tuple[str, str]]:
    """Commands, with the lines that go on with ``>``, and what each answers."""
    found: list[tuple[str, str]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif line.startswith("> ") or line == ">":
            found[-1] = f"{found[-1][0]}\n{line[2:]}", ""
        else:
            found[-1] = found[-1][0], f"{found[-1][1]}{line}\n"
    return found


def test_the_commands_of_the_page_answer_what_it_says(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, words in (("volfs", f'{sys.executable} -m volfs "$@"'), ("python3", f'{sys.executable} "$@"')):
        (tools / name).write_text(f"#!/bin/sh\nexec {words}\n")
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "VOLFS_STORE": "store", "VOLFS_AUTHOR": "Ada"}
    count = 0
    for block in BLOCK.findall((DOCS / "versioning.md").read_text()):
        for command, answer in steps(block):
            done = subprocess.run(
                ["sh", "-c", f"{command}\n"],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=PATIENCE,
            )
            assert sorted(done.stdout.splitlines()) == sorted(answer.splitlines()), (command, done.stdout)
            count += 1
    assert count > 12
