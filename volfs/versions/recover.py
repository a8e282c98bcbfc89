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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from volfs.catalog import Catalog
from volfs.errors import Busy, Damaged, NotFound, VolfsError
from volfs.storage.files import FileLock, read_json, replace_durably, unlink_durably
from volfs.versions.publish import (
    TRASH,
    empty_trash,
    is_untouched,
    published,
    remove_dead_partials,
    settle,
    throw_away,
)

if TYPE_CHECKING:
    from volfs.versions.dataset import Dataset
    from volfs.versions.store import Store

log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], object]


def recover(store: Store) -> None:
    """Bring the store and its catalog to rest after whatever happened before. For every opening; cheap if nothing did.

    A dataset that cannot be recovered harms no other: it is logged, and fsck says what is wrong.
    """
    with store.locked():
        _sweep(store)
        _register(store)
    empty_trash(store.layout.datasets)
    for name in store.datasets():
        try:
            recover_dataset(store[name])
        except VolfsError as error:
            log.error("dataset %s: not recovered: %s", name, error)


def recover_dataset(dataset: Dataset) -> None:
    """Settle what dead processes left in one dataset."""
    with dataset.locked():
        settle(dataset)
        remove_dead_partials(dataset.layout)
        catch_up(dataset)
    empty_trash(dataset.layout.versions)
    if not dataset.layout.workings.is_dir():
        return
    empty_trash(dataset.layout.workings)
    from volfs.versions.commit import settle_working  # commit is written against this room's other modules

    for folder in sorted(dataset.layout.workings.iterdir()):
        if dataset.layout.working(folder.name).commit_intent.exists():
            lock = FileLock(dataset.layout.working(folder.name).lock)
            if lock.try_lock():
                try:
                    settle_working(dataset, folder.name)
                finally:
                    lock.release()


def catch_up(dataset: Dataset, progress: Progress | None = None) -> list[int]:
    """Index the versions on disk that the catalog does not know, and mirror the refs if they differ.

    Call with the dataset's lock held. Returns the numbers indexed. A version whose files are damaged is left out, with
    all that descends from it, and the rest is indexed: one bad version harms no other.
    """
    known = dataset.graph.versions
    missing = [number for number in published(dataset.layout) if number not in known]
    done = []
    for at, number in enumerate(missing):
        if progress is not None:
            progress(at, len(missing), dataset.name)
        try:
            dataset.index_stored(number)
            done.append(number)
        except VolfsError as error:
            log.error("dataset %s: v%d cannot be indexed: %s", dataset.name, number, error)
    refs, mirrored = dataset.ref_files(), dataset.refs()
    if (dict(refs.heads), dict(refs.tags)) != (dict(mirrored.heads), dict(mirrored.tags)):
        dataset.mirror_refs()
    return done


def rebuild_catalog(store: Store, progress: Progress | None = None) -> None:
    """Make the catalog anew from the store's own files. Nothing committed is lost by it.

    Other processes that have the store open keep the numbers they know; inodes stay what they were.
    """
    store.check_writable()
    with store.locked():
        for name in list(store.catalog.datasets()):
            store.forget(name)
        _register(store)
    for name in store.datasets():
        dataset = store[name]
        with dataset.locked():
            catch_up(dataset, progress)


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


def look_around(store: Store) -> None:
    """See what other machines did, which have catalogs of their own: index their versions, mirror their refs.

    Waits for nobody: a dataset that somebody is publishing in is looked at the next time.
    """
    with suppress(Busy), store.locked(patience=0):
        _register(store)
    for name in store.datasets():
        with suppress(VolfsError), store[name].locked(patience=0):
            catch_up(store[name])


def _sweep(store: Store) -> None:
    """Throw away datasets half made: whoever makes one holds the store's lock. And those that were to stay only with a
    version in them, and whose maker died before."""
    for folder in sorted(store.layout.datasets.iterdir()):
        layout = store.layout.dataset(folder.name)
        if folder.name.startswith("."):
            if not folder.name.endswith(TRASH):
                throw_away(folder)
        elif layout.unfinished.exists() and not FileLock(layout.unfinished).locked_by_other():
            if is_untouched(layout):
                throw_away(folder)
            else:
                unlink_durably(layout.unfinished)


def _register(store: Store) -> None:
    """Make the catalog know the datasets that are there, and forget those that are not."""
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
