"""``zarr/`` and ``files/`` of a branch through the tree: what any program may do, and what follows from it."""

from __future__ import annotations

import errno
import gc
import json
import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trio
import trio.lowlevel
import trio.testing
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import volfs
from tests.kits.cells import CELLS, make_store
from tests.kits.example_counts import examples
from tests.kits.slices import PLANE, picture, png
from tests.kits.trees import Client, run, serving
from volfs.errors import AlreadyThere, BadInput, Damaged, Held, NotAllowed, NotFound, VolfsError, WrongKind
from volfs.model.metadata import array_zarr_json, parse_node
from volfs.storage.codec import ChunkCodec
from volfs.testing.waiting import PATIENCE
from volfs.tree.contract.api import RENAME_EXCHANGE, RENAME_NOREPLACE, NoNotifier, TreeOptions
from volfs.tree.contract.attrs import SetAttr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.inodes import Inodes
from volfs.tree.core.open_files import Handle
from volfs.tree.images.image_index import Walk
from volfs.tree.monitoring.statistics import statistics
from volfs.versions.working.open_files import WorkingFile
from volfs.versions.working.union import Union
from volfs.versions.working.working_copy import WorkingCopy

MAIN = "cells/branches/main"
XY = f"{MAIN}/s0/xy"
CHUNK = f"{MAIN}/zarr/s0/c/0/0/0"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


def encoded(raw: bytes, value: int) -> bytes:
    meta = parse_node(raw)
    return ChunkCodec.of(meta).encode(np.full(meta.chunk_shape, value, meta.dtype))  # type: ignore[union-attr, arg-type]


