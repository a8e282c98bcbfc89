"""Volume files, cutouts and directory formats in the tree: inodes, times, caching, and writing in place. No mount."""

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

import volfs
from tests.kits.cells import CELLS, CHUNKS, add, make_store
from tests.kits.trees import Client, run, serving
from volfs.errors import BadInput, NotAllowed, NotFound, ReadOnly, VolfsError
from volfs.testing.volumes import image
from volfs.testing.waiting import PATIENCE
from volfs.tree.monitoring.statistics import statistics
from volfs.volume.level import Level

V1, MAIN = "cells/versions/v1/s0", "cells/branches/main/s0"
HEADER = 128


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


async def whole(client: Client, path: str = f"{MAIN}/volume.npy") -> np.ndarray:
    found: np.ndarray = np.load(io.BytesIO(await client.read(path)))
    return found


def test_every_inode_leads_back_to_its_file_after_a_remount(store: Path) -> None:
    paths = [
        *(
            f"{top}/volume.{ending}"
            for top in (V1, MAIN)
            for ending in ("tif", "nii", "npy", "raw", "raw.json", "nhdr")
        ),
        *(f"{top}/cutout/{name}" for top in (V1, MAIN) for name in ("README.txt", "z1-5.npy", "y3.png", "z2.jpg")),
        f"{V1}/oblique/x0_y0_z0__x40_y0_z0__x0_y40_z0__p4.npy",
        "cells/versions/v1/formats/cells.ome.zarr",
        "cells/versions/v2/labels/nuclei/formats",
    ]
    first: dict[str, int] = {}

    async def note() -> None:
        async with serving(store) as client:
            for path in paths:
                first[path] = await client.ino(path)
            assert len(set(first.values())) == len(paths)

    async def again() -> None:
        async with serving(store) as client:
            for path, ino in first.items():
                attr = await client.tree.lookup(ino, b".")
                assert attr == await client.stat(path), path
                if attr.is_file:
                    opened = await client.tree.open(ino, os.O_RDONLY)
                    assert len(await client.read_fh(opened.fh, attr.size)) == attr.size
                    await client.close(opened.fh)

    run(note)
    run(again)


