"""A small store to test with: one dataset, an image, its labels, two versions, two branches.

Decided here: what is in it, voxel by voxel. The same arguments give the same voxels, so that a test compares what it
read with :data:`CELLS` and :data:`NUCLEI`, and not with another reading.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import volfs
from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.source import ArraySource
from volfs.testing.volumes import Volume, image, segmentation
from volfs.versions.store import Store

SHAPE = (20, 40, 50)
CELLS = image(SHAPE, "uint8")
"""The voxels of the image in :func:`make_store`, in the order z, y, x."""
NUCLEI = segmentation(SHAPE, "uint32")
"""Those of its label image."""
_CHUNKS = (16, 16, 16)


def make_store(path: Path, shape: tuple[int, ...] | None = None, voxel_size: str = "4,4,4nm") -> Path:
    """Make a store at ``path``, which it returns, with the dataset ``cells``.

    v1 has an image of two levels at the hierarchy's root, v2 also the label image ``labels/nuclei``. The branches
    ``main`` and ``exp`` stand at v2. Its voxels are :data:`CELLS` and :data:`NUCLEI`, in chunks of 16; of another
    ``shape``, ``image(shape, "uint8")`` and ``segmentation(shape, "uint32")`` in eight chunks.
    """
    cells, nuclei = CELLS, NUCLEI
    chunks: tuple[int, ...] = _CHUNKS
    if shape is not None:
        cells, nuclei = image(shape, "uint8"), segmentation(shape, "uint32")
        chunks = tuple(-(-n // 2) for n in shape)
    with volfs.init_store(path) as store:
        add_image(store, "cells", "", cells, "zyx", voxel_size=voxel_size, chunks=chunks, levels=2)
        add_image(store, "cells", "labels/nuclei", nuclei, "zyx", chunks=chunks, levels=2, labels=True)
        store["cells"].create_branch("exp", "main")
    return path


def add_image(store: Store, dataset: str, path: str, voxels: Volume, axes: str, **options: Any) -> None:
    """Import voxels as the image at a hierarchy path ("" for the root) of a dataset, which is made if it is not there.

    ``axes`` names them in order, ``"tczyx"``. The options are those of :class:`volfs.ingest.importer.ImportOptions`:
    ``voxel_size`` ("40,4,4nm"), ``chunks``, ``levels``, ``labels``, ``message``. A new version of the default branch.
    """
    source = ArraySource(voxels)
    import_source(
        store, dataset, path, source, ImportOptions(axes=axes, message=f"import {path or dataset}", **options)
    )
