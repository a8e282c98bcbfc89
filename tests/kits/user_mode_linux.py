"""User-Mode Linux: a Linux kernel that runs as a process, for the clients and servers that only a kernel has.

Decided here: how a guest is started, what it sees of this machine (all files, read-only), where its memory lies, and
whether it runs here at all. Debian's ``user-mode-linux`` is for x86-64, and its 6.1 knows no processor whose registers
need more than 2,696 bytes (those with AMX): the first program of the guest dies there. Not here: what a guest does.
"""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path

KERNEL = "linux.uml"
_MEMORY = Path("/dev/shm")


def command(folder: Path, *arguments: str, megabytes: int) -> list[str]:
    """The command line of a guest with so much memory; its console is standard output.

    ``folder`` is where it may put what it needs while it runs; ``arguments`` are of the kernel: which program is
    ``init=``, and after ``--`` what that is given.
    """
    return [
        # The file that is its memory is deleted once it is open, and lies best on no disk.
        *("env", f"TMPDIR={_MEMORY if os.access(_MEMORY, os.W_OK) else folder}"),
        *(KERNEL, f"mem={megabytes}M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"),
        *("con=null", "con0=null,fd:1", "ssl=null", f"uml_dir={folder}", *arguments),
    ]


def output(guest: list[str], seconds: int) -> str:
    """What a guest writes to its console until it ends by itself, or is killed after so many seconds."""
    done = subprocess.run(
        ["timeout", "-k", "2", str(seconds), *guest],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    return done.stdout


@functools.cache
def unusable() -> str:
    """Why a guest cannot run here, though the kernel is installed; "" if it can."""
    with tempfile.TemporaryDirectory() as folder:
        said = output(command(Path(folder), "init=/bin/true", megabytes=64), 120)
    if "ptrace set fp regs failed" in said:
        return "this User-Mode Linux does not know this processor's registers (AMX)"
    return ""
