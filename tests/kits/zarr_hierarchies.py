"""Zarr hierarchies of any type and codec in memory, for the tests of both Zarr folders."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.kits.view_folders import (
    RAW,
    MemoryArray,
    MemoryNode,
    array_meta,
    hierarchy,
    image_view,
)
from volfs.model import ngff
from volfs.testing.volumes import noise

ZSTD = (*RAW, {"name": "zstd", "configuration": {"level": 3, "checksum": True}})


def blosc(cname: str, shuffle: str, typesize: int) -> tuple[dict[str, Any], ...]:
    config = {"cname": cname, "clevel": 5, "shuffle": shuffle, "typesize": typesize, "blocksize": 0}
    return (*RAW, {"name": "blosc", "configuration": config})


def transposed(*order: int) -> tuple[dict[str, Any], ...]:
    return ({"name": "transpose", "configuration": {"order": list(order)}}, *ZSTD)


def array(shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...], **more: Any) -> MemoryArray:
    meta = array_meta(shape, dtype, chunks, **more)
    if np.dtype(dtype).kind == "c":
        part = noise((*shape, 2), f"f{np.dtype(dtype).itemsize // 2}")
        voxels = (part[..., 0] + 1j * part[..., 1]).astype(dtype)
    else:
        voxels = noise(shape, dtype)
    first = np.ix_(*(range(min(c, n)) for c, n in zip(chunks, shape, strict=True)))
    voxels[first] = meta.fill_value
    return MemoryArray(meta, voxels)


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.dtype.newbyteorder("=") == expected.dtype and np.array_equal(
        found, expected, equal_nan=expected.dtype.kind in "fc"
    )


DTYPES = ["bool", "u1", "i1", "u2", "i2", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]


def image(is_label: bool = False) -> tuple[Any, ngff.Multiscale]:
    voxels = noise((3, 2, 5, 7, 11), "u2")
    axes = [ngff.axis("t", "s"), ngff.axis("c"), *(ngff.axis(n, "nm") for n in "zyx")]
    scale = (1.0, 1.0, 40.0, 4.5, 4.0)
    multiscale = ngff.pyramid(
        "cells", axes, scale, [(1, 1, 2, 2, 2)], translation=(0, 0, 10, 20, 30), is_label=is_label
    )
    view = image_view(
        voxels, "tczyx", chunks=(1, 1, 4, 4, 4), levels=2, scale=scale, dimension_names=list("tczyx"), is_label=is_label
    )
    return view, multiscale


def whole() -> MemoryNode:
    """An image with rendering settings, attributes of others, and a label image."""
    view, multiscale = image()
    labels, of_labels = image(is_label=True)
    channel = {"color": "FF0000", "label": "actin", "window": {"start": 0, "end": 9, "min": 0, "max": 65535}}
    attributes = ngff.ome_attributes(multiscale)
    attributes["ome"]["omero"] = {"channels": [channel, {**channel, "label": "DNA", "color": "00FF00"}]}
    attributes["lab"] = {"who": "me"}
    named = ngff.ome_attributes(of_labels)
    named["ome"]["image-label"]["colors"] = [{"label-value": 1, "rgba": [255, 0, 0, 255]}]
    group = MemoryNode("labels", None, ngff.labels_attributes(["nuclei"]), {"nuclei": hierarchy(labels, named)})
    return hierarchy(view, attributes, labels=group)
