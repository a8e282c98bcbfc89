"""A store: its datasets, and opening one safely.

Decided here: that datasets come and go in the store and in the catalog in one go, and when an opening recovers what a
crash left. Not decided here: which datasets there are (:mod:`volfs.versions.inventory`), what counts as a store
(:mod:`volfs.versions.directory_inventory`), what recovery does (:mod:`volfs.versions.commit.recover`), and what a
dataset is (:mod:`volfs.versions.dataset`).
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from volfs.catalog import Catalog
from volfs.errors import AlreadyThere, Busy, Damaged, NoSpace, NotFound, ReadOnly, VolfsError
from volfs.model.bounded_map import Caches
from volfs.model.names import check_dataset_name, natural_key
from volfs.model.public_mapping import PublicMapping
from volfs.model.refs import RefKind, Refs
from volfs.model.thinning import Rule
from volfs.storage.backend import Backend
from volfs.storage.claim import DAY_SECONDS
from volfs.storage.mount_table import mounts
from volfs.storage.reserve import Reserve
from volfs.storage.store_layout import StoreLayout
from volfs.versions import catalog_file
from volfs.versions.catalog_file import open_catalog
from volfs.versions.commit.recover import bring_up_to_date, is_untouched, recover, register
from volfs.versions.committed.lookups import Resolved
from volfs.versions.committed.version_files import VersionFiles, read_version
from volfs.versions.dataset import Dataset, check_unused
from volfs.versions.dataset_file import DEFAULT_BRANCH, DatasetFile, new_id
from volfs.versions.directory_inventory import DirectoryInventory, is_older, make_store, note_format, store_id
from volfs.versions.history import Face
from volfs.versions.inventory import Inventory
from volfs.versions.onlooker import Reading, follow, is_registered, knows, open_onlooker, remove_catalog
from volfs.versions.retention.collector import GRACE_SECONDS, Collected, Plan, Progress, collect, go_on
from volfs.versions.snapshot import Derive, Snapshot

log = logging.getLogger(__name__)

_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class DatasetStats:
    """Sizes of one dataset. ``payloads`` counts what its versions put, ``stored`` their bytes, ``loose`` bytes of
    working copies."""

    name: str
    versions: int
    branches: int
    tags: int
    payloads: int
    stored: int
    loose: int


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Sizes of a store; ``catalog`` in bytes."""

    datasets: list[DatasetStats]
    catalog: int


@dataclass(frozen=True, slots=True)
class Opening:
    """The arguments with which a store was opened, so that an object from a pickle opens it again."""

    path: str
    catalog: str
    read_only: bool
    derive: Derive = field(compare=False)
    face: Face = field(compare=False)

    def store(self) -> Store:
        """The store: one of this process that is open so already, or one that is opened now.

        Those that are opened here stay open, a few of them: each task of a process that works for Dask brings its own
        pickle, and has nothing else to hold the store.
        """
        with _opening:
            store = _open_stores.get(self)
            if store is None or store.closed:
                store = _open_stores[self] = open_store(
                    self.path, derive=self.derive, face=self.face, catalog=self.catalog, read_only=self.read_only
                )
                _kept_open.append(store)
            return store

    def __call__(self, dataset: str, ref: str) -> Snapshot:
        """The snapshot of a dataset at a ref."""
        return self.store()[dataset][ref]


def init_store(
    path: str | os.PathLike[str], *, derive: Derive, face: Face, catalog: str | os.PathLike[str] | None = None
) -> Store:
    """Make an empty store and open it. AlreadyThere if ``path`` is one, BadInput if other things are in it."""
    make_store(StoreLayout(Path(path)))
    return open_store(path, derive=derive, face=face, catalog=catalog)


