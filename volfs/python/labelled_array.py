"""Levels and images as xarray's: voxels that are read when they are asked for, with coordinates in units.

Decided here: dimensions are called after the axes, a coordinate is the position of a voxel's centre (translation and
scale of OME-NGFF) with its unit in its attribute `units`, and chunks are told, so that Dask follows them. Not here: how
one is found by a URL (:mod:`volfs.python.xarray_backend`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core.indexing import IndexingSupport, LazilyIndexedArray, explicit_indexing_adapter

from volfs.volume.image import Image
from volfs.volume.level import Level


class LevelArray(BackendArray):
    """The voxels of a level, as xarray indexes its backends. Can be pickled."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self.shape = level.shape
        self.dtype = level.dtype

    def __getitem__(self, key: Any) -> Any:
        return explicit_indexing_adapter(key, self.shape, IndexingSupport.OUTER, self.level.oindex.__getitem__)


def data_array(level: Level) -> Any:
    """A level as an :class:`xarray.DataArray`, whose voxels are read when they are asked for."""
    names = [axis.name for axis in level.axes]
    array, snapshot = level.array, level.snapshot
    facts = {"store": str(snapshot.dataset.store.path), "dataset": snapshot.dataset.name, "ref": snapshot.ref}
    encoding = {"preferred_chunks": dict(zip(names, level.chunks, strict=True)), "chunksizes": level.chunks}
    variable = xarray.Variable(names, LazilyIndexedArray(LevelArray(level)), {**facts, "path": array.path}, encoding)
    return xarray.DataArray(variable, _coordinates(level), name=_name(level))


def data_tree(image: Image) -> Any:
    """An image as an :class:`xarray.DataTree`: a node for each level, named as the level is."""
    levels = {f"/{name}": data_array(level).to_dataset() for name, level in image.items()}
    return xarray.DataTree.from_dict(levels, name=image.name)


def _name(level: Level) -> str:
    """What the voxels are of: the image's name in the hierarchy, or the dataset's."""
    above = level.array.path.rpartition("/")[0]
    return above.rpartition("/")[2] or level.snapshot.dataset.name


def _coordinates(level: Level) -> dict[str, Any]:
    found = {}
    for axis, size, scale, first in zip(level.axes, level.shape, level.scale, level.translation, strict=True):
        positions: Any = np.arange(size)
        if axis.type in ("space", "time") or (scale, first) != (1.0, 0.0):
            positions = positions * scale + first
        found[axis.name] = xarray.Variable(axis.name, positions, {"units": axis.unit} if axis.unit else {})
    return found
