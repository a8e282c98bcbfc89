"""Previews of planes: ``.jpg`` beside slices and cutouts, rendered whole.

Decided here: which window a preview has, the same for every plane and level of a channel, and for ever in a version.
What a preview looks like is decided in :mod:`volfs.views.jpeg`.
"""

from __future__ import annotations

from volfs.tree.generated import Document
from volfs.tree.places import LevelRef
from volfs.views import jpeg
from volfs.views.plane import PlaneSpec


def preview(ref: LevelRef, plane: PlaneSpec, others: tuple[int, ...], mtime: int) -> Document:
    """The preview of a plane of a level. ``others`` are its indices along the axes besides the planes'."""
    level, geometry = ref.geometry()
    assert geometry is not None
    places = ref.places
    image = places.image(ref.image)
    is_label = image is not None and image.is_label

    def render() -> bytes:
        window = places.windows.get((ref.image, others)) if places.lasting else None
        if window is None and not is_label:
            coarsest = image.levels[-1] if image is not None else level
            coarse = places.geometry(ref.image, coarsest.name)[1] or geometry
            at = tuple(min(index, other.count - 1) for index, other in zip(others, coarse.others, strict=True))
            window = places.windows[ref.image, others] = jpeg.window(coarse, coarsest, at)
        return jpeg.render(level, plane, window or (0.0, 1.0), is_label=is_label)

    return Document(render, mtime, places.snapshot.generation, lasting=places.lasting, pause=1.0, heavy=True)
