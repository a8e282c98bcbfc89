"""A key of a branch whose bytes are computed from s0, as a file.

Decided here: that it cannot be written, and that an open file keeps the bytes that it was opened with. Not here: which
keys are computed, and how (:mod:`volfs.tree.images.computed_levels`).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from volfs.errors import NotAllowed, NotFound
from volfs.tree.contract.attrs import NEVER, Attr
from volfs.tree.core.node import Dir, Node
from volfs.tree.core.open_files import BytesHandle, Handle, wants_writing
from volfs.tree.images.computed_levels import ComputedKey

if TYPE_CHECKING:
    from volfs.tree.branches.mounted_branch import MountedBranch
    from volfs.tree.core.context import TreeContext


class ComputedKeyFile(Node):
    """A key whose bytes are computed from s0."""

    def __init__(self, context: TreeContext, ino: int, up: Dir, computed: ComputedKey, mounted: MountedBranch) -> None:
        super().__init__(context, ino, up)
        self.mounted: MountedBranch = mounted
        self._computed = computed
        self._data: bytes | None = None
        self._mtime = 0
        self._loaded = False

    @property
    def heavy(self) -> bool:
        return True

    @property
    def cold(self) -> bool:
        return not self._loaded

    def load(self) -> None:
        self._data = self._computed.bytes()
        self._mtime = self._computed.mtime()
        self._loaded = True

    @property
    def exists(self) -> bool:
        """Whether there are any bytes: a chunk of nothing but fill value has no file."""
        return self._data is not None

    def attr(self) -> Attr:
        if self._data is None:
            raise NotFound("this chunk holds nothing but the fill value")
        # The size follows the voxels of another level.
        return self.context.file_attr(self.ino, len(self._data), self._mtime, attr_timeout=NEVER)

    async def open(self, flags: int) -> Handle:
        if wants_writing(flags):
            await self.mounted.enter()
            raise NotAllowed("this level is computed from s0: write s0")
        if self.cold:
            await self.prepare()
        if self._data is None:
            raise NotFound("this chunk holds nothing but the fill value")
        return DerivedHandle(self.ino, self._data, self._mtime)


class DerivedHandle(BytesHandle):
    """The computed bytes as they were when the file was opened."""

    def __init__(self, ino: int, data: bytes, mtime: int) -> None:
        super().__init__(ino, data)
        self._stamp = hash(data), mtime, len(data)

    def stamp(self) -> Hashable:
        return self._stamp

    def quick_stamp(self) -> Hashable:
        return self._stamp
