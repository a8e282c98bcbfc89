"""The tree as it is read: what is where, how large, how old, and under which inode. No mount."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import tracemalloc
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

import volfs
from tests.kits.cells import CELLS, CHUNKS, NUCLEI, add, make_store
from tests.kits.trees import Client, run, serving
from volfs.errors import NotFound, ReadOnly, VolfsError, WrongKind
from volfs.testing.volumes import KINDS, image
from volfs.testing.waiting import until_async
from volfs.tree.contract.attrs import FOREVER, Attr
from volfs.tree.monitoring.statistics import statistics

#: What the directory of a level has besides its slices and volume files.
LEVEL = {"info.json", "chunks", "cutout", "oblique"}


def without_volumes(names: Iterable[str]) -> set[str]:
    """Which volume files there are depends on what formats hold: see the tests of volumes."""
    return {name for name in names if not name.startswith("volume.")}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("tree") / "store")


async def walk(client: Client, path: str, attr: Attr | None = None) -> dict[str, Attr]:
    """A path and every path below it, as a backup does: links are not followed. Each is what lookup says it is."""
    attr = attr or await client.stat(path)
    found = {path: attr}
    if attr.is_dir:
        for name, listed in (await client.ls_ino(attr.ino, batch=5)).items():
            assert listed == await client.tree.lookup(attr.ino, os.fsencode(name)), (path, name)
            found |= await walk(client, f"{path}/{name}", listed)
    return found


def picture(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


def test_the_tree_has_what_the_layout_says(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            assert set(await client.ls("")) == {"README.txt", ".volfs", "cells"}
            assert set(await client.ls("cells")) == {
                *("dataset.json", "log.txt", "versions", "branches", "tags", "diffs")
            }
            assert list(await client.ls("cells/versions")) == ["latest", "v1", "v2"]
            assert set(await client.ls("cells/versions/v2")) == {
                "version.json",
                "thumbnail.png",
                "zarr",
                "files",
                "formats",
                "s0",
                "s1",
                "labels",
            }
            assert set(await client.ls("cells/branches/main")) == {
                ".volfs",
                "thumbnail.png",
                "zarr",
                "files",
                "formats",
                "s0",
                "s1",
                "labels",
            }
            control = {"status.json", "errors.txt", "message", "commit", "discard", "update", "publish", "tag"}
            control |= {"merge", "cherry-pick", "revert", "restore", "resolve", "rebase", "mv", "commit-words"}
            assert set(await client.ls("cells/branches/main/.volfs")) == control
            assert without_volumes(await client.ls("cells/versions/v2/s0")) == LEVEL | {"xy", "xz", "yz", "preview"}
            assert set(await client.ls("cells/versions/v2/labels")) == {"nuclei"}
            assert set(await client.ls("cells/versions/v2/labels/nuclei")) == {"s0", "s1", "formats", "thumbnail.png"}
            assert "labels" not in await client.ls("cells/versions/v1")
            assert set(await client.ls(".volfs")) == {"stats.json", "metrics", "version"}

    run(work)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is walked as a whole: everything that a tree has, and few of each."""
    return make_store(tmp_path_factory.mktemp("small") / "store", (5, 12, 14))


@pytest.fixture(scope="module")
def shown(small: Path) -> dict[str, int]:
    """The inodes of all that is shown of a version, of a branch and around them."""
    inodes: dict[str, int] = {}

    async def work() -> None:
        async with serving(small) as client:
            tops = ("README.txt", ".volfs", "cells/log.txt", "cells/dataset.json", "cells/tags")
            for top in (*tops, "cells/versions/v2", "cells/branches/main"):
                inodes.update({path: attr.ino for path, attr in (await walk(client, top)).items()})

    run(work)
    return inodes


