"""Whether a file of a mount is open in some process of this machine.

Decided here: how that is found out, from the process table, as ``lsof`` does. A FUSE filesystem is told of every close
of a descriptor, not which is the last before it has returned: the child of a shell that ends closes what the shell goes
on writing to. What cannot be seen (other users' processes, other machines) counts as closed. Another mount may have a
file of the same path and number: so the filesystem counts too. Somebody else may have opened the same file: so does the
position, which is one for all descriptors of one open file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from volfs.storage.mount_table import mounted_at


def is_open(mountpoint: str | None, ino: int, name: str, position: int) -> bool:
    """Whether any process has a file of the filesystem at ``mountpoint`` open that has this number and name, at this
    position. Blocks for some ms. No filesystem is asked for anything: it may be this one."""
    mount = mounted_at(Path(mountpoint)) if mountpoint is not None else None
    if mount is None:
        return False
    return any(_facts(process, fd) == (mount.device, ino, position) for process, fd in _descriptors(f"/{name}"))


def _descriptors(ending: str) -> Iterator[tuple[str, str]]:
    """(process, descriptor) of whatever is open under a path that ends so."""
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        with suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{fd}").endswith(ending):
                        yield f"/proc/{pid}", fd


def _facts(process: str, fd: str) -> tuple[str, int, int] | None:
    """Device and number of what is open, and the position, as the kernel tells them; None once it is closed."""
    with suppress(OSError, KeyError, ValueError):
        lines = Path(process, "fdinfo", fd).read_text().splitlines()
        told = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        for line in Path(process, "mountinfo").read_text(errors="surrogateescape").splitlines():
            fields = line.split(" ", 3)
            if fields[0] == told["mnt_id"]:
                return fields[2], int(told["ino"]), int(told["pos"])
    return None
