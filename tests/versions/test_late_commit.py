"""A commit, or an import, whose branch has moved to where the same was changed: one engine says what goes together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.kits.stores import array_at, chunk, volume, voxels_of, write_version
from volfs import open_store
from volfs.errors import Conflict, MergeConflict
from volfs.versions.branch import Branch
from volfs.versions.check.fsck import fsck
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.dataset import Dataset
from volfs.versions.store import Store

SHAPE = (16, 16, 16)
OLD = volume(SHAPE)
NOTES = b"one\ntwo\nthree\nfour\nfive\n"

pytestmark = pytest.mark.usefixtures("stays_whole")


@pytest.fixture
def dataset(dataset: Dataset) -> Dataset:
    write_version(dataset, OLD, files={"files/notes": NOTES})
    return dataset


def painted(*at: int, to: int = 7, on: np.ndarray = OLD) -> np.ndarray:
    out = on.copy()
    out[at] = to
    return out


def put(branch: Branch, voxels: np.ndarray, at: tuple[int, int, int] = (0, 0, 0)) -> None:
    branch.put(f"zarr/s0/c/{'/'.join(map(str, at))}", chunk(array_at(branch).meta, voxels, at))


def moved(dataset: Dataset, voxels: np.ndarray | None = None, files: dict[str, bytes] | None = None) -> int:
    """A new head of ``main`` that no working copy has made."""
    parent = dataset.branches()["main"]
    with VersionWriter(dataset, "main", parent) as writer:
        for key, data in (files or {}).items():
            writer.put(key, data)
        if voxels is not None:
            version = dataset.version(parent)
            array = writer.array("s0", version.read("zarr/s0/zarr.json"), created=False)
            array.put((0, 0, 0), chunk(array_at(version).meta, voxels, (0, 0, 0)))
        return writer.publish("theirs").number


def test_voxels_of_one_chunk_and_lines_of_one_file_go_together(dataset: Dataset, branch: Branch) -> None:
    put(branch, painted(0, 0, 0))
    branch.put("files/notes", NOTES.replace(b"five", b"FIVE"))
    branch.put("files/mine", b"mine")
    moved(dataset, painted(1, 1, 1, to=9), {"files/notes": NOTES.replace(b"one", b"ONE")})
    assert branch.behind() is not None
    info = branch.commit("mine", "somebody", meta={"run": "17"})
    assert info.parents == (2,) and (info.message, info.author) == ("mine", "somebody")
    assert branch.is_clean() and branch.behind() is None and branch.head == info == branch.base
    np.testing.assert_array_equal(voxels_of(branch), painted(1, 1, 1, to=9, on=painted(0, 0, 0)))
    assert branch.read("files/notes") == NOTES.replace(b"one", b"ONE").replace(b"five", b"FIVE")
    assert branch.read("files/mine") == b"mine"
    assert dataset.branches() == {"main": info.number}
    assert branch.commit("mine") == info, "a repeat"


def test_what_cannot_go_together_is_named_by_voxels_before_anything_is_written(
    dataset: Dataset, branch: Branch
) -> None:
    put(branch, painted(0, 0, slice(0, 4)))
    moved(dataset, painted(0, 0, slice(2, 8), to=9))
    before = sorted(os.listdir(dataset.layout.versions))
    with pytest.raises(
        MergeConflict, match=r"volfs update cells@main --ours.*In conflict: s0 z0-1_y0-1_x2-4: 2 voxels"
    ):
        branch.commit("mine")
    assert sorted(os.listdir(dataset.layout.versions)) == before
    assert branch.behind() is not None
    np.testing.assert_array_equal(voxels_of(branch), painted(0, 0, slice(0, 4)))


def test_what_is_left_uncommitted_is_never_laid_over_what_moved(dataset: Dataset, branch: Branch) -> None:
    put(branch, painted(0, 0, 0))
    branch.put("files/notes", b"mine alone")
    branch.put("files/other", b"other")
    moved(dataset, painted(1, 1, 1, to=9), {"files/notes": NOTES + b"six\n"})
    with pytest.raises(Conflict, match="files/notes"):
        branch.commit("all")
    info = branch.commit("voxels", leave=["files/notes", "files/other"])
    assert dataset.version(info.number).read("files/notes") == NOTES + b"six\n"
    behind = branch.behind()
    assert behind is not None and behind.keys == ("files/notes",)
    assert branch.read("files/notes") == b"mine alone" and branch.read("files/other") == b"other"
    np.testing.assert_array_equal(voxels_of(branch), painted(0, 0, 0))
    branch.update("theirs")
    np.testing.assert_array_equal(voxels_of(branch), painted(1, 1, 1, to=9, on=painted(0, 0, 0)))
    assert branch.read("files/notes") == NOTES + b"six\n" and branch.read("files/other") == b"other"


_COMMIT = """
import sys
import volfs.versions.commit.movement as movement
from volfs import open_store
from volfs.storage.codec import ChunkCodec
read, decode = movement.read_manifest, ChunkCodec.decode
counted = {"manifests": 0, "decoded": 0}
def reading(files):
    counted["manifests"] += 1
    return read(files)
def decoding(*args, **options):
    counted["decoded"] += 1
    return decode(*args, **options)
movement.read_manifest, ChunkCodec.decode = reading, decoding
with open_store(sys.argv[1]) as store:
    store["cells"].branch("main").commit("mine")
print(counted["manifests"], counted["decoded"], any(name.startswith("volfs.versions.combine") for name in sys.modules))
"""


def test_disjoint_changes_cost_a_manifest_for_each_version_that_came_and_load_no_engine(
    dataset: Dataset, branch: Branch, store: Store
) -> None:
    put(branch, painted(8, 8, 8), (1, 1, 1))
    for to in (8, 9):
        moved(dataset, painted(0, 0, 0, to=to))
    branch.close()
    done = subprocess.run([sys.executable, "-c", _COMMIT, str(store.path)], capture_output=True, text=True, check=True)
    manifests, decoded, engine = done.stdout.split()
    assert int(manifests) <= 2 and int(decoded) <= 1, "no chunk but the one that is written, to prove it"
    assert engine == "False"


_KILLED = """
import sys
from volfs import open_store
with open_store(sys.argv[1]) as store:
    store["cells"].branch("main").commit("mine")
"""


@pytest.mark.parametrize("point", ["late.drafted", "late.prepared", "late.published", "recover.based"])
def test_a_late_commit_that_is_killed_has_happened_or_has_not(dataset: Dataset, store: Store, point: str) -> None:
    branch = dataset.branch("main")
    put(branch, painted(0, 0, 0))
    moved(dataset, painted(1, 1, 1, to=9))
    branch.close()
    store.close()
    environment = {**os.environ, "VOLFS_CRASH_AT": "late.published" if point == "recover.based" else point}
    line = [sys.executable, "-c", _KILLED, str(store.path)]
    assert subprocess.run(line, env=environment, check=False).returncode == -signal.SIGKILL
    if point == "recover.based":
        environment["VOLFS_CRASH_AT"] = point
        assert subprocess.run(line, env=environment, check=False).returncode == -signal.SIGKILL
    subprocess.run(line, check=True)
    with open_store(store.path) as again:
        after = again["cells"]
        np.testing.assert_array_equal(voxels_of(after["main"]), painted(1, 1, 1, to=9, on=painted(0, 0, 0)))
        assert after.branch("main").is_clean() and set(after.branches()) == {"main"}
        assert len([info for info in after.log(first_parent=True) if info.message == "mine"]) == 1
        assert fsck(again).findings == []
