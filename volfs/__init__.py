"""volfs: versioned image volumes as plain directories and files.

    import volfs

    with volfs.open_store("/data/store") as store:
        version = store["cells"]["v3"]         # a snapshot; store["cells"]["main"] is a branch, writable
        for image in volfs.images(version).values():
            plane = image.levels[0][12]        # levels slice like arrays and give numpy

Everything that a mount does is done by the same code here. The rooms of it, each of which imports only those above it
in this list:

``errors``    every failure that a user can meet
``model``     names, boxes, metadata, version graphs: plain values
``native``    what C does of the path of bytes
``storage``   bytes on the disk; ``catalog`` the index of them in SQLite
``versions``  datasets, versions and branches: what is committed, and how
``volume``    images: voxels by boxes
``views``     what virtual files look like, byte for byte; knows ``model`` only
``tree``      the directories and files of a mount
``fuse``      the mount; ``export`` copies of what it would show
``ingest``    files of other programs become versions; knows nothing of ``views``, ``tree`` and ``fuse``
``cli``       the command; ``testing`` the kit for tests
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from volfs.errors import VolfsError

if TYPE_CHECKING:
    from volfs.versions.snapshot import Put, Snapshot
    from volfs.versions.store import Store
    from volfs.volume.image import Image

__all__ = ["VolfsError", "__version__", "images", "init_store", "open_store"]

__version__ = "0.1.0"


def open_store(
    path: str | os.PathLike[str],
    *,
    catalog: str | os.PathLike[str] | None = None,
    create: bool = False,
    read_only: bool = False,
    dead_after: float = 86_400.0,
) -> Store:
    """Open a store; see :func:`volfs.versions.store.open_store`. A context manager."""
    from volfs.versions import store as stores

    return stores.open_store(
        path, derive=_settle, catalog=catalog, create=create, read_only=read_only, dead_after=dead_after
    )


def init_store(path: str | os.PathLike[str], *, catalog: str | os.PathLike[str] | None = None) -> Store:
    """Make an empty store and open it; see :func:`volfs.versions.store.init_store`."""
    from volfs.versions import store as stores

    return stores.init_store(path, derive=_settle, catalog=catalog)


def images(snapshot: Snapshot) -> dict[str, Image]:
    """The images of a snapshot by their path in the hierarchy; see :func:`volfs.volume.image.images`."""
    from volfs.volume.image import images as find

    return find(snapshot)


def _settle(snapshot: Snapshot, put: Put) -> object:
    """What every commit derives; whoever only looks does not load it."""
    from volfs.volume.pyramid import settle

    return settle(snapshot, put)
