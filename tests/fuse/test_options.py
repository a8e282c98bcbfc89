"""Mounts as facilities make them: options of fstab, owners, service managers, other users, daemons that died."""

from __future__ import annotations

import errno
import json
import os
import pwd
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.cells import make_store
from tests.kits.mounts import STILL_OPENING, answer, refused, running, volfs
from volfs import open_store
from volfs.errors import BadInput
from volfs.fuse.fstab import parse_options
from volfs.fuse.mountpoints import is_broken
from volfs.fuse.processes import MountOptions
from volfs.storage.mount_table import mounted_at
from volfs.testing.kit import daemon_pid, mounted, take_away
from volfs.testing.waiting import PATIENCE, until
from volfs.versions.author import author_of
from volfs.versions.ledger import RefChange

OWNER, MEMBER, STRANGER, GROUP = 20_001, 20_002, 20_003, 30_001


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("options") / "store")


@pytest.fixture
def place(mountpoint: Path) -> Iterator[Path]:
    """A mountpoint where whatever the test mounts is taken away again."""
    yield mountpoint
    if mounted_at(mountpoint) is not None:
        take_away(mountpoint)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that every user may enter, unlike the test's own."""
    base = Path("/tmp") / f"volfs-users-{os.getpid()}"
    base.mkdir()
    base.chmod(0o755)
    try:
        yield base
    finally:
        if mounted_at(base / "mnt") is not None:
            take_away(base / "mnt")
        shutil.rmtree(base)


def as_user(uid: int, *command: str | Path, gid: int = 65534) -> subprocess.CompletedProcess[str]:
    user = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    return subprocess.run(
        [*user, *map(str, command)], capture_output=True, text=True, check=False, timeout=PATIENCE, cwd="/"
    )


