"""Pictures that are made of voxels and cannot be written: previews (``.jpg``, 8-bit PNGs), resampled planes.

Decided here: which window or which colours a preview has, the same for every plane and level of a channel, and for ever
in a version. What a preview looks like is decided in :mod:`volfs.views.jpeg` and :mod:`volfs.views.eight_bits`; which
directories list some in :mod:`volfs.tree.nodes.preview_slices`.
"""

from __future__ import annotations

from collections.abc import Callable

from volfs.errors import NotFound
from volfs.model.box import Box, Index
from volfs.tree.branches.level_ref import LevelRef
from volfs.tree.core.context import TreeContext
from volfs.tree.core.node import Dir, Node
from volfs.tree.files.document import Document, DocumentFile
from volfs.tree.files.layout_file import Contents, LayoutFile
from volfs.views import jpeg
from volfs.views.colour import Window
from volfs.views.eight_bits import EightBits, shown_geometry
from volfs.views.interpolation import Resampled
from volfs.views.label_colours import LabelColours
from volfs.views.layout import Layout, Shifted, VoxelSource
from volfs.views.plane import PlaneSpec
from volfs.views.slices import SliceGeometry


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

    def render() -> bytes:
        source = level if wrap is None else wrap(level)
        if is_label(ref):
            return jpeg.render(source, plane, (0.0, 1.0), is_label=True, colours=colours_of(ref))
        return jpeg.render(source, plane, window_of(ref, jpeg.channel(geometry, others)))

    mtime = max(mtime, look_time(ref))
    return Document(render, mtime, images.snapshot.generation, lasting=images.lasting, pause=1.0, heavy=True)


def eight_bit_layout(geometry: SliceGeometry, plane: str, *, is_label: bool) -> Layout | None:
    """The layout of the first of a plane's 8-bit PNGs (:meth:`volfs.views.slices.SliceGeometry.layout`); None if they
    have none."""
    return shown_geometry(geometry, is_label=is_label).layout(plane, ".png")


def eight_bit_contents(ref: LevelRef, layout: Layout, start: Index, others: tuple[int, ...], mtime: int) -> Contents:
    """The 8-bit PNG of the plane whose box begins at ``start``. ``others`` are its indices along the axes besides the
    planes'."""
    level, geometry = ref.geometry()
    assert geometry is not None
    images, labels = ref.images, is_label(ref)
    channel = jpeg.channel(geometry, others)

    def look() -> Window | LabelColours:
        return colours_of(ref) if labels else window_of(ref, channel)

    made = EightBits(level, geometry, look, labels)
    source = Shifted(made, start if len(start) == len(made.shape) else (*start, 0))
    return Contents(layout, source, mtime, images.snapshot.generation)


def is_label(ref: LevelRef) -> bool:
    """Whether an image is shown as labels: one whose pixels have samples is a colour picture in any case."""
    image = ref.images.image(ref.image)
    return image is not None and image.is_label and not image.rgb


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
    """The intensities at which a channel is shown black and white; they are looked for once while nothing changes.
    Blocking."""
    images = ref.images
    generation = images.snapshot.generation()
    known = images.windows.get((ref.image, channel))
    if known is not None and known[0] == generation:
        return known[1]
    coarsest = _coarsest(ref)
    level, geometry = coarsest.geometry()
    meta = images.meta(coarsest.image, coarsest.name)
    if geometry is None or meta is None:
        raise NotFound(f"{coarsest.name} has no planes")
    found = jpeg.window(geometry, level, channel, meta.attributes)
    images.windows[ref.image, channel] = generation, found
    return found


def colours_of(ref: LevelRef) -> LabelColours:
    """The colours of an image's labels."""
    meta = ref.images.meta(ref.image, ref.name)
    return LabelColours.of(meta.attributes) if meta is not None else LabelColours()


def look_time(ref: LevelRef) -> int:
    """The time (ns) of the last change to what windows and colours come from: the image's metadata, and for windows
    its coarsest level. They are part of every preview."""
    images = ref.images
    known = images.window_times.get(ref.image) if images.lasting else None
    if known is None:
        node = images.snapshot.node(ref.image)
        known = node.mtime_ns if node is not None else 0
        if not is_label(ref):
            level = _coarsest(ref).level()
            known = max(known, level.newest(Box.whole(level.shape)))
        images.window_times[ref.image] = known
    return known


def _coarsest(ref: LevelRef) -> LevelRef:
    image = ref.images.image(ref.image)
    return LevelRef(ref.images, ref.image, image.levels[-1].name) if image is not None else ref