def open_store(
    path: str | os.PathLike[str],
    *,
    derive: Derive,
    face: Face,
    catalog: str | os.PathLike[str] | None = None,
    create: bool = False,
    read_only: bool = False,
    dead_after: float = DAY_SECONDS,
) -> Store:
    """Open a store. ``create`` makes it if there is nothing there.

    ``derive`` adds to a commit the keys that follow from the changes; :func:`volfs.open_store` gives the one of
    images. It has no default: a store opened without it would commit levels that disagree with s0. ``face`` finds
    images. Opening for writing recovers what crashed processes left, and indexes versions that the catalog does not
    know (all of them, if it is new): ``catalog`` says where it lies, by default in the store. ``read_only`` changes
    nothing. Unfinished work of a process of another machine counts as abandoned when it has not changed for
    ``dead_after`` seconds. Raises NotFound, or StoreFormat for a directory that is no store or is of a newer format.
    """
    layout = StoreLayout(Path(path))
    if create:
        with suppress(AlreadyThere):
            make_store(layout)
    ident = store_id(layout)
    own = None if catalog is None else Path(catalog)

    def make(index: Catalog, place: Path, reading: Reading | None, reserve: Reserve) -> Store:
        caches = Caches()
        inventory = DirectoryInventory(layout, caches, dead_after)
        return Store(layout, ident, inventory, index, place, caches, derive, face, reserve, dead_after, reading)

    if read_only:
        return open_onlooker(layout, ident, own, lambda index, place, reading: make(index, place, reading, Reserve([])))
    place = own or layout.catalog
    created = not os.path.lexists(place)
    try:
        try:
            store = _open(layout, ident, place, make)
            if not store.catalog.suspected:
                return store
            store.close()
        except Damaged:
            if Catalog.suspicion(place) is None:
                raise
        # Recovery met a damaged row: a catalog of which that is known is made anew.
        return _open(layout, ident, place, make)
    except BaseException as error:
        if created:  # an empty catalog would make the next opening show an empty store
            remove_catalog(place)
        if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES):
            raise ReadOnly(f"{layout.root} cannot be written ({error.strerror}): to read it, say --read-only") from None
        if isinstance(error, NotFound | ReadOnly) and not os.access(layout.root, os.W_OK):  # as SQLite says it
            raise ReadOnly(f"{layout.root} cannot be written: to read it, say --read-only") from None
        raise


def _open(
    layout: StoreLayout, ident: str, place: Path, make: Callable[[Catalog, Path, Reading | None, Reserve], Store]
) -> Store:
    beside = place.with_name(f"{place.name}.reserve")
    inside = place.absolute().parent == layout.root.absolute()
    reserve = Reserve([layout.reserve] if inside else [layout.reserve, beside])
    ours = place.absolute() == layout.catalog.absolute()
    index = reserve.freeing(lambda: open_catalog(place, ident, ours=ours, read_only=False))
    store = make(index, place, None, reserve)
    try:
        reserve.freeing(lambda: recover(store))
        reserve.freeing(lambda: _go_on(store))
        if is_older(layout):
            reserve.freeing(lambda: bring_up_to_date(store))
            with store.locked():
                note_format(layout)
        reserve.keep()
    except BaseException:
        store.close()
        raise
    return store


def _go_on(store: Store) -> None:
    """Finish taking bytes away where a process died at it. What cannot be finished is its dataset's, and fsck says
    so."""
    for name in store.datasets():
        try:
            go_on(store[name])
        except VolfsError as error:
            log.error("dataset %s: bytes of dropped versions cannot be taken away: %s", name, error)


def set_aside_damaged(path: str | os.PathLike[str], *, catalog: str | os.PathLike[str] | None = None) -> list[Path]:
    """Move away a catalog that cannot be used for the store, and a table of inodes that cannot be read. Opening the
    store for writing makes them anew. Returns their new paths."""
    layout = StoreLayout(Path(path))
    return catalog_file.set_aside_damaged(layout.catalog if catalog is None else Path(catalog), store_id(layout))


