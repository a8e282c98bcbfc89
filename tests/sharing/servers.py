"""NFS-Ganesha and Samba, private ones, with the configurations of ``mount_examples/``.

Decided here: what is put in place of the examples' paths and users, and when a server is ready. Everything else that a
server does is what its example says, so the examples are what is tested.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from tests.kits.paths import EXAMPLES
from tests.sharing.private_network import PrivateNetwork, Process
from volfs.testing.waiting import PATIENCE

SHARE = "volfs"
PASSWORD = "volfs-test"
USER = "root"

NFS_PROGRAMS = {
    "ganesha.nfsd": "nfs-ganesha nfs-ganesha-vfs",
    "rpcbind": "rpcbind",
    "rpc.statd": "nfs-common",
    "ip": "iproute2",
    "nfs-ls": "libnfs-utils",
}
SMB_PROGRAMS = {"smbd": "samba", "smbclient": "smbclient", "rpcbind": "rpcbind", "ip": "iproute2"}


def filled_in(text: str, **values: str) -> str:
    """An example with its placeholders replaced; each must be there."""
    for old, new in values.items():
        assert old in text, f"the example does not say {old!r}"
        text = text.replace(old, new)
    return text


class Server(ABC):
    """One that can be stopped and started again, with the same state."""

    def __init__(self, network: PrivateNetwork, mount: Path, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.network = network
        self.mount = mount
        self.folder = folder
        self.process: Process | None = None

    @abstractmethod
    def start(self) -> None: ...

    def stop(self) -> None:
        """Idempotent."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        try:
            self.start()
            yield
        finally:
            self.stop()


class ConfiguredServer(Server):
    """One with a configuration file."""

    @property
    @abstractmethod
    def configuration(self) -> Path: ...

    @contextlib.contextmanager
    def configured(self, **values: str) -> Iterator[None]:
        """Started again with other words in its configuration, and afterwards with those that it had."""
        before = self.configuration.read_text()
        try:
            self.configuration.write_text(filled_in(before, **values))
            self.restart()
            yield
        finally:
            self.configuration.write_text(before)
            self.restart()


class Ganesha(ConfiguredServer):
    """NFS v3 and v4."""

    def __init__(self, network: PrivateNetwork, mount: Path, folder: Path) -> None:
        super().__init__(network, mount, folder)
        state = folder / "recovery"
        state.mkdir(exist_ok=True)
        example = (EXAMPLES / "nfs-ganesha" / "ganesha.conf").read_text()
        owner = {"= 990;": f"= {os.getuid()};"}
        paths = {"/srv/volfs": str(mount), "/var/lib/nfs/ganesha": str(state)}
        self.configuration.write_text(filled_in(example, **paths, **owner))

    @property
    def configuration(self) -> Path:
        return self.folder / "ganesha.conf"

    def start(self) -> None:
        log = self.folder / "ganesha.log"
        before = log.stat().st_size if log.exists() else 0
        self.process = Process(
            self.network.beside_rpcbind(
                *("ganesha.nfsd", "-F", "-L", log, "-f", self.configuration, "-p", self.folder / "pid"),
                mount=self.mount,
            ),
            self.folder / "ganesha.out",
        )
        self.process.wait_until(
            lambda: log.exists() and "NFS SERVER INITIALIZED" in log.read_text(errors="replace")[before:],
            f"NFS-Ganesha (its log is {log})",
        )
        self.process.wait_until(lambda: self.network.answers(2049), "NFS-Ganesha")


class Samba(ConfiguredServer):
    """SMB 2 and 3."""

    def __init__(self, network: PrivateNetwork, mount: Path, folder: Path) -> None:
        super().__init__(network, mount, folder)
        example = (EXAMPLES / "samba" / "smb.conf").read_text()
        private = ["[global]"]
        for kind in ("lock", "state", "cache", "private", "pid", "ncalrpc"):
            (folder / kind).mkdir(exist_ok=True)
            option = "private dir" if kind == "private" else f"{kind} {'dir' if kind == 'ncalrpc' else 'directory'}"
            private.append(f"{option} = {folder / kind}")
        private.append(f"passdb backend = tdbsam:{folder / 'private' / 'passdb.tdb'}")
        private.append("log level = 1")
        users = {"@imaging": USER, "force user = volfs": f"force user = {USER}"}
        self.configuration.write_text(
            "\n".join(private) + "\n" + filled_in(example, **{"/srv/volfs": str(mount)}, **users)
        )
        subprocess.run(
            ["smbpasswd", "-c", str(self.configuration), "-s", "-a", USER],
            input=f"{PASSWORD}\n{PASSWORD}\n",
            text=True,
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        )

    @property
    def configuration(self) -> Path:
        return self.folder / "smb.conf"

    def start(self) -> None:
        self.process = Process(
            self.network.inside(
                *("smbd", "--foreground", "--no-process-group", f"--configfile={self.configuration}", "--debug-stdout")
            ),
            self.folder / "smbd.log",
        )
        self.process.wait_until(lambda: self.network.answers(445), "smbd")


class Statd(Server):
    """What NFSv3 locks need on the server: rpc.statd."""

    def start(self) -> None:
        for name in ("sm", "sm.bak"):
            (self.folder / name).mkdir(exist_ok=True)
        self.process = Process(
            self.network.beside_rpcbind(
                *("rpc.statd", "--foreground", "--no-notify", "--state-directory-path", self.folder), drops=True
            ),
            self.folder / "statd.log",
            asked=False,
        )
