"""``mount_examples/`` for the machine itself: systemd, fstab, autofs, the kernel's NFS server; by their own programs.

Units, lines and maps are used as they stand, in a machine of their own (:mod:`tests.kits.namespace_machine`): systemd
starts, restarts and stops the units, mount(8) reads the fstab, automount the maps, exportfs the exports. Only the
store's path is another one. The kernel's NFS server is tried elsewhere (tests/examples/test_nfsd.py): here its lines
are parsed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.cells import make_store
from tests.kits.examples import open_directory, program, volfs_program
from tests.kits.namespace_machine import SYSTEMD, Machine, machine
from tests.kits.paths import EXAMPLES

UNIT = "volfs@srv-volfs.service"
SERVERS = [("nfs-ganesha", "nfs-ganesha.service"), ("samba", "smbd.service"), ("nfs-kernel", "nfs-server.service")]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory with a ``store`` in it, and the programs of this checkout."""
    with open_directory() as root:
        make_store(root / "store")
        (root / "bin").mkdir()
        volfs_program(root / "bin")
        volfs_program(root / "bin", "volfs.cli.helpers", "mount.fuse.volfs")
        yield root


def line(example: str, start: str) -> str:
    """The one line of an example's README that begins so."""
    lines = [line for line in (EXAMPLES / example / "README.md").read_text().splitlines() if line.startswith(start)]
    assert len(lines) == 1, f"{example}/README.md: {len(lines)} lines begin with {start!r}"
    return lines[0]


def setup(place: Path) -> str:
    """What an administrator does, as the READMEs say it."""
    units = EXAMPLES / "systemd" / "system"
    return f"""
        mkdir -p /run/units /etc/volfs /etc/auto.master.d /opt/volfs
        ln -s {place}/bin /opt/volfs/bin
        {line("fstab", "ln -s ")}
        {line("fstab", "mkdir ").replace("/var/lib/volfs", "/run/index")}
        stores='s#/data/store#{place}/store#; s#/net/store#{place}/store#; s#/data/groups/&#{place}/\\&#'
        cp /lib/systemd/system/*.target /run/units/ 2>/dev/null || true
        for unit in {units}/*.service {units}/*mount; do
            sed "$stores" "$unit" > /run/units/"$(basename "$unit")"
        done
        sed "$stores" {units}/srv-volfs.conf > /etc/volfs/srv-volfs.conf
        mkdir -p /run/user/0 /run/user-units /run/home/.config/volfs
        HOME=/run/home
        {line("systemd", "mkdir -p ~/.local")}
        cp /lib/systemd/user/*.target "{EXAMPLES}/systemd/user/volfs@.service" /run/user-units/ 2>/dev/null || true
        sed "$stores" {EXAMPLES}/systemd/user/mnt.conf > /run/home/.config/volfs/mnt.conf
        sed "$stores; s#=/net,#={place},#; s#/var/lib/volfs/#/run/index/#" {EXAMPLES}/fstab/fstab > /etc/fstab
        sed "$stores" {EXAMPLES}/autofs/auto.volfs > /etc/auto.volfs
        cp {EXAMPLES}/autofs/volfs.autofs /etc/auto.master.d/
        sed "s#/volfs #/run/auto #" /etc/auto.master.d/volfs.autofs > /etc/auto.master.tests
        cp {EXAMPLES}/nfs-kernel/exports /etc/exports
    """


@pytest.fixture(scope="module")
def booted(place: Path) -> Iterator[Machine]:
    program("systemd-analyze", "systemd")
    init = (SYSTEMD, "--unit=basic.target", "--log-target=console", "--show-status=0")
    with machine(place / "booted", setup(place), *init) as found:
        up = subprocess.CompletedProcess([], 1, "", "")
        for _ in range(100):
            if (up := found.run("systemctl", "is-system-running", ok=False)).stdout.strip() == "running":
                break
            found.run("sleep", "0.1", ok=False)
        if up.stdout.strip() != "running":
            pytest.skip(f"systemd does not come up in namespaces of its own: {up.stdout} {found.said}")
        yield found


