"""P4, P5, P6, P7: files by name. Chunk files, listings, attributes, and how soon a fresh mount answers."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks import data
from tests.benchmarks.harness import (
    Bench,
    Ratio,
    at_least,
    at_most,
    drop_caches,
    faster,
    files_below,
    files_of,
    longer,
    measure,
    read_files,
    timed,
)
from tests.benchmarks.peers import doing_nothing, passthrough


@measure("P4", "chunk files")
def chunk_files(bench: Bench) -> Iterable[Ratio]:
    """The disk is warm on both sides: what is measured is the way through FUSE."""
    store = data.em_store(bench)
    copy = bench.root / "chunks"
    if not copy.exists():
        with bench.mounted(store) as mount:
            shutil.copytree(mount / "em" / "versions" / "v1" / "zarr", copy)

    def warm_disk() -> None:
        read_files(files_below(copy))
        read_files(files_below(data.stored_array(store, "em")))

    def ours() -> list[float]:
        warm_disk()
        with bench.mounted(store, cold=False) as mount:
            return _chunks(mount / "em" / "versions" / "v1" / "zarr")

    def theirs() -> list[float]:
        warm_disk()
        with passthrough(bench, copy, bench.root / "passed") as mount:
            return _chunks(mount)

    names = [path.relative_to(copy) for path in files_below(copy / "s0" / "c")]
    size = sum((copy / name).stat().st_size for name in names) // len(names)

    def known() -> list[float]:
        warm_disk()
        with bench.mounted(store, cold=False) as mount:
            root = mount / "em" / "versions" / "v1" / "zarr"
            return [timed(lambda: read_files(root / name for name in names))]

    def nothing() -> list[float]:
        with doing_nothing(bench.root / "nothing", size) as mount:
            return [timed(lambda: read_files(mount / f"{name}.bin" for name in names))]

    (through,) = bench.in_turn(ours, theirs)
    (ceiling,) = bench.in_turn(known, nothing)
    yield faster("P4", "chunk files ÷ C FUSE passthrough, cold daemon, warm disk", through, at_least(0.7))
    yield faster("P4", "chunk files of known paths ÷ a pyfuse3 that does nothing, cold daemon, warm disk", ceiling)


def _chunks(root: Path) -> list[float]:
    return [timed(lambda: read_files(files_below(root / "s0" / "c")))]


def _stack_on_ext4(bench: Bench) -> Path:
    copy = bench.root / "stack-slices"
    if not copy.exists():
        with bench.mounted(data.stack_store(bench)) as mount:
            shutil.copytree(mount / "stack" / "versions" / "v1" / "s0" / "xy", copy)
    return copy


@measure("P5", "ls -l of many slices")
def listing(bench: Bench) -> Iterable[Ratio]:
    copy = _stack_on_ext4(bench)

    def ls(directory: Path) -> list[float]:
        command = ["ls", "-l", str(directory)]
        return [timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)) for _ in range(2)]

    def ours() -> list[float]:
        with bench.mounted(data.stack_store(bench)) as mount:
            return ls(mount / "stack" / "versions" / "v1" / "s0" / "xy")

    def theirs() -> list[float]:
        drop_caches()
        on_disk = ls(copy)
        drop_caches()
        with passthrough(bench, copy, bench.root / "passed", kept=True) as passed:
            return on_disk + ls(passed)

    cold, warm, cold_through, warm_through = bench.in_turn(lambda: ours() * 2, theirs)
    what = f"ls -l of {bench.scale.planes:,} slices"
    yield longer("P5", f"{what} ÷ ext4, cold (time)", cold, at_most(1.0))
    yield longer("P5", f"{what} ÷ ext4, a second time (time)", warm, at_most(1.0))
    yield longer("P5", f"{what} ÷ C FUSE passthrough, cold (time)", cold_through)
    yield longer("P5", f"{what} ÷ C FUSE passthrough, a second time (time)", warm_through)


@measure("P6", "attributes of known paths")
def attributes(bench: Bench) -> Iterable[Ratio]:
    """Paths that the program knows, without a listing before: a lookup for each."""
    names = [path.name for path in files_of(_stack_on_ext4(bench))]
    below = Path("stack", "versions", "v1", "s0", "xy")

    def stat(root: Path) -> list[float]:
        paths = [str(root / below / name) for name in names]
        return [timed(lambda: [os.stat(path) for path in paths])]

    def ours() -> list[float]:
        with bench.mounted(data.stack_store(bench)) as mount:
            return stat(mount)

    def theirs() -> list[float]:
        drop_caches()
        with doing_nothing(bench.root / "nothing") as mount:
            return stat(mount)

    (cold,) = bench.in_turn(ours, theirs)
    yield faster("P6", f"stat of {len(names):,} known paths ÷ a pyfuse3 that does nothing, cold", cold, at_least(0.8))


@measure("P7", "mount to first byte")
def first_byte(bench: Bench) -> Iterable[Ratio]:
    """From starting the daemon to the first byte of a slice: on an empty page cache, and once the disk is warm.

    The first mount is not counted: Python writes its bytecode then, which an installer does.
    """
    young, old = data.many_chunks_store(bench), data.long_history_store(bench)

    def first(store: Path, version: int) -> list[float]:
        drop_caches()
        return [answered(store, version), answered(store, version)]

    def answered(store: Path, version: int) -> float:
        start = time.perf_counter()
        with bench.mounted(store, cold=False) as mount:
            with (mount / "many" / "versions" / f"v{version}" / "s0" / "xy" / "z00001.png").open("rb") as file:
                file.read(1)
            return time.perf_counter() - start

    answered(young, 1)
    cold, warm = bench.in_turn(lambda: first(old, bench.scale.versions), lambda: first(young, 1))
    many = f"{bench.scale.versions:,} versions, {math.prod(bench.scale.grid):,} chunks"
    for state, times in (("cold", cold), ("warm", warm)):
        what = f"mount to first byte, {many}, {state}"
        yield longer("P7", f"{what} ÷ one version (time)", times, at_most(1.5))
        yield longer("P7", f"{what} ÷ one second (time)", (times[0], [1.0] * len(times[0])), at_most(1.0))
