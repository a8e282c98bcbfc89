"""Load kernel modules with what they need, as modprobe would, in a guest that has none: ``python load.py NAME…``."""

import ctypes
import errno
import os
import sys
from pathlib import Path

_FINIT_MODULE = 313  # on x86-64

folder = Path("/usr/lib/uml/modules") / os.uname().release
needs = dict(line.split(":", 1) for line in (folder / "modules.dep").read_text().splitlines())
paths = {Path(path).stem.replace("-", "_"): path for path in needs}
libc = ctypes.CDLL(None, use_errno=True)
for name in sys.argv[1:]:
    if (wanted := paths.get(name)) is None:
        continue  # built in
    for path in [*reversed(needs[wanted].split()), wanted]:
        with (folder / path).open("rb") as module:
            if libc.syscall(_FINIT_MODULE, module.fileno(), b"", 0) and ctypes.get_errno() != errno.EEXIST:
                print("module", path, os.strerror(ctypes.get_errno()), flush=True)
