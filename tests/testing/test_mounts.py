"""The mounts of the tests themselves: gone when their block ends, whatever others do to the machine meanwhile."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kits.mounts import running, volfs
from volfs.storage.mount_table import mounted_at
from volfs.testing.kit import daemon_pid, mounted

NAMESPACE = ["unshare", "--mount", "--propagation", "private"]


def test_a_namespace_that_has_a_copy_of_the_mount_does_not_keep_it(tmp_path: Path) -> None:
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be made here")
    volfs(tmp_path / "store", "init")
    with mounted(tmp_path / "store", tmp_path / "mnt") as place:
        pid = daemon_pid(place)
        other = subprocess.Popen([*NAMESPACE, "sh", "-c", "echo made; exec sleep 1000"], stdout=subprocess.PIPE)
        assert other.stdout is not None and other.stdout.readline() == b"made\n"
    try:
        assert mounted_at(place) is None and not running(pid)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
