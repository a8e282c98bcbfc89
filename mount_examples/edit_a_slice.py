"""Paint a white square into one slice, on a branch of one's own, and commit it: all of it with plain files.

python mount_examples/edit_a_slice.py [DATASET_DIRECTORY]
"""

import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

dataset = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/mnt/cells")
branch = dataset / "branches" / "painting"
if not branch.exists():
    branch.mkdir()  # at the head of the default branch

names = sorted(os.listdir(branch / "s0" / "xy"))
target = branch / "s0" / "xy" / names[len(names) // 2]
with Image.open(target) as picture:
    pixels = np.array(picture)
pixels[10:30, 10:30] = 255
Image.fromarray(pixels).save(target)

z = int(target.stem[1:])
across = np.asarray(Image.open(branch / "s0" / "xz" / "y00020.png"))
print(f"painted {target.name}; the xz slice through it now has", across[z, 10:30].tolist())

(branch / ".volfs" / "commit").write_text("A white square")
print((dataset / "log.txt").read_text().splitlines()[0])
