"""What ilastik says of its exports in attributes, whatever container they are in: HDF5, N5 or Zarr.

``display_mode`` is ``random-colortable`` for labels and object identities, ``binary-mask`` for masks
(lazyflow, ``DatasetInfo``); other modes are of intensities and probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LABELS = ("random-colortable", "binary-mask")


def is_segmentation(attributes: Mapping[str, Any]) -> bool:
    """Whether an export is of labels."""
    mode = attributes.get("display_mode")
    return (mode.decode("latin1") if isinstance(mode, bytes) else str(mode)) in _LABELS
