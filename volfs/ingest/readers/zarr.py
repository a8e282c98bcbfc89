"""Zarr v2 and v3 arrays, and OME-Zarr images, through zarr-python.

Of an image the finest level is read; its axes, scale, translation, name and display settings are kept. The coarser
levels are made anew, so that they never disagree.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from volfs.errors import BadInput, BadMetadata, VolfsError
from volfs.ingest.source import Description, Fingerprint, Source, default_axes, stat_of, tree_fingerprint, unreadable
from volfs.model.box import Box
from volfs.model.ngff import Axis, axis, parse_multiscale

ZarrArray = zarr.Array[Any]

_MARKS = ("zarr.json", ".zgroup", ".zarray")


def is_zarr(path: Path) -> bool:
    """Whether a directory is a Zarr group or array."""
    return path.is_dir() and any((path / mark).is_file() for mark in _MARKS)


def open_zarr(path: Path) -> Source:
    """Open an array, an image, or a group that holds exactly one of either. BadInput if it is none of these."""
    try:
        node = zarr.open(path, mode="r")
    except Exception as error:  # zarr-python raises whatever the damage leads to
        raise unreadable(path, error) from error
    try:
        return _find(path, node)
    except VolfsError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error


def _find(path: Path, node: ZarrArray | zarr.Group) -> Source:
    if isinstance(node, zarr.Array):
        return _Zarr(path, path, node, _stem(path))
    attributes = node.attrs.asdict()
    try:
        image = parse_multiscale(attributes)
    except BadMetadata as error:
        raise BadInput(f"{path}: {error}") from error
    if image is not None:
        finest = image.levels[0]
        array = node.get(finest.path)
        if not isinstance(array, zarr.Array):
            raise BadInput(f"{path} names a level {finest.path!r} that is not there")
        if len(image.axes) != array.ndim:
            raise BadInput(f"{path} has {len(image.axes)} axes in its metadata, {array.ndim} in its array")
        made = _Zarr(path, path / finest.path, array, image.name or _stem(path), image.axes)
        made.set_image(finest.scale, finest.translation, image.rgb, attributes)
        return made
    arrays = sorted(name for name, _ in node.arrays())
    groups = sorted(name for name, _ in node.groups())
    if len(arrays) == 1 and not groups:
        array = node[arrays[0]]
        assert isinstance(array, zarr.Array)
        return _Zarr(path, path / arrays[0], array, _stem(path))
    listed = ", ".join([*arrays, *(f"{name}/" for name in groups)][:8])
    raise BadInput(f"{path} is a group without an image: name one of its members ({listed or 'it is empty'})")


class _Zarr(Source):
    def __init__(
        self, top: Path, place: Path, array: ZarrArray, name: str, axes: tuple[Axis, ...] | None = None
    ) -> None:
        self._top = top
        self._place = place
        self._array = array
        if array.dtype.kind not in "biufcV" or array.dtype.fields is not None:
            raise BadInput(f"{place} holds {array.dtype}, which are not voxels")
        if axes is None:
            axes = _dimension_axes(array) or default_axes(array.ndim)
        grain = tuple(min(c, max(1, n)) for c, n in zip(array.chunks, array.shape, strict=True))
        fill = array.fill_value
        self.description = Description(
            name,
            tuple(array.shape),
            array.dtype.newbyteorder("="),
            axes,
            (1.0,) * array.ndim,
            grain,
            reorder=False,
            fill_value=0 if fill is None else fill,
            facts={"format": f"zarr v{array.metadata.zarr_format}"},
        )

    def set_image(
        self, scale: tuple[float, ...], translation: tuple[float, ...], rgb: bool, attributes: dict[str, Any]
    ) -> None:
        """Take over what the metadata of an image says besides its axes."""
        ome = attributes.get("ome")
        omero = (ome if isinstance(ome, dict) else attributes).get("omero")
        usable = all(n > 0 for n in scale)
        self.description = replace(
            self.description,
            scale=scale if usable else self.description.scale,
            translation=translation if any(translation) else None,
            rgb=rgb,
            ome={"omero": omero} if isinstance(omero, dict) else {},
        )

    def read(self, box: Box) -> np.ndarray:
        try:
            voxels = np.asarray(self._array[box.slices()])
        except Exception as error:
            raise unreadable(self._place, error) from error
        return voxels.astype(self.description.dtype, copy=False)

    def fingerprint(self) -> Fingerprint:
        found: dict[str, object] = {}
        for folder in {self._top, self._place}:
            for mark in (*_MARKS, ".zattrs"):
                found[str(folder / mark)] = stat_of(folder / mark)
        return found | tree_fingerprint(self._place)


def _dimension_axes(array: ZarrArray) -> tuple[Axis, ...] | None:
    """Axes from dimension names (Zarr v3, or xarray's attribute in v2), if every dimension has its own."""
    found: Any = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) and name for name in found):
        return None
    if len(found) != array.ndim or len({*found}) != len(found):
        return None
    return tuple(axis(str(name)) for name in found)


def _stem(path: Path) -> str:
    name = path.resolve().name
    for ending in (".ome.zarr", ".zarr"):
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name
