"""What is built to be given away: sources that need no Cython, and a wheel that needs no compiler and no libraries."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.kits.paths import ROOT

CHECK = "from volfs.native import core; assert core.checksums(b'123456789')[:3] == (0xe3069283, 0xe3069283, 0xcbf43926)"


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    ran = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout: builds leave things where they run."""
    root = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    listed = [
        path for path in (ROOT / "volfs").rglob("*") if path.suffix in (".py", ".c", ".h", ".pyx", ".md", ".typed")
    ]
    for path in [*listed, ROOT / "volfs" / "py.typed"]:
        copy = root / path.relative_to(ROOT)
        if path.is_file() and path.name != "core.c":
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return root


def test_a_source_distribution_is_built_without_cython(sources: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", tmp_path, ".", cwd=sources)
    (made,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(made) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    hidden = tmp_path / "hidden" / "Cython"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('there is no Cython here')")
    run(sys.executable, "setup.py", "-q", "build_ext", "--inplace", cwd=unpacked, PYTHONPATH=str(hidden.parent))
    run(sys.executable, "-c", CHECK, cwd=unpacked, PYTHONPATH=str(unpacked))


def test_a_wheel_brings_the_libraries_that_c_needs(sources: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path / "plain", ".", cwd=sources)
    (plain,) = (tmp_path / "plain").glob("*.whl")
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run(sys.executable, "-m", "auditwheel", "repair", "-w", tmp_path / "repaired", plain, cwd=sources, PATH=tools)
    (wheel,) = (tmp_path / "repaired").glob("*manylinux*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    brought = {path.name.split("-")[0] for path in (tmp_path / "installed" / "volfs.libs").iterdir()}
    assert {"libzstd", "libblosc"} <= brought
    run(sys.executable, "-c", CHECK, cwd=tmp_path, PYTHONPATH=str(tmp_path / "installed"))


def test_where_nothing_can_be_compiled_volfs_is_installed_without_c(sources: Path, tmp_path: Path) -> None:
    run(sys.executable, "setup.py", "-q", "build_ext", "-b", tmp_path, "-t", tmp_path / "t", cwd=sources, CC="false")
    assert not list(tmp_path.rglob("*.so"))
