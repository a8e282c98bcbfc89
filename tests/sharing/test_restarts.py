"""What clients hold goes on: through dropped caches, restarted servers, new mounts, in any order."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sharing.clients import KernelClient
from tests.sharing.facility import Connect, Facility
from tests.sharing.libnfs import NfsClient, NfsFile
from tests.sharing.servers import Ganesha, Samba

FILES = (
    "README.txt",
    "cells/dataset.json",
    "cells/versions/v2/s0/xy/z00001.png",
    "cells/versions/v2/s0/volume.tif",
    "cells/versions/v2/zarr/s0/c/0/1/0",
    "cells/versions/v2/files/table.bin",
    "cells/versions/v2/formats/cells.n5/setup0/timepoint0/s0/attributes.json",
    "cells/branches/main/s0/xz/y00002.png",
    "cells/branches/main/zarr/s0/c/0/0/1",
    "cells/branches/main/files/held",
    "cells/branches/main/files/new/deep/held",
)
"""One of every kind of inode: derived and allocated, of versions and of a branch."""


@pytest.fixture(scope="module")
def wanted(facility: Facility) -> dict[str, bytes]:
    """The files that clients keep open, and what is in them."""
    made = facility.share("cells/branches/main/files/new/deep")
    made.mkdir(parents=True, exist_ok=True)
    for folder in (made, made.parent.parent):
        (folder / "held").write_bytes(os.urandom(5000))
    return {path: facility.share(path).read_bytes() for path in FILES}


class Holders:
    """Files kept open by a client of each kind, and the directory they were listed from."""

    def __init__(self, connect: Connect, wanted: dict[str, bytes], *, smb: bool) -> None:
        self._wanted = wanted
        self._kernels: list[KernelClient] = []
        self._held: list[tuple[NfsFile, str]] = []
        self._stack = contextlib.ExitStack()
        for kind in ("linux-nfs3", "linux-nfs4", *(("linux-smb",) if smb else ())):
            client = connect(kind)
            assert isinstance(client, KernelClient)
            self._kernels.append(client)
            for path in wanted:
                client.machine.ask("keep_open", client.at(path))
                self._stack.callback(client.machine.ask, "let_go", client.at(path))
        library = connect("nfs3")
        assert isinstance(library, NfsClient)
        for path in wanted:
            self._held.append((self._stack.enter_context(library.open(path)), path))

    def check(self) -> None:
        """Every byte, read through the handles of before, with nothing taken from a client's cache."""
        self._kernels[0].machine.ask("forget")
        for client in self._kernels:
            for path, data in self._wanted.items():
                assert client.machine.ask("read_open", client.at(path)) == data, (client.kind, path)
                assert client.read(path) == data, (client.kind, path)
        for file, path in self._held:
            data = self._wanted[path]
            assert file.stat().size == len(data), path
            assert file.read(len(data) + 1) == data, path

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._stack.close()


@pytest.fixture
def hold(connect: Connect, wanted: dict[str, bytes]) -> Iterator[Callable[..., Holders]]:
    made: list[Holders] = []

    def new(*, smb: bool = True) -> Holders:
        made.append(Holders(connect, wanted, smb=smb))
        return made[-1]

    yield new
    for holders in made:
        holders.close()


@contextlib.contextmanager
def another_device_number(facility: Facility, folder: Path) -> Iterator[None]:
    """Take the device number that the mount had, so that the next mount gets another one."""
    places = [folder / f"taken{number}" for number in range(4)]
    for place in places:
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        yield
    finally:
        for place in places:
            subprocess.run(["umount", place], check=True)


def test_handles_outlive_the_servers_caches(hold: Callable[..., Holders]) -> None:
    holders = hold()
    holders.check()
    Path("/proc/sys/vm/drop_caches").write_text("2")
    holders.check()


def test_handles_outlive_a_restart_of_the_servers(hold: Callable[..., Holders], ganesha: Ganesha, samba: Samba) -> None:
    holders = hold()
    ganesha.restart()
    samba.restart()
    holders.check()


def test_handles_outlive_a_new_mount_with_another_device_number(
    facility: Facility, hold: Callable[..., Holders], ganesha: Ganesha, samba: Samba, tmp_path: Path
) -> None:
    holders = hold()
    before = facility.mount.stat().st_dev
    ganesha.stop()
    samba.stop()
    facility.stop()
    with another_device_number(facility, tmp_path):
        facility.start()
    assert facility.mount.stat().st_dev != before
    ganesha.start()
    samba.start()
    holders.check()


def test_after_a_killed_daemon_clients_get_errors_and_then_go_on(
    facility: Facility, hold: Callable[..., Holders], connect: Connect, ganesha: Ganesha, samba: Samba
) -> None:
    holders = hold(smb=False)
    client = connect("nfs3")
    facility.break_down()
    with pytest.raises(OSError):
        client.names("cells")  # and no empty directory, which a mirror job would copy
    ganesha.stop()
    samba.stop()
    facility.mend()
    ganesha.start()
    samba.start()
    holders.check()


@pytest.mark.parametrize("order", list(itertools.permutations(("client", "server", "mount"))), ids="-".join)
def test_all_may_be_stopped_in_any_order(
    facility: Facility,
    connect: Connect,
    ganesha: Ganesha,
    samba: Samba,
    wanted: dict[str, bytes],
    order: tuple[str, ...],
) -> None:
    """The mount last, or by force; started again it is first. ``umount`` of NFSv3 and SMB needs no server."""
    clients = [connect("linux-nfs3"), connect("linux-smb")]
    path = "cells/branches/main/files/held"
    for what in order:
        if what == "client":
            for client in clients:
                assert isinstance(client, KernelClient)
                client.umount()
        elif what == "server":
            ganesha.stop()
            samba.stop()
        elif order.index("mount") < order.index("server"):
            facility.break_down()
        else:
            facility.stop()
    if order.index("mount") < order.index("server"):
        facility.mend()
    else:
        facility.start()
    ganesha.start()
    samba.start()
    for client in clients:
        assert isinstance(client, KernelClient)
        client.mount()
        assert client.read(path) == wanted[path]
        client.write(path, wanted[path][::-1])
        assert facility.share(path).read_bytes() == wanted[path][::-1]
        client.write(path, wanted[path])


def test_writing_goes_on_after_a_restart_of_the_server(facility: Facility, connect: Connect, ganesha: Ganesha) -> None:
    for kind in ("nfs3", "linux-nfs3", "linux-nfs4"):
        client = connect(kind)
        path = f"cells/branches/main/files/through-{kind}"
        client.write(path, b"before")
        ganesha.restart()
        client.append(path, b" and after")
        assert facility.share(path).read_bytes() == b"before and after"
