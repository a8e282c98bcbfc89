"""Zarr v2 and v3 arrays, and OME-Zarr images, through zarr-python.

Of an image the finest level is read; its axes, scale, translation, name, display settings, colours and names of labels,
and all attributes of its own are kept, and its label images are there to be imported with it. The coarser levels are
made anew, so that they never disagree. What volfs itself keeps among attributes is taken back as it was.

Chunks that are not there are fill value; so files that look like chunks and are none of the array's (nested where the
metadata says flat, say, or beyond its shape) are an error that names one: never zeros for what is there. Zarr v2 arrays
whose chunks all lie as the other separator has them are read as they lie.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.core.array import AsyncArray

from volfs.errors import BadInput, BadMetadata, VolfsError
from volfs.ingest.readers import ilastik
from volfs.ingest.readers.marks import ZARR_MARKS
from volfs.ingest.readers.n5 import imagej_axes
from volfs.ingest.readers.parts import Part, choose
from volfs.ingest.readers.zarr_dialects import store_of
from volfs.ingest.source import Description, Fingerprint, Source, default_axes, stat_of, tree_fingerprint, unreadable
from volfs.model.box import Box
from volfs.model.facts import rescale_of, source_of, unpacking
from volfs.model.names import natural_key
from volfs.model.ngff import Axis, Multiscale, axis, parse_labels, parse_multiscale

ZarrArray = zarr.Array[Any]

_MOST_MEMBERS = 1000
_DEEPEST = 4
"""Groups in groups that are looked into for images: a plate has rows, columns and fields."""


def open_zarr(path: Path, part: str | None = None) -> Source:
    """Open an array, an image, or a group that holds exactly one of either; of several the one that ``part`` names: its
    place in the hierarchy, or its number. BadInput if it is none of these."""
    try:
        node = zarr.open(store_of(path), mode="r")
    except Exception as error:  # zarr-python raises whatever the damage leads to
        raise unreadable(path, error) from error
    try:
        if part is None:
            return _find(path, node)
        member = node.get(part.strip("/")) if isinstance(node, zarr.Group) else None
        if member is not None:
            return _find(path / part.strip("/"), member)
        return _chosen(path, node, part)
    except VolfsError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error


def _find(path: Path, node: ZarrArray | zarr.Group) -> Source:
    if isinstance(node, zarr.Array):
        made = _Zarr(path, path, node, _stem(path))
        made.set_attributes(node.attrs.asdict())
        return made
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
        made.set_image(node, image, attributes)
        return made
    arrays = sorted(name for name, _ in node.arrays())
    groups = sorted(name for name, _ in node.groups())
    if len(arrays) == 1 and not groups:
        array = node[arrays[0]]
        assert isinstance(array, zarr.Array)
        made = _Zarr(path, path / arrays[0], array, _stem(path))
        made.set_attributes({**attributes, **array.attrs.asdict()})
        return made
    return _chosen(path, node, None)


def _chosen(path: Path, node: ZarrArray | zarr.Group, part: str | None) -> Source:
    """One of the images and arrays below a group."""
    members = list(itertools.islice(_members(node, "", 0), _MOST_MEMBERS)) if isinstance(node, zarr.Group) else []
    if not members:
        raise BadInput(f"{path} holds no image" + (f" {part}" if part is not None else ""))
    parts = [_part(name, member) for name, member in members]
    name, member = members[choose(path, parts, part)]
    return _find(path / name, member)


def _part(name: str, member: ZarrArray | zarr.Group) -> Part:
    if isinstance(member, zarr.Array):
        return Part((name,), tuple(member.shape), member.dtype)
    image = parse_multiscale(member.attrs.asdict())
    assert image is not None
    finest = member.get(image.levels[0].path)
    if not isinstance(finest, zarr.Array):
        raise BadInput(f"{member.store_path} names a level {image.levels[0].path!r} that is not there")
    names = (name, image.name) if image.name else (name,)
    return Part(names, tuple(finest.shape), finest.dtype, "".join(a.name for a in image.axes if len(a.name) == 1))


def _members(group: zarr.Group, above: str, depth: int) -> Iterator[tuple[str, ZarrArray | zarr.Group]]:
    """The images and arrays of two axes and more below a group, in natural order, with their places. What is in an
    image is its own."""
    for name, member in sorted(group.members(), key=lambda pair: natural_key(pair[0])):
        place = f"{above}/{name}" if above else name
        if isinstance(member, zarr.Array):
            if member.ndim > 1:
                yield place, member
        elif _is_image(member):
            yield place, member
        elif depth < _DEEPEST:
            yield from _members(member, place, depth + 1)


def _is_image(group: zarr.Group) -> bool:
    try:
        return parse_multiscale(group.attrs.asdict()) is not None
    except BadMetadata:
        return False


class _Zarr(Source):
    def __init__(
        self, top: Path, place: Path, array: ZarrArray, name: str, axes: tuple[Axis, ...] | None = None
    ) -> None:
        self._top = top
        self._place = place
        self._array = array = _as_it_lies(place, array)
        self._labels: dict[str, Source] = {}
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

    def set_attributes(self, attributes: dict[str, Any]) -> None:
        """Take over the attributes of an array that is no level of an image."""
        imagej = imagej_axes(attributes, self.description.shape)
        if imagej is not None:  # n5-ij writes Zarr too
            axes, scale, shift = imagej
            self.description = replace(self.description, axes=axes, scale=scale, translation=shift, reorder=True)
        self.description = replace(
            self.description,
            facts=source_of(attributes) or self.description.facts,
            attributes=_own(attributes),
            rescale=rescale_of(attributes) or unpacking(attributes),
            is_label=ilastik.is_segmentation(attributes),
        )

    def set_image(self, node: zarr.Group, image: Multiscale, attributes: dict[str, Any]) -> None:
        """Take over what the metadata of an image says besides its axes."""
        finest = image.levels[0]
        holder = attributes.get("ome") if isinstance(attributes.get("ome"), dict) else attributes
        assert isinstance(holder, dict)
        own = attributes.get("volfs")
        ome: dict[str, Any] = {}
        for owner in (holder, own if isinstance(own, dict) else {}):
            if isinstance(owner.get("omero"), dict):
                ome["omero"] = owner["omero"]
            if isinstance(owner.get("image-label"), dict):
                label = owner["image-label"]
                ome["image-label"] = {key: value for key, value in label.items() if key not in ("source", "version")}
        facts = dict(source_of(attributes) or self.description.facts)
        further = self._array.attrs.asdict()
        further.pop(_DIMENSIONS, None)
        if further:
            facts["array_attributes"] = further
        lost = []
        blocks = holder.get("multiscales")
        if isinstance(blocks, list) and blocks and isinstance(blocks[0], dict):
            about = {key: value for key, value in blocks[0].items() if key not in _PLACED}
            if about and not isinstance(own, dict):
                facts["multiscale"] = about
            lost += _unplaced(blocks)
        self._labels = _labels_of(self._top, node, lost)
        levels = {level.path.split("/")[0] for level in image.levels}
        members = sorted(name for name, _ in node.members() if name not in (*levels, "labels"))
        if members:
            lost.append(f"what lies beside the image ({', '.join(members[:8])}{', …' if len(members) > 8 else ''})")
        self.description = replace(
            self.description,
            scale=tuple(size or 1.0 for size in finest.scale),
            translation=finest.translation if any(finest.translation) else None,
            rgb=image.rgb,
            ome=ome,
            facts=facts,
            attributes=_own(attributes),
            rescale=rescale_of(attributes) or unpacking(further),
            is_label=image.is_label or ilastik.is_segmentation(further),
            lost=tuple(lost),
        )

    def labels(self) -> Mapping[str, Source]:
        return self._labels

    def read(self, box: Box) -> np.ndarray:
        try:
            voxels = np.asarray(self._array[box.slices()])
        except Exception as error:
            raise unreadable(self._place, error) from error
        return voxels.astype(self.description.dtype, copy=False)

    def fingerprint(self) -> Fingerprint:
        found: dict[str, object] = {}
        for folder in {self._top, self._place}:
            for mark in (*ZARR_MARKS, ".zattrs"):
                found[str(folder / mark)] = stat_of(folder / mark)
        found |= tree_fingerprint(self._place)
        for label in self._labels.values():
            found |= label.fingerprint()
        return found


_DIMENSIONS = "_ARRAY_DIMENSIONS"
_PLACED = ("axes", "datasets", "name", "version", "coordinateTransformations")
"""Members of a multiscale that have places of their own in the description."""
_NOT_OWN = ("ome", "volfs", "multiscales", "omero", "labels", "image-label", "plate", "well", _DIMENSIONS)
_CHUNK = re.compile(r"(?:c[./])?[0-9]+(?:[./][0-9]+)*\Z")


def _own(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that are nobody's but the user's."""
    return {key: value for key, value in attributes.items() if key not in _NOT_OWN}


