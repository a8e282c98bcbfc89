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


_asking: ContextVar[int | str | None] = ContextVar("asking", default=None)
"""The user whose request this process carries out, by number or name; None for its own user."""


@contextmanager
def acting_for(user: int | str | None) -> Iterator[None]:
    """Have what a block does, and threads and tasks that it starts, be done in a user's name."""
    before = _asking.set(user)
    try:
        yield
    finally:
        _asking.reset(before)


def default_author() -> str:
    """The author of what is done now: who asked a mount or server for it; else ``$VOLFS_AUTHOR``, or user@host."""
    user = _asking.get()
    return _this_process() if user is None else author_of(user)


def _this_process() -> str:
    named = os.environ.get("VOLFS_AUTHOR", "").strip()
    if named:
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such user in the system's books, as in some containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def author_of(user: int | str) -> str:
    """A user as an author: by number user@host, by the name under which he has logged in that name. One's own number
    gives ``$VOLFS_AUTHOR``, if there is one."""
    if isinstance(user, str):
        return " ".join(user.split()) or _this_process()
    if user == os.getuid():
        return _this_process()
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    return f"{name}@{socket.gethostname()}"


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
