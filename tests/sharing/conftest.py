"""One facility for all tests of sharing that a process runs: a mount, its servers, a machine that is a client.

A machine that cannot run the servers skips the tests, with the reason, and warns besides: what was not tried is not
tested. A server that is installed and does not run fails them.
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Iterator

import pytest

from tests.kits.user_mode_linux import KERNEL, unusable
from tests.sharing import linux
from tests.sharing.clients import Client, KernelClient
from tests.sharing.facility import Connect, Facility
from tests.sharing.private_network import PrivateNetwork, lacking
from tests.sharing.servers import NFS_PROGRAMS, SHARE, SMB_PROGRAMS, Ganesha, Samba, Statd
from tests.sharing.stores import make_store

GUEST_PROGRAMS = {KERNEL: "user-mode-linux", "ip": "iproute2"}


def need(programs: dict[str, str], what: str) -> None:
    """Skip, and say so loudly, where ``programs`` are not there or cannot be used."""
    why = lacking(programs)
    if why:
        warnings.warn(f"{what} NOT TESTED on this machine: {why}", stacklevel=2)
        pytest.skip(f"{what} not tested on this machine: {why}")


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
    why = unusable() if network.has_tap else "no /dev/net/tun here"
    if why:
        warnings.warn(f"Linux's own NFS and SMB clients NOT TESTED: {why}", stacklevel=1)
        pytest.skip(f"Linux's own NFS and SMB clients not tested: {why}")
    with linux.Linux.booted(network, tmp_path_factory.mktemp("guest")) as booted:
        yield booted


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
