"""Writing slices: staged until they decode, then voxels; and what the kernel is told, and when."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import trio
import zarr

import volfs
from tests.kits import fork_server
from tests.kits.cells import CELLS, make_store
from tests.kits.paths import ROOT
from tests.kits.slices import MAIN, PLANE, XY, picture, png
from tests.kits.trees import Client, run, serving
from volfs.errors import BadInput, NoSpace, NotAllowed, NotFound, ReadOnly, VolfsError
from volfs.storage.stage_record import HEADER
from volfs.testing.waiting import PATIENCE, until_async
from volfs.tree.contract.attrs import SetAttr
from volfs.volume.level import Level


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


async def slice_of(client: Client, index: int) -> np.ndarray:
    return picture(await client.read(f"{XY}/z{index:05}.png"))


def test_a_whole_png_over_a_slice_is_voxels_at_close_and_in_every_view(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            canonical = (await client.stat(f"{XY}/z00012.png")).size
            await client.write(f"{XY}/z00012.png", png(PLANE), piece=500)
            assert (await client.stat(f"{XY}/z00012.png")).size == canonical
            assert (await slice_of(client, 12) == PLANE).all()
            assert (await slice_of(client, 11) == CELLS[11]).all()
            assert (picture(await client.read(f"{MAIN}/s0/xz/y00004.png"))[12] == PLANE[4]).all()
            assert (np.load(io.BytesIO(await client.read(f"{XY}/z00012.npy"))) == PLANE).all()
            status = json.loads(await client.read(f"{MAIN}/.volfs/status.json"))
            assert status["changes"][0]["path"] == "zarr/s0" and not status["staged"]
            # The next level follows: the mean of two by two by two, halves to even.
            both = np.stack([PLANE, CELLS[13]]).astype("u4")
            mean = np.rint(both.reshape(2, 20, 2, 25, 2).mean(axis=(0, 2, 4))).astype("u1")
            assert (picture(await client.read(f"{MAIN}/s1/xy/z00006.png")) == mean).all()

    run(work)


@pytest.mark.parametrize("ending", [".tif", ".npy"])
def test_other_formats_are_written_under_their_own_ending(store: Path, ending: str) -> None:
    async def work() -> None:
        async with serving(store) as client:
            out = io.BytesIO()
            tifffile.imwrite(out, PLANE, compression="zlib") if ending == ".tif" else np.save(out, PLANE)
            await client.write(f"{XY}/z00002{ending}", out.getvalue())
            assert (await slice_of(client, 2) == PLANE).all()

    run(work)


def test_while_it_is_written_a_slice_has_the_size_and_bytes_of_what_was_written(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            data, path = png(PLANE), f"{XY}/z00005.png"
            await client.write(path, data[:700])  # the first half, closed: no error, it may go on
            assert (await client.stat(path)).size == 700
            assert (await client.ls(XY))["z00005.png"].size == 700
            assert await client.read(path) == data[:700]
            staged = json.loads(await client.read(f"{MAIN}/.volfs/status.json"))["staged"]
            assert [each["path"] for each in staged] == ["s0/xy/z00005.png"] and "early" in staged[0]["reason"]
            assert (picture(await client.read(f"{MAIN}/s0/xz/y00001.png"))[5] == CELLS[5, 1]).all()
            await client.append(path, data[700:])
            assert (await slice_of(client, 5) == PLANE).all()
            assert (await client.stat(path)).size != len(data)

    run(work)


def test_a_picture_of_another_shape_or_type_is_refused_and_changes_nothing(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            path = f"{XY}/z00006.png"
            for bad in (
                png(PLANE[:-1]),
                png(PLANE.astype("u2") * 7),
                png(np.dstack([PLANE] * 3)),
                b"not a picture at all",
            ):
                with pytest.raises(BadInput) as refused:
                    await client.write(path, bad)
                assert refused.value.errno == errno.EINVAL
                assert await client.read(path) == bad  # the stage is kept
                assert (picture(await client.read(f"{MAIN}/s0/xz/y00001.png"))[6] == CELLS[6, 1]).all()
            await client.write(path, png(PLANE))
            assert (await slice_of(client, 6) == PLANE).all()

    run(work)


def test_a_flush_in_between_tries_and_does_not_mind(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            data = png(PLANE)
            fh = await client.open_to_write(f"{XY}/z00001.png")
            await client.call("flush", fh)  # a shell's child ends: the file is empty
            await client.call("write", fh, 0, data[:100])
            await client.call("flush", fh)  # and again, half written
            await client.call("write", fh, 100, data[100:])
            await client.close(fh)
            assert (await slice_of(client, 1) == PLANE).all()

    run(work)


def test_a_writer_goes_on_in_its_own_file_after_a_flush_that_decoded(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            first, path = png(PLANE), f"{XY}/z00001.png"
            fh = await client.open_to_write(path)
            await client.call("write", fh, 0, first)
            await client.call("flush", fh)
            assert (await slice_of(client, 1) == PLANE).all()
            second = png(PLANE[::-1].copy())
            await client.call("setattr", await client.ino(path), SetAttr(size=0), fh)
            await client.call("write", fh, 0, second)
            await client.close(fh)
            assert (await slice_of(client, 1) == PLANE[::-1]).all()

    run(work)


def test_writing_in_place_changes_the_voxels_written(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            path = f"{XY}/z00003.npy"
            header = (await client.stat(path)).size - PLANE.size
            fh = await client.open(path, os.O_RDWR)
            await client.call("write", fh, header + 50 * 7, PLANE[7].tobytes())
            assert (np.load(io.BytesIO(await client.read_fh(fh, 10**6)))[7] == PLANE[7]).all()
            # mmap: the program closes first, and the kernel writes the page later.
            await client.call("flush", fh)
            await client.call("write", fh, header + 50 * 9, PLANE[9].tobytes())
            await client.call("release", fh)
            expected = CELLS[3].copy()
            expected[7], expected[9] = PLANE[7], PLANE[9]
            assert (await slice_of(client, 3) == expected).all()

    run(work)


def test_truncating_to_nothing_without_a_write_brings_the_slice_back_in_time(store: Path) -> None:
    async def work() -> None:
        async with serving(store, stage_seconds=0.2, refresh_seconds=0.1) as client:
            path = f"{XY}/z00003.png"
            size = (await client.stat(path)).size
            assert (await client.setattr(path, size=size)).size == size
            assert (await client.setattr(path, size=0)).size == 0
            assert await client.read(path) == b""
            await until_async(partial(client.has_size, path, size))
            assert (await slice_of(client, 3) == CELLS[3]).all()
            assert not json.loads(await client.read(f"{MAIN}/.volfs/status.json"))["rejected"]

    run(work)


def test_what_never_decodes_is_dropped_and_told(store: Path) -> None:
    async def work() -> None:
        async with serving(store, stage_seconds=0.2, refresh_seconds=0.1) as client:
            await client.write(f"{XY}/z00003.png", png(PLANE)[:300])
            await client.write(f"{XY}/left-over.tmp", b"what is this")
            fh = await client.open(f"{XY}/z00003.png")
            client.kernel.forget_all()
            await until_async(partial(client.is_gone, f"{XY}/left-over.tmp"))
            await until_async(partial(client.says, f"{MAIN}/.volfs/status.json", b"left-over.tmp", b"z00003.png"))
            assert (await slice_of(client, 3) == CELLS[3]).all()
            assert not await client.exists(f"{XY}/left-over.tmp")
            rejected = json.loads(await client.read(f"{MAIN}/.volfs/status.json"))["rejected"]
            assert {entry["path"] for entry in rejected} == {"s0/xy/z00003.png", "s0/xy/left-over.tmp"}
            assert all(entry["reason"] for entry in rejected)
            assert await client.ino(f"{XY}/z00003.png") in client.kernel.awaited
            await client.close(fh)

    run(work)


def test_a_rename_over_a_slice_writes_it_and_the_temporary_becomes_the_slice(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            temporary = f"{XY}/.z00012.png.Xy12"
            await client.write(temporary, png(PLANE))
            assert (await client.ls(XY))[".z00012.png.Xy12"] == await client.stat(temporary)
            assert await client.read(temporary) == png(PLANE)
            await client.setattr(temporary, mode=0o600, mtime_ns=5, uid=1, gid=1)
            moved, target = await client.ino(temporary), await client.ino(f"{XY}/z00012.png")
            client.kernel.forget_all()
            await client.rename(temporary, f"{XY}/z00012.png")
            assert {moved, target} <= set(client.kernel.awaited)
            assert (await client.ino(f"{XY}/z00012.png")) == target
            assert (await slice_of(client, 12) == PLANE).all()
            # The kernel still has the temporary's inode under the slice's name.
            assert (await client.tree.getattr(moved)) == await client.stat(f"{XY}/z00012.png")
            assert (await client.tree.lookup(moved, b".")).ino == moved
            opened = await client.tree.open(moved, os.O_RDONLY)
            assert (picture(await client.read_fh(opened.fh, 10**6)) == PLANE).all()
            await client.close(opened.fh)
            assert not await client.exists(temporary)
            await client.tree.forget([(moved, 3)])
            with pytest.raises(NotFound):
                await client.tree.getattr(moved)

    run(work)


def test_a_rename_over_a_slice_of_what_is_none_is_refused_and_keeps_both(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            for bad in (png(PLANE[1:]), b"no picture", png(PLANE)[:-20]):
                await client.write(f"{XY}/tmp", bad)
                with pytest.raises(BadInput):
                    await client.rename(f"{XY}/tmp", f"{XY}/z00000.png")
                assert await client.read(f"{XY}/tmp") == bad
                assert (await slice_of(client, 0) == CELLS[0]).all()
            await client.rename(f"{XY}/tmp", f"{XY}/tmp2")
            assert await client.read(f"{XY}/tmp2") == bad and not await client.exists(f"{XY}/tmp")
            await client.unlink(f"{XY}/tmp2")
            assert not await client.exists(f"{XY}/tmp2")

    run(work)


def test_a_temporary_still_open_when_it_is_renamed_over_a_slice_goes_on_as_the_slice(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            data = png(PLANE)
            fh = await client.open_to_write(f"{XY}/partial")
            await client.call("write", fh, 0, data[:200])
            await client.rename(f"{XY}/partial", f"{XY}/z00009.png")
            assert (await client.stat(f"{XY}/z00009.png")).size == 200
            await client.call("write", fh, 200, data[200:])
            await client.close(fh)
            assert (await slice_of(client, 9) == PLANE).all()

    run(work)


def test_removing_a_slice_hides_its_name_for_a_while_and_keeps_its_voxels(store: Path) -> None:
    async def work() -> None:
        async with serving(store, hide_seconds=0.3) as client:
            before = (await client.stat(XY)).mtime
            await client.unlink(f"{XY}/z00004.png")
            assert (await client.stat(XY)).mtime > before
            assert not await client.exists(f"{XY}/z00004.png")
            assert "z00004.png" not in await client.ls(XY)
            with pytest.raises(NotFound):
                await client.unlink(f"{XY}/z00004.png")
            assert (picture(await client.read(f"{MAIN}/s0/xz/y00001.png"))[4] == CELLS[4, 1]).all()
            await until_async(partial(client.exists, f"{XY}/z00004.png"))
            assert (await slice_of(client, 4) == CELLS[4]).all()
            # tar, install, mv from elsewhere: unlink, then O_CREAT | O_EXCL.
            await client.unlink(f"{XY}/z00004.png")
            fh = await client.open_to_write(f"{XY}/z00004.png", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            await client.call("write", fh, 0, png(PLANE))
            await client.close(fh)
            assert (await slice_of(client, 4) == PLANE).all()
            await client.unlink(f"{XY}/z00005.png")
            await client.write(f"{XY}/tmp", png(PLANE))
            await client.rename(f"{XY}/tmp", f"{XY}/z00005.png")
            assert (await slice_of(client, 5) == PLANE).all()

    run(work)


def test_what_cannot_be_in_a_slice_directory_is_refused(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            with pytest.raises(BadInput):
                await client.write(f"{XY}/z00020.png", png(PLANE))  # there are 20
            with pytest.raises(NotAllowed):
                await client.mkdir(f"{XY}/folder")
            with pytest.raises(NotAllowed):
                await client.symlink(f"{XY}/link", "z00001.png")
            with pytest.raises(NotAllowed) as refused:
                await client.rename(f"{XY}/z00001.png", f"{XY}/z00002.png")
            assert refused.value.errno == errno.EXDEV  # mv copies, which is what was meant
            for path in (f"{MAIN}/s1/xy/z00001.png", f"{MAIN}/s1/xy/z00001.tif"):
                assert not (await client.stat(path)).mode & 0o222
                with pytest.raises(NotAllowed) as refused:
                    await client.open(path, os.O_WRONLY)
                assert refused.value.errno == errno.EPERM
            with pytest.raises(NotAllowed):
                await client.write(f"{MAIN}/s1/xy/tmp", b"x")
            with pytest.raises(OSError) as huge:
                fh = await client.open_to_write(f"{XY}/z00001.png")
                await client.call("write", fh, 1 << 40, b"x")
            assert huge.value.errno == errno.EFBIG

    run(work)


def test_mknod_makes_what_create_makes(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            parent = await client.ino(XY)
            made = await client.call("mknod", parent, b"tmp", 0o100644)
            assert made == await client.stat(f"{XY}/tmp") and made.size == 0
            with pytest.raises(NotAllowed):
                await client.call("mknod", parent, b"fifo", 0o010644)
            await client.unlink(f"{XY}/z00007.png")
            await client.call("mknod", parent, b"z00007.png", 0o100644)
            assert (await client.stat(f"{XY}/z00007.png")).size == 0
            fh = await client.open(f"{XY}/z00007.png", os.O_WRONLY)
            await client.call("write", fh, 0, png(PLANE))
            await client.call("release", fh)  # NFS servers send no flush
            assert (await slice_of(client, 7) == PLANE).all()

    run(work)


def test_open_views_are_told_before_a_flush_returns_and_pages_are_kept_only_while_right(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            crossing, other = f"{MAIN}/s0/xz/y00003.png", f"{MAIN}/labels/nuclei/s0/xy/z00001.tif"
            held = {path: await client.tree.open(await client.ino(path), os.O_RDONLY) for path in (crossing, other)}
            again = await client.tree.open(await client.ino(crossing), os.O_RDONLY)
            assert again.keep_cache and not held[crossing].keep_cache
            client.kernel.forget_all()
            await client.write(f"{XY}/z00003.png", png(PLANE))
            assert await client.ino(crossing) in client.kernel.awaited
            assert await client.ino(other) not in client.kernel.awaited + client.kernel.queued
            assert not (await client.tree.open(await client.ino(crossing), os.O_RDONLY)).keep_cache
            assert (await client.tree.open(await client.ino(other), os.O_RDONLY)).keep_cache
            assert (await client.tree.open(await client.ino(crossing), os.O_RDONLY)).keep_cache

    run(work)


def test_writes_get_through_while_the_kernel_is_being_told(store: Path) -> None:
    """To forget a mapped inode the kernel first writes its dirty pages: into the very file that is being flushed."""

    async def work() -> None:
        async with serving(store) as client:
            path = f"{XY}/z00003.npy"
            header = (await client.stat(path)).size - PLANE.size
            fh = await client.open(path, os.O_RDWR)
            await client.call("write", fh, header, PLANE[0].tobytes())

            async def late_page(ino: int) -> None:
                client.kernel.meanwhile = None
                with trio.fail_after(PATIENCE):
                    await client.call("write", fh, header + 50, PLANE[1].tobytes())

            client.kernel.meanwhile = late_page
            await client.call("flush", fh)
            await client.call("release", fh)
            assert (await slice_of(client, 3))[:2].tolist() == PLANE[:2].tolist()

    run(work)


def test_mtime_grows_with_every_change(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            path, seen = f"{XY}/z00012.png", [0]
            seen.append((await client.stat(path)).mtime)
            data = png(PLANE)
            fh = await client.open_to_write(path)
            for offset in range(0, len(data), 300):
                await client.call("write", fh, offset, data[offset : offset + 300])
                seen.append((await client.stat(path)).mtime)
            await client.close(fh)
            seen.append((await client.stat(path)).mtime)
            assert seen == sorted(seen) and len(set(seen)) >= len(seen) - 1

    run(work)


def test_slices_written_at_once_by_many_are_all_there(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            async with trio.open_nursery() as nursery:
                for index in range(len(CELLS)):
                    nursery.start_soon(client.write, f"{XY}/z{index:05}.png", png(CELLS[::-1][index].copy()), 400)
            for index in range(len(CELLS)):
                assert (await slice_of(client, index) == CELLS[::-1][index]).all()

    run(work)


def test_a_slice_over_an_open_chunk_file_is_what_the_chunk_file_then_shows(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            chunk = f"{MAIN}/zarr/s0/c/0/0/0"
            fh = await client.open(chunk)
            before = await client.read_fh(fh, 10**6)
            client.kernel.forget_all()
            await client.write(f"{XY}/z00003.png", png(PLANE))
            assert await client.ino(chunk) in client.kernel.awaited
            after = await client.read_fh(fh, 10**6)
            assert after != before and after == await client.read(chunk)
            await client.close(fh)

    run(work)


def test_a_resized_array_has_other_slices_at_once(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            with volfs.open_store(store) as other:
                zarr.create_array(
                    other["cells"].branch("main").zarr_store(),
                    name="extra",
                    shape=(6, 5, 4),
                    chunks=(2, 5, 4),
                    dtype="u1",
                )
            await until_async(partial(client.exists, f"{MAIN}/extra/xy"))
            assert len(await client.ls(f"{MAIN}/extra/xy")) == 6
            data = await client.read(f"{MAIN}/zarr/extra/zarr.json")
            grown = json.loads(data)
            grown["shape"] = [9, 5, 4]
            await client.write(f"{MAIN}/zarr/extra/zarr.json", json.dumps(grown).encode())
            assert len(await client.ls(f"{MAIN}/extra/xy")) == 9
            await client.write(f"{MAIN}/extra/xy/z00008.png", png(np.full((5, 4), 7, "u1")))
            assert (picture(await client.read(f"{MAIN}/extra/xy/z00008.png")) == 7).all()

    run(work)


def test_what_another_mount_writes_is_seen_within_a_second_and_not_written_over(store: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import trio\nfrom pathlib import Path\nfrom tests.kits.trees import serving\n"
        "from tests.kits.slices import XY, PLANE, png\n"
        "async def work():\n"
        "    async with serving(Path(sys.argv[1]), mountpoint='/mnt/other') as client:\n"
        "        await client.write(f'{XY}/z00003.png', png(PLANE))\n"
        "        print('written', flush=True)\n"
        "        await trio.sleep(60)\n"
        "trio.run(work)\n"
    )

    async def work() -> None:
        async with serving(store) as client:
            fh = await client.open(f"{XY}/z00003.png")
            top = str(ROOT)
            process = fork_server.Popen([sys.executable, "-c", script, str(store), top], stdout=subprocess.PIPE)
            assert process.stdout is not None
            try:
                await trio.to_thread.run_sync(process.stdout.readline)
                ino = await client.ino(f"{XY}/z00003.png")
                await until_async(partial(client.was_told, ino))
                assert (await slice_of(client, 3) == PLANE).all()
                assert (await client.stat(MAIN)).mode & 0o777 == 0o555
                assert (await client.stat(f"{XY}/z00003.png")).mode & 0o777 == 0o444
                for path in (f"{XY}/z00004.png", f"{MAIN}/files/new"):
                    with pytest.raises(ReadOnly, match="/mnt/other"):
                        await client.write(path, b"x")
                assert "/mnt/other" in json.loads(await client.read(f"{MAIN}/.volfs/status.json"))["writer"]
            finally:
                process.kill()
                process.wait()
            await trio.sleep(0.5)
            await client.close(fh)
            await client.write(f"{XY}/z00004.png", png(PLANE))
            assert (await slice_of(client, 4) == PLANE).all()

    run(work)


def test_an_idle_branch_is_let_go(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volfs.tree.branches.mounted_branch._HOLD_SECONDS", 0.2)

    async def work() -> None:
        async with serving(store, refresh_seconds=0.1) as client:
            await client.write(f"{XY}/z00003.png", png(PLANE))
            context = client.tree._context
            mounted = client.tree._branches.get(context.store["cells"], "main")

            async def let_go() -> bool:
                return not mounted.held

            await until_async(let_go)
            code = f"import volfs; volfs.open_store({str(store)!r})['cells'].branch('main').put('files/n', b'1')"
            await trio.run_process([sys.executable, "-c", code])
            assert await client.read(f"{MAIN}/files/n") == b"1"
            await client.write(f"{XY}/z00004.png", png(PLANE))

    run(work)


def test_what_close_acknowledged_survives_a_kill(store: Path) -> None:
    script = (
        "import sys, os; sys.path.insert(0, sys.argv[2])\n"
        "import trio\nfrom pathlib import Path\nfrom tests.kits.trees import serving\n"
        "from tests.kits.slices import MAIN, XY, PLANE, png\n"
        "async def work():\n"
        "    async with serving(Path(sys.argv[1])) as client:\n"
        "        await client.write(f'{XY}/z00003.png', png(PLANE))\n"
        "        await client.write(f'{MAIN}/files/note', b'kept')\n"
        "        await client.write(f'{XY}/z00004.png', png(PLANE)[:500])\n"
        "        await client.write(f'{XY}/half.tmp', png(PLANE)[:400])\n"
        "        fh = await client.open_to_write(f'{XY}/z00005.png')\n"
        "        await client.call('write', fh, 0, png(PLANE))\n"
        "        os.kill(os.getpid(), 9)\n"
        "trio.run(work)\n"
    )
    top = str(ROOT)
    done = fork_server.run([sys.executable, "-c", script, str(store), top], timeout=PATIENCE, check=False)
    assert done.returncode == -signal.SIGKILL

    async def work() -> None:
        async with serving(store) as client:
            await until_async(lambda: client.rejected())
            assert (await slice_of(client, 3) == PLANE).all()
            assert await client.read(f"{MAIN}/files/note") == b"kept"
            # What was whole is the slice, what was half written is named. A temporary name may be gone on with.
            assert (await slice_of(client, 4) == CELLS[4]).all()
            assert (await slice_of(client, 5) == PLANE).all()
            assert [each["path"] for each in await client.rejected()] == ["s0/xy/z00004.png"]
            assert await client.read(f"{XY}/half.tmp") == png(PLANE)[:400]

    run(work)


def test_fsync_of_a_half_written_slice_keeps_the_stage(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            data, path = png(PLANE), f"{XY}/z00003.png"
            fh = await client.open_to_write(path)
            await client.call("write", fh, 0, data[:100])
            await client.call("fsync", fh, False)
            staged = (store / "datasets/cells/working/main/staged/s0/xy/z00003.png").read_bytes()
            assert staged[HEADER:] == data[:100]
            await client.call("write", fh, 100, data[100:])
            await client.call("fsync", fh, True)
            assert (await slice_of(client, 3) == PLANE).all()
            await client.close(fh)
            assert not list((store / "datasets/cells/working/main/staged").rglob("*.png"))

    run(work)


def test_a_full_disk_is_told_at_close_and_the_stage_is_kept(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with serving(store) as client:
            path = f"{XY}/z00003.png"

            def full(*_: Any) -> None:
                raise NoSpace("the disk is full")

            with monkeypatch.context() as disk:
                disk.setattr(Level, "write", full)
                with pytest.raises(VolfsError) as refused:
                    await client.write(path, png(PLANE))
            assert refused.value.errno == errno.ENOSPC
            assert await client.read(path) == png(PLANE)
            fh = await client.open(path, os.O_WRONLY)
            await client.call("write", fh, 0, png(PLANE)[:1])
            await client.close(fh)
            assert (await slice_of(client, 3) == PLANE).all()

    run(work)
