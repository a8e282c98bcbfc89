"""Packages that only some programs need: what is said where one is missing.

Decided here: the extra of volfs that brings the libraries of Python's array programs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from volfs.errors import Unsupported


@contextmanager
def needed(package: str) -> Iterator[None]:
    """Around the import of an optional package: Unsupported, saying how to install it, where it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in (package, "fsspec"):
            raise Unsupported(f"this needs the package {error.name}: pip install 'volfs[arrays]'") from None
        raise