def _unplaced(blocks: list[Any]) -> list[str]:
    """What of multiscales an import has no place for."""
    lost = []
    if len(blocks) > 1:
        names = [str(block.get("name", "")) if isinstance(block, dict) else "" for block in blocks[1:]]
        told = f" ({', '.join(filter(None, names))})" if any(names) else ""
        lost.append(f"{len(blocks) - 1} more multiscale{'s' if len(blocks) > 2 else ''}{told}")
    datasets = blocks[0].get("datasets")
    first = datasets[0] if isinstance(datasets, list) and datasets and isinstance(datasets[0], dict) else {}
    steps = [*(first.get("coordinateTransformations") or []), *(blocks[0].get("coordinateTransformations") or [])]
    kinds = {str(step.get("type")) for step in steps if isinstance(step, dict)} - {"scale", "translation", "identity"}
    if kinds:
        lost.append(f"coordinate transformations of type {', '.join(sorted(kinds))}")
    return lost


def _labels_of(path: Path, node: zarr.Group, lost: list[str]) -> dict[str, Source]:
    """The label images beside an image: those that its ``labels`` group lists, and others that are images. What is
    none that can be read is lost."""
    group = node.get("labels")
    if not isinstance(group, zarr.Group):
        return {}
    listed = parse_labels(group.attrs.asdict())
    found: dict[str, Source] = {}
    for name in dict.fromkeys([*listed, *sorted(name for name, _ in group.groups())]):
        member = group.get(name)
        try:
            if member is None or "/" in name:
                raise BadInput("it is listed, but is not there")
            found[name] = _find(path / "labels" / name, member)
        except BadInput as error:
            lost.append(f"labels/{name} ({error})")
    return found


