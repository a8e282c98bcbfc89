"""From a whole file to its voxels and back.

Decided here: how the bytes of a whole file become the voxels of a slice. Not here: when
(:mod:`volfs.tree.branches.stage_handle`, :mod:`volfs.tree.files.staged_dir`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from volfs.errors import BadInput, NotFound
from volfs.model.box import Box
from volfs.tree.branches.level_ref import LevelRef
from volfs.tree.branches.stages import SlicePath, Voxels
from volfs.tree.core.layout_handle import QuickShifted
from volfs.versions.branch import Branch
from volfs.versions.keys import node_key
from volfs.views import slices
from volfs.views.layout import Layout, VoxelSource
from volfs.views.plane import PlaneSpec
from volfs.volume.level import Level

_PIECE = 4 << 20


@dataclass(frozen=True, slots=True)
class SliceTarget:
    """A slice, as a file to be written over."""

    branch: Branch
    ref: LevelRef
    plane: str
    others: tuple[int, ...]
    index: int
    ending: str
    ino: int
    place: SlicePath

    @property
    def keeps_refused(self) -> bool:
        return True

    def now(self) -> tuple[Level, PlaneSpec]:
        """The level and the plane as they are now. NotFound if the image has changed so that they are not."""
        level, geometry = self.ref.geometry()
        if geometry is None or self.plane not in geometry.planes or self.index >= geometry.count(self.plane):
            raise NotFound("the image has changed: there is no such slice any more")
        return level, geometry.spec(self.plane, self.index, self.others)

    def digest(self) -> str:
        level, plane = self.now()
        return digest_of(level, plane.box)

    def parse(self, data: bytearray) -> Voxels:
        return slices.decode(self.ending, data, self.now()[1])

    def store(self, voxels: Voxels | None, parts: Sequence[Box] | None = None) -> Hashable:
        level, plane = self.now()
        assert voxels is not None
        write_parts(level, plane.box, voxels, parts)
        return level.stamp(plane.box)

    def unchanged(self, since_ns: int) -> list[Box]:
        level, plane = self.now()
        return unchanged_parts(level, plane.box, since_ns)

    def newest(self) -> int:
        level, plane = self.now()
        return level.newest(plane.box)

    def stamp(self) -> Hashable:
        level, plane = self.now()
        return level.stamp(plane.box)

    def rendered(self) -> tuple[QuickShifted, Layout]:
        level, plane = self.now()
        geometry = self.ref.geometry()[1]
        layout = geometry.layout(self.plane, self.ending) if geometry is not None else None
        if layout is None:
            raise BadInput(f"these slices have no {self.ending}")
        return QuickShifted(level, plane.box.start), layout

    def pieces(self) -> Iterator[bytes]:
        return pieces_of(*self.rendered())

    def sync(self) -> None:
        level, plane = self.now()
        sync_voxels(self.branch, level, [plane.box])


def pieces_of(source: VoxelSource, layout: Layout) -> Iterator[bytes]:
    """All bytes of a file, piece by piece."""
    memo: dict[str, tuple[int, int]] = {}
    for offset in range(0, layout.size, _PIECE):
        yield layout.read(source, offset, _PIECE, memo)


def digest_of(level: Level, box: Box) -> str:
    """A digest of a box of an array, whatever the array's extent is."""
    said = repr((level.array.path, level.dtype.str, box.start, box.stop))
    return hashlib.blake2b(said.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def write_parts(level: Level, box: Box, voxels: Voxels, parts: Sequence[Box] | None) -> None:
    """Put voxels into a box, or into some parts of it only. Blocks."""
    for part in (box,) if parts is None else parts:
        level.write(part, voxels[part.relative_to(box.start).slices()])


def unchanged_parts(level: Level, box: Box, since_ns: int) -> list[Box]:
    """The parts of a box that lie in chunks which have not changed since a time. Blocks."""
    grid = level.array.meta.grid
    parts = [grid.chunk_box(coords).intersect(box) for coords in grid.iter(grid.chunks(box))]
    return [part for part in parts if level.newest(part) <= since_ns]


def sync_voxels(branch: Branch, level: Level, boxes: Sequence[Box]) -> None:
    """Make the voxels of some boxes of a branch's level durable. Blocks."""
    working, meta, path = branch.working, level.array.meta, level.array.path
    for coords in sorted({coords for box in boxes for coords in meta.grid.iter(meta.grid.chunks(box))}):
        key = node_key(path, meta.chunk_key(coords))
        try:
            with working.open(key, os.O_RDONLY) as file:
                file.fsync()
        except NotFound:
            working.sync_names(key)
