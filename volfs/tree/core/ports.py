"""Protocols by which the parts of a tree know those above them.

A node or an open file in a branch knows it as :class:`BranchState`; the index of its images knows it as
:class:`SnapshotState`; a branch knows the open files whose bytes it must wait for as :class:`WriteBuffer`. Their
implementations are :mod:`volfs.tree.branches.mounted_branch` and :mod:`volfs.tree.files.layout_file`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol, TypeVar

from volfs.errors import VolfsError
from volfs.tree.contract.attrs import Attr
from volfs.versions.dataset import Dataset

T = TypeVar("T")


class WriteBuffer(Protocol):
    """An open file with written bytes that are not voxels yet."""

    ino: int

    @property
    def mounted(self) -> BranchState:
        """The branch that it is of."""

    @property
    def gathered(self) -> int:
        """The number of those bytes."""

    def may_cover(self, ino: int, array: str, offset: int, length: int) -> bool:
        """True if their voxels may be among those of ``length`` bytes from ``offset`` on of the file with inode
        ``ino``, whose voxels lie in the array at path ``array``."""

    async def settle(self) -> None:
        """Store the buffered bytes now. An error is kept for the writer's next call and is not raised here."""


class BranchState(Protocol):
    """A mounted branch, as its nodes and open files need it before they can answer."""

    @property
    def dataset(self) -> Dataset: ...

    @property
    def buffers(self) -> Collection[WriteBuffer]: ...

    @property
    def far(self) -> bool:
        """True if its disk may stop answering, so that it is asked in threads only."""

    @property
    def unsettled(self) -> bool:
        """True if :meth:`settled` would wait for anything."""

    async def settled(self) -> None:
        """Wait until no name is half changed and no written bytes wait to become voxels."""

    def watched(self, change: int) -> None:
        """So many more open files are there, or fewer, of which a change of a key may concern any."""

    def size_given(self) -> None:
        """The kernel was given the size of a chunk that is computed from others."""

    async def look(self, work: Callable[[], T]) -> T:
        """Run something short that blocks, in a thread of the dataset."""

    async def asked(self, question: Callable[[], T]) -> T:
        """The answer to a question that the disk may have to be asked for: at once, or if it is far in a thread."""


class SnapshotState(Protocol):
    """A snapshot, as far as writing goes: a mounted branch, or :class:`volfs.tree.images.image_index.Committed`."""

    @property
    def held(self) -> bool:
        """True if this mount is the branch's writer now."""

    @property
    def writable(self) -> bool:
        """True if changes through this mount are possible now."""

    def walk_lost(self) -> None:
        """Metadata changed, so that other levels may follow s0 now."""

    def walk_made(self) -> None:
        """It is known again which do."""

    def refusal(self) -> VolfsError:
        """The error for an attempt to change something in it."""


class Front(Protocol):
    """What answers by itself reads of slices, from decoded planes that it was lent, and writes of files that it was
    lent: ``volfs.native.core.Front``."""

    def stack(self, planes: int, thick: int) -> int:
        """A new stack of planes, lent ``thick`` at a time. Returns its number."""

    def drop(self, stack: int) -> None:
        """Forget a stack, its files, and what is lent of it."""

    def serve(self, stack: int, first: int, stride: int, count: int, picture: Any) -> bool:
        """Have ``count`` files, with inodes ``first``, ``first + stride``, …, show the planes of a stack."""

    def lend(self, stack: int, number: int, slab: Any) -> bool:
        """Lend planes from ``number`` times ``thick`` on. False if there is no such stack."""

    def recall(self, stack: int, number: int) -> None:
        """Take them back: their memory is not read any more."""

    def keep_listing(self, directory: int) -> None:
        """Have the kernel keep the listing of a directory whose names never change."""

    def keep_files(self, directory: int) -> None:
        """Have the files of a directory, which never change, opened by the front; any open file of theirs is as good as
        another, and reads of it come here."""

    def forget_directories(self) -> None:
        """Keep no listing and no files of directories that are opened from now on."""

    def lend_file(self, handle: int, inode: int, file: Any) -> None:
        """Have the writes, flushes and syncs of an open file answered; the latter once it is placed."""

    def place_file(self, file: Any, folder: Any | None) -> None:
        """Have syncs of a lent file include its name, which is in a folder; None: have them be the tree's."""

    def recall_file(self, handle: int) -> None:
        """Take a file back: its descriptor is not used any more."""

    def lend_folder(self, inode: int, folder: Any, watch: Any | None = None, walk: int = 0) -> None:
        """Have syncs of a directory answered until the folder ends; with a watch look-ups of names in it as well, until
        that walks on."""

    def touch(self, inode: int, time: int) -> None:
        """Names in a directory changed at a time (ns) that itself may not tell; 0: not any more."""

    @property
    def unclosed(self) -> int:
        """The number of files that were released and must be closed by the tree."""

    def released(self) -> list[int]:
        """Their handles, each once."""

    def tidy(self) -> None:
        """Close the descriptors of folders that have ended."""

    def waiting(self) -> list[tuple[str, int, int]]:
        """Syncs that are not answered yet: operation, handle or inode, and since when (ns, ``time.monotonic_ns``)."""

    def ahead(self) -> tuple[int, int]:
        """Files, and their bytes, that the kernel was given before anybody opened them."""

    def counts(self) -> tuple[int, int, int, dict[str, tuple[int, int, list[int]]]]:
        """Bytes read; bytes of voxels copied for that; bytes written; by operation: answers, nanoseconds, and those by
        the buckets of :class:`volfs.tree.contract.meter.Histogram`."""


class Orphan(Protocol):
    """An open file without a name."""

    @property
    def mounted(self) -> BranchState | None: ...

    async def orphan_attr(self) -> Attr | None:
        """Its attributes; None if it has a name."""
