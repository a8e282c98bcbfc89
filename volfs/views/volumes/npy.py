"""NPY volumes (NumPy NEP 1, format 1.0): all axes in C order, little-endian, for ``np.load(…, mmap_mode="r+")``.

The header is that of NPY slices, :mod:`volfs.views.npy`. It says shape and dtype and nothing else.
"""

from __future__ import annotations

from volfs.views import npy
from volfs.views.layout import Layout, Literal, Voxels
from volfs.views.volume import VolumeFormat, VolumeSpec


def _holds(spec: VolumeSpec) -> bool:
    return npy.holds(spec.dtype)


def _layout(spec: VolumeSpec) -> Layout:
    voxels = Voxels(spec.box, spec.order, spec.dtype.newbyteorder("<"))
    return Layout(Literal(npy.header(spec.shape, spec.dtype)), voxels)


FORMATS = (VolumeFormat(".npy", 6, _holds, _layout),)