def test_a_volume_is_as_old_as_its_newest_change(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            before = (await client.stat(f"{V1}/volume.npy")).mtime
            assert (await client.stat("cells/versions/v2/s0/volume.npy")).mtime == before
            assert (await client.stat(f"{MAIN}/volume.npy")).mtime == before
            await client.write(f"{MAIN}/xy/z00003.npy", npy(np.zeros(CELLS.shape[1:], "u1")))
            after = (await client.stat(f"{MAIN}/volume.npy")).mtime
            assert after > before
            assert (await client.stat(f"{MAIN}/cutout/z17-19.npy")).mtime == before
            assert (await client.stat(f"{MAIN}/cutout/z3-5.npy")).mtime == after

    run(work)


def npy(voxels: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, voxels)
    return out.getvalue()


def test_pages_are_kept_only_while_nothing_changed(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            for path in (f"{MAIN}/volume.nii", f"{MAIN}/cutout/z2-5.npy"):
                ino = await client.ino(path)
                await client.close((await client.tree.open(ino, os.O_RDONLY)).fh)
                opened = await client.tree.open(ino, os.O_RDONLY)
                assert opened.keep_cache
                await client.write(f"{MAIN}/xy/z00003.npy", npy(image(CELLS.shape[1:], "uint8", len(path))))
                assert ino in client.kernel.awaited, "an open file was not told of"
                await client.close(opened.fh)
                opened = await client.tree.open(ino, os.O_RDONLY)
                assert not opened.keep_cache
                await client.close(opened.fh)

    run(work)


def test_what_is_written_in_place_is_seen_by_everybody_at_once(store: Path) -> None:
    new = image(CELLS.shape, "uint8", 9)

    async def work() -> None:
        async with serving(store) as client:
            path = f"{MAIN}/volume.npy"
            fh = await client.open(path, os.O_RDWR)
            raw = new.tobytes()
            for offset in range(0, len(raw), 5000):
                await client.call("write", fh, HEADER + offset, raw[offset : offset + 5000])
            # Not closed yet, not flushed.
            np.testing.assert_array_equal(await whole(client, f"{MAIN}/xy/z00007.npy"), new[7])
            np.testing.assert_array_equal(await whole(client), new)
            assert await client.read_fh(fh, (await client.stat(path)).size) == await client.read(path)
            await client.call("write", fh, HEADER, b"\x07")
            await client.order("cells/branches/main/.volfs/commit", "written in place")
            await client.close(fh)
            expected = new.copy()
            expected[0, 0, 0] = 7
            np.testing.assert_array_equal(await whole(client, "cells/versions/v3/s0/volume.npy"), expected)

    run(work)


def test_headers_sizes_and_ends_are_what_they_are(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            path = f"{MAIN}/volume.npy"
            size = (await client.stat(path)).size
            fh = await client.open(path, os.O_RDWR)
            with pytest.raises(BadInput, match="header"):
                await client.call("write", fh, 10, b"nonsense")
            with pytest.raises(BadInput, match="grow"):
                await client.call("write", fh, size - 1, b"ab")
            await client.call("write", fh, 0, (await client.read(path))[:200])
            await client.close(fh)
            with pytest.raises(BadInput, match="size"):
                await client.setattr(path, size=size - 1)
            for harmless in (0, size):
                assert (await client.setattr(path, size=harmless)).size == size
            np.testing.assert_array_equal(await whole(client), CELLS)

    run(work)


def test_who_may_not_write_is_told_why(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            refused: list[tuple[str, type[VolfsError]]] = [
                (f"{V1}/volume.npy", ReadOnly),
                (f"{V1}/cutout/z1-3.npy", ReadOnly),
                ("cells/branches/main/s1/volume.npy", NotAllowed),
                (f"{MAIN}/cutout/README.txt", NotAllowed),
                (f"{MAIN}/oblique/x0_y0_z0__x40_y0_z0__x0_y40_z0__p4.npy", NotAllowed),
            ]
            for path, kind in refused:
                with pytest.raises(kind):
                    await client.open(path, os.O_WRONLY)
            for path in (f"{MAIN}/cutout/new.npy", f"{MAIN}/volume.doc"):
                with pytest.raises(VolfsError):
                    await client.write(path, b"x")

    run(work)


def test_what_fails_to_become_voxels_is_told_to_its_writer(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    async def work() -> None:
        async with serving(store) as client:
            fh = await client.open(f"{MAIN}/volume.npy", os.O_RDWR)
            await client.call("write", fh, HEADER, b"\x01\x02")
            monkeypatch.setattr(Level, "write", full)
            await client.stat(f"{MAIN}/xy/z00000.npy")  # has it become voxels, and is not to blame
            with pytest.raises(OSError, match="no space"):
                await client.call("flush", fh)
            monkeypatch.undo()
            await client.close(fh)
            np.testing.assert_array_equal(await whole(client), CELLS)

    run(work)


@pytest.mark.parametrize("fails", [False, True])
def test_who_reads_while_what_was_written_becomes_voxels_waits_for_it(
    store: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    new = image(CELLS.shape, "uint8", 9)
    began, go, boxes, write = threading.Event(), threading.Event(), [], Level.write

    def slowly(level: Level, box: Any, voxels: np.ndarray) -> None:
        boxes.append(box)
        began.set()
        go.wait(PATIENCE)
        if fails:
            raise OSError(errno.ENOSPC, "no space")
        write(level, box, voxels)

    async def work() -> None:
        async with serving(store) as client:
            path = f"{MAIN}/xy/z00007.npy"
            size = (await client.stat(path)).size
            files = [await client.open(path) for _ in range(2)]
            fh = await client.open(f"{MAIN}/volume.npy", os.O_RDWR)
            await client.call("write", fh, HEADER, new.tobytes())
            monkeypatch.setattr(Level, "write", slowly)
            found: list[bytes] = []

            async def look(file: int) -> None:
                found.append(bytes(await client.call("read", file, 0, size)))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(look, files[0])
                await trio.to_thread.run_sync(began.wait, 20)
                nursery.start_soon(look, files[1])
                await trio.sleep(0.1)
                too_early = len(found)
                go.set()
            assert not too_early
            shown = npy((CELLS if fails else new)[7])
            assert found == [shown, shown] and len(boxes) == 1
            if fails:
                with pytest.raises(OSError, match="no space"):
                    await client.call("flush", fh)
            for file in (*files, fh):
                await client.close(file)

    run(work)


def test_a_reader_who_gives_up_loses_nothing_that_was_written(store: Path) -> None:
    new = image(CELLS.shape, "uint8", 9)

    async def work() -> None:
        async with serving(store, threads=1) as client:
            fh = await client.open(f"{MAIN}/volume.npy", os.O_RDWR)
            await client.call("write", fh, HEADER, new.tobytes())
            threads = client.tree._context.lane("cells").data
            threads.acquire_on_behalf_of_nowait(work)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.stat, f"{MAIN}/xy/z00007.npy")
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
                threads.release_on_behalf_of(work)
            await client.close(fh)
            np.testing.assert_array_equal(await whole(client), new)

    run(work)


@pytest.mark.parametrize("second", ["volume.npy", "volume.nii"])
def test_of_two_open_files_the_later_write_counts_whichever_closes_first(store: Path, second: str) -> None:
    async def work() -> None:
        async with serving(store) as client:
            first = await client.open(f"{MAIN}/volume.npy", os.O_RDWR)
            later = await client.open(f"{MAIN}/{second}", os.O_RDWR)
            start = 352 if second == "volume.nii" else HEADER
            await client.call("write", first, HEADER, b"\1" * 40)
            await client.call("write", later, start, b"\2" * 20)
            await client.close(later)
            await client.close(first)
            got = (await whole(client)).tobytes()
            assert got[:40] == b"\2" * 20 + b"\1" * 20

    run(work)


def test_all_that_is_gathered_stays_within_a_bound(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = image(CELLS.shape, "uint8", 9).tobytes()
    write = Level.write
    for module in ("files.layout_file", "monitoring.statistics"):
        monkeypatch.setattr(f"volfs.tree.{module}.GATHERED_IN_ALL", 40_000)
    written: list[int] = []

    def noting(level: Level, box: Any, voxels: np.ndarray) -> None:
        written.append(voxels.size)
        write(level, box, voxels)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    async def work() -> None:
        async with serving(store) as client:
            for branch in "abc":
                await client.mkdir(f"cells/branches/{branch}")
            paths = [f"cells/branches/{branch}/s0/volume.raw" for branch in ("main", "a", "b", "c")]
            files = [await client.open(path, os.O_RDWR) for path in paths]
            done = [0] * len(files)

            async def more(which: int, size: int) -> None:
                at = done[which]
                await client.call("write", files[which], at, new[at : at + size])
                done[which] += size

            def held() -> tuple[int, int, int]:
                part = statistics(client.tree._context, 0)["memory"]["parts"]["gathered"]
                return part["items"], part["bytes"], part["max_bytes"]

            monkeypatch.setattr(Level, "write", noting)
            for which, size in enumerate((18_000, 12_000, 8_000)):
                await more(which, size)
            assert held() == (3, 38_000, 40_000) and not written
            await more(3, 6_000)
            assert held() == (3, 26_000, 40_000) and sum(written) == 18_000
            # What fails is told to who wrote it.
            monkeypatch.setattr(Level, "write", full)
            await more(3, 16_000)
            assert held() == (2, 20_000, 40_000)
            with pytest.raises(OSError, match="no space"):
                await more(3, 1)
            monkeypatch.setattr(Level, "write", write)
            for which in (0, 1, 2):
                await client.close(files[which])
            await client.close(files[3])
            assert held() == (0, 0, 40_000)
            for path, expected in zip(paths[:3], done[:3], strict=True):
                assert (await client.read(path))[:expected] == new[:expected]

    run(work)


def test_many_writers_at_once_wait_for_no_one_for_ever(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = image(CELLS.shape, "uint8", 9).tobytes()
    monkeypatch.setattr("volfs.tree.files.layout_file.GATHERED_IN_ALL", 20_000)
    most = 0

    async def work() -> None:
        async with serving(store) as client:
            paths = ["cells/branches/main/s0/volume.raw"]
            for name in "abcd":
                await client.mkdir(f"cells/branches/{name}")
                paths.append(f"cells/branches/{name}/s0/volume.raw")

            async def write(path: str) -> None:
                nonlocal most
                fh = await client.open(path, os.O_RDWR)
                for at in range(0, len(new), 4_000):
                    await client.call("write", fh, at, new[at : at + 4_000])
                    most = max(most, sum(each.gathered for each in client.tree._context.buffers))
                await client.close(fh)

            async with trio.open_nursery() as nursery:
                for path in paths:
                    nursery.start_soon(write, path)
            for path in paths:
                assert await client.read(path) == new
        assert 0 < most <= 20_000 + 4_000 * len(paths)

    run(work)


def test_names_that_mean_nothing_are_absent(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            for name in ("z1-999.npy", "z5-2.npy", "q.npy", "z1.npy.gz", "..", "z1"):
                assert not await client.exists(f"{V1}/cutout/{name}") or name == ".."
            assert not await client.exists(f"{V1}/oblique/x0.png")
            assert not await client.exists(f"{V1}/volume.imagej.tif")
            with pytest.raises(NotFound):
                await client.stat(f"{V1}/t0000/volume.npy")

    run(work)


def test_other_axes_have_volumes_of_their_own(tmp_path: Path) -> None:
    movie = image((3, 2, 5, 30, 41), "uint16")
    with volfs.init_store(tmp_path / "store") as store:
        add(store, "movie", "", movie, "tczyx", chunks=(1, 1, *CHUNKS), levels=1)

    async def work() -> None:
        async with serving(tmp_path / "store") as client:
            top = "movie/versions/v1/s0"
            np.testing.assert_array_equal(await whole(client, f"{top}/volume.npy"), movie)
            np.testing.assert_array_equal(await whole(client, f"{top}/t0002/volume.npy"), movie[2])
            np.testing.assert_array_equal(await whole(client, f"{top}/t0002/c01/volume.npy"), movie[2, 1])
            np.testing.assert_array_equal(await whole(client, f"{top}/cutout/t1_c0-1_z2-4.npy"), movie[1, 0:1, 2:4])
            assert "volume.mrc" in await client.ls(f"{top}/t0002/c01")
            times = {name: attr.mtime for name, attr in (await client.ls("movie/branches/main/s0")).items()}
            await client.write("movie/branches/main/s0/t0001/c00/xy/z00002.npy", npy(movie[0, 0, 0]))
            changed = {name: attr.mtime for name, attr in (await client.ls("movie/branches/main/s0")).items()}
            assert changed["volume.npy"] > times["volume.npy"]
            same = (await client.stat("movie/branches/main/s0/t0002/volume.npy")).mtime
            assert same == times["volume.npy"]

    run(work)
