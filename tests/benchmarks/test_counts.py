"""The benchmark suite by counts: what its measures cost on a real mount, on a volume of fixed size. Never by time.

Each measure has a dataset of its own, so what it reads first is cold. Counted: payloads decoded, bytes copied out of
blocks, bytes served, requests by kind, statements of SQLite. A bound is what the measure needs, and where the kernel
has a say (how far it reads ahead, how a listing is cut into requests), what it needs at most.
"""

from __future__ import annotations

import itertools
import json
import math
import mmap
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import volfs
from tests.kits.cells import add
from volfs.testing.kit import mounted
from volfs.testing.waiting import PATIENCE

SHAPE, CHUNKS = (64, 128, 128), (32, 32, 32)
GRID = tuple(n // c for n, c in zip(SHAPE, CHUNKS, strict=True))
BLOCKS, VOXELS = math.prod(GRID), math.prod(SHAPE)
BLOCK = math.prod(CHUNKS)
MEASURES = ("P1", "P2xz", "P2yz", "P4", "P5", "P8", "P12", "P13", "P14a", "P14b", "P14c", "P14d")
WRITTEN = ("P10", "P10b", "P10c", "P10d")
#: Requests of each kind that finding a path takes, and those that one look at the statistics takes.
PATH, LOOK = 10, 3
#: Requests of Python's that making the directories of a new array takes, and its metadata.
DIRECTORIES = 60


def voxels(name: str) -> np.ndarray:
    """EM-like: noise over slow changes, and the same in every run."""
    random = np.random.default_rng(list(name.encode()))
    z, y, x = np.meshgrid(*(np.linspace(0, 6, n) for n in SHAPE), indexing="ij")
    return (128 + 60 * np.sin(x + y) * np.cos(z) + random.normal(0, 12, SHAPE)).clip(0, 255).astype("u1")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("counted")
    with volfs.init_store(root / "store") as store:
        for name in (*MEASURES, *WRITTEN):
            add(store, name, "", voxels(name), "zyx", chunks=CHUNKS)
    with mounted(root / "store", root / "mnt", cache_size=64 << 20) as place:
        yield place


@dataclass(frozen=True)
class Cost:
    """What was counted from one look to the next."""

    requests: dict[str, int]
    decoded: int
    copied: int
    served: int
    written: int
    statements: int
    wasted: int
    looks: int
    #: Of the requests, those that C answered.
    front: dict[str, int]

    def for_python(self) -> int:
        """Requests that Python answered, without those that looking at the statistics took."""
        kinds = self.requests.keys() - {"readdir", "flush", "release"}
        return sum(max(0, self.of(kind) - self.front.get(kind, 0)) for kind in kinds)

    def of(self, *operations: str) -> int:
        """Requests of these kinds, without those that looking at the statistics took."""
        return sum(max(0, self.requests.get(operation, 0) - LOOK * self.looks) for operation in operations)


def facts(place: Path) -> tuple[dict[str, Any], int]:
    """The statistics, when all that was asked for is answered and nothing is decoded ahead any more; and how often they
    were looked at for that."""
    deadline = time.monotonic() + PATIENCE
    before: dict[str, Any] = {}
    for looks in itertools.count(1):
        now: dict[str, Any] = json.loads((place / ".volfs" / "stats.json").read_bytes())
        quiet = not now["in_flight"] and now["open_files"] <= 1
        if quiet and before and before["decoded"] == now["decoded"]:
            return now, looks
        assert time.monotonic() < deadline
        before = now
        time.sleep(0.05)
    raise AssertionError


def cost(place: Path, work: Callable[[], object]) -> Cost:
    before, _ = facts(place)
    work()
    after, looks = facts(place)

    def grown(kind: str, name: str) -> int:
        return int(after[kind][name] - before[kind][name])

    requests = {name: count - before["requests"].get(name, 0) for name, count in after["requests"].items()}
    return Cost(
        requests,
        decoded=grown("decoded", "payloads"),
        copied=grown("cache", "copied_bytes"),
        served=grown("bytes", "read"),
        written=grown("bytes", "written"),
        statements=grown("statements", "catalog"),
        wasted=grown("cache", "prefetch_wasted"),
        looks=looks,
        front={name: count - before["front"].get(name, 0) for name, count in after["front"].items()},
    )


@pytest.mark.parametrize(("measure", "plane"), [("P1", "xy"), ("P2xz", "xz"), ("P2yz", "yz")])
def test_all_slices_in_order(place: Path, measure: str, plane: str) -> None:
    """P1, P2: each chunk decoded once, each voxel copied once, a file one read."""
    folder = place / measure / "versions" / "v1" / "s0" / plane
    count = SHAPE[["xy", "xz", "yz"].index(plane)]
    found = cost(place, lambda: [(folder / name).read_bytes() for name in sorted(os.listdir(folder))])
    assert found.decoded == BLOCKS and found.wasted == 0
    assert VOXELS <= found.copied <= VOXELS * 1.05
    assert found.of("open") <= count + PATH and found.of("read") <= count + PATH
    assert found.of("lookup", "getattr") <= 2 * count + PATH
    assert found.statements <= 40, "once per slab, not per slice"
    again = min(
        (cost(place, lambda: [(folder / name).read_bytes() for name in sorted(os.listdir(folder))]) for _ in range(3)),
        key=lambda one: one.copied,  # a machine short of memory, or told to, drops pages
    )
    assert again.decoded == again.copied == 0, "P3: the kernel has kept the pages of what cannot change"
    assert again.of("read") <= PATH and again.statements <= PATH


def test_chunk_files(place: Path) -> None:
    """P4: passed through as stored, in one read each."""
    folder = place / "P4" / "versions" / "v1" / "zarr" / "s0" / "c"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stored = sum(path.stat().st_size for path in files)
    found = cost(place, lambda: [path.read_bytes() for path in files])
    assert len(files) == BLOCKS
    assert found.decoded == found.copied == 0
    assert found.served <= stored + (64 << 10), "what is stored, and the looks themselves"
    assert found.of("read") <= BLOCKS + PATH and found.statements <= 2 * BLOCKS + PATH


def test_listings_and_attributes(place: Path) -> None:
    """P5, P6: a listing brings the attributes along; neither decodes or asks for each name."""
    folder = place / "P5" / "versions" / "v1" / "s0" / "yz"
    listed = cost(place, lambda: subprocess.run(["ls", "-l", folder], check=True, stdout=subprocess.DEVNULL))
    assert listed.decoded == listed.copied == 0 and listed.statements <= 30
    assert listed.of("readdir") <= 8 and listed.of("getxattr", "listxattr") <= 1
    assert listed.of("lookup", "getattr") <= SHAPE[2] + PATH
    known = cost(place, lambda: [os.stat(folder / f"x{index:05}.png") for index in range(SHAPE[2])])
    assert known.of("lookup", "getattr") <= PATH and known.statements <= PATH


def test_a_commit_of_one_changed_chunk(place: Path) -> None:
    """P8: nothing is decoded, and the other chunks are not so much as looked at."""
    branch = place / "P8" / "branches" / "main"
    chunk = branch / "zarr" / "s0" / "c" / "0" / "0" / "0"
    other = (branch / "zarr" / "s0" / "c" / "0" / "0" / "1").read_bytes()

    def change() -> None:
        chunk.write_bytes(other)
        (branch / ".volfs" / "commit").write_text("one chunk\n")

    found = cost(place, change)
    assert (place / "P8" / "versions" / "v2" / "zarr" / "s0" / "c" / "0" / "0" / "0").read_bytes() == other
    assert found.decoded <= 1, "what is written must decode"
    assert found.written == len(other) + len("one chunk\n")
    assert found.statements <= 120 and found.of("write") <= 4


def test_an_array_written_by_zarr(place: Path) -> None:
    """P10: each chunk is written once; nothing is read but the metadata."""
    array = zarr.open_array(place / "P10" / "branches" / "main" / "zarr" / "s0", mode="r+")
    new = 255 - voxels("P10")

    def write() -> None:
        array[...] = new

    found = cost(place, write)
    assert found.decoded <= BLOCKS, "at most once, to see that it decodes"
    stored = sum(path.stat().st_size for path in (place / "P10/branches/main/zarr/s0/c").rglob("*") if path.is_file())
    assert found.written == stored
    assert found.of("write") <= BLOCKS * (1 + stored // BLOCKS // (128 << 10)) + PATH
    assert found.of("read") <= PATH and found.copied == 0


def write_until_c_does(place: Path, write: Callable[[str], None], wanted: Callable[[Cost], bool]) -> Cost:
    """What an array costs: a disk that makes one wait has Python make the writes for a while."""
    for turn in itertools.count():
        found = cost(place, lambda turn=turn: write(f"array{turn}"))  # type: ignore[misc]
        if wanted(found) or turn == 5:
            return found
    raise AssertionError


def test_a_new_array_written_by_zarr(place: Path) -> None:
    """P10: of eight requests a chunk two are Python's, create and rename, besides names of directories."""
    branch, new = place / "P10c" / "branches" / "main" / "zarr", voxels("P10")

    def write(name: str) -> None:
        zarr.create_array(branch / name, shape=SHAPE, chunks=CHUNKS, dtype=new.dtype)[:] = new

    found = write_until_c_does(place, write, lambda found: found.front["lookup"] >= 2 * BLOCKS)
    assert min(found.front[name] for name in ("write", "flush", "release")) >= BLOCKS
    assert found.front["lookup"] >= 2 * BLOCKS
    assert found.for_python() <= 2 * BLOCKS + DIRECTORIES and found.decoded == 0


def test_shards_written_by_acquire(place: Path) -> None:
    """P10: a shard is one file that is made under its own name and written piece by piece; each is synced."""
    az = pytest.importorskip("acquire_zarr")
    branch, new = place / "P10d" / "branches" / "main" / "zarr", voxels("P10")

    def write(name: str) -> None:
        dimensions = [
            az.Dimension(
                name=axis, kind=az.DimensionType.SPACE, array_size_px=size, chunk_size_px=32, shard_size_chunks=n
            )
            for axis, size, n in (("z", 0, 1), ("y", SHAPE[1], 1), ("x", SHAPE[2], 2))
        ]
        array = az.ArraySettings(dimensions=dimensions, data_type=az.DataType.UINT8)
        stream = az.ZarrStream(az.StreamSettings(store_path=str(branch / name), arrays=[array], overwrite=True))
        for plane in new:
            stream.append(plane)
        stream.close()

    def by_c(found: Cost) -> bool:
        fewest = min(found.front[name] for name in ("flush", "release", "fsync", "lookup"))
        return found.front["write"] >= BLOCKS and fewest >= BLOCKS // 4

    found = write_until_c_does(place, write, by_c)
    assert by_c(found)
    assert found.for_python() <= BLOCKS // 2 + DIRECTORIES and found.decoded == 0


def test_chunks_written_without_python(place: Path) -> None:
    """P10: after a chunk's file is made, C answers all until it is renamed: TensorStore's syncs included. What is left
    for Python per chunk are names: create and rename."""
    ts = pytest.importorskip("tensorstore")
    branch, new = place / "P10b" / "branches" / "main" / "zarr", voxels("P10")
    spec = {
        "driver": "zarr3",
        "metadata": {
            "shape": SHAPE,
            "data_type": "uint8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": CHUNKS}},
        },
    }

    def write(name: str) -> None:
        kvstore = {"driver": "file", "path": str(branch / name)}
        ts.open({**spec, "kvstore": kvstore}, create=True).result().write(new).result()

    write("first")
    every = ("write", "flush", "fsync", "fsyncdir")
    found = write_until_c_does(place, write, lambda found: min(found.front[name] for name in every) >= BLOCKS)
    assert min(found.front[name] for name in ("write", "fsync", "fsyncdir", "getattr", "open")) >= BLOCKS
    assert min(found.front[name] for name in ("flush", "release", "lookup")) >= 2 * BLOCKS - PATH
    assert found.of("write", "fsync", "fsyncdir", "opendir", "releasedir") <= 7 * BLOCKS + PATH
    assert found.of("lookup", "create", "open", "getattr", "rename", "release") <= 10 * BLOCKS + PATH
    assert found.decoded == 0
    assert found.for_python() <= 2 * BLOCKS + DIRECTORIES


