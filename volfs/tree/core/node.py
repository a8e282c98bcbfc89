"""Nodes: one for an inode of the tree, whatever kind of directory or file it is.

Decided here: the division of labour between nodes and :class:`volfs.tree.tree.Tree`. A node says what it is; it is made
when asked for, costs little, and holds nothing that cannot be made again. Not here: which inode is which node
(:mod:`volfs.tree.core.inodes`), and what any directory holds (the node modules).

Looking is synchronous: ``find``, ``entries``, ``attr``. It touches memory, and at most an indexed look-up or an lstat,
so the tree does it on its one thread. A node that needs longer is ``cold``: then the tree calls ``load`` in a worker
thread first. Where a branch is ``far``, on a network's disk or another program's, no lstat is sure to return, ever: all
of this then runs in worker threads. Changing is asynchronous, because it takes locks and invalidates what the kernel
has cached.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, TypeVar

from volfs.errors import NotAllowed, NotFound, VolfsError, WrongKind
from volfs.tree.contract.api import DirEntry
from volfs.tree.contract.attrs import SOON, Attr, SetAttr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.open_files import Handle
from volfs.tree.core.ports import BranchState

_T = TypeVar("_T")

FIRST_COOKIE = 3
"""NFS servers keep 1 and 2 for "." and ".."."""

_HASHED = 1 << 60


def name_cookie(name: str) -> int:
    """A listing position that depends on nothing but the name, so it stays valid while others come and go."""
    digest = hashlib.blake2b(os.fsencode(name), digest_size=8).digest()
    return _HASHED | int.from_bytes(digest, "little") >> 4


class Node(ABC):
    """One inode. ``up`` is the directory it was found in; None only for the root."""

    #: The branch whose names, if they are half changed, must settle before this is looked at.
    mounted: BranchState | None = None
    #: What it is called in ``up``, if it knows.
    name: str | None = None

    def __init__(self, context: TreeContext, ino: int, up: Dir | None) -> None:
        self.context = context
        self.ino = ino
        self.up = up
        #: Whether it is of a branch whose disk may stop answering: all that looks at it runs in threads.
        self.far: bool = up is not None and up.far

    @property
    def dataset(self) -> str:
        """The name of the dataset on whose threads its work is done; "" if it belongs to none."""
        return self.up.dataset if self.up is not None else ""

    @property
    def cold(self) -> bool:
        """True if ``load`` must run, in a thread, before the node can be asked anything else."""
        return False

    @property
    def heavy(self) -> bool:
        """True if ``load`` reads voxels, and so belongs on the threads for that."""
        return False

    def load(self) -> None:  # noqa: B027  (optional: most nodes have no slow part)
        """Read all that the answers of a cold node need. Blocks."""

    async def prepare(self) -> None:
        """Run ``load`` in the thread that it belongs to."""
        run = self.context.fetch if self.heavy else self.context.look
        await self.context.in_time(lambda: run(self.dataset, self.load))

    def warm(self) -> None:
        """``load``, if it must run."""
        if self.cold:
            self.load()

    async def ready(self) -> None:
        """``load`` on the right thread, if it must run."""
        if self.far:
            run = self.context.fetch if self.heavy else self.context.look
            await self.context.in_time(lambda: run(self.dataset, self.warm))
        elif self.cold:
            await self.prepare()

    async def asked(self, question: Callable[[], _T]) -> _T:
        """The answer to a question about it: at once, or for one that is far in a thread, within the request's
        limit."""
        return await self.context.in_time(lambda: self.context.look(self.dataset, question)) if self.far else question()

    @abstractmethod
    def attr(self) -> Attr:
        """The attributes now. Raises NotFound if it is gone."""

    async def open(self, flags: int) -> Handle:
        """Open a file."""
        raise WrongKind("this is a directory", errno=errno.EISDIR)

    async def readlink(self) -> bytes:
        """The target of a symbolic link."""
        raise WrongKind("this is no symbolic link", errno=errno.EINVAL)

    @property
    def lenient(self) -> bool:
        """True if setting times and modes succeeds without effect: archivers always set them, and here files come and
        go as wholes."""
        return self.up is not None and self.up.lenient

    async def change(self, changes: SetAttr, handle: Handle | None) -> None:
        """Apply a setattr. Sizes of generated files cannot change."""
        if changes.size is not None or not (self.lenient and self.context.writable):
            raise await self.asked(self.refusal)

    def refusal(self) -> VolfsError:
        """The error for an attempt to change this: that of the directory it is in."""
        return self.up.refusal() if self.up is not None else NotAllowed("this is generated: it cannot be changed")


class Link(Node):
    """A symbolic link."""

    def __init__(self, context: TreeContext, ino: int, up: Dir, target: str, mtime: int, timeout: float) -> None:
        super().__init__(context, ino, up)
        self._target = os.fsencode(target)
        self._mtime = mtime
        self._timeout = timeout

    def attr(self) -> Attr:
        mode = stat.S_IFLNK | 0o777
        return self.context.file_attr(self.ino, len(self._target), self._mtime, mode=mode, timeout=self._timeout)

    async def open(self, flags: int) -> Handle:
        raise WrongKind("this is a symbolic link", errno=errno.ELOOP)

    async def readlink(self) -> bytes:
        return self._target


class Dir(Node):
    """A directory. ``path`` is what its inode is derived from: see :mod:`volfs.tree.core.inodes`."""

    #: How long the kernel may remember that a name does not exist.
    absence: float = SOON
    #: True if its files never change, and all open files of one are alike: none has anything to be opened or closed.
    plain = False

    def __init__(self, context: TreeContext, ino: int, up: Dir | None, path: str) -> None:
        super().__init__(context, ino, up)
        self.path = path

    @abstractmethod
    def find(self, name: str) -> Node | None:
        """The entry ``name``; None if there is none. The node may be cold."""

    def numbered(self, ordinal: int) -> Node | None:
        """The file that has this ordinal in the directory's inodes."""
        return None

    def allocated(self, name: str, ino: int) -> Node | None:
        """The entry ``name``, if it still has the inode that was allocated for it."""
        node = self.find(name)
        return node if node is not None and node.ino == ino else None

    def listing_cold(self, cookie: int) -> bool:
        """True if ``load_listing(cookie)`` must run, in a thread, before ``entries(cookie)``."""
        return False

    def load_listing(self, cookie: int) -> None:
        """Read the names after a cookie. Blocks."""

    @abstractmethod
    def entries(self, cookie: int) -> Iterator[DirEntry]:
        """Entries after a cookie: all of them, or at least one if there is any. Those that vanish meanwhile are left
        out."""

    def directory_attr(self, mtime: int, timeout: float, *, writable: bool = False) -> Attr:
        context = self.context
        return Attr(
            self.ino,
            stat.S_IFDIR | (0o755 if writable and not context.options.read_only else 0o555),
            0,
            mtime,
            uid=context.options.uid,
            gid=context.options.gid,
            entry_timeout=timeout,
            attr_timeout=timeout,
        )

    # -- changing names: refused unless a kind of directory says otherwise ----------------------------------------

    async def create(self, name: str, mode: int, flags: int) -> tuple[Node, Handle]:
        raise await self.asked(self.refusal)

    async def make(self, name: str, mode: int) -> Node:
        """Make a regular file without opening it (mknod)."""
        node, handle = await self.create(name, mode, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        await self.context.files.close_unregistered(handle)
        return node

    async def mkdir(self, name: str, mode: int) -> Attr:
        raise await self.asked(self.refusal)

    async def rmdir(self, name: str) -> None:
        await self._refuse_removal(name, folder=True)

    async def unlink(self, name: str) -> None:
        await self._refuse_removal(name, folder=False)

    async def symlink(self, name: str, target: str) -> Node:
        raise await self.asked(self.refusal)

    async def link(self, node: Node, name: str) -> Node:
        raise await self.asked(self.refusal)

    async def rename(self, name: str, to: Dir, new_name: str, flags: int) -> None:
        raise await self.asked(self.refusal)

    async def sync(self) -> None:
        """Make names durable (fsync of the directory): generated ones need nothing."""

    async def _refuse_removal(self, name: str, *, folder: bool) -> None:
        """rm -r expects ENOENT, EISDIR and ENOTDIR before any EPERM."""
        node = await self.asked(lambda: self.find(name))
        if node is None:
            raise NotFound(f"{name} does not exist")
        if folder and not isinstance(node, Dir):
            raise WrongKind(f"{name} is no directory")
        if not folder and isinstance(node, Dir):
            raise WrongKind(f"{name} is a directory", errno=errno.EISDIR)
        raise await self.asked(self.refusal)


class SmallDir(Dir):
    """A directory of a few dozen entries: some of fixed names, with fixed ordinals, and others.

    A subclass lists its names, and makes the node of a name.
    """

    #: Ordinals of the files with fixed names. Kept once released: they are part of inodes.
    slots: ClassVar[dict[str, int]] = {}

    @abstractmethod
    def names(self) -> Sequence[str]:
        """All names, fixed ones first. May raise what keeps the directory from being read."""

    def numbered(self, ordinal: int) -> Node | None:
        for name, slot in self.slots.items():
            if slot == ordinal:
                return self.find(name)
        return None

    def slot_ino(self, name: str) -> int:
        return self.context.inodes.file(self.ino, self.slots[name])

    def cookie_of(self, name: str) -> int:
        slot = self.slots.get(name)
        return name_cookie(name) if slot is None else FIRST_COOKIE + slot

    def listing_cold(self, cookie: int) -> bool:
        return any(node is not None and node.cold for node in map(self.find, self.names()))

    def load_listing(self, cookie: int) -> None:
        for name in self.names():
            node = self.find(name)
            if node is not None and node.cold:
                node.load()

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        ordered = sorted((self.cookie_of(name), name) for name in self.names())
        for at, name in ordered[bisect_right(ordered, cookie, key=lambda pair: pair[0]) :]:
            attr = attr_of(self.find(name))
            if attr is not None:
                yield DirEntry(os.fsencode(name), attr, at)


def attr_of(node: Node | None) -> Attr | None:
    """The attributes of a node for a listing; None if it is not there."""
    if node is None:
        return None
    try:
        return node.attr()
    except NotFound:
        return None
