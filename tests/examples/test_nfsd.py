"""``mount_examples/nfs-kernel``: the kernel's own NFS server exports a mount, by the lines as they stand.

The kernel is User-Mode Linux, which runs as a process, with the kernel's clients of NFS v3 and v4 in it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import warnings
from typing import NoReturn

import pytest

from tests.kits.cells import make_store
from tests.kits.examples import open_directory, volfs_program
from tests.kits.paths import EXAMPLES, ROOT
from tests.kits.user_mode_linux import KERNEL, command, output, unusable

_KITS = ROOT / "tests" / "kits"


def not_tested(reason: str) -> NoReturn:
    warnings.warn(f"the kernel's NFS server NOT TESTED: {reason}", stacklevel=2)
    pytest.skip(f"the kernel's NFS server is not tested: {reason}")


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the guest says of its tries."""
    for program in (KERNEL, "exportfs", "rpcbind"):
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
            not_tested(f"{program} is not there (x86-64 only; make test installs it)")
    if os.geteuid() != 0:
        not_tested("the guest's files belong to whoever runs it, and its daemons want root")
    if why := unusable():
        not_tested(why)
    with open_directory() as folder:
        make_store(folder / "store")
        volfs_program(folder)
        shutil.copy(_KITS / "nfsd_guest.sh", folder / "init")
        shutil.copy(_KITS / "nfsd_guest_modules.py", folder / "load.py")
        shutil.copy(EXAMPLES / "nfs-kernel" / "exports", folder / "exports")
        init = ("init=/bin/bash", "--", f"{folder}/init", str(folder), sys.executable)
        console = output(command(folder / "uml", *init, megabytes=600), 200)
    lines = re.findall(r"SAID (.*?)\r?$", console, re.MULTILINE)
    print(console)  # which pytest shows when a test fails
    assert lines and lines[-1] == "done", console[-4000:]
    return lines


def test_version_3_and_4_show_the_bytes_of_the_mount(said: list[str]) -> None:
    assert {"mounted v3", "mounted v4", "mounted desk", "same v3", "same v4", "latest v2"} <= set(said)
    (files,) = [int(line.removeprefix("files ")) for line in said if line.startswith("files ")]
    assert files > 100, "slices and volumes of one level"


def test_users_write_as_themselves_and_others_are_refused(said: list[str]) -> None:
    assert {"here by-v4", "here by-v3", "root refused", "desktop refused"} <= set(said)


def test_handles_outlive_the_inodes_that_the_kernel_remembers(said: list[str]) -> None:
    assert {"again by-v4 by-v3", "same again"} <= set(said)
