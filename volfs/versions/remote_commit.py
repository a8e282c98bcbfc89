"""Asks the mount that holds a branch for an action of the holder: commit, discard, update, publish, another name.

Decided here: how another process uses a mount's control files, how a key is spelt in a line of one, and how long it
waits. Not here: the mount's part (``tree/``), and the form of an outcome
(:class:`volfs.versions.working.status.Action`).

The action happens in the write itself. Its outcome is read through the same open file, so that it is never the outcome
of another process's action; a commit that takes longer than the mount lets a write wait goes on meanwhile.
"""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from volfs import errors
from volfs.errors import AlreadyThere, Busy, ReadOnly, VolfsError
from volfs.model.refs import RefKind
from volfs.versions.author import with_author
from volfs.versions.working.branch_lock import Holder
from volfs.versions.working.status import ActionKind

_PAUSE = 0.2
_PATIENCE = 24 * 3600.0
_LONGEST = 1 << 20
"""Bytes of an answer."""


def ask_mount(
    holder: Holder, dataset: str, branch: str, action: ActionKind, text: str, author: str | None = None
) -> dict[str, Any]:
    """Write ``text`` into the control file ``action`` of the branch in the holder's mount; wait for the outcome.

    ``author`` of a commit is this process's user. Returns the mount's description of the action when it is done. Raises
    the error that stopped it; ReadOnly if that mount cannot be reached from here; VolfsError with the errno if it dies.
    """
    assert holder.mountpoint is not None, "only a mount can be asked"
    _check_reachable(holder, branch)
    control = Path(holder.mountpoint, dataset, RefKind.BRANCH.directory, branch, ".volfs")
    written = text if author is None else with_author(text, author)
    try:
        fd = os.open(control / action, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise ReadOnly(
            f"branch {branch!r} is being written by {holder}, which cannot be reached: {error.strerror}"
        ) from None
    deadline = time.monotonic() + _PATIENCE
    try:
        _write(fd, written.encode("utf-8", "surrogateescape") or b"\n")
        while (described := _outcome(fd)).get("state") == "running":
            if time.monotonic() > deadline:
                raise Busy(f"the {action} is still going on: see {control / 'status.json'}")
            time.sleep(_PAUSE)
    except OSError as error:
        raise VolfsError(
            f"{holder} could not {action}: {error.strerror}; see {control / 'errors.txt'}", errno=error.errno
        ) from None
    finally:
        with suppress(OSError):  # it has been told already
            os.close(fd)
    return described


def rename_in_mount(holder: Holder, dataset: str, old: str, new: str) -> None:
    """Give a branch another name in the holder's mount, as ``mv`` in ``branches/`` does. Busy if files are open there
    for writing; ReadOnly if that mount cannot be reached from here."""
    assert holder.mountpoint is not None, "only a mount can be asked"
    _check_reachable(holder, old)
    folder = Path(holder.mountpoint, dataset, RefKind.BRANCH.directory)
    if not os.path.isdir(folder):
        raise ReadOnly(f"branch {old!r} is being written by {holder}, which cannot be reached")
    try:
        os.rename(folder / old, folder / new)
    except FileExistsError:
        raise AlreadyThere(f"there is a branch {new!r} already") from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Busy(f"branch {old!r} has files open for writing in {holder}: close them first") from None
        raise VolfsError(f"{holder} could not rename branch {old!r}: {error.strerror}", errno=error.errno) from None


def _check_reachable(holder: Holder, branch: str) -> None:
    """Raises ReadOnly for a branch that a server writes: it acts for who has logged in, and for nobody else."""
    if holder.serves:
        raise ReadOnly(
            f"branch {branch!r} is being written by {holder}: do it there (docs/serve.md), or half a minute after its "
            "last change"
        )


def _write(fd: int, data: bytes) -> None:
    """Write all of an order. Raises the error for which it was refused."""
    try:
        os.write(fd, data)
        os.fsync(fd)  # a message is complete
    except OSError as error:
        with suppress(OSError):
            _outcome(fd)
        raise error


def _outcome(fd: int) -> dict[str, Any]:
    """The outcome, so far, of an order written through an open control file. Raises the error that stopped it."""
    try:
        described = json.loads(os.pread(fd, _LONGEST, 0))
    except ValueError:
        described = None
    if not isinstance(described, dict):
        raise OSError(errno.EPROTO, "it does not report the outcome")
    if described.get("state") == "failed":
        raise _error(described)
    return described


def _error(described: dict[str, Any]) -> VolfsError:
    kind = getattr(errors, str(described.get("error_kind")), VolfsError)
    if not (isinstance(kind, type) and issubclass(kind, VolfsError)):
        kind = VolfsError
    return kind(str(described.get("error") or "the mount could not do it"))


def key_line(key: str) -> str:
    """A key as a line of a control file: as it is, or as a JSON string if a line cannot hold it."""
    plain = key == key.strip() and "\n" not in key and not key.startswith('"')
    return key if plain else json.dumps(key)


def key_of_line(line: str) -> str:
    """The key that a line means, without slashes at its end."""
    key = line.strip()
    if key.startswith('"'):
        with suppress(ValueError):
            read = json.loads(key)
            key = read if isinstance(read, str) else key
    return key.rstrip("/")
