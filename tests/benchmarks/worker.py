"""A reader in a process of its own, with its own caches: asked on stdin, answers seconds on stdout.

    python -m tests.benchmarks.worker tensorstore|zarr|files PATH

A request is one line of JSON: ``{"planes": AXIS, "every": N, "thick": M}`` (M planes at a time), ``{"boxes":
[[z, y, rows], …]}`` or ``{"all": true}``; with ``"processor": true`` the answer is processor time.
Of kind "files" it reads the first N files of a directory, ``{"files": N}``, and answers the seconds of each.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Read = Callable[[Any], Any]


def tensorstore(path: str) -> tuple[tuple[int, ...], Read]:
    """Opened as a user would for browsing: decoded chunks in a cache of 1 GiB, metadata trusted once opened."""
    import tensorstore as ts

    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": path},
        "context": {"cache_pool": {"total_bytes_limit": 1 << 30}},
        "recheck_cached_data": "open",
    }
    array = ts.open(spec, read=True).result()
    return array.shape, lambda key: array[key].read().result()


def zarr_python(path: str) -> tuple[tuple[int, ...], Read]:
    import zarr

    array = zarr.open_array(path, mode="r")
    return array.shape, lambda key: array[key]


def answer(shape: tuple[int, ...], read: Read, request: dict[str, Any]) -> None:
    if "planes" in request:
        along = range(len(shape))[request["planes"]]
        every, thick = request.get("every", 1), request.get("thick", 1)
        leading = [range(size) for size in shape[:-3]]
        for outer in np.ndindex(*(len(axis) for axis in leading)):
            for index in range(0, shape[along], every * thick):
                key: list[Any] = [*outer, slice(None), slice(None), slice(None)]
                key[along] = index if thick == 1 else slice(index, min(index + thick, shape[along]))
                read(tuple(key))
    elif "boxes" in request:
        for z, y, rows in request["boxes"]:
            read((z, slice(y, y + rows)))
    else:
        read(tuple(slice(None) for _ in shape))


def read_files(directory: Path) -> None:
    for line in sys.stdin:
        seconds = []
        for name in sorted(os.listdir(directory))[: json.loads(line)["files"]]:
            start = time.perf_counter()
            (directory / name).read_bytes()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


def main() -> None:
    kind, path = sys.argv[1:]
    if kind == "files":
        return read_files(Path(path))
    shape, read = {"tensorstore": tensorstore, "zarr": zarr_python}[kind](path)
    for line in sys.stdin:
        request = json.loads(line)
        clock = time.process_time if request.get("processor") else time.perf_counter
        start = clock()
        answer(shape, read, request)
        print(json.dumps(clock() - start), flush=True)


if __name__ == "__main__":
    main()
