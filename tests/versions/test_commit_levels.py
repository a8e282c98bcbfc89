"""Whichever way a store was opened, what is committed through it has levels that agree with s0.

The judge computes the coarser level from the voxels of s0 by itself, in floating point, and reads both as zarr-python
reads the committed version.
"""

from __future__ import annotations

import inspect
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import volfs
from tests.kits import fork_server
from tests.kits.memory_snapshots import put_pyramid
from tests.kits.mounts import volfs as command
from volfs.testing.kit import mounted
from volfs.versions import store as stores
from volfs.versions.branch import Branch
from volfs.versions.check.fsck import fsck
from volfs.versions.zarrstore import ZarrStore

VOXELS = np.random.default_rng(3).integers(0, 255, (11, 20, 18), dtype="u1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A store with one image, committed; nobody has it open."""
    path = tmp_path / "store"
    with volfs.init_store(path) as opened:
        fill(opened)
    yield path


def fill(opened: stores.Store) -> None:
    keys: dict[str, Any] = {}
    put_pyramid(keys, "", VOXELS, (4, 8, 8), levels=2)
    branch = opened.create_dataset("cells").branch("main")
    with branch.writing():
        for key, stored in keys.items():
            branch.put(key, stored.data)
    branch.commit("import")


def halved(voxels: np.ndarray) -> np.ndarray:
    """The mean of each 2x2x2 block over the voxels that exist, half to even."""
    padded = np.pad(voxels.astype("f8"), [(0, extent % 2) for extent in voxels.shape], constant_values=np.nan)
    z, y, x = (extent // 2 for extent in padded.shape)
    return np.rint(np.nanmean(padded.reshape(z, 2, y, 2, x, 2), axis=(1, 3, 5))).astype("u1")


def write(target: ZarrStore, value: int = 77) -> None:
    """Change voxels of s0 alone, as any program with zarr-python does."""
    zarr.open_array(store=target, path="s0", mode="r+")[3:8, 2:13, 1:16] = value


def judge(path: Path, value: int = 77, ref: str = "latest") -> None:
    with volfs.open_store(path, read_only=True) as opened:
        version = opened["cells"][ref]
        levels = [zarr.open_array(store=version.zarr_store(), path=p, mode="r")[:] for p in ("s0", "s1")]
        expected = VOXELS.copy()
        expected[3:8, 2:13, 1:16] = value
        np.testing.assert_array_equal(levels[0], expected)
        np.testing.assert_array_equal(levels[1], halved(expected))
        assert fsck(opened).findings == []


def edit(branch: Branch) -> None:
    write(branch.zarr_store())
    branch.commit("edit")


def in_another_process(code: str, *arguments: str | Path, stdin: bytes = b"") -> None:
    done = fork_server.run(
        [sys.executable, "-c", code, *map(str, arguments)], input=stdin, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


PICKLED = """
import pickle, sys, zarr
store = pickle.load(sys.stdin.buffer)
zarr.open_array(store=store, path="s0", mode="r+")[3:8, 2:13, 1:16] = 77
store.snapshot.commit("edit")
"""


def test_a_pickled_zarr_store_in_another_process(store: Path) -> None:
    with volfs.open_store(store) as opened:
        raw = pickle.dumps(opened["cells"]["main"].zarr_store())
    in_another_process(PICKLED, stdin=raw)
    judge(store)


def test_a_zarr_store_that_was_pickled_twice_and_with_a_catalog_elsewhere(store: Path, tmp_path: Path) -> None:
    with volfs.open_store(store, catalog=tmp_path / "mine.sqlite") as opened:
        raw = pickle.dumps(opened["cells"]["main"].zarr_store())
    again = pickle.loads(raw)
    raw = pickle.dumps(again)
    assert again.snapshot.dataset.store.catalog_path == tmp_path / "mine.sqlite"
    again.snapshot.dataset.store.close()
    in_another_process(PICKLED, stdin=raw)
    with volfs.open_store(store):
        pass  # its catalog learns of what the other one committed
    judge(store)


def test_a_zarr_store_out_of_a_pickle_is_of_the_store_that_is_open_already(store: Path) -> None:
    with volfs.open_store(store) as opened:
        target = pickle.loads(pickle.dumps(opened["cells"]["main"].zarr_store()))
        assert target.snapshot.dataset.store is opened
        write(target)
        opened["cells"].branch("main").commit("edit")
    judge(store)


def test_a_zarr_store_of_a_store_opened_read_only_opens_it_read_only(store: Path) -> None:
    with volfs.open_store(store, read_only=True) as opened:
        raw = pickle.dumps(opened["cells"]["main"].zarr_store())
        target = pickle.loads(raw)
        assert target.snapshot.dataset.store is opened
    target = pickle.loads(raw)
    assert target.read_only and target.snapshot.dataset.store.read_only
    target.snapshot.dataset.store.close()


def test_python(store: Path) -> None:
    with volfs.open_store(store) as opened:
        edit(opened["cells"].branch("main"))
    judge(store)


@pytest.mark.parametrize("make", [volfs.init_store, lambda path: volfs.open_store(path, create=True)])
def test_a_store_just_made(tmp_path: Path, make: Callable[[Path], stores.Store]) -> None:
    with make(tmp_path / "new") as opened:
        fill(opened)
        edit(opened["cells"].branch("main"))
    judge(tmp_path / "new")


def test_a_store_whose_catalog_was_lost(store: Path) -> None:
    for file in store.glob("catalog.sqlite*"):
        file.unlink()
    with volfs.open_store(store) as opened:
        edit(opened["cells"].branch("main"))
    judge(store)


@pytest.mark.parametrize("point", ["commit.frozen", "commit.ref"])
def test_recovery_of_a_commit_that_was_killed(store: Path, point: str) -> None:
    code = """
import sys, volfs
with volfs.open_store(sys.argv[1]) as opened:
    branch = opened["cells"].branch("main")
    import zarr
    zarr.open_array(store=branch.zarr_store(), path="s0", mode="r+")[3:8, 2:13, 1:16] = 77
    branch.commit("edit")
"""
    done = fork_server.run([sys.executable, "-c", code, store], env=os.environ | {"VOLFS_CRASH_AT": point}, check=False)
    assert done.returncode < 0
    with volfs.open_store(store) as opened:
        branch = opened["cells"].branch("main")
        if not branch.is_clean():
            branch.commit("edit")
    judge(store)


def test_the_command(store: Path) -> None:
    with volfs.open_store(store) as opened:
        write(opened["cells"].branch("main").zarr_store())
    command(store, "commit", "cells", "-m", "edit")
    judge(store)


def test_a_mount_asked_by_file_by_the_command_and_from_python(store: Path, mountpoint: Path) -> None:
    with mounted(store, mountpoint):
        shown = mountpoint / "cells" / "branches" / "main"
        zarr.open_array(shown / "zarr" / "s0", mode="r+")[3:8, 2:13, 1:16] = 77
        (shown / ".volfs" / "commit").write_text("by file")
        judge(store, ref="v2")
        zarr.open_array(shown / "zarr" / "s0", mode="r+")[3:8, 2:13, 1:16] = 78
        command(store, "commit", "cells", "-m", "by the command")
        judge(store, 78, ref="v3")
        zarr.open_array(shown / "zarr" / "s0", mode="r+")[3:8, 2:13, 1:16] = 79
        with volfs.open_store(store) as opened:
            opened["cells"].branch("main").commit("from Python")
        judge(store, 79, ref="v4")


def test_a_branch_that_fsck_has_mended_the_catalog_of(store: Path) -> None:
    command(store, "fsck", "--rebuild-catalog")
    with volfs.open_store(store) as opened:
        assert fsck(opened, rebuild_catalog=True).findings == []
        edit(opened["cells"].branch("main"))
    judge(store)


@pytest.mark.parametrize(
    "door", [stores.Store.__init__, stores.open_store, stores.init_store], ids=lambda door: door.__qualname__
)
def test_no_store_is_made_without_saying_how_levels_are_derived(door: Callable[..., object]) -> None:
    argument = inspect.signature(door).parameters["derive"]
    assert argument.default is inspect.Parameter.empty
