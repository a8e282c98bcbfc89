"""Commands on a store that is mounted: the mount that writes to a branch is asked, and says what came of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits import fork_server
from tests.kits.cells import make_store
from tests.kits.mounts import answer, disk_that_can_stop, refused, volfs
from volfs.fuse.mountpoints import is_broken
from volfs.fuse.processes import default_log
from volfs.storage.mount_table import canonical, mounted_at
from volfs.testing.kit import daemon_pid, mounted, take_away
from volfs.testing.waiting import PATIENCE, until


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("mounted") / "store")


@pytest.fixture
def files(store: Path, mountpoint: Path) -> Iterator[Path]:
    """``files/`` of ``main`` in a mount that holds the branch."""
    with mounted(store, mountpoint):
        folder = mountpoint / "cells" / "branches" / "main" / "files"
        (folder / "held.txt").write_text("the mount has the branch now")
        yield folder
        volfs(store, "discard", "cells", "--yes")


def test_status_says_who_writes(store: Path, mountpoint: Path, files: Path) -> None:
    said = answer(store, "status", "cells")
    assert said["changes"]["files"]["put"] == 1 and str(mountpoint) in said["writer"]
    assert str(mountpoint) in volfs(store, "status").stdout


def test_commit_is_done_by_the_mount(store: Path, files: Path) -> None:
    made = answer(store, "commit", "cells", "-m", "By the command\n\nwith more to say")
    assert made["message"].startswith("By the command")
    assert answer(store, "status", "cells")["clean"]
    shown = files.parent.parent.parent / "versions" / made["version"] / "files" / "held.txt"
    until(lambda: shown.exists(), "the mount shows it")
    assert shown.read_text() == "the mount has the branch now"


def test_what_stops_the_mount_is_told_by_the_command(store: Path, files: Path) -> None:
    chunk = files.parent / "zarr" / "s0" / "c" / "0" / "0" / "0"
    chunk.write_bytes(b"no chunk")
    assert "zarr/s0/c/0/0/0" in refused(store, "commit", "cells", "-m", "Broken")
    volfs(store, "discard", "cells", "--yes")
    (files / "again.txt").write_text("x")
    volfs(store, "discard", "cells", "--yes")
    assert "nothing" in refused(store, "commit", "cells", "-m", "Nothing").lower()


def test_discard_is_done_by_the_mount(store: Path, files: Path) -> None:
    (files / "other.txt").write_text("goes")
    volfs(store, "discard", "cells", "files/other.txt", "files/held.txt", "--yes")
    until(lambda: not (files / "other.txt").exists())
    assert answer(store, "status", "cells")["clean"]


def test_everything_else_works_beside_a_mount(store: Path, files: Path) -> None:
    assert volfs(store, "fsck").stdout == "nothing is wrong\n"
    volfs(store, "branch", "cells", "beside")
    assert "beside" in os.listdir(files.parent.parent)
    volfs(store, "tag", "cells", "beside-tag", "v1")
    assert (files.parent.parent.parent / "tags" / "beside-tag" / "version.json").is_file()
    volfs(store, "branch", "cells", "--delete", "beside")
    volfs(store, "tag", "cells", "--delete", "beside-tag")
    assert "is being written by" in refused(store, "rm", "cells", "--yes")
    assert answer(store, "info", "cells")["images"]


def test_stats_of_a_mount_are_its_daemons(store: Path, mountpoint: Path, files: Path) -> None:
    said = answer(None, "stats", mountpoint)
    assert said == json.loads((mountpoint / ".volfs" / "stats.json").read_text()) or said["requests"]
    assert "blocks" in volfs(None, "stats", mountpoint).stdout
    assert "no volfs mount" in refused(None, "stats", files.parent)


def test_demo_mounts_itself_and_can_be_begun_again(tmp_path: Path) -> None:
    try:
        said = answer(None, "demo", tmp_path / "demo", "--edge", "64", "--mount")
        place = Path(said["mountpoint"])
        assert (place / "cells" / "versions" / "latest" / "s0" / "xy" / "z00003.png").read_bytes()
        again = volfs(None, "demo", tmp_path / "demo", "--edge", "64", "--mount").stdout
        assert f"ls {place}/cells/versions/latest" in again
        lines = [line.strip() for line in again.splitlines()]
        for command in (line for line in lines if line.startswith(("ls ", "cp ", "cat ", "echo "))):
            subprocess.run(["bash", "-ec", command], check=True, cwd=tmp_path)
        volfs(None, "umount", place)
    finally:
        place = canonical(tmp_path / "demo" / "mnt")
        if mounted_at(place) is not None:
            take_away(place)


def test_a_mountpoint_that_leads_round_in_circles_is_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for command in ("mount", "umount"):
        assert "Too many levels of symbolic links" in refused(
            store if command == "mount" else None, command, tmp_path / "one"
        )


def test_a_mount_with_a_catalog_of_its_own_commits_for_a_command_without(store: Path, mountpoint: Path) -> None:
    volfs(store, "--catalog", mountpoint.parent / "own.sqlite", "mount", mountpoint)
    (mountpoint / "cells" / "branches" / "main" / "files" / "own.txt").write_text("x")
    made = answer(store, "commit", "cells", "-m", "From the mount's catalog")
    assert made["message"] == "From the mount's catalog"
    volfs(None, "umount", mountpoint)


def test_a_daemon_that_does_not_answer_is_found_and_forced_out(store: Path, mountpoint: Path, tmp_path: Path) -> None:
    volfs(store, "mount", mountpoint)
    pid = daemon_pid(mountpoint)
    os.kill(pid, signal.SIGSTOP)
    # Who asked the mount itself would wait until it is taken away.
    assert mounted_at(mountpoint) is not None and canonical(mountpoint) == mountpoint
    said = refused(store, "mount", mountpoint)
    assert "does not answer" in said and "umount --force" in said
    checked = volfs(None, "doctor", ok=False)
    assert checked.returncode == 1 and f"{mountpoint} does not answer" in checked.stdout
    command = [sys.executable, "-m", "volfs", "umount", "--force", str(mountpoint)]
    with fork_server.Popen(command) as forcing:
        while mounted_at(mountpoint) is not None:
            assert forcing.poll() is None
            time.sleep(0.01)
        # It has the number of the mount that went, and must not be taken for it.
        other = tmp_path / "other"
        other.mkdir()
        with mounted(store, other, read_only=True):
            assert forcing.wait(PATIENCE) == 0
            assert (other / "README.txt").read_bytes()
    assert mounted_at(mountpoint) is None and not is_broken(mountpoint)


def test_sigusr1_tells_which_request_hangs_and_where(tmp_path: Path, mountpoint: Path) -> None:
    """A disk that does not answer for a while."""
    store = make_store(tmp_path / "store")
    (payloads,) = store.glob("datasets/cells/versions/*/zarr/s0/c")
    with disk_that_can_stop(payloads) as disk, mounted(store, mountpoint):
        daemon, log = daemon_pid(mountpoint), mountpoint.with_name(f"{mountpoint.name}.log")
        slice_ = next((mountpoint / "cells" / "versions" / "v1" / "s0" / "xy").iterdir())
        os.kill(disk, signal.SIGSTOP)
        with subprocess.Popen(["cat", slice_], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as reader:
            said = ""
            try:
                while not ("storage/directory_backend.py" in said and ", in acquire" in said):
                    assert reader.poll() is None, said
                    time.sleep(0.2)
                    os.kill(daemon, signal.SIGUSR1)
                    said = log.read_text().rpartition("requests in flight")[2]
                assert reader.poll() is None and "oldest first" in said
                assert json.loads((mountpoint / ".volfs" / "stats.json").read_text()), "others are answered meanwhile"
            finally:
                os.kill(disk, signal.SIGCONT)
            _, error = reader.communicate(timeout=PATIENCE)
        assert reader.returncode == 0 and not error


def test_sighup_begins_a_new_log_and_sigusr1_tells_what_every_thread_does(store: Path, mountpoint: Path) -> None:
    volfs(store, "mount", mountpoint)
    log = default_log(mountpoint)
    moved = log.with_suffix(".old")
    log.rename(moved)
    os.kill(daemon_pid(mountpoint), signal.SIGHUP)
    until(lambda: log.exists() and "starts anew" in log.read_text())
    os.kill(daemon_pid(mountpoint), signal.SIGUSR1)
    until(lambda: "requests in flight" in log.read_text() and "thread MainThread:" in log.read_text())
    volfs(None, "umount", mountpoint)
