"""What any fast path must do when something is amiss: damage, a failing disk, other users, kills; and what it counts.

Never other bytes: what cannot be read is EIO for those who cross it, with the log line that says which file, and right
for everybody else. Nothing here knows how it is made: see :mod:`tests.kits.native_paths`.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE

import numpy as np
import pytest
from PIL import Image

import volfs
from tests.kits import fork_server, native_paths
from tests.kits.cells import add
from tests.kits.examples import open_directory
from tests.kits.mounts import answer, disk_that_can_fail, disk_that_can_stop, running, stopped
from tests.kits.mounts import volfs as command
from tests.kits.planes import Plane, planes_of
from volfs.storage.mount_table import mounted_at
from volfs.testing.kit import daemon_pid, mounted, take_away, unexpected
from volfs.testing.volumes import noise
from volfs.testing.waiting import PATIENCE, until

VOXELS = noise((40, 48, 64), "uint8")
CHUNK = 16
GRID = tuple(-(-n // CHUNK) for n in VOXELS.shape)
LEVEL = "cells/versions/v1/s0"
PLANES = list(planes_of(VOXELS, "zyx"))
STRANGER = 20_003


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one image of 36 chunks, in one shard."""
    path = tmp_path_factory.mktemp("template") / "store"
    with volfs.init_store(path) as store:
        add(store, "cells", "", VOXELS, "zyx", voxel_size="4,4,4nm", chunks=(CHUNK,) * 3, levels=1)
    return path


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "store")


@pytest.fixture(params=native_paths.THERE, autouse=True)
def path(request: pytest.FixtureRequest) -> Iterator[None]:
    """The way on which the mounts of the test answer."""
    with native_paths.taken(request.param):
        yield


def shard_of(store: Path) -> Path:
    [shard] = [path for path in (store / "datasets/cells/versions/00000001/zarr/s0/c").rglob("*") if path.is_file()]
    return shard


def payloads(shard: Path) -> dict[tuple[int, ...], tuple[int, int]]:
    """Offset and length of each chunk, from the index at its end (Zarr v3, ``sharding_indexed``)."""
    data = shard.read_bytes()
    meta = json.loads((shard.parents[shard.parts[::-1].index("c")] / "zarr.json").read_text())
    shape = meta["chunk_grid"]["configuration"]["chunk_shape"]
    cells = tuple(n // CHUNK for n in shape)
    numbers = struct.unpack(f"<{2 * np.prod(cells)}Q", data[-4 - 16 * int(np.prod(cells)) : -4])
    entries = zip(np.ndindex(*cells), numbers[::2], numbers[1::2], strict=True)
    return {at: (offset, length) for at, offset, length in entries if offset != 2**64 - 1}


def crosses(plane: Plane, chunk: tuple[int, ...]) -> bool:
    axis = "zyx".index(plane.stem[0])
    return int(plane.stem[1:]) // CHUNK == chunk[axis]


def read(top: Path, plane: Plane) -> bool:
    """Whether a slice can be read. It must be right then, and EIO else."""
    try:
        data = (top / LEVEL / plane.folder / f"{plane.stem}.png").read_bytes()
    except OSError as error:
        assert error.errno == errno.EIO
        return False
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), plane.voxels)
    return True


def logged(top: Path) -> set[str]:
    """The lines of the log that report errors, without their time."""
    lines = top.with_name(f"{top.name}.log").read_text().splitlines()
    return {line[24:] for line in lines if " ERROR " in line}


