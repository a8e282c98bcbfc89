"""The threads, caches, tables and options that all nodes of one mounted tree share.

Decided here: which threads work runs on (two kinds per dataset, so that reading much of one delays neither looking
around in it nor anything in another), and when generated directories changed. Not here: the contents of any node.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import trio

from volfs.errors import NotFound, OutOfTime, VolfsError
from volfs.model.bounded_map import BoundedMap, Caches
from volfs.storage.mount_table import MountTable, canonical, far_disks
from volfs.tree.contract.api import Notifier, TreeOptions
from volfs.tree.contract.attrs import BLOCK_SIZE, READ_ONLY, SOON, Attr
from volfs.tree.contract.meter import Meter
from volfs.tree.contract.time_limit import only_looks
from volfs.tree.core.inodes import Inodes
from volfs.tree.core.lender import Lender
from volfs.tree.core.open_files import FileTable, Handle
from volfs.tree.core.ownership import Ownership
from volfs.tree.core.ports import Front, WriteBuffer
from volfs.tree.core.rendering import Rendering
from volfs.versions.dataset import Dataset
from volfs.versions.store import Store

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_NAMES_THREADS = 4
_PAYLOAD_BYTES = 16 << 20
_RENDERING_BYTES = 32 << 20
#: What a listed name takes at most: some 170 bytes in a version, 110 in a branch, and its place in the map.
LISTED_NAME_BYTES = 210
_LISTING_BYTES = 100_000 * LISTED_NAME_BYTES
_NODES, _NODE_BYTES = 4096, 700
_SPOKEN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Lane:
    """The threads of one dataset: ``data`` for reading and decoding, ``names`` for looking around."""

    data: trio.CapacityLimiter
    names: trio.CapacityLimiter


class NameClock:
    """When the names in a generated directory last changed, which nothing else records."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Hashable, int]] = {}

    def mtime(self, path: str, names: Hashable, at_first: int) -> int:
        """Time (ns) when ``names`` was first seen in directory ``path``; it grows with every change."""
        known = self._known.get(path)
        if known is not None and known[0] == names:
            return known[1]
        mtime = at_first if known is None else max(time.time_ns(), known[1] + 1)
        self._known[path] = names, mtime
        return mtime


class _Pending(Generic[_T]):
    """Work whose result somebody waits for, who may give up."""

    def __init__(self, work: Callable[[], Awaitable[_T]], drop: Callable[[_T], object] | None) -> None:
        self._work = work
        self._drop = drop
        self._given_up = False
        self._made: list[_T] = []
        self._error: Exception | None = None
        self.ended = trio.Event()

    async def run(self) -> None:
        only_looks.set(False)  # of this task: nobody else waits for it
        try:
            made = await self._work()
            self._made.append(made)
            if self._given_up and self._drop is not None:
                self._drop(made)
        except Exception as error:
            self._error = error
        finally:
            self.ended.set()

    def result(self, limit: float) -> _T:
        """The result of the work. Raises OutOfTime, naming ``limit`` (s), if it has not ended."""
        if not self.ended.is_set():
            self._given_up = True
            raise OutOfTime(f"no answer within {limit:g} s: the client gets ETIMEDOUT and may ask again")
        if self._error is not None:
            raise self._error
        if not self._made:
            raise VolfsError("the mount is ending")
        return self._made[0]