class TestSystemd:
    def state(self, booted: Machine, unit: str = UNIT) -> str:
        return booted.run("systemctl", "show", "-p", "ActiveState", "--value", unit).stdout.strip()

    def test_the_service_has_started_when_the_mount_answers(self, booted: Machine) -> None:
        booted.run("systemctl", "start", UNIT)
        assert booted.run("cat", "/srv/volfs/cells/dataset.json").stdout.startswith("{")
        shown = booted.run("systemctl", "show", "-p", "StatusText", "--value", UNIT).stdout
        assert shown.strip() == "serving /srv/volfs"
        booted.run("systemctl", "stop", UNIT)

    def test_a_killed_daemon_is_followed_by_another_and_never_by_an_empty_directory(self, booted: Machine) -> None:
        booted.run("systemctl", "start", UNIT)
        killed = booted.run("systemctl", "show", "-p", "MainPID", "--value", UNIT).stdout.strip()
        look = "ls /srv/volfs; kill -9 $0; while kill -0 $0 2>/dev/null; do :; done; ls /srv/volfs"
        seen = booted.run("sh", "-c", look, killed, ok=False)
        assert seen.stdout.split() == ["README.txt", "cells"], "listed before, and never again without a daemon"
        assert "not connected" in seen.stderr
        booted.until(lambda: self.state(booted) == "active", "started anew")
        assert booted.run("ls", "/srv/volfs").stdout.split() == ["README.txt", "cells"]
        assert booted.run("systemctl", "show", "-p", "NRestarts", "--value", UNIT).stdout.strip() == "1"
        mounts = Path(f"/proc/{booted.pid}/mounts").read_text()
        assert len(re.findall(r" /srv/volfs fuse", mounts)) == 1, "the dead mount is not below the new one"
        booted.run("systemctl", "stop", UNIT)

    def test_reload_keeps_it_and_stop_leaves_nothing(self, booted: Machine) -> None:
        booted.run("systemctl", "start", UNIT)
        pid = booted.run("systemctl", "show", "-p", "MainPID", "--value", UNIT).stdout
        booted.run("systemctl", "reload", UNIT)
        assert booted.run("ls", "/srv/volfs").stdout.split() == ["README.txt", "cells"]
        assert booted.run("systemctl", "show", "-p", "MainPID", "--value", UNIT).stdout == pid
        booted.run("systemctl", "stop", UNIT)
        assert booted.run("systemctl", "show", "-p", "Result", "--value", UNIT).stdout.strip() == "success"
        assert self.state(booted) == "inactive" and booted.run("ls", "-A", "/srv/volfs").stdout == ""

    @pytest.mark.parametrize(("example", "server"), SERVERS)
    def test_a_server_that_shares_the_mount_comes_back_with_it(
        self, booted: Machine, example: str, server: str
    ) -> None:
        """The unit stands in for the server, with the example's drop-in, and looks at the mount as it starts."""
        starts = f"/run/starts-{server}"
        look = f"/bin/sh -c 'ls /srv/volfs >> {starts}; echo >> {starts}'"
        unit = f"[Service]\nExecStartPre={look}\nExecStart=/bin/sleep infinity\n"
        drop_in = EXAMPLES / example / f"{server}.d" / "volfs.conf"
        booted.run("sh", "-c", f"mkdir /run/units/{server}.d; cp {drop_in} /run/units/{server}.d/")
        booted.run("sh", "-c", f'printf %s "$0" > /run/units/{server}', unit)
        booted.run("systemctl", "daemon-reload")
        booted.run("systemctl", "reset-failed", UNIT, ok=False)  # which also forgets how often it was started
        booted.run("systemctl", "start", server)
        pid = ("systemctl", "show", "-p", "MainPID", "--value")
        assert self.state(booted) == "active", "the server asks for the mount"
        first = booted.run(*pid, server).stdout
        booted.run("sh", "-c", "kill -9 $0", booted.run(*pid, UNIT).stdout.strip())
        booted.until(lambda: booted.run(*pid, server).stdout not in (first, "0\n"), "the server is another one")
        assert (self.state(booted), self.state(booted, server)) == ("active", "active")
        assert booted.run("cat", starts).stdout.split() == ["README.txt", "cells"] * 2, "each time the mount was there"
        booted.run("systemctl", "stop", UNIT)
        assert self.state(booted, server) == "inactive", "nothing shares the empty directory"

    def test_a_server_comes_when_a_mount_that_failed_comes_at_last(self, booted: Machine) -> None:
        server = "nfs-ganesha.service"
        booted.run("sh", "-c", line("nfs-ganesha", "systemctl add-wants"))
        booted.run("cp", "-r", f"/etc/systemd/system/{UNIT}.wants", "/run/units/")
        booted.run("systemctl", "daemon-reload")
        booted.run("systemctl", "reset-failed", UNIT, ok=False)
        booted.run(
            "sh", "-c", "mv /etc/volfs/srv-volfs.conf /run/kept; echo VOLFS_STORE=/no > /etc/volfs/srv-volfs.conf"
        )
        booted.run("sh", "-c", "echo VOLFS_OPTIONS=--wait=0.1 >> /etc/volfs/srv-volfs.conf")
        assert booted.run("systemctl", "start", server, ok=False).returncode != 0
        booted.run("mv", "/run/kept", "/etc/volfs/srv-volfs.conf")
        booted.until(lambda: self.state(booted, server) == "active", "the server")
        booted.run("systemctl", "stop", UNIT)

    def test_a_user_has_a_mount_by_the_manager_of_the_user(self, booted: Machine) -> None:
        user = {"HOME": "/run/home", "XDG_RUNTIME_DIR": "/run/user/0", "SYSTEMD_UNIT_PATH": "/run/user-units"}
        settings = [f"{name}={value}" for name, value in user.items()]
        given = [f"--setenv={setting}" for setting in settings]
        booted.run("systemd-run", "--unit=manager", "-p", "Delegate=yes", *given, SYSTEMD, "--user")
        control = ["env", *settings, "systemctl", "--user"]
        booted.until(lambda: booted.run(*control, "is-system-running", ok=False).stdout == "running\n", "the manager")
        booted.run(*control, "start", "volfs@mnt.service")
        assert booted.run("ls", "/run/home/mnt").stdout.split() == ["README.txt", "cells"]
        booted.run(*control, "stop", "volfs@mnt.service")
        assert booted.run("ls", "-A", "/run/home/mnt").stdout == ""
        booted.run("systemctl", "kill", "-s", "KILL", "manager")

    def test_a_store_that_is_not_there_is_a_failure_that_says_so(self, booted: Machine) -> None:
        booted.run("sh", "-c", "echo 'VOLFS_STORE=/nowhere\nVOLFS_OPTIONS=--wait=0.1' > /etc/volfs/srv-none.conf")
        assert booted.run("systemctl", "start", "volfs@srv-none.service", ok=False).returncode != 0
        booted.run("systemctl", "stop", "volfs@srv-none.service")
        assert "volfs: /nowhere" in booted.said

    def test_it_is_mounted_when_somebody_first_looks(self, booted: Machine) -> None:
        booted.run("systemctl", "start", "srv-volfs.automount")
        assert self.state(booted, "srv-volfs.mount") == "inactive"
        assert booted.run("ls", "/srv/volfs").stdout.split() == ["README.txt", "cells"]
        assert self.state(booted, "srv-volfs.mount") == "active"
        booted.run("systemctl", "stop", "srv-volfs.automount", "srv-volfs.mount")
        assert booted.run("ls", "-A", "/srv/volfs").stdout == ""


