"""A daemon that is killed while it has the kernel forget a name, in a directory in which a program just makes one.

Run as ``python killed_daemon.py volfs.fuse.daemon ARGUMENTS``, it is a daemon in all but that: where a directory called
``trap`` is made, it dies at the worst moment. The kernel then holds its thread until the connection is gone.
"""

from __future__ import annotations

import os
import signal
import sys

import pyfuse3
import trio

from volfs.fuse.adapter import Adapter
from volfs.fuse.daemon import main

_mkdir = Adapter.mkdir


async def mkdir(self: Adapter, parent: pyfuse3.InodeT, name: pyfuse3.FileNameT, *rest: object) -> object:
    if name == b"trap":
        pyfuse3.invalidate_entry_async(parent, b"other")
        await trio.sleep(1)  # it waits for the directory's lock, which is the client's
        os.kill(os.getpid(), signal.SIGKILL)
    return await _mkdir(self, parent, name, *rest)  # type: ignore[arg-type]


if __name__ == "__main__":
    Adapter.mkdir = mkdir  # type: ignore[method-assign,assignment]
    os._exit(main(sys.argv[2:]))
