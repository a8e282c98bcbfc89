"""What every store that is opened by :func:`volfs.open_store` is given: the way from a snapshot up to its images.

Decided here: what a path in a snapshot stands for, an image first and then a level. Nothing is imported before it is
asked for: whoever only looks at refs loads no voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from volfs.model.extras import needed

if TYPE_CHECKING:
    from volfs.versions.snapshot import Snapshot
    from volfs.volume.image import Image
    from volfs.volume.level import Level


class Face:
    """See :class:`volfs.versions.history.Face`. All are alike, and can be pickled."""

    def images(self, snapshot: Snapshot) -> Mapping[str, Image]:
        from volfs.volume.image import images

        return images(snapshot)

    def at(self, snapshot: Snapshot, path: str) -> Image | Level | None:
        from volfs.volume.image import image_at, level_at

        return image_at(snapshot, path) or level_at(snapshot, path)

    def data_array(self, level: Level) -> Any:
        with needed("xarray"):
            from volfs.python.labelled_array import data_array
        return data_array(level)

    def data_tree(self, image: Image) -> Any:
        with needed("xarray"):
            from volfs.python.labelled_array import data_tree
        return data_tree(image)

    def html(self, shown: object) -> str:
        from volfs.python.html import page

        return page(shown)
