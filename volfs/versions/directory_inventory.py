"""A directory as an :class:`~volfs.versions.inventory.Inventory`, and what makes a directory a store.

Decided here: how a dataset gets its place as a directory, how it is taken away, and what is left by who dies meanwhile.
Not here: the layout (:mod:`volfs.storage.store_layout`), what lies in a dataset's directory
(:mod:`volfs.storage.directory_backend`, :mod:`volfs.versions.commit.publish`), and when an opening recovers
(:mod:`volfs.versions.commit.recover`).

A dataset is made whole under another name, ``.NAME.partial``, and renamed: one that is seen is complete. Its lock is
held meanwhile, and says whose it is: a process that dies leaves what :meth:`DirectoryInventory.sweep` throws away. One
that is to stay only if its import ends well has a lock ``unfinished`` besides, which its maker holds until then.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from volfs.errors import AlreadyThere, BadInput, Damaged, NotFound, StoreFormat
from volfs.model.bounded_map import Caches
from volfs.model.refs import RefKind
from volfs.storage.backend import Backend
from volfs.storage.claim import Claim, is_abandoned, store_clock
from volfs.storage.directory_backend import DirectoryBackend
from volfs.storage.files import (
    FileLock,
    fsync_dir,
    make_dirs,
    no_space,
    read_json,
    replace_durably,
    unlink_durably,
    write_json,
)
from volfs.storage.store_layout import DATASETS, FORMAT, DatasetLayout, StoreLayout
from volfs.storage.trash import TRASH, delete_tree, empty_trash, throw_away
from volfs.versions.commit.publish import DirectoryLedger
from volfs.versions.dataset_file import DatasetFile
from volfs.versions.ledger import Ledger, RefRecord


class DirectoryInventory:
    """The datasets in the directory of a store. What another machine left half made counts as abandoned when it has not
    changed for ``dead_after`` seconds."""

    def __init__(self, layout: StoreLayout, caches: Caches, dead_after: float) -> None:
        self._layout = layout
        self._dead_after = dead_after
        self._backend = DirectoryBackend(layout.root, layout.lock, caches)
        #: By name: the held locks of datasets that this object has made, and that are unfinished.
        self._unfinished: dict[str, FileLock] = {}

    @contextmanager
    def locked(self, patience: float) -> Iterator[None]:
        lock = FileLock(self._layout.lock)
        with no_space("locking the store"):
            lock.lock({"pid": os.getpid()}, timeout=patience)
        try:
            yield
        finally:
            lock.release()

    def stamp(self) -> int:
        return self._layout.datasets.stat().st_mtime_ns

    # -- one dataset --------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return sorted(name for name in os.listdir(self._layout.datasets) if not name.endswith(TRASH))

    def backend(self, name: str) -> Backend:
        return self._backend.below(f"{DATASETS}/{name}")

    def ledger(self, name: str) -> Ledger:
        return DirectoryLedger(self._layout.dataset(name), self._dead_after)

    def layout(self, name: str) -> DatasetLayout:
        return self._layout.dataset(name)

    # -- coming and going ---------------------------------------------------------------------------------------

    @contextmanager
    def making(self, file: DatasetFile, *, unfinished: bool = False) -> Iterator[None]:
        place, draft = self._layout.dataset(file.name), self._layout.dataset(f".{file.name}.partial")
        if place.root.exists():
            raise AlreadyThere(f"there is a dataset {file.name!r} already")
        delete_tree(draft.root)
        lock, marker = FileLock(draft.lock), FileLock(draft.unfinished)
        try:
            with no_space("making a dataset"):
                make_dirs(draft.root)
                lock.lock(Claim.mine().facts())
                for folder in (*map(draft.refs, RefKind), draft.versions, draft.workings):
                    make_dirs(folder)
                if unfinished:
                    marker.lock(Claim.mine().facts())
            ledger = self.ledger(draft.root.name)
            ledger.set_ref(RefKind.BRANCH, file.default_branch, RefRecord(0), None)
            ledger.bring_up_to_date()
            file.write(self.backend(draft.root.name))
            fsync_dir(draft.root)
            replace_durably(draft.root, place.root)
            yield
        except BaseException:
            delete_tree(draft.root)
            delete_tree(place.root)
            marker.release()
            raise
        finally:
            lock.release()
        if unfinished:
            marker.moved(place.unfinished)
            self._unfinished[file.name] = marker

    def finish(self, name: str) -> None:
        marker = self._unfinished.pop(name, None) or FileLock(self._layout.dataset(name).unfinished)
        if marker.in_place or not marker.held:  # else it was removed, and another has its name by now
            unlink_durably(marker.path)
        marker.release()

    def remove(self, name: str) -> None:
        throw_away(self._layout.dataset(name).root)

    def sweep(self) -> list[str]:
        now_ns = store_clock(self._layout.lock)
        left = []
        for name in self.names():
            layout, draft = self._layout.dataset(name), name.startswith(".")
            if not draft and not layout.unfinished.exists():
                continue
            lock = FileLock(layout.lock if draft else layout.unfinished)
            if not is_abandoned(lock, layout.root, now_ns, self._dead_after):
                continue
            if draft:
                throw_away(layout.root)
            else:
                left.append(name)
        return left

    def reclaim(self) -> None:
        empty_trash(self._layout.datasets)


def make_store(layout: StoreLayout) -> None:
    """Make a directory an empty store. AlreadyThere if it is one, BadInput if other things are in it."""
    root = layout.root
    if layout.volfs_json.exists():
        raise AlreadyThere(f"{root} is a volfs store already")
    if root.exists():
        if not root.is_dir():
            raise BadInput(f"{root} is a file: a store is a directory")
        if any(root.iterdir()):
            raise BadInput(f"{root} holds other files: a store is made in an empty directory")
    make_dirs(root.absolute())
    make_dirs(layout.datasets.absolute())
    # Last, because it is what makes the directory a store: before it, making the store may simply be repeated.
    write_json(layout.volfs_json, {"format": FORMAT, "id": str(uuid.uuid4())})


def is_older(layout: StoreLayout) -> bool:
    """Whether a store is of an older format than this volfs writes."""
    return int(read_json(layout.volfs_json)["format"]) < FORMAT


def note_format(layout: StoreLayout) -> None:
    """Say that a store is of the format that this volfs writes, once it is."""
    write_json(layout.volfs_json, {**read_json(layout.volfs_json), "format": FORMAT})


def store_id(layout: StoreLayout) -> str:
    """The store's id. NotFound or StoreFormat, with what to do, unless it is a store this volfs knows."""
    if not layout.root.is_dir():
        if layout.root.is_file():
            raise BadInput(f"{layout.root} is a file: a store is a directory, made with `volfs init DIRECTORY`")
        raise NotFound(f"{layout.root} does not exist: make a store with `volfs init {layout.root}`")
    try:
        doc = read_json(layout.volfs_json)
    except NotFound:
        raise StoreFormat(
            f"{layout.root} is not a volfs store (no {layout.volfs_json.name}): make one with `volfs init`"
        ) from None
    except Damaged as error:
        raise StoreFormat(f"{layout.root} is not a volfs store that can be read: {error}") from None
    found = doc.get("format")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise StoreFormat(f"{layout.volfs_json} names no format: it is not the file of a volfs store")
    if found > FORMAT:
        raise StoreFormat(
            f"{layout.root} has store format {found}, made by a newer volfs: this one knows up to {FORMAT}, upgrade it"
        )
    ident = doc.get("id", "")
    if not isinstance(ident, str):
        raise StoreFormat(f"{layout.volfs_json} names no id: it is not the file of a volfs store")
    return ident


def discard_new_store(path: str | os.PathLike[str]) -> None:
    """Remove a store that was just made, if nothing is in it."""
    layout = StoreLayout(Path(path))
    if layout.datasets.is_dir() and not os.listdir(layout.datasets):
        delete_tree(layout.root)
