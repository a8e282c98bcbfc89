"""Memory as an :class:`~volfs.versions.inventory.Inventory`: for tests of what must not know where datasets are kept.

Working copies are directories all the same, in a place of their own.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from volfs.errors import AlreadyThere, Busy
from volfs.model.refs import RefKind
from volfs.storage.store_layout import DATASET_JSON, VERSIONS, DatasetLayout
from volfs.storage.trash import delete_tree
from volfs.testing.memory_backend import MemoryBackend
from volfs.testing.memory_ledger import MemoryLedger
from volfs.versions.dataset_file import DatasetFile
from volfs.versions.ledger import RefRecord


class MemoryInventory:
    """Datasets that live as long as this does, with their working copies below ``workings``."""

    def __init__(self, workings: Path) -> None:
        self._workings = workings
        self._turn = threading.Lock()
        self._backend = MemoryBackend()
        self._ledgers: dict[str, MemoryLedger] = {}
        self._changes = itertools.count(1)
        self._stamp = 0

    @contextmanager
    def locked(self, patience: float) -> Iterator[None]:
        if not self._turn.acquire(timeout=patience):
            raise Busy("another thread makes or removes datasets")
        try:
            yield
        finally:
            self._turn.release()

    def stamp(self) -> int:
        return self._stamp

    # -- one dataset --------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return sorted(self._ledgers)

    def backend(self, name: str) -> MemoryBackend:
        return self._backend.below(name)

    def ledger(self, name: str) -> MemoryLedger:
        return self._ledgers.get(name) or self._new_ledger(name)

    def layout(self, name: str) -> DatasetLayout:
        return DatasetLayout(self._workings / name)

    # -- coming and going ---------------------------------------------------------------------------------------

    @contextmanager
    def making(self, file: DatasetFile, *, unfinished: bool = False) -> Iterator[None]:
        name, ledger = file.name, self._new_ledger(file.name)
        if name in self._ledgers:
            raise AlreadyThere(f"there is a dataset {name!r} already")
        ledger.set_ref(RefKind.BRANCH, file.default_branch, RefRecord(0), None)
        with ledger.locked(0):
            self.layout(name).workings.mkdir(parents=True)
            file.write(self.backend(name))
            self._ledgers[name] = ledger
            self._changed()
            try:
                yield
            except BaseException:
                self.remove(name)
                raise

    def finish(self, name: str) -> None:
        """Nothing is unfinished: its maker lives as long as this does."""

    def remove(self, name: str) -> None:
        backend = self.backend(name)
        backend.remove([DATASET_JSON])
        backend.remove(list(backend.list()))
        delete_tree(self.layout(name).root)
        if self._ledgers.pop(name, None) is not None:
            self._changed()

    def sweep(self) -> list[str]:
        """Nothing is left by processes that die: it dies with them."""
        return []

    def reclaim(self) -> None:
        """What is removed is gone."""

    def _new_ledger(self, name: str) -> MemoryLedger:
        return MemoryLedger(self.backend(name).below(VERSIONS))

    def _changed(self) -> None:
        self._stamp = next(self._changes)
