"""What an import reads from: a description, boxes of voxels, and a fingerprint of the files behind them.

Decided here: what every reader promises. Not here: file formats (:mod:`volfs.ingest.readers`) and what an import makes
of a source (:mod:`volfs.ingest.importer`).
"""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.model.box import Box, Index
from volfs.model.facts import Rescale
from volfs.model.ngff import Axis, axis

Fingerprint = Mapping[str, object]
"""Per file what must not change while it is read: size, time and inode."""

NAMES = "atczyx"
"""Axis names of arrays that do not name their axes: the last ones of these."""

_UNFIT = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True)
class Description:
    """What is in a source. All sequences are in the order of ``shape``.

    ``scale`` is the voxel size (1.0 where unknown), its units are those of ``axes``. ``grain`` is the smallest box
    that is read for the price of any part of it: a whole plane of a PNG, a chunk of a Zarr array. ``rgb`` says that
    the axis called c holds the samples of colour pictures. ``reorder`` allows axes to be put into the order of
    OME-NGFF, where the order in the files has no meaning to anybody.

    What else the source says is kept, and shown by every view that has a place for it (:mod:`volfs.model.facts`):
    ``facts`` under ``volfs.source`` of the image's attributes and as ``source`` of ``info.json``; ``rescale`` from
    stored to real values; ``is_label`` if the source itself says that it is a segmentation; ``ome`` further members of
    the image's ``ome`` attributes (``omero``, made by :func:`volfs.model.facts.omero`, and ``image-label`` with its
    colours); ``attributes`` those that stand beside ``ome``. ``lost`` names what could not be kept, a phrase each: an
    import says it in one line. ``remarks`` are lines about anything else that a user should know of.
    """

    name: str
    shape: Index
    dtype: np.dtype[Any]
    axes: tuple[Axis, ...]
    scale: tuple[float, ...]
    grain: Index
    rgb: bool = False
    reorder: bool = True
    fill_value: Any = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    ome: Mapping[str, Any] = field(default_factory=dict)
    translation: tuple[float, ...] | None = None
    rescale: Rescale | None = None
    is_label: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class Source(ABC):
    """An open source. ``read`` may be called from several threads at once."""

    description: Description

    @abstractmethod
    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box, in the axis order of the description, native byte order.

        BadInput, naming the file, for one that is damaged, cut short or not as it was when the source was opened.
        """

    def read_into(self, box: Box, out: np.ndarray) -> None:
        """Write the voxels of a box into ``out``, which has its shape and the type of the description, in any strides.
        Sources whose files hold voxels as they are in memory read there at once."""
        out[...] = self.read(box)

    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """How the files are now. Compared before and after an import with :func:`check_unchanged`."""

    def labels(self) -> Mapping[str, Source]:
        """The label images that lie with the image, by name; they are closed with it."""
        return {}

    def close(self) -> None:
        """Close what is open. Closing twice is fine."""
        return

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SourceView(Source):
    """Another source, shown in another way: with other axes, or other numbers."""

    def __init__(self, inner: Source, description: Description) -> None:
        self._inner = inner
        self.description = description

    def fingerprint(self) -> Fingerprint:
        return self._inner.fingerprint()

    def labels(self) -> Mapping[str, Source]:
        return self._inner.labels()

    def close(self) -> None:
        self._inner.close()


class ArraySource(Source):
    """An array in memory, or anything that slices like one."""

    def __init__(
        self,
        array: np.ndarray,
        name: str = "array",
        *,
        axes: Sequence[Axis] | None = None,
        scale: Sequence[float] | None = None,
        rgb: bool = False,
    ) -> None:
        self._array = array
        made = tuple(axes) if axes is not None else default_axes(array.ndim)
        self.description = Description(
            name,
            array.shape,
            array.dtype.newbyteorder("="),
            made,
            tuple(scale) if scale is not None else (1.0,) * array.ndim,
            (1,) * array.ndim,
            rgb=rgb,
            reorder=False,
        )

    def read(self, box: Box) -> np.ndarray:
        return np.asarray(self._array[box.slices()], dtype=self.description.dtype)

    def fingerprint(self) -> Fingerprint:
        return {}


def default_axes(ndim: int) -> tuple[Axis, ...]:
    """Axes for an array that does not name its own: yx, zyx, czyx, tczyx, atczyx."""
    if not 2 <= ndim <= len(NAMES):
        raise BadInput(f"an image has 2 to {len(NAMES)} axes, not {ndim}")
    return tuple(axis(name) for name in NAMES[-ndim:])


def check_plain(path: Path) -> os.stat_result | None:
    """Raise BadInput for what can only be read once, and waits for a writer: a pipe, a socket, a device. Returns the
    file's status, None if it is not there."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    for test, what in _UNFIT:
        if test(found.st_mode):
            raise BadInput(f"{path} is {what}: an import reads plain files, so write what comes out of it into one")
    return found


def stat_of(path: Path) -> object:
    """What of a file must stay the same; None if it is gone. BadInput for pipes and the like."""
    found = check_plain(path)
    if found is None:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def files_fingerprint(paths: Iterable[Path]) -> dict[str, object]:
    """A fingerprint of plain files."""
    return {str(path): stat_of(path) for path in paths}


def tree_fingerprint(folder: Path) -> dict[str, object]:
    """A fingerprint of every file below a directory."""
    found: dict[str, object] = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            found[str(path)] = stat_of(path)
    return found


def check_unchanged(before: Fingerprint, after: Fingerprint) -> None:
    """Raise BadInput, naming the first file that changed, appeared or went away in between."""
    for name in [*before, *(name for name in after if name not in before)]:
        if before.get(name) != after.get(name):
            raise BadInput(f"{name} changed while it was being read: nothing was imported, try again when it is still")


def unreadable(path: Path | str, why: object) -> BadInput:
    """The error for a file that cannot be read, in one line."""
    text = " ".join(str(why).split())
    return BadInput(f"{path} is unreadable or cut short" + (f": {text}" if text else ""))
