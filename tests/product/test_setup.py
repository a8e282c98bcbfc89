"""Set-up takes what is asked for and no more, says each step, and fails with what the step said. pip is played here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kits.paths import ROOT

PYTHON = """#!/bin/sh
case "$*" in
    *"pip install"*)
        echo "$*" >> {calls}
        for each; do [ ! -f "$each" ] || cat "$each" >> {calls}; done
        [ ! -e {calls}.fail ] || {{ echo "nothing answers"; exit 1; }} ;;
    *) exec {python} "$@" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What set-up reads, with a Python that installs nothing and notes what it was to install in `calls`."""
    for name in (".ci/setup", "pyproject.toml", "setup.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "volfs" / "native").mkdir(parents=True)
    stub = tmp_path / ".venv" / "bin" / "python"
    stub.parent.mkdir(parents=True)
    stub.write_text(PYTHON.format(calls=tmp_path / "calls", python=sys.executable))
    stub.chmod(0o755)
    return tmp_path


def set_up(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", ".ci/setup", *arguments],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_a_demo_takes_nothing_that_only_tests_need(checkout: Path) -> None:
    ran = set_up(checkout)
    assert ran.returncode == 0, ran.stderr
    asked = (checkout / "calls").read_text()
    assert "zarr>=" in asked and "--no-deps -e ." in asked
    assert not any(name in asked for name in ("pytest", "mypy", "selenium", "jupyterhub", "h5py"))
    said = ran.stdout.splitlines()
    assert said and all(line.startswith("setup: ") for line in said)
    assert set_up(checkout).stdout == "", "there is nothing to do again"


def test_what_is_measured_beside_is_installed_for_that_alone(checkout: Path) -> None:
    assert set_up(checkout, "bench").returncode == 0
    asked = (checkout / "calls").read_text()
    assert "pytest>=" in asked and "icechunk>=" in asked and "nibabel>=" in asked


def test_a_step_that_fails_is_told_with_what_it_said(checkout: Path) -> None:
    (checkout / "calls.fail").touch()
    ran = set_up(checkout)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-2:] == ["nothing answers", "setup: this failed; what it said is above"]
    assert not (checkout / ".venv" / "installed").exists()
    (checkout / "calls.fail").unlink()
    assert set_up(checkout).returncode == 0


def test_nonsense_is_no_argument(checkout: Path) -> None:
    ran = set_up(checkout, "everything")
    assert ran.returncode == 2 and "everything" in ran.stderr
