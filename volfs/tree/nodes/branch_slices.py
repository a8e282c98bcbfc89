"""Writing slices.

Decided here: which file becomes which slice, and that removing a slice hides its name for some seconds: its voxels
stay. How a file that is being written behaves is decided in :mod:`volfs.tree.files.staged_dir`, formats in
:mod:`volfs.views`."""

from __future__ import annotations

import re

from volfs.errors import NotAllowed
from volfs.tree.branches.mounted_branch import MountedBranch
from volfs.tree.branches.stages import SlicePath, StageTarget
from volfs.tree.branches.targets import SliceTarget
from volfs.tree.files.staged_dir import Writer
from volfs.tree.nodes.slices import PlaneDir, SliceFile
from volfs.views import slices

#: A name like those of slices, in the directory of any plane.
_SLICE_LIKE = re.compile(r"[xyz][0-9]{5,}\.(?:iso\.)?(?:png|tif|tiff|npy|jpg)")


class SliceWriter(Writer):
    """The slices of a plane directory of a branch, to be written."""

    word = "slice"
    kind = SliceFile

    def __init__(self, planes: PlaneDir, mounted: MountedBranch) -> None:
        self._planes = planes
        self._mounted = mounted

    @property
    def writable(self) -> bool:
        return self._planes.writable

    async def enter(self) -> None:
        await self._mounted.enter()
        ref = self._planes.ref
        if await self._mounted.asked(lambda: ref.level().derived):
            raise NotAllowed(f"{ref.name} is computed from s0: write s0")

    def place(self, name: str) -> SlicePath:
        planes = self._planes
        return planes.ref.images.relative(planes.path), name

    def target(self, name: str) -> StageTarget | None:
        planes = self._planes
        parsed = planes.facts.geometry.parse(planes.plane, name)
        if parsed is None or parsed[1] not in slices.ENDINGS or planes.size(parsed[1]) is None:
            return None
        ino = planes.context.inodes.file(planes.ino, planes.ordinal(*parsed))
        return SliceTarget(
            self._mounted.branch, planes.ref, planes.plane, planes.others, parsed[0], parsed[1], ino, self.place(name)
        )

    def is_like(self, name: str) -> bool:
        return _SLICE_LIKE.fullmatch(name) is not None

    def size(self) -> int:
        return self._planes.size(self._planes.facts.ending) or 0

    def files(self) -> str:
        facts = self._planes.facts
        return f"{facts.count}, of {facts.ending[1:]}"

    async def remove(self, name: str) -> None:
        self._mounted.hide(self.place(name))
