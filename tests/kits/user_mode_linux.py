"""User-Mode Linux: a Linux kernel that runs as a process, for the clients and servers that only a kernel has.

Decided here: whether it runs on this machine. Debian's ``user-mode-linux`` is for x86-64, and its 6.1 knows no
processor whose registers need more than 2,696 bytes (those with AMX): the first program of the guest dies there.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile

KERNEL = "linux.uml"


@functools.cache
def unusable() -> str:
    """Why a guest cannot run here, though the kernel is installed; "" if it can."""
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(
            [
                *("timeout", "-k", "2", "120", KERNEL, "mem=64M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/"),
                *("ro", "con=null", "con0=null,fd:1", "ssl=null", f"uml_dir={folder}", "init=/bin/true"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    if "ptrace set fp regs failed" in tried.stdout:
        return "this User-Mode Linux does not know this processor's registers (AMX)"
    return ""
