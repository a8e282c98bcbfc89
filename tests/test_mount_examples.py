"""Every example of ``mount_examples/`` runs, as it stands, on the demonstration."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from volfs.testing.kit import mounted

EXAMPLES = Path(__file__).parent.parent / "mount_examples"
SCRIPTS = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh"))


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("examples")
    subprocess.run([sys.executable, "-m", "volfs", "demo", str(root / "demo")], check=True, capture_output=True)
    with mounted(root / "demo" / "store", root / "mnt") as mount:
        yield mount / "cells"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_example_runs_on_the_demonstration(demonstration: Path, script: Path) -> None:
    command = [sys.executable] if script.suffix == ".py" else ["sh"]
    done = subprocess.run(
        [*command, str(script), str(demonstration)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


def test_every_example_is_described() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    for script in SCRIPTS:
        assert f"]({script.name})" in readme
    assert all(os.access(path, os.X_OK) for path in SCRIPTS if path.suffix == ".sh")
