"""The front of a mount: C that answers reads of what it was lent, before Python sees them.

Decided here: when a mount has one, and that it goes on without where that does not work. Not here: which requests the
front answers (``volfs/native/front.h``), how it comes to see them (``volfs/native/session.h``), and what it is lent
(:mod:`volfs.tree.core.lender`).

Import this before pyfuse3: C stands before libfuse in symbol lookup, and what pyfuse3 has found once it keeps.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from typing import Any

import trio

from volfs.native import core
from volfs.storage.payload_maker import load_encoders

log = logging.getLogger(__name__)

if core is not None:
    # What C is linked with is then before all others, too. Codecs that are loaded before keep to their own.
    load_encoders()
    ctypes.CDLL(core.__file__, ctypes.RTLD_GLOBAL)


def make_front(directory_bits: int) -> Any | None:
    """A front for a mount; None where volfs was installed without C, or is told to do without (``VOLFS_NATIVE=0``).

    ``directory_bits``: the inodes of files of one directory differ in so many low bits.
    """
    return None if core is None else core.Front(directory_bits)


def stand_before(front: Any | None) -> None:
    """Have the FUSE session that is about to begin go by the front."""
    if front is not None:
        front.begin()


def check(front: Any | None) -> None:
    """Write to the log if the session that has begun does not go by the front."""
    if front is not None and not front.fronted():
        log.warning("reads are answered by Python alone: this libfuse or pyfuse3 does not let C stand before it")


async def pass_notes(
    front: Any | None, passed: Callable[[int, int], None], catch_up: Callable[[], None] = lambda: None
) -> None:
    """Call ``passed`` with (stack, plane) of planes that the front read, and ``catch_up`` when many files that it
    released are to be closed, for as long as the mount serves."""
    if front is None:
        return
    while True:
        await trio.lowlevel.wait_readable(front.notes_fd)
        catch_up()
        for stack, plane in front.notes():
            try:
                passed(stack, plane)
            except Exception:
                log.exception("a read that the front answered could not be taken note of")
