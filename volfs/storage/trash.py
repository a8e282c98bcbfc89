"""Removing whole directories: gone at once under their names, and for good whoever dies meanwhile.

A directory that is thrown away gets another name beside the old one, which ends in :data:`TRASH`: whatever has such a
name is nobody's any more, and whoever finds it may delete it.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from volfs.storage.files import replace_durably

TRASH = ".trash"


def throw_away(path: Path) -> Path | None:
    """Take a directory's name away, durably. What it holds is deleted later: that may take long, this does not.

    Returns where it lies now, None if there was nothing.
    """
    trash = path.with_name(f".{path.name.lstrip('.')[:180]}.{secrets.token_hex(4)}{TRASH}")
    try:
        replace_durably(path, trash)
    except FileNotFoundError:
        return None
    return trash


def empty_trash(folder: Path) -> None:
    """Delete what was thrown away in a directory, whoever did. Needs no lock."""
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(folder)):
            if name.startswith(".") and name.endswith(TRASH):
                shutil.rmtree(folder / name, ignore_errors=True)


def delete_tree(path: Path) -> None:
    """Remove a directory so that it is gone at once under its name, and for good should the process die meanwhile."""
    trash = throw_away(path)
    if trash is not None:
        shutil.rmtree(trash, ignore_errors=True)
