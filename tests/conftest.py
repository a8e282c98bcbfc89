"""Options and fixtures of the whole suite. What other projects may use too is in :mod:`volfs.testing`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, settings

from tests.kits import example_counts, fork_server
from tests.kits.times import SLOW, TimeByFile

SOAK_SECONDS = 6 * 3600
"""What a single test may take of a soak."""

# The suite starts a thousand processes: where bytecode is not kept (containers are often told so), each of them
# compiles volfs anew, which takes as long as all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


class HasFileno(Protocol):
    def fileno(self) -> int: ...


# The suite tries the same examples each time, so that it turns red by what was changed; the soak looks for new ones.
settings.register_profile(
    "quick",
    deadline=None,
    max_examples=example_counts.SUITE,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "soak", deadline=None, max_examples=example_counts.SOAK, suppress_health_check=list(HealthCheck)
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--checks", action="store_true", help="what `make checks` runs, and only that")
    parser.addoption("--soak", action="store_true", help="search for counterexamples for hours, not minutes")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script: programs inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.load_profile("soak" if config.getoption("--soak") else "quick")
    config.pluginmanager.register(TimeByFile())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--soak"):
        for item in items:
            item.add_marker(pytest.mark.timeout(SOAK_SECONDS), append=False)
    else:
        chosen = config.getoption("--checks")
        left_out = [item for item in items if bool(item.get_closest_marker("checks")) != chosen]
        items[:] = [item for item in items if bool(item.get_closest_marker("checks")) == chosen]
        config.hook.pytest_deselected(items=left_out)
    ranks = {Path(__file__).parent / file: rank for rank, file in enumerate(SLOW)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="session")
def soak(pytestconfig: pytest.Config) -> bool:
    """Whether there is time to search long."""
    return bool(pytestconfig.getoption("--soak"))


@pytest.fixture(scope="session")
def checks(pytestconfig: pytest.Config) -> bool:
    """Whether this is `make checks`, for which nobody waits but CI."""
    return bool(pytestconfig.getoption("--checks"))


@pytest.fixture(autouse=True, scope="session")
def _home_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Logs of daemons go to a directory of the test run, and nobody's settings leak into it."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    patch.delenv("VOLFS_STORE", raising=False)
    patch.delenv("VOLFS_CRASH_AT", raising=False)
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _nobody_waits_for_the_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a process has written, others see at once, and after a kill: only a power failure tells what fsync is for.

    Only the disk of the run's directory need not be waited for: of a mount the daemon is asked, and a filesystem that a
    test has made may find out only then that it is full.
    """
    fsync, here = os.fsync, tmp_path_factory.getbasetemp().stat().st_dev

    def sync(file: int | HasFileno) -> None:
        if os.stat(file if isinstance(file, int) else file.fileno()).st_dev != here:
            fsync(file)

    patch = pytest.MonkeyPatch()
    patch.setattr(os, "fsync", sync)
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _daemons_are_forked() -> Iterator[None]:
    """A mount that a test makes in its own process has a daemon that is forked, not executed: most of what a daemon
    takes to start are its imports. Where the command runs in a process of its own, so does its daemon."""
    patch = pytest.MonkeyPatch()
    patch.setattr("volfs.fuse.launcher.Popen", fork_server.Popen)
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _no_mount_is_left(_home_of_its_own: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever a test left mounted below the run's directory is taken away, and told of."""
    yield
    from volfs.fuse.mountpoints import detach
    from volfs.storage.mount_table import mounts

    base = tmp_path_factory.getbasetemp().resolve()
    left = [mount.mountpoint for mount in mounts() if mount.is_volfs and base in mount.mountpoint.parents]
    for place in left:
        detach(place, lazy=True)
    assert not left, f"left mounted: {', '.join(map(os.fspath, left))}"


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    """An empty directory to mount on."""
    place = tmp_path / "mnt"
    place.mkdir()
    return place
