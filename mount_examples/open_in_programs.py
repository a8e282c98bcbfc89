"""One stored volume, opened as whatever a program likes best; then a box of it, edited where it lies.

python mount_examples/open_in_programs.py [DATASET_DIRECTORY]
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import tifffile

dataset = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/mnt/cells")
level = dataset / "versions" / "latest" / "s0"
shape = tuple(json.loads((level / "info.json").read_text())["shape"])

for path in sorted(level.glob("volume.*")):
    print(f"{path.name:16} {path.stat().st_size:>12,} bytes, none of them stored")

mapped = np.load(level / "volume.npy", mmap_mode="r")
pages = tifffile.imread(level / "volume.tif", key=shape[0] // 2)
print("volume.npy and volume.tif show the same plane:", bool((mapped[shape[0] // 2] == pages).all()))

# Any box is a file, made by naming it.
box = level / "cutout" / f"z0-{min(8, shape[0])}_y0-16_x0-16.npy"
print(f"{box.name}: {np.load(box).shape}")

# In a branch the same files can be written in place.
branch = dataset / "branches" / f"spot-{os.getpid()}-{time.time_ns()}"
branch.mkdir()
data = np.lib.format.open_memmap(branch / "s0" / "volume.npy", mode="r+")
data[: min(4, shape[0]), :16, :16] = 255
data.flush()
print("seen in the slice image too:", bool((tifffile.imread(branch / "s0/xy/z00000.tif")[:16, :16] == 255).all()))
(branch / ".volfs" / "discard").write_text("all\n")
branch.rmdir()
