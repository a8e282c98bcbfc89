"""From the file of a slice to its voxels and back.

Decided here: what has to happen with a whole file for the slice to be it. Not here: when
(:mod:`volfs.tree.stagehandle`, :mod:`volfs.tree.edits`).
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from volfs.errors import BadInput, NotFound
from volfs.tree.stages import Place
from volfs.versions.keys import node_key
from volfs.views import slices
from volfs.views.layout import Layout
from volfs.views.plane import PlaneSpec
from volfs.volume.level import Level

if TYPE_CHECKING:
    from volfs.tree.levels import LevelRef

_PIECE = 4 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """A slice that can be written: everything needed to make voxels of a file. Its methods block."""

    ref: LevelRef
    plane: str
    others: tuple[int, ...]
    index: int
    ending: str
    ino: int
    place: Place

    def now(self) -> tuple[Level, PlaneSpec]:
        """The level and the plane as they are now. NotFound if the image has changed so that they are not."""
        level, geometry = self.ref.geometry()
        if geometry is None or self.plane not in geometry.planes or self.index >= geometry.count(self.plane):
            raise NotFound("the image has changed: there is no such slice any more")
        return level, geometry.spec(self.plane, self.index, self.others)

    def take(self, data: bytearray) -> Hashable:
        """Make the voxels of a whole file the slice's; returns the slice's stamp then.

        Raises Incomplete, BadInput, or what keeps the voxels from being stored.
        """
        level, plane = self.now()
        level.write(plane.box, slices.decode(self.ending, data, plane))
        return level.stamp(plane.box)

    def stamp(self) -> Hashable:
        """What names the voxels of the slice."""
        level, plane = self.now()
        return level.stamp(plane.box)

    def shown(self) -> tuple[Level, Layout]:
        """The file as it is shown when nobody writes it."""
        level, plane = self.now()
        layout = slices.layout(self.ending, plane)
        if layout is None:
            raise BadInput(f"these slices have no {self.ending}")
        return level, layout

    def pieces(self) -> Iterator[bytes]:
        """The bytes of that file."""
        level, layout = self.shown()
        memo: dict[str, tuple[int, int]] = {}
        for offset in range(0, layout.size, _PIECE):
            yield layout.read(level, offset, _PIECE, memo)

    def sync(self) -> None:
        """Make the voxels of the slice durable."""
        level, plane = self.now()
        room = self.ref.places.room
        assert room is not None
        working, meta, path = room.branch.working, level.array.meta, level.array.path
        for coords in meta.grid.iter(meta.grid.chunks(plane.box)):
            key = node_key(path, meta.chunk_key(coords))
            try:
                with working.open(key, os.O_RDONLY) as file:
                    file.fsync()
            except NotFound:
                working.sync_names(key)
