"""Voxels whose header is text in another file, or in front of them: what NRRD and MetaImage have in common.

Both name one data file, a list of them, or a pattern with numbers (``slice%03d.raw 1 100 1``). Each of several files
holds an equal part of the slowest axes, a slice or several, and is encoded by itself.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.ingest.readers.packed_voxels import PackedVoxels, Packing
from volfs.ingest.readers.raw import RawVoxels, StackedVoxels, Voxels
from volfs.ingest.source import check_plain, unreadable
from volfs.model.box import Index

_PATTERN = re.compile(r"%0?[0-9]*[du]")
_MOST_FILES = 1_000_000
_LONGEST_HEADER = 64 << 20
_LONGEST_LINE = 1 << 20


def header_lines(path: Path, last: str = "") -> tuple[list[str], int]:
    """The lines of a header, and the byte behind it. It ends with an empty line, or with the one that starts with
    ``last``, or with the file."""
    lines: list[str] = []
    try:
        with path.open("rb") as file:
            while raw := file.readline(_LONGEST_HEADER + 1):
                if file.tell() > _LONGEST_HEADER:
                    raise unreadable(path, "its header has no end")
                line = raw.decode("utf-8", "replace").rstrip()
                if not line and not last:
                    break
                lines.append(line)
                if last and line.split("=")[0].strip() == last:
                    break
            return lines, file.tell()
    except OSError as error:
        raise unreadable(path, error.strerror) from error


def numbered(path: Path, words: Sequence[str]) -> list[Path]:
    """The files that ``slice%03d.raw 1 100 1`` stands for, beside the header at ``path``."""
    try:
        first, last, step = (int(word) for word in words[1:4])
        count = (last - first) // step + 1
        if not 1 <= count <= _MOST_FILES or len(_PATTERN.findall(words[0])) != 1 or words[0].count("%") != 1:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise BadInput(f"{path}: {' '.join(words)!r} is not a pattern of data files") from None
    return [beside(path, words[0] % number) for number in range(first, last + (1 if step > 0 else -1), step)]


def beside(path: Path, name: str) -> Path:
    """The data file that a header names. BadInput if it is not there."""
    found = Path(os.path.normpath(path.parent / name))
    check_plain(found)
    if not found.is_file():
        raise BadInput(f"{path} keeps its voxels in {found}, which is not there")
    return found


def is_pattern(text: str) -> bool:
    return _PATTERN.search(text) is not None


def voxels_of(
    files: Sequence[Path],
    packing: Packing | None,
    dtype: np.dtype[Any],
    shape: Index,
    offset: int,
    start: int = 0,
    lines: int = 0,
) -> Voxels:
    """The voxels in one file, or in equal parts in several. In each, ``start`` is where the data are, ``lines`` how
    many lines of that come before, ``offset`` how many bytes of them, once unpacked, come before the voxels; -1: the
    voxels are the last bytes."""

    def part(path: Path, shape: Index) -> Voxels:
        begin = _past_lines(path, start, lines)
        if packing is not None:
            if packing in ("text", "hex"):  # where bytes are skipped before they are decoded
                return PackedVoxels(path, packing, dtype, shape, 0, begin + max(0, offset))
            return PackedVoxels(path, packing, dtype, shape, max(0, offset), begin)
        if offset < 0:
            return RawVoxels(path, dtype, shape, max(0, path.stat().st_size - math.prod(shape) * dtype.itemsize))
        return RawVoxels(path, dtype, shape, begin + offset)

    if len(files) == 1:
        return part(files[0], shape)
    return StackedVoxels(files, dtype, shape, part, whole=packing is not None)


def _past_lines(path: Path, start: int, lines: int) -> int:
    """The byte behind so many lines."""
    if not lines:
        return start
    with path.open("rb") as file:
        file.seek(start)
        for _ in range(lines):
            file.readline(_LONGEST_LINE)
        return file.tell()
