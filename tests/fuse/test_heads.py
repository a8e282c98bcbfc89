"""A head that moves under a mount which holds the branch: the mount follows within moments, or says what is in the way,
and that is decided by files alone as by the command."""

from __future__ import annotations

import json
import mmap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.kits.mounts import answer, refused, volfs
from tests.kits.stores import chunk, volume
from volfs import init_store, open_store
from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.source import ArraySource
from volfs.testing.kit import mounted
from volfs.testing.waiting import until
from volfs.versions.commit.version_writer import VersionWriter

SHAPE = (16, 16, 16)
OLD, NEW = volume(SHAPE, 0), volume(SHAPE, 1)
CHUNK = "zarr/s0/c/0/0/0"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("heads")
    with init_store(root / "store") as store:
        import_source(store, "cells", "", ArraySource(OLD, "image"), ImportOptions(chunks=(8, 8, 8), levels=1))
        branch = store["cells"]["main"]
        branch.put("files/notes", b"old")
        branch.commit("notes")
    return root


@pytest.fixture(scope="module")
def mount(root: Path) -> Iterator[Path]:
    with mounted(root / "store", root / "mnt") as place:
        yield place


@pytest.fixture
def main(mount: Path) -> Iterator[Path]:
    """``branches/main``, held by the mount; clean before and after."""
    place = mount / "cells" / "branches" / "main"
    (place / "files" / "held").write_text(f"held {time.time_ns()}")
    yield place
    (place / ".volfs" / "discard").write_text("all")
    until(lambda: not status(place)["behind"])


def status(main: Path) -> dict[str, object]:
    return json.loads((main / ".volfs" / "status.json").read_bytes())


def move(root: Path, voxels: np.ndarray | None = None, **files: bytes) -> int:
    """Move the head as a machine does whose locks nobody here sees."""
    with open_store(root / "store") as store:
        dataset = store["cells"]
        parent = dataset.branches()["main"]
        with VersionWriter(dataset, "main", parent) as writer:
            for name, data in files.items():
                writer.put(f"files/{name}", data)
            if voxels is not None:
                version = dataset.version(parent)
                array = writer.array("s0", version.read("zarr/s0/zarr.json"), created=False)
                array.put((0, 0, 0), chunk(version.array("s0").meta, voxels, (0, 0, 0)))
            writer.prepare("moved")
            return writer.place().number


def test_a_mount_follows_a_head_that_moved_and_keeps_what_is_uncommitted(root: Path, main: Path) -> None:
    plane = main / "s0" / "xy" / "z00003.npy"
    with plane.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        before = bytes(mapped)
        stood = plane.stat().st_mtime_ns
        number = move(root, OLD + 1)
        until(lambda: bytes(mapped) != before)
        assert (np.load(plane)[:8, :8] == OLD[3, :8, :8] + 1).all()
        assert plane.stat().st_mtime_ns > stood
        assert plane.read_bytes() == bytes(mapped)
    assert (main / "files" / "held").read_text().startswith("held")
    assert status(main)["head"] == f"v{number}" and status(main)["behind"] is None
    (main / ".volfs" / "commit").write_text("held")
    assert status(main)["head"] == f"v{number + 1}"


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_a_branch_that_is_behind_is_decided_by_files_alone(root: Path, main: Path, side: str) -> None:
    volume_file = main / "s0" / "volume.npy"
    mine = np.load(volume_file)
    mine[0, 0, 0] += 1
    view = np.load(volume_file, mmap_mode="r+")
    view[0, 0, 0] = mine[0, 0, 0]
    view.flush()
    del view
    (main / "files" / "notes").write_text(f"mine {side}")
    number = move(root, NEW, notes=f"theirs {side}".encode())
    until(lambda: status(main)["behind"])
    assert status(main)["behind"] == {"base": f"v{number - 1}", "versions": 1, "keys": ["files/notes", CHUNK]}
    assert (np.load(volume_file) == mine).all(), "reads go over the base"
    assert f"v{number} and the uncommitted changes" in refused(root / "store", "commit", "cells", "-m", "mine")
    with pytest.raises(OSError, match="busy"):
        (main / ".volfs" / "commit").write_text("mine")
    with pytest.raises(OSError, match="Invalid argument"):
        (main / ".volfs" / "update").write_text("mine")
    (main / ".volfs" / "update").write_text(f"{side} files/notes")
    assert status(main)["behind"]["keys"] == [CHUNK]
    (main / ".volfs" / "update").write_text(f"{side}\n")
    assert status(main)["behind"] is None
    expected = mine.copy()
    expected[:8, :8, :8] = (mine if side == "ours" else NEW)[:8, :8, :8]
    assert (np.load(volume_file) == expected).all()
    assert (main / "files" / "notes").read_text() == ("mine ours" if side == "ours" else "theirs theirs")
    (main / ".volfs" / "commit").write_text(f"decided {side}")
    latest = main.parents[1] / "versions" / "latest" / "s0" / "volume.npy"
    until(lambda: (np.load(latest) == expected).all())


