"""The dataset as its versions and branches know it: Protocols of the few things that they ask.

Decided here: which questions these are. They are answered by :class:`volfs.versions.dataset.Dataset` and
:class:`volfs.versions.store.Store`, which stand above and are imported by nothing below them. Those who add versions
ask more: :mod:`volfs.versions.commit.writable_history`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from volfs.catalog import Catalog
from volfs.model.bounded_map import Caches
from volfs.model.graph import VersionGraph, VersionInfo
from volfs.model.metadata import ArrayMeta, GroupMeta
from volfs.storage.backend import Backend
from volfs.storage.payload import Payload, PayloadReader
from volfs.storage.reserve import Reserve
from volfs.storage.store_layout import DatasetLayout
from volfs.versions.ledger import Ledger

V_co = TypeVar("V_co", covariant=True)


class Face(Protocol):
    """What rooms above make of an object of this one, for those who have only that object in hand."""

    def images(self, snapshot: Any) -> Mapping[str, Any]:
        """The images of a snapshot by their paths: :func:`volfs.volume.image.images`."""

    def at(self, snapshot: Any, path: str) -> Any | None:
        """The image at a path of a snapshot, or the level; None if there is neither."""

    def data_array(self, level: Any) -> Any:
        """A level as xarray's. Unsupported where xarray is not installed."""

    def data_tree(self, image: Any) -> Any:
        """An image as xarray's tree. Unsupported where xarray is not installed."""

    def html(self, shown: object) -> str:
        """A store, dataset, snapshot, image or level as notebooks show it."""


class Opening(Protocol):
    """How a store was opened. Can be pickled, and opens the same store in another process."""

    def store(self) -> Any:
        """The store: one of this process that is open so already, or one that is opened now."""

    def __call__(self, dataset: str, ref: str) -> Any:
        """The snapshot of a dataset at a ref."""


class OpenStore(Protocol):
    """The store that a dataset belongs to."""

    @property
    def path(self) -> Path:
        """The directory of the store."""

    @property
    def caches(self) -> Caches:
        """The caches of the store."""

    @property
    def read_only(self) -> bool:
        """Whether the store was opened only to be read."""

    @property
    def reserve(self) -> Reserve:
        """Disk space for operations that free some."""

    @property
    def dead_after(self) -> float:
        """Seconds without a change after which work that another machine began counts as abandoned."""

    @property
    def face(self) -> Face:
        """What rooms above make of the store's objects."""

    def opening(self) -> Opening:
        """How the store was opened."""

    def check_writable(self) -> None:
        """Raise ReadOnly if the store was opened read-only."""

    def refresh(self) -> bool:
        """Learn of the changes that other processes made; True if there were any since the last call."""


class History(Protocol[V_co]):
    """One dataset: its versions, and the means to read them. ``V_co`` is the type of a version."""

    @property
    def id(self) -> int:
        """The catalog's number of the dataset."""

    @property
    def name(self) -> str:
        """The dataset's name."""

    @property
    def store(self) -> OpenStore:
        """The store that the dataset belongs to."""

    @property
    def layout(self) -> DatasetLayout:
        """The paths of the dataset's files."""

    @property
    def catalog(self) -> Catalog:
        """The index in which keys and chunks are looked up."""

    @property
    def backend(self) -> Backend:
        """Where the dataset is kept."""

    @property
    def objects(self) -> Backend:
        """The dataset's ``versions/``: all that is committed."""

    @property
    def ledger(self) -> Ledger:
        """Refs and numbers as they are, whatever the catalog knows."""

    @property
    def reader(self) -> PayloadReader:
        """Reads committed bytes, and verifies them."""

    @property
    def graph(self) -> VersionGraph:
        """All versions, as the catalog knows them now."""

    def info(self, number: int) -> VersionInfo:
        """Parents, author, message and time of a version. Raises NotFound, or Damaged if it cannot be indexed."""

    def time_of(self, number: int) -> int:
        """The time (ns) of a version. Raises NotFound."""

    def metadata(self, payload: Payload) -> ArrayMeta | GroupMeta | None:
        """A committed ``zarr.json``, parsed; None where volfs does not interpret it. Equal ones are shared."""

    def version(self, number: int) -> V_co:
        """The snapshot of a version. Raises NotFound."""
