"""The two ways on which bytes come out of a mount: by C where volfs was installed with it, and by Python alone.

    @pytest.fixture(scope="module", params=native_paths.THERE)
    def path(request):
        with native_paths.taken(request.param):
            yield ...                       # whatever is mounted here takes it

Python is the oracle: what holds of it must hold of C. Without C there is but one way, and nothing is tried twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from volfs import native

THERE = ("Python",) if native.core is None else ("C", "Python")


@contextmanager
def taken(path: str) -> Iterator[None]:
    """Daemons that are started in the block take this way."""
    before = os.environ.get("VOLFS_NATIVE")
    os.environ["VOLFS_NATIVE"] = "1" if path == "C" else "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["VOLFS_NATIVE"]
        else:
            os.environ["VOLFS_NATIVE"] = before
