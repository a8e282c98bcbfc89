"""A small store with the dataset ``cells``: what most tests of the tree, of mounts and of the command look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import volfs
from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.source import ArraySource
from volfs.model.box import Index
from volfs.testing.volumes import image, segmentation

CELLS = image((20, 40, 50), "uint8")
NUCLEI = segmentation((20, 40, 50), "uint32")
CHUNKS: Index = (16, 16, 16)


def make_store(path: Path, shape: Index | None = None, voxel_size: str = "4,4,4nm") -> Path:
    """``cells`` with two versions, an image of two levels and then labels, and the branch ``exp`` beside ``main``.

    A tree has an entry for every plane of every axis: one that is walked as a whole is better of a smaller ``shape``.
    """
    cells, nuclei, chunks = CELLS, NUCLEI, CHUNKS
    if shape is not None:
        cells, nuclei = image(shape, "uint8"), segmentation(shape, "uint32")
        chunks = tuple(-(-n // 2) for n in shape)
    with volfs.init_store(path) as store:
        add(store, "cells", "", cells, "zyx", voxel_size=voxel_size, chunks=chunks, levels=2)
        add(store, "cells", "labels/nuclei", nuclei, "zyx", chunks=chunks, levels=2, labels=True)
        store["cells"].create_branch("exp", "main")
    return path


def add(store: Any, dataset: str, path: str, voxels: np.ndarray, axes: str, **options: Any) -> None:
    """Import an image of a store that is open for writing."""
    source = ArraySource(voxels)
    import_source(
        store, dataset, path, source, ImportOptions(axes=axes, message=f"import {path or dataset}", **options)
    )
