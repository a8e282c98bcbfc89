"""A level by name, of a version or of a mounted branch."""

from __future__ import annotations

from dataclasses import dataclass

from volfs.tree.branches.mounted_branch import MountedBranch, branch_of
from volfs.tree.images.image_index import ImageIndex
from volfs.views.slices import SliceGeometry
from volfs.volume.level import Level


@dataclass(frozen=True, slots=True)
class LevelRef:
    """A level, looked up again whenever it is needed: in a branch it may have changed, or gone."""

    images: ImageIndex
    image: str
    name: str

    @property
    def mounted(self) -> MountedBranch | None:
        """The branch; None in a version."""
        return branch_of(self.images)

    def level(self) -> Level:
        """Raises NotFound."""
        return self.images.level(self.image, self.name)

    def geometry(self) -> tuple[Level, SliceGeometry | None]:
        """The level and how its slices lie. Raises NotFound."""
        return self.images.geometry(self.image, self.name)
