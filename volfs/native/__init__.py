"""Memory, descriptors and bytes, in C: no names, no versions, no SQL, no policy.

``core``  the C code; README.md in this directory says what each of its files decides

With ``VOLFS_NATIVE=0`` in the environment :data:`core` is None, and Python does all of it: it is what tests compare C
with, and what runs where no compiler was at hand when volfs was installed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from typing import Any

core: Any = None

if os.environ.get("VOLFS_NATIVE") != "0":
    with suppress(ImportError):
        core = import_module("volfs.native.core")

__all__ = ["core"]
