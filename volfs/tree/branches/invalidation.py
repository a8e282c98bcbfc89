"""Invalidation of the kernel's cache when a branch changes.

Decided here: which inodes are stale after a change, by the rule that was found by deadlocking real mounts: *flush,
fsync and rename await an invalidation, write and setattr never do* (they queue it), and only inodes with open files are
invalidated at all; for all others the stamp at their next open decides. Call either with no lock held: while the kernel
forgets an inode it may write dirty pages back, and those writes must get through.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

import trio

from volfs.errors import VolfsError
from volfs.tree.contract.attrs import SOON
from volfs.tree.core.context import TreeContext
from volfs.tree.core.open_files import Handle
from volfs.tree.core.ports import BranchState
from volfs.tree.images.computed_levels import computed_key
from volfs.tree.images.image_index import ImageIndex
from volfs.versions.branch import Branch
from volfs.versions.keys import node_key, node_path
from volfs.versions.working.interpreter import chunk_root

#: The remembered sizes of one array's chunks are cleared of old ones when there are so many.
_SIZES_SWEPT = 20_000


@dataclass(frozen=True, slots=True)
class KeyChange:
    """Keys were written through their own files: ``keys``, and no others; None if any may have changed.

    ``through`` is the inode through which the change came: the kernel's pages of it are right.
    """

    keys: Collection[str] | None = None
    through: int | None = None


@dataclass(frozen=True, slots=True)
class VoxelChange:
    """Voxels were written, so that chunks changed which nobody wrote through their own files.

    ``through`` is the inode through which the change came; ``inodes`` are others that are stale whatever their stamps
    say.
    """

    through: int | None = None
    inodes: Collection[int] = ()


Change = KeyChange | VoxelChange


@dataclass(frozen=True, slots=True)
class _Size:
    """Size and mtime (ns) of a chunk file as the kernel knows them, and since when (monotonic)."""

    ino: int
    when: float
    size: int
    mtime: int


class Invalidation:
    """The kernel's cache of one branch. Used on the tree's thread, but for :meth:`note_size`."""

    def __init__(self, context: TreeContext, state: BranchState, branch: Branch, images: ImageIndex) -> None:
        self._context = context
        self._state = state
        self._branch = branch
        self._images = images
        #: Inodes whose invalidation was queued lately.
        self._queued: set[int] = set()
        # By array, then by key.
        self._sizes: dict[str, dict[str, _Size]] = {}

    def note_size(self, key: str, ino: int, size: int, mtime: int) -> None:
        """Remember size (bytes) and mtime (ns) of a chunk, which the kernel is given and caches for a second."""
        array = chunk_root(key)
        if array is None:
            return
        sizes = self._sizes.setdefault(array, {})
        now = time.monotonic()
        if len(sizes) >= _SIZES_SWEPT:
            sizes = self._sizes[array] = _recent(sizes, now)
        sizes[key] = _Size(ino, now, size, mtime)
        if self._images.is_known_to_follow(node_path(array)):
            self._state.size_given()

    def sizes_follow(self) -> bool:
        """True if the kernel was lately given sizes of chunks that are computed from others."""
        now = time.monotonic()
        return any(
            self._images.is_known_to_follow(node_path(array)) and _recent(sizes, now)
            for array, sizes in list(self._sizes.items())
        )

    def tidy(self) -> None:
        """Drop sizes that the kernel does not cache any more, and what has been queued for long. Called once in a
        while."""
        self._queued.clear()
        now = time.monotonic()
        self._sizes = {array: fresh for array, sizes in list(self._sizes.items()) if (fresh := _recent(sizes, now))}

    async def invalidate(self, change: Change) -> None:
        """Have the kernel forget what a change made stale, and wait until it has."""
        stale = await self._stale(change)
        if change.through is not None:
            # A file is closed that was perhaps cut before: what was queued for that may not be done yet.
            stale |= self._queued - {change.through}
            self._queued.clear()
        notifier = self._context.notifier
        if len(stale) == 1:
            await notifier.invalidate_inode(stale.pop())
        elif stale:
            async with trio.open_nursery() as nursery:
                for ino in stale:
                    nursery.start_soon(notifier.invalidate_inode, ino)

    async def invalidate_soon(self, change: Change) -> None:
        """Queue what a change made stale for the kernel to forget."""
        for ino in await self._stale(change):
            self._context.notifier.queue_inode(ino)
            self._queued.add(ino)

    async def _stale(self, change: Change) -> set[int]:
        """Inodes of which the kernel has old bytes or an old size."""
        voxels = isinstance(change, VoxelChange)
        stale = await self._missized(voxels=voxels)
        if isinstance(change, VoxelChange):
            stale.update(change.inodes)
        keys = change.keys if isinstance(change, KeyChange) else None
        handles = [
            handle
            for handle in self._context.files.of_branch(self._state)
            if handle.ino != change.through
            and (keys is None or handle.concerned(keys))
            and (self._state.far or not handle.as_shown())
        ]
        if handles:
            for handle, stamp in await self._state.look(lambda: [(each, _stamp(each)) for each in handles]):
                if stamp != handle.known_stamp:
                    handle.known_stamp = stamp
                    stale.add(handle.ino)
        return stale

    async def _missized(self, *, voxels: bool) -> set[int]:
        """Inodes of chunks of which the kernel still caches a wrong size: a chunk's size changes with its voxels, and a
        reader who trusts the old one gets half a chunk."""
        if not self._sizes:
            return set()
        images = self._images
        if images.cold:
            await self._state.look(images.load)
        # A key that was written through its own file is right; those computed from it are not.
        arrays = list(self._sizes) if voxels else [node_key(path) for path in images.following()]
        now = time.monotonic()
        recent: dict[str, _Size] = {}
        for array in arrays:
            recent.update(_recent(self._sizes.get(array, {}), now))
        if not recent:
            return set()

        def differ() -> set[int]:
            found = set()
            for key, one in recent.items():
                info = self._branch.stat(key)
                if info is None or (info.size, info.mtime_ns) != (one.size, one.mtime) or computed_key(images, key):
                    found.add(one.ino)
            return found

        return await self._state.look(differ)


def _recent(sizes: dict[str, _Size], now: float) -> dict[str, _Size]:
    """The sizes that the kernel still caches."""
    return {key: one for key, one in list(sizes.items()) if one.when >= now - SOON}


def _stamp(handle: Handle) -> object:
    """The stamp of an open file, or the kind of error that kept it from being made: the file may be closed, and its
    image be gone, while this looks, which is no reason to fail whoever changed something else."""
    try:
        return handle.stamp()
    except (VolfsError, OSError) as error:
        return type(error).__name__
