"""Multiscale images in Zarr group attributes: OME-Zarr 0.5 (OME-NGFF 0.5, sections 2.2 to 2.6), and back.

Decided here: what a group's attributes must say for volfs to see an image (`parse_multiscale`), what volfs itself
writes (`ome_attributes`, `labels_attributes`), and by which factors the levels of a pyramid shrink
(`downsampling_factors`). Not here: whether the arrays named by the metadata exist or have sensible shapes
(:mod:`volfs.volume.image`), nor how voxels are averaged (:mod:`volfs.volume.downsample`).

volfs keeps its own facts beside `ome`, under `volfs`: `{"pyramid": {"managed": true, "method": "mean"}, "rgb": false}`,
and what the image's source said (:mod:`volfs.model.facts`). An image whose axes OME-NGFF does not allow (more than
five, for instance) has no `ome` at all; its multiscales block stands under `volfs` in the same form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from volfs.errors import BadInput, BadMetadata
from volfs.model.units import lengths, normal_unit

VERSION = "0.5"

#: Levels are added until no spatial axis is longer than this.
SMALLEST_LEVEL = 128

#: `mean` for intensities, `mode` (ties to the smallest) for labels and booleans, `first` (the voxel at the lowest
#: index) for types that have no arithmetic.
Method = Literal["mean", "mode", "first"]
METHODS: tuple[Method, ...] = ("mean", "mode", "first")

_TYPES_BY_NAME = {"x": "space", "y": "space", "z": "space", "t": "time", "c": "channel"}


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of an image, as OME-NGFF names it. `type` is None for axes of a kind of their own."""

    name: str
    type: str | None = None
    unit: str | None = None


class LevelSpec(NamedTuple):
    """One resolution level: the array's path relative to the group, the voxel size and the centre of voxel 0."""

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Multiscale:
    """An image: arrays of the same axes, finest first.

    `managed` says that volfs keeps the coarser levels equal to what `method` makes of the level above. `rgb` says
    that the channel axis holds the red, green, blue (and alpha) samples of one picture.
    """

    name: str
    axes: tuple[Axis, ...]
    levels: tuple[LevelSpec, ...]
    managed: bool = False
    method: Method = "mean"
    rgb: bool = False
    is_label: bool = False
    #: No metadata says so yet: what is there looks like it.
    provisional: bool = False

    def factors(self, index: int) -> tuple[int, ...]:
        """How many voxels of the level above make one of level `index`, per axis (all 1 for level 0)."""
        if index == 0:
            return (1,) * len(self.axes)
        finer, coarser = self.levels[index - 1].scale, self.levels[index].scale
        return tuple(max(1, round(abs(c / f))) for f, c in zip(finer, coarser, strict=True))


def axis(name: str, unit: str | None = None) -> Axis:
    """The axis that a name usually means: x, y, z are space, t is time, c is channel."""
    return Axis(name, _TYPES_BY_NAME.get(name), normal_unit(unit))


def allowed_by_ome(axes: Sequence[Axis]) -> bool:
    """Whether OME-NGFF 0.5 has a place for these axes.

    2 to 5 axes, names unique; 2 or 3 of space, at most one of time, at most one channel or other; in the order
    time, channel or other, space.
    """
    ranks = [{"time": 0, "space": 2}.get(a.type or "", 1) for a in axes]
    return (
        2 <= len(axes) <= 5
        and len({a.name for a in axes}) == len(axes)
        and ranks == sorted(ranks)
        and ranks.count(2) in (2, 3)
        and ranks.count(0) <= 1
        and ranks.count(1) <= 1
    )


# ---------------------------------------------------------------------------------------------- making metadata


