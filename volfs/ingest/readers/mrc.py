"""MRC2014 and CCP4 maps (``.mrc``, ``.rec``, ``.map`` and what else tomography calls them), also in gzip and bzip2.

https://www.ccpem.ac.uk/mrc_format/mrc2014.php. Columns, rows and sections are the axes that MAPC, MAPR and MAPS say;
voxel sizes are the cell divided by its grid, in ångström. The first voxel lies at ORIGIN or, where that is zero, NSTART
steps from it. Both, the grid of the cell (MX MY MZ), its angles, the space group and the labels are facts of the image,
in the order x, y, z.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.readers.packed_voxels import PackedVoxels, Packing, packing_of_file, unpacked_start
from volfs.ingest.readers.raw import FileSource, RawVoxels, Voxels
from volfs.ingest.source import Description, Source, unreadable
from volfs.model.ngff import axis

_SIZE = 1024
_HEADER = np.dtype(
    {
        "names": [
            *("n", "mode", "nstart", "grid", "cell", "angles", "map", "dmin", "dmax", "dmean"),
            *("group", "extended", "imod", "flags", "origin", "rms"),
        ],
        "formats": [
            *("3i4", "i4", "3i4", "3i4", "3f4", "3f4", "3i4", "f4", "f4", "f4"),
            *("i4", "i4", "i4", "i4", "3f4", "f4"),
        ],
        "offsets": [0, 12, 16, 28, 40, 52, 64, 76, 80, 84, 88, 92, 152, 156, 196, 216],
        "itemsize": _SIZE,
    }
)
_MODES = {0: "i1", 1: "i2", 2: "f4", 4: "c8", 6: "u2", 12: "f2"}
_IMOD = 1146047817


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
    facts = _facts(header, raw, letters)
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
        facts=facts,
        translation=_translation(facts, names, scale, [a.unit for a in axes]),
        lost=_lost(header, raw),
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


def _facts(header: Any, raw: bytes, letters: list[str]) -> dict[str, Any]:
    """Of x, y, z; the file counts columns, rows and sections where it says NSTART."""
    starts = dict(zip(letters, (int(n) for n in header["nstart"]), strict=True))
    sizes = dict(zip(letters, (int(n) for n in header["n"]), strict=True))
    grid = [int(n) for n in header["grid"]]
    facts: dict[str, Any] = {
        "format": "mrc",
        "space_group": int(header["group"]),
        "nstart": [starts[name] for name in "xyz"],
        "origin": [float(n) if math.isfinite(n) else 0.0 for n in header["origin"]],
        "cell_angles": [float(n) if math.isfinite(n) else 0.0 for n in header["angles"]],
    }
    if grid != [sizes[name] for name in "xyz"]:
        facts["grid"] = grid
    if letters != ["x", "y", "z"]:
        facts["axis_order"] = letters
    statistics = {name: float(header[name]) for name in ("dmin", "dmax", "dmean", "rms")}
    if statistics["dmin"] <= statistics["dmax"] and all(map(math.isfinite, statistics.values())):
        facts["statistics"] = statistics
    labels = [raw[at : at + 80].decode("latin1").strip("\0 ") for at in range(224, _SIZE, 80)]
    if any(labels):
        facts["labels"] = [label for label in labels if label]
    if int(header["extended"]) > 0:
        facts["extended_header"] = {"type": _extended_type(raw), "bytes": int(header["extended"])}
    return facts


def _translation(
    facts: dict[str, Any], names: list[str], scale: list[float], units: list[str | None]
) -> tuple[float, ...] | None:
    """Where the first voxel lies, in ångström; None where voxel sizes are not known, or nothing is said."""
    sizes = dict(zip(names, zip(scale, units, strict=True), strict=True))
    at = dict(zip("xyz", facts["origin"], strict=True))
    if not any(at.values()):
        starts = dict(zip("xyz", facts["nstart"], strict=True))
        at = {name: starts[name] * sizes[name][0] if name in sizes else 0.0 for name in starts}
    shift = tuple(at.get(name, 0.0) if sizes[name][1] else 0.0 for name in names)
    return shift if any(shift) else None


def _extended_type(raw: bytes) -> str:
    return raw[104:108].decode("latin1").strip("\0 ")


def _lost(header: Any, raw: bytes) -> tuple[str, ...]:
    size = int(header["extended"])
    kind = _extended_type(raw)
    return (f"the extended header of {size} bytes{f' ({kind})' if kind else ''}",) if size > 0 else ()
