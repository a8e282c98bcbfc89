"""P1, P2, P3, P12, P13, P14: voxels through the mount, against programs that read the stored chunks themselves.

Every reader gets the same stored bytes: a version's own directory in the store is Zarr. *cold*: the page cache dropped,
a fresh daemon, a fresh process for the peer. *warm*: the same again in the same processes.
"""

from __future__ import annotations

import os
import shutil
import statistics
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil

from tests.benchmarks import data
from tests.benchmarks.harness import (
    Bar,
    Bench,
    Ratio,
    at_least,
    at_most,
    drop_caches,
    faster,
    files_of,
    longer,
    measure,
    read_files,
    timed,
)
from tests.benchmarks.peers import doing_nothing, passthrough, reader
from volfs.testing.kit import daemon_pid

AXIS = {"xy": -3, "xz": -2, "yz": -1}
ZARR_PLANES = 8


def _planes(
    bench: Bench, name: str, store: Path, dataset: str, plane: str, bar: Bar, slabs: bool = False
) -> Iterator[Ratio]:
    """Every slice in order, twice, on both sides. ``bar`` is that of cold reads. With ``slabs`` TensorStore reads all
    planes of a layer of chunks at once, too: who can take them so, need not decode ahead."""
    array = data.stored_array(store, dataset)

    def ours() -> list[float]:
        with bench.mounted(store, read_only=True) as mount:
            stacks = _stacks(mount / dataset, plane)
            cold, warm = (timed(lambda: [read_files(files_of(stack)) for stack in stacks]) for _ in range(2))
        return [cold, warm, cold] if slabs else [cold, warm]

    def theirs() -> list[float]:
        drop_caches()
        with reader("tensorstore", array) as peer:
            seconds = [peer.ask(planes=AXIS[plane]) for _ in range(2)]
        if slabs:
            drop_caches()
            with reader("tensorstore", array) as peer:
                seconds.append(peer.ask(planes=AXIS[plane], thick=data.CHUNK[0]))
        return seconds

    cold, warm, *whole = bench.in_turn(ours, theirs)
    yield faster(name, f"{dataset}, {plane} slices in order ÷ TensorStore, cold", cold, bar)
    yield faster(name, f"{dataset}, {plane} slices in order ÷ TensorStore, warm", warm, at_least(1.0))
    for times in whole:
        yield faster(name, f"{dataset}, {plane} slices in order ÷ TensorStore in whole slabs, cold", times)


def _stacks(dataset: Path, plane: str) -> list[Path]:
    level = dataset / "versions" / "v1" / "s0"
    found = (
        path for path in level.rglob(plane) if path.is_dir() and not {"oblique", "preview"}.intersection(path.parts)
    )
    return sorted(found)


def _processor_time(bench: Bench, store: Path, dataset: str, plane: str) -> Ratio:
    """Of whoever reads and of the daemon, kernel included, against TensorStore's: what is left to others on a machine
    whose processors are busy."""

    def ours() -> list[float]:
        with bench.mounted(store, read_only=True) as mount:
            stacks, daemon = _stacks(mount / dataset, plane), psutil.Process(daemon_pid(mount))
            before, start = daemon.cpu_times(), time.process_time()
            for stack in stacks:
                read_files(files_of(stack))
            own, after = time.process_time() - start, daemon.cpu_times()
        return [own + after.user + after.system - before.user - before.system]

    def theirs() -> list[float]:
        drop_caches()
        with reader("tensorstore", data.stored_array(store, dataset)) as peer:
            return [peer.ask(planes=AXIS[plane], processor=True)]

    (times,) = bench.in_turn(ours, theirs)
    return longer(
        "P2", f"{dataset}, {plane} slices in order, processor time ÷ TensorStore's, cold", times, at_most(1.0)
    )