def _as_it_lies(place: Path, array: ZarrArray) -> ZarrArray:
    """The array, read with the separator that its chunk files have. BadInput for files that look like chunks and are
    none of it: they would be passed over, and show as fill value."""
    chunks = array.shards or array.chunks
    if array.ndim == 0 or len(chunks) != array.ndim:
        return array
    grid = tuple(-(-n // max(1, c)) for n, c in zip(array.shape, chunks, strict=True))
    metadata: Any = array.metadata
    v2 = metadata.zarr_format == 2
    encoding = metadata if v2 else metadata.chunk_key_encoding
    separator = metadata.dimension_separator if v2 else getattr(encoding, "separator", None)
    prefix = "c" if not v2 and getattr(encoding, "name", "") == "default" else ""
    if separator not in (".", "/"):
        return array
    strays, belonging = [], False
    other = "/" if separator == "." else "."
    turned = True
    for key in _chunk_keys(place):
        if _is_key(key, prefix, separator, grid):
            belonging = True
            continue
        strays.append(key)
        turned = turned and _is_key(key, prefix, other, grid)
        if belonging or not (v2 and turned):
            break
    if not strays:
        return array
    if belonging or not (v2 and turned):
        shape = " x ".join(map(str, grid))
        raise BadInput(f"{place / strays[-1]} is no chunk of the array, which has {shape} of them by its metadata")
    config = array.async_array.config
    return zarr.Array(
        AsyncArray(metadata=replace(metadata, dimension_separator=other), store_path=array.store_path, config=config)
    )


def _chunk_keys(place: Path) -> Iterator[str]:
    """Files of an array that look like chunks, by their place in it."""
    top = os.fspath(place)
    for root, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        above = root[len(top) :].lstrip("/")
        for name in sorted(names):
            key = f"{above}/{name}" if above else name
            if _CHUNK.match(key):
                yield key


def _is_key(key: str, prefix: str, separator: str, grid: tuple[int, ...]) -> bool:
    parts = key.split(separator)
    if prefix:
        if parts[0] != prefix:
            return False
        parts = parts[1:]
    if len(parts) != len(grid):
        return False
    return all(p.isdecimal() and str(int(p)) == p and int(p) < n for p, n in zip(parts, grid, strict=True))


def _dimension_axes(array: ZarrArray) -> tuple[Axis, ...] | None:
    """Axes from dimension names (Zarr v3, or xarray's attribute in v2), if every dimension has its own."""
    found: Any = getattr(array.metadata, "dimension_names", None) or array.attrs.get(_DIMENSIONS)
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
