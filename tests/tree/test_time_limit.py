"""No client waits for ever: requests that only look end in time, through a mount and without one."""

from __future__ import annotations

import errno
import io
import math
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from PIL import Image

import volfs
from tests.kits.cells import CELLS, add, make_store
from tests.kits.mounts import disk_that_can_stop, stopped
from tests.kits.trees import run, serving
from volfs.errors import OutOfTime
from volfs.fuse.processes import MountOptions
from volfs.testing.kit import mounted
from volfs.testing.waiting import PATIENCE, until, until_async
from volfs.tree.contract.time_limit import only_looks
from volfs.versions.working.open_files import WorkingFile

_SLICE = "cells/versions/v1/s0/xy"


def test_a_disk_that_does_not_answer_is_an_error_and_holds_nobody(tmp_path: Path, mountpoint: Path) -> None:
    store = make_store(tmp_path / "store")
    (payloads,) = store.glob("datasets/cells/versions/*/zarr/s0/c")
    with (
        disk_that_can_stop(payloads) as disk,
        mounted(store, mountpoint, options=MountOptions(answer_within=1)),
    ):
        first, second, *_ = sorted((mountpoint / _SLICE).iterdir())
        raw = mountpoint / "cells" / "versions" / "v1" / "zarr" / "s0" / "c" / "0" / "0" / "0"
        with stopped(disk):
            for held in (first, raw):
                with pytest.raises(TimeoutError) as refused:
                    held.read_bytes()
                assert refused.value.errno == errno.ETIMEDOUT
            with subprocess.Popen(["cat", second], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as reader:
                reader.kill()
                assert reader.wait(PATIENCE) != 0
            for asked in ("README.txt", ".volfs/stats.json", "cells/branches/main/.volfs/status.json"):
                assert (mountpoint / asked).read_bytes(), "others are answered meanwhile"
            assert (
                "the client gets ETIMEDOUT and may ask again"
                in mountpoint.with_name(f"{mountpoint.name}.log").read_text()
            )
            side = mountpoint / "cells" / "branches" / "main" / "files" / "meanwhile.txt"
            side.write_text("written")
        until(lambda: _readable(raw))
        for at, path in enumerate((first, second)):
            assert np.array_equal(np.asarray(Image.open(path)), CELLS[at])
        assert side.read_text() == "written"


def _readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except TimeoutError:
        return False


def test_a_read_of_too_many_chunks_goes_on_where_it_was_given_up(tmp_path: Path) -> None:
    voxels = np.random.default_rng(7).integers(0, 255, (1, 128, 128), dtype=np.uint8)
    with volfs.init_store(tmp_path / "store") as store:
        add(store, "dots", "", voxels, "zyx", chunks=(1, 1, 1), levels=1)

    async def work() -> None:
        async with serving(tmp_path / "store", answer_seconds=0.05) as client:
            (name,) = await client.ls("dots/versions/v1/s0/xy")
            given_up = 0

            async def got() -> bytes:
                nonlocal given_up
                try:
                    return await client.read(f"dots/versions/v1/s0/xy/{name}")
                except OutOfTime:
                    given_up += 1
                    return b""

            only_looks.set(True)
            await until_async(got)
            assert given_up, "16,384 chunks in 50 ms"
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(await got()))), voxels[0])

    run(work)


def test_who_looks_gives_up_on_a_lock_and_who_changes_waits_for_it(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    files = "cells/branches/main/files"

    async def work() -> None:
        async with serving(store, answer_seconds=0.05) as client:
            folder = await client.ino(files)
            context = client.tree._context
            mounted = client.tree._branches.get(context.store["cells"], "main")

            async def change() -> None:
                await client.call("mkdir", folder, b"new", 0o755)

            async with trio.open_nursery() as nursery, mounted.renaming():
                nursery.start_soon(change)
                only_looks.set(True)
                for ask in (client.tree.getattr(folder), client.tree.lookup(folder, b"new")):
                    with pytest.raises(OutOfTime):
                        await ask
            assert (await client.stat(f"{files}/new")).ino, "it was not given up"

    run(work)


def test_a_file_that_was_opened_too_late_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "store")
    files = "cells/branches/main/files"
    path = f"{files}/a.txt"

    async def work() -> None:
        async with serving(store, answer_seconds=0.05) as client:
            await client.write(path, b"here")
            ino = await client.ino(path)
            context = client.tree._context
            mounted = client.tree._branches.get(context.store["cells"], "main")
            go_on = threading.Event()
            opening = mounted.branch.working.open

            def slow(*arguments: Any) -> WorkingFile:
                assert go_on.wait(PATIENCE)
                opened.append(opening(*arguments))
                return opened[-1]

            opened: list[WorkingFile] = []
            monkeypatch.setattr(mounted.branch.working, "open", slow)
            mounted._slow_until = math.inf  # the disk has lately made one wait: files are opened in threads
            only_looks.set(True)
            names = context.lane("cells").names
            with pytest.raises(OutOfTime):
                await client.tree.open(ino, os.O_RDONLY)
            assert names.borrowed_tokens == 1, "its thread is still busy"
            go_on.set()

            async def ended() -> bool:
                return bool(opened) and opened[0].fd is None and not names.borrowed_tokens

            await until_async(ended)
            fh = await client.tree.open(ino, os.O_RDONLY)
            assert bytes(await client.tree.read(fh.fh, 0, 10)) == b"here"
            await client.tree.release(fh.fh)

    run(work)