class Store(PublicMapping[Dataset]):
    """An open store: a mapping of its datasets by name. Thread-safe; a context manager that closes it."""

    PUBLIC: ClassVar[tuple[str, ...]] = (
        *("path", "id", "read_only", "closed", "close", "refresh", "stats"),
        *("datasets", "create_dataset", "new_dataset", "remove_dataset", "gc"),
    )

    def __init__(
        self,
        layout: StoreLayout,
        ident: str,
        inventory: Inventory,
        catalog: Catalog,
        catalog_path: Path,
        caches: Caches,
        derive: Derive,
        face: Face,
        reserve: Reserve,
        dead_after: float,
        reading: Reading | None,
    ) -> None:
        self.layout = layout
        self.path = layout.root
        self.caches = caches
        self.inventory = inventory
        self.id = ident
        self.catalog = catalog
        self.catalog_path = catalog_path
        self.read_only = reading is not None
        self.reading = reading
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self.derive = derive
        self.face = face
        self.reserve = reserve
        self.dead_after = dead_after
        #: Datasets that the catalog does not know as they are, and why: each is an error for itself.
        self.broken: dict[str, str] = {}
        self.resolved = Resolved(self.caches)
        self._guard = threading.RLock()
        self._datasets: dict[str, Dataset] = {}
        self._seen = catalog.data_version()
        self._stamped: Hashable = None
        self._open = True

    def __repr__(self) -> str:
        return f"<volfs store {os.fspath(self.path)!r}>"

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return not self._open

    def opening(self) -> Opening:
        """The arguments with which another process opens this store, and this process finds it."""
        where = str(self.path.absolute()), str(self.catalog_path.absolute())
        opening = Opening(*where, self.read_only, self.derive, self.face)
        with _opening:
            _open_stores[opening] = self
        return opening

    def backend_of(self, dataset: str) -> Backend:
        """Where a dataset is kept."""
        return self.inventory.backend(dataset)

    # -- datasets -----------------------------------------------------------------------------------------------

    def datasets(self) -> list[str]:
        """Names of the datasets, in natural order."""
        return sorted(self.catalog.datasets().keys() | self.broken.keys(), key=natural_key)

    def __contains__(self, name: object) -> bool:
        return name in self.catalog.datasets() or name in self.broken

    def __iter__(self) -> Iterator[str]:
        return iter(self.datasets())

    def __len__(self) -> int:
        return len(self.datasets())

    def __reduce__(self) -> tuple[Any, ...]:
        return _store_of, (self.opening(),)

    def _repr_html_(self) -> str:
        return self.face.html(self)

    def has_open(self, name: str) -> bool:
        """Whether a dataset is open already, so that asking for it waits for no disk."""
        held = self._datasets.get(name)
        return held is not None and not held.gone

    def __getitem__(self, name: str) -> Dataset:
        held = self._datasets.get(name)
        if held is not None and held.gone:
            with self._guard:
                self._datasets.pop(name, None)
            held.close()
            self.look_for_datasets()
        row = self.catalog.dataset_rows().get(name)
        with self._guard:
            dataset = self._datasets.get(name)
            if dataset is not None and (row is None or dataset.id != row.id):
                del self._datasets[name]
        if dataset is not None and (row is None or dataset.id != row.id):
            dataset.close()
            dataset = None
        if name in self.broken:
            raise Damaged(self.broken[name])
        if row is None:
            known = ", ".join(self.datasets())
            raise NotFound(f"no dataset {name!r} in {self.path}" + (f": there is {known}" if known else ""))
        if dataset is None:
            # Without the guard: a dataset whose disk does not answer holds up no other.
            there, backend = self.inventory, self.inventory.backend(name)
            branch = DatasetFile.read(backend, name).default_branch
            with self._guard:
                dataset = self._datasets.get(name)
                if dataset is None or dataset.id != row.id:
                    dataset = Dataset(self, row, there.layout(name), backend, there.ledger(name), branch)
                    self._datasets[name] = dataset
        return dataset

    def create_dataset(self, name: str, *, ident: str | None = None, default_branch: str | None = None) -> Dataset:
        """Make an empty dataset with a default branch that has no version yet. Raises BadName or AlreadyThere.

        ``ident`` is that of the dataset of which this is to be a clone; without it the dataset has one of its own.
        """
        return self._create(name, unfinished=False, ident=ident, default_branch=default_branch)

    @contextmanager
    def new_dataset(self, name: str) -> Iterator[Dataset]:
        """Make a dataset that stays if the block ends well. If it raises, or this process dies in it, the dataset is
        removed again, unless somebody has put something into it meanwhile. Raises BadName or AlreadyThere.
        """
        dataset = self._create(name, unfinished=True)
        try:
            yield dataset
        except BaseException:
            if is_untouched(dataset.layout, dataset.ledger):
                with suppress(Busy):
                    self.remove_dataset(name)
            raise
        finally:
            self.inventory.finish(name)

    def _create(
        self, name: str, *, unfinished: bool, ident: str | None = None, default_branch: str | None = None
    ) -> Dataset:
        check_dataset_name(name)
        self.check_writable()
        with self.locked():
            register(self)
            made = DatasetFile(name, ident or new_id(), time.time_ns(), default_branch or DEFAULT_BRANCH)
            try:
                with self.inventory.making(made, unfinished=unfinished):
                    try:
                        row = self.catalog.add_dataset(name, made.created_ns, made.id)
                    except AlreadyThere:  # who only reads, by this catalog, has seen it first
                        row = self.catalog.datasets()[name]
                    self.catalog.set_refs(row, {**Refs().named, RefKind.BRANCH: {made.default_branch: 0}})
            except BaseException:
                self.reserve.freeing(lambda: register(self))  # if the catalog knew it, it forgets it again
                raise
        return self[name]

    def remove_dataset(self, name: str, *, check: Callable[[Dataset], object] = lambda dataset: None) -> None:
        """Remove a dataset with all its versions. Busy while anyone writes to one of its branches. ``check`` may refuse
        it, while nobody else can change its refs."""
        self.check_writable()
        with self.locked():
            self.reserve.freeing(lambda: register(self))
            dataset = self[name]
            with dataset.locked():
                check_unused(dataset)
                check(dataset)
                self.inventory.remove(name)
            try:
                self.reserve.freeing(lambda: self.catalog.drop_dataset(dataset.id))
            except NoSpace:  # a large index needs more than the reserve to be removed, and less than what it is of
                self.inventory.reclaim()
                self.catalog.drop_dataset(dataset.id)
            with self._guard:
                self._datasets.pop(name, None)
            dataset.close()
        self.inventory.reclaim()
        self.reserve.keep()

    def forget(self, name: str) -> None:
        """Remove a dataset from the catalog. Its files stay. For recovery."""
        with self._guard:
            dataset = self._datasets.pop(name, None)
        if dataset is not None:
            dataset.close()
        self.catalog.drop_dataset(self.catalog.datasets()[name])

    def forget_all(self) -> None:
        """Remove everything from the catalog. For recovery."""
        with self._guard:
            datasets = list(self._datasets.values())
            self._datasets.clear()
        for dataset in datasets:
            dataset.close()
        self.catalog.clear()

    # -- the store as a whole -----------------------------------------------------------------------------------

    def refresh(self) -> bool:
        """Whether other processes have changed anything since the last call. Cheap.

        Versions and refs need no refresh to be seen: this is for those who cache what they made of them. It looks at
        one dataset after the other: who must not wait for any of them calls the methods it consists of.
        """
        self.look_for_datasets()
        for name in self.datasets():
            self.look_at(name)
        return self.has_changed()

    def has_changed(self) -> bool:
        """Whether the catalog has changed since the last call."""
        now = self.catalog.data_version()
        with self._guard:
            changed, self._seen = now != self._seen, now
        return changed

    def look_at(self, name: str) -> None:
        """Learn what processes with other catalogs did to a dataset, and give machines that may not see the locks held
        in it a sign of life. Waits for nobody: if it is being changed it is looked at the next time."""
        with suppress(VolfsError):
            self[name].look_around()
        dataset = self._datasets.get(name)
        for branch in dataset.open_branches() if dataset is not None else ():
            branch.working.lock.keep_fresh()

    def look_for_datasets(self) -> None:
        """Learn which datasets processes with other catalogs made or removed. Waits for nobody."""
        stamp = self.inventory.stamp()
        if stamp != self._stamped:
            with suppress(Busy), nullcontext() if self.read_only else self.locked(patience=0):
                if self._may_write_catalog(lambda: is_registered(self)):
                    register(self)
                # As it was before: datasets that came while it looked are looked for again.
                self._stamped = stamp

    def follow(self, dataset: Dataset) -> None:
        """Have the catalog of a store that is only read learn of the changes of others to a dataset."""
        if self._may_write_catalog(lambda: knows(dataset)):
            follow(dataset)

    def _may_write_catalog(self, current: Callable[[], bool]) -> bool:
        """Whether the catalog may be written, as it must unless it is ``current``. That of a store which is only read
        is left for a private copy then."""
        if self.reading is None or self.reading.catalog_is_ours:
            return True
        if current():
            return False
        with self._guard:
            self._scratch = tempfile.TemporaryDirectory(prefix="volfs-catalog-", ignore_cleanup_errors=True)
            self.catalog_path = Path(self._scratch.name, "catalog.sqlite")
            self.catalog.move_to(self.catalog_path)
            self.reading.catalog_is_ours = True
        return True

    def by_own_catalog(self) -> Store | None:
        """A store that is read by another catalog, opened once more by its own, right or wrong; None if that cannot be
        read."""
        if self.reading is None or not self.reading.aside:
            return None
        with suppress(VolfsError):
            place = self.layout.catalog
            own = Store(
                self.layout,
                self.id,
                self.inventory,
                open_catalog(place, self.id, ours=True, read_only=True),
                place,
                self.caches,
                self.derive,
                self.face,
                self.reserve,
                self.dead_after,
                Reading(False),
            )
            is_registered(own)
            return own
        return None

    def stats(self) -> StoreStats:
        """Counts and sizes, read from the store's own files."""
        size = 0
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                size += self.catalog_path.with_name(self.catalog_path.name + suffix).stat().st_size
        return StoreStats([self._dataset_stats(self[name]) for name in self.datasets()], size)

    @staticmethod
    def _dataset_stats(dataset: Dataset) -> DatasetStats:
        payloads = stored = 0
        numbers = dataset.ledger.versions()
        for number in numbers:
            with suppress(VolfsError):
                counts = read_version(VersionFiles.of(dataset.objects, number)).counts
                payloads += counts.put
                stored += counts.bytes
        loose = 0
        for folder, _, names in os.walk(dataset.layout.workings):
            for name in names:
                with suppress(OSError):
                    loose += os.lstat(os.path.join(folder, name)).st_size
        refs = dataset.refs()
        return DatasetStats(dataset.name, len(numbers), len(refs.heads), len(refs.tags), payloads, stored, loose)

    def gc(
        self,
        datasets: Iterable[str] | None = None,
        *,
        grace: float = GRACE_SECONDS,
        before_ns: int | None = None,
        keep: Sequence[Rule] = (),
        dry_run: bool = False,
        progress: Progress = lambda done, total, what: None,
    ) -> list[Collected]:
        """Drop the versions that nothing needs, and free the bytes of those that were dropped longer ago than ``grace``
        (seconds). See :mod:`volfs.versions.retention`.

        ``before_ns`` drops all versions older than a time, ``keep`` all that no rule keeps (of those, if both are
        given): never what a branch, a tag or uncommitted changes stand on. Without grace nobody else may use the store:
        Busy if a mount of this machine, or a writer, does.
        """
        plan = Plan(grace, before_ns, tuple(keep), dry_run)
        if not dry_run:
            self.check_writable()
        names = self.datasets() if datasets is None else list(datasets)
        if grace <= 0 and not dry_run:
            self._check_alone(names)
        return [collect(self[name], plan, progress) for name in names]

    def _check_alone(self, names: Iterable[str]) -> None:
        """Raise Busy if somebody is known to use the store."""
        place = os.path.realpath(self.path)
        for mount in mounts():
            if mount.is_volfs and os.path.isabs(mount.source) and os.path.realpath(mount.source) == place:
                raise Busy(f"{self.path} is mounted at {mount.mountpoint}: without grace nobody else may use the store")
        for name in names:
            check_unused(self[name])

    def check_writable(self) -> None:
        """Raise ReadOnly if the store was opened read-only."""
        if self.read_only:
            raise ReadOnly(f"{self.path} was opened read-only")

    def locked(self, patience: float = _PATIENCE) -> AbstractContextManager[None]:
        """Hold the store's lock: while datasets come and go, and during recovery. Busy if others keep it so long."""
        return self.inventory.locked(patience)

    def close(self) -> None:
        """Release branches, close files. Closing twice is fine."""
        with self._guard:
            if not self._open:
                return
            self._open = False
            datasets = list(self._datasets.values())
            self._datasets.clear()
        for dataset in datasets:
            dataset.close()
        self.resolved.clear()
        self.catalog.close()
        if self._scratch is not None:
            self._scratch.cleanup()
        if not self.read_only:
            self.reserve.keep()  # what the catalog's log took is free now

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def shared_store(path: str | os.PathLike[str], *, derive: Derive, face: Face, read_only: bool) -> Store:
    """The store at a path, for those who are asked for it again and again by its path alone.

    Opened once, it stays open, of a few. Never one that somebody else opened, who may close it, nor one that lay there
    before.
    """
    place = Path(path).absolute()
    ident = store_id(StoreLayout(place))
    with _opening:
        for store in _kept_open:
            if (store.closed, store.read_only, store.id, store.path.absolute()) == (False, read_only, ident, place):
                return store
        store = open_store(place, derive=derive, face=face, read_only=read_only)
        _kept_open.append(store)
        return store


def _store_of(opening: Opening) -> Store:
    return opening.store()


#: Guards the two below, and that a store which many ask for at once is opened once.
_opening = threading.RLock()
_kept_open: deque[Store] = deque(maxlen=4)
_open_stores: WeakValueDictionary[Opening, Store] = WeakValueDictionary()
"""Stores of this process by how they were opened."""
