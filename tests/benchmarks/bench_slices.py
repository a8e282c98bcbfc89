"""Slices through the mount against TensorStore reading the same planes from the same stored bytes.

Both sides start from a committed version of one u8 volume with noise, 64-voxel zstd chunks. The mount serves PNG files
(stored deflate: the voxels and their framing); TensorStore opens the version's own directory in the store with its
zarr3 driver, reads the same planes in the same order, and holds decoded chunks in a 1 GiB cache, as a user of it would.

*cold*: the page cache dropped, a fresh daemon, a fresh TensorStore process. *warm*: the same again in the same
processes. The two sides run in turn, A B A B, and the ratio of their medians is printed: above 1, the mount is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from volfs.ingest.procedural import tissue
from volfs.testing.kit import mounted

PLANES = ("xy", "xz", "yz")

_TENSORSTORE = r"""
import json, sys, time
import tensorstore as ts
path = sys.argv[1]
spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path},
        "context": {"cache_pool": {"total_bytes_limit": 1 << 30}}, "recheck_cached_data": "open"}
array = ts.open(spec, read=True).result()
for line in sys.stdin:
    axis = "xyz".index({"xy": "z", "xz": "y", "yz": "x"}[line.strip()])
    dim = 2 - axis
    start = time.perf_counter()
    for index in range(array.shape[dim]):
        key = [slice(None)] * 3
        key[dim] = index
        array[tuple(key)].read().result()
    print(json.dumps(time.perf_counter() - start), flush=True)
"""


def drop_caches() -> None:
    """Empty the kernel's page cache where we may, so that *cold* means it."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        print("(cannot drop the page cache: cold figures are warm on disk)", file=sys.stderr)


def build(root: Path, edge: int) -> Path:
    """A store of one dataset ``em``, one version, no pyramid."""
    source = root / "em.npy"
    block = tissue((min(edge, 256),) * 3).image
    repeats = -(-edge // block.shape[0])
    volume = np.tile(block, (repeats, repeats, repeats))[:edge, :edge, :edge]
    np.save(source, volume)
    store = root / "store"
    volfs = [sys.executable, "-m", "volfs", "--store", str(store)]
    subprocess.run([*volfs, "init"], check=True, stdout=subprocess.DEVNULL)
    command = [*volfs, "import", "em", str(source), "--chunks", "64,64,64", "--levels", "1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    source.unlink()
    return store


def read_mount(version: Path, plane: str) -> float:
    """Seconds to read every file of ``plane`` in order, as a viewer stepping through the stack does."""
    names = sorted(os.listdir(version / "s0" / plane))
    start = time.perf_counter()
    for name in names:
        (version / "s0" / plane / name).read_bytes()
    return time.perf_counter() - start


@contextmanager
def tensorstore_reader(store: Path) -> Iterator[subprocess.Popen[str]]:
    array = store / "datasets" / "em" / "versions" / "00000001" / "zarr" / "s0"
    command = [sys.executable, "-c", _TENSORSTORE, str(array)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)


def ask(reader: subprocess.Popen[str], plane: str) -> float:
    assert reader.stdin is not None and reader.stdout is not None
    reader.stdin.write(plane + "\n")
    reader.stdin.flush()
    return float(json.loads(reader.stdout.readline()))


def measure(store: Path, root: Path, plane: str, runs: int) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of (mount, TensorStore) for ``plane``, cold and warm."""
    times: dict[str, tuple[list[float], list[float]]] = {"cold": ([], []), "warm": ([], [])}
    for _ in range(runs):
        drop_caches()
        with mounted(store, root / "mnt") as mount:
            version = Path(mount) / "em" / "versions" / "v1"
            times["cold"][0].append(read_mount(version, plane))
            times["warm"][0].append(read_mount(version, plane))
        drop_caches()
        with tensorstore_reader(store) as reader:
            times["cold"][1].append(ask(reader, plane))
            times["warm"][1].append(ask(reader, plane))
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=640, help="voxels along each edge of the volume")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a 192-voxel volume, one run")
    options = parser.parse_args()
    if options.quick:
        options.edge, options.runs = 192, 1
    with tempfile.TemporaryDirectory(prefix="volfs-bench-") as name:
        root = Path(name)
        store = build(root, options.edge)
        mib = options.edge**3 / 2**20
        print(f"{options.edge}³ u8 ({mib:.0f} MiB of voxels), median of {options.runs}; throughput mount ÷ TensorStore")
        print(f"{'plane':6} {'cache':6} {'mount MiB/s':>12} {'TensorStore MiB/s':>18} {'ratio':>7}")
        for plane in PLANES:
            for cache, (ours, theirs) in measure(store, root, plane, options.runs).items():
                a, b = statistics.median(ours), statistics.median(theirs)
                print(f"{plane:6} {cache:6} {mib / a:12.0f} {mib / b:18.0f} {b / a:7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
