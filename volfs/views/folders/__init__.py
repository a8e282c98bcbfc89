"""Formats that are directories, one module each: see :mod:`volfs.views.folder` for what they are made of.

``zarr2`` ``sharded_zarr``  a hierarchy as Zarr v2, or as Zarr v3 with sharded arrays
``spatial``      an image for formats that know only x, y and z
``n5`` ``bdv``   N5 as BigDataViewer writes it, and the XML that opens it
``precomputed``  Neuroglancer's volumes
``deepzoom``     planes as tiles of PNG

Decided here: which there are of an image, or of a hierarchy, and under which names. Ordinals are parts of inodes and
never change.
"""

from __future__ import annotations

from volfs.views.folder import Fixed, ImageView, NodeView
from volfs.views.folders import bdv, deepzoom, n5, precomputed, sharded_zarr, zarr2


def hierarchy_formats(node: NodeView, name: str) -> list[Fixed]:
    """Those that show a whole hierarchy, called after ``name``."""
    return [
        Fixed(f"{name}.v2.zarr", lambda: zarr2.folder(node)),
        Fixed(f"{name}.sharded.zarr", lambda: sharded_zarr.folder(node)),
    ]


def image_formats(image: ImageView, name: str) -> list[Fixed]:
    """Those that show one image. With zstandard blocks, which not every reader of N5 knows, by name only."""
    return [
        Fixed(f"{name}.n5", lambda: n5.folder(image)),
        Fixed(f"{name}.xml", lambda: bdv.document(image, f"{name}.n5"), 1),
        Fixed(f"{name}.zstd.n5", lambda: n5.folder(image, zstd=True), listed=False),
        Fixed(f"{name}.zstd.xml", lambda: bdv.document(image, f"{name}.zstd.n5", zstd=True), 2, listed=False),
        Fixed(f"{name}.precomputed", lambda: precomputed.folder(image)),
        Fixed(f"{name}.tiles", lambda: deepzoom.folder(image)),
    ]
