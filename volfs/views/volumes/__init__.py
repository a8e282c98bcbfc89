"""Volume files: a level, or a box of it, as one file of a format that holds volumes.

``volume_spec``  from a level, or a box of it, to the :class:`volfs.views.volume.VolumeSpec` that a file shows
``orientation``  voxel sizes and orientation, as most formats count them
``tiff`` ``nifti`` ``nrrd`` ``npy`` ``mrc`` ``raw`` ``metaimage`` ``hdf5``  one format or one family of them each

Decided here: which formats there are, and which name stands for which.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from volfs.views.layout import Layout
from volfs.views.volume import VolumeFormat, VolumeSpec
from volfs.views.volumes import hdf5, metaimage, mrc, nifti, npy, nrrd, raw, tiff

#: By ending. Of two that fit a name, the longer one counts.
FORMATS: Mapping[str, VolumeFormat] = {
    one.ending: one
    for one in chain[VolumeFormat](
        tiff.FORMATS,
        nifti.FORMATS,
        nrrd.FORMATS,
        npy.FORMATS,
        mrc.FORMATS,
        raw.FORMATS,
        metaimage.FORMATS,
        hdf5.FORMATS,
    )
}


def listed(spec: VolumeSpec) -> list[VolumeFormat]:
    """The formats that hold a volume, in the order in which they are listed."""
    return [one for one in FORMATS.values() if one.holds(spec)]


def layout(ending: str, spec: VolumeSpec) -> Layout | None:
    """The layout of a volume file; None if there is no such format, or it cannot hold the volume."""
    one = FORMATS.get(ending)
    return one.layout(spec) if one is not None and one.holds(spec) else None
