"""Every example of ``mount_examples/`` runs, as it stands, on the demonstration."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.kits.examples import understood
from tests.kits.mounts import volfs
from tests.kits.paths import EXAMPLES
from volfs.testing.kit import mounted
from volfs.testing.waiting import PATIENCE

FOLDERS = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
SCRIPTS = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh"))


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("examples")
    volfs(None, "demo", root / "demo")
    with mounted(root / "demo" / "store", root / "mnt") as mount:
        yield mount / "cells"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_example_runs_on_the_demonstration(demonstration: Path, script: Path) -> None:
    command = [sys.executable] if script.suffix == ".py" else ["sh"]
    done = subprocess.run(
        [*command, str(script), str(demonstration)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


def test_every_example_is_described() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    for script in SCRIPTS:
        assert f"]({script.name})" in readme
    assert all(os.access(path, os.X_OK) for path in SCRIPTS if path.suffix == ".sh")


def test_every_folder_is_described_and_begins_with_a_readme() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    for folder in FOLDERS:
        assert f"]({folder}/README.md)" in readme


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_command_understands_what_the_readme_says(folder: str) -> None:
    text = (EXAMPLES / folder / "README.md").read_text()
    blocks = "\n".join(re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL))
    for command in re.findall(r"^ *volfs (.+?)(?:\s#|;|&&|$)", blocks, re.MULTILINE):
        try:
            understood(shlex.split(command))
        except click.UsageError as error:
            pytest.fail(f"volfs {command}: {error.format_message()}")