def in_own_namespace(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script where its mounts are seen by nobody else."""
    command = ["unshare", "--mount", "sh", "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


class TestWords:
    def test_what_fstab_says(self) -> None:
        parsed = parse_options("defaults,ro,allow_other,uid=1000,gid=0,umask=027,cache_size=2G,log=/a\\,b,noatime")
        assert parsed.options == MountOptions(
            read_only=True,
            allow_other=True,
            uid=1000,
            gid=0,
            umask=0o027,
            cache_size=2 << 30,
            log="/a,b",
            kernel=("noatime",),
        )
        assert not parsed.unknown and not parsed.foreground and parsed.wait is None

    def test_words_for_others_are_nobodys_concern_and_unknown_ones_are_told(self) -> None:
        parsed = parse_options("noauto,_netdev,nofail,user,x-systemd.automount,X-mount.mkdir,coment=x,rw,wait=5")
        assert parsed.options == MountOptions() and parsed.unknown == ("coment=x",) and parsed.wait == 5.0

    def test_the_last_word_counts(self) -> None:
        assert not parse_options("ro,rw").options.read_only
        assert parse_options("uid=1,uid=2", MountOptions(uid=9)).options.uid == 2

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("uid=nobody-has-this-name", "no user"),
            ("uid=²", "no user"),
            ("uid=4294967295", "no user"),
            ("gid=nobody-has-this-name", "no group"),
            ("umask=9", "permission bits"),
            ("cache_size=big", "size"),
            ("log=relative", "paths begin with /"),
            ("log_level=loud", "none of"),
            ("wait=soon", "seconds"),
            ("remount,ro", "cannot be remounted"),
        ],
    )
    def test_a_bad_value_is_refused_with_what_it_should_be(self, words: str, said: str) -> None:
        with pytest.raises(BadInput, match=said):
            parse_options(words)


class TestShown:
    def test_owner_group_and_umask(self, store: Path, place: Path) -> None:
        volfs(store, "mount", place, "--uid", str(OWNER), "-o", f"gid={GROUP},umask=027")
        branch = place / "cells" / "branches" / "main"
        for path, bits in ((place, 0o750), (branch / "zarr" / "zarr.json", 0o640), (branch / "s0" / "xy", 0o750)):
            status = path.stat()
            assert (status.st_uid, status.st_gid) == (OWNER, GROUP)
            assert stat.S_IMODE(status.st_mode) & 0o777 & ~bits == 0 and status.st_mode & 0o400, path
        volfs(None, "umount", place)

    def test_unknown_options_are_told_and_do_no_harm(self, store: Path, place: Path) -> None:
        done = volfs(store, "mount", place, "-o", "nofail,_netdev,coment=x")
        assert done.stderr == "volfs: not known, and without effect: coment=x\n"
        assert (place / "README.txt").exists()
        volfs(None, "umount", place)
        assert "permission bits" in volfs(store, "mount", place, "--umask", "9", ok=False).stderr

    def test_lines_of_json(self, store: Path, place: Path, tmp_path: Path) -> None:
        log = tmp_path / "log"
        volfs(store, "mount", place, "--log", log, "--log-format", "json", "--log-level", "debug")
        os.stat(place / "cells")
        volfs(None, "umount", place)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert {"info"} <= {line["level"] for line in lines}
        assert any(line["message"].endswith("answers") and line["logger"].startswith("volfs.") for line in lines)
        assert all(line["time"].endswith("Z") and line["pid"] for line in lines)


class TestHelpers:
    """mount(8) looks for /sbin/mount.TYPE: here it finds one, in a mount namespace where /usr/sbin has that too."""

    @pytest.mark.parametrize("kind", ["fuse.volfs", "volfs"])
    def test_mount_of_the_type(self, store: Path, tmp_path: Path, kind: str) -> None:
        helper = tmp_path / "upper" / f"mount.{kind}"
        for name in ("upper", "work", "mnt"):
            (tmp_path / name).mkdir()
        helper.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m volfs.cli.helpers "$@"\n')
        helper.chmod(0o755)
        script = f"""
            set -e
            mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir={tmp_path}/upper,workdir={tmp_path}/work /usr/sbin
            mount -t {kind} {store} {tmp_path}/mnt -o ro,allow_other,noauto,nofail,_netdev,x-systemd.automount,coment=x
            cat {tmp_path}/mnt/cells/versions/v2/s0/xy/z00003.png >{tmp_path}/z3.png
            findmnt -n -o FSTYPE,SOURCE,OPTIONS {tmp_path}/mnt
            touch {tmp_path}/mnt/cells/branches/main/files/x 2>&1 || true
            umount {tmp_path}/mnt
        """
        done = in_own_namespace(script)
        assert done.returncode == 0, done.stderr
        assert STILL_OPENING.sub("", done.stderr) == "volfs: not known, and without effect: coment=x\n"
        shown, refusal = done.stdout.splitlines()
        assert shown.split()[:2] == ["fuse.volfs", str(store)]
        assert {"ro", "allow_other", "default_permissions"} <= {*shown.split()[2].split(",")}
        assert "Read-only file system" in refusal
        assert (tmp_path / "z3.png").read_bytes()[:4] == b"\x89PNG"

    @pytest.mark.parametrize(
        ("arguments", "status", "said"),
        [
            (["STORE"], 1, "required"),
            (["STORE", "PLACE", "-N", "ns"], 1, "nsenter"),
            (["STORE", "PLACE", "-o", "umask=9"], 32, "permission bits"),
            (["/nowhere", "PLACE"], 32, "/nowhere"),
            (["STORE", "PLACE", "-f", "-o", "coment=x", "-s"], 0, ""),
        ],
    )
    def test_exit_status_is_as_mount_has_it(
        self, store: Path, place: Path, arguments: list[str], status: int, said: str
    ) -> None:
        words = [{"STORE": str(store), "PLACE": str(place)}.get(word, word) for word in arguments]
        done = subprocess.run(
            [sys.executable, "-m", "volfs.cli.helpers", *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == status and said in done.stderr, done.stderr
        assert mounted_at(place) is None


class TestUsers:
    def test_a_datasets_owner_group_and_mode_are_held_to_by_the_kernel(self, store: Path, open_place: Path) -> None:
        volfs(store, "config", "cells", f"owner={OWNER}", f"group={GROUP}", "mode=750")
        try:
            rest = {"name": "cells", "protect": [], "require-message": None, "remotes": {}, "partial": None}
            assert answer(store, "config", "cells") == rest | {"owner": OWNER, "group": GROUP, "mode": "0750"}
            with mounted(store, open_place / "mnt", allow_other=True) as place:
                version, branch = place / "cells" / "versions" / "v2", place / "cells" / "branches" / "main"
                chunk = version / "zarr" / "s0" / "c" / "0" / "0" / "0"
                for uid, gid in ((OWNER, 65534), (MEMBER, GROUP)):
                    assert as_user(uid, "wc", "-c", chunk, gid=gid).stdout.split()[0] == str(chunk.stat().st_size)
                assert as_user(OWNER, "touch", branch / "files" / "mine").returncode == 0
                assert as_user(OWNER, "mkdir", place / "cells" / "branches" / "theirs").returncode == 0
                with open_store(store, read_only=True) as looking:
                    made = next(looking["cells"].ref_log())
                assert isinstance(made, RefChange) and (made.name, made.who) == ("theirs", author_of(OWNER))
                assert as_user(OWNER, "rmdir", place / "cells" / "branches" / "theirs").returncode == 0
                assert "Permission denied" in as_user(MEMBER, "touch", branch / "files" / "no", gid=GROUP).stderr
                assert "Permission denied" in as_user(STRANGER, "ls", place / "cells").stderr
                assert "Permission denied" in as_user(STRANGER, "cat", chunk).stderr
                assert as_user(STRANGER, "ls", place).returncode == 0
                assert as_user(OWNER, "touch", version / "files" / "x").returncode != 0
                volfs(store, "config", "cells", "mode=755")  # and while it is mounted
                until(lambda: as_user(STRANGER, "ls", version).returncode == 0)
                volfs(store, "config", "cells", "mode=700")
                until(lambda: as_user(MEMBER, "ls", place / "cells", gid=GROUP).returncode)
        finally:
            volfs(store, "config", "cells", "owner=", "group=", "mode=")
        assert answer(store, "config", "cells") == rest | {"owner": None, "group": None, "mode": None}

    def test_settings_that_are_none_are_refused(self, store: Path) -> None:
        assert "there are owner=…, group=…, mode=…" in refused(store, "config", "cells", "colour=red")
        assert "no user" in refused(store, "config", "cells", "owner=nobody-has-this-name")
        assert "permission bits" in refused(store, "config", "cells", "mode=888")

    @pytest.mark.parametrize("others", [False, True])
    def test_a_user_who_is_not_root_mounts_and_only_they_get_in_unless_they_say(
        self, store: Path, open_place: Path, others: bool
    ) -> None:
        """Through fusermount3. What a machine has for its users (a device they may open, the word user_allow_other) is
        put in place in a mount namespace of its own. They may search root's home, where Python may lie; no more."""
        nobody = pwd.getpwnam("nobody").pw_uid  # fusermount3 wants a user with a name
        shutil.copytree(store, open_place / "store")
        (open_place / "home").mkdir()
        (open_place / "mnt").mkdir()
        (open_place / "fuse.conf").write_text("user_allow_other\n")
        for path in (
            open_place / "home",
            open_place / "mnt",
            *open_place.rglob("store"),
            *open_place.rglob("store/**/*"),
        ):
            os.chown(path, nobody, GROUP)
        os.mknod(open_place / "fuse", stat.S_IFCHR | 0o666, Path("/dev/fuse").stat().st_rdev)
        (open_place / "fuse").chmod(0o666)
        search = "+dac_read_search"
        helped = f"{search},+sys_admin,+setuid,+setgid,+dac_override,+chown"  # what fusermount3 is, as it is set-uid
        plain = f"setpriv --reuid={nobody} --regid={GROUP} --clear-groups"
        user = (
            f"{plain} --inh-caps=-all,{search} --ambient-caps=-all,{search} --bounding-set=-all,{helped} "
            f"env HOME={open_place}/home XDG_STATE_HOME={open_place}/home {shlex.quote(sys.executable)} -m volfs"
        )
        stranger = f"setpriv --reuid={STRANGER} --regid={STRANGER} --clear-groups"
        script = f"""
            mount --bind {open_place}/fuse /dev/fuse && mount --bind {open_place}/fuse.conf /etc/fuse.conf || exit 9
            {user} --store {open_place}/store mount {open_place}/mnt {"--allow-other" if others else ""} || exit 8
            {plain} ls {open_place}/mnt >&2 || exit 7
            {plain} touch {open_place}/mnt/cells/branches/main/files/mine || exit 6
            {stranger} ls {open_place}/mnt/cells >&2; echo "ls $?"
            {stranger} touch {open_place}/mnt/cells/branches/main/files/theirs; echo "touch $?"
            {user} umount {open_place}/mnt || exit 5
        """
        done = in_own_namespace(script)
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        assert "cells" in done.stderr
        listed, touched = (int(line.split()[1]) for line in done.stdout.splitlines())
        assert (listed == 0) is others and touched != 0


class TestServiceManagers:
    def test_ready_and_stopping_are_told(self, store: Path, place: Path, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / "notify"))
            manager.settimeout(60)
            process = subprocess.Popen(
                [sys.executable, "-m", "volfs", "--store", str(store), "mount", "--foreground", str(place)],
                env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
                stderr=subprocess.DEVNULL,
            )
            try:
                ready = manager.recv(4096).decode().splitlines()
                assert "READY=1" in ready and f"MAINPID={process.pid}" in ready
                assert (place / "README.txt").exists(), "it is ready when it says so"
                process.send_signal(signal.SIGTERM)
                assert "STOPPING=1" in manager.recv(4096).decode().splitlines()
                assert process.wait(PATIENCE) == 0
            finally:
                process.kill()
                process.wait()
        assert mounted_at(place) is None

    def test_a_failure_is_told(self, tmp_path: Path, place: Path) -> None:
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / "volfs.json").write_text("{}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / "notify"))
            manager.settimeout(60)
            done = subprocess.run(
                [sys.executable, "-m", "volfs", "--store", tmp_path / "store", "mount", "--foreground", place],
                env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            told = manager.recv(4096).decode()
        why = done.stderr.splitlines()[-1]  # after what the log has to say
        assert done.returncode == 1 and why.startswith("volfs: ")
        assert "READY=1" not in told and f"STATUS={why.removeprefix('volfs: ')}" in told

    def test_wait_is_for_a_store_that_comes_late(self, store: Path, place: Path, tmp_path: Path) -> None:
        late = tmp_path / "late"
        process = subprocess.Popen(
            [sys.executable, "-m", "volfs", "--store", str(late), "mount", str(place), "--wait", "60"]
        )
        time.sleep(1)
        assert process.poll() is None
        shutil.copytree(store, tmp_path / "copy")
        (tmp_path / "copy").rename(late)
        assert process.wait(PATIENCE) == 0 and (place / "README.txt").exists()
        volfs(None, "umount", place)
        assert "no store there after 0.2 seconds" in refused(tmp_path / "nowhere", "mount", place, "--wait", "0.2")


class TestDying:
    def test_a_dead_daemon_leaves_enotconn_and_the_next_mount_mends_it(self, store: Path, place: Path) -> None:
        volfs(store, "mount", place)
        pid = daemon_pid(place)
        os.kill(pid, signal.SIGKILL)
        while running(pid):
            time.sleep(0.01)
        for look in (lambda: os.listdir(place), lambda: os.stat(place / "cells")):
            with pytest.raises(OSError) as caught:
                look()
            assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED), "and no empty directory"
        assert is_broken(place)
        done = volfs(store, "mount", place)
        assert "took away a dead mount" in done.stderr and len(done.stderr.splitlines()) == 1
        assert os.listdir(place / "cells" / "versions")
        volfs(None, "umount", place)
        assert mounted_at(place) is None

    def test_a_mount_that_lives_is_not_mended_away(self, store: Path, place: Path) -> None:
        volfs(store, "mount", place)
        pid = daemon_pid(place)
        assert "already" in refused(store, "mount", place)
        assert running(pid) and os.listdir(place / "cells")
        volfs(None, "umount", place)
