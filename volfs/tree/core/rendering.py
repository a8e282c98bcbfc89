"""A rendered document in one state. When it is out of date is decided in :mod:`volfs.tree.files.document`."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from volfs.errors import VolfsError


@dataclass(frozen=True, slots=True)
class Rendering:
    """The bytes of a document in one state, or the error that kept them from being made. ``made`` is on the monotonic
    clock."""

    stamp: Hashable
    data: bytes
    mtime: int
    made: float
    error: VolfsError | None = None
