"""P8, P9, P10, P15: commits, imports, and programs that write into a branch.

What volfs has committed is on the disk (fsync); of the peers only ``cp`` is made to wait for it here.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import data
from tests.benchmarks.harness import (
    Bar,
    Bench,
    Ratio,
    at_least,
    at_most,
    faster,
    files_below,
    longer,
    measure,
    timed,
)
from tests.benchmarks.peers import loopback, passthrough
from volfs import open_store
from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.readers import open_source

COMMITS = 9


@measure("P8", "commit of one chunk among many")
def small_commit(bench: Bench) -> Iterable[Ratio]:
    """Put one chunk and commit, in stores that are open already; the first of each is not counted."""
    grid, edge = bench.scale.grid, data.SMALL
    path = bench.root / "small-commits"
    shutil.copytree(data.many_chunks_store(bench), path)
    session = _icechunk(bench, grid)
    pick = np.random.default_rng(6)

    with open_store(path) as store:
        branch = store["many"].branch("main")
        branch.acquire()
        try:

            def ours() -> list[float]:
                z, y, x = (int(n) for n in pick.integers(0, grid))
                voxels = pick.bytes(edge**3)
                start = time.perf_counter()
                branch.put(f"zarr/s0/c/{z}/{y}/{x}", voxels)
                branch.commit("one chunk")
                return [time.perf_counter() - start]

            def theirs() -> list[float]:
                corner = [int(n) * edge for n in pick.integers(0, grid)]
                voxels = np.frombuffer(pick.bytes(edge**3), np.uint8).reshape((edge,) * 3)
                return [timed(lambda: session(corner, voxels))]

            ours(), theirs()
            (commits,) = bench.in_turn(ours, theirs, runs=COMMITS)
        finally:
            branch.release()
    yield longer("P8", f"commit of 1 chunk in {math.prod(grid):,} ÷ icechunk (time)", commits, at_most(0.5))


def _icechunk(bench: Bench, grid: tuple[int, int, int]) -> Callable[[Any, Any], object]:
    """A repository on the disk with an array of as many chunks: what writes one and commits."""
    import icechunk
    import zarr

    edge = data.SMALL
    source = bench.root / "icechunk-source"
    source.mkdir()
    (source / "chunk").write_bytes(bytes(edge**3))
    prefix = f"file://{source}/"
    config = icechunk.RepositoryConfig.default()
    config.set_virtual_chunk_container(
        icechunk.VirtualChunkContainer(prefix, icechunk.local_filesystem_store(str(source)))
    )
    storage = icechunk.local_filesystem_storage(str(bench.root / "icechunk"))
    access = icechunk.containers_credentials({prefix: None})
    repository = icechunk.Repository.create(storage, config, authorize_virtual_chunk_access=access)
    session = repository.writable_session("main")
    shape = tuple(count * edge for count in grid)
    array = {"shape": shape, "chunks": (edge,) * 3, "dtype": "u1", "compressors": None, "fill_value": 0}
    zarr.create_array(session.store, name="s0", **array)  # type: ignore[arg-type]
    location = f"{prefix}chunk"
    # References to chunks elsewhere are committed as references to its own are, and quicker made.
    specs = [icechunk.VirtualChunkSpec(list(index), location, 0, edge**3) for index in np.ndindex(*grid)]
    session.store.set_virtual_refs("/s0", specs, validate_containers=False)
    session.commit("many chunks")

    def change(corner: Any, voxels: Any) -> object:
        session = repository.writable_session("main")
        key = tuple(slice(start, start + edge) for start in corner)
        zarr.open_array(session.store, path="s0", mode="r+")[key] = voxels
        return session.commit("one chunk")

    return change


@measure("P9", "import")
def imports(bench: Bench) -> Iterable[Ratio]:
    """An .npy into a store with all its levels, and the same array into Zarr by zarr-python, full resolution only."""
    import zarr
    from zarr.codecs import ZstdCodec

    source = bench.root / "new.npy"
    np.save(source, data.em(bench.scale.new_array))
    count = 0

    def ours() -> list[float]:
        nonlocal count
        count += 1
        path = bench.root / f"import{count}"
        with open_store(path, create=True) as store:
            start = time.perf_counter()
            with open_source([str(source)]) as found:
                import_source(store, "new", "", found, ImportOptions(chunks=data.CHUNK))
            seconds = time.perf_counter() - start
        shutil.rmtree(path)
        return [seconds]

    def theirs() -> list[float]:
        path = bench.root / "zarr-python"

        def write() -> None:
            voxels = np.load(source, mmap_mode="r")
            codec = ZstdCodec(level=3, checksum=True)
            shape = {"shape": voxels.shape, "chunks": data.CHUNK, "dtype": voxels.dtype}
            zarr.create_array(str(path), **shape, compressors=codec)[:] = voxels  # type: ignore[arg-type]

        seconds = timed(write)
        shutil.rmtree(path)
        return [seconds]

    (times,) = bench.in_turn(ours, theirs)
    yield faster("P9", "import with all levels ÷ zarr-python writing s0", times, at_least(2.0))


@measure("P10", "arrays written into a branch")
def written_arrays(bench: Bench) -> Iterable[Ratio]:
    """The same array by the same writer into a branch, onto the disk, and through filesystems that only pass every call
    on: in C, and by pyfuse3. TensorStore has each chunk synced, the others none, on every side."""
    store = bench.root / "written"
    data.imported(store, "new", data.em((64, 64, 64)))
    voxels = data.em(bench.scale.new_array)
    plain = bench.root / "plain"
    plain.mkdir(exist_ok=True)
    for name in ("behind-c", "behind-pyfuse3"):
        (bench.root / name).mkdir()
    number = 0

    def write(root: Path, writer: Callable[[Path, Any], None]) -> list[float]:
        nonlocal number
        number += 1
        path = root / f"a{number}"
        os.sync()
        seconds = timed(lambda: writer(path, voxels))
        shutil.rmtree(path)
        return [seconds]

    with (
        bench.mounted(store) as mount,
        passthrough(bench, bench.root / "behind-c", bench.root / "passed") as by_c,
        loopback(bench.root / "behind-pyfuse3", bench.root / "loopback") as by_pyfuse3,
    ):
        branch = mount / "new" / "branches" / "main" / "zarr"
        for writer in _WRITERS:
            if writer.module is not None and not find_spec(writer.module):
                bench.note(f"{writer.module} is not installed: it is in the extra `bench`")
                continue
            write_by = partial(write, writer=writer.write)
            onto_disk, through_c, through_pyfuse3 = bench.in_turn(
                lambda write_by=write_by: write_by(branch) * 3,  # type: ignore[misc]
                lambda write_by=write_by: write_by(plain) + write_by(by_c) + write_by(by_pyfuse3),  # type: ignore[misc]
            )
            what = f"{writer.name} writing into a branch ÷"
            yield faster("P10", f"{what} onto ext4", onto_disk, at_least(writer.to_disk))
            yield faster("P10", f"{what} through C FUSE passthrough", through_c, writer.to_c)
            yield faster("P10", f"{what} through a pyfuse3 that passes on", through_pyfuse3)


def _zarr(path: Path, voxels: Any) -> None:
    import zarr

    zarr.create_array(str(path), shape=voxels.shape, chunks=data.CHUNK, dtype=voxels.dtype)[:] = voxels


def _tensorstore(path: Path, voxels: Any) -> None:
    import tensorstore as ts

    grid = {"name": "regular", "configuration": {"chunk_shape": data.CHUNK}}
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(path)},
        "metadata": {"shape": voxels.shape, "data_type": "uint8", "chunk_grid": grid, "codecs": data.ZSTD},
    }
    ts.open(spec, create=True).result().write(voxels).result()


def _acquire(path: Path, voxels: Any, shard: tuple[int, int]) -> None:
    """As a microscope's camera: plane after plane, in shards of so many chunks along y and x."""
    import acquire_zarr as az

    _, y, x = voxels.shape
    along_y, along_x = (min(count, -(-size // 64)) for count, size in zip(shard, (y, x), strict=True))
    dimensions = [
        az.Dimension(name="z", kind=az.DimensionType.SPACE, array_size_px=0, chunk_size_px=64, shard_size_chunks=1),
        az.Dimension(
            name="y", kind=az.DimensionType.SPACE, array_size_px=y, chunk_size_px=64, shard_size_chunks=along_y
        ),
        az.Dimension(
            name="x", kind=az.DimensionType.SPACE, array_size_px=x, chunk_size_px=64, shard_size_chunks=along_x
        ),
    ]
    array = az.ArraySettings(dimensions=dimensions, data_type=az.DataType.UINT8)
    stream = az.ZarrStream(az.StreamSettings(store_path=str(path), arrays=[array], overwrite=True))
    for plane in voxels:
        stream.append(plane)
    stream.close()


@dataclass(frozen=True, slots=True)
class _Writer:
    """A program that writes an array to a path: its bar against ext4, and against C FUSE passthrough if it has one;
    ``module``: what it needs besides what the suite has."""

    name: str
    write: Callable[[Path, Any], None]
    to_disk: float
    to_c: Bar | None = None
    module: str | None = None


_WRITERS = (
    _Writer("zarr-python", _zarr, 0.7),
    _Writer("TensorStore", _tensorstore, 0.35, at_least(0.5)),
    _Writer("acquire-zarr, shards of 8 MiB,", partial(_acquire, shard=(4, 8)), 0.8, module="acquire_zarr"),
    _Writer("acquire-zarr, shards of 512 KiB,", partial(_acquire, shard=(1, 2)), 0.5, module="acquire_zarr"),
)


@measure("P15", "commit of many chunks")
def large_commit(bench: Bench) -> Iterable[Ratio]:
    """The working copy of a branch is plain files in the store: those are copied, and each copy is fsynced."""
    runs = min(bench.scale.runs, 2)
    count = bench.scale.changed
    path = bench.root / "large-commits"
    round_ = 0
    copying: list[float] = []

    with data.dataset_with_changes(path, count, runs) as (dataset, put):

        def ours() -> list[float]:
            nonlocal round_
            put(round_)
            round_ += 1
            copying.append(_copied(dataset.layout.working("main").root, bench.root / "copied"))
            os.sync()
            return [timed(lambda: dataset.branch("main").commit("many chunks"))]

        (times,) = bench.in_turn(ours, lambda: [copying[-1]], runs=runs)
    yield longer("P15", f"commit of {count:,} chunks of 4 KiB ÷ cp -r and fsync (time)", times, at_most(2.0))


def _copied(source: Path, target: Path) -> float:
    def copy() -> None:
        subprocess.run(["cp", "-r", str(source), str(target)], check=True)
        for path in files_below(target):
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)

    os.sync()
    seconds = timed(copy)
    shutil.rmtree(target)
    return seconds
