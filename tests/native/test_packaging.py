"""What is built to be given away: sources that need no Cython, a wheel that needs no compiler and no libraries, and
what a package index shows of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
import yaml
from trove_classifiers import classifiers

import volfs
from tests.kits.console_pages import run_page
from tests.kits.paths import BUILT_FROM, DOCS, PACKAGING, ROOT

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
    for name in BUILT_FROM:
        (root / name).write_bytes((ROOT / name).read_bytes())
    listed = [path for path in (ROOT / "volfs").rglob("*") if path.suffix not in (".so", ".pyc")]
    for path in listed:
        copy = root / path.relative_to(ROOT)
        if path.is_file() and path.name != "core.c":
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return root


@pytest.mark.checks
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


@pytest.mark.checks
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


def metadata(sources: Path, tmp_path: Path) -> Message:
    """What a package index is told."""
    run(sys.executable, "setup.py", "-q", "egg_info", "-e", tmp_path, cwd=sources)
    return message_from_string((tmp_path / "volfs.egg-info" / "PKG-INFO").read_text())


def test_a_package_index_is_told_who_what_and_for_whom(sources: Path, tmp_path: Path) -> None:
    told = metadata(sources, tmp_path)
    assert told["Author"] and told["License-Expression"] == "BSD-3-Clause" and told["Requires-Python"] == ">=3.11"
    named = told.get_all("Classifier") or []
    assert named and set(named) <= classifiers
    extras = set(told.get_all("Provides-Extra") or [])
    assert {"formats", "hdf5", "import"} <= extras and not extras & {"bench", "dev", "test"}, "what tests need is none"
    offered = {re.split("[^a-z0-9-]", line)[0] for line in told.get_all("Requires-Dist") or []}
    assert not offered & {"pytest", "mypy", "hypothesis", "ruff", "jupyterhub", "selenium"}
    (fuse,) = (line for line in told.get_all("Requires-Dist") or [] if line.startswith("pyfuse3"))
    assert fuse.replace('"', "'").endswith("sys_platform == 'linux'")
    needed = {re.split("[^a-z0-9-]", line)[0] for line in told.get_all("Requires-Dist") or [] if "extra" not in line}
    with (ROOT / "pyproject.toml").open("rb") as file:
        groups = tomllib.load(file)["dependency-groups"]
    assert not needed & {re.split("[^a-z0-9-]", line)[0] for group in groups.values() for line in group}


@pytest.mark.parametrize("address", [None, "https://git.example.org/lab/volfs"])
def test_links_and_pictures_of_the_readme_lead_somewhere_on_a_package_index(
    sources: Path, tmp_path: Path, address: str | None
) -> None:
    settings = sources / "pyproject.toml"
    kept = settings.read_text()
    if address is not None:
        settings.write_text(
            kept.replace("[project.scripts]", f'[project.urls]\nSource = "{address}"\n\n[project.scripts]')
        )
    try:
        shown = metadata(sources, tmp_path).get_payload()
    finally:
        settings.write_text(kept)
    assert isinstance(shown, str) and "make demo" in shown and 'store["brain"]["latest"]' in shown
    targets = re.findall(r"\]\(([^)]+)\)", shown)
    assert all(target.startswith("https://") for target in targets), targets
    if address is not None:
        places = [target.removeprefix(f"{address}/").split("/", 2)[2] for target in targets if address in target]
        assert any(place.endswith(".png") for place in places) and all((ROOT / place).exists() for place in places)
    else:
        assert "docs/layout.md: the tree of a mount" in shown


def test_the_conda_recipe_asks_for_what_the_package_asks_for() -> None:
    recipe = yaml.safe_load((PACKAGING / "conda" / "recipe.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    elsewhere = {"isal": "python-isal"}  # isa-l is the library

    def named(requirement: str) -> tuple[str, str]:
        name, at_least = re.fullmatch(r"([\w-]+) *(>=[\d.]+)?.*", requirement.partition(";")[0]).groups("")  # type: ignore[union-attr]
        return elsewhere.get(name, name), at_least

    wanted = {*map(named, project["project"]["dependencies"]), ("python", project["project"]["requires-python"])}
    assert {named(each) for each in recipe["requirements"]["run"]} == wanted
    host = {named(each) for each in recipe["requirements"]["host"]}
    assert host >= set(map(named, project["build-system"]["requires"])), "there is no build isolation"
    assert recipe["context"]["version"] == volfs.__version__
    assert recipe["about"]["summary"] == project["project"]["description"]
    assert (PACKAGING / "conda" / recipe["source"]["path"]).resolve() == ROOT


@pytest.fixture(scope="module")
def alone(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment, into which the wheel was installed as a user does."""
    folder = tmp_path_factory.mktemp("alone")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, ".", cwd=sources)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    programs = folder / "venv" / "bin"
    # Compiled as at set-up: who installs it takes as much time as that takes.
    run(programs / "python", "-m", "pip", "install", "-q", wheel, cwd=folder, CFLAGS="-O1 -g0")
    return programs


@pytest.mark.checks
def test_a_wheel_alone_in_a_fresh_environment_is_all_that_a_user_needs(alone: Path, tmp_path: Path) -> None:
    assert run(alone / "volfs", "--version", cwd=tmp_path) == f"volfs {volfs.__version__}\n"
    run(alone / "python", "-c", CHECK, cwd=tmp_path)
    try:
        assert run_page(DOCS / "tutorial.md", tmp_path, alone) > 20
    finally:
        if (tmp_path / "mnt").is_mount():  # a command before `umount` has failed
            run(alone / "volfs", "umount", tmp_path / "mnt", cwd=tmp_path)


@pytest.mark.checks
def test_manual_pages_come_with_it(alone: Path) -> None:
    pages = {path.name for path in (alone.parent / "share" / "man" / "man1").iterdir()}
    assert {"volfs.1", "volfs-commit.1", "volfs-mount.1"} <= pages


@pytest.mark.checks
def test_the_page_comes_with_it(alone: Path) -> None:
    code = (
        "from importlib.resources import files; print(*(each.name for each in (files('volfs') / 'web/page').iterdir()))"
    )
    found = set(run(alone / "python", "-c", code, cwd=alone).split())
    assert found == {path.name for path in (ROOT / "volfs/web/page").iterdir()} and "index.html" in found


@pytest.mark.checks
def test_nothing_that_tests_need_comes_with_it(alone: Path, tmp_path: Path) -> None:
    listed = run(alone / "python", "-m", "pip", "list", "--format=freeze", cwd=tmp_path)
    names = {line.partition("==")[0].lower() for line in listed.splitlines()}
    assert "volfs" in names and not names & {"pytest", "mypy", "jupyterhub", "selenium", "ruff", "hypothesis"}
    assert len(names) < 45, sorted(names)
