"""The author of a version: the user who runs a command, the user who asks a mount, or the one named in the message.

Decided here: how an author is written where nobody says it, and the line by which a message says it. Not here: whom a
mount believes (``tree/``).
"""

from __future__ import annotations

import getpass
import os
import pwd
import socket

AUTHOR_LINE = "Author: "
"""Begins the last line of a message written into ``.volfs/commit`` that names its author, as ``git log`` writes it."""


def default_author() -> str:
    """The author of commits: ``$VOLFS_AUTHOR``, else user@host."""
    named = os.environ.get("VOLFS_AUTHOR", "").strip()
    if named:
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such user in the system's books, as in some containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def author_of(uid: int) -> str:
    """The user of a number, as an author: user@host. One's own number gives :func:`default_author`."""
    if uid == os.getuid():
        return default_author()
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