def test_every_file_is_as_long_as_its_size_says_and_every_listing_agrees_with_lookup(
    small: Path, shown: dict[str, int]
) -> None:
    async def work() -> None:
        async with serving(small) as client:
            for path, ino in shown.items():
                attr = await client.tree.getattr(ino)
                assert attr.nlink >= 1 and attr.generation == 1
                assert attr.blocks == -(-attr.size // 512)
                if attr.is_file and not path.endswith(("commit", "discard")) and not path.startswith(".volfs/"):
                    await client.read(path, 77, attr)

    run(work)


def test_slices_of_all_planes_and_endings_are_the_voxels(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            s0 = "cells/versions/latest"
            assert await client.readlink(s0) == "v2"
            s0 = "cells/versions/v2/s0"
            assert (picture(await client.read(f"{s0}/xy/z00012.png")) == CELLS[12]).all()
            assert (picture(await client.read(f"{s0}/xz/y00033.png")) == CELLS[:, 33]).all()
            assert (picture(await client.read(f"{s0}/yz/x00049.tif")) == CELLS[:, :, 49]).all()
            assert (np.load(io.BytesIO(await client.read(f"{s0}/xy/z00000.npy"))) == CELLS[0]).all()
            assert picture(await client.read(f"{s0}/xy/z00000.jpg")).shape == CELLS[0].shape
            nuclei = "cells/versions/v2/labels/nuclei/s0/xy/z00007"
            assert (picture(await client.read(f"{nuclei}.tif")) == NUCLEI[7]).all()
            assert picture(await client.read(f"{nuclei}.jpg")).shape == (*NUCLEI[7].shape, 3)
            assert list(await client.ls(f"{s0}/xy"))[:2] == ["z00000.png", "z00001.png"]
            assert all(name.endswith(".tif") for name in await client.ls("cells/versions/v2/labels/nuclei/s0/xy"))
            for absent in ("z00020.png", "z0012.png", "z00012.bmp", "x00001.png", "z00012", "z000012.png", "nope"):
                attr = await client.tree.lookup(await client.ino(f"{s0}/xy"), absent.encode())
                assert attr.ino == 0 and attr.entry_timeout == FOREVER, absent

    run(work)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_any_kind_of_volume_has_slices_under_directories_of_its_other_axes(tmp_path: Path, kind: str) -> None:
    made = KINDS[kind]
    volume = made.make()
    with volfs.init_store(tmp_path / "store") as store:
        add(store, "vol", "", volume, made.axes, chunks=made.chunks, levels=1, labels=made.labels)

    async def work() -> None:
        async with serving(tmp_path / "store") as client:
            path, at = "vol/versions/v1/s0", volume
            names = list(made.axes)
            while names[0] not in "zyx":
                entries = [name for name, attr in (await client.ls(path)).items() if attr.is_dir and name not in LEVEL]
                assert len(entries) == at.shape[0]
                path, at, names = f"{path}/{sorted(entries)[-1]}", at[-1], names[1:]
            planes = {name for name, attr in (await client.ls(path)).items() if attr.is_dir} - LEVEL - {"formats"}
            assert planes == ({"xy", "xz", "yz", "preview"} if "z" in names else {"xy", "preview"})
            data = await client.read(f"{path}/xy/z00000.npy")
            assert (np.load(io.BytesIO(data)) == (at[0] if "z" in names else at)).all()
            if kind == "movie":
                assert path.endswith("s0/t0002/c01")

    run(work)


def test_a_version_may_be_cached_for_ever_and_what_can_change_only_shortly(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            for path in ("s0/xy/z00003.png", "zarr/s0/c/0/0/0", "zarr", "version.json", "thumbnail.png", "s0/chunks"):
                attr = await client.stat(f"cells/versions/v1/{path}")
                assert attr.entry_timeout == attr.attr_timeout == FOREVER, path
                assert attr.is_link or not attr.mode & 0o222
            for path in ("", "cells", "cells/versions", "cells/versions/v1", "cells/branches", "cells/branches/main"):
                assert (await client.stat(path)).entry_timeout <= 1.0 or path.endswith("v1")
            for path in ("s0/xy/z00003.png", "zarr/s0/c/0/0/0", "zarr", ".volfs/status.json", "s0"):
                attr = await client.stat(f"cells/branches/main/{path}")
                assert attr.entry_timeout <= 1.0 and attr.attr_timeout <= 1.0, path
            missing = await client.tree.lookup(await client.ino("cells/versions/v1/zarr"), b".zarray")
            assert missing.ino == 0 and missing.entry_timeout == FOREVER
            missing = await client.tree.lookup(await client.ino("cells/branches/main/zarr"), b".zarray")
            assert missing.ino == 0 and missing.entry_timeout <= 1.0
            for path in ("s0/xy/z00003.png", "zarr/zarr.json", "version.json"):
                opened = await client.tree.open(await client.ino(f"cells/versions/v1/{path}"), os.O_RDONLY)
                assert opened.keep_cache and not opened.direct_io
                await client.close(opened.fh)

    run(work)


def test_any_inode_finds_itself_and_its_directory_after_a_restart(small: Path, shown: dict[str, int]) -> None:
    assert len(set(shown.values())) == len(shown)

    async def after() -> None:
        async with serving(small) as client:
            for path, ino in reversed(shown.items()):  # what is below comes first, when nothing above it is known
                attr = await client.tree.lookup(ino, b".")
                assert attr.ino == ino, path
                up = await client.tree.lookup(ino, b"..")
                above, _, name = path.rpartition("/")
                assert up.ino == shown.get(above, up.ino), path
                assert (await client.tree.lookup(up.ino, os.fsencode(name))).ino == ino, path
            for unknown in (2, 12345, 1 << 27, (1 << 62) | 99, (1 << 40) + 3, shown["cells/versions/v2/s0/xy"] + 7777):
                with pytest.raises(VolfsError):
                    await client.tree.lookup(unknown, b".")
            assert (await client.tree.lookup(1, b"..")).ino == 1

    run(after)


def test_listings_resume_anywhere_without_open_state(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            for path in ("cells/versions/v2", "cells/versions/v2/s0/xy", "cells/versions/v2/zarr/s0/c/0/0", "cells"):
                ino = await client.ino(path)
                whole = list(await client.tree.readdir(ino, 0))
                for entry, following in zip(whole, [*whole[1:], None], strict=True):
                    rest = list(await client.tree.readdir(ino, entry.cookie))
                    assert (rest[0] if rest else None) == following

    run(work)


def test_mtimes_are_those_of_the_newest_version_that_changed_a_byte(tmp_path: Path) -> None:
    path = make_store(tmp_path / "store")
    with volfs.open_store(path) as store:
        branch = store["cells"].branch("main")
        volfs.images(branch)[""].levels[0][17, 0:4, 0:4] = 9
        changed = branch.commit("one corner").time_ns
        first = store["cells"].info(1).time_ns

    async def work() -> None:
        async with serving(path) as client:
            for version, expected in (("v1", first), ("v3", changed)):
                top = f"cells/versions/{version}"
                assert (await client.stat(f"{top}/s0/xy/z00017.png")).mtime == expected
                assert (await client.ls(f"{top}/s0/xy"))["z00017.png"].mtime == expected
                assert (await client.stat(f"{top}/s0/yz/x00003.png")).mtime == expected
                assert (await client.stat(f"{top}/zarr/s0/c/1/0/0")).mtime == expected
            top = "cells/versions/v3"
            assert (await client.stat(f"{top}/s0/xy/z00003.png")).mtime == first
            assert (await client.stat(f"{top}/s0/yz/x00049.png")).mtime == first
            assert (await client.stat(f"{top}/zarr/s0/c/0/0/0")).mtime == first
            assert (await client.stat(f"{top}/version.json")).mtime == changed

    run(work)


def test_a_hundred_thousand_slices_list_in_a_moment(tmp_path: Path) -> None:
    with volfs.init_store(tmp_path / "store") as store:
        branch = store.create_dataset("long").branch("main")
        group = zarr.open_group(branch.zarr_store(), mode="a")
        group.create_array("deep", shape=(120_000, 4, 4), chunks=(4096, 4, 4), dtype="uint8")
        branch.commit("empty but long")

    async def work() -> None:
        async with serving(tmp_path / "store") as client:
            xy = await client.ino("long/versions/v1/deep/xy")
            cookie, count = 0, 0
            while True:
                entries = list(_first(await client.tree.readdir(xy, cookie), 1000))
                if not entries:
                    break
                count, cookie = count + len(entries), entries[-1].cookie
            assert count == 120_000
            assert (await client.stat("long/versions/v1/deep/xy/z119999.png")).size

    run(work, seconds=20)


def _first(entries, count):
    for entry, _ in zip(entries, range(count), strict=False):
        yield entry


def test_documents_say_what_is_there(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            dataset = json.loads(await client.read("cells/dataset.json"))
            assert dataset["branches"] == {"exp": "v2", "main": "v2"}
            assert dataset["images"][0]["shape"] == list(CELLS.shape)
            assert "import cells" in (await client.read("cells/log.txt")).decode()
            version = json.loads(await client.read("cells/versions/v2/version.json"))
            assert version["parents"] == ["v1"] and version["version"] == "v2"
            info = json.loads(await client.read("cells/versions/v2/s0/info.json"))
            assert info["chunk_shape"] == list(CHUNKS) and info["voxel_size"] == [4, 4, 4]
            assert "cells" in (await client.read("README.txt")).decode()
            assert (await client.read(".volfs/version")).decode().startswith("volfs ")
            assert json.loads(await client.read(".volfs/stats.json"))["cache"]["max_bytes"]
            assert max(picture(await client.read("cells/versions/v2/thumbnail.png")).shape) <= 256

    run(work)


def test_an_open_document_keeps_its_rendering(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            before = await client.read("cells/log.txt")
            fh = await client.open("cells/log.txt")
            await client.mkdir("cells/branches/other")
            assert await client.read_fh(fh, 10**6) == before
            assert (await client.stat("cells/log.txt")).size == len(before)  # what is being read
            await client.close(fh)
            after = await client.read("cells/log.txt")
            assert after != before and b"other" in after
            await client.rmdir("cells/branches/other")

    run(work)


def test_names_that_collide_are_reachable_under_zarr_only(tmp_path: Path) -> None:
    with volfs.init_store(tmp_path / "store") as store:
        branch = store.create_dataset("odd").branch("main")
        root = zarr.open_group(branch.zarr_store(), mode="a")
        for name in ("files", "zarr", "thumbnail.png", "fine", "deep/er"):
            root.create_array(name, data=np.arange(24, dtype="u1").reshape(2, 3, 4), chunks=(1, 2, 2))
        branch.commit("names")

    async def work() -> None:
        async with serving(tmp_path / "store") as client:
            top = "odd/versions/v1"
            assert set(await client.ls(top)) == {
                "version.json",
                "thumbnail.png",
                "zarr",
                "files",
                "formats",
                "fine",
                "deep",
            }
            assert not await client.ls(f"{top}/files")
            assert set(await client.ls(f"{top}/zarr")) == {
                "zarr.json",
                "files",
                "zarr",
                "thumbnail.png",
                "fine",
                "deep",
            }
            assert (await client.stat(f"{top}/thumbnail.png")).is_file
            assert await client.readlink(f"{top}/deep/er/chunks") == "../../zarr/deep/er"
            level = LEVEL | {"formats", "xy", "xz", "yz", "preview", "thumbnail.png"}
            assert without_volumes(await client.ls(f"{top}/deep/er")) == level
            assert picture(await client.read(f"{top}/deep/er/thumbnail.png")).shape == (3, 4)

    run(work)


def test_an_array_at_the_root_shows_its_level_in_the_snapshot_itself(tmp_path: Path) -> None:
    with volfs.init_store(tmp_path / "store") as store:
        branch = store.create_dataset("bare").branch("main")
        zarr.create_array(branch.zarr_store(), data=np.arange(24, dtype="u1").reshape(2, 3, 4), chunks=(1, 2, 2))
        branch.commit("bare")

    async def work() -> None:
        async with serving(tmp_path / "store") as client:
            top = "bare/versions/v1"
            assert without_volumes(await client.ls(top)) == {
                "version.json",
                "thumbnail.png",
                "zarr",
                "files",
                "formats",
                *LEVEL,
                "xy",
                "xz",
                "yz",
                "preview",
            }
            assert await client.readlink(f"{top}/chunks") == "zarr"
            assert (await client.ls(f"{top}/xy"))["z00001.png"] == await client.stat(f"{top}/xy/z00001.png")
            ino = await client.ino(f"{top}/info.json")
            assert (await client.tree.lookup(ino, b".")).ino == ino

    run(work)


def test_chunks_with_dotted_names_have_inodes_of_their_own(tmp_path: Path) -> None:
    with volfs.init_store(tmp_path / "store") as store:
        branch = store.create_dataset("dots").branch("main")
        zarr.create_array(
            branch.zarr_store(),
            name="a",
            data=np.ones((6, 7, 8), "u2"),
            chunks=(2, 3, 4),
            chunk_key_encoding={"name": "v2", "separator": "."},
        )
        branch.put("files/notes.txt", b"hello")
        branch.commit("dots")

    async def work() -> None:
        async with serving(tmp_path / "store") as client:
            listed = await client.ls("dots/versions/v1/zarr/a")
            assert len(listed) == 1 + 3 * 3 * 2 and len({attr.ino for attr in listed.values()}) == len(listed)
            for name, attr in listed.items():
                assert (await client.tree.lookup(attr.ino, b".")) == attr, name
                await client.read(f"dots/versions/v1/zarr/a/{name}")
            assert await client.read("dots/versions/v1/files/notes.txt") == b"hello"

    run(work)


def test_a_dataset_that_cannot_be_read_harms_no_other(tmp_path: Path) -> None:
    path = make_store(tmp_path / "store")
    with volfs.open_store(path) as store:
        add(store, "broken", "", CELLS, "zyx", chunks=CHUNKS, levels=1)

    async def work() -> None:
        async with serving(path) as client:
            shutil.rmtree(path / "datasets" / "broken" / "versions")
            (path / "datasets" / "broken" / "dataset.json").write_bytes(b"{")
            assert set(await client.ls("")) == {"README.txt", ".volfs", "cells", "broken"}
            with pytest.raises(VolfsError):
                for name in await client.ls("broken"):
                    await client.read(f"broken/{name}")
            assert (picture(await client.read("cells/versions/v2/s0/xy/z00001.png")) == CELLS[1]).all()

    run(work)


def test_one_bad_chunk_is_an_error_for_the_slices_that_cross_it_only(tmp_path: Path) -> None:
    path = make_store(tmp_path / "store")
    # Version 2 holds the labels alone: a flipped byte in their first shard or chunk.
    stored = sorted((path / "datasets/cells/versions/00000002/zarr/labels/nuclei/s0/c").rglob("*"))
    victim = next(file for file in stored if file.is_file())
    data = bytearray(victim.read_bytes())
    data[len(data) // 3] ^= 0x40
    victim.write_bytes(data)

    async def work() -> None:
        async with serving(path) as client:
            bad = good = 0
            for name in await client.ls("cells/versions/v2/labels/nuclei/s0/xy"):
                try:
                    data = await client.read(f"cells/versions/v2/labels/nuclei/s0/xy/{name}")
                except VolfsError:
                    bad += 1
                else:
                    assert (picture(data) == NUCLEI[int(name[1:6])]).all()
                    good += 1
            assert bad
            assert (picture(await client.read("cells/versions/v2/s0/xy/z00001.png")) == CELLS[1]).all()

    run(work)


def test_versions_and_generated_files_cannot_be_changed(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            top = "cells/versions/v2"
            for path in (f"{top}/zarr/zarr.json", f"{top}/s0/xy/z00001.png", f"{top}/version.json", "README.txt"):
                with pytest.raises(VolfsError) as refused:
                    await client.open(path, os.O_WRONLY)
                assert isinstance(refused.value, ReadOnly) == path.startswith(top), path
                with pytest.raises(VolfsError):
                    await client.setattr(path, size=0)
                with pytest.raises(VolfsError):
                    await client.setattr(path, mtime_ns=5, mode=0o600)
                with pytest.raises(VolfsError):
                    await client.unlink(path)
            for folder in ("", "cells", "cells/versions", top, f"{top}/zarr", f"{top}/files", f"{top}/s0/xy"):
                if folder:  # in the root it makes a dataset
                    with pytest.raises(VolfsError) as refused:
                        await client.mkdir(f"{folder}/new")
                    assert refused.value.errno in (1, 30)
                with pytest.raises(VolfsError):
                    await client.write(f"{folder}/new" if folder else "new", b"x")
                with pytest.raises(NotFound):
                    await client.unlink(f"{folder}/absent" if folder else "absent")
            with pytest.raises(WrongKind):
                await client.unlink("cells/versions/v1")
            with pytest.raises(WrongKind):
                await client.rmdir(f"{top}/version.json")

    run(work)


def test_taking_an_extended_attribute_away_says_that_there_is_none(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            with pytest.raises(OSError) as refused:
                await client.tree.removexattr(1, b"security.capability")
            assert refused.value.errno == errno.ENODATA
            assert (await client.tree.statfs()).f_blocks > 0

    run(work)


def test_a_read_from_memory_needs_no_thread(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with serving(store) as client:
            path = "cells/versions/v2/s0/xy/z00005.png"
            first = await client.read(path)
            fh = await client.open(path)
            monkeypatch.setattr("trio.to_thread.run_sync", None)
            data = await client.tree.read(fh, 0, 10_000)
            assert isinstance(data, memoryview) and bytes(data) == first
            monkeypatch.undo()
            await client.close(fh)

    run(work)


def test_an_open_file_keeps_no_more_than_what_is_still_to_be_read(tmp_path: Path) -> None:
    voxels = image((8, 700, 1000), "uint8")
    with volfs.init_store(tmp_path / "store") as store:
        add(store, "cells", "", voxels, "zyx", chunks=(8, 256, 256), levels=1)
    beginning = 400_000

    async def work() -> None:
        async with serving(tmp_path / "store") as client:
            paths = [f"cells/versions/v1/s0/xy/z{index:05}.npy" for index in range(len(voxels))]
            expected = [await client.read(path) for path in paths]
            end, files = len(expected[0]) - beginning, [await client.open(path) for path in paths]

            def said() -> int:
                parts = statistics(client.tree._context, 0)["memory"]["parts"]
                return int(parts["open_files"]["bytes"])

            opened = said()
            tracemalloc.start()
            try:
                for fh, data in zip(files, expected, strict=True):
                    assert await client.tree.read(fh, 0, beginning) == data[:beginning]
                assert said() == opened + len(files) * end
                assert tracemalloc.get_traced_memory()[0] < len(files) * end + 200_000
                for fh, data in zip(files[2:], expected[2:], strict=True):
                    middle = beginning + 1000
                    assert await client.tree.read(fh, beginning, 1000) == data[beginning:middle]
                    assert await client.tree.read(fh, middle, 1 << 20) == data[middle:]
                    assert not await client.tree.read(fh, len(data), 10)
                assert said() == opened + 2 * end
                assert tracemalloc.get_traced_memory()[0] < 2 * end + 200_000
                # What was dropped is made again.
                assert await client.tree.read(files[2], beginning, 1 << 20) == expected[2][beginning:]
                await client.close(files[0])
                assert said() < opened + end
            finally:
                tracemalloc.stop()
            for fh in files[1:]:
                await client.close(fh)
            assert said() < opened

    run(work)


def test_a_chunk_file_that_the_kernel_has_in_memory_needs_no_thread_and_no_statement(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with serving(store) as client:
            folder = "cells/versions/v2/zarr/s0/c/0/0"
            paths = [f"{folder}/{name}" for name in sorted(await client.ls(folder))[:2]]
            expected = [(await client.ino(path), await client.read(path)) for path in paths]
            with monkeypatch.context() as patched:
                patched.setattr("trio.to_thread.run_sync", None)
                patched.setattr("volfs.catalog.entries.find", None)
                for ino, data in expected:
                    opened = await client.tree.open(ino, os.O_RDONLY)
                    assert bytes(await client.tree.read(opened.fh, 0, 1 << 20)) == data
                    await client.tree.release(opened.fh)

    run(work)


def test_a_dataset_made_anew_under_the_same_name_shares_no_inode_with_the_old_one(tmp_path: Path) -> None:
    path = make_store(tmp_path / "store")

    async def work() -> None:
        async with serving(path) as client:
            places = ("cells", "cells/versions/v1", "cells/versions/v1/s0/xy", "cells/versions/v1/s0/xy/z00001.png")
            before = [await client.ino(place) for place in places]
            with volfs.open_store(path) as other:
                other.remove_dataset("cells")
                add(other, "cells", "", CELLS[::-1].copy(), "zyx", chunks=CHUNKS, levels=1)
            after = [await client.ino(place) for place in places]
            assert not set(before) & set(after)
            await until_async(partial(client.does_not_know, before[-1]))
            for ino in before:
                with pytest.raises(NotFound):
                    await client.tree.lookup(ino, b".")
            assert (picture(await client.read("cells/versions/v1/s0/xy/z00001.png")) == CELLS[-2]).all()

    run(work)
