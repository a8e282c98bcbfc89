"""Version control by files alone, over NFS and SMB, and with nothing but Samba's ``smbclient``."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.sharing.facility import Connect, Facility
from tests.sharing.servers import PASSWORD, SHARE, USER, Samba
from tests.sharing.stores import CELLS
from volfs.testing.waiting import until

SMBCLIENT = ("smbclient", f"//127.0.0.1/{SHARE}", "-U", f"{USER}%{PASSWORD}", "-c")


class SmbCommand:
    """The share by ``smbclient``, a process for each call. What it says of a failure is an OSError."""

    def __init__(self, facility: Facility, scratch: Path) -> None:
        self._network, self._scratch = facility.network, scratch

    def _run(self, command: str) -> str:
        done = self._network.run(*SMBCLIENT, command)
        if done.returncode or "NT_STATUS" in done.stdout:
            raise OSError(f"{command}: {done.stdout} {done.stderr}")
        return str(done.stdout)

    @staticmethod
    def _at(path: str) -> str:
        return '"' + path.replace("/", "\\") + '"'

    def names(self, path: str) -> list[str]:
        lines = self._run(f"cd {self._at(path)}; ls").splitlines()
        return sorted(name for line in lines if line.startswith("  ") and (name := line.split()[0]) not in (".", ".."))

    def read(self, path: str) -> bytes:
        with tempfile.NamedTemporaryFile(dir=self._scratch) as file:
            self._run(f"get {self._at(path)} {file.name}")
            return Path(file.name).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self._scratch) as file:
            file.write(data)
            file.flush()
            self._run(f"put {file.name} {self._at(path)}")

    def mkdir(self, path: str) -> None:
        self._run(f"mkdir {self._at(path)}")

    def rename(self, old: str, new: str) -> None:
        self._run(f"rename {self._at(old)} {self._at(new)}")

    def rmdir(self, path: str) -> None:
        self._run(f"rmdir {self._at(path)}")


@pytest.fixture(params=["smbclient", "nfs3", "nfs4"])
def share(facility: Facility, connect: Connect, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "smbclient":
        assert isinstance(request.getfixturevalue("samba"), Samba)
        return SmbCommand(facility, tmp_path)
    return connect(request.param)


def test_everything_of_version_control_that_has_a_file(
    facility: Facility, share: Any, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.id
    ours, theirs, aside = (f"{kind}-{name}" for name in ("ours", "theirs", "aside"))
    mine, other = f"cells/branches/{ours}", f"cells/branches/{theirs}"

    def shown(path: str, data: bytes | None) -> None:
        """Wait until the file has these bytes; or is not there. Clients keep what they know for a second or two."""

        def found() -> bytes | None:
            with suppress(OSError):
                return bytes(share.read(path))
            return None

        until(lambda: found() == data, f"{path} is {data!r}")

    def status(branch: str) -> Any:
        return json.loads(share.read(f"{branch}/.volfs/status.json"))

    def commit(branch: str, name: str, data: bytes) -> None:
        share.write(f"{branch}/files/{name}", data)
        share.write(f"{branch}/.volfs/commit", f"{name} is {data.decode()}".encode())

    for name in (ours, theirs):
        share.mkdir(f"cells/branches/{name}@v1")
        until(lambda name=name: name in share.names("cells/branches"))
    commit(other, "note", b"theirs")
    commit(mine, "own", b"ours")

    # merge, and expressions in versions/
    share.write(f"{mine}/.volfs/merge", theirs.encode())
    shown(f"{mine}/files/note", b"theirs")
    shown(f"cells/versions/{ours}/files/note", b"theirs")
    shown(f"cells/versions/{ours}^2/files/note", b"theirs")
    shown(f"cells/versions/{ours}~1/files/own", b"ours")
    shown(f"cells/versions/{ours}~1/files/note", None)
    said = status(mine)["action"]
    assert said["kind"] == "merge" and said["state"] == "done", said
    parents = json.loads(share.read(f"cells/versions/{ours}/version.json"))["parents"]
    assert len(parents) == 2
    assert f"{ours}~1" not in share.names("cells/versions")

    # revert, restore, and what differs
    share.write(f"{mine}/.volfs/revert", f"{ours}~1".encode())
    shown(f"{mine}/files/own", None)
    summary = json.loads(share.read(f"cells/diffs/{ours}~1..{ours}/summary.json"))
    assert "files/own" in json.dumps(summary)
    assert b"files/own" in share.read(f"cells/diffs/{ours}~1..{ours}/changed.txt")
    share.write(f"{mine}/.volfs/restore", f"files/own --from {ours}~2".encode())
    shown(f"{mine}/files/own", b"ours")

    # a slice on one branch, picked on the other, seen as a picture and as a mask
    share.write(f"{other}/s0/xy/z00002.png", share.read(f"{other}/s0/xy/z00001.png"))
    share.write(f"{other}/.volfs/commit", b"a slice once more")
    share.write(f"{mine}/.volfs/cherry-pick", theirs.encode())
    picture = share.read(f"{mine}/s0/xy/z00001.png")
    shown(f"{mine}/s0/xy/z00002.png", picture)
    changed = int((CELLS[1] != CELLS[2]).sum())
    mask = f"cells/diffs/{ours}~1..{ours}/mask/s0/volume.raw"
    until(lambda: sum(map(bool, share.read(mask))) == changed, "the mask has the slice")

    # mv, rebase
    share.write(f"{mine}/.volfs/mv", b"files/own files/renamed")
    shown(f"{mine}/files/renamed", b"ours")
    shown(f"{mine}/files/own", None)

    # a conflict: nothing happens, then it is put aside, looked at, and closed
    commit(mine, "clash", b"mine")
    commit(other, "clash", b"yours")
    with pytest.raises(OSError):
        share.write(f"{mine}/.volfs/merge", theirs.encode())
    assert "files/clash" in json.dumps(status(mine)["action"])
    shown(f"{mine}/files/clash", b"mine")
    share.write(f"{mine}/.volfs/merge", f"--on {aside} {theirs}".encode())
    folder = f"cells/branches/{aside}"
    until(lambda: aside in share.names("cells/branches"))
    assert "files/clash" in share.read(f"{folder}/.volfs/conflicts.json").decode()
    assert set(share.names(f"{folder}/.volfs/merge")) == {"base", "ours", "theirs"}
    shown(f"{folder}/.volfs/merge/theirs/files/clash", b"yours")
    shown(f"{folder}/.volfs/merge/ours/files/clash", b"mine")
    share.write(f"{folder}/.volfs/resolve", b"theirs files/clash")
    shown(f"{folder}/files/clash", b"yours")
    until(lambda: "conflicts.json" not in share.names(f"{folder}/.volfs"), "the conflict is closed")
    share.write(f"{mine}/.volfs/merge", aside.encode())
    shown(f"{mine}/files/clash", b"yours")
    share.rename(folder, f"cells/branches/{aside}-kept")
    until(lambda: f"{aside}-kept" in share.names("cells/branches") and aside not in share.names("cells/branches"))
    if kind == "smbclient":  # a server of SMB removes directories only if it finds them empty
        os.rmdir(facility.share(f"cells/branches/{aside}-kept"))
    else:
        share.rmdir(f"cells/branches/{aside}-kept")
    until(lambda: f"{aside}-kept" not in os.listdir(facility.share("cells/branches")))

    # rebase: theirs on top of ours, which has all of it
    share.write(f"{other}/.volfs/rebase", ours.encode())
    shown(f"{other}/files/renamed", b"ours")
    log = share.read("cells/log.txt").decode()
    assert f"merge {aside}" in log or "Revert" in log
