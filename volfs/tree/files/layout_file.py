"""Files that are a layout over voxels or payloads: volumes, cutouts, the files of directory formats.

Decided here: their attributes, and reading and writing them in place. What bytes they have is decided by the layout,
which layout by the directory that has them; a file that is replaced as a whole is staged, see
:mod:`volfs.tree.files.staged_dir`.

Bytes that are written one after the other are gathered for a while before they become voxels. Whoever looks at anything
in the branch has them become so first: nobody sees the difference. When all files of the mount have gathered too much,
those of the file that has most become voxels: the fewer times a chunk is recoded.

Written in place, a file keeps its size: truncating it to nothing or to its size has no effect, since what is about to
be written over it has the same size; any other size is EINVAL.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import trio

from volfs.errors import BadInput, NotAllowed, NotFound, VolfsError
from volfs.model.box import Box, Index
from volfs.tree.branches.invalidation import VoxelChange
from volfs.tree.branches.mounted_branch import MountedBranch
from volfs.tree.branches.targets import sync_voxels
from volfs.tree.contract.attrs import FOREVER, NEVER, READ_ONLY, SOON, WRITABLE, Attr, SetAttr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.layout_handle import LayoutHandle, QuickSource
from volfs.tree.core.node import Dir, Node
from volfs.tree.core.open_files import Handle, wants_writing
from volfs.views.layout import Layout, Payload, VoxelSource
from volfs.volume.level import Level

#: Written bytes that are gathered before they become voxels: by one open file, and by all of a mount.
_GATHERED = 32 << 20
GATHERED_IN_ALL = 64 << 20


class NoVoxels:
    """The source of a layout that reads none."""

    shape: Index = ()
    dtype: np.dtype[Any] = np.dtype(np.uint8)

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        raise NotFound("this file has no voxels")

    def read_cached(self, box: Box, out: np.ndarray | None = None) -> np.ndarray | None:
        return None

    def write(self, box: Box, voxels: np.ndarray) -> None:
        raise NotFound("this file has no voxels")


@dataclass(frozen=True, slots=True)
class Contents:
    """The layout of a file at a moment, and where its voxels are. ``stamp`` names its bytes, equal stamps meaning equal
    bytes; it may look up chunks.

    ``level``: it can be written in place, and that is where the voxels go. ``replaceable``: it can be written as a
    whole. ``fronted`` has a front answer for the file, and is true if it does; ``served`` is called with
    (offset, length) when bytes of it were read without it.
    """

    layout: Layout
    source: VoxelSource
    mtime: int
    stamp: Callable[[], Hashable]
    quick: QuickSource | None = None
    level: Level | None = None
    replaceable: bool = False
    fronted: Callable[[], bool] | None = None
    served: Callable[[int, int], object] | None = None

    @property
    def resizes(self) -> bool:
        """Whether a change of voxels can change the size."""
        return any(isinstance(extent, Payload) for extent in self.layout.extents)


class LayoutFile(Node):
    """A file that is a layout. ``make`` may do I/O, and returns None if there is no such file."""

    up: Dir
    name: str

    def __init__(
        self,
        context: TreeContext,
        ino: int,
        up: Dir,
        name: str,
        branch: MountedBranch | None,
        make: Callable[[], Contents | None],
    ) -> None:
        super().__init__(context, ino, up)
        self.name = name
        self._branch = branch
        self._make = make
        self._made: Contents | None = None
        self._loaded = False

    @property
    def cold(self) -> bool:
        return not self._loaded

    def load(self) -> None:
        self._made = self._make()
        self._loaded = True

    @property
    def exists(self) -> bool:
        """Whether there is such a file. It must have been loaded."""
        return self._made is not None

    @property
    def made(self) -> Contents:
        """Raises NotFound."""
        if not self._loaded:
            self.load()
        if self._made is None:
            raise NotFound("there is no such file")
        return self._made

    def attr(self) -> Attr:
        made, branch = self.made, self._branch
        timeout = FOREVER if branch is None else SOON
        writable = branch is not None and branch.writable and (made.replaceable or self._editable)
        return self.context.file_attr(
            self.ino,
            made.layout.size,
            made.mtime,
            mode=WRITABLE if writable else READ_ONLY,
            timeout=timeout,
            attr_timeout=NEVER if made.resizes and branch is not None else timeout,
        )

    @property
    def _editable(self) -> bool:
        level = self.made.level
        return level is not None and not level.derived and self.made.layout.writable

    async def open(self, flags: int) -> Handle:
        writable = wants_writing(flags)
        if writable:
            await self._enter()
        made, branch = self.made, self._branch
        if branch is None:
            return LayoutHandle(
                self.context,
                self.ino,
                self.dataset,
                made.source,
                made.layout,
                made.quick,
                served=made.served,
                stateless=made.fronted is not None and made.fronted(),
            )
        return BranchLayoutHandle(
            branch, self.ino, made, lambda: branch.noting_refusals(self.up.path, self.name), writable=writable
        )

    async def change(self, changes: SetAttr, handle: Handle | None) -> None:
        if changes.size is None:
            await super().change(changes, handle)
            return
        await self._enter()
        check_size(self.made.layout, changes.size)

    async def _enter(self) -> None:
        if self._branch is None:
            raise await self.asked(self.refusal)
        await self._branch.enter()
        if not self._editable:
            level = self.made.level
            if level is not None and level.derived:
                raise NotAllowed(f"{level.name} is computed from s0: write s0")
            raise await self.asked(self.refusal)


def check_size(layout: Layout, size: int) -> None:
    """BadInput for a size that a file which is written in place cannot have."""
    if size not in (0, layout.size):
        raise BadInput(f"this file has {layout.size} bytes and can have no other size")


class _Noting:
    """A level that notes the boxes written to it."""

    def __init__(self, level: Level) -> None:
        self._level = level
        self.boxes: list[Box] = []

    @property
    def array(self) -> str:
        """The path of its array."""
        return self._level.array.path

    @property
    def shape(self) -> Index:
        return self._level.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._level.dtype

    def read(self, box: Box, out: np.ndarray | None = None) -> np.ndarray:
        return self._level.read(box, out)

    def write(self, box: Box, voxels: np.ndarray) -> None:
        self._level.write(box, voxels)
        self.boxes.append(box)


class BranchLayoutHandle(LayoutHandle):
    """A laid-out file of a branch, open."""

    slow_stamp = True

    def __init__(
        self,
        mounted: MountedBranch,
        ino: int,
        made: Contents,
        noting_refusals: Callable[[], AbstractAsyncContextManager[None]],
        *,
        writable: bool,
    ) -> None:
        super().__init__(mounted.context, ino, mounted.dataset.name, made.source, made.layout, made.quick)
        self.mounted: MountedBranch = mounted
        self.writable = writable
        self._made = made
        self._noting_refusals = noting_refusals
        self._noting = _Noting(made.level) if made.level is not None else None
        # Written bytes are gathered, in order: a chunk is recoded once for many writes, and not once for each.
        self._gathering = trio.Lock()
        self._gathered = bytearray()
        self._start = 0
        self._failure: VolfsError | OSError | None = None
        self._generation: Hashable = None

    async def read(self, offset: int, size: int) -> memoryview:
        mounted = self.mounted
        if mounted.far:  # whether voxels in memory are those of now is for the disk to say
            self._cached = None
            generation = await mounted.asked(mounted.branch.generation)
        else:
            generation = mounted.branch.generation()
        if generation != self._generation:
            # Checksums that were noted may be of voxels that have changed.
            self._generation = generation
            self.changed()
        return await super().read(offset, size)

    async def write(self, offset: int, data: bytes) -> int:
        noting = self._noting
        if not self.writable or noting is None:
            return await super().write(offset, data)
        async with self._noting_refusals():
            self._made.layout.check(noting, offset, data)
            self._tell()
        # Bytes that were written earlier must become voxels earlier.
        others = (each for each in self.mounted.buffers if each is not self)
        for other in [each for each in others if each.may_cover(self.ino, noting.array, offset, len(data))]:
            await other.settle()
        async with self._gathering:
            if offset != self._start + len(self._gathered):
                await self._put()
            if not self._gathered:
                self._start = offset
            self._gathered += data
            self.mounted.buffer(self)
            if len(self._gathered) >= _GATHERED:
                await self._put()
        # With no lock held: the files of two writers may each be the one that the other waits for.
        files, mine = self._context.buffers, self.mounted
        while sum(each.gathered for each in files) > GATHERED_IN_ALL:
            # Not that of another's far disk, which may not answer.
            settling = [each for each in files if each.mounted is mine or not each.mounted.far]
            if not settling:
                break
            await max(settling, key=lambda each: each.gathered).settle()
        return len(data)

    def may_cover(self, ino: int, array: str, offset: int, length: int) -> bool:
        """True if buffered bytes may be voxels of ``length`` bytes from ``offset`` on of another open file."""
        if self._noting is None or self._noting.array != array:
            return False
        return self.ino != ino or (offset < self._start + self.gathered and self._start < offset + length)

    @property
    def gathered(self) -> int:
        """Bytes that were written and are not voxels yet."""
        return len(self._gathered)

    async def settle(self) -> None:
        """Store the buffered bytes now. An error is kept for the writer's next call and is not raised here."""
        async with self._gathering:
            try:
                await self._put()
            except (VolfsError, OSError) as error:
                self._failure = error

    async def _put(self) -> None:
        """Store the buffered bytes, with the lock held. They count as buffered until they are stored: readers wait."""
        data, start, noting = self._gathered, self._start, self._noting
        try:
            if not data or noting is None:
                return
            layout = self._made.layout
            # The bytes were acknowledged: a reader that gives up waiting must not lose them.
            with trio.CancelScope(shield=True):
                await self.mounted.fetch(lambda: layout.write(noting, start, data))
        finally:
            self._gathered = bytearray()
            self.mounted.stored(self)
        await self.mounted.kernel.invalidate_soon(VoxelChange(through=self.ino))

    async def _finish(self) -> None:
        async with self._noting_refusals():
            async with self._gathering:
                await self._put()
            self._tell()

    def _tell(self) -> None:
        """Raise the error that was kept for the writer, if there is one."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def truncate(self, size: int) -> None:
        if not self.writable:
            await super().truncate(size)
        async with self._noting_refusals():
            check_size(self._made.layout, size)

    async def fsync(self) -> None:
        await self._finish()
        noting, level = self._noting, self._made.level
        if noting is None or level is None or not noting.boxes:
            return
        boxes, noting.boxes = noting.boxes, []
        try:
            await self.mounted.look(lambda: sync_voxels(self.mounted.branch, level, boxes))
        except (VolfsError, OSError):
            noting.boxes = boxes + noting.boxes
            raise

    async def flush(self) -> None:
        if self.writable:
            await self._finish()
            if self._noting is not None and self._noting.boxes:
                await self.mounted.kernel.invalidate(VoxelChange(through=self.ino))

    async def release(self) -> None:
        if self.writable:
            await self._finish()

    def stamp(self) -> Hashable:
        return self._made.stamp()

    def quick_stamp(self) -> Hashable:
        return self.mounted.branch.generation()
