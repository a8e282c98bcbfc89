"""Opening a store's catalog: whether the file that lies there is one, of this store, and what is done if it is not.

Decided here: what is mended without a word from anyone, and what is refused in one line. In the store itself a file
that is no catalog of this store, or one in which a damaged row was met, is set aside and made anew: nothing that it
says is not in the store's own files. Anywhere else (``--catalog``) it may be somebody's, so it is only refused; and
what other processes have open is never taken away under them. ``volfs fsck --rebuild-catalog`` sets aside whatever it
is. Not here: whether a catalog says what the store holds (:mod:`volfs.versions.commit.recover`), and what is in one
(:mod:`volfs.catalog`).
"""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from volfs.catalog import MEND, Catalog, InodeTable, NewerFormat
from volfs.catalog.inode_table import table_path
from volfs.errors import Busy, Damaged, NotFound, StoreFormat, VolfsError
from volfs.model.display import printable
from volfs.storage.files import fsync_dir, replace_durably

log = logging.getLogger(__name__)

_NAMED = "name another place with --catalog; `volfs fsck --rebuild-catalog` sets aside what lies there, whatever it is"
_MEND = "`volfs fsck --rebuild-catalog` makes it anew"
# Where SQLite's readers and writers hold a lock as long as they have a file in WAL mode open (its file format, 1.3).
_ASK = """
import fcntl, os, struct, sys
lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0x40000000 + 2, 510, 0)
found = fcntl.fcntl(os.open(sys.argv[1], os.O_RDONLY), fcntl.F_GETLK, lock)
print("free" if struct.unpack("hhqqi", found)[0] == fcntl.F_UNLCK else "locked")
"""


def open_catalog(place: Path, ident: str, *, ours: bool, read_only: bool) -> Catalog:
    """The catalog of the store whose id is ``ident``. ``ours``: it lies in the store, where nobody else keeps files.

    Raises NotFound, Damaged or StoreFormat with what to do, where it is neither usable nor to be mended.
    """
    try:
        _check_place(place)
        if not read_only:
            _check_unsuspected(place)
        return Catalog.open(place, create=not read_only, read_only=read_only, store=ident)
    except (Damaged, StoreFormat) as error:
        # One that a process found damaged was the store's, wherever it lies.
        found = bool(ours or Catalog.suspicion(place))
        if not found and MEND in str(error):
            raise type(error)(str(error).replace(MEND, _NAMED)) from None
        if read_only or not found or isinstance(error, NewerFormat):
            raise
        why = str(error)
    if in_use(place):
        raise Damaged(f"{why}; first stop the processes that have it open")
    aside = set_aside(place)
    log.warning("the catalog is made anew, and the old one set aside as %s: %s", aside, printable(why))
    return Catalog.open(place, create=True, store=ident)


def _check_place(place: Path) -> None:
    if place.is_dir():
        raise Damaged(f"{place} is a directory, and should be the catalog; {_MEND}")
    if place.is_symlink() and not place.exists():
        raise Damaged(f"{place} is a link to a file that is not there; {_MEND}")
    if place.exists() and not place.is_file():
        raise Damaged(f"{place} is not an ordinary file, and should be the catalog; {_MEND}")


def _check_unsuspected(place: Path) -> None:
    """Damaged if a process met a damaged row. While others use the file it stays: it is as good as it was for them."""
    reason = Catalog.suspicion(place)
    if reason is not None and not in_use(place):
        raise Damaged(f"{place} was found damaged ({reason}); {_MEND}")


def in_use(place: Path) -> bool:
    """Whether any process has the catalog open, this one too."""
    if not _locked(place):
        return False
    # A connection that failed to open lives on as long as the frames of its error do, which may be a circle.
    gc.collect()
    return _locked(place)


def _locked(place: Path) -> bool:
    if not place.is_file():
        return False
    # In another process: to close a file takes away all locks that a process has on it, those of SQLite too.
    asked = subprocess.run([sys.executable, "-I", "-c", _ASK, place.resolve()], capture_output=True, check=False)
    return asked.stdout.strip() != b"free"


def set_aside(place: Path) -> Path:
    """Rename the file or directory at the catalog's path, with its log; returns the new path."""
    aside = place.with_name(f"{place.name}.damaged")
    number = 1
    while aside.is_dir():
        number += 1
        aside = place.with_name(f"{place.name}.damaged-{number}")
    for suffix in ("-shm", "-wal", ""):
        with suppress(FileNotFoundError):
            replace_durably(Path(f"{place}{suffix}"), Path(f"{aside}{suffix}"))
    Catalog.clear_suspicion(place)
    fsync_dir(place.parent)
    return aside


def set_aside_damaged(place: Path, ident: str) -> list[Path]:
    """Set a catalog aside that cannot be used for the store whose id is ``ident``, and the table of inodes beside it if
    that cannot be read; where they are now.

    Opening the store for writing makes the catalog anew, and all is the same again. A table of inodes that is made anew
    gives numbers that the old one never gave. Busy if other processes have them open.
    """
    inodes = table_path(place)
    moved = [_set_aside_unless(place, lambda: _is_sound(place, ident))]
    if os.path.lexists(inodes):
        moved.append(_set_aside_unless(inodes, lambda: InodeTable.is_sound(place)))
    return [aside for aside in moved if aside is not None]


def _set_aside_unless(place: Path, is_sound: Callable[[], bool]) -> Path | None:
    if is_sound():
        return None
    if in_use(place):
        raise Busy(f"{place} is damaged, and open in other processes: stop them, then try again")
    return set_aside(place)


def _is_sound(place: Path, ident: str) -> bool:
    """Whether a catalog is one of this store, or is not there."""
    try:
        _check_place(place)
        _check_unsuspected(place)
        with Catalog.open(place, read_only=True, store=ident) as catalog:
            return not catalog.check()
    except NotFound:
        return not os.path.lexists(place)
    except VolfsError:
        return False
