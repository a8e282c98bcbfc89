"""Run the suites one after the other in a store of their own, print a line for each, end with status 1 if any failed.

What each is asked, and what of POSIX a branch does not do, is in ``docs/conformance.md``. fsx is not packaged: the same
exercise, operations on one file compared with memory, is in :mod:`tests.suites.exerciser`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.kits.cells import make_store
from volfs.testing.kit import mounted

FIO = """
[global]
directory={place}
size=8m
verify=crc32c
verify_fatal=1
end_fsync=1
[buffered]
rw=randwrite
bsrange=512-64k
[mapped]
ioengine=mmap
rw=randwrite
bs=4k
[appended]
rw=write
bs=7k
"""

#: Stressors of stress-ng that work on names and files in one directory, and check what they did.
# fmt: off
STRESSORS = (
    "chdir", "chmod", "copy-file", "dentry", "dir", "dirdeep", "fallocate", "fcntl", "filename", "flock",
    "fstat", "fsize", "hdd", "iomix", "link", "lockf", "mmap", "rename", "revio", "seek", "sendfile",
    "symlink", "sync-file", "touch", "utime",
)
# fmt: on


def commands(place: Path, tool: Path) -> dict[str, list[str]]:
    """What is run, by name."""
    (tool / "jobs.fio").write_text(FIO.format(place=place))
    stress = ["stress-ng", "--temp-path", str(place), "--verify", "--quiet", "--timeout", "3"]
    return {
        "exerciser, 100,000 operations": [sys.executable, "-m", "tests.suites.exerciser", str(place / "x"), "100000"],
        "fio, verified": ["fio", "--aux-path", str(tool), "--output", str(tool / "fio.log"), str(tool / "jobs.fio")],
        "dbench, 4 clients": ["dbench", "-D", str(place), "-t", "20", "4"],
        **{f"stress-ng {one}": [*stress, f"--{one}", "2"] for one in STRESSORS},
    }


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory(prefix="volfs-suites-") as folder:
        root = Path(folder)
        with mounted(make_store(root / "store"), root / "mnt", expect=".") as top:
            place = top / "cells" / "branches" / "exp" / "files"
            for name, command in commands(place, root).items():
                began = time.monotonic()
                done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=Path.cwd())
                bad = done.returncode != 0
                failed += bad
                print(f"{'FAIL' if bad else 'ok':4}  {time.monotonic() - began:6.1f} s  {name}", flush=True)
                if bad:
                    print((done.stdout + done.stderr)[-2000:], flush=True)
    print(f"{failed} failed" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
