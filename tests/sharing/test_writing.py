"""What any client writes into a branch through a share is what everybody reads, and what a commit holds."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tifffile
import zarr

from tests.sharing.clients import Client, KernelClient
from tests.sharing.facility import Connect, Facility
from tests.sharing.libnfs import NfsClient
from tests.sharing.stores import CELLS
from volfs.testing.waiting import PATIENCE, until


@pytest.fixture
def branch(facility: Facility, client: Client, request: pytest.FixtureRequest) -> str:
    """A branch of its own, at v1, made through the share and by nothing but mkdir."""
    name = f"{request.node.originalname.replace('_', '-')[5:25]}-{request.node.callspec.id}"
    client.mkdir(f"cells/branches/{name}@v1")
    assert name in client.names("cells/branches")
    assert name in os.listdir(facility.share("cells/branches"))
    return f"cells/branches/{name}"


def newest(facility: Facility) -> str:
    """The latest version, as the server sees it."""
    return os.readlink(facility.share("cells/versions/latest"))


def seen(client: Client, folder: str, name: str) -> None:
    """Wait until a client sees a name: clients and servers of NFS keep what they know for a second or two."""
    until(lambda: name in client.names(folder), f"{folder}/{name} is seen")


def status(facility: Facility, branch: str) -> dict[str, Any]:
    return dict(json.loads(facility.share(f"{branch}/.volfs/status.json").read_text()))


def test_side_files_by_temporary_name_exclusive_create_truncate_and_append(
    facility: Facility, client: Client, branch: str
) -> None:
    folder = f"{branch}/files/made"
    client.mkdir(folder)
    here = facility.share(folder)
    client.create(f"{folder}/new", b"one")
    with pytest.raises(FileExistsError):
        client.create(f"{folder}/new", b"two")
    assert client.read(f"{folder}/new") == b"one" == (here / "new").read_bytes()
    client.append(f"{folder}/new", b" more")
    assert (here / "new").read_bytes() == b"one more"
    client.truncate(f"{folder}/new", 4)
    assert client.read(f"{folder}/new") == b"one " == (here / "new").read_bytes()
    client.truncate(f"{folder}/new", 6)
    assert client.read(f"{folder}/new") == b"one \0\0" == (here / "new").read_bytes()
    big = os.urandom(300_000)
    client.write(f"{folder}/temporary", big)
    client.rename(f"{folder}/temporary", f"{folder}/new")
    assert client.names(folder) == ["new"] == os.listdir(here)
    assert client.read(f"{folder}/new") == big == (here / "new").read_bytes()
    client.write(f"{folder}/new", b"short")
    assert client.read(f"{folder}/new") == b"short" == (here / "new").read_bytes()
    client.unlink(f"{folder}/new")
    client.rmdir(folder)
    assert not client.exists(folder) and not here.exists()


def test_slices_in_place_and_by_temporary_name(facility: Facility, client: Client, branch: str) -> None:
    folder = f"{branch}/s0/xy"
    picture = client.read(f"{folder}/z00001.png")
    client.write(f"{folder}/z00002.png", picture)
    client.write(f"{folder}/.z00003.png.part", picture)
    client.rename(f"{folder}/.z00003.png.part", f"{folder}/z00003.png")
    assert client.read(f"{folder}/z00002.png") == picture == client.read(f"{folder}/z00003.png")
    assert client.names(folder) == [f"z{index:05}.png" for index in range(len(CELLS))]
    shown = tifffile.imread(facility.share(f"{branch}/s0/volume.tif"))
    wanted = CELLS.copy()
    wanted[2:4] = CELLS[1]
    assert (shown == wanted).all()


def test_chunks_by_temporary_name(facility: Facility, client: Client, branch: str) -> None:
    folder = f"{branch}/zarr/s0/c/0/1"
    payload = client.read(f"{branch}/zarr/s0/c/0/0/0")
    client.write(f"{folder}/0.5f3a.partial", payload)
    client.rename(f"{folder}/0.5f3a.partial", f"{folder}/0")
    assert client.read(f"{folder}/0") == payload
    shown = zarr.open_array(facility.share(f"{branch}/zarr/s0"), mode="r")[:]
    wanted = CELLS.copy()
    wanted[:2, 8:, :8] = CELLS[:2, :4, :8]
    assert (shown == wanted).all()


def test_commit_and_tag_by_files_alone(facility: Facility, client: Client, branch: str) -> None:
    client.write(f"{branch}/files/note", b"written far away")
    client.write(f"{branch}/.volfs/commit", b"from a share")
    made = newest(facility)
    seen(client, "cells/versions", made)
    assert client.read(f"cells/versions/{made}/files/note") == b"written far away"
    assert json.loads(client.read(f"cells/versions/{made}/version.json"))["message"] == "from a share"
    assert status(facility, branch)["clean"]
    name = f"t-{made}"
    if isinstance(client, KernelClient) and client.kind != "linux-smb":
        client.machine.ask("symlink", f"../versions/{made}", client.at(f"cells/tags/{name}"))
    elif isinstance(client, NfsClient):
        client.symlink(f"../versions/{made}", f"cells/tags/{name}")
    else:
        client.write(f"{branch}/.volfs/tag", name.encode())
    assert os.readlink(facility.share(f"cells/tags/{name}")) == f"../versions/{made}"
    seen(client, "cells/tags", name)
    assert client.read(f"cells/tags/{name}/files/note") == b"written far away"


def test_a_refused_commit_is_told_and_changes_nothing(facility: Facility, client: Client, branch: str) -> None:
    before = newest(facility)
    with pytest.raises(OSError) as refused:
        client.write(f"{branch}/.volfs/commit", b"nothing was changed")
    if not isinstance(client, NfsClient):  # which has no words for it
        assert refused.value.errno == errno.EINVAL
    assert newest(facility) == before
    assert status(facility, branch)["action"]["error"].startswith("nothing to commit")


def test_a_commit_on_the_server_is_seen_within_seconds(facility: Facility, client: Client, branch: str) -> None:
    assert not client.exists(f"{branch}/files/late")
    (facility.share(branch) / "files" / "late").write_bytes(b"made on the server")
    (facility.share(branch) / ".volfs" / "commit").write_text("on the server")
    made = newest(facility)
    seen(client, "cells/versions", made)
    assert client.read(f"cells/versions/{made}/files/late") == b"made on the server"
    seen(client, f"{branch}/files", "late")
    assert client.read(f"{branch}/files/late") == b"made on the server"


@pytest.mark.parametrize(
    ("one", "other"),
    [("nfs3", "nfs4"), ("smb", "smb"), ("nfs3", "smb"), ("linux-nfs4", "linux-smb"), ("linux-nfs3", "smb")],
)
def test_two_clients_that_write_different_chunks_at_once_lose_nothing(
    facility: Facility, connect: Connect, one: str, other: str
) -> None:
    clients = connect(one), connect(other)
    branch = facility.share(f"cells/branches/two-{one}-{other}")
    Path(f"{branch}@v1").mkdir()
    at = f"cells/branches/{branch.name}/zarr/s0/c"
    payloads = {
        f"{z}/{y}/{x}": (branch / f"zarr/s0/c/{z}/{y}/{x}").read_bytes() for z in (0, 1) for y in (0, 1) for x in (0, 1)
    }
    places = sorted(payloads)
    moved = dict(zip(places, places[1:] + places[:1], strict=True))  # each gets the chunk of the next

    def write(client: Client, mine: list[str]) -> None:
        for place in mine:
            client.write(f"{at}/{place}.part", payloads[moved[place]])
            client.rename(f"{at}/{place}.part", f"{at}/{place}")

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(write, client, places[n::2]) for n, client in enumerate(clients)]:
            done.result(PATIENCE)
    wanted = {place: payloads[moved[place]] for place in places}
    assert {place: (branch / f"zarr/s0/c/{place}").read_bytes() for place in places} == wanted
    for client in clients:
        assert {place: client.read(f"{at}/{place}") for place in places} == wanted
    (branch / ".volfs" / "commit").write_text("both")
    latest = facility.share("cells/versions/latest")
    assert {place: (latest / f"zarr/s0/c/{place}").read_bytes() for place in places} == wanted


@pytest.mark.parametrize("kind", ["linux-nfs3", "linux-nfs4", "linux-smb"])
def test_a_lock_of_a_client_holds_on_the_server_and_the_other_way_round(
    facility: Facility, connect: Connect, kind: str
) -> None:
    client = connect(kind)
    assert isinstance(client, KernelClient)
    path = f"cells/branches/main/files/locked-{kind}"
    local = facility.share(path)
    local.write_bytes(b"mine")
    client.machine.ask("hold", client.at(path))
    with local.open("r+b") as file, pytest.raises(BlockingIOError):
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    client.machine.ask("let_go", client.at(path))
    with local.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(OSError) as refused:
            client.machine.ask("hold", client.at(path))
        assert refused.value.errno in (errno.EAGAIN, errno.EACCES)
    local.unlink()


@pytest.mark.parametrize(
    ("holder", "other"),
    [("linux-nfs3", "linux-nfs4"), ("linux-nfs4", "linux-smb"), ("linux-smb", "linux-nfs3")],
)
def test_a_lock_holds_between_protocols(facility: Facility, connect: Connect, holder: str, other: str) -> None:
    first, second = connect(holder), connect(other)
    assert isinstance(first, KernelClient) and isinstance(second, KernelClient)
    path = f"cells/branches/main/files/locked-{holder}-{other}"
    facility.share(path).write_bytes(b"mine")
    first.machine.ask("hold", first.at(path))
    with pytest.raises(OSError) as refused:
        second.machine.ask("hold", second.at(path))
    assert refused.value.errno in (errno.EAGAIN, errno.EACCES)
    first.machine.ask("let_go", first.at(path))
    second.machine.ask("hold", second.at(path))
    second.machine.ask("let_go", second.at(path))
    facility.share(path).unlink()
