"""Names of versions through a real mount, as shells use them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.kits.cells import make_store
from volfs.testing.kit import mounted
from volfs.testing.waiting import until


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


def shell(command: str, where: Path) -> str:
    done = subprocess.run(["sh", "-ec", command], cwd=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_expressions_are_links_that_the_kernel_follows(store: Path, mountpoint: Path) -> None:
    with mounted(store, mountpoint):
        versions = mountpoint / "cells/versions"
        assert os.readlink(versions / "main~1") == "v1"
        assert os.path.samefile(versions / "main~1" / "zarr", versions / "v1" / "zarr")
        assert os.path.samefile(versions / "@2100-01-01", versions / "latest")
        assert "main~1" not in os.listdir(versions)
        before = os.readlink(versions / "main")
        shell("echo x > cells/branches/main/files/n; echo more > cells/branches/main/.volfs/commit", mountpoint)
        until(lambda: os.readlink(versions / "main") != before)
        assert os.readlink(versions / "main~1") == before


def test_mv_of_a_branch_is_seen_at_once_under_its_new_name(store: Path, mountpoint: Path) -> None:
    with mounted(store, mountpoint):
        done = shell(
            "cd cells/branches; mkdir try; echo mine > try/files/notes; ls -l try/files > /dev/null;"
            " mv try kept; cat kept/files/notes; ls kept/files; echo more > kept/files/more;"
            " echo done > kept/.volfs/commit; ls; mkdir try; cat try/files/notes 2>&1 || true",
            mountpoint,
        )
        assert done.splitlines()[:5] == ["mine", "notes", "exp", "kept", "main"] and "No such file" in done
        assert (mountpoint / "cells/versions/kept/files/more").read_text() == "more\n"
