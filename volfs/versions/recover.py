"""What opening a store for writing puts right, and making the catalog anew from the store's own files.

Decided here: which traces of dead processes are acted upon. Recovery touches exactly what an intent names (a version
being published, a commit under way), a partial version whose writer no longer holds the lock in it, and names that say
they are half made or thrown away. What a live process holds is left to it. Not decided here: how each is settled
(:mod:`volfs.versions.publish`, :mod:`volfs.versions.commit`).

Storage is the truth: versions that lie in the store and that the catalog does not know are indexed, parents first. With
a new catalog that is all of them.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from volfs.catalog import Catalog
from volfs.errors import Damaged, NotFound, VolfsError
from volfs.storage.claim import is_abandoned, store_clock
from volfs.storage.files import FileLock, read_json, replace_durably, unlink_durably
from volfs.versions.lock import elsewhere
from volfs.versions.mirror import Progress
from volfs.versions.publish import (
    TRASH,
    empty_trash,
    is_untouched,
    remove_dead_partials,
    throw_away,
)

if TYPE_CHECKING:
    from volfs.versions.dataset import Dataset
    from volfs.versions.store import Store

log = logging.getLogger(__name__)


def recover(store: Store) -> None:
    """Bring the store and its catalog to rest after whatever happened before. For every opening; cheap if nothing did.

    A dataset that cannot be recovered harms no other: it is logged, and fsck says what is wrong.
    """
    with store.locked():
        _sweep(store)
        register(store)
    empty_trash(store.layout.datasets)
    for name in store.datasets():
        try:
            recover_dataset(store[name])
        except VolfsError as error:
            log.error("dataset %s: not recovered: %s", name, error)


def recover_dataset(dataset: Dataset) -> None:
    """Settle what dead processes left in one dataset."""
    with dataset.locked():
        remove_dead_partials(dataset.layout, dead_after=dataset.store.dead_after)
    empty_trash(dataset.layout.versions)
    if not dataset.layout.workings.is_dir():
        return
    empty_trash(dataset.layout.workings)
    from volfs.versions.commit import settle_working  # commit is written against this room's other modules

    for folder in sorted(dataset.layout.workings.iterdir()):
        layout = dataset.layout.working(folder.name)
        if layout.commit_intent.exists() and elsewhere(layout, dataset.store.dead_after) is None:
            lock = FileLock(layout.lock)
            if lock.try_lock():
                try:
                    settle_working(dataset, folder.name)
                finally:
                    lock.release()


def rebuild_catalog(store: Store, progress: Progress | None = None) -> None:
    """Make the catalog anew from the store's own files. Nothing committed is lost by it.

    Other processes that have the store open keep the numbers they know; inodes stay what they were.
    """
    store.check_writable()
    with store.locked():
        for name in list(store.catalog.datasets()):
            store.forget(name)
        register(store)
    for name in store.datasets():
        with store[name].locked(progress=progress):
            pass


def set_aside_damaged(path: Path) -> Path | None:
    """Move a catalog that SQLite cannot read out of the way, with its log; where to, or None if there was no need.

    Opening the store for writing then makes it anew: all but the inodes of names in branches is the same again.
    """
    try:
        with Catalog.open(path, read_only=True) as catalog:
            if not catalog.check():
                return None
    except NotFound:
        return None
    except Damaged:
        pass
    aside = path.with_name(f"{path.name}.damaged")
    for suffix in ("-shm", "-wal", ""):
        with suppress(FileNotFoundError):
            replace_durably(Path(f"{path}{suffix}"), Path(f"{aside}{suffix}"))
    return aside


def _sweep(store: Store) -> None:
    """Throw away datasets half made: whoever makes one holds the store's lock. And those that were to stay only with a
    version in them, and whose maker died before."""
    now_ns = store_clock(store.layout.lock)
    for folder in sorted(store.layout.datasets.iterdir()):
        layout = store.layout.dataset(folder.name)
        draft = folder.name.startswith(".")
        if folder.name.endswith(TRASH) or not (draft or layout.unfinished.exists()):
            continue
        lock = FileLock(layout.lock if draft else layout.unfinished)
        if not is_abandoned(lock, folder, now_ns, store.dead_after):
            continue
        if draft:
            throw_away(folder)
        else:
            if is_untouched(layout):
                throw_away(folder)
            else:
                unlink_durably(layout.unfinished)


def register(store: Store) -> None:
    """Make the catalog know the datasets that are there, and forget those that are not. Call with the store's lock."""
    known = store.catalog.datasets()
    there = {folder.name for folder in store.layout.datasets.iterdir() if not folder.name.startswith(".")}
    for name in sorted(known.keys() - there):
        store.forget(name)
    for name in sorted(there - known.keys()):
        try:
            doc = read_json(store.layout.dataset(name).dataset_json)
        except (NotFound, Damaged) as error:
            log.error("dataset %s: not indexed: %s", name, error)
            continue
        created = doc.get("created_ns", 0)
        store.catalog.add_dataset(name, created if isinstance(created, int) else 0)
