"""Asking the mount that holds a branch to do what only the holder may: commit, discard, update, publish.

Decided here: how another process uses a mount's control files, how a key is spelt in a line of one, and how long it
waits. Not here: what the mount does on such a write (``tree/``), and the outcome's form
(:class:`volfs.versions.status.Action`).

The action happens in the write itself, whose error is its outcome. A commit that takes longer than the mount lets a
write wait goes on; its outcome is then read from ``.volfs/status.json``.
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
from volfs.errors import Busy, ReadOnly, VolfsError
from volfs.versions.author import with_author
from volfs.versions.lock import Holder
from volfs.versions.status import instant_text

_PAUSE = 0.2
_PATIENCE = 24 * 3600.0
_TICK_NS = 1_000_000
"""How much a time may lose on its way through text."""


def ask_mount(
    holder: Holder, dataset: str, branch: str, action: str, text: str, author: str | None = None
) -> dict[str, Any]:
    """Write ``text`` into the control file ``action`` of the branch in the holder's mount; wait for the outcome.

    ``author`` is who asks for a commit. Returns the mount's description of the action when it is done. Raises what
    stopped it. ReadOnly if that mount cannot be reached from here.
    """
    if holder.mountpoint is None:
        raise ReadOnly(f"{branch} is being written by {holder}: wait until it is done")
    control = Path(holder.mountpoint, dataset, "branches", branch, ".volfs")
    before = _action(control)
    since = instant_text(time.time_ns() - _TICK_NS)
    written = text if author is None else with_author(text, author)
    try:
        fd = os.open(control / action, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ReadOnly(f"{branch} is being written by {holder}, which cannot be reached: {error.strerror}") from None
    try:
        try:
            os.write(fd, written.encode("utf-8", "surrogateescape") or b"\n")
        finally:
            os.close(fd)
    except OSError as error:
        described = _action(control)
        if described.get("state") == "failed" and described != before:
            raise _error(described) from None
        if error.errno == errno.EBUSY and described.get("state") == "running":
            raise Busy(f"{branch}: a {described.get('kind')} is going on in {holder}: try again") from None
        raise VolfsError(
            f"{holder} could not {action}: {error.strerror}; see {control / 'errors.txt'}", errno=error.errno
        ) from None
    return _wait(control, action, text, since)


def _wait(control: Path, action: str, text: str, since: str) -> dict[str, Any]:
    deadline = time.monotonic() + _PATIENCE
    while True:
        described = _action(control)
        # What is shown may still be the action before this one: the mount first makes slices being written complete.
        later = str(described.get("began", "")) >= since
        if described.get("kind") == action and (later or str(described.get("message")).strip() == text.strip()):
            if described.get("state") == "failed":
                raise _error(described)
            if described.get("state") == "done":
                return described
        elif later:
            return {}  # others came after this one, which is over: a branch does one thing at a time
        if time.monotonic() > deadline:
            raise Busy(f"the {action} is still going on: see {control / 'status.json'}")
        time.sleep(_PAUSE)


def _action(control: Path) -> dict[str, Any]:
    try:
        described = json.loads((control / "status.json").read_bytes()).get("action")
    except (OSError, ValueError, AttributeError):
        return {}
    return described if isinstance(described, dict) else {}


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
