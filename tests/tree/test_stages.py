"""What lies staged when a daemon ends, or cannot be stored: it is decided once, and never goes over something newer.

A daemon is "killed" by copying its store while it runs: what the copy holds is what a kill would leave.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import volfs
from tests.kits.cells import CELLS, make_store
from tests.kits.trees import Client, run, serving
from volfs.errors import Held, NoSpace, VolfsError
from volfs.model.box import Box
from volfs.storage.stage_record import HEADER, StageRecord, read_record
from volfs.testing.waiting import PATIENCE, until_async
from volfs.tree.branches.mounted_branch import MountedBranch
from volfs.tree.branches.targets import SliceTarget
from volfs.volume.image import image_at
from volfs.volume.level import Level

MAIN = "cells/branches/main"
STAGED = "datasets/cells/working/main/staged"

PLANES = {"xy": (0, "z"), "xz": (1, "y"), "yz": (2, "x")}
ENDINGS = (".png", ".tif", ".npy")
PARTS = ("nothing", "half", "all")
NEW = np.random.default_rng(5).integers(0, 256, CELLS.shape, "u1")


def encode(picture: np.ndarray, ending: str) -> bytes:
    out = io.BytesIO()
    if ending == ".png":
        Image.fromarray(picture).save(out, "PNG")
    elif ending == ".tif":
        tifffile.imwrite(out, picture)
    else:
        np.save(out, picture)
    return out.getvalue()


async def voxels(client: Client) -> np.ndarray:
    return np.load(io.BytesIO(await client.read(f"{MAIN}/s0/volume.npy")))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("made") / "store")


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


def killed(store: Path, name: str = "killed") -> Path:
    """The store as a kill of its daemon would leave it now."""
    return Path(shutil.copytree(store, store.with_name(name)))


async def leave(store: Path, path: str, data: bytes, also: Callable[[Client], Awaitable[Any]] | None = None) -> Path:
    """Have a daemon killed that has just got ``data`` for a file, but no close of it."""
    async with serving(store) as client:
        fh = await client.open_to_write(path)
        if data:
            await client.call("write", fh, 0, data)
        if also is not None:
            await also(client)
        return killed(store)


def cut(data: bytes, part: str) -> bytes:
    return data[: {"nothing": 0, "half": len(data) // 2, "all": len(data)}[part]]


def test_what_a_killed_daemon_left_of_slices_is_decided_and_they_can_be_written_anew(store: Path) -> None:
    """All planes and endings: what was whole is voxels, in the order in which it was begun, though all cross."""

    async def work() -> None:
        expected, files = CELLS.copy(), {}
        async with serving(store) as client:
            for index, (plane, ending, part) in enumerate(product(PLANES, ENDINGS, PARTS)):
                axis, letter = PLANES[plane]
                at = (slice(None),) * axis + (index % 18,)
                name = f"s0/{plane}/{letter}{index % 18:05}{ending}"
                files[name] = at, part
                fh = await client.open_to_write(f"{MAIN}/{name}")
                await client.call("write", fh, 0, cut(encode(NEW[at], ending), part))
                if part == "all":
                    expected[at] = NEW[at]
            left = killed(store)
        async with serving(left) as client:
            await until_async(lambda: nothing_staged(client))
            assert (await voxels(client) == expected).all()
            rejected = {each["path"] for each in await client.rejected()}
            assert rejected == {name for name, (_, part) in files.items() if part == "half"}
            for value, (name, (at, _)) in enumerate(files.items()):
                expected[at] = value
                await client.write(f"{MAIN}/{name}", encode(expected[at], name[-4:]))
                assert ((await voxels(client))[at] == value).all(), name
            await client.order(f"{MAIN}/.volfs/commit", "all of it")
            committed = np.load(io.BytesIO(await client.read("cells/versions/v3/s0/volume.npy")))
            assert (committed == expected).all()

    run(work)


async def nothing_staged(client: Client) -> bool:
    return not (await client.status())["staged"]


async def put_volume(client: Client, volume: np.ndarray, file: str = "s0/volume.npy") -> None:
    """As numpy does with a memory map: in place, behind the header."""
    path = f"{MAIN}/{file}"
    size = (await client.stat(path)).size
    fh = await client.open(path, os.O_RDWR)
    await client.call("write", fh, size - volume.nbytes, volume.tobytes())
    await client.close(fh)


CHUNK_FILES = {
    "cells.n5/setup0/timepoint0/s0/{x}/{y}/{z}": 201,
    "cells.v2.zarr/s0/{z}/{y}/{x}": 202,
    "cells.precomputed/4_4_4/{x0}-{x1}_{y0}-{y1}_0-16": 203,
}


def test_what_a_killed_daemon_left_of_chunks_of_other_formats_can_be_written_anew(store: Path) -> None:
    async def work() -> None:
        files: dict[str, tuple[Any, bytes, str, int]] = {}
        expected = CELLS.copy()
        async with serving(store) as client:
            for y, (form, value) in enumerate(CHUNK_FILES.items()):
                await put_volume(client, np.full_like(CELLS, value))
                for x, part in enumerate(PARTS):
                    ends = {"x0": 16 * x, "x1": 16 * x + 16, "y0": 16 * y, "y1": min(16 * y + 16, 40)}
                    name = f"{MAIN}/formats/{form.format(x=x, y=y, z=0, **ends)}"
                    at = np.s_[:16, ends["y0"] : ends["y1"], ends["x0"] : ends["x1"]]
                    files[name] = at, await client.read(name), part, value
                    if part == "all":
                        expected[at] = value
            await client.order(f"{MAIN}/.volfs/discard", "all")  # a chunk file that is copied has changed
            for name, (_, whole, part, _) in files.items():
                fh = await client.open_to_write(name)
                await client.call("write", fh, 0, cut(whole, part))
            left = killed(store)
        async with serving(left) as client:
            await until_async(lambda: nothing_staged(client))
            assert (await voxels(client) == expected).all()
            for name, (at, whole, _, value) in files.items():
                await client.write(name, whole)
                assert ((await voxels(client))[at] == value).all(), name
            assert await nothing_staged(client)

    run(work)


async def by_slice(client: Client) -> None:
    await client.write(f"{MAIN}/s0/xy/z00004.tif", encode(NEW[4], ".tif"))


async def by_a_plane_across(client: Client) -> None:
    await client.write(f"{MAIN}/s0/xz/y00007.png", encode(NEW[:, 7], ".png"))


async def by_volume(client: Client) -> None:
    await put_volume(client, NEW)


async def by_cutout(client: Client) -> None:
    box = np.s_[0:16, 8:24, 8:24]
    await put_volume(client, np.ascontiguousarray(NEW[box]), "s0/cutout/z0-16_y8-24_x8-24.npy")


async def by_zarr_chunk(client: Client) -> None:
    await client.write(f"{MAIN}/zarr/s0/c/0/0/0", await client.read(f"{MAIN}/zarr/s0/c/0/1/1"))


async def by_format_chunk(client: Client) -> None:
    folder = f"{MAIN}/formats/cells.precomputed/4_4_4"
    await client.write(f"{folder}/0-16_0-16_0-16", NEW[:16, :16, :16].tobytes())


NEWER = [by_slice, by_a_plane_across, by_volume, by_cutout, by_zarr_chunk, by_format_chunk]


def test_what_a_killed_daemon_left_never_goes_over_something_newer(store: Path) -> None:
    path = f"{MAIN}/s0/xy/z00004.png"

    async def work() -> None:
        left: dict[Path, np.ndarray] = {}
        async with serving(store) as client:
            for newer in NEWER:
                fh = await client.open_to_write(path)
                await client.call("write", fh, 0, encode(np.full_like(CELLS[4], 9), ".png"))
                await newer(client)
                left[killed(store, newer.__name__)] = await voxels(client)
                await client.order(f"{MAIN}/.volfs/discard", "s0/xy/z00004.png")
                await client.close(fh)
                await put_volume(client, CELLS)
        for where, after in left.items():
            async with serving(where) as client:
                await until_async(client.rejected)
                assert (await voxels(client) == after).all(), where
                (entry,) = await client.rejected()
                assert entry["path"] == "s0/xy/z00004.png" and "changed" in entry["reason"]
                assert entry["time"].endswith("Z") and "time_ns" not in entry
                errors = (await client.read(f"{MAIN}/.volfs/errors.txt")).decode()
                assert "s0/xy/z00004.png" in errors and entry["reason"] in errors

    run(work, 120)


def test_what_cannot_be_told_of_on_a_full_disk_stays_and_keeps_nobody_from_discarding_it(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        left = await leave(store, f"{MAIN}/s0/xy/z00003.png", encode(NEW[3], ".png")[:60])

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        async with serving(left) as client:
            monkeypatch.setattr(MountedBranch, "reject", full)
            await client.order(f"{MAIN}/.volfs/discard", "s0/xy/z00003.png")
            assert not (await client.status())["staged"]
            await client.write(f"{MAIN}/files/x", b"goes on")

    run(work)


def test_neither_does_it_after_a_commit_or_another_head_without_a_mount(store: Path) -> None:
    async def work() -> None:
        left = await leave(store, f"{MAIN}/s0/xy/z00004.png", encode(np.full_like(CELLS[4], 9), ".png"))
        with volfs.open_store(left) as opened:
            branch = opened["cells"].branch("main")
            image_at(branch, "").levels[0][4] = NEW[4]
            branch.commit("by a program")
        async with serving(left) as client:
            await until_async(client.rejected)
            assert ((await voxels(client))[4] == NEW[4]).all()

    run(work)


def test_a_slice_that_could_not_be_stored_never_goes_late_over_something_newer(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer was told at close: what others then wrote stays."""

    async def work() -> None:
        async with serving(store, stage_seconds=0.3, refresh_seconds=0.1) as client:
            for count, newer in enumerate(NEWER):
                with monkeypatch.context() as disk:
                    disk.setattr(Level, "write", full)
                    with pytest.raises(NoSpace):
                        await client.write(f"{MAIN}/s0/xy/z00004.png", encode(np.full_like(CELLS[4], 9), ".png"))
                await newer(client)
                after = await voxels(client)
                await until_async(partial(rejections, client, count + 1))
                assert (await voxels(client) == after).all(), newer

    run(work, 120)


