"""Clone, fetch, pull and push through a real sshd, on a port of this machine, with keys of its own."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kits.mounts import refused, volfs
from tests.kits.remotes import same, whole
from tests.kits.stores import START, volume, write_version
from volfs import init_store, open_store
from volfs.testing.waiting import PATIENCE

SHAPE = (16, 16, 16)
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass(frozen=True)
class Server:
    """An sshd that lets this user in, with the client's options for it."""

    port: int
    root: Path

    def address(self, path: Path) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{path}"

    def ssh(self, *, key: str = "key", known: str = "known_hosts") -> str:
        """A value of VOLFS_SSH."""
        options = ["-F", "none", "-i", str(self.root / key), "-o", f"UserKnownHostsFile={self.root / known}"]
        for option in ("BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes", "LogLevel=ERROR"):
            options += ["-o", option]
        return shlex.join(["ssh", *options])


def key(path: Path) -> str:
    """Make a pair of keys; the public one."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    assert SSHD is not None, "sshd is not installed: run .ci/setup tests"
    root = tmp_path_factory.mktemp("sshd")
    root.chmod(0o700)
    host, user = key(root / "host"), key(root / "key")
    key(root / "stranger")
    (root / "authorized_keys").write_text(user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (root / "known_hosts").write_text(f"[127.0.0.1]:{port} {host}")
    (root / "others").write_text(f"[127.0.0.1]:{port} {key(root / 'other')}")
    home = root / "home"
    home.mkdir()
    places = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    (root / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {root / 'host'}\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {root / 'authorized_keys'}\nPasswordAuthentication no\nPermitRootLogin yes\n"
        f"SetEnv PATH={places} HOME={home}\n"
    )
    separation = Path("/run/sshd")
    made = os.geteuid() == 0 and not separation.exists()
    if made:
        separation.mkdir(mode=0o755)
    log = root / "log"
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(root / "config")], stderr=log.open("wb"))
    try:
        end = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.02)
        yield Server(port, root)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        if made:
            separation.rmdir()


def test_clone_fetch_pull_and_push_go_through_sshd(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOLFS_SSH", server.ssh())
    theirs, ours = tmp_path / "their store", tmp_path / "ours"  # a name that a shell would take for two
    with init_store(theirs) as store:
        cells = store.create_dataset("cells")
        names = {"dimension_names": ("z", "y", "x")}
        write_version(cells, volume(SHAPE), files={"files/a": b"a" * (3 << 20)}, time_ns=START, **names)
        cells.add_note(1, "noted there", "Ada")
    address = server.address(theirs)
    assert volfs(ours, "clone", address, ours).stdout.startswith("cells: 1 version, 1 note, ")
    with open_store(theirs) as store:
        write_version(store["cells"], volume(SHAPE, 1), parent=1, coords=[(0, 0, 0)], **names)
    assert "origin/main: v1 → v2" in volfs(ours, "fetch", "cells").stdout
    assert "main: v1 → v2" in volfs(ours, "pull", "cells").stdout
    with open_store(ours) as store:
        write_version(store["cells"], volume(SHAPE, 2), parent=2, coords=[(1, 1, 1)], **names)
    assert "main: v2 → v3" in volfs(ours, "push", "cells").stdout
    part = tmp_path / "part"
    volfs(part, "clone", f"{address}/cells", part, "--box", "z0-8_y0-8_x0-8")
    assert "0 versions, 8 payloads, " in volfs(part, "fetch", "cells", "--whole").stdout
    with open_store(theirs) as one, open_store(ours) as other, open_store(part) as third:
        for store in (other, third):
            same(one["cells"], store["cells"])
            whole(store)


def test_what_ssh_says_is_told_in_one_line(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tmp_path / "ours"
    for options, path, why in (
        ({"key": "stranger"}, tmp_path, "Permission denied"),
        ({"known": "others"}, tmp_path, "Host key verification failed"),
        ({}, tmp_path / "nowhere", "nowhere does not exist"),
    ):
        monkeypatch.setenv("VOLFS_SSH", server.ssh(**options))
        said = refused(ours, "clone", server.address(path), ours)
        assert why in said and len(said.splitlines()) == 1
        assert not ours.exists()
