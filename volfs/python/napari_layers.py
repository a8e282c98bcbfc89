"""napari's layers: images of a mount or of a store as layers, and a Labels layer as a label image of a branch.

Decided here: which paths are volfs's, what becomes a layer of which kind, and where a Labels layer is saved. A path of
a mount and ``volfs://DATASET@REF/PATH::/path/of/the/store`` both lead into a Zarr hierarchy, and layers are read from
that: so a mount on a share serves as well as a store of this machine. The functions are what ``napari.yaml`` names, in
npe2's form; of each layer napari is told its data, its arguments and its kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import zarr
from fsspec.core import url_to_fs

from volfs.errors import BadInput, NotAllowed, NotFound
from volfs.model.ngff import (
    LevelSpec,
    Multiscale,
    labels_attributes,
    ome_attributes,
    parse_labels,
    parse_multiscale,
)
from volfs.python.fsspec_filesystem import PROTOCOL, VolfsFileSystem
from volfs.versions.snapshot import WritableSnapshot

LayerData = tuple[Any, dict[str, Any], str]

#: Labels are compared with those that are stored, and written, so many voxels at a time, in whole chunks.
_AT_A_TIME = 1 << 24


@dataclass(frozen=True)
class _Place:
    """A path in the hierarchy of a snapshot; `name` is the dataset's."""

    name: str
    hierarchy: Any  # what zarr-python takes for a store
    path: str
    writable: bool
    #: What was named is this image and nothing else: its label images are not shown with it.
    alone: bool = False

    def group(self, mode: str) -> zarr.Group:
        return zarr.open_group(self.hierarchy, mode=mode)  # type: ignore[arg-type]


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """What reads `path`, a dataset or anything in a snapshot of it; None where that is nothing of volfs."""
    paths = [path] if isinstance(path, str) else list(path)
    if not paths or not all(_is_ours(each) for each in paths):
        return None
    return lambda _: [layer for each in paths for layer in _layers(_place(each))]


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save a Labels layer as the label image at `path` of a branch, in its working copy. What was written.

    A label image that is there takes the voxels that differ; else one is made, with the scale and the levels of the
    image that it belongs to. Nothing is committed. Raises BadInput if the shape or an id does not fit, NotAllowed in a
    version, NotFound where no branch is.
    """
    place = _place(path, writing=True)
    labels = np.asanyarray(data[0]) if meta.get("multiscale") else data
    if not place.writable:
        raise NotAllowed(f"{path}: a version never changes; name a label image of a branch")
    above, _, name = place.path.rpartition("/")
    if not name or above.rpartition("/")[2] != "labels":
        raise BadInput(f"{path}: name a label image of a branch, as in branches/main/labels/NAME")
    group = place.group("r+")
    if place.path not in group:
        _make_labels(group, above, name, labels)
    found = parse_multiscale(dict(group[place.path].attrs))
    if found is None or not found.is_label:
        raise BadInput(f"{path} is no label image")
    array = group[f"{place.path}/{found.levels[0].path}"]
    assert isinstance(array, zarr.Array)
    _write_changed(array, labels, path)
    return [path]


# ------------------------------------------------------------------------------------------------------------ where


def _is_ours(path: str) -> bool:
    if path.startswith(f"{PROTOCOL}://"):
        return True
    place = Path(path)
    return (place / "dataset.json").is_file() or _snapshot_above(place) is not None


def _snapshot_above(path: Path) -> Path | None:
    """The version or branch directory of a mount that `path` is, or lies in."""
    place = path.absolute()
    for above in (place, *place.parents):
        if above.parent.name in ("versions", "branches", "tags") and (above.parent.parent / "dataset.json").is_file():
            return above if (above / "zarr").is_dir() else None
    return None


def _place(path: str, *, writing: bool = False) -> _Place:
    if path.startswith(f"{PROTOCOL}://"):
        return _place_of_url(path, writing)
    place = Path(path).absolute()
    if (place / "dataset.json").is_file():
        facts = json.loads((place / "dataset.json").read_bytes())
        place = place / "branches" / facts["default_branch"]
    snapshot = _snapshot_above(place)
    if snapshot is None:
        raise NotFound(f"{path} is not in a version or branch of a volfs mount")
    parts = place.relative_to(snapshot).parts
    if parts[:1] == ("zarr",):
        parts = parts[1:]
    found = _longest(zarr.open_group(snapshot / "zarr", mode="r"), parts, whole=writing)
    branch = snapshot.parent.name == "branches"
    return _Place(snapshot.parent.parent.name, str(snapshot / "zarr"), found, branch, bool(parts))


def _place_of_url(url: str, writing: bool) -> _Place:
    filesystem, inner = url_to_fs(url)
    if not isinstance(filesystem, VolfsFileSystem):
        raise BadInput(f"{url!r} names no volfs store: write volfs://DATASET@REF/PATH::/path/of/the/store")
    snapshot, key = filesystem.locate_for_writing(inner) if writing else filesystem.locate(inner)
    space, _, below = key.partition("/")
    path = below if space == "zarr" else key
    hierarchy = snapshot.zarr_store()
    found = _longest(zarr.open_group(hierarchy, mode="r"), tuple(filter(None, path.split("/"))), whole=writing)
    return _Place(snapshot.dataset.name, hierarchy, found, isinstance(snapshot, WritableSnapshot), bool(path))


def _longest(group: zarr.Group, parts: tuple[str, ...], whole: bool) -> str:
    """The image that the path `parts` of a snapshot leads to, or into: a level, a plane, a volume.

    `whole` is for a path that need not be there yet.
    """
    if whole:
        return "/".join(parts)
    for length in range(len(parts), 0, -1):
        path = "/".join(parts[:length])
        node = group.get(path)
        if isinstance(node, zarr.Group) and parse_multiscale(dict(node.attrs)) is not None:
            return path
        if isinstance(node, zarr.Array) and not _is_level(group, path):
            return path
    return ""


def _is_level(group: zarr.Group, path: str) -> bool:
    """Whether the array at `path` is a level of an image above it."""
    parts = path.split("/")
    for length in range(len(parts)):
        above = group.get("/".join(parts[:length])) if length else group
        image = parse_multiscale(dict(above.attrs)) if isinstance(above, zarr.Group) else None
        if image is not None and "/".join(parts[length:]) in {level.path for level in image.levels}:
            return True
    return False


# ------------------------------------------------------------------------------------------------------------ layers


def _layers(place: _Place) -> list[LayerData]:
    group = place.group("r")
    found = list(_images(group, place.path, alone=place.alone))
    if not found:
        raise NotFound(f"there is no image in {place.name}{place.path and '/'}{place.path}")
    layers: list[LayerData] = []
    for path in found:
        node = group[path] if path else group
        layers += _array_layers(node, path) if isinstance(node, zarr.Array) else _image_layers(node, path, place)
    return layers


def _images(group: zarr.Group, path: str, alone: bool) -> Iterator[str]:
    """The paths of the images at and below `path`; of an image, its label images, unless it is wanted `alone`."""
    node = group[path] if path else group
    if isinstance(node, zarr.Array):
        yield path
        return
    if parse_multiscale(dict(node.attrs)) is not None:
        yield path
        labels = None if alone else node.get("labels")
        if isinstance(labels, zarr.Group):
            for name in parse_labels(dict(labels.attrs)) or sorted(labels.group_keys()):
                yield f"{path}{path and '/'}labels/{name}"
        return
    for name, _ in sorted(node.members()):
        yield from _images(group, f"{path}{path and '/'}{name}", alone=False)


def _array_layers(array: zarr.Array[Any], path: str) -> list[LayerData]:
    found = getattr(array.metadata, "dimension_names", None) or ()
    names = [name or f"axis {at}" for at, name in enumerate(found)]
    told = {"name": path, **({"axis_labels": tuple(names)} if names else {})}
    return [(dask.array.from_array(array, chunks=array.chunks), told, "image")]


def _image_layers(group: zarr.Group, path: str, place: _Place) -> list[LayerData]:
    image = parse_multiscale(dict(group.attrs))
    assert image is not None
    arrays = [found for level in image.levels if isinstance(found := group.get(level.path), zarr.Array)]
    levels = [dask.array.from_array(array, chunks=array.chunks) for array in arrays]
    channel = next((at for at, one in enumerate(image.axes) if one.type == "channel"), None)
    if image.rgb and channel is not None:
        levels = [dask.array.moveaxis(level, channel, -1) for level in levels]
    shown = [one for at, one in enumerate(image.axes) if at != channel]
    finest = image.levels[0]
    told: dict[str, Any] = {
        "name": path.rpartition("/")[2] or place.name,
        "multiscale": len(levels) > 1,
        "scale": tuple(size for at, size in enumerate(finest.scale) if at != channel),
        "translate": tuple(shift for at, shift in enumerate(finest.translation) if at != channel),
        "axis_labels": tuple(one.name for one in shown),
        "units": tuple(one.unit or "pixel" for one in shown),
        "metadata": {"volfs": {"dataset": place.name, "path": path}},
    }
    data = levels if len(levels) > 1 else levels[0]
    ome = group.attrs.get("ome")
    ome = ome if isinstance(ome, dict) else {}
    if image.is_label:
        if channel is not None:
            data = [level.take(0, axis=channel) for level in levels] if len(levels) > 1 else levels[0].take(0, channel)
        return [(data, {**told, **_colours(ome.get("image-label"))}, "labels")]
    if image.rgb and channel is not None:
        return [(data, {**told, "rgb": True}, "image")]
    if channel is None:
        return [(data, {**told, **_windows(ome, 1)}, "image")]
    return [(data, {**told, "channel_axis": channel, **_windows(ome, levels[0].shape[channel])}, "image")]


def _windows(ome: dict[str, Any], count: int) -> dict[str, Any]:
    """Names, contrast limits and colours of channels, where `omero` tells of each (OME-NGFF 0.5, section 2.6)."""
    omero = ome.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list) or len(channels) != count or not all(isinstance(one, dict) for one in channels):
        return {}
    told: dict[str, list[Any]] = {}
    if all(isinstance(one.get("label"), str) for one in channels) and count > 1:
        told["name"] = [one["label"] for one in channels]
    windows = [one.get("window") for one in channels]
    if all(isinstance(one, dict) and {"start", "end"} <= one.keys() and one["start"] < one["end"] for one in windows):
        told["contrast_limits"] = [[one["start"], one["end"]] for one in windows]
    if count > 1 and all(_is_colour(one.get("color")) for one in channels):
        told["colormap"] = [
            [[0, 0, 0], [int(one["color"][at : at + 2], 16) / 255 for at in (0, 2, 4)]] for one in channels
        ]
    if count > 1 and all(isinstance(one.get("active"), bool) for one in channels):
        told["visible"] = [one["active"] for one in channels]
    return {name: values[0] for name, values in told.items()} if count == 1 else dict(told)


def _is_colour(text: object) -> bool:
    return isinstance(text, str) and len(text) == 6 and all(letter in "0123456789abcdefABCDEF" for letter in text)


def _colours(label: object) -> dict[str, Any]:
    """The colours that a label image's metadata gives its labels; napari's own where it gives none."""
    entries = label.get("colors") if isinstance(label, dict) else None
    if not isinstance(entries, list):
        return {}
    given = {
        entry["label-value"]: [part / 255 for part in entry["rgba"]]
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("label-value"), int) and _is_rgba(entry.get("rgba"))
    }
    return {"colormap": {0: "transparent", None: "gray", **given}} if given else {}


def _is_rgba(values: object) -> bool:
    return isinstance(values, list) and len(values) == 4 and all(isinstance(each, int) for each in values)


# ------------------------------------------------------------------------------------------------------------ saving


def _make_labels(group: zarr.Group, above: str, name: str, labels: Any) -> None:
    """An empty label image that lies over the image beside it, level by level."""
    parent = above.rpartition("/")[0]
    holder = group.get(parent) if parent else group
    image = parse_multiscale(dict(holder.attrs)) if isinstance(holder, zarr.Group) else None
    if not isinstance(holder, zarr.Group) or image is None:
        raise NotFound(f"there is no image at {parent or 'the root'} that {above}/{name} could belong to")
    kept = [at for at, one in enumerate(image.axes) if one.type != "channel"]
    arrays = [holder[level.path] for level in image.levels]
    shapes = [tuple(array.shape[at] for at in kept) for array in arrays if isinstance(array, zarr.Array)]
    if tuple(labels.shape) != shapes[0]:
        raise BadInput(
            f"the layer is {_sizes(labels.shape)} and the image {_sizes(shapes[0])}: `volfs import --labels` takes any"
        )
    levels = tuple(
        LevelSpec(f"s{at}", _of(level.scale, kept), _of(level.translation, kept))
        for at, level in enumerate(image.levels)
    )
    made: Multiscale = replace(
        image,
        name=name,
        axes=_of(image.axes, kept),
        levels=levels,
        method="mode",
        rgb=False,
        is_label=True,
    )
    highest = np.min_scalar_type(int(labels.max())) if labels.size else np.dtype("uint16")
    dtype = max(highest, np.dtype("uint16"), key=lambda one: one.itemsize)
    _check_range(labels, dtype, f"{above}/{name}")
    node = group.create_group(f"{above}/{name}")
    for level, shape, array in zip(levels, shapes, arrays, strict=True):
        node.create_array(
            level.path,
            shape=shape,
            chunks=tuple(array.chunks[at] for at in kept),  # type: ignore[union-attr]
            dtype=dtype,
            dimension_names=[one.name for one in made.axes],
        )
    node.attrs.update(ome_attributes(made))
    listed = group.require_group(above)
    listed.attrs.update(labels_attributes([*parse_labels(dict(listed.attrs)), name]))


def _of(values: Sequence[Any], kept: Sequence[int]) -> tuple[Any, ...]:
    return tuple(values[at] for at in kept)


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _write_changed(array: zarr.Array[Any], labels: Any, path: str) -> None:
    """Write the voxels of `labels` that differ, box by box of whole chunks. Raises BadInput before the first."""
    if tuple(labels.shape) != array.shape:
        raise BadInput(f"the layer is {_sizes(labels.shape)} and {path} is {_sizes(array.shape)}")
    boxes = list(_boxes(array.shape, array.chunks))
    for box in boxes:
        _check_range(np.asarray(labels[box]), array.dtype, path)
    for box in boxes:
        part = np.asarray(labels[box]).astype(array.dtype)
        if not np.array_equal(np.asarray(array[box]), part):
            array[box] = part


def _check_range(labels: Any, dtype: np.dtype[Any], path: str) -> None:
    limits = np.iinfo(dtype)
    for value in (int(labels.min()), int(labels.max())) if labels.size else ():
        if not limits.min <= value <= limits.max:
            raise BadInput(f"{path} is {dtype}: it has no place for label {value}")


def _boxes(shape: Sequence[int], chunks: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Boxes of whole chunks that cover an array."""
    size, edge = int(np.prod(chunks)), list(chunks)
    for at in reversed(range(len(edge))):
        while edge[at] < shape[at] and 2 * size <= _AT_A_TIME:
            edge[at], size = 2 * edge[at], 2 * size
    for start in product(*(range(0, extent, step) for extent, step in zip(shape, edge, strict=True))):
        yield tuple(slice(at, min(at + step, end)) for at, step, end in zip(start, edge, shape, strict=True))
