"""Metadata of Zarr v2 as other programs write it, put so that zarr-python takes it.

A type is any string that NumPy takes for one (Zarr v2, "Data type encoding": byte order, a letter, a number of bytes):
``<u1`` and ``>i1`` of NCZarr and Java programs, where bytes have no order, ``=f4``, ``uint16``. Only ``dtype`` of
``.zarray`` is put otherwise; chunks are what they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore


def store_of(path: Path) -> LocalStore:
    """A hierarchy in a directory, to be read."""
    return _Dialects(path, read_only=True)


class _Dialects(LocalStore):
    async def get(self, key: str, prototype: BufferPrototype | None = None, byte_range: Any = None) -> Buffer | None:
        found = await super().get(key, prototype, byte_range)
        if found is None or byte_range is not None or key.rpartition("/")[2] not in (".zarray", ".zmetadata"):
            return found
        usual = _usual(found.to_bytes())
        return found if usual is None else type(found).from_bytes(usual)


def _usual(raw: bytes) -> bytes | None:
    """A document with its types in the usual form; None if they are, or it is not one."""
    try:
        document = json.loads(raw)
        arrays = [document, *document.get("metadata", {}).values()]
        changed = False
        for one in arrays:
            dtype = one.get("dtype") if isinstance(one, dict) else None
            if isinstance(dtype, str) and (name := _usual_dtype(dtype)) != dtype:
                one["dtype"], changed = name, True
    except (ValueError, AttributeError):
        return None
    return json.dumps(document).encode() if changed else None


def _usual_dtype(text: str) -> str:
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError):
        return text
    return dtype.str if dtype.kind in "biufc" else text
