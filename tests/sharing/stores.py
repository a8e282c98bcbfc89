"""The store that is shared: a small image with labels and side files, and one with a hundred thousand slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

import volfs
from volfs.model.ngff import axis, ome_attributes, pyramid
from volfs.testing.volumes import image, segmentation

CELLS = image((4, 12, 10), "uint16")
NUCLEI = segmentation((4, 12, 10), "uint32")
CHUNK = (2, 8, 8)
SLICES = 100_000


def make_store(path: Path) -> Path:
    """``cells`` with the versions v1 and v2, the branches ``main`` and one for each kind of client, the tag ``paper``;
    ``deep`` with v1, of which one chunk is stored."""
    axes = tuple(axis(name, "nm") for name in "zyx")
    with volfs.init_store(path) as store:
        cells = store.create_dataset("cells")
        branch = cells.branch("main")
        group = zarr.create_group(
            branch.zarr_store(), attributes=ome_attributes(pyramid("cells", axes, (40.0, 4.0, 4.0), [(1, 1, 1)]))
        )
        group.create_array("s0", shape=CELLS.shape, chunks=CHUNK, dtype=CELLS.dtype)[:] = CELLS
        branch.commit("the image")
        labels = group.create_group("labels", attributes={"ome": {"version": "0.5", "labels": ["nuclei"]}})
        nuclei = ome_attributes(pyramid("nuclei", axes, (40.0, 4.0, 4.0), [(1, 1, 1)]))
        nuclei["ome"]["image-label"] = {}
        labels.create_group("nuclei", attributes=nuclei).create_array(
            "s0", shape=NUCLEI.shape, chunks=CHUNK, dtype=NUCLEI.dtype
        )[:] = NUCLEI
        branch.put("files/notes/first.txt", b"two nuclei\n")
        branch.put("files/table.bin", np.random.default_rng(0).bytes(300_000))
        branch.commit("labels and notes")
        cells.create_tag("paper", 1)
        deep = store.create_dataset("deep").branch("main")
        group = zarr.create_group(
            deep.zarr_store(), attributes=ome_attributes(pyramid("deep", axes, (40.0, 4.0, 4.0), [(1, 1, 1)]))
        )
        group.create_array("s0", shape=(SLICES, 64, 64), chunks=(64, 64, 64), dtype="u1")[7] = 9
        deep.commit("almost nothing")
    return path
