"""MRC2014 and CCP4 maps (``.mrc``, ``.rec``, ``.map`` and what else tomography calls them), also in gzip and bzip2.

https://www.ccpem.ac.uk/mrc_format/mrc2014.php. Columns, rows and sections are the axes that MAPC, MAPR and MAPS say;
voxel sizes are the cell divided by its grid, in ångström. Where they begin (ORIGIN, NSTART) is kept as a fact.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.readers.packed import PackedVoxels, Packing, packing_of_file, unpacked_start
from volfs.ingest.readers.raw import FileSource, RawVoxels, Voxels
from volfs.ingest.source import Description, Source, unreadable
from volfs.model.ngff import axis

ENDINGS = (".mrc", ".mrcs", ".rec", ".map", ".ccp4", ".st", ".ali")

_SIZE = 1024
_MARK = 208
_HEADER = np.dtype(
    {
        "names": [
            *("n", "mode", "nstart", "grid", "cell", "angles", "map", "group", "extended", "imod", "flags", "origin")
        ],
        "formats": ["3i4", "i4", "3i4", "3i4", "3f4", "3f4", "3i4", "i4", "i4", "i4", "i4", "3f4"],
        "offsets": [0, 12, 16, 28, 40, 52, 64, 88, 92, 152, 156, 196],
        "itemsize": _SIZE,
    }
)
_MODES = {0: "i1", 1: "i2", 2: "f4", 4: "c8", 6: "u2", 12: "f2"}
_IMOD = 1146047817


def is_mrc(start: bytes) -> bool:
    """Whether a file that starts so says that it is one. (Old ones do not.)"""
    return start[_MARK : _MARK + 4] in (b"MAP ", b"MAP\0")


def open_mrc(path: Path) -> Source:
    """Open a map; BadInput if it is not one, or its data are cut short."""
    packing = packing_of_file(path)
    raw = _start(path, packing)
    header, order = _header(path, raw)
    mode = int(header["mode"])
    if mode not in _MODES:
        raise BadInput(f"{path} holds voxels of mode {mode}: modes {', '.join(map(str, _MODES))} are imported")
    dtype = np.dtype(_MODES[mode]).newbyteorder(order)
    if mode == 0 and int(header["imod"]) == _IMOD and not int(header["flags"]) & 1:
        dtype = np.dtype("u1")  # IMOD's own mark for bytes as they were before MRC2014
    offset = _SIZE + max(0, int(header["extended"]))
    columns, rows, sections = (int(n) for n in header["n"])
    letters = _letters(path, header)
    grid, cell = dict(zip("xyz", header["grid"], strict=True)), dict(zip("xyz", header["cell"], strict=True))
    shape: tuple[int, ...] = (sections, rows, columns)
    names = letters[::-1]
    if 401 <= int(header["group"]) <= 630:  # a stack of volumes
        depth = int(header["grid"][2])
        if depth < 1 or sections % depth:
            raise unreadable(path, f"{sections} sections are not volumes of {depth}")
        shape, names = (sections // depth, depth, rows, columns), ["t", *names]
    elif sections == 1 and int(header["group"]) == 0:  # a picture
        shape, names = shape[1:], names[1:]
    scale, axes = [], []
    for name in names:
        size = float(cell[name]) / int(grid[name]) if name in grid and int(grid[name]) > 0 else 0.0
        known = math.isfinite(size) and size > 0
        scale.append(size if known else 1.0)
        axes.append(axis(name, "angstrom" if known else None))
    voxels: Voxels = (
        RawVoxels(path, dtype, shape, offset) if packing is None else PackedVoxels(path, packing, dtype, shape, offset)
    )
    stem = Path(path.stem).stem if path.suffix.lower() in (".gz", ".bz2") else path.stem
    description = Description(
        stem or path.name,
        shape,
        dtype.newbyteorder("="),
        tuple(axes),
        tuple(scale),
        voxels.grain,
        facts=_facts(header, raw),
    )
    return FileSource(description, voxels, [path])


def _start(path: Path, packing: Packing | None) -> bytes:
    found = unpacked_start(path, packing, _SIZE)
    if len(found) < _SIZE:
        raise unreadable(path, f"it has {len(found)} bytes, a header alone has {_SIZE}")
    return found


def _header(path: Path, raw: bytes) -> tuple[Any, Literal["<", ">"]]:
    """The header and its byte order: the machine stamp's, else the one that makes sense (old programs wrote none)."""
    little, big = np.frombuffer(raw, _HEADER.newbyteorder("<"))[0], np.frombuffer(raw, _HEADER.newbyteorder(">"))[0]
    stamp = raw[212:214]
    if stamp[:1] == b"\x44" and _sensible(little):
        return little, "<"
    if stamp == b"\x11\x11" and _sensible(big):
        return big, ">"
    if _sensible(little):
        return little, "<"
    if _sensible(big):
        return big, ">"
    raise unreadable(path, "it does not start as an MRC file does")


def _sensible(header: Any) -> bool:
    return all(0 < int(n) < 1 << 30 for n in header["n"]) and 0 <= int(header["mode"]) <= 101


def _letters(path: Path, header: Any) -> list[str]:
    """What columns, rows and sections are."""
    found = [int(n) for n in header["map"]]
    if found == [0, 0, 0]:
        found = [1, 2, 3]
    if sorted(found) != [1, 2, 3]:
        raise unreadable(path, f"its columns, rows and sections are axes {found}")
    return ["xyz"[n - 1] for n in found]


def _facts(header: Any, raw: bytes) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "format": "mrc",
        "space_group": int(header["group"]),
        "nstart": [int(n) for n in header["nstart"]],
        "origin": [float(n) for n in header["origin"] if math.isfinite(n)],
        "cell_angles": [float(n) for n in header["angles"] if math.isfinite(n)],
    }
    if int(header["extended"]) > 0:
        facts["extended_header"] = {
            "type": raw[104:108].decode("latin1").strip("\0 "),
            "bytes": int(header["extended"]),
        }
    labels = [raw[at : at + 80].decode("latin1").strip("\0 ") for at in range(224, _SIZE, 80)]
    if any(labels):
        facts["labels"] = [label for label in labels if label]
    return facts