def downsampling_factors(
    shape: Sequence[int],
    scale: Sequence[float],
    axes: Sequence[Axis],
    levels: int | Literal["auto"] = "auto",
) -> list[tuple[int, ...]]:
    """The factor (1 or 2 per axis) of each level below the first, relative to the level above it.

    Only axes of space shrink; their sizes are compared in metres where units are known. An axis whose voxels are at
    least twice as coarse as the finest is not halved, and z never while it is coarser than both y and x, so that coarse
    levels come near to isotropic. `levels` counts all levels; "auto" stops when no axis of space is longer than
    :data:`SMALLEST_LEVEL`. Fewer levels than asked for are made when there is nothing left to halve.
    """
    if not len(shape) == len(scale) == len(axes):
        raise BadInput(f"shape {tuple(shape)}, voxel size {tuple(scale)} and {len(axes)} axes do not match")
    if levels != "auto" and levels < 1:
        raise BadInput(f"an image has at least one level, not {levels}")
    space = [i for i, a in enumerate(axes) if a.type == "space"]
    size, voxel = list(shape), [1.0] * len(shape)
    for i, length in zip(space, lengths([scale[i] for i in space], [axes[i].unit for i in space]), strict=True):
        voxel[i] = length
    factors: list[tuple[int, ...]] = []
    while levels == "auto" or len(factors) < levels - 1:
        if levels == "auto" and max((size[i] for i in space), default=0) <= SMALLEST_LEVEL:
            break
        halved = _axes_to_halve(size, voxel, axes, space)
        if not halved:
            break
        factors.append(tuple(2 if i in halved else 1 for i in range(len(size))))
        for i in halved:
            size[i] = -(-size[i] // 2)
            voxel[i] *= 2
    return factors


def _axes_to_halve(size: list[int], voxel: list[float], axes: Sequence[Axis], space: list[int]) -> set[int]:
    can = [i for i in space if size[i] > 1]
    if not can:
        return set()
    finest = min(voxel[i] for i in can)
    halved = {i for i in can if voxel[i] < 2 * finest * 0.999}
    named = {axes[i].name: i for i in can}
    if {"x", "y", "z"} <= named.keys():
        z, y, x = named["z"], named["y"], named["x"]
        if voxel[z] > 1.01 * max(voxel[y], voxel[x]):  # 1.01: scanners write 1.0000001
            halved.discard(z)
    return halved


def downsampled_shape(shape: Sequence[int], factors: Sequence[int]) -> tuple[int, ...]:
    """The shape of the next level: sizes round up."""
    return tuple(-(-n // f) for n, f in zip(shape, factors, strict=True))


def pyramid(
    name: str,
    axes: Sequence[Axis],
    scale: Sequence[float],
    factors: Sequence[Sequence[int]] = (),
    *,
    translation: Sequence[float] | None = None,
    method: Method = "mean",
    rgb: bool = False,
    is_label: bool = False,
) -> Multiscale:
    """A managed image with levels `s0`, `s1`, …: `factors` as :func:`downsampling_factors` gives them.

    Coordinates are those of voxel centres, so the first voxel of a level that is `f` times coarser lies at
    `translation + (f - 1) / 2 * scale`.
    """
    origin = tuple(map(float, translation)) if translation is not None else (0.0,) * len(axes)
    total = [1] * len(axes)
    levels = []
    for index, step in enumerate([(1,) * len(axes), *factors]):
        total = [t * f for t, f in zip(total, step, strict=True)]
        levels.append(
            LevelSpec(
                f"s{index}",
                tuple(float(s) * t for s, t in zip(scale, total, strict=True)),
                tuple(o + (t - 1) / 2 * float(s) for o, s, t in zip(origin, scale, total, strict=True)),
            )
        )
    return Multiscale(name, tuple(axes), tuple(levels), managed=True, method=method, rgb=rgb, is_label=is_label)


def ome_attributes(
    image: Multiscale, *, source: str = "../../", further: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The attributes of the group that holds `image` (its `zarr.json`'s `attributes`).

    `source` is the path from a label image to the image it belongs to (`image-label.source`). `further` are other
    members of `ome` (`omero`, and what `image-label` has besides: `colors`, `properties`). The arrays must be given the
    axes' names as `dimension_names`.
    """
    more = dict(further or {})
    labels = more.pop("image-label", None)
    block: dict[str, Any] = {
        "name": image.name,
        "axes": [{k: v for k, v in (("name", a.name), ("type", a.type), ("unit", a.unit)) if v} for a in image.axes],
        "datasets": [
            {"path": level.path, "coordinateTransformations": _transformations(level)} for level in image.levels
        ],
        "type": image.method,
    }
    own: dict[str, Any] = {"pyramid": {"managed": image.managed, "method": image.method}, "rgb": image.rgb}
    if not allowed_by_ome(image.axes):
        named = {"image-label": dict(labels)} if image.is_label and isinstance(labels, Mapping) else {}
        return {"volfs": {**own, "multiscales": [block], "is_label": image.is_label, **named, **more}}
    ome: dict[str, Any] = {"version": VERSION, "multiscales": [block], **more}
    if image.is_label:
        ome["image-label"] = {**(labels if isinstance(labels, Mapping) else {}), "source": {"image": source}}
    return {"ome": ome, "volfs": own}


def _transformations(level: LevelSpec) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": list(level.scale)}]
    if any(level.translation):
        steps.append({"type": "translation", "translation": list(level.translation)})
    return steps


def labels_attributes(names: Sequence[str]) -> dict[str, Any]:
    """The attributes of the `labels` group beside an image's levels (OME-NGFF 0.5, section 2.5)."""
    return {"ome": {"version": VERSION, "labels": list(names)}}


# --------------------------------------------------------------------------------------------- reading metadata


def parse_labels(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """The label images that a `labels` group lists (0.5, or 0.4 as some programs still write it)."""
    for holder in (attributes.get("ome"), attributes):
        names = holder.get("labels") if isinstance(holder, Mapping) else None
        if isinstance(names, list):
            return tuple(n for n in names if isinstance(n, str))
    return ()


def parse_multiscale(attributes: Mapping[str, Any]) -> Multiscale | None:
    """The image that a group's attributes describe, or None if they describe none.

    Reads OME-Zarr 0.5 (`attributes.ome`), the same block under `volfs`, and 0.1 to 0.4 blocks that stand directly in
    the attributes. Of several multiscales the first counts. Raises BadMetadata if there is one that cannot be right.
    """
    own = attributes.get("volfs")
    own = own if isinstance(own, Mapping) else {}
    for holder in (attributes.get("ome"), own, attributes):
        blocks = holder.get("multiscales") if isinstance(holder, Mapping) else None
        if isinstance(blocks, list) and blocks:
            return _multiscale(blocks[0], cast("Mapping[str, Any]", holder), own)
    return None


def _multiscale(block: object, holder: Mapping[str, Any], own: Mapping[str, Any]) -> Multiscale:
    if not isinstance(block, Mapping):
        raise BadMetadata("multiscales: an entry is not an object")
    datasets = block.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        raise BadMetadata("multiscales: `datasets` is missing or empty")
    axes = _axes(block.get("axes"), datasets)
    common = _affine(block.get("coordinateTransformations"), len(axes))
    levels = tuple(_level(entry, len(axes), common) for entry in datasets)
    if len({level.path for level in levels}) != len(levels):
        raise BadMetadata("multiscales: two levels have the same path")
    is_label = "image-label" in holder or own.get("is_label") is True
    facts = own.get("pyramid")
    facts = facts if isinstance(facts, Mapping) else {}
    method = facts.get("method")
    name = block.get("name")
    return Multiscale(
        name if isinstance(name, str) else "",
        axes,
        levels,
        managed=facts.get("managed") is True and method in METHODS,
        method=method if method in METHODS else ("mode" if is_label else "mean"),
        rgb=own.get("rgb") is True,
        is_label=is_label,
    )


def _axes(found: object, datasets: list[Any]) -> tuple[Axis, ...]:
    if found is None:  # 0.1 and 0.2: always t, c, z, y, x
        return tuple(axis(n) for n in "tczyx")
    if not isinstance(found, list) or not found:
        raise BadMetadata("multiscales: `axes` is not a list")
    axes = []
    for entry in found:
        if isinstance(entry, str):  # 0.3
            axes.append(axis(entry))
        elif isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
            kind, unit = entry.get("type"), entry.get("unit")
            axes.append(
                Axis(
                    entry["name"],
                    kind if isinstance(kind, str) else _TYPES_BY_NAME.get(entry["name"]),
                    normal_unit(unit) if isinstance(unit, str) else None,
                )
            )
        else:
            raise BadMetadata("multiscales: an axis has no name")
    if len({a.name for a in axes}) != len(axes):
        raise BadMetadata("multiscales: two axes have the same name")
    return tuple(axes)


def _level(entry: object, ndim: int, common: tuple[tuple[float, ...], tuple[float, ...]]) -> LevelSpec:
    path = entry.get("path") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(path, str):
        raise BadMetadata("multiscales: a level has no path")
    parts = path.strip("/").split("/")
    if not all(parts) or {".", ".."} & set(parts):
        raise BadMetadata(f"multiscales: {path!r} is not the path of an array in this group")
    scale, translation = _affine(entry.get("coordinateTransformations"), ndim)
    outer, shift = common
    return LevelSpec(
        "/".join(parts),
        tuple(o * s for o, s in zip(outer, scale, strict=True)),
        tuple(o * t + d for o, t, d in zip(outer, translation, shift, strict=True)),
    )


def _affine(steps: object, ndim: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The scale and translation that a list of coordinateTransformations amounts to."""
    scale, translation = (1.0,) * ndim, (0.0,) * ndim
    if steps is None:
        return scale, translation
    if not isinstance(steps, list):
        raise BadMetadata("multiscales: `coordinateTransformations` is not a list")
    for step in steps:
        kind = step.get("type") if isinstance(step, Mapping) else None
        if kind == "scale":
            by = _numbers(step.get("scale"), ndim, "scale")
            scale = tuple(a * b for a, b in zip(scale, by, strict=True))
            translation = tuple(a * b for a, b in zip(translation, by, strict=True))
        elif kind == "translation":
            by = _numbers(step.get("translation"), ndim, "translation")
            translation = tuple(a + b for a, b in zip(translation, by, strict=True))
    return scale, translation


def _numbers(values: object, ndim: int, what: str) -> tuple[float, ...]:
    if (
        not isinstance(values, list)
        or len(values) != ndim
        or not all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    ):
        raise BadMetadata(f"multiscales: `{what}` is not a list of {ndim} numbers")
    return tuple(float(v) for v in values)
