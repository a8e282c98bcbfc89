"""Writing slices.

Decided here: which file becomes which slice, and that removing a slice hides its name for some seconds: its voxels
stay. How a file that is being written behaves is decided in :mod:`volfs.tree.staged`, formats in :mod:`volfs.views`.
"""

from __future__ import annotations

from volfs.errors import NotAllowed
from volfs.tree.attrs import READ_ONLY, SOON, WRITABLE, Attr
from volfs.tree.level_ref import LevelRef
from volfs.tree.node import Dir, Node
from volfs.tree.planes import PlaneDir, SliceFile
from volfs.tree.room import MountedBranch
from volfs.tree.shared import Shared
from volfs.tree.staged import StagedDir, StagedFile
from volfs.tree.stages import SlicePath, StageTarget
from volfs.tree.targets import SliceTarget
from volfs.views import slices


class EditablePlaneDir(StagedDir, PlaneDir):
    """``xy/`` and the like in a branch."""

    word = "slice"

    def __init__(
        self, shared: Shared, ino: int, up: Dir, path: str, ref: LevelRef, plane: str, others: tuple[int, ...]
    ) -> None:
        PlaneDir.__init__(self, shared, ino, up, path, ref, plane, others)
        assert ref.room is not None
        self.room: MountedBranch = ref.room

    def place(self, name: str) -> SlicePath:
        return self.ref.places.relative(self.path), name

    @property
    def file_mode(self) -> int:
        writable = self.room.writable and not self.facts.level.derived
        return WRITABLE if writable else READ_ONLY

    def slice_node(self, ino: int, index: int, ending: str) -> Node:
        return EditableSlice(self.shared, ino, self, index, ending)

    def attr(self) -> Attr:
        level, room = self.ref.level(), self.room
        mtime = max(level.array.mtime_ns, room.touched(self.ino))
        return self.directory_attr(mtime, SOON, writable=room.writable and not level.derived)

    def target(self, name: str) -> StageTarget | None:
        parsed = self.facts.geometry.parse(self.plane, name)
        if parsed is None or parsed[1] not in slices.ENDINGS or self.size(parsed[1]) is None:
            return None
        ino = self.shared.inodes.file(self.ino, self.ordinal(*parsed))
        return SliceTarget(
            self.room.branch, self.ref, self.plane, self.others, parsed[0], parsed[1], ino, self.place(name)
        )

    def means_file(self, name: str) -> bool:
        return self.means_slice(name)

    def staged_size(self) -> int:
        return self.size(self.facts.ending) or 0

    def has_files(self) -> str:
        return f"{self.facts.count}, of {self.facts.ending[1:]}"

    async def check_writable(self) -> None:
        """NotAllowed for a level that is computed from another."""
        await self.room.enter()
        if self.ref.level().derived:
            raise NotAllowed(f"{self.ref.name} is computed from s0: write s0")

    async def removed(self, name: str) -> None:
        self.room.hide(self.place(name))


class EditableSlice(StagedFile, SliceFile):
    """One slice of a branch."""

    up: EditablePlaneDir

    @property
    def place(self) -> SlicePath:
        return self.up.place(self.up.facts.geometry.name(self.up.plane, self.index, self.ending))
