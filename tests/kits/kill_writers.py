"""Programs that write through a mount, whatever becomes of it, and note what was acknowledged.

Run by ``tests/fuse/test_kills.py``. Each writes to a target of its own, one value after the other, and appends a line
to a file before and after each: ``? VALUE``, and ``! VALUE`` once close has returned 0.
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr
from PIL import Image

SHAPE = (24, 32, 32)
CHUNKS = (4, 16, 16)


def put(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        for at in range(0, len(data), 700):
            file.write(data[at : at + 700])
            file.flush()


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((32, 32), value, "u2")).save(out, "PNG", compress_level=0)
    return out.getvalue()


def slices(branch: Path, value: int) -> None:
    """cp: O_TRUNC, write, close."""
    source = branch.parents[3] / "slice.png"  # beside the mount
    source.write_bytes(png(value))
    subprocess.run(["cp", source, branch / "s0/xy/z00000.png"], check=True, stderr=subprocess.DEVNULL)


def renamed(branch: Path, value: int) -> None:
    """rsync and editors: a temporary name, then a rename over the slice."""
    temporary = branch / "s0/xy/.z00008.png.tmp"
    put(temporary, png(value))
    temporary.rename(branch / "s0/xy/z00008.png")


def chunks(branch: Path, value: int) -> None:
    """zarr-python."""
    zarr.open_array(branch / "zarr/s0", mode="r+")[4:8, 0:16, 0:16] = value


def format_chunks(branch: Path, value: int) -> None:
    """A block of precomputed, as a whole file."""
    name = "formats/cells.precomputed/1000_1000_1000/16-32_0-16_4-8"
    put(branch / name, np.full((4, 16, 16), value, "u2").tobytes())


def volumes(branch: Path, value: int) -> None:
    """numpy's memory map. Whole pages are written, so there is room around."""
    volume = np.load(branch / "s0/volume.npy", mmap_mode="r+")
    volume[16:20, 16:32, 16:32] = value
    volume.flush()


def side_files(branch: Path, value: int) -> None:
    """A shell."""
    script = f"echo {value} > {branch}/files/note && mv {branch}/files/note {branch}/files/kept"
    subprocess.run(["bash", "-c", script], check=True, stderr=subprocess.DEVNULL)


def refs(branch: Path, value: int) -> None:
    (branch.parent / f"b{value}").mkdir()


def commits(branch: Path, value: int) -> None:
    """A message line by line, as bash writes it, but looking at what close says."""
    (branch / "files/commits").write_text(str(value))
    with (branch / ".volfs/commit").open("wb", buffering=0) as file:
        for line in (f"commit {value}\n", "\n", f"body {value}\n"):
            file.write(line.encode())


WRITERS: dict[str, Callable[[Path, int], None]] = {
    each.__name__: each for each in (slices, renamed, chunks, format_chunks, volumes, side_files, refs, commits)
}


def main(name: str, branch: Path, log: Path, value: int) -> None:
    with log.open("a") as lines:
        while True:
            value += 1
            print("?", value, file=lines, flush=True)
            try:
                WRITERS[name](branch, value)
            except Exception:  # the mount is gone: zarr and numpy say so in many ways
                time.sleep(0.02)
            else:
                print("!", value, file=lines, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
