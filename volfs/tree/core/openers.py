"""The processes of this machine that have a file of a mount open, found in the process table as ``lsof`` does.

A FUSE filesystem learns of every close of a descriptor, and only afterwards whether it was the last: the child of a
shell that ends closes the file that the shell goes on writing to. Descriptors that cannot be seen (other users'
processes, other machines) count as closed. Another mount may have a file of the same path and number, so the filesystem
is compared too; another program may have opened the same file, so the position is, which all descriptors of one open
file share.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from volfs.storage.mount_table import mounted_at


def is_open(mountpoint: str | None, ino: int, name: str, position: int) -> bool:
    """True if any process has a file of the filesystem at ``mountpoint`` open that has this inode and name, at this
    position (bytes). Blocks for some ms. No filesystem is asked for anything: it may be this one."""
    mount = mounted_at(Path(mountpoint)) if mountpoint is not None else None
    if mount is None:
        return False
    return any(_facts(process, fd) == (mount.device, ino, position) for process, fd in _descriptors(f"/{name}"))


def _descriptors(ending: str) -> Iterator[tuple[str, str]]:
    """(process, descriptor) of every open file whose path ends so."""
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        with suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{fd}").endswith(ending):
                        yield f"/proc/{pid}", fd


def _facts(process: str, fd: str) -> tuple[str, int, int] | None:
    """Device, inode and position of an open file, from the kernel's tables; None once it is closed."""
    with suppress(OSError, KeyError, ValueError):
        lines = Path(process, "fdinfo", fd).read_text().splitlines()
        facts = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        for line in Path(process, "mountinfo").read_text(errors="surrogateescape").splitlines():
            fields = line.split(" ", 3)
            if fields[0] == facts["mnt_id"]:
                return fields[2], int(facts["ino"]), int(facts["pos"])
    return None