class TreeContext:
    """One of these for each tree."""

    def __init__(
        self,
        store: Store,
        options: TreeOptions,
        notifier: Notifier,
        inodes: Inodes,
        front: Front | None = None,
    ) -> None:
        self.store = store
        self.options = options
        self.notifier = notifier
        self.inodes = inodes
        self.caches = Caches()
        self.caches.add("inodes", inodes)
        self.files = FileTable()
        self.caches.add("stamps", self.files.stamps)
        self.caches.add("stateless_files", self.files.stateless)
        self.renderings: BoundedMap[int, Rendering] = self.caches.add(
            "documents", BoundedMap(_RENDERING_BYTES, lambda rendering: len(rendering.data))
        )
        #: Small stored files, as they are, that clients read in several pieces.
        self.payloads: BoundedMap[Hashable, bytes | memoryview] = self.caches.add(
            "encoded", BoundedMap(_PAYLOAD_BYTES, len)
        )
        #: Listings of directories of keys, in versions and branches, by inode.
        self.listings: BoundedMap[int, Any] = self.caches.add(
            "listings", BoundedMap(_LISTING_BYTES, lambda listing: len(listing) * LISTED_NAME_BYTES)
        )
        #: Directories found lately, by inode, with what they have loaded.
        self.nodes: BoundedMap[int, Any] = self.caches.add(
            "directories", BoundedMap(_NODES * _NODE_BYTES, lambda _: _NODE_BYTES)
        )
        self.clock = NameClock()
        self.started_ns = time.time_ns()
        #: What is lent to the mount's front; None if there is none.
        self.lender = None if front is None else Lender(front)
        self.meter = Meter() if front is None else Meter(front.counts, front.waiting, front.ahead)
        self.access = Ownership(store, options)
        #: Counts up with :meth:`names_moved`.
        self.epoch = 0
        #: The open files of all branches with written bytes that are not voxels yet.
        self.buffers: set[WriteBuffer] = set()
        self._made: dict[tuple[int, str], tuple[str, float]] = {}
        self._lanes: dict[str, Lane] = {}
        # As the kernel's table of mounts spells it, asked for while nobody waits yet.
        self._place = canonical(store.path)
        self._mounts = MountTable()
        self._far: dict[str, frozenset[str]] = {}
        self._origins: dict[int, str] = {}
        self._nursery: trio.Nursery | None = None

    @property
    def writable(self) -> bool:
        return not (self.options.read_only or self.store.read_only)

    def catch_up(self) -> None:
        """Close the files that the front has released. Raises nothing: no request is to fail for another's file."""
        if self.lender is None or not self.lender.unclosed:
            return
        for fh in self.lender.released():
            handle = self.files.released(fh)
            if handle is not None:
                try:
                    handle.close_soon()
                except Exception:
                    log.exception("a file that was released could not be closed")
                self.closed(handle)

    def closed(self, handle: Handle) -> None:
        """An open file was taken out of the table: if it stood for one without a name, another of that inode does."""
        orphans, ino = self.inodes.orphans, handle.ino
        if orphans.get(ino) is handle:
            del orphans[ino]
            for other in self.files.at(ino):
                orphans[ino] = other

    def names_moved(self) -> None:
        """Have directories that were found before looked for again: datasets, refs or directories came or went."""
        self.epoch += 1
        if self.lender is not None:
            self.lender.clear()

    def file_attr(
        self,
        ino: int,
        size: int,
        mtime: int,
        *,
        mode: int = READ_ONLY,
        nlink: int = 1,
        timeout: float = SOON,
        attr_timeout: float | None = None,
        block_size: int = BLOCK_SIZE,
        stored_blocks: int | None = None,
    ) -> Attr:
        """The attributes of a file or symbolic link that belongs to the mounting user: ``size`` in bytes, ``mtime`` in
        ns, ``mode`` with its type. Names and attributes are cached for ``timeout`` seconds, or attributes for
        ``attr_timeout``."""
        return Attr(
            ino,
            mode,
            size,
            mtime,
            nlink,
            self.options.uid,
            self.options.gid,
            entry_timeout=timeout,
            attr_timeout=timeout if attr_timeout is None else attr_timeout,
            block_size=block_size,
            stored_blocks=stored_blocks,
        )

    # -- datasets ---------------------------------------------------------------------------------------------------

    def origin(self, name: str) -> str:
        """The first component of a dataset's paths: its name, and which dataset of that name it is."""
        ident = self.store.catalog.datasets().get(name)
        if ident is None:
            raise NotFound(f"there is no dataset {name!r}")
        found = self._origins.get(ident)
        if found is None:
            found = self._origins[ident] = f"{name}@{self.store.catalog.dataset_rows()[name].created_ns}"
        return found

    def has_origin(self, name: str, dataset: Dataset | None) -> bool:
        """True if a dataset object is the dataset that now has that name."""
        return dataset is not None and self.store.catalog.datasets().get(name) == dataset.id

    # -- names that mean something for a moment ---------------------------------------------------------------------

    def note_made(self, directory: int, spoken: str, name: str) -> None:
        """Remember for a moment that ``name`` was made in a directory by a longer name, such as ``exp@v3``."""
        now = time.monotonic()
        self._made = {key: made for key, made in self._made.items() if made[1] > now}
        self._made[directory, spoken] = name, now + _SPOKEN_SECONDS

    def just_made(self, directory: int, spoken: str) -> str | None:
        """The name of the entry that was made by a longer name a moment ago, if any."""
        made = self._made.get((directory, spoken))
        return made[0] if made is not None and time.monotonic() < made[1] else None

    # -- threads ----------------------------------------------------------------------------------------------------

    def is_far(self, dataset: str) -> bool:
        """Whether calls on the files of a dataset may block for ever, so that each is made in a thread: some lie on
        another machine's disk, or another program's."""
        return bool(self.far_disks(dataset))

    def far_disks(self, dataset: str) -> frozenset[str]:
        """Those disks. They are not asked."""
        disks = self._far.get(dataset)
        if disks is None:
            place = self._place / self.store.layout.dataset(dataset).root.relative_to(self.store.path)
            disks = self._far[dataset] = far_disks(place, self._mounts.mounts)
        return disks

    def by_disk(self, datasets: Iterable[str]) -> dict[frozenset[str], list[str]]:
        """Datasets by the disks that may stop answering: all the others together."""
        groups: dict[frozenset[str], list[str]] = {}
        for dataset in datasets:
            groups.setdefault(self.far_disks(dataset), []).append(dataset)
        return groups

    async def look_at_disks(self, disks: frozenset[str], work: Callable[[], _T]) -> _T:
        """Run something short that blocks and concerns datasets of these disks, on threads of their own: those that
        wait for a dead disk take none from anything else."""
        return await self.look("/" + "/".join(sorted(disks)), work)

    def heed_mounts(self) -> bool:
        """Decide anew which datasets are far if anything was mounted or unmounted. True if it is not as it was."""
        if not self._mounts.changed():
            return False
        before, self._far = self._far, {}
        moved = any(self.far_disks(dataset) != disks for dataset, disks in before.items())
        if moved:
            self.names_moved()  # directories are made anew, and know it
        return moved

    def close(self) -> None:
        """Give back what the kernel holds for it. Nothing of it is used afterwards."""
        self.inodes.close()
        self._mounts.close()

    def lane(self, dataset: str) -> Lane:
        lane = self._lanes.get(dataset)
        if lane is None:
            lane = self._lanes[dataset] = Lane(
                trio.CapacityLimiter(self.options.threads), trio.CapacityLimiter(_NAMES_THREADS)
            )
        return lane

    async def look(self, dataset: str, work: Callable[[], _T]) -> _T:
        """Run something short that blocks, on a thread for looking around."""
        return await trio.to_thread.run_sync(work, limiter=self.lane(dataset).names)

    async def fetch(self, dataset: str, work: Callable[[], _T]) -> _T:
        """Run something long that blocks, on a thread for reading and decoding."""
        return await trio.to_thread.run_sync(work, limiter=self.lane(dataset).data)

    @property
    def limit(self) -> float:
        """Seconds for which the request that is being answered may wait."""
        return self.options.answer_seconds if only_looks.get() else math.inf

    async def in_time(self, work: Callable[[], Awaitable[_T]], drop: Callable[[_T], object] | None = None) -> _T:
        """Wait for some work, within the request's limit. Raises OutOfTime after that; the work then goes on to its end
        in the background, with its thread and its locks, and its result is given to ``drop``."""
        limit = self.limit
        if self._nursery is None or limit == math.inf:
            return await work()
        pending = _Pending(work, drop)
        self._nursery.start_soon(pending.run)
        with trio.move_on_after(limit):
            await pending.ended.wait()
        return pending.result(limit)

    # -- background -------------------------------------------------------------------------------------------------

    def serve_in(self, nursery: trio.Nursery | None) -> None:
        """Set the nursery in which background work runs from now on."""
        self._nursery = nursery

    def start(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run something that must end even if the request that began it does not wait."""
        if self._nursery is None:
            raise VolfsError("the tree does not run: start Tree.run first")
        self._nursery.start_soon(work)
