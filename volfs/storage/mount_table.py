"""The kernel's table of mounts: which filesystem a path lies on, and whether locks on it are seen by other machines.

Nothing here asks a mounted filesystem for anything without need: a broken or hanging one would block or fail.

Decided here: what is known of each kind of filesystem. Not here: what follows for what a lock guards
(:mod:`volfs.storage.claim`, ``volfs.versions``), nor what may be mounted where (``volfs.fuse``).
"""

from __future__ import annotations

import errno
import os
import re
import select
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from volfs.errors import BadInput

FILESYSTEM_TYPE = "fuse.volfs"

#: Symbolic links followed, one after the other, as the kernel does.
_LINKS = 40


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of the mount table. ``source`` is the store for a volfs mount, ``device`` is ``major:minor``."""

    mountpoint: Path
    source: str
    kind: str
    device: str
    options: frozenset[str]

    @property
    def is_volfs(self) -> bool:
        return self.kind == FILESYSTEM_TYPE


def mounts() -> list[Mounted]:
    """Everything that is mounted, oldest first, so that the last one at a place is the visible one."""
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [_parse_mountinfo(line) for line in lines]


def _parse_mountinfo(line: str) -> Mounted:
    """See proc(5), /proc/pid/mountinfo: optional fields end at a lone hyphen, and odd characters are octal."""
    before, _, after = line.partition(" - ")
    fields = before.split(" ")
    kind, source, super_options = after.split(" ", 2)
    return Mounted(
        mountpoint=Path(_unescape(fields[4])),
        source=_unescape(source),
        kind=kind,
        device=fields[2],
        options=frozenset(fields[5].split(",")) | frozenset(super_options.split(",")),
    )


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def canonical(path: Path) -> Path:
    """The path as the kernel spells it in its table. The filesystem mounted there is not asked: it may be broken, or be
    this very process, which could not answer.
    """
    place = Path(path)
    for _ in range(_LINKS):
        absolute = Path(os.path.abspath(place))
        place = Path(os.path.realpath(absolute.parent)) / absolute.name
        if any(mount.mountpoint == place for mount in mounts()) or not os.path.islink(place):
            return place
        place = place.parent / place.readlink()
    raise BadInput(f"{path}: {os.strerror(errno.ELOOP)}")


def mounted_at(path: Path) -> Mounted | None:
    """The mount exactly at ``path``, or None."""
    place = canonical(path)
    return next((mount for mount in reversed(mounts()) if mount.mountpoint == place), None)


def mount_holding(path: Path) -> Mounted | None:
    """The mounted filesystem that ``path`` lies on."""
    place = canonical(path)
    return _holder(place, mounts())


def far_disks(place: Path, table: list[Mounted]) -> frozenset[str]:
    """The devices that may stop answering and that files of a directory lie on: it lies there itself, some of it does,
    or a link in its place leads there. If there are none, no call on such a file blocks for ever.

    ``place`` is its path, whose directory is spelled as :func:`canonical` does. No such device is asked.
    """
    at, rest, links = place.parent, [place.name], 0
    while rest:
        name = rest.pop(0)
        at = at.parent if name == ".." else at / name  # an absolute link begins at "/" again
        if may_stop_answering(holder := _holder(at, table)):
            return frozenset([holder.device if holder is not None else "unknown"])
        if links < _LINKS and os.path.islink(at):
            links += 1
            at, rest = at.parent, [*at.readlink().parts, *rest]
    return frozenset(each.device for each in table if at in each.mountpoint.parents and may_stop_answering(each))


class MountTable:
    """The table of mounts as it was last read, and whether it has changed since."""

    def __init__(self) -> None:
        self.mounts = mounts()
        self._fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLPRI)
        self._poll.poll(0)

    def changed(self) -> bool:
        """Read the table again if it has changed since this was last asked: proc(5) tells by POLLPRI. Asks no
        filesystem."""
        if not self._poll.poll(0):
            return False
        self.mounts = mounts()
        return True

    def close(self) -> None:
        """Close the kernel's file."""
        os.close(self._fd)


def _holder(place: Path, table: list[Mounted]) -> Mounted | None:
    holders = [mount for mount in table if place == mount.mountpoint or mount.mountpoint in place.parents]
    return max(reversed(holders), key=lambda mount: len(mount.mountpoint.parts), default=None)


class Locks(Enum):
    """The machines that see a lock on a file of a filesystem."""

    LOCAL = "seen by every process of this machine, and no other machine has the filesystem"
    SHARED = "seen by every machine"
    APART = "seen by this machine only"
    UNKNOWN = "not known to be seen by other machines"

    @property
    def tell(self) -> bool:
        """Whether a free lock proves that its holder, on whichever machine, is gone."""
        return self in (Locks.LOCAL, Locks.SHARED)


_LOCAL = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs", "nilfs2", "tmpfs", "ramfs"}
    | {"rootfs", "overlay", "aufs", "vfat", "exfat", "ntfs3", "fuseblk", "squashfs", "erofs", "iso9660", "udf"}
    | {"fuse.fuse-overlayfs", "fuse.mergerfs"}
)
_SHARED = frozenset(
    {"nfs", "nfs4", "ceph", "lustre", "gpfs", "ocfs2", "gfs2", "glusterfs"}
    | {"fuse.glusterfs", "fuse.ceph-fuse", "fuse.juicefs"}
)
_APART = frozenset(
    {"fuse.sshfs", "fuse.rclone", "rclone", "fuse.s3fs", "s3fs", "mountpoint-s3", "fuse.mountpoint-s3", "fuse.goofys"}
    | {"fuse.gcsfuse", "fuse.blobfuse", "fuse.blobfuse2", "fuse.davfs", "davfs", "davfs2", "fuse.curlftpfs"}
    | {"fuse.gvfsd-fuse", "virtiofs", "vboxsf"}
)
_OPTIONS_APART = ("nolock", "local_lock=all", "local_lock=flock", "localflock", "noflock", "nobrl")
"""Options of NFS, Lustre and SMB that keep locks on the machine."""


def may_stop_answering(mount: Mounted | None) -> bool:
    """True for a filesystem whose every call may block for ever, since another machine or program answers it."""
    return mount is None or mount.kind not in _LOCAL or mount.kind.startswith("fuse")


def locks_on(mount: Mounted | None) -> Locks:
    """The machines that see locks on a filesystem, by its kind and mount options."""
    if mount is None:
        return Locks.UNKNOWN
    if mount.kind in _LOCAL:
        return Locks.LOCAL
    if mount.kind in _APART or any(option in mount.options for option in _OPTIONS_APART):
        return Locks.APART
    return Locks.SHARED if mount.kind in _SHARED else Locks.UNKNOWN
