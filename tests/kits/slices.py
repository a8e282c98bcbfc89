"""A slice of the small store, as a picture."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from tests.kits.cells import CELLS

MAIN = "cells/branches/main"
XY = f"{MAIN}/s0/xy"
PLANE = np.random.default_rng(3).integers(0, 256, CELLS[0].shape, "u1")


def png(voxels: np.ndarray, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(voxels).save(out, "PNG", **options)
    return out.getvalue()


def picture(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))