def test_a_slice_that_is_written_anew_while_its_old_attempt_is_dropped_is_stored(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rejecting, opened = f"{MAIN}/s0/xy/z00004.png", threading.Event(), threading.Event()
    rejected = MountedBranch.reject

    def reject(mounted: MountedBranch, *args: Any) -> None:
        rejecting.set()
        assert opened.wait(PATIENCE)
        rejected(mounted, *args)

    async def asked() -> bool:
        return rejecting.is_set()

    async def work() -> None:
        async with serving(store, stage_seconds=0.1, refresh_seconds=0.1) as client:
            monkeypatch.setattr(MountedBranch, "reject", reject)
            data = encode(NEW[4], ".png")
            await client.write(path, data[: len(data) // 2])
            await until_async(asked)
            fh = await client.open_to_write(path)
            opened.set()
            await until_async(partial(rejections, client, 1))
            await client.call("write", fh, 0, data)
            await client.close(fh)
            assert ((await voxels(client))[4] == NEW[4]).all()

    run(work)


async def rejections(client: Client, count: int) -> bool:
    return len(await client.rejected()) >= count


def full(*_: Any) -> None:
    raise NoSpace("no space left")


def test_what_could_not_be_stored_is_stored_late_where_nothing_is_newer(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with serving(store, stage_seconds=0.2, refresh_seconds=0.1) as client:
            with monkeypatch.context() as disk:
                disk.setattr(Level, "write", full)
                with pytest.raises(NoSpace):
                    await client.write(f"{MAIN}/s0/xy/z00004.png", encode(NEW[4], ".png"))
                with pytest.raises(Held, match=r"s0/xy/z00004.png"):
                    await client.order(f"{MAIN}/.volfs/commit", "with the slice")
            await until_async(lambda: nothing_staged(client))
            assert ((await voxels(client))[4] == NEW[4]).all() and not await client.rejected()

    run(work)


def test_a_slice_that_was_being_stored_when_the_daemon_died_is_ended_but_where_something_is_newer(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 3 x 4 chunks the first is stored; another has been written since, and keeps what it got."""
    left: list[Path] = []

    def store_one(self: SliceTarget, picture: np.ndarray | None, parts: object = None) -> None:
        assert picture is not None
        level, plane = self.now()
        first = plane.box.intersect(level.array.meta.grid.chunk_box((0, 0, 0)))
        level.write(first, picture[first.relative_to(plane.box.start).slices()])
        level.write(Box((0, 0, 16), (16, 16, 32)), np.full((16, 16, 16), 3, "u1"))
        left.append(killed(store))

    async def work() -> None:
        async with serving(store) as client:
            monkeypatch.setattr(SliceTarget, "store", store_one)
            await client.write(f"{MAIN}/s0/xy/z00004.png", encode(NEW[4], ".png"))
            monkeypatch.undo()
        async with serving(left[0]) as client:
            await until_async(lambda: nothing_staged(client))
            expected = CELLS.copy()
            expected[4] = NEW[4]
            expected[:16, :16, 16:32] = 3
            assert (await voxels(client) == expected).all()
            assert not await client.rejected()

    run(work)


def test_writing_in_place_keeps_what_others_wrote_beside_meanwhile(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            path = f"{MAIN}/s0/xy/z00004.npy"
            header = (await client.stat(path)).size - CELLS[4].size
            fh = await client.open(path, os.O_RDWR)
            await client.call("write", fh, header + 50 * 7, NEW[4, 7].tobytes())
            await client.write(f"{MAIN}/s0/xz/y00009.png", encode(NEW[:, 9], ".png"))
            await client.close(fh)
            expected = CELLS.copy()
            expected[:, 9] = NEW[:, 9]
            expected[4, 7] = NEW[4, 7]
            assert (await voxels(client) == expected).all()

    run(work)


def test_a_mapped_page_that_comes_late_is_left_out_of_a_commit_and_named_if_something_is_newer(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            path = f"{MAIN}/s0/xy/z00004.npy"
            header = (await client.stat(path)).size - CELLS[4].size
            fh = await client.open(path, os.O_RDWR)
            await client.call("write", fh, header, bytes(50))
            await client.write(f"{MAIN}/zarr/s0/c/0/0/0", await client.read(f"{MAIN}/zarr/s0/c/0/1/1"))
            now = await voxels(client)
            await client.order(f"{MAIN}/.volfs/commit", "what is there")
            committed = np.load(io.BytesIO(await client.read("cells/versions/v3/s0/volume.npy")))
            assert (committed == now).all()
            left = (await client.status())["action"]["left"]
            assert [each["path"] for each in left] == ["s0/xy/z00004.npy"] and "changed" in left[0]["reason"]
            await client.close(fh)
            now[4, 0] = 0
            assert (await voxels(client) == now).all()

    run(work)


def test_a_stage_of_an_older_volfs_is_decided_by_its_time(store: Path) -> None:
    """It has no record: its bytes begin at once."""
    folder = store / STAGED / "s0/xy"
    folder.mkdir(parents=True)
    (folder / "z00004.png").write_bytes(encode(NEW[4], ".png"))
    (folder / "z00005.png").write_bytes(encode(NEW[5], ".png")[:200])
    (folder / "z00019.png").write_bytes(encode(NEW[19], ".png"))
    os.utime(folder / "z00019.png", ns=(1, 1))  # long before the image was imported

    async def work() -> None:
        async with serving(store) as client:
            await until_async(lambda: nothing_staged(client))
            expected = CELLS.copy()
            expected[4] = NEW[4]
            assert (await voxels(client) == expected).all()
            assert {each["path"] for each in await client.rejected()} == {"s0/xy/z00005.png", "s0/xy/z00019.png"}
            await client.write(f"{MAIN}/s0/xy/z00005.png", encode(NEW[5], ".png"))
            assert ((await voxels(client))[5] == NEW[5]).all()

    run(work)


def test_a_stage_whose_image_is_gone_or_another_is_dropped_and_named(store: Path) -> None:
    async def work() -> None:
        async def remove(client: Client) -> None:
            await client.unlink(f"{MAIN}/zarr/s0/zarr.json")

        left = await leave(store, f"{MAIN}/s0/xy/z00004.png", encode(NEW[4], ".png"), remove)
        async with serving(left) as client:
            await until_async(client.rejected)

    run(work)


def test_a_flipped_bit_in_a_record_drops_its_stage_and_no_other(store: Path) -> None:
    async def work() -> None:
        async def another(client: Client) -> None:
            fh = await client.open_to_write(f"{MAIN}/s0/xy/z00005.png")
            await client.call("write", fh, 0, encode(NEW[5], ".png"))

        left = await leave(store, f"{MAIN}/s0/xy/z00004.png", encode(NEW[4], ".png"), another)
        path = left / STAGED / "s0/xy/z00004.png"
        raw = bytearray(path.read_bytes())
        raw[raw.index(b"began_ns") + 15] ^= 1
        path.write_bytes(raw)
        async with serving(left) as client:
            await until_async(lambda: nothing_staged(client))
            assert [each["path"] for each in await client.rejected()] == ["s0/xy/z00004.png"]
            expected = CELLS.copy()
            expected[5] = NEW[5]
            assert (await voxels(client) == expected).all()

    run(work)


def test_a_record_is_read_as_it_was_written_and_every_flipped_bit_of_it_shows(tmp_path: Path) -> None:
    record = StageRecord(17, 3, "abc", reason="ünïcode " * 2000, refused=True)
    raw = record.pack()
    assert len(raw) == HEADER
    path = tmp_path / "stage"

    def read(data: bytes) -> StageRecord | None:
        path.write_bytes(data)
        with path.open("rb") as file:
            return read_record(file.fileno())

    found = read(raw + b"picture")
    assert found is not None and record.reason.startswith(found.reason) and found.reason
    assert (found.began_ns, found.over, found.target, found.refused) == (17, 3, "abc", True)
    for at in range(raw.rindex(b"}") + 1):
        flipped = bytearray(raw)
        flipped[at] ^= 4
        try:
            assert read(bytes(flipped)) in (None, found)  # without its first line it is bytes of a client
        except VolfsError:
            continue


def test_branches_that_nobody_looks_into_are_decided_too(store: Path) -> None:
    async def work() -> None:
        left = await leave(store, f"{MAIN}/s0/xy/z00004.png", encode(NEW[4], ".png"))
        async with serving(left) as client:
            await until_async(lambda: gone(left))
            assert ((await voxels(client))[4] == NEW[4]).all()

    run(work)


async def gone(store: Path) -> bool:
    return not any((store / STAGED).rglob("*.png"))
