"""The author of a version: the user who runs a command, the user who asks a mount, or the one named in the message.

Decided here: how an author is written where nobody says it, and the line by which a message says it. Not here: whom a
mount believes (``tree/``).
"""

from __future__ import annotations

import getpass
import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

AUTHOR_LINE = "Author: "
"""Begins the last line of a message written into ``.volfs/commit`` that names its author, as ``git log`` writes it."""


_asking: ContextVar[int | None] = ContextVar("asking", default=None)
"""The number of the user whose request this process carries out; None for its own user."""


@contextmanager
def acting_for(uid: int | None) -> Iterator[None]:
    """Have what a block does, and threads and tasks that it starts, be done in a user's name."""
    before = _asking.set(uid)
    try:
        yield
    finally:
        _asking.reset(before)


def default_author() -> str:
    """The author of what is done now: the user who asked a mount for it; else ``$VOLFS_AUTHOR``, else user@host."""
    uid = _asking.get()
    return _this_process() if uid is None else author_of(uid)


def _this_process() -> str:
    named = os.environ.get("VOLFS_AUTHOR", "").strip()
    if named:
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such user in the system's books, as in some containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def author_of(uid: int) -> str:
    """The user of a number, as an author: user@host. One's own number gives ``$VOLFS_AUTHOR``, if there is one."""
    if uid == os.getuid():
        return _this_process()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return f"{user}@{socket.gethostname()}"


def with_author(message: str, author: str) -> str:
    """A message that names its author, in one line: the form that :func:`split_author` understands."""
    return f"{message.strip()}\n\n{AUTHOR_LINE}{' '.join(author.split()) or default_author()}\n"


def split_author(text: str) -> tuple[str, str | None]:
    """The message, and the author that its last line names; None if it names none."""
    text = text.strip()
    above, _, last = text.rpartition("\n")
    author = last.removeprefix(AUTHOR_LINE).strip()
    if not last.startswith(AUTHOR_LINE) or not author:
        return text, None
    return above.strip(), author
