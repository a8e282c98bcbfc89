"""What any client reads through a share is what the mount shows."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from tests.sharing.clients import Client, KernelClient
from tests.sharing.facility import Connect, Facility
from tests.sharing.guest import digests
from tests.sharing.libnfs import NfsClient
from tests.sharing.servers import PASSWORD, SHARE, USER, Ganesha, Samba
from tests.sharing.smb import SmbClient
from tests.sharing.stores import SLICES

VERSION = "cells/versions/v2"
SMBCLIENT = ("smbclient", f"//127.0.0.1/{SHARE}", "-U", f"{USER}%{PASSWORD}", "-c")


def local_names(top: Path, *, follow: bool) -> set[str]:
    return {
        os.path.relpath(os.path.join(folder, name), top)
        for folder, folders, files in os.walk(top, followlinks=follow)
        for name in [*folders, *files]
    }


def test_the_tree_can_be_browsed(facility: Facility, client: Client) -> None:
    """From the root, and all of two versions and a branch; other tests make more of them, which are like these."""
    for folder in ("", "cells", "cells/versions", "cells/branches", "cells/tags"):
        assert set(client.names(folder)) == set(os.listdir(facility.share(folder)))
    for top in ("cells/versions/v1", VERSION, "cells/branches/main"):
        if isinstance(client, NfsClient):
            assert set(client.walk(top)) == local_names(facility.share(top), follow=False)
        elif top == VERSION:
            continue  # links are directories over SMB, so there is more to walk through; the bytes of this one are read
        elif isinstance(client, SmbClient):
            assert set(client.walk(top)) == local_names(facility.share(top), follow=True)
        elif isinstance(client, KernelClient):
            found = client.machine.ask("shell", f"cd {client.at(top)} && find . -mindepth 1").split()
            wanted = local_names(facility.share(top), follow=client.kind == "linux-smb")
            assert {name.removeprefix("./") for name in found} == wanted


def test_every_byte_of_a_version_is_that_of_the_mount(facility: Facility, client: Client) -> None:
    top = facility.share(VERSION)
    wanted = digests(str(top))
    assert {"s0/xy/z00003.png", "s0/volume.tif", "zarr/s0/c/0/1/0", "files/table.bin", "s0/chunks"} <= set(wanted)
    if isinstance(client, KernelClient):
        got = client.machine.ask("digests", client.at(VERSION))
        if client.kind == "linux-smb":  # what a link leads to is there as well
            wanted = {name: ("dir", "") if kind == "link" else (kind, value) for name, (kind, value) in wanted.items()}
            got = {name: value for name, value in got.items() if name in wanted}
        assert got == wanted
        return
    for name, (kind, value) in wanted.items():
        if kind == "file":
            assert hashlib.sha256(client.read(f"{VERSION}/{name}")).hexdigest() == value, name


def test_sizes_and_kinds_in_listings_are_those_of_the_files(facility: Facility, connect: Connect) -> None:
    folder = f"{VERSION}/s0"
    wanted = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(facility.share(folder))}
    for version in (3, 4):
        nfs = connect(f"nfs{version}")
        assert isinstance(nfs, NfsClient)
        listed = {entry.name: entry for entry in nfs.listdir(folder)}
        assert {name: (stat.S_IFMT(entry.mode), entry.size) for name, entry in listed.items()} == {
            name: (stat.S_IFMT(told.st_mode), told.st_size) for name, told in wanted.items()
        }
        if version == 3:
            assert {name: entry.ino for name, entry in listed.items()} == {n: told.st_ino for n, told in wanted.items()}


def test_sizes_in_listings_over_smb(facility: Facility, connect: Connect) -> None:
    folder = f"{VERSION}/s0"
    smb = connect("smb")
    assert isinstance(smb, SmbClient)
    files = [entry for entry in os.scandir(facility.share(folder)) if entry.is_file()]
    assert smb.sizes(folder) == {entry.name: entry.stat().st_size for entry in files}


def test_links_lead_where_they_do_on_the_mount(facility: Facility, client: Client) -> None:
    links = {
        "deep/versions/latest": "v1",  # of `cells` other tests make more versions
        "cells/tags/paper": "../versions/v1",
        f"{VERSION}/s0/chunks": "../zarr/s0",
        f"{VERSION}/formats/cells.ome.zarr": "../zarr",
    }
    for path, target in links.items():
        assert os.readlink(facility.share(path)) == target
        if isinstance(client, SmbClient):
            assert client.is_dir(path)
        elif isinstance(client, NfsClient) or (isinstance(client, KernelClient) and client.kind != "linux-smb"):
            assert client.readlink(path) == target
        assert client.names(path) == sorted(os.listdir(facility.share(path)))
    chunk = facility.share("deep/versions/v1/zarr/s0/c/0/0/0").read_bytes()
    assert client.read("deep/versions/latest/s0/chunks/c/0/0/0") == chunk


@pytest.mark.parametrize("kind", ["linux-nfs3", "linux-nfs4"])
def test_files_can_be_mapped(facility: Facility, connect: Connect, kind: str) -> None:
    client = connect(kind)
    assert isinstance(client, KernelClient)
    path = f"{VERSION}/s0/volume.npy"
    assert client.machine.ask("mapped", client.at(path)) == facility.share(path).read_bytes()


def test_the_clients_of_the_distribution_work(
    facility: Facility, ganesha: Ganesha, samba: Samba, tmp_path: Path
) -> None:
    network, path = facility.network, f"{VERSION}/s0/volume.tif"
    wanted = facility.share(path).read_bytes()
    for version in (3, 4):
        url = f"nfs://127.0.0.1/volfs/{path}?version={version}"
        copied = tmp_path / f"copy{version}"
        done = network.run("nfs-cp", url, copied)
        assert done.returncode == 0, done.stderr
        assert copied.read_bytes() == wanted
        listed = network.run("nfs-ls", f"nfs://127.0.0.1/volfs/cells?version={version}").stdout
        assert {line.split()[-1] for line in listed.splitlines()} == set(os.listdir(facility.share("cells")))
    copied = tmp_path / "copy"
    done = network.run(*SMBCLIENT, f"get {path.replace('/', chr(92))} {copied}")
    assert done.returncode == 0, done.stdout
    assert copied.read_bytes() == wanted


@pytest.mark.parametrize("kind", ["nfs3", "nfs4", "linux-nfs3", "linux-nfs4"])
def test_a_directory_of_a_hundred_thousand_slices_lists_each_name_once_over_nfs(
    connect: Connect, ganesha: Ganesha, kind: str
) -> None:
    ganesha.restart()  # nothing of it is in the server's cache
    client = connect(kind)
    if isinstance(client, KernelClient):
        client.machine.ask("forget")  # its memory is small
    assert client.names("deep/versions/v1/s0/xy") == [f"z{index:05}.png" for index in range(SLICES)]


def test_a_directory_of_a_hundred_thousand_slices_lists_each_name_once_over_smb(
    facility: Facility, samba: Samba
) -> None:
    done = facility.network.run(*SMBCLIENT, "ls deep\\versions\\v1\\s0\\xy\\*")
    assert done.returncode == 0, done.stdout
    names = sorted(line.split()[0] for line in done.stdout.splitlines() if ".png " in line)
    assert names == [f"z{index:05}.png" for index in range(SLICES)]


@pytest.mark.parametrize("version", [3, 4])
def test_what_is_exported_read_only_over_nfs_is_read_and_not_written(
    facility: Facility, ganesha: Ganesha, version: int
) -> None:
    with (
        ganesha.configured(**{"Access_Type = RW;": "Access_Type = RO;"}),
        NfsClient(f"/{SHARE}", version, facility.network.enter) as client,
    ):
        assert client.read(f"{VERSION}/s0/volume.tif") == facility.share(f"{VERSION}/s0/volume.tif").read_bytes()
        for attempt in (
            lambda: client.create("cells/branches/main/files/no.txt", b"x"),
            lambda: client.mkdir("cells/branches/no"),
            lambda: client.write("cells/branches/main/.volfs/commit", b"no"),
        ):
            with pytest.raises(OSError) as refused:
                attempt()
            assert refused.value.errno in (errno.EROFS, errno.EACCES), refused.value
    assert not facility.share("cells/branches/main/files/no.txt").exists()


def test_what_is_shared_read_only_over_smb_is_read_and_not_written(facility: Facility, samba: Samba) -> None:
    with samba.configured(**{"read only = no": "read only = yes"}):
        client = SmbClient(facility.network.enter)
        try:
            assert client.read(f"{VERSION}/s0/volume.tif") == facility.share(f"{VERSION}/s0/volume.tif").read_bytes()
            for attempt in (
                lambda: client.create("cells/branches/main/files/no.txt", b"x"),
                lambda: client.mkdir("cells/branches/no"),
            ):
                with pytest.raises(OSError, match=r"ACCESS_DENIED|WRITE_PROTECTED|denied"):
                    attempt()
        finally:
            client.close()
    assert not facility.share("cells/branches/main/files/no.txt").exists()