@pytest.mark.parametrize("kind", ["system", "user"])
def test_systemd_finds_nothing_wrong_with_the_units(kind: str, tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    command = shutil.which("true") or ""
    for unit in sorted((EXAMPLES / "systemd" / kind).iterdir()):
        text = unit.read_text().replace("/opt/volfs/bin/volfs", command).replace("%h/.local/bin/volfs", command)
        (tmp_path / unit.name).write_text(text)
    for example, server in SERVERS if kind == "system" else []:
        (tmp_path / server).write_text(f"[Service]\nExecStart={command}\n")
        shutil.copytree(EXAMPLES / example / f"{server}.d", tmp_path / f"{server}.d")
    units = sorted(str(unit) for unit in tmp_path.iterdir() if unit.is_file() and unit.suffix != ".conf")
    assert len(units) >= (1 if kind == "user" else 3 + len(SERVERS))
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_LOG_LEVEL": "warning"}
    done = subprocess.run(
        [analyze, "verify", "--man=no", f"--{kind}", *units], capture_output=True, text=True, check=False, env=env
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def plain(place: Path) -> Iterator[Machine]:
    """A machine without a service manager."""
    with machine(place / "plain", setup(place), "sleep", "infinity") as found:
        yield found


def test_mount_reads_the_fstab(plain: Machine) -> None:
    assert "\n0 parse errors, 0 errors" in plain.run("findmnt", "--verify", ok=False).stderr
    plain.run("mount", "-a", "-t", "fuse.volfs")
    assert plain.run("ls", "/srv/volfs").stdout.split() == ["README.txt", "cells"]
    assert plain.run("ls", "/srv/work").stdout == "", "noauto"
    plain.run("mount", "/srv/work")
    plain.run("mount", "/srv/remote")
    lines = plain.run("findmnt", "-rn", "-t", "fuse.volfs", "-o", "TARGET,OPTIONS").stdout.splitlines()
    shown = dict(line.split()[:2] for line in lines if line.startswith("/srv/"))
    assert set(shown) == {"/srv/volfs", "/srv/work", "/srv/remote"}
    assert all("allow_other" in options and "default_permissions" in options for options in shown.values())
    assert shown["/srv/volfs"].startswith("ro,") and shown["/srv/work"].startswith("rw,")
    assert plain.run("stat", "-c", "%a %G", "/srv/work/cells/branches/main").stdout.split() == ["750", "users"]
    assert plain.run("sh", "-c", "echo no > /srv/volfs/cells/branches/exp/files/x", ok=False).returncode != 0
    assert plain.run("stat", "-c", "%A", "/srv/remote/cells/branches/exp/files").stdout.strip() == "dr-xr-xr-x"
    plain.run("sh", "-c", "echo yes > /srv/work/cells/branches/exp/files/x")
    assert plain.run("ls", "/var/log/volfs").stdout.split() == ["srv-remote.log", "srv-volfs.log", "srv-work.log"]
    plain.run("umount", "/srv/volfs", "/srv/work", "/srv/remote")
    assert plain.run("ls", "-A", "/srv/volfs").stdout == ""


def test_an_index_of_the_machines_own_is_made_by_whatever_mount_comes_first(plain: Machine, place: Path) -> None:
    command = ["mount", "-t", "fuse.volfs", f"{place}/store", "/srv/volfs", "-o"]
    for kind in ("ro", "rw", "ro"):
        plain.run(*command, f"{kind},catalog=/run/own.sqlite")
        assert plain.run("ls", "/srv/volfs").stdout.split() == ["README.txt", "cells"]
        plain.run("umount", "/srv/volfs")


def test_automount_mounts_what_is_looked_at(plain: Machine) -> None:
    program("automount", "autofs")
    if not os.path.exists("/dev/autofs"):
        pytest.skip(
            "this kernel has no autofs (/dev/autofs is missing): the maps of mount_examples/autofs are not tried"
        )
    plain.run(
        "sh",
        "-c",
        "mkdir -p /run/auto && (setsid automount -f -d --pid-file /run/automount.pid /etc/auto.master.tests"
        f" > {plain.folder}/log 2>&1 &)",
    )
    listed = lambda name: plain.run("ls", f"/run/auto/{name}", ok=False).stdout.split()  # noqa: E731
    plain.until(lambda: listed("facility") == ["README.txt", "cells"], "/volfs/facility")
    assert listed("store") == ["README.txt", "cells"], "the line for every group"
    assert listed("nobody") == []
    plain.run("sh", "-c", "kill $(cat /run/automount.pid)")
    plain.until(lambda: " /run/auto/" not in plain.run("cat", "/proc/mounts").stdout, "unmounted")


@pytest.mark.parametrize("example", ["nfs-ganesha", "samba"])
def test_the_user_whom_a_server_writes_as_may_write(plain: Machine, place: Path, example: str) -> None:
    readme = (EXAMPLES / example / "README.md").read_text()
    (config,) = (path for path in (EXAMPLES / example).glob("*.conf"))
    (options,) = re.findall(r"VOLFS_OPTIONS=(.*)", readme)
    assert f"mount {options} /srv/volfs\n" in config.read_text(), "its first lines say the same"
    if plain.run("getent", "passwd", "volfs", ok=False).returncode != 0:
        plain.run("sh", "-c", line(example, "useradd "))
    plain.run("sh", "-c", f"/opt/volfs/bin/volfs --store {place}/store mount {options} /srv/volfs")
    write = f"echo yes > /srv/volfs/cells/branches/exp/files/by-{example}"
    try:
        for user, status in (("volfs", 0), ("nobody", 2)):
            enter = ("setpriv", f"--reuid={user}", "--clear-groups", f"--regid={'volfs' if status == 0 else 'nogroup'}")
            assert plain.run(*enter, "sh", "-c", write, ok=False).returncode == status, user
    finally:
        plain.run("umount", "/srv/volfs")


def test_the_configurations_name_the_user_of_the_mount(plain: Machine) -> None:
    assert "\n    force user = volfs\n" in (EXAMPLES / "samba" / "smb.conf").read_text()
    if plain.run("getent", "passwd", "volfs", ok=False).returncode != 0:
        plain.run("sh", "-c", line("nfs-ganesha", "useradd "))
    plain.run("mkdir", "-p", "/etc/ganesha")
    plain.run("cp", str(EXAMPLES / "nfs-ganesha" / "ganesha.conf"), "/etc/ganesha/ganesha.conf")
    plain.run("sh", "-c", line("nfs-ganesha", "sed "))
    written = dict(re.findall(r"Anonymous_(.)id = (\d+);", plain.run("cat", "/etc/ganesha/ganesha.conf").stdout))
    assert written == {
        "U": plain.run("id", "-u", "volfs").stdout.strip(),
        "G": plain.run("id", "-g", "volfs").stdout.strip(),
    }


def test_exportfs_reads_the_exports(plain: Machine) -> None:
    program("exportfs", "nfs-kernel-server")
    plain.run("sh", "-c", "mkdir -p /var/lib/nfs && touch /var/lib/nfs/etab /var/lib/nfs/rmtab")
    done = plain.run("exportfs", "-ra", ok=False)
    assert "exports:" not in done.stderr and "yntax" not in done.stderr, done.stderr
    shown = {
        client: set(options.split(","))
        for client, options in re.findall(
            r"^/srv/volfs\s+([^\s(]+)\((.*)\)$", plain.run("cat", "/var/lib/nfs/etab").stdout, re.MULTILINE
        )
    }
    assert set(shown) == {"192.168.10.0/24", "10.20.0.0/16"}
    assert all(
        {"sync", "no_subtree_check", "fsid=7001", "mountpoint", "root_squash"} <= options for options in shown.values()
    )
    assert "ro" in shown["192.168.10.0/24"] and "rw" in shown["10.20.0.0/16"]
