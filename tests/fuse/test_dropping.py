"""Versions are dropped, and their bytes go, under two mounts that are being read, one of them with a catalog of its
own."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.kits.mounts import volfs
from tests.kits.stores import SECOND, START, volume, write_version
from volfs import init_store, open_store
from volfs.fuse.processes import MountOptions
from volfs.testing.kit import mounted
from volfs.testing.waiting import until
from volfs.versions.check.fsck import fsck

SHAPE = (16, 32, 32)
VERSIONS = 6


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Versions that change the same chunks again and again, and one each."""
    root = tmp_path / "store"
    with init_store(root) as opened:
        dataset = opened.create_dataset("cells")
        state = volume(SHAPE)
        for number in range(1, VERSIONS + 1):
            state = state.copy()
            state[:8, :8, :8] = number
            state[8:, :8, 8 * (number % 4) : 8 * (number % 4) + 8] = number
            write_version(
                dataset,
                state,
                parent=number - 1,
                coords=None if number == 1 else [(0, 0, 0), (1, 0, number % 4)],
                shard_shape=(16, 32, 32),
                files={"files/n": str(number).encode() * 5000},
                time_ns=START + number * 10 * SECOND,
            )
    return root


@pytest.fixture
def mounts(store: Path, tmp_path: Path) -> Iterator[list[Path]]:
    """Two mounts of the store; the second has a catalog of its own."""
    with ExitStack() as stack:
        own = MountOptions(catalog=tmp_path / "own.sqlite")
        yield [
            stack.enter_context(mounted(store, tmp_path / "one")),
            stack.enter_context(mounted(store, tmp_path / "two", options=own)),
        ]


def shown(mount: Path) -> list[str]:
    return sorted(os.listdir(mount / "cells" / "versions"))


def test_two_mounts_under_reads_show_no_stale_byte_and_no_error_but_estale(store: Path, mounts: list[Path]) -> None:
    names = ("s0/volume.npy", "s0/xy/00003.png", "files/n", "zarr/s0/c/0/0/0", "zarr/s0/zarr.json")
    versions = [mount / "cells" / "versions" for mount in mounts]
    right: dict[str, bytes] = {}
    for number in range(1, VERSIONS + 1):
        folder = versions[0] / f"v{number}"
        for name in names:
            path = folder / name
            if not path.exists():  # of slices: whatever they are called
                path = next(path.parent.glob("*3.png"))
            right[f"v{number}/{path.relative_to(folder)}"] = path.read_bytes()
    opened: dict[tuple[Path, str], int] = {}
    with ExitStack() as files:
        for each in versions:
            for name in right:
                if name.startswith(("v2/", "v3/")):
                    opened[each, name] = os.open(each / name, os.O_RDONLY)
                    files.callback(os.close, opened[each, name])
        _collect_under_reads(store, mounts, right, opened)
    with open_store(store, read_only=True) as looking:
        assert fsck(looking).findings == []


def _collect_under_reads(
    store: Path, mounts: list[Path], right: dict[str, bytes], opened: dict[tuple[Path, str], int]
) -> None:
    versions = [mount / "cells" / "versions" for mount in mounts]
    wrong: list[str] = []
    stop = threading.Event()

    def read_kept(each: Path) -> None:
        while not stop.is_set():
            for name, data in right.items():
                if name.startswith(("v1/", f"v{VERSIONS}/")) and (each / name).read_bytes() != data:
                    wrong.append(f"{each / name} has other bytes")

    def read_dropped(place: tuple[Path, str], fd: int) -> None:
        while not stop.is_set():
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            try:
                data = os.pread(fd, len(right[place[1]]), 0)
            except OSError as error:
                if error.errno != errno.ESTALE:
                    wrong.append(f"{place}: {error}")
            else:
                if data != right[place[1]]:
                    wrong.append(f"{place} has other bytes")

    threads = [threading.Thread(target=read_kept, args=(each,)) for each in versions]
    threads += [threading.Thread(target=read_dropped, args=each) for each in opened.items()]
    for thread in threads:
        thread.start()
    try:
        kept = sorted(["latest", "v1", f"v{VERSIONS}"])
        dropped = [f"cells@v{number}" for number in range(2, VERSIONS)]
        volfs(store, "rm", *dropped, "--yes")
        for each in mounts:
            until(lambda each=each: shown(each) == kept, "a mount lists what was dropped no more")
            until(lambda each=each: not (each / "cells/versions/v3").exists())
            assert "v3  (dropped)" in (each / "cells" / "log.txt").read_text()
        done = volfs(store, "gc", "--grace", "0.001").stdout
        assert "freed" in done
        until(lambda: stop.wait(1.0) or True)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:5]