def test_random_reads_of_a_mapped_volume(place: Path) -> None:
    """P12: the chunks below the pages that were touched, and no other. To and fro, so that nobody is seen walking: in a
    volume this small any two planes are neighbours."""
    path = place / "P12" / "versions" / "v1" / "s0" / "volume.raw"
    want = voxels("P12").tobytes()
    planes = [0, 63, 15, 48, 1, 62, 14, 49, 2, 61]
    per_plane = SHAPE[1] * SHAPE[2] // mmap.PAGESIZE
    pages = [
        z * per_plane + int(i)
        for z, i in zip(planes, np.random.default_rng(12).integers(0, per_plane, 10), strict=True)
    ]
    crossed = set()
    for page in pages:
        at = np.arange(page * mmap.PAGESIZE, (page + 1) * mmap.PAGESIZE)
        z, y, x = np.unravel_index(at, SHAPE)
        crossed |= set(zip((z // 32).tolist(), (y // 32).tolist(), (x // 32).tolist(), strict=True))

    def touch() -> None:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            mapped.madvise(mmap.MADV_RANDOM)
            for page in pages:
                at = page * mmap.PAGESIZE
                assert mapped[at : at + 100] == want[at : at + 100]

    found = cost(place, touch)
    assert found.decoded == len(crossed)
    assert found.of("read") <= len(pages) + PATH
    assert found.copied <= len(pages) * mmap.PAGESIZE * 2


def test_a_volume_copied_whole(place: Path, tmp_path: Path) -> None:
    """P13: each chunk decoded once, each voxel copied once, in large requests."""
    path = place / "P13" / "versions" / "v1" / "s0" / "volume.tif"
    found = cost(place, lambda: shutil.copyfile(path, tmp_path / "copy.tif"))
    assert found.decoded == BLOCKS and found.wasted == 0
    assert VOXELS <= found.copied <= VOXELS * 1.1
    assert path.stat().st_size <= found.served <= path.stat().st_size + (64 << 10)
    assert found.of("read") <= path.stat().st_size // (32 << 10) + PATH


def test_readers_of_several_datasets_at_once(place: Path) -> None:
    """P14: as much is decoded as by one after the other."""
    folders = [place / name / "versions" / "v1" / "s0" / "xy" for name in MEASURES if name.startswith("P14")]
    script = "for file in $0/*.png; do cat $file; done"

    def together() -> None:
        readers = [subprocess.Popen(["sh", "-c", script, folder], stdout=subprocess.DEVNULL) for folder in folders]
        assert [reader.wait(PATIENCE) for reader in readers] == [0] * len(folders)

    found = cost(place, together)
    assert found.decoded == BLOCKS * len(folders) and found.wasted == 0
    assert found.copied <= VOXELS * len(folders) * 1.05


def test_memory_stays_within_its_bounds(place: Path) -> None:
    """P11: after all that, every part is within the bound that the statistics name."""
    memory = facts(place)[0]["memory"]
    for name, part in memory["parts"].items():
        assert part.get("bytes", 0) <= part.get("max_bytes", math.inf), name
        assert part["items"] <= part.get("max_items", math.inf), name
    assert memory["parts"]["blocks"]["items"] > 0
    assert memory["peak_rss_bytes"] <= memory["parts"]["blocks"]["max_bytes"] + (200 << 20)