def _against_zarr(bench: Bench, store: Path) -> Ratio:
    """zarr-python keeps no decoded chunks, so it decodes a slab for every slice: a few slices show its speed."""
    every = max(bench.scale.em[0] // ZARR_PLANES, 1)

    def ours() -> list[float]:
        with bench.mounted(store, read_only=True) as mount:
            slices = files_of(mount / "em" / "versions" / "v1" / "s0" / "xy")
            return [timed(lambda: read_files(slices)) / len(slices)]

    def theirs() -> list[float]:
        drop_caches()
        with reader("zarr", data.stored_array(store, "em")) as peer:
            return [peer.ask(planes=-3, every=every) / len(range(0, bench.scale.em[0], every))]

    return faster("P1", "em, xy slices ÷ zarr-python, cold", bench.in_turn(ours, theirs, runs=1)[0])


@measure("P1", "xy slices in order")
def xy_slices(bench: Bench) -> Iterable[Ratio]:
    yield from _planes(bench, "P1", data.em_store(bench), "em", "xy", at_least(1.0), slabs=True)
    yield from _planes(bench, "P1", data.small_store(bench), "small", "xy", at_least(1.0), slabs=True)
    yield from _planes(bench, "P1", data.light_sheet_store(bench), "sheet", "xy", at_least(0.9))
    yield from _planes(bench, "P1", data.labels_store(bench), "labels", "xy", at_least(0.6))
    yield _against_zarr(bench, data.em_store(bench))


@measure("P2", "xz and yz slices in order")
def other_slices(bench: Bench) -> Iterable[Ratio]:
    for dataset, store in (("em", data.em_store(bench)), ("small", data.small_store(bench))):
        yield from _planes(bench, "P2", store, dataset, "xz", at_least(1.0))
        yield from _planes(bench, "P2", store, dataset, "yz", at_least(1.3))
    yield _processor_time(bench, data.small_store(bench), "small", "xz")


@measure("P3", "slices read again")
def reread_slices(bench: Bench) -> Iterable[Ratio]:
    """Slices of 4 MiB, 1 MiB and 128 KiB: the smaller, the more of it is opening and closing files."""
    yield from _reread(bench, data.reread_store(bench), "em", "xy", at_least(0.8))
    yield from _reread(bench, data.small_store(bench), "small", "xy", at_least(0.8))
    yield from _reread(bench, data.small_store(bench), "small", "xz", at_least(0.5))


def _reread(bench: Bench, store: Path, dataset: str, plane: str, bar: Bar) -> Iterator[Ratio]:
    copy = bench.root / f"slices-{dataset}-{plane}"

    def again(files: list[Path]) -> float:
        read_files(files)
        return timed(lambda: read_files(files))

    with bench.mounted(store, read_only=True) as mount, ExitStack() as peers:
        slices = mount / dataset / "versions" / "v1" / "s0" / plane
        shutil.copytree(slices, copy)
        copies = files_of(copy)
        size = copies[0].stat().st_size
        passed = peers.enter_context(passthrough(bench, copy, bench.root / "passed", kept=True))
        nothing = peers.enter_context(doing_nothing(bench.root / "nothing", size))
        sides = [copies, files_of(passed), [nothing / file.name for file in copies]]
        times = bench.in_turn(lambda: [again(files_of(slices))] * len(sides), lambda: [again(side) for side in sides])
    what = f"{plane} slices of {_size(size)} read again ÷"
    ext4, through, ceiling = times
    yield faster("P3", f"{what} the same files on ext4, warm", ext4, bar)
    yield faster("P3", f"{what} the same files through C FUSE passthrough, warm", through)
    yield faster("P3", f"{what} files of a pyfuse3 that does nothing, warm", ceiling)


def _size(nbytes: int) -> str:
    return f"{nbytes / 2**20:.0f} MiB" if nbytes >= 2**20 else f"{nbytes / 2**10:.0f} KiB"


@measure("P12", "random 64 KiB by mmap")
def mapped_reads(bench: Bench) -> Iterable[Ratio]:
    store = data.em_store(bench)
    z, y, x = bench.scale.em
    rows = min(65536 // x, y)
    pick = np.random.default_rng(5)
    count = bench.scale.reads
    boxes = [
        (int(a), int(b) * rows, rows)
        for a, b in zip(pick.integers(0, z, count), pick.integers(0, y // rows, count), strict=True)
    ]

    def ours(name: str) -> list[float]:
        with bench.mounted(store, read_only=True) as mount:
            return [_mapped_boxes(mount / "em" / "versions" / "v1" / "s0" / name, bench.scale.em, boxes)]

    def theirs() -> list[float]:
        drop_caches()
        with reader("tensorstore", data.stored_array(store, "em")) as peer:
            return [peer.ask(boxes=boxes)]

    for name in ("volume.npy", "volume.nii"):
        (cold,) = bench.in_turn(lambda name=name: ours(name), theirs)  # type: ignore[misc]
        yield faster("P12", f"random 64 KiB of {name} by mmap ÷ TensorStore, cold", cold, at_least(1.0))


def _mapped_boxes(path: Path, shape: tuple[int, ...], boxes: list[tuple[int, int, int]]) -> float:
    """In a function of its own: a map that lives on keeps the mount busy."""
    volume = _mapped(path, shape)
    start = time.perf_counter()
    for at, first, rows in boxes:
        volume[at, first : first + rows].copy()
    return time.perf_counter() - start


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r")
    with path.open("rb") as file:
        (offset,) = struct.unpack("<f", file.read(112)[108:])  # vox_offset
    return np.memmap(path, np.uint8, "r", int(offset), shape)


@measure("P13", "volume.tif copied whole")
def whole_volume(bench: Bench) -> Iterable[Ratio]:
    store = data.em_store(bench)
    memory = Path("/dev/shm")
    room = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 * int(np.prod(bench.scale.em))
    target = (memory if room else bench.root) / f"volfs-bench-{os.getpid()}.tif"

    def ours() -> list[float]:
        with bench.mounted(store, read_only=True) as mount:
            source = mount / "em" / "versions" / "v1" / "s0" / "volume.tif"
            try:
                return [timed(lambda: subprocess.run(["cp", str(source), str(target)], check=True))]
            finally:
                target.unlink(missing_ok=True)

    def theirs(kind: str) -> list[float]:
        drop_caches()
        with reader(kind, data.stored_array(store, "em")) as peer:
            return [peer.ask(all=True)]

    (cold,) = bench.in_turn(ours, lambda: theirs("tensorstore"))
    yield faster("P13", "cp volume.tif ÷ TensorStore reading all, cold", cold, at_least(1.0))
    (cold,) = bench.in_turn(ours, lambda: theirs("zarr"), runs=1)
    yield faster("P13", "cp volume.tif ÷ zarr-python reading all, cold", cold)


@measure("P14", "eight readers at once")
def eight_readers(bench: Bench) -> Iterable[Ratio]:
    """A reader reads all slices of its own dataset. Eight at once should get as much together as one alone."""
    store = data.eight_store(bench)
    tails: list[float] = []

    def read(readers: int) -> list[float]:
        with bench.mounted(store, read_only=True) as mount, ExitStack() as stack:
            planes = [mount / f"d{number}" / "versions" / "v1" / "s0" / "xy" for number in range(readers)]
            processes = [stack.enter_context(reader("files", path)) for path in planes]
            for process in processes:
                process.ask(files=0)  # has started
            start = time.perf_counter()
            for process in processes:
                process.send(files=None)
            latencies = [process.receive() for process in processes]
            seconds = time.perf_counter() - start
        if readers > 1:
            p99s = [float(np.quantile(each, 0.99)) for each in latencies]
            tails.append(max(p99s) / statistics.median(p99s))
        return [seconds / readers]

    (shared,) = bench.in_turn(lambda: read(8), lambda: read(1))
    yield faster("P14", "8 readers together ÷ 1 alone", shared, at_least(1.0))
    yield Ratio("P14", "p99 of the slowest reader ÷ of the median reader", statistics.median(tails), at_most(3), tails)