def test_gc_without_grace_is_refused_while_the_store_is_mounted(store: Path, mounts: list[Path]) -> None:
    volfs(store, "rm", "cells@v2", "--yes")
    said = volfs(store, "gc", "--grace", "0", ok=False)
    assert said.returncode == 1 and "is mounted at" in said.stderr


def test_a_file_of_a_dropped_version_that_is_read_late_is_stale(store: Path, tmp_path: Path) -> None:
    with mounted(store, tmp_path / "mnt") as mount, ExitStack() as stack:
        version = mount / "cells" / "versions" / "v3"
        fd = os.open(version / "files" / "n", os.O_RDONLY)
        stack.callback(os.close, fd)
        here = os.open(version, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, here)
        volfs(store, "rm", "cells@v3", "--yes")
        volfs(store, "gc", "--grace", "0.001")
        until(lambda: not version.exists())
        with pytest.raises(OSError) as caught:
            os.pread(fd, 5000, 0)
        assert caught.value.errno == errno.ESTALE
        with pytest.raises(OSError) as caught:
            os.fstat(fd)
        assert caught.value.errno == errno.ESTALE
        with pytest.raises(OSError) as caught:
            os.open("s0/volume.npy", os.O_RDONLY, dir_fd=here)
        assert caught.value.errno == errno.ESTALE
        assert np.load(mount / "cells/versions/v1/s0/volume.npy").shape == SHAPE


def test_two_mounts_under_reads_show_no_stale_byte_while_versions_are_made_merged_and_collected(
    store: Path, mounts: list[Path], tmp_path: Path
) -> None:
    """Commits through one mount, imports, merges and collections by commands. What a branch shows never goes back."""
    cells = [mount / "cells" for mount in mounts]
    source = tmp_path / "more.npy"
    np.save(source, np.zeros((8, 8, 8), "u1"))
    volfs(store, "branch", "cells", "exp", "v1")
    counter, newest = b"%06d" % 0, 0
    (cells[0] / "branches/main/files/counter").write_bytes(counter)
    (cells[0] / "branches/main/.volfs/commit").write_text("counting")
    wrong: list[str] = []
    stop = threading.Event()

    def read_versions(each: Path) -> None:
        known: dict[str, bytes] = {}
        while not stop.is_set():
            for name in os.listdir(each / "versions"):
                for part in ("files/n", "files/counter", "s0/volume.npy"):
                    path = each / "versions" / name / part
                    try:
                        data = path.read_bytes()
                    except OSError as error:
                        if error.errno not in (errno.ESTALE, errno.ENOENT):
                            wrong.append(f"{path}: {error}")
                        continue
                    if name != "latest" and known.setdefault(f"{name}/{part}", data) != data:
                        wrong.append(f"{path} has other bytes than before")

    def read_branch(each: Path) -> None:
        last = 0
        while not stop.is_set():
            try:
                seen = int((each / "branches/main/files/counter").read_bytes())
            except OSError as error:
                if error.errno != errno.ESTALE:
                    wrong.append(f"{each}: {error}")
                continue
            if seen < last:
                wrong.append(f"{each}: {seen} after {last}")
            last = seen

    threads = [threading.Thread(target=read, args=(each,)) for each in cells for read in (read_versions, read_branch)]
    for thread in threads:
        thread.start()
    try:
        for newest in range(1, 4):
            draft = cells[0] / "branches/main/files/counter.new"
            draft.write_bytes(b"%06d" % newest)
            draft.rename(draft.with_suffix(""))
            (cells[0] / "branches/main/.volfs/commit").write_text(f"count {newest}")
            write_files(store, newest)
            volfs(store, "merge", "cells@main", "exp")
            volfs(store, "import", f"cells/more{newest}", str(source))
            volfs(store, "gc", "--keep", "2", "--grace", "0.001")
        for each in cells:
            until(lambda each=each: int((each / "branches/main/files/counter").read_bytes()) == newest)
            until(lambda each=each: (each / f"versions/latest/files/exp{newest}").exists())
            until(lambda each=each: (each / f"versions/latest/more{newest}").exists())
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:5]
    with open_store(store, read_only=True) as looking:
        assert fsck(looking).findings == []


def write_files(store: Path, number: int) -> None:
    """A version on exp, by a process that no mount knows of."""
    with open_store(store) as opened:
        branch = opened["cells"].branch("exp")
        branch.put(f"files/exp{number}", b"x")
        branch.commit(f"exp {number}")
