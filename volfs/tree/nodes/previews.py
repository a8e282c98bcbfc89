"""Pictures that are made of voxels and cannot be written: previews (``.jpg``), resampled planes.

Decided here: which window a preview has, the same for every plane and level of a channel, and for ever in a version.
What a preview looks like is decided in :mod:`volfs.views.jpeg`.
"""

from __future__ import annotations

from collections.abc import Callable

from volfs.errors import NotFound
from volfs.model.box import Box
from volfs.tree.branches.level_ref import LevelRef
from volfs.tree.core.context import TreeContext
from volfs.tree.core.node import Dir, Node
from volfs.tree.files.document import Document, DocumentFile
from volfs.tree.files.layout_file import Contents, LayoutFile
from volfs.views import jpeg
from volfs.views.colour import Window
from volfs.views.interpolation import Resampled
from volfs.views.layout import VoxelSource
from volfs.views.plane import PlaneSpec


def preview(
    ref: LevelRef,
    plane: PlaneSpec,
    others: tuple[int, ...],
    mtime: int,
    wrap: Callable[[VoxelSource], VoxelSource] | None = None,
) -> Document:
    """The preview of a plane of a level, or of ``wrap(level)`` where that is given. ``others`` are its indices along
    the axes besides the planes'."""
    level, geometry = ref.geometry()
    assert geometry is not None
    images = ref.images
    image = images.image(ref.image)
    is_label = image is not None and image.is_label

    def render() -> bytes:
        window = (0.0, 1.0) if is_label else window_of(ref, jpeg.channel(geometry, others))
        source = level if wrap is None else wrap(level)
        return jpeg.render(source, plane, window, is_label=is_label)

    if not is_label:  # the window is part of the picture
        mtime = max(mtime, _window_time(ref))
    return Document(render, mtime, images.snapshot.generation, lasting=images.lasting, pause=1.0, heavy=True)


def resampled_file(context: TreeContext, ino: int, up: Dir, name: str, ref: LevelRef, made: Resampled) -> Node:
    """The file of a picture that is computed between voxels."""
    level, box, layout = ref.level(), made.box, made.layout
    if layout is None:
        return DocumentFile(context, ino, up, preview(ref, made.plane, made.others, level.newest(box), made.wrap))

    def make() -> Contents:
        # Where its pixels lie follows from the name and the level's metadata, whose identity is the level's.
        return Contents(layout, made.wrap(level), level.newest(box), lambda: (level.stamp(box), id(level)))

    return LayoutFile(context, ino, up, name, ref.mounted, make)


def window_of(ref: LevelRef, channel: int) -> Window:
    """The intensities at which a channel is shown black and white; in a version they are looked for once. Blocking."""
    images = ref.images
    found = images.windows.get((ref.image, channel)) if images.lasting else None
    if found is None:
        coarsest = _coarsest(ref)
        level, geometry = coarsest.geometry()
        meta = images.meta(coarsest.image, coarsest.name)
        if geometry is None or meta is None:
            raise NotFound(f"{coarsest.name} has no planes")
        found = images.windows[ref.image, channel] = jpeg.window(geometry, level, channel, meta.attributes)
    return found


def _window_time(ref: LevelRef) -> int:
    """The time (ns) of the last change to what windows are computed from: the image's metadata and coarsest level."""
    images = ref.images
    known = images.window_times.get(ref.image) if images.lasting else None
    if known is None:
        node, level = images.snapshot.node(ref.image), _coarsest(ref).level()
        described = node.mtime_ns if node is not None else 0
        known = images.window_times[ref.image] = max(described, level.newest(Box.whole(level.shape)))
    return known


def _coarsest(ref: LevelRef) -> LevelRef:
    image = ref.images.image(ref.image)
    return LevelRef(ref.images, ref.image, image.levels[-1].name) if image is not None else ref
