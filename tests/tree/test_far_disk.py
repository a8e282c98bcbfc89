"""A store on a disk that may stop answering: a network's, or another program's."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import volfs
from tests.kits.cells import CELLS, add, make_store
from tests.kits.mounts import disk_that_can_stop, stopped
from tests.kits.store_calls import path_calls_of_this_thread
from tests.kits.trees import Client, run, serving
from volfs.fuse.processes import MountOptions
from volfs.storage.mount_table import Mounted, may_stop_answering
from volfs.testing.kit import mounted
from volfs.testing.waiting import PATIENCE, until
from volfs.tree.core.context import TreeContext

_FILES = "cells/branches/main/files"


def test_a_disk_that_answers_no_lookup_holds_nobody_else(tmp_path: Path, mountpoint: Path) -> None:
    store = make_store(tmp_path / "store")
    with volfs.open_store(store) as opened:
        add(opened, "other", "", CELLS, "zyx", chunks=(16, 16, 16), levels=1)
    with (
        disk_that_can_stop(store / "datasets") as disk,
        mounted(store, mountpoint, options=MountOptions(answer_within=1)),
    ):
        branch = mountpoint / "cells" / "branches" / "main"
        (branch / "files" / "a.txt").write_text("before")
        slices = sorted((mountpoint / "other" / "versions" / "v1" / "s0" / "xy").iterdir())
        remembered = {path: path.read_bytes() for path in slices[:3]}
        with stopped(disk):
            for ask in (
                lambda: os.stat(branch / "files" / "b.txt"),
                lambda: os.listdir(branch / "zarr"),
                lambda: (branch / ".volfs" / "status.json").read_bytes(),
                lambda: os.stat(mountpoint / "cells" / "branches" / "main" / "s0" / "xz" / "y00001.png"),
            ):
                with pytest.raises(TimeoutError) as refused:
                    ask()
                assert refused.value.errno == errno.ETIMEDOUT
            with subprocess.Popen(["ls", branch / "files"], stdout=subprocess.DEVNULL) as client:
                client.kill()
                assert client.wait(PATIENCE) != 0
            for path, data in remembered.items():
                assert path.read_bytes() == data
                assert path.stat().st_size == len(data)
            for name in ("README.txt", ".volfs/stats.json"):
                assert (mountpoint / name).read_bytes()
        until(lambda: _answers(branch / "files"))
        assert (branch / "files" / "a.txt").read_text() == "before"
        assert np.array_equal(np.asarray(Image.open(sorted((branch / "s0" / "xy").iterdir())[3])), CELLS[3])


def _answers(folder: Path) -> bool:
    try:
        return bool(os.listdir(folder))
    except TimeoutError:
        return False


def test_looking_asks_a_far_disk_in_threads_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "store")
    monkeypatch.setattr(TreeContext, "is_far", lambda *_: True)

    async def look_at_all(client: Client, path: str, depth: int) -> None:
        attr = await client.stat(path)
        if stat.S_ISDIR(attr.mode):
            for name in list(await client.ls(path))[:8] if depth else ():
                await look_at_all(client, f"{path}/{name}".lstrip("/"), depth - 1)
        elif stat.S_ISREG(attr.mode):
            await client.tree.getattr(attr.ino)
            fh = await client.open(path)
            await client.read_fh(fh, min(attr.size, 1 << 16))
            await client.tree.release(fh)

    async def look_around(client: Client) -> None:
        await look_at_all(client, "", 3)
        for folder in (".volfs", "files", "zarr", "s0", "s0/xy", "formats"):
            await look_at_all(client, f"cells/branches/main/{folder}", 3)
        await client.tree.statfs()

    async def work() -> None:
        async with serving(store) as client:
            with path_calls_of_this_thread(store) as calls:
                await look_around(client)  # where nothing is known, and nobody is the branch's writer
                await look_around(client)
            assert not calls, "\n".join(sorted(set(calls))[:10])
            await client.write(f"{_FILES}/a.txt", b"here")
            await client.tree.symlink(await client.ino(_FILES), b"link", b"a.txt")
            await client.order("cells/branches/main/.volfs/message", "words")
            with path_calls_of_this_thread(store) as calls:
                await look_around(client)
                assert await client.readlink(f"{_FILES}/link") == "a.txt"
            assert not calls, "\n".join(sorted(set(calls))[:10])

    run(work)


@pytest.mark.parametrize(
    ("kind", "may_stop"), [("ext4", False), ("tmpfs", False), ("nfs4", True), ("fuse.sshfs", True)]
)
def test_a_disk_is_far_if_another_machine_or_program_answers_for_it(kind: str, *, may_stop: bool) -> None:
    mount = Mounted(Path("/data"), "server:/data", kind, "0:50", frozenset())
    assert may_stop_answering(mount) is may_stop
