"""A store on a disk that may stop answering: a network's, or another program's."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import trio
import trio.testing
from PIL import Image

import volfs
from tests.kits.cells import CELLS, add, make_store
from tests.kits.mounts import disk_that_can_stop, stopped
from tests.kits.mounts import volfs as command
from tests.kits.store_calls import store_calls_of_this_thread
from tests.kits.trees import Client, run, serving
from volfs.errors import BadInput, NotAllowed, NotFound, OutOfTime
from volfs.fuse.checkup import examine
from volfs.fuse.processes import MountOptions
from volfs.storage.mount_table import Mounted, far_disks, may_stop_answering
from volfs.testing.kit import mounted
from volfs.testing.waiting import PATIENCE, until, until_async
from volfs.tree.contract.time_limit import only_looks
from volfs.tree.core.context import TreeContext

_MAIN = "cells/branches/main"
_FILES = f"{_MAIN}/files"
_SLICES = f"{_MAIN}/s0/xy"
_NEW = np.random.default_rng(5).integers(0, 256, CELLS.shape, "u1")


def _png(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


def test_a_disk_that_answers_no_lookup_holds_nobody_else(tmp_path: Path, mountpoint: Path) -> None:
    store = make_store(tmp_path / "store")
    with volfs.open_store(store) as opened:
        add(opened, "other", "", CELLS, "zyx", chunks=(16, 16, 16), levels=1)
    picture = tmp_path / "new.png"
    picture.write_bytes(_png(_NEW[7]))
    with (
        disk_that_can_stop(store / "datasets") as disk,
        mounted(store, mountpoint, options=MountOptions(answer_within=1)),
        ThreadPoolExecutor(8) as changing,
        ExitStack() as stack,
    ):
        branch = mountpoint / "cells" / "branches" / "main"
        (branch / "files" / "a.txt").write_text("before")
        written = branch / "s0" / "xy"
        shutil.copy(picture, written / "temporary")
        slices = sorted((mountpoint / "other" / "versions" / "v1" / "s0" / "xy").iterdir())
        remembered = {path: path.read_bytes() for path in slices[:3]}
        in_place = [
            stack.enter_context(_writer(branch / path, data))
            for path, data in (("s0/xy/z00001.png", picture.read_bytes()), ("files/a.txt", b"after!"))
        ]
        for name in ("temporary", "z00002.png", "z00003.png"):
            os.stat(written / name)
        with stopped(disk):
            for writer in in_place:
                assert writer.stdin is not None
                writer.stdin.close()
            changes = [
                changing.submit(*change)
                for change in (
                    (os.rename, written / "temporary", written / "z00002.png"),
                    (os.unlink, written / "z00003.png"),
                    (shutil.copy, picture, written / "another"),
                    (os.mkdir, branch / "files" / "new"),
                )
            ]
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
        for change in changes:
            with suppress(TimeoutError):  # of the names that it asks for first
                change.result(PATIENCE)
        for writer in in_place:
            assert writer.wait(PATIENCE) == 0, "a change is never given up"
        assert (branch / "files" / "a.txt").read_text() == "after!"
        for at, voxels in ((1, _NEW[7]), (8, CELLS[8])):
            assert np.array_equal(np.asarray(Image.open(written / f"z{at:05}.png")), voxels)


def _writer(path: Path, data: bytes) -> subprocess.Popen[bytes]:
    """A process that has a file open, and overwrites it in place when its input ends."""
    script = (
        f"import sys; file = open(sys.argv[1], 'r+b', 0); print(flush=True); sys.stdin.read(); file.write({data!r})"
    )
    command = [sys.executable, "-I", "-c", script, path]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdout is not None and writer.stdout.readline()
    return writer


def _answers(folder: Path) -> bool:
    try:
        return bool(os.listdir(folder))
    except TimeoutError:
        return False


def test_a_disk_that_has_answered_nothing_yet_holds_no_other_dataset(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    with volfs.open_store(store) as opened:
        add(opened, "other", "", CELLS, "zyx", chunks=(16, 16, 16), levels=1)

    async def work() -> None:
        with disk_that_can_stop(store / "datasets" / "cells", tmp_path / "content") as disk:
            async with serving(store, answer_seconds=0.2) as client:
                only_looks.set(True)
                with stopped(disk):
                    with pytest.raises(OutOfTime):
                        await client.stat("cells/branches/main")
                    assert {"cells", "other"} <= (await client.ls("")).keys()
                    assert stat.S_IMODE((await client.stat("other/dataset.json")).mode) == 0o444
                    assert await client.read("other/branches/main/s0/info.json")
                    await client.tree.statfs()

    run(work)


def test_a_catalog_on_a_disk_that_may_stop_answering_is_told_of(tmp_path: Path, mountpoint: Path) -> None:
    store = make_store(tmp_path / "store")
    (tmp_path / "far").mkdir()
    catalogs = {"far": tmp_path / "far" / "catalog.sqlite", "near": tmp_path / "catalog.sqlite"}
    with disk_that_can_stop(tmp_path / "far"):
        for place, catalog in catalogs.items():
            said = command(store, "--catalog", catalog, "mount", mountpoint).stderr
            command(store, "umount", mountpoint)
            found = {each.name: each for each in examine(store, catalog)}["catalog"]
            if place == "near":
                assert not said and (found.state, found.mend) == ("ok", "")
            else:
                assert said.startswith(f"volfs: {catalog} is on fuse: the whole mount waits for it")
                assert len(said.splitlines()) == 1 and "--catalog" in said
                assert found.state == "note" and found.detail in said and "--catalog" in found.mend


def test_each_branch_and_dataset_is_watched_on_its_own(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    with volfs.open_store(store) as opened:
        add(opened, "other", "", CELLS, "zyx", chunks=(16, 16, 16), levels=1)
        opened["other"].create_branch("exp")
        for dataset in ("cells", "other"):
            opened[dataset].branch("main").put("files/seen.txt", b"one")

    async def work() -> None:
        with (
            volfs.open_store(store, catalog=tmp_path / "catalog.sqlite") as elsewhere,
            disk_that_can_stop(store / "datasets" / "cells", tmp_path / "content") as disk,
        ):
            there = elsewhere["other"].branch("main")
            async with serving(store, answer_seconds=0.2, refresh_seconds=0.01) as client:
                for branch in ("cells/branches/main", "other/branches/exp", "other/branches/main"):
                    await client.ls(f"{branch}/files")
                fh = await client.open("other/branches/main/files/seen.txt")
                await client.read_fh(fh, 3)
                ino = await client.ino("other/branches/main/files/seen.txt")
                with stopped(disk):
                    there.put("files/seen.txt", b"other bytes")
                    await until_async(partial(client.was_told, ino))
                    there.commit("elsewhere")
                    await until_async(partial(client.exists, "other/versions/v2"))
                await client.close(fh)

    run(work)


def test_a_filesystem_that_is_mounted_below_a_dataset_later_is_noticed(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    cells = store / "datasets" / "cells"

    async def work(disks: ExitStack) -> None:
        async with serving(store, answer_seconds=0.2, refresh_seconds=0.01) as client:
            context = client.tree._context

            async def is_far(far: bool) -> bool:
                return context.is_far("cells") is far

            fh = await client.open(f"{_SLICES}/z00004.png")
            size = (await client.stat(f"{_SLICES}/z00004.png")).size
            assert await is_far(False)
            (cells / "spare").mkdir()
            with disk_that_can_stop(cells / "spare", tmp_path / "spare"):
                await until_async(partial(is_far, True))
            await until_async(partial(is_far, False))

            disk = disks.enter_context(disk_that_can_stop(cells / "versions", tmp_path / "content"))
            await until_async(partial(is_far, True))
            with store_calls_of_this_thread(store / "datasets") as calls:
                assert len(await client.read_fh(fh, size)) == size
                await client.close(fh)
                await _write_slices(client)
            # Any mount on this machine, of another test too, has the tree look which of its own disks are far.
            asked = {call for call in calls if "heed_mounts" not in call}
            assert not asked, "\n".join(sorted(asked)[:10])
            only_looks.set(True)
            with stopped(disk), pytest.raises(OutOfTime):
                await client.read(f"{_MAIN}/zarr/labels/nuclei/s0/c/0/0/0")

    with ExitStack() as disks:
        run(partial(work, disks))


@pytest.mark.parametrize("read_only", [False, True])
def test_looking_asks_a_far_disk_in_threads_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, read_only: bool
) -> None:
    store = make_store(tmp_path / "store")
    with volfs.open_store(store) as opened:
        opened["cells"].create_tag("paper", "v1")
        opened["cells"].branch("main").put("files/a.txt", b"here")
        opened["cells"].branch("main").working.symlink("files/link", "a.txt")
    monkeypatch.setattr(TreeContext, "far_disks", _far)

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
        else:
            await client.readlink(path)

    async def look_around(client: Client) -> None:
        await look_at_all(client, "", 3)
        for snapshot in ("cells/versions/v1", _MAIN):
            for folder in (".volfs", "files", "zarr", "s0", "s0/xy", "formats", "formats/cells.n5/setup0"):
                with suppress(NotFound):
                    await look_at_all(client, f"{snapshot}/{folder}", 3)
        for missing in ("versions/v9", "tags/v9", "branches/none", "branches/main/s0/xy/z99999.png"):
            assert not await client.exists(f"cells/{missing}")
        await client.tree.statfs()

    async def work() -> None:
        async with serving(store, read_only=read_only) as client:
            with store_calls_of_this_thread(store / "datasets") as calls:
                await look_around(client)  # where nothing is known, and nobody is the branch's writer
                await look_around(client)
                if not read_only:
                    await client.write(f"{_FILES}/b.txt", b"here")
                    await look_around(client)
            assert not calls, "\n".join(sorted(set(calls))[:10])

    run(work)


def test_changing_asks_a_far_disk_in_threads_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "store")
    monkeypatch.setattr(TreeContext, "far_disks", _far)

    async def work() -> None:
        async with serving(store, stage_seconds=0.1, hide_seconds=0.1, refresh_seconds=0.05) as client:
            with store_calls_of_this_thread(store / "datasets") as calls:
                await _write_all(client, "first")
                await _write_all(client, "second")

                async def dropped() -> bool:
                    return bool(await client.rejected())

                await until_async(dropped)
                await client.mkdir("cells/branches/side")
                await client.write("cells/branches/side/s0/xy/z00001.png", _png(_NEW[1]))
                await client.order("cells/branches/side/.volfs/discard", "all")
                await client.rmdir("cells/branches/side")
                tags = await client.ino("cells/tags")
                await client.tree.symlink(tags, b"one", b"../versions/v1")
                await client.rename("cells/tags/one", "cells/tags/two")
                await client.unlink("cells/tags/two")
                await client.tree.close()
            assert not calls, "\n".join(sorted(set(calls))[:10])

    run(work)


def _far(*_: object) -> frozenset[str]:
    return frozenset({"far"})


async def _write_all(client: Client, word: str) -> None:
    """Change what can be changed in a branch, in each way, and commit it. ``word`` tells one time from another."""
    await client.write(f"{_FILES}/{word}.txt", b"here")
    await _write_slices(client)
    await _write_formats(client)
    await _write_keys(client)
    await client.order(f"{_MAIN}/.volfs/message", "two\nlines")
    await client.order(f"{_MAIN}/.volfs/commit", "-")
    await client.write(f"{_SLICES}/z00003.png", _png(_NEW[9]))
    await client.write(f"{_FILES}/after {word}.txt", b"here")
    await client.order(f"{_MAIN}/.volfs/discard", "zarr")
    await client.order(f"{_MAIN}/.volfs/commit", "all else")
    await client.order(f"{_MAIN}/.volfs/tag", word)


async def _write_slices(client: Client) -> None:
    await client.write(f"{_SLICES}/z00003.png", _png(_NEW[3]))
    await client.write(f"{_SLICES}/.new", _png(_NEW[4]))
    await client.rename(f"{_SLICES}/.new", f"{_SLICES}/z00004.png")
    await client.write(f"{_SLICES}/.half", _png(_NEW[4])[:99])
    await client.rename(f"{_SLICES}/.half", f"{_SLICES}/.other")
    await client.ls(_SLICES, 100)
    fh = await client.open(f"{_SLICES}/.other", os.O_RDWR)
    ino = await client.ino(f"{_SLICES}/.other")
    await client.unlink(f"{_SLICES}/.other")
    await client.call("write", fh, 0, b"orphan")
    assert await client.read_fh(fh, 6) == b"orphan"
    await client.tree.getattr(ino)
    await client.close(fh)

    data = await client.read(f"{_SLICES}/z00005.png")
    fh = await client.open(f"{_SLICES}/z00005.png", os.O_RDWR)
    await client.call("write", fh, 0, data[:100])
    await client.call("fsync", fh, False)
    await client.call("write", fh, 100, data[100:])
    await client.setattr(f"{_SLICES}/z00005.png", fh, size=len(data))
    await client.close(fh)
    await client.setattr(f"{_SLICES}/z00005.png", size=0)
    await client.append(f"{_SLICES}/z00005.png", data)
    with pytest.raises(BadInput):
        await client.write(f"{_SLICES}/z00006.png", _png(_NEW[6][:3]))
    await client.ls(_SLICES, 100)
    await client.write(f"{_SLICES}/z00006.png", _png(_NEW[6]))
    await client.unlink(f"{_SLICES}/z00006.png")
    await client.write(f"{_SLICES}/z00006.png", _png(_NEW[7]))
    for refused in (client.mkdir(f"{_SLICES}/folder"), client.symlink(f"{_SLICES}/link", "z00001.png")):
        with pytest.raises(NotAllowed):
            await refused
    with pytest.raises(BadInput):
        await client.write(f"{_SLICES}/z99999.png", b"")
    await client.write(f"{_SLICES}/never.png", b"no picture")


async def _write_formats(client: Client) -> None:
    chunk = f"{_MAIN}/formats/cells.n5/setup0/timepoint0/s0/0/0/0"
    data = await client.read(chunk)
    await client.write(chunk, data)
    await client.write(f"{chunk}.new", data)
    await client.rename(f"{chunk}.new", chunk)
    await client.unlink(chunk)
    await client.write(chunk, data)
    with pytest.raises(BadInput):
        await client.write(f"{_MAIN}/formats/cells.n5/attributes.json", b"{}")
    volume = f"{_MAIN}/s0/volume.npy"
    size = (await client.stat(volume)).size
    fh = await client.open(volume, os.O_RDWR)
    await client.call("write", fh, size - 10, b"0123456789")
    assert (await client.read_fh(fh, size)).endswith(b"0123456789")
    await client.call("fsync", fh, False)
    await client.setattr(volume, fh, size=size)
    await client.close(fh)


async def _write_keys(client: Client) -> None:
    await client.write(f"{_FILES}/a.txt", b"here")
    fh = await client.open(f"{_FILES}/a.txt", os.O_RDWR)
    await client.call("write", fh, 0, b"more")
    await client.call("fsync", fh, False)
    await client.setattr(f"{_FILES}/a.txt", fh, size=2)
    await client.setattr(f"{_FILES}/a.txt", size=3)
    ino = await client.ino(f"{_FILES}/a.txt")
    await client.unlink(f"{_FILES}/a.txt")
    await client.call("write", fh, 0, b"more")
    await client.tree.getattr(ino)
    assert await client.read_fh(fh, 4) == b"more"
    await client.close(fh)
    chunk = f"{_MAIN}/zarr/s0/c/0/0/1"
    data = await client.read(chunk)
    await client.write(f"{chunk}.partial", data)
    await client.rename(f"{chunk}.partial", chunk)
    await client.mkdir(f"{_FILES}/folder")
    await client.setattr(f"{_FILES}/folder", mode=0o755, mtime_ns=10**18)
    await client.symlink(f"{_FILES}/folder/link", "a.txt")
    await client.readlink(f"{_FILES}/folder/link")
    await client.write(f"{_FILES}/folder/one", b"1")
    await client.link(f"{_FILES}/folder/one", f"{_FILES}/folder/two")
    await client.rename(f"{_FILES}/folder/two", f"{_FILES}/folder/three")
    for name in ("one", "three", "link"):
        await client.unlink(f"{_FILES}/folder/{name}")
    await client.rmdir(f"{_FILES}/folder")
    await client.tree.fsyncdir(await client.ino(_FILES), False)


def test_written_bytes_that_wait_for_a_far_disk_hold_no_other_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "store")
    with volfs.open_store(store) as opened:
        add(opened, "other", "", CELLS, "zyx", chunks=(16, 16, 16), levels=1)
    monkeypatch.setattr("volfs.tree.files.layout_file.GATHERED_IN_ALL", 2000)
    monkeypatch.setattr(TreeContext, "far_disks", lambda _, dataset: frozenset({"far"} if dataset == "cells" else ()))
    fetch = TreeContext.fetch

    async def work() -> None:
        answers = trio.Event()

        async def slow(context: TreeContext, dataset: str, work: Callable[[], object]) -> object:
            if dataset == "cells":
                await answers.wait()
            return await fetch(context, dataset, work)

        monkeypatch.setattr(TreeContext, "fetch", slow)
        async with serving(store) as client, trio.open_nursery() as nursery:
            volumes = "cells/branches/main/s0/volume.npy", "other/branches/main/s0/volume.npy"
            far, near = [await client.open(volume, os.O_RDWR) for volume in volumes]
            await client.call("write", far, 1000, bytes(1900))
            nursery.start_soon(client.call, "flush", far)
            await trio.testing.wait_all_tasks_blocked()
            for offset in (1000, 5000):
                await client.call("write", near, offset, bytes(1500))
            answers.set()
            for fh in (near, far):
                await client.close(fh)

    run(work)


@pytest.mark.parametrize(
    ("kind", "may_stop"), [("ext4", False), ("tmpfs", False), ("nfs4", True), ("fuse.sshfs", True)]
)
def test_a_disk_is_far_if_another_machine_or_program_answers_for_it(kind: str, *, may_stop: bool) -> None:
    mount = Mounted(Path("/data"), "server:/data", kind, "0:50", frozenset())
    assert may_stop_answering(mount) is may_stop


def test_a_dataset_is_far_if_it_or_some_of_it_or_what_it_links_to_is(tmp_path: Path) -> None:
    def at(place: Path, kind: str, device: str) -> Mounted:
        return Mounted(place, "source", kind, device, frozenset())

    datasets, elsewhere = tmp_path / "datasets", tmp_path / "elsewhere"
    for folder in (datasets / "near", datasets / "partly", elsewhere / "far", elsewhere / "near"):
        folder.mkdir(parents=True)
    (elsewhere / "way").symlink_to("far")
    (datasets / "linked").symlink_to(elsewhere / "way" / "data")
    (datasets / "beside").symlink_to("../elsewhere/near")
    (datasets / "circle").symlink_to("circle")
    table = [
        at(Path("/"), "ext4", "8:1"),
        at(datasets / "itself", "nfs4", "0:50"),
        at(datasets / "partly" / "versions", "fuse.sshfs", "0:51"),
        at(elsewhere / "far", "cifs", "0:52"),
    ]
    found = {name: set(far_disks(datasets / name, table)) for name in _NAMES}
    assert found == {
        "near": set(),
        "beside": set(),
        "circle": set(),
        "itself": {"0:50"},
        "partly": {"0:51"},
        "linked": {"0:52"},
    }


_NAMES = ("near", "beside", "circle", "itself", "partly", "linked")
