"""A mount comes when it says so, goes when told, and says in one line what is wrong when it cannot."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.kits.cells import make_store
from tests.kits.mounts import STILL_OPENING, answer, refused, running, volfs
from tests.kits.paths import ROOT
from volfs.cli import main
from volfs.fuse.launcher import unmount
from volfs.fuse.mountpoints import health, is_broken
from volfs.fuse.processes import MODULE
from volfs.storage.mount_table import mounted_at
from volfs.testing.kit import daemon_pid, mounted, take_away
from volfs.testing.waiting import PATIENCE, until


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("daemon") / "store")


@pytest.fixture
def place(mountpoint: Path) -> Iterator[Path]:
    """A mountpoint where whatever the test mounts is taken away again."""
    yield mountpoint
    if mounted_at(mountpoint) is not None:
        take_away(mountpoint)


class TestComing:
    def test_mount_returns_when_the_mount_answers(self, store: Path, place: Path) -> None:
        said = answer(store, "mount", place)
        assert os.listdir(place / "cells" / "versions") and running(said["pid"])
        assert said["mountpoint"] == str(place) and Path(said["log"]).is_file()
        mount = mounted_at(place)
        assert mount is not None and mount.kind == "fuse.volfs" and mount.source == str(store)
        volfs(None, "umount", place)

    def test_a_store_that_takes_long_to_open_is_said_to_be_still_opening(
        self, store: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("volfs.fuse.launcher._SLOW_SECONDS", 0.0)
        said = CliRunner().invoke(main, ["--store", str(store), "mount", str(place), "--log", str(tmp_path / "log")])
        assert said.stderr == f"volfs: still opening the store; the daemon logs to {tmp_path / 'log'}\n"
        assert STILL_OPENING.sub("", said.stderr) == "" and said.exit_code == 0
        volfs(None, "umount", place)

    def test_the_log_lies_in_the_state_directory_or_where_told(self, store: Path, place: Path, tmp_path: Path) -> None:
        said = answer(store, "mount", place)
        assert said["log"].startswith(os.environ["XDG_STATE_HOME"] + "/volfs/mnt-")
        assert f"{place} answers" in Path(said["log"]).read_text()
        volfs(None, "umount", place)
        volfs(store, "mount", place, "--log", tmp_path / "my.log")
        assert f"{place} answers" in (tmp_path / "my.log").read_text()
        volfs(None, "umount", place)

    def test_bad_mountpoints_are_refused_in_one_line(self, store: Path, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.touch()
        full = tmp_path / "full"
        (full / "something").mkdir(parents=True)
        inside = store / "inside"
        inside.mkdir()
        assert "mkdir -p" in refused(store, "mount", tmp_path / "absent")
        assert "not a directory" in refused(store, "mount", file)
        assert "not empty" in refused(store, "mount", full)
        assert "inside each other" in refused(store, "mount", inside)
        assert "inside each other" in refused(store, "mount", store.parent)
        inside.rmdir()

    def test_a_mountpoint_in_use_is_refused(self, store: Path, place: Path) -> None:
        volfs(store, "mount", place)
        assert f"volfs umount {place}" in refused(store, "mount", place)
        below = place / "cells" / "branches" / "main" / "files" / "below"
        below.mkdir()
        assert "inside another volfs mount" in refused(store, "mount", below)
        below.rmdir()
        volfs(None, "umount", place)

    def test_what_is_no_store_is_refused_and_nothing_is_mounted(self, place: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert "empty" in refused(tmp_path / "empty", "mount", place)
        assert mounted_at(place) is None and os.listdir(place) == []

    def test_a_store_of_a_newer_format_is_refused(self, store: Path, place: Path, tmp_path: Path) -> None:
        newer = tmp_path / "newer"
        shutil.copytree(store, newer)
        marker = json.loads((newer / "volfs.json").read_text())
        (newer / "volfs.json").write_text(json.dumps({**marker, "format": 99}))
        assert "newer" in refused(newer, "mount", place)
        assert mounted_at(place) is None

    def test_the_cache_is_as_large_as_told(self, store: Path, place: Path) -> None:
        with mounted(store, place, cache_size=24 << 20):
            assert answer(None, "stats", place)["cache"]["max_bytes"] == 24 << 20
        assert "not a size" in volfs(store, "mount", place, "--cache-size", "much", ok=False).stderr

    def test_the_daemon_holds_no_directory_but_the_store(self, store: Path, place: Path) -> None:
        with mounted(store, place):
            assert os.readlink(f"/proc/{daemon_pid(place)}/cwd") == "/"

    def test_modules_in_the_working_directory_do_not_reach_the_daemon(
        self, store: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "queue.py").write_text("raise SystemExit('the wrong module')")
        monkeypatch.chdir(tmp_path)
        with mounted(store, place):
            assert (place / "README.txt").read_text()

    def test_names_with_spaces_commas_and_umlauts_are_fine(self, store: Path, tmp_path: Path) -> None:
        odd = tmp_path / "a b,c\\d ü" / "store,x"
        shutil.copytree(store, odd)
        with mounted(odd, tmp_path / "mnt, ü \\x") as place:
            mount = mounted_at(place)
            assert mount is not None and mount.source == str(odd)
            assert (place / "cells" / "dataset.json").read_bytes()


class TestGoing:
    def test_umount_returns_when_the_daemon_has_closed_the_store(self, store: Path, place: Path) -> None:
        for _ in range(5):
            pid = answer(store, "mount", place)["pid"]
            volfs(None, "umount", place)
            assert not running(pid) and os.listdir(place) == []

    def test_umount_names_who_is_in_the_way_and_force_does_not_care(self, store: Path, place: Path) -> None:
        pid = answer(store, "mount", place)["pid"]
        user = subprocess.Popen(["sleep", "60"], cwd=place / "cells")
        try:
            line = refused(None, "umount", place)
            assert f"sleep ({user.pid})" in line and "--force" in line
            assert os.listdir(place), "still mounted"
            volfs(None, "umount", "--force", place)
            assert not running(pid) and os.listdir(place) == []
        finally:
            user.kill()
            user.wait()

    def test_umount_of_nothing_and_of_others_is_refused(self, place: Path) -> None:
        assert "nothing is mounted" in refused(None, "umount", place)
        assert "not of volfs" in refused(None, "umount", Path("/proc"))

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signals_unmount_cleanly(self, store: Path, place: Path, number: signal.Signals) -> None:
        said = answer(store, "mount", place)
        os.kill(said["pid"], number)
        until(lambda: not running(said["pid"]))
        assert mounted_at(place) is None and os.listdir(place) == []
        assert "store closed" in Path(said["log"]).read_text()

    def test_in_the_foreground_it_stays_until_interrupted(self, store: Path, place: Path) -> None:
        command = [sys.executable, "-m", "volfs", "--store", str(store), "mount", "--foreground", str(place)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if line.endswith("answers\n"):
                break
        assert os.listdir(place)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert "store closed" in process.stderr.read()
        process.stderr.close()


class TestBreaking:
    def test_a_killed_daemon_leaves_enotconn_and_umount_mends_it(self, store: Path, place: Path) -> None:
        pid = answer(store, "mount", place)["pid"]
        os.kill(pid, signal.SIGKILL)
        while running(pid):
            time.sleep(0.01)
        for expected in ({errno.ENOTCONN, errno.ECONNABORTED}, {errno.ENOTCONN}):
            with pytest.raises(OSError) as caught:
                os.listdir(place)
            assert caught.value.errno in expected, "the first request may have been under way"
        assert is_broken(place)
        assert volfs(None, "doctor", ok=False).returncode == 1
        volfs(None, "umount", place)
        with mounted(store, place):
            assert os.listdir(place / "cells" / "versions")

    def test_what_close_acknowledged_is_there_after_a_kill(self, store: Path, place: Path) -> None:
        pid = answer(store, "mount", place)["pid"]
        note = place / "cells" / "branches" / "main" / "files" / "note.txt"
        note.write_text("acknowledged")
        os.kill(pid, signal.SIGKILL)
        while running(pid):
            time.sleep(0.01)
        volfs(None, "umount", place)
        with mounted(store, place):
            assert note.read_text() == "acknowledged"
            note.unlink()

    @pytest.mark.parametrize("way", ["umount", "mount"])
    def test_a_killed_daemon_that_the_kernel_holds_is_ended_and_so_is_who_waits_for_it(
        self, store: Path, place: Path, way: str
    ) -> None:
        with dying(store, place) as (daemon, client):
            if way == "umount":
                said = volfs(None, "umount", place).stderr
                assert f"process {daemon.pid}) was killed" in said and len(said.splitlines()) == 1
            else:
                assert "took away a dead mount" in volfs(store, "mount", place).stderr
            daemon.wait(PATIENCE)
            assert client.wait(PATIENCE) != 0
            assert (mounted_at(place) is None) == (way == "umount")
            if way == "mount":
                volfs(None, "umount", place)

    def test_a_mount_that_answers_nothing_is_taken_away_after_a_while(self, store: Path, place: Path) -> None:
        pid = answer(store, "mount", place)["pid"]
        os.kill(pid, signal.SIGSTOP)
        client = subprocess.Popen(["stat", str(place / "cells/versions")], stderr=subprocess.DEVNULL)
        said: list[str] = []
        try:
            unmount(place, silence=3, say=said.append)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert client.wait(PATIENCE) != 0
        until(lambda: not running(pid))
        assert mounted_at(place) is None and "has not answered for 3 seconds" in said[0]


@contextlib.contextmanager
def dying(store: Path, place: Path) -> Iterator[tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """A daemon that is held in the kernel after a SIGKILL, and the program that it is held for."""
    script = ROOT / "tests" / "kits" / "killed_daemon.py"
    command = [sys.executable, "-P", str(script), MODULE, "--log=/dev/null", "--", str(store), str(place)]
    daemon = subprocess.Popen(command)
    until(lambda: mounted_at(place) is not None)
    files = place / "cells/branches/main/files"
    client = subprocess.Popen(["mkdir", str(files / "trap")], stderr=subprocess.DEVNULL)
    try:
        until(lambda: health(place) == "hanging")
        assert daemon.poll() is None and client.poll() is None, "nothing holds it"
        yield daemon, client
    finally:
        while mounted_at(place) is not None:
            subprocess.run(["umount", "-f", "-l", str(place)], check=True, timeout=PATIENCE)
        daemon.wait(PATIENCE)
        client.wait(PATIENCE)


class TestSeveral:
    def test_two_mounts_of_one_store_and_one_writer_per_branch(self, store: Path, place: Path, tmp_path: Path) -> None:
        with mounted(store, place) as one, mounted(store, tmp_path / "other") as two:
            ours, theirs = (mount / "cells" / "branches" / "main" / "files" / "n.txt" for mount in (one, two))
            ours.write_text("from one")
            with pytest.raises(OSError) as caught:
                theirs.with_name("m.txt").write_text("from two")
            assert caught.value.errno == errno.EROFS
            until(
                lambda: theirs.exists() and theirs.read_text() == "from one",
                "the other mount sees what is written within moments",
            )
            elsewhere = two / "cells" / "branches" / "exp" / "files" / "x"
            elsewhere.write_text("another branch")
            elsewhere.unlink()
            ours.unlink()

    def test_a_commit_is_seen_by_the_other_mount_within_seconds(self, store: Path, place: Path, tmp_path: Path) -> None:
        with mounted(store, place) as one, mounted(store, tmp_path / "other") as two:
            versions = two / "cells" / "versions"
            before = set(os.listdir(versions))
            (one / "cells" / "branches" / "exp" / "files" / "seen.txt").write_text("by both")
            (one / "cells" / "branches" / "exp" / ".volfs" / "commit").write_text("Seen by both")
            until(lambda: set(os.listdir(versions)) - before)
            new = set(os.listdir(versions)) - before
            assert (versions / new.pop() / "files" / "seen.txt").read_text() == "by both"

    def test_a_read_only_mount_changes_nothing(self, store: Path, place: Path) -> None:
        with mounted(store, place, read_only=True):
            main = place / "cells" / "branches" / "main"
            for act in (
                lambda: (main / "files" / "x").write_text("x"),
                lambda: (main / ".volfs" / "commit").write_text("x"),
                lambda: (place / "cells" / "branches" / "new").mkdir(),
                lambda: os.utime(main / "zarr" / "zarr.json"),
            ):
                with pytest.raises(OSError) as caught:
                    act()
                assert caught.value.errno == errno.EROFS
            assert (main / "s0" / "xy" / "z00003.png").read_bytes()

    def test_others_are_let_in_only_if_told(self, store: Path, tmp_path: Path) -> None:
        # Below / rather than the test's own directory, which other users may not enter at all.
        base = Path("/tmp") / f"volfs-others-{os.getpid()}"
        base.mkdir()
        base.chmod(0o755)
        try:
            look = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "ls", str(base / "mnt" / "cells")]
            with mounted(store, base / "mnt"):
                assert subprocess.run(look, capture_output=True, check=False).returncode != 0
            with mounted(store, base / "mnt", allow_other=True):
                assert subprocess.run(look, capture_output=True, check=False).returncode == 0
                write = [*look[:4], "touch", str(base / "mnt" / "cells" / "branches" / "main" / "files" / "x")]
                assert subprocess.run(write, capture_output=True, check=False).returncode != 0
        finally:
            shutil.rmtree(base)
