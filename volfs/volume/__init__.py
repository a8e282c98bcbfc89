"""Images on a hierarchy: levels, reading and writing boxes, the cache of decoded blocks, prefetch, pyramids.

A request comes in as a box of a :class:`Level`. :mod:`~volfs.volume.reader` finds the blocks it crosses,
:mod:`~volfs.volume.blocks` loads them as stored and :mod:`~volfs.volume.derived` computes those that follow a changed
level above; :mod:`~volfs.volume.cache` keeps them. File formats are none of this room's business.
"""

from volfs.volume.image import Image, image_at, images
from volfs.volume.level import Level

__all__ = ["Image", "Level", "image_at", "images"]
