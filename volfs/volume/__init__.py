"""Images on a hierarchy: boxes of voxels read and written, decoded blocks kept, coarser levels computed.

``plan``            which images a snapshot has; ``image`` :class:`Image`, one of them, with its levels
``level``           :class:`Level`, from which boxes are read as from an array; ``selection`` numpy's indexing as boxes,
                    ``index_lists`` that by lists and masks as pieces of boxes
``reader``          from a box to the blocks it crosses; ``deadline`` until when, ``travel`` what is read ahead
``pencils``         rows of blocks, decoded side by side for whoever takes plane after plane
``planes``          the memory of decoded planes, for who puts files together from it
``cache``           decoded blocks, bounded in bytes; ``blocks`` how one is loaded, ``maps`` which payload holds it
``derivation``      blocks computed from a changed level above; ``downsample`` the arithmetic, ``changed_keys`` of a
                    branch
``writer``          boxes written into a branch; ``pyramid`` the coarser levels that a commit writes
``difference``      two versions as one snapshot: pictures and masks of what differs
``payloads``        stored bytes that formats pass through unchanged
``volume_context``  what the images of one store share; ``workers`` the threads that decode and encode

File formats are none of this room's business.
"""

from volfs.volume.image import Image, image_at, images
from volfs.volume.level import Level

__all__ = ["Image", "Level", "image_at", "images"]
