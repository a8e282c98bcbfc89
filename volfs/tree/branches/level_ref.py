"""A level by name, of a version or of a mounted branch."""

from __future__ import annotations

from dataclasses import dataclass, field

from volfs.tree.branches.mounted_branch import MountedBranch, branch_of
from volfs.tree.images.image_index import ImageIndex
from volfs.views.slices import SliceGeometry
from volfs.volume.level import Level


@dataclass(frozen=True, slots=True)
class LevelRef:
    """A level, looked up again whenever it is needed: in a branch it may have changed, or gone.

    ``mounted`` is the branch; None in a version."""

    images: ImageIndex
    image: str
    name: str
    mounted: MountedBranch | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mounted", branch_of(self.images))  # once: it is asked for with every slice

    def level(self) -> Level:
        """Raises NotFound."""
        return self.images.level(self.image, self.name)

    def geometry(self) -> tuple[Level, SliceGeometry | None]:
        """The level and how its slices lie. Raises NotFound."""
        return self.images.geometry(self.image, self.name)
