"""One facility for all tests of sharing that a process runs: a mount, its servers, a machine that is a client.

A machine that cannot run the servers skips the tests, with the reason, and warns besides: what was not tried is not
tested. A server that is installed and does not run fails them.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sharing import linux
from tests.sharing.clients import Client, KernelClient
from tests.sharing.private_network import PrivateNetwork, lacking
from tests.sharing.servers import NFS_PROGRAMS, SHARE, SMB_PROGRAMS, Ganesha, Samba, Statd
from tests.sharing.stores import make_store
from volfs.fuse.mounting import mount, unmount
from volfs.fuse.processes import MountOptions
from volfs.testing.kit import take_away, unexpected
from volfs.testing.waiting import PATIENCE

GUEST_PROGRAMS = {linux.KERNEL: "user-mode-linux", "ip": "iproute2"}


def need(programs: dict[str, str], what: str) -> None:
    """Skip, and say so loudly, where ``programs`` are not there or cannot be used."""
    why = lacking(programs)
    if why:
        warnings.warn(f"{what} NOT TESTED on this machine: {why}", stacklevel=2)
        pytest.skip(f"{what} not tested on this machine: {why}")


@dataclass
class Facility:
    """A mount and what shares it."""

    folder: Path
    store: Path
    mount: Path
    network: PrivateNetwork
    _daemon: subprocess.Popen[bytes] | None = None

    def share(self, path: str = "") -> Path:
        """The mount on the server itself."""
        return self.mount / path

    def start(self) -> None:
        """Mount."""
        self.mount.mkdir(exist_ok=True)
        options = MountOptions(allow_other=True, log=str(self.folder / "mnt.log"))
        self._daemon = mount(self.store, self.mount, options, patience=60)

    def stop(self) -> None:
        """Unmount; the daemon ends, and has had no trouble. Idempotent."""
        if self._daemon is not None:
            daemon, self._daemon = self._daemon, None
            assert not take_away(self.mount, daemon)
            assert daemon.returncode == 0
            assert not unexpected((self.folder / "mnt.log").read_text(errors="replace"), None)

    def break_down(self) -> None:
        """Kill the daemon, as the out-of-memory killer does: the mountpoint stays, broken. Then ``mend``."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait(PATIENCE)
        self._daemon = None

    def mend(self) -> None:
        """Take what is broken away, and mount anew."""
        unmount(self.mount, force=True)
        self.start()


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateNetwork]:
    need({"rpcbind": "rpcbind", "ip": "iproute2"}, "sharing")
    folder = tmp_path_factory.mktemp("network")
    with PrivateNetwork.made(folder) as made, contextlib.ExitStack() as stack:
        if shutil.which("rpc.statd"):  # before anything is mounted: it would keep that busy
            stack.enter_context(Statd(made, folder, folder / "statd").running())
        yield made


@pytest.fixture(scope="session")
def facility(network: PrivateNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    folder = tmp_path_factory.mktemp("facility")
    store = make_store(folder / "store")
    made = Facility(folder, store, folder / "mnt", network)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def ganesha(facility: Facility) -> Iterator[Ganesha]:
    need(NFS_PROGRAMS, "NFS")
    server = Ganesha(facility.network, facility.mount, facility.folder / "ganesha")
    with server.running():
        yield server


@pytest.fixture(scope="session")
def samba(facility: Facility) -> Iterator[Samba]:
    need(SMB_PROGRAMS, "SMB")
    server = Samba(facility.network, facility.mount, facility.folder / "samba")
    with server.running():
        yield server


@pytest.fixture(scope="session")
def machine(network: PrivateNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[linux.Linux]:
    need(GUEST_PROGRAMS, "Linux's own NFS and SMB clients")
    if not network.has_tap:
        warnings.warn("Linux's own NFS and SMB clients NOT TESTED: no /dev/net/tun here", stacklevel=1)
        pytest.skip("Linux's own NFS and SMB clients not tested: no /dev/net/tun here")
    with linux.Linux.booted(network, tmp_path_factory.mktemp("guest")) as booted:
        yield booted


Connect = Callable[[str], Client]


@pytest.fixture(scope="session")
def connect(facility: Facility, request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes clients by kind: nfs3, nfs4, smb, and the kernel's, linux-nfs3, linux-nfs4 and linux-smb."""
    with contextlib.ExitStack() as stack:
        kernels: dict[str, KernelClient] = {}

        def new(kind: str) -> Client:
            request.getfixturevalue("samba" if kind.endswith("smb") else "ganesha")
            if kind == "smb":
                from tests.sharing.smb import SmbClient

                smb = SmbClient(facility.network.enter)
                stack.callback(smb.close)
                return smb
            if kind.startswith("linux-"):
                if kind not in kernels:
                    kernels[kind] = KernelClient(request.getfixturevalue("machine"), kind)
                    kernels[kind].mount()
                return kernels[kind]
            from tests.sharing.libnfs import NfsClient

            return stack.enter_context(NfsClient(f"/{SHARE}", int(kind[-1]), facility.network.enter))

        yield new


KINDS = ("nfs3", "nfs4", "smb", "linux-nfs3", "linux-nfs4", "linux-smb")


@pytest.fixture(scope="module", params=KINDS)
def client(connect: Connect, request: pytest.FixtureRequest) -> Client:
    """A client of each kind."""
    return connect(request.param)