# ----------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("chunk", [(0, 0, 0), (1, 2, 3), (2, 0, 1)])
def test_a_flipped_bit_is_eio_for_what_crosses_the_chunk_and_the_log_says_where(
    store: Path, mountpoint: Path, chunk: tuple[int, ...]
) -> None:
    shard = shard_of(store)
    offset, length = payloads(shard)[chunk]
    data = bytearray(shard.read_bytes())
    data[offset + length // 2] ^= 0x10
    shard.write_bytes(data)
    with mounted(store, mountpoint, expect="checksum mismatch") as top:
        for _ in range(2):  # what failed once is not taken for right afterwards
            assert {plane.stem for plane in PLANES if not read(top, plane)} == {
                plane.stem for plane in PLANES if crosses(plane, chunk)
            }
        # Of a whole volume, the pages that hold a voxel of it.
        bad = np.zeros(VOXELS.shape, bool)
        bad[tuple(slice(i * CHUNK, (i + 1) * CHUNK) for i in chunk)] = True
        fd = os.open(top / LEVEL / "volume.raw", os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
            for start in range(0, VOXELS.size, 4096):
                if bad.ravel()[start : start + 4096].any():
                    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                        os.pread(fd, 4096, start)
                else:
                    assert os.pread(fd, 4096, start) == VOXELS.tobytes()[start : start + 4096]
        finally:
            os.close(fd)
    key, file = f"zarr/s0/c/{'/'.join(map(str, chunk))}", str(shard.relative_to(store / "datasets/cells/versions"))
    where = file if file.endswith(key) else f"{key}: {file}"
    what = f"checksum mismatch in {length} bytes at offset {offset}"
    assert logged(mountpoint) == {f"ERROR   volfs.fuse.adapter: read: {where}: {what}"}


@pytest.mark.parametrize("damage", ["cut short", "missing"])
def test_a_shard_that_is_cut_short_or_missing_is_eio_for_what_was_in_it(
    store: Path, mountpoint: Path, damage: str
) -> None:
    shard = shard_of(store)
    there, size = payloads(shard), 0
    if damage == "cut short":
        size = sorted(sum(place) for place in there.values())[len(there) // 2] - 1
        os.truncate(shard, size)
    else:
        shard.unlink()
    lost = [chunk for chunk, (offset, length) in there.items() if offset + length > size]
    with mounted(store, mountpoint, expect="were stored|cannot be opened") as top:
        for plane in PLANES:
            assert read(top, plane) != any(crosses(plane, chunk) for chunk in lost), plane.stem
    file = shard.relative_to(store / "datasets/cells/versions")
    why = {"cut short": r"ends at \d+, but \d+ bytes at offset \d+ were stored", "missing": "cannot be opened: .*"}
    line = re.compile(rf"ERROR   volfs\.fuse\.adapter: read: (zarr/s0/c/\d/\d/\d: )?{file}: {why[damage]}")
    assert logged(mountpoint) and all(line.fullmatch(one) for one in logged(mountpoint)), logged(mountpoint)


def test_a_disk_that_fails_is_eio_as_long_as_it_fails(store: Path, mountpoint: Path) -> None:
    with disk_that_can_fail(shard_of(store).parent) as mark, mounted(store, mountpoint, expect="read:") as top:
        mark.touch()
        assert not any(read(top, plane) for plane in PLANES[::9])
        mark.unlink()
        assert all(read(top, plane) for plane in PLANES)


# ------------------------------------------------------------------------------------------------------------ users


def test_who_may_not_read_a_dataset_is_refused_also_what_another_one_has_just_read(template: Path) -> None:
    with open_directory() as root:
        store = shutil.copytree(template, root / "store")
        command(store, "config", "cells", "mode=700")
        files = [f"{LEVEL}/xy/z00003.png", f"{LEVEL}/volume.raw", f"{LEVEL}/cutout/z0-3.npy", "cells/log.txt"]
        files += ["cells/versions/v1/zarr/s0/c/0/0/0"]

        def reads(*where: str | Path) -> subprocess.CompletedProcess[str]:
            user = ["setpriv", f"--reuid={STRANGER}", "--regid=65534", "--clear-groups", "cat"]
            return subprocess.run(
                [*user, *where], capture_output=True, text=True, errors="replace", check=False, cwd="/"
            )

        with mounted(store, root / "mnt", allow_other=True) as top:
            for again in range(2):
                for file in files:
                    assert (top / file).read_bytes()
                    done = reads(top / file)
                    assert done.returncode == 1 and not done.stdout, (file, again)
                    assert os.strerror(errno.EACCES) in done.stderr
            command(store, "config", "cells", "mode=755")
            until(lambda: not reads(*(top / file for file in files)).returncode)
            command(store, "config", "cells", "mode=700")
            until(lambda: reads(top / files[0]).returncode)
            for file in files:
                assert reads(top / file).returncode == 1


# ------------------------------------------------------------------------------------------------------ kills, ends


def killed(top: Path) -> None:
    os.kill(daemon_pid(top), signal.SIGKILL)


def told_to_end(top: Path) -> None:
    os.kill(daemon_pid(top), signal.SIGTERM)


def unmounted(top: Path) -> subprocess.Popen[bytes]:
    """By force, as programs use it. The command waits until the daemon has ended, and need not be waited for."""
    return fork_server.Popen([sys.executable, "-m", "volfs", "umount", "--force", top])


ENDS: dict[str, Callable[[Path], subprocess.Popen[bytes] | None]] = {
    "kill -9": killed,
    "SIGTERM": told_to_end,
    "umount": unmounted,
}


def finish(asked: subprocess.Popen[bytes] | None) -> None:
    if asked is not None:
        asked.wait(PATIENCE)


@contextmanager
def ending(store: Path, mountpoint: Path) -> Iterator[Path]:
    """A mount that may end in the block. Its log has no trouble to tell."""
    log = mountpoint.with_name("log")
    pid = answer(store, "mount", mountpoint, "--log", log)["pid"]
    try:
        yield mountpoint
    finally:
        if mounted_at(mountpoint) is not None:
            take_away(mountpoint)
        # A namespace that somebody else made meanwhile may have a copy of the mount, for which the daemon would go on.
        with suppress(FileNotFoundError):
            if os.fsencode(mountpoint) in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGTERM)
    until(lambda: not running(pid))
    assert not unexpected(log.read_text(), None)


@pytest.mark.parametrize("end", ENDS)
def test_who_reads_while_a_mount_ends_gets_the_right_bytes_or_an_error(store: Path, mountpoint: Path, end: str) -> None:
    read_right: list[str] = []
    wrong: list[str] = []
    begun = threading.Event()

    def reader(planes: list[Plane]) -> None:
        for plane in planes:
            try:
                data = (mountpoint / LEVEL / plane.folder / f"{plane.stem}.png").read_bytes()
            except OSError:
                continue
            right = np.array_equal(np.asarray(Image.open(io.BytesIO(data))), plane.voxels)
            (read_right if right else wrong).append(plane.stem)
            if len(read_right) > 20:
                begun.set()

    with ending(store, mountpoint):
        threads = [threading.Thread(target=reader, args=(PLANES[start::4],)) for start in range(4)]
        for thread in threads:
            thread.start()
        assert begun.wait(PATIENCE)
        asked = ENDS[end](mountpoint)
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
    finish(asked)
    assert not wrong
    with mounted(store, mountpoint) as top:
        assert all(read(top, plane) for plane in PLANES[::7])


def waiting(top: Path) -> bool:
    return json.loads((top / ".volfs/stats.json").read_text())["in_flight"].get("read", 0) > 0


@pytest.mark.parametrize("end", ENDS)
def test_who_waits_for_a_disk_when_a_mount_ends_is_let_go(store: Path, mountpoint: Path, end: str) -> None:
    with disk_that_can_stop(shard_of(store).parent) as disk:
        with ending(store, mountpoint), stopped(disk):
            waits = subprocess.Popen(["cat", mountpoint / LEVEL / "xy/z00003.png"], stdout=PIPE, stderr=DEVNULL)
            until(lambda: waiting(mountpoint))
            asked = ENDS[end](mountpoint)
            assert waits.communicate(timeout=PATIENCE)[0] == b"" and waits.returncode == 1
        finish(asked)
        with mounted(store, mountpoint) as top:
            assert all(read(top, plane) for plane in PLANES[::7])


def test_a_reader_that_is_killed_while_it_waits_is_gone_and_the_mount_goes_on(store: Path, mountpoint: Path) -> None:
    with disk_that_can_stop(shard_of(store).parent) as disk, mounted(store, mountpoint) as top:
        with stopped(disk):
            waits = subprocess.Popen(["cat", top / LEVEL / "xy/z00003.png"], stdout=DEVNULL)
            until(lambda: waiting(top))
            waits.kill()
            assert waits.wait(PATIENCE) == -signal.SIGKILL
        assert all(read(top, plane) for plane in PLANES)
        until(lambda: not waiting(top))


# ----------------------------------------------------------------------------------------------------------- counts


def test_those_who_read_the_same_at_once_have_each_chunk_decoded_once(store: Path, mountpoint: Path) -> None:
    with mounted(store, mountpoint) as top:
        slab = [plane for plane in PLANES if plane.folder == "xz"]
        ready, wrong = threading.Barrier(6), []

        def reader(planes: list[Plane]) -> None:
            ready.wait(PATIENCE)
            wrong.extend(plane.stem for plane in planes if not read(top, plane))

        threads = [threading.Thread(target=reader, args=(slab[:: 1 if n % 2 else -1],)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert not wrong
        assert all(read(top, plane) for plane in PLANES)
        decoded = answer(None, "stats", top)["decoded"]
        assert decoded["payloads"] == np.prod(GRID)


def test_opens_reads_and_bytes_are_counted_exactly(store: Path, mountpoint: Path) -> None:
    with mounted(store, mountpoint) as top:

        def counts() -> Counter[str]:
            fd = os.open(top / ".volfs/stats.json", os.O_RDONLY)
            text = os.pread(fd, 1 << 20, 0)
            os.close(fd)
            said = json.loads(text)
            answered = Counter({which: times["count"] for which, times in said["latency"].items()})
            # The opening of the statistics themselves has come, and is not answered yet; they are read afterwards.
            assert answered + Counter({"open": 1}) == Counter(said["requests"])
            return Counter(open=answered["open"], read=answered["read"], bytes=said["bytes"]["read"], own=len(text))

        def counted(work: Callable[[], None]) -> tuple[int, int, int]:
            """Opens, reads and bytes that come of some work, and not of asking for them."""
            before = counts()
            work()
            after = counts()
            opens, reads, size = (after[what] - before[what] for what in ("open", "read", "bytes"))
            return opens - 1, reads - 1, size - before["own"]

        some = [top / LEVEL / plane.folder / f"{plane.stem}.png" for plane in PLANES[::5]]
        sizes = [path.stat().st_size for path in some]

        def slices() -> None:
            for path in some:
                path.read_bytes()

        def pages() -> None:
            fd = os.open(top / LEVEL / "volume.raw", os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
            for start in (5 * 4096, 0, 17 * 4096):
                os.pread(fd, 4096, start)
            os.close(fd)

        assert counted(slices) == (len(some), len(some), sum(sizes))
        assert counted(slices) == (len(some), 0, 0), "the kernel has them"
        assert counted(pages) == (1, 3, 3 * 4096)
        assert counted(pages) == (1, 0, 0)