def test_files_are_made_written_anywhere_renamed_linked_cut_and_removed(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            top = f"{MAIN}/files"
            await client.mkdir(f"{top}/notes")
            fh = await client.open_to_write(f"{top}/notes/a", os.O_RDWR | os.O_CREAT | os.O_EXCL)
            await client.call("write", fh, 10, b"later")
            await client.call("write", fh, 0, b"first")
            assert bytes(await client.call("read", fh, 0, 100)) == b"first" + b"\0" * 5 + b"later"
            await client.call("setattr", await client.ino(f"{top}/notes/a"), SetAttr(size=5), fh)
            assert (await client.stat(f"{top}/notes/a")).size == 5
            await client.call("fsync", fh, False)
            await client.close(fh)
            ino = await client.ino(f"{top}/notes/a")
            with pytest.raises(AlreadyThere):
                await client.call("create", await client.ino(f"{top}/notes"), b"a", 0o644, os.O_CREAT | os.O_EXCL)
            await client.rename(f"{top}/notes/a", f"{top}/b")
            assert await client.ino(f"{top}/b") == ino and not await client.exists(f"{top}/notes/a")
            assert (await client.link(f"{top}/b", f"{top}/c")).ino == ino
            assert (await client.stat(f"{top}/b")).nlink == 2
            await client.unlink(f"{top}/b")
            assert (await client.stat(f"{top}/c")).ino == ino and (await client.stat(f"{top}/c")).nlink == 1
            assert await client.read(f"{top}/c") == b"first"
            await client.setattr(f"{top}/c", size=2, mtime_ns=10**18, mode=0o640, uid=7)
            attr = await client.stat(f"{top}/c")
            assert (attr.size, attr.mtime, attr.mode & 0o777, attr.uid) == (2, 10**18, 0o640, os.getuid())
            with pytest.raises(WrongKind) as refused:
                await client.unlink(f"{top}/notes")
            assert refused.value.errno == errno.EISDIR
            await client.write(f"{top}/notes/x", b"x")
            with pytest.raises(WrongKind) as refused:
                await client.rmdir(f"{top}/notes")
            assert refused.value.errno == errno.ENOTEMPTY
            await client.unlink(f"{top}/notes/x")
            await client.rmdir(f"{top}/notes")
            assert set(await client.ls(top)) == {"c"}

    run(work)


def test_renames_and_links_have_the_errors_of_a_filesystem(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            top = f"{MAIN}/files"
            await client.write(f"{top}/a", b"a")
            await client.write(f"{top}/b", b"b")
            with pytest.raises(AlreadyThere):
                await client.rename(f"{top}/a", f"{top}/b", RENAME_NOREPLACE)
            inos = [await client.ino(f"{top}/{name}") for name in "ab"]
            await client.rename(f"{top}/a", f"{top}/b", RENAME_EXCHANGE)
            assert [await client.ino(f"{top}/{name}") for name in "ba"] == inos
            assert await client.read(f"{top}/a") == b"b"
            await client.rename(f"{top}/a", f"{top}/b", RENAME_EXCHANGE)
            with pytest.raises(NotAllowed) as refused:
                await client.rename(f"{MAIN}/zarr/s0", f"{MAIN}/zarr/moved")
            assert refused.value.errno == errno.EXDEV
            for far in (f"{XY}/z00001.png", "cells/versions/v1/files/a", f"{MAIN}/.volfs/commit"):
                with pytest.raises(VolfsError):
                    await client.rename(f"{top}/a", far)
            with pytest.raises(NotAllowed) as refused:
                await client.link(f"{XY}/z00001.png", f"{top}/slice")
            assert refused.value.errno == errno.EXDEV
            with pytest.raises(NotAllowed):
                await client.symlink(f"{MAIN}/zarr/link", "a")
            with pytest.raises(NotFound):
                await client.rename(f"{top}/absent", f"{top}/b")
            old = await client.ino(f"{top}/b")
            fh = await client.open(f"{top}/b")
            await client.rename(f"{top}/a", f"{top}/b")
            assert await client.read(f"{top}/b") == b"a"
            # Who had the replaced file open keeps it.
            assert bytes(await client.call("read", fh, 0, 10)) == b"b"
            assert (await client.tree.getattr(old)).nlink == 0
            await client.close(fh)
            with pytest.raises(NotFound):
                await client.tree.getattr(old)

    run(work)


def test_an_unlinked_file_lives_while_it_is_open(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            path = f"{MAIN}/files/gone"
            await client.write(path, b"still here")
            ino, fh = await client.ino(path), await client.open(path, os.O_RDWR)
            await client.unlink(path)
            assert not await client.exists(path)
            await client.call("write", fh, 0, b"STILL")
            assert bytes(await client.call("read", fh, 0, 100)) == b"STILL here"
            assert (await client.tree.getattr(ino)).size == 10
            assert (await client.call("setattr", ino, SetAttr(size=3), fh)).size == 3
            await client.write(path, b"another")
            assert await client.ino(path) != ino
            assert bytes(await client.call("read", fh, 0, 100)) == b"STI"
            await client.close(fh)
            assert await client.read(path) == b"another"

    run(work)


def test_a_chunk_file_that_is_put_is_voxels_at_once_and_open_slices_are_told(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            raw = await client.read(f"{MAIN}/zarr/s0/zarr.json")
            held = await client.open(f"{XY}/z00003.png")
            far = await client.open(f"{XY}/z00017.png")
            client.kernel.forget_all()
            await client.write(f"{MAIN}/zarr/s0/c/0/0/0.tmp.partial", encoded(raw, 77))
            await client.rename(f"{MAIN}/zarr/s0/c/0/0/0.tmp.partial", CHUNK)
            assert await client.ino(f"{XY}/z00003.png") in client.kernel.awaited
            assert await client.ino(f"{XY}/z00017.png") not in client.kernel.awaited
            expected = CELLS[3].copy()
            expected[:16, :16] = 77
            assert (picture(await client.read(f"{XY}/z00003.png")) == expected).all()
            assert (picture(await client.read_fh(held, 10**6)) == expected).all()
            await client.write(CHUNK, encoded(raw, 78))
            expected[:16, :16] = 78
            assert (picture(await client.read(f"{XY}/z00003.png")) == expected).all()
            await client.unlink(CHUNK)
            expected[:16, :16] = 0
            assert (picture(await client.read(f"{XY}/z00003.png")) == expected).all()
            assert (picture(await client.read("cells/versions/v2/s0/xy/z00003.png")) == CELLS[3]).all()
            for fh in (held, far):
                await client.close(fh)

    run(work)


def test_an_open_chunk_file_lets_go_of_what_it_was_before_it_was_put_anew(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go, pread = threading.Event(), threading.Event(), WorkingFile.pread

    def slowly(file: WorkingFile, size: int, offset: int) -> bytes:
        began.set()
        go.wait(PATIENCE)
        return pread(file, size, offset)

    def descriptors() -> int:
        """Of files; SQLite opens its own when another thread first writes inodes."""
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return sum("catalog.sqlite" not in os.readlink(link) for link in links if os.path.islink(link))

    async def work() -> None:
        async with serving(store) as client:
            await client.write(f"{XY}/z00000.png", png(PLANE))
            fh = await client.open(CHUNK)
            before, opened = await client.read_fh(fh, 10**6), descriptors()
            for value in range(20):
                await client.write(f"{XY}/z00001.png", png(np.full_like(PLANE, value)))
            assert descriptors() <= opened + 1
            assert await client.read_fh(fh, 10**6) == await client.read(CHUNK) != before

            # A read that is under way goes on with the file that it began with.
            before, found = await client.read(CHUNK), []
            monkeypatch.setattr("volfs.tree.files.key_handle.read_resident", lambda *_: None)
            monkeypatch.setattr(WorkingFile, "pread", slowly)

            async def look() -> None:
                found.append(await client.call("read", fh, 0, 10**6))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                await trio.to_thread.run_sync(began.wait, 20)
                for value in range(30, 33):
                    await client.write(f"{XY}/z00001.png", png(np.full_like(PLANE, value)))
                go.set()
            assert found == [before]
            monkeypatch.undo()
            await client.write(f"{XY}/z00001.png", png(PLANE))
            assert descriptors() <= opened + 1
            assert await client.read_fh(fh, 10**6) == await client.read(CHUNK) != before
            await client.close(fh)
            assert descriptors() < opened + 1

    run(work)


def test_a_key_is_closed_while_a_thread_looks_at_what_it_has_now(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looking, free = threading.Event(), []

    def open_slowly(working: WorkingCopy, key: str, flags: int) -> WorkingFile:
        looking.set()
        time.sleep(0.2)
        if working._mutex.acquire(timeout=PATIENCE):
            working._mutex.release()
            free.append(key)
        raise NotFound(key)

    async def work() -> None:
        async with serving(store) as client:
            fh = await client.open(CHUNK)
            handle = client.tree._context.files.get(fh)
            monkeypatch.setattr(WorkingCopy, "open", open_slowly)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.write, f"{XY}/z00001.png", png(PLANE))
                await trio.to_thread.run_sync(looking.wait, 20)
                await client.close(fh)
            assert free
            assert handle.stamp() is None  # closed

    run(work)


def test_an_array_that_comes_while_somebody_looks_for_arrays_is_found(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            raw = array_zarr_json((8, 8, 8), np.dtype("u1"), (4, 4, 4))
            await client.mkdir(f"{MAIN}/zarr/one")
            await client.write(f"{MAIN}/zarr/one/zarr.json", raw)
            (mounted,) = client.tree._branches
            assert mounted.held, "so nothing but what it is told of makes it look again"
            images = mounted.images
            look_around = images._look_around

            def passed_already() -> Walk:
                walk = look_around()
                mounted.branch.put("zarr/two/zarr.json", raw)
                images.forget()
                images._look_around = look_around  # type: ignore[method-assign]
                return walk

            images._look_around = passed_already  # type: ignore[method-assign]
            images.forget()
            await client.exists(f"{MAIN}/one")
            assert await client.exists(f"{MAIN}/two")
            assert {"one", "two"} <= set(await client.ls(MAIN))

    run(work)


def test_a_chunk_file_that_does_not_decode_is_held(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            await client.write(CHUNK, b"nonsense")
            assert await client.read(CHUNK) == b"nonsense"
            with pytest.raises((Damaged, Held)):
                await client.read(f"{XY}/z00003.png")
            assert (picture(await client.read(f"{XY}/z00017.png")) == CELLS[17]).all()
            status = json.loads(await client.read(f"{MAIN}/.volfs/status.json"))
            assert [held["key"] for held in status["held"]] == ["zarr/s0/c/0/0/0"]
            with pytest.raises(Held, match="zarr/s0/c/0/0/0"):
                await client.order(f"{MAIN}/.volfs/commit", "no")
            await client.order(f"{MAIN}/.volfs/discard", "zarr/s0/c/0/0/0")
            assert (picture(await client.read(f"{XY}/z00003.png")) == CELLS[3]).all()

    run(work)


def test_levels_that_follow_agree_with_s0_under_zarr_too(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            before = await client.read(f"{MAIN}/zarr/s1/c/0/0/0")
            fh = await client.open(f"{MAIN}/zarr/s1/c/0/0/0")
            await client.write(f"{XY}/z00003.png", png(PLANE))
            path = f"{MAIN}/zarr/s1/c/0/0/0"
            after = await client.read(path)
            assert after != before
            assert (await client.ls(f"{MAIN}/zarr/s1/c/0/0"))["0"] == await client.stat(path)
            raw = await client.read(f"{MAIN}/zarr/s1/zarr.json")
            voxels = ChunkCodec.of(parse_node(raw)).decode(after)  # type: ignore[arg-type]
            shown = picture(await client.read(f"{MAIN}/s1/xy/z00001.png"))
            assert (voxels[1, :16, :16] == shown[:16, :16]).all()
            for change in (client.write(path, after), client.rename(f"{MAIN}/zarr/s1/zarr.json", path)):
                with pytest.raises(NotAllowed) as refused:
                    await change
                assert refused.value.errno == errno.EPERM
            with pytest.raises(NotAllowed):
                await client.open(path, os.O_RDWR)
            await client.close(fh)
            await client.order(f"{MAIN}/.volfs/commit", "with its levels")
            assert await client.read(path) == after
            assert await client.read("cells/versions/v3/zarr/s1/c/0/0/0") == after

    run(work)


def test_a_whole_image_can_be_removed_and_copied_in(store: Path) -> None:
    async def remove(client: Client, path: str) -> None:
        """rm -r: lists a directory once, then removes what it saw."""
        for name, attr in (await client.ls(path)).items():
            if attr.is_dir:
                await remove(client, f"{path}/{name}")
            else:
                await client.unlink(f"{path}/{name}")
        await client.rmdir(path)

    async def copy(client: Client, source: str, target: str) -> None:
        await client.mkdir(target)
        for name, attr in (await client.ls(source)).items():
            if attr.is_dir:
                await copy(client, f"{source}/{name}", f"{target}/{name}")
            else:
                await client.write(f"{target}/{name}", await client.read(f"{source}/{name}"))

    async def work() -> None:
        async with serving(store) as client:
            await remove(client, f"{MAIN}/zarr/labels")
            assert not await client.exists(f"{MAIN}/labels")
            await copy(client, "cells/versions/v2/zarr", f"{MAIN}/zarr/copied")
            assert set(await client.ls(f"{MAIN}/copied")) == {"s0", "s1", "labels", "formats", "thumbnail.png"}
            assert (picture(await client.read(f"{MAIN}/copied/s0/xy/z00012.png")) == CELLS[12]).all()
            await client.order(f"{MAIN}/.volfs/commit", "moved about")
            latest = await client.readlink("cells/versions/latest")
            assert set(await client.ls(f"cells/versions/{latest}")) >= {"s0", "s1", "copied"}
            assert "labels" not in await client.ls(f"cells/versions/{latest}")

    run(work)


def test_an_array_that_still_has_a_writer_is_left_behind_by_a_commit(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            raw = array_zarr_json((8, 8, 8), np.dtype("u1"), (4, 4, 4))
            await client.mkdir(f"{MAIN}/zarr/rec")
            await client.write(f"{MAIN}/zarr/rec/zarr.json", raw)
            fh = await client.open_to_write(f"{MAIN}/zarr/rec/part")
            await client.call("write", fh, 0, b"...")
            for folder in ("c", "c/0", "c/0/0"):
                await client.mkdir(f"{MAIN}/zarr/rec/{folder}")
            chunk = await client.open_to_write(f"{MAIN}/zarr/rec/c/0/0/0")
            await client.call("write", chunk, 0, b"half a chu")
            await client.write(f"{MAIN}/files/notes", b"done")
            await client.order(f"{MAIN}/.volfs/commit", "notes only")
            assert await client.exists("cells/versions/v3/files/notes")
            assert not await client.exists("cells/versions/v3/zarr/rec")
            status = json.loads(await client.read(f"{MAIN}/.volfs/status.json"))
            assert status["left_behind"]
            await client.call("write", chunk, 0, encoded(raw, 5))
            await client.close(chunk)
            await client.close(fh)
            await client.unlink(f"{MAIN}/zarr/rec/part")
            await client.order(f"{MAIN}/.volfs/commit", "and the recording")
            data = await client.read("cells/versions/v4/rec/xy/z00001.png")
            assert (picture(data)[:4, :4] == 5).all()

    run(work)


def test_open_files_go_on_through_a_commit(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            await client.write(f"{MAIN}/files/notes", b"one two")
            reading = await client.open(f"{MAIN}/files/notes")
            await client.order(f"{MAIN}/.volfs/commit", "notes")
            assert bytes(await client.call("read", reading, 0, 100)) == b"one two"
            ino = await client.ino(f"{MAIN}/files/notes")
            await client.write(f"{MAIN}/files/notes", b"three")
            assert await client.ino(f"{MAIN}/files/notes") == ino
            assert bytes(await client.call("read", reading, 0, 100)) == b"three"
            assert await client.read("cells/versions/v3/files/notes") == b"one two"
            await client.close(reading)

    run(work)


def test_who_opens_a_key_during_a_long_change_of_its_branch_holds_up_nobody_else(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copying, done = threading.Event(), threading.Event()
    waited: list[bool] = []
    pieces = Union.pieces

    def slow(*args: Any) -> Iterator[bytes]:
        copying.set()
        waited.append(done.wait(PATIENCE))
        yield from pieces(*args)

    async def work() -> None:
        async with serving(store) as client:
            await client.write(f"{MAIN}/files/large", b"large")
            await client.write(f"{MAIN}/files/small", b"small")
            await client.order(f"{MAIN}/.volfs/commit", "files")
            await client.write(f"{XY}/z00003.png", png(PLANE))  # s1 is computed from now on
            read: list[bytes] = []

            async def reader() -> None:
                read.append(await client.read(f"{MAIN}/files/small"))

            monkeypatch.setattr(Union, "pieces", slow)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.open, f"{MAIN}/files/large", os.O_RDWR)
                await trio.to_thread.run_sync(copying.wait)
                for _ in range(6):
                    nursery.start_soon(reader)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert not read, "the change keeps others from opening, to be seen by it or to come after it"
                assert await client.exists(f"{MAIN}/zarr/s1/c/0/0/0")
                assert await client.ls("cells/versions/v2/files") == {}
                assert json.loads(await client.read(f"{MAIN}/.volfs/status.json"))["branch"] == "main"
                done.set()
            assert waited == [True], "all was answered before the change was done"
            assert read == [b"small"] * 6

    run(work)


def test_listing_goes_on_while_names_come_and_go(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            top = f"{MAIN}/files"
            for index in range(40):
                await client.write(f"{top}/n{index}", b"")
            ino, seen, cookie = await client.ino(top), set(), 0
            while True:
                batch = []
                for entry in await client.tree.readdir(ino, cookie):
                    batch.append(entry)
                    if len(batch) == 5:
                        break
                if not batch:
                    break
                for entry in batch:
                    seen.add(entry.name)
                    if entry.name != b"n7":
                        await client.call("unlink", ino, entry.name)
                cookie = batch[-1].cookie
            assert len(seen) == 40
            assert set(await client.ls(top)) == {"n7"}

    run(work)


def test_listings_of_all_branches_have_one_bound_and_are_counted(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            await client.mkdir("cells/branches/other")
            folders = [f"cells/branches/{branch}/files/d" for branch in ("main", "other")]
            for folder in folders:
                await client.mkdir(folder)
                for index in range(30):
                    await client.write(f"{folder}/n{index}", b"")
            context, put = client.tree._context, client.tree._context.listings.put
            puts = 0

            def counted(*args: Any) -> None:
                nonlocal puts
                puts += 1
                put(*args)

            context.listings.put = counted  # type: ignore[method-assign]
            # One that is longer than the bound is there for as long as somebody reads it.
            for limit, expected in ((20, 0), (50, 30), (70, 60)):
                context.listings.limit, puts = limit * 210, 0
                for folder in folders:
                    assert len(await client.ls(folder)) == 30
                assert puts <= 2
                assert statistics(context, 0)["memory"]["parts"]["listings"]["bytes"] == expected * 210

    run(work)


def test_a_listing_of_a_branch_keeps_little_of_each_name(store: Path) -> None:
    def fill() -> None:
        (below,) = (place for place in store.rglob("files/many") if place.is_dir())
        for index in range(count):
            (below / f"name{index:08}.swc").touch()

    folder, count = f"{MAIN}/files/many", 3000

    async def work() -> None:
        async with serving(store) as client:
            await client.mkdir(folder)
            fill()
            ino = await client.ino(folder)
            tracemalloc.start()
            try:
                await client.tree.readdir(ino, 0)
                gc.collect()
                assert tracemalloc.get_traced_memory()[0] < 200 * count
            finally:
                tracemalloc.stop()
            listed = await client.ls(folder, batch=500)
            assert len(listed) == count
            for name in list(listed)[:50]:
                assert listed[name] == await client.stat(f"{folder}/{name}")

    run(work)


def test_directories_keep_their_inodes_through_renames(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            await client.mkdir(f"{MAIN}/files/old")
            await client.write(f"{MAIN}/files/old/inside", b"x")
            inos = [await client.ino(f"{MAIN}/files/old{rest}") for rest in ("", "/inside")]
            await client.rename(f"{MAIN}/files/old", f"{MAIN}/files/new")
            assert inos == [await client.ino(f"{MAIN}/files/new{rest}") for rest in ("", "/inside")]
            assert (await client.tree.lookup(inos[1], b"..")).ino == inos[0]
            assert await client.read(f"{MAIN}/files/new/inside") == b"x"
            assert not await client.exists(f"{MAIN}/files/old")
        async with serving(store) as client:
            assert inos == [await client.ino(f"{MAIN}/files/new{rest}") for rest in ("", "/inside")]
            assert (await client.tree.lookup(inos[1], b".")).size == 1

    run(work)


def test_names_that_no_key_can_have_are_refused_clearly(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            top = await client.ino(f"{MAIN}/zarr")
            with pytest.raises(OSError) as refused:
                await client.call("create", top, b"x" * 256, 0o644, os.O_CREAT)
            assert refused.value.errno == errno.ENAMETOOLONG
            with pytest.raises(BadInput):
                await client.call("create", top, b"\xff\xfe", 0o644, os.O_CREAT)
            files = await client.ino(f"{MAIN}/files")
            opened, attr = await client.call("create", files, b"\xff\xfe", 0o644, os.O_CREAT | os.O_WRONLY)
            await client.close(opened.fh)
            assert (await client.tree.lookup(files, b"\xff\xfe")).ino == attr.ino

    run(work)


_NAMES = st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a"])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), _NAMES, st.binary(max_size=40)),
        st.tuples(st.just("append"), _NAMES, st.binary(min_size=1, max_size=20)),
        st.tuples(st.just("mkdir"), _NAMES),
        st.tuples(st.just("rmdir"), _NAMES),
        st.tuples(st.just("unlink"), _NAMES),
        st.tuples(st.just("rename"), _NAMES, _NAMES),
        st.tuples(st.just("link"), _NAMES, _NAMES),
        st.tuples(st.just("commit")),
    ),
    max_size=25,
)


def _plain(step: tuple[Any, ...], root: Path) -> None:
    kind, *rest = step
    paths = [root / part for part in rest if isinstance(part, str)]
    if kind == "write":
        paths[0].write_bytes(rest[1])
    elif kind == "append":
        with paths[0].open("ab") as file:
            file.write(rest[1])
    elif kind in ("mkdir", "rmdir", "unlink"):
        getattr(paths[0], kind)()
    elif kind == "rename":
        paths[0].rename(paths[1])
    elif kind == "link":
        os.link(paths[0], paths[1])


@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=_STEPS)
def test_any_sequence_of_operations_equals_a_plain_directory(tmp_path_factory: Any, steps: list[Any]) -> None:
    """Every errno too, except that directories of the head version do not move in one step (EXDEV)."""
    base = tmp_path_factory.mktemp("plain")
    root = base / "files"
    root.mkdir()
    with volfs.init_store(base / "store") as made:
        made.create_dataset("cells")

    async def work() -> None:
        async with serving(base / "store") as client:
            top = f"{MAIN}/files"
            committed = 0
            for step in steps:
                kind, *rest = step
                if kind == "commit":
                    try:
                        await client.order(f"{MAIN}/.volfs/commit", f"number {committed}")
                        committed += 1
                    except VolfsError:
                        pass
                    continue
                args = [f"{top}/{part}" if isinstance(part, str) else part for part in rest]
                outcome = expected = None
                try:
                    await getattr(client, kind)(*args)
                except (VolfsError, OSError) as error:
                    outcome = error.errno
                if outcome == errno.EXDEV:
                    continue
                try:
                    _plain(step, root)
                except OSError as error:
                    expected = error.errno
                assert (outcome is None) == (expected is None), (step, outcome, expected)
            there = {str(path.relative_to(root)): path for path in sorted(root.rglob("*"))}
            shown: dict[str, bool] = {}

            async def look(path: str, rel: str) -> None:
                for name, attr in (await client.ls(path)).items():
                    below = f"{rel}{name}"
                    shown[below] = attr.is_dir
                    if attr.is_dir:
                        await look(f"{path}/{name}", f"{below}/")
                    else:
                        assert await client.read(f"{path}/{name}") == there[below].read_bytes()

            await look(top, "")
            # A commit keeps no empty directories.
            files = {name for name, path in there.items() if path.is_file()}
            assert {name for name, folder in shown.items() if not folder} == files
            if not committed:
                assert set(shown) == set(there)

    run(work)


def test_zarr_python_writes_through_the_tree_what_it_reads_back(store: Path) -> None:
    """The calls of LocalStore: a temporary name, then a rename; link and unlink for what must be new."""

    async def work() -> None:
        async with serving(store) as client:
            raw = array_zarr_json((8, 8), np.dtype("<u2"), (4, 4))
            top = f"{MAIN}/zarr/new"
            await client.mkdir(top)
            await client.write(f"{top}/zarr.123.partial", raw)
            await client.link(f"{top}/zarr.123.partial", f"{top}/zarr.json")
            await client.unlink(f"{top}/zarr.123.partial")
            assert await client.read(f"{top}/zarr.json") == raw
            await client.mkdir(f"{top}/c")
            await client.mkdir(f"{top}/c/1")
            await client.write(f"{top}/c/1/0.partial", encoded(raw, 513))
            ino = await client.ino(f"{top}/c/1/0.partial")
            mtime = (await client.stat(f"{top}/c/1/0.partial")).mtime
            await client.rename(f"{top}/c/1/0.partial", f"{top}/c/1/0")
            attr = await client.stat(f"{top}/c/1/0")
            assert (attr.ino, attr.mtime) == (ino, mtime)
            assert (picture(await client.read(f"{MAIN}/new/xy/z00000.png"))[4:, :4] == 513).all()
            await trio.lowlevel.checkpoint()

    run(work)
    with volfs.open_store(store) as opened:
        array = zarr.open_array(opened["cells"].branch("main").zarr_store(), path="new", mode="r")
        assert (np.asarray(array[4:, :4]) == 513).all() and (np.asarray(array[:4]) == 0).all()


def test_a_released_file_that_cannot_be_closed_is_told_in_the_log_and_holds_up_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Handle):
        def close_soon(self) -> None:
            raise OSError("no")

    class Closed(Handle):
        def close_soon(self) -> None:
            closed.append(self.ino)

    closed: list[int] = []
    with volfs.init_store(tmp_path / "store") as opened:
        context = TreeContext(opened, TreeOptions(0, 0), NoNotifier(), Inodes.of(opened))
        handles = [context.files.add(handle, keep_cache=False).fh for handle in (Broken(1), Closed(2))]
        context.inodes.orphans[1] = context.files.get(handles[0])
        context.lender = SimpleNamespace(unclosed=3, released=lambda: [*handles, 77])  # type: ignore[assignment]
        context.catch_up()
        assert closed == [2] and len(context.files) == 0 and not context.inodes.orphans
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        context.close()


def test_a_file_without_a_name_is_seen_by_its_openers_whatever_the_kernel_forgets(store: Path) -> None:
    """What the kernel has forgotten it says late: by then the inode may have been looked up and opened anew."""

    async def work() -> None:
        async with serving(store) as client:
            path = f"{MAIN}/files/shared"
            await client.write(path, b"both")
            ino = await client.ino(path)
            handles = [await client.open_to_write(path, os.O_RDWR) for _ in range(2)]
            await client.unlink(path)
            await client.tree.forget([(ino, 1)])
            for handle in handles:
                attr = await client.tree.getattr(ino)
                assert (attr.size, attr.nlink) == (4, 0)
                await client.call("release", handle)
            with pytest.raises(VolfsError):
                await client.tree.getattr(ino)

    run(work)
