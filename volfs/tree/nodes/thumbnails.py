"""``thumbnail.png``: of a snapshot the picture of its first image, of any other image its own.

Decided here: which image stands for a snapshot, and when a thumbnail is rendered anew. Not here: what it looks like
(:mod:`volfs.views.thumbnail`).
"""

from __future__ import annotations

from volfs.errors import NotFound
from volfs.tree.core.node import Dir, Node
from volfs.tree.files.document import Document, DocumentFile
from volfs.tree.images.image_index import ImageIndex
from volfs.views import thumbnail
from volfs.views.label_colours import LabelColours

THUMBNAIL = "thumbnail.png"
#: In the directory of an image or a snapshot. Kept once released: it is part of inodes.
THUMBNAIL_ORDINAL = 2


def pictured_image(images: ImageIndex) -> str | None:
    """The image that stands for a snapshot: the first one, and rather no label image."""
    if not images.pictured:
        return None
    found = [image for image in images.images() if images.geometry(image.path, image.levels[0].name)[1]]
    if not found:
        return None
    return min(found, key=lambda image: (image.is_label, image.path.count("/"), image.path)).path


def has_thumbnail(images: ImageIndex, path: str) -> bool:
    """Whether the image at a path has one."""
    image = images.image(path) if images.pictured else None
    return image is not None and images.geometry(path, image.levels[0].name)[1] is not None


def thumbnail_of(owner: Dir, images: ImageIndex, path: str | None) -> Node | None:
    """The thumbnail of the image at a path, in its own directory; None if it has none. Without a path, that of the
    whole snapshot, in the snapshot's."""
    if (pictured_image(images) is None) if path is None else not has_thumbnail(images, path):
        return None
    context, snapshot = owner.context, images.snapshot

    def render() -> bytes:
        shown = pictured_image(images) if path is None else path
        image = images.image(shown) if shown is not None else None
        if image is None:
            raise NotFound("there is no image to show")
        pairs = [(images.geometry(image.path, level.name)[1], level) for level in image.levels]
        levels = [(geometry, level) for geometry, level in pairs if geometry is not None]
        meta = images.meta(image.path, image.levels[0].name) if image.is_label else None
        colours = LabelColours.of(meta.attributes) if meta is not None else None
        return thumbnail.render(levels, is_label=image.is_label, colours=colours)

    base = snapshot.base
    mtime = base.time_ns if base is not None else context.started_ns
    pause = 0.0 if images.lasting else 1.0
    document = Document(render, mtime, snapshot.generation, lasting=images.lasting, pause=pause, heavy=True)
    return DocumentFile(context, context.inodes.file(owner.ino, THUMBNAIL_ORDINAL), owner, document)
