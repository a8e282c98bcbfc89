"""The errors volfs raises, grouped by what a caller would do about them.

    VolfsError                 anything below; the message is one line fit for a terminal
    ├── BadInput               EINVAL   mend the argument, name, file or metadata, and try again
    │   ├── BadName            EINVAL   a key, dataset or ref name outside the rules
    │   └── BadMetadata        EINVAL   a zarr.json or multiscales block that is not valid
    ├── Unsupported            ENOTSUP  valid, but outside what volfs has views for (kept as opaque bytes)
    ├── NotFound               ENOENT   no such store, dataset, version, ref, node or key
    ├── AlreadyThere           EEXIST   the name is taken
    ├── WrongKind              ENOTDIR / EISDIR / ENOTEMPTY, given by ``errno``
    ├── NotAllowed             EPERM    never possible here (a link as a branch, a write into a version)
    ├── ReadOnly               EROFS    possible elsewhere: a read-only mount, a branch another process writes
    ├── Busy                   EBUSY    wait or stop the other party, then try again
    │   └── Conflict           EBUSY    the branch moved while this commit was made; commit again
    │       └── MergeConflict  EBUSY    both sides changed the same: decide who wins
    ├── OutOfTime              ETIMEDOUT  the answer takes longer than a client should wait: ask again
    ├── NothingToCommit        EINVAL   the working copy equals its head
    ├── Held                   EIO      a key in the working copy that cannot be interpreted yet
    ├── Absent                 EIO / ESTALE  stored bytes that are known and not here: fetch them. ESTALE where they
    │                                   went because no version that is kept shows them
    ├── Damaged                EIO      stored bytes fail their checksum or do not decode
    ├── StoreFormat            EIO      not a volfs store, or one made by a newer volfs
    └── NoSpace                ENOSPC   the disk is full; nothing was changed

An error becomes an errno only in ``volfs.fuse`` (and in fsspec's filesystem, in ``volfs.python``), a status of HTTP
only in ``volfs.web``, and an exit status only in ``volfs.cli``. No class here inherits a built-in besides Exception:
catching ``ValueError`` must not catch a volfs error by accident.
"""

from __future__ import annotations

import errno as _errno


class VolfsError(Exception):
    """Base of all errors that volfs raises on purpose. ``errno`` is what a filesystem caller is told."""

    errno: int = _errno.EIO

    def __init__(self, message: str, *, errno: int | None = None) -> None:
        super().__init__(message)
        if errno is not None:
            self.errno = errno


class BadInput(VolfsError):
    """The caller gave something that cannot be right."""

    errno = _errno.EINVAL


class BadName(BadInput):
    """A key, dataset or ref name outside the rules of :mod:`volfs.model.names`."""


class BadMetadata(BadInput):
    """Zarr or OME-NGFF metadata that does not follow its specification."""


class Unsupported(VolfsError):
    """Valid data outside what volfs interprets. It is versioned as opaque bytes and has no views."""

    errno = _errno.ENOTSUP


class NotFound(VolfsError):
    """No such store, dataset, version, ref, node or key."""

    errno = _errno.ENOENT


class AlreadyThere(VolfsError):
    """The name is taken."""

    errno = _errno.EEXIST


class WrongKind(VolfsError):
    """A file where a directory is needed, or the other way round, or a directory that is not empty."""

    errno = _errno.ENOTDIR


class NotAllowed(VolfsError):
    """Not possible here, whoever asks."""

    errno = _errno.EPERM


class ReadOnly(VolfsError):
    """Not writable through this mount or handle."""

    errno = _errno.EROFS


class Busy(VolfsError):
    """In use by another party: wait or stop it, then try again."""

    errno = _errno.EBUSY


class Conflict(Busy):
    """The branch moved while a commit onto it was being made."""


class MergeConflict(Conflict):
    """Two lines of history have changed the same, each in another way; nothing was changed."""


class OutOfTime(VolfsError):
    """The answer takes longer than whoever asks should wait. What was read for it is kept: ask again.

    Not EAGAIN: that ends a read of Python's without an error, with as many bytes as there were until then.
    """

    errno = _errno.ETIMEDOUT


class NothingToCommit(VolfsError):
    """The working copy holds no change."""

    errno = _errno.EINVAL


class Held(VolfsError):
    """A key of the working copy that cannot be interpreted (yet): it reads back as written, and has no voxels."""


class Absent(VolfsError):
    """Stored bytes that are known and not here: left out of a clone (EIO), or gone with a version that was dropped
    (``errno`` is ESTALE). Nothing is wrong, and nothing but fetching them brings them back."""


class Damaged(VolfsError):
    """Stored bytes that fail their checksum, or do not decode."""


class StoreFormat(VolfsError):
    """Not a volfs store, or one in a format this volfs does not know."""


class NoSpace(VolfsError):
    """The disk is full."""

    errno = _errno.ENOSPC
