"""Only mounting needs pyfuse3: without it all else works, and mounting says what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from tests.kits.paths import ROOT

#: What no line of these tests may import.
HIDDEN = ("pyfuse3", "_pyfuse3")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All installed packages but pyfuse3."""
    folder = tmp_path_factory.mktemp("packages")
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.startswith(HIDDEN) and path.suffix != ".pth":
            (folder / path.name).symlink_to(path)
    return folder


def python(packages: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python with nothing but ``packages``, this checkout and its own library."""
    return subprocess.run(
        [sys.executable, "-S", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{packages}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_not_there(packages: Path) -> None:
    assert "No module named" in python(packages, "-c", "import pyfuse3").stderr


def test_import_export_and_reading_need_no_mount(packages: Path, tmp_path: Path) -> None:
    voxels = np.arange(8 * 9 * 10, dtype=np.uint16).reshape(8, 9, 10)
    np.save(tmp_path / "small.npy", voxels)
    for command in (
        ("init",),
        ("import", "small", tmp_path / "small.npy"),
        ("info", "small"),
        ("export", "small", tmp_path / "out.npy"),
        ("tag", "small", "paper"),
        ("fsck",),
    ):
        ran = python(packages, "-m", "volfs", "--store", tmp_path / "store", *command)
        assert ran.returncode == 0, ran.stderr
    assert np.array_equal(np.load(tmp_path / "out.npy"), voxels)
    code = (
        "import sys, volfs\n"
        "with volfs.open_store(sys.argv[1]) as store:\n"
        "    print(volfs.images(store['small']['paper'])[''].levels[0][7, 8, 9])\n"
    )
    assert python(packages, "-c", code, tmp_path / "store").stdout == f"{voxels[7, 8, 9]}\n"


@pytest.mark.parametrize("command", [("mount",), ("mount", "--foreground"), ("demo", "--mount", "--edge", "64")])
def test_mounting_says_in_one_line_what_is_missing(packages: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    store, place = tmp_path / "store", tmp_path / "place"
    place.mkdir()
    assert python(packages, "-m", "volfs", "--store", store, "init").returncode == 0
    ran = python(packages, "-m", "volfs", "--store", store, *command, place)
    assert ran.returncode == 1, ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("volfs: mounting needs the package pyfuse3")
    assert "pip install pyfuse3" in ran.stderr and "Traceback" not in ran.stderr


def test_the_doctor_names_it(packages: Path) -> None:
    said = python(packages, "-m", "volfs", "doctor")
    assert said.returncode == 1 and "pip install" in said.stdout and "pyfuse3" in said.stdout
