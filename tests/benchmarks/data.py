"""The data that the measures read: made here, once a run, always the same.

Stores are built through the same code as a user's, but without fsync: what is built need not survive a crash, and
building is not measured.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.harness import Bench
from volfs import init_store, open_store
from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.readers import open_source
from volfs.ingest.tissue import tissue
from volfs.model.metadata import ArrayMeta, array_zarr_json, group_zarr_json, parse_node
from volfs.storage.codec import ChunkCodec
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.dataset import Dataset
from volfs.versions.store import Store

CHUNK = (64, 64, 64)
ZSTD = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "zstd", "configuration": {"level": 3, "checksum": True}},
]
RAW = [{"name": "bytes", "configuration": {"endian": "little"}}]
SMALL = 4
"""Edge of the chunks of the store of many chunks."""
CHANGED = 16
"""Edge of the chunks that a large commit commits."""


@contextmanager
def unsynced() -> Iterator[None]:
    """Writing without waiting for the disk."""
    with mock.patch("os.fsync", lambda fd: None), mock.patch("os.fdatasync", lambda fd: None):
        yield


@cache
def _block() -> NDArray[np.uint8]:
    return tissue((192, 192, 192)).image


def em(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A tissue with noise, repeated to ``shape``: it compresses as badly as electron microscopy."""
    block = _block()
    repeats = [-(-want // have) for want, have in zip(shape, block.shape, strict=True)]
    return np.ascontiguousarray(np.tile(block, repeats)[tuple(slice(size) for size in shape)])


def imported(store: Path, name: str, voxels: NDArray[np.generic], **options: object) -> None:
    """Import an array into a store, which is made if there is none. 64³ chunks, zstd."""
    source = store.parent / f"{name}.npy"
    np.save(source, voxels)
    with unsynced(), open_store(store, create=True) as opened, open_source([str(source)]) as found:
        chosen = ImportOptions(chunks=CHUNK, levels=1, **options)  # type: ignore[arg-type]
        import_source(opened, name, "", found, chosen)
    source.unlink()


def em_store(bench: Bench) -> Path:
    return bench.once("em", lambda path: imported(path, "em", em(bench.scale.em)))


def small_store(bench: Bench) -> Path:
    """A volume of few planes: its xz and yz slices are small files, of which there are many."""
    return bench.once("small", lambda path: imported(path, "small", em(bench.scale.small)))


def reread_store(bench: Bench) -> Path:
    return bench.once("reread", lambda path: imported(path, "em", em(bench.scale.reread)))


def light_sheet_store(bench: Bench) -> Path:
    """u16, five axes."""

    def make(path: Path) -> None:
        shape = bench.scale.light_sheet
        base = em(shape[2:]).astype("u2") * 16
        voxels = np.stack([np.stack([base + 100 * t + c for c in range(shape[1])]) for t in range(shape[0])])
        imported(path, "sheet", voxels, axes="tczyx")

    return bench.once("sheet", make)


def labels_store(bench: Bench) -> Path:
    """u64 labels: large regions of one number."""

    def make(path: Path) -> None:
        z, y, x = np.ogrid[tuple(slice(size) for size in bench.scale.labels)]
        imported(path, "labels", (2**40 + z // 23 * 10_000 + y // 37 * 100 + x // 41).astype("u8"), labels=True)

    return bench.once("labels", make)


def eight_store(bench: Bench) -> Path:
    """Eight datasets, a quarter of the large one along each edge but x."""

    def make(path: Path) -> None:
        z, y, x = bench.scale.em
        voxels = em((max(z // 4, 64), max(y // 4, 64), x))
        for number in range(8):
            imported(path, f"d{number}", voxels)

    return bench.once("eight", make)


def stack_store(bench: Bench) -> Path:
    """Many small slices."""
    return bench.once("stack", lambda path: imported(path, "stack", em((bench.scale.planes, 64, 64))))


def many_chunks_store(bench: Bench) -> Path:
    """One version of a million tiny chunks (see ``Scale.grid``), and a huge volume that is almost all fill value."""

    def make(path: Path) -> None:
        grid = bench.scale.grid
        with unsynced(), init_store(path) as store:
            with store.new_dataset("many") as dataset, VersionWriter(dataset, "main", 0) as writer:
                writer.put("zarr/zarr.json", group_zarr_json())
                array = writer.array("s0", many_json(grid), created=True)
                payload = bytes(range(1, SMALL**3 + 1))
                for coords in np.ndindex(*grid):
                    array.put(coords, payload)
                writer.publish("many chunks")
            _huge(bench, store)

    return bench.once("many", make)


def many_json(grid: tuple[int, int, int]) -> bytes:
    shape = tuple(count * SMALL for count in grid)
    return array_zarr_json(shape, np.dtype("u1"), (SMALL,) * 3, codecs=RAW)


def _huge(bench: Bench, store: Store) -> None:
    edge = bench.scale.virtual
    raw = array_zarr_json((edge,) * 3, np.dtype("u1"), CHUNK, codecs=ZSTD)
    meta = parse_node(raw)
    assert isinstance(meta, ArrayMeta)
    payload = ChunkCodec.of(meta).encode(em(CHUNK))
    with store.new_dataset("huge") as dataset, VersionWriter(dataset, "main", 0) as writer:
        writer.put("zarr/zarr.json", group_zarr_json())
        cells = stored_cells(bench)
        array = writer.array("s0", raw, created=True, chunks=np.array(cells))
        for coords in cells:
            array.put(coords, payload)
        writer.publish("a few chunks")


def stored_cells(bench: Bench) -> list[tuple[int, int, int]]:
    """Which chunks of the huge volume are there."""
    along = bench.scale.virtual // CHUNK[0]
    numbers = np.random.default_rng(3).choice(along**3, bench.scale.stored, replace=False)
    return [(int(n) // along**2, int(n) // along % along, int(n) % along) for n in sorted(numbers.tolist())]


def long_history_store(bench: Bench) -> Path:
    """The store of many chunks after ``versions`` versions, each of one changed chunk."""

    def make(path: Path) -> None:
        shutil.copytree(many_chunks_store(bench), path)
        grid = bench.scale.grid
        raw = many_json(grid)
        pick = np.random.default_rng(4)
        with unsynced(), open_store(path) as store:
            dataset = store["many"]
            for parent in range(1, bench.scale.versions):
                coords = tuple(int(n) for n in pick.integers(0, grid))
                with VersionWriter(dataset, "main", parent) as writer:
                    array = writer.array("s0", raw, created=False, chunks=np.array([coords]))
                    array.put(coords, parent.to_bytes(SMALL**3, "little"))
                    writer.publish(f"change {parent}")

    return bench.once("history", make)


@contextmanager
def dataset_with_changes(path: Path, count: int, rounds: int) -> Iterator[tuple[Dataset, Callable[[int], None]]]:
    """A dataset, and what puts ``count`` changed chunks of 4 KiB into its working copy, others each round."""
    side = int(np.ceil(count ** (1 / 3)))
    raw = array_zarr_json(
        (side * CHANGED * rounds, side * CHANGED, side * CHANGED), np.dtype("u1"), (CHANGED,) * 3, codecs=RAW
    )
    with init_store(path) as store, store.new_dataset("edits") as dataset:
        with VersionWriter(dataset, "main", 0) as writer:
            writer.put("zarr/zarr.json", group_zarr_json())
            writer.put("zarr/s0/zarr.json", raw)
            writer.publish("an empty array")
        branch = dataset.branch("main")
        branch.acquire()

        def put(round_: int) -> None:
            payload = bytes([round_ + 1]) * CHANGED**3
            with unsynced():
                for number in range(count):
                    z, rest = divmod(number, side * side)
                    key = f"zarr/s0/c/{round_ * side + z}/{rest // side}/{rest % side}"
                    branch.put(key, payload)
            os.sync()

        try:
            yield dataset, put
        finally:
            branch.release()


def stored_array(store: Path, dataset: str) -> Path:
    """Where version 1 of an imported dataset lies in the store: Zarr, as other programs open it."""
    return store / "datasets" / dataset / "versions" / "00000001" / "zarr" / "s0"
