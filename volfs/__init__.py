"""volfs: versioned image volumes as plain directories and files.

    import volfs

    with volfs.open_store("/data/store") as store:
        version = store["cells"]["v3"]         # a snapshot; store["cells"]["main"] is a branch, writable
        for image in version.values():
            plane = image["s0"][12]            # levels slice like arrays and give numpy

Stores, datasets, snapshots and images are mappings of what is in them; `docs/python.md` describes all of it.

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
``web``       the tree by HTTP
``ingest``    files of other programs become versions; knows nothing of ``views``, ``tree`` and ``fuse``
``python``    pages in notebooks, plugins of other libraries for Python
``cli``       the command; ``testing`` the kit for tests
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from volfs.errors import VolfsError
from volfs.python.face import Face as _Face

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from volfs.model.graph import VersionInfo
    from volfs.versions.branch import Branch
    from volfs.versions.committed.version import Version
    from volfs.versions.dataset import Dataset
    from volfs.versions.remotes.exchange import Exchange
    from volfs.versions.snapshot import Put, Snapshot
    from volfs.versions.store import Store
    from volfs.volume.image import Image
    from volfs.volume.level import Level

__all__ = [
    "Branch",
    "Dataset",
    "Image",
    "Level",
    "Snapshot",
    "Store",
    "Version",
    "VersionInfo",
    "VolfsError",
    "__version__",
    "clone",
    "images",
    "init_store",
    "open_store",
]

#: Types are loaded when somebody names them: most commands need few of them.
_TYPES = {
    "Branch": "volfs.versions.branch",
    "Dataset": "volfs.versions.dataset",
    "Image": "volfs.volume.image",
    "Level": "volfs.volume.level",
    "Snapshot": "volfs.versions.snapshot",
    "Store": "volfs.versions.store",
    "Version": "volfs.versions.committed.version",
    "VersionInfo": "volfs.model.graph",
}

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
        path,
        derive=_settle,
        face=_Face(),
        catalog=catalog,
        create=create,
        read_only=read_only,
        dead_after=dead_after,
    )


def init_store(path: str | os.PathLike[str], *, catalog: str | os.PathLike[str] | None = None) -> Store:
    """Make an empty store and open it; see :func:`volfs.versions.store.init_store`."""
    from volfs.versions import store as stores

    return stores.init_store(path, derive=_settle, face=_Face(), catalog=catalog)


def clone(
    source: str,
    destination: str | os.PathLike[str],
    *,
    refs: Sequence[str] = (),
    depth: int | None = None,
    since: str | None = None,
    levels: str | None = None,
    box: str | None = None,
    paths: Sequence[str] = (),
    catalog: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int, str], object] | None = None,
) -> Mapping[str, Exchange]:
    """Clone a dataset, or all of a store, into the store at ``destination``, which is made if there is none.

    ``source`` is a path or ``ssh://host/path`` of a store or of a dataset in one. Returns what was done, by dataset.
    The same again goes on with what was cut short. See :func:`volfs.versions.remotes.clone.clone`.

    ``refs``: the branches and tags that are wanted, all by default. What ``depth`` (versions of each), ``since`` (a
    time), ``levels`` (``"s2-"``), ``box`` (``"z0-64_y100-612"``) or ``paths`` leave out is absent: reading it raises
    :class:`volfs.errors.Absent`, and ``dataset.fetch`` brings more.
    """
    from pathlib import Path

    from volfs.versions.clone_parts import CloneParts, chosen_refs
    from volfs.versions.directory_inventory import discard_new_store
    from volfs.versions.remotes.address import Address
    from volfs.versions.remotes.clone import clone_all
    from volfs.versions.remotes.connection import connected
    from volfs.versions.remotes.partial_clone import part_of

    part = part_of(depth, since, levels, box, paths)
    parts = CloneParts(() if part is None else (part,), chosen_refs(refs))
    place = Path(destination)
    with connected(Address.parse(source), "fetch") as connection:
        new = not place.exists()
        try:
            with open_store(place, catalog=catalog, create=True) as store:
                return clone_all(store, connection, progress, parts)
        except BaseException:
            if new:
                discard_new_store(place)
            raise


def images(snapshot: Snapshot) -> dict[str, Image]:
    """The images of a snapshot by their path in the hierarchy; see :func:`volfs.volume.image.images`."""
    from volfs.volume.image import images as find

    return find(snapshot)


def __getattr__(name: str) -> Any:
    if name in _TYPES:
        return getattr(import_module(_TYPES[name]), name)
    raise AttributeError(f"module 'volfs' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]


def _settle(snapshot: Snapshot, put: Put) -> object:
    """What every commit derives; whoever only looks does not load it."""
    from volfs.volume.pyramid import settle

    return settle(snapshot, put)