def test_keys_of_any_spelling_are_decided_through_the_mount(root: Path, main: Path) -> None:
    odd = ("two\nlines", "at the end ", "\u2028", "plain")
    for name in odd:
        (main / "files" / name).write_text("mine")
    move(root, **dict.fromkeys(odd, b"theirs"))
    until(lambda: status(main)["behind"])
    assert "empty key" in refused(root / "store", "update", "cells", "--theirs", "")
    for left, name in zip((3, 2, 1, 0), odd, strict=True):
        volfs(root / "store", "update", "cells", "--theirs", f"files/{name}/", ok=not left)
        assert len((status(main)["behind"] or {"keys": []})["keys"]) == left
    assert {(main / "files" / name).read_text() for name in odd} == {"theirs"}


def test_a_branch_that_is_behind_is_decided_by_the_command_through_the_mount(root: Path, main: Path) -> None:
    (main / "files" / "notes").write_text("mine")
    (main / "files" / "other").write_text("mine")
    number = move(root, notes=b"theirs", other=b"theirs")
    until(lambda: status(main)["behind"])
    said = volfs(root / "store", "status", "cells").stdout
    assert f"behind by 1 version: the changes lie over v{number - 1}" in said
    assert "files/notes" in said and "volfs update cells@main --ours or --theirs" in said
    assert answer(root / "store", "status", "cells")["behind"]["keys"] == ["files/notes", "files/other"]
    undecided = volfs(root / "store", "update", "cells", "--theirs", "files/notes", "--json", ok=False)
    assert undecided.returncode == 1
    assert json.loads(undecided.stdout)["behind"]["keys"] == ["files/other"]
    assert "files/none is not in conflict" in refused(root / "store", "update", "cells", "--ours", "files/none")
    decided = volfs(root / "store", "update", "cells@main", "--ours", "files/other")
    assert decided.stdout == f"cells@main: on v{number}\n"
    assert (main / "files" / "notes").read_text() == "theirs"
    assert (main / "files" / "other").read_text() == "mine"


def test_the_same_decision_again_does_no_harm(root: Path, main: Path) -> None:
    (main / "files" / "notes").write_text("mine again")
    move(root, notes=b"theirs again")
    until(lambda: status(main)["behind"])
    for _ in range(2):
        (main / ".volfs" / "update").write_text("theirs files/notes")
    assert (main / "files" / "notes").read_text() == "theirs again"


def test_a_branch_whose_base_is_gone_is_named_and_hides_no_other(tmp_path: Path) -> None:
    with init_store(tmp_path / "store") as store:
        for name in ("bad", "good"):
            store.create_dataset(name)["main"].put("files/x", b"x")
        base = store["bad"].layout.working("main").base
    base.write_text('{"version": 7, "content_id": "gone"}')
    said = volfs(tmp_path / "store", "status", ok=False)
    assert said.returncode == 1
    assert said.stdout.startswith("good@main:")
    assert "made over v7, which is not there: discard them" in said.stderr
    volfs(tmp_path / "store", "discard", "bad", "--yes")
    assert volfs(tmp_path / "store", "status").stdout.startswith("good@main:")
