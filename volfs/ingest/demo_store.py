"""The demonstration: a store with one dataset that shows what volfs is for.

Decided here: the dataset ``cells``, its three versions, its tag and its branch. Not here: what the tissue looks like
(:mod:`volfs.ingest.tissue`), where the store is and what a user is told (``volfs.cli``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.source import ArraySource
from volfs.ingest.tissue import Tissue, tissue
from volfs.model.box import Box
from volfs.versions.branch import Branch
from volfs.versions.store import Store
from volfs.volume.image import images

DATASET = "cells"
LABELS = "labels/cells"
TAG = "first"
BRANCH = "exp"

Tell = Callable[[str], object]

_NOTES = """Two neighbours that the segmentation had split are one cell: see the label in the middle of the volume.
Both ids were checked in all three planes.
"""


def build(store: Store, edge: int = 256, tell: Tell = lambda step: None) -> None:
    """Make the dataset in an open store. ``tell`` is told each step before it begins."""
    tell("growing a tissue")
    made = tissue((edge, edge, edge), cell=max(12, edge // 5))
    options = ImportOptions(voxel_size="8nm", chunks=(64, 64, 64))
    tell("v1: the image")
    image = ArraySource(made.image, DATASET)
    import_source(store, DATASET, "", image, replace(options, message="Import the image"))
    tell("v2: its segmentation")
    labels = ArraySource(made.labels, "cells")
    import_source(store, DATASET, LABELS, labels, replace(options, message="Segment the cells", labels=True))
    dataset = store[DATASET]
    dataset.create_tag(TAG, "v2")
    tell("v3: a correction")
    main = dataset.branch(dataset.default_branch)
    _join_two_cells(main, made)
    main.put("files/notes.txt", _NOTES.encode())
    main.commit("Join two cells that were one")
    tell(f"the branch {BRANCH}, with a change that is not committed")
    dataset.create_branch(BRANCH)
    _brighten(dataset.branch(BRANCH))


def _join_two_cells(branch: Branch, made: Tissue) -> None:
    """Give the cell in the middle and the neighbour it touches most the same id."""
    middle = tuple(extent // 2 for extent in made.labels.shape)
    reach = max(8, made.labels.shape[0] // 4)
    box = Box(tuple(m - reach for m in middle), tuple(m + reach for m in middle))
    around = made.labels[box.slices()]
    ids, counts = np.unique(around[around > 0], return_counts=True)
    kept, joined = ids[np.argsort(counts)[::-1][:2]]
    level = images(branch)[LABELS].levels[0]
    voxels = level.read(box)
    voxels[voxels == joined] = kept
    level.write(box, voxels)


def _brighten(branch: Branch) -> None:
    """Make a cube in the corner of the image brighter, as somebody who tries a filter would."""
    level = images(branch)[""].levels[0]
    box = Box((0, 0, 0), tuple(extent // 4 for extent in level.shape))
    level.write(box, (255 - (255 - level.read(box).astype(np.uint16)) * 2 // 3).astype(np.uint8))
