"""Reading a store without changing anything in it: no lock, no file, not even those that SQLite makes beside a catalog.

Decided here: by which catalog a store is read, and how that learns of what others commit. In order: the one that the
caller names; the store's own, where it knows all that is in the store and the filesystem can be written (then whoever
writes keeps it up); else one in the user's state directory, begun as a copy of the store's own if that can be read.

A catalog of the first or third kind is ours and is written; versions and refs get in as their files say, as always. The
store's own is only read, and left for a private copy as soon as somebody with another catalog commits. Not here: how a
catalog is read while others write to it (:mod:`volfs.catalog.connections`).
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from volfs.catalog import Catalog, OlderFormat
from volfs.errors import Busy, NoSpace, NotFound, ReadOnly, VolfsError
from volfs.storage.files import FileLock, make_dirs
from volfs.storage.state import state_directory
from volfs.storage.store_layout import StoreLayout
from volfs.versions.catalog_file import open_catalog
from volfs.versions.commit.mirror import MirroredHistory, index_missing, missing
from volfs.versions.commit.recover import RecoverableStore, look_over, register
from volfs.versions.directory_inventory import store_id

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reading:
    """How a store is open that is only read. ``catalog_is_ours``: its catalog may be written. ``aside``: the store has
    a catalog of its own that is not used."""

    catalog_is_ours: bool
    aside: bool = False


class OnlookingStore(RecoverableStore, Protocol):
    """An open store of which this process may change nothing but the catalog, if that is its own."""

    @property
    def id(self) -> str: ...

    @property
    def layout(self) -> StoreLayout: ...

    @property
    def reading(self) -> Reading | None: ...

    def close(self) -> None:
        """Close files."""


_S = TypeVar("_S", bound=OnlookingStore)

Make = Callable[[Catalog, Path, Reading], _S]
"""Opens the store by a catalog, given its path."""


def open_onlooker(layout: StoreLayout, ident: str, catalog: Path | None, make: Make[_S]) -> _S:
    """Open a store read-only, by whichever catalog can be used. Raises ReadOnly, saying what to do, if none can."""
    damaged: str | None = None
    if catalog is not None and catalog.absolute() != layout.catalog.absolute():
        created = not catalog.exists()
        try:
            try:
                ours = open_catalog(catalog, ident, ours=False, read_only=False)
            except ReadOnly:
                store = make(open_catalog(catalog, ident, ours=False, read_only=True), catalog, Reading(False))
                why = "" if is_current(store) else "does not know all that is in the store, and cannot be written"
            else:
                return _followed(make(ours, catalog, Reading(True)))
        except BaseException:
            if created:
                remove_catalog(catalog)
            raise
    else:
        try:
            store = make(open_catalog(layout.catalog, ident, ours=True, read_only=True), layout.catalog, Reading(False))
        except VolfsError as error:
            return _by_own(layout, ident, make, None, str(error))
        if (damaged := Catalog.suspicion(layout.catalog)) is not None:
            why = f"was found damaged ({damaged})"
        elif not os.statvfs(layout.root).f_flag & os.ST_RDONLY:
            why = "" if is_current(store) else "does not know all that is in the store, or knows more"
        else:
            why = "lies on a read-only filesystem"
    if not why:
        return store
    with closing(store):
        return _by_own(layout, ident, make, None if damaged else store.catalog, why)


def _by_own(layout: StoreLayout, ident: str, make: Make[_S], seed: Catalog | None, why: str) -> _S:
    place = own_place(layout, ident)
    try:
        make_dirs(place.parent)
        with FileLock(place.with_suffix(".lock")):
            if not place.exists() and seed is not None:
                draft = place.with_suffix(".partial")
                draft.unlink(missing_ok=True)
                try:
                    seed.copy_to(draft)
                    draft.replace(place)
                except VolfsError:
                    draft.unlink(missing_ok=True)
            catalog = open_catalog(place, ident, ours=True, read_only=False)
    except OSError as error:
        raise ReadOnly(
            f"{layout.catalog} cannot be used ({why}), and no other can be made at {place} ({error.strerror}): name a"
            " place with --catalog, or set XDG_STATE_HOME"
        ) from None
    store = make(catalog, place, Reading(True, aside=layout.catalog.exists()))
    log.info("%s: read by %s, because %s %s", layout.root, place, layout.catalog.name, why)
    return _followed(store)


def check_catalog(root: Path) -> None:
    """Raise Damaged or StoreFormat if the catalog in a store cannot be used and the caller could mend it. For callers
    that prefer the error to reading by another catalog.
    """
    layout = StoreLayout(root)
    if os.path.lexists(layout.catalog) and os.access(root, os.W_OK):
        with suppress(NotFound, ReadOnly, Busy, NoSpace, OlderFormat):
            Catalog.open(layout.catalog, read_only=True, store=store_id(layout)).close()


def _followed(store: _S) -> _S:
    try:
        register(store)
        for name in store.datasets():
            with suppress(VolfsError):
                follow(store[name])
    except BaseException:
        store.close()
        raise
    return store


def own_place(layout: StoreLayout, ident: str) -> Path:
    """Where the state directory has the catalog of a store: another for each machine, for a home that they share."""
    said = f"{ident}\0{os.path.realpath(layout.root)}\0{socket.gethostname()}"
    told_apart = hashlib.sha256(os.fsencode(said)).hexdigest()[:16]
    return state_directory() / "catalogs" / f"{layout.root.absolute().name[:60] or 'root'}-{told_apart}.sqlite"


def inode_place(store: OnlookingStore) -> Path:
    """The catalog beside which the inodes of a store are kept: one that is ours to write beside."""
    if store.reading is None or store.reading.catalog_is_ours:
        return store.catalog_path
    place = own_place(store.layout, store.id)
    make_dirs(place.parent)
    return place


def remove_catalog(path: Path) -> None:
    """Remove a catalog with what lies beside it."""
    for suffix in ("-shm", "-wal", ".inodes-shm", ".inodes-wal", ".inodes", ".reserve", ".suspect", ""):
        with suppress(OSError):
            Path(f"{path}{suffix}").unlink()


def is_current(store: RecoverableStore) -> bool:
    """Whether the catalog knows exactly the datasets, versions and refs that are in the store."""
    try:
        return is_registered(store) and all(knows(store[name]) for name in store.datasets())
    except VolfsError:
        return False


def is_registered(store: RecoverableStore) -> bool:
    """Whether the catalog knows the datasets that are in the store, and as what they are. Notes those that it does not
    in ``store.broken``."""
    store.broken.clear()
    look_over(store)
    return not store.broken


def knows(dataset: MirroredHistory) -> bool:
    """Whether the catalog knows exactly the versions and refs of a dataset, and which versions were dropped."""
    known = dataset.catalog.refs(dataset.id)
    refs = dataset.filed_refs(known)
    dropped = dataset.catalog.retired(dataset.id)
    return not missing(dataset) and refs == known and dropped == dataset.ledger.retired()


def follow(dataset: MirroredHistory) -> None:
    """Have a catalog of this process's own learn of the changes of others to a dataset. Takes no lock: versions that
    are being published are left out."""
    index_missing(dataset)
    mirrored = dataset.catalog.refs(dataset.id)
    retired = dataset.ledger.retired()
    if retired != dataset.catalog.retired(dataset.id):
        dataset.catalog.set_retired(dataset.id, retired)
    if dataset.filed_refs(mirrored) != mirrored:
        # Read within the transaction: should others use this catalog for writing, their mirror is never set back.
        dataset.catalog.mirror_refs(dataset.id, lambda: dataset.filed_refs(mirrored))
