"""Whether a file of a mount is open in some process of this machine.

Decided here: how that is found out, from the process table, as ``lsof`` does. A FUSE filesystem is told of every close
of a descriptor, not which is the last before it has returned: the child of a shell that ends closes what the shell goes
on writing to. What cannot be seen (other users' processes, other machines) counts as closed.
"""

from __future__ import annotations

import os
from contextlib import suppress


def is_open(ending: str) -> bool:
    """Whether any process has a file open whose path ends so. Blocks for some ms."""
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        with suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{fd}").endswith(ending):
                        return True
    return False
