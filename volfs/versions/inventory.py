"""The datasets of one store: the port through which everything above finds them, makes them and removes them.

Decided here: what an inventory promises. A dataset *exists* once its inventory names it and its document can be read;
every catalog mirrors that. Not here: what is in a dataset (its :class:`~volfs.storage.backend.Backend`), its refs and
numbers (its :class:`~volfs.versions.ledger.Ledger`), and who may remove one (:mod:`volfs.versions.store`). A directory
is one inventory (:mod:`volfs.versions.directory_inventory`), memory another (:mod:`volfs.testing.memory_inventory`);
whoever writes a third has :class:`volfs.testing.inventory_conformance.InventoryConformance` judge it.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager
from typing import Protocol

from volfs.storage.backend import Backend
from volfs.storage.store_layout import DatasetLayout
from volfs.versions.dataset_file import DatasetFile
from volfs.versions.ledger import Ledger


class Inventory(Protocol):
    """Thread-safe, and shared by all processes that have the store open. What says "locked" is called in
    :meth:`locked`."""

    def locked(self, patience: float) -> AbstractContextManager[None]:
        """Be the only one who makes and removes datasets, for moments. Busy if others are for ``patience`` seconds."""

    def stamp(self) -> Hashable:
        """Changes when a dataset comes or goes, though perhaps but once for two changes within a moment. Cheap."""

    # -- one dataset --------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Names of everything that is kept where datasets are, sorted: of datasets, damaged ones too, and of strays."""

    def backend(self, name: str) -> Backend:
        """Where a dataset is kept. One that does not exist has no objects."""

    def ledger(self, name: str) -> Ledger:
        """The refs and numbers of a dataset."""

    def layout(self, name: str) -> DatasetLayout:
        """The local disk's part of a dataset: where its working copies lie. Gone with the dataset."""

    # -- coming and going ---------------------------------------------------------------------------------------

    def making(self, file: DatasetFile, *, unfinished: bool = False) -> AbstractContextManager[None]:
        """Make a dataset of this document, with its default branch, which has no version: all of it at once, durably.
        It exists in the block, in which nobody else changes its refs; if the block raises, it never was. AlreadyThere
        if anything has its name. Locked.

        ``unfinished``: whether it stays is not certain before :meth:`finish`.
        """

    def finish(self, name: str) -> None:
        """An unfinished dataset stays, whoever made it. One that was removed meanwhile is fine."""

    def remove(self, name: str) -> None:
        """Remove a dataset with all its versions and working copies, at once; its space is :meth:`reclaim`'s. One that
        is not there is fine. Locked."""

    def sweep(self) -> list[str]:
        """Give up what processes that are gone left half made. The names of the datasets that such left unfinished:
        whether they stay is the caller's to decide. Locked."""

    def reclaim(self) -> None:
        """Free the space of what was removed. May take long."""
