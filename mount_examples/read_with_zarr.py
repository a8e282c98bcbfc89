"""Read two versions of a mounted dataset with zarr-python, and say where they differ.

python mount_examples/read_with_zarr.py [DATASET_DIRECTORY]
"""

import sys
from pathlib import Path

import numpy as np
import zarr

dataset = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/mnt/cells")
versions = sorted((dataset / "versions").glob("v*"), key=lambda path: int(path.name[1:]))
newest, oldest = (zarr.open_group(str(path / "zarr"), mode="r") for path in (versions[-1], versions[0]))

print(f"{versions[-1].name}: s0 is {newest['s0'].shape} {newest['s0'].dtype}, chunks {newest['s0'].chunks}")
axes = newest.attrs["ome"]["multiscales"][0]["axes"]
print("axes:", ", ".join(f"{axis['name']} ({axis.get('unit', 'no unit')})" for axis in axes))

now, then = newest["s0"][...], oldest["s0"][...]
changed = np.argwhere(now != then)
if len(changed):
    low, high = changed.min(axis=0), changed.max(axis=0) + 1
    print(f"{len(changed)} voxels differ from {versions[0].name}, inside {low.tolist()} to {high.tolist()}")
else:
    print(f"the image is the same as in {versions[0].name}")
