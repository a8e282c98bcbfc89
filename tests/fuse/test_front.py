"""The front of a real mount: it answers, it answers right when memory is short, and a mount does without it."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import volfs as package
from tests.kits import fork_server
from tests.kits.mounts import running, volfs
from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.source import ArraySource
from volfs.storage.mount_table import mounted_at
from volfs.testing.kit import daemon_pid, mounted
from volfs.testing.waiting import PATIENCE, until
from volfs.versions.store import Store

SHAPE, CHUNKS = (70, 90, 130), (16, 32, 32)
VOXELS = np.random.default_rng(8).integers(0, 60000, SHAPE, dtype=np.uint16)
PLANES = (("xy", "z", 0), ("xz", "y", 1), ("yz", "x", 2))


def import_into(store: Store, name: str, voxels: np.ndarray) -> None:
    options = ImportOptions(axes="zyx", voxel_size="1,1,1um", chunks=CHUNKS, levels=1)
    import_source(store, name, "", ArraySource(voxels), options)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("front") / "store"
    with package.init_store(path) as made:
        import_into(made, "cells", VOXELS)
    return path


@pytest.fixture
def place(store: Path, tmp_path: Path) -> Iterator[Path]:
    with mounted(store, tmp_path / "mnt") as place:
        yield place


def facts(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / ".volfs/stats.json").read_bytes())
    return found


def level(place: Path, dataset: str = "cells") -> Path:
    return place / dataset / "versions/v1/s0"


def check_all_slices(place: Path, voxels: np.ndarray = VOXELS, dataset: str = "cells") -> None:
    for plane, letter, axis in PLANES:
        for index in range(voxels.shape[axis]):
            path = level(place, dataset) / plane / f"{letter}{index:05}.png"
            shown = np.asarray(Image.open(io.BytesIO(path.read_bytes())))
            np.testing.assert_array_equal(shown, voxels.take(index, axis), str(path))


def test_most_of_what_is_read_in_order_is_read_without_python(place: Path) -> None:
    for plane, *_ in PLANES:
        os.listdir(level(place) / plane)  # a file is given to the kernel only if that knows its name
    check_all_slices(place)
    said = facts(place)
    slices = sum(SHAPE)
    assert said["requests"]["read"] + said["ahead"]["files"] >= slices
    # One of each layer of chunks is Python's, which decodes it, and a few more while somebody else is busy.
    layers = sum(-(-n // chunk) for n, chunk in zip(SHAPE, CHUNKS, strict=True))
    assert said["front"]["read"] + said["ahead"]["files"] > slices - 4 * layers
    assert said["ahead"]["files"] > slices - 6 * layers, "the kernel has most of them before it asks"
    assert said["front"]["open"] > slices - 10
    assert said["front"]["ioctl"] == said["requests"]["ioctl"] >= slices, "Python asks whether a file is a terminal"
    assert said["decoded"]["payloads"] <= 5 * 3 * 5 * 3
    assert said["bytes"]["read"] + said["ahead"]["bytes"] > 3 * VOXELS.nbytes


def test_those_who_go_through_slices_at_once_in_all_ways_get_every_byte(place: Path) -> None:
    """Files are given ahead to one while others open and read them, and the kernel is told to forget what it has."""
    paths = [level(place) / "xz" / f"y{index:05}.png" for index in range(SHAPE[1])]
    os.listdir(paths[0].parent)
    expected = [path.read_bytes() for path in paths]

    def go(number: int) -> None:
        order = list(range(len(paths)))[:: (1, -1)[number % 2]]
        for turn in range(3):
            for index in order[number * turn :]:
                fd = os.open(paths[index], os.O_RDONLY)
                assert os.pread(fd, len(expected[index]) + 1, 0) == expected[index]
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(go, range(4), timeout=PATIENCE))
    until(lambda: facts(place)["open_files"] <= 1)
    assert facts(place)["ahead"]["files"] > 0


def test_volume_files_are_read_without_python_in_any_order(place: Path) -> None:
    path = level(place) / "volume.npy"
    whole = io.BytesIO()
    np.save(whole, VOXELS)
    for ending in ("npy", "raw", "nii", "tif", "nrrd", "mha"):
        data = (level(place) / f"volume.{ending}").read_bytes()
        assert VOXELS.tobytes() in data, ending
        if ending == "npy":
            assert data == whole.getvalue()
    assert facts(place)["front"]["read"] > 0
    random = np.random.default_rng(1)
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for _ in range(60):
            offset, size = (int(n) for n in random.integers(0, (len(whole.getvalue()), 200_000)))
            assert os.pread(file.fileno(), size, offset) == whole.getvalue()[offset : offset + size]


def test_chunk_files_of_versions_are_opened_without_python(place: Path, store: Path) -> None:
    root = place / "cells/versions/v1/zarr"
    with package.open_store(store) as opened:
        version = opened["cells"].version(1)
        files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        assert len(files) == 2 + 5 * 3 * 5
        assert files == {key: version.read(f"zarr/{key}") for key in files}
    said = facts(place)
    assert said["front"]["open"] >= len(files) - 5
    assert "flush" not in said["requests"]
    until(lambda: facts(place)["open_files"] <= 1)  # that of the statistics themselves
    with pytest.raises(OSError) as refused:
        (root / "zarr.json").open("r+b")
    assert refused.value.errno == errno.EROFS


def test_chunk_files_of_a_dataset_that_is_gone_cannot_be_read(store: Path, tmp_path: Path) -> None:
    with package.open_store(store) as opened:
        import_into(opened, "short", VOXELS[:16])
    with mounted(store, tmp_path / "mnt") as place:
        path = level(place, "short") / "chunks/c/0/0/0"
        path.read_bytes()
        with path.open("rb", buffering=0) as file:
            volfs(store, "rm", "short", "--yes")
            until(lambda: not path.exists())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with pytest.raises(OSError) as gone:
                file.read()
    assert gone.value.errno in (errno.ENOENT, errno.ESTALE, errno.EIO)


def test_memory_that_is_too_small_is_taken_back_and_every_byte_is_right(store: Path, tmp_path: Path) -> None:
    """A cache for less than two slabs: what is lent leaves all the time."""
    with mounted(store, tmp_path / "mnt", cache_size=1 << 20) as place:
        for _ in range(2):
            check_all_slices(place)
        said = facts(place)
        assert said["cache"]["evicted"] > 0
        assert said["memory"]["parts"]["blocks"]["bytes"] <= 1 << 20


def test_without_c_all_is_the_same(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOLFS_NATIVE", "0")
    with mounted(store, tmp_path / "mnt") as place:
        check_all_slices(place)
        assert facts(place)["front"] == {}


def test_a_listing_is_asked_for_once(place: Path) -> None:
    directory = level(place) / "xz"
    first = os.listdir(directory)
    asked = facts(place)["requests"]["readdir"]
    for _ in range(5):
        assert os.listdir(directory) == first
    assert facts(place)["requests"]["readdir"] == asked
    assert facts(place)["front"]["opendir"] >= 5


def test_open_files_are_counted_whoever_opened_them(place: Path) -> None:
    before = facts(place)["open_files"]
    paths = [level(place) / "xy" / f"z{index:05}.png" for index in range(6)]
    files = [path.open("rb") for path in paths]
    assert facts(place)["open_files"] == before + len(files)
    for file in files:
        file.close()
    until(lambda: facts(place)["open_files"] == before)


def test_who_has_a_slice_open_reads_it_when_its_planes_have_left(store: Path, tmp_path: Path) -> None:
    with mounted(store, tmp_path / "mnt", cache_size=1 << 20) as place:
        path = level(place) / "xy" / "z00003.png"
        with path.open("rb", buffering=0) as file:
            data = file.read()
            for plane, letter, axis in PLANES[1:]:
                for index in range(0, SHAPE[axis], 8):
                    (level(place) / plane / f"{letter}{index:05}.png").read_bytes()
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(file.fileno(), 1 << 20, 0) == data


def test_a_dataset_that_was_removed_is_not_read_any_more(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with package.init_store(path) as made:
        import_into(made, "gone", VOXELS[:20])
    with mounted(path, tmp_path / "mnt", expect="gone") as place:
        check_all_slices(place, VOXELS[:20], "gone")
        with (level(place, "gone") / "xy" / "z00001.png").open("rb", buffering=0) as file:
            volfs(path, "rm", "gone", "--yes")
            until(lambda: "gone" not in os.listdir(place))

            def refused() -> bool:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                try:
                    os.pread(file.fileno(), 100, 0)
                except OSError as error:
                    return error.errno in (errno.ENOENT, errno.ESTALE, errno.EIO)
                return False

            until(refused)
        other = VOXELS[::-1][:20].copy()
        with package.open_store(path) as opened:
            import_into(opened, "gone", other)
        until(lambda: "gone" in os.listdir(place))
        check_all_slices(place, other, "gone")


READER = """
import os, sys
path = sys.argv[1]
print("reads", flush=True)
while True:
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(1 << 16):
            pass
"""


@pytest.mark.parametrize("way", ["umount", "SIGTERM", "SIGKILL"])
def test_a_mount_ends_while_programs_read(store: Path, tmp_path: Path, way: str) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    paths = [level(place) / name for name in ("xy/z00003.png", "volume.raw")]
    volfs(store, "mount", place)
    try:
        for path in paths:
            path.read_bytes()
        programs = [
            fork_server.Popen(
                [sys.executable, "-c", READER, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for path in paths
        ]
        for program in programs:
            assert program.stdout is not None and program.stdout.readline() == "reads\n"
        daemon = daemon_pid(place)
        if way == "umount":
            volfs(None, "umount", "--force", place)
        else:
            os.kill(daemon, getattr(signal, way))
        for program in programs:
            complaint = program.communicate(timeout=PATIENCE)[1]
            assert program.returncode == 1 and re.search(
                r"No such file|not connected|connection abort|Input/output", complaint
            ), complaint
        until(lambda: not running(daemon))
    finally:
        if mounted_at(place) is not None:
            volfs(None, "umount", "--force", place)
