"""Attributes of an inode, and how long a client may keep them.

Decided here: the fields that every inode answers with, their defaults, and the three lifetimes of DESIGN 5 (for ever
inside a version, at most a second where names or bytes may change, not at all for control files). Not here: which node
has which attributes (the node modules), and the wire form (``volfs.fuse``).
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import NamedTuple

#: What is inside a version never changes: a day is "for ever" to a kernel that re-asks for free afterwards.
FOREVER = 86400.0
#: Names and bytes that another client, process or commit may change.
SOON = 1.0
#: Never cached.
NEVER = 0.0

#: One constant: inodes are never reused, so no second generation of one exists.
GENERATION = 1

#: Large requests suit chunked data, and `cp`/`cat` size their buffers from it.
BLOCK_SIZE = 128 << 10
#: Of ordinary files of a branch. Programs that write through one descriptor and read through another (NDTiff) depend on
#: buffers being no larger than on any disk.
FILE_BLOCK_SIZE = 4096

#: Type and permissions of a file that cannot be written.
READ_ONLY = stat.S_IFREG | 0o444
#: And of one that can.
WRITABLE = stat.S_IFREG | 0o644


class Attr(NamedTuple):
    """The attributes of one inode. Times are nanoseconds since the epoch, sizes bytes, timeouts seconds.

    ``ino == 0`` is a negative entry: the name does not exist, and that may be cached for ``entry_timeout`` seconds.
    """

    ino: int
    mode: int
    size: int = 0
    mtime: int = 0
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    atime: int = 0
    ctime: int = 0
    rdev: int = 0
    generation: int = GENERATION
    entry_timeout: float = NEVER
    attr_timeout: float = NEVER
    block_size: int = BLOCK_SIZE
    stored_blocks: int | None = None

    @property
    def blocks(self) -> int:
        """512-byte blocks: of a file that lies on a disk, those that it takes there.

        Never 0 for a file with bytes: ``tar -S`` takes 0 blocks for a hole and archives zeros.
        """
        stored = self.stored_blocks
        return -(-self.size // 512) if stored is None else max(stored, self.size > 0)

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


def missing(timeout: float) -> Attr:
    """The answer of a lookup that found nothing, cacheable for ``timeout`` seconds."""
    return Attr(ino=0, mode=0, entry_timeout=timeout)


@dataclass(frozen=True, slots=True)
class SetAttr:
    """The changes of one setattr; None leaves an attribute as it is."""

    size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
