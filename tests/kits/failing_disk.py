"""A disk on which reading fails as long as a file says so: a directory, shown again by a filesystem of its own.

    python -m tests.kits.failing_disk DIRECTORY MOUNTPOINT

While there is a file named ``DIRECTORY.fails``, every read is an I/O error.
"""

from __future__ import annotations

import errno
import os
import sys

import pyfuse3

from tests.benchmarks.loopback_fs import Loopback
from tests.benchmarks.null_fs import serve


class Failing(Loopback):
    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._mark = f"{root}.fails"

    def _fails(self) -> bool:
        return os.path.exists(self._mark)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        if self._fails():
            raise pyfuse3.FUSEError(errno.EIO)
        return await super().read(fh, off, size)


if __name__ == "__main__":
    serve(Failing(sys.argv[1]), sys.argv[2], "failing")
