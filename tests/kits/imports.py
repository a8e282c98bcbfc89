"""An import that others overtake: what it brings, and the branch that moves while it reads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import zarr

from tests.kits.stores import volume
from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.source import ArraySource
from volfs.versions.commit.placement import Placed
from volfs.versions.store import Store

SHAPE = (16, 16, 16)
OPTIONS = ImportOptions(chunks=(8, 8, 8), levels=1)
IMAGE, OTHER = volume(SHAPE, 0), volume(SHAPE, 1)
LABELS = (volume(SHAPE, 2, "u4") % 5, volume(SHAPE, 3, "u4") % 7)


def meanwhile(
    store: Store, path: str, voxels: np.ndarray, change: Callable[[], object], dataset: str = "cells"
) -> Placed:
    """Import, with a change that others make while the source is being read."""

    class Slow(ArraySource):
        def read(self, *args: object, **options: object) -> np.ndarray:
            if todo:
                todo.pop()()
            return super().read(*args, **options)  # type: ignore[arg-type]

    todo = [change]
    placed = import_source(store, dataset, path, Slow(voxels, "slow"), OPTIONS)
    assert not todo
    return placed


def voxels(snapshot: object, path: str = "s0") -> np.ndarray:
    return np.asarray(zarr.open_array(snapshot.zarr_store(), path=path, mode="r"))  # type: ignore[attr-defined]
