"""The pixels of one DICOM frame, through pydicom's decoders.

What those leave to packages that most people do not have (JPEG lossless, JPEG-LS, JPEG of 12 bits), imagecodecs
decodes: this module is a plugin of pydicom (its guide "Decoder plugins" names the functions), asked after all others.
"""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any

import numpy as np

_BY_SYNTAX = {
    "1.2.840.10008.1.2.4.51": "jpeg8_decode",
    "1.2.840.10008.1.2.4.57": "jpegsof3_decode",
    "1.2.840.10008.1.2.4.70": "jpegsof3_decode",
    "1.2.840.10008.1.2.4.80": "jpegls_decode",
    "1.2.840.10008.1.2.4.81": "jpegls_decode",
}

_PLAIN = {
    (True, True): "1.2.840.10008.1.2",
    (False, True): "1.2.840.10008.1.2.1",
    (False, False): "1.2.840.10008.1.2.2",
}
"""Transfer syntaxes by whether types are implicit, and bytes little-endian."""

DECODER_DEPENDENCIES = dict.fromkeys(_BY_SYNTAX, ("numpy", "imagecodecs"))

_LABEL = "volfs"
_lock = threading.Lock()
_done: set[str] = set()


def decoded(path: Path, index: int, syntax: str) -> np.ndarray:
    """Frame ``index`` of a file: (rows, columns), or with the samples of RGB last. Bits that are not stored are made
    what the sign says."""
    from pydicom.pixels.utils import pixel_array

    _register(syntax)
    if not syntax:  # files without a preamble may not say; pydicom guessed it from the first elements
        found = _read(path)
        found.file_meta.TransferSyntaxUID = _PLAIN[found.original_encoding]
        return np.asarray(pixel_array(found, index=index))
    try:
        return np.asarray(pixel_array(path, index=index))
    except Exception:
        # Frames of deflated files, and of files that are not quite by the book, pydicom finds only in what it has read.
        return np.asarray(pixel_array(_read(path), index=index))


def _read(path: Path) -> Any:
    import pydicom

    return pydicom.dcmread(path, force=True)


def _register(syntax: str) -> None:
    """Add this plugin to pydicom's decoder of a transfer syntax, once."""
    from pydicom.pixels.decoders.base import get_decoder

    with _lock:
        if syntax in _BY_SYNTAX and syntax not in _done:
            get_decoder(syntax).add_plugin(_LABEL, (__name__, "decode"))
        _done.add(syntax)


def is_available(syntax: str) -> bool:
    """Asked by pydicom."""
    return syntax in _BY_SYNTAX and importlib.util.find_spec("imagecodecs") is not None


def decode(data: bytes, runner: Any) -> bytes:
    """Called by pydicom: one frame's bytes, and what it knows of them."""
    import imagecodecs

    if not data.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise ValueError("the frame is cut off")  # of which not all decoders say a word
    voxels: np.ndarray = getattr(imagecodecs, _BY_SYNTAX[str(runner.transfer_syntax)])(data)
    runner.set_option("bits_allocated", voxels.dtype.itemsize * 8)
    runner.set_option("planar_configuration", 0)
    return np.ascontiguousarray(voxels, voxels.dtype.newbyteorder("<")).tobytes()
