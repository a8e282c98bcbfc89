"""Recovery of a store that is opened for writing, and making the catalog anew from the store's own files.

Decided here: which traces of dead processes are acted upon. Recovery touches exactly what an intent names (a version
being published, a commit under way), a partial version whose writer no longer holds the lock in it, and names that say
they are half made or thrown away. What a live process holds is left to it. Not decided here: how each is settled
(:mod:`volfs.versions.commit.publish`, :mod:`volfs.versions.commit.protocol`).

Storage is the truth: versions that lie in the store and that the catalog does not know are indexed, parents first. With
a new catalog that is all of them.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from volfs.catalog import Catalog, DatasetRow
from volfs.errors import Busy, Damaged, NoSpace, NotFound, VolfsError
from volfs.model.display import printable
from volfs.model.names import is_dataset_name
from volfs.model.refs import RefKind
from volfs.storage.files import FileLock
from volfs.storage.store_layout import VERSIONS, DatasetLayout
from volfs.storage.trash import empty_trash
from volfs.versions.commit.mirror import MirroredHistory
from volfs.versions.commit.writable_history import Progress
from volfs.versions.committed.version_files import VersionFiles, read_version
from volfs.versions.dataset_file import DatasetFile, give_id
from volfs.versions.inventory import Inventory
from volfs.versions.ledger import Ledger
from volfs.versions.working.branch_lock import elsewhere

log = logging.getLogger(__name__)


class RecoverableDataset(MirroredHistory, Protocol):
    """A dataset that may hold traces of dead processes."""

    def seal_refs(self) -> None:
        """Give refs that an older volfs or a person wrote a checksum and their versions' content ids."""


class RecoverableStore(Protocol):
    """A store that may hold traces of dead processes, with its catalog."""

    #: Datasets that the catalog does not know as they are, and why.
    broken: dict[str, str]

    @property
    def inventory(self) -> Inventory: ...

    @property
    def catalog(self) -> Catalog: ...

    @property
    def catalog_path(self) -> Path: ...

    def datasets(self) -> list[str]:
        """Names of the datasets."""

    def __getitem__(self, name: str) -> RecoverableDataset: ...

    def check_writable(self) -> None:
        """Raise ReadOnly if the store was opened read-only."""

    def locked(self) -> AbstractContextManager[None]:
        """Hold the store's lock."""

    def forget(self, name: str) -> None:
        """Remove a dataset from the catalog, and close it. Its files stay."""

    def forget_all(self) -> None:
        """Remove everything from the catalog."""


def recover(store: RecoverableStore) -> None:
    """Settle all that earlier processes left unfinished in the store and its catalog. For every opening; cheap if there
    is nothing.

    A dataset that cannot be recovered harms no other: it is logged, and fsck says what is wrong.
    """
    with store.locked():
        _sweep(store)
        register(store)
    store.inventory.reclaim()
    for name in store.datasets():
        try:
            recover_dataset(store[name])
        except NoSpace:
            raise
        except Exception as error:  # whatever it is, it is this dataset's
            _tell(name, "what dead processes left in it cannot be mended", error)


def recover_dataset(dataset: RecoverableDataset) -> None:
    """Settle what dead processes left in one dataset."""
    with dataset.locked():
        dataset.ledger.sweep()
        dataset.seal_refs()
    give_id(dataset.backend, dataset.name)
    dataset.ledger.reclaim()
    if not dataset.layout.workings.is_dir():
        return
    empty_trash(dataset.layout.workings)
    for folder in sorted(dataset.layout.workings.iterdir()):
        layout = dataset.layout.working(folder.name)
        if layout.commit_intent.exists() and elsewhere(layout, dataset.store.dead_after) is None:
            lock = FileLock(layout.lock)
            if lock.try_lock():
                try:
                    # What commits is loaded where a commit was under way: reading a store needs none of it.
                    from volfs.versions.commit.protocol import settle_working

                    settle_working(dataset, folder.name)
                finally:
                    lock.release()


def bring_up_to_date(store: RecoverableStore) -> None:
    """Add to the datasets of a store what an older volfs did not note down. Repeating it does no harm."""
    for name in store.datasets():
        try:
            dataset = store[name]
            with dataset.locked():
                dataset.ledger.bring_up_to_date()
        except VolfsError as error:  # it is this dataset's, and fsck says so
            _tell(name, "cannot be brought up to date", error)


