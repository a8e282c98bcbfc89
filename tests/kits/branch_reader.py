"""A reader of a branch that notices when a key goes back in time, in this process or in another one."""

from __future__ import annotations

import random
import time

import numpy as np

from tests.kits.stores import array_at
from volfs.errors import NotFound
from volfs.model.box import Box
from volfs.versions.branch import Branch

CHUNKS = 4


def read_for_a_while(branch: Branch, seconds: float) -> str:
    """Empty, or what went back in time."""
    array = array_at(branch, "a")
    seen = dict.fromkeys(range(CHUNKS), 0)
    newest = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        chunk = random.randrange(CHUNKS)
        before = array.newest_in(Box((0,), (CHUNKS,)))
        try:
            value = int(np.frombuffer(array.payloads(Box((chunk,), (chunk + 1,)))[chunk,].read(), "<u8")[0])
        except NotFound:
            continue  # it was replaced just now: to be looked up again
        raw = int.from_bytes(branch.read(f"zarr/a/c/{chunk}")[:8], "little")
        if not seen[chunk] <= value <= raw:
            return f"chunk {chunk}: {seen[chunk]}, then {value}, then {raw}"
        if before < newest:
            return f"the newest change was at {newest}, then at {before}"
        seen[chunk], newest = raw, before
    return ""