def rebuild_catalog(store: RecoverableStore, progress: Progress | None = None) -> None:
    """Make the catalog anew from the store's own files. Nothing committed is lost by it.

    Other processes that have the store open keep the numbers they know; inodes stay what they were.
    """
    store.check_writable()
    with store.locked():
        store.forget_all()
        register(store)
    for name in store.datasets():
        with store[name].locked(progress=progress):
            pass


def _sweep(store: RecoverableStore) -> None:
    """Throw away half-made datasets, as nobody can be making one while the store's lock is held here; and those that
    were to stay only with a version in them, and whose maker died before."""
    there = store.inventory
    for name in there.sweep():
        if is_untouched(there.layout(name), there.ledger(name)):
            there.remove(name)
        else:
            there.finish(name)


def is_untouched(layout: DatasetLayout, ledger: Ledger) -> bool:
    """Whether a dataset is as it was made: no version, no tag, and nothing in a working copy."""
    try:
        committed = any(ledger.ref(kind, name).version for kind in RefKind for name in ledger.names(kind))
    except Damaged:
        return False
    loose = (path for folder in ("top", "staged", "frozen-*") for path in layout.workings.glob(f"*/{folder}/**/*"))
    return not committed and not any(path.is_file() for path in loose)


def register(store: RecoverableStore) -> None:
    """Make the catalog know the datasets that are there, and forget those that are not, or that were removed and made
    again. Call with the store's lock."""
    known = store.catalog.dataset_rows()
    there = datasets_there(store)
    store.broken.clear()
    for name in sorted(known.keys() - there):
        store.forget(name)
    for name in sorted(there):
        row = known.get(name)
        try:
            file = DatasetFile.read(store.inventory.backend(name), name)
            if row is not None:
                why = _is_another(row, file) or _is_elsewhere(store, row)
                if why is None:
                    continue
                log.warning("dataset %s: the catalog %s: it is indexed anew", name, why)
                store.forget(name)
            store.catalog.add_dataset(name, file.created_ns, file.id)
        except (NoSpace, Busy):
            raise
        except Exception as error:  # whatever it is, it is this dataset's
            if row is None and isinstance(error, NotFound):
                continue  # it is none, and fsck says so
            store.broken[name] = _tell(name, "cannot be added to the catalog", error)


def look_over(store: RecoverableStore) -> None:
    """For opening without writing: note which datasets the catalog does not know as they are in the store's own files.

    Versions and refs that it does not know are found out by whoever asks for them (:meth:`Dataset.refs`).
    """
    known, there = store.catalog.dataset_rows(), datasets_there(store)
    for name in sorted(known.keys() | there):
        row = known.get(name)
        why: str | None = "does not know it" if row is None else None
        if name not in there:
            why = "knows it, but it is not there"
        else:
            try:
                file = DatasetFile.read(store.inventory.backend(name), name)
                if row is not None:
                    why = _is_another(row, file) or _is_elsewhere(store, row)
            except (NotFound, Damaged) as error:
                if row is not None or isinstance(error, NotFound):
                    continue  # it says so itself, or is none
        if why is not None:
            mend = "open the store once for writing, which mends it, or name another catalog with --catalog"
            store.broken[name] = (
                f"dataset {name!r} and the catalog {store.catalog_path} do not match: the catalog {why}; {mend}"
            )


def _is_another(row: DatasetRow, file: DatasetFile) -> str | None:
    """In what a dataset of this name differs from the one that the catalog knows: it is another one."""
    return None if file.is_of(row.created_ns, row.uuid) else "knows another dataset of this name"


def _is_elsewhere(store: RecoverableStore, row: DatasetRow) -> str | None:
    """The difference between the newest version in the catalog and the one on disk: the catalog is of a diverged copy
    of the store, or newer. The content id stands for all versions before it."""
    # All from one look at the catalog: others may commit meanwhile, and the row is from before.
    versions = store.catalog.graph(row.id).versions
    if not versions:
        return None
    newest = versions[max(versions)]
    try:
        stored = read_version(VersionFiles.of(store.inventory.backend(row.name).below(VERSIONS), newest.number))
    except NotFound:
        return f"knows v{newest.number}, which is not there"
    except Damaged:
        return None  # fsck says so
    return None if stored.info.content_id == newest.content_id else f"knows another v{newest.number}"


def datasets_there(store: RecoverableStore) -> set[str]:
    """Names of the datasets that the store holds, whatever the catalog knows."""
    return set(filter(is_dataset_name, store.inventory.names()))


def _tell(name: str, what: str, error: Exception) -> str:
    defect = str(error) if isinstance(error, VolfsError) else f"{type(error).__name__}: {error}"
    said = printable(f"dataset {name}: {what}: {defect}")
    log.error("%s", said)
    return said
